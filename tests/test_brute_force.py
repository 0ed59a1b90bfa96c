"""The reference itself, against cases that can be worked out by hand."""

import math

import numpy as np
import pytest

from brute_force import GROUPS, border_signature, cut_window, posterior_mean, transformed_images

MACHINES = [  # window, translation, padding
    pytest.param(None, False, "zeros", id="IS"),
    pytest.param(None, True, "circular", id="ES"),
    pytest.param(3, False, "zeros", id="LS-zeros"),
    pytest.param(3, False, "circular", id="LS-circular"),
    pytest.param(3, True, "circular", id="ELS"),
    pytest.param(3, True, "zeros", id="bbELS"),
]


def two_term(logit_a, a, logit_b, b):
    share = 1 / (1 + math.exp(logit_b - logit_a))
    return share * a + (1 - share) * b


@pytest.mark.parametrize(("window", "translation", "padding"), MACHINES)
def test_one_pixel_images(window, translation, padding):
    x, a, b, ab = 0.4, -0.3, 0.8, 0.6
    times = 9 if window and padding == "circular" else 1  # a wrapped 3x3 window sees the one pixel 9 times
    logits = [-times * (x - math.sqrt(ab) * v) ** 2 / (2 * (1 - ab)) for v in (a, b)]
    got = posterior_mean(
        [[[x]]], [[[[a]]], [[[b]]]], ab, window=window, translation=translation, padding=padding
    )
    assert got.shape == (1, 1, 1)
    assert got[0, 0, 0] == pytest.approx(two_term(logits[0], a, logits[1], b), rel=1e-14)


@pytest.mark.parametrize("exact", [False, True])
@pytest.mark.parametrize("padding", ["zeros", "circular"])
@pytest.mark.parametrize("window", [1, 3, 5])
def test_black_and_white_images_give_tanh_of_the_window_sum(window, padding, exact):
    rng = np.random.default_rng(0)
    x, ab = rng.normal(size=(1, 3, 4)), 0.2
    images = np.stack([np.ones((1, 3, 4)), -np.ones((1, 3, 4))])
    got = posterior_mean(x, images, ab, window=window, translation=True, padding=padding, exact=exact)
    r = window // 2
    padded = np.pad(x[0], r, mode="wrap" if padding == "circular" else "constant")
    for i in range(3):
        for j in range(4):
            total = padded[i : i + window, j : j + window].sum()
            assert got[0, i, j] == pytest.approx(math.tanh(math.sqrt(ab) * total / (1 - ab)), rel=1e-12)


def test_ideal_machine_of_two_images():
    x = [[[0.5, -1.0]]]
    a, b = [[[0.2, 0.6]]], [[[-0.4, 0.1]]]
    logits = [-((0.5 - 0.5 * v[0]) ** 2 + (-1.0 - 0.5 * v[1]) ** 2) / 1.5 for v in ((0.2, 0.6), (-0.4, 0.1))]
    got = posterior_mean(x, [a, b], 0.25, window=None, translation=False, padding="zeros")
    expected = [two_term(logits[0], p, logits[1], q) for p, q in ((0.2, -0.4), (0.6, 0.1))]
    np.testing.assert_allclose(got[0, 0], expected, rtol=1e-14)


def test_equivariant_machine_sees_both_translates_of_two_pixels():
    logits = [-((0.5 - 0.5 * p) ** 2 + (-1.0 - 0.5 * q) ** 2) / 1.5 for p, q in ((0.2, 0.6), (0.6, 0.2))]
    got = posterior_mean(
        [[[0.5, -1.0]]], [[[[0.2, 0.6]]]], 0.25, window=None, translation=True, padding="circular"
    )
    expected = [two_term(logits[0], 0.2, logits[1], 0.6), two_term(logits[0], 0.6, logits[1], 0.2)]
    np.testing.assert_allclose(got[0, 0], expected, rtol=1e-14)


def test_with_zeros_the_whole_image_does_not_move():
    rng = np.random.default_rng(1)
    x, images = rng.normal(size=(2, 3, 4)), rng.uniform(-1, 1, (3, 2, 3, 4))
    still = posterior_mean(x, images, 0.5, window=None, translation=False, padding="zeros")
    moved = posterior_mean(x, images, 0.5, window=None, translation=True, padding="zeros")
    np.testing.assert_array_equal(still, moved)


def test_cut_window():
    image = [[[1, 2, 3], [4, 5, 6]]]
    assert cut_window(image, 0, 0, 3, "zeros") == [0, 0, 0, 0, 1, 2, 0, 4, 5]
    assert cut_window(image, 0, 0, 3, "circular") == [6, 4, 5, 3, 1, 2, 6, 4, 5]
    assert cut_window(image, 1, 2, 1, "zeros") == [6]
    # wider than the image: rows 0 and 1 alternate, columns wrap
    assert cut_window([[[1, 2]]], 0, 0, 5, "circular") == [1, 2, 1, 2, 1] * 5
    two_channels = [0, 0, 0, 1, 2, 0, 0, 0, 0, 0, 0, 0, 3, 4, 0, 0, 0, 0]
    assert cut_window([[[1, 2]], [[3, 4]]], 0, 1, 3, "zeros") == two_channels


def test_border_signature():
    assert border_signature(0, 0, 5, 6, 3) == (0, 1, 0, 1)
    assert border_signature(1, 1, 5, 6, 3) == border_signature(3, 4, 5, 6, 3) == (1, 1, 1, 1)
    assert border_signature(4, 2, 5, 6, 3) == (1, 0, 1, 1)
    assert border_signature(1, 3, 5, 6, 5) == (1, 2, 2, 2)
    assert border_signature(2, 4, 5, 6, 5) == (2, 2, 2, 1)


def test_border_rule_without_signal_averages_each_class():
    image = np.arange(20.0).reshape(1, 1, 4, 5)
    got = posterior_mean(np.ones((1, 4, 5)), image, 0.0, window=3, translation=True, padding="zeros")
    expected = [
        [0, 2, 2, 2, 4],
        [7.5, 9.5, 9.5, 9.5, 11.5],
        [7.5, 9.5, 9.5, 9.5, 11.5],
        [15, 17, 17, 17, 19],
    ]
    np.testing.assert_allclose(got[0], expected, rtol=1e-14)


def test_keys_inside_leaves_the_one_interior_pixel():
    image = np.arange(9.0).reshape(1, 1, 3, 3)
    x = np.random.default_rng(2).normal(size=(1, 3, 3))
    got = posterior_mean(x, image, 0.7, window=3, translation=True, padding="circular", keys="inside")
    np.testing.assert_array_equal(got, np.full((1, 3, 3), 4.0))


@pytest.mark.parametrize(("window", "translation", "padding"), MACHINES)
@pytest.mark.parametrize("alpha_bar", [0.01, 0.7, 0.9999])
def test_double_precision_agrees_with_fifty_digits(window, translation, padding, alpha_bar):
    rng = np.random.default_rng(3)
    images = rng.uniform(-1, 1, (2, 2, 3, 4))
    x = math.sqrt(alpha_bar) * images[0] + math.sqrt(1 - alpha_bar) * rng.normal(size=(2, 3, 4))
    config = {"window": window, "translation": translation, "padding": padding}
    double = posterior_mean(x, images, alpha_bar, **config)
    digits = posterior_mean(x, images, alpha_bar, exact=True, **config)
    np.testing.assert_allclose(double, digits, rtol=0, atol=1e-13)


@pytest.mark.parametrize(
    "wrong",
    [
        {"window": 4},
        {"padding": "reflect"},
        {"keys": "outside"},
        {"keys": "inside", "translation": False},
        {"keys": "inside", "padding": "zeros"},
        {"keys": "inside", "window": 5},
    ],
)
def test_what_has_no_meaning_is_refused(wrong):
    config = {"window": 3, "translation": True, "padding": "circular"} | wrong
    with pytest.raises(ValueError, match=r"unknown|odd|keys|stand in"):
        posterior_mean(np.zeros((1, 3, 3)), np.zeros((1, 1, 3, 3)), 0.5, **config)


def test_transformed_images():
    image = np.array([[[[1, 2], [3, 4]]]])
    flip = transformed_images(image, "flip")[:, 0].tolist()
    assert flip == [[[1, 2], [3, 4]], [[2, 1], [4, 3]]]
    turns = transformed_images(image, "rotations")[:, 0].tolist()
    assert turns == [[[1, 2], [3, 4]], [[2, 4], [1, 3]], [[4, 3], [2, 1]], [[3, 1], [4, 2]]]
    assert transformed_images(np.zeros((3, 1, 2, 5)), "flip").shape == (6, 1, 2, 5)
    with pytest.raises(ValueError, match="square"):
        transformed_images(np.zeros((3, 1, 2, 5)), "rotations")


@pytest.mark.parametrize(("group", "order"), [*zip(GROUPS, (1, 2, 4, 8), strict=True)])
def test_transformed_images_form_a_group(group, order):
    images = np.random.default_rng(4).normal(size=(1, 2, 3, 3))
    once = {part.tobytes() for part in transformed_images(images, group)}
    twice = {part.tobytes() for part in transformed_images(transformed_images(images, group), group)}
    assert len(once) == order
    assert once == twice
