"""The second engine: CTranslate2, on the CPU, in fp32 or int8 (``decode.quantize``).

A model is converted when it is first loaded; the result stays in its folder. The search is ours as far as CTranslate2
has it (see :meth:`ConvertedModel.search`), and hypotheses are ranked here, with our penalty for length.
"""

from __future__ import annotations

import math
import os
import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import chain
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from seq2seq.config import DecodeConfig
from seq2seq.decode.constraints import Rules
from seq2seq.decode.ctranslate2_model import (
    ComputeType,
    ConvertedModel,
    Found,
    library,
    num_positions,
    why_not,
    write_model,
)
from seq2seq.decode.engine import OnFound, Source, unnoticed
from seq2seq.decode.search import FIRST_ID, Hypothesis, length_penalty
from seq2seq.errors import ModelError, UserError
from seq2seq.files import CHECKSUM, fingerprint, put_folder_in_place, seal, temporary_folder
from seq2seq.model.interface import Seq2SeqModel
from seq2seq.model.transformer import Transformer

CACHE = "ctranslate2"  # the converted model in a model folder; it may be deleted
_NO_RULES = Rules()
_MODEL, _SEAL = "model.bin", "seal"
_BATCH_TOKENS = 8192  # the default of decode.batch_tokens, source tokens times beam size
_SMALLEST_SHARE = 1024  # the same for a thread that would have nothing to do otherwise


class CTranslate2Engine:
    """An :class:`~seq2seq.decode.engine.Engine` over a converted model, on the CPU.

    With several threads, each translates a batch of its own.
    """

    def __init__(self, model: Seq2SeqModel, metadata: Mapping[str, str], folder: Path) -> None:
        """Convert the model, unless its folder has the converted one.

        Args:
            metadata: of its weights, with their checksum.

        Raises:
            UserError: CTranslate2 is not installed, or cannot compute the model.
        """
        if (reason := why_not(model)) is not None:
            raise UserError(f"decode.engine: {reason}; or translate with decode.engine: torch")
        assert isinstance(model, Transformer)
        self._version: str = library().__version__
        self.num_parameters = sum(parameter.numel() for parameter in model.parameters())
        self._longest = num_positions(model)
        self._never = frozenset(chain(range(FIRST_ID), *model.tags))
        self._threads = torch.get_num_threads()
        self._notice = ""
        self._loaded: dict[tuple[int, ComputeType], ConvertedModel] = {}  # by process: a forked child has no threads
        weights, options = metadata.get(CHECKSUM), model.config.model_dump(mode="json")
        self._made_from = fingerprint(weights=weights, model=options, version=self._version)
        self._temporary: tempfile.TemporaryDirectory[str] | None = None  # deleted with this engine
        self._folder = folder / CACHE
        if not _is_complete(self._folder, self._made_from):
            self._convert(model)

    def _convert(self, model: Transformer) -> None:
        try:
            with temporary_folder(self._folder) as new:
                _write_sealed(model, new, self._made_from)
                put_folder_in_place(new, self._folder)
        except OSError as error:
            self._notice = (
                f"{self._folder}: cannot be written ({error.strerror or error}); the model is converted for "
                "CTranslate2 into a temporary folder, each time that it is loaded"
            )
            self._temporary = tempfile.TemporaryDirectory()
            self._folder = Path(self._temporary.name)
            _write_sealed(model, self._folder, self._made_from)

    @property
    def identity(self) -> dict[str, str]:
        """Device, precision, and the version of CTranslate2."""
        return {"device": "cpu", "precision": "fp32", "engine": f"ctranslate2 {self._version}"}

    def longest_output(self, num_source_tokens: int, decode: DecodeConfig) -> int:
        """See :class:`~seq2seq.decode.engine.Engine`; at most the number of positions that the model has."""
        longest = int(num_source_tokens * decode.max_length_ratio) + decode.max_length_offset
        return max(1, min(longest, self._longest or longest))

    def settle(self, decode: DecodeConfig, say: Callable[[str], None]) -> DecodeConfig:
        """``decode`` itself; says if the converted model cannot be kept. Raises UserError for what it cannot do."""
        _refuse(decode)
        if self._notice:
            say(self._notice)
        return decode

    def search(
        self,
        sources: Sequence[Source],
        decode: DecodeConfig,
        rules: Rules = _NO_RULES,
        on_found: OnFound = unnoticed,
    ) -> list[list[Hypothesis]]:
        """See :class:`~seq2seq.decode.engine.Engine`.

        CTranslate2 makes its batches itself, so ``on_found`` is called once, with all.
        """
        _refuse(decode)
        assert not any(source.beginning or source.terms for source in sources)
        model, beam_size = self._model("float32" if decode.quantize is None else "int8"), decode.beam_size
        ids = [source.ids[:-1] for source in sources]
        limits = [self.longest_output(len(source.ids), decode) for source in sources]
        share = beam_size * sum(map(len, ids)) // self._threads
        budget = max(1, min(decode.batch_tokens or _BATCH_TOKENS, max(share, _SMALLEST_SHARE)) // beam_size)
        again: Iterable[int] = range(len(ids))
        found: list[list[Found]] = [[] for _ in ids]
        if not rules.banned and not decode.no_repeat_ngram:
            found = model.search(ids, beam_size, limits, budget)
            # A trained model hardly ever likes what no training target has.
            again = [line for line, several in enumerate(found) if not all(map(self._is_allowed, several))]
        # What is forbidden gives its probability to the others, so the log-probabilities are computed again.
        chosen = [ids[line] for line in again]
        never = [*([i] for i in sorted(self._never)), *rules.banned]
        whole = model.search(chosen, beam_size, [limits[line] for line in again], budget, never, decode.no_repeat_ngram)
        for line, source, several in zip(again, chosen, whole, strict=True):
            log_probs = model.log_probs([source] * len(several), [one.ids for one in several])
            scored = zip(several, log_probs, strict=True)
            found[line] = [Found(one.ids, log_prob, one.cut) for one, log_prob in scored if self._is_allowed(one)]
        on_found(sources)
        return [_ranked(several, decode) for several in found]

    def score(
        self, sources: Sequence[Sequence[int]], targets: Sequence[Sequence[int]], decode: DecodeConfig
    ) -> list[NDArray[np.float64]]:
        """See :class:`~seq2seq.decode.engine.Engine`."""
        model = self._model("float32" if decode.quantize is None else "int8")
        found = model.token_log_probs([ids[:-1] for ids in sources], [ids[:-1] for ids in targets])
        return [np.array(log_probs) for log_probs in found]

    def _is_allowed(self, one: Found) -> bool:
        return self._never.isdisjoint(one.ids)

    def _model(self, compute_type: ComputeType) -> ConvertedModel:
        key = os.getpid(), compute_type
        if key not in self._loaded:
            if not _is_complete(self._folder, self._made_from):
                raise ModelError(f"{self._folder}: was removed or replaced while the model is in use; load it again")
            self._loaded[key] = ConvertedModel(self._folder, compute_type, self._threads, 1)
        return self._loaded[key]


def _refuse(decode: DecodeConfig) -> None:
    """CTranslate2's samples depend on the batch; ours are the same for the same seed."""
    if decode.sample:
        raise UserError("decode.engine: ctranslate2 does not sample; translate with decode.engine: torch")
    if decode.protect:
        raise UserError("decode.engine: ctranslate2 has no decode.protect; translate with decode.engine: torch")


def _ranked(several: Sequence[Found], decode: DecodeConfig) -> list[Hypothesis]:
    """The hypotheses by our score; those without a finite one are left out."""
    scored = [
        Hypothesis(
            one.ids, one.log_prob, one.log_prob / length_penalty(len(one.ids) + 1, decode.length_penalty), one.cut
        )
        for one in several
        if math.isfinite(one.log_prob)
    ]
    scored.sort(key=lambda one: -one.score)
    return scored[:1] if decode.n_best == 1 else scored


def _write_sealed(model: Transformer, folder: Path, made_from: str) -> None:
    """Write a model, and what :func:`_is_complete` compares. The names of pieces are their ids."""
    sizes = model.src_embedding.num_embeddings, model.output_weight.size(0)
    src, tgt = ([str(i) for i in range(size)] for size in sizes)
    write_model(model, src, tgt, folder)
    (folder / _SEAL).write_text(f"{made_from}\n{seal(folder / _MODEL)}\n", encoding="utf-8")


def _is_complete(folder: Path, made_from: str) -> bool:
    """Whether the folder has the converted model, undamaged.

    Raises:
        ModelError: it is, or has, a link that leads elsewhere.
    """
    if not folder.is_dir():
        return False
    for path in (folder, *folder.iterdir()):
        if path.is_symlink():
            raise ModelError(f"{path}: is a link; remove {folder}, which is made again")
    try:
        return (folder / _SEAL).read_bytes() == f"{made_from}\n{seal(folder / _MODEL)}\n".encode()
    except OSError:
        return False
