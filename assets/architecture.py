"""Writes the map of the packages and the picture of their imports into cerank/guides/architecture.md.

`python assets/architecture.py` reads the packages' first docstring lines, the layers in pyproject.toml, and who imports
whom in the sources. An arrow that follows from two others is left out. A test checks that the page is up to date.
"""

from __future__ import annotations

import ast
import textwrap
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
GUIDE = ROOT / "cerank" / "guides" / "architecture.md"
WIDTH = 120
_BEGIN, _END = "<!-- made by assets/architecture.py: {} -->", "<!-- end -->"


def layers() -> list[list[str]]:
    """Return the packages of each layer, the highest first, as import-linter checks them."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf8"))
    contract = next(
        contract
        for contract in project["tool"]["importlinter"]["contracts"]
        if contract.get("containers") == ["cerank"]
    )
    return [layer.split(" | ") for layer in contract["layers"]]


def imports() -> dict[str, set[str]]:
    """Return which packages and modules directly under `cerank` each of them imports."""
    names = {name for layer in layers() for name in layer}
    edges: dict[str, set[str]] = {name: set() for name in names}
    for path in sorted((ROOT / "cerank").rglob("*.py")):
        name = path.relative_to(ROOT / "cerank").parts[0].removesuffix(".py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf8"))) if name in names else ():
            modules = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom) and node.module:
                modules = [f"{node.module}.{alias.name}" for alias in node.names]
            parts = [module.split(".") for module in modules]
            edges[name] |= {part[1] for part in parts if part[0] == "cerank" and len(part) > 1 and part[1] in names}
    return {name: others - {name} for name, others in edges.items()}


def reduced(edges: dict[str, set[str]]) -> dict[str, set[str]]:
    """Return the edges without those that a longer way implies."""

    def reachable(name: str) -> set[str]:
        return edges[name].union(*(reachable(other) for other in edges[name]))

    return {name: others - set().union(*(reachable(other) for other in others)) for name, others in edges.items()}


def package_map() -> str:
    """Return the packages with the first line of each docstring, as a fenced block."""
    lines = ["cerank/"]
    for name in (name for layer in layers() for name in layer if (ROOT / "cerank" / name / "__init__.py").is_file()):
        tree = ast.parse((ROOT / "cerank" / name / "__init__.py").read_text(encoding="utf8"))
        summary = (ast.get_docstring(tree) or "").splitlines()[0]
        first, *more = textwrap.wrap(summary, WIDTH - 17)
        lines += [f"  {name + '/':14} {first}", *(f"{'':17}{line}" for line in more)]
    return "\n".join(["```", *lines, "```"])


def drawing() -> str:
    """Return a Mermaid flowchart: an arrow per import, and a box around the packages of one layer."""
    lines = ["```mermaid", "flowchart TD"]
    for number, layer in enumerate(layers(), 1):
        if len(layer) > 1:  # in a box, for they stand side by side
            lines += [f'  subgraph layer{number} [" "]', *(f"    {name}" for name in layer), "  end"]
    edges = reduced(imports())
    lines += [f"  {name} --> {other}" for layer in layers() for name in layer for other in sorted(edges[name])]
    return "\n".join([*lines, "```"])


def page(text: str) -> str:
    """Return the page with its generated parts as the sources have them now."""
    for name, content in (("packages", package_map()), ("imports", drawing())):
        begin = _BEGIN.format(name)
        before, _, rest = text.partition(begin)
        text = f"{before}{begin}\n\n{content}\n\n{_END}{rest.partition(_END)[2]}"
    return text


if __name__ == "__main__":
    GUIDE.write_text(page(GUIDE.read_text(encoding="utf8")), encoding="utf8")
