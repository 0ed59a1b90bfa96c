"""The rules: what is called a copy, and what a partial copy."""

from collections.abc import Sequence
from dataclasses import dataclass

from patchmosaic.auditing.fragments import Fragment
from patchmosaic.auditing.search import Finding

COPY = 2 / 3  # share of the texture in one fragment from which it is a copy
FALSE_ALARMS = 0.01  # share of real pictures that may be called partial copies
CONFIDENCE = 0.95
_LEAST = 0.25  # share of the picture that its texture counts as, at least
VERDICTS = ("copy", "partial copy", "mosaic")


@dataclass(frozen=True)
class Threshold:
    """The score above which a picture is a partial copy.

    Attributes:
        score: at most 1 % of real pictures have a larger one.
        confidence: with which that can be said.
        pictures: held-out real pictures it was found from.
        duplicates: held-out pictures left aside because they are copies themselves.
    """

    score: float
    confidence: float
    pictures: int
    duplicates: int


@dataclass(frozen=True, eq=False)
class Report:
    """What of a picture is copied from the training images.

    Attributes:
        verdict: "copy", "partial copy" or "mosaic" (no part larger than real pictures share by chance).
        score: share of the texture, its own or its source's, that its largest fragment holds, in [0, 1].
        fragments: disjoint parts copied from one place each, the largest first.
        textured: pixels in windows that are not flat, in the picture or in the source of its largest fragment,
            whichever are more.
        shares: for each size of windows, the share of the textured ones that is copied whole from one place.
    """

    verdict: str
    score: float
    fragments: list[Fragment]
    textured: int
    shares: dict[int, float]

    @property
    def sources(self) -> int:
        """How many training images the fragments come from."""
        return len({fragment.image for fragment in self.fragments})


def score(finding: Finding, pixels: int) -> float:
    """Share of the texture in the largest fragment.

    Args:
        finding: of a picture.
        pixels: of it; where less than a quarter of them is textured, a quarter counts.
    """
    largest = finding.fragments[0].area if finding.fragments else 0
    return largest / max(finding.textured, _LEAST * pixels)


def threshold(scores: Sequence[float]) -> Threshold:
    """From held-out real pictures, the score that at most 1 % of real pictures exceed, with 95 % confidence.

    That is the k-th largest score for the largest k with P(fewer than k of n exceed) <= 5 % if 1 % did; the largest of
    all if there are fewer than 299, with less confidence.

    Args:
        scores: one at least; those of copies are left aside.
    """
    from scipy.stats import binom

    kept = sorted((one for one in scores if one < COPY), reverse=True)
    count = len(kept)
    k = max(1, int(binom.ppf(1 - CONFIDENCE, count, FALSE_ALARMS)))
    limit = kept[k - 1] if kept else 0.0
    return Threshold(limit, float(binom.sf(k - 1, count, FALSE_ALARMS)), count, len(scores) - count)


def judge(finding: Finding, pixels: int, limit: Threshold) -> Report:
    """The report on a picture of so many pixels."""
    found = score(finding, pixels)
    verdict = "copy" if found >= COPY else "partial copy" if found > limit.score else "mosaic"
    return Report(verdict, found, finding.fragments, finding.textured, finding.shares)
