"""CUDA graphs: the kernels of a function are captured once, then launched together."""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Callable, Hashable
from functools import cache

import torch
from torch import Tensor

_MOST = 64  # graphs to keep: more than a search has shapes; a server may see any number of sampling options


@cache
def _side_stream(device: torch.device) -> torch.cuda.Stream:
    """The stream to capture all graphs on; there is only one, because matrix products keep a workspace per stream."""
    return torch.cuda.Stream(device)


class Graphs:
    """CUDA graphs of functions, by key, and the places of the tensors that they read and write.

    The graphs share memory for temporary tensors, so only one may run at a time. Those used last are kept, up to a
    fixed number.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self._graphs: OrderedDict[Hashable, torch.cuda.CUDAGraph] = OrderedDict()  # the one used last is the last
        self._places: dict[str, list[Tensor]] = {}  # by name; each place is at least twice as large as the one before

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
            self._graphs.move_to_end(key)
        elif self.device.type == "cuda":
            self._make_room()
            self._graphs[key] = self._capture(function)
        else:
            function()

    def place(self, name: str, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
        """A tensor of zeros in the memory called ``name``; zeros, because masked numbers must be finite.

        A shape is always at the same address, so no graph has to be captured again when a larger shape comes. All
        places of a name need at most twice the memory of the largest one.
        """
        size, places = math.prod(shape), self._places.setdefault(name, [])
        place = next((place for place in places if place.numel() >= size), None)
        if place is None:
            doubled = 2 * places[-1].numel() if places else 0
            place = torch.empty(max(size, doubled), dtype=dtype, device=self.device)
            places.append(place)
        return place[:size].view(shape).zero_()

    def forget(self) -> None:
        """Free all graphs."""
        if self._graphs:
            torch.cuda.synchronize(self.device)  # one may be running
        self._graphs.clear()

    def _make_room(self) -> None:
        """Free the graph that was not used for the longest time, if there are too many."""
        if len(self._graphs) >= _MOST:
            torch.cuda.synchronize(self.device)  # it may be running
            self._graphs.popitem(last=False)

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
