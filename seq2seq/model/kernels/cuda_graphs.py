"""CUDA graphs: the kernels of a function are captured once, then launched together."""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable
from functools import cache

import torch
from torch import Tensor


@cache
def _side_stream(device: torch.device) -> torch.cuda.Stream:
    """The stream to capture all graphs on; there is only one, because matrix products keep a workspace per stream."""
    return torch.cuda.Stream(device)


class Graphs:
    """CUDA graphs of functions, by key, and the places of the tensors that they read and write.

    The graphs share memory for temporary tensors, so only one may run at a time.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self._graphs: dict[Hashable, torch.cuda.CUDAGraph] = {}
        self._places: dict[str, Tensor] = {}

    def __len__(self) -> int:
        return len(self._graphs)

    def run(self, key: Hashable, function: Callable[[], None]) -> None:
        """Execute ``function`` once: the first time by calling it, later by the graph called ``key``.

        The first time also captures the graph: Python runs ``function`` again, but the device does nothing. On the CPU
        there are no graphs, and ``function`` is called each time. ``function`` must read nothing back, and keep all its
        inputs and outputs in tensors with fixed addresses.
        """
        if key in self._graphs:
            self._graphs[key].replay()
        elif self.device.type == "cuda":
            self._graphs[key] = self._capture(function)
        else:
            function()

    def place(self, name: str, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
        """A tensor of zeros in the memory called ``name``; zeros, because masked numbers must be finite."""
        size = math.prod(shape)
        if name not in self._places or self._places[name].numel() < size:
            self.forget()  # the graphs use the old place
            self._places[name] = torch.empty(size, dtype=dtype, device=self.device)
        return self._places[name][:size].view(shape).zero_()

    def forget(self) -> None:
        """Free all graphs."""
        if self._graphs:
            torch.cuda.synchronize(self.device)  # one may be running
        self._graphs = {}

    def _capture(self, function: Callable[[], None]) -> torch.cuda.CUDAGraph:
        """Execute ``function`` and capture it as a graph."""
        current, side = torch.cuda.current_stream(self.device), _side_stream(self.device)
        side.wait_stream(current)
        with torch.cuda.stream(side):
            function()  # it also loads kernels and reserves workspaces, which cannot be captured
        current.wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        pool = next((other.pool() for other in self._graphs.values()), None)  # a pool lives as long as its graphs
        # Other threads may use the device during the capture, for example the one that loads training batches.
        with torch.cuda.graph(graph, pool=pool, stream=side, capture_error_mode="thread_local"):
            function()
        return graph
