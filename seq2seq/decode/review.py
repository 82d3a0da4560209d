"""The lines of a translation to look at first."""

from __future__ import annotations

import heapq
from collections.abc import Iterator, Sequence

from seq2seq.data.formats.lines import printable
from seq2seq.decode.translation import Translation

_WIDTH = 60  # characters of a text that are shown


class Review:
    """Keeps the lines that are most likely wrong: those with flags before those without, each by confidence (by the
    mean log-probability of a token, if the model is not calibrated), lowest first. Memory does not grow with the number
    of lines.
    """

    def __init__(self, number: int) -> None:
        """``number``: how many lines to keep."""
        self._number = number
        self._heap: list[tuple[bool, float, int, str]] = []  # the least suspicious first

    def add(
        self, line: int, source: str, translation: Translation, flags: Sequence[str], confidence: float | None
    ) -> None:
        """Consider a line, whose number counts from 1; a blank source is not considered.

        ``confidence``: None for all lines, if the model is not calibrated.
        """
        if not source.strip():
            return
        per_token = translation.per_token
        shown = f"{printable(source, _WIDTH)} -> {printable(translation.text, _WIDTH)}"
        sure = f"{per_token:.2f} per token" if confidence is None else f"confidence {confidence:.2f}"
        what = f"{', '.join(flags) or 'no flag'}; {sure}: {shown}"
        entry = (bool(flags), -(per_token if confidence is None else confidence), -line, what)
        if len(self._heap) < self._number:
            heapq.heappush(self._heap, entry)
        else:
            heapq.heappushpop(self._heap, entry)

    def lines(self, name: str) -> Iterator[str]:
        """One line of text for each, the most suspicious first; ``name`` of the file."""
        for _, _, line, what in sorted(self._heap, reverse=True):
            yield f"{name}:{-line}: {what}"
