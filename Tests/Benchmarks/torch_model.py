"""The reference's model in PyTorch's own operations: InternViT, projector, Llama.

Everything that PyTorch has a fast operation for uses it: scaled dot product attention, rms_norm,
layer_norm, linear, and q, k, v as well as gate and up in one product each.
"""

import torch
from torch import nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint


class VisionLayer(nn.Module):
    def __init__(self, shape):
        super().__init__()
        width, inner = shape["hidden_size"], shape["intermediate_size"]
        self.heads, self.epsilon = shape["num_attention_heads"], shape["layer_norm_eps"]
        for name in ("norm1", "norm2", "q_norm", "k_norm", "ls1", "ls2"):
            self.register_parameter(name, nn.Parameter(torch.empty(width)))
        self.qkv = nn.Linear(width, 3 * width, bias=False)
        self.proj = nn.Linear(width, width)
        self.fc1 = nn.Linear(width, inner)
        self.fc2 = nn.Linear(inner, width)
        # llama.cpp has layer norms at this width where the model has RMS norms.
        self.layer_norms = False

    def norm(self, x, weight):
        if self.layer_norms:
            return functional.layer_norm(x, weight.shape, weight, None, self.epsilon)
        return functional.rms_norm(x, weight.shape, weight, self.epsilon)

    def forward(self, x):
        batch, rows, width = x.shape
        q, k, v = self.qkv(self.norm(x, self.norm1)).chunk(3, dim=-1)
        q, k = self.norm(q, self.q_norm), self.norm(k, self.k_norm)
        q, k, v = (t.view(batch, rows, self.heads, -1).transpose(1, 2) for t in (q, k, v))
        mixed = functional.scaled_dot_product_attention(q, k, v)
        x = x + self.ls1 * self.proj(mixed.transpose(1, 2).reshape(batch, rows, width))
        inner = functional.gelu(self.fc1(self.norm(x, self.norm2)))
        return x + self.ls2 * self.fc2(inner)


class Vision(nn.Module):
    """pixels [1, 3, 448, 448] → rows [1, 256, D]."""

    def __init__(self, configuration):
        super().__init__()
        shape = configuration["vision_config"]
        width, side = shape["hidden_size"], shape["image_size"] // shape["patch_size"]
        self.patch = nn.Conv2d(3, width, shape["patch_size"], shape["patch_size"])
        self.token = nn.Parameter(torch.empty(1, 1, width))
        self.positions = nn.Parameter(torch.empty(1, side * side + 1, width))
        self.layers = nn.ModuleList(VisionLayer(shape) for _ in range(shape["num_hidden_layers"]))
        output = configuration["llm_config"]["hidden_size"]
        self.projector = nn.Sequential(
            nn.LayerNorm(4 * width), nn.Linear(4 * width, output), nn.GELU(),
            nn.Linear(output, output))
        # The reference's first version leaves the merged patches' grid turned over.
        self.turned = configuration["ps_version"] == "v1"
        self.recompute = False

    def forward(self, pixels):
        x = self.patch(pixels).flatten(2).transpose(1, 2)
        x = torch.cat([self.token, x], dim=1) + self.positions
        for layer in self.layers:
            x = checkpoint(layer, x, use_reentrant=False) if self.recompute else layer(x)
        x = x[:, 1:]
        side = int(x.shape[1] ** 0.5)
        x = x.view(1, side, side // 2, -1).transpose(1, 2)
        x = x.reshape(1, side // 2, side // 2, -1)
        if not self.turned:
            x = x.transpose(1, 2)
        return self.projector(x.reshape(1, side * side // 4, -1))


def turned(x, cosine, sine):
    first, second = x.chunk(2, dim=-1)
    return x * cosine + torch.cat([-second, first], dim=-1) * sine


class LanguageLayer(nn.Module):
    def __init__(self, shape):
        super().__init__()
        width, inner = shape["hidden_size"], shape["intermediate_size"]
        self.heads, self.key_heads = shape["num_attention_heads"], shape["num_key_value_heads"]
        self.size, self.epsilon = width // self.heads, shape["rms_norm_eps"]
        self.norm1 = nn.Parameter(torch.empty(width))
        self.norm2 = nn.Parameter(torch.empty(width))
        self.qkv = nn.Linear(width, width + 2 * self.key_heads * self.size, bias=False)
        self.output = nn.Linear(width, width, bias=False)
        self.gate_up = nn.Linear(width, 2 * inner, bias=False)
        self.down = nn.Linear(inner, width, bias=False)

    def forward(self, x, cosine, sine, cache=None, start=0):
        batch, rows, width = x.shape
        qkv = self.qkv(functional.rms_norm(x, (width,), self.norm1, self.epsilon))
        qkv = qkv.view(batch, rows, -1, self.size).transpose(1, 2)
        q, k, v = qkv.split([self.heads, self.key_heads, self.key_heads], dim=1)
        q, k = turned(q, cosine, sine), turned(k, cosine, sine)
        if cache is not None:
            keys, values = cache
            keys[:batch, :, start:start + rows] = k
            values[:batch, :, start:start + rows] = v
            k, v = keys[:batch, :, :start + rows], values[:batch, :, :start + rows]
        if rows == 1:
            # The heads that share a key are its rows: nothing is masked, nothing repeated.
            q = q.reshape(batch, self.key_heads, -1, self.size)
            mixed = functional.scaled_dot_product_attention(q, k, v)
            mixed = mixed.reshape(batch, rows, width)
        else:
            mixed = functional.scaled_dot_product_attention(
                q, k, v, is_causal=True, enable_gqa=True)
            mixed = mixed.transpose(1, 2).reshape(batch, rows, width)
        x = x + self.output(mixed)
        gate, up = self.gate_up(
            functional.rms_norm(x, (width,), self.norm2, self.epsilon)).chunk(2, dim=-1)
        return x + self.down(functional.silu(gate) * up)


class Language(nn.Module):
    def __init__(self, configuration):
        super().__init__()
        shape = configuration["llm_config"]
        width, rows = shape["hidden_size"], shape["vocab_size"]
        self.embedding = nn.Embedding(rows, width)
        self.layers = nn.ModuleList(
            LanguageLayer(shape) for _ in range(shape["num_hidden_layers"]))
        self.norm = nn.Parameter(torch.empty(width))
        self.head = nn.Linear(width, rows, bias=False)
        self.epsilon, self.theta = shape["rms_norm_eps"], shape["rope_theta"]
        self.size = width // shape["num_attention_heads"]
        self.key_heads = shape["num_key_value_heads"]
        self.recompute = False
        self.tables = None

    def make_tables(self, positions, kind):
        frequencies = self.theta ** (-torch.arange(0, self.size, 2).float() / self.size)
        angles = torch.outer(torch.arange(positions).float(), frequencies)
        angles = torch.cat([angles, angles], dim=-1)
        self.tables = angles.cos().to(kind), angles.sin().to(kind)

    def make_caches(self, batch, positions, kind):
        size = (batch, self.key_heads, positions, self.size)
        return [(torch.zeros(size, dtype=kind), torch.zeros(size, dtype=kind))
                for _ in self.layers]

    def forward(self, x, caches=None, start=0, last=False):
        cosine, sine = (table[start:start + x.shape[1]] for table in self.tables)
        for index, layer in enumerate(self.layers):
            if self.recompute:
                x = checkpoint(layer, x, cosine, sine, use_reentrant=False)
            else:
                x = layer(x, cosine, sine, caches[index] if caches else None, start)
        if last:
            x = x[:, -1:]
        return self.head(functional.rms_norm(x, self.norm.shape, self.norm, self.epsilon))


def _fill(parameter, values):
    with torch.no_grad():
        parameter.copy_(torch.from_numpy(values).view(parameter.shape))


def load_vision(weights, kind=torch.float32):
    with torch.device("meta"):
        model = Vision(weights.configuration)
    model = model.to_empty(device="cpu").to(kind)
    prefix = "vision_model.embeddings."
    _fill(model.patch.weight, weights.float32(f"{prefix}patch_embedding.weight"))
    _fill(model.patch.bias, weights.float32(f"{prefix}patch_embedding.bias"))
    _fill(model.token, weights.float32(f"{prefix}class_embedding"))
    _fill(model.positions, weights.float32(f"{prefix}position_embedding"))
    for index, layer in enumerate(model.layers):
        prefix = f"vision_model.encoder.layers.{index}."
        for name, source in [
            ("norm1", "norm1.weight"), ("norm2", "norm2.weight"), ("ls1", "ls1"), ("ls2", "ls2"),
            ("q_norm", "attn.q_norm.weight"), ("k_norm", "attn.k_norm.weight"),
        ]:
            _fill(getattr(layer, name), weights.float32(prefix + source))
        _fill(layer.qkv.weight, weights.float32(f"{prefix}attn.qkv.weight"))
        for name, source in [("proj", "attn.proj"), ("fc1", "mlp.fc1"), ("fc2", "mlp.fc2")]:
            _fill(getattr(layer, name).weight, weights.float32(f"{prefix}{source}.weight"))
            _fill(getattr(layer, name).bias, weights.float32(f"{prefix}{source}.bias"))
    for index in (0, 1, 3):
        _fill(model.projector[index].weight, weights.float32(f"mlp1.{index}.weight"))
        _fill(model.projector[index].bias, weights.float32(f"mlp1.{index}.bias"))
    return model


def load_language(weights, kind=torch.float32, positions=1024):
    with torch.device("meta"):
        model = Language(weights.configuration)
    model = model.to_empty(device="cpu").to(kind)
    prefix = "language_model."

    def joined(parameter, names):
        rows = 0
        for name in names:
            values = weights.float32(name)
            _fill(parameter[rows:rows + values.shape[0]], values)
            rows += values.shape[0]

    _fill(model.embedding.weight, weights.float32(f"{prefix}model.embed_tokens.weight"))
    _fill(model.norm, weights.float32(f"{prefix}model.norm.weight"))
    _fill(model.head.weight, weights.float32(f"{prefix}lm_head.weight"))
    for index, layer in enumerate(model.layers):
        part = f"{prefix}model.layers.{index}."
        _fill(layer.norm1, weights.float32(f"{part}input_layernorm.weight"))
        _fill(layer.norm2, weights.float32(f"{part}post_attention_layernorm.weight"))
        joined(layer.qkv.weight, [f"{part}self_attn.{name}_proj.weight" for name in "qkv"])
        joined(layer.gate_up.weight, [f"{part}mlp.{name}_proj.weight" for name in ("gate", "up")])
        _fill(layer.output.weight, weights.float32(f"{part}self_attn.o_proj.weight"))
        _fill(layer.down.weight, weights.float32(f"{part}mlp.down_proj.weight"))
    model.make_tables(positions, kind)
    return model
