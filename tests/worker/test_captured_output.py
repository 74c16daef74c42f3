"""What libraries print in a worker reaches its log without tokens, in whatever way it is printed."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from tests.tui.labs import LabFolder

CANARY = "hf_" + "QwErTyUiOpAsDfGhJkLzXcVbNm12345678"[:34]

LIBRARY = """
import logging, sys, threading, traceback, warnings
early = logging.getLogger("early")
early.addHandler(logging.StreamHandler())  # made while the real stream stood there
import cerank.worker.__main__ as worker
import cerank.worker.pipeline as pipeline

def library(*given, **named):
    token = CANARY
    print("downloading with", token)
    print(f"https://user:{token}@host/model", file=sys.stderr)
    sys.stderr.write("\\rloading: 10% " + token[:12]); sys.stderr.flush(); sys.stderr.write(token[12:] + "\\n")
    sys.stdout.buffer.write(f"raw {token}\\n".encode()); sys.stdout.buffer.flush()
    early.warning("early %s", token)
    late = logging.getLogger("late"); late.addHandler(logging.StreamHandler(sys.stdout)); late.error("late %s", token)
    logging.getLogger("none").warning("last resort %s", token)
    warnings.warn(f"deprecated: {token}")
    thread = threading.Thread(target=lambda: {}[token]); thread.start(); thread.join()
    try:
        raise ValueError(token)
    except ValueError:
        traceback.print_exc()
    print("progress without an end", end="")
    print(token, end="", flush=True)
    raise RuntimeError(f"401 for {token}")

pipeline.carry_out = library
sys.argv = ["worker", RUN]
sys.exit(worker.main())
"""


def test_no_token_that_a_library_prints_reaches_the_log(tmp_path: Path) -> None:
    run = LabFolder(tmp_path / "lab").run("printing")
    program = f"CANARY = {CANARY!r}\nRUN = {str(run.path)!r}\n{LIBRARY}"
    with run.log.open("wb") as log:
        done = subprocess.run([sys.executable, "-c", program], stdout=log, stderr=log, check=False)
    assert done.returncode == 1
    told = run.log.read_text()
    assert CANARY[:12] not in told
    for word in ("downloading with [token]", "https://[token]@host/model", "loading: 10% [token]", "raw [token]",
                 "early [token]", "late [token]", "last resort [token]", "deprecated: [token]", "KeyError: '[token]'",
                 "ValueError: [token]", "end[token]", "RuntimeError: 401 for [token]"):  # fmt: skip
        assert word in told, word
    assert not [path for path in run.path.rglob("*") if path.is_file() and CANARY.encode() in path.read_bytes()]


def test_a_fault_before_the_first_event_is_a_failure_of_the_run_with_its_traceback(tmp_path: Path) -> None:
    run = LabFolder(tmp_path / "lab").run("broken")
    for raised, word in (("KeyError('x')", "KeyError: 'x'"), ("OSError(5, 'Input/output error', 'seals.jsonl')", "")):
        program = (
            "import sys\nimport cerank.worker.__main__ as worker\n"
            f"def broken(folder):\n    raise {raised}\nworker.repair.repair_run = broken\n"
            f"sys.argv = ['worker', {str(run.path)!r}]\nsys.exit(worker.main())\n"
        )
        done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
        if word:
            assert done.returncode == 1
            assert word in run.failure.read_text()
        else:
            assert done.returncode == 2
            assert "seals.jsonl: cannot read the file: input/output error" in done.stdout
        assert "Traceback" in done.stdout
