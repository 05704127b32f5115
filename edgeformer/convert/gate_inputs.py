"""What a conversion is judged on besides its few recorded samples: built-in inputs, calibration, labelled data."""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgeformer.checkpoints.checkpoint import Checkpoint
from edgeformer.convert.agreement import Reference
from edgeformer.convert.calibration import MAX_SAMPLES
from edgeformer.convert.reference import TorchEngine
from edgeformer.data.labelled import open_data, spread
from edgeformer.models.program import Program
from edgeformer.tasks import samples
from edgeformer_runtime.bundle.bundle import Bundle
from edgeformer_runtime.bundle.manifest import Classification, TextPreprocessing
from edgeformer_runtime.bundle.specs import Transcription
from edgeformer_runtime.bundle.strict_json import shorten
from edgeformer_runtime.bundle.vectors import Case
from edgeformer_runtime.errors import InputError
from edgeformer_runtime.pipelines import open_program_pipeline

MAX_LABELLED = 1000
"""Of labelled data so many at most, spread evenly: an accuracy is then known to 1.6 points or better."""
TOKEN_SEQUENCES = 96
"""Drawn for a model without a tokenizer."""
IMAGES = 32
"""Drawn for a model of images."""


@dataclass(frozen=True)
class Judged:
    """What bundles are judged on besides built-in inputs, and what becomes of refused ones: see `ConvertOptions`."""

    calibration: Path | None
    evaluation: str | None
    keep_refused: bool


def references_for(bundle: Bundle, programs: Sequence[Program], judged: Judged) -> tuple[Reference, ...]:
    """Inputs that all bundles of these programs are judged on, with the source's outputs; none of speech.

    Args:
        bundle: an open one of the programs.
        programs: of the source.
        judged: what was given; labelled data take the place of everything built in.
    """
    if isinstance(bundle.manifest.postprocessing, Transcription):
        return ()
    if judged.evaluation is not None:
        return labelled_references(bundle, programs, judged.evaluation)
    given = calibration_references(programs)
    if judged.calibration is not None:
        # Calibration needs no labels: without them there is no metric.
        with suppress(InputError):
            given = labelled_references(bundle, programs, str(judged.calibration), MAX_SAMPLES)
    return (*built_in_references(bundle, programs), *given)


def recorded_references(cases: Iterable[Case]) -> Iterator[Reference]:
    """The recorded samples."""
    return (Reference(case.program, case.inputs, case.outputs, shorten(case.raw)) for case in cases)


def calibration_references(programs: Sequence[Program]) -> tuple[Reference, ...]:
    """The programs' calibration inputs with the source's outputs in torch; empty where none were given."""
    source = TorchEngine(programs)
    found = []
    for program in programs:
        for index, values in enumerate(program.calibration):
            inputs = {spec.name: value.numpy() for spec, value in zip(program.inputs, values, strict=True)}
            outputs = source.run(program.name, inputs)
            found.append(Reference(program.name, inputs, outputs, f"calibration input {index} of {program.name}"))
    return tuple(found)


def built_in_references(bundle: Bundle, programs: Sequence[Program]) -> tuple[Reference, ...]:
    """Ordinary texts, drawn token ids where there is no tokenizer, or drawn images, and the source's outputs in torch.

    Args:
        bundle: an open one of the programs, not of speech: how raw inputs become tensors.
        programs: of the source.
    """
    spec = bundle.manifest.preprocessing
    pipeline: Any = open_program_pipeline(bundle, TorchEngine(programs))
    if isinstance(spec, TextPreprocessing):
        lengths = sorted(program.inputs[0].shape[1] for program in programs)
        stored = gate_texts(lengths) if spec.tokenizer else _token_ids(lengths, spec.vocab_size or 1)
        raws = [(shorten(each), pipeline.raw_from_json(each)) for each in stored]
    else:
        raws = [(f"drawn image {index}", file) for index, file in enumerate(samples.varied_images(IMAGES))]
    return tuple(_reference(pipeline, sample, raw, None) for sample, raw in raws)


def labelled_references(
    bundle: Bundle, programs: Sequence[Program], data: str, limit: int = MAX_LABELLED
) -> tuple[Reference, ...]:
    """Labelled data with the source's outputs in torch.

    Args:
        bundle: an open one of the programs.
        programs: of the source.
        data: as `edgeformer eval` takes it.
        limit: use so many examples at most, spread evenly.

    Raises:
        InputError: the bundle is no classifier, or the data cannot be used.
    """
    head = bundle.manifest.postprocessing
    if not isinstance(head, Classification):
        raise InputError(f"{bundle.manifest.name} does {bundle.manifest.task}: labelled data are for classifiers")
    pipeline = open_program_pipeline(bundle, TorchEngine(programs))
    with open_data(data, bundle.manifest.preprocessing.kind, head.labels) as opened:
        found = []
        for example in opened.limited(limit).examples:
            raw = example.read()
            sample = shorten(raw) if isinstance(raw, str) else shorten(example.name)
            try:
                found.append(_reference(pipeline, sample, raw, example.label))
            except InputError as error:
                raise InputError(f"{shorten(example.name)[1:-1]}: {error}") from None
        return tuple(found)


def check_labelled(data: str, checkpoint: Checkpoint) -> None:
    """Refuse labelled data that no bundle of the checkpoint could be judged on, before anything is lowered.

    Raises:
        InputError: it is no classifier, or the data cannot be used.
    """
    kinds = {"text-classification": "text", "image-classification": "image"}
    if checkpoint.task not in kinds:
        raise InputError(
            f"--eval is for classifiers, and this does {checkpoint.task}: leave it out, and use eval after"
        )
    with open_data(data, kinds[checkpoint.task], checkpoint.labels):
        pass


def _reference(pipeline: Any, sample: str, raw: Any, label: int | None) -> Reference:
    prepared = pipeline.prepare(raw)
    outputs = pipeline.engine.run(prepared.program, prepared.inputs)
    return Reference(prepared.program, prepared.inputs, outputs, sample, label)


def _token_ids(lengths: Sequence[int], vocab_size: int) -> Iterator[dict[str, Any]]:
    """Sequences of drawn ids, from 2 to the largest bucket long."""
    generator = random.Random(1)
    for _ in range(TOKEN_SEQUENCES):
        count = generator.randint(2, lengths[-1])
        yield {"token_ids": [generator.randrange(vocab_size) for _ in range(count)]}


# Ordinary texts that a conversion is judged on where nobody gave any: orders, questions, opinions, news, small talk.
#
# Written for this file. No classifier was trained on them, so their answers often lie near a boundary: a gate counts
# those apart.


SENTENCES: tuple[str, ...] = (
    "please turn down the heating in the bedroom",
    "set an alarm for half past six tomorrow morning",
    "play something quiet from the nineties",
    "add two litres of milk to my shopping list",
    "how long does it take to drive to the airport right now",
    "transfer fifty pounds from savings to my current account",
    "what is my credit limit on the blue card",
    "my card was declined at the petrol station, why?",
    "I lost my wallet, freeze everything immediately",
    "book a table for four at an Italian place on Saturday",
    "how do you say good evening in Portuguese",
    "remind me to water the plants every Thursday",
    "will it rain in Bergen this afternoon",
    "convert 300 grams of flour to cups",
    "who wrote the book about the whale",
    "cancel my appointment with the dentist",
    "call my sister on her mobile",
    "where is the nearest pharmacy that is still open",
    "the parcel never arrived and nobody answers the phone",
    "I would like my money back for these headphones",
    "can I change the delivery address after ordering?",
    "your last update broke the search, it finds nothing now",
    "thanks, that solved it within a minute",
    "how do I reset my password without the old phone",
    "the app crashes whenever I open the camera",
    "is breakfast included in the price of the room",
    "we stayed three nights and slept badly on every one of them",
    "spotless room, friendly people, and a view over the harbour",
    "the soup was cold and the waiter did not care",
    "best dumplings in town, worth the queue",
    "a warm, funny and beautifully acted film",
    "two hours of my life that I will never get back",
    "not as bad as the critics say, but not good either",
    "the plot makes no sense, yet I could not stop watching",
    "an unforgettable performance in an otherwise dull play",
    "the sequel repeats every joke of the first one",
    "this album grows on you after the third listen",
    "the battery lasts two days, the screen is gorgeous",
    "cheap plastic, and it broke in the first week",
    "does exactly what it promises, nothing more",
    "I am so happy for you both, congratulations!",
    "I can't believe she is gone, it still hurts",
    "stop shouting at me, I did nothing wrong",
    "honestly I am a little scared of tomorrow's exam",
    "wow, I did not see that coming at all",
    "ugh, this smells disgusting",
    "the central bank left interest rates unchanged on Wednesday",
    "shares in the carmaker fell eight per cent after a recall",
    "the striker scored twice as the home side won 3-1",
    "rain stopped play shortly before tea on the second day",
    "voters will choose a new parliament in early spring",
    "the minister denied that the talks had failed",
    "firefighters saved all the animals from the burning barn",
    "scientists found water ice below the dunes of Mars",
    "a new telescope took the sharpest image of the galaxy so far",
    "the company plans to hire two hundred engineers in Cork",
    "the museum returned the bronze head to Nigeria",
    "temperatures in the valley reached a record 41 degrees",
    "photosynthesis turns carbon dioxide and water into sugar",
    "the mitochondrion is where a cell makes most of its energy",
    "a prime number has exactly two divisors",
    "the treaty of 1648 ended thirty years of war",
    "the kidney filters about 180 litres of blood a day",
    "take one tablet twice a day with plenty of water",
    "the patient reports headaches and a mild fever since Monday",
    "no fracture is visible on the X-ray of the left wrist",
    "the tenant shall pay the rent by the third day of each month",
    "either party may end this agreement with four weeks' notice",
    "the court dismissed the appeal with costs",
    "import the module and call the function with a list of paths",
    "TypeError: 'NoneType' object is not subscriptable, line 42",
    "the query joins three tables and takes eleven seconds",
    "git says that my branch has diverged from origin",
    "you have won a FREE cruise, click here to claim your prize!!!",
    "URGENT: your account will be closed unless you verify it today",
    "hi mum, my phone is broken, text me on this number",
    "lol ok see u at 8 then",
    "brb, the pizza guy is here",
    "anyone selling tickets for tonight? dm me",
    "good morning everyone, coffee first, questions later",
    "the meeting moved to room 4.12, please bring your laptops",
    "attached you will find the signed contract and the invoice",
    "could you send me the slides before noon?",
    "I will be out of office until the 14th of August",
    "what time does the last train to Leeds leave",
    "my flight was delayed by five hours and I missed the connection",
    "do I need a visa for a week in Japan",
    "recommend a hike of about ten kilometres near Innsbruck",
    "how many calories are in a banana",
    "what can I cook with leeks, potatoes and cream",
    "knead the dough for ten minutes and let it rise overnight",
    "why is the sky blue",
    "is it safe to mix these two medicines",
    "tell me a joke about penguins",
    "who are you and what can you do",
    "that is not what I asked for",
    "yes",
    "no, never mind",
    "12345",
    "Wie wird das Wetter morgen in München?",
    "¿Dónde puedo cambiar dinero cerca de la estación?",
    "je voudrais réserver une chambre pour deux personnes",
)
"""A hundred and two."""

PAIRS = 6
"""So many sentences come a second time with the next one as their pair."""
LONG_PER_BUCKET = 3
"""Texts of several sentences for each bucket: its own limits are judged, too."""
MOST_POSITIONS = 1 << 15
FEWEST = 48
"""Where the smallest bucket is so long that all sentences would take more positions, fewer are judged, of 512 tokens
64: each costs a second in the slowest engine."""


def gate_texts(lengths: Sequence[int]) -> tuple[dict[str, Any], ...]:
    """The sentences, some as pairs, and for each bucket texts of several that need it, in the form of vectors.

    Args:
        lengths: of the buckets, rising.
    """
    single = [{"text": text} for text in spread(SENTENCES, max(FEWEST, MOST_POSITIONS // lengths[0]))]
    pairs = [{"text": SENTENCES[2 * index], "pair": SENTENCES[2 * index + 1]} for index in range(PAIRS)]
    words = itertools.cycle(" ".join(SENTENCES).split())
    # A word is a token or a little more: see `samples.texts`.
    long = [
        {"text": " ".join(itertools.islice(words, max(1, length * part // 8)))}
        for length in lengths
        for part in (4, 5, 6)[:LONG_PER_BUCKET]
    ]
    return (*single, *pairs, *long)
