"""What was measured, as a table on the terminal, docs/benchmarks.md and docs/benchmarks.svg."""

import statistics
import sys
from html import escape

BEGIN = "<!-- Written by make bench; what stands between these two lines is replaced. -->"
END = "<!-- End of what make bench writes. -->"
PROMPT_TOKENS = 320


def figure(value):
    """Three digits."""
    if value >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def spread(values):
    """The middle value, with the least and the greatest."""
    return (f"{figure(statistics.median(values))} "
            f"({figure(min(values))}–{figure(max(values))})")


def ratios(theirs, ours):
    """Round by round: how many times as fast ours is."""
    return [a / b for a, b in zip(theirs, ours)]


class Claims:
    """Ratios with what they are to reach."""

    def __init__(self):
        self.rows = []

    def add(self, what, values, target, at_most=False):
        middle = statistics.median(values)
        reached = middle <= target if at_most else middle >= target
        word = "at most" if at_most else "at least"
        self.rows.append((what, spread(values), f"{word} {target}", reached))

    def show(self, what, values):
        self.rows.append((what, spread(values), "–", None))

    def lines(self):
        verdict = {True: "reached", False: "**missed**", None: "–"}
        yield "| comparison | ratio (least–greatest of a round) | target | |"
        yield "|---|---|---|---|"
        for what, values, target, reached in self.rows:
            yield f"| {what} | {values} | {target} | {verdict[reached]} |"


def collected(results):
    claims = Claims()
    image, text = results.get("image"), results.get("text")
    if image:
        seconds = image["image"]
        ours = seconds["Chiasm bf16"]
        best = _best(seconds, "llama.cpp")
        claims.add("image encode, Chiasm bf16 : PyTorch f32", ratios(seconds["PyTorch f32"], ours),
                   1.3)
        claims.show("image encode, Chiasm bf16 : PyTorch bf16",
                    ratios(seconds["PyTorch bf16"], ours))
        for kind in ("bf16", "bf16 rounded", "q8"):
            claims.add(f"image encode, Chiasm {kind} : llama.cpp's best, {best}",
                       ratios(seconds[f"llama.cpp {best}"], seconds[f"Chiasm {kind}"]), 1.25)
        claims.show("image encode, Chiasm q8 : llama.cpp Q8_0",
                    ratios(seconds["llama.cpp Q8_0"], seconds["Chiasm q8"]))
    if text:
        seconds = text["prefill"]
        best = _best(seconds, "llama.cpp")
        ours = seconds["Chiasm bf16"]
        claims.show("prefill, Chiasm bf16 : PyTorch f32", ratios(seconds["PyTorch f32"], ours))
        claims.show("prefill, Chiasm bf16 : PyTorch bf16", ratios(seconds["PyTorch bf16"], ours))
        for kind in ("bf16", "bf16 rounded"):
            claims.add(f"prefill, Chiasm {kind} : llama.cpp's best, {best}",
                       ratios(seconds[f"llama.cpp {best}"], seconds[f"Chiasm {kind}"]), 1.15)
        claims.add("prefill, Chiasm q8 : llama.cpp Q8_0",
                   ratios(seconds["llama.cpp Q8_0"], seconds["Chiasm q8"]), 1.5)
        claims.show("prefill, Chiasm q4 : llama.cpp Q4_0",
                    ratios(seconds["llama.cpp Q4_0"], seconds["Chiasm q4"]))
        for count in (1, 4, 8):
            seconds = text[f"decode {count}"]
            target = 1.2 if count == 1 else 1.5
            for kind, peer in (("bf16", "F16"), ("bf16 rounded", "F16"), ("q8", "Q8_0"),
                               ("q4", "Q4_0")):
                claims.add(f"decode, batch {count}, Chiasm {kind} : llama.cpp {peer}",
                           ratios(seconds[f"llama.cpp {peer}"], seconds[f"Chiasm {kind}"]), target)
            claims.show(f"decode, batch {count}, Chiasm bf16 : llama.cpp BF16",
                        ratios(seconds["llama.cpp BF16"], seconds["Chiasm bf16"]))
            claims.show(f"decode, batch {count}, Chiasm q4 : llama.cpp Q4_K_M",
                        ratios(seconds["llama.cpp Q4_K_M"], seconds["Chiasm q4"]))
            claims.show(f"decode, batch {count}, Chiasm bf16 : PyTorch bf16",
                        ratios(seconds["PyTorch bf16"], seconds["Chiasm bf16"]))
        for kind in ("bf16", "q8", "q4"):
            name = f"Chiasm {kind}"
            claims.add(f"decode, batch 1, {name}: share of the bandwidth measured",
                       [text["bytes"][name] / took / peak for took, peak
                        in zip(text["decode 1"][name], text["bandwidth"])], 0.85)
    training = results.get("training", {})
    if {"Chiasm", "PyTorch"} <= training.keys():
        ours, torch = training["Chiasm"], training["PyTorch"]
        claims.add("training step, Chiasm : PyTorch", ratios(torch["seconds"], ours["seconds"]),
                   1.4)
        claims.add("training step, memory of Chiasm to PyTorch's",
                   [a / b for a, b in zip(ours["peak"], torch["peak"])], 0.8, at_most=True)
        for name in sorted(training.keys() - {"Chiasm", "Chiasm mesh", "PyTorch"}):
            claims.show(f"training step, Chiasm : {name}",
                        ratios(training[name]["seconds"], ours["seconds"]))
    if results.get("pipeline"):
        pipeline = results["pipeline"]
        claims.add("training, 2 pipelined one-thread stages : one two-thread process",
                   ratios(pipeline["alone"], pipeline["pipelined"]), 0.95)
    if results.get("mesh"):
        for part, name in (("image", "image encode"), ("prefill", "prefill"),
                           ("decode", "decode")):
            seconds = results["mesh"][part]
            claims.add(f"{name}, time of the mesh to one process",
                       ratios(seconds["mesh"], seconds["one process"]), 1.03, at_most=True)
    if {"Chiasm", "Chiasm mesh"} <= training.keys():
        ours = training["Chiasm"]
        claims.add("training step, time of the mesh to one process",
                   ratios(training["Chiasm mesh"]["seconds"], ours["seconds"]), 1.03, at_most=True)
    return claims


def _best(seconds, prefix):
    names = [name for name in seconds if name.startswith(prefix)]
    best = min(names, key=lambda name: statistics.median(seconds[name]))
    return best.removeprefix(prefix).strip()


def _rates(seconds, tokens):
    return {name: [tokens / value for value in values] for name, values in seconds.items()}


def panels(results):
    """(title, unit, {party: values}) of each kind of work."""
    found = []
    if "image" in results:
        found.append(("image encode, ViT and projector", "s", results["image"]["image"]))
    if "text" in results:
        text = results["text"]
        found.append((f"prefill of {PROMPT_TOKENS} tokens", "tok/s",
                      _rates(text["prefill"], PROMPT_TOKENS)))
        for count in (1, 4, 8):
            found.append((f"decode, batch {count}, context {PROMPT_TOKENS}", "tok/s, all together",
                          _rates(text[f"decode {count}"], count)))
    if "training" in results:
        found.append(("training step, 1 image and 512 tokens", "s",
                      {name: entry["seconds"] for name, entry in results["training"].items()}))
    return found


def markdown(results):
    yield from _settings(results["conditions"], results.get("training", {}))
    yield ""
    yield "![Speed of Chiasm, PyTorch and llama.cpp](benchmarks.svg)"
    yield ""
    yield "### Ratios"
    yield ""
    yield "Above 1, Chiasm is faster, unless it says otherwise."
    yield ""
    yield from collected(results).lines()
    for title, unit, parties in panels(results):
        yield ""
        yield f"### {title[0].upper()}{title[1:]}"
        yield ""
        memory = results["training"] if title.startswith("training") else None
        yield f"| | {unit}: median (least–greatest) |" + (" peak memory, GB |" if memory else "")
        yield "|---|---|" + ("---|" if memory else "")
        for name, values in parties.items():
            line = f"| {name} | {spread(values)} |"
            if memory:
                line += f" {statistics.median(memory[name]['peak']) / 1e9:.1f} |"
            yield line
    if "text" in results:
        text = results["text"]
        yield ""
        yield (f"Memory was read at {spread([value / 1e9 for value in text['bandwidth']])} GB/s. "
               "Weights that a decoding step of batch 1 reads, and the bandwidth that its time "
               "makes of them:")
        yield ""
        yield "| | MB | GB/s | share |"
        yield "|---|---|---|---|"
        for name, size in text["bytes"].items():
            rates = [size / value for value in text["decode 1"][name]]
            share = statistics.median([a / b for a, b in zip(rates, text["bandwidth"])])
            yield (f"| {name} | {size / 1e6:.0f} | "
                   f"{figure(statistics.median(rates) / 1e9)} | {share:.0%} |")
    if results.get("pipeline"):
        pipeline = results["pipeline"]
        yield ""
        yield "### Pipelined training"
        yield ""
        yield ("A small model in two language stages, a thread each, under 1F1B; one process has "
               f"two threads. {pipeline['samples']} samples a step.")
        yield ""
        yield "| | s a step: median (least–greatest) |"
        yield "|---|---|"
        for key, name in (("pipelined", "two stages, 1F1B"), ("serial", "two stages, one after "
                          "the other"), ("alone", "one process")):
            yield f"| {name} | {spread(pipeline[key])} |"
    if results.get("mesh"):
        yield ""
        yield "### Mesh and one process"
        yield ""
        yield ("One answer about a picture, through a gateway with a vision encoder, a projector "
               "and a language model in processes of their own, and in one process.")
        yield ""
        yield "| s | one process | mesh |"
        yield "|---|---|---|"
        for part, seconds in results["mesh"].items():
            yield f"| {part} | {spread(seconds['one process'])} | {spread(seconds['mesh'])} |"
    if results.get("wire"):
        wire = results["wire"]
        yield ""
        yield (f"A small call's round trip over a Unix socket: {figure(wire['round_trip_us'])} µs "
               f"(a bare socket pair: {figure(wire['bare_round_trip_us'])} µs). 29 MB handed to "
               f"the next stage cost {figure(wire['in_place_us'])} µs of processor, both ends "
               f"together, where they lie, {figure(wire['copied_us'])} µs copied into the arena, "
               f"{figure(wire['stream_us'])} µs in the stream.")
    if "check" in results:
        yield from _check(results)


def _settings(conditions, training):
    gib = conditions["memory"] / 2**30
    yield (f"Measured on {conditions['date']}, at commit {conditions['commit']}: "
           f"{conditions['processor']}, {conditions['processors']} processors "
           f"({', '.join(conditions['instructions'])}), {gib:.0f} GiB, Linux "
           f"{conditions['kernel']}. Every party has {conditions['threads']} threads; medians of "
           f"{conditions['rounds']} rounds in which all take turns, after one that does not count"
           + (f"; of training, {len(training['Chiasm']['seconds'])} rounds."
              if "Chiasm" in training else "."))
    yield ""
    yield "| party | version | settings |"
    yield "|---|---|---|"
    yield ("| Chiasm | this commit | float32 sums; weights in bf16, or as `chiasm quantize` writes "
           f"them; bf16 cache; *rounded*: `--device cpu:bf16`; training in float32, `recompute "
           f"{conditions['recompute']}` |")
    yield (f"| PyTorch | {conditions['torch']}, Python {conditions['python']} | the model in "
           "torch's own operations: scaled_dot_product_attention, rms_norm, joined q, k, v and "
           "gate, up; inference_mode; a cache made beforehand; training in float32 with fused "
           "AdamW, the whole model, gradients clipped; further rows: checkpointing of every "
           "layer, bf16 autocast |")
    yield (f"| llama.cpp | of llama-cpp-python {conditions['llama-cpp-python']}, built here | its C "
           "interface without sampling; flash attention on, micro-batches of 512, F16 cache; "
           f"quantised by its own quantiser with its defaults; {conditions['ggml'].rstrip(' |')} |")


def _check(results):
    check = results["check"]
    yield ""
    yield "### Do all compute the same?"
    yield ""
    yield ("Greatest differences to PyTorch in float32, over the logits of the prompt (standard "
           f"deviation {check['logits_deviation']:.2f}) and the rows of the picture "
           f"({check['rows_deviation']:.2f}). llama.cpp takes layer norms where a vision encoder "
           "of this width has RMS norms, which cost the same; its rows are compared with "
           "PyTorch's with layer norms. Random weights make logits that lie close together: "
           "quantised weights change the greatest of them far more often than a trained model's.")
    yield ""
    yield "| | logits | greatest logit is the same | image rows |"
    yield "|---|---|---|---|"
    for name, entry in check["differences"].items():
        rows = f"{entry['rows']:.2g}" if "rows" in entry else "–"
        yield f"| {name} | {entry['logits']:.2g} | {entry['top1']:.1%} | {rows} |"
    if "training" in results:
        yield ""
        yield ("Loss and gradient norm of the first step of training: "
               + "; ".join(f"{name} {entry['loss'][0][0]:.6g} and {entry['norm'][0][0]:.6g}"
                           for name, entry in results["training"].items())
               + ". PyTorch adds the norm's squares up in float32, Chiasm in float64.")


# The picture: a panel for each kind of work, a bar for each party.

COLOURS = {"Chiasm": "#c8553d", "PyTorch": "#8d99ae", "llama.cpp": "#588b8b"}


def svg(results):
    bar, gap, left, width, columns = 16, 34, 160, 250, 2
    column = left + width + 70
    bodies, heights = [], [0] * columns
    for title, unit, parties in panels(results):
        at = heights.index(min(heights))
        x, y = at * column + 16, heights[at] + 24
        greatest = max(statistics.median(values) for values in parties.values())
        lines = [f'<text x="{x}" y="{y}" class="title">{escape(title)}, {escape(unit)}</text>']
        for index, (name, values) in enumerate(parties.items()):
            top = y + 10 + index * (bar + 4)
            middle = statistics.median(values)
            length = max(1, width * middle / greatest)
            colour = next(value for key, value in COLOURS.items() if name.startswith(key))
            lines.append(
                f'<text x="{x + left - 6}" y="{top + 12}" class="name">{escape(name)}</text>'
                f'<rect x="{x + left}" y="{top}" width="{length:.1f}" height="{bar}" '
                f'fill="{colour}"/>'
                f'<text x="{x + left + length + 5:.1f}" y="{top + 12}">{figure(middle)}</text>')
        bodies += lines
        heights[at] = y + 10 + len(parties) * (bar + 4) + gap - 24
    full_width, full_height = columns * column + 16, max(heights)
    style = ("text{font:12px sans-serif;fill:#333}.title{font-weight:bold}"
             ".name{text-anchor:end}")
    return (f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {full_width} {full_height}" '
            f'width="{full_width}" height="{full_height}"><style>{style}</style>'
            f'<rect width="100%" height="100%" fill="#fff"/>\n' + "\n".join(bodies) + "\n</svg>\n")


def write(results, docs):
    if "conditions" not in results:
        raise SystemExit("make bench: nothing has been measured yet")
    text = "\n".join(markdown(results))
    path = docs / "benchmarks.md"
    whole = path.read_text() if path.exists() else (
        "# Benchmarks\n\nChiasm beside PyTorch and llama.cpp: the same weights, the same work, in "
        "turn, in one run of `make bench`.\n\n## Results\n\n" + f"{BEGIN}\n{END}\n")
    head, rest = whole.split(BEGIN, 1)
    tail = rest.split(END, 1)[1]
    path.write_text(f"{head}{BEGIN}\n\n{text}\n\n{END}{tail}")
    (docs / "benchmarks.svg").write_text(svg(results))
    for title, unit, parties in panels(results):
        print(f"\n{title}, {unit}")
        for name, values in parties.items():
            print(f"  {name:24} {spread(values)}")
    print("\nratios, median (least–greatest)")
    for what, values, target, reached in collected(results).rows:
        verdict = "" if reached is None else f"{target}: {'reached' if reached else 'MISSED'}"
        print(f"  {what:66} {values:22} {verdict}")
    print(f"\nwritten: {path}, {docs / 'benchmarks.svg'}", file=sys.stderr)
