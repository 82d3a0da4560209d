"""Text to piece ids and back: SentencePiece behind one small class.

Text is not normalised, only spaces are: runs become one, those at the ends go. Every other character comes back as it
went in, so the full-width punctuation of a Chinese target survives training and decoding. (The usual ``nmt_nfkc`` rule
would turn it into ASCII and cost every exact match.) CR, LF and U+2581, SentencePiece's mark for a space, are read as
spaces, so no model learns to write a line break.

Sampled segmentations are drawn here and not by SentencePiece, whose generator gives different samples in every process
however it is seeded. A piece never spans a space, so a sentence is sampled word by word and words are cached.
"""

import hashlib
import heapq
import io
import math
import os
import random
import re
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Literal, NamedTuple, Protocol

import sentencepiece

from seq2seq.data.symbols import BOS_ID, EOS_ID, PAD_ID, UNK_ID
from seq2seq.errors import DataError

_CONTROL_IDS = frozenset((PAD_ID, BOS_ID, EOS_ID))
_SPACE_MARK = "\u2581"
_WORD = re.compile(f"{_SPACE_MARK}[^{_SPACE_MARK}]*|[^{_SPACE_MARK}]+")
_TRAIN_THREADS = 4  # fixed: the number of threads is recorded in the model and orders its floating-point sums
_CACHED_WORDS = 1 << 16
_CACHED_LENGTH = 24  # characters; longer words (whole clauses of Chinese) hardly ever return


@dataclass(frozen=True)
class TokenizerSpec:
    """How to train a tokenizer. With ``byte_fallback`` 256 pieces are bytes, and no text is ever unknown."""

    kind: Literal["unigram", "bpe"] = "unigram"
    vocab_size: int = 8000
    character_coverage: float = 0.9995
    byte_fallback: bool = True


class Tokenizer:
    """A trained SentencePiece model whose first ids are PAD_ID, UNK_ID, BOS_ID and EOS_ID. Can be pickled."""

    def __init__(self, model_proto: bytes) -> None:
        """Raises DataError where the bytes are no model, or one with other special ids."""
        self._proto = model_proto
        try:
            if not model_proto:  # SentencePiece takes this for "load later" and may crash
                raise ValueError("it is empty")
            self._processor = sentencepiece.SentencePieceProcessor(model_proto=model_proto)
            specials = [getattr(self._processor, f"{name}_id")() for name in ("pad", "unk", "bos", "eos")]
        except (RuntimeError, TypeError, ValueError) as error:
            raise DataError(f"not a SentencePiece model ({error}); train the tokenizer again") from None
        if specials != [PAD_ID, UNK_ID, BOS_ID, EOS_ID]:
            raise DataError(
                f"the tokenizer's ids for pad, unk, bos, eos are {specials}, not [0, 1, 2, 3]; "
                "train it with this toolkit, or with --pad_id=0 --unk_id=1 --bos_id=2 --eos_id=3"
            )
        self.vocab_size: int = self._processor.get_piece_size()
        self.fingerprint: str = hashlib.blake2b(model_proto, digest_size=16).hexdigest()
        self._sampler: _Sampler | None = None

    def __reduce__(self) -> tuple[type["Tokenizer"], tuple[bytes]]:
        return Tokenizer, (self._proto,)

    @classmethod
    def load(cls, path: Path) -> "Tokenizer":
        """Read a model file; raises DataError naming the path where that fails."""
        try:
            return cls(path.read_bytes())
        except OSError as error:
            raise DataError(f"{path}: cannot read the tokenizer ({error.strerror}); check the path") from None
        except DataError as error:
            raise DataError(f"{path}: {error}") from None

    def save(self, path: Path) -> None:
        """Write the model to a temporary file beside ``path``, then rename it into place."""
        temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
        try:
            with temporary.open("wb") as file:
                file.write(self._proto)
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(path)
        except OSError as error:
            temporary.unlink(missing_ok=True)
            raise DataError(f"{path}: cannot write the tokenizer ({error.strerror})") from None

    def encode(self, texts: Sequence[str], num_threads: int = 1) -> list[list[int]]:
        """The best segmentation of every text, as ids without BOS and EOS; a blank text gives an empty list."""
        ids: list[list[int]] = self._processor.encode([_clean(text) for text in texts], num_threads=num_threads)
        return ids

    def encode_sampled(self, texts: Sequence[str], strength: float, seed: int) -> list[list[int]]:
        """One random segmentation of every text, a pure function of the arguments, the same in every process.

        A unigram model draws from all segmentations with probability proportional to P(segmentation) ** strength, as
        SentencePiece does with ``nbest_size=-1, alpha=strength`` (towards 0 is wilder, 0.1 to 0.5 usual). A BPE model
        leaves out merges with probability ``strength`` (BPE-dropout: 0 is none, 0.1 usual).
        """
        if self._sampler is None:
            self._sampler = _make_sampler(self._processor)
        draw = self._sampler.draw
        rng = random.Random(str(seed))  # of a string: for integers Python ignores the sign
        sampled = []
        for text in texts:
            ids: list[int] = []
            for word in _WORD.findall(self._processor.normalize(_clean(text).decode("utf-8", "replace"))):
                ids += draw(word, strength, rng)
            sampled.append(ids)
        return sampled

    def decode(self, ids: Sequence[int]) -> str:
        """The text of any ids below ``vocab_size``, on one line: no LF or CR, invalid bytes as U+FFFD.

        Pad, bos and eos ids are skipped; UNK_ID reads as U+2047. Raises IndexError for ids out of range.
        """
        return self.decode_batch([ids])[0]

    def decode_batch(self, batch: Sequence[Sequence[int]]) -> list[str]:
        """:meth:`decode` for many sequences."""
        cleaned = [[int(i) for i in ids if i not in _CONTROL_IDS] for ids in batch]
        texts: list[str] = self._processor.decode(cleaned, num_threads=1) if cleaned else []
        return [text.replace("\n", " ").replace("\r", " ") for text in texts]


@dataclass(frozen=True)
class TokenizerPair:
    """The tokenizers of the two sides; one tokenizer for both sides makes the pair joint."""

    src: Tokenizer
    tgt: Tokenizer

    @property
    def joint(self) -> bool:
        """Whether both sides share one vocabulary."""
        return self.src.fingerprint == self.tgt.fingerprint

    @property
    def fingerprint(self) -> str:
        """Hex digest (16 bytes) of both models."""
        both = (self.src.fingerprint + self.tgt.fingerprint).encode()
        return hashlib.blake2b(both, digest_size=16).hexdigest()

    def save(self, folder: Path) -> None:
        """Write ``tokenizer.model`` (joint), or ``tokenizer.src.model`` and ``tokenizer.tgt.model``."""
        folder.mkdir(parents=True, exist_ok=True)
        joint, src, tgt = _pair_paths(folder)
        models = {joint: self.src} if self.joint else {src: self.src, tgt: self.tgt}
        for path in {joint, src, tgt} - models.keys():
            path.unlink(missing_ok=True)
        for path, model in models.items():
            model.save(path)

    @classmethod
    def load(cls, folder: Path) -> "TokenizerPair":
        """Read what :meth:`save` wrote; raises DataError where it is missing or damaged."""
        joint, src, tgt = _pair_paths(folder)
        if joint.exists():
            model = Tokenizer.load(joint)
            return cls(model, model)
        if not src.exists() and not tgt.exists():
            raise DataError(f"{folder}: no tokenizer.model, and no tokenizer.src.model with tokenizer.tgt.model")
        return cls(Tokenizer.load(src), Tokenizer.load(tgt))


def train_tokenizer(
    texts: Iterable[str], spec: TokenizerSpec, seed: int = 0, max_sentences: int = 500_000
) -> tuple[Tokenizer, str | None]:
    """Train on ``texts``, or on ``max_sentences`` of them drawn with ``seed``; the same arguments give the same bytes.

    The second result is a notice for people where the text supports fewer pieces than asked for, else None.
    Raises DataError for a text without a word, and for a vocabulary too small to hold its characters.
    """
    sample = _reservoir((clean for clean in map(_clean, texts) if clean.strip()), max_sentences, seed)
    if not sample:
        raise DataError("cannot train a tokenizer: the text is empty or blank; check the training files")
    model = io.BytesIO()
    try:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(sample),
            model_writer=model,
            model_type=spec.kind,
            vocab_size=spec.vocab_size,
            hard_vocab_limit=False,
            character_coverage=spec.character_coverage,
            byte_fallback=spec.byte_fallback,
            normalization_rule_name="identity",
            remove_extra_whitespaces=True,
            max_sentence_length=1 << 30,  # bytes; the default would drop lines above 4192
            num_threads=_TRAIN_THREADS,
            pad_id=PAD_ID,
            unk_id=UNK_ID,
            bos_id=BOS_ID,
            eos_id=EOS_ID,
            minloglevel=2,
        )
    except (RuntimeError, OSError, ValueError) as error:
        raise _training_error(error, spec) from None
    tokenizer = Tokenizer(model.getvalue())
    if tokenizer.vocab_size == spec.vocab_size:
        return tokenizer, None
    return tokenizer, (
        f"vocab_size lowered from {spec.vocab_size} to {tokenizer.vocab_size}: the text supports no more pieces"
    )


def _training_error(error: Exception, spec: TokenizerSpec) -> DataError:
    least = re.search(r"smaller than required_chars\. \d+ vs (\d+)", str(error))
    if least is None:
        return DataError(f"cannot train a tokenizer with {spec}: {error}")
    parts = "its characters, 4 special pieces" + (" and 256 bytes (byte_fallback)" if spec.byte_fallback else "")
    return DataError(
        f"vocab_size {spec.vocab_size} is too small: this text needs at least {least[1]} for {parts}; "
        f"raise vocab_size well above {least[1]}, or lower character_coverage"
    )


def _clean(text: str) -> bytes:
    """UTF-8 with line breaks and U+2581 as spaces; lone surrogates become invalid bytes, which read as U+FFFD."""
    return text.replace("\n", " ").replace("\r", " ").replace(_SPACE_MARK, " ").encode("utf-8", "surrogatepass")


def _reservoir(items: Iterator[bytes], size: int, seed: int) -> list[bytes]:
    """At most ``size`` items, each equally likely (algorithm R)."""
    rng = random.Random(seed)
    kept: list[bytes] = []
    for number, item in enumerate(items):
        if number < size:
            kept.append(item)
        elif (place := rng.randrange(number + 1)) < size:
            kept[place] = item
    return kept


def _pair_paths(folder: Path) -> tuple[Path, Path, Path]:
    return folder / "tokenizer.model", folder / "tokenizer.src.model", folder / "tokenizer.tgt.model"


class _Pieces:
    """The ordinary pieces with their scores, and the ids of a character that is none of them."""

    def __init__(self, processor: sentencepiece.SentencePieceProcessor) -> None:
        self.ids: dict[str, int] = {}
        self.scores: dict[str, float] = {}
        self._bytes: dict[int, int] = {}
        for i in range(processor.get_piece_size()):
            piece = processor.id_to_piece(i)
            if processor.is_byte(i):
                self._bytes[int(piece[1:-1], 16)] = i
            elif not (processor.is_control(i) or processor.is_unknown(i) or processor.is_unused(i)):
                self.ids[piece] = i
                self.scores[piece] = processor.get_score(i)

    def spell(self, symbol: str) -> list[int]:
        """The piece's id; else the ids of the character's bytes; else UNK_ID."""
        if symbol in self.ids:
            return [self.ids[symbol]]
        return [self._bytes[b] for b in symbol.encode("utf-8")] if self._bytes else [UNK_ID]


class _Sampler(Protocol):
    def draw(self, word: str, strength: float, rng: random.Random) -> Sequence[int]: ...


def _make_sampler(processor: sentencepiece.SentencePieceProcessor) -> _Sampler:
    pieces = _Pieces(processor)
    # BPE scores are the negated merge ranks, hence whole numbers; unigram scores are log-probabilities.
    if all(score == round(score) for score in pieces.scores.values()):
        return _BpeSampler(pieces)
    return _UnigramSampler(pieces)


class _Choice(NamedTuple):
    """The pieces that may start at one position of a word: cumulative probabilities, their ids, their ends."""

    cumulative: list[float]
    ids: list[list[int]]
    ends: list[int]


class _UnigramSampler:
    """Draws a segmentation with probability proportional to exp(strength * score): sums backward, draws forward."""

    def __init__(self, pieces: _Pieces) -> None:
        self._pieces = pieces
        self._longest = max(map(len, pieces.scores), default=1)
        self._unknown = min(pieces.scores.values(), default=0.0) - 10.0  # SentencePiece's penalty
        self._cached = lru_cache(maxsize=_CACHED_WORDS)(self._choices)

    def draw(self, word: str, strength: float, rng: random.Random) -> list[int]:
        choices = (self._cached if len(word) <= _CACHED_LENGTH else self._choices)(word, strength)
        ids: list[int] = []
        position = 0
        while position < len(word):
            cumulative, options, ends = choices[position]
            pick = bisect_right(cumulative, rng.random()) if len(ends) > 1 else 0
            ids += options[pick]
            position = ends[pick]
        return ids

    def _choices(self, word: str, strength: float) -> list[_Choice]:
        scores = self._pieces.scores
        totals = [0.0] * (len(word) + 1)  # log of the summed weight of all segmentations of word[position:]
        choices = []
        for start in range(len(word) - 1, -1, -1):
            ends = [e for e in range(start + 1, min(len(word), start + self._longest) + 1) if word[start:e] in scores]
            weights = [strength * scores[word[start:end]] + totals[end] for end in ends]
            if not ends or ends[0] > start + 1:  # every single character is an option
                ends.append(start + 1)
                weights.append(strength * self._unknown + totals[start + 1])
            top = max(weights)
            cumulative: list[float] = []
            mass = 0.0
            for weight in weights:
                mass += math.exp(weight - top)
                cumulative.append(mass)
            totals[start] = top + math.log(mass)
            cumulative = [part / mass for part in cumulative]  # ends with exactly 1.0, above every draw
            choices.append(_Choice(cumulative, [self._pieces.spell(word[start:end]) for end in ends], ends))
        return choices[::-1]


class _BpeSampler:
    """BPE-dropout: of the merges in order of rank, each is left out with probability ``strength``."""

    def __init__(self, pieces: _Pieces) -> None:
        self._pieces = pieces
        self._cached = lru_cache(maxsize=_CACHED_WORDS)(self._undisturbed)

    def draw(self, word: str, strength: float, rng: random.Random) -> list[int]:
        if strength <= 0.0:
            return self._cached(word)[0]
        gaps = self._gaps(strength, rng)
        first = next(gaps)
        if len(word) <= _CACHED_LENGTH:
            ids, num_merges = self._cached(word)
            if first >= num_merges:  # the common case: nothing is left out of this word
                return ids
        return self._merge(word, first, gaps)[0]

    @staticmethod
    def _gaps(strength: float, rng: random.Random) -> Iterator[int]:
        """How many merges happen before the next one is left out: geometric, one random number per omission."""
        log_keep = math.log1p(-strength) if strength < 1.0 else -math.inf
        while True:
            yield int(math.log(1.0 - rng.random()) / log_keep)

    def _undisturbed(self, word: str) -> tuple[list[int], int]:
        return self._merge(word, len(word), iter(()))

    def _merge(self, word: str, gap: int, gaps: Iterator[int]) -> tuple[list[int], int]:
        """Merge best pair first, leftmost among equals; gives the ids and the number of merges considered."""
        scores = self._pieces.scores
        num = len(word)
        symbols = list(word)  # "" where a symbol was merged into the one on its left
        after = list(range(1, num + 1))
        before = list(range(-1, num - 1))
        heap: list[tuple[float, int, str]] = []

        def propose(left: int) -> None:
            if left >= 0 and after[left] < num:
                pair = symbols[left] + symbols[after[left]]
                if pair in scores:
                    heapq.heappush(heap, (-scores[pair], left, pair))

        for left in range(num):
            propose(left)
        considered = 0
        while heap:
            _, left, pair = heapq.heappop(heap)
            right = after[left]
            if not symbols[left] or right >= num or symbols[left] + symbols[right] != pair:
                continue  # a neighbour was merged away since
            considered += 1
            if gap == 0:
                gap = next(gaps)
                continue
            gap -= 1
            symbols[left], symbols[right] = pair, ""
            after[left] = after[right]
            if after[left] < num:
                before[after[left]] = left
            propose(before[left])
            propose(left)
        return [i for symbol in symbols if symbol for i in self._pieces.spell(symbol)], considered
