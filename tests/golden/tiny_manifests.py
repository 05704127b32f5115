"""Small manifests of each task, for golden manifests and bundles: no model file in them is a model."""

from __future__ import annotations

from dataclasses import replace

from edgeformer_runtime.bundle.manifest import (
    Classification,
    Embedding,
    FileEntry,
    Manifest,
    Postprocessing,
    Preprocessing,
    ProgramSpec,
    Recipe,
    Requirements,
    Source,
    TensorSpec,
    TextPreprocessing,
)
from edgeformer_runtime.bundle.specs import (
    AudioBucket,
    AudioPreprocessing,
    Score,
    SpeechTokens,
    Transcription,
    bucket_layout,
)
from edgeformer_runtime.tasks.image_text import ImageTextPreprocessing, Similarity
from edgeformer_runtime.tasks.programs import MASK_POSITION
from edgeformer_runtime.tasks.speech import FilterBank, RecordingPreprocessing
from edgeformer_runtime.tasks.tokens import SPAN_ENDS, MaskedToken, SpanExtraction, TokenLabels
from edgeformer_runtime.tasks.vision import ImagePreprocessing

MODEL = "model.bin"
LABELS = ("lights", "weather", "greeting")
EMBEDDING_DIM = 4
SEQ_LENS = (8, 16)

IMAGE_SPEC = ImagePreprocessing(
    height=16,
    width=24,
    resize_short_side=26,
    interpolation="bicubic",
    crop="center",
    mean=(0.485, 0.456, 0.406),
    std=(0.229, 0.224, 0.225),
)

# A speech model of one second, so that its vocabulary of bytes, special tokens and timestamps stays below 512.
AUDIO_SPEC = AudioPreprocessing(16000, 400, 160, 80, "mel_filters.safetensors", 1, 1e-10, 8.0)
FILTER_BANK = FilterBank(8, 20, 400, 160, 512, 20.0, 8000.0, 0.97, 2.0**-23, -4.0, 9.0)
SPEECH_TOKENS = SpeechTokens(
    start=257,
    end=256,
    start_of_previous=258,
    no_speech=259,
    no_timestamps=262,
    first_timestamp=263,
    transcribe=None,
    translate=None,
    languages={},
)
MULTILINGUAL_TOKENS = SpeechTokens(
    **(vars(SPEECH_TOKENS) | {"transcribe": 260, "translate": 261, "languages": {"de": 254, "en": 255}})
)
TIMESTAMPS = 51
VOCABULARY = SPEECH_TOKENS.first_timestamp + TIMESTAMPS
SPACE = ord(" ")


def text(task: str = "text-classification", target: str = "onnx") -> Manifest:
    """Two buckets; a classifier of three labels, an embedder or a scorer."""
    head, width = {
        "text-classification": (Classification(LABELS, "softmax"), len(LABELS)),
        "text-embedding": (Embedding(EMBEDDING_DIM, True), EMBEDDING_DIM),
        "text-scoring": (Score("sigmoid"), 1),
    }[task]
    programs = tuple(
        ProgramSpec(
            name=f"seq_{length}",
            file=MODEL,
            entry="main" if target == "onnx" else f"seq_{length}",
            inputs=tuple(TensorSpec(name, "int32", (1, length)) for name in ("input_ids", "attention_mask")),
            outputs=(TensorSpec("output", "float32", (1, width)),),
        )
        for length in SEQ_LENS
    )
    name = "tiny-score" if task == "text-scoring" else "tiny-text"
    return _manifest(name, "bert", task, target, programs, TextPreprocessing("tokenizer.json", 0, 12), head)


def packed() -> Manifest:
    """An embedder with a program for up to four texts in a row."""
    bucket = text("text-embedding", "litert")
    length = SEQ_LENS[-1]
    row = tuple(TensorSpec(name, "int32", (1, length)) for name in ("input_ids", "position_ids"))
    texts = TensorSpec("texts", "float32", (1, 4, length))
    output = TensorSpec("output", "float32", (4, EMBEDDING_DIM))
    return replace(bucket, packed=ProgramSpec("packed", MODEL, "packed", (*row, texts), (output,)))


def tokens(task: str, head: Postprocessing, lengths: tuple[int, ...] = (24, 48), target: str = "onnx") -> Manifest:
    """Two buckets of a model that scores every token."""
    width = len(head.labels) if isinstance(head, TokenLabels) else SPAN_ENDS
    programs = tuple(
        ProgramSpec(
            name=f"seq_{length}",
            file=MODEL,
            entry="main" if target == "onnx" else f"seq_{length}",
            inputs=tuple(TensorSpec(name, "int32", (1, length)) for name in ("input_ids", "attention_mask")),
            outputs=(TensorSpec("logits", "float32", (1, length, width)),),
        )
        for length in lengths
    )
    name = "tiny-spans" if width == SPAN_ENDS else "tiny-entities"
    return _manifest(name, "bert", task, target, programs, TextPreprocessing("tokenizer.json", 0, 12), head)


def spans() -> Manifest:
    """Question answering."""
    return tokens("question-answering", SpanExtraction(12, 15))


def entities() -> Manifest:
    """Token classification."""
    return tokens("token-classification", TokenLabels(("O", "B-LIGHT", "I-LIGHT"), ("O",), "simple", 12))


def fills(vocab_size: int = 12, mask_id: int = 11, lengths: tuple[int, ...] = (24, 48)) -> Manifest:
    """Masked tokens."""
    programs = tuple(
        ProgramSpec(
            name=f"seq_{length}",
            file=MODEL,
            entry="main",
            inputs=tuple(
                TensorSpec(name, "int32", (1, length)) for name in ("input_ids", "attention_mask", MASK_POSITION)
            ),
            outputs=(TensorSpec("logits", "float32", (1, vocab_size)),),
        )
        for length in lengths
    )
    spec = TextPreprocessing("tokenizer.json", 0, vocab_size)
    return _manifest("tiny-fills", "bert", "fill-mask", "onnx", programs, spec, MaskedToken("[MASK]", mask_id))


def image_embedding() -> Manifest:
    """An embedder of images whose crop begins where transformers begins it."""
    pixels = TensorSpec("pixels", "float32", (1, 3, IMAGE_SPEC.height, IMAGE_SPEC.width))
    output = TensorSpec("embedding", "float32", (1, EMBEDDING_DIM))
    program = ProgramSpec("image", MODEL, "main", (pixels,), (output,))
    spec, head = replace(IMAGE_SPEC, crop="center-floor"), Embedding(EMBEDDING_DIM, False)
    return _manifest("tiny-image-embedding", "adapted-vit", "image-embedding", "onnx", (program,), spec, head)


def image() -> Manifest:
    """A classifier of three labels."""
    pixels = TensorSpec("pixels", "float32", (1, 3, IMAGE_SPEC.height, IMAGE_SPEC.width))
    program = ProgramSpec("image", MODEL, "main", (pixels,), (TensorSpec("logits", "float32", (1, len(LABELS))),))
    head = Classification(LABELS, "softmax")
    return _manifest("tiny-image", "tinyvit", "image-classification", "onnx", (program,), IMAGE_SPEC, head)


def recording(bank: bool = False) -> Manifest:
    """A classifier of recordings of three labels: of energies, or of samples in two lengths."""
    labels = (TensorSpec("logits", "float32", (1, len(LABELS))),)
    if bank:
        spec = RecordingPreprocessing(16000, 400, normalize=False, filter_bank=FILTER_BANK)
        inputs = (TensorSpec("energies", "float32", (1, FILTER_BANK.frames, FILTER_BANK.n_mels)),)
        programs: tuple[ProgramSpec, ...] = (ProgramSpec("recording", MODEL, "main", inputs, labels),)
    else:
        spec = RecordingPreprocessing(16000, 400, normalize=True, filter_bank=None)
        programs = tuple(
            ProgramSpec(
                f"recording_{count}",
                MODEL,
                "main",
                (TensorSpec("samples", "float32", (1, count)), TensorSpec("length", "int32", (1,))),
                labels,
            )
            for count in (800, 1600)
        )
    head = Classification(LABELS, "softmax")
    return _manifest("tiny-recording", "adapted-wav2vec2", "audio-classification", "onnx", programs, spec, head)


def image_text() -> Manifest:
    """Embeddings of images and of texts, in two buckets."""
    output = TensorSpec("embedding", "float32", (1, EMBEDDING_DIM))
    pixels = TensorSpec("pixels", "float32", (1, 3, IMAGE_SPEC.height, IMAGE_SPEC.width))
    texts = (
        ProgramSpec(f"seq_{length}", MODEL, "main", (TensorSpec("input_ids", "int32", (1, length)),), (output,))
        for length in SEQ_LENS
    )
    programs = (ProgramSpec("image", MODEL, "main", (pixels,), (output,)), *texts)
    spec = ImageTextPreprocessing(IMAGE_SPEC, TextPreprocessing("tokenizer.json", 0, 12))
    head = Similarity(EMBEDDING_DIM, scale=0.25, bias=-0.5, activation="softmax")
    return _manifest("tiny-image-text", "adapted-clip", "image-text", "onnx", programs, spec, head)


def speech_spec(
    tokens: SpeechTokens = SPEECH_TOKENS, state: str = "host", rows: int = 24, suppress: tuple[int, ...] = (1, 2)
) -> Transcription:
    """One head of two components in one layer; half a second and a whole one."""
    buckets = tuple(
        AudioBucket(count, tail, rows, f"encode_{count}", f"prefill_{count}", f"decode_{count}")
        for count, tail in ((25, 2), (50, 0))
    )
    return Transcription(
        tokenizer="tokenizer.json",
        tokens=tokens,
        suppress=suppress,
        suppress_at_start=(SPACE, tokens.end),
        vocab_size=VOCABULARY,
        layers=1,
        heads=1,
        head_dim=2,
        alignment_heads=1,
        prefill_tokens=4,
        state=state,
        seconds_per_timestamp=0.02,
        max_initial_timestamp=0.5,
        buckets=buckets,
    )


def speech(tokens: SpeechTokens = SPEECH_TOKENS, state: str = "host", target: str = "onnx") -> Manifest:
    """A recogniser with the layout of a Whisper."""
    spec = speech_spec(tokens, state)
    programs = tuple(
        ProgramSpec(layout.name, MODEL, "main" if target == "onnx" else layout.name, layout.inputs, layout.outputs)
        for bucket in spec.buckets
        for layout in bucket_layout(spec, bucket, AUDIO_SPEC.n_mels)
    )
    return _manifest("tiny-speech", "whisper", "speech-recognition", target, programs, AUDIO_SPEC, spec)


def listed(manifest: Manifest) -> dict[str, FileEntry]:
    """The files that a manifest's bundle would have, with made-up sizes and hashes."""
    names = [MODEL, "report.json", "vectors/cases.json", "vectors/tensors.safetensors"]
    if manifest.preprocessing.kind not in ("image", "recording"):
        names.append("tokenizer.json")
    if manifest.preprocessing.kind == "audio":
        names.append(AUDIO_SPEC.mel_filters)
    return {name: FileEntry(f"{index:x}" * 64, 100 * index) for index, name in enumerate(names)}


def _manifest(
    name: str,
    family: str,
    task: str,
    target: str,
    programs: tuple[ProgramSpec, ...],
    before: Preprocessing,
    head: Postprocessing,
) -> Manifest:
    return Manifest(
        name=name,
        family=family,
        task=task,
        target=target,
        precision="fp32",
        license="Apache-2.0",
        requires=Requirements(runtime="0.1.0", android_api=26),
        source=Source("tests/tiny", None, "0" * 64),
        recipe=Recipe("wfp32_afp32", "float32", "float32", "float32"),
        attention="dense",
        toolchain={"torch": "2.13.0"},
        programs=programs,
        preprocessing=before,
        postprocessing=head,
        operators={"ADD": 2},
        files={},
    )
