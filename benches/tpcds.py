"""All 99 TPC-DS queries: whole, cut by hash, and by the engine's own choice.

    pip install duckdb==1.5.5 duckdb-extension-tpcds==1.5.5
    cargo build --release
    python3 benches/tpcds.py target/release/chunkwise --scale 1 --chunks 16 --memory 1GiB --own-memory 512MiB

Data and queries come from DuckDB's extension. Every query is a task of its own with an empty cache, in a process of its
own; its rows are compared with those of the whole run, numbers to nine digits. Prints the seconds, the CPU seconds and
the peak memory of each, the sums, and the ratios to the whole runs.
"""

import argparse
import pathlib
import sys
import tempfile

import duckdb
import duckdb_extension_tpcds

from timed import rows, run, source


def extension():
    return next(pathlib.Path(duckdb_extension_tpcds.__file__).parent.glob("extensions/*/tpcds.duckdb_extension"))


def make(scale, folder):
    """Writes a Parquet file for each table; returns the queries by number."""
    connection = duckdb.connect(config={"allow_unsigned_extensions": "true"})
    connection.execute(f"LOAD '{extension()}'")
    if not folder.exists():
        connection.execute(f"CALL dsdgen(sf={scale})")
        folder.mkdir(parents=True)
        for (table,) in connection.execute("SELECT table_name FROM information_schema.tables").fetchall():
            connection.execute(f"COPY {table} TO '{folder / table}.parquet'")
    queries = connection.execute("SELECT query_nr, query FROM tpcds_queries()").fetchall()
    return {number: query.strip().rstrip(";") for number, query in queries}


def plain(rows):
    """Rows in some order, numbers to nine digits."""

    def text(value):
        try:
            return f"{float(value) or 0.0:.9g}"
        except (TypeError, ValueError):
            return str(value)

    return sorted(tuple(map(text, row)) for row in rows)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("binary")
    parser.add_argument("--scale", type=float, default=1)
    parser.add_argument("--chunks", type=int, default=16)
    parser.add_argument("--memory", default="1GiB", help="of the whole and the cut runs")
    parser.add_argument("--own-memory", default="512MiB", help="of the engine's own choice")
    parser.add_argument("--queries", type=int, nargs="*", help="default: all")
    parser.add_argument("--folder", type=pathlib.Path, help="keeps the data; default: a temporary one")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.folder or pathlib.Path(temporary)
        data = folder / f"tpcds-{options.scale:g}"
        queries = make(options.scale, data)
        sources = "".join(source(file.stem, file) for file in sorted(data.glob("*.parquet")))
        ways = {
            "whole": ("WITH (chunks = 1)", options.memory),
            "cut": (f"WITH (chunk_by = 'hash', chunks = {options.chunks})", options.memory),
            "own": ("", options.own_memory),
        }
        found = {way: {} for way in ways}
        wrong = []
        for number in options.queries or sorted(queries):
            line = [f"q{number:02}"]
            for way, (cut, memory) in ways.items():
                place = folder / "runs" / way
                result = run(options.binary, sources, queries[number], cut, memory, place)
                if result is None:
                    wrong.append(f"q{number:02} {way} failed")
                    continue
                found[way][number] = result
                line.append("{} {:.2f} s, {:.2f} CPU s, {:.0f} MiB".format(way, *result))
                if way != "whole" and plain(rows(place)) != plain(rows(folder / "runs/whole")):
                    wrong.append(f"q{number:02} {way} has other rows")
            print("; ".join(line), flush=True)
        for way, results in found.items():
            seconds = sum(result[0] for result in results.values())
            peak = max((result[2], number) for number, result in results.items())
            print(f"{way}: {len(results)} of them in {seconds:.1f} s, at most {peak[0]:.0f} MiB (q{peak[1]:02})")
        for way in ("cut", "own"):
            both = [number for number in found[way] if number in found["whole"]]
            pairs = {number: (found[way][number][0], found["whole"][number][0]) for number in both}
            ratio = sum(pair[0] for pair in pairs.values()) / sum(pair[1] for pair in pairs.values())
            slow = [number for number, (mine, whole) in pairs.items() if mine > 3 * whole and mine > whole + 0.5]
            told = ", ".join("q{:02} {:.1f} times".format(n, pairs[n][0] / pairs[n][1]) for n in slow) or "none"
            print(f"{way} ÷ whole: {ratio:.2f}; over 3 times and 0.5 s more: {told}")
    print("rows: " + ("; ".join(wrong) or "all equal"))
    sys.exit(bool(wrong))


if __name__ == "__main__":
    main()
