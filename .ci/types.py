"""Writes Parquet of every type that DuckDB, Polars, pandas and pyarrow know, has chunkwise make tables of it, and reads these with all four.

    types.py BINARY                 checks that every cell of sql/types.md comes out as it stands there
    types.py BINARY --write FILE    writes the cells into FILE

A value that a reader sees in a table and nobody in the file that the table comes from fails the check in any case, and so does an error that
does not say what to do.
"""

import datetime
import decimal
import json
import math
import re
import subprocess
import sys
import tempfile
import uuid
from fractions import Fraction
from pathlib import Path

import duckdb
import numpy
import pandas
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

D, DATE, DATETIME = decimal.Decimal, datetime.date, datetime.datetime
PER_SECOND = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}
DAY = 86_400 * 10**9
FLOATS = [1.5, -0.0, 0.0, math.nan, math.inf, -math.inf, None]
TEXTS = ["", "ü😀", "a longer text, beyond twelve bytes", None]
CODECS = ["snappy", "gzip", "brotli", "zstd"]
DETAILS = ["bitWidth", "isSigned", "precision", "scale", "timeUnit", "isAdjustedToUTC"]
COLUMNS = ["written as", "published as", "DuckDB", "Polars", "pandas", "pyarrow"]


def nines(digits, scale):
    return D(10**digits - 1).scaleb(-scale, decimal.Context(80))


def of_pyarrow():
    cases = {}

    def case(name, values, type=None, **options):
        column = values if isinstance(values, pa.Array) else pa.array(values, type)
        table = pa.table({"k": range(len(column)), "v": column})
        cases[name] = lambda path: pq.write_table(table, path, **options)

    for bits in [8, 16, 32, 64]:
        case(f"int{bits}", [-(2 ** (bits - 1)), 2 ** (bits - 1) - 1, 0, None], getattr(pa, f"int{bits}")())
        case(f"uint{bits}", [2**bits - 1, 0, None], getattr(pa, f"uint{bits}")())
    case("float16", numpy.array([1.5, -0.0, 0.0, math.nan, math.inf, 65504], "float16"), pa.float16())
    case("float32", [*FLOATS, 2.0**127, 1e-45], pa.float32())
    case("float64", [*FLOATS, 1.7e308, 5e-324], pa.float64())
    for bits, most in [(32, 9), (64, 18), (128, 38), (256, 76)]:
        for digits, scale in [(most, 0), (most, most), (most // 2, 2)]:
            values = [nines(min(digits, 38), scale), D(-1).scaleb(-scale), D(0), None]
            case(f"decimal{bits}({digits}, {scale})", values, getattr(pa, f"decimal{bits}")(digits, scale))
    case("decimal128(9, 2), as integers", [D("1.25"), D("-1"), None], pa.decimal128(9, 2), store_decimal_as_integer=True)
    case("bool", [True, False, None], pa.bool_())
    for type in [pa.string(), pa.large_string(), pa.string_view()]:
        case(str(type), TEXTS, type)
    for type in [pa.binary(), pa.large_binary(), pa.binary_view()]:
        case(str(type), [b"", b"\xff\x00", b"more than twelve bytes", None], type)
    for column in [pa.array(TEXTS), pa.array(TEXTS, pa.large_string()), pa.array([2**62, None]), pa.array([1, None], pa.timestamp("ns"))]:
        case(f"dictionary of {column.type}", column.dictionary_encode())
    case("fixed_size_binary(3)", [b"abc", b"\xff\x00\x01", None], pa.binary(3))
    case("uuid", pa.array([uuid.UUID(int=1).bytes, uuid.UUID(int=2**128 - 1).bytes, None], pa.binary(16)).cast(pa.uuid()))
    case("json", pa.array(['{"a": 1}', "null", None]).cast(pa.json_(pa.string())))
    case("date32", [0, -719162, 2932896, None], pa.date32())
    case("date32, far", [-(2**31), 2**31 - 1, None], pa.date32())
    case("date64", [0, -719162 * 86_400_000, 2932896 * 86_400_000, None], pa.date64())
    for unit, per_second in PER_SECOND.items():
        case(f"time[{unit}]", [0, 86_400 * per_second - 1, None], pa.time32(unit) if unit in ["s", "ms"] else pa.time64(unit))
        case(f"duration[{unit}]", [0, 1, -1, None], pa.duration(unit))
        near = [0, 1, -1, 1_700_000_000 * per_second + 1, None]
        for zone in [None, "UTC", "Europe/Berlin", *(["+05:30"] if unit == "us" else [])]:
            case(str(pa.timestamp(unit, zone)), near, pa.timestamp(unit, zone))
        case(f"timestamp[{unit}], far", [d * 86_400 * per_second for d in ([-719162, 2932896] if unit != "ns" else [-106751])], pa.timestamp(unit))
        case(f"timestamp[{unit}], INT96", near, pa.timestamp(unit), use_deprecated_int96_timestamps=True)
        case(f"timestamp[{unit}], farthest", [2**63 - 1, -(2**63) + 1, None], pa.timestamp(unit))
        case(f"timestamp[{unit}], version 1.0", near, pa.timestamp(unit), version="1.0")
    far = [DATETIME(1, 1, 1), DATETIME(9999, 12, 31, 23, 59, 59, 999999), None]
    case("timestamp[us], INT96, far", far, pa.timestamp("us"), use_deprecated_int96_timestamps=True)
    case("timestamp[us], INT96, no schema", far, pa.timestamp("us"), use_deprecated_int96_timestamps=True, store_schema=False)
    case("null", [None, None], pa.null())
    integers, texts, halves = pa.list_(pa.int64()), pa.list_(pa.string()), pa.struct([("a", pa.float16())])
    for type in [integers, pa.large_list(pa.int64()), pa.list_view(pa.int64()), pa.list_(pa.int64(), 2)]:
        case(str(type), [[1, None], None] if "fixed" in str(type) else [[1, None], [], None], type)
    nested = {pa.list_(texts): [[["a"], None, []], None], pa.list_(halves): [[{"a": 1}, None], None], pa.list_(pa.timestamp("s")): [[0, None]]}
    nested |= {pa.list_(pa.dictionary(pa.int32(), pa.string())): [["a", None], None], pa.map_(pa.int32(), texts): [[(1, ["a"]), (2, None)], None]}
    nested |= {pa.map_(pa.string(), pa.int64()): [[("a", 1), ("b", None)], [], None]}
    nested |= {pa.struct([("a", halves), ("b", pa.date64())]): [{"a": {"a": 1}, "b": DATE(2024, 1, 1)}, {"a": None, "b": None}, None]}
    for type, values in nested.items():
        case(str(type), values, type)
    for type in [pa.int64(), pa.string(), pa.timestamp("us", "UTC"), integers]:
        case(f"{type}, all NULL", [None, None], type)
    many = [*range(3), None] * 50
    pages = {"no dictionary": {"use_dictionary": False}, "data page 2.0": {"data_page_version": "2.0"}, "row groups of 7": {"row_group_size": 7}}
    pages |= {"no statistics": {"write_statistics": False}, "no schema": {"store_schema": False}}
    for name, options in pages.items():
        case(f"int32, {name}", many, pa.int32(), **options)
        case(f"string, {name}", TEXTS * 50, pa.string(), **options)
    for encoding in ["DELTA_BINARY_PACKED", "BYTE_STREAM_SPLIT"]:
        case(f"int32, {encoding}", many, pa.int32(), use_dictionary=False, column_encoding={"v": encoding})
    for encoding in ["DELTA_LENGTH_BYTE_ARRAY", "DELTA_BYTE_ARRAY"]:
        case(f"string, {encoding}", TEXTS * 20, pa.string(), use_dictionary=False, column_encoding={"v": encoding})
    for codec in ["none", "lz4", *CODECS]:
        case(f"int64, {codec}", many, pa.int64(), compression=codec)
    return cases


def of_pandas():
    cases = {}

    def case(name, values, type=None):
        frame = pandas.DataFrame({"k": range(len(values)), "v": pandas.Series(values, dtype=type or name)})
        cases[name] = frame.to_parquet

    for bits in [8, 16, 32, 64]:
        case(f"int{bits}", [-(2 ** (bits - 1)), 2 ** (bits - 1) - 1])
        case(f"uint{bits}", [2**bits - 1, 0])
        case(f"Int{bits}", [-(2 ** (bits - 1)), None])
    simple = {"bool": [True, False], "boolean": [True, None], "str": TEXTS, "string[pyarrow]": TEXTS, "category": TEXTS * 2}
    simple |= {name: FLOATS for name in ["float16", "float32", "float64", "Float64"]}
    for name, values in simple.items():
        case(name, values)
    case("category of int", [1, 2, None], "category")
    objects = {"str": "a", "bytes": b"a", "Decimal": D("1.25"), "date": DATE(9999, 12, 31), "time": datetime.time(1, 2, 3, 4)}
    objects |= {"datetime": DATETIME(1, 1, 1), "list": [1, 2], "dict": {"a": 1}, "None": None}
    for name, value in objects.items():
        case(f"object of {name}", [value, None], "object")
    for unit in PER_SECOND:
        case(f"datetime64[{unit}]", ["2024-01-02T03:04:05", None])
        case(f"datetime64[{unit}, Europe/Berlin]", [pandas.Timestamp("2024-10-27T01:30:00", tz="Europe/Berlin"), None])
        case(f"timedelta64[{unit}]", [1, None])
    case("period[M]", pandas.PeriodIndex(["2024-01", None], freq="M"))
    return cases


def of_polars():
    cases = {}

    def case(name, values, type=None, **options):
        frame = pl.DataFrame({"k": range(len(values)), "v": pl.Series(values, dtype=type or getattr(pl, name), strict=False)})
        cases[name] = lambda path: frame.write_parquet(path, **options)

    for bits in [8, 16, 32, 64, 128]:
        case(f"Int{bits}", [-(2 ** (bits - 1)), 2 ** (bits - 1) - 1, 0, None])
        case(f"UInt{bits}", [2**bits - 1, 0, None])
    for digits, scale in [(9, 2), (38, 0), (38, 38)]:
        case(f"Decimal({digits}, {scale})", [nines(digits, scale), D(0), None], pl.Decimal(digits, scale))
    simple = {"Boolean": [True, False, None], "String": TEXTS, "Categorical": ["a", "b", None, "a"], "Binary": [b"", b"\xff\x00", None]}
    simple |= {"Date": [DATE(1, 1, 1), DATE(9999, 12, 31), None], "Time": [datetime.time(23, 59, 59, 999999), None], "Null": [None, None]}
    simple |= {name: FLOATS for name in ["Float16", "Float32", "Float64"]}
    for name, values in simple.items():
        case(name, values)
    case("Time, nanoseconds", [1, None], pl.Time)
    for unit in ["ms", "us", "ns"]:
        case(f"Datetime({unit})", [0, 1, -1, 2**63 - 1, None], pl.Datetime(unit))
        case(f"Datetime({unit}, Europe/Berlin)", [0, 1_700_000_000 * PER_SECOND[unit], None], pl.Datetime(unit, "Europe/Berlin"))
        case(f"Duration({unit})", [1, -1, None], pl.Duration(unit))
    lists, texts, array = pl.List(pl.Int64), pl.List(pl.Categorical), pl.Array(pl.Int64, (2, 2))
    nested = {lists: [[1, None], [], None], texts: [["a", None], [], None], array: [[[1, 2], [3, 4]], None], pl.Enum(["a", "b"]): ["a", None]}
    nested |= {pl.Struct({"a": pl.Int16, "b": pl.Enum(["x"])}): [{"a": 1, "b": "x"}, {"a": None, "b": None}, None]}
    nested |= {pl.Struct({"a": pl.Int128}): [{"a": 1}, None], pl.Struct({"a": pl.Duration("us")}): [{"a": 1}, None]}
    nested |= {pl.List(pl.Struct({"a": pl.List(pl.Int8)})): [[{"a": [1]}], [], None]}
    for type, values in nested.items():
        case(str(type), values, type)
    for codec in ["uncompressed", "lz4", *CODECS]:
        case(f"Int64, {codec}", [1, None], pl.Int64, compression=codec)
    return cases


def of_duckdb():
    cases = {}

    def case(type, *values, options="", name=None):
        rows = ", ".join(f"({k}, CAST({value} AS {type}))" for k, value in enumerate([*values, "NULL"]))
        statement = f"COPY (SELECT * FROM (VALUES {rows}) AS t(k, v)) TO '$path' (FORMAT parquet{options})"
        cases[name or type] = lambda path: duckdb.sql(statement.replace("$path", str(path)))

    for name, bits in [("TINYINT", 8), ("SMALLINT", 16), ("INTEGER", 32), ("BIGINT", 64), ("HUGEINT", 128)]:
        case(name, -(2 ** (bits - 1)), 2 ** (bits - 1) - 1, 0)
        case(f"U{name}", 2**bits - 1, 0)
    for digits, scale in [(4, 1), (9, 2), (18, 0), (38, 0), (38, 38)]:
        case(f"DECIMAL({digits}, {scale})", f"'{nines(digits, scale):f}'", 0)
    simple = {"BIGNUM": [2**70], "BOOLEAN": ["true", "false"], "BIT": ["'101'"], "TIME_NS": ["'23:59:59.999999'"]}
    simple |= {"VARCHAR": ["''", "'ü😀'", "'a longer text, beyond twelve bytes'"], "BLOB": ["''", r"'\xFF\x00'"], "ENUM('a', 'b')": ["'a'", "'b'"]}
    simple |= {"UUID": ["'00000000-0000-0000-0000-000000000001'", "'ffffffff-ffff-ffff-ffff-ffffffffffff'"], "VARIANT": ["1", "'a'"]}
    simple |= {"JSON": ["""'{"a": 1}'""", "'null'"], "GEOMETRY": ["'POINT (1 2)'"], "DATE": ["'0001-01-01'", "'9999-12-31'"]}
    simple |= {"TIME": ["'00:00:00'", "'23:59:59.999999'"], "TIMETZ": ["'12:34:56+02'", "'12:34:56-05:30'"], "INTERVAL": ["'1 month 2 days'"]}
    simple |= {"INTEGER[]": ["[1, NULL]", "[]"], "INTEGER[2]": ["[1, NULL]"], "ENUM('a')[]": ["['a', NULL]"], "UNION(a INT, b TEXT)": ["1", "'x'"]}
    simple |= {"STRUCT(a HUGEINT, b TIME)": ["{a: 1, b: '01:02:03'}", "{a: NULL, b: NULL}"], "MAP(TEXT, INT)": ["MAP {'a': 1, 'b': NULL}", "MAP {}"]}
    simple |= {name: ["1.5", "'-0.0'", "0", "'NaN'", "'inf'", "'-inf'"] for name in ["FLOAT", "DOUBLE"]}
    for name, values in simple.items():
        case(name, *values)
    case("DATE", "'5877642-06-25 (BC)'", "'infinity'", "'-infinity'", name="DATE, far")
    case("TIME", "'24:00:00'", name="TIME, 24:00")
    for name in ["TIMESTAMP_S", "TIMESTAMP_MS", "TIMESTAMP", "TIMESTAMPTZ", "TIMESTAMP_NS", "TIMESTAMPTZ_NS"]:
        case(name, "'2024-01-02 03:04:05'", *([] if name.endswith("NS") else ["'0001-01-01'", "'9999-12-31 23:59:59'"]))
        case(name, "'infinity'", "'-infinity'", name=f"{name}, infinite")
    case("TIMESTAMP", "'290309-12-22 (BC) 00:00:00'", "'294247-01-10 04:00:54.775806'", name="TIMESTAMP, far")
    for name in ["BIGINT", "VARCHAR"]:
        case(name, *range(20), options=", PARQUET_VERSION v2", name=f"{name}, version 2")
    for codec in ["uncompressed", "lz4_raw", *CODECS]:
        case("BIGINT", 1, options=f", COMPRESSION {codec}", name=f"BIGINT, {codec}")
    return cases


WRITERS = {"pyarrow": of_pyarrow, "pandas": of_pandas, "Polars": of_polars, "DuckDB": of_duckdb}


def plain(value):
    """A value of Arrow's, pandas', numpy's or Python's: numbers by amount, days and times in nanoseconds, text and UUIDs by bytes."""
    kind = value.type if isinstance(value, pa.Scalar) and value.is_valid else None
    if isinstance(value, (pa.ExtensionScalar, pa.DictionaryScalar)):
        return plain(value.value)
    if kind and pa.types.is_temporal(kind) and not pa.types.is_interval(kind):
        size = {"date32[day]": DAY, "date64[ms]": 10**6}.get(str(kind)) or 10**9 // PER_SECOND[kind.unit]
        return "time", value.value * size, bool(getattr(kind, "tz", None))
    if kind and pa.types.is_nested(kind):
        return [plain(item) for item in (value.values() if pa.types.is_struct(kind) else value.values)]
    value = value.as_py() if isinstance(value, pa.Scalar) else value
    if value is None or value is pandas.NaT or value is pandas.NA:
        return None
    if isinstance(value, (list, tuple, numpy.ndarray, dict)):
        return [plain(item) for item in (value.values() if isinstance(value, dict) else value)]
    if isinstance(value, (pandas.Timestamp, pandas.Timedelta)):
        return "time", int(value.asm8.view("int64")) * (10**9 // PER_SECOND[value.unit]), bool(getattr(value, "tz", None))
    if isinstance(value, str):
        return re.fullmatch("[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", value) and uuid.UUID(value).bytes or value.encode()
    if isinstance(value, (float, numpy.floating)) and (not math.isfinite(value) or str(float(value)) == "-0.0"):
        return "float", str(float(value))
    if isinstance(value, (int, float, numpy.number, D)) and not isinstance(value, bool):
        return "number", str(Fraction(value if isinstance(value, D) else value.item() if isinstance(value, numpy.number) else value))
    return value.bytes if isinstance(value, uuid.UUID) else value


def read(reader, path):
    """The name of the column's type, and its values by k; None and why, if it is not read."""
    files = f"{path}/**/*.parquet"
    try:
        if reader == "pandas":
            column = pandas.read_parquet(path).sort_values("k")["v"]
            kinds = sorted({type(value).__name__ for value in column if value is not None})
            kind = " or ".join(kinds) if column.dtype == object and kinds else str(column.dtype)
            # It has no other NULL among floats.
            return kind, str([plain(value) for value in column]).replace("('float', 'nan')", "None")
        if reader == "DuckDB":
            table = duckdb.sql(f"SELECT k, v FROM read_parquet('{files}')").to_arrow_table()
            kind = duckdb.sql(f"SELECT typeof(v) FROM read_parquet('{files}')").fetchall()[0][0]
        elif reader == "Polars":
            table = pl.read_parquet(files).select("k", "v").to_arrow()
            kind = str(pl.read_parquet_schema(next(path.glob("**/*.parquet")))["v"])
        else:
            table = pq.read_table(path)
            kind = str(table.schema.field("v").type)
        rows = sorted(enumerate(table["k"].to_pylist()), key=lambda row: row[1])
        return kind, str([plain(table["v"][at]) for at, _ in rows])
    except (Exception, pl.exceptions.PanicException) as error:
        return None, f"{type(error).__name__}: {error}".splitlines()[0]


def seen(original, published):
    """What each reader sees in a table, compared with what it, or else another, sees in the file that the table comes from."""
    of_file = {reader: read(reader, original) for reader in COLUMNS[2:]}
    for reader, expected in of_file.items():
        kind, values = read(reader, published)
        if kind is None:
            yield "not read, nor is the file" if expected[0] is None else f"WRONG: {values}"
        elif (kind, values) == expected:
            yield "same"
        elif any(other and values in [found, found.replace("('float', 'nan')", "None")] for other, found in of_file.values()):
            yield f"same, as `{kind}`"
        else:
            yield f"WRONG: {kind} {values} for {expected}"


def form(table):
    """The type of the column in the files of a table: Parquet's, or where that is nested Arrow's."""
    file = pq.ParquetFile(next(table.glob("*/*.parquet")))
    if (column := file.schema.column(1)).path != "v":
        return f"`{file.schema_arrow.field('v').type}`"
    logical = json.loads(column.logical_type.to_json())
    words = {"isSigned": ["unsigned", "signed"], "isAdjustedToUTC": ["no zone", "UTC"]}
    details = [words[name][value] if name in words else str(value) for name, value in logical.items() if name in DETAILS]
    kind = "" if logical["Type"] == "None" else " " + logical["Type"]
    return column.physical_type + kind + (f"({', '.join(details)})" if details else "")


def refusal(reason, original):
    """The refusal in short, which names the column and, if it is the source's, the file."""
    message = re.sub(r"^.*?(?=column [`'])", "", reason)
    is_clear = message.startswith("column ") and ("source" not in reason or str(original) in reason) and "this is a bug" not in reason
    return f"refused: {message}" if is_clear else f"WRONG: {reason}"


def outcome(cell):
    """What of a cell stays from one version of a library to another: the names of types may change."""
    return "same" if cell.startswith("same") else cell


def make(binary, folder):
    """The rows of the table: the name of a type, as which library wrote it, and the cells."""
    cases, statements = [], []
    for writer, write in [(f"{library}: {name}", write) for library, cases_of in WRITERS.items() for name, write in cases_of().items()]:
        table = f"t{len(cases):03}"
        file = folder / table / "v.parquet"
        file.parent.mkdir(exist_ok=True)
        try:
            write(file)
        except Exception as error:
            print(f"not written by this version: {writer}: {str(error).splitlines()[0]}")
            continue
        cases.append((writer, table, file.parent, folder / "cache" / "tables" / table))
        statements.append(f"CREATE EXTERNAL TABLE s_{table} STORED AS PARQUET LOCATION '{file}';")
        statements.append(f"CREATE TABLE {table} CLUSTERED BY (k) INTO 3 BUCKETS AS SELECT k, v FROM s_{table};")
    (folder / "types.sql").write_text("\n".join(statements))
    command = [binary, "run", folder / "types.sql", "--cache", folder / "cache", "--report", folder / "report.json"]
    ran = subprocess.run(command, capture_output=True, text=True)
    assert ran.returncode == 1, f"some types are refused, but not all:\n{ran.stderr}"
    tasks = {task["name"]: task for task in json.loads((folder / "report.json").read_text())["tasks"]}
    for writer, table, original, published in cases:
        is_there = tasks[table]["status"] == "executed"
        yield writer, [form(published), *seen(original, published)] if is_there else [refusal(tasks[table]["reason"], original)] + 4 * [""]


def main(binary, *write):
    with tempfile.TemporaryDirectory() as folder:
        rows = dict(make(binary, Path(folder)))
    print(f"{len(rows)} types; DuckDB {duckdb.__version__}, Polars {pl.__version__}, pandas {pandas.__version__}, pyarrow {pa.__version__}")
    path = Path(write[-1] if write else Path(__file__).parent.parent / "sql" / "types.md")
    head = f"| {' | '.join(COLUMNS)} |\n"
    before, _, table = path.read_text().partition(head)
    table, _, after = table.partition("\n\n")
    known = {name[2:]: cells for name, *cells in [line.removesuffix(" |").split(" | ") for line in table.splitlines()]}
    wrong = [f"{name}, {column}: {cell}" for name, cells in rows.items() for column, cell in zip(COLUMNS[1:], cells) if cell.startswith("WRONG")]
    if write:
        lines = "".join(f"| {' | '.join([name, *cells])} |\n" for name, cells in rows.items())
        path.write_text(f"{before}{head}{'|---' * len(COLUMNS)}|\n{lines}\n{after}")
    elif changed := [name for name, cells in rows.items() if list(map(outcome, cells)) != list(map(outcome, known.get(name, [])))]:
        wrong += [f"{name}: {rows[name]}, and in {path}: {known.get(name)}" for name in changed]
    if wrong:
        sys.exit("\n".join(wrong))


main(*sys.argv[1:])
