"""Options that have a new name: the old one works for one more version, with a warning that names the new one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from typer.core import TyperCommand

from cerank.cli.output import info

RENAMED: Mapping[str, Mapping[str, str]] = {  # command -> old option -> new option
    "bench": {"--alone": "--cerank-only"},
    "compare": {"--condensed": "--judged-only"},
    "report": {"--correct": "--correction"},
    "rerank": {"--run": "--first-stage"},
}


class CommandWithRenamedOptions(TyperCommand):
    """A command that also understands the options that `RENAMED` lists for it; its help shows only the new names."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Parse the arguments after replacing old option names, and warn about each of them."""
        return super().parse_args(ctx, with_new_names(self.name or "", args))


def with_new_names(command: str, args: list[str]) -> list[str]:
    """Return the arguments with old option names replaced; print a warning for each.

    What follows `--` is not an option and stays.
    """
    renamed = RENAMED.get(command, {})
    end = args.index("--") if "--" in args else len(args)
    replaced = list(args)
    for place, arg in enumerate(args[:end]):
        name, equals, value = arg.partition("=")
        if name in renamed:
            replaced[place] = f"{renamed[name]}{equals}{value}"
            info(f"warning: {name} is now called {renamed[name]}; the old name will be removed in the next version")
    return replaced
