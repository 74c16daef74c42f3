"""A person's path through the command line, with real files and real workers."""

from __future__ import annotations

import gzip
import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest

from cerank.datasets.open_datasets import open_dataset
from cerank.recipes import render
from tests.warm import started
from tests.worker.small import small_plan, small_run


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with a recipe file `small.toml`, its data and base, and room for a lab."""
    folder = tmp_path_factory.mktemp("journey")
    plan, _ = small_plan(folder)
    (folder / "small.toml").write_text(render(plan.recipe))
    return folder


def cerank(place, *arguments, code=0, is_cold=False, **environment):
    """What a command prints; its exit code must be `code`, and no traceback reaches anybody.

    A command is a fork of a process that has imported all it needs, or with `is_cold` a Python of its own.
    """
    given = {"CERANK_LAB": str(place / "lab"), "CERANK_CACHE": str(place / "cache"), "CERANK_THREADS": "1"}
    environ = {**os.environ, **given, **environment}
    if is_cold:
        command = [sys.executable, "-m", "cerank", *map(str, arguments)]
        done = subprocess.run(command, capture_output=True, text=True, cwd=place, env=environ, timeout=300, check=False)
    else:
        done = started("cerank", arguments, cwd=place, environ=environ)
    assert done.returncode == code, done.stderr
    assert "Traceback" not in done.stderr + done.stdout
    return done


@pytest.fixture(scope="module")
def first(place):
    """A finished run labeled `first`, and what the command printed."""
    return cerank(place, "run", "--recipe", "small.toml", "--label", "first", "--json", is_cold=True)


def test_a_list_of_many_runs_does_not_crash_where_threads_read_the_first_plans(tmp_path):
    plan, settings = small_plan(tmp_path)
    for second in range(40):
        small_run(tmp_path, plan, settings, second)
    for _ in range(3):  # msgspec resolves the fields of a plan once in a process
        done = cerank(tmp_path, "ps", "--json", is_cold=True)
        assert len(json.loads(done.stdout)) == 40


def test_run_prints_its_table_and_where_its_files_are(place, first):
    found = json.loads(first.stdout)
    rows = {(row["system"], row["first_stage"], row["measure"]): row for row in found["comparison"]}
    assert {system for system, _, _ in rows} == {"first-stage", "contrastive", "distill"}
    row = rows["distill", "bm25", "nDCG@10"]
    assert row["low"] <= row["difference"] <= row["high"]
    assert 0 <= row["p"] <= row["p_corrected"] <= 1
    assert row["queries"] == 12
    assert all(Path(entry["value"]).exists() for entry in found["files"])
    assert re.search(r"step 10\b", first.stderr)


def test_ps_show_and_logs_tell_of_it_by_its_label(place, first):
    (row,) = json.loads(cerank(place, "ps", "--json").stdout)
    assert "finished" in row["state"]
    assert row["label"] == "first"
    shown = cerank(place, "show", "first", "--json", is_cold=True)
    assert json.loads(shown.stdout)["comparison"]
    assert "stage finished: distill" in cerank(place, "logs", "first").stdout


def test_compare_takes_runs_stages_and_run_files_and_one_correction_covers_all_of_them(place, first):
    name = json.loads(cerank(place, "ps", "--json").stdout)[0]["run"]
    file = next((place / "lab" / "runs" / name / "rankings" / "distill").glob("*bm25.run.gz"))
    out = cerank(place, "compare", "first:first-stage", "first:contrastive", "first", file, "-m", "nDCG@10", "--json")
    rows = [row for row in json.loads(out.stdout)["rows"] if row["p"] is not None]
    assert len(rows) == 3 * 2
    assert all(row["p_corrected"] >= row["p"] for row in rows)
    same = [row for row in rows if row["first_stage"] == "bm25" and row["system"] != "first:contrastive"]
    assert same[0]["mean"] == pytest.approx(same[1]["mean"], abs=1e-12)


def test_compare_of_run_files_alone_needs_qrels_and_says_so(place, first):
    name = json.loads(cerank(place, "ps", "--json").stdout)[0]["run"]
    files = sorted((place / "lab" / "runs" / name / "rankings").glob("*/*bm25.run.gz"))[:2]
    refused = cerank(place, "compare", *files, code=2)
    assert "--qrels FILE" in refused.stderr


def test_rerank_and_evaluate_agree_with_the_run_that_made_the_checkpoint(place, first):
    data = place / "data"
    arguments = ["--first-stage", "bm25", "--dataset", f"{data}[70%:]", "--depth", 8, "-o", "again.run.gz"]
    assert cerank(place, "rerank", "first", *arguments).stdout.strip() == "again.run.gz"
    assert "--replace" in cerank(place, "rerank", "first", *arguments, code=2).stderr
    streamed = cerank(place, "rerank", "first", *arguments[:-1], "-").stdout
    assert streamed == gzip.decompress((place / "again.run.gz").read_bytes()).decode()
    out = cerank(place, "evaluate", "again.run.gz", "--dataset", f"{data}[70%:]", "-m", "nDCG@10", "--json")
    (row,) = json.loads(out.stdout)
    assert row["queries"] > 1
    assert len(row["qrels_sha256"]) == 64
    shown = json.loads(cerank(place, "show", "first", "--json").stdout)["comparison"]
    wanted = [
        r["mean"] for r in shown if (r["system"], r["first_stage"], r["measure"]) == ("distill", "bm25", "nDCG@10")
    ]
    assert row["nDCG@10"] == pytest.approx(wanted[0], abs=1e-6)


@pytest.mark.slow
def test_a_detached_run_is_stopped_paused_resumed_and_removed(place):
    name = cerank(
        place, "run", "--recipe", "small.toml", "--detach", "--set", "stages.distill.steps=5000"
    ).stdout.strip()
    folder = place / "lab" / "runs" / name
    while not (folder / "readings.jsonl").exists() or (folder / "readings.jsonl").stat().st_size < 200:
        assert not (folder / "failure.json").exists()
        time.sleep(0.01)  # a loop that never waits takes the processor from the worker
    assert "held by" in cerank(place, "rm", name, "--yes", code=4).stderr
    cerank(place, "stop", name, "--wait")
    assert "paused" in cerank(place, "ps").stdout
    resumed = subprocess.Popen(
        [sys.executable, "-m", "cerank", "resume", name, "--lab", place / "lab"], stderr=subprocess.PIPE, text=True
    )
    assert any(re.search(r"step \d+: nDCG@10", line) for line in resumed.stderr)  # it follows what the new worker does
    cerank(place, "stop", name, "--wait")
    assert "`cerank resume" in resumed.communicate(timeout=300)[1]
    assert resumed.returncode == 75
    cerank(place, "rm", name, "--yes")
    assert not folder.exists()


def test_dry_run_shows_inputs_and_work_and_makes_no_run(place):
    before = sorted((place / "lab" / "runs").glob("*")) if (place / "lab" / "runs").exists() else []
    out = json.loads(
        cerank(place, "run", "--recipe", "small.toml", "--dry-run", "--pairs-per-second", "100", "--json").stdout
    )
    assert {row["role"] for row in out["inputs"]} == {"base", "dataset", "first_stage", "teacher"}
    work = {row["part"]: row["pairs"] for row in out["work"]}
    assert work["train contrastive"] == 30 * 2 * 4
    assert work["all"] == sum(value for part, value in work.items() if part != "all")
    assert (sorted((place / "lab" / "runs").glob("*")) if (place / "lab" / "runs").exists() else []) == before


BROKEN = {
    "qrels": ("q0 0 d0\n", "qrels:1"),
    "queries.tsv": ("q0\n", "queries.tsv:1"),
    "docs.tsv": ("d0\tx\nd0\ty\n", "docs.tsv:2"),
    "runs/oracle.run": ("q0 Q0 d0 1 nan t\n", "oracle.run:1"),
}


@pytest.mark.parametrize("name", sorted(BROKEN))
def test_a_malformed_file_gives_one_paragraph_with_its_line_exit_2_and_no_run(tmp_path, name):
    plan, _ = small_plan(tmp_path)
    (tmp_path / "small.toml").write_text(render(plan.recipe))
    text, where = BROKEN[name]
    (tmp_path / "data" / name).write_text(text)
    refused = cerank(tmp_path, "run", "--recipe", "small.toml", code=2)
    assert refused.stderr.startswith("error: ")
    assert where in refused.stderr
    assert not refused.stdout
    assert not (tmp_path / "lab").exists()


@pytest.mark.parametrize(
    ("recipe", "expected"),
    [
        ("name = 'x'\nchain = ['a']\n[stages.a]\nstep = 3\n", "small.toml:4"),
        ("name = \n", "small.toml:1"),
        ("extends = 'contrastive'\nname = 'x'\nbase = 'minlm'\n", "did you mean 'minilm'?"),
        ("extends = 'contrastive'\nname = 'x'\n[stages.contrastive]\nloss = 'lcee'\n", "did you mean 'lce'?"),
        ("extends = 'distill'\nname = 'x'\n[stages.distill]\nloss = 'lce'\n", "learns from"),
        (
            "extends = 'contrastive'\nname = 'x'\n[evaluate]\nmeasures = ['AP(rel=2)']\n",
            "largest grade in the qrels is 1",
        ),
    ],
)
def test_a_malformed_recipe_gives_one_paragraph_exit_2_and_no_run(place, tmp_path, recipe, expected):
    (tmp_path / "small.toml").write_text(recipe)
    cache = place / "cache"
    open_dataset("pydocs/train", cache)  # for those that extend a shipped recipe: copied here, and not built anew
    refused = cerank(tmp_path, "run", "--recipe", "small.toml", code=2, CERANK_CACHE=str(cache))
    assert refused.stderr.startswith("error: ")
    assert expected in refused.stderr
    assert not (tmp_path / "lab").exists()


def test_an_unknown_run_is_refused_with_the_nearest_name(place, first):
    assert "'first'" in cerank(place, "show", "frist", code=2).stderr


def test_a_base_that_is_nowhere_is_missing_data_with_its_own_exit_code(place):
    refused = cerank(
        place, "run", "--recipe", "small.toml", "--base", "nobody/no-such-model", code=3, HF_HUB_OFFLINE="1"
    )
    assert "nobody/no-such-model" in refused.stderr


def test_config_show_names_the_source_of_every_value(place):
    rows = {
        row["setting"]: row for row in json.loads(cerank(place, "config", "show", "--device", "cpu", "--json").stdout)
    }
    assert rows["lab"]["source"] == "CERANK_LAB"
    assert rows["device"] == {"setting": "device", "value": "cpu", "source": "--device"}
    assert rows["format"]["source"] == "--json" or rows["format"]["value"] == "json"
