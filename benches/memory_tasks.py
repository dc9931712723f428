"""Tasks of operators that hold much, each within a budget: peak memory, and how much it is over the budget + 32 MiB + 5 %.

    pip install duckdb==2.0.1 pyarrow==26.0.1
    cargo build --release
    target/release/chunkwise demo --scale 1 --dir tpch
    python3 benches/memory_tasks.py target/release/chunkwise tpch/data

Data is made in the folder `--folder` and stays there. Every task has an empty cache and a process of its own.
"""

import argparse
import pathlib
import random
import sys
import tempfile

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq

from timed import run, source

WIDE = 2_000
SUMS = ", ".join(f"sum(c{column}) AS c{column}" for column in range(WIDE))

# Name, MiB of the budget, how the task is cut, and its query.
TASKS = [
    ("wide rows grouped", 256, "", f"SELECT k, {SUMS} FROM wide GROUP BY k"),
    ("wide rows copied", 256, "", "SELECT * FROM wide"),
    ("one list", 256, "", "SELECT k, array_agg(v ORDER BY o) AS a FROM arr GROUP BY k"),
    ("distinct texts", 128, "", "SELECT count(DISTINCT s) AS n FROM txt"),
    ("distinct texts", 256, "", "SELECT count(DISTINCT s) AS n FROM txt"),
    ("distinct texts of groups", 128, "", "SELECT g, count(DISTINCT s) AS n FROM txt GROUP BY g"),
    ("texts of 1.5 MB copied", 512, "", "SELECT * FROM big"),
    ("4 million groups", 128, "", "SELECT k, sum(x) AS x FROM grp GROUP BY k"),
    ("window over all rows", 128, "", "SELECT *, row_number() OVER (ORDER BY x, s) AS r FROM srt"),
    ("sort of 240 MB", 128, "", "SELECT * FROM srt ORDER BY s"),
    ("window by key", 256, "WITH (chunk_by = 'hash') ", "SELECT *, sum(l_quantity) OVER (PARTITION BY l_orderkey) AS q FROM lineitem"),
    ("window in 2 buckets", 256, "CLUSTERED BY (l_partkey) INTO 2 BUCKETS ", "SELECT *, sum(l_quantity) OVER (PARTITION BY l_partkey) AS q FROM lineitem"),
    ("window over peers", 256, "", "SELECT *, sum(l_quantity) OVER (ORDER BY l_returnflag) AS q FROM lineitem"),
    ("3 million first rows", 256, "", "SELECT * FROM lineitem ORDER BY l_extendedprice, l_orderkey, l_linenumber LIMIT 3000000"),
]


def make(folder):
    folder.mkdir(parents=True, exist_ok=True)
    if not (folder / "wide.parquet").exists():
        values = random.Random(1)
        columns = {f"c{column}": [values.random() for _ in range(3_000)] for column in range(WIDE)}
        pq.write_table(pa.table({"k": [row % 100 for row in range(3_000)], **columns}), folder / "wide.parquet")
    if not (folder / "big.parquet").exists():
        values = random.Random(1)
        with pq.ParquetWriter(folder / "big.parquet", pa.schema([("k", pa.int64()), ("s", pa.string())])) as writer:
            for first in range(0, 1_500, 50):
                texts = [values.randbytes(750_000).hex() for _ in range(50)]
                writer.write_table(pa.table({"k": pa.array(range(first, first + 50), pa.int64()), "s": texts}))
    made = {
        "arr": "SELECT 1 AS k, (i * 7919) % 1500000 AS o, 'value ' || i AS v FROM range(1500000) t(i)",
        "txt": "SELECT 'some text ' || hash(i)::VARCHAR AS s, i % 10 AS g FROM range(2500000) t(i)",
        "grp": "SELECT (i * 7919) % 4000000 AS k, i AS x FROM range(8000000) t(i)",
        "srt": "SELECT hash(i)::VARCHAR || hash(i + 1)::VARCHAR AS s, hash(i + 5) % 1000000 AS x FROM range(5000000) t(i)",
    }
    for name, query in made.items():
        if not (folder / f"{name}.parquet").exists():
            duckdb.execute(f"COPY ({query}) TO '{folder / name}.parquet'")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("binary")
    parser.add_argument("tpch", type=pathlib.Path, help="a folder with lineitem.parquet of TPC-H at scale 1")
    parser.add_argument("--folder", type=pathlib.Path, default=pathlib.Path(tempfile.gettempdir()) / "chunkwise-memory-tasks")
    options = parser.parse_args()
    make(options.folder / "data")
    files = [*sorted((options.folder / "data").glob("*.parquet")), options.tpch / "lineitem.parquet"]
    sources = "".join(source(file.stem, file.resolve()) for file in files)
    failed = 0
    for name, mib, cut, query in TASKS:
        result = run(options.binary, sources, query, cut, f"{mib}MiB", options.folder / "run")
        if result is None:
            failed += 1
            print(f"{name} within {mib} MiB: failed", flush=True)
            continue
        seconds, processor_seconds, peak = result
        over = peak - (mib + 32 + mib * 0.05)
        print(f"{name} within {mib} MiB: {seconds:.1f} s, {processor_seconds:.1f} CPU s, peak {peak:.0f} MiB, {over:+.0f}", flush=True)
    sys.exit(failed > 0)


if __name__ == "__main__":
    main()
