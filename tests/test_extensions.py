"""The guide `extending` does what it says: its code is installed as a package, and everything it adds is used."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tomllib

import msgspec
import pytest

from cerank.app import plan_view
from cerank.errors import RunFailedError
from cerank.planning.stage_keys import stage_keys
from cerank.recipes import render
from cerank.registry import GROUP, Extension, check_extensions
from cerank.runs import run_store
from tests.documents import DOCUMENTS, blocks
from tests.refusals import refused
from tests.worker.small import STAGE, small_plan

GUIDE = DOCUMENTS["extending"]
USED = {
    ("loss", "squared-hinge"),
    ("sampler of negatives", "top-half"),
    ("first stage", "word-overlap"),
    ("executor", "nice"),
}


def install(folder, source):
    """Write the guide's module and the metadata that `pip install` makes of its pyproject.toml."""
    (table,) = blocks(GUIDE, "toml")
    project = tomllib.loads(table)["project"]
    folder.mkdir(exist_ok=True)
    (folder / "my_cerank.py").write_text(source)
    about = folder / f"my_cerank-{project['version']}.dist-info"
    about.mkdir(exist_ok=True)
    points = project["entry-points"][GROUP]
    (about / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: {project['version']}\n")
    (about / "entry_points.txt").write_text(f"[{GROUP}]\n" + "".join(f"{key} = {at}\n" for key, at in points.items()))
    return folder


def cerank(place, site, *words, **environ):
    paths = [str(site), *([os.environ["PYTHONPATH"]] if os.environ.get("PYTHONPATH") else [])]
    given = {**os.environ, "PYTHONPATH": os.pathsep.join(paths), "CERANK_LAB": str(place / "lab"), **environ}
    given |= {"CERANK_CACHE": str(place / "cache"), "CERANK_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    command = [sys.executable, "-m", "cerank", *words]  # a process of its own: it finds packages by PYTHONPATH
    return subprocess.run(command, check=False, cwd=place, env=given, capture_output=True, text=True)


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    folder = tmp_path_factory.mktemp("extending")
    plan, _ = small_plan(
        folder, stages={"contrastive": STAGE | {"steps": 3, "validate_every": 3}}, chain=["contrastive"]
    )
    (folder / "plain.toml").write_text(render(plan.recipe))
    (folder / "mine.toml").write_text(
        'extends = "./plain.toml"\n'
        '[data]\nfirst_stages = ["bm25", "word-overlap"]\n'
        '[stages.contrastive]\nloss = "squared-hinge"\nnegatives = "top-half"\nmean_over = "pairs"\n'
    )
    return folder


@pytest.fixture(scope="module")
def site(place):
    return install(place / "site", "\n\n".join(blocks(GUIDE, "python")))


def test_each_extension_of_the_guide_takes_less_than_30_lines():
    assert len(blocks(GUIDE, "python")) == 5
    assert all(len(block.splitlines()) < 30 for block in blocks(GUIDE, "python"))


@pytest.mark.thorough
def test_a_run_uses_the_guides_extensions_and_its_plan_names_them_with_version_and_code(place, site):
    done = cerank(place, site, "run", "--recipe", "mine.toml", CERANK_EXECUTOR="nice")
    assert done.returncode == 0, done.stderr
    (folder,) = run_store.folders(place / "lab")
    plan = run_store.load_plan(folder)
    assert {(extension.kind, extension.name) for extension in plan.extensions} == USED
    assert {(extension.distribution, extension.version) for extension in plan.extensions} == {("my-cerank", "0.1")}
    assert "# loss squared-hinge my-cerank 0.1, sha256 " in plan_view.text(plan)
    assert len({extension.sha256 for extension in plan.extensions}) == 1
    assert folder.ranking("contrastive", plan.recipe.data.test[0], "word-overlap").exists()

    # the code decides what a run is, and which trained stages it may use; how it was started does not
    def changed(kind, **values):
        extensions = [msgspec.structs.replace(e, **values) if e.kind == kind else e for e in plan.extensions]
        return msgspec.structs.replace(plan, extensions=tuple(extensions))

    assert changed("loss", sha256="0" * 64).fingerprint != plan.fingerprint
    assert stage_keys(changed("loss", sha256="0" * 64)) != stage_keys(plan)
    assert stage_keys(changed("first stage", sha256="0" * 64)) == stage_keys(plan)
    assert changed("executor", sha256="0" * 64).fingerprint == plan.fingerprint


@pytest.mark.slow
def test_a_run_is_not_resumed_with_other_code_than_it_was_planned_with(place, site, tmp_path):
    done = cerank(
        place, site, "run", "--recipe", "mine.toml", "--seed", "7", "--label", "planned", CERANK_EXECUTOR="nice"
    )
    assert done.returncode == 0, done.stderr
    (folder,) = [run for run in run_store.folders(place / "lab") if run_store.load_plan(run).recipe.seed == 7]
    folder.done.unlink()
    edited = install(tmp_path / "site", (site / "my_cerank.py").read_text() + "\n# another version\n")
    done = cerank(place, edited, "resume", folder.name)
    assert done.returncode != 0
    assert "other code" in json_records_text(folder) + done.stderr


def json_records_text(folder):
    return folder.failure.read_text() if folder.failure.exists() else folder.log.read_text()


@pytest.mark.thorough
def test_names_of_extensions_are_listed_and_near_ones_are_told(place, site):
    listed = cerank(place, site, "recipes", "losses", "--json")
    assert "squared-hinge" in listed.stdout
    words = ("run", "--recipe", "mine.toml", "--dry-run", "--set")
    slips = {
        "stages.contrastive.loss=squared_hinge": "squared-hinge",
        "stages.contrastive.negatives=top_half": "top-half",
    }
    slips |= {'data.first_stages=["word-overlop"]': "word-overlap"}
    answers = {hint: cerank(place, site, *words, slip) for slip, hint in slips.items()}
    answers["nice"] = cerank(place, site, "ps", CERANK_EXECUTOR="nica")
    for hint, done in answers.items():
        assert done.returncode == 2
        assert f"did you mean '{hint}'?" in " ".join(done.stderr.split())


def test_the_guides_format_is_imported(place, site):
    rows = [{"query": "red fox", "positive": "a fox is red", "negatives": ["a dog", "a cat"]}]
    (place / "mine.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    done = cerank(place, site, "data", "import", "my-jsonl", "mine.jsonl", "--into", "imported")
    assert done.returncode == 0, done.stderr
    contents = json.loads((place / "imported" / "import.json").read_text())["contents"]
    assert (contents["records"], contents["queries"], contents["documents"]) == (1, 1, 3)


def test_an_extension_that_cannot_be_imported_is_left_out_with_a_warning(place, tmp_path):
    broken = install(tmp_path / "site", "import a_module_that_is_not_there\n")
    done = cerank(place, broken, "recipes", "losses")
    assert done.returncode == 0
    assert "a_module_that_is_not_there" in done.stderr


def test_a_plan_whose_extension_is_gone_is_not_carried_out(tmp_path):
    plan, _ = small_plan(tmp_path)
    assert plan.extensions == ()
    check_extensions(plan.extensions)
    gone = Extension("loss", "gone", "some-package", "1.0", "0" * 64)
    with refused(RunFailedError, "extension-not-installed", "some-package", "1.0"):
        check_extensions((gone,))
