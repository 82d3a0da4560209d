"""Findings about tokens: pieces per word, unknown characters, lengths, and pairs that the filters skip."""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import chain

import numpy as np
from numpy.typing import NDArray

from seq2seq.config import Config, HeldOut
from seq2seq.data.corpus import Corpus, why_left_out
from seq2seq.data.corpus_writer import SIDES, Side
from seq2seq.data.formats.lines import printable
from seq2seq.data.held_out import source_hash
from seq2seq.data.inspection import PartFacts, main_script, read_both, read_places, script_names
from seq2seq.data.prepare import PreparedData
from seq2seq.data.symbols import UNK_ID
from seq2seq.data.tokenizer import Tokenizer
from seq2seq.doctor.cases import cases_of_pairs
from seq2seq.doctor.report import FERTILITY, NUM_EXAMPLES, Section, Verdict, judged, shown
from seq2seq.languages import UNSPACED_SCRIPTS

_NAMES = {"src": "source", "tgt": "target"}
# The names in a list of all cases: other programs look for them, so they do not change.
_LISTED = {"unknown": "unknown character", "bytes": "spelled as bytes"}
_PORTION = 100_000  # pairs in memory at a time
_MANY_SPELLED = 10_000  # byte pieces to find the most frequent characters in
_UNLIKE = 4.0  # times the tokens of the other side


def judge_tokens(config: Config, data: PreparedData, parts: Mapping[str, PartFacts]) -> Section:
    """Findings about the tokenizer and its corpora."""
    tokenizers, corpus, train = data.tokenizers, data.train, parts["train"]
    sizes = sorted({tokenizers.src.vocab_size, tokenizers.tgt.vocab_size})
    vocabulary = "one vocabulary for both sides" if tokenizers.joint else "a vocabulary for each side"
    lowered = " (lowered: the text is too small for more)" if sizes[0] < config.tokenizer.vocab_size else ""
    verdicts = [Verdict("ok", f"{vocabulary}, {' and '.join(f'{size:,}' for size in sizes)} pieces{lowered}")]
    for side, tokenizer in zip(SIDES, (tokenizers.src, tokenizers.tgt), strict=True):
        verdicts.append(_judge_fertility(side, corpus, train))
        verdicts += _judge_unknown(side, tokenizer, corpus, train)
    left_out = _find_left_out(config, data, train)
    # Held-out pairs are numbered in the order of the training text.
    valid = (parts["valid"], data.valid.lines) if "valid" in parts else (train, left_out.held_out[data.valid.lines])
    verdicts += _judge_lengths(config, data, *valid)
    verdicts += _judge_left_out(config, data, train, left_out)
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
    having: dict[str, list[NDArray[np.int64]]] = {kind: [np.empty(0, np.int64)] for kind in special}  # sentences
    for start in range(0, corpus.num_pairs, _PORTION):
        ids, lengths = corpus.take(side, np.arange(start, min(start + _PORTION, corpus.num_pairs)))
        counts += np.bincount(ids, minlength=tokenizer.vocab_size)
        for kind, wanted in special.items():
            places = np.flatnonzero(np.isin(ids, wanted))
            having[kind].append(start + np.unique(np.searchsorted(np.cumsum(lengths), places, side="right")))
            if kind == "bytes" and not spelled:
                spelled.update(_spelled(ids[places], places, values))
    total = int(counts.sum()) - corpus.num_pairs
    for kind, name in (("unknown", "unknown characters"), ("bytes", "characters spelled as bytes")):
        number = int(counts[special[kind]].sum())
        cases = cases_of_pairs(_LISTED[kind], train, corpus.lines[np.concatenate(having[kind])], SIDES.index(side))
        spots = [cases.spot(i) for i in range(len(cases))[:1]]
        examples = [shown(spot, read_places(spot)) for spot in spots]
        if kind == "bytes" and spelled:
            examples.insert(0, "mostly " + " ".join(printable(c, 12) for c, _ in spelled.most_common(12)))
        yield judged(kind, f"{_NAMES[side]}: {name}: {{count}} of the pieces", number, total, examples, cases)


def _spelled(ids: NDArray[np.int64], places: NDArray[np.int64], values: dict[int, int]) -> list[str]:
    """The characters spelled by the first ``_MANY_SPELLED`` byte pieces, which have these places in a stream."""
    ids, places = ids[:_MANY_SPELLED], places[:_MANY_SPELLED]
    runs = np.split(ids, np.flatnonzero(np.diff(places) > 1) + 1) if len(ids) else []
    return [character for run in runs for character in bytes(values[i] for i in run.tolist()).decode("utf-8", "ignore")]


def _judge_lengths(
    config: Config, data: PreparedData, part: PartFacts, valid_pairs: NDArray[np.int64]
) -> Iterator[Verdict]:
    """``valid_pairs``: the number in ``part`` of each pair of the validation corpus."""
    corpus = data.train
    sides = (corpus.src_lengths, corpus.tgt_lengths)
    numbers = [[int(np.quantile(lengths, share)) for lengths in sides] for share in (0.5, 0.99, 1.0)]
    words = [f"{src:,} and {tgt:,}" for src, tgt in numbers]
    yield Verdict("ok", f"tokens, source and target: median {words[0]}, 99 % up to {words[1]}, longest {words[2]}")
    longer = np.maximum(data.valid.src_lengths, data.valid.tgt_lengths)
    long = valid_pairs[longer > config.data.max_length]
    if len(long):
        what = f"validation pairs above data.max_length ({config.data.max_length}): {{count}}"
        cases = cases_of_pairs("validation too long", part, long)
        yield judged("too long", what, len(long), data.valid.num_pairs, (), cases)


@dataclass(frozen=True)
class _LeftOut:
    """Pairs of the training text that are not in its corpus, though both sides have text."""

    pairs: dict[str, NDArray[np.int64]]  # by reason, as why_left_out names it
    lengths: dict[int, tuple[int, int]]  # tokens of the first pairs of each reason
    held_out: NDArray[np.int64]  # the pairs to validate on, if they are taken out of the training text


def _find_left_out(config: Config, data: PreparedData, train: PartFacts) -> _LeftOut:
    """Encode them once more: the corpus knows how many there are, but not which ones."""
    left_out = train.filled.copy()
    left_out[data.train.lines] = False
    if data.cleaned is not None:
        left_out &= np.asarray(data.cleaned.codes) == 0
    missing: set[int] = set()
    if isinstance(config.data.valid, HeldOut):
        missing.update(map(source_hash, data.valid_text.src))
    known, found = frozenset(missing), {"too_long": array("q"), "ratio": array("q"), "empty": array("q")}
    held_out, shown_lengths = array("q"), {}
    pairs = np.flatnonzero(left_out)
    files, lines = train.locate(pairs)
    for number, (src, tgt) in enumerate(zip(train.src, train.tgt, strict=True)):
        here = files == number
        texts = read_both(src, tgt, lines[here].tolist()) if here.any() else ()
        more = 1 + len(data.tokenizers.src.prefix(src.file.dataset.tag))  # the end of the sentence, and a tag
        for pair, both in zip(pairs[here].tolist(), texts, strict=True):
            source, target = (text.decode("utf-8", "replace") for text in both)
            if (key := source_hash(source)) in known:
                if key in missing:
                    held_out.append(pair)
                    missing.remove(key)
                continue
            src_tokens, tgt_tokens = data.tokenizers.src.encode([source])[0], data.tokenizers.tgt.encode([target])[0]
            tokens = len(src_tokens) + more, len(tgt_tokens) + 1
            reason = why_left_out(*tokens, config.data.max_length, config.data.max_ratio)
            if reason is None:  # the text was changed meanwhile
                continue
            found[reason].append(pair)
            if len(found[reason]) <= NUM_EXAMPLES:
                shown_lengths[pair] = tokens
    return _LeftOut({reason: _numbers(some) for reason, some in found.items()}, shown_lengths, _numbers(held_out))


def _numbers(pairs: array[int]) -> NDArray[np.int64]:
    return np.array(pairs, np.int64)


def _judge_left_out(config: Config, data: PreparedData, train: PartFacts, left_out: _LeftOut) -> Iterator[Verdict]:
    """Pairs that the filters skip, and pairs that data.max_ratio could skip."""
    corpus, limits = data.train, config.data
    kinds = [("too long", "too_long", "too long", f"data.max_length ({limits.max_length} tokens)")]
    if limits.max_ratio is not None:
        kinds.append(("ratio", "ratio", "too different lengths", f"data.max_ratio ({limits.max_ratio:g})"))
    for kind, reason, name, limit in kinds:
        pairs = left_out.pairs[reason]
        spots = [train.places(pair)[:1] for pair in pairs[:NUM_EXAMPLES].tolist()]
        texts = read_places(chain.from_iterable(spots))
        notes = ["{:,} and {:,} tokens".format(*left_out.lengths[pair]) for pair in pairs[:NUM_EXAMPLES].tolist()]
        examples = [shown(spot, texts, note) for spot, note in zip(spots, notes, strict=True)]
        what = f"pairs above {limit}: {{count}}"
        yield judged(kind, what, len(pairs), corpus.counts.read, examples, cases_of_pairs(name, train, pairs))
    if limits.max_ratio is None:
        shorter, longer = np.sort(np.stack([corpus.src_lengths, corpus.tgt_lengths]), axis=0)
        cases = cases_of_pairs("unlike token counts", train, corpus.lines[longer > _UNLIKE * shorter])
        shown_spots = [cases.spot(i) for i in range(len(cases))[:NUM_EXAMPLES]]
        texts = read_places(chain.from_iterable(shown_spots))
        what = f"pairs that data.max_ratio: {_UNLIKE:g} would skip: {{count}}"
        examples = [shown(spot, texts) for spot in shown_spots]
        yield judged("unlike", what, len(cases), corpus.num_pairs, examples, cases)
