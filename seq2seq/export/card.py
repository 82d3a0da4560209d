"""The model card, ``README.md`` of a model folder: what it is, what it learnt from, how good it is, how to use it.

A run writes it when it ends; an export has the same card with another last section. Users fill in the licence.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from seq2seq.config import Config, load_saved_config
from seq2seq.data.mixture import names_of
from seq2seq.data.tokenizer import TokenizerPair
from seq2seq.files import write_text
from seq2seq.model_folder import CONFIG, WEIGHTS, LoadedModel, read_beside
from seq2seq.tensors import read_metadata
from seq2seq.train.metrics import METRICS, read_metrics

CARD = "README.md"
_USAGE = "## How to use"
_OPEN_LICENCE = "Licence: *fill in; it must be allowed by the licences of the text below*"
_LICENCE = r"^Licence: .*$"
_OURS = """\
```bash
seq2seq translate . --input new.txt --output translated.txt
```

```python
import seq2seq

translator = seq2seq.Translator.load(".")  # this folder
print(translator.translate("..."))
```

`seq2seq export . --to ctranslate2 --output FOLDER` makes a copy for CTranslate2.
"""


def write_cards(run_dir: Path, num_parameters: int, sizes: Sequence[int]) -> None:
    """Write the cards of a finished run's models. The licence that an earlier card states stays.

    Args:
        sizes: how many pairs of each training dataset were learnt from.
    """
    for folder in (run_dir / "best", run_dir / "last"):
        if (folder / WEIGHTS).is_file():
            config, step = load_saved_config(folder / CONFIG), read_metadata(folder / WEIGHTS).get("step", "")
            scores = [*_scores(run_dir, step, tested=folder.name == "best")]
            tokenizers = TokenizerPair.load(folder)
            card = _card(config, tokenizers, step, num_parameters, sizes, scores) + f"{_USAGE}\n\n{_OURS}"
            if licence := re.search(_LICENCE, read_beside(folder, CARD) or "", re.MULTILINE):
                card = card.replace(_OPEN_LICENCE, licence[0])
            write_text(folder / CARD, card)


def card_for(loaded: LoadedModel, model: Path, usage: str) -> str:
    """The card of an export: that of the model, or one made from its config, with ``usage`` as its last section."""
    card = read_beside(model, CARD)
    if card is None:
        num_parameters = sum(parameter.numel() for parameter in loaded.model.parameters())
        card = _card(loaded.config, loaded.tokenizers, loaded.metadata.get("step", ""), num_parameters, (), ())
    head = card.split(f"{_USAGE}\n")[0].rstrip("\n")
    return f"{head}\n\n{_USAGE}\n\n{usage}"


def _card(
    config: Config,
    tokenizers: TokenizerPair,
    step: str,
    num_parameters: int,
    sizes: Sequence[int],
    scores: Sequence[str],
) -> str:
    """All but the last section."""
    data, model, decode = config.data, config.model, config.decode
    languages = f"{data.source_language or '?'} to {data.target_language or '?'}"
    vocabulary = f"{tokenizers.src.vocab_size:,} pieces for both sides"
    if not tokenizers.joint:
        vocabulary = f"{tokenizers.src.vocab_size:,} source and {tokenizers.tgt.vocab_size:,} target pieces"
    rows = [f"| {name} | {size} |" for name, size in _texts(config, sizes)]
    trained = f", {int(step):,} training steps" if step.isdecimal() else ""
    lines = [
        f"# Translation from {languages}",
        "",
        _OPEN_LICENCE,
        "",
        "## Model",
        "",
        f"A {model.architecture} model of {num_parameters:,} parameters: {model.encoder_layers} encoder and "
        f"{model.decoder_layers} decoder layers, {model.d_model} wide{trained}. Text is cut into pieces by "
        f"SentencePiece ({config.tokenizer.kind}, {vocabulary}). "
        f"A sentence may have {data.max_length:,} tokens. `config.yaml` of the model has every setting.",
        "",
        "## Text that it learnt from",
        "",
        *["| dataset | pairs |", "|---|---:|", *rows],
        "",
        "## Scores",
        "",
        *(scores or ["Not known."]),
        "",
        "## Search",
        "",
        f"Beam search with {decode.beam_size} hypotheses, length penalty {decode.length_penalty:g}, at most "
        f"{decode.max_length_ratio:g} x source tokens + {decode.max_length_offset} tokens.",
    ]
    if data.tags:
        lines.append(f"A tag before the source says how to translate: {', '.join(data.tags)}.")
    return "\n".join(lines) + "\n\n"


def _texts(config: Config, sizes: Sequence[int]) -> Iterator[tuple[str, str]]:
    """Name and number of pairs of every training dataset."""
    datasets = config.data.train
    known = [f"{size:,}" for size in sizes] or ["not known"] * len(datasets)
    for name, one, size in zip(names_of(datasets), datasets, known, strict=True):
        parts = (
            [name] + ([f"tag {one.tag}"] if one.tag else []) + ([f"weight {one.weight:g}"] if one.weight != 1 else [])
        )
        yield ", ".join(parts), size


def _scores(run_dir: Path, step: str, *, tested: bool) -> Iterator[str]:
    """A line for the validation at ``step``, and one for the test of the run, with signatures where they are known."""
    for record in read_metrics(run_dir / METRICS):
        if str(record["step"]) == step and "valid_bleu" in record:
            yield f"- validation: BLEU {record['valid_bleu']:.2f}, chrF {record['valid_chrf']:.2f}"
    if not tested:
        return
    with suppress(OSError, ValueError, KeyError, TypeError):
        test: dict[str, Any] = json.loads((run_dir / "test.json").read_text(encoding="utf-8"))
        bleu = f"BLEU {test['bleu']:.2f} (`{test['bleu_signature']}`)"
        yield f"- test, {test['num_lines']:,} lines: {bleu}, chrF {test['chrf']:.2f} (`{test['chrf_signature']}`)"
