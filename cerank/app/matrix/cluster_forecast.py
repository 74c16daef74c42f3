"""What runs take on several nodes, in words: until when, how many device hours, what they cost, what holds them up."""

from __future__ import annotations

from collections.abc import Sequence

from cerank.app.estimates import format_minutes
from cerank.planning import node_schedule
from cerank.planning.node_schedule import StageTask
from cerank.text.safe_text import counted


def in_words(
    tasks: Sequence[StageTask] | None, nodes: int, devices: int, hour_price: float, *, is_measured: bool = False
) -> str:
    """Return the prediction in a few sentences.

    Args:
        tasks: the stages to train; None where the time of one is unknown.
        nodes: nodes of one kind, all free.
        devices: devices of each that share a run.
        hour_price: what an hour of a device costs; 0 says nothing of money.
        is_measured: whether so many devices were timed together.
    """
    where = counted(nodes, "node") + (f" of {devices} devices" if devices > 1 else "")
    if tasks is None:
        return f"On {where}: time unknown, because the speed of a stage is; run one, or give --pairs-per-second."
    if not tasks:
        return f"On {where}: nothing is left to do."
    plan_of_nodes = node_schedule.schedule(tasks, nodes)
    hours = plan_of_nodes.busy_minutes / 60 * devices
    parts = [f"about {format_minutes(plan_of_nodes.minutes)}", f"{hours:,.2f} device hours"]
    parts += [f"a cost of {hours * hour_price:,.2f}"] if hour_price else []
    sentences = [f"On {where}: {', '.join(parts)}, waiting in the queue not counted."]
    if devices > 1 and not is_measured:
        sentences.append(
            f"{devices} devices of a node were not timed together here: they count as if they shared the work without "
            "loss, which is a lower bound."
        )
    if plan_of_nodes.nodes < nodes:
        sentences.append(f"At most {counted(plan_of_nodes.nodes, 'node')} ever have work at once.")
    if plan_of_nodes.longest_minutes > 0.9 * plan_of_nodes.minutes:
        sentences.append(
            f"More nodes make it no shorter: one chain of stages takes {format_minutes(plan_of_nodes.longest_minutes)}."
        )
    return " ".join(sentences)
