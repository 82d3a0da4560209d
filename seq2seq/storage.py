"""Files that are whole or absent, and tensors that are checked when they are read.

A file is written under a temporary name beside its place, forced to the disk, and made visible by one rename. Tensors
are kept in safetensors, which cannot carry code, with a digest of all their bytes in the file's own metadata.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import struct
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

import safetensors
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from seq2seq.errors import ModelError, UserError

DIGEST = "blake2b"  # the key of the digest among the texts


@contextmanager
def written_whole(path: Path) -> Iterator[Path]:
    """Give a temporary path to write to; it becomes ``path`` when the block ends well, and vanishes otherwise.

    Raises:
        UserError: the folder cannot be written or the disk is full. ``path`` is then as it was before.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        with open(temporary, "rb") as file:
            os.fsync(file.fileno())
        os.replace(temporary, path)
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
    except (OSError, safetensors.SafetensorError) as error:
        number = error.errno if isinstance(error, OSError) else None
        full = number in (errno.ENOSPC, errno.EDQUOT) or "No space left" in str(error)
        what = "no space left on the device; free some and run the same command again" if full else str(error)
        raise UserError(f"{path}: cannot be written: {what}") from error
    finally:
        with suppress(OSError):  # it is gone after the rename
            temporary.unlink()


def write_text(path: Path, text: str) -> None:
    """Write a UTF-8 text file whole."""
    with written_whole(path) as temporary:
        temporary.write_text(text, encoding="utf-8", newline="\n")


def _digest(tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> str:
    digest = hashlib.blake2b(digest_size=16)
    digest.update(json.dumps(dict(metadata), sort_keys=True).encode())
    for name in sorted(tensors):
        tensor = tensors[name]
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def save_tensors(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> None:
    """Write tensors (any device; no two sharing memory) and texts to one safetensors file, whole and with a digest."""
    metadata = {name: text for name, text in metadata.items() if name != DIGEST}
    on_cpu = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    with written_whole(path) as temporary:
        # safetensors keeps metadata in no fixed order, so two like checkpoints would differ in bytes: one key has one.
        record = json.dumps({**metadata, DIGEST: _digest(on_cpu, metadata)}, sort_keys=True)
        save_file(on_cpu, temporary, metadata={"seq2seq": record})


def read_metadata(path: Path) -> dict[str, str]:
    """The texts of a file of :func:`save_tensors`, without reading its tensors.

    Raises:
        ModelError: the file is missing, damaged, or not one of ours.
    """
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            record = json.loads((file.metadata() or {})["seq2seq"])
        if not isinstance(record, dict) or not all(isinstance(text, str) for text in record.values()):
            raise ValueError
        return record
    except FileNotFoundError:
        raise ModelError(f"{path}: no such file") from None
    except (safetensors.SafetensorError, OSError, struct.error) as error:
        raise ModelError(f"{path}: damaged or not a safetensors file ({error})") from None
    except (KeyError, ValueError, RecursionError):
        raise ModelError(f"{path}: not written by seq2seq, or damaged") from None


def load_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Read what :func:`save_tensors` wrote, on the CPU, and check it against its digest (among the texts, too).

    Raises:
        ModelError: the file is missing, damaged, or not one of ours.
    """
    metadata = read_metadata(path)
    try:
        tensors = load_file(path)
    except (safetensors.SafetensorError, OSError, ValueError, KeyError) as error:
        raise ModelError(f"{path}: damaged ({error})") from None
    texts = {name: text for name, text in metadata.items() if name != DIGEST}
    if metadata.get(DIGEST) != _digest(tensors, texts):
        raise ModelError(f"{path}: damaged, its content does not match its checksum; use another copy")
    return tensors, metadata
