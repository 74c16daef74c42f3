"""The steps of a run: check the inputs, measure the first stages, then train, re-rank and measure each stage.

Invariant: every step leaves a file that says it is done, so a resumed run simply starts again from the top.
"""

from __future__ import annotations

from functools import partial

import torch

from cerank.datasets import query_overlaps
from cerank.evaluation.diagnostics import ceiling_note, no_room_note
from cerank.files import json_records
from cerank.kernels import processor
from cerank.models.forward_pass import resolve_precision
from cerank.planning.inputs import first_stage_uses, validation_dataset
from cerank.runs import checksums
from cerank.runs.layout import RunFolder
from cerank.runs.records import Precisions
from cerank.worker.estimate_duration import announce_estimate, keep_shared_speed
from cerank.worker.run_context import RunContext
from cerank.worker.run_inputs import RunInputs
from cerank.worker.stage_evaluation import StageEvaluation
from cerank.worker.stage_reuse import reuse_leading_stages, reuse_rankings, reuse_stage
from cerank.worker.train_stage import StageWork


def carry_out(context: RunContext) -> None:
    """Do everything in the run that is not done yet; the caller holds the lease.

    Raises:
        PausedError: the worker was asked to stop; all finished work is saved.
        CerankError: the run cannot continue.
    """
    plan, folder = context.plan, context.folder
    context.heartbeat.enter("inputs", "", total=len(plan.inputs))
    inputs = RunInputs(context)
    if not folder.overlaps.exists():
        shared = query_overlaps.SharedQueries(query_overlaps.overlaps(plan.recipe, inputs.datasets))
        for overlap in shared.overlaps:
            context.log.event("queries shared", str(overlap))
        checksums.save(folder, folder.overlaps, shared)
    validation = {validation_dataset(plan.recipe, stage) for _, stage in plan.recipe.chained()}
    for use in first_stage_uses(plan.recipe):
        context.raise_if_stopped()
        context.heartbeat.enter("candidates", f"{use.first_stage} on {use.dataset}", total=1)
        is_new = not folder.candidates(use.dataset, use.first_stage).exists()
        ranking = inputs.candidates(use.dataset, use.first_stage)
        if is_new and use.dataset in {*validation, *plan.recipe.data.test}:
            top, qrels = ranking.top(plan.recipe.data.depth), inputs.datasets[use.dataset].qrels
            for note in filter(None, (ceiling_note(top, qrels), no_room_note(top, qrels))):
                context.log.event("candidates", f"{use.first_stage} on {use.dataset}: {note}")
    filter_negatives(context, inputs)
    precisions = choose_precisions(context)
    context.raise_if_stopped()
    to_train = reuse_leading_stages(context, precisions)  # before the estimate, which counts what is left
    context.heartbeat.enter("estimate", "", total=1)
    announce_estimate(context, inputs.datasets)
    evaluation = StageEvaluation(context, inputs)
    evaluation.prepare()
    last = plan.recipe.chain[-1]  # a baseline is scored as the last stage is
    precision = precisions_of_reranking(folder).get(last, precisions[last])
    for system in plan.recipe.baseline_models():
        evaluation.rerank(system, precision)
    for teacher in plan.recipe.evaluate.teachers:
        evaluation.rank_by_teacher(teacher, partial(inputs.tested_teacher, teacher))
    for index, name in enumerate(plan.recipe.chain):
        stage = StageWork(context, inputs, index, precisions[name])
        is_untried = index != to_train  # another run may have finished a later stage meanwhile
        if not stage.is_finished() and not (is_untried and reuse_stage(context, index, precisions)):
            stage.train()
            keep_shared_speed(context, index)
        reuse_rankings(context, index)
        evaluation.rerank(name, precisions_of_reranking(folder).get(name, precisions[name]))
    context.heartbeat.complete()


def filter_negatives(context: RunContext, inputs: RunInputs) -> None:
    """Filter the negatives of every stage that says so, before hours of training: the filters may leave nothing.

    Raises:
        RunFailedError: they leave a stage without negatives.
    """
    for index, (name, stage) in enumerate(context.plan.recipe.chained()):
        if stage.false_negatives.is_used and not context.folder.dropped_negatives(name).exists():
            context.raise_if_stopped()
            StageWork(context, inputs, index).make_sampler()


def choose_precisions(context: RunContext) -> dict[str, str]:
    """Return the precision of each stage: stage -> "fp32" or "bf16".

    What "auto" comes to is decided when a run starts for the first time, and never again: a resumed run computes as it
    began, whatever this machine is fast at by then.
    """
    plan, folder = context.plan, context.folder
    requested = {name: stage.precision or "fp32" for name, stage in plan.recipe.chained()}
    if "auto" not in requested.values():
        return dict(requested)
    record = json_records.load_if_there(folder.precisions, Precisions)
    if record is None or record.chosen.keys() != requested.keys():
        device = torch.device(plan.device)
        chosen = {name: resolve_precision(precision, device) for name, precision in requested.items()}
        ranked = {name: resolve_precision(precision, device, trains=False) for name, precision in requested.items()}
        record = Precisions(chosen, {name: kind for name, kind in ranked.items() if kind != chosen[name]})
        checksums.save(folder, folder.precisions, record)
        for name, precision in record.chosen.items():
            if requested[name] == "auto":
                apart = f", re-ranking in {record.reranking[name]}" if name in record.reranking else ""
                why = f"{precision}{apart}, by what this device is fast at{_gpu_reason(device)}"
                context.log.event("precision chosen", f"{name}: {why}")
    if plan.device == "cpu" and "bf16" in record.chosen.values() and not processor.multiplies_bf16():
        text = "this processor emulates bf16, in which the run began: the same results, but many times slower"
        context.log.event("environment changed", text)
    return dict(record.chosen)


def precisions_of_reranking(folder: RunFolder) -> dict[str, str]:
    """Return the precision in which a stage is re-ranked, where it was chosen to be another than in training."""
    record = json_records.load_if_there(folder.precisions, Precisions)
    return dict(record.reranking) if record is not None else {}


def _gpu_reason(device: torch.device) -> str:
    """Return the GPU and its compute capability, which decide the precision; "" for other devices."""
    if device.type != "cuda":
        return ""
    major, minor = torch.cuda.get_device_capability(device)
    return f": {torch.cuda.get_device_name(device)}, compute capability {major}.{minor}"
