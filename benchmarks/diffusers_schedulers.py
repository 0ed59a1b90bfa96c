"""A machine under diffusers' schedulers: one picture grid, and error against steps.

    python benchmarks/diffusers_schedulers.py --out runs/schedulers

Boundary-broken ELS (P = 5) on the digits, the same seeds for all. The error is that of the noisy picture at t = 0.3:
the root mean square difference, over pixels and seeds, from Heun's method in 1,000 steps. (In the finished picture it
is whether a pixel chose the same patch.) Order: log2 of the ratio of the errors in 100 and 200 steps. EDM's schedulers
have other noise levels in between and are in the grid alone.
"""

import argparse
import math
from pathlib import Path

import diffusers
import torch

import patchmosaic as pm
from patchmosaic import viz
from patchmosaic.hub import ScoreMachinePipeline, authors_scheduler

STEPS = (10, 20, 50, 100, 200)


def schedulers():
    """Each by name: how it is made, and whether its error is measured."""
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
        "EDM Euler": (lambda: diffusers.EDMEulerScheduler(**edm), False),
        "EDM DPM-Solver++": (lambda: diffusers.EDMDPMSolverMultistepScheduler(**edm), False),
    }


def draw(machine, scheduler, steps, seeds):
    """Pictures in [-1, 1]."""
    pipeline = ScoreMachinePipeline(machine, scheduler)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline(seeds, num_inference_steps=steps, output_type="pt").images * 2 - 1


def on_the_way(machine, scheduler, steps, seeds, time=0.3):
    """The noisy picture at a time, sqrt(alpha_bar) x_0 + sqrt(1 - alpha_bar) eta."""
    taken = round((1 - time) * steps)
    two_calls = isinstance(scheduler, diffusers.HeunDiscreteScheduler)
    last, kept = taken * (2 if two_calls else 1) - 1, {}

    def keep(pipe, i, t, state):
        if i == last:
            kept.update(state)
        return state

    pipeline = ScoreMachinePipeline(machine, scheduler)
    pipeline.set_progress_bar_config(disable=True)
    pipeline(seeds, num_inference_steps=steps, output_type="pt", callback_on_step_end=keep)
    divided = two_calls or isinstance(scheduler, diffusers.EulerDiscreteScheduler)
    return kept["latents"] * (pm.CosineSchedule().alpha_bar(time) ** 0.5 if divided else 1)


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
    reference = on_the_way(machine, made["Heun"][0](), 1000, seeds)
    print(f"{'steps':18}" + "".join(f"{steps:10}" for steps in STEPS) + f"{'order':>8}")
    for name, (make, measured) in made.items():
        if measured:
            errors = [rms(on_the_way(machine, make(), steps, seeds) - reference) for steps in STEPS]
            print(
                f"{name:18}"
                + "".join(f"{e:10.6f}" for e in errors)
                + f"{math.log2(errors[3] / errors[4]):8.2f}"
            )
    drawn = [draw(machine, make(), 40, seeds) for make, _ in made.values()]
    subtitle = f"A line for each of {', '.join(made)}; 40 steps, seeds 0 to {args.count - 1}."
    page = viz.grid(
        torch.cat(drawn), "One machine, eight schedulers of diffusers", subtitle, columns=args.count
    )
    viz.save_png(page, args.out / "schedulers.png")


def rms(difference):
    """Root mean square."""
    return float(difference.square().mean().sqrt())


if __name__ == "__main__":
    main()
