"""Promise: what is opened is complete and what was asked for; every kept pair is there, in order, exactly."""

import errno
import json
import pickle
import random
import socket
import tempfile
from functools import partial, partialmethod
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from seq2seq.config import TextFiles, TokenizerConfig
from seq2seq.data import corpus as corpus_module
from seq2seq.data import parallel
from seq2seq.data.corpus import build_corpus, open_corpus
from seq2seq.data.corpus_writer import SIDES, CorpusWriter
from seq2seq.data.formats.pairs import SentencePair, read_pairs
from seq2seq.data.symbols import EOS_ID
from seq2seq.data.tokenizer import TokenizerPair, train_tokenizer
from seq2seq.errors import DataError
from seq2seq.files import checksum_file, sealed_json


def made_up_pairs(num: int, seed: int = 0) -> list[SentencePair]:
    rng = random.Random(seed)
    words = ["".join(rng.choices(["ka", "to", "mi", "ren", "sol"], k=rng.randint(1, 4))) for _ in range(80)]

    def sentence() -> str:
        return " ".join(rng.choices(words, k=rng.randint(1, 9)))

    return [SentencePair(sentence(), sentence() + "。", line) for line in range(num)]


@pytest.fixture(scope="module")
def tokenizers() -> TokenizerPair:
    pairs = made_up_pairs(300)
    src, _ = train_tokenizer([pair.src for pair in pairs], TokenizerConfig(kind="unigram", vocab_size=320))
    tgt, _ = train_tokenizer([pair.tgt for pair in pairs], TokenizerConfig(kind="bpe", vocab_size=330))
    return TokenizerPair(src, tgt)


@pytest.fixture
def small_chunks(monkeypatch):
    monkeypatch.setattr(corpus_module, "_CHUNK_PAIRS", 7)


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@settings(deadline=None, max_examples=40)
@given(texts=st.lists(st.tuples(st.text(max_size=12), st.text(max_size=12)), max_size=12), first=st.integers(0, 2**33))
def test_round_trip_of_any_text(tokenizers, texts, first):
    """Guards against pairs lost, moved or mixed up, and against blank sides that are stored."""
    pairs = [SentencePair(src, tgt, first + 2 * i) for i, (src, tgt) in enumerate([("ka", "to"), *texts])]
    with tempfile.TemporaryDirectory() as folder:
        corpus = build_corpus(Path(folder) / "c", pairs, tokenizers, "f")
        encoded = [(*tokenizers.src.encode([p.src]), *tokenizers.tgt.encode([p.tgt]), p) for p in pairs]
        kept = [(s, t, p.line) for s, t, p in encoded if s and t and p.src.strip() and p.tgt.strip()]
        assert corpus.num_pairs == corpus.counts.kept == len(kept)
        assert corpus.counts.read == len(pairs)
        assert corpus.counts.empty == len(pairs) - len(kept)
        assert corpus.lines.tolist() == [line for _, _, line in kept]
        for i, (src, tgt, _) in enumerate(kept):
            assert corpus.sentence("src", i).tolist() == [*src, EOS_ID]
            assert corpus.sentence("tgt", i).tolist() == [*tgt, EOS_ID]
            assert corpus.src_lengths[i] == len(src) + 1
            assert corpus.tgt_lengths[i] == len(tgt) + 1


def test_take_gathers_like_single_reads(tokenizers, tmp_path, small_chunks):
    """Guards against offsets off by one, also across chunks; indices repeat, go backwards, or are none."""
    corpus = build_corpus(tmp_path / "c", made_up_pairs(40), tokenizers, "f")
    for indices in ([3, 0, 39, 39, 6, 7, 8], [5], list(range(40)), np.array([13, 14])):
        for side in SIDES:
            one = partial(corpus.sentence, side)
            ids, lengths = corpus.take(side, indices)
            assert ids.dtype == np.int64
            assert lengths.dtype == np.int32
            assert ids.tolist() == np.concatenate([one(int(i)) for i in indices]).tolist()
            assert lengths.tolist() == [len(one(int(i))) for i in indices]
    ids, lengths = corpus.take("src", [])
    assert ids.shape == lengths.shape == (0,)
    for bad in (-1, 40):
        with pytest.raises(IndexError):
            corpus.take("src", [0, bad])
        with pytest.raises(IndexError):
            corpus.sentence("src", bad)


def test_corpus_is_read_only_and_travels_by_path(tokenizers, tmp_path):
    """Guards against a training run that writes into its data, and workers that copy the corpus."""
    corpus = build_corpus(tmp_path / "c", made_up_pairs(2000), tokenizers, "f")
    assert corpus.sentence("src", 0).dtype == np.uint16
    assert corpus.src_lengths.dtype == np.int32
    with pytest.raises(ValueError, match="read-only"):
        corpus.sentence("src", 0)[0] = 1
    data = pickle.dumps(corpus)
    assert len(data) < 1000
    assert pickle.loads(data).sentence("tgt", 7).tolist() == corpus.sentence("tgt", 7).tolist()


def test_large_vocabulary_takes_wider_ids(tmp_path):
    """Guards against ids wrapping around at 65536."""

    class Wide:
        vocab_size, fingerprint = 70_000, "wide"

        def encode(self, texts):
            return [[65_536 + len(text)] for text in texts]

        def prefix(self, tag):
            return []

    corpus = build_corpus(tmp_path / "c", [SentencePair("a", "bb", 0)], TokenizerPair(Wide(), Wide()), "f")
    assert corpus.sentence("src", 0).dtype == np.uint32
    assert corpus.sentence("src", 0).tolist() == [65_537, EOS_ID]
    assert corpus.sentence("tgt", 0).tolist() == [65_538, EOS_ID]


def test_filters_count_every_pair_once(tokenizers, tmp_path, small_chunks):
    """Guards against counts that do not add up, limits off by one, and an EOS that is not counted."""
    short, long = "ka", " ".join(["ka"] * 30)
    length = {text: len(tokenizers.src.encode([text])[0]) + 1 for text in (short, long)}
    texts = (
        [(short, short)] * 9 + [(short, " \u3000"), ("", short), ("\t", ""), ("\u2581", short)] + [(long, short)] * 5
    )
    pairs = [SentencePair(src, tgt, i) for i, (src, tgt) in enumerate(texts)]
    both = TokenizerPair(tokenizers.src, tokenizers.src)
    ratio = length[long] / length[short]
    cases = [
        ({"max_length": length[long]}, (18, 14, 4, 0, 0)),
        ({"max_length": length[long] - 1}, (18, 9, 4, 5, 0)),
        ({"max_ratio": ratio}, (18, 14, 4, 0, 0)),
        ({"max_ratio": ratio - 0.01}, (18, 9, 4, 0, 5)),
        ({"max_length": length[long] - 1, "max_ratio": 1.5}, (18, 9, 4, 5, 0)),
    ]
    for bounds, expected in cases:
        corpus = build_corpus(tmp_path / "c", pairs, both, "f", **bounds)
        counts = corpus.counts
        assert (counts.read, counts.kept, counts.empty, counts.too_long, counts.ratio) == expected
        assert f"{expected[1]} of 18 pairs kept" in str(counts)
    with pytest.raises(DataError, match=r"no pair is left .*0 of 2 pairs kept; left out: 2 with a blank side"):
        build_corpus(tmp_path / "none", pairs[9:11], both, "f")
    assert [path.name for path in tmp_path.iterdir()] == ["c"]


def test_the_result_does_not_depend_on_chunks_or_cores(tokenizers, tmp_path, monkeypatch):
    """Guards against state carried over, or lost, between chunks, and against processes whose results change places."""
    pairs = [*made_up_pairs(60), SentencePair("ka", " ", 60), SentencePair("ka " * 300, "to", 61)]

    map_with_workers = parallel.Workers.map

    def build(name: str, cores: int, num_pairs: int, characters: int = 1 << 21, few: int = 0) -> dict[str, bytes]:
        monkeypatch.setattr(parallel, "num_cores", lambda: cores)
        monkeypatch.setattr(parallel.Workers, "map", partialmethod(map_with_workers, few=few))
        monkeypatch.setattr(corpus_module, "_CHUNK_PAIRS", num_pairs)
        monkeypatch.setattr(corpus_module, "_CHUNK_CHARACTERS", characters)
        build_corpus(tmp_path / name, iter(pairs), tokenizers, "f", max_length=256)
        return contents(tmp_path / name)

    expected = build("alone", 1, 8192, few=99)
    counts = {"read": 62, "kept": 60, "empty": 1, "too_long": 1, "ratio": 0}
    assert json.loads(expected["meta.json"])["counts"] == counts
    assert build("small chunks", 1, 7, few=99) == expected
    assert build("few characters", 1, 8192, characters=100, few=99) == expected
    assert build("another process", 1, 7) == expected
    assert build("three processes", 3, 7) == expected
    assert build("three processes, few characters", 3, 8192, characters=100, few=2) == expected


def test_errors_in_the_text_come_through_processes(tokenizers, tmp_path, monkeypatch, small_chunks):
    """Guards against a line number, or half a corpus, lost between processes; the error is in the last chunk."""
    monkeypatch.setattr(parallel, "num_cores", lambda: 2)
    lines = [b"ka to mi\n"] * 60
    files = TextFiles(src=(tmp_path / "text.en",), tgt=(tmp_path / "text.de",))
    (tmp_path / "text.en").write_bytes(b"".join(lines))
    for damaged, message in (([*lines[:59], b"\xff\n"], r"text\.de:60: not valid UTF-8"), (lines[:58], "has 58")):
        (tmp_path / "text.de").write_bytes(b"".join(damaged))
        with pytest.raises(DataError, match=message):
            build_corpus(tmp_path / "c", read_pairs(files), tokenizers, "f")
        assert sorted(path.name for path in tmp_path.iterdir()) == ["text.de", "text.en"]


def test_a_failing_build_leaves_nothing(tokenizers, tmp_path, small_chunks):
    """Guards against half a corpus under the name of a whole one, and against losing the one that was there."""

    def failing():
        yield from made_up_pairs(20)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        build_corpus(tmp_path / "c", failing(), tokenizers, "new")
    assert list(tmp_path.iterdir()) == []
    build_corpus(tmp_path / "c", made_up_pairs(20), tokenizers, "old")
    before = contents(tmp_path / "c")
    with pytest.raises(KeyboardInterrupt):
        build_corpus(tmp_path / "c", failing(), tokenizers, "new")
    assert contents(tmp_path / "c") == before
    assert [path.name for path in tmp_path.iterdir()] == ["c"]


def test_a_new_build_replaces_the_old(tokenizers, tmp_path):
    """Guards against a rename that fails because the place is taken; readers of the old one keep it."""
    old = build_corpus(tmp_path / "c", made_up_pairs(20), tokenizers, "old")
    sentence = old.sentence("src", 3).tolist()
    new = build_corpus(tmp_path / "c", made_up_pairs(30, seed=1), tokenizers, "new")
    assert new.num_pairs == 30
    assert old.sentence("src", 3).tolist() == sentence
    assert [path.name for path in tmp_path.iterdir()] == ["c"]


@pytest.mark.parametrize("whole", [True, False])
def test_two_builds_at_once(tokenizers, tmp_path, whole):
    """Guards against a rename that fails because another process was faster, and against pulling its whole corpus from
    under it; a damaged one is replaced."""
    pairs = made_up_pairs(20)

    def meanwhile():
        yield from pairs
        build_corpus(tmp_path / "c", pairs, tokenizers, "f")
        if not whole:
            data = (tmp_path / "c/src.ids").read_bytes()
            (tmp_path / "c/src.ids").write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
        inodes.append((tmp_path / "c").stat().st_ino)

    inodes = []
    build_corpus(tmp_path / "c", meanwhile(), tokenizers, "f")
    open_corpus(tmp_path / "c", "f", verify=True)
    assert ((tmp_path / "c").stat().st_ino == inodes[0]) == whole
    assert [path.name for path in tmp_path.iterdir()] == ["c"]


def test_leftovers_of_dead_builds_are_removed(tokenizers, tmp_path):
    """Guards against killed builds filling the disk."""
    for name in "cd":
        leftover = tmp_path / f".{name}.{socket.gethostname()}.1f.new"
        leftover.mkdir()
        (leftover / "src.ids").write_bytes(b"half")
        leftover.with_suffix(".tmp").touch()
    build_corpus(tmp_path / "c", made_up_pairs(5), tokenizers, "f")
    assert {path.name for path in tmp_path.iterdir()} == {"c", leftover.name, leftover.with_suffix(".tmp").name}


def test_a_full_disk_is_an_error_for_people(tokenizers, tmp_path, monkeypatch):
    """Guards against a traceback, and against remains that keep the disk full."""

    def full(self, name, values):
        raise OSError(errno.ENOSPC, "No space left on device")

    build_corpus(tmp_path / "ok", made_up_pairs(5), tokenizers, "f")
    for number in (5, 60):  # the larger one in other processes

        def pairs(number=number):
            yield from made_up_pairs(number)
            monkeypatch.setattr(CorpusWriter, "_append", full)

        with monkeypatch.context(), pytest.raises(DataError, match="full: no space left"):
            build_corpus(tmp_path / "full", pairs(), tokenizers, "f")
        assert [path.name for path in tmp_path.iterdir()] == ["ok"]
        monkeypatch.undo()


def test_fingerprint_decides_whether_a_corpus_is_opened(tokenizers, tmp_path):
    """Guards against training on the cache of another text."""
    folder = tmp_path / "c"
    with pytest.raises(DataError, match=r"not a corpus, meta\.json is missing"):
        open_corpus(folder)
    build_corpus(folder, made_up_pairs(5), tokenizers, "f")
    assert open_corpus(folder).fingerprint == open_corpus(folder, "f").fingerprint == "f"
    with pytest.raises(DataError, match="other text, tokenizers or filters"):
        open_corpus(folder, "g")


@pytest.mark.parametrize("name", ["src.ids", "tgt.ids", "src.offsets", "tgt.offsets", "lines"])
def test_damage_is_detected(tokenizers, tmp_path, name):
    """Guards against a file cut short or changed passing as data."""
    folder = tmp_path / "c"
    build_corpus(folder, made_up_pairs(5), tokenizers, "f")
    open_corpus(folder, verify=True)
    data = (folder / name).read_bytes()
    (folder / name).write_bytes(data[:-2] + bytes([data[-2] ^ 1]) + data[-1:])
    with pytest.raises(DataError, match=rf"{name}: damaged, its checksum"):
        open_corpus(folder, verify=True)
    (folder / name).write_bytes(data[:-2])
    with pytest.raises(DataError, match=rf"{name}: damaged, {len(data) - 2} bytes instead of {len(data)}"):
        open_corpus(folder)
    (folder / name).unlink()
    with pytest.raises(DataError, match=f"{name} is missing"):
        open_corpus(folder)


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"version": 2}', '{"version": 2, "files": 3}'])
def test_bad_description_is_refused(tokenizers, tmp_path, text):
    """Guards against a traceback for a damaged or foreign meta.json."""
    folder = tmp_path / "c"
    build_corpus(folder, made_up_pairs(5), tokenizers, "f")
    meta = json.loads((folder / "meta.json").read_text())
    (folder / "meta.json").write_text(text)
    with pytest.raises(DataError, match="damaged"):
        open_corpus(folder)
    for changed in ({"num_pairs": 4}, {"fingerprint": "g"}, {"counts": meta["counts"] | {"read": 6}}, {"blake2b": ""}):
        (folder / "meta.json").write_text(json.dumps(meta | changed, indent=2))
        with pytest.raises(DataError, match=r"meta\.json: damaged, its checksum is wrong"):
            open_corpus(folder)
    (folder / "meta.json").write_text(json.dumps(meta | {"version": 99}))
    with pytest.raises(DataError, match="format 99"):
        open_corpus(folder)


def forge(folder: Path, changes: dict[str, object], name: str = "lines", data: bytes | None = None) -> None:
    """Change a corpus (keys of its description, one file's content) and make its checksums right again."""
    meta = json.loads((folder / "meta.json").read_bytes())
    if data is not None:
        (folder / name).write_bytes(data)
    meta["files"][name] = {"bytes": (folder / name).stat().st_size, "blake2b": checksum_file(folder / name)}
    for key, value in changes.items():
        *above, last = key.split("/")
        tree = meta
        for part in above:
            tree = tree[part]
        tree[last] = value
    (folder / "meta.json").write_bytes(sealed_json(meta))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_pairs": 1e9}, "meta.json: damaged at num_pairs"),
        ({"num_pairs": 10**12}, "lines: damaged, 20 numbers instead of 1000000000000"),
        ({"num_pairs": -1}, "lines: damaged"),
        ({"num_pairs": True}, "damaged at num_pairs"),
        ({"fingerprint": None}, "damaged at fingerprint"),
        ({"counts/read": "x"}, "damaged at counts.read"),
        ({"counts/x": 1}, "damaged corpus"),
        ({"vocab_sizes": {}}, "damaged corpus"),
        ({"dtypes/lines": "O"}, "damaged at dtypes.lines"),
        ({"dtypes/lines": "V9"}, "damaged at dtypes.lines"),
        ({"dtypes/src.ids": "<u4"}, "damaged"),
        ({"dtypes/src.offsets": "<u2"}, "src.offsets: damaged"),
        ({"files": []}, "damaged at files"),
        ({"version": [2]}, r"format \[2\], not 2"),
    ],
)
def test_a_description_that_does_not_fit_is_refused(tokenizers, tmp_path, changes, message):
    """Guards against believing numbers, found by fuzzing: 640 GiB were asked for, and other kinds became tracebacks."""
    build_corpus(tmp_path / "c", made_up_pairs(20), tokenizers, "f")
    forge(tmp_path / "c", changes)
    with pytest.raises(DataError, match=message):
        open_corpus(tmp_path / "c", verify=True)


@pytest.mark.parametrize("content", [b"[" * 100_000, b"3", b"[1]", b'{"version": 2}', b"", b"\xff"])
def test_any_description_is_an_error_at_most(tokenizers, tmp_path, content):
    """Guards against JSON that is none, is nested beyond Python's recursion limit (found by fuzzing), or of something
    else."""
    build_corpus(tmp_path / "c", made_up_pairs(2), tokenizers, "f")
    (tmp_path / "c" / "meta.json").write_bytes(content)
    with pytest.raises(DataError, match="damaged"):
        open_corpus(tmp_path / "c")


@pytest.mark.parametrize("value", [0, -5, 2**62, -(2**63), 7000])
def test_sentences_outside_the_file_are_refused(tokenizers, tmp_path, value):
    """Guards against offsets that were damaged on the disk, found by fuzzing: sentences came out cut, or as IndexError,
    MemoryError and ValueError of numpy."""
    build_corpus(tmp_path / "c", made_up_pairs(20), tokenizers, "f")
    path = tmp_path / "c" / "src.offsets"
    offsets = np.fromfile(path, "<i8")
    offsets[7] = value
    forge(tmp_path / "c", {}, "src.offsets", offsets.tobytes())
    corpus = open_corpus(tmp_path / "c", verify=True)
    for read in (
        lambda: corpus.src_lengths,
        lambda: corpus.take("src", np.arange(20)),
        lambda: [corpus.sentence("src", i) for i in range(20)],
        lambda: corpus.take("src", [6]),
        lambda: corpus.sentence("src", 7 if value else 6),  # 0 could be its start
    ):
        with pytest.raises(DataError, match=r"src\.offsets: damaged, a sentence ends before"):
            read()
    for at in (0, 20):
        forge(tmp_path / "c", {}, "src.offsets", np.insert(np.delete(offsets, at), at, 3).tobytes())
        with pytest.raises(DataError, match=r"src\.(offsets|ids): damaged"):
            open_corpus(tmp_path / "c")


def test_an_id_beyond_the_vocabulary_is_refused(tokenizers, tmp_path):
    """Guards against a damaged byte that ends in an assertion of the GPU, found by fuzzing."""
    build_corpus(tmp_path / "c", made_up_pairs(20), tokenizers, "f")
    ids = np.fromfile(tmp_path / "c" / "tgt.ids", "<u2")
    ids[3] = tokenizers.tgt.vocab_size
    forge(tmp_path / "c", {}, "tgt.ids", ids.tobytes())
    corpus = open_corpus(tmp_path / "c", verify=True)
    for read in (lambda: corpus.take("tgt", [0, 1]), lambda: [corpus.sentence("tgt", i) for i in range(3)]):
        with pytest.raises(DataError, match=r"tgt\.ids: damaged, id 330 is outside the vocabulary"):
            read()
