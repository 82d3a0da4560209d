"""JSON lines: each line is a JSON object with both texts, possibly in nested objects."""

import json
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from seq2seq.data.formats.lines import decode_line, printable, read_lines
from seq2seq.data.formats.rows import known_names, one_line
from seq2seq.data.formats.units import Unit, read_score
from seq2seq.errors import DataError

_NAMES = {bool: "true or false", int: "a number", float: "a number", str: "a string", list: "a list", dict: "an object"}


def read_jsonl(path: Path, *, src: str, tgt: str, score: str | None = None) -> Iterator[Unit]:
    """Stream the objects of a file of JSON lines.

    A key with dots goes into nested objects (``translation.en``), unless the object has a key with these dots. The
    value null is a blank side. Blank lines are allowed at the end only.

    Raises:
        DataError: the file cannot be read, a line is not a JSON object, or a value is missing or not a string.
    """
    for number, _, tree in objects_of(read_lines(path), path):
        place = f"{path}:{number}"
        found = None if score is None else read_score(_value(tree, score, place), place)
        yield Unit(one_line(text_of(tree, src, place)), one_line(text_of(tree, tgt, place)), number, found)


def objects_of(lines: Iterable[bytes], name: Path | str) -> Iterator[tuple[int, str, dict[str, Any]]]:
    """The objects of JSON lines, each with its number and its line."""
    # As floats, whole numbers can have any length.
    decoder = json.JSONDecoder(object_pairs_hook=_without_repeated_keys, parse_int=float)
    blank_line = 0
    for number, raw in enumerate(lines, start=1):
        line = decode_line(raw, name, number)
        if not line.strip():
            blank_line = blank_line or number
            continue
        if blank_line:
            raise DataError(f"{name}:{blank_line}: the line is blank; remove it, each line must be a JSON object")
        yield number, line, _parse(decoder, line, f"{name}:{number}", number == 1)


def _parse(decoder: json.JSONDecoder, line: str, place: str, is_first: bool) -> dict[str, Any]:
    start = line.lstrip()[0]
    try:
        tree = decoder.decode(line)
    except json.JSONDecodeError as error:
        if is_first and start in "[{" and error.pos >= len(line.rstrip()) - 1:
            problem = "the JSON does not end in this line, so the file is JSON, not JSON lines"
            raise DataError(f"{place}: {problem}; {_convert(start)}") from None
        problem = f"{error.msg} at column {error.colno}"
        raise DataError(f"{place}: not valid JSON ({problem}); each line must be a whole JSON object") from None
    except RecursionError:
        raise DataError(f"{place}: objects or lists are nested too deep; remove this line") from None
    except ValueError as error:  # a key that is there twice
        raise DataError(f"{place}: {error}") from None
    if isinstance(tree, dict):
        return tree
    if is_first and isinstance(tree, list) and tree and isinstance(tree[0], dict):
        raise DataError(f"{place}: the file is JSON, not JSON lines; {_convert(start)}")
    raise DataError(f"{place}: is {_name(tree)}, not an object; each line must be an object with keys")


def _convert(start: str) -> str:
    return f"convert it first: jq -c '{'.[]' if start == '[' else '.'}' FILE > FILE.jsonl"


def _without_repeated_keys(items: list[tuple[str, Any]]) -> dict[str, Any]:
    tree = dict(items)
    if len(tree) < len(items):
        [(repeated, _)] = Counter(key for key, _ in items).most_common(1)
        raise ValueError(f"the key '{printable(repeated, 40)}' is there twice in one object; remove one")
    return tree


def _value(tree: dict[str, Any], key: str, place: str) -> Any:
    try:
        return _find(tree, key)
    except KeyError:
        raise DataError(f"{place}: there is no key {key!r}; {known_names('keys', names_in(tree))}") from None


def text_of(tree: dict[str, Any], key: str, place: str) -> str:
    """The text of a key, which can have line breaks; raises DataError if there is none."""
    value = _value(tree, key, place)
    if value is None:
        return ""
    if not isinstance(value, str):
        raise DataError(f"{place}: the value of {key!r} is {_name(value)}, not a string; name a key with a text")
    try:
        value.encode()
    except UnicodeEncodeError:
        raise DataError(f"{place}: the value of {key!r} has half a character (\\ud800 to \\udfff); remove it") from None
    return value


def _find(tree: Any, key: str) -> Any:
    """The value of a key in nested objects, None if one of them is null; raises KeyError."""
    if tree is None:
        return None
    if not isinstance(tree, dict):
        raise KeyError(key)
    if key in tree:
        return tree[key]
    first, _, rest = key.partition(".")
    return _find(tree[first], rest)


def names_in(tree: dict[str, Any]) -> list[str]:
    """The keys of an object, with dots those of inner objects."""
    names: list[str] = []
    for key, value in tree.items():
        names += [f"{key}.{inner}" for inner in value] if isinstance(value, dict) else [key]
    return names


def _name(value: Any) -> str:
    return _NAMES.get(type(value), "null")
