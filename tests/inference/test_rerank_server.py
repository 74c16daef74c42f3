"""A re-ranking server is asked once for each query, in the words that it speaks, and its scores come back in order."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest

from cerank.errors import FormatError, MissingError, UsageError
from cerank.inference import rerank_server
from cerank.inference.rerank_server import RerankServer
from tests.refusals import refused

DOCUMENTS = ["a dog", "a cat", "a bird"]


class Stand:
    """A server that scores a document by the words it shares with the query, and remembers what it was asked."""

    def __init__(self) -> None:
        self.bodies: list[dict[str, Any]] = []
        self.headers: list[str] = []
        self.failures: list[int] = []
        self.shape = "cohere"
        stand = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                stand.bodies.append(body)
                stand.headers.append(self.headers.get("Authorization", ""))
                if stand.failures:
                    self.send_error(stand.failures.pop(0))
                    return
                data = json.dumps(stand.answer(body)).encode()
                self.send_response(200)
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            def log_message(self, *args: object) -> None: ...

        self.server = HTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        self.url = f"http://127.0.0.1:{self.server.server_port}"

    def answer(self, body: dict[str, Any]) -> object:
        texts = body.get("documents") or body["texts"]
        scores = [float(len(set(text.split()) & set(body["query"].split()))) for text in texts]
        order = sorted(range(len(texts)), key=lambda place: -scores[place])  # best first, as they all answer
        if self.shape == "tei":
            return [{"index": place, "score": scores[place]} for place in order]
        rows = [{"index": place, "relevance_score": scores[place]} for place in order]
        if self.shape == "voyage":
            return {"object": "list", "data": rows, "usage": {"total_tokens": 30}}
        if self.shape == "jina":
            return {"results": rows, "usage": {"total_tokens": 40}}
        if self.shape == "short":
            return {"results": rows[:1]}
        return {"results": rows, "meta": {"billed_units": {"search_units": 1}}}


@pytest.fixture
def stand(monkeypatch: pytest.MonkeyPatch) -> Iterator[Stand]:
    monkeypatch.setattr(rerank_server, "FIRST_PAUSE", 0.01)
    made = Stand()
    yield made
    made.server.shutdown()


@pytest.mark.parametrize(("shape", "model"), [("cohere", "rerank-v3.5"), ("jina", "j"), ("voyage", "v"), ("tei", "")])
def test_scores_come_back_in_the_order_of_the_documents(stand: Stand, tmp_path: Path, shape: str, model: str) -> None:
    stand.shape = shape
    server = RerankServer(stand.url, model, tmp_path)
    assert server.score("the cat is a cat", DOCUMENTS) == [1.0, 2.0, 1.0]
    assert ("texts" if shape == "tei" else "documents") in stand.bodies[0]
    assert stand.bodies[0].get("model", "") == model


def test_nothing_is_asked_twice_not_even_by_another_process(stand: Stand, tmp_path: Path) -> None:
    for _ in range(2):
        server = RerankServer(stand.url, "m", tmp_path)
        assert server.score("cat", DOCUMENTS) == [0.0, 1.0, 0.0]
    assert len(stand.bodies) == 1
    assert (server.costs.requests, server.costs.from_cache) == (0, 1)
    RerankServer(stand.url, "another model", tmp_path).score("cat", DOCUMENTS)
    assert len(stand.bodies) == 2


def test_costs_are_what_the_server_bills(stand: Stand, tmp_path: Path) -> None:
    stand.shape = "jina"
    server = RerankServer(stand.url, "m", tmp_path)
    for query in ("cat", "dog"):
        server.score(query, DOCUMENTS)
    assert server.costs.tokens == 80
    assert "billed 80 tokens" in server.costs.summary()
    assert "cost 0.0016" in server.costs.summary(price=20.0)


def test_a_busy_server_is_asked_again_and_a_refusal_is_not(stand: Stand, tmp_path: Path) -> None:
    stand.failures = [429, 503]
    assert RerankServer(stand.url, "m", tmp_path).score("cat", DOCUMENTS) == [0.0, 1.0, 0.0]
    assert len(stand.bodies) == 3
    stand.failures = [401]
    with refused(MissingError, "server-refused", 401) as caught:
        RerankServer(stand.url, "m", tmp_path).score("dog", DOCUMENTS)
    assert rerank_server.OWN_KEY in caught.value.hint
    assert len(stand.bodies) == 4


def test_an_answer_that_lacks_documents_is_no_answer(stand: Stand, tmp_path: Path) -> None:
    stand.shape = "short"
    with refused(FormatError, "score-count", 1, 3):
        RerankServer(stand.url, "m", tmp_path).score("cat", DOCUMENTS)
    assert not list(tmp_path.rglob("*.json"))


def test_a_key_goes_to_its_server_and_nowhere_else(
    stand: Stand, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(rerank_server.OWN_KEY, "secret-secret-secret")
    RerankServer(stand.url, "m", tmp_path).score("cat", DOCUMENTS)
    assert stand.headers == ["Bearer secret-secret-secret"]
    assert all(b"secret" not in path.read_bytes() for path in tmp_path.rglob("*.json"))
    with refused(UsageError, "https-needed"):
        RerankServer("http://api.cohere.com/v2/rerank", "m", tmp_path)


def test_what_is_no_address_is_refused(tmp_path: Path) -> None:
    for url in ("file:///etc/passwd", "ftp://x/rerank", "http://"):
        with refused(UsageError, "not-an-address"):
            RerankServer(url, "m", tmp_path)


def test_a_whole_dataset_is_re_ranked_by_a_server(stand: Stand, tmp_path: Path) -> None:
    from cerank.app.rerank_dataset import RerankRequest, rerank
    from cerank.settings import Flags, resolve

    folder = tmp_path / "set"
    folder.mkdir()
    (folder / "docs.tsv").write_text("d1\ta dog\nd2\ta cat\nd3\ta bird\n")
    (folder / "queries.tsv").write_text("q1\tcat\nq2\tbird\nq3\tfish\n")
    (folder / "first.run").write_text(
        "q1 Q0 d1 1 3 t\nq1 Q0 d2 2 2 t\nq2 Q0 d1 1 3 t\nq2 Q0 d3 2 2 t\nq9 Q0 d1 1 1 t\n"
    )
    settings = resolve(Flags(lab=str(tmp_path / "lab"), cache=str(tmp_path / "cache")), {}, tmp_path).settings
    request = RerankRequest(
        checkpoint=stand.url,
        server_model="m",
        dataset=str(folder),
        first_stage=str(folder / "first.run"),
        depth=10,
        precision="fp32",
        output=tmp_path / "out.run",
    )
    result = rerank(settings, request, lambda _done, _total: None)
    rows = [line.split() for line in (tmp_path / "out.run").read_text().splitlines()]
    assert [(row[0], row[2]) for row in rows] == [("q1", "d2"), ("q1", "d1"), ("q2", "d3"), ("q2", "d1")]
    assert any(note.startswith("1 of 3 queries") for note in result.notes)
    assert any("1 query of" in note and "are not in" in note for note in result.notes)
