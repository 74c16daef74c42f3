from __future__ import annotations

import json
import os
import re
import shutil
from datetime import UTC, datetime
from pathlib import Path

import pytest
from typer.testing import CliRunner

from cerank.app.plans import plan_of
from cerank.cli.typer_app import app
from cerank.datasets.open_datasets import open_dataset
from cerank.errors import RecipeError, RunFailedError, UsageError
from cerank.files import disk
from cerank.recipes.recipe_checks import recipe_from
from cerank.settings import Settings
from cerank.teachers.parsing.written_queries import read_query
from tests.model_fixtures import write_tiny
from tests.refusals import refused
from tests.teachers.scripted_server import Reply, ScriptedServer, completion
from tests.worker.small import STAGE, write_dataset


def _passage(body: dict[str, object]) -> str:
    found = re.search(r"Passage: (.*)\n\nQuery:", json.dumps(body["messages"]).replace("\\n", "\n"))
    assert found is not None
    return found[1]


def _first_words(body: dict[str, object], _times: int) -> Reply:
    """Writes the passage's first words as its query; of some passages nothing, or words of no passage."""
    words = _passage(body).split()
    if len(words) % 5 == 0:
        return completion("Sorry, I cannot write a query for this.")
    if len(words) % 5 == 1:
        return completion(f'Query: "zzz {words[0][:1]}zz{len(words)}"')
    return completion(f'<think>what is it about?</think>\nQuery: "{" ".join(words[:6])}"')


@pytest.fixture
def room(tmp_path: Path) -> Path:
    write_dataset(tmp_path / "collection")
    return tmp_path


def _recipe(room: Path, server: ScriptedServer, more: str = "max_failures = 1.0") -> Path:
    path = room / "recipe.toml"
    path.write_text(
        f'extends = "distill"\nname = "x"\n[teachers.writer]\nkind = "queries"\nmodel = "m"\n'
        f'server = "{server.url}"\n{more}\n[teachers.zephyr]\nkind = "listwise"\nmodel = "m"\nserver = "{server.url}"\n'
    )
    return path


def _synthesize(room: Path, server: ScriptedServer, *arguments: str, **recipe: str) -> tuple[int, str, str]:
    given = {"--teacher": "writer", "--into": str(room / "made"), "--count": "40", "--min-words": "4"}
    listed = list(arguments)
    chosen = [text for key, value in given.items() if key not in arguments for text in (key, value)]
    result = CliRunner().invoke(
        app,
        ["data", "synthesize", str(room / "collection"), "-r", str(_recipe(room, server, **recipe)), *chosen, *listed,
         "--lab", str(room / "lab"), "--cache", str(room / "cache")],
        env=dict(os.environ),
    )  # fmt: skip
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.exit_code, result.stdout, result.stderr


def test_queries_that_lead_back_to_their_passage_become_a_dataset_to_train_on(room: Path) -> None:
    with ScriptedServer(_first_words) as server:
        code, out, _ = _synthesize(room, server, "--dry-run")
        assert (code, server.bodies) == (0, [])
        assert "41" in out  # forty passages, and one small call before
        code, out, err = _synthesize(room, server, "--round-trip", "3", "--json")
        assert code == 0, err
        assert len(server.bodies) == 41
        shutil.rmtree(room / "made")
        assert _synthesize(room, server, "--round-trip", "3")[0] == 0
        assert len(server.bodies) == 41  # nothing is asked twice
    facts = json.loads((room / "made" / "synthetic.json").read_text())
    assert facts["passages"] == 40
    assert facts["failed"]["unreadable"] > 0
    assert facts["not_found"] > 0
    assert sum(facts["failed"].values()) + facts["known"] + facts["repeated"] + facts["not_found"] + facts["kept"] == 40
    assert facts["place"] == server.url
    dataset = open_dataset(str(room / "made"), room / "cache")
    texts = open_dataset(str(room / "collection"), room / "cache").documents
    assert len(dataset.queries) == facts["kept"] > 5
    for query, text in dataset.queries.items():
        ((doc, grade),) = dataset.qrels[query].items()
        assert (texts.text(doc).split()[:6], grade) == (text.split(), 1)
    assert dataset.documents.fingerprint() == texts.fingerprint()


@pytest.mark.slow
def test_a_collection_needs_no_queries(room: Path) -> None:
    for name in ("queries.tsv", "qrels"):
        (room / "collection" / name).unlink()
    with ScriptedServer(_first_words) as server:
        assert _synthesize(room, server)[0] == 0
    assert len(open_dataset(str(room / "made"), room / "cache").queries) > 5


def test_a_query_that_people_asked_is_dropped(room: Path) -> None:
    known = (room / "collection" / "queries.tsv").read_text().splitlines()[0].split("\t")[1]

    def script(_body: dict[str, object], _times: int) -> Reply:
        return completion(known.upper())

    with ScriptedServer(script) as server, refused(RunFailedError, "nothing-synthesized"):
        _synthesize(room, server)
    assert not (room / "made").exists()


def test_the_folder_is_marked_from_its_first_moment_on(room: Path) -> None:
    unmarked: list[str] = []

    def look(name: str, path: Path) -> None:
        if (room / "made").exists() and not (room / "made" / "synthetic.json").exists():
            unmarked.append(f"{name} {path}")

    with ScriptedServer(_first_words) as server, disk.observe(look):
        assert _synthesize(room, server, "--round-trip", "0")[0] == 0
    assert unmarked == []
    assert (room / "made" / "synthetic.json").exists()


@pytest.mark.slow
def test_a_cap_stops_it_and_the_same_command_continues(room: Path) -> None:
    with ScriptedServer(_first_words) as server:
        assert _synthesize(room, server, "--max-calls", "10")[0] == 75
        assert (len(server.bodies), (room / "made").exists()) == (10, False)
        assert _synthesize(room, server)[0] == 0
        assert len(server.bodies) == 41


def test_synthetic_queries_train_and_validate_and_are_refused_as_a_test(room: Path) -> None:
    with ScriptedServer(_first_words) as server:
        assert _synthesize(room, server)[0] == 0
    made = str(room / "made")
    base = str(write_tiny(room / "base").folder)
    apart = str(write_dataset(room / "apart", seed=8))
    settings = Settings(lab=room / "lab", cache=room / "cache", device="cpu", threads=1, format="")

    def plan(**data: object):
        values = {
            "name": "x", "base": base, "pooling": "mean", "chain": ["contrastive"], "stages": {"contrastive": STAGE},
            "force": ["shared_queries"],
            "data": {"train": f"{made}[:50%]", "validation": f"{made}[50%:]", "test": [apart], **data},
        }  # fmt: skip
        return plan_of(recipe_from(values, "test"), settings, now=datetime(2026, 1, 2, tzinfo=UTC))

    assert plan().recipe.data.train.startswith(made)
    with refused(RecipeError, "synthetic-test", made):
        plan(test=[f"{made}[50%:]"], validation=apart)


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (("--teacher", "zephyr"), "teacher-without-queries"),
        (("--into", "collection"), "folder-exists"),
        (("--min-words", "5000"), "usage"),
        (("--first-stage", "bm52"), "round-trip-first-stage"),
    ],
)
def test_what_cannot_be_synthesized_is_refused_before_anything_is_asked(
    arguments: tuple[str, str], code: str, room: Path
) -> None:
    key, value = arguments
    with ScriptedServer(_first_words) as server:
        with refused(UsageError, code):
            _synthesize(room, server, key, str(room / value) if key == "--into" else value)
        assert server.bodies == []


def test_the_first_stage_of_the_round_trip_is_checked_in_a_dry_run_and_only_if_it_is_needed(room: Path) -> None:
    run = str(room / "bm25.run")  # of other queries
    with ScriptedServer(_first_words) as server:
        with refused(UsageError, "round-trip-first-stage", run):
            _synthesize(room, server, "--first-stage", run, "--dry-run")
        assert _synthesize(room, server, "--first-stage", run, "--round-trip", "0", "--dry-run")[0] == 0


@pytest.mark.parametrize(
    ("text", "query"),
    [
        ("is coffee safe", "is coffee safe"),
        ("Query: is coffee safe", "is coffee safe"),
        ('1. "is coffee safe?"', "is coffee safe?"),
        ("Sure! Here is a query:\n\n**is coffee safe**", "is coffee safe"),
        ("Relevant Query: is coffee\tsafe", "is coffee safe"),
        ("<think>Query: no\n</think>\nis coffee safe\nis tea safe", "is coffee safe"),
        ("```\nis coffee safe\n```", "is coffee safe"),
        ("", ""),
        ("...", ""),
        ("Here is a query: how long does caffeine last", "how long does caffeine last"),
        ("Sure! Here’s a relevant search query: **what is x**", "what is x"),
        ("Query 1: what is x", "what is x"),
        ("**Query**: what is x", "what is x"),
        ("query languages: which is oldest", "query languages: which is oldest"),
        ("I can't sleep after drinking coffee", "I can't sleep after drinking coffee"),
        ("Sorry symptoms of caffeine", "Sorry symptoms of caffeine"),
        ("I can't help falling in love lyrics", "I can't help falling in love lyrics"),
        ("I'm sorry, but I can't help with that.", ""),
        ("Sorry, but the passage is empty.", ""),
        ("I’m unable to write one.", ""),
        ("I am unable to generate a query", ""),
        ("Unfortunately, I cannot provide a query.", ""),
        ("As an AI language model, I have no questions.", ""),
        ("word " * 50, ""),
    ],
)
def test_the_query_is_taken_out_of_what_is_said_around_it(text: str, query: str) -> None:
    assert read_query(text) == query
