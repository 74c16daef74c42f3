"""Losses for training: each maps the scores of a batch of groups to one number a group.

Shapes, everywhere: `scores`, `labels` and `mask` are (groups, size); `mask` is False on padding; the result is
(groups,), 0 where a group holds no valid pair of a loss over pairs. Padding never reaches a loss's value or its
gradient: `mask` marks it, not a value that a score or label might have.

>>> scores = torch.tensor([[2.0, 1.0, 0.0]], requires_grad=True)  # one query with three candidates
>>> labels = torch.tensor([[1.0, 0.0, 0.0]])
>>> mask = torch.ones(1, 3, dtype=torch.bool)
>>> LOSSES["lce"](scores, labels, mask)
tensor([0.4076], grad_fn=<DivBackward0>)

In the formulas s are scores, y labels, i and j documents of one group of n. recipes/loss_specs.py says what the labels
of a stage are; the trainer takes the mean over the groups of a step, or over their pairs.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits, logsigmoid, softplus

from cerank.recipes import loss_specs
from cerank.registry import Registry

Loss = Callable[[Tensor, Tensor, Tensor], Tensor]

LOSSES: Registry[Loss] = Registry("loss function")  # name in a recipe -> loss, without those of extensions

LAMBDA_MU = 10.0  # weight of NDCG-Loss2 beside LambdaRank's, as in Wang et al., section 5


def find_loss(name: str, where: str = "") -> Loss:
    """Return the loss of that name, built in or of an extension.

    Raises:
        UsageError: no loss has this name.
    """
    return loss_specs.LOSSES.find(name, where).function or LOSSES[name]


@LOSSES.add("lce")
def lce(scores: Tensor, labels: Tensor, mask: Tensor) -> Tensor:
    """Compute localized contrastive estimation: -log softmax of a positive against the group's negatives.

    labels: above 0 is a positive, 0 a negative. Several positives are each compared with the negatives alone,
    so that positives never push each other down, and the group's loss is their mean.
    A group without a positive or without a negative gives 0.
    Source: Gao, Dai and Callan, ECIR 2021 (arXiv 2101.08751), equation 4.
    """
    positive = (labels > 0) & mask
    negative = (labels <= 0) & mask
    valid = positive & negative.any(dim=1, keepdim=True)
    # a row without negatives is filled with 0, not -inf: the gradient of a logsumexp of -inf alone is NaN
    empty = torch.where(negative.any(dim=1, keepdim=True), float("-inf"), 0.0)
    against = torch.where(negative, scores, empty).logsumexp(dim=1, keepdim=True)
    margin = (against - scores).masked_fill(~valid, 0.0)  # softplus of it is -log softmax of the positive
    return _mean(softplus(margin), valid)


@LOSSES.add("ranknet")
def ranknet(scores: Tensor, labels: Tensor, mask: Tensor) -> Tensor:
    """Compute RankNet: the mean over the group's pairs with y_i > y_j of log(1 + exp(s_j - s_i)).

    labels: any numbers, larger is better; equal labels make no pair. A group without a pair gives 0.
    The mean is taken within each group, so that long lists do not outweigh short ones.
    Source: Burges et al., ICML 2005; as a distillation loss: Sun et al., EMNLP 2023 (arXiv 2304.09542).
    """
    better = _better(labels, mask)
    return _mean(_logistic(scores, better).flatten(1), better.flatten(1))


@LOSSES.add("weighted-ranknet")
def weighted_ranknet(scores: Tensor, labels: Tensor, mask: Tensor) -> Tensor:
    """Compute RankNet whose pairs weigh 1 / (r_i + r_j), r the ranks by the model's own scores, 1 the best.

    The mean is over the number of pairs, not their weights, as in the code of Pezzuti et al. (ECIR 2025), whose class
    of this name ranks by the student. Equal scores are ranked in the group's order; no gradient runs through ranks.
    labels: as for `ranknet`. A group without a pair gives 0; padding ranks last and has no weight.
    """
    return _rank_weighted(scores, labels, mask, _ranks(scores.detach(), mask))


@LOSSES.add("weighted-ranknet-teacher")
def weighted_ranknet_teacher(scores: Tensor, labels: Tensor, mask: Tensor) -> Tensor:
    """Compute RankNet whose pairs weigh 1 / (r_i + r_j), r the ranks by the teacher, 1 the best.

    labels: `size - rank + 1` in the teacher's order; equal ones would share the better rank. A group without a pair
    gives 0. Ranks are counted within each group, also where several are scored together; padding counts in none.
    Source: Gangi Reddy et al., FIRST, EMNLP 2024 (arXiv 2406.15657), equation 4, as a mean over pairs.
    """
    return _rank_weighted(scores, labels, mask, 1 + _better(labels, mask).sum(dim=1))


@LOSSES.add("listnet")
def listnet(scores: Tensor, labels: Tensor, mask: Tensor) -> Tensor:
    """Compute ListNet, top one: the cross-entropy -sum_i softmax(y)_i log softmax(s)_i.

    labels: grades or teacher ranks, larger is better. Its smallest value is the entropy of softmax(y), not 0.
    Padding has probability 0 in both.
    Source: Cao et al., ICML 2007.
    """
    target = labels.masked_fill(~mask, float("-inf")).softmax(dim=1)
    return -(target * _log_softmax(scores, mask)).sum(dim=1)


@LOSSES.add("kl")
def kl(scores: Tensor, labels: Tensor, mask: Tensor) -> Tensor:
    """Compute the softmax KL divergence: sum_i softmax(y)_i (log softmax(y)_i - log softmax(s)_i); 0 where both agree.

    labels: a teacher's scores; their scale decides how sharp its distribution is. Padding has probability 0 in both.
    Source: Hinton, Vinyals and Dean 2015 (arXiv 1503.02531), at temperature 1.
    """
    target = _log_softmax(labels, mask)
    return (target.exp() * (target - _log_softmax(scores, mask))).masked_fill(~mask, 0.0).sum(dim=1)


@LOSSES.add("lambdaloss")
def lambdaloss(scores: Tensor, labels: Tensor, mask: Tensor) -> Tensor:
    """Compute LambdaLoss with NDCG-Loss2++: the mean over pairs with y_i > y_j of -w_ij log2 sigmoid(s_i - s_j).

    w_ij = |G_i - G_j| (mu |1/D(d) - 1/D(d + 1)| + |1/D(r_i) - 1/D(r_j)|), with r the ranks by the model's own scores,
    d = |r_i - r_j|, D(r) = log2(1 + r), G_i = (2^y_i - 1) / ideal DCG, mu = 10. Weights carry no gradient.
    labels: grades or teacher ranks, 0 or more. A group without a pair gives 0; padding ranks last, with no weight.
    Source: Wang et al., CIKM 2018, equations 14 to 16; a mean over pairs, as sentence-transformers has it.
    """
    better = _better(labels, mask)
    rank = _ranks(scores.detach(), mask).to(scores.dtype)
    weights = _gain_differences(labels, mask) * (
        LAMBDA_MU * _discount_of_distance(rank) + _differences(1.0 / torch.log2(1.0 + rank)).abs()
    )
    ahead = _differences(scores.masked_fill(~mask, 0.0))
    return _mean(-(weights * logsigmoid(ahead) / math.log(2)).flatten(1), better.flatten(1))


@LOSSES.add("adr-mse")
def adr_mse(scores: Tensor, labels: Tensor, mask: Tensor) -> Tensor:
    """Compute ADR-MSE: the mean over documents of (r_i - a_i)^2 / log2(r_i + 1).

    a_i = 1 + sum_{j != i} sigmoid(s_j - s_i) approximates the rank of document i by the model's scores.

    r are the ranks by label, 1 the best; equal labels share their mean rank, which equal scores attain.
    labels: teacher ranks or grades, larger is better. Padding counts in neither rank.
    Source: Schlatt et al., Rank-DistiLLM, ECIR 2025 (arXiv 2405.07920), section 3.
    """
    both = mask.unsqueeze(2) & mask.unsqueeze(1)
    behind = -_differences(labels)  # [g, i, j] = y_j - y_i
    above = ((behind > 0) & both).sum(dim=2)
    same = ((behind == 0) & both).sum(dim=2)  # the document itself counts
    rank = (above + (same + 1) / 2).to(scores.dtype)
    others = both & ~torch.eye(scores.shape[1], dtype=torch.bool, device=scores.device)
    passed = torch.sigmoid(-_differences(scores.masked_fill(~mask, 0.0)))
    approximate = 1.0 + passed.masked_fill(~others, 0.0).sum(dim=2)
    return _mean((rank - approximate).pow(2) / torch.log2(rank.clamp(min=1.0) + 1.0), mask)


@LOSSES.add("margin-mse")
def margin_mse(scores: Tensor, labels: Tensor, mask: Tensor) -> Tensor:
    """Compute MarginMSE: the mean over the group's pairs with y_i > y_j of ((s_i - s_j) - (y_i - y_j))^2.

    labels: a teacher's scores, on the scale the model is to take. A group of two is the triple of the source; in a
    larger one each pair of its documents counts. A group without a pair gives 0.
    Source: Hofstätter et al. 2020 (arXiv 2010.02666), equation 4.
    """
    better = _better(labels, mask)
    ahead = _differences(scores.masked_fill(~mask, 0.0)) - _differences(labels.masked_fill(~mask, 0.0))
    return _mean(ahead.pow(2).flatten(1), better.flatten(1))


@LOSSES.add("mse")
def mse(scores: Tensor, labels: Tensor, mask: Tensor) -> Tensor:
    """Compute the mean squared error: the mean over documents of (s_i - y_i)^2; each document by itself.

    labels: a teacher's scores, on the scale the model is to take. Padding does not count in the mean.
    Source: Hinton, Vinyals and Dean 2015 (arXiv 1503.02531), section 2.1: matching logits.
    """
    return _mean((scores - labels).masked_fill(~mask, 0.0).pow(2), mask)


@LOSSES.add("bce")
def bce(scores: Tensor, labels: Tensor, mask: Tensor) -> Tensor:
    """Compute binary cross-entropy: -log sigmoid(s_i) for positives, -log(1 - sigmoid(s_i)) for others, averaged.

    labels: above 0 is a positive. Each document by itself; padding does not count in the mean.
    Source: Nogueira and Cho 2019 (arXiv 1901.04085), equation 1.
    """
    logits = scores.masked_fill(~mask, 0.0)
    return _mean(binary_cross_entropy_with_logits(logits, (labels > 0).to(logits.dtype), reduction="none"), mask)


def _mean(values: Tensor, valid: Tensor) -> Tensor:
    """Return the mean of each row's valid values (groups,); 0 for a row without any."""
    return values.masked_fill(~valid, 0.0).sum(dim=1) / valid.sum(dim=1).clamp(min=1)


def _differences(values: Tensor) -> Tensor:
    """Return (groups, size, size) with [g, i, j] = values[g, i] - values[g, j]."""
    return values.unsqueeze(2) - values.unsqueeze(1)


def _better(labels: Tensor, mask: Tensor) -> Tensor:
    """Return (groups, size, size): whether i and j are documents and y_i > y_j."""
    return (labels.unsqueeze(2) > labels.unsqueeze(1)) & mask.unsqueeze(2) & mask.unsqueeze(1)


def _logistic(scores: Tensor, better: Tensor) -> Tensor:
    """Return (groups, size, size): log(1 + exp(s_j - s_i)) where i is the better one, log 2 elsewhere."""
    behind = scores.unsqueeze(1) - scores.unsqueeze(2)  # [g, i, j] = s_j - s_i
    return softplus(behind.masked_fill(~better, 0.0))


def _ranks(values: Tensor, mask: Tensor) -> Tensor:
    """Return (groups, size): the rank of each value in its row, 1 the largest; equal ones in order, padding last."""
    order = values.masked_fill(~mask, float("-inf")).argsort(dim=1, descending=True, stable=True)
    return order.argsort(dim=1, stable=True) + 1


def _rank_weighted(scores: Tensor, labels: Tensor, mask: Tensor, rank: Tensor) -> Tensor:
    better = _better(labels, mask)
    weights = 1.0 / (rank.unsqueeze(2) + rank.unsqueeze(1)).to(scores.dtype)
    return _mean((_logistic(scores, better) * weights).flatten(1), better.flatten(1))


def _log_softmax(values: Tensor, mask: Tensor) -> Tensor:
    """Return the log of each row's softmax over its documents; 0 on padding."""
    return values.masked_fill(~mask, float("-inf")).log_softmax(dim=1).masked_fill(~mask, 0.0)


def _discount_of_distance(rank: Tensor) -> Tensor:
    """Return (groups, size, size): |1/D(d) - 1/D(d + 1)| for ranks d apart, 0 on the diagonal."""
    distance = _differences(rank).abs()
    near = 1.0 / torch.log2(1.0 + distance.clamp(min=1.0))
    return (near - 1.0 / torch.log2(2.0 + distance)).masked_fill(distance == 0, 0.0)


def _gain_differences(labels: Tensor, mask: Tensor) -> Tensor:
    """Return (groups, size, size): |G_i - G_j|, gains as fractions of the row's ideal DCG.

    All is divided by 2^max(y), so that a list of 200 teacher ranks stays within float32.
    """
    grades = labels.masked_fill(~mask, 0.0).clamp(min=0.0)
    top = grades.amax(dim=1, keepdim=True)
    gains = torch.exp2(grades - top) - torch.exp2(-top)
    places = torch.arange(1, labels.shape[1] + 1, device=labels.device, dtype=labels.dtype)
    ideal = (gains.sort(dim=1, descending=True).values / torch.log2(1.0 + places)).sum(dim=1, keepdim=True)
    return _differences(gains / ideal.clamp(min=1e-10)).abs()
