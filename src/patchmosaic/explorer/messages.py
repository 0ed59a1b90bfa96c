"""What the page is told: results as JSON, pictures as PNG data addresses, one picture pixel per image pixel."""

import base64
import io
import math
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from patchmosaic import __version__, presets
from patchmosaic.explain import Mosaic, Provenance
from patchmosaic.explanation.pictures import COLOURS, OTHERS, rgb
from patchmosaic.explorer.flow import Flow
from patchmosaic.explorer.studio import TRACED_AT_ONCE, Dialled, Studio, window_of
from patchmosaic.explorer.uploads import MAX_BYTES
from patchmosaic.explorer.view import MAX_STEPS, View
from patchmosaic.locality import LocalitySchedule
from patchmosaic.machine import ScoreMachine
from patchmosaic.metrics import measure
from patchmosaic.viz import to_pil

Json = dict[str, Any]


def setup(studio: Studio) -> Json:
    """What there is to choose from."""
    network = studio.network
    hint = "Start patchmosaic explore with --network FOLDER to see a trained network on the same noise."
    return {
        "version": __version__,
        "data": {
            "name": studio.data.name,
            "count": len(studio.data),
            "shape": list(studio.shape),
            "classes": _classes(studio),
        },
        "machines": [
            {
                "name": name,
                "short": presets.SHORT_NAMES[name],
                "long": presets.LONG_NAMES[name],
                "local": name in presets.LOCAL_MACHINES,
                "padding": name == "ls",
                "beside": studio.beside(name),
            }
            for name in presets.MACHINES
        ],
        "localities": _localities(studio),
        "windows": list(range(3, studio.largest_window + 1, 2)),
        "max_steps": MAX_STEPS,
        "max_upload": MAX_BYTES,
        "network": network and {"name": "the trained network", "conditional": network.classes is not None},
        "network_hint": "" if network else hint,
        "defaults": {"machine": View.machine, "locality": View.locality, "second": View.second},
    }


def _classes(studio: Studio) -> list[Json]:
    """Those that have training images."""
    data = studio.data
    present = [] if data.labels is None else data.labels.unique().tolist()
    return [{"label": label, "name": data.class_names[label]} for label in present]


def _localities(studio: Studio) -> list[Json]:
    calibrated = studio.network is not None and studio.network.scales(View.machine) is not None
    remark = "calibrated on the network" if calibrated else "a rule of thumb"
    found = [{"name": "auto", "title": f"{_range(studio.auto(View.machine))}, {remark}"}]
    if min(studio.shape[1:]) >= 20:
        found += [
            {"name": name, "title": f"{_range(presets.published_scales(name))}, published for {name}"}
            for name in presets.PUBLISHED_SCALES
        ]
    return found


def _range(schedule: LocalitySchedule) -> str:
    return f"{min(schedule.windows)} to {max(schedule.windows)}"


def flow(studio: Studio, view: View, flow: Flow) -> Json:
    """A whole flow, with where its pixels come from if every step is traced."""
    machine = studio.machine(view)
    alpha_bars = [step.alpha_bar for step in flow.steps]
    maps = None
    if studio.traces_every_step(view):
        maps = [step_map(studio, view, flow, k) for k in range(len(flow.steps))]
    return {
        "times": [step.time for step in flow.steps],
        "alpha_bars": alpha_bars,
        "windows": [window_of(machine, alpha_bar) for alpha_bar in alpha_bars],
        "wraps": _wraps(machine),
        "states": [png(step.state[0]) for step in flow.steps],
        "predictions": [png(step.prediction[0]) for step in flow.steps],
        "maps": maps,
        "picture": png(flow.picture[0]),
        "nearest": _nearest(studio, machine, flow, view.label),
    }


def _nearest(studio: Studio, machine: ScoreMachine, flow: Flow, label: int | None) -> Json:
    found = int(machine.dictionary.nearest(flow.picture, None if label is None else torch.tensor([label])))
    image = _image(machine, found)
    distance = float((image - flow.picture[0]).square().mean().sqrt())
    return {**_named(studio, found), "picture": png(image), "distance": distance}


def step_map(studio: Studio, view: View, flow: Flow, k: int) -> Json:
    """Where every pixel of one step comes from; colours are those of the finished picture's main sources."""
    machine = studio.machine(view)
    found, named = flow.trace(machine, k), flow.mosaic(machine)
    patches = studio.patches(machine, flow.steps[k].alpha_bar, view.label)
    effective = found.effective[0]
    return {
        "sources": png_of(_source_colours(found, named)),
        "belief": png_of(_shades(effective, patches)),
        "median": float(effective.median()),
        "patches": patches,
        "named": _legend(studio, named),
        "unclear": int(found.ambiguous.sum()),
    }


def _source_colours(found: Provenance, named: Mosaic) -> UInt8[np.ndarray, "h w 3"]:
    """Each pixel in the colour of its best source, the paler the less it believes in it."""
    palette = torch.tensor([rgb(colour) for colour in (*COLOURS, OTHERS)], dtype=torch.float64)
    colour_of = {image: i for i, (image, _) in enumerate(named.sources()[: len(COLOURS)])}
    which = [[colour_of.get(image, len(COLOURS)) for image in row] for row in found.image[0, 0].tolist()]
    weight = found.weight[0, 0, :, :, None].sqrt()
    return (weight * palette[torch.tensor(which)] + (1 - weight) * 255).round().to(torch.uint8).numpy()


def _legend(studio: Studio, named: Mosaic) -> list[Json]:
    return [
        {**_named(studio, image), "colour": colour, "pixels": size}
        for (image, size), colour in zip(named.sources(), COLOURS, strict=False)
    ]


def _shades(effective: Float[Tensor, "h w"], most: int) -> np.ndarray:
    """From one patch to all that there are, on a logarithmic scale, in matplotlib's viridis backwards."""
    from matplotlib import colormaps

    share = effective.log() / max(math.log(max(most, 2)), 1e-9)
    return (colormaps["viridis_r"](share.clamp(0, 1).numpy())[:, :, :3] * 255).round().astype(np.uint8)


def pixel(studio: Studio, view: View, flow: Flow) -> Json:
    """What two machines believe of one pixel of the same noisy picture."""
    second = studio.second(view)
    return {"first": _belief(studio, view, flow, None), "second": _belief(studio, view, flow, second)}


def _belief(studio: Studio, view: View, flow: Flow, other: View | None) -> Json:
    found, machine = studio.believed(view, flow, other)
    step = flow.steps[studio.step(view, flow)]
    alpha_bar = step.alpha_bar
    window = window_of(machine, alpha_bar)
    assert view.row is not None
    assert view.col is not None
    box = _box(view.row, view.col, window, studio.shape)
    return {
        "machine": presets.short((other or view).machine),
        "window": window,
        "box": box,
        "wraps": _wraps(machine),
        "seen": png(_cut(step.state[0], box, True)) if _wraps(machine) else None,
        "effective": float(found.effective),
        "patches": studio.patches(machine, alpha_bar, view.label),
        "covered": float(found.covered),
        "sources": [
            _source(studio, machine, found, i, window)
            for i in range(found.image.shape[1])
            if int(found.image[0, i]) >= 0
        ],
    }


def _source(studio: Studio, machine: ScoreMachine, found: Provenance, i: int, window: int | None) -> Json:
    number, row, col = (int(part[0, i]) for part in (found.image, found.row, found.col))
    image = _image(machine, number)
    box = _box(row, col, window, studio.shape)
    return {
        **_named(studio, number),
        "weight": float(found.weight[0, i]),
        "picture": png(image),
        "row": row,
        "col": col,
        "box": box,
        "patch": png(_cut(image, box, _wraps(machine))),
    }


def _wraps(machine: ScoreMachine) -> bool:
    """Whether a window goes on at the other side of the image."""
    return machine.rules.padding == "circular"


def _box(row: int, col: int, window: int | None, shape: tuple[int, int, int]) -> list[int]:
    """Top, left, height and width of what a pixel sees."""
    if window is None:
        return [0, 0, shape[1], shape[2]]
    return [row - window // 2, col - window // 2, window, window]


def _cut(image: Float[Tensor, "c h w"], box: list[int], wraps: bool) -> Float[Tensor, "c p q"]:
    """A window of an image, with what a machine sees beyond its border."""
    top, left, height, width = box
    rows, columns = torch.arange(top, top + height), torch.arange(left, left + width)
    cut = image[:, rows % image.shape[1]][:, :, columns % image.shape[2]]
    if wraps:
        return cut
    inside = ((rows >= 0) & (rows < image.shape[1]))[:, None] & (columns >= 0) & (columns < image.shape[2])
    return cut * inside


def dialled(studio: Studio, view: View, one: Dialled) -> Json:
    """A picture of the dial."""
    found = None
    if studio.pairs(one.machine, 1.0, view.label) <= TRACED_AT_ONCE:
        found = one.flow.mosaic(one.machine).sources()
    whole = one.locality == "whole"
    return {
        "locality": one.locality,
        "title": "whole image" if whole else f"{one.locality} × {one.locality}",
        "picture": png(one.flow.picture[0]),
        "sources": found and len(found),
        "largest": found and found[0][1] / (studio.shape[1] * studio.shape[2]),
    }


def network(theory: Flow, drawn: Flow) -> Json:
    """A network's picture beside theory's."""
    reference, predicted = drawn.picture.clamp(-1, 1), theory.picture.clamp(-1, 1)
    found = measure(reference, predicted)
    return {
        "picture": png(reference[0]),
        "theory": png(predicted[0]),
        "difference": png((reference - predicted)[0].abs() - 1),
        "r": float(found["r"]),
        "r2": float(found["r2"]),
        "steps": len(drawn.times),
        "name": "the trained network",
    }


def _image(machine: ScoreMachine, number: int) -> Float[Tensor, "c h w"]:
    return machine.dictionary.images(torch.tensor([number]), torch.float32)[0]


def _named(studio: Studio, number: int) -> Json:
    """A training image by its row in the source, and its class."""
    data = studio.data
    kind = "" if data.labels is None else data.class_names[int(data.labels[number])]
    return {"image": int(data.indices[number]), "class": kind}


def png(image: Float[Tensor, "c h w"]) -> str:
    """An image in [-1, 1] as a data address."""
    return _address(to_pil(image))


def png_of(array: np.ndarray) -> str:
    """Bytes (H, W, 3) as a data address."""
    from PIL import Image

    return _address(Image.fromarray(array))


def _address(picture: Any) -> str:
    content = io.BytesIO()
    picture.save(content, "PNG")
    return "data:image/png;base64," + base64.b64encode(content.getvalue()).decode()


def bytes_of(address: str) -> bytes:
    """The PNG behind a data address."""
    return base64.b64decode(address.partition(",")[2])
