"""A model of cerank in mteb: its own tasks, evaluated by its own code."""

from __future__ import annotations

import json

import pytest

import cerank
from cerank.errors import UsageError
from cerank.models.cross_encoder import load, load_tokenizer, save
from cerank.tokenization.tokens import TokenLimits
from tests.refusals import refused

pytestmark = pytest.mark.slow  # its import takes half a minute
mteb = pytest.importorskip("mteb")


def test_mteb_re_ranks_predictions_with_a_model_of_cerank(tiny, tmp_path) -> None:
    from mteb.mocks.mock_tasks import MockRetrievalTask

    from cerank.exporting.mteb_files import MtebTask, write_predictions
    from cerank.mteb import MtebReranker

    folder = tmp_path / "model"
    save(load(tiny, "auto", seed=3), load_tokenizer(tiny.folder), folder, TokenLimits(32, 12))
    task = MockRetrievalTask()
    task.load_data()
    split = task.dataset["default"]["val"]
    documents = {row["id"]: row["text"] for row in split["corpus"]}
    first = {row["id"]: dict.fromkeys(documents, 1.0) for row in split["queries"]}
    write_predictions(MtebTask(folder=tmp_path, task=task.metadata.name, split="val"), first, "first")
    assert task.metadata.eval_splits == ["val"]
    task = task.convert_to_reranking(tmp_path, top_k=2)
    reranker = MtebReranker(folder, device="cpu")
    out = tmp_path / "out"
    results = mteb.evaluate(reranker, task, prediction_folder=out, cache=None, show_progress_bar=False)
    assert 0 <= results.task_results[0].get_score() <= 1
    written = json.loads((out / f"{task.metadata.name}_predictions.json").read_text())["default"]["val"]
    model = cerank.load(folder, device="cpu")
    for row in split["queries"]:
        scores = written[row["id"]]
        expected = dict(zip(documents, model.score(row["text"], list(documents.values())), strict=True))
        assert scores == pytest.approx({key: expected[key] for key in scores}, abs=1e-5)
    with refused(UsageError, "text-missing"):
        reranker.predict([{"image": [1]}], [{"text": ["a"]}])
    with refused(UsageError, "usage", "name"):
        MtebReranker(model, name="no-slash")
