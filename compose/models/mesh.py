"""A mesh of one process for each part, and questions to its gateway: what the scorers share."""
import json
import os
import subprocess
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
        if any(process.poll() is not None for process in processes):
            raise SystemExit("a service ended before it listened")
        time.sleep(0.1)
    gateway = subprocess.Popen(
        [f"{options.bin}/chiasm-gateway", "--model", options.model, "--stdio", "--log-level",
         "error"] + [f"--{name}={address}" for name, address in addresses.items()],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    return processes, gateway


def ask(gateway, questions, max_tokens, window=32):
    """Greedy answers to (picture, question), a few of them under way at a time."""
    answers = {}
    for sent in range(len(questions) + window):
        if sent < len(questions):
            image, question = questions[sent]
            gateway.stdin.write(json.dumps(
                {"id": str(sent), "messages": [{"role": "user", "content": question}],
                 "images": [image], "max_tokens": max_tokens, "temperature": 0},
                ensure_ascii=False) + "\n")
            gateway.stdin.flush()
        if sent >= window - 1 and len(answers) < len(questions):
            reply = json.loads(gateway.stdout.readline())
            answers[int(reply["id"])] = reply.get("text", f"error: {reply.get('error')}")
    while len(answers) < len(questions):
        reply = json.loads(gateway.stdout.readline())
        answers[int(reply["id"])] = reply.get("text", f"error: {reply.get('error')}")
    return [answers[index] for index in range(len(questions))]
