"""Weights divided among processes: the same bits as in one process that holds them whole."""

from __future__ import annotations

import hashlib

import msgspec
import pytest
import torch

from cerank.core.ranks import Ranks
from cerank.errors import RunFailedError
from cerank.models.bases import locate
from cerank.models.cross_encoder import load, load_tokenizer
from cerank.models.forward_pass import ForwardPass
from cerank.models.load_model import load_model
from cerank.tokenization.tokens import TokenLimits
from cerank.training import checkpoints
from cerank.training.batches import TrainingData
from cerank.training.parameter_shards.sharded_weights import ShardedWeights
from cerank.training.sampling.sampler import Sampler, TrainingPool
from cerank.training.trainer import Trainer
from tests.models.family_fixtures import write_causal, write_encoder, write_t5
from tests.rank_processes import run_ranks
from tests.refusals import refused
from tests.training.test_step_shards import SHARED, SilentRecorder
from tests.training.test_trainer import DOCUMENTS, QRELS, QUERIES, RANKING

STAGE = msgspec.structs.replace(SHARED, steps=2, validate_every=1)


def train(files, folder, ranks, callback, stage=STAGE, probes=False):
    """Train with divided weights; returns the state, the readings, and the hash of each checkpoint's files."""
    model = load_model(files, "auto", 5)
    pool = TrainingPool(query_ids=list(QUERIES), qrels=QRELS, ranking=RANKING, has_text=DOCUMENTS.__contains__)
    tokens = model.make_tokens(load_tokenizer(files.folder), TokenLimits.of_stage(stage))
    sampler = Sampler("s", stage, 5, pool)
    data = TrainingData(
        sampler, tokens, lambda keys: [QUERIES[key] for key in keys], lambda keys: [DOCUMENTS[key] for key in keys]
    )
    trainer = Trainer(0, "s", stage, seed=5, folder=folder, device="cpu", shards=8, ranks=ranks, divides_weights=True)
    trainer.probes_memory = probes
    state = trainer.train(model, data, callback)
    return state, callback.readings


def files_of(folder, steps):
    return {
        (step, file.name): hashlib.sha256(file.read_bytes()).hexdigest()
        for step in steps
        for file in sorted((folder / checkpoints.folder_name(step)).iterdir())
    }


@pytest.fixture
def one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.mark.usefixtures("one_thread")
def test_two_processes_with_a_half_of_each_weight_train_to_the_bits_of_one(tiny, tmp_path):
    alone = train(tiny, tmp_path / "one", Ranks(), SilentRecorder())
    both = run_ranks(2, lambda ranks: train(tiny, tmp_path / "two", ranks, SilentRecorder()), tmp_path)
    assert both == [alone, alone]
    assert files_of(tmp_path / "two", (1, 2)) == files_of(tmp_path / "one", (1, 2))


@pytest.mark.usefixtures("one_thread")
def test_groups_larger_than_memory_are_scored_in_parts_by_any_number_of_processes(tiny, tmp_path):
    """Of 5 groups in 4 shards, of up to 40 tokens each, so that shards need one to six passes."""
    stage = msgspec.structs.replace(STAGE, microbatch=12, clip=1e-3, steps=1)
    alone = train(tiny, tmp_path / "one", Ranks(), SilentRecorder(), stage)
    both = run_ranks(2, lambda ranks: train(tiny, tmp_path / "two", ranks, SilentRecorder(), stage), tmp_path)
    assert both == [alone, alone]
    assert alone[1][0].grad_norm > 1e-3
    assert files_of(tmp_path / "two", (1,)) == files_of(tmp_path / "one", (1,))


def test_a_process_holds_its_rows_of_each_weight_and_of_what_the_optimizer_keeps(tiny, tmp_path):
    def work(ranks):
        model = load(tiny, "auto", 5)
        whole = {name: value.detach().clone() for name, value in model.named_parameters()}
        shares = ShardedWeights(model, ranks, torch.device("cpu"))
        for name, share in shares.trained.items():
            assert torch.equal(share, whole[name][shares.rows(name, len(whole[name]))])
            gathered = shares.whole(name, share)
            assert torch.equal(gathered, whole[name]) if ranks.is_first else not gathered.numel()
        held = sum(value.numel() for value in shares.to_save().values())
        return held / sum(value.numel() for value in whole.values())

    assert all(0.45 < part < 0.55 for part in run_ranks(2, work, tmp_path))


@pytest.mark.usefixtures("one_thread")
def test_a_trial_of_the_memory_changes_nothing(tiny, tmp_path):
    stage = msgspec.structs.replace(STAGE, steps=1, microbatch=500)
    plain, tried = (
        run_ranks(
            2, lambda ranks, of=probes: train(tiny, tmp_path / f"{of}", ranks, SilentRecorder(), stage, of), tmp_path
        )
        for probes in (False, True)
    )
    assert plain == tried
    assert files_of(tmp_path / "True", (1,)) == files_of(tmp_path / "False", (1,))
    assert checkpoints.recorded_microbatches(tmp_path / "True") == {0: 500}


def test_too_little_memory_in_one_process_ends_it_with_advice(tiny, tmp_path, monkeypatch):
    """The others are within a pass of all by then; torchrun ends them. Here both run out, so that both come back."""
    monkeypatch.setattr(ForwardPass, "scoring", out_of_memory)

    def work(ranks):
        with refused(RunFailedError, "out-of-memory", "stages.s"):
            train(tiny, tmp_path / "two", ranks, SilentRecorder())
        return True

    assert run_ranks(2, work, tmp_path) == [True, True]


def out_of_memory(_):
    raise torch.OutOfMemoryError("CUDA out of memory")


WRITTEN = {
    "electra": lambda folder: write_encoder(
        folder, "ElectraForSequenceClassification", embedding_size=16, num_labels=1
    ),
    "modernbert": lambda folder: write_encoder(folder, "ModernBertForSequenceClassification", num_labels=1),
    "distilbert": lambda folder: write_encoder(folder, "DistilBertForSequenceClassification", num_labels=1),
    "albert": lambda folder: write_encoder(folder, "AlbertForSequenceClassification", embedding_size=16, num_labels=1),
    "Qwen3-Reranker-0.6B": lambda folder: write_causal(folder, "qwen3"),
    "monot5-small-msmarco": write_t5,
}


@pytest.mark.slow
@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize("name", WRITTEN)
def test_other_encoders_train_to_the_bits_of_one_process(name, tmp_path):
    files = locate(str(WRITTEN[name](tmp_path / name)), fetch=False)
    stage = msgspec.structs.replace(STAGE, max_length=200, gradient_checkpointing=name in {"modernbert", "electra"})
    alone = train(files, tmp_path / "one", Ranks(), SilentRecorder(), stage)
    for count in (2, 4):
        folder = tmp_path / str(count)
        every = run_ranks(count, lambda ranks, to=folder: train(files, to, ranks, SilentRecorder(), stage), tmp_path)
        assert every == [alone] * count
        assert files_of(folder, (1, 2)) == files_of(tmp_path / "one", (1, 2))
