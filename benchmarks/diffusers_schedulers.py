"""A machine under diffusers' schedulers: one picture grid, and error against steps.

    python benchmarks/diffusers_schedulers.py --out runs/schedulers

Boundary-broken ELS (P = 5) on the digits, the same seeds for all. The error is the root mean square difference, over
pixels and seeds, from Heun's method in 1,000 steps on the same noise schedule; that of EDM's schedulers, whose noise
begins elsewhere, from EDM's own Euler method in 1,000. Order: log2 of the ratio of the errors at 40 and 80 steps.
"""

import argparse
import math
from pathlib import Path

import diffusers
import torch
from tqdm import tqdm

import patchmosaic as pm
from patchmosaic import viz
from patchmosaic.hub import ScoreMachinePipeline, authors_scheduler

STEPS = (10, 20, 40, 80, 160)


def schedulers():
    """Each by name: how it is made, and whether it is deterministic."""
    betas = authors_scheduler().config.trained_betas
    common = {"trained_betas": betas, "timestep_spacing": "trailing"}
    edm = {"sigma_min": 0.002, "sigma_max": 80.0, "sigma_data": 0.5}
    return {
        "DDIM": (lambda: diffusers.DDIMScheduler(**common, clip_sample=False), True),
        "DDPM": (lambda: diffusers.DDPMScheduler(**common, clip_sample=False), False),
        "Euler": (lambda: diffusers.EulerDiscreteScheduler(**common), True),
        "Heun": (lambda: diffusers.HeunDiscreteScheduler(**common), True),
        "DPM-Solver++": (
            lambda: diffusers.DPMSolverMultistepScheduler(**common, final_sigmas_type="zero"),
            True,
        ),
        "UniPC": (lambda: diffusers.UniPCMultistepScheduler(**common), True),
        "EDM Euler": (lambda: diffusers.EDMEulerScheduler(**edm), True),
        "EDM DPM-Solver++": (lambda: diffusers.EDMDPMSolverMultistepScheduler(**edm), True),
    }


def draw(machine, scheduler, steps, seeds):
    """Pictures in [-1, 1]."""
    pipeline = ScoreMachinePipeline(machine, scheduler)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline(seeds, num_inference_steps=steps, output_type="pt").images * 2 - 1


def main():
    """Draw the grid and print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--count", type=int, default=8, help="seeds")
    parser.add_argument("--limit", type=int, default=500)
    parser.add_argument("--out", type=Path, default=Path("runs/schedulers"))
    args = parser.parse_args()
    machine = pm.presets.boundary_broken(pm.load_dataset("digits", limit=args.limit).images, 5)
    seeds, made = list(range(args.count)), schedulers()
    references = {name: draw(machine, made[name][0](), 1000, seeds) for name in ("Heun", "EDM Euler")}
    drawn, lines = [], []
    for name, (make, deterministic) in tqdm(made.items(), disable=None):
        drawn.append(draw(machine, make(), 40, seeds))
        if deterministic:
            reference = references["EDM Euler" if name.startswith("EDM") else "Heun"]
            errors = [rms(draw(machine, make(), steps, seeds) - reference) for steps in STEPS]
            lines.append(f"{name:18}" + "".join(f"{e:10.5f}" for e in errors) + f"{order(errors):8.2f}")
    print(f"{'steps':18}" + "".join(f"{steps:10}" for steps in STEPS) + f"{'order':>8}")
    print("\n".join(lines))
    subtitle = f"A line for each of {', '.join(made)}; 40 steps, seeds 0 to {args.count - 1}."
    page = viz.grid(
        torch.cat(drawn), "One machine, eight schedulers of diffusers", subtitle, columns=args.count
    )
    viz.save_png(page, args.out / "schedulers.png")


def rms(difference):
    """Root mean square."""
    return float(difference.square().mean().sqrt())


def order(errors):
    """How fast errors fall."""
    return math.log2(errors[2] / errors[3])


if __name__ == "__main__":
    main()
