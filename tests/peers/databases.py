"""A PostgreSQL database captured and restored, beside PostgreSQL's own tools on the same server.

    databases.py HINDSIGHT [--rows N] [--stream N] [--rate N] [--seconds N] [--rounds N]

- restore: a table with a primary key and two more indexes, of which a tenth was updated since the snapshot, into a new database;
  `pg_restore -j 2` does the same from a `pg_dump` of the custom format. Both end with all indexes made; Hindsight's time has its counting of
  the rows in it. Both results are compared with the source by a checksum of all rows.
- capture: the same changes from two slots made at one place, `pg_recvlogical` into a file and Hindsight into a local vault; from the start of
  the program until the server may let go of its log.
- latest: transactions of one row at a steady rate by pgbench, while `serve` follows. A transaction counts when `latest`, as the process
  shows it, has passed the time at which pgbench was answered.
"""

import argparse
import os
import shutil
import statistics
import subprocess
import tempfile
import time
from pathlib import Path

from measured import Measured
from server import Server
from serving import POLL_SECONDS, Serve

TABLE = """
    CREATE TABLE item (id bigint PRIMARY KEY, customer int NOT NULL, at timestamptz NOT NULL, note text NOT NULL);
    CREATE INDEX item_customer ON item (customer);
    CREATE INDEX item_at ON item (at);"""
ROWS = """
    SELECT i, i::bigint * 7919 %% 100003, timestamptz '2026-01-01' + i * interval '1 second', md5(i::text) || md5((i + 1)::text) || md5((i + 2)::text)
    FROM generate_series(%s, %s) i"""
# In transactions of so many rows the stream of the second part comes.
TRANSACTION_ROWS = 1_000
SETTLE_SECONDS = 60
CHECKSUM = "SELECT count(*), sum(hashtextextended(item::text, 0)) FROM item"


class Shop:
    """A database, and the programs that are run on it."""

    def __init__(self, hindsight, server, folder, name):
        self.hindsight, self.folder, self.name, self.vault = hindsight, folder, name, folder / f"vault-{name}"
        path = f"{server.facts['PGBIN']}:{os.environ['PATH']}"
        self.environment = {**os.environ, **server.facts, "PATH": path, "HOME": str(folder), "PGDATABASE": name}
        self.read("createdb", name)
        self.sql(TABLE)

    def read(self, *command, **more):
        ran = subprocess.run([str(word) for word in command], env=self.environment, cwd=self.folder, check=True, capture_output=True, **more)
        return ran.stdout.decode().strip()

    def run(self, *command):
        return Measured([str(word) for word in command], self.environment, self.folder)

    def sql(self, text, database=None):
        return self.read("psql", "-X", "-A", "-t", "-q", "-v", "ON_ERROR_STOP=1", "-d", database or self.name, "-c", text)

    def url(self, database=None):
        return f"postgres://{self.environment['PGUSER']}@127.0.0.1:{self.environment['PGPORT']}/{database or self.name}"

    def protect(self):
        self.read(self.hindsight, "protect", self.url(), "--vault", self.vault)

    def serve(self):
        return Serve(self.hindsight, str(self.vault), self.folder, self.environment)

    def settle(self):
        self.read(self.hindsight, "status", "--vault", self.vault, "--wait")


def restore(shop, rows, rounds):
    """The first part."""
    shop.sql("INSERT INTO item" + ROWS % (1, rows))
    shop.protect()
    serve = shop.serve()
    shop.settle()
    shop.sql("UPDATE item SET note = note || '!' WHERE id % 10 = 0")
    shop.sql("VACUUM ANALYZE item")
    shop.settle()
    _, peak = serve.end()
    size = int(shop.sql("SELECT pg_table_size('item')")) >> 20
    shop.read("pg_dump", "-Fc", "--no-publications", "-f", shop.folder / "item.dump", shop.name)
    expected, ours, theirs = shop.sql(CHECKSUM), [], []
    for round in range(rounds):
        shop.sql("CHECKPOINT")
        to = f"ours_{round}"
        resource = f"db://{shop.name}"
        ours.append(shop.run(shop.hindsight, "restore", resource, "--vault", shop.vault, "--to", "latest", "--target", shop.url(to)))
        found = shop.sql(CHECKSUM, to)
        shop.read("dropdb", to)
        shop.sql("CHECKPOINT")
        to = f"theirs_{round}"
        shop.read("createdb", to)
        theirs.append(shop.run("pg_restore", "-j", "2", "-d", to, shop.folder / "item.dump"))
        if not (found == shop.sql(CHECKSUM, to) == expected):
            raise SystemExit("the restored database differs")
        shop.read("dropdb", to)
    print(f"restore: {rows:,} rows of {size} MiB; serve took them with a peak of {peak:.0f} MiB")
    show("restore", "pg_restore", ours, theirs, lambda seconds: f"{rows / seconds:,.0f} rows/s")


def capture(shop, rows, rounds):
    """The second part."""
    shop.protect()
    serve = shop.serve()
    shop.settle()
    serve.end()
    publication = shop.sql("SELECT pubname FROM pg_publication ORDER BY length(pubname) LIMIT 1")
    slot = shop.sql("SELECT slot_name FROM pg_replication_slots WHERE database = current_database()")
    ours, theirs, sizes = [], [], []
    for round in range(rounds):
        shop.sql("SELECT pg_create_logical_replication_slot('peer', 'pgoutput')")
        first = round * rows + 1
        part = ROWS % (f"{first} + g * {TRANSACTION_ROWS}", f"{first - 1} + (g + 1) * {TRANSACTION_ROWS}")
        shop.sql(f"DO $$ BEGIN FOR g IN 0..{rows // TRANSACTION_ROWS - 1} LOOP INSERT INTO item {part}; COMMIT; END LOOP; END $$")
        end = shop.sql("SELECT pg_current_wal_lsn()")
        shop.sql("CHECKPOINT")
        file = shop.folder / "stream"
        options = ["-o", "proto_version=1", "-o", f"publication_names={publication}"]
        command = ["pg_recvlogical", "--start", "-d", shop.name, "--slot", "peer", "-E", end, "-f", file, "-F", "1", "-s", "1", *options]
        theirs.append(shop.run(*command))
        sizes.append(file.stat().st_size / 1e6)
        file.unlink()
        shop.sql("SELECT pg_drop_replication_slot('peer')")
        began = time.monotonic()
        serve = shop.serve()
        question = f"SELECT confirmed_flush_lsn >= '{end}' FROM pg_replication_slots WHERE slot_name = '{slot}'"
        while shop.sql(question) != "t":
            time.sleep(POLL_SECONDS)
        seconds = time.monotonic() - began
        cpu, peak = serve.end()
        ours.append(argparse.Namespace(seconds=seconds, cpu=cpu, peak_mib=peak))
    size = statistics.median(sizes)
    print(f"capture: {rows:,} rows in transactions of {TRANSACTION_ROWS:,}, a stream of {size:.0f} MB")
    show("capture", "pg_recvlogical", ours, theirs, lambda seconds: f"{size / seconds:.0f} MB/s")


def latest(shop, rate, seconds):
    """The third part."""
    shop.protect()
    serve = shop.serve()
    shop.settle()
    script = shop.folder / "script.sql"
    script.write_text(
        "\\set id random(1, 1000000)\n"
        "INSERT INTO item VALUES (:id, :id % 1000, now(), 'n') ON CONFLICT (id) DO UPDATE SET note = item.note || '!', at = now();\n",
        encoding="utf-8",
    )
    command = ["pgbench", "-n", "-c", "8", "-j", "1", "-R", str(rate), "-T", str(seconds), "-f", str(script), "-l", "--log-prefix", "log"]
    bench = subprocess.Popen(command, env=shop.environment, cwd=shop.folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    shown, deadline = [], time.time() + seconds + SETTLE_SECONDS
    ended = None
    while ended is None or shown[-1][1] < ended:
        if time.time() > deadline:
            raise SystemExit(f"after {SETTLE_SECONDS} s `latest` is {ended - shown[-1][1]:.1f} s behind the last transaction")
        known = serve.latest()
        shown.append((time.time(), known))
        if ended is None and bench.poll() is not None:
            ended = time.time()
        time.sleep(POLL_SECONDS)
    cpu, peak = serve.end()
    answered = []
    for log in shop.folder.glob("log.*"):
        answered.extend(float(line.split()[4]) + float(line.split()[5]) / 1e6 for line in log.read_text().splitlines())
    answered.sort()
    waits, index = [], 0
    for at in answered:
        while shown[index][1] < at:
            index += 1
        waits.append(shown[index][0] - at)
    waits.sort()
    share = lambda part: waits[min(len(waits) - 1, int(part * len(waits)))]
    print(
        f"commit to restorable at {len(waits) / seconds:.0f} transactions/s: p50 {share(0.5):.2f} s, p99 {share(0.99):.2f} s, most {waits[-1]:.2f} s, "
        f"of {len(waits)}"
    )
    print(f"serve: {cpu / len(waits) * 1e6:.0f} us CPU a transaction, peak {peak:.0f} MiB")


def show(what, peer, ours, theirs, rate):
    ratio = statistics.median(t.seconds / o.seconds for o, t in zip(ours, theirs))
    for name, runs in (("hindsight", ours), (peer, theirs)):
        seconds, cpu, peak = statistics.median(r.seconds for r in runs), statistics.median(r.cpu for r in runs), max(r.peak_mib for r in runs)
        print(f"{what}: {name} {rate(seconds)} ({seconds:.1f} s), {cpu:.1f} s of CPU, peak {peak:.0f} MiB")
    print(f"{what}: {ratio:.2f} times as fast as {peer}", flush=True)


def main():
    options = argparse.ArgumentParser()
    options.add_argument("hindsight")
    options.add_argument("--rows", type=int, default=2_000_000)
    options.add_argument("--stream", type=int, default=1_000_000)
    options.add_argument("--rate", type=int, default=1_000)
    options.add_argument("--seconds", type=int, default=60)
    options.add_argument("--rounds", type=int, default=3)
    options.add_argument("--only", choices=["restore", "capture", "latest"])
    options = options.parse_args()
    hindsight = str(Path(options.hindsight).resolve())
    parts = {
        "restore": lambda shop: restore(shop, options.rows, options.rounds),
        "capture": lambda shop: capture(shop, options.stream, options.rounds),
        "latest": lambda shop: latest(shop, options.rate, options.seconds),
    }
    for name, part in parts.items():
        if options.only in (None, name):
            with tempfile.TemporaryDirectory() as folder, Server("postgres") as server:
                part(Shop(hindsight, server, Path(folder), name))
                shutil.rmtree(Path(folder) / f"vault-{name}")


if __name__ == "__main__":
    main()
