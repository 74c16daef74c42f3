"""lightning-ir as a contender: answers the lines of `cerank.bench.interleaved_rounds`, without importing cerank.

    python -m venv lightning && lightning/bin/pip install lightning-ir 'transformers<5' 'torch<2.14'

Its user scores one query's candidates at a time and trains by lightning's Trainer; weights are those of the checkpoint
that all load, its pooler and head included, so that its scores are comparable. BERT's family alone is set up here.
Invariant: nothing but the standard library, torch and lightning-ir.
"""

import json
import os
import random
import sys
import time
import warnings
from pathlib import Path
from types import SimpleNamespace

LENGTH, QUERY_LENGTH = 256, 64


def main():
    """Answers each line of standard input with one line, until there are no more."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    held = {}
    for line in sys.stdin:
        ask = json.loads(line)
        if ask.get("prepare"):
            work = SimpleNamespace(device="cpu", precision="fp32", steps=4, groups=4, group_size=8)
            work.__dict__.update(ask["prepare"])
            held[work.name] = (_training if work.task == "train" else _scoring)(work)
            answer = {}
        else:
            answer = held[ask["run"]](ask)
        answers.write(json.dumps({**answer, "memory": _most_memory()}) + "\n")
        answers.flush()


def _most_memory():
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM"):
            return int(line.split()[1]) * 1024
    return 0


def _module(work, **options):
    import torch
    from lightning_ir import CrossEncoderModule
    from lightning_ir.models import MonoConfig
    from safetensors.torch import load_file

    torch.set_num_threads(work.threads)
    config = MonoConfig(query_length=QUERY_LENGTH, doc_length=LENGTH, pooling_strategy="bert_pool", linear_bias=True)
    module = CrossEncoderModule(model_name_or_path=work.folder, config=config, **options)
    weights = load_file(f"{work.folder}/model.safetensors")
    with torch.no_grad():
        for name, parameter in (("bert.pooler.dense", module.model.bert_pool[0]), ("classifier", module.model.linear)):
            parameter.weight.copy_(weights[f"{name}.weight"])
            parameter.bias.copy_(weights[f"{name}.bias"])
    return module.to(work.device)


def _scoring(work):
    import torch

    module = _module(work).eval()
    if work.precision == "bf16":
        module = module.to(torch.bfloat16)
    sample = json.loads(Path(work.sample).read_text())

    def score(lists):
        out = []
        for query, docs in lists.items():
            texts = [sample["documents"][doc] for doc in docs]
            out += module.score([sample["queries"][query]], [texts]).scores.float().tolist()
        return out

    first = next(iter(sample["lists"]))
    score({first: sample["lists"][first][:16]})

    def go(ask):
        started = time.perf_counter()
        scores = score(sample["lists"])
        seconds = time.perf_counter() - started
        if ask.get("scores"):
            Path(ask["scores"]).write_text(json.dumps(scores))
        return {"pairs": len(scores), "seconds": seconds}

    return go


def _training(work):
    import torch
    from lightning import Callback, Trainer
    from lightning_ir.data.data import TrainBatch
    from lightning_ir.loss.listwise import InfoNCE

    module = _module(work, loss_functions=[InfoNCE()]).train()
    module.set_optimizer(torch.optim.AdamW, lr=1e-5)
    sample = json.loads(Path(work.sample).read_text())
    rng = random.Random(0)

    def batch(_):
        queries = rng.sample(list(sample["lists"]), min(work.groups, len(sample["lists"])))
        ids = [[sample["lists"][q][0], *rng.sample(sample["lists"][q][1:], work.group_size - 1)] for q in queries]
        targets = torch.tensor([[1.0] + [0.0] * (work.group_size - 1)] * len(queries))
        texts = [[sample["documents"][doc] for doc in docs] for docs in ids]
        return TrainBatch([sample["queries"][q] for q in queries], texts, queries, ids, None, targets)

    class Clock(Callback):
        def on_train_batch_end(self, *_, **__):
            times.append(time.perf_counter())

    times = []

    def go(_):
        times.clear()
        trainer = Trainer(
            accelerator="cpu" if work.device == "cpu" else "gpu",
            devices=1,
            max_steps=work.steps + 1,
            precision="bf16-mixed" if work.precision == "bf16" else "32-true",
            gradient_clip_val=1.0,
            callbacks=[Clock()],
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
        )
        loader = torch.utils.data.DataLoader(range(work.steps + 1), batch_size=None, collate_fn=batch)
        trainer.fit(module, loader)
        pairs = work.steps * min(work.groups, len(sample["lists"])) * work.group_size
        return {"pairs": pairs, "seconds": times[-1] - times[0]}

    return go


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    main()
