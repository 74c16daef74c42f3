"""The server answers in the shapes of its clients, takes no more than it can, and closes cleanly."""

from __future__ import annotations

import http.client
import json
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from cerank.inference.rerank_server import RerankServer
from cerank.serving.http_server import RerankHttpServer, ServerLimits
from cerank.serving.request_queue import QueueClosedError, QueueFullError, RequestQueue

DOCUMENTS = ["a dog", "a cat and a bird", "bird"]


def overlap(pairs) -> list[float]:
    """The number of words that query and document share."""
    return [float(len(set(query.split()) & set(document.split()))) for query, document in pairs]


class Gate:
    """A scorer that waits until it is opened, and keeps what it was asked in each call."""

    def __init__(self) -> None:
        self.opened, self.entered, self.calls = threading.Event(), threading.Event(), []

    def __call__(self, pairs) -> list[float]:
        self.calls.append(list(pairs))
        self.entered.set()
        self.opened.wait()
        if any("bad" in document for _, document in pairs):
            raise ValueError("a bad document")
        return overlap(pairs)


@contextmanager
def running(score=overlap, *, key: str = "", **limits) -> Iterator[RerankHttpServer]:
    bounds = ServerLimits(**limits)
    queue = RequestQueue(score, batch_pairs=bounds.batch_pairs, waiting_pairs=bounds.waiting_pairs)
    server = RerankHttpServer(("127.0.0.1", 0), queue, model="mine", limits=bounds, key=key)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield server
    finally:
        server.close()
        thread.join()


def ask(server, path, body, method="POST", **headers):
    """Status, body and headers of an answer."""
    connection = http.client.HTTPConnection("127.0.0.1", server.server_port)
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    connection.request(method, path, data or None, {"Content-Type": "application/json"} | headers)
    answer = connection.getresponse()
    values = json.loads(answer.read())
    connection.close()
    return answer.status, values, answer.headers


@pytest.mark.parametrize("path", ["/rerank", "/v1/rerank", "/v2/rerank"])
def test_rerank_answers_as_cohere_jina_and_vllm_do(path):
    with running() as server:
        body = {"model": "m", "query": "bird cat", "documents": [*DOCUMENTS[:2], {"text": "bird"}], "top_n": 2}
        status, values, _ = ask(server, path, body)
        assert status == 200
        assert values["results"] == [
            {"index": 1, "relevance_score": 2.0},
            {"index": 2, "relevance_score": 1.0},
        ]
        assert values["model"] == "mine"
        assert values["id"]
        _, values, _ = ask(server, path, body | {"return_documents": True, "top_n": 1})
        assert values["results"] == [{"index": 1, "relevance_score": 2.0, "document": {"text": DOCUMENTS[1]}}]


def test_texts_are_answered_as_text_embeddings_inference_does():
    with running() as server:
        status, values, _ = ask(server, "/rerank", {"query": "bird", "texts": DOCUMENTS, "truncate": True})
        assert (status, [row["index"] for row in values]) == (200, [1, 2, 0])
        assert [row["score"] for row in values] == [1.0, 1.0, 0.0]


def test_score_takes_one_query_or_as_many_as_documents():
    with running() as server:
        _, values, _ = ask(server, "/v1/score", {"text_1": "bird", "text_2": DOCUMENTS})
        assert [row["score"] for row in values["data"]] == [0.0, 1.0, 1.0]
        _, values, _ = ask(server, "/score", {"queries": ["dog", "cat"], "documents": ["a dog", "a dog"]})
        assert [row["score"] for row in values["data"]] == [1.0, 0.0]


def test_cerank_itself_is_a_client(tmp_path):
    with running() as server:
        client = RerankServer(f"http://127.0.0.1:{server.server_port}", "", tmp_path)
        assert client.score("bird cat", DOCUMENTS) == [0.0, 2.0, 1.0]
        client = RerankServer(f"http://127.0.0.1:{server.server_port}/v1/rerank", "mine", tmp_path)
        assert client.score("bird cat", DOCUMENTS) == [0.0, 2.0, 1.0]


def test_health_says_what_was_done():
    with running() as server:
        ask(server, "/rerank", {"query": "q", "documents": DOCUMENTS})
        status, values, _ = ask(server, "/health", b"", "GET")
        assert status == 200
        assert (values["status"], values["requests"], values["pairs"]) == ("ok", 1, 3)


@pytest.mark.parametrize(
    ("path", "body", "status"),
    [
        ("/rerank", b"{", 400),
        ("/rerank", b"\xff\xfe", 400),
        ("/rerank", b"[" * 100_000, 400),
        ("/rerank", {"query": "q"}, 400),
        ("/rerank", {"query": 7, "documents": ["d"]}, 400),
        ("/rerank", {"query": "q", "documents": []}, 400),
        ("/rerank", {"query": "q", "documents": [{"title": "t"}]}, 400),
        ("/rerank", {"query": "q", "documents": ["d"], "texts": ["d"]}, 400),
        ("/rerank", {"query": "q", "documents": ["d"], "top_n": 0}, 400),
        ("/rerank", {"query": "q", "documents": ["d"] * 6}, 413),
        ("/rerank", {"query": "q" * 5000, "documents": ["d"]}, 413),
        ("/v1/score", {"text_1": ["a", "b"], "text_2": ["c"]}, 400),
        ("/v1/score", {"text_1": "", "text_2": "c"}, 400),
        ("/v1/embeddings", {"input": "a"}, 404),
    ],
)
def test_what_cannot_be_answered_is_refused_in_words_and_the_server_lives_on(path, body, status):
    with running(documents=5, body_bytes=200_000 if isinstance(body, bytes) else 4000) as server:
        got, values, _ = ask(server, path, body)
        assert got == status
        assert values["message"]
        assert ask(server, "/rerank", {"query": "bird", "documents": ["bird"]})[0] == 200


def test_a_web_page_cannot_ask_and_other_methods_are_refused():
    with running() as server:
        body = json.dumps({"query": "q", "documents": ["d"]}).encode()
        assert ask(server, "/rerank", body, **{"Content-Type": "text/plain"})[0] == 415
        assert ask(server, "/rerank", b"", "GET")[0] == 405


def test_where_a_key_is_set_every_request_needs_it():
    body = {"query": "q", "documents": ["d"]}
    with running(key="secret") as server:
        assert ask(server, "/rerank", body)[0] == 401
        assert ask(server, "/rerank", body, Authorization="Bearer secre")[0] == 401
        assert ask(server, "/rerank", body, Authorization="Bearer secret")[0] == 200


def test_a_body_without_length_or_cut_short_ends_the_connection_only():
    with running() as server:
        for head in (b"", b"Content-Length: x\r\n", b"Content-Length: " + b"9" * 5000 + b"\r\n"):
            with socket.create_connection(("127.0.0.1", server.server_port)) as connection:
                connection.sendall(b"POST /rerank HTTP/1.1\r\nHost: x\r\n" + head + b"\r\n")
                assert connection.recv(100).startswith(b"HTTP/1.1 411")
        with socket.create_connection(("127.0.0.1", server.server_port)) as connection:
            connection.sendall(b"POST /rerank HTTP/1.1\r\nHost: x\r\nContent-Length: 50\r\n\r\n{")
            connection.shutdown(socket.SHUT_WR)
            assert connection.recv(100).startswith(b"HTTP/1.1 400")
        assert ask(server, "/rerank", {"query": "q", "documents": ["d"]})[0] == 200


def test_requests_that_wait_are_scored_together_and_too_many_are_told_to_come_back():
    gate = Gate()
    queue = RequestQueue(gate, batch_pairs=8, waiting_pairs=6)
    first = queue.submit([("q", "first")])
    gate.entered.wait()
    waiting = [queue.submit([("bird", "bird"), ("q", f"d{number}")]) for number in range(3)]
    with pytest.raises(QueueFullError):
        queue.submit([("q", "too many")])
    gate.opened.set()
    assert first.result() == [0.0]
    assert [answer.result() for answer in waiting] == [[1.0, 0.0]] * 3
    assert [len(call) for call in gate.calls] == [1, 6]
    queue.close()
    with pytest.raises(QueueClosedError):
        queue.submit([("q", "late")])


def test_a_request_that_fails_spoils_no_other():
    gate = Gate()
    queue = RequestQueue(gate, batch_pairs=8, waiting_pairs=8)
    first = queue.submit([("q", "first")])
    gate.entered.wait()
    good, bad = queue.submit([("bird", "bird")]), queue.submit([("q", "bad")])
    gate.opened.set()
    assert (first.result(), good.result()) == ([0.0], [1.0])
    with pytest.raises(ValueError):
        bad.result()
    queue.close()


def test_a_full_queue_is_429_and_a_model_that_fails_is_500():
    gate = Gate()
    with running(gate, waiting_pairs=1) as server:
        answers = {}

        def client(name, document):
            answers[name] = ask(server, "/rerank", {"query": "q", "documents": [document]})

        threads = [threading.Thread(target=client, args=("first", "d"))]
        threads[0].start()
        gate.entered.wait()
        server.queue.submit([("q", "waits")])
        status, values, headers = ask(server, "/rerank", {"query": "q", "documents": ["d"]})
        assert (status, headers["Retry-After"]) == (429, "1")
        assert values["message"]
        gate.opened.set()
        threads[0].join()
        assert answers["first"][0] == 200
        assert ask(server, "/rerank", {"query": "q", "documents": ["bad"]})[0] == 500


def test_more_connections_than_allowed_are_told_so():
    gate = Gate()
    with running(gate, connections=1) as server:
        thread = threading.Thread(target=ask, args=(server, "/rerank", {"query": "q", "documents": ["d"]}))
        thread.start()
        gate.entered.wait()
        assert ask(server, "/health", b"", "GET")[0] == 503
        gate.opened.set()
        thread.join()


def test_closing_answers_what_was_asked_and_waits_for_no_idle_connection():
    gate, answers = Gate(), []
    with running(gate) as server:
        idle = http.client.HTTPConnection("127.0.0.1", server.server_port)
        idle.request("GET", "/health")
        idle.getresponse().read()

        def client():
            answers.append(ask(server, "/rerank", {"query": "bird", "documents": ["bird"]}))

        thread = threading.Thread(target=client)
        thread.start()
        gate.entered.wait()
        closing = threading.Thread(target=server.close)
        closing.start()
        gate.opened.set()
        thread.join()
        closing.join()
        assert answers[0][0] == 200
        with pytest.raises(ConnectionError):
            socket.create_connection(("127.0.0.1", server.server_port))
        idle.close()
