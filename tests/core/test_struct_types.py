"""Threads that decode records of a type that nobody decoded before."""

from __future__ import annotations

import subprocess
import sys

import pytest

# types of many fields, each of a type of its own, take long to be taken apart; threads change places often meanwhile
_PROGRAM = """
import sys, threading
import msgspec
from cerank.core.struct_types import prepare_struct_types
from cerank.runs.overlapped_reads import FEW, read_all

sys.setswitchinterval(1e-6)
for number in range(12):
    inner = [msgspec.defstruct(f"Inner{at}", [(f"f{place}", int | None, 0) for place in range(5)]) for at in range(30)]
    outer = msgspec.defstruct("Outer", [(f"a{at}", kind | None, None) for at, kind in enumerate(inner)])
    data = msgspec.json.encode({"a29": {"f4": 1}, "a1": {"f3": number}})
    READ
    assert {value.a1.f3 for value in values} == {number}
print("done")
"""
_DIRECT = """barrier, values = threading.Barrier(8), []
    def decode():
        barrier.wait()
        values.extend(msgspec.json.decode(data, type=outer) for _ in range(20))
    prepare_struct_types()
    threads = [threading.Thread(target=decode) for _ in range(8)]
    [thread.start() for thread in threads]
    [thread.join() for thread in threads]"""
_READ_ALL = "values = read_all(lambda _: msgspec.json.decode(data, type=outer), range(FEW + 40))"


@pytest.mark.parametrize("read", [_DIRECT, _READ_ALL], ids=["prepared", "read_all"])
def test_threads_that_are_the_first_to_decode_a_type_do_not_end_the_process(read):
    program = _PROGRAM.replace("READ", read)
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "done\n"), done.stderr
