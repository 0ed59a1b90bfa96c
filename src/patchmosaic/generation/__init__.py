"""Recorded pictures from a machine."""
