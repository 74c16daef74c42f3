"""`python -m tests.gpu`: the acceptance of a GPU, in about 8 minutes; see `--help`.

Rows run one after the other in a process of their own, which is started anew where a row kills it or takes too long;
each is written to the table as soon as it is known, so that a machine that is taken away leaves what was learned.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import queue
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from cerank.machine import process_environment

ROOT = Path(__file__).resolve().parents[2]
TABLE = Path(__file__).with_name("TABLE.md")
NO_GPU = 3  # exit code


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m tests.gpu", description="Check cerank on a GPU, correctness first."
    )
    parser.add_argument("--plan", action="store_true", help="print the rows with their conditions and budgets, and end")
    parser.add_argument(
        "--dry", action="store_true", help="run all rows on the CPU with tiny shapes; nothing is written"
    )
    parser.add_argument("--rows", default="", help="numbers of the rows to run, such as 0,4,8; default: all")
    parser.add_argument("--device", default="cuda", help="GPU to check; default: cuda")
    parser.add_argument("--table", type=Path, default=TABLE, help="file to add the rows to; default: the repository's")
    parser.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    device = "cpu" if options.dry else options.device
    if options.worker:
        return work(device, options.dry)
    from tests.gpu.rows import ROWS

    if options.plan:
        for number, row in enumerate(ROWS):
            print(f"{number:2}  {row.seconds:3} s  {row.name}\n             {row.bar}")
        print(f"{sum(row.seconds for row in ROWS)} s at most, {len(ROWS)} rows")
        return 0
    if not options.dry:
        import torch

        if not torch.cuda.is_available():
            print("no GPU that torch can use is here; --dry runs all rows on the CPU", file=sys.stderr)
            return NO_GPU
    numbers = [int(word) for word in options.rows.split(",")] if options.rows else list(range(len(ROWS)))
    return run(numbers, device, options.table, dry=options.dry)


def work(device: str, dry: bool) -> int:
    """Carry out the rows whose numbers come in, one a line; answer each with a line of JSON."""
    answers = os.fdopen(os.dup(1), "w", encoding="utf8")
    os.dup2(2, 1)  # what libraries print goes to standard error
    from cerank.kernels import determinism
    from tests.gpu.rows import ROWS

    determinism.make_deterministic(device, 2)
    for line in sys.stdin:
        try:
            outcome = ROWS[int(line)].check(device, dry)
            answer = {"figure": outcome.figure, "held": outcome.held}
        except Exception as error:  # noqa: BLE001 - a row that fails is a row that says so
            traceback.print_exc()
            answer = {"figure": f"{type(error).__name__}: {str(error)[:300]}", "held": False}
        answers.write(json.dumps(answer) + "\n")
        answers.flush()
    return 0


class Worker:
    """The process that carries out rows."""

    def __init__(self, device: str, dry: bool) -> None:
        environ = os.environ | process_environment.pinned_environment(2)
        environ |= {"PYTORCH_ALLOC_CONF": "expandable_segments:True"}
        command = [sys.executable, "-m", "tests.gpu", "--worker", *(["--dry"] if dry else ["--device", device])]
        pipe = subprocess.PIPE
        self.process = subprocess.Popen(command, cwd=ROOT, env=environ, stdin=pipe, stdout=pipe, text=True)
        self._lines: queue.SimpleQueue[str] = queue.SimpleQueue()
        threading.Thread(target=self._listen, daemon=True).start()

    def _listen(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self._lines.put(line)
        self._lines.put("")

    def ask(self, number: int, seconds: float) -> dict[str, object]:
        """Return the answer of a row; one that ends the process, or takes too long, has not held."""
        assert self.process.stdin is not None
        try:
            self.process.stdin.write(f"{number}\n")
            self.process.stdin.flush()
            line = self._lines.get(timeout=seconds)
        except queue.Empty:
            self.close()
            return {"figure": f"took more than {seconds:.0f} s", "held": False}
        except OSError:
            line = ""
        if not line:
            self.close()
            return {"figure": f"the process ended with {self.process.returncode}", "held": False}
        return dict(json.loads(line))

    def close(self) -> None:
        self.process.kill()
        self.process.wait()


def run(numbers: Sequence[int], device: str, table: Path, *, dry: bool) -> int:
    """Run the rows, print and write each as soon as it is known; return 1 if one did not hold."""
    from tests.gpu.rows import ROWS

    rows = [(number, ROWS[number]) for number in numbers]
    if not dry:
        _append(table, _heading(device))
    worker, failed = Worker(device, dry), 0
    try:
        for number, row in rows:
            if worker.process.poll() is not None:
                worker = Worker(device, dry)
            started = time.monotonic()
            # a dry run may share the machine with anything; the limit is only there to end
            answer = worker.ask(number, 600.0 if dry else 2.0 * row.seconds + 20.0)
            seconds = time.monotonic() - started
            failed += not answer["held"]
            text = f"| {number} | {row.name} | {answer['figure']} | {row.bar} | {'yes' if answer['held'] else 'NO'} |"
            print(f"{text} {seconds:.0f} s", flush=True)
            if not dry:
                _append(table, f"{text}\n")
    finally:
        worker.close()
    print(f"{len(rows) - failed} of {len(rows)} rows held")
    return 1 if failed else 0


def _heading(device: str) -> str:
    import torch

    commit = ""
    with contextlib.suppress(OSError):  # a machine without git
        command = ["git", "rev-parse", "--short", "HEAD"]
        commit = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False).stdout.strip()
    when = datetime.now(UTC).isoformat(timespec="minutes")
    place = f"{torch.cuda.get_device_name(device)}, torch {torch.__version__}, commit {commit or 'unknown'}"
    return f"\n## {place}, {when}\n\n| # | what | measured | condition | held |\n|---:|---|---|---|---|\n"


def _append(table: Path, text: str) -> None:
    with table.open("a", encoding="utf8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())


if __name__ == "__main__":
    sys.exit(main())
