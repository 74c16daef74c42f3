"""Each loss on 200 random lists with ties and padding, value and gradient: against sentence-transformers or its paper.

Where sentence-transformers has no such loss, the reference is written from the paper in plain loops over Python floats,
list by list, and its gradient is that of central differences.
"""

from __future__ import annotations

import functools
import math
import random

import pytest
import torch

from cerank.recipes.sections.loss_parts import LossPart
from cerank.training.losses import loss_of

LISTS, LONGEST = 200, 7


def random_lists(kind):
    """Scores, labels and mask of lists of 2 to 7 documents; labels tie often, scores now and then."""
    generator = random.Random(11)
    scores = torch.zeros(LISTS, LONGEST, dtype=torch.float64)
    labels, mask = torch.zeros_like(scores), torch.zeros(LISTS, LONGEST, dtype=torch.bool)
    for row in range(LISTS):
        size = generator.randint(2, LONGEST)
        mask[row, :size] = True
        values = [generator.gauss(0, 2) for _ in range(size)]
        if kind != "apart" and generator.random() < 0.2:
            values[-1] = values[0]
        scores[row, :size] = torch.tensor(values, dtype=torch.float64)
        given = {
            "positives": [float(generator.random() < 0.4) for _ in range(size)],
            "grades": [float(generator.choice([0, 0, 1, 2, 3])) for _ in range(size)],
            "apart": [float(generator.choice([0, 0, 1, 2, 3])) for _ in range(size)],
            "scores": [round(generator.gauss(0, 2), 1) for _ in range(size)],
        }[kind]
        labels[row, :size] = torch.tensor(given, dtype=torch.float64)
    return scores, labels, mask


def ours(name, kind, options):
    scores, labels, mask = random_lists(kind)
    scores.requires_grad_()
    values = loss_of(LossPart(name=name, **options))(scores, labels, mask)
    (gradient,) = torch.autograd.grad(values.sum(), scores)
    return values.detach(), gradient


def rows(kind):
    scores, labels, mask = random_lists(kind)
    for row in range(LISTS):
        size = int(mask[row].sum())
        yield row, scores[row, :size].tolist(), labels[row, :size].tolist()


# references


def pairs(labels):
    return [(i, j) for i in range(len(labels)) for j in range(len(labels)) if labels[i] > labels[j]]


def mean(values):
    values = list(values)
    return math.fsum(values) / len(values) if values else 0.0


def softmax(values, temperature=1.0):
    powers = [math.exp(value / temperature) for value in values]
    return [power / math.fsum(powers) for power in powers]


def log1p_exp(value):
    return max(value, 0.0) + math.log1p(math.exp(-abs(value)))


def sigmoid(value):
    return 1.0 / (1.0 + math.exp(-value))


def reference_infonce(s, y, temperature=1.0):
    shares = softmax(s, temperature)
    return mean(-math.log(share) for share, label in zip(shares, y, strict=True) if label > 0)


def reference_lce(s, y, temperature):
    negatives = [score for score, label in zip(s, y, strict=True) if label <= 0]
    if not negatives:
        return 0.0
    return mean(
        -math.log(softmax([score, *negatives], temperature)[0]) for score, label in zip(s, y, strict=True) if label > 0
    )


def reference_hinge(s, y, margin=1.0):
    return mean(max(0.0, margin - s[i] + s[j]) for i, j in pairs(y))


def reference_constant(s, y, margin=1.0):
    return mean((s[i] - s[j] - margin) ** 2 for i, j in pairs(y))


def reference_ranknet(s, y, temperature):
    return mean(-math.log(softmax([s[i], s[j]], temperature)[0]) for i, j in pairs(y))


def reference_listnet(s, y, temperature):
    return -math.fsum(p * math.log(q) for p, q in zip(softmax(y), softmax(s, temperature), strict=True))


def reference_kl(s, y, temperature):
    both = zip(softmax(y, temperature), softmax(s, temperature), strict=True)
    return math.fsum(p * math.log(p / q) for p, q in both)


def smooth_ranks(s, temperature):
    return [1 + math.fsum(sigmoid((s[j] - s[i]) / temperature) for j in range(len(s)) if j != i) for i in range(len(s))]


def reference_approx_ndcg(s, y, temperature=1.0):
    ideal = math.fsum((2**label - 1) / math.log2(2 + at) for at, label in enumerate(sorted(y, reverse=True)))
    found = math.fsum((2 ** y[i] - 1) / math.log2(1 + rank) for i, rank in enumerate(smooth_ranks(s, temperature)))
    return 1 - found / ideal if ideal else 0.0


def reference_approx_mrr(s, y, temperature=1.0):
    first = min((rank for rank, label in zip(smooth_ranks(s, temperature), y, strict=True) if label > 0), default=0.0)
    return 1 - 1 / first if first else 0.0


def reference_pearson(s, y):
    a, b = mean(s), mean(y)
    up = math.fsum((p - a) * (q - b) for p, q in zip(s, y, strict=True))
    down = math.sqrt(math.fsum((p - a) ** 2 for p in s)) * math.sqrt(math.fsum((q - b) ** 2 for q in y))
    return 1 - up / down if down else 0.0


def reference_bce(s, y, weight):
    return mean(
        weight * log1p_exp(-score) if label > 0 else log1p_exp(score) for score, label in zip(s, y, strict=True)
    )


def reference_gbce(s, y, rate=0.1, t=0.75):
    beta = rate * (t * (1 - 1 / rate) + 1 / rate)  # as the paper writes it
    return mean(
        -math.log(sigmoid(score) ** beta) if label > 0 else -math.log(1 - sigmoid(score))
        for score, label in zip(s, y, strict=True)
    )


def reference_soft_bce(s, y):
    return mean(
        -sigmoid(label) * math.log(sigmoid(score)) - (1 - sigmoid(label)) * math.log(1 - sigmoid(score))
        for score, label in zip(s, y, strict=True)
    )


def reference_ordinal(s, y, levels=4, spacing=2.0):
    def one(score, grade):
        return mean(
            -math.log(sigmoid(score - (k - levels / 2) * spacing) if grade >= k else 1 - sigmoid(
                score - (k - levels / 2) * spacing)) for k in range(1, levels)
        )  # fmt: skip

    return mean(one(score, label) for score, label in zip(s, y, strict=True))


@pytest.mark.parametrize(
    ("name", "kind", "options", "reference"),
    [
        ("infonce", "positives", {}, reference_infonce),
        ("infonce", "positives", {"temperature": 0.5}, functools.partial(reference_infonce, temperature=0.5)),
        ("lce", "positives", {"temperature": 2.0}, functools.partial(reference_lce, temperature=2.0)),
        ("hinge", "grades", {}, reference_hinge),
        ("hinge", "grades", {"margin": 0.3}, functools.partial(reference_hinge, margin=0.3)),
        ("constant-margin-mse", "grades", {"margin": 2.0}, functools.partial(reference_constant, margin=2.0)),
        ("ranknet", "grades", {"temperature": 0.7}, functools.partial(reference_ranknet, temperature=0.7)),
        ("listnet", "grades", {"temperature": 3.0}, functools.partial(reference_listnet, temperature=3.0)),
        ("kl", "scores", {"temperature": 2.0}, functools.partial(reference_kl, temperature=2.0)),
        ("approx-ndcg", "grades", {}, reference_approx_ndcg),
        ("approx-ndcg", "grades", {"temperature": 0.5}, functools.partial(reference_approx_ndcg, temperature=0.5)),
        ("approx-mrr", "positives", {"temperature": 2.0}, functools.partial(reference_approx_mrr, temperature=2.0)),
        ("pearson", "scores", {}, reference_pearson),
        ("bce", "positives", {"positive_weight": 7.0}, functools.partial(reference_bce, weight=7.0)),
        ("gbce", "positives", {}, reference_gbce),
        ("gbce", "positives", {"sampling_rate": 0.02, "calibration": 0.9},
         functools.partial(reference_gbce, rate=0.02, t=0.9)),
        ("soft-bce", "scores", {}, reference_soft_bce),
        ("ordinal", "grades", {}, reference_ordinal),
        ("ordinal", "grades", {"levels": 3, "spacing": 1.0},
         functools.partial(reference_ordinal, levels=3, spacing=1.0)),
    ],
)  # fmt: skip
def test_a_loss_equals_its_formula_in_value_and_gradient_on_random_lists(name, kind, options, reference):
    values, gradient = ours(name, kind, options)
    step = 1e-5
    for row, scores, labels in rows(kind):
        assert float(values[row]) == pytest.approx(reference(scores, labels), abs=1e-6)
        if row >= 40 or is_at_a_corner(name, scores, labels, options):
            continue  # central differences of forty lists are enough, and a corner has none
        for at in range(len(scores)):
            up = [score + step * (place == at) for place, score in enumerate(scores)]
            down = [score - step * (place == at) for place, score in enumerate(scores)]
            slope = (reference(up, labels) - reference(down, labels)) / (2 * step)
            assert float(gradient[row, at]) == pytest.approx(slope, abs=1e-6)
    assert torch.all(gradient[~random_lists(kind)[2]] == 0)


def is_at_a_corner(name, scores, labels, options):
    """Return whether the loss has a kink within a step of these scores."""
    if name == "hinge":
        return any(abs(options.get("margin", 1.0) - scores[i] + scores[j]) < 1e-4 for i, j in pairs(labels))
    if name == "approx-mrr":  # which of two positives comes first
        first = sorted(score for score, label in zip(scores, labels, strict=True) if label > 0)[-2:]
        return len(first) == 2 and first[1] - first[0] < 1e-4
    return name == "pearson" and (len(set(scores)) == 1 or len(set(labels)) == 1)


# sentence-transformers


def stand_in(scores):
    """Return a cross-encoder of sentence-transformers that gives these scores, whatever its texts."""
    cross_encoder = pytest.importorskip("sentence_transformers.cross_encoder")

    class Given(cross_encoder.CrossEncoder):
        num_labels = 1
        device = torch.device("cpu")

        def __init__(self):
            torch.nn.Module.__init__(self)

        def preprocess(self, pairs, **_):
            return {"pairs": pairs}

        def forward(self, inputs):
            return {"scores": scores}

    return Given()


def theirs(name, scores, labels, **options):
    """Return value and gradient of their loss of one list, in float32 as theirs is."""
    losses = pytest.importorskip("sentence_transformers.cross_encoder.losses")
    given = torch.tensor(scores, dtype=torch.float32, requires_grad=True)
    loss = getattr(losses, name)(stand_in(given), mini_batch_size=-1, **options)
    value = loss([["a query"], [["a document"] * len(scores)]], [torch.tensor(labels)])
    if not value.requires_grad or value.grad_fn is None:  # theirs for a list without a pair
        return float(value), [0.0] * len(scores)
    (gradient,) = torch.autograd.grad(value, given, allow_unused=True)
    return float(value.detach()), [0.0] * len(scores) if gradient is None else gradient.tolist()


SCHEMES = {
    "ndcg-loss2++": "NDCGLoss2PPScheme",
    "ndcg-loss2": "NDCGLoss2Scheme",
    "lambdarank": "LambdaRankScheme",
    "ndcg-loss1": "NDCGLoss1Scheme",
    "none": "NoWeightingScheme",
}


@pytest.mark.parametrize("cutoff", [None, 3])
@pytest.mark.parametrize("scheme", sorted(SCHEMES))
def test_each_scheme_of_lambdaloss_equals_that_of_sentence_transformers(scheme, cutoff):
    peers = pytest.importorskip("sentence_transformers.cross_encoder.losses.lambda_loss")
    options = {"scheme": scheme, "sigma": 1.5} | ({"cutoff": cutoff} if cutoff else {})
    values, gradient = ours("lambdaloss", "apart", options)
    weighting = getattr(peers, SCHEMES[scheme])()
    for row, scores, labels in rows("apart"):
        value, slopes = theirs("LambdaLoss", scores, labels, weighting_scheme=weighting, k=cutoff, sigma=1.5)
        assert float(values[row]) == pytest.approx(value, abs=1e-6 * max(1.0, abs(value)))
        size = max(1.0, *map(abs, slopes))
        assert gradient[row, : len(scores)].tolist() == pytest.approx(slopes, abs=1e-6 * size)


@pytest.mark.parametrize(("name", "peer"), [("listmle", "ListMLELoss"), ("p-listmle", "PListMLELoss")])
def test_listmle_equals_that_of_sentence_transformers_given_the_order_of_labels(name, peer):
    """Theirs sorts equal labels as it happens; so it is given the lists in the order that ours takes."""
    losses = pytest.importorskip("sentence_transformers.cross_encoder.losses")
    weight = {"lambda_weight": losses.PListMLELambdaWeight()} if name == "p-listmle" else {}
    values, gradient = ours(name, "grades", {})
    for row, scores, labels in rows("grades"):
        order = sorted(range(len(labels)), key=lambda at, labels=labels: -labels[at])
        value, slopes = theirs(
            peer, [scores[at] for at in order], [labels[at] for at in order], respect_input_order=True, **weight
        )
        assert float(values[row]) == pytest.approx(value, abs=1e-6 * max(1.0, abs(value)))
        assert gradient[row, order].tolist() == pytest.approx(slopes, abs=1e-6)
