"""Zip archives of parallel text, as OPUS has them for Moses: one file of lines for each language."""

import struct
from collections.abc import Iterator
from itertools import zip_longest
from pathlib import Path
from typing import BinaryIO, cast
from zipfile import ZIP_DEFLATED, ZIP_STORED, BadZipFile, ZipFile, ZipInfo

from seq2seq.data.formats.compression import DAMAGE, damaged, open_file
from seq2seq.data.formats.lines import decode_line, printable, read_stream
from seq2seq.data.formats.units import Unit
from seq2seq.errors import DataError

_DAMAGE = (*DAMAGE, BadZipFile, ValueError, RuntimeError, OverflowError, struct.error)  # what zipfile raises
_REMEDY = "unpack it and name its two files as src and tgt"
_SHOWN = 10  # members that an error names


def read_moses(path: Path, *, src_lang: str, tgt_lang: str) -> Iterator[Unit]:
    """Yield line n of both languages; each language is the ending of the name of one file in the archive.

    The case of the code does not count, and ``en`` also finds ``en_GB`` if there is no ``en``. Nothing is written to
    the disk.

    Raises DataError if this is no zip archive or a damaged one, if a language has no file or several, or a file that
    cannot be unpacked or is not text, or if the two files have different numbers of lines.
    """
    with open_file(path) as file:
        try:
            if not file.seekable() or file.read(2) != b"PK":
                raise DataError(f"{path}: is not a zip archive; name one, or two files of lines as src and tgt")
            with ZipFile(file) as archive:
                yield from _read_members(archive, path, src_lang, tgt_lang)
        except _DAMAGE as error:
            raise damaged(str(path), error) from None


def _read_members(archive: ZipFile, path: Path, src_lang: str, tgt_lang: str) -> Iterator[Unit]:
    src, tgt = (_find_member(archive, path, language) for language in (src_lang, tgt_lang))
    src_name, tgt_name = (f"{path}/{_shown([member])}" for member in (src, tgt))
    if src is tgt:
        raise DataError(f"{src_name}: is found for both languages, {src_lang} and {tgt_lang}; {_REMEDY}")
    with archive.open(src) as src_file, archive.open(tgt) as tgt_file:
        number = 0
        lines = zip_longest(
            read_stream(cast(BinaryIO, src_file), src_name), read_stream(cast(BinaryIO, tgt_file), tgt_name)
        )
        for number, (src_line, tgt_line) in enumerate(lines, start=1):
            if src_line is None or tgt_line is None:  # one has ended; count the rest of the other
                counts = [number - 1, number + sum(1 for _ in lines)]
                num_src, num_tgt = counts if src_line is None else reversed(counts)
                raise DataError(
                    f"{src_name} has {num_src} lines but {tgt_name} has {num_tgt}; line n of both must be a pair"
                )
            yield Unit(decode_line(src_line, src_name, number), decode_line(tgt_line, tgt_name, number), number)


def _find_member(archive: ZipFile, path: Path, language: str) -> ZipInfo:
    """The only file whose name ends with a dot and the language, in whatever folder of the archive it is."""
    files = [member for member in archive.infolist() if not member.filename.endswith("/")]
    files = [member for member in files if not member.filename.startswith("__MACOSX/")]  # no text, but the same names
    wanted = _normal(language)
    endings = [_normal(member.filename.rpartition(".")[2]) for member in files]
    found = [member for member, ending in zip(files, endings, strict=True) if ending == wanted] or [
        member for member, ending in zip(files, endings, strict=True) if ending.startswith(f"{wanted}-")
    ]
    if len(found) != 1:
        several = f"several files for the language {language}: {_shown(found)}"
        none = f"no file whose name ends with .{language}; it has {_shown(files) or 'no files'}"
        raise DataError(f"{path}: has {several if found else none}; {_REMEDY}")
    (member,) = found
    if member.flag_bits & 1:
        raise DataError(f"{path}/{_shown(found)}: is encrypted; {_REMEDY}")
    if member.compress_type not in (ZIP_STORED, ZIP_DEFLATED):  # zipfile unpacks the others without limit to memory
        raise DataError(f"{path}/{_shown(found)}: is compressed with method {member.compress_type}; {_REMEDY}")
    return member


def _normal(code: str) -> str:
    return code.lower().replace("_", "-")


def _shown(members: list[ZipInfo]) -> str:
    names = [printable(member.filename, 60) for member in members]
    return ", ".join(names[:_SHOWN]) + (f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else "")
