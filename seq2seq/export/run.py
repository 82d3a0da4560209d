"""An export from begin to end: convert, translate with both programs, compare, and put everything in place at once."""

from __future__ import annotations

import importlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, cast

import torch

from seq2seq.config import DecodeConfig
from seq2seq.data.formats.lines import read_text
from seq2seq.data.symbols import EOS_ID
from seq2seq.decode.engine import Source, TorchEngine
from seq2seq.decode.explain import run_once
from seq2seq.errors import UserError
from seq2seq.evaluate import score
from seq2seq.export.card import CARD, card_for
from seq2seq.export.parity import Hypothesis, Parity, Scored, compare
from seq2seq.export.probe import Probe, read_probe
from seq2seq.files import put_folder_in_place, temporary_folder, unwritable, write_text
from seq2seq.model_folder import LoadedModel, load_model_folder

REPORT, SUMMARY = "parity.json", "parity.txt"


class Target(Protocol):
    """Another program: a module of this package. If the program can compute in int8, it has ``translate_int8``, too."""

    def check(self, loaded: LoadedModel) -> None:
        """Raise UserError, with the reason and what to do, if the program cannot use the model or is not installed."""

    def convert(self, loaded: LoadedModel, folder: Path) -> None:
        """Write the model into an existing folder."""

    def translate(
        self, folder: Path, source_ids: Sequence[Sequence[int]], beam_size: int, max_length: int
    ) -> Sequence[Hypothesis]:
        """The best translation of each source, which ends with EOS, computed by the program itself.

        No penalty for length; ``max_length``: tokens of an output, EOS included.
        """

    def usage(self, loaded: LoadedModel) -> str:
        """How to use the export, in Markdown."""


@dataclass(frozen=True)
class Order:
    """What to export, and how to prove it."""

    model: Path  # run folder or model folder
    target: str  # a module of this package, which is a Target
    output: Path
    probe: Path | None = None
    references: Path | None = None  # translations of the probe's lines
    allowed: int = 0  # differences


@dataclass(frozen=True)
class _Report:
    """The proof, and what is beside it in the report."""

    target: str
    model: dict[str, str]  # metadata of the weights
    probe: Probe
    beam_size: int
    max_length: int
    parity: Parity
    remarks: list[str] = field(default_factory=list)

    def as_json(self) -> dict[str, Any]:
        search = {"beam_size": self.beam_size, "length_penalty": 0.0, "max_length": self.max_length}
        parts = {"target": self.target, "model": self.model, "probe": self.probe.origin, "search": search}
        return {**parts, **self.parity.as_json(), "remarks": self.remarks}

    def summary(self) -> str:
        """For people."""
        head = (
            f"Export to {self.target}: the same sources translated by both programs, beam {self.beam_size}, no length "
            f"penalty.\nProbe: {self.parity.num_lines:,} lines, {self.probe.origin}.\n{self.parity}.\n"
        )
        shown = [*self.parity.differences, *self.parity.ties]
        return head + "".join(f"{line}\n" for line in [*self.remarks, *shown])


def export(order: Order, say: Callable[[str], None]) -> None:
    """Export a model. The folder appears when everything in it is complete and proved.

    Args:
        say: called with lines for the user.

    Raises:
        UserError: the model cannot be exported, or its translations differ; nothing was written.
    """
    _check_output(order.output)
    loaded = load_model_folder(order.model)
    module = importlib.import_module(f"seq2seq.export.{order.target}")
    target = cast(Target, module)
    target.check(loaded)
    probe = read_probe(loaded, order.model, order.probe)
    try:
        with temporary_folder(order.output) as folder:
            target.convert(loaded, folder)
            report = _prove(order, loaded, target, folder, probe)
            _judge(report.parity, order.allowed)
            write_text(folder / CARD, card_for(loaded, order.model, target.usage(loaded)))
            write_text(folder / REPORT, json.dumps(report.as_json(), indent=2, ensure_ascii=False) + "\n")
            write_text(folder / SUMMARY, report.summary())
            put_folder_in_place(folder, order.output)
    except OSError as error:
        raise unwritable(order.output, error) from error
    for line in (
        str(report.parity),
        *report.remarks,
        f"{order.output}: the model for {order.target}, {CARD}, {SUMMARY}",
    ):
        say(line)


def _check_output(output: Path) -> None:
    """Raise UserError if the export would replace something that is no export."""
    if not output.exists() or (output / REPORT).is_file():
        return
    if not output.is_dir() or any(output.iterdir()):
        raise UserError(f"--output: {output} exists and is no earlier export; name a new folder")


def _prove(order: Order, loaded: LoadedModel, target: Target, folder: Path, probe: Probe) -> _Report:
    """Translate with both programs, and compare."""
    decode = loaded.config.decode
    engine = TorchEngine(loaded.model, torch.float32)
    longest = engine.longest_output(max(map(len, probe.ids)), decode)
    options = {"beam_size": decode.beam_size, "length_penalty": 0.0, "max_length_ratio": 0.0}
    plain = DecodeConfig.model_validate({**options, "max_length_offset": longest})
    sources = [Source(ids, (number, 0)) for number, ids in enumerate(probe.ids)]
    ours = [Scored(found[0].ids, found[0].log_prob) if found else None for found in engine.search(sources, plain)]
    if None in ours:
        raise UserError("the model computes no finite numbers: its weights are damaged, or training diverged")
    our_own = [one for one in ours if one is not None]
    theirs = target.translate(folder, probe.ids, decode.beam_size, longest)

    def rescore(line: int, ids: Sequence[int]) -> float:
        tgt = [*ids, EOS_ID]
        log_probs = run_once(engine, probe.ids[line], tgt).log_probs
        return float(log_probs[range(len(tgt)), tgt].sum())

    decode_batch = loaded.tokenizers.tgt.decode_batch
    parity = compare(probe.texts, our_own, theirs, decode_batch, rescore)
    remarks = []
    if (translate_int8 := getattr(target, "translate_int8", None)) is not None:
        fp32, int8 = (
            decode_batch([one.ids for one in found])
            for found in (theirs, translate_int8(folder, probe.ids, decode.beam_size, longest))
        )
        remarks.append(_int8(fp32, int8, order, probe, loaded.config.data.target_language))
    return _Report(order.target, loaded.metadata, probe, decode.beam_size, longest, parity, remarks)


def _int8(fp32: list[str], int8: list[str], order: Order, probe: Probe, language: str | None) -> str:
    """What computing in int8 changes on this machine."""
    same = sum(one == other for one, other in zip(fp32, int8, strict=True))
    text = f"with int8, {same:,} of {len(fp32):,} lines are translated as with fp32"
    if order.references is None:
        return f"{text}: BLEU {score(int8, fp32, target_language=language).bleu:.2f} against these"
    lines = read_text(order.references)
    if probe.numbers[-1] >= len(lines):
        raise UserError(f"--ref: {order.references} has {len(lines):,} lines, fewer than the probe; give one for each")
    references = [lines[number] for number in probe.numbers]
    before, after = (score(texts, references, target_language=language) for texts in (fp32, int8))
    return f"{text}: BLEU {after.bleu:.2f} instead of {before.bleu:.2f} ({before.bleu_signature})"


def _judge(parity: Parity, allowed: int) -> None:
    """Raise UserError for more differences than are allowed."""
    if (found := len(parity.differences)) > allowed:
        raise UserError(
            f"the exported model does not translate as this one: {parity}; nothing was written. The first is\n"
            f"{parity.differences[0]}\nTo accept that, give --allow-differences {found}"
        )
