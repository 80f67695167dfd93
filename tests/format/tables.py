#!/usr/bin/env python3
"""Reads the tables of a database at a time out of a vault directory, by docs/format.md alone.

usage: tables.py VAULT RESOURCE MICROSECONDS

Prints one line for each row: schema.table and the values of the row, with tabs between. Imports pyarrow only.
"""

import collections
import glob
import json
import os
import sys

import pyarrow.parquet as pq

COLUMNS = ("key", "op", "at", "position", "schema", "table", "identity", "image", "before", "unsent")


def changes(vault, resource):
    """Every change of the log, each once, in the order of positions, and up to when the log is complete."""
    latest, found = 0, {}
    for path in glob.glob(os.path.join(vault, "log/v1", f"res={resource}", "date=*", "hour=*", "*.parquet")):
        latest = max(latest, int(os.path.basename(path).split("-")[2].split(".")[0]))
        table = pq.read_table(path, columns=list(COLUMNS))
        table = table.set_column(table.schema.get_field_index("at"), "at", table["at"].cast("int64"))
        for row in table.to_pylist():
            found[row["key"], row["position"], row["op"]] = row
    return sorted(found.values(), key=lambda row: (row["position"], row["op"] == "put")), latest


def end_of_state(rows, at, latest):
    end = None
    for row in rows:
        if (row["schema"], row["table"], row["op"]) == ("", "transaction", "put"):
            if row["at"] > at:
                break
            end = row["position"]
    else:
        if at > latest:
            sys.exit("too late")
    if end is None:
        sys.exit("too early")
    return end


def filled(image, unsent, earlier):
    """An image whose unsent columns are those of an earlier one."""
    image = dict(image)
    for column in unsent:
        if column not in (earlier or {}):
            sys.exit(f"nothing says what is in {column}")
        image[column] = earlier[column]
    return image


def tables(rows, end):
    there = {}  # (schema, table) -> identity -> image
    loose = collections.defaultdict(collections.Counter)  # (schema, table) -> image as text
    taken = {}  # what a key had when it was last deleted
    for row in rows:
        if row["position"] > end:
            break
        name = (row["schema"], row["table"])
        if row["op"] == "reset":
            if name == ("", "incarnation"):
                there.clear()
                loose.clear()
            else:
                there.pop(name, None)
                loose.pop(name, None)
        elif not row["schema"] or row["op"] == "raw":
            pass
        elif row["identity"] is None:
            text = row["image"] if row["op"] == "put" else row["before"]
            loose[name][text] += 1 if row["op"] == "put" else -1
        elif row["op"] == "delete":
            taken[name, row["identity"]] = there.setdefault(name, {}).pop(row["identity"], None)
        else:
            rows_of, earlier = there.setdefault(name, {}), None
            if row["unsent"]:
                old = json.dumps(list(json.loads(row["before"]).values()), separators=(",", ":"), ensure_ascii=False) if row["before"] else None
                moved = old is not None and old != row["identity"]
                earlier = taken.get((name, old)) if moved else rows_of.get(row["identity"])
            rows_of[row["identity"]] = filled(json.loads(row["image"]), json.loads(row["unsent"] or "[]"), earlier)
    for name, rows_of in there.items():
        yield from ((name, image) for image in rows_of.values())
    for name, counts in loose.items():
        yield from ((name, json.loads(text)) for text, count in counts.items() for _ in range(count))


def main():
    vault, resource, at = sys.argv[1], sys.argv[2], int(sys.argv[3])
    rows, latest = changes(vault, resource)
    for (schema, table), image in tables(rows, end_of_state(rows, at, latest)):
        print(f"{schema}.{table}", *("\\N" if value is None else value for value in image.values()), sep="\t")


main()
