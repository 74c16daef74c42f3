"""The command line: thin commands; data on stdout, messages on stderr, documented exit codes.

Invariant: no rule, default or computation lives here, and nothing heavy is imported before a command needs it.
"""

from __future__ import annotations

import importlib.util
import sys
import tempfile
import traceback
from pathlib import Path

from cerank.errors import CerankError, ExitCode
from cerank.text.safe_text import redacted


def main() -> None:
    """Run the command that the arguments name, and end the process with its exit code."""
    from cerank.cli.output import report_error

    if importlib.util.find_spec("fcntl") is None:  # Windows; see `cerank guide decisions`, section 21
        what = "cerank needs Linux or macOS: the locks of a run have no equal on this system"
        report_error(CerankError(what, hint="run it in the Windows Subsystem for Linux"))
        sys.exit(ExitCode.USAGE)
    from cerank.cli.typer_app import app

    try:
        app()
    except CerankError as error:
        report_error(error)
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        sys.exit(ExitCode.INTERRUPTED)
    except Exception as error:  # noqa: BLE001 - the top of the program: the user gets a sentence, the traceback goes to a file
        with tempfile.NamedTemporaryFile(prefix="cerank-", suffix=".txt", delete=False) as file:
            file.write(redacted(traceback.format_exc()).encode("utf-8", "backslashreplace"))
        fault = CerankError(
            f"internal error: {type(error).__name__}: {error}",
            where=str(Path(file.name)),
            hint="this is a bug in cerank; please report it with that file, which holds the traceback",
        )
        report_error(fault)
        sys.exit(ExitCode.FAILED)
