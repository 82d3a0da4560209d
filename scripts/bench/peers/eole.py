"""eole, the successor of OpenNMT-py: its Transformer, built from its own configuration."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from bench.padded import PaddedBatch, train
from bench.workload import DROPOUT, LABEL_SMOOTHING, PAD_ID, PeerShape

TITLE, PACKAGE, MODULE = "eole", "eole", "eole"
INSTALL = "pip install --no-deps eole==0.6.4; pip install pyonmttok configargparse rapidfuzz pyahocorasick six"


class _Model(nn.Module):
    def __init__(self, shape: PeerShape) -> None:
        super().__init__()
        from eole.config.models import TransformerModelConfig
        from eole.config.training import TrainingConfig
        from eole.models.model import EncoderDecoderModel

        config = TransformerModelConfig(
            layers=shape.layers,
            hidden_size=shape.d_model,
            word_vec_size=shape.d_model,
            transformer_ff=shape.d_ff,
            heads=shape.heads,
            embeddings={"word_vec_size": shape.d_model, "position_encoding_type": "SinusoidalInterleaved"},
            share_embeddings=True,
            share_decoder_embeddings=True,
            add_qkvbias=True,
            add_ffnbias=True,
            generator_bias=False,
        )
        running = TrainingConfig(dropout=[DROPOUT], attention_dropout=[0.0], param_init_method="xavier_uniform")
        vocabulary = {"<blank>": PAD_ID, **{str(i): i for i in range(1, shape.vocab_size)}}
        vocabularies = {"src": vocabulary, "tgt": vocabulary, "specials": {"pad_token": "<blank>"}}
        self.eole = EncoderDecoderModel.build(config, vocabularies, running)
        self.eole.init_weights(running)
        self.criterion = nn.CrossEntropyLoss(ignore_index=PAD_ID, reduction="sum", label_smoothing=LABEL_SMOOTHING)

    def forward(self, batch: PaddedBatch) -> Tensor:
        tgt = nn.functional.pad(batch.tgt_in, (0, 1))  # it leaves the last token out itself
        hidden = self.eole(batch.src, tgt, batch.src_lengths).dec_out
        logits = self.eole.generator(hidden.flatten(0, 1))
        loss: Tensor = self.criterion(logits.float(), batch.labels.flatten())
        return loss / batch.num_labels


def run(values: dict[str, Any]) -> dict[str, Any]:
    """The job."""
    return train(values, _Model, PACKAGE)
