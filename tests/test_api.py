"""The library: what `import cerank` gives scores and compares as the commands do."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest

import cerank
from cerank import guides
from cerank.errors import CerankError, UsageError
from cerank.inference.rerank import Scorer
from cerank.models.cross_encoder import load, load_tokenizer, save
from cerank.tokenization.tokens import TokenLimits
from cerank.trec.text_io import read_run
from tests.models.family_fixtures import write_causal
from tests.refusals import refused
from tests.worker.small import write_dataset

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
    blocks = re.findall(r"```python\n(.*?)```", (guides.FOLDER / "library.md").read_text(encoding="utf8"), re.DOTALL)
    assert len(blocks) == 2
    for block in blocks:
        code = block.replace('"brisk-otter"', repr(str(checkpoint)))
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=600, check=False)
        assert done.returncode == 0, done.stderr
        assert done.stdout.strip()


def test_an_unknown_name_is_no_attribute():
    with pytest.raises(AttributeError):
        cerank.lode  # noqa: B018
    assert {"load", "compare"} <= set(dir(cerank))
