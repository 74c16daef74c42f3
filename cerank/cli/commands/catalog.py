"""Commands that list recipes, losses, datasets, base models and settings."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from cerank import recipes
from cerank.cli import options
from cerank.cli.command_class import CommandLine
from cerank.cli.commands.start_run import settings_of
from cerank.cli.output import Column, Table, check_new, emit, info, write_output
from cerank.errors import UsageError, os_error
from cerank.recipes.loss_specs import LOSSES
from cerank.settings import Flags, resolve
from cerank.text.table_data import key_value_table

if TYPE_CHECKING:
    from cerank.datasets.open_datasets import DatasetDescription

recipes_app = CommandLine(
    no_args_is_help=True, help="Recipes: TOML files that say what to fine-tune, on what data, in which stages."
)
config_app = CommandLine(no_args_is_help=True, help="Settings: their values, and where each comes from.")

_Name = Annotated[str, typer.Argument(metavar="RECIPE", help="Recipe: a shipped name or a .toml file.")]


@recipes_app.command("list")
def list_recipes(form: options.Format = None, json: options.Json = False) -> None:
    """List the recipes that come with cerank."""
    shipped = [recipes.load(name).recipe for name in recipes.shipped()]
    columns = (
        Column("recipe", "recipe"),
        Column("chain", "chain", priority=1),
        Column("base", "base", priority=2),
        Column("description", "what"),
    )
    rows = tuple((recipe.name, " > ".join(recipe.chain), recipe.base, recipe.description) for recipe in shipped)
    emit(Table("recipes", columns, rows), settings_of(form=form, json=json).format)


@recipes_app.command("matrices")
def list_matrices(form: options.Format = None, json: options.Json = False) -> None:
    """List the matrices that come with cerank, for `cerank run --matrix`.

    A matrix is a set of runs: every recipe with every base model and every seed.
    """
    matrixes = [recipes.load_matrix(name).matrix for name in recipes.shipped_matrices()]
    keys = ("matrix", "recipes", "bases", "seeds", "test", "first_stages", "description")
    headings = ("matrix", "recipes", "bases", "seeds", "test", "first stages", "what")
    going = {"seeds": 1, "first_stages": 2, "test": 3, "bases": 4, "recipes": 5}
    columns = tuple(
        Column(key, heading, priority=going.get(key, 0)) for key, heading in zip(keys, headings, strict=True)
    )
    rows = tuple(
        (
            matrix.name,
            ", ".join(matrix.recipes),
            ", ".join(matrix.bases),
            ", ".join(map(str, matrix.seeds)),
            ", ".join(matrix.test),
            ", ".join(matrix.first_stages),
            matrix.description,
        )
        for matrix in matrixes
    )
    emit(Table("matrices", columns, rows), settings_of(form=form, json=json).format)


@recipes_app.command("show")
def show_recipe(
    name: _Name,
    full: Annotated[bool, typer.Option("--full", help="Show every key, with its meaning and its default.")] = False,
    set_: options.Set = None,
) -> None:
    """Print a recipe as TOML, including what it inherits by `extends`."""
    write_output(recipes.render(recipes.load(name, set_ or ()).recipe, full=full))


@recipes_app.command("check")
def check_recipe(name: _Name, set_: options.Set = None) -> None:
    """Check a recipe without opening any data, and list all its errors at once."""
    from cerank.app.plans import checked

    recipe = checked(recipes.load(name, set_ or ()).recipe)
    info(f"{recipe.name}: valid; {' > '.join(recipe.chain)} on {recipe.base}")


@recipes_app.command("new")
def new_recipe(
    path: Annotated[Path, typer.Argument(metavar="FILE.toml", help="File to write.")],
    replace: options.Replace = False,
) -> None:
    """Write a new recipe file to start from."""
    if path.suffix != ".toml":
        raise UsageError("a recipe's name ends in .toml", where=str(path))
    check_new(path, replace=replace)
    try:
        path.write_text(recipes.template(path.stem), encoding="utf8")
    except OSError as error:
        raise os_error(error, path, UsageError, doing="cannot write the file") from None
    write_output(f"{path}\n")


@recipes_app.command("losses")
def list_losses(form: options.Format = None, json: options.Json = False) -> None:
    """List the losses a stage can use, and what each learns from."""
    columns = (
        Column("loss", "loss", "name"),
        Column("sources", "learns from"),
        Column("takes", "targets", priority=1),
        Column("pools", "pools pairs", priority=2),
        Column("options", "options", priority=3),
        Column("description", "what"),
    )
    rows = tuple(
        (
            loss.name,
            ", ".join(loss.sources),
            ", ".join(loss.takes),
            "yes" if loss.has_pairs else "no",
            ", ".join(f"{name} = {default}" if default is not None else name for name, default in loss.options),
            loss.description,
        )
        for loss in LOSSES.values()
    )
    emit(Table("losses", columns, rows), settings_of(form=form, json=json).format)


def datasets(
    name: Annotated[
        str, typer.Argument(metavar="[DATASET]", help="Dataset to describe, with its counts. Default: list all.")
    ] = "",
    search: Annotated[
        str, typer.Option("--search", metavar="WORDS", help="Find ir_datasets ids that contain these words.")
    ] = "",
    cache: options.Cache = None,
    form: options.Format = None,
    json: options.Json = False,
) -> None:
    """List datasets, search the ids of ir_datasets, or describe one dataset."""
    from cerank.datasets import open_datasets as known

    settings = settings_of(cache=cache, form=form, json=json)
    if name:
        description = known.describe(name, settings.cache)
        emit(_dataset_table(description), settings.format)
        if not description.judgments:
            info(f"{description.name} has no relevance judgments, so nothing can be measured with it")
        return
    dataset_entries = known.search(search) if search else known.catalog()
    columns = (Column("dataset", "dataset"), Column("description", "what"))
    emit(
        Table("datasets", columns, tuple((entry.name, entry.description) for entry in dataset_entries)), settings.format
    )
    if not search:
        info("You can also use any ir_datasets id (`cerank datasets --search msmarco`) or a folder of your own.")


def _dataset_table(description: DatasetDescription) -> Table:
    """Return all that can be said of a dataset."""
    grades = ", ".join(f"{grade}: {count}" for grade, count in description.grades)
    rows = [
        ("dataset", description.name),
        ("what", description.description),
        ("where", description.location),
        ("documents", str(description.documents)),
        ("queries", str(description.queries)),
        ("judgments", f"{description.judgments} ({grades})" if grades else "0"),
        ("judged without text", str(description.judged_without_text)),
        ("runs", ", ".join(description.runs) or "none"),
        ("fingerprint", description.fingerprint),
    ]
    return key_value_table("dataset", rows)


def bases(
    name: Annotated[
        str,
        typer.Argument(
            metavar="[BASE]", help="Base to describe: a name, hub id, folder or declaration. Default: list the names."
        ),
    ] = "",
    pooling: Annotated[
        Literal["auto", "product", "mean", "classifier"],
        typer.Option("--pooling", help="Pooling to describe the base with, as a recipe sets it."),
    ] = "auto",
    form: options.Format = None,
    json: options.Json = False,
) -> None:
    """List the base models that have a short name, or say how one base is read.

    Any Hugging Face id and any folder with a model can be used as a base model, too. What cerank makes of it is what
    `cerank bases FOLDER` prints: its family, the tokens of an example pair, and how a score comes from them.
    """
    from cerank.models.bases import BASES, is_on_this_machine

    if name:
        from cerank.models.describe_model import describe

        described = (Column("property", "property"), Column("value", "value"))
        emit(Table("base", described, describe(name, pooling), name), settings_of(form=form, json=json).format)
        return
    columns = (
        Column("base", "base"),
        Column("hub_id", "hub id"),
        Column("parameters", "parameters", priority=1),
        Column("pooling", "pooling", priority=3),
        Column("license", "license", priority=2),
        Column("here", "on this disk"),
    )
    rows = tuple(
        (
            base.name,
            base.hub_id,
            base.parameters,
            base.pooling,
            base.license,
            "yes" if is_on_this_machine(base) else "no",
        )
        for base in BASES.values()
    )
    emit(Table("bases", columns, rows), settings_of(form=form, json=json).format)


@config_app.command("show")
def show_config(
    lab: options.Lab = None,
    cache: options.Cache = None,
    device: options.Device = None,
    threads: options.Threads = None,
    form: options.Format = None,
    json: options.Json = False,
) -> None:
    """Show the value of each setting and where it comes from."""
    flags = Flags(lab=lab, cache=cache, device=device, threads=threads, format="json" if json else form)
    resolved = resolve(flags, os.environ, Path.cwd())
    columns = (Column("setting", "setting"), Column("value", "value"), Column("source", "source"))
    rows = tuple((entry.key, entry.value, entry.source) for entry in resolved.entries)
    emit(Table("settings", columns, rows), resolved.settings.format)
