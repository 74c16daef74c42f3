"""The command `cerank gate`: exit codes, Markdown and JUnit that a continuous integration reads."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import msgspec
import pytest
from typer.testing import CliRunner

from cerank.app.comparison.comparison_schema import ComparisonDocument
from cerank.cli.typer_app import app
from cerank.errors import MissingError, UsageError
from cerank.evaluation.gate import level_of
from tests.json_documents import document_of
from tests.refusals import refused


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    """Sixty queries, one relevant document each: BASE ranks it second, better first, worse tenth or not at all."""
    qrels, lines = [], {"base": [], "better": [], "worse": [], "same": []}
    for query in range(60):
        qrels.append(f"q{query} 0 good 1\n")
        ranks = {"base": 2 + query % 3, "better": 1 + query % 2, "worse": 6 + query % 5, "same": 2 + (query + 1) % 3}
        for name, rank in ranks.items():
            docs = [f"d{place}" for place in range(10)]
            docs.insert(rank - 1, "good")
            lines[name] += [f"q{query} Q0 {doc} {at} {50 - at} t\n" for at, doc in enumerate(docs, 1)]
    (tmp_path / "qrels").write_text("".join(qrels))
    for name, text in lines.items():
        (tmp_path / f"{name}.run").write_text("".join(text))
    return tmp_path


def called(runs: Path, *words: str):
    places = ["--qrels", str(runs / "qrels"), "--lab", str(runs / "lab")]
    return CliRunner().invoke(app, [*words, *places])


@pytest.mark.parametrize(("new", "code"), [("better", 0), ("worse", 1), ("same", 4)])
def test_the_exit_code_says_whether_it_ships(runs: Path, new: str, code: int) -> None:
    margins = ["--margin", "RR@10=.0001"] if new == "same" else ["--margin", "RR@10=.05"]
    found = called(runs, "gate", str(runs / f"{new}.run"), str(runs / "base.run"), *margins, "--json")
    assert found.exit_code == code, found.output
    document = document_of(found.stdout, "gate")
    assert [check["outcome"] for check in document["gate"]] == [document["meta"]["outcome"]]


def test_junit_and_markdown_hold_each_check(runs: Path) -> None:
    words = ["gate", str(runs / "worse.run"), str(runs / "base.run"), "--margin", "RR@10=.05", "--superior", "nDCG@10"]
    found = called(runs, *words, "--junit", str(runs / "gate.xml"), "--markdown", str(runs / "gate.md"))
    assert found.exit_code == 1
    suite = ElementTree.fromstring((runs / "gate.xml").read_text())
    assert (suite.get("tests"), suite.get("failures")) == ("2", "2")
    assert [case.get("name") for case in suite] == ["RR@10: not worse by 0.05", "nDCG@10: better"]
    assert "worse" in (runs / "gate.md").read_text()


def test_a_gate_takes_its_look_from_the_record_and_is_refused_without_one(runs: Path) -> None:
    words = ["gate", str(runs / "better.run"), str(runs / "base.run"), "--margin", "RR@10=.05"]
    with refused(MissingError, "looks-unknown"):
        raise called(runs, *words, "--family", "looks").exception
    called(runs, *words)
    called(runs, "compare", str(runs / "base.run"), str(runs / "same.run"))
    found = called(runs, *words, "--family", "looks", "--markdown", str(runs / "gate.md"))
    assert found.exit_code == 0, found.output
    assert f"look 3 at level {level_of(3):.2g}" in (runs / "gate.md").read_text()
    with refused(UsageError, "look-twice"):
        raise called(runs, *words, "--family", "looks", "--look", "2").exception


def test_a_gate_without_checks_or_without_a_baseline_is_a_wrong_request(runs: Path) -> None:
    assert called(runs, "gate", str(runs / "worse.run"), str(runs / "base.run")).exception is not None
    assert called(runs, "gate", str(runs / "worse.run"), "--margin", "RR@10=.05").exit_code == 2


def test_slices_of_a_file_are_checked_and_named_in_the_report(runs: Path) -> None:
    (runs / "slices.tsv").write_text("".join(f"q{at}\t{'even' if at % 2 else 'odd'}\n" for at in range(60)))
    words = ["gate", str(runs / "better.run"), str(runs / "base.run"), "--margin", "RR@10=.05"]
    words += ["--slices", str(runs / "slices.tsv"), "--slice-margin", "even:RR@10=.05", "--junit", str(runs / "g.xml")]
    found = called(runs, *words, "--slice-margin", "odd:nDCG@10=.1")
    assert found.exit_code == 0, found.output
    suite = ElementTree.fromstring((runs / "g.xml").read_text())
    names = [case.get("name") for case in suite]
    assert names == ["RR@10: not worse by 0.05", "RR@10: not worse by 0.05 on even", "nDCG@10: not worse by 0.1 on odd"]


@pytest.mark.parametrize(
    ("text", "margin", "what"),
    [
        ("q1\ta\nq2\ta\n", "b:RR@10=.1", "no slice is called"),
        ("q1 a\n", "a:RR@10=.1", "slices.tsv:1"),
        ("x1\ta\nx2\ta\n", "a:RR@10=.1", "has 0 queries"),
        ("q1\ta\nq2\ta\n", "RR@10=.1", "not SLICE:MEASURE=NUMBER"),
        ("q1\ta\nq2\ta\n", "a:RR@10=2", "margin"),
        ("q1\ta\nq2\ta\n", "", "without a margin"),
    ],
)
def test_slices_that_cannot_be_are_refused(runs: Path, text: str, margin: str, what: str) -> None:
    (runs / "slices.tsv").write_text(text)
    words = ["gate", str(runs / "better.run"), str(runs / "base.run"), "--margin", "RR@10=.05"]
    words += ["--slices", str(runs / "slices.tsv"), *(["--slice-margin", margin] if margin else [])]
    assert what in str(called(runs, *words).exception)


@pytest.mark.parametrize("more", [[], ["--secondary", "--reasons"], ["--judged-only"], ["--worth", "RR@10=.1"]])
def test_a_comparison_document_is_what_its_schema_describes(
    runs: Path, more: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ["compare", *(str(runs / f"{name}.run") for name in ("base", "better", "worse")), "-m", "RR@10", "--json"]
    monkeypatch.setattr(sys, "argv", ["/usr/bin/cerank", *words])
    found = called(runs, *words, "--margin", "RR@10=.05", *more)
    assert found.exit_code == 0, found.output
    document = msgspec.json.decode(found.stdout.encode(), type=ComparisonDocument)
    assert document.rows[1].hurt is not None
    assert document.meta.command == shlex.join(["cerank", *words])


def test_a_table_of_all_pairs_says_with_letters_which_systems_each_beats(runs: Path) -> None:
    words = [str(runs / f"{name}.run") for name in ("base", "better", "worse")]
    found = called(runs, "compare", *words, "-m", "RR@10", "--pairs", "all", "--format", "latex")
    table = found.stdout.split("\\begin{table}")[-1]
    lines = [line for line in table.splitlines() if re.match(r"[abc] & ", line)]
    assert [re.findall(r"mathrm\{(\w+)\}", line) for line in lines] == [["c"], ["ac"], []]
    assert "\\begin{tablenotes}" in table


def test_the_schema_is_printed_as_json() -> None:
    found = CliRunner().invoke(app, ["schema", "comparison"])
    printed = msgspec.json.decode(found.stdout.encode())
    assert printed["$schema"].endswith("2020-12/schema")
    assert "DocumentRow" in printed["$defs"]


ACTION = Path(__file__).resolve().parents[3] / ".github" / "actions" / "gate"


@pytest.mark.thorough
@pytest.mark.parametrize(("new", "relaxed", "code"), [("better", "true", 0), ("same", "true", 4), ("same", "false", 0)])
def test_the_script_of_the_github_action_ends_as_the_gate_does(runs: Path, new: str, relaxed: str, code: int) -> None:
    if not ACTION.is_dir():
        pytest.skip("a source distribution comes without the action")
    environ = {
        **os.environ,
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "NEW": f"{new}.run",
        "BASE": "base.run",
        "QRELS": "qrels",
        "MARGINS": "RR@10=.05\n" if new == "better" else "RR@10=.0001\n\n",
        "LOOK": "2",
        "FAIL_ON_CANNOT_TELL": relaxed,
        "GITHUB_OUTPUT": str(runs / "output"),
        "GITHUB_STEP_SUMMARY": str(runs / "summary"),
    }
    done = subprocess.run(
        ["bash", str(ACTION / "gate.sh")], cwd=runs, env=environ, capture_output=True, text=True, check=False
    )
    assert done.returncode == code, done.stderr
    assert (runs / "output").read_text() == f"outcome={'ships' if new == 'better' else 'cannot tell'}\n"
    assert "| RR@10 |" in (runs / "summary").read_text().replace("\\", "")
    assert ElementTree.parse(runs / "cerank-gate.xml").getroot().get("tests") == "1"


def test_the_inputs_of_the_action_are_those_that_its_script_reads() -> None:
    if not ACTION.is_dir():
        pytest.skip("a source distribution comes without the action")
    text, script = (ACTION / "action.yml").read_text(), (ACTION / "gate.sh").read_text()
    declared = re.findall(r"^        ([A-Z_]+): \$\{\{ inputs\.", text, re.MULTILINE)
    assert len(declared) > 8
    assert [name for name in declared if name != "PACKAGE" and name not in script] == []


def test_a_test_set_is_designed_by_pilot_rankings(runs: Path) -> None:
    pilots = [str(runs / f"{name}.run") for name in ("base", "better", "same")]
    found = called(runs, "power", *pilots, "--systems", "3", "--delta", ".1", "-m", "RR@10", "--json")
    assert found.exit_code == 0, found.output
    (row,) = msgspec.json.decode(found.stdout.encode())
    assert row["pilot_queries"] == 60
    assert row["test_low"] < row["test_queries"] < row["test_high"]
    assert row["pair_queries"] > row["interval_queries"]


@pytest.mark.parametrize(
    ("words", "what"),
    [
        (["base", "better", "--systems", "3"], "is missing"),
        (["base", "better", "--systems", "1", "--delta", ".1"], "at least 2 systems"),
        (["base", "--systems", "3", "--delta", ".1"], "at least two rankings"),
        (["base", "better", "--systems", "3", "--delta", "2"], "beyond what RR@10 allows"),
        (["base", "better", "--systems", "3", "--delta", ".1", "--queries", "43"], "--queries"),
        (["base", "better", "--systems", "3", "--delta", ".1", "--tests", "4"], "--tests"),
        (["base", "better", "--systems", "3", "--delta", ".1", "--seeds", "3,5"], "--seeds"),
        (["base", "better", "--seeds", "3,5", "--margin", ".02", "--sd", ".1"], "--sd and --margin"),
        (["base", "base", "--systems", "3", "--delta", ".1"], "no spread"),
    ],
)
def test_a_design_without_a_difference_or_a_pilot_is_refused(runs: Path, words: list[str], what: str) -> None:
    given = [str(runs / f"{word}.run") if word in {"base", "better"} else word for word in words]
    assert what in str(called(runs, "power", *given, "-m", "RR@10").exception)
