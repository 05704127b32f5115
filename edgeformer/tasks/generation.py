"""Text generation: what surrounds a model that goes on with texts, and how well it predicts them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from numpy.typing import NDArray
from rich.table import Table

from edgeformer.evaluate.evaluate import Asker, EvaluationResult
from edgeformer.models.family import ProgramOptions
from edgeformer.tasks.task import Peers, Task, TaskSpec
from edgeformer.tasks.text import TOKENIZER_FILE
from edgeformer_runtime.bundle.manifest import Manifest
from edgeformer_runtime.bundle.specs import PROGRAM_STATE
from edgeformer_runtime.cli.tables import refusals
from edgeformer_runtime.errors import InputError
from edgeformer_runtime.preprocess.tokenizer_file import steps
from edgeformer_runtime.tasks.generation import Generation, PromptPreprocessing

if TYPE_CHECKING:
    from edgeformer.checkpoints.checkpoint import Checkpoint
    from edgeformer.models.family import Program
    from edgeformer_runtime.bundle.bundle import Bundle
    from edgeformer_runtime.bundle.vectors import Case
    from edgeformer_runtime.engines.base import Engine

GENERATION_FILE = "generation_config.json"

PROMPTS = (
    "Please remind me to call the bank about my savings account before the meeting on Friday",
    "The quick brown fox",
    "Q: What is the capital of France?\nA:",
    "Zürich \u2014 naïve café, 3.14 & 50 % off! \U0001f600 你好",
)
"""What vectors are recorded from, in each bucket: a note, a beginning, a question, other scripts."""
RECORDED_TOKENS = 24
"""Of each text, at most: four prompts give enough steps for a share of next tokens to mean something."""


def _spec(checkpoint: Checkpoint, programs: tuple[Program, ...], options: ProgramOptions) -> TaskSpec:  # noqa: ARG001
    from edgeformer.models.cached import generation_layout

    tokenizer = checkpoint.tokenizer_json
    if tokenizer is None:
        raise InputError("text-generation needs a tokenizer, and the checkpoint has none: save it with the model")
    check_byte_level(tokenizer)
    stated = {**checkpoint.raw, **_generation_config(checkpoint.folder)}
    config = checkpoint.config
    start = token_ids(stated, "bos_token_id", config.vocab_size)
    head = Generation(
        start=start[0] if start else None,
        ends=token_ids(stated, "eos_token_id", config.vocab_size),
        **vars(generation_layout(config, options)),
    )
    return TaskSpec(
        task=GENERATION,
        preprocessing=PromptPreprocessing(TOKENIZER_FILE),
        postprocessing=head,
        assets={TOKENIZER_FILE: tokenizer.encode()},
        samples=tuple({"text": text} for text in PROMPTS),
        keeps_state=head.state == PROGRAM_STATE,
    )


def _generation_config(folder: Path) -> dict[str, Any]:
    from edgeformer.models.config import read_object

    file = folder / GENERATION_FILE
    return {name: value for name, value in (read_object(file) if file.is_file() else {}).items() if value is not None}


def token_ids(stated: Mapping[str, Any], key: str, vocab_size: int) -> tuple[int, ...]:
    """A config's token, or several, or none.

    >>> token_ids({"eos_token_id": [2, 0]}, "eos_token_id", 8)
    (2, 0)

    Raises:
        InputError: it is none of the model's.
    """
    value = stated.get(key)
    found = value if isinstance(value, list) else [] if value is None else [value]
    for each in found:
        if type(each) is not int or not 0 <= each < vocab_size:
            raise InputError(f"{GENERATION_FILE}: {key} must be an id below vocab_size {vocab_size}, found {each!r}")
    return tuple(found)


def check_byte_level(tokenizer: str) -> None:
    """Refuse a tokenizer whose tokens do not stand for bytes, as text is written byte by byte.

    Raises:
        InputError: it is none of byte-level BPE.
    """
    spec = json.loads(tokenizer)
    kinds = {step["type"] for part in ("pre_tokenizer", "decoder") for step in steps(part, spec.get(part))}
    model = (spec.get("model") or {}).get("type")
    if model != "BPE" or "ByteLevel" not in kinds:
        raise InputError(f"text-generation takes tokenizers of byte-level BPE, found {model} with {sorted(kinds)}")


def _record(bundle: Bundle, engine: Engine, samples: Sequence[Mapping[str, Any]]) -> list[Case]:
    """A case for each prompt in each bucket."""
    from edgeformer_runtime.pipelines.generation import TextGenerator
    from edgeformer_runtime.verify.decoder_replay import record_text

    generator = TextGenerator(bundle, engine)
    return [
        record_text(generator, stored, bucket, RECORDED_TOKENS)
        for bucket in generator.head.buckets
        for stored in samples
    ]


def _rerun(bundle: Bundle, engine: Engine, cases: Sequence[Case], per_program: int, tokens: int) -> None:
    """The first prompts of the shortest cache, and so many tokens after each."""
    from edgeformer_runtime.pipelines.generation import TextGenerator
    from edgeformer_runtime.verify.decoder_replay import recorded_logits

    generator = TextGenerator(bundle, engine)
    bucket = generator.head.buckets[0]
    for case in [each for each in cases if each.program == bucket.prefill][:per_program]:
        recorded_logits(generator, bucket, case.expected["prompt"], case.expected["tokens"][:tokens])


def _program_options(manifest: Manifest) -> ProgramOptions:
    head = cast(Generation, manifest.postprocessing)
    return ProgramOptions(
        cache_lens=tuple(bucket.rows for bucket in head.buckets),
        prompt_tokens=head.prefill_tokens,
        decoder_state=head.state,
    )


GENERATION = Task(
    name="text-generation",
    noun="text generator",
    takes="prompt",
    spec=_spec,
    evaluation="edgeformer.tasks.generation:evaluate_generation",
    peers=Peers(),
    aliases=("causallm", "lm", "llm", "textcompletion", "completion", "textgenerationwithpast"),
    architecture="ForCausalLM",
    writes=True,
    on_phones=False,
    scores="edgeformer.models.cached:generator_scores",
    # The largest of some ten thousand logits is farther out than that of a few labels; a score is a share of next
    # tokens, or a rise of perplexity.
    tolerance_scale=(4 / 3, 1.0),
    # All that attention sees has been in the state: logits of a tiny Llama with large weights move by 2.5 roundings.
    state_roundings=4.0,
    layers_as_outputs=True,
    record=_record,
    rerun=_rerun,
    program_options=_program_options,
)


# `eval`: how surprising a text is to a bundle and to its source, and how often both would go on alike.


MAX_TEXT_BYTES = 4 << 20


@dataclass(frozen=True)
class _Window:
    """What was found in a part of the text that fills a cache, token by token but for the first.

    Attributes:
        surprises: minus the log probability of each token.
        choices: the likeliest token in its place.
    """

    surprises: NDArray[np.float64]
    choices: NDArray[np.intp]


@dataclass(frozen=True, kw_only=True, repr=False)
class GenerationEvaluation(EvaluationResult):
    """What was found.

    Attributes:
        executed_by: what ran the bundle's programs.
        n: the tokens that were predicted.
        windows: the parts that the text was divided into, each of which fills the bundle's longest cache.
        perplexity: of the bundle: e to the power of the mean surprise of a token.
        source_perplexity: of the source model in fp32 over the same parts, None where it was not at hand.
        agreement: the share of tokens in whose place both have the same likeliest one; None without a source.
    """

    executed_by: str
    n: int
    windows: int
    perplexity: float
    source_perplexity: float | None
    agreement: float | None

    def to_json(self) -> dict[str, Any]:
        """The document that `eval --json` prints."""
        return {
            "metric": "perplexity",
            "value": self.perplexity,
            "n": self.n,
            "source_value": self.source_perplexity,
            "agreement": self.agreement,
            "windows": self.windows,
            "executed_by": self.executed_by,
        }

    def tables(self) -> list[Table]:
        """A row for the bundle and one for its source."""
        table = Table("model", "executed by", "perplexity", "same next token", "tokens")
        same = "-" if self.agreement is None else f"{self.agreement:.2%}"
        table.add_row(self.model, self.executed_by, f"{self.perplexity:.4f}", same, str(self.n))
        if self.source_perplexity is not None:
            table.add_row(self.source_model, "torch, fp32", f"{self.source_perplexity:.4f}", "", str(self.n))
        return [table]


def evaluate_generation(asker: Asker, data: str, limit: int | None) -> GenerationEvaluation:
    """The perplexity of a text file, in parts that fill the bundle's longest cache.

    Args:
        asker: whom.
        data: a .txt file, which is one text.
        limit: of so many parts at most, spread evenly; None: of all.

    Raises:
        InputError: the file cannot be read, or has fewer than two tokens.
    """
    from edgeformer.data.labelled import spread
    from edgeformer.models.config import read_text
    from edgeformer_runtime.pipelines.generation import PromptCache, TextGenerator

    path = Path(data)
    if path.suffix.lower() != ".txt":
        raise InputError(f"expected a .txt file, which is one text, found {path.name}")
    text = read_text(path, MAX_TEXT_BYTES, path.name)
    if asker.isolated:
        raise InputError("--isolated: the decoder of generated text runs in this process: leave it out")
    notes = [f"its conversion's gates refused this bundle: {why}" for why in refusals(asker.bundle)]
    checkpoint = asker.open_source(notes)
    engine = asker.open_engine()
    own: list[_Window] = []
    try:
        generator = TextGenerator(asker.bundle, engine)
        bucket = generator.head.buckets[-1]
        tokens = generator.prompt_tokens(text)
        parts = [tokens[at : at + bucket.rows] for at in range(0, len(tokens), bucket.rows)]
        parts = [part for part in parts if len(part) > 1]
        parts = parts if limit is None else list(spread(parts, limit))
        if not parts:
            raise InputError(f"{path.name}: expected a text of two tokens or more")
        for part in parts:
            cache = PromptCache(engine.open_decoder(bucket, generator.head))
            own.append(_window([cache.logits_after(part[:count]).copy() for count in range(1, len(part))], part))
            cache.decoder.close()
            if asker.progress is not None:
                asker.progress(len(own), len(parts))
        executed_by, not_covered = engine.executed_by, engine.not_covered
    finally:
        engine.close()
    theirs = None if checkpoint is None else _source_windows(checkpoint, parts)
    return GenerationEvaluation(
        executed_by=executed_by,
        n=sum(len(each.surprises) for each in own),
        windows=len(parts),
        perplexity=_perplexity(own),
        source_perplexity=None if theirs is None else _perplexity(theirs),
        agreement=None if theirs is None else float(_choices(own, theirs).mean()),
        notes=tuple(notes if not_covered is None else [*notes, not_covered]),
    )


def _source_windows(checkpoint: Checkpoint, parts: Sequence[Sequence[int]]) -> list[_Window]:
    """What the source model says of the same parts, each in one run without a cache."""
    import torch

    from edgeformer.attention import KERNELS
    from edgeformer.checkpoints.checkpoint import load_module
    from edgeformer.checkpoints.source_index import SOURCE_ATTENTION

    module, _ = load_module(checkpoint, KERNELS[SOURCE_ATTENTION])
    with torch.inference_mode():
        return [_window(list(module(torch.tensor([part], dtype=torch.int32))[0].numpy()), part) for part in parts]


def _window(logits: Sequence[Any], part: Sequence[int]) -> _Window:
    """From the logits (V,) behind each token but perhaps the last."""
    from edgeformer_runtime.verify.decoder_replay import log_probability

    pairs = list(zip(logits, part[1:], strict=False))
    surprises = np.array([-log_probability(row, token) for row, token in pairs])
    return _Window(surprises, np.array([int(row.argmax()) for row, _ in pairs], np.intp))


def _perplexity(windows: Sequence[_Window]) -> float:
    return float(np.exp(np.concatenate([each.surprises for each in windows]).mean()))


def _choices(own: Sequence[_Window], theirs: Sequence[_Window]) -> NDArray[np.bool_]:
    same: NDArray[np.bool_] = np.concatenate([each.choices for each in own]) == np.concatenate(
        [each.choices for each in theirs]
    )
    return same
