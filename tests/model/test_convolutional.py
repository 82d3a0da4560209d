"""Promise: the convolutional model is that of Gehring et al. 2017: PyTorch's convolutions on a sentence agree with it.

Shapes: ``L`` tokens of a sentence, ``D`` model width.
"""

import math

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from seq2seq.model.attention import FusedLinear
from seq2seq.model.convolutional import Convolutional
from tests.model.parity import assert_trains_like
from tests.model.variants import CONVOLUTIONAL

LENGTHS = [(4, 6), (1, 1), (9, 3), (2, 12), (7, 7)]  # (source, target)


def plain_convolution(layer, x, before, after):
    """[L, D] -> [L, D], with zeros ``before`` and ``after`` the sentence."""
    kernel = layer.linear.weight.view(-1, layer.width, x.size(1)).transpose(1, 2)  # [2 D, D, W]
    values, gates = F.conv1d(F.pad(x.t(), (before, after))[None], kernel, layer.linear.bias)[0].t().chunk(2, dim=1)
    return values * torch.sigmoid(gates)


def plain_model(model, src, tgt):
    """Hidden states [L, D] of one pair: decoder input ``tgt`` [L], source ``src`` [L']."""

    def embed(table, positions, ids):
        return table.weight[ids] + positions.table.weight[: len(ids)]

    reach = model.config.kernel_width - 1
    x = e = embed(model.src_embedding, model.src_positions, src)
    for layer in model.encoder_layers:
        x = (plain_convolution(layer, x, reach // 2, reach // 2) + x) / math.sqrt(2)
    keys = model.encoder_out(x)
    values = (keys + e) / math.sqrt(2)
    x = g = embed(model.tgt_embedding, model.tgt_positions, tgt)
    for layer, over_source in zip(model.decoder_layers, model.attentions, strict=True):
        h = plain_convolution(layer, x, reach, 0)
        d = (over_source.query(h) + g) / math.sqrt(2)
        c = (d @ keys.t()).softmax(dim=1) @ values * math.sqrt(len(src))
        x = ((over_source.out(c) + h) / math.sqrt(2) + x) / math.sqrt(2)
    return model.decoder_out(x)


@pytest.mark.parametrize("options", CONVOLUTIONAL.values(), ids=CONVOLUTIONAL)
def test_against_plain_convolutions_of_one_sentence_at_a_time(make_model, make_pairs, batch_of, options):
    """Loss and every gradient: guards against a window that reaches into the next sentence, or to later words."""
    model, pairs = make_model(**options), make_pairs(LENGTHS)
    assert_trains_like(plain_model, model, pairs, batch_of(pairs), atol=1e-4)


def test_initialisation_is_the_documented_one(make_model):
    """Guards against variances that grow or vanish from layer to layer."""
    model = Convolutional(make_model(architecture="convolutional", d_model=64, dropout=0.5).config, 200, 200, 200)
    for name, module in model.named_modules():
        if isinstance(module, nn.Embedding):
            std = 0.1
        elif isinstance(module, nn.Linear):
            std = math.sqrt((2 if isinstance(module, FusedLinear) else 1) / module.in_features)
            assert not module.bias.any()
        else:
            continue
        assert module.weight.std().item() == pytest.approx(std, rel=0.07), name
