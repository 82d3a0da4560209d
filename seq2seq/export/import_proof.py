"""The proof of an import: the same ids, the same log-probabilities and the same translations as in ``transformers``."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from seq2seq.data.packed import pack_pairs
from seq2seq.data.symbols import BOS_ID, EOS_ID, PAD_ID, UNK_ID
from seq2seq.data.tokenizer import Tokenizer
from seq2seq.decode.engine import Source, TorchEngine
from seq2seq.errors import ModelError
from seq2seq.export.huggingface import Reference
from seq2seq.export.marian_tokenizer import NO_ROW
from seq2seq.export.probe import random_ids
from seq2seq.model_folder import LoadedModel

TOLERANCE = 1e-4
_BEAM = 4
_RANDOM_TEXTS, _RANDOM_TOKENS = 16, 12
# What normalisers and tokenizers treat differently.
_TEXTS = (
    *("Hello, world!", "A man rides a horse, and two dogs play.", "  two   spaces  ", "Ａｂｃ １２３", "naïve café"),
    *(
        "e\u0301 \u00a0\u00ad\u2028x",
        "😀 👩‍👩‍👧 ☃☂",
        "中文，标点。",
        "Это — тест",
        "العربية",
        "1,234.56 %",
        "a\tb",
        "¿Qué?",
    ),
)


def prove(
    reference: Reference, loaded: LoadedModel, src_rows: Sequence[int], tgt_rows: Sequence[int]
) -> dict[str, object]:
    """Compare a model with its original, on fixed texts and on random ones of its own words.

    Args:
        src_rows, tgt_rows: their id for each of our ids.

    Returns:
        The report.

    Raises:
        ModelError: they differ; the message has the text.
    """
    pair = loaded.tokenizers
    tag = next(iter(pair.src.tags), None)
    texts = [*_TEXTS, *_random_texts(pair.src, 1)]
    sources = [[*pair.src.prefix(tag), *ids, EOS_ID] for ids in pair.src.encode(texts)]
    code = "" if tag is None else f">>{tag}<<"
    expected = reference.encode([code + text for text in texts])
    for text, ours, theirs in zip(texts, sources, expected, strict=True):
        _same([src_rows[i] for i in ours], theirs, f"the ids of the source {text!r}")
    targets = [*_TEXTS, *_random_texts(pair.tgt, 2)]
    unknown = reference.tokenizer.unk_token_id
    for text, own, theirs in zip(targets, pair.tgt.encode(targets), reference.encode_targets(targets), strict=True):
        if unknown not in theirs:  # a piece that their table lacks is not one of ours
            _same([tgt_rows[i] for i in [*own, EOS_ID]], theirs, f"the ids of the target {text!r}")

    decode = loaded.config.decode.model_copy(update={"beam_size": _BEAM, "length_penalty": 0.0, "n_best": 1})
    decode = decode.model_copy(update={"sample": False, "quantize": None, "no_repeat_ngram": 0})
    engine = TorchEngine([loaded.model], torch.float32)
    found = [best[0] for best in engine.search([Source(ids, (0, 0)) for ids in sources], decode)]
    never = (PAD_ID, UNK_ID, BOS_ID, *pair.tgt.tags.values())  # what our search does not choose
    reference.never = [tgt_rows[i] for i in never if tgt_rows[i] != NO_ROW]
    limits = [engine.longest_output(len(ids), decode) for ids in sources]
    outputs = [[*hypothesis.ids, EOS_ID] for hypothesis in found]
    originals = reference.translate(expected, _BEAM, limits)
    their_tables = reference.log_probs(expected, [[tgt_rows[i] for i in ids] for ids in outputs])
    largest = 0.0
    for text, src, tgt, table in zip(texts, sources, outputs, their_tables, strict=True):
        largest = max(largest, _largest_difference(loaded, src, tgt, table, tgt_rows))
        if not largest <= TOLERANCE:
            raise ModelError(
                f"the proof failed: log-probabilities of {text!r} differ by {largest:.1e} from transformers "
                f"{reference.version}; please report it"
            )
    for text, hypothesis, (ids, score) in zip(texts, found, originals, strict=True):
        if abs(hypothesis.log_prob - score) > 10 * TOLERANCE:  # two hypotheses may be equally good
            _same([tgt_rows[i] for i in hypothesis.ids], ids, f"the translation of {text!r}")
    return {
        "transformers": reference.version,
        "torch": torch.__version__,
        "texts": len(texts),
        "beam_size": _BEAM,
        "largest_difference": largest,
        "tolerance": TOLERANCE,
    }


def _random_texts(tokenizer: Tokenizer, seed: int) -> list[str]:
    """Texts of random pieces."""
    drawn = random_ids(tokenizer, _RANDOM_TEXTS, _RANDOM_TOKENS, seed)
    # Special tokens and language codes inside a text mean themselves for us, and something else for them.
    return [text for text in tokenizer.decode_batch(drawn) if text.strip() and not {"<", ">"} & set(text)]


def _same(ours: list[int], theirs: list[int], name: str) -> None:
    if ours != theirs:
        raise ModelError(f"the proof failed: {name}: {ours} here, but {theirs} in transformers; please report it")


@torch.inference_mode()
def _largest_difference(
    loaded: LoadedModel, src: list[int], tgt: list[int], theirs: Tensor, rows: Sequence[int]
) -> float:
    """Between our log-probabilities and theirs, [T, their V], over all tokens that both have."""
    lengths = np.array([len(src)]), np.array([len(tgt)])
    batch = pack_pairs(np.array(src), lengths[0], np.array(tgt), lengths[1])
    ours = loaded.model.logits(loaded.model(batch)).log_softmax(dim=-1)
    wanted = torch.tensor(rows)
    kept = wanted >= 0
    return float((ours[:, kept] - theirs[:, wanted[kept]]).abs().max())
