"""What ``fuzz`` attacks, II: corpora, checkpoints and model folders, which carry checksums.

Some inputs are given the right checksums after the mutation: a stranger can compute them, too.
"""

from __future__ import annotations

import hashlib
import json
import struct
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import fields
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load as load_safetensors

from faults.fuzz_text import CONFIG_TEXT, TEXT, YAML_WORDS, shape_text, sources, tiny_tokenizer
from faults.mutation import Input
from seq2seq import storage
from seq2seq.config_file import load_config
from seq2seq.data.bitext import SentencePair
from seq2seq.data.corpus import Filters, build_corpus, open_corpus
from seq2seq.data.corpus_writer import FILES, META, SIDES, seal_meta
from seq2seq.data.tokenizer import TokenizerPair
from seq2seq.decode.translator import Translator
from seq2seq.errors import DataError
from seq2seq.model_folder import CONFIG, WEIGHTS, build_model, load_model_folder, save_model_folder
from seq2seq.train.checkpoint import Checkpoint, Progress, load_checkpoint, save_checkpoint

_ODD_JSON = b"""null true false NaN Infinity -1 1.5 1e999 [] {} [0] [[]] "" "\\ud800" "a/b" , : { } [ ] "shape":[0]
"F32" "F64" "BF16" "F16" "I64" "U8" "BOOL" "F4" "F8_E4M3" "F6_E2M3" "C64" "U64" "<u2" "<u4" "<i8" "O" "V9" "S0"
"dtype" "data_offsets" "weights/a" "__metadata__":{} "seq2seq" "progress" "step" "version" "fingerprint" """
_JSON_WORDS = _ODD_JSON.split()


class CorpusFolder:
    """A corpus: refused, or what was written; where the checksums were forged, at least sentences of its vocabulary."""

    words: Sequence[bytes] = (*_JSON_WORDS, *(b"\xff" * 8, b"\0" * 8, b"\xff\xff", b"\xff\x7f"))
    sources: Sequence[str] = sources("data/corpus.py")

    def __init__(self, folder: Path) -> None:
        tokenizer = tiny_tokenizer()
        pairs = [SentencePair(text, text[::-1], i) for i, text in enumerate(TEXT)]
        self._folder = folder / "c"
        build_corpus(self._folder, pairs, TokenizerPair(tokenizer, tokenizer), Filters(), "f")
        self._names = (META, *FILES)
        files = [(self._folder / name).read_bytes() for name in self._names]
        self._written = self._content()
        self.seeds = [(b"", *files), (b"sealed", *files)]

    def _content(self) -> list[list[int]]:
        corpus = open_corpus(self._folder, verify=True)
        sentences = [corpus.sentence(side, i).tolist() for side in SIDES for i in range(corpus.num_pairs)]
        for number, (side, lengths) in enumerate(zip(SIDES, (corpus.src_lengths, corpus.tgt_lengths), strict=True)):
            ids, taken = corpus.take(side, np.arange(corpus.num_pairs))
            mine = sentences[number * corpus.num_pairs :][: corpus.num_pairs]
            assert taken.tolist() == lengths.tolist() == [len(sentence) for sentence in mine]
            assert ids.tolist() == [i for sentence in mine for i in sentence]
            assert all(sentence and max(sentence) < corpus.vocab_sizes[number] for sentence in mine)
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
                meta = seal_meta(tree)
        for name, data in zip(self._names, (meta, *rest), strict=True):
            (self._folder / name).write_bytes(data)
        content = self._content()
        assert sealed or content == self._written


def _sealed(header: bytes, record: bytes, data: bytes, texts: Mapping[str, str]) -> bytes:
    """A safetensors file with the right digest for its content, as far as that can be read."""
    with suppress(ValueError, TypeError, AttributeError, RecursionError):
        tree = json.loads(record)
        tree |= {name: text for name, text in texts.items() if name in tree}
        with suppress(SafetensorError, RuntimeError, KeyError, MemoryError):
            tensors = load_safetensors(_assembled(header, b"{}", data))
            tree.pop(storage.DIGEST, None)
            tree[storage.DIGEST] = storage._digest(tensors, tree)
        record = json.dumps(tree, sort_keys=True).encode()
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


class CheckpointFile:
    """A checkpoint, whole or in three parts that are sealed with the right digest: refused, or what was written."""

    words: Sequence[bytes] = (*_JSON_WORDS, b"\xff" * 7 + b"\x7f", b"\0" * 8)
    sources: Sequence[str] = sources("train/checkpoint.py", "storage.py")

    def __init__(self, folder: Path) -> None:
        weights = {"a": torch.arange(6.0).reshape(2, 3), "b": torch.ones(2).bfloat16()}
        self._written = Checkpoint(
            Progress(3, 1, 2, 0.5, 2, -1.5, 2, 1),
            weights,
            {"a": -weights["a"]},
            {"a:m": torch.tensor(7)},
            "seed: 1\n",
            "f",
            "m",
        )
        file = save_checkpoint(folder, self._written, 1).read_bytes()
        self._path = folder / "x.safetensors"
        self.seeds: Sequence[Input] = [(file,), _taken_apart(file)]

    def check(self, files: Input) -> None:
        """See the class."""
        whole = len(files) == 1
        if whole:
            self._path.write_bytes(files[0])
        else:
            header, record, data = files
            self._path.write_bytes(_sealed(header, record, data, {}))
        found = load_checkpoint(self._path)
        for field in fields(Progress):
            value = getattr(found.progress, field.name)
            assert type(value) in ((int,) if type(field.default) is int else (int, float, type(field.default))), field
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


class ModelFolder:
    """A model folder of a stranger, all checksums right: refused, or it translates."""

    words: Sequence[bytes] = (*YAML_WORDS, *_JSON_WORDS)
    sources: Sequence[str] = sources(
        "model_folder.py", "storage.py", "model/transformer.py", "decode/translator.py", "decode/search.py"
    )

    def __init__(self, folder: Path) -> None:
        self._folder = folder / "m"
        self.seeds: list[Input] = []
        for positions, tokenizer in (
            ("sinusoidal", tiny_tokenizer()),
            ("learned", tiny_tokenizer("unigram")),
            ("rotary", tiny_tokenizer()),
        ):
            text = CONFIG_TEXT + shape_text(positions)
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
        translator = Translator(loaded.model, loaded.config, loaded.tokenizers, torch.float32)
        found = translator.translate(["ka to mi"])
        assert len(found) == 1
        assert "\n" not in found[0]
