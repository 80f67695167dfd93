#!/usr/bin/env python3
"""Restores a bucket from a vault directory, by docs/format.md alone.

usage: restore.py VAULT RESOURCE MICROSECONDS OUT [--versions]

Writes the content of every object (with --versions, of every live version) into OUT, each under the SHA-256 of its key
and version, and prints one JSON line per object: key, version, marker, etag, tags, metadata, file. Imports pyarrow only.
"""

import hashlib
import json
import os
import sys

import pyarrow as pa
import pyarrow.parquet as pq


def fail(text):
    sys.exit(f"restore.py: {text}")


def read(vault, path):
    with open(os.path.join(vault, path), "rb") as file:
        return file.read()


def record(vault, path, kind):
    head, _, payload = read(vault, path).partition(b"\n")
    word, version, found, digest = head.decode().split(" ")
    if (word, version, found) != ("hindsight", "1", kind) or hashlib.sha256(path.encode() + b"\n" + payload).hexdigest() != digest:
        fail(f"{path} is damaged")
    return json.loads(payload)


def checked(vault, ref):
    data = read(vault, ref["path"])
    if len(data) != ref["size"] or hashlib.sha256(data).hexdigest() != ref["digest"]:
        fail(f"{ref['path']} is damaged")
    return data


def bucket_file(vault, entry):
    """A file of a base or merge. Who reads it whole needs none of the digests of its parts; here they are checked too."""
    data = checked(vault, entry["file"])
    footer = entry["footer"]
    if hashlib.sha256(data[footer["offset"] :]).hexdigest() != footer["digest"]:
        fail(f"the footer of {entry['file']['path']} is damaged")
    metadata = pq.ParquetFile(pa.BufferReader(data)).metadata
    found = ""
    for group in map(metadata.row_group, range(metadata.num_row_groups)):
        for chunk in map(group.column, range(metadata.num_columns)):
            begin = chunk.dictionary_page_offset or chunk.data_page_offset
            found += hashlib.sha256(data[begin : begin + chunk.total_compressed_size]).hexdigest()
    if found != metadata.metadata[b"hindsight.chunks"].decode() or len(entry["last_keys"]) != metadata.num_row_groups:
        fail(f"the digests of the parts of {entry['file']['path']} are wrong")
    return data


def rows_of(data, resource=None):
    file = pq.ParquetFile(pa.BufferReader(data))
    if file.metadata.metadata[b"hindsight.format"] != b"1":
        fail("a file has another format version")
    if resource and file.metadata.metadata[b"hindsight.resource"] != resource.encode():
        fail("a segment is of another resource")
    table = file.read()
    for name in ("at", "at_bound"):
        table = table.set_column(table.schema.get_field_index(name), name, table[name].cast(pa.int64()))
    return table.to_pylist()


def micros(text):
    import datetime

    whole, _, fraction = text.rstrip("Z").partition(".")
    seconds = int(datetime.datetime.fromisoformat(whole + "+00:00").timestamp())
    return seconds * 1_000_000 + int((fraction + "000000")[:6])


def link(path):
    """What the names of later segments call a segment."""
    folder, _, name = path.rpartition("/")
    _, date, hour = folder.rsplit("/", 2)
    hours = micros(f"{date.removeprefix('date=')}T{hour.removeprefix('hour=')}:00:00Z") // 3_600_000_000
    first, _, _, digest = name.removesuffix(".parquet").split("-")[:4]
    return f"{hours:06x}{int(first):016x}{digest[:12]}"


def check_complete(vault, resource, paths, sealed):
    """Everything that a segment or a reading of the truth names is there, or arrived before what is sealed."""
    there = {link(path) for path in paths}
    named = {name for path in paths for name in path.removesuffix(".parquet").rsplit("/", 1)[1].split("-")[4:]}
    readings = f"state/v1/reconciliation/res={resource}"
    if os.path.isdir(os.path.join(vault, readings)):
        for number in sorted(os.listdir(os.path.join(vault, readings))):
            named |= set(record(vault, f"{readings}/{number}", "reconciliation").get("heads", []))
    missing = sorted(name for name in named - there if int(name[:6], 16) * 3_600_000_000 >= sealed)
    if missing:
        fail(f"segments are missing: {missing}")


def history(vault, resource, at):
    """Every row that the state at `at` may depend on."""
    folder = f"manifest/v1/res={resource}"
    numbers = sorted(os.listdir(os.path.join(vault, folder))) if os.path.isdir(os.path.join(vault, folder)) else []
    manifest = record(vault, f"{folder}/{numbers[-1]}", "manifest") if numbers else {"bases": [], "merges": []}
    bases = [base for base in manifest["bases"] if micros(base["cut"]) <= at]
    base = max(bases, key=lambda base: micros(base["cut"])) if bases else None
    rows, covered, merged = [], set(), {}
    if base:
        for file in base["files"]:
            rows += rows_of(bucket_file(vault, file))
        for cover in base["covers"]:
            covered |= set(checked(vault, cover["list"]).decode().splitlines())
    for merge in manifest["merges"]:
        paths = checked(vault, merge["covers"]["list"]).decode().splitlines()
        if base and base.get("sealed") and micros(merge["covers"]["arrived"]) < micros(base["sealed"]):
            covered |= set(paths)
        merged |= {path: merge for path in paths}
    segments, listed = [], []
    log = f"log/v1/res={resource}"
    for where, _, names in sorted(os.walk(os.path.join(vault, log))):
        for name in sorted(names):
            path = os.path.relpath(os.path.join(where, name), vault)
            first, last, _, digest = name.removesuffix(".parquet").split("-")[:4]
            listed.append(path)
            if not (base and path in covered and int(last) <= micros(base["cut"])):
                segments.append((path, int(first), int(last), digest))
    check_complete(vault, resource, listed + list(merged), micros(manifest["sealed"]) if manifest.get("sealed") else 0)
    # Rows of one change are joined before they are cut.
    reach = max([at] + [last for _, first, last, _ in segments if first <= at]) // 1_000_000 * 1_000_000 + 999_999
    read_merges = []
    for path, first, _, digest in segments:
        if first > reach:
            continue
        if path in merged:
            if merged[path] not in read_merges:
                read_merges.append(merged[path])
            continue
        data = read(vault, path)
        if hashlib.sha256(data).hexdigest()[:32] != digest:
            fail(f"{path} is damaged")
        rows += rows_of(data, resource)
    for merge in read_merges:
        for file in merge["files"]:
            rows += rows_of(bucket_file(vault, file))
    return rows


def sequenced(row):
    return row["position"][4] == 0x80


def born(row):
    """An upload in parts is born when it begins."""
    return min(row["at"], row["at"] if row["at_bound"] is None else row["at_bound"])


def join(rows):
    """Rows that describe one change, as one."""
    rows = sorted(rows, key=lambda row: (row["at"] if row["op"] == "delete" else 0, row["via"] != "event", not sequenced(row), row["at"], row["position"]))
    joined = dict(rows[0])
    ranks = [row["rank"] for row in rows if row["rank"] is not None]
    joined["rank"] = max(ranks, default=None)
    etag = next((row["etag"] for row in rows if row["etag"]), None)
    if joined["via"] == "event" and joined["op"] == "put" and joined["version"] != "null" and etag and "-" in etag:
        joined["at_bound"] = min(born(row) for row in rows)
    by_length = lambda text: (text is not None, len((text or "").encode()), (text or "").encode())
    sized = lambda row: (row["size"] is not None, row["size"] or 0)
    read = lambda row: (row["tags"] is None, row["acl"] is None, [by_length(row[name]) for name in ("digest", "etag", "tags", "acl", "metadata")], row["storage_class"] or "", sized(row), row["body"])
    known = min((row for row in rows if row["body"]), key=read, default=None) or next((row for row in rows if row["marker"]), rows[0])
    for name in ("marker", "size", "etag", "storage_class", "metadata", "tags", "acl", "digest", "body", "lost"):
        joined[name] = known[name] if known[name] is not None else joined[name]
    return joined


def oldest_first(versions):
    second = lambda version: born(version) // 1_000_000
    listed_parts = lambda v: "-" in (v["etag"] or "") and v["rank"] is not None and v["version"] != "null"
    in_place = lambda v: sequenced(v) and second(v) == v["at"] // 1_000_000 and not listed_parts(v)
    with_order = sorted((v for v in versions if in_place(v)), key=lambda v: (v["position"], v["at"], v["version"]))
    placed = [((2 * place + 1, 0, 0), v) for place, v in enumerate(with_order)]

    def behind(version, other):
        if second(version) != second(other):
            return second(other) < second(version)
        if None not in (other["rank"], version["rank"]) and other["rank"] != version["rank"]:
            return other["rank"] < version["rank"]
        return sequenced(version) and other["position"] < version["position"]

    def ranked_before(version, other):
        return second(version) == second(other) and None not in (other["rank"], version["rank"]) and version["rank"] < other["rank"]

    slots = []
    for version in (v for v in versions if not in_place(v)):
        limit = next((index for index, other in enumerate(with_order) if ranked_before(version, other)), len(with_order))
        slots.append((version, max((index + 1 for index, other in enumerate(with_order[:limit]) if behind(version, other)), default=0)))
    room = {}
    for version, slot in slots:
        slot = max([slot, *(earlier for other, earlier in slots if ranked_before(other, version))])
        room.setdefault((2 * slot, second(version)), []).append(version)
    for (place, born_in), neighbours in room.items():
        ordered = []
        for version in sorted(neighbours, key=lambda v: (v["rank"] is None, v["rank"] or 0, v["position"], v["version"])):
            smaller = (step for step, v in enumerate(ordered, 1) if sequenced(v) and v["position"] < version["position"])
            ordered.insert(len(ordered) if version["rank"] is not None else max(smaller, default=0), version)
        placed += [((place, born_in, step), version) for step, version in enumerate(ordered)]
    return [version for _, version in sorted(placed, key=lambda pair: pair[0])]


def last_in_place(changes, at):
    """The last change of what is overwritten in place, and since when nothing is left of what was there before."""
    second = lambda row: row["at"] // 1_000_000
    is_shown = lambda row: row["op"] == "put" and row["at_bound"] is not None
    content = lambda row: (row["op"], row["marker"], row["etag"])
    same_put = lambda a, b: content(a) == content(b) and a["op"] == "put" and (a["marker"] or a["etag"] is not None)
    again = lambda a, b: is_shown(a) and is_shown(b) and same_put(a, b) and second(a) == second(b)
    like = lambda a, b: (content(a) == content(b) and a["at"] == b["at"]) or (
        same_put(a, b) and a["via"] != "event" and second(a) == second(b)
    )

    def told_by(row, other):
        return same_put(row, other) and ("-" in (row["etag"] or "") or second(other) <= second(row) + 1)

    def stands(row):
        return max(row["at"], (row["at_bound"] // 1_000_000 - 1) * 1_000_000) if is_shown(row) else row["at"]

    def ordered(rows):
        shown_behind = lambda row: is_shown(row) and "-" in (row["etag"] or "") and row["at_bound"] // 1_000_000 > stands(row) // 1_000_000
        rank = lambda row: None if row["via"] == "event" else int(shown_behind(row))
        place = lambda row: {"at": stands(row), "at_bound": None, "etag": None, "position": row["position"], "rank": rank(row), "row": row}
        name = lambda row: "" if row["op"] == "delete" else row["etag"] or "?"
        return [placed["row"] for placed in oldest_first([{**place(row), "version": name(row)} for row in rows])]

    order = ordered(changes)
    meaning = {}
    for index, row in enumerate(order):
        if not is_shown(row):
            meaning[id(row)] = ("told", row["at"])
            continue
        before = next((other for other in reversed(order[:index]) if not again(row, other)), None)
        behind = next((other for other in order[index + 1 :] if not again(row, other)), None)
        if before and told_by(row, before) and second(before) >= second(row):
            meaning[id(row)] = ("just", meaning[id(before)][1] if meaning[id(before)][0] == "just" else before)
        elif behind and told_by(row, behind) and behind["via"] == "event" and second(behind) <= row["at_bound"] // 1_000_000:
            meaning[id(row)] = ("just", behind)
        else:
            meaning[id(row)] = ("shown", max(row["at"], stands(before)) if before else row["at"])
    in_time = [row for row in order if meaning[id(row)][0] != "just" and meaning[id(row)][1] <= at]
    if not in_time:
        return None
    last = ordered(in_time)[-1]

    def tells_of_it(row):
        kind, value = meaning[id(row)]
        return like(value, last) if kind == "just" else like(row, last) or again(row, last)

    joined = join([row for row in changes if tells_of_it(row)])
    if meaning[id(last)][0] == "told":
        return joined, last["at"]
    place = next(index for index, row in enumerate(order) if row is last)
    first = last["at_bound"]
    for row in reversed(order[:place]):
        if not again(row, last):
            break
        first = min(first, row["at_bound"])
    return joined, stands({**last, "at_bound": first})


def state(rows, at):
    """Live versions by object, the oldest first."""
    by_version = {}
    for row in rows:
        if row["object"]:
            by_version.setdefault((row["object"], row["version"]), []).append(row)
    objects = {}
    for (name, version), rows in sorted(by_version.items()):
        puts = [row for row in rows if row["facet"] == "version" and row["op"] == "put"]
        deletes = [row for row in rows if row["facet"] == "version" and row["op"] == "delete"]
        since = None
        if version != "null":
            seen = max((row["at_bound"] or 0 for row in rows if row["facet"] == "seen"), default=0)
            deletes = [row for row in deletes if row["at"] >= seen]
        if version == "null":
            found = last_in_place(puts + deletes, at)
            if not found or found[0]["op"] == "delete":
                continue
            put, since = found
        else:
            if not puts or (deletes and join(deletes)["at"] <= at):
                continue
            put = join(puts)
            if put["at"] > at:
                continue
        for facet, column in (("tags", "tags"), ("acl", "acl"), ("class", "storage_class")):
            later = [row for row in rows if row["facet"] == facet and row["at"] <= at and (since is None or row["at"] >= since)]
            first_readings = {}
            for row in sorted(later, key=lambda row: (row["lost"] is not None, row["at_bound"] is None, row["at_bound"] or 0)):
                first_readings.setdefault((row["at"], row["position"], row["via"] == "event", row["request"]), row)
            if later:
                last = max(first_readings.values(), key=lambda row: (row["at"], row["position"], row["via"] == "event", row["lost"] is None, row["at_bound"] or 0))
                put[column] = put[column] if last["lost"] is not None else last[column]
        objects.setdefault(name, []).append(put)
    return {name: oldest_first(versions) for name, versions in objects.items()}


def slice_of(vault, text):
    pack, rest = text.split("@")
    offset, rest = rest.split("+")
    stored, _, length = rest.partition("z")
    with open(os.path.join(vault, f"pack/v1/{pack[:2]}/{pack}"), "rb") as file:
        file.seek(int(offset))
        data = file.read(int(stored))
    return pa.decompress(data, decompressed_size=int(length), codec="zstd", asbytes=True) if length else data


def crc64nvme(data):
    """CRC-64/NVME: the polynomial reversed, bit by bit from the lowest."""
    table = []
    for value in range(256):
        for _ in range(8):
            value = (value >> 1) ^ (0x9A6C9329AC4BC9B5 if value & 1 else 0)
        table.append(value)
    crc = 0xFFFFFFFFFFFFFFFF
    for byte in data:
        crc = table[(crc ^ byte) & 0xFF] ^ (crc >> 8)
    return crc ^ 0xFFFFFFFFFFFFFFFF


def checksum(text, data):
    """The checksum of the same kind that the data has."""
    algorithm, _, value = text.partition(":")
    digits, _, part_bytes = value.partition("/")
    if algorithm == "crc64nvme":
        return f"crc64nvme:{crc64nvme(data):016x}"
    if algorithm != "md5":
        fail(f"{text} is of no algorithm that is known here")
    if not part_bytes:
        return f"md5:{hashlib.md5(data).hexdigest()}"
    parts = range(0, max(len(data), 1), int(part_bytes))
    md5s = b"".join(hashlib.md5(data[begin : begin + int(part_bytes)]).digest() for begin in parts)
    return f"md5:{hashlib.md5(md5s).hexdigest()}/{part_bytes}"


def whole(vault, text, row):
    """A content that is a file of its own."""
    place, *checksums = text.split(",")
    place, _, size = place.partition("+")
    resource, _, name = place.partition("/")
    data = read(vault, f"body/v1/res={resource}/{name[:2]}/{name}")
    if not checksums or len(data) != int(size) or any(checksum(text, data) != text for text in checksums):
        fail(f"the content of {row['object']} is damaged")
    return data


def content(vault, row):
    body = row["body"]
    if body.startswith("="):
        return whole(vault, body[1:], row)
    if body.startswith("*"):
        body = slice_of(vault, body[1:]).decode()
    data = b"" if body == "-" else b"".join(slice_of(vault, text) for text in body.split(","))
    if hashlib.sha256(data).hexdigest() != row["digest"]:
        fail(f"the content of {row['object']} is damaged")
    return data


def main():
    vault, resource, at, out = sys.argv[1], sys.argv[2], int(sys.argv[3]), sys.argv[4]
    every = "--versions" in sys.argv[5:]
    os.makedirs(out, exist_ok=True)
    for name, versions in state(history(vault, resource, at), at).items():
        if not every:
            versions = [version for version in versions[-1:] if not version["marker"]]
        for row in versions:
            entry = {key: row[key] for key in ("object", "version", "marker", "etag")}
            entry["tags"] = json.loads(row["tags"] or "{}")
            entry["metadata"] = json.loads(row["metadata"] or "{}")
            if row["body"]:
                entry["file"] = hashlib.sha256(f"{name}\0{row['version']}".encode()).hexdigest()
                with open(os.path.join(out, entry["file"]), "wb") as file:
                    file.write(content(vault, row))
            print(json.dumps(entry))


main()
