"""What inconsistencies.py counts, and the table of it."""

import torch
from scipy.stats import binomtest
from torch import Tensor

from patchmosaic.explain import Norm, agreement, wilson
from patchmosaic.metrics import measure


def likeness(images: Tensor, training: Tensor) -> float:
    """Median over images of r with the training image that each is most like."""
    a, b = (part.flatten(1).double() for part in (images, training))
    a, b = (torch.nn.functional.normalize(part - part.mean(1, keepdim=True)) for part in (a, b))
    return float((a @ b.T).amax(1).median())


def results(norm: Norm, real: dict[str, Tensor], drawn: dict[str, Tensor]) -> dict:
    """Rates of one class, how each window changes the seeds, and the network beside theory."""
    flags = {name: norm.flags(images) for name, images in (real | drawn).items()}
    for found in flags.values():
        found["any"] = torch.stack(list(found.values())).any(0)
    wrong = {name: found["any"] for name, found in flags.items()}
    rates = {
        name: {kind: wilson(flagged)._asdict() for kind, flagged in found.items()}
        for name, found in flags.items()
    }
    published, *larger = (name for name in drawn if name != "network")
    changes = {}
    for name in larger:
        better, worse = (int((wrong[a] & ~wrong[b]).sum()) for a, b in ((published, name), (name, published)))
        p = binomtest(better, better + worse).pvalue if better + worse else 1.0
        changes[name] = {"mended": better, "spoiled": worse, "sign_test_p": float(p)}
    profiles = sorted("-".join(map(str, profile)) for profile in norm.profiles)
    normal = {"parts": sorted(norm.parts), "holes": sorted(norm.holes), "runs": profiles}
    likenesses = {name: likeness(images, real["training"]) for name, images in (real | drawn).items()}
    record = {
        "threshold": norm.threshold,
        "normal": normal,
        "likeness": likenesses,
        "rates": rates,
        "changes": changes,
    }
    if "network" in drawn:
        record["network"] = {
            "agreement": {
                kind: agreement(flagged, flags[published][kind])._asdict()
                for kind, flagged in flags["network"].items()
            },
            "median_r": float(measure(drawn["network"], drawn[published])["r"].median()),
        }
    return record


def table(name: str, record: dict) -> str:
    """The rates in percent, with the interval of any wrong count."""
    kinds = ("any", "runs", "parts", "holes")
    lines = [
        f"| {name} | {' | '.join(kinds)} | 95 % of any | mended, spoiled, p | likeness |",
        "|---" * 8 + "|",
    ]
    for images, rates in record["rates"].items():
        change = record["changes"].get(images)
        cells = [f"{100 * rates[kind]['rate']:.1f}" for kind in kinds]
        cells.append(f"{100 * rates['any']['low']:.1f} to {100 * rates['any']['high']:.1f}")
        cells.append("{mended}, {spoiled}, {sign_test_p:.2g}".format(**change) if change else "")
        cells.append(f"{record['likeness'][images]:.2f}")
        lines.append(f"| {images} | {' | '.join(cells)} |")
    return "\n".join(lines)
