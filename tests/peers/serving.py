"""A `hindsight serve` that is watched from outside."""

import os
import re
import subprocess
import time
import urllib.request

POLL_SECONDS = 0.02


class Serve:
    """A `hindsight serve`, and what it says of `latest`."""

    def __init__(self, hindsight, vault, folder, environment):
        self.errors = open(folder / "serve.log", "w+", encoding="utf-8")
        command = [hindsight, "serve", "--vault", vault, "--listen", "127.0.0.1:0", "--log-format", "json"]
        self.process = subprocess.Popen(command, env=environment, cwd=folder, stderr=self.errors)
        while not (found := re.search(r'"address":"([^"]+)"', (folder / "serve.log").read_text(encoding="utf-8"))):
            if self.process.poll() is not None:
                raise SystemExit((folder / "serve.log").read_text(encoding="utf-8"))
            time.sleep(POLL_SECONDS)
        self.metrics = f"http://{found[1]}/metrics"

    def latest(self):
        text = urllib.request.urlopen(self.metrics).read().decode()
        found = re.search(r"^hindsight_latest_timestamp_seconds\{[^}]*\} (\S+)", text, re.MULTILINE)
        return float(found[1]) if found else 0.0

    def end(self):
        self.process.terminate()
        _, status, used = os.wait4(self.process.pid, 0)
        self.process.returncode = os.waitstatus_to_exitcode(status)
        return used.ru_utime + used.ru_stime, used.ru_maxrss / 1024
