"""What sections are made of, and how their keys are found: in sections, in values, in lists of sections.

A key is a tuple of names: ``("optim", "lr")`` is optim.lr. Where a field holds a list of sections, a number may stand
between the names: ``("data", "train", "1", "src")``.
"""

import json
import os
import re
import reprlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, TypeAlias, get_args, get_origin

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, WithJsonSchema, model_validator
from pydantic.fields import FieldInfo
from pydantic_core import PydanticCustomError


def _as_path(value: object) -> object:
    if value and isinstance(value, (str, Path)):
        return Path(os.path.expanduser(value))
    raise ValueError(f"must be a path, not {show(value)}")


def _as_paths(value: object) -> object:
    items: Sequence[Any] = value if isinstance(value, (list, tuple)) else [value]
    if not items or not all(isinstance(item, Path) or (isinstance(item, str) and item) for item in items):
        raise ValueError(f"must be a path or a list of paths, not {show(value)}")
    return tuple(Path(os.path.expanduser(item)) for item in items)


Key: TypeAlias = tuple[str, ...]  # ("optim", "lr") is the key optim.lr

_PATHS_SCHEMA = {"anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}, "minItems": 1}]}
OnePath: TypeAlias = Annotated[Path, BeforeValidator(_as_path)]
Paths: TypeAlias = Annotated[tuple[Path, ...], BeforeValidator(_as_paths), WithJsonSchema(_PATHS_SCHEMA)]
_NOTHING = object()  # what a tree never holds


def option(default: Any, description: str, **limits: Any) -> Any:
    """A field that need not be stated, with its limits (gt, ge, lt, le)."""
    return Field(default=default, description=description, **limits)


AUTO = "auto"


def choice(default: Any, description: str, **limits: Any) -> Any:
    """A field that a run chooses by itself if it is not stated, or stated as auto.

    Most are chosen from the text, the bounds and the speed of the machine (:mod:`seq2seq.train.recipe`), some follow
    from other keys. Until then the field holds ``default``.
    """
    return Field(default=default, description=description, json_schema_extra=_or_auto, **limits)


def _or_auto(schema: dict[str, Any]) -> None:
    """Change the JSON schema of a field so that it allows auto, which is its default."""
    words = {name: schema.pop(name) for name in ("description", "title") if name in schema}
    schema.pop("default")
    kinds = schema.pop("anyOf", None) or [dict(schema)]
    schema.clear()
    schema.update(anyOf=[*kinds, {"const": AUTO, "type": "string"}], default=AUTO, **words)


def is_choice(field: FieldInfo | None) -> bool:
    """Whether a run chooses the value of a field that is not stated."""
    return field is not None and field.json_schema_extra is _or_auto


class Section(BaseModel):
    """What all sections share: immutable, no unknown keys, no conversion of ``"8"`` or ``true`` to a number."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)

    def _broken_rules(self) -> Iterator[tuple[str, str]]:
        """Fill in the defaults that depend on other keys; then give the broken rules: key below the section, message.

        Called when every single key is right.
        """
        yield from ()

    @model_validator(mode="before")
    @classmethod
    def _without_auto(cls, values: Any) -> Any:
        """Take a choice that is stated as auto as one that is not stated."""
        if not isinstance(values, dict):
            return values
        fields = cls.model_fields
        return {name: value for name, value in values.items() if value != AUTO or not is_choice(fields.get(name))}

    @model_validator(mode="after")
    def _check(self) -> "Section":
        if problems := list(self._broken_rules()):
            text = "; ".join(f"{key}: {message}" for key, message in problems)
            raise PydanticCustomError("rules", "{text}", {"text": text, "problems": problems})
        return self

    def fill(self, *, stated: bool = True, **defaults: Any) -> None:
        """Set those of these keys that were not stated. Only for ``_broken_rules``: a section is frozen for others.

        Args:
            stated: whether the keys count as stated from now on, because what they follow from is stated.
        """
        missing = {key: value for key, value in defaults.items() if key not in self.model_fields_set}
        self.__dict__.update(missing)
        if stated:
            self.model_fields_set.update(missing)

    def open_choices(self) -> list[str]:
        """The keys of this section that a run has still to choose."""
        return [
            name
            for name, field in type(self).model_fields.items()
            if is_choice(field) and name not in self.model_fields_set
        ]


def sections_in(annotation: Any) -> tuple[type[Section], ...]:
    """The sections that a field may hold: one, one of several (a union), or a list of them."""
    if get_origin(annotation) is None and isinstance(annotation, type) and issubclass(annotation, Section):
        return (annotation,)
    return tuple(section for part in get_args(annotation) for section in sections_in(part))


def section_of(annotation: Any, value: Mapping[str, object]) -> type[Section] | None:
    """The section that a mapping is meant to be: of several, the first of those that have the most of its keys."""
    return max(
        sections_in(annotation), key=lambda section: sum(name in section.model_fields for name in value), default=None
    )


def fields_of(section: type[Section], above: Key = ()) -> dict[Key, FieldInfo]:
    """Every key below a section, without the numbers of list items; sections before what is in them.

    Where several sections of a union have the same key, the first one gives the field.
    """
    found: dict[Key, FieldInfo] = {}
    for name, field in section.model_fields.items():
        top = (*above, name)
        found[top] = field
        for inner in sections_in(field.annotation):
            for key, below in fields_of(inner, top).items():
                found.setdefault(key, below)
    return found


def without_numbers(key: Key) -> Key:
    """The key as ``fields_of`` has it: ``data.train.1.src`` becomes ``data.train.src``."""
    return tuple(part for part in key if not part.isdecimal())


def child(tree: Any, part: str, default: object = None) -> Any:
    """What a mapping holds under a name, or a list under a number; the default where it holds nothing there.

    A list of one section needs no number.
    """
    if isinstance(tree, list) and len(tree) == 1 and isinstance(tree[0], dict) and not part.isdecimal():
        tree = tree[0]
    if isinstance(tree, list):
        return tree[int(part)] if part in map(str, range(len(tree))) else default
    return tree.get(part, default) if isinstance(tree, dict) else default


def get_key(tree: Any, key: Key, default: object = None) -> Any:
    """The value of a key, or the default where the tree lacks it."""
    for part in key:
        tree = child(tree, part, _NOTHING)
        if tree is _NOTHING:
            return default
    return tree


def set_key(tree: Any, key: Key, value: object) -> None:
    """Set a value, making the sections above it; nothing where something else stands (an error reported elsewhere)."""
    part, below = key[0], key[1:]
    if isinstance(tree, list):
        part, below = (part, below) if part.isdecimal() else ("0", key)
    place = int(part) if isinstance(tree, list) else part
    if isinstance(tree, list) and place not in range(len(tree)):
        return
    inner = child(tree, part)
    if not below:
        tree[place] = value
    elif inner is None or isinstance(inner, (dict, list)):
        tree[place] = list(inner) if isinstance(inner, list) else dict(inner or {})  # aliases in a file share one
        set_key(tree[place], below, value)


def misplaced_number(tree: Any, key: Key, fields: Mapping[Key, FieldInfo]) -> str | None:
    """What is wrong with the numbers in a known key, given the lists that the tree holds; None if nothing is."""
    for above in range(len(key)):
        value, name, part = get_key(tree, key[:above]), ".".join(key[:above]), key[above]
        kind = fields[without_numbers(key[:above])].annotation if above else None
        is_list = isinstance(value, list) and any(get_origin(one) in (list, tuple) for one in (kind, *get_args(kind)))
        if is_list and (child(value, part) is None if part.isdecimal() else len(value) != 1):
            first = ".".join((*key[:above], "0", *without_numbers(key[above:])))
            return f"{name} is a list of {len(value)}; write {first} for its first item"
        if not is_list and part.isdecimal():
            return f"{name or 'the config'} is not a list; leave out {part}"
    return None


def _holds_paths(annotation: Any) -> bool:
    return annotation is Path or any(_holds_paths(part) for part in get_args(annotation))


def change_paths(value: Any, annotation: Any, change: Callable[[str], str]) -> Any:
    """A field's value with every path in it changed; what is no path stays as it is, an error reported elsewhere."""
    sections, has_paths = sections_in(annotation), _holds_paths(annotation)

    def changed(item: Any) -> Any:
        if isinstance(item, dict) and (section := section_of(annotation, item)):
            fields = {name: field.annotation for name, field in section.model_fields.items()}
            return {name: change_paths(inner, fields.get(name), change) for name, inner in item.items()}
        return change(item) if has_paths and item and isinstance(item, str) else item

    if not isinstance(value, list) or not (sections or has_paths):
        return changed(value)
    distinct = {id(item): item for item in value}  # a page of aliases repeats one section of a page of paths
    done = {key: changed(item) for key, item in distinct.items()}
    return [done[id(item)] for item in value]


def absolute_paths(value: Any, annotation: Any, folder: str) -> Any:
    """A field's value with every path in it absolute; relative ones start at ``folder``."""
    return change_paths(value, annotation, lambda path: os.path.abspath(os.path.join(folder, os.path.expanduser(path))))


def show_key(key: Key) -> str:
    """The dotted key for a message; a part that is no plain name is quoted."""
    return ".".join(part if re.fullmatch(r"[\w-]{1,60}", part) else show(part) for part in key)


def show(value: object) -> str:
    """A value as it would stand in a config, cut short."""
    if value is None or isinstance(value, bool):
        return json.dumps(value)
    short = reprlib.Repr()
    short.maxstring = short.maxother = short.maxlong = 40
    short.maxlevel, short.maxlist, short.maxdict = 2, 4, 4
    return short.repr(value)
