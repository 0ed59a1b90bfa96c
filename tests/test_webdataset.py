"""Shards of WebDataset."""

import io
import tarfile

import numpy as np
import pytest
import torch
from PIL import Image

import patchmosaic as pm


def shard(path, files):
    with tarfile.open(path, "w") as tar:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return path


def png(pixels):
    content = io.BytesIO()
    Image.fromarray(pixels).save(content, format="PNG")
    return content.getvalue()


@pytest.fixture
def pixels():
    return np.random.default_rng(0).integers(0, 256, (3, 4, 5, 3), dtype=np.uint8)


def test_images_and_classes_come_in_order(tmp_path, pixels):
    files = {}
    for i, image in enumerate(pixels):
        files[f"train/{i:04d}.png"] = png(image)
        files[f"train/{i:04d}.cls"] = str(2 * i).encode()
        files[f"train/{i:04d}.json"] = b"{}"
    data = pm.load_dataset(shard(tmp_path / "part.tar", files))
    assert torch.equal(data.pixels, torch.from_numpy(pixels).permute(0, 3, 1, 2))
    assert data.labels.tolist() == [0, 2, 4]
    assert data.name == "part"
    assert data.names == ("train/0000", "train/0001", "train/0002")
    some = pm.load_dataset(tmp_path / "part.tar", classes=[2, 4], limit=1)
    assert torch.equal(some.pixels, data.pixels[1:2])
    assert some.names == ("train/0001",)


def test_names_share_up_to_their_first_dot(tmp_path, pixels):
    files = {
        "a.input.png": png(pixels[0]),
        "b.png": png(pixels[1]),
        "b.seg.png": png(pixels[2]),
        ".hidden": b"1",
    }
    data = pm.load_dataset(shard(tmp_path / "part.tar", files))
    assert torch.equal(data.pixels, torch.from_numpy(pixels[:2]).permute(0, 3, 1, 2))
    assert data.labels is None
    assert data.names == ("a", "b")


@pytest.mark.parametrize(
    ("make", "told"),
    [
        (lambda image: {"a.txt": b"x"}, "holds no images"),
        (lambda image: {"a.png": image, "a.cls": b"1", "b.png": image}, "1 of 2 images have no class"),
        (lambda image: {"a.png": image, "a.cls": b"cat"}, "cannot be read"),
        (lambda image: {"a.png": image[:40]}, "replace or remove that image"),
    ],
)
def test_what_cannot_be_used_is_told(tmp_path, pixels, make, told):
    with pytest.raises(pm.InputError, match=told):
        pm.load_dataset(shard(tmp_path / "part.tar", make(png(pixels[0]))))


def test_a_truncated_shard_is_told(tmp_path, pixels):
    path = shard(tmp_path / "part.tar", {f"{i}.png": png(image) for i, image in enumerate(pixels)})
    path.write_bytes(b"no tar at all" * 100)
    with pytest.raises(pm.InputError, match="copy or download it again"):
        pm.load_dataset(path)
