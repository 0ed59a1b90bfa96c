"""Does the scale from data alone predict pictures? A network against machines at several scales.

    python benchmarks/scale_networks.py --count 400
    python benchmarks/scale_networks.py --network runs/mnist/network

The network (default: the bundled one, of digits) must have been made by `patchmosaic train` and calibrated with
`patchmosaic calibrate --save-with-network`; it says what it was trained on. Held-out images are those that follow its
training images in the same file if it was trained on the first N of one, else some of these.

r is Pearson's correlation with the network's picture from the same noise, its median and quartiles over pictures.
Risks are means over the noise levels; a mixture's weights are found on half of the held-out images and its risk is
measured on the other half, both ways.
"""

import argparse
import time
from dataclasses import replace

import torch
from script import run

import patchmosaic as pm
from patchmosaic import presets
from patchmosaic.calibration.mixture import Mixture, mixture_weights
from patchmosaic.calibration.predict import AS_NETWORK, RULES, plan_risk


def main():
    """Predict, draw, and print a table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--count", type=int, default=100, help="pictures")
    parser.add_argument("--held-out", type=int, default=400)
    parser.add_argument("--pixels", type=int, default=32)
    parser.add_argument("--network", help="its folder")
    parser.add_argument("--data", help="where the training images lie now")
    args = parser.parse_args()
    network = pm.load_network(args.network)
    settings = network.data()
    if args.data:
        settings = replace(settings, data=args.data)
    data, held_out = settings.load(), args.held_out
    if settings.limit and settings.subset_seed is None:
        held_out = replace(settings, limit=settings.limit + args.held_out).load().pixels[settings.limit :]
    risk = plan_risk(data.pixels, held_out=held_out, max_window=network.receptive_field, pixels=args.pixels)
    every = slice(0, args.held_out)
    started = time.monotonic()
    residuals = risk.residuals(every)
    print(f"{len(data):,} training images; risks in {time.monotonic() - started:.0f} s")
    best = pm.PredictedSchedule.from_residuals(
        risk.alpha_bars, risk.candidates, residuals, network_errors=risk.network_errors(network, every)
    )
    predicted = {rule: best.with_rule(rule) for rule in (*RULES, AS_NETWORK)}
    schedules = {"calibrated": network.scales("bbels"), **predicted}
    machines = {name: presets.boundary_broken(data.pixels, scales) for name, scales in schedules.items()}
    machine = machines["calibrated"]
    machines["mixture"] = Mixture(machine, risk.alpha_bars, risk.candidates, mixture_weights(residuals))
    risks = {
        name: chosen_risk(best.risk, [risk.candidates.index(s(a)) for a in best.alpha_bars])
        for name, s in schedules.items()
    }
    risks["mixture"] = mixture_risk(residuals)
    noise = pm.draw_noise(pm.generators(range(args.count)), network.shape)
    found = pm.compare(network, machines, noise).metrics
    print("scales       held-out risk   r at 150 steps (quartiles)   at 20   windows")
    for name in machines:
        r, short = (found[steps][name]["r"].double() for steps in (150, 20))
        low, middle, high = r.quantile(torch.tensor([0.25, 0.5, 0.75], dtype=torch.float64)).tolist()
        windows = " ".join(map(str, schedules[name].windows)) if name in schedules else ""
        print(
            f"{name:12} {risks[name]:10.4f}        {middle:.3f} ({low:.3f} to {high:.3f})"
            f"       {float(short.median()):.3f}   {windows}"
        )


def chosen_risk(risk, places):
    """The mean over levels of the risk at one candidate of each."""
    return float(risk.gather(1, torch.tensor(places)[:, None]).mean())


def mixture_risk(residuals):
    """The mean over levels of the risk on images that the weights were not found on."""
    halves = residuals.chunk(2, dim=2)
    found = [
        torch.einsum("lp,lpikc->likc", mixture_weights(one), other).square().mean()
        for one, other in (halves, halves[::-1])
    ]
    return float(sum(found) / 2)


if __name__ == "__main__":
    run(main)
