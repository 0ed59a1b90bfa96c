"""How fast the engines are, as ratios to other exact ways to the same answer, all timed in one run."""
