"""Training of the tokenizers of both sides, on the pairs that training keeps.

The filters of training count tokens, so they need a tokenizer. A first tokenizer is trained on all pairs except those
that are too long with any tokenizer. The filters are then applied with it. If they leave pairs out, the tokenizer is
trained again without these pairs, so that lines of base64 or tables do not change the vocabulary.
"""

import random
from collections.abc import Iterable, Sequence
from typing import TypeVar

from seq2seq.config import TokenizerConfig
from seq2seq.data.corpus import why_left_out
from seq2seq.data.formats.pairs import SentencePair
from seq2seq.data.normalise import normalise
from seq2seq.data.tokenizer import TokenizerPair, train_tokenizer
from seq2seq.errors import DataError

T = TypeVar("T")

# Characters per token: more than sentences of any language have with a usual vocabulary, and the fewest possible. A
# rare line with more than _MOST is only missing from the tokenizer's text.
_MOST, _FEWEST = 6, 1


def learn_tokenizers(
    pairs: Iterable[SentencePair],
    config: TokenizerConfig,
    *,
    tags: Sequence[str] = (),
    max_length: int | None = None,
    max_ratio: float | None = None,
    max_sentences: int = 500_000,
) -> tuple[TokenizerPair, list[str]]:
    """Train one tokenizer for both sides (``config.joint``) or one for each, and make a pair of them.

    Args:
        pairs: the whole training text; at most ``max_sentences`` lines per tokenizer are sampled from it.
        tags: of the source side; with ``config.joint`` both sides have them.
        max_length, max_ratio: limits of training (:func:`why_left_out`).

    Returns:
        the pair and notices for the user. The same arguments give the same tokenizers.

    Raises:
        DataError: no pair is short enough, or a tokenizer cannot be trained on the text.
    """

    def may_be_kept(pair: SentencePair, characters: int) -> bool:
        """Whether training keeps the pair if every token has this number of characters."""
        most = float("inf") if max_length is None else characters * max_length
        return all(text.strip() and len(text) <= most for text in (pair.src, pair.tgt))

    def is_kept(src: Sequence[int], tgt: Sequence[int]) -> bool:
        return why_left_out(len(src) + 1, len(tgt) + 1, max_length, max_ratio) is None

    read = (pair._replace(src=normalise(pair.src)) if config.normalise_source else pair for pair in pairs)
    sample = _reservoir((pair for pair in read if may_be_kept(pair, _MOST)), max_sentences // (1 + config.joint))
    if not sample:
        raise DataError(
            "cannot train a tokenizer: no training pair has text on both sides and is short enough for data.max_length "
            f"({max_length}); check the training files"
        )
    first = sample
    try:
        tokenizers, notices = _train(first, config, tags)
    except DataError:  # possibly because of lines that the filters leave out
        first = [pair for pair in sample if may_be_kept(pair, _FEWEST)]
        if not first:
            raise
        tokenizers, notices = _train(first, config, tags)
    sides = tokenizers.src.encode([pair.src for pair in sample]), tokenizers.tgt.encode([pair.tgt for pair in sample])
    kept = [pair for pair, src, tgt in zip(sample, *sides, strict=True) if is_kept(src, tgt)]
    if kept and kept != first:
        tokenizers, notices = _train(kept, config, tags)
    return tokenizers.normalising() if config.normalise_source else tokenizers, notices


def _train(
    pairs: Sequence[SentencePair], config: TokenizerConfig, tags: Sequence[str]
) -> tuple[TokenizerPair, list[str]]:
    texts = [[text for pair in pairs for text in (pair.src, pair.tgt)]]
    if not config.joint:
        texts = [[pair.src for pair in pairs], [pair.tgt for pair in pairs]]
    of_sides = (tags, ())  # a target has none
    trained = [train_tokenizer(side, config, own) for side, own in zip(texts, of_sides, strict=False)]
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
