"""The dashboard over a real lab, its queue and its supervisor; only the worker is the quick one of tests/scheduler.

`python -m tests.tui.front LAB`
"""

from __future__ import annotations

import sys
from pathlib import Path

from cerank.app import Lab
from cerank.machine.devices import Device
from cerank.settings import Settings
from cerank.tui.app import run
from tests.scheduler.conftest import STANDIN

if __name__ == "__main__":
    where = Path(sys.argv[1])
    settings = Settings(lab=where, cache=where / "cache", device="cpu", threads=1, format="")
    print(run(Lab(settings, devices=(Device("cpu"),), worker=STANDIN)))
