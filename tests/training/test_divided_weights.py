"""Weights divided among processes: the same bits as in one process that holds them whole."""

from __future__ import annotations

import hashlib

import msgspec
import pytest
import torch

from cerank.core.ranks import Ranks
from cerank.models.cross_encoder import load, load_tokenizer
from cerank.tokenization.tokens import PairTokenizer, TokenLimits
from cerank.training import checkpoints
from cerank.training.batches import TrainingData
from cerank.training.sampling.sampler import Sampler, TrainingPool
from cerank.training.trainer import Trainer
from tests.rank_processes import run_ranks
from tests.training.test_step_shards import SHARED, SilentRecorder
from tests.training.test_trainer import DOCUMENTS, QRELS, QUERIES, RANKING

STAGE = msgspec.structs.replace(SHARED, steps=2, validate_every=1)


def train(files, folder, ranks, callback, stage=STAGE):
    """Train with divided weights; returns the state, the readings, and the hash of each checkpoint's files."""
    model = load(files, "auto", 5)
    pool = TrainingPool(query_ids=list(QUERIES), qrels=QRELS, ranking=RANKING, has_text=DOCUMENTS.__contains__)
    tokens = PairTokenizer(load_tokenizer(files.folder), TokenLimits.of_stage(stage))
    sampler = Sampler("s", stage, 5, pool)
    data = TrainingData(
        sampler, tokens, lambda keys: [QUERIES[key] for key in keys], lambda keys: [DOCUMENTS[key] for key in keys]
    )
    trainer = Trainer(0, "s", stage, seed=5, folder=folder, device="cpu", shards=8, ranks=ranks, divides_weights=True)
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
