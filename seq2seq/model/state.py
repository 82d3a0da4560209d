"""The state of a search: tensors that a model keeps between steps, such as cached keys and values.

Cached keys never move. Each hypothesis has a mask that marks its own ancestors among all tokens of its sentence:
products with a few masked tokens cost less than copying keys and values at every step. Sources are projected once, and
all hypotheses of a sentence share them.

Shapes: ``B`` sentences still being decoded, ``K`` hypotheses per sentence, ``N`` slots of a cache, ``K`` for each step.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

# Added to the attention scores of masked tokens. Its exponential is 0, like that of minus infinity, but the softmax
# stays finite if all tokens are masked, as in a row without a sentence.
MASKED = -1e4
Place = Callable[[str, tuple[int, ...], torch.dtype], Tensor]  # gives zeros for a name, a shape and a dtype
_STEPS = 32  # first size of a cache, in steps; a full cache is doubled
_ANCESTORS = "ancestors"  # [B, K, N], 1 for the tokens of a hypothesis, else 0


def round_up(size: int, smallest: int) -> int:
    """``smallest``, doubled until it is at least ``size``."""
    return smallest << (-(-size // smallest) - 1).bit_length()


class State:
    """Tensors by unique names. In a step the model calls :meth:`mark`, then :meth:`append` for each cache; the search
    ends the step by :meth:`follow`.

    At the first step, all hypotheses of a sentence are equal, so one may represent them: tensors [B, K, ...] may be
    [B, 1, ...] until :meth:`follow` repeats them.
    """

    def __init__(self, num_hypotheses: int, window: int | None = None, device: torch.device | None = None) -> None:
        """``window``: a token sees only itself and ``window`` earlier tokens; None: all."""
        self.num_hypotheses, self.window = num_hypotheses, window
        self.shared: dict[str, Tensor] = {}  # the same for all sentences
        self.of_sentences: dict[str, Tensor] = {}  # [B, ...]
        self.of_hypotheses: dict[str, Tensor] = {}  # [B, K, ...]
        self.position = torch.zeros(1, dtype=torch.int64, device=device)  # tokens so far, on the device
        self.length = 0  # the same on the host
        self.axes: dict[str, int] = {}  # the slot axis of each cache
        self._start = self._end = 0  # of the slots in use

    @property
    def num_sentences(self) -> int:
        """B."""
        return next(iter(self.of_sentences.values())).size(0)

    def room(self, length: int) -> int:
        """The number of steps that a cache with ``length`` tokens has slots for.

        With a window, the slots of tokens outside it are used again.
        """
        steps = round_up(length, _STEPS) if length > 1 else 1  # graphs have their own places after the first step
        return steps if self.window is None else min(steps, self.window + 1)

    def mark(self, tokens: Tensor) -> Tensor:
        """Begin a step: give each of ``tokens`` [B, K] a slot in the caches.

        Returns:
            [B, K, N] fp32, to add to attention scores over the caches: 0 for the tokens of a hypothesis, the new one
            included, else MASKED.
        """
        num_sentences, k = tokens.shape
        self._take_slots(k)
        own = torch.eye(k, device=tokens.device).expand(num_sentences, -1, -1)
        return (self._append(self.of_hypotheses, _ANCESTORS, own, 2) - 1.0).mul_(-MASKED)

    def append(self, name: str, new: Tensor, axis: int) -> Tensor:
        """Write ``new`` [B, ...] into the K slots of this step, along ``axis`` of the cache called ``name``.

        Returns:
            The cache: like ``new``, but with all N slots along ``axis``.
        """
        return self._append(self.of_sentences, name, new, axis)

    def replace(self, name: str, new: Tensor) -> None:
        """Replace one of the tensors of sentences or hypotheses."""
        (self.of_sentences if name in self.of_sentences else self.of_hypotheses)[name] = new

    def follow(self, parents: Tensor) -> None:
        """End a step: each hypothesis continues one of the previous step, ``parents`` [B, K]."""
        self.length += 1
        self.position.add_(1)
        if parents.size(1) == 1:
            return  # one hypothesis has nothing to reorder
        for name, x in list(self.of_hypotheses.items()):
            if x.size(1) == 1:  # all are equal
                self.replace(name, x.repeat_interleave(parents.size(1), dim=1))
            else:
                first_rows = x.size(1) * torch.arange(x.size(0), device=x.device)
                rows = (parents + first_rows[:, None]).flatten()
                self.replace(name, x.flatten(0, 1).index_select(0, rows).view_as(x))

    def keep(self, sentences: Tensor) -> None:
        """Keep only these rows of the current sentences, [new B]; copies only rows that change their place."""
        size = sentences.size(0)
        moved = (sentences != torch.arange(size)).nonzero().squeeze(1)
        if size == self.num_sentences and not moved.numel():
            return
        for tensors in (self.of_sentences, self.of_hypotheses):
            for name, x in tensors.items():
                if moved.numel():
                    used = self._used(name, x)
                    used[moved] = used[sentences[moved]]
                tensors[name] = x[:size]

    def _take_slots(self, k: int) -> None:
        """Choose the slots of a step with ``k`` hypotheses; one that represents all gets the step's last slot."""
        room, num_hypotheses = self.room(self.length + 1), self.num_hypotheses
        self._size = room * num_hypotheses
        self._new_end = (self.length % room + 1) * num_hypotheses
        self._end = min(self.length + 1, room) * num_hypotheses
        if self.length == 0:
            self._start = self._end - k
        elif self.length >= room:
            self._start = 0

    def _append(self, caches: dict[str, Tensor], name: str, new: Tensor, axis: int) -> Tensor:
        k, cache = new.size(axis), caches.get(name)
        if cache is None or cache.size(axis) < self._size:
            larger = new.new_empty([*new.shape[:axis], self._size, *new.shape[axis + 1 :]])
            if cache is not None:
                larger.narrow(axis, 0, cache.size(axis)).copy_(cache)
            caches[name] = cache = larger
            self.axes[name] = axis
        cache.narrow(axis, self._new_end - k, k).copy_(new)
        return cache.narrow(axis, self._start, self._end - self._start)

    def _used(self, name: str, x: Tensor) -> Tensor:
        """The part of a tensor with data."""
        return x if name not in self.axes else x.narrow(self.axes[name], self._start, self._end - self._start)


class FixedState(State):
    """A state for CUDA graphs: every tensor stays at the same place in all steps.

    Rows without a sentence are computed like the others. Sentences leave only when the others move to another state.
    """

    def __init__(self, state: State, length: int, sentences: Tensor, num_rows: int, place: Place) -> None:
        """Continue ``state``, which must not be used afterwards.

        Args:
            length: tokens so far, at least 1.
            sentences: rows of ``state`` to continue; they become the first rows, in this order.
            num_rows: B of this state.
            place: gives memory for a tensor by name (:meth:`seq2seq.model.kernels.cuda_graphs.Graphs.place`).
        """
        super().__init__(state.num_hypotheses, state.window, state.position.device)
        self.axes = state.axes
        self.position = place("position", (1,), torch.int64).fill_(length)
        self._steps = self.room(length + 1)
        self._start, self._end = 0, self._steps * self.num_hypotheses
        # Tensors are copied first, because the new place may overlap the old one.
        for name, x in state.shared.items():
            x = x.clone()
            self.shared[name] = place(name, x.shape, x.dtype).copy_(x)
        for old, new in ((state.of_sentences, self.of_sentences), (state.of_hypotheses, self.of_hypotheses)):
            for name in list(old):
                kept = state._used(name, old.pop(name))[sentences]
                shape = [num_rows, *kept.shape[1:]]
                if name in self.axes:
                    shape[self.axes[name]] = self._end
                new[name] = place(name, tuple(shape), kept.dtype)
                new[name][tuple(slice(size) for size in kept.shape)] = kept

    def replace(self, name: str, new: Tensor) -> None:
        """Write ``new`` over one of the tensors of sentences or hypotheses."""
        (self.of_sentences if name in self.of_sentences else self.of_hypotheses)[name].copy_(new)

    def _take_slots(self, k: int) -> None:
        self._slots = self.position % self._steps * k + torch.arange(k, device=self.position.device)

    def _append(self, caches: dict[str, Tensor], name: str, new: Tensor, axis: int) -> Tensor:
        return caches[name].index_copy_(axis, self._slots, new)
