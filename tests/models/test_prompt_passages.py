"""Passages for language models: each is the prompt of its own text, and prefix and suffix stay whole."""

from __future__ import annotations

import pytest

from cerank.errors import UsageError
from cerank.models.load_model import load_reranker
from cerank.models.prompt_tokens import PromptTokenizer
from cerank.tokenization.passage_windows import PassageWindows, WindowsInUse
from cerank.tokenization.tokens import TokenLimits
from tests.models.family_fixtures import write_causal
from tests.refusals import refused

QUERY = "how do otters sleep"
TEXT = " ".join(f"part {number} says that the river is {number * 7} miles long." for number in range(12))
TITLE = "Otters and rivers of the north"


@pytest.fixture(scope="module")
def reranker(tmp_path_factory):
    return load_reranker(write_causal(tmp_path_factory.mktemp("causal") / "Qwen3-Reranker-0.6B", "qwen3"))


def tokens_of(reranker, in_use=None, **texts):
    tokens = reranker.model.make_tokens(reranker.tokenizer, TokenLimits(400, 60))
    tokens.use_windows(in_use)
    tokens.add("query", ["q"], lambda _: [QUERY])
    tokens.add("document", list(texts), lambda ids: [texts[key] for key in ids])
    return tokens


def test_each_passage_is_the_prompt_of_its_own_text(reranker):
    windows = PassageWindows(max_passages=4, length=40, stride=25, title=5)
    tokens = tokens_of(reranker, WindowsInUse(windows, lambda ids: [TITLE for _ in ids]), d=TEXT, e="")
    assert isinstance(tokens, PromptTokenizer)
    edges = reranker.tokenizer(TEXT, add_special_tokens=False, return_offsets_mapping=True)["offset_mapping"]
    title_edges = reranker.tokenizer(TITLE, add_special_tokens=False, return_offsets_mapping=True)["offset_mapping"]
    title = TITLE[: title_edges[4][1]]
    texts = [TEXT[edges[start][0] : edges[start + 39][1]] for start in (0, 25, 50, 75)]
    texts = [texts[0], *(f"{title} {text}" for text in texts[1:])]
    by_themselves = tokens_of(reranker, **{f"p{number}": text for number, text in enumerate(texts)})
    assert tokens.passages("q", "d") == [by_themselves.pair("q", f"p{number}") for number in range(4)]
    assert len(tokens.passages("q", "e")) == 1
    tokens.clear()
    assert len(tokens) == 0


def test_the_best_passage_is_found_by_its_words_and_not_by_those_of_the_prompt(reranker):
    windows = PassageWindows(max_passages=9, length=30, stride=30)
    tokens = reranker.model.make_tokens(reranker.tokenizer, TokenLimits(400, 60))
    tokens.use_windows(WindowsInUse(windows))
    tokens.add("query", ["q"], lambda _: ["XQ"])
    tokens.add("document", ["d"], lambda _: [f"{TEXT[:200]} XQ {TEXT[200:]}"])
    texts = [reranker.tokenizer.decode(pair.ids) for pair in tokens.passages("q", "d")]
    best = tokens.best_passage("q", "d")
    assert 0 < best < len(texts) - 1
    assert [" XQ " in text for text in texts].index(True) == best


def test_a_passage_that_the_prompt_leaves_no_room_for_is_refused(reranker):
    with refused(UsageError, "passage-too-long", 340, 400):
        tokens_of(reranker, WindowsInUse(PassageWindows(max_passages=2, length=340, stride=100)))
