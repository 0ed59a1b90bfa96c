"""The scale from data alone: risks are those of the machines, closed forms hold, and error bars cover."""

import itertools
import math

import pytest
import torch

import patchmosaic as pm
from patchmosaic.calibration.mixture import Mixture, mixture_weights
from patchmosaic.calibration.predict import RULES, HeldOutRisk, plan_risk
from patchmosaic.cli import main
from patchmosaic.dictionary import Dictionary
from patchmosaic.engines.native import library
from patchmosaic.engines.rings import PixelQueries, ring_means
from patchmosaic.nets.network import BUNDLED
from patchmosaic.symmetry import Rules

LEVELS = tuple(pm.CosineSchedule().alpha_bar(t) for t in (0.05, 0.3, 0.6, 1.0))
WAYS = [True, pytest.param(False, marks=pytest.mark.skipif(library() is None, reason="no compiled library"))]


def queries(clean, pixels, seed=0):
    generator = torch.Generator().manual_seed(seed)
    eta = torch.randn(clean.shape, generator=generator, dtype=torch.float64)
    positions = torch.randint(clean[0, 0].numel(), (len(clean), pixels), generator=generator)
    return PixelQueries(clean, eta, positions)


def at_pixels(images, positions):
    return torch.stack([image.flatten(1)[:, where].T for image, where in zip(images, positions, strict=True)])


@pytest.mark.parametrize("plain", WAYS)
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(
    ("translation", "padding"), list(itertools.product((True, False), ("zeros", "circular")))
)
def test_rings_are_the_machines(digits, plain, channels, translation, padding):
    images = digits.images[:50, :, :, :7].double() * torch.tensor([1, 0.5, -0.7])[:channels].view(1, -1, 1, 1)
    labels, windows = digits.labels[:50], (1, 3, 9, 15)
    asked = queries(images[48:] * 0.9, 4)
    symmetry = "translation" if translation else "none"
    machine = pm.ScoreMachine(images, labels, 1, symmetry, padding, engine="dense")
    dictionary, rules = Dictionary(images, labels), Rules(translation, padding)
    for label in (None, int(labels[0])):
        found = ring_means(dictionary, rules, 1 << 15, asked, LEVELS, windows, label, plain=plain)
        for level, alpha_bar in zip(found, LEVELS, strict=True):
            x = alpha_bar**0.5 * asked.clean + (1 - alpha_bar) ** 0.5 * asked.eta
            for mean, expected in zip(
                level, machine.denoise_windows(x, alpha_bar, windows, label), strict=True
            ):
                expected = at_pixels(expected, asked.positions)
                torch.testing.assert_close(mean, expected, rtol=0, atol=1e-11 if plain else 2e-4)


@pytest.mark.parametrize("padding", ["zeros", "circular"])
def test_two_tones_are_told_apart_by_the_sum_over_the_window(padding):
    """The posterior mean is tanh(sqrt(ab) / (1 - ab) * the sum of the noisy pixels in the window)."""
    images = pm.load_dataset("two-tone", size=9).images
    risk = plan_risk(images, None, "translation", padding, (1, 3, 5), LEVELS, images, seed=3)
    for row, clean in enumerate((-1.0, 1.0)):
        found = risk.residuals(slice(row, row + 1))[:, :, 0, :, 0] + clean
        for level, alpha_bar in zip(found, LEVELS, strict=True):
            x = alpha_bar**0.5 * clean + (1 - alpha_bar) ** 0.5 * risk.queries.eta[row, 0].double()
            for mean, radius in zip(level, (0, 1, 2), strict=True):
                if padding == "zeros":
                    seen = torch.nn.functional.pad(x, (radius,) * 4)
                else:
                    seen = torch.nn.functional.pad(x[None, None], (radius,) * 4, mode="circular")[0, 0]
                sums = seen.unfold(0, 2 * radius + 1, 1).unfold(1, 2 * radius + 1, 1).sum((2, 3)).flatten()
                expected = torch.tanh(alpha_bar**0.5 / (1 - alpha_bar) * sums[risk.queries.positions[row]])
                torch.testing.assert_close(mean, expected, rtol=0, atol=2e-5)


def test_of_two_tones_larger_windows_are_better_until_nothing_is_wrong():
    images = pm.load_dataset("two-tone").images
    schedule = pm.predict_locality(images, held_out=images.repeat(20, 1, 1, 1), rule="argmin")
    risk, stderr = schedule.risk, schedule.risk_stderr
    assert (risk[:, 1:] <= risk[:, :-1] + 3 * stderr[:, 1:] + 1e-9).all()
    assert schedule.windows[:5] == (3,) * 5
    assert list(schedule.windows[:17]) == sorted(schedule.windows[:17])
    assert schedule.windows[16] > 15


@pytest.mark.parametrize("rule", RULES)
def test_of_pure_noise_the_smallest_window_is_never_clearly_worse(rule):
    noise = torch.rand(300, 1, 10, 10, generator=torch.Generator().manual_seed(0)) * 2 - 1
    schedule = pm.predict_locality(noise, held_out=60, rule=rule)
    excess = schedule.risk[:, 0] - schedule.risk.amin(1)
    assert (excess <= 3 * schedule.excess_stderr[:, 0] + 1e-9).all()
    assert schedule.windows[:12] == (3,) * 12
    assert (schedule.risk[:8, 2] > 1.02 * schedule.risk[:8, 0]).all()


def made_up(errors):
    """Residuals (levels, candidates, images, 1, 1) of these squared errors."""
    return torch.tensor(errors, dtype=torch.float64).sqrt()[..., None, None]


def test_rules_take_the_least_risk_or_the_smallest_not_clearly_worse():
    barely_better = [[2.0, 4.0, 3.0], [2.1, 3.75, 3.0], [2.1, 3.7, 2.9]]
    nearly_all_of_a_clear_gain = [[3.0, 5.0, 4.0], [1.58, 3.47, 2.57], [1.5, 3.4, 2.5]]
    errors = [barely_better, nearly_all_of_a_clear_gain, [[2.0, 4.0, 3.0]] * 3]
    schedule = pm.PredictedSchedule.from_residuals((0.9, 0.5, 0.1), (3, 5, 7), made_up(errors))
    assert schedule.windows == schedule.with_rule("gain").windows == (3, 5, 3)
    assert schedule.with_rule("argmin").windows == (7, 7, 3)
    assert schedule.with_rule("one-stderr").windows == (3, 7, 3)
    torch.testing.assert_close(schedule.risk[1], torch.tensor([4.0, 7.62 / 3, 7.4 / 3], dtype=torch.float64))
    differences = torch.tensor([-0.1, 0.3, 0.1], dtype=torch.float64)
    assert schedule.excess_stderr[0, 0] == pytest.approx(float(differences.std()) / math.sqrt(3))


def test_as_a_network_takes_the_smallest_window_that_denoises_as_well():
    risk = [[3.0, 2.0, 1.0], [3.0, 2.0, 2.5], [3.0, 2.0, 1.0], [3.0, 2.0, 1.0], [3.0, 2.0, 1.0]]
    zeros = torch.zeros(5, 3)
    network = torch.tensor([9.0, 1.0, 2.0, 0.5, 9.0])
    levels = (0.9, 0.7, 0.5, 0.3, 0.1)
    schedule = pm.PredictedSchedule(levels, (3, 5, 7), torch.tensor(risk), zeros, zeros, "network", network)
    assert schedule.windows == (3, 5, 5, 7, 7)
    turned = [table.flip(0) for table in (torch.tensor(risk), zeros, zeros)]
    assert pm.PredictedSchedule(levels[::-1], (3, 5, 7), *turned, "network", network.flip(0)) == schedule
    with pytest.raises(pm.InputError, match="give the network"):
        pm.PredictedSchedule(levels, (3, 5, 7), torch.tensor(risk), zeros, zeros, "network")
    with pytest.raises(pm.InputError, match="one number for each of 5 levels"):
        pm.PredictedSchedule(levels, (3, 5, 7), torch.tensor(risk), zeros, zeros, "network", network[:4])


def test_a_network_is_measured_on_the_same_pixels(digits):
    images, labels = digits.images[:200], digits.labels[:200]
    held = digits.images[300:330], digits.labels[300:330]
    for given in (None, labels):
        machine = pm.presets.boundary_broken(images, 5, labels=given)
        schedule = pm.predict_locality(
            images, given, held_out=held if given is not None else held[0], alpha_bars=LEVELS, network=machine
        )
        assert schedule.rule == "network"
        torch.testing.assert_close(schedule.network_risk, schedule.risk[:, 1], rtol=1e-4, atol=0)


@pytest.mark.parametrize("by_class", [False, True])
def test_any_denoiser_is_given_the_labels(digits, by_class):
    images, labels = digits.images[:60], digits.labels[:60] % 2
    held, asked = torch.arange(10, 16), []

    def function(x, alpha_bar, given):
        asked.append(given)
        return x

    pm.predict_locality(
        images,
        labels if by_class else None,
        alpha_bars=(0.5,),
        held_out=(images[held], labels[held]) if by_class else images[held],
        network=pm.FunctionDenoiser(function, "x0"),
    )
    assert [None if given is None else given.tolist() for given in asked] == [
        labels[held].tolist() if by_class else None
    ]


def test_a_network_without_classes_is_given_no_labels(digits):
    images, labels, network = digits.images[:60], digits.labels[:60] % 2, pm.load_network()
    options = {"alpha_bars": (0.5,), "seed": 1, "network": network}
    found = pm.predict_locality(images, labels, **options)
    assert torch.equal(found.network_risk, pm.predict_locality(images, **options).network_risk)


def test_levels_may_come_in_any_order():
    errors = torch.rand(3, 2, 4, 1, 1, dtype=torch.float64)
    order = [2, 0, 1]
    alpha_bars = (0.9, 0.5, 0.1)
    straight = pm.PredictedSchedule.from_residuals(alpha_bars, (3, 5), errors)
    mixed = pm.PredictedSchedule.from_residuals([alpha_bars[i] for i in order], (3, 5), errors[order])
    assert mixed == straight
    assert torch.equal(mixed.risk, straight.risk)


def test_error_bars_cover(digits):
    """Over disjoint held-out samples, risks scatter about their mean as their standard errors say."""
    mixed = digits.images[torch.randperm(len(digits.images), generator=torch.Generator().manual_seed(0))]
    images, held = mixed[:150], mixed[150:1750].split(40)
    options = {"candidates": (3,), "alpha_bars": (0.8, 0.3), "pixels": 4}
    found = [pm.predict_locality(images, held_out=part, seed=i, **options) for i, part in enumerate(held)]
    risks = torch.stack([schedule.risk for schedule in found])
    errors = torch.stack([schedule.risk_stderr for schedule in found])
    ratio = risks.std(0) / errors.square().mean(0).sqrt()
    assert ((ratio > 0.7) & (ratio < 1.35)).all(), ratio


@pytest.mark.parametrize("seed", [-1, 1 << 32, 0.5])
def test_seeds_that_others_would_equal_are_refused(digits, seed):
    with pytest.raises(pm.InputError, match="a seed must be"):
        pm.predict_locality(digits.images[:90], seed=seed)


def test_the_seed_decides_everything(digits):
    options = {"candidates": (3, 5, 7), "alpha_bars": LEVELS, "held_out": 10}
    first, again, other = (
        pm.predict_locality(digits.images[:90], digits.labels[:90] % 2, seed=seed, **options)
        for seed in (1, 1, 2)
    )
    assert torch.equal(first.risk, again.risk)
    assert not torch.equal(first.risk, other.risk)


def test_neither_order_nor_batches_matter(digits):
    images, held = digits.images[:60], digits.images[100:104]
    options = {"alpha_bars": LEVELS, "held_out": held}
    straight = plan_risk(images, candidates=(3, 7), **options).residuals(slice(0, 4))
    mixed = plan_risk(images.flip(0), candidates=(7, 3), **options)
    parts = torch.cat([mixed.residuals(slice(0, 1)), mixed.residuals(slice(1, 4))], dim=2)
    torch.testing.assert_close(parts, straight, rtol=0, atol=1e-5)


def test_a_class_is_denoised_by_its_own_images_alone(digits):
    images, labels, held = (
        digits.images[:80],
        digits.labels[:80],
        (digits.images[90:93], digits.labels[90:93]),
    )
    found = plan_risk(images, labels, candidates=(5,), alpha_bars=LEVELS, held_out=held)
    every = found.residuals(slice(0, 3))
    for i, label in enumerate(held[1].tolist()):
        alone = plan_risk(images[labels == label], candidates=(5,), alpha_bars=LEVELS, held_out=held[0])
        torch.testing.assert_close(
            alone.residuals(slice(i, i + 1)), every[:, :, i : i + 1], rtol=0, atol=1e-6
        )


def test_files_keep_the_risk(digits, tmp_path):
    path = tmp_path / "predicted.json"
    schedule = pm.predict_locality(
        digits.images[:80], candidates=(3, 5), alpha_bars=LEVELS, rule="one-stderr", max_window=3
    )
    schedule.save(path)
    found = pm.PredictedSchedule.load(path)
    assert found == schedule == pm.LocalitySchedule.load(path)
    assert (found.rule, found.candidates) == ("one-stderr", (3,))
    assert torch.equal(found.risk, schedule.risk)
    assert torch.equal(found.excess_stderr, schedule.excess_stderr)
    assert schedule(0.5) == 3
    path.write_text('{"alpha_bars": [0.5], "windows": [3]}')
    with pytest.raises(pm.InputError, match="not a predicted schedule"):
        pm.PredictedSchedule.load(path)


def test_mixtures_solve_their_quadratic_program():
    """Two uncorrelated residuals are weighted inversely to their variances; a third that only adds noise is not."""
    errors = torch.zeros(1, 3, 4, 1, 1, dtype=torch.float64)
    errors[0, 0, :, 0, 0] = torch.tensor([1.0, 1, -1, -1])
    errors[0, 1, :, 0, 0] = torch.tensor([2.0, -2, 2, -2])
    errors[0, 2] = 3 * errors[0, 0]
    weights = mixture_weights(errors)[0]
    torch.testing.assert_close(weights, torch.tensor([0.8, 0.2, 0], dtype=torch.float64), rtol=0, atol=1e-6)


def test_a_mixture_averages_what_windows_see(digits):
    machine = pm.presets.boundary_broken(digits.images[:40], 1)
    weights = torch.tensor([[0.0, 1.0, 0.0], [0.25, 0.0, 0.75]], dtype=torch.float64)
    mixture = Mixture(machine, (0.2, 0.8), (3, 5, 7), weights)
    x = digits.images[40:42] + 0.3 * torch.randn(2, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    found = mixture.denoise(x, torch.tensor([0.3, 0.7]))
    three, five, seven = machine.denoise_windows(x, torch.tensor([0.3, 0.7]), (3, 5, 7))
    torch.testing.assert_close(found[0], five[0])
    torch.testing.assert_close(found[1], 0.25 * three[1] + 0.75 * seven[1])


def test_the_command_can_be_resumed_to_the_same_bytes(tmp_path, monkeypatch, capsys):
    command = ["calibrate", "--from-data", "--limit", "120", "--held-out", "24", "--steps", "3"]
    assert main([*command, "--out", str(tmp_path / "whole"), "--beside", "mnist-resnet"]) == 0
    measure, calls = HeldOutRisk.residuals, []

    def stopped(self, rows, memory_budget):
        calls.append(rows)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return measure(self, rows, memory_budget)

    parts = [*command, "--out", str(tmp_path / "parts"), "--beside", "mnist-resnet"]
    monkeypatch.setattr(HeldOutRisk, "residuals", stopped)
    assert main(parts) == 130
    assert main([*parts, "--resume"]) == 0
    assert [rows.start for rows in calls] == [0, 10, 10, 20]
    names = ["bbels.json", "risk.csv", "risk.png", "run.json", "windows.png"]
    assert sorted(path.name for path in (tmp_path / "parts").iterdir()) == names
    for name in names:
        assert (tmp_path / "parts" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
    assert main(parts) == 0
    assert "already complete" in capsys.readouterr().out
    assert len((tmp_path / "whole" / "risk.csv").read_text().splitlines()) == 1 + 3 * 7
    scales = str(tmp_path / "whole" / "bbels.json")
    assert pm.presets.find_scales(scales) == pm.PredictedSchedule.load(scales)


def test_the_command_holds_out_a_fifth_and_records_what_was_used(tmp_path):
    options = ["--from-data", "--limit", "60", "--steps", "2", "--pixels", "100", "--max-window", "3"]
    assert main(["calibrate", *options, "--out", str(tmp_path / "run")]) == 0
    config = pm.records.read_json(tmp_path / "run" / "run.json")["config"]
    assert (config["held_out"], config["pixels"]) == (12, 64)
    assert pm.records.read_json(tmp_path / "run" / "bbels.json")["held_out"] == 12
    levels = [pm.CosineSchedule().alpha_bar(t) for t in (0.5, 1.0)]
    again = pm.predict_locality(
        pm.load_dataset("digits", limit=60).pixels, seed=1000, alpha_bars=levels, pixels=64, max_window=3
    )
    assert torch.equal(pm.PredictedSchedule.load(tmp_path / "run" / "bbels.json").risk, again.risk)


def test_the_command_takes_a_network(tmp_path):
    network = str(BUNDLED)
    options = ["--from-data", "--network", network, "--limit", "300", "--held-out", "30", "--steps", "5"]
    assert main(["calibrate", *options, "--out", str(tmp_path / "run")]) == 0
    schedule = pm.PredictedSchedule.load(tmp_path / "run" / "bbels.json")
    assert schedule.rule == "network"
    images = pm.load_dataset("digits", limit=300).pixels
    times = [i / 5 for i in range(1, 6)]
    levels = [pm.CosineSchedule().alpha_bar(t) for t in times]
    again = pm.predict_locality(
        images, held_out=30, seed=1000, alpha_bars=levels, network=pm.load_network(network)
    )
    torch.testing.assert_close(schedule.network_risk, again.network_risk)
    assert schedule == again
    record = pm.records.read_json(tmp_path / "run" / "run.json")
    assert record["network"]["fingerprint"] == pm.load_network(network).fingerprint


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--machines", "ls,els"], "one machine"),
        (["--machines", "is"], "predicted for one of"),
        (["--network", "somewhere"], "no network"),
        (["--save-with-network"], "follows no network"),
        (["--count", "3"], "leave out --count"),
        (["--rule", "network"], "give the network"),
        (["--data", "two-tone", "--network", str(BUNDLED)], "use --size 8"),
        (["--data", "two-tone", "--by-class"], "no classes"),
        (["--beside", "nothing"], "no scales"),
        (["--limit", "2"], "3 images at least"),
    ],
)
def test_wrong_commands_are_told_in_one_line(tmp_path, capsys, options, says):
    assert main(["calibrate", "--from-data", "--out", str(tmp_path / "run"), *options]) == 1
    told = capsys.readouterr().err
    assert says in told
    assert told.count("\n") == 1
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"symmetry": "rotation"}, "symmetry"),
        ({"padding": "mirror"}, "padding"),
        ({"candidates": (4,)}, "odd"),
        ({"candidates": ()}, "one window"),
        ({"candidates": (5, 7), "max_window": 3}, "max_window=3"),
        ({"alpha_bars": (1.0,)}, "alpha_bars"),
        ({"alpha_bars": (0.5, 0.5)}, "alpha_bars"),
        ({"held_out": 1}, "held_out"),
        ({"held_out": 20}, "held_out"),
        ({"held_out": torch.zeros(2, 1, 7, 8)}, "shape"),
        ({"held_out": torch.zeros(1, 1, 8, 8)}, "two held-out images"),
        ({"labels": torch.zeros(20, dtype=torch.long), "held_out": torch.zeros(2, 1, 8, 8)}, "classes"),
        ({"rule": "best"}, "rule"),
        ({"rule": "network"}, "give the network"),
        ({"pixels": 0}, "pixels"),
    ],
)
def test_mistakes_are_told_in_one_line(digits, change, says):
    with pytest.raises(pm.InputError, match=says) as error:
        pm.predict_locality(digits.images[:20], **change)
    assert "\n" not in str(error.value)
