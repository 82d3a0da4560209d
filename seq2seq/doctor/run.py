"""The doctor's checks in order, from a config to its report."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from contextlib import redirect_stdout
from pathlib import Path
from typing import TYPE_CHECKING

from tqdm import tqdm

from seq2seq.config import Config
from seq2seq.data.cleaning import Cleaned, rules_of
from seq2seq.data.formats.lines import printable
from seq2seq.data.formats.pairs import Text
from seq2seq.data.inspection import PartFacts, inspect_parts
from seq2seq.doctor.report import Section, Verdict, short_path
from seq2seq.doctor.text import judge_characters, judge_text, readable
from seq2seq.doctor.tokens import judge_tokens
from seq2seq.errors import UserError

if TYPE_CHECKING:
    from seq2seq.train.decide import Decided


def texts_of(config: Config) -> dict[str, Text]:
    """The text of each part that the config names."""
    return {"train": config.data.train, **config.data.measured}


def inspect(config: Config) -> dict[str, PartFacts]:
    """Read all text, with a progress bar."""
    with tqdm(desc="reading the text", unit=" lines", unit_scale=True, leave=False) as bar:
        return inspect_parts(texts_of(config), bar.update)


def examine(config: Config, parts: Mapping[str, PartFacts]) -> Iterator[Section]:
    """From the facts about the text, sections of the report, each as soon as it is ready.

    Only the tokenizer and the corpora are written, into the cache folder; ``train`` uses them later. A run in the run
    folder is not changed.
    """
    yield from judge_text(parts, rules_of(config.data))
    yield judge_characters(parts, config.tokenizer.normalise_source)
    if not readable(parts):
        yield Section("Tokens and dry run", [Verdict("not tried", "correct the text first")])
        return
    # They import PyTorch, which the checks before do not need.
    from seq2seq.doctor.machine import judge_machine
    from seq2seq.train.decide import decide
    from seq2seq.train.distributed import joined_processes
    from seq2seq.train.resume import earlier_starts

    with joined_processes(config.train.device) as processes:
        try:
            with redirect_stdout(sys.stderr):  # stdout is for the report
                decided = decide(config, processes, earlier_starts(config.run_dir, processes.say))
        except UserError as error:
            yield Section("Tokens and settings", [Verdict("WRONG", str(error))])
            return
        if (cleaned := decided.data.cleaned) is not None:
            yield _judge_cleaning(cleaned)
        yield judge_tokens(decided.config, decided.data, parts)
        yield _judge_settings(decided)
        with tqdm(desc="dry run", bar_format="{desc}: {elapsed}", leave=False):
            section = judge_machine(decided.config, decided.data, processes)
        yield section


def _judge_cleaning(cleaned: Cleaned) -> Section:
    """What the rules of data.clean leave out."""
    rows = [row.split("\t") for row in cleaned.examples.read_text(encoding="utf-8").split("\n") if row]
    examples = [
        f"{short_path(Path(place))}: {printable(src, 60)} | {printable(tgt, 60)} ({cause})"
        for cause, place, src, tgt in rows
    ]
    return Section("Cleaning", [Verdict("ok", str(cleaned), f"examples: {cleaned.examples}", examples)])


def _judge_settings(decided: Decided) -> Section:
    """What train will choose, and whether text and time are enough."""
    verdicts = [Verdict("ok", str(choice)) for choice in decided.choices]
    if not verdicts:
        verdicts = [Verdict("ok", decided.head)]
    verdicts += [Verdict("ok" if each.is_enough else "doubtful", each.text) for each in decided.expectation]
    return Section("Settings", verdicts)
