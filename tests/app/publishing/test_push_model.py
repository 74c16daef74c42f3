"""What is uploaded is the checked export with its card, in one commit, as the hub's HTTP API takes it."""

from __future__ import annotations

import base64
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from cerank.app.publishing.export_model import ExportRequest
from cerank.app.publishing.push_model import PushRequest, push
from cerank.errors import MissingError, UsageError
from tests.refusals import refused
from tests.trained_run import TrainedRun

pytest.importorskip("sentence_transformers")


def quiet(_text: str) -> None:
    """Nobody listens."""


class Hub:
    """A stand-in for the hub's HTTP API: repositories, and commits of files that lie in the request."""

    def __init__(self) -> None:
        self.requests: list[tuple[str, str, object]] = []
        self.files: dict[str, bytes] = {}
        self.tokens: set[str] = set()
        self.refuse = 0
        hub = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def answer(self, values: object, status: int = 200) -> None:
                data = json.dumps(values).encode()
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            def do_GET(self) -> None:
                hub.requests.append(("GET", self.path, None))
                proposal = {
                    "title": "t",
                    "num": 1,
                    "isPullRequest": True,
                    "status": "draft",
                    "createdAt": "2026-01-02T03:04:05.000Z",
                    "author": {"name": "me"},
                    "repo": {"name": "org/mine", "type": "model"},
                    "changes": {"base": "refs/heads/main"},
                    "filesWithConflicts": [],
                    "events": [],
                }
                about = {"id": "org/mine", "sha": "0" * 40, "siblings": []}
                self.answer(proposal if "/discussions/" in self.path else about)

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                hub.tokens.add(self.headers.get("Authorization", ""))
                path = self.path.partition("?")[0]
                if hub.refuse:
                    self.answer({"error": "Invalid username or password."}, hub.refuse)
                    return
                if "/commit/" in path:
                    rows = [json.loads(line) for line in body.splitlines()]
                    hub.requests.append(("POST", self.path, rows))
                    for row in rows:
                        if row["key"] == "file":
                            hub.files[row["value"]["path"]] = base64.b64decode(row["value"]["content"])
                    address = f"{hub.url}/org/mine/commit/{'1' * 40}"
                    self.answer({"success": True, "commitOid": "1" * 40, "commitUrl": address})
                    return
                values = json.loads(body or b"{}")
                hub.requests.append(("POST", self.path, values))
                if "/preupload/" in path:
                    modes = [
                        {"path": each["path"], "uploadMode": "regular", "shouldIgnore": False}
                        for each in values["files"]
                    ]
                    self.answer({"files": modes})
                elif path == "/api/models/org/mine/discussions":
                    self.answer({"num": 1, "title": values["title"], "url": f"{hub.url}/org/mine/discussions/1"})
                elif path == "/api/repos/create":
                    self.answer({"url": f"{hub.url}/org/mine", "name": "org/mine"})
                else:
                    self.answer({"warnings": [], "errors": []})

            def log_message(self, *_: object) -> None: ...

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()


@pytest.fixture
def hub(monkeypatch):
    from huggingface_hub import constants

    made = Hub()
    monkeypatch.setattr(constants, "ENDPOINT", made.url)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setenv("HF_TOKEN", "hf_" + "x" * 20)
    yield made
    made.server.shutdown()


def asked(**more) -> PushRequest:
    request = ExportRequest(run="brisk-otter", form="sentence-transformers", license="mit")
    return PushRequest(export=request, repository="org/mine", **more)


def test_files_and_card_arrive_in_one_commit_with_the_results_in_the_metadata(trained: TrainedRun, hub: Hub) -> None:
    result = push(trained.settings, asked(private=True), quiet)
    commits = [path for _, path, _ in hub.requests if "/commit/" in path]
    assert len(commits) == 1
    assert result.url.startswith(f"{hub.url}/org/mine/commit/")
    created = next(values for _, path, values in hub.requests if path == "/api/repos/create")
    assert isinstance(created, dict)
    assert (created["name"], created["organization"]) == ("mine", "org")
    assert created.get("private") is True or created.get("visibility") == "private"
    assert {name for name, _ in result.exported.files} == set(hub.files)
    from huggingface_hub import ModelCard

    card = ModelCard(hub.files["README.md"].decode())
    results = card.data.to_dict()["model-index"][0]["results"]
    assert {metric["name"] for row in results for metric in row["metrics"]} == set(
        trained.plan.recipe.evaluate.measures
    )
    assert 'CrossEncoder("org/mine")' in card.text
    assert hub.tokens == {f"Bearer hf_{'x' * 20}"}


def test_a_pull_request_makes_no_repository(trained: TrainedRun, hub: Hub) -> None:
    result = push(trained.settings, asked(pull_request=True), quiet)
    assert result.url.startswith(f"{hub.url}/org/mine/")
    assert any(path.endswith("/discussions") for _, path, _ in hub.requests)
    assert "README.md" in hub.files
    assert not any(path == "/api/repos/create" for _, path, _ in hub.requests)


def test_a_dry_run_sends_nothing_and_shows_the_card(trained: TrainedRun, hub: Hub) -> None:
    result = push(trained.settings, asked(dry_run=True), quiet)
    assert hub.requests == []
    assert result.url == ""
    assert "org/mine" in result.card


def test_a_hub_that_refuses_the_token_is_missing(trained: TrainedRun, hub: Hub) -> None:
    hub.refuse = 401
    with refused(MissingError, "hub-refused"):
        push(trained.settings, asked(), quiet)


def test_a_hub_that_is_not_there_is_missing(trained: TrainedRun, hub: Hub, monkeypatch) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    with refused(MissingError, "hub-unreachable"):
        push(trained.settings, asked(), quiet)


@pytest.mark.parametrize("name", ["mine", "org/mine/more", "../x", "org/", "https://hub/org/mine"])
def test_what_is_no_repository_is_refused_before_anything_is_made(trained: TrainedRun, name: str) -> None:
    request = PushRequest(export=ExportRequest(run="brisk-otter", form="onnx"), repository=name)
    with refused(UsageError, "repository-name"):
        push(trained.settings, request, quiet)
