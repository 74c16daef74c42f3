"""Access tokens stand in no file, log or screen: each way in is closed or redacted."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from cerank.app.run_views.label_runs import note
from cerank.cli.output import report_error
from cerank.core.decode import toml_table
from cerank.errors import CerankError, RunFailedError
from cerank.machine import process_environment
from cerank.recipes.loading import load
from cerank.text import safe_text
from cerank.text.safe_text import redacted, shown, token_at
from tests.refusals import refused
from tests.tui.labs import LabFolder

CANARY = "hf_" + "QwErTyUiOpAsDfGhJkLzXcVbNm12345678"[:34]  # the shape of a real one: hf_ and 34 letters or digits
PLAIN = "s3cr3t-value-without-any-shape-0123"  # known only as the value of a variable

SHAPES = [
    CANARY,
    "api_org_" + "a1B2" * 8,
    "ghp_" + "a1B2" * 9,
    "github_pat_" + "11ABCDEFG0" * 5,
    "glpat-" + "a1B2c3D4e5" * 2,
    "sk-proj-" + "a1B2c3D4" * 5,
    "xoxb-" + "1234567890-" * 3 + "abc",
    "AKIA" + "ABCDEFGH12345678",
    "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0NTY3ODkwIn0.dozjgNryP4J3jVmNHl0w5N_XgL0n3I9P",
]


@pytest.fixture(autouse=True)
def _known(monkeypatch: pytest.MonkeyPatch) -> None:
    """The environment holds a secret of no known shape; what a process knows of its own is kept, so it is cleared."""
    monkeypatch.setenv("WANDB_API_KEY", PLAIN)
    monkeypatch.setenv("HF_TOKEN", CANARY)
    safe_text.secret_values.cache_clear()


@pytest.fixture(autouse=True, scope="module")
def _forgotten() -> object:
    yield None
    safe_text.secret_values.cache_clear()


@pytest.mark.parametrize("token", [*SHAPES, PLAIN])
def test_a_token_of_every_real_shape_is_redacted_wherever_it_stands(token: str) -> None:
    for around in ("{}", "a {} b", "token={}", '"{}"', "Bearer {}\n", "x" * 1990 + " {}", "https://user:{}@host/path"):
        for made in (redacted(around.format(token)), shown(around.format(token)), shown(around.format(token), 20)):
            assert token not in made
            assert token[4:24] not in made
        assert token_at(around.format(token)) >= 0


@pytest.mark.parametrize(
    "honest",
    [
        "hf_model_name_of_some_length",
        "hf_short",
        "sk-learn",
        "a document about tokens, secrets and passwords",
        "https://host:8080/path@x",
        "MARCO_17_1234567_AKIABC",
        "0123456789abcdef" * 4,
        "eyJ.eyJ.x",
    ],
)
def test_honest_text_is_left_alone(honest: str) -> None:
    assert redacted(honest) == honest
    assert token_at(honest) == -1


def test_a_recipe_or_an_option_that_holds_a_token_is_refused_without_showing_it(tmp_path: Path) -> None:
    path = tmp_path / "a.toml"
    for source in (f'# my token: {CANARY}\nextends = "distill"\n', f'extends = "distill"\nbase = "{PLAIN}"\n'):
        path.write_text(source)
        with refused(CerankError, "access-token") as caught:
            load(str(path))
        assert str(path) in caught.value.where
        assert CANARY not in str(caught.value)
        assert PLAIN not in str(caught.value)
    with refused(CerankError, "recipe", "base") as caught:
        load("distill", overrides=[f"base={CANARY}"])
    assert CANARY not in str(caught.value)
    with refused(CerankError, "access-token"):
        toml_table(f"a = 1\nb = '{CANARY}'".encode(), "x")


def test_a_run_with_a_token_for_a_label_is_never_made_and_a_note_keeps_a_mark(tmp_path: Path) -> None:
    folder = LabFolder(tmp_path / "lab")
    with refused(CerankError, "access-token"):
        folder.run(f"label {CANARY}")
    run = folder.run("good")
    note(run, f"label {CANARY}", f"tag {CANARY}")
    assert not _found(tmp_path)


@pytest.mark.parametrize("words", [["--recipe", "distill", "--label"], ["--matrix", "ecir2025", "--name"]])
def test_a_token_as_a_label_is_refused_before_a_plan_is_shown(words: list[str], tmp_path: Path) -> None:
    from typer.testing import CliRunner

    from cerank.cli.typer_app import app

    names = [*words, CANARY, "--dry-run", "--lab", str(tmp_path / "lab"), "--cache", str(tmp_path / "cache")]
    done = CliRunner().invoke(app, ["run", *names])
    said = done.output + str(done.exception)
    assert "access token" in said
    assert done.exit_code
    assert CANARY[:12] not in done.output


def test_no_worker_is_given_a_token(monkeypatch: pytest.MonkeyPatch) -> None:
    names = ["HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "WANDB_API_KEY", "AWS_SECRET_ACCESS_KEY", "NVIDIA_API_KEY",
             "SLURM_JWT", "GITHUB_TOKEN", "OPENAI_API_KEY", "HF_TRUST_REMOTE_CODE", "LD_PRELOAD"]  # fmt: skip
    given = dict.fromkeys(names, CANARY)
    assert not process_environment.inherited_environment({**given, "PATH": "/bin"}).keys() & given.keys()


def test_an_error_on_a_terminal_shows_no_token(capsys: pytest.CaptureFixture[str]) -> None:
    report_error(RunFailedError(f"401 for {CANARY}", where=f"https://x:{CANARY}@host", hint=PLAIN))
    err = capsys.readouterr().err
    assert CANARY not in err
    assert PLAIN not in err
    assert safe_text.REDACTED in err


def _found(folder: Path) -> list[Path]:
    """Files under `folder` with a token in them."""
    secrets = (CANARY.encode(), PLAIN.encode())
    paths = [path for path in folder.rglob("*") if path.is_file()]
    return [path for path in paths if any(secret in path.read_bytes() for secret in secrets)]


@pytest.mark.slow
def test_a_worker_that_fails_with_a_token_in_its_error_leaves_none_behind(tmp_path: Path) -> None:
    """Faults of both kinds, thrown inside a real worker process, with the tokens in its environment."""
    folder = LabFolder(tmp_path / "lab")
    for kind in ("cerank.errors.RunFailedError", "ValueError"):
        run = folder.run(kind)
        module, _, name = f"builtins.{kind}".removeprefix("builtins.cerank").rpartition(".")
        raised = f"__import__({'cerank' + module!r}, fromlist=['x']).{name}" if kind != "ValueError" else "ValueError"
        program = (
            "import sys\nimport cerank.worker.pipeline as p\nimport cerank.worker.__main__ as w\n"
            f"def broken(*a, **k):\n    raise {raised}('no access with {CANARY} or {PLAIN}')\n"
            "p.carry_out = broken\n"
            f"sys.argv = ['w', {str(run.path)!r}]\nsys.exit(w.main())\n"
        )
        environ = {**os.environ, "HF_TOKEN": CANARY, "WANDB_API_KEY": PLAIN, "HF_HUB_OFFLINE": "1"}
        log = (run.path / "log.txt").open("wb")
        done = subprocess.run(
            [sys.executable, "-c", program], env=environ, stdout=log, stderr=subprocess.STDOUT, check=False
        )
        assert done.returncode == 1
        failure = json.loads(run.failure.read_bytes())
        assert safe_text.REDACTED in failure["what"]
        assert safe_text.REDACTED in run.log.read_text()
        assert safe_text.REDACTED in run.events.read_text()
    assert not _found(tmp_path)
