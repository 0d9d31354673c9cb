"""Curvature of real losses."""

from batchscaling.curvature.softmax import LocalQuadratic, SoftmaxRegression

__all__ = ["LocalQuadratic", "SoftmaxRegression"]
