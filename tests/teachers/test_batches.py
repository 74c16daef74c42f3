from __future__ import annotations

import json
from pathlib import Path

import pytest

from cerank.errors import RecipeError
from cerank.files import disk
from cerank.recipes.recipe_checks import recipe_from
from cerank.recipes.sections.teacher_specs import TeacherSpec
from cerank.teachers.budget import Caps
from cerank.teachers.engines import batch_server, overload
from cerank.teachers.engines.batch_records import read_lines
from cerank.teachers.engines.engine import ServerError
from cerank.teachers.estimate import estimate
from cerank.teachers.make import make
from cerank.teachers.requests import Hooks
from tests.refusals import refused
from tests.teachers.batch_api import BatchAPI, answered
from tests.teachers.collection import request_for, write_collection
from tests.teachers.scripted_server import Reply, ScriptedServer, by_number

pytestmark = pytest.mark.usefixtures("_pauses_are_short")

CALLS = 6 * 5  # six queries of 12 passages in windows of 4 by strides of 2


@pytest.fixture
def _pauses_are_short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(overload, "FIRST_PAUSE", 0.01)
    monkeypatch.setattr(overload, "LONGEST_PAUSE", 0.02)
    monkeypatch.setattr(batch_server, "QUIET", 0.01)
    monkeypatch.setattr(batch_server, "FIRST_POLL", 0.01)
    monkeypatch.setattr(batch_server, "LONGEST_POLL", 0.02)


@pytest.fixture
def collection(tmp_path: Path) -> Path:
    return write_collection(tmp_path / "collection")


def _spec(api: BatchAPI | ScriptedServer, **more: object) -> TeacherSpec:
    given: dict[str, object] = {
        "kind": "listwise", "model": "m", "server": api.url, "window": 4, "stride": 2, "depth": 12, "batch": True,
    }  # fmt: skip
    return TeacherSpec(**(given | {"timeout": 5.0, "attempts": 3} | more))  # type: ignore[arg-type]


def test_windows_of_one_query_go_in_successive_batches_and_give_what_single_calls_give(
    collection: Path, tmp_path: Path
) -> None:
    told: list[str] = []
    with BatchAPI() as api:
        (expected,) = estimate(request_for(collection, _spec(api), tmp_path))
        assert (expected.rounds, expected.calls) == (5, CALLS + 1)
        made = make(request_for(collection, _spec(api), tmp_path), Hooks(tell=told.append))
        assert len(api.batches) == 5
        assert len(api.direct) == 1  # the small call that tries the server
        assert set(api.paid.values()) == {1}
        assert sum(api.paid.values()) == CALLS
    assert any("batch_0: 6 calls sent" in line for line in told)
    with ScriptedServer() as server:
        single = make(request_for(collection, _spec(server, batch=False), tmp_path / "single"))
    assert dict(made.ranking) == dict(single.ranking)


def test_answers_of_batches_and_of_single_calls_are_the_same_store(collection: Path, tmp_path: Path) -> None:
    with BatchAPI() as api:
        make(request_for(collection, _spec(api), tmp_path))
        again = make(request_for(collection, _spec(api, batch=False), tmp_path))
        assert (again.asked, len(api.direct)) == (0, 1)


def test_a_stop_leaves_the_batch_at_the_server_and_days_later_its_answers_are_taken(
    collection: Path, tmp_path: Path
) -> None:
    with BatchAPI() as api:
        api.status_of = lambda _number, _times: "in_progress"
        looked = [0]

        def stop() -> str:
            looked[0] += bool(api.batches)
            return "SIGINT" if looked[0] > 5 else ""

        part = make(request_for(collection, _spec(api), tmp_path), Hooks(should_stop=stop))
        assert (part.stopped, len(part.ranking), len(api.batches)) == ("SIGINT", 0, 1)
        api.status_of = lambda _number, _times: "completed"
        whole = make(request_for(collection, _spec(api), tmp_path))
        assert (len(whole.ranking), len(api.batches)) == (6, 5)
        assert set(api.paid.values()) == {1}


def test_a_batch_that_expired_keeps_what_was_answered_and_the_rest_is_sent_again(
    collection: Path, tmp_path: Path
) -> None:
    def line(batch: str, request: dict[str, object], times: int) -> dict[str, object]:
        if batch == "batch_0" and "query number 3" in json.dumps(request) + json.dumps(times):
            error = {"code": "batch_expired", "message": "This request could not be executed before it expired."}
            return {"response": None, "error": error}
        return answered(by_number)(batch, request, times)  # type: ignore[return-value]

    with BatchAPI(line) as api:
        api.status_of = lambda number, _times: "completed" if number else "expired"
        made = make(request_for(collection, _spec(api), tmp_path))
        assert (len(made.ranking), made.provenance.failed) == (6, {})
        assert set(api.paid.values()) == {1}
        sent = [len(api.files[batch["input_file_id"]].splitlines()) for batch in api.batches.values()]
        assert sum(sent) == CALLS + 1  # the call that had expired, once more


def test_errors_of_single_calls_fail_their_query_alone_and_may_be_tried_again(collection: Path, tmp_path: Path) -> None:
    def line(batch: str, request: dict[str, object], times: int) -> dict[str, object] | None:
        text = json.dumps(request)
        if "query number 1" in text:
            body = {"error": {"message": "too long"}}
            return {"response": {"status_code": 400, "body": body}, "error": None}
        if "query number 2" in text:
            return {"response": {"status_code": 500, "body": {"error": {"message": "crash"}}}, "error": None}
        if "query number 4" in text:
            return None  # in neither file
        return answered(by_number)(batch, request, times)

    with BatchAPI(line) as api:
        spec = _spec(api, max_failures=1.0)
        made = make(request_for(collection, spec, tmp_path))
        assert sorted(made.ranking) == ["q0", "q3", "q5"]
        assert made.provenance.failed == {"rejected by the server": 1, "server error": 1, "not answered": 1}
        sent = len(api.batches)
        assert make(request_for(collection, spec, tmp_path)).provenance.failed == made.provenance.failed
        assert len(api.batches) == sent  # a failure is kept, too
        api.line_of = answered(by_number)
        whole = make(request_for(collection, spec, tmp_path, retry_failed=True))
        assert (len(whole.ranking), whole.provenance.failed) == (6, {})
        assert set(api.paid.values()) == {1}


def test_a_batch_that_was_created_while_its_response_was_lost_is_found_and_not_paid_twice(
    collection: Path, tmp_path: Path
) -> None:
    for keeps_metadata in (True, False):
        room = tmp_path / str(keeps_metadata)
        with BatchAPI() as api:
            api.keeps_metadata = keeps_metadata
            api.lost = {"POST /batches"}
            part = make(request_for(collection, _spec(api, attempts=1), room))
            assert "no answer about batches" in part.stopped
            assert len(api.batches) == 1
            api.lost = set()
            whole = make(request_for(collection, _spec(api), room))
            assert (len(whole.ranking), len(api.batches)) == (6, 5)
            assert set(api.paid.values()) == {1}


class _Killed(BaseException):
    """The process is gone; nothing cleans up after it."""


@pytest.mark.slow
def test_after_a_kill_at_any_change_to_the_disk_no_batch_is_paid_twice(tmp_path: Path) -> None:
    step = 13
    collection = write_collection(tmp_path / "collection", queries=2, depth=6)
    spec = {"window": 4, "stride": 2, "depth": 6}
    points = 0
    for point in range(1, 400, step):
        count = 0

        def die(name: str, path: Path, point: int = point) -> None:
            nonlocal count
            count += 1
            if count >= point:
                raise _Killed(f"{name} {path}")

        room = tmp_path / f"killed-{point}"
        with BatchAPI() as api:
            try:
                with disk.observe(die):
                    make(request_for(collection, _spec(api, **spec), room))
            except _Killed:
                points += 1
                made = make(request_for(collection, _spec(api, **spec), room))
                assert len(made.ranking) == 2, point
                assert set(api.paid.values()) == {1}, point
            else:
                break
    else:
        pytest.fail("four hundred changes to the disk did not reach the end")
    assert points > 8


@pytest.mark.slow
def test_a_server_that_is_away_for_a_while_is_asked_again_and_one_without_batches_is_refused(
    collection: Path, tmp_path: Path
) -> None:
    seen = [0]

    def busy(method: str, path: str) -> Reply | None:
        seen[0] += 1
        is_busy = path.startswith("/batches") and seen[0] % 3 == 0
        return Reply(status=503, body={"error": {"message": "busy"}}) if is_busy else None

    with BatchAPI() as api:
        api.fails = busy
        assert len(make(request_for(collection, _spec(api), tmp_path)).ranking) == 6
        assert set(api.paid.values()) == {1}
        api.fails = lambda _method, path: Reply(status=404, body={}) if path == "/files" else None
        with pytest.raises(ServerError):
            make(request_for(collection, _spec(api), tmp_path / "other"))


@pytest.mark.slow
def test_a_batch_over_the_servers_limit_stops_the_work_and_is_sent_anew_later(collection: Path, tmp_path: Path) -> None:
    with BatchAPI() as api:
        api.status_of = lambda _number, _times: "failed"
        part = make(request_for(collection, _spec(api), tmp_path))
        assert "Enqueued token limit reached" in part.stopped
        api.status_of = lambda _number, _times: "completed"
        assert len(make(request_for(collection, _spec(api), tmp_path)).ranking) == 6
        assert set(api.paid.values()) == {1}


@pytest.mark.parametrize("gone", ["/batches/batch_0", "/files/file-1/content"])
def test_a_batch_that_the_server_has_no_more_is_given_up_and_its_calls_are_sent_anew(
    collection: Path, tmp_path: Path, gone: str
) -> None:
    told: list[str] = []
    missing = Reply(status=404, body={"error": {"message": "no such object"}})
    with BatchAPI() as api:
        api.fails = lambda _method, path: missing if path == gone else None
        made = make(request_for(collection, _spec(api), tmp_path), Hooks(tell=told.append))
        assert (len(made.ranking), made.provenance.failed, len(api.batches)) == (6, {}, 6)
        assert sum("sent anew" in line for line in told) == 1
        make(request_for(collection, _spec(api), tmp_path))  # a later command does not ask for it either
        assert len(api.batches) == 6


def test_a_server_that_shows_none_of_its_batches_is_not_given_ever_more(collection: Path, tmp_path: Path) -> None:
    with BatchAPI() as api:
        api.fails = lambda _method, path: Reply(status=404, body={}) if path.startswith("/batches/") else None
        with pytest.raises(ServerError):
            make(request_for(collection, _spec(api), tmp_path))
        assert len(api.batches) == 3  # as many as there are attempts


def test_batches_cost_their_share_of_the_price_and_caps_count_that(collection: Path, tmp_path: Path) -> None:
    prices = tmp_path / "prices.toml"
    prices.write_text("[models.m]\ninput = 1000.0\noutput = 1000.0\nbatch = 0.5\ndate = 2026-11-01\n")
    with BatchAPI() as api:
        made = make(request_for(collection, _spec(api), tmp_path, prices=prices))
        assert made.provenance.cost == pytest.approx(CALLS * 0.11 * 0.5)
        part = make(request_for(collection, _spec(api), tmp_path / "capped", prices=prices, caps=Caps(cost=0.5)))
    assert "--max-cost 0.5" in part.stopped


@pytest.mark.slow
def test_a_large_round_is_split_at_the_limits_of_a_batch(
    collection: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batch_server, "MOST_REQUESTS", 4)
    with BatchAPI() as api:
        made = make(request_for(collection, _spec(api), tmp_path))
        assert (len(made.ranking), set(api.paid.values())) == (6, {1})
        sizes = [len(api.files[batch["input_file_id"]].splitlines()) for batch in api.batches.values()]
    assert max(sizes) == 4


def test_lines_of_output_files_are_read_whatever_else_is_in_them() -> None:
    good = b'{"custom_id": "a", "response": {"status_code": 200, "body": {"x": 1}}, "error": null}'
    bad = b'{"custom_id": "a", "response": null, "error": {"code": "batch_expired", "message": "late"}}'
    rest = [b"", b"{", b"[]", b'"x"', b'{"custom_id": 3}', b"\xff\xfe", b'{"custom_id": "b"}']
    lines = read_lines(b"\n".join([bad, *rest, good, bad]))
    assert set(lines) == {"a", "b"}
    assert (lines["a"].status, lines["a"].body, lines["b"].status) == (200, b'{"x":1}', 0)


def test_a_batch_needs_a_server() -> None:
    values = {
        "name": "x",
        "chain": ["d"],
        "stages": {"d": {"steps": 1}},
        "teachers": {"z": {"kind": "listwise", "model": "m", "batch": True}},
    }
    with refused(RecipeError, "recipe", "teachers.z.batch"):
        recipe_from(values, "test")
