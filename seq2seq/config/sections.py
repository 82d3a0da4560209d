"""The sections of a config and their keys: what can be set, what it means, what is allowed.

Defaults and presets are filled in when a section is made, so other modules read plain values.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, ClassVar, Literal, TypeAlias

from pydantic import Field

from seq2seq.config.cleaning import CleanConfig
from seq2seq.config.datasets import AnyText, ParallelText, Texts, ValidText, also, keys_of_train
from seq2seq.config.keys import OnePath, Section, choice, option

Beta: TypeAlias = Annotated[float, Field(ge=0, lt=1)]
Protected: TypeAlias = Literal["tags", "placeholders", "urls", "emails", "numbers"]
Part: TypeAlias = Literal["positions", "residual", "norm", "scale", "causal_mask", "cross_attention"]


class DataConfig(Section):
    """Text to train on, and to measure with."""

    dir: OnePath | None = option(
        None, "Folder that the paths of train, valid, guard and test start at. Default: the folder of the config file."
    )
    train: Texts = Field(
        description="Parallel text to train on: a dataset (such as src and tgt), or a list of datasets of any kinds.",
        json_schema_extra=also({}),
    )
    valid: ValidText = Field(
        description="Parallel text to validate on: a dataset, or how many pairs of train. A dataset must not be part "
        "of train. 500 or 2% takes pairs out of train, with all other pairs that have their sources.",
        json_schema_extra=also({"type": ["integer", "string"]}),
    )
    guard: AnyText | None = option(
        None,
        "Parallel text of another kind, such as what the model was trained on before: a dataset. Every validation "
        "scores it, too, so that one sees what the model forgets (train.max_forgetting). Optional.",
    )
    test: AnyText | None = option(None, "Parallel text for a final score after training: a dataset. Optional.")
    clean: CleanConfig = Field(
        default_factory=CleanConfig,
        description="Rules for cleaning the training text: which pairs are left out. The text in the files stays as it "
        "is. A dataset of train may have clean, too: the keys that it states override these for its pairs.",
    )
    src_lang: str | None = option(
        None, "Source language code. Default: from the first dataset of train (the file name train.en.gz gives en)."
    )
    tgt_lang: str | None = option(
        None,
        "Target language code in any usual form (zh, zh_CN, zho_Hans). Default: as for src_lang. It decides which "
        "tokenizer BLEU uses, unless the text is in a script that contradicts it.",
    )
    max_length: int = option(
        256,
        "Maximum number of tokens of a sentence, on each side, end-of-sentence token included. Longer training pairs "
        "are left out and counted.",
        gt=1,
    )
    max_ratio: float | None = option(
        None,
        "Maximum ratio of the tokens of the longer side to those of the shorter side. Training pairs above it are left "
        "out and counted: they are often not translations. null is no limit.",
        ge=1,
    )
    cache_dir: OnePath | None = option(None, "Folder for the tokenised corpus. Default: the folder data in run_dir.")

    def _broken_rules(self) -> Iterator[tuple[str, str]]:
        # What a dataset leaves open is filled in, so a config that states all keys means the same. Copies, as the
        # caller may use the same sections in another config.
        datasets = list(self.train)
        for number, dataset in enumerate(datasets):
            if dataset.clean is not None:
                rules = self.clean.overridden(dataset.clean)
                datasets[number] = dataset.model_copy(update={"clean": rules})
                place = f"train.{number}.clean" if len(datasets) > 1 else "train.clean"
                yield from ((f"{place}.{key}", message) for key, message in rules.broken_rules())
        self.__dict__["train"] = tuple(datasets)
        names = [text.name for text in self.train if text.name is not None]
        for name in sorted({name for name in names if names.count(name) > 1}):
            yield "train", f"{names.count(name)} datasets have the name {name}; give each a name of its own"
        for part, text in self.measured.items():
            for key in keys_of_train(text):
                yield f"{part}.{key}", "is for training text only; remove this key, or state it in data.train"
            if text.tag is not None and text.tag not in self.tags:
                yield f"{part}.tag", f"no dataset of data.train has the tag {text.tag}; {known_tags(self.tags)}"

    def first_empty_epoch(self) -> int | None:
        """The first epoch, counted from 1, in which no dataset of train takes part."""
        spans = [(text.from_epoch, text.until_epoch or math.inf) for text in self.train]
        candidates = [1, *(int(last) + 1 for _, last in spans if last < math.inf)]
        empty = [epoch for epoch in candidates if not any(first <= epoch <= last for first, last in spans)]
        return min(empty, default=None)

    @property
    def measured(self) -> dict[str, ParallelText]:
        """The texts that models are validated and tested with, by their keys; not pairs that are held out of train."""
        texts = {"valid": self.valid, "guard": self.guard, "test": self.test}
        return {name: text for name, text in texts.items() if isinstance(text, ParallelText)}

    @property
    def tags(self) -> list[str]:
        """The tags of the training text, each once, in order."""
        return list(dict.fromkeys(text.tag for text in self.train if text.tag is not None))

    @property
    def source_language(self) -> str | None:
        """``src_lang``, else what the first training text says, else None."""
        return self.src_lang or self.train[0].languages[0]

    @property
    def target_language(self) -> str | None:
        """``tgt_lang``, else what the first training text says, else None."""
        return self.tgt_lang or self.train[0].languages[1]


def known_tags(tags: Sequence[str]) -> str:
    """The tags that there are, in words."""
    return f"the tags are {', '.join(tags)}" if tags else "there are no tags"


class TokenizerConfig(Section):
    """How text is split into subwords. The tokenizer is trained once, on the training text."""

    kind: Literal["unigram", "bpe"] = option("bpe", "Type of the SentencePiece model.")
    joint: bool = choice(
        True,
        "true: one vocabulary for both languages, needed to tie all embeddings. false: one for each language. auto: "
        "true if both are written in the same script.",
    )
    vocab_size: int = choice(
        8000,
        "Number of subwords in a vocabulary. auto: by the number of pairs, because larger texts can use more; at most "
        "1.5 for each different word, and enough for the characters.",
        gt=4,
    )
    character_coverage: float = choice(
        0.9995,
        "Share of the characters of the text that the vocabulary covers. auto: 0.9995, or more if the characters that "
        "occur ten times or more make more of the text, as in small alphabets.",
        ge=0.98,
        le=1,
    )
    byte_fallback: bool = option(
        True, "Write characters outside the vocabulary as bytes. Otherwise they become unknown and are lost."
    )
    normalise_source: bool = option(
        True,
        "Normalise source text in training and translation: white space of every kind becomes a space, characters are "
        "composed (NFC), soft hyphens and zero-width characters are removed. Target text is not changed.",
    )
    sampling: float = option(
        0.0,
        "Subword regularisation in training: every epoch splits the words at random. 0 is off, 0.1 is usual. Models "
        "learn more slowly with it: for long runs only. kind bpe: probability to skip a merge; larger is more "
        "random (1 gives single characters). kind unigram: smoothing alpha; smaller is more random (0.01 is nearly "
        "uniform, 1 prefers the best splits).",
        ge=0,
        le=1,
    )


def _presets(keys: tuple[str, ...], **shapes: tuple[float | str, ...]) -> Mapping[str, Mapping[str, float | str]]:
    return {name: dict(zip(keys, shape, strict=True)) for name, shape in shapes.items()}


_ARCHITECTURE = "transformer; recurrent and convolutional are for comparison and for lessons. Each has keys of its own."


class _Architecture(Section):
    """What all architectures have. A preset gives the shape; every key of the shape can also be set by itself."""

    PRESETS: ClassVar[Mapping[str, Mapping[str, float | str]]]

    architecture: str = option("transformer", _ARCHITECTURE)
    preset: Literal["tiny", "small", "base", "big"] = choice(
        "small",
        "Shape of the model: layers, widths, heads, dropout, norm_position. auto: by the size of the text and the time "
        "that there is. base and big of the Transformer are those of Vaswani et al. 2017.",
    )
    encoder_layers: int = choice(4, "Number of encoder layers. Default: from the preset.", gt=0)
    decoder_layers: int = choice(4, "Number of decoder layers. Default: from the preset.", gt=0)
    d_model: int = choice(
        256, "Width of the embeddings and of the output of every layer. Default: from the preset.", gt=0
    )
    dropout: float = choice(
        0.1,
        "Dropout probability in training. auto: for tiny and small by the number of epochs, because text that is seen "
        "often is learnt by heart; for base and big that of the preset.",
        ge=0,
        le=0.9,
    )
    tie_embeddings: Literal["all", "target", "none"] = choice(
        "all",
        "Which of the embeddings share one matrix. all: source, target and output, needs tokenizer.joint: true. "
        "target: target and output, the default with separate vocabularies. none: each has its own.",
    )
    output_bias: bool = option(
        False, "true: the logits have a bias for each subword, as in models of Marian and Hugging Face."
    )

    @property
    def bounds_length(self) -> bool:
        """Whether no sentence may be longer than data.max_length: the model has learned a vector for each position."""
        return False

    def _fill_shape(self) -> None:
        """Fill in what follows from the preset."""
        shape = dict(self.PRESETS[self.preset])
        dropout = shape.pop("dropout")
        if self.model_fields_set.issuperset(shape):
            self.fill(preset=self.preset)  # nothing is left for a preset to decide
        self.fill(stated=False, dropout=dropout)  # what is best depends on the length of the run, too
        self.fill(stated="preset" in self.model_fields_set, **shape)


class ModelConfig(_Architecture):
    """The Transformer."""

    PRESETS: ClassVar = _presets(
        ("encoder_layers", "decoder_layers", "d_model", "num_heads", "d_ff", "dropout", "norm_position"),
        tiny=(4, 4, 128, 4, 256, 0.2, "pre"),
        small=(4, 4, 256, 4, 1024, 0.1, "pre"),
        base=(6, 6, 512, 8, 2048, 0.1, "post"),  # Vaswani et al. 2017, table 3
        big=(6, 6, 1024, 16, 4096, 0.3, "post"),
    )

    architecture: Literal["transformer"] = option("transformer", _ARCHITECTURE)
    num_heads: int = choice(
        4, "Number of attention heads. d_model must be a multiple of it. Default: from the preset.", gt=0
    )
    num_kv_heads: int = choice(
        4,
        "Number of heads for keys and values (grouped-query attention). num_heads must be a multiple of it. Fewer make "
        "decoding cheaper. Default: num_heads.",
        gt=0,
    )
    d_ff: int = choice(1024, "Inner width of the feed-forward layers. Default: from the preset.", gt=0)
    norm_position: Literal["pre", "post"] = choice(
        "pre",
        "pre: normalise before each sublayer (more stable at high learning rates). post: after it (as in the paper). "
        "Default: from the preset.",
    )
    norm: Literal["layernorm", "rmsnorm"] = option("layernorm", "Type of normalisation.")
    activation: Literal["relu", "gelu", "silu", "swiglu"] = option(
        "relu",
        "Activation of the feed-forward layers. silu is the swish of Marian; swiglu adds a gate to it: a third matrix "
        "in each layer.",
    )
    positions: Literal["sinusoidal", "learned", "rotary"] = choice(
        "sinusoidal",
        "Position encoding. sinusoidal and learned (up to data.max_length) are added to the embeddings; rotary rotates "
        "queries and keys. auto: rotary for tiny and small, sinusoidal for base and big, as in the paper.",
    )
    attention_window: int | None = option(
        None, "Self-attention sees this number of tokens on each side. null is no limit.", gt=0, lt=2**31
    )
    plain_attention: bool = option(
        False,
        "For learning. true: train with attention as equation 1 of the paper is written in model/attention.py. false: "
        "with the fastest kernel, which computes the same numbers.",
    )
    ablate: Annotated[tuple[Part, ...], Field(strict=False)] = option(
        (),
        "For learning: parts of the Transformer to leave out, to see what they are for. positions: no position "
        "encoding. residual: sublayers replace their input instead of adding to it. norm: no normalisation. scale: "
        "scores are not divided by the root of d_k. causal_mask: in training, the decoder sees the tokens that it must "
        "predict. cross_attention: the decoder does not see the source.",
    )

    @property
    def bounds_length(self) -> bool:
        """See :attr:`_Architecture.bounds_length`."""
        return self.positions == "learned"

    def _broken_rules(self) -> Iterator[tuple[str, str]]:
        self._fill_shape()
        self.fill(stated="num_heads" in self.model_fields_set, num_kv_heads=self.num_heads)
        # Keys that still follow from a preset which is not chosen yet are checked when it is.
        heads = self.model_fields_set.issuperset(("d_model", "num_heads"))
        groups = self.model_fields_set.issuperset(("num_heads", "num_kv_heads"))
        if heads and self.d_model % self.num_heads:
            yield "d_model", f"must be a multiple of num_heads ({self.num_heads}), not {self.d_model}"
        elif heads and self.positions == "rotary" and (size := self.d_model // self.num_heads) % 2:
            yield "positions", f"rotary needs an even head size, but d_model / num_heads is {size}"
        if len(set(self.ablate)) < len(self.ablate):
            yield "ablate", "must name each part once"
        if groups and self.num_heads % self.num_kv_heads:
            yield "num_kv_heads", f"must divide num_heads ({self.num_heads}), not {self.num_kv_heads}"
        if self.positions == "sinusoidal" and self.d_model % 2:
            yield "positions", f"sinusoidal needs an even d_model, not {self.d_model}"


_PLAIN_SHAPE = ("encoder_layers", "decoder_layers", "d_model", "dropout")


class RecurrentConfig(_Architecture):
    """A recurrent encoder and decoder."""

    PRESETS: ClassVar = _presets(
        _PLAIN_SHAPE,
        tiny=(1, 1, 128, 0.2),
        small=(2, 2, 256, 0.2),
        base=(2, 2, 512, 0.2),
        big=(4, 4, 1024, 0.2),  # Luong et al. 2015, section 4.1
    )

    architecture: Literal["recurrent"] = Field(description=_ARCHITECTURE)
    cell: Literal["rnn", "gru", "lstm"] = option(
        "lstm",
        "What a layer computes at each token: rnn (a plain recurrent network with tanh), gru (Cho et al. 2014) or lstm "
        "(Hochreiter & Schmidhuber 1997).",
    )
    bidirectional: bool = option(
        True, "true: half of each encoder layer reads from left to right, the other half from right to left."
    )
    attention: Literal["additive", "dot", "general", "none"] = option(
        "dot",
        "How the decoder looks at the source: additive (Bahdanau et al. 2015), dot or general (Luong et al. 2015), or "
        "none: all that it knows is one vector of fixed size (Sutskever et al. 2014).",
    )
    input_feeding: bool = option(
        False,
        "true: the decoder also reads what attention found at the step before (Luong et al. 2015, section 3.3). "
        "Training then computes one token after the other, which takes longer.",
    )

    def _broken_rules(self) -> Iterator[tuple[str, str]]:
        self._fill_shape()
        if self.bidirectional and "d_model" in self.model_fields_set and self.d_model % 2:
            yield "d_model", f"must be even for a bidirectional encoder, not {self.d_model}"


class ConvolutionalConfig(_Architecture):
    """A convolutional encoder and decoder."""

    PRESETS: ClassVar = _presets(
        _PLAIN_SHAPE,
        tiny=(4, 3, 128, 0.2),
        small=(4, 3, 256, 0.2),
        base=(8, 8, 512, 0.1),
        big=(20, 20, 512, 0.1),  # Gehring et al. 2017, section 4.3
    )

    architecture: Literal["convolutional"] = Field(description=_ARCHITECTURE)
    kernel_width: int = option(
        3,
        "Number of tokens that a layer sees: in the encoder on both sides of a token (so it must be odd), in the "
        "decoder the token and those before it.",
        gt=1,
    )

    @property
    def bounds_length(self) -> bool:
        """See :attr:`_Architecture.bounds_length`."""
        return True

    def _broken_rules(self) -> Iterator[tuple[str, str]]:
        self._fill_shape()
        if self.kernel_width % 2 == 0:
            yield "kernel_width", f"must be odd, not {self.kernel_width}"


class OptimConfig(Section):
    """The optimizer and the learning rate."""

    name: Literal["adamw", "muon"] = choice(
        "adamw",
        "Optimizer. muon updates the matrices of the layers, and adamw the rest. auto: muon for tiny and small, which "
        "learns more in the same time; adamw for base and big, as in the paper.",
    )
    lr: float = choice(
        1e-3,
        "Peak learning rate, reached at the end of the warmup. auto: by the width of the model.",
        gt=0,
    )
    embedding_lr_ratio: float = choice(
        1.0,
        "Embeddings learn with embedding_lr_ratio x the learning rate. auto: 4 for tiny and small, because a word "
        "is in few of the steps, and must learn more in each; 1, as in the paper, for base and big.",
        gt=0,
    )
    betas: Annotated[tuple[Beta, Beta], Field(strict=False)] = option(
        (0.9, 0.98), "Decay rates of Adam's running averages: of the gradient, and of its square."
    )
    eps: float = option(1e-9, "Small number added to Adam's denominator, to avoid a division by zero.", gt=0)
    weight_decay: float = choice(
        0.0,
        "Decoupled weight decay (as in AdamW), of matrices alone. 0 is off. auto: 0.2 with muon, which learns more "
        "with it; 0 with adamw, and with init.from, because a trained model would forget.",
        ge=0,
    )
    schedule: Literal["inverse_sqrt", "cosine", "linear", "constant"] = choice(
        "inverse_sqrt",
        "Learning rate after the warmup. cosine and linear fall until train.max_steps, which they need. auto: linear "
        "for small models and at most 25 epochs, else cosine; inverse_sqrt if train.max_steps is null.",
    )
    warmup_steps: int = choice(
        1000,
        "Number of steps in which the learning rate rises from 0 to lr. Must be below train.max_steps. auto: a share "
        "of train.max_steps.",
        ge=0,
    )
    min_lr_ratio: float = option(0.0, "Schedules cosine and linear end at min_lr_ratio x lr.", ge=0, le=1)
    clip_norm: float = option(
        1.0, "Maximum norm of the gradient; larger gradients are scaled down to it. 0 is off.", ge=0
    )


class TrainConfig(Section):
    """How long to train, in which steps, and what to keep. Training ends at the first limit that it reaches."""

    batch_tokens: int = choice(
        4096,
        "Batch size: target tokens of an optimizer step, over all processes and micro-batches; source tokens in "
        "proportion. auto: by the size of the text, on CUDA at most what fits into memory, which a test before the run "
        "finds. Larger batches learn hardly more per step.",
        gt=0,
    )
    accumulate: int | None = option(
        None,
        "Gradient accumulation: number of micro-batches per step and process. More need less memory and give the same "
        "gradient; the batch size stays the same. null: 1 on CUDA; on the CPU micro-batches of 512 to 1,024 "
        "target tokens, which the threads compute in parallel.",
        gt=0,
    )
    label_smoothing: float = option(
        0.1, "Label smoothing: share of the probability that the loss spreads over the whole vocabulary.", ge=0, lt=1
    )
    max_steps: int | None = choice(
        None,
        "Stop after this number of optimizer steps. auto: what fits into max_epochs and max_minutes, by the measured "
        "speed; without them, what the text is worth. null: only max_epochs and max_minutes count.",
        gt=0,
    )
    max_epochs: int | None = option(None, "Stop after this number of passes over the training text.", gt=0)
    max_minutes: float | None = option(None, "Stop after this number of minutes of training.", gt=0)
    validate_every: int = choice(
        500, "Number of steps between validations. auto: a tenth of the run, or less often if they take long.", gt=0
    )
    first_validation: int | None = choice(
        None,
        "One more validation after this number of steps, to see early what a run does. null is none. auto: after a "
        "tenth of the run, if validate_every is auto and comes later.",
        gt=0,
    )
    save_every: int = choice(
        500, "Number of steps between checkpoints. auto: as validate_every, or every ten minutes.", gt=0
    )
    patience: int | None = choice(
        10,
        "Early stopping: stop after this number of validations without improvement. null is off. A validation does not "
        "count while its score is near 0 and its loss still falls. auto: null if the learning rate falls until "
        "max_steps, else 10.",
        gt=0,
    )
    metric: Literal["bleu", "chrf", "loss"] = option(
        "bleu",
        "Which validation score decides what the best model is: BLEU or chrF (higher is better) or loss (lower is "
        "better). If BLEU or chrF are equal or near 0, chrF and then the loss decide.",
    )
    max_forgetting: float | None = option(
        None,
        "Only a model whose BLEU on data.guard is at most this many points below that of the model that the run "
        "started with can be the best model; a validation of any other counts for patience. null: all can.",
        ge=0,
    )
    on_bad_step: Literal["skip", "rollback", "stop"] = option(
        "skip",
        "What to do if a loss or gradient is not a finite number, or if the loss jumps. skip: no update in this step. "
        "rollback: skip, and load the weights of the last checkpoint. stop: end the run. The sentence pairs of the "
        "step are written to bad_lines.jsonl.",
    )
    max_bad_steps: int = option(5, "End the run after this number of bad steps in a row.", gt=0)
    spike_sigmas: float | None = option(
        6.0,
        "The loss has jumped if it is this number of standard deviations above the mean of earlier steps. null is off.",
        gt=0,
    )
    ema_decay: float = choice(
        0.998,
        "Decay per step of the moving average of the weights, which is used to translate. 0 is off. auto: by "
        "train.max_steps.",
        ge=0,
        lt=1,
    )
    keep_last: int = option(5, "Number of checkpoints to keep. The best model is always kept.", gt=0)
    device: Literal["auto", "cpu", "cuda"] = option(
        "auto", "auto: cuda if the machine has a GPU, else cpu. For several GPUs start train with torchrun."
    )
    precision: Literal["auto", "fp32", "bf16", "fp16"] = option(
        "auto",
        "Number format of the computation. fp16, for GPUs only, adapts a loss scale. auto: bf16 on GPUs that have it "
        "(since 2020), fp16 on those since 2017, else fp32; on CPUs with AMX (servers since 2023) products in bf16 for "
        "models that are 256 wide or more. bf16 on a CPU: products alone; without AMX it takes longer than fp32.",
    )
    threads: int | None = option(
        None,
        "Number of CPU threads. null: all. Another number gives the same training, except for rounding and dropout.",
        gt=0,
    )

    def _broken_rules(self) -> Iterator[tuple[str, str]]:
        if "max_steps" in self.model_fields_set and self.max_steps is self.max_epochs is self.max_minutes is None:
            yield "max_steps", "training needs an end; set one of max_steps, max_epochs, max_minutes"


_LEAST_FOR_MBR = 3  # with two candidates, each has only the other one as its reference


class DecodeConfig(Section):
    """How to translate: beam search, or sampling.

    The upper limits are far above any use. A model folder from a stranger must not fill the memory.
    """

    beam_size: int = option(
        5,
        "Number of hypotheses in beam search. The search ends when this number has finished. 1 is greedy search.",
        gt=0,
        le=1000,
    )
    length_penalty: float = option(1.0, "alpha of Wu et al. 2016. Larger prefers longer output. 0 is off.", ge=0, le=10)
    n_best: int = option(
        1, "Number of translations to return for each sentence. In beam search at most beam_size.", gt=0, le=1000
    )
    max_length_ratio: float = option(
        2.0, "Maximum output length = max_length_ratio x source tokens + max_length_offset.", ge=0, le=100
    )
    max_length_offset: int = option(10, "Tokens to add to the maximum output length.", ge=0, le=10_000)
    batch_tokens: int | None = option(
        None,
        "Batch size: source tokens x beam_size (n_best, if it samples). Larger ones need more memory. null: 8,192 on "
        "the CPU, 65,536 on CUDA, and 16,384 for sampling on CUDA.",
        gt=0,
    )
    engine: Literal["torch", "ctranslate2"] = option(
        "torch",
        "The program that translates: torch, or ctranslate2 (extra ctranslate2), which runs one Transformer on the "
        "CPU, faster if it is small or int8. Validation and test of a run always use torch.",
    )
    quantize: Literal["int8"] | None = option(
        None,
        "int8: compute linear layers in 8-bit integers on the CPU, with nearly the quality of fp32. Where that is "
        "not faster than fp32, fp32 is used, and a message says so. Validation and test of a run never use int8.",
    )
    split_sentences: bool | Literal["auto"] = option(
        "auto",
        "Translate a line with several sentences one sentence at a time. auto: train decides; true if hardly any "
        "training line has several sentences. A model that does not say uses false.",
    )
    tag: str | None = option(
        None, "The tag before every source sentence, one of those of the datasets of data.train. null: none."
    )
    suppress: Annotated[tuple[str, ...], Field(strict=False)] = option(
        (),
        "Texts that are never written: a list. The pieces of each, as a word of its own and inside a word, are banned; "
        "of several pieces, the sequence. A longer piece that contains the text stays allowed.",
    )
    no_repeat_ngram: int = option(
        0, "No translation of a sentence has the same sequence of this number of pieces twice. 0 is off.", ge=0, le=1000
    )
    protect: Annotated[tuple[Protected, ...], Field(strict=False)] = option(
        (),
        "What is copied from the source exactly: a list of tags, placeholders, urls, emails, numbers. A line where "
        "that is not possible is reported.",
    )
    choose: Literal["score", "mbr"] = option(
        "score",
        "Which of several candidates is the best: score: the one with the highest score; mbr (minimum Bayes risk): the "
        "one most like the others, by chrF. Candidates are num_samples samples, or the hypotheses of the beam.",
    )
    sample: bool = option(False, "Sample: draw words at random. Otherwise beam search looks for the best translation.")
    num_samples: int | None = option(
        None,
        "Sampling: number of samples to draw of each sentence, of which the n_best best different ones are returned. "
        "null: n_best, and all are returned, equal ones too.",
        gt=0,
        le=1000,
    )
    temperature: float = option(1.0, "Sampling: below 1 prefers likely words, above 1 gives more variety.", gt=0)
    top_k: int = option(0, "Sampling: draw only from this number of the most likely words. 0 is off.", ge=0)
    top_p: float = option(
        1.0, "Sampling: draw only from the most likely words whose probabilities add up to this. 1 is off.", gt=0, le=1
    )
    seed: int = option(
        1, "Sampling: seed of the random numbers. The same seed gives the same translations.", ge=0, lt=2**63
    )

    @property
    def num_hypotheses(self) -> int:
        """The number of hypotheses of each sentence in a search."""
        return (self.num_samples or self.n_best) if self.sample else self.beam_size

    @property
    def only_different(self) -> bool:
        """Whether the translations of a line are different texts."""
        return not self.sample or self.num_samples is not None

    def _broken_rules(self) -> Iterator[tuple[str, str]]:
        if not all(text.strip() for text in self.suppress):
            yield "suppress", "has a blank text; remove it"
        if self.choose == "mbr" and self.num_hypotheses < _LEAST_FOR_MBR:
            more = "num_samples" if self.sample else "beam_size"
            yield "choose", f"mbr needs at least {_LEAST_FOR_MBR} candidates; raise {more}"
        if self.sample:
            if self.protect:
                yield "protect", "needs beam search; remove it, or set decode.sample: false"
            if self.n_best > self.num_hypotheses:
                yield "n_best", f"must be at most num_samples ({self.num_samples}), not {self.n_best}"
            return
        if self.n_best > self.beam_size:
            yield "n_best", f"must be at most beam_size ({self.beam_size}) without sample, not {self.n_best}"
        for key, off in (("num_samples", None), ("temperature", 1.0), ("top_k", 0), ("top_p", 1.0)):
            if getattr(self, key) != off:
                yield key, "has no effect in beam search; set decode.sample: true, or remove this key"
