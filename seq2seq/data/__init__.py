"""Parallel text: reading it, cutting it into pieces, keeping it on disk, and packing it into batches."""
