"""The entry point `edgeformer-runtime`, which says what to install where its own packages are missing."""

from __future__ import annotations

import sys

from edgeformer_runtime.registry import needs

EXTRA = "cli"


def main() -> None:
    """Run the command line; exit code 2: it is not installed."""
    try:
        from edgeformer_runtime.cli import app
    except ImportError as error:
        if error.name not in ("typer", "rich"):
            raise
        sys.stderr.write(f"error: {needs('the command line', error, EXTRA)}\n")
        raise SystemExit(2) from None
    app.main()
