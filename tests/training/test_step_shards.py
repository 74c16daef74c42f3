"""Shards of a step: the same bits however many processes share them, and after going on with another number."""

from __future__ import annotations

import hashlib

import msgspec
import pytest
import torch

from cerank.core.groups import Group
from cerank.core.ranks import Ranks, shard_count
from cerank.errors import RunFailedError
from cerank.models.cross_encoder import load, load_tokenizer
from cerank.recipes.sections.loss_parts import LossPart
from cerank.tokenization.tokens import Pair, PairTokenizer, TokenLimits
from cerank.training import checkpoints
from cerank.training.batches import EncodedGroup, TrainingData
from cerank.training.forward_backward import ForwardBackward
from cerank.training.sampling.sampler import Sampler, TrainingPool
from cerank.training.step_shards import deal_groups
from cerank.training.trainer import PausedError, Trainer
from tests.rank_processes import run_ranks
from tests.refusals import refused
from tests.training.test_trainer import DOCUMENTS, QRELS, QUERIES, RANKING, STAGE, Recorder

SHARED = msgspec.structs.replace(STAGE, steps=4, groups_per_step=5, in_batch=2, validate_every=2, dropout=0.1)


class SilentRecorder(Recorder):
    """A callback that also notes where memory was short, and what the processes did."""

    def __init__(self, **settings):
        super().__init__(**settings)
        self.narrowed, self.stats = [], []

    def on_out_of_memory(self, what):
        self.narrowed.append(what)

    def on_rank_stats(self, stats):
        self.stats.append(stats)


def train(files, folder, ranks, callback, stage=SHARED):
    model = load(files, "auto", 5)
    pool = TrainingPool(query_ids=list(QUERIES), qrels=QRELS, ranking=RANKING, has_text=DOCUMENTS.__contains__)
    tokens = PairTokenizer(load_tokenizer(files.folder), TokenLimits.of_stage(stage))
    sampler = Sampler("s", stage, 5, pool)
    data = TrainingData(
        sampler, tokens, lambda keys: [QUERIES[key] for key in keys], lambda keys: [DOCUMENTS[key] for key in keys]
    )
    trainer = Trainer(0, "s", stage, seed=5, folder=folder, device="cpu", shards=8, ranks=ranks)
    state = trainer.train(model, data, callback)
    weights = hashlib.sha256()
    for value in model.state_dict().values():
        weights.update(value.numpy().tobytes())
    return state, callback.readings, weights.hexdigest()


@pytest.fixture
def one_process(tiny, tmp_path):
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield train(tiny, tmp_path / "one", Ranks(), SilentRecorder())
    torch.set_num_threads(threads)


def test_two_processes_train_to_the_bits_of_one_and_save_one_checkpoint(tiny, tmp_path, one_process):
    def work(ranks):
        callback = SilentRecorder(values=[] if ranks.is_first else [9.0, 1.0, 1.0])  # the first one's values count
        return train(tiny, tmp_path / "two", ranks, callback), callback.saves, callback.stats

    (first, saves, stats), (second, saves_of_second, _) = run_ranks(2, work, tmp_path)
    assert first == second == one_process
    assert (saves, saves_of_second) == ([2, 4], [])
    for step in (2, 4):
        one, two = (tmp_path / name / checkpoints.folder_name(step) for name in ("one", "two"))
        assert {file.name: file.read_bytes() for file in one.iterdir()} == {
            file.name: file.read_bytes() for file in two.iterdir()
        }
    assert [len(of_ranks) for of_ranks in stats] == [2, 2]
    assert all(of_rank.tokens and of_rank.seconds for of_ranks in stats for of_rank in of_ranks)
    # 5 groups of about 3 pairs in 4 shards: one of the two has 3 groups
    assert all(max(of.tokens for of in of_ranks) < 0.7 * sum(of.tokens for of in of_ranks) for of_ranks in stats)


def test_gradients_are_clipped_by_the_norm_of_the_whole_step(tiny, tmp_path):
    clipped = msgspec.structs.replace(SHARED, clip=1e-3, steps=2)  # far less than any norm here

    def work(ranks):
        return train(tiny, tmp_path / "two", ranks, SilentRecorder(), clipped)

    first, second = run_ranks(2, work, tmp_path)
    assert (
        first
        == second
        == run_ranks(1, lambda ranks: train(tiny, tmp_path / "one", ranks, SilentRecorder(), clipped), tmp_path)[0]
    )
    assert all(reading.grad_norm > 1e-3 for reading in first[1])


def test_all_processes_stop_early_by_the_values_of_the_first(tiny, tmp_path):
    stage = msgspec.structs.replace(SHARED, steps=8, patience=1)

    def work(ranks):
        values = [0.0, 5.0, 1.0] if ranks.is_first else [0.0, 1.0, 2.0, 3.0, 4.0]
        state, _, weights = train(tiny, tmp_path / "two", ranks, SilentRecorder(values=values), stage)
        return state.step, state.stopped_early, state.best_step, weights

    first, second = run_ranks(2, work, tmp_path)
    assert first == second
    assert first[:3] == (4, True, 2)


@pytest.mark.slow
def test_two_processes_train_several_losses_to_the_bits_of_one(tiny, tmp_path):
    losses = (LossPart(name="lce"), LossPart(name="hinge", weight=0.5))
    stage = msgspec.structs.replace(SHARED, losses=losses, gradient_cosine_every=2)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        alone = train(tiny, tmp_path / "one", Ranks(), SilentRecorder(), stage)
        both = run_ranks(2, lambda ranks: train(tiny, tmp_path / "two", ranks, SilentRecorder(), stage), tmp_path)
    finally:
        torch.set_num_threads(threads)
    assert both == [alone, alone]
    assert [bool(row.cosines) for row in alone[1]] == [False, True, False, True]


def test_a_stage_that_two_processes_left_goes_on_in_one(tiny, tmp_path, one_process):
    def work(ranks):
        # only the first one is asked to stop
        with pytest.raises(PausedError) as paused:
            train(tiny, tmp_path / "two", ranks, SilentRecorder(stop_after=3 if ranks.is_first else None))
        return paused.value.step

    assert run_ranks(2, work, tmp_path) == [3, 3]
    _, readings, weights = train(tiny, tmp_path / "two", Ranks(), SilentRecorder())
    assert (readings, weights) == (one_process[1][3:], one_process[2])


def test_too_little_memory_in_one_process_reduces_the_microbatch_of_all(tiny, tmp_path, monkeypatch):
    real, left = ForwardBackward.forward, [1]

    def forward(self, pairs, position):
        if position[0] == 2 and work_of and left[0]:
            left[0] -= 1
            raise torch.OutOfMemoryError("CUDA out of memory")
        return real(self, pairs, position)

    work_of = []
    monkeypatch.setattr(ForwardBackward, "forward", forward)

    def work(ranks):
        if ranks.number == 1:
            work_of.append(1)
        callback = SilentRecorder()
        state, _, weights = train(tiny, tmp_path / "two", ranks, callback)
        return state.microbatch, callback.narrowed, weights

    first, second = run_ranks(2, work, tmp_path)
    assert first == second
    assert first[0] == SHARED.tokens_at_once // 2
    assert first[1] == [f"step 2: {first[0]} tokens at once from here on; rank 1: CUDA out of memory"]
    assert checkpoints.recorded_microbatches(tmp_path / "two") == {2: first[0]}


def test_a_loss_that_is_not_finite_ends_all_processes_with_one_error(tiny, tmp_path, monkeypatch):
    real = ForwardBackward.forward
    monkeypatch.setattr(
        ForwardBackward,
        "forward",
        lambda self, pairs, position: real(self, pairs, position) * (float("nan") if position[:2] == (2, 0) else 1.0),
    )

    def work(ranks):
        with refused(RunFailedError, "loss-not-finite", "step 2", "stages.s"):
            train(tiny, tmp_path / "two", ranks, SilentRecorder())
        return True

    assert run_ranks(2, work, tmp_path) == [True, True]


def group_of(*lengths):
    pairs = tuple(Pair(ids=tuple(range(length)), split=1) for length in lengths)
    return EncodedGroup(Group("q", tuple(f"d{at}" for at in range(len(lengths))), (1.0,) * len(lengths)), pairs)


def test_shards_have_equal_shares_of_the_tokens_and_every_group_once():
    batch = [group_of(length) for length in (100, 1, 1, 1, 50, 49, 1, 97)]
    dealt = deal_groups(batch, 2)
    assert sorted(place for places in dealt for place in places) == list(range(8))
    assert [sum(batch[place].tokens for place in places) for places in dealt] == [150, 150]
    assert all(places == sorted(places) for places in dealt)


def test_no_shard_is_without_a_group():
    batch = [group_of(size) for size in (500, 1, 1, 1)]
    assert sorted(map(len, deal_groups(batch, 4))) == [1, 1, 1, 1]
    assert [shard_count(groups, 8) for groups in (1, 2, 7, 8, 64)] == [1, 2, 4, 8, 8]
