from __future__ import annotations

import contextlib
import json
from pathlib import Path

import pytest

from cerank.errors import FormatError, UsageError
from cerank.teachers import prompts
from cerank.teachers.prompts import Template
from tests.refusals import refused

# Written by rank_llm 0.25.7 itself (its inference handlers, with its own templates; Apache-2.0).
_CASES = json.loads((Path(__file__).parent / "rank_llm_prompts.json").read_text())


@pytest.mark.parametrize("case", _CASES, ids=lambda case: f"{case['template']}-{len(case['passages'])}")
def test_a_prompt_equals_rank_llm_byte_for_byte(case: dict[str, object]) -> None:
    kind = "first" if case["template"] == "first" else "listwise"
    template = prompts.load(str(case["template"]), kind)
    passages = [prompts.clean_passage(text, 300) for text in case["passages"]]  # type: ignore[attr-defined]
    messages = prompts.fill(template, str(case["query"]), passages)
    assert [{"role": message.role, "content": message.content} for message in messages] == case["messages"]


def test_setwise_and_pairwise_prompts_are_those_of_llm_rankers() -> None:
    setwise = prompts.fill(prompts.load("setwise", "setwise"), "a query", ["one", "two"])
    assert [message.content for message in setwise] == [
        'Given a query "a query", which of the following passages is the most relevant one to the query?\n\n'
        'Passage A: "one"\n\nPassage B: "two"\n\n'
        "Output only the passage label of the most relevant passage:"
    ]
    pairwise = prompts.fill(prompts.load("pairwise", "pairwise"), "a query", ["one", "two"])
    assert pairwise[0].content == (
        'Given a query "a query", which of the following two passages is more relevant to the query?\n\n'
        'Passage A: "one"\n\nPassage B: "two"\n\nOutput Passage A or Passage B:'
    )


def test_every_shipped_template_loads_for_its_own_kind_and_no_other() -> None:
    for name in prompts.shipped():
        fitting = []
        for kind in ("listwise", "first", "setwise", "pairwise", "pointwise", "graded", "queries"):
            with contextlib.suppress(UsageError):
                fitting.append(prompts.load(name, kind).kind)
        assert len(fitting) == 1, name


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ('kind = "listwise"\nprefix = "{query}"\nbody = "{rank}"', "body: {candidate}"),
        ('kind = "listwise"\nbody = "{rank} {candidate}"', "prefix: {query}"),
        ('kind = "listwise"\nprefix = "{query} {docs}"\nbody = "{rank} {candidate}"', "prefix: {docs}"),
        ('kind = "listwise"\nprefix = "{query} {"\nbody = "{rank} {candidate}"', "prefix:"),
        ('kind = "graded"\nbody = "{query}"', "body: {passage}"),
        ('kind = "listwise"\nidentifiers = "letters"\nprefix = "{query}"\nbody = "{rank} {candidate}"', "identifiers:"),
    ],
)
def test_a_template_with_wrong_placeholders_is_refused(text: str, what: str, tmp_path: Path) -> None:
    path = tmp_path / "own.toml"
    path.write_text(text)
    with refused(FormatError, "wrong-template", *what.split()):
        prompts.load(str(path), "listwise")


def test_the_hash_of_a_template_changes_with_its_text() -> None:
    first = Template(kind="listwise", prefix="{query}", body="{rank} {candidate}")
    assert first.sha256 != Template(kind="listwise", prefix="{query} ", body="{rank} {candidate}").sha256
