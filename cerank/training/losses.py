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
from functools import partial

import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits, logsigmoid, softplus

from cerank.recipes import loss_specs
from cerank.recipes.sections.loss_parts import LambdaScheme, LossPart
from cerank.registry import Registry

Loss = Callable[..., Tensor]  # (scores, labels, mask), then options by name

LOSSES: Registry[Loss] = Registry("loss function")  # name in a recipe -> loss, without those of extensions

LAMBDA_MU = 10.0  # weight of NDCG-Loss2 beside LambdaRank's, as in Wang et al., section 5


def find_loss(name: str, where: str = "") -> Loss:
    """Return the loss of that name, built in or of an extension.

    Raises:
        UsageError: no loss has this name.
    """
    return loss_specs.LOSSES.find(name, where).function or LOSSES[name]


def loss_of(part: LossPart, where: str = "") -> Loss:
    """Return one of a stage's losses with its options; raises as `find_loss`."""
    options = part.options()
    return partial(find_loss(part.name, where), **options) if options else find_loss(part.name, where)


@LOSSES.add("lce")
def lce(scores: Tensor, labels: Tensor, mask: Tensor, *, temperature: float = 1.0) -> Tensor:
    """Compute localized contrastive estimation: -log softmax of a positive against the group's negatives.

    labels: above 0 is a positive, 0 a negative. Several positives are each compared with the negatives alone,
    so that positives never push each other down, and the group's loss is their mean.
    A group without a positive or without a negative gives 0.
    Source: Gao, Dai and Callan, ECIR 2021 (arXiv 2101.08751), equation 4.
    """
    scores = _cooled(scores, temperature)
    positive = (labels > 0) & mask
    negative = (labels <= 0) & mask
    valid = positive & negative.any(dim=1, keepdim=True)
    # a row without negatives is filled with 0, not -inf: the gradient of a logsumexp of -inf alone is NaN
    empty = torch.where(negative.any(dim=1, keepdim=True), float("-inf"), 0.0)
    against = torch.where(negative, scores, empty).logsumexp(dim=1, keepdim=True)
    margin = (against - scores).masked_fill(~valid, 0.0)  # softplus of it is -log softmax of the positive
    return _mean(softplus(margin), valid)


@LOSSES.add("ranknet")
def ranknet(scores: Tensor, labels: Tensor, mask: Tensor, *, temperature: float = 1.0) -> Tensor:
    """Compute RankNet: the mean over the group's pairs with y_i > y_j of log(1 + exp(s_j - s_i)).

    labels: any numbers, larger is better; equal labels make no pair. A group without a pair gives 0.
    The mean is taken within each group, so that long lists do not outweigh short ones.
    Source: Burges et al., ICML 2005; as a distillation loss: Sun et al., EMNLP 2023 (arXiv 2304.09542).
    """
    better = _better(labels, mask)
    return _mean(_logistic(_cooled(scores, temperature), better).flatten(1), better.flatten(1))


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
def listnet(scores: Tensor, labels: Tensor, mask: Tensor, *, temperature: float = 1.0) -> Tensor:
    """Compute ListNet, top one: the cross-entropy -sum_i softmax(y)_i log softmax(s)_i.

    labels: grades or teacher ranks, larger is better. Its smallest value is the entropy of softmax(y), not 0.
    Padding has probability 0 in both; a group of padding alone, which its teacher did not rank, gives 0.
    Source: Cao et al., ICML 2007.
    """
    target = labels.masked_fill(~mask, float("-inf")).softmax(dim=1).masked_fill(~mask, 0.0)
    return -(target * _log_softmax(_cooled(scores, temperature), mask)).sum(dim=1)


@LOSSES.add("kl")
def kl(scores: Tensor, labels: Tensor, mask: Tensor, *, temperature: float = 1.0) -> Tensor:
    """Compute the softmax KL divergence: sum_i softmax(y)_i (log softmax(y)_i - log softmax(s)_i); 0 where both agree.

    labels: a teacher's scores; their scale decides how sharp its distribution is. Padding has probability 0 in both.
    temperature divides both; there is no factor of its square, for which a loss has its weight.
    Source: Hinton, Vinyals and Dean 2015 (arXiv 1503.02531).
    """
    target = _log_softmax(_cooled(labels, temperature), mask)
    given = _log_softmax(_cooled(scores, temperature), mask)
    return (target.exp() * (target - given)).masked_fill(~mask, 0.0).sum(dim=1)


@LOSSES.add("lambdaloss")
def lambdaloss(
    scores: Tensor,
    labels: Tensor,
    mask: Tensor,
    *,
    scheme: LambdaScheme = "ndcg-loss2++",
    cutoff: int | None = None,
    sigma: float = 1.0,
    mu: float = LAMBDA_MU,
) -> Tensor:
    """Compute LambdaLoss: the mean over pairs with y_i > y_j of -w_ij log2 sigmoid(sigma (s_i - s_j)).

    With r the ranks by the model's own scores, d = |r_i - r_j|, D(r) = log2(1 + r), G_i = (2^y_i - 1) / ideal DCG:

    - "ndcg-loss2++": w_ij = |G_i - G_j| (mu |1/D(d) - 1/D(d + 1)| + |1/D(r_i) - 1/D(r_j)|)
    - "ndcg-loss2": its first summand, without mu; "lambdarank": its second one; "none": 1, which is RankNet by log2
    - "ndcg-loss1": G_i / D(r_i), over all pairs, also those of equal labels and a document with itself

    Weights carry no gradient. With a cutoff k, only pairs count of which one document at least is within the first k
    ranks, and the ideal DCG is that of k documents.
    labels: grades or teacher ranks, 0 or more. A group without a pair gives 0; padding ranks last, with no weight.
    Source: Wang et al., CIKM 2018, equations 8 to 18; a mean over pairs, as sentence-transformers has it.
    """
    counted = _better(labels, mask) if scheme != "ndcg-loss1" else mask.unsqueeze(2) & mask.unsqueeze(1)
    rank = _ranks(scores.detach(), mask).to(scores.dtype)
    if cutoff is not None:
        within = rank <= cutoff
        counted = counted & (within.unsqueeze(2) | within.unsqueeze(1))
    ahead = _differences(scores.masked_fill(~mask, 0.0))
    losses = logsigmoid(ahead if sigma == 1.0 else sigma * ahead)
    if scheme != "none":
        losses = _lambda_weights(scheme, rank, labels, mask, cutoff=cutoff, mu=mu) * losses
    return _mean(-(losses / math.log(2)).flatten(1), counted.flatten(1))


def _lambda_weights(
    scheme: LambdaScheme, rank: Tensor, labels: Tensor, mask: Tensor, *, cutoff: int | None, mu: float
) -> Tensor:
    """Return the weights (groups, size, size) of the pairs of LambdaLoss, (groups, size, 1) of NDCG-Loss1."""
    if scheme == "ndcg-loss1":
        gains, ideal = _gains(labels, mask, cutoff)
        return (gains / ideal / torch.log2(1.0 + rank)).unsqueeze(2)
    differences = _gain_differences(labels, mask, cutoff)
    if scheme == "ndcg-loss2":
        return differences * _discount_of_distance(rank)
    of_ranks = _differences(1.0 / torch.log2(1.0 + rank)).abs()
    return differences * (of_ranks if scheme == "lambdarank" else mu * _discount_of_distance(rank) + of_ranks)


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
    approximate = _approximate_ranks(scores, mask)
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
def bce(scores: Tensor, labels: Tensor, mask: Tensor, *, positive_weight: float = 1.0) -> Tensor:
    """Compute binary cross-entropy: -log sigmoid(s_i) for positives, -log(1 - sigmoid(s_i)) for others, averaged.

    labels: above 0 is a positive, whose loss counts positive_weight times. Each document by itself; padding does not
    count in the mean.
    Source: Nogueira and Cho 2019 (arXiv 1901.04085), equation 1.
    """
    logits = scores.masked_fill(~mask, 0.0)
    losses = binary_cross_entropy_with_logits(logits, (labels > 0).to(logits.dtype), reduction="none")
    return _mean(losses if positive_weight == 1.0 else torch.where(labels > 0, positive_weight * losses, losses), mask)


@LOSSES.add("soft-bce")
def soft_bce(scores: Tensor, labels: Tensor, mask: Tensor) -> Tensor:
    """Compute binary cross-entropy against a teacher: -p_i log sigmoid(s_i) - (1 - p_i) log sigmoid(-s_i).

    labels: a teacher's scores y; p = sigmoid(y), so that the loss is least where s = y. The mean over documents.
    Source: Hinton, Vinyals and Dean 2015 (arXiv 1503.02531), for two classes.
    """
    logits, target = scores.masked_fill(~mask, 0.0), labels.masked_fill(~mask, 0.0).sigmoid()
    return _mean(binary_cross_entropy_with_logits(logits, target, reduction="none"), mask)


@LOSSES.add("gbce")
def gbce(
    scores: Tensor, labels: Tensor, mask: Tensor, *, sampling_rate: float = 0.1, calibration: float = 0.75
) -> Tensor:
    """Compute generalized binary cross-entropy: that of sigmoid(s_i)^b for positives, as usual for others.

    b = 1 - t (1 - a): a (sampling_rate) is the sampled share of all negatives, t (calibration) from 0, plain, to 1.
    labels: above 0 is a positive. Each document by itself; padding does not count in the mean.
    Source: Petrov and Macdonald, gSASRec, RecSys 2023 (arXiv 2308.07192), equations 13 and 18; for cross-encoders:
    Petrov, MacAvaney and Macdonald, ECIR 2024 (arXiv 2403.20222), with t = 0.75.
    """
    return bce(scores, labels, mask, positive_weight=1.0 - calibration * (1.0 - sampling_rate))


@LOSSES.add("ordinal")
def ordinal(scores: Tensor, labels: Tensor, mask: Tensor, *, levels: int = 4, spacing: float = 2.0) -> Tensor:
    """Compute an ordinal regression loss: binary cross-entropy of y_i >= k at each threshold, k = 1 to levels - 1.

    P(y >= k) = sigmoid(s - t_k), with fixed thresholds t_k, `spacing` apart, around 0. The mean over documents of the
    mean over thresholds; a grade above the last level counts as the last.
    labels: grades, 0 or more; padding does not count in the mean.
    Source: McCullagh 1980 (proportional odds), whose thresholds are estimated; as fixed ones a model needs one output.
    """
    steps = torch.arange(1, levels, device=scores.device, dtype=scores.dtype)
    logits = scores.masked_fill(~mask, 0.0).unsqueeze(2) - (steps - levels / 2) * spacing
    reached = (labels.masked_fill(~mask, 0.0).unsqueeze(2) >= steps).to(scores.dtype)
    return _mean(binary_cross_entropy_with_logits(logits, reached, reduction="none").mean(dim=2), mask)


@LOSSES.add("infonce")
def infonce(scores: Tensor, labels: Tensor, mask: Tensor, *, temperature: float = 1.0) -> Tensor:
    """Compute InfoNCE with several positives: the mean over positives of -log softmax(s)_i over the whole group.

    labels: above 0 is a positive. Unlike `lce`, positives stand in each other's sum, as a uniform target over them has
    it. A group without a positive gives 0.
    Source: van den Oord, Li and Vinyals 2018 (arXiv 1807.03748); several positives: Khosla et al. 2020 (arXiv
    2004.11362), equation 2.
    """
    return _mean(-_log_softmax(_cooled(scores, temperature), mask), (labels > 0) & mask)


@LOSSES.add("hinge")
def hinge(scores: Tensor, labels: Tensor, mask: Tensor, *, margin: float = 1.0) -> Tensor:
    """Compute the pairwise hinge loss: the mean over pairs with y_i > y_j of max(0, margin - (s_i - s_j)).

    labels: any numbers, larger is better; equal labels make no pair. A group without a pair gives 0.
    Source: Joachims, KDD 2002 (the ranking SVM's loss, without its norm).
    """
    better = _better(labels, mask)
    ahead = _differences(scores.masked_fill(~mask, 0.0))
    return _mean((margin - ahead).clamp(min=0.0).flatten(1), better.flatten(1))


@LOSSES.add("constant-margin-mse")
def constant_margin_mse(scores: Tensor, labels: Tensor, mask: Tensor, *, margin: float = 1.0) -> Tensor:
    """Compute the mean over pairs with y_i > y_j of ((s_i - s_j) - margin)^2: a lead that is too large costs, too.

    labels: any numbers, larger is better; equal labels make no pair. A group without a pair gives 0.
    Source: MarginMSE (arXiv 2010.02666) with one margin for all, as lightning-ir has it.
    """
    better = _better(labels, mask)
    ahead = _differences(scores.masked_fill(~mask, 0.0))
    return _mean((ahead - margin).pow(2).flatten(1), better.flatten(1))


@LOSSES.add("listmle")
def listmle(scores: Tensor, labels: Tensor, mask: Tensor, *, temperature: float = 1.0) -> Tensor:
    """Compute ListMLE: -sum_k log (exp(s_k) / sum_{l >= k} exp(s_l)), documents in the order of their labels.

    labels: ranks or grades, larger is better. Equal ones keep the group's order, as if the first were better, which for
    grades, most of them 0, teaches chance.
    Source: Xia et al., ICML 2008, equation 7.
    """
    return -_place_likelihoods(_cooled(scores, temperature), labels, mask).sum(dim=1)


@LOSSES.add("p-listmle")
def p_listmle(scores: Tensor, labels: Tensor, mask: Tensor, *, temperature: float = 1.0) -> Tensor:
    """Compute p-ListMLE: ListMLE whose k-th place of n weighs 2^(n - k) - 1, as a share of all weights.

    labels: as for `listmle`. A group of one document gives 0.
    Source: Lan et al., UAI 2014, section 4; weights add up to 1, as sentence-transformers has it.
    """
    likelihoods = _place_likelihoods(_cooled(scores, temperature), labels, mask)
    size = mask.sum(dim=1, keepdim=True)
    places = torch.arange(1, mask.shape[1] + 1, device=mask.device).expand(mask.shape)
    # all divided by 2^n, so that a list of 200 stays within float32
    weights = (torch.exp2(-places.to(scores.dtype)) - torch.exp2(-size.to(scores.dtype))).masked_fill(
        places > size, 0.0
    )
    return -(likelihoods * weights / weights.sum(dim=1, keepdim=True).clamp(min=1e-10)).sum(dim=1)


@LOSSES.add("approx-ndcg")
def approx_ndcg(scores: Tensor, labels: Tensor, mask: Tensor, *, temperature: float = 1.0) -> Tensor:
    """Compute 1 - nDCG, each rank replaced by r_i = 1 + sum_{j != i} sigmoid((s_j - s_i) / temperature).

    labels: grades or teacher ranks, 0 or more; gains are 2^y - 1. A group without a gain gives 0.
    Source: Qin, Liu and Li, Information Retrieval 2010, section 3; lightning-ir's temperature is this one, too.
    """
    gains, ideal = _gains(labels, mask)
    gained = (gains / torch.log2(1.0 + _approximate_ranks(scores / temperature, mask))).sum(dim=1)
    has_gain = (gains > 0).any(dim=1)
    return (1.0 - gained / ideal.squeeze(1)).masked_fill(~has_gain, 0.0)


@LOSSES.add("approx-mrr")
def approx_mrr(scores: Tensor, labels: Tensor, mask: Tensor, *, temperature: float = 1.0) -> Tensor:
    """Compute 1 - the largest 1 / r_i of a positive, ranks approximated as in `approx_ndcg`.

    labels: above 0 is a positive. A group without one gives 0.
    Source: Qin, Liu and Li 2010, whose method it is; lightning-ir has it for this measure.
    """
    positive = (labels > 0) & mask
    reciprocal = (1.0 / _approximate_ranks(scores / temperature, mask)).masked_fill(~positive, 0.0)
    return (1.0 - reciprocal.amax(dim=1)).masked_fill(~positive.any(dim=1), 0.0)


@LOSSES.add("pearson")
def pearson(scores: Tensor, labels: Tensor, mask: Tensor) -> Tensor:
    """Compute 1 - the Pearson correlation of scores and labels: what scale the teacher has does not matter.

    labels: a teacher's scores. A group whose labels, or whose scores, are all equal has no correlation and gives 0.
    Source: lightning-ir's PearsonCorrelation.
    """
    size = mask.sum(dim=1, keepdim=True).clamp(min=1)

    def centered(values: Tensor) -> Tensor:
        values = values.masked_fill(~mask, 0.0)
        return (values - values.sum(dim=1, keepdim=True) / size).masked_fill(~mask, 0.0)

    mine, other = centered(scores), centered(labels)
    squares = mine.pow(2).sum(dim=1) * other.pow(2).sum(dim=1)
    varies = squares > 0
    # the root of 0 has no gradient; what stands in its place is left out
    return (1.0 - (mine * other).sum(dim=1) / torch.where(varies, squares, 1.0).sqrt()).masked_fill(~varies, 0.0)


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


def _gain_differences(labels: Tensor, mask: Tensor, cutoff: int | None = None) -> Tensor:
    """Return (groups, size, size): |G_i - G_j|, gains as fractions of the row's ideal DCG."""
    gains, ideal = _gains(labels, mask, cutoff)
    return _differences(gains / ideal).abs()


def _gains(labels: Tensor, mask: Tensor, cutoff: int | None = None) -> tuple[Tensor, Tensor]:
    """Return the gains 2^y - 1 (groups, size), and the ideal DCG (groups, 1) of the whole row or to a cutoff.

    All is divided by 2^max(y), so that a list of 200 teacher ranks stays within float32.
    """
    grades = labels.masked_fill(~mask, 0.0).clamp(min=0.0)
    top = grades.amax(dim=1, keepdim=True)
    gains = torch.exp2(grades - top) - torch.exp2(-top)
    places = torch.arange(1, labels.shape[1] + 1, device=labels.device, dtype=labels.dtype)
    discounted = gains.sort(dim=1, descending=True).values / torch.log2(1.0 + places)
    return gains, discounted[:, :cutoff].sum(dim=1, keepdim=True).clamp(min=1e-10)


def _approximate_ranks(scores: Tensor, mask: Tensor) -> Tensor:
    """Return (groups, size): 1 + sum_{j != i} sigmoid(s_j - s_i), a smooth stand-in for the rank of document i."""
    others = mask.unsqueeze(2) & mask.unsqueeze(1) & ~torch.eye(scores.shape[1], dtype=torch.bool, device=scores.device)
    passed = torch.sigmoid(-_differences(scores.masked_fill(~mask, 0.0)))
    return 1.0 + passed.masked_fill(~others, 0.0).sum(dim=2)


def _place_likelihoods(scores: Tensor, labels: Tensor, mask: Tensor) -> Tensor:
    """Return (groups, size): for each place of the order by label, log of its softmax among that and later ones.

    0 on padding, which stands last.
    """
    order = _ranks(labels, mask).argsort(dim=1)
    ordered = scores.masked_fill(~mask, torch.finfo(scores.dtype).min).gather(1, order)
    among = ordered.flip(1).logcumsumexp(dim=1).flip(1)
    return (ordered - among).masked_fill(~mask.gather(1, order), 0.0)


def _cooled(values: Tensor, temperature: float) -> Tensor:
    """Return the values divided by a temperature; as they are at 1, to the bit."""
    return values if temperature == 1.0 else values / temperature
