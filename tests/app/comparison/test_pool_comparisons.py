"""The command `cerank pool`: saved comparisons and a run's test sets, pooled; bad requests refused by name."""

from __future__ import annotations

import json
from pathlib import Path
from xml.etree import ElementTree

import msgspec
import pytest
import scipy.stats
from typer.testing import CliRunner

from cerank.app.comparison import export_comparison
from cerank.app.comparison.several_collections import pool_comparisons, pooled_tables, training_domains
from cerank.cli.typer_app import app
from cerank.evaluation.compare import Comparison, Condition, Measured, System, compare
from cerank.evaluation.studies import pooling
from cerank.evaluation.studies.random_effects import pool
from cerank.text.table_data import records
from tests.json_documents import document_of

SHIFTS = {"one": (0, 2), "two": (0, 1), "three": (1, 2)}  # collection -> rank that base, better lose to


def run(*words: str, code: int = 0):
    found = CliRunner().invoke(app, [*words])
    assert found.exit_code == code, (found.output, found.exception)
    return found


@pytest.fixture
def saved(tmp_path: Path) -> dict[str, Path]:
    """Three collections of thirty queries with two rankings each, compared, as `compare --json` prints it."""
    out = {}
    for number, name in enumerate(SHIFTS):
        folder = tmp_path / name
        folder.mkdir()
        lines: dict[str, list[str]] = {"base": [], "new": []}
        for query in range(30):
            ranks = {"base": 2 + (query * (number + 2)) % 4, "new": 1 + (query * (number + 3)) % 3}
            for label, rank in ranks.items():
                docs = [f"d{place}" for place in range(8)]
                docs.insert(rank - 1, "good")
                lines[label] += [f"q{query} Q0 {doc} {at} {50 - at} t\n" for at, doc in enumerate(docs, 1)]
        (folder / name).write_text("".join(f"q{query} 0 good 1\nq{query} 0 x{name} 0\n" for query in range(30)))
        for label, text in lines.items():
            (folder / f"{label}.run").write_text("".join(text))
        rankings = [str(folder / "base.run"), str(folder / "new.run")]
        words = ["compare", *rankings, "--qrels", str(folder / name), "-m", "RR@10"]
        for kind in ("--json", "--full"):
            document = run(*words, kind, "--lab", str(tmp_path / "lab")).stdout
            (out.setdefault(f"{name}{kind}", tmp_path / f"{name}{kind}.json")).write_text(document)
    return out


def test_saved_comparisons_are_pooled_as_their_summaries_say(saved, tmp_path):
    files = [str(saved[f"{name}--json"]) for name in SHIFTS]
    printed = run("pool", *files, "--json", "--margin", "RR@10=.5", "--svg", str(tmp_path / "f.svg")).stdout
    found = document_of(printed, "pooled", "collections")
    rows = [json.loads(Path(name).read_text())["rows"][1] for name in files]
    expected = pool([row["difference"] for row in rows], [row["error"] for row in rows])
    (line,) = found["pooled"]
    assert line["difference"] == expected.estimate.difference
    assert (line["low"], line["high"]) == pytest.approx(expected.estimate.interval(0.05))
    assert line["collections"] == 3
    assert line["margin"] == 0.5
    assert [row["collection"] for row in found["collections"]] == [*SHIFTS, "mean", "a new collection"]
    picture = ElementTree.fromstring((tmp_path / "f.svg").read_text())
    assert len(picture.findall("{*}rect")) == 3
    assert len(picture.findall("{*}polygon")) == 1


def test_whole_comparisons_give_the_same_as_their_summaries(saved):
    both = [
        json.loads(run("pool", *(str(saved[f"{name}{kind}"]) for name in SHIFTS), "--json").stdout)["pooled"][0]
        for kind in ("--json", "--full")
    ]
    assert both[0] == pytest.approx(both[1])


def test_the_terminal_draws_each_collection_and_says_that_two_are_few(saved):
    files = [str(saved[f"{name}--json"]) for name in ("one", "two")]
    shown = run("pool", *files, "--format", "table").output
    assert shown.count("■") == 2
    assert shown.count("◆") == 1


@pytest.mark.parametrize(
    ("names", "more", "code"),
    [
        (["one--json"], [], "several collections"),
        (["one--json", "one--json"], [], "given twice"),
        (["one--json", "two--json"], ["--margin", "RR@10=2"], "margin"),
        (["one--json", "two--json"], ["--margin", "nDCG@10=.02"], "not compared"),
        (["one--json", "two--json"], ["-m", "nDCG@10"], "several collections"),
        (["one--json", "two--json"], ["gone.json"], "no such file"),
        (["one--json", "two--json"], ["bm25.run"], "cannot be mixed"),
    ],
)
def test_what_cannot_be_pooled_is_refused(saved, names, more, code):
    found = CliRunner().invoke(app, ["pool", *(str(saved[name]) for name in names), *more])
    assert code in str(found.exception)


def test_a_file_that_is_no_comparison_is_refused(saved, tmp_path):
    (tmp_path / "other.json").write_text('{"meta": 3}')
    found = CliRunner().invoke(app, ["pool", str(saved["one--json"]), str(tmp_path / "other.json")])
    assert "not a saved comparison" in str(found.exception)


def test_one_collection_under_two_names_is_refused(saved):
    text = saved["one--json"].read_text().replace('"dataset": "one"', '"dataset": "again"')
    other = saved["one--json"].with_name("again.json")
    other.write_text(text)
    found = CliRunner().invoke(app, ["pool", str(saved["one--json"]), str(other)])
    assert "same qrels" in str(found.exception)


def test_two_collections_of_one_name_are_told_apart_by_their_qrels(saved):
    other = saved["two--json"].with_name("renamed.json")
    other.write_text(saved["two--json"].read_text().replace('"dataset": "two"', '"dataset": "one"'))
    found = json.loads(run("pool", str(saved["one--json"]), str(other), "--json").stdout)
    names = [row["collection"] for row in found["collections"][:2]]
    assert len(set(names)) == 2
    assert all(name.startswith("one (") for name in names)


def test_several_first_stages_of_a_collection_are_averaged_by_query_and_count_once():
    def system(label: str, gain: float) -> System:
        entries = []
        for number, test in enumerate(("c", "d")):
            for first, sign in (("bm25", 1), ("dense", -1)):
                values = {f"q{at}": 0.5 + gain * (at % 3) + sign * 0.01 * (at % 2) * gain for at in range(12 + number)}
                where = Condition(test, first)
                entries.append(Measured(condition=where, qrels_sha256=test, values={"nDCG@10": values}))
        return System(label=label, measured=tuple(entries))

    comparison = compare([system("a", 0.0), system("b", 0.1)], ["nDCG@10"])
    rows = pooling.of_comparison(comparison)
    assert [(row.collection, row.first_stages) for row in rows] == [("c", ("bm25", "dense")), ("d", ("bm25", "dense"))]
    assert rows[0].error == pytest.approx(0.1 * (2 / 3 * 12 / 11) ** 0.5 / 12**0.5)  # the first stages' ±.001 cancels
    (row,) = pooling.pooled(rows).rows
    assert len(row.collections) == 2
    assert "12 query ids" in pooling.shared_queries(comparison)[0]


def test_summaries_of_several_first_stages_are_taken_as_fully_dependent():
    row = pooling.CollectionDifference(
        collection="c", measure="RR@10", left="a", right="b", queries=9, difference=0.1, error=0.02, first_stages=("x",)
    )
    (one,) = pooling.merged([row, msgspec.structs.replace(row, difference=0.3, error=0.04, first_stages=("y",))])
    assert (one.difference, one.error) == pytest.approx((0.2, 0.03))


@pytest.mark.parametrize(("differences", "is_empty"), [((0.02, 0.02001), True), ((0.02, 0.03), False)])
def test_an_empty_interval_of_tau_has_no_figure(differences, is_empty):
    rows = [
        pooling.CollectionDifference(
            collection=name, measure="nDCG@10", left="a", right="b", queries=50, difference=difference, error=0.01
        )
        for name, difference in zip(("one", "two"), differences, strict=True)
    ]
    result = pooling.pooled(rows)
    of = result.rows[0].pooled
    assert bool(of.q < scipy.stats.chi2.ppf(0.025, 1)) is is_empty
    (line,) = records(pooled_tables.machine_table(result))
    assert (line["tau_low"] is None, line["tau_high"] is None) == (is_empty, is_empty)
    table = pooled_tables.summary(result)
    (shown,) = records(table)
    assert isinstance(shown["tau_high"], str) is is_empty
    assert any("tau up to" in note for note in table.notes) is is_empty


def few_on_one() -> Comparison:
    """Two systems on three collections; on "one" two queries of twenty differ, on the others all."""
    rows = {"base": [], "new": []}
    for name, gains in (
        ("one", [0.3, -0.28, *[0.0] * 18]),
        ("two", [0.1 * (-1) ** at + 0.01 * at for at in range(20)]),
        ("three", [0.2 * (-1) ** at + 0.02 * at for at in range(20)]),
    ):
        for label, scale in (("base", 0), ("new", 1)):
            values = {f"{name}{at}": 0.4 + scale * gain for at, gain in enumerate(gains)}
            condition = Condition(name, "bm25")
            rows[label].append(Measured(condition=condition, qrels_sha256=name, values={"nDCG@10": values}))
    return compare([System(label=label, measured=tuple(of)) for label, of in rows.items()], ["nDCG@10"])


def test_a_domain_of_one_collection_has_that_collections_own_test():
    comparison = few_on_one()
    own = next(row for row in comparison.rows if row.condition.dataset == "one")
    assert own.judgment.basis == "exact sign flips"
    result = pool_comparisons.pooled_rows(comparison, frozenset({"one"}))
    line = next(row for row in result.rows if row.domain == "in-domain")
    assert (line.judgment.p, line.judgment.basis) == (own.judgment.p, own.judgment.basis)
    assert line.pooled.estimate.p() != pytest.approx(own.judgment.p)
    assert any("sign flips" in note for note in pooled_tables.summary(result).notes)
    assert msgspec.json.decode(msgspec.json.encode(result), type=pooling.PooledResult) == result  # as reports are kept


def test_a_saved_summary_of_few_differing_queries_says_that_it_is_judged_by_t(tmp_path):
    path = tmp_path / "saved.json"
    path.write_text(export_comparison.document(few_on_one()))
    done = run("pool", str(path), "--in-domain", "one", "--format", "table")
    assert "t-test" in done.output
    path.write_text(export_comparison.complete(few_on_one()))
    done = run("pool", str(path), "--in-domain", "one", "--format", "table")
    assert "t-test" not in done.output


def test_a_part_of_a_test_set_is_known_by_the_last_part_of_its_path():
    tests = {"med[fold=1/5]", "adi"}
    assert training_domains.named_in_domain(["./sets/med[fold=1/5]"], tests) == {"med[fold=1/5]"}
    assert training_domains.named_in_domain(["sets/adi/"], tests) == {"adi"}
