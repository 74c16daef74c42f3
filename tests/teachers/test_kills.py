from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest

from cerank.files import disk
from cerank.recipes.sections.teacher_specs import TeacherSpec
from cerank.teachers.answer_store import AnswerStore, ModelAnswer, read_answers
from cerank.teachers.make import make
from tests.teachers.collection import request_for, write_collection
from tests.teachers.scripted_server import ScriptedServer

_POINTS = 100


class _Killed(BaseException):
    """The process is gone; nothing cleans up after it."""


def _spec(server: ScriptedServer) -> TeacherSpec:
    return TeacherSpec(kind="listwise", model="m", server=server.url, window=4, stride=2, depth=8, concurrency=3)


def _made_until(request: object, operation: int) -> bool:
    """Make the rankings until that change to the disk, at which the process dies; return whether it came that far."""
    count = 0

    def die(name: str, path: Path) -> None:
        nonlocal count
        count += 1
        if count >= operation:
            raise _Killed(f"{name} {path}")

    try:
        with disk.observe(die):
            make(request)  # type: ignore[arg-type]
    except _Killed:
        return True
    return False


def _stored(lab: Path) -> set[str]:
    return {key for path in (lab / "teachers" / "answers").glob("*.jsonl") for key in read_answers(path)}


@pytest.mark.parametrize("step", [9, pytest.param(1, marks=pytest.mark.slow)])
def test_after_a_kill_at_any_change_to_the_disk_no_kept_answer_is_asked_for_again(step: int, tmp_path: Path) -> None:
    """Each `step`-th of the first hundred changes, each in a lab that goes on from there to the end."""
    collection = write_collection(tmp_path / "collection", queries=3, depth=8)
    with ScriptedServer() as server:
        whole = make(request_for(collection, _spec(server), tmp_path / "whole"))
        needed = len(server.bodies)
        for point in range(1, _POINTS + 1, step):
            room = tmp_path / f"killed-{point}"
            server.bodies.clear()
            was_killed = _made_until(request_for(collection, _spec(server), room), point)
            kept = _stored(room / "lab")
            before = len(server.bodies)
            made = make(request_for(collection, _spec(server), room))
            assert dict(made.ranking) == dict(whole.ranking), point
            assert made.asked == needed - len(kept), point
            # what was out when the process died may be asked once more, and nothing else
            assert before + made.asked <= needed + 3, point
            if not was_killed:
                break
        else:
            pytest.fail(f"{_POINTS} changes to the disk did not reach the end")
    assert point > 40


def test_a_store_cut_in_the_middle_of_an_answer_loses_that_answer_alone(tmp_path: Path) -> None:
    from datetime import UTC, datetime

    path = tmp_path / "answers" / "m.jsonl"
    with AnswerStore(path, datetime.now(UTC)) as store:
        for number in range(3):
            store.add(ModelAnswer(key=str(number), model="m", text="[1] > [2]"))
    path.write_bytes(path.read_bytes()[:-20])
    with AnswerStore(path, datetime.now(UTC)) as store:
        assert [store.get(str(number)) is not None for number in range(3)] == [True, True, False]
        store.add(ModelAnswer(key="2", model="m", text="[2] > [1]"))
    assert len(read_answers(path)) == 3


_PROGRAM = """
import sys
from pathlib import Path
from cerank.recipes.sections.teacher_specs import TeacherSpec
from cerank.teachers.make import make
from tests.teachers.collection import request_for
collection, room, url = sys.argv[1:]
spec = TeacherSpec(kind="listwise", model="m", server=url, window=4, stride=2, depth=12, concurrency=3)
made = make(request_for(Path(collection), spec, Path(room)))
print(made.asked, len(made.ranking))
"""


@pytest.mark.slow
def test_a_process_killed_again_and_again_ends_with_every_answer_asked_for_once(tmp_path: Path) -> None:
    collection = write_collection(tmp_path / "collection", queries=20)
    generator = random.Random(7)

    def script(body: dict[str, object], times: int) -> object:
        from tests.teachers.scripted_server import by_number

        return by_number(body, times)._replace(delay=0.02)

    with ScriptedServer(script) as server:  # type: ignore[arg-type]
        command = [sys.executable, "-c", _PROGRAM, str(collection), str(tmp_path / "room"), server.url]
        kills = 0
        for _ in range(60):
            process = subprocess.Popen(command, stdout=subprocess.PIPE, cwd=Path(__file__).parents[2], env=os.environ)
            seen = len(server.bodies)
            more = generator.randint(1, 12)
            while process.poll() is None and len(server.bodies) < seen + more:
                time.sleep(0.005)
            if process.poll() is not None:
                break
            process.send_signal(signal.SIGKILL)
            process.wait()
            kills += 1
        assert process.returncode == 0
        assert kills > 5
        times = Counter(json.dumps(body, sort_keys=True) for body in server.bodies)
    repeated = sum(count - 1 for count in times.values())
    assert len(times) == 20 * 5 + 1
    assert repeated <= 3 * kills  # those that were out when the process was killed
