"""The models of a server: one for each direction, loaded again when its folder changes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from threading import Event, Thread

from seq2seq.errors import UserError
from seq2seq.languages import short_code
from seq2seq.model_folder import CONFIG, WEIGHTS, find_model_folder
from seq2seq.serve.batcher import Batcher, Loaded

_PROOF = "A test."  # a model that cannot translate this is not used
_EVERY = 2.0  # seconds between two looks at a folder

Seen = tuple[tuple[int, int, int], ...]


class Direction:
    """A model folder and the model that was loaded from it, which has a source and a target language."""

    def __init__(self, path: Path, load: Callable[[Path], Loaded]) -> None:
        """Load the model; raises UserError if it cannot be loaded or does not state its languages."""
        self.path = path
        self._load = load
        self.seen = self.look()
        self.loaded = load(path)
        data = self.loaded.translator.config.data
        if data.source_language is None or data.target_language is None:
            raise UserError(f"{path}: its languages are not known; set data.src_lang and data.tgt_lang in its {CONFIG}")
        self.source, self.target = data.source_language, data.target_language

    def look(self) -> Seen:
        """What changes when the files of the model are replaced."""
        with suppress(UserError, OSError):
            folder = find_model_folder(self.path)
            stats = [(folder / name).stat() for name in (WEIGHTS, CONFIG)]
            return tuple((stat.st_ino, stat.st_mtime_ns, stat.st_size) for stat in stats)
        return ()

    def reload(self, prove: Callable[[Loaded], object]) -> None:
        """Use the model that the folder has now; requests that already wait keep the earlier one.

        Raises:
            UserError: it cannot be used; the earlier one stays.
        """
        loaded = self._load(self.path)
        data = loaded.translator.config.data
        if (data.source_language, data.target_language) != (self.source, self.target):
            raise UserError(f"{self.path}: translates {data.source_language} to {data.target_language} now")
        prove(loaded)
        self.loaded = loaded


class Models:
    """The directions of a server."""

    def __init__(self, paths: Sequence[Path], load: Callable[[Path], Loaded]) -> None:
        """Load all models; raises UserError if one cannot be loaded, or if two have the same direction."""
        self.directions: list[Direction] = []
        for path in paths:
            new = Direction(path, load)
            for other in self.directions:
                if _same(other.source, new.source) and _same(other.target, new.target):
                    raise UserError(f"{other.path} and {path}: both translate {new.source} to {new.target}; give one")
            self.directions.append(new)
        self._stopping = Event()

    def find(self, source: str, target: str) -> Direction | None:
        """The direction between two languages; codes may have any form: ``de``, ``DE``, ``zh-CN``."""
        for direction in self.directions:
            if _same(direction.source, source) and _same(direction.target, target):
                return direction
        return None

    def languages(self) -> dict[str, list[str]]:
        """All languages with those that they are translated to."""
        found: dict[str, list[str]] = {}
        for direction in self.directions:
            found.setdefault(direction.source, []).append(direction.target)
        for direction in self.directions:
            found.setdefault(direction.target, [])
        return found

    def watch(self, batcher: Batcher, report: Callable[[str], None]) -> None:
        """Load models again when their folders change, in a thread, until :meth:`stop`; ``report`` gets messages."""

        def prove(loaded: Loaded) -> object:
            return batcher.call(lambda: loaded.translate([_PROOF], 1)).result()

        def run() -> None:
            before = [direction.seen for direction in self.directions]
            while not self._stopping.wait(_EVERY):
                for index, direction in enumerate(self.directions):
                    now = direction.look()
                    settled, before[index] = now == before[index], now
                    if settled and now and now != direction.seen:  # not in the middle of a copy
                        direction.seen = now
                        try:
                            direction.reload(prove)
                            report(f"{direction.path}: changed; the new model is used")
                        except Exception as error:  # whatever it is, the server continues
                            why = error if isinstance(error, UserError) else type(error).__name__
                            report(f"{direction.path}: changed, but the new model cannot be used: {why}")

        Thread(target=run, name="models", daemon=True).start()

    def stop(self) -> None:
        """End :meth:`watch`."""
        self._stopping.set()


def _same(one: str, other: str) -> bool:
    return one.lower() == other.lower() or short_code(one) == short_code(other)
