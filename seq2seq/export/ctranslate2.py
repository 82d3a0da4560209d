"""Export to CTranslate2: its model, our tokenizers, and how to use them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from seq2seq.data.tokenizer import Tokenizer
from seq2seq.decode.ctranslate2_model import (
    ComputeType,
    ConvertedModel,
    check_pieces,
    library,
    num_positions,
    why_not,
    write_model,
)
from seq2seq.errors import UserError
from seq2seq.export.parity import Scored
from seq2seq.model.transformer import Transformer
from seq2seq.model_folder import LoadedModel

_USAGE = """\
This folder is a model for [CTranslate2](https://github.com/OpenNMT/CTranslate2) (`pip install ctranslate2
sentencepiece`). The weights are fp32; `compute_type="int8"` computes in 8-bit integers, which is faster on a CPU.
`parity.txt` says how its translations compare with those of the program that trained it.

```python
import unicodedata, sentencepiece, ctranslate2

model = "."  # this folder
src = sentencepiece.SentencePieceProcessor(model_file=f"{{model}}/{src}")
tgt = sentencepiece.SentencePieceProcessor(model_file=f"{{model}}/{tgt}")
translator = ctranslate2.Translator(model, compute_type="float32")
text = "..."{normalise}
pieces = {tag}src.encode(text, out_type=str)
options = dict(beam_size={beam_size}, {options})
result = translator.translate_batch([pieces], **options)
print(tgt.decode(result[0].hypotheses[0]))
```

`max_input_length=0` matters: without it, CTranslate2 silently cuts sources at 1,024 tokens. The program that trained
the model also leaves out invisible characters of a source, such as soft hyphens. CTranslate2's `length_penalty` is
another one than ours: a score is divided by length ** penalty, ours by ((5 + length) / 6) ** penalty, so that rankings
can differ. {limit}
"""


def check(loaded: LoadedModel) -> None:
    """Raise UserError if CTranslate2 is missing, or cannot compute the model."""
    if (reason := why_not(loaded.model)) is not None:
        raise UserError(reason)
    library()
    check_pieces(_pieces(loaded.tokenizers.src), _pieces(loaded.tokenizers.tgt))


def convert(loaded: LoadedModel, folder: Path) -> None:
    """Write the model and the tokenizers into an existing folder."""
    write_model(loaded.model, _pieces(loaded.tokenizers.src), _pieces(loaded.tokenizers.tgt), folder)
    loaded.tokenizers.save(folder)


def translate(
    folder: Path,
    source_ids: Sequence[Sequence[int]],
    beam_size: int,
    max_length: int,
    compute_type: ComputeType = "float32",
) -> list[Scored]:
    """The best translation of each source, which ends with EOS, computed by CTranslate2.

    ``max_length``: tokens of an output, EOS included.
    """
    sources = [ids[:-1] for ids in source_ids]
    found = ConvertedModel(folder, compute_type).search(sources, beam_size, [max_length] * len(sources))
    return [Scored(hypotheses[0].ids, hypotheses[0].log_prob) for hypotheses in found]


def translate_int8(folder: Path, source_ids: Sequence[Sequence[int]], beam_size: int, max_length: int) -> list[Scored]:
    """:func:`translate` with 8-bit integers."""
    return translate(folder, source_ids, beam_size, max_length, "int8")


def usage(loaded: LoadedModel) -> str:
    """How to use the export, in Markdown."""
    decode, pair = loaded.config.decode, loaded.tokenizers
    src, tgt = ["tokenizer.model"] * 2 if pair.joint else ["tokenizer.src.model", "tokenizer.tgt.model"]
    normalise = ""
    if pair.src.normalises:
        normalise = '\ntext = unicodedata.normalize("NFC", " ".join(text.split()))'
    tag = f'["<{decode.tag or next(iter(pair.src.tags))}>"] + ' if pair.src.tags else ""
    options = f"length_penalty={decode.length_penalty:g}, max_input_length=0, min_decoding_length=0"
    assert isinstance(loaded.model, Transformer)
    limit = num_positions(loaded.model)
    return _USAGE.format(
        src=src,
        tgt=tgt,
        normalise=normalise,
        tag=tag,
        beam_size=decode.beam_size,
        options=options,
        limit="" if limit is None else f"No sentence may have more than {limit:,} tokens, on either side.",
    )


def _pieces(tokenizer: Tokenizer) -> list[str]:
    return tokenizer.pieces(range(tokenizer.vocab_size))
