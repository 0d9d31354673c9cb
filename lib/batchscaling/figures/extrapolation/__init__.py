"""Figures of the chapters on extrapolation, one module a chapter."""
