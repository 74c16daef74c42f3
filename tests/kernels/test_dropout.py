"""Dropout drops at its rate, keeps the mean, and is drawn from torch's generator."""

from __future__ import annotations

import pytest
import torch

from cerank.kernels.dropout import FastDropout, apply_dropout, dropout_seed, replace_dropout


@pytest.mark.parametrize("rate", [0.001, 0.1, 0.5, 0.9])
@pytest.mark.parametrize("kind", [torch.float32, torch.bfloat16])
def test_values_fall_at_the_rate_and_the_others_keep_the_mean(rate, kind):
    torch.manual_seed(1)
    found = apply_dropout(torch.full((1003, 301), 2.0, dtype=kind), rate)
    assert found.dtype is kind
    share = float((found == 0).double().mean())
    assert abs(share - rate) < 5 * (rate * (1 - rate) / found.numel()) ** 0.5 + 2**-16
    rest = found[found != 0].double()
    assert torch.allclose(
        rest, torch.tensor(2 / (1 - rate), dtype=torch.float64), rtol=1e-2 if kind is torch.bfloat16 else 1e-3
    )


def test_neighbors_fall_independently():
    torch.manual_seed(2)
    gone = (apply_dropout(torch.ones(400_000), 0.3) == 0).double()
    for apart in (1, 2, 3, 4, 8):
        together = float((gone[:-apart] * gone[apart:]).mean())
        assert abs(together - 0.09) < 0.003


@pytest.mark.parametrize("shape", [(0,), (1,), (3, 5)])
def test_a_seed_gives_the_same_and_any_shape_is_taken(shape):
    drawn = []
    for _ in range(2):
        torch.manual_seed(3)
        drawn.append(apply_dropout(torch.ones(shape), 0.5))
    assert torch.equal(*drawn)
    assert drawn[0].shape == shape


def test_all_or_nothing_falls_at_the_ends():
    assert torch.equal(apply_dropout(torch.ones(9), 0.0), torch.ones(9))
    assert torch.equal(apply_dropout(torch.ones(9), 1.0), torch.zeros(9))


def test_the_gradient_is_that_of_what_was_kept():
    values = torch.ones(50, requires_grad=True)
    found = apply_dropout(values, 0.4)
    found.sum().backward()
    assert torch.equal(values.grad, found.detach())


def test_a_thread_may_draw_from_a_generator_of_its_own_and_leaves_torchs_alone():
    torch.manual_seed(4)
    expected = apply_dropout(torch.ones(99), 0.5)
    torch.manual_seed(4)
    with dropout_seed(5):
        own = apply_dropout(torch.ones(99), 0.5)
    assert torch.equal(apply_dropout(torch.ones(99), 0.5), expected)
    with dropout_seed(5):
        assert torch.equal(apply_dropout(torch.ones(99), 0.5), own)
    assert not torch.equal(own, expected)


def test_a_models_own_dropouts_draw_alike_and_do_nothing_out_of_training():
    model = torch.nn.Sequential(torch.nn.Linear(3, 3), torch.nn.Sequential(torch.nn.Dropout(0.5)))
    replace_dropout(model)
    values = torch.ones(99)
    (drops,) = (module for module in model.modules() if isinstance(module, FastDropout))
    with dropout_seed(6):
        found = drops(values)
    with dropout_seed(6):
        assert torch.equal(found, apply_dropout(values, 0.5))
    model.eval()
    assert drops(values) is values
