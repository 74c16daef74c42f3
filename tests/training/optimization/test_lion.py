"""Lion: its values are those of the paper's algorithm and of the package that is used elsewhere."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from cerank.training.optimization.lion import Lion

SHAPES = ((7, 5), (5,), (1,))
RATE, DECAY, BETAS = 3e-3, 0.1, (0.9, 0.99)


def start():
    """The same weights every time, and 100 steps of gradients for them, some of them zeros."""
    random = np.random.default_rng(3)
    weights = [random.normal(size=shape) for shape in SHAPES]
    gradients = [
        [random.normal(size=shape) * (random.random(size=shape) > 0.1) for shape in SHAPES] for _ in range(100)
    ]
    return weights, gradients


def stepped(optimizer_of):
    """The weights after each of the 100 steps of an optimizer of torch."""
    weights, gradients = start()
    parameters = [torch.nn.Parameter(torch.tensor(weight)) for weight in weights]
    optimizer = optimizer_of(parameters)
    for of_step in gradients:
        for parameter, gradient in zip(parameters, of_step, strict=True):
            parameter.grad = torch.tensor(gradient)
        optimizer.step()
        yield [parameter.detach().numpy().copy() for parameter in parameters]


def ours(parameters):
    return Lion(parameters, lr=RATE, betas=BETAS, weight_decay=DECAY)


def test_a_hundred_steps_are_those_of_algorithm_2_of_the_paper():
    weights, gradients = start()
    averages = [np.zeros(shape) for shape in SHAPES]
    for of_step, got in zip(gradients, stepped(ours), strict=True):
        for at, gradient in enumerate(of_step):
            direction = np.sign(BETAS[0] * averages[at] + (1 - BETAS[0]) * gradient)
            weights[at] = weights[at] - RATE * (direction + DECAY * weights[at])
            averages[at] = BETAS[1] * averages[at] + (1 - BETAS[1]) * gradient
            assert got[at] == pytest.approx(weights[at], rel=1e-6, abs=1e-9)


def test_a_hundred_steps_are_those_of_the_package_that_others_use():
    package = pytest.importorskip("lion_pytorch")
    theirs = stepped(lambda parameters: package.Lion(parameters, lr=RATE, betas=BETAS, weight_decay=DECAY))
    for one, other in zip(stepped(ours), theirs, strict=True):
        for left, right in zip(one, other, strict=True):
            assert left == pytest.approx(right, rel=1e-6, abs=1e-9)


def test_a_weight_without_a_gradient_stays_and_has_no_state():
    used, unused = torch.nn.Parameter(torch.ones(2)), torch.nn.Parameter(torch.ones(2))
    used.grad = torch.tensor([1.0, -1.0])
    optimizer = Lion([used, unused], lr=0.5)
    optimizer.step()
    assert used.tolist() == [0.5, 1.5]
    assert unused.tolist() == [1.0, 1.0]
    assert unused not in optimizer.state


def test_a_step_that_finds_no_memory_has_changed_no_weight(monkeypatch):
    parameters = [torch.nn.Parameter(torch.ones(2)), torch.nn.Parameter(torch.ones(3))]
    groups = [{"params": [parameter]} for parameter in parameters]
    optimizer = Lion(groups, lr=0.5, weight_decay=0.1)
    for parameter in parameters:
        parameter.grad = torch.ones_like(parameter)
    made, real = [], torch.zeros_like

    def short(value):
        made.append(value)
        if len(made) == 2:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return real(value)

    monkeypatch.setattr(torch, "zeros_like", short)
    with pytest.raises(torch.OutOfMemoryError):
        optimizer.step()
    assert [parameter.tolist() for parameter in parameters] == [[1.0, 1.0], [1.0, 1.0, 1.0]]
