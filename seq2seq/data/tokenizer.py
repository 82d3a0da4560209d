"""Tokenizers: text to token ids and back, with SentencePiece.

Only spaces are normalised: several become one, and those at both ends are removed. All other characters are decoded as
they were encoded, so a Chinese target keeps its full-width punctuation. (The usual rule ``nmt_nfkc`` turns it into
ASCII, and then no translation matches its reference.) CR, LF and U+2581, SentencePiece's mark for a space, are read as
spaces, so a model cannot learn to write a line break. The source side of a pair can normalise its text first (see
``normalise``). The SentencePiece model itself never does, so both sides can share it.
"""

import io
import json
import math
import random
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path

import sentencepiece

from seq2seq.config import TokenizerConfig
from seq2seq.data.normalise import RULES, normalise
from seq2seq.data.piece_model import PieceModel
from seq2seq.data.subword_sampling import Sampler, make_sampler
from seq2seq.data.symbols import BOS_ID, EOS_ID, PAD_ID, UNK_ID
from seq2seq.errors import DataError, UserError
from seq2seq.files import checksum, write_bytes

# The files of a pair: one model for both sides, or one for each, and the rules if source text is normalised.
TOKENIZERS = ("tokenizer.model", "tokenizer.src.model", "tokenizer.tgt.model", "tokenizer.src.json")
_CONTROL_IDS = frozenset((PAD_ID, BOS_ID, EOS_ID))
_SPACE_MARK = "\u2581"
_WORD = re.compile(f"{_SPACE_MARK}[^{_SPACE_MARK}]*|[^{_SPACE_MARK}]+")
_LARGEST = 64 << 20  # bytes of a model file; 250,000 pieces take 5 MiB
_TRAIN_THREADS = 4  # fixed, because it is stored in the model and changes the order of floating-point sums


class Tokenizer:
    """A trained SentencePiece model whose first ids are PAD_ID, UNK_ID, BOS_ID and EOS_ID. Can be pickled."""

    def __init__(self, model_proto: bytes, normalises: bool = False) -> None:
        """Raises DataError if the bytes are not a model, or one with other special ids.

        With ``normalises``, text is normalised (see ``normalise``) before it is encoded.
        """
        self.model, self.normalises = model_proto, normalises
        try:
            if not model_proto:  # for SentencePiece this means "load later", and it can crash
                raise ValueError("it is empty")
            self._processor = sentencepiece.SentencePieceProcessor(model_proto=model_proto)
            specials = [getattr(self._processor, f"{name}_id")() for name in ("pad", "unk", "bos", "eos")]
            self.vocab_size: int = self._processor.get_piece_size()
            every = list(range(self.vocab_size))
            self._processor.id_to_piece(every)  # raises ValueError if a piece is not UTF-8
            if not all(map(math.isfinite, self._processor.get_score(every))):
                raise ValueError("a score is not a finite number")
        except (RuntimeError, TypeError, ValueError) as error:
            raise DataError(f"not a SentencePiece model ({error}); train the tokenizer again") from None
        if specials != [PAD_ID, UNK_ID, BOS_ID, EOS_ID]:
            raise DataError(
                f"the tokenizer's ids for pad, unk, bos, eos are {specials}, not [0, 1, 2, 3]; "
                "train it with seq2seq, or with --pad_id=0 --unk_id=1 --bos_id=2 --eos_id=3"
            )
        # Pieces that no text is cut into. Only imported models have some (see encode).
        unused = [i for i in every if self._processor.is_unused(i)]
        self._unused: dict[str, int] = {self._processor.id_to_piece(i): i for i in unused}
        rules = f"normalise {RULES}".encode() if normalises else b""
        self.fingerprint: str = checksum(model_proto + rules)
        self._sampler: Sampler | None = None

    def __reduce__(self) -> tuple[Callable[[bytes, bool], "Tokenizer"], tuple[bytes, bool]]:
        return _unpickled, (self.model, self.normalises)

    @classmethod
    def load(cls, path: Path) -> "Tokenizer":
        """Read a model file; raises DataError with the path if that fails."""
        try:
            with path.open("rb") as file:
                model_proto = file.read(_LARGEST + 1)
            if len(model_proto) > _LARGEST:
                raise DataError(f"not a SentencePiece model (it is larger than {_LARGEST >> 20} MiB)")
            return cls(model_proto)
        except OSError as error:
            raise DataError(f"{path}: cannot read the tokenizer ({error.strerror}); check the path") from None
        except DataError as error:
            raise DataError(f"{path}: {error}") from None

    def byte_values(self) -> dict[int, int]:
        """The byte of each id that stands for one byte; empty without ``byte_fallback``."""
        pieces = self._processor
        return {i: int(pieces.id_to_piece(i)[3:5], 16) for i in range(self.vocab_size) if pieces.is_byte(i)}

    @cached_property
    def tags(self) -> dict[str, int]:
        """The id of every tag: a piece that no text has, to put before a source sentence.

        They follow EOS_ID; those that were added to a trained model are among its last pieces.
        """
        tags = filter(self._processor.is_control, range(EOS_ID + 1, self.vocab_size))
        return {self._processor.id_to_piece(i)[1:-1]: i for i in tags}

    @property
    def tag_ranges(self) -> tuple[range, ...]:
        """The ids of all tags, as ranges."""
        ranges: list[range] = []
        for i in sorted(self.tags.values()):
            if ranges and ranges[-1].stop == i:
                ranges[-1] = range(ranges[-1].start, i + 1)
            else:
                ranges.append(range(i, i + 1))
        return tuple(ranges)

    def prefix(self, tag: str | None) -> list[int]:
        """What stands before the ids of a source sentence; raises UserError for a tag that the model does not know."""
        if tag is None:
            return []
        if tag not in self.tags:
            known = f"the model knows {', '.join(self.tags)}" if self.tags else "the model was trained without tags"
            raise UserError(f"there is no tag {tag}; {known}")
        return [self.tags[tag]]

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        """The best segmentation of every text, as ids without BOS and EOS; a blank text gives an empty list.

        SentencePiece leaves characters that it does not know together, as one piece. If that is an unused piece, it has
        its id and not UNK_ID: programs that look up the ids of pieces in a table, as Marian does, find it there, too.
        """
        cleaned = [self._clean(text) for text in texts]
        batch: list[list[int]] = self._processor.encode(cleaned, num_threads=1)
        for text, ids in zip(cleaned, batch, strict=True) if self._unused else ():
            if UNK_ID in ids:
                pieces = self._processor.encode(text.decode("utf-8", "replace"), out_type=str)
                ids[:] = [
                    self._unused.get(piece, i) if i == UNK_ID else i for i, piece in zip(ids, pieces, strict=True)
                ]
        return batch

    def encode_inside(self, texts: Sequence[str]) -> list[list[int]]:
        """:meth:`encode` for texts that continue others without a space: the first piece does not begin a word."""
        batch: list[list[int]] = self._inside.encode([self._clean(text) for text in texts], num_threads=1)
        return batch

    @cached_property
    def _inside(self) -> sentencepiece.SentencePieceProcessor:
        model = PieceModel.parse(self.model).without_leading_space()
        return sentencepiece.SentencePieceProcessor(model_proto=model.serialise())

    def encode_sampled(self, texts: Sequence[str], strength: float, seed: int) -> list[list[int]]:
        """One random segmentation of every text, a pure function of the arguments, the same in every process.

        A unigram model draws from all segmentations with probability proportional to P(segmentation) ** strength, like
        SentencePiece with ``nbest_size=-1, alpha=strength``: smaller is more random, 0.1 to 0.5 is usual. A BPE model
        skips merges with probability ``strength`` (BPE-dropout): larger is more random, 0.1 is usual.
        """
        if self._sampler is None:
            self._sampler = make_sampler(self._processor)
        draw = self._sampler.draw
        rng = random.Random(str(seed))  # a string, because Python ignores the sign of an integer seed
        sampled = []
        for text in texts:
            ids: list[int] = []
            for word in _WORD.findall(self._processor.normalize(self._clean(text).decode("utf-8", "replace"))):
                ids += draw(word, strength, rng)
            sampled.append(ids)
        return sampled

    def pieces(self, ids: Iterable[int]) -> list[str]:
        """The piece of each id as SentencePiece writes it, for people to look at."""
        return [self._processor.id_to_piece(int(i)) for i in ids]

    def decode_batch(self, batch: Sequence[Sequence[int]]) -> list[str]:
        """The texts of sequences of ids, each on one line: without LF and CR, and with U+FFFD for invalid bytes.

        PAD_ID, BOS_ID and EOS_ID are skipped; UNK_ID becomes U+2047. Raises IndexError for ids out of range.
        """
        cleaned = [[int(i) for i in ids if i not in _CONTROL_IDS] for ids in batch]
        texts: list[str] = self._processor.decode(cleaned, num_threads=1) if cleaned else []
        return [text.replace("\n", " ").replace("\r", " ") for text in texts]

    def _clean(self, text: str) -> bytes:
        return _clean(normalise(text) if self.normalises else text)


@lru_cache(maxsize=4)
def _unpickled(model_proto: bytes, normalises: bool) -> Tokenizer:
    """Unpickle a tokenizer. A process receives one with every chunk; it reuses the first, with its cached words."""
    return Tokenizer(model_proto, normalises)


@dataclass(frozen=True)
class TokenizerPair:
    """The tokenizers of the two sides."""

    src: Tokenizer
    tgt: Tokenizer

    @property
    def joint(self) -> bool:
        """Whether both sides share one vocabulary."""
        return self.src.model == self.tgt.model

    @property
    def fingerprint(self) -> str:
        """Hex fingerprint (16 bytes) of both models and the rules of normalisation."""
        return checksum((self.src.fingerprint + self.tgt.fingerprint).encode())

    def save(self, folder: Path) -> None:
        """Write ``tokenizer.model`` (joint), or ``tokenizer.src.model`` and ``tokenizer.tgt.model``.

        If the source side normalises, there is also ``tokenizer.src.json``. Raises UserError if writing fails.
        """
        joint, src, tgt, rules = (folder / name for name in TOKENIZERS)
        files = {joint: self.src.model} if self.joint else {src: self.src.model, tgt: self.tgt.model}
        if self.src.normalises:
            files[rules] = json.dumps({"normalise": RULES}).encode()
        for path, content in files.items():
            write_bytes(path, content)
        for path in {joint, src, tgt, rules} - files.keys():
            path.unlink(missing_ok=True)

    @classmethod
    def load(cls, folder: Path) -> "TokenizerPair":
        """Read the files that :meth:`save` wrote; raises DataError if they are missing or damaged."""
        joint, src, tgt, rules = (folder / name for name in TOKENIZERS)
        if joint.exists():
            pair = cls(*[Tokenizer.load(joint)] * 2)
        elif src.exists() or tgt.exists():
            pair = cls(Tokenizer.load(src), Tokenizer.load(tgt))
        else:
            raise DataError(f"{folder}: no tokenizer.model, and no tokenizer.src.model with tokenizer.tgt.model")
        if not rules.exists():  # a model from before there was normalisation, or one without it
            return pair
        try:
            known = json.loads(rules.read_bytes()) == {"normalise": RULES}
        except (OSError, ValueError):
            known = False
        if not known:
            raise DataError(f"{rules}: damaged, or written by another version of seq2seq")
        return pair.normalising()

    def normalising(self) -> "TokenizerPair":
        """A copy whose source side normalises its text."""
        return TokenizerPair(Tokenizer(self.src.model, normalises=True), self.tgt)


def train_tokenizer(
    texts: Iterable[str], config: TokenizerConfig, tags: Sequence[str] = ()
) -> tuple[Tokenizer, str | None]:
    """Train on ``texts``, which the memory must hold; the same arguments give the same bytes.

    Each of the ``tags`` becomes a piece of its own, which no text has.
    The second result is a notice for the user if the text supports fewer pieces than ``vocab_size``, else None. Raises
    DataError for blank text, for a vocabulary too small for the characters of the text, and if SentencePiece fails.
    """
    sample = [clean for clean in map(_clean, texts) if clean.strip()]
    if not sample:
        raise DataError("cannot train a tokenizer: the training text is empty or blank; check the files of data.train")
    model = io.BytesIO()
    try:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(sample),
            model_writer=model,
            model_type=config.kind,
            vocab_size=config.vocab_size,
            hard_vocab_limit=False,
            character_coverage=config.character_coverage,
            byte_fallback=config.byte_fallback,
            normalization_rule_name="identity",
            remove_extra_whitespaces=True,
            max_sentence_length=1 << 30,  # bytes; the default drops lines above 4192
            num_threads=_TRAIN_THREADS,
            pad_id=PAD_ID,
            unk_id=UNK_ID,
            bos_id=BOS_ID,
            eos_id=EOS_ID,
            control_symbols=[f"<{tag}>" for tag in tags],
            minloglevel=2,
        )
    except (RuntimeError, OSError, ValueError) as error:
        raise _training_error(error, config, sample, len(tags)) from None
    tokenizer = Tokenizer(model.getvalue())
    if tokenizer.vocab_size == config.vocab_size:
        return tokenizer, None
    return tokenizer, (
        f"vocab_size lowered from {config.vocab_size} to {tokenizer.vocab_size}: the text supports no more pieces"
    )


def _training_error(error: Exception, config: TokenizerConfig, sample: Sequence[bytes], num_tags: int) -> DataError:
    least = re.search(r"smaller than required_chars\. \d+ vs (\d+)", str(error))
    if least is None:  # an internal error of SentencePiece, usually of its unigram trainer at very long words
        word = max((max(line.split(b" "), key=len) for line in sample), key=len).decode("utf-8", "replace")
        other = "tokenizer.kind: bpe" if config.kind == "unigram" else "tokenizer.kind: unigram"
        return DataError(
            f"SentencePiece cannot train a {config.kind} tokenizer on this text ({' '.join(str(error).split())}); set "
            f"{other}, or remove lines that are no sentences (the longest word has {len(word):,} characters and begins "
            f"with {word[:30]!r})"
        )
    special = f"{4 + num_tags} special pieces" + (" (tags are such pieces)" if num_tags else "")
    parts = f"its characters, {special}" + (" and 256 bytes (byte_fallback)" if config.byte_fallback else "")
    return DataError(
        f"vocab_size {config.vocab_size} is too small: this text needs at least {least[1]} for {parts}; "
        f"raise vocab_size well above {least[1]}, or lower character_coverage"
    )


def _clean(text: str) -> bytes:
    """UTF-8 with line breaks and U+2581 as spaces; lone surrogates become invalid bytes, later read as U+FFFD."""
    return text.replace("\n", " ").replace("\r", " ").replace(_SPACE_MARK, " ").encode("utf-8", "surrogatepass")
