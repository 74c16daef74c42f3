"""Money, calls and tokens: prices from the user's table, estimates before the work, caps that are never crossed.

Invariant: a call is made only if its cost at most, with that of all calls that are still out, fits under every cap.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import msgspec

from cerank.core.decode import LARGEST_TOML, decode_table, toml_table
from cerank.errors import FormatError, UsageError, os_error
from cerank.files.safe_open import read_file
from cerank.recipes.sections.teacher_specs import TeacherSpec
from cerank.teachers.engines.engine import Usage

PRICES = "prices.toml"
_PER = 1_000_000
_Price = Annotated[float, msgspec.Meta(ge=0.0, le=10.0**6)]
_SPARE = 1.25  # an estimated prompt may be longer than estimated


class Price(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The price of a model's input and output tokens."""

    input: _Price  # for a million
    output: _Price
    date: str = ""  # on which it was so
    currency: str = "USD"
    batch: _Price = 0.5  # share of it that a Batch API takes

    def cost(self, usage: Usage) -> float:
        """Return the cost of so many tokens."""
        return (usage.input_tokens * self.input + usage.output_tokens * self.output) / _PER


class PriceTable(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The user's price table."""

    models: dict[str, Price] = {}


def prices_file() -> Path:
    """The user's own price table, whether it exists or not."""
    import platformdirs

    return platformdirs.user_config_path("cerank") / PRICES


def price_of(spec: TeacherSpec, table: Path | None = None) -> Price | None:
    """Return the price of a teacher's model, or None if no table has it.

    Args:
        spec: declaration of the teacher; it names the model and may name a price table.
        table: path of a price table that replaces the declared and the default one; None uses those.

    Raises:
        UsageError, MissingError: a table that was named cannot be read; FormatError: it is none.
    """
    path = table or (Path(spec.prices) if spec.prices else prices_file())
    try:
        source = read_file(path, LARGEST_TOML + 1)
    except FileNotFoundError as error:
        if table or spec.prices:
            raise os_error(error, path) from error
        return None
    except OSError as error:
        raise os_error(error, path) from error
    mistakes: list[str] = []
    values = toml_table(source, str(path))
    values = _with_text_dates(values)
    prices = decode_table(PriceTable, values, "", mistakes)
    mistakes += [
        f"models.{name}.date: not a date such as 2026-11-01; given: {price.date!r:.40}"
        for name, price in (prices.models if prices else {}).items()
        if price.date and not _is_date(price.date)
    ]
    if prices is None or mistakes:
        hint = '[models."NAME"] with input and output, the price of a million tokens, and the date'
        raise FormatError("\n".join(mistakes), where=str(path), hint=hint)
    return prices.models.get(spec.model)


def price_missing(spec: TeacherSpec, table: Path | None = None) -> UsageError:
    """Return the error that a cap on money has no price to count by; arguments as for `price_of`."""
    path = table or (Path(spec.prices) if spec.prices else prices_file())
    hint = f'give [models."{spec.model}"] input and output, the price of a million tokens, and date, in {path}'
    return UsageError("a cap on money needs the model's price", where="max_cost", hint=hint, code="price-missing")


def _is_date(text: str) -> bool:
    import datetime

    try:
        datetime.date.fromisoformat(text)
    except ValueError:
        return False
    return True


def _with_text_dates(values: dict[str, object]) -> dict[str, object]:
    """Return a table with dates as text, as TOML lets both be written."""
    import datetime

    return {
        key: _with_text_dates(value) if isinstance(value, dict)
        else value.isoformat() if isinstance(value, datetime.date)
        else value
        for key, value in values.items()
    }  # fmt: skip


def price_share(spec: TeacherSpec, price: Price | None) -> float:
    """Return the share of its list price that a teacher's calls cost: less than 1 by a Batch API."""
    return price.batch if spec.batch and price is not None else 1.0


class Caps(msgspec.Struct, frozen=True):
    """What one command or run may spend; 0 sets no cap."""

    cost: float = 0.0
    calls: int = 0
    tokens: int = 0

    @classmethod
    def of(cls, spec: TeacherSpec, *, cost: float = 0.0, calls: int = 0, tokens: int = 0) -> Caps:
        """Return the caps of a command, and the teacher's own where the command has none."""
        return cls(cost or spec.max_cost, calls or spec.max_calls, tokens or spec.max_tokens)


class Budget:
    """Counts what was spent, and what calls that are out may still cost.

    Args:
        caps: limits on calls, tokens and money that no call may cross.
        price: price of the model per million tokens; required if money is capped.
        share: fraction of the list price that is paid; below 1 for a Batch API.
    """

    def __init__(self, caps: Caps, price: Price | None, share: float = 1.0) -> None:
        if caps.cost and price is None:
            raise ValueError("a cap on money without a price")
        self._caps, self._price, self._share = caps, price, share
        self.calls = 0
        self.spent = Usage()
        self._out = Usage()
        self._largest_error = 1.0  # largest ratio of counted to estimated tokens of a prompt

    @property
    def cost(self) -> float | None:
        """Money spent; None without a price."""
        return None if self._price is None else self._price.cost(self.spent) * self._share

    def reserve(self, input_tokens: int, max_output: int, *, is_exact: bool) -> Usage | None:
        """Return what a call may cost at most, set aside; None if that could cross a cap.

        Args:
            input_tokens: number of tokens of the prompt.
            max_output: largest number of tokens of the answer.
            is_exact: whether the tokens were counted by the model's own tokenizer.
        """
        spare = 1.0 if is_exact else _SPARE
        most = Usage(round(input_tokens * spare * self._largest_error), max_output)
        total = self.spent.plus(self._out).plus(most)
        caps = self._caps
        if caps.calls and self.calls + 1 > caps.calls:
            return None
        if caps.tokens and total.input_tokens + total.output_tokens > caps.tokens:
            return None
        if caps.cost and self._price is not None and self._price.cost(total) * self._share > caps.cost:
            return None
        self.calls += 1
        self._out = self._out.plus(most)
        return most

    def settle(self, reserved: Usage, used: Usage, estimated_input: int) -> None:
        """Count what a call really used in place of what was set aside for it."""
        self._out = Usage(
            self._out.input_tokens - reserved.input_tokens, self._out.output_tokens - reserved.output_tokens
        )
        self.spent = self.spent.plus(used)
        if used.input_tokens and estimated_input:
            self._largest_error = max(self._largest_error, used.input_tokens / estimated_input)

    def cap_in_words(self) -> str:
        """Return the caps for a message, such as "--max-calls 100"."""
        caps = self._caps
        named = {"--max-cost": caps.cost, "--max-calls": caps.calls, "--max-tokens": caps.tokens}
        return ", ".join(f"{name} {value:g}" for name, value in named.items() if value)
