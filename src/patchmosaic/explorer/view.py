"""A view: everything that a link to the explorer holds."""

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from urllib.parse import urlencode

from patchmosaic.errors import InputError
from patchmosaic.presets import MACHINES
from patchmosaic.sampling import check_seeds

MAX_STEPS = 100


@dataclass(frozen=True)
class View:
    """What is drawn, and which step and pixel of it are looked at.

    Attributes:
        machine: a name in ``patchmosaic.presets.MACHINES``.
        locality: "auto", a name of published scales, or an odd window in words.
        padding: of "ls" alone, "zeros" or "circular".
        label: the class; None: every training image.
        seed: of the noise.
        steps: of the grid of times.
        start: a picture to begin with, as a PNG in URL-safe base64; empty: noise alone.
        level: the time t in (0, 1] to which that picture is noised.
        second: the machine whose belief is shown beside the first's; empty: IS, or beside IS another.
        step: from 0, most noise first; None: the last.
        row: of the pixel; None: no pixel.
        col: likewise.
    """

    machine: str = "bbels"
    locality: str = "auto"
    padding: str = "zeros"
    label: int | None = None
    seed: int = 0
    steps: int = 20
    start: str = ""
    level: float = 0.5
    second: str = ""
    step: int | None = None
    row: int | None = None
    col: int | None = None

    def __post_init__(self) -> None:
        for name in (self.machine, self.second or self.machine):
            if name not in MACHINES:
                raise InputError(f"machine must be one of {', '.join(MACHINES)}, not {name!r}")
        if self.padding not in ("zeros", "circular"):
            raise InputError(f"padding must be zeros or circular, not {self.padding!r}")
        if self.label is not None and not -(2**63) <= self.label < 2**63:
            raise InputError("label must be the number of a class, and that has no more than 18 digits")
        check_seeds([self.seed])
        if not 1 <= self.steps <= MAX_STEPS:
            raise InputError(f"steps must be 1 to {MAX_STEPS}, not {self.steps}")
        if not 0 < self.level <= 1:
            raise InputError(f"level must be a time above 0 and at most 1, not {self.level}")
        if (self.row is None) != (self.col is None):
            raise InputError("a pixel needs both a row and a col")

    @staticmethod
    def parse(query: Mapping[str, str]) -> "View":
        """From the query of a link; names it does not know, such as a tab, are the page's own.

        Raises:
            InputError: values that cannot be used.
        """
        kinds = {field.name: _KINDS.get(field.name, str) for field in fields(View)}
        values = {}
        for name, kind in kinds.items():
            text = query.get(name, "")
            if text == "":
                continue
            try:
                values[name] = kind(text)
            except (ValueError, OverflowError):
                raise InputError(f"{name} must be a number, not {text[:40]!r}") from None
        return View(**values)

    def query(self) -> str:
        """What differs from the defaults, as a query."""
        different = {
            field.name: getattr(self, field.name)
            for field in fields(View)
            if getattr(self, field.name) != field.default
        }
        return urlencode(different)

    @property
    def flow(self) -> "View":
        """What decides the pictures: without the step and the pixel that are looked at."""
        level = self.level if self.start else View.level
        padding = self.padding if self.machine == "ls" else View.padding
        return replace(self, padding=padding, level=level, second=View.second, step=None, row=None, col=None)


_KINDS = {"label": int, "seed": int, "steps": int, "step": int, "row": int, "col": int, "level": float}
