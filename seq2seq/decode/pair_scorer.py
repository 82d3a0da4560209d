"""Models that score pairs for the cleaning of training text (``data.clean.model``)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from seq2seq.decode.translator import Translator
from seq2seq.files import checksum_file
from seq2seq.model_folder import WEIGHTS, find_model_folder


class ModelScorer:
    """A :class:`~seq2seq.data.unlikely.PairScorer`; a model is loaded when the first pair is scored with it."""

    def __init__(self, device: str = "auto") -> None:
        """``device``: as for :meth:`Translator.load`."""
        self._device = device
        self._loaded: dict[Path, Translator] = {}

    def checksum(self, model: Path) -> str:
        """See :class:`~seq2seq.data.unlikely.PairScorer`."""
        return checksum_file(find_model_folder(model) / WEIGHTS)

    def per_token(self, model: Path, pairs: Sequence[tuple[str, str]]) -> list[float | None]:
        """See :class:`~seq2seq.data.unlikely.PairScorer`."""
        if model not in self._loaded:
            self._loaded[model] = Translator.load(model, self._device, engine="torch")
        translator = self._loaded[model]
        decode = translator.config.decode.model_copy(update={"quantize": None})
        return [score.per_token for score in translator.score_stream(pairs, decode)]
