from __future__ import annotations

import json
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

from tests.tui.labs import LabFolder
from tests.tui.terminal import Terminal

SLOW = (
    "bm25s",
    "ir_datasets",
    "ir_measures",
    "pandas",
    "scipy",
    "statsmodels",
    "torch",
    "transformers",
    "psutil",
)
PROBE = """
import asyncio, json, sys
from pathlib import Path
from cerank.settings import Settings
import cerank.cli.commands.dashboard
from cerank.app import Lab
from cerank.tui import app as dashboard
dashboard._warm_up = lambda: None
async def main():
    where = Path(sys.argv[1])
    app = dashboard.CerankApp(Lab(Settings(lab=where, cache=where, device="cpu", threads=1, format="")), poll_seconds=0)
    async with app.run_test(size=(120, 36)) as pilot:
        while app.is_at_work or not app.has_loaded:
            await pilot.pause()
asyncio.run(main())
print("\\n" + json.dumps(sorted({name.partition(".")[0] for name in sys.modules})))
"""


def test_the_first_screen_needs_no_slow_library_and_no_figures_of_the_machine(folder: LabFolder) -> None:
    folder.finished(folder.started(folder.run("one"), 5))
    done = subprocess.run(
        [sys.executable, "-c", PROBE, str(folder.path)], capture_output=True, text=True, check=True, timeout=300
    )
    modules = set(json.loads(done.stdout.splitlines()[-1]))
    assert modules.isdisjoint({*SLOW, "numpy"})
    assert find_spec("torch")


def test_it_needs_neither_psutil_nor_nvidias_library(folder: LabFolder, tmp_path: Path) -> None:
    for name in ("psutil", "pynvml"):
        (tmp_path / "without").mkdir(exist_ok=True)
        (tmp_path / "without" / f"{name}.py").write_text("raise ImportError\n")
    folder.finished(folder.started(folder.run("one"), 5))
    environ = {"CERANK_LAB": str(folder.path), "PYTHONPATH": str(tmp_path / "without")}
    with Terminal(["tui"], environ) as terminal:
        terminal.until("finished")
        terminal.press("\r")
        terminal.until("1 Curves")
        terminal.press("6")
        terminal.until("install psutil")
        terminal.press("q")
        terminal.end()
    assert terminal.code == 0


def test_without_a_terminal_it_says_what_works_instead(folder: LabFolder) -> None:
    words = [sys.executable, "-m", "cerank", "tui"]
    done = subprocess.run(words, capture_output=True, text=True, timeout=300, stdin=subprocess.DEVNULL, check=False)
    assert done.returncode == 2
    assert "cerank ps" in done.stderr


def test_no_color_writes_no_color(folder: LabFolder) -> None:
    folder.finished(folder.started(folder.run("one"), 5))
    with Terminal(["tui"], {"CERANK_LAB": str(folder.path), "NO_COLOR": "1"}) as terminal:
        terminal.until("finished")
        terminal.press("\r")
        terminal.until("validation")
        terminal.press("q")
        terminal.end()
    assert b"38;2;" not in terminal.output
    assert b"48;2;" not in terminal.output
    assert b"38;5;" not in terminal.output
