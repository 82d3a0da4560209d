"""Promise: schedules have the documented values, decay acts on matrices alone, and saved state continues exactly."""

import copy
import math
import re
from unittest import mock

import pytest
import torch
from torch import Tensor, nn

from seq2seq.config import ConvolutionalConfig, ModelConfig, OptimConfig, RecurrentConfig
from seq2seq.tensors import load_tensors, save_tensors
from seq2seq.train.optim import Muon, Optimizer, learning_rate

GOOD = torch.zeros(())  # the step is not a bad one
GOLDEN = [  # schedule, warmup, min_lr_ratio, max_steps, {step: learning rate}, all with lr 0.008
    ("inverse_sqrt", 4, 0.0, None, {1: 0.002, 2: 0.004, 3: 0.006, 4: 0.008, 16: 0.004, 64: 0.002, 400: 0.0008}),
    ("inverse_sqrt", 0, 0.0, None, {1: 0.008, 4: 0.004}),
    ("constant", 4, 0.0, None, {1: 0.002, 4: 0.008, 5: 0.008, 10**6: 0.008}),
    ("constant", 0, 0.0, None, {1: 0.008}),
    ("linear", 4, 0.0, 12, {2: 0.004, 4: 0.008, 6: 0.006, 8: 0.004, 12: 0.0, 20: 0.0}),
    ("linear", 4, 0.25, 12, {4: 0.008, 8: 0.005, 12: 0.002, 20: 0.002}),
    ("cosine", 4, 0.0, 12, {2: 0.004, 4: 0.008, 6: 0.00682842712474619, 8: 0.004, 12: 0.0, 20: 0.0}),
    ("cosine", 4, 0.5, 12, {4: 0.008, 8: 0.006, 12: 0.004, 20: 0.004}),
    ("cosine", 0, 0.0, 1, {1: 0.0}),
]


@pytest.mark.parametrize(("schedule", "warmup", "ratio", "max_steps", "golden"), GOLDEN)
def test_schedules(schedule, warmup, ratio, max_steps, golden):
    """Guards against a schedule off by a step, that jumps after the warm-up, or that rises again past its end."""
    config = OptimConfig(lr=0.008, schedule=schedule, warmup_steps=warmup, min_lr_ratio=ratio)
    for step, expected in golden.items():
        assert learning_rate(step, config, max_steps) == pytest.approx(expected, abs=1e-15), step


def run(model, optimizer, steps):
    for step in steps:
        generator = torch.Generator().manual_seed(step)
        for parameter in model.parameters():
            parameter.grad = torch.randn(parameter.shape, generator=generator)
        optimizer.step(0.01 / step, GOOD)


@pytest.mark.parametrize("name", ["adamw", "muon"])
def test_saved_state_continues_bit_equal(make_model, tmp_path, name):
    """Guards against state left out of a checkpoint (moments, step counts): a resumed run would part from the run that
    was not stopped (contract 2). The state goes through a file."""
    config = OptimConfig(name=name, weight_decay=0.1)
    model = make_model(positions="learned")
    optimizer = Optimizer(model, config)
    assert optimizer.tensors() == {}
    run(model, optimizer, range(1, 4))
    save_tensors(tmp_path / "state", optimizer.tensors(), {})
    other = make_model(positions="learned")
    other.load_state_dict(model.state_dict())
    resumed = Optimizer(other, config)
    resumed.load_tensors(load_tensors(tmp_path / "state")[0])
    run(model, optimizer, range(4, 7))
    run(other, resumed, range(4, 7))
    for (parameter_name, one), two in zip(model.named_parameters(), other.parameters(), strict=True):
        assert torch.equal(one, two), parameter_name
    one, two = optimizer.tensors(), resumed.tensors()
    assert one.keys() == two.keys()
    assert all(torch.equal(one[key], two[key]) for key in one)


@pytest.mark.parametrize("name", ["adamw", "muon"])
def test_loaded_state_keeps_its_place(make_model, name):
    """Guards against a rollback after which a CUDA graph updates state that nobody reads any more."""
    model = make_model()
    optimizer = Optimizer(model, OptimConfig(name=name))
    run(model, optimizer, [1])
    places = [tensor for part in optimizer._parts for state in part.state.values() for tensor in state.values()]
    earlier = {key: 2 * tensor for key, tensor in optimizer.tensors().items()}
    optimizer.load_tensors(earlier)
    state = [tensor for part in optimizer._parts for state in part.state.values() for tensor in state.values()]
    assert all(one is other for one, other in zip(state, places, strict=True))
    assert all(torch.equal(tensor, earlier[key]) for key, tensor in optimizer.tensors().items())


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
@pytest.mark.parametrize("name", ["adamw", "muon"])
def test_a_graph_updates_like_the_cpu(make_model, name):
    """Guards against a graph that keeps the learning rate, the gradients or the verdict of its first step, and against
    state that it loses when an earlier one is loaded."""
    model = make_model(dropout=0.0)
    other = copy.deepcopy(model).cuda()
    config = OptimConfig(name=name, weight_decay=0.1, embedding_lr_ratio=3)
    optimizer, on_cuda = Optimizer(model, config), Optimizer(other, config, in_bf16=True)
    places = [torch.zeros_like(parameter) for parameter in other.parameters()]
    earlier = None
    for step in range(1, 8):
        if step == 3:
            earlier = {key: tensor.clone() for key, tensor in optimizer.tensors().items()}
        if step == 6:
            optimizer.load_tensors(earlier)
            on_cuda.load_tensors(earlier)
        bad, lr = step == 4, 0.01 * (step % 3)
        for parameter, twin, place in zip(model.parameters(), other.parameters(), places, strict=True):
            parameter.grad = torch.randn_like(parameter) * (math.nan if bad else 1)
            twin.grad = place.copy_(parameter.grad)
        before = [parameter.clone() for parameter in model.parameters()]
        optimizer.step(lr, torch.tensor(float(bad)))
        on_cuda.step(lr, torch.tensor(float(bad), device="cuda"))
        tolerance = 1e-6 if name == "adamw" else 0.1 * lr  # Muon computes in bf16 there
        for one, two, old in zip(model.parameters(), other.parameters(), before, strict=True):
            torch.testing.assert_close(two.cpu(), one, atol=tolerance, rtol=1e-5)
            assert torch.equal(one, old) == (bad or lr == 0)
            two.data.copy_(one)
    assert len(on_cuda._graphs) == 1


@pytest.mark.parametrize("name", ["adamw", "muon"])
def test_decay_acts_on_matrices_alone(make_model, name):
    """Guards against norms and biases pulled to zero, and against matrices or embeddings that are not decayed."""
    model = make_model(positions="learned", tie_embeddings="none")
    before = {key: p.detach().clone() for key, p in model.named_parameters()}
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    Optimizer(model, OptimConfig(name=name, weight_decay=0.5)).step(0.1, GOOD)
    for key, parameter in model.named_parameters():
        kept = 1 - 0.5 * 0.1 if parameter.ndim == 2 else 1.0
        torch.testing.assert_close(parameter, before[key] * kept, msg=lambda m, key=key: f"{key}: {m}")
        assert parameter.grad is None


@pytest.mark.parametrize("name", ["adamw", "muon"])
def test_embeddings_have_their_own_learning_rate(make_model, name):
    """Guards against a ratio that also moves norms or layers, or decays embeddings more than other matrices."""
    changes = {}
    for ratio in (1.0, 4.0):
        model = make_model(tie_embeddings="none")
        before = {key: p.detach().clone() for key, p in model.named_parameters()}
        optimizer = Optimizer(model, OptimConfig(name=name, embedding_lr_ratio=ratio, weight_decay=0.5))
        run(model, optimizer, range(1, 3))
        changes[ratio] = {key: p - (1 - 0.005) * (1 - 0.0025) * before[key] for key, p in model.named_parameters()}
    for key, change in changes[1.0].items():
        embeds = key.endswith("embedding.weight") or key == "output.weight"
        if embeds:  # the first step's update decays, too
            torch.testing.assert_close(changes[4.0][key], 4 * change, atol=1e-5, rtol=1e-4)
        else:
            assert torch.equal(changes[4.0][key], change), key
    assert sum(key.endswith("embedding.weight") for key in changes[1.0]) == 2


def test_adamw_step_is_the_papers():
    """Guards against hyper-parameters in the wrong place: two steps by hand."""
    model = nn.Linear(3, 2)
    w = model.weight.detach().clone().double()
    optimizer = Optimizer(model, OptimConfig(betas=(0.8, 0.95), eps=1e-3, weight_decay=0.2))
    m, v = torch.zeros_like(w), torch.zeros_like(w)
    for step, lr in ((1, 0.1), (2, 0.05)):
        grad = torch.randn(2, 3)
        model.weight.grad, model.bias.grad = grad.clone(), torch.zeros(2)
        optimizer.step(lr, GOOD)
        m, v = 0.8 * m + 0.2 * grad, 0.95 * v + 0.05 * grad**2
        w = w * (1 - lr * 0.2) - lr * (m / (1 - 0.8**step)) / ((v / (1 - 0.95**step)).sqrt() + 1e-3)
        torch.testing.assert_close(model.weight.double(), w, atol=1e-6, rtol=1e-6)


RECURRENT = {"architecture": "recurrent", "cell": "lstm", "attention": "general"}


def parts_of(key: str, rows: int, config: ModelConfig | RecurrentConfig | ConvolutionalConfig) -> list[int]:
    """Rows of each matrix in a weight: of one head or gate, or of the whole."""
    if isinstance(config, ConvolutionalConfig):
        return [config.d_model] * (rows // config.d_model)
    if isinstance(config, RecurrentConfig):
        state = config.d_model // (2 if config.bidirectional and "encoder" in key else 1)
        return [state] * (rows // state) if ".cell." in key else [rows]
    width = config.d_model // config.num_heads
    if re.search(r"\.(qkv|q|kv)\.weight$", key):
        return [width] * (rows // width)
    return [config.d_ff] * 2 if key.endswith("inner.weight") and config.activation == "swiglu" else [rows]


@pytest.mark.parametrize(
    "shape", [{}, {"activation": "swiglu"}, {"num_kv_heads": 2}, RECURRENT, {"architecture": "convolutional"}]
)
def test_muon_updates_every_matrix_by_itself(make_model, shape):
    """Guards against embeddings given to Muon, or matrices left to AdamW; and against heads, or queries, keys and
    values, made orthogonal as one matrix, so that the largest gradient among them decides the others' updates. State is
    saved as one tensor for each parameter."""
    model = make_model(d_model=16, **shape)
    before = {key: p.detach().clone() for key, p in model.named_parameters()}
    optimizer = Optimizer(model, OptimConfig(name="muon"))
    generator = torch.Generator().manual_seed(1)
    for parameter in model.parameters():
        grad = torch.randn(parameter.shape, generator=generator)
        parameter.grad = grad * torch.logspace(0, 3, len(grad)).reshape(-1, *[1] * (grad.ndim - 1))
    optimizer.step(0.01, GOOD)
    for key, parameter in model.named_parameters():
        buffer = optimizer.tensors().get(f"{key}:momentum_buffer")
        is_table = "embedding" in key or "positions" in key
        assert (buffer is not None) == (parameter.ndim == 2 and not is_table), key
        if buffer is not None:
            assert buffer.shape == parameter.shape
            updates = (parameter.detach() - before[key]).split(parts_of(key, len(parameter), model.config))
            for update in updates:
                spectrum = torch.linalg.svdvals(update)
                assert spectrum.max() < 2 * spectrum.median(), key
                assert float(update.square().mean().sqrt()) == pytest.approx(0.2 * 0.01, rel=0.3), key  # as AdamW's


@pytest.mark.parametrize(("in_bf16", "tolerance"), [(False, 1e-3), (True, 4e-4)])
def test_muon_is_that_of_its_authors(in_bf16, tolerance):
    """Our matrices of one shape are computed together: the same as one by one, which torch does in bf16."""
    torch.manual_seed(3)
    shapes = ((12, 6), (4, 9), (12, 6))
    ours, theirs = ([nn.Parameter(torch.empty(shape)) for shape in shapes] for _ in range(2))
    for one, other in zip(ours, theirs, strict=True):
        nn.init.normal_(one)
        other.data.copy_(one.data)
    muon = Muon(ours, 0.02, 0.1, in_bf16=in_bf16)
    reference = torch.optim.Muon(theirs, 0.02, 0.1, adjust_lr_fn="match_rms_adamw")
    for step in range(4):
        for one, other in zip(ours, theirs, strict=True):
            one.grad = torch.randn_like(one)
            other.grad = one.grad.clone()
        muon.found_inf = GOOD
        muon.step()
        reference.step()
        before = [one.detach().clone() for one in ours]
        for one in ours:
            one.grad = torch.full_like(one, math.nan)
        muon.found_inf = torch.ones(())
        muon.step()  # skipped
        for one, other, unchanged in zip(ours, theirs, before, strict=True):
            torch.testing.assert_close(one, other, atol=tolerance, rtol=0)
            assert torch.equal(one, unchanged), step


@pytest.mark.parametrize("in_bf16", [False, True])
def test_muon_computes_in_bf16_only_if_it_is_told_to(in_bf16, make_model):
    """Guards against rounding where it gains nothing, and fp32 where it takes several times as long."""
    model, gradients = make_model(d_model=16), torch.Generator().manual_seed(1)
    optimizer = Optimizer(model, OptimConfig(name="muon"), in_bf16=in_bf16)
    before = [p.detach().clone() for p in model.parameters()]
    for parameter in model.parameters():
        parameter.grad = torch.randn(parameter.shape, generator=gradients)
    rounded, original = [], Tensor.bfloat16
    with mock.patch.object(Tensor, "bfloat16", lambda self: rounded.append(self) or original(self)):
        optimizer.step(0.01, GOOD)
    assert bool(rounded) is in_bf16
    assert not any(torch.equal(p, old) for p, old in zip(model.parameters(), before, strict=True))
