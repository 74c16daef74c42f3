from __future__ import annotations

import json
import threading
from pathlib import Path

import pytest

from cerank.errors import RunFailedError, UsageError
from cerank.recipes.sections.teacher_specs import TeacherSpec, teacher_mistakes
from cerank.teachers import ranking_files
from cerank.teachers.budget import Caps
from cerank.teachers.engines import overload
from cerank.teachers.engines.engine import ServerError
from cerank.teachers.estimate import estimate
from cerank.teachers.make import make
from cerank.teachers.requests import Hooks
from tests.refusals import refused
from tests.teachers.collection import best_first, request_for, write_collection
from tests.teachers.scripted_server import Reply, ScriptedServer, by_number, completion, first_token, shown_passages

pytestmark = pytest.mark.usefixtures("_pauses_are_short")


@pytest.fixture
def _pauses_are_short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(overload, "FIRST_PAUSE", 0.01)
    monkeypatch.setattr(overload, "LONGEST_PAUSE", 0.02)


@pytest.fixture
def collection(tmp_path: Path) -> Path:
    return write_collection(tmp_path / "collection")


def _spec(server: ScriptedServer, **more: object) -> TeacherSpec:
    given: dict[str, object] = {
        "kind": "listwise",
        "model": "m",
        "server": server.url,
        "window": 4,
        "stride": 2,
        "depth": 12,
    }
    return TeacherSpec(**(given | {"timeout": 5.0} | more))  # type: ignore[arg-type]


def test_a_teacher_ranks_by_windows_and_says_how_beside_the_ranking(collection: Path, tmp_path: Path) -> None:
    with ScriptedServer() as server:
        made = make(request_for(collection, _spec(server), tmp_path))
    assert made.stopped == ""
    assert made.asked == 6 * 5 + 1  # 12 passages in windows of 4 by strides of 2, and one small call before
    for docs in made.ranking.values():
        assert docs[:2] == best_first(docs)[:2]  # what windows of 4 by 2 bring to the top for certain
    body = server.bodies[-1]
    assert (body["temperature"], body["model"], body["path"]) == (0.0, "m", "/v1/chat/completions")
    stored = ranking_files.load_ranking(made.folder)
    assert {query: stored[query] for query in stored} == {query: made.ranking[query] for query in made.ranking}
    facts = json.loads((made.folder / "teacher.json").read_text())
    assert (facts["place"], facts["queries"], facts["calls"], facts["kind"]) == (server.url, 6, 30, "listwise")
    assert facts["usage"] == {"input_tokens": 3000, "output_tokens": 300}


def test_nothing_is_asked_twice_whoever_asks(collection: Path, tmp_path: Path) -> None:
    with ScriptedServer() as server:
        first = make(request_for(collection, _spec(server), tmp_path))
        asked = len(server.bodies)
        again = make(request_for(collection, _spec(server), tmp_path))
        other = make(request_for(collection, {"other": _spec(server, concurrency=1)}, tmp_path))
        assert len(server.bodies) == asked
    assert (again.asked, again.reused) == (0, 30)
    assert dict(again.ranking) == dict(first.ranking) == dict(other.ranking)


def test_a_cap_on_calls_stops_before_it_is_crossed_and_the_rest_follows_later(collection: Path, tmp_path: Path) -> None:
    with ScriptedServer() as server:
        part = make(request_for(collection, _spec(server), tmp_path, caps=Caps(calls=12)))
        assert "--max-calls 12" in part.stopped
        assert len(server.bodies) == 12
        whole = make(request_for(collection, _spec(server), tmp_path))
        assert len(server.bodies) == 31
    assert len(part.ranking) < 6 == len(whole.ranking)


def test_a_cap_on_money_needs_a_price_and_is_never_crossed(collection: Path, tmp_path: Path) -> None:
    prices = tmp_path / "prices.toml"
    prices.write_text("[models.m]\ninput = 1000.0\noutput = 1000.0\ndate = 2026-11-01\n")
    with ScriptedServer() as server:
        with refused(UsageError, "price-missing"):
            make(request_for(collection, _spec(server), tmp_path, caps=Caps(cost=1.0), prices=_empty(tmp_path)))
        part = make(request_for(collection, _spec(server, concurrency=1), tmp_path, caps=Caps(cost=1.0), prices=prices))
    assert "--max-cost 1" in part.stopped
    assert 0 < len(server.bodies) * 0.11 <= 1.0
    assert part.provenance.price_date == "2026-11-01"


def _empty(room: Path) -> Path:
    path = room / "none.toml"
    path.write_text("")
    return path


def test_an_estimate_says_how_many_calls_and_asks_nothing(collection: Path, tmp_path: Path) -> None:
    with ScriptedServer() as server:
        (before,) = estimate(request_for(collection, _spec(server), tmp_path))
        assert (before.calls, before.known, before.seconds, server.bodies) == (31, 0, None, [])
        make(request_for(collection, _spec(server), tmp_path, caps=Caps(calls=12)))
        (later,) = estimate(request_for(collection, _spec(server), tmp_path))
        assert (later.calls, later.known) == (30, 11)
        assert later.seconds is not None
        assert later.cost is None


@pytest.mark.parametrize(
    ("reply", "reason"),
    [
        (completion("[2] > [1]", finish="length"), "cut off"),
        (completion("", finish="stop"), "empty"),
        (completion(None, refusal="I will not."), "refused"),
        (completion("", finish="content_filter"), "refused"),
        (completion("Sorry, an error of type 500 occurred"), "unreadable"),
        (Reply(body={"error": {"message": "overloaded"}}), "bad response"),
        (Reply(body=b"<html>busy</html>"), "bad response"),
        (Reply(body=b'{"choices": [{"message": {"content": "[1]'), "bad response"),
        (Reply(body={"choices": []}), "bad response"),
        (Reply(status=400, body={"error": {"message": "too long"}}), "rejected by the server"),
        (Reply(status=500, body={"detail": "crash"}), "server error"),
        (Reply(reset=True), "connection failed"),
        (Reply(body={"x": "y" * 100}, cut=True), "connection failed"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_failure_is_never_an_answer(reply: Reply, reason: str, collection: Path, tmp_path: Path) -> None:
    def script(body: dict[str, object], times: int) -> Reply:
        return reply if "query number 3" in json.dumps(body) else by_number(body, times)

    with ScriptedServer(script) as server:
        made = make(request_for(collection, _spec(server, max_failures=0.2, attempts=2), tmp_path))
        assert sorted(made.ranking) == ["q0", "q1", "q2", "q4", "q5"]
        assert made.provenance.failed == {reason: 1}
        asked = len(server.bodies)
        again = make(request_for(collection, _spec(server, max_failures=0.2, attempts=2), tmp_path))
        assert (len(server.bodies), again.provenance.failed) == (asked, {reason: 1})
        server.script = by_number
        spec = _spec(server, max_failures=0.2, attempts=2)
        mended = make(request_for(collection, spec, tmp_path, retry_failed=True))
    assert len(mended.ranking) == 6
    assert mended.provenance.failed == {}
    assert mended.asked == 5


def test_too_many_failures_end_the_work_with_their_reasons_and_keep_what_was_ranked(
    collection: Path, tmp_path: Path
) -> None:
    def script(body: dict[str, object], times: int) -> Reply:
        return completion("I cannot") if "query number 3" in json.dumps(body) else by_number(body, times)

    with ScriptedServer(script) as server:
        request = request_for(collection, _spec(server), tmp_path)
        with refused(RunFailedError, "too-many-failures", 1, 6, "max_failures", "0.1"):
            make(request)
    (folder,) = (tmp_path / "lab" / "teachers" / "rankings").iterdir()
    assert len(ranking_files.load_ranking(folder)) == 5


def test_an_overloaded_server_is_asked_less_and_loses_nothing(collection: Path, tmp_path: Path) -> None:
    lock, seen = threading.Lock(), [0]

    def script(body: dict[str, object], times: int) -> Reply:
        with lock:
            seen[0] += 1
            number = seen[0]
        if times == 0 and number % 3 == 0:
            return Reply(status=429, body={"error": {"message": "slow down"}}, headers={"Retry-After": "0.02"})
        return by_number(body, times)

    with ScriptedServer(script) as server:
        made = make(request_for(collection, _spec(server), tmp_path))
    assert len(made.ranking) == 6
    assert set(server.answered.values()) == {1}


def test_a_stalled_call_is_sent_again(collection: Path, tmp_path: Path) -> None:
    def script(body: dict[str, object], times: int) -> Reply:
        reply = by_number(body, times)
        return reply._replace(delay=1.0) if times == 0 and "query number 2" in json.dumps(body) else reply

    with ScriptedServer(script) as server:
        made = make(request_for(collection, _spec(server, timeout=0.3), tmp_path))
    assert len(made.ranking) == 6


@pytest.mark.parametrize("status", [401, 403, 404, 301])
def test_a_server_that_answers_nobody_ends_the_work_at_once(status: int, collection: Path, tmp_path: Path) -> None:
    reply = Reply(status=status, body={"error": {"message": "no"}}, headers={"Location": "http://elsewhere.invalid/"})
    with ScriptedServer(lambda _body, _times: reply) as server:
        with pytest.raises(ServerError):
            make(request_for(collection, _spec(server), tmp_path))
        assert len(server.bodies) == 1


def test_a_server_that_asks_for_an_hour_pauses_the_work(collection: Path, tmp_path: Path) -> None:
    def script(body: dict[str, object], times: int) -> Reply:
        if "query number 5" in json.dumps(body):
            return Reply(status=429, body={}, headers={"Retry-After": "3600"})
        return by_number(body, times)

    with ScriptedServer(script) as server:
        made = make(request_for(collection, _spec(server), tmp_path))
    assert "come back in 3600 s" in made.stopped
    assert server.url in made.stopped


def test_a_stop_waits_for_the_calls_that_are_out(collection: Path, tmp_path: Path) -> None:
    with ScriptedServer() as server:
        hooks = Hooks(should_stop=lambda: "SIGINT" if len(server.bodies) >= 10 else "")
        made = make(request_for(collection, _spec(server, concurrency=2), tmp_path), hooks)
        assert made.stopped == "SIGINT"
        asked = len(server.bodies)
        assert asked < 31
        make(request_for(collection, _spec(server, concurrency=2), tmp_path))
        assert len(server.bodies) == 31
    assert set(server.answered.values()) == {1}


def test_a_key_goes_to_the_server_and_into_no_file_or_error(
    collection: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    secret = "my-very-own-key-0123456789"
    monkeypatch.setenv("TEACHER_ACCESS", secret)

    def script(body: dict[str, object], times: int) -> Reply:
        reply = by_number(body, times)
        if "query number 1" in json.dumps(body):
            return Reply(status=400, body={"error": {"message": f"bad key {secret}"}})
        if "query number 2" in json.dumps(body):
            reply.body["choices"][0]["message"]["content"] += f" (asked with {secret})"
        return reply

    with ScriptedServer(script) as server:
        request = request_for(collection, _spec(server, api_key="TEACHER_ACCESS"), tmp_path)
        with pytest.raises(RunFailedError) as caught:
            make(request)
        assert all(headers["Authorization"] == f"Bearer {secret}" for headers in server.headers)
    assert secret not in str(caught.value)
    files = [path for path in (tmp_path / "lab").rglob("*") if path.is_file()]
    assert len(files) >= 4
    assert not any(secret.encode() in path.read_bytes() for path in files)


def test_first_orders_by_the_log_probabilities_of_the_letters(collection: Path, tmp_path: Path) -> None:
    def script(body: dict[str, object], _times: int) -> Reply:
        passages = shown_passages(body)
        worth = [int(text.rpartition(" ")[2]) if text[-1].isdigit() else 0 for text in passages]
        pairs = [(chr(ord("A") + place), value / 1000 - 2.0) for place, value in enumerate(worth)]
        return completion("A", finish="length", logprobs=first_token(*sorted(pairs, key=lambda pair: -pair[1])))

    with ScriptedServer(script) as server:
        made = make(request_for(collection, _spec(server, kind="first", window=12, stride=6), tmp_path))
    for docs in made.ranking.values():
        assert docs == best_first(docs)
    assert server.bodies[-1]["messages"][-1] == {"role": "assistant", "content": "["}
    assert server.bodies[-1]["top_logprobs"] == 20


def test_a_server_without_log_probabilities_is_refused_after_one_call(collection: Path, tmp_path: Path) -> None:
    with ScriptedServer(lambda _body, _times: completion("A", finish="length")) as server:
        with refused(UsageError, "no-log-probabilities"):
            make(request_for(collection, _spec(server, kind="first"), tmp_path))
        assert len(server.bodies) == 1


def test_a_server_that_ignores_a_parameter_for_the_answers_form_is_refused_after_one_call(
    collection: Path, tmp_path: Path
) -> None:
    with ScriptedServer() as server:
        spec = _spec(server, parameters={"guided_regex": r"(\[\d\], )*"})
        with refused(UsageError, "parameter-ignored", "guided_regex"):
            make(request_for(collection, spec, tmp_path))
        assert len(server.bodies) == 1


def test_a_server_that_answers_with_another_model_is_told_of(collection: Path, tmp_path: Path) -> None:
    told: list[str] = []
    with ScriptedServer() as server:
        for name in ("castorini/rank_zephyr", "Scripted"):
            make(request_for(collection, _spec(server, model=name), tmp_path), Hooks(tell=told.append))
    (line,) = told
    assert "'scripted'" in line
    assert "'castorini/rank_zephyr'" in line


def test_the_newer_name_of_the_largest_answer_replaces_the_other_and_caps_count_it(
    collection: Path, tmp_path: Path
) -> None:
    with ScriptedServer() as server:
        spec = _spec(server, parameters={"max_completion_tokens": 900})
        part = make(request_for(collection, spec, tmp_path, caps=Caps(tokens=1500)))
    assert len(server.bodies) == 2  # the small one and one more; beside it another could take more than is left
    assert (server.bodies[0]["max_completion_tokens"], "max_tokens" in server.bodies[0]) == (900, False)
    assert "--max-tokens 1500" in part.stopped


@pytest.mark.parametrize("name", ["messages", "model", "temperature", "max_tokens", "stream", "n"])
def test_parameters_cannot_change_what_other_keys_set_or_how_answers_are_read(name: str) -> None:
    spec = TeacherSpec(kind="listwise", model="m", server="http://x/v1", parameters={name: 2})
    (mistake,) = teacher_mistakes({"z": spec})
    assert name in mistake


def test_candidates_without_any_text_are_refused_and_queries_without_are_left_out(
    collection: Path, tmp_path: Path
) -> None:
    rows = (collection / "first.run").read_text().splitlines()
    others = [row.replace(" d3-", " x3-") for row in rows]
    with ScriptedServer() as server:
        (collection / "first.run").write_text("\n".join(others) + "\n")
        made = make(request_for(collection, _spec(server), tmp_path))
        assert sorted(made.reports) == ["q0", "q1", "q2", "q4", "q5"]
        (collection / "first.run").write_text("\n".join(row.replace(" d", " x") for row in rows) + "\n")
        with refused(UsageError, "no-known-candidate", "first.run"):
            make(request_for(collection, _spec(server), tmp_path / "other"))


def test_a_server_that_rejects_beginnings_of_answers_is_asked_without(collection: Path, tmp_path: Path) -> None:
    def script(body: dict[str, object], _times: int) -> Reply:
        if "continue_final_message" in body:
            return Reply(status=400, body={"error": {"message": "unknown argument continue_final_message"}})
        rows = [first_token(("[", -0.1)), first_token(("B", -0.5), ("A", -0.7), ("C", -1.0), ("D", -2.0))]
        return completion("[B", finish="length", logprobs={"content": rows[0]["content"] + rows[1]["content"]})

    with ScriptedServer(script) as server:
        made = make(request_for(collection, _spec(server, kind="first", depth=4), tmp_path))
        asked = len(server.bodies)
        make(request_for(collection, _spec(server, kind="first", depth=4), tmp_path))
        assert len(server.bodies) == asked == 8  # a form in vain, the other one, and six windows
    assert len(made.ranking) == 6
