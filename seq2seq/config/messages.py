"""Mistakes in a config, in words: where, what is allowed, and which key was probably meant."""

import difflib
import types
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import ValidationError
from pydantic.fields import FieldInfo

from seq2seq.config.keys import (
    AUTO,
    Key,
    Section,
    fields_of,
    get_key,
    is_choice,
    sections_in,
    show,
    show_key,
    without_numbers,
)

# What other toolkits call our keys: for each of ours, a note and their names.
ELSEWHERE: dict[str, tuple[str, str]] = {
    "run_dir": ("folder of the run", "save_dir output_dir model_dir save_model out_dir log_dir"),
    "seed": ("at the top of the file", "random_seed manual_seed rand_seed"),
    "tokenizer.vocab_size": ("the vocabulary is made from the training text", "vocab src_vocab_size tgt_vocab_size "
                             "vocab_file src_vocab tgt_vocab n_vocab voc_limit"),
    "model.encoder_layers": ("and model.decoder_layers", "num_layers n_layers layers enc_layers num_encoder_layers"),
    "model.decoder_layers": ("and model.encoder_layers", "dec_layers num_decoder_layers"),
    "model.d_model": ("width of the model", "hidden_size hidden_dim embed_dim emb_dim embedding_dim emb_size rnn_size "
                      "word_vec_size"),
    "model.num_heads": ("attention heads", "heads n_heads nhead num_attention_heads attention_heads"),
    "model.d_ff": ("inner width of the feed-forward layers", "ff_size transformer_ff ffn_dim ffn_embed_dim "
                   "intermediate_size dim_feedforward"),
    "model.dropout": ("of all layers", "dropout_rate attention_dropout hidden_dropout"),
    "model.tie_embeddings": ("all, target or none", "share_embeddings tied_embeddings tie_word_embeddings"),
    "optim.lr": ("peak learning rate", "learning_rate learn_rate initial_lr peak_lr"),
    "optim.schedule": ("learning rate after the warmup", "scheduler lr_scheduler lr_scheduler_type decay_method"),
    "optim.warmup_steps": ("steps until the peak", "warmup warmup_updates lr_warmup learning_rate_warmup"),
    "optim.clip_norm": ("maximum norm of the gradient", "max_grad_norm clip_grad_norm gradient_clip_val grad_clip"),
    "train.batch_tokens": ("target tokens of a step", "batch_size max_tokens tokens_per_batch "
                           "per_device_train_batch_size"),
    "train.accumulate": ("micro-batches of a step, which train.batch_tokens counts together", "accum_count accum_grad "
                         "accumulate_grad_batches gradient_accumulation_steps update_freq batch_multiplier"),
    "train.label_smoothing": ("0 is off", "label_smoothing_eps label_smoothing_factor label_smoothing_epsilon"),
    "train.max_epochs": ("passes over the training text", "epochs num_epochs max_epoch num_train_epochs"),
    "train.max_steps": ("optimizer steps", "train_steps num_steps max_update max_updates total_steps"),
    "train.validate_every": ("steps between validations", "valid_steps eval_steps valid_freq validation_freq"),
    "train.save_every": ("steps between checkpoints", "save_steps save_freq save_checkpoint_steps"),
    "train.keep_last": ("checkpoints to keep", "keep_checkpoint save_total_limit"),
    "train.patience": ("validations without improvement", "early_stopping early_stopping_patience"),
    "train.device": ("auto, cpu or cuda; several GPUs: torchrun --nproc-per-node N -m seq2seq train", "gpu gpus "
                     "gpu_ranks num_gpus n_gpu world_size use_cuda cuda use_gpu"),
    "train.precision": ("auto, fp32, bf16 or fp16", "fp16 bf16 amp mixed_precision half dtype"),
    "train.threads": ("CPU threads", "num_threads cpu_threads"),
    "decode.beam_size": ("1 is greedy search", "beam beams num_beams beam_width"),
    "decode.length_penalty": ("0 is off", "lenpen alpha beam_alpha"),
}  # fmt: skip
_OURS = {theirs: f"{key} ({note})" for key, (note, names) in ELSEWHERE.items() for theirs in names.split()}


def explain(error: ValidationError, tree: object, section: type[Section]) -> Iterator[tuple[Key, str]]:
    """Pydantic's errors in words for people: the key below ``section`` and what to do."""
    known = fields_of(section)
    for item in error.errors(include_url=False):
        key, inner, field = _place(item["loc"], tree, section)
        kind, context = item["type"], item.get("ctx", {})
        if kind == "rules":
            is_short = isinstance(get_key(tree, key), (int, str))  # as data.valid: 2%, which stands for a section
            for name, message in context["problems"]:
                yield (key if is_short else (*key, *name.split("."))), message
        elif kind == "extra_forbidden":
            yield key, unknown(key, known, list(inner.model_fields))
        elif kind == "missing" and field and item["loc"][-1] == key[-1]:
            sentence = str(field.description).split(". ")[0].rstrip(".")
            yield key, f"missing; {sentence[0].lower()}{sentence[1:]}"
        elif kind.startswith("union_tag") and field and isinstance(get_key(tree, key), dict):
            yield _which_section(key, get_key(tree, key), field, context)
        elif kind == "value_error":
            yield key, str(context["error"])
        else:
            assert field, item
            value, annotation = get_key(tree, key), field.annotation
            if key[-1].isdecimal():
                annotation = get_args(annotation)[0]
            choices = get_args(annotation) if get_origin(annotation) is Literal else ()
            expected = _expected(annotation, field.metadata) + (f" or {AUTO}" if is_choice(field) else "")
            yield key, f"must be {expected}, not {show(value)}{_nearest(value, choices)}"


def _place(
    loc: Sequence[int | str], tree: object, section: type[Section]
) -> tuple[Key, type[Section], FieldInfo | None]:
    """From the place of a pydantic error to the key in the tree, the section around it, and its field if it has one.

    Pydantic also names which section of a union it took, and counts the items of a list, even where the tree has
    a single section in place of a list of one. An item of a list of plain values is reported as its list.
    """
    key: Key = ()
    choices: tuple[type[Section], ...] = (section,)
    field: FieldInfo | None = None
    for part in loc:
        if isinstance(part, int):
            key = (*key, str(part)) if isinstance(get_key(tree, key), list) else key
        elif len(choices) > 1:
            choices = tuple(choice for choice in choices if _is_called(choice, part))[:1] or choices[:1]
        else:
            section, key = choices[0], (*key, part)
            field = section.model_fields.get(part)
            choices = sections_in(field.annotation) if field else ()
        if not choices:
            break
    return key, section, field


def _is_called(section: type[Section], tag: str) -> bool:
    """Whether a union knows the section by this tag: its class, a key that it needs, or the one value of a key."""
    fields = section.model_fields
    required = [name for name in fields if fields[name].is_required()]
    return tag in (section.__name__, *required) or (tag,) in [get_args(field.annotation) for field in fields.values()]


def _which_section(key: Key, value: object, field: FieldInfo, context: Mapping[str, str]) -> tuple[Key, str]:
    """The message where a union of sections cannot be decided: by the value of one key, or by which keys are there."""
    name = context["discriminator"].strip("'")
    if name.endswith("()"):
        return key, f"must have one of the keys {context['expected_tags'].replace(chr(39), '')}"
    sections = sections_in(field.annotation)
    choices = [str(tag) for section in sections for tag in get_args(section.model_fields[name].annotation)]
    stated = get_key(value, (name,))
    if stated is None:
        return (*key, name), f"missing; one of {', '.join(choices)}"
    return (*key, name), f"must be one of {', '.join(choices)}, not {show(stated)}{_nearest(stated, choices)}"


def _expected(annotation: Any, limits: Sequence[object]) -> str:
    """What a field allows, in words: ``a whole number > 0 or null``."""
    args = get_args(annotation)
    if get_origin(annotation) in (Union, types.UnionType):
        words = [_expected(kind, limits) if kind is not type(None) else "null" for kind in args]
        return " or ".join(dict.fromkeys(words))
    if get_origin(annotation) is Annotated:
        return _expected(args[0], args[1].metadata if isinstance(args[1], FieldInfo) else ())
    if get_origin(annotation) is tuple:
        number = "" if args[-1] is Ellipsis else f" of {len(args)}"
        return f"a list{number}, each {_expected(args[0], ())}"
    if get_origin(annotation) is Literal:
        return f"one of {', '.join(args)}" if len(args) > 1 else str(args[0])
    if sections_in(annotation):
        return "a section of key: value lines"
    kinds = {int: "a whole number", float: "a number", bool: "true or false", str: "text", Path: "a path"}
    signs = {"gt": ">", "ge": ">=", "lt": "<", "le": "<="}
    ranges = [f"{signs[name]} {getattr(limit, name)}" for limit in limits for name in signs if hasattr(limit, name)]
    return f"{kinds[annotation]} {' and '.join(ranges)}".rstrip()


def _nearest(word: object, choices: Sequence[str]) -> str:
    near = difflib.get_close_matches(word.lower(), choices, 1) if isinstance(word, str) else []
    return f"; did you mean {near[0]}?" if near else ""


def unknown(key: Key, known: Mapping[Key, FieldInfo], siblings: Sequence[str]) -> str:
    """The message about a key that is none of the known ones; ``siblings`` are those of its section."""
    name = key[-1]
    if tuple(name.split(".")) in known and "." in name:
        above, _, last = name.rpartition(".")
        return f"unknown key; dotted keys are for the command line only; here write {last}: in the section {above}:"
    ours = _OURS.get(name.lower().replace("-", "_"), "")
    for suggestion in (ours, ours.partition(".")[2].split(" ")[0]):  # the known keys may be those of one section alone
        if suggestion and tuple(suggestion.split()[0].split(".")) in known:
            return f"unknown key; did you mean {suggestion}?"
    homes = [".".join(other) for other in known if other[-1] == name and other != without_numbers(key)]
    if homes:
        return f"unknown key; did you mean {' or '.join(homes)}?"
    if not siblings:
        return f"unknown key; {show_key(key[:-1])} is not a section"
    return "unknown key" + (_nearest(name, siblings) or f"; allowed here: {', '.join(siblings)}")
