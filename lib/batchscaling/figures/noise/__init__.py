"""Figures of the chapters on the noise of SGD, one module a chapter."""
