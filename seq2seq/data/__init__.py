"""Parallel text: reading it, cutting it into pieces, keeping it on disk, and batching it."""
