"""Writer of a corpus folder: a temporary folder, then one rename. ``corpus`` reads it and describes the files."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from io import BufferedWriter
from itertools import chain
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from seq2seq.data.symbols import EOS_ID
from seq2seq.data.tokenizer import TokenizerPair
from seq2seq.errors import DataError
from seq2seq.files import CHECKSUM, is_full_disk, new_checksum, put_folder_in_place, sealed_json, temporary_folder

Side = Literal["src", "tgt"]
Ids = NDArray[np.uint16] | NDArray[np.uint32]

META = "meta.json"
VERSION = 2
SIDES: tuple[Side, Side] = ("src", "tgt")
FILES = ("src.ids", "src.offsets", "tgt.ids", "tgt.offsets", "lines")


class Sentences(NamedTuple):
    """Sentences of one side, in the stored types."""

    ids: Ids  # [tokens] all sentences, one after the other, each with its EOS
    lengths: NDArray[np.int64]  # [sentences] tokens, EOS included


def join_sentences(sentences: Sequence[Sequence[int]], vocab_size: int) -> Sentences:
    """Join sentences into one stream, and add EOS to each."""
    lengths = np.fromiter(map(len, sentences), np.int64, len(sentences))
    ids = np.fromiter(chain.from_iterable(sentences), _ids_dtype(vocab_size), int(lengths.sum()))
    return Sentences(np.insert(ids, np.cumsum(lengths), EOS_ID), lengths + 1)


def _ids_dtype(vocab_size: int) -> np.dtype[Any]:
    return np.dtype("<u2" if vocab_size <= 1 << 16 else "<u4")


@contextmanager
def corpus_writer(folder: Path, tokenizers: TokenizerPair) -> Iterator["CorpusWriter"]:
    """Give a writer to a temporary folder, which is put in place after the block; if that raises, nothing remains.

    Raises DataError if the folder cannot be written or the disk is full.
    """
    try:
        with temporary_folder(folder) as temporary:
            with ExitStack() as opened:
                files = {name: opened.enter_context((temporary / name).open("wb")) for name in FILES}
                yield CorpusWriter(temporary, files, tokenizers)
            put_folder_in_place(temporary, folder)
    except OSError as error:
        if is_full_disk(error):
            raise DataError(f"{folder}: no space left on the disk; free some to build the corpus") from error
        raise DataError(f"{folder}: cannot build the corpus ({error}); check the folder") from error


class CorpusWriter:
    """Writes the files of a corpus, in a folder that :func:`corpus_writer` gives; :meth:`finish` must come last."""

    def __init__(self, folder: Path, files: Mapping[str, BufferedWriter], tokenizers: TokenizerPair) -> None:
        self._folder, self._files = folder, files
        self._vocab_sizes = {"src": tokenizers.src.vocab_size, "tgt": tokenizers.tgt.vocab_size}
        self._dtypes = dict.fromkeys(FILES, "<i8")
        self._checksums = {name: new_checksum() for name in FILES}
        self._ends = dict.fromkeys(SIDES, 0)
        for side in SIDES:
            self._dtypes[f"{side}.ids"] = _ids_dtype(self._vocab_sizes[side]).str
            self._append(f"{side}.offsets", np.zeros(1))

    def add(self, src: Sentences, tgt: Sentences, lines: Sequence[int] | NDArray[np.int64]) -> None:
        """Append sentence pairs."""
        for side, sentences in zip(SIDES, (src, tgt), strict=True):
            ends = self._ends[side] + np.cumsum(sentences.lengths)
            self._ends[side] += sentences.ids.size
            self._append(f"{side}.offsets", ends)
            self._append(f"{side}.ids", sentences.ids)
        self._append("lines", np.asarray(lines))

    def finish(self, counts: Mapping[str, int], fingerprint: str) -> None:
        """Write ``meta.json``."""
        files = {
            name: {"bytes": file.tell(), CHECKSUM: self._checksums[name].hexdigest()}
            for name, file in self._files.items()
        }
        meta = {
            "version": VERSION,
            "num_pairs": self._files["lines"].tell() // 8,
            "fingerprint": fingerprint,
            "vocab_sizes": self._vocab_sizes,
            "counts": dict(counts),
            "dtypes": self._dtypes,
            "files": files,
        }
        (self._folder / META).write_bytes(sealed_json(meta))

    def _append(self, name: str, values: NDArray[Any]) -> None:
        data = values.astype(self._dtypes[name], copy=False).data
        self._files[name].write(data)
        self._checksums[name].update(data)
