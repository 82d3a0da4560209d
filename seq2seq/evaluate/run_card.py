"""The card of the test set of a finished run, from its translations and the files that the run has written."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import torch

from seq2seq.config import Config, DecodeConfig, paths_of
from seq2seq.data.cleaning import Cleaned
from seq2seq.data.held_out import TrainAndValid
from seq2seq.data.prepare import MeasuredText
from seq2seq.decode.calibration import read_calibration
from seq2seq.decode.translation import Translation
from seq2seq.errors import DataError
from seq2seq.evaluate.card import Card, SystemCard
from seq2seq.evaluate.make_card import Evaluated, make_card, search_in_words, training_with, without_config
from seq2seq.evaluate.significance import compare, memory_needed
from seq2seq.evaluate.slices import Translated
from seq2seq.memory import memory_room


def run_card(
    config: Config,
    text: MeasuredText,
    cleaned: Cleaned | None,
    num_parameters: int,
    translations: Sequence[Translation],
    progress: Callable[[int], object] = lambda count: None,
) -> Card:
    """The card of ``data.test``, ``translations`` by the best model of the run; ``text`` is its text.

    ``progress`` is as for :func:`make_card`.

    Raises:
        UserError: a file of the run is missing or damaged.
    """
    record, lines = _record(config), [one.text for one in translations]
    languages = config.data.source_language, config.data.target_language
    texts = Translated(text.src, lines, [text.ref], languages)
    room = memory_room(torch.device("cpu"))
    fits = room is None or memory_needed(len(lines)) < room
    compared = compare({"": lines}, [text.ref], None, languages[1], resample=fits)
    decode, metadata = DecodeConfig.model_validate(record["decode"]), record["model"]
    system = SystemCard(
        name=str(config.run_dir / "best"),
        is_model=True,
        languages=languages,
        step=int(metadata["step"]),
        num_parameters=num_parameters,
        metadata=without_config(metadata),
        decode=decode.model_dump(mode="json"),
        search=search_in_words(decode),
        seconds=record["seconds"],
        device=record["device"],
    )
    training = training_with(config.data.train, TrainAndValid(config.data, cleaned))
    if config.init.source is not None:
        started = f"what {config.init.source}, from which training started, had learnt is not known"
        training = replace(training, notes=(started,))
    assert config.data.test is not None
    evaluated = Evaluated(
        system=system,
        test=" ".join(str(path) for paths in paths_of(config.data.test).values() for path in paths),
        measures=compared.systems[0].measures,
        notes=compared.notes,
        training=training,
        calibration=read_calibration(config.run_dir / "best"),
        translations=translations,
    )
    return make_card(texts, evaluated, progress)


def _record(config: Config) -> dict[str, Any]:
    path = config.run_dir / "test.json"
    try:
        record: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: cannot be read: {error}") from None
    return record
