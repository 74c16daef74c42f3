"""The acceptance of a GPU itself works: every row runs on a CPU, and without a GPU it says so."""

from __future__ import annotations

import os
import re
import subprocess
import sys

import pytest
import torch

from tests.gpu.__main__ import NO_GPU, ROOT, TABLE
from tests.gpu.rows import ROWS


def acceptance(*words):
    environ = os.environ | {"CUDA_VISIBLE_DEVICES": ""}
    command = [sys.executable, "-m", "tests.gpu", *words]
    return subprocess.run(command, cwd=ROOT, env=environ, check=False, capture_output=True, text=True)


@pytest.mark.slow
def test_all_rows_hold_in_a_dry_run_which_writes_nothing():
    before = TABLE.read_bytes()
    done = acceptance("--dry")
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.findall(r"^\| (\d+) \|.*\| (\w+) \|", done.stdout, re.MULTILINE) == [
        (str(number), "yes") for number in range(len(ROWS))
    ]
    assert TABLE.read_bytes() == before


def test_the_rows_fit_into_eight_minutes_and_each_says_its_condition():
    assert len(ROWS) == 20
    assert sum(row.seconds for row in ROWS) <= 480
    assert all(row.name and row.bar for row in ROWS)
    assert "|" not in "".join(row.name + row.bar for row in ROWS)  # they become rows of a table


@pytest.mark.parametrize("number", [2, 3, 13])
def test_a_row_measures_something_on_a_cpu(number):
    outcome = ROWS[number].check("cpu", True)
    assert outcome.held, outcome.figure
    assert re.search(r"\d", outcome.figure)


@pytest.mark.slow
@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_it_ends_with_a_code_of_its_own():
    done = acceptance()
    assert done.returncode == NO_GPU
    assert "no GPU" in done.stderr
