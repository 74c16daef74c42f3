"""The README and the guides tell the truth: every command in them is one of the program's, and most are run here."""

from __future__ import annotations

import itertools
import os
import re
import shutil
from pathlib import Path

import msgspec
import pytest
from typer.main import get_command

from cerank import guides, recipes
from cerank.cli.typer_app import app
from cerank.errors import ExitCode
from cerank.recipes import render
from tests.app.made_runs import changed, made_run
from tests.documents import DOCUMENTS, README, ROOT, blocks, commands
from tests.model_fixtures import WORDS
from tests.warm import started
from tests.worker.small import STAGE, small_plan, write_dataset

NOT_RUN = {  # what is only parsed, and why
    ("tui",): "needs a terminal",
    ("bench",): "takes a minute",
    ("data", "fetch"): "downloads",
    ("data", "import"): "needs files that are published under these names",
    ("data", "tokenize", "msmarco-passage/train"): "needs the collection",
    ("run", "--folds"): "queues five runs; tests/app/rankings/test_cross_validation.py carries three out",
    ("folds",): "needs a finished run for each fold, as there",
    ("compare", "brisk-otter@folds"): "needs them too, as there",
    ("effects",): "needs all runs of a matrix; tests/app/matrix/test_matrix_runs.py carries four out",
    ("report", "ecir2025"): "needs the runs of a whole paper",
    ("report", "rank-distillm-table1", "--released"): "needs the archive; tests/app/report/test_released_table.py",
    ("report", "is-the-second-stage-worth-it"): "needs its fifteen runs",
    ("run", "--base", "electra"): "needs the model",
    ("teach", "zephyr", "--max-cost"): "needs a server and its prices",
    ("teach", "check", "zephyr"): "needs a server",
    ("teach", "labels"): "needs a server",
    ("rerank", "--mteb-task"): "needs the collection; tests/exporting/test_mteb_files.py",
    (
        "run",
        "--track",
    ): "needs the trackers; tests/app/tracking has stand-ins, and the real ones where they are installed",
    ("track",): "needs a tracker, too",
    ("data", "synthesize"): "needs a server; tests/teachers/test_synthesis.py has a scripted one",
    ("run", "--devices"): "needs two GPUs; tests/worker/test_several_devices.py has two processes on a CPU",
    ("copy",): "needs other labs; tests/app/over_ssh copies runs between two, and over a scripted ssh",
    ("pull",): "needs another machine, too",
    ("rerank", "--devices"): "needs two GPUs; tests/inference/test_rerank_command.py has processes on a CPU",
    ("push",): "needs an account on the hub; tests/app/publishing/test_push_model.py pushes to a stand-in",
    ("--on",): "needs a cluster; tests/executors has a scripted one, and a real one where there is one",
    (
        "ps",
        "--lab",
        "ssh://login-node/shared/me/lab",
    ): "needs a machine; tests/cli/test_remote_lab.py has a scripted ssh",
    ("compare", "brisk-otter", "calm-heron"): "needs a machine, too",
    ("serve",): "answers until it is stopped; tests/app/serving/test_serve_model.py asks it",
    ("verify", "--against"): "needs a server; tests/app/serving/test_serve_model.py starts some",
    ("gate",): "its exit code is its answer; tests/app/comparison/test_release_gate.py runs it",
    ("rerank", "http://localhost:8080/rerank"): "needs a server",
    ("pool", "dl20.json"): "needs saved comparisons; tests/app/comparison/test_pool_comparisons.py makes them",
    ("depths",): "goes deeper than the candidates of a test; tests/app/rankings runs it",
    ("retrieve",): "takes more calls than a test's collection has documents; tests/app/rankings runs it",
    ("stop",): "needs a run that is going on; tests/end_to_end stops and resumes one",
    ("resume",): "needs a run that was stopped",
    ("rm", "tuning"): "would delete trials that later commands read; tests/app/run_views/test_several_runs.py does",
}


@pytest.mark.parametrize("name", DOCUMENTS)
def test_every_command_shown_is_understood_by_the_programs_own_parser(name):
    for words in commands(DOCUMENTS[name]):
        command, context = get_command(app), None
        rest = list(words)
        while True:
            context = command.make_context(command.name, rest, parent=context)
            if not hasattr(command, "commands") or not context._protected_args + context.args:
                break
            _, command, rest = command.resolve_command(context, context._protected_args + context.args)


def _is_only_parsed(words):
    return any(words[: len(kind)] == list(kind) or set(kind) <= set(words) for kind in NOT_RUN)


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with everything that the documents' commands name, at the size of a test."""
    folder = tmp_path_factory.mktemp("documents")
    short = STAGE | {"steps": 4, "validate_every": 4}
    distill = {**short, "loss": "ranknet", "source": "teacher", "teacher": "oracle"}
    plan, settings = small_plan(folder, stages={"contrastive": short, "distill": distill})
    (folder / "my.toml").write_text(render(plan.recipe))
    _write_distinct_queries(write_dataset(folder / "my-collection"))
    shutil.copytree(folder / "my-collection", folder / "my-training-data")
    for name in ("trec-dl-2020", "dl20", "dl21"):  # each with the runs that the commands take from it
        data = write_dataset(folder / name, seed=len(name))
        for run in ("bm25", "splade-pp-ed", "colbert"):
            shutil.copy(data / "runs" / "oracle.run", data / "runs" / f"{run}.run")
    oracle = folder / "trec-dl-2020" / "runs" / "oracle.run"
    lines = oracle.read_text().splitlines()
    for place, name in enumerate(("bm25", "tasb", "splade", "colbertv2")):  # each without some other lines
        kept = [line for number, line in enumerate(lines) if number % 7 != place]
        (folder / f"{name}.run").write_text("\n".join(kept) + "\n")
    declared = {"nDCG@10": 0.02}
    made_run(settings, changed(plan, seed=43), "calm-ibis", skill=0.3)
    made_run(settings, changed(plan, seed=44), "bold-crane", skill=0.3)
    claims = re.search(r"```toml\n(title = .*?)```", DOCUMENTS["verdicts"], re.DOTALL)
    assert claims is not None
    (folder / "dl20.toml").write_text(claims[1])
    (rates,) = (block for block in blocks(DOCUMENTS["matrices"], "toml") if block.startswith('name = "rates"'))
    (folder / "rates.toml").write_text(rates)
    for block in blocks(DOCUMENTS["sweeps"], "toml"):
        name, _, text = block.partition("\n")
        (folder / name.removeprefix("# ")).write_text(text.replace("trials = 24", "trials = 2"))
    planned = re.search(r'```toml\n(title = "Is .*?)```', DOCUMENTS["verdicts"], re.DOTALL)
    assert planned is not None
    (folder / "plan.toml").write_text(planned[1])
    (folder / "out").mkdir()
    (folder / "finding.md").write_text("# A finding\n\nThe loss falls in both stages.\n")
    (folder / "loss.svg").write_text('<svg xmlns="http://www.w3.org/2000/svg"/>')
    stages = plan.recipe.stages
    slower = msgspec.structs.replace(stages["distill"], learning_rate=1e-4)
    recipe = msgspec.structs.replace(plan.recipe, name="staged", stages={**stages, "distill": slower})
    staged = msgspec.structs.replace(plan, recipe=recipe)
    for seed, label in ((42, "quiet-heron"), (43, "swift-newt"), (44, "warm-finch")):
        made_run(settings, changed(staged, seed=seed, margins=declared), label, skill=0.6)
    done = cerank(folder, ["run", "--recipe", "my.toml", "--label", "brisk-otter"])
    assert done.returncode == 0, done.stderr
    _declare_teachers(folder, plan.recipe)
    return folder


def _write_distinct_queries(dataset: Path) -> None:
    """Replace the queries of a dataset: no two of its parts may have one in common."""
    texts = [" ".join(words) for words in itertools.combinations(WORDS, 3)]
    (dataset / "queries.tsv").write_text("".join(f"q{number}\t{texts[number]}\n" for number in range(40)))


def _declare_teachers(folder: Path, recipe) -> None:
    """Write a recipe with the teachers of the guide: one by a server that nobody starts, and one in process."""
    shipped = DOCUMENTS["teachers"].split("[teachers.zephyr]")[1].split("\n[stages")[0]
    model = next((folder / "lab" / "runs").glob("*/stages/2-distill/final"))
    reranker = f'[teachers.reranker]\nkind = "cross-encoder"\nmodel = "{model}"\ndepth = 10\n'
    (folder / "taught.toml").write_text(f"{render(recipe)}\n[teachers.zephyr]{shipped}\n{reranker}")


def cerank(place: Path, words):
    """Run a command as a user would, in the folder, with a lab and a cache there."""
    environ = {**os.environ, "CERANK_LAB": str(place / "lab"), "CERANK_CACHE": str(place / "cache")}
    return started("cerank", words, cwd=place, environ={**environ, "CERANK_THREADS": "1", "HF_HUB_OFFLINE": "1"})


@pytest.mark.slow
def test_every_command_shown_runs(place, minilm):
    """A `run` is only planned; the fixture has carried one out."""
    tried, failures = [], []
    for text in DOCUMENTS.values():
        for words in commands(text):
            if words in tried or _is_only_parsed(words):
                continue
            tried.append(words)
            asked = [*words, "--dry-run"] if words[0] == "run" and "--dry-run" not in words else words
            asked = [word for word in asked if word != "--detach"]
            done = cerank(place, asked)
            if done.returncode:
                failures.append((" ".join(words), done.returncode, done.stderr))
    assert not failures, "\n\n".join(f"cerank {words}: exit code {code}\n{text}" for words, code, text in failures)
    assert len(tried) > 40


def test_what_is_only_parsed_is_shown_somewhere():
    shown = [words for text in DOCUMENTS.values() for words in commands(text)]
    for kind in NOT_RUN:
        assert any(words[: len(kind)] == list(kind) or set(kind) <= set(words) for words in shown), kind


def test_the_readme_is_short_and_names_every_guide():
    assert len(README.splitlines()) <= 150
    assert re.findall(r"^\| \[([a-z-]+)\]\(cerank/guides/\1\.md\)", README, re.MULTILINE) == list(guides.ORDER)


@pytest.mark.parametrize("name", DOCUMENTS)
def test_every_file_and_guide_it_refers_to_is_there(name):
    text = DOCUMENTS[name]
    links = re.findall(r"\]\((?!https?:)([^)#]+)\)", text)
    files = re.findall(r"`((?:tests|cerank|assets)/[\w./-]+)`", text)
    assert [path for path in links + files if not (ROOT / path).exists()] == []
    named = re.findall(r"`cerank guide ([a-z-]+)`", text)
    assert set(named) <= set(guides.ORDER)


def test_the_test_command_is_what_continuous_integration_runs():
    command = README.split("### Run the tests")[1].split("```sh\n")[1].split("\n```")[0]
    pytest_part = command.split(".venv/bin/")[-1]
    assert pytest_part.startswith("python -m pytest")
    assert pytest_part in (ROOT / ".ci" / "run").read_text()


def test_the_first_command_ends_in_the_main_job():
    (command,) = [line for line in "".join(blocks(README, "sh")).splitlines() if "venv" in line and "recipe" in line]
    assert command.endswith("cerank run --recipe contrastive-then-distill")


def test_the_table_of_commands_holds_every_command_and_no_other():
    known = {entry.name for entry in get_command(app).listed if not entry.is_hidden}
    table = re.findall(r"^\| (`.*?`) \|", README, re.MULTILINE)
    assert {name for cell in table for name in re.findall(r"`([a-z]+)`", cell)} == known


def test_every_package_on_the_map_is_there_and_none_is_missing():
    (drawn,) = [block for block in blocks(DOCUMENTS["architecture"]) if block.startswith("cerank/\n")]
    named = set(re.findall(r"^  ([a-z]+)/ ", drawn, re.MULTILINE))
    assert named == {path.name for path in (ROOT / "cerank").iterdir() if (path / "__init__.py").is_file()}


def test_the_recipe_shown_loads(tmp_path):
    text, losses, of_sets, sources, filters, baselines, filter_of_stage, options, order, best = blocks(
        DOCUMENTS["recipes"], "toml"
    )
    # a key before the file's tables is the recipe's own
    (tmp_path / "gentle.toml").write_text(baselines + text + sources + filters)
    recipe = recipes.load(str(tmp_path / "gentle.toml")).recipe
    assert recipe.base == "roberta"
    assert len(recipe.baselines) == 2
    assert len(recipe.stages["contrastive"].negative_sources) == 4
    assert recipe.stages["contrastive"].false_negatives.is_used
    (tmp_path / "both.toml").write_text(f'extends = "joint"\nname = "both"\n{losses}')
    parts = recipes.load(str(tmp_path / "both.toml")).recipe.stages["joint"].losses
    assert [(part.name, part.teacher, part.weight) for part in parts] == [("lce", "", 1.0), ("kl", "embedding", 0.5)]
    (tmp_path / "sets.toml").write_text(f'extends = "joint"\nname = "sets"\n{of_sets}')
    assert [len(part.sets) for part in recipes.load(str(tmp_path / "sets.toml")).recipe.stages["joint"].losses] == [
        1,
        1,
    ]
    optimized = f'extends = "contrastive-then-distill"\nname = "optimized"\n{options}{best}{order}'
    (tmp_path / "optimized.toml").write_text(optimized)
    stages = recipes.load(str(tmp_path / "optimized.toml")).recipe.stages
    assert stages["contrastive"].optimizer == "lion"
    assert (stages["distill"].curriculum.is_on, len(stages["distill"].keep_best)) == (True, 2)
    (tmp_path / "filtered.toml").write_text(f'extends = "contrastive"\nname = "filtered"\n{filter_of_stage}')
    assert recipes.load(str(tmp_path / "filtered.toml")).recipe.stages["contrastive"].filter.is_on


def test_the_teacher_prices_and_template_shown_load(tmp_path):
    from cerank.teachers import prompts
    from cerank.teachers.budget import price_of

    recipe, uses, prices, batch, template = blocks(DOCUMENTS["teachers"], "toml")
    for name, text in (("taught", recipe), ("prices", prices), ("template", template)):
        (tmp_path / f"{name}.toml").write_text(text)
    (tmp_path / "more.toml").write_text(f'extends = "taught.toml"\nname = "more"\n{batch}{uses}')
    more = recipes.load(str(tmp_path / "more.toml")).recipe
    assert more.teachers["judge"].batch
    assert (more.evaluate.teachers, more.stages["contrastive"].labels_by) == (("zephyr",), "judge")
    spec = recipes.load(str(tmp_path / "taught.toml")).recipe.teachers["zephyr"]
    price = price_of(spec, tmp_path / "prices.toml")
    assert (spec.kind, price.input, price.date) == ("listwise", 0.2, "2026-11-01")
    assert prompts.load(str(tmp_path / "template.toml"), "listwise").suffix == "Answer as [2] > [1]."
    named = DOCUMENTS["teachers"].split("Shipped templates:")[1].split("`template`")[0]
    assert sorted(re.findall(r"`([a-z-]+)`", named)) == prompts.shipped()


def test_the_exit_codes_shown_are_those_of_the_program():
    section = DOCUMENTS["output"].split("## Exit codes")[1]
    assert {int(number) for number in re.findall(r"^\| (\d+) \|", section, re.MULTILINE)} == set(ExitCode)
