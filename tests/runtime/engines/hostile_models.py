"""Verifies a bundle again and again with spoiled model files whose hashes agree; a process of its own, in case it dies.

python hostile_models.py BUNDLE CHANGES SEEDS prints how often each end was met, as JSON; CHANGES is a key of
MODEL_CHANGES.
"""

from __future__ import annotations

import json
import random
import shutil
import sys
import tempfile
from collections import Counter
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parents[1]))

from mutations import MODEL_CHANGES
from tiny_bundle import seal

from edgeformer_runtime.bundle import Bundle
from edgeformer_runtime.errors import EdgeFormerError
from edgeformer_runtime.manifest import MANIFEST_NAME, parse
from edgeformer_runtime.verify import verify


def main(original: Path, changes: str, seeds: int) -> None:
    manifest = parse((original / MANIFEST_NAME).read_bytes())
    file = manifest.programs[0].file
    good = (original / file).read_bytes()
    ends: Counter[str] = Counter()
    with tempfile.TemporaryDirectory() as temporary:
        for seed in range(seeds):
            generator = random.Random(seed)
            files = {file: good}
            for _ in range(generator.choice((1, 1, 2, 4))):
                generator.choice(MODEL_CHANGES[changes])(files, file, generator)
            folder = Path(temporary, str(seed))  # a file that is mapped is never overwritten
            shutil.copytree(original, folder)
            (folder / file).write_bytes(files[file])
            seal(folder, manifest)
            print(f"seed {seed}", file=sys.stderr, flush=True)
            try:
                with Bundle.open(folder) as bundle:
                    ends["ok" if verify(bundle).ok else "diverges"] += 1
            except EdgeFormerError as error:
                assert "\n" not in str(error)
                ends[type(error).__name__] += 1
            shutil.rmtree(folder)
    print(json.dumps(ends))


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]))
