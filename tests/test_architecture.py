"""The page about the architecture says what the sources are."""

from __future__ import annotations

import ast
import re
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "assets"))
architecture = pytest.importorskip("architecture")  # a source distribution comes without the folder
sys.path.pop(0)


def test_the_page_about_the_architecture_is_up_to_date() -> None:
    text = architecture.GUIDE.read_text(encoding="utf8")
    assert architecture.page(text) == text, "run python assets/architecture.py"


def test_every_package_and_module_at_the_top_has_a_layer() -> None:
    paths = [path for path in (ROOT / "cerank").iterdir() if path.suffix == ".py" or (path / "__init__.py").is_file()]
    names = {path.stem for path in paths if not path.name.startswith("__")}
    assert {name for layer in architecture.layers() for name in layer} == names


def test_no_arrow_of_the_picture_points_upward() -> None:
    order = {name: number for number, layer in enumerate(architecture.layers()) for name in layer}
    arrows = [(name, other) for name, others in architecture.imports().items() for other in others]
    assert len(arrows) > 50
    assert [(name, other) for name, other in arrows if order[name] >= order[other]] == []


def test_the_page_names_the_packages_that_import_torch() -> None:
    sentence = re.search(r"Only (`bench`,.*?) import torch", architecture.GUIDE.read_text(encoding="utf8"), re.DOTALL)
    assert sentence is not None
    importing = set()
    for path in (ROOT / "cerank").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf8"))):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            if {name.partition(".")[0] for name in names} & {"torch", "transformers"}:
                importing.add(path.relative_to(ROOT / "cerank").parts[0])
    assert set(re.findall(r"`(\w+)`", sentence[1])) == importing


def test_no_two_modules_have_one_name_and_no_package_has_too_many() -> None:
    modules = [path for path in (ROOT / "cerank").rglob("*.py") if not path.stem.startswith("__")]
    stems = [path.stem for path in modules]
    assert sorted({stem for stem in stems if stems.count(stem) > 1}) == []
    folders = [path.parent for path in modules]
    assert {str(folder): folders.count(folder) for folder in folders if folders.count(folder) > 16} == {}


def test_no_two_classes_have_one_name() -> None:
    """Messages of a widget, which Textual wants inside its class, are told apart by that."""
    names = [
        node.name
        for path in (ROOT / "cerank").rglob("*.py")
        for node in ast.parse(path.read_text(encoding="utf8")).body
        if isinstance(node, ast.ClassDef)
    ]
    assert len(names) > 200
    assert sorted({name for name in names if names.count(name) > 1}) == []


def _decodes_a_struct(call: ast.Call) -> bool:
    """Return whether a call lets msgspec prepare a struct outside the lock of `json_records`."""
    name = ast.unparse(call.func)
    if name == "msgspec.convert":
        return ast.unparse(call.args[1]) != "Pooling"  # a choice of texts
    kinds = [keyword for keyword in call.keywords if keyword.arg == "type"]
    return name.endswith(".Decoder") or (bool(kinds) and re.fullmatch(r"msgspec\.\w+\.decode", name) is not None)


def test_structs_are_decoded_where_threads_cannot_crash_each_other() -> None:
    allowed = {"cerank/files/json_records.py", "cerank/core/decode.py"}  # the second converts single values
    places = {
        f"{path.relative_to(ROOT).as_posix()}:{node.lineno}"
        for path in (ROOT / "cerank").rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf8")))
        if isinstance(node, ast.Call) and _decodes_a_struct(node)
    }
    assert len(places) > 2
    assert {place for place in places if place.partition(":")[0] not in allowed} == set()
