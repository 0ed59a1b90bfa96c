"""The audit: what is planted is found where it was planted, what is not is not, and the search is exact."""

import csv
import json
import math
import os
import shutil

import numpy as np
import pytest
import torch
from PIL import Image

import patchmosaic as pm
from mistakes import assert_one_clear_line
from patchmosaic.auditing.audit import held_out_pictures
from patchmosaic.auditing.drawing import Drawing
from patchmosaic.auditing.fragments import Fragment, Texture
from patchmosaic.auditing.levels import grey_levels
from patchmosaic.auditing.pictures import panels
from patchmosaic.auditing.search import Search
from patchmosaic.auditing.verdict import threshold
from patchmosaic.cli import main
from patchmosaic.data.pixels import as_bytes
from patchmosaic.engines import native
from patchmosaic.engines.closest import Windows
from patchmosaic.nets.network import BUNDLED
from patchmosaic.records import read_tensors

SIZE = 20


def pictures(count, channels=1, seed=0):
    """Smooth random pictures as bytes: no two have a window in common."""
    rng = torch.Generator().manual_seed(seed)
    coarse = torch.rand(count, channels, SIZE // 2, SIZE // 2, generator=rng)
    fine = torch.nn.functional.interpolate(coarse, (SIZE, SIZE), mode="bicubic").clamp(0, 1)
    return (255 * fine).round().to(torch.uint8)


@pytest.fixture(params=["compiled", "torch"])
def path(request, monkeypatch):
    """Both ways of searching."""
    if request.param == "torch":
        monkeypatch.setattr(native, "library", lambda: None)
    elif native.library() is None:
        pytest.skip("installed without a C++ compiler")


def brute_force(images, window, query, hidden):
    """Squared distance, image and position of the first of the closest windows, in integers."""
    patches = np.lib.stride_tricks.sliding_window_view(images.long().numpy(), (window, window), (2, 3))
    square = ((patches - query.numpy()[:, None, None]) ** 2).sum((1, 4, 5))
    if hidden >= 0:
        square[hidden] = 1 << 40
    image, y, x = np.unravel_index(square.argmin(), square.shape)  # the first of equals
    return int(square.min()), int(image), int(y * images.shape[3] + x)


@pytest.mark.parametrize(("channels", "window", "levels"), [(1, 3, 3), (3, 3, 256), (1, 5, 2), (3, 7, 256)])
def test_closest_window_is_the_one_brute_force_finds(path, channels, window, levels):
    rng = torch.Generator().manual_seed(levels)
    images = torch.randint(levels, (5, channels, 11, 9), generator=rng).mul(255 // (levels - 1)).byte()
    images[3] = images[1]  # ties between images, and with few levels between positions
    asked = torch.randint(levels, (2, channels, 11, 9), generator=rng).mul(255 // (levels - 1)).byte()
    asked[1] = images[3]
    windows = Windows(images, window)
    queries = windows.cut(asked).flatten(0, 1)
    patches = asked.unfold(2, window, 1).unfold(3, window, 1).permute(0, 2, 3, 1, 4, 5).flatten(0, 2).long()
    some = torch.randint(len(queries), (40,), generator=rng)
    hidden = torch.tensor([-1, 1, 3, 0]).repeat(10)
    exact = [brute_force(images, window, patches[i], int(h)) for i, h in zip(some, hidden, strict=True)]
    for below in (0, 1):  # a limit that is just reached, and one that just is not
        limits = torch.tensor([float(square - below) for square, _, _ in exact])
        found = windows.closest(queries[some], limits, hidden)
        if below:
            assert bool((found.image == -1).all())
            assert torch.equal(found.square, limits)
        else:
            assert torch.equal(found.square, limits)
            assert found.image.tolist() == [image for _, image, _ in exact]
            assert found.position.tolist() == [position for _, _, position in exact]
    wide = windows.closest(queries[some], torch.full((40,), 1e7), hidden)
    assert list(zip(*(part.tolist() for part in wide), strict=True)) == exact


@pytest.mark.parametrize("channels", [1, 3])
def test_planted_parts_are_found_where_they_were_planted(path, channels):
    train, real = pictures(60, channels), pictures(60, channels, seed=1)
    shifted, pasted, joined = train[7].roll((2, -1), (1, 2)), real[0].clone(), train[11].clone()
    shifted[:, :2] = real[1][:, :2]
    shifted[:, :, -1:] = real[1][:, :, -1:]
    pasted[:, 4:14, 6:17] = train[23][:, 8:18, 2:13]
    joined[:, :, 10:] = train[42][:, :, 10:]
    planted = torch.stack([train[5], shifted, pasted, joined, real[2]])
    found = pm.audit(planted, train, real[30:])
    assert [one.verdict for one in found] == ["copy", "copy", "partial copy", "partial copy", "mosaic"]
    assert [one.sources for one in found] == [1, 1, 1, 2, 0]
    whole, moved, part = (one.fragments[0] for one in found[:3])
    assert (whole.image, whole.offset, whole.area, whole.box) == (5, (0, 0), SIZE**2, (0, 0, SIZE, SIZE))
    assert (moved.image, moved.offset, moved.box) == (7, (-2, 1), (2, 0, SIZE, SIZE - 1))
    assert (part.image, part.offset) == (23, (4, -4))
    assert np.abs(np.subtract(part.box, (4, 6, 14, 17))).max() <= 1
    assert {one.image for one in found[3].fragments} == {11, 42}
    assert found[0].score == 1
    assert found[0].shares == dict.fromkeys((7, 11, 15, 19), 1.0)
    assert found[2].shares[7] > 0
    assert found[2].shares[15] == 0
    assert found[4].score == 0


def test_fragments_are_disjoint_and_agree_with_their_source():
    train = pictures(20)
    picture = train[3].clone()
    picture[:, 5:] = train[9][:, 5:]
    picture[:, 12:, 9:] = train[3][:, 12:, 9:]
    (report,) = pm.audit(picture[None], train)
    areas = [one.area for one in report.fragments]
    assert areas == sorted(areas, reverse=True)
    assert areas == [int(one.mask.sum()) for one in report.fragments]
    assert np.sum([one.mask for one in report.fragments], 0).max() == 1
    assert report.score == areas[0] / report.textured
    for one in report.fragments:
        y, x = one.mask.nonzero()
        source = train[one.image, 0, y + one.offset[0], x + one.offset[1]].int()
        assert (source - picture[0, y, x].int()).abs().float().mean() < 5


@pytest.mark.parametrize("channels", [1, 3])
def test_the_evidence_shows_what_was_copied(channels):
    train = pictures(9, channels)
    source, picture = train[7], pictures(1, channels, seed=1)[0]
    mask, lit = torch.zeros(2, SIZE, SIZE, dtype=torch.bool)
    mask[4:14, 6:17] = lit[8:18, 2:13] = True
    picture[:, mask] = source[:, lit] ^ 5
    shown, where, difference = map(
        as_bytes, panels(picture, train, Fragment(7, (4, -4), 110, (4, 6, 14, 17), mask.numpy()))
    )
    assert torch.equal(shown, picture)
    assert torch.equal(where[:, lit], source[:, lit])
    assert (where[:, ~lit] - (0.25 * source[:, ~lit] + 168.3)).abs().max() < 0.51
    apart = (picture[:, mask].int() - source[:, lit].int()).abs()
    assert torch.equal(difference[:, mask], (4 * apart).byte())
    assert bool((difference[:, ~mask] == 255).all())


def test_noise_is_forgiven_and_flat_parts_are_no_evidence():
    train = pictures(40)
    train[:, :, :, 10:] = 90
    picture = pictures(1, seed=5)
    picture[:, :, :, 10:] = 90
    noisy = (train[8:9].int() + torch.randint(-2, 3, train[:1].shape)).clamp(0, 255).byte()
    found = pm.audit(torch.cat([picture, noisy]), train)
    assert [one.verdict for one in found] == ["mosaic", "copy"]
    assert "array" not in repr(found[1])
    assert not any(one.mask[:, 16:].any() for one in found[0].fragments)
    flat = pm.audit(torch.full((1, 1, SIZE, SIZE), 90, dtype=torch.uint8), train)[0]
    assert (flat.verdict, flat.textured, flat.score) == ("mosaic", 0, 0)


def test_a_part_of_a_larger_thing_alone_is_no_copy_of_it():
    training = pictures(6)
    flat = torch.full_like(training[:1], 128)
    part = flat.clone()
    part[..., 2:11, 3:12] = training[4, :, 2:11, 3:12]
    (alone,) = pm.audit(part, training, flat)
    assert alone.fragments[0].image == 4
    assert alone.textured == Texture.of(training[4].numpy(), 7).pixels.sum()
    assert alone.score == alone.fragments[0].area / alone.textured < 0.5


def test_texture_is_the_standard_deviation_of_a_window():
    picture = pictures(1, 3)[0].numpy()
    texture = Texture.of(picture, 5)
    for y, x in ((0, 0), (7, 15), (15, 3)):
        spread = picture[:, y : y + 5, x : x + 5].astype(float).var((1, 2)).mean() ** 0.5
        assert math.isclose(texture.limits[y, x] ** 0.5, min(12, max(2, 0.4 * spread)), rel_tol=1e-9)
        assert texture.textured[y, x] == (spread >= 8)


def test_leaving_one_out_is_leaving_it_out_of_the_training_images():
    train = pictures(30)
    train[4, :, 3:16, 2:18] = train[19, :, 3:16, 2:18]
    real, hidden = held_out_pictures(train, None, seed=0, count=30)
    found = Search(train, 7)(real, hidden)
    for i in (4, 19, 25):
        others = torch.cat([train[:i], train[i + 1 :]])
        (twin,) = Search(others, 7)(train[i : i + 1], torch.tensor([-1]))
        assert [one.area for one in found[i].fragments] == [one.area for one in twin.fragments]
    assert found[4].fragments[0].image == 19


def test_threshold_is_exceeded_by_one_in_a_hundred_with_confidence():
    rng = np.random.default_rng(0)
    for count, rank in ((299, 1), (472, 1), (473, 2), (1000, 5), (20_000, 177)):
        limit = threshold((0.6 * rng.permutation(count) / count).tolist())
        assert limit.score == pytest.approx(0.6 * (count - rank) / count)
        assert limit.confidence >= 0.95
    assert threshold([0.1] * 298).confidence < 0.95
    rates = [1 - threshold((0.6 * rng.random(500)).tolist()).score / 0.6 for _ in range(2000)]
    assert 0.94 < np.mean(np.array(rates) <= 0.01) < 0.98
    limit = threshold([1.0, 0.9, 0.3, 0.2])
    assert (limit.score, limit.pictures, limit.duplicates) == (0.3, 2, 2)
    assert (threshold([1.0]).score, threshold([1.0]).confidence) == (0, 0)


def test_ideal_machine_copies_digits_and_held_out_digits_are_no_copies(digits):
    train = digits.images[:500]
    noise = pm.draw_noise(pm.generators(range(4)), (1, 8, 8))
    drawn = pm.sample(pm.presets.ideal(train), noise, steps=20).images
    reports = pm.audit(torch.cat([drawn, digits.images[1000:1040]]), train)
    assert [one.verdict for one in reports[:4]] == ["copy"] * 4
    assert all(
        (train[one.fragments[0].image] - x).abs().max() < 0.1 for one, x in zip(reports, drawn, strict=False)
    )
    assert [one.verdict for one in reports[4:]].count("copy") <= 1


@pytest.fixture
def folder(tmp_path):
    """Training images, pictures and held-out ones in files."""
    train = pictures(50)
    np.save(tmp_path / "train.npy", train.numpy())
    held = pictures(40, seed=1)
    held[0, :, 2:13, 2:13] = train[3, :, 5:16, 5:16]  # what real pictures have in common
    np.save(tmp_path / "held.npy", held.numpy())
    drawn = torch.cat([train[[30]].roll(1, 3), pictures(70, seed=2)])
    (tmp_path / "drawn").mkdir()
    for i, picture in enumerate(drawn):
        Image.fromarray(picture[0].numpy()).save(tmp_path / "drawn" / f"{i:03}.png")
    return tmp_path


def audit(folder, *arguments, out="out", images="drawn"):
    data = ["--data", str(folder / "train.npy")]
    return main(["audit", str(folder / images), *data, "--out", str(folder / out), *arguments])


def contents(folder):
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def test_a_run_folder_holds_verdicts_evidence_and_origin(folder, capsys):
    assert audit(folder, "--held-out", str(folder / "held.npy")) == 0
    expected = "71 pictures: 1 copy, 0 partial copy, 70 mosaic (70 of them without any copied part)\n"
    assert expected in capsys.readouterr().out
    assert sorted(contents(folder / "out")) == ["pictures.csv", "report.html", "report.json", "run.json"]
    with open(folder / "out" / "pictures.csv") as file:
        lines = list(csv.DictReader(file))
    assert (lines[0]["verdict"], lines[0]["row"], lines[0]["dx"]) == ("copy", "30", "-1")
    assert (lines[0]["file"], lines[0]["source_file"]) == ("000.png", "")
    assert lines[1]["row"] == ""
    found = json.loads((folder / "out" / "report.json").read_text())
    assert found["pictures"][0]["fragments"][0]["offset"] == [0, -1]
    assert found["threshold"]["pictures"] == 40
    page = (folder / "out" / "report.html").read_text()
    assert page.count("data:image/png") == 3
    assert "every other textured 7 × 7 window" in page
    assert "<strong>70</strong><span>mosaics, 70 without any copied part</span>" in page
    assert "SHA-256 of pictures" in page
    assert "http" not in page
    record = json.loads((folder / "out" / "run.json").read_text())
    assert record["data"]["fingerprint"] == pm.load_dataset(folder / "train.npy").fingerprint


def test_rows_are_those_of_the_source(folder):
    data = [
        "--data",
        str(folder / "train.npy"),
        "--limit",
        "40",
        "--subset-seed",
        "3",
        "--held-out-count",
        "5",
    ]
    np.save(folder / "one.npy", pm.load_dataset(folder / "train.npy", limit=40, seed=3).pixels[[11]].numpy())
    assert main(["audit", str(folder / "one.npy"), *data, "--out", str(folder / "rows")]) == 0
    found = json.loads((folder / "rows" / "report.json").read_text())
    row = int(pm.load_dataset(folder / "train.npy", limit=40, seed=3).indices[11])
    assert found["pictures"][0]["fragments"][0]["row"] == row != 11


def test_files_are_named(tmp_path, capsys):
    """Of pictures and of their sources, whatever they are called."""
    odd = os.fsdecode(b"z\xfc.png")  # no UTF-8
    names = ["zoo/a b.png", "zoo/c.png", "Äpfel <i>/<b>.png", "Äpfel <i>/a b.png", f"Äpfel <i>/{odd}"]
    for name, picture in zip(names, pictures(5), strict=True):
        (tmp_path / "train" / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(picture[0].numpy()).save(tmp_path / "train" / name)
    (tmp_path / "drawn").mkdir()
    for name, source in zip(["<b>.png", "Kopie von ü.png", "last.png"], [3, 0, 4], strict=True):
        shutil.copy(tmp_path / "train" / names[source], tmp_path / "drawn" / name)
    some = ["--data", str(tmp_path / "train"), "--classes", "Äpfel <i>"]
    for out, images, data in [
        ("all", "drawn", some[:2]),
        ("some", "drawn", some),
        ("one", "drawn/Kopie von ü.png", some[:2]),
    ]:
        assert main(["audit", str(tmp_path / images), *data, "--out", str(tmp_path / out)]) == 0

    assert "\n1 picture: 1 copy" in capsys.readouterr().out

    def lines(out):
        with open(tmp_path / out / "pictures.csv", encoding="utf-8") as file:
            return [(line["file"], line["row"], line["source_file"]) for line in csv.DictReader(file)]

    escaped = "Äpfel <i>/z\\udcfc.png"
    first, second, last = [
        ("<b>.png", "3", "Äpfel <i>/a b.png"),
        ("Kopie von ü.png", "0", "zoo/a b.png"),
        ("last.png", "4", escaped),
    ]
    assert lines("all") == [first, second, last]
    assert lines("some") == [first, (second[0], "", ""), last]
    assert lines("one") == [second]
    found = json.loads((tmp_path / "all" / "report.json").read_text())["pictures"]
    assert [one["file"] for one in found] == ["<b>.png", "Kopie von ü.png", "last.png"]
    assert [one["fragments"][0]["source_file"] for one in found] == [names[3], names[0], names[4]]
    page = (tmp_path / "all" / "report.html").read_text(encoding="utf-8")
    assert page.count('picture 0 <span class="file">&lt;b&gt;.png</span>: 100%') == 1
    assert page.count('image 3 <span class="file">Äpfel &lt;i&gt;/a b.png</span>') == 1
    assert page.count('<td>0 <span class="file">zoo/a b.png</span></td>') == 1
    assert "<b>" not in page
    assert "<h1>What 3 pictures copy from train</h1>" in page
    assert "<h1>What 1 picture copies from train</h1>" in (tmp_path / "one" / "report.html").read_text(
        "utf-8"
    )
    assert "<i>" not in page


def test_pictures_of_generate_are_taken_from_its_folder(tmp_path):
    drawn = ["--limit", "60", "--machine", "is", "--count", "2", "--steps", "5"]
    assert main(["generate", *drawn, "--out", str(tmp_path / "drawn")]) == 0
    out = ["--limit", "60", "--out", str(tmp_path / "audit")]
    assert main(["audit", str(tmp_path / "drawn"), *out]) == 0
    assert json.loads((tmp_path / "audit" / "report.json").read_text())["verdicts"]["copy"] == 2


def test_a_network_draws_what_is_audited(tmp_path, monkeypatch, capsys):
    def audit_network(out, *arguments):
        drawing = ["--count", "18", "--seed", "5", "--network-steps", "3", "--out", str(tmp_path / out)]
        return main(["audit", str(BUNDLED), "--limit", "60", *drawing, *arguments])

    assert audit_network("whole") == 0
    assert "18 pictures: " in capsys.readouterr().out
    drawn = read_tensors(tmp_path / "whole" / "samples.safetensors")[0]["images"]
    network = pm.load_network()
    noise = pm.draw_noise(pm.generators([5 + 17]), network.shape)
    last = pm.sample(network, noise, 3, network.schedule).images
    assert torch.equal(drawn[17:], grey_levels(last.clamp(-1, 1), "it"))
    record = json.loads((tmp_path / "whole" / "run.json").read_text())
    assert record["network"]["fingerprint"] == network.fingerprint

    draw = Drawing._batch
    calls = []

    def interrupted(self, rows):
        calls.append(rows)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return draw(self, rows)

    monkeypatch.setattr(Drawing, "_batch", interrupted)
    assert audit_network("cut") == 130
    assert audit_network("cut", "--resume") == 0
    assert len(calls) == 3, "the first batch is not drawn again"
    assert contents(tmp_path / "whole") == contents(tmp_path / "cut")
    assert audit_network("labelled", "--labels", "3") == 1
    assert "the network has no classes" in capsys.readouterr().err


def test_resuming_an_interrupted_audit_gives_the_same_bytes(folder, monkeypatch, capsys):
    assert audit(folder, out="whole") == 0
    verified, calls = Search.__call__, []

    def interrupted(self, *arguments):
        if len(calls) == 3:
            raise KeyboardInterrupt
        calls.append(1)
        return verified(self, *arguments)

    monkeypatch.setattr(Search, "__call__", interrupted)
    assert audit(folder, out="cut") == 130
    assert audit(folder, out="cut") == 1
    assert "--resume" in capsys.readouterr().err
    calls.clear()
    assert audit(folder, "--resume", out="cut") == 0
    assert len(calls) == 2, "what was done is not done again"
    assert contents(folder / "whole") == contents(folder / "cut")
    assert audit(folder, out="cut") == 0
    assert "already complete" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("images", "arguments", "hint"),
    [
        ("nowhere", [], "give digits"),
        ("nowhere.safetensors", [], "is no file"),
        ("small.npy", [], "--size"),
        ("colour.npy", [], "--channels"),
        ("scaled.npy", [], "give 2 * x - 1"),
        ("drawn", ["--limit", "1"], "give held-out pictures"),
        ("drawn", ["--window", "4"], "must be odd, from 3"),
        ("drawn", ["--window", "21"], "must be odd, from 3"),
        ("drawn", ["--held-out", "nowhere"], "give digits"),
        ("drawn", ["--held-out-count", "0"], "at least 1"),
        ("drawn", ["--seed", "-1"], "from 0 to 4,294,967,295"),
        ("drawn", ["--seed", str(10**30)], "from 0 to 4,294,967,295"),
        ("drawn", ["--labels", "3"], "leave out --labels"),
        ("drawn", ["--count", "3"], "for a network that draws"),
        ("drawn", ["--resume"], "nothing to resume"),
        (BUNDLED, [], "use --size 8"),
        (BUNDLED, ["--count", "0"], "--count must be"),
        (BUNDLED, ["--network-steps", "0"], "--network-steps must be"),
    ],
)
def test_mistakes_take_one_line(folder, capsys, images, arguments, hint):
    np.save(folder / "small.npy", np.zeros((3, 1, 10, 10), np.uint8))
    np.save(folder / "colour.npy", np.zeros((3, 3, SIZE, SIZE), np.uint8))
    np.save(folder / "scaled.npy", pictures(3).numpy() / 255)
    data = ["--data", str(folder / "train.npy"), "--out", str(folder / "out")]
    assert_one_clear_line(folder, capsys, ["audit", str(folder / images), *data, *arguments], hint)


@pytest.mark.parametrize(
    ("images", "hint"),
    [
        (np.zeros((2, SIZE, SIZE)), "shape"),
        (torch.full((1, 1, SIZE, SIZE), torch.nan), "NaN"),
        (torch.full((1, 1, SIZE, SIZE), 200.0), "scaled"),
        (pictures(2) / 255, r"lie in \[0, 1\], where 0 is mid-grey: give 2 \* x - 1"),
        (torch.zeros(1, 1, SIZE, SIZE, dtype=torch.int64), "floats or uint8"),
        ([1, 2], "tensor or a numpy array"),
        (torch.zeros(1, 1, SIZE, SIZE + 1), "one size"),
    ],
)
def test_unusable_pictures_are_refused(images, hint):
    with pytest.raises(pm.InputError, match=hint):
        pm.audit(images, pictures(4))
    with pytest.raises(pm.InputError, match=hint):
        pm.audit(pictures(4), pictures(4), images)


def test_bright_pictures_pass_as_bytes_and_constant_ones_as_floats():
    training = pictures(9) // 2 + 128
    assert [one.verdict for one in pm.audit(training[:2], training)] == ["copy"] * 2
    assert pm.audit(torch.zeros(1, 1, SIZE, SIZE), training, torch.ones(1, 1, SIZE, SIZE))[0].score == 0


@pytest.mark.slow
def test_copies_among_photographs(real_data):
    every = pm.load_dataset(real_data("cifar10-train.parquet"), limit=2600).pixels
    train, held, real = every[:2000], every[2000:2060], every[2060:]
    pasted = held.clone()
    pasted[:, :, 8:24, 8:24] = train[:60, :, 8:24, 8:24]
    moved = train[100:160].roll((2, -3), (2, 3))
    found = [one.verdict for one in pm.audit(torch.cat([train[:60], moved, pasted, held]), train, real)]
    assert found[:120].count("copy") >= 119
    assert found[120:180].count("partial copy") >= 57
    assert found[180:].count("mosaic") >= 59
