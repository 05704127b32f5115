"""What is read of a Whisper checkpoint beside its weights, from as many of its files as there are."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from checkpoint_factory import WHISPER_LANGUAGES, WHISPER_TEXT, save_whisper, whisper_tokenizer
from tokenizers import Tokenizer

from edgeformer.attention import KERNELS
from edgeformer.checkpoints.checkpoint import Checkpoint, load_module, open_checkpoint
from edgeformer.checkpoints.sources import resolve_source
from edgeformer.checkpoints.tokenizers import read_tokenizer
from edgeformer.models.whisper.generation import SpeechSettings
from edgeformer.models.whisper.model import Whisper, WhisperConfig
from edgeformer_runtime.decoding.options import TranscribeOptions
from edgeformer_runtime.decoding.prompt import build_prompt
from edgeformer_runtime.errors import InputError

POSITIONS = 100
"""Of the encoder: two seconds."""


@pytest.fixture(scope="module")
def multilingual(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_whisper(tmp_path_factory.mktemp("whisper"), max_source_positions=POSITIONS)


@pytest.fixture
def copy(multilingual: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(multilingual, tmp_path / "copy"))


def ids_of(folder: Path) -> dict[str, int]:
    return Tokenizer.from_file(str(folder / "tokenizer.json")).get_vocab(with_added_tokens=True)


def change(path: Path, **values: Any) -> None:
    """Set keys of a JSON file; None removes one."""
    raw = json.loads(path.read_text()) if path.is_file() else {}
    raw |= values
    path.write_text(json.dumps({name: value for name, value in raw.items() if value is not None}))


def speech_of(checkpoint: Checkpoint) -> SpeechSettings:
    assert checkpoint.speech is not None
    return checkpoint.speech


def test_a_multilingual_checkpoint(multilingual: Path) -> None:
    checkpoint = open_checkpoint(str(multilingual))
    ids = ids_of(multilingual)
    assert (checkpoint.task, checkpoint.family.name, checkpoint.labels) == ("speech-recognition", "whisper", ())
    assert checkpoint.notes == (
        "generation_config.json states no task: a bundle transcribes, and transformers leaves the task open",
    )
    settings = speech_of(checkpoint)
    tokens = settings.tokens
    assert tokens.languages == {language: ids[f"<|{language}|>"] for language in WHISPER_LANGUAGES}
    assert tokens.start == ids["<|startoftranscript|>"]
    assert tokens.end == ids["<|endoftext|>"]
    assert tokens.start_of_previous == ids["<|startofprev|>"]
    assert tokens.no_speech == ids["<|nospeech|>"]
    assert tokens.no_timestamps == ids["<|notimestamps|>"]
    assert tokens.first_timestamp == ids["<|0.00|>"] == tokens.no_timestamps + 1
    assert (tokens.transcribe, tokens.translate) == (ids["<|transcribe|>"], ids["<|translate|>"])
    stated = json.loads((multilingual / "generation_config.json").read_text())
    assert settings.suppress == tuple(sorted(stated["suppress_tokens"]))
    assert settings.suppress_at_start == tuple(sorted(stated["begin_suppress_tokens"]))
    assert (settings.seconds_per_timestamp, settings.max_initial_timestamp) == (0.02, 1.0)
    assert (settings.sample_rate, settings.n_fft, settings.hop_length, settings.window_seconds) == (16000, 400, 160, 2)
    assert checkpoint.config.alignment_heads == ((0, 1), (1, 0))


@pytest.mark.slow
def test_tiny_en(assets: Path) -> None:
    checkpoint = open_checkpoint(str(assets / "whisper-tiny.en"))
    settings = speech_of(checkpoint)
    tokens = settings.tokens
    assert (tokens.start, tokens.end, tokens.no_speech, tokens.no_timestamps) == (50257, 50256, 50361, 50362)
    assert (tokens.first_timestamp, tokens.start_of_previous) == (50363, 50360)
    assert (tokens.languages, tokens.transcribe, tokens.translate) == ({}, None, None)
    assert (len(settings.suppress), settings.suppress_at_start) == (90, (220, 50256))
    assert checkpoint.config.alignment_heads[:3] == ((1, 0), (2, 0), (2, 5))
    assert settings.window_seconds == 30
    module, report = load_module(checkpoint, KERNELS["dense"])
    assert isinstance(module, Whisper)
    assert (report.unused, report.notes) == ((), ())
    assert sum(parameter.numel() for parameter in module.parameters()) == 37_760_256


def test_a_distilled_checkpoint_drops_the_heads_of_its_teacher(tmp_path: Path) -> None:
    folder = save_whisper(tmp_path, multilingual=False, decoder_layers=1, max_source_positions=POSITIONS)
    checkpoint = open_checkpoint(str(folder))
    assert checkpoint.config.alignment_heads == ((0, 1),)
    assert (checkpoint.config.encoder_layers, checkpoint.config.decoder_layers) == (2, 1)
    module, report = load_module(checkpoint, KERNELS["dense"])
    assert report.notes == ("1 of 2 alignment heads are beyond the decoder's 1 layers of 2 heads and were dropped",)
    model = transformers.WhisperForConditionalGeneration.from_pretrained(folder)
    mel = torch.randn(1, 80, 2 * POSITIONS, generator=torch.Generator().manual_seed(0))
    tokens = torch.tensor([[300, 4, 5]])
    with torch.inference_mode():
        expected = model(input_features=mel, decoder_input_ids=tokens).logits
        torch.testing.assert_close(module(mel, tokens), expected, rtol=0, atol=1e-4)


def test_without_generation_and_preprocessor_config(multilingual: Path, copy: Path) -> None:
    (copy / "generation_config.json").unlink()
    (copy / "preprocessor_config.json").unlink()
    ids = ids_of(copy)
    checkpoint = open_checkpoint(str(copy))
    settings = speech_of(checkpoint)
    # Nothing says that this small vocabulary is multilingual; a public one of 51865 says it by its size.
    assert settings.tokens.languages == {}
    assert len(checkpoint.notes) == 2
    assert "no suppressed tokens" in checkpoint.notes[0]
    assert "what no transcript starts with" in checkpoint.notes[1]
    control = ("startoftranscript", "nospeech", "transcribe", "translate", "startofprev", "startoflm")
    assert settings.suppress == tuple(sorted(ids[f"<|{name}|>"] for name in control))
    assert settings.suppress_at_start == tuple(sorted((ids["Ġ"], ids["<|endoftext|>"])))
    assert settings.window_seconds == 2
    assert (
        checkpoint.config.alignment_heads
        == WhisperConfig(
            decoder_layers=2, decoder_attention_heads=2, d_model=64, encoder_attention_heads=2
        ).alignment_heads
    )
    # Older checkpoints keep the same settings in config.json.
    stated = json.loads((multilingual / "generation_config.json").read_text())
    change(
        copy / "config.json",
        is_multilingual=True,
        task="transcribe",
        **{name: stated[name] for name in ("suppress_tokens", "begin_suppress_tokens")},
    )
    checkpoint = open_checkpoint(str(copy))
    assert checkpoint.notes == ()
    assert speech_of(checkpoint) == speech_of(open_checkpoint(str(multilingual)))


def test_settings_inside_of_processor_config(copy: Path) -> None:
    audio = json.loads((copy / "preprocessor_config.json").read_text())
    (copy / "preprocessor_config.json").unlink()
    change(copy / "processor_config.json", feature_extractor=audio | {"n_fft": 320})
    assert speech_of(open_checkpoint(str(copy))).n_fft == 320
    change(copy / "processor_config.json", feature_extractor=audio | {"n_fft": 10**9})
    with pytest.raises(InputError, match="n_fft is 1000000000: expected 16384 at most"):
        open_checkpoint(str(copy))


def test_a_tokenizer_from_vocab_and_merges(multilingual: Path, copy: Path) -> None:
    whole = Tokenizer.from_file(str(multilingual / "tokenizer.json"))
    spec = json.loads((multilingual / "tokenizer.json").read_text())
    (copy / "tokenizer.json").unlink()
    vocab = dict(spec["model"]["vocab"])
    added = {token["content"]: token["id"] for token in spec["added_tokens"]}
    # As published: the end of text is part of the vocabulary.
    end = "<|endoftext|>"
    change(copy / "vocab.json", **vocab, **{end: added.pop(end)})
    change(copy / "added_tokens.json", **added)
    merges = "\n".join(" ".join(pair) for pair in spec["model"]["merges"])
    (copy / "merges.txt").write_text(f"#version: 0.2\n{merges}\n", encoding="utf-8")
    text = read_tokenizer(copy)
    assert text is not None
    made = Tokenizer.from_str(text)
    assert made.get_vocab(with_added_tokens=True) == whole.get_vocab(with_added_tokens=True)
    for sentence in (WHISPER_TEXT, " Grüße, 世界! <|en|>x", "", "  two  spaces\n"):
        ids = whole.encode(sentence, add_special_tokens=False).ids
        assert made.encode(sentence, add_special_tokens=False).ids == ids
        assert made.decode(ids, skip_special_tokens=True) == whole.decode(ids, skip_special_tokens=True)
    assert "<|0.40|>" in made.decode([made.token_to_id("<|0.40|>")], skip_special_tokens=True)
    assert speech_of(open_checkpoint(str(copy))) == speech_of(open_checkpoint(str(multilingual)))


@pytest.mark.slow
def test_tiny_en_from_vocab_and_merges(assets: Path, tmp_path: Path) -> None:
    for name in ("vocab.json", "merges.txt", "added_tokens.json"):
        shutil.copy(assets / "whisper-tiny.en" / name, tmp_path / name)
    text = read_tokenizer(tmp_path)
    assert text is not None
    made = Tokenizer.from_str(text)
    whole = Tokenizer.from_file(str(assets / "whisper-tiny.en" / "tokenizer.json"))
    assert made.get_vocab(with_added_tokens=True) == whole.get_vocab(with_added_tokens=True)
    clips = json.loads((assets / "speech" / "baseline_tiny_en_fp32.json").read_text())["clips"]
    texts = [str(value) for clip in clips for value in (clip.values() if isinstance(clip, dict) else [clip])]
    for sentence in texts:
        ids = whole.encode(sentence, add_special_tokens=False).ids
        assert made.encode(sentence, add_special_tokens=False).ids == ids


def no_tokenizer(folder: Path) -> None:
    (folder / "tokenizer.json").unlink()


def another_tokenizer(folder: Path) -> None:
    spec = json.loads((folder / "tokenizer.json").read_text())
    for token in spec["added_tokens"]:
        if token["content"] == "<|startoftranscript|>":
            token["content"] = "<|begin|>"
    (folder / "tokenizer.json").write_text(json.dumps(spec))


def corrupted_merges(folder: Path) -> None:
    (folder / "tokenizer.json").unlink()
    change(folder / "vocab.json", a=0, b=1)
    (folder / "merges.txt").write_text("a b\n")


def gap_in_added_tokens(folder: Path) -> None:
    (folder / "tokenizer.json").unlink()
    change(folder / "vocab.json", a=0, b=1)
    change(folder / "added_tokens.json", c=7)
    (folder / "merges.txt").write_text("#version: 0.2\n")


def generation(**values: Any) -> Callable[[Path], None]:
    return lambda folder: change(folder / "generation_config.json", **values)


def preprocessor(**values: Any) -> Callable[[Path], None]:
    return lambda folder: change(folder / "preprocessor_config.json", **values)


@pytest.mark.parametrize(
    ("corrupt", "message"),
    [
        (no_tokenizer, "needs a tokenizer: expected tokenizer.json, or vocab.json and merges.txt"),
        (another_tokenizer, r"has no <\|startoftranscript\|>"),
        (corrupted_merges, "expected pairs of tokens"),
        (gap_in_added_tokens, "without gaps"),
        (
            generation(no_timestamps_token_id=5),
            r"<\|notimestamps\|> is \d+, and the config's no_timestamps_token_id is 5",
        ),
        (generation(suppress_tokens=[-1]), "suppress_tokens must be a list of ids"),
        (generation(begin_suppress_tokens="220"), "begin_suppress_tokens must be a list of ids"),
        (generation(alignment_heads=[[1]]), r"alignment_heads must be a list of \[layer, head\]"),
        (generation(lang_to_id={"<|xx|>": 3}), "no language '<|xx|>'"),
        (generation(language="klingon"), "no language 'klingon': expected one of de, en, fr"),
        (generation(task="translate"), "the task is 'translate'"),
        (generation(task_to_id={"transcribe": 5}), "task_to_id: the tokenizer has no task 'transcribe' with the id 5"),
        (generation(prev_sot_token_id=5), r"<\|startofprev\|> is \d+, and the config's prev_sot_token_id is 5"),
        (generation(forced_decoder_ids=[[2, 5]]), "forced_decoder_ids: expected the language, the task and"),
        (generation(forced_decoder_ids=[[1, 5]]), "forced_decoder_ids: expected the language, the task and"),
        (generation(forced_decoder_ids=[5]), "forced_decoder_ids: expected the language, the task and"),
        (generation(forced_decoder_ids=7), "forced_decoder_ids: expected the language, the task and"),
        (preprocessor(do_normalize=True), "do_normalize is True"),
        (generation(max_initial_timestamp_index=0), "max_initial_timestamp_index"),
        (preprocessor(feature_size=128), "feature_size must be num_mel_bins 80, found 128"),
        (preprocessor(chunk_length=30), "chunk_length, found 30"),
        (preprocessor(hop_length=100), "whole seconds"),
    ],
)
def test_refuses_what_contradicts_itself(copy: Path, corrupt: Callable[[Path], None], message: str) -> None:
    corrupt(copy)
    with pytest.raises(InputError, match=message) as caught:
        open_checkpoint(str(copy))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("language", ["de", "German", "<|de|>"])
def test_a_fixed_language_is_the_only_one(copy: Path, language: str) -> None:
    """transformers then answers in it whatever it transcribes; with no other to choose from, so does a bundle."""
    change(copy / "generation_config.json", language=language, task="transcribe")
    checkpoint = open_checkpoint(str(copy))
    tokens = speech_of(checkpoint).tokens
    assert list(tokens.languages) == ["de"]
    assert tokens.reference_language == "de"
    assert any("fixes the language de" in note for note in checkpoint.notes)


@pytest.mark.parametrize("fixed", [{"language": "de", "task": "transcribe"}, {"forced_decoder_ids": "fr"}, {}])
def test_a_language_takes_the_place_of_the_fixed_one(copy: Path, fixed: dict[str, Any]) -> None:
    path = copy / "generation_config.json"
    if "forced_decoder_ids" in fixed:
        fixed = forced(fixed["forced_decoder_ids"], "transcribe")(ids_of(copy))
    change(path, **fixed)
    for language, known in (("any", ["de", "en", "fr"]), ("English", ["en"]), ("fr", ["fr"])):
        checkpoint = open_checkpoint(str(copy), language=language)
        assert sorted(speech_of(checkpoint).tokens.languages) == known
        assert not any("fixes the language" in note for note in checkpoint.notes)
    with pytest.raises(InputError, match="no language 'germn': did you mean de\\? expected one of de, en, fr"):
        open_checkpoint(str(copy), language="germn")
    change(path, task="translate")
    with pytest.raises(InputError, match="the task is 'translate'"):
        open_checkpoint(str(copy), language="any")


def test_a_language_belongs_to_speech() -> None:
    with pytest.raises(InputError, match="the task is image-classification: leave --language out"):
        open_checkpoint("cifar10-tinyvit", language="de")


def test_forced_tokens_fix_the_language_too(copy: Path) -> None:
    ids = Tokenizer.from_file(str(copy / "tokenizer.json")).get_vocab(with_added_tokens=True)
    path = copy / "generation_config.json"
    change(path, forced_decoder_ids=[[1, ids["<|fr|>"]], [2, ids["<|transcribe|>"]]])
    assert list(speech_of(open_checkpoint(str(copy))).tokens.languages) == ["fr"]
    change(path, forced_decoder_ids=[[1, None], [2, ids["<|transcribe|>"]]])
    assert sorted(speech_of(open_checkpoint(str(copy))).tokens.languages) == ["de", "en", "fr"]
    change(path, forced_decoder_ids=[[1, ids["<|fr|>"]], [2, ids["<|translate|>"]]])
    with pytest.raises(InputError, match="the task is 'translate'"):
        open_checkpoint(str(copy))


def forced(*tokens: str | None) -> Callable[[dict[str, int]], dict[str, Any]]:
    def values(ids: dict[str, int]) -> dict[str, Any]:
        pairs = [[place, None if token is None else ids[f"<|{token}|>"]] for place, token in enumerate(tokens, 1)]
        return {"forced_decoder_ids": pairs}

    return values


GENERATION, CONFIG = "generation_config.json", "config.json"


@pytest.mark.parametrize(
    ("file", "stated"),
    [
        (GENERATION, lambda _: {"task": "transcribe"}),
        (GENERATION, lambda _: {"language": "German"}),
        (GENERATION, lambda _: {"language": "german", "task": "transcribe"}),
        (GENERATION, lambda _: {"language": "fr", "task": "transcribe"}),
        (GENERATION, lambda _: {"language": "<|fr|>"}),
        (GENERATION, forced("de", "transcribe")),
        (GENERATION, forced("de", "transcribe", "notimestamps")),
        (GENERATION, forced(None, "transcribe")),
        (GENERATION, lambda ids: forced("fr", "transcribe")(ids) | {"language": "de", "task": "transcribe"}),
        (GENERATION, lambda ids: forced("fr", "translate")(ids) | {"task": "transcribe"}),
        (CONFIG, forced("de", "transcribe")),
        (CONFIG, forced(None, "transcribe")),
    ],
)
def test_the_decoder_is_fed_what_transformers_feeds_it(
    copy: Path, file: str, stated: Callable[[dict[str, int]], dict[str, Any]]
) -> None:
    """The whole prompt, of which the checkpoint's files say language and task."""
    change(copy / GENERATION, _from_model_config=None)  # with it, transformers drops what Whisper alone has
    change(copy / file, **stated(ids_of(copy)))
    model = transformers.WhisperForConditionalGeneration.from_pretrained(copy)
    fed: list[list[int]] = []
    model.model.decoder.register_forward_pre_hook(
        lambda _module, _given, named: fed.append(named["input_ids"][0].tolist()), with_kwargs=True
    )
    mel = torch.randn(1, 80, 2 * POSITIONS, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        model.generate(mel, max_new_tokens=2)
    expected = max(fed, key=len)  # before it the language may have been looked for

    tokens = speech_of(open_checkpoint(str(copy))).tokens
    language = next(code for code, number in tokens.languages.items() if number == expected[1])
    assert list(build_prompt(tokens, 448, TranscribeOptions(timestamps=False), language).tokens) == expected


def test_timestamps_must_fit_the_vocabulary(tmp_path: Path) -> None:
    folder = save_whisper(tmp_path)
    spec = json.loads((folder / "tokenizer.json").read_text())
    spec["added_tokens"] = [token for token in spec["added_tokens"] if not token["content"].endswith("0|>")]
    (folder / "tokenizer.json").write_text(json.dumps(spec))
    change(folder / "config.json", vocab_size=1000)
    # Without some of its added tokens the library numbers the others anew, which nobody may miss.
    with pytest.raises(InputError, match=r"'<\|0.02\|>' the id 302, and the tokenizers library gives it 301"):
        open_checkpoint(str(folder))
    whisper_tokenizer().save(str(folder / "tokenizer.json"))
    with pytest.raises(InputError, match="ids and the model has 1000 embeddings"):
        open_checkpoint(str(folder))


def test_labels_are_refused(multilingual: Path, tmp_path: Path) -> None:
    (tmp_path / "labels.txt").write_text("a\nb\n")
    with pytest.raises(InputError, match="task is speech-recognition"):
        open_checkpoint(str(multilingual), labels_file=tmp_path / "labels.txt")


def test_a_hub_id_brings_every_file(monkeypatch: pytest.MonkeyPatch, multilingual: Path) -> None:
    """The patterns that are asked of the hub let the files of a Whisper through, and of pickles only when needed."""
    from fnmatch import fnmatch

    import huggingface_hub

    asked: list[list[str]] = []

    def snapshot_download(source: str, revision: str | None, allow_patterns: list[str]) -> str:  # noqa: ARG001
        asked.append(allow_patterns)
        return str(multilingual)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot_download)
    assert resolve_source("org/whisper").id == "hub:org/whisper"
    assert len(asked) == 1
    for name in (
        "config.json",
        "generation_config.json",
        "preprocessor_config.json",
        "tokenizer.json",
        "tokenizer_config.json",
        "vocab.json",
        "merges.txt",
        "added_tokens.json",
        "normalizer.json",
        "vocabulary.txt",
        "model.safetensors",
    ):
        assert any(fnmatch(name, pattern) for pattern in asked[0]), name
    assert not any(fnmatch("model.bin", pattern) for pattern in asked[0])
