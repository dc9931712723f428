//! Every type that can be a key, in every kind of file: cut as whole, and each row in the chunk of its key.

use std::fs;
use std::path::Path;

use arrow::array::{AsArray, RecordBatch};
use chunkwise::{Engine, RunOptions, RunReport, Status, chunk_of_udf};
use datafusion::logical_expr::{Expr, lit};
use datafusion::prelude::{SessionContext, ident};
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;

use crate::support::{
    Multiset, cut, engine, files_in, make_parquet, oracle, parquet_source, query_rows, rows_as_text, rows_of, run,
    try_run, write_arrow, write_parquet,
};

/// Arrow types, each with how a value of it is made of the integer `i`, 0 to 12; `=` stands for a cast to the type.
const TYPES: &[(&str, &str)] = &[
    ("Int8", "=(i - 6)"),
    ("Int16", "=(i - 6)"),
    ("Int32", "=(i - 6)"),
    ("Int64", "=((i - 6) * 1000000007)"),
    ("UInt8", "=(i)"),
    ("UInt16", "=(i)"),
    ("UInt32", "=(i)"),
    ("UInt64", "=(CASE WHEN i = 3 THEN '18446744073709551615' ELSE CAST(i AS VARCHAR) END)"),
    ("Utf8", "=(repeat('ü', i))"),
    ("LargeUtf8", "=(repeat('ü', i))"),
    ("Utf8View", "=(repeat('ü', i))"),
    ("Dictionary(Int32, Utf8)", "=(repeat('ü', i))"),
    ("Binary", "=(repeat('ü', i))"),
    ("LargeBinary", "=(repeat('ü', i))"),
    ("BinaryView", "=(repeat('ü', i))"),
    ("FixedSizeBinary(2)", "=(arrow_cast(lpad(CAST(i AS VARCHAR), 2, '0'), 'Binary'))"),
    ("Boolean", "=(i % 2 = 0)"),
    ("Date32", "=(arrow_cast(i * 1000 - 6000, 'Int32'))"),
    ("Date64", "=(arrow_cast(arrow_cast(i * 1000 - 6000, 'Int32'), 'Date32'))"),
    ("Time32(Second)", "=(arrow_cast(i * 3601, 'Int32'))"),
    ("Time32(Millisecond)", "=(arrow_cast(i * 3600001, 'Int32'))"),
    ("Time64(Microsecond)", "=(i * 3600000001)"),
    ("Time64(Nanosecond)", "=(i * 3600000001000)"),
    ("Timestamp(Second, None)", "=((i - 6) * 1000000007)"),
    ("Timestamp(Millisecond, None)", "=((i - 6) * 1000000007)"),
    ("Timestamp(Microsecond, None)", "=((i - 6) * 1000000007)"),
    ("Timestamp(Nanosecond, None)", "=((i - 6) * 1000000007)"),
    ("Timestamp(Second, Some(\"+02:00\"))", "=((i - 6) * 1000000007)"),
    ("Timestamp(Millisecond, Some(\"UTC\"))", "=((i - 6) * 1000000007)"),
    ("Timestamp(Microsecond, Some(\"-09:30\"))", "=((i - 6) * 1000000007)"),
    ("Timestamp(Nanosecond, Some(\"+00:00\"))", "=((i - 6) * 1000000007)"),
    ("Decimal32(7, 1)", "=((i - 6) * 12.5)"),
    ("Decimal64(15, 2)", "=((i - 6) * 1.25)"),
    ("Decimal128(10, 2)", "=((i - 6) * 1.25)"),
    ("Decimal256(38, 3)", "=((i - 6) * 1.125)"),
    ("Float16", FLOATS),
    ("Float32", FLOATS),
    ("Float64", FLOATS),
];

const FLOATS: &str = "=(CASE i WHEN 0 THEN 'NaN' WHEN 1 THEN '-0.0' WHEN 2 THEN '0.0' WHEN 4 THEN 'inf' \
                      WHEN 5 THEN '-inf' ELSE CAST((i - 6) * 0.25 AS VARCHAR) END)";

/// Queries over `a{}` and `b{}`, and what each cuts.
const QUERIES: [(&str, &str); 7] = [
    ("SELECT * FROM a{}", "a"),
    ("SELECT k, count(*) AS n, sum(v) AS total FROM a{} GROUP BY k", "a"),
    ("SELECT DISTINCT k FROM a{}", "a"),
    ("SELECT l.k, l.id, m.v FROM a{} l JOIN a{} m ON l.k = m.k", "a a"),
    ("SELECT a.k, a.id, b.id AS other FROM a{} a LEFT JOIN b{} b ON a.k = b.k", "a b"),
    ("SELECT id, k, rank() OVER (PARTITION BY k ORDER BY id) AS place FROM a{}", "a"),
    ("SELECT k, id FROM a{} UNION ALL SELECT k, id FROM b{}", "a b"),
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn chunks_by_a_key_of_any_type_have_the_rows_of_the_whole_run() {
    let all: Vec<usize> = (0..TYPES.len()).collect();
    assert_types_cut_as_whole(&all, &QUERIES, &[1, 5]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn more_chunks_than_keys_have_the_rows_of_the_whole_run() {
    // One type of each family.
    let names = [
        "Int32",
        "Utf8",
        "Dictionary(Int32, Utf8)",
        "FixedSizeBinary(2)",
        "Boolean",
        "Date32",
        "Time64(Microsecond)",
        "Timestamp(Nanosecond, None)",
        "Timestamp(Millisecond, Some(\"UTC\"))",
        "Decimal128(10, 2)",
        "Float64",
    ];
    let number = |name: &&str| TYPES.iter().position(|(data_type, _)| data_type == name).unwrap();
    let numbers: Vec<usize> = names.iter().map(number).collect();
    assert_types_cut_as_whole(&numbers, &QUERIES[6..], &[64]).await;
}

/// Runs `queries` over the tables of the types of these numbers, once for each number of chunks, and checks rows, what
/// was cut, and the chunk of every row of the last query.
async fn assert_types_cut_as_whole(types: &[usize], queries: &[(&str, &str)], chunks: &[u32]) {
    let folder = tempfile::tempdir().unwrap();
    let mut sources = Vec::new();
    let mut cases = Vec::new();
    for number in types {
        let (data_type, value) = TYPES[*number];
        sources.extend(make_type(folder.path(), *number, data_type, value).await);
        for (query, cut) in queries {
            let cut: Vec<_> = cut.split(' ').map(|table| format!("{table}{number}")).collect();
            cases.push(("k", query.replace("{}", &number.to_string()), cut.join(" ")));
        }
    }
    let cases: Vec<_> = cases.iter().map(|(keys, query, cut)| (*keys, query.as_str(), cut.as_str())).collect();
    for chunks in chunks {
        let (engine, report, _cache) = assert_cases(folder.path(), &sources, &cases, *chunks).await;
        for of_type in report.tasks.chunks(queries.len()) {
            assert_rows_in_their_chunks(&engine, &of_type[queries.len() - 1].name, &["k"], *chunks).await;
        }
    }
}

/// A query for plain DataFusion, which gives -0.0 a partition of its own.
fn with_one_zero(query: &str) -> String {
    let floats = (0..TYPES.len()).filter(|number| TYPES[*number].0.starts_with("Float"));
    match floats.map(|number| format!(" a{number}")).any(|table| query.ends_with(&table)) {
        true => query.replace("PARTITION BY k ", "PARTITION BY k + 0 "),
        false => query.to_string(),
    }
}

/// Makes `a{number}` as Parquet and `b{number}` as Arrow IPC, their keys partly NULL and half of the others alike.
async fn make_type(folder: &Path, number: usize, data_type: &str, value: &str) -> [String; 2] {
    let value = match value.strip_prefix('=') {
        Some(value) => format!("arrow_cast({value}, '{data_type}')"),
        None => value.to_string(),
    };
    let rows = |first, last| {
        format!(
            "SELECT value AS id, CASE WHEN value % 10 > 0 THEN {value} END AS k, value % 4 AS v
             FROM (SELECT value, CASE WHEN value % 2 = 0 THEN 3 ELSE value % 13 END AS i
                   FROM generate_series({first}, {last}))"
        )
    };
    let batch = rows_of(&rows(1, 45)).await;
    assert_eq!(batch.column_by_name("k").unwrap().data_type().to_string().replace(' ', ""), shown(data_type));
    write_parquet(&folder.join(format!("a{number}.parquet")), &batch);
    write_arrow(&folder.join(format!("b{number}.arrow")), &rows_of(&rows(30, 55)).await);
    [
        parquet_source(folder, &format!("a{number}")),
        format!("CREATE EXTERNAL TABLE b{number} STORED AS ARROW LOCATION '{}/b{number}.arrow'", folder.display()),
    ]
}

/// A type of [`TYPES`] as Arrow shows it, without spaces.
fn shown(data_type: &str) -> String {
    let shown = data_type.replace(' ', "").replace(",None", "").replace("Some(\"", "\"").replace("\"))", "\")");
    let units = [("Second", "s"), ("Millisecond", "ms"), ("Microsecond", "µs"), ("Nanosecond", "ns")];
    if !shown.starts_with("Time") {
        return shown;
    }
    // The longer names hold none of the shorter ones: `Millisecond` has a small s.
    units.iter().fold(shown, |shown, (name, short)| shown.replace(name, short))
}

/// Checks that chunk k of the published table holds only keys of chunk k, NULL keys are in chunk 0, and the chunks
/// together are the table.
async fn assert_rows_in_their_chunks(engine: &Engine, table: &str, keys: &[&str], chunks: u32) {
    let context = SessionContext::new();
    let mut rows = 0;
    for chunk in 0..chunks {
        let slice = context.read_table(engine.table_chunk(table, chunk).await.unwrap()).unwrap();
        let args: Vec<Expr> = [lit(chunks as i32)].into_iter().chain(keys.iter().map(|key| ident(*key))).collect();
        let strange = chunk_of_udf().call(args).not_eq(lit(chunk as i32));
        let strange = match keys {
            [key] if chunk > 0 => strange.or(ident(*key).is_null()),
            _ => strange,
        };
        for batch in slice.select([strange]).unwrap().collect().await.unwrap() {
            assert_eq!(batch.column(0).as_boolean().true_count(), 0, "{table}, chunk {chunk} of {chunks}");
            rows += batch.num_rows() as u64;
        }
    }
    assert_eq!(rows, Multiset::of(engine.table(table).await.unwrap()).await.rows, "{table}");
    assert!(engine.table_chunk(table, chunks).await.is_err());
}

/// Columns of two types that are joined: both sides are cut by the values that the join compares.
const PAIRS: &[(&str, &str)] = &[
    ("i32", "i64"),
    ("i64", "i32"),
    ("i32", "u32"),
    ("u32", "i64"),
    ("i32", "u64"),
    ("i64", "u64"),
    ("i32", "f64"),
    ("i64", "f32"),
    ("i32", "d2"),
    ("i32", "large_text"),
    ("f32", "f64"),
    ("d2", "d2_wide"),
    ("d2_wide", "d2"),
    ("d2", "d4"),
    ("d4", "d2"),
    ("text", "large_text"),
    ("text", "text_view"),
    ("text", "words"),
    ("words", "text"),
    ("words", "words"),
    ("text", "bytes"),
    ("bytes", "large_bytes"),
    ("flag", "flag"),
    ("day", "day_ms"),
    ("day_ms", "day"),
    ("day", "at_s"),
    ("day", "at_us"),
    ("at_s", "at_us"),
    ("at_us", "at_s"),
    ("at_us", "at_utc"),
    ("at_utc", "at_berlin"),
    ("at_berlin", "at_utc"),
    ("hour_s", "hour_s"),
];

/// The columns of [`PAIRS`], with the values of one row equal where their types can tell.
const COLUMNS: &[(&str, &str)] = &[
    ("i32", "arrow_cast(i, 'Int32')"),
    ("i64", "arrow_cast(i, 'Int64')"),
    ("u32", "arrow_cast(i, 'UInt32')"),
    ("u64", "arrow_cast(i, 'UInt64')"),
    ("f32", "arrow_cast(CASE WHEN i = 4 THEN '-0.0' WHEN i = 5 THEN 'NaN' ELSE CAST(i AS VARCHAR) END, 'Float32')"),
    ("f64", "arrow_cast(CASE WHEN i = 4 THEN '0.0' WHEN i = 5 THEN 'NaN' ELSE CAST(i AS VARCHAR) END, 'Float64')"),
    ("d2", "arrow_cast(i * 1.25, 'Decimal128(10, 2)')"),
    ("d2_wide", "arrow_cast(i * 1.25, 'Decimal128(20, 2)')"),
    ("d4", "arrow_cast(i * 1.25, 'Decimal128(12, 4)')"),
    ("text", "arrow_cast(CAST(i AS VARCHAR), 'Utf8')"),
    ("large_text", "arrow_cast(CAST(i AS VARCHAR), 'LargeUtf8')"),
    ("text_view", "arrow_cast(CAST(i AS VARCHAR), 'Utf8View')"),
    ("words", "arrow_cast(CAST(i AS VARCHAR), 'Dictionary(Int32, Utf8)')"),
    ("bytes", "arrow_cast(CAST(i AS VARCHAR), 'Binary')"),
    ("large_bytes", "arrow_cast(CAST(i AS VARCHAR), 'LargeBinary')"),
    ("flag", "i > 5"),
    ("day", "arrow_cast(arrow_cast(i, 'Int32'), 'Date32')"),
    ("day_ms", "arrow_cast(arrow_cast(arrow_cast(i, 'Int32'), 'Date32'), 'Date64')"),
    ("at_s", "arrow_cast(i * 86400, 'Timestamp(Second, None)')"),
    ("at_us", "arrow_cast(i * 86400000000, 'Timestamp(Microsecond, None)')"),
    ("at_utc", "arrow_cast(i * 86400000, 'Timestamp(Millisecond, Some(\"+00:00\"))')"),
    ("at_berlin", "arrow_cast(i * 86400, 'Timestamp(Second, Some(\"+01:00\"))')"),
    ("hour_s", "arrow_cast(arrow_cast(i * 60, 'Int32'), 'Time32(Second)')"),
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn joins_of_two_types_are_cut_by_their_common_type() {
    let folder = tempfile::tempdir().unwrap();
    for (table, prefix, first, last) in [("lefts", "", 1, 40), ("rights", "r_", 21, 60)] {
        let columns: Vec<String> = COLUMNS
            .iter()
            .map(|(name, value)| format!("CASE WHEN value % 8 > 0 THEN {value} END AS {prefix}{name}"))
            .collect();
        let query = format!(
            "SELECT value AS {prefix}id, {} FROM (SELECT value, value % 11 AS i FROM generate_series({first}, {last}))",
            columns.join(", ")
        );
        write_arrow(&folder.path().join(format!("{table}.arrow")), &rows_of(&query).await);
    }
    let source = |table: &str| {
        format!("CREATE EXTERNAL TABLE {table} STORED AS ARROW LOCATION '{}/{table}.arrow'", folder.path().display())
    };
    let sources = [source("lefts"), source("rights")];
    let oracle = oracle(&sources).await;

    let query = |join: &str, left: &str, right: &str| {
        format!("SELECT {left}, id, r_id, r_{right} AS other FROM lefts {join} JOIN rights ON {left} = r_{right}")
    };
    let mut text = format!("{};\n", sources.join(";\n"));
    for (at, (left, right)) in PAIRS.iter().enumerate() {
        for (name, join) in [("a", "INNER"), ("b", "RIGHT")] {
            let query = query(join, left, right);
            text.push_str(&format!("CREATE TABLE t{at:02}{name} CLUSTERED BY ({left}) INTO 5 BUCKETS AS {query};\n"));
        }
    }
    let cache = tempfile::tempdir().unwrap();
    let engine = engine(cache.path());
    let report = try_run(&engine, &text, folder.path()).await;
    assert_eq!(report.tasks.len(), 2 * PAIRS.len());
    let mut wrong = Vec::new();
    for (at, (left, right)) in PAIRS.iter().enumerate() {
        for (at, join) in [(2 * at, "INNER"), (2 * at + 1, "RIGHT")] {
            let task = &report.tasks[at];
            let found = cut(&report, at);
            if (task.status, found.as_str()) != (Status::Executed, "lefts rights") {
                wrong.push(format!("{join} {left} = {right}: {:?}, cut {found}, {}", task.status, task.reason));
            } else {
                let whole = query_rows(&oracle, &query(join, left, right)).await;
                let rows = Multiset::of(engine.table(&task.name).await.unwrap()).await;
                if rows != whole || whole.rows == 0 {
                    wrong.push(format!("{join} {left} = {right}: {rows:?} for {whole:?}"));
                }
            }
        }
    }
    assert_eq!(wrong, Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn keys_of_several_columns_go_together() {
    let folder = tempfile::tempdir().unwrap();
    let rows = "SELECT value AS id, CASE WHEN value % 4 > 0 THEN value % 5 END AS p,
                       CASE WHEN value % 3 > 0 THEN concat('q', value % 2) END AS q,
                       arrow_cast(arrow_cast(value % 6, 'Int32'), 'Date32') AS d FROM generate_series(1, 80)";
    make_parquet(folder.path(), "a", rows).await;
    make_parquet(folder.path(), "b", &rows.replace("% 5", "% 7")).await;
    let cases = [
        ("p, q", "SELECT * FROM a", "a"),
        ("q, p, d", "SELECT * FROM a", "a"),
        ("p, q", "SELECT p, q, count(*) AS n, sum(id) AS total FROM a GROUP BY p, q", "a"),
        ("q, p", "SELECT DISTINCT p, q, d FROM a", "a"),
        ("p, q, d", "SELECT a.p, a.q, a.d, b.id FROM a LEFT JOIN b ON a.p = b.p AND a.q = b.q AND a.d = b.d", "a b"),
        ("p, q", "SELECT a.p, a.q, b.id FROM a JOIN b ON a.p = b.p AND a.q = b.q AND a.d < b.d", "a b"),
        ("q, p", "SELECT p, q, id, rank() OVER (PARTITION BY d, p, q ORDER BY id) AS place FROM a", "a"),
        ("p, q", "SELECT p, q, d FROM a UNION SELECT p, q, d FROM b", "a b"),
    ];
    let sources = [parquet_source(folder.path(), "a"), parquet_source(folder.path(), "b")];
    let (engine, report, _cache) = assert_cases(folder.path(), &sources, &cases, 6).await;
    for (task, (keys, ..)) in report.tasks.iter().zip(&cases) {
        let keys: Vec<&str> = keys.split(", ").collect();
        assert_eq!(task.keys, keys);
        assert_rows_in_their_chunks(&engine, &task.name, &keys, 6).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn inputs_without_rows_keep_the_schema_in_every_chunk() {
    let folder = tempfile::tempdir().unwrap();
    let rows = "SELECT value AS id, value % 3 AS k, concat('s', value) AS s FROM generate_series(1, 9)";
    let full = rows_of(rows).await;
    write_parquet(&folder.path().join("full.parquet"), &full);
    write_parquet(&folder.path().join("none.parquet"), &RecordBatch::new_empty(full.schema()));
    let cases = [
        ("k", "SELECT * FROM none", "none"),
        ("k", "SELECT k, count(*) AS n, max(s) AS most FROM none GROUP BY k", "none"),
        ("k", "SELECT none.k, f.s FROM none JOIN \"full\" f ON none.k = f.k", "full none"),
        ("k", "SELECT f.k, none.s FROM \"full\" f LEFT JOIN none ON none.k = f.k", "full none"),
        ("k", "SELECT k, s FROM \"full\" WHERE NOT EXISTS (SELECT 1 FROM none WHERE none.k = \"full\".k)", "full none"),
    ];
    let sources = [
        parquet_source(folder.path(), "none"),
        parquet_source(folder.path(), "full").replace("TABLE full", "TABLE \"full\""),
    ];
    let (engine, report, _cache) = assert_cases(folder.path(), &sources, &cases, 4).await;
    assert_eq!(report.tasks.iter().map(|task| task.rows).collect::<Vec<_>>(), [0, 0, 0, 9, 9]);
    for task in &report.tasks {
        let schema = engine.table(&task.name).await.unwrap().schema();
        assert!(schema.fields().len() > 1 && schema.field(0).data_type().is_integer());
        for chunk in 0..4 {
            assert_eq!(engine.table_chunk(&task.name, chunk).await.unwrap().schema(), schema, "{}", task.name);
        }
        assert_rows_in_their_chunks(&engine, &task.name, &["k"], 4).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn files_of_every_format_and_place_are_cut_alike() {
    let folder = tempfile::tempdir().unwrap();
    let place = folder.path().display();
    let rows = |first: u32, last: u32| {
        format!(
            "SELECT CASE WHEN value % 7 > 0 THEN value % 13 END AS k, concat('s', value % 5) AS s, value AS v
             FROM generate_series({first}, {last})"
        )
    };
    let [mut csv, mut json] = [String::from("k,s,v\n"), String::new()];
    for v in 1..=60 {
        let k = (v % 7 > 0).then_some(v % 13);
        csv.push_str(&format!("{},s{},{v}\n", k.map_or(String::new(), |k| k.to_string()), v % 5));
        let k = k.map_or("null".to_string(), |k| k.to_string());
        json.push_str(&format!("{{\"k\": {k}, \"s\": \"s{}\", \"v\": {v}}}\n", v % 5));
    }
    fs::write(folder.path().join("rows.csv"), csv).unwrap();
    fs::write(folder.path().join("rows.json"), json).unwrap();
    write_arrow(&folder.path().join("rows.arrow"), &rows_of(&rows(1, 60)).await);
    make_parquet(folder.path(), "rows", &rows(1, 60)).await;
    fs::create_dir(folder.path().join("parts")).unwrap();
    for (name, first, last) in [("x1", 1, 20), ("x2", 21, 50), ("y1", 51, 60)] {
        make_parquet(&folder.path().join("parts"), name, &rows(first, last)).await;
    }
    let sources = [
        format!(
            "CREATE EXTERNAL TABLE a_csv STORED AS CSV LOCATION '{place}/rows.csv' OPTIONS ('format.has_header' 'true')"
        ),
        format!("CREATE EXTERNAL TABLE b_json STORED AS JSON LOCATION '{place}/rows.json'"),
        format!("CREATE EXTERNAL TABLE c_arrow STORED AS ARROW LOCATION '{place}/rows.arrow'"),
        format!("CREATE EXTERNAL TABLE d_parquet STORED AS PARQUET LOCATION '{place}/rows.parquet'"),
        format!("CREATE EXTERNAL TABLE e_folder STORED AS PARQUET LOCATION '{place}/parts/'"),
        format!("CREATE EXTERNAL TABLE f_glob STORED AS PARQUET LOCATION '{place}/parts/x*.parquet'"),
    ];
    let tables = ["a_csv", "b_json", "c_arrow", "d_parquet", "e_folder", "f_glob"];
    let queries: Vec<_> = tables.iter().map(|t| format!("SELECT k, s, sum(v) AS v FROM {t} GROUP BY k, s")).collect();
    let joins: Vec<_> = tables
        .iter()
        .map(|t| format!("SELECT l.k, l.v, r.v AS w FROM {t} l LEFT JOIN d_parquet r ON l.k = r.k AND l.s = r.s"))
        .collect();
    let cuts: Vec<_> = tables.iter().map(|t| [t.to_string(), sorted(&[t, "d_parquet"])]).collect();
    let mut cases = Vec::new();
    for at in 0..tables.len() {
        cases.push(("k", queries[at].as_str(), cuts[at][0].as_str()));
        cases.push(("k", joins[at].as_str(), cuts[at][1].as_str()));
    }
    let (engine, report, _cache) = assert_cases(folder.path(), &sources, &cases, 3).await;
    let grouped = format!("SELECT k, s, sum(v) AS v FROM ({}) GROUP BY k, s", rows(1, 60));
    let alike = Multiset::of_batches(&[rows_of(&grouped).await]);
    for task in report.tasks.iter().step_by(2).take(5) {
        assert_eq!(Multiset::of(engine.table(&task.name).await.unwrap()).await, alike, "{:?}", task.inputs);
        assert_rows_in_their_chunks(&engine, &task.name, &["k"], 3).await;
    }
    assert_ne!(Multiset::of(engine.table(&report.tasks[10].name).await.unwrap()).await, alike);
}

#[tokio::test(flavor = "multi_thread")]
async fn steps_store_what_no_table_may_have() {
    let folder = tempfile::tempdir().unwrap();
    let engine = engine(&folder.path().join("cache"));
    let interval =
        "CASE k % 4 WHEN 0 THEN INTERVAL '1 month' WHEN 1 THEN INTERVAL '2 days' WHEN 2 THEN INTERVAL '-1 hour' END";
    let dictionary = "arrow_cast(CASE WHEN k % 3 > 0 THEN concat('x', k % 3) END, 'Dictionary(Int32, Utf8View)')";
    let queries = [
        format!("SELECT count(*) AS n, CAST(i AS VARCHAR) AS i FROM (SELECT {interval} AS i FROM t) GROUP BY i"),
        format!("SELECT CAST(max(i) AS VARCHAR) AS i, count(DISTINCT i) AS n FROM (SELECT {interval} AS i FROM t)"),
        format!("SELECT count(*) AS n, CAST(d AS VARCHAR) AS d FROM (SELECT {dictionary} AS d FROM t) GROUP BY d"),
        format!(
            "SELECT k, CAST(d AS VARCHAR) AS d, rank() OVER (ORDER BY d, k) AS r FROM (SELECT {dictionary} AS d, k FROM t ORDER BY k LIMIT 7)"
        ),
        format!(
            "SELECT k, CAST(i AS VARCHAR) AS i, rank() OVER (ORDER BY k) AS r FROM (SELECT {interval} AS i, k FROM t ORDER BY k LIMIT 7)"
        ),
    ];
    let mut sql = "CREATE TABLE t AS SELECT value AS k FROM generate_series(1, 50) AS t(value);".to_string();
    for (at, query) in queries.iter().enumerate() {
        sql += &format!(
            "CREATE TABLE whole{at} WITH (chunks = 1) AS {query}; CREATE TABLE cut{at} CLUSTERED BY (k) INTO 3 BUCKETS AS {query};"
        );
    }
    run(&engine, &sql, folder.path()).await;
    for (at, query) in queries.iter().enumerate() {
        let whole = rows_as_text(&engine, &format!("SELECT * FROM whole{at}")).await;
        assert_eq!(rows_as_text(&engine, &format!("SELECT * FROM cut{at}")).await, whole, "{query}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_readers_would_see_otherwise_is_refused_before_it_runs() {
    let folder = tempfile::tempdir().unwrap();
    let engine = engine(&folder.path().join("cache"));
    let cases = [
        ("SELECT k AS \"Chunk\" FROM t", "clashes with the partition folders"),
        ("SELECT k, INTERVAL '1 month' AS i FROM t", "which Parquet readers don't agree on"),
        ("SELECT k, k + 1 AS k FROM t", "several columns are called `k`"),
    ];
    for (query, words) in cases {
        for cut in ["", "CLUSTERED BY (k) INTO 2 BUCKETS"] {
            let sql = format!(
                "CREATE VIEW t AS SELECT value AS k FROM generate_series(1, 3); CREATE TABLE o {cut} AS {query}"
            );
            let pipeline = chunkwise::sql::parse(&sql, "t.sql", folder.path()).unwrap();
            let report = engine.run(&pipeline, &RunOptions::default()).await.unwrap();
            assert!(report.tasks[0].reason.contains(words), "{}", report.tasks[0].reason);
            assert_eq!(report.tasks[0].error, Some(chunkwise::ErrorKind::Sql));
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn keys_have_the_case_and_signs_of_their_columns() {
    let folder = tempfile::tempdir().unwrap();
    let rows = "SELECT value % 5 AS k, value % 7 AS \"K\", value % 3 AS \"Order Key\", value % 2 AS \"a.b\",
                       value % 4 AS \"quo\"\"te\", value AS id FROM generate_series(1, 50)";
    make_parquet(folder.path(), "a", rows).await;
    let cases = [
        ("k", "SELECT * FROM a", "a"),
        ("K", "SELECT k, count(*) AS n FROM a GROUP BY k", "a"),
        ("\"K\"", "SELECT * FROM a", "a"),
        ("\"K\", k", "SELECT \"K\", k, sum(id) AS total FROM a GROUP BY k, \"K\"", "a"),
        ("\"Order Key\"", "SELECT \"Order Key\", count(*) AS n FROM a GROUP BY \"Order Key\"", "a"),
        ("\"a.b\"", "SELECT l.\"a.b\", l.id FROM a l JOIN a r ON l.\"a.b\" = r.\"a.b\"", "a a"),
        ("\"quo\"\"te\"", "SELECT DISTINCT \"quo\"\"te\" FROM a", "a"),
    ];
    let keys = [vec!["k"], vec!["k"], vec!["K"], vec!["K", "k"], vec!["Order Key"], vec!["a.b"], vec!["quo\"te"]];
    let sources = [parquet_source(folder.path(), "a")];
    let (engine, report, _cache) = assert_cases(folder.path(), &sources, &cases, 3).await;
    for (task, keys) in report.tasks.iter().zip(keys) {
        assert_eq!(task.keys, keys);
        assert_rows_in_their_chunks(&engine, &task.name, &keys, 3).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn text_inside_other_types_is_stored_as_all_readers_know_it() {
    let folder = tempfile::tempdir().unwrap();
    let rows = "SELECT k, arrow_cast(t, 'Utf8View') AS text, arrow_cast(t, 'BinaryView') AS bytes,
                       make_array(arrow_cast(t, 'Utf8View'), NULL) AS list,
                       named_struct('a', make_array(named_struct('b', arrow_cast(t, 'BinaryView')))) AS deep,
                       map([arrow_cast(concat('k', k), 'Utf8View')], [arrow_cast(t, 'Utf8View')]) AS map
                FROM (SELECT value AS k, CASE WHEN value % 3 > 0 THEN repeat('ü', value) END AS t
                      FROM generate_series(1, 20))";
    let batch = rows_of(rows).await;
    assert!(format!("{:?}", batch.schema()).contains("List(Field { data_type: Utf8View"), "{:?}", batch.schema());
    write_parquet(&folder.path().join("s.parquet"), &batch);
    let sql = format!(
        "{}; CREATE TABLE a CLUSTERED BY (k) INTO 3 BUCKETS AS SELECT * FROM s;
         CREATE TABLE b CLUSTERED BY (k) INTO 3 BUCKETS AS SELECT * FROM a WHERE deep IS NOT NULL;
         CREATE TABLE c AS SELECT text, list, map FROM b",
        parquet_source(folder.path(), "s")
    );
    let cache = tempfile::tempdir().unwrap();
    let engine = engine(cache.path());
    run(&engine, &sql, folder.path()).await;
    let whole = Multiset::of_batches(&[batch]);
    for table in ["a", "b"] {
        assert_eq!(Multiset::of(engine.table(table).await.unwrap()).await, whole, "{table}");
    }
    let files = files_in(&cache.path().join("chunks"));
    assert!(files.len() >= 7, "{files:?}");
    for file in files {
        let reader = ParquetRecordBatchReaderBuilder::try_new(fs::File::open(file).unwrap()).unwrap();
        assert!(!format!("{:?}", reader.schema()).contains("View"), "{:?}", reader.schema());
    }
}

/// Runs one task for each of keys, query and what is cut, and compares its rows with the oracle's.
async fn assert_cases(
    folder: &Path,
    sources: &[String],
    cases: &[(&str, &str, &str)],
    chunks: u32,
) -> (Engine, RunReport, tempfile::TempDir) {
    let mut text = format!("{};", sources.join(";\n"));
    for (at, (keys, query, _)) in cases.iter().enumerate() {
        text.push_str(&format!("\nCREATE TABLE t{at:03} CLUSTERED BY ({keys}) INTO {chunks} BUCKETS AS {query};"));
    }
    let cache = tempfile::tempdir().unwrap();
    let engine = engine(cache.path());
    let report = run(&engine, &text, folder).await;
    let oracle = oracle(sources).await;
    let mut wrong = Vec::new();
    for (at, (_, query, expected)) in cases.iter().enumerate() {
        let whole = query_rows(&oracle, &with_one_zero(query)).await;
        let found = Multiset::of(engine.table(&report.tasks[at].name).await.unwrap()).await;
        if found != whole || cut(&report, at) != *expected {
            wrong.push(format!("{query}\n{found:?} for {whole:?}, cut {}", cut(&report, at)));
        }
    }
    assert_eq!(wrong, Vec::<String>::new());
    (engine, report, cache)
}

fn sorted(tables: &[&str]) -> String {
    let mut tables = tables.to_vec();
    tables.sort_unstable();
    tables.join(" ")
}
