"""Random tasks within random memory budgets: rows equal, peak memory within the budget + 32 MiB + 5 %, never killed.

    pip install duckdb==2.0.1
    cargo build --release
    python3 benches/memory_fuzz.py target/release/chunkwise --cases 2000 --seed 1

Data is made by DuckDB: skewed keys, wide rows, long texts, lists and structs, each with some NULLs, in one file or in
several, with row groups of various sizes. A task is an aggregate, a join, a window, a sort, first rows, DISTINCT, a set operation, a list, or a copy, cut
by the engine's own choice, by a key, or not at all. Every case is a process of its own, which is stopped where it has
twice its budget and 512 MiB. Its rows are compared with DuckDB's, whatever their order. Prints each case that is wrong,
fails or is over, and the sums. DuckDB makes pages of up to 100 MiB, and a page is in memory as a whole: where the engine
says before it begins that its budget can't hold them, being over is counted apart.
"""

import argparse
import os
import pathlib
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time

import duckdb

LONGEST_SECONDS = 600

TOLD = "takes more than its --memory"

NUMBERS = {"BIGINT", "INTEGER", "HUGEINT", "DOUBLE"}
POLL_SECONDS = 0.02


def allowed_mib(budget):
    return budget + 32 + budget * 0.05


class Case:
    """A task over data of its own, made from a seed alone."""

    def __init__(self, seed):
        self.random = random.Random(seed)
        choose = self.random.choice
        self.budget = choose([96, 112, 128, 128, 160, 192, 256, 256, 384, 512, 512, 1024])
        self.jobs = choose([1, 2, 2, 2, 4])
        self.tables = {name: self.table() for name in ["a", "b"]}
        self.kind, self.query = self.task()
        self.cut = choose(["", "", "", "WITH (chunks = 1)", "WITH (chunk_by = 'auto', chunks = 7)", "CLUSTERED BY (k) INTO 5 BUCKETS"])
        if self.cut.startswith("CLUSTERED") and not self.has_key:
            self.cut = ""

    def table(self):
        """SQL that makes its rows, and how they are written."""
        choose = self.random.choice
        rows = choose([20_000, 200_000, 1_000_000, 3_000_000])
        keys = choose([10, 1_000, 100_000, rows])
        key = choose([
            f"hash(i) % {keys}",
            f"CASE WHEN hash(i) % 10 < 7 THEN 0 ELSE hash(i) % {keys} END",
            f"i % {keys}",
            f"i // {max(1, rows // keys)}",
        ])
        columns = {"i": "i", "k": f"({key})::BIGINT", "x": f"(hash(i + 1) % 1000000)::BIGINT", "g": "(hash(i + 2) % 7)::INTEGER"}
        text = choose(["hash(i)::VARCHAR", "repeat(hash(i)::VARCHAR, 5)", "'t' || (hash(i) % 5000)", "repeat('x' || hash(i), 40)"])
        if len(text) > 25 and rows > 200_000:
            rows //= 10
        columns["s"] = f"CASE WHEN hash(i + 3) % 20 > 0 THEN {text} END"
        match choose(["plain", "plain", "wide", "long", "nested"]):
            case "wide":
                rows = min(rows, 30_000)
                for column in range(choose([100, 400, 1200])):
                    columns[f"w{column}"] = f"(hash(i * {column + 3}) % 1000000)::DOUBLE"
            case "long":
                rows = min(rows, 2_000)
                columns["s"] = f"repeat(hash(i)::VARCHAR, {choose([500, 5000, 20000])})"
            case "nested":
                rows = min(rows, 300_000)
                columns["l"] = "list_transform(range((hash(i) % 6)::BIGINT), lambda e: e + i)"
                columns["r"] = "{'u': i % 100, 'v': 'v' || (i % 1000)}"
        listed = ", ".join(f"{value} AS {name}" for name, value in columns.items())
        group = choose([2_048, 20_000, 122_880, 1_000_000])
        order = choose(["", "", " ORDER BY k"])
        return {"columns": list(columns), "rows": rows, "group": group, "files": choose([1, 1, 3, 20]),
                "sql": f"SELECT {listed} FROM range({rows}) t(i){order}"}

    def task(self):
        """The kind of a task, and its query."""
        choose = self.random.choice
        a, b = self.tables["a"], self.tables["b"]
        wide = [name for name in a["columns"] if name.startswith("w")]
        some = ["k", "i", "s"] + [name for name in ["l", "r"] if name in a["columns"]] + wide
        listed = ", ".join(some)
        kinds = {
            "copy": (True, f"SELECT {listed} FROM a"),
            "filter": (True, f"SELECT {listed} FROM a WHERE x % 3 = 0"),
            "group by key": (True, "SELECT k, count(*) AS n, sum(x) AS sx, min(s) AS ms" + "".join(f", max({w}) AS m_{w}" for w in wide) + " FROM a GROUP BY k"),
            "group by other": (False, "SELECT g, x % 50000 AS y, count(*) AS n, sum(i) AS si FROM a GROUP BY g, x % 50000"),
            "group by text": (False, "SELECT s, count(*) AS n, max(x) AS mx FROM a GROUP BY s"),
            "distinct": (True, "SELECT DISTINCT k, s FROM a"),
            "count distinct": (False, "SELECT count(DISTINCT s) AS n, count(DISTINCT x) AS m FROM a"),
            "count distinct by": (False, "SELECT g, count(DISTINCT s) AS n FROM a GROUP BY g"),
            "join": (True, f"SELECT a.k, a.i, b.i AS j, a.s FROM a JOIN (SELECT k, max(i) AS i FROM b GROUP BY k) b ON a.k = b.k"),
            "left join": (False, "SELECT a.i, a.s, b.s AS t FROM a LEFT JOIN b ON a.i = b.i"),
            "semi join": (True, f"SELECT {listed} FROM a WHERE EXISTS (SELECT 1 FROM b WHERE b.k = a.k AND b.x > 500000)"),
            "anti join": (True, f"SELECT {listed} FROM a WHERE NOT EXISTS (SELECT 1 FROM b WHERE b.k = a.k)"),
            "join and group": (False, "SELECT a.g, count(*) AS n, sum(b.x) AS sx FROM a JOIN b ON a.i = b.i GROUP BY a.g"),
            "window by key": (True, f"SELECT {listed}, sum(x) OVER (PARTITION BY k) AS w_sum FROM a"),
            "running window": (True, "SELECT k, i, s, sum(x) OVER (PARTITION BY k ORDER BY i) AS w_sum FROM a"),
            "ranks": (False, "SELECT i, s, row_number() OVER (ORDER BY x, i) AS n FROM a"),
            "peers": (False, f"SELECT {listed}, sum(x) OVER (ORDER BY g) AS w_sum FROM a"),
            "moving window": (True, "SELECT k, i, avg(x) OVER (PARTITION BY k ORDER BY i ROWS BETWEEN 5 PRECEDING AND CURRENT ROW) AS m, lag(s) OVER (PARTITION BY k ORDER BY i) AS p FROM a"),
            "sort": (False, f"SELECT {listed} FROM a ORDER BY s, i"),
            "first rows": (False, f"SELECT {listed} FROM a ORDER BY x, i LIMIT {choose([10, 5000, max(10, a['rows'] // 2)])}"),
            "lists": (True, "SELECT k, array_agg(s ORDER BY i) AS l FROM a GROUP BY k"),
            "one list": (False, "SELECT array_agg(i ORDER BY x, i) AS l FROM a"),
            "union": (True, "SELECT k, i, s FROM a UNION ALL SELECT k, i, s FROM b"),
            "set": (False, "SELECT k, g FROM a EXCEPT SELECT k, g FROM b"),
            "first of each": (True, "SELECT k, i, s FROM (SELECT k, i, s, row_number() OVER (PARTITION BY k ORDER BY x, i) AS n FROM a) t WHERE n <= 2"),
            "total": (False, "SELECT count(*) AS n, sum(x) AS sx, min(s) AS ms, max(s) AS xs FROM a"),
            "median": (False, "SELECT g, median(x) AS m FROM a GROUP BY g"),
        }
        kind = choose(list(kinds))
        self.has_key, query = kinds[kind]
        return kind, query

    def sources(self, folder):
        sql = ""
        for name, table in self.tables.items():
            place = folder / name
            place.mkdir(parents=True)
            connection = duckdb.connect()
            connection.execute(f"CREATE TABLE t AS {table['sql']}")
            each = -(-table["rows"] // table["files"])
            for file in range(table["files"]):
                part = f"SELECT * FROM t LIMIT {each} OFFSET {file * each}"
                connection.execute(f"COPY ({part}) TO '{place}/{file:02}.parquet' (ROW_GROUP_SIZE {table['group']})")
            connection.close()
            sql += f"CREATE EXTERNAL TABLE {name} STORED AS PARQUET LOCATION '{place}/';\n"
        return sql

    def told(self):
        rows = ", ".join(f"{name} {table['rows']:,} rows of {len(table['columns'])} columns" for name, table in self.tables.items())
        return f"{self.kind}, {self.budget} MiB, {self.jobs} jobs, {self.cut or 'own choice'}; {rows}"


def run(binary, case, folder):
    """What became of the process, its seconds and its peak MiB."""
    (folder / "task.sql").write_text(f"{case.sources(folder)}CREATE TABLE r {case.cut} AS\n{case.query};\n")
    command = [binary, "run", folder / "task.sql", "--cache", folder / "cache", "--memory", f"{case.budget}MiB", "--jobs", str(case.jobs)]
    # What a process is told of its child's memory begins with its own, so a small one stands between.
    timed = ["/usr/bin/time", "-q", "-o", folder / "peak", "-f", "%M", *command]
    start = time.monotonic()
    killed = None
    with open(folder / "log", "w") as log:
        process = subprocess.Popen(timed, stdout=log, stderr=log)
        while process.poll() is None:
            child, rss = child_of(process.pid)
            if rss > 2 * case.budget + 512:
                killed = f"stopped at {rss:.0f} MiB"
            if time.monotonic() - start > LONGEST_SECONDS:
                killed = f"stopped after {LONGEST_SECONDS} s"
            if killed and child:
                os.kill(child, signal.SIGKILL)
            time.sleep(POLL_SECONDS)
    failed = killed or (process.returncode and (folder / "log").read_text().strip()[:600])
    return failed, time.monotonic() - start, int((folder / "peak").read_text().split()[-1]) / 1024


def child_of(parent):
    """The process that `parent` runs, and its MiB."""
    try:
        child = int(pathlib.Path(f"/proc/{parent}/task/{parent}/children").read_text().split()[0])
        pages = int(pathlib.Path(f"/proc/{child}/statm").read_text().split()[1])
    except (OSError, IndexError):
        return None, 0
    return child, pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def differs(case, folder):
    """Whether the table has other rows than DuckDB finds."""
    connection = duckdb.connect()
    for name in case.tables:
        connection.execute(f"CREATE VIEW {name} AS SELECT * FROM read_parquet('{folder}/{name}/*.parquet')")
    connection.execute(f"CREATE VIEW expected AS {case.query}")
    files = f"{folder}/cache/tables/r/*/*.parquet"
    connection.execute(f"CREATE VIEW r AS SELECT * EXCLUDE (chunk) FROM read_parquet('{files}', hive_partitioning = true)")

    def value(name, kind):
        # DuckDB has other types for sums, averages and counts.
        return f"CAST({name} AS DOUBLE)::VARCHAR" if kind in NUMBERS else f"CAST({name} AS VARCHAR)"

    described = connection.execute("DESCRIBE expected").fetchall()
    values = ", ".join(value(name, kind) for name, kind, *_ in described)
    query = f"SELECT count(*), sum(hash({values})::HUGEINT) FROM "
    return connection.execute(query + "expected").fetchall() != connection.execute(query + "r").fetchall()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("binary")
    parser.add_argument("--cases", type=int, default=100)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--folder", type=pathlib.Path, help="keeps what the last case had; default: a temporary one")
    options = parser.parse_args()
    wrong = failed = over = told = 0
    worst = (0.0, "none")
    with tempfile.TemporaryDirectory() as temporary:
        folder = (options.folder or pathlib.Path(temporary)) / "case"
        for seed in range(options.seed, options.seed + options.cases):
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir(parents=True)
            case = Case(seed)
            failure, seconds, peak = run(options.binary, case, folder)
            found = []
            if failure:
                failed += 1
                found.append(f"failed: {failure}")
            elif differs(case, folder):
                wrong += 1
                found.append("other rows")
            is_told = TOLD in (folder / "log").read_text()
            told += is_told
            if peak > allowed_mib(case.budget) and not is_told:
                over += 1
                found.append(f"{peak - allowed_mib(case.budget):+.0f} MiB over")
            if not is_told:
                worst = max(worst, (peak / allowed_mib(case.budget), f"seed {seed}"))
            if found:
                print(f"seed {seed}: {'; '.join(found)}: {peak:.0f} MiB, {seconds:.1f} s: {case.told()}", flush=True)
    print(f"{options.cases} cases: {wrong} wrong, {failed} failed or stopped, {over} over, {told} told before; the most {worst[0]:.2f} of what is allowed ({worst[1]})")
    sys.exit(bool(wrong or failed or over))


if __name__ == "__main__":
    main()
