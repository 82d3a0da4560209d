"""How ``fuzz`` makes new inputs of old ones, and sees which lines of the readers an input has reached.

An input is a tuple of byte strings, one for each file that a reader takes.
"""

from __future__ import annotations

import random
import re
import sys
from collections.abc import Callable, Iterable, Sequence
from types import CodeType, FrameType
from typing import Any, TypeAlias

Input: TypeAlias = tuple[bytes, ...]

_LARGEST = 1 << 12  # bytes of one part, unless it was larger from the start
_NUMBERS = (0, 1, -1, 2, 7, 127, 128, 255, 256, 32767, 65535, 65536, 10**6, 2**31 - 1, 2**31, 2**32, 2**53, 2**63 - 1)
_HUGE = (2**63, 2**64, 2**64 - 1, 10**9, 10**12, 10**30, 10**400, -(2**63))
_PAIRS = ((b"[", b"]"), (b"{", b"}"), (b'{"a":', b"}"), (b"{a: ", b"}"), (b"(", b")"), (b"'", b"'"), (b'"', b'"'))


class Mutator:
    """Draws mutations; the same seed draws the same ones."""

    def __init__(self, seed: str, words: Sequence[bytes]) -> None:
        """``words``: what the format is made of, to be put anywhere."""
        self._rng = random.Random(seed)
        self._words = words

    def mutate(self, kept: Sequence[Input]) -> Input:
        """A new input from one of ``kept``, small ones more often, after one mutation or a few."""
        parts = list(min(self._rng.choice(kept), self._rng.choice(kept), key=lambda files: sum(map(len, files))))
        for _ in range(self._rng.choice((1, 1, 1, 2, 3, 5, 8))):
            at = self._rng.randrange(len(parts))
            other = self._rng.choice(kept)
            largest = max(_LARGEST, len(parts[at]))
            parts[at] = self._step(parts[at], other[at] if at < len(other) else b"")[:largest]
        return tuple(parts)

    def _step(self, data: bytes, other: bytes) -> bytes:
        rng = self._rng
        start, end = self._span(data)
        before, chosen, after = data[:start], data[start:end], data[end:]
        match rng.randrange(14):
            case 0:  # one bit
                return before + bytes([data[start] ^ (1 << rng.randrange(8))]) + data[start + 1 :] if chosen else data
            case 1:
                return before + rng.randbytes(len(chosen)) + after
            case 2:
                return before + after
            case 3:
                return before + chosen * rng.choice((2, 2, 3, 9, 64)) + after
            case 4:
                return before if rng.random() < 0.5 else after
            case 5:
                return before + rng.choice(self._words) + (after if rng.random() < 0.5 else chosen + after)
            case 6 | 7:
                return self._number(data)
            case 8:  # the same as a binary number, little-endian
                value = rng.choice((*_NUMBERS, *_HUGE[:3])) + rng.randrange(-2, 3)
                size = rng.choice((1, 2, 4, 8))
                return before + (value % (1 << 8 * size)).to_bytes(size, "little") + data[start + size :]
            case 9:
                return self._lines(data)
            case 10:  # deep inside something
                opening, closing = rng.choice(_PAIRS)
                depth = rng.choice((1, 1, 1, 2, 21, 1000))
                return before + opening * depth + chosen + closing * depth + after
            case 11:
                first, last = self._span(other)
                return before + other[first:last] + after
            case 12:
                return data[: rng.randrange(len(data) + 1)] + other[rng.randrange(len(other) + 1) :]
            case _:
                to = rng.randrange(len(before) + 1)
                return before[:to] + chosen + before[to:] + after

    def _span(self, data: bytes) -> tuple[int, int]:
        """A stretch, most often a short one."""
        start = self._rng.randrange(len(data) + 1)
        return start, min(len(data), start + self._rng.choice((1, 1, 2, 4, 8, 16, 64, 1024)))

    def _number(self, data: bytes) -> bytes:
        """A number that is written out becomes another."""
        found = list(re.finditer(rb"-?\d+(\.\d+)?", data))
        if not found:
            return data
        place = self._rng.choice(found)
        value = str(self._rng.choice((*_NUMBERS, *_HUGE, int(place[0].split(b".")[0][:18]) + 1))).encode()
        value += self._rng.choice((b"", b"", b"", b".5", b"e400", b"e-400"))
        return data[: place.start()] + value + data[place.end() :]

    def _lines(self, data: bytes) -> bytes:
        """Lines change places, go, or come twice."""
        lines = data.splitlines(keepends=True)
        if lines:
            at, to = self._rng.randrange(len(lines)), self._rng.randrange(len(lines))
            match self._rng.randrange(3):
                case 0:
                    lines[at], lines[to] = lines[to], lines[at]
                case 1:
                    del lines[at]
                case _:
                    lines.insert(to, lines[at])
        return b"".join(lines)


class Lines:
    """The lines of some source files that were run so far under :meth:`new`."""

    def __init__(self, files: Iterable[str]) -> None:
        self._files = frozenset(files)
        self._missing: dict[CodeType, set[int]] = {}  # of the functions called so far
        self.count = 0

    def new(self, call: Callable[[], object]) -> bool:
        """Whether ``call()`` reaches a line that none before it has reached."""
        before = self.count
        sys.settrace(self._on_call)
        try:
            call()
        finally:
            sys.settrace(None)
        return self.count > before

    def _on_call(self, frame: FrameType, event: str, _: object) -> Callable[..., Any] | None:
        code = frame.f_code
        if code.co_filename not in self._files:
            return None
        if code not in self._missing:
            self._missing[code] = {line for *_, line in code.co_lines() if line is not None} - {code.co_firstlineno}
        return self._on_line if self._missing[code] else None

    def _on_line(self, frame: FrameType, event: str, _: object) -> Callable[..., Any]:
        missing = self._missing[frame.f_code]
        if event == "line" and frame.f_lineno in missing:
            missing.discard(frame.f_lineno)
            self.count += 1
        return self._on_line
