//! How chunks get their part of an input: what is read, and that the rows are those of the whole run.

use std::path::Path;
use std::sync::{Arc, Mutex};

use arrow::array::{ArrayRef, Int64Array, RecordBatch};
use chunkwise::{Engine, Event, InputMode, RunReport, Status};
use parquet::arrow::ArrowWriter;
use parquet::file::properties::WriterProperties;

use crate::support::{Multiset, engine, make_parquet, oracle, parquet_source, query_rows, run, try_run};

/// Sources `items` and `other`, with NULL keys.
async fn sources(folder: &Path) -> String {
    for (name, rows) in [("items", 2000), ("other", 500)] {
        let query = format!(
            "SELECT CASE WHEN value % 50 = 0 THEN NULL ELSE value % 97 END AS k, value % 5 AS g, value AS v,
                'text ' || value AS s FROM generate_series(1, {rows}) AS t(value)"
        );
        make_parquet(folder, name, &query).await;
    }
    ["items", "other"].map(|name| format!("{};\n", parquet_source(folder, name))).concat()
}

fn mode(report: &RunReport, task: &str, input: &str) -> InputMode {
    let task = report.task(task).unwrap();
    task.inputs.iter().find(|i| i.table == input).unwrap_or_else(|| panic!("{task:#?}")).mode
}

/// Runs the task `stored`, cut by `(k)` into `stored_chunks`, and `task` over it and other tables; its rows must be those
/// of the whole query.
async fn reads(stored_chunks: u32, task: &str, query: &str) -> (RunReport, String) {
    let folder = tempfile::tempdir().unwrap();
    let sources = sources(folder.path()).await;
    let stored = "SELECT k, g, v, s FROM items WHERE v % 7 <> 0";
    let sql = format!(
        "{sources}CREATE TABLE stored CLUSTERED BY (k) INTO {stored_chunks} BUCKETS AS {stored};\n{task} AS {query}"
    );
    let engine = engine(&folder.path().join("cache"));
    let report = run(&engine, &sql, folder.path()).await;
    let name = report.tasks.iter().map(|task| task.name.as_str()).find(|name| *name != "stored").unwrap();
    let found = Multiset::of(engine.table(name).await.unwrap()).await;
    let mut statements: Vec<String> = sources.split_inclusive(";\n").map(String::from).collect();
    statements.push(format!("CREATE TABLE stored AS {stored}"));
    let whole = query_rows(&oracle(&statements).await, query).await;
    assert_eq!(found, whole, "{report:#?}");
    assert!(whole.rows > 0);
    let text = explained(&engine, &sql, folder.path(), name).await;
    (report, text)
}

async fn explained(engine: &Engine, sql: &str, folder: &Path, task: &str) -> String {
    let pipeline = chunkwise::sql::parse(sql, "test.sql", folder).unwrap();
    engine.explain(&pipeline, Some(task)).await.unwrap().pop().unwrap().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_input_that_is_stored_by_the_keys_is_read_by_file() {
    let query = "SELECT k, count(*) AS n, sum(v) AS v, max(s) AS s FROM stored GROUP BY k";
    for (stored, chunks, opened) in [
        (8, 8, "a chunk opens 1 of 8 files\n"),
        (12, 4, "a chunk opens 3 of 12 files\n"),
        (4, 12, "a chunk opens 1 of 4 files and keeps its rows\n"),
        (6, 4, "a chunk opens 3 of 6 files and keeps its rows\n"),
    ] {
        let task = format!("CREATE TABLE t CLUSTERED BY (k) INTO {chunks} BUCKETS");
        let (report, text) = reads(stored, &task, query).await;
        assert_eq!(mode(&report, "t", "stored"), InputMode::Reuse);
        assert!(text.contains(&format!("stored  reuse: stored by (k), {opened}")), "{text}");
        assert_eq!(text.contains("chunk_of"), opened.contains("keeps"), "{text}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_input_that_is_stored_otherwise_is_not() {
    let by_k = "SELECT k, count(*) AS n FROM stored GROUP BY k";
    for (stored, task, query) in [
        // Numbers of chunks without a common divisor.
        (8, "CREATE TABLE t CLUSTERED BY (k) INTO 9 BUCKETS", by_k),
        (1, "CREATE TABLE t CLUSTERED BY (k) INTO 4 BUCKETS", by_k),
        // Other keys, more keys, and something of the key.
        (8, "CREATE TABLE t CLUSTERED BY (g) INTO 8 BUCKETS", "SELECT g, count(*) AS n FROM stored GROUP BY g"),
        (
            8,
            "CREATE TABLE t CLUSTERED BY (k, g) INTO 8 BUCKETS",
            "SELECT k, g, count(*) AS n FROM stored GROUP BY k, g",
        ),
        (
            8,
            "CREATE TABLE t CLUSTERED BY (half) INTO 8 BUCKETS",
            "SELECT half, count(*) AS n FROM (SELECT k % 2 AS half FROM stored) GROUP BY half",
        ),
        // A join in another type: a decimal does not hash like an integer.
        (
            8,
            "CREATE TABLE t CLUSTERED BY (k) INTO 8 BUCKETS",
            "SELECT a.k, count(*) AS n FROM stored AS a JOIN (SELECT CAST(k AS DECIMAL(20, 2)) AS d FROM other) AS b
                ON a.k = b.d GROUP BY a.k",
        ),
    ] {
        let (report, text) = reads(stored, task, query).await;
        assert_eq!(mode(&report, "t", "stored"), InputMode::Rescan, "{task}\n{text}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn stored_and_other_inputs_are_joined() {
    let query = "SELECT a.k, a.s, b.v FROM stored AS a FULL JOIN other AS b ON a.k = b.k AND a.g = b.g";
    for chunks in [3, 6, 12] {
        let task = format!("CREATE TABLE t CLUSTERED BY (k) INTO {chunks} BUCKETS");
        let (report, _) = reads(6, &task, query).await;
        assert_eq!(mode(&report, "t", "stored"), InputMode::Reuse);
        assert_eq!(mode(&report, "t", "other"), InputMode::Rescan);
    }
}

/// Writes integers in order to `<folder>/<name>.parquet`, in row groups of `group` rows.
fn write_sorted(folder: &Path, name: &str, keys: std::ops::Range<i64>, group: usize) {
    let rows = keys.flat_map(|key| [(key, key % 7), (key, key % 3)]);
    let (k, v): (Vec<i64>, Vec<i64>) = rows.unzip();
    let columns = [("k", Int64Array::from(k)), ("v", Int64Array::from(v))];
    let batch = RecordBatch::try_from_iter(columns.map(|(name, column)| (name, Arc::new(column) as ArrayRef))).unwrap();
    let properties = WriterProperties::builder().set_max_row_group_row_count(Some(group)).build();
    let file = std::fs::File::create(folder.join(format!("{name}.parquet"))).unwrap();
    let mut writer = ArrowWriter::try_new(file, batch.schema(), Some(properties)).unwrap();
    writer.write(&batch).unwrap();
    writer.close().unwrap();
}

const BY_K: &str = "SELECT a.k, count(*) AS n, sum(b.v) AS v FROM a LEFT JOIN b ON a.k = b.k GROUP BY a.k";

#[tokio::test(flavor = "multi_thread")]
async fn inputs_that_are_clustered_by_the_key_are_cut_by_ranges_of_it() {
    let folder = tempfile::tempdir().unwrap();
    write_sorted(folder.path(), "a", 0..4000, 100);
    write_sorted(folder.path(), "b", 1000..5000, 333);
    let sources = ["a", "b"].map(|name| format!("{};\n", parquet_source(folder.path(), name))).concat();
    let engine = engine(&folder.path().join("cache"));
    let sql = format!(
        "{sources}CREATE TABLE t WITH (chunk_by = 'auto') AS {BY_K};
         CREATE TABLE u WITH (chunk_by = 'auto') AS SELECT k, max(n) AS n FROM t GROUP BY k;
         CREATE TABLE h WITH (chunk_by = 'hash') AS {BY_K};"
    );
    let report = run(&engine, &sql, folder.path()).await;
    let statements: Vec<String> = sources.split_inclusive(";\n").map(String::from).collect();
    let whole = query_rows(&oracle(&statements).await, BY_K).await;
    for table in ["t", "h"] {
        assert_eq!(Multiset::of(engine.table(table).await.unwrap()).await, whole, "{report:#?}");
    }
    for input in ["a", "b"] {
        assert_eq!(mode(&report, "t", input), InputMode::Range);
        assert_eq!(mode(&report, "h", input), InputMode::Rescan);
    }
    assert_eq!(mode(&report, "u", "t"), InputMode::Reuse);
    let chunks = report.task("t").unwrap().chunks;
    assert!((12..=20).contains(&chunks), "{chunks}");
    let text = explained(&engine, &sql, folder.path(), "t").await;
    assert!(text.contains("chunks by range of (k), found by the engine"), "{text}");
    assert!(text.contains("a  range: clustered by (k), all chunks together read it 1.00 times"), "{text}");
    let text = explained(&engine, &sql, folder.path(), "u").await;
    assert!(text.contains(&format!("t  reuse: stored by (k), a chunk opens 1 of {chunks} files\n")), "{text}");
    assert!(!text.contains("Filter"), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn data_that_is_added_above_runs_the_last_and_new_chunks_only() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    std::fs::create_dir(&data).unwrap();
    write_sorted(&data, "1", 0..4000, 100);
    let engine = engine(&folder.path().join("cache"));
    let sql = "CREATE EXTERNAL TABLE a STORED AS PARQUET LOCATION 'data/';
        CREATE TABLE t WITH (chunk_by = 'auto') AS SELECT k, count(*) AS n, sum(v) AS v FROM a GROUP BY k;
        CREATE TABLE u WITH (chunk_by = 'auto') AS SELECT k, max(n) AS n FROM t GROUP BY k;";
    let first = run(&engine, sql, folder.path()).await;
    let chunks = first.task("t").unwrap().chunks;
    assert!(chunks >= 12, "{first:#?}");
    write_sorted(&data, "2", 4000..4600, 100);
    let second = run(&engine, sql, folder.path()).await;
    let task = second.task("t").unwrap();
    assert!(task.chunks > chunks && task.reused == chunks - 1, "{task:#?}");
    assert_eq!((task.rows, task.reason.as_str()), (4600, "changed: chunks, input `a`; 3 of 18 chunks differ"));
    let third = run(&engine, sql, folder.path()).await;
    assert_eq!(third.task("t").unwrap().executed, 0);
    // Of a file that is changed in place only chunks run that open row groups which changed.
    write_sorted(&data, "2", 4000..4610, 100);
    let fourth = run(&engine, sql, folder.path()).await;
    let task = fourth.task("t").unwrap();
    assert!((task.executed, task.rows) == (1, 4610), "{task:#?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn inputs_in_any_order_are_cut_by_hash_unless_ranges_are_asked_for() {
    let folder = tempfile::tempdir().unwrap();
    let sources = sources(folder.path()).await;
    let query = "SELECT k, count(*) AS n FROM items GROUP BY k";
    let engine = engine(&folder.path().join("cache"));
    let sql = format!(
        "{sources}CREATE TABLE t WITH (chunk_by = 'auto') AS {query};
         CREATE TABLE r WITH (chunk_by = 'range', chunks = 3) AS {query};"
    );
    let report = run(&engine, &sql, folder.path()).await;
    assert_eq!(mode(&report, "t", "items"), InputMode::Rescan);
    let statements: Vec<String> = sources.split_inclusive(";\n").map(String::from).collect();
    let whole = query_rows(&oracle(&statements).await, query).await;
    for table in ["t", "r"] {
        assert_eq!(Multiset::of(engine.table(table).await.unwrap()).await, whole, "{report:#?}");
    }
    // No statistics tell of an expression.
    let by_expression =
        "WITH (chunk_by = 'range', chunks = 3) AS SELECT k % 3 AS m, count(*) AS n FROM items GROUP BY 1";
    let sql = format!("{sources}CREATE TABLE e {by_expression};");
    let text = explained(&engine, &sql, folder.path(), "e").await;
    assert!(text.contains("found by the engine, computed in one pass; not by range, since"), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_input_is_split_once_for_all_tasks_that_cut_it_alike() {
    let folder = tempfile::tempdir().unwrap();
    let sources = sources(folder.path()).await;
    let splits: Arc<Mutex<Vec<(String, u64)>>> = Arc::default();
    let seen = Arc::clone(&splits);
    let engine = Engine::builder().cache_folder(folder.path().join("cache")).jobs(2).on_event(move |event| {
        if let Event::Split { input, rows, .. } = event {
            seen.lock().unwrap().push((input, rows));
        }
    });
    let engine = engine.build().unwrap();
    let made = || std::mem::take(&mut *splits.lock().unwrap());
    let counted = "SELECT k, count(*) AS n FROM items WHERE v % 3 = 0 GROUP BY k";
    let joined = "SELECT i.k, i.s, o.v FROM items AS i LEFT JOIN other AS o ON i.k = o.k AND i.v > o.v";
    let with = |name: &str, query: &str, options: &str| {
        format!("CREATE TABLE {name} CLUSTERED BY (k) INTO 5 BUCKETS WITH ({options}) AS {query};\n")
    };
    let whole = oracle(&sources.split_inclusive(";\n").map(String::from).collect::<Vec<_>>()).await;
    let split = "read_by = 'split'";
    let sql = format!("{sources}{}{}", with("counted", counted, split), with("joined", joined, split));
    let report = run(&engine, &sql, folder.path()).await;
    for (name, query) in [("counted", counted), ("joined", joined)] {
        assert_eq!(Multiset::of(engine.table(name).await.unwrap()).await, query_rows(&whole, query).await, "{name}");
        assert_eq!(mode(&report, name, "items"), InputMode::Split);
        assert!(report.task(name).unwrap().split_bytes > 0);
    }
    let mut first = made();
    first.sort();
    // What does not pass the filter is not kept; the two tasks need other columns and rows.
    assert_eq!(first, [("items".into(), 666), ("items".into(), 2000), ("other".into(), 500)]);
    let text = explained(&engine, &sql, folder.path(), "joined").await;
    assert!(text.contains("items  split: one pass over") && text.contains("other  split: "), "{text}");

    // Another task with the same needs, in the same run and in another, without being told.
    let again = format!("{sql}{}", with("twin", &counted.replace("count(*)", "count(*) + 1"), "version = 1"));
    let report = run(&engine, &again, folder.path()).await;
    assert_eq!((mode(&report, "twin", "items"), made()), (InputMode::Split, Vec::new()));
    assert_eq!(report.task("twin").unwrap().split_bytes, 0);
    // Told not to.
    let rescans =
        format!("{sources}{}", with("rescans", &counted.replace("count(*)", "count(*) + 2"), "read_by = 'rescan'"));
    let report = run(&engine, &rescans, folder.path()).await;
    assert_eq!((mode(&report, "rescans", "items"), made()), (InputMode::Rescan, Vec::new()));

    // Of a source that changed the split is made again and the old one is gone.
    make_parquet(
        folder.path(),
        "items",
        "SELECT value % 11 AS k, value AS g, value AS v, '' AS s FROM generate_series(1, 9) AS t(value)",
    )
    .await;
    let report = run(&engine, &sql, folder.path()).await;
    assert_eq!(report.task("counted").unwrap().rows, 3);
    let mut second = made();
    second.sort();
    assert_eq!(second, [("items".into(), 3), ("items".into(), 9)]);
    let kept = |path: &Path| std::fs::read_dir(path).unwrap().map(|entry| entry.unwrap().path()).collect::<Vec<_>>();
    let cuts = kept(&folder.path().join("cache/splits"));
    assert_eq!(cuts.iter().map(|cut| kept(cut).len()).collect::<Vec<_>>(), [1, 1, 1]);

    // One that is damaged is made again.
    for file in cuts.iter().flat_map(|cut| kept(cut)).flat_map(|split| kept(&split)) {
        std::fs::write(file, "no split").unwrap();
    }
    let report = run(&engine, &sql.replace("count(*)", "count(*) + 3"), folder.path()).await;
    assert_eq!((report.task("counted").unwrap().executed, made()), (5, vec![("items".into(), 3)]));

    // Damage that only its reading shows fails the task once.
    let rows = "SELECT value % 11 AS k, value AS g, value AS v, '' AS s FROM generate_series(1, 9000) AS t(value)";
    make_parquet(folder.path(), "items", rows).await;
    let edited = |number: u32| sql.replace("count(*)", &format!("count(*) + {number}"));
    run(&engine, &edited(4), folder.path()).await;
    assert!(made().contains(&("items".into(), 3000)));
    for file in cuts.iter().flat_map(|cut| kept(cut)).flat_map(|split| kept(&split)) {
        let mut bytes = std::fs::read(&file).unwrap();
        let middle = bytes.len() / 2;
        bytes[middle..].iter_mut().take(40).for_each(|byte| *byte ^= 0xa5);
        std::fs::write(file, bytes).unwrap();
    }
    let report = try_run(&engine, &edited(5), folder.path()).await;
    let task = report.task("counted").unwrap();
    assert!(task.status == Status::Failed && task.reason.contains("is not what was written"), "{task:#?}");
    let report = run(&engine, &edited(5), folder.path()).await;
    assert_eq!((report.task("counted").unwrap().rows, made()), (11, vec![("items".into(), 3000)]));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_input_is_split_where_that_costs_less_than_reading_it_for_each_chunk() {
    let folder = tempfile::tempdir().unwrap();
    // Incompressible text of some 2 MB.
    make_parquet(
        folder.path(),
        "t",
        "SELECT value % 1000 AS k, encode(sha256(CAST(value AS VARCHAR)), 'base64') AS s FROM generate_series(1, 50000) AS t(value)",
    )
    .await;
    // Each chunk reads for itself.
    let engine = Engine::builder().cache_folder(folder.path().join("cache")).one_by_one().build().unwrap();
    let task = |name: &str, chunks: u32| {
        format!(
            "CREATE TABLE {name} CLUSTERED BY (k) INTO {chunks} BUCKETS AS SELECT k, max(s) AS s FROM t GROUP BY k;\n"
        )
    };
    let sql = format!("{};\n{}{}", parquet_source(folder.path(), "t"), task("few", 4), task("many", 64));
    let report = run(&engine, &sql, folder.path()).await;
    assert_eq!(mode(&report, "few", "t"), InputMode::Rescan);
    assert_eq!(mode(&report, "many", "t"), InputMode::Split);
    let rows = |name: &'static str| async { Multiset::of(engine.table(name).await.unwrap()).await };
    assert_eq!(rows("few").await, rows("many").await);
}
