"""A machine under diffusers' schedulers: one picture grid, and error against steps.

    python benchmarks/diffusers_schedulers.py --out runs/schedulers

Boundary-broken ELS (P = 5) on the digits, the same seeds for all. The error is that of the noisy picture at t = 0.3:
the root mean square difference, over pixels and seeds, from Heun's method in 1,000 steps. (In the finished picture it
is whether a pixel chose the same patch.) EDM's schedulers have noise levels of their own: their error is that of the
noisy picture after three fifths of the way, sigma = 0.965, from EDM's DPM-Solver++ in 1,001 steps, and they take one
step more than the table says. Order: log2 of the ratio of the errors in 100 and 200 steps.
"""

import argparse
import math
from pathlib import Path

import diffusers
import torch
from script import run

import patchmosaic as pm
from patchmosaic import viz
from patchmosaic.hub import ScoreMachinePipeline, authors_scheduler

STEPS = (10, 20, 50, 100, 200)


def schedulers():
    """Each by name: how it is made, and which its error is measured against."""
    betas = authors_scheduler().config.trained_betas
    common = {"trained_betas": betas, "timestep_spacing": "trailing"}
    edm = {"sigma_min": 0.002, "sigma_max": 80.0, "sigma_data": 0.5}
    return {
        "DDIM": (lambda: diffusers.DDIMScheduler(**common, clip_sample=False), "Heun"),
        "DDPM": (lambda: diffusers.DDPMScheduler(**common, clip_sample=False), None),
        "Euler": (lambda: diffusers.EulerDiscreteScheduler(**common), "Heun"),
        "Heun": (lambda: diffusers.HeunDiscreteScheduler(**common), "Heun"),
        "DPM-Solver++": (
            lambda: diffusers.DPMSolverMultistepScheduler(**common, final_sigmas_type="zero"),
            "Heun",
        ),
        "UniPC": (lambda: diffusers.UniPCMultistepScheduler(**common), "Heun"),
        "EDM Euler": (lambda: diffusers.EDMEulerScheduler(**edm), "EDM DPM-Solver++"),
        "EDM DPM-Solver++": (lambda: diffusers.EDMDPMSolverMultistepScheduler(**edm), "EDM DPM-Solver++"),
    }


def draw(machine, scheduler, steps, seeds):
    """Pictures in [-1, 1]."""
    pipeline = ScoreMachinePipeline(machine, scheduler)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline(seeds, num_inference_steps=steps, output_type="pt").images * 2 - 1


def on_the_way(machine, scheduler, steps, seeds):
    """The noisy picture on the way, sqrt(alpha_bar) x_0 + sqrt(1 - alpha_bar) eta."""
    two_calls = isinstance(scheduler, diffusers.HeunDiscreteScheduler)
    taken, kept = round(0.7 * steps) * (2 if two_calls else 1), {}
    scale = 1.0
    if scheduler.config.get("sigma_data"):
        steps, taken = steps + 1, 3 * steps // 5
        scheduler.set_timesteps(steps)
        scale = float(1 + scheduler.sigmas[taken].double() ** 2) ** -0.5
    elif two_calls or isinstance(scheduler, diffusers.EulerDiscreteScheduler):
        scale = pm.CosineSchedule().alpha_bar(0.3) ** 0.5

    def keep(pipe, i, t, state):
        if i == taken - 1:
            kept.update(state)
        return state

    pipeline = ScoreMachinePipeline(machine, scheduler)
    pipeline.set_progress_bar_config(disable=True)
    pipeline(seeds, num_inference_steps=steps, output_type="pt", callback_on_step_end=keep)
    return kept["latents"] * scale


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
    exact = {
        name: on_the_way(machine, made[name][0](), 1000, seeds)
        for name in {reference for _, reference in made.values() if reference}
    }
    print(f"{'steps':18}" + "".join(f"{steps:10}" for steps in STEPS) + f"{'order':>8}")
    for name, (make, reference) in made.items():
        if reference:
            errors = [rms(on_the_way(machine, make(), steps, seeds) - exact[reference]) for steps in STEPS]
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
    run(main)
