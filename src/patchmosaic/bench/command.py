"""``patchmosaic bench``."""

import argparse
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import fields
from pathlib import Path
from typing import Any

from patchmosaic.options import Parser, describe

_DESCRIPTION = """\
Measure how fast the engines are, beside other exact ways to the same answer: the published algorithm, the same
made lean, unfold and matrix product, torch's fused attention, KeOps. All are timed in one run, in turn within
every repeat, so what counts are the ratios. Each answer is compared with the dense engine in float64.

With --out the folder holds bench.json (everything), bench.csv, bench.md and bench.png."""

_EXAMPLES = """\
examples:
  patchmosaic bench --quick
      a look, in about a minute
  patchmosaic bench --data mnist-train.parquet cifar10-train.parquet --slopes --memory --out runs/bench
      everything; Ctrl-C keeps finished cells, the same command with --resume goes on

docs/benchmarks.md says what each column means."""

_QUICK: dict[str, Any] = {"count": 128, "windows": (3, 9), "levels": (0.5,), "repeats": 3, "budget": 1.0}


def add_options(command: Parser) -> None:
    """The options of ``bench``."""
    describe(command, _bench, _DESCRIPTION, _EXAMPLES)
    from patchmosaic.bench.contestants import NAMES
    from patchmosaic.bench.problem import RULES

    what = command.add_argument_group("what is measured")
    what.add_argument(
        "--quick", action="store_true", help="fewer cells, images and repeats where not given otherwise"
    )
    what.add_argument("--data", nargs="+", metavar="SOURCE", help="as for generate (default: digits)")
    what.add_argument("--size", type=int, metavar="PIXELS", help="resize to PIXELS x PIXELS (default: 32)")
    what.add_argument("--count", type=int, metavar="N", help="training images of each (default: 500)")
    what.add_argument("--machines", nargs="+", metavar="NAME", help=f"of {', '.join(RULES)} (default: all)")
    what.add_argument("--windows", nargs="+", type=int, metavar="P", help="odd (default: 3 5 9 17)")
    what.add_argument(
        "--levels",
        nargs="+",
        type=float,
        metavar="T",
        help="times of the cosine schedule (default: .05 .5 .95)",
    )
    what.add_argument(
        "--contestants", nargs="+", metavar="NAME", help=f"of {', '.join(NAMES)} (default: all)"
    )
    what.add_argument("--seed", type=int, metavar="S", help="of the noise (default: 0)")
    what.add_argument(
        "--slopes",
        action="store_true",
        help="also how the box engine's time grows with images, window, size, batch",
    )
    what.add_argument(
        "--memory", action="store_true", help="also peak memory, each in a process of its own: slow"
    )

    how = command.add_argument_group("work and output")
    how.add_argument("--repeats", type=int, metavar="N", help="timings of each contestant (default: 5)")
    how.add_argument(
        "--budget",
        type=float,
        metavar="SECONDS",
        help="timed work for each contestant in a cell; the slow ones get fewer images (default: 5)",
    )
    how.add_argument("--threads", type=int, metavar="N", help="default: as many as torch uses")
    how.add_argument("--out", type=Path, metavar="FOLDER", help="default: the table on the terminal only")
    found = how.add_mutually_exclusive_group()
    found.add_argument("--resume", action="store_true", help="finish an interrupted benchmark")
    found.add_argument("--overwrite", action="store_true", help="measure anew over what the folder holds")


def _bench(args: argparse.Namespace) -> None:
    from patchmosaic.bench import report
    from patchmosaic.bench.plan import origin
    from patchmosaic.bench.store import Store

    plan = _plan(args)
    data = {source: plan.load(source) for source in plan.data}
    store = Store(args.out, origin(plan, data))
    if not store.open(args.resume, args.overwrite):
        with _threads(plan.threads):
            _measure(plan, data, store)
        written = store.finish()
    else:
        written = [args.out / "bench.json"]
    print(report.table(store.record))
    if args.out is not None:
        print(f"written: {', '.join(map(str, written))}")


def _plan(args: argparse.Namespace) -> Any:
    import torch

    from patchmosaic.bench.plan import Plan

    given = {field.name: getattr(args, field.name) for field in fields(Plan)}
    chosen = {
        name: tuple(value) if isinstance(value, list) else value
        for name, value in given.items()
        if value is not None
    }
    return Plan(**{"threads": torch.get_num_threads(), **(_QUICK if args.quick else {}), **chosen})


def _measure(plan: Any, data: dict[str, Any], store: Any) -> None:
    from tqdm import tqdm

    from patchmosaic.bench.plan import peak_rates, run_cell
    from patchmosaic.bench.slopes import measure_slopes

    cells = list(plan.cells())
    with tqdm(total=len(cells) + plan.slopes, unit="cell", desc="measuring", disable=None) as bar:

        def say(text: str) -> None:
            bar.set_postfix_str(text)

        if store.record["peaks"] is None:
            say("peaks")
            store.record["peaks"] = peak_rates()
            store.save()
        if plan.slopes:
            if store.record["slopes"] is None:
                store.record["slopes"] = measure_slopes(plan, say)
                store.save()
            bar.update()
        for cell in cells:
            if not store.has(cell):
                store.record["cells"].append(run_cell(cell, data[cell.data], plan, say))
                store.save()
            bar.update()


@contextmanager
def _threads(count: int) -> Iterator[None]:
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
