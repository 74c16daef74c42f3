"""Teachers behind real servers, end to end: teach, check, train, verdict.

The model has random weights and knows six answers, each an order of three passages: whatever the order is, it does not
come from the passages. What is tested is the machinery, and that a check says how bad such a teacher is.

`transformers serve` needs fastapi, uvicorn, openai and accelerate; llama.cpp's server needs gguf and xllamacpp, whose
wheel has it. A test whose packages are not installed is skipped.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import msgspec
import pytest

from cerank.app.comparison import comparisons
from cerank.app.teaching import check_teacher
from cerank.datasets.open_datasets import open_dataset
from cerank.errors import CerankError, UsageError
from cerank.files import json_records
from cerank.recipes.sections.teacher_specs import TeacherSpec
from cerank.teachers.make import make
from cerank.teachers.requests import Hooks, TeachRequest
from cerank.worker.run_inputs import MadeRanking
from tests.refusals import refused
from tests.teachers.tiny_language_model import write_language_model
from tests.worker.small import STAGE, small_plan, small_run, write_dataset
from tests.worker.test_whole_runs import attempt

pytestmark = pytest.mark.slow

_ANSWERS = [" > ".join(f"[{number}]" for number in order) for order in itertools.permutations((1, 2, 3))]
_START_SECONDS = 180.0


def _transformers_serve(model: Path, port: int) -> tuple[list[str], str]:
    for name in ("fastapi", "uvicorn", "openai", "accelerate"):
        pytest.importorskip(name)
    program = "from transformers.cli.transformers import main; main()"
    command = [sys.executable, "-c", program, "serve", str(model), "--device", "cpu", "--port", str(port)]
    return command, str(model)


_LLAMA_SERVER = """
import sys, threading, xllamacpp
params = xllamacpp.CommonParams()
params.model.path, params.model_alias, params.port = sys.argv[1], {"tiny"}, int(sys.argv[2])
params.n_ctx, params.n_parallel, params.cpuparams.n_threads, params.fit_params = 8192, 2, 1, False
server = xllamacpp.Server(params)
print(server.listening_address, flush=True)
threading.Event().wait()
"""  # llama.cpp's own HTTP server, which the package has in a wheel


def _llama_cpp(model: Path, port: int) -> tuple[list[str], str]:
    for name in ("gguf", "xllamacpp"):
        pytest.importorskip(name)
    from tests.teachers.tiny_gguf import write_gguf

    file = write_gguf(model, model / "tiny.gguf")
    return [sys.executable, "-c", _LLAMA_SERVER, str(file), str(port)], "tiny"


@contextlib.contextmanager
def _serving(
    make_command: Callable[[Path, int], tuple[list[str], str]], room: Path, says: Sequence[str] = _ANSWERS
) -> Iterator[tuple[str, str]]:
    """Start a server with the random model; yield its address and what it calls the model."""
    model = write_language_model(room / "tiny", says=says)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command, name = make_command(model, port)
    environ = os.environ | {"HF_HUB_OFFLINE": "1", "HF_HOME": str(room / "hub"), "OMP_NUM_THREADS": "1"}
    with (room / "server.log").open("wb") as log:
        server = subprocess.Popen(command, cwd=room, env=environ, stdout=log, stderr=log)
    try:
        until = time.monotonic() + _START_SECONDS
        while not _answers(f"http://127.0.0.1:{port}/v1/models"):
            assert server.poll() is None, (room / "server.log").read_text()[-2000:]
            assert time.monotonic() < until, (room / "server.log").read_text()[-2000:]
            time.sleep(0.2)
        yield f"http://127.0.0.1:{port}/v1", name
    finally:
        server.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            server.wait(10)
        server.kill()


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=5):
            return True
    except (OSError, urllib.error.URLError):
        return False


def _request(room: Path, spec: TeacherSpec, **more: object) -> TeachRequest:
    folder = room / "queries"
    dataset = open_dataset(str(folder if folder.exists() else write_dataset(folder)), room / "cache")
    given: dict[str, object] = {"queries": tuple(dataset.queries)} | more
    return TeachRequest(
        lab=room / "lab", cache=room / "cache", name="tiny", teachers={"tiny": spec}, dataset=dataset,
        first_stage="bm25", **given,
    )  # fmt: skip


@pytest.mark.parametrize("make_command", [_transformers_serve, _llama_cpp], ids=["transformers serve", "llama.cpp"])
def test_a_random_model_behind_a_real_server_teaches_and_its_check_says_that_it_is_bad(
    make_command: Callable[[Path, int], tuple[list[str], str]], tmp_path: Path
) -> None:
    with _serving(make_command, tmp_path) as (url, model):
        spec = TeacherSpec(
            kind="listwise", model=model, server=url, window=3, stride=1, depth=3, concurrency=2, timeout=60.0
        )
        request = _request(tmp_path, spec)
        made = make(request)
        assert len(made.ranking) > 30
        assert made.provenance.failed == {}
        facts = made.provenance
        assert facts.usage.input_tokens > 1000  # as the server counted them
        assert make(request).asked == 0
        settings = small_plan(tmp_path / "settings")[1]
        settings = msgspec.structs.replace(settings, lab=tmp_path / "lab", cache=tmp_path / "cache")
        result = check_teacher.check(settings, request, Hooks(), measures=("nDCG@10",), bias_queries=5)
        assert result.is_worse  # than BM25, by verdict
        assert result.warnings[0].startswith("tiny ")
        assert result.position_bias is not None
        assert result.position_bias.tau < 1.0  # the same passages in other places are ordered otherwise

        short = {**STAGE, "steps": 4, "validate_every": 4}
        teacher = {"kind": "listwise", "model": model, "server": url, "window": 3, "stride": 1, "depth": 3}
        plan, settings = small_plan(
            tmp_path / "run",
            chain=["distill"],
            stages={"distill": {**short, "loss": "ranknet", "source": "teacher", "teacher": "tiny"}},
            teachers={"tiny": teacher},
            evaluate={"measures": ["nDCG@10"], "teachers": ["tiny"]},
        )
        run = small_run(tmp_path / "run", plan, settings)
        assert attempt(run) == 0, run.log.read_text()
        comparison = comparisons.of_run(run)
        assert {system.label for system in comparison.systems} == {"first-stage", "distill", "tiny"}
        assert all(row.verdict for row in comparison.rows)
        beside = json_records.load(run.teacher("distill").with_name("distill.made.json"), MadeRanking)
        assert beside.provenance.place == url


def test_what_transformers_serve_lacks_is_found_out_by_one_call(tmp_path: Path) -> None:
    with _serving(_transformers_serve, tmp_path) as (url, model):
        spec = TeacherSpec(kind="first", model=model, server=url, window=3, stride=1, depth=3)
        with refused(UsageError, "no-log-probabilities"):
            make(_request(tmp_path, spec))
        with pytest.raises(CerankError):  # no Batch API
            make(_request(tmp_path, msgspec.structs.replace(spec, kind="listwise", batch=True, attempts=1)))


@pytest.mark.parametrize("kind", ["first", "pointwise"])
def test_llama_cpp_gives_log_probabilities(kind: str, tmp_path: Path) -> None:
    with _serving(_llama_cpp, tmp_path, says=["A", "B", "C", "Yes", "No"]) as (url, model):
        spec = TeacherSpec(kind=kind, model=model, server=url, window=3, stride=1, depth=3)  # type: ignore[arg-type]
        request = _request(tmp_path, spec)
        made = make(msgspec.structs.replace(request, queries=request.queries[:3]))
        assert len(made.ranking) == 3
