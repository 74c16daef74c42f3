"""Records are decoded by threads that all begin at once."""

from __future__ import annotations

import subprocess
import sys

import msgspec
import pytest

from cerank.recipes.plan import Plan

# A process of its own for each try, for only the first decoding of a kind can crash.
_THREADS = """
import sys, threading
from cerank.files import json_records
from cerank.recipes.plan import Plan

sys.setswitchinterval(1e-6)
data = sys.stdin.buffer.read()
start = threading.Barrier(16)

def read():
    start.wait()
    json_records.decode(data, Plan)

threads = [threading.Thread(target=read) for _ in range(16)]
[thread.start() for thread in threads]
[thread.join() for thread in threads]
print("alive")
"""


@pytest.mark.slow
def test_threads_may_decode_a_kind_for_the_first_time_together(plan: Plan) -> None:
    command, data = [sys.executable, "-c", _THREADS], msgspec.json.encode(plan)
    for _ in range(3):
        done = subprocess.run(command, input=data, capture_output=True, check=False)
        assert (done.returncode, done.stdout, done.stderr) == (0, b"alive\n", b"")
