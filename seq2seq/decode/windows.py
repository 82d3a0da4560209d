"""Windows: the lines that are read, translated and written together, so that memory does not grow with the input.

Where a window ends depends on its lines alone. A part of a file begins with a window, and a translation that continues
repeats the windows of the one before.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

from seq2seq.data.parallel import chunks_of

WINDOW_LINES = 4096
WINDOW_CHARACTERS = 1 << 22  # 8 times the characters of 4,096 usual lines


def windows_of(lines: Iterable[str], none_is_there: Callable[[], bool] = lambda: False) -> Iterator[list[str]]:
    """The lines, in windows. ``none_is_there``: called after every line; True ends the window early."""
    window: list[str] = []
    num_characters = 0
    for line in lines:
        window.append(line)
        num_characters += len(line)
        if len(window) == WINDOW_LINES or num_characters >= WINDOW_CHARACTERS or none_is_there():
            yield window
            window, num_characters = [], 0
    if window:
        yield window


def windows_of_pairs(pairs: Iterable[tuple[str, str]]) -> Iterator[list[tuple[str, str]]]:
    """Pairs of lines, in windows."""
    return chunks_of(pairs, lambda pair: len(pair[0]) + len(pair[1]), WINDOW_LINES, WINDOW_CHARACTERS)
