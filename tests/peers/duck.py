"""DuckDB at the work of the benchmarks, on the same files, in the same run, in the quickest way we found.

usage: duck.py append EVENTS.jsonl OUT.parquet     prints seconds, CPU seconds, peak MiB
       duck.py appended GLOB                       prints what the rows amount to, to compare: of theirs or of ours
       duck.py fold|narrow GLOB MICROSECONDS       prints seconds, CPU seconds, peak MiB, and what the winners amount to
"""

import resource
import sys
import time

import duckdb

COLUMNS = """columns={version: 'VARCHAR', id: 'VARCHAR', 'detail-type': 'VARCHAR', source: 'VARCHAR', account: 'VARCHAR', time: 'TIMESTAMPTZ',
 region: 'VARCHAR', detail: 'STRUCT(version VARCHAR, bucket STRUCT(name VARCHAR), object STRUCT(key VARCHAR, size BIGINT, etag VARCHAR,
 "version-id" VARCHAR, sequencer VARCHAR), "request-id" VARCHAR, requester VARCHAR, "source-ip-address" VARCHAR, reason VARCHAR, "deletion-type" VARCHAR)'}"""


def append(events, out):
    # Level 1 of zstd as ours; the default is 3.
    return f"""COPY (SELECT detail.object.key AS object, detail.object."version-id" AS version, "detail-type" AS op, time AS "at",
 detail.object.sequencer AS position, detail.requester AS requester, detail."request-id" AS request,
 detail."deletion-type" AS deletion, detail.object.size AS size, detail.object.etag AS etag
 FROM read_json('{events}', format='newline_delimited', {COLUMNS}) ORDER BY object, position)
 TO '{out}' (FORMAT parquet, COMPRESSION zstd, COMPRESSION_LEVEL 1)"""


def appended(files):
    return f"""SELECT count(*), sum(hash(object, version, requester, request, size, etag, epoch_us("at")))
 FROM read_parquet('{files}', hive_partitioning=false)"""


# Two passes: which version wins, then its row. `arg_max` of a struct of all columns takes ten times as long.
def fold(files, at):
    rows = f"read_parquet('{files}', hive_partitioning=false)"
    winners = f"""SELECT object, max(position) AS position FROM {rows} WHERE "at" <= make_timestamptz({at}) GROUP BY object"""
    columns = "version, size, etag, digest, body, metadata, tags, marker, storage_class, \"at\""
    state = f"SELECT {columns} FROM {rows} SEMI JOIN ({winners}) AS winners USING (object, position)"
    digits = lambda column: f"sum(('0x' || {column}[1:10])::BIGINT)"
    lengths = " + ".join(f"length({column})" for column in ("metadata", "tags", "storage_class"))
    return f"""SELECT count(*), {digits('version')}, {digits('etag')}, {digits('digest')}, {digits('body')},
 sum(size), sum({lengths}), sum(epoch_us("at") // 1000000), count(*) FILTER (marker) FROM ({state})"""


# Only which version wins: what every answer has to find out at least.
def narrow(files, at):
    return f"""SELECT count(*), sum(('0x' || version[1:10])::BIGINT) FROM (SELECT object, arg_max(version, position) AS version
 FROM read_parquet('{files}', hive_partitioning=false) WHERE "at" <= make_timestamptz({at}) GROUP BY object)"""


def main():
    work, *words = sys.argv[1:]
    connection = duckdb.connect()
    connection.execute("SET threads = 2")
    began, used = time.monotonic(), time.process_time()
    answer = connection.execute({"append": append, "appended": appended, "fold": fold, "narrow": narrow}[work](*words)).fetchall()
    took, used = time.monotonic() - began, time.process_time() - used
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10
    print(f"{took:.3f} {used:.3f} {peak}", *answer[0])


main()
