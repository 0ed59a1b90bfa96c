"""Check the shapes in the signatures of everything the tests import."""

from jaxtyping import install_import_hook

with install_import_hook(
    ["patchmosaic.posterior", "patchmosaic.symmetry", "patchmosaic.dictionary", "patchmosaic.engines"],
    "beartype.beartype",
):
    import patchmosaic  # noqa: F401
