#!/usr/bin/env python3
"""Reads the tables of a database at a time out of a vault directory, by docs/format.md alone.

usage: tables.py VAULT RESOURCE MICROSECONDS

Prints one line for each row: schema.table and the values of the row, with tabs between. Then one for each sequence: "sequence",
schema.name, the last value and whether it was handed out. Imports pyarrow only.
"""

import collections
import glob
import json
import os
import sys

import pyarrow.parquet as pq

COLUMNS = ("key", "op", "at", "at_bound", "position", "schema", "table", "identity", "image", "before", "unsent", "reason")


def changes(vault, resource):
    """Every change of the log, each once, in the order of positions, and up to when the log is complete."""
    latest, found = 0, {}
    for path in glob.glob(os.path.join(vault, "log/v1", f"res={resource}", "date=*", "hour=*", "*.parquet")):
        latest = max(latest, int(os.path.basename(path).split("-")[2].split(".")[0]))
        table = pq.read_table(path, columns=list(COLUMNS))
        for column in ("at", "at_bound"):
            table = table.set_column(table.schema.get_field_index(column), column, table[column].cast("int64"))
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


def furthest(states):
    """Of states, the newest of which comes first, the one that is furthest on."""
    if states[0]["cycle"]:
        return states[0]
    direction = -1 if states[0]["increment"] < 0 else 1
    return max(states, key=lambda state: (direction * state["last_value"], state["is_called"]))


def sequences(rows, end, at):
    """What each sequence had come to at a time, in the order of their names."""
    made, under_way = {}, collections.defaultdict(list)
    for row in rows:  # in the order of positions
        counts_from = row["at"] if row["at_bound"] is None else row["at_bound"]
        is_reading = (row["schema"], row["table"], row["op"]) == ("", "sequence", "put") and row["position"][:4] == end[:4]
        if not is_reading or counts_from > at:
            continue
        name = tuple(json.loads(row["identity"])[:2])
        if row["at"] <= at:
            made[name] = row
        else:
            under_way[name].insert(0, row)
    for name in sorted(made.keys() | under_way.keys()):
        readings = under_way[name] + ([made[name]] if name in made else [])
        if readings[0]["reason"] is not None:
            print(f"{'.'.join(name)}: {readings[0]['reason']}", file=sys.stderr)
        states = [json.loads(row["image"]) for row in readings if row["image"] is not None]
        if states:
            yield name, furthest(states)


def main():
    vault, resource, at = sys.argv[1], sys.argv[2], int(sys.argv[3])
    rows, latest = changes(vault, resource)
    end = end_of_state(rows, at, latest)
    for (schema, table), image in tables(rows, end):
        print(f"{schema}.{table}", *("\\N" if value is None else value for value in image.values()), sep="\t")
    for (schema, name), state in sequences(rows, end, at):
        print("sequence", f"{schema}.{name}", state["last_value"], "t" if state["is_called"] else "f", sep="\t")


main()
