"""The losses a stage may ask for; each maps the scores of a batch of groups to one number a group.

Shapes, everywhere: `scores`, `labels` and `mask` are (groups, size); `mask` is False on padding; the result is
(groups,), 0 where a group holds no valid pair. Padding never reaches a loss's value or its gradient.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn.functional import softplus

from cerank.registry import Registry

Loss = Callable[[Tensor, Tensor, Tensor], Tensor]

LOSSES: Registry[Loss] = Registry("loss")


@LOSSES.add("lce")
def lce(scores: Tensor, labels: Tensor, mask: Tensor) -> Tensor:
    """Localized contrastive estimation: -log softmax of a positive against the group's negatives.

    labels: above 0 is a positive, 0 a negative. With several positives each is held against the negatives alone,
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
    """RankNet: the mean over the group's pairs with y_i > y_j of log(1 + exp(s_j - s_i)).

    labels: any numbers, larger is better; equal labels make no pair. A group without a pair gives 0.
    The mean is taken within each group, so that long lists do not outweigh short ones.
    Source: Burges et al., ICML 2005; as a distillation loss: Sun et al., EMNLP 2023 (arXiv 2304.09542).
    """
    better = (labels.unsqueeze(2) > labels.unsqueeze(1)) & mask.unsqueeze(2) & mask.unsqueeze(1)
    behind = scores.unsqueeze(1) - scores.unsqueeze(2)  # [g, i, j] = s_j - s_i
    return _mean(softplus(behind.masked_fill(~better, 0.0)).flatten(1), better.flatten(1))


def _mean(values: Tensor, valid: Tensor) -> Tensor:
    """The mean of each row's valid values, 0 for a row without any."""
    return values.masked_fill(~valid, 0.0).sum(dim=1) / valid.sum(dim=1).clamp(min=1)
