"""Aggregate the scores of passages within a loss: the gradient goes back through the maximum, the mean or the sum."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from cerank.core.passage_scores import Aggregation
from cerank.kernels.packing import to_device


def pool_passages(scores: Tensor, counts: Sequence[int], aggregation: Aggregation, top: int) -> Tensor:
    """Return the scores (documents,) of documents; what `core.passage_scores.aggregate` computes, with a gradient.

    Where several passages are the best with exactly the same score, "MaxP" divides the gradient among them.

    Args:
        scores: (passages,) of all documents, end to end.
        counts: how many passages each document has, at least one.
        aggregation: how the scores of a document's passages become its own.
        top: how many of them "TopMeanP" takes at most.
    """
    padded = pad_sequence(list(torch.split(scores, list(counts))), batch_first=True, padding_value=-math.inf)
    sizes = to_device(list(counts), torch.int64, scores.device)
    is_there = torch.arange(padded.shape[1], device=scores.device).unsqueeze(0) < sizes.unsqueeze(1)
    if aggregation == "MaxP":
        return padded.amax(dim=1)
    if aggregation == "FirstP":
        return padded[:, 0]
    if aggregation == "SumP":
        return padded.sigmoid().masked_fill(~is_there, 0.0).sum(dim=1)
    if aggregation == "TopMeanP":
        padded = padded.topk(min(top, padded.shape[1]), dim=1).values  # in descending order: what is absent comes last
        sizes = sizes.clamp(max=padded.shape[1])
        is_there = is_there[:, : padded.shape[1]]
    return padded.masked_fill(~is_there, 0.0).sum(dim=1) / sizes
