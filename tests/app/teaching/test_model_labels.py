from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from typer.testing import CliRunner

from cerank.app.teaching.model_labels import write_labels
from cerank.cli.typer_app import app
from cerank.errors import UsageError
from cerank.recipes.sections.teacher_specs import TeacherSpec
from cerank.teachers.judging.labels import agreement, family_warnings, system_agreement
from cerank.teachers.requests import Hooks
from cerank.trec.text_io import read_qrels
from tests.refusals import refused
from tests.teachers.collection import request_for, write_collection
from tests.teachers.scripted_server import Reply, ScriptedServer, completion


def _graded(body: dict[str, object], _times: int) -> Reply:
    """As the labels of the collection: 1 above 800, and 3 in place of 2 above 950."""
    found = re.search(r"worth (\d+)", json.dumps(body))
    worth = int(found[1]) if found else 0
    return completion(f"M: 1\n##final score: {3 if worth > 950 else 1 if worth > 800 else 0}")


def _spec(server: ScriptedServer) -> TeacherSpec:
    return TeacherSpec(kind="graded", model="qwen3-32b", server=server.url, depth=12)


def test_grades_become_qrels_with_provenance_and_their_agreement(tmp_path: Path) -> None:
    folder = write_collection(tmp_path / "collection")
    output = tmp_path / "model.qrels"
    lines = (folder / "first.run").read_text().splitlines()
    runs = []
    for number in range(3):  # three systems, by how much of the first stage each turns round
        path = tmp_path / f"system-{number}.run"
        rows = [line.split() for line in lines]
        kept = [
            f"{row[0]} Q0 {row[2]} 1 {int(row[2].rpartition('-')[2]) * (number - 1) + int(row[3])} t" for row in rows
        ]
        path.write_text("\n".join(kept) + "\n")
        runs.append(str(path))
    with ScriptedServer(_graded) as server:
        found = write_labels(
            request_for(folder, _spec(server), tmp_path), Hooks(), output, runs=tuple(runs), measure="nDCG@10"
        )
    qrels = read_qrels(output)
    assert (found.queries, found.documents, len(qrels)) == (6, 72, 6)
    assert {grade for row in qrels.values() for grade in row.values()} <= {0, 1, 3}
    assert json.loads((tmp_path / "model.qrels.teacher.json").read_text())["model"] == "qwen3-32b"
    assert found.agreement is not None
    assert found.agreement.pairs == 72
    assert found.agreement.binary_kappa == pytest.approx(1.0, abs=0.15)
    assert found.systems is not None
    assert found.systems.tau == 1.0


def test_a_teacher_without_grades_writes_no_labels(tmp_path: Path) -> None:
    folder = write_collection(tmp_path / "collection")
    with ScriptedServer() as server:
        spec = TeacherSpec(kind="listwise", model="m", server=server.url)
        with refused(UsageError, "teacher-without-grades"):
            write_labels(request_for(folder, spec, tmp_path), Hooks(), tmp_path / "q", runs=(), measure="nDCG@10")
        assert server.bodies == []


def test_only_documents_that_both_judged_count() -> None:
    found = agreement({"q": {"a": 3, "b": 0, "c": 1}}, {"q": {"a": 2, "b": 0}, "other": {"c": 1}})
    assert (found.pairs, found.confusion) == (2, {0: {0: 1}, 2: {3: 1}})


def test_the_order_of_two_systems_says_nothing() -> None:
    assert system_agreement({"a": 0.1, "b": 0.2}, {"a": 0.1, "b": 0.2}) is None
    found = system_agreement({"a": 0.3, "b": 0.2, "c": 0.1}, {"a": 0.1, "b": 0.2, "c": 0.3})
    assert found is not None
    assert (found.tau, found.tau_ap) == (-1.0, -1.0)


def test_a_judge_of_the_same_family_is_named() -> None:
    assert "qwen" in family_warnings("Qwen/Qwen3-32B", ["runs/qwen3-reranker.run"])[0]
    assert family_warnings("Qwen/Qwen3-32B", ["bm25.run"]) == []


def test_a_verdict_that_rests_on_a_models_labels_says_so(tmp_path: Path) -> None:
    folder = write_collection(tmp_path / "collection")
    with ScriptedServer(lambda _body, _times: completion("##final score: 1")) as server:
        spec = TeacherSpec(kind="graded", model="the-judge", server=server.url)
        write_labels(request_for(folder, spec, tmp_path), Hooks(), tmp_path / "q", runs=(), measure="nDCG@10")
    other = tmp_path / "other.run"
    other.write_text((folder / "first.run").read_text())
    runs = [str(folder / "first.run"), str(other)]
    settings = ["--lab", str(tmp_path / "lab"), "--cache", str(tmp_path / "cache"), "--measure", "nDCG@10"]
    by_model = CliRunner().invoke(app, ["compare", *runs, "--qrels", str(tmp_path / "q"), *settings])
    by_people = CliRunner().invoke(app, ["compare", *runs, "--qrels", str(folder / "qrels"), *settings])
    assert (by_model.exit_code, by_people.exit_code) == (0, 0), by_model.output
    assert "the-judge" in by_model.output
    assert "the-judge" not in by_people.output


def test_labels_of_a_model_in_a_dataset_folder_are_told_of_and_so_is_a_system_of_its_family(tmp_path: Path) -> None:
    folder = write_collection(tmp_path / "collection")
    with ScriptedServer(lambda _body, _times: completion("##final score: 1")) as server:
        spec = TeacherSpec(kind="graded", model="Qwen/Qwen3-8B", server=server.url)
        request = request_for(folder, spec, tmp_path)
        write_labels(request, Hooks(), folder / "qrels", runs=(), measure="nDCG@10")
    for name in ("bm25", "qwen3-reranker"):
        (tmp_path / f"{name}.run").write_text((folder / "first.run").read_text())
    command = ["compare", str(tmp_path / "bm25.run"), str(tmp_path / "qwen3-reranker.run"), "--dataset", str(folder)]
    result = CliRunner().invoke(app, [*command, "--lab", str(tmp_path / "lab"), "--cache", str(tmp_path / "cache")])
    assert result.exit_code == 0, result.output
    assert result.output.count("labels are Qwen/Qwen3-8B's") == 2
    assert result.output.count("of one family (qwen)") == 1
