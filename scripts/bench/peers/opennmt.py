"""OpenNMT-py: its Transformer, built from its own options, and the criterion that its loss uses."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from bench.padded import PaddedBatch, smoothed_loss
from bench.workload import DROPOUT, PAD_ID, PeerShape

TITLE, PACKAGE, MODULE = "OpenNMT-py", "OpenNMT-py", "onmt"
INSTALL = (
    "pip install --no-deps OpenNMT-py==3.5.1; pip install pyonmttok configargparse spacy rapidfuzz pyahocorasick six "
    "fasttext-wheel"
)


def _options(shape: PeerShape) -> Any:
    """The defaults of its command line with the recipe of its documentation's Transformer."""
    from onmt.opts import model_opts
    from onmt.utils.parse import ArgumentParser

    parser = ArgumentParser()
    model_opts(parser)
    options, _ = parser.parse_known_args([])
    stated = {
        "model_task": "seq2seq",
        "model_type": "text",
        **dict.fromkeys(("encoder_type", "decoder_type"), "transformer"),
        **dict.fromkeys(("enc_layers", "dec_layers"), shape.layers),
        **dict.fromkeys(("enc_hid_size", "dec_hid_size", "src_word_vec_size", "tgt_word_vec_size"), shape.d_model),
        "heads": shape.heads,
        "transformer_ff": shape.d_ff,
        **dict.fromkeys(("position_encoding", "share_embeddings", "share_decoder_embeddings", "add_qkvbias"), True),
        "dropout": [DROPOUT],
        "attention_dropout": [0.0],
        # Of the training options.
        "optim": "adam",
        **dict.fromkeys(("freeze_word_vecs_enc", "freeze_word_vecs_dec"), False),
        "parallel_mode": "data_parallel",
        "world_size": 1,
        "use_ckpting": [],
    }
    vars(options).update(stated)
    return options


class Model(nn.Module):
    """The model and its loss, as :func:`bench.padded.run` wants them."""

    def __init__(self, shape: PeerShape) -> None:
        super().__init__()
        from onmt.model_builder import build_base_model

        vocabulary = {"<blank>": PAD_ID, **{str(i): i for i in range(1, shape.vocab_size)}}
        self.onmt = build_base_model(_options(shape), {"src": vocabulary, "tgt": vocabulary})
        for module in self.onmt.modules():  # as its builder initialises a new model
            for name, parameter in module.named_parameters(recurse=False):
                if name == "weight" and parameter.dim() > 1:
                    nn.init.xavier_uniform_(parameter)
                elif name == "bias":
                    nn.init.zeros_(parameter)

    def forward(self, batch: PaddedBatch) -> Tensor:
        """The loss."""
        tgt = nn.functional.pad(batch.tgt_in, (0, 1))[:, :, None]  # it leaves the last token out itself
        hidden, _ = self.onmt(batch.src[:, :, None], tgt, batch.src_lengths)
        # Its LossCompute computes this, and statistics besides.
        return smoothed_loss(self.onmt.generator(hidden), batch)
