"""The programs to measure: which there are, and which are installed."""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Sequence
from dataclasses import dataclass

# Modules of ``bench.peers`` and ``bench.translators``; each has TITLE, MODULE (to be imported) and INSTALL.
PEERS = ("nn_transformer", "marian", "opennmt", "eole", "joeynmt")
TRANSLATORS = ("ctranslate2", "transformers")
_KINDS = {"peers": ("bench.padded", PEERS), "translators": ("bench.decoding", TRANSLATORS)}  # with the job for each


@dataclass(frozen=True)
class Program:
    """Something to measure: the job, and what it is called in the report."""

    name: str
    title: str
    job: str
    ours: bool = False


def choose(kind: str, wanted: Sequence[str]) -> tuple[list[Program], list[str]]:
    """The programs to run of those wanted, and a line for each one that is not installed.

    Args:
        kind: ``peers`` or ``translators``; wanted names of the other kind are passed over.
    """
    runner, names = _KINDS[kind]
    programs, missing = [], []
    for name in names:
        if name not in wanted:
            continue
        program = importlib.import_module(f"bench.{kind}.{name}")
        if importlib.util.find_spec(program.MODULE) is None:
            missing.append(f"{program.TITLE}: not installed: {program.INSTALL}")
        else:
            programs.append(Program(name, program.TITLE, f"{runner}:{name}"))
    return programs, missing
