"""The pictures of an explanation."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Shaped, UInt8
from torch import Tensor

from patchmosaic import plots
from patchmosaic.explain import Mosaic
from patchmosaic.explain.consistency import ONE_LEVEL
from patchmosaic.explanation.run import Explanation, TracedStep
from patchmosaic.explanation.subject import Subject
from patchmosaic.presets import short
from patchmosaic.symmetry import transform
from patchmosaic.viz import spotlight, to_pil
from patchmosaic.words import counted

NAMED = 8  # sources with a colour of their own
COLOURS = ("#0b3c7d", "#c8553d", "#e0a458", "#3f8f5b", "#8d5aa8", "#4da3d1", "#b0467e", "#7a6a4f")
OTHERS, _NOBODY = "#c3c9d4", "#ffffff"
_BORDER, _WRONG = "#ff5a36", "#e0312f"
_SHOWN = 8  # steps


def mosaics(subject: Subject, explanation: Explanation) -> Any:
    """For each picture: its fragments, where they come from, and the sources with the used parts lit."""
    lines = len(explanation.images)
    page = plots.empty_page(15, 4.7 * lines + 0.5)
    parts = np.atleast_1d(page.subfigures(lines, 1))
    for part, (name, found) in zip(parts, explanation.mosaics.items(), strict=True):
        _mosaic(part, subject, name, explanation.images[name][0], found)
    page.suptitle(
        f"Where each pixel comes from: its nearest training patch, {_window(explanation.steps[-1])}, "
        f"in {subject.data.name} ({subject.caption})",
        fontsize=15,
        color=plots.INK,
    )
    return page


def _mosaic(part: Any, subject: Subject, name: str, image: Float[Tensor, "c h w"], found: Mosaic) -> None:
    left, middle, right = part.subfigures(1, 3, width_ratios=(1, 1, 1.75))
    panel = left.subplots()
    _show(panel, image)
    _draw_borders(panel, found.number)
    panel.set_title(
        f"{short(name)}: {counted(len(found.fragments), 'fragment')}", fontsize=12, color=plots.INK
    )
    panel.set_xlabel("lines: borders between fragments", fontsize=10, color=plots.FAINT)
    panel = middle.subplots()
    panel.imshow(source_map(found, found))
    _frame(panel)
    panel.set_title(f"from {counted(len(found.sources()), 'training image')}", fontsize=12, color=plots.INK)
    unclear = int((found.number < 0).sum())
    others = len(found.sources()) - NAMED
    remarks = [f"grey: {counted(others, 'other image')}"] if others > 0 else []
    remarks += [f"white: {counted(unclear, 'pixel')} that several patches fit"] if unclear else []
    panel.set_xlabel("\n".join(remarks), fontsize=10, color=plots.FAINT)
    _draw_sources(right, subject, found)


def _draw_sources(part: Any, subject: Subject, found: Mosaic) -> None:
    """The training images that most pixels come from: what was used outlined, the rest pale."""
    panels = part.subplots(2, NAMED // 2, squeeze=False).flatten()
    for panel in panels:
        panel.axis("off")
    height, width = found.number.shape
    for panel, colour, (image, size) in zip(panels, COLOURS, found.sources(), strict=False):
        panel.axis("on")
        elements = [part.element for part in found.fragments if part.image == image]
        pixels = subject.machine.dictionary.images(torch.tensor([image]), torch.float32)[0].cpu()
        source = transform(pixels, subject.machine.dictionary.group[elements[0]])
        lit = used(found, image, elements[0])
        _show(panel, spotlight(source, lit))
        _draw_borders(panel, lit)
        _frame(panel, colour, 3.5)
        kind = (
            ""
            if subject.data.labels is None
            else _class(subject.data.class_names[int(subject.data.labels[image])])
        )
        panel.set_title(f"no. {int(subject.data.indices[image]):,}{kind}", fontsize=10, color=plots.INK)
        panel.set_xlabel(f"{size} of {height * width} px", fontsize=10, color=plots.FAINT)


def used(found: Mosaic, image: int, element: int) -> Bool[Tensor, "h w"]:
    """The pixels of a training image that a mosaic shows."""
    lit = torch.zeros_like(found.number, dtype=torch.bool)
    height, width = lit.shape
    for n, part in enumerate(found.fragments):
        if (part.image, part.element) == (image, element):
            rows, columns = (found.number == n).nonzero(as_tuple=True)
            lit[(rows + part.down) % height, (columns + part.right) % width] = True
    return lit


def source_map(found: Mosaic, named: Mosaic) -> UInt8[np.ndarray, "h w 3"]:
    """Every pixel in the colour of its training image; colours belong to the main sources of ``named``."""
    colour_of = {image: rgb(colour) for (image, _), colour in zip(named.sources(), COLOURS, strict=False)}
    colours = [rgb(_NOBODY)] + [colour_of.get(part.image, rgb(OTHERS)) for part in found.fragments]
    return np.array(colours, np.uint8)[found.number.numpy() + 1]


def steps(subject: Subject, explanation: Explanation) -> Any:
    """The flow from noise to picture: states, predictions, sources, and how many patches a pixel believes in."""
    from matplotlib.colors import LogNorm

    from patchmosaic.explain import mosaic

    last = len(explanation.steps) - 1
    chosen = [explanation.steps[i] for i in sorted({round(k * last / (_SHOWN - 1)) for k in range(_SHOWN)})]
    page, panels = plots.figure(4, len(chosen), 1.5 * len(chosen) + 1.9, 7.1)
    named = explanation.mosaics[subject.name]
    most = max(2, *(step.patches for step in explanation.steps))
    for column, step in zip(panels.T, chosen, strict=True):
        _show(column[0], step.state[0])
        _show(column[1], step.prediction[0])
        column[2].imshow(source_map(mosaic(step.found), named))
        _frame(column[2])
        shades = column[3].imshow(step.found.effective[0].numpy(), cmap="viridis_r", norm=LogNorm(1, most))
        _frame(column[3])
        column[0].set_title(f"t = {step.time:.2f}\n{_window(step)}", fontsize=10, color=plots.INK)
    rows = (
        "noisy picture",
        "clean prediction",
        "main sources\n(white: no majority)",
        "patches believed\n(effective)",
    )
    for panel, text in zip(panels[:, 0], rows, strict=True):
        panel.set_ylabel(text, fontsize=10, color=plots.INK)
    page.colorbar(shades, ax=panels[3, :], location="bottom", aspect=60, shrink=0.7).ax.tick_params(
        labelsize=9
    )
    page.suptitle(
        f"From noise to picture: {short(subject.name)}, {subject.caption}", fontsize=14, color=plots.INK
    )
    return page


def belief(subject: Subject, explanation: Explanation) -> Any:
    """Effective number of patches against time, of pixels with one source in the end and of those with several."""
    page, panels = plots.figure(1, 1, 7.6, 4.6)
    panel, times = panels[0, 0], [step.time for step in explanation.steps]
    effective = torch.stack([step.found.effective[0] for step in explanation.steps])
    patches = [step.patches for step in explanation.steps]
    panel.plot(times, patches, "--", color=plots.FAINT, label="all that may stand in")
    several = explanation.mosaics[subject.name].number < 0
    for which, colour, label in (
        (several, plots.COLOURS[3], "pixels that several patches fit in the end"),
        (~several, plots.COLOURS[0], "pixels with one source in the end"),
    ):
        if bool(which.any()):
            low, middle, high = (effective[:, which].quantile(q, 1) for q in (0.25, 0.5, 0.75))
            panel.fill_between(times, low, high, color=colour, alpha=0.18, linewidth=0)
            panel.plot(times, middle, color=colour, linewidth=2, marker="o", markersize=4, label=label)
    panel.set_yscale("log")
    panel.set_ylim(0.8)
    panel.invert_xaxis()
    panel.set_xlabel("time t: from noise (left) to picture (right)", fontsize=10)
    panel.set_ylabel("effective number of patches (shaded: half of the pixels)", fontsize=10)
    panel.legend(frameon=False, fontsize=10, loc="lower left")
    plots.tidy(panel, "y")
    title = f"How many patches a pixel believes in: {short(subject.name)}, {subject.caption}"
    panel.set_title(title, loc="left", fontsize=12, color=plots.INK)
    return page


def consistency(subject: Subject, explanation: Explanation) -> Any:
    """The pixels that are not the centre of their nearest training patch (fig. 3c)."""
    page, panels = plots.figure(
        1, len(explanation.images), max(6.2, 4.2 * len(explanation.images) + 0.6), 5.2
    )
    for panel, (name, image) in zip(panels[0], explanation.images.items(), strict=True):
        found = explanation.consistency[name]
        _show(panel, image[0])
        _outline(panel, ~found.consistent[0], _WRONG)
        panel.set_title(
            f"{short(name)}: {100 * float(found.share[0]):.1f} % consistent", fontsize=12, color=plots.INK
        )
    step = explanation.steps[-1]
    page.suptitle(
        f"Red: not the centre of its nearest training patch ({_window(step)})\n"
        f"to within {ONE_LEVEL * 127.5:.0f} grey level of 255; {subject.caption}",
        fontsize=11,
        color=plots.INK,
    )
    return page


def _show(panel: Any, image: Float[Tensor, "c h w"]) -> None:
    panel.imshow(to_pil(image))
    _frame(panel)


def _frame(panel: Any, colour: str = "#d4d4d8", width: float = 0.8) -> None:
    panel.set_xticks([])
    panel.set_yticks([])
    for spine in panel.spines.values():
        spine.set(color=colour, linewidth=width)


def _draw_borders(panel: Any, what: Shaped[Tensor, "h w"]) -> None:
    """Lines between pixels of different fragments, or of what is used and what is not."""
    down = (what[1:] != what[:-1]).nonzero().tolist()
    across = (what[:, 1:] != what[:, :-1]).nonzero().tolist()
    lines = [[(x - 0.5, y + 0.5), (x + 0.5, y + 0.5)] for y, x in down]
    lines += [[(x + 0.5, y - 0.5), (x + 0.5, y + 0.5)] for y, x in across]
    _add_lines(panel, lines, _BORDER, min(1.6, 26 / max(what.shape)))


def _outline(panel: Any, marked: Bool[Tensor, "h w"], colour: str) -> None:
    """A square around each marked pixel."""
    corners = ((-0.45, -0.45), (0.45, -0.45), (0.45, 0.45), (-0.45, 0.45), (-0.45, -0.45))
    squares = [[(x + dx, y + dy) for dx, dy in corners] for y, x in marked.nonzero().tolist()]
    _add_lines(panel, squares, colour, min(1.6, 32 / max(marked.shape)))


def _add_lines(panel: Any, lines: Sequence[Sequence[tuple[float, float]]], colour: str, width: float) -> None:
    from matplotlib.collections import LineCollection

    panel.add_collection(LineCollection(lines, colors=colour, linewidths=width, capstyle="projecting"))


def rgb(colour: str) -> tuple[int, ...]:
    """Of a colour such as #0b3c7d."""
    return tuple(int(colour[i : i + 2], 16) for i in (1, 3, 5))


def _window(step: TracedStep) -> str:
    return "whole image" if step.window is None else f"{step.window} x {step.window}"


def _class(name: str) -> str:
    return f", class {name}" if name.isdigit() else f", {name}"
