"""What all benchmarks are told."""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Options:
    """The command line, with defaults filled in."""

    size: str
    device: str
    peers: tuple[str, ...]
    src: tuple[Path, ...]
    tgt: tuple[Path, ...]
    threads: int
    rounds: int
    out: Path
    vocab_size: int
    batch_tokens: int
    warmup: int
    steps: int
    model: Path | None
    lines: int | None
    latency_lines: int
    length_penalty: float | None
    int8: bool
    variants: tuple[str, ...]
    dropout: float


@dataclass(frozen=True)
class Program:
    """Something to measure: the job's module, and what it is called in the report."""

    name: str
    title: str
    module: str
    ours: bool = False


def choose(known: Sequence[str], wanted: Sequence[str], package: str) -> tuple[list[Program], list[str]]:
    """The peers to run, and a line for each one that cannot be.

    Args:
        known: names of modules in ``package``, which state TITLE, MODULE (to be imported) and INSTALL.
        wanted: the names asked for.
    """
    programs, missing = [], []
    for name in known:
        if name not in wanted:
            continue
        peer = _load(package, name)
        if importlib.util.find_spec(peer.MODULE) is None:
            missing.append(f"{peer.TITLE}: not installed: {peer.INSTALL}")
        else:
            programs.append(Program(name, peer.TITLE, f"{package}.{name}"))
    return programs, missing


def _load(package: str, name: str) -> ModuleType:
    return importlib.import_module(f"{package}.{name}")
