"""A bundle's source: found again where this user converted it from, in the zoo, or where the user says; and run.

Bundles name their source by hash and never by a path of the machine that made them.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch

from edgeformer.attention import APPROXIMATE_KERNELS, KERNELS
from edgeformer.checkpoints.checkpoint import Checkpoint, load_module, open_checkpoint
from edgeformer.checkpoints.sentence import NO_PROMPT
from edgeformer.models.config import read_json
from edgeformer.models.family import Program
from edgeformer.models.score_range import exact_masks
from edgeformer.tasks.task import TASKS
from edgeformer.zoo import ZOO
from edgeformer_runtime.bundle.manifest import Manifest, Source
from edgeformer_runtime.delivery import cache_folder, make_private
from edgeformer_runtime.engines import Tensor
from edgeformer_runtime.engines.checked import decoder_over
from edgeformer_runtime.engines.decoder import CacheBucket, CacheSizes, SpeechDecoder, StateOwners
from edgeformer_runtime.errors import InputError

SOURCE_ATTENTION = "fused"
"""The attention kernel of source models: they run in torch, where it is the fastest; all of the table are exact."""


def remember(checkpoint: Checkpoint) -> tuple[str, ...]:
    """Note the folder of a checkpoint under its weight hash.

    Returns:
        Nothing, or why it could not be noted: a conversion goes on without.
    """
    try:
        path = _index_path()
        index = {**_read(path), checkpoint.source.weights_sha256: str(checkpoint.folder.resolve())}
        make_private(path.parent)
        _replace(path, json.dumps(index, indent=2, sort_keys=True))
    except (OSError, InputError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        return (
            f"the place of this checkpoint could not be noted in the cache ({reason}): name it with --source later",
        )
    return ()


def _replace(path: Path, text: str) -> None:
    """Write a file that appears whole or not."""
    descriptor, partial = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(text)
        Path(partial).replace(path)
    except BaseException:
        Path(partial).unlink(missing_ok=True)
        raise


def find(source: Source) -> Path:
    """The folder, or weight file alone, that held the weights of a bundle's source when it was converted here.

    A bundle that was made from the zoo finds it on every machine.

    Raises:
        InputError: this user has not converted that checkpoint on this machine, or its folder is gone.
    """
    folder = _read(_index_path()).get(source.weights_sha256)
    if folder is not None and Path(folder).exists():
        return Path(folder)
    zoo, _, name = source.id.partition(":")
    if zoo == "zoo" and name in ZOO:
        return ZOO[name].folder
    raise InputError(
        f"the checkpoint {source.id} of this bundle was not found on this machine: give its path with --source"
    )


def open_source(manifest: Manifest, source: str | None = None) -> Checkpoint:
    """Open the checkpoint that a bundle was made from, for the bundle's task.

    Args:
        manifest: the bundle's.
        source: a folder, a weight file, a hub id or a zoo name; None: where `find` finds it.

    Raises:
        InputError: it is not known here, is no checkpoint, or holds other weights than the bundle was made from.
    """
    checkpoint = open_checkpoint(
        source or str(find(manifest.source)),
        task=manifest.task,
        prompt=NO_PROMPT,
        # The user may have named them in place of an id2label that cannot be used.
        labels=getattr(manifest.postprocessing, "labels", None),
    )
    if checkpoint.source.weights_sha256 != manifest.source.weights_sha256:
        raise InputError(f"{source or checkpoint.folder} does not hold the weights that {manifest.name} was made from")
    return checkpoint


def known_source(manifest: Manifest, source: str | None, notes: list[str]) -> Checkpoint | None:
    """`open_source`, or None and a note where nobody named the checkpoint and it is not found.

    Raises:
        InputError: the named one cannot be used.
    """
    try:
        return open_source(manifest, source)
    except InputError as error:
        if source is not None:
            raise
        notes.append(f"no comparison with the source model: {error}")
        return None


def _index_path() -> Path:
    return cache_folder() / "sources.json"


def _read(path: Path) -> dict[str, str]:
    """What was noted; a file that is corrupted or cannot be read holds nothing."""
    try:
        found = read_json(path) if path.is_file() else None  # a pipe would be waited for
    except InputError:
        return {}
    entries = found.items() if isinstance(found, dict) else ()
    return {key: folder for key, folder in entries if isinstance(folder, str) and "\0" not in folder}


# The source model as an engine: the reference that vectors are recorded from and that peers are compared with.


class TorchEngine:
    """Runs programs eagerly in torch, in fp32, as the checkpoint has them."""

    name = "torch"
    not_covered: str | None = None

    def __init__(self, programs: Sequence[Program]) -> None:
        self.programs = {program.name: program for program in programs}
        self._owners = StateOwners()
        self.executed_by = f"torch {torch.__version__.split('+')[0]}"

    def run(self, program: str, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Run one program; see `Engine.run`."""
        spec = self.programs[program]
        # Exact masks: the reference must not hide a leak of padding by having it too.
        with torch.inference_mode(), exact_masks(spec.module):
            outputs = spec.module(*(torch.from_numpy(inputs[tensor.name]) for tensor in spec.inputs))
        return {tensor.name: output.numpy() for tensor, output in zip(spec.outputs, outputs, strict=True)}

    def open_decoder(self, bucket: CacheBucket, spec: CacheSizes) -> SpeechDecoder:
        """A decoder over a bucket's programs; see `Engine.open_decoder`."""
        return decoder_over(self.run, bucket, spec, self._owners)

    def close(self) -> None:
        """Nothing to release: the programs belong to the caller."""


# The programs of a bundle, made from its source anew: what the bundle's own are compared with.


def source_programs(manifest: Manifest, checkpoint: Checkpoint) -> tuple[Program, ...]:
    """The programs that a bundle was made of, in torch, in fp32, with the same attention where it is approximate.

    Raises:
        InputError: the checkpoint gives other programs today.
    """
    attention = APPROXIMATE_KERNELS.get(manifest.attention, KERNELS[SOURCE_ATTENTION])
    module, _ = load_module(checkpoint, attention)
    programs = checkpoint.programs(module, TASKS[manifest.task].program_options(manifest))
    if {program.name: program.inputs for program in programs} != {
        program.name: program.inputs for program in manifest.programs
    }:
        raise InputError(f"{checkpoint.source.id} no longer gives the programs of {manifest.name}: convert it again")
    return programs
