"""Structures: shapes whose parts, holes and runs are known, what is left out, and what a class's norm flags."""

import math

import pytest
import torch

from patchmosaic import InputError
from patchmosaic.explain import Norm, agreement, count_structures, wilson
from patchmosaic.explain.structures import SPECK

SHAPES = {  # drawing, parts, holes, profile
    "trousers": ("####/####/#..#/#..#/#..#", 1, 0, (1, 2)),
    "three legs": ("#####/#####/#.#.#/#.#.#", 1, 0, (1, 3)),
    "torn": ("####/####/..../####/####", 2, 0, (1,)),
    "ring": ("######/######/##..##/##..##/##..##/######/######", 1, 1, (1, 2, 1)),
    "two holes": ("#########/##..#..##/##..#..##/##..#..##/#########", 1, 2, (3,)),
    "diagonal": ("###.../###.../...###/...###", 1, 0, (1,)),
    "leaking": ("######/#...##/#...##/#...##/.#####", 1, 1, (2,)),
    "open below": ("#####/##.##/##.##", 1, 0, (2,)),
    "empty": ("..../..../....", 0, 0, ()),
}


def picture(drawing, height=12, width=12, top=0, left=0):
    """(1, 1, H, W) with ink 1 and paper -1, the drawing at the given place."""
    rows = torch.tensor([[1.0 if mark == "#" else -1.0 for mark in row] for row in drawing.split("/")])
    image = torch.full((1, 1, height, width), -1.0)
    image[0, 0, top : top + rows.shape[0], left : left + rows.shape[1]] = rows
    return image


def counted(image, **options):
    parts, holes, _ = found = count_structures(image, **options)
    return int(parts), int(holes), found.profiles[0]


@pytest.mark.parametrize("name", SHAPES)
@pytest.mark.parametrize(("top", "left"), [(0, 0), (2, 3), (5, 3)])
def test_known_shapes_wherever_they_are(name, top, left):
    drawing, *expected = SHAPES[name]
    assert counted(picture(drawing, top=top, left=left), speck=2) == tuple(expected)


@pytest.mark.parametrize("name", SHAPES)
def test_a_drawing_that_fills_the_image(name):
    drawing, *expected = SHAPES[name]
    height, width = drawing.count("/") + 1, drawing.index("/")
    assert counted(picture(drawing, height, width), speck=2) == tuple(expected)


def test_euler_number():
    """Parts less holes is the Euler number, V - E + F of the squares with shared corners, a local count."""
    masks = torch.rand(50, 1, 12, 12, generator=torch.Generator().manual_seed(0)) < 0.55
    inside = torch.nn.functional.pad(masks[:, 0], (1, 1, 1, 1))
    vertices = inside[:, 1:, 1:] | inside[:, :-1, 1:] | inside[:, 1:, :-1] | inside[:, :-1, :-1]
    edges = (inside[:, 1:] | inside[:, :-1]).sum((1, 2)) + (inside[:, :, 1:] | inside[:, :, :-1]).sum((1, 2))
    found = count_structures(masks.float(), 0.5, speck=0)
    assert torch.equal(found.parts - found.holes, vertices.sum((1, 2)) - edges + inside.sum((1, 2)))
    assert found.holes.sum() > 50


def test_flips_keep_what_they_should():
    images = torch.rand(20, 1, 9, 11, generator=torch.Generator().manual_seed(1)) * 2 - 1
    there = count_structures(images, 0.0)
    for dim, runs in ((2, there.runs.flip(1)), (3, there.runs)):
        back = count_structures(images.flip(dim), 0.0)
        assert torch.equal(there.parts, back.parts)
        assert torch.equal(there.holes, back.holes)
        assert torch.equal(runs, back.runs)


def test_runs_are_counted_row_by_row():
    runs = count_structures(picture("#.#.#/##.##/..#..", 4, 5), speck=0).runs
    assert runs.tolist() == [[3, 2, 1, 0]]


@pytest.mark.parametrize("pixels", [SPECK - 1, SPECK])
def test_specks_are_left_out(pixels):
    line = "#" * pixels + "." * (7 - pixels)
    dust = counted(picture(f"######/######/######/....../{line[:6]}"))
    hole = counted(
        picture("#########/#########/#" + line.translate({35: 46, 46: 35}) + "#/#########/#########")
    )
    assert dust[0] == 1 + (pixels >= SPECK)
    assert hole[1] == (pixels >= SPECK)


def test_the_outside_is_no_speck():
    assert counted(torch.full((1, 1, 4, 4), -1.0), speck=1000) == (0, 0, ())


def test_a_single_row_is_no_stretch():
    assert counted(picture("####/####/#..#/####/####", 8, 4), speck=0)[2] == (1,)


def test_the_threshold():
    assert [counted(torch.full((1, 1, 4, 4), level))[0] for level in (-0.81, -0.79)] == [0, 1]


def test_the_norm_of_trousers():
    usual, long = picture(SHAPES["trousers"][0]), picture("####/####/####/#..#/#..#/#..#/#..#")
    odd = picture(SHAPES["ring"][0])
    norm = Norm.of(torch.cat([usual] * 60 + [long] * 38 + [odd] * 2), share=0.03, speck=2)
    assert (norm.parts, norm.holes, norm.profiles) == ({1}, {0}, {(1, 2)})
    planted = [SHAPES[name][0] for name in ("trousers", "three legs", "torn", "ring", "two holes")]
    flags = norm.flags(torch.cat([picture(drawing) for drawing in planted]))
    assert flags["parts"].tolist() == [False, False, True, False, False]
    assert flags["holes"].tolist() == [False, False, False, True, True]
    assert flags["runs"].tolist() == [False, True, True, True, True]


def test_what_a_share_of_the_training_images_show_is_normal():
    images = torch.cat([picture(drawing) for drawing, *_ in SHAPES.values()] * 4)
    assert not any(flagged.any() for flagged in Norm.of(images, 1 / len(SHAPES)).flags(images).values())


@pytest.mark.parametrize(("count", "total"), [(0, 10), (3, 10), (10, 10), (41, 96)])
def test_wilsons_interval(count, total):
    found = wilson(torch.arange(total) < count)
    assert found[:3] == (count, total, count / total)
    for p in found[3:]:
        assert (found.rate - p) ** 2 == pytest.approx(1.959964**2 * p * (1 - p) / total, rel=1e-5, abs=1e-12)
    assert 0 <= found.low <= found.rate <= found.high <= 1
    assert found.low < found.high


def test_agreement():
    first = torch.tensor([0, 0, 0, 0, 1, 1, 1, 1], dtype=torch.bool)
    same, crossed = agreement(first, first), agreement(first, torch.tensor([0, 0, 1, 1] * 2).bool())
    assert same == (((4, 0), (0, 4)), 1.0, pytest.approx(2 / 70))
    assert crossed == (((2, 2), (2, 2)), 0.0, pytest.approx(1.0))
    mixed = agreement(first, torch.tensor([0, 0, 0, 1, 0, 1, 1, 0]).bool())
    assert mixed.table == ((3, 1), (2, 2))
    assert mixed.phi == pytest.approx(
        float(torch.corrcoef(torch.tensor([[0.0] * 4 + [1.0] * 4, [0, 0, 0, 1, 0, 1, 1, 0]]))[0, 1])
    )
    assert math.isnan(agreement(first, torch.zeros(8).bool()).phi)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: count_structures(torch.zeros(2, 3, 4, 4)), "grey"),
        (lambda: count_structures(torch.zeros(4, 4)), "grey"),
        (lambda: count_structures(torch.zeros(0, 1, 4, 4)), "grey"),
        (lambda: count_structures(torch.full((1, 1, 4, 4), float("nan"))), "NaN"),
        (lambda: count_structures(torch.zeros(1, 1, 4, 4), speck=-1), "speck"),
        (lambda: Norm.of(torch.zeros(1, 1, 4, 4), share=0.0), "share"),
        (lambda: wilson(torch.zeros(0).bool()), "one sample"),
        (lambda: agreement(torch.zeros(3).bool(), torch.zeros(2).bool()), "same seeds"),
    ],
)
def test_errors(call, message):
    with pytest.raises(InputError, match=message):
        call()
