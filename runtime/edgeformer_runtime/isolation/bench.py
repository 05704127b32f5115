"""A benchmark's contender that confines its own process: what is measured has no pipe in between."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


def isolated_run(
    path: str, program: str, threads: int, required: dict[str, Any] | None = None, batch: int = 1
) -> Callable[[], object]:
    """`workload.bundle_run` in a process that keeps nothing but the bundle; arguments as there.

    A zip is unpacked before: afterwards nothing can be written.
    """
    from edgeformer_runtime.bundle.bundle import Bundle
    from edgeformer_runtime.bundle.requirement import Requirement
    from edgeformer_runtime.isolation.confinement import confine, readable_folders
    from edgeformer_runtime.isolation.process import Limits

    bundle = Bundle.open(path, Requirement.from_json(required), allow_refused=True)
    confine(Limits().memory_for(bundle.size_bytes), [str(bundle.folder.resolve()), *readable_folders()])

    from edgeformer_runtime.bench.workload import open_run
    from edgeformer_runtime.engines.native_output import stay_silent

    stay_silent()
    return open_run(bundle, program, threads, batch)
