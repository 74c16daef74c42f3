"""How every command reads its options and shows its help: what Typer does, with plainer help and hints for other names.

Invariant: a command behaves as Typer's own does; only its help, old option names and errors for unknown ones differ.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any

import typer
from typer.core import TyperArgument, TyperCommand, TyperGroup, TyperOption

from cerank.cli import renamed_options
from cerank.errors import UsageError

SYNONYMS = {  # what other tools call an option -> what it is called here, in every command that has it
    **dict.fromkeys(("-k", "--k", "--topk", "--top-k", "--top_k", "--hits", "--cutoff"), "--depth"),
    **dict.fromkeys(("--metric", "--metrics", "--measures"), "--measure"),
    **dict.fromkeys(("--output-file", "--outfile", "--output-dir"), "--output"),
    **dict.fromkeys(("--collection", "--corpus", "--topics"), "--dataset"),
    **dict.fromkeys(("--model", "--backbone"), "--base"),
    **dict.fromkeys(("--force", "--overwrite"), "--replace"),
    **dict.fromkeys(("--config",), "--recipe"),
}
LONGEST_CHOICES = 20  # characters of choices that are shown in the column of types


class Command(TyperCommand):
    """A command whose help fits a terminal and which knows the names that options have elsewhere."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.help = reflowed(self.help)

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Parse the arguments after replacing old option names, and warn about each of them.

        Raises:
            UsageError: an option has another tool's name; the hint has ours.
        """
        args = renamed_options.with_new_names(self.name or "", args)
        args = renamed_options.without_seeds(args) if self.name == "compare" else args
        self._check_synonyms(args)
        return super().parse_args(ctx, args)

    def _check_synonyms(self, args: Sequence[str]) -> None:
        known = {name for param in self.params for name in param.opts}
        for arg in args[: args.index("--") if "--" in args else len(args)]:
            name = arg.partition("=")[0]
            ours = SYNONYMS.get(name)
            if ours in known and name not in known:
                raise UsageError(f"no option is called {name}", hint=f"here it is called {ours}")

    def get_params(self, ctx: Any) -> list[Any]:
        """Return the parameters, prepared for the help."""
        return prepared(super().get_params(ctx))

    def collect_usage_pieces(self, ctx: Any) -> list[str]:
        """Return the parts of the usage line: an argument is shown as its metavar is written."""
        arguments = [param for param in self.get_params(ctx) if isinstance(param, TyperArgument)]
        return [self.options_metavar or "", *(param.metavar or (param.name or "").upper() for param in arguments)]


class CommandGroup(TyperGroup):
    """A group of commands with the same kind of help."""

    def get_params(self, ctx: Any) -> list[Any]:
        """Return the parameters, prepared for the help."""
        return prepared(super().get_params(ctx))


class CommandLine(typer.Typer):
    """A Typer application all of whose commands are of the class above."""

    def __init__(self, *, cls: type[CommandGroup] = CommandGroup, **kwargs: Any) -> None:
        super().__init__(cls=cls, **kwargs)

    def command(self, name: str | None = None, **kwargs: Any) -> Callable[[Any], Any]:
        """Return a decorator that registers a function as a command."""
        return super().command(name, cls=Command, **kwargs)


def reflowed(text: str | None) -> str | None:
    """Return a help text with each paragraph on one line, so that it wraps where the terminal ends."""
    return "\n\n".join(re.sub(r"\s*\n\s*", " ", part) for part in text.split("\n\n")) if text else text


def prepared(params: list[Any]) -> list[Any]:
    """Return the parameters with what their help shows in plain form.

    Typer shows "<bool>" beside a flag and "<list[str]>" beside an argument, which say nothing to a user. It puts all
    choices into a column, however narrow that leaves the texts, and takes brackets in a text, such as "[evaluate]",
    for markup.
    """
    for param in params:
        choices = [str(choice) for choice in param.type_descriptor.choices or ()]
        if len("|".join(choices)) > LONGEST_CHOICES and param.metavar is None:
            param.metavar = (param.name or "").upper()
            param.help = f"One of {', '.join(choices)}. {param.help or ''}"
        if isinstance(param, TyperArgument) or (isinstance(param, TyperOption) and param.is_flag):
            vars(param)["display_type_rich"] = _no_type
        if param.help:
            param.help = re.sub(r"(?<!\\)\[(?=[a-z])", r"\\[", param.help)
    return params


def _no_type(ctx: Any) -> None:
    """Return nothing to show as a parameter's type."""
