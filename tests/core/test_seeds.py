"""Seeds: one for each purpose and place, the same on every machine and in every process."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from cerank.core.seeds import derive


def test_a_seed_is_the_same_on_every_machine_and_in_every_release() -> None:
    assert derive(42, "negatives", 0, 1) == 6096566355641930602  # SHA-256 of the four words, by another program


def test_purposes_and_places_have_seeds_of_their_own() -> None:
    places = [(purpose, stage, step) for purpose in ("negatives", "dropout") for stage in (0, 1) for step in range(500)]
    assert len({derive(42, *place) for place in places}) == len(places)


def test_indices_that_read_alike_when_joined_are_told_apart() -> None:
    assert derive(1, "a", 11, 1) != derive(1, "a", 1, 11)
    assert derive(11, "a") != derive(1, "1a")


@given(st.integers(0, 2**63 - 1), st.text(), st.lists(st.integers()))
def test_a_seed_fits_a_signed_64_bit_integer(seed: int, purpose: str, indices: list[int]) -> None:
    assert 0 <= derive(seed, purpose, *indices) < 2**63
