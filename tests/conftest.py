"""Check the shapes in the signatures of everything the tests import."""

import os

import pytest
import torch
from jaxtyping import install_import_hook

if not torch.cuda.is_available():  # read when triton is imported, which diffusers may do
    os.environ["TRITON_INTERPRET"] = "1"

with install_import_hook(
    ["patchmosaic.posterior", "patchmosaic.symmetry", "patchmosaic.dictionary", "patchmosaic.engines"],
    "beartype.beartype",
):
    import patchmosaic


@pytest.fixture(scope="session")
def digits():
    return patchmosaic.load_dataset("digits")
