"""python every_machine.py LIBRARY OUT: what one build of the compiled engines answers, saved."""

import sys
from itertools import product

import torch

import patchmosaic as pm
from patchmosaic.engines import box, native, rings
from test_screened import smooth_images

native.library.cache_clear()
native.library = box.library = rings.library = lambda: native.load(sys.argv[1])

rng = torch.Generator().manual_seed(0)
levels = torch.randint(0, 256, (100, 3, 20, 20), generator=rng, dtype=torch.uint8)
smooth = torch.nn.functional.avg_pool2d(torch.rand(100, 3, 23, 23, generator=rng), 4, 1) * 2 - 1
x = smooth[:2] + 0.3 * torch.randn(2, 3, 20, 20, generator=rng)
stored = {"bytes": levels, "floats": smooth}
symmetries = ("none", "zeros"), ("translation", "zeros"), ("translation", "circular")
found = {}
for (name, images), symmetry, window in product(stored.items(), symmetries, (1, 3, 5, 9)):
    machine = pm.ScoreMachine(images, None, window, *symmetry, engine="box")
    found[name, symmetry, window] = machine.denoise(x, 0.8)
    if window == 3:
        found[name, symmetry, "trace"] = machine.trace(x, 0.8)

    if window == 5 and symmetry == ("translation", "zeros"):
        found[name, "nested"] = machine.denoise_windows(x, 0.8, (3, 5, 9, 21))

waves = smooth_images((3, 16, 16), 250)
tolerant = pm.ScoreMachine(waves, None, 3, "translation", engine="box", tol=1e-3)
noisy = 0.99**0.5 * (waves[:2] / 127.5 - 1) + 0.1 * torch.randn(2, 3, 16, 16, generator=rng)
found["screened"], _, visited = tolerant.denoise_certified(noisy, 0.99)
assert visited.max() < 0.5
found["rings"] = pm.predict_locality(levels, candidates=(3, 5), held_out=10, max_window=5).risk
torch.save(found, sys.argv[2])
