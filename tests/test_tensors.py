"""Promise: any damage to a file of tensors is found when the file is read, and a failing save loses nothing."""

import errno
import json
import struct

import pytest
import torch
from safetensors.torch import load_file, save_file

from seq2seq import files, tensors
from seq2seq.errors import ModelError, UserError
from seq2seq.files import CHECKSUM
from seq2seq.tensors import load_tensors, read_metadata, save_tensors

METADATA = {"step": "12", "text": 'ü "quoted" \\ line\nend'}


def some_tensors() -> dict[str, torch.Tensor]:
    torch.manual_seed(0)
    return {
        "weights/a": torch.randn(3, 2),
        "weights/half": torch.randn(5).bfloat16(),
        "count": torch.tensor(7),
        "mask": torch.tensor([True, False, True]),
        "none": torch.empty(0, 4),
        "transposed": torch.randn(2, 3).t(),
    }


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "x.safetensors"
    save_tensors(path, some_tensors(), METADATA)
    return path


def test_round_trip(file):
    """Guards against a dtype, shape or text that does not come back as it was."""
    tensors, metadata = load_tensors(file)
    assert metadata == {**METADATA, CHECKSUM: metadata[CHECKSUM]}
    assert tensors.keys() == some_tensors().keys()
    for name, tensor in some_tensors().items():
        assert tensors[name].dtype == tensor.dtype
        assert torch.equal(tensors[name], tensor)
    assert read_metadata(file) == metadata


def test_any_reader_of_safetensors_can_read_it(file):
    """Guards against a format of our own: other programs read the file, and so may other users of the machine."""
    assert all(torch.equal(tensor, some_tensors()[name]) for name, tensor in load_file(file).items())
    assert load_file(file).keys() == some_tensors().keys()
    plain = file.with_name("plain")
    plain.touch()
    assert file.stat().st_mode == plain.stat().st_mode


def test_same_content_same_bytes(file, tmp_path):
    """Guards against files that differ from run to run (contract 2), also where the names come in another order."""
    save_tensors(tmp_path / "y", dict(reversed(some_tensors().items())), dict(reversed(METADATA.items())))
    assert (tmp_path / "y").read_bytes() == file.read_bytes()


@pytest.mark.parametrize("mask", [0x01, 0x20, 0x80, 0xFF])
def test_one_damaged_byte_anywhere(file, mask):
    """Guards against damage that is read as weights, or that ends in a traceback of a library: every single byte of
    header, metadata and data is damaged in turn."""
    whole = bytearray(file.read_bytes())
    for at in range(len(whole)):
        whole[at] ^= mask
        file.write_bytes(whole)
        with pytest.raises(ModelError, match=r"x\.safetensors: "):
            load_tensors(file)
        whole[at] ^= mask
    file.write_bytes(whole)
    load_tensors(file)


def test_truncated_or_extended_anywhere(file):
    """Guards against a file cut by a full disk or a broken copy, at any length."""
    whole = file.read_bytes()
    for content in (*(whole[:n] for n in range(len(whole))), whole + b"\0", whole * 2, b"\0" * len(whole)):
        file.write_bytes(content)
        with pytest.raises(ModelError, match=r"x\.safetensors: "):
            load_tensors(file)


def test_files_that_are_not_ours(tmp_path):
    """Guards against a foreign file taken for a model, and against a traceback for a folder or a missing file."""
    path = tmp_path / "x"
    save_file({"a": torch.zeros(2)}, path)
    with pytest.raises(ModelError, match="not written by seq2seq"):
        load_tensors(path)
    for record in ("[1]", "3", "{}", "{", '{"blake2b": 3}', '{"a": {}, "blake2b": ""}', "[" * 10**5):
        save_file({"a": torch.zeros(2)}, path, metadata={"seq2seq": record})
        with pytest.raises(ModelError, match="x: "):
            load_tensors(path)
    save_file({"a": torch.zeros(2)}, path, metadata={"seq2seq": '{"a": {}}'})
    with pytest.raises(ModelError, match="not written by seq2seq"):
        read_metadata(path)
    path.write_bytes(struct.pack("<Q", 2**63) + b"{}")
    with pytest.raises(ModelError, match="x: damaged"):
        load_tensors(path)
    for other in (tmp_path, tmp_path / "missing"):
        with pytest.raises(ModelError, match=str(other)):
            load_tensors(other)


def test_swapped_tensors_are_found(file):
    """Guards against a checksum of the bytes alone: the same bytes under other names or shapes are other weights."""
    tensors, _ = load_tensors(file)
    record = read_metadata(file)
    a = tensors["weights/a"]
    for changed in ({"weights/b": a}, {"weights/a": a.reshape(2, 3)}, {"weights/a": a.view(torch.int32)}):
        rest = {name: tensor for name, tensor in tensors.items() if name != "weights/a"}
        save_file({**rest, **changed}, file, metadata={"seq2seq": json.dumps(record)})
        with pytest.raises(ModelError, match="checksum"):
            load_tensors(file)


def test_full_disk_is_a_message(tmp_path, monkeypatch):
    """Guards against a traceback for the commonest failure of long runs; what was there stays."""
    path = tmp_path / "x"
    save_tensors(path, some_tensors(), METADATA)
    before = path.read_bytes()

    def full(*args: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(files.os, "fsync", full)
    with pytest.raises(UserError, match="x: cannot be written: no space left on the device"):
        save_tensors(path, {"a": torch.zeros(1)}, {})
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_what_is_not_read_back_is_not_kept(file, monkeypatch):
    """Guards against a disk that loses bits: older checkpoints would go, and the new one be found damaged too late."""
    before = file.read_bytes()

    write = tensors._write

    def losing(path, tensors, metadata):
        write(path, tensors, metadata)
        content = bytearray(path.read_bytes())
        content[-1] ^= 1
        path.write_bytes(content)

    monkeypatch.setattr(tensors, "_write", losing)
    with pytest.raises(UserError, match=r"x\.safetensors: verification failed: the file on disk differs"):
        save_tensors(file, some_tensors(), METADATA)
    assert file.read_bytes() == before
    assert list(file.parent.iterdir()) == [file]


def test_the_space_is_looked_at_before_the_writing(file, monkeypatch):
    """Guards against a disk filled to its last byte by a file that cannot be finished."""
    monkeypatch.setattr(tensors, "_write", lambda *_: pytest.fail("written"))
    free = type("Statvfs", (), {"f_bavail": 1, "f_frsize": 99, "f_blocks": 5})
    monkeypatch.setattr(files.os, "statvfs", lambda _: free)
    with pytest.raises(UserError, match=r"x\.safetensors: no space left .* 1\.0 MB are needed and 0\.0 MB are"):
        save_tensors(file, {"a": torch.zeros(250_000)}, {})


def test_what_was_loaded_can_be_saved_again(file):
    """Guards against a file that nobody can read: the metadata that loading gave, given to saving as they are."""
    tensors, metadata = load_tensors(file)
    save_tensors(file, tensors, metadata)
    assert load_tensors(file)[1] == metadata
