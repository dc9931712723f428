//! What runs again after a change, chunk by chunk, told by the event log; and what readers see meanwhile.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use arrow::array::{ArrayRef, Int64Array, RecordBatch, StringArray};
use chunkwise::{Engine, Event, Pipeline, RunOptions, RunReport, Status, TaskReport};
use datafusion::prelude::{ParquetReadOptions, SessionContext};
use tempfile::TempDir;

use crate::support::{Multiset, engine, oracle, oracle_rows, rows_as_text, run, touch, write_parquet};

const SOURCES: &str = "
    CREATE EXTERNAL TABLE orders STORED AS PARQUET LOCATION 'orders.parquet';
    CREATE EXTERNAL TABLE customers STORED AS PARQUET LOCATION 'customers.parquet';
";
const REVENUE: &str = "
    CREATE TABLE revenue CLUSTERED BY (customer) INTO 4 BUCKETS AS
    SELECT o.customer, c.name, sum(o.amount) AS total FROM orders o JOIN customers c ON o.customer = c.id
    WHERE c.name <> 'x' GROUP BY o.customer, c.name;
";
const NAMES: &str = "
    CREATE TABLE names CLUSTERED BY (id) INTO 3 BUCKETS AS SELECT id, upper(name) AS name FROM customers;
";
const SUMMARY: &str = "CREATE TABLE summary AS SELECT count(*) AS customers, sum(total) AS total FROM revenue;";
const RICH: &str = "
    CREATE VIEW rich AS SELECT customer, total FROM revenue WHERE total > 100;
    CREATE TABLE rich_names CLUSTERED BY (id) INTO 2 BUCKETS AS
    SELECT r.customer AS id, n.name FROM rich r JOIN names n ON r.customer = n.id;
";

#[tokio::test(flavor = "multi_thread")]
async fn the_first_run_runs_every_chunk_and_the_second_none() {
    let lab = Lab::new();
    let first = lab.run(&pipeline()).await;
    assert_eq!(first.ran, chunks(&[("names", 3), ("revenue", 4), ("rich_names", 2), ("summary", 1)]));
    assert_eq!(first.published, ["names", "revenue", "rich_names", "summary"]);
    for task in &first.report.tasks {
        assert_eq!((task.status, task.reused, task.reason.as_str()), (Status::Executed, 0, "not published yet"));
    }
    let second = lab.run(&pipeline()).await;
    assert_eq!(second.ran, chunks(&[]));
    assert_eq!(second.published, [""; 0]);
    for (before, task) in first.report.tasks.iter().zip(&second.report.tasks) {
        assert_eq!((task.status, task.executed, task.reused), (Status::Reused, 0, task.chunks));
        assert_eq!((task.rows, task.bytes, task.reason.as_str()), (before.rows, before.bytes, "nothing changed"));
    }
    // A new engine knows only what is on disk.
    assert_eq!(Lab { engine: lab.new_engine(), ..lab }.run(&pipeline()).await.ran, chunks(&[]));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dry_run_says_what_would_run() {
    let lab = Lab::new();
    let dry = RunOptions { dry_run: true, ..RunOptions::default() };
    let changes: [&dyn Fn(); 4] = [
        &|| (),
        &|| touch(&lab.path("orders.parquet")),
        &|| write_parquet(&lab.path("orders.parquet"), &orders(200, 2)),
        &|| fs::remove_file(lab.chunk_file("revenue", 1)).unwrap(),
    ];
    for (number, change) in changes.into_iter().enumerate() {
        change();
        let told = lab.try_run(&lab.parse(&pipeline()), &dry).await;
        assert!(told.report.succeeded() && told.ran.is_empty() && told.published.is_empty(), "{told:#?}");
        let done = lab.run(&pipeline()).await;
        for (told, done) in told.report.tasks.iter().zip(&done.report.tasks) {
            if number == 3 && done.name != "revenue" {
                // It can't know that the lost chunk will be as it was.
                assert!(told.executed >= done.executed, "{told:#?}");
                continue;
            }
            assert_eq!((told.executed, told.reused, &told.reason), (done.executed, done.reused, &done.reason));
            assert_eq!(told.status == Status::Planned, done.status == Status::Executed);
        }
    }
    let none = lab.try_run(&lab.parse(&pipeline()), &dry).await;
    assert!(none.report.tasks.iter().all(|task| task.status == Status::Reused), "{none:#?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_changed_source_runs_exactly_what_reads_it() {
    let lab = Lab::new();
    lab.run(&pipeline()).await;
    touch(&lab.path("orders.parquet"));
    touch(&lab.path("customers.parquet"));
    assert_eq!(lab.run(&pipeline()).await.ran, chunks(&[]));
    write_parquet(&lab.path("orders.parquet"), &orders(200, 2));
    let again = lab.run(&pipeline()).await;
    assert_eq!(again.ran, chunks(&[("revenue", 4), ("rich_names", 2), ("summary", 1)]));
    assert_eq!(again.reason("revenue"), "changed: input `orders`");
    assert_eq!(again.reason("summary"), "changed: input `revenue`");
    assert_eq!(again.reason("rich_names"), "changed: input `revenue`");
    assert_eq!(again.task("names").status, Status::Reused);
    write_parquet(&lab.path("customers.parquet"), &customers("New"));
    let again = lab.run(&pipeline()).await;
    assert_eq!(again.ran, chunks(&[("names", 3), ("revenue", 4), ("rich_names", 2), ("summary", 1)]));
    assert_eq!(again.reason("rich_names"), "changed: input `names`, input `revenue`");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_column_that_nobody_reads_runs_nothing_wherever_it_stands() {
    let lab = Lab::new();
    let sql = pipeline()
        + "CREATE VIEW all_orders AS SELECT * FROM orders;
        CREATE TABLE ranks CLUSTERED BY (k) INTO 3 BUCKETS AS
        SELECT customer % 7 AS k, amount, row_number() OVER (PARTITION BY customer % 7 ORDER BY amount, customer) AS at FROM all_orders;
        CREATE TABLE total AS SELECT sum(amount) AS amount FROM all_orders;
        CREATE TABLE first AS SELECT DISTINCT ON (customer) customer, amount FROM all_orders ORDER BY customer, amount LIMIT 3;
        CREATE TABLE unique WITH (chunk_by = 'range', chunks = 2) AS SELECT customer FROM all_orders GROUP BY customer;
        CREATE TABLE kept CLUSTERED BY (customer) INTO 2 BUCKETS AS SELECT customer FROM orders o
        WHERE EXISTS (SELECT 1 FROM customers c WHERE c.id = o.customer) UNION ALL SELECT id FROM customers;
        CREATE TABLE chain AS WITH RECURSIVE r(n) AS (SELECT min(customer) FROM orders UNION ALL SELECT n + 1 FROM r WHERE n < 5)
        SELECT n FROM r;";
    lab.run(&sql).await;
    let whole = orders(200, 1);
    let extra: ArrayRef =
        Arc::new(StringArray::from_iter_values((0..whole.num_rows()).map(|row| format!("note {row}"))));
    let columns = |at: usize| {
        let schema = whole.schema();
        let mut columns: Vec<(String, ArrayRef)> = schema
            .fields()
            .iter()
            .zip(whole.columns())
            .map(|(field, column)| (field.name().clone(), Arc::clone(column)))
            .collect();
        columns.insert(at, ("extra".to_string(), Arc::clone(&extra)));
        RecordBatch::try_from_iter(columns).unwrap()
    };
    for at in [2, 0, 1] {
        write_parquet(&lab.path("orders.parquet"), &columns(at));
        assert_eq!(lab.run(&sql).await.ran, chunks(&[]), "{at}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn fields_without_names_are_told_by_their_places() {
    let folder = tempfile::tempdir().unwrap();
    let engine = engine(&folder.path().join("cache"));
    fs::write(folder.path().join("t.csv"), "1,2\n3,4\n").unwrap();
    for (columns, expected) in [("a INT, b INT", ["1", "3"]), ("b INT, a INT", ["2", "4"])] {
        let sql = format!(
            "CREATE EXTERNAL TABLE t ({columns}) STORED AS CSV LOCATION 't.csv' OPTIONS (format.has_header false);
             CREATE TABLE o WITH (chunks = 1) AS SELECT a FROM t"
        );
        run(&engine, &sql, folder.path()).await;
        assert_eq!(rows_as_text(&engine, "SELECT a FROM o").await, expected, "{columns}");
    }
}

/// What is cached of a file's footer must not serve another file of its size and time of modification.
#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_is_replaced_with_its_time_kept_is_read_anew_by_the_same_engine() {
    let folder = tempfile::tempdir().unwrap();
    let engine = engine(&folder.path().join("cache"));
    let path = folder.path().join("t.parquet");
    let sql = "CREATE EXTERNAL TABLE t STORED AS PARQUET LOCATION 't.parquet'; CREATE TABLE o AS SELECT v FROM t WHERE v > 100";
    let write = |first: i64| {
        let values: ArrayRef = Arc::new((first..first + 5).collect::<Int64Array>());
        write_parquet(&path, &RecordBatch::try_from_iter([("v", values)]).unwrap());
    };
    write(1);
    let before = fs::metadata(&path).unwrap();
    assert_eq!(run(&engine, sql, folder.path()).await.task("o").unwrap().rows, 0);
    write(101);
    File::options().write(true).open(&path).unwrap().set_modified(before.modified().unwrap()).unwrap();
    assert_eq!(fs::metadata(&path).unwrap().len(), before.len());
    assert_eq!(run(&engine, sql, folder.path()).await.task("o").unwrap().rows, 5);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_edited_task_runs_with_what_reads_it_and_nothing_else() {
    let lab = Lab::new();
    lab.run(&pipeline()).await;
    let names = pipeline().replace("upper(name)", "lower(name)");
    let edited = lab.run(&names).await;
    assert_eq!(edited.ran, chunks(&[("names", 3), ("rich_names", 2)]));
    assert_eq!(edited.reason("names"), "changed: query");
    assert_eq!(edited.reason("rich_names"), "changed: input `names`");
    assert_eq!(edited.published, ["names", "rich_names"]);
    // A view is a part of the task that reads it.
    let edited = lab.run(&names.replace("total > 100", "total > 200")).await;
    assert_eq!(edited.ran, chunks(&[("rich_names", 2)]));
    assert_eq!(edited.reason("rich_names"), "changed: query");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_pipeline_written_differently_runs_nothing() {
    let lab = Lab::new();
    lab.run(&pipeline()).await;
    let respelled = pipeline()
        .replace("SELECT", "select /* what */")
        .replace(" FROM ", "\n\tfrom -- where from\n  ")
        .replace("GROUP BY", "group   by")
        .replace("sum(", "SUM(");
    let realiased = pipeline()
        .replace("orders o", "orders AS left_side")
        .replace("o.", "left_side.")
        .replace("customers c", "customers r")
        .replace("c.id", "r.id")
        .replace("c.name", "r.name");
    let reordered = [RICH, SUMMARY, NAMES, REVENUE, SOURCES].concat();
    for (what, sql) in [("respelled", respelled), ("realiased", realiased), ("reordered", reordered)] {
        assert_ne!(sql, pipeline(), "{what}");
        assert_eq!(lab.run(&sql).await.ran, chunks(&[]), "{what}\n{sql}");
    }
    for (folder, name, text) in
        [("", "a.sql", SUMMARY), ("", "b.sql", RICH), ("more", "c.sql", NAMES), ("", "z.sql", REVENUE)]
    {
        fs::create_dir_all(lab.path(folder)).unwrap();
        fs::write(lab.path(folder).join(name), text).unwrap();
    }
    fs::write(lab.path("more/s.sql"), SOURCES.replace("LOCATION '", "LOCATION '../")).unwrap();
    let split = chunkwise::sql::load([lab.folder.path()]).unwrap();
    let ran = lab.try_run(&split, &RunOptions::default()).await;
    assert!(ran.report.succeeded());
    assert_eq!(ran.ran, chunks(&[]), "split over files");
    assert_eq!(ran.report.tasks.len(), 4);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_changes_the_result_or_its_files_runs_again() {
    let task = |select: &str| format!("{SOURCES} CREATE TABLE t CLUSTERED BY (customer) INTO 3 BUCKETS AS {select}");
    let with = |options: &str| {
        format!(
            "{SOURCES} CREATE TABLE t CLUSTERED BY (customer) INTO 3 BUCKETS WITH ({options}) AS
             SELECT customer, amount FROM orders"
        )
    };
    let plain = task("SELECT customer, amount FROM orders");
    let by = |cut: &str| format!("{SOURCES} CREATE TABLE t {cut} AS SELECT customer, amount FROM orders");
    let cases = [
        (task("SELECT customer, 'a' AS v FROM orders"), task("SELECT customer, 'A' AS v FROM orders"), "query"),
        (task("SELECT customer, 1 AS v FROM orders"), task("SELECT customer, '1' AS v FROM orders"), "query"),
        (task("SELECT customer, 1 AS v FROM orders"), task("SELECT customer, 1.0 AS v FROM orders"), "query"),
        (task("SELECT customer, '1' AS v FROM orders"), task("SELECT customer, 1.0 AS v FROM orders"), "query"),
        (
            task("SELECT customer FROM orders WHERE note = 'a'"),
            task("SELECT customer FROM orders WHERE note = 'A'"),
            "query",
        ),
        (plain.clone(), task("SELECT customer, amount AS price FROM orders"), "query"),
        (plain.clone(), task("SELECT customer, amount AS \"Amount\" FROM orders"), "query"),
        (plain.clone(), by("CLUSTERED BY (customer) INTO 5 BUCKETS"), "chunks 3 → 5"),
        (plain.clone(), by("CLUSTERED BY (amount) INTO 3 BUCKETS"), "cut"),
        (plain.clone(), by("CLUSTERED BY (customer, amount) INTO 3 BUCKETS"), "cut"),
        (plain.clone(), by(""), "chunks 3 → 1, cut"),
        (plain.clone(), with("version = 2"), "options"),
        (with("version = 1"), with("version = '1 '"), "options"),
        (plain.clone(), with("compression = 'snappy'"), "options"),
        (with("compression = 'zstd(1)'"), with("compression = 'zstd(2)'"), "options"),
        (plain.clone(), with("row_group_rows = 7"), "options"),
    ];
    for (before, after, what) in cases {
        let lab = Lab::new();
        lab.run(&before).await;
        let changed = lab.run(&after).await;
        let task = changed.task("t");
        assert_eq!((task.executed, task.reused), (task.chunks, 0), "{before}\n{after}");
        assert_eq!(changed.ran, chunks(&[("t", task.chunks)]), "{before}\n{after}");
        assert_eq!(task.reason, format!("changed: {what}"), "{before}\n{after}");
        assert_eq!(lab.rows("t").await, lab.expected(&after, "t").await, "{after}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn going_back_to_earlier_sql_finds_its_chunks_and_publishes_them() {
    let lab = Lab::new();
    let (old, new) = (pipeline(), pipeline().replace("sum(o.amount)", "max(o.amount)"));
    lab.run(&old).await;
    let old_rows = lab.rows("revenue").await;
    lab.run(&new).await;
    let new_rows = lab.rows("revenue").await;
    assert_ne!(old_rows, new_rows);
    for (sql, rows) in [(&old, old_rows), (&new, new_rows), (&old, old_rows)] {
        let back = lab.run(sql).await;
        assert_eq!(back.ran, chunks(&[]));
        assert_eq!(back.published, ["revenue", "rich_names", "summary"]);
        assert_eq!(lab.rows("revenue").await, rows);
        assert_eq!(lab.rows("summary").await, lab.expected(sql, "summary").await);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn force_runs_every_chunk_and_gives_the_same_rows() {
    let lab = Lab::new();
    lab.run(&pipeline()).await;
    let rows = lab.rows("rich_names").await;
    let forced = lab.run_with(&pipeline(), &RunOptions { force: true, ..RunOptions::default() }).await;
    assert_eq!(forced.ran, chunks(&[("names", 3), ("revenue", 4), ("rich_names", 2), ("summary", 1)]));
    assert!(forced.report.tasks.iter().all(|task| task.reason == "forced" && task.reused == 0));
    assert_eq!(lab.rows("rich_names").await, rows);
    let only = RunOptions { force: true, tasks: vec!["summary".into()], ..RunOptions::default() };
    assert_eq!(lab.run_with(&pipeline(), &only).await.ran, chunks(&[("revenue", 4), ("summary", 1)]));
    assert_eq!(lab.run(&pipeline()).await.ran, chunks(&[]));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_or_truncated_chunk_file_runs_alone() {
    let lab = Lab::new();
    lab.run(&pipeline()).await;
    let expected = lab.expected(&pipeline(), "revenue").await;
    for damage in ["delete", "truncate", "empty"] {
        for chunk in 0..4 {
            let file = lab.chunk_file("revenue", chunk);
            match damage {
                "delete" => fs::remove_file(&file).unwrap(),
                "truncate" => {
                    let bytes = fs::metadata(&file).unwrap().len();
                    File::options().write(true).open(&file).unwrap().set_len(bytes / 2).unwrap();
                }
                _ => fs::write(&file, "").unwrap(),
            }
            let mended = lab.run(&pipeline()).await;
            assert_eq!(mended.ran, BTreeMap::from([("revenue".to_string(), vec![chunk])]), "{damage}");
            assert_eq!((mended.task("revenue").executed, mended.task("revenue").reused), (1, 3));
            assert!(mended.reason("revenue").contains("missing"), "{}", mended.reason("revenue"));
            assert_eq!(lab.rows("revenue").await, expected, "{damage}");
        }
    }
    assert_eq!(lab.run(&pipeline()).await.ran, chunks(&[]));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_chunk_of_full_size_is_set_aside_and_computed_again() {
    let lab = Lab::new();
    lab.run(&pipeline()).await;
    let expected = lab.expected(&pipeline(), "revenue").await;
    let file = lab.chunk_file("revenue", 2);
    let bytes = fs::metadata(&file).unwrap().len();
    fs::write(&file, vec![b'?'; bytes as usize]).unwrap();
    // Whoever reads it next finds out and fails, with nothing published; then its chunk is missing, and runs again.
    let reader = "\nCREATE TABLE reader AS SELECT count(*) AS n FROM revenue;";
    let with_reader = lab.parse(&(pipeline() + reader));
    let failed = lab.try_run(&with_reader, &RunOptions::default()).await;
    assert_eq!(failed.task("reader").status, Status::Failed);
    assert!(failed.reason("reader").contains("chunk 2 of `revenue` was damaged"), "{}", failed.reason("reader"));
    assert_eq!((failed.published, files_below(&lab.cache("damaged")).len()), (Vec::new(), 1));
    let mended = lab.try_run(&with_reader, &RunOptions::default()).await;
    assert!(mended.report.succeeded(), "{mended:#?}");
    assert_eq!(mended.ran["revenue"], [2]);
    assert_eq!(lab.rows("revenue").await, expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_index_is_made_again_from_the_footers() {
    for kept in [&[][..], &["index.sqlite-wal", "index.sqlite-shm"]] {
        let mut lab = Lab::new();
        lab.run(&pipeline()).await;
        if kept.is_empty() {
            lab.close();
        }
        for file in ["index.sqlite", "index.sqlite-wal", "index.sqlite-shm"] {
            if !kept.contains(&file) && lab.cache(file).exists() {
                fs::remove_file(lab.cache(file)).unwrap();
            }
        }
        lab.engine = lab.new_engine();
        let again = lab.run(&pipeline()).await;
        assert_eq!(again.ran, chunks(&[]), "{kept:?}");
        assert_eq!(again.published, [""; 0], "{kept:?}");
        // What was published is known again too.
        let edited = lab.run(&pipeline().replace("upper(name)", "lower(name)")).await;
        assert_eq!(edited.reason("names"), "changed: query", "{kept:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_index_is_set_aside_with_a_warning_and_made_again() {
    // From byte 0 it is no database any more; from byte 4096 it still looks like one.
    for start in [0, 4096] {
        let mut lab = Lab::new();
        lab.run(&pipeline()).await;
        lab.close();
        let mut bytes = fs::read(lab.cache("index.sqlite")).unwrap();
        assert!(bytes.len() > start + 4096, "{}", bytes.len());
        bytes[start..].fill(b'?');
        fs::write(lab.cache("index.sqlite"), &bytes).unwrap();
        lab.engine = lab.new_engine();
        let again = lab.run(&pipeline()).await;
        assert_eq!(again.ran, chunks(&[]), "from {start}");
        let [warning] = again.warnings.as_slice() else { panic!("{:?}", again.warnings) };
        assert!(warning.contains("index.sqlite") && warning.contains("was moved to"), "{warning}");
        let aside = files_below(&lab.cache("")).into_iter().find(|f| f.to_string_lossy().contains(".damaged-"));
        assert_eq!(fs::read(aside.unwrap()).unwrap(), bytes);
        assert_eq!(lab.run(&pipeline()).await.warnings, [""; 0]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn results_of_the_moment_are_computed_at_each_run() {
    let lab = Lab::new();
    let sql = format!(
        "{SOURCES} CREATE TABLE dice AS SELECT id, random() AS number FROM customers;
         CREATE TABLE later AS SELECT count(*) AS n FROM dice;
         CREATE TABLE clock CLUSTERED BY (id) INTO 2 BUCKETS AS SELECT id, now() AS at FROM customers;
         CREATE TABLE fixed CLUSTERED BY (id) INTO 2 BUCKETS AS SELECT id FROM customers;"
    );
    lab.run(&sql).await;
    let before = [lab.rows("dice").await, lab.rows("clock").await];
    let again = lab.run(&sql).await;
    assert_eq!(again.ran, chunks(&[("clock", 2), ("dice", 1), ("later", 1)]));
    assert_eq!(again.reason("dice"), "changed: volatile random()");
    assert_ne!(before[0], lab.rows("dice").await);
    assert_ne!(before[1], lab.rows("clock").await);
    assert_eq!(lab.rows("dice").await.rows, 20);
    // Every row and chunk has the time of one run.
    let times = lab.engine.query("SELECT count(DISTINCT at) AS n FROM clock").await.unwrap().collect().await.unwrap();
    assert_eq!(int(&times[0], 0), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn todays_date_is_computed_once_a_day() {
    let today = || SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs() / 86400;
    let sql = format!(
        "{SOURCES} CREATE TABLE t CLUSTERED BY (id) INTO 2 BUCKETS AS SELECT id, current_date AS day FROM customers"
    );
    // Once more at most, should the day end meanwhile.
    for attempt in 0.. {
        let (lab, day) = (Lab::new(), today());
        assert_eq!(lab.run(&sql).await.ran, chunks(&[("t", 2)]));
        let again = lab.run(&sql).await;
        if today() == day {
            assert_eq!(again.ran, chunks(&[]));
            break;
        }
        assert_eq!(attempt, 0);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_source_that_changes_during_a_run_fails_its_task_and_publishes_nothing() {
    type Change = fn(&Path);
    let rewrite: Change = |path| write_parquet(path, &orders(300, 7));
    let replace: Change = |path| {
        let new = path.with_extension("new");
        write_parquet(&new, &orders(300, 7));
        fs::rename(new, path).unwrap();
    };
    let truncate: Change = |path| File::options().write(true).open(path).unwrap().set_len(100).unwrap();
    let delete: Change = |path| fs::remove_file(path).unwrap();
    for at_start in [true, false] {
        for (what, change) in [("rewrite", rewrite), ("replace", replace), ("truncate", truncate), ("delete", delete)] {
            let mut lab = Lab::new();
            lab.close();
            let path = lab.path("orders.parquet");
            let changed = Mutex::new(false);
            let log = Arc::clone(&lab.events);
            lab.engine = Engine::builder()
                .cache_folder(lab.cache(""))
                .jobs(1)
                .on_event(move |event| {
                    let now = match &event {
                        Event::ChunkStarted { task, .. } => at_start && task == "revenue",
                        Event::ChunkDone { task, .. } => !at_start && task == "revenue",
                        _ => false,
                    };
                    log.lock().unwrap().push(event);
                    if now && !std::mem::replace(&mut *changed.lock().unwrap(), true) {
                        change(&path);
                    }
                })
                .build()
                .unwrap();
            let failed = lab.try_run(&lab.parse(&pipeline()), &RunOptions::default()).await;
            let what = format!("{what}, at start: {at_start}");
            assert_eq!(failed.task("revenue").status, Status::Failed, "{what}");
            assert!(failed.reason("revenue").contains("changed while it was read"), "{what}: {failed:#?}");
            assert!(failed.reason("revenue").contains("orders"), "{what}: {failed:#?}");
            assert_eq!(failed.task("summary").status, Status::Skipped, "{what}");
            assert_eq!(failed.published, ["names"], "{what}");
            assert!(lab.engine.table("revenue").await.is_err(), "{what}");
            write_parquet(&lab.path("orders.parquet"), &orders(300, 7));
            let mended = lab.run(&pipeline()).await;
            assert_eq!(mended.task("revenue").reused, 0, "{what}");
            assert_eq!(lab.rows("revenue").await, lab.expected(&pipeline(), "revenue").await, "{what}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_keeps_the_version_that_it_opened() {
    let lab = Lab::new();
    lab.run(&pipeline()).await;
    let old = lab.expected(&pipeline(), "revenue").await;
    let opened = lab.engine.table("revenue").await.unwrap();
    let chunk = lab.engine.table_chunk("revenue", 2).await.unwrap();
    let chunk_rows = Multiset::of(Arc::clone(&chunk)).await;
    write_parquet(&lab.path("orders.parquet"), &orders(100, 3));
    lab.run(&pipeline()).await;
    lab.run_with(&pipeline(), &RunOptions { force: true, ..RunOptions::default() }).await;
    let new = lab.expected(&pipeline(), "revenue").await;
    assert_ne!(old, new);
    assert_eq!(Multiset::of(opened).await, old);
    assert_eq!(Multiset::of(chunk).await, chunk_rows);
    assert_eq!(lab.rows("revenue").await, new);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_published_folder_is_plain_parquet_that_others_read() {
    let lab = Lab::new();
    lab.run(&pipeline()).await;
    for (table, count) in [("revenue", 4), ("names", 3), ("summary", 1)] {
        let folder = lab.cache("tables").join(table);
        let mut chunks: Vec<_> = fs::read_dir(&folder).unwrap().map(|e| e.unwrap().file_name()).collect();
        chunks.sort();
        let expected: Vec<_> = (0..count).map(|chunk| OsString::from(format!("chunk={chunk:04}"))).collect();
        assert_eq!(chunks, expected, "{table}");
        for chunk in &chunks {
            let files = files_below(&folder.join(chunk));
            assert!(matches!(files.as_slice(), [file] if file.extension().unwrap() == "parquet"), "{files:?}");
        }
        let context = SessionContext::new();
        let place = format!("{}/", folder.display());
        let listed = context.read_parquet(place.as_str(), ParquetReadOptions::default()).await.unwrap();
        let rows = Multiset::of_batches(&listed.collect().await.unwrap());
        assert_eq!(rows, lab.expected(&pipeline(), table).await, "{table}");
        assert_eq!(rows, lab.rows(table).await, "{table}");
        // Its chunks are its parts.
        let mut together = 0;
        for chunk in 0..count {
            together += Multiset::of(lab.engine.table_chunk(table, chunk).await.unwrap()).await.rows;
        }
        assert_eq!(together, rows.rows, "{table}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dropped_run_leaves_no_unfinished_file_and_keeps_its_chunks() {
    let mut lab = Lab::new();
    lab.close();
    let sql = format!(
        "{SOURCES} CREATE TABLE pairs CLUSTERED BY (customer) INTO 32 BUCKETS WITH (read_by = 'rescan') AS
         SELECT a.customer, a.id AS one, b.id AS other FROM orders a JOIN orders b ON a.customer = b.customer"
    );
    let log = Arc::clone(&lab.events);
    let done = Arc::new(tokio::sync::Notify::new());
    let notify = Arc::clone(&done);
    lab.engine = Engine::builder()
        .cache_folder(lab.cache(""))
        .jobs(1)
        .on_event(move |event| {
            let is_done = matches!(event, Event::ChunkDone { .. });
            log.lock().unwrap().push(event);
            if is_done {
                notify.notify_one();
            }
        })
        .build()
        .unwrap();
    let pipeline = lab.parse(&sql);
    let options = RunOptions::default();
    let finished = tokio::select! {
        _ = lab.engine.run(&pipeline, &options) => true,
        () = done.notified() => false,
    };
    assert!(!finished, "32 chunks were done before the run could be dropped");
    let kept = lab.events.lock().unwrap().iter().filter(|e| matches!(e, Event::ChunkDone { .. })).count();
    assert!((1..32).contains(&kept), "{kept}");
    lab.close();
    let patience = Instant::now() + Duration::from_secs(10);
    while !fs::read_dir(lab.cache("tmp")).unwrap().collect::<Vec<_>>().is_empty() {
        assert!(Instant::now() < patience, "{:?}", files_below(&lab.cache("tmp")));
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert_eq!(fs::read_dir(lab.cache("tables")).unwrap().count(), 0);
    let engine = engine(&lab.cache(""));
    let report = run(&engine, &sql, lab.folder.path()).await;
    let pairs = report.task("pairs").unwrap();
    assert!(pairs.reused as usize >= kept && pairs.executed > 0, "kept {kept}: {pairs:#?}");
    let rows = Multiset::of(engine.table("pairs").await.unwrap()).await;
    assert_eq!(rows, lab.expected(&sql, "pairs").await);
}

/// A folder of sources with a cache beside them, and an engine whose events are kept.
struct Lab {
    folder: TempDir,
    engine: Engine,
    events: Arc<Mutex<Vec<Event>>>,
}

/// What one run did.
#[derive(Debug)]
struct Ran {
    report: RunReport,
    /// Chunks that were started, by task, sorted.
    ran: BTreeMap<String, Vec<u32>>,
    /// Tables that were published again, sorted.
    published: Vec<String>,
    warnings: Vec<String>,
}

impl Ran {
    fn task(&self, name: &str) -> &TaskReport {
        self.report.task(name).unwrap()
    }

    fn reason(&self, name: &str) -> &str {
        &self.task(name).reason
    }
}

impl Lab {
    fn new() -> Self {
        let folder = TempDir::new().unwrap();
        write_parquet(&folder.path().join("orders.parquet"), &orders(200, 1));
        write_parquet(&folder.path().join("customers.parquet"), &customers("Customer"));
        let events = Arc::default();
        let engine = recording(&folder.path().join("cache"), &events);
        Self { folder, engine, events }
    }

    fn new_engine(&self) -> Engine {
        recording(&self.cache(""), &self.events)
    }

    /// Drops the engine, and with it the open index.
    fn close(&mut self) {
        self.engine = Engine::builder().cache_folder(self.path("nowhere")).build().unwrap();
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn cache(&self, name: &str) -> PathBuf {
        self.folder.path().join("cache").join(name)
    }

    fn parse(&self, sql: &str) -> Pipeline {
        chunkwise::sql::parse(sql, "test.sql", self.folder.path()).unwrap()
    }

    /// Runs all of `sql`; every task must succeed.
    async fn run(&self, sql: &str) -> Ran {
        self.run_with(sql, &RunOptions::default()).await
    }

    async fn run_with(&self, sql: &str, options: &RunOptions) -> Ran {
        let ran = self.try_run(&self.parse(sql), options).await;
        assert!(ran.report.succeeded(), "{ran:#?}");
        ran
    }

    async fn try_run(&self, pipeline: &Pipeline, options: &RunOptions) -> Ran {
        self.events.lock().unwrap().clear();
        let report = self.engine.run(pipeline, options).await.unwrap();
        let (mut ran, mut published, mut warnings) = (BTreeMap::<_, Vec<_>>::new(), Vec::new(), Vec::new());
        for event in self.events.lock().unwrap().drain(..) {
            match event {
                Event::ChunkStarted { task, chunk } => ran.entry(task).or_default().push(chunk),
                Event::Published { task } => published.push(task),
                Event::Warning { message } => warnings.push(message),
                _ => {}
            }
        }
        ran.values_mut().for_each(|chunks| chunks.sort_unstable());
        published.sort();
        Ran { report, ran, published, warnings }
    }

    async fn rows(&self, table: &str) -> Multiset {
        Multiset::of(self.engine.table(table).await.unwrap()).await
    }

    /// The rows that plain DataFusion gives for `table`, tasks not cut.
    async fn expected(&self, sql: &str, table: &str) -> Multiset {
        let sql = sql.replace("LOCATION '", &format!("LOCATION '{}/", self.folder.path().display()));
        let mut statements: Vec<String> = sql.split(';').map(str::to_string).collect();
        for statement in &mut statements {
            let Some((head, query)) = statement.split_once(" AS\n").or_else(|| statement.split_once(" AS ")) else {
                continue;
            };
            if let Some((name, _)) = head.split_once("CLUSTERED").or_else(|| head.split_once("WITH")) {
                *statement = format!("{name} AS {query}");
            }
        }
        statements.retain(|statement| !statement.trim().is_empty());
        oracle_rows(&oracle(&statements).await, table).await
    }

    /// The file below `chunks/` that is published as `chunk` of `table`.
    fn chunk_file(&self, table: &str, chunk: u32) -> PathBuf {
        let [published] = files_below(&self.cache("tables").join(table).join(format!("chunk={chunk:04}")))
            .try_into()
            .unwrap_or_else(|files| panic!("{files:?}"));
        let start = published.file_stem().unwrap().to_str().unwrap();
        let chunks = files_below(&self.cache("chunks"));
        chunks.into_iter().find(|file| file.file_name().unwrap().to_str().unwrap().starts_with(start)).unwrap()
    }
}

fn recording(cache: &Path, events: &Arc<Mutex<Vec<Event>>>) -> Engine {
    let log = Arc::clone(events);
    let record = move |event| log.lock().unwrap().push(event);
    Engine::builder().cache_folder(cache).jobs(2).on_event(record).build().unwrap()
}

fn pipeline() -> String {
    [SOURCES, REVENUE, NAMES, SUMMARY, RICH].concat()
}

/// All chunks of each task, 0 to its number.
fn chunks(tasks: &[(&str, u32)]) -> BTreeMap<String, Vec<u32>> {
    tasks.iter().map(|(task, count)| (task.to_string(), (0..*count).collect())).collect()
}

fn orders(rows: i64, factor: i64) -> RecordBatch {
    let column = |value: fn(i64, i64) -> i64| -> ArrayRef {
        Arc::new((0..rows).map(|row| value(row, factor)).collect::<Int64Array>())
    };
    let notes: StringArray = (0..rows).map(|row| Some(if row % 2 == 0 { "a" } else { "A" })).collect();
    RecordBatch::try_from_iter([
        ("id", column(|row, _| row)),
        ("customer", column(|row, factor| row * factor % 23)),
        ("amount", column(|row, factor| row * 5 % 17 * factor)),
        ("note", Arc::new(notes)),
    ])
    .unwrap()
}

fn customers(prefix: &str) -> RecordBatch {
    let ids: ArrayRef = Arc::new((0..20).collect::<Int64Array>());
    let names: ArrayRef = Arc::new((0..20).map(|id| Some(format!("{prefix} {id}"))).collect::<StringArray>());
    RecordBatch::try_from_iter([("id", ids), ("name", names)]).unwrap()
}

fn int(batch: &RecordBatch, row: usize) -> i64 {
    batch.column(0).as_any().downcast_ref::<Int64Array>().unwrap().value(row)
}

/// Files at any depth, symbolic links to folders followed.
fn files_below(folder: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files.extend(files_below(&path));
        } else {
            files.push(path);
        }
    }
    files
}
