"""What ``fuzz`` attacks: for each reader valid files to start from, and what must hold whatever the files are.

Where files carry checksums, some inputs are given the right ones after the mutation: a stranger can compute them, too.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import re
import struct
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load as load_safetensors

import seq2seq
from faults.mutation import Input
from seq2seq import storage
from seq2seq.config import dump_config
from seq2seq.config_file import load_config
from seq2seq.data.bitext import ParallelFiles, SentencePair, read_lines, read_pairs, read_stream
from seq2seq.data.corpus import Filters, build_corpus, open_corpus
from seq2seq.data.corpus_writer import FILES
from seq2seq.data.tokenizer import Tokenizer, TokenizerPair, TokenizerSpec, train_tokenizer
from seq2seq.decode.translator import Translator
from seq2seq.errors import ConfigError, DataError
from seq2seq.model_folder import CONFIG, WEIGHTS, build_model, load_model_folder, save_model_folder
from seq2seq.train.checkpoint import Checkpoint, Progress, load_checkpoint, save_checkpoint

_BOM = b"\xef\xbb\xbf"
_TEXT = ["ka to mi", "to mi ka ka", "mi to", "ka mi to mi", "mikato ka"]
_CONFIG = """\
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
_YAML_WORDS = b"""&a  *a  !!python/object/apply:os.system  !!int  !!str  !!binary  <<:  |  >  ---  ...  %YAML 1.1  ? 
- ~ null true .inf .nan 1e400 0x10 1_0 "\\ud800" "\\x00" \t : , # [] {} seed: model: d_model: optim: lr: betas: [0.9,1]
train: max_steps: decode: beam_size: data: src: test: tokenizer: joint: false tie_embeddings: all num_heads: run_dir:
attention_window: rotary learned swiglu max_length: encoder_layers: d_ff: 1000000 \xff \xc3\xa9 \xe2\x80\xa8""".split()
_JSON_WORDS = [
    *(b"null true false NaN Infinity -1 1.5 1e999 [] {} [0] [[]] \"\" \"\\ud800\" \"a/b\" , : { } [ ] \"shape\":[0]".split()),
    *(b'"F32" "F64" "BF16" "F16" "I64" "U8" "BOOL" "F4" "F8_E4M3" "F6_E2M3" "C64" "U64" "<u2" "<u4" "<i8" "O" "V9" "S0"'.split()),
    *(b'"dtype" "data_offsets" "weights/a" "__metadata__":{} "seq2seq" "progress" "step" "version" "fingerprint"'.split()),
]  # fmt: skip


class Target(Protocol):
    """A reader under attack."""

    words: Sequence[bytes]  # what its format is made of
    sources: Sequence[str]  # files whose lines guide the search
    seeds: Sequence[Input]

    def check(self, files: Input) -> None:
        """Read the files. A UserError says that they are refused; any other exception is a finding."""


def _sources(*names: str) -> list[str]:
    folder = Path(seq2seq.__file__).parent
    return [str(folder / name) for name in (*names, "errors.py")]


def _shape(positions: str) -> str:
    return _SHAPE.replace("POSITIONS", positions).replace("SAMPLE", "true" if positions == "rotary" else "false")


def _tiny_tokenizer(kind: str = "bpe", byte_fallback: bool = False) -> Tokenizer:
    size = 300 if byte_fallback else 20
    return train_tokenizer(_TEXT * 20, TokenizerSpec(kind, size, 1.0, byte_fallback))[0]  # type: ignore[arg-type]


class _Text:
    """Two text files: lines by the line rule, from plain, compressed and streamed files alike; pairs never slip."""

    words = (b"\n", b"\r", b"\r\n", b"\n\n", _BOM, b"\x00", b"\x0c", b"\xe2\x80\xa8", b"\xc2\x85", b"\xff", b"\x1f\x8b",
             b"\xed\xa0\x80", b"\xf4\x90\x80\x80", b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\xff", gzip.compress(b"x\n"))  # fmt: skip
    sources = _sources("data/bitext.py")

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
            except DataError as error:
                assert expected is None, error
                continue
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


class _ConfigFile:
    """A config file and overrides (separated by NUL): mistakes with their places, or a config that dumps and loads equal."""

    words = _YAML_WORDS
    sources = _sources("config_file.py", "config.py")

    def __init__(self, folder: Path) -> None:
        self._path = folder / "x.yaml"
        bomb = b"a: &a [x,x]\nb: &b [*a,*a,*a]\nc: &c [*b,*b,*b]\nseed: *c\n"
        self.seeds = [
            (_CONFIG.encode(), b"optim.lr=1e-3\0seed=4"),
            (_CONFIG.encode() + _shape("rotary").encode(), b""),
            (b"seed: 3 # x\noptim:\n  lr: 1e-4\n  betas: [0.9, 0.98]\n  schedule: cosine\n" + _CONFIG.encode(), b"data.src_lang=no"),
            (_CONFIG.encode() + b"train: {max_steps: 9}\n" + bomb, b"train={max_epochs: 2}\0tokenizer.joint=false"),
        ]  # fmt: skip

    def check(self, files: Input) -> None:
        """See the class."""
        self._path.write_bytes(files[0])
        overrides = [text.decode("utf-8", "surrogateescape") for text in files[1].split(b"\0") if text]
        try:
            config = load_config(self._path, overrides)
        except ConfigError as error:
            for line in str(error).split("\n"):
                assert line.encode().startswith((f"{self._path}:".encode(), b"command line: ")), line
                assert re.match(rf"{re.escape(str(self._path))}:\d+: \S|command line: \S|{self._path}: cannot", line), (
                    line
                )
            raise
        text = dump_config(config)
        self._path.write_bytes(text.encode())
        again = load_config(self._path)
        assert again == config
        assert dump_config(again) == text


class _TokenizerFile:
    """A SentencePiece model: refused, or texts become ids of the vocabulary and any ids become one line of text."""

    words = (b"\x0a", b"\x12", b"\x1a", b"\x15", b"\x18\x01", b"\x18\x02", b"\x18\x03", b"\x18\x04", b"\x18\x06",
             b"\xff" * 9 + b"\x01", b"\x0a\x00", b"\x0a\x05\x0a\x03<0x", b"<unk>", b"</s>", b"\n", b"\xe2\x96\x81",
             b"\x15\x00\x00\xc0\x7f", b"\x15\x00\x00\x80\x7f", b"\x15\x00\x00\x80\xff")  # fmt: skip
    sources = _sources("data/tokenizer.py", "data/sampling.py")

    def __init__(self, folder: Path) -> None:
        kinds = [("bpe", False), ("unigram", False), ("unigram", True)]
        models = [_tiny_tokenizer(*kind) for kind in kinds]
        self.seeds = []
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


class _CorpusFolder:
    """A corpus: refused, or (if the checksums are as written) what was written; in any case sentences of its vocabulary."""

    words = (*_JSON_WORDS, *(b"\xff" * 8, b"\0" * 8, b"\xff\xff", b"\xff\x7f"))
    sources = _sources("data/corpus.py")

    def __init__(self, folder: Path) -> None:
        tokenizer = _tiny_tokenizer()
        pairs = [SentencePair(text, text[::-1], i) for i, text in enumerate(_TEXT)]
        self._folder = folder / "c"
        build_corpus(self._folder, pairs, TokenizerPair(tokenizer, tokenizer), Filters(), "f")
        self._names = ("meta.json", *FILES)
        meta = json.dumps(json.loads((self._folder / "meta.json").read_bytes())).encode()
        files = (meta, *((self._folder / name).read_bytes() for name in FILES))
        self._written = self._content()
        self.seeds = [(b"", *files), (b"sealed", *files)]

    def _content(self) -> list[list[int]]:
        corpus = open_corpus(self._folder, verify=True)
        sentences = [corpus.sentence(side, i).tolist() for side in ("src", "tgt") for i in range(corpus.num_pairs)]  # type: ignore[arg-type]
        for side, first, lengths, size in zip(
            ("src", "tgt"),
            (0, corpus.num_pairs),
            (corpus.src_lengths, corpus.tgt_lengths),
            corpus.vocab_sizes,
            strict=True,
        ):
            ids, taken = corpus.take(side, np.arange(corpus.num_pairs))
            mine = sentences[first : first + corpus.num_pairs]
            assert taken.tolist() == lengths.tolist() == [len(sentence) for sentence in mine]
            assert ids.tolist() == [i for sentence in mine for i in sentence]
            assert all(sentence and max(sentence) < size for sentence in mine)
        return [*sentences, corpus.lines.tolist()]

    def check(self, files: Input) -> None:
        """See the class."""
        sealed, meta, *rest = files
        if sealed:
            with suppress(ValueError, TypeError, KeyError, IndexError, AttributeError, RecursionError):
                tree = json.loads(meta)
                for name, data in zip(FILES, rest, strict=True):
                    digest = hashlib.blake2b(data, digest_size=16).hexdigest()
                    tree["files"][name] |= {"bytes": len(data), "blake2b": digest}
                meta = json.dumps(tree).encode()
        for name, data in zip(self._names, (meta, *rest), strict=True):
            (self._folder / name).write_bytes(data)
        content = self._content()
        assert sealed or content == self._written


def _sealed(header: bytes, record: bytes, data: bytes, texts: Mapping[str, str] = {}) -> bytes:
    """A safetensors file with the right digest for its content, as far as that can be read."""
    with suppress(ValueError, TypeError, AttributeError, RecursionError):
        tree = json.loads(record)
        tree |= {name: text for name, text in texts.items() if name in tree}
        with suppress(SafetensorError, RuntimeError, KeyError, MemoryError):
            tensors = load_safetensors(_assembled(header, b"{}", data))
            tree.pop(storage.DIGEST, None)
            tree[storage.DIGEST] = storage._digest(tensors, tree)
        record = json.dumps(tree).encode()
    return _assembled(header, record, data)


def _assembled(header: bytes, record: bytes, data: bytes) -> bytes:
    metadata = json.dumps({"seq2seq": record.decode("utf-8", "replace")}).encode()
    whole = (
        header.strip().removesuffix(b"}") + (b"," if len(header) > 2 else b"") + b'"__metadata__":' + metadata + b"}"
    )
    whole += b" " * (-len(whole) % 8)
    return struct.pack("<Q", len(whole)) + whole + data


def _taken_apart(file: bytes) -> tuple[bytes, bytes, bytes]:
    """Header without texts, texts, data."""
    (size,) = struct.unpack_from("<Q", file)
    header = json.loads(file[8 : 8 + size])
    record = header.pop("__metadata__")["seq2seq"]
    return json.dumps(header).encode(), record.encode(), file[8 + size :]


class _CheckpointFile:
    """A checkpoint, whole or in three parts that are sealed with the right digest: refused, or what was written."""

    words = (*_JSON_WORDS, b"\xff" * 7 + b"\x7f", b"\0" * 8)
    sources = _sources("train/checkpoint.py", "storage.py")

    def __init__(self, folder: Path) -> None:
        weights = {"a": torch.arange(6.0).reshape(2, 3), "b": torch.ones(2).bfloat16()}
        self._written = Checkpoint(
            Progress(3, 1, 2, 0.5, 2, -1.5, 2, 1),
            weights,
            {"a": -weights["a"]},
            {"a:m": torch.tensor(7)},
            "seed: 1\n",
            "f",
        )
        file = save_checkpoint(folder, self._written, 1).read_bytes()
        self._path = folder / "x.safetensors"
        self.seeds = [(file,), _taken_apart(file)]

    def check(self, files: Input) -> None:
        """See the class."""
        whole = len(files) == 1
        self._path.write_bytes(files[0] if whole else _sealed(*files))
        found = load_checkpoint(self._path)
        for name, value in vars(found.progress).items():
            kinds = (float, int, type(None)) if name == "best_score" else (float, int) if name == "seconds" else (int,)
            assert type(value) in kinds, (name, value)
        assert type(found.config) is type(found.data_fingerprint) is str
        if whole:
            assert (found.progress, found.config, found.data_fingerprint) == (self._written.progress, "seed: 1\n", "f")
        for group in ("weights", "average", "optimizer"):
            tensors = getattr(found, group)
            assert all(tensor.reshape(-1).view(torch.uint8).tolist() is not None for tensor in tensors.values())
            if whole:
                written = getattr(self._written, group)
                assert tensors.keys() == written.keys()
                assert all(torch.equal(tensors[name], written[name]) for name in written)


class _ModelFolder:
    """A model folder of a stranger, all checksums right: refused, or it translates."""

    words = (*_YAML_WORDS, *_JSON_WORDS)
    sources = _sources(
        "model_folder.py", "storage.py", "model/transformer.py", "decode/translator.py", "decode/search.py"
    )

    def __init__(self, folder: Path) -> None:
        self._folder = folder / "m"
        self.seeds = []
        for positions, kind in (("sinusoidal", "bpe"), ("learned", "unigram"), ("rotary", "bpe")):
            tokenizer = _tiny_tokenizer(kind)
            text = _CONFIG + _shape(positions)
            path = folder / "x.yaml"
            path.write_text(text, encoding="utf-8")
            config, pair = load_config(path), TokenizerPair(tokenizer, tokenizer)
            torch.manual_seed(1)
            save_model_folder(self._folder, build_model(config, pair).state_dict(), config, pair, {"step": "3"})
            weights = _taken_apart((self._folder / WEIGHTS).read_bytes())
            self.seeds.append((text.encode(), (self._folder / "tokenizer.model").read_bytes(), *weights))

    def check(self, files: Input) -> None:
        """See the class."""
        config, tokenizer, *weights = files
        for name, data in ((CONFIG, config), ("tokenizer.model", tokenizer)):
            (self._folder / name).write_bytes(data)
        texts = {}
        with suppress(DataError):
            texts["tokenizer"] = TokenizerPair.load(self._folder).fingerprint
        header, record, data = weights
        (self._folder / WEIGHTS).write_bytes(_sealed(header, record, data, texts))
        loaded = load_model_folder(self._folder)
        translator = Translator(loaded.model, loaded.config, loaded.tokenizers, "fp32")
        found = translator.translate(["ka to mi"])
        assert len(found) == 1
        assert "\n" not in found[0]


TARGETS: Mapping[str, Callable[[Path], Target]] = {
    "text": _Text,
    "config": _ConfigFile,
    "corpus": _CorpusFolder,
    "checkpoint": _CheckpointFile,
    "tokenizer": _TokenizerFile,
    "model": _ModelFolder,
}
