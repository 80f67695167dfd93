"""Real servers for the benchmarks, as the tests start them."""

import os
import subprocess
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
TOOLS = Path(os.environ.get("HINDSIGHT_TOOLS", ROOT / ".cache" / "tools"))


class Server:
    """A server that is gone when its standard input is closed, however this process ends."""

    def __init__(self, name):
        self.name = name

    def __enter__(self):
        command = ["bash", str(ROOT / "tests/src/services/run.sh"), self.name]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.facts = {}
        for line in self.process.stdout:
            if line.strip() == "# ready":
                self.endpoint = self.facts.get("AWS_ENDPOINT_URL")
                return self
            name, _, value = line.strip().partition("=")
            self.facts[name] = value
        raise SystemExit(f"{self.name} did not start")

    def __exit__(self, *_):
        self.process.stdin.close()
        self.process.wait()
