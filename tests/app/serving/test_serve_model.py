"""What is served scores what was measured, and a server that does not is told apart, with where it differs."""

from __future__ import annotations

import json
import math
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from cerank.app.serving import serve_model
from cerank.app.serving.serve_model import ServeRequest, measured_precision
from cerank.app.serving.verify_server import check_server
from cerank.errors import MissingError, UsageError
from cerank.inference import rerank_server
from cerank.inference.rerank import Scorer
from tests.refusals import refused
from tests.trained_run import TrainedRun


def quiet(_text: str) -> None:
    """Nobody listens."""


@pytest.fixture
def server(trained: TrainedRun):
    running = serve_model.start(trained.settings, ServeRequest(model="brisk-otter", port=0), quiet)
    yield running
    running.close()


def checked(trained: TrainedRun, url: str, name: str = "brisk-otter", queries: int = 5):
    return check_server(trained.settings, name, url, server_model="", queries=queries, progress=quiet)


def test_cerank_serves_the_scores_of_the_run(trained, server):
    check = checked(trained, server.url)
    assert check.agrees
    assert check.pairs == 40
    assert check.largest < 1e-6
    assert check.reordered == 0
    assert server.precision == measured_precision(checked_run(trained)) == "fp32"


def checked_run(trained):
    from cerank.app.named_models import trained_model

    run = trained_model(trained.settings.lab, "brisk-otter").run
    assert run is not None
    return run


def test_another_model_is_told_apart(trained, server):
    check = checked(trained, server.url, "brisk-otter:contrastive")
    assert not check.agrees
    assert check.largest > check.allowed


class Other:
    """A server that changes the run's scores in some way; shape of vLLM or TEI."""

    def __init__(self, trained: TrainedRun, change) -> None:
        scorer = Scorer.load(trained.folder.final(1, "distill"))

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                texts = body.get("texts") or body["documents"]
                scores = scorer.score([(body["query"], text) for text in texts])
                rows = [{"index": at, "score": change(score, texts[at])} for at, score in enumerate(scores)]
                data = json.dumps(rows).encode()
                self.send_response(200)
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            def log_message(self, *_: object) -> None: ...

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.http.server_port}"
        threading.Thread(target=self.http.serve_forever, daemon=True).start()


@pytest.mark.parametrize(
    ("change", "agrees", "word"),
    [
        (lambda score, *_: 1 / (1 + math.exp(-score)), True, "measured"),
        (lambda score, _, spread: score + 0.01 * spread * math.sin(1e6 * score), False, "precision"),
        (lambda score, *_: 3 * score + 0.5, False, "scale"),
        (lambda _, text, __: float(len(text)), False, "template"),
    ],
)
def test_the_kind_of_difference_is_said(trained, change, agrees, word, spread):
    other = Other(trained, lambda score, text: change(score, text, spread))
    check = checked(trained, other.url)
    other.http.shutdown()
    assert check.agrees is agrees
    assert check.where.startswith(word) or word == "measured"


@pytest.fixture
def spread(trained) -> float:
    from cerank.trec.text_io import read_run

    data = trained.plan.recipe.data
    ranking = read_run(trained.folder.ranking("distill", data.test[0], data.first_stages[0])).ranking
    scores = [score for query in ranking for score in ranking.scores(query)]
    return max(scores) - min(scores)


def test_a_server_that_cannot_be_reached_is_missing(trained, monkeypatch):
    monkeypatch.setattr(rerank_server, "FIRST_PAUSE", 0.0)
    with pytest.raises(MissingError):
        checked(trained, "http://127.0.0.1:9")
    with refused(UsageError, "not-an-address"):
        checked(trained, "localhost:8080")


def test_a_port_in_use_and_an_unknown_model_are_refused(trained, server):
    port = int(server.url.rpartition(":")[2])
    with refused(UsageError, "address-in-use", port):
        serve_model.start(trained.settings, ServeRequest(model="brisk-otter", port=port), quiet)
    with refused(UsageError, "run-not-found"):
        serve_model.start(trained.settings, ServeRequest(model="brisk-oter", port=0), quiet)
