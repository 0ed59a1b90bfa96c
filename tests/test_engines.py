"""Every engine against the dense float64 twin, and the box engine's own promises."""

import copy
import multiprocessing
import pickle
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch

import patchmosaic as pm
from battery import MACHINES, SHAPES, WHOLE, queries, training_images, worst_error
from patchmosaic import engines
from patchmosaic.cache import Cache
from patchmosaic.engines import DenseEngine, box, native

needs_compiled = pytest.mark.skipif(native.library() is None, reason="installed without a C++ compiler")
ENGINES = [pytest.param("box", marks=needs_compiled)]  # every engine but the twin itself
TOLERANCE = 5e-5


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize(("shape", "stored"), SHAPES, ids=str)
@pytest.mark.parametrize("name", MACHINES)
def test_local_machines(engine, shape, stored, name):
    images = training_images(shape, 70, stored)
    for window in (1, 3, 5, 2 * max(shape) - 1, 4 * max(shape) + 1):
        if name != "ELS inside" or window <= min(shape[1:]):
            assert worst_error(images, engine, MACHINES[name], window) <= TOLERANCE


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("name", WHOLE)
def test_whole_image_machines(engine, name):
    assert worst_error(training_images((3, 6, 5), 30, "bytes"), engine, WHOLE[name], None) <= TOLERANCE


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("name", MACHINES)
@pytest.mark.parametrize("count", [1, 2, 63, 64, 65, 130])
def test_any_number_of_images(engine, name, count):
    """At ᾱ = 0 every patch weighs the same, so one lost, doubled or invented shows."""
    images = training_images((1, 6, 7), count + 1, "bytes")[1:]
    images = torch.cat([images[:1], images]) if count == 1 else images
    assert worst_error(images, engine, MACHINES[name], 3, (0.0, 0.5)) <= 2e-6


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("name", MACHINES)
def test_labels_and_groups(engine, name):
    images = training_images((1, 6, 6), 90, "bytes")
    options = {"labels": torch.arange(90) % 4, "asked": torch.tensor([2, 0]), "group": "d4"}
    assert worst_error(images, engine, MACHINES[name], 3, (0.0, 0.4, 0.99), **options) <= TOLERANCE


@pytest.mark.parametrize("engine", ENGINES)
def test_repeated_patches_share_their_weight(engine):
    """Two tones: thousands of equal patches, exact ties, and a closed form."""
    data = pm.load_dataset("two-tone", size=8)
    machine = pm.ScoreMachine(
        data.images, locality=3, symmetry="translation", padding="circular", engine=engine
    )
    x = torch.randn(2, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    windows = (
        torch.nn.functional.pad(x.double(), (1, 1, 1, 1), mode="circular").unfold(2, 3, 1).unfold(3, 3, 1)
    )
    expected = torch.tanh(0.3**0.5 * windows.sum((-1, -2)) / 0.7)
    torch.testing.assert_close(machine.denoise(x, 0.3).double(), expected, rtol=0, atol=2e-6)


@needs_compiled
@pytest.mark.parametrize("pairs", [1, 1 << 40], ids=["by images", "by samples"])
@pytest.mark.parametrize("threads", [1, 2, 5])
def test_threads_share_the_work(monkeypatch, threads, pairs):
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads)
    monkeypatch.setattr(box, "_PAIRS_OF_PART", pairs)
    monkeypatch.setattr(box, "_PAIRS_OF_THREAD", 1)
    images = training_images((1, 9, 8), 140, "bytes")
    for rules in MACHINES.values():
        assert worst_error(images, "box", rules, 5, (0.0, 0.6)) <= 2e-6


@needs_compiled
@pytest.mark.parametrize("name", MACHINES)
def test_no_bit_depends_on_the_number_of_threads(monkeypatch, name):
    rules = dict(zip(("symmetry", "padding", "keys"), MACHINES[name], strict=True))
    machine = pm.ScoreMachine(training_images((1, 9, 8), 700, "bytes"), None, 5, engine="box", **rules)
    x = queries(machine, 0.9)
    answers = []
    for threads in (1, 2, 5):
        monkeypatch.setattr(torch, "get_num_threads", lambda threads=threads: threads)
        answers.append(machine.denoise(x, 0.9))
    assert all(torch.equal(answer, answers[0]) for answer in answers)


@needs_compiled
@pytest.mark.parametrize("name", MACHINES)
def test_no_bit_depends_on_the_batch(monkeypatch, name):
    """Nor on where the sums pause, which depends on the batch."""
    rules = dict(zip(("symmetry", "padding", "keys"), MACHINES[name], strict=True))
    machine = pm.ScoreMachine(training_images((1, 9, 8), 700, "bytes"), None, 5, engine="box", **rules)
    x = queries(machine, 0.5).repeat(3, 1, 1, 1)
    together = machine.denoise(x, 0.5)
    for pairs in (1, 1 << 17, 1 << 22):
        monkeypatch.setattr(box, "_PAIRS_AT_ONCE", pairs)
        assert torch.equal(machine.denoise(x, 0.5), together)
        assert torch.equal(machine.denoise(x[:1], 0.5), together[:1])


@needs_compiled
def test_calls_from_several_threads_at_once():
    machine = pm.ScoreMachine(
        training_images((3, 12, 12), 200, "bytes"), None, 5, "translation", engine="box"
    )
    samples = torch.cat([queries(machine, 0.5, seed) for seed in range(8)])
    expected = machine.denoise(samples, 0.5)
    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(lambda x: machine.denoise(x[None], 0.5), samples))
    assert torch.equal(torch.cat(answers), expected)


@needs_compiled
@pytest.mark.parametrize(
    ("name", "shape", "count", "window"),
    [
        (name, shape, count, window)
        for name in MACHINES
        for shape, count in [((3, 8, 9), 70), ((1, 23, 20), 17)]
        for window in (1, 3, 5, 7, 9, 13, 17, 41)
        if "inside" not in name or window <= min(shape[1:])
    ],
    ids=str,
)
def test_windows_of_every_size(name, shape, count, window):
    images = training_images(shape, count, "bytes")
    assert worst_error(images, "box", MACHINES[name], window, (0.6,)) <= TOLERANCE


@needs_compiled
def test_windows_that_see_pixels_time_and_again():
    """Every row rounds as it did before, so that errors add up."""
    images = training_images((4, 8, 24), 7, "levels")
    assert worst_error(images, "box", MACHINES["LS wrapped"], 49, (1e-12,)) <= TOLERANCE


def near_tie(stored):
    """Two images that differ in one pixel, by its sign, and a query far from both, a little nearer to one."""
    image = training_images((1, 9, 9), 1, stored)
    flipped = image.clone()
    flipped[..., 4, 4] = 255 - image[..., 4, 4] if stored == "bytes" else -image[..., 4, 4]
    machine = pm.ScoreMachine(torch.cat([image, flipped]), None, 9)
    x = machine.dictionary.images(torch.tensor([0]), torch.float32) + 1
    x[..., 4, 4] = 2e-5
    return machine, x


@needs_compiled
@pytest.mark.parametrize("stored", ["bytes", "floats"])
def test_what_float32_cannot_resolve_is_measured_again(monkeypatch, stored):
    machine, x = near_tie(stored)
    twin = DenseEngine(machine.dictionary, machine.rules, 1 << 24).posterior_mean(
        x.double(), [0.9999], 9, None
    )
    assert (machine.denoise(x, 0.9999) - twin).abs().max() <= TOLERANCE
    monkeypatch.setattr(box, "_MAX_ERROR", 1e30)
    assert (machine.denoise(x, 0.9999) - twin).abs().max() > 4 * TOLERANCE


@needs_compiled
@pytest.mark.parametrize("contenders", [3, 8, 9, 40, 300])
def test_any_number_of_patches_that_float32_cannot_tell_apart(contenders):
    """A sign of some pixel each, whose noisy value is as good as 0: all weigh about the same, hundreds of bits away."""
    image = training_images((1, 9, 9), 1, "floats")
    signs = (
        1 - 2 * (torch.rand(contenders, 1, 9, 9, generator=torch.Generator().manual_seed(2)) < 0.2).float()
    )
    signs[..., 4, 4] = 1 - 2 * (torch.arange(contenders) % 2).view(-1, 1).float()
    some = torch.rand(1, 1, 9, 9, generator=torch.Generator().manual_seed(3)) < 0.5
    some[..., 4, 4] = True
    images = torch.where(some, image * signs, image)
    x = torch.where(some, 2e-5 * image, image + 3)
    machine = pm.ScoreMachine(images, None, 9)
    twin = DenseEngine(machine.dictionary, machine.rules, 1 << 24).posterior_mean(
        x.double(), [0.9999], 9, None
    )
    assert twin.std() > 0.1
    assert (machine.denoise(x, 0.9999) - twin).abs().max() <= TOLERANCE


@needs_compiled
@pytest.mark.parametrize("window", [3, 9, 17, 31])
@pytest.mark.parametrize("channels", [1, 3])
def test_flat_pictures(window, channels):
    """All differences of a window are the same and round alike, so errors add up. Black or white: a closed form."""
    images = torch.tensor([0, 255], dtype=torch.uint8).view(2, 1, 1, 1).expand(2, channels, 31, 31)
    machine = pm.ScoreMachine(images, None, window, padding="circular", engine="box")
    generator = torch.Generator().manual_seed(0)
    alpha_bars = torch.rand(300, generator=generator).double().sqrt()
    slopes = channels * window**2 * alpha_bars.sqrt() / (1 - alpha_bars)
    grey = (torch.randn(300, generator=generator) / slopes).float()
    found = machine.denoise(grey.view(-1, 1, 1, 1).expand(-1, channels, 31, 31), alpha_bars.tolist())
    assert (found[:, 0, 15, 15] - torch.tanh(slopes * grey)).abs().max() <= 1e-4


@needs_compiled
@pytest.mark.parametrize(
    ("grey", "noise", "window"),
    [(-0.18823525309562683, 1e-7, 9), (-0.18823525309562683, 1e-8, 9), (0.3, 1e-15, 17), (1e6, 1e-15, 17)],
)
def test_flat_pictures_with_hardly_any_noise(grey, noise, window):
    """Of two tones side by side, which are thousands of bits away, so that float32 errs by many."""
    images = torch.full((1, 1, 22, 61), 140, dtype=torch.uint8)
    images[..., :9] = 67
    tested, twin = (
        pm.ScoreMachine(images, None, window, "translation", engine=engine) for engine in ("box", "dense")
    )
    x = torch.full((1, 1, 22, 61), grey)
    error = tested.denoise(x, 1 - noise) - twin.denoise(x.double(), 1 - noise)
    assert error.abs().nan_to_num(nan=torch.inf).max() <= TOLERANCE


@needs_compiled
@pytest.mark.parametrize("alpha_bar", [0.001, 0.05])
@pytest.mark.parametrize("name", MACHINES)
def test_large_windows_of_noisy_pictures_are_measured_once(monkeypatch, name, alpha_bar):
    """They are thousands of bits from the nearest patch, but so much is expected of their noise."""
    rules = dict(zip(("symmetry", "padding", "keys"), MACHINES[name], strict=True))
    images = training_images((3, 40, 40), 20, "bytes")
    machine = pm.ScoreMachine(images, None, 33, engine="box", **rules)
    waited = []

    def means(work):
        found = compute(work)
        shape = work.job.parts, work.pixels
        waited.append(work.memory.array(work.job.queued, shape, "i4").any())
        return found

    compute = box._Work.means
    monkeypatch.setattr(box._Work, "means", means)
    machine.denoise(queries(machine, alpha_bar)[:1], alpha_bar)
    assert waited == [False]


@needs_compiled
@pytest.mark.parametrize(
    ("size", "contrast", "noise", "steps"),
    [(63, 108, 9, [0]), *((31, 78, 0, range(last + 2, last - 1, -1)) for last in (24, 26, 28, 30, 32))],
    ids=str,
)
def test_rough_pictures_without_noise(monkeypatch, size, contrast, noise, steps):
    """They are hundreds of bits nearer to patches than noise would be: to all, or to ever more."""
    monkeypatch.setattr(box, "_PARTS", 1)
    monkeypatch.setattr(box, "_FEW_PARTS", 1)
    generator = torch.Generator().manual_seed(0)
    base = torch.randint(128 - contrast, 128 + contrast, (3, size, size), generator=generator)
    signs = 2 * torch.randint(0, 2, (64 if len(steps) > 1 else 8, *base.shape), generator=generator) - 1
    images = torch.cat([base + step * signs for step in steps])
    images += torch.randint(-noise, noise + 1, images.shape, generator=generator)
    images[..., size // 2, size // 2] = (torch.arange(len(images)) % 2 * 255)[:, None]
    x = 0.7**0.5 * (base / 127.5 - 1).float()[None]
    x[..., size // 2, size // 2] = 0
    images = images.to(torch.uint8)
    found = pm.ScoreMachine(images, None, size, padding="circular", engine="box").denoise(x, 0.7)
    expected = pm.presets.ideal(images).denoise(x.double(), 0.7)
    assert (found - expected).abs().max() <= TOLERANCE


@needs_compiled
@pytest.mark.parametrize("name", MACHINES)
def test_hardly_any_noise_far_from_all_images(name):
    """Distances are hundreds of millions of bits, of which float32 holds the first 24."""
    images = training_images((3, 9, 6), 19, "levels")
    assert worst_error(images, "box", MACHINES[name], 5, (1 - 2.0**-24,)) <= TOLERANCE


@needs_compiled
@pytest.mark.parametrize("alpha_bar", [0.5, 1 - 2.0**-24])
@pytest.mark.parametrize("name", MACHINES)
def test_as_far_away_as_queries_may_lie(name, alpha_bar):
    """A distance is rounded by more than the distances differ, and has to be so in one way."""
    rules = dict(zip(("symmetry", "padding", "keys"), MACHINES[name], strict=True))
    images = training_images((1, 9, 6), 19, "bytes")
    tested, twin = (pm.ScoreMachine(images, None, 3, engine=engine, **rules) for engine in ("box", "dense"))
    x = 9e5 + 1e5 * queries(twin, alpha_bar).clamp(-1, 1)
    assert (tested.denoise(x, alpha_bar) - twin.denoise(x.double(), alpha_bar)).abs().max() <= TOLERANCE
    followed, expected = tested.trace(x, alpha_bar), twin.trace(x.double(), alpha_bar)
    assert torch.equal(followed.sources[:, 0], expected.sources[:, 0])
    assert (followed.entropies - expected.entropies).abs().max() <= TOLERANCE


@pytest.mark.parametrize("bad", [torch.nan, torch.inf, -torch.inf, 2e6, -1e38])
def test_numbers_that_no_noisy_image_holds_are_refused(bad):
    machine = pm.ScoreMachine(training_images((1, 5, 5), 3, "bytes"), None, 3)
    x = torch.zeros(3, 1, 5, 5)
    x[1, 0, 2, 3] = bad
    with pytest.raises(pm.InputError, match="in sample 1"):
        machine.denoise(x, 0.5)
    assert machine.denoise(x[:0], 0.5).shape == (0, 1, 5, 5)


@pytest.mark.parametrize("without_numbers", [lambda x: x.to("meta"), torch.Tensor.to_sparse])
def test_tensors_without_their_numbers_are_refused(without_numbers):
    machine = pm.ScoreMachine(training_images((1, 5, 5), 3, "bytes"), None, 3)
    with pytest.raises(pm.InputError, match="sparse or meta"):
        machine.denoise(without_numbers(torch.zeros(3, 1, 5, 5)), 0.5)


@needs_compiled
@pytest.mark.parametrize(
    ("levels", "even"),
    [
        (torch.arange(256) / 127.5 - 1, True),
        ((torch.arange(256) / 127.5 - 1)[[0, 3, 4, 200]], True),  # some levels do not occur
        (torch.tensor([0.25]), True),
        (torch.tensor([-1.0, 0.1, 1.0]), False),
        (torch.linspace(-1, 1, 200).square().unique(), False),
    ],
)
def test_evenly_spaced_levels_are_stored_as_bytes(levels, even):
    encoding = box._encoding(levels)
    assert (encoding.levels is not None) == even
    if even:
        torch.testing.assert_close(encoding.levels[encoding.codes.long()], levels, rtol=0, atol=0)
        line = encoding.offset + encoding.slope * encoding.codes.double()
        torch.testing.assert_close(line, levels.double(), rtol=0, atol=2.0**-24)
    else:
        torch.testing.assert_close(encoding.codes, levels, rtol=0, atol=0)


@needs_compiled
def test_threads_may_ask_for_other_classes():
    """Of small classes one layout is kept, so that they come and go."""
    images, labels = training_images((1, 6, 6), 24, "bytes"), torch.arange(24) % 12
    machine, alone = (pm.ScoreMachine(images, labels, 3, "translation", engine="box") for _ in range(2))
    x = queries(machine, 0.9)
    expected = [alone.denoise(x, 0.9, label) for label in range(12)]

    def ask(first):
        return all(
            torch.equal(machine.denoise(x, 0.9, (first + 5 * i) % 12), expected[(first + 5 * i) % 12])
            for i in range(200)
        )

    switching = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        with ThreadPoolExecutor(6) as threads:
            assert all(threads.map(ask, range(6)))
    finally:
        sys.setswitchinterval(switching)


@needs_compiled
def test_a_machine_can_be_copied():
    machine = pm.ScoreMachine(training_images((1, 6, 6), 20, "bytes"), None, 3, engine="box")
    x = queries(machine, 0.5)
    expected = machine.denoise(x, 0.5)
    for copied in (copy.deepcopy(machine), pickle.loads(pickle.dumps(machine))):
        assert torch.equal(copied.denoise(x, 0.5), expected)


@needs_compiled
def test_layouts_of_classes_stay_within_bounds():
    images = training_images((1, 6, 6), 2000, "bytes")
    machine = pm.ScoreMachine(images, torch.arange(2000) % 10, 3, "translation", engine="box")
    x = queries(machine, 0.5)
    for label in (None, *range(10), None):
        machine.denoise(x, 0.5, label)
    assert machine.engine._layouts.held() <= 2.5 * machine.dictionary.nbytes


@needs_compiled
@pytest.mark.parametrize("build", native.builds(), ids=lambda path: path.stem)
def test_exponentials(build):
    exponents = torch.cat(
        [torch.linspace(-64, 125.99, 4090), torch.tensor([0.0, -0.0, 1.0, -1.0, -63.5, 1e-9])]
    )
    far = torch.linspace(-1e6, -64, 4096)
    numbers = torch.stack([exponents, far])
    powers = torch.empty_like(numbers)
    native.load(build).box_exponentials(numbers.data_ptr(), powers.data_ptr(), 4096, 2, 2)
    assert (powers[0].double() / exponents.double().exp2() - 1).abs().max() < 2e-7
    assert ((powers[1] >= 0) & (powers[1] <= 2.0**-64 * (1 + 2e-7))).all()


@needs_compiled
def test_every_build_agrees(tmp_path):
    """Each instruction set that was built gives the same numbers as the one in use."""
    script, answers = Path(__file__).with_name("every_machine.py"), []
    for path in native.builds():
        subprocess.run([sys.executable, script, path, tmp_path / "found.pt"], check=True)
        answers.append(torch.load(tmp_path / "found.pt", weights_only=False))
    for answer in answers[1:]:
        for name, expected in answers[0].items():
            torch.testing.assert_close(answer[name], expected, rtol=0, atol=TOLERANCE, msg=str(name))
            if name[-1] == "trace":
                assert torch.equal(answer[name].sources, expected.sources)


def test_auto_is_the_fastest_that_can_run(monkeypatch):
    assert engines.choose("auto") is (engines.DenseEngine if native.library() is None else engines.BoxEngine)
    monkeypatch.setattr(engines, "library", lambda: None)
    assert engines.choose("auto") is engines.DenseEngine
    monkeypatch.setattr(native, "library", lambda: None)
    with pytest.raises(pm.InputError, match="dense"):
        pm.ScoreMachine(training_images((1, 4, 4), 2, "bytes"), engine="box")


@needs_compiled
@pytest.mark.parametrize(
    ("locality", "dtype", "engine", "because"),
    [
        (3, torch.float32, "box", "threads"),
        (None, torch.float32, "dense", "whole image"),
        (3, torch.float64, "dense", "float32"),
        (pm.LocalitySchedule([0.9, 0.1], [3, 5]), torch.float32, "box", "local"),
    ],
)
def test_what_works_is_explained(monkeypatch, locality, dtype, engine, because):
    """And it is what does work."""
    machine = pm.ScoreMachine(
        training_images((1, 6, 6), 9, "bytes"), None, locality, "translation", "circular"
    )
    worked = []
    for name, cls, method in [("box", box._Work, "means"), ("dense", DenseEngine, "posterior_mean")]:
        work = getattr(cls, method)
        monkeypatch.setattr(cls, method, lambda *a, name=name, work=work: worked.append(name) or work(*a))
    machine.denoise(torch.zeros(1, 1, 6, 6, dtype=dtype), 0.5)
    assert worked == [engine]
    said = machine.explain_engine(0.5, dtype)
    assert said.startswith(f"{engine}: ")
    assert because in said


@pytest.mark.parametrize(
    ("alpha_bar", "dtype", "told"),
    [
        (2.0, torch.float32, r"\[0, 1\)"),
        (1.0, torch.float32, r"\[0, 1\)"),
        (0.5, torch.float16, "not float16"),
    ],
)
def test_what_cannot_be_denoised_is_not_explained(alpha_bar, dtype, told):
    machine = pm.ScoreMachine(training_images((1, 6, 6), 9, "bytes"), None, 3)
    with pytest.raises(pm.InputError, match=told):
        machine.explain_engine(alpha_bar, dtype)


@pytest.mark.filterwarnings("ignore:.*multi-threaded:DeprecationWarning")
def test_a_fork_while_another_thread_makes_what_is_kept():
    cache = Cache(10, int)
    making, made = threading.Event(), threading.Event()
    thread = threading.Thread(target=cache.get, args=("slow", lambda: making.set() or made.wait()))
    thread.start()
    making.wait()
    child = multiprocessing.get_context("fork").Process(target=cache.get, args=("other", int))
    child.start()
    child.join(20)
    went_on = child.exitcode == 0
    child.kill()
    made.set()
    thread.join()
    assert went_on


@needs_compiled
@pytest.mark.filterwarnings("ignore:.*multi-threaded:DeprecationWarning")
def test_a_forked_process_can_go_on():
    images = training_images((1, 6, 6), 70, "bytes")
    machine = pm.ScoreMachine(images, None, 3, "translation", engine="box")
    x = queries(machine, 0.5)
    expected = machine.denoise(x, 0.5)
    context = multiprocessing.get_context("fork")
    answers = context.Queue()
    child = context.Process(target=lambda: answers.put(machine.denoise(x, 0.5).tolist()))
    child.start()
    assert answers.get(timeout=60) == expected.tolist()
    child.join()
