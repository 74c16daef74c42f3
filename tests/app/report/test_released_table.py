"""A paper's table printed again: its own marks and cerank's verdicts from released rankings, and what is missing."""

from __future__ import annotations

import csv
import random
from pathlib import Path

import pytest
from scipy.stats import ttest_rel

from cerank.app.report.paper.released_table import ReleasedRequest, released_tables
from cerank.evaluation import published
from cerank.evaluation.studies.paper_test import paper_column
from cerank.settings import Settings

BASELINE = "monoelectra-base-dual-rank-distillm-colbert"
DL20 = "msmarco-passage-trec-dl-2020-judged"


def settings_of(folder: Path) -> Settings:
    return Settings(lab=folder / "lab", cache=folder / "cache", device="cpu", threads=1, format="")


def asked(folder: Path, test: Path) -> ReleasedRequest:
    return ReleasedRequest(
        paper="rank-distillm",
        tests=(str(test),),
        first_stages=("bm25", "colbertv2"),
        path=folder,
        margins={"nDCG@10": 0.02},
    )


def write_test_set(folder: Path, queries: int = 30) -> Path:
    """A folder called as TREC DL 2020; each query has one relevant document, `qN-0`, of twelve."""
    folder.mkdir(parents=True)
    docs = [f"q{q}-{d}" for q in range(queries) for d in range(12)]
    (folder / "docs.tsv").write_text("".join(f"{doc}\ttext {doc}\n" for doc in docs))
    (folder / "queries.tsv").write_text("".join(f"q{q}\tquery {q}\n" for q in range(queries)))
    (folder / "qrels").write_text("".join(f"q{q} 0 q{q}-0 1\n" for q in range(queries)))
    return folder


def write_model(folder: Path, name: str, places: list[int], skip: int = 0) -> None:
    """A ranking for each query with the relevant document at the place given; the first `skip` queries are left out."""
    (folder / name).mkdir(parents=True)
    lines = []
    for query, place in enumerate(places):
        ids = [f"q{query}-{d}" for d in range(1, 12)]
        ids.insert(place, f"q{query}-0")
        lines += [f"q{query} Q0 {doc} {rank} {50 - rank} x\n" for rank, doc in enumerate(ids[:12], 1) if query >= skip]
    file = f"{DL20}.run" if name == "bm25" else f"bm25_{DL20}.run"
    (folder / name / file).write_text("".join(lines))


@pytest.fixture(scope="module")
def tables(tmp_path_factory: pytest.TempPathFactory):
    folder = tmp_path_factory.mktemp("released")
    draw = random.Random(3)
    test, runs = write_test_set(folder / "trec-dl-2020"), folder / "experiments"
    write_model(runs, BASELINE, [draw.choice([0, 1, 2]) for _ in range(30)])
    write_model(runs, "bm25", [draw.choice([5, 6, 7, 8]) for _ in range(30)])
    write_model(runs, "rankzephyr", [draw.choice([0, 1, 2]) for _ in range(30)], skip=3)
    return released_tables(settings_of(folder), asked(runs, test))


def test_a_row_far_below_has_the_papers_mark_and_the_verdict(tables) -> None:
    rows = {row[0]: row[1] for row in tables.tables[0].rows}
    assert str(rows["first stage"]).endswith("* ↓")
    assert "*" not in str(rows["RankZephyr (teacher)"])
    assert rows["monoT5-3B"] is None
    assert len(rows) == 15


def test_the_papers_test_is_on_queries_of_all_runs_and_differing_figures_are_told(tables) -> None:
    assert "27 in bm25 DL20" in tables.tables[0].notes[1]
    differing = {row[0]: row for row in tables.tables[1].rows}
    assert differing["first stage"][2:4] != (None, None)
    assert tables.tables[1].notes[0].startswith("0 of 3")


def test_each_missing_ranking_is_named(tables) -> None:
    text = "\n".join(tables.missing)
    assert "monot5-3b" in text
    assert "rankzephyr" not in text
    assert "colbertv2 DL20: all" in text


def test_without_the_archive_the_place_and_the_command_are_named(tmp_path: Path) -> None:
    request = ReleasedRequest(paper="rank-distillm", tests=("dl19",), first_stages=("bm25",))
    (missing,) = released_tables(settings_of(tmp_path), request).missing
    assert "cerank data fetch rank-distillm-experiments" in missing
    assert str(tmp_path / "cache" / "downloads" / "rank-distillm-experiments" / "experiments.tar.gz") in missing


def test_the_papers_marks_are_those_of_a_t_test_after_holm() -> None:
    draw = random.Random(1)
    values = {name: {str(q): draw.random() for q in range(40)} for name in ("a", "b", "c", "d")}
    values["c"] = {query: value - 0.15 for query, value in values["a"].items()}
    values["c"]["0"] += 0.2
    found = paper_column(values, "a")
    ps = {
        name: float(ttest_rel(list(values["a"].values()), list(values[name].values())).pvalue)
        for name in ("b", "c", "d")
    }
    order = sorted(ps, key=lambda name: ps[name])
    largest = 0.0
    for place, name in enumerate(order):
        largest = max(largest, min(1.0, (3 - place) * ps[name]))
        assert found.ps[name] == pytest.approx(largest, rel=1e-9)
    assert found.different == {name for name in ps if found.ps[name] < 0.05} >= {"c"}


def test_real_runs_of_dl20_give_the_p_values_of_scipy(shared: Path, tmp_path: Path) -> None:
    data = shared / "trec-dl-2020-top100"
    models = {"bm25": "bm25", "tasb": "rankzephyr", "splade-pp-ed": BASELINE, "bm25-rm3": "rankt5-3b"}
    for run, model in models.items():
        folder = tmp_path / "experiments" / model
        folder.mkdir(parents=True)
        name = f"{DL20}.run" if model == "bm25" else f"bm25_{DL20}.run"
        (folder / name).write_bytes((data / "runs" / f"{run}.run").read_bytes())
    # as re-rankings of BM25's candidates the runs would be cut to these: measured whole, as the reference did
    request = ReleasedRequest(
        paper="rank-distillm", tests=(str(data),), first_stages=("colbertv2",), path=tmp_path / "experiments"
    )
    for path in (tmp_path / "experiments").rglob("bm25_*.run"):
        path.rename(path.with_name(path.name.replace("bm25_", "colbert_")))
    (tmp_path / "experiments" / "bm25").rename(tmp_path / "experiments" / "colbert")
    table, differing = released_tables(settings_of(tmp_path), request).tables
    means = {str(row[0]): str(row[1]) for row in table.rows}
    with (data / "ndcg10-paired-ttest.tsv").open() as file:
        rows = [row for row in csv.DictReader(file, delimiter="\t") if "splade-pp-ed" in {row["a"], row["b"]}]
    expected = {row["a"] if row["b"] == "splade-pp-ed" else row["b"]: float(row["p"]) for row in rows}
    labels = {row.run: row.label for row in published.papers()[1].tables[0].rows if row.run}
    assert means[labels[BASELINE]].startswith("0.720")
    assert means[labels["first_stage"]].startswith("0.480*")
    ps = {str(row[0]): row[6] for row in differing.rows}
    adjusted = sorted((expected[run], run) for run in ("bm25", "bm25-rm3", "tasb"))
    for place, (p, run) in enumerate(adjusted):
        label = labels["first_stage"] if run == "bm25" else labels[models[run]]
        assert ps[label] == pytest.approx((3 - place) * p, rel=1e-3)
