"""What the user sets once, for every command: where runs and caches live, the device, threads, the output's format.

Invariant: each value comes from the first of flag, environment, project file, user file and default that gives it,
and says which it was. Nothing here is part of a plan before `lab` puts it there.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import msgspec

from cerank.core import decode
from cerank.core.decode import help_text
from cerank.errors import UsageError, os_error
from cerank.files.safe_open import read_file
from cerank.registry import nearest

FORMATS = ("table", "tsv", "csv", "json", "jsonl", "latex", "markdown")
FILE = "cerank.toml"  # in the working folder, and in the user's configuration folder
PREFIX = "CERANK_"

_Threads = Annotated[int, msgspec.Meta(ge=0, le=4096)]
_Price = Annotated[float, msgspec.Meta(ge=0.0, le=10.0**6)]


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """Every setting with its value."""

    lab: Path  # the folder of runs
    cache: Path  # the folder of indexes and built datasets; may be emptied at any time
    device: str  # "auto", "cpu", "cuda", "cuda:N" or "mps"
    threads: int  # CPU threads of the model; 0 takes all physical cores
    format: str  # one of FORMATS; "" takes table on a terminal and tsv elsewhere
    executor: str = "local"  # what starts workers; an extension may add others
    devices: str = ""  # "all", how many, or which, such as "0,1"; "" is one device
    hour_price: float = 0.0  # what an hour of the device costs, in any currency; 0 where it has no price
    executors: dict[str, dict[str, Any]] = {}  # the tables [executors.NAME], as files have them


class Flags(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The settings that one source gives, such as the command line; None where it gives none."""

    lab: Annotated[str | None, help_text("folder of runs")] = None
    cache: Annotated[str | None, help_text("folder of indexes and built datasets; may be emptied at any time")] = None
    device: Annotated[str | None, help_text("auto, cpu, cuda, cuda:N or mps")] = None
    threads: Annotated[_Threads | None, help_text("CPU threads; 0 takes all physical cores")] = None
    format: Annotated[str | None, help_text("format of tables; default: table on a terminal, else tsv")] = None
    executor: Annotated[
        str | None, help_text("where runs are carried out: local, slurm, ray, command, or a name of your own")
    ] = None
    devices: Annotated[str | None, help_text("devices of a run: all, how many, or which, as in 0,1; empty: one")] = None
    hour_price: Annotated[_Price | None, help_text("money that an hour of the device costs; 0 shows no money")] = None
    executors: Annotated[
        dict[str, dict[str, Any]] | None, help_text("tables of options, one for each executor; only in files")
    ] = None


class Entry(msgspec.Struct, frozen=True):
    """One line of `cerank config show`."""

    key: str
    value: str
    source: str  # "--lab", "CERANK_LAB", a file and line, or "default"


class Resolved(msgspec.Struct, frozen=True):
    """The settings, and where each comes from, in the order of `Settings`."""

    settings: Settings
    entries: tuple[Entry, ...]


class _Layer(msgspec.Struct, frozen=True):
    """One source of settings."""

    flags: Flags
    sources: dict[str, str]  # setting -> where this layer says it
    folder: Path  # what a relative path is relative to


def default_lab() -> Path:
    """Return the lab of a user who names none, whether it exists or not."""
    import platformdirs

    return Path(platformdirs.user_data_dir("cerank"))


def user_file() -> Path:
    """Return the user's own settings file, whether it exists or not."""
    import platformdirs

    return platformdirs.user_config_path("cerank") / FILE


def resolve(flags: Flags, environ: Mapping[str, str], cwd: Path) -> Resolved:
    """Return the settings in force.

    Args:
        flags: the command line's; they win.
        environ: the environment; `CERANK_LAB` and so on. An empty variable says nothing.
        cwd: the absolute working folder, where the project's cerank.toml is looked for.

    Raises:
        UsageError: a wrong key or value in any source, even one that another overrides.
    """
    import platformdirs

    own = user_file()
    given = {key: value for key in _keys() if (value := getattr(flags, key)) is not None}
    layers = [
        _layer(given, cwd, {key: f"--{key}" for key in _keys()}),
        _layer(_from_environment(environ), cwd, {key: PREFIX + key.upper() for key in _keys()}),
        _file_layer(cwd / FILE),
        *([_file_layer(own)] if own != cwd / FILE else []),
        _Layer(
            Flags(
                lab=str(default_lab()),
                cache=platformdirs.user_cache_dir("cerank"),
                device="auto",
                threads=0,
                format="",
                executor="local",
                devices="",
                hour_price=0.0,
            ),
            dict.fromkeys(_keys(), "default"),
            cwd,
        ),
    ]
    chosen = {key: _first(key, layers) for key in _keys()}
    settings = Settings(
        lab=Path(str(chosen["lab"][0])),
        cache=Path(str(chosen["cache"][0])),
        device=str(chosen["device"][0]),
        threads=int(chosen["threads"][0]),
        format=str(chosen["format"][0]),
        executor=str(chosen["executor"][0]),
        devices=str(chosen["devices"][0]),
        hour_price=float(chosen["hour_price"][0]),
        executors=_merged_executors(layers),
    )
    entries = tuple(
        Entry(key, f"{value:g}" if isinstance(value, float) else str(value), source)
        for key, (value, source) in chosen.items()
    )
    entries += tuple(
        Entry(f"executors.{name}", ", ".join(f"{key} {_in_words(value)}" for key, value in table.items()), source)
        for name, (table, source) in _executor_sources(layers).items()
    )
    return Resolved(settings, entries)


def _keys() -> tuple[str, ...]:
    """Return the settings that have one value; the tables of executors are only in files."""
    return tuple(key for key in Flags.__struct_fields__ if key != "executors")


def _executor_sources(layers: list[_Layer]) -> dict[str, tuple[dict[str, Any], str]]:
    """Return each executor's table and where it is from; a project's table replaces the user's of the same name."""
    tables: dict[str, tuple[dict[str, Any], str]] = {}
    for layer in layers:
        for name, table in (layer.flags.executors or {}).items():
            tables.setdefault(name, (table, layer.sources.get("executors", "")))
    return tables


def _merged_executors(layers: list[_Layer]) -> dict[str, dict[str, Any]]:
    return {name: table for name, (table, _) in _executor_sources(layers).items()}


def _in_words(value: object) -> str:
    return "; ".join(map(str, value)) if isinstance(value, list) else str(value)


def _from_environment(environ: Mapping[str, str]) -> dict[str, object]:
    # CERANK_DEVICES is the folder of the locks on devices
    keys = [key for key in _keys() if key != "devices"]
    values: dict[str, object] = {key: text for key in keys if (text := environ.get(PREFIX + key.upper()))}
    threads = values.get("threads")
    if isinstance(threads, str) and re.fullmatch(r"-?[0-9]{1,9}", threads):
        values["threads"] = int(threads)
    price = values.get("hour_price")
    if isinstance(price, str) and re.fullmatch(r"-?([0-9]{1,9}(\.[0-9]*)?|\.[0-9]+)", price):
        values["hour_price"] = float(price)
    return values


def _layer(values: Mapping[str, object], folder: Path, sources: Mapping[str, str], fallback: str = "") -> _Layer:
    """Return one source's values after checking them.

    Raises:
        UsageError: all that is wrong in this source, with the place of the first mistake.
    """
    mistakes: list[str] = []
    flags = decode.decode_table(Flags, values, "", mistakes)
    mistakes += _mistakes_in(values)
    if flags is None or mistakes:
        where = sources.get(mistakes[0].partition(":")[0], fallback)
        raise UsageError("\n".join(mistakes), where=where, hint="`cerank config show` lists the settings")
    return _Layer(flags, dict(sources), folder)


def _mistakes_in(values: Mapping[str, object]) -> list[str]:
    """Return what is wrong with the values beyond their types."""
    mistakes = []
    for key in ("lab", "cache"):
        folder = values.get(key)
        if isinstance(folder, str) and (not folder or "\0" in folder):
            mistakes.append(f"{key}: not the path of a folder; given: {folder!r:.80}")
        elif isinstance(folder, str) and folder.startswith("ssh://"):
            mistakes.append(f"{key}: a folder on another machine can only be given as --lab; given: {folder!r:.80}")
    device = values.get("device")
    if isinstance(device, str) and (mistake := device_mistake(device)):
        mistakes.append(f"device: {mistake}")
    form = values.get("format")
    if isinstance(form, str) and form and form not in FORMATS:
        mistakes.append(f"format: no format is called '{form}'; {nearest(form, FORMATS)}")
    return mistakes


def device_mistake(name: str) -> str:
    """Return what is wrong with a device's name, "" for nothing; whether the machine has one is not asked."""
    if re.fullmatch(r"auto|cpu|mps|cuda(:[0-9]{1,3})?", name):
        return ""
    if re.fullmatch(r"(gpu|cuda)?[ :]?[0-9]{1,3}", name.lower()):
        hint = f"did you mean 'cuda:{int(re.sub(r'[^0-9]', '', name))}'?"
    elif name.lower() in {"gpu", "nvidia", "rocm", "hip"}:
        hint = "did you mean 'cuda'?"
    else:
        hint = nearest(name, ("auto", "cpu", "cuda", "cuda:0", "mps"))
    return f"no device is called '{name}'; {hint}"


def _file_layer(path: Path) -> _Layer:
    """Return what a settings file says; an empty layer where there is none."""
    try:
        source = read_file(path, decode.LARGEST_TOML + 1)
    except (FileNotFoundError, NotADirectoryError):
        return _Layer(Flags(), {}, path.parent)
    except OSError as error:
        raise os_error(error, path, UsageError, doing="cannot read the settings") from None
    values = decode.toml_table(source, str(path))
    if type(count := values.get("devices")) is int:
        values["devices"] = str(count)  # the number of devices, where a text may name them
    first_keys = list(values)[: decode.MOST_ERRORS]
    sources = {
        key: f"{path}:{decode.line_of(source, (key,))[0]}"
        for key in {*first_keys, *(values.keys() & set(Flags.__struct_fields__))}
    }
    return _layer(values, path.parent, sources, str(path))


def _first(key: str, layers: list[_Layer]) -> tuple[str | int | float, str]:
    """Return the value of the first layer that has one, a path made absolute, and the value's source."""
    for layer in layers:
        value = getattr(layer.flags, key)
        if value is None:
            continue
        if key in {"lab", "cache"}:
            value = str(layer.folder / _at_home(value, layer.sources[key]))
        return value, layer.sources[key]
    raise AssertionError(f"the defaults lack {key}")


def _at_home(text: str, where: str) -> Path:
    """Return `text` as a path with a leading `~` as the home folder."""
    try:
        return Path(text).expanduser()
    except RuntimeError:
        raise UsageError(f"no home folder is known for '{text}'", where=where, hint="give the whole path") from None
