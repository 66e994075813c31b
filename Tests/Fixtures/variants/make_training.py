"""Makes `train.safetensors` of some variants, and `dump/second.npy` of the golden cases.

`train.safetensors` holds one batch of three samples (one picture; none; two pictures), and the
loss and every parameter's gradient as PyTorch's autograd computes them through reference.py. The
loss is the mean over all labelled tokens of the batch. `dump/second.npy` holds the normalized
pixels of second.jpg, as reference.py makes them. See README.md.
"""

from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import save_file

from make_variants import IMAGE_TOKEN, HERE
from reference import Model, image_pixels, load_checkpoint

NAMES = ["vit300m", "v11", "ps-v2", "pos-interp", "rope-dynamic", "tied"]
TILES, TEXT = [1, 0, 2], [17, 12, 21]


def batch(config, generator):
    """(ids, labels not shifted, pixels [tiles, 3, H, W] or None) of each sample."""
    side = config["force_image_size"]
    cells = (side // config["vision_config"]["patch_size"] // 2) ** 2
    for tiles, text in zip(TILES, TEXT):
        words = torch.randint(8, IMAGE_TOKEN, (text,), generator=generator).tolist()
        # Pictures apart from one another, so that their rows are several runs.
        ids = words[:2]
        for tile in range(tiles):
            ids += [IMAGE_TOKEN] * cells + words[2 + tile:3 + tile]
        answer = len(ids) + 4
        ids += words[2 + tiles:]
        labels = [-100] * answer + ids[answer:]
        labels[-3] = -100
        pixels = torch.randn(tiles, 3, side, side, generator=generator) if tiles else None
        yield torch.tensor(ids), torch.tensor(labels), pixels


def train(config, weights, samples):
    for value in weights.values():
        value.requires_grad_(True)
    model = Model(config, weights)
    total, count = 0, 0
    for ids, labels, pixels in samples:
        rows = None if pixels is None else model.project(model.features(pixels))
        logits = model.language.logits(model.embed(ids, rows, IMAGE_TOKEN), {})
        total = total + F.cross_entropy(logits[:-1], labels[1:], reduction="sum")
        count += int((labels[1:] != -100).sum())
    loss = total / count
    loss.backward()
    return loss


def make(name):
    config, weights = load_checkpoint(HERE / name / "checkpoint")
    generator = torch.Generator().manual_seed(77 + NAMES.index(name))
    samples = list(batch(config, generator))
    loss = train(config, weights, samples)
    result = {
        "input_ids": torch.cat([ids for ids, _, _ in samples]),
        "labels": torch.cat([labels for _, labels, _ in samples]),
        "lengths": torch.tensor([len(ids) for ids, _, _ in samples]),
        "tiles": torch.tensor(TILES),
        "pixels": torch.cat([pixels for _, _, pixels in samples if pixels is not None]),
        "loss": loss.detach()[None],
    }
    for key, value in weights.items():
        # Layers behind the selected one take no part.
        if value.grad is not None:
            result["grad." + key] = value.grad
    save_file(result, HERE / name / "train.safetensors")
    print(f"{name:12} loss {float(loss):.4f}, {len(result) - 6} gradients of {len(weights)}")


if __name__ == "__main__":
    for name in NAMES:
        make(name)
    for case in sorted(Path(HERE.parent / "golden").iterdir()):
        config, _ = load_checkpoint(case / "checkpoint")
        pixels, _, _ = image_pixels(case / "second.jpg", config["force_image_size"])
        np.save(case / "dump" / "second.npy", pixels.numpy())
        first, _, _ = image_pixels(case / "image.jpg", config["force_image_size"])
        same = np.abs(first.numpy() - np.load(case / "dump" / "pixels.npy")).max()
        print(f"{case.name:18} second.npy {list(pixels.shape)}, first differs {same:.1e}")
