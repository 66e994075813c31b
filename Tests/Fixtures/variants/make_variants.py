"""Makes the fixtures of this folder: small random checkpoints, one a model variant, with what
reference.py computes from each. See README.md.

Same seeds, same PyTorch: same bytes. With --witness the language model's logits and tokens are
also compared with transformers' LlamaForCausalLM (4.37), with --check the files are only read
and compared, nothing is written.
"""

import argparse
import copy
import json
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from reference import Model, load_checkpoint

HERE = Path(__file__).resolve().parent
TEMPLATE = HERE.parent / "golden" / "v12-tiny" / "checkpoint" / "config.json"
VOCABULARY, IMAGE_TOKEN = 96, 90
STEPS, SMALLEST_MARGIN = 16, 0.02

# What most variants share: the V1.2 flavour, small.
VISION = dict(
    num_hidden_layers=2, hidden_size=16, num_attention_heads=2, intermediate_size=40, image_size=56)
LANGUAGE = dict(
    num_hidden_layers=2, hidden_size=32, num_attention_heads=4, num_key_value_heads=2,
    intermediate_size=52, rope_theta=10000.0)
# Rotary variants: a larger head, so that frequencies fall on every side of the bounds.
ROTARY = dict(hidden_size=48, num_attention_heads=3, num_key_value_heads=1, intermediate_size=40)


def variant(top=None, vision=None, language=None, ignoring=None, tiles=1):
    """`ignoring` undoes the variant: results must then differ, or the fixture shows nothing."""
    return dict(
        top=top or {}, vision={**VISION, **(vision or {})},
        language={**LANGUAGE, **(language or {})}, ignoring=ignoring, tiles=tiles)


def rotary(scaling, **more):
    return variant(
        vision=dict(num_hidden_layers=1, image_size=28),
        language={**ROTARY, "rope_scaling": scaling, **more},
        ignoring={"llm_config": {"rope_scaling": None}})


VARIANTS = {
    "vit300m": variant(
        vision=dict(
            hidden_size=24, qkv_bias=True, qk_normalization=False, norm_type="layer_norm",
            drop_path_rate=0.1, initializer_factor=1.0)),
    "v11": variant(
        top=dict(select_layer=-4, template="internvl_zh"),
        vision=dict(num_hidden_layers=6),
        language=dict(num_key_value_heads=4),
        ignoring={"select_layer": -1}),
    "ps-v2": variant(top=dict(ps_version="v2"), ignoring={"ps_version": "v1"}),
    "pos-interp": variant(top=dict(force_image_size=84)),
    "rope-linear": rotary({"type": "linear", "factor": 2.0}),
    "rope-dynamic": rotary({"type": "dynamic", "factor": 2.0}, max_position_embeddings=20),
    "rope-llama3": rotary(
        {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
         "original_max_position_embeddings": 64}),
    "tied": variant(
        top=dict(tie_word_embeddings=True), language=dict(tie_word_embeddings=True)),
    "mixed-bf16": variant(
        top=dict(torch_dtype="bfloat16"),
        vision=dict(hidden_size=20, intermediate_size=52, torch_dtype="bfloat16"),
        language=dict(
            hidden_size=144, num_attention_heads=6, num_key_value_heads=3, intermediate_size=53,
            torch_dtype="bfloat16")),
    "tiles": variant(
        top=dict(dynamic_image_size=True, max_dynamic_patch=2), tiles=2),
}


def configuration(spec):
    config = json.loads(TEMPLATE.read_text())
    config["vision_config"].update(spec["vision"])
    config["llm_config"].update(vocab_size=VOCABULARY, **spec["language"])
    config.update(
        force_image_size=config["vision_config"]["image_size"],
        hidden_size=config["llm_config"]["hidden_size"])
    config.update(spec["top"])
    return config


def random_weights(config, generator):
    """Every tensor of the checkpoint, all of them random; activations stay near 1."""
    weights = {}

    def normal(name, *shape, mean=0.0, std=0.1):
        weights[name] = mean + std * torch.randn(*shape, generator=generator)

    def linear(name, output, inputs, bias=True, gain=1.0):
        normal(name + ".weight", output, inputs, std=gain * inputs**-0.5)
        if bias:
            normal(name + ".bias", output, std=0.2)

    def norm(name, width, bias=False):
        normal(name + ".weight", width, mean=1.0, std=0.2)
        if bias:
            normal(name + ".bias", width, std=0.2)

    v, patch = config["vision_config"], config["vision_config"]["patch_size"]
    width, inner = v["hidden_size"], v["intermediate_size"]
    prefix = "vision_model.embeddings."
    normal(prefix + "class_embedding", 1, 1, width, std=0.7)
    normal(
        prefix + "patch_embedding.weight", width, 3, patch, patch, std=(3 * patch * patch) ** -0.5)
    normal(prefix + "patch_embedding.bias", width, std=0.2)
    normal(prefix + "position_embedding", 1, (v["image_size"] // patch) ** 2 + 1, width, std=0.5)
    layer_norm = v["norm_type"] == "layer_norm"
    for index in range(v["num_hidden_layers"]):
        prefix = f"vision_model.encoder.layers.{index}."
        norm(prefix + "norm1", width, layer_norm)
        norm(prefix + "norm2", width, layer_norm)
        normal(prefix + "ls1", width, mean=0.5)
        normal(prefix + "ls2", width, mean=0.5)
        linear(prefix + "attn.qkv", 3 * width, width, v["qkv_bias"], gain=1.5)
        if v["qk_normalization"]:
            norm(prefix + "attn.q_norm", width)
            norm(prefix + "attn.k_norm", width)
        linear(prefix + "attn.proj", width, width)
        linear(prefix + "mlp.fc1", inner, width)
        linear(prefix + "mlp.fc2", width, inner)

    c = config["llm_config"]
    size, inner, vocabulary = c["hidden_size"], c["intermediate_size"], c["vocab_size"]
    narrow = size // c["num_attention_heads"] * c["num_key_value_heads"]
    norm("mlp1.0", 4 * width, bias=True)
    linear("mlp1.1", size, 4 * width)
    linear("mlp1.3", size, size)
    normal("language_model.model.embed_tokens.weight", vocabulary, size, std=0.5)
    for index in range(c["num_hidden_layers"]):
        prefix = f"language_model.model.layers.{index}."
        norm(prefix + "input_layernorm", size)
        norm(prefix + "post_attention_layernorm", size)
        for name, output, gain in (
            ("q_proj", size, 1.5), ("k_proj", narrow, 1.5), ("v_proj", narrow, 1.0),
            ("o_proj", size, 1.0),
        ):
            linear(f"{prefix}self_attn.{name}", output, size, bias=False, gain=gain)
        linear(prefix + "mlp.gate_proj", inner, size, bias=False)
        linear(prefix + "mlp.up_proj", inner, size, bias=False)
        linear(prefix + "mlp.down_proj", size, inner, bias=False)
    norm("language_model.model.norm", size)
    if not c["tie_word_embeddings"]:
        linear("language_model.lm_head", vocabulary, size, bias=False, gain=2.0)
    return weights


def prompt(generator, image_tokens, text_tokens=26):
    """Random ids with one run of placeholders after the sixth."""
    text = torch.randint(8, IMAGE_TOKEN, (text_tokens,), generator=generator).tolist()
    return torch.tensor(text[:6] + [IMAGE_TOKEN] * image_tokens + text[6:])


def compute(config, weights, pixels, input_ids):
    model = Model(config, weights)
    vision = model.features(pixels)
    rows = model.project(vision)
    x = model.embed(input_ids, rows, IMAGE_TOKEN)
    token_ids, margins, decode_logits = model.greedy(x, STEPS)
    return dict(
        pixels=pixels, input_ids=input_ids, image_token=torch.tensor([IMAGE_TOKEN]),
        vision=vision, projector=rows, logits=model.language.logits(x, {}),
        token_ids=torch.tensor(token_ids), margins=torch.tensor(margins),
        decode_logits=decode_logits)


def recompute(config, weights, result):
    """Greedy decoding again, the whole sequence anew at each step instead of a cache."""
    model = Model(config, weights)
    x = model.embed(result["input_ids"], result["projector"], IMAGE_TOKEN)
    ids, rows = [], []
    for _ in range(STEPS):
        rows.append(model.language.logits(x, {})[-1])
        ids.append(int(rows[-1].argmax()))
        x = torch.cat([x, model.language.table[ids[-1:]]])
    return dict(recomputed_token_ids=torch.tensor(ids), recomputed_logits=torch.stack(rows))


def make(name, spec):
    """The first seed of this variant whose greedy steps are all decided clearly."""
    config = configuration(spec)
    bfloat16 = config["torch_dtype"] == "bfloat16"
    for seed in range(1000 * (1 + list(VARIANTS).index(name)), 10**6):
        generator = torch.Generator().manual_seed(seed)
        stored = random_weights(config, generator)
        if bfloat16:
            stored = {key: value.bfloat16() for key, value in stored.items()}
        weights = {key: value.float() for key, value in stored.items()}
        side = config["force_image_size"]
        pixels = torch.randn(spec["tiles"], 3, side, side, generator=generator)
        cells = (side // config["vision_config"]["patch_size"] // 2) ** 2
        input_ids = prompt(generator, cells * spec["tiles"])
        result = compute(config, weights, pixels, input_ids)
        margins = result["margins"]
        if config["llm_config"]["rope_scaling"] == {"type": "dynamic", "factor": 2.0}:
            result.update(recompute(config, weights, result))
            best = result["recomputed_logits"].topk(2).values
            margins = torch.cat([margins, best[:, 0] - best[:, 1]])
        if margins.min() >= SMALLEST_MARGIN and len(set(result["token_ids"].tolist())) >= 6:
            return config, stored, {key: value.contiguous() for key, value in result.items()}


def merged(config, changes):
    config = copy.deepcopy(config)
    for key, value in changes.items():
        config[key] = {**config[key], **value} if isinstance(value, dict) else value
    return config


def distance(found, wanted):
    return float((found - wanted).abs().max() / wanted.abs().max())


def verify(name, spec, witness):
    """Reads the fixture back, computes it anew, and says how far it lies from each witness."""
    config, weights = load_checkpoint(HERE / name / "checkpoint")
    expected = load_file(HERE / name / "expected.safetensors")
    inputs = expected["pixels"], expected["input_ids"]
    again = compute(config, weights, *inputs)
    worst = max(distance(again[k], expected[k]) for k in ("vision", "projector", "logits"))
    assert worst < 1e-5 and torch.equal(again["token_ids"], expected["token_ids"]), name
    line = (
        f"{name:12} margin {float(expected['margins'].min()):.3f}  again {worst:.1e}"
        f"  std vision {float(expected['vision'].std()):.2f}"
        f" projector {float(expected['projector'].std()):.2f}"
        f" logits {float(expected['logits'].std()):.2f}")
    if spec["ignoring"]:
        other = compute(merged(config, spec["ignoring"]), weights, *inputs)
        away = distance(other["logits"], expected["logits"])
        assert away > 0.02, f"{name}: the results do not depend on {spec['ignoring']}"
        line += f"  without {away:.2f}"
    if witness:
        line += "  transformers " + second_opinion(config, weights, expected)
    print(line)


def second_opinion(config, weights, expected):
    """transformers' own Llama, fed the same embeddings; "llama3" scaling is not in 4.37."""
    from transformers import LlamaConfig, LlamaForCausalLM

    settings = {k: v for k, v in config["llm_config"].items() if k != "torch_dtype"}
    if "rope_type" in (settings["rope_scaling"] or {}):
        return "cannot say"
    llama = LlamaForCausalLM(LlamaConfig(**settings, _attn_implementation="eager")).eval()
    prefix = "language_model."
    state = {k[len(prefix):]: v for k, v in weights.items() if k.startswith(prefix)}
    missing, unexpected = llama.load_state_dict(state, strict=False)
    assert not unexpected and set(missing) <= {"lm_head.weight"}, (missing, unexpected)
    llama.tie_weights()
    model = Model(config, weights)
    x = model.embed(expected["input_ids"], expected["projector"], IMAGE_TOKEN)[None]
    cache, ids, rows = None, [], []
    for _ in range(STEPS):
        out = llama(inputs_embeds=x, past_key_values=cache, use_cache=True)
        whole = out.logits[0] if cache is None else whole
        cache = out.past_key_values
        rows.append(out.logits[0, -1])
        ids.append(int(rows[-1].argmax()))
        x = llama.get_input_embeddings()(torch.tensor([ids[-1:]]))
    worst = max(
        distance(whole, expected["logits"]),
        distance(torch.stack(rows), expected["decode_logits"]))
    same = ids == expected["token_ids"].tolist()
    assert worst < 1e-5 and same, (worst, ids, expected["token_ids"])
    return f"{worst:.1e}, tokens same"


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", help="default: all")
    parser.add_argument("--witness", action="store_true")
    parser.add_argument("--check", action="store_true")
    options = parser.parse_args()
    torch.set_grad_enabled(False)
    for name in options.names or VARIANTS:
        spec = VARIANTS[name]
        if not options.check:
            config, weights, expected = make(name, spec)
            folder = HERE / name / "checkpoint"
            folder.mkdir(parents=True, exist_ok=True)
            (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n")
            save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
            save_file(expected, HERE / name / "expected.safetensors")
        verify(name, spec, options.witness)
