"""How tests are written: they tell errors by code, and reach cerank by public names only."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

TESTS = Path(__file__).resolve().parent
PACKAGE = TESTS.parent / "cerank"
WORDINGS = {  # tests that guard a text on purpose, each with what the text is to the user
    "app/comparison/test_comparisons.py::test_what_is_no_set_of_seeds_is_refused_with_what_differs": "the difference",
    "app/run_views/test_run_filter.py::test_a_wrong_filter_says_what_and_where": "help while typing",
    "core/test_rankings.py": "internal errors without a code",
    "evaluation/test_measures.py::test_a_name_that_cannot_be_meant_is_refused_with_a_way_on": "what to write instead",
    "kernels/test_attention.py": "a warning, which has no code",
    "kernels/test_packing.py": "warnings, which have no code",
    "kernels/test_parallel.py": "an error of torch",
    "regressions/test_paper_traps.py": "the value as it was written",
    "cli/test_output.py": "an error of Python",
    "runs/test_records.py": "an internal error without a code",
    "scheduler/test_queue.py": "an internal error without a code",
    "test_registry.py": "an internal error without a code",
    "training/test_sampler.py": "which queries are counted for which reason",
}
TEXTS = {  # tests that expect five words or more of a text, because the text is what they are about
    "app/comparison/test_export_comparison.py": "a footnote",
    "app/comparison/test_power_analysis.py": "the sentence where no difference can show",
    "app/report/test_build_report.py": "how a family of tests is counted in words",
    "app/teaching/test_check_teacher.py": "warnings, which have no code",
    "cli/commands/test_run_matrix.py": "how a matrix is summed up",
    "cli/test_output.py": "the form of tables and errors",
    "cli/test_terminal_table.py": "the way to columns that are hidden",
    "datasets/test_irds.py": "what another process prints of an error",
    "datasets/test_text_files.py": "the text of a TREC topic",
    "end_to_end/test_verdicts.py": "where figures of a power analysis come from",
    "evaluation/test_answers.py": "the answers in words",
    "evaluation/test_compare.py": "footnotes and reasons in words",
    "evaluation/test_diagnostics.py": "footnotes in words",
    "evaluation/test_primary_questions.py": "a footnote",
    "evaluation/test_verdicts.py": "a verdict's reason in words",
    "evaluation/test_worth.py": "an answer in words",
    "models/test_model_reading.py": "how a reading is described",
    "planning/test_gpu_settings.py": "how precisions are described",
    "recipes/test_rendering.py": "a recipe as it is written",
    "runs/test_run_store.py": "the form of a failure",
    "teachers/test_prompts.py": "prompts as they were published",
    "test_errors.py": "the form of an error",
    "tui/test_pictures.py": "the title of a picture",
    "worker/test_captured_output.py": "the form of an error",
}
PRIVATE = {  # private names that a test may use, each with its reason
    ("importing/test_import_files.py", "_waiting"): "what is in memory shows nowhere else",
    ("importing/test_import_files.py", "_frames"): "what is in memory shows nowhere else",
    ("kernels/test_packing.py", "_attn_implementation"): "transformers' name, which cerank sets and resets",
}


@cache
def _trees() -> dict[str, ast.Module]:
    files = sorted(TESTS.rglob("*.py"))
    return {path.relative_to(TESTS).as_posix(): ast.parse(path.read_text(encoding="utf8")) for path in files}


def _name_of(function: ast.expr) -> str:
    return getattr(function, "attr", getattr(function, "id", ""))


def _is_private(name: str) -> bool:
    return re.fullmatch(r"_[A-Za-z]\w*(?<!_)", name) is not None


def _wordings(tree: ast.AST) -> Iterator[ast.AST]:
    """Yield where an error's text is expected: `match=`, and text in an error's str, its `what` or its `hint`."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and any(keyword.arg == "match" for keyword in node.keywords):
            yield node
        if isinstance(node, ast.Compare) and isinstance(node.ops[0], ast.In | ast.Eq):
            if not isinstance(node.comparators[0], ast.Call | ast.Attribute):
                continue
            text = ast.unparse(node.comparators[0])
            expected = node.left.value if isinstance(node.left, ast.Constant) else None
            is_of_error = re.fullmatch(r"str\((\w+\.value|error)\)|[\w.]+\.(what|hint)", text) is not None
            is_parameter = isinstance(node.left, ast.Name) and node.left.id.islower()
            # a command, or a key with its value, is to be given as it is written
            is_prose = isinstance(expected, str) and " " in expected and not re.search(r"cerank |=", expected)
            if is_of_error and (is_prose or (is_parameter and not text.endswith("hint"))):
                yield node


def test_errors_are_told_by_their_code_and_not_by_their_wording() -> None:
    uses, used = [], set()
    for name, tree in _trees().items():
        for statement in tree.body:
            place = f"{name}::{getattr(statement, 'name', '')}"
            allowed = {entry for entry in WORDINGS if entry in {name, place}}
            for node in _wordings(statement):
                used |= allowed
                uses += [] if allowed else [f"{place}, line {node.lineno}"]
    assert not uses, "expect the error with tests.refusals.refused(CLASS, CODE, *VALUES) in\n" + "\n".join(uses)
    assert sorted(WORDINGS) == sorted(used), "take out of WORDINGS what needs no exception any more"


def _long_texts(tree: ast.AST) -> Iterator[ast.AST]:
    """Yield assertions that compare five words or more with a text: such a test fails when the text is improved."""
    for node in ast.walk(tree):
        if not isinstance(node, ast.Assert):
            continue
        compared = [part for part in ast.walk(node.test) if isinstance(part, ast.Compare)]
        for part in compared:
            sides = [part.left, *(part.comparators if isinstance(part.ops[0], ast.Eq) else [])]
            texts = [text for side in sides for text in (side.values if isinstance(side, ast.JoinedStr) else [side])]
            values = [text.value for text in texts if isinstance(text, ast.Constant) and isinstance(text.value, str)]
            if any(len(_WORD.findall(value)) >= 5 and "cerank " not in value for value in values):
                yield node


_WORD = re.compile(r"(?<![\w.`-])[A-Za-z']{2,}(?=[ ,.;:)]|$)")


def test_output_is_told_by_its_figures_and_names_and_not_by_its_wording() -> None:
    uses, used = [], set()
    for name, tree in _trees().items():
        for node in _long_texts(tree):
            used |= {name} & TEXTS.keys()
            uses += [] if name in TEXTS else [f"{name}:{node.lineno}"]
    assert not uses, "expect keys of JSON output, cells, figures or names, not a sentence, in\n" + "\n".join(uses)
    assert sorted(TEXTS) == sorted(used), "take out of TEXTS what needs no exception any more"


def _own_private_names() -> set[str]:
    """Return the private names that cerank's modules and classes define or keep in themselves."""
    sources = "\n".join(path.read_text(encoding="utf8") for path in PACKAGE.rglob("*.py"))
    return {
        name
        for name in re.findall(r"(?:def |class |self\.|^|, )(_[A-Za-z]\w*)", sources, re.MULTILINE)
        if _is_private(name)
    }


def _reached_names(tree: ast.Module) -> Iterator[tuple[str, int]]:
    """Yield names that a test imports from cerank, takes from an object that is not `self`, or replaces."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("cerank"):
            yield from ((alias.name, node.lineno) for alias in node.names)
        elif (
            isinstance(node, ast.Attribute)
            and _is_private(node.attr)
            and not (isinstance(node.value, ast.Name) and node.value.id in {"self", "os"})
        ):
            yield node.attr, node.lineno
        elif isinstance(node, ast.Call) and _name_of(node.func) in {"setattr", "getattr", "delattr", "setitem"}:
            values = [value.value for value in node.args[:2] if isinstance(value, ast.Constant)]
            yield from ((value.rpartition(".")[2], node.lineno) for value in values if isinstance(value, str))


def test_tests_use_public_names_of_cerank_only() -> None:
    own, uses, used = _own_private_names(), [], set()
    for name, tree in _trees().items():
        theirs = {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}
        for reached, line in _reached_names(tree):
            if (name, reached) in PRIVATE:
                used.add((name, reached))
            elif reached in own - theirs:
                uses.append(f"{name}:{line}: {reached}")
    assert not uses, "test through the public function, or make the name public:\n" + "\n".join(uses)
    assert used == set(PRIVATE), "take out of PRIVATE what needs no exception any more"
