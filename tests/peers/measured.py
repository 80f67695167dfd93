"""What a process costs."""

import os
import subprocess
import time


class Measured:
    """What a process cost: seconds, CPU seconds of it and its children, and its peak memory in MiB."""

    def __init__(self, command, environment, folder):
        began = time.monotonic()
        with open(folder / "output.txt", "w+", encoding="utf-8") as output:
            process = subprocess.Popen(command, env=environment, cwd=folder, stdout=output, stderr=subprocess.STDOUT)
            _, status, used = os.wait4(process.pid, 0)
            process.returncode = os.waitstatus_to_exitcode(status)
            self.seconds = time.monotonic() - began
            if process.returncode != 0:
                output.seek(0)
                raise SystemExit(f"{command[:4]} ended with {process.returncode}: {output.read()[-2000:]}")
        self.cpu = used.ru_utime + used.ru_stime
        self.peak_mib = used.ru_maxrss / 1024
