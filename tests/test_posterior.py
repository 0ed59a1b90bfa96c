"""The posterior mean as a monoid: however the keys are cut and merged, the answer is softmax(logits) @ values."""

import jaxtyping
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from patchmosaic.posterior import SoftmaxMean, empty, finalize, merge, update

FAST = settings(max_examples=60, deadline=None, database=None, derandomize=True)
QUERIES, VALUES = 3, 2
seeds = st.integers(0, 2**32 - 1)
scales = st.sampled_from([0.0, 1.0, 30.0, 1e3, 1e6])


def random_keys(seed, count, scale, dtype=torch.float64, batch=()):
    """Logits (..., q, m) with a different offset for each query, and values (..., m, v) in [-1, 1]."""
    rng = torch.Generator().manual_seed(seed)
    logits = torch.randn(*batch, QUERIES, count, generator=rng, dtype=torch.float64)
    offsets = torch.randn(*batch, QUERIES, 1, generator=rng, dtype=torch.float64)
    values = torch.rand(*batch, count, VALUES, generator=rng, dtype=torch.float64) * 2 - 1
    return scale * (logits + offsets), values.to(dtype)


def absorbed(logits, values) -> SoftmaxMean:
    return update(empty(logits.shape[:-1], values.shape[-1]), logits, values)


def one(logits, values) -> torch.Tensor:
    """The posterior mean for a single query and one number per key."""
    return finalize(
        absorbed(
            torch.tensor([logits], dtype=torch.float64), torch.tensor(values, dtype=torch.float64)[:, None]
        )
    )


def assert_equal(a: SoftmaxMean, b: SoftmaxMean):
    for left, right in zip(a, b, strict=True):
        assert torch.equal(left, right)


def assert_close(a: SoftmaxMean, b: SoftmaxMean):
    assert torch.equal(a.maximum, b.maximum)
    torch.testing.assert_close(a.total, b.total, rtol=1e-14, atol=0)
    torch.testing.assert_close(a.weighted, b.weighted, rtol=0, atol=1e-14 * float(b.total.max()))


# --- laws ----------------------------------------------------------------------------------------------


@FAST
@given(st.tuples(seeds, seeds, seeds), st.tuples(scales, scales, scales))
def test_associative(three_seeds, three_scales):
    a, b, c = (
        absorbed(*random_keys(*pair)) for pair in zip(three_seeds, (1, 4, 7), three_scales, strict=True)
    )
    assert_close(merge(merge(a, b), c), merge(a, merge(b, c)))


@FAST
@given(seeds, seeds, scales, scales)
def test_commutative(seed_a, seed_b, scale_a, scale_b):
    a, b = absorbed(*random_keys(seed_a, 3, scale_a)), absorbed(*random_keys(seed_b, 5, scale_b))
    assert_equal(merge(a, b), merge(b, a))


@FAST
@given(seeds, scales)
def test_empty_is_neutral(seed, scale):
    state = absorbed(*random_keys(seed, 4, scale))
    nothing = empty((QUERIES,), VALUES)
    assert_equal(merge(state, nothing), state)
    assert_equal(merge(nothing, state), state)
    assert_equal(merge(nothing, nothing), nothing)


@FAST
@given(
    seeds, scales, st.lists(st.integers(1, 6), min_size=1, max_size=8), st.sampled_from([(), (2,), (2, 1)])
)
def test_any_split_is_the_softmax(seed, scale, sizes, batch):
    logits, values = random_keys(seed, sum(sizes), scale, batch=batch)
    expected = torch.softmax(logits, dim=-1) @ values
    pieces = list(zip(logits.split(sizes, dim=-1), values.split(sizes, dim=-2), strict=True))

    one_by_one = empty(logits.shape[:-1], VALUES)
    for piece in pieces:
        one_by_one = update(one_by_one, *piece)
    torch.testing.assert_close(finalize(one_by_one), expected, rtol=0, atol=1e-12)

    backwards = empty(logits.shape[:-1], VALUES)
    for piece in reversed(pieces):
        backwards = merge(absorbed(*piece), backwards)
    torch.testing.assert_close(finalize(backwards), expected, rtol=0, atol=1e-12)


@FAST
@given(seeds, scales, st.permutations(range(9)))
def test_order_of_keys(seed, scale, order):
    logits, values = random_keys(seed, 9, scale)
    shuffled = absorbed(logits[:, order], values[order])
    torch.testing.assert_close(finalize(shuffled), finalize(absorbed(logits, values)), rtol=0, atol=1e-14)


# --- extremes ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("offset", [-1e6, 0.0, 1e6])
def test_a_common_offset_changes_nothing(offset):
    assert one([offset, offset + 1], [0.0, 1.0]) == pytest.approx(1 / (1 + torch.e**-1), rel=1e-15)
    assert one([offset] * 4, [1.0, 2.0, 3.0, 6.0]) == 3.0


def test_a_far_better_key_wins_alone():
    assert one([-1e6, 1e6, 0.0], [5.0, 7.0, 9.0]) == 7.0
    state = absorbed(torch.tensor([[1e6]]).double(), torch.tensor([[7.0]]).double())
    later = update(state, torch.tensor([[-1e6]]).double(), torch.tensor([[5.0]]).double())
    assert finalize(later) == 7.0


def test_every_query_has_its_own_maximum():
    """Under one maximum for all queries, the second would underflow to 0 / 0."""
    logits = torch.tensor([[0.0, 0.0], [-1e6, -1e6 - 1]], dtype=torch.float64)
    values = torch.tensor([[0.0], [1.0]], dtype=torch.float64)
    expected = torch.tensor([[0.5], [1 / (1 + torch.e)]], dtype=torch.float64)
    torch.testing.assert_close(finalize(absorbed(logits, values)), expected, rtol=1e-15, atol=0)


def test_a_key_with_weight_zero_is_no_key():
    assert one([-torch.inf, 0.0, 1.0], [100.0, 0.0, 1.0]) == one([0.0, 1.0], [0.0, 1.0])


@pytest.mark.parametrize("first", [True, False])
def test_a_key_with_weight_zero_in_a_chunk_of_its_own(first):
    nothing = torch.tensor([[-torch.inf]], dtype=torch.float64), torch.tensor([[100.0]], dtype=torch.float64)
    rest = torch.tensor([[0.0, 0.0]], dtype=torch.float64), torch.tensor([[1.0], [2.0]], dtype=torch.float64)
    state = empty((1,), 1)
    for chunk in (nothing, rest) if first else (rest, nothing):
        state = update(state, *chunk)
    assert finalize(state) == 1.5


@pytest.mark.parametrize("shape", [(), (3,), (2, 3)])
def test_no_keys_give_nan(shape):
    mean = finalize(empty(shape, VALUES))
    assert mean.shape == (*shape, VALUES)
    assert mean.isnan().all()


# --- precision and shapes ------------------------------------------------------------------------------


@pytest.mark.parametrize("offset", [0.0, -1e7])
def test_float32_values_with_float64_logits(offset):
    """At 1e7 float32 logits would be off by 1, and the weights by a factor of e."""
    logits, values = random_keys(0, 2000, 3.0, torch.float32)
    logits = logits + offset
    state = empty((QUERIES,), VALUES)
    for some_logits, some_values in zip(logits.split(300, -1), values.split(300), strict=True):
        state = update(state, some_logits, some_values)
    assert all(part.dtype == torch.float64 for part in state)
    expected = torch.softmax(logits, dim=-1) @ values.double()
    torch.testing.assert_close(finalize(state), expected, rtol=0, atol=1e-6)


def test_inputs_are_left_alone():
    logits, values = random_keys(3, 5, 1.0)
    state = absorbed(*random_keys(4, 5, 1.0))
    copies = [tensor.clone() for tensor in (logits, values, *state)]
    update(state, logits, values)
    merge(state, state)
    assert all(map(torch.equal, copies, (logits, values, *state)))


def test_as_many_values_as_logits():
    logits, values = random_keys(0, 5, 1.0)
    with pytest.raises(jaxtyping.TypeCheckError):
        update(empty((QUERIES,), VALUES), logits, values[:-1])
