"""The targets: the record of each, what a converter is, and what lowering gives back."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Protocol, cast

from edgeformer.foreign_code import insistent_interrupts
from edgeformer.models.family import DEFAULT_SEQ_LENS, MATMUL, Program
from edgeformer_runtime.bundle.bundle import Bundle
from edgeformer_runtime.bundle.manifest import Recipe, Requirements
from edgeformer_runtime.engines import Engine
from edgeformer_runtime.errors import EngineError, InputError
from edgeformer_runtime.model_files import check_model_files
from edgeformer_runtime.registry import Registry, check_choice, load_attribute

ROW, EXAMPLE = "row", "example"


@dataclass(frozen=True)
class FileFormat:
    """A kind of model file: who reads it, and who runs it. Several targets may share one.

    Attributes:
        name: what the manifest calls `target`: the runtime's engine of this name runs the files.
        examiner: "module:attribute" of the `doctor.examiner.Examiner` that reads them.
        reference_engine: "module:attribute" of a function of a bundle to an engine that runs the files where their own
            runtime does not; None: it runs everywhere.
        state_rounding: what rounding the states of programs costs at any precision, relative to the largest output.
    """

    name: str
    examiner: str
    reference_engine: str | None = None
    state_rounding: float = 0.0


@dataclass(frozen=True)
class Int4:
    """How weights of 4 bits are stored.

    Attributes:
        block: the columns that share a scale; None: a whole row.
        has_offsets: a block has an offset beside its scale. Weights are not rounded for calibration inputs then.
    """

    block: int | None
    has_offsets: bool = False


@dataclass(frozen=True)
class LengthCost:
    """What each further length adds for each linear layer: bytes of a bundle, CPU seconds of a conversion to fp32."""

    bytes_per_layer: float
    seconds_per_layer: float


@dataclass(frozen=True)
class Target:
    """Everything that the core knows of a place where models run. The record imports no tool.

    Attributes:
        name: as `--target` takes it and the names of bundles have it.
        format: of its model files.
        converter: "module:attribute" of a function of this record to a `Converter`; with `ios_releases` also of
            one of them.
        precisions: names of `PRECISIONS` that the converter realises, in the order in which messages list them.
        instead: of some other precisions, by name: why the target has none, and what to take.
        recipes: weight formats, by precision, that differ from the precision's own.
        attention: the name of the attention kernel that it runs best.
        aliases: what the field calls it besides, in small letters and digits.
        decoder_state: who keeps a decoder's self-attention cache, of `STATES`.
        token_matmul: how the query of one token meets a decoder's caches, of `TOKEN_MATMULS`.
        seq_lens: the lengths of texts that programs are made for where nobody asks for others, rising.
        audio_seconds: the lengths of audio that speech programs are made for where nobody asks for others.
        layer_formats: what a search may give to a layer besides fp32.
        activations: what shares a scale where the inputs of int8 and int4 layers are quantized while the model runs:
            `ROW`, `EXAMPLE`, or None where they stay in float.
        int4: how weights of 4 bits are stored.
        ios_releases: of iOS that its converter can be asked for; empty: it cannot be asked.
        one_program_before_ios: a file for an older release of iOS than this has one program.
        packs: bundles of texts get a program for several of them in one row, where the family has one.
        length_cost: what each further length of a text adds to a bundle and to its conversion, for each linear layer;
            None: not known.
    """

    name: str
    format: FileFormat
    converter: str
    precisions: tuple[str, ...]
    attention: str
    decoder_state: str
    audio_seconds: tuple[float, ...]
    layer_formats: tuple[str, ...]
    activations: str | None
    int4: Int4
    instead: Mapping[str, str] = field(default_factory=dict)
    recipes: Mapping[str, Recipe] = field(default_factory=dict)
    token_matmul: str = MATMUL
    aliases: tuple[str, ...] = ()
    ios_releases: tuple[int, ...] = ()
    one_program_before_ios: int = 0
    seq_lens: tuple[int, ...] = DEFAULT_SEQ_LENS
    packs: bool = False
    length_cost: LengthCost | None = None

    def recipe_of(self, precision: Precision) -> Recipe:
        """The weight format of a precision as this target realises it."""
        return self.recipes.get(precision.name, precision.recipe)

    def check_ios(self, release: int) -> None:
        """Refuse a release of iOS that the converter does not know.

        Raises:
            InputError: it is none of `ios_releases`.
        """
        if release not in self.ios_releases:
            raise InputError(f"unknown release iOS {release}: expected one of {', '.join(map(str, self.ios_releases))}")

    def precision_problem(self, name: str, precisions: Sequence[str] | None = None) -> str | None:
        """A sentence that refuses a precision that is none of `precisions` (None: the target's), else None."""
        precisions = self.precisions if precisions is None else precisions
        if name in precisions:
            return None
        if name in self.instead:
            return f"{self.name} has no {name}: {self.instead[name]}"
        return f"{self.name} has no precision {name!r}: expected one of {', '.join(precisions)}"


# Names, not imports: the core never imports the converters.
TARGETS: Registry[Target] = Registry(
    {
        "litert": "edgeformer_converters.litert.target:TARGET",
        "coreml": "edgeformer_converters.coreml.target:TARGET",
        "executorch": "edgeformer_converters.executorch.target:TARGET",
        "onnx": "edgeformer_converters.onnx.target:TARGET",
    },
    group="edgeformer.targets",
)


@dataclass(frozen=True)
class Lowered:
    """Model files that a converter wrote.

    Attributes:
        folder: where the files are.
        files: names inside `folder`, with `/` for nested files (a Core ML package is a folder).
        entries: for each program's name the file, or package folder, and the entry in it that run the program.
        operators: how often each operator of the target's own vocabulary occurs.
        partitions: how many partitions the delegate got, or None where the target has no delegate to count.
    """

    folder: Path
    files: tuple[str, ...]
    entries: dict[str, tuple[str, str]]
    operators: dict[str, int]
    partitions: int | None


class Converter(Protocol):
    """Lowers programs to one target's files."""

    target: Target
    precisions: tuple[str, ...]
    """Of the target's, those that are possible for what was asked for."""
    requires: Requirements
    quantizes_files: bool
    """Whether int8 is made of the fp32 files; otherwise of the programs."""
    packages: tuple[str, ...]
    """Distributions whose versions go into the manifest's toolchain."""

    def check(self, programs: Sequence[Program], precision: Precision) -> list[str]:
        """What this target cannot do with these programs, one sentence each, before any expensive work."""

    def lower_fp32(self, programs: Sequence[Program], folder: Path) -> Lowered:
        """Lower the programs as they are into the empty folder."""

    def lower_precision(
        self, programs: Sequence[Program], fp32: Lowered, precision: Precision, folder: Path
    ) -> Lowered:
        """Lower the programs in another precision, from the fp32 files where the target's tool starts there."""


def check_target(target: str) -> None:
    """Refuse an unknown target by name, before anything is loaded.

    Raises:
        InputError: it is none of `TARGETS`.
    """
    if target not in TARGETS:
        aliases = {alias: (name,) for name, each in TARGETS.items() for alias in each.aliases}
        check_choice(target, TARGETS, "target", aliases)


def converter_for(target: str, min_ios: int | None = None) -> Converter:
    """The converter of a target, for an older release of iOS if one is given.

    Raises:
        InputError: an unknown target, or release; the message lists those that exist.
    """
    check_target(target)
    record = TARGETS[target]
    make = cast(Callable[..., Converter], _load(record.converter))
    return make(record, min_ios) if record.ios_releases and min_ios is not None else make(record)


def file_format(name: str) -> FileFormat:
    """The format of a bundle whose manifest names it.

    Raises:
        EngineError: no target has it.
    """
    for target in TARGETS.values():
        if target.format.name == name:
            return target.format
    raise EngineError(f"no target here has model files of the format {name}: expected one of {', '.join(TARGETS)}")


def verification_engine(bundle: Bundle) -> Engine | None:
    """The engine that verification needs in place of the bundle's own, or None where its own runs on this machine."""
    name = bundle.manifest.target
    entry = file_format(name).reference_engine
    if entry is None or sys.platform == "darwin":
        return None
    try:
        make = cast(Callable[[Bundle], Engine], _load(entry))
    except ImportError as error:
        raise EngineError(
            f"verifying a {name} bundle here needs {error.name}: pip install 'edgeformer[{name}]'"
        ) from None
    check_model_files(bundle)
    return make(bundle)


def _load(name: str) -> object:
    with insistent_interrupts():  # some tools try what is there when they are imported, and catch everything
        return load_attribute(name)


# The precisions that a converter can be asked for, as data; each converter realises them with its own tool.


@dataclass(frozen=True)
class Backstop:
    """How far what was recorded may be where answers are judged otherwise: it tells a broken model from an intact one.

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
    """What a user may lose by a format that is not the checkpoint's: see `agreement.Agreement`, `AccuracyChange`.

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
# fp16's is what arithmetic in float16 costs in ExecuTorch: what tiny.en's decoder attends to is off by up to .0102.
# int8's tolerance is what audio quantizers need on MiniLM: components of its embeddings are off by up to 0.11 of the
# largest one while the sentences' cosines stay above 0.997. A corrupted weight is off by far more.
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

PRECISION_ALIASES: Mapping[str, tuple[str, ...]] = MappingProxyType(
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
    check_choice(name, PRECISIONS, "precision", PRECISION_ALIASES)


PLANNED = ("int4", "mixed")
"""Those that give each layer a format of its own."""
