"""Copies, partial copies and mosaics of training images among generated pictures."""

from patchmosaic.auditing.audit import audit
from patchmosaic.auditing.fragments import Fragment
from patchmosaic.auditing.verdict import Report

__all__ = ["Fragment", "Report", "audit"]
