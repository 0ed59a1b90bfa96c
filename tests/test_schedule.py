"""Noise schedules: the published formulas, and time and alpha_bar as inverses of each other."""

import math
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from patchmosaic import (
    ArraySchedule,
    CosineSchedule,
    ExponentialSchedule,
    InputError,
    LinearSchedule,
    NicholCosineSchedule,
)
from patchmosaic.schedule import SCHEDULES

FAST = settings(max_examples=50, deadline=None, database=None, derandomize=True)
EPSILON = np.finfo(np.float64).eps


def ddpm_alphas_cumprod(steps: int = 1000) -> np.ndarray:
    """DDPM's linear betas, 1e-4 to 0.02 over 1000 steps, in float64; the same noise in other step counts."""
    return np.cumprod(1 - np.linspace(0.1 / steps, 20.0 / steps, steps))


def grid(size: int) -> torch.Tensor:
    return torch.arange(1, size + 1, dtype=torch.float64) / size


FAMILIES = {
    "cosine": CosineSchedule(),
    "nichol-cosine": NicholCosineSchedule(),
    "linear": LinearSchedule(),
    "linear-from-0": LinearSchedule(0.0, 5.0),
    "exponential": ExponentialSchedule(),
    "exponential-slow": ExponentialSchedule(0.3),
    "array-ddpm": ArraySchedule(ddpm_alphas_cumprod()),
    "array-short": ArraySchedule([0.9, 0.4, 0.39, 0.0]),
}
every_schedule = pytest.mark.parametrize("schedule", FAMILIES.values(), ids=FAMILIES.keys())
fractions = st.one_of(st.floats(0, 1), st.sampled_from([0.0, 1e-12, 1e-6, 0.5, 1 - 1e-12, 1.0]))


def assert_one_line(caught) -> None:
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) > 10


# --- formulas ------------------------------------------------------------------------------------------


@every_schedule
def test_starts_at_one(schedule):
    assert schedule.alpha_bar(0.0) == 1.0
    assert schedule.time(1.0) == 0.0


@every_schedule
def test_strictly_decreasing(schedule):
    values = schedule.alpha_bar(torch.linspace(0, 1, 2001, dtype=torch.float64))
    assert (values.diff() < 0).all()
    assert values[-1] >= 0


def test_cosine_is_the_papers():
    schedule = CosineSchedule()
    assert f"{schedule.alpha_bar(1.0):.3e}" == "1.554e-04"
    for t in (0.05, 0.3, 0.5, 0.95):
        assert schedule.alpha_bar(t) == pytest.approx(math.cos(t / 1.008 * math.pi / 2) ** 2, rel=1e-14)


def test_nichol_cosine_is_the_published_formula():
    schedule = NicholCosineSchedule()
    for t in np.linspace(0, 1, 101)[1:-1]:
        f_t = math.cos((t + 0.008) / 1.008 * math.pi / 2) ** 2
        f_0 = math.cos(0.008 / 1.008 * math.pi / 2) ** 2
        assert schedule.alpha_bar(float(t)) == pytest.approx(f_t / f_0, rel=1e-13)


def test_nichol_cosine_ends_at_exactly_nothing():
    assert NicholCosineSchedule().alpha_bar(1.0) == 0.0
    assert NicholCosineSchedule().time(0.0) == 1.0


@pytest.mark.parametrize(("beta_min", "beta_max"), [(0.1, 20.0), (0.0, 3.0), (2.0, 2.5)])
def test_linear_integrates_its_noise_rate(beta_min, beta_max):
    schedule = LinearSchedule(beta_min, beta_max)
    for t in (0.1, 0.5, 1.0):
        # Simpson's rule is exact for the straight line beta.
        middle, end = (beta_min + (beta_max - beta_min) * u for u in (t / 2, t))
        integral = (beta_min + 4 * middle + end) * t / 6
        assert schedule.alpha_bar(t) == pytest.approx(math.exp(-integral), rel=1e-13)


def test_linear_is_the_limit_of_ddpm():
    """The 1000 steps are within 2e-3 of the limit, and the distance falls as 1 / steps."""
    errors = {}
    for steps in (1000, 2000, 4000):
        limit = LinearSchedule().alpha_bar(grid(steps))
        errors[steps] = float((limit - torch.from_numpy(ddpm_alphas_cumprod(steps))).abs().max())
    assert errors[1000] < 2e-3
    assert errors[1000] / errors[2000] == pytest.approx(2, abs=0.02)
    assert errors[2000] / errors[4000] == pytest.approx(2, abs=0.02)


@pytest.mark.parametrize("rate", [0.3, 8.0])
def test_exponential_forgets_at_a_constant_rate(rate):
    schedule = ExponentialSchedule(rate)
    assert schedule.alpha_bar(1.0) == pytest.approx(math.exp(-rate), rel=1e-14)
    product = schedule.alpha_bar(0.25) * schedule.alpha_bar(0.35)
    assert schedule.alpha_bar(0.6) == pytest.approx(product, rel=1e-13)


def test_names():
    assert list(SCHEDULES) == ["cosine", "nichol-cosine", "linear", "exponential"]
    for name in SCHEDULES:
        assert SCHEDULES[name]().alpha_bar(0.37) == FAMILIES[name].alpha_bar(0.37)


# --- inverses ------------------------------------------------------------------------------------------


@every_schedule
@FAST
@given(t=fractions)
def test_time_inverts_alpha_bar(schedule, t):
    # alpha_bar is flat at t = 0 in the cosine schedules: rounding it to float64 moves t by up to eps / t.
    tolerance = 20 * EPSILON + min(2 * EPSILON / max(t, 1e-300), 2e-8)
    assert schedule.time(schedule.alpha_bar(t)) == pytest.approx(t, rel=0, abs=tolerance)


@every_schedule
@FAST
@given(share=fractions)
def test_alpha_bar_inverts_time(schedule, share):
    lowest = schedule.alpha_bar(1.0)
    alpha_bar = min(1.0, lowest + (1 - lowest) * share)
    assert schedule.alpha_bar(schedule.time(alpha_bar)) == pytest.approx(alpha_bar, rel=0, abs=20 * EPSILON)


@every_schedule
def test_time_of_more_noise_than_the_schedule_has_is_one(schedule):
    assert schedule.time(schedule.alpha_bar(1.0) / 2) == pytest.approx(1.0, rel=0, abs=1e-15)
    assert schedule.time(0.0) == pytest.approx(1.0, rel=0, abs=1e-15)


# --- tables --------------------------------------------------------------------------------------------


@FAST
@given(
    st.lists(st.floats(0, 1, exclude_max=True), min_size=1, max_size=30, unique=True),
    st.sampled_from([list, np.array, torch.tensor]),
)
def test_table_passes_through_its_entries(values, kind):
    table = sorted(values, reverse=True)
    schedule = ArraySchedule(
        torch.tensor(table, dtype=torch.float64) if kind is torch.tensor else kind(table)
    )
    for k, value in enumerate(table):
        assert schedule.alpha_bar((k + 1) / len(table)) == pytest.approx(
            value, rel=0, abs=EPSILON * (2 + len(table))
        )


@pytest.mark.parametrize("size", [1, 20, 1000])
def test_table_of_the_cosine_is_the_cosine(size):
    """The angle is linear in time in the paper's schedule, so interpolating it loses nothing."""
    table = ArraySchedule(CosineSchedule().alpha_bar(grid(size)))
    t = torch.linspace(0, 1, 777, dtype=torch.float64)
    torch.testing.assert_close(table.alpha_bar(t), CosineSchedule().alpha_bar(t), rtol=0, atol=1e-14)


def test_table_of_a_smooth_schedule_converges_quadratically():
    smooth = ExponentialSchedule(3.0)
    t = torch.linspace(0.2, 1, 1733, dtype=torch.float64)
    errors = []
    for size in (100, 200, 400):
        table = ArraySchedule(smooth.alpha_bar(grid(size)))
        errors.append(float((table.alpha_bar(t) - smooth.alpha_bar(t)).abs().max()))
    for coarse, fine in pairwise(errors):
        assert coarse / fine == pytest.approx(4, rel=0.1)


# --- types ---------------------------------------------------------------------------------------------


@every_schedule
@pytest.mark.parametrize("method", ["alpha_bar", "time"])
def test_float_for_a_float_and_float64_for_a_tensor(schedule, method):
    function = getattr(schedule, method)
    assert type(function(0.25)) is float
    assert type(function(1)) is float
    for dtype in (torch.float32, torch.float64):
        for shape in ((), (3,), (2, 0), (2, 3)):
            values = torch.full(shape, 0.25, dtype=dtype)
            result = function(values)
            assert result.dtype == torch.float64
            assert result.shape == shape
            assert (result == function(0.25)).all()


@every_schedule
def test_times(schedule):
    assert schedule.times(1) == (1.0,)
    assert schedule.times(4) == (1.0, 0.75, 0.5, 0.25)
    assert schedule.times(20)[6] == 14 / 20


# --- errors --------------------------------------------------------------------------------------------


@every_schedule
@pytest.mark.parametrize("method", ["alpha_bar", "time"])
@pytest.mark.parametrize("value", [-1e-9, 1 + 1e-9, math.nan, math.inf, -math.inf])
def test_outside_the_unit_interval(schedule, method, value):
    for given_value in (value, torch.tensor([0.5, value], dtype=torch.float64)):
        with pytest.raises(InputError, match=r"must lie in \[0, 1\]") as caught:
            getattr(schedule, method)(given_value)
        assert_one_line(caught)


@every_schedule
@pytest.mark.parametrize("steps", [0, -3, 10**12, 1.5, "a", None, True])
def test_bad_steps(schedule, steps):
    with pytest.raises(InputError, match="steps must be a whole number from 1 to") as caught:
        schedule.times(steps)
    assert_one_line(caught)


@pytest.mark.parametrize(
    "table",
    [
        [],
        [1.0, 0.5],
        [0.5, 0.5],
        [0.3, 0.5],
        [1.2, 0.5],
        [0.5, -0.1],
        [0.5, math.nan],
        [math.nan],
        [0.9, 0.1, 0.2],
    ],
    ids=str,
)
def test_bad_tables(table):
    with pytest.raises(InputError, match="strictly decreasing") as caught:
        ArraySchedule(table)
    assert_one_line(caught)


@pytest.mark.parametrize("rate", [0.0, -1.0, math.nan])
def test_bad_rate(rate):
    with pytest.raises(InputError, match="rate must be larger than 0") as caught:
        ExponentialSchedule(rate)
    assert_one_line(caught)


@pytest.mark.parametrize("betas", [(-0.1, 1.0), (1.0, 1.0), (2.0, 1.0), (math.nan, 1.0), (0.1, math.nan)])
def test_bad_betas(betas):
    with pytest.raises(InputError, match="0 <= beta_min < beta_max") as caught:
        LinearSchedule(*betas)
    assert_one_line(caught)


@pytest.mark.parametrize(
    ("kind", "rates"), [(ExponentialSchedule, (math.inf,)), (LinearSchedule, (0.1, math.inf))]
)
def test_infinite_rate(kind, rates):
    """With it, alpha_bar(0) would be NaN."""
    with pytest.raises(InputError) as caught:
        kind(*rates)
    assert_one_line(caught)
