"""A stage with several losses: what its groups hold, what is trained, and that it resumes to the same bits."""

from __future__ import annotations

import math

import msgspec
import pytest
import torch

from cerank.core.groups import Group
from cerank.core.rankings import Ranking
from cerank.errors import RunFailedError
from cerank.models.cross_encoder import load, load_tokenizer
from cerank.recipes.schema import Stage
from cerank.recipes.sections.loss_parts import LossPart
from cerank.tokenization.tokens import PairTokenizer, TokenLimits
from cerank.training.batches import TrainingData
from cerank.training.gradient_cosines import cosines_of
from cerank.training.objective import Objective
from cerank.training.sampling.joint_sampler import JointSampler
from cerank.training.sampling.sampler import TrainingPool
from cerank.training.trainer import PausedError, Trainer
from tests.refusals import refused
from tests.training.test_trainer import DOCUMENTS, QRELS, QUERIES, RANKING, STAGE, Recorder, same_weights

LCE, RANKNET = LossPart(name="lce"), LossPart(name="ranknet", teacher="t.run", weight=0.5)
JOINT = msgspec.structs.replace(STAGE, steps=4, validate_every=0, losses=(LCE, RANKNET))
TAUGHT = Ranking(
    {query: sorted(DOCUMENTS, reverse=True) for query in QUERIES},
    {query: [float(20 - place) for place in range(20)] for query in QUERIES},
)


def pool(ranking=RANKING, qrels=QRELS):
    return TrainingPool(query_ids=list(QUERIES), qrels=qrels, ranking=ranking, has_text=DOCUMENTS.__contains__)


def trained(files, folder, stage=JOINT, callback=None):
    callback = callback or Recorder()
    model = load(files, "auto", 5)
    tokens = PairTokenizer(load_tokenizer(files.folder), TokenLimits.of_stage(stage))
    sampler = JointSampler("s", stage, 5, pool(), {"t.run": TAUGHT})
    texts = (lambda keys: [QUERIES[key] for key in keys]), (lambda keys: [DOCUMENTS[key] for key in keys])
    data = TrainingData(sampler, tokens, *texts)
    Trainer(0, "s", stage, seed=5, folder=folder, device="cpu").train(model, data, callback)
    return model, callback


# groups


def test_each_loss_has_its_own_targets_for_the_same_candidates():
    (group, *_) = JointSampler("s", JOINT, 5, pool(), {"t.run": TAUGHT}).groups(1)
    labels, ranks = group.targets
    assert labels == (1.0, 0.0, 0.0, 0.0)
    best_first = sorted(group.doc_ids, reverse=True)  # the teacher's order
    assert [group.doc_ids[ranks.index(rank)] for rank in (4.0, 3.0, 2.0, 1.0)] == best_first


def test_a_candidate_that_the_teacher_did_not_rank_has_no_target_for_its_loss_alone():
    without = Ranking(
        {query: [doc for doc in TAUGHT[query] if doc not in QRELS[query]] for query in QUERIES},
        {query: [float(19 - place) for place in range(19)] for query in QUERIES},
    )
    sampler = JointSampler("s", JOINT, 5, pool(), {"t.run": without})
    labels, ranks = sampler.groups(1)[0].targets
    assert labels == (1.0, 0.0, 0.0, 0.0)
    assert ranks[0] is None
    assert sorted(ranks[1:]) == [1.0, 2.0, 3.0]
    assert sampler.describe_unknown()


def test_the_loss_of_a_group_leaves_out_candidates_without_a_target():
    objective = Objective(JOINT)
    scores = torch.tensor([[2.0, 1.0, -1.0]])
    partly = Group("q", ("a", "b", "c"), (1.0, 0.0, 0.0), ((1.0, 0.0, 0.0), (None, 2.0, 1.0)))
    (lce, ranknet), mask = objective.group_losses(scores, [partly])
    assert mask.all()
    assert float(lce) == pytest.approx(math.log(1 + math.exp(-1) + math.exp(-3)), abs=1e-6)
    assert float(ranknet) == pytest.approx(math.log1p(math.exp(-2)), abs=1e-6)


def test_a_group_without_two_targets_does_not_count_in_the_mean_of_that_loss():
    objective = Objective(JOINT)
    known = Group("q", ("a", "b"), (1.0, 0.0), ((1.0, 0.0), (1.0, 2.0)))
    unknown = Group("r", ("a", "b"), (1.0, 0.0), ((1.0, 0.0), (None, 1.0)))
    lce, ranknet = objective.group_weights([known, unknown], torch.device("cpu"))
    assert lce.tolist() == [0.5, 0.5]
    assert ranknet.tolist() == [1.0, 0.0]
    values = objective.mean_over([known, unknown], [[0.0, 1.0], [5.0, -5.0]])
    assert values[1] == pytest.approx(math.log1p(math.exp(-1)), abs=1e-6)


def test_a_loss_on_scores_refuses_a_teacher_whose_scores_are_ranks():
    stage = msgspec.structs.replace(JOINT, losses=(LCE, LossPart(name="kl", teacher="t.run")))
    with refused(RunFailedError, "teacher-without-scores"):
        JointSampler("s", stage, 5, pool(), {"t.run": TAUGHT})


# training


def test_the_weighted_sum_is_trained_and_each_loss_is_recorded(tiny, tmp_path):
    _, callback = trained(tiny, tmp_path)
    for row in callback.readings:
        assert set(row.parts) == {"lce", "ranknet"}
        assert row.loss == pytest.approx(row.parts["lce"] + 0.5 * row.parts["ranknet"], rel=1e-12)
        assert row.cosines == {}


def test_one_loss_in_a_list_trains_to_the_same_bits_as_the_stage_that_names_it(tiny, tmp_path):
    listed = msgspec.structs.replace(JOINT, losses=(LossPart(name="ranknet", teacher="t.run"),))
    plain = msgspec.structs.replace(JOINT, losses=(), loss="ranknet", source="teacher", teacher="t.run")
    one, first = trained(tiny, tmp_path / "1", listed)
    two, second = trained(tiny, tmp_path / "2", plain)
    assert [row.loss for row in first.readings] == [row.loss for row in second.readings]
    assert same_weights(one, two)


def test_a_joint_stage_that_was_stopped_resumes_to_the_same_bits(tiny, tmp_path):
    whole, expected = trained(tiny, tmp_path / "whole")
    with pytest.raises(PausedError):
        trained(tiny, tmp_path / "cut", callback=Recorder(stop_after=2))
    model, rest = trained(tiny, tmp_path / "cut")
    assert same_weights(whole, model)
    assert rest.readings == expected.readings[2:]


def test_microbatches_change_the_losses_by_rounding_alone(tiny, tmp_path):
    calm = msgspec.structs.replace(JOINT, dropout=0.0)
    _, whole = trained(tiny, tmp_path / "1", calm)
    _, cut = trained(tiny, tmp_path / "2", msgspec.structs.replace(calm, microbatch=8))
    for left, right in zip(whole.readings[:2], cut.readings[:2], strict=True):
        assert left.parts == pytest.approx(right.parts, abs=1e-4)


def test_cosines_are_read_every_few_steps_and_change_no_bit(tiny, tmp_path):
    plain, expected = trained(tiny, tmp_path / "1")
    read, callback = trained(tiny, tmp_path / "2", msgspec.structs.replace(JOINT, gradient_cosine_every=2))
    assert [bool(row.cosines) for row in callback.readings] == [False, True, False, True]
    assert all(-1.0 <= row.cosines["lce, ranknet"] <= 1.0 for row in callback.readings if row.cosines)
    assert [row.parts for row in callback.readings] == [row.parts for row in expected.readings]
    assert same_weights(plain, read)


def test_the_cosine_of_gradients_is_that_of_all_weights_together():
    one = [torch.tensor([3.0, 0.0]), torch.tensor([[4.0]]), None]
    other = [torch.tensor([0.0, 2.0]), torch.tensor([[1.0]]), torch.tensor([2.0])]
    nothing = [torch.zeros(2), None, None]
    cosines = cosines_of(["a", "b", "c"], [one, other, nothing])
    assert cosines == {"a, b": pytest.approx(4 / (5 * 3)), "a, c": 0.0, "b, c": 0.0}


def test_a_stage_of_one_loss_is_its_own_only_source():
    stage = Stage(steps=1)
    assert stage.by_source() == (stage,)
    labels, taught = JOINT.by_source()
    assert (labels.source, labels.loss, labels.losses) == ("labels", "lce", ())
    assert (taught.source, taught.loss, taught.teacher) == ("teacher", "ranknet", "t.run")
