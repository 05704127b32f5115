"""Check: a speech model's alignment heads, which times of words come from, are heads that the decoder has."""

from __future__ import annotations

from collections.abc import Iterable

from edgeformer.checkpoints import source_index
from edgeformer.doctor.examination import Examination
from edgeformer.doctor.finding import Finding, error, fine, info, warning
from edgeformer.models.json_files import read_object
from edgeformer.models.whisper.config import parse_config, with_alignment_heads
from edgeformer_runtime.bundle.manifest import Manifest
from edgeformer_runtime.bundle.specs import Transcription
from edgeformer_runtime.errors import InputError

CHECK = "alignment_heads"
WHY = "times of words come from these heads alone: others give times that are off or jump"
DO = "measure which heads align, name them in generation_config.json and convert again"


def check_alignment_heads(examination: Examination) -> Iterable[Finding]:
    """How many there are, and where the source is at hand, which of those that it states were dropped."""
    manifest = examination.bundle.manifest
    head = manifest.postprocessing
    if not isinstance(head, Transcription):
        return
    available = head.layers * head.heads
    if head.alignment_heads > available:
        yield error(
            CHECK,
            f"{head.alignment_heads} alignment heads, but the decoder's {head.layers} layers have {available} heads",
            WHY,
            "convert the checkpoint again",
        )
        return
    if head.alignment_heads == (head.layers - head.layers // 2) * head.heads:
        yield info(
            CHECK,
            f"{head.alignment_heads} alignment heads: as many as the upper half of the {head.layers} layers has",
            "that half stands in where a checkpoint states no heads that it has; times of words are then rougher",
            DO,
        )
    else:
        yield fine(CHECK, f"{head.alignment_heads} of the decoder's {available} heads")
    for note in _dropped(manifest):
        yield warning(CHECK, f"the checkpoint's list does not fit it: {note}", WHY, DO)


def _dropped(manifest: Manifest) -> tuple[str, ...]:
    """What conversion said of heads that the decoder does not have; nothing where the source is not at hand."""
    try:
        folder = source_index.find(manifest.source)
        stated = read_object(folder / "generation_config.json").get("alignment_heads") or []
        config = parse_config(read_object(folder / "config.json"))
        return with_alignment_heads(config, [(int(layer), int(number)) for layer, number in stated])[1]
    except (InputError, TypeError, ValueError):
        return ()
