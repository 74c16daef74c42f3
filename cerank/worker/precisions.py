"""Decides which precision each stage computes in: when a run starts for the first time, and never again.

Invariant: a resumed run computes as it began, whatever this machine is fast at by then.
"""

from __future__ import annotations

import torch

from cerank.files import json_records
from cerank.kernels import processor
from cerank.models.forward_pass import resolve_precision
from cerank.runs import checksums
from cerank.runs.records import Precisions
from cerank.worker.run_context import RunContext


def choose_precisions(context: RunContext) -> dict[str, str]:
    """Return the precision of each stage: stage -> "fp32" or "bf16"."""
    plan, folder = context.plan, context.folder
    asked = {name: stage.precision for name, stage in plan.recipe.chained()}
    if "auto" not in asked.values():
        return dict(asked)
    kept = json_records.load_if_there(folder.precisions, Precisions)
    if kept is None or kept.chosen.keys() != asked.keys():
        device = torch.device(plan.device)
        kept = Precisions({name: resolve_precision(precision, device) for name, precision in asked.items()})
        checksums.save(folder, folder.precisions, kept)
        for name, precision in kept.chosen.items():
            if asked[name] == "auto":
                context.log.event("precision chosen", f"{name}: {precision}, by what this device is fast at")
    if plan.device == "cpu" and "bf16" in kept.chosen.values() and not processor.multiplies_bf16():
        text = "this processor emulates bf16, in which the run began: the same results, but many times slower"
        context.log.event("environment changed", text)
    return dict(kept.chosen)
