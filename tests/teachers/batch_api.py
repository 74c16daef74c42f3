"""A local Batch API: files, batches that end when told, output and error files; it counts what it was asked."""

from __future__ import annotations

import json
import re
import threading
from collections import Counter
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from tests.teachers.scripted_server import Reply, Script, by_number

Line = Callable[[str, dict[str, Any], int], dict[str, Any] | None]  # batch, request, how often it came; None drops it


def answered(script: Script) -> Line:
    """Every request of a batch is answered as a server would answer it directly."""

    def line(_batch: str, request: dict[str, Any], times: int) -> dict[str, Any]:
        reply = script(request["body"], times)
        return {"response": {"status_code": reply.status, "request_id": "r", "body": reply.body}, "error": None}

    return line


class BatchAPI:
    """Serves on a free port of this machine while it is entered.

    Attributes:
        batches: id -> batch, in the order of their creation.
        files: id -> content.
        paid: how often each call, as JSON, was answered in a batch that was created.
        status_of: returns a batch's status from its number, from 0, and how often it was looked at before.
        line_of: what comes back for a request; a line with an error goes to the error file.
        fails: called with method and path before a request is served; a reply is sent in place of the real one.
        lost: paths, "POST /batches" for one, whose effects happen while the response does not arrive.
    """

    def __init__(self, line_of: Line | None = None) -> None:
        self.line_of = line_of or answered(by_number)
        self.status_of: Callable[[int, int], str] = lambda _number, times: "completed" if times else "in_progress"
        self.fails: Callable[[str, str], Reply | None] = lambda _method, _path: None
        self.lost: set[str] = set()
        self.keeps_metadata = True
        self.batches: dict[str, dict[str, Any]] = {}
        self.files: dict[str, bytes] = {}
        self.direct: list[dict[str, Any]] = []
        self.paid: Counter[str] = Counter()
        self._looks: Counter[str] = Counter()
        self._lock = threading.Lock()
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                outer._serve(self, "POST")

            def do_GET(self) -> None:
                outer._serve(self, "GET")

            def log_message(self, *_args: object) -> None:
                pass

        self._http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._http.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._http.server_address[1]}/v1"

    def _serve(self, handler: BaseHTTPRequestHandler, method: str) -> None:
        raw = handler.rfile.read(int(handler.headers.get("Content-Length") or 0))
        path = handler.path.removeprefix("/v1").partition("?")[0]
        with self._lock:
            reply = self.fails(method, path)
            if reply is None:
                reply = self._reply(method, path, raw)
        if f"{method} {path}" in self.lost:
            handler.close_connection = True
            handler.connection.close()
            return
        data = reply.body if isinstance(reply.body, bytes) else json.dumps(reply.body).encode()
        handler.send_response(reply.status)
        for name, value in reply.headers.items():
            handler.send_header(name, value)
        handler.send_header("Content-Length", str(len(data)))
        handler.end_headers()
        handler.wfile.write(data)

    def _reply(self, method: str, path: str, raw: bytes) -> Reply:  # noqa: PLR0911 - one for each endpoint
        if (method, path) == ("POST", "/chat/completions"):
            self.direct.append(json.loads(raw))
            return by_number(json.loads(raw), 0)
        if (method, path) == ("POST", "/files"):
            assert b'name="purpose"\r\n\r\nbatch\r\n' in raw
            content = re.search(rb'filename="requests.jsonl"[^\n]*\r\n(?:[^\r\n]+\r\n)*\r\n(.*?)\r\n--', raw, re.DOTALL)
            assert content is not None
            return Reply(body={"id": self._keep(content[1]), "object": "file"})
        if (method, path) == ("POST", "/batches"):
            return Reply(body=self._create(json.loads(raw)))
        if (method, path) == ("GET", "/batches"):
            return Reply(body={"object": "list", "data": list(self.batches.values())[::-1], "has_more": False})
        if found := re.fullmatch(r"/batches/(.+)", path):
            return Reply(body=self._look(found[1]))
        if found := re.fullmatch(r"/files/(.+)/content", path):
            return Reply(body=self.files[found[1]])
        return Reply(status=404, body={"error": {"message": "no such path"}})

    def _keep(self, content: bytes) -> str:
        name = f"file-{len(self.files)}"
        self.files[name] = content
        return name

    def _create(self, body: dict[str, Any]) -> dict[str, Any]:
        assert body["completion_window"] == "24h"
        name = f"batch_{len(self.batches)}"
        self.batches[name] = {
            "id": name, "object": "batch", "status": "validating", "endpoint": body["endpoint"],
            "input_file_id": body["input_file_id"], "metadata": body["metadata"] if self.keeps_metadata else None,
        }  # fmt: skip
        return self.batches[name]

    def _look(self, name: str) -> dict[str, Any]:
        batch = self.batches[name]
        status = self.status_of(list(self.batches).index(name), self._looks[name])
        self._looks[name] += 1
        if batch["status"] in {"completed", "expired", "cancelled"}:
            return batch
        batch["status"] = status
        if status in {"completed", "expired", "cancelled"}:
            self._end(name, batch)
        if status == "failed":
            batch["errors"] = {"data": [{"code": "token_limit_exceeded", "message": "Enqueued token limit reached"}]}
        return batch

    def _end(self, name: str, batch: dict[str, Any]) -> None:
        outputs, errors = [], []
        requests = [json.loads(line) for line in self.files[batch["input_file_id"]].splitlines()]
        for request in reversed(requests):  # in another order than they were sent
            assert (request["method"], request["url"]) == ("POST", batch["endpoint"])
            key = json.dumps(request["body"], sort_keys=True)
            line = self.line_of(name, request, self.paid[key])
            if line is None:
                continue
            row = json.dumps({"id": "x", "custom_id": request["custom_id"], **line})
            is_answer = line.get("error") is None and (line.get("response") or {}).get("status_code") == 200
            (outputs if is_answer else errors).append(row)
            self.paid[key] += is_answer
        batch["output_file_id"] = self._keep("\n".join(outputs).encode()) if outputs else None
        batch["error_file_id"] = self._keep("\n".join(errors).encode()) if errors else None

    def __enter__(self) -> BatchAPI:
        threading.Thread(target=self._http.serve_forever, daemon=True, kwargs={"poll_interval": 0.01}).start()
        return self

    def __exit__(self, *_error: object) -> None:
        self._http.shutdown()
        self._http.server_close()
