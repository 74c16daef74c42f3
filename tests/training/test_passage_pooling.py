"""Training on passages: which one is read, the aggregation within the loss, and the same bits after a stop."""

from __future__ import annotations

import msgspec
import pytest
import torch

from cerank.core.groups import Group
from cerank.core.passage_scores import AGGREGATIONS, aggregate
from cerank.models.cross_encoder import load, load_tokenizer
from cerank.recipes.sections.passage_specs import PassageSpec
from cerank.tokenization.passage_windows import PassageWindows, WindowsInUse
from cerank.tokenization.tokens import PairTokenizer, TokenLimits
from cerank.training.batches import TrainingData, encode_passages
from cerank.training.passage_pooling import pool_passages
from cerank.training.sampling.sampler import Sampler, TrainingPool
from cerank.training.trainer import PausedError, Trainer
from tests.model_fixtures import WORDS
from tests.training.test_trainer import QRELS, QUERIES, RANKING, STAGE, Recorder, same_weights

COUNTS = [1, 4, 2, 3]
LONG = {f"d{i}": " ".join(WORDS[(i * 7 + j * j) % 20] for j in range(3 + 9 * (i % 5))) for i in range(20)}
WINDOWS = PassageWindows(max_passages=4, length=8, stride=6)
SPEC = PassageSpec(aggregation="MaxP", max_passages=4, length=8, stride=6, train_on="all")


@pytest.mark.parametrize("aggregation", AGGREGATIONS)
def test_pooled_scores_and_their_gradient_are_those_of_each_document_alone(aggregation):
    scores = torch.randn(sum(COUNTS), dtype=torch.float64, requires_grad=True)
    parts = [part.tolist() for part in torch.split(scores.detach(), COUNTS)]
    pooled = pool_passages(scores, COUNTS, aggregation, 2)
    assert pooled.tolist() == pytest.approx([aggregate(aggregation, part, 2) for part in parts], abs=1e-12)
    assert torch.autograd.gradcheck(lambda values: pool_passages(values, COUNTS, aggregation, 2), scores)


def test_the_maximum_sends_the_gradient_to_the_best_passage_alone():
    scores = torch.tensor([0.0, 2.0, 1.0, 5.0], requires_grad=True)
    pool_passages(scores, [3, 1], "MaxP", 1).sum().backward()
    assert scores.grad.tolist() == [0.0, 1.0, 0.0, 1.0]


@pytest.fixture
def tokens(tiny):
    made = PairTokenizer(load_tokenizer(tiny.folder), TokenLimits(24, 8))
    made.use_windows(WindowsInUse(WINDOWS))
    made.add("query", ["q"], lambda _: ["rho"])
    texts = {"d": " ".join([*["alpha"] * 8, *["beta"] * 7, "rho", *["alpha"] * 3]), "e": "mu nu"}
    made.add("document", list(texts), lambda ids: [texts[key] for key in ids])
    return made


@pytest.mark.parametrize(("train_on", "places"), [("first", [0]), ("best", [2]), ("all", [0, 1, 2])])
def test_a_document_is_read_by_its_first_its_best_or_all_of_its_passages(tokens, train_on, places):
    encoded = encode_passages(tokens, Group("q", ("d", "e"), (1.0, 0.0)), train_on)
    all_passages = tokens.passages("q", "d")
    assert len(all_passages) == 3
    assert list(encoded.pairs) == [*(all_passages[place] for place in places), *tokens.passages("q", "e")]
    assert encoded.counts == ((3, 1) if train_on == "all" else ())


def model_and_data(files, stage):
    model = load(files, "auto", 5)
    pool = TrainingPool(query_ids=list(QUERIES), qrels=QRELS, ranking=RANKING, has_text=LONG.__contains__)
    tokens = PairTokenizer(load_tokenizer(files.folder), TokenLimits.of_stage(stage))
    tokens.use_windows(WindowsInUse(WINDOWS))
    texts = (lambda keys: [QUERIES[key] for key in keys]), (lambda keys: [LONG[key] for key in keys])
    return model, TrainingData(Sampler("s", stage, 5, pool), tokens, *texts, SPEC.train_on)


def trained(files, folder, stage, callback=None):
    callback = callback or Recorder()
    model, data = model_and_data(files, stage)
    trainer = Trainer(0, "s", stage, seed=5, folder=folder, device="cpu", passages=SPEC)
    trainer.train(model, data, callback)
    return model, callback


def test_a_stage_on_all_passages_resumes_to_the_same_bits(tiny, tmp_path):
    stage = msgspec.structs.replace(STAGE, steps=4, validate_every=2)
    whole, expected = trained(tiny, tmp_path / "whole", stage)
    with pytest.raises(PausedError):
        trained(tiny, tmp_path / "cut", stage, callback=Recorder(stop_after=3))
    model, rest = trained(tiny, tmp_path / "cut", stage)
    assert same_weights(whole, model)
    assert rest.readings == expected.readings[3:]
    assert min(row.pairs for row in expected.readings) > stage.group_size * stage.groups_per_step


def test_a_group_that_goes_through_in_parts_has_the_gradient_of_the_whole(tiny, tmp_path):
    """Passages of one document may lie in different parts, of which the maximum is taken afterwards."""
    stage = msgspec.structs.replace(STAGE, steps=1, dropout=0.0)
    gradients = []
    for microbatch in (40, 8192):
        model, data = model_and_data(tiny, stage)
        model.eval()  # without dropout, which each part samples anew
        trainer = Trainer(0, "s", stage, seed=5, folder=tmp_path, device="cpu", passages=SPEC)
        passes = trainer.passes(model, data.tokens, microbatch)
        trainer.forward_backward(passes, data.encode(data.sampler.groups(1)), 1)
        gradients.append([weight.grad.clone() for weight in passes.model.trained_weights if weight.grad is not None])
    assert len(gradients[0]) > 10
    assert all(torch.allclose(part, whole, atol=1e-6) for part, whole in zip(*gradients, strict=True))
