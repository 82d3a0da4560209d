"""Models in the format of Hugging Face's library ``transformers``: written from ours, and run there.

A model whose norms come last is a MarianMTModel there. One whose norms come first is a
PegasusForConditionalGeneration, which has one table of embeddings. Both have sinusoidal positions. The ids stay ours.

Shapes: ``B`` sentences, ``K`` hypotheses of each, ``S`` and ``T`` tokens of the longest source and target.
"""

from __future__ import annotations

import importlib.util
import json
import math
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from seq2seq.config import ModelConfig
from seq2seq.data.symbols import BOS_ID, EOS_ID, PAD_ID, UNK_ID
from seq2seq.errors import ModelError, UserError
from seq2seq.export.marian import ACTIVATIONS, feature_order, to_theirs
from seq2seq.export.marian_tokenizer import normalising_model, their_tables
from seq2seq.files import write_bytes, write_text
from seq2seq.model_folder import LoadedModel
from seq2seq.tensors import save_plain_tensors

WHAT_TO_TRAIN = "configs/exportable.yaml trains a model that every export takes"
_BATCH = 16  # sentences
_SPECIAL = {"pad_token_id": PAD_ID, "eos_token_id": EOS_ID, "decoder_start_token_id": BOS_ID}
_USAGE = """\
This folder is a model for [transformers](https://github.com/huggingface/transformers) (`pip install transformers
sentencepiece`). `parity.txt` says how its translations compare with those of the program that trained it.

```python
from transformers import AutoModelForSeq2SeqLM, AutoTokenizer

tokenizer, model = AutoTokenizer.from_pretrained("."), AutoModelForSeq2SeqLM.from_pretrained(".")  # this folder
batch = tokenizer(["{text}"], return_tensors="pt", padding=True)  # at most {max_length:,} tokens each
print(tokenizer.batch_decode(model.generate(**batch), skip_special_tokens=True))
```

Its `length_penalty` is another one than ours: a score is divided by length ** penalty, ours by ((5 + length) / 6) **
penalty, so that rankings can differ.
"""


class Translated(NamedTuple):
    """A translation of the library."""

    ids: list[int]  # without EOS
    score: float  # log-probability, EOS included


def is_installed() -> bool:
    """Whether the library can be imported."""
    return importlib.util.find_spec("transformers") is not None


def _need_library() -> None:
    if not is_installed():
        raise UserError("this needs the package transformers: pip install '.[huggingface]'")


def check(loaded: LoadedModel) -> None:
    """Raise UserError if the format cannot represent a model, with the reason and what to train instead, or if the
    library, which proves the export, is not installed."""
    config = loaded.config.model
    if not isinstance(config, ModelConfig):
        reason = f"it has no class for this {config.architecture} model; train a Transformer"
    elif config.ablate:
        reason = f"it has no Transformer without {', '.join(config.ablate)}; train with model.ablate: []"
    elif config.positions != "sinusoidal":
        reason = f"its classes do not have {config.positions} positions; train with model.positions: sinusoidal"
    elif config.norm != "layernorm":
        reason = f"its classes do not have {config.norm}; train with model.norm: layernorm"
    elif config.activation not in ACTIVATIONS:
        reason = f"its classes do not have {config.activation}; train with model.activation: relu, gelu or silu"
    elif config.num_kv_heads != config.num_heads:
        reason = "its classes do not have grouped heads; train with model.num_kv_heads equal to model.num_heads"
    elif config.attention_window is not None:
        reason = "its classes do not have attention windows; train with model.attention_window: null"
    elif config.norm_position == "pre" and config.tie_embeddings != "all":
        reason = (
            f"with model.norm_position: pre it needs one table of embeddings, but model.tie_embeddings is "
            f"{config.tie_embeddings}; train with all and tokenizer.joint: true, or with model.norm_position: post"
        )
    else:
        their_tables(loaded.tokenizers)
        _need_library()
        return
    raise UserError(f"Hugging Face's format cannot represent this model: {reason} ({WHAT_TO_TRAIN})")


def convert(loaded: LoadedModel, folder: Path) -> None:
    """Write a model and its tokenizer into a folder that exists.

    Raises:
        UserError: the format cannot represent it, or the folder cannot be written.
    """
    check(loaded)
    config, pair = loaded.config.model, loaded.tokenizers
    assert isinstance(config, ModelConfig)
    source_table, target_table = their_tables(pair)
    files: dict[str, Any] = {
        "config.json": _settings(loaded, config),
        "generation_config.json": _generation(loaded),
        "tokenizer_config.json": _tokenizer(loaded, config),
        "vocab.json": source_table,
    }
    if config.tie_embeddings != "all":
        files["target_vocab.json"] = target_table
    for name, tree in files.items():
        write_text(folder / name, json.dumps(tree, indent=2, ensure_ascii=False) + "\n")
    write_bytes(folder / "source.spm", normalising_model(pair.src))
    write_bytes(folder / "target.spm", pair.tgt.model)
    save_plain_tensors(folder / "model.safetensors", _weights(loaded, config))


def _room(loaded: LoadedModel) -> int:
    """Tokens of the longest translation."""
    decode = loaded.config.decode
    return int(loaded.config.data.max_length * decode.max_length_ratio) + decode.max_length_offset


def _settings(loaded: LoadedModel, config: ModelConfig) -> dict[str, Any]:
    """The shape of the model."""
    pair, marian = loaded.tokenizers, config.norm_position == "post"
    settings: dict[str, Any] = {
        "architectures": ["MarianMTModel" if marian else "PegasusForConditionalGeneration"],
        "model_type": "marian" if marian else "pegasus",
        "d_model": config.d_model,
        "vocab_size": pair.src.vocab_size,
        "max_position_embeddings": max(512, _room(loaded), loaded.config.data.max_length),
        "activation_function": ACTIVATIONS[config.activation],
        "scale_embedding": True,
        "static_position_embeddings": True,
        "normalize_before": not marian,
        "add_final_layer_norm": not marian,
        "normalize_embedding": False,
        "dropout": config.dropout,
        "attention_dropout": 0.0,
        "activation_dropout": 0.0,
        "is_encoder_decoder": True,
        "tie_word_embeddings": config.tie_embeddings != "none",
        "forced_eos_token_id": None,
        "bos_token_id": None,
        "dtype": "float32",
        **_SPECIAL,
    }
    for side, layers in (("encoder", config.encoder_layers), ("decoder", config.decoder_layers)):
        shape = {"layers": layers, "attention_heads": config.num_heads, "ffn_dim": config.d_ff, "layerdrop": 0.0}
        settings |= {f"{side}_{name}": value for name, value in shape.items()}
    if marian:
        shares = config.tie_embeddings == "all"
        settings |= {"decoder_vocab_size": pair.tgt.vocab_size, "share_encoder_decoder_embeddings": shares}
    return settings


def _generation(loaded: LoadedModel) -> dict[str, Any]:
    """How to search."""
    decode = loaded.config.decode
    return {
        **_SPECIAL,
        "num_beams": decode.beam_size,
        "early_stopping": True,  # the search ends as ours does
        "length_penalty": decode.length_penalty,
        "max_length": max(2, _room(loaded)),
        "suppress_tokens": [PAD_ID, UNK_ID, BOS_ID, *loaded.tokenizers.tgt.tags.values()],
    }


def _tokenizer(loaded: LoadedModel, config: ModelConfig) -> dict[str, Any]:
    return {
        "tokenizer_class": "MarianTokenizer",
        "separate_vocabs": config.tie_embeddings != "all",
        "source_lang": loaded.config.data.source_language,
        "target_lang": loaded.config.data.target_language,
        "unk_token": "<unk>",
        "eos_token": "</s>",
        "pad_token": "<pad>",
        "model_max_length": loaded.config.data.max_length,
        "clean_up_tokenization_spaces": False,
    }


def _weights(loaded: LoadedModel, config: ModelConfig) -> dict[str, Tensor]:
    ours = dict(loaded.model.named_parameters())
    order = feature_order(config.d_model).argsort()
    theirs = to_theirs(ours, config)
    tables = {"tgt_embedding": "model.shared"}
    if config.tie_embeddings != "all":
        tables = {"src_embedding": "model.encoder.embed_tokens", "tgt_embedding": "model.decoder.embed_tokens"}
    if config.tie_embeddings == "none":
        tables["output"] = "lm_head"
    for our_name, their_name in tables.items():
        theirs[f"{their_name}.weight"] = ours[f"{our_name}.weight"].detach().index_select(1, order)
    bias = loaded.model.output_bias
    size = loaded.tokenizers.tgt.vocab_size
    theirs["final_logits_bias"] = torch.zeros(1, size) if bias is None else bias.detach().clone()[None]
    return theirs


class Reference:
    """A model folder of this format, run in its own library on the CPU. The ids are those of the folder."""

    def __init__(self, folder: Path) -> None:
        """Raises ModelError if the library cannot load the folder, and UserError if it is not installed."""
        _need_library()
        import transformers

        transformers.utils.logging.set_verbosity_error()
        transformers.utils.logging.disable_progress_bar()
        try:
            kind = json.loads((folder / "config.json").read_bytes())["model_type"]
            names = {"marian": "MarianMTModel", "pegasus": "PegasusForConditionalGeneration"}
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # it recommends sacremoses, which it does not use for ids
                options: dict[str, Any] = {"local_files_only": True}
                load = getattr(transformers, names[kind]).from_pretrained
                self.model = load(str(folder), dtype=torch.float32, **options).eval()
                self.tokenizer = transformers.MarianTokenizer.from_pretrained(str(folder), **options)
        except Exception as error:  # of any kind: the library's own are not of one class
            reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
            raise ModelError(f"{folder}: transformers {transformers.__version__} cannot load it: {reason}") from error
        self.version: str = transformers.__version__
        self.never: list[int] = self.model.generation_config.suppress_tokens or []

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        """The ids of source texts, with their EOS."""
        return [self.tokenizer(text)["input_ids"] for text in texts]

    def encode_targets(self, texts: Sequence[str]) -> list[list[int]]:
        """The ids of target texts, with their EOS."""
        return [self.tokenizer(text_target=text)["input_ids"] for text in texts]

    @torch.inference_mode()
    def log_probs(self, sources: Sequence[Sequence[int]], targets: Sequence[Sequence[int]]) -> list[Tensor]:
        """Log-probabilities of every next token while the target is read, [T, V] each. Both sides have their EOS."""
        config, found = self.model.config, []
        for at in range(0, len(sources), _BATCH):
            ids, mask = self._padded(sources[at : at + _BATCH])
            batch = targets[at : at + _BATCH]
            tgt, _ = self._padded([[config.decoder_start_token_id, *target[:-1]] for target in batch])
            logits = self.model(input_ids=ids, attention_mask=mask, decoder_input_ids=tgt).logits
            found += [row[: len(target)].log_softmax(-1) for row, target in zip(logits, batch, strict=True)]
        return found

    @torch.inference_mode()
    def translate(
        self, sources: Sequence[Sequence[int]], beam_size: int, max_lengths: Sequence[int]
    ) -> list[Translated]:
        """The most likely hypothesis of each source, without EOS, and its log-probability with EOS, as our search.

        Without length penalty, because theirs has another formula. A hypothesis that reaches its maximum length gets an
        EOS there.
        """
        import transformers

        config = self.model.config
        self.model.generation_config = transformers.GenerationConfig(
            decoder_start_token_id=config.decoder_start_token_id,
            eos_token_id=config.eos_token_id,
            pad_token_id=config.pad_token_id,
        )
        order = sorted(range(len(sources)), key=lambda i: (len(sources[i]), i))
        found: dict[int, list[int]] = {}
        for at in range(0, len(order), _BATCH):
            batch = order[at : at + _BATCH]
            ids, mask = self._padded([sources[i] for i in batch])
            limits = torch.tensor([max_lengths[i] for i in batch]).repeat_interleave(beam_size)

            def allow(prefixes: Tensor, scores: Tensor, limits: Tensor = limits) -> Tensor:
                scores[:, self.never] = -math.inf
                last = prefixes.size(1) >= limits  # [B * K]: with the start, a prefix is one longer than its tokens
                kept = scores[last, config.eos_token_id]
                scores[last] = -math.inf
                scores[last, config.eos_token_id] = kept
                return scores

            sequences = self.model.generate(
                input_ids=ids,
                attention_mask=mask,
                num_beams=beam_size,
                do_sample=False,
                length_penalty=0.0,
                early_stopping=True,
                max_new_tokens=int(limits.max()),
                logits_processor=transformers.LogitsProcessorList([allow]),
            )
            for i, sequence in zip(batch, sequences[:, 1:].tolist(), strict=True):
                end = sequence.index(config.eos_token_id)
                found[i] = sequence[:end]
        hypotheses = [found[i] for i in range(len(sources))]
        targets = [[*ids, config.eos_token_id] for ids in hypotheses]
        scored = self.log_probs(sources, targets)
        scores = [
            float(table.gather(1, torch.tensor(target)[:, None]).sum())
            for table, target in zip(scored, targets, strict=True)
        ]
        return list(map(Translated, hypotheses, scores))

    def _padded(self, sequences: Sequence[Sequence[int]]) -> tuple[Tensor, Tensor]:
        """The ids [B, S] and their mask."""
        longest = max(map(len, sequences))
        pad = self.model.config.pad_token_id
        rows = [[*ids, *[pad] * (longest - len(ids))] for ids in sequences]
        mask = [[1] * len(ids) + [0] * (longest - len(ids)) for ids in sequences]
        return torch.tensor(rows), torch.tensor(mask)


def translate(folder: Path, source_ids: Sequence[Sequence[int]], beam_size: int, max_length: int) -> list[Translated]:
    """Translate with a folder of :func:`convert` in the library, for the proof: see :meth:`Reference.translate`.

    Args:
        source_ids: ids of source sentences, with EOS.
        max_length: tokens of an output, EOS included.
    """
    return Reference(folder).translate(source_ids, beam_size, [max_length] * len(source_ids))


def usage(loaded: LoadedModel) -> str:
    """How to use the export, in Markdown."""
    tags = loaded.tokenizers.src.tags
    tag = loaded.config.decode.tag or next(iter(tags), None)
    text = "..." if tag is None else f">>{tag}<< ..."
    return _USAGE.format(text=text, max_length=loaded.config.data.max_length)
