"""InternVL-Chat in plain PyTorch, float32 on the CPU: small, slow and easy to check.

It reads a checkpoint folder in the release format (config.json, *.safetensors) and follows the
configuration wherever the published models differ from one another. Nothing here is meant to be
fast: every function is one formula. Legend: B tiles, N patches, C vision width, T tokens,
D language width, V vocabulary, H heads.
"""

import json
import math
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from safetensors.torch import load_file

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def load_checkpoint(folder):
    """config.json as a dictionary, and all tensors of all shards widened to float32."""
    folder = Path(folder)
    weights = {}
    for shard in sorted(folder.glob("*.safetensors")):
        weights.update({name: value.float() for name, value in load_file(shard).items()})
    return json.loads((folder / "config.json").read_text()), weights


def image_pixels(path, size):
    """(pixels [1, 3, size, size], decoded RGB, resized RGB) of an image file, aspect ignored."""
    decoded = Image.open(path).convert("RGB")
    resized = decoded.resize((size, size), Image.BICUBIC)
    unit = torch.from_numpy(np.array(resized)).permute(2, 0, 1).float().div(255)
    mean, std = torch.tensor(IMAGENET_MEAN), torch.tensor(IMAGENET_STD)
    return ((unit - mean[:, None, None]) / std[:, None, None])[None], decoded, resized


def rms_norm(x, weight, eps):
    return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + eps) * weight


def attention(q, k, v, mask=None):
    """softmax(q·kᵀ/√d + mask)·v on [..., H, T, d], heads joined again: [..., T, H·d]."""
    scores = q @ k.transpose(-1, -2) / math.sqrt(q.shape[-1])
    if mask is not None:
        scores = scores + mask
    return (scores.softmax(-1) @ v).transpose(-2, -3).flatten(-2)


class VisionEncoder:
    def __init__(self, config, weights):
        self.config = config
        self.weights = weights

    def norm(self, x, name):
        eps = self.config.get("layer_norm_eps", 1e-6)
        weight = self.weights[name + ".weight"]
        if self.config.get("norm_type", "rms_norm") == "rms_norm":
            return rms_norm(x, weight, eps)
        return F.layer_norm(x, weight.shape, weight, self.weights[name + ".bias"], eps)

    def linear(self, x, name):
        return F.linear(x, self.weights[name + ".weight"], self.weights.get(name + ".bias"))

    def embed(self, pixels):
        """[B, 3, height, width] → [B, 1 + N, C]: class token, then patches row by row."""
        prefix = "vision_model.embeddings."
        patch = self.config["patch_size"]
        grid = F.conv2d(
            pixels, self.weights[prefix + "patch_embedding.weight"],
            self.weights[prefix + "patch_embedding.bias"], stride=patch)
        rows, columns = grid.shape[-2:]
        table = self.weights[prefix + "position_embedding"]
        side = self.config["image_size"] // patch
        if (rows, columns) != (side, side):
            old = table[:, 1:].reshape(1, side, side, -1).permute(0, 3, 1, 2)
            new = F.interpolate(old, size=(rows, columns), mode="bicubic", align_corners=False)
            table = torch.cat([table[:, :1], new.flatten(2).transpose(1, 2)], dim=1)
        first = self.weights[prefix + "class_embedding"].expand(len(pixels), 1, -1)
        return torch.cat([first, grid.flatten(2).transpose(1, 2)], dim=1) + table

    def block(self, x, index):
        prefix = f"vision_model.encoder.layers.{index}."
        heads = self.config["num_attention_heads"]
        q, k, v = self.linear(self.norm(x, prefix + "norm1"), prefix + "attn.qkv").chunk(3, dim=-1)
        if self.config.get("qk_normalization", True):  # over all heads at once, before the split
            q, k = (
                rms_norm(t, self.weights[f"{prefix}attn.{n}.weight"], self.config["layer_norm_eps"])
                for t, n in ((q, "q_norm"), (k, "k_norm")))
        q, k, v = (t.unflatten(-1, (heads, -1)).transpose(1, 2) for t in (q, k, v))
        x = x + self.weights[prefix + "ls1"] * self.linear(attention(q, k, v), prefix + "attn.proj")
        inner = F.gelu(self.linear(self.norm(x, prefix + "norm2"), prefix + "mlp.fc1"))
        return x + self.weights[prefix + "ls2"] * self.linear(inner, prefix + "mlp.fc2")

    def states(self, pixels):
        """The embeddings and what each block makes of them: layers + 1 of [B, 1 + N, C]."""
        states = [self.embed(pixels)]
        for index in range(self.config["num_hidden_layers"]):
            states.append(self.block(states[-1], index))
        return states


def pixel_shuffle(x, version):
    """[B, rows, columns, C] → [B, rows·columns/4, 4C]; each cell joins a 2×2 square of patches.

    Channels run top left, top right, bottom left, bottom right. Tokens run down the columns in
    version "v1" and along the rows in "v2".
    """
    tiles, rows, columns, width = x.shape
    square = x.reshape(tiles, rows // 2, 2, columns // 2, 2, width)
    order = (0, 3, 1, 2, 4, 5) if version == "v1" else (0, 1, 3, 2, 4, 5)
    return square.permute(order).reshape(tiles, rows * columns // 4, 4 * width)


def rope_table(config, positions, length):
    """cos and sin [T, head size] for the positions, in a sequence of `length` tokens so far.

    Only "dynamic" looks at the length (NTK-aware scaling past max_position_embeddings).
    """
    size = config["hidden_size"] // config["num_attention_heads"]
    theta = config.get("rope_theta", 10000.0)
    scaling = config.get("rope_scaling") or {}
    kind, factor = scaling.get("rope_type", scaling.get("type")), scaling.get("factor", 1.0)
    limit = config["max_position_embeddings"]
    if kind == "dynamic" and length > limit:
        theta = theta * (factor * length / limit - (factor - 1)) ** (size / (size - 2))
    frequency = 1.0 / theta ** (torch.arange(0, size, 2, dtype=torch.float32) / size)
    if kind == "linear":
        positions = positions / factor
    if kind == "llama3":
        # Turns made within the original context: many keep their speed, few are slowed down by
        # the factor, between the two bounds a straight line joins both.
        turns = scaling["original_max_position_embeddings"] * frequency / (2 * math.pi)
        low, high = scaling["low_freq_factor"], scaling["high_freq_factor"]
        keep = ((turns - low) / (high - low)).clamp(0, 1)
        frequency = keep * frequency + (1 - keep) * frequency / factor
    angle = positions[:, None].float() * frequency
    angle = torch.cat([angle, angle], dim=-1)
    return angle.cos(), angle.sin()


def rotate(x, cos, sin):
    first, second = x.chunk(2, dim=-1)
    return x * cos + torch.cat([-second, first], dim=-1) * sin


class LanguageModel:
    """A Llama decoder. `cache` is a dictionary layer → (keys, values), keys already rotated."""

    def __init__(self, config, weights):
        self.config = config
        self.weights = weights
        self.table = weights["language_model.model.embed_tokens.weight"]
        tied = config.get("tie_word_embeddings", False)
        self.head = self.table if tied else weights["language_model.lm_head.weight"]

    def norm(self, x, name):
        return rms_norm(x, self.weights[name + ".weight"], self.config["rms_norm_eps"])

    def linear(self, x, name):
        return F.linear(x, self.weights[name + ".weight"], self.weights.get(name + ".bias"))

    def block(self, x, index, cos, sin, mask, cache):
        prefix = f"language_model.model.layers.{index}."
        heads = self.config["num_attention_heads"]
        groups = self.config.get("num_key_value_heads") or heads
        h = self.norm(x, prefix + "input_layernorm")
        q, k, v = (
            self.linear(h, f"{prefix}self_attn.{n}_proj").unflatten(-1, (count, -1)).transpose(0, 1)
            for n, count in (("q", heads), ("k", groups), ("v", groups)))
        q, k = rotate(q, cos, sin), rotate(k, cos, sin)
        if index in cache:
            k, v = (torch.cat([old, new], dim=1) for old, new in zip(cache[index], (k, v)))
        cache[index] = k, v
        k, v = (t.repeat_interleave(heads // groups, dim=0) for t in (k, v))
        x = x + self.linear(attention(q, k, v, mask), prefix + "self_attn.o_proj")
        h = self.norm(x, prefix + "post_attention_layernorm")
        gate = F.silu(self.linear(h, prefix + "mlp.gate_proj"))
        h = gate * self.linear(h, prefix + "mlp.up_proj")
        return x + self.linear(h, prefix + "mlp.down_proj")

    def states(self, x, cache):
        """x [T, D], after what the cache holds → x and every block's output, all [T, D]."""
        past = cache[0][0].shape[1] if cache else 0
        total = past + len(x)
        positions = torch.arange(past, total)
        cos, sin = rope_table(self.config, positions, total)
        mask = torch.full((len(x), total), -torch.inf).triu(past + 1)
        states = [x]
        for index in range(self.config["num_hidden_layers"]):
            states.append(self.block(states[-1], index, cos, sin, mask, cache))
        return states

    def logits(self, x, cache):
        last = self.states(x, cache)[-1]
        return F.linear(self.norm(last, "language_model.model.norm"), self.head)


class Model:
    def __init__(self, config, weights):
        self.config = config
        self.weights = weights
        self.vision = VisionEncoder(config["vision_config"], weights)
        self.language = LanguageModel(config["llm_config"], weights)

    def project(self, features):
        """[B, 1 + N, C] with the class token → [B, N/4, D]."""
        side = math.isqrt(features.shape[1] - 1)
        patches = features[:, 1:].unflatten(1, (side, side))
        x = pixel_shuffle(patches, self.config.get("ps_version", "v1"))
        w = self.weights
        x = F.layer_norm(x, x.shape[-1:], w["mlp1.0.weight"], w["mlp1.0.bias"], 1e-5)
        x = F.gelu(F.linear(x, w["mlp1.1.weight"], w["mlp1.1.bias"]))
        return F.linear(x, w["mlp1.3.weight"], w["mlp1.3.bias"])

    def embed(self, input_ids, image_rows, image_token):
        """Token embeddings [T, D], image rows written in order over the placeholders."""
        x = self.language.table[input_ids]
        if image_rows is None:
            return x
        place = (input_ids == image_token).nonzero()[:, 0]
        return x.index_copy(0, place, image_rows.flatten(0, 1))

    def features(self, pixels):
        return self.vision.states(pixels)[self.config.get("select_layer", -1)]

    def greedy(self, x, steps):
        """(token ids, gap between the two best logits, logits [steps, V]) of `steps` steps."""
        cache, ids, margins, rows = {}, [], [], []
        for _ in range(steps):
            rows.append(self.language.logits(x, cache)[-1])
            best = rows[-1].topk(2)
            ids.append(int(best.indices[0]))
            margins.append(float(best.values[0] - best.values[1]))
            x = self.language.table[best.indices[:1]]
        return ids, margins, torch.stack(rows)
