"""``patchmosaic explain``: where the pixels of a drawn picture come from, in pictures and one page."""

from patchmosaic.explanation.run import Run
from patchmosaic.explanation.subject import Subject, load_subject

__all__ = ["Run", "Subject", "load_subject"]
