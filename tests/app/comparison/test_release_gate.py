"""The command `cerank gate`: exit codes, Markdown and JUnit that a continuous integration reads."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from xml.etree import ElementTree

import msgspec
import pytest
from typer.testing import CliRunner

from cerank.app.comparison.comparison_schema import ComparisonDocument
from cerank.cli.typer_app import app


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
    found = called(runs, "gate", str(runs / f"{new}.run"), str(runs / "base.run"), *margins)
    assert found.exit_code == code, found.output


def test_junit_and_markdown_hold_each_check(runs: Path) -> None:
    words = ["gate", str(runs / "worse.run"), str(runs / "base.run"), "--margin", "RR@10=.05", "--superior", "nDCG@10"]
    found = called(runs, *words, "--junit", str(runs / "gate.xml"), "--markdown", str(runs / "gate.md"))
    assert found.exit_code == 1
    suite = ElementTree.fromstring((runs / "gate.xml").read_text())
    assert (suite.get("tests"), suite.get("failures")) == ("2", "2")
    assert [case.get("name") for case in suite] == ["RR@10: not worse by 0.05", "nDCG@10: better"]
    assert "worse" in (runs / "gate.md").read_text()


def test_a_gate_without_checks_or_without_a_baseline_is_a_wrong_request(runs: Path) -> None:
    assert called(runs, "gate", str(runs / "worse.run"), str(runs / "base.run")).exception is not None
    assert called(runs, "gate", str(runs / "worse.run"), "--margin", "RR@10=.05").exit_code == 2


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


def test_the_schema_is_printed_as_json() -> None:
    found = CliRunner().invoke(app, ["schema", "comparison"])
    printed = msgspec.json.decode(found.stdout.encode())
    assert printed["$schema"].endswith("2020-12/schema")
    assert "DocumentRow" in printed["$defs"]
