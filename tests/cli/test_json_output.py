"""The JSON of a command has one shape, which the guide names: a list of rows, or an object with a head and notes."""

from __future__ import annotations

import ast
import io
import json
import re
from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest
from typer.main import get_command
from typer.testing import CliRunner

import cerank
from cerank.cli.output import Column, Table, emit
from cerank.cli.typer_app import app
from tests.json_documents import document_of
from tests.worker.small import write_dataset

SOURCES = Path(cerank.__file__).parent
WORDS = r"`([a-z]+(?: [a-z]+)*)`"


def _takes_json(command: Any, path: tuple[str, ...] = ()) -> Iterator[str]:
    if any("--json" in param.opts for param in command.params):
        yield " ".join(path)
    for name, inner in getattr(command, "commands", {}).items():
        yield from _takes_json(inner, (*path, name))


def _shapes() -> dict[str, set[str]]:
    """The guide's table: what is printed -> the commands."""
    page = (files("cerank") / "guides" / "output.md").read_text(encoding="utf8")
    table = page.partition("| JSON |")[2].partition("\n\n")[0]
    rows = [line.strip("|").split("|") for line in table.splitlines()[2:]]
    return {row[0].split(":")[0].strip(): set(re.findall(WORDS, row[1])) for row in rows}


def test_the_guide_names_each_command_that_prints_json_once() -> None:
    listed = [name for names in _shapes().values() for name in names]
    assert sorted(listed) == sorted(_takes_json(get_command(app)))


def _found(words: list[str], folder: Path) -> str:
    environ = {"CERANK_LAB": str(folder / "lab"), "CERANK_CACHE": str(folder / "cache"), "CERANK_DEVICE": "cpu"}
    done = CliRunner().invoke(app, [*words, "--json"], env=environ)
    assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
    return done.stdout


LISTS = [
    ["bases"], ["bases", "minilm"], ["config", "show"], ["datasets"], ["declare"], ["guide"], ["log"], ["log", "list"],
    ["ps"], ["queue"], ["recipes", "list"], ["recipes", "losses"], ["recipes", "matrices"], ["query", "--tables"],
    ["power", "--queries", "43", "--sd", ".1"], ["evaluate", "DATA/runs/oracle.run",
    "--dataset", "DATA"],
]  # fmt: skip
OBJECTS = [
    ["data", "formats"],
    ["data", "check", "DATA"],
    ["explain", "DATA/runs/oracle.run", "DATA/runs/other.run", "--dataset", "DATA"],
    ["explain", "DATA/runs/oracle.run", "DATA/runs/other.run", "--dataset", "DATA", "--query", "q1"],
    ["rejudge", "dl20"],
    ["gate", "DATA/runs/oracle.run", "DATA/runs/other.run", "--dataset", "DATA", "--margin", "nDCG@10=.1"],
    ["compare", "DATA/runs/oracle.run", "DATA/runs/other.run", "--dataset", "DATA"],
]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("place")
    runs = write_dataset(folder / "data") / "runs"
    lines = (runs / "oracle.run").read_text().splitlines()
    (runs / "other.run").write_text("".join(f"{line.rpartition(' ')[0]} u\n" for line in lines if " 3 " not in line))
    return folder


@pytest.mark.parametrize("words", [*LISTS, *OBJECTS], ids=" ".join)
def test_a_command_prints_the_shape_that_the_guide_names(words: list[str], place: Path) -> None:
    words = [word.replace("DATA", str(place / "data")) for word in words]
    shapes, printed = _shapes(), _found(words, place)
    names = {" ".join(words[:count]) for count in (1, 2, 3)}
    (shape,) = (shape for shape, commands in shapes.items() if names & commands)
    if shape == "a list of rows":
        assert all(isinstance(row, dict) for row in json.loads(printed))
    elif shape == "an object":
        document_of(printed)
    else:  # compare's, which `cerank schema comparison` describes
        document = json.loads(printed)
        assert list(document) == ["meta", "rows", "secondary", "pooled", "notes"]
        assert {"format", "cerank", "command", "alpha", "correction", "family"} <= document["meta"].keys()


def test_tables_of_one_name_are_one_list_and_a_single_table_of_several_is_an_object() -> None:
    table = Table("rows", (Column("a", "A"),), (("x",),), notes=("n",))
    for tables, rows in (([table], 1), ([table, table], 2)):
        page = io.StringIO()
        emit(tables, "json", page)
        document = document_of(page.getvalue(), "rows")
        assert (len(document["rows"]), document["notes"]) == (rows, ["n"])
    page = io.StringIO()
    emit(table, "json", page, meta={"format": 1, "cerank": cerank.__version__, "command": "c", "alpha": 0.05})
    assert document_of(page.getvalue(), "rows")["meta"]["alpha"] == 0.05


def _columns_of_p() -> Iterator[tuple[str, str, str]]:
    """Yield (place, key, heading) of each column of p values whose key and heading are written out in the sources."""
    for path in sorted(SOURCES.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf8"))):
            if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "Column":
                texts = [argument.value for argument in node.args if isinstance(argument, ast.Constant)]
                if len(texts) >= 3 and texts[2] == "p":
                    yield f"{path.relative_to(SOURCES)}:{node.lineno}", str(texts[0]), str(texts[1])


def test_an_adjusted_p_is_called_so_by_its_key_and_no_other_p_is() -> None:
    columns = list(_columns_of_p())
    assert len(columns) > 20
    wrong = [
        f"{place}: {key} is shown as {heading}"
        for place, key, heading in columns
        if key.endswith("_corrected") != ("adjusted" in heading)
    ]
    assert not wrong, "\n".join(wrong)
