"""Promise: int8 layers give nearly what the fp32 ones give, and a row's result depends on that row alone; weights cast
once give what casting them at every step gives."""

import pytest
import torch
from torch import nn
from torch.nn import functional

from seq2seq.data.packed import pack_sentences
from seq2seq.data.symbols import BOS_ID
from seq2seq.model.quantize import (
    FbgemmLinear,
    Int8Linear,
    int8_layer,
    linear_shapes,
    quantize,
    update_weights,
    with_weights_in,
)

WITHOUT_FBGEMM = pytest.mark.skipif(
    "fbgemm" not in torch.backends.quantized.supported_engines, reason="no FBGEMM on this CPU or in this PyTorch"
)
LAYERS = pytest.mark.parametrize("layer", [Int8Linear, pytest.param(FbgemmLinear, marks=WITHOUT_FBGEMM)])


@LAYERS
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize(("inputs", "outputs"), [(16, 24), (512, 96), (33, 7)])
def test_close_to_fp32(inputs, outputs, bias, layer):
    """Guards against scales of rows and columns mixed up: both differ a hundredfold here, and errors are counted for
    each output by itself."""
    torch.manual_seed(0)
    x = torch.randn(40, inputs) * torch.logspace(-1, 1, 40)[:, None]
    weight = torch.randn(outputs, inputs) * torch.logspace(-1, 1, outputs)[:, None]
    shift = torch.randn(outputs) if bias else None
    expected = functional.linear(x, weight, shift)
    unit = x.norm(dim=1, keepdim=True) * weight.norm(dim=1) / inputs**0.5
    error = (layer(weight, shift)(x) - expected) / unit
    assert error.abs().max() < 0.08
    assert error.abs().mean() < 0.02


@pytest.mark.parametrize(
    ("layer", "largest"), [(Int8Linear, 127), pytest.param(FbgemmLinear, 64, marks=WITHOUT_FBGEMM)]
)
def test_exact_where_int8_is(layer, largest):
    """Whole numbers up to the largest that fits, which every row has, are not rounded; 512 products do not overflow."""
    x, weight = (
        torch.randint(-most, most + 1, (30, 512), generator=torch.Generator().manual_seed(most)).float()
        for most in (127, largest)
    )
    x[:, 0], weight[:, 0] = 127, largest
    x[0], weight[0] = 127, largest
    torch.testing.assert_close(layer(weight, None)(x), x @ weight.t(), rtol=1e-6, atol=1e-3)


@LAYERS
def test_a_row_does_not_depend_on_the_others(layer):
    """Guards against a scale for the whole batch: bit for bit the same alone and beside far larger rows."""
    torch.manual_seed(0)
    layer, x = layer(torch.randn(96, 64), torch.randn(96)), torch.randn(50, 64)
    x[1::2] *= 1000
    together = layer(x)
    for row in range(50):
        assert torch.equal(layer(x[row : row + 1])[0], together[row])


@LAYERS
def test_rows_of_zeros(layer):
    """Guards against 0 / 0, in activations (after a ReLU) and in weights."""
    weight, bias = torch.randn(8, 16), torch.randn(8)
    weight[3] = 0
    out = layer(weight, bias)(torch.cat([torch.zeros(1, 16), torch.ones(1, 16)]))
    torch.testing.assert_close(out[0], bias)
    assert out[1, 3] == bias[3]


@LAYERS
def test_what_is_no_number_stays_visible(layer):
    """Guards against NaN or infinity in one row that becomes a usual number there, or spoils another row."""
    x = torch.randn(3, 16)
    x[0, 3], x[1, 5] = torch.nan, torch.inf
    out = layer(torch.randn(8, 16), None)(x)
    assert not out[:2].isfinite().any()
    assert out[2].isfinite().all()


OTHERS = [{"architecture": "recurrent", "attention": "additive"}, {"architecture": "convolutional"}]


@LAYERS
@pytest.mark.parametrize("options", [{"d_ff": 128}, *OTHERS])
@torch.no_grad()
def test_a_quantized_model(make_model, make_pairs, options, layer):
    """All linear layers and the output are int8, logits stay close, the rest is shared, and the model is as before."""
    model = make_model(d_model=64, tie_embeddings="all", **options).eval()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    small = quantize(model, layer)
    assert not any(isinstance(module, nn.Linear) for module in small.modules())
    assert sum(isinstance(module, layer) for module in small.modules()) == 1 + sum(
        isinstance(module, nn.Linear) for module in model.modules()
    )
    assert small.tgt_embedding.weight is model.tgt_embedding.weight
    assert small.output is small.tgt_embedding
    assert model.quantized_output is None
    assert model.state_dict().keys() == before.keys()
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    src = pack_sentences([s for s, _ in make_pairs([(9, 1), (4, 1)])])
    tokens = torch.full((2, 1), BOS_ID)
    plain, close = (m.step(tokens, m.begin(src, 1, 1)) for m in (model, small))
    assert 0 < (plain - close).abs().max() < 0.1 * plain.std()


@pytest.mark.parametrize(
    ("slow", "expected"),
    [
        ([], Int8Linear),
        pytest.param([Int8Linear], FbgemmLinear, marks=WITHOUT_FBGEMM),
        ([Int8Linear, FbgemmLinear], None),
    ],
)
def test_the_layer_is_chosen_by_its_time(monkeypatch, slow, expected):
    """Guards against int8 that is slower than fp32, and against fp32 where one of the layers is faster."""

    def seconds(layer, x):
        layer(x)
        return 1.0 if not isinstance(layer, nn.Module) else 0.9 if type(layer) in slow else 0.5

    monkeypatch.setattr("seq2seq.model.quantize._seconds", seconds)
    assert int8_layer.__wrapped__(((8, 16), (16, 8))) is expected


def test_each_shape_counts_as_often_as_the_model_has_it(monkeypatch):
    """Guards against a wide output that hides many narrow layers, which int8 makes slower."""

    def seconds(layer, x):
        gain = 0.1 if x.size(1) == 64 else 2.0
        return gain if isinstance(layer, nn.Module) else 1.0

    monkeypatch.setattr("seq2seq.model.quantize._seconds", seconds)
    assert int8_layer.__wrapped__(((64, 8), (8, 8))) is None
    assert int8_layer.__wrapped__(((64, 8), (64, 8), (64, 8), (8, 8))) is Int8Linear


def test_all_that_is_replaced_is_measured(make_model):
    """Guards against a measurement without the output, which is the largest layer."""
    model = make_model(d_model=64, d_ff=128, tie_embeddings="all")
    shapes = linear_shapes(model)
    small = quantize(model, Int8Linear)
    replaced = [tuple(m.weight.shape) for m in small.modules() if isinstance(m, Int8Linear)]
    assert sorted(shapes) == sorted(replaced)


def test_a_layer_that_this_pytorch_lacks_is_passed_over(monkeypatch):
    """Guards against a traceback where there is no FBGEMM (ARM, later versions): the answer is then fp32."""
    monkeypatch.setattr("seq2seq.model.quantize._seconds", lambda layer, x: 1.0)
    monkeypatch.delattr(torch, "_make_per_channel_quantized_tensor")
    assert int8_layer.__wrapped__(((8, 16),)) is None


@pytest.mark.parametrize("tie", ["all", "target", "none"])
@torch.inference_mode()
def test_cast_weights_give_what_autocast_gives(make_model, make_pairs, batch_of, tie):
    """Guards against a copy that differs from casting at every step, or that changes the model."""
    model = make_model(tie_embeddings=tie, norm_position="pre").eval()
    batch = batch_of(make_pairs([(4, 6), (9, 3)]))
    before = {name: x.clone() for name, x in model.named_parameters()}
    cast = with_weights_in(torch.bfloat16, model)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        one, other = (torch.nn.functional.linear(m(batch), m.output_weight) for m in (model, cast))
    assert one.dtype == torch.bfloat16
    assert torch.equal(one, other)
    assert all(torch.equal(x, before[name]) and x.dtype == torch.float32 for name, x in model.named_parameters())
    assert all(m.weight.dtype == torch.bfloat16 for m in cast.modules() if isinstance(m, torch.nn.Linear))
    assert cast.output_weight.dtype == torch.bfloat16
    assert cast.src_embedding.weight is model.src_embedding.weight
    assert cast.tgt_embedding.weight.dtype == torch.float32


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("tie", ["all", "target", "none"])
def test_a_copy_follows_the_model(make_model, tie, dtype):
    """Guards against a weight that is forgotten, or that moves: a graph would read the old one; and against dropout in
    the copy of a model that trains."""
    model = make_model(tie_embeddings=tie).train()
    cast = with_weights_in(dtype, model)
    before = {name: x.data_ptr() for name, x in cast.named_parameters()}
    with torch.no_grad():
        for x in model.parameters():
            x.normal_()
    update_weights(cast, model)
    new = with_weights_in(dtype, model)
    assert {name: x.data_ptr() for name, x in cast.named_parameters()} == before
    assert all(torch.equal(x, new.get_parameter(name)) for name, x in cast.named_parameters())
    assert not any(module.training for module in cast.modules())
    assert all(module.training for module in model.modules())
