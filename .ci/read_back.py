"""Reads every published table with DuckDB and Polars, and checks that both see the rows that chunkwise itself sees."""

import csv
import io
import subprocess
import sys
from pathlib import Path

import duckdb
import polars


def text(row):
    return tuple("" if value is None else str(value) for value in row)


def rows_of_chunkwise(binary, cache, table):
    command = [binary, "query", f'SELECT * FROM "{table}"', "--cache", cache, "--format", "csv"]
    printed = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    header, *rows = csv.reader(io.StringIO(printed))
    return header, sorted(map(tuple, rows))


def main(binary, cache):
    tables = sorted(path.name for path in Path(cache, "tables").iterdir())
    assert tables, "nothing is published"
    for table in tables:
        files = f"{cache}/tables/{table}/*/*.parquet"
        columns, expected = rows_of_chunkwise(binary, cache, table)
        names = ", ".join(f'"{name}"' for name in columns)
        in_duckdb = duckdb.sql(f"SELECT {names} FROM read_parquet('{files}', hive_partitioning = true)").fetchall()
        in_polars = polars.read_parquet(files, hive_partitioning=True).select(columns).rows()
        assert sorted(map(text, in_duckdb)) == expected, f"{table}: DuckDB reads other rows"
        assert sorted(map(text, in_polars)) == expected, f"{table}: Polars reads other rows"
        print(f"{table}: {len(expected)} rows, the same in DuckDB {duckdb.__version__} and Polars {polars.__version__}")


main(*sys.argv[1:])
