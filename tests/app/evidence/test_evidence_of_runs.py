"""What stands behind the verdict on two files: bounds, documents to judge next, plans, looks, and single queries."""

from __future__ import annotations

import json
from pathlib import Path

import msgspec
import pytest
from typer.testing import CliRunner

from cerank.app.comparison.comparison_schema import ComparisonDocument
from cerank.cli.typer_app import app
from cerank.errors import MissingError, UsageError
from cerank.trec.text_io import read_run
from tests.json_documents import document_of
from tests.refusals import refused as coded

PLAN = """
title = "Is new better?"
measures = ["RR@10"]
margins = {{ "RR@10" = "20%" }}
worth = {{ "RR@10" = 0.2 }}
systems = ["base", "better"]
because = "nobody sees less"
qrels = "{qrels}"
"""


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    """Sixty queries, one relevant document each, second or later in base, first or second in better; one unjudged."""
    qrels, lines = [], {"base": [], "better": []}
    for query in range(60):
        qrels.append(f"q{query} 0 good 1\n")
        qrels += [f"q{query} 0 d{place} 0\n" for place in range(10) if (query, place) != (7, 0)]
        for name, rank in {"base": 2 + query % 3, "better": 1 + query % 2}.items():
            docs = [f"d{place}" for place in range(10)]
            docs.insert(rank - 1, "good")
            lines[name] += [f"q{query} Q0 {doc} {at} {50 - at} t\n" for at, doc in enumerate(docs, 1)]
    (tmp_path / "qrels").write_text("".join(qrels))
    for name, text in lines.items():
        (tmp_path / f"{name}.run").write_text("".join(text))
    (tmp_path / "plan.toml").write_text(PLAN.format(qrels=tmp_path / "qrels"))
    return tmp_path


def called(runs: Path, command: str, *words: str, lab: str = "lab"):
    files = [str(runs / "base.run"), str(runs / "better.run")] if command != "declare" else []
    judged = ["--qrels", str(runs / "qrels")] if command != "declare" else []
    places = [*judged, "--lab", str(runs / lab), "--cache", str(runs / "cache")]
    return CliRunner().invoke(app, [command, *files, *words, *places])


def refused(done, said: str) -> bool:
    """Whether a command ended in an error of the user's that says so; the program itself turns it into exit code 2."""
    error = done.exception
    return isinstance(error, UsageError) and said in f"{error} {error.hint}"


def document(runs: Path, *words: str, lab: str = "lab") -> ComparisonDocument:
    done = called(runs, "compare", "--format", "json", *words, lab=lab)
    assert done.exit_code == 0, done.output
    return msgspec.json.decode(done.stdout, type=ComparisonDocument)


def test_bounds_and_the_documents_to_judge_next(runs):
    found = document(runs, "-m", "RR@10", "--bounds", "--judge-next", str(runs / "next.run"))
    row = next(each for each in found.rows if each.difference is not None)
    assert (row.unjudged, row.verdict_by_judgments, row.judgments_to_flip) == (1, "holds", None)
    assert row.unjudged_low <= row.difference <= row.unjudged_high
    following = read_run(runs / "next.run").ranking
    assert dict(following) == {"q7": ("d0",)}
    assert following.scores("q7")[0] == pytest.approx(row.unjudged_high - row.unjudged_low, abs=1e-6)


@pytest.mark.parametrize(("differing", "holds"), [(6, False), (8, True)])
def test_a_verdict_by_exact_flips_has_bounds_by_exact_flips(runs, differing, holds):
    """Few queries differ, all to one side: six have p .031, and with one of them on the other side .062."""
    base = (runs / "base.run").read_text().splitlines(keepends=True)
    better = (runs / "better.run").read_text().splitlines(keepends=True)
    # the queries 0, 2, 4 ... gain their relevant document at rank 1
    chosen = {f"q{2 * at}" for at in range(differing)}
    rows = [line for line in base if line.split()[0] not in chosen]
    (runs / "better.run").write_text("".join(rows + [line for line in better if line.split()[0] in chosen]))
    qrels = (runs / "qrels").read_text().replace("q0 0 d0 0\n", "")  # first in the baseline, second in the other
    (runs / "qrels").write_text(qrels)
    row = next(each for each in document(runs, "-m", "RR@10", "--bounds").rows if each.difference is not None)
    assert (row.basis, row.verdict) == ("exact sign flips", "better")
    assert row.unjudged == 2  # d0 of q0 and of q7
    assert (row.verdict_by_judgments, row.judgments_to_flip) == (("holds", None) if holds else ("flips", 1))


def test_without_the_option_the_fields_of_bounds_are_empty(runs):
    row = document(runs, "-m", "RR@10").rows[1]
    assert (row.unjudged, row.verdict_by_judgments, row.bounds_note) == (None, None, None)


def test_a_file_that_cannot_be_written_is_refused_before_anything_is_read(runs):
    assert refused(called(runs, "compare", "--judge-next", str(runs / "nowhere" / "next.run")), "folder does not exist")
    assert not (runs / "lab" / "looks.jsonl").exists()


def test_looks_are_counted_and_the_same_comparison_is_no_new_one(runs):
    assert document(runs, "-m", "RR@10").meta.looks.look == 1
    again = document(runs, "-m", "RR@10").meta.looks
    assert (again.look, again.before, again.new) == (2, 1, 0)
    more = document(runs, "-m", "RR@10", "-m", "nDCG@10")
    assert (more.meta.looks.before, more.meta.looks.new) == (1, 1)
    assert any("1 distinct comparison" in note for note in more.notes)
    called(runs, "gate", "--margin", "P@5=.1")
    assert document(runs, "-m", "RR@10").meta.looks.before == 3


def test_the_family_of_looks_counts_earlier_verdicts_once_and_leaves_descriptive_rows_out(runs):
    document(runs, "-m", "RR@10", "-m", "P@5", "--primary", "RR@10")  # P@5 is descriptive
    called(runs, "gate", "--margin", "P@3=.1")
    alone = document(runs, "-m", "nDCG@10")
    found = document(runs, "-m", "nDCG@10", "--family", "looks")
    assert (alone.meta.family, found.meta.family, found.meta.looks.in_family) == (1, 3, 2)
    one, other = (next(row for row in each.rows if row.p is not None) for each in (alone, found))
    assert other.p_corrected == pytest.approx(3 * one.p)
    again = document(runs, "-m", "RR@10", "--family", "looks")  # what it compares is in the family already
    assert (again.meta.family, again.meta.looks.in_family) == (3, 2)


def test_the_family_of_looks_is_refused_where_the_record_cannot_say(runs):
    record = runs / "lab" / "looks.jsonl"
    words = ("-m", "RR@10", "--family", "looks")
    with coded(MissingError, "looks-unknown", record):
        raise called(runs, "compare", *words).exception
    document(runs, "-m", "RR@10")
    with coded(UsageError, "family-without-correction"):
        raise called(runs, "compare", *words, "--correction", "bh").exception
    record.write_bytes(record.read_bytes().replace(b'"by":"compare"', b'"by":"nobody"'))
    with coded(UsageError, "looks-damaged", record):
        raise called(runs, "compare", *words).exception


@pytest.mark.parametrize("family", ["many", "-1", "1.5"])
def test_a_family_that_is_no_number_is_refused(runs, family):
    assert refused(called(runs, "compare", "--family", family), "neither a number nor looks")


def test_a_lab_that_cannot_be_written_to_compares_without_a_count(runs):
    (runs / "file").write_text("")
    found = document(runs, "-m", "RR@10", lab="file/lab")
    assert found.meta.looks is None
    assert len(found.rows) == 2


def test_a_comparison_by_a_plan_made_before_it_is_confirmatory_and_its_margins_are_declared(runs):
    done = called(runs, "declare", str(runs / "plan.toml"))
    assert done.exit_code == 0, done.output
    found = document(runs, "--plan", "Is new better?")
    assert (found.meta.plan.departures, found.meta.plan.known_before) == ((), "")
    assert found.meta.margins["RR@10"].before
    assert found.meta.margins["RR@10"].because == "nobody sees less"
    assert found.meta.plan.sha256 in done.output
    assert found.rows[1].margin == pytest.approx(0.2 * found.rows[0].mean)
    assert any(note.startswith("confirmatory") for note in found.notes)
    assert not any("†" in note for note in found.notes)
    again = document(runs, "--plan", found.meta.plan.sha256[:10])  # by then its own results are known, and no others
    assert again.meta.margins["RR@10"].before


def test_a_plan_made_after_a_look_is_exploratory(runs):
    document(runs, "-m", "RR@10")
    assert called(runs, "declare", str(runs / "plan.toml")).exit_code == 0
    found = document(runs, "--plan", "Is new better?")
    assert found.meta.plan.known_before
    assert not found.meta.margins["RR@10"].before
    assert any(note.startswith("exploratory: it follows") for note in found.notes)


def test_a_comparison_that_departs_from_a_plan_says_in_what(runs):
    called(runs, "declare", str(runs / "plan.toml"))
    found = document(runs, "-m", "RR@10", "--margin", "RR@10=.05", "--worth", "RR@10=.2", "--correction", "holm")
    assert found.meta.plan.departures == (
        "margins RR@10 0.05, not RR@10 20 % of the baseline's mean",
        "correction holm, not auto",
    )
    assert not found.meta.margins["RR@10"].before


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ('margins = { "RR@10" = 2 }', "spans 1"),
        ('margins = { "P@10" = 0.1 }', "not measured"),
        ('measures = ["WER"]', "WER"),
        ("confidence = 2.0", "between .5 and 1"),
        ('systems = ["base"]', "at least 2"),
        ('hue = "red"', "hue"),
        ('title = " "', "no title"),
        ('primary = ["RR@10: better"]', "not a question"),
        ('margins = { "RR@10" = "120%" }', "not a margin"),
    ],
)
def test_a_plan_that_could_not_be_carried_out_is_refused(runs, line, said):
    key = line.split(" = ")[0]
    lines = [each for each in (runs / "plan.toml").read_text().splitlines() if not each.startswith(f"{key} =")]
    (runs / "plan.toml").write_text("\n".join([*lines, line]))
    assert refused(called(runs, "declare", str(runs / "plan.toml")), said)
    assert not (runs / "lab" / "declared-plans").exists()


def test_a_plan_for_other_judgments_and_one_with_own_rules_are_refused(runs):
    called(runs, "declare", str(runs / "plan.toml"))
    done = called(runs, "compare", "--plan", "Is new better?", "--margin", "RR@10=.1")
    assert refused(done, "come from the plan")
    with (runs / "qrels").open("a") as file:
        file.write("q7 0 d0 1\n")
    assert refused(called(runs, "compare", "--plan", "Is new better?"), "other judgments")
    assert refused(called(runs, "compare", "--plan", "what"), "no declared plan")


def test_declared_plans_are_listed(runs):
    called(runs, "declare", str(runs / "plan.toml"))
    (listed,) = json.loads(called(runs, "declare", "--format", "json").stdout)
    assert (listed["title"], listed["measures"]) == ("Is new better?", "RR@10")


def test_one_query_is_told_document_by_document(runs):
    done = called(runs, "explain", "--query", "q1", "-m", "RR@10", "--format", "json")
    parts = document_of(done.stdout, "query")["query"]
    assert {part["document"]: part["difference"] for part in parts} == pytest.approx({"good": 1 / 2 - 1 / 3})
    assert (parts[0]["left_rank"], parts[0]["right_rank"], parts[0]["what"]) == (3, 2, "up 1")


@pytest.mark.parametrize(
    ("words", "said"), [(("--query", "q99"), "did you mean"), (("--query", "q1", "-m", "Bpref"), "no sum")]
)
def test_a_query_or_measure_that_cannot_be_told_is_refused(runs, words, said):
    assert refused(called(runs, "explain", *words), said)


def test_all_queries_are_told_by_the_largest_and_by_features(runs):
    tables = document_of(called(runs, "explain", "-m", "RR@10", "--format", "json").stdout, "queries", "features")
    differences = [row["difference"] for row in tables["queries"]]
    assert len(differences) <= 10
    assert max(differences) == pytest.approx(1 - 1 / 4)
    assert {row["feature"] for row in tables["features"]} == {"relevant documents", "share judged within the cutoff"}
    constant = next(row for row in tables["features"] if row["feature"] == "relevant documents")
    assert (constant["rho"], constant["p_corrected"]) == (None, None)
