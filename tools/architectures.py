"""Small configs of many of transformers' architectures: what `tools.families` converts, and tests a part of it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

LENGTH, LENGTH_OF_QUESTIONS = 16, 80
VOCABULARY = 161
IMAGE = 32

TEXT: dict[str, Any] = {
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 64,
    "max_position_embeddings": 96,
    "pad_token_id": 0,
    "bos_token_id": 2,
    "eos_token_id": 3,
    "num_labels": 3,
}
ONE_TYPE: dict[str, Any] = {**TEXT, "type_vocab_size": 1}
EMBEDDED: dict[str, Any] = {**TEXT, "embedding_size": 16}
VISION: dict[str, Any] = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 64,
    "image_size": IMAGE,
    "patch_size": 8,
    "num_labels": 5,
}
STAGES: dict[str, Any] = {"image_size": IMAGE, "num_labels": 5, "depths": [1, 1], "patch_size": 2}
SAMPLES: dict[str, Any] = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 64,
    "conv_dim": (16, 16, 16),
    "conv_kernel": (10, 3, 2),
    "conv_stride": (5, 2, 2),
    "num_feat_extract_layers": 3,
    "num_conv_pos_embeddings": 16,
    "num_conv_pos_embedding_groups": 4,
    "classifier_proj_size": 16,
    "num_labels": 5,
}
CLIP_S = 0.25
DETR: dict[str, Any] = {
    "d_model": 32,
    "encoder_layers": 1,
    "decoder_layers": 1,
    "num_queries": 7,
    "num_labels": 5,
    "encoder_attention_heads": 2,
    "decoder_attention_heads": 2,
    "encoder_ffn_dim": 32,
    "decoder_ffn_dim": 32,
    "use_timm_backbone": False,
    "use_pretrained_backbone": False,
    "backbone": None,
    "backbone_config": {"model_type": "resnet", "embedding_size": 8, "hidden_sizes": [8, 16], "depths": [1, 1]}
    | {"layer_type": "basic", "out_features": ["stage2"]},
}
CLS, QA, NER, IMG = "SequenceClassification", "QuestionAnswering", "TokenClassification", "ImageClassification"
DET, SEG = "ObjectDetection", "SemanticSegmentation"

ARCHITECTURES: dict[str, tuple[str, str, Mapping[str, Any]]] = {
    "xlm-roberta-xl": ("XLMRobertaXL", f"For{CLS}", ONE_TYPE),
    "xmod": ("Xmod", f"For{NER}", {**ONE_TYPE, "languages": ["en"], "default_language": "en"}),
    "data2vec-text": ("Data2VecText", f"For{QA}", {**ONE_TYPE, "num_labels": 2}),
    "ernie": ("Ernie", f"For{CLS}", {**TEXT, "use_task_id": False}),
    "albert": ("Albert", f"For{CLS}", EMBEDDED),
    "modernbert": ("ModernBert", f"For{CLS}", {**TEXT, "local_attention": 8, "cls_token_id": 2, "sep_token_id": 3}),
    "deberta": ("Deberta", f"For{CLS}", {**TEXT, "relative_attention": True, "pos_att_type": ["c2p", "p2c"]}),
    "deberta-v2": (
        "DebertaV2",
        f"For{NER}",
        {
            **TEXT,
            "type_vocab_size": 0,
            "relative_attention": True,
            "pos_att_type": ["p2c", "c2p"],
            "position_buckets": 8,
            "share_att_key": True,
            "norm_rel_ebd": "layer_norm",
            "position_biased_input": False,
        },
    ),
    "mpnet": ("MPNet", "Model", TEXT),
    "megatron-bert": ("MegatronBert", f"For{CLS}", TEXT),
    "roformer": ("RoFormer", f"For{CLS}", {**EMBEDDED, "rotary_value": False}),
    "rembert": ("RemBert", f"For{CLS}", {**TEXT, "input_embedding_size": 16, "output_embedding_size": 32}),
    "nystromformer": ("Nystromformer", f"For{CLS}", {**TEXT, "num_landmarks": 4, "segment_means_seq_len": LENGTH}),
    "squeezebert": ("SqueezeBert", f"For{CLS}", {**TEXT, "embedding_size": 32}),
    "convbert": ("ConvBert", f"For{CLS}", EMBEDDED),
    "funnel": (
        "Funnel",
        f"For{CLS}",
        {"vocab_size": VOCABULARY, "block_sizes": [1, 1], "num_decoder_layers": 1, "d_model": 32, "n_head": 4}
        | {"d_head": 8, "d_inner": 64, "num_labels": 3},
    ),
    "fnet": ("FNet", f"For{CLS}", {**TEXT, "type_vocab_size": 2}),
    "layoutlm": ("LayoutLM", f"For{CLS}", {**TEXT, "max_2d_position_embeddings": 32}),
    "longformer": ("Longformer", f"For{CLS}", {**ONE_TYPE, "attention_window": 8}),
    "big_bird": ("BigBird", f"For{CLS}", {**TEXT, "attention_type": "original_full"}),
    "reformer": (
        "Reformer",
        f"For{QA}",
        {"vocab_size": VOCABULARY, "hidden_size": 32, "num_attention_heads": 4, "attention_head_size": 8}
        | {"feed_forward_size": 64, "attn_layers": ["local", "local"], "local_attn_chunk_length": 8, "num_labels": 2}
        | {
            "axial_pos_shape": [8, 12],
            "axial_pos_embds_dim": [16, 16],
            "max_position_embeddings": 96,
            "pad_token_id": 0,
        },
    ),
    "roberta-prelayernorm": ("RobertaPreLayerNorm", f"For{CLS}", ONE_TYPE),
    "esm": ("Esm", f"For{CLS}", {**TEXT, "mask_token_id": 4, "position_embedding_type": "rotary"}),
    "eurobert": ("EuroBert", f"For{CLS}", {**TEXT, "num_key_value_heads": 4, "mask_token_id": 4}),
    "nomic_bert": ("NomicBert", f"For{CLS}", TEXT),
    "ibert": ("IBert", f"For{CLS}", ONE_TYPE),
    "t5": (
        "T5Encoder",
        "Model",
        {"vocab_size": VOCABULARY, "d_model": 32, "d_kv": 8, "d_ff": 64, "num_layers": 2, "num_heads": 4}
        | {"pad_token_id": 0, "eos_token_id": 3},
    ),
    "clip_text_model": ("CLIPText", "Model", {**TEXT, "projection_dim": 16}),
    "bart": (
        "Bart",
        f"For{CLS}",
        {"vocab_size": VOCABULARY, "d_model": 32, "encoder_layers": 1, "decoder_layers": 1, "num_labels": 3}
        | {"encoder_attention_heads": 4, "decoder_attention_heads": 4, "encoder_ffn_dim": 64, "decoder_ffn_dim": 64}
        | {"max_position_embeddings": 96, "pad_token_id": 0},
    ),
    "gpt2": (
        "GPT2",
        f"For{CLS}",
        {"vocab_size": VOCABULARY, "n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 96, "pad_token_id": 0}
        | {"num_labels": 3},
    ),
    "llama": ("Llama", f"For{NER}", {**TEXT, "num_key_value_heads": 2}),
    "vit": ("ViT", f"For{IMG}", VISION),
    "deit": ("DeiT", f"For{IMG}", VISION),
    "swin": ("Swin", f"For{IMG}", {**STAGES, "embed_dim": 16, "num_heads": [2, 4], "window_size": 4}),
    "swinv2": ("Swinv2", f"For{IMG}", {**STAGES, "embed_dim": 16, "num_heads": [2, 4], "window_size": 4}),
    "dinov2": ("Dinov2", f"For{IMG}", VISION),
    "beit": ("Beit", f"For{IMG}", {**VISION, "use_relative_position_bias": True}),
    "vit_msn": ("ViTMSN", f"For{IMG}", VISION),
    "ijepa": ("IJepa", f"For{IMG}", VISION),
    "convnext": (
        "ConvNext",
        f"For{IMG}",
        {"image_size": IMAGE, "patch_size": 2, "num_labels": 5, "num_stages": 2, "hidden_sizes": [16, 32]}
        | {"depths": [1, 1]},
    ),
    "pvt": (
        "Pvt",
        f"For{IMG}",
        {"image_size": IMAGE, "num_labels": 5, "hidden_sizes": [16, 16, 32, 32], "depths": [1, 1, 1, 1]}
        | {"num_attention_heads": [1, 2, 2, 4]},
    ),
    "mobilenet_v2": ("MobileNetV2", f"For{IMG}", {"image_size": IMAGE, "depth_multiplier": 0.35, "num_labels": 5}),
    "mobilevit": (
        "MobileViT",
        f"For{IMG}",
        {
            "image_size": 64,
            "patch_size": 2,
            "hidden_sizes": [16, 24, 32],
            "neck_hidden_sizes": [8, 8, 16, 16, 24, 24, 32],
        }
        | {"num_attention_heads": 4, "num_labels": 5},
    ),
    "mobilevitv2": ("MobileViTV2", f"For{IMG}", {"image_size": 64, "width_multiplier": 0.25, "num_labels": 5}),
    "resnet": (
        "ResNet",
        f"For{IMG}",
        {"embedding_size": 16, "hidden_sizes": [16, 32], "depths": [1, 1], "layer_type": "basic", "num_labels": 5},
    ),
    "regnet": (
        "RegNet",
        f"For{IMG}",
        {"embedding_size": 16, "hidden_sizes": [16, 32], "depths": [1, 1], "groups_width": 8, "num_labels": 5},
    ),
    "bit": (
        "Bit",
        f"For{IMG}",
        {"embedding_size": 32, "hidden_sizes": [32, 64], "depths": [1, 1], "num_groups": 4, "num_labels": 5},
    ),
    "convnextv2": (
        "ConvNextV2",
        f"For{IMG}",
        {"image_size": IMAGE, "patch_size": 2, "num_labels": 5, "num_stages": 2, "hidden_sizes": [16, 32]}
        | {"depths": [1, 1]},
    ),
    "data2vec-vision": ("Data2VecVision", f"For{IMG}", {**VISION, "use_relative_position_bias": True}),
    "dinov2_with_registers": ("Dinov2WithRegisters", f"For{IMG}", VISION),
    "efficientnet": (
        "EfficientNet",
        f"For{IMG}",
        {"image_size": IMAGE, "width_coefficient": 0.25, "hidden_dim": 320, "num_labels": 5},
    ),
    "focalnet": (
        "FocalNet",
        f"For{IMG}",
        {**STAGES, "embed_dim": 16, "focal_levels": [2, 2], "focal_windows": [3, 3], "hidden_sizes": [16, 32]},
    ),
    "hiera": (
        "Hiera",
        f"For{IMG}",
        {"image_size": [IMAGE, IMAGE], "embed_dim": 16, "depths": [1, 1], "num_heads": [1, 2], "num_labels": 5}
        | {"masked_unit_size": [4, 4], "query_stride": [2, 2], "num_query_pool": 1},
    ),
    "levit": (
        "Levit",
        f"For{IMG}",
        {"image_size": 64, "hidden_sizes": [16, 32, 48], "num_attention_heads": [2, 4, 6], "depths": [1, 1, 1]}
        | {"key_dim": [8, 8, 8], "num_labels": 5},
    ),
    "mobilenet_v1": ("MobileNetV1", f"For{IMG}", {"image_size": IMAGE, "depth_multiplier": 0.25, "num_labels": 5}),
    "poolformer": (
        "PoolFormer",
        f"For{IMG}",
        {"hidden_sizes": [8, 16, 24, 32], "depths": [1, 1, 1, 1], "num_labels": 5},
    ),
    "pvt_v2": (
        "PvtV2",
        f"For{IMG}",
        {
            "image_size": IMAGE,
            "hidden_sizes": [8, 16, 24, 32],
            "depths": [1, 1, 1, 1],
            "num_attention_heads": [1, 2, 3, 4],
        }
        | {"num_labels": 5},
    ),
    "segformer": (
        "Segformer",
        f"For{IMG}",
        {"hidden_sizes": [8, 16, 24, 32], "depths": [1, 1, 1, 1], "num_attention_heads": [1, 2, 3, 4], "num_labels": 5},
    ),
    "swiftformer": (
        "SwiftFormer",
        f"For{IMG}",
        {"image_size": 64, "embed_dims": [16, 24, 32, 48], "depths": [1, 1, 1, 1], "num_labels": 5},
    ),
    "siglip": ("Siglip", f"For{IMG}", {"vision_config": VISION, "text_config": TEXT, "num_labels": 5}),
    "clip": (
        "CLIP",
        f"For{IMG}",
        {"vision_config": VISION, "text_config": TEXT, "num_labels": 5, "projection_dim": 16},
    ),
    "detr": ("Detr", f"For{DET}", DETR),
    "conditional_detr": ("ConditionalDetr", f"For{DET}", DETR),
    "table-transformer": ("TableTransformer", f"For{DET}", DETR),
    "yolos": (
        "Yolos",
        f"For{DET}",
        {**VISION, "image_size": [32, 48], "patch_size": 16, "num_detection_tokens": 7}
        | {"use_mid_position_embeddings": True},
    ),
    "audio-spectrogram-transformer": (
        "AST",
        "ForAudioClassification",
        {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64, "num_labels": 5}
        | {"max_length": 64, "num_mel_bins": 32, "patch_size": 8, "frequency_stride": 8, "time_stride": 8},
    ),
    "wav2vec2": ("Wav2Vec2", f"For{CLS}", SAMPLES),
    "hubert": ("Hubert", f"For{CLS}", {**SAMPLES, "feat_extract_norm": "layer", "do_stable_layer_norm": True}),
    "wavlm": ("WavLM", f"For{CLS}", SAMPLES),
    "data2vec-audio": ("Data2VecAudio", f"For{CLS}", {**SAMPLES, "num_conv_pos_embeddings": 3}),
    "unispeech-sat": ("UniSpeechSat", f"For{CLS}", SAMPLES),
    "wav2vec2-conformer": ("Wav2Vec2Conformer", f"For{CLS}", SAMPLES),
    "sew": ("SEW", f"For{CLS}", {**SAMPLES, "squeeze_factor": 2}),
}
"""By `model_type`: the start and the end of the class's name, and the fields of its config."""
