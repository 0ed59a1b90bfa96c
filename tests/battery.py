"""What every engine must pass: agreement with the dense engine in float64, everywhere."""

import torch

import patchmosaic as pm

# (symmetry, padding, keys)
MACHINES = {
    "LS zeros": ("none", "zeros", "all"),
    "LS wrapped": ("none", "circular", "all"),
    "bbELS": ("translation", "zeros", "all"),
    "ELS": ("translation", "circular", "all"),
    "ELS inside": ("translation", "circular", "inside"),
}
WHOLE = {"IS": ("none", "zeros", "all"), "ES": ("translation", "circular", "all")}
SHAPES = [((1, 8, 8), "bytes"), ((3, 9, 6), "levels"), ((2, 5, 9), "floats"), ((1, 1, 5), "bytes")]
ALPHA_BARS = (0.0, 1e-4, 0.5, 0.99, 0.9999)


def training_images(shape, count, stored, seed=0):
    """Random images: as bytes, as floats with few levels, or as any floats."""
    rng = torch.Generator().manual_seed(seed)
    if stored == "bytes":
        return torch.randint(0, 256, (count, *shape), generator=rng, dtype=torch.uint8)
    if stored == "levels":
        return torch.randint(0, 17, (count, *shape), generator=rng) / 8 - 1
    return torch.rand(count, *shape, generator=rng) * 2 - 1


def queries(machine, alpha_bar, seed=1):
    """A noised training image, and noise far from all of them."""
    rng = torch.Generator().manual_seed(seed)
    image = machine.dictionary.images(torch.tensor([1]), torch.float32)
    noise = torch.randn(2, *image.shape[1:], generator=rng)
    return torch.cat([alpha_bar**0.5 * image + (1 - alpha_bar) ** 0.5 * noise[:1], noise[1:]])


def worst_error(images, engine, rules, window, alpha_bars=ALPHA_BARS, labels=None, asked=None, **options):
    """The largest |D - D of the dense float64 twin| over noise levels, queries and pixels."""
    symmetry, padding, keys = rules
    choices = {"symmetry": symmetry, "padding": padding, "keys": keys, **options}
    tested = pm.ScoreMachine(images, labels, window, engine=engine, **choices)
    twin = pm.ScoreMachine(images, labels, window, engine="dense", **choices)
    worst = 0.0
    for alpha_bar in alpha_bars:
        x = queries(twin, alpha_bar)
        error = tested.denoise(x, alpha_bar, asked) - twin.denoise(x.double(), alpha_bar, asked)
        worst = max(worst, float(error.abs().nan_to_num(nan=torch.inf).max()))
    return worst
