"""A process that serves the tiny speech bundle, whose model transcribes noise.

python noise_service.py BUNDLE [--wyoming]
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from served import open_noise

from edgeformer_runtime.serve.options import ServeOptions
from edgeformer_runtime.serve.server import address, open_socket, run_server
from edgeformer_runtime.serve.service import Service
from edgeformer_runtime.serve.wyoming import WyomingServer

if __name__ == "__main__":
    listening = open_socket("127.0.0.1", 0)
    service = Service(lambda: open_noise(Path(sys.argv[1])), ServeOptions())
    wyoming_socket = open_socket("127.0.0.1", 0) if "--wyoming" in sys.argv else None

    def tell() -> None:
        print(f"noise answers at {address(listening)} ", flush=True)
        if wyoming_socket is not None:
            print(f"Wyoming at port:{wyoming_socket.getsockname()[1]}", flush=True)

    run_server(service, listening, tell, None if wyoming_socket is None else WyomingServer(service, wyoming_socket))
