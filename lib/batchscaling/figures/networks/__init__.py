"""Figures of the chapters on real networks, one module a chapter."""
