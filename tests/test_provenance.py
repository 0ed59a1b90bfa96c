"""Planted truth, mosaics, belief and local consistency."""

import math

import numpy as np
import pytest
import torch

import patchmosaic as pm
from battery import training_images
from patchmosaic import presets
from patchmosaic.explain import believe, patch_counts


def planted(images, side, seed):
    """A picture of blocks cut from random places of random images, and where each pixel comes from."""
    rng = np.random.default_rng(seed)
    _, height, width = images.shape[1:]
    picture = torch.empty(images.shape[1:])
    truth = torch.empty(3, height, width, dtype=torch.long)
    for top in range(0, height, side):
        for left in range(0, width, side):
            h, w = min(side, height - top), min(side, width - left)
            n, y, x = rng.integers(len(images)), rng.integers(height - h + 1), rng.integers(width - w + 1)
            block = slice(top, top + h), slice(left, left + w)
            picture[(slice(None), *block)] = images[n, :, y : y + h, x : x + w]
            truth[0][block] = int(n)
            truth[1][block] = torch.arange(y, y + h)[:, None]
            truth[2][block] = torch.arange(x, x + w)
    return picture, truth


def inside_a_block(height, width, side, window):
    """Pixels whose window lies in one block."""
    r = window // 2
    rows, columns = (
        (torch.arange(size) % side >= r) & (torch.arange(size) % side < side - r) for size in (height, width)
    )
    rows &= torch.arange(height) + r < height
    columns &= torch.arange(width) + r < width
    return rows[:, None] & columns


def repeats(images, picture, window):
    """How often each window of a picture occurs among the windows inside the training images."""

    def windows(batch):
        return (
            batch.unfold(2, window, 1).unfold(3, window, 1).permute(0, 2, 3, 1, 4, 5).flatten(3).flatten(0, 2)
        )

    known, counts = np.unique(windows(images).numpy(), axis=0, return_counts=True)
    table = dict(zip((row.tobytes() for row in known), counts, strict=True))
    r = window // 2
    found = torch.zeros(picture.shape[1:], dtype=torch.long)
    inside = torch.tensor([table.get(row.tobytes(), 0) for row in windows(picture[None]).numpy()])
    found[r : -r or None, r : -r or None] = inside.view(picture.shape[1] - 2 * r, -1)
    return found


@pytest.mark.parametrize("noise", [0.0, 0.01])
@pytest.mark.parametrize(("side", "window"), [(3, 3), (4, 3), (8, 3), (5, 5), (8, 5)])
def test_planted_blocks_are_found(digits, side, window, noise):
    images = digits.images[:500]
    machine = presets.boundary_broken(images, window)
    asked = found = told = repeated = 0
    for seed in range(6):
        picture, truth = planted(images, side, seed)
        x = picture + noise * torch.randn(picture.shape, generator=torch.Generator().manual_seed(seed))
        p = pm.provenance(machine, x[None], 1.0, k=2)
        source = torch.stack([p.image[0, 0], p.row[0, 0], p.col[0, 0]])
        counts = repeats(images, picture, window)
        unique = inside_a_block(8, 8, side, window) & (counts == 1)
        right = (source == truth).all(0)
        asked, found = asked + int(unique.sum()), found + int((right & unique & ~p.ambiguous[0]).sum())
        repeated, told = repeated + int((counts > 1).sum()), told + int((p.ambiguous[0] & (counts > 1)).sum())
    assert asked > 0
    assert found >= 0.99 * asked
    assert told == repeated


@pytest.mark.parametrize("engine", ["dense", "auto"])
def test_no_share_is_more_than_all(engine):
    """Not by rounding either, where at no noise one patch has all."""
    machine = presets.local(training_images((1, 16, 16), 3, "bytes"), 5, engine=engine)
    x = torch.rand(1, 1, 16, 16, generator=torch.Generator().manual_seed(0)) + 0.5
    p = pm.provenance(machine, x, 1.0, k=1)
    assert p.weight.max() == 1


def test_attributes_fit_together():
    images = training_images((2, 6, 6), 5, "levels")
    machine = presets.equivariant_local(images, 3, group="d4")
    x = images[1:3] * 0.9 + 0.1
    p = pm.provenance(machine, x, 0.9, k=4)
    assert (p.weight[:, :-1] >= p.weight[:, 1:]).all()
    assert (p.covered <= 1 + 1e-6).all()
    assert (p.effective >= 1).all()
    torch.testing.assert_close(p.by_image.sum(0), torch.full((2,), 36.0).double())
    assert p.by_image.shape == (5, 2)
    everything = pm.provenance(machine, x, 0.9, k=5 * 8 * 36)
    values = machine.dictionary.pixels(everything.image, everything.element, everything.row, everything.col)
    mean = (values * everything.weight[..., None]).sum(1).movedim(-1, 1)
    torch.testing.assert_close(mean, machine.denoise(x.double(), 0.9), rtol=0, atol=1e-6)
    entropy = torch.special.entr(everything.weight).sum(1)
    torch.testing.assert_close(everything.entropy, entropy, rtol=0, atol=1e-4)


def test_top_images_are_those_of_most_pixels():
    images = training_images((1, 6, 6), 5, "floats")
    found = pm.provenance(presets.equivariant_local(images, locality=3), images[[3, 1]], 1.0)
    top = found.top_images(2)
    assert top.indices[:, 0].tolist() == [3, 1]
    assert top.indices.shape == top.scores.shape == (2, 2)
    assert bool((top.scores[:, 0] >= top.scores[:, 1]).all())
    torch.testing.assert_close(found.by_image.T.gather(1, top.indices), top.scores)
    with pytest.raises(pm.InputError, match="1 to 5"):
        found.top_images(6)


@pytest.mark.parametrize(("group", "elements"), [("flip", 2), ("rotations", 4), ("d4", 8)])
def test_elements_are_quarter_turns_and_then_a_mirroring(group, elements):
    images = training_images((1, 6, 6), 3, "floats")
    machine = presets.boundary_broken(images, 3, group=group)
    for element in range(elements):
        mirrored, turns = (element == 1, 0) if group == "flip" else divmod(element, 4)
        turned = np.rot90(images[1, 0].numpy(), turns)
        picture = torch.tensor((np.fliplr(turned) if mirrored else turned).copy())
        found = pm.provenance(machine, picture[None, None], 1.0, k=1)
        assert (found.image == 1).all()
        assert (found.element == element).all()
        assert torch.equal(found.row[0, 0] * 6 + found.col[0, 0], torch.arange(36).view(6, 6))


def test_what_does_not_exist_is_named_so():
    """A corner pixel has one patch in each image."""
    machine = presets.boundary_broken(training_images((1, 5, 5), 2, "floats"), 3)
    p = pm.provenance(machine, torch.zeros(1, 1, 5, 5), 0.5, k=3)
    assert p.image[0, 2, 0, 0] == p.row[0, 2, 0, 0] == p.col[0, 2, 0, 0] == -1
    assert p.weight[0, 2, 0, 0] == 0
    assert float(p.covered[0, 0, 0]) == pytest.approx(1, abs=1e-6)


def test_the_limit_of_zero_noise_is_the_nearest_patch():
    images = training_images((1, 7, 7), 6, "floats")
    machine = presets.equivariant_local(images, 3)
    x = torch.rand(1, 1, 7, 7, generator=torch.Generator().manual_seed(3)) * 2 - 1
    p = pm.provenance(machine, x, 1.0, k=1)
    close = machine.denoise(x.double(), 1 - 1e-9)
    clear = p.weight[:, 0] > 0.999
    assert clear.double().mean() > 0.9
    torch.testing.assert_close(p.centres(machine)[:, 0][clear], close[:, 0][clear], rtol=0, atol=1e-3)


def test_a_mosaic_joins_what_came_together():
    numbers = torch.randperm(9 * 64, generator=torch.Generator().manual_seed(0))
    images = numbers.view(9, 1, 8, 8) / 288 - 1
    picture = images[:1].clone()
    picture[..., 4:] = images[5, :, :, 4:]
    picture[..., 5:, :3] = images[7, :, 1:4, 2:5]
    machine = presets.boundary_broken(images, 1)
    found = pm.mosaic(pm.provenance(machine, picture, 1.0))
    assert [(f.image, f.down, f.right, f.size) for f in found.fragments] == [
        (5, 0, 0, 32),
        (0, 0, 0, 23),
        (7, -4, 2, 9),
    ]
    assert found.fragments[2].box == (5, 7, 0, 2)
    assert found.sources() == [(5, 32), (0, 23), (7, 9)]
    assert torch.equal(found.number.flatten().bincount(), torch.tensor([32, 23, 9]))
    assert not (found.number < 0).any()


def test_a_mosaic_goes_over_the_border_of_wrapped_images():
    images = training_images((1, 6, 6), 3, "floats")
    machine = presets.equivariant_local(images, 3)
    moved = images[2:].roll((2, 5), (2, 3))
    found = pm.mosaic(pm.provenance(machine, moved, 1.0))
    assert [(f.image, f.down, f.right, f.size) for f in found.fragments] == [(2, 4, 1, 36)]


def test_equal_images_leave_a_mosaic_ambiguous():
    images = training_images((1, 6, 6), 2, "floats")
    machine = presets.boundary_broken(torch.cat([images, images]), 3)
    p = pm.provenance(machine, images[:1], 1.0, k=2)
    assert p.ambiguous.all()
    assert (p.image[0, 0] == 0).all()
    assert (p.image[0, 1] == 2).all()
    assert not pm.mosaic(p).fragments
    with pytest.raises(pm.InputError, match="whole number from 0 to 0"):
        pm.mosaic(p, 1)


def test_a_mosaic_needs_all_pixels():
    images = training_images((1, 6, 6), 2, "floats")
    found = pm.provenance(presets.boundary_broken(images, 3), images, 1.0, pixel=(4, 2))
    assert found.pixel == (4, 2)
    with pytest.raises(pm.InputError, match="call provenance without pixel"):
        pm.mosaic(found)


def test_belief_narrows_from_all_patches_to_one(digits):
    machine = presets.boundary_broken(digits.images[:200], 3)
    noise = pm.draw_noise(pm.generators([0, 1]), (1, 8, 8))
    schedule = pm.CosineSchedule()
    belief = believe(machine, pm.reverse_flow(machine, noise, schedule.times(10), schedule))
    assert (belief.effective <= belief.patches * (1 + 1e-6)).all()
    assert belief.patches[0, 0, 0, 0] == 200
    assert belief.patches[0, 0, 4, 4] == 200 * 36
    share = (belief.effective / belief.patches).mean((1, 2, 3))
    assert share[0] > 0.9
    assert (belief.effective[-1].median()) < 0.05 * belief.patches[-1].median()
    assert share[0] > share[4] > share[-1]


def test_patches_of_whole_images_are_counted():
    images = training_images((1, 4, 5), 3, "bytes")
    assert (patch_counts(presets.ideal(images), 0.5) == 3).all()
    assert (patch_counts(presets.equivariant(images, group="flip"), 0.5) == 3 * 2 * 20).all()
    labelled = presets.local(images, 3, labels=torch.tensor([0, 1, 1]))
    assert (patch_counts(labelled, 0.5, 1) == 2).all()


def test_training_images_are_consistent_and_noise_is_not():
    images = training_images((3, 6, 6), 4, "bytes")
    machine = presets.boundary_broken(images, 3)
    values = machine.dictionary.images(torch.arange(2), torch.float32)
    found = pm.local_consistency(machine, values)
    assert found.consistent.all()
    assert torch.equal(found.share, torch.ones(2).double())
    changed = values.clone()
    changed[0, 1, 2, 3] += 0.1
    found = pm.local_consistency(machine, changed)
    assert found.consistent.sum() == 71
    assert not found.consistent[0, 2, 3]
    assert float(found.distance[0, 2, 3]) == pytest.approx(0.1, abs=1e-6)
    assert pm.local_consistency(machine, changed, tolerance=0.11).consistent.all()


@pytest.mark.parametrize(("engine", "tolerance"), [("dense", 1e-7), ("auto", 2e-6)])
def test_entropy_of_equal_patches_is_the_log_of_their_number(engine, tolerance):
    machine = presets.equivariant_local(torch.zeros(3, 1, 4, 4), 3, engine=engine)
    p = pm.provenance(machine, torch.zeros(1, 1, 4, 4), 0.5, k=2)
    expected = torch.full((1, 4, 4), math.log(48), dtype=torch.float64)
    torch.testing.assert_close(p.entropy, expected, rtol=0, atol=tolerance)
    assert (p.image[0, :, 0, 0] == 0).all()
    assert p.col[0, :, 3, 3].tolist() == [0, 1]
