"""A view as a picture to keep: the panels of its step and, with a pixel, what two machines believe of it."""

import io
from dataclasses import replace
from typing import Any

import numpy as np
from PIL import Image

from patchmosaic import plots, presets
from patchmosaic.explorer import messages
from patchmosaic.explorer.flow import Flow
from patchmosaic.explorer.studio import Studio
from patchmosaic.explorer.view import View

_PANELS = (
    ("state", "Noisy picture"),
    ("prediction", "Clean prediction"),
    ("sources", "Source map"),
    ("belief", "Patches believed"),
)
_MARK = "#ff5a36"


def export(studio: Studio, view: View, flow: Flow) -> bytes:
    """A PNG of the view, whose flow has been taken."""
    machine = studio.machine(view)
    step = studio.step(view, flow)
    taken = flow.steps[step]
    shown = {"state": messages.png(taken.state[0]), "prediction": messages.png(taken.prediction[0])}
    remarks = {}
    if studio.traces_every_step(view) or flow.is_traced(step):
        found = messages.step_map(studio, view, flow, step)
        shown |= {"sources": found["sources"], "belief": found["belief"]}
        remarks = {
            "sources": f"from {len(flow.mosaic(machine).sources())} images; paler: less sure",
            "belief": f"median {found['median']:.3g} of {found['patches']:,}",
        }
    beliefs = None
    if view.row is not None:
        beliefs = messages.pixel(studio, replace(view, step=step), flow)
    page = plots.empty_page(12, 3.9 + (3.6 if beliefs else 0))
    parts = np.atleast_1d(
        page.subfigures(2 if beliefs else 1, 1, height_ratios=(3.9, 3.6) if beliefs else None)
    )
    for panel, (name, title) in zip(parts[0].subplots(1, 4), _PANELS, strict=True):
        panel.set_title(title, fontsize=11, color=plots.INK)
        panel.set_xlabel(remarks.get(name, ""), fontsize=9, color=plots.FAINT)
        boxes = _boxes(beliefs["first"]["box"], studio, beliefs["first"]["wraps"]) if beliefs else []
        _show(panel, shown.get(name), studio, boxes, (view.row, view.col))
    if beliefs:
        for part, belief in zip(
            parts[1].subfigures(2, 1), (beliefs["first"], beliefs["second"]), strict=True
        ):
            _belief(part, belief, studio)
    window = messages.window_of(machine, taken.alpha_bar)
    sees = "the whole image" if window is None else f"{window} × {window}"
    page.suptitle(
        f"{presets.short(view.machine)} on {studio.data.name}, seed {view.seed}: step {step + 1} of {len(flow.times)}, "
        f"t = {taken.time:.2f}, each pixel sees {sees}",
        fontsize=13,
        color=plots.INK,
        parse_math=False,
    )
    content = io.BytesIO()
    plots.render(page, content)
    return content.getvalue()


def _show(panel: Any, address: str | None, studio: Studio, boxes: list[list[int]], pixel: Any) -> None:
    from matplotlib.patches import Rectangle

    height, width = studio.shape[1:]
    panel.set_xticks([])
    panel.set_yticks([])
    panel.set_xlim(-0.5, width - 0.5)
    panel.set_ylim(height - 0.5, -0.5)
    panel.set_aspect("equal")
    for spine in panel.spines.values():
        spine.set(color="#d4d4d8", linewidth=0.8)
    if address is None:
        panel.text(0.5, 0.5, "not traced", ha="center", transform=panel.transAxes, color=plots.FAINT)
    else:
        panel.imshow(Image.open(io.BytesIO(messages.bytes_of(address))))
    for top, left, rows, columns in boxes:
        panel.add_patch(Rectangle((left - 0.5, top - 0.5), columns, rows, fill=False, ec=_MARK, lw=1.8))
    if pixel[0] is not None:
        panel.add_patch(Rectangle((pixel[1] - 0.5, pixel[0] - 0.5), 1, 1, fill=False, ec=_MARK, lw=1.2))


def _boxes(box: list[int], studio: Studio, wraps: bool) -> list[list[int]]:
    """A window, and where it goes on at the other side."""
    if not wraps:
        return [box]
    top, left, height, width = box
    rows, columns = studio.shape[1:]
    return [
        [down, across, tall, wide]
        for down, tall in _spans(top, height, rows)
        for across, wide in _spans(left, width, columns)
    ]


def _spans(start: int, length: int, size: int) -> list[tuple[int, int]]:
    """Where a window shows: all that there is, or from its start, shifted by the image's size where it goes beyond."""
    if length >= size:
        return [(0, size)]
    return [(start + by, length) for by in (0, size, -size) if -length < start + by < size]


def _belief(part: Any, belief: dict[str, Any], studio: Studio) -> None:
    panels = part.subplots(1, 8)
    for panel in panels:
        panel.axis("off")
    for panel, source in zip(panels, belief["sources"], strict=False):
        panel.axis("on")
        boxes = _boxes(source["box"], studio, belief["wraps"])
        _show(panel, source["picture"], studio, boxes, (source["row"], source["col"]))
        kind = f", {source['class']}" if source["class"] else ""
        label = f"{100 * source['weight']:.3g} %\nno. {source['image']}{kind}"
        panel.set_xlabel(label, fontsize=8.5, parse_math=False)
    part.suptitle(
        f"{belief['machine']} believes in {belief['effective']:.3g} of {belief['patches']:,} patches",
        fontsize=10.5,
        x=0.01,
        ha="left",
        color=plots.INK,
    )
