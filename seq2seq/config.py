"""The config of a run: what can be set, and what is done with a config once it is there.

Read top to bottom: the sections, their keys, then dumping, checking and comparing. Every field of a config is resolved
(presets and defaults filled in), so other modules read plain values. How a YAML file and the command line become a
:class:`Config`, and how mistakes are told, is in ``config_file``.
"""

import json
import os
import re
import reprlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, TypeAlias, get_args, get_origin

import yaml
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, WithJsonSchema, model_validator
from pydantic.fields import FieldInfo
from pydantic_core import PydanticCustomError

from seq2seq.errors import ConfigError
from seq2seq.languages import language_of

# ---------------------------------------------------------------------------------------------------------- sections


def _as_path(value: object) -> object:
    if isinstance(value, str) and value:
        return Path(os.path.expanduser(value))
    if isinstance(value, Path):
        return value
    raise ValueError(f"must be a path, not {show(value)}")


def _as_paths(value: object) -> object:
    items: Sequence[Any] = value if isinstance(value, (list, tuple)) else [value]
    if not items or not all(isinstance(item, Path) or (isinstance(item, str) and item) for item in items):
        raise ValueError(f"must be a path or a list of paths, not {show(value)}")
    return tuple(Path(os.path.expanduser(item)) for item in items)


def _as_tuple(value: object) -> object:
    return tuple(value) if isinstance(value, list) else value


Key: TypeAlias = tuple[str, ...]  # ("optim", "lr") is the key optim.lr

_PATHS_SCHEMA = {"anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}, "minItems": 1}]}
OnePath: TypeAlias = Annotated[Path, BeforeValidator(_as_path)]
Paths: TypeAlias = Annotated[tuple[Path, ...], BeforeValidator(_as_paths), WithJsonSchema(_PATHS_SCHEMA)]
Beta: TypeAlias = Annotated[float, Field(ge=0, lt=1)]


def _option(
    default: Any,
    description: str,
    *,
    gt: float | None = None,
    ge: float | None = None,
    lt: float | None = None,
    le: float | None = None,
) -> Any:
    """A field that need not be stated, with its limits."""
    return Field(default=default, description=description, gt=gt, ge=ge, lt=lt, le=le)


def _refuse(problems: Sequence[tuple[str, str]]) -> None:
    """Turn broken rules, given as (key below the section, message), into one pydantic error; nothing if none broke."""
    if problems:
        text = "; ".join(f"{key}: {message}" for key, message in problems)
        raise PydanticCustomError("rules", "{text}", {"text": text, "problems": list(problems)})


class Section(BaseModel):
    """What all sections share: immutable, no unknown keys, no conversion of ``"8"`` or ``true`` to a number."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


class TextFiles(Section):
    """Parallel text: line n of the source is translated by line n of the target."""

    src: Paths = Field(description="Source text, a file or a list of files that are read one after the other.")
    tgt: Paths = Field(description="Target text, as many files as src, each with as many lines as its partner.")

    @model_validator(mode="after")
    def _check(self) -> "TextFiles":
        counts = f"{len(self.tgt)} files, but src has {len(self.src)}; every source file needs its target file"
        _refuse([("tgt", counts)] if len(self.src) != len(self.tgt) else [])
        return self


class DataConfig(Section):
    """Which text to learn from."""

    train: TextFiles = Field(description="Parallel text to learn from (src and tgt).")
    valid: TextFiles = Field(description="Parallel text that measures progress (src and tgt), not part of train.")
    test: TextFiles | None = _option(None, "Parallel text to report a final score on, if any.")
    src_lang: str | None = _option(None, "Source language code; by default from the file name (train.en.gz is en).")
    tgt_lang: str | None = _option(
        None,
        "Target language code in any usual form (zh, zh_CN, zho_Hans); by default from the file name. It picks BLEU's "
        "tokenizer, unless the text is in another script.",
    )
    max_length: int = _option(
        256,
        "Longest sentence in tokens per side, end of sentence included. Training pairs beyond it are "
        "left out and counted.",
        gt=1,
    )
    max_ratio: float | None = _option(
        None,
        "Leave out training pairs whose longer side has more than this many times the tokens of the shorter one; "
        "such pairs are often not translations.",
        ge=1,
    )
    cache_dir: OnePath | None = _option(None, "Folder for the tokenised corpus; by default the folder data in run_dir.")

    @property
    def source_language(self) -> str | None:
        """``src_lang``, else the code in the name of the first training file, else None."""
        return self.src_lang or language_of(self.train.src[0])

    @property
    def target_language(self) -> str | None:
        """``tgt_lang``, else the code in the name of the first training file, else None."""
        return self.tgt_lang or language_of(self.train.tgt[0])


class TokenizerConfig(Section):
    """How text is cut into subwords. The tokenizer is trained once, on the training text."""

    kind: Literal["unigram", "bpe"] = _option("bpe", "SentencePiece model type.")
    joint: bool = _option(True, "One vocabulary for both languages (allows tied embeddings), or one for each.")
    vocab_size: int = _option(8000, "Number of subwords per vocabulary. More text carries more subwords.", gt=4)
    character_coverage: float = _option(
        0.9995,
        "Share of all characters in the text that get a place of their own in the vocabulary; use 1.0 for "
        "small alphabets.",
        ge=0.98,
        le=1,
    )
    byte_fallback: bool = _option(True, "Spell characters outside the vocabulary as bytes instead of losing them.")
    normalise_source: bool = _option(
        True,
        "Read source text in one spelling, in training and in translation: every white space as a space, composed "
        "characters (NFC), no soft hyphens or zero-width leftovers. Target text stays as it is.",
    )
    sampling: float = _option(
        0.0,
        "Subword regularisation while training, for small data: words are cut in random ways. 0 is off, 0.1 is usual, "
        "and which way is wilder depends on kind. unigram: the smoothing alpha, smaller is wilder (0.01 draws almost "
        "evenly, 1 mostly the best cuts). bpe: the dropout probability of merges, larger is wilder (1 spells letters).",
        ge=0,
        le=1,
    )


_SHAPE = ("encoder_layers", "decoder_layers", "d_model", "num_heads", "d_ff", "dropout", "norm_position")
_PRESETS: Mapping[str, Mapping[str, float | str]] = {
    name: dict(zip(_SHAPE, shape, strict=True))
    for name, shape in {
        "tiny": (4, 4, 128, 4, 256, 0.2, "pre"),
        "small": (4, 4, 256, 4, 1024, 0.1, "pre"),
        "base": (6, 6, 512, 8, 2048, 0.1, "post"),  # Vaswani et al. 2017, table 3
        "big": (6, 6, 1024, 16, 4096, 0.3, "post"),
    }.items()
}


class ModelConfig(Section):
    """The Transformer: a shape from a preset, each part of which can be stated instead."""

    preset: Literal["tiny", "small", "base", "big"] = _option(
        "small",
        "Shape of the model (layers, widths, heads, dropout, norm_position). base and big are those of Vaswani et al. "
        "2017; tiny suits some ten thousand sentence pairs, small some hundred thousand.",
    )
    encoder_layers: int = _option(4, "Encoder layers; default from the preset.", gt=0)
    decoder_layers: int = _option(4, "Decoder layers; default from the preset.", gt=0)
    d_model: int = _option(256, "Width of the embeddings and of every layer's output; default from the preset.", gt=0)
    num_heads: int = _option(4, "Attention heads; d_model must be a multiple of it. Default from the preset.", gt=0)
    num_kv_heads: int = _option(
        4,
        "Heads that hold keys and values, shared by groups of attention heads; fewer make decoding cheaper. "
        "Default num_heads.",
        gt=0,
    )
    d_ff: int = _option(1024, "Inner width of the feed-forward layers; default from the preset.", gt=0)
    dropout: float = _option(0.1, "Share of activations dropped while training; default from the preset.", ge=0, le=0.9)
    norm_position: Literal["pre", "post"] = _option(
        "pre",
        "Normalise before each sublayer (steadier at high learning rates) or after it (the paper); default from the "
        "preset.",
    )
    norm: Literal["layernorm", "rmsnorm"] = _option("layernorm", "Kind of normalisation.")
    activation: Literal["relu", "gelu", "swiglu"] = _option(
        "relu", "Feed-forward activation; swiglu adds a gate, a third matrix per layer."
    )
    positions: Literal["sinusoidal", "learned", "rotary"] = _option(
        "sinusoidal",
        "How the model knows word order: added to the embeddings (fixed or learned up to data.max_length) or "
        "rotated into queries and keys.",
    )
    tie_embeddings: Literal["all", "target", "none"] = _option(
        "all",
        "Share one matrix between source, target and output (all), target and output (target), or nothing (none). "
        "all needs tokenizer.joint; with separate vocabularies the default is target.",
    )
    attention_window: int | None = _option(
        None, "Self-attention reaches this many tokens to each side; null is no limit.", gt=0, lt=2**31
    )

    @model_validator(mode="before")
    @classmethod
    def _fill_from_preset(cls, stated: Any) -> Any:
        preset = stated.get("preset", "small") if isinstance(stated, dict) else None
        if not isinstance(preset, str) or preset not in _PRESETS:
            return stated
        merged = {**_PRESETS[preset], **stated}
        if type(merged["num_heads"]) is int and merged["num_heads"] > 0:
            merged.setdefault("num_kv_heads", merged["num_heads"])
        return merged

    @model_validator(mode="after")
    def _check(self) -> "ModelConfig":
        problems = []
        if self.d_model % self.num_heads:
            problems.append(("d_model", f"must be a multiple of num_heads ({self.num_heads}), not {self.d_model}"))
        elif self.positions == "rotary" and (self.d_model // self.num_heads) % 2:
            size = self.d_model // self.num_heads
            problems.append(("positions", f"rotary needs an even head size, and d_model / num_heads is {size}"))
        if self.num_heads % self.num_kv_heads:
            problems.append(("num_kv_heads", f"must divide num_heads ({self.num_heads}), not {self.num_kv_heads}"))
        if self.positions == "sinusoidal" and self.d_model % 2:
            problems.append(("positions", f"sinusoidal needs an even d_model, not {self.d_model}"))
        _refuse(problems)
        return self


_WARMUP_STEPS = 1000


class OptimConfig(Section):
    """How weights follow gradients."""

    name: Literal["adamw", "muon"] = _option(
        "adamw", "Optimizer; muon updates the matrices and leaves the rest to adamw."
    )
    lr: float = _option(1e-3, "Peak learning rate, reached at the end of warmup.", gt=0)
    betas: Annotated[tuple[Beta, Beta], BeforeValidator(_as_tuple)] = _option(
        (0.9, 0.98), "Decay of Adam's running averages of the gradient and of its square."
    )
    eps: float = _option(1e-9, "Added to Adam's denominator so that it is never 0.", gt=0)
    weight_decay: float = _option(0.0, "Decoupled weight decay, times the learning rate.", ge=0)
    schedule: Literal["inverse_sqrt", "cosine", "linear", "constant"] = _option(
        "inverse_sqrt", "Learning rate after warmup. cosine and linear fall until train.max_steps, which they need."
    )
    warmup_steps: int = _option(
        _WARMUP_STEPS,
        "Steps in which the learning rate rises from 0 to lr; below train.max_steps. Default 1000, or half of "
        "train.max_steps where that is 1000 or less.",
        ge=0,
    )
    min_lr_ratio: float = _option(0.0, "cosine and linear end at lr times this.", ge=0, le=1)
    clip_norm: float = _option(1.0, "Gradients with a larger norm are scaled down to this norm; 0 is off.", ge=0)


class TrainConfig(Section):
    """How long to train, in which steps, and what to keep. Training ends at the first bound that is reached."""

    batch_tokens: Annotated[int, Field(gt=0)] | Literal["auto"] = _option(
        4096,
        "Target tokens per optimizer step, over all processes and micro-batches; source tokens in proportion. auto: "
        "the most that fits into memory, found by a dry run before the run starts; at most 25,000 "
        "per process (the step of the paper) and 1 percent of the training text (but 1,024), as larger steps learn "
        "hardly more than smaller ones.",
    )
    accumulate: int | None = _option(
        None,
        "Micro-batches per step and process: more take less memory and give the same gradient; null is 1 on CUDA, and "
        "on the CPU, where every thread computes micro-batches of its own, of about 1,024 target tokens.",
        gt=0,
    )
    label_smoothing: float = _option(
        0.1, "Share of probability spread over the whole vocabulary in the loss.", ge=0, lt=1
    )
    max_steps: int | None = _option(None, "Stop after this many optimizer steps; 20,000 if no bound is stated.", gt=0)
    max_epochs: int | None = _option(None, "Stop after this many passes over the data.", gt=0)
    max_minutes: float | None = _option(None, "Stop after this many minutes of training.", gt=0)
    validate_every: int = _option(500, "Steps between validations.", gt=0)
    save_every: int = _option(500, "Steps between checkpoints.", gt=0)
    patience: int | None = _option(
        10,
        "Stop after this many validations without improvement; null is never. A score near 0 does not count while the "
        "loss still falls.",
        gt=0,
    )
    metric: Literal["bleu", "chrf", "loss"] = _option(
        "bleu",
        "What improvement means on the validation text: higher BLEU or chrF, lower loss. Equal scores, and those near "
        "0, are decided by chrF and then the loss.",
    )
    on_bad_step: Literal["skip", "rollback", "stop"] = _option(
        "skip",
        "What happens where a loss or gradient is not a finite number, or the loss jumps: the weights do not take part "
        "in the step (skip), and also go back to those of the last checkpoint (rollback), or the run ends (stop). The "
        "lines of the step are written to bad_lines.jsonl.",
    )
    max_bad_steps: int = _option(5, "The run ends after this many bad steps in a row.", gt=0)
    spike_sigmas: float | None = _option(
        6.0,
        "A loss has jumped if it is this many standard deviations above the mean of the steps before; null is never.",
        gt=0,
    )
    ema_decay: float = _option(
        0.998, "Decay per step of an average of the weights, used to translate; 0 is off.", ge=0, lt=1
    )
    keep_last: int = _option(5, "Checkpoints to keep, besides the best one.", gt=0)
    device: Literal["auto", "cpu", "cuda"] = _option("auto", "auto is cuda where there is one.")
    precision: Literal["auto", "fp32", "bf16"] = _option(
        "auto", "Number format of the computation; auto is bf16 on GPUs that have it (since 2020), else fp32."
    )
    threads: int | None = _option(
        None,
        "CPU threads; null is all of them. Another number gives the same training but for rounding and dropout.",
        gt=0,
    )

    @property
    def step_tokens(self) -> int:
        """``batch_tokens`` of a run that has started: a number."""
        assert self.batch_tokens != "auto", "train/step_size.py gives it a number before it is used"
        return self.batch_tokens

    @model_validator(mode="before")
    @classmethod
    def _fill_bound(cls, stated: Any) -> Any:
        bounds = ("max_steps", "max_epochs", "max_minutes")
        if isinstance(stated, dict) and not any(key in stated for key in bounds):
            return {**stated, "max_steps": 20_000}
        return stated

    @model_validator(mode="after")
    def _check(self) -> "TrainConfig":
        if self.max_steps is None and self.max_epochs is None and self.max_minutes is None:
            _refuse([("max_steps", "training needs an end; set one of max_steps, max_epochs, max_minutes")])
        return self


class DecodeConfig(Section):
    """How the model writes a translation: beam search, or sampling.

    What a search costs has upper limits, far above all use: a model folder may come from a stranger.
    """

    beam_size: int = _option(
        5, "Translations kept open while searching, which ends when as many have finished; 1 is greedy.", gt=0, le=1000
    )
    length_penalty: float = _option(
        1.0, "alpha of Wu et al. 2016: larger prefers longer output; 0 is none.", ge=0, le=10
    )
    n_best: int = _option(1, "Translations to return per sentence, at most beam_size unless sampling.", gt=0, le=1000)
    max_length_ratio: float = _option(
        2.0, "The longest output has this times the source tokens plus max_length_offset.", ge=0, le=100
    )
    max_length_offset: int = _option(10, "Tokens added to the longest output.", ge=0, le=10_000)
    batch_tokens: int = _option(8192, "Source tokens times beam_size per batch.", gt=0)
    quantize: Literal["int8"] | None = _option(
        None,
        "int8: linear layers in 8-bit integers, nearly as good as fp32; for the CPU. Where fp32 is faster (CPUs "
        "without VNNI) translation stays in fp32 and says so. A run measures itself without int8.",
    )
    split_sentences: bool | Literal["auto"] = _option(
        "auto",
        "Translate a line of several sentences sentence by sentence. auto: as train finds best: true where hardly any "
        "training line holds several; false in models that do not say.",
    )
    sample: bool = _option(False, "Draw words at random instead of searching for the best ones.")
    temperature: float = _option(1.0, "Sampling: below 1 keeps to likely words, above 1 is more varied.", gt=0)
    top_k: int = _option(0, "Sampling: draw from this many most likely words; 0 is off.", ge=0)
    top_p: float = _option(
        1.0, "Sampling: draw from the most likely words that add up to this probability.", gt=0, le=1
    )
    seed: int = _option(1, "Sampling: the same seed gives the same translations.", ge=0, lt=2**63)

    @model_validator(mode="after")
    def _check(self) -> "DecodeConfig":
        if self.sample:
            return self
        problems = []
        if self.n_best > self.beam_size:
            problems.append(
                ("n_best", f"must be at most beam_size ({self.beam_size}) without sample, not {self.n_best}")
            )
        for key, off in (("temperature", 1.0), ("top_k", 0), ("top_p", 1.0)):
            if getattr(self, key) != off:
                problems.append((key, "has no effect on beam search; set decode.sample: true or leave it out"))
        _refuse(problems)
        return self


class Config(Section):
    """Everything that decides a run."""

    run_dir: OnePath = Field(
        description="Folder that the run writes: checkpoints, logs, the model. Relative to where the command runs."
    )
    seed: int = _option(1, "Decides the initial weights, the order of data and dropout.", ge=0, lt=2**63)
    data: DataConfig = Field(description="Which text to learn from; relative paths start at the config file's folder.")
    tokenizer: TokenizerConfig = Field(default_factory=TokenizerConfig, description="How text is cut into subwords.")
    model: ModelConfig = Field(default_factory=ModelConfig, description="The Transformer.")
    optim: OptimConfig = Field(default_factory=OptimConfig, description="The optimizer and its learning rate.")
    train: TrainConfig = Field(default_factory=TrainConfig, description="How long to train and what to keep.")
    decode: DecodeConfig = Field(default_factory=DecodeConfig, description="How translations are searched.")

    @property
    def cache_dir(self) -> Path:
        """Folder of the tokenised corpus."""
        return self.data.cache_dir or self.run_dir / "data"

    @model_validator(mode="before")
    @classmethod
    def _untie_separate_vocabularies(cls, stated: Any) -> Any:
        if not isinstance(stated, dict):
            return stated
        tokenizer, model = stated.get("tokenizer"), stated.get("model", {})
        joint = tokenizer.get("joint") if isinstance(tokenizer, dict) else getattr(tokenizer, "joint", None)
        if joint is False and isinstance(model, dict):
            return {**stated, "model": {"tie_embeddings": "target", **model}}
        if joint is False and isinstance(model, ModelConfig) and "tie_embeddings" not in model.model_fields_set:
            return {**stated, "model": model.model_copy(update={"tie_embeddings": "target"})}
        return stated

    @model_validator(mode="before")
    @classmethod
    def _shorten_warmup(cls, stated: Any) -> Any:
        """A short run whose warm-up is not stated would end before the learning rate has risen."""
        if not isinstance(stated, dict):
            return stated
        train, optim = stated.get("train"), stated.get("optim", {})
        steps = train.get("max_steps") if isinstance(train, dict) else getattr(train, "max_steps", None)
        if type(steps) is not int or not 0 < steps <= _WARMUP_STEPS:
            return stated
        if isinstance(optim, dict):
            return {**stated, "optim": {"warmup_steps": steps // 2, **optim}}
        if isinstance(optim, OptimConfig) and "warmup_steps" not in optim.model_fields_set:
            return {**stated, "optim": optim.model_copy(update={"warmup_steps": steps // 2})}
        return stated

    @model_validator(mode="after")
    def _check(self) -> "Config":
        problems, steps, schedule = [], self.train.max_steps, self.optim.schedule
        if self.model.tie_embeddings == "all" and not self.tokenizer.joint:
            problems.append(
                ("model.tie_embeddings", "all needs one vocabulary; set tokenizer.joint: true or use target")
            )
        if schedule in ("cosine", "linear") and steps is None:
            problems.append(("optim.schedule", f"{schedule} needs to know its last step; set train.max_steps"))
        if steps is not None and self.optim.warmup_steps >= steps:
            warmup = f"must be below train.max_steps ({steps}), not {self.optim.warmup_steps}"
            problems.append(("optim.warmup_steps", warmup))
        _refuse(problems)
        return self


# ----------------------------------------------------------------------------------------------------------------- keys


def section_of(annotation: Any) -> type[Section] | None:
    """The section that a field holds, if it holds one."""
    for kind in (annotation, *get_args(annotation)):
        if get_origin(kind) is None and isinstance(kind, type) and issubclass(kind, Section):
            return kind
    return None


def fields_of(section: type[Section] = Config, above: Key = ()) -> dict[Key, FieldInfo]:
    """Every key that a config (or one section of it) may state, sections before what is in them."""
    found: dict[Key, FieldInfo] = {}
    for name, field in section.model_fields.items():
        key, inner = (*above, name), section_of(field.annotation)
        found[key] = field
        if inner:
            found.update(fields_of(inner, key))
    return found


def get_key(tree: Any, key: Key, default: object = None) -> Any:
    """The value of a key, or the default where the tree lacks it."""
    for part in key:
        if not isinstance(tree, dict) or part not in tree:
            return default
        tree = tree[part]
    return tree


def set_key(tree: dict[str, Any], key: Key, value: object) -> None:
    """Set a value, making the sections above it; nothing if one of those is no section (an error told elsewhere)."""
    for part in key[:-1]:
        child = tree.get(part)
        if child is not None and not isinstance(child, dict):
            return
        tree[part] = dict(child or {})  # a copy: aliases in the file share one mapping
        tree = tree[part]
    tree[key[-1]] = value


def _holds_paths(annotation: Any) -> bool:
    return annotation is Path or any(_holds_paths(part) for part in get_args(annotation))


def _change_data_paths(tree: dict[str, Any], change: Callable[[str], str]) -> None:
    """Replace every path below ``data``; what is no path stays as it is, an error reported elsewhere."""

    def changed(value: Any) -> Any:
        return change(value) if isinstance(value, str) and value else value

    for key, field in fields_of(DataConfig, ("data",)).items():
        value = get_key(tree, key) if _holds_paths(field.annotation) else None
        if value:
            set_key(tree, key, [changed(item) for item in value] if isinstance(value, list) else changed(value))


def make_paths_absolute(tree: dict[str, Any], folder: str) -> None:
    """Let the data paths start at ``folder``."""
    _change_data_paths(tree, lambda path: os.path.abspath(os.path.join(folder, os.path.expanduser(path))))


def show(value: object) -> str:
    """A value as it would stand in a config, cut short."""
    if value is None or isinstance(value, bool):
        return json.dumps(value)
    short = reprlib.Repr()
    short.maxstring = short.maxother = short.maxlong = 40
    short.maxlevel, short.maxlist, short.maxdict = 2, 4, 4
    return short.repr(value)


# ---------------------------------------------------------------------------------------------------- a finished config

# How YAML reads a plain word. The rules of YAML 1.2, because those of 1.1, PyYAML's own, make text of 1e-4 and false
# of the language code no.
_NUMBER = r"\d+(_\d+)*"
YAML_WORDS: dict[str | None, list[tuple[str, re.Pattern[str]]]] = {
    None: [
        ("tag:yaml.org,2002:null", re.compile(r"^(~|null|Null|NULL|)$")),
        ("tag:yaml.org,2002:bool", re.compile(r"^(true|True|TRUE|false|False|FALSE)$")),
        ("tag:yaml.org,2002:int", re.compile(rf"^[-+]?{_NUMBER}$", re.ASCII)),
        (
            "tag:yaml.org,2002:float",
            re.compile(
                rf"^[-+]?(({_NUMBER}(\.\d*)?|\.\d+)([eE][-+]?\d+)?|\.(inf|Inf|INF))$|^\.(nan|NaN|NAN)$", re.ASCII
            ),
        ),
    ]
}
_WORDS_TO_QUOTE = {**yaml.SafeDumper.yaml_implicit_resolvers, **YAML_WORDS}  # what either version does not read as text


class _Dumper(yaml.SafeDumper):
    yaml_implicit_resolvers = _WORDS_TO_QUOTE


def dump_config(config: Config, *, absolute: bool = True) -> str:
    """The resolved config as YAML; with absolute data paths, loading it gives an equal config back."""
    values = config.model_dump(mode="json")
    if absolute:
        make_paths_absolute(values, os.getcwd())
    return str(yaml.dump(values, Dumper=_Dumper, sort_keys=False, allow_unicode=True))


def file_problem(path: Path) -> str | None:
    """Why a path is no file that can be read several times; None if it is one."""
    if path.is_file():
        return None
    if path.is_dir():
        return "is a directory, not a text file; name the files in it one by one"
    if path.exists():
        return "is no regular file; text for training is read several times, so write it to a file first"
    return "no such file"


def portable(config: Config) -> Config:
    """The config of a model that leaves its run: names instead of paths, and the languages that the paths named."""
    values = config.model_dump(mode="json")
    _change_data_paths(values, os.path.basename)
    values["run_dir"] = config.run_dir.resolve().name or "run"
    values["data"] |= {"cache_dir": None, "src_lang": config.data.source_language}
    values["data"]["tgt_lang"] = config.data.target_language
    return Config.model_validate(values)


def check_files(config: Config) -> None:
    """Raise one :class:`ConfigError` that lists every data file that does not exist, or cannot be read twice."""
    missing = []
    for part in ("train", "valid", "test"):
        files = getattr(config.data, part)
        for side in ("src", "tgt") if files else ():
            missing += [
                f"data.{part}.{side}: {problem}: {path}"
                for path in getattr(files, side)
                if (problem := file_problem(path))
            ]
    if missing:
        raise ConfigError("\n".join(missing))


def schema() -> dict[str, Any]:
    """JSON schema of the config file, for editors and for the documentation."""
    found = {"$schema": "https://json-schema.org/draft/2020-12/schema", **Config.model_json_schema()}
    shape = found["$defs"]["ModelConfig"]["properties"]
    for key in (*_PRESETS["small"], "num_kv_heads", "tie_embeddings"):
        del shape[key]["default"]  # it depends on other keys, as the description says
    return found


def diff_configs(old: Config | Mapping[str, Any], new: Config, sections: Sequence[str]) -> list[str]:
    """Lines such as ``train.batch_tokens: 4096 -> 8192`` for what differs below the given dotted keys.

    Args:
        old: a config, or its values as a file has kept them, perhaps of another version of the package: keys that are
            newer than the file take their defaults.

    Raises:
        ConfigError: the values have keys that this version lacks.
    """
    wanted = [tuple(section.split(".")) for section in sections]
    fields = fields_of()
    assert all(key in fields for key in wanted), sections
    before = dict(_leaves(old.model_dump(mode="json") if isinstance(old, Config) else old, ()))
    values = new.model_dump(mode="json")
    after = dict(_leaves(values, ()))
    if unknown := [f"{'.'.join(key)}: {json.dumps(value)}" for key, value in before.items() if key not in fields]:
        raise ConfigError(f"has settings that this version of seq2seq lacks ({'; '.join(unknown)})")
    compared = [key for key in dict.fromkeys((*before, *after)) if any(key[: len(top)] == top for top in wanted)]
    if newer := [key for key in compared if key not in before and not fields[key].is_required()]:
        for key in newer:
            del get_key(values, key[:-1])[key[-1]]
        defaults = dict(_leaves(Config.model_validate(values).model_dump(mode="json"), ()))
        before |= {key: defaults[key] for key in newer}
    return [
        f"{'.'.join(key)}: {json.dumps(before.get(key))} -> {json.dumps(after.get(key))}"
        for key in compared
        if before.get(key) != after.get(key)
    ]


def _leaves(value: object, key: Key) -> Iterator[tuple[Key, object]]:
    if isinstance(value, dict):
        for name, child in value.items():
            yield from _leaves(child, (*key, name))
    else:
        yield key, value
