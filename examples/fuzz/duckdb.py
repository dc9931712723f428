"""Runs queries in DuckDB for the fuzzer: a line of JSON in, a line of JSON out.

{"views": [[name, query, [Arrow files]], …], "query": SQL, "path": Parquet file to write} -> {} or {"error": text}
"""

import json
import sys

import duckdb
import pyarrow
import pyarrow.ipc


def table_of(paths):
    tables = []
    for path in paths:
        with open(path, "rb") as file:
            is_file = file.read(6) == b"ARROW1"
        with pyarrow.OSFile(path) as file:
            reader = pyarrow.ipc.open_file(file) if is_file else pyarrow.ipc.open_stream(file)
            tables.append(reader.read_all())
    return pyarrow.concat_tables(tables, promote_options="permissive")


def run(request):
    with duckdb.connect() as connection:
        connection.execute("SET threads = 1; SET enable_progress_bar = false; SET TimeZone = 'UTC'; SET integer_division = true")
        connection.execute("SET default_null_order = 'NULLS_LAST_ON_ASC_FIRST_ON_DESC'")
        for name, query, paths in request["views"]:
            if paths:
                connection.register("arrow_files", table_of(paths))
            connection.execute(f'CREATE TABLE "{name}" AS {query}')
        connection.execute(f"COPY ({request['query']}) TO '{request['path']}' (FORMAT parquet)")


for line in sys.stdin:
    try:
        run(json.loads(line))
        answer = {}
    except Exception as error:
        answer = {"error": f"{type(error).__name__}: {error}"}
    print(json.dumps(answer), flush=True)
