"""Figures of the chapters on the noisy quadratic model, one module a chapter."""
