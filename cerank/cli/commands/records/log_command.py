"""Commands that write, show and export the lab book."""

from __future__ import annotations

import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from cerank.cli import options
from cerank.cli.command_class import CommandLine
from cerank.cli.commands.start_run import settings_of
from cerank.cli.output import emit, info, write_output
from cerank.errors import UsageError

log_app = CommandLine(
    help="The lab book: what you plan, decide and find, with verdicts and figures kept under their hashes.",
    invoke_without_command=True,
    no_args_is_help=False,
)

_Study = Annotated[str, typer.Option("--study", metavar="NAME", help="Study that it belongs to.")]
_OneStudy = Annotated[str, typer.Option("--study", metavar="NAME", help="Only entries of this study.")]


@log_app.callback()
def show_log(
    context: typer.Context,
    study: _OneStudy = "",
    lab: options.Lab = None,
    form: options.Format = None,
    json: options.Json = False,
) -> None:
    """List the entries of the lab book, the newest last."""
    if context.invoked_subcommand is not None:
        if study or lab is not None or form is not None or json:
            raise UsageError(
                "options must follow the subcommand", hint=f"cerank log {context.invoked_subcommand} --lab"
            )
        return
    list_entries(study, lab, form, json)


@log_app.command("add")
def add(
    text: Annotated[
        str, typer.Argument(metavar="[TEXT]", help='Text in Markdown; "-" reads it from standard input.')
    ] = "",
    file: Annotated[
        Path | None, typer.Option("--file", metavar="FILE", help="Take the text from this Markdown file.")
    ] = None,
    title: Annotated[
        str, typer.Option("--title", metavar="TEXT", help="Title. Default: the first line of the text.")
    ] = "",
    study: _Study = "main",
    run: Annotated[
        list[str] | None, typer.Option("--run", metavar="RUN", help="Keep the verdicts of this run (repeatable).")
    ] = None,
    plan: Annotated[
        list[str] | None,
        typer.Option("--plan", metavar="PLAN", help="Keep a declared plan, by title or hash (repeatable)."),
    ] = None,
    figure: Annotated[
        list[Path] | None,
        typer.Option("--figure", metavar="FILE", help="Keep a figure: svg, png or jpg (repeatable)."),
    ] = None,
    lab: options.Lab = None,
) -> None:
    """Write an entry: text in Markdown, with verdicts of runs, declared plans and figures under their hashes.

    An entry is a Markdown file in the lab. cerank never changes it; what changed since is named when it is shown.
    """
    from cerank.app.lab_book import book_entries

    settings = settings_of(lab)
    if text and file is not None:
        raise UsageError("the text is given twice", where="--file", hint="leave out one of the two", code="two-texts")
    if text == "-":
        text = sys.stdin.read()
    if file is not None:
        try:
            text = file.expanduser().read_text(encoding="utf8")
        except (OSError, UnicodeDecodeError) as error:
            raise UsageError(f"cannot read it: {error}", where=str(file)) from error
    new = book_entries.NewEntry(
        text=text,
        title=title,
        study=study,
        runs=tuple(run or ()),
        plans=tuple(plan or ()),
        figures=tuple(figure or ()),
    )
    written = book_entries.add(settings.lab, new, datetime.now(UTC))
    write_output(f"{written.id}\n")
    pins = book_entries.pins_in_words(written.entry)
    info(
        f"Wrote '{written.entry.title}' into the lab book, study {written.entry.study}"
        + (f", with {pins}." if pins else ".")
    )


@log_app.command("list")
def list_entries(
    study: _OneStudy = "", lab: options.Lab = None, form: options.Format = None, json: options.Json = False
) -> None:
    """List the entries of the lab book, the newest last."""
    from cerank.app.lab_book import book_entries

    settings = settings_of(lab, form=form, json=json)
    emit(book_entries.list_table(settings.lab, study), settings.format)


@log_app.command("show")
def show_entry(
    name: Annotated[str, typer.Argument(metavar="ENTRY", help="Its id, title, or a part of its id.")],
    lab: options.Lab = None,
) -> None:
    """Show an entry as Markdown, and whether what it keeps is still the same."""
    from cerank.app.lab_book import book_entries
    from cerank.runs import lab_book

    settings = settings_of(lab)
    write_output(book_entries.as_markdown(settings.lab, lab_book.find(settings.lab, name)))


@log_app.command("export")
def export(
    output: Annotated[Path, typer.Argument(metavar="FILE", help="HTML file to write.")],
    study: _OneStudy = "",
    replace: Annotated[bool, typer.Option("--replace", help="Overwrite the file if it exists.")] = False,
    lab: options.Lab = None,
) -> None:
    """Write the lab book, or one study of it, as one HTML page with its figures in it."""
    from cerank.app.comparison import export_comparison
    from cerank.app.lab_book import book_page

    settings = settings_of(lab)
    path = export_comparison.save(book_page.page(settings.lab, study, datetime.now(UTC)), output, replace=replace)
    info(f"Wrote {path}")
