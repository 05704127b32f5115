"""Text generation: a prompt to the text that follows, token by token, by a model that sees what came before."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

from edgeformer_runtime.bundle.manifest import MANIFEST_NAME, Manifest
from edgeformer_runtime.bundle.specs import (
    HOST_STATE,
    MAX_TOKENIZER_BYTES,
    STATES,
    CacheSizes,
    ProgramLayout,
    ProgramSpec,
    TensorSpec,
    cache_names,
)
from edgeformer_runtime.bundle.strict_json import OPTIONAL
from edgeformer_runtime.decoding.options import GenerateOptions
from edgeformer_runtime.decoding.tokenizer import MAX_TEMPLATE_BYTES, is_chat
from edgeformer_runtime.errors import BundleError, InputError
from edgeformer_runtime.tasks.programs import is_batch_of_texts
from edgeformer_runtime.tasks.speech import SAMPLED_VALUES
from edgeformer_runtime.tasks.task import AnswerKind, CaseTensors, InputKind, NamedFile, Task

MAX_BUCKETS = 8


@dataclass(frozen=True)
class PromptPreprocessing:
    """A prompt to token ids.

    Attributes:
        tokenizer: names a tokenizers JSON file of byte-level BPE.
        chat_template: names a template of Jinja's language, which turns a chat into a prompt; None: there is none.
    """

    tokenizer: str
    kind: str = "prompt"
    chat_template: str | None = field(default=None, metadata=OPTIONAL)


@dataclass(frozen=True)
class TextBucket:
    """Programs of one length of the cache.

    Attributes:
        rows: L, slots of the self-attention cache: tokens of prompt and answer together.
        prefill, decode: names of programs.
    """

    rows: int
    prefill: str
    decode: str

    encode: ClassVar[None] = None
    positions: ClassVar[int] = 0


@dataclass(frozen=True)
class Generation:
    """From the logits to text.

    Attributes:
        start: the token that stands for an empty prompt; None: there is none, and an empty prompt is refused.
        ends: the tokens that end a text.
        vocab_size: V, length of the logits.
        layers, heads, head_dim: of the caches: heads are those of keys and values.
        prefill_tokens: P, tokens that `prefill` takes at once.
        state: who keeps the cache: "host" (it is an input, and new rows are outputs) or "program" (the program writes
            the rows that it is told to).
        buckets: in the order of their slots.
    """

    start: int | None
    ends: tuple[int, ...]
    vocab_size: int
    layers: int
    heads: int
    head_dim: int
    prefill_tokens: int
    state: str
    buckets: tuple[TextBucket, ...]
    kind: str = "generation"

    def __post_init__(self) -> None:
        if self.state not in STATES:
            raise InputError(f"generation: state must be one of {', '.join(STATES)}, found {self.state!r}")
        rows = [bucket.rows for bucket in self.buckets]
        if not rows or rows != sorted(set(rows)):
            raise InputError(f"generation: expected buckets of rising rows, found {rows}")
        if min(self.vocab_size, self.layers, self.heads, self.head_dim) < 1 or not 2 <= self.prefill_tokens < rows[0]:
            raise InputError(
                "generation: sizes must be at least 1, and prefill_tokens at least 2 and fewer than a cache has rows"
            )

    def bucket_for(self, tokens: int) -> TextBucket:
        """The smallest bucket with slots for so many tokens, or else the largest."""
        return next((bucket for bucket in self.buckets if bucket.rows >= tokens), self.buckets[-1])


def text_layout(spec: CacheSizes, bucket: TextBucket) -> tuple[ProgramLayout, ProgramLayout]:
    """`prefill` and `decode` of a bucket, tensor by tensor; BUNDLE.md has them in words.

    Caches are flat: keys [H, D, L], values [H, L, D].
    """
    wanted = TensorSpec("wanted", "int32", (2,))
    many, one = ("tokens", "positions", "rows"), ("token", "position", "row")
    return (
        ProgramLayout(
            bucket.prefill,
            (*_inputs(spec, bucket, many, spec.prefill_tokens), wanted),
            _outputs(spec, (2, spec.vocab_size), spec.prefill_tokens),
        ),
        ProgramLayout(bucket.decode, _inputs(spec, bucket, one, 1), _outputs(spec, (spec.vocab_size,), 1)),
    )


def _inputs(spec: CacheSizes, bucket: TextBucket, names: tuple[str, str, str], count: int) -> tuple[TensorSpec, ...]:
    tokens, positions, rows = (TensorSpec(name, "int32", (count,)) for name in names)
    mask = TensorSpec("mask", "float32", (bucket.rows,))
    if spec.state != HOST_STATE:
        return (tokens, positions, rows, mask)
    return (tokens, positions, mask, *_caches(spec, "self", bucket.rows))


def _outputs(spec: CacheSizes, logits: tuple[int, ...], count: int) -> tuple[TensorSpec, ...]:
    new = _caches(spec, "new", count) if spec.state == HOST_STATE else ()
    return (TensorSpec("logits", "float32", logits), *new)


def _caches(spec: CacheSizes, kind: str, length: int) -> tuple[TensorSpec, ...]:
    size = spec.heads * spec.head_dim * length
    return tuple(TensorSpec(name, "float32", (size,)) for name in cache_names(spec.layers, kind))


# Prompts.


def _head(manifest: Manifest) -> Generation:
    head = manifest.postprocessing
    assert isinstance(head, Generation)
    return head


def _largest_number(manifest: Manifest, program: ProgramSpec, name: str) -> int | None:
    """Of tokens, by the size of the vocabulary; of positions and of slots of the cache, by their number."""
    head = _head(manifest)
    if name in ("token", "tokens"):
        return head.vocab_size - 1
    if name in ("position", "positions", "row", "rows"):
        return next(spec.shape[0] for spec in program.inputs if spec.name == "mask") - 1
    return head.prefill_tokens - 1 if name == "wanted" else None


def _files(spec: PromptPreprocessing) -> tuple[NamedFile, ...]:
    tokenizer = NamedFile("preprocessing.tokenizer", spec.tokenizer, MAX_TOKENIZER_BYTES)
    if spec.chat_template is None:
        return (tokenizer,)
    return (tokenizer, NamedFile("preprocessing.chat_template", spec.chat_template, MAX_TEMPLATE_BYTES))


def _is_batch(raw: Any) -> bool:
    """As of texts, but that a list of messages is one chat."""
    return is_batch_of_texts(raw) and not is_chat(raw)


PROMPT = InputKind(
    kind="prompt",
    record=PromptPreprocessing,
    files=_files,
    stored_forms=(("text",), ("token_ids",)),
    largest=_largest_number,
    describe=lambda spec: ", ".join(filter(None, ("prompt", spec.tokenizer, spec.chat_template))),
    run="edgeformer_runtime.cli.text_files:run_prompts",
    takes="prompts: expected them without options for images or audio",
    asks_for="prompts, or - for a prompt per line of stdin, or --input FILE",
    options=("--token-ids", "--input", "--column", "-"),
    is_batch=_is_batch,
    frame="edgeformer_runtime.isolation.messages:prompt_frame",
    answer_s=600.0,  # a text may be long
    several=True,
)


# What follows.


def _check_generation(manifest: Manifest) -> None:
    """The programs are those of the buckets, tensor by tensor, and no token id is beyond the logits."""
    head = _head(manifest)
    layouts = {layout.name: layout for bucket in head.buckets for layout in text_layout(head, bucket)}
    programs = {program.name: program for program in manifest.programs}
    if len(layouts) != 2 * len(head.buckets) or layouts.keys() != programs.keys():
        raise BundleError(f"{MANIFEST_NAME}: programs: expected exactly those of postprocessing.buckets, each once")
    for name, layout in layouts.items():
        for key in ("inputs", "outputs"):
            expected: Sequence[TensorSpec] = getattr(layout, key)
            found: Sequence[TensorSpec] = getattr(programs[name], key)
            if found != expected:
                wrong = next((a for a, b in zip(expected, found, strict=False) if a != b), None)
                hint = f"{len(expected)} of them" if wrong is None else f"{wrong.name} as {wrong.dtype} {wrong.shape}"
                raise BundleError(f"{MANIFEST_NAME}: program {name}: {key}: its bucket asks for {hint}")
    largest = max((*head.ends, -1 if head.start is None else head.start), default=-1)
    if largest >= head.vocab_size:
        raise BundleError(f"{MANIFEST_NAME}: postprocessing: the token {largest} is not below vocab_size")


def _check_text(case: Mapping[str, Any], head: Generation, where: str) -> None:
    expected = case["expected"]
    bucket = next((bucket for bucket in head.buckets if bucket.prefill == case["program"]), None)
    if bucket is None or not expected.get("tokens"):
        raise BundleError(f"{where}: expected a bucket's prefill program, and a text with its prompt and tokens")
    tokens = [*expected["prompt"], *expected["tokens"]]
    if max(tokens) >= head.vocab_size or len(tokens) > bucket.rows + 1:
        raise BundleError(f"{where}: expected: expected at most {bucket.rows + 1} tokens below {head.vocab_size}")


def _prefills(manifest: Manifest) -> list[ProgramSpec]:
    """The programs that a case starts with."""
    names = {bucket.prefill for bucket in _head(manifest).buckets}
    return [program for program in manifest.programs if program.name in names]


def _case_tensors(manifest: Manifest, program: ProgramSpec, expected: Mapping[str, Any]) -> CaseTensors:  # noqa: ARG001
    """For each token of the answer a sample of the logits it was chosen from, their margin, its log probability."""
    steps, width = len(expected["tokens"]), min(_head(manifest).vocab_size, SAMPLED_VALUES)
    outputs = (("logits", (steps, width)), ("margins", (steps,)), ("log_probabilities", (steps,)))
    return (), tuple(TensorSpec(name, "float32", shape) for name, shape in outputs)


def _describe_generation(head: Generation) -> str:
    slots = ", ".join(str(bucket.rows) for bucket in head.buckets)
    return f"text, {head.vocab_size} tokens, caches of {slots} slots, state kept by the {head.state}"


def _call_options(options: Any) -> GenerateOptions:
    """From the options of `run`."""
    default = GenerateOptions()
    stop = tuple(options.stop or ())
    given = {
        name: getattr(options, name)
        for name in ("max_tokens", "temperature", "top_k", "top_p", "repetition_penalty", "seed", "suggest")
        if getattr(options, name) is not None
    }
    flags = {"special_tokens": options.special_tokens, "chat": options.chat}
    return GenerateOptions(**{**vars(default), **given, **flags, "stop": stop})


def _show(result: Any, _: int) -> str:
    if result.suggestions is not None:
        return "  ".join(f"{each.word} {each.probability:.3f}" for each in result.suggestions)
    return str(result.text)


GENERATION = AnswerKind(
    kind="generation",
    record=Generation,
    check=_check_generation,
    check_expected=_check_text,
    describe=_describe_generation,
    result="edgeformer_runtime.pipelines.generation:GenerationResult",
    show=_show,
    plural="texts",
    replay="edgeformer_runtime.verify.decoder_replay:GenerationReplay",
    workload="edgeformer_runtime.verify.decoder_replay:generation_workload",
    options="edgeformer_runtime.decoding.options:GenerateOptions",
    run_options=(
        "--max-tokens",
        "--temperature",
        "--top-k",
        "--top-p",
        "--repetition-penalty",
        "--stop",
        "--seed",
        "--suggest",
        "--special-tokens",
        "--chat",
    ),
    writes=True,
    call_options=_call_options,
    stepwise=True,
    first_programs=_prefills,
    case_tensors=_case_tensors,
)

TEXT_GENERATION = Task(
    name="text-generation",
    takes=PROMPT,
    gives=GENERATION,
    pipeline="edgeformer_runtime.pipelines.generation:TextGenerator",
    serve="edgeformer_runtime.serve.generation:add_text_generation",
)
