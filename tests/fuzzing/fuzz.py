"""`python -m tests.fuzzing.fuzz TARGET --minutes 10`: a coverage-guided fuzzer over one reader, or over all in turn.

It needs atheris (libFuzzer for Python; `pip install atheris`, wheels for Linux and CPython 3.11 to 3.13). An input that
lets anything but cerank's own errors out is kept in corpus/TARGET, where the tests try it for good. Inputs that only
reach new code stay in a scratch folder: their number would grow without end. The few that reach the most of it go into
the corpus with `--keep`, from where the next fuzzing starts.
"""

from __future__ import annotations

import argparse
import hashlib
import shlex
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

KEPT = Path(__file__).parent / "corpus"
WORDS = (
    b"\xef\xbb\xbf", b"\xff\xfe", b"\r\n", b"\0", b"\x1f\x8b\x08", b"\x28\xb5\x2f\xfd", b"PK\x03\x04", b"PAR1", b"NaN",
    b"Infinity", b"1e39", b"-1e-46", b"1_0", b"9" * 40, b"null", b"\\ud800", b"\xc2\xa0", b"\xe2\x80\xa8", b"../",
    b"[[", b"q1 Q0 d1 1 1 t\n", b'"""', b"{", b"}", b"[", b"]", b'":', b"0x7f", b"inf", b"1979-05-27", b" = ",
)  # fmt: skip


def main() -> int:
    """The command; exit code 1 where an input was found that a reader cannot take."""
    words = argparse.ArgumentParser(prog="python -m tests.fuzzing.fuzz", description=__doc__)
    words.add_argument("target", help="a target's name, 'all', or 'list'")
    words.add_argument("--minutes", type=float, default=10.0, help="of each target")
    words.add_argument("--keep", type=int, default=0, metavar="N", help="put the N inputs of most reach in the corpus")
    words.add_argument("--inside", help=argparse.SUPPRESS)
    words.add_argument("--merge", action="store_true", help=argparse.SUPPRESS)
    asked, rest = words.parse_known_args()
    if asked.merge:
        return _started(asked.target, Path(asked.inside), rest, str(Path(asked.inside) / "again"))
    if rest:
        words.error(f"no option {rest[0]}")
    if asked.inside:
        return _fuzz(asked.target, asked.minutes, Path(asked.inside))
    from tests.fuzzing.targets import TARGETS

    if asked.target == "list":
        print("\n".join(TARGETS))
        return 0
    names = list(TARGETS) if asked.target == "all" else [asked.target]
    unknown = [name for name in names if name not in TARGETS]
    if unknown:
        words.error(f"no target {unknown[0]}; `list` names them")
    return max(_apart(name, asked.minutes, asked.keep) for name in names)


def _apart(name: str, minutes: float, keep: int) -> int:
    """One target in a process of its own: libFuzzer ends the process it runs in."""
    memory = Path("/dev/shm")  # thirty times the inputs a second, for each is written to a file
    with tempfile.TemporaryDirectory(prefix="fuzz-", dir=memory if memory.is_dir() else None) as scratch:
        room = Path(scratch)
        for part in ("inputs", "found"):
            (room / part).mkdir()
        (room / "words").write_text("".join(f'"{_escaped(word)}"\n' for word in WORDS))
        command = [sys.executable, "-m", "tests.fuzzing.fuzz", name, "--minutes", str(minutes), "--inside", scratch]
        done = subprocess.run(command, check=False, capture_output=True, text=True, errors="replace")
        found = [path for path in (room / "found").iterdir() if not path.name.startswith("slow-")]
        for path in found:
            target = KEPT / name / f"found-{hashlib.sha256(path.read_bytes()).hexdigest()[:12]}"
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, target)
        last = [line for line in done.stderr.splitlines() if line.startswith(("Done", "stat::number_of"))]
        coverage = [line for line in done.stderr.splitlines() if " cov: " in line]
        print(f"{name}: {len(found)} found; {' '.join(last)}; {coverage[-1][:70] if coverage else 'no coverage'}")
        if found or not last:
            print(done.stderr[-4000:], file=sys.stderr)
        if keep:
            _kept(name, room, keep)
        return 1 if found or not last else 0


def _kept(name: str, room: Path, most: int) -> None:
    """Puts into the corpus what a merge leaves of the inputs, the smallest first, and drops what was kept so before."""
    (room / "merged").mkdir()
    again, command = (
        room / "again",
        [sys.executable, "-m", "tests.fuzzing.fuzz", name, "--inside", str(room), "--merge"],
    )
    again.write_text(f'#!/bin/sh\nexec {shlex.join(command)} "$@"\n')  # libFuzzer merges in processes of its own
    again.chmod(0o700)
    options = ["-set_cover_merge=1", "-max_len=2000", str(room / "merged"), str(room / "inputs")]
    subprocess.run([*command, *options], check=False, capture_output=True)
    chosen = sorted((path.read_bytes() for path in (room / "merged").iterdir()), key=lambda data: (len(data), data))
    for path in (KEPT / name).glob("reached-*"):
        path.unlink()
    for data in chosen[:most]:
        (KEPT / name / f"reached-{hashlib.sha256(data).hexdigest()[:12]}").write_bytes(data)


def _escaped(word: bytes) -> str:
    return "".join(f"\\x{byte:02x}" for byte in word)


def _fuzz(name: str, minutes: float, room: Path) -> int:
    if (KEPT / name).is_dir():
        shutil.copytree(KEPT / name, room / "inputs", dirs_exist_ok=True)
    options = [f"-max_total_time={max(1, round(minutes * 60))}", "-max_len=4000", "-timeout=300", "-rss_limit_mb=6000"]
    options += [f"-artifact_prefix={room}/found/", f"-dict={room}/words", "-print_final_stats=1", "-len_control=0"]
    return _started(name, room, [*options, str(room / "inputs")], sys.argv[0])


def _started(name: str, room: Path, options: list[str], itself: str) -> int:
    """Runs libFuzzer over the target in this process, which it ends; `itself` is what it calls for a second one."""
    import atheris

    with atheris.instrument_imports(include=["cerank"]):
        from tests.fuzzing.targets import TARGETS
    target = TARGETS[name]
    place = room / "place"

    def once(data: bytes) -> None:
        shutil.rmtree(place, ignore_errors=True)
        place.mkdir()
        (place / target.file).write_bytes(data)
        target.refusal(place)

    atheris.Setup([itself, *options], once)
    atheris.Fuzz()
    return 0


if __name__ == "__main__":
    sys.exit(main())
