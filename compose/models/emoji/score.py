#!/usr/bin/env python3
"""Asks a trained model about held-out pictures through a mesh, and counts exact answers.

  ./score.py --model /tmp/emoji-run/checkpoint-1000 --data /tmp/emoji --bin .build/release

"blind" asks the same questions about another picture: what knowing the questions alone gives.
"""
import argparse
import collections
import json
import os
import subprocess
import tempfile
import time


def start(options, folder):
    """A vision encoder, a projector and a language model, and a gateway on standard streams."""
    addresses = {name: f"unix:{folder}/{name}" for name in ["vision", "projector", "language"]}
    stages = [("language", []), ("projector", ["--next", addresses["language"]]),
              ("vision", ["--next", addresses["projector"]])]
    processes = [
        subprocess.Popen([f"{options.bin}/chiasm-{name}", "--model", options.model, "--threads",
                          "1", "--listen", addresses[name], "--log-level", "error", *more])
        for name, more in stages]
    while not all(os.path.exists(f"{folder}/{name}") for name in addresses):
        time.sleep(0.1)
    gateway = subprocess.Popen(
        [f"{options.bin}/chiasm-gateway", "--model", options.model, "--stdio", "--log-level",
         "error"] + [f"--{name}={address}" for name, address in addresses.items()],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    return processes, gateway


def ask(gateway, questions):
    answers = {}
    window = 16
    for sent in range(len(questions) + window):
        if sent < len(questions):
            image, question = questions[sent]
            gateway.stdin.write(json.dumps(
                {"id": str(sent), "messages": [{"role": "user", "content": question}],
                 "images": [image], "max_tokens": 16}, ensure_ascii=False) + "\n")
            gateway.stdin.flush()
        if sent >= window - 1 and len(answers) < len(questions):
            reply = json.loads(gateway.stdout.readline())
            answers[int(reply["id"])] = reply.get("text", f"error: {reply.get('error')}")
    return [answers[index] for index in range(len(questions))]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", required=True)
    parser.add_argument("--data", required=True)
    parser.add_argument("--bin", default=".build/release")
    parser.add_argument("--mistakes", type=int, default=10)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        processes, gateway = start(options, folder)
        try:
            for name in ["seen", "unseen"]:
                with open(f"{options.data}/{name}-questions.jsonl", encoding="utf-8") as file:
                    rows = [json.loads(line) for line in file]
                asked = [(f"{options.data}/{r['image']}", r["question"]) for r in rows]
                # The picture of a question half the set away.
                swapped = [(asked[(i + len(rows) // 2) % len(rows)][0], q)
                           for i, (_, q) in enumerate(asked)]
                answers, blind = ask(gateway, asked), ask(gateway, swapped)
                report(name, rows, answers, blind, options.mistakes)
        finally:
            gateway.stdin.close()
            gateway.wait()
            for process in processes:
                process.terminate()
                process.wait()


def report(name, rows, answers, blind, mistakes):
    table = collections.defaultdict(lambda: [0, 0, 0])
    wrong = []
    for row, answer, swapped in zip(rows, answers, blind):
        cell = table[row["task"], row["language"]]
        cell[0] += 1
        cell[1] += answer.strip() == row["answer"]
        cell[2] += swapped.strip() == row["answer"]
        if answer.strip() != row["answer"]:
            wrong.append((row, answer))
    print(f"\npairs of thing and colour {'that were trained on' if name == 'seen' else 'never seen'}"
          ", in new pictures")
    print(f"{'task':8} {'':2} {'asked':>6} {'right %':>8} {'blind %':>8}")
    for (task, language), (count, right, guessed) in sorted(table.items()):
        print(f"{task:8} {language} {count:6} {100 * right / count:8.1f} "
              f"{100 * guessed / count:8.1f}")
    for row, answer in wrong[:: max(1, len(wrong) // max(1, mistakes))][:mistakes]:
        print(f"  {row['image']}: {row['question']} {answer!r}, expected {row['answer']!r}")


if __name__ == "__main__":
    main()
