"""Training of the tokenizers of both sides, on the pairs that training keeps.

The filters of training count tokens, so they need a tokenizer. A first tokenizer is trained on all pairs except those
that are too long with any tokenizer. The filters are then applied with it. If they leave pairs out, the tokenizer is
trained again without these pairs, so that lines of base64 or tables do not change the vocabulary.
"""

import random
from collections.abc import Iterable, Sequence
from typing import TypeVar

from seq2seq.data.bitext import SentencePair
from seq2seq.data.corpus import Filters
from seq2seq.data.normalise import normalise
from seq2seq.data.tokenizer import Tokenizer, TokenizerPair, TokenizerSpec, train_tokenizer
from seq2seq.errors import DataError

T = TypeVar("T")

# Characters per token: more than sentences of any language have with a usual vocabulary, and the fewest possible. A
# rare line with more than _MOST is only missing from the tokenizer's text.
_MOST, _FEWEST = 6, 1


def learn_tokenizers(
    pairs: Iterable[SentencePair],
    spec: TokenizerSpec,
    filters: Filters,
    *,
    joint: bool,
    normalise_source: bool,
    max_sentences: int = 500_000,
) -> tuple[TokenizerPair, list[str]]:
    """Train one tokenizer for both sides (``joint``) or one for each, and make a pair of them.

    Args:
        pairs: the whole training text; at most ``max_sentences`` lines per tokenizer are sampled from it.

    Returns:
        the pair and notices for the user. The same arguments give the same tokenizers.

    Raises:
        DataError: no pair is short enough, or a tokenizer cannot be trained on the text.
    """
    read = (pair._replace(src=normalise(pair.src)) if normalise_source else pair for pair in pairs)
    sample = _reservoir((pair for pair in read if _may_be_kept(pair, filters, _MOST)), max_sentences // (1 + joint))
    if not sample:
        raise DataError(
            "cannot train a tokenizer: no training pair has text on both sides and is short enough for data.max_length "
            f"({filters.max_length}); check the training files"
        )
    first = sample
    try:
        tokenizers, notices = _train(first, spec, joint)
    except DataError:  # possibly because of lines that the filters leave out
        first = [pair for pair in sample if _may_be_kept(pair, filters, _FEWEST)]
        if not first:
            raise
        tokenizers, notices = _train(first, spec, joint)
    sides = tokenizers.src.encode([pair.src for pair in sample]), tokenizers.tgt.encode([pair.tgt for pair in sample])
    lengths = zip(*sides, strict=True)
    kept = [p for p, (s, t) in zip(sample, lengths, strict=True) if filters.reason(len(s) + 1, len(t) + 1) is None]
    if kept and kept != first:
        tokenizers, notices = _train(kept, spec, joint)
    return tokenizers.normalising() if normalise_source else tokenizers, notices


def _may_be_kept(pair: SentencePair, filters: Filters, characters: int) -> bool:
    """Whether training keeps the pair if every token has this many characters."""
    most = float("inf") if filters.max_length is None else characters * filters.max_length
    return all(text.strip() and len(text) <= most for text in (pair.src, pair.tgt))


def _train(pairs: Sequence[SentencePair], spec: TokenizerSpec, joint: bool) -> tuple[TokenizerPair, list[str]]:
    texts = [[text for pair in pairs for text in (pair.src, pair.tgt)]]
    if not joint:
        texts = [[pair.src for pair in pairs], [pair.tgt for pair in pairs]]
    trained: list[tuple[Tokenizer, str | None]] = [train_tokenizer(side, spec) for side in texts]
    return TokenizerPair(trained[0][0], trained[-1][0]), [notice for _, notice in trained if notice]


def _reservoir(items: Iterable[T], size: int) -> list[T]:
    """A uniform sample of at most ``size`` items (algorithm R); fewer items are returned in their order."""
    rng = random.Random(0)
    kept: list[T] = []
    for number, item in enumerate(items):
        if number < size:
            kept.append(item)
        elif (place := rng.randrange(number + 1)) < size:
            kept[place] = item
    return kept
