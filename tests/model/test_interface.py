"""Promise: the weights that are shown are those that the model computes with."""

import pytest
import torch

from seq2seq.model.attention import Attention
from tests.model.variants import ALL, all_architectures

KINDS = {"transformer": {"encoder", "decoder", "cross"}, "recurrent": {"cross"}, "convolutional": {"cross"}}
SHAPES = {"encoder": (9, 9), "decoder": (7, 7), "cross": (7, 9)}


@all_architectures
def test_every_attention_is_shown(make_model, make_pairs, batch_of, options):
    """Guards against layers that are missing or twice, rows that do not sum to 1, and a hook that stays."""
    model = make_model(**options).eval()
    batch = batch_of(make_pairs([(9, 7)]))
    hidden, maps = model.attention_maps(batch)
    torch.testing.assert_close(hidden, model(batch).detach())
    architecture = options.get("architecture", "transformer")
    wanted = set() if options.get("attention") == "none" else KINDS[architecture]
    assert maps.keys() == wanted
    layers = {"encoder": model.config.encoder_layers, "decoder": model.config.decoder_layers}
    layers["cross"] = 1 if architecture == "recurrent" else model.config.decoder_layers
    heads = getattr(model.config, "num_heads", 1)
    for kind, weights in maps.items():
        assert weights.shape == (1, layers[kind], heads, *SHAPES[kind])
        torch.testing.assert_close(weights.sum(dim=-1), torch.ones(weights.shape[:-1]))
    if "decoder" in maps:
        assert not maps["decoder"].triu(1).any()
    assert not any(module._forward_hooks for module in model.modules())


@pytest.mark.parametrize("name", ["paper", "modern", "convolutional", "gru-additive", "lstm-additive-fed"])
def test_a_sentence_looks_as_alone(make_model, make_pairs, batch_of, name):
    """Guards against weights that depend on the other sentences of a batch, or are those of another one."""
    model, pairs = make_model(**ALL[name]).eval(), make_pairs([(9, 7), (4, 8), (9, 1)])
    _, together = model.attention_maps(batch_of(pairs))
    for row, pair in enumerate(pairs):
        _, alone = model.attention_maps(batch_of([pair]))
        for kind, weights in alone.items():
            rows, columns = weights.shape[-2:]
            torch.testing.assert_close(together[kind][row, ..., :rows, :columns], weights[0], atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("name", ["paper", "modern", "convolutional", "gru-additive", "lstm-dot"])
def test_weights_times_values_are_what_the_model_adds(make_model, make_pairs, batch_of, name):
    """Guards against weights of another layer, scale or head than those that were used: from them and the values, the
    attention's own result follows."""
    model, batch = make_model(**ALL[name]).eval(), batch_of(make_pairs([(9, 7)]))
    seen = []
    for module in model.modules():
        if isinstance(module, Attention):
            module.register_forward_hook(lambda module, inputs, output: seen.append((module, inputs, output)))
    _, maps = model.attention_maps(batch)
    taken = dict.fromkeys(maps, 0)
    assert len(seen) == sum(weights.size(1) for weights in maps.values())
    for module, (heads, q_side, k_side), output in seen:
        weights = maps[module.kind][0, taken[module.kind]]
        taken[module.kind] += 1
        values = module._grids(heads, q_side, k_side)[2][0]
        torch.testing.assert_close((weights @ values).transpose(0, 1), output, atol=1e-5, rtol=1e-4)


def test_a_hook_does_not_outlive_an_error(make_model, make_pairs, batch_of):
    """Guards against a model that gets slower with every failed look."""
    model, batch = make_model(), batch_of(make_pairs([(9, 7)]))
    batch.tgt.ids[0] = 10_000
    with pytest.raises(IndexError):
        model.attention_maps(batch)
    assert not any(module._forward_hooks for module in model.modules())
