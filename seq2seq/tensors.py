"""Tensors in safetensors files, with checksums that are verified after writing and when reading.

Safetensors files cannot contain code. A checksum of all bytes is in the file's metadata. A new file is read back and
compared before it replaces an earlier one, so a failing disk does not destroy the earlier file.
"""

from __future__ import annotations

import json
import os
import pickle
import struct
import warnings
import zipfile
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import safetensors
import torch
from numpy.typing import NDArray
from torch import Tensor

from seq2seq.errors import ModelError, UserError
from seq2seq.files import CHECKSUM, check_space, checksum, written_whole

_CHECKSUM_THREADS = 4  # more are not faster: memory bandwidth is the limit
_DTYPES = {torch.float64: "F64", torch.float32: "F32", torch.float16: "F16", torch.bfloat16: "BF16", torch.bool: "BOOL"}
_DTYPES |= {torch.int64: "I64", torch.int32: "I32", torch.int16: "I16", torch.int8: "I8", torch.uint8: "U8"}


def checksum_tensors(tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> str:
    """Hex checksum of the texts, and of each tensor's name, dtype, shape and bytes; the tensors must be on the CPU."""

    def described(name: str) -> str:
        tensor = tensors[name]
        return f"{name} {tensor.dtype} {tuple(tensor.shape)} {checksum(_bytes(tensor).data)}"

    with ThreadPoolExecutor(_CHECKSUM_THREADS) as pool:
        parts = [json.dumps(dict(metadata), sort_keys=True), *pool.map(described, sorted(tensors))]
    return checksum("\n".join(parts).encode())


def _bytes(tensor: Tensor) -> NDArray[np.uint8]:
    array: NDArray[np.uint8] = tensor.reshape(-1).view(torch.uint8).numpy()
    return array


def save_tensors(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> None:
    """Write tensors (any device; no shared memory) and texts to a safetensors file, atomically and with a checksum.

    Raises:
        UserError: there is no space for it, or it cannot be written correctly. ``path`` is then not changed.
    """
    metadata = {name: text for name, text in metadata.items() if name != CHECKSUM}
    on_cpu = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    check_space(path, sum(tensor.nbytes for tensor in on_cpu.values()))
    with written_whole(path) as temporary:
        # One key for all metadata: safetensors does not keep their order, so equal checkpoints would differ in bytes.
        record = json.dumps({**metadata, CHECKSUM: checksum_tensors(on_cpu, metadata)}, sort_keys=True)
        _write(temporary, on_cpu, {"seq2seq": record})
        if not _reads_back(temporary, on_cpu, json.loads(record)):
            raise UserError(
                f"{path}: verification failed: the file on disk differs from what was written (failing disk or RAM?); "
                "earlier files are complete: copy them to another disk and continue there"
            )


def save_plain_tensors(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """Write tensors to a safetensors file for another program, atomically; raises UserError as :func:`save_tensors`."""
    on_cpu = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    check_space(path, sum(tensor.nbytes for tensor in on_cpu.values()))
    with written_whole(path) as temporary:
        _write(temporary, on_cpu, {"format": "pt"})  # without it, transformers refuses the file


def _write(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> None:
    """The format of safetensors: length of the header, header (JSON, padded to 8 bytes), all tensors end to end.

    The library would write its own temporary file. After a kill it would stay, under an unknown name, and only its
    owner could read the result.
    """
    names = sorted(tensors, key=lambda name: (-tensors[name].element_size(), name))  # large elements first: aligned
    header: dict[str, object] = {"__metadata__": dict(metadata)}
    end = 0
    for name in names:
        start, end = end, end + tensors[name].nbytes
        shape = list(tensors[name].shape)
        header[name] = {"dtype": _DTYPES[tensors[name].dtype], "shape": shape, "data_offsets": [start, end]}
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for name in names:
            file.write(_bytes(tensors[name]).data)


def _reads_back(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> bool:
    """Whether a file has these tensors and texts; reads it from the disk, not from the cache, if the system can."""
    with open(path, "rb") as file:
        os.fsync(file.fileno())
        if hasattr(os, "posix_fadvise"):
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    try:
        found, texts = _read(path)
    except ModelError:
        return False
    if texts != metadata or found.keys() != tensors.keys():
        return False
    return all(
        found[name].dtype == tensor.dtype
        and found[name].shape == tensor.shape
        and np.array_equal(_bytes(found[name]), _bytes(tensor))
        for name, tensor in tensors.items()
    )


def read_metadata(path: Path) -> dict[str, str]:
    """The texts of a file of :func:`save_tensors`, without reading its tensors.

    Raises:
        ModelError: the file is missing, damaged, or not written by seq2seq.
    """
    return _read(path, with_tensors=False)[1]


def load_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Read a file of :func:`save_tensors` to the CPU and verify its checksum, which is in the returned texts, too.

    Raises:
        ModelError: the file is missing, damaged, or not written by seq2seq.
    """
    tensors, metadata = _read(path)
    texts = {name: text for name, text in metadata.items() if name != CHECKSUM}
    if metadata.get(CHECKSUM) != checksum_tensors(tensors, texts):
        raise ModelError(f"{path}: damaged: its content does not match its checksum; use another copy")
    return tensors, metadata


def load_foreign_tensors(path: Path) -> dict[str, Tensor]:
    """Read a safetensors file of another program, or a checkpoint of PyTorch (``.bin``), to the CPU.

    No code in a checkpoint is run: it may contain tensors, numbers and texts only.

    Raises:
        ModelError: the file is missing or damaged, or has something else than tensors.
    """
    try:
        if path.suffix != ".bin":
            with safetensors.safe_open(path, framework="pt") as file:
                return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        zipped = zipfile.is_zipfile(path)  # older checkpoints are not, and cannot be mapped into memory
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about old kinds of files, which it reads
            found = torch.load(path, map_location="cpu", weights_only=True, mmap=zipped)
    except FileNotFoundError:
        raise ModelError(f"{path}: no such file") from None
    except (safetensors.SafetensorError, OSError, RuntimeError, ValueError, EOFError, struct.error) as error:
        raise ModelError(f"{path}: damaged, or not a file of tensors ({_first_line(error)})") from None
    except pickle.UnpicklingError as error:
        raise ModelError(f"{path}: damaged, or it contains code, which is not run ({_first_line(error)})") from None
    if not isinstance(found, dict) or not all(isinstance(x, Tensor) for x in found.values()):
        raise ModelError(f"{path}: not a table of tensors by name")
    return {str(name): tensor for name, tensor in found.items()}


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def _read(path: Path, *, with_tensors: bool = True) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Tensors and texts; opens the file only once, because another process may replace it meanwhile."""
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            text = (file.metadata() or {})["seq2seq"]
            record = json.loads(text)
            if not isinstance(record, dict) or json.dumps(record, sort_keys=True) != text:
                raise ValueError  # damage that does not change the meaning: \u00fc, \u00FC
            if not all(isinstance(value, str) for value in record.values()):
                raise ValueError
            return {name: file.get_tensor(name) for name in file.keys()} if with_tensors else {}, record  # noqa: SIM118
    except FileNotFoundError:
        raise ModelError(f"{path}: no such file") from None
    except (safetensors.SafetensorError, OSError, struct.error) as error:
        raise ModelError(f"{path}: damaged or not a safetensors file ({error})") from None
    except (KeyError, ValueError, RecursionError):
        raise ModelError(f"{path}: not written by seq2seq, or damaged") from None
