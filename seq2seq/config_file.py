"""From a YAML file and the command line to a :class:`Config`, and from mistakes to messages.

Read top to bottom: loading, then errors. Precedence: defaults, config file, command line (``section.key=value``).
Paths under ``data`` are relative to the config file; ``run_dir`` and every path on the command line are relative to
where the command runs. Loading never looks at the data files.
"""

import difflib
import os
import re
import types
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import yaml
from pydantic import ValidationError
from pydantic.fields import FieldInfo

from seq2seq.config import (
    YAML_WORDS,
    Config,
    DecodeConfig,
    Key,
    Section,
    fields_of,
    get_key,
    make_paths_absolute,
    section_of,
    set_key,
    show,
)
from seq2seq.errors import ConfigError

_LARGEST = 256 << 10  # bytes of a config file; to read so much takes seconds
_DEEPEST = 20  # levels of sections and lists
_SURROGATE = re.compile("[\ud800-\udfff]")  # YAML escapes can write half a character, which no file can hold


def load_config(path: Path, overrides: Sequence[str] = ()) -> Config:
    """Read a config file, apply ``section.key=value`` overrides, and resolve every field.

    Raises one :class:`ConfigError` with a line for every mistake. Rules between keys are checked once each key by
    itself is right.
    """
    draft = _Draft(path)
    for override in overrides:
        draft.override(override)
    return draft.resolve()


def load_saved_config(path: Path) -> Config:
    """Read the resolved config of a run or a model folder, as ``dump_config`` wrote it.

    How the model was trained decides no translation, so what another version of the package has written there and this
    one cannot read takes its default.
    """
    draft = _Draft(path)
    draft.forget_unreadable(("optim", "train"))
    return draft.resolve()


def override_decode(default: DecodeConfig, given: Mapping[str, object]) -> DecodeConfig:
    """``default`` with the given fields replaced, as ``--beam-size`` and its kin on the command line ask for.

    Where sampling is switched off, those settings of ``default`` that only sampling has fall back to theirs. Raises one
    :class:`ConfigError` with a line for every mistake.
    """
    values = {**default.model_dump(), **given}
    if default.sample and values["sample"] is False:
        unused = ("temperature", "top_k", "top_p")
        values |= {name: DecodeConfig.model_fields[name].default for name in unused if name not in given}
    try:
        return DecodeConfig.model_validate(values)
    except ValidationError as error:
        lines = []
        for key, message in _explain(error, values, DecodeConfig):
            option = "--" + "-".join(key).replace("_", "-")
            lines.append(f"{option}: {message.replace('decode.sample: true', '--sample')}")
        raise ConfigError("\n".join(lines)) from None


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


class _Draft:
    """A config in the making: plain values from the file and the command line, and the mistakes found so far."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.problems: dict[Key, tuple[float, str]] = {}
        self._overridden: list[Key] = []
        self._read: dict[int, tuple[yaml.Node, Any]] = {}
        self._children: dict[int, dict[str, tuple[yaml.ScalarNode, yaml.Node]]] = {}
        try:
            with path.open("rb") as file:
                content = file.read(_LARGEST + 1)
            if len(content) > _LARGEST:
                raise ValueError(f"it is larger than {_LARGEST >> 10} KiB, so it is no config file")
            self._root = _compose(content.decode("utf-8-sig"))
        except UnicodeDecodeError as error:
            line = error.object.count(b"\n", 0, error.start) + 1
            raise ConfigError(f"{path}:{line}: is not UTF-8 text; save the file as UTF-8") from None
        except (OSError, ValueError) as error:
            reason = error.strerror if isinstance(error, OSError) else error
            raise ConfigError(f"{path}: cannot be read: {reason}") from None
        except _YamlError as error:
            raise ConfigError(f"{path}:{error.args[0]}: not valid YAML: {error.args[1]}") from None
        tree = {} if self._root is None else self._plain(self._root, ())
        if not isinstance(tree, dict):
            raise ConfigError(f"{path}:1: must hold keys such as run_dir: and data:, not {show(tree)}")
        self.tree: dict[str, Any] = tree
        make_paths_absolute(self.tree, os.path.dirname(os.path.abspath(path)))

    def override(self, text: str) -> None:
        """Apply one ``section.key=value`` from the command line."""
        name, _, value = text.partition("=")
        key = tuple(name.strip().split("."))
        self._overridden.append(key)
        if not value.strip():
            self.report(key, "an override must be written section.key=value")
        elif key not in fields_of():
            self.report(key, _unknown(key, fields_of()))
        else:
            branch: dict[str, Any] = {}
            try:
                node = _compose(value)
            except _YamlError as error:
                return self.report(key, f"not valid YAML: {error.args[1]}")
            set_key(branch, key, self._plain(node, key) if node else None)
            make_paths_absolute(branch, os.getcwd())
            set_key(self.tree, key, get_key(branch, key))

    def forget_unreadable(self, sections: tuple[str, ...]) -> None:
        """Drop the keys of these sections that a config cannot have, or not beside the others."""
        for section in sections:
            if not isinstance(self.tree.get(section, {}), dict):
                del self.tree[section]

        def is_stated(key: Key) -> bool:
            return key[0] in sections and len(key) > 1 and key[-1] in get_key(self.tree, key[:-1], ())

        while blamed := [key for key in dict(self._mistakes()) if is_stated(key)]:
            for key in blamed:
                del get_key(self.tree, key[:-1])[key[-1]]

    def _mistakes(self) -> list[tuple[Key, str]]:
        try:
            Config.model_validate(self.tree)
        except ValidationError as error:
            return list(_explain(error, self.tree))
        return []

    def resolve(self) -> Config:
        """The config, if there was no mistake; else a ConfigError with a line for each."""
        for key, field in fields_of().items():
            absent: object = None if len(key) == 1 else {}
            if section_of(field.annotation) is field.annotation and get_key(self.tree, key, absent) is None:
                set_key(self.tree, key, {})
        for key, message in self._mistakes():
            self.report(key, message)
        if self.problems:
            ordered = sorted(self.problems.values(), key=lambda problem: problem[0])
            raise ConfigError("\n".join(text for _, text in ordered))
        return Config.model_validate(self.tree)

    def report(self, key: Key, message: str, node: yaml.Node | None = None) -> None:
        """Note a mistake at the place where the key was stated; the first one of a key is the one to tell."""
        line: float = node.start_mark.line + 1 if node else self._line(key)
        place = f"{self.path}:{line}"
        if any(key[: len(stated)] == stated for stated in self._overridden):
            line, place = float("inf"), "command line"
        name = ".".join(part if re.fullmatch(r"[\w-]{1,60}", part) else show(part) for part in key)
        self.problems.setdefault(key, (line, ": ".join(part for part in (place, name, message) if part)))

    def _line(self, key: Key) -> int:
        """Line of a key in the file, or of the deepest section above it that the file has."""
        line, node = 1, self._root
        for part in key:
            if not isinstance(node, yaml.MappingNode):
                break
            if id(node) not in self._children:  # looked up by name: a file of many mistakes asks for many lines
                named = {name.value: (name, child) for name, child in node.value if isinstance(name, yaml.ScalarNode)}
                self._children[id(node)] = named
            if part not in self._children[id(node)]:
                break
            name, node = self._children[id(node)][part]
            line = name.start_mark.line + 1
        return line

    def _plain(self, node: yaml.Node, key: Key, above: tuple[int, ...] = ()) -> Any:
        """The plain value of a YAML node: what YAML can hold and a config needs, nothing that runs code."""
        if id(node) in above or len(above) > _DEEPEST:
            self.report(key, "nested too deeply, or inside itself")
            return None
        if id(node) not in self._read:  # an alias is read once
            inside = (*above, id(node))
            value: Any = None
            if node.tag == "tag:yaml.org,2002:map" and isinstance(node, yaml.MappingNode):
                value = self._plain_mapping(node, key, inside)
            elif node.tag == "tag:yaml.org,2002:seq" and isinstance(node, yaml.SequenceNode):
                value = [self._plain(item, key, inside) for item in node.value]
            else:
                try:
                    value = _scalar(node)
                except ValueError as error:
                    self.report(key, str(error))
            self._read[id(node)] = (node, value)
        return self._read[id(node)][1]

    def _plain_mapping(self, node: yaml.MappingNode, key: Key, inside: tuple[int, ...]) -> dict[str, Any]:
        values: dict[str, Any] = {}
        lines: dict[str, int] = {}
        for name, child in node.value:
            if not isinstance(name, yaml.ScalarNode) or _SURROGATE.search(name.value):
                self.report(key, "a key must be a plain word", name)
                continue
            if name.value in values:
                self.report((*key, name.value), f"stated twice, first in line {lines[name.value]}", name)
            lines[name.value] = name.start_mark.line + 1
            values[name.value] = self._plain(child, (*key, name.value), inside)
        return values


def _scalar(node: yaml.Node) -> object:
    """A word, number, truth value or null; ValueError for anything else."""
    kind, text = node.tag.removeprefix("tag:yaml.org,2002:"), node.value
    if not isinstance(node, yaml.ScalarNode) or kind not in ("null", "bool", "int", "float", "str"):
        raise ValueError(f"the YAML tag {show(node.tag)} is not allowed")
    if kind == "str":
        if _SURROGATE.search(text):
            raise ValueError("holds half a character (a surrogate escape)")
        return text
    if kind == "null":
        return None
    if kind == "bool" and text.lower() in ("true", "false"):
        return text.lower() == "true"
    try:
        return int(text) if kind == "int" else float(re.sub(r"\.(?=inf|nan)", "", text.lower()))
    except ValueError:
        raise ValueError(f"{show(text)} cannot be read as {kind}") from None


# ------------------------------------------------------------------------------------------------------------- messages


def _explain(
    error: ValidationError, tree: dict[str, Any], section: type[Section] = Config
) -> Iterator[tuple[Key, str]]:
    """Pydantic's errors in words for people: the key below ``section`` and what to do."""
    fields = fields_of(section)
    for item in error.errors(include_url=False):
        key = tuple(str(part) for part in item["loc"])
        if item["type"] == "rules":
            yield from (((*key, *name.split(".")), message) for name, message in item["ctx"]["problems"])
        elif item["type"] == "extra_forbidden":
            yield key, _unknown(key, fields)
        elif item["type"] == "missing" and key in fields:
            sentence = re.split(r"[.:] ", str(fields[key].description))[0].rstrip(".")
            yield key, f"missing; {sentence[0].lower()}{sentence[1:]}"
        else:
            while key not in fields:  # an item of a list is told as its list
                assert key, item
                key = key[:-1]
            annotation, value = fields[key].annotation, get_key(tree, key)
            if item["type"] == "value_error":
                yield key, str(item["ctx"]["error"])
            else:
                choices = get_args(annotation) if get_origin(annotation) is Literal else ()
                expected = _expected(annotation, fields[key].metadata)
                yield key, f"must be {expected}, not {show(value)}{_nearest(value, choices)}"


def _expected(annotation: Any, limits: Sequence[object]) -> str:
    """What a field allows, in words: ``a whole number > 0 or null``."""
    section, args = section_of(annotation), get_args(annotation)
    if get_origin(annotation) in (Union, types.UnionType):
        return " or ".join(_expected(kind, limits) if kind is not type(None) else "null" for kind in args)
    if get_origin(annotation) is Annotated:
        return _expected(args[0], args[1].metadata if isinstance(args[1], FieldInfo) else ())
    if get_origin(annotation) is tuple:
        return f"a list of {len(args)}, each {_expected(args[0], ())}"
    if get_origin(annotation) is Literal:
        return f"one of {', '.join(args)}" if len(args) > 1 else str(args[0])
    if section:
        return "a section of key: value lines"
    kinds = {int: "a whole number", float: "a number", bool: "true or false", str: "text", Path: "a path"}
    signs = {"gt": ">", "ge": ">=", "lt": "<", "le": "<="}
    ranges = [f"{signs[name]} {getattr(limit, name)}" for limit in limits for name in signs if hasattr(limit, name)]
    return f"{kinds[annotation]} {' and '.join(ranges)}".rstrip()


def _nearest(word: object, choices: Sequence[str]) -> str:
    near = difflib.get_close_matches(word.lower(), choices, 1) if isinstance(word, str) else []
    return f"; did you mean {near[0]}?" if near else ""


def _unknown(key: Key, known: Mapping[Key, FieldInfo]) -> str:
    """What to tell about a key that is none of the known ones."""
    name = key[-1]
    if tuple(name.split(".")) in known and "." in name:
        section, _, last = name.rpartition(".")
        return f"unknown key; only the command line takes dotted keys, here write {last}: in the section {section}"
    homes = [".".join(other) for other in known if other[-1] == name]
    if homes:
        return f"unknown key; it belongs to {' or '.join(homes)}"
    siblings = [other[-1] for other in known if other[:-1] == key[:-1]]
    return "unknown key" + (_nearest(name, siblings) or f"; allowed here: {', '.join(siblings)}")
