"""A run on passages: the aggregation is chosen on validation, what was cut is counted, and `rerank` reads the same."""

from __future__ import annotations

from datetime import UTC, datetime

import msgspec
import pytest
from typer.testing import CliRunner

from cerank.app.comparison.run_answer import what_was_read
from cerank.cli.typer_app import app
from cerank.core.metrics import Event, StepMetrics
from cerank.core.passage_scores import AGGREGATIONS, aggregate, passages_by_document
from cerank.datasets.open_datasets import open_dataset
from cerank.errors import UsageError
from cerank.evaluation.studies.aggregation_choice import AggregationChoice
from cerank.files import journal, json_records
from cerank.files.lease import Lease
from cerank.planning.truncation_estimates import truncation_in_words
from cerank.planning.workload import count_work
from cerank.runs import checksums
from cerank.runs.records import DOCUMENTS_CUT
from cerank.trec.text_io import read_run
from tests.models.family_fixtures import write_encoder
from tests.worker.test_whole_runs import rows_of

from .small import STAGE, bits_of, small_plan, small_run

pytestmark = pytest.mark.slow  # a run is carried out
PASSAGES = {"aggregation": "choose", "max_passages": 2, "length": 4, "stride": 3, "top": 2, "train_on": "all"}
SHORT = {**STAGE, "steps": 2, "validate_every": 2}


def carried_out(run):
    from cerank.worker.__main__ import run_attempt  # it imports torch, and most tests need neither
    from cerank.worker.run_context import StopFlag

    with Lease.take(run.lease, datetime(2026, 1, 2, tzinfo=UTC)):
        assert run_attempt(run, StopFlag(run.stop)) == 0, run.failure.read_text()
    return run


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("passages")
    model = write_encoder(folder / "reranker", "BertForSequenceClassification", num_labels=1)
    changes = {"stages": {"contrastive": SHORT}, "passages": PASSAGES, "baselines": [str(model)]}
    plan, settings = small_plan(folder, chain=["contrastive"], **changes)
    return carried_out(small_run(folder, plan, settings)), plan, settings


def test_the_best_aggregation_on_validation_is_chosen_and_told(finished):
    run, plan, _ = finished
    choice = json_records.load_if_there(run.aggregation("contrastive"), AggregationChoice)
    assert set(choice.means) == set(AGGREGATIONS)
    assert choice.means[choice.chosen] == max(choice.means.values())
    assert choice.queries == 8
    assert "aggregations/contrastive.json" in {entry.path for entry in checksums.load_all(run).values()}
    told = [event.text for event in journal.read(run.events, Event) if event.kind == "aggregation chosen"]
    assert [text.partition(":")[0] for text in told] == ["reranker", "contrastive"]
    assert told[1] == f"contrastive: {choice}"
    assert set(told) <= set(what_was_read(run, plan))


def test_what_was_cut_is_in_the_record_of_the_run_and_in_its_plan(finished):
    run, plan, settings = finished
    cut = [event.text for event in journal.read(run.events, Event) if event.kind == DOCUMENTS_CUT]
    assert [text.partition(" on ")[0] for text in cut] == ["reranker", "contrastive"]
    assert set(cut) <= set(what_was_read(run, plan))
    expected = list(truncation_in_words(plan))
    assert [text.partition(" on ")[0] for text in expected] == ["contrastive", "reranker"]
    lengths = [
        len(text.split())
        for text in open_dataset(str(plan.recipe.data.test[0]), settings.cache).documents.texts(
            [f"d{number}" for number in range(60)]
        )
    ]
    longer = sum(length > 7 for length in lengths)  # two passages of 4 tokens, the second 3 further
    assert f"({longer} of 60)" in expected[0]  # the baseline has words of its own
    work = {part.part: part.pairs for part in count_work(plan.recipe, dict.fromkeys(names_of(plan), 10))}
    assert work[f"re-rank {plan.recipe.data.test[0]} by contrastive"] == 10 * 8 * 2 * 2
    assert work["train contrastive"] == 2 * 2 * 4 * 2


def names_of(plan):
    return {plan.recipe.data.train, plan.recipe.data.validation, *plan.recipe.data.test}


def test_training_reads_all_passages(finished):
    steps = [row for row in rows_of(finished[0]) if isinstance(row, StepMetrics)]
    assert all(8 < row.pairs <= 16 for row in steps)


def reranked(finished, output, *options):
    run, plan, settings = finished
    words = ["rerank", run.name, "--first-stage", "bm25", "--dataset", plan.recipe.data.test[0], "--depth", "8"]
    places = ["--lab", str(settings.lab), "--cache", str(settings.cache), "--device", "cpu", "--threads", "1"]
    return CliRunner().invoke(app, [*words, "-o", str(output), *places, *options])


def test_rerank_reads_documents_as_the_run_did_and_writes_the_scores_of_passages(finished, tmp_path):
    run, plan, _ = finished
    result = reranked(finished, tmp_path / "own.run", "--passage-scores", str(tmp_path / "passages.tsv"))
    assert result.exit_code == 0, result.output
    own = read_run(tmp_path / "own.run").ranking
    expected = read_run(run.ranking("contrastive", plan.recipe.data.test[0], "bm25")).ranking
    assert {query: own[query] for query in own} == {query: expected[query] for query in expected}
    passages: dict[str, dict[str, float]] = {}
    for line in (tmp_path / "passages.tsv").read_text().splitlines():
        query, passage, score = line.split("\t")
        passages.setdefault(query, {})[passage] = float(score)
    chosen = json_records.load_if_there(run.aggregation("contrastive"), AggregationChoice).chosen
    for query in own:
        by_document = passages_by_document(passages[query])
        values = [aggregate(chosen, by_document[doc], 2) for doc in own[query]]
        assert values == sorted(values, reverse=True)
        assert {len(scores) for scores in by_document.values()} <= {1, 2}


def test_shards_hold_passages_and_merge_to_the_same_bytes(finished, tmp_path):
    option = ("--aggregation", "TopMeanP", "--max-passages", "2", "--passage-length", "4", "--stride", "3")
    for part in (["--shard", "1/2"], ["--shard", "2/2"], ["--merge", "--passage-scores", str(tmp_path / "p")]):
        result = reranked(finished, tmp_path / "shared.run", *option, *part)
        assert result.exit_code == 0, result.output
    whole = reranked(finished, tmp_path / "whole.run", *option, "--passage-scores", str(tmp_path / "q"))
    assert whole.exit_code == 0, whole.output
    assert (tmp_path / "shared.run").read_bytes() == (tmp_path / "whole.run").read_bytes()
    assert (tmp_path / "p").read_bytes() == (tmp_path / "q").read_bytes()


def test_whole_documents_may_be_asked_for_of_a_model_that_was_trained_on_passages(finished, tmp_path):
    result = reranked(
        finished, tmp_path / "whole.run", "--aggregation", "none", "--passage-scores", str(tmp_path / "p")
    )
    assert isinstance(result.exception, UsageError)
    assert result.exception.where == "--passage-scores"
    result = reranked(finished, tmp_path / "whole.run", "--aggregation", "none")
    assert result.exit_code == 0, result.output
    assert "MaxP" not in result.output
    own, by_passages = (
        read_run(path).ranking
        for path in (
            tmp_path / "whole.run",
            finished[0].ranking("contrastive", finished[1].recipe.data.test[0], "bm25"),
        )
    )
    assert {query: own.scores(query) for query in own} != {query: by_passages.scores(query) for query in own}


@pytest.mark.parametrize(
    ("options", "named"),
    [
        (("--aggregation", "MaxP", "--stride", "0"), "--stride"),
        (("--aggregation", "MaxP", "--max-passages", "0"), "--max-passages"),
        (("--aggregation", "MaxP", "--passage-length", "4", "--stride", "5"), "--stride"),
        (("--aggregation", "MaxP", "--passage-length", "14", "--stride", "5"), "passages.length"),
        (("--stride", "3"), "--aggregation"),
        (("--aggregation", "MaxP", "--title", "2", "--passage-length", "4", "--stride", "3"), "title"),
        (("--template", "{headline}"), "--template"),
    ],
)
def test_passages_that_cannot_be_are_refused(finished, tmp_path, options, named):
    result = reranked(finished, tmp_path / "no.run", *options)
    assert result.exit_code != 0
    assert isinstance(result.exception, UsageError | SystemExit)
    assert named in f"{result.output} {result.exception}"
    assert not (tmp_path / "no.run").exists()


def test_show_says_what_was_read(finished):
    run, _, settings = finished
    result = CliRunner().invoke(app, ["show", run.name, "--lab", str(settings.lab)])
    assert result.exit_code == 0, result.output
    text = " ".join(result.output.split())
    assert "documents were cut" in text
    assert "chosen on 8 validation queries" in text


def test_a_second_run_has_the_same_bits_trained_again_or_not(finished):
    run, plan, settings = finished
    again = carried_out(small_run(settings.lab, plan, settings, second=5))
    assert bits_of(again) == bits_of(run)
    shared = carried_out(small_run(settings.lab, msgspec.structs.replace(plan, shares=True), settings, second=6))
    assert {event.kind for event in journal.read(shared.events, Event)} >= {"stage adopted", "rankings adopted"}
    assert shared.aggregation("contrastive").read_bytes() == run.aggregation("contrastive").read_bytes()
    rankings = {name: bits for name, bits in bits_of(run).items() if name.startswith("rankings/")}
    assert {name: bits for name, bits in bits_of(shared).items() if name in rankings} == rankings
