"""The fields of public config files that transformers, sentence-transformers and timm read, and what becomes of each.

Every field is honoured by the piece that reads it, refused or noted where its value would change an answer, or silent
because no value of it does. What the table does not know is noted.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgeformer.checkpoints.sentence import (
    DENSE,
    NORMALIZE,
    POOLING,
    SENTENCE_CONFIG,
    TRANSFORMER_CONFIGS,
    module_folders,
)
from edgeformer.checkpoints.sources import CONFIG_FILE, MODULES_FILE, SourceFolder
from edgeformer.checkpoints.tokenizer_options import ROLES, SPECIAL_TOKENS_MAP, TOKENIZER_CONFIG, has_own_class
from edgeformer.models.config import read_list, read_object
from edgeformer_runtime.bundle.strict_json import shorten
from edgeformer_runtime.errors import InputError

_SHOWN = 8

REST = "*"
"""In a table: all that it does not name, where another library's class reads it."""
TEXT, IMAGE, AUDIO, PROMPT, IMAGE_TEXT = "text", "image", "audio", "prompt", "image-text"
"""What models read: the kinds of preprocessing in a manifest."""
GENERATION_FILE, PREPROCESSOR_FILE = "generation_config.json", "preprocessor_config.json"
PROCESSOR_FILE = "processor_config.json"
HONOURED, REFUSED, NOTED, SILENT = "honoured", "refused", "noted", "silent"


@dataclass(frozen=True)
class Field:
    """What becomes of a field.

    Attributes:
        treatment: "honoured", "refused", "noted" or "silent".
        plain: values that change nothing; one that is absent or null never does.
        why: for the refused what to do, for the noted what it would change.
    """

    treatment: str
    plain: tuple[Any, ...] = ()
    why: str = ""


def _each(names: str, field: Field) -> dict[str, Field]:
    return dict.fromkeys(names.split(), field)


def _honoured(names: str) -> dict[str, Field]:
    return _each(names, Field(HONOURED))


def _silent(names: str) -> dict[str, Field]:
    return _each(names, Field(SILENT))


_OWN_CODE = Field(
    REFUSED,
    ({},),
    "the author's own class computes it, and that code is not run here: expected a plain model; if the plain one "
    "computes the same, remove auto_map",
)
_COMMON = {
    **_honoured("model_type architectures problem_type id2label num_labels quantization_config"),
    "auto_map": _OWN_CODE,
    **_silent(
        "dtype torch_dtype transformers_version _name_or_path name_or_path label2id initializer_range "
        "initializer_factor use_cache gradient_checkpointing finetuning_task output_attentions output_hidden_states "
        "return_dict use_return_dict torchscript tie_word_embeddings tie_encoder_decoder bos_token_id eos_token_id "
        "sep_token_id cls_token_id chunk_size_feed_forward prefix task_specific_params tokenizer_class "
        "_attn_implementation attn_implementation _attn_implementation_autoset cross_attention_hidden_size "
        "use_bfloat16 tf_legacy_loss is_encoder_decoder add_cross_attention is_decoder _commit_hash summary "
        "architectures_ language edgeformer license model_id"
    ),
    **_honoured("attention_kernel is_decoder add_cross_attention tokenizer_class"),
}

_REFUSED_OF_ANY = {
    "auto_map": _OWN_CODE,
    "quantization_config": Field(REFUSED, ({},), "only plain weights are read: save the checkpoint without it"),
}
"""Of a config.json that another library's class reads."""

CONFIG_FIELDS: dict[str, dict[str, Field]] = {
    TEXT: {
        **_COMMON,
        **_honoured(
            "vocab_size hidden_size num_hidden_layers num_attention_heads intermediate_size hidden_act "
            "max_position_embeddings type_vocab_size layer_norm_eps pad_token_id position_embedding_type "
            "is_encoder_decoder pruned_heads dim n_layers n_heads hidden_dim activation embedding_size "
            "intra_bottleneck_size num_feedforward_networks trigram_input use_bottleneck use_bottleneck_attention "
            "key_query_shared_bottleneck classifier_activation normalization_type layer_widths tie_word_embeddings"
        ),
        **_silent(
            "hidden_dropout_prob attention_probs_dropout_prob classifier_dropout dropout attention_dropout qa_dropout "
            "seq_classif_dropout sinusoidal_pos_embds tie_weights_ true_hidden_size directionality pooler_fc_size "
            "pooler_num_attention_heads pooler_num_fc_layers pooler_size_per_head pooler_type output_past cell "
            "emb_size structure pre_trained training attention_window summary_activation summary_last_dropout "
            "summary_type summary_use_proj"
        ),
        **_each(
            "sentence_transformers sbert_ce_default_activation_function",
            Field(
                NOTED,
                why="a CrossEncoder's activation is used for one label: scores of several are softmax or sigmoid",
            ),
        ),
    },
    IMAGE: {
        **_COMMON,
        **_honoured("architecture num_classes global_pool label_names label_descriptions pretrained_cfg model_args"),
        **_honoured("layer_widths"),
        **_silent("num_features do_pooling"),
    },
    AUDIO: {
        **_COMMON,
        **_honoured(
            "vocab_size num_mel_bins d_model encoder_layers decoder_layers encoder_attention_heads "
            "decoder_attention_heads encoder_ffn_dim decoder_ffn_dim max_source_positions max_target_positions "
            "activation_function scale_embedding encoder_layer_widths decoder_layer_widths alignment_heads "
            "suppress_tokens begin_suppress_tokens decoder_start_token_id eos_token_id forced_decoder_ids lang_ids "
            "suppress_ids suppress_ids_begin no_timestamps_token_id is_multilingual lang_to_id language task"
        ),
        **_silent(
            "dropout attention_dropout activation_dropout encoder_layerdrop decoder_layerdrop init_std "
            "apply_spec_augment mask_feature_length mask_feature_min_masks mask_feature_prob mask_time_length "
            "mask_time_min_masks mask_time_prob median_filter_width use_weighted_layer_sum classifier_proj_size "
            "num_hidden_layers pad_token_id max_length is_encoder_decoder bos_token_id architecture"
        ),
    },
    PROMPT: {
        **_COMMON,
        **_honoured(
            "vocab_size bos_token_id eos_token_id tie_word_embeddings add_cross_attention n_embd n_layer n_head "
            "n_positions n_inner activation_function layer_norm_epsilon scale_attn_weights "
            "scale_attn_by_inverse_layer_idx hidden_size num_hidden_layers num_attention_heads num_key_value_heads "
            "head_dim intermediate_size hidden_act max_position_embeddings rms_norm_eps rope_theta rope_scaling "
            "rope_parameters attention_bias mlp_bias sliding_window use_sliding_window"
        ),
        # GPT-2's dropout, its classifiers, and an order of computing that changes no value; where windows would begin.
        **_silent(
            "attn_pdrop embd_pdrop resid_pdrop summary_activation summary_first_dropout summary_proj_to_labels "
            "summary_type summary_use_proj reorder_and_upcast_attn n_ctx attention_dropout hidden_dropout "
            "pretraining_tp pad_token_id is_llama_config layer_types max_window_layers "
            "sliding_window_pattern"
        ),
        "rope_interleaved": Field(REFUSED, (False,), "the halves of a head are rotated, as transformers does it"),
    },
}
"""config.json, by what the model reads."""

TOKENIZER_FIELDS: dict[str, Field] = {
    **_honoured(" ".join(ROLES)),
    **_honoured(
        "tokenizer_class do_lower_case strip_accents tokenize_chinese_chars added_tokens_decoder extra_special_tokens "
        "additional_special_tokens model_input_names model_max_length max_len auto_map add_prefix_space"
    ),
    "truncation_side": Field(REFUSED, ("right",), "texts are cut at the right here: set it to right"),
    "split_special_tokens": Field(
        REFUSED, (False,), "special tokens are found in texts here: set it to false, or remove them from the tokenizer"
    ),
    "padding_side": Field(NOTED, ("right",), "padding is at the right here, which other positions would change"),
    "never_split": Field(NOTED, ([],), "transformers 5 does not split by it, and neither does a bundle"),
    "do_basic_tokenize": Field(NOTED, (True,), "transformers 5 always splits words first, and so does a bundle"),
    "clean_text": Field(NOTED, (True,), "control characters are always removed"),
    "wordpieces_prefix": Field(NOTED, ("##",), "pieces inside of words begin with ##"),
    **_silent(
        "add_bos_token add_eos_token clean_up_tokenization_spaces chat_template name_or_path tokenizer_file use_fast "
        "backend is_local local_files_only processor_class special_tokens_map_file max_length stride "
        "truncation_strategy pad_to_multiple_of pad_token_type_id padding legacy from_slow errors "
        "return_attention_mask vocab_file merges_file trim_offsets init_inputs verbose extra_ids sp_model_kwargs "
        "response_template response_schema files_loaded language task predict_timestamps normalizer_file truncation "
        "cls_token_type_id mask_token_type_id unk_id"
    ),
}

SENTENCE_FIELDS: dict[str, Field] = {
    **_honoured("model_type prompts default_prompt_name"),
    "truncate_dim": Field(REFUSED, (), "embeddings are not cut here: set it to null, and cut them in the app"),
    "similarity_fn_name": Field(NOTED, ("cosine",), "how two embeddings are compared is the app's choice"),
    "activation_fn": Field(NOTED, (), "scores are the softmax or sigmoid of the logits"),
    **_silent("__version__ requirements keep_in_fp32_modules"),
}

_CALLED = "how the model is called: remove it if the plain call gives the same"
TRANSFORMER_FIELDS: dict[str, Field] = {
    **_honoured("max_seq_length do_lower_case transformer_task"),
    "processing_kwargs": Field(REFUSED, ({},), _CALLED),
    "modality_config": Field(
        REFUSED,
        tuple({"text": {"method": "forward", "method_output_name": name}} for name in ("last_hidden_state", "logits")),
        "only a text's last hidden state or logits are taken",
    ),
    "module_output_name": Field(REFUSED, ("token_embeddings", "scores"), _CALLED),
    **_each("query_expansion query_length document_length", Field(REFUSED, (), "queries and documents are alike here")),
    **_each("model_args config_args tokenizer_args", Field(REFUSED, ({},), _CALLED)),
    **_each("model_kwargs config_kwargs processor_kwargs", Field(REFUSED, ({},), _CALLED)),
    **_silent("unpad_inputs"),
}
"""sentence_bert_config.json, by any of its names."""

POOLING_FIELDS: dict[str, Field] = {
    **_honoured(
        "pooling_mode pooling_mode_cls_token pooling_mode_max_tokens pooling_mode_mean_tokens "
        "pooling_mode_mean_sqrt_len_tokens pooling_mode_weightedmean_tokens pooling_mode_lasttoken include_prompt"
    ),
    **_silent("word_embedding_dimension embedding_dimension"),
}

MODULE_FIELDS: dict[str, Field] = {
    **_honoured("path type"),
    "kwargs": Field(NOTED, ([],), "arguments of encode() are not known here"),
    **_silent("idx name"),
}
"""Each entry of modules.json."""

_WHOLE = _each(
    "module_input_name module_output_name",
    Field(REFUSED, ("sentence_embedding",), "modules behind the pooling take the whole embedding"),
)
MODULE_FILES: dict[str, dict[str, Field]] = {
    POOLING: POOLING_FIELDS,
    DENSE: {
        **_honoured("in_features out_features bias activation_function"),
        "use_residual": Field(REFUSED, (False,), "what a dense layer reads is not added to what it gives"),
        **_WHOLE,
    },
    NORMALIZE: _WHOLE,
}
"""The config.json of each kind of module."""

_DECODING = "greedy decoding with fallbacks, as the caller asks, is what a bundle does"
GENERATION_FIELDS: dict[str, Field] = {
    **_honoured(
        "language task forced_decoder_ids suppress_tokens begin_suppress_tokens alignment_heads lang_to_id "
        "no_timestamps_token_id decoder_start_token_id eos_token_id is_multilingual max_initial_timestamp_index "
        "prev_sot_token_id task_to_id"
    ),
    "num_beams": Field(NOTED, (1,), _DECODING),
    "do_sample": Field(NOTED, (False,), _DECODING),
    "temperature": Field(NOTED, (0.0, 1.0), _DECODING),
    "num_return_sequences": Field(NOTED, (1,), _DECODING),
    "repetition_penalty": Field(NOTED, (1.0,), _DECODING),
    "length_penalty": Field(NOTED, (1.0,), _DECODING),
    "no_repeat_ngram_size": Field(NOTED, (0,), _DECODING),
    "encoder_no_repeat_ngram_size": Field(NOTED, (0,), _DECODING),
    "encoder_repetition_penalty": Field(NOTED, (1.0,), _DECODING),
    "diversity_penalty": Field(NOTED, (0.0,), _DECODING),
    "guidance_scale": Field(NOTED, (1.0,), _DECODING),
    "return_timestamps": Field(NOTED, (False,), "timestamps are the caller's option"),
    "prompt_ids": Field(NOTED, ([],), "the text before a recording is the caller's option, as initial_prompt"),
    **_each("num_beam_groups min_length", Field(NOTED, (0, 1), _DECODING)),
    **_each(
        "bad_words_ids constraints force_words_ids forced_bos_token_id forced_eos_token_id sequence_bias stop_strings "
        "exponential_decay_length_penalty penalty_alpha min_new_tokens max_new_tokens condition_on_prev_tokens "
        "compression_ratio_threshold logprob_threshold no_speech_threshold prompt_condition_type "
        "watermarking_config dola_layers early_stopping hotwords max_time token_healing typical_p epsilon_cutoff "
        "eta_cutoff min_p top_h",
        Field(NOTED, (False, 0.0, 1.0), _DECODING),
    ),
    **_silent(
        "_from_model_config transformers_version bos_token_id pad_token_id use_cache "
        "dtype max_length top_k top_p cache_config cache_implementation compile_config continuous_batching_config "
        "disable_compile assistant_confidence_threshold assistant_early_exit assistant_ensemble_weight "
        "assistant_lookbehind is_assistant low_memory max_cache_len max_matching_ngram_size num_assistant_tokens "
        "num_assistant_tokens_schedule output_attentions output_hidden_states output_logits output_scores "
        "prefill_chunk_size prompt_lookup_num_tokens remove_invalid_values renormalize_logits return_dict_in_generate "
        "speculation_type target_lookbehind use_mtp median_filter_width"
    ),
}

_SAMPLING_FIELDS: dict[str, Field] = {
    **GENERATION_FIELDS,
    **_each(
        "temperature top_k top_p do_sample repetition_penalty stop_strings",
        Field(NOTED, (False, 0.0, 1.0, 50), "how tokens are drawn is the caller's option"),
    ),
    **_honoured("bos_token_id eos_token_id"),
}
"""generation_config.json of text."""

AUDIO_FIELDS: dict[str, Field] = {
    **_honoured("sampling_rate n_fft hop_length feature_size chunk_length"),
    "do_normalize": Field(REFUSED, (False,), "audio is not scaled to unit variance here: set it to false"),
    "padding_value": Field(REFUSED, (0.0,), "audio is continued with silence: set it to 0.0"),
    "padding_side": Field(REFUSED, ("right",), "audio is continued at its end: set it to right"),
    "dither": Field(NOTED, (0.0,), "no noise is added to the audio"),
    **_silent(
        "feature_extractor_type processor_class n_samples nb_max_frames return_attention_mask mel_filters "
        "image_processor_type tokenizer_class"
    ),
}
"""preprocessor_config.json of speech, or the feature_extractor of processor_config.json."""


PIXEL_FIELDS: dict[str, Field] = {
    **_honoured("pretrained_cfg"),
    "image_processor_type": Field(
        REFUSED, ("TimmWrapperImageProcessor",), "pixels are prepared as timm does: remove the file if that is right"
    ),
    **_silent("architecture model_args feature_extractor_type processor_class label_names num_classes num_features"),
}
"""preprocessor_config.json of transformers' wrapper around timm's models."""

PRETRAINED_FIELDS: dict[str, Field] = {
    **_honoured("input_size crop_pct interpolation crop_mode mean std num_classes label_names"),
    **_silent(
        "tag custom_load fixed_input_size pool_size first_conv classifier url file hf_hub_id hf_hub_filename source "
        "architecture state_dict min_input_size test_input_size test_crop_pct license origin_url paper_name paper_ids "
        "notes label_descriptions"
    ),
}
"""timm's pretrained_cfg in config.json."""


def field_notes(source: SourceFolder, raw: Mapping[str, Any], kind: str, adapted: str | None = None) -> tuple[str, ...]:
    """Walk the fields of a checkpoint's config files.

    Args:
        source: the checkpoint.
        raw: its config.json, or what stands for it.
        kind: what its model reads, `Task.takes`.
        adapted: `Family.adapted`: that library's class reads the other fields of config.json, and images' files have a
            reader of their own.

    Returns:
        A note on each field that would change an answer and does not, and on those that nothing knows.

    Raises:
        InputError: names a field that would change an answer and cannot be honoured.
    """
    own = raw if adapted is None else {name: raw[name] for name in raw.keys() & _REFUSED_OF_ANY.keys()}
    notes = check_fields(CONFIG_FILE, own, CONFIG_FIELDS.get(kind, _COMMON) if adapted is None else _REFUSED_OF_ANY)
    if adapted is not None:
        notes += (f"adapted: the model is a {adapted}, as it is: nobody wrote it for export",)
    if kind == IMAGE:
        notes += check_fields("pretrained_cfg", raw.get("pretrained_cfg") or {}, PRETRAINED_FIELDS)
    read_here = kind in _FILES and source.root.is_dir() and (adapted is None or kind != IMAGE)
    files = _FILES[kind](source) if read_here else []
    for path, fields in files:
        if path.is_file():
            values = read_object(path)
            # Newer versions of transformers keep a feature extractor's settings inside of the processor's.
            inner = values.get("feature_extractor") if path.name == PROCESSOR_FILE else values
            notes += check_fields(path.name, inner or {}, fields)
    if kind == TEXT and source.root.is_dir():
        notes += _module_notes(source.root)
    return notes


Files = list[tuple[Path, Mapping[str, Field]]]


def _text_files(source: SourceFolder) -> Files:
    folder = source.folder
    options = {**TOKENIZER_FIELDS, **(_honoured(REST) if has_own_class(folder) else {})}
    files: Files = [(folder / TOKENIZER_CONFIG, options), (folder / SPECIAL_TOKENS_MAP, options)]
    places = dict.fromkeys((folder, source.root))
    files += [(source.root / SENTENCE_CONFIG, SENTENCE_FIELDS)]
    files += [(place / name, TRANSFORMER_FIELDS) for place in places for name in TRANSFORMER_CONFIGS]
    modules = module_folders(source.root) or ((POOLING, source.root / "1_Pooling"),)
    return files + [(path / "config.json", MODULE_FILES[kind]) for kind, path in modules if kind in MODULE_FILES]


def _prompt_files(source: SourceFolder) -> Files:
    folder = source.folder
    return [
        (folder / TOKENIZER_CONFIG, TOKENIZER_FIELDS),
        (folder / SPECIAL_TOKENS_MAP, TOKENIZER_FIELDS),
        (folder / GENERATION_FILE, _SAMPLING_FIELDS),
    ]


def _image_files(source: SourceFolder) -> Files:
    return [(source.folder / PREPROCESSOR_FILE, PIXEL_FIELDS)]


def _audio_files(source: SourceFolder) -> Files:
    audio = [(source.folder / name, AUDIO_FIELDS) for name in (PREPROCESSOR_FILE, PROCESSOR_FILE)]
    return [(source.folder / GENERATION_FILE, GENERATION_FIELDS), *audio]


_FILES: Mapping[str, Callable[[SourceFolder], Files]] = {
    TEXT: _text_files,
    IMAGE: _image_files,
    IMAGE_TEXT: lambda source: _text_files(source)[:2],
    AUDIO: _audio_files,
    PROMPT: _prompt_files,
}
"""The files beside config.json, by what the model reads."""


def _module_notes(root: Path) -> tuple[str, ...]:
    """Notes on modules.json, which is a list of modules."""
    path = root / MODULES_FILE
    modules = read_list(path) if path.is_file() else []
    return tuple(
        note
        for module in modules
        if isinstance(module, dict)
        for note in check_fields(MODULES_FILE, module, MODULE_FIELDS)
    )


def check_fields(file: str, values: Mapping[str, Any], fields: Mapping[str, Field]) -> tuple[str, ...]:
    """The notes on one file's fields; see `field_notes`."""
    notes: list[str] = []
    for name, value in values.items():
        field = fields.get(name)
        if field is None or field.treatment in (HONOURED, SILENT) or value is None or _is_plain(value, field.plain):
            continue
        said = f"{file}: {name} is {shorten(value, 60)}: {field.why}"
        if field.treatment == REFUSED:
            raise InputError(said)
        notes.append(said)
    unknown = [name for name in values if name not in fields and not name.endswith("_token")]
    if unknown and REST not in fields:
        more = f" and {len(unknown) - _SHOWN} more" if len(unknown) > _SHOWN else ""
        named = ", ".join(shorten(name, 40)[1:-1] for name in unknown[:_SHOWN])
        notes.append(f"{file} has fields that are not known here and change nothing: {named}{more}")
    return tuple(notes)


def _is_plain(value: Any, plain: tuple[Any, ...]) -> bool:
    return any(value == each and isinstance(value, bool) == isinstance(each, bool) for each in plain)
