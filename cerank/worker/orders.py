"""What the first of several processes tells the others to share in: the training of a stage, or a re-ranking."""

from __future__ import annotations

import msgspec

from cerank.files import json_records


class TrainOrder(msgspec.Struct, frozen=True, tag="train"):
    """Train a stage together; its groups and its teacher's rankings are in the run's folder by now."""

    index: int  # position of the stage in the recipe's chain
    precision: str


class RerankOrder(msgspec.Struct, frozen=True, tag="rerank"):
    """Score a share of the candidates of a test dataset."""

    system: str  # a stage of the chain, or a baseline
    test: str
    precision: str


class EndOrder(msgspec.Struct, frozen=True, tag="end"):
    """End the process: the first one has nothing more to share."""


Order = TrainOrder | RerankOrder | EndOrder


def encode(order: Order) -> bytes:
    """Return the order as it is sent."""
    return msgspec.json.encode(order)


def decode(data: bytes) -> Order:
    """Return the order that was sent."""
    order: Order = json_records.decode(data, Order)
    return order
