"""Does the scale from data alone predict pictures? The bundled network of digits against machines at several scales.

    python benchmarks/scale_digits.py --count 100

r is Pearson's correlation with the network's picture from the same noise, its median and quartiles over pictures.
Held-out risks are means over the noise levels; a mixture's weights are found on half of the held-out images and its
risk is measured on the other half, both ways.
"""

import argparse

import torch

import patchmosaic as pm
from patchmosaic import presets
from patchmosaic.calibration.mixture import Mixture, mixture_weights
from patchmosaic.calibration.predict import RULES, plan_risk


def main():
    """Predict, draw, and print a table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--count", type=int, default=100, help="pictures")
    parser.add_argument("--held-out", type=int, default=400)
    parser.add_argument(
        "--network", help="trained on the digits and calibrated with --save-with-network (default: bundled)"
    )
    args = parser.parse_args()
    network, data = pm.load_network(args.network), pm.load_dataset("digits")
    risk = plan_risk(data.pixels, held_out=args.held_out, pixels=32)
    residuals = risk.residuals(slice(0, args.held_out))
    best = pm.PredictedSchedule.from_residuals(risk.alpha_bars, risk.candidates, residuals)
    schedules = {"calibrated": network.scales("bbels"), **{rule: best.with_rule(rule) for rule in RULES}}
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
    main()
