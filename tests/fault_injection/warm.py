"""One process that has imported everything a worker needs; each call is a fork of it, so that faults cost little.

A function to call lives in a module of this package, takes JSON values and returns one.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import traceback
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]


class Warm:
    """The process; used by one thread at a time."""

    def __init__(self) -> None:
        self._devices = tempfile.mkdtemp(prefix="cerank-devices-")
        self._start()

    def _start(self) -> None:
        environ = os.environ | {
            "OMP_NUM_THREADS": "1",
            "TOKENIZERS_PARALLELISM": "false",
            "HF_HUB_OFFLINE": "1",
            "TQDM_DISABLE": "1",
            "CERANK_DEVICES": self._devices,  # not those that somebody's labs share
        }
        command = [sys.executable, "-m", "tests.fault_injection.warm"]
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT, env=environ,
            start_new_session=True,
        )  # fmt: skip

    def call(self, function: str, longest: float = 600.0, **given: Any) -> Any:
        """`module.function(**given)` in a fork; its result.

        Raises:
            AssertionError: it raised, and the text is its traceback; or it was not over after `longest` seconds.
        """
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps([function, given]) + "\n")
        self._process.stdin.flush()
        ready, _, _ = select.select([self._process.stdout], [], [], longest)
        line = self._process.stdout.readline() if ready else ""
        if not line:  # hung, or dead: the next one gets a new process
            self._kill()
            self._start()
            why = "ended without an answer" if ready else f"was not over after {longest:.0f} s"
            raise AssertionError(f"{function} {why}")
        is_good, value = json.loads(line)
        assert is_good, value
        return value

    def _kill(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)  # it leads a group of its own, which its forks are in
        self._process.wait()

    def close(self) -> None:
        """Ends the process."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()
        shutil.rmtree(self._devices, ignore_errors=True)


def _answer(function: str, given: dict[str, Any], out: int) -> None:
    module, _, name = function.partition(".")
    try:
        value = [True, getattr(importlib.import_module(f"tests.fault_injection.{module}"), name)(**given)]
    except BaseException:  # noqa: BLE001 - whatever it was, the caller gets its traceback
        value = [False, traceback.format_exc()]
    with os.fdopen(out, "w") as file:
        json.dump(value, file)


def _serve() -> None:
    import ir_measures  # noqa: F401 - what a worker imports late is imported here, once, before the first fork
    import transformers
    from transformers import AutoModel, AutoTokenizer, BertModel, BertTokenizerFast  # noqa: F401

    import cerank.evaluation.measures
    import cerank.worker.pipeline
    import tests.worker.small

    assert cerank.evaluation.measures
    assert cerank.worker.pipeline
    assert tests.worker.small
    assert transformers
    for line in sys.stdin:
        function, given = json.loads(line)
        with tempfile.TemporaryFile() as result:
            child = os.fork()
            if child == 0:
                os.dup2(2, 1)  # what it prints is no answer
                _answer(function, given, os.dup(result.fileno()))
                os._exit(0)
            os.waitpid(child, 0)
            result.seek(0)
            answer = result.read().decode()
        print(answer or json.dumps([False, "the fork died without an answer"]), flush=True)


if __name__ == "__main__":
    _serve()
