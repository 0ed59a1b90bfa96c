"""Check the shapes in the signatures of everything the tests import."""

import pytest
from jaxtyping import install_import_hook

with install_import_hook(
    ["patchmosaic.posterior", "patchmosaic.symmetry", "patchmosaic.dictionary", "patchmosaic.engines"],
    "beartype.beartype",
):
    import patchmosaic


@pytest.fixture(scope="session")
def digits():
    return patchmosaic.load_dataset("digits")
