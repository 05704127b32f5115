"""What bundles' programs compute on this machine: run with any Python that has the runtime, emulated or not.

    python tools/pi/outputs.py OUT BUNDLE...

Writes OUT/<bundle's name>.npz with an array `<program>/<output>` for each output of each program.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

from edgeformer_runtime.bundle.bundle import Bundle
from edgeformer_runtime.bundle.manifest import ProgramSpec
from edgeformer_runtime.bundle.vectors import read_vectors
from edgeformer_runtime.engines import Tensor, open_engine


def inputs_of(bundle: Bundle) -> dict[str, dict[str, Tensor]]:
    """Inputs for each program: recorded ones, or seeded ones where vectors hold only samples of the tensors."""
    cases = read_vectors(bundle)[0]
    shapes = {program.name: {spec.name: spec.shape for spec in program.inputs} for program in bundle.manifest.programs}
    if all({name: array.shape for name, array in case.inputs.items()} == shapes[case.program] for case in cases):
        return {case.program: dict(case.inputs) for case in cases}
    return {program.name: seeded_inputs(program) for program in bundle.manifest.programs}


def seeded_inputs(program: ProgramSpec) -> dict[str, Tensor]:
    """Noise like a spectrogram's or a cache's values, and 0 or 1 for whatever is a token, a position or a row.

    The noise is made of integers, so that it is the same on all machines.
    """
    random = np.random.default_rng(0)
    inputs: dict[str, Tensor] = {}
    for spec in program.inputs:
        if spec.dtype == "int32":
            inputs[spec.name] = random.integers(0, 2, spec.shape, dtype=np.int32)
        else:
            inputs[spec.name] = random.integers(-1000, 1001, spec.shape).astype(np.float32) / np.float32(1000)
    return inputs


def outputs_of(path: Path) -> dict[str, Tensor]:
    """Each output of each program of a bundle, by "<program>/<output>"."""
    found: dict[str, Tensor] = {}
    with Bundle.open(path) as bundle:
        engine = open_engine(bundle)
        try:
            for program, inputs in inputs_of(bundle).items():
                outputs = engine.run(program, inputs)
                found |= {f"{program}/{name}": tensor for name, tensor in outputs.items()}
        finally:
            engine.close()
    return found


def main() -> None:
    """Entry point."""
    out, *bundles = map(Path, sys.argv[1:])
    for path in bundles:
        with (out / f"{path.name}.npz").open("wb") as file:
            np.savez(file, allow_pickle=False, **outputs_of(path))
        print(f"  {path.name}", flush=True)


if __name__ == "__main__":
    main()
