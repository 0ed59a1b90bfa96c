"""Loading: every format gives the pixels that went in, and every mistake one helpful line."""

from __future__ import annotations

import gzip
import io
import json
import struct
import sys
import types
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from patchmosaic.data import Dataset, load_dataset
from patchmosaic.data.pixels import as_bytes, as_floats
from patchmosaic.errors import InputError

NAMES = ("ant", "bee", "cow")


def random_images(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


GREY = random_images(9, 5, 5)
COLOUR = random_images(9, 3, 5, 5, seed=1)
LABELS = np.array([0, 1, 2, 0, 1, 2, 0, 1, 2])


def encoded(image: np.ndarray, kind: str = "PNG") -> bytes:
    """A grey (h, w) or colour (3, h, w) array as an image file."""
    stream = io.BytesIO()
    Image.fromarray(image if image.ndim == 2 else image.transpose(1, 2, 0)).save(stream, kind)
    return stream.getvalue()


def write_parquet(
    path: Path, cells: list[Any], labels: Any = None, names: Any = None, **options: Any
) -> Path:
    kind = pa.struct({"bytes": pa.binary(), "path": pa.string()})
    columns = {options.pop("column", "image"): pa.array(cells, options.pop("kind", kind))}
    if labels is not None:
        columns["label"] = pa.array(labels)
    table = pa.table(columns)
    if names is not None:
        info = {"info": {"features": {"image": {"_type": "Image"}, "label": {"names": list(names)}}}}
        table = table.replace_schema_metadata({"huggingface": json.dumps(info)})
    pq.write_table(table, path, **options)
    return path


def hub_parquet(path: Path, images: np.ndarray = GREY, names: Any = NAMES, **options: Any) -> Path:
    cells = [{"bytes": encoded(image), "path": f"{i}.png"} for i, image in enumerate(images)]
    return write_parquet(path, cells, LABELS[: len(images)], names, **options)


def write_idx(path: Path, array: np.ndarray, compress: bool = False) -> Path:
    data = (
        struct.pack(f">4B{array.ndim}I", 0, 0, 8, array.ndim, *array.shape) + array.astype(np.uint8).tobytes()
    )
    path.write_bytes(gzip.compress(data) if compress else data)
    return path


def write_folder(folder: Path, images: np.ndarray, labels: np.ndarray | None = None) -> Path:
    for i, image in enumerate(images):
        parent = folder if labels is None else folder / NAMES[labels[i]]
        parent.mkdir(parents=True, exist_ok=True)
        (parent / f"{i}.png").write_bytes(encoded(image))
    return folder


def assert_pixels(data: Dataset, expected: np.ndarray) -> None:
    expected = expected[:, None] if expected.ndim == 3 else expected
    assert data.pixels.dtype == torch.from_numpy(expected).dtype
    np.testing.assert_array_equal(data.pixels.numpy(), expected)


def refusal(*args: Any, **options: Any) -> str:
    with pytest.raises(InputError) as caught:
        load_dataset(*args, **options)
    message = str(caught.value)
    assert "\n" not in message
    return message


# ---------------------------------------------------------------------------------------- the data set


def test_digits_are_the_seventeen_levels() -> None:
    data = load_dataset("digits")
    assert data.pixels.shape == (1797, 1, 8, 8)
    assert data.pixels.dtype == torch.float32
    assert set(data.pixels.unique().tolist()) == {level / 8 - 1 for level in range(17)}
    assert data.class_names == tuple("0123456789")
    assert data.labels is not None
    assert data.labels[:10].tolist() == list(range(10))
    assert data.name == "digits"
    assert data.images is data.pixels


@pytest.mark.parametrize("size", [None, 1, 7])
def test_two_tone_is_one_black_and_one_white_image(size: int | None) -> None:
    data = load_dataset("two-tone", size=size)
    side = size or 16
    assert torch.equal(data.pixels, torch.tensor([-1.0, 1.0]).view(2, 1, 1, 1).expand(2, 1, side, side))
    assert data.labels is None
    assert data.class_names == ()
    assert len(data) == 2


def test_images_of_bytes_span_minus_one_to_one(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.array([[[0, 255], [51, 204]]], dtype=np.uint8))
    data = load_dataset(tmp_path / "a.npy")
    assert data.pixels.dtype == torch.uint8
    assert data.images.dtype == torch.float32
    torch.testing.assert_close(data.images, torch.tensor([[[[-1.0, 1.0], [-0.6, 0.6]]]]))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_bytes_come_back_from_floats(dtype: torch.dtype) -> None:
    levels = torch.arange(256, dtype=torch.uint8)
    floats = as_floats(levels).to(dtype)
    assert torch.equal(as_bytes(floats), levels)
    third = 1 / (3 * 127.5)
    assert torch.equal(as_bytes(floats - third), levels)
    assert torch.equal(as_bytes(floats + third), levels)
    assert as_bytes(torch.tensor([-1.9, 1.9], dtype=dtype)).tolist() == [0, 255]


def test_fingerprint_is_stable_and_tells_pixels_labels_and_shape_apart() -> None:
    data = Dataset(
        torch.arange(16, dtype=torch.uint8).view(2, 2, 2, 2),
        torch.tensor([0, 1]),
        ("0", "1"),
        torch.arange(2),
        "made",
    )
    assert data.fingerprint == "fb83e99036ca72ee7f33a53889f73d91fc48844a4f5d4709ed42e3c4f4b7a2b4"
    changed = data.pixels.clone()
    changed[1, 0, 1, 1] += 1
    others = [
        replace(data, pixels=changed),
        replace(data, labels=torch.tensor([0, 0])),
        replace(data, labels=None),
        replace(data, pixels=data.pixels.view(2, 1, 4, 2)),
        replace(data, pixels=data.pixels.view(torch.int8)),
    ]
    assert len({data.fingerprint, *(other.fingerprint for other in others)}) == 6
    assert replace(data, name="other").fingerprint == data.fingerprint
    strided = data.pixels.contiguous(memory_format=torch.channels_last)
    assert replace(data, pixels=strided).fingerprint == data.fingerprint


# ---------------------------------------------------------------------------------------- parquet, hub


@pytest.mark.parametrize("images", [GREY, COLOUR], ids=["grey", "colour"])
@pytest.mark.parametrize("rows_per_group", [2, 100])
def test_parquet_round_trip(tmp_path: Path, images: np.ndarray, rows_per_group: int) -> None:
    data = load_dataset(hub_parquet(tmp_path / "set-train.parquet", images, row_group_size=rows_per_group))
    assert_pixels(data, images)
    assert data.labels is not None
    assert data.labels.tolist() == LABELS.tolist()
    assert data.labels.dtype == data.indices.dtype == torch.int64
    assert data.class_names == NAMES
    assert data.name == "set-train"
    assert data.indices.tolist() == list(range(9))


def test_parquet_longer_than_a_batch(tmp_path: Path) -> None:
    images = random_images(200, 2, 2)
    cells = [{"bytes": encoded(image), "path": None} for image in images]
    path = write_parquet(tmp_path / "a.parquet", cells, np.arange(200) % 2, row_group_size=150)
    assert_pixels(load_dataset(path, classes=1), images[1::2])


def test_parquet_of_plain_bytes_without_labels_or_names(tmp_path: Path) -> None:
    cells = [encoded(image) for image in GREY]
    data = load_dataset(write_parquet(tmp_path / "a.parquet", cells, kind=pa.binary(), column="img"))
    assert_pixels(data, GREY)
    assert data.labels is None
    labelled = load_dataset(hub_parquet(tmp_path / "b.parquet", names=None))
    assert labelled.class_names == ("0", "1", "2")


def test_labels_of_minus_one_alone_mean_none(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", images=GREY, labels=np.full(9, -1))
    assert load_dataset(tmp_path / "a.npz").labels is None


class FakeTable(list):  # type: ignore[type-arg]
    """The part of datasets.Dataset that the loader uses."""

    def __init__(self, records: list[dict[str, Any]], features: dict[str, Any]) -> None:
        super().__init__(records)
        self.features = features

    taken: ClassVar[list[int]] = []

    @staticmethod
    def from_list(records: list[dict[str, Any]], features: dict[str, Any]) -> FakeTable:
        return FakeTable(records, features)

    def __getitem__(self, key: Any) -> Any:
        return [record[key] for record in self] if isinstance(key, str) else super().__getitem__(key)

    def select_columns(self, names: list[str]) -> FakeTable:
        return FakeTable([{name: record[name] for name in names} for record in self], self.features)

    def cast_column(self, name: str, kind: Any) -> FakeTable:
        assert kind.decode is False
        return self

    def take(self, count: int) -> FakeTable:
        self.taken.append(count)
        return FakeTable(self[:count], self.features)

    def select(self, rows: list[int]) -> FakeTable:
        return FakeTable([list(self)[row] for row in rows], self.features)


@pytest.fixture
def fake_hub(monkeypatch: pytest.MonkeyPatch) -> types.ModuleType:
    module: Any = types.ModuleType("datasets")
    module.Image = type("Image", (), {"__init__": lambda self, decode=True: setattr(self, "decode", decode)})
    module.Dataset = FakeTable
    module.ClassLabel = type("ClassLabel", (), {"names": list(NAMES)})
    pictures = [Image.fromarray(image) for image in GREY]
    records = [{"id": i, "pic": pictures[i], "kind": int(LABELS[i])} for i in range(9)]
    kinds = {"id": object(), "pic": module.Image(), "kind": module.ClassLabel()}

    def load(name: str, split: str, streaming: bool) -> FakeTable:
        if name != "someone/bugs":
            raise FileNotFoundError(f"no\n{name}")
        if split == "bare":
            return FakeTable([{"id": 0}], {"id": object()})
        return FakeTable(records, kinds)

    module.load_dataset = load
    monkeypatch.setitem(sys.modules, "datasets", module)
    return module


def test_hub_round_trip(fake_hub: types.ModuleType) -> None:
    data = load_dataset("hub:someone/bugs", classes="bee", split="test")
    assert_pixels(data, GREY[1::3])
    assert data.labels is not None
    assert data.labels.tolist() == [1, 1, 1]
    assert data.class_names == NAMES
    assert data.indices.tolist() == [1, 4, 7]
    assert data.name == "bugs-test"


def test_the_beginning_of_a_hub_set_is_streamed(fake_hub: types.ModuleType) -> None:
    FakeTable.taken.clear()
    data = load_dataset("hub:someone/bugs", limit=4)
    assert FakeTable.taken == [4]
    assert_pixels(data, GREY[:4])
    assert data.labels is not None
    assert data.labels.tolist() == LABELS[:4].tolist()
    assert data.class_names == NAMES
    load_dataset("hub:someone/bugs", limit=4, seed=0)
    load_dataset("hub:someone/bugs", limit=2, classes="bee")
    assert FakeTable.taken == [4], "these may need every row"


def test_hub_refusals(fake_hub: types.ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "hub:nobody/nothing" in refusal("hub:nobody/nothing")
    assert "no image column, only id" in refusal("hub:someone/bugs", split="bare")
    monkeypatch.setitem(sys.modules, "datasets", None)
    assert "pip install 'patchmosaic[hub]'" in refusal("hub:someone/bugs")


# ---------------------------------------------------------------------------------------- folders


def test_flat_folder_in_order_of_name(tmp_path: Path) -> None:
    data = load_dataset(write_folder(tmp_path / "pictures", COLOUR))
    assert_pixels(data, COLOUR)
    assert data.labels is None
    assert data.name == "pictures"


def test_folder_of_classes(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "bugs", GREY, LABELS)
    (folder / "empty").mkdir()
    (folder / ".hidden.png").write_text("not an image")
    (folder / "notes.txt").write_text("not an image")
    data = load_dataset(str(folder))
    assert_pixels(data, GREY[np.argsort(LABELS, kind="stable")])
    assert data.labels is not None
    assert data.labels.tolist() == sorted(LABELS.tolist())
    assert data.class_names == NAMES


def test_names_are_paths_within_the_folder(tmp_path: Path) -> None:
    folder = tmp_path / "Bücher & <i>"
    for name in ("grün/10 b.png", "grün/2.png", "Zoo/ü.png"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(encoded(GREY[0]))
    data = load_dataset(folder)
    assert data.names == ("Zoo/ü.png", "grün/10 b.png", "grün/2.png")
    assert data.name_of(2) == "grün/2.png"
    assert load_dataset(folder / "grün").names == ("10 b.png", "2.png")


def test_names_do_not_enter_the_fingerprint(tmp_path: Path) -> None:
    data = load_dataset(write_folder(tmp_path / "bugs", COLOUR))
    np.save(tmp_path / "a.npy", COLOUR)
    rows = load_dataset(tmp_path / "a.npy")
    assert rows.names is None
    assert rows.name_of(3) == ""
    assert rows.fingerprint == data.fingerprint == replace(data, names=None).fingerprint


@pytest.mark.parametrize("options", [{}, {"size": 3, "limit": 1, "seed": 0}])
def test_one_image_is_a_data_set(tmp_path: Path, options: dict[str, Any]) -> None:
    folder = tmp_path / "pictures"
    folder.mkdir()
    (folder / "a b.PNG").write_bytes(encoded(COLOUR[0]))
    data, alone = load_dataset(folder, **options), load_dataset(folder / "a b.PNG", **options)
    assert torch.equal(alone.pixels, data.pixels)
    assert alone.names == data.names == ("a b.PNG",)
    assert (alone.name, alone.labels, alone.indices.tolist()) == ("a b", None, [0])


@pytest.mark.parametrize("suffix", ["png", "bmp", "gif", "tif", "tiff", "webp", "jpg", "jpeg", "PNG"])
def test_kinds_of_image_file(tmp_path: Path, suffix: str) -> None:
    Image.fromarray(np.full((8, 8), 77, np.uint8)).save(tmp_path / f"a.{suffix}", lossless=True)
    data = load_dataset(tmp_path)
    assert data.pixels.shape[2:] == (8, 8)
    assert (data.pixels == 77).all()


def save_rgba(path: Path) -> None:
    Image.fromarray(np.full((2, 2, 4), (10, 20, 30, 0), np.uint8), "RGBA").save(path)


def save_palette(path: Path) -> None:
    image = Image.new("P", (2, 2), 1)
    image.putpalette([0, 0, 0, 10, 20, 30])
    image.save(path, transparency=b"\xff\x80")


def save_wide_grey(path: Path) -> None:
    Image.fromarray(np.full((2, 2), 200 * 257 + 100, np.uint16)).save(path)


def save_bilevel(path: Path) -> None:
    Image.new("1", (2, 2), 1).save(path)


def save_grey_with_alpha(path: Path) -> None:
    Image.new("LA", (2, 2), (40, 7)).save(path)


@pytest.mark.parametrize(
    ("save", "expected"),
    [
        (save_rgba, (10, 20, 30)),
        (save_palette, (10, 20, 30)),
        (save_wide_grey, (200,)),
        (save_bilevel, (255,)),
        (save_grey_with_alpha, (40,)),
    ],
)
def test_modes_become_grey_or_rgb(tmp_path: Path, save: Any, expected: tuple[int, ...]) -> None:
    save(tmp_path / "a.png")
    data = load_dataset(tmp_path)
    assert data.pixels.shape == (1, len(expected), 2, 2)
    assert data.pixels[0, :, 0, 0].tolist() == list(expected)


def test_exif_orientation_is_followed(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(GREY[0, :2]).save(tmp_path / "a.png", exif=exif)
    assert_pixels(load_dataset(tmp_path), np.rot90(GREY[0, :2], -1)[None].copy())


@pytest.mark.parametrize("colour_first", [True, False])
def test_grey_among_rgb_becomes_rgb(tmp_path: Path, colour_first: bool) -> None:
    grey_name, colour_name = ("b.png", "a.png") if colour_first else ("a.png", "b.png")
    (tmp_path / grey_name).write_bytes(encoded(GREY[0]))
    (tmp_path / colour_name).write_bytes(encoded(COLOUR[0]))
    expected = [np.broadcast_to(GREY[0], (3, 5, 5)), COLOUR[0]]
    assert_pixels(load_dataset(tmp_path), np.stack(expected[::-1] if colour_first else expected))


# ---------------------------------------------------------------------------------------- arrays, IDX


@pytest.mark.parametrize(
    "keys", [("images", "labels"), ("x", "y"), ("arr_0", "arr_1"), ("x_train", "y_train")]
)
def test_npz_round_trip(tmp_path: Path, keys: tuple[str, str]) -> None:
    np.savez_compressed(tmp_path / "a.npz", **{keys[0]: COLOUR, keys[1]: LABELS.astype(np.uint8)})
    data = load_dataset(tmp_path / "a.npz")
    assert_pixels(data, COLOUR)
    assert data.labels is not None
    assert data.labels.tolist() == LABELS.tolist()
    assert data.labels.dtype == torch.int64
    assert data.class_names == ("0", "1", "2")


@pytest.mark.parametrize(
    ("stored", "expected"),
    [
        (GREY, GREY),
        (COLOUR, COLOUR),
        (COLOUR.transpose(0, 2, 3, 1), COLOUR),
        (GREY[..., None], GREY),
        (COLOUR[:, :, :3, :3], COLOUR[:, :, :3, :3]),
        (np.asfortranarray(GREY), GREY),
    ],
    ids=["nhw", "nchw", "nhwc", "nhw1", "ambiguous", "fortran"],
)
def test_npy_layouts(tmp_path: Path, stored: np.ndarray, expected: np.ndarray) -> None:
    np.save(tmp_path / "a.npy", stored)
    assert_pixels(load_dataset(tmp_path / "a.npy"), expected)


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64", ">f4"])
def test_floats_become_float32(tmp_path: Path, dtype: str) -> None:
    values = np.linspace(-1, 1, 2 * 4 * 4).reshape(2, 4, 4).astype(dtype)
    np.save(tmp_path / "a.npy", values)
    assert_pixels(load_dataset(tmp_path / "a.npy"), values.astype(np.float32))


def test_bright_images_pass_beside_dark_ones(tmp_path: Path) -> None:
    values = np.linspace(1, -1, 4 * 4 * 4, dtype=np.float32).reshape(4, 4, 4)
    np.save(tmp_path / "a.npy", values)
    assert_pixels(load_dataset(tmp_path / "a.npy", limit=2), values[:2])


@pytest.mark.parametrize(
    ("image_name", "label_name"),
    [
        ("train-images-idx3-ubyte", "train-labels-idx1-ubyte"),
        ("train-images.idx3-ubyte", "train-labels.idx1-ubyte"),
        ("train-images-idx3-ubyte.gz", "train-labels-idx1-ubyte.gz"),
        ("pictures.idx", None),
        ("pictures.idx.gz", None),
    ],
)
def test_idx_round_trip(tmp_path: Path, image_name: str, label_name: str | None) -> None:
    compress = image_name.endswith(".gz")
    path = write_idx(tmp_path / image_name, GREY[:, :4], compress)
    if label_name is not None:
        write_idx(tmp_path / label_name, LABELS, compress)
    data = load_dataset(path)
    assert_pixels(data, GREY[:, :4])
    assert (None if data.labels is None else data.labels.tolist()) == (label_name and LABELS.tolist())


# ---------------------------------------------------------------------------------------- selection


def test_labels_and_indices_survive_classes_limit_and_seed(tmp_path: Path) -> None:
    labels = np.random.default_rng(3).integers(0, 5, 300)
    images = np.repeat(np.arange(300, dtype=np.int64)[:, None], 4, axis=1).reshape(300, 2, 2)
    np.savez(tmp_path / "a.npz", images=(images % 256).astype(np.uint8), labels=labels)
    options: dict[str, Any] = {"classes": [1, "4"], "seed": 7}
    data = load_dataset(tmp_path / "a.npz", limit=40, **options)
    rows = data.indices.numpy()
    assert len(data) == 40
    assert (np.diff(rows) > 0).all()
    assert rows[-1] > 150
    assert data.labels is not None
    assert data.labels.tolist() == labels[rows].tolist()
    assert set(data.labels.tolist()) == {1, 4}
    assert data.pixels[:, 0, 0, 0].tolist() == (rows % 256).tolist()
    assert data.class_names == ("0", "1", "2", "3", "4")
    again = load_dataset(tmp_path / "a.npz", limit=40, **options)
    assert again.fingerprint == data.fingerprint
    other = load_dataset(tmp_path / "a.npz", limit=40, classes=[1, 4], seed=8)
    assert other.indices.tolist() != data.indices.tolist()
    fewer = load_dataset(tmp_path / "a.npz", limit=10, **options)
    assert set(fewer.indices.tolist()) < set(data.indices.tolist())


def test_names_survive_classes_limit_and_seed(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "bugs", np.arange(9, dtype=np.uint8).repeat(4).reshape(9, 2, 2), LABELS)
    data = load_dataset(folder, classes=["ant", "cow"], limit=4, seed=5)
    assert data.labels is not None
    held = [
        f"{NAMES[label]}/{level}.png"
        for label, level in zip(data.labels, data.pixels[:, 0, 0, 0], strict=True)
    ]
    assert data.names == tuple(held)
    assert data.indices.tolist() != [0, 1, 2, 6], "the first ones prove little"


@pytest.mark.parametrize("classes", ["bee", 1, [1], ("bee",), np.array([1]), ["bee", 1]])
def test_ways_to_name_a_class(tmp_path: Path, classes: Any) -> None:
    data = load_dataset(hub_parquet(tmp_path / "a.parquet"), classes=classes)
    assert data.indices.tolist() == [1, 4, 7]


@pytest.mark.parametrize("seed", [None, 0])
def test_limit(tmp_path: Path, seed: int | None) -> None:
    np.save(tmp_path / "a.npy", GREY)
    assert load_dataset(tmp_path / "a.npy", limit=4).indices.tolist() == [0, 1, 2, 3]
    assert load_dataset(tmp_path / "a.npy", limit=99, seed=seed).indices.tolist() == list(range(9))


def test_only_selected_images_are_decoded(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "bugs", GREY, LABELS)
    (folder / "cow" / "broken.png").write_text("not an image")
    assert len(load_dataset(folder, classes=["ant", "bee"])) == 6
    assert "broken.png" in refusal(folder)


def test_global_generators_are_left_alone(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", GREY)
    before = torch.get_rng_state(), np.random.get_state()[1].tolist()  # noqa: NPY002
    load_dataset(tmp_path / "a.npy", limit=3, seed=1, size=4)
    assert torch.equal(torch.get_rng_state(), before[0])
    assert np.random.get_state()[1].tolist() == before[1]  # noqa: NPY002


# ---------------------------------------------------------------------------------------- pixels


@settings(max_examples=40, deadline=None)
@given(
    value=st.integers(0, 255),
    side=st.integers(1, 40),
    size=st.integers(1, 40),
    channels=st.sampled_from([1, 3]),
    floating=st.booleans(),
)
def test_constant_images_stay_constant(
    tmp_path_factory: pytest.TempPathFactory, value: int, side: int, size: int, channels: int, floating: bool
) -> None:
    path = tmp_path_factory.mktemp("constant") / "a.npy"
    level = np.float32(value / 127.5 - 1) if floating else np.uint8(value)
    np.save(path, np.full((2, channels, side, side), level))
    pixels = load_dataset(path, size=size).pixels
    assert pixels.shape == (2, channels, size, size)
    torch.testing.assert_close(pixels, torch.full_like(pixels, level.item()), rtol=0, atol=1e-6 * floating)


def test_resizing_by_a_whole_factor_averages_with_a_triangle(tmp_path: Path) -> None:
    row = np.array([0, 0, 0, 0, 240, 240, 240, 240], dtype=np.uint8)
    np.save(tmp_path / "a.npy", np.broadcast_to(row, (1, 8, 8)))
    data = load_dataset(tmp_path / "a.npy", size=4)
    assert data.pixels[0, 0, 0].tolist() == [0, 30, 210, 240]


def test_size_equal_to_the_present_one_changes_nothing(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", GREY)
    assert_pixels(load_dataset(tmp_path / "a.npy", size=5), GREY)


def test_oblong_images_are_cropped_to_the_centre(tmp_path: Path) -> None:
    wide = random_images(2, 4, 8)
    np.save(tmp_path / "wide.npy", wide)
    np.save(tmp_path / "tall.npy", wide.transpose(0, 2, 1))
    assert_pixels(load_dataset(tmp_path / "wide.npy"), wide)
    assert_pixels(load_dataset(tmp_path / "wide.npy", size=4), wide[:, :, 2:6])
    assert_pixels(load_dataset(tmp_path / "tall.npy", size=4), wide.transpose(0, 2, 1)[:, 2:6])


def test_images_of_many_shapes_are_resized_each(tmp_path: Path) -> None:
    for name, side in [("a", 4), ("b", 9), ("c", 4)]:
        Image.fromarray(np.full((side, side + 2), 9 * side, np.uint8)).save(tmp_path / f"{name}.png")
    data = load_dataset(tmp_path, size=6)
    assert data.pixels.shape == (3, 1, 6, 6)
    assert [image.unique().tolist() for image in data.pixels] == [[36], [81], [36]]


def test_grey_by_the_weights_of_pillow(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", COLOUR)
    grey = [np.asarray(Image.fromarray(image.transpose(1, 2, 0)).convert("L")) for image in COLOUR]
    assert_pixels(load_dataset(tmp_path / "a.npy", channels=1), np.stack(grey))
    np.save(tmp_path / "b.npy", COLOUR / 127.5 - 1)
    floats = load_dataset(tmp_path / "b.npy", channels=1).images
    torch.testing.assert_close(
        floats, load_dataset(tmp_path / "a.npy", channels=1).images, rtol=0, atol=0.005
    )


@pytest.mark.parametrize("size", [1, 3, 8])
def test_grey_to_rgb_and_resizing_commute(tmp_path: Path, size: int) -> None:
    np.save(tmp_path / "grey.npy", GREY)
    np.save(tmp_path / "rgb.npy", np.repeat(GREY[:, None], 3, axis=1))
    grey = load_dataset(tmp_path / "grey.npy", size=size, channels=3)
    assert_pixels(load_dataset(tmp_path / "rgb.npy", size=size), grey.pixels.numpy())


def test_rgb_from_grey_repeats(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", GREY)
    assert_pixels(load_dataset(tmp_path / "a.npy", channels=3), np.repeat(GREY[:, None], 3, axis=1))
    white = load_dataset("two-tone", channels=3)
    assert white.pixels.shape == (2, 3, 16, 16)
    assert white.pixels.is_contiguous()


# ---------------------------------------------------------------------------------------- refusals


@pytest.mark.parametrize(
    ("options", "hint"),
    [
        ({"size": 0}, "size must be a whole number from 1 to 4,096, not 0"),
        ({"size": 4097}, "from 1 to 4,096"),
        ({"size": 8.0}, "not 8.0"),
        ({"size": True}, "not True"),
        ({"channels": 2}, "channels is 2"),
        ({"limit": 0}, "limit must be"),
        ({"limit": 2, "seed": -1}, "seed must be"),
        ({"classes": 10}, "no class 10: choose from 0, 1, 2"),
        ({"classes": ["one"]}, "no class 'one'"),
        ({"classes": 1.5}, "no class 1.5"),
        ({"classes": []}, "choose other classes"),
        ({"split": "test"}, "only for hub:NAME"),
    ],
)
def test_arguments_refused(options: dict[str, Any], hint: str) -> None:
    assert hint in refusal("digits", **options)


@pytest.mark.parametrize("source", ["digit", "missing/there.npz", ""])
def test_unknown_sources_refused(source: str) -> None:
    message = refusal(source)
    assert repr(source) in message
    assert "digits, two-tone, hub:NAME" in message


def test_sources_of_another_type_refused() -> None:
    assert "source is a NoneType" in refusal(None)


def test_classes_without_labels_refused() -> None:
    assert "two-tone has no labels" in refusal("two-tone", classes=0)


@pytest.mark.parametrize(
    ("name", "content", "hint"),
    [
        ("a.txt", b"text", ".parquet, .npz, .npy, .tar or .idx"),
        ("a.txt", b"text", "give an image, a folder of images"),
        ("a.png", b"text", "is in no known image format"),
        ("a.parquet", b"text", "download or write it again"),
        ("a.parquet", b"", "download or write it again"),
        ("a.npz", b"text", "numpy.savez"),
        ("a.npz", b"", "numpy.savez"),
        ("a.npy", b"text", "numpy.save"),
        ("a-idx3-ubyte", b"\0\0\x0d\x03" + bytes(12), "not an IDX file of unsigned bytes in 3"),
        ("a-idx3-ubyte", b"", "not an IDX file"),
        ("a-idx3-ubyte", b"\0\0\x08\x03\0\0", "ends within its header"),
        ("a-idx3-ubyte.gz", gzip.compress(bytes(99), mtime=0)[:-12], "download it again"),
    ],
)
def test_unreadable_files_refused(tmp_path: Path, name: str, content: bytes, hint: str) -> None:
    (tmp_path / name).write_bytes(content)
    message = refusal(tmp_path / name)
    assert name in message
    assert hint in message


def test_truncated_files_refused(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", images=GREY)
    np.save(tmp_path / "b.npy", GREY)
    paths = [tmp_path / "a.npz", tmp_path / "b.npy", hub_parquet(tmp_path / "c.parquet")]
    paths.append(write_idx(tmp_path / "d-idx3-ubyte", GREY))
    for path in paths:
        path.write_bytes(path.read_bytes()[:-20])
        assert path.name in refusal(path)


def test_images_that_cannot_be_decoded_refused(tmp_path: Path) -> None:
    (tmp_path / "text").mkdir()
    (tmp_path / "text" / "a.png").write_text("text")
    assert "a.png" in refusal(tmp_path / "text")
    (tmp_path / "cut").mkdir()
    (tmp_path / "cut" / "b.jpg").write_bytes(encoded(random_images(64, 64), "JPEG")[:-400])
    assert "b.jpg" in refusal(tmp_path / "cut")
    (tmp_path / "float").mkdir()
    Image.fromarray(np.ones((2, 2), np.float32)).save(tmp_path / "float" / "c.tif")
    assert "8 bits per channel" in refusal(tmp_path / "float")
    cells = [{"bytes": encoded(GREY[0]), "path": None}, {"bytes": None, "path": "a.png"}]
    assert "d.parquet row 1 has no image bytes" in refusal(write_parquet(tmp_path / "d.parquet", cells))
    cells[1]["bytes"] = b"text"
    assert "d.parquet row 1 is in no known image format" in refusal(
        write_parquet(tmp_path / "d.parquet", cells)
    )


def test_folders_refused(tmp_path: Path) -> None:
    assert "holds no images" in refusal(tmp_path)
    (tmp_path / "a.png").write_bytes(encoded(GREY[0]))
    (tmp_path / "b.png").write_bytes(encoded(GREY[0, :3]))
    message = refusal(tmp_path)
    assert "b.png is 3x5 where those before are 5x5: pass size (--size)" in message
    write_folder(tmp_path, GREY[:1], LABELS)
    assert "beside its class folders (a.png)" in refusal(tmp_path)


def test_parquet_without_images_refused(tmp_path: Path) -> None:
    numbers = write_parquet(tmp_path / "a.parquet", [1.0], kind=pa.float64())
    assert 'a.parquet has no column "image"' in refusal(numbers)
    elsewhere = write_parquet(tmp_path / "b.parquet", [b"x"], kind=pa.binary(), column="other")
    assert "only other" in refusal(elsewhere)
    assert "c.parquet holds no images" in refusal(write_parquet(tmp_path / "c.parquet", []))


@pytest.mark.parametrize(
    ("labels", "hint"),
    [
        ([0, 1, None], "with none missing"),
        ([0.5, 1.0, 2.0], "give integers"),
        (["a", "b", "c"], "give integers"),
        ([0, 1, 3], "run from 0 to 3, they must lie in 0..2"),
        ([-1, 0, 1], "run from -1 to 1"),
    ],
)
def test_parquet_labels_refused(tmp_path: Path, labels: Any, hint: str) -> None:
    cells = [{"bytes": encoded(image), "path": None} for image in GREY[:3]]
    message = refusal(write_parquet(tmp_path / "a.parquet", cells, labels, NAMES))
    assert "a.parquet" in message
    assert hint in message


@pytest.mark.parametrize(
    ("arrays", "hint"),
    [
        ({"images": GREY.astype(np.int64)}, "int64"),
        ({"images": GREY > 3}, "bool"),
        ({"images": np.array([None, {}])}, "numpy.savez"),
        ({"images": GREY[0]}, "shape (5, 5)"),
        ({"images": GREY[None, None]}, "shape (1, 1, 9, 5, 5)"),
        ({"images": random_images(2, 4, 5, 6)}, "shape (2, 4, 5, 6), give"),
        ({"images": GREY[:, :0]}, "shape"),
        ({"images": GREY[:0]}, "holds no images"),
        ({"images": np.full((1, 2, 2), np.nan)}, "NaN"),
        ({"images": np.full((1, 2, 2), -np.inf)}, "NaN or infinite"),
        ({"images": GREY.astype(np.float32)}, "x / 127.5 - 1"),
        ({"images": GREY / 255}, "where 0 is mid-grey: give 2 * x - 1"),
        ({"images": GREY, "labels": LABELS[:-1]}, "one label for each of 9 images"),
        ({"images": GREY, "labels": LABELS + 10**9}, "0..65535"),
        ({"pictures": GREY}, "holds pictures: name its image array one of images"),
    ],
)
def test_arrays_refused(tmp_path: Path, arrays: dict[str, np.ndarray], hint: str) -> None:
    np.savez(tmp_path / "a.npz", **arrays)
    message = refusal(tmp_path / "a.npz")
    assert "a.npz" in message
    assert hint in message


def test_numpy_files_of_the_other_kind_refused(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", GREY)
    (tmp_path / "a.npy").rename(tmp_path / "a.npz")
    assert "name it .npy" in refusal(tmp_path / "a.npz")
    np.savez(tmp_path / "b.npz", images=GREY)
    (tmp_path / "b.npz").rename(tmp_path / "b.npy")
    assert "numpy.save" in refusal(tmp_path / "b.npy")


def test_idx_labels_of_another_length_refused(tmp_path: Path) -> None:
    path = write_idx(tmp_path / "a-images-idx3-ubyte", GREY)
    write_idx(tmp_path / "a-labels-idx1-ubyte", LABELS[:5])
    assert "one label for each of 9 images" in refusal(path)


# ---------------------------------------------------------------------------------------- real files


@pytest.mark.slow
def test_mnist(real_data) -> None:
    data = load_dataset(real_data("mnist-train.parquet"), size=32)
    assert data.pixels.shape == (60_000, 1, 32, 32)
    assert data.pixels.dtype == torch.uint8
    assert data.labels is not None
    assert data.labels.unique().tolist() == list(range(10))
    assert data.name == "mnist-train"
    first = load_dataset(real_data("mnist-train.parquet"), size=32, limit=100)
    assert torch.equal(first.pixels, data.pixels[:100])
    assert first.indices.tolist() == list(range(100))


@pytest.mark.slow
def test_cifar10(real_data) -> None:
    data = load_dataset(real_data("cifar10-train.parquet"))
    assert data.pixels.shape == (50_000, 3, 32, 32)
    assert data.class_names[3] == "cat"
    cats = load_dataset(real_data("cifar10-train.parquet"), classes="cat", limit=50, seed=0)
    assert torch.equal(cats.pixels, data.pixels[cats.indices])
    assert cats.labels is not None
    assert cats.labels.unique().tolist() == [3]
