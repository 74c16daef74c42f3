"""One process that has imported what commands and workers import; a program started here is a fork of it.

An import of torch and transformers costs three seconds of CPU, and the tests start more than a hundred programs.
Invariant: a fork has its own folder, environment and output, and what one does to memory no other sees. The process
ends with whoever asked for it, for its orders come through a pipe.
"""

from __future__ import annotations

import functools
import gc
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from cerank.machine.process_environment import pinned_environment

ROOT = Path(__file__).resolve().parents[1]


def started(
    program: str,
    words: Sequence[str | Path],
    *,
    cwd: Path,
    environ: Mapping[str, str] | None = None,
    output: Path | None = None,
    seconds: float | None = None,
) -> subprocess.CompletedProcess[str]:
    """`python -m PROGRAM WORDS` as a fork, waited for.

    Args:
        program: `cerank` or `cerank.worker`.
        words: its arguments.
        cwd: the folder it starts in.
        environ: its whole environment; this process's own where it is left out.
        output: a file that stdout and stderr are appended to; without one both are in the result.
        seconds: it is killed (-9) after so long; None waits as long as it takes.
    """
    with tempfile.TemporaryDirectory() as folder:
        out, err = (output, output) if output else (Path(folder) / "out", Path(folder) / "err")
        given = dict(os.environ if environ is None else environ)
        order = [program, [str(word) for word in words], str(cwd), given, str(out), str(err), seconds]
        server = _server()
        assert server.stdin is not None
        assert server.stdout is not None
        server.stdin.write(json.dumps(order) + "\n")
        server.stdin.flush()
        code = int(server.stdout.readline())
        texts = ("", "") if output else (out.read_text(encoding="utf8"), err.read_text(encoding="utf8"))
    return subprocess.CompletedProcess([program, *order[1]], code, *texts)


@functools.cache
def _server() -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "tests.warm"]
    environ = os.environ | pinned_environment(1)
    return subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT, env=environ, start_new_session=True
    )


def _serve() -> None:
    import ir_measures  # noqa: F401 - what a program imports late is imported here, once, before the first fork
    import scipy.stats  # noqa: F401
    from transformers import AutoModel, AutoTokenizer, BertModel, BertTokenizerFast  # noqa: F401
    from typer.main import get_command

    import cerank.cli.typer_app
    import cerank.evaluation.compare
    import cerank.evaluation.measures
    import cerank.worker.__main__ as worker
    import cerank.worker.pipeline
    from cerank.bench import stage_speed

    programs = {"cerank": cerank.cli.main, "cerank.worker": worker.main}
    get_command(cerank.cli.typer_app.app).commands.values()  # imports them all
    stage_speed.TIME_LIMIT = 0.01  # a run measures the machine first; no test of a whole run asks how exactly
    gc.freeze()  # a fork that collects would copy every page
    for line in sys.stdin:
        program, words, cwd, environ, out, err, seconds = json.loads(line)
        child = os.fork()
        if child == 0:
            sys.argv = [program, *words]
            os._exit(_run(programs[program], cwd, environ, out, err))
        print(ended(child, seconds), flush=True)


def ended(child: int, seconds: float | None) -> int:
    """The fork's exit code, or minus the signal that ended it."""
    if seconds is not None:
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            done, status = os.waitpid(child, os.WNOHANG)
            if done:
                return os.waitstatus_to_exitcode(status)
            time.sleep(0.002)
        os.kill(child, signal.SIGKILL)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def _run(program: Callable[[], int | None], cwd: str, environ: dict[str, str], out: str, err: str) -> int:
    """The program, in the fork; its exit code."""
    for number, path, mode in ((0, os.devnull, os.O_RDONLY), (1, out, os.O_WRONLY), (2, err, os.O_WRONLY)):
        opened = os.open(path, mode if number == 0 else mode | os.O_CREAT | os.O_APPEND)
        os.dup2(opened, number)
        os.close(opened)
    os.chdir(cwd)
    os.environ.clear()
    os.environ.update(environ)
    try:
        return program() or 0
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:  # noqa: BLE001 - as Python itself does
        sys.excepthook(*sys.exc_info())
        return 1
    finally:
        sys.stdout.flush()
        sys.stderr.flush()


if __name__ == "__main__":
    _serve()
