"""What one large object costs: copied by the server, and read.

    large.py HINDSIGHT [--mib N]

An object of random bytes, uploaded in parts of 16 MiB to a versioned bucket on SeaweedFS, is captured and restored into another
bucket and into a directory: with a vault at the same server, where the server copies it; with the same, and `server_copies`
switched off; and with a local vault. Of each the seconds, the CPU time and the peak memory of the client, and the bytes that
went between it and the server in either direction, counted by a proxy on loopback. What was restored is compared by SHA-256.
"""

import argparse
import hashlib
import subprocess
import sys
import tempfile
from pathlib import Path

from objects import Bench
from requests import Counter
from server import Server

PIECE_BYTES = 1 << 20
PART_MIB = 16


class Weighing(Counter):
    """Counts the bytes as well."""

    def reset(self):
        super().reset()
        self.bytes = 0

    def pass_on(self, giver, taker, heard):
        def heard_and_weighed(rest, piece):
            with self.lock:
                self.bytes += len(piece)
            return heard(rest, piece)

        super().pass_on(giver, taker, heard_and_weighed)


def write_file(path, mib):
    """Random bytes, and their SHA-256."""
    digest = hashlib.sha256()
    with open("/dev/urandom", "rb") as random, open(path, "wb") as file:
        for _ in range(mib):
            piece = random.read(PIECE_BYTES)
            digest.update(piece)
            file.write(piece)
    return digest.hexdigest()


def sha256(file):
    digest = hashlib.sha256()
    while piece := file.read(PIECE_BYTES):
        digest.update(piece)
    return digest.hexdigest()


def restored_digest(bench, target):
    if not target.startswith("s3://"):
        with open(bench.folder / target / "large", "rb") as file:
            return sha256(file)
    command = [*bench.s5cmd, "cat", f"{target}/large"]
    with subprocess.Popen(command, env=bench.environment, stdout=subprocess.PIPE) as reader:
        return sha256(reader.stdout)


def main():
    options = argparse.ArgumentParser()
    options.add_argument("hindsight")
    options.add_argument("--mib", type=int, default=1024)
    options = options.parse_args()
    with tempfile.TemporaryDirectory() as folder, Server("seaweedfs") as server:
        folder = Path(folder)
        bench = Bench(options.hindsight, server, folder, 1)
        expected = write_file(folder / "large", options.mib)
        for bucket in ("source", "vault"):
            bench.make_bucket(bucket)
        bench.aws("put-bucket-versioning", "--bucket", "source", "--versioning-configuration", "Status=Enabled")
        bench.read(*bench.s5cmd, "cp", "--part-size", PART_MIB, folder / "large", "s3://source/large")
        (folder / "large").unlink()
        proxy = Weighing(server.endpoint)
        config = folder / "hindsight.toml"
        bench.environment["HINDSIGHT_CONFIG"] = str(config)
        bench.environment["AWS_ENDPOINT_URL"] = proxy.endpoint
        sources = "\n".join(f'[vaults.{name}]\nurl = "{url}"\nserver_copies = "{copies}"' for name, url, copies in (
            ("copied", "s3://vault/copied", "large"), ("read", "s3://vault/read", "none"), ("local", "./vault", "none")))
        config.write_text(f'{sources}\n[endpoints.default]\nurl = "{proxy.endpoint}"\n')

        def show(what, vault, *command):
            proxy.reset()
            used = bench.run(bench.hindsight, *command, "--vault", vault)
            print(f"{what}: {used.seconds:.1f} s, {used.cpu:.2f} s of CPU, peak {used.peak_mib:.0f} MiB, "
                  f"{proxy.bytes / PIECE_BYTES:,.1f} MiB over the wire in {sum(proxy.requests.values())} requests", flush=True)

        for vault in ("copied", "read", "local"):
            bench.read(bench.hindsight, "protect", "s3://source", "--vault", vault, "--events", "list")
            show(f"{vault}: capture of {options.mib} MiB", vault, "reconcile", "s3://source")
            for target in (f"s3://restored-{vault}", f"out-{vault}"):
                if target.startswith("s3://"):
                    bench.make_bucket(target.removeprefix("s3://"))
                show(f"{vault}: restore to {target}", vault, "restore", "s3://source", "--to", "latest", "--target", target)
                if restored_digest(bench, target) != expected:
                    raise SystemExit(f"{target} is another content")
            bench.read(bench.hindsight, "unprotect", "s3://source", "--vault", vault)


if __name__ == "__main__":
    try:
        sys.exit(main())
    except subprocess.CalledProcessError as error:
        raise SystemExit(f"{error}: {(error.stdout or b'').decode()[-1000:]}{(error.stderr or b'').decode()[-1000:]}")
