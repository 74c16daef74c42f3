"""A local server that answers as told: well, badly, late, half, or with errors; it counts what it was asked."""

from __future__ import annotations

import json
import re
import threading
import time
from collections import Counter
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, NamedTuple


class Reply(NamedTuple):
    """One response."""

    status: int = 200
    body: Any = None  # JSON, or bytes as they are
    headers: dict[str, str] = {}  # noqa: RUF012 - never changed
    delay: float = 0.0  # seconds before anything is sent
    cut: bool = False  # only half of the body is sent, then the connection is closed
    reset: bool = False  # nothing is sent at all


Script = Callable[[dict[str, Any], int], Reply]  # the request's body, and how often it came before


def completion(
    text: str | None, *, finish: str = "stop", logprobs: Any = None, usage: bool = True, **message: Any
) -> Reply:
    """A chat completion in OpenAI's form."""
    body: dict[str, Any] = {
        "id": "x",
        "object": "chat.completion",
        "model": "scripted",
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": text, **message},
                "finish_reason": finish,
                "logprobs": logprobs,
            }
        ],
    }
    if usage:
        body["usage"] = {"prompt_tokens": 100, "completion_tokens": 10, "total_tokens": 110}
    return Reply(body=body)


def first_token(*pairs: tuple[str, float]) -> dict[str, Any]:
    """Log-probabilities of an answer's first token, in the chat form."""
    return {
        "content": [
            {
                "token": pairs[0][0],
                "logprob": pairs[0][1],
                "top_logprobs": [{"token": token, "logprob": value} for token, value in pairs],
            }
        ]
    }


def shown_passages(body: dict[str, Any]) -> list[str]:
    """The texts of the passages in a prompt of the numbered or lettered form."""
    text = next(message["content"] for message in reversed(body["messages"]) if message["role"] == "user")
    return [found[1] for found in re.finditer(r"^\[(?:\d+|[A-Z])\] (.*)$", text, re.MULTILINE)]


def by_number(body: dict[str, Any], _times: int) -> Reply:
    """Ranks passages by the number at their end, the largest first, as a perfect teacher of such a collection."""
    passages = shown_passages(body)
    if not passages or not all(re.search(r"\d+$", passage) for passage in passages):
        order = list(range(len(passages) or 2))
    else:
        values = [int(re.search(r"(\d+)$", passage)[1]) for passage in passages]  # type: ignore[index]
        order = sorted(range(len(passages)), key=lambda place: -values[place])
    return completion(" > ".join(f"[{place + 1}]" for place in order))


class ScriptedServer:
    """Serves on a free port of this machine while it is entered.

    Attributes:
        bodies: every request that came, in order.
        answered: how often each request, as JSON, was answered with 200 and a whole body.
        most_at_once: requests that were being answered at the same time.
    """

    def __init__(self, script: Script = by_number) -> None:
        self.script = script
        self.bodies: list[dict[str, Any]] = []
        self.headers: list[dict[str, str]] = []
        self.answered: Counter[str] = Counter()
        self.most_at_once = 0
        self._at_once = 0
        self._times: Counter[str] = Counter()
        self._lock = threading.Lock()
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                outer._serve(self)

            def log_message(self, *_args: object) -> None:
                pass

        self._http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._http.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._http.server_address[1]}/v1"

    def _serve(self, handler: BaseHTTPRequestHandler) -> None:
        raw = handler.rfile.read(int(handler.headers["Content-Length"]))
        body = json.loads(raw)
        key = json.dumps(body, sort_keys=True)
        with self._lock:
            self.bodies.append({**body, "path": handler.path})
            self.headers.append(dict(handler.headers))
            times = self._times[key]
            self._times[key] += 1
            self._at_once += 1
            self.most_at_once = max(self.most_at_once, self._at_once)
        try:
            self._reply(handler, self.script(body, times), key)
        except OSError:
            handler.close_connection = True
        finally:
            with self._lock:
                self._at_once -= 1

    def _reply(self, handler: BaseHTTPRequestHandler, reply: Reply, key: str) -> None:
        if reply.delay:
            time.sleep(reply.delay)
        if reply.reset:
            handler.close_connection = True
            handler.connection.close()
            return
        data = reply.body if isinstance(reply.body, bytes) else json.dumps(reply.body).encode()
        handler.send_response(reply.status)
        for name, value in reply.headers.items():
            handler.send_header(name, value)
        handler.send_header("Content-Length", str(len(data)))
        handler.end_headers()
        if reply.status == 200 and not reply.cut:
            with self._lock:
                self.answered[key] += 1
        handler.wfile.write(data[: len(data) // 2] if reply.cut else data)
        handler.wfile.flush()
        if reply.cut:
            handler.close_connection = True

    def __enter__(self) -> ScriptedServer:
        threading.Thread(target=self._http.serve_forever, daemon=True, kwargs={"poll_interval": 0.01}).start()
        return self

    def __exit__(self, *_error: object) -> None:
        self._http.shutdown()
        self._http.server_close()
