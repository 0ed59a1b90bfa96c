"""Every prediction type means the same clean image."""

import math
from pathlib import Path

import pytest
import torch
from torch import nn

from patchmosaic import Denoiser, FunctionDenoiser, InputError, NicholCosineSchedule, sample

LEVELS = (1e-3, 0.02, 0.5, 0.9, 0.999)
PREDICTS = ("epsilon", "x0", "v", "score")
every_prediction = pytest.mark.parametrize("predicts", PREDICTS)
every_level = pytest.mark.parametrize("alpha_bar", LEVELS)


def random_images(seed: int, batch: int = 5, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    return torch.randn(batch, 2, 3, 4, generator=torch.Generator().manual_seed(seed), dtype=dtype)


CLEAN, NOISE = random_images(0), random_images(1)


def column(alpha_bar) -> torch.Tensor:
    return torch.as_tensor(alpha_bar, dtype=torch.float64).view(-1, 1, 1, 1)


def noisy(alpha_bar) -> torch.Tensor:
    return column(alpha_bar).sqrt() * CLEAN + (1 - column(alpha_bar)).sqrt() * NOISE


def exact(predicts: str, alpha_bar) -> torch.Tensor:
    """What a perfect network returns for ``noisy(alpha_bar)``."""
    signal, sigma = column(alpha_bar).sqrt(), (1 - column(alpha_bar)).sqrt()
    return {"epsilon": NOISE, "x0": CLEAN, "v": signal * NOISE - sigma * CLEAN, "score": -NOISE / sigma}[
        predicts
    ]


def perfect(predicts: str) -> FunctionDenoiser:
    return FunctionDenoiser(lambda x, alpha_bar, labels: exact(predicts, alpha_bar), predicts)


class Fixed(Denoiser):
    """D = tanh x, whatever the noise."""

    def denoise(self, x, alpha_bar, labels=None):
        return x.tanh()


# --- what a prediction means ---------------------------------------------------------------------------


@every_level
@every_prediction
def test_the_same_clean_image(predicts, alpha_bar):
    got = perfect(predicts).denoise(noisy(alpha_bar), alpha_bar)
    torch.testing.assert_close(got, CLEAN, rtol=0, atol=4e-15 / math.sqrt(alpha_bar))


@every_level
@every_prediction
def test_score_and_epsilon_of_a_perfect_network(predicts, alpha_bar):
    denoiser, sigma = perfect(predicts), math.sqrt(1 - alpha_bar)
    tolerance = {"rtol": 0, "atol": 1e-14 / sigma}
    torch.testing.assert_close(denoiser.epsilon(noisy(alpha_bar), alpha_bar), NOISE, **tolerance)
    tolerance["atol"] /= sigma
    torch.testing.assert_close(denoiser.score(noisy(alpha_bar), alpha_bar), -NOISE / sigma, **tolerance)


@every_level
def test_score_and_epsilon_by_definition(alpha_bar):
    x, d = random_images(2), random_images(2).tanh()
    epsilon = (x - math.sqrt(alpha_bar) * d) / math.sqrt(1 - alpha_bar)
    score = (math.sqrt(alpha_bar) * d - x) / (1 - alpha_bar)
    torch.testing.assert_close(Fixed().epsilon(x, alpha_bar), epsilon, rtol=1e-14, atol=1e-14)
    torch.testing.assert_close(Fixed().score(x, alpha_bar), score, rtol=1e-13, atol=1e-13)


def test_predicts_epsilon_by_default():
    assert torch.equal(
        FunctionDenoiser(lambda x, a, labels: NOISE).denoise(noisy(0.3), 0.3),
        perfect("epsilon").denoise(noisy(0.3), 0.3),
    )


@pytest.mark.parametrize("predicts", ["x0", "v"])
def test_no_signal_at_all(predicts):
    torch.testing.assert_close(perfect(predicts).denoise(noisy(0.0), 0.0), CLEAN, rtol=0, atol=1e-15)
    torch.testing.assert_close(perfect(predicts).epsilon(noisy(0.0), 0.0), NOISE, rtol=0, atol=1e-15)


@pytest.mark.parametrize("predicts", ["epsilon", "score"])
def test_no_signal_to_divide_by(predicts):
    """The noise in pure noise says nothing about the image: an error, rather than an image of NaN."""
    assert_refused(lambda: perfect(predicts).denoise(noisy(0.0), 0.0), "start at an earlier time")
    denoiser = FunctionDenoiser(lambda x, alpha_bar, labels: x / 2, predicts)
    with pytest.raises(InputError, match=r"sample\(start='authors'\)"):
        sample(denoiser, NOISE, 3, NicholCosineSchedule())
    assert sample(denoiser, NOISE, 3, NicholCosineSchedule(), start="authors").images.isfinite().all()


# --- calls ---------------------------------------------------------------------------------------------


@every_prediction
@pytest.mark.parametrize("method", ["denoise", "epsilon", "score"])
def test_one_level_per_sample(predicts, method):
    def function(x, alpha_bar, labels):
        return (x * alpha_bar.view(-1, 1, 1, 1)).sin()

    denoiser, x = FunctionDenoiser(function, predicts), random_images(3)
    together = getattr(denoiser, method)(x, torch.tensor(LEVELS, dtype=torch.float64))
    alone = [getattr(denoiser, method)(x[i : i + 1], LEVELS[i]) for i in range(5)]
    torch.testing.assert_close(together, torch.cat(alone), rtol=1e-14, atol=1e-14)


@pytest.mark.parametrize(
    "alpha_bar", [0.25, torch.tensor(0.25), torch.tensor([0.25]), torch.full((5,), 0.25)], ids=str
)
def test_what_the_function_is_called_with(alpha_bar):
    calls = []

    def function(*arguments):
        calls.append(arguments)
        return NOISE

    labels = torch.arange(5)
    FunctionDenoiser(function, "x0").denoise(CLEAN, alpha_bar, labels)
    FunctionDenoiser(function, "x0").denoise(CLEAN, alpha_bar)
    for x, levels, _ in calls:
        assert x is CLEAN
        assert levels.dtype == torch.float64
        assert levels.tolist() == [0.25] * 5
    assert calls[0][2] is labels
    assert calls[1][2] is None


@every_prediction
def test_dtype_of_the_input(predicts):
    denoiser = FunctionDenoiser(lambda x, alpha_bar, labels: x / 2, predicts)
    for dtype in (torch.float32, torch.float64):
        x = random_images(4, dtype=dtype)
        for method in (denoiser.denoise, denoiser.epsilon, denoiser.score):
            assert method(x, 0.7).dtype == dtype


@every_prediction
def test_levels_in_float64_do_not_leak_into_the_result(predicts):
    """What is computed from them is float64; the next step of a flow asks the network again."""
    network = nn.Conv2d(2, 2, 1)
    denoiser = FunctionDenoiser(lambda x, a, labels: network(x) / column(1 - a).sqrt(), predicts)
    x = random_images(4, dtype=torch.float32)
    assert denoiser.denoise(x, 0.7).dtype == torch.float32
    assert sample(denoiser, x, steps=3).images.dtype == torch.float32


def test_levels_close_to_one_in_float32():
    """1 - alpha_bar is taken in float64: in float32 it would be off by up to 3 % here."""
    alpha_bar = 1 - 1e-6
    x = random_images(5, dtype=torch.float32)
    denoiser = FunctionDenoiser(lambda x, alpha_bar, labels: torch.zeros_like(x), "x0")
    torch.testing.assert_close(denoiser.epsilon(x, alpha_bar), x * 1e3, rtol=1e-6, atol=0)
    torch.testing.assert_close(denoiser.score(x, alpha_bar), -x * 1e6, rtol=1e-6, atol=0)


def test_no_gradient_is_kept():
    network = nn.Conv2d(2, 2, 1).double()
    denoised = FunctionDenoiser(lambda x, alpha_bar, labels: network(x)).denoise(CLEAN, 0.5)
    assert not denoised.requires_grad


def test_half_precision_sums_may_overflow():
    """The sum of these finite numbers is beyond float16."""
    x = torch.ones(3, 1, 200, 200, dtype=torch.float16)
    denoiser = FunctionDenoiser(lambda x, alpha_bar, labels: torch.ones_like(x), "x0")
    assert torch.equal(denoiser.denoise(x, 0.5), x)


def test_the_example_of_docs_networks():
    """It runs, with less training, and asks the network at the very time steps it was trained with."""
    page = (Path(__file__).parents[1] / "docs" / "networks.md").read_text("utf-8")
    (snippet,) = [part.split("```")[0] for part in page.split("```python\n")[1:]]
    assert snippet.count("range(1000)") == 1
    known: dict = {}
    exec(compile(snippet.replace("range(1000)", "range(3)"), "networks.md", "exec"), known)
    net, asked = known["net"], []
    known["net"] = lambda x, timestep: asked.extend(timestep.tolist()) or net(x, timestep)
    sample(known["network"], known["noise"][:1], 1000, known["schedule"])
    assert asked == list(range(999, -1, -1))


# --- errors --------------------------------------------------------------------------------------------


def assert_refused(call, message):
    with pytest.raises(InputError, match=message) as caught:
        call()
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("shape", [(1, 2, 3, 4), (5, 4, 3, 4), (5, 2, 4, 3), (5, 24), ()])
def test_a_function_that_returns_another_shape(shape):
    denoiser = FunctionDenoiser(lambda x, alpha_bar, labels: torch.zeros(shape))
    assert_refused(lambda: denoiser.denoise(CLEAN, 0.5), "the network returned shape")


@pytest.mark.parametrize("output", [(NOISE,), {"sample": NOISE}, NOISE.numpy(), None], ids=type)
def test_a_function_that_returns_no_tensor(output):
    denoiser = FunctionDenoiser(lambda x, alpha_bar, labels: output)
    assert_refused(lambda: denoiser.denoise(CLEAN, 0.5), f"the network returned {type(output).__name__}")


@pytest.mark.parametrize("method", ["denoise", "epsilon", "score"])
@pytest.mark.parametrize("x", [CLEAN[0], CLEAN[None], CLEAN.numpy(), CLEAN.int(), None], ids=type)
def test_what_is_no_batch_of_images(method, x):
    """Levels one per image would be spread over three-dimensional input."""
    denoiser = FunctionDenoiser(lambda x, alpha_bar, labels: x, "x0")
    levels = torch.full((len(CLEAN[0]),), 0.5)
    assert_refused(lambda: getattr(denoiser, method)(x, levels), "x must be a tensor of floats of shape")


def test_what_cannot_be_called():
    assert_refused(lambda: FunctionDenoiser("network.pt"), "function must be called as")


@every_prediction
@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_a_function_that_returns_no_number(predicts, bad):
    def function(x, alpha_bar, labels):
        output = torch.zeros_like(x)
        output[3, 1, 2, 0] = bad
        return output

    assert_refused(lambda: FunctionDenoiser(function, predicts).denoise(CLEAN, 0.5), "NaN or infinity")


@pytest.mark.parametrize("predicts", ["eps", "", "X0", None])
def test_an_unknown_prediction(predicts):
    assert_refused(lambda: FunctionDenoiser(lambda *_: NOISE, predicts), "epsilon, x0, v, score")


@pytest.mark.parametrize("method", ["denoise", "epsilon", "score"])
@pytest.mark.parametrize(
    ("alpha_bar", "message"),
    [
        (1.0, r"\[0, 1\)"),
        (1.5, r"\[0, 1\)"),
        (-1e-9, r"\[0, 1\)"),
        (math.nan, r"\[0, 1\)"),
        (torch.tensor([0.5, 0.5, 1.0, 0.5, 0.5]), r"\[0, 1\)"),
        (torch.tensor([0.5, 0.5]), r"one per image \(5\), not 2"),
        (torch.full((6,), 0.5), r"one per image \(5\), not 6"),
        (torch.zeros(0), r"one per image \(5\), not 0"),
    ],
    ids=str,
)
def test_bad_levels(method, alpha_bar, message):
    denoiser = FunctionDenoiser(lambda x, alpha_bar, labels: NOISE)
    assert_refused(lambda: getattr(denoiser, method)(CLEAN, alpha_bar), message)


def test_a_denoiser_must_denoise():
    with pytest.raises(TypeError, match="denoise"):
        type("Nothing", (Denoiser,), {})()
