"""The sections of a config and their keys: what can be set, what it means, what is allowed.

Defaults and presets are filled in when a section is made, so other modules read plain values.
"""

from collections.abc import Mapping
from typing import Annotated, Any, Literal, TypeAlias

from pydantic import BeforeValidator, Field, model_validator

from seq2seq.config.keys import OnePath, Paths, Section, as_tuple, option, refuse
from seq2seq.languages import language_of

Beta: TypeAlias = Annotated[float, Field(ge=0, lt=1)]


class TextFiles(Section):
    """Parallel text: line n of the source is translated by line n of the target."""

    src: Paths = Field(description="Source text, a file or a list of files that are read one after the other.")
    tgt: Paths = Field(description="Target text, as many files as src, each with as many lines as its partner.")

    @model_validator(mode="after")
    def _check(self) -> "TextFiles":
        counts = f"{len(self.tgt)} files, but src has {len(self.src)}; every source file needs its target file"
        refuse([("tgt", counts)] if len(self.src) != len(self.tgt) else [])
        return self


class DataConfig(Section):
    """Which text to learn from."""

    train: TextFiles = Field(description="Parallel text to learn from (src and tgt).")
    valid: TextFiles = Field(description="Parallel text that measures progress (src and tgt), not part of train.")
    test: TextFiles | None = option(None, "Parallel text to report a final score on, if any.")
    src_lang: str | None = option(None, "Source language code; by default from the file name (train.en.gz is en).")
    tgt_lang: str | None = option(
        None,
        "Target language code in any usual form (zh, zh_CN, zho_Hans); by default from the file name. It picks BLEU's "
        "tokenizer, unless the text is in another script.",
    )
    max_length: int = option(
        256,
        "Longest sentence in tokens per side, end of sentence included. Training pairs beyond it are "
        "left out and counted.",
        gt=1,
    )
    max_ratio: float | None = option(
        None,
        "Leave out training pairs whose longer side has more than this many times the tokens of the shorter one; "
        "such pairs are often not translations.",
        ge=1,
    )
    cache_dir: OnePath | None = option(None, "Folder for the tokenised corpus; by default the folder data in run_dir.")

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

    kind: Literal["unigram", "bpe"] = option("bpe", "SentencePiece model type.")
    joint: bool = option(True, "One vocabulary for both languages (allows tied embeddings), or one for each.")
    vocab_size: int = option(8000, "Number of subwords per vocabulary. More text carries more subwords.", gt=4)
    character_coverage: float = option(
        0.9995,
        "Share of all characters in the text that get a place of their own in the vocabulary; use 1.0 for "
        "small alphabets.",
        ge=0.98,
        le=1,
    )
    byte_fallback: bool = option(True, "Spell characters outside the vocabulary as bytes instead of losing them.")
    normalise_source: bool = option(
        True,
        "Read source text in one spelling, in training and in translation: every white space as a space, composed "
        "characters (NFC), no soft hyphens or zero-width leftovers. Target text stays as it is.",
    )
    sampling: float = option(
        0.0,
        "Subword regularisation while training, for small data: words are cut in random ways. 0 is off, 0.1 is usual, "
        "and which way is wilder depends on kind. unigram: the smoothing alpha, smaller is wilder (0.01 draws almost "
        "evenly, 1 mostly the best cuts). bpe: the dropout probability of merges, larger is wilder (1 spells letters).",
        ge=0,
        le=1,
    )


_SHAPE = ("encoder_layers", "decoder_layers", "d_model", "num_heads", "d_ff", "dropout", "norm_position")
PRESETS: Mapping[str, Mapping[str, float | str]] = {
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

    preset: Literal["tiny", "small", "base", "big"] = option(
        "small",
        "Shape of the model (layers, widths, heads, dropout, norm_position). base and big are those of Vaswani et al. "
        "2017; tiny suits some ten thousand sentence pairs, small some hundred thousand.",
    )
    encoder_layers: int = option(4, "Encoder layers; default from the preset.", gt=0)
    decoder_layers: int = option(4, "Decoder layers; default from the preset.", gt=0)
    d_model: int = option(256, "Width of the embeddings and of every layer's output; default from the preset.", gt=0)
    num_heads: int = option(4, "Attention heads; d_model must be a multiple of it. Default from the preset.", gt=0)
    num_kv_heads: int = option(
        4,
        "Heads that hold keys and values, shared by groups of attention heads; fewer make decoding cheaper. "
        "Default num_heads.",
        gt=0,
    )
    d_ff: int = option(1024, "Inner width of the feed-forward layers; default from the preset.", gt=0)
    dropout: float = option(0.1, "Share of activations dropped while training; default from the preset.", ge=0, le=0.9)
    norm_position: Literal["pre", "post"] = option(
        "pre",
        "Normalise before each sublayer (steadier at high learning rates) or after it (the paper); default from the "
        "preset.",
    )
    norm: Literal["layernorm", "rmsnorm"] = option("layernorm", "Kind of normalisation.")
    activation: Literal["relu", "gelu", "swiglu"] = option(
        "relu", "Feed-forward activation; swiglu adds a gate, a third matrix per layer."
    )
    positions: Literal["sinusoidal", "learned", "rotary"] = option(
        "sinusoidal",
        "How the model knows word order: added to the embeddings (fixed or learned up to data.max_length) or "
        "rotated into queries and keys.",
    )
    tie_embeddings: Literal["all", "target", "none"] = option(
        "all",
        "Share one matrix between source, target and output (all), target and output (target), or nothing (none). "
        "all needs tokenizer.joint; with separate vocabularies the default is target.",
    )
    attention_window: int | None = option(
        None, "Self-attention reaches this many tokens to each side; null is no limit.", gt=0, lt=2**31
    )

    @model_validator(mode="before")
    @classmethod
    def _fill_from_preset(cls, stated: Any) -> Any:
        preset = stated.get("preset", "small") if isinstance(stated, dict) else None
        if not isinstance(preset, str) or preset not in PRESETS:
            return stated
        merged = {**PRESETS[preset], **stated}
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
        refuse(problems)
        return self


WARMUP_STEPS = 1000


class OptimConfig(Section):
    """How weights follow gradients."""

    name: Literal["adamw", "muon"] = option(
        "adamw", "Optimizer; muon updates the matrices and leaves the rest to adamw."
    )
    lr: float = option(1e-3, "Peak learning rate, reached at the end of warmup.", gt=0)
    betas: Annotated[tuple[Beta, Beta], BeforeValidator(as_tuple)] = option(
        (0.9, 0.98), "Decay of Adam's running averages of the gradient and of its square."
    )
    eps: float = option(1e-9, "Added to Adam's denominator so that it is never 0.", gt=0)
    weight_decay: float = option(0.0, "Decoupled weight decay, times the learning rate.", ge=0)
    schedule: Literal["inverse_sqrt", "cosine", "linear", "constant"] = option(
        "inverse_sqrt", "Learning rate after warmup. cosine and linear fall until train.max_steps, which they need."
    )
    warmup_steps: int = option(
        WARMUP_STEPS,
        "Steps in which the learning rate rises from 0 to lr; below train.max_steps. Default 1000, or half of "
        "train.max_steps where that is 1000 or less.",
        ge=0,
    )
    min_lr_ratio: float = option(0.0, "cosine and linear end at lr times this.", ge=0, le=1)
    clip_norm: float = option(1.0, "Gradients with a larger norm are scaled down to this norm; 0 is off.", ge=0)


class TrainConfig(Section):
    """How long to train, in which steps, and what to keep. Training ends at the first bound that is reached."""

    batch_tokens: Annotated[int, Field(gt=0)] | Literal["auto"] = option(
        4096,
        "Target tokens per optimizer step, over all processes and micro-batches; source tokens in proportion. auto: "
        "the most that fits into memory, found by rehearsing the heaviest work before the run starts; at most 25,000 "
        "per process (the step of the paper) and 1 percent of the training text (but 1,024), as larger steps learn "
        "hardly more than smaller ones.",
    )
    accumulate: int | None = option(
        None,
        "Micro-batches per step and process: more take less memory and give the same gradient; null is 1 on CUDA, and "
        "on the CPU, where every thread computes micro-batches of its own, of about 1,024 target tokens.",
        gt=0,
    )
    label_smoothing: float = option(
        0.1, "Share of probability spread over the whole vocabulary in the loss.", ge=0, lt=1
    )
    max_steps: int | None = option(None, "Stop after this many optimizer steps; 20,000 if no bound is stated.", gt=0)
    max_epochs: int | None = option(None, "Stop after this many passes over the data.", gt=0)
    max_minutes: float | None = option(None, "Stop after this many minutes of training.", gt=0)
    validate_every: int = option(500, "Steps between validations.", gt=0)
    save_every: int = option(500, "Steps between checkpoints.", gt=0)
    patience: int | None = option(
        10,
        "Stop after this many validations without improvement; null is never. A score near 0 does not count while the "
        "loss still falls.",
        gt=0,
    )
    metric: Literal["bleu", "chrf", "loss"] = option(
        "bleu",
        "What improvement means on the validation text: higher BLEU or chrF, lower loss. Equal scores, and those near "
        "0, are decided by chrF and then the loss.",
    )
    on_bad_step: Literal["skip", "rollback", "stop"] = option(
        "skip",
        "What happens where a loss or gradient is not a finite number, or the loss jumps: the weights do not take part "
        "in the step (skip), and also go back to those of the last checkpoint (rollback), or the run ends (stop). The "
        "lines of the step are written to bad_lines.jsonl.",
    )
    max_bad_steps: int = option(5, "The run ends after this many bad steps in a row.", gt=0)
    spike_sigmas: float | None = option(
        6.0,
        "A loss has jumped if it is this many standard deviations above the mean of the steps before; null is never.",
        gt=0,
    )
    ema_decay: float = option(
        0.998, "Decay per step of an average of the weights, used to translate; 0 is off.", ge=0, lt=1
    )
    keep_last: int = option(5, "Checkpoints to keep, besides the best one.", gt=0)
    device: Literal["auto", "cpu", "cuda"] = option("auto", "auto is cuda where there is one.")
    precision: Literal["auto", "fp32", "bf16"] = option(
        "auto", "Number format of the computation; auto is bf16 on GPUs that have it (since 2020), else fp32."
    )
    threads: int | None = option(
        None,
        "CPU threads; null is all of them. Another number gives the same training but for rounding and dropout.",
        gt=0,
    )

    @property
    def step_tokens(self) -> int:
        """``batch_tokens`` of a run that has started: a number."""
        assert self.batch_tokens != "auto", "train/budget.py gives it a number before it is used"
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
            refuse([("max_steps", "training needs an end; set one of max_steps, max_epochs, max_minutes")])
        return self


class DecodeConfig(Section):
    """How the model writes a translation: beam search, or sampling.

    What a search costs has upper limits, far above all use: a model folder may come from a stranger.
    """

    beam_size: int = option(
        5, "Translations kept open while searching, which ends when as many have finished; 1 is greedy.", gt=0, le=1000
    )
    length_penalty: float = option(
        1.0, "alpha of Wu et al. 2016: larger prefers longer output; 0 is none.", ge=0, le=10
    )
    n_best: int = option(1, "Translations to return per sentence, at most beam_size unless sampling.", gt=0, le=1000)
    max_length_ratio: float = option(
        2.0, "The longest output has this times the source tokens plus max_length_offset.", ge=0, le=100
    )
    max_length_offset: int = option(10, "Tokens added to the longest output.", ge=0, le=10_000)
    batch_tokens: int = option(8192, "Source tokens times beam_size per batch.", gt=0)
    quantize: Literal["int8"] | None = option(
        None,
        "int8: linear layers in 8-bit integers, nearly as good as fp32; for the CPU. Where fp32 is faster (CPUs "
        "without VNNI) translation stays in fp32 and says so. A run measures itself without int8.",
    )
    split_sentences: bool | Literal["auto"] = option(
        "auto",
        "Translate a line of several sentences sentence by sentence. auto: as train finds best: true where hardly any "
        "training line holds several; false in models that do not say.",
    )
    sample: bool = option(False, "Draw words at random instead of searching for the best ones.")
    temperature: float = option(1.0, "Sampling: below 1 keeps to likely words, above 1 is more varied.", gt=0)
    top_k: int = option(0, "Sampling: draw from this many most likely words; 0 is off.", ge=0)
    top_p: float = option(1.0, "Sampling: draw from the most likely words that add up to this probability.", gt=0, le=1)
    seed: int = option(1, "Sampling: the same seed gives the same translations.", ge=0, lt=2**63)

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
        refuse(problems)
        return self
