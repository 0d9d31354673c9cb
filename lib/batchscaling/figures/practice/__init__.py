"""Figures of the chapters on your own network, one module a chapter."""
