#!/usr/bin/env python3
"""Fetches the free picture sets, fonts and words, and writes the NOTICE.

Packages come from Debian and the Python package index by their ordinary clients and are unpacked
into a folder, never installed. Each is compared with checksums.txt, where it is named, and its own
licence file must still say what sources.json expects.

  ./fetch.py --out SOURCES
"""
import argparse
import hashlib
import json
import os
import re
import subprocess
import sys
import zipfile
from pathlib import Path

HERE = Path(__file__).resolve().parent


def fetch_debian(source, downloads, out):
    """Downloads and unpacks a Debian package; returns its file and its licence's text."""
    name = source["package"]
    folder = out / "debian" / name
    found = sorted(downloads.glob(f"{name}_*.deb"))
    if not found:
        subprocess.run(["apt-get", "download", "-q", name], cwd=downloads, check=True)
        found = sorted(downloads.glob(f"{name}_*.deb"))
    if not folder.exists():
        folder.parent.mkdir(parents=True, exist_ok=True)
        subprocess.run(["dpkg-deb", "-x", str(found[-1]), str(folder)], check=True)
    return found[-1], (folder / f"usr/share/doc/{name}/copyright").read_text(errors="replace")


def fetch_pypi(source, downloads, out):
    """Downloads and unpacks a wheel; returns its file and its licence's text."""
    name = source["package"].replace("-", "_")
    pattern = f"{name}-{source['version']}-*.whl"
    if not list(downloads.glob(pattern)):
        subprocess.run(
            [sys.executable, "-m", "pip", "download", "-q", "--no-deps",
             f"{source['package']}=={source['version']}"], cwd=downloads, check=True)
    wheel = next(downloads.glob(pattern))
    folder = out / "pypi" / name
    if not folder.exists():
        with zipfile.ZipFile(wheel) as archive:
            archive.extractall(folder)
    return wheel, (folder / source["file"]).read_text(errors="replace")


def digest(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


def known_digests():
    path = HERE / "checksums.txt"
    if not path.exists():
        return {}
    return {name: value for value, name in (line.split() for line in path.open())}


def notice(sources):
    """What has to be said of those whose work was used."""
    lines = ["The pictures and words that this model was trained on were drawn from", ""]
    for use, title in [("train", None), ("test", "Used for evaluation alone:")]:
        if title:
            lines += ["", title, ""]
        for source in sources:
            if source["use"] == use:
                lines += [f"  {source['file_name']}", f"    {source['says']}"]
    lines += ["",
              "None of these files is part of this folder. Pictures made with those of the first",
              "list are: mistakes.jpg here, and those of Tests/Fixtures/iris. The licences in full",
              "are in the packages named."]
    return "\n".join(lines) + "\n"


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", required=True, type=Path)
    parser.add_argument("--write-checksums", action="store_true")
    options = parser.parse_args()
    downloads = options.out / "downloads"
    downloads.mkdir(parents=True, exist_ok=True)
    known = known_digests()
    all_sources, digests = [], []
    declared = json.loads((HERE / "sources.json").read_text())
    for kind, fetch in [("debian", fetch_debian), ("pypi", fetch_pypi)]:
        for source in declared[kind]:
            file, licence = fetch(source, downloads, options.out)
            if not re.search(source["licence"], licence):
                sys.exit(f"{file.name}: its licence file does not say “{source['licence']}” any "
                         "more; read it, and change sources.json or leave the package out")
            value = digest(file)
            if known.get(file.name, value) != value and not options.write_checksums:
                sys.exit(f"{file.name}: SHA-256 is {value}, and not {known[file.name]} as in "
                         "checksums.txt; take it away to fetch it again")
            if file.name not in known and not options.write_checksums:
                print(f"{file.name}: another version than in checksums.txt; pictures may differ",
                      file=sys.stderr)
            digests.append(f"{value}  {file.name}")
            all_sources.append({**source, "file_name": file.name})
    if options.write_checksums:
        (HERE / "checksums.txt").write_text("\n".join(digests) + "\n")
    (options.out / "NOTICE").write_text(notice(all_sources))
    print(f"{len(all_sources)} packages in {options.out}")


if __name__ == "__main__":
    os.umask(0o022)
    main()
