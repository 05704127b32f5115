"""The precisions that a converter can be asked for, as data; each converter realises them with its own tool."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from edgeformer_runtime.bundle.manifest import Recipe
from edgeformer_runtime.choices import check_choice


@dataclass(frozen=True)
class Backstop:
    """How far what was recorded may be where answers are judged otherwise: it tells a broken model from a sound one.

    Attributes:
        output: relative to the largest value that the output has in all cases.
        probability: of a classifier.
        component: of a normalised embedding.
    """

    output: float
    probability: float
    component: float


@dataclass(frozen=True)
class Allowance:
    """What a user may lose by a format that is not the checkpoint's: see `agreement.Agreement` and `agreement.Metric`.

    Attributes:
        lost: the share of answers that are others although the source's lies near no boundary.
        divergence: the mean total variation from the source's probabilities.
        cosine: the mean cosine of embeddings, at least.
        drop: of accuracy, beyond what so many labels leave open.
        backstop: for recorded cases.
    """

    lost: float
    divergence: float
    cosine: float
    drop: float
    backstop: Backstop


@dataclass(frozen=True)
class Precision:
    """A weight format with the deviation from fp32 that its gates accept.

    `output_tolerance` bounds the largest absolute difference of a program's output, relative to the largest absolute
    value that it has in all recorded cases, and a layer's distance; `score_tolerance` that of the components of
    normalised embeddings and of the letters of a transcript. Of classifiers and embedders the `allowance` says what may
    be lost, and its backstop takes the tolerances' place. None: the answers are the checkpoint's, within the
    tolerances. `recipe` is the weight format where a target has no other (`Target.recipes`).
    """

    name: str
    recipe: Recipe
    output_tolerance: float
    score_tolerance: float
    allowance: Allowance | None = None


# The small precisions' tolerances are above what Core ML's reference measures of the classifiers of intents and of
# things: outputs off by .043 and .103 with palette6, .217 and .219 with palette4, .178 and .247 with int4; scores by
# .034, .127 and .044 at most. Steps of tiny.en are off by .22 with palette6 and .43 with int4, and say the same; with
# palette4 it says something else, which its tolerance must not hide.
# fp16's is what arithmetic in half costs in ExecuTorch: what tiny.en's decoder attends to is off by up to .0102.
# int8's tolerance is what sound quantizers need on MiniLM: components of its embeddings are off by up to 0.11 of the
# largest one while the sentences' cosines stay above 0.997. A spoiled weight is off by far more.
EIGHT_BITS = Allowance(lost=0.05, divergence=0.08, cosine=0.97, drop=0.02, backstop=Backstop(0.25, 0.35, 0.1))
FOUR_BITS = Allowance(lost=0.15, divergence=0.15, cosine=0.9, drop=0.05, backstop=Backstop(0.5, 0.5, 0.25))

PRECISIONS: dict[str, Precision] = {
    p.name: p
    for p in (
        Precision("fp32", Recipe("wfp32_afp32", "float32", "float32", "float32"), 1e-4, 1e-4),
        Precision("fp16", Recipe("wfp16_afp16", "float16", "float16", "float16"), 1.5e-2, 1e-2),
        Precision("static-int8", Recipe("static_wi8_ai8", "int8", "int8", "float32"), 1.5e-1, 5e-2, EIGHT_BITS),
        Precision("dynamic-int8", Recipe("dynamic_wi8_afp32", "int8", "float32", "int8"), 1.5e-1, 5e-2, EIGHT_BITS),
        Precision("palette6", Recipe("wpalette6_afp16", "palette6", "float16", "palette6"), 2e-1, 5e-2, EIGHT_BITS),
        Precision("palette4", Recipe("wpalette4_afp16", "palette4", "float16", "palette4"), 3e-1, 2e-1, FOUR_BITS),
        Precision("int4", Recipe("dynamic_wi4_afp32", "int4", "float32", "int8"), 3.5e-1, 2e-1, FOUR_BITS),
        Precision("weight-int8", Recipe("weight_wi8_afp32", "int8", "float32", "int8"), 1.5e-1, 5e-2, EIGHT_BITS),
        Precision("mixed", Recipe("dynamic_wmixed_afp32", "mixed", "float32", "mixed"), 3.5e-1, 2e-1, FOUR_BITS),
    )
}

ALIASES: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "int8": ("dynamic-int8", "static-int8"),
        "quantized": ("dynamic-int8", "static-int8"),
        "i8": ("dynamic-int8", "static-int8"),
        "q8": ("dynamic-int8", "static-int8"),
        "ptq": ("dynamic-int8", "static-int8"),
        "w8a8": ("dynamic-int8", "static-int8"),
        "int8dynamic": ("dynamic-int8",),
        "dynamic": ("dynamic-int8",),
        "int8static": ("static-int8",),
        "static": ("static-int8",),
        "int8weight": ("weight-int8",),
        "int8weightonly": ("weight-int8",),
        "weightonly": ("weight-int8",),
        "w8": ("weight-int8",),
        "w8a16": ("weight-int8",),
        "q4": ("int4",),
        "i4": ("int4",),
        "w4": ("int4",),
        "4bit": ("int4",),
        "8bit": ("dynamic-int8", "static-int8"),
        "half": ("fp16",),
        "float16": ("fp16",),
        "f16": ("fp16",),
        "bf16": ("fp16",),
        "bfloat16": ("fp16",),
        "float32": ("fp32",),
        "float": ("fp32",),
        "f32": ("fp32",),
        "full": ("fp32",),
    }
)
"""What the field calls them."""


def check_precision(name: str) -> None:
    """Refuse an unknown precision by name, before anything is loaded.

    Raises:
        InputError: it is none of `PRECISIONS`.
    """
    check_choice(name, PRECISIONS, "precision", ALIASES)


PLANNED = ("int4", "mixed")
"""Those that give each layer a format of its own."""
