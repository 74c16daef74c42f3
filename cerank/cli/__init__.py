"""The command line: thin commands; data on stdout, messages on stderr, documented exit codes.

Invariant: no rule, default or computation lives here, and nothing heavy is imported before a command needs it.
"""

from __future__ import annotations

import sys
import tempfile
import traceback
from pathlib import Path

from cerank.errors import CerankError, ExitCode
from cerank.text.safe_text import redacted


def main() -> None:
    """Runs the command that the arguments name, and ends the process with its exit code."""
    from cerank.cli.output import report_error
    from cerank.cli.typer_app import app

    try:
        app()
    except CerankError as error:
        report_error(error)
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        sys.exit(ExitCode.INTERRUPTED)
    except Exception as error:  # noqa: BLE001 - the top of the program: a person gets a sentence, the traceback a file
        with tempfile.NamedTemporaryFile(prefix="cerank-", suffix=".txt", delete=False) as file:
            file.write(redacted(traceback.format_exc()).encode("utf-8", "backslashreplace"))
        fault = CerankError(
            f"a fault of cerank: {type(error).__name__}: {error}",
            where=str(Path(file.name)),
            hint="the file holds the traceback; please report it",
        )
        report_error(fault)
        sys.exit(ExitCode.FAILED)
