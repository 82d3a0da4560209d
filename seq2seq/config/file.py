"""From a YAML file and the command line to a :class:`Config`.

Precedence: defaults, config file, command line (``section.key=value``).
Paths under ``data`` are relative to ``data.dir``, or without it to the config file; ``run_dir`` and every path on the
command line are relative to where the command runs. Loading never looks at the data files.
"""

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Generic, TypeVar

import yaml
from pydantic import ValidationError

from seq2seq.config.datasets import AnyText, ParallelText, keys_of_train
from seq2seq.config.keys import (
    Key,
    Section,
    absolute_paths,
    fields_of,
    get_key,
    misplaced_number,
    section_of,
    sections_in,
    set_key,
    show,
    show_key,
    without_numbers,
)
from seq2seq.config.messages import explain, unknown
from seq2seq.config.sections import DecodeConfig
from seq2seq.config.whole import YAML_WORDS, Config
from seq2seq.errors import ConfigError

_LARGEST = 256 << 10  # bytes of a config file; YAML of this size takes seconds to read
_DEEPEST = 20  # levels of sections and lists
_SURROGATE = re.compile("[\ud800-\udfff]")  # YAML escapes can write half a character, which no file can hold
T = TypeVar("T", bound=Section)


def load_config(path: Path, overrides: Sequence[str] = ()) -> Config:
    """Read a config file, apply ``section.key=value`` overrides, and resolve every field.

    Raises one :class:`ConfigError` with a line for every mistake. Rules between keys are checked when every single key
    is right.
    """
    draft = Draft(path, Config)
    for override in overrides:
        draft.override(override)
    return draft.resolve()


def load_saved_config(path: Path) -> Config:
    """Read the resolved config of a run or a model folder, as ``dump_config`` wrote it.

    Translation does not depend on the sections optim and train. Keys in them that this version cannot read, as another
    version of the package wrote them, take their defaults.
    """
    draft = Draft(path, Config)
    draft.forget_unreadable(("optim", "train"))
    return draft.resolve()


def override_decode(default: DecodeConfig, given: Mapping[str, object], *, as_flags: bool = False) -> DecodeConfig:
    """``default`` with the given fields replaced, as options such as ``beam_size=2`` ask for.

    If ``given`` turns sampling off, the keys that only sampling uses go back to their defaults. Raises one
    :class:`ConfigError` with a line for every mistake.

    Args:
        as_flags: name the options in messages as the command line does: ``--beam-size``.
    """
    values = {**default.model_dump(), **given}
    if default.sample and values["sample"] is False:
        unused = ("num_samples", "temperature", "top_k", "top_p")
        values |= {name: DecodeConfig.model_fields[name].default for name in unused if name not in given}
    try:
        return DecodeConfig.model_validate(values)
    except ValidationError as error:
        sample = "--sample" if as_flags else "sample=True"
        lines = []
        for key, message in explain(error, values, DecodeConfig):
            option = "--" + "-".join(key).replace("_", "-") if as_flags else show_key(key)
            lines.append(f"{option}: {message.replace('decode.sample: true', sample)}")
        raise ConfigError("\n".join(lines)) from None


class _TestSet(Section):
    test: AnyText

    def _broken_rules(self) -> Iterator[tuple[str, str]]:
        yield from ((f"test.{key}", "is for training text only; remove this key") for key in keys_of_train(self.test))


def load_test_set(text: str) -> ParallelText:
    """A dataset on the command line, written as for ``data.test``: ``{tsv: pairs.tsv, src: 0, tgt: 1}``.

    Paths are relative to where the command runs. Raises one :class:`ConfigError` with a line for every mistake.
    """
    if not text.lstrip().startswith("{"):
        example = "'{tsv: pairs.tsv, src: 0, tgt: 1}'"
        raise ConfigError(f"--test {text}: write the dataset as in a config, for example --test {example}")
    draft = Draft(None, _TestSet)
    draft.override(f"test={text}")
    return draft.resolve().test


class _Loader(yaml.SafeLoader):
    yaml_implicit_resolvers = YAML_WORDS

    def fetch_flow_collection_start(self, token_class: Any) -> None:
        """Called at [ and {; PyYAML would spend seconds on a page of them."""
        if self.flow_level >= _DEEPEST:
            raise yaml.scanner.ScannerError(None, None, "nested too deeply", self.get_mark())
        super().fetch_flow_collection_start(token_class)


class _YamlError(Exception):
    """Text that YAML cannot read; holds the line and the reason."""


def _compose(text: str) -> yaml.Node | None:
    try:
        return yaml.compose(text, Loader=_Loader)
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise _YamlError(line, ", ".join(part for part in (error.context, error.problem) if part)) from None
    except yaml.reader.ReaderError as error:
        reason = f"character {chr(error.character)!r} is not allowed"
        raise _YamlError(text.count("\n", 0, error.position) + 1, reason) from None
    except (yaml.YAMLError, ValueError, OverflowError) as error:
        raise _YamlError(1, str(error)) from None
    except RecursionError:
        raise _YamlError(1, "nested too deeply") from None


class Draft(Generic[T]):
    """A config in the making: plain values from the file and the command line, and the mistakes found so far."""

    def __init__(self, path: Path | None, kind: type[T]) -> None:
        """Read a file; with None, begin with nothing."""
        self.path, self.kind = path, kind
        self.tree: dict[str, Any] = {}
        self.problems: dict[Key, tuple[float, str]] = {}
        self._overridden: list[Key] = []
        self._read: dict[int, tuple[yaml.Node, Any]] = {}
        self._lines: dict[Key, int] = {}
        if path is not None:
            self._read_file(path)

    def _read_file(self, path: Path) -> None:
        try:
            with path.open("rb") as file:
                content = file.read(_LARGEST + 1)
            if len(content) > _LARGEST:
                raise ValueError(f"larger than {_LARGEST >> 10} KiB, so it is not a config file")
            root = _compose(content.decode("utf-8-sig"))
        except UnicodeDecodeError as error:
            line = error.object.count(b"\n", 0, error.start) + 1
            raise ConfigError(f"{path}:{line}: not UTF-8 text; save the file as UTF-8") from None
        except (OSError, ValueError) as error:
            reason = error.strerror if isinstance(error, OSError) else error
            raise ConfigError(f"{path}: cannot be read: {reason}") from None
        except _YamlError as error:
            raise ConfigError(f"{path}:{error.args[0]}: not valid YAML: {error.args[1]}") from None
        tree = {} if root is None else self._plain(root, ())
        if not isinstance(tree, dict):
            raise ConfigError(f"{path}:1: must have keys such as run_dir: and data:, not {show(tree)}")
        self.tree = tree

    def override(self, text: str) -> None:
        """Apply one ``section.key=value`` from the command line."""
        name, _, value = text.partition("=")
        key = tuple(name.strip().split("."))
        self._overridden.append(key)
        fields = fields_of(self.kind)
        if not value.strip():
            self.report(key, "write an override as section.key=value")
        elif without_numbers(key) not in fields:
            above = without_numbers(key[:-1])
            self.report(key, unknown(key, fields, [other[-1] for other in fields if other[:-1] == above]))
        elif misplaced := misplaced_number(self.tree, key, fields):
            self.report(key, misplaced)
        else:
            try:
                node = _compose(value)
            except _YamlError as error:
                return self.report(key, f"not valid YAML: {error.args[1]}")
            set_key(self.tree, key, self._at(os.getcwd(), key, self._plain(node, key) if node else None))

    def _place_data(self) -> None:
        """Make the data's paths absolute: those of the text start at data.dir, others at the folder of the file."""
        here = os.path.dirname(os.path.abspath(self.path)) if self.path else os.getcwd()
        for key in (("data", "dir"), ("data", "cache_dir")):
            if (value := get_key(self.tree, key)) is not None:
                set_key(self.tree, key, self._at(here, key, value))
        folder = get_key(self.tree, ("data", "dir"))
        if "data" in self.tree:
            self.tree["data"] = self._at(folder if isinstance(folder, str) else here, ("data",), self.tree["data"])

    def forget_unreadable(self, sections: tuple[str, ...]) -> None:
        """Remove the keys of these sections that this version refuses."""
        for section in sections:
            if not isinstance(self.tree.get(section, {}), dict):
                del self.tree[section]

        def is_stated(key: Key) -> bool:
            return key[0] in sections and len(key) > 1 and key[-1] in get_key(self.tree, key[:-1], ())

        while blamed := [key for key in dict(self._mistakes()) if is_stated(key)]:
            for key in blamed:
                del get_key(self.tree, key[:-1])[key[-1]]

    def _at(self, folder: str, key: Key, value: Any) -> Any:
        """The value of a key with relative data paths taken from ``folder``."""
        if key[0] != "data":
            return value
        fields = fields_of(self.kind)
        above, field = fields.get(without_numbers(key[:-1])), fields.get(without_numbers(key))
        around = get_key(self.tree, key[:-1], {})
        (around,) = around if isinstance(around, list) and len(around) == 1 else (around,)
        if above and isinstance(around, dict) and (section := section_of(above.annotation, {**around, key[-1]: value})):
            field = section.model_fields.get(key[-1], field)  # sections of a union have keys of the same name
        return absolute_paths(value, field.annotation, folder) if field else value

    def _mistakes(self) -> list[tuple[Key, str]]:
        try:
            self.kind.model_validate(self.tree)
        except ValidationError as error:
            return list(explain(error, self.tree, self.kind))
        return []

    def resolve(self) -> T:
        """The config, if there was no mistake; else a ConfigError with a line for each."""
        self._place_data()
        for key, field in fields_of(self.kind).items():
            absent: object = None if len(key) == 1 else {}
            if field.annotation in sections_in(field.annotation) and get_key(self.tree, key, absent) is None:
                set_key(self.tree, key, {})
        for key, message in self._mistakes():
            self.report(key, message)
        if self.problems:
            ordered = sorted(self.problems.values(), key=lambda problem: problem[0])
            raise ConfigError("\n".join(text for _, text in ordered))
        return self.kind.model_validate(self.tree)

    def report(self, key: Key, message: str, node: yaml.Node | None = None) -> None:
        """Note a mistake at the place where the key was stated; of several in one key, the first is reported."""
        line: float = node.start_mark.line + 1 if node else self._line(key)
        place = f"{self.path}:{line}"
        if any(stated in (key[: len(stated)], without_numbers(key)[: len(stated)]) for stated in self._overridden):
            line, place = float("inf"), "command line"
        self.problems.setdefault(key, (line, ": ".join(part for part in (place, show_key(key), message) if part)))

    def _line(self, key: Key) -> int:
        """Line of a key in the file, or of the deepest section above it that the file has."""
        above = (key[:length] for length in range(len(key), 0, -1))
        return next((self._lines[section] for section in above if section in self._lines), 1)

    def _plain(self, node: yaml.Node, key: Key, above: tuple[int, ...] = ()) -> Any:
        """The plain value of a YAML node. Nothing in it can run code."""
        if id(node) in above or len(above) > _DEEPEST:
            self.report(key, "nested too deeply, or contains itself")
            return None
        if id(node) not in self._read:  # an alias is read once
            inside = (*above, id(node))
            value: Any = None
            if node.tag == "tag:yaml.org,2002:map" and isinstance(node, yaml.MappingNode):
                value = self._plain_mapping(node, key, inside)
            elif node.tag == "tag:yaml.org,2002:seq" and isinstance(node, yaml.SequenceNode):
                value = []
                for number, item in enumerate(node.value):
                    place = (*key, str(number))
                    self._lines[place] = item.start_mark.line + 1
                    value.append(self._plain(item, place if isinstance(item, yaml.MappingNode) else key, inside))
            else:
                try:
                    value = _scalar(node)
                except ValueError as error:
                    self.report(key, str(error))
            self._read[id(node)] = (node, value)
        return self._read[id(node)][1]

    def _plain_mapping(self, node: yaml.MappingNode, key: Key, inside: tuple[int, ...]) -> dict[str, Any]:
        values: dict[str, Any] = {}
        for name, child in node.value:
            if not isinstance(name, yaml.ScalarNode) or _SURROGATE.search(name.value):
                self.report(key, "a key must be one word", name)
                continue
            place = (*key, name.value)
            if name.value in values:
                self.report(place, f"set twice, first in line {self._lines[place]}", name)
            self._lines[place] = name.start_mark.line + 1
            values[name.value] = self._plain(child, place, inside)
        return values


def _scalar(node: yaml.Node) -> object:
    """A word, number, truth value or null; ValueError for anything else."""
    kind, text = node.tag.removeprefix("tag:yaml.org,2002:"), node.value
    if not isinstance(node, yaml.ScalarNode) or kind not in ("null", "bool", "int", "float", "str"):
        raise ValueError(f"the YAML tag {show(node.tag)} is not allowed")
    if kind == "str":
        if _SURROGATE.search(text):
            raise ValueError("has half of a character (a surrogate escape)")
        return text
    if kind == "null":
        return None
    if kind == "bool" and text.lower() in ("true", "false"):
        return text.lower() == "true"
    try:
        return int(text) if kind == "int" else float(re.sub(r"\.(?=inf|nan)", "", text.lower()))
    except ValueError:
        raise ValueError(f"{show(text)} cannot be read as {kind}") from None
