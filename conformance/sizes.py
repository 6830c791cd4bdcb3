"""What makes a model tiny, as data: sizes and knobs by the names configurations use.

Nothing here is known to the package: it finds streams and tails by itself. These are
only the values with which the conformance run builds its test models.
"""

from typing import Any

VOCAB, LAYERS = 96, 3

SIZES: tuple[tuple[str, int], ...] = (
    (r"codebook_size", 64),
    (r".*vocab_size.*|n_tokens", VOCAB),
    (r"max_(source_|target_)?position.*|n_positions|n_ctx|max_seq_len.*", 64),
    (r"context_length|model_max_length|original_max_position_embeddings", 64),
    (
        r"(encoder|decoder|.*hidden|num)_layers|n_layers?|num_(en|de)coder_layers",
        LAYERS,
    ),
    (r"num_hidden_layers|depth|num_blocks|num_global_layers", LAYERS),
    (r"(num_)?key_value_heads|num_kv_heads|kv_n_heads|num_query_groups", 2),
    (r".*num_key_value_heads|n_head_kv", 2),
    (r".*attention_heads|n_heads?|num_heads|encoder_attention_heads", 4),
    (r"hidden_size|d_model|n_embd|dim_model|emb_dim|embed_dim|embedding_dim", 64),
    (r"(word_embed_proj|output|.*_proj|vision_output|projector_.*)_?dim", 64),
    (r".*embedding_size|.*hidden_size|.*_hidden_dim|lru_width|out_hidden_size", 64),
    (r".*intermediate_size|.*ffn_dim|d_ff|dim_ff|dff|d_inner|n_inner|mlp_dim", 96),
    (r"ffn_hidden_size|feed_forward_size|.*intermediate_size_mlp|block_ffn_dim", 96),
    (r"rotary_dim", 8),
    (r"(v_|qk_nope_|linear_(key|value)_|index_|.*_)?head_dim|d_kv|d_head", 16),
    (r"dim_head|kv_channels|attention_head_(dim|size)|linear_head_dim", 16),
    (r".*lora_rank|.*_rank|hc_lowrank|d_rel|rel_extent", 16),
    (r"num_experts|num_local_experts|n_routed_experts|moe_num_experts", 4),
    (r"num_experts_per_tok(en)?|moe_top_?k|moe_k", 2),
    (r"n_group|topk_group|num_expert_group|n_groups?|mamba_n_?groups", 1),
    (r"first_k_dense_replace|moe_layer_start_index", 1),
    (r"linear_num_(key|value)_heads|index_n_heads|linear_num_heads", 4),
    (r"sliding_window(_size)?|attention_window_size|window_size", 4),
    (r".*state_size|mamba_d_state|mamba_d_conv|conv_kernel", 4),
    (r".*chunk_size|block_size|attention_chunk_size|mamba_chunk_size", 8),
    (r"image_size|crop_size", 32),
    (r"patch_size", 8),
)
"""Integer fields (by regular expression) and what they become; the first match."""

KNOBS: tuple[tuple[str, float], ...] = (
    (r"final_logit_softcapping|logits_soft_cap|output_logit_soft_cap", 5.0),
    (r"logit_scale", 0.3),
    (r"logits_scaling", 3.0),
    (r"logits_mup_width_multiplier", 3.0),
    (r"residual_multiplier", 0.6),
    (r"embedding_multiplier", 2.0),
    (r"lm_head_multiplier", 0.5),
)
"""Numbers after or before the head that are often neutral; set so that they act."""

_ROPE = {"rope_type": "default", "rope_theta": 10000.0}
_WIDE = {"attention_hidden_size": 128, "attention_head_dim": 32}
_MAMBA = ["mamba", "hybrid", "mamba", "hybrid"]

# Gemma 3n's own vision tower needs packages that are not installed here.
_OTHER_TOWER = {
    "vision_config.model_type": "siglip_vision_model",
    "vision_config.vocab_offset": 0,
    "vision_config.vocab_size": VOCAB,
    "vision_config.rms_norm_eps": 1e-6,
}

_THREE_AXES = {"text_config.rope_parameters": _ROPE | {"mrope_section": [2, 3, 3]}}

_INDEXED = {
    "indexer_n_heads": 2,
    "indexer_kv_heads": 1,
    "indexer_head_dim": 16,
    "indexer_budget": 8,
    "indexer_compress_ratio": 4,
}

OVERRIDES: dict[str, dict[str, Any]] = {
    "blt": {
        "hidden_size_global": 64,
        "global_config.hidden_size": 128,
        "global_config.head_dim": 32,
        "decoder_config.hidden_size_global": 128,
        "encoder_config.hidden_size_global": 128,
        "encoder_hash_byte_group_vocab": 64,
        "encoder_hash_byte_group_size": [3, 4],
    },
    "cohere_compass_text": {
        "layer_types": ["full_attention"] * 3,
        "rope_parameters": {"full_attention": _ROPE},
    },
    "dbrx": {"attn_config.rope_theta": 10000.0, "attn_config.clip_qkv": 8.0},
    "deepseek_v2": {"num_experts_per_tok": 2},
    "dots1": {"n_routed_experts": 4, "n_shared_experts": 1, "num_experts_per_tok": 2},
    "dots3_note": {
        "num_key_value_heads": 4,
        "text_config.num_key_value_heads": 4,
        "vision_config.adapter_in_dim": 64,
        "vision_config.embed_dim": 64,
        "vision_config.num_hidden_layers": 42,
        "vision_config.adapter_out_dim": 64,
        "audio_config.adapter_out_dim": 64,
        "audio_config.hidden_size": 64,
        "audio_config.adapter_input_size": 64,
    },
    "dots3_note_text": {"num_key_value_heads": 4},
    "gemma3n": {
        "text_config.num_hidden_layers": 6,
        "text_config.num_kv_shared_layers": 0,
    }
    | _OTHER_TOWER,
    "gemma3n_text": {"num_hidden_layers": 6, "num_kv_shared_layers": 0},
    "gpt_neo": {"attention_types": [[["global", "local"], 2]], "num_layers": 4},
    "granitemoehybrid": {
        "layer_types": ["linear_attention", "full_attention", "linear_attention"]
    },
    "hunyuan_v1_dense": {"head_dim": 16},
    "hunyuan_v1_moe": {"head_dim": 16},
    "lfm2_moe": {"layer_types": ["conv", "full_attention", "conv"]},
    "longcat_flash": {"qk_head_dim": 32},
    "mamba2": {"num_heads": 8, "head_dim": 16},
    "ministral": {"head_dim": 16},
    "nemotron": {"num_key_value_heads": 2},
    "blip-2": {"image_token_index": 90, "num_query_tokens": 4},
    "instructblip": {"image_token_index": 90, "num_query_tokens": 4},
    "chameleon": {"vocabulary_map": {"<image>": 5}},
    "cohere_compass": {
        "text_config.layer_types": ["full_attention"] * 3,
        "text_config.rope_parameters": {"full_attention": _ROPE},
    },
    "cosmos3_edge": _THREE_AXES,
    "diffusion_gemma": {
        "text_config.num_experts": 4,
        "text_config.top_k_experts": 2,
        "text_config.moe_intermediate_size": 32,
    },
    "deepseek_ocr2": {
        "text_config.mlp_layer_types": ["dense", "sparse", "sparse"],
        "text_config.num_experts_per_tok": 2,
    },
    "ernie4_5_vl_moe": {
        "text_config.rope_parameters": _ROPE | {"mrope_section": [3, 3, 2]}
    },
    "emu3": {"vocabulary_map": {"<image>": 5}},
    "fast_vlm": _OTHER_TOWER,
    "perception_lm": _OTHER_TOWER | {"vision_config.model_args": {"embed_dim": 64}},
    "glm46v": _THREE_AXES,
    "glm4v": _THREE_AXES,
    "glm4v_moe": {
        "text_config.rope_parameters": _ROPE
        | {"partial_rotary_factor": 0.5, "mrope_section": [2, 1, 1]}
    },
    "glm_ocr": _THREE_AXES,
    "granite4_vision": {"deepstack_layer_map": [[0, 1]], "downsample_rate": "1/2"},
    "hunyuan_vl": {
        "text_config.head_dim": 16,
        "text_config.rope_parameters": _ROPE | {"mrope_section": [1, 2, 2, 3]},
    },
    "kimi_k25": {"text_config.num_key_value_heads": 4},
    "mistral4": {
        "rope_parameters": _ROPE
        | {"llama_4_scaling_beta": 0.1, "original_max_position_embeddings": 64},
        "num_key_value_heads": 4,
    },
    "molmo2": {"adapter_config.vision_feature_layer": [2, 1]},
    "inkling_mm_model": {"vision_config.n_layers": 6},
    "muse_spark": {"audio_config.num_hidden_layers": 4},
    "nemotron_h_omni": {"vision_config.video_temporal_patch_size": 2},
    "paddleocr_vl": _THREE_AXES,
    "qwen4_exp": _INDEXED | {f"text_config.{key}": v for key, v in _INDEXED.items()},
    "qwen2_5_omni_thinker": _THREE_AXES | {"vision_start_token_id": 9},
    "qwen2_5_vl": _THREE_AXES,
    "qwen2_vl": _THREE_AXES,
    "qwen3_omni_moe_thinker": {"vision_start_token_id": 9},
    "step3p7": {"text_config.sliding_window": 4},
    "reformer": {
        "is_decoder": True,
        "axial_pos_shape": [4, 8],
        "axial_pos_embds_dim": [32, 32],
        "attn_layers": ["local", "lsh", "local"],
        "hash_seed": 0,
    },
    "xmod": {"default_language": "en_XX"},
    "xlm": {"causal": True},
    "zamba": {"layers_block_type": _MAMBA, "num_hidden_layers": 4} | _WIDE,
    "zamba2": {"layers_block_type": _MAMBA, "num_hidden_layers": 4} | _WIDE,
}
"""Values one model type needs, by model type; dots lead into sub-configurations."""
