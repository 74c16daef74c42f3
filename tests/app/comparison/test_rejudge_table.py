"""The command `cerank rejudge`: shipped tables, run files in place of numbers, and a repeated experiment."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from scipy import stats
from typer.testing import CliRunner

from cerank.app.evidence import rejudge_table
from cerank.cli.typer_app import app
from cerank.errors import UsageError
from cerank.evaluation import published
from cerank.runs import test_set_looks
from tests.json_documents import document_of
from tests.refusals import refused as refused_with


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Forty queries, one relevant document each; two original rankings, and two that repeat them less well."""
    ranks = {"base": (2, 3), "advanced": (1, 4), "base-again": (2, 4), "advanced-again": (1, 5)}
    lines: dict[str, list[str]] = {name: [] for name in ranks}
    for query in range(40):
        for name, (first, many) in ranks.items():
            docs = [f"d{place}" for place in range(9)]
            docs.insert(first + query % many - 1, "good")
            lines[name] += [f"q{query} Q0 {doc} {at} {50 - at} t\n" for at, doc in enumerate(docs, 1)]
    for name, text in lines.items():
        (tmp_path / f"{name}.run").write_text("".join(text))
    (tmp_path / "qrels").write_text("".join(f"q{query} 0 good 1\n" for query in range(40)))
    return tmp_path


def rejudged(path: Path | str, *more: str):
    found = CliRunner().invoke(app, ["rejudge", str(path), "--json", *more])
    assert found.exit_code == 0, (found.output, found.exception)
    document = document_of(found.stdout)
    (table,) = document.keys() - {"meta", "notes"}
    return document[table]


def refused(path: Path) -> str:
    return str(CliRunner().invoke(app, ["rejudge", str(path)]).exception)


def gains() -> np.ndarray:
    """RR@10 of the advanced system less that of the baseline, by hand."""
    return np.array([1 / (1 + query % 4) - 1 / (2 + query % 3) for query in range(40)])


def test_the_shipped_tables_are_judged():
    assert [row["stands"] for row in rejudged("dl20")] == ["yes", "no", "no", "no", "no"]
    paper = rejudged("ecir2025")
    assert len(paper) == 16
    assert {row["what"].rpartition(", ")[2] for row in paper if row["stands"] == "yes"} == {"dev/small"}
    assert all(row["source"].startswith("assumed sd") for row in paper)


def test_the_shipped_claims_of_the_paper_are_the_means_of_its_shipped_table():
    paper = next(paper for paper in published.papers() if paper.key == "ecir2025")
    rows = {row.label: row.values for row in paper.tables[0].rows}
    for row, base, order in zip(
        rejudged("ecir2025")[::4], ["ELECTRA"] * 2 + ["RoBERTa"] * 2, ["CL>KD", "KD>CL"] * 2, strict=True
    ):
        assert row["difference"] == pytest.approx(rows[f"{base} {order}"][0] - rows[f"{base} CL"][0])


def test_run_files_give_difference_and_p_themselves_and_printed_numbers_are_checked(folder, capfd):
    (folder / "t.toml").write_text(
        'qrels = "qrels"\nmeasure = "RR@10"\nmargin = 0.02\n[[claims]]\nwhat = "w"\nsays = "better"\n'
        'left_run = "base.run"\nright_run = "advanced.run"\ndifference = 0.4\np = 0.9\n'
    )
    (row,) = rejudged(folder / "t.toml")
    test = stats.ttest_1samp(gains(), 0)
    assert (row["difference"], row["p"]) == pytest.approx((gains().mean(), test.pvalue))
    assert (row["low"], row["high"]) == pytest.approx(tuple(test.confidence_interval()))
    shown = CliRunner().invoke(app, ["rejudge", str(folder / "t.toml"), "--format", "table"]).output
    assert "+0.4000" in " ".join(shown.split())


def test_claims_on_judgments_that_are_named_are_looks_at_them(folder):
    lab = ["--lab", str(folder / "lab")]
    (folder / "lab").mkdir()
    files = 'left_run = "base.run", right_run = "advanced.run"'
    path = folder / "table.toml"
    printed = '{ what = "x", says = "better", queries = 40, difference = 0.1, p = 0.03 }'
    runs = f'{{ what = "advanced against base", {files}, says = "better" }}'
    path.write_text(f"claims = [{runs}, {printed}]".replace(f"{runs}, ", ""))
    rejudged(path, *lab)
    assert not (folder / "lab" / "looks.jsonl").exists()  # of printed numbers alone nobody knows the judgments
    path.write_text(f'qrels = "qrels"\nmeasure = "RR@10"\nclaims = [{runs}, {printed}]')
    for _ in range(2):  # read again, it is the same look
        rejudged(path, *lab)
    (look,) = test_set_looks.load_all(folder / "lab")
    assert (look.by, [len(keys) for keys in look.comparisons.values()]) == ("rejudge", [2])
    words = ["compare", str(folder / "base.run"), str(folder / "advanced.run"), "--qrels", str(folder / "qrels")]
    found = CliRunner().invoke(app, [*words, "-m", "RR@10", "--json", "--family", "looks", *lab])
    looks = document_of(found.stdout)["meta"]["looks"]
    assert (looks["before"], looks["new"], looks["in_family"]) == (2, 0, 1)  # of the run files it is the same


@pytest.mark.parametrize(("qrels", "counted"), [("elsewhere.qrels", 0), ("qrels", 1)])
def test_printed_numbers_need_neither_the_qrels_here_nor_a_measure_that_can_be_computed(folder, qrels, counted):
    printed = '{ what = "x", says = "better", queries = 40, difference = 0.1, p = 0.03 }'
    (folder / "lab").mkdir()
    (folder / "t.toml").write_text(f'qrels = "{qrels}"\nmeasure = "exact match"\nclaims = [{printed}]')
    (row,) = rejudged(folder / "t.toml", "--lab", str(folder / "lab"))
    assert row["verdict"] == "better"
    assert len(test_set_looks.load(folder / "lab")) == counted


def test_an_assumed_sd_stands_in_for_a_p(folder):
    (folder / "t.toml").write_text(
        '[[claims]]\nwhat = "w"\nsays = "better"\nqueries = 43\nleft = 0.70\nright = 0.73\nsd = 0.1\n'
    )
    (row,) = rejudged(folder / "t.toml")
    assert row["p"] == pytest.approx(2 * stats.t.sf(0.03 / 0.1 * math.sqrt(43), 42))


def test_a_repeated_experiment_has_the_measures_of_repro_eval(folder):
    pytest.importorskip("repro_eval")
    (folder / "t.toml").write_text(
        'qrels = "qrels"\nmeasure = "RR@10"\n[reproduction]\noriginal = ["base.run", "advanced.run"]\n'
        'reproduced = ["base-again.run", "advanced-again.run"]\n'
    )
    base, advanced = rejudged(folder / "t.toml")
    again = np.array([1 / (1 + query % 5) for query in range(40)])
    first = np.array([1 / (1 + query % 4) for query in range(40)])
    assert advanced["rmse"] == pytest.approx(math.sqrt(((again - first) ** 2).mean()))
    assert advanced["reproduced"] == pytest.approx(again.mean())
    assert 0 < base["kendall"] < 1
    base_again = np.array([1 / (2 + query % 4) for query in range(40)])
    ratio = (again - base_again).mean() / gains().mean()
    shown = CliRunner().invoke(app, ["rejudge", str(folder / "t.toml"), "--format", "table"]).output
    assert f"effect ratio {ratio:.3f}" in shown


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("title = 'x'\n", "neither claims nor a reproduction"),
        ("[[claims]]\nwhat = 'w'\nsays = 'better'\nqueries = 43\ndifference = 0.1\np = 1.2\n", "not at 1.2"),
        ("[[claims]]\nwhat = 'w'\nsays = 'better'\nqueries = 43\ndifference = 0.1\n", "neither p nor sd"),
        (
            "[[claims]]\nwhat = 'w'\nsays = 'better'\nqueries = 43\ndifference = 0.1\np = 0.1\nsd = 0.1\n",
            "both p and sd",
        ),
        ("[[claims]]\nwhat = 'w'\nsays = 'better'\nqueries = 43\ndifference = 0.1\nsd = -1\n", "an sd lies above 0"),
        ("[[claims]]\nwhat = 'w'\nsays = 'better'\ndifference = 0.1\np = 0.1\n", "number of queries"),
        ("[[claims]]\nwhat = 'w'\nsays = 'better'\nleft_run = 'base.run'\n", "without the other"),
        ("[[claims]]\nwhat = 'w'\nsays = 'better'\nleft_run = 'base.run'\nright_run = 'base.run'\n", "without qrels"),
        (
            "qrels='qrels'\n[[claims]]\nwhat='w'\nsays='better'\nleft_run='base.run'\nright_run='no.run'\n",
            "no such run",
        ),
        (
            "qrels='qrels'\n[[claims]]\nwhat='w'\nsays='better'\nleft_run='base.run'\nright_run='base.run'\n",
            "no spread",
        ),
        ("claims = 3\n", "not a table of claims"),
    ],
)
def test_a_table_that_says_nothing_is_refused(folder, text, what):
    (folder / "t.toml").write_text(text)
    assert what in refused(folder / "t.toml")


@pytest.mark.parametrize(
    ("lines", "code"),
    [
        ("", "run-empty"),
        ("q0 Q0 x1 1 2 t\n", "no-judged-document"),
        ("z0 Q0 good 1 2 t\n", "no-judged-query"),
    ],
)
def test_run_files_of_another_collection_are_refused(folder, lines, code):
    (folder / "other.run").write_text(lines)
    (folder / "t.toml").write_text(
        "qrels='qrels'\n[[claims]]\nwhat='w'\nsays='better'\nleft_run='base.run'\nright_run='other.run'\n"
    )
    with refused_with(UsageError, code):
        rejudge_table.with_runs(*rejudge_table.read_claims(folder / "t.toml"))


def test_what_is_odd_in_a_run_file_is_said(folder):
    lines = (folder / "advanced.run").read_text().splitlines()
    rising = [f"{query} Q0 {doc} {rank} {rank} t\n" for query, _, doc, rank, *_ in map(str.split, lines[10:])]
    (folder / "rising.run").write_text("".join(rising))
    (folder / "t.toml").write_text(
        "qrels='qrels'\n[[claims]]\nwhat='w'\nsays='better'\nleft_run='base.run'\nright_run='rising.run'\n"
    )
    _, notes = rejudge_table.with_runs(*rejudge_table.read_claims(folder / "t.toml"))
    assert any("39 of 39 queries" in note for note in notes)
    assert any("1 of the 40" in note for note in notes)


def test_a_file_that_is_not_there_is_refused_with_what_is_shipped(folder):
    assert "dl20, ecir2025" in refused(folder / "gone.toml")
