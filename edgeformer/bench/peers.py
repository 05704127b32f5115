"""Peers for `bench --against`: other engines on the same weights and the same recorded input, each at its best.

A peer gets what its own tools make of the public model: what our programs leave out is part of the comparison. Its
factory is called in a process of its own, so it imports only what it needs.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from edgeformer_runtime.bench.contender import Contender
from edgeformer_runtime.bundle.bundle import Bundle
from edgeformer_runtime.bundle.specs import Transcription
from edgeformer_runtime.choices import did_you_mean
from edgeformer_runtime.errors import InputError

TENSOR_PEERS = ("onnxruntime", "openvino", "torch", "ncnn")
"""What runs text and image models."""

SPEECH_PEERS = ("faster-whisper", "whisper.cpp", "onnxruntime", "torch")
"""What runs Whisper."""

PEERS = tuple(dict.fromkeys((*TENSOR_PEERS, *SPEECH_PEERS)))
ALIASES = {"ort": ("onnxruntime",), "onnx": ("onnxruntime",), "pytorch": ("torch",), "ggml": ("whisper.cpp",)}
"""What the field calls them."""


def peer_contenders(
    names: Sequence[str],
    bundle: Bundle,
    source: str | None,
    folder: Path,
    program: str | None = None,
    batch: int = 1,
) -> list[Contender]:
    """Prepare the named peers' models, and the recorded input that the bundle is measured on, in `folder`.

    Args:
        names: members of `PEERS`.
        bundle: whose weights and input the peers get.
        source: the checkpoint; None: where this user converted it from.
        folder: an empty folder that lives as long as the benchmark.
        program: of the bundle, as in `workload`; None: the largest.
        batch: how many inputs a run answers: text and image models take them at once, speech models one by one.

    Raises:
        InputError: a peer that is unknown, does not run such a model or is not installed, or a source whose weights are
            not the bundle's.
    """
    manifest = bundle.manifest
    speech = isinstance(manifest.postprocessing, Transcription)
    able = SPEECH_PEERS if speech else TENSOR_PEERS
    for name in names:
        if name not in able:
            raise InputError(
                f"the peer {name!r} does not run {manifest.task}: {did_you_mean(name, able)}"
                f"expected one of {', '.join(able)}"
            )
    from edgeformer.checkpoints.source_index import (
        open_source,  # it imports torch, which a benchmark without peers has no use for
    )

    checkpoint = open_source(manifest, source)
    try:
        if speech:
            from edgeformer.bench.speech_peers import speech_contenders

            return speech_contenders(names, bundle, checkpoint, folder, program, batch)
        from edgeformer.bench.tensor_peers import tensor_contenders

        return tensor_contenders(names, bundle, checkpoint, folder, program, batch)
    except ImportError as error:
        raise InputError(f"a peer needs the package {error.name}: pip install 'edgeformer[peers]'") from None
