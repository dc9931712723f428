"""A task that runs whole, on 1, 2 and 4 jobs: its seconds, and how busy the processors are.

    pip install duckdb==2.0.1
    cargo build --release
    target/release/chunkwise demo --scale 10 --dir tpch
    python3 benches/cores.py target/release/chunkwise tpch/data

Every run has an empty cache and a process of its own. Busy is the CPU seconds of the process over its seconds and the
processors that it may use: the jobs, but no more than the machine has.
"""

import argparse
import os
import pathlib
import tempfile

from timed import run, source

# The data, and a query over it that runs whole.
TASKS = [
    ("groups of 490 MB", "orders", "SELECT o_orderpriority, count(*) AS n, sum(o_totalprice) AS price FROM orders GROUP BY 1"),
    (
        "groups of 330 MB",
        "partsupp",
        "SELECT ps_suppkey, sum(ps_supplycost * ps_availqty) AS cost, min(ps_comment) AS first FROM partsupp GROUP BY 1",
    ),
    ("filter of 490 MB", "orders", "SELECT * FROM orders WHERE o_comment LIKE '%special%requests%'"),
]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("binary")
    parser.add_argument("data", type=pathlib.Path, help="a folder with the tables of TPC-H, a Parquet file each")
    parser.add_argument("--memory", default="1GiB")
    options = parser.parse_args()
    processors = os.cpu_count()
    with tempfile.TemporaryDirectory() as folder:
        for name, table, query in TASKS:
            sources = source(table, (options.data / f"{table}.parquet").resolve())
            for jobs in (1, 2, 4):
                more = ("--jobs", str(jobs))
                runs = [run(options.binary, sources, query, "", options.memory, pathlib.Path(folder) / "run", more) for _ in range(3)]
                seconds, cpu, peak = sorted(runs)[1]
                busy = cpu / seconds / min(jobs, processors)
                print(f"{name}, {jobs} jobs: {seconds:.2f} s, {cpu:.2f} CPU s, busy {busy:.0%}, {peak:.0f} MiB", flush=True)


if __name__ == "__main__":
    main()
