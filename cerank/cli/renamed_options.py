"""Options that have a new name: the old one works for one more version, with a warning that names the new one."""

from __future__ import annotations

from collections.abc import Mapping

from cerank.cli.output import info
from cerank.errors import UsageError

RENAMED: Mapping[str, Mapping[str, str]] = {  # command -> old option -> new option
    "bench": {"--alone": "--cerank-only"},
    "compare": {"--condensed": "--judged-only"},
    "report": {"--correct": "--correction", "--out": "--output"},
}
_SEEDS = "--seeds"  # an old option of `compare` that accepted only "mean"


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


def without_seeds(args: list[str]) -> list[str]:
    """Return the arguments of `compare` without the former option `--seeds mean`; print a warning if it is there.

    Raises:
        UsageError: another value than "mean" is given.
    """
    for place, arg in enumerate(args):
        name, equals, value = arg.partition("=")
        if name != _SEEDS:
            continue
        following = place + (1 if equals else 2)
        value = value if equals else "".join(args[place + 1 : following])
        if value != "mean":
            what = f"the seeds of a recipe cannot be combined by '{value}'"
            hint = "omit the option: scores are averaged over seeds per query; `cerank guide verdicts` gives the reason"
            raise UsageError(what, where=_SEEDS, hint=hint)
        info(f"warning: {_SEEDS} has no effect, because scores are always averaged over seeds; omit the option")
        return [*args[:place], *args[following:]]
    return args
