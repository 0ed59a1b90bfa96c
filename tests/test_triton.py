"""The GPU engine against the dense float64 twin: on a CUDA device, or tiny cases in Triton's interpreter."""

import importlib.util
import os
import subprocess
import sys

import pytest
import torch

import patchmosaic as pm
from battery import ALPHA_BARS, MACHINES, SHAPES, WHOLE, queries, training_images
from patchmosaic import engines

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
TOLERANCE = 5e-5
TINY = [((1, 2, 3), "bytes"), ((3, 1, 3), "levels"), ((2, 2, 1), "floats")]

pytestmark = pytest.mark.skipif(importlib.util.find_spec("triton") is None, reason="Triton is not installed")


@pytest.fixture
def gpu(monkeypatch):
    """The engine's module; in the interpreter, which takes a second per 20 programs, with small tiles."""
    from patchmosaic.engines import gpu

    if DEVICE == "cpu":
        from triton.language import semantic

        checks = getattr(semantic, "TritonSemantic", semantic), "binary_op_sanitize_overflow_impl"
        monkeypatch.setattr(*checks, lambda *_: None, raising=False)  # half of the interpreter's time
        for name, value in {"_QUERIES": 32, "_KEYS": 16, "_PROGRAMS": 4}.items():
            monkeypatch.setattr(gpu, name, value)
    return gpu


def pair(images, rules, window, **options):
    """A machine on the engine and its dense twin on the CPU."""
    symmetry, padding, keys = rules
    options |= {"symmetry": symmetry, "padding": padding, "keys": keys}
    tested = pm.ScoreMachine(images, locality=window, engine="triton", **options).to(DEVICE)
    return tested, pm.ScoreMachine(images, locality=window, engine="dense", **options)


def error(tested, twin, x, alpha_bars, labels=None):
    """The largest error of each sample."""
    found = tested.denoise(x.to(DEVICE), alpha_bars, labels).cpu()
    return (found - twin.denoise(x.double(), alpha_bars, labels)).abs().amax((1, 2, 3))


def near_and_far(machine, alpha_bars, far):
    """For every noise level a noised training image, or noise far from all of them."""
    return torch.stack([queries(machine, float(a))[int(i)] for a, i in zip(alpha_bars, far, strict=True)])


@pytest.mark.parametrize(("shape", "stored"), TINY, ids=str)
@pytest.mark.parametrize("name", MACHINES)
def test_every_machine_and_noise_level(gpu, shape, stored, name):
    images = training_images(shape, 9, stored)
    alpha_bars = torch.tensor(ALPHA_BARS)
    for window, far in ((1, (0, 1, 0, 1, 0)), (3, (1, 0, 1, 0, 0)), (5, (0, 0, 1, 1, 1))):
        if name != "ELS inside" or window <= min(shape[1:]):
            tested, twin = pair(images, MACHINES[name], window)
            x = near_and_far(twin, alpha_bars, far)
            assert error(tested, twin, x, alpha_bars).max() <= TOLERANCE


@pytest.mark.parametrize("name", ["bbELS", "ELS", "ELS inside"])
@pytest.mark.parametrize("count", [1, 2, 9])
def test_any_number_of_images(gpu, name, count):
    """At ᾱ = 0 every patch weighs the same, so one lost, doubled or invented shows."""
    tested, twin = pair(training_images((1, 4, 5), count, "bytes"), MACHINES[name], 3)
    x = torch.randn(1, 1, 4, 5, generator=torch.Generator().manual_seed(0))
    assert error(tested, twin, x, 0.0).max() <= 1e-6


def test_windows_that_take_several_steps(gpu):
    """They wrap around more than once, too."""
    assert gpu._steps(2 * 9 * 9) == (64, 192)
    tested, twin = pair(training_images((2, 2, 3), 30, "bytes"), MACHINES["ELS"], 9)
    alpha_bars = torch.tensor([0.1, 0.8, 0.97])
    x = near_and_far(twin, alpha_bars, (1, 0, 1))
    assert error(tested, twin, x, alpha_bars).max() <= TOLERANCE


def test_images_come_in_pieces(gpu, monkeypatch):
    monkeypatch.setattr(gpu, "_PATCH_BYTES", 4 * 20 * 32)
    tested, twin = pair(training_images((1, 4, 5), 11, "bytes"), MACHINES["ELS"], 3)
    x = near_and_far(twin, [0.0, 0.6], [0, 1])
    assert error(tested, twin, x, torch.tensor([0.0, 0.6])).max() <= TOLERANCE


@pytest.mark.parametrize("name", ["ELS"])
def test_labels_and_groups(gpu, name):
    options = {"labels": torch.arange(12) % 3, "group": "d4"}
    tested, twin = pair(training_images((1, 3, 3), 12, "bytes"), MACHINES[name], 3, **options)
    x = near_and_far(twin, [0.4, 0.99], [0, 1])
    assert error(tested, twin, x, torch.tensor([0.4, 0.99]), torch.tensor([2, 0])).max() <= TOLERANCE


def test_a_sample_is_the_same_in_any_company(gpu):
    tested, twin = pair(training_images((2, 3, 3), 9, "bytes"), MACHINES["ELS"], 3)
    alpha_bars = torch.tensor([0.3, 0.97, 0.3, 0.9999])
    x = near_and_far(twin, alpha_bars, (0, 0, 1, 1)).to(DEVICE)
    together = tested.denoise(x, alpha_bars)
    alone = [tested.denoise(x[i : i + 1], alpha_bars[i : i + 1]) for i in range(len(x))]
    assert torch.equal(together, torch.cat(alone))
    tested.engine.memory_budget = 1 << 16  # one sample at a time, and fewer images
    torch.testing.assert_close(together, tested.denoise(x, alpha_bars), rtol=0, atol=1e-6)


def test_bytes_follow_the_noise(gpu):
    """More noise, fewer bytes; none where even four would not do."""
    machine, _ = pair(training_images((1, 4, 4), 200, "bytes"), MACHINES["bbELS"], 3)
    scales = [machine.engine._scale(1.0, alpha_bar, 27) for alpha_bar in (0.0, 0.7, 0.99, 0.999, 0.999999)]
    used = [scale and (scale.grid.bytes, scale.bytes) for scale in scales]
    assert used == [(1, 2), (1, 3), (1, 3), (4, 4), None]
    assert machine.engine._scale(1.0, 0.1, (1 << 14) + 1) is None


def test_levels_with_gaps_take_one_byte(gpu):
    """Images of a few of the 256 tones, as floats, as most are read."""
    tones = torch.tensor([0, 3, 4, 200, 255]) / 127.5 - 1
    images = tones[torch.randint(0, 5, (9, 1, 3, 3), generator=torch.Generator().manual_seed(0))]
    tested, twin = pair(images, MACHINES["ELS"], 3)
    assert tested.engine._grids[1].reach == 128
    assert error(tested, twin, near_and_far(twin, [0.7], [0]), 0.7).max() <= TOLERANCE
    uneven = torch.where(images > 0, images * 0.7, images)
    tested, twin = pair(uneven, MACHINES["ELS"], 3)
    assert tested.engine._grids[1] is None
    assert error(tested, twin, near_and_far(twin, [0.7], [0]), 0.7).max() <= TOLERANCE


def test_everything_else_goes_to_the_dense_engine(gpu):
    images = training_images((1, 4, 4), 5, "bytes")
    for rules, window in ((WHOLE["IS"], None), (WHOLE["ES"], None)):
        tested, twin = pair(images, rules, window)
        assert error(tested, twin, queries(twin, 0.5), 0.5).max() <= TOLERANCE
    tested, twin = pair(images, MACHINES["ELS"], 3)
    x = queries(twin, 0.5).double()
    torch.testing.assert_close(tested.denoise(x, 0.5), twin.denoise(x, 0.5), rtol=0, atol=1e-12)


def test_auto_follows_the_device(gpu):
    assert engines.choose("auto", torch.device("cuda")) is gpu.TritonEngine
    assert engines.choose("auto", torch.device("cpu")) is engines.choose("auto")
    assert engines.choose("triton") is gpu.TritonEngine
    machine = pm.ScoreMachine(training_images((1, 4, 4), 5, "bytes"), locality=3)
    assert isinstance(machine.to(DEVICE).engine, engines.choose("auto", torch.device(DEVICE)))


@pytest.mark.parametrize(("found", "version"), [(None, None), (True, "2.3.1")])
def test_without_triton_or_with_one_too_old_auto_is_dense(monkeypatch, found, version):
    monkeypatch.setattr(engines, "find_spec", lambda name: found)
    monkeypatch.setattr(engines, "version", lambda name: version)
    assert engines.choose("auto", torch.device("cuda")) is engines.DenseEngine
    with pytest.raises(pm.InputError, match="dense"):
        engines.choose("triton")


@pytest.mark.parametrize(
    ("architecture", "queries"),
    [(90, 128), *(pytest.param(*c, marks=pytest.mark.slow) for c in [(80, 128), (90, 16)])],
)
def test_kernels_compile(architecture, queries):
    """The interpreter forgives what the compiler does not; no device is needed for either."""
    code = f"""
import triton, warnings
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from patchmosaic.engines import gpu
warnings.simplefilter("ignore")
pointers = dict.fromkeys(["queries", "keys", "planes", "patches"], "*i8")
pointers |= dict.fromkeys(["norms", "positions", "biases", "tops"], "*i32")
pointers |= dict.fromkeys(["values", "units"], "*fp32") | {{"sums": "*fp64"}}
constants = dict(WRAPS=False, BYTES=1, CHANNELS=3, SUMS=4, QUERY_BYTES=3, KEY_BYTES=1, NUMBERS=32, STEP=32)
constants |= dict(HEIGHT=32, WIDTH=32, DOWN=3, ACROSS=3, ROWS=64, QUERIES={queries}, KEYS=64)
for kernel in gpu._cut, gpu._weigh:
    mine = {{name: constants[name] for name in kernel.arg_names if name in constants}}
    kinds = {{name: "constexpr" if name in mine else pointers.get(name, "i32") for name in kernel.arg_names}}
    binary = triton.compile(ASTSource(kernel, kinds, mine), target=GPUTarget("cuda", {architecture}, 32))
    assert len(binary.asm["cubin"]) > 0
    assert kernel is gpu._cut or "s32.s8.s8" in binary.asm["ptx"], "bytes are multiplied on tensor cores"
"""
    environment = {**os.environ, "TRITON_INTERPRET": "0"}
    subprocess.run([sys.executable, "-W", "ignore", "-c", code], check=True, env=environment)


@pytest.mark.gpu
@pytest.mark.parametrize(("shape", "stored"), [*SHAPES, ((3, 32, 32), "bytes")], ids=str)
@pytest.mark.parametrize("name", MACHINES)
def test_battery_on_a_device(shape, stored, name):
    if DEVICE == "cpu":
        pytest.skip("needs a CUDA device")
    images = training_images(shape, 70, stored)
    for window in (1, 3, 5, 17, 2 * max(shape) - 1):
        if name != "ELS inside" or window <= min(shape[1:]):
            tested, twin = pair(images, MACHINES[name], window)
            for alpha_bar in ALPHA_BARS:
                assert error(tested, twin, queries(twin, alpha_bar), alpha_bar).max() <= 1e-4


@pytest.mark.gpu
@pytest.mark.parametrize("name", WHOLE)
def test_whole_image_machines_on_a_device(name):
    if DEVICE == "cpu":
        pytest.skip("needs a CUDA device")
    tested, twin = pair(training_images((3, 6, 5), 30, "bytes"), WHOLE[name], None)
    for alpha_bar in ALPHA_BARS:
        assert error(tested, twin, queries(twin, alpha_bar), alpha_bar).max() <= 1e-4
