"""The rows of the paper's table: train, calibrate, compare, and our figures beside the paper's."""

from patchmosaic.reproduction.rows import BUDGETS, ROWS, Budget, Row

__all__ = ["BUDGETS", "ROWS", "Budget", "Row"]
