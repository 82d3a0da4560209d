"""Promise: a remembered checksum is the checksum of the file as it is now."""

import json
import os
import time
from pathlib import Path

import pytest

from seq2seq.config import TextFiles
from seq2seq.data import checksums
from seq2seq.data.checksums import ChecksumMemory
from seq2seq.data.prepare import prepare_data
from seq2seq.errors import DataError
from seq2seq.files import checksum_file

HOUR = 3600 * 10**9


@pytest.fixture
def read(monkeypatch):
    """The paths whose content was read."""
    paths = []

    def reading(path):
        paths.append(path)
        return checksum_file(path)

    monkeypatch.setattr(checksums, "checksum_file", reading)
    return paths


@pytest.fixture
def later(monkeypatch):
    """An hour has passed."""
    monkeypatch.setattr(checksums.time, "time_ns", lambda: int(time.time() * 1e9) + HOUR)


def test_what_has_not_changed_is_read_once(tmp_path, read, later):
    """Guards against a start that takes as long as the text is large."""
    text, other, memory = tmp_path / "text", tmp_path / "other", tmp_path / "cache" / "digests.json"
    text.write_bytes(b"abc")
    other.write_bytes(b"d")
    for _ in range(3):
        known = ChecksumMemory(memory)
        assert known.checksum(text) == checksum_file(text)
        assert known.checksum(other) == checksum_file(other)
        assert known.checksum(text) == checksum_file(text)
    assert read == [text, other]
    assert [path.name for path in memory.parent.iterdir()] == ["digests.json"]


def rewrite(path):
    path.write_bytes(b"xyz")


def rewrite_and_hide(path):
    stat = path.stat()
    path.write_bytes(b"xyz")
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))


def replace_and_hide(path):
    stat = path.stat()
    path.with_name("new").write_bytes(b"xyz")
    os.utime(path.with_name("new"), ns=(stat.st_atime_ns, stat.st_mtime_ns))
    path.with_name("new").replace(path)


@pytest.mark.parametrize(
    "change", [rewrite, rewrite_and_hide, replace_and_hide, lambda path: path.write_bytes(b"abcd")]
)
def test_a_changed_file_is_read_again(tmp_path, read, later, change):
    """Guards against training on with the fingerprint of another text: same size, even the same time of change."""
    text = tmp_path / "text"
    text.write_bytes(b"abc")
    before = ChecksumMemory(tmp_path / "m").checksum(text)
    time.sleep(0.02)  # beyond a tick of the clock
    change(text)
    assert ChecksumMemory(tmp_path / "m").checksum(text) == checksum_file(text) != before
    assert len(read) == 2


def test_a_file_changed_just_now_is_not_remembered(tmp_path, read):
    """Guards against a second change within the same tick of the clock, which leaves the times as they are."""
    text = tmp_path / "text"
    text.write_bytes(b"abc")
    for _ in range(2):
        ChecksumMemory(tmp_path / "m").checksum(text)
    assert len(read) == 2
    assert not (tmp_path / "m").exists()


def test_a_file_that_changes_while_it_is_read_is_not_remembered(tmp_path, later, monkeypatch):
    """Guards against the checksum of half the old and half the new text under the stamp of either."""
    text = tmp_path / "text"
    text.write_bytes(b"abc")

    def changing(path):
        found = checksum_file(path)
        time.sleep(0.02)
        path.write_bytes(b"xyz")
        return found

    monkeypatch.setattr(checksums, "checksum_file", changing)
    ChecksumMemory(tmp_path / "m").checksum(text)
    assert not (tmp_path / "m").exists()


@pytest.mark.parametrize(
    "content", ["", "{", "[]", "3", '{"PATH": 3}', '{"files": {"PATH": [[1, 2], 3]}}', '{"files": 3, "blake2b": "x"}']
)
def test_a_damaged_memory_is_no_memory(tmp_path, later, content):
    """Guards against a start that fails for a file that is a mere convenience."""
    text, memory = tmp_path / "text", tmp_path / "m"
    text.write_bytes(b"abc")
    memory.write_text(content.replace("PATH", str(text)))
    assert ChecksumMemory(memory).checksum(text) == checksum_file(text)
    assert list(json.loads(memory.read_text())["files"]) == [str(text)]


def test_a_flipped_bit_in_the_memory_is_no_checksum(tmp_path, later):
    """Guards against "its text has changed" for a text that has not: the remembered checksum is what was damaged."""
    text, memory = tmp_path / "text", tmp_path / "m"
    text.write_bytes(b"abc")
    right = ChecksumMemory(memory).checksum(text)
    memory.write_text(memory.read_text().replace(right[:8], "00000000"))
    assert ChecksumMemory(memory).checksum(text) == right


def test_a_missing_file_is_told_and_a_read_only_cache_is_not(tmp_path, later):
    """Guards against a traceback for a wrong path, and against failing where others have built the cache."""
    with pytest.raises(DataError, match="missing"):
        ChecksumMemory(tmp_path / "m").checksum(tmp_path / "missing")
    text, no_folder = tmp_path / "text", tmp_path / "text" / "m"  # a file is no folder, whoever asks
    text.write_bytes(b"abc")
    assert ChecksumMemory(no_folder).checksum(text) == checksum_file(text)


def test_a_second_start_reads_no_text_and_sees_a_change(tmp_path, tiny_config, later, monkeypatch):
    """Guards against a memory that nobody asks, and against one that hides a changed corpus."""
    config, opened, open_file = tiny_config(), [], Path.open
    valid = TextFiles(src=str(tmp_path / "valid.en"), tgt=str(tmp_path / "valid.de"))  # is read at every start
    config = config.model_copy(update={"data": config.data.model_copy(update={"valid": valid})})

    def opening(path, *args, **options):
        opened.append(path.name)
        return open_file(path, *args, **options)

    for name in ("train.en", "train.de", "valid.en", "valid.de"):
        (tmp_path / name).write_text("ka to mi ren sol\n" * 40)
    first = prepare_data(config, show_progress=False)
    monkeypatch.setattr(Path, "open", opening)
    assert prepare_data(config, show_progress=False).fingerprint == first.fingerprint
    assert opened
    assert not {"train.en", "train.de"} & set(opened)
    time.sleep(0.02)
    (tmp_path / "train.de").write_text("ka to mi ren sol\n" * 39 + "ka to mi sol ren\n")
    assert prepare_data(config, show_progress=False).fingerprint != first.fingerprint
