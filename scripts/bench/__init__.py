"""The parts of ``scripts/benchmark.py``: every measured program runs in a process of its own, one job of one module."""
