"""Settings: flag, environment, project file, user file, default, in this order; each value knows its source."""

from __future__ import annotations

from pathlib import Path

import pytest

from cerank.errors import CerankError, FormatError, UsageError
from cerank.settings import Flags, Resolved, resolve, user_file


@pytest.fixture
def cwd(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working folder of a person whose home and user folders are empty too."""
    home = tmp_path / "home"
    monkeypatch.setenv("HOME", str(home))
    for name, folder in (("CONFIG", "config"), ("DATA", "data"), ("CACHE", "cache")):
        monkeypatch.setenv(f"XDG_{name}_HOME", str(home / folder))
    folder = tmp_path / "work"
    folder.mkdir()
    return folder


def write_user_file(text: str) -> Path:
    path = user_file()
    path.parent.mkdir(parents=True)
    path.write_text(text, encoding="utf-8")
    return path


def sources(resolved: Resolved) -> dict[str, str]:
    return {entry.key: entry.source for entry in resolved.entries}


NONE = Flags()


def refused(
    cwd: Path, flags: Flags = NONE, environ: dict[str, str] | None = None, kind: type[CerankError] = UsageError
) -> CerankError:
    with pytest.raises(kind) as caught:
        resolve(flags, environ or {}, cwd)
    return caught.value


def test_nothing_said_gives_the_defaults(cwd: Path) -> None:
    resolved = resolve(Flags(), {}, cwd)
    settings = resolved.settings
    assert settings.lab.is_absolute()
    assert settings.lab.name == settings.cache.name == "cerank"
    assert settings.lab != settings.cache
    assert (settings.device, settings.threads, settings.format) == ("auto", 0, "")
    assert set(sources(resolved).values()) == {"default"}


def test_several_devices_are_a_number_or_a_text_in_a_file_and_not_the_folder_of_locks(cwd: Path) -> None:
    environ = {"CERANK_DEVICES": "/folder/of/locks"}
    assert resolve(Flags(), environ, cwd).settings.devices == ""
    (cwd / "cerank.toml").write_text("devices = 2\n")
    assert resolve(Flags(), environ, cwd).settings.devices == "2"
    (cwd / "cerank.toml").write_text('devices = "0,1"\n')
    assert resolve(Flags(), environ, cwd).settings.devices == "0,1"
    assert resolve(Flags(devices="all"), environ, cwd).settings.devices == "all"


def test_each_source_wins_over_those_after_it_and_is_named(cwd: Path) -> None:
    own = write_user_file('lab = "u"\ncache = "u"\ndevice = "mps"\nthreads = 5\n')
    project = cwd / "cerank.toml"
    project.write_text('# ours\nlab = "p"\ncache = "p"\ndevice = "cuda:1"\n')
    environ = {"CERANK_LAB": "e", "CERANK_CACHE": "e"}
    resolved = resolve(Flags(lab="f"), environ, cwd)
    assert sources(resolved) == {
        "lab": "--lab",
        "cache": "CERANK_CACHE",
        "device": f"{project}:4",
        "threads": f"{own}:4",
        "format": "default",
        "executor": "default",
        "devices": "default",
        "hour_price": "default",
    }
    settings = resolved.settings
    assert (settings.lab, settings.cache, settings.device, settings.threads) == (cwd / "f", cwd / "e", "cuda:1", 5)
    assert [entry.value for entry in resolved.entries] == [
        str(cwd / "f"),
        str(cwd / "e"),
        "cuda:1",
        "5",
        "",
        "local",
        "",
        "0",
    ]


def test_a_relative_path_in_a_file_starts_from_the_files_folder(cwd: Path) -> None:
    own = write_user_file('lab = "runs"\ncache = "~/c"\n')
    settings = resolve(Flags(), {}, cwd).settings
    assert settings.lab == own.parent / "runs"
    assert settings.cache == cwd.parent / "home" / "c"


def test_an_empty_variable_says_nothing(cwd: Path) -> None:
    assert resolve(Flags(), {"CERANK_LAB": "", "CERANK_THREADS": ""}, cwd).settings.threads == 0


def test_an_empty_format_in_a_file_asks_for_the_automatic_one(cwd: Path) -> None:
    (cwd / "cerank.toml").write_text('format = ""')
    assert resolve(Flags(), {}, cwd).settings.format == ""


def test_threads_are_read_from_the_environment_as_a_number(cwd: Path) -> None:
    assert resolve(Flags(), {"CERANK_THREADS": "3"}, cwd).settings.threads == 3


@pytest.mark.parametrize("text", ["x", "-1", "1.5", "٣", "9" * 50, "5000"])
def test_a_number_that_is_none_or_too_large_is_refused(cwd: Path, text: str) -> None:
    error = refused(cwd, environ={"CERANK_THREADS": text})
    assert error.where == "CERANK_THREADS"
    assert error.what.startswith("threads: expected 'int'")


@pytest.mark.parametrize(
    ("flags", "where", "what"),
    [
        (Flags(device="gpu"), "--device", "device: no device is called 'gpu'; did you mean 'cuda'?"),
        (Flags(device="GPU:1"), "--device", "device: no device is called 'GPU:1'; did you mean 'cuda:1'?"),
        (Flags(device="0"), "--device", "device: no device is called '0'; did you mean 'cuda:0'?"),
        (Flags(device="cuda:x"), "--device", "device: no device is called 'cuda:x'; did you mean"),
        (Flags(format="tex"), "--format", "format: no format is called 'tex'"),
        (Flags(format="markdwn"), "--format", "format: no format is called 'markdwn'; did you mean 'markdown'?"),
        (Flags(threads=-1), "--threads", "threads: expected 'int' >= 0"),
        (Flags(lab=""), "--lab", "lab: not the path of a folder"),
        (Flags(lab="\udcff"), "--lab", "lab: not UTF-8 text"),
    ],
)
def test_a_wrong_flag_is_refused_by_its_name(cwd: Path, flags: Flags, where: str, what: str) -> None:
    error = refused(cwd, flags)
    assert error.where == where
    assert error.what.startswith(what)


def test_a_wrong_file_is_refused_with_its_line_even_where_a_flag_would_win(cwd: Path) -> None:
    path = cwd / "cerank.toml"
    path.write_text('lab = "x"\nlba = "y"\nthreads = "many"\n')
    error = refused(cwd, Flags(threads=1))
    assert error.where == f"{path}:2"
    assert error.what.split("\n") == [
        "lba: unknown key; did you mean 'lab'?",
        "threads: expected 'int', got 'str'; given: 'many'",
    ]


def test_a_file_that_is_no_toml_is_refused_with_its_line(cwd: Path) -> None:
    (cwd / "cerank.toml").write_text("lab = 'x'\nlab\n")
    assert refused(cwd, kind=FormatError).where == f"{cwd / 'cerank.toml'}:2"


def test_a_folder_in_place_of_the_file_is_refused(cwd: Path) -> None:
    (cwd / "cerank.toml").mkdir()
    assert refused(cwd).what.startswith("cannot read the settings")


def test_an_unknown_home_is_refused(cwd: Path) -> None:
    assert refused(cwd, Flags(lab="~nobody-of-this-name/x")).where == "--lab"


def test_the_price_of_an_hour_comes_from_a_file_or_the_environment_and_is_a_number(cwd: Path) -> None:
    (cwd / "cerank.toml").write_text("hour_price = 2\n")
    assert resolve(Flags(), {}, cwd).settings.hour_price == 2.0
    assert resolve(Flags(), {"CERANK_HOUR_PRICE": "2.5"}, cwd).settings.hour_price == 2.5
    for wrong in ("-1", "much"):
        assert "hour_price" in str(refused(cwd, environ={"CERANK_HOUR_PRICE": wrong}))
