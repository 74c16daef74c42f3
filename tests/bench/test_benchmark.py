"""`cerank bench` measures what it says, on a base of a moment's work."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path

import pytest

from cerank.bench import baselines, benchmark, own_workloads
from cerank.bench.benchmark import BASELINE, CERANK, RERANKING, TRAINING, BenchRequest, measure, publish
from cerank.bench.text_samples import dataset_sample, generated_sample, reshape
from cerank.errors import UsageError
from cerank.kernels import processor
from cerank.models.bases import locate
from cerank.settings import Settings
from tests.model_fixtures import write_tiny
from tests.refusals import refused
from tests.warm import started


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    """A tiny encoder with room for 256 tokens."""
    from transformers import BertConfig, BertModel

    folder = tmp_path_factory.mktemp("base")
    write_tiny(folder)
    sizes = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
    BertModel(BertConfig(vocab_size=25, max_position_embeddings=256, **sizes)).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def precisions():
    """What a bench without further words times on this processor."""
    return {"fp32", "bf16"} if processor.multiplies_bf16() else {"fp32"}


@pytest.fixture(scope="module")
def report(base, tmp_path_factory):
    settings = Settings(lab=Path("lab"), cache=tmp_path_factory.mktemp("cache"), device="cpu", threads=1, format="")
    asked = BenchRequest(base=str(base), pairs=24, repeats=2, steps=1, with_peer=False)
    return measure(settings, asked, lambda what: None)


def test_every_contender_has_a_figure_for_both_works_and_precisions(report, precisions):
    who = {figure.who for figure in report.figures}
    assert who == {CERANK}
    works = {(figure.work, figure.precision) for figure in report.figures if figure.who == CERANK}
    assert works == {(work, kind) for work in (RERANKING, TRAINING) for kind in precisions}


def test_a_figure_lies_within_its_spread_and_cerank_is_held_against_others_only(report, precisions):
    for figure in report.figures:
        assert 0 < figure.lowest <= figure.median <= figure.highest
        assert (figure.ratio is None) == (figure.who == CERANK)
        assert 0 < figure.of_peak < 1
    assert set(report.peaks) == precisions
    assert min(report.peaks.values()) > 1e8


def test_tokens_and_the_time_of_single_queries_are_measured_and_a_gpus_figures_are_absent_on_a_cpu(report):
    for figure in report.figures:
        assert figure.tokens == pytest.approx(figure.median * report.tokens)
        assert (figure.latency is not None) == (figure.work == RERANKING)
        assert figure.latency is None or 0 < figure.latency[0] <= figure.latency[1]
        assert (figure.gpu_memory, figure.joules) == (0, None)


def test_a_published_file_holds_everything_and_replaces_none(report, tmp_path):
    path = tmp_path / "speed.json"
    publish(report, path, datetime(2026, 1, 2, tzinfo=UTC))
    published = json.loads(path.read_text())
    assert published["measured"] == "2026-01-02T00:00:00+00:00"
    assert len(published["figures"]) == len(report.figures)
    assert {"device", "versions", "commands", "peaks"} <= set(published)
    with refused(UsageError, "file-exists"):
        publish(report, path, datetime(2026, 1, 2, tzinfo=UTC))


def test_what_data_takes_of_a_training_step_is_a_part_of_it(report, precisions):
    assert set(report.data_share) == precisions
    assert all(0 < share < 1 for share in report.data_share.values())
    assert any("spends on data" in note for note in report.notes)


def test_a_lost_peer_is_left_out_with_its_reason_and_cerank_is_measured_all_the_same(base, tmp_path, monkeypatch):
    monkeypatch.setattr(baselines, "can_rerank", lambda: True)
    monkeypatch.setattr(baselines, "can_train", lambda: True)
    monkeypatch.setitem(benchmark.IMPLEMENTATIONS, (BASELINE, RERANKING), "cerank.bench.baselines:NoSuchClass")
    settings = Settings(lab=tmp_path, cache=tmp_path, device="cpu", threads=1, format="")
    found = measure(
        settings, BenchRequest(base=str(base), pairs=16, repeats=1, steps=1, precisions=("fp32",)), lambda what: None
    )
    assert {figure.who for figure in found.figures} == {CERANK}
    assert any("NoSuchClass" in note and BASELINE in note for note in found.notes)


@pytest.mark.slow  # sentence-transformers takes nine seconds to import
def test_sentence_transformers_takes_its_turns_where_it_is_installed(base, tmp_path):
    settings = Settings(lab=tmp_path, cache=tmp_path, device="cpu", threads=1, format="")
    asked = BenchRequest(base=str(base), pairs=16, repeats=1, steps=1, precisions=("fp32",))
    found = {(figure.work, figure.who): figure for figure in measure(settings, asked, lambda what: None).figures}
    assert ((RERANKING, BASELINE) in found) == baselines.can_rerank()
    assert ((TRAINING, BASELINE) in found) == baselines.can_train()
    assert all(figure.ratio is not None for (_, who), figure in found.items() if who == BASELINE)


def test_its_command_asks_for_the_same_again(report, base):
    (command,) = report.commands
    assert command.startswith(f"cerank bench --base {base} --pairs 24 --repeats 2 --steps 1 --device cpu --threads 1")


def test_the_command_line_gives_json_of_machine_and_speed(base, tmp_path):
    words = ["bench", "--base", str(base), "--pairs", "16", "--repeats", "1", "--steps", "1", "--cerank-only", "--json"]
    words += ["--precision", "fp32", "--threads", "1", "--device", "cpu", "--cache", str(tmp_path)]
    done = started("cerank", words, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert {row["work"] for row in found["speed"]} == {RERANKING, TRAINING}
    assert {"device", "threads", "versions", "command"} <= {row["key"] for row in found["machine"]}


def test_a_precision_that_nobody_knows_is_refused(tmp_path):
    settings = Settings(lab=tmp_path, cache=tmp_path, device="cpu", threads=1, format="")
    with refused(UsageError, "unknown-precision", "int8"):
        measure(settings, BenchRequest(precisions=("int8",)), lambda what: None)


@pytest.mark.parametrize(("pairs", "depth"), [(1, 100), (99, 100), (100, 100), (250, 100), (12, 5)])
def test_generated_texts_are_as_many_pairs_as_asked_for_and_the_same_each_time(pairs, depth):
    sample = generated_sample(pairs, depth)
    assert sample.pairs == pairs == len(sample.texts())
    assert max(map(len, sample.lists.values())) <= depth
    assert sample == generated_sample(pairs, depth)
    assert len(set(sample.documents.values())) == pairs


def test_a_sample_of_another_shape_keeps_its_texts():
    sample = generated_sample(60, 20)
    found = reshape(sample, 200, 50)
    assert (found.pairs, len(found.lists)) == (200, 4)
    assert all(len(set(docs)) == 50 for docs in found.lists.values())
    assert set(found.queries.values()) <= set(sample.queries.values())


def test_a_dataset_gives_its_first_queries_with_their_candidates(tmp_path):
    from cerank.datasets.open_datasets import open_dataset
    from tests.worker.small import write_dataset

    dataset = open_dataset(str(write_dataset(tmp_path / "data")), tmp_path)
    sample = dataset_sample(dataset, "oracle", pairs=25, depth=10, cache=tmp_path)
    assert [len(docs) for docs in sample.lists.values()] == [10, 10, 5]


@pytest.mark.slow
def test_scores_of_the_timed_contenders_are_equal(base, tmp_path):
    files = own_workloads.save_checkpoint(locate(str(base)), tmp_path / "made")
    sample = generated_sample(20, 10)
    own = own_workloads.CerankReranker(files, "cpu", "fp32").score(sample)
    assert len(own) == 20
    if baselines.can_rerank():
        assert own == pytest.approx(baselines.SentenceTransformers(files, "cpu", "fp32").score(sample), abs=1e-5)


@pytest.mark.slow
def test_trained_pairs_are_counted_as_they_are_where_lists_are_too_short_for_a_group(base, tmp_path):
    files = own_workloads.save_checkpoint(locate(str(base)), tmp_path / "made")
    sample = generated_sample(3, 3)
    stage = own_workloads.benchmark_stage(sample, precision="fp32", group_size=8, groups_per_step=2)
    learners = [own_workloads.CerankTraining(files, sample, stage, "cpu")]
    learners += [baselines.SentenceTransformersTraining(files, sample, stage, "cpu")] if baselines.can_train() else []
    assert [one.train(2).pairs for one in learners] == [2 * 2 * 3] * len(learners)


def test_needed_operations_of_a_classifier_are_counted_by_hand(base, tmp_path):
    files = own_workloads.save_checkpoint(locate(str(base)), tmp_path / "made")
    hidden, inner, heads, length = 16, 32, 2, 10
    token = 2 * (4 * hidden**2 + 2 * hidden * inner)
    whole = length * token + 4 * length**2 * hidden
    last = token + 4 * length * hidden * heads
    assert own_workloads.scoring_operations(files, [length, length]) == 2 * (whole + last)


def test_bf16_is_left_out_with_a_word_where_the_processor_only_imitates_it(base, tmp_path, monkeypatch):
    monkeypatch.setattr(processor, "multiplies_bf16", lambda: False)
    settings = Settings(lab=tmp_path, cache=tmp_path, device="cpu", threads=1, format="")
    found = measure(
        settings, BenchRequest(base=str(base), pairs=16, repeats=1, steps=1, with_peer=False), lambda what: None
    )
    assert {figure.precision for figure in found.figures} == {"fp32"}
    assert any("bf16" in note for note in found.notes)
    with refused(UsageError, "precision-not-supported", "bf16"):
        measure(settings, BenchRequest(base=str(base), precisions=("bf16",)), lambda what: None)


def test_products_that_would_outlast_the_time_that_is_left_are_not_tried(monkeypatch):
    tried = []

    def of_a_slow_processor(device, kind, shape, seconds):
        tried.append(shape)
        return processor.Peaks(4e8, 4e8)

    monkeypatch.setattr(processor, "time_products", of_a_slow_processor)
    assert own_workloads.product_peaks("cpu", "bf16")[0] == 4e8
    assert tried
    assert max(2 * rows * inner * columns for rows, inner, columns in tried) < 4e8


def test_automatic_precision_is_float32_where_the_processor_only_imitates_bf16(monkeypatch):
    monkeypatch.setattr(processor, "multiplies_bf16", lambda: False)
    processor.bf16_is_faster.cache_clear()
    assert not processor.bf16_is_faster()
    processor.bf16_is_faster.cache_clear()
