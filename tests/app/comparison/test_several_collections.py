"""Runs compared on several collections at once: a verdict on each, one over all, and in-domain apart from the rest."""

from __future__ import annotations

import csv
import io
import random
from pathlib import Path

import msgspec
import pytest
from typer.testing import CliRunner

from cerank.app.comparison import comparisons, run_answer
from cerank.app.comparison.comparison_schema import ComparisonDocument
from cerank.app.comparison.comparison_session import ComparisonSession
from cerank.app.comparison.comparisons import ComparisonRequest
from cerank.app.comparison.named_systems import file_name_of, targets_of
from cerank.app.comparison.several_collections import pool_comparisons, pooled_tables, training_domains
from cerank.app.evidence import bounds_of_comparison
from cerank.cli.typer_app import app
from cerank.errors import MissingError, UsageError
from cerank.evaluation.studies import pooling
from cerank.evaluation.studies.random_effects import pool
from cerank.evaluation.verdicts.terms import Terms
from cerank.runs import test_set_looks
from cerank.settings import Settings
from tests.refusals import refused
from tests.trained_run import make_trained

NAMES = ("one", "two", "three")


@pytest.fixture
def sets(tmp_path: Path) -> Path:
    """Three collections of thirty queries, each with a run `base`; and a better run for each in `out`."""
    (tmp_path / "out").mkdir()
    for number, name in enumerate(NAMES):
        folder, draw = tmp_path / "sets" / name, random.Random(number)
        (folder / "runs").mkdir(parents=True)
        docs = [f"{name}{place}" for place in range(8)]
        (folder / "docs.tsv").write_text("".join(f"{doc}\ttext of {doc}\n" for doc in docs))
        (folder / "queries.tsv").write_text("".join(f"q{at}\tquery {at} of {name}\n" for at in range(30)))
        (folder / "qrels").write_text("".join(f"q{at} 0 {docs[0]} 1\n" for at in range(30)))
        for path, best in ((folder / "runs" / "base.run", 3), (tmp_path / "out" / f"new-{name}.run", 1)):
            lines = []
            for at in range(30):
                ranked = docs[1:]
                ranked.insert(draw.randint(best, 5) - 1, docs[0])
                lines += [f"q{at} Q0 {doc} {place} {50 - place} t\n" for place, doc in enumerate(ranked, 1)]
            path.write_text("".join(lines))
    return tmp_path


def settings_of(folder: Path) -> Settings:
    return Settings(lab=folder / "lab", cache=folder / "cache", device="cpu", threads=1, format="")


def asked(folder: Path, **changes: object) -> ComparisonRequest:
    targets = ("{dataset}:base", f"{folder}/out/new-{{dataset}}.run")
    return ComparisonRequest(targets=targets, dataset=f"{folder}/sets/*", measures=("RR@10",), **changes)


def test_each_collection_has_its_rows_and_all_of_them_one_pooled_line(sets):
    request = asked(sets)
    comparison = comparisons.compare(settings_of(sets), request)
    assert [system.label for system in comparison.systems] == ["base", "new"]
    assert {row.condition.dataset for row in comparison.rows} == set(NAMES)
    result = pool_comparisons.of_comparison(settings_of(sets), request, comparison)
    (row,) = result.rows
    alone = pooling.of_comparison(comparison)
    expected = pool([each.difference for each in alone], [each.error for each in alone])
    assert row.pooled.estimate.difference == pytest.approx(expected.estimate.difference, abs=1e-12)
    assert row.pooled.prediction == pytest.approx(expected.prediction)


def words_of(folder: Path, *more: str) -> list[str]:
    targets = ["{dataset}:base", f"{folder}/out/new-{{dataset}}.run"]
    words = ["compare", *targets, "--dataset", f"{folder}/sets/*", "-m", "RR@10", "--json", *more]
    return [*words, "--lab", f"{folder}/lab", "--cache", f"{folder}/cache"]


def compared(folder: Path, *more: str) -> ComparisonDocument:
    done = CliRunner().invoke(app, words_of(folder, *more))
    assert done.exit_code == 0, done.output
    return msgspec.json.decode(done.stdout, type=ComparisonDocument)


def test_a_pooled_line_is_one_look_that_counts_on_each_of_its_collections(sets):
    first = compared(sets).meta.looks
    assert (first.look, first.before, first.new) == (1, 0, 4)  # a comparison on each collection, and one over all
    again = compared(sets).meta.looks
    assert (again.look, again.before, again.new) == (2, 4, 0)
    one = ["compare", f"{sets}/sets/one/runs/base.run", f"{sets}/out/new-one.run", "--dataset", f"{sets}/sets/one"]
    words = [*one, "-m", "P@1", "--family", "looks", "--json", "--lab", f"{sets}/lab", "--cache", f"{sets}/cache"]
    alone = msgspec.json.decode(CliRunner().invoke(app, words).stdout, type=ComparisonDocument)
    assert alone.meta.looks.in_family == 2  # the comparison there, and the pooled line
    assert alone.meta.family == 3


def test_the_family_of_looks_holds_rows_pooled_lines_and_what_was_seen_before(sets):
    fresh = compared(sets)
    found = compared(sets, "--family", "looks")
    assert (fresh.meta.family, fresh.pooled[0].family) == (3, 1)
    assert (found.meta.family, found.pooled[0].family, found.meta.looks.in_family) == (4, 4, 0)
    assert found.pooled[0].p_corrected >= fresh.pooled[0].p_corrected
    more = compared(sets, "--family", "looks", "--in-domain", "two")
    assert len(more.pooled) == 3
    # three collections, the line over all, that over the two others; "two" alone is the row on it
    assert {row.family for row in more.pooled} == {more.meta.family} == {5}
    later = compared(sets, "--family", "looks")
    assert (later.meta.family, later.meta.looks.in_family) == (5, 1)


def test_saved_comparisons_pooled_again_are_the_same_look_and_other_ones_a_new_one(sets):
    shown = compared(sets)
    record = sets / "lab" / "looks.jsonl"
    (sets / "all.json").write_bytes(msgspec.json.encode(shown))
    words = ["pool", f"{sets}/all.json", "--lab", f"{sets}/lab", "--cache", f"{sets}/cache"]
    assert CliRunner().invoke(app, words).exit_code == 0
    assert len(record.read_text().splitlines()) == 1
    rows = tuple(row for row in shown.rows if row.dataset != "three")
    (sets / "two.json").write_bytes(msgspec.json.encode(msgspec.structs.replace(shown, rows=rows)))
    words[1] = f"{sets}/two.json"
    assert CliRunner().invoke(app, words).exit_code == 0
    assert [look.by for look in test_set_looks.load_all(sets / "lab")] == ["compare", "pool"]
    looks = compared(sets).meta.looks
    assert (looks.before, looks.new) == (5, 0)


def test_in_domain_and_the_rest_are_pooled_apart_in_one_family(sets):
    request = asked(sets)
    comparison = comparisons.compare(settings_of(sets), request)
    result = pool_comparisons.of_comparison(settings_of(sets), request, comparison, in_domain=("two",))
    whole, ours, others = result.rows
    assert (whole.domain, ours.domain, others.domain) == ("", "in-domain", "out-of-domain")
    assert [each.collection for each in ours.collections] == ["two"]
    alone = next(row for row in comparison.rows if row.condition.dataset == "two")
    assert ours.pooled.estimate.difference == pytest.approx(alone.paired.difference)
    assert ours.pooled.estimate.df == 29
    apart = [each for each in pooling.of_comparison(comparison) if each.collection != "two"]
    expected = pool([each.difference for each in apart], [each.error for each in apart])
    assert others.pooled.estimate.difference == pytest.approx(expected.estimate.difference, abs=1e-12)
    smallest = min(result.rows, key=lambda row: row.judgment.p).judgment
    assert smallest.p_corrected == pytest.approx(3 * smallest.p)  # Holm over three rows
    table = pooled_tables.summary(result)
    assert [dict(zip([c.key for c in table.columns], row, strict=True))["domain"] for row in table.rows] == [
        "all",
        "in-domain",
        "out-of-domain",
    ]


def test_a_test_set_that_was_not_compared_on_cannot_be_in_domain(sets):
    request = asked(sets)
    comparison = comparisons.compare(settings_of(sets), request)
    with refused(UsageError, "not-tested", "four"):
        pool_comparisons.of_comparison(settings_of(sets), request, comparison, in_domain=("four",))


def test_the_commands_take_several_collections(sets):
    words = ["base", f"{sets}/out/new-{{dataset}}.run", "--dataset", f"{sets}/sets/*", "-m", "RR@10"]
    places = ["--cache", str(sets / "cache")]
    compared = CliRunner().invoke(
        app, ["compare", *words, *places, "--lab", str(sets / "lab"), "--format", "table", "--in-domain", "one"]
    )
    assert compared.exit_code == 0, compared.output
    assert all(name in compared.output for name in (*NAMES, "out-of-domain"))
    pooled = CliRunner().invoke(app, ["pool", *words, *places, "--lab", str(sets / "lab"), "--format", "tsv"])
    assert pooled.exit_code == 0, pooled.output
    assert pooled.stdout.count("base") >= 1 + len(NAMES)
    measured = CliRunner().invoke(
        app, ["evaluate", "{dataset}:base", "--dataset", f"{sets}/sets/*", *places, "--format", "table"]
    )
    assert measured.exit_code == 0, measured.output
    assert "3 collections" in measured.output


def test_machines_get_every_pooled_figure(sets):
    """The same mean, interval and verdict as for people, whole, for each domain; and the schema's own shape."""
    words = ["compare", "base", f"{sets}/out/new-{{dataset}}.run", "--dataset", f"{sets}/sets/*", "-m", "RR@10"]
    words += ["--cache", str(sets / "cache"), "--lab", str(sets / "lab"), "--in-domain", "two", "--margin", "RR@10=.02"]
    request = asked(sets, margins=("RR@10=.02",))
    comparison = comparisons.compare(settings_of(sets), request)
    expected = pool_comparisons.of_comparison(settings_of(sets), request, comparison, ("two",))
    printed = CliRunner().invoke(app, [*words, "--json"])
    assert printed.exit_code == 0, printed.output
    document = msgspec.json.decode(printed.stdout, type=ComparisonDocument)
    assert [row.domain for row in document.pooled] == ["all", "in-domain", "out-of-domain"]
    assert [row.collections for row in document.pooled] == [3, 1, 2]
    assert document.pooled[0].names.split(", ") == sorted(NAMES)
    for row, of in zip(document.pooled, expected.rows, strict=True):
        judged = of.judgment
        assert (row.system, row.against, row.difference) == ("new", "base", of.pooled.estimate.difference)
        assert (row.low, row.high, row.level, row.p) == (judged.low, judged.high, judged.level, judged.p)
        assert (row.verdict, row.margin, row.margin_is_late) == (judged.verdict, 0.02, True)
    assert document.pooled[0].tau == expected.rows[0].pooled.tau
    assert document.pooled[1].tau is None
    rows, pooled = CliRunner().invoke(app, [*words, "--format", "tsv"]).stdout.split("\n\n")
    assert len(rows.splitlines()) == 1 + 2 * len(NAMES)
    table = list(csv.DictReader(io.StringIO(pooled), delimiter="\t"))
    assert [float(row["difference"]) for row in table] == [row.difference for row in document.pooled]


def test_what_cannot_be_pooled_is_said_to_machines_and_people(sets):
    """The same ranking on each collection: nothing was tested, so nothing is pooled."""
    words = ["compare", "{dataset}:base", "again={dataset}:base", "--dataset", f"{sets}/sets/*", "-m", "RR@10"]
    words += ["--cache", str(sets / "cache"), "--lab", str(sets / "lab")]
    document = msgspec.json.decode(CliRunner().invoke(app, [*words, "--json"]).stdout, type=ComparisonDocument)
    assert document.pooled == ()
    assert any("not pooled" in note for note in document.notes)
    drawn = CliRunner().invoke(app, [*words, "--format", "table"])
    assert "not pooled" in drawn.output


def test_a_file_or_run_that_one_collection_lacks_is_named(sets):
    (sets / "out" / "new-two.run").unlink()
    with refused(MissingError, "file-not-found") as caught:
        comparisons.compare(settings_of(sets), asked(sets))
    assert caught.value.where.endswith("new-two.run")
    (sets / "sets" / "two" / "runs" / "base.run").unlink()
    with refused(MissingError, "file-not-found", "base"):
        comparisons.compare(settings_of(sets), asked(sets))


def test_files_of_several_collections_have_bounds_and_are_looked_at_query_by_query(sets):
    settings, request = settings_of(sets), asked(sets)
    session = ComparisonSession(settings, request)
    comparison = session.compare("base", Terms())
    bounded, _ = bounds_of_comparison.with_bounds(settings, request, comparison)
    assert [row.bounds is not None for row in bounded.rows] == [True] * 3
    for row in comparison.rows:
        view = session.pair("base", "new", row.condition).view("q1")
        assert view.text == f"query 1 of {row.condition.dataset}"
        assert view.left[0].document.startswith(row.condition.dataset)
        assert view.left != view.right


def test_what_to_judge_next_goes_to_a_file_for_each_collection(sets):
    """Each collection has a query q1: in one file they would be one query."""
    words = ["compare", "base", f"{sets}/out/new-{{dataset}}.run", "--dataset", f"{sets}/sets/*", "-m", "RR@10"]
    words += ["--cache", str(sets / "cache"), "--lab", str(sets / "lab"), "--format", "table", "--judge-next"]
    done = CliRunner().invoke(app, [*words, str(sets / "next-{dataset}.run")])
    assert done.exit_code == 0, done.output
    for name in NAMES:
        lines = (sets / f"next-{name}.run").read_text().splitlines()
        assert lines
        assert all(line.split()[2].startswith(name) for line in lines)
        ranks = [line.split()[3] for line in lines if line.split()[0] == "q1"]
        assert ranks == [str(rank) for rank in range(1, len(ranks) + 1)]
    with refused(UsageError, "collections-one-file", "next.run"):
        bounds_of_comparison.judging_files(comparisons.compare(settings_of(sets), asked(sets)), (), sets / "next.run")


def test_collections_that_tables_would_call_the_same_are_refused(sets):
    (sets / "more").mkdir()
    (sets / "sets" / "two").rename(sets / "more" / "one")
    request = ComparisonRequest(
        targets=("{dataset}:base", "again={dataset}:base"), dataset=f"{sets}/sets/one+{sets}/more/one"
    )
    with refused(UsageError, "collections-same-name"):
        comparisons.compare(settings_of(sets), request)


def test_a_placeholder_needs_several_collections(sets):
    request = ComparisonRequest(
        targets=("{dataset}:base", f"{sets}/out/new-{{dataset}}.run"), dataset=f"{sets}/sets/one"
    )
    with refused(UsageError, "collections-unknown"):
        comparisons.compare(settings_of(sets), request)


def test_a_label_may_stand_before_a_pattern(sets):
    (target,) = targets_of(sets / "lab", [f"ours={sets}/out/new-{{dataset}}.run"])
    assert target.label == "ours"


@pytest.mark.parametrize(
    ("dataset", "name"),
    [("beir/scifact/test", "beir-scifact-test"), ("/data/cranfield", "cranfield"), ("dl19", "dl19")],
)
def test_a_collection_is_called_in_files_as_in_tables_without_separators(dataset, name):
    assert file_name_of(dataset) == name


@pytest.mark.parametrize(
    ("one", "other", "is_same"),
    [
        ("msmarco-passage/train/judged", "dl19", True),
        ("msmarco-train", "beir/msmarco/dev", True),
        ("msmarco-train", "nano-beir/msmarco", True),
        ("beir/nfcorpus/train", "beir/nfcorpus/test", True),
        ("beir/nfcorpus/train", "beir/scifact/test", False),
        ("nano-beir/scifact", "beir/scifact/train", True),
        ("/data/med[:60%]", "/data/med[80%:]", True),
        ("/data/med", "/data/adi", False),
        ("pydocs/train", "pydocs/test", True),
    ],
)
def test_a_test_set_is_in_domain_where_its_collection_is_that_of_the_training_data(one, other, is_same):
    assert (training_domains.collection_of(one) == training_domains.collection_of(other)) == is_same


@pytest.mark.slow
def test_a_run_tells_by_its_plan_which_of_its_test_sets_are_in_domain(tmp_path):
    run = make_trained(tmp_path, two_tests=True)
    tests = {"data[70%:]", "apart"}
    settings = run.settings
    assert training_domains.in_domain_of(settings, ("brisk-otter:first-stage", "brisk-otter"), tests) == {"data[70%:]"}
    assert not training_domains.in_domain_of(settings, ("brisk-otter:first-stage",), tests)
    request = ComparisonRequest(targets=("brisk-otter:contrastive", "brisk-otter"), measures=("nDCG@10",))
    comparison = comparisons.compare(settings, request)
    result = pool_comparisons.of_comparison(settings, request, comparison)
    assert [row.domain for row in result.rows] == ["", "in-domain", "out-of-domain"]
    answer = run_answer.of_run(run.folder)
    assert {row.domain for row in answer.pooled.rows} == {"", "in-domain", "out-of-domain"}
    assert "out-of-domain" in " ".join(answer.paragraphs)
    chosen = ComparisonRequest(
        targets=("brisk-otter:contrastive", "brisk-otter"), measures=("nDCG@10",), dataset=f"{tmp_path}/apart+dl20"
    )
    rows = comparisons.compare(settings, chosen).rows
    assert {row.condition.dataset for row in rows} == {"apart"}
