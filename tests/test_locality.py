"""Windows that change with the noise level."""

import math

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from patchmosaic import (
    CosineSchedule,
    ExponentialSchedule,
    InputError,
    LinearSchedule,
    LocalitySchedule,
    NicholCosineSchedule,
)
from patchmosaic.locality import check_window, window_at
from patchmosaic.presets import PUBLISHED_SCALES

FAST = settings(max_examples=100, deadline=None, database=None, derandomize=True)
COSINE = CosineSchedule()
SCHEDULES = {
    "cosine": COSINE,
    "nichol": NicholCosineSchedule(),
    "linear": LinearSchedule(),
    "exponential": ExponentialSchedule(),
}
DISTINCT = tuple(range(3, 43, 2))
LISTS = {**PUBLISHED_SCALES, "distinct": DISTINCT, "one": (5,)}
every_list = pytest.mark.parametrize("windows", LISTS.values(), ids=LISTS.keys())
every_schedule = pytest.mark.parametrize("schedule", SCHEDULES.values(), ids=SCHEDULES.keys())


def angle(alpha_bar: float) -> float:
    """arccos(sqrt(alpha_bar)), on the side where it is accurate."""
    return math.asin(math.sqrt(1 - alpha_bar)) if alpha_bar > 0.5 else math.acos(math.sqrt(alpha_bar))


# --- reading lists -------------------------------------------------------------------------------------


@every_schedule
@every_list
def test_window_i_holds_at_its_own_time(windows, schedule):
    n = len(windows)
    locality = LocalitySchedule.from_steps(windows, schedule)
    assert [locality(schedule.alpha_bar((i + 1) / n)) for i in range(n)] == list(windows)
    assert locality.windows == tuple(windows)
    assert locality.alpha_bars == tuple(schedule.alpha_bar((i + 1) / n) for i in range(n))


@every_schedule
@every_list
def test_levels_survive_float32(windows, schedule):
    n = len(windows)
    locality = LocalitySchedule.from_steps(windows, schedule)
    rounded = [float(torch.tensor(schedule.alpha_bar((i + 1) / n), dtype=torch.float32)) for i in range(n)]
    assert [locality(alpha_bar) for alpha_bar in rounded] == list(windows)


@every_schedule
@every_list
def test_authors_index_is_one_step_off(windows, schedule):
    n = len(windows)
    locality = LocalitySchedule.from_steps(windows, schedule, authors_index=True)
    assert [locality(schedule.alpha_bar(i / n)) for i in range(n)] == list(windows)
    assert locality(schedule.alpha_bar(1.0)) == windows[-1]


def test_authors_index_against_the_aligned_one():
    aligned = LocalitySchedule.from_steps(DISTINCT, COSINE)
    shifted = LocalitySchedule.from_steps(DISTINCT, COSINE, authors_index=True)
    for i in range(1, 20):
        assert DISTINCT.index(shifted(COSINE.alpha_bar(i / 20))) == i
        assert DISTINCT.index(aligned(COSINE.alpha_bar(i / 20))) == i - 1


# --- in between ----------------------------------------------------------------------------------------


@FAST
@given(st.floats(0, 1))
def test_nearest_in_time_for_the_cosine(t):
    assume(abs(t * 20 % 1 - 0.5) > 1e-6)
    locality = LocalitySchedule.from_steps(DISTINCT, COSINE)
    assert locality(COSINE.alpha_bar(t)) == DISTINCT[max(1, round(t * 20)) - 1]


@FAST
@given(st.lists(st.floats(0, 1), min_size=1, max_size=8, unique=True), st.floats(0, 1))
def test_nearest_in_angle(alpha_bars, alpha_bar):
    locality = LocalitySchedule(alpha_bars, DISTINCT[: len(alpha_bars)])
    distances = [abs(angle(level) - angle(alpha_bar)) for level in alpha_bars]
    chosen = distances[DISTINCT.index(locality(alpha_bar))]
    assert chosen <= min(distances) + 1e-15


def test_constant_beyond_the_ends():
    locality = LocalitySchedule([0.9, 0.5, 0.2], [3, 7, 11])
    assert [locality(a) for a in (1.0, 0.99, 0.9)] == [3, 3, 3]
    assert [locality(a) for a in (0.2, 0.01, 0.0)] == [11, 11, 11]


@FAST
@given(st.permutations(range(6)), st.floats(0, 1))
def test_order_of_input(order, alpha_bar):
    alpha_bars, windows = [0.99, 0.8, 0.5, 0.3, 0.1, 0.0], [3, 5, 5, 9, 7, 11]
    straight = LocalitySchedule(alpha_bars, windows)
    shuffled = LocalitySchedule([alpha_bars[i] for i in order], [windows[i] for i in order])
    assert shuffled == straight
    assert hash(shuffled) == hash(straight)
    assert shuffled(alpha_bar) == straight(alpha_bar)


def test_equality():
    locality = LocalitySchedule([0.9, 0.5], [3, 7])
    assert locality != LocalitySchedule([0.9, 0.5], [3, 5])
    assert locality != LocalitySchedule([0.9, 0.4], [3, 7])
    assert locality != 3
    assert "3, 7" in repr(locality)


@pytest.mark.parametrize(
    ("locality", "expected"), [(None, None), (5, 5), (LocalitySchedule([0.9, 0.1], [3, 9]), 9)]
)
def test_window_at(locality, expected):
    assert window_at(locality, 0.2) == expected


# --- files ---------------------------------------------------------------------------------------------


@every_schedule
@every_list
def test_round_trip(windows, schedule, tmp_path):
    locality = LocalitySchedule.from_steps(windows, schedule)
    path = tmp_path / "made" / "scales.json"
    locality.save(path)
    assert LocalitySchedule.load(path) == locality
    assert [p.name for p in path.parent.iterdir()] == ["scales.json"]


def test_a_missing_file(tmp_path):
    with pytest.raises(InputError, match=r"nowhere\.json") as caught:
        LocalitySchedule.load(tmp_path / "nowhere.json")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[1, 2]",
        "3",
        "{}",
        '{"alpha_bars": [0.5]}',
        '{"windows": [3]}',
        '{"alpha_bars": [0.5], "windows": 3}',
        '{"alpha_bars": ["half"], "windows": [3]}',
        '{"alpha_bars": [0.5], "windows": ["three"]}',
        '{"alpha_bars": [0.5], "windows": [4]}',
        '{"alpha_bars": [NaN], "windows": [3]}',
        '{"alpha_bars": null, "windows": null}',
    ],
)
def test_a_broken_file(tmp_path, text):
    path = tmp_path / "scales.json"
    path.write_text(text)
    with pytest.raises(InputError, match=r"scales\.json") as caught:
        LocalitySchedule.load(path)
    assert "\n" not in str(caught.value)


# --- errors --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("window", [0, 2, 4, -1, -3, 3.5, True, False, math.nan, math.inf])
def test_bad_windows(window):
    for build in (
        lambda: check_window(window),
        lambda: LocalitySchedule([0.9, 0.5], [3, window]),
        lambda: LocalitySchedule.from_steps([3, window], COSINE),
    ):
        with pytest.raises(InputError, match="window") as caught:
            build()
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("window", [3, 3.0, np.int64(3), torch.tensor(3)], ids=repr)
def test_good_windows(window):
    assert check_window(window) == 3
    assert type(check_window(window)) is int


@pytest.mark.parametrize(
    ("alpha_bars", "windows", "message"),
    [
        ([], [], "one at least"),
        ([0.5], [3, 5], "as many windows"),
        ([0.5, 0.4], [3], "as many windows"),
        ([0.5, 1.1], [3, 5], r"\[0, 1\]"),
        (["low", None], [3, 5], "must be numbers"),
        ([-0.1, 0.5], [3, 5], r"\[0, 1\]"),
        ([math.nan, 0.5], [3, 5], r"\[0, 1\]"),
        ([0.5, 0.5], [3, 5], "differ"),
        ([0.5, 0.2, 0.5], [3, 5, 3], "differ"),
    ],
)
def test_bad_levels(alpha_bars, windows, message):
    with pytest.raises(InputError, match=message) as caught:
        LocalitySchedule(alpha_bars, windows)
    assert "\n" not in str(caught.value)


def test_a_name_is_no_schedule():
    with pytest.raises(InputError, match="must be a noise schedule"):
        LocalitySchedule.from_steps([3, 5], "cosine")


@pytest.mark.parametrize("authors_index", [False, True])
def test_an_empty_list(authors_index):
    with pytest.raises(InputError, match="one at least"):
        LocalitySchedule.from_steps([], COSINE, authors_index=authors_index)
