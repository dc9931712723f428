"""The 22 TPC-H queries by the engine's own choice, and by DuckDB with as many threads.

    pip install duckdb==2.0.1
    cargo build --release
    target/release/chunkwise demo --scale 10 --dir tpch
    python3 benches/tpch.py target/release/chunkwise tpch/data --memory 1GiB

Every query is a task of its own with an empty cache, in a process of its own; DuckDB runs them in one process, each
twice, of which the better time counts. Prints the seconds of both and the peak memory of each task, the sums and their
ratio, and whether rows are equal: numbers to six digits behind the point, since DuckDB divides decimals as floats.
"""

import argparse
import os
import pathlib
import re
import shutil
import sys
import tempfile
import time

import duckdb

from timed import rows, run, source

QUERIES = pathlib.Path(__file__).parent.parent / "sql/tpch"


def equal(mine, theirs):
    """Whether rows are the same but for the last digits of numbers."""

    def close(one, other):
        try:
            return abs(float(one) - float(other)) <= 1e-6 + 1e-8 * abs(float(other))
        except (TypeError, ValueError):
            return str(one) == str(other)

    return len(mine) == len(theirs) and all(all(map(close, *pair)) for pair in zip(mine, theirs))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("binary")
    parser.add_argument("data", type=pathlib.Path, help="a folder with a Parquet file for each table")
    parser.add_argument("--memory", default="1GiB")
    parser.add_argument("--cut", default="", help="what stands behind the table's name; default: nothing")
    parser.add_argument("--queries", type=int, nargs="*", help="default: all")
    options = parser.parse_args()
    files = sorted(options.data.glob("*.parquet"))
    sources = "".join(source(file.stem, file.resolve()) for file in files)
    connection = duckdb.connect(config={"threads": os.cpu_count()})
    for file in files:
        connection.execute(f"CREATE VIEW {file.stem} AS SELECT * FROM '{file}'")
        # Nobody is to be the one that finds the files only on the disk.
        with open(file, "rb") as read, open(os.devnull, "wb") as nowhere:
            shutil.copyfileobj(read, nowhere)
    mine = theirs = 0.0
    ratios, peaks, wrong = [], [], []
    with tempfile.TemporaryDirectory() as folder:
        place = pathlib.Path(folder) / "run"
        for number in options.queries or range(1, 23):
            text = (QUERIES / f"q{number:02}.sql").read_text()
            query = re.search(r"CREATE TABLE.*?\bAS\b(.*)", text, re.S)[1].strip().rstrip(";")
            times = []
            for _ in range(2):
                start = time.monotonic()
                expected = connection.execute(query).fetchall()
                times.append(time.monotonic() - start)
            result = run(options.binary, sources, query, options.cut, options.memory, place)
            if result is None:
                wrong.append(f"q{number:02} failed")
                continue
            if not equal(rows(place), expected):
                wrong.append(f"q{number:02} has other rows")
            seconds, processor_seconds, peak = result
            print(f"q{number:02} {seconds:.2f} s, {processor_seconds:.2f} CPU s, {peak:.0f} MiB; DuckDB {min(times):.2f} s", flush=True)
            mine, theirs = mine + seconds, theirs + min(times)
            ratios.append((seconds / min(times), number))
            peaks.append((peak, number))
    print(f"{mine:.1f} s, DuckDB {theirs:.1f} s: {mine / theirs:.2f} times; most memory {max(peaks)[0]:.0f} MiB (q{max(peaks)[1]:02})")
    print("the slowest beside DuckDB: " + ", ".join(f"q{number:02} {ratio:.1f} times" for ratio, number in sorted(ratios)[:-6:-1]))
    print("rows: " + ("; ".join(wrong) or "all equal"))
    sys.exit(bool(wrong))


if __name__ == "__main__":
    main()
