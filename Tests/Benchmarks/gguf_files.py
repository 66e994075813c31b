"""The benchmark's model in llama.cpp's files: the same weights, type by type.

The language model's types are made by llama.cpp's own quantizer, with its defaults; the vision
part's as its converter makes them. What is there already is used again.
"""

import ctypes
import os
from pathlib import Path

import gguf
import llama_cpp
import numpy

from checkpoint import Checkpoint

LANGUAGE_TYPES = {
    "F32": llama_cpp.LLAMA_FTYPE_ALL_F32,
    "F16": llama_cpp.LLAMA_FTYPE_MOSTLY_F16,
    "BF16": llama_cpp.LLAMA_FTYPE_MOSTLY_BF16,
    "Q8_0": llama_cpp.LLAMA_FTYPE_MOSTLY_Q8_0,
    "Q4_0": llama_cpp.LLAMA_FTYPE_MOSTLY_Q4_0,
    "Q4_K_M": llama_cpp.LLAMA_FTYPE_MOSTLY_Q4_K_M,
}
VISION_TYPES = ["F32", "F16", "BF16", "Q8_0"]


def language_path(folder, kind):
    return Path(folder) / f"language-{kind}.gguf"


def vision_path(folder, kind):
    return Path(folder) / f"vision-{kind}.gguf"


def convert(model, folder):
    """Writes the files that are missing: every one appears whole or not at all."""
    checkpoint = Checkpoint(model)
    Path(folder).mkdir(parents=True, exist_ok=True)
    whole = language_path(folder, "F32")
    if not whole.exists():
        _appear(whole, lambda path: _write_language(checkpoint, path))
    for kind, file_type in LANGUAGE_TYPES.items():
        path = language_path(folder, kind)
        if not path.exists():
            _appear(path, lambda partial: _quantize(whole, partial, file_type))
    for kind in VISION_TYPES:
        path = vision_path(folder, kind)
        if not path.exists():
            _appear(path, lambda partial: _write_vision(checkpoint, kind, partial))


def _appear(path, write):
    partial = path.with_suffix(".part")
    write(partial)
    os.replace(partial, path)


def _quantize(source, target, file_type):
    parameters = llama_cpp.llama_model_quantize_default_params()
    parameters.ftype = file_type
    parameters.nthread = os.cpu_count() or 1
    status = llama_cpp.llama_model_quantize(
        os.fsencode(source), os.fsencode(target), ctypes.byref(parameters))
    if status != 0:
        raise SystemExit(f"llama.cpp could not quantize {source} (status {status})")


def _interleaved(weight, heads):
    """Rows in the order of llama.cpp's rotary positions: pairs side by side, not half by half."""
    return (weight.reshape(heads, 2, weight.shape[0] // heads // 2, weight.shape[1])
            .swapaxes(1, 2).reshape(weight.shape))


def _write_language(checkpoint, path):
    shape = checkpoint.configuration["llm_config"]
    heads, key_heads = shape["num_attention_heads"], shape["num_key_value_heads"]
    rows = shape["vocab_size"]
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_name("chiasm-bench")
    writer.add_context_length(shape["max_position_embeddings"])
    writer.add_embedding_length(shape["hidden_size"])
    writer.add_block_count(shape["num_hidden_layers"])
    writer.add_feed_forward_length(shape["intermediate_size"])
    writer.add_head_count(heads)
    writer.add_head_count_kv(key_heads)
    writer.add_layer_norm_rms_eps(shape["rms_norm_eps"])
    writer.add_rope_freq_base(shape["rope_theta"])
    writer.add_rope_dimension_count(shape["hidden_size"] // heads)
    writer.add_vocab_size(rows)
    writer.add_file_type(0)
    # Words are never looked at; llama.cpp wants as many as the table has rows.
    special = ["<unk>", "<s>", "</s>"]
    words = special + [f"<0x{byte:02X}>" for byte in range(256)]
    kinds = [2, 3, 3] + [6] * 256
    words += [f"w{index}" for index in range(len(words), rows)]
    kinds += [1] * (rows - len(kinds))
    writer.add_tokenizer_model("llama")
    writer.add_token_list(words)
    writer.add_token_scores([0.0] * rows)
    writer.add_token_types(kinds)
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)

    prefix = "language_model."
    writer.add_tensor("token_embd.weight", checkpoint.float32(f"{prefix}model.embed_tokens.weight"))
    writer.add_tensor("output_norm.weight", checkpoint.float32(f"{prefix}model.norm.weight"))
    writer.add_tensor("output.weight", checkpoint.float32(f"{prefix}lm_head.weight"))
    names = {
        "input_layernorm": "attn_norm", "self_attn.q_proj": "attn_q",
        "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v",
        "self_attn.o_proj": "attn_output", "post_attention_layernorm": "ffn_norm",
        "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up", "mlp.down_proj": "ffn_down",
    }
    for layer in range(shape["num_hidden_layers"]):
        for ours, theirs in names.items():
            weight = checkpoint.float32(f"{prefix}model.layers.{layer}.{ours}.weight")
            if theirs == "attn_q":
                weight = _interleaved(weight, heads)
            if theirs == "attn_k":
                weight = _interleaved(weight, key_heads)
            writer.add_tensor(f"blk.{layer}.{theirs}.weight", weight)
    _finish(writer)


def _write_vision(checkpoint, kind, path):
    shape = checkpoint.configuration["vision_config"]
    width = shape["hidden_size"]
    writer = gguf.GGUFWriter(path, "clip")
    writer.add_name("chiasm-bench")
    writer.add_bool("clip.has_vision_encoder", True)
    writer.add_string("clip.projector_type", "internvl")
    writer.add_bool("clip.use_gelu", True)
    writer.add_uint32("clip.vision.image_size", shape["image_size"])
    writer.add_uint32("clip.vision.patch_size", shape["patch_size"])
    writer.add_uint32("clip.vision.embedding_length", width)
    writer.add_uint32("clip.vision.feed_forward_length", shape["intermediate_size"])
    writer.add_uint32("clip.vision.block_count", shape["num_hidden_layers"])
    writer.add_uint32("clip.vision.attention.head_count", shape["num_attention_heads"])
    writer.add_uint32(
        "clip.vision.projection_dim", checkpoint.configuration["llm_config"]["hidden_size"])
    writer.add_float32("clip.vision.attention.layer_norm_epsilon", shape["layer_norm_eps"])
    writer.add_array("clip.vision.image_mean", [0.485, 0.456, 0.406])
    writer.add_array("clip.vision.image_std", [0.229, 0.224, 0.225])
    writer.add_uint32("clip.vision.projector.scale_factor", 2)
    writer.add_uint32("clip.vision.preproc_min_tiles", 1)
    writer.add_uint32("clip.vision.preproc_max_tiles", 1)
    file_type = {"F32": 0, "F16": 1, "Q8_0": 7, "BF16": 32}[kind]
    writer.add_file_type(file_type)

    def add(name, values, exact=False):
        chosen = "F32" if exact or values.ndim == 1 else kind
        chosen = gguf.GGMLQuantizationType[chosen]
        data = gguf.quants.quantize(numpy.ascontiguousarray(values), chosen)
        writer.add_tensor(name, data, raw_dtype=chosen)

    prefix = "vision_model.embeddings."
    patch = checkpoint.float32(f"{prefix}patch_embedding.weight")
    if kind == "F16":
        writer.add_tensor("v.patch_embd.weight", patch.astype(numpy.float16))
    else:
        writer.add_tensor("v.patch_embd.weight", numpy.ascontiguousarray(patch))
    add("v.patch_embd.bias", checkpoint.float32(f"{prefix}patch_embedding.bias"))
    add("v.class_embd", checkpoint.float32(f"{prefix}class_embedding").reshape(width))
    # llama.cpp has the class token's row last.
    table = checkpoint.float32(f"{prefix}position_embedding")[0]
    add("v.position_embd.weight", numpy.concatenate([table[1:], table[:1]]), exact=True)
    for layer in range(shape["num_hidden_layers"]):
        ours, theirs = f"vision_model.encoder.layers.{layer}.", f"v.blk.{layer}."
        add(f"{theirs}ln1.weight", checkpoint.float32(f"{ours}norm1.weight"))
        add(f"{theirs}ln2.weight", checkpoint.float32(f"{ours}norm2.weight"))
        for part, rows in zip("qkv", numpy.split(checkpoint.float32(f"{ours}attn.qkv.weight"), 3)):
            add(f"{theirs}attn_{part}.weight", rows)
        if shape["qk_normalization"]:
            add(f"{theirs}attn_q_norm.weight", checkpoint.float32(f"{ours}attn.q_norm.weight"))
            add(f"{theirs}attn_k_norm.weight", checkpoint.float32(f"{ours}attn.k_norm.weight"))
        for source, target in [
            ("attn.proj", "attn_out"), ("mlp.fc1", "ffn_up"), ("mlp.fc2", "ffn_down"),
        ]:
            add(f"{theirs}{target}.weight", checkpoint.float32(f"{ours}{source}.weight"))
            add(f"{theirs}{target}.bias", checkpoint.float32(f"{ours}{source}.bias"))
        add(f"{theirs}ls1.weight", checkpoint.float32(f"{ours}ls1"))
        add(f"{theirs}ls2.weight", checkpoint.float32(f"{ours}ls2"))
    for index in (0, 1, 3):
        add(f"mm.model.mlp.{index}.weight", checkpoint.float32(f"mlp1.{index}.weight"))
        add(f"mm.model.mlp.{index}.bias", checkpoint.float32(f"mlp1.{index}.bias"))
    _finish(writer)


def _finish(writer):
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
