"""The library: what `import cerank` gives scores and compares as the commands do."""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys
from datetime import UTC, datetime

import pytest

import cerank
from cerank import guides
from cerank.errors import CerankError, UsageError
from cerank.inference.rerank import Scorer
from cerank.models.cross_encoder import load, load_tokenizer, save
from cerank.recipes import render
from cerank.runs import run_store
from cerank.tokenization.tokens import TokenLimits
from cerank.trec.text_io import read_run
from tests.models.family_fixtures import write_causal
from tests.refusals import refused
from tests.trained_run import SHORT_STAGES
from tests.worker.small import small_plan, write_dataset

PASSAGES = ["kappa", "alpha beta gamma", "iota alpha", "alpha beta gamma"]


@pytest.fixture
def checkpoint(tiny, tmp_path):
    save(load(tiny, "auto", seed=3), load_tokenizer(tiny.folder), tmp_path / "model", TokenLimits(32, 12))
    return tmp_path / "model"


def test_scores_are_those_of_the_scorer_and_ranks_follow_them(checkpoint):
    model = cerank.load(checkpoint, device="cpu")
    scores = model.score("alpha", PASSAGES)
    assert scores == Scorer.load(checkpoint).score([("alpha", passage) for passage in PASSAGES])
    ranked = model.rerank("alpha", PASSAGES)
    assert sorted(scores, reverse=True) == [passage.score for passage in ranked]
    assert [passage.text for passage in ranked] == [PASSAGES[passage.index] for passage in ranked]
    equal = [passage.index for passage in ranked if passage.text == PASSAGES[1]]
    assert equal == sorted(equal), "equal scores keep the order given"
    assert model.rerank("alpha", PASSAGES, top_n=2) == ranked[:2]
    assert model.score("alpha", []) == model.rerank("alpha", []) == []
    assert repr(model) == f"<cerank.LoadedReranker {checkpoint}, fp32>"


def test_a_language_model_loads_by_its_declaration_and_not_without(tmp_path):
    folder = write_causal(tmp_path / "Qwen3-Reranker-0.6B", "qwen3")
    scores = cerank.load(folder, device="cpu").score("city", ["Paris", "cat"])
    (tmp_path / "other.toml").write_text(
        'model = "Qwen3-Reranker-0.6B"\nkind = "causal"\nbody = ["{query}\\n", "{document}"]\nyes = "yes"\n'
    )
    assert cerank.load(tmp_path / "other.toml", device="cpu").score("city", ["Paris", "cat"]) != scores


def test_an_unknown_model_is_an_error_of_cerank(tmp_path):
    with pytest.raises(CerankError):
        cerank.load("brisk-oter", lab=tmp_path)


@pytest.fixture
def files(tmp_path):
    folder = write_dataset(tmp_path / "data", seed=2)
    oracle = folder / "runs" / "oracle.run"
    rows = [line.split() for line in oracle.read_text().splitlines()]
    worse = [line for number, line in enumerate(oracle.read_text().splitlines()) if number % 3]
    (tmp_path / "worse.run").write_text("\n".join(worse) + "\n")
    return {"oracle": oracle, "worse": tmp_path / "worse.run", "qrels": next(folder.glob("*qrels*")), "rows": rows}


def test_every_form_of_rankings_and_qrels_gives_the_same_rows(files):
    pandas = pytest.importorskip("pandas")
    import ir_measures
    import polars

    from cerank.trec.text_io import read_qrels

    expected = cerank.compare({"a": files["worse"], "b": files["oracle"]}, files["qrels"], margins={"nDCG@10": 0.02})
    qrels = read_qrels(files["qrels"])
    rankings = {label: read_run(files[name]).ranking for label, name in (("a", "worse"), ("b", "oracle"))}
    dicts = {
        label: {query: dict(zip(ranking[query], ranking.scores(query), strict=True)) for query in ranking}
        for label, ranking in rankings.items()
    }
    rows = {
        label: [(query, doc, score) for query, row in run.items() for doc, score in row.items()]
        for label, run in dicts.items()
    }
    judged = [(query, doc, grade) for query, row in qrels.items() for doc, grade in row.items()]
    columns = ["query_id", "doc_id", "score"]
    forms = [
        (dicts, qrels),
        (
            {label: pandas.DataFrame(run, columns=["qid", "docno", "score"]) for label, run in rows.items()},
            pandas.DataFrame(judged, columns=["qid", "docno", "label"]),
        ),
        (
            {label: polars.DataFrame(run, schema=columns, orient="row") for label, run in rows.items()},
            polars.DataFrame(judged, schema=["query_id", "doc_id", "relevance"], orient="row"),
        ),
        (
            {label: [ir_measures.ScoredDoc(*row) for row in run] for label, run in rows.items()},
            [ir_measures.Qrel(*row) for row in judged],
        ),
    ]
    for systems, given in forms:
        assert cerank.compare(systems, given, margins={"nDCG@10": 0.02}).rows == expected.rows


def test_a_comparison_is_that_of_the_command_and_shows_itself(files, tmp_path):
    from cerank.app.comparison import comparisons
    from cerank.settings import Flags, resolve

    result = cerank.compare({"worse": files["worse"], "<b>oracle": files["oracle"]}, files["qrels"])
    flags = Flags(lab=str(tmp_path / "lab"), cache=str(tmp_path / "cache"))
    settings = resolve(flags, {}, tmp_path).settings
    request = comparisons.ComparisonRequest(
        targets=(str(files["worse"]), str(files["oracle"])), measures=("nDCG@10",), qrels=str(files["qrels"])
    )
    command = comparisons.compare(settings, request)
    row, other = result.rows[0], command.rows[0]
    assert (row.difference, row.p, row.p_adjusted, row.verdict) == (
        other.paired.difference,
        other.judgment.p,
        other.p_corrected,
        other.verdict,
    )
    assert "&lt;b&gt;oracle" in result._repr_html_()
    assert "<b>" not in result._repr_html_()
    assert row.verdict in repr(result)
    assert result.to_polars().height == len(result) == 1
    assert list(result.to_pandas()["verdict"]) == [row.verdict]
    assert "nDCG@10" in result.to_text("markdown")
    assert result.answers


@pytest.mark.parametrize(
    ("systems", "qrels", "reason"),
    [
        ({"a": {"q": {"d": 1.0}}}, {"q": {"d": 1}}, "too-few-systems"),
        ({"a": {"q": {"d": 1.0}}, "b": 7}, {"q": {"d": 1}}, "wrong-input-type"),
        ({"a": {"q": {"d": 1.0}}, "b": [object()]}, {"q": {"d": 1}}, "column-missing"),
        ({"a": {"q": {"d": 1.0}}, "b": {"q": {"d": float("nan")}}}, {"q": {"d": 1}}, "score-not-finite"),
        ({"a": {"q": {"d": 1.0}}, "b": {"q": {"d": 1.0}}}, {"q": {"d": 0.5}}, "grade-not-integer"),
    ],
)
def test_what_is_no_ranking_or_no_qrels_is_refused(systems, qrels, reason):
    with refused(CerankError, *reason.split()):
        cerank.compare(systems, qrels)


def test_a_margin_for_a_measure_that_is_not_compared_is_refused():
    run = {"q": {"d": 1.0}}
    with refused(UsageError, "margin-unused", "RR@10"):
        cerank.compare({"a": run, "b": run}, {"q": {"d": 1}}, margins={"MRR@10": 0.1})


@pytest.mark.thorough
def test_the_guides_examples_run(checkpoint, tmp_path):
    """With what they name: a checkpoint, and a recipe; the one that trains makes a run in a lab."""
    blocks = re.findall(r"```python\n(.*?)```", (guides.FOLDER / "library.md").read_text(encoding="utf8"), re.DOTALL)
    assert len(blocks) == 4
    plan, settings = small_plan(tmp_path / "small", stages=SHORT_STAGES)
    (tmp_path / "my.toml").write_text(render(plan.recipe))
    places = {"CERANK_LAB": str(settings.lab), "CERANK_CACHE": str(settings.cache), "CERANK_THREADS": "1"}
    tried = [
        block.replace('"brisk-otter"', repr(str(checkpoint)))
        for block in blocks
        if "pyterrier" not in block or importlib.util.find_spec("pyterrier") is not None
    ]
    # in one process, which imports torch once, but each with names of its own
    code = f"for block in {tried!r}:\n    exec(block, {{'__name__': '__main__'}})\n    print('\\0')"
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env=os.environ | places,
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert all(said.strip() for said in done.stdout.split("\0")[:-1])
    assert done.stdout.count("\0") == len(tried)
    (run,) = run_store.folders(settings.lab)
    assert run_store.load_plan(run).recipe.seed == 8
    assert run_store.status(run, datetime.now(UTC)).state == "finished"


@pytest.mark.parametrize(
    ("recipe", "more", "code"),
    [
        ("contrastiv", {}, "recipe-not-found"),
        ("contrastive", {"changes": {"stages.contrastive.step": 4}}, "recipe"),
        ("contrastive", {"base": "no-such-base"}, "unknown-base"),
    ],
)
def test_what_cannot_be_trained_is_refused_before_a_run_is_made(tmp_path, recipe, more, code):
    with refused(CerankError, code):
        cerank.train(recipe, lab=tmp_path / "lab", cache=tmp_path / "cache", device="cpu", **more)
    assert run_store.folders(tmp_path / "lab") == []


@pytest.fixture
def values():
    """The table of pt.Experiment(..., perquery=True)."""
    pandas = pytest.importorskip("pandas")
    rows = [
        (name, f"q{number}", measure, value + 0.01 * number)
        for name, value in (("bm25", 0.2), ("mine", 0.5))
        for number in range(12)
        for measure in ("ndcg_cut_10", "recip_rank")
    ]
    return pandas.DataFrame(rows, columns=["name", "qid", "measure", "value"])


def test_values_that_are_measured_already_are_compared_as_they_are(values):
    result = cerank.compare(values)
    assert [(row.measure, row.system, row.against) for row in result] == [
        ("nDCG@10", "mine", "bm25"),
        ("RR", "mine", "bm25"),
    ]
    assert {round(row.difference, 9) for row in result} == {0.3}
    assert {row.queries for row in result} == {12}
    assert "mine" in result._repr_html_()


@pytest.mark.parametrize(
    ("change", "code"),
    [
        (lambda table: table[table["name"] == "mine"], "too-few-systems"),
        (lambda table: table.iloc[1:], "queries-differ"),
        (lambda table: table.assign(name="mine"), "value-twice"),
        (lambda table: table.drop(columns="qid"), "column-missing"),
        (lambda _: 7, "wrong-input-type"),
    ],
)
def test_a_table_that_lacks_something_is_refused(values, change, code):
    with refused(UsageError, code):
        cerank.compare(change(values))


def test_rankings_need_qrels_and_values_none(values):
    run = {"q": {"d": 1.0}}
    with refused(UsageError, "no-judgments"):
        cerank.compare({"a": run, "b": run})
    with refused(UsageError, "options-conflict"):
        cerank.compare(values, {"q": {"d": 1}})


def test_an_unknown_name_is_no_attribute():
    with pytest.raises(AttributeError):
        cerank.lode  # noqa: B018
    assert {"load", "compare", "train"} <= set(dir(cerank))
