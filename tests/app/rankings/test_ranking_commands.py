"""`cerank depths`, `fuse`, `interaction` and `retrieve` on a small run: from what is typed to what is written."""

from __future__ import annotations

import json
import shutil
from datetime import UTC, datetime

import msgspec
import pytest
from typer.testing import CliRunner

from cerank.app.comparison import comparisons, recorded_looks
from cerank.app.rankings import depth_report, first_stage_table, fuse_runs, retrieve_documents
from cerank.app.report.build_report import build_report
from cerank.app.report.report_scope import ReportRequest
from cerank.cli.typer_app import app
from cerank.errors import MissingError, RecipeError, UsageError
from cerank.evaluation.measures import per_query
from cerank.evaluation.studies.depth_curve import at_depth
from cerank.recipes.recipe_checks import recipe_from
from cerank.retrieval import rank_fusion
from cerank.runs import run_store, test_set_looks
from cerank.trec.text_io import read_qrels, read_run
from tests.json_documents import document_of
from tests.refusals import refused
from tests.worker.small import bits_of, small_plan

NAME = "brisk-otter"


def command(settings, *words: str):
    """Run a command in the lab of the settings, with those of their folders that it takes."""
    lab = ["--lab", str(settings.lab)] if words[0] != "evaluate" else []
    cache = ["--cache", str(settings.cache)] if words[0] != "show" else []
    return CliRunner().invoke(app, [*words, *lab, *cache])


@pytest.fixture(scope="module")
def deep(trained, tmp_path_factory):
    """The trained run in a lab of its own, as if its recipe had named depths."""
    evaluate = msgspec.structs.replace(trained.plan.recipe.evaluate, depths=(2, 4))
    plan = msgspec.structs.replace(trained.plan, recipe=msgspec.structs.replace(trained.plan.recipe, evaluate=evaluate))
    settings = msgspec.structs.replace(trained.settings, lab=tmp_path_factory.mktemp("deep"))
    folder = run_store.create(settings.lab, plan, b"", datetime(2026, 1, 2, tzinfo=UTC))
    for name in ("rankings", "measures", "qrels", "stages"):
        shutil.copytree(trained.folder.path / name, folder.path / name)
    shutil.copy(trained.folder.scorings, folder.scorings)
    return settings, folder, plan


def test_depths_of_a_run_are_those_of_its_rankings_and_change_no_file(trained):
    before = bits_of(trained.folder)
    done = command(trained.settings, "depths", NAME, "--depths", "2,5", "--json", "-m", "nDCG@5")
    assert done.exit_code == 0, done.output
    document = document_of(done.stdout, "depths")
    rows = document["depths"]
    assert document["meta"]["correction"] in {"max-t", "holm"}
    assert all((row["p_to_deepest"] is None) == (row["depth"] == 8) for row in rows)
    assert all(row["p_to_first_stage"] <= row["p_to_first_stage_corrected"] for row in rows)
    assert len(rows) == 2 * 2 * 3  # stages, first stages, depths: 2, 5 and the 8 that were scored
    test = trained.plan.recipe.data.test[0]
    for row in rows:
        ranking, first = (
            read_run(trained.folder.ranking(system, test, row["first_stage"])).ranking
            for system in (row["system"], "first-stage")
        )
        qrels = read_qrels(trained.folder.qrels(test))
        values = per_query(["nDCG@5"], qrels, at_depth(ranking, first, row["depth"]))["nDCG@5"]
        assert row["mean"] == pytest.approx(sum(values.values()) / len(qrels))
        assert row["seconds"] > 0
    assert bits_of(trained.folder) == before


def test_a_recipe_that_names_depths_has_them_in_show_and_in_the_report(deep):
    settings, folder, plan = deep
    shown = command(settings, "show", NAME, "--json")
    rows = document_of(shown.stdout, "comparison", "depths")["depths"]
    assert {row["depth"] for row in rows} == {2, 4, 8}
    assert {row["measure"] for row in rows} == {"nDCG@10"}
    report = build_report(settings, ReportRequest(names=(NAME,)))
    assert [len(table.rows) for table in report.depths] == [12]
    assert any(curve.name.startswith("depths-") and "<svg" in curve.svg for curve in report.curves)
    study = depth_report.declared(folder, plan)
    assert study.comparison.family == len(study.comparison.rows) - sum(
        row.verdict == "identical" for row in study.comparison.rows
    )
    assert len(study.comparison.rows) == 4 * 6


def test_verdicts_count_as_looks_when_they_are_first_shown(deep, tmp_path):
    settings, folder, plan = deep
    own = msgspec.structs.replace(settings, lab=tmp_path / "lab")
    shutil.copytree(folder.path, own.lab / "runs" / folder.path.name)

    def looks_after(*words: str) -> list[tuple[str, int]]:
        done = command(own, *words)
        assert done.exit_code == 0, done.output
        looks = test_set_looks.load_all(own.lab)
        return [(look.by, sum(map(len, look.comparisons.values()))) for look in looks]

    shown = looks_after("show", NAME)
    rows = len(comparisons.of_run(folder).rows)
    keys = recorded_looks.keys_of(depth_report.declared(folder, plan).comparison)
    assert shown == [("show", rows), ("show", sum(map(len, keys.values())))]
    assert looks_after("show", NAME) == looks_after("depths", NAME) == shown  # the same once more
    more = looks_after("depths", NAME, "--depths", "3", "-m", "nDCG@5")
    assert [by for by, _ in more] == ["show", "show", "depths"]
    reported = looks_after("report", NAME, "-m", "P@3")
    assert [by for by, _ in reported] == ["show", "show", "depths", "report"]
    assert looks_after("report", NAME, "-m", "P@3") == reported


def test_without_depths_a_plan_has_the_hash_it_had_and_no_table(trained):
    assert "depths" not in json.loads(command(trained.settings, "show", NAME, "--json").stdout)
    evaluate = msgspec.structs.replace(trained.plan.recipe.evaluate, depths=(2,))
    with_depths = msgspec.structs.replace(
        trained.plan, recipe=msgspec.structs.replace(trained.plan.recipe, evaluate=evaluate)
    )
    assert with_depths.fingerprint != trained.plan.fingerprint
    back = msgspec.structs.replace(evaluate, depths=())
    recipe = msgspec.structs.replace(trained.plan.recipe, evaluate=back)
    assert msgspec.structs.replace(trained.plan, recipe=recipe).fingerprint == trained.plan.fingerprint


def test_depths_of_two_files_are_those_of_the_run(trained, tmp_path):
    test = trained.plan.recipe.data.test[0]
    paths = [trained.folder.ranking(system, test, "bm25") for system in ("first-stage", "distill")]
    request = depth_report.DepthRequest(
        target=str(paths[1]),
        first_stage=str(paths[0]),
        depths=(2,),
        qrels=str(trained.folder.qrels(test)),
        measures=("nDCG@5",),
    )
    (curve,) = depth_report.study(trained.settings, request).curves
    of_run = depth_report.DepthRequest(target=f"{NAME}:distill", depths=(2,), measures=("nDCG@5",))
    both = depth_report.study(trained.settings, of_run).curves
    same = next(each for each in both if each.condition.first_stage == "bm25")
    assert [point.mean for point in curve.points] == [point.mean for point in same.points]
    assert {point.seconds for point in curve.points} == {None}  # a file does not say what it took


@pytest.mark.parametrize(
    ("words", "named"),
    [
        ([NAME], "--depths"),
        ([NAME, "--depths", "2,x"], "x"),
        ([NAME, "--depths", "9"], "9"),
        ([f"{NAME}:first-stage", "--depths", "2"], "first-stage"),
        ([f"{NAME}:oracle", "--depths", "2"], "oracle"),
        ([NAME, "--depths", "2", "--first-stage", "x.run"], "--first-stage"),
        ([NAME, "--depths", "2", "--dataset", "elsewhere"], "elsewhere"),
    ],
)
def test_depths_that_there_are_not_are_refused(trained, words, named):
    done = command(trained.settings, "depths", *words)
    assert isinstance(done.exception, UsageError)
    assert named in str(done.exception)


@pytest.mark.parametrize(("depths", "named"), [([9], "9"), ([2, 2], "2"), ([8], "8")])
def test_a_recipe_with_depths_beyond_its_candidates_is_refused(depths, named):
    values = {"name": "x", "chain": ["a"], "stages": {"a": {"steps": 1}}, "data": {"depth": 8}}
    with refused(RecipeError, "recipe", "depths", named):
        recipe_from(values | {"evaluate": {"depths": depths}}, "here")
    assert recipe_from(values | {"evaluate": {"depths": [2, 8]}}, "here").evaluate.depths == (2, 8)


def test_depths_beyond_the_lists_of_a_given_run_are_refused_before_training(tmp_path):
    data = {"evaluate": {"depths": [2, 5]}}
    plan, _ = small_plan(tmp_path / "fits", **data)
    changed = {"depth": 12, "train": plan.recipe.data.train, "validation": plan.recipe.data.validation}
    changed |= {"test": list(plan.recipe.data.test), "first_stages": ["oracle"]}  # whose lists have 10 documents
    with refused(UsageError, "depth-beyond", 12, 10):
        small_plan(tmp_path / "beyond", **data, data=changed)


def test_oracle_and_random_order_are_rows_of_a_comparison(trained):
    names = [f"{NAME}:{system}" for system in ("first-stage", "distill", "oracle", "random-order")]
    full = json.loads(command(trained.settings, "compare", *names, "-m", "nDCG@5", "--full").stdout)
    values = {system["label"]: system["measured"][0]["values"]["nDCG@5"] for system in full["systems"]}
    best = values[f"{NAME}:oracle"]
    for label in names:
        assert all(values[label][query] <= best[query] for query in best)
    assert values[f"{NAME}:random-order"] != values[f"{NAME}:first-stage"]
    with refused(UsageError, "reference-order-reported"):
        build_report(trained.settings, ReportRequest(names=(f"{NAME}:oracle",)))


def test_a_gain_of_one_stage_over_another_is_tested_behind_each_first_stage(trained):
    study, _ = first_stage_table.study(trained.settings, first_stage_table.InteractionRequest(targets=(NAME,)))
    assert study.rerankers == ("contrastive", "distill")
    assert study.first_stages == ("bm25", "oracle")
    assert (len(study.contrasts), study.margin.value) == (1, 0.02)
    done = command(trained.settings, "interaction", NAME, "--json")
    assert done.exit_code == 0, done.output
    tables = document_of(done.stdout, "means", "interaction")
    assert tables["meta"]["family"] == 1
    assert [row["reranker"] for row in tables["means"]] == ["contrastive", "distill"]
    (row,), (contrast,) = tables["interaction"], study.contrasts
    assert row["p_corrected"] == pytest.approx(contrast.p_corrected)
    assert (row["p"], row["basis"]) == (pytest.approx(contrast.p), contrast.basis)


def test_an_interaction_and_a_table_of_retrieval_are_looks(trained, tmp_path):
    folder = trained.folder
    own = msgspec.structs.replace(trained.settings, lab=tmp_path / "lab", cache=tmp_path / "cache")
    shutil.copytree(folder.path, own.lab / "runs" / folder.path.name)
    for _ in range(2):  # shown again, they are no new looks
        assert command(own, "interaction", NAME).exit_code == 0
        data = trained.plan.recipe.data
        words = ["retrieve", "--base", NAME, "--dataset", data.test[0], "--table", "--budget", "12", "--rounds", "3"]
        done = command(own, *words, "--train-queries", "15", "-m", "nDCG@5", "--device", "cpu", "--threads", "1")
        assert done.exit_code == 0, done.output
    looks = test_set_looks.load_all(own.lab)
    assert [look.by for look in looks] == ["interaction", "retrieve"]
    ((judged, keys),) = looks[0].comparisons.items()
    assert len(keys) == 2  # the test over all, and one contrast
    # 3 pairs by the measure on the judgments, and by each of two recalls on what the cross-encoder puts first
    assert sorted(map(len, looks[1].comparisons.values())) == [3, 3, 3]
    compared = command(own, "compare", f"{NAME}:contrastive", NAME, "-m", "nDCG@5", "--family", "looks", "--json")
    counted = json.loads(compared.stdout)["meta"]["looks"]["in_family"]
    assert counted == 2 + (3 if judged in looks[1].comparisons else 0)


def test_a_file_or_a_single_stage_has_no_interaction(trained):
    path = str(trained.folder.ranking("distill", trained.plan.recipe.data.test[0], "bm25"))
    with refused(UsageError, "not-a-run-of-the-lab"):
        first_stage_table.study(trained.settings, first_stage_table.InteractionRequest(targets=(path, NAME)))
    with refused(UsageError, "interaction-of-one"):
        first_stage_table.study(trained.settings, first_stage_table.InteractionRequest(targets=(f"{NAME}:distill",)))


def fusion_of(trained, tmp_path, **changes):
    request = fuse_runs.FusionRequest(
        **{
            "targets": (f"{NAME}:first-stage", f"{NAME}:distill"),
            "method": "interpolate",
            "output": tmp_path / "out.run",
            "first_stage": "bm25",
            **changes,
        }
    )
    return fuse_runs.fuse(trained.settings, request)


def test_alpha_is_chosen_on_the_validation_queries_of_the_run_and_stands_beside_the_row(trained, tmp_path):
    result = fusion_of(trained, tmp_path)
    alpha = float(result.tag.split(";")[1].partition("=")[2])
    assert alpha in fuse_runs.ALPHAS
    assert str(f"{alpha:g}") in result.notes[-1]
    assert trained.plan.recipe.data.validation in result.notes[-1]
    test = trained.plan.recipe.data.test[0]
    first, reranked = (
        read_run(trained.folder.ranking(system, test, "bm25")).ranking for system in ("first-stage", "distill")
    )
    expected = rank_fusion.interpolated(first, reranked, alpha)
    written = read_run(tmp_path / "out.run").ranking
    assert all(written[query] == expected[query] for query in expected)
    done = command(
        trained.settings,
        *("evaluate", str(tmp_path / "out.run"), "--qrels", str(trained.folder.qrels(test)), "-m", "nDCG@5"),
    )
    assert f"alpha {alpha:g}" in done.stderr


def test_alpha_is_the_best_of_the_grid_and_of_equals_the_largest():
    from tests.retrieval.test_rank_fusion import rankings

    first = rankings(1, queries=8)[0]
    reranked = rank_fusion.interpolated(first, first, 1.0)
    same = fuse_runs.choose_alpha(first, reranked, {q: {first[q][3]: 1} for q in first}, "nDCG@10")
    assert same.alpha == 1.0  # every weight gives the same order
    other = rankings(1, queries=8, seed=8)[0]
    shared = {q: [doc for doc in other[q] if doc in first[q]] for q in other}
    qrels = {q: {first[q][0]: 1} for q in first if shared[q]}
    chosen = fuse_runs.choose_alpha(first, other, qrels, "nDCG@10")
    assert chosen.mean(chosen.alpha) == max(mean for _, mean in chosen.means)
    by_hand = per_query(["nDCG@10"], qrels, rank_fusion.interpolated(first, other, chosen.alpha))["nDCG@10"]
    assert chosen.mean(chosen.alpha) == pytest.approx(sum(by_hand.values()) / len(by_hand))


def test_a_fusion_that_makes_no_sense_is_refused_before_anything_is_written(trained, tmp_path):
    test = trained.plan.recipe.data.test[0]
    files = tuple(str(trained.folder.ranking(system, test, "bm25")) for system in ("first-stage", "distill"))
    qrels = str(trained.folder.qrels(test))
    wrong = [
        ({"method": "best"}, "fusion-method-unknown"),
        ({"targets": files}, "alpha-without-validation"),
        ({"targets": files, "validation": files, "qrels": qrels}, "validation-on-test"),
        ({"targets": (*files, files[0])}, "interpolation-of-two"),
        ({"alpha": 1.5}, "alpha-out-of-range"),
        ({"method": "rrf", "alpha": 0.5}, "option-unused"),
        ({"weights": (1.0, 1.0)}, "option-unused"),
        ({"method": "wsum", "k": 5}, "option-unused"),
        ({"method": "wsum", "weights": (1.0,)}, "weights-count"),
        ({"method": "wsum", "weights": (0.0, 0.0)}, "weights-out-of-range"),
        ({"qrels": qrels}, "option-unused"),
        ({"method": "rrf", "measure": "AP"}, "option-unused"),
        ({"method": "rrf", "first_stage": ""}, "ranking-not-unique"),
        ({"method": "rrf", "targets": (files[0], f"{NAME}:oracle")}, "reference-order-fused"),
    ]
    for changes, code in wrong:
        with refused(UsageError, code):
            fusion_of(trained, tmp_path, **changes)
    with refused(MissingError, "file-not-found", "gone.run"):
        fusion_of(trained, tmp_path, method="rrf", targets=(files[0], str(tmp_path / "gone.run")))
    assert not list(tmp_path.iterdir())
    (tmp_path / "out.run").touch()
    with refused(UsageError, "file-exists"):
        fusion_of(trained, tmp_path, method="rrf")


def test_a_fused_run_is_a_system_of_a_comparison(trained, tmp_path):
    output = tmp_path / "out.run"
    words = ["fuse", f"{NAME}:first-stage", f"{NAME}:distill", "--method", "rrf", "--first-stage", "bm25"]
    done = command(trained.settings, *words, "--to", str(output))
    assert (done.exit_code, done.stdout) == (0, f"{output}\n")
    test = trained.plan.recipe.data.test[0]
    paths = [str(trained.folder.ranking("distill", test, "bm25")), str(output)]
    compared = command(
        trained.settings, "compare", *paths, "--qrels", str(trained.folder.qrels(test)), "-m", "nDCG@5", "--json"
    )
    assert compared.exit_code == 0, compared.output


def retrieval_of(trained, **changes):
    data = trained.plan.recipe.data
    return retrieve_documents.RetrievalRequest(
        **{
            "base": NAME,
            "dataset": data.test[0],
            "method": "adacur",
            "budget": 12,
            "rounds": 3,
            "train_queries": 15,
            "measure": "nDCG@5",
            **changes,
        }
    )


def test_what_is_retrieved_has_the_scores_of_the_model_and_the_index_is_made_once(trained, tmp_path):
    seen = []
    output = tmp_path / "out.run"
    for _ in range(2):
        request = retrieval_of(trained, output=output, replace=True)
        retrieve_documents.retrieve(trained.settings, request, lambda what, done, total: seen.append((what, total)))
    assert seen.count(("index", 15)) == 15
    found = read_run(output).ranking
    assert {len(found[query]) for query in found} == {12}
    words = ["rerank", NAME, "--dataset", request.dataset, "--first-stage", str(output), "--depth", "12"]
    again = command(trained.settings, *words, "-o", str(tmp_path / "again.run"), "--device", "cpu", "--threads", "1")
    assert again.exit_code == 0, again.output
    scored = read_run(tmp_path / "again.run").ranking
    for query in found:
        one = dict(zip(found[query], found.scores(query), strict=True))
        other = dict(zip(scored[query], scored.scores(query), strict=True))
        assert one == pytest.approx(other, abs=1e-5)


def test_the_table_compares_both_methods_with_re_ranking_at_equal_calls(trained):
    done = retrieve_documents.compare(trained.settings, retrieval_of(trained, method="anncur"), lambda *_: None)
    assert (done.documents, done.train_queries, done.result) == (60, 15, None)
    assert [system.label for system in done.comparison.systems] == ["bm25 + re-ranking", "anncur", "adacur"]
    recalls = {row.condition.dataset.rpartition(" ")[2] for row in done.comparison.rows if row.measure == "R@12"}
    assert recalls == {"1", "10"}  # not 50 and 100: 12 calls cannot find them
    assert len(done.comparison.rows) == 3 * 3
    everything = retrieve_documents.compare(
        trained.settings, retrieval_of(trained, budget=60, anchors=20), lambda *_: None
    )
    means = {
        (row.condition.dataset.rpartition(" ")[2], row.right): row.paired.mean_right
        for row in everything.comparison.rows
        if row.measure == "R@60"
    }
    assert set(means.values()) == {1.0}
    full = everything.comparison.systems[0].measured[1].values["R@60"]
    assert set(full.values()) == {1.0}  # BM25's lists are filled up to the same number of calls
    data = trained.plan.recipe.data
    words = ["retrieve", "--base", NAME, "--dataset", data.test[0], "--method", "anncur", "--budget", "12", "--table"]
    words += ["--rounds", "3", "--train-queries", "15", "-m", "nDCG@5", "--device", "cpu", "--threads", "1", "--json"]
    document = document_of(command(trained.settings, *words).stdout, "retrieval")
    assert [row["p"] for row in document["retrieval"]] == [row.judgment.p for row in done.comparison.rows]
    assert document["meta"]["calls"] == 12


def test_a_retrieval_that_cannot_be_is_refused_before_the_model_is_loaded(trained, tmp_path, monkeypatch):
    def load(*_args, **_options):
        raise AssertionError("a model was loaded")

    monkeypatch.setattr("cerank.inference.rerank.Scorer.load", load)
    model = str(trained.folder.final(1, "distill"))
    wrong = [
        ({"method": "cur"}, "method-unknown"),
        ({"anchors": 12}, "budget-too-small"),
        ({"budget": 61}, "budget-too-large"),
        ({"base": model}, "no-train-query"),
        ({"train": trained.plan.recipe.data.test[0]}, "no-train-query"),  # the test queries themselves
        ({"output": tmp_path}, "file-exists"),
    ]
    for changes, code in wrong:
        with refused(UsageError, code):
            retrieve_documents.retrieve(trained.settings, retrieval_of(trained, **changes), lambda *_: None)
    done = command(trained.settings, "retrieve", "--base", NAME, "--dataset", "x", "--budget", "9")
    assert "--to" in str(done.exception)
    words = ["retrieve", "--base", NAME, "--dataset", "x", "--budget", "9", "--to", "x.run", "-m", "AP"]
    assert "--measure" in str(command(trained.settings, *words).exception)
