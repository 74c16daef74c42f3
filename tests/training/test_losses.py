"""Each loss: by hand, by gradcheck, by what must not change it."""

from __future__ import annotations

import math

import pytest
import torch

from cerank.errors import UsageError
from cerank.training.losses import LOSSES, lce, ranknet
from tests.refusals import refused


def rows(*values):
    return torch.tensor(values, dtype=torch.float64)


def test_lce_of_one_positive_and_two_negatives_is_the_softmax_by_hand():
    scores, labels = rows([1.0, 0.0, -1.0]), rows([1.0, 0.0, 0.0])
    expected = -math.log(math.e / (math.e + 1 + 1 / math.e))
    assert lce(scores, labels, torch.ones(1, 3, dtype=torch.bool)).item() == pytest.approx(expected, abs=1e-12)


def test_lce_equals_cross_entropy_where_there_is_one_positive():
    torch.manual_seed(0)
    scores = torch.randn(5, 8, dtype=torch.float64)
    labels = torch.zeros(5, 8, dtype=torch.float64)
    labels[:, 0] = 3.0
    expected = torch.nn.functional.cross_entropy(scores, torch.zeros(5, dtype=torch.long), reduction="none")
    torch.testing.assert_close(lce(scores, labels, torch.ones(5, 8, dtype=torch.bool)), expected)


def test_lce_holds_each_positive_against_the_negatives_alone():
    scores, labels = rows([2.0, -5.0, 0.0]), rows([1.0, 2.0, 0.0])
    expected = (math.log1p(math.exp(-2.0)) + math.log1p(math.exp(5.0))) / 2
    assert lce(scores, labels, torch.ones(1, 3, dtype=torch.bool)).item() == pytest.approx(expected, abs=1e-12)


def test_ranknet_of_three_documents_is_the_mean_over_their_three_pairs_by_hand():
    scores, labels = rows([0.5, 1.0, -0.5]), rows([3.0, 2.0, 1.0])
    pairs = [math.log1p(math.exp(1.0 - 0.5)), math.log1p(math.exp(-0.5 - 0.5)), math.log1p(math.exp(-0.5 - 1.0))]
    assert ranknet(scores, labels, torch.ones(1, 3, dtype=torch.bool)).item() == pytest.approx(
        sum(pairs) / 3, abs=1e-12
    )


def test_ranknet_makes_no_pair_of_equal_labels():
    scores, labels = rows([0.3, 9.0, 0.1]), rows([1.0, 1.0, 0.0])
    expected = (math.log1p(math.exp(0.1 - 0.3)) + math.log1p(math.exp(0.1 - 9.0))) / 2
    assert ranknet(scores, labels, torch.ones(1, 3, dtype=torch.bool)).item() == pytest.approx(expected, abs=1e-12)


POINTWISE = {
    "mse",
    "bce",
    "soft-bce",
    "gbce",
    "ordinal",
}  # a document by itself: a constant added to all scores is not the same any more
OVER_LISTS = {
    "listnet",
    "kl",
    "adr-mse",
    "listmle",
    "p-listmle",
}  # equal labels say something there: that equal scores are right

BY_ORDER = {"listmle", "p-listmle"}  # documents of equal labels count in the order they stand in, as peers have it


def data():
    torch.manual_seed(1)
    scores = torch.randn(3, 5, dtype=torch.float64, requires_grad=True)
    labels = rows([4, 3, 2, 1, 0], [1, 0, 0, 0, 0], [2, 2, 0, 0, 1])
    mask = torch.tensor([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0], [1, 1, 1, 1, 0]], dtype=torch.bool)
    return scores, labels, mask


@pytest.mark.parametrize("name", sorted(LOSSES))
class TestEveryLoss:
    def test_its_gradient_is_that_of_finite_differences(self, name):
        scores, labels, mask = data()
        assert torch.autograd.gradcheck(lambda s: LOSSES[name](s, labels, mask), (scores,))

    def test_padding_changes_neither_value_nor_gradient(self, name):
        scores, labels, mask = data()
        value = LOSSES[name](scores, labels, mask)
        value.sum().backward()
        assert torch.all(scores.grad[~mask] == 0)
        wild = scores.detach().masked_fill(~mask, 1e30)
        torch.testing.assert_close(LOSSES[name](wild, labels.masked_fill(~mask, 99), mask), value.detach())

    def test_a_group_costs_the_same_alone_and_beside_longer_ones(self, name):
        scores, labels, mask = data()
        together = LOSSES[name](scores, labels, mask)
        for at, row in enumerate(mask):
            size = int(row.sum())
            alone = LOSSES[name](scores[at : at + 1, :size], labels[at : at + 1, :size], mask[at : at + 1, :size])
            torch.testing.assert_close(alone[0], together[at])

    def test_the_order_of_candidates_does_not_matter(self, name):
        scores, labels, mask = data()
        if name in BY_ORDER:
            labels = rows([4, 3, 2, 1, 0], [1, 5, 0, 0, 0], [2, 3, 0, 1, 0])
        order = torch.tensor([3, 0, 4, 2, 1])
        moved = LOSSES[name](scores[:, order], labels[:, order], mask[:, order])
        torch.testing.assert_close(moved, LOSSES[name](scores, labels, mask))

    def test_adding_a_constant_to_a_groups_scores_does_not_matter_but_for_documents_by_themselves(self, name):
        scores, labels, mask = data()
        is_same = torch.allclose(LOSSES[name](scores + 7.0, labels, mask), LOSSES[name](scores, labels, mask))
        assert is_same == (name not in POINTWISE)

    def test_a_group_without_a_pair_gives_0_and_a_finite_gradient(self, name):
        scores = torch.randn(2, 3, dtype=torch.float64, requires_grad=True)
        labels = rows([0, 0, 0], [1, 0, 0])
        mask = torch.tensor([[1, 1, 1], [1, 0, 0]], dtype=torch.bool)
        value = LOSSES[name](scores, labels, mask)
        value.sum().backward()
        assert torch.all(scores.grad.isfinite())
        if name not in POINTWISE | OVER_LISTS:
            assert value.tolist() == [0.0, 0.0]
            assert torch.all(scores.grad == 0)

    def test_putting_the_better_document_first_costs_less(self, name):
        labels, mask = rows([1, 0]), torch.ones(1, 2, dtype=torch.bool)
        assert LOSSES[name](rows([2, -2]), labels, mask) < LOSSES[name](rows([-2, 2]), labels, mask)

    def test_it_is_finite_on_a_hundred_documents_in_float32_however_far_apart_their_scores(self, name):
        scores = torch.linspace(-90, 90, 100).flip(0).unsqueeze(0).requires_grad_()
        labels = torch.arange(1.0, 101.0).unsqueeze(0)
        value = LOSSES[name](scores, labels, torch.ones(1, 100, dtype=torch.bool))
        value.sum().backward()
        assert value.isfinite().all()
        assert scores.grad.isfinite().all()

    def test_its_docstring_names_its_labels_and_its_source(self, name):
        text = LOSSES[name].__doc__
        assert "labels:" in text
        assert "et al." in text or "Source:" in text


def test_an_unknown_loss_is_refused_with_the_nearest_name():
    with refused(UsageError, "not-registered", "ranknet"):
        LOSSES.find("rank-net")


def test_a_list_of_which_the_teacher_ranked_nothing_gives_a_listnet_of_0_and_no_gradient():
    scores = torch.tensor([[0.5, -1.0], [2.0, 1.0]], requires_grad=True)
    labels, mask = torch.tensor([[2.0, 1.0], [0.0, 0.0]]), torch.tensor([[True, True], [False, False]])
    losses = LOSSES.find("listnet")(scores, labels, mask)
    assert losses.detach()[1] == 0.0
    assert losses.detach()[0] == LOSSES.find("listnet")(scores.detach()[:1], labels[:1], mask[:1])[0]
    losses.sum().backward()
    assert scores.grad is not None
    assert scores.grad[0].abs().sum() > 0
    assert scores.grad[1].tolist() == [0.0, 0.0]
