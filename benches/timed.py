"""A task in a process of its own: its seconds, its memory and its rows. What the other scripts here share."""

import shutil
import subprocess
import sys
import time

import duckdb

LONGEST_SECONDS = 300


def source(name, location):
    return f"CREATE EXTERNAL TABLE {name} STORED AS PARQUET LOCATION '{location}';\n"


def run(binary, sources, query, cut, memory, folder, more=()):
    """Seconds, CPU seconds and peak MiB of one task with an empty cache in `folder` and `more` options; `None` when it failed."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    (folder / "task.sql").write_text(f"{sources}CREATE TABLE r {cut} AS\n{query};\n")
    command = [binary, "run", folder / "task.sql", "--cache", folder / "cache", "--memory", memory, *more]
    start = time.monotonic()
    try:
        timed = ["/usr/bin/time", "-f", "%U %S %M", *command]
        done = subprocess.run(timed, capture_output=True, text=True, timeout=LONGEST_SECONDS)
    except subprocess.TimeoutExpired:
        return None
    seconds = time.monotonic() - start
    if done.returncode:
        print(done.stdout, done.stderr, file=sys.stderr)
        return None
    user, system, peak_kib = done.stderr.split()[-3:]
    return seconds, float(user) + float(system), int(peak_kib) / 1024


def rows(folder):
    """The rows of the table that was published, in the order of its files."""
    files = folder / "cache/tables/r/*/*.parquet"
    query = f"SELECT * EXCLUDE (chunk) FROM read_parquet('{files}', hive_partitioning = true)"
    return duckdb.execute(query).fetchall()
