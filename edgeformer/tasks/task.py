"""The tasks: what a model is for."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from edgeformer_runtime.choices import check_choice
from edgeformer_runtime.tasks.task import TASKS

CLASSIFICATION, EMBEDDING = "text-classification", "text-embedding"
IMAGES = "image-classification"
SPEECH = "speech-recognition"

ALIASES: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "classification": (CLASSIFICATION, IMAGES),
        "classifier": (CLASSIFICATION, IMAGES),
        "sentimentanalysis": (CLASSIFICATION,),
        "sequenceclassification": (CLASSIFICATION,),
        "embedding": (EMBEDDING,),
        "featureextraction": (EMBEDDING,),
        "sentencesimilarity": (EMBEDDING,),
        "vision": (IMAGES,),
        "image": (IMAGES,),
        "asr": (SPEECH,),
        "automaticspeechrecognition": (SPEECH,),
        "speech": (SPEECH,),
        "transcription": (SPEECH,),
    }
)
"""What the field calls them."""


def check_task(task: str | None) -> None:
    """Refuse an unknown task by name, before anything is loaded.

    Raises:
        InputError: the task is none of the bundle format's.
    """
    if task is not None:
        check_choice(task, TASKS, "task", ALIASES)
