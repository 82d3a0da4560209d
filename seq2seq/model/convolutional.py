"""The convolutional encoder-decoder of "Convolutional Sequence to Sequence Learning" (Gehring et al. 2017).

Each layer mixes a token with its neighbours: ``kernel_width`` tokens in a window, in the decoder the token and those
before it. A gate decides what passes (gated linear units, section 3.2), and every decoder layer attends to the source
(section 3.3). Sums of two parts are scaled by the root of 1/2, which keeps their variance (section 3.4).

Two things of the paper are left out: weight normalisation, and the scaling of the encoder's gradients; the optimizers
here do what they are for.

Shapes: ``S`` source tokens, ``T`` target tokens, ``B`` sentences, ``K`` hypotheses per sentence, ``L`` tokens of the
longest source, ``W`` tokens of a window, ``D`` model width, ``V`` target vocabulary.

Initialisation (section 3.5; n is the number of inputs):

==================================  ====================================================================
embeddings and positions            normal, standard deviation 0.1
matrices before a gate              normal, standard deviation (4 (1 - dropout) / n)^1/2
other matrices                      normal, standard deviation (1 / n)^1/2
biases                              0
==================================  ====================================================================
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from seq2seq.config import ConvolutionalConfig
from seq2seq.data.packed import Packed, PackedBatch
from seq2seq.model.attention import Attention, FusedLinear, attend_step, without_scale
from seq2seq.model.embeddings import EmbeddingModel
from seq2seq.model.interface import PositionKind
from seq2seq.model.kernels.dropout import Dropout
from seq2seq.model.positions import LearnedPositions
from seq2seq.model.state import MASKED, State

_ROOT_HALF = math.sqrt(0.5)


class _Shifted(torch.autograd.Function):
    """[T, D] -> [T, D]: for each token another one of its sentence, or zeros. The gradient takes the way back."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, there: Tensor, absent: Tensor, back: Tensor, absent_back: Tensor) -> Tensor:
        ctx.save_for_backward(back, absent_back)
        return x.index_select(0, there).masked_fill_(absent, 0.0)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        back, absent_back = ctx.saved_tensors
        return grads[0].index_select(0, back).masked_fill_(absent_back, 0.0), None, None, None, None


class Windows:
    """The windows of a packed side: for each token ``width`` places, the first of them ``first`` places after it."""

    def __init__(self, side: Packed, first: int, width: int) -> None:
        self._here = torch.arange(side.ids.numel(), device=side.ids.device)  # [T]
        self.sentence = torch.searchsorted(side.offsets[1:].long(), self._here, right=True)  # [T]
        self._position, self._length = side.positions, side.lengths[self.sentence]
        # Of each place: what is there, and whether nothing is; then the same for the way back.
        distances = range(first, first + width)
        self._places = [(*self._at(distance), *self._at(-distance)) if distance else None for distance in distances]

    def _at(self, distance: int) -> tuple[Tensor, Tensor]:
        """The token ``distance`` places later, [T], and whether it would be outside the sentence, [T, 1]."""
        position = self._position + distance
        absent = (position < 0) | (position >= self._length)
        return torch.where(absent, 0, self._here + distance), absent[:, None]

    def __call__(self, x: Tensor) -> Tensor:
        """[T, D] -> [T, W * D], with zeros outside the sentence."""
        return torch.cat([x if place is None else _Shifted.apply(x, *place) for place in self._places], dim=1)


class GatedConvolution(nn.Module):
    """A convolution with a gated linear unit (Dauphin et al. 2017)."""

    def __init__(self, config: ConvolutionalConfig) -> None:
        super().__init__()
        self.width = config.kernel_width
        # The values and the gates, of all places of the window.
        self.linear = FusedLinear(self.width * config.d_model, [config.d_model] * 2)
        self.dropout = Dropout(config.dropout)

    def forward(self, x: Tensor, windows: Windows) -> Tensor:
        """[T, D] -> [T, D]."""
        return self.of_window(windows(self.dropout(x.clone())))  # in place, and the residual needs the input

    def of_window(self, window: Tensor) -> Tensor:
        """[rows, W * D] -> [rows, D]."""
        return F.glu(self.linear(window), dim=1)


class SourceAttention(nn.Module):
    """Attention of a decoder layer over the source (section 3.3, equations 1 and 2)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.attend = Attention("cross", 1)
        self.query, self.out = nn.Linear(width, width), nn.Linear(width, width)

    def queries(self, x: Tensor, embedded: Tensor) -> Tensor:
        """Layer outputs and target embeddings, [rows, D] each -> [rows, 1, D]."""
        # Equation 1 of Vaswani et al. divides by the root of the width; Gehring et al. do not.
        return without_scale(((self.query(x) + embedded) * _ROOT_HALF)[:, None])

    def combined(self, x: Tensor, contexts: Tensor, src_lengths: Tensor) -> Tensor:
        """The layer's output with what was found: [rows, D]. A mean of m vectors is scaled by m^1/2 (section 3.4)."""
        return (self.out(contexts * src_lengths.sqrt()[:, None]) + x) * _ROOT_HALF


class Convolutional(EmbeddingModel):
    """A convolutional encoder and decoder over packed sentences, which are at most ``max_length`` tokens long."""

    max_length: int

    def __init__(self, config: ConvolutionalConfig, src_vocab: int, tgt_vocab: int, max_length: int) -> None:
        width = config.d_model
        super().__init__(config, src_vocab, tgt_vocab)
        self.config, self.max_length = config, max_length
        self.src_positions, self.tgt_positions = (LearnedPositions(max_length, width) for _ in range(2))
        self.dropout = Dropout(config.dropout)
        self.encoder_layers = nn.ModuleList(GatedConvolution(config) for _ in range(config.encoder_layers))
        self.decoder_layers = nn.ModuleList(GatedConvolution(config) for _ in range(config.decoder_layers))
        self.attentions = nn.ModuleList(SourceAttention(width) for _ in range(config.decoder_layers))
        self.encoder_out, self.decoder_out = nn.Linear(width, width), nn.Linear(width, width)
        self.initialise()

    @torch.no_grad()
    def initialise(self) -> None:
        """Initialise all parameters by the table at the top of this file."""
        for module in self.modules():
            if isinstance(module, nn.Embedding):
                nn.init.normal_(module.weight, std=0.1)
            elif isinstance(module, nn.Linear):
                gained = 4 * (1 - self.config.dropout) if isinstance(module, FusedLinear) else 1.0
                nn.init.normal_(module.weight, std=math.sqrt(gained / module.in_features))
                nn.init.zeros_(module.bias)

    def forward(self, batch: PackedBatch) -> Tensor:
        """See :meth:`Seq2SeqModel.forward`."""
        keys, values = (x[:, None] for x in self.encode(batch.src))
        width = self.config.kernel_width
        windows = Windows(batch.tgt, 1 - width, width)  # a token and those before it
        src_lengths = batch.src.lengths[windows.sentence].float()
        positions = self.tgt_positions(batch.tgt.positions, batch.tgt.max_length)
        x = embedded = self._embed(self.tgt_embedding, batch.tgt.ids, positions)
        for layer, over_source in zip(self.decoder_layers, self.attentions, strict=True):
            assert isinstance(over_source, SourceAttention)
            y = layer(x, windows)
            found = over_source.attend([over_source.queries(y, embedded), keys, values], batch.tgt, batch.src)
            x = (over_source.combined(y, found.flatten(1), src_lengths) + x) * _ROOT_HALF
        return self.dropout(self.decoder_out(x))

    def position_vectors(self, length: int) -> tuple[PositionKind, Tensor | None]:
        """See :meth:`Seq2SeqModel.position_vectors`."""
        return "learned", self.tgt_positions.vectors(length)[:length].detach()

    def encode(self, src: Packed) -> tuple[Tensor, Tensor]:
        """The keys and values of the source for attention, [S, D] each: values also have the embeddings."""
        width = self.config.kernel_width
        windows = Windows(src, -(width // 2), width)  # to both sides of a token
        x = embedded = self._embed(self.src_embedding, src.ids, self.src_positions(src.positions, src.max_length))
        for layer in self.encoder_layers:
            x = (layer(x, windows) + x) * _ROOT_HALF
        x = self.encoder_out(x)
        return x, (x + embedded) * _ROOT_HALF

    def begin(self, src: Packed, num_hypotheses: int, room: int) -> State:
        """See :meth:`Seq2SeqModel.begin`."""
        shape = (src.num_sentences, 1, src.max_length, -1)
        keys, values = (x.index_select(0, src.grid).view(shape) for x in self.encode(src))  # [B, 1, L, D]
        state = State(num_hypotheses, device=keys.device)
        state.of_sentences |= {"keys": keys.transpose(2, 3), "values": values}
        state.of_sentences |= {"mask": src.key_bias.clamp(min=MASKED), "src_lengths": src.lengths.float()}
        earlier = (src.num_sentences, 1, self.config.kernel_width - 1, self.config.d_model)
        for number in range(len(self.decoder_layers)):  # what the layer has read of the tokens before
            state.of_hypotheses[f"earlier{number}"] = keys.new_zeros(earlier)
        return state

    def step(self, tokens: Tensor, state: State) -> Tensor:
        """See :meth:`Seq2SeqModel.step`."""
        source, rows = state.of_sentences, tokens.numel()
        src_lengths = source["src_lengths"][:, None].expand(tokens.shape).flatten()
        position = self.tgt_positions.vectors(0).index_select(0, state.position)
        x = embedded = self._embed(self.tgt_embedding, tokens.flatten(), position)
        for number, (layer, over_source) in enumerate(zip(self.decoder_layers, self.attentions, strict=True)):
            assert isinstance(layer, GatedConvolution)
            assert isinstance(over_source, SourceAttention)
            earlier = state.of_hypotheses[f"earlier{number}"]
            window = torch.cat([earlier, x.view(*tokens.shape, 1, -1)], dim=2)  # [B, K, W, D]
            state.replace(f"earlier{number}", window[:, :, 1:])
            y = layer.of_window(window.view(rows, -1))
            found = attend_step(over_source.queries(y, embedded), source["keys"], source["values"], source["mask"])
            x = (over_source.combined(y, found, src_lengths) + x) * _ROOT_HALF
        return self.logits(self.decoder_out(x)).view(*tokens.shape, -1)

    def _embed(self, embedding: nn.Embedding, ids: Tensor, positions: Tensor) -> Tensor:
        """Embeddings and positions, [rows, D]."""
        return self.dropout(embedding(ids) + positions)
