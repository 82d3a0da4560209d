"""eole, the successor of OpenNMT-py: its Transformer, built from its own configuration."""

from __future__ import annotations

from torch import Tensor, nn

from bench.padded import PaddedBatch, smoothed_loss
from bench.workload import DROPOUT, PAD_ID, PeerShape

TITLE, PACKAGE, MODULE = "eole", "eole", "eole"
INSTALL = "pip install --no-deps eole==0.6.4; pip install pyonmttok configargparse rapidfuzz pyahocorasick six"


class Model(nn.Module):
    """The model and its loss, as :func:`bench.padded.run` wants them."""

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

    def forward(self, batch: PaddedBatch) -> Tensor:
        """The loss."""
        tgt = nn.functional.pad(batch.tgt_in, (0, 1))  # it leaves the last token out itself
        hidden = self.eole(batch.src, tgt, batch.src_lengths).dec_out
        return smoothed_loss(self.eole.generator(hidden).float(), batch)
