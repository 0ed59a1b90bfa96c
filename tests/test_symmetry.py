"""Who may stand in for whom, against the border rule in loops; and the flips and rotations as groups."""

from collections import Counter

import numpy as np
import pytest
import torch

from brute_force import border_signature
from patchmosaic import InputError
from patchmosaic.symmetry import POINT_GROUPS, Block, Rules, position_blocks, transform

SIZES = ((1, 1), (1, 4), (3, 5), (5, 3), (4, 4), (7, 4))
CASES = [(h, w, window) for h, w in SIZES for window in range(1, 2 * max(h, w) + 4, 2)]
INSIDE_CASES = [(h, w, window) for h, w, window in CASES if window <= min(h, w)]
every_case = pytest.mark.parametrize(("height", "width", "window"), CASES)

LOCAL = Rules(translation=False, padding="zeros")
WRAPPED = Rules(translation=True, padding="circular")
BOUNDARY_BROKEN = Rules(translation=True, padding="zeros")
INSIDE = Rules(translation=True, padding="circular", keys="inside")


def pairs_of(blocks) -> Counter:
    """How often each (query, key) pair is met."""
    return Counter(
        (query, key)
        for block in blocks
        for queries, keys in zip(block.queries.tolist(), block.keys.tolist(), strict=True)
        for query in queries
        for key in keys
    )


def pairs_where(height, width, may_stand_in) -> Counter:
    """The same for a rule on two pixels, each pair once."""
    pixels = [(i, j) for i in range(height) for j in range(width)]
    return Counter(
        (query[0] * width + query[1], key[0] * width + key[1])
        for query in pixels
        for key in pixels
        if may_stand_in(query, key)
    )


def is_inside(pixel, height, width, window) -> bool:
    r = (window - 1) // 2
    return r <= pixel[0] < height - r and r <= pixel[1] < width - r


# --- position blocks -----------------------------------------------------------------------------------


@pytest.mark.parametrize("rules", [LOCAL, WRAPPED, BOUNDARY_BROKEN, INSIDE], ids=str)
def test_every_query_once(rules):
    for height, width, window in INSIDE_CASES if rules == INSIDE else CASES:
        blocks = position_blocks(height, width, window, rules)
        queries = [query for block in blocks for query in block.queries.flatten().tolist()]
        assert sorted(queries) == list(range(height * width))
        for block in blocks:
            assert len(block.queries) == len(block.keys)


@every_case
def test_border_rule(height, width, window):
    def sees_the_same(query, key):
        return border_signature(*query, height, width, window) == border_signature(
            *key, height, width, window
        )

    blocks = position_blocks(height, width, window, BOUNDARY_BROKEN)
    assert pairs_of(blocks) == pairs_where(height, width, sees_the_same)


@pytest.mark.parametrize("padding", ["zeros", "circular"])
@every_case
def test_local_stands_in_for_itself(height, width, window, padding):
    blocks = position_blocks(height, width, window, Rules(translation=False, padding=padding))
    assert pairs_of(blocks) == pairs_where(height, width, lambda query, key: query == key)


@every_case
def test_wrapped_stands_in_for_all(height, width, window):
    blocks = position_blocks(height, width, window, WRAPPED)
    assert pairs_of(blocks) == pairs_where(height, width, lambda query, key: True)


@pytest.mark.parametrize(("height", "width", "window"), INSIDE_CASES)
def test_inside_keys(height, width, window):
    blocks = position_blocks(height, width, window, INSIDE)
    expected = pairs_where(height, width, lambda query, key: is_inside(key, height, width, window))
    assert pairs_of(blocks) == expected
    assert len(expected) == height * width * (height - window + 1) * (width - window + 1)


@pytest.mark.parametrize(("height", "width", "window"), [(3, 5, 5), (5, 3, 5), (4, 4, 5), (1, 1, 3)])
def test_no_window_inside(height, width, window):
    with pytest.raises(
        InputError, match=f"no {window}x{window} window lies inside a {height}x{width} image"
    ) as caught:
        position_blocks(height, width, window, INSIDE)
    assert "\n" not in str(caught.value)


def test_numbers_of_keys_by_hand():
    """5x6 with P = 3: 3x4 interior pixels, two edges of 4, two of 3, four corners."""
    blocks = position_blocks(5, 6, 3, BOUNDARY_BROKEN)
    sizes = Counter()
    for block in blocks:
        assert block.queries.shape == block.keys.shape
        sizes[block.queries.shape[1]] += len(block.queries)
    assert sizes == {12: 1, 4: 2, 3: 2, 1: 4}


# --- splitting -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("rules", [LOCAL, WRAPPED, BOUNDARY_BROKEN, INSIDE], ids=str)
@pytest.mark.parametrize("key_size", [1, 9, 1000])
@pytest.mark.parametrize("limit", [0, 1, 2, 5, 9, 30, 10**6])
def test_split_keeps_every_pair(rules, key_size, limit):
    whole = position_blocks(5, 6, 3, rules)
    pieces = [piece for block in whole for piece in block.split(limit, key_size)]
    assert pairs_of(pieces) == pairs_of(whole)
    for piece in pieces:
        assert piece.queries.numel() <= max(1, limit)
        assert len(piece.keys) * key_size <= limit or len(piece.keys) == 1
    if limit == 10**6:
        assert len(pieces) == len(whole)


def test_split_fills_the_limit():
    block = Block(torch.arange(12).view(6, 2), torch.arange(12).view(6, 2))
    assert [len(piece.queries) for piece in block.split(8, 1)] == [4, 2]
    assert [len(piece.queries) for piece in block.split(8, 4)] == [2, 2, 2]
    assert [piece.queries.shape for piece in block.split(1, 1)] == [(1, 1)] * 12


# --- rules ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((True, "reflect"), "padding must be"),
        ((True, "zeros", "some"), "keys must be"),
        ((True, "zeros", "inside"), "keys='inside' needs"),
        ((False, "circular", "inside"), "keys='inside' needs"),
    ],
)
def test_rules_that_make_no_sense(arguments, message):
    with pytest.raises(InputError, match=message) as caught:
        Rules(*arguments)
    assert "\n" not in str(caught.value)


# --- point groups --------------------------------------------------------------------------------------

IMAGE = torch.from_numpy(np.random.default_rng(0).normal(size=(2, 4, 4)))
every_group = pytest.mark.parametrize("group", POINT_GROUPS)


def orbit(image, group) -> list[bytes]:
    return [transform(image, element).numpy().tobytes() for element in POINT_GROUPS[group]]


@every_group
def test_identity_comes_first(group):
    assert torch.equal(transform(IMAGE, POINT_GROUPS[group][0]), IMAGE)


@pytest.mark.parametrize(("group", "size"), [("identity", 1), ("flip", 2), ("rotations", 4), ("d4", 8)])
def test_distinct_elements(group, size):
    assert len(POINT_GROUPS[group]) == len(set(orbit(IMAGE, group))) == size


@every_group
def test_closed_under_composition(group):
    whole = set(orbit(IMAGE, group))
    for element in POINT_GROUPS[group]:
        assert set(orbit(transform(IMAGE, element), group)) == whole


@pytest.mark.parametrize(
    ("group", "expected"),
    [
        ("flip", {(0, False), (0, True)}),
        ("rotations", {(turns, False) for turns in range(4)}),
        ("d4", {(turns, flip) for turns in range(4) for flip in (False, True)}),
    ],
)
def test_elements_are_flips_and_quarter_turns(group, expected):
    def by_loops(turns, flip):
        image = IMAGE.tolist()
        for _ in range(turns):
            image = [[[row[j] for row in channel] for j in reversed(range(4))] for channel in image]
        return [[row[::-1] if flip else row for row in channel] for channel in image]

    assert set(orbit(IMAGE, group)) == {np.array(by_loops(*element)).tobytes() for element in expected}


def test_a_flip_mirrors_columns():
    image = torch.arange(6.0).view(1, 2, 3)
    assert transform(image, (0, True)).tolist() == [[[2, 1, 0], [5, 4, 3]]]
    assert transform(image, (1, False)).tolist() == [[[2, 5], [1, 4], [0, 3]]]
    assert transform(image, (1, True)).tolist() == [[[5, 2], [4, 1], [3, 0]]]


def test_batches_are_transformed_image_by_image():
    batch = torch.randn(3, 2, 4, 4, generator=torch.Generator().manual_seed(0))
    for element in POINT_GROUPS["d4"]:
        assert torch.equal(transform(batch, element), torch.stack([transform(x, element) for x in batch]))
