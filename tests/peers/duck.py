"""DuckDB at the work of the benchmarks, on the same files, in the same run.

usage: duck.py append EVENTS.jsonl OUT.parquet | duck.py fold FOLDER SECOND        prints seconds, rows, peak MiB
"""

import resource
import sys
import time

import duckdb

COLUMNS = """columns={version: 'VARCHAR', id: 'VARCHAR', 'detail-type': 'VARCHAR', source: 'VARCHAR', account: 'VARCHAR', time: 'TIMESTAMP',
 region: 'VARCHAR', detail: 'STRUCT(version VARCHAR, bucket STRUCT(name VARCHAR), object STRUCT(key VARCHAR, size BIGINT, etag VARCHAR,
 "version-id" VARCHAR, sequencer VARCHAR), "request-id" VARCHAR, requester VARCHAR, "source-ip-address" VARCHAR, reason VARCHAR, "deletion-type" VARCHAR)'}"""


def append(events, out):
    return f"""COPY (SELECT detail.object.key AS object, detail.object."version-id" AS version, "detail-type" AS op, time AS at,
 detail.object.sequencer AS position, detail.requester AS requester, detail."request-id" AS request,
 detail."deletion-type" AS deletion, detail.object.size AS size, detail.object.etag AS etag
 FROM read_json('{events}', format='newline_delimited', {COLUMNS}) ORDER BY object, position) TO '{out}' (FORMAT parquet, COMPRESSION zstd)"""


def fold(folder, second):
    state = "{'version': version, 'size': size, 'etag': etag, 'digest': digest, 'body': body, 'metadata': metadata, 'tags': tags, 'marker': marker}"
    return f"""SELECT count(*), count(s.body) FROM (SELECT object, arg_max({state}, position) AS s
 FROM read_parquet('{folder}/*.parquet') WHERE at <= make_timestamptz({second} * 1000000) GROUP BY object)"""


def narrow(folder, second):
    return f"""SELECT count(*), count(v) FROM (SELECT object, arg_max(version, position) AS v
 FROM read_parquet('{folder}/*.parquet') WHERE at <= make_timestamptz({second} * 1000000) GROUP BY object)"""


def main():
    work, *words = sys.argv[1:]
    connection = duckdb.connect()
    connection.execute("SET threads = 2")
    began = time.monotonic()
    answer = connection.execute({"append": append, "fold": fold, "narrow": narrow}[work](*words)).fetchall()
    took = time.monotonic() - began
    print(f"{took:.3f} {answer[0][0]} {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10}")


main()
