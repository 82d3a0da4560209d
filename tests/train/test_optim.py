"""Promise: schedules have the documented values, decay acts on matrices alone, and saved state continues exactly."""

import pytest
import torch
from torch import nn

from seq2seq.config import OptimConfig
from seq2seq.tensors import load_tensors, save_tensors
from seq2seq.train.optim import Optimizer, learning_rate

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


def test_muon_updates_matrices_orthogonally(make_model):
    """Guards against embeddings given to Muon, or matrices left to AdamW: an update by Muon is near orthogonal."""
    model = make_model(d_model=16)
    before = {key: p.detach().clone() for key, p in model.named_parameters()}
    optimizer = Optimizer(model, OptimConfig(name="muon"))
    run(model, optimizer, [1])
    for key, parameter in model.named_parameters():
        momentum = f"{key}:momentum_buffer" in optimizer.tensors()
        is_layer_matrix = parameter.ndim == 2 and "embedding" not in key
        assert momentum == is_layer_matrix, key
        if is_layer_matrix:
            spectrum = torch.linalg.svdvals(parameter - before[key])
            assert spectrum.max() < 2 * spectrum.median(), key
