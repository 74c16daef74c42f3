"""The command line: thin commands; data on stdout, messages on stderr, documented exit codes.

Invariant: no rule, default or computation lives here, and nothing heavy is imported before a command needs it.
"""

from __future__ import annotations

import errno
import importlib.util
import sys
import tempfile
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

from cerank.errors import CerankError, ExitCode, os_reason
from cerank.text.safe_text import redacted

_OUTPUT_ERRORS = {errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EBADF}  # raised when a library prints help to a stream


def main() -> None:
    """Run the command that the arguments name, and end the process with its exit code."""
    from cerank.cli.output import check_written, open_missing_streams, report_error

    open_missing_streams()
    if importlib.util.find_spec("fcntl") is None:  # Windows; see `cerank guide decisions`, section 21
        what = "cerank needs Linux or macOS: the locks of a run have no equal on this system"
        report_error(CerankError(what, hint="run it in the Windows Subsystem for Linux"))
        sys.exit(ExitCode.USAGE)
    from cerank.cli.typer_app import app

    try:
        try:
            _run_command(app)
        finally:
            check_written()
    except CerankError as error:
        report_error(error)
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        sys.exit(ExitCode.INTERRUPTED)
    except OSError as error:
        if error.filename is not None or error.errno not in _OUTPUT_ERRORS:
            _report_bug(error)
        report_error(CerankError(f"cannot write to standard output: {os_reason(error)}"))
        sys.exit(ExitCode.FAILED)
    except Exception as error:  # noqa: BLE001 - the top of the program: the user gets a sentence, the traceback goes to a file
        _report_bug(error)


def _run_command(app: Callable[[], object]) -> None:
    """Run the command here, or where its lab is."""
    if any("ssh://" in word for word in sys.argv):
        from cerank.cli import remote_lab

        address = remote_lab.address_in(sys.argv[1:])
        if address and not remote_lab.runs_here(sys.argv[1:]):
            sys.exit(remote_lab.run_there(sys.argv[1:], address))
    app()


def _report_bug(error: Exception) -> NoReturn:
    """Write the traceback to a file, print a sentence that names it, and end the process."""
    from cerank.cli.output import report_error

    with tempfile.NamedTemporaryFile(prefix="cerank-", suffix=".txt", delete=False) as file:
        file.write(redacted(traceback.format_exc()).encode("utf-8", "backslashreplace"))
    fault = CerankError(
        f"internal error: {type(error).__name__}: {error}",
        where=str(Path(file.name)),
        hint="this is a bug in cerank; please report it with that file, which holds the traceback",
    )
    report_error(fault)
    sys.exit(ExitCode.FAILED)
