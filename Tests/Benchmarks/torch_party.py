"""PyTorch on the same work."""

import argparse
import time

import numpy
import torch
from torch.nn import functional

import torch_model
import work
from checkpoint import Checkpoint


def compile_layers(model):
    """Layer by layer: they share one compilation."""
    torch._dynamo.config.cache_size_limit = 64
    for layer in model.layers:
        layer.compile()


class Pictures:
    def __init__(self, weights, kind, compiled):
        self.model = torch_model.load_vision(weights, kind).eval()
        if compiled:
            compile_layers(self.model)
        self.pixels = torch.from_numpy(work.pixels())[None].to(kind)

    @torch.inference_mode()
    def image(self):
        self.model(self.pixels)

    @torch.inference_mode()
    def rows(self, path, layer_norms="no"):
        for layer in self.model.layers:
            layer.layer_norms = layer_norms == "layer-norms"
        numpy.save(path, self.model(self.pixels)[0].float().numpy())
        for layer in self.model.layers:
            layer.layer_norms = False


class Words:
    def __init__(self, weights, kind, compiled):
        self.model = torch_model.load_language(weights, kind).eval()
        if compiled:
            compile_layers(self.model)
        room = work.PROMPT_TOKENS + work.DECODE_STEPS + 16
        self.caches = self.model.make_caches(work.GREATEST_BATCH, room, kind)
        self.filled = False

    @torch.inference_mode()
    def prefill(self):
        ids = torch.tensor([work.prompt()])
        self.model(self.model.embedding(ids), self.caches, 0, last=True)

    @torch.inference_mode()
    def decode(self, count, steps=work.DECODE_STEPS):
        count, steps = int(count), int(steps)
        if not self.filled:
            for sequence in range(work.GREATEST_BATCH):
                part = [(keys[sequence:], values[sequence:]) for keys, values in self.caches]
                ids = torch.tensor([work.prompt(sequence)])
                self.model(self.model.embedding(ids), part, 0, last=True)
            self.filled = True
        began = time.perf_counter()
        for position in range(work.PROMPT_TOKENS, work.PROMPT_TOKENS + steps):
            ids = torch.tensor([[work.token(position, sequence)] for sequence in range(count)])
            self.model(self.model.embedding(ids), self.caches, position)
        return {"seconds": (time.perf_counter() - began) / steps}

    @torch.inference_mode()
    def logits(self, path):
        ids = torch.tensor([work.prompt()])
        numpy.save(path, self.model(self.model.embedding(ids), self.caches)[0].float().numpy())


class Training:
    """One picture and 512 tokens, 256 of them the picture's rows; all parameters; AdamW."""

    def __init__(self, weights, recompute, kind):
        self.vision = torch_model.load_vision(weights)
        self.language = torch_model.load_language(weights)
        self.vision.recompute = self.language.recompute = recompute
        self.parameters = [*self.vision.parameters(), *self.language.parameters()]
        self.optimizer = torch.optim.AdamW(self.parameters, lr=1e-5, weight_decay=0.05, fused=True)
        self.pixels = torch.from_numpy(work.pixels())[None]
        self.ids = torch.tensor([work.prompt(count=work.TRAINING_TOKENS)])
        self.low = kind != torch.float32

    def step(self):
        self.optimizer.zero_grad(set_to_none=True)
        with torch.autocast("cpu", torch.bfloat16, enabled=self.low):
            rows = self.vision(self.pixels)
            x = self.language.embedding(self.ids)
            x = torch.cat([x[:, :1], rows.to(x.dtype), x[:, 1 + rows.shape[1]:]], dim=1)
            logits = self.language(x)
            labels = self.ids.clone()
            labels[:, :1 + rows.shape[1]] = -100
            loss = functional.cross_entropy(logits[0, :-1].float(), labels[0, 1:])
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(self.parameters, 1.0, foreach=True)
        self.optimizer.step()
        return {"loss": loss.item(), "norm": norm.item()}


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", required=True)
    parser.add_argument("--parts", nargs="+", choices=["image", "text", "training"], required=True)
    parser.add_argument("--type", choices=["float32", "bfloat16"], default="float32")
    parser.add_argument("--recompute", action="store_true")
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    weights = Checkpoint(options.model)
    kind = getattr(torch, options.type)
    works = {}
    if "image" in options.parts:
        pictures = Pictures(weights, kind, options.compile)
        works |= {"image": pictures.image, "rows": pictures.rows}
    if "text" in options.parts:
        words = Words(weights, kind, options.compile)
        works |= {"prefill": words.prefill, "decode": words.decode,
                  "logits": words.logits}
    if "training" in options.parts:
        training = Training(weights, options.recompute, kind)
        works |= {"step": training.step}
    work.answer(works)


if __name__ == "__main__":
    main()
