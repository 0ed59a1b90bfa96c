"""The benchmark: rivals that are right, pairs that are counted right, records that survive."""

import csv
import json
import re

import numpy as np
import pytest
import torch
from PIL import Image

import patchmosaic as pm
from mistakes import assert_one_clear_line
from patchmosaic.bench import command, memory, peaks, report, slopes
from patchmosaic.bench import plan as plans
from patchmosaic.bench.contestants import NAMES, contestant
from patchmosaic.bench.measure import measure
from patchmosaic.bench.problem import RULES, Problem, noised, pairs_per_image
from patchmosaic.bench.rivals import RIVALS
from patchmosaic.cli import main
from patchmosaic.engines import native
from patchmosaic.symmetry import position_blocks

LEVELS = (0.05, 0.5, 0.95)
# The rivals take logits from norms in float32: at t = 0.05 a window of 75 numbers has squared norms up to
# 75 / (2 sigma^2) = 6,000, and rounding of 2^-24 of that moves a log-weight by a few 1e-4.
TOLERANCES = {0.05: 1e-3, 0.5: 2e-5, 0.95: 1e-5}
FILES = ["bench.csv", "bench.json", "bench.md", "bench.png"]
FAST = (
    "--size 7 --count 12 --windows 3 --levels .5 --machines ls els --contestants dense published "
    "--repeats 2 --budget .02 --threads 1"
)
needs_compiled = pytest.mark.skipif(native.library() is None, reason="installed without a C++ compiler")


def random_problem(machine, window, level, shape=(1, 7, 9), count=11, dtype=torch.uint8):
    """A noised relative of the training images, so that at low noise several of them matter."""
    rng = torch.Generator().manual_seed(0)
    base = torch.randint(60, 200, shape, generator=rng)
    pixels = (base + torch.randint(-25, 25, (count + 1, *shape), generator=rng)).to(torch.uint8)
    if dtype != torch.uint8:
        pixels = pixels.to(dtype) / 127.5 - 1
    alpha_bar = pm.CosineSchedule().alpha_bar(level)
    held_out = pixels[-1].float() / 127.5 - 1 if dtype == torch.uint8 else pixels[-1]
    return Problem.of(pixels[:-1], noised(held_out, alpha_bar, 1), alpha_bar, window, machine)


@pytest.fixture(autouse=True)
def short_probes(monkeypatch):
    monkeypatch.setattr(peaks, "_ROUND_SECONDS", 1e-3)


@pytest.fixture
def rival(request):
    if request.param == "keops":
        pytest.importorskip("pykeops")
    return contestant(request.param)


@pytest.mark.parametrize("rival", RIVALS, indirect=True)
@pytest.mark.parametrize("machine", RULES)
@pytest.mark.parametrize("window", [3, 5])
@pytest.mark.parametrize("shape", [(1, 7, 9), (3, 6, 5)], ids=str)
def test_rivals_are_right(rival, machine, window, shape):
    """Also for images that are all border in one direction, and for chunks that do not divide their number."""
    for level in LEVELS:
        problem = random_problem(machine, window, level, shape)
        for chunk in (1, 4, 11) if rival.chunked else (11,):
            error = (rival.call(problem, chunk)() - problem.reference()).abs().max()
            assert error <= TOLERANCES[level], (level, chunk)


@pytest.mark.parametrize("name", ["published", "convolution", "unfold-matmul", "fused-attention"])
@pytest.mark.parametrize("machine", RULES)
@pytest.mark.parametrize("window", [1, 9, 21])
def test_rivals_are_right_where_windows_are_one_pixel_or_exceed_the_image(name, machine, window):
    problem = random_problem(machine, window, 0.5, dtype=torch.float32)
    error = (contestant(name).call(problem, 4)() - problem.reference()).abs().max()
    assert error <= 1e-4


@pytest.mark.parametrize("machine", RULES)
@pytest.mark.parametrize(("height", "width"), [(1, 1), (4, 4), (7, 9), (12, 5)])
def test_pairs_are_those_of_the_blocks(machine, height, width):
    for window in (1, 3, 5, 7, 9, 25):
        blocks = position_blocks(height, width, window, RULES[machine])
        counted = sum(block.queries.numel() * block.keys.shape[1] for block in blocks)
        assert pairs_per_image(machine, height, width, window) == counted


def test_the_reference_is_the_machine_of_the_presets():
    for machine in RULES:
        problem = random_problem(machine, 3, 0.5)
        built = pm.presets.MACHINES[machine](problem.images, locality=3, engine="dense")
        assert torch.equal(problem.reference(), built.denoise(problem.x.double(), problem.alpha_bar))
        assert built.rules == RULES[machine]


def test_peaks_are_rates(monkeypatch):
    """Work over time, by a clock on which every call takes a thousandth of a second."""
    monkeypatch.setattr(peaks, "_calls_per_second", lambda call: (call(), 1000)[1])
    assert peaks.fma_per_second() == 1000 * 768**3
    assert peaks.exp_per_second() >= 1000 * torch.get_num_threads() * (1 << 15)
    monkeypatch.setattr(peaks, "library", lambda: None)
    assert peaks.exp_per_second() == 1000 * torch.get_num_threads() * (1 << 15)


def test_contestants_take_turns_and_what_cannot_run_is_left_out(monkeypatch):
    monkeypatch.setattr("patchmosaic.bench.rivals._lazy_tensor", refuse)
    said = []
    problem = random_problem("bbels", 3, 0.5)
    entries, left_out = measure(problem, ("dense", "keops", "published"), 2, 60, False, said.append)
    assert [entry.contestant for entry in entries] == ["dense", "published"]
    assert left_out == {"keops": "not here"}
    assert said[-5:] == ["dense", "published", "published", "dense", "checking"]
    for entry in entries:
        assert len(entry.seconds) == 2
        assert entry.images == entry.checked_images == 11
        assert entry.pairs == problem.pairs
        assert 0 < entry.max_error < 1e-5
        assert 0 < entry.rate <= entry.best_rate


def test_somebody_must_be_able_to_run(monkeypatch, capsys):
    monkeypatch.setattr("patchmosaic.bench.rivals._lazy_tensor", refuse)
    assert main(["bench", *FAST.split(), "--contestants", "keops"]) == 1
    assert capsys.readouterr().err == "patchmosaic: no contestant can run: keops: not here\n"


def refuse():
    raise pm.InputError("not here")


def test_slow_contestants_get_fewer_images():
    problem = random_problem("els", 3, 0.5, count=400)
    (entry,), _ = measure(problem, ("dense",), 1, 1e-3, False)
    assert 1 <= entry.images < 400
    assert entry.pairs == entry.images * 63**2
    assert 1 <= entry.checked_images <= entry.images
    assert entry.max_error < 1e-4


def test_memory_is_measured_apart():
    rng = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (50, 1, 24, 24), generator=rng, dtype=torch.uint8)
    problem = Problem.of(pixels, torch.randn(1, 1, 24, 24, generator=rng), 0.5, 3, "els")
    logits = 32 * 24**4 * 4  # bytes of a chunk's logits
    assert logits < memory.peak_memory(problem, "published", 32) < 8 * logits


def bench(folder, *arguments):
    return main(["bench", *FAST.split(), "--out", str(folder), *arguments])


def test_a_folder_holds_everything(tmp_path, capsys):
    assert bench(tmp_path / "run") == 0
    assert sorted(path.name for path in (tmp_path / "run").iterdir()) == FILES
    record = json.loads((tmp_path / "run" / "bench.json").read_text())
    assert record["config"]["windows"] == [3]
    assert record["versions"]["torch"] == torch.__version__
    assert record["work"]["cpu"]
    assert record["data"]["digits"] == pm.load_dataset("digits", size=7, limit=13).fingerprint
    assert [(cell["machine"], len(cell["entries"])) for cell in record["cells"]] == [("ls", 2), ("els", 2)]
    with (tmp_path / "run" / "bench.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [(row["machine"], row["contestant"]) for row in rows] == [
        *[("ls", "dense"), ("ls", "published"), ("els", "dense"), ("els", "published")]
    ]
    by_name = {(row["machine"], row["contestant"]): float(row["rate"]) for row in rows}
    ratio = by_name["els", "dense"] / by_name["els", "published"]
    assert float(rows[2]["over_published"]) == pytest.approx(ratio)
    assert float(rows[2]["over_dense"]) == 1
    assert rows[0]["memory"] == ""
    table = capsys.readouterr().out
    assert len(re.findall(r"^digits  els +3 +0.5  (dense|published) +\d+ ", table, re.MULTILINE)) == 2
    assert max(map(len, table.splitlines()[:8])) <= 120
    markdown = (tmp_path / "run" / "bench.md").read_text()
    assert len(re.findall(r"^\| digits \| ls \| 3 \| 0.5 \|", markdown, re.MULTILINE)) == 2
    with Image.open(tmp_path / "run" / "bench.png") as drawn:
        assert drawn.width > 500


def test_without_a_folder_the_table_is_all(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    threads = torch.get_num_threads()
    assert main(["bench", *FAST.split(), "--machines", "ls", "--contestants", "published"]) == 0
    assert "published" in capsys.readouterr().out
    assert not list(tmp_path.iterdir())
    assert torch.get_num_threads() == threads


def test_ctrl_c_keeps_finished_cells_and_resume_goes_on(tmp_path, capsys, monkeypatch):
    run_cell, done = plans.run_cell, []

    def interrupted(cell, *rest):
        if done:
            raise KeyboardInterrupt
        done.append(cell)
        return run_cell(cell, *rest)

    monkeypatch.setattr(plans, "run_cell", interrupted)
    assert bench(tmp_path / "run") == 130
    assert "--resume" in capsys.readouterr().err
    monkeypatch.undo()
    first = json.loads((tmp_path / "run" / "bench.json").read_text())
    assert [cell["machine"] for cell in first["cells"]] == ["ls"]
    assert bench(tmp_path / "run") == 1
    assert "--resume" in capsys.readouterr().err
    assert bench(tmp_path / "run", "--resume") == 0
    both = json.loads((tmp_path / "run" / "bench.json").read_text())
    assert both["cells"][0] == first["cells"][0]
    assert both["peaks"] == first["peaks"]
    assert [cell["machine"] for cell in both["cells"]] == ["ls", "els"]
    before = (tmp_path / "run" / "bench.json").read_bytes()
    assert bench(tmp_path / "run") == 0, "a complete benchmark is shown again, and left alone"
    assert "published" in capsys.readouterr().out
    assert (tmp_path / "run" / "bench.json").read_bytes() == before
    assert bench(tmp_path / "run", "--seed", "1") == 1
    assert "seed" in capsys.readouterr().err
    assert bench(tmp_path / "run", "--seed", "1", "--overwrite") == 0


@needs_compiled
def test_slopes_of_time_and_pairs(tmp_path, capsys):
    assert bench(tmp_path / "run", "--slopes", "--machines", "els", "--windows", "3", "5") == 0
    found = {
        axis["axis"]: axis for axis in json.loads((tmp_path / "run" / "bench.json").read_text())["slopes"]
    }
    assert list(found) == ["images", "window", "pixels", "batch"]
    assert found["batch"]["pairs_slope"] == pytest.approx(1)
    assert found["window"]["pairs_slope"] == pytest.approx(0)
    assert found["pixels"]["pairs_slope"] == pytest.approx(2)
    assert (tmp_path / "run" / "slopes.png").exists()
    assert bench(tmp_path / "run", "--machines", "els", "--windows", "3", "--overwrite") == 0
    assert not (tmp_path / "run" / "slopes.png").exists()
    assert capsys.readouterr().out.count("box engine, time against") == 4


def test_fitted_slopes():
    assert slopes.fitted_slope([1, 2, 4], [3.0, 12.0, 48.0]) == pytest.approx(2)
    assert slopes.fitted_slope([5], [1.0]) is None


def test_quick_is_a_default_and_not_an_order():
    parser = argument_parser()
    quick = command._plan(parser.parse_args(["bench", "--quick", "--windows", "7"]))
    assert quick.windows == (7,)
    assert quick.count < plans.Plan.count
    assert command._plan(parser.parse_args(["bench"])).contestants == NAMES


def argument_parser():
    from patchmosaic.cli import build_parser

    return build_parser()


def make_inputs(folder):
    (folder / "occupied").mkdir()
    (folder / "occupied" / "thesis.txt").write_text("precious")
    (folder / "broken").mkdir()
    (folder / "broken" / "bench.json").write_text("{")
    (folder / "other").mkdir()
    (folder / "other" / "bench.json").write_text("[]")
    (folder / "file").write_text("")
    np.save(folder / "one.npy", np.zeros((1, 1, 4, 4), np.uint8))


BAD = {
    "missing file": ("--data {0}/nowhere.parquet", "nowhere.parquet"),
    "one image": ("--data {0}/one.npy", "one image"),
    "the same data twice": ("--data digits digits", "twice"),
    "negative size": ("--size -8", "size"),
    "no images": ("--count 0", "count"),
    "unknown machine": ("--machines elf", "bbels"),
    "whole-image machine": ("--machines is", "bbels"),
    "even window": ("--windows 3 4", "odd"),
    "level of zero": ("--levels 0", "(0, 1]"),
    "level above one": ("--levels 1.5", "(0, 1]"),
    "level that is no number": ("--levels nan", "(0, 1]"),
    "unknown contestant": ("--contestants steam", "published"),
    "no repeats": ("--repeats 0", "repeats"),
    "no budget": ("--budget 0", "budget"),
    "endless budget": ("--budget inf", "budget"),
    "no threads": ("--threads 0", "threads"),
    "negative seed": ("--seed -1", "seed"),
    "output is a file": ("--out {0}/file", "--out"),
    "output below a file": ("--out {0}/file/run", "choose another folder"),
    "output in use": ("--out {0}/occupied", "--out"),
    "damaged record": ("--out {0}/broken", "bench.json"),
    "another record": ("--out {0}/other", "bench.json"),
    "nothing to resume": ("--resume", "nothing to resume"),
    "resumed and overwritten": ("--resume --overwrite", "not allowed with"),
    "words for numbers": ("--windows three", "--help"),
    "no such option": ("--colour red", "--help"),
}


@pytest.mark.parametrize("mistake", BAD)
def test_mistakes_take_one_clear_line(tmp_path, capsys, mistake):
    make_inputs(tmp_path)
    arguments, hint = BAD[mistake]
    command = ["bench", *FAST.split(), "--out", str(tmp_path / "run"), *arguments.format(tmp_path).split()]
    assert_one_clear_line(tmp_path, capsys, command, hint)


def test_resuming_needs_a_folder(capsys):
    assert main(["bench", *FAST.split(), "--resume"]) == 1
    assert "--out" in capsys.readouterr().err


def test_numbers_are_short():
    assert [report._number(value) for value in (0.5, 12.34, 123.4, 12345.6)] == [
        "0.50",
        "12.3",
        "123",
        "12,346",
    ]
