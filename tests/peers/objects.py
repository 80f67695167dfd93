"""Capture and restore of many small objects beside s5cmd, on one SeaweedFS.

    objects.py HINDSIGHT [--objects N] [--rounds N]

Both tools do the same work on the same server in turn: all objects of a bucket to this machine, and back into a bucket
that is new. s5cmd keeps files in a directory; Hindsight keeps a vault, which is also checked, ordered and packed. For
each the rate and the CPU time of the client process count, as medians of the rounds' ratios; the server's own time is
shared by both. A restored bucket is compared with the first one by key and MD5.
"""

import argparse
import json
import os
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from measured import Measured
from server import TOOLS, Server

OBJECT_BYTES = 1024
OBJECTS_PER_FOLDER = 1000


def write_files(folder, count):
    """Files of random bytes: nothing here compresses or repeats."""
    numbers = random.Random(1)
    for first in range(0, count, OBJECTS_PER_FOLDER):
        place = folder / f"{first // OBJECTS_PER_FOLDER:04}"
        place.mkdir(parents=True)
        for index in range(first, min(first + OBJECTS_PER_FOLDER, count)):
            (place / f"image-{index:07}.jpg").write_bytes(numbers.randbytes(OBJECT_BYTES))


class Bench:
    def __init__(self, hindsight, server, folder, objects):
        self.hindsight, self.folder, self.objects = str(Path(hindsight).resolve()), folder, objects
        self.environment = {**os.environ, **server.facts, "HOME": str(folder)}
        self.s5cmd = [str(TOOLS / "s3/bin/s5cmd"), "--endpoint-url", server.endpoint]

    def run(self, *command):
        return Measured([str(word) for word in command], self.environment, self.folder)

    def read(self, *command):
        return subprocess.run([str(word) for word in command], env=self.environment, cwd=self.folder, check=True, capture_output=True).stdout

    def aws(self, *words):
        return self.read(TOOLS / "s3/bin/aws", "--endpoint-url", self.environment["AWS_ENDPOINT_URL"], "s3api", *words)

    def make_bucket(self, name):
        self.aws("create-bucket", "--bucket", name)

    def listing(self, bucket):
        """Key and size and MD5 of everything in a bucket."""
        lines = self.read(*self.s5cmd, "--json", "ls", "--etag", f"s3://{bucket}/*").decode().splitlines()
        found = [json.loads(line) for line in lines]
        return sorted((entry["key"].partition(f"//{bucket}/")[2], entry["size"], entry["etag"]) for entry in found)

    def vault_files(self, vault):
        return sum(len(files) for _, _, files in os.walk(vault))

    def capture(self, round):
        vault = self.folder / f"vault-{round}"
        self.read(self.hindsight, "protect", "s3://source", "--vault", vault, "--events", "list", "--no-acls")
        ours = self.run(self.hindsight, "reconcile", "s3://source", "--vault", vault)
        copy = self.folder / "copy"
        theirs = self.run(*self.s5cmd, "cp", "s3://source/*", f"{copy}/")
        shutil.rmtree(copy)
        return vault, ours, theirs

    def restore(self, round, vault, files):
        ours_to, theirs_to = f"ours-{round}", f"theirs-{round}"
        self.make_bucket(ours_to)
        self.make_bucket(theirs_to)
        ours = self.run(self.hindsight, "restore", "s3://source", "--vault", vault, "--to", "latest", "--target", f"s3://{ours_to}", "--yes")
        theirs = self.run(*self.s5cmd, "cp", f"{files}/", f"s3://{theirs_to}/")
        if self.listing(ours_to) != self.listing("source"):
            raise SystemExit("the restored bucket differs")
        return ours, theirs


def show(what, count, ours, theirs):
    ratio = statistics.median(t.seconds / o.seconds for o, t in zip(ours, theirs))
    cpu = statistics.median(o.cpu / t.cpu for o, t in zip(ours, theirs))
    for name, runs in (("hindsight", ours), ("s5cmd", theirs)):
        seconds, used = statistics.median(r.seconds for r in runs), statistics.median(r.cpu for r in runs)
        peak = max(r.peak_mib for r in runs)
        print(f"{what}: {name} {count / seconds:.0f}/s ({seconds:.1f} s), {used / count * 1e6:.0f} us CPU an object, peak {peak:.0f} MiB")
    print(f"{what}: rate {ratio:.2f} times s5cmd's, CPU {cpu:.2f} times")


def main():
    options = argparse.ArgumentParser()
    options.add_argument("hindsight")
    options.add_argument("--objects", type=int, default=100_000)
    options.add_argument("--rounds", type=int, default=3)
    options = options.parse_args()
    with tempfile.TemporaryDirectory() as folder, Server("seaweedfs") as server:
        folder = Path(folder)
        bench = Bench(options.hindsight, server, folder, options.objects)
        files = folder / "files"
        write_files(files, options.objects)
        bench.make_bucket("source")
        bench.aws("put-bucket-versioning", "--bucket", "source", "--versioning-configuration", "Status=Enabled")
        bench.read(*bench.s5cmd, "cp", f"{files}/", "s3://source/")
        captures, restores = [], []
        for round in range(options.rounds):
            vault, ours, theirs = bench.capture(round)
            captures.append((ours, theirs))
            restores.append(bench.restore(round, vault, files))
            print(f"round {round + 1}: {bench.vault_files(vault)} files in the vault for {options.objects} objects", flush=True)
            shutil.rmtree(vault)
        show("capture", options.objects, *zip(*captures))
        show("restore", options.objects, *zip(*restores))


if __name__ == "__main__":
    sys.exit(main())
