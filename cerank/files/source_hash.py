"""Hashes of cerank's own source files: another way to compute may give other bits."""

from __future__ import annotations

import ast
import hashlib
import importlib.util
from functools import cache
from importlib.abc import InspectLoader
from pathlib import Path

import cerank
from cerank.files.hashing import sha256_json

COMPUTATION = "cerank computation"  # what an attempt calls the hash over these among its versions
COMPUTING_PACKAGES = (
    "inference",
    "kernels",
    "models",
    "tokenization",
    "training",
)  # packages whose code decides a stage's bits


def code_sha256(*packages: str) -> str:
    """Return the SHA-256 over cerank's own source files, or over those of some packages: it tells two builds of one
    version apart.
    """
    root = Path(cerank.__file__).parent
    digest = hashlib.sha256()
    for folder in [root / package for package in packages] or [root]:
        for path in sorted(folder.rglob("*.py")):
            digest.update(path.relative_to(root).as_posix().encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()


@cache
def modules_sha256(modules: tuple[str, ...]) -> str:
    """Return the SHA-256 of what some modules do: of their sources without comments, docstrings and layout.

    Args:
        modules: names of modules; one that is installed without its source counts by the version of cerank.
    """
    codes = []
    for name in modules:
        spec = importlib.util.find_spec(name)
        source = spec.loader.get_source(name) if spec is not None and isinstance(spec.loader, InspectLoader) else None
        codes.append(cerank.__version__ if source is None else _without_docstrings(source))
    return sha256_json(codes)


def _without_docstrings(source: str) -> str:
    """Return a module's code as Python lays it out, without docstrings."""
    tree = ast.parse(source)
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef) and ast.get_docstring(node) is not None:
            node.body = node.body[1:] or [ast.Pass()]
    return ast.unparse(tree)
