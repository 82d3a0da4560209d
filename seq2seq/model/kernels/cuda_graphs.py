"""CUDA graphs: the kernels of a function, captured once and launched all at once from then on."""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable
from functools import cache

import torch
from torch import Tensor


@cache
def _side_stream(device: torch.device) -> torch.cuda.Stream:
    """The one that all graphs are captured on: matrix products keep a workspace for every stream they were ever on."""
    return torch.cuda.Stream(device)


class Graphs:
    """One graph for each of some functions, and the places of what they read and write.

    They share the memory of what is passing, so only one runs at a time.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self._graphs: dict[Hashable, torch.cuda.CUDAGraph] = {}
        self._places: dict[str, Tensor] = {}

    def __len__(self) -> int:
        return len(self._graphs)

    def run(self, key: Hashable, function: Callable[[], None]) -> None:
        """Do ``function`` once: in the first call by calling it, then by the graph called ``key``.

        The first call captures the graph, too: Python runs ``function`` once more, but the device does nothing. On the
        CPU every call is as the first, without a graph.
        ``function`` reads nothing back, and finds and leaves everything in tensors that stay where they are.
        """
        if key in self._graphs:
            self._graphs[key].replay()
        elif self.device.type == "cuda":
            self._graphs[key] = self._capture(function)
        else:
            function()

    def place(self, name: str, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
        """Zeros, as what is masked must at least be finite: at the start of the memory called ``name``."""
        size = math.prod(shape)
        if name not in self._places or self._places[name].numel() < size:
            self.forget()  # they are bound to the old place
            self._places[name] = torch.empty(size, dtype=dtype, device=self.device)
        return self._places[name][:size].view(shape).zero_()

    def forget(self) -> None:
        """Free all graphs."""
        if self._graphs:
            torch.cuda.synchronize(self.device)  # one may be running
        self._graphs = {}

    def _capture(self, function: Callable[[], None]) -> torch.cuda.CUDAGraph:
        """Do ``function``, and make a graph of it."""
        current, side = torch.cuda.current_stream(self.device), _side_stream(self.device)
        side.wait_stream(current)
        with torch.cuda.stream(side):
            function()  # also loads kernels and reserves workspaces, which cannot be captured
        current.wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        pool = next((other.pool() for other in self._graphs.values()), None)  # a pool ends with the last of its graphs
        # Other threads may go on using the device, as the one that loads training batches does.
        with torch.cuda.graph(graph, pool=pool, stream=side, capture_error_mode="thread_local"):
            function()
        return graph
