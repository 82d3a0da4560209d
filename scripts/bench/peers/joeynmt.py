"""JoeyNMT: its Transformer and its loss, built from the dictionary that its configuration files become."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from bench.padded import PaddedBatch
from bench.workload import BOS_ID, DROPOUT, EOS_ID, LABEL_SMOOTHING, PAD_ID, PeerShape

TITLE, PACKAGE, MODULE = "JoeyNMT", "joeynmt", "joeynmt"
INSTALL = "pip install --no-deps joeynmt==2.3.0; pip install importlib_metadata subword-nmt sacremoses packaging"


class _Vocabulary:
    """As much of its vocabulary as a model asks for."""

    pad_index, bos_index, eos_index, unk_index, sep_index = PAD_ID, BOS_ID, EOS_ID, 1, None
    specials: tuple[str, ...] = ()
    lang_tags: tuple[str, ...] = ()

    def __init__(self, size: int) -> None:
        self._size = size

    def __len__(self) -> int:
        return self._size


def _side(shape: PeerShape) -> dict[str, Any]:
    return {
        "type": "transformer",
        "num_layers": shape.layers,
        "num_heads": shape.heads,
        "hidden_size": shape.d_model,
        "ff_size": shape.d_ff,
        "dropout": DROPOUT,
        "layer_norm": "pre",
        "embeddings": {"embedding_dim": shape.d_model, "scale": True, "dropout": DROPOUT},
    }


class Model(nn.Module):
    """The model and its loss, as :func:`bench.padded.run` wants them."""

    def __init__(self, shape: PeerShape) -> None:
        super().__init__()
        from joeynmt.model import build_model

        vocabulary = _Vocabulary(shape.vocab_size)
        config = {
            "encoder": _side(shape),
            "decoder": _side(shape),
            "tied_embeddings": True,
            "tied_softmax": True,
            "initializer": "xavier_uniform",
            "embed_initializer": "xavier_uniform",
        }
        self.joey = build_model(config, vocabulary, vocabulary)
        self.joey.loss_function = ("crossentropy", LABEL_SMOOTHING)

    def forward(self, batch: PaddedBatch) -> Tensor:
        """The loss."""
        loss: Tensor
        loss, *_ = self.joey(
            return_type="loss",
            src=batch.src,
            src_length=batch.src_lengths,
            src_mask=(batch.src != PAD_ID)[:, None, :],
            trg_input=batch.tgt_in,
            trg=batch.labels,
            trg_mask=(batch.labels != PAD_ID)[:, None, :],
        )
        return loss / batch.num_labels
