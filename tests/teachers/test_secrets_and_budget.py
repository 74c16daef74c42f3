from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cerank.errors import FormatError, MissingError, UsageError
from cerank.recipes.sections.teacher_specs import TeacherSpec
from cerank.teachers.budget import Budget, Caps, Price, price_of
from cerank.teachers.engines.engine import Usage
from cerank.teachers.secrets import Key, find_key
from tests.refusals import refused


def test_a_key_comes_from_the_environment_before_the_keyring(tmp_path: Path) -> None:
    keyring = tmp_path / "keys.toml"
    keyring.write_text('MY_KEY = "from-the-file"\n')
    keyring.chmod(0o600)
    assert find_key("MY_KEY", {"MY_KEY": "from-outside"}, keyring).headers() == {"Authorization": "Bearer from-outside"}
    assert find_key("MY_KEY", {}, keyring).headers() == {"Authorization": "Bearer from-the-file"}
    assert find_key("", {}, keyring).headers() == {}
    with refused(MissingError, "key-not-found", "OTHER"):
        find_key("OTHER", {}, keyring)


def test_a_keyring_that_others_can_read_or_that_is_broken_is_refused_without_its_content(tmp_path: Path) -> None:
    keyring = tmp_path / "keys.toml"
    keyring.write_text('MY_KEY = "sesame-open"\n')
    keyring.chmod(0o644)
    with refused(UsageError, "keyring-readable") as caught:
        find_key("MY_KEY", {}, keyring)
    keyring.write_text("MY_KEY = sesame-open")
    keyring.chmod(0o600)
    with refused(UsageError, "not-toml") as other:
        find_key("MY_KEY", {}, keyring)
    assert "sesame" not in str(caught.value) + str(other.value)


def test_a_key_is_in_no_representation_and_no_text_that_repeats_it() -> None:
    key = Key("sesame-open")
    assert "sesame" not in repr(key) + str(key)
    assert key.removed_from("wrong key sesame-open given") == "wrong key [key] given"


def test_prices_are_read_with_their_date(tmp_path: Path) -> None:
    table = tmp_path / "prices.toml"
    table.write_text('[models."a/b"]\ninput = 0.5\noutput = 2\ndate = "2026-11-01"\n')
    price = price_of(TeacherSpec(kind="listwise", model="a/b"), table)
    assert price is not None
    assert price.cost(Usage(1_000_000, 500_000)) == 1.5
    assert price_of(TeacherSpec(kind="listwise", model="other"), table) is None
    table.write_text('[models."a/b"]\ninput = "cheap"\n')
    with refused(FormatError, "format", "models.a/b.output"):
        price_of(TeacherSpec(kind="listwise", model="a/b"), table)
    table.write_text('[models."a/b"]\ninput = 1.0\noutput = 1.0\ndate = "soon"\n')
    with refused(FormatError, "format", "models.a/b.date"):
        price_of(TeacherSpec(kind="listwise", model="a/b"), table)
    with pytest.raises(MissingError):
        price_of(TeacherSpec(kind="listwise", model="a/b"), tmp_path / "none.toml")


@given(st.lists(st.tuples(st.integers(1, 5000), st.integers(1, 500), st.floats(0.5, 1.0)), max_size=40), st.data())
def test_a_cap_on_tokens_or_money_is_never_crossed(calls: list[tuple[int, int, float]], data: st.DataObject) -> None:
    """Whatever the order in which calls come back, and however long their answers are."""
    budget = Budget(Caps(cost=0.02, tokens=20_000), Price(1.0, 2.0))
    out: list[tuple[Usage, Usage, int]] = []
    for tokens, most, share in calls:
        reserved = budget.reserve(tokens, most, is_exact=True)
        if reserved is not None:
            out.append((reserved, Usage(tokens, int(most * share)), tokens))
        if out and data.draw(st.booleans()):
            budget.settle(*out.pop(0))
    for entry in out:
        budget.settle(*entry)
    assert budget.spent.input_tokens + budget.spent.output_tokens <= 20_000
    assert budget.cost is not None
    assert budget.cost <= 0.02


def test_estimated_prompts_are_taken_to_be_longer_once_the_server_counted_more() -> None:
    budget = Budget(Caps(tokens=1000), None)
    reserved = budget.reserve(100, 10, is_exact=False)
    assert reserved == Usage(125, 10)
    budget.settle(reserved, Usage(200, 10), 100)
    assert budget.reserve(100, 10, is_exact=False) == Usage(250, 10)
