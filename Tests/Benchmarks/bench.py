"""make bench: Chiasm beside PyTorch and llama.cpp on the same work, in turn, in one run.

Runs in the environment that prepare.py makes. Every phase has all its parties loaded at once and
waiting; in each round every party does every piece of work once, in an order that turns from round
to round. The first round does not count. What was measured goes to results.json, and from there
to docs/benchmarks.md and docs/benchmarks.svg.
"""

import argparse
import json
import os
import platform
import subprocess
import sys
import time
from importlib import metadata
from pathlib import Path

import numpy

import checkpoint
import report
import work
from party import Party, PartyFailure

HERE = Path(__file__).parent
PHASES = ["check", "image", "text", "mesh", "training", "pipeline", "wire"]
ANSWER_TOKENS = 60
ROUNDED = "Chiasm bf16 rounded"
LANGUAGE_TYPES = ["F32", "F16", "BF16", "Q8_0", "Q4_0", "Q4_K_M"]
VISION_TYPES = ["F32", "F16", "BF16", "Q8_0"]
# What a phase's parties take together, with some room.
NEEDED_GIB = {"check": 5, "image": 11, "text": 13, "mesh": 6, "training": 17, "pipeline": 3,
              "wire": 1}


def say(text):
    print(text, file=sys.stderr, flush=True)


def fail(text):
    raise SystemExit(f"make bench: {text}")


class Bench:
    def __init__(self, options):
        self.options = options
        self.root = Path(options.root)
        self.gguf = self.root / "gguf"
        self.logs = self.root / "logs"
        self.logs.mkdir(parents=True, exist_ok=True)
        self.picture = self.root / "picture.png"
        work.write_picture(self.picture)
        self.models = {"bf16": Path(options.model)}

    # The models in everybody's format.

    def prepare(self):
        chiasm = self.options.chiasm
        if not (self.models["bf16"] / "config.json").exists():
            say("Writing the model")
            self._run([chiasm, "random-model", self.models["bf16"], "--tokenizer",
                       self.options.tokenizer])
        for kind in ("q8", "q4"):
            folder = self.root / f"chiasm-{kind}"
            if not (folder / "config.json").exists():
                say(f"Quantising the model to {kind}")
                self._run([chiasm, "quantize", self.models["bf16"], "--type", kind, folder])
            self.models[kind] = folder
        say("Converting the model to llama.cpp's types (what is there is used again)")
        self._run([sys.executable, "-c",
                   "import gguf_files, sys; gguf_files.convert(*sys.argv[1:])",
                   self.models["bf16"], self.gguf], cwd=HERE, quiet=True)

    def _run(self, command, cwd=None, quiet=False):
        command = [str(word) if index == 0 else os.fspath(
            word.absolute() if isinstance(word, Path) else word)
            for index, word in enumerate(command)]
        log = self.logs / "prepare.log"
        with open(log, "ab") as file:
            status = subprocess.run(
                command, cwd=cwd, stdout=file, stderr=file if quiet else None).returncode
        if status != 0:
            fail(f"\"{' '.join(command[:3])} …\" ended with status {status}; see {log}")

    # The parties.

    def chiasm(self, name, kind, *flags, threads=None):
        return self._party(
            name, [self.options.chiasm, "bench-party", "--model", self.models[kind], "--picture",
                   self.picture, "--threads", threads or self.options.threads, *flags])

    def torch(self, name, *flags):
        return self._party(
            name, [sys.executable, HERE / "torch_party.py", "--model", self.models["bf16"],
                   "--threads", self.options.threads, *flags])

    def llama(self, name, *flags):
        return self._party(
            name, [sys.executable, HERE / "llama_party.py", "--folder", self.gguf, "--threads",
                   self.options.threads, *flags])

    def _party(self, name, command):
        return Party(name, command, self.logs / f"{name.replace(' ', '-')}.log")

    # Rounds.

    def rounds(self, parties, works, each_round=None):
        """works: for each name the line that asks for it. Seconds by work, party and round."""
        seconds = {name: {party.name: [] for party in parties} for name in works}
        try:
            for party in parties:
                say(f"  loading {party.name}")
                party.start()
            for number in range(self.options.rounds + 1):
                say(f"  round {number} of {self.options.rounds}")
                if each_round:
                    each_round(number)
                for name, line in works.items():
                    turn = number % len(parties)
                    for party in parties[turn:] + parties[:turn]:
                        answer = party.ask(line)
                        if number > 0:
                            seconds[name][party.name].append(answer["seconds"])
        finally:
            for party in parties:
                party.stop()
        return seconds

    # Phases: each returns what goes into results.json under its name.

    def check(self):
        """Whether all compute the same function: greatest differences to PyTorch in float32."""
        folder = self.root / "check"
        folder.mkdir(exist_ok=True)

        def given(party, *lines):
            party.start()
            try:
                for line in lines:
                    party.ask(line)
            finally:
                party.stop()

        given(self.torch("check torch", "--parts", "image", "text"),
              f"rows {folder}/torch-rows.npy", f"rows {folder}/torch-layer-rows.npy layer-norms",
              f"logits {folder}/torch-logits.npy")
        rows, layer_rows, logits = (numpy.load(folder / f"torch-{name}.npy")
                                    for name in ("rows", "layer-rows", "logits"))
        result = {"logits_deviation": float(logits.std()), "rows_deviation": float(rows.std())}
        differences = result["differences"] = {}

        def note(name, ours, theirs, kind):
            entry = differences.setdefault(name, {})
            entry[kind] = float(numpy.abs(ours - theirs).max())
            if kind == "logits":
                entry["top1"] = float((ours.argmax(-1) == theirs.argmax(-1)).mean())

        for kind in ("F32", "F16", "BF16", "Q8_0", "Q4_0"):
            flags = ["--vision", kind] if kind in VISION_TYPES else []
            lines = [f"logits {folder}/llama-logits.npy"]
            if flags:
                lines.append(f"rows {folder}/llama-rows.npy")
            given(self.llama("check llama.cpp", "--language", kind, *flags), *lines)
            note(f"llama.cpp {kind}", numpy.load(folder / "llama-logits.npy"), logits, "logits")
            if flags:
                # The model has the reference's first version of merging, which leaves the grid of
                # merged patches turned over; llama.cpp has the second.
                grid = numpy.load(folder / "llama-rows.npy").reshape(16, 16, -1)
                theirs = grid.swapaxes(0, 1).reshape(256, -1)
                note(f"llama.cpp {kind}", theirs, layer_rows, "rows")
        for kind in self.models:
            given(self.chiasm("check chiasm", kind), f"rows {folder}/rows.safetensors",
                  f"logits {folder}/logits.safetensors")
            for name, theirs in (("rows", rows), ("logits", logits)):
                path = folder / f"{name}.safetensors"
                ours = checkpoint.read(*checkpoint.headers(path)[name])
                note(f"Chiasm {kind}", ours, theirs, name)
        return result

    def image(self):
        parties = [self.chiasm("Chiasm bf16", "bf16"),
                   self.chiasm(ROUNDED, "bf16", "--device", "cpu:bf16"),
                   self.chiasm("Chiasm q8", "q8"),
                   self.torch("PyTorch f32", "--parts", "image"),
                   self.torch("PyTorch bf16", "--parts", "image", "--type", "bfloat16")]
        parties += [self.llama(f"llama.cpp {kind}", "--vision", kind) for kind in VISION_TYPES]
        return self.rounds(parties, {"image": "image"})

    def text(self):
        # The cache of llama.cpp's default size.
        cache = ["--kv-cache", "bf16"]
        parties = [self.chiasm(f"Chiasm {kind}", kind, *cache) for kind in self.models]
        parties.append(self.chiasm(ROUNDED, "bf16", "--device", "cpu:bf16", *cache))
        parties += [self.torch("PyTorch f32", "--parts", "text"),
                    self.torch("PyTorch bf16", "--parts", "text", "--type", "bfloat16")]
        parties += [self.llama(f"llama.cpp {kind}", "--language", kind)
                    for kind in LANGUAGE_TYPES]
        bandwidth = []

        def measure(number):
            value = parties[0].ask("bandwidth")["bytes_per_second"]
            if number > 0:
                bandwidth.append(value)

        works = {"prefill": "prefill"}
        for count in (1, 4, 8):
            works[f"decode {count}"] = f"decode {count} {work.DECODE_STEPS}"
        seconds = self.rounds(parties, works, measure)
        return seconds | {"bandwidth": bandwidth, "bytes": self.bytes_of_step()}

    def bytes_of_step(self):
        """Bytes of weights that a decoding step reads: the language model without the embedding
        table, as each party's file has them."""
        result = {}
        for kind, folder in self.models.items():
            tensors = {}
            for path in sorted(folder.glob("*.safetensors")):
                tensors |= checkpoint.headers(path)
            result[f"Chiasm {kind}"] = sum(
                entry[2] for name, entry in tensors.items()
                if name.startswith("language_model.") and ".embed_tokens." not in name)
        result[ROUNDED] = result["Chiasm bf16"]
        import gguf
        for kind in LANGUAGE_TYPES:
            reader = gguf.GGUFReader(self.gguf / f"language-{kind}.gguf")
            result[f"llama.cpp {kind}"] = sum(
                int(tensor.n_bytes) for tensor in reader.tensors
                if tensor.name != "token_embd.weight")
        return result

    def mesh(self):
        alone, mesh = self.chiasm("one process", "bf16"), self.chiasm("mesh", "bf16", "--mesh")
        parts = {name: {alone.name: [], mesh.name: []} for name in ("image", "prefill", "decode")}
        try:
            for party in (alone, mesh):
                party.start()
            for number in range(self.options.rounds + 1):
                say(f"  round {number} of {self.options.rounds}")
                for party in ((alone, mesh) if number % 2 else (mesh, alone)):
                    answer = party.ask(f"answer {ANSWER_TOKENS}")
                    if number > 0:
                        for name in parts:
                            parts[name][party.name].append(answer[name])
        finally:
            alone.stop()
            mesh.stop()
        return parts

    def training(self):
        """Two of these do not fit into memory: in every round each is started, makes a step that
        does not count, and two that do, whose mean is taken."""
        again = ["--recompute", self.options.recompute]
        parties = [self.chiasm("Chiasm", "bf16", "--train", *again),
                   self.chiasm("Chiasm mesh", "bf16", "--train", "--mesh", *again),
                   self.torch("PyTorch", "--parts", "training"),
                   self.torch("PyTorch checkpointing", "--parts", "training", "--recompute"),
                   self.torch("PyTorch bf16 autocast", "--parts", "training", "--type",
                              "bfloat16")]
        if self.options.trainers:
            parties = [party for party in parties if party.name in self.options.trainers]
        result = {party.name: {"seconds": [], "peak": [], "loss": [], "norm": []}
                  for party in parties}
        for number in range(self.options.training_rounds):
            say(f"  round {number + 1} of {self.options.training_rounds}")
            for party in parties:
                try:
                    party.start()
                    steps = [party.ask("step") for _ in range(3)]
                    entry = result[party.name]
                    entry["seconds"].append((steps[1]["seconds"] + steps[2]["seconds"]) / 2)
                    entry["peak"].append(party.peak_memory())
                    entry["loss"].append([step["loss"] for step in steps])
                    entry["norm"].append([step["norm"] for step in steps])
                finally:
                    party.stop()
                say(f"    {party.name}: {entry['seconds'][-1]:.1f} s")
        return result

    def pipeline(self):
        return self._own("training", "--rounds", str(self.options.rounds), "--model",
                         self.models["bf16"])

    def wire(self):
        return self._own("wire")

    def _own(self, part, *flags):
        path = self.root / f"{part}.json"
        self._run([self.options.chiasm, "bench", "--part", part, "--json", path, *flags])
        return json.loads(path.read_text())[part]

    def conditions(self):
        def command(*words):
            try:
                return subprocess.run(words, capture_output=True, text=True).stdout.strip()
            except OSError:
                return ""
        processor = next((line.split(":", 1)[1].strip()
                          for line in Path("/proc/cpuinfo").read_text().splitlines()
                          if line.startswith("model name")), platform.machine())
        flags = Path("/proc/cpuinfo").read_text()
        llama = self.llama("versions").start()
        system = llama.ask("system")["system"]
        llama.stop()
        return {
            "date": time.strftime("%Y-%m-%d"), "processor": processor,
            "instructions": [name for name in
                             ("avx2", "avx_vnni", "avx512f", "avx512_vnni", "avx512_bf16")
                             if f" {name}" in flags],
            "processors": os.cpu_count(), "memory": memory("MemTotal"),
            "kernel": platform.release(), "threads": self.options.threads,
            "rounds": self.options.rounds, "recompute": self.options.recompute,
            "commit": command("git", "rev-parse", "--short", "HEAD"),
            "python": platform.python_version(), "torch": metadata.version("torch"),
            "llama-cpp-python": metadata.version("llama-cpp-python"), "ggml": system,
        }


def memory(field):
    for line in Path("/proc/meminfo").read_text().splitlines():
        if line.startswith(field + ":"):
            return int(line.split()[1]) * 1024
    return 0


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--root", default=".build/bench")
    parser.add_argument("--chiasm", default=".build/release/chiasm")
    parser.add_argument("--model", default=".build/bench-model")
    parser.add_argument("--tokenizer", default="Tests/Fixtures/golden/v12-tiny/checkpoint")
    parser.add_argument("--docs", default="docs")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--training-rounds", type=int, default=5)
    parser.add_argument(
        "--recompute", choices=["full", "selective", "none"], default="selective",
        help="what Chiasm's training computes twice")
    parser.add_argument(
        "--trainers", nargs="+", metavar="PARTY",
        help="the parties of training, such as Chiasm, 'Chiasm mesh', PyTorch; all if not given")
    parser.add_argument("--phases", nargs="+", choices=PHASES, default=PHASES)
    parser.add_argument("--report", action="store_true", help="write the report again, only")
    options = parser.parse_args()
    results_path = Path(options.root) / "results.json"
    results = json.loads(results_path.read_text()) if results_path.exists() else {}
    if not options.report:
        options.root = Path(options.root).absolute()
        options.model = Path(options.model).absolute()
        options.chiasm = Path(options.chiasm).absolute()
        bench = Bench(options)
        try:
            bench.prepare()
            results["conditions"] = bench.conditions()
            for phase in options.phases:
                needed, free = NEEDED_GIB[phase] << 30, memory("MemAvailable")
                if free < needed:
                    fail(f"\"{phase}\" needs {needed >> 30} GiB of memory and {free / 2**30:.1f} "
                         "are free; end other programs, or leave it out: "
                         "make bench BENCH_FLAGS='--phases …'")
                say(phase)
                results[phase] = getattr(bench, phase)()
                results_path.write_text(json.dumps(results, indent=1))
        except PartyFailure as error:
            fail(error)
    report.write(results, Path(options.docs))


if __name__ == "__main__":
    main()
