"""Pictures of inconsistencies.py: rates over windows, and samples with what is wrong in them marked."""

from pathlib import Path

import torch
from skimage.measure import label
from torch import Tensor

from patchmosaic import plots, viz
from patchmosaic.explain import Norm, count_structures, silhouettes

COUNT = 16
ROWS = ((0.75, 0.75, 0.75), (0.35, 0.6, 0.9), (0.95, 0.65, 0.2), (0.85, 0.2, 0.2))  # of 1, 2, 3, more runs
LOOSE, HOLE = (0.3, 0.75, 0.4), (0.6, 0.35, 0.8)
LEGEND = (
    "Marked where wrong: rows with 1 run grey, 2 blue, 3 orange, more red; loose parts green; holes violet."
)


def marked(images: Tensor, norm: Norm) -> Tensor:
    """Silhouettes (B, 3, H, W) in [-1, 1], white, with what the norm flags in colour."""
    found, flags = count_structures(images, norm.threshold, norm.speck), norm.flags(images)
    masks = silhouettes(images, norm.threshold, norm.speck)
    pages = masks.double()[..., None].repeat(1, 1, 1, 3)
    for i, (mask, page) in enumerate(zip(masks, pages, strict=True)):
        if flags["runs"][i]:
            colours = torch.tensor(ROWS, dtype=page.dtype)[(found.runs[i] - 1).clamp(0, len(ROWS) - 1)]
            page[mask] = colours[:, None].expand_as(page)[mask]
        if flags["parts"][i]:
            parts = torch.from_numpy(label(mask.numpy(), connectivity=2))
            page[mask & (parts != parts[mask].mode().values)] = torch.tensor(LOOSE, dtype=page.dtype)
        if flags["holes"][i]:
            outside = torch.from_numpy(
                label(torch.nn.functional.pad(~mask, (1, 1, 1, 1), value=True).numpy(), connectivity=1)
            )
            page[~mask & (outside[1:-1, 1:-1] != 1)] = torch.tensor(HOLE, dtype=page.dtype)
    return pages.permute(0, 3, 1, 2) * 2 - 1


def _captions(images: Tensor, norm: Norm, chosen: list[int], first_seed: int) -> list[list[str]]:
    found = count_structures(images, norm.threshold, norm.speck)
    return [
        [
            f"seed {first_seed + i}: runs " + "-".join(map(str, found.profiles[i])),
            f"parts {found.parts[i]}, holes {found.holes[i]}",
        ]
        for i in chosen
    ]


def _worst(images: Tensor, norm: Norm) -> list[int]:
    """Wrong samples, in most counts first; among equals the longest sequence of runs."""
    wrong = torch.stack(list(norm.flags(images).values())).sum(0).tolist()
    profiles = count_structures(images, norm.threshold, norm.speck).profiles
    order = sorted(range(len(images)), key=lambda i: (-wrong[i], -len(profiles[i]), i))
    return [i for i in order if wrong[i]][:COUNT]


def worst(drawn: dict[str, Tensor], norm: Norm, name: str, first_seed: int, path: Path) -> None:
    """The worst samples at the published windows beside their silhouettes."""
    images = next(iter(drawn.values()))
    chosen = _worst(images, norm)
    if not chosen:
        return
    title = f"{name}: the {len(chosen)} worst of {len(images)} samples at the published windows"
    captions = _captions(images, norm, chosen, first_seed)
    viz.save_png(viz.pairs(images[chosen], marked(images[chosen], norm), captions, title, LEGEND), path)


def mended(drawn: dict[str, Tensor], norm: Norm, name: str, first_seed: int, path: Path) -> None:
    """The same seeds at the published and at the largest windows, told by the counts at the largest."""
    windows = [window for window in drawn if window != "network"]
    before, after = drawn[windows[0]], drawn[windows[-1]]
    chosen = _worst(before, norm)
    if not chosen:
        return
    title = f"{name}: the same seeds at the published windows, and at none smaller than {windows[-1]}"
    captions = _captions(after, norm, chosen, first_seed)
    viz.save_png(
        viz.pairs(before[chosen], after[chosen], captions, title, "Counts are those of the right picture."),
        path,
    )


def curves(record: dict, path: Path) -> None:
    """The rate of wrong samples over the least window, with 95 % intervals, a panel for each class."""
    page, panels = plots.figure(1, len(record), 4.6 * len(record), 4.0, sharey=True)
    for panel, (name, found) in zip(panels[0], record.items(), strict=True):
        windows = sorted((name for name in found["rates"] if name.isdigit()), key=int)
        places = [int(window) for window in windows]
        for k, kind in enumerate(("any", "runs", "parts", "holes")):
            rates = [found["rates"][window][kind] for window in windows]
            values = [rate["rate"] for rate in rates]
            style = {"color": plots.COLOURS[k], "label": kind, "marker": "o", "zorder": 9 - k}
            if k:
                panel.plot(places, values, linewidth=1, markersize=3, **style)
            else:
                bars = [[rate["rate"] - rate["low"], rate["high"] - rate["rate"]] for rate in rates]
                panel.errorbar(places, values, list(zip(*bars, strict=True)), capsize=3, **style)
        panel.axhline(
            found["rates"]["held out"]["any"]["rate"],
            color=plots.FAINT,
            linestyle=":",
            label="any, held-out images",
        )
        panel.set_title(f"{name}, {rates[0]['total']} seeds", loc="left", color=plots.INK)
        panel.set_xlabel("least window m, P = max(published, m)")
        panel.set_xticks(places)
        panel.set_ylim(0, 1)
        panel.grid(axis="y", color="#e4e4e8", linewidth=0.6)
        panel.spines[["top", "right"]].set_visible(False)
    panels[0, 0].set_ylabel("share of samples with a wrong count")
    *lines, main = zip(*panel.get_legend_handles_labels(), strict=True)  # error bars come last
    page.legend(*zip(main, *lines, strict=True), loc="outside lower center", ncols=5, frameon=False)
    plots.save(page, path)
