"""A server for /rerank over the standard library's HTTP server: one thread a connection, one thread for the model.

Invariant: whatever a client sends, it gets an answer in words or its connection is closed; nothing it sends reaches a
log but through `safe_text.shown`.
"""

from __future__ import annotations

import contextlib
import hmac
import itertools
import socket
import threading
from collections.abc import Callable
from concurrent.futures import TimeoutError as FutureTimeoutError
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, ClassVar

import msgspec

from cerank.serving.request_queue import QueueClosedError, QueueFullError, RequestQueue
from cerank.serving.request_shapes import BadRequestError, RerankTask, answer, parse_rerank, parse_score
from cerank.text.safe_text import counted, shown

_PARSERS: dict[str, Callable[[bytes], RerankTask]] = {
    "/rerank": parse_rerank,
    "/v1/rerank": parse_rerank,
    "/v2/rerank": parse_rerank,
    "/score": parse_score,
    "/v1/score": parse_score,
}
_IDLE = 30.0  # seconds without a byte, after which a connection is closed


class ServerLimits(msgspec.Struct, frozen=True, kw_only=True):
    """How much a server takes on."""

    body_bytes: int = 8 << 20
    documents: int = 1000  # of a request
    waiting_pairs: int = 10_000
    connections: int = 64
    batch_pairs: int = 256
    seconds: float = 120.0  # that a request may wait for its scores


class RerankHttpServer(ThreadingHTTPServer):
    """A server that answers requests by a queue.

    Args:
        address: host and port; port 0 takes a free one.
        queue: scores pairs.
        model: what the model is called.
        limits: how much it takes on.
        key: that every request must bring as "Authorization: Bearer KEY"; "" for none.
        log: called with a line for each answer that is an error.
    """

    daemon_threads = False
    block_on_close = True
    request_queue_size = 128

    def __init__(
        self,
        address: tuple[str, int],
        queue: RequestQueue,
        *,
        model: str,
        limits: ServerLimits,
        key: str = "",
        log: Callable[[str], None] = lambda _: None,
    ) -> None:
        if ":" in address[0]:
            self.address_family = socket.AF_INET6
        self.queue, self.model, self.limits, self.key, self.log = queue, model, limits, key, log
        self.numbers = itertools.count(1)
        self._slots = threading.BoundedSemaphore(limits.connections)
        self._open: set[socket.socket] = set()
        self._lock = threading.Lock()
        self.is_closing = False
        super().__init__(address, _Handler)

    def server_bind(self) -> None:
        """Bind without asking the name service for this machine's name, which can take seconds."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.socket.bind(self.server_address)
        self.server_address = self.socket.getsockname()
        self.server_name, self.server_port = str(self.server_address[0]), int(self.server_address[1])

    def process_request(self, request: Any, client_address: Any) -> None:
        """Start a thread for a connection; where too many are open, say so and close it."""
        if not self._slots.acquire(blocking=False):
            text = msgspec.json.encode({"error": f"more than {self.limits.connections} connections are open"})
            head = f"HTTP/1.1 503 Service Unavailable\r\nContent-Type: application/json\r\nContent-Length: {len(text)}"
            with contextlib.suppress(OSError):
                request.sendall(f"{head}\r\nRetry-After: 1\r\nConnection: close\r\n\r\n".encode() + text)
            self.shutdown_request(request)
            return
        with self._lock:
            self._open.add(request)
        super().process_request(request, client_address)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        """Serve a connection until it is closed."""
        try:
            super().process_request_thread(request, client_address)
        finally:
            with self._lock:
                self._open.discard(request)
            self._slots.release()

    def handle_error(self, request: Any, client_address: Any) -> None:  # noqa: ARG002 - the base class's signature
        """Report a connection that broke; a client that went away is no error."""
        import sys

        error = sys.exception() if hasattr(sys, "exception") else None
        if not isinstance(error, ConnectionError | TimeoutError):
            self.log(f"a connection ended with {type(error).__name__}: {shown(error, 200)}")

    def close(self) -> None:
        """Answer what was asked, take nothing new, and return once every connection is closed."""
        self.is_closing = True
        self.shutdown()
        self.queue.close()
        with self._lock:
            for connection in self._open:
                try:
                    connection.shutdown(socket.SHUT_RD)  # ends waiting for a next request; answers still go out
                except OSError:
                    continue
        self.server_close()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    timeout: ClassVar[float] = _IDLE
    server: RerankHttpServer
    server_version, sys_version = "cerank", ""
    disable_nagle_algorithm = True

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class's name
        """Write nothing: errors are logged where they are answered."""

    def do_GET(self) -> None:
        """Answer /health with the state of the queue."""
        path = self.path.partition("?")[0]
        if path != "/health":
            self._refuse(405 if path in _PARSERS else 404, _paths_text())
            return
        queue, counts = self.server.queue, self.server.queue.counts
        state = {
            "status": "closing" if self.server.is_closing else "ok",
            "model": self.server.model,
            "pairs_waiting": queue.pairs_waiting,
            "requests": counts.requests,
            "pairs": counts.pairs,
            "batches": counts.batches,
            "seconds": round(counts.seconds, 3),
        }
        self._send(503 if self.server.is_closing else 200, msgspec.json.encode(state))

    def do_POST(self) -> None:
        """Answer a request for scores."""
        try:
            body = self._body()
            parse = _PARSERS.get(self.path.partition("?")[0])
            if parse is None:
                raise BadRequestError(_paths_text(), 404)
            task = parse(body)
            limits = self.server.limits
            if len(task.pairs) > limits.documents:
                what = f"{counted(len(task.pairs), 'document')} in one request; at most {limits.documents} are taken"
                raise BadRequestError(what, 413)
            number = f"rerank-{next(self.server.numbers)}"
            scores = self.server.queue.submit(task.pairs).result(limits.seconds)
            self._send(200, answer(task, scores, model=self.server.model, number=number))
        except BadRequestError as error:
            self._refuse(error.status, str(error))
        except QueueFullError:
            self._refuse(429, f"more than {self.server.limits.waiting_pairs} pairs wait for the model; try again later")
        except QueueClosedError:
            self._refuse(503, "the server is shutting down")
        except FutureTimeoutError:
            self._refuse(503, f"the scores took longer than {self.server.limits.seconds:g} s")
        except OSError:
            self.close_connection = True  # the client has gone
        except Exception as error:  # noqa: BLE001 - one request must not end the server
            self._refuse(500, f"the model failed: {type(error).__name__}: {shown(error, 200)}")

    def _body(self) -> bytes:
        """Return the request's body, read whole.

        Raises:
            BadRequestError: it is too large, of unknown length, not JSON by its type, or without the key.
        """
        limits, length = self.server.limits, self.headers.get("Content-Length", "")
        if not length.isdecimal() or len(length) > 18 or "Transfer-Encoding" in self.headers:
            self.close_connection = True
            raise BadRequestError("a body with a Content-Length is needed", 411)
        if int(length) > limits.body_bytes:
            self.close_connection = True  # the rest of the body would be taken for the next request
            raise BadRequestError(f"the body has {int(length):,} bytes; at most {limits.body_bytes:,} are taken", 413)
        body = self.rfile.read(int(length))
        if len(body) < int(length):
            self.close_connection = True
            raise BadRequestError("the body ended early")
        sent = self.headers.get("Authorization", "").encode()
        if self.server.key and not hmac.compare_digest(sent, f"Bearer {self.server.key}".encode()):
            raise BadRequestError("the request needs the server's key, as Authorization: Bearer KEY", 401)
        if self.headers.get_content_type() != "application/json":  # else any web page could ask through a browser
            raise BadRequestError("the body must be sent as Content-Type: application/json", 415)
        return body

    def _refuse(self, status: int, text: str) -> None:
        self.server.log(f"{status}: {shown(text, 300)}")
        # "message" as Cohere has it, "error" as TEI has it
        body = msgspec.json.encode({"message": text, "error": text, "error_type": status})
        try:
            self._send(status, body, retry=status in {429, 503})
        except OSError:
            self.close_connection = True

    def _send(self, status: int, body: bytes, *, retry: bool = False) -> None:
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        if retry:
            self.send_header("Retry-After", "1")
        if self.server.is_closing:
            self.close_connection = True
        if self.close_connection:
            self.send_header("Connection", "close")
        self.end_headers()
        self.wfile.write(body)


def _paths_text() -> str:
    return f"POST {', '.join(_PARSERS)}, or GET /health"
