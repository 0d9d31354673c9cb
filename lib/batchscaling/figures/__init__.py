"""Figures: one style, one look for each optimizer, one function a figure."""

from batchscaling.figures.style import look, use_style

__all__ = ["look", "use_style"]
