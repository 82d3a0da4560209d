"""Promise: a recurrent model is the textbook one: a plain loop over the tokens of one sentence pair gives the same.

The reference uses PyTorch's functions for one cell and one token, and dense attention.

Shapes: ``L`` tokens of a sentence, ``D`` model width, ``R`` width of a state.
"""

import itertools
import math

import pytest
import torch
from torch import nn

from seq2seq.model.recurrent import AdditiveAttention, Recurrent
from tests.model.parity import assert_trains_like

LENGTHS = [(4, 6), (1, 1), (9, 3), (2, 12), (7, 7)]  # (source, target)
CELLS = {nn.RNN: torch.rnn_tanh_cell, nn.GRU: torch.gru_cell, nn.LSTM: torch.lstm_cell}
VARIANTS = [
    {"cell": cell, "attention": attention, "input_feeding": fed, "bidirectional": both}
    for cell, attention, fed, both in itertools.product(
        ("rnn", "gru", "lstm"), ("additive", "dot", "general", "none"), (False, True), (False, True)
    )
]


def plain_step(cell, x, before, suffix=""):
    """One token of one direction: x [inputs] and the states [R] before it -> the states after it."""
    names = (f"{kind}_l0{suffix}" for kind in ("weight_ih", "weight_hh", "bias_ih", "bias_hh"))
    before = [state[None] for state in before]
    after = CELLS[type(cell)](
        x[None], before if isinstance(cell, nn.LSTM) else before[0], *(getattr(cell, name) for name in names)
    )
    return [state[0] for state in (after if isinstance(cell, nn.LSTM) else [after])]


def plain_encode(model, ids):
    """The encoded source, [L, D], and the last states of all layers, one after the other."""
    x, ends = list(model.src_embedding.weight[ids] * math.sqrt(model.config.d_model)), []
    for layer in model.encoder_layers:
        out, last = [], []
        for suffix in ("", "_reverse")[: layer.directions]:
            width = layer.cell.hidden_size
            states, outputs = [torch.zeros(width)] * model.num_states, []
            for token in x if not suffix else x[::-1]:
                states = plain_step(layer.cell, token, states, suffix)
                outputs.append(states[0])
            out.append(outputs if not suffix else outputs[::-1])
            last.append(states)
        x = [torch.cat(parts) for parts in zip(*out, strict=True)]
        ends += [torch.cat(parts) for parts in zip(*last, strict=True)]
    return torch.stack(x), torch.cat(ends)


def plain_context(attention, state, memory):
    """The context [D] of a state [D]."""
    if isinstance(attention.attend, AdditiveAttention):
        scores = torch.tanh(attention.of_state(state) + attention.of_source(memory)) @ attention.attend.vector
    else:
        scores = attention.of_source(memory) @ state
    return scores.softmax(dim=0) @ memory


def plain_model(model, src, tgt):
    """Hidden states [L, D] of one pair: decoder input ``tgt`` [L], source ``src`` [L']."""
    memory, ends = plain_encode(model, src)
    first = torch.tanh(model.bridge(ends)).split(model.config.d_model)
    states = [list(first[i : i + model.num_states]) for i in range(0, len(first), model.num_states)]
    fed, hidden = torch.zeros(model.config.d_model), []
    for token in model.tgt_embedding.weight[tgt] * math.sqrt(model.config.d_model):
        x = torch.cat([token, fed]) if model.config.input_feeding else token
        for number, layer in enumerate(model.decoder_layers):
            states[number] = plain_step(layer.cell, x, states[number])
            x = states[number][0]
        if model.attention is not None:
            x = torch.tanh(model.combine(torch.cat([plain_context(model.attention, x, memory), x])))
        fed = x
        hidden.append(x)
    return torch.stack(hidden)


@pytest.mark.parametrize("options", VARIANTS, ids=lambda options: "-".join(map(str, options.values())))
def test_against_a_plain_loop_over_one_sentence_at_a_time(make_model, make_pairs, batch_of, options):
    """Loss and every gradient: guards against tokens in a wrong order of time, states of another sentence, and
    directions or gates that are exchanged."""
    model = make_model(architecture="recurrent", tie_embeddings="none", decoder_layers=3, **options)
    pairs = make_pairs(LENGTHS)
    assert_trains_like(plain_model, model, pairs, batch_of(pairs))


@pytest.mark.parametrize("cell", ["rnn", "gru", "lstm"])
def test_initialisation_is_the_documented_one(make_model, cell):
    """Guards against gates that are initialised as one matrix, and a forget gate that forgets at first."""
    config = make_model(architecture="recurrent", cell=cell, attention="additive", d_model=64).config
    model = Recurrent(config, 200, 200)
    for module in model.modules():
        if isinstance(module, nn.RNNBase):
            width = module.hidden_size
            for name, parameter in module.named_parameters():
                for number, gate in enumerate(parameter.split(width)):
                    if name.startswith("weight_hh"):
                        torch.testing.assert_close(gate @ gate.t(), torch.eye(width), atol=1e-5, rtol=0)
                    elif name.startswith("weight_ih"):
                        assert gate.std().item() == pytest.approx(math.sqrt(2 / (width + gate.size(1))), rel=0.1)
                    else:
                        forget = cell == "lstm" and number == 1 and name.startswith("bias_ih")
                        assert torch.equal(gate, torch.full((width,), float(forget)))
        elif isinstance(module, nn.Linear):
            assert module.weight.std().item() == pytest.approx(math.sqrt(2 / sum(module.weight.shape)), rel=0.1)
            assert module.bias is None or not module.bias.any()
        elif isinstance(module, nn.Embedding):
            assert module.weight.std().item() == pytest.approx(1 / 8, rel=0.07)
        elif isinstance(module, AdditiveAttention):
            assert module.vector.std().item() == pytest.approx(1 / 8, rel=0.3)
