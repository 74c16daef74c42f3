"""Serve a re-ranker over HTTP until a signal ends it."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import msgspec

from cerank.app.comparison.named_systems import RunTarget
from cerank.app.named_models import find_model
from cerank.errors import UsageError, os_reason
from cerank.machine import process_environment
from cerank.machine.device_locks import hold_gpu
from cerank.machine.devices import physical_cores, resolve_device
from cerank.runs import run_store
from cerank.serving.http_server import RerankHttpServer, ServerLimits
from cerank.serving.request_queue import RequestQueue
from cerank.settings import Settings

if TYPE_CHECKING:
    from cerank.inference.rerank import Scorer

KEY_VARIABLE = "CERANK_SERVE_KEY"
LOCAL_HOSTS = ("localhost", "127.0.0.1", "::1")


class ServeRequest(msgspec.Struct, frozen=True, kw_only=True):
    """A model to serve, and where."""

    model: str  # a run, RUN:STAGE, a folder, a hub id, or a declaration file
    host: str = "127.0.0.1"
    port: int = 8080  # 0 takes a free one
    precision: str = ""  # "" takes what a run was measured in, else fp32
    limits: ServerLimits = ServerLimits()
    key: str = ""  # that requests must bring


class RunningServer:
    """A server that answers; `close` ends it.

    Args:
        server: the HTTP server, bound to its address.
        precision: in which the model multiplies.
    """

    def __init__(self, server: RerankHttpServer, precision: str) -> None:
        self._server, self.precision = server, precision
        host = str(server.server_address[0])
        self.url = f"http://{f'[{host}]' if ':' in host else host}:{server.server_port}"
        self._thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.1}, name="http")
        self._thread.start()

    def close(self) -> None:
        """Answer what was asked, take nothing new, and return once all is closed."""
        self._server.close()
        self._thread.join()


def measured_precision(run: RunTarget) -> str:
    """Return the precision in which a stage of a run was measured."""
    return run_store.measured_precision(run.folder, run.plan, run.system)


def start(settings: Settings, request: ServeRequest, log: Callable[[str], None]) -> RunningServer:
    """Load the model and start to answer.

    Args:
        settings: where the lab is, and on what device to score.
        request: what to serve, and where.
        log: called with a line for each request that was refused.

    Raises:
        UsageError: no such model, or the address is in use.
        MissingError: the model is not on this machine.
    """
    from cerank.inference.rerank import Scorer
    from cerank.kernels.determinism import make_deterministic

    os.environ |= process_environment.CUDA_ENVIRONMENT  # read once, when CUDA starts
    named_model = find_model(settings.lab, request.model)
    device = resolve_device(settings.device)
    make_deterministic(device, settings.threads or physical_cores())
    precision = request.precision or (measured_precision(named_model.run) if named_model.run is not None else "fp32")
    scorer: Scorer = Scorer.load(
        named_model.folder, device, precision, name=named_model.hub_id, declared=named_model.declared
    )
    scorer.score([("warm up", "the first request must not wait for what is set up once")])
    limits = request.limits

    def score(pairs: Sequence[tuple[str, str]]) -> list[float]:
        return scorer.score(pairs)

    queue = RequestQueue(score, batch_pairs=limits.batch_pairs, waiting_pairs=limits.waiting_pairs)
    try:
        address = request.host, request.port
        server = RerankHttpServer(address, queue, model=request.model, limits=limits, key=request.key, log=log)
    except (OSError, OverflowError) as error:
        queue.close()
        reason = os_reason(error) if isinstance(error, OSError) else str(error)
        where = f"{request.host}:{request.port}"
        hint = "--port takes another port, and 0 a free one"
        raise UsageError(
            f"cannot listen on this address: {reason}", where=where, hint=hint, code="address-in-use"
        ) from error
    return RunningServer(server, scorer.precision)


def serve(settings: Settings, request: ServeRequest, log: Callable[[str], None]) -> None:
    """Serve until SIGINT or SIGTERM; what was asked before is still answered. Arguments and errors as of `start`."""
    ended = threading.Event()

    def end(_number: int, _frame: Any) -> None:
        ended.set()

    with hold_gpu(resolve_device(settings.device), settings.lab, "cerank serve"):
        before = {number: signal.signal(number, end) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            server = start(settings, request, log)
            try:
                log(f"{request.model} in {server.precision} at {server.url}/rerank; Ctrl+C ends it")
                if request.host not in LOCAL_HOSTS and not request.key:
                    log(f"whoever reaches this machine may ask; {KEY_VARIABLE} sets a key that requests must bring")
                ended.wait()
                log("shutting down: what was asked is still answered")
            finally:
                server.close()
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
