"""A picture as a mosaic: neighbouring pixels that copy one training image at one offset."""

from dataclasses import dataclass, field

import torch
from jaxtyping import Int
from torch import Tensor

from patchmosaic.errors import InputError, check_count
from patchmosaic.explain.provenance import Provenance


@dataclass(frozen=True)
class Fragment:
    """Pixels, side by side, that come from one training image at one offset.

    Attributes:
        image: index of the training image.
        down: rows from a pixel to its source.
        right: columns from a pixel to its source.
        element: of the machine's group, which acts on the image first; see :class:`Provenance`.
        size: number of pixels.
        box: first and last row, first and last column.
    """

    image: int
    down: int
    right: int
    element: int
    size: int
    box: tuple[int, int, int, int]


@dataclass(frozen=True, eq=False)
class Mosaic:
    """The fragments of one picture, largest first.

    Attributes:
        fragments: all of them.
        number: which of them each pixel belongs to; -1 where the source is ambiguous.
    """

    fragments: tuple[Fragment, ...]
    number: Int[Tensor, "h w"] = field(repr=False)

    def sources(self) -> list[tuple[int, int]]:
        """Each training image and how many pixels come from it, most first."""
        totals: dict[int, int] = {}
        for fragment in self.fragments:
            totals[fragment.image] = totals.get(fragment.image, 0) + fragment.size
        return sorted(totals.items(), key=lambda item: (-item[1], item[0]))


def mosaic(found: Provenance, i: int = 0) -> Mosaic:
    """Join neighbouring pixels (4-neighbourhood) whose best sources lie in one training image at one offset.

    Args:
        found: where the pixels of some pictures come from.
        i: which of the pictures.

    Raises:
        InputError: no such picture, or only one pixel of it was traced.
    """
    from scipy.ndimage import find_objects
    from skimage.measure import label

    count, _, height, width = found.image.shape
    check_count("the picture", i, 0, count - 1)
    if found.pixel is not None:
        raise InputError("a mosaic needs all pixels: call provenance without pixel")
    image, row, column, element = (part[i, 0] for part in (found.image, found.row, found.col, found.element))
    down, right = row - torch.arange(height)[:, None], column - torch.arange(width)
    if found.wraps:
        down, right = down % height, right % width
    source_of = {"image": image, "down": down, "right": right, "element": element}
    sources = torch.stack(list(source_of.values()))
    kinds = sources.flatten(1).unique(dim=1, return_inverse=True)[1].view(height, width)
    labels = label(kinds.masked_fill(found.ambiguous[i], -1).numpy(), background=-1, connectivity=1)
    boxes, number = find_objects(labels), torch.from_numpy(labels).long() - 1
    known = number >= 0
    sizes, order = number[known].bincount().sort(descending=True, stable=True)
    number[known] = order.argsort()[number[known]]
    of_fragments = sources.new_empty(len(sources), len(order))
    of_fragments[:, number[known]] = sources[:, known]
    fragments = []
    for piece, size, values in zip(order.tolist(), sizes.tolist(), of_fragments.T.tolist(), strict=True):
        rows, columns = boxes[piece]
        source = dict(zip(source_of, values, strict=True))
        box = (rows.start, rows.stop - 1, columns.start, columns.stop - 1)
        fragments.append(Fragment(**source, size=size, box=box))
    return Mosaic(tuple(fragments), number)
