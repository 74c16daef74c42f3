"""The rows of the acceptance, correctness first. Each returns what it measured and whether that is within its bar.

With `dry` all of it runs on a CPU with tiny shapes: bars of speed are not applied, and short memory is a stand-in.
"""

from __future__ import annotations

import contextlib
import gc
import hashlib
import json
import math
import os
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any
from unittest import mock

import msgspec
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from cerank.bench import baselines, own_workloads
from cerank.bench.text_samples import generated_sample
from cerank.core.metrics import StepMetrics
from cerank.errors import RunFailedError
from cerank.inference.rerank import Scorer
from cerank.kernels import attention, determinism
from cerank.kernels.attention import AttentionOptions, kernel_name
from cerank.kernels.packing import pack
from cerank.kernels.processor import measure_peaks, synchronize
from cerank.machine import process_environment
from cerank.models.cross_encoder import CrossEncoder
from cerank.models.forward_pass import ForwardPass
from cerank.planning.gpu_settings import activation_bytes
from cerank.tokenization.tokens import Pair
from cerank.training import checkpoints
from tests.gpu.models import KINDS, base_files, forward_of, model_of, pairs_of

ROOT = Path(__file__).resolve().parents[2]


class Outcome(msgspec.Struct, frozen=True):
    """What a row measured, in words and figures, and whether it is within the row's bar."""

    figure: str
    held: bool


class Row(msgspec.Struct, frozen=True):
    """One check: what it is, the condition it must meet, the seconds it may take, and the function that does it."""

    name: str
    bar: str
    seconds: int
    check: Callable[[str, bool], Outcome]


ROWS: list[Row] = []


def row(bar: str, seconds: int) -> Callable[[Callable[[str, bool], Outcome]], Callable[[str, bool], Outcome]]:
    """Return a decorator that adds a check; its docstring is the row's name."""

    def enter(check: Callable[[str, bool], Outcome]) -> Callable[[str, bool], Outcome]:
        ROWS.append(Row(str(check.__doc__).strip().rstrip("."), bar, seconds, check))
        return check

    return enter


def precisions(dry: bool) -> tuple[str, ...]:
    return ("fp32",) if dry else ("fp32", "bf16")


@contextlib.contextmanager
def all_cores() -> Iterator[None]:
    """Let what the CPU computes for comparison use all cores: the time of a GPU is short."""
    threads = torch.get_num_threads()
    torch.set_num_threads(os.cpu_count() or 1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


@contextlib.contextmanager
def others_settings() -> Iterator[None]:
    """Give another library torch's own defaults: it may use the attention and the sums that are not deterministic."""
    kinds = torch.backends.cuda
    mode = torch.get_deterministic_debug_mode()
    before = kinds.flash_sdp_enabled(), kinds.mem_efficient_sdp_enabled(), kinds.cudnn_sdp_enabled()
    switches = kinds.enable_flash_sdp, kinds.enable_mem_efficient_sdp, kinds.enable_cudnn_sdp
    torch.set_deterministic_debug_mode("default")
    for switch in switches:
        switch(True)
    try:
        yield
    finally:
        torch.set_deterministic_debug_mode(mode)
        for switch, was_on in zip(switches, before, strict=True):
            switch(was_on)


# correctness


@row("an architecture this torch is built for, strict determinism, no TF32, > 90 % of memory free", 10)
def preflight(device: str, dry: bool) -> Outcome:
    """Preflight."""
    promise = determinism.make_deterministic(device, 2)
    if dry:
        torch.set_deterministic_debug_mode("error")  # as strict as on a GPU for all rows that follow
        return Outcome(promise, True)
    free, total = torch.cuda.mem_get_info(device)
    strict = torch.get_deterministic_debug_mode() == 2
    ieee = torch.backends.cuda.matmul.fp32_precision == "ieee"
    workspace = os.environ.get("CUBLAS_WORKSPACE_CONFIG") == ":4096:8"
    held = strict and ieee and workspace and free > 0.9 * total
    facts = ", ".join(f"{key} {value}" for key, value in determinism.gpu_environment(device).items())
    return Outcome(f"{facts}; {free / total:.0%} of {total >> 30} GiB free", held)


@row("one kernel for all pairs, except windows in float32; every architecture is packed", 15)
def kernels(device: str, dry: bool) -> Outcome:
    """Kernel and packing of each architecture, without and with gradients and dropout."""
    figures, held = [], True
    for kind in KINDS:
        model = model_of(kind, tiny=dry)
        for precision in precisions(dry):
            forward = forward_of(model, device, precision)
            held &= forward.is_packed
            for train in (False, True):
                model.train(train)
                with torch.set_grad_enabled(train), forward.scoring() as score:
                    scores = score(pairs_of(8, tiny=dry))
                    if train:
                        scores.sum().backward()
                held &= bool(scores.isfinite().all())
            dtype = torch.bfloat16 if precision == "bf16" else torch.float32
            name = kernel_name(torch.device(device), dtype, 64, has_window=False)
            held &= dry or name != attention.SPANS
            figures.append(f"{kind} {precision}: {name}{'' if forward.is_packed else ', PADDED'}")
    return Outcome("; ".join(figures), held)


def _definition(query: Tensor, key: Tensor, value: Tensor, lengths: Sequence[int], scale: float, window: int) -> Tensor:
    """Return attention within each pair by its definition, in float64."""
    out = []
    for q, k, v in zip(*(part.double().split(list(lengths)) for part in (query, key, value)), strict=True):
        products = torch.einsum("ihs,jhs->hij", q, k) * scale
        if window:
            places = torch.arange(len(q), device=q.device)
            products = products.masked_fill((places[:, None] - places).abs() > window, -math.inf)
        out.append(torch.einsum("hij,jhs->ihs", products.softmax(dim=-1), v))
    return torch.cat(out)


@row("relative error of output and gradients below 2e-2 in bf16, 1e-5 in float32", 20)
def kernel_numbers(device: str, dry: bool) -> Outcome:
    """Kernel against the definition in float64, with gradients, windows and heads of 32, 64 and 128."""
    lengths = (1, 2, 7, 31, 40) if dry else (1, 2, 7, 31, 64, 100, 256, 512)
    worst = {}
    for precision in precisions(dry):
        dtype = torch.bfloat16 if precision == "bf16" else torch.float32
        worst[precision] = 0.0
        for size in (32,) if dry else (32, 64, 128):
            for window in (0, 8) if dry else (0, 64):
                torch.manual_seed(0)
                shape = (sum(lengths), 2, size)
                parts = [torch.randn(shape).to(dtype).to(device).requires_grad_() for _ in range(3)]
                reference = [part.detach().double().requires_grad_() for part in parts]
                pack_ = pack([Pair((1,) * n, n) for n in lengths], has_types=False, device=torch.device(device))
                out = attention.attend(*parts, pack_, AttentionOptions(size**-0.5, window=window))
                expected = _definition(*reference, lengths, size**-0.5, window)
                upstream = torch.randn(shape).to(device)
                out.backward(upstream.to(dtype))
                expected.backward(upstream.double())
                compared = [(out, expected), *((a.grad, b.grad) for a, b in zip(parts, reference, strict=True))]
                for found, exact in compared:
                    error = float((found.detach().double() - exact.detach()).norm() / exact.detach().norm())
                    worst[precision] = max(worst[precision], error)
    held = worst["fp32"] < 1e-5 and worst.get("bf16", 0.0) < 2e-2
    return Outcome(", ".join(f"{name} {error:.1e}" for name, error in worst.items()), held)


@row("share of weights dropped 0.1 +- 0.004; same seed same bits, another seed others", 5)
def kernel_dropout(device: str, dry: bool) -> Outcome:
    """Dropout of the attention kernel."""
    length, size, pairs = 64, 64, 4 if dry else 64
    dtype = torch.float32 if dry else torch.bfloat16
    pack_ = pack([Pair((1,) * length, length)] * pairs, has_types=False, device=torch.device(device))
    query = torch.zeros(pairs * length, 2, size, device=device, dtype=dtype)  # all weights are 1 / length
    value = torch.eye(length, device=device, dtype=dtype).repeat(pairs, 1).unsqueeze(1).repeat(1, 2, 1)

    def sampled(seed: int) -> Tensor:
        torch.manual_seed(seed)
        return attention.attend(query, query, value, pack_, AttentionOptions(1.0, dropout=0.1))

    first, again, other = sampled(1), sampled(1), sampled(2)
    dropped = float((first == 0).double().mean())
    held = abs(dropped - 0.1) < (0.02 if dry else 0.004)
    held &= torch.equal(first, again) and not torch.equal(first, other)
    return Outcome(f"{dropped:.4f} dropped, mean {float(first.double().sum(-1).mean()):.4f}", held)


@contextlib.contextmanager
def checkpoint(dry: bool) -> Iterator[Any]:
    with tempfile.TemporaryDirectory() as folder:
        yield own_workloads.save_checkpoint(base_files(Path(folder), tiny=dry), Path(folder) / "checkpoint")


def _spread(scores: Sequence[float], expected: Sequence[float]) -> tuple[float, float]:
    """Return the largest difference over the standard deviation of the expected scores, and Kendall's tau."""
    from scipy.stats import kendalltau

    a, b = torch.tensor(scores, dtype=torch.float64), torch.tensor(expected, dtype=torch.float64)
    return float((a - b).abs().max() / b.std()), float(kendalltau(a.numpy(), b.numpy()).statistic)


@row("float32: largest difference < 1e-4 of the spread, tau > .9999; bf16: < .05, tau > .99", 30)
def scores_of_cpu(device: str, dry: bool) -> Outcome:
    """Scores of MiniLM against float32 on the CPU."""
    sample, figures, held = generated_sample(40 if dry else 1600), [], True
    with checkpoint(dry) as files:
        with all_cores():
            expected = own_workloads.CerankReranker(files, "cpu", "fp32").score(sample)
        for precision in precisions(dry):
            apart, tau = _spread(own_workloads.CerankReranker(files, device, precision).score(sample), expected)
            held &= (apart < 1e-4 and tau > 0.9999) if precision == "fp32" else (apart < 0.05 and tau > 0.99)
            figures.append(f"{precision}: {apart:.1e} of the spread, tau {tau:.5f}")
    return Outcome("; ".join(figures), held)


@row("float32: < 1e-4 of the spread; bf16: no further from float32 than it is", 20)
def scores_of_peer(device: str, dry: bool) -> Outcome:
    """Scores of MiniLM against sentence-transformers on the same device."""
    if not baselines.can_rerank():
        return Outcome("sentence-transformers is not installed", dry)
    sample, figures, held = generated_sample(40 if dry else 1600), [], True
    with checkpoint(dry) as files:
        with all_cores():
            exact = own_workloads.CerankReranker(files, "cpu", "fp32").score(sample)
        for precision in precisions(dry):
            ours, _ = _spread(own_workloads.CerankReranker(files, device, precision).score(sample), exact)
            theirs, _ = _spread(baselines.SentenceTransformers(files, device, precision).score(sample), exact)
            held &= ours < 1e-4 if precision == "fp32" else ours <= theirs
            figures.append(f"{precision}: {ours:.1e}, sentence-transformers {theirs:.1e}")
    return Outcome("; ".join(figures), held)


def _gradients(model: CrossEncoder, forward: ForwardPass, pairs: Sequence[Pair], parts: int = 1) -> Tensor:
    """Return the gradient of a fixed loss of all pairs, computed in parts."""
    model.zero_grad(set_to_none=True)
    size = -(-len(pairs) // parts)
    for start in range(0, len(pairs), size):
        with forward.scoring() as score:
            scores = score(pairs[start : start + size])
        (scores * torch.linspace(-1, 1, len(scores), device=scores.device)).sum().backward()
    return torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])


@row("relative L2 < 1e-5 in float32, < 4e-2 in bf16", 25)
def gradients_of_cpu(device: str, dry: bool) -> Outcome:
    """Gradient of one step without dropout against float32 on the CPU."""
    pairs, figures, held = pairs_of(32, tiny=dry), [], True
    exact_model = model_of("bert", tiny=dry, dropout=0.0).train()
    with all_cores():
        exact = _gradients(exact_model, forward_of(exact_model, "cpu", "fp32"), pairs)
    for precision in precisions(dry):
        model = model_of("bert", tiny=dry, dropout=0.0).train()
        found = _gradients(model, forward_of(model, device, precision), pairs).cpu()
        error = float((found - exact).norm() / exact.norm())
        held &= error < (1e-5 if precision == "fp32" else 4e-2)
        figures.append(f"{precision} {error:.1e}")
    return Outcome(", ".join(figures), held)


def _train(device: str, precision: str, dry: bool, *, steps: int, kind: str = "bert", dropout: float = 0.1) -> Any:
    """Return the losses and the model after some steps of AdamW on a fixed task: longer pairs score higher."""
    model = model_of(kind, tiny=dry, dropout=dropout).train()
    forward = forward_of(model, device, precision)
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-5 if not dry else 1e-3, fused=True)
    pairs, losses = pairs_of(16 if kind == "minilm" else 32, tiny=dry), []
    targets = torch.tensor([[float(len(pair.ids)) for pair in pairs]], device=device).log().softmax(dim=1)
    for step in range(steps):
        torch.manual_seed(step)
        with forward.scoring() as score:
            scores = score(pairs)
        loss = -(targets * scores.log_softmax(0)).sum()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        losses.append(loss.detach())
    return [float(loss) for loss in losses], model


@row("mean of the last fifth within 5 % of float32 on the CPU; all finite", 30)
def learning(device: str, dry: bool) -> Outcome:
    """Losses of 30 steps of MiniLM's shape with dropout against float32 on the CPU."""
    steps = 5 if dry else 30
    with all_cores():
        expected, _ = _train("cpu", "fp32", dry, steps=steps, kind="minilm")
    found, _ = _train(device, precisions(dry)[-1], dry, steps=steps, kind="minilm")
    last = max(1, steps // 5)
    ratio = sum(found[-last:]) / sum(expected[-last:])
    return Outcome(f"ratio {ratio:.4f}", abs(ratio - 1) < 0.05 and all(map(math.isfinite, found)))


def _weights_sha256(model: CrossEncoder) -> str:
    digest = hashlib.sha256()
    for value in model.state_dict().values():
        digest.update(value.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


@row("equal bits in every case", 40)
def repeats(device: str, dry: bool) -> Outcome:
    """Determinism in one process: gradients of one step 20 times, weights after 10 steps twice."""
    figures, held = [], True
    for kind in ("bert", "modernbert"):
        for precision, dropout in ((p, d) for p in precisions(dry) for d in (0.0, 0.1)):
            model = model_of(kind, tiny=dry, dropout=dropout).train()
            forward, gradients = forward_of(model, device, precision), []
            for _ in range(3 if dry else 20):
                torch.manual_seed(7)
                found = _gradients(model, forward, pairs_of(32, tiny=dry))
                if not any(torch.equal(found, other) for other in gradients):
                    gradients.append(found)
            steps = 2 if dry else 10
            one, two = (
                _train(device, precision, dry, steps=steps, kind=kind, dropout=dropout)[1].state_dict().values()
                for _ in range(2)
            )
            apart = sum(not torch.equal(left, right) for left, right in zip(one, two, strict=True))
            held &= len(gradients) == 1 and not apart
            figures.append(f"{kind} {precision} {dropout:g}: {len(gradients)} gradients, {apart} weights apart")
    return Outcome("; ".join(figures), held)


@row("equal SHA-256 of all weights", 35)
def restarts(device: str, dry: bool) -> Outcome:
    """Determinism across restarts: 10 steps in each of two new processes."""
    program = (
        "from cerank.kernels.determinism import make_deterministic; from tests.gpu import rows;"
        f"make_deterministic({device!r}, 2);"
        f"_, model = rows._train({device!r}, {precisions(dry)[-1]!r}, {dry}, steps={3 if dry else 10});"
        "print(rows._weights_sha256(model))"
    )
    environ = os.environ | process_environment.pinned_environment(2)
    command = [sys.executable, "-c", program]
    found = [
        subprocess.run(command, cwd=ROOT, env=environ, check=True, capture_output=True, text=True).stdout.split()[-1]
        for _ in range(2)
    ]
    return Outcome(f"{found[0][:16]}, {found[1][:16]}", found[0] == found[1])


@row("the same readings, weights and rankings; no step replayed differently", 60)
def resumed(device: str, dry: bool) -> Outcome:
    """A run of a real worker, killed after step 17 and resumed from step 10, against one that nobody disturbed."""
    from cerank.files import journal
    from cerank.runs.layout import ReadingRow
    from tests.worker.small import bits_of, small_plan, small_run

    with tempfile.TemporaryDirectory() as folder:
        plan, settings = small_plan(Path(folder))
        # on a GPU steps take milliseconds: enough of them that the worker is killed before the last
        changes = {"checkpoint_every": 10} | ({} if dry else {"steps": 240, "validate_every": 120, "precision": "auto"})
        stages = {name: msgspec.structs.replace(stage, **changes) for name, stage in plan.recipe.stages.items()}
        plan = msgspec.structs.replace(plan, device=device, recipe=msgspec.structs.replace(plan.recipe, stages=stages))
        runs = [small_run(Path(folder), plan, settings, second) for second in range(2)]
        environ = os.environ | process_environment.pinned_environment(1)
        environ["PYTHONPATH"] = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])

        def start(run: Any) -> subprocess.Popen[bytes]:
            command = [sys.executable, "-P", "-m", "cerank.worker", str(run.path)]
            with run.log.open("ab") as log:
                return subprocess.Popen(command, cwd=run.path, env=environ, stdout=log, stderr=log)

        whole = start(runs[0]).wait()
        worker = start(runs[1])
        while worker.poll() is None:
            rows = journal.read_valid_rows(runs[1].readings, ReadingRow)[0]
            if sum(isinstance(found, StepMetrics) for found in rows) >= 17:
                worker.kill()
                break
            time.sleep(0.02)
        killed, again = worker.wait(), start(runs[1]).wait()
        events = runs[1].events.read_text()
        equal = bits_of(runs[0]) == bits_of(runs[1])
        held = (whole, again) == (0, 0) and killed != 0 and equal and "replay mismatch" not in events
        why = "" if held else f"; log ends: {runs[1].log.read_text(errors='replace')[-200:]!r}"
        files = "equal" if equal else "DIFFER"
        return Outcome(f"ended {whole}, killed {killed}, resumed {again}; files {files}{why}", held)


@contextlib.contextmanager
def short_memory(device: str, dry: bool, *, tokens: int, allowed: float) -> Iterator[None]:
    """Leave a process only `allowed` bytes of a GPU; in a dry run, tokens stand in for memory."""
    if not dry:
        place = torch.device(device).index or 0
        torch.cuda.empty_cache()
        torch.cuda.set_per_process_memory_fraction(
            allowed / torch.cuda.get_device_properties(place).total_memory, place
        )
        try:
            yield
        finally:
            torch.cuda.set_per_process_memory_fraction(1.0, place)
        return
    scoring = ForwardPass.scoring

    @contextlib.contextmanager
    def limited(forward: ForwardPass) -> Iterator[Any]:
        with scoring(forward) as score:

            def guarded(pairs: Sequence[Pair]) -> Tensor:
                if sum(len(pair.ids) for pair in pairs) > tokens:
                    raise torch.OutOfMemoryError("out of memory, in a dry run")
                return score(pairs)

            yield guarded

    ForwardPass.scoring = limited  # type: ignore[method-assign]
    try:
        yield
    finally:
        ForwardPass.scoring = scoring  # type: ignore[method-assign]


def _held(device: str) -> int:
    """Return the bytes of the GPU that tensors hold, after what nothing refers to is gone; 0 on a CPU."""
    gc.collect()
    if not device.startswith("cuda"):
        return 0
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats(device)
    return torch.cuda.memory_allocated(device)


@row(
    "re-ranking halves its batches, with the same scores; a stage halves its microbatch; too little ends with a hint",
    35,
)
def out_of_memory(device: str, dry: bool) -> Outcome:
    """Too little memory, for re-ranking and for training."""
    sample = generated_sample(60 if dry else 1600)
    with checkpoint(dry) as files:
        scorer = Scorer.load(files.folder, device, "fp32")
        tokens = scorer.tokenize(sample.lists, *map(own_workloads.lookup, (sample.queries, sample.documents)))
        held = _held(device)
        expected = scorer.score_pairs(tokens)
        extra = 0 if dry else torch.cuda.max_memory_allocated(device) - held
        with short_memory(device, dry, tokens=1100, allowed=held + 0.4 * extra):
            found = scorer.score_pairs(tokens)
        apart, _ = _spread(found, expected)
        groups = 4 if dry else 64
        stage = own_workloads.benchmark_stage(sample, precision="fp32", group_size=8, groups_per_step=groups)
        stage = msgspec.structs.replace(stage, microbatch=65_536)
        training = own_workloads.CerankTraining(files, sample, stage, device)
        config = json.loads((files.folder / "config.json").read_text())
        activations = 65_536 * activation_bytes(config, is_narrow=False)
        weights = 4 * sum(weight.numel() for weight in training.model.parameters())
        with mock.patch.object(checkpoints, "record_microbatch", wraps=checkpoints.record_microbatch) as halved:
            enough = _held(device) + 4 * weights + 0.4 * activations
            with short_memory(device, dry, tokens=60_000, allowed=enough):
                timing = training.train(1)
            halvings = halved.call_count
            ended = ""
            try:
                with short_memory(device, dry, tokens=0, allowed=_held(device) + 4 * weights + 1e8):
                    training.train(1)
            except RunFailedError as error:
                ended = error.hint
    held_all = apart < 1e-4 and timing.pairs > 0 and "max_length" in ended
    held_all &= (dry or scorer.is_reduced) and (dry or halvings > 0)
    figure = f"scores {apart:.1e} of the spread apart; {halvings} halvings; hint: {ended}"
    return Outcome(figure, bool(held_all))


# what the host does


class _Operations(TorchDispatchMode):
    """Counts operations."""

    def __init__(self) -> None:
        super().__init__()
        self.operations = 0

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.operations += 1
        return function(*args, **(kwargs or {}))


@contextlib.contextmanager
def _training(device: str, dry: bool, groups: int = 4) -> Iterator[own_workloads.CerankTraining]:
    """Yield a training of MiniLM on texts, with 8 pairs a group."""
    sample = generated_sample(100 if dry else 3200)
    stage = own_workloads.benchmark_stage(sample, precision=precisions(dry)[-1], group_size=8, groups_per_step=groups)
    stage = msgspec.structs.replace(stage, microbatch=8192 if dry else 65_536)
    with checkpoint(dry) as files:
        yield own_workloads.CerankTraining(files, sample, stage, device)


@row("at most one a step", 10)
def waits(device: str, dry: bool) -> Outcome:
    """How often a training step waits for the device."""
    from tests.training.test_trainer import ReadBacks

    def reads(training: own_workloads.CerankTraining, steps: int) -> int:
        if dry:
            with ReadBacks() as counted:
                training.train(steps)
            return counted.reads
        torch.cuda.set_sync_debug_mode("warn")
        try:
            with warnings.catch_warnings(record=True) as caught:
                warnings.simplefilter("always")
                training.train(steps)
        finally:
            torch.cuda.set_sync_debug_mode("default")
        return sum("synchronizing" in str(warning.message) for warning in caught)

    few, many = (1, 3) if dry else (5, 15)
    with _training(device, dry) as training:
        # the difference, because trying whether pairs can be packed reads some values once
        per_step = (reads(training, many) - reads(training, few)) / (many - few)
    return Outcome(f"{per_step:.2f} a step", per_step <= 1.0)


@row("below 1,000", 10)
def launches(device: str, dry: bool) -> Outcome:
    """Kernels launched in a step of 32 pairs through BERT-base with dropout."""
    model = model_of("bert", tiny=dry).train()
    forward, pairs = forward_of(model, device, precisions(dry)[-1]), pairs_of(32, tiny=dry)
    _gradients(model, forward, pairs)
    if dry:
        with _Operations() as counted:
            _gradients(model, forward, pairs)
        return Outcome(f"{counted.operations} operations on a CPU, in spans", True)
    with torch.profiler.profile() as profile:
        _gradients(model, forward, pairs)
        synchronize(device)
    count = sum(event.count for event in profile.key_averages() if "LaunchKernel" in event.key)
    return Outcome(str(count), 0 < count < 1000)


# speed

GOALS = {"minilm": 40_000, "bert": 15_000, "modernbert": 10_000}  # pairs a second on one H100 in bf16


def _pairs_per_second(work: Callable[[], int], device: str, dry: bool) -> float:
    """Return the best of three rounds after one to warm up."""
    best = 0.0
    for number in range(2 if dry else 4):
        synchronize(device)
        started = time.perf_counter()
        pairs = work()
        synchronize(device)
        if number:
            best = max(best, pairs / (time.perf_counter() - started))
    return best


@row("MiniLM-L6 40,000, BERT-base 15,000, ModernBERT-base 10,000 pairs a second (H100, bf16, 100 tokens a pair)", 40)
def rerank_speed(device: str, dry: bool) -> Outcome:
    """Speed of re-ranking, tokens ready."""
    figures, held = [], True
    for name, goal in GOALS.items():
        model = model_of(name, tiny=dry).eval()
        forward, pairs = forward_of(model, device, precisions(dry)[-1]), pairs_of(20 if dry else 6400, tiny=dry)

        def work(forward: ForwardPass = forward, pairs: Sequence[Pair] = pairs) -> int:
            with torch.inference_mode(), forward.scoring() as score:
                for start in range(0, len(pairs), 640):
                    score(pairs[start : start + 640])
            return len(pairs)

        rate = _pairs_per_second(work, device, dry)
        held &= dry or rate >= goal
        figures.append(
            f"{name} {rate:,.0f} pairs/s, {rate * sum(len(p.ids) for p in pairs) / len(pairs):,.0f} tokens/s"
        )
    return Outcome("; ".join(figures), held)


@row("twice as fast as with SDPA, 1.2 times as fast as with flash-attention-2 (its best batch size)", 45)
def rerank_ratio(device: str, dry: bool) -> Outcome:
    """Re-ranking texts with MiniLM, beside sentence-transformers at its best."""
    if not baselines.can_rerank():
        return Outcome("sentence-transformers is not installed", dry)
    sample = generated_sample(40 if dry else 12_800)
    with checkpoint(dry) as files:
        ours = own_workloads.CerankReranker(files, device, precisions(dry)[-1])
        own = _pairs_per_second(lambda: len(ours.score(sample)), device, dry)
        figures, held = [f"cerank {own:,.0f} pairs/s"], True
        for variant in baselines.variants(device):
            with others_settings():
                peer = baselines.SentenceTransformers(files, device, precisions(dry)[-1], variant)
                rate = _pairs_per_second(lambda peer=peer: len(peer.score(sample)), device, dry)
            goal = 1.2 if variant.attention == "flash_attention_2" else 2.0
            held &= dry or own >= goal * rate
            figures.append(f"{variant} {rate:,.0f}")
    return Outcome("; ".join(figures), held)


@row("BERT-base shapes at 256 pairs a step: 5,000 pairs a second (H100, bf16, dropout .1)", 30)
def training_speed(device: str, dry: bool) -> Outcome:
    """Speed of training with MiniLM from texts, at 32 and 256 pairs a step, and of BERT-base's forward and backward."""
    figures = []
    for groups in (4,) if dry else (4, 32):
        with _training(device, dry, groups) as training:
            timing = training.train(2 if dry else 10)
        figures.append(f"MiniLM {8 * groups} pairs a step: {timing.rate:,.0f} pairs/s")
    model = model_of("bert", tiny=dry).train()
    forward, pairs = forward_of(model, device, precisions(dry)[-1]), pairs_of(16 if dry else 256, tiny=dry)
    optimizer = torch.optim.AdamW(model.parameters(), fused=True)

    def work() -> int:
        _gradients(model, forward, pairs)
        optimizer.step()
        return len(pairs)

    rate = _pairs_per_second(work, device, dry)
    return Outcome("; ".join([*figures, f"BERT-base {rate:,.0f} pairs/s"]), dry or rate >= 5000)


@row("re-ranking reaches 40 % of the best measured matrix product", 10)
def utilization(device: str, dry: bool) -> Outcome:
    """Share of the device's peak that re-ranking BERT-base reaches."""
    precision = precisions(dry)[-1]
    shapes = ((256, 64, 256),) if dry else ((8192, 768, 3072), (4096, 4096, 4096), (8192, 8192, 8192))
    peak = measure_peaks(device, precision, shapes).best
    model = model_of("bert", tiny=dry).eval()
    forward, pairs = forward_of(model, device, precision), pairs_of(20 if dry else 640, tiny=dry)
    config: Any = model.encoder.config
    operations = own_workloads.encoder_operations(config, [len(pair.ids) for pair in pairs], reads_first_only=False)

    def work() -> int:
        with torch.inference_mode(), forward.scoring() as score:
            score(pairs)
        return len(pairs)

    share = _pairs_per_second(work, device, dry) / len(pairs) * operations / peak
    return Outcome(f"{share:.1%} of {peak / 1e12:.2f} TFLOP/s", dry or share >= 0.4)


@row("16 bytes a weight and 0.35 MB a token, within 15 %", 5)
def memory(device: str, dry: bool) -> Outcome:
    """Memory of a training step of BERT-base with 8,192 tokens."""
    model = model_of("bert", tiny=dry).train()
    forward, pairs = forward_of(model, device, precisions(dry)[-1]), pairs_of(16 if dry else 82, tiny=dry)
    optimizer = torch.optim.AdamW(model.parameters(), fused=True)
    weights, tokens = sum(p.numel() for p in model.parameters()), sum(len(pair.ids) for pair in pairs)
    _gradients(model, forward, pairs)
    optimizer.step()
    if dry:
        return Outcome(f"{weights} weights, {tokens} tokens: not measured on a CPU", True)
    torch.cuda.reset_peak_memory_stats(device)
    _gradients(model, forward, pairs)
    optimizer.step()
    peak, expected = torch.cuda.max_memory_allocated(device), 16 * weights + 0.35e6 * tokens
    return Outcome(f"{peak / 1e9:.2f} GB, {peak / expected:.2f} of what was expected", abs(peak / expected - 1) < 0.15)


@row("cerank computes a run on one GPU; two runs on two GPUs do not share a lock", 5)
def several_gpus(device: str, dry: bool) -> Outcome:
    """More than one GPU."""
    from cerank.machine.devices import detect_devices

    gpus = [found for found in detect_devices(os.environ) if found.kind == "cuda"]
    return Outcome(json.dumps([gpu.model for gpu in gpus]), len({gpu.key for gpu in gpus}) == len(gpus))
