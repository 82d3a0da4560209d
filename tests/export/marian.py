"""Folders of Marian models as OPUS-MT publishes them, small, with random weights, made with ``transformers``."""

import io
import json
from pathlib import Path
from typing import Any

import sentencepiece
import torch

DATA = Path(__file__).resolve().parents[2] / "data"


def sentence_lines(side: str, count: int = 1500) -> list[str]:
    """Lines of the embedded corpus: ``en`` or ``zh``."""
    return (DATA / f"train.{side}").read_text(encoding="utf-8").splitlines()[:count]


def sentencepiece_model(lines: list[str], size: int, kind: str = "unigram") -> bytes:
    """A SentencePiece model as OPUS-MT makes it: its own order of ids, and a normaliser that changes characters."""
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(lines),
        model_writer=model,
        vocab_size=size,
        model_type=kind,
        hard_vocab_limit=False,
        minloglevel=2,
    )
    return model.getvalue()


def pieces_of(model: bytes) -> list[str]:
    """All pieces, in the order of their ids."""
    processor = sentencepiece.SentencePieceProcessor(model_proto=model)
    return [processor.id_to_piece(i) for i in range(processor.get_piece_size())]


def opus_table(
    source: bytes, target: bytes, codes: tuple[str, ...] = (), missing: tuple[str, ...] = ()
) -> dict[str, int]:
    """vocab.json: end of a sentence, unknown, language tokens, the pieces of both sides, and padding as the last."""
    pieces = {*pieces_of(source), *pieces_of(target)} - {"</s>", "<unk>", "<s>", *missing}
    order = ["</s>", "<unk>", *codes, *sorted(pieces), "<pad>"]
    return {piece: at for at, piece in enumerate(order)}


def write_folder(
    folder: Path, source: bytes, target: bytes, table: dict[str, int], *, scale: float = 1.0, **options: Any
) -> Path:
    """A folder with a random MarianMTModel in the configuration of OPUS-MT, except for ``options``."""
    from transformers import MarianConfig, MarianMTModel

    shape = {"encoder_layers": 2, "decoder_layers": 2, "d_model": 32, "encoder_ffn_dim": 64, "decoder_ffn_dim": 64}
    shape |= {"encoder_attention_heads": 4, "decoder_attention_heads": 4}
    pad = table["<pad>"]
    special = {"pad_token_id": pad, "decoder_start_token_id": pad, "eos_token_id": table["</s>"]}
    settings: dict[str, Any] = {
        "vocab_size": len(table),
        "decoder_vocab_size": len(table),
        "activation_function": "swish",
        "scale_embedding": True,
        "max_position_embeddings": 512,
        "forced_eos_token_id": table["</s>"],
        "bad_words_ids": [[pad]],
        "static_position_embeddings": True,
        "normalize_before": False,
        "add_final_layer_norm": False,
        "normalize_embedding": False,
    }
    torch.manual_seed(3)
    model = MarianMTModel(MarianConfig(**{**shape, **special, **settings, **options}))
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.copy_(torch.randn_like(parameter) * (0.3 if parameter.ndim > 1 else 0.5) * scale)
        if model.config.share_encoder_decoder_embeddings:
            model.model.shared.weight[pad] = 0.0
        model.final_logits_bias.copy_(torch.randn_like(model.final_logits_bias))
        model.final_logits_bias[0, pad] = 0.0
    model.save_pretrained(folder)
    generation = {"num_beams": 6, "bad_words_ids": [[pad]], "max_length": 512, **special}
    (folder / "generation_config.json").write_text(json.dumps(generation), encoding="utf-8")
    (folder / "source.spm").write_bytes(source)
    (folder / "target.spm").write_bytes(target)
    (folder / "vocab.json").write_text(json.dumps(table), encoding="utf-8")
    tokenizer = {"source_lang": "en", "target_lang": "zh", "tokenizer_class": "MarianTokenizer"}
    (folder / "tokenizer_config.json").write_text(json.dumps(tokenizer), encoding="utf-8")
    return folder
