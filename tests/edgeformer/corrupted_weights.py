"""Corrupts a parameter in a bundle's model file, wherever the target keeps it, and makes the hashes agree again."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np

from edgeformer.checkpoints.source_index import open_source, source_programs
from edgeformer_runtime.bundle.bundle import Bundle
from edgeformer_runtime.bundle.manifest import MANIFEST_NAME, parse
from tests.runtime.tiny_bundle import seal

FAR_OFF = 50.0


def corrupted_copy(original: Path, source: Path, parameter: str, folder: Path) -> Path:
    """A copy of a bundle in which one number of a parameter of its source's module is far off."""
    shutil.copytree(original, folder)
    with Bundle.open(original) as bundle:
        module = source_programs(bundle.manifest, open_source(bundle.manifest, str(source)))[0].module
    values = module.get_parameter(parameter).detach().numpy()
    files = [path for path in sorted(folder.rglob("*")) if path.is_file() and path.parent.name != "vectors"]
    assert sum(_corrupt(path, values) for path in files) == 1, f"{parameter} is not there as it is"
    seal(folder, parse((folder / MANIFEST_NAME).read_bytes()))
    return folder


def _corrupt(path: Path, values: np.ndarray) -> bool:
    """Change the number in the middle, if the file holds the values in float32 or float16, transposed or not."""
    content = path.read_bytes()
    for stored in (values, values.T):
        for dtype in (np.float32, np.float16):
            flat = np.ascontiguousarray(stored, dtype).ravel()
            place = content.find(flat.tobytes())
            if place >= 0:
                flat[flat.size // 2] = FAR_OFF
                path.write_bytes(content[:place] + flat.tobytes() + content[place + flat.nbytes :])
                return True
    return False
