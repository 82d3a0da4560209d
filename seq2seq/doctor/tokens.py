"""Findings about tokens: pieces per word, unknown characters, lengths, and pairs that the filters skip."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from itertools import chain

import numpy as np
from numpy.typing import NDArray

from seq2seq.config import Config
from seq2seq.data.corpus import Corpus, why_left_out
from seq2seq.data.corpus_writer import SIDES, Side
from seq2seq.data.formats.lines import printable
from seq2seq.data.inspection import PartFacts, main_script, read_places, script_names
from seq2seq.data.prepare import PreparedData
from seq2seq.data.symbols import UNK_ID
from seq2seq.data.tokenizer import Tokenizer
from seq2seq.doctor.report import FERTILITY, NUM_EXAMPLES, Section, Verdict, judged, shown
from seq2seq.languages import UNSPACED_SCRIPTS

_NAMES = {"src": "source", "tgt": "target"}
_PORTION = 100_000  # pairs in memory at a time
_MANY_SPELLED = 10_000  # byte pieces to find the most frequent characters in
_UNLIKE = 4.0  # times the tokens of the other side


def judge_tokens(config: Config, data: PreparedData, train: PartFacts) -> Section:
    """Findings about the tokenizer and its corpora."""
    tokenizers, corpus = data.tokenizers, data.train
    sizes = sorted({tokenizers.src.vocab_size, tokenizers.tgt.vocab_size})
    vocabulary = "one vocabulary for both sides" if tokenizers.joint else "a vocabulary for each side"
    lowered = " (lowered: the text is too small for more)" if sizes[0] < config.tokenizer.vocab_size else ""
    verdicts = [Verdict("ok", f"{vocabulary}, {' and '.join(f'{size:,}' for size in sizes)} pieces{lowered}")]
    for side, tokenizer in zip(SIDES, (tokenizers.src, tokenizers.tgt), strict=True):
        verdicts.append(_judge_fertility(side, corpus, train))
        verdicts += _judge_unknown(side, tokenizer, corpus, train)
    verdicts += _judge_lengths(config, data)
    verdicts += _judge_left_out(config, data, train)
    return Section("Tokens", verdicts)


def _judge_fertility(side: Side, corpus: Corpus, train: PartFacts) -> Verdict:
    lengths = corpus.src_lengths if side == "src" else corpus.tgt_lengths
    whole = train.pairs[SIDES.index(side)]
    lines = whole[corpus.lines]
    pieces = int(lengths.sum()) - len(lengths)
    spaced = script_names()[main_script(whole)] not in UNSPACED_SCRIPTS
    unit = "word" if spaced else "character"
    fertility = pieces / max(1, int(lines["words" if spaced else "chars"].sum()))
    text = f"{_NAMES[side]}: {fertility:.2f} pieces per {unit}"
    if fertility <= FERTILITY[unit]:
        return Verdict("ok", text)
    advice = "words are cut into many small pieces: raise tokenizer.vocab_size, or add training text"
    return Verdict("doubtful", text, advice)


def _judge_unknown(side: Side, tokenizer: Tokenizer, corpus: Corpus, train: PartFacts) -> Iterator[Verdict]:
    """Shares of unknown pieces and of byte pieces."""
    values = tokenizer.byte_values()
    special = {"unknown": np.array([UNK_ID]), "bytes": np.array(list(values), dtype=np.int64)}
    counts = np.zeros(tokenizer.vocab_size, np.int64)
    spelled: Counter[str] = Counter()
    first: dict[str, int] = {}  # the first pair of each kind
    for start in range(0, corpus.num_pairs, _PORTION):
        ids, lengths = corpus.take(side, np.arange(start, min(start + _PORTION, corpus.num_pairs)))
        counts += np.bincount(ids, minlength=tokenizer.vocab_size)
        for kind, wanted in special.items():
            places = np.flatnonzero(np.isin(ids, wanted))
            if len(places) and kind not in first:
                first[kind] = start + int(np.searchsorted(np.cumsum(lengths), places[0], side="right"))
            if kind == "bytes" and not spelled:
                spelled.update(_spelled(ids[places], places, values))
    total = int(counts.sum()) - corpus.num_pairs
    for kind, name in (("unknown", "unknown characters"), ("bytes", "characters spelled as bytes")):
        number = int(counts[special[kind]].sum())
        found = [train.places(int(corpus.lines[first[kind]]))[SIDES.index(side)]] if kind in first else []
        examples = [shown((place,), read_places(found)) for place in found]
        if kind == "bytes" and spelled:
            examples.insert(0, "mostly " + " ".join(printable(c, 12) for c, _ in spelled.most_common(12)))
        yield judged(kind, f"{_NAMES[side]}: {name}: {{count}} of the pieces", number, total, examples)


def _spelled(ids: NDArray[np.int64], places: NDArray[np.int64], values: dict[int, int]) -> list[str]:
    """The characters spelled by the first ``_MANY_SPELLED`` byte pieces, which have these places in a stream."""
    ids, places = ids[:_MANY_SPELLED], places[:_MANY_SPELLED]
    runs = np.split(ids, np.flatnonzero(np.diff(places) > 1) + 1) if len(ids) else []
    return [character for run in runs for character in bytes(values[i] for i in run.tolist()).decode("utf-8", "ignore")]


def _judge_lengths(config: Config, data: PreparedData) -> Iterator[Verdict]:
    corpus = data.train
    sides = (corpus.src_lengths, corpus.tgt_lengths)
    numbers = [[int(np.quantile(lengths, share)) for lengths in sides] for share in (0.5, 0.99, 1.0)]
    words = [f"{src:,} and {tgt:,}" for src, tgt in numbers]
    yield Verdict("ok", f"tokens, source and target: median {words[0]}, 99 % up to {words[1]}, longest {words[2]}")
    longer = np.maximum(data.valid.src_lengths, data.valid.tgt_lengths)
    if long := int((longer > config.data.max_length).sum()):
        what = f"validation pairs above data.max_length ({config.data.max_length}): {{count}}"
        yield judged("too long", what, long, data.valid.num_pairs)


def _judge_left_out(config: Config, data: PreparedData, train: PartFacts) -> Iterator[Verdict]:
    """Pairs that the filters skip, and pairs that data.max_ratio could skip."""
    corpus = data.train
    counts = corpus.counts
    left_out = train.filled.copy()
    left_out[corpus.lines] = False
    spots = [train.places(pair) for pair in np.flatnonzero(left_out)[: 20 * NUM_EXAMPLES].tolist()]
    texts = read_places(chain.from_iterable(spots))
    examples: dict[str, list[str]] = {"too long": [], "ratio": []}
    for spot in spots:
        both = zip((data.tokenizers.src, data.tokenizers.tgt), spot, strict=True)
        lengths = [len(tokenizer.encode([texts[place].decode()])[0]) + 1 for tokenizer, place in both]
        reason = why_left_out(lengths[0], lengths[1], config.data.max_length, config.data.max_ratio)
        if reason is None:  # held out for validation
            continue
        examples["ratio" if reason == "ratio" else "too long"].append(
            shown(spot[:1], texts, f"{lengths[0]:,} and {lengths[1]:,} tokens")
        )
    what = f"pairs above data.max_length ({config.data.max_length} tokens): {{count}}"
    yield judged("too long", what, counts.too_long, counts.read, examples["too long"][:NUM_EXAMPLES])
    if config.data.max_ratio is not None:
        what = f"pairs above data.max_ratio ({config.data.max_ratio:g}): {{count}}"
        yield judged("ratio", what, counts.ratio, counts.read, examples["ratio"][:NUM_EXAMPLES])
        return
    shorter, longer = np.sort(np.stack([corpus.src_lengths, corpus.tgt_lengths]), axis=0)
    unlike = np.flatnonzero(longer > _UNLIKE * shorter)
    spots = [train.places(pair) for pair in corpus.lines[unlike[:NUM_EXAMPLES]].tolist()]
    texts = read_places(chain.from_iterable(spots))
    what = f"pairs that data.max_ratio: {_UNLIKE:g} would skip: {{count}}"
    yield judged("unlike", what, len(unlike), corpus.num_pairs, [shown(spot, texts) for spot in spots])
