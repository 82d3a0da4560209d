"""The readers under attack: valid files of each, former findings, and what must hold whatever the files hold."""

import bz2
import gzip
import hashlib
import io
import json
import lzma
import re
import struct
import sys
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import fields
from pathlib import Path
from typing import Any, Literal
from xml.sax.saxutils import escape
from zipfile import ZIP_DEFLATED, ZipFile

import numpy as np
import openpyxl
import pyarrow
import torch
from pyarrow import parquet
from pydantic import TypeAdapter
from safetensors import SafetensorError
from safetensors.torch import load as load_safetensors

from seq2seq.config import TextFiles, TokenizerConfig, dump_config, load_config
from seq2seq.config.datasets import AnyText
from seq2seq.data.corpus import build_corpus, open_corpus
from seq2seq.data.corpus_writer import FILES, META, SIDES
from seq2seq.data.formats.file_kinds import HEAD, not_text, structured
from seq2seq.data.formats.lines import read_lines, read_stream
from seq2seq.data.formats.pairs import SentencePair, read_pairs
from seq2seq.data.tokenizer import Tokenizer, TokenizerPair, train_tokenizer
from seq2seq.decode.engine import TorchEngine
from seq2seq.decode.translator import Translator
from seq2seq.errors import ConfigError, DataError
from seq2seq.files import sealed_json
from seq2seq.model_folder import CONFIG, WEIGHTS, build_model, load_model_folder, save_model_folder
from seq2seq.train.checkpoint import Checkpoint, Progress, load_checkpoint, save_checkpoint
from tests.properties.damage import Input

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

AnyDataset: TypeAdapter[Any] = TypeAdapter(AnyText)
_BOM, _GZIP = b"\xef\xbb\xbf", b"\x1f\x8b"
_COMPRESSED = {  # besides gzip
    rb"BZh[1-9](1AY&SY|\x17rE8P\x90)": bz2.BZ2Decompressor,
    rb"\xfd7zXZ\x00": lzma.LZMADecompressor,
    rb"\x28\xb5\x2f\xfd|[\x50-\x5f]\x2a\x4d\x18": zstd.ZstdDecompressor,
}
_OTHER_FORMATS = (b"PK\x03\x04", b"BZh", b"\xfd7zXZ\x00", b"\x28\xb5\x2f\xfd", b"\xff\xfe", b"\xfe\xff")
_TEXT = ["ka to mi", "to mi ka ka", "mi to", "ka mi to mi", "mikato ka"]
_DATA_CONFIG = "run_dir: r\ndata:\n  train: {src: a.xx, tgt: a.yy}\n  valid: {src: b.xx, tgt: b.yy}\n  max_length: 16\n"
_CONFIG = f"""\
{_DATA_CONFIG}tokenizer: {{vocab_size: 30, character_coverage: 0.9995, byte_fallback: false, joint: true, sampling: 0}}
model:
  {{encoder_layers: 1, decoder_layers: 1, d_model: 4, num_heads: 2, d_ff: 4, attention_window: 3, positions: POSITIONS,
  dropout: 0.1, norm_position: pre}}
decode:
  {{beam_size: 2, length_penalty: 1.0, n_best: 1, max_length_ratio: 1.0, max_length_offset: 3, batch_tokens: 99,
  seed: 1, quantize: null, sample: false, temperature: 1.0, top_k: 0, top_p: 1.0}}
"""
_SAMPLING = _CONFIG.replace("POSITIONS", "rotary").replace("sample: false", "sample: true")
_YAML_WORDS = b"""&a  *a  !!python/object/apply:os.system  !!int  !!str  !!binary  <<:  |  >  ---  ...  %YAML 1.1  ?
- ~ null true .inf .nan 1e400 0x10 1_0 "\\ud800" "\\x00" : , # [] {} 1000000 \xff \xc3\xa9 \xe2\x80\xa8
seed: model: d_model: optim: lr: betas: [0.9,1] train: max_steps: decode: beam_size: data: src: test: tokenizer: d_ff:
joint: false tie_embeddings: all num_heads: run_dir: attention_window: rotary learned swiglu max_length:
architecture: recurrent convolutional cell: gru kernel_width: attention: none input_feeding:""".split()
_JSON_WORDS = b"""null true false NaN Infinity -1 1.5 1e999 [] {} [0] [[]] "" "\\ud800" "a/b" , : { } [ ] "shape":[0]
"F32" "F64" "BF16" "F16" "I64" "U8" "BOOL" "F4" "F8_E4M3" "F6_E2M3" "C64" "U64" "<u2" "<u4" "<i8" "O" "V9" "S0"
"dtype" "data_offsets" "weights/a" "__metadata__":{} "seq2seq" "progress" "step" "version" "fingerprint" """.split()
_MALFORMED = (ValueError, TypeError, KeyError, IndexError, AttributeError, RecursionError)


class Reader:
    """A reader under attack; it is made with a folder to work in."""

    valid: Sequence[Input]
    words: Sequence[bytes]  # what its format is made of
    former: Sequence[tuple[bytes, bytes]] = ()  # findings: what was put in place of what in the last valid input

    def check(self, files):
        """Read the files. A UserError says that they are refused; any other exception is a fault."""
        raise NotImplementedError


def _tokenizer(kind: Literal["unigram", "bpe"] = "bpe", byte_fallback: bool = False) -> Tokenizer:
    size = 300 if byte_fallback else 20
    config = TokenizerConfig(kind=kind, vocab_size=size, character_coverage=1.0, byte_fallback=byte_fallback)
    return train_tokenizer(_TEXT * 20, config)[0]


class Text(Reader):
    """Two text files: lines by the line rule, from plain, compressed and streamed files alike; pairs never slip."""

    words = (
        *(b"\n", b"\r", b"\r\n", b"\n\n", _BOM, b"\x00", b"\x0c", b"\xe2\x80\xa8", b"\xc2\x85", b"\xff", _GZIP),
        *(b"\xed\xa0\x80", b"\xf4\x90\x80\x80", _GZIP + b"\x08" + bytes(6) + b"\xff", gzip.compress(b"x\n")),
        *_OTHER_FORMATS,
    )

    def __init__(self, folder):
        self._src, self._tgt = folder / "a", folder / "b"
        src, tgt = b"one\ntwo\r\nthree", "é\u2028\n\x00\n。\n".encode()
        packed = gzip.compress(src), gzip.compress(tgt)
        both = packed[0] + gzip.compress(b"\n") + packed[0]
        others = bz2.compress(src), lzma.compress(tgt), zstd.compress(src[:4]) + zstd.compress(src[4:])
        self.valid = [(src, tgt), (packed[0], tgt), (others[0], others[1]), (others[2], tgt)]
        self.valid += [(_BOM + src, packed[1]), (both, packed[1] * 2)]

    def check(self, files):
        src, tgt = (self._lines(data, path) for data, path in zip(files, (self._src, self._tgt), strict=True))
        pairs, message = [], ""
        try:
            for pair in read_pairs(TextFiles(src=(self._src,), tgt=(self._tgt,))):
                pairs.append((pair.src.encode(), pair.tgt.encode(), pair.line))
        except DataError as error:
            message = str(error)
        if src is None or tgt is None:
            assert message, "a damaged file passed"
        elif any(structured(_unpacked(data)[:HEAD]) for data in files):
            assert "not plain lines" in message, "a file of another kind passed for text"
        else:
            whole = list(zip(src, tgt, range(len(src)), strict=False))
            good = next((i for s, t, i in whole if not (_is_text(s) and _is_text(t))), len(whole))
            assert pairs == whole[:good]
            expected = rf"has {len(src)} lines.* has {len(tgt)};" if len(src) != len(tgt) else "^$"
            assert re.search(rf"[ab]:{good + 1}: not valid UTF-8" if good < len(whole) else expected, message), message
        if message:
            raise DataError(message)

    def _lines(self, data: bytes, path: Path) -> list[bytes] | None:
        """Read one file in all forms; its lines, or None where it is refused, with reason."""
        path.write_bytes(data)
        try:
            content: bytes | None = _unpacked(data)
        except Exception:  # whatever it is, the reader has to call it damaged
            content = None
        forms: list[Iterable[bytes]] = [read_lines(path), read_stream(io.BytesIO(data), "stream")]
        if content is not None:
            forms.append(read_stream(io.BytesIO(gzip.compress(content, 0)), "stream"))
        found, *others = map(_lines_or_none, forms)
        assert all(lines == found for lines in others), (found, others)
        if found is None:
            twice = content is not None and (content.startswith(_GZIP) or _decompressor(content))
            assert content is None or twice or not_text(content[:HEAD]), "text was refused"
        else:
            assert content is not None, "a damaged file passed"
            *lines, last = content.removeprefix(_BOM).split(b"\n")
            assert found == [line.removesuffix(b"\r") for line in (*lines, *([last] if last else []))]
        return found


def _unpacked(data: bytes) -> bytes:
    """The content of all compressed parts, with nothing but zero bytes behind them; data that are not compressed."""
    if data.startswith(_GZIP):
        return gzip.decompress(data)
    if (new_decompressor := _decompressor(data)) is None:
        return data
    content = b""
    while data:
        part = new_decompressor()
        content += part.decompress(data)
        assert part.eof
        data = part.unused_data.lstrip(b"\0")
    return content


def _decompressor(data: bytes) -> Callable[[], Any] | None:
    return next((new for start, new in _COMPRESSED.items() if re.match(start, data)), None)


def _lines_or_none(lines: Iterable[bytes]) -> list[bytes] | None:
    try:
        return list(lines)
    except DataError:
        return None


def _is_text(line: bytes) -> bool:
    return line.decode(errors="ignore").encode() == line


_PAIRS = [("one", "eins"), ("", "zwei"), ("three & <3>", "drei \u2028。")]  # no reader strips or changes them
_TABLE_WORDS = (b"\t", b",", b'"', b'""', b"\n", b"\r\n", b"\r", _BOM, b"\x00", b"\xff", b"en", b"de", b'"\n"')
_XML_WORDS = b"""<tu> </tu> <tuv> <seg> </seg> <body> <!DOCTYPE&x; <!ENTITY &amp; &lt; &#0; &#x110000; &x; & <hi> <ph/>
<it> <ut> <![CDATA[ ]]> <!-- --> <?xml encoding="utf-16"?> <?xml?> xml:lang="en" xml:lang='de-AT' xmlns:a="b" a:b=""
<a/> \x0b""".split()
_ZIP_WORDS = (b"PK\x01\x02", b"PK\x03\x04", b"PK\x05\x06", b"..", b"/", b"\0\0", b"\xff\xff", b"\xff\xff\xff\xff")


class Dataset(Reader):
    """A file of a dataset: the pairs that it holds, each on one line, or one line with its place."""

    name: str
    keys: Sequence[tuple[str, str]] = (("src", "en"), ("tgt", "de"))
    breaks = "\r\n"  # characters that no text of a pair has

    def __init__(self, folder):
        self._path = folder / f"x.{self.name}"
        self._dataset = AnyDataset.validate_python({self.name: str(self._path), **dict(self.keys)})
        self.valid = [(self.written(),)]

    def written(self) -> bytes:
        """A file with ``_PAIRS``."""
        raise NotImplementedError

    def file(self, files: Input) -> bytes:
        """What to read."""
        return files[0]

    def check(self, files):
        self._path.write_bytes(self.file(files))
        try:
            pairs = list(read_pairs(self._dataset))
        except DataError as error:
            if not re.fullmatch(rf"{re.escape(str(self._path))}.*", str(error)):
                raise AssertionError("not one line with the place") from error
            raise
        assert [pair.line for pair in pairs] == list(range(len(pairs)))
        assert not set(self.breaks).intersection("".join(pair.src + pair.tgt for pair in pairs))
        if files in self.valid:
            assert [pair[:2] for pair in pairs] == _PAIRS


class Tsv(Dataset):
    """Tables with tabs."""

    name, words = "tsv", _TABLE_WORDS

    def written(self):
        return "".join(f"{tgt}\t{src}\n" for src, tgt in [("en", "de"), *_PAIRS]).encode()


class Csv(Dataset):
    """Tables with quotes."""

    name, words = "csv", _TABLE_WORDS

    def written(self):
        return "".join(f'"{tgt}",{src}\r\n' for src, tgt in [("en", "de"), *_PAIRS]).encode()


class Jsonl(Dataset):
    """A JSON object in every line."""

    name, words = "jsonl", _JSON_WORDS
    keys = (("src", "t.en"), ("tgt", "t.de"))

    def written(self):
        return "".join(json.dumps({"t": {"en": src, "de": tgt}}) + "\n" for src, tgt in _PAIRS).encode()


class Tmx(Dataset):
    """Translation memories."""

    name, words = "tmx", _XML_WORDS
    keys = (("src_lang", "en"), ("tgt_lang", "de"))

    def __init__(self, folder):
        super().__init__(folder)
        self.valid = [*self.valid, (self.valid[0][0].decode().encode("utf-16"),)]

    def written(self):
        variant = '<tuv xml:lang="{}"><seg>{}</seg></tuv>'.format
        units = (f"<tu>{variant('en-US', escape(src))}{variant('de', escape(tgt))}</tu>\n" for src, tgt in _PAIRS)
        return f'<tmx version="1.4"><header/><body>\n{"".join(units)}</body></tmx>'.encode()


class _Archive(Dataset):
    """A zip archive: damaged as a whole, or in its members, which are put together again."""

    words = (*_ZIP_WORDS, *_XML_WORDS)

    def __init__(self, folder):
        super().__init__(folder)
        with ZipFile(io.BytesIO(self.valid[0][0])) as archive:
            self._names = archive.namelist()
            self.valid = [*self.valid, tuple(archive.read(name) for name in self._names)]

    def file(self, files):
        if len(files) != len(self._names):
            return files[0]
        content = io.BytesIO()
        with ZipFile(content, "w") as archive:
            for name, data in zip(self._names, files, strict=True):
                archive.writestr(name, data)
        return content.getvalue()


class Moses(_Archive):
    """Zip archives of OPUS."""

    name = "moses"
    keys = (("src_lang", "en"), ("tgt_lang", "de"))
    breaks = "\n"  # its texts are plain lines, in which a lone CR is a character as any other

    def written(self):
        content = io.BytesIO()
        with ZipFile(content, "w", ZIP_DEFLATED) as archive:
            for side, language in enumerate(("en", "de")):
                archive.writestr(f"corpus.de-en.{language}", "".join(f"{pair[side]}\n" for pair in _PAIRS))
            archive.writestr("LICENSE", "free")
        return content.getvalue()


class Xlsx(_Archive):
    """Spreadsheets."""

    name = "xlsx"

    def written(self):
        content, book = io.BytesIO(), openpyxl.Workbook()
        for row in [("en", "de"), *_PAIRS]:
            book.active.append(row)
        book.save(content)
        return content.getvalue()


class Parquet(Dataset):
    """Parquet tables."""

    name, words = "parquet", (b"PAR1", b"en", b"de", b"\0" * 4, b"\xff" * 4, b"\x15\x00", b"\x19\x1c", b"\x7f", b"\x80")

    def written(self):
        content = io.BytesIO()
        columns = {name: [pair[side] for pair in _PAIRS] for side, name in enumerate(("en", "de"))}
        parquet.write_table(pyarrow.table(columns), content)
        return content.getvalue()


class ConfigFile(Reader):
    """A config file and overrides (NUL between them): mistakes with places, or a config that dumps and loads equal."""

    words = _YAML_WORDS
    former = (
        (b"1e-4", b"1" + b"0" * 400),
        (b"seed: 3", b"a: &a [x,x]\nb: &b [*a,*a,*a]\nc: &c [*b,*b,*b]\nseed: *c"),
        (b"seed: 3", b'seed: "\\ud800"'),
        (b"0.9", b"[" * 5000),
    )

    def __init__(self, folder):
        self._path = folder / "x.yaml"
        self.valid = [
            (_DATA_CONFIG.encode(), b"optim.lr=1e-3\0seed=4"),
            (_SAMPLING.encode(), b"tokenizer.joint=false\0train={max_epochs: 2}"),
            (b"seed: 3 # x\noptim:\n  lr: 1e-4\n  betas: [0, 0.9]\n" + _DATA_CONFIG.encode(), b"data.src_lang=no"),
        ]

    def check(self, files):
        self._path.write_bytes(files[0])
        overrides = [text.decode("utf-8", "surrogateescape") for text in files[1].split(b"\0") if text]
        try:
            config = load_config(self._path, overrides)
        except ConfigError as error:
            place = re.compile(rf"{re.escape(str(self._path))}:(\d+: \S| cannot)|command line: \S")
            if not all(map(place.match, str(error).split("\n"))):
                raise AssertionError("a mistake without its place") from error
            raise
        text = dump_config(config)
        self._path.write_bytes(text.encode())
        again = load_config(self._path)
        assert again == config
        assert dump_config(again) == text


class TokenizerFile(Reader):
    """A SentencePiece model, whole or in fields whose lengths are set right: refused, or texts become ids of the
    vocabulary and any ids become one line of text."""

    words = (
        *(b"\x0a", b"\x12", b"\x1a", b"\x15", b"\x18\x01", b"\x18\x02", b"\x18\x03", b"\x18\x04", b"\x18\x06"),
        *(b"\x0a\x00", b"\xff" * 9 + b"\x01", b"\x0a\x05\x0a\x03<0x", b"<unk>", b"</s>", b"\n", b"\xe2\x96\x81"),
        *(b"\x15\x00\x00\xc0\x7f", b"\x15\x00\x00\x80\x7f", b"\x15\x00\x00\x80\xff"),  # scores: NaN and infinity
    )
    former = ((b"\xe2\x96\x81", b"\xe2\x96\xff"), (b"\x15\x00\x00\x00\x00", b"\x15\x00\x00\xc0\x7f"))

    def __init__(self, folder):
        self.valid = []
        for model in (_tokenizer(), _tokenizer("unigram"), _tokenizer("unigram", byte_fallback=True)):
            self.valid += [(model.model,), _split_fields(model.model)]

    def check(self, files):
        tokenizer = Tokenizer(files[0] if len(files) == 1 else b"".join(map(_join_field, files)))
        texts = ["ka to", "", "mi\u2581\n ü\U0001f600", " ", "k" * 40, "\x00\ufffd<unk></s>"]
        for found in (tokenizer.encode(texts), tokenizer.encode_sampled(texts, 0.3, 1)):
            assert len(found) == len(texts)
            assert all(0 <= i < tokenizer.vocab_size for ids in found for i in ids)
            tokenizer.decode_batch(found)
        every = list(range(min(tokenizer.vocab_size, 5000)))
        assert not re.search(r"[\r\n]", "".join(tokenizer.decode_batch([every, every[::-1], *([i] for i in every)])))


def _split_fields(message: bytes) -> Input:
    """The outermost fields of a protobuf message, each one's key and content without its length."""
    found, at = [], 0
    while at < len(message):
        key, size, shift, more = message[at], 0, 0, True
        while more:
            at += 1
            size |= (message[at] & 127) << shift
            shift, more = shift + 7, message[at] > 127
        found.append(bytes([key]) + message[at + 1 : at + 1 + size])
        at += 1 + size
    return tuple(found)


def _join_field(part: bytes) -> bytes:
    """A field of :func:`_split_fields` with the length that it has now."""
    size, length = max(0, len(part) - 1), b""
    while size > 127:
        length, size = length + bytes([size & 127 | 128]), size >> 7
    return part[:1] + length + bytes([size]) + part[1:] if part else b""


class CorpusFolder(Reader):
    """A corpus: refused, or what was written; where the checksums were forged, at least sentences of its vocabulary."""

    words = (*_JSON_WORDS, b"\xff" * 8, b"\0" * 8, b"\xff\xff", b"\xff\x7f")
    former = (
        (b'"num_pairs": 5', b'"num_pairs": 1000000000000'),
        (b'"num_pairs": 5', b'"num_pairs": 5.0'),
        (b'"<u2"', b'"V9"'),
        (b"\t\0\0\0\0\0\0\0", b"\xff" * 8),  # where a sentence begins
        (b"\r\0\x0f\0", b"\xff\x7f\x0f\0"),  # an id
        (b"{", b"[" * 30_000),
    )

    def __init__(self, folder):
        tokenizer = _tokenizer()
        pairs = [SentencePair(text, text[::-1], i) for i, text in enumerate(_TEXT)]
        self._folder = folder / "c"
        build_corpus(self._folder, pairs, TokenizerPair(tokenizer, tokenizer), "f")
        files = [(self._folder / name).read_bytes() for name in (META, *FILES)]
        self._written = self._content()
        self.valid = [(b"", *files), (b"sealed", *files)]

    def _content(self) -> list[Any]:
        corpus = open_corpus(self._folder, verify=True)
        content = [corpus.lines.tolist()]
        for side, lengths, size in zip(
            SIDES, (corpus.src_lengths, corpus.tgt_lengths), corpus.vocab_sizes, strict=True
        ):
            sentences = [corpus.sentence(side, i).tolist() for i in range(corpus.num_pairs)]
            ids, taken = corpus.take(side, np.arange(corpus.num_pairs))
            assert taken.tolist() == lengths.tolist() == [len(sentence) for sentence in sentences]
            assert ids.tolist() == [i for sentence in sentences for i in sentence]
            assert all(sentence and max(sentence) < size for sentence in sentences)
            content += sentences
        return content

    def check(self, files):
        sealed, meta, *rest = files
        if sealed:
            with suppress(*_MALFORMED):
                tree = json.loads(meta)
                for name, data in zip(FILES, rest, strict=True):
                    tree["files"][name] |= {"bytes": len(data), "blake2b": _digest(data)}
                meta = sealed_json(tree)
        for name, data in zip((META, *FILES), (meta, *rest), strict=True):
            (self._folder / name).write_bytes(data)
        content = self._content()
        assert sealed or content == self._written


def _digest(data: bytes) -> str:
    return hashlib.blake2b(data, digest_size=16).hexdigest()


def _split_tensors(file: bytes) -> tuple[bytes, bytes, bytes]:
    """A file of tensors as header without texts, texts, data."""
    (size,) = struct.unpack_from("<Q", file)
    header = json.loads(file[8 : 8 + size])
    record = header.pop("__metadata__")["seq2seq"]
    return json.dumps(header).encode(), record.encode(), file[8 + size :]


def _join_tensors(header: bytes, record: bytes, data: bytes) -> bytes:
    texts = json.dumps({"__metadata__": {"seq2seq": record.decode("utf-8", "replace")}}).encode()
    whole = header.strip().removesuffix(b"}") + (b"," if len(header) > 2 else b"") + texts[1:]
    whole += b" " * (-len(whole) % 8)
    return struct.pack("<Q", len(whole)) + whole + data


def _seal_tensors(header: bytes, record: bytes, data: bytes, **texts: str) -> bytes:
    """The parts as one file with the checksum of its content, which a stranger can compute, too."""
    with suppress(*_MALFORMED, SafetensorError, RuntimeError):
        tree = {name: texts.get(name, text) for name, text in json.loads(record).items() if name != "blake2b"}
        record = json.dumps(tree, sort_keys=True).encode()
        tensors = load_safetensors(_join_tensors(header, b"{}", data))
        described = [
            f"{name} {tensor.dtype} {tuple(tensor.shape)} {_digest(tensor.reshape(-1).view(torch.uint8).numpy())}"
            for name, tensor in sorted(tensors.items())
        ]
        tree["blake2b"] = _digest("\n".join([record.decode(), *described]).encode())
        record = json.dumps(tree, sort_keys=True).encode()
    return _join_tensors(header, record, data)


class CheckpointFile(Reader):
    """A checkpoint, whole or in three parts that are sealed with the right checksum: refused, or what was written."""

    words = (*_JSON_WORDS, b"\xff" * 7 + b"\x7f", b"\0" * 8)
    former = tuple((rb"\"step\": 3", rb"\"step\": " + value) for value in (b"3.0", b"-1", b"true", b"[" * 30_000))

    def __init__(self, folder):
        weights = {"a": torch.arange(6.0).reshape(2, 3), "b": torch.ones(2).bfloat16()}
        progress, optimizer = Progress(3, 1, 2, 0.5, 2, -1.5, 2, 1), {"a:m": torch.tensor(7)}
        self._written = Checkpoint(progress, weights, {"a": -weights["a"]}, optimizer, "seed: 1\n", "f", "m")
        file = save_checkpoint(folder, self._written, 1).read_bytes()
        self._path = folder / "x.safetensors"
        self.valid = [(file,), _split_tensors(file)]

    def check(self, files):
        whole = len(files) == 1
        self._path.write_bytes(files[0] if whole else _seal_tensors(*files))
        found = load_checkpoint(self._path)
        for field in fields(Progress):
            value = getattr(found.progress, field.name)
            assert type(value) in ((int,) if type(field.default) is int else (int, float, type(field.default))), field
        assert type(found.config) is type(found.data_fingerprint) is str
        for field in fields(Checkpoint):
            ours, theirs = getattr(found, field.name), getattr(self._written, field.name)
            if field.name in ("weights", "average", "optimizer"):
                ours = {name: tensor.reshape(-1).view(torch.uint8).tolist() for name, tensor in ours.items()}
                theirs = {name: tensor.reshape(-1).view(torch.uint8).tolist() for name, tensor in theirs.items()}
            assert ours == theirs or not whole


class ModelFolder(Reader):
    """A model folder of a stranger, all checksums right: refused, or it translates."""

    words = (*_YAML_WORDS, *_JSON_WORDS)
    former = (
        (b"d_model: 4", b"d_model: 1000000"),
        (b"beam_size: 2", b"beam_size: 1000000000"),
        (b"max_length_offset: 3", b"max_length_offset: 1000000000"),
        (b"encoder_layers: 1", b"encoder_layers: 1000000000"),
    )

    def __init__(self, folder):
        self._folder = folder / "m"
        self.valid = []
        sinusoidal, learned = (_CONFIG.replace("POSITIONS", positions) for positions in ("sinusoidal", "learned"))
        for text, tokenizer in (
            (_SAMPLING, _tokenizer()),
            (learned, _tokenizer("unigram")),
            (sinusoidal, _tokenizer()),
        ):
            (folder / "x.yaml").write_text(text, encoding="utf-8")
            config = load_config(folder / "x.yaml").with_choices({"train.max_steps": 2000}).all_stated()
            pair = TokenizerPair(tokenizer, tokenizer)
            torch.manual_seed(1)
            save_model_folder(
                self._folder, dict(build_model(config, pair).named_parameters()), config, pair, {"step": "3"}
            )
            weights = _split_tensors((self._folder / WEIGHTS).read_bytes())
            self.valid.append((text.encode(), (self._folder / "tokenizer.model").read_bytes(), *weights))

    def check(self, files):
        config, tokenizer, *weights = files
        (self._folder / CONFIG).write_bytes(config)
        (self._folder / "tokenizer.model").write_bytes(tokenizer)
        texts = {}
        with suppress(DataError):
            texts["tokenizer"] = TokenizerPair.load(self._folder).fingerprint
        (self._folder / WEIGHTS).write_bytes(_seal_tensors(*weights, **texts))
        loaded = load_model_folder(self._folder)
        translator = Translator(TorchEngine(loaded.model, torch.float32), loaded.config, loaded.tokenizers)
        (found,) = translator.translate(["ka to mi"])
        assert "\n" not in found


READERS: dict[str, Callable[[Path], Reader]] = {
    "text": Text,
    **{kind.name: kind for kind in (Tsv, Csv, Jsonl, Tmx, Moses, Xlsx, Parquet)},
    "config": ConfigFile,
    "tokenizer": TokenizerFile,
    "corpus": CorpusFolder,
    "checkpoint": CheckpointFile,
    "model": ModelFolder,
}
