"""Makes small public-format checkpoints with transformers: random weights, a real WordPiece vocabulary."""

from __future__ import annotations

import string
from pathlib import Path
from typing import Any

import torch
import transformers
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

WORDS = "turn the lights off on in living room what is weather like please remind me to call bank about my"
SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")


def vocabulary() -> list[str]:
    """Special tokens, some words, and every letter alone and as a continuation."""
    letters = string.ascii_lowercase + string.digits + string.punctuation
    return [*SPECIAL, *WORDS.split(), *letters, *(f"##{letter}" for letter in letters)]


def tokenizer() -> Tokenizer:
    """A lower-casing WordPiece tokenizer over `vocabulary()`, as BERT has it."""
    ids = {token: index for index, token in enumerate(dict.fromkeys(vocabulary()))}
    made = Tokenizer(models.WordPiece(ids, unk_token="[UNK]"))
    made.normalizer = normalizers.BertNormalizer()
    made.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    made.post_processor = processors.BertProcessing(("[SEP]", ids["[SEP]"]), ("[CLS]", ids["[CLS]"]))
    return made


def save_mobilebert(folder: Path, *, with_tokenizer: bool = True, num_labels: int = 3, **config: object) -> Path:
    """A MobileBERT classifier of two narrow layers; `config` overrides single settings."""
    torch.manual_seed(0)
    settings: dict[str, object] = {
        "vocab_size": len(dict.fromkeys(vocabulary())),
        "hidden_size": 64,
        "embedding_size": 32,
        "intra_bottleneck_size": 32,
        "intermediate_size": 64,
        "num_attention_heads": 2,
        "num_hidden_layers": 2,
        "max_position_embeddings": 64,
        "num_feedforward_networks": 2,
        "num_labels": num_labels,
        "initializer_range": 0.1,
    }
    model = transformers.MobileBertForSequenceClassification(transformers.MobileBertConfig(**(settings | config)))
    model.eval().save_pretrained(folder)
    if with_tokenizer:
        tokenizer().save(str(folder / "tokenizer.json"))
    return folder


WHISPER_LANGUAGES = ("en", "de", "fr")
WHISPER_TEXT = "the lights are on and the music is off, turn them on again please. what is the weather like"


def whisper_tokenizer(*, multilingual: bool = True) -> Tokenizer:
    """A byte-level BPE tokenizer over a few merges, with Whisper's special tokens and 1501 timestamps behind it."""
    made = Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=290, initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()), show_progress=False
    )
    made.train_from_iterator([WHISPER_TEXT], trainer)
    languages = WHISPER_LANGUAGES if multilingual else WHISPER_LANGUAGES[:1]
    special = [
        "<|endoftext|>",
        "<|startoftranscript|>",
        *(f"<|{language}|>" for language in languages),
        "<|translate|>",
        "<|transcribe|>",
        "<|startoflm|>",
        "<|startofprev|>",
        "<|nospeech|>",
        "<|notimestamps|>",
    ]
    made.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in special])
    made.add_tokens([AddedToken(f"<|{0.02 * step:.2f}|>", normalized=False) for step in range(1501)])
    return made


def save_whisper(folder: Path, *, multilingual: bool = True, decoder_layers: int = 2, **config: object) -> Path:
    """A Whisper of two narrow layers with everything that a published one has; `config` overrides single settings.

    One decoder layer makes it a distilled one: its alignment heads are then still those of its teacher.
    """
    torch.manual_seed(0)
    tokenizer = whisper_tokenizer(multilingual=multilingual)
    ids = tokenizer.get_vocab(with_added_tokens=True)
    settings: dict[str, object] = {
        "vocab_size": len(ids),
        "num_mel_bins": 80,
        "d_model": 64,
        "encoder_layers": 2,
        "decoder_layers": decoder_layers,
        "encoder_attention_heads": 2,
        "decoder_attention_heads": 2,
        "encoder_ffn_dim": 128,
        "decoder_ffn_dim": 128,
        "bos_token_id": ids["<|endoftext|>"],
        "eos_token_id": ids["<|endoftext|>"],
        "pad_token_id": ids["<|endoftext|>"],
        "decoder_start_token_id": ids["<|startoftranscript|>"],
        "suppress_tokens": None,
        "begin_suppress_tokens": None,
    }
    model = transformers.WhisperForConditionalGeneration(transformers.WhisperConfig(**(settings | config)))
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            # Spread enough that every part shows in the logits, and no two tokens come near a tie.
            scale = 0.3 if "embed" in name else parameter[0].numel() ** -0.5 if parameter.dim() > 1 else 0.1
            if name != "model.encoder.embed_positions.weight":
                parameter.add_(torch.randn(parameter.shape) * scale)
    generation = model.generation_config
    generation.suppress_tokens = [1, 2, 7, ids["<|startoflm|>"], ids["<|startofprev|>"], ids["<|nospeech|>"]]
    generation.begin_suppress_tokens = [ids["Ġ"], ids["<|endoftext|>"]]
    generation.no_timestamps_token_id = ids["<|notimestamps|>"]
    generation.prev_sot_token_id = ids["<|startofprev|>"]
    generation.max_initial_timestamp_index = 50
    generation.is_multilingual = multilingual
    generation.alignment_heads = [[0, 1], [1, 0]]
    if multilingual:
        generation.lang_to_id = {f"<|{language}|>": ids[f"<|{language}|>"] for language in WHISPER_LANGUAGES}
        generation.task_to_id = {"transcribe": ids["<|transcribe|>"], "translate": ids["<|translate|>"]}
    model.eval().save_pretrained(folder)
    seconds = model.config.max_source_positions // 50
    audio = transformers.WhisperFeatureExtractor(feature_size=model.config.num_mel_bins, chunk_length=seconds)
    audio.save_pretrained(folder)
    tokenizer.save(str(folder / "tokenizer.json"))
    return folder


END = "<|endoftext|>"
"""Starts and ends the texts of `save_generator`'s models; its id is 0."""


def save_generator(folder: Path, kind: str = "gpt2", **config: object) -> Path:
    """A tiny GPT-2 or Llama ("gpt2", "llama") with random weights and a byte-level BPE that knows `WORDS`."""
    library = Tokenizer(models.BPE())
    library.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    library.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=380, min_frequency=1, special_tokens=[END], initial_alphabet=alphabet, show_progress=False
    )
    library.train_from_iterator([WORDS, "about my savings account"] * 3, trainer)
    transformers.PreTrainedTokenizerFast(tokenizer_object=library, bos_token=END, eos_token=END).save_pretrained(folder)
    size = library.get_vocab_size()
    common: dict[str, Any] = {"vocab_size": size, "bos_token_id": 0, "eos_token_id": 0, "initializer_range": 0.2}
    torch.manual_seed(3)
    if kind == "gpt2":
        sizes = {"n_positions": 256, "n_embd": 32, "n_layer": 2, "n_head": 4}
        model: Any = transformers.GPT2LMHeadModel(transformers.GPT2Config(**{**common, **sizes, **config}))
    else:
        sizes = {
            "hidden_size": 48,
            "intermediate_size": 64,
            "num_hidden_layers": 2,
            "num_attention_heads": 6,
            "num_key_value_heads": 2,
            "max_position_embeddings": 256,
            "tie_word_embeddings": True,
        }
        model = transformers.LlamaForCausalLM(transformers.LlamaConfig(**{**common, **sizes, **config}))
    model.eval().save_pretrained(folder)
    return folder
