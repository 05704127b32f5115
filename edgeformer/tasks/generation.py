"""Text generation: what surrounds a model that goes on with texts."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from edgeformer.models.family import ProgramOptions
from edgeformer.tasks.task import Peers, Task, TaskSpec
from edgeformer.tasks.text import TOKENIZER_FILE
from edgeformer_runtime.bundle.manifest import Manifest
from edgeformer_runtime.bundle.specs import PROGRAM_STATE
from edgeformer_runtime.bundle.strict_json import shorten
from edgeformer_runtime.decoding.tokenizer import MAX_TEMPLATE_BYTES
from edgeformer_runtime.errors import InputError
from edgeformer_runtime.preprocess.tokenizer_file import steps
from edgeformer_runtime.tasks.generation import Generation, PromptPreprocessing

if TYPE_CHECKING:
    from edgeformer.checkpoints.checkpoint import Checkpoint
    from edgeformer.models.family import Program
    from edgeformer_runtime.bundle.bundle import Bundle
    from edgeformer_runtime.bundle.vectors import Case
    from edgeformer_runtime.engines import Engine

GENERATION_FILE = "generation_config.json"
CHAT_TEMPLATE_FILE = "chat_template.jinja"

PROMPTS = (
    "Please remind me to call the bank about my savings account before the meeting on Friday",
    "The quick brown fox",
    "Q: What is the capital of France?\nA:",
    "Zürich \u2014 naïve café, 3.14 & 50 % off! \U0001f600 你好",
)
"""What vectors are recorded from, in each bucket: a note, a beginning, a question, other scripts."""
RECORDED_TOKENS = 24
"""Of each text, at most: four prompts give enough steps for a share of next tokens to mean something."""
STATE_ROUNDINGS = 6.0
"""All that attention sees comes out of the state. In Core ML at fp32 logits of tiny models with large random weights
(standard deviation 0.2) move by 0.6 roundings of GPT-2's state and 3.7 of Llama's; rounding the caches alone, in torch,
moves them by 0.9 and 2.6, and by less than 1 where the deviation is 0.1. The perplexity moves by less than 4e-5."""


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
    template = chat_template(checkpoint.folder)
    assets = {TOKENIZER_FILE: tokenizer.encode()}
    if template is not None:
        assets[CHAT_TEMPLATE_FILE] = template.encode()
    return TaskSpec(
        task=GENERATION,
        preprocessing=PromptPreprocessing(
            TOKENIZER_FILE, chat_template=None if template is None else CHAT_TEMPLATE_FILE
        ),
        postprocessing=head,
        assets=assets,
        samples=tuple({"text": text} for text in PROMPTS),
        state_roundings=STATE_ROUNDINGS * (head.state == PROGRAM_STATE),
    )


def _generation_config(folder: Path) -> dict[str, Any]:
    from edgeformer.models.config import read_object

    file = folder / GENERATION_FILE
    return {name: value for name, value in (read_object(file) if file.is_file() else {}).items() if value is not None}


def chat_template(folder: Path) -> str | None:
    """What turns a chat into a prompt, as transformers finds it; None: the checkpoint has none.

    The special tokens that it names, which transformers hands over with each chat, are set in its first lines.

    Raises:
        InputError: a file cannot be read, or holds something else.
    """
    from edgeformer.checkpoints.tokenizer_options import ROLES, SPECIAL_TOKENS_MAP, TOKENIZER_CONFIG
    from edgeformer.models.config import read_object, read_text

    stated = [
        read_object(folder / name) for name in (TOKENIZER_CONFIG, SPECIAL_TOKENS_MAP) if (folder / name).is_file()
    ]
    file = folder / CHAT_TEMPLATE_FILE
    found: Any = read_text(file, MAX_TEMPLATE_BYTES, file.name) if file.is_file() else None
    for config in stated:
        found = config.get("chat_template") if found is None else found
    if isinstance(found, list):  # several, by name
        found = next((each.get("template") for each in found if each.get("name") == "default"), None)
    if found is None:
        return None
    if not isinstance(found, str):
        raise InputError(f"{TOKENIZER_CONFIG}: chat_template must be a text, found {shorten(found)}")
    roles = {role: value for config in stated for role, value in config.items() if role in ROLES and value}
    contents = {role: value["content"] if isinstance(value, dict) else value for role, value in roles.items()}
    named = [f"{{% set {role} = {content!r} %}}\n" for role, content in contents.items() if role in found]
    return "".join((*named, found))


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
    evaluation="edgeformer.evaluate.metrics:evaluate_generation",
    peers=Peers(),
    aliases=("causallm", "lm", "llm", "textcompletion", "completion", "textgenerationwithpast"),
    architecture="ForCausalLM",
    writes=True,
    on_phones=False,
    scores="edgeformer.models.cached:generator_scores",
    # The largest of some ten thousand logits is farther out than that of a few labels; a score is a share of next
    # tokens, or a rise of perplexity.
    tolerance_scale=(4 / 3, 1.0),
    layers_as_outputs=True,
    record=_record,
    rerun=_rerun,
    program_options=_program_options,
)
