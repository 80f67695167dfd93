"""How many requests a capture and a restore cost, counted between the client and the server.

    requests.py HINDSIGHT [--objects N]

Small objects on one SeaweedFS, a tenth of them with tags. Everything goes through proxies on loopback that count what they
pass on: one before the protected bucket, one before the vault where that is an S3 bucket too. The figures do not depend on
how fast the machine is. Needs botocore: run it with the Python of the test tools.
"""

import argparse
import os
import re
import subprocess
import sys
import tempfile
import threading
from pathlib import Path
from socket import SHUT_WR, create_connection, create_server

import botocore.session

from objects import OBJECTS_PER_FOLDER, Bench, write_files
from server import Server

REQUEST = re.compile(rb"(GET|HEAD|PUT|POST|DELETE) \S+ HTTP/1\.1\r\n")
# No request line is longer than this: it may be cut in two by the end of what was received.
LINE_BYTES_MAX = 4096
PIECE_BYTES = 1 << 16


class Counter:
    """A proxy before a server: counts requests by method, and the bytes of both directions."""

    def __init__(self, endpoint):
        self.behind = ("127.0.0.1", int(endpoint.rsplit(":", 1)[1]))
        self.listener = create_server(("127.0.0.1", 0))
        self.endpoint = f"http://127.0.0.1:{self.listener.getsockname()[1]}"
        self.lock = threading.Lock()
        self.reset()
        threading.Thread(target=self.accept, daemon=True).start()

    def reset(self):
        self.requests = {}

    def accept(self):
        while True:
            client, _ = self.listener.accept()
            server = create_connection(self.behind)
            threading.Thread(target=self.pass_on, args=(client, server, self.count), daemon=True).start()
            threading.Thread(target=self.pass_on, args=(server, client, lambda rest, piece: b""), daemon=True).start()

    def pass_on(self, giver, taker, heard):
        rest = b""
        try:
            while piece := giver.recv(PIECE_BYTES):
                rest = heard(rest, piece)
                taker.sendall(piece)
            taker.shutdown(SHUT_WR)
        except OSError:
            # Whoever hung up knows why.
            pass

    def count(self, rest, piece):
        """Counts the request lines that end within `piece`; gives back what may be the beginning of the next."""
        text = rest + piece
        end = 0
        with self.lock:
            for found in REQUEST.finditer(text):
                method, end = found[1].decode(), found.end()
                self.requests[method] = self.requests.get(method, 0) + 1
        return text[max(end, len(text) - LINE_BYTES_MAX):]

    def told(self, objects):
        with self.lock:
            total, parts = sum(self.requests.values()), dict(sorted(self.requests.items()))
        return f"{total / objects:.3f} requests an object ({', '.join(f'{method} {count}' for method, count in parts.items())})"


def tag_every_tenth(server, count):
    os.environ.update(server.facts)
    s3 = botocore.session.get_session().create_client("s3", endpoint_url=server.endpoint)
    for index in range(0, count, 10):
        key = f"{index // OBJECTS_PER_FOLDER:04}/image-{index:07}.jpg"
        s3.put_object_tagging(Bucket="source", Key=key, Tagging={"TagSet": [{"Key": "team", "Value": "a"}]})


def main():
    options = argparse.ArgumentParser()
    options.add_argument("hindsight")
    options.add_argument("--objects", type=int, default=5_000)
    options = options.parse_args()
    count = options.objects
    with tempfile.TemporaryDirectory() as folder, Server("seaweedfs") as server:
        folder = Path(folder)
        bench = Bench(options.hindsight, server, folder, count)
        files = folder / "files"
        write_files(files, count)
        for bucket in ("source", "vault"):
            bench.make_bucket(bucket)
        bench.aws("put-bucket-versioning", "--bucket", "source", "--versioning-configuration", "Status=Enabled")
        bench.read(*bench.s5cmd, "cp", f"{files}/", "s3://source/")
        tag_every_tenth(server, count)
        source, vault = Counter(server.endpoint), Counter(server.endpoint)
        bench.environment["AWS_ENDPOINT_URL"] = source.endpoint
        config = folder / "hindsight.toml"
        bench.environment["HINDSIGHT_CONFIG"] = str(config)
        for what, tags, words in (
            ("ACLs off, tags where they are counted", "counted", ["--no-acls"]),
            ("ACLs on, tags where they are counted", "counted", []),
            ("ACLs on, tags always asked for", "always", []),
        ):
            name = f"{tags}-{len(words)}"
            config.write_text(
                f'[endpoints.default]\nurl = "{source.endpoint}"\ntags = "{tags}"\n'
                f'[endpoints.vault]\nurl = "{vault.endpoint}"\n'
                f'[vaults.main]\nurl = "s3://vault/{name}"\nendpoint = "vault"\n'
            )
            bench.read(bench.hindsight, "protect", "s3://source", "--vault", "main", "--events", "list", *words)
            source.reset(), vault.reset()
            bench.read(bench.hindsight, "reconcile", "s3://source", "--vault", "main")
            print(f"capture, {what}: of the bucket {source.told(count)}; of the vault {vault.told(count)}", flush=True)
            target = f"restored-{name}"
            bench.make_bucket(target)
            source.reset(), vault.reset()
            bench.read(bench.hindsight, "restore", "s3://source", "--vault", "main", "--to", "latest", "--target", f"s3://{target}", "--yes")
            print(f"restore, {what}: of the bucket {source.told(count)}; of the vault {vault.told(count)}", flush=True)


if __name__ == "__main__":
    try:
        sys.exit(main())
    except subprocess.CalledProcessError as error:
        raise SystemExit(f"{error}: {(error.stdout or b'').decode()[-1000:]}{(error.stderr or b'').decode()[-1000:]}")
