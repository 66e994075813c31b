"""Makes the benchmark's Python environment. Needs nothing but Python itself.

pip's own configuration says where packages come from. PyTorch is taken without CUDA where pip can
find such a wheel (its local version is "+cpu"); llama.cpp is built on this machine, for it.
"""

import json
import os
import shutil
import subprocess
import sys
import venv
from pathlib import Path

TORCH = "2.13.0"
PACKAGES = ["numpy>=2,<3", "gguf>=0.17,<0.20"]
LLAMA = "llama-cpp-python==0.3.36"
NEEDED_BYTES = 20 << 30


def fail(text):
    raise SystemExit(f"make bench: {text}")


def pip(python, *arguments, environment=None, quiet=False):
    command = [python, "-m", "pip", "--disable-pip-version-check", "install", "-q", *arguments]
    output = subprocess.DEVNULL if quiet else None
    return subprocess.run(
        command, env={**os.environ, **(environment or {})}, stderr=output).returncode == 0


def main():
    root = Path(sys.argv[1])
    wanted = {"torch": TORCH, "packages": PACKAGES, "llama": LLAMA, "python": sys.version}
    stamp = root / "venv" / "installed.json"
    if stamp.exists() and json.loads(stamp.read_text()) == wanted:
        return
    if sys.version_info < (3, 10):
        fail(f"Python is {sys.version.split()[0]}; 3.10 or later is needed")
    root.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(root).free
    if free < NEEDED_BYTES:
        fail(f"{root} has {free >> 30} GiB of disk left; the peers and the models in their "
             f"formats take {NEEDED_BYTES >> 30} GiB")
    for tool in ("cc", "c++"):
        if not shutil.which(tool):
            fail(f"llama.cpp is built here, and {tool} is missing (Debian: build-essential)")
    try:
        venv.create(root / "venv", with_pip=True, clear=True)
    except (subprocess.CalledProcessError, ImportError, OSError) as error:
        fail(f"no virtual environment can be made ({error}); Debian has it in python3-venv")
    python = str(root / "venv" / "bin" / "python")
    hint = ("see pip's words above; without a network make bench-quick measures Chiasm alone, "
            "and pip's own settings (pip config) can name a mirror")
    print("Installing numpy and gguf", file=sys.stderr)
    if not pip(python, *PACKAGES):
        fail(f"numpy and gguf cannot be installed: {hint}")
    print("Installing PyTorch", file=sys.stderr)
    if not pip(python, f"torch=={TORCH}+cpu", quiet=True):
        print("pip finds no PyTorch without CUDA; taking the whole one", file=sys.stderr)
        if not pip(python, f"torch=={TORCH}"):
            fail(f"PyTorch cannot be installed: {hint}")
    print("Building llama.cpp for this machine, which takes some minutes", file=sys.stderr)
    if not pip(python, "--no-binary", "llama-cpp-python", LLAMA,
               environment={"CMAKE_ARGS": "-DGGML_NATIVE=ON " + os.environ.get("CMAKE_ARGS", "")}):
        fail(f"llama-cpp-python cannot be installed: {hint}")
    stamp.write_text(json.dumps(wanted))


if __name__ == "__main__":
    main()
