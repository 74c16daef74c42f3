from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from cerank.errors import RunFailedError
from cerank.recipes.sections.teacher_specs import TeacherSpec
from cerank.teachers import prompts
from cerank.teachers.engines.local_model import counter_of
from cerank.teachers.make import make
from cerank.teachers.requests import Hooks
from tests.refusals import refused
from tests.teachers.collection import request_for, write_collection
from tests.teachers.tiny_language_model import write_language_model


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_language_model(tmp_path_factory.mktemp("model"))


def _by_hand(model: Path, messages: tuple[prompts.Message, ...], start: str) -> torch.Tensor:
    """The log-probabilities of all tokens after a prompt, without cerank's engine."""
    tokenizer = AutoTokenizer.from_pretrained(model)
    network = AutoModelForCausalLM.from_pretrained(model).float().eval()
    rows = [{"role": message.role, "content": message.content} for message in messages]
    text = tokenizer.apply_chat_template(rows, tokenize=False, add_generation_prompt=True) + start
    ids = tokenizer(text, add_special_tokens=False, return_tensors="pt").input_ids
    with torch.inference_mode():
        return torch.log_softmax(network(ids).logits[0, -1], -1)


def test_the_order_of_first_is_that_of_the_models_own_logits(model: Path, tmp_path: Path) -> None:
    folder = write_collection(tmp_path / "collection", queries=2, depth=6)
    spec = TeacherSpec(kind="first", model=str(model), window=6, stride=3, depth=6)
    request = request_for(folder, spec, tmp_path)
    made = make(request)
    tokenizer = AutoTokenizer.from_pretrained(model)
    letters = [tokenizer(letter, add_special_tokens=False).input_ids for letter in "ABCDEF"]
    assert all(len(ids) == 1 for ids in letters)
    for query in ("q0", "q1"):
        docs = _given(folder, query)
        passages = [prompts.clean_passage(text, 300) for text in request.dataset.documents.texts(docs)]
        messages = prompts.fill(prompts.load("first", "first"), request.dataset.queries[query], passages)
        values = _by_hand(model, messages, "[")
        order = sorted(range(6), key=lambda place: -float(values[letters[place][0]]))
        assert list(made.ranking[query]) == [docs[place] for place in order]


def _given(folder: Path, query: str) -> list[str]:
    rows = [line.split() for line in (folder / "first.run").read_text().splitlines()]
    return [row[2] for row in rows if row[0] == query]


def test_pointwise_scores_are_the_log_odds_of_yes(model: Path, tmp_path: Path) -> None:
    folder = write_collection(tmp_path / "collection", queries=1, depth=3)
    request = request_for(folder, TeacherSpec(kind="pointwise", model=str(model), depth=3), tmp_path)
    made = make(request)
    tokenizer = AutoTokenizer.from_pretrained(model)

    def mass(values: torch.Tensor, *words: str) -> float:
        ids = {
            tuple(tokenizer(text, add_special_tokens=False).input_ids) for word in words for text in (word, f" {word}")
        }
        return math.fsum(math.exp(float(values[found[0]])) for found in ids if len(found) == 1)

    for doc, score in zip(made.ranking["q0"], made.ranking.scores("q0"), strict=True):
        passage = prompts.clean_passage(request.dataset.documents.text(doc), 300)
        messages = prompts.fill(prompts.load("yes-no", "pointwise"), request.dataset.queries["q0"], [passage])
        values = _by_hand(model, messages, "")
        odds = math.log(mass(values, "yes", "Yes", "YES") / mass(values, "no", "No", "NO"))
        assert score == pytest.approx(odds, abs=1e-4)


def test_babble_is_no_ranking_and_its_answers_are_kept(model: Path, tmp_path: Path) -> None:
    folder = write_collection(tmp_path / "collection", queries=2, depth=3)
    spec = TeacherSpec(kind="listwise", model=str(model), depth=3, max_output=12)
    with refused(RunFailedError, "too-many-failures", 2):
        make(request_for(folder, spec, tmp_path))
    with pytest.raises(RunFailedError):
        make(request_for(folder, spec, tmp_path), Hooks(tell=str))
    (answers,) = (tmp_path / "lab" / "teachers" / "answers").glob("*.jsonl")
    assert len(answers.read_bytes().splitlines()) == 3  # the probe and one for each query


def test_tokens_are_counted_by_the_models_own_tokenizer_where_it_is_here(model: Path) -> None:
    count = counter_of(str(model))
    assert count is not None
    tokenizer = AutoTokenizer.from_pretrained(model)
    text = "text of query 3 worth 512, and more"
    assert count(text) == len(tokenizer(text, add_special_tokens=False).input_ids)
    assert counter_of("nobody/has-this-model") is None
