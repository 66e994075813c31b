"""Processes that are measured in turn."""

import json
import os
import select
import subprocess
from pathlib import Path


class PartyFailure(Exception):
    pass


class Party:
    """A process that does what a line names, and waits. See work.py for what it says."""

    def __init__(self, name, command, log, environment=None):
        self.name, self.command, self.log = name, [str(word) for word in command], Path(log)
        self.environment = environment or {}
        self.process = None
        self._pending = b""

    def start(self, seconds=600):
        self._errors = open(self.log, "wb")
        self.process = subprocess.Popen(
            self.command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._errors,
            env={**os.environ, **self.environment})
        self._pending = b""
        self._line(seconds, "starting")
        return self

    def ask(self, work, seconds=900):
        """Does the work, and returns what the party has to say of it."""
        try:
            self.process.stdin.write(f"{work}\n".encode())
            self.process.stdin.flush()
        except BrokenPipeError:
            pass
        answer = self._line(seconds, work)
        if "error" in answer:
            raise PartyFailure(f"{self.name}, at \"{work}\": {answer['error']}")
        return answer

    def stop(self):
        if self.process is None:
            return
        try:
            self.process.stdin.close()
            self.process.wait(60)
        except (BrokenPipeError, subprocess.TimeoutExpired):
            self.process.kill()
            self.process.wait()
        self._errors.close()
        self.process = None

    def peak_memory(self):
        """The greatest resident memory of the process and its descendants so far, in bytes:
        each one's own greatest, added up."""
        return sum(_status(process, "VmHWM") for process in _tree(self.process.pid))

    def _line(self, seconds, work):
        while b"\n" not in self._pending:
            if not select.select([self.process.stdout], [], [], seconds)[0]:
                raise PartyFailure(f"{self.name} took more than {seconds} s for \"{work}\"")
            data = os.read(self.process.stdout.fileno(), 65536)
            if not data:
                status = self.process.wait()
                said = self.log.read_text(errors="replace").strip().splitlines()[-5:]
                reason = ("it was killed, perhaps for want of memory" if status == -9
                          else f"it ended with status {status}")
                raise PartyFailure(
                    f"{self.name}, at \"{work}\": {reason}; in {self.log}: " + "\n".join(said))
            self._pending += data
        line, self._pending = self._pending.split(b"\n", 1)
        return json.loads(line)


def _status(process, field):
    try:
        for line in Path(f"/proc/{process}/status").read_text().splitlines():
            if line.startswith(field + ":"):
                return int(line.split()[1]) * 1024
    except OSError:
        pass
    return 0


def _tree(root):
    parents = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                text = (entry / "stat").read_text()
                parents[int(entry.name)] = int(text.rsplit(")", 1)[1].split()[1])
            except OSError:
                pass
    found = [root]
    for process in found:
        found += [child for child, parent in parents.items() if parent == process]
    return found
