"""What `serve` does: options from the command line, a bundle, a server."""

from __future__ import annotations

from pathlib import Path

from edgeformer_runtime.bundle.requirement import Requirement
from edgeformer_runtime.cli.console import err, out
from edgeformer_runtime.serve.options import ServeOptions
from edgeformer_runtime.serve.server import address, is_local, open_socket, run_server
from edgeformer_runtime.serve.service import open_service


def serve_bundle(
    path: Path,
    host: str,
    port: int,
    options: ServeOptions,
    threads: int,
    required: Requirement,
    isolated: bool | None = None,
) -> None:
    """Serve a bundle until the process is told to end.

    Raises:
        InputError: no such address, a port that is taken, or a fallback for a task that has none.
        BundleError: the bundle does not follow BUNDLE.md, or is not what is required.
        EngineError: its engine does not run here.
    """
    listening = open_socket(host, port)
    try:
        service = open_service(path, options, threads, required, isolated)
    except BaseException:
        listening.close()
        raise
    if not is_local(host):
        err.print("note: who reaches this address can use the service: it asks for no password and encrypts nothing")
    url = address(listening)
    run_server(service, listening, lambda: out.print(f"{service.manifest.name} answers at {url}  (Ctrl-C ends it)"))
