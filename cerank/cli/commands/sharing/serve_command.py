"""The command that serves a re-ranker over HTTP."""

from __future__ import annotations

import os
from typing import Annotated, Literal

import typer

from cerank.cli import options
from cerank.cli.commands.start_run import settings_of
from cerank.cli.output import info

_LIMITS = "Limits"


def serve(
    model: Annotated[
        str,
        typer.Argument(metavar="MODEL", help="Run (its last stage), RUN:STAGE, a folder, or a Hugging Face id."),
    ],
    host: Annotated[
        str, typer.Option("--host", metavar="HOST", help="Address to listen at; 0.0.0.0 is all of this machine's.")
    ] = "127.0.0.1",
    port: Annotated[
        int, typer.Option("--port", min=0, max=65535, metavar="N", help="Port to listen at; 0 takes a free one.")
    ] = 8080,
    precision: Annotated[
        Literal["fp32", "bf16", "fp16", "tf32", "auto"] | None,
        typer.Option(
            "--precision", help="Precision of the model. Default: that in which the run was measured, else fp32."
        ),
    ] = None,
    max_body: Annotated[
        int,
        typer.Option("--max-body", min=1, metavar="MIB", help="Largest body of a request.", rich_help_panel=_LIMITS),
    ] = 8,
    max_documents: Annotated[
        int,
        typer.Option(
            "--max-documents", min=1, metavar="N", help="Most documents of a request.", rich_help_panel=_LIMITS
        ),
    ] = 1000,
    max_waiting: Annotated[
        int,
        typer.Option(
            "--max-waiting",
            min=1,
            metavar="N",
            help="Most pairs that wait for the model; further requests are told to try again.",
            rich_help_panel=_LIMITS,
        ),
    ] = 10_000,
    lab: options.Lab = None,
    cache: options.Cache = None,
    device: options.Device = None,
    threads: options.Threads = None,
) -> None:
    """Serve a re-ranker over HTTP: POST /rerank and /v1/score, as Cohere, Jina and vLLM answer.

    Requests that come together are scored together. Scores are those that the run was measured by, without activation;
    `cerank verify RUN --against URL` checks it. GET /health says how it goes. Where CERANK_SERVE_KEY is set, requests
    need it as a bearer token. SIGTERM or Ctrl+C ends it once what was asked is answered.
    """
    from cerank.app.serving.serve_model import KEY_VARIABLE, ServeRequest
    from cerank.app.serving.serve_model import serve as serve_model
    from cerank.serving.http_server import ServerLimits

    settings = settings_of(lab, cache, device, threads)
    limits = ServerLimits(body_bytes=max_body << 20, documents=max_documents, waiting_pairs=max_waiting)
    request = ServeRequest(
        model=model,
        host=host,
        port=port,
        precision=precision or "",
        limits=limits,
        key=os.environ.get(KEY_VARIABLE, ""),
    )
    serve_model(settings, request, info)
