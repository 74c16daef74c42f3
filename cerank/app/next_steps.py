"""Commands to suggest after the first run of a lab."""

from __future__ import annotations

import os
import shlex
from pathlib import Path

from cerank import recipes
from cerank.app.lab import Lab
from cerank.recipes.plan import Plan
from cerank.runs import run_store
from cerank.runs.layout import RunFolder
from cerank.settings import Flags, resolve

_DEFAULT = "contrastive-then-distill"


def after_first(lab: Lab, folder: RunFolder, plan: Plan) -> list[str]:
    """Return three lines, each a command with what it does; none where another run of the lab is finished, too."""
    others = [row for row in lab.listed() if row.folder != folder and row.status.state == "finished"]
    return [] if others else commands(lab.folder, folder, plan)


def lab_option(home: Path) -> str:
    """Return the option that a printed command needs, such as ` --lab ./lab`; "" for the default lab."""
    return "" if home == resolve(Flags(), os.environ, Path.cwd()).settings.lab else f" --lab {shlex.quote(str(home))}"


def command(home: Path, words: str, folder: RunFolder | None = None) -> str:
    """Return a command for this lab (and run) between backquotes, such as `cerank resume brisk-otter --lab ./lab`."""
    run = f" {run_store.short_name(folder)}" if folder else ""
    return f"`cerank {words}{run}{lab_option(home)}`"


def commands(home: Path, folder: RunFolder, plan: Plan) -> list[str]:
    """Return three lines, each a command for this run in this lab with what it does."""
    name, chain = run_store.short_name(folder), plan.recipe.chain
    at = lab_option(home)
    before = f"{name}:{chain[-2] if len(chain) > 1 else 'first-stage'}"
    recipe = plan.recipe.name if plan.recipe.name in recipes.shipped() else _DEFAULT
    purposes = {
        f"cerank tui {shlex.quote(name)}{at}": "open the dashboard at this run",
        f"cerank compare {shlex.quote(before)} {shlex.quote(name)}{at}": "compare, query by query",
        f"cerank run --recipe {recipe} --dataset ./my-data --dry-run{at}": "your own data, from a folder",
    }
    width = max(map(len, purposes))
    if width > 60:
        return [f"  {command}  # {what}" for command, what in purposes.items()]
    return [f"  {command.ljust(width)}  # {what}" for command, what in purposes.items()]
