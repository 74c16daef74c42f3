from __future__ import annotations

import os
import pty
import select
import signal
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import pytest

from cerank.errors import ExitCode
from cerank.files import lease
from cerank.machine import devices
from cerank.runs import run_store
from cerank.runs.layout import QueueFolder, RunFolder
from cerank.scheduler import local_launcher
from tests.scheduler.conftest import STANDIN, TOML, Bench, eventually, plan_for

CANARY = "hf_ThisIsNoRealTokenButLooksLikeOne0"
TOKENS = (
    "HF_TOKEN",
    "HUGGING_FACE_HUB_TOKEN",
    "HUGGINGFACE_TOKEN",
    "HF_TRUST_REMOTE_CODE",
    "WANDB_API_KEY",
    "OPENAI_API_KEY",
    "AWS_SECRET_ACCESS_KEY",
    "GITHUB_TOKEN",
    "NVIDIA_API_KEY",
    "NGC_API_KEY",
    "SLURM_JWT",
    "XDG_SESSION_COOKIE",
    "HTTPS_PROXY",
    "SSH_AUTH_SOCK",
    "LD_PRELOAD",
    "PYTHONSTARTUP",
)


def test_the_environment_of_a_worker_is_a_list_of_names_and_tokens_are_not_on_it() -> None:
    given = dict.fromkeys(TOKENS, CANARY) | {"PATH": "/bin", "LC_ALL": "C", "HF_HOME": "/models", "HF_HUB_OFFLINE": "0"}
    seen = local_launcher.environment(plan_for(), given)
    assert CANARY not in seen.values()
    assert (seen["PATH"], seen["LC_ALL"], seen["HF_HOME"]) == ("/bin", "C", "/models")
    assert (seen["HF_HUB_OFFLINE"], seen["OMP_NUM_THREADS"]) == ("1", "1")


@pytest.mark.parametrize(
    ("allowed", "asked", "key"),
    [
        (None, "cuda", "cuda:0"),
        ("3", "cuda:0", "cuda:3"),
        ("3,1", "cuda:1", "cuda:1"),
        ("MIG-a,MIG-b", "cuda:1", "MIG-b"),
        ("3", "cuda:1", "cuda:1"),
        ("", "cuda:0", "cuda:0"),
        ("3", "cpu", "cpu"),
    ],
)
def test_a_gpu_that_no_driver_tells_of_goes_by_what_the_environment_calls_it(
    allowed: str | None, asked: str, key: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(devices, "detect_gpus", list)
    given = {} if allowed is None else {"CUDA_VISIBLE_DEVICES": allowed}
    assert devices.device_key(asked, given) == key


def test_no_token_reaches_supervisor_or_worker_by_way_of_the_system(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in TOKENS[:2]:
        monkeypatch.setenv(name, CANARY)
    (folder,) = bench.enqueued("hold")
    eventually(lambda: bench.is_at_work(folder))
    for path in (folder.lease, QueueFolder(bench.folder).lease):
        owner = lease.owner(path)
        assert owner is not None
        assert owner.pid != os.getpid()
        environ = Path(f"/proc/{owner.pid}/environ").read_bytes()
        assert b"PATH=" in environ
        assert CANARY.encode() not in environ


def test_a_module_in_the_run_folder_is_not_taken_for_one_of_pythons(bench: Bench) -> None:
    folder = run_store.create(bench.folder, plan_for(), TOML, datetime.now(UTC))
    (folder.path / "msgspec.py").write_text("raise SystemExit(77)\n")
    (folder.path / "cerank").mkdir()
    broken = RunFolder(folder.path)
    folder.plan.write_text("{")
    assert local_launcher.start(plan_for(), broken).wait(60) == ExitCode.USAGE
    assert "plan.json" in folder.log.read_text()


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def test_a_second_worker_on_a_run_exits_4_having_written_nothing(bench: Bench) -> None:
    folder, first = bench.lab.start(plan_for(label="hold"), TOML)
    eventually(folder.attempt(1).exists)
    before = contents(folder.path)
    assert local_launcher.start(plan_for(), folder).wait(60) == ExitCode.HELD
    assert local_launcher.start(plan_for(), folder, command=STANDIN).wait(60) == ExitCode.HELD
    assert contents(folder.path) == before
    bench.release()
    assert first.wait(30) == 0


LAUNCHER = """
import sys
from pathlib import Path
from tests.scheduler.conftest import TOML, Bench, plan_for
bench = Bench(Path(sys.argv[1]))
if sys.argv[2] == "queue":
    bench.enqueued("hold", "quick")
else:
    bench.lab.start(plan_for(label="hold"), TOML)
print("launched", flush=True)
sys.stdin.read()
"""


def launched_on_a_terminal(lab: Path, how: str) -> tuple[int, int]:
    """(pid, the terminal's other end) of a process that launched a run and then sits at its own terminal."""
    pid, terminal = pty.fork()
    if pid == 0:
        signal.signal(signal.SIGHUP, signal.SIG_DFL)  # ignored where the tests were started by nohup
        os.chdir(Path(__file__).parents[2])
        os.execv(sys.executable, [sys.executable, "-c", LAUNCHER, str(lab), how])
    said = b""
    while b"launched" not in said:
        assert select.select([terminal], [], [], 30)[0], said
        said += os.read(terminal, 1024)
    return pid, terminal


@pytest.mark.parametrize("how", ["start", "queue"])
@pytest.mark.parametrize("end", ["hang-up", "kill"])
def test_a_run_goes_on_when_its_launcher_is_killed_or_its_terminal_hangs_up(bench: Bench, how: str, end: str) -> None:
    pid, terminal = launched_on_a_terminal(bench.folder, how)
    (folder, *rest) = [row.folder for row in sorted(bench.lab.listed(), key=lambda row: row.status.state != "running")]
    eventually(lambda: any(state == "running" for state in bench.states([folder, *rest])))
    if end == "kill":
        os.kill(pid, signal.SIGKILL)
    os.close(terminal)
    _, status = os.waitpid(pid, 0)
    assert os.waitstatus_to_exitcode(status) == (-signal.SIGKILL if end == "kill" else -signal.SIGHUP)
    bench.release()
    eventually(lambda: set(bench.states([folder, *rest])) == {"finished"})
    assert {len(bench.starts(run)) for run in (folder, *rest)} == {1}


def test_a_prepared_run_is_carried_out_by_the_command_that_is_printed_wherever_it_is_given(
    bench: Bench, tmp_path: Path
) -> None:
    folder, command = bench.lab.prepare(plan_for("cuda:7", "quick"), TOML)
    assert bench.state(folder) == "waiting"
    done = subprocess.run(["/bin/sh", "-c", command], cwd=tmp_path, capture_output=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    assert bench.state(folder) == "finished"
    assert "OMP_NUM_THREADS=" in command


@pytest.mark.slow
def test_the_real_worker_takes_its_turn_and_says_why_it_failed(bench: Bench) -> None:
    bench.lab.worker = local_launcher.WORKER
    (folder,) = bench.enqueued("real")
    eventually(lambda: bench.state(folder) == "failed", 120)
    eventually(lambda: bench.lab.queue_state().state == "idle")
    assert bench.lab.status(folder).attempts == 1
    assert "ended with 1" in QueueFolder(bench.folder).log.read_text()


@pytest.mark.parametrize(
    "name",
    [
        "ATEN_CPU_CAPABILITY",
        "ONEDNN_MAX_CPU_ISA",
        "DNNL_MAX_CPU_ISA",
        "MKL_ENABLE_INSTRUCTIONS",
        "NPY_DISABLE_CPU_FEATURES",
    ],
)
def test_a_worker_may_use_the_instructions_that_its_user_allows_and_no_others(name):
    assert local_launcher.environment(plan_for(), {name: "AVX2"})[name] == "AVX2"
