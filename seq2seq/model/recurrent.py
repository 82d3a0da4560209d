"""Recurrent encoder-decoder models, with or without attention.

One class has the whole family: the fixed vector of Sutskever et al. 2014 (``attention: none``), the bidirectional
encoder and additive attention of Bahdanau et al. 2015, and the dot-product attention and input feeding of Luong et al.
2015. A layer is one of PyTorch's own modules (``torch.nn.RNN``, ``GRU``, ``LSTM``); where it is trained on the CPU,
:mod:`seq2seq.model.kernels.recurrence` computes the same in less time.

Sentences are packed, sentence after sentence; a recurrent layer reads them in the order of time: the first tokens of
all sentences, then the second ones, and so on. Sentences that have ended take no part (:class:`TimeOrder`).

Shapes: ``S`` source tokens, ``T`` target tokens, ``B`` sentences, ``K`` hypotheses per sentence, ``L`` tokens of the
longest source, ``D`` model width, ``R`` width of a recurrent state, ``V`` target vocabulary.

Initialisation:

==================================  ====================================================================
embeddings                          normal, standard deviation D^-1/2 (the input is scaled by D^1/2)
recurrent matrices, one per gate    orthogonal (Saxe et al. 2014)
input matrices, one per gate        Xavier uniform (Glorot & Bengio 2010)
other matrices                      Xavier uniform
biases                              0; 1 for the forget gate of an LSTM (Jozefowicz et al. 2015)
==================================  ====================================================================
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence

from seq2seq.config import RecurrentConfig
from seq2seq.data.packed import Packed, PackedBatch
from seq2seq.model.attention import Attention, attend_step, masked_softmax, without_scale
from seq2seq.model.embeddings import EmbeddingModel
from seq2seq.model.kernels.dropout import Dropout
from seq2seq.model.kernels.recurrence import CELLS, Recurrence
from seq2seq.model.state import MASKED, State

_CELLS: dict[str, Callable[..., nn.RNNBase]] = {"rnn": nn.RNN, "gru": nn.GRU, "lstm": nn.LSTM}
GATES = {"rnn": 1, "gru": 3, "lstm": 4}
_States = tuple[Tensor, ...]  # what a layer remembers, [B, R] each: one tensor, or for an LSTM output and cell


class TimeOrder:
    """The tokens of a packed side in the order of time; among tokens of one time, those of longer sentences first."""

    def __init__(self, side: Packed) -> None:
        num_sentences, device = side.num_sentences, side.lengths.device
        self.sentences = side.lengths.argsort(descending=True, stable=True)  # [B]
        rank = torch.empty_like(self.sentences)
        rank[self.sentences] = torch.arange(num_sentences, device=device)
        sentence = torch.repeat_interleave(torch.arange(num_sentences, device=device), side.lengths)
        # From left to right, and for the other direction from right to left: the last tokens of all sentences first.
        times = torch.stack([side.positions, side.lengths[sentence] - 1 - side.positions])
        self.tokens = (times * num_sentences + rank[sentence]).argsort(dim=1)  # [2, T]
        self.back = self.tokens.argsort(dim=1)  # [2, T]
        # How many sentences have a token at each time. PyTorch's modules want it on the host.
        times = torch.arange(side.max_length, device=device)
        sizes = (side.lengths[:, None] > times).sum(dim=0).cpu()
        self.batch_sizes = sizes[sizes > 0]
        # Where the started sentences end, in both directions.
        self.last = self.back[0].index_select(0, side.offsets[1:][self.started] - 1)

    @property
    def started(self) -> Tensor:
        """The sentences that have a token, the longest first."""
        return self.sentences[: int(self.batch_sizes[0])]

    def pack(self, x: Tensor) -> PackedSequence:
        """[T, ...] by sentences -> the same by time."""
        return PackedSequence(x.index_select(0, self.tokens[0]), self.batch_sizes)

    def unpack(self, x: Tensor) -> Tensor:
        """[T, ...] by time -> the same by sentences."""
        return x.index_select(0, self.back[0])


class RecurrentLayer(nn.Module):
    """A recurrent layer that reads to the right, or half of it to the right and half to the left."""

    def __init__(self, cell: str, inputs: int, width: int, *, bidirectional: bool = False) -> None:
        """``width``: of its output, D; the states of two directions are half as wide."""
        super().__init__()
        self.directions = 2 if bidirectional else 1
        self.cell = _CELLS[cell](inputs, width // self.directions, bidirectional=bidirectional)

    def forward(self, x: Tensor, order: TimeOrder, before: _States | None) -> tuple[Tensor, _States]:
        """[T, inputs] -> [T, D] and the last states, [B, D] each; ``before``: the first states, zeros if None."""
        started = order.started
        if before is not None:
            before = tuple(state.index_select(0, started)[None] for state in before)
        if x.is_cuda or torch.is_autocast_enabled("cpu") or not torch.is_grad_enabled():
            packed, last = self.cell(order.pack(x), self._pack(before))
            out, last = order.unpack(packed.data), self._unpack(last)
        else:
            out, last = self._read(x, order, before)
        ends = []
        for state in last:  # [directions, started, R]
            end = state.new_zeros(order.sentences.size(0), self.directions * state.size(2))
            ends.append(end.index_copy(0, started, state.transpose(0, 1).flatten(1)))
        return out, tuple(ends)

    def _read(self, x: Tensor, order: TimeOrder, before: _States | None) -> tuple[Tensor, _States]:
        """What ``self.cell`` computes, with a faster gradient.

        before: the first states of the started sentences, [1, started, R] each, zeros if None. Returns [T, D], and the
        last states of the started sentences, [directions, started, R] each.
        """
        directions, cell = self.directions, self.cell
        parameters = (
            torch.stack([getattr(cell, name + suffix) for suffix in ("", "_reverse")[:directions]])
            for name in ("weight_ih_l0", "weight_hh_l0", "bias_ih_l0", "bias_hh_l0")
        )
        if before is None:
            zeros = x.new_zeros(directions, len(order.started), cell.hidden_size)
            before = (zeros,) * (2 if isinstance(cell, nn.LSTM) else 1)
        by_time = x.index_select(0, order.tokens[:directions].flatten()).view(directions, len(x), -1)  # [G, T, inputs]
        states = Recurrence.apply(CELLS[type(cell)], order.batch_sizes.tolist(), by_time, *parameters, *before)
        # Both orders of time have the same sentences at the same places.
        out = torch.cat([h.index_select(0, back) for h, back in zip(states[0], order.back, strict=False)], dim=1)
        return out, tuple(state.index_select(1, order.last) for state in states)

    def step(self, x: Tensor, before: _States) -> tuple[Tensor, _States]:
        """One token of each row, [rows, inputs] -> [rows, D] and the states after it."""
        before = tuple(state[None].contiguous() for state in before)  # cuDNN takes nothing else
        out, after = self.cell(x[None], self._pack(before))
        return out[0], tuple(state[0] for state in self._unpack(after))

    def _pack(self, states: _States | None) -> _States | Tensor | None:
        """States as PyTorch's modules want them: a tuple for an LSTM, else a tensor."""
        return states if states is None or isinstance(self.cell, nn.LSTM) else states[0]

    def _unpack(self, states: _States | Tensor) -> _States:
        return (states,) if isinstance(states, Tensor) else states


class AdditiveAttention(Attention):
    """Attention whose scores are v . tanh(q + k) (Bahdanau et al. 2015, appendix A.1.2), with one head."""

    def __init__(self, width: int) -> None:
        super().__init__("cross", 1)
        self.vector = nn.Parameter(torch.empty(width))

    def scores(self, q: Tensor, k: Tensor) -> Tensor:
        """q, k: [..., D], broadcast to one another -> [...]."""
        return torch.tanh(q + k) @ self.vector

    def forward(self, heads: Sequence[Tensor], q_side: Packed, k_side: Packed) -> Tensor:
        """Queries [T, 1, D], keys and values [S, 1, D] -> [T, 1, D].

        Every pair of a target and a source token of the same sentence is computed by itself, without padding.
        """
        queries, keys, values = (head[:, 0] for head in heads)
        tokens, sentences = (torch.arange(n, device=keys.device) for n in (len(queries), q_side.num_sentences))
        sentence = sentences.repeat_interleave(q_side.lengths)  # [T]
        counts = k_side.lengths[sentence]  # [T], the pairs of each target token
        at_target = tokens.repeat_interleave(counts)  # [pairs]
        position = torch.arange(at_target.numel(), device=keys.device) - (counts.cumsum(0) - counts)[at_target]
        at_source = k_side.offsets[sentence[at_target]] + position
        scores = self.scores(queries.index_select(0, at_target), keys.index_select(0, at_source))
        grid = scores.new_full((len(queries), k_side.max_length), -math.inf)
        weights = grid.index_put((at_target, position), scores).softmax(dim=1)[at_target, position]
        weighted = weights[:, None] * values.index_select(0, at_source)  # in fp32 under autocast
        return weighted.new_zeros(queries.shape).index_add(0, at_target, weighted)[:, None]

    def weights(self, heads: Sequence[Tensor], q_side: Packed, k_side: Packed) -> Tensor:
        """See :meth:`Attention.weights`."""
        q, k, _ = self._grids(heads, q_side, k_side)
        return masked_softmax(self.scores(q[:, :, :, None], k[:, :, None]), self._visible(q_side, k_side))


class SourceAttention(nn.Module):
    """Attention of a decoder state over the encoded source: a context, the weighted mean of the source's vectors.

    The score of a source vector h for a state s is

    - ``dot``: s . h; ``general``: s . W h (Luong et al. 2015, equation 8);
    - ``additive``: v . tanh(W s + U h) (Bahdanau et al. 2015, appendix A.1.2).
    """

    def __init__(self, kind: str, width: int) -> None:
        super().__init__()
        self.of_source = nn.Linear(width, width, bias=False) if kind != "dot" else nn.Identity()
        self.of_state = nn.Linear(width, width) if kind == "additive" else nn.Identity()
        self.attend = AdditiveAttention(width) if kind == "additive" else Attention("cross", 1)

    def _queries(self, states: Tensor) -> Tensor:
        """[rows, D] -> [rows, 1, D]."""
        queries = self.of_state(states)[:, None]
        # Equation 1 of Vaswani et al. divides by the root of the width; Luong et al. do not.
        return queries if isinstance(self.attend, AdditiveAttention) else without_scale(queries)

    def forward(self, states: Tensor, tgt: Packed, memory: Tensor, src: Packed) -> Tensor:
        """The contexts of all tokens: states [T, D], memory [S, D] -> [T, D]."""
        return self.attend(self.heads(states, memory), tgt, src).flatten(1)

    def heads(self, states: Tensor, memory: Tensor) -> list[Tensor]:
        """Queries [T, 1, D] of states [T, D], and keys and values [S, 1, D] of memory [S, D]."""
        return [self._queries(states), self.of_source(memory)[:, None], memory[:, None]]

    def grid(self, memory: Tensor, src: Packed) -> dict[str, Tensor]:
        """What the steps need of the source: ``keys`` and ``values`` [B, L, D] and a mask [B, 1, 1, L]."""
        shape = (src.num_sentences, src.max_length, -1)
        keys, values = (x.index_select(0, src.grid).view(shape) for x in (self.of_source(memory), memory))
        return {"keys": keys, "values": values, "mask": src.key_bias.clamp(min=MASKED)}

    def step(self, states: Tensor, source: dict[str, Tensor]) -> Tensor:
        """The contexts of one step: states [B * K, D] -> [B * K, D]; ``source`` from :meth:`grid`."""
        keys, values, mask = source["keys"], source["values"], source["mask"]
        queries = self._queries(states)
        if not isinstance(self.attend, AdditiveAttention):
            return attend_step(queries, keys[:, None].transpose(2, 3), values[:, None], mask)
        queries = queries.view(keys.size(0), -1, 1, keys.size(2))  # [B, K, 1, D]
        scores = self.attend.scores(queries, keys[:, None])  # [B, K, L]
        return ((scores + mask[:, 0]).softmax(dim=2) @ values).flatten(0, 1)


class Recurrent(EmbeddingModel):
    """A recurrent encoder and decoder over packed sentences."""

    waits = True

    def __init__(self, config: RecurrentConfig, src_vocab: int, tgt_vocab: int) -> None:
        # In fp32 on CUDA, cuDNN would round the inputs of products to TF32.
        torch.backends.cudnn.rnn.fp32_precision = "ieee"  # type: ignore[attr-defined]
        width = config.d_model
        super().__init__(config, src_vocab, tgt_vocab)
        self.config = config
        self.max_length = None
        self.dropout = Dropout(config.dropout)
        self.encoder_layers = nn.ModuleList(
            RecurrentLayer(config.cell, width, width, bidirectional=config.bidirectional)
            for _ in range(config.encoder_layers)
        )
        fed = width if config.input_feeding else 0
        self.decoder_layers = nn.ModuleList(
            RecurrentLayer(config.cell, width + (0 if number else fed), width)
            for number in range(config.decoder_layers)
        )
        self.num_states = 2 if config.cell == "lstm" else 1
        # From the last states of all encoder layers to the first ones of all decoder layers.
        self.bridge = nn.Linear(
            self.num_states * width * config.encoder_layers, self.num_states * width * config.decoder_layers
        )
        self.attention = None if config.attention == "none" else SourceAttention(config.attention, width)
        self.combine = nn.Identity() if self.attention is None else nn.Linear(2 * width, width)
        self.initialise()

    @torch.no_grad()
    def initialise(self) -> None:
        """Initialise all parameters by the table at the top of this file."""
        for module in self.modules():
            if isinstance(module, nn.Embedding):
                nn.init.normal_(module.weight, std=self.config.d_model**-0.5)
            elif isinstance(module, nn.Linear):
                nn.init.xavier_uniform_(module.weight)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
            elif isinstance(module, AdditiveAttention):
                bound = math.sqrt(3 / len(module.vector))
                nn.init.uniform_(module.vector, -bound, bound)
            elif isinstance(module, nn.RNNBase):
                self._initialise_cell(module)

    def _initialise_cell(self, cell: nn.RNNBase) -> None:
        for name, parameter in cell.named_parameters():
            gates = parameter.chunk(GATES[self.config.cell])
            for gate in gates:
                if name.startswith("weight_hh"):
                    nn.init.orthogonal_(gate)
                elif name.startswith("weight_ih"):
                    nn.init.xavier_uniform_(gate)
                else:
                    nn.init.zeros_(gate)
            if name.startswith("bias_ih") and self.config.cell == "lstm":
                nn.init.ones_(gates[1])  # PyTorch's order: input, forget, cell, output

    def forward(self, batch: PackedBatch) -> Tensor:
        """See :meth:`Seq2SeqModel.forward`."""
        memory, first = self.encode(batch.src)
        if self.config.input_feeding:
            return self._decode_in_steps(batch, memory, first)[0]
        order, x = TimeOrder(batch.tgt), self._embed(self.tgt_embedding, batch.tgt.ids)
        for layer, before in zip(self.decoder_layers, first, strict=True):
            x = self.dropout(layer(x, order, before)[0])
        return self._combined(x, None if self.attention is None else self.attention(x, batch.tgt, memory, batch.src))

    def encode(self, src: Packed) -> tuple[Tensor, list[_States]]:
        """The encoded source [S, D], and the first states of every decoder layer, [B, D] each."""
        order, x, ends = TimeOrder(src), self._embed(self.src_embedding, src.ids), []
        for layer in self.encoder_layers:
            x, end = layer(x, order, None)
            x = self.dropout(x)
            ends.extend(end)
        first = torch.tanh(self.bridge(torch.cat(ends, dim=1))).split(self.config.d_model, dim=1)
        number = self.num_states
        return x, [first[number * layer : number * (layer + 1)] for layer in range(self.config.decoder_layers)]

    @torch.no_grad()
    def attention_maps(self, batch: PackedBatch) -> tuple[Tensor, dict[str, Tensor]]:
        """See :meth:`Seq2SeqModel.attention_maps`."""
        if self.attention is None or not self.config.input_feeding:
            return super().attention_maps(batch)
        memory, first = self.encode(batch.src)
        hidden, states = self._decode_in_steps(batch, memory, first)
        weights = self.attention.attend.weights(self.attention.heads(states, memory), batch.tgt, batch.src)
        return hidden, {"cross": weights[:, None]}

    def _decode_in_steps(self, batch: PackedBatch, memory: Tensor, first: Sequence[_States]) -> tuple[Tensor, Tensor]:
        """With input feeding, a step needs the result of the step before.

        Returns:
            Hidden states, and the states of the last layer before dropout, of all tokens, [T, D] each.
        """
        order = TimeOrder(batch.tgt)
        packed = order.pack(self._embed(self.tgt_embedding, batch.tgt.ids))
        started = order.started
        states = [tuple(state.index_select(0, started) for state in layer) for layer in first]
        source = {} if self.attention is None else self.attention.grid(memory, batch.src)
        source = {name: x.index_select(0, started) for name, x in source.items()}
        fed, hidden, seen = packed.data.new_zeros(len(started), self.config.d_model), [], []
        for x in packed.data.split(packed.batch_sizes.tolist()):
            states = [tuple(state[: len(x)] for state in layer) for layer in states]
            source = {name: kept[: len(x)] for name, kept in source.items()}
            fed, states = self._step(x, fed[: len(x)], states, source)
            hidden.append(fed)
            seen.append(states[-1][0])
        return order.unpack(torch.cat(hidden)), order.unpack(torch.cat(seen))

    def _step(
        self, x: Tensor, fed: Tensor | None, states: Sequence[_States], source: dict[str, Tensor]
    ) -> tuple[Tensor, list[_States]]:
        """One token of each row: embeddings [rows, D] -> hidden [rows, D] and the states after it."""
        x, after = x if fed is None else torch.cat([x, fed], dim=1), []
        for layer, before in zip(self.decoder_layers, states, strict=True):
            assert isinstance(layer, RecurrentLayer)
            x, state = layer.step(x, before)
            x = self.dropout(x.clone())  # in place, and the layer's gradient needs its output
            after.append(state)
        return self._combined(x, None if self.attention is None else self.attention.step(x, source)), after

    def _combined(self, states: Tensor, contexts: Tensor | None) -> Tensor:
        """Hidden states from decoder states and contexts (Luong et al. 2015, equation 5): [T, D]."""
        if contexts is None:
            return states
        combined = torch.tanh(self.combine(torch.cat([contexts, states], dim=1)))
        return self.dropout(combined.clone())  # in place, and the gradient of tanh needs its result

    def begin(self, src: Packed, num_hypotheses: int, room: int) -> State:
        """See :meth:`Seq2SeqModel.begin`."""
        memory, first = self.encode(src)
        state = State(num_hypotheses, device=memory.device)
        state.of_sentences["mask"] = src.key_bias.clamp(min=MASKED)
        if self.attention is not None:
            state.of_sentences |= self.attention.grid(memory, src)
        for layer, states in enumerate(first):
            state.of_hypotheses |= {f"state{layer}.{n}": x[:, None] for n, x in enumerate(states)}  # [B, 1, D]
        if self.config.input_feeding:
            state.of_hypotheses["fed"] = torch.zeros_like(first[0][0])[:, None]
        return state

    def step(self, tokens: Tensor, state: State) -> Tensor:
        """See :meth:`Seq2SeqModel.step`."""
        kept = {name: x.flatten(0, 1) for name, x in state.of_hypotheses.items()}
        states = [
            tuple(kept[f"state{layer}.{n}"] for n in range(self.num_states))
            for layer in range(len(self.decoder_layers))
        ]
        x = self._embed(self.tgt_embedding, tokens.flatten())
        hidden, after = self._step(x, kept.get("fed"), states, state.of_sentences)
        for layer, of_layer in enumerate(after):
            for n, new in enumerate(of_layer):
                state.replace(f"state{layer}.{n}", new.view(*tokens.shape, -1))
        if "fed" in kept:
            state.replace("fed", hidden.view(*tokens.shape, -1))
        return self.logits(hidden).view(*tokens.shape, -1)

    def _embed(self, embedding: nn.Embedding, ids: Tensor) -> Tensor:
        return self.dropout(embedding(ids) * math.sqrt(self.config.d_model))
