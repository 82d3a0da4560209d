"""A prompt in a terminal: each line is translated when it is entered."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import suppress


class Prompt:
    """The lines that a user enters, with line editing and a history of this session; Ctrl-D ends them.

    Ctrl-C ends the command, as everywhere: the signal's exception is raised out of the prompt.
    """

    name = "line"  # before the number of a line, in messages

    def __init__(self, language: str | None) -> None:
        """``language``: the code of the language to enter, shown before each line."""
        self._prompt = f"{language or ''}> "

    @staticmethod
    def is_possible() -> bool:
        """Whether lines are entered and answered in a terminal."""
        try:
            return all(stream.isatty() for stream in (sys.stdin, sys.stdout, sys.stderr))
        except ValueError:  # one is closed
            return False

    def __iter__(self) -> Iterator[bytes]:
        with suppress(ImportError):  # a Python may be built without it
            import readline

            readline.set_auto_history(True)
        # What is typed reaches the reader of lines as the terminal sent it, also if it is not in the locale's encoding.
        sys.stdin.reconfigure(errors="surrogateescape")  # type: ignore[union-attr]
        encoding = sys.stdin.encoding
        print("enter a line to translate it; Ctrl-D ends", file=sys.stderr)
        while True:
            try:
                line = input(self._prompt)
            except EOFError:
                print(file=sys.stderr)  # Ctrl-D leaves the cursor behind the prompt
                return
            yield line.encode(encoding, "surrogateescape")

    def none_is_there(self) -> bool:
        """Each line is answered before the next one is entered."""
        return True
