from __future__ import annotations

import json
import os
import random
import re
from pathlib import Path

import pytest
from typer.testing import CliRunner

from cerank.cli.typer_app import app
from cerank.errors import CerankError
from tests.json_documents import document_of
from tests.refusals import refused
from tests.teachers.collection import write_collection
from tests.teachers.scripted_server import Reply, ScriptedServer, by_number, completion, shown_passages

_QUERIES = 30


@pytest.fixture
def room(tmp_path: Path) -> Path:
    write_collection(tmp_path / "collection", queries=_QUERIES, depth=8)
    return tmp_path


def _recipe(room: Path, server: ScriptedServer, more: str = "") -> Path:
    path = room / "recipe.toml"
    path.write_text(
        f"""extends = "distill"
name = "taught"
[data]
train = "{room}/collection"
validation = "{room}/collection"
first_stages = ["{room}/collection/first.run"]
[teachers.zephyr]
kind = "listwise"
model = "castorini/rank_zephyr_7b_v1_full"
server = "{server.url}"
window = 4
stride = 2
depth = 8
{more}
"""
    )
    return path


def _run(room: Path, *arguments: str) -> tuple[int, str, str]:
    result = CliRunner().invoke(
        app, ["teach", *arguments, "--lab", str(room / "lab"), "--cache", str(room / "cache")], env=dict(os.environ)
    )
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.exit_code, result.stdout, result.stderr


def test_a_good_teacher_is_better_by_verdict_and_stable(room: Path) -> None:
    with ScriptedServer() as server:
        code, out, err = _run(room, "check", "zephyr", "-r", str(_recipe(room, server)), "--json")
        asked = len(server.bodies)
        _run(room, "check", "zephyr", "-r", str(_recipe(room, server)))
        assert len(server.bodies) == asked
    assert code == 0
    tables = document_of(out, "comparison", "check")
    assert [row["verdict"] for row in tables["comparison"] if row["system"] == "zephyr"] == ["better"]
    facts = {row["key"]: row["value"] for row in tables["check"]}
    assert facts["position bias: tau over 20 queries"] == "1.000"
    assert facts["consistency: first passages that differ"] == "0.0%"
    assert "worse" not in err


def test_a_teacher_that_is_worse_than_the_first_stage_is_flagged_before_it_teaches(room: Path) -> None:
    def worst_first(body: dict[str, object], times: int) -> Reply:
        numbers = re.findall(r"\d+", by_number(body, times).body["choices"][0]["message"]["content"])
        return completion(" > ".join(f"[{number}]" for number in reversed(numbers)))

    with ScriptedServer(worst_first) as server:
        code, _, err = _run(room, "check", "zephyr", "-r", str(_recipe(room, server)))
    assert code == 1
    assert "worse" in err


def test_a_teacher_that_goes_by_places_and_chance_is_seen_to_do_so(room: Path) -> None:
    generator = random.Random(3)

    def by_chance(body: dict[str, object], _times: int) -> Reply:
        order = list(range(1, len(shown_passages(body)) + 1))
        generator.shuffle(order)
        return completion(" > ".join(f"[{number}]" for number in order[:-1]) + f" > [{order[0]}]")

    with ScriptedServer(by_chance) as server:
        code, _, err = _run(room, "check", "zephyr", "-r", str(_recipe(room, server, "concurrency = 1")))
    assert code == 0
    assert "depends on where passages stand" in err
    assert "answered differently the second time" in err
    assert "had to be repaired" in err
    assert "not shown to rank better" in err


def test_a_cap_leaves_the_check_for_later(room: Path) -> None:
    with ScriptedServer() as server, refused(CerankError, "limit-reached", "--max-calls", 5):
        _run(room, "check", "zephyr", "-r", str(_recipe(room, server)), "--max-calls", "5")


def test_make_prints_the_path_and_leaves_with_75_at_a_cap(room: Path) -> None:
    with ScriptedServer() as server:
        recipe = str(_recipe(room, server))
        code, out, err = _run(room, "zephyr", "-r", recipe, "--max-calls", "40")
        assert (code, len(server.bodies)) == (75, 40)
        code, out, err = _run(room, "zephyr", "-r", recipe, "-o", str(room / "teacher.run"))
        assert (code, len(server.bodies)) == (0, 1 + 3 * _QUERIES)
    assert Path(out.strip()).is_file()
    assert len((room / "teacher.run").read_text().splitlines()) == 8 * _QUERIES
    assert json.loads((room / "teacher.run.teacher.json").read_text())["queries"] == _QUERIES
    assert "30 queries ranked" in err


def test_a_prompt_is_shown_filled_in_and_nothing_is_asked(room: Path) -> None:
    with ScriptedServer() as server:
        code, out, _ = _run(room, "zephyr", "-r", str(_recipe(room, server)), "--show-prompt")
        assert server.bodies == []
    assert code == 0
    assert out.startswith("--- system\nYou are RankLLM")
    assert "[4] text of query" in out


def test_a_model_that_was_trained_on_the_queries_is_named() -> None:
    from cerank.teachers.judging.known_training_data import leak

    assert "MS MARCO" in leak("castorini/rank_zephyr_7b_v1_full", "msmarco-passage/train/judged")
    assert leak("castorini/rank_zephyr_7b_v1_full", "vaswani") == ""
