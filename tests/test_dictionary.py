"""Training images: held in a quarter of the memory without changing a bit, and handed out under a group."""

from collections import Counter

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import patchmosaic as pm
import patchmosaic.dictionary as module
from patchmosaic.dictionary import Dictionary
from patchmosaic.errors import InputError

FAST = settings(max_examples=25, deadline=None, database=None, derandomize=True)
GROUPS = {"identity": 1, "flip": 2, "rotations": 4, "d4": 8}
every_group = pytest.mark.parametrize("group", GROUPS)


def random_bytes(*shape, seed=0):
    return torch.from_numpy(np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8))


def random_floats(*shape, seed=0, dtype=torch.float32):
    return torch.from_numpy(np.random.default_rng(seed).uniform(-1, 1, shape)).to(dtype)


def everything(dictionary, dtype=torch.float32):
    return dictionary.images(dictionary.members(None), dtype)


def assert_same_bits(a, b):
    assert a.dtype == b.dtype
    assert a.shape == b.shape
    assert a.numpy().tobytes() == b.numpy().tobytes()


# --- compaction ----------------------------------------------------------------------------------------

BYTES = torch.cat([torch.arange(256, dtype=torch.uint8).view(1, 1, 16, 16), random_bytes(5, 1, 16, 16)])
SCALINGS = {
    "/127.5 - 1": lambda x: x / 127.5 - 1,
    "2/255 - 1": lambda x: x * (2 / 255) - 1,
    "/255, normalised": lambda x: (x / 255 - 0.5) / 0.5,
    "/255": lambda x: x / 255,
    "8 levels": lambda x: (x // 32) / 7 * 2 - 1,
    "constant": lambda x: x * 0 + 0.1,
}


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("scale", SCALINGS.values(), ids=SCALINGS)
def test_bytes_in_any_scaling(scale, dtype):
    images = scale(BYTES.to(dtype))
    dictionary = Dictionary(images)
    assert_same_bits(everything(dictionary, dtype), images)
    assert dictionary.nbytes == images.numel()


def test_uint8():
    dictionary = Dictionary(BYTES)
    assert_same_bits(everything(dictionary), BYTES.float() / 127.5 - 1)
    assert everything(dictionary).min() == -1
    assert everything(dictionary).max() == 1
    assert dictionary.nbytes == BYTES.numel()


def test_uint8_and_its_floats_are_the_same_dictionary():
    for dtype in (torch.float32, torch.float64):
        assert_same_bits(
            everything(Dictionary(BYTES), dtype), everything(Dictionary(BYTES / 127.5 - 1), dtype)
        )


def test_digits():
    images = pm.load_dataset("digits", limit=300).images
    dictionary = Dictionary(images)
    assert images.dtype == torch.float32
    assert_same_bits(everything(dictionary), images)
    assert dictionary.nbytes == images.numel()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(("levels", "size"), [(255, 1), (256, 1), (257, None), (400, None)])
def test_a_byte_per_number_up_to_256_levels(levels, size, dtype):
    rng = np.random.default_rng(levels)
    table = rng.uniform(-1, 1, levels)
    order = rng.permutation(np.concatenate([np.arange(levels), rng.integers(0, levels, 800 - levels)]))
    images = torch.from_numpy(table[order].reshape(8, 1, 10, 10)).to(dtype)
    assert len(images.unique()) == levels
    dictionary = Dictionary(images)
    assert_same_bits(everything(dictionary, dtype), images)
    assert dictionary.nbytes == images.numel() * (size or images.element_size())


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_numbers_of_all_kinds(dtype):
    images = random_floats(7, 3, 8, 8, dtype=dtype)
    dictionary = Dictionary(images)
    assert_same_bits(everything(dictionary, dtype), images)
    assert dictionary.nbytes == images.nbytes


@FAST
@given(st.integers(1, 300), st.integers(1, 40), st.integers(0, 2**32 - 1))
def test_levels_that_turn_up_late(levels, piece, seed):
    """Small pieces: the table grows while the images are read, and codes given early must still hold."""
    rng = np.random.default_rng(seed)
    order = np.minimum(rng.integers(0, levels, 600), np.arange(600) // 2)
    images = torch.from_numpy(rng.uniform(-1, 1, levels)[order].reshape(6, 1, 10, 10))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "_NUMBERS_AT_ONCE", piece)
        dictionary = Dictionary(images)
    assert_same_bits(everything(dictionary, torch.float64), images)
    distinct = len(images.unique())
    assert dictionary.nbytes == images.numel() * (1 if distinct <= 256 else 8)


def test_numpy_and_strides():
    images = (BYTES / 127.5 - 1).expand(6, 3, 16, 16)
    assert_same_bits(everything(Dictionary(images)), images.contiguous())
    assert_same_bits(everything(Dictionary(images.numpy())), images.contiguous())
    last = images.contiguous(memory_format=torch.channels_last)
    assert_same_bits(everything(Dictionary(last)), images.contiguous())


def test_properties():
    dictionary = Dictionary(random_bytes(4, 3, 5, 6), group="flip")
    assert len(dictionary) == 4
    assert dictionary.shape == (3, 5, 6)
    assert dictionary.device == torch.device("cpu")
    assert dictionary.labels is None
    assert dictionary.to("cpu") is dictionary


# --- members -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "kind", [torch.tensor, lambda v: np.array(v, dtype=np.int16), lambda v: np.array(v, dtype=np.uint8)]
)
def test_members(kind):
    dictionary = Dictionary(random_bytes(5, 1, 3, 3), kind([4, 0, 4, 200, 0]))
    assert dictionary.members(None).tolist() == [0, 1, 2, 3, 4]
    assert dictionary.members(4).tolist() == [0, 2]
    assert dictionary.members(0).tolist() == [1, 4]
    assert dictionary.members(200).tolist() == [3]


def test_images_at_indices():
    images = random_floats(6, 2, 3, 3)
    for given_images in (images, (images > 0).float()):
        assert torch.equal(
            Dictionary(given_images).images(torch.tensor([4, 1, 1]), torch.float32), given_images[[4, 1, 1]]
        )


def test_unknown_members():
    images = random_bytes(3, 1, 2, 2)
    with pytest.raises(InputError, match="no training image has label 7; there are 0, 2"):
        Dictionary(images, torch.tensor([2, 0, 2])).members(7)
    with pytest.raises(InputError, match="the training images have none"):
        Dictionary(images).members(0)


# --- chunks --------------------------------------------------------------------------------------------


def orbit(image, group):
    """The images of a group written out in numpy."""
    turns = range(4) if group in ("rotations", "d4") else range(1)
    flips = (False, True) if group in ("flip", "d4") else (False,)
    turned = [np.rot90(image, k, axes=(-2, -1)) for k in turns]
    return [picture[..., ::-1] if flip else picture for picture in turned for flip in flips]


@every_group
@pytest.mark.parametrize("size", [1, 3, 8, 20, 1000])
@pytest.mark.parametrize("label", [None, 1])
@pytest.mark.parametrize("compact", [True, False])
def test_chunks_cover_the_orbit_once(group, size, label, compact):
    images = random_bytes(7, 2, 4, 4) / 127.5 - 1 if compact else random_floats(7, 8, 4, 4)
    dictionary = Dictionary(images, torch.tensor([0, 1, 1, 0, 1, 0, 1]), group)
    members = dictionary.members(label)
    found = Counter()
    for indices, pictures in dictionary.chunks(members, size, torch.float32):
        assert len(indices) == len(pictures) <= max(size, GROUPS[group])
        found.update((int(i), x.numpy().tobytes()) for i, x in zip(indices, pictures, strict=True))
    expected = Counter(
        (int(i), np.ascontiguousarray(x).tobytes()) for i in members for x in orbit(images[i].numpy(), group)
    )
    assert found == expected
    assert set(found.values()) == {1}
    assert len(found) == len(members) * GROUPS[group]


def test_flips_need_no_square():
    images = random_floats(2, 1, 3, 5)
    ((indices, pictures),) = Dictionary(images, group="flip").chunks(torch.arange(2), 100, torch.float32)
    assert indices.tolist() == [0, 1, 0, 1]
    assert torch.equal(pictures, torch.cat([images, images.flip(-1)]))


# --- nearest -------------------------------------------------------------------------------------------


@every_group
@pytest.mark.parametrize("conditional", [True, False])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("chunk", [1, 1 << 22])
def test_nearest(group, conditional, dtype, chunk, monkeypatch):
    monkeypatch.setattr(module, "_NUMBERS_AT_ONCE", chunk)
    images, labels = random_floats(12, 1, 3, 3), torch.arange(12) % 3
    x, wanted = random_floats(10, 1, 3, 3, seed=1, dtype=dtype), torch.arange(10) % 3
    expected = []
    for query, label in zip(x.double().numpy(), wanted, strict=True):
        distances = {
            i: min(
                float(((query - picture) ** 2).sum()) for picture in orbit(images[i].double().numpy(), group)
            )
            for i in range(12)
            if not conditional or labels[i] == label
        }
        expected.append(min(distances, key=distances.__getitem__))
    got = Dictionary(images, labels, group).nearest(x, wanted if conditional else None)
    assert got.tolist() == expected
    assert len(set(expected)) > 3


def test_nearest_to_itself_and_to_its_turns():
    images = random_bytes(9, 3, 4, 4) / 127.5 - 1
    assert Dictionary(images).nearest(images).tolist() == list(range(9))
    assert Dictionary(images, group="d4").nearest(images.rot90(1, (-2, -1))).tolist() == list(range(9))


# --- errors --------------------------------------------------------------------------------------------

GOOD = random_floats(4, 1, 3, 3)


def bad_value(value):
    images = GOOD.clone()
    images[2, 0, 1, 1] = value
    return images


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (GOOD.half(), "not float16"),
        (GOOD.int(), "not int32"),
        (GOOD > 0, "not bool"),
        (GOOD.long().numpy(), "not int64"),
        (GOOD[0], r"not \(1, 3, 3\)"),
        (GOOD[None], r"not \(1, 4, 1, 3, 3\)"),
        (GOOD[:0], r"not \(0, 1, 3, 3\)"),
        (GOOD[..., :0], r"not \(4, 1, 3, 0\)"),
        (GOOD.to("meta"), "meta"),
        (GOOD.to_sparse(), "sparse"),
        (bad_value(np.nan), "NaN or infinity"),
        (bad_value(np.inf), "NaN or infinity"),
        (bad_value(-np.inf).numpy(), "NaN or infinity"),
        (bad_value(1.1), r"scaled to \[-1, 1\]"),
        (bad_value(-1.1).double(), r"scaled to \[-1, 1\]"),
        (GOOD * 255, r"scaled to \[-1, 1\]"),
    ],
)
def test_bad_images(images, message):
    with pytest.raises(InputError, match=message) as caught:
        Dictionary(images)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (torch.zeros(3, dtype=torch.long), r"shape \(4,\), not \(3,\)"),
        (torch.zeros(4, 1, dtype=torch.long), r"shape \(4,\), not \(4, 1\)"),
        (torch.tensor(0), r"shape \(4,\), not \(\)"),
        (torch.zeros(4), "integers, not float32"),
        (np.zeros(4), "integers, not float64"),
        (torch.zeros(4, dtype=torch.bool), "integers, not bool"),
    ],
    ids=str,
)
def test_bad_labels(labels, message):
    with pytest.raises(InputError, match=message) as caught:
        Dictionary(GOOD, labels)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("group", ["rotations", "d4"])
def test_turning_needs_squares(group):
    with pytest.raises(InputError, match="must be square") as caught:
        Dictionary(random_floats(2, 1, 3, 4), group=group)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("group", ["", "C4", "D4"])
def test_unknown_group(group):
    with pytest.raises(InputError, match="group must be one of identity, flip, rotations, d4") as caught:
        Dictionary(GOOD, group=group)
    assert "\n" not in str(caught.value)
