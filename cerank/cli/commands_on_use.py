"""Commands that are imported when they are used, so that `cerank --help` and each command start without the others.

Invariant: the help of the whole program shows what the commands themselves say; a test compares the two.
"""

from __future__ import annotations

import copy
import importlib
from typing import Any, ClassVar, NamedTuple

import typer
from typer.main import get_command, get_group

from cerank.cli.command_class import Command, CommandGroup, CommandLine


class ListedCommand(NamedTuple):
    """What the help of the whole program says of a command, and where the command is."""

    name: str
    module: str  # in `cerank.cli.commands`
    attribute: str  # a function, or the `CommandLine` of a group
    panel: str  # heading under which the help lists it
    summary: str  # first paragraph of its help
    is_hidden: bool = False  # from the help: another cerank calls it

    def load(self) -> Any:
        """Import the command and return it as Typer runs it."""
        target = getattr(importlib.import_module(f"cerank.cli.commands.{self.module}"), self.attribute)
        if isinstance(target, typer.Typer):
            command: Any = get_group(target)
        else:
            alone = CommandLine(add_completion=False)
            alone.command()(target)
            command = get_command(alone)
        command.name, command.rich_help_panel, command.hidden = self.name, self.panel, self.is_hidden
        return command

    def without_code(self) -> Command:
        """Return a command that has a name and a summary alone, for a list."""
        summary = self.summary.replace("[", "\\[")  # Rich would take "[teachers.NAME]" for markup
        return Command(self.name, help=summary, rich_help_panel=self.panel, hidden=self.is_hidden)


class CommandsOnUse(dict[str, Any]):
    """Commands by name, in the order of the list; each is imported when it is first looked at."""

    def __init__(self, listed: tuple[ListedCommand, ...]) -> None:
        super().__init__({entry.name: entry for entry in listed})

    def __getitem__(self, name: str) -> Any:
        command = super().__getitem__(name)
        if isinstance(command, ListedCommand):
            command = self[name] = command.load()
        return command

    def get(self, name: str, default: Any = None) -> Any:
        """Return the command of that name, or `default`."""
        return self[name] if name in self else default  # noqa: SIM401 - this is the `get` that it would call

    def values(self) -> Any:
        """Return every command; imports them all."""
        return {name: self[name] for name in self}.values()

    def items(self) -> Any:
        """Return every name with its command; imports them all."""
        return {name: self[name] for name in self}.items()


class GroupOnUse(CommandGroup):
    """A group whose commands are imported when they are used; a subclass lists them in `listed`."""

    listed: ClassVar[tuple[ListedCommand, ...]] = ()

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.commands = CommandsOnUse(self.listed)

    def list_commands(self, ctx: Any) -> list[str]:  # noqa: ARG002 - as Typer's own, which looks at each command
        """Return the names in the order of the list."""
        return list(self.commands)

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """Show the help, for which no command need be imported."""
        shown = copy.copy(self)
        shown.commands = {entry.name: entry.without_code() for entry in self.listed}
        super(GroupOnUse, shown).format_help(ctx, formatter)
