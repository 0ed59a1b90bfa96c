"""Traces against a sort written out with Python loops, ties included."""

import itertools
import math

import numpy as np
import pytest
import torch

import patchmosaic as pm
from battery import ALPHA_BARS, MACHINES, SHAPES, WHOLE, queries, training_images
from brute_force import border_signature, circular_translate, cut_window
from patchmosaic.engines import ENGINES, box, native, windows
from patchmosaic.symmetry import POINT_GROUPS, transform

needs_compiled = pytest.mark.skipif(native.library() is None, reason="installed without a C++ compiler")


def machine(images, rules, window, labels=None, engine="dense", **options):
    symmetry, padding, keys = rules
    choices = {"symmetry": symmetry, "padding": padding, "keys": keys, **options}
    return pm.ScoreMachine(images, labels, window, engine=engine, **choices)


def literal(x, images, alpha_bar, window, rules, i, j):
    """(distance, source number) of every patch that may stand in for pixel (i, j), nearest first."""
    symmetry, padding, keys = rules
    height, width = x.shape[1:]
    r = window // 2
    here = border_signature(i, j, height, width, window)
    query = cut_window(x.tolist(), i, j, window, padding)
    found = []
    for n, image in enumerate(images.tolist()):
        for k in range(height):
            for m in range(width):
                if symmetry == "none":
                    allowed = (k, m) == (i, j)
                elif padding == "zeros":
                    allowed = border_signature(k, m, height, width, window) == here
                else:
                    allowed = keys == "all" or (r <= k < height - r and r <= m < width - r)
                if allowed:
                    patch = cut_window(image, k, m, window, padding)
                    distance = math.fsum(
                        (a - math.sqrt(alpha_bar) * b) ** 2 for a, b in zip(query, patch, strict=True)
                    )
                    found.append((distance, (n * height + k) * width + m))
    return sorted(found)


def check_against_literal(traced, x, images, alpha_bar, window, rules, tolerance):
    height, width = x.shape[1:]
    variance = max(1 - alpha_bar, 2.0**-24)
    for i in range(height):
        for j in range(width):
            expected = literal(x, images, alpha_bar, window, rules, i, j)
            logits = torch.tensor(
                [-distance / (2 * variance) for distance, _ in expected], dtype=torch.float64
            )
            weights = logits.softmax(0)
            k = traced.sources.shape[1]
            best = [source for _, source in expected[:k]] + [-1] * (k - len(expected))
            assert traced.sources[0, :, i, j].tolist() == best
            found = (traced.logits[0, :, i, j] - traced.log_totals[0, i, j]).exp()[: len(expected)]
            torch.testing.assert_close(found, weights[:k], rtol=tolerance, atol=tolerance)
            entropy = float(torch.special.entr(weights).sum())
            assert float(traced.entropies[0, i, j]) == pytest.approx(entropy, abs=10 * tolerance)


@pytest.mark.parametrize("engine", ["dense", "box"])
@pytest.mark.parametrize("name", MACHINES)
@pytest.mark.parametrize(("shape", "levels"), [((1, 5, 6), 2), ((2, 4, 7), 17), ((1, 1, 3), 2)])
def test_traces_are_those_of_a_sort(engine, name, shape, levels):
    """With two levels, most patches are tied."""
    window = 3 if min(shape[1:]) >= 3 or MACHINES[name][2] == "all" else 1
    rng = torch.Generator().manual_seed(0)
    images = torch.randint(0, levels, (4, *shape), generator=rng, dtype=torch.uint8) * (255 // (levels - 1))
    tested = machine(images, MACHINES[name], window, engine=engine)
    values = tested.dictionary.images(torch.arange(4), torch.float64)
    for alpha_bar in (0.0, 0.5, 0.97, 1.0):
        clean = values[1:2] if alpha_bar == 1 else alpha_bar**0.5 * values[1:2]
        x = clean + (1 - alpha_bar) ** 0.5 * torch.randn(clean.shape, generator=rng, dtype=torch.float64)
        x = x.float() if engine == "box" else x
        traced = tested.trace(x, alpha_bar, k=3)
        check_against_literal(
            traced,
            x[0].double(),
            values,
            alpha_bar,
            window,
            MACHINES[name],
            1e-6 if engine == "dense" else 2e-5,
        )


@pytest.mark.parametrize("engine", ["dense", "box"])
@pytest.mark.parametrize("name", [*MACHINES, *WHOLE])
def test_all_weights_sum_to_one_and_average_to_the_posterior_mean(engine, name):
    images = training_images((1, 5, 5), 3, "levels")
    rules, window = (MACHINES | WHOLE)[name], None if name in WHOLE else 3
    tested = machine(images, rules, window, engine=engine, group="flip")
    orbit = torch.stack([images, images.flip(-1)], 1).flatten(0, 1).double().flatten(2)
    for alpha_bar in ALPHA_BARS:
        x = queries(tested, alpha_bar).double()
        traced = tested.trace(x, alpha_bar, k=3 * 2 * 25)
        weights = (traced.logits - traced.log_totals[:, None]).exp()
        torch.testing.assert_close(weights.sum(1), torch.ones(len(x), 5, 5).double(), rtol=0, atol=1e-6)
        torch.testing.assert_close(
            traced.by_image.sum(1), torch.full((len(x),), 25.0).double(), rtol=1e-6, atol=0
        )
        numbers = traced.sources.clamp(min=0)
        values = orbit[numbers // 25, 0, numbers % 25]
        mean = machine(images, rules, window, group="flip").denoise(x, alpha_bar)[:, 0]
        torch.testing.assert_close((weights * values).sum(1), mean, rtol=0, atol=1e-6)
        of_image = torch.zeros(len(x), 3).double()
        of_image.scatter_add_(1, (numbers // 50).flatten(1), weights.flatten(1))
        torch.testing.assert_close(of_image, traced.by_image, rtol=0, atol=1e-5)
        assert (traced.entropies <= math.log(150) + 1e-9).all()


def test_whole_images_name_the_pixel_that_a_translate_puts_there():
    images = training_images((1, 4, 5), 3, "floats")
    es = machine(images, WHOLE["ES"], None)
    moved = np.array(circular_translate(images[1].tolist(), 1, 2))
    traced = es.trace(torch.from_numpy(moved)[None].float(), 1.0, k=2)
    image, position = traced.sources[0, 0] // 20, traced.sources[0, 0] % 20
    assert (image == 1).all()
    rows, columns = torch.meshgrid(torch.arange(4), torch.arange(5), indexing="ij")
    assert torch.equal(position, (rows - 1) % 4 * 5 + (columns - 2) % 5)
    assert (traced.entropies < 1e-6).all()


@pytest.mark.parametrize("engine", ["dense", "box"])
def test_memory_and_order_of_chunks_change_nothing(engine, monkeypatch):
    """Ties are broken by number, whatever tiles the patches come in."""
    images = training_images((1, 6, 6), 9, "levels").round()
    labels = torch.tensor([0, 1, 1] * 3)
    x = queries(machine(images, MACHINES["bbELS"], 3), 0.9)
    found = []
    for at_once in (1 << 18, 50):
        monkeypatch.setattr(windows, "_CACHE_NUMBERS", at_once)
        monkeypatch.setattr(box, "_PAIRS_AT_ONCE", at_once)
        tested = machine(images, MACHINES["bbELS"], 3, labels, engine=engine)
        found.append(tested.trace(x, [0.9, 1.0], torch.tensor([1, 0]), k=4))
    assert torch.equal(found[0].sources, found[1].sources)
    torch.testing.assert_close(found[0].by_image, found[1].by_image)
    assert not found[0].by_image[0, labels == 0].any()
    alone = tested.trace(x[1:2], 1.0, 0, k=4)
    assert torch.equal(alone.sources[0], found[0].sources[1])


def test_groups_number_their_elements():
    images = training_images((1, 4, 4), 2, "floats")
    tested = machine(images, MACHINES["bbELS"], 3, group="d4")
    for element, action in enumerate(POINT_GROUPS["d4"]):
        traced = tested.trace(transform(images[1:], action), 1.0, k=1)
        assert torch.equal(traced.sources[0, 0], (8 + element) * 16 + torch.arange(16).view(4, 4))


def check_against_torch(images, rules, window, alpha_bars, k=4, labels=None, asked=None, x=None, **options):
    """The compiled trace of float32 images beside the torch trace in float64, which it must not have called."""
    compiled = machine(images, rules, window, labels, "box", **options)
    twin = machine(images, rules, window, labels, "dense", **options)
    for alpha_bar in alpha_bars:
        noisy = queries(twin, alpha_bar) if x is None else x
        found, expected = compiled.trace(noisy, alpha_bar, asked, k), twin.trace(noisy, alpha_bar, asked, k)
        assert torch.equal(found.sources, expected.sources)
        torch.testing.assert_close(found.logits, expected.logits, rtol=1e-9, atol=1e-9)
        torch.testing.assert_close(found.log_totals, expected.log_totals, rtol=1e-12, atol=2e-4)
        weights, known = ((t.logits - t.log_totals[:, None]).exp() for t in (found, expected))
        torch.testing.assert_close(weights, known, rtol=0, atol=5e-5)
        torch.testing.assert_close(found.entropies, expected.entropies, rtol=0, atol=2e-4)
        torch.testing.assert_close(found.by_image, expected.by_image, rtol=5e-5, atol=5e-5)


@needs_compiled
@pytest.mark.parametrize(("shape", "stored"), SHAPES, ids=str)
@pytest.mark.parametrize("name", MACHINES)
def test_the_compiled_trace_is_the_torch_trace(name, shape, stored):
    images = training_images(shape, 18, stored)
    cases = {1: (1e-4, 1.0), 3: (0.5, 0.9999), 5: (0.9, 1.0), 2 * max(shape) + 1: (0.5,)}
    for window, alpha_bars in cases.items():
        if name != "ELS inside" or window <= min(shape[1:]):
            check_against_torch(images, MACHINES[name], window, alpha_bars)


@needs_compiled
def test_what_can_be_compiled_is(monkeypatch):
    monkeypatch.setattr(box.Engine, "trace", lambda *_: pytest.fail("fell back"))
    tested = machine(training_images((1, 6, 6), 9, "bytes"), MACHINES["bbELS"], 3, engine="box", tol=1e-3)
    tested.trace(torch.zeros(1, 1, 6, 6), 0.5)


@needs_compiled
@pytest.mark.parametrize("name", MACHINES)
def test_labels_groups_and_threads(monkeypatch, name):
    """Several blocks, or samples, shared by several workers, and patches shared by workers who have less than k."""
    images = training_images((1, 5, 5), 30, "bytes")
    options = {"labels": torch.arange(30) % 4, "asked": torch.tensor([2, 0]), "group": "d4"}
    for threads, few in itertools.product((1, 2, 5), (1, 1 << 40)):
        monkeypatch.setattr(torch, "get_num_threads", lambda threads=threads: threads)
        monkeypatch.setattr(box, "_PAIRS_OF_PART", few)
        check_against_torch(images, MACHINES[name], 3, (0.5,), **options)
        check_against_torch(images[:2], MACHINES[name], 3, (0.0,), k=40)


@needs_compiled
@pytest.mark.parametrize("stored", ["bytes", "floats"])
@pytest.mark.parametrize("name", MACHINES)
def test_of_equal_patches_the_first_are_named(name, stored):
    """Nearly all images are flat, so nearly all patches are copies; the first ones are in a block's middle."""
    images = training_images((1, 5, 5), 20, stored)
    images[5:] = 0 if stored == "bytes" else 0.7123
    images[8::6, :, 2, 3] = 200 if stored == "bytes" else -0.5678
    flat = machine(images, MACHINES[name], 3).dictionary.images(torch.tensor([6]), torch.float32)
    noise = torch.randn(flat.shape, generator=torch.Generator().manual_seed(0))
    check_against_torch(images, MACHINES[name], 3, (1.0,), x=flat)
    check_against_torch(images.flip(0), MACHINES[name], 3, (0.9,), x=flat + 0.2 * noise, group="flip")


@needs_compiled
@pytest.mark.parametrize("name", MACHINES)
@pytest.mark.parametrize("window", [1, 3, 5])
def test_nearly_equal_patches_are_told_apart(name, window):
    """Images that differ by less than float32 boxes do, far from the query."""
    rng = torch.Generator().manual_seed(0)
    image = torch.rand(1, 2, 7, 8, generator=rng) - 0.5
    near = (image + 3e-7 * torch.randn(50, 2, 7, 8, generator=rng)).float()
    x = image + 1.5 * torch.randn(1, 2, 7, 8, generator=rng)
    check_against_torch(near, MACHINES[name], window, (0.9,), x=x)


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("pixel", [None, (1, 2)])
def test_no_picture_has_an_empty_trace(engine, pixel):
    machine = pm.ScoreMachine(training_images((1, 5, 6), 4, "bytes"), None, 3, engine=engine)
    x = queries(machine, 0.5)
    empty, some = machine.trace(x[:0], 0.5, k=3, pixel=pixel), machine.trace(x, 0.5, k=3, pixel=pixel)
    for found, expected in zip(empty, some, strict=True):
        assert found.shape == (0, *expected.shape[1:])
        assert found.dtype == expected.dtype


@needs_compiled
def test_a_sample_is_traced_the_same_in_any_company():
    tested = machine(training_images((1, 8, 7), 70, "bytes"), MACHINES["bbELS"], 3, engine="box")
    x, alpha_bars = queries(tested, 0.9).repeat(3, 1, 1, 1)[:5], [0.0, 0.3, 0.999, 1.0, 0.5]
    together = tested.trace(x, alpha_bars)
    for i in range(5):
        alone = tested.trace(x[i : i + 1], alpha_bars[i])
        assert all(torch.equal(a[0], b[i]) for a, b in zip(alone, together, strict=True))
    tested.engine.memory_budget = 1
    assert all(map(torch.equal, tested.trace(x, alpha_bars), together))


@pytest.mark.parametrize("name", [*MACHINES, *WHOLE])
def test_one_pixel_is_traced_as_among_all(name):
    rules, window = (MACHINES | WHOLE)[name], None if name in WHOLE else 3
    tested = machine(
        training_images((2, 5, 6), 9, "bytes"), rules, window, torch.arange(9) % 2, "dense", group="flip"
    )
    x = queries(tested, 0.7)[:2]
    for label, alpha_bar in ((None, 0.7), (1, 1.0)):
        whole = tested.trace(x, alpha_bar, label, k=4)
        for row, col in ((0, 0), (2, 3), (4, 5)):
            alone = tested.trace(x, alpha_bar, label, 4, (row, col))
            for one, every in zip(alone[:4], whole[:4], strict=True):
                torch.testing.assert_close(one[..., 0, 0], every[..., row, col], rtol=1e-12, atol=1e-12)
            torch.testing.assert_close(alone.by_image.sum(1), torch.ones(2, dtype=torch.float64))
    for pixel in ((5, 0), (0, -1), (1.5, 0), (1, 0, 2), 3, "ab"):
        with pytest.raises(pm.InputError, match="pixel must be a row and a column"):
            tested.trace(x, 0.5, None, 1, pixel)


@pytest.mark.parametrize("engine", ENGINES)
def test_bad_input_is_told(engine):
    tested = machine(training_images((1, 4, 4), 2, "bytes"), MACHINES["bbELS"], 3, engine=engine)
    x = torch.zeros(1, 1, 4, 4)
    for k in (0, 10**9, 1.5, None):
        with pytest.raises(pm.InputError, match="k must be"):
            tested.trace(x, 0.5, k=k)
    with pytest.raises(pm.InputError, match="alpha_bar must lie in"):
        tested.trace(x, 1.1)
    for alpha_bar in (None, "x", [None]):
        with pytest.raises(pm.InputError, match="alpha_bar must be a number"):
            tested.trace(x, alpha_bar)
    for labels in ("a", [None], [True], [0.5]):
        with pytest.raises(pm.InputError, match="labels must be one integer"):
            tested.trace(x, 0.5, labels)
    with pytest.raises(pm.InputError, match="x must be a float32"):
        tested.trace(None, 0.5)
    with pytest.raises(pm.InputError, match="NaN"):
        tested.trace(x * torch.nan, 0.5)


@needs_compiled
@pytest.mark.parametrize(
    ("rules", "window", "tones", "grey"),
    [({"padding": "circular"}, 17, (100, 155), 0.3), ({"symmetry": "translation"}, 13, (200, 55), 0.77)],
)
def test_flat_pictures(rules, window, tones, grey):
    """All differences of a window are the same and round alike, so errors add up."""
    images = torch.tensor(tones, dtype=torch.uint8).repeat_interleave(2).view(4, 1, 1, 1).expand(4, 3, 24, 24)
    tested, twin = (
        pm.ScoreMachine(images, None, window, engine=engine, **rules) for engine in ("box", "dense")
    )
    x = torch.full((1, 3, 24, 24), grey)
    found, expected = tested.trace(x, 1.0, k=1), twin.trace(x, 1.0, k=1)
    assert torch.equal(found.sources, expected.sources)
    torch.testing.assert_close(found.entropies, expected.entropies, rtol=0, atol=1e-4)
    torch.testing.assert_close(found.by_image, expected.by_image, rtol=0, atol=1e-3)
