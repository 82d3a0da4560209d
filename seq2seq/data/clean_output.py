"""The cleaned training text as a folder, for other programs and for people.

``train.SRC`` and ``train.TGT`` have the clean pairs, one a line; ``left_out.tsv`` has the others with cause and place;
``manifest.json`` says which files and rules they were made from. The folder is written whole or not at all.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path

from seq2seq.config import DataConfig, ParallelText, paths_of
from seq2seq.data.checksums import ChecksumMemory
from seq2seq.data.clean_rules import VERSION
from seq2seq.data.cleaning import Cleaned, bar, min_score_of, read_units, rules_of, table_row
from seq2seq.errors import DataError, UserError
from seq2seq.files import CHECKSUM, checksum_file, put_folder_in_place, temporary_folder, unwritable

_LEFT_OUT, _MANIFEST = "left_out.tsv", "manifest.json"


def write_clean_text(
    folder: Path,
    data: DataConfig,
    cleaned: Cleaned | None,
    known: ChecksumMemory,
    package: str,
    *,
    show_progress: bool = True,
) -> None:
    """Write the folder; memory does not grow with the text.

    Args:
        folder: a new folder.
        data: the training text, and the texts to measure with.
        cleaned: which pairs are left out; None for none.
        known: the checksums of the input files.
        package: the version of this package, for the manifest.
        show_progress: show a bar.

    Raises:
        UserError: the folder exists, or cannot be written.
        DataError: the text cannot be used.
    """
    names = _names(data)
    lines = dict.fromkeys((*names, _LEFT_OUT), 0)
    number = -1
    try:
        with temporary_folder(folder) as new:
            with ExitStack() as opened:
                files = {name: opened.enter_context((new / name).open("wb")) for name in lines}
                units = bar(read_units(data), desc="writing the clean text", disable=not show_progress)
                for number, (file, unit) in enumerate(units):
                    cause = cleaned.cause(number) if cleaned else None
                    rows = dict(zip(names, (unit.src, unit.tgt), strict=True))
                    if cause is not None:
                        rows = {_LEFT_OUT: table_row(cause, file, unit)}
                    for name, row in rows.items():
                        files[name].write(f"{row}\n".encode())
                        lines[name] += 1
            if cleaned and number + 1 != len(cleaned.codes):
                raise DataError("data.train: the text has changed while it was read; run the same command again")
            manifest = {
                "seq2seq": package,
                "rules_version": VERSION,
                "rules": [
                    {**rules.model_dump(mode="json"), "min_score": min_score_of(dataset)}
                    for dataset, rules in zip(data.train, rules_of(data), strict=True)
                ],
                "input": _inputs(data, known),
                "output": {
                    name: {"pairs": count, CHECKSUM: checksum_file(new / name)} for name, count in lines.items()
                },
                "pairs": number + 1,
                "clean": lines[names[0]],
                "left_out": cleaned.counts if cleaned else {},
            }
            (new / _MANIFEST).write_text(json.dumps(manifest, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
            check_new(folder)
            put_folder_in_place(new, folder)
    except OSError as error:
        raise unwritable(folder, error) from error


def check_new(folder: Path) -> None:
    """Raise UserError if something has this name."""
    if folder.exists() or folder.is_symlink():
        raise UserError(f"{folder}: exists already; choose another folder, or remove this one")


def _names(data: DataConfig) -> tuple[str, str]:
    """The names of the files: by the languages, if they are known and differ."""
    src, tgt = (re.sub(r"[^\w.-]", "_", code or "") for code in (data.source_language, data.target_language))
    return (f"train.{src}", f"train.{tgt}") if src and tgt and src != tgt else ("train.src", "train.tgt")


def _inputs(data: DataConfig, known: ChecksumMemory) -> Mapping[str, list[dict[str, str]]]:
    """The files of each part of the text, with checksums of their bytes."""
    parts: dict[str, list[ParallelText]] = {"train": list(data.train)}
    parts |= {name: [text] for name, text in data.measured.items()}
    return {
        name: [
            {"file": str(path), CHECKSUM: known.checksum(path)}
            for dataset in datasets
            for path in dict.fromkeys(path for paths in paths_of(dataset).values() for path in paths)
        ]
        for name, datasets in parts.items()
    }
