"""Real test collections, where they are at hand: TREC DL in folders, vaswani and cranfield from ir_datasets."""

from __future__ import annotations

import csv
import json
import shutil
from itertools import combinations

import pytest

from tests.model_fixtures import write_tiny

from .test_command_line import cerank

RECIPE = """
name = "real"
chain = ["contrastive", "distill"]

[stages.contrastive]
relevance = {relevance}
steps = 4
learning_rate = 1e-3
group_size = 4
max_length = 32
max_query_length = 12
validation_depth = 5

[stages.distill]
loss = "ranknet"
source = "teacher"
teacher = "{teacher}"
steps = 4
learning_rate = 1e-3
group_size = 4
max_length = 32
max_query_length = 12
validation_depth = 5
"""


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return str(write_tiny(tmp_path_factory.mktemp("base")).folder)


@pytest.mark.slow
def test_a_recipe_trains_on_dl_2021_and_reranks_two_first_stages_of_dl_2020(shared, base, tmp_path):
    train, test = shared / "trec-dl-2021-top100", shared / "trec-dl-2020-top100"
    (tmp_path / "real.toml").write_text(RECIPE.format(relevance=2, teacher="splade-pp-ed"))
    settings = [f"data.train={train}[:80%]", f"data.validation={train}[80%:]", f"data.test=['{test}']"]
    arguments = [part for setting in settings for part in ("--set", setting)]
    arguments += ["--first-stage", "bm25", "--first-stage", "splade-pp-ed", "--base", base, "--depth", "10"]
    arguments += ["--set", "evaluate.measures=['nDCG@10', 'RR(rel=2)@10']", "--label", "dl", "--json"]
    out = json.loads(cerank(tmp_path, "run", "--recipe", "real.toml", "--set", "pooling=mean", *arguments).stdout)
    rows = out["comparison"]
    assert {(row["system"], row["first_stage"]) for row in rows} == {
        (system, first) for system in ("first-stage", "contrastive", "distill") for first in ("bm25", "splade-pp-ed")
    }
    first = next(r for r in rows if (r["system"], r["first_stage"], r["measure"]) == ("first-stage", "bm25", "nDCG@10"))
    assert first["mean"] == pytest.approx(
        0.4796, abs=5e-5
    )  # the published run's own figure, at any depth of 10 or more


def test_compare_of_the_given_runs_agrees_with_pytrec_eval_and_scipy(shared, tmp_path):
    pytrec_eval = pytest.importorskip("pytrec_eval")
    from scipy import stats

    folder = shared / "trec-dl-2020-top100"
    runs = {path.stem: path for path in sorted((folder / "runs").glob("*.run"))}
    qrels: dict[str, dict[str, int]] = {}
    for line in (folder / "qrels").read_text().splitlines():
        query, _, doc, grade = line.split()
        qrels.setdefault(query, {})[doc] = int(grade)
    evaluator = pytrec_eval.RelevanceEvaluator(qrels, {"ndcg_cut.10"})
    values = {}
    for name, path in runs.items():
        raw: dict[str, dict[str, float]] = {}
        for line in path.read_text().splitlines():
            query, _, doc, _, score, _ = line.split()
            raw.setdefault(query, {})[doc] = float(score)
        found = evaluator.evaluate(raw)
        values[name] = [found[query]["ndcg_cut_10"] if query in found else 0.0 for query in sorted(qrels)]
    with (folder / "ndcg10-paired-ttest.tsv").open() as file:
        published = {(row["a"], row["b"]): row for row in csv.DictReader(file, delimiter="\t")}
    for a, b in list(combinations(runs, 2))[:3]:
        out = cerank(tmp_path, "compare", runs[a], runs[b], "--dataset", folder, "-m", "nDCG@10", "--json")
        row = json.loads(out.stdout)["rows"][1]
        test = stats.ttest_rel(values[b], values[a])
        interval = test.confidence_interval()
        assert row["p"] == pytest.approx(test.pvalue, rel=1e-9)
        assert row["difference"] == pytest.approx(sum(values[b]) / 54 - sum(values[a]) / 54, abs=1e-9)
        assert (row["low"], row["high"]) == pytest.approx((interval.low, interval.high), abs=1e-9)
        known = published.get((a, b)) or published[b, a]
        assert row["p"] == pytest.approx(float(known["p"]), rel=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["vaswani", "cranfield"])
def test_an_ir_datasets_id_trains_and_evaluates_offline(shared, base, tmp_path, name):
    home = tmp_path / "ir_datasets"
    shutil.copytree(shared / "ir-datasets-home", home)
    for path in (home, *home.rglob("*")):  # the copy of folders that may only be read can be read only, too
        path.chmod(0o755 if path.is_dir() else 0o644)
    (tmp_path / "real.toml").write_text(RECIPE.format(relevance=1, teacher="embedding"))
    chain = ["--set", 'chain=["contrastive"]', "--set", "pooling=mean"]
    arguments = ["--dataset", name, "--base", base, "--depth", "10", "--json", *chain]
    out = cerank(tmp_path, "run", "--recipe", "real.toml", *arguments, IR_DATASETS_HOME=str(home))
    rows = json.loads(out.stdout)["comparison"]
    assert {row["system"] for row in rows} == {"first-stage", "contrastive"}
    assert {row["dataset"] for row in rows} == {f"{name}[80%:]"}
    assert all(0 < row["mean"] < 1 for row in rows if row["measure"] == "nDCG@10")
