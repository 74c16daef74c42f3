"""Each loss against an implementation that is not ours: sentence-transformers', or its formula in plain loops."""

from __future__ import annotations

import math
from types import SimpleNamespace

import pytest
import torch

from cerank.training.losses import LOSSES

SIZES = (5, 3, 4)


def made(kind):
    """Scores, labels and mask of three groups of unequal size."""
    torch.manual_seed(3)
    scores = torch.randn(3, 5)
    mask = torch.zeros(3, 5, dtype=torch.bool)
    labels = torch.zeros(3, 5)
    for row, size in enumerate(SIZES):
        mask[row, :size] = True
        if kind == "ranks":
            labels[row, :size] = torch.randperm(size).float() + 1
        elif kind == "grades":
            labels[row, :size] = torch.tensor([3.0, 0.0, 1.0, 0.0, 1.0][:size])
        elif kind == "positives":
            labels[row, 0] = 1.0
        else:
            labels[row, :size] = 5 * torch.randn(size)
    return scores, labels, mask


def stub():
    """A cross-encoder of sentence-transformers that gives the scores which are its texts."""
    from sentence_transformers.cross_encoder import CrossEncoder

    class Given(CrossEncoder):
        num_labels = 1
        device = torch.device("cpu")

        def __init__(self):
            torch.nn.Module.__init__(self)

        def preprocess(self, pairs, **_):
            return {"given": torch.tensor([float(document) for _, document in pairs])}

        def forward(self, inputs):
            return {"scores": inputs["given"].unsqueeze(1)}

    return Given()


def theirs(name, scores, labels, **options):
    """sentence-transformers' loss of one group."""
    losses = pytest.importorskip("sentence_transformers.cross_encoder.losses")
    loss = getattr(losses, name)(stub(), **options)
    documents = [repr(float(value)) for value in scores]
    if name in {"MSELoss", "BinaryCrossEntropyLoss"}:
        return loss([["q"] * len(documents), documents], labels)
    return loss([["q"], [documents]], [labels])


@pytest.mark.parametrize(
    ("ours", "name", "kind", "options"),
    [
        ("ranknet", "RankNetLoss", "ranks", {"reduction_log": "natural"}),
        ("ranknet", "RankNetLoss", "grades", {"reduction_log": "natural"}),
        ("listnet", "ListNetLoss", "grades", {}),
        ("listnet", "ListNetLoss", "ranks", {}),
        ("lambdaloss", "LambdaLoss", "grades", {}),
        ("lambdaloss", "LambdaLoss", "ranks", {}),
        ("adr-mse", "ADRMSELoss", "ranks", {}),
        ("adr-mse", "ADRMSELoss", "grades", {}),
        ("mse", "MSELoss", "scores", {}),
        ("bce", "BinaryCrossEntropyLoss", "positives", {}),
    ],
)
def test_a_loss_equals_that_of_sentence_transformers(ours, name, kind, options):
    scores, labels, mask = made(kind)
    values = LOSSES[ours](scores, labels, mask)
    for row, size in enumerate(SIZES):
        expected = theirs(name, scores[row, :size], labels[row, :size], **options)
        assert values[row].item() == pytest.approx(expected.item(), rel=1e-4, abs=1e-6)


def test_margin_mse_of_pairs_equals_that_of_sentence_transformers():
    losses = pytest.importorskip("sentence_transformers.cross_encoder.losses")
    scores, labels = torch.tensor([[0.3, -1.2], [2.0, 0.5]]), torch.tensor([[9.0, 4.0], [3.5, 3.0]])
    loss = losses.MarginMSELoss(stub())
    columns = [[repr(float(value)) for value in scores[:, column]] for column in (0, 1)]
    expected = loss([["q", "q"], *columns], labels[:, 0] - labels[:, 1])
    values = LOSSES["margin-mse"](scores, labels, torch.ones(2, 2, dtype=torch.bool))
    assert values.mean().item() == pytest.approx(expected.item(), rel=1e-5)


def test_kl_equals_torchs_own_divergence():
    scores, labels, mask = made("scores")
    values = LOSSES["kl"](scores, labels, mask)
    for row, size in enumerate(SIZES):
        ours, told = scores[row, :size].log_softmax(0), labels[row, :size].softmax(0)
        expected = torch.nn.functional.kl_div(ours, told, reduction="sum")
        assert values[row].item() == pytest.approx(expected.item(), rel=1e-5)


def test_kl_and_listnet_have_the_same_gradient():
    scores, labels, mask = made("scores")
    slopes = []
    for name in ("kl", "listnet"):
        leaf = scores.clone().requires_grad_()
        LOSSES[name](leaf, labels, mask).sum().backward()
        slopes.append(leaf.grad)
    torch.testing.assert_close(slopes[0], slopes[1])


def pairs_of(labels):
    return [(i, j) for i, left in enumerate(labels) for j, right in enumerate(labels) if left > right]


def by_hand(scores, labels, weight):
    """The mean over pairs of a weighted logistic loss, in plain loops."""
    terms = [weight(i, j) * math.log1p(math.exp(scores[j] - scores[i])) for i, j in pairs_of(labels)]
    return sum(terms) / len(terms)


def ranks_of(values):
    return [1 + sum(other > value for other in values) for value in values]


@pytest.mark.parametrize(("name", "by"), [("weighted-ranknet", "scores"), ("weighted-ranknet-teacher", "labels")])
def test_weighted_ranknet_equals_its_formula_in_loops(name, by):
    scores, labels, mask = made("ranks")
    values = LOSSES[name](scores, labels, mask)
    for row, size in enumerate(SIZES):
        s, y = scores[row, :size].tolist(), labels[row, :size].tolist()
        ranks = ranks_of(s if by == "scores" else y)
        expected = by_hand(s, y, lambda i, j, r=ranks: 1 / (r[i] + r[j]))
        assert values[row].item() == pytest.approx(expected, rel=1e-5)


def test_the_two_weighted_ranknets_agree_where_the_model_ranks_as_the_teacher_and_only_there():
    labels, mask = torch.tensor([[3.0, 2.0, 1.0]]), torch.ones(1, 3, dtype=torch.bool)
    both = LOSSES["weighted-ranknet"], LOSSES["weighted-ranknet-teacher"]
    same = [loss(torch.tensor([[0.9, 0.5, 0.1]]), labels, mask).item() for loss in both]
    other = [loss(torch.tensor([[0.5, 0.1, 0.9]]), labels, mask).item() for loss in both]
    assert same[0] == pytest.approx(same[1])
    assert other[0] != pytest.approx(other[1], rel=1e-3)


def test_margin_mse_of_a_list_is_the_mean_over_its_pairs_in_loops():
    scores, labels, mask = made("scores")
    values = LOSSES["margin-mse"](scores, labels, mask)
    for row, size in enumerate(SIZES):
        s, y = scores[row, :size].tolist(), labels[row, :size].tolist()
        terms = [((s[i] - s[j]) - (y[i] - y[j])) ** 2 for i, j in pairs_of(y)]
        assert values[row].item() == pytest.approx(sum(terms) / len(terms), rel=1e-5)


def pooled(scores, labels):
    """RankNet as the paper's code has it: the mean over the valid pairs of all queries of the batch."""
    terms = [math.log1p(math.exp(s[j] - s[i])) for s, y in zip(scores, labels, strict=True) for i, j in pairs_of(y)]
    return sum(terms) / len(terms)


def test_pooled_ranknet_of_a_step_is_the_mean_over_all_its_pairs(tiny, tmp_path):
    """The trainer's mean over pairs, cut into parts by its microbatch, is that over the whole step."""
    from cerank.core.groups import Group
    from cerank.inference.rerank import Scorer
    from cerank.models.cross_encoder import load, load_tokenizer
    from cerank.recipes.schema import Stage
    from cerank.tokenization.tokens import PairTokenizer, TokenLimits
    from cerank.training.batches import TrainingData
    from cerank.training.trainer import Trainer
    from tests.model_fixtures import WORDS

    model, tokenizer = load(tiny, "mean", 0), load_tokenizer(tiny.folder)
    groups = [
        Group("0", ("1", "2", "3", "4", "5"), (5.0, 4.0, 3.0, 2.0, 1.0)),
        Group("6", ("7", "8"), (1.0, 0.0)),
        Group("9", ("10", "11", "12"), (1.0, 0.0, 0.0)),
    ]
    scorer = Scorer(model, PairTokenizer(tokenizer, TokenLimits(16, 8)))
    scores = [scorer.score([(WORDS[int(g.query_id)], WORDS[int(doc)]) for doc in g.doc_ids]) for g in groups]
    expected = pooled(scores, [g.labels for g in groups])
    per_query = sum(pooled([s], [g.labels]) for s, g in zip(scores, groups, strict=True)) / 3
    assert abs(expected - per_query) > 1e-4
    for mean_over, wanted in (("pairs", expected), ("queries", per_query)):
        for microbatch in (8, 8192):
            stage = Stage(steps=1, loss="ranknet", mean_over=mean_over, dropout=0.0, microbatch=microbatch)
            trainer = Trainer(0, "s", stage, seed=1, folder=tmp_path, device="cpu")
            texts = lambda ids: [WORDS[int(key)] for key in ids]  # noqa: E731 - a text by its id
            data = TrainingData(SimpleNamespace(), PairTokenizer(tokenizer, TokenLimits(16, 8)), texts, texts)
            model.eval()
            passes = trainer.passes(model, data.tokens)
            loss = sum(map(float, trainer.forward_backward(passes, data.encode(groups), 1)))
            assert loss == pytest.approx(wanted, rel=1e-4)
