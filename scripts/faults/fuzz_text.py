"""What ``fuzz`` attacks, I: text, configs and tokenizers. Each with valid files and what must hold for any files."""

from __future__ import annotations

import gzip
import io
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal, Protocol

import seq2seq
from faults.mutation import Input
from seq2seq.config import dump_config
from seq2seq.config_file import load_config
from seq2seq.data.bitext import ParallelFiles, read_lines, read_pairs, read_stream
from seq2seq.data.file_kinds import HEAD, not_text
from seq2seq.data.tokenizer import Tokenizer, TokenizerSpec, train_tokenizer
from seq2seq.errors import ConfigError, DataError

_BOM = b"\xef\xbb\xbf"
TEXT = ["ka to mi", "to mi ka ka", "mi to", "ka mi to mi", "mikato ka"]
CONFIG_TEXT = """\
run_dir: r
data:
  train: {src: a.xx, tgt: a.yy}
  valid: {src: b.xx, tgt: b.yy}
  max_length: 16
"""
_SHAPE = """\
tokenizer: {vocab_size: 30, byte_fallback: false}
model:
  {encoder_layers: 1, decoder_layers: 1, d_model: 4, num_heads: 2, d_ff: 4, attention_window: 3, positions: POSITIONS}
decode:
  {beam_size: 2, length_penalty: 1.0, n_best: 1, max_length_ratio: 1.0, max_length_offset: 3, batch_tokens: 99, seed: 1,
  quantize: null, sample: SAMPLE, temperature: 1.0, top_k: 0, top_p: 1.0}
"""
_ODD_YAML = b"""&a  *a  !!python/object/apply:os.system  !!int  !!str  !!binary  <<:  |  >  ---  ...  %YAML 1.1  ?
- ~ null true .inf .nan 1e400 0x10 1_0 "\\ud800" "\\x00" : , # [] {} 1000000 \xff \xc3\xa9 \xe2\x80\xa8
seed: model: d_model: optim: lr: betas: [0.9,1] train: max_steps: decode: beam_size: data: src: test: tokenizer:
joint: false tie_embeddings: all num_heads: run_dir: attention_window: rotary learned swiglu max_length: d_ff:"""
YAML_WORDS = _ODD_YAML.split()


class Target(Protocol):
    """A reader under attack."""

    @property
    def words(self) -> Sequence[bytes]:
        """What its format is made of."""

    @property
    def sources(self) -> Sequence[str]:
        """Files whose lines guide the search."""

    @property
    def seeds(self) -> Sequence[Input]:
        """Valid files to start from."""

    def check(self, files: Input) -> None:
        """Read the files. A UserError says that they are refused; any other exception is a finding."""


def sources(*names: str) -> list[str]:
    """The files of modules."""
    folder = Path(seq2seq.__file__).parent
    return [str(folder / name) for name in (*names, "errors.py")]


def shape_text(positions: str) -> str:
    """A config of a tiny model."""
    return _SHAPE.replace("POSITIONS", positions).replace("SAMPLE", "true" if positions == "rotary" else "false")


def tiny_tokenizer(kind: Literal["unigram", "bpe"] = "bpe", byte_fallback: bool = False) -> Tokenizer:
    """A tokenizer of a few pieces."""
    size = 300 if byte_fallback else 20
    return train_tokenizer(TEXT * 20, TokenizerSpec(kind, size, 1.0, byte_fallback))[0]


class Text:
    """Two text files: lines by the line rule, from plain, compressed and streamed files alike; pairs never slip."""

    words = (
        *(b"\n", b"\r", b"\r\n", b"\n\n", _BOM, b"\x00", b"\x0c", b"\xe2\x80\xa8", b"\xc2\x85", b"\xff", b"\x1f\x8b"),
        *(b"\xed\xa0\x80", b"\xf4\x90\x80\x80", b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\xff", gzip.compress(b"x\n")),
    )
    sources: Sequence[str] = sources("data/bitext.py")

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        plain = (b"one\ntwo\r\nthree", "é\u2028\n\x00\n。\n".encode())
        packed = [gzip.compress(data, mtime=0) for data in plain]
        self.seeds = [plain, (packed[0], plain[1]), (packed[0] + packed[1], packed[1]), (_BOM + plain[0], b"")]

    def check(self, files: Input) -> None:
        """See the class."""
        expected = [self._one(data, self._folder / name) for data, name in zip(files, "ab", strict=True)]
        pairs, told = [], ""
        try:
            for pair in read_pairs(ParallelFiles((self._folder / "a",), (self._folder / "b",))):
                pairs.append(pair)
        except DataError as error:
            told = str(error)
        src, tgt = expected
        if src is None or tgt is None:
            assert told, "a damaged file passed"
            raise DataError(told)
        good = 0
        while good < min(len(src), len(tgt)) and _is_text(src[good]) and _is_text(tgt[good]):
            good += 1
        assert [(pair.src.encode(), pair.tgt.encode(), pair.line) for pair in pairs] == [
            (src[i], tgt[i], i) for i in range(good)
        ]
        if good < min(len(src), len(tgt)):
            assert re.search(rf"[ab]:{good + 1}: not valid UTF-8", told), told
        elif len(src) != len(tgt):
            assert f"has {len(src)} lines" in told, told
            assert f"has {len(tgt)};" in told, told
        else:
            assert not told, told
        if told:
            raise DataError(told)

    def _one(self, data: bytes, path: Path) -> list[bytes] | None:
        """Check one file in all forms; its lines, or None where it is damaged."""
        content: bytes | None = data
        if data.startswith(b"\x1f\x8b"):
            try:
                content = gzip.decompress(data)
            except Exception:  # whatever it is, the reader has to call it damaged
                content = None
        if content is not None and (content[:2] == b"\x1f\x8b" or not_text(content[:HEAD])):
            content = None  # refused by its name
        expected = None if content is None else _reference_lines(content)
        path.write_bytes(data)
        forms: list[Callable[[], Any]] = [
            lambda: read_lines(path),
            lambda: read_stream(io.BytesIO(data), "stream"),
        ]
        if content is not None:
            packed = gzip.compress(content, 0)
            forms.append(lambda: read_stream(io.BytesIO(packed), "stream"))
        for form in forms:
            try:
                found = list(form())
            except DataError:
                found = None
            assert found == expected, (found, expected)
        return expected


def _reference_lines(data: bytes) -> list[bytes]:
    """The line rule once more, without streaming."""
    data = data[len(_BOM) :] if data[:3] == _BOM else data
    lines = data.split(b"\n")
    if not lines[-1]:
        del lines[-1]
    return [line[:-1] if line[-1:] == b"\r" else line for line in lines]


def _is_text(line: bytes) -> bool:
    try:
        line.decode()
    except UnicodeDecodeError:
        return False
    return True


class ConfigFile:
    """A config file and overrides (NUL between them): mistakes with places, or a config that dumps and loads equal."""

    words: Sequence[bytes] = YAML_WORDS
    sources: Sequence[str] = sources("config_file.py", "config.py")

    def __init__(self, folder: Path) -> None:
        self._path = folder / "x.yaml"
        bomb = b"a: &a [x,x]\nb: &b [*a,*a,*a]\nc: &c [*b,*b,*b]\nseed: *c\n"
        self.seeds = [
            (CONFIG_TEXT.encode(), b"optim.lr=1e-3\0seed=4"),
            (CONFIG_TEXT.encode() + shape_text("rotary").encode(), b""),
            (b"seed: 3 # x\noptim:\n  lr: 1e-4\n  betas: [0, 0.9]\n" + CONFIG_TEXT.encode(), b"data.src_lang=no"),
            (CONFIG_TEXT.encode() + b"train: {max_steps: 9}\n" + bomb, b"train={max_epochs: 2}\0tokenizer.joint=false"),
        ]  # fmt: skip

    def check(self, files: Input) -> None:
        """See the class."""
        self._path.write_bytes(files[0])
        overrides = [text.decode("utf-8", "surrogateescape") for text in files[1].split(b"\0") if text]
        try:
            config = load_config(self._path, overrides)
        except ConfigError as error:
            for line in str(error).split("\n"):
                assert re.match(rf"{self._path}:\d+: \S|{self._path}: cannot|command line: \S", line), line
                line.encode()  # can be printed
            raise
        text = dump_config(config)
        self._path.write_bytes(text.encode())
        again = load_config(self._path)
        assert again == config
        assert dump_config(again) == text


class TokenizerFile:
    """A SentencePiece model: refused, or texts become ids of the vocabulary and any ids become one line of text."""

    words: Sequence[bytes] = (
        *(
            b"\x0a",
            b"\x12",
            b"\x1a",
            b"\x15",
            b"\x18\x01",
            b"\x18\x02",
            b"\x18\x03",
            b"\x18\x04",
            b"\x18\x06",
            b"\x0a\x00",
        ),
        *(b"\xff" * 9 + b"\x01", b"\x0a\x05\x0a\x03<0x", b"<unk>", b"</s>", b"\n", b"\xe2\x96\x81"),
        *(b"\x15\x00\x00\xc0\x7f", b"\x15\x00\x00\x80\x7f", b"\x15\x00\x00\x80\xff"),  # scores: NaN and infinity
    )
    sources: Sequence[str] = sources("data/tokenizer.py", "data/sampling.py")

    def __init__(self, folder: Path) -> None:
        models = [tiny_tokenizer(), tiny_tokenizer("unigram"), tiny_tokenizer("unigram", byte_fallback=True)]
        self.seeds: list[Input] = []
        for model in models:
            model.save(folder / "m")
            data = (folder / "m").read_bytes()
            self.seeds += [(data,), _fields(data)]

    def check(self, files: Input) -> None:
        """See the class."""
        whole = len(files) == 1
        tokenizer = Tokenizer(files[0] if whole else b"".join(map(_field, files)))
        texts = ["ka to", "", "mi\u2581\n ü\U0001f600", " ", "k" * 40, "\x00\ufffd<unk></s>"]
        for found in (tokenizer.encode(texts), tokenizer.encode_sampled(texts, 0.3, 1)):
            assert len(found) == len(texts)
            assert all(0 <= i < tokenizer.vocab_size for ids in found for i in ids)
            tokenizer.decode_batch(found)
        every = list(range(min(tokenizer.vocab_size, 5000)))
        told = [tokenizer.decode(every), tokenizer.decode(every[::-1]), *tokenizer.decode_batch([[i] for i in every])]
        assert all("\n" not in text and "\r" not in text for text in told)


def _fields(message: bytes) -> Input:
    """The outermost fields of a protobuf message, each one's key and content without its length."""
    fields, at = [], 0
    while at < len(message):
        key, size = message[at], 0
        for shift in range(0, 63, 7):
            at += 1
            size |= (message[at] & 127) << shift
            if message[at] < 128:
                break
        fields.append(bytes([key]) + message[at + 1 : at + 1 + size])
        at += 1 + size
    return tuple(fields)


def _field(part: bytes) -> bytes:
    """A field of :func:`_fields` with the length that it has now."""
    size, length = max(0, len(part) - 1), b""
    while size > 127:
        length, size = length + bytes([size & 127 | 128]), size >> 7
    return part[:1] + length + bytes([size]) + part[1:] if part else b""
