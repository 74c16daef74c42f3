"""The documentation of the installed Python's standard library, as names, signatures and sentences.

Sources are parsed and never imported; a short list of C-implemented modules that every interpreter carries is read
through `__doc__`. Invariant: the result depends on the Python version and platform alone, not on hash order.
"""

from __future__ import annotations

import ast
import importlib
import inspect
import itertools
import json
import re
import subprocess
import sys
import sysconfig
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

SKIPPED_PARTS = frozenset(
    {  # tests, demonstrations, installers, and what is generated or not Python's own
        "site-packages",
        "dist-packages",
        "test",
        "tests",
        "idlelib",
        "idle_test",
        "lib2to3",
        "turtledemo",
        "ensurepip",
        "distutils",
        "pydoc_data",
        "__pycache__",
        "__phello__",
        "msilib",
    }
)
C_MODULES = (
    "_thread",
    "array",
    "atexit",
    "binascii",
    "builtins",
    "cmath",
    "errno",
    "gc",
    "itertools",
    "marshal",
    "math",
    "sys",
    "time",
    "unicodedata",
    "zlib",
    "_bisect",
    "_codecs",
    "_collections",
    "_csv",
    "_datetime",
    "_functools",
    "_heapq",
    "_io",
    "_json",
    "_operator",
    "_random",
    "_socket",
    "_sre",
    "_struct",
    "_weakref",
)


@dataclass(frozen=True)
class Docstring:
    """A documented object: its qualified name, signature, summary and body sentences."""

    name: str
    signature: str
    summary: str
    body: tuple[str, ...]

    def text(self, sentences: Iterable[str]) -> str:
        """Return the document of this object: its name and signature, then the given sentences."""
        return " ".join([self.name + self.signature, *sentences])


def words(text: str) -> list[str]:
    """Return the lower-cased words of a text."""
    return re.findall(r"[a-z0-9]+", text.lower())


def split_sentences(docstring: str) -> list[str]:
    """A docstring's sentences, white space normalized; paragraphs always end a sentence."""
    sentences: list[str] = []
    for paragraph in re.split(r"\n\s*\n", docstring):
        flat = " ".join(paragraph.split())
        sentences.extend(s for s in re.split(r"(?<=[.!?])\s+(?=[^a-z])", flat) if words(s))
    return sentences


def parse_docstring(name: str, signature: str, docstring: str) -> Docstring | None:
    """Return the parsed docstring; None if it has nothing but a signature."""
    short = re.escape(name.rpartition(".")[2])
    parameters = r"\([^()]*(?:\([^()]*\)[^()]*)*\)"
    call = rf"(?:\w+\.)*{short}\s*{parameters}(?:\s*->[^\n]*|\s+--|:|(?=\s*\n)|$)"
    text = inspect.cleandoc(docstring)
    previous = None
    while previous != text:
        previous, text = text, re.sub(rf"\A{call}", "", text).lstrip(" \n\t-:")
    sentences = split_sentences(text)
    if not sentences:
        return None
    return Docstring(name, signature, sentences[0], tuple(sentences[1:]))


def _signature(node: ast.AST) -> str:
    """Return the names of a function's parameters in parentheses; "" for a class."""
    if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
        return ""
    arguments = node.args
    names = [a.arg for a in (*arguments.posonlyargs, *arguments.args) if a.arg not in ("self", "cls")]
    if arguments.vararg:
        names.append("*" + arguments.vararg.arg)
    names.extend(a.arg for a in arguments.kwonlyargs)
    if arguments.kwarg:
        names.append("**" + arguments.kwarg.arg)
    return "(" + ", ".join(names) + ")"


def _walk_source(node: ast.AST, prefix: str) -> Iterator[Docstring]:
    """Yield the docstrings of the definitions under a node, in source order."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            name = f"{prefix}.{child.name}"
            docstring = ast.get_docstring(child)
            parsed = parse_docstring(name, _signature(child), docstring) if docstring else None
            if parsed:
                yield parsed
            yield from _walk_source(child, name)
        elif isinstance(child, ast.If | ast.Try | ast.With):
            yield from _walk_source(child, prefix)


def _paths(root: Path) -> list[Path]:
    """Return every module under root, in order, without tests, demos and installers."""
    paths = sorted(root.rglob("*.py"), key=lambda p: p.relative_to(root).parts)
    relative = {path: path.relative_to(root) for path in paths}
    return [
        path
        for path in paths
        if not SKIPPED_PARTS.intersection(relative[path].parts) and "-" not in str(relative[path])
    ]


def _read_module(root: Path, path: Path) -> list[Docstring]:
    """Return the docstrings of one module; none if this Python cannot parse it."""
    try:
        tree = ast.parse(path.read_bytes())
    except (SyntaxError, ValueError):
        return []
    parts = path.relative_to(root).with_suffix("").parts
    return list(_walk_source(tree, ".".join(parts[:-1] if parts[-1] == "__init__" else parts)))


def _every_second(root: Path, first: int) -> list[list[Docstring]]:
    return [_read_module(root, path) for path in _paths(root)[first::2]]


def _told(modules: list[list[Docstring]]) -> str:
    """Modules' docstrings as a line, in ASCII."""
    return json.dumps([[(d.name, d.signature, d.summary, d.body) for d in docstrings] for docstrings in modules])


def _heard(line: bytes) -> list[list[Docstring]]:
    return [
        [Docstring(name, signature, summary, tuple(body)) for name, signature, summary, body in docstrings]
        for docstrings in json.loads(line)
    ]


_OTHER = """
import sys
sys.path.insert(0, sys.argv[1])
from pathlib import Path
from cerank.datasets.pydocs.docstrings import _every_second, _told
print(_told(_every_second(Path(sys.argv[2]), 1)))
"""


def read_sources(root: Path) -> Iterator[Docstring]:
    """Return the docstrings of every module under root except tests, demos and installers, read by two processes."""
    command = [sys.executable, "-I", "-S", "-c", _OTHER, str(Path(__file__).parents[3]), str(root)]
    try:
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as other:
            even = _every_second(root, 0)
            said = other.communicate()[0]
        odd = _every_second(root, 1) if other.returncode else _heard(said)
    except OSError:  # no second process to be had
        even, odd = _every_second(root, 0), _every_second(root, 1)
    if len(odd) < len(even):
        odd.append([])
    for pair in zip(even, odd, strict=True):
        yield from itertools.chain.from_iterable(pair)


def _builtin(name: str, value: object) -> Docstring | None:
    """Return the docstring of one object implemented in C, with its text signature apart."""
    docstring = getattr(value, "__doc__", None)
    if not isinstance(docstring, str):
        return None
    signature = getattr(value, "__text_signature__", None)
    parameters = re.sub(r"\$?\b(self|cls|type|module)\b,? ?|, /|/, |/", "", signature or "")
    return parse_docstring(name, parameters, docstring)


def read_builtins() -> Iterator[Docstring]:
    """Return the docstrings of the modules implemented in C, and of their classes' own members."""
    for module_name in C_MODULES:
        try:
            module = importlib.import_module(module_name)
        except ImportError:
            continue
        public = module_name.lstrip("_")
        for key, value in sorted(vars(module).items()):
            if not (inspect.isbuiltin(value) or inspect.isclass(value)):
                continue
            home = getattr(value, "__module__", None)
            if key.startswith("_") or getattr(value, "__name__", key) != key:
                continue  # private, or a second name of something
            if home not in (None, public, module_name, "builtins"):
                continue
            if home == "builtins" and module_name != "builtins":
                continue
            parsed = _builtin(f"{public}.{key}", value)
            if parsed:
                yield parsed
            if inspect.isclass(value):
                yield from _members(f"{public}.{key}", value)


def _members(prefix: str, owner: type) -> Iterator[Docstring]:
    """Return the docstrings of a class's own public methods and attributes."""
    for key, value in sorted(vars(owner).items()):
        if key.startswith("_") or isinstance(value, str | int):
            continue
        parsed = _builtin(f"{prefix}.{key}", value)
        if parsed:
            yield parsed


def read_standard_library() -> list[Docstring]:
    """Return every docstring of the running Python's standard library, one per qualified name."""
    docstrings: dict[str, Docstring] = {}
    for docstring in (*read_sources(Path(sysconfig.get_path("stdlib"))), *read_builtins()):
        docstrings.setdefault(docstring.name, docstring)
    return [docstrings[name] for name in sorted(docstrings)]
