"""The whole config: the rules between its sections, and what is done with a config: dump, check, compare."""

import json
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, TypeAlias

import yaml
from pydantic import Field, TypeAdapter, ValidationError, ValidatorFunctionWrapHandler, WrapValidator

from seq2seq.config.datasets import Dataset, paths_of
from seq2seq.config.initial import InitConfig
from seq2seq.config.keys import (
    AUTO,
    Key,
    OnePath,
    Section,
    absolute_paths,
    change_paths,
    fields_of,
    get_key,
    option,
    set_key,
    show_key,
    without_numbers,
)
from seq2seq.config.messages import explain
from seq2seq.config.sections import (
    ConvolutionalConfig,
    DataConfig,
    DecodeConfig,
    ModelConfig,
    OptimConfig,
    RecurrentConfig,
    TokenizerConfig,
    TrainConfig,
    known_tags,
)
from seq2seq.errors import ConfigError

_Models: TypeAlias = ModelConfig | RecurrentConfig | ConvolutionalConfig


def _with_architecture(value: Any, validated: ValidatorFunctionWrapHandler) -> _Models:
    """A model that names no architecture is a Transformer; the key does not count as stated."""
    if not isinstance(value, dict) or "architecture" in value:
        return validated(value)  # type: ignore[no-any-return]
    model: _Models = validated({"architecture": "transformer", **value})
    model.model_fields_set.discard("architecture")
    return model


AnyModel: TypeAlias = Annotated[
    Annotated[_Models, Field(discriminator="architecture")], WrapValidator(_with_architecture)
]


class Config(Section):
    """Everything that decides a run."""

    run_dir: OnePath = Field(
        description="Folder of the run: checkpoints, logs, models. A relative path starts at the current folder."
    )
    seed: int = option(1, "Seed of the random numbers: initial weights, order of the data, dropout.", ge=0, lt=2**63)
    data: DataConfig = Field(
        description="Text to train on. Relative paths start at data.dir, else at the folder of the config file."
    )
    init: InitConfig = Field(default_factory=InitConfig, description="A model to start from. Default: random weights.")
    tokenizer: TokenizerConfig = Field(default_factory=TokenizerConfig, description="How text is split into subwords.")
    model: AnyModel = Field(default_factory=ModelConfig, description="The architecture and its shape.")
    optim: OptimConfig = Field(default_factory=OptimConfig, description="The optimizer and its learning rate.")
    train: TrainConfig = Field(default_factory=TrainConfig, description="How long to train and what to keep.")
    decode: DecodeConfig = Field(default_factory=DecodeConfig, description="How to translate: beam search or sampling.")

    def open_choices(self) -> list[str]:
        """The dotted keys that a run has still to choose (:func:`seq2seq.config.keys.choice`)."""
        sections = {name: getattr(self, name) for name in type(self).model_fields}
        return [
            f"{name}.{key}"
            for name, section in sections.items()
            if isinstance(section, Section)
            for key in section.open_choices()
        ]

    def with_choices(self, values: Mapping[str, object]) -> "Config":
        """A copy with these values for dotted keys that are still open; what is stated stays.

        Raises:
            ConfigError: what is stated contradicts a chosen value.
        """
        open_keys = set(self.open_choices())
        return self.with_values({key: value for key, value in values.items() if key in open_keys})

    def with_values(self, values: Mapping[str, object]) -> "Config":
        """A copy with these values for dotted keys.

        Raises:
            ConfigError: they contradict other keys.
        """
        tree = self.model_dump(exclude_unset=True)
        for key, value in values.items():
            set_key(tree, tuple(key.split(".")), value)
        try:
            return Config.model_validate(tree)
        except ValidationError as error:
            lines = [f"{show_key(key)}: {message}" for key, message in explain(error, tree, Config)]
            raise ConfigError("\n".join(lines)) from None

    def all_stated(self) -> "Config":
        """An equal config that leaves no key open."""
        return Config.model_validate(self.model_dump())

    @property
    def cache_dir(self) -> Path:
        """Folder of the tokenised corpus."""
        return self.data.cache_dir or self.run_dir / "data"

    def replace(self, section: str, **values: Any) -> "Config":
        """A copy with other values for these keys of a section. They are not checked."""
        return self.model_copy(update={section: getattr(self, section).model_copy(update=values)})

    def _broken_rules(self) -> Iterator[tuple[str, str]]:
        steps, schedule, warmup = self.train.max_steps, self.optim.schedule, self.optim.warmup_steps
        # Copies, as the caller may use the same sections in another config.
        self.__dict__ |= {"model": self.model.model_copy(), "optim": self.optim.model_copy()}
        if steps is not None and warmup >= steps:
            self.optim.fill(stated=False, warmup_steps=steps // 2)
        follows = self.init.source is None  # else the model to start from decides
        if not self.tokenizer.joint:
            self.model.fill(stated=follows, tie_embeddings="target")
        elif "joint" in self.tokenizer.model_fields_set:
            self.model.fill(stated=follows, tie_embeddings="all")
        if self.model.tie_embeddings == "all" and not self.tokenizer.joint:
            yield "model.tie_embeddings", "all needs one vocabulary; set tokenizer.joint: true, or use target"
        if schedule in ("cosine", "linear") and steps is None and "max_steps" in self.train.model_fields_set:
            yield "optim.schedule", f"{schedule} ends at the last step; set train.max_steps"
        if steps is not None and "warmup_steps" in self.optim.model_fields_set and warmup >= steps:
            yield "optim.warmup_steps", f"must be below train.max_steps ({steps}), not {warmup}"
        if self.train.max_forgetting is not None and self.data.guard is None:
            yield "train.max_forgetting", "needs a text to measure it with; set data.guard, or remove this key"
        if self.decode.tag is not None and self.decode.tag not in self.data.tags:
            yield "decode.tag", f"no dataset of data.train has the tag {self.decode.tag}; {known_tags(self.data.tags)}"
        if (empty := self.data.first_empty_epoch()) and empty <= (self.train.max_epochs or empty):
            yield "data.train", f"no dataset takes part in epoch {empty:,}; change from_epoch or until_epoch"


_TREE = TypeAdapter(dict[str, Any])  # of JSON

# How YAML reads a plain word. The rules of YAML 1.2, because those of 1.1, PyYAML's own, make text of 1e-4 and false
# of the language code no.
_NUMBER = r"\d+(_\d+)*"
_WORDS = {
    "null": r"~|null|Null|NULL|",
    "bool": r"true|True|TRUE|false|False|FALSE",
    "int": rf"[-+]?{_NUMBER}",
    "float": rf"[-+]?(({_NUMBER}(\.\d*)?|\.\d+)([eE][-+]?\d+)?|\.(inf|Inf|INF))|\.(nan|NaN|NAN)",
}
YAML_WORDS: dict[str | None, list[tuple[str, re.Pattern[str]]]] = {
    None: [(f"tag:yaml.org,2002:{kind}", re.compile(f"^({word})$", re.ASCII)) for kind, word in _WORDS.items()]
}
_WORDS_TO_QUOTE = {**yaml.SafeDumper.yaml_implicit_resolvers, **YAML_WORDS}  # what either version does not read as text


class _Dumper(yaml.SafeDumper):
    yaml_implicit_resolvers = _WORDS_TO_QUOTE


def _values(config: Config) -> dict[str, Any]:
    """Plain values, with auto for what is still open."""
    values = config.model_dump(mode="json")
    for key in config.open_choices():
        set_key(values, tuple(key.split(".")), AUTO)
    return values


def dump_config(config: Config, *, absolute: bool = True) -> str:
    """The config as YAML, with auto for what is still open. With absolute data paths, it loads as an equal config from
    any folder.
    """
    values = _values(config)
    if absolute:
        values["data"] = absolute_paths(values["data"], DataConfig, os.getcwd())
    return str(yaml.dump(values, Dumper=_Dumper, sort_keys=False, allow_unicode=True))


def file_problem(path: Path) -> str | None:
    """Why training cannot read a path several times; None if it can."""
    if path.is_file():
        return None
    if path.is_dir():
        return "is a folder, not a text file; list the files in it"
    if path.exists():
        return "is no regular file; training reads its text several times, so write it to a file first"
    return "no such file"


def portable(config: Config) -> Config:
    """The config to store with a model: file names in place of paths, and the languages that the file names gave.

    The model is complete without the one that its run started from, so that one is not named.
    """
    values = _values(config)
    values["init"] = InitConfig().model_dump(mode="json")
    values["data"] = change_paths(values["data"], DataConfig, os.path.basename)
    values["run_dir"] = config.run_dir.resolve().name or "run"
    values["data"] |= {"dir": None, "cache_dir": None, "src_lang": config.data.source_language}
    values["data"]["tgt_lang"] = config.data.target_language
    return Config.model_validate(values)


def check_files(config: Config) -> None:
    """Raise one :class:`ConfigError` with a line for every data file that training cannot read several times."""
    data, several = config.data, len(config.data.train) > 1
    texts: list[tuple[str, Dataset]] = [
        (f"data.train.{number}" if several else "data.train", text) for number, text in enumerate(data.train)
    ]
    texts += [(f"data.{name}", text) for name, text in data.measured.items()]
    missing = [
        f"{place}.{key}: {problem}: {path}"
        for place, text in texts
        for key, paths in paths_of(text).items()
        for path in paths
        if (problem := file_problem(path))
    ]
    if missing:
        raise ConfigError("\n".join(missing))


def schema() -> dict[str, Any]:
    """JSON schema of the config file, for editors and for the documentation."""
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **Config.model_json_schema()}


def changed_keys(old: Config, new: Config) -> list[tuple[str, object, object]]:
    """The dotted keys whose values differ, with both values; ``auto`` for what is open, None where there is no key."""
    before, after = (dict(_leaves(_values(config), ())) for config in (old, new))
    keys = [key for key in dict.fromkeys((*before, *after)) if before.get(key) != after.get(key)]
    return [(".".join(key), before.get(key), after.get(key)) for key in keys]


def diff_configs(old: Config | str, new: Config, sections: Sequence[str]) -> list[str]:
    """Lines such as ``train.batch_tokens: 4096 -> 8192`` for what differs below the given dotted keys.

    Args:
        old: a config, or the JSON of one. Keys that it lacks, as another version of the package wrote it, take their
            defaults.

    Raises:
        ConfigError: ``old`` is damaged, or has keys that this version does not know.
    """
    try:
        tree = _values(old) if isinstance(old, Config) else _TREE.validate_json(old)
    except ValueError:
        raise ConfigError("has no settings that can be read") from None
    wanted = [tuple(section.split(".")) for section in sections]
    fields = fields_of(type(new))
    assert all(key in fields for key in wanted), sections
    before = dict(_leaves(tree, ()))
    values = _values(new)
    after = dict(_leaves(values, ()))
    lacking = [key for key in before if without_numbers(key) not in fields]
    if lacking:
        unknown = "; ".join(f"{'.'.join(key)}: {json.dumps(before[key])}" for key in lacking)
        raise ConfigError(f"has settings that this version of seq2seq lacks ({unknown})")
    compared = [key for key in dict.fromkeys((*before, *after)) if any(key[: len(top)] == top for top in wanted)]
    newer = [key for key in compared if key not in before and not fields[without_numbers(key)].is_required()]
    if newer:
        for key in newer:
            section = get_key(values, key[:-1])
            del (section[0] if isinstance(section, list) else section)[key[-1]]
        defaults = dict(_leaves(type(new).model_validate(values).model_dump(mode="json"), ()))
        before |= {key: defaults[key] for key in newer}
    return [
        f"{'.'.join(key)}: {json.dumps(before.get(key))} -> {json.dumps(after.get(key))}"
        for key in compared
        if before.get(key) != after.get(key)
    ]


def chosen_before(saved: str, config: Config) -> dict[str, object]:
    """The values in a saved config for the keys that ``config`` leaves open.

    Args:
        saved: JSON of a config. A key that it lacks, as another version wrote it, had the value of its default.

    Raises:
        ConfigError: it is damaged.
    """
    try:
        tree = _TREE.validate_json(saved)
    except ValueError:
        raise ConfigError("has no settings that can be read") from None
    fields = fields_of(Config)
    keys = [tuple(name.split(".")) for name in config.open_choices()]
    return {".".join(key): get_key(tree, key, fields[key].default) for key in keys}


def _leaves(value: object, key: Key) -> Iterator[tuple[Key, object]]:
    """The values below a key; those of a list of one section are those of the section."""
    if isinstance(value, list) and any(isinstance(item, dict) for item in value):
        for number, item in enumerate(value):
            yield from _leaves(item, (*key, str(number)) if len(value) > 1 else key)
    elif isinstance(value, dict):
        for name, below in value.items():
            yield from _leaves(below, (*key, name))
    else:
        yield key, value
