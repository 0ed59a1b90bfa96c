"""``report.html``: the whole comparison in one file that fetches nothing."""

from html import escape
from typing import Any

from patchmosaic.comparison.compare import Comparison, percent
from patchmosaic.comparison.pictures import describe_shown, shown, stacked
from patchmosaic.comparison.run import Run
from patchmosaic.comparison.scatter import scatters
from patchmosaic.html import document, listed, pixels, png, row, settings, table, uri
from patchmosaic.presets import LONG_NAMES, short

_STYLE = """\
.best td { font-weight: 650; }
.gallery { grid-template-columns: repeat(auto-fill, minmax(80px, 1fr)); gap: 18px 10px; }
figure img + img { margin-top: 4px; } .panels img { width: 380px; max-width: 100%; height: auto; }
.wide :is(th, td) { padding-block: .2em; } .wide .pixels { width: 36px; margin-left: auto; }
@media (max-width: 560px) { .summary :is(th, td):nth-child(4) { display: none; } }
"""


def report(run: Run, result: Comparison) -> str:
    """The page."""
    parts = (
        _headline(run, result),
        _summary(result),
        _gallery(run, result),
        _panels(result),
        _per_seed(run, result),
        _settings(run),
    )
    return document(f"Network and theory on {run.data.name}", _STYLE, "".join(parts))


def _headline(run: Run, result: Comparison) -> str:
    found = result.summary()
    said = [f"{short(name)}&nbsp;{found['machines'][name]['r']['median']:.2f}" for name in found["machines"]]
    network, theory = map(escape, run.names)
    return (
        f"<h1>The same noise, to {network} and to {theory}</h1>\n"
        f"<p>{found['seeds']} seeds. Median correlation r of a closed-form machine's picture with the network's: "
        f"<strong>{', '.join(said)}</strong> (network in {found['network_steps']} steps, "
        f"theory in {found['theory_steps']}).</p>\n"
    )


def _summary(result: Comparison) -> str:
    found = result.summary()
    tables = "".join(_table(one) for one in (found, *found["also"]))
    named = "; ".join(f"{short(name)}: {LONG_NAMES[name].lower()}" for name in found["machines"])
    return (
        f'<h2>How well theory predicts the network</h2>\n<div class="side">{tables}</div>\n'
        '<p class="faint">Over the seeds. r: Pearson correlation over all pixels and channels of a picture, r² '
        "its square; R² = 1 − SS<sub>res</sub>/SS<sub>tot</sub> with the network's picture as reference. Beats IS: "
        f"share of seeds with a larger r than the ideal machine's. {escape(named)}.</p>\n"
    )


def _table(found: dict[str, Any]) -> str:
    """A line for each machine, the best median r in bold."""
    machines = found["machines"]
    best = max(machines, key=lambda name: machines[name]["r"]["median"])
    lines = [
        row(
            short(name),
            f"{of['r']['median']:.3f}",
            f"{of['r']['mean']:.3f}",
            f"{of['r']['quantiles']['0.05']:.2f} to {of['r']['quantiles']['0.95']:.2f}",
            f"{of['r2']['median']:.3f}",
            f"{of['R2']['median']:.3f}",
            percent(of["beats_is"]),
            kind="best" if name == best else "",
        )
        for name, of in machines.items()
    ]
    heads = ("", "r median", "mean", "5–95 %", "r² median", "R² median", "beats IS")
    return table(heads, lines, f"Network in {found['network_steps']} steps", kind="summary")


def _gallery(run: Run, result: Comparison) -> str:
    rows = stacked(result)
    order = ", ".join(name for name, _, _ in rows)
    figures = []
    for i in shown(result):
        pictures = "".join(
            pixels(images[i], f"{name}, seed {run.settings.seeds[i]}") for name, images, _ in rows
        )
        scores = "<br>".join(f"{name} r {float(r[i]):.2f}" for name, _, r in rows if r is not None)
        caption = f"<span>{escape(', '.join(run.caption(i)))}</span><br>{scores}"
        figures.append(f"<figure>{pictures}<figcaption>{caption}</figcaption></figure>")
    return (
        f"<h2>What they draw</h2>\n<p>From top to bottom: {order}, all from the same noise. "
        f'<span class="faint">Shown: {describe_shown(result)}.</span></p>\n'
        f'<div class="gallery">{"".join(figures)}</div>\n'
    )


def _panels(result: Comparison) -> str:
    panels = scatters(result)
    if not panels:
        return ""
    pictures = "".join(
        f'<img alt="r of {short(name)} against r of IS" src="{uri(png(panel))}">'
        for name, panel in panels.items()
    )
    return (
        "<h2>Seed by seed against the ideal machine</h2>\n<p>Each dot is one seed: above the diagonal, "
        f"the machine predicts the network's picture better than IS does.</p>\n"
        f'<div class="side panels">{pictures}</div>\n'
    )


def _per_seed(run: Run, result: Comparison) -> str:
    found = result.metrics[result.main]
    lines = []
    for i, seed in enumerate(run.settings.seeds):
        network = pixels(result.network[result.main][i], f"Network, seed {seed}")
        scores = (
            f"{pixels(result.machines[machine][i], f'{short(machine)}, seed {seed}')}</td>"
            f"<td>{float(metrics['r'][i]):.3f}</td><td>{float(metrics['R2'][i]):.3f}"
            for machine, metrics in found.items()
        )
        lines.append(row(escape(", ".join(run.caption(i))), network, *scores))
    heads = (f"{short(machine)}</th><th>r</th><th>R²" for machine in found)
    return (
        f'<h2>Every seed</h2>\n<p class="faint">Network in {result.main} steps. per_seed.csv holds every measure.'
        f'</p>\n<div class="wide">{table(("", "network", *heads), lines)}</div>\n'
    )


def _settings(run: Run) -> str:
    record = run.files.record
    config = dict(record["config"])
    seeds = config.pop("seeds")
    items = list(config.items())
    items.append(("seeds", f"{len(seeds)}, from {min(seeds)} to {max(seeds)}"))
    for name, locality in record["locality"].items():
        if locality["windows"] is not None:
            items.append(
                (f"windows of {short(name)}", f"{listed(locality['windows'])} ({locality['source']})")
            )
    items += [(f"{name}'s SHA-256", record[name]["fingerprint"]) for name in ("network", "data")]
    return settings([*items, *record["versions"].items()])
