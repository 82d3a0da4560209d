"""Kernels for speed: faster ways to compute the same results."""
