"""The probe set of a proof: a file of the user, else lines kept with the model, else random tokens."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from seq2seq.data.formats.lines import read_text
from seq2seq.data.symbols import EOS_ID
from seq2seq.data.tokenizer import Tokenizer
from seq2seq.errors import UserError
from seq2seq.model_folder import PROBE, LoadedModel, read_beside

_RANDOM_LINES, _RANDOM_TOKENS = 100, 30


@dataclass(frozen=True)
class Probe:
    """Sources to translate with both programs."""

    origin: str  # where they come from, for the report
    texts: list[str]
    ids: list[list[int]]  # with the tag, if any, and with EOS
    numbers: list[int]  # the line of each in the file, from 0


def read_probe(loaded: LoadedModel, model: Path, file: Path | None) -> Probe:
    """The probe set; long lines are cut to what the model reads, and blank lines are left out.

    Args:
        model: the folder of the model, which may have lines of its own.
        file: text of the user.

    Raises:
        DataError: the file cannot be read.
        UserError: it has no line with text.
    """
    if file is not None:
        lines, origin = read_text(file), file.name
    else:
        lines, origin = (read_beside(model, PROBE) or "").split("\n"), f"{PROBE} of the model"
    numbers = [number for number, line in enumerate(lines) if line.strip()]
    if not numbers and file is not None:
        raise UserError(f"--probe: {file} has no line with text")
    tokenizer = loaded.tokenizers.src
    prefixes = _prefixes(loaded)
    limit = loaded.config.data.max_length - 1 - max(map(len, prefixes))
    if numbers:
        texts = [lines[number] for number in numbers]
        ids = tokenizer.encode(texts)
    else:
        origin = "random tokens, because the model has no text of its own"
        ids = random_ids(tokenizer, _RANDOM_LINES, min(limit, _RANDOM_TOKENS))
        numbers, texts = [*range(len(ids))], tokenizer.decode_batch(ids)
    whole = [[*prefixes[at % len(prefixes)], *tokens[:limit], EOS_ID] for at, tokens in enumerate(ids)]
    return Probe(origin, texts, whole, numbers)


def _prefixes(loaded: LoadedModel) -> list[list[int]]:
    """What stands before the sources: every tag in turn, and nothing if the model can do without."""
    needs_tag = all(text.tag is not None for text in loaded.config.data.train)
    tags: Sequence[str | None] = [*([] if needs_tag else [None]), *loaded.tokenizers.src.tags]
    return [loaded.tokenizers.src.prefix(tag) for tag in tags]


def random_ids(tokenizer: Tokenizer, count: int, longest: int, seed: int = 0) -> list[list[int]]:
    """``count`` sequences of 1 to ``longest`` ids that text can have: no special tokens, and no tags."""
    rng = np.random.default_rng(seed)
    usable = sorted({*range(EOS_ID + 1, tokenizer.vocab_size)}.difference(tokenizer.tags.values()))
    lengths = rng.integers(1, longest, size=count, endpoint=True)
    return [rng.choice(usable, size=length).tolist() for length in lengths] if usable else []
