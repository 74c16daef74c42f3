"""The promise behind the layers: the front starts without the libraries that take seconds to import."""

from __future__ import annotations

import ast
import json
import re
import subprocess
import sys
import tomllib
from importlib.metadata import packages_distributions
from importlib.util import find_spec
from pathlib import Path

import pytest

SLOW = (
    "bm25s",
    "ir_datasets",
    "ir_measures",
    "numpy",
    "pandas",
    "pytrec_eval",
    "scipy",
    "sklearn",
    "statsmodels",
    "torch",
    "transformers",
)
FRONT = (
    "cerank",
    "cerank.api",
    "cerank.cli",
    "cerank.cli.output",
    "cerank.cli.options",
    "cerank.settings",
    "cerank.recipes",
    "cerank.recipes.plan",
)
PROBE = """
import json, sys
{body}
print("\\n" + json.dumps(sorted({{name.partition(".")[0] for name in sys.modules}})))
"""


def _modules_after(body: str) -> set[str]:
    """Top-level modules that a fresh Python holds after `body`."""
    code = PROBE.format(body=body)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=300)
    return set(json.loads(done.stdout.splitlines()[-1]))


def _installed() -> list[str]:
    return [name for name in SLOW if find_spec(name)]


@pytest.mark.parametrize("module", [*FRONT, "cerank.app", "cerank.scheduler", "cerank.runs"])
def test_importing_the_front_leaves_slow_libraries_alone(module: str) -> None:
    if find_spec(module) is None:
        pytest.skip(f"there is no {module} yet")
    assert _modules_after(f"import {module}").isdisjoint(SLOW)


@pytest.mark.parametrize(
    "words", ["--help", "ps --help", "run --help", "recipes list", "config show", "guide", "guide verdicts"]
)
def test_looking_up_how_a_command_works_leaves_slow_libraries_alone(words: str, tmp_path: Path) -> None:
    if find_spec("cerank.__main__") is None:
        pytest.skip("there is no `python -m cerank` yet")
    body = f"""
import os, runpy
os.environ["CERANK_LAB"] = {str(tmp_path)!r}
sys.argv = ["cerank", *{words.split()!r}]
try:
    runpy.run_module("cerank", run_name="__main__")
except SystemExit as end:
    assert not end.code, end.code
"""
    assert _modules_after(body).isdisjoint(SLOW)


def test_drawing_no_table_imports_no_rich() -> None:
    body = """
from cerank.cli.output import Column, Table, emit
emit(Table("t", (Column("a", "A"),), (("x",),)), "tsv")
"""
    assert "rich" not in _modules_after(body)


def test_the_probe_sees_what_is_imported() -> None:
    assert "sqlite3" in _modules_after("import sqlite3")
    assert {"torch", "numpy"} <= set(_installed())


def _distributions(requirements: list[str]) -> set[str]:
    names = (re.match(r"[\w.-]+", one) for one in requirements)
    return {name[0].lower().replace("_", "-") for name in names if name}


def test_the_package_imports_nothing_that_only_its_tests_are_given() -> None:
    root = Path(__file__).parents[1]
    project = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = {name: _distributions(needed) for name, needed in project["optional-dependencies"].items()}
    for_users = set().union(*(needed for name, needed in extras.items() if name != "dev"))
    for_tests = extras["dev"] - for_users - _distributions(project["dependencies"])
    assert "statsmodels" in for_tests
    sources = packages_distributions()
    found = set()
    for path in (root / "cerank").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module] if isinstance(node, ast.ImportFrom) and node.module and not node.level else []
            found |= _distributions([one for name in names for one in sources.get(name.partition(".")[0], [])])
    assert found.isdisjoint(for_tests)
