"""Recipes: what is done to a checkpoint, step by step, as frozen data read from TOML.

    seq_len = 32

    [[step]]
    kind = "distill"
    training = { epochs = 5, learning_rate = 2e-3 }
    loss = { logits = 1.0, labels = 0.2, temperature = 2.0 }

Every field of every step is documented here; `docs/compression.md` shows them at work.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from os import fspath
from pathlib import Path
from typing import Any, ClassVar

from edgeformer.compress.toml_tables import read_table
from edgeformer.convert.layer_plan import LayerPlan
from edgeformer.models.config import MAX_LAYERS, MAX_RECIPE_BYTES, read_text
from edgeformer_runtime.bundle.strict_json import shorten, to_data
from edgeformer_runtime.errors import InputError
from edgeformer_runtime.interface import StrPath
from edgeformer_runtime.registry import did_you_mean

SCHEDULES = ("linear", "cosine", "constant")
MIXED_PRECISIONS = ("no", "bf16", "fp16")
SPARSIFY_METHODS = ("magnitude", "movement")
QUANTIZED_FORMATS = ("int8", "int4")
QUANTIZE_METHODS = ("plain", "lsq")
ACTIVATION_SCALES = ("row", "example", "float")
STORED_DTYPES = ("float32", "float16")
MAX_STEPS = 100
MAX_EPOCHS = 10_000
MAX_BATCH_SIZE = 1 << 16
MAX_VARIANTS = 1000
"""Of each sentence."""
MAX_EXAMPLES = 10_000_000
MAX_LENGTH = 1 << 16
"""Of a sentence in tokens, and of what weights are counted in: rows, columns and neurons."""
MAX_FACTOR = 1e6
"""Of what weighs a term, decays a weight or divides a logit."""
_MAX_DOTS = 64
SHIPPED = Path(__file__).parent / "recipes"


@dataclass(frozen=True)
class Training:
    """How a step trains: AdamW (Loshchilov and Hutter 2019), and a learning rate that warms up and decays.

    Attributes:
        epochs: passes over the data.
        batch_size: examples per update, over all processes together.
        learning_rate: the largest.
        schedule: how it falls after the warm-up: "linear" or "cosine" to zero, or "constant".
        warmup: share of the updates in which it rises from zero.
        weight_decay: of matrices and kernels; norms and biases have none.
        clip_norm: longest gradient (L2 norm over all parameters); 0: any.
        keep_zeros: weights of linear layers and embeddings that are zero when the step starts stay zero.
    """

    epochs: int = 3
    batch_size: int = 32
    learning_rate: float = 5e-5
    schedule: str = "linear"
    warmup: float = 0.1
    weight_decay: float = 0.01
    clip_norm: float = 1.0
    keep_zeros: bool = True

    def __post_init__(self) -> None:
        _within("epochs", self.epochs, 1, MAX_EPOCHS)
        _within("batch_size", self.batch_size, 1, MAX_BATCH_SIZE)
        _choice("schedule", self.schedule, SCHEDULES)
        _share("warmup", self.warmup)
        if not self.learning_rate > 0:
            raise InputError(f"learning_rate must be above 0, found {self.learning_rate}")
        _within("learning_rate", self.learning_rate, 0, MAX_FACTOR)
        _within("weight_decay", self.weight_decay, 0, MAX_FACTOR)
        _within("clip_norm", self.clip_norm, 0, MAX_FACTOR)


@dataclass(frozen=True)
class Loss:
    """What a student learns from. Each number is the weight of a term; a term of weight 0 is not computed.

    Attributes:
        labels: cross-entropy with the data's labels.
        label_smoothing: share of each label's probability that all labels divide among them.
        logits: Kullback-Leibler divergence from the teacher's distribution (Hinton et al. 2015).
        temperature: by which both divide their logits there.
        hidden: mean squared error of hidden states (TinyBERT, Jiao et al. 2020), each normalised over its channels;
            where the widths differ, through a linear map that is trained along and thrown away.
        attention: divergence of attention maps (MiniLM, Wang et al. 2020), of their mean over the heads where the
            numbers of heads differ.
        layer_map: which layer of the teacher teaches which of the student's, in pairs (student, teacher) counted from
            0; "uniform": evenly spread, the last by the last.
    """

    labels: float = 1.0
    label_smoothing: float = 0.0
    logits: float = 0.0
    temperature: float = 2.0
    hidden: float = 0.0
    attention: float = 0.0
    layer_map: str | tuple[tuple[int, int], ...] = "uniform"

    def __post_init__(self) -> None:
        for name in ("labels", "logits", "hidden", "attention"):
            _within(name, getattr(self, name), 0, MAX_FACTOR)
        _share("label_smoothing", self.label_smoothing)
        if not self.temperature > 0:
            raise InputError(f"temperature must be above 0, found {self.temperature}")
        _within("temperature", self.temperature, 0, MAX_FACTOR)
        if isinstance(self.layer_map, str) and self.layer_map != "uniform":
            raise InputError(f'layer_map must be "uniform" or pairs of layers, found {self.layer_map!r}')
        if not any((self.labels, self.logits, self.hidden, self.attention)):
            raise InputError("at least one of labels, logits, hidden and attention must be above 0")

    @property
    def needs_teacher(self) -> bool:
        """Whether any term looks at a teacher."""
        return bool(self.logits or self.hidden or self.attention)

    @property
    def looks_inside(self) -> bool:
        """Whether a term compares more than the answers."""
        return bool(self.hidden or self.attention)


@dataclass(frozen=True)
class Augment:
    """How training data is varied. The defaults vary nothing.

    Attributes:
        variants: of texts: for each sentence so many with words replaced, dropped, swapped or misspelt; they have no
            label, so that only a teacher says what they mean.
        shift, zoom, rotation_degrees, jitter, cutout: of images, see `edgeformer.compress.augment.Augmentation`;
            half of the images are also mirrored as soon as any of them is set.
    """

    variants: int = 0
    shift: float = 0.0
    zoom: float = 1.0
    rotation_degrees: float = 0.0
    jitter: float = 0.0
    cutout: float = 0.0

    def __post_init__(self) -> None:
        _within("variants", self.variants, 0, MAX_VARIANTS)
        for name in ("shift", "rotation_degrees", "jitter", "cutout"):
            _within(name, getattr(self, name), 0, 360)
        _within("zoom", self.zoom, 1, 100)

    @property
    def of_images(self) -> bool:
        """Whether images are changed at all."""
        return (self.shift, self.zoom, self.rotation_degrees, self.jitter, self.cutout) != (0.0, 1.0, 0.0, 0.0, 0.0)


@dataclass(frozen=True)
class Finetune:
    """Train on the data's labels alone.

    Attributes:
        training: how.
        label_smoothing: see `Loss`.
        new_head: give the model a new classifier for the data's own labels, as an embedder needs before it classifies.
        augment: images may be varied; variants of texts have no label to learn.
    """

    kind: ClassVar[str] = "finetune"
    training: Training = field(default_factory=Training)
    label_smoothing: float = 0.0
    new_head: bool = False
    augment: Augment = field(default_factory=Augment)

    def __post_init__(self) -> None:
        _share("label_smoothing", self.label_smoothing)
        if self.augment.variants:
            raise InputError("augment.variants is for steps with a teacher: variants of texts have no label")

    @property
    def loss(self) -> Loss:
        """The same as a loss."""
        return Loss(label_smoothing=self.label_smoothing)


@dataclass(frozen=True)
class Distill:
    """Train a student to answer as a teacher does.

    Attributes:
        training: how.
        loss: what the student learns from.
        augment: how the data is varied.
        student: fields of a public config.json, for a new student that starts from the teacher where shapes allow. Of
            texts, a `vocab_size` below the teacher's keeps the pieces that the data needs and then the most frequent
            ones. Absent: the model as it stands is the student, and the teacher is the source or --teacher.
    """

    kind: ClassVar[str] = "distill"
    training: Training = field(default_factory=Training)
    loss: Loss = field(default_factory=lambda: Loss(labels=0.0, logits=1.0))
    augment: Augment = field(default_factory=Augment)
    student: dict[str, Any] | None = None

    def __post_init__(self) -> None:
        if not self.loss.needs_teacher:
            raise InputError("loss must have a term with a teacher (logits, hidden or attention): or use finetune")


@dataclass(frozen=True)
class Prune:
    """Remove whole parts, so that the model is smaller and faster everywhere. It does not train.

    Attributes:
        heads: share of all attention heads to remove (Michel et al. 2019).
        neurons: share of all feed-forward neurons to remove.
        layers: how many layers to remove, those without which the loss rises least; or the numbers of those to remove.
        examples: of the data, to measure importance on.
        round_to: each network keeps a multiple of so many neurons: what kernels take at a time.
    """

    kind: ClassVar[str] = "prune"
    heads: float = 0.0
    neurons: float = 0.0
    layers: int | tuple[int, ...] = 0
    examples: int = 512
    round_to: int = 8

    def __post_init__(self) -> None:
        _share("heads", self.heads)
        _share("neurons", self.neurons)
        _within("examples", self.examples, 1, MAX_EXAMPLES)
        _within("round_to", self.round_to, 1, MAX_LENGTH)
        for layer in self.layers if isinstance(self.layers, tuple) else (self.layers,):
            _within("layers", layer, 0, MAX_LAYERS)
        if not (self.heads or self.neurons or self.layers):
            raise InputError("at least one of heads, neurons and layers must be above 0")


@dataclass(frozen=True)
class Sparsify:
    """Set single weights to zero while training: the share of zeros rises as a cubic (Zhu and Gupta 2017).

    Attributes:
        sparsity: share of the weights of linear layers that is zero in the end, embeddings left out.
        method: "magnitude" removes the smallest weights, "movement" those that move towards zero (Sanh et al. 2020).
        block: (rows, columns) that are removed together.
        begin, end: shares of the updates between which the sparsity rises.
        training, loss, augment: as in `Distill`.
    """

    sparsity: float
    kind: ClassVar[str] = "sparsify"
    method: str = "magnitude"
    block: tuple[int, int] = (1, 1)
    begin: float = 0.0
    end: float = 0.7
    training: Training = field(default_factory=Training)
    loss: Loss = field(default_factory=Loss)
    augment: Augment = field(default_factory=Augment)

    def __post_init__(self) -> None:
        _choice("method", self.method, SPARSIFY_METHODS)
        _share("sparsity", self.sparsity)
        for size in self.block:
            _within("block", size, 1, MAX_LENGTH)
        _share("begin", self.begin)
        if not self.begin < self.end <= 1:
            raise InputError(f"end must be above begin and at most 1, found {self.begin} and {self.end}")


@dataclass(frozen=True)
class QuantizeAware:
    """Train while layers compute with rounded weights and activations; the rounded weights are what is left.

    Attributes:
        format: of every layer that `layers` does not name: "int8" or "int4" (of linear layers; the other ones then have
            int8).
        layers: formats of single layers by name, as in a layer plan: "fp32", "fp16", "int8" or "int4".
        method: "plain" takes scales from the largest weights, "lsq" trains them.
        block: columns of a weight of 4 bits that share a scale; 0: a whole row.
        activations: what shares a scale where products quantize their inputs: "row" (LiteRT), "example" (ExecuTorch,
            ONNX Runtime), or "float" where they do not.
        training, loss, augment: as in `Distill`.
    """

    kind: ClassVar[str] = "quantize_aware"
    format: str = "int8"
    layers: dict[str, Any] = field(default_factory=dict)
    method: str = "plain"
    block: int = 0
    activations: str = "row"
    training: Training = field(default_factory=Training)
    loss: Loss = field(default_factory=Loss)
    augment: Augment = field(default_factory=Augment)

    def __post_init__(self) -> None:
        _choice("format", self.format, QUANTIZED_FORMATS)
        _choice("method", self.method, QUANTIZE_METHODS)
        _choice("activations", self.activations, ACTIVATION_SCALES)
        _within("block", self.block, 0, MAX_LENGTH)
        LayerPlan(self.layers, self.format)


Step = Finetune | Distill | Prune | Sparsify | QuantizeAware

STEPS: dict[str, type[Step]] = {step.kind: step for step in (Finetune, Distill, Prune, Sparsify, QuantizeAware)}


@dataclass(frozen=True)
class Recipe:
    """Steps in their order.

    Attributes:
        name: of the file.
        description: for people.
        steps: at least one.
        seq_len: of texts: longest sentence in training, in tokens.
        max_tokens: of speech: longest text in training, in tokens.
        language: of speech, for models that know several, as "en".
        mixed_precision: of products in training: "bf16" or "fp16" by autocast, or "no".
        stored: dtype of the final weights, "float32" or "float16".
    """

    name: str
    steps: tuple[Step, ...]
    description: str = ""
    seq_len: int = 128
    max_tokens: int = 128
    language: str = "en"
    mixed_precision: str = "no"
    stored: str = "float32"

    def __post_init__(self) -> None:
        _within("seq_len", self.seq_len, 2, MAX_LENGTH)
        _within("max_tokens", self.max_tokens, 2, MAX_LENGTH)
        _choice("mixed_precision", self.mixed_precision, MIXED_PRECISIONS)
        _choice("stored", self.stored, STORED_DTYPES)
        if not self.steps:
            raise InputError("expected at least one [[step]]")


def shipped_recipes() -> dict[str, Path]:
    """The files of the recipes that ship, by name."""
    return {each.stem: each for each in sorted(SHIPPED.glob("*.toml"))}


def load_recipe(source: StrPath) -> Recipe:
    """A recipe from a TOML file, or one that ships, by its name.

    Raises:
        InputError: there is none, or something in it is unknown, missing or contradictory.
    """
    source, path = fspath(source), Path(source)
    if not path.is_file():
        shipped = shipped_recipes()
        if source not in shipped:
            guess = did_you_mean(path.stem, shipped)
            raise InputError(f"no recipe {source!r}: {guess}expected a TOML file or one of {', '.join(shipped)}")
        path = shipped[source]
    return read_recipe(_parse(read_text(path, MAX_RECIPE_BYTES), path.name), path.stem)


def _parse(text: str, name: str) -> dict[str, Any]:
    if any(line.count(".") > _MAX_DOTS for line in text.split("\n")):  # a key's time is quadratic in them
        raise InputError(f"recipe {name}: expected at most {_MAX_DOTS} dots in a line")
    try:
        return tomllib.loads(text)
    except RecursionError:
        raise InputError(f"recipe {name} is not TOML: it is nested too deep") from None
    except ValueError as error:
        raise InputError(f"recipe {name} is not TOML: {shorten(str(error), 200)[1:-1]}") from None


def read_recipe(table: Mapping[str, Any], name: str) -> Recipe:
    """A recipe from its TOML table; InputError names the step and the key that is wrong."""
    where = f"recipe {name}"
    rest = {key: value for key, value in table.items() if key != "step"}
    steps = table.get("step", [])
    if not isinstance(steps, list) or not all(isinstance(step, dict) for step in steps):
        raise InputError(f"{where}: expected steps as [[step]]")
    if len(steps) > MAX_STEPS:
        raise InputError(f"{where}: expected at most {MAX_STEPS} steps, found {len(steps)}")
    made = tuple(_read_step(step, f"{where}, step {number}") for number, step in enumerate(steps, 1))
    # The head of the file is read by the same rule; the name and the steps are ours.
    known = read_table(_Head, rest, where)
    try:
        return Recipe(name, made, **asdict(known))
    except InputError as error:
        raise InputError(f"{where}: {error}") from None


def step_to_json(step: Step) -> dict[str, Any]:
    """A step as plain values, its kind first."""
    return {"kind": step.kind, **to_data(step)}


@dataclass(frozen=True)
class _Head:
    """What stands above the steps."""

    description: str = ""
    seq_len: int = Recipe.seq_len
    max_tokens: int = Recipe.max_tokens
    language: str = Recipe.language
    mixed_precision: str = Recipe.mixed_precision
    stored: str = Recipe.stored


def _read_step(table: Mapping[str, Any], where: str) -> Step:
    kind = table.get("kind")
    if not isinstance(kind, str) or kind not in STEPS:
        raise InputError(f"{where}: kind must be one of {', '.join(STEPS)}, found {kind!r}")
    values = {key: value for key, value in table.items() if key != "kind"}
    return read_table(STEPS[kind], values, f"{where} ({kind})")


def _within(name: str, value: float, least: float, most: float) -> None:
    if not value >= least:
        raise InputError(f"{name} must be at least {least}, found {value}")
    if value > most:
        raise InputError(f"{name} must be at most {most:.0f}, found {value}")


def _share(name: str, value: float) -> None:
    if not 0 <= value < 1:
        raise InputError(f"{name} must be at least 0 and below 1, found {value}")


def _choice(name: str, value: str, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise InputError(f"{name} must be one of {', '.join(choices)}, found {value!r}")
