//! Chunks that are computed several at once are those that are computed one by one.

use std::path::Path;
use std::sync::{Arc, Mutex};

use chunkwise::{Engine, Event, InputMode, RunOptions, Status};

use crate::support::{engine, make_parquet, oracle, parquet_source, query_rows, read_rows, rows_as_text, run, try_run};

/// The tables of the tests, as statements.
async fn sources(folder: &Path) -> String {
    for (name, rows) in [
        (
            "a",
            "SELECT nullif(value % 31, 0) AS k, value % 7 AS g, value AS v, value / 8e0 AS f FROM generate_series(1, 400)",
        ),
        ("b", "SELECT CAST(nullif(value % 37, 1) AS INT) AS k, value % 5 AS w FROM generate_series(1, 90)"),
        ("r", "SELECT value AS g, concat('label ', value % 3) AS label FROM generate_series(0, 5)"),
        // Keys that the narrower one of `b` can't have.
        (
            "w",
            "SELECT value % 41 + CASE WHEN value % 3 = 0 THEN 5000000000 ELSE 0 END AS k, value AS x FROM generate_series(1, 90)",
        ),
    ] {
        make_parquet(folder, name, rows).await;
    }
    ["a", "b", "r", "w"].map(|name| format!("{};\n", parquet_source(folder, name))).concat()
}

/// How a task is cut, and its query.
const TASKS: &[(&str, &str)] = &[
    ("CLUSTERED BY (k) INTO 7 BUCKETS", "SELECT k, sum(v) AS v, count(*) AS n FROM a GROUP BY k"),
    // The key is not among the columns.
    ("CLUSTERED BY (k) INTO 7 BUCKETS", "SELECT sum(v) AS v, count(*) AS n FROM a GROUP BY k"),
    ("CLUSTERED BY (k) INTO 7 BUCKETS", "SELECT a.v, b.w FROM a JOIN b ON a.k = b.k JOIN r ON a.g = r.g"),
    ("CLUSTERED BY (k) INTO 7 BUCKETS", "SELECT r.label, a.v FROM r JOIN (SELECT * FROM a WHERE v > 9) a ON r.g = a.g"),
    ("CLUSTERED BY (k) INTO 7 BUCKETS", "SELECT a.v, b.w FROM a LEFT JOIN b ON a.k = b.k AND b.w > 1"),
    ("CLUSTERED BY (k) INTO 7 BUCKETS", "SELECT b.w, a.v FROM a RIGHT JOIN b ON a.k = b.k AND a.v > 100"),
    (
        "CLUSTERED BY (k) INTO 7 BUCKETS",
        "SELECT coalesce(a.k, b.k) AS k, count(*) AS n FROM a FULL JOIN b ON a.k = b.k GROUP BY 1",
    ),
    ("CLUSTERED BY (k) INTO 7 BUCKETS", "SELECT b.w, w.x FROM b FULL JOIN w ON b.k = w.k"),
    (
        "CLUSTERED BY (k) INTO 7 BUCKETS",
        "SELECT TRY_CAST(coalesce(b.k, w.k) AS INT) AS k, count(*) AS n FROM b FULL JOIN w ON b.k = w.k GROUP BY 1",
    ),
    (
        "CLUSTERED BY (k) INTO 7 BUCKETS",
        "SELECT v FROM a WHERE k IN (SELECT k FROM b) AND NOT EXISTS (SELECT 1 FROM b WHERE b.k = a.k AND w = 3)",
    ),
    ("CLUSTERED BY (k) INTO 7 BUCKETS", "SELECT k, v, row_number() OVER (PARTITION BY k ORDER BY v) AS at FROM a"),
    ("CLUSTERED BY (k) INTO 7 BUCKETS", "SELECT v AS n FROM a UNION ALL SELECT w FROM b"),
    ("CLUSTERED BY (k) INTO 7 BUCKETS", "SELECT DISTINCT k, g FROM a"),
    ("CLUSTERED BY (k) INTO 7 BUCKETS", "SELECT k, unnest(make_array(v, g)) AS n FROM a ORDER BY k"),
    ("CLUSTERED BY (k) INTO 7 BUCKETS", "SELECT k, min(f) AS least, sum(f) AS f FROM a GROUP BY k"),
    // Two phases.
    ("CLUSTERED BY (k) INTO 7 BUCKETS", "SELECT g, sum(v) AS v, avg(v) AS mean FROM a GROUP BY g"),
    (
        "CLUSTERED BY (k) INTO 7 BUCKETS",
        "SELECT g, w, sum(v) AS v, grouping(w) AS total FROM a JOIN b ON a.k = b.k GROUP BY ROLLUP (g, w)",
    ),
    (
        "CLUSTERED BY (k) INTO 7 BUCKETS",
        "SELECT g, w, count(*) AS n FROM a JOIN b ON a.k = b.k GROUP BY GROUPING SETS ((g, w), (w), ())",
    ),
    ("CLUSTERED BY (k) INTO 7 BUCKETS", "SELECT count(*) AS n, sum(v) AS v, max(f) AS f FROM a"),
    ("CLUSTERED BY (k) INTO 7 BUCKETS", "SELECT g, count(*) AS n FROM a WHERE k = 3 GROUP BY ROLLUP (g)"),
    ("CLUSTERED BY (k) INTO 7 BUCKETS", "SELECT count(*) AS n, sum(v) AS v FROM a WHERE k = 3 AND v > 1000"),
    // Chunks whose values are all NULL, and chunks without rows; accumulators of groups may have states of their own.
    (
        "CLUSTERED BY (k) INTO 7 BUCKETS",
        "SELECT sum(x) AS a, avg(x) AS b, sum(y) AS c, avg(y) AS d, sum(z) AS e, avg(z) AS f, count(x) AS g, min(y) AS h,
                bit_xor(x) AS i, bool_or(x > 9) AS j, round(var_samp(y), 9) AS k, round(stddev_pop(y), 9) AS l
         FROM (SELECT k, CASE WHEN k <> 3 THEN v END AS x, CASE WHEN k <> 3 THEN f END AS y,
                      CASE WHEN k <> 3 THEN CAST(v AS DECIMAL(12, 2)) END AS z FROM a WHERE k < 6)",
    ),
    (
        "CLUSTERED BY (k) INTO 7 BUCKETS",
        "SELECT round(covar_samp(f, CASE WHEN k <> 3 THEN g END), 9) AS c FROM a WHERE k < 6",
    ),
    ("CLUSTERED BY (k) INTO 7 BUCKETS", "SELECT g, round(corr(f, v), 9) AS c, approx_distinct(v) AS n FROM a GROUP BY g"),
    ("CLUSTERED BY (k) INTO 7 BUCKETS", "SELECT count(DISTINCT CASE WHEN k <> 3 THEN v END) AS n FROM a WHERE k < 6"),
    ("CLUSTERED BY (k) INTO 7 BUCKETS", "SELECT DISTINCT g FROM a"),
    ("CLUSTERED BY (k) INTO 7 BUCKETS", "SELECT k, v FROM a ORDER BY g DESC, v LIMIT 5"),
    ("CLUSTERED BY (k) INTO 7 BUCKETS", "SELECT v FROM a ORDER BY v LIMIT 4 OFFSET 3"),
    // Zeros that are equal and have two signs.
    (
        "CLUSTERED BY (k) INTO 7 BUCKETS",
        "SELECT abs(p) AS p, abs(q) AS q FROM (SELECT x.f AS p, y.f AS q
         FROM (SELECT k, CASE v % 2 WHEN 0 THEN CAST('0' AS DOUBLE) ELSE CAST('-0' AS DOUBLE) END AS f FROM a) x
         JOIN (SELECT k, CASE v % 3 WHEN 0 THEN CAST('0' AS DOUBLE) ELSE CAST('-0' AS DOUBLE) END AS f FROM a) y
           ON x.f = y.f AND x.k = y.k
         ORDER BY p, q DESC LIMIT 4)",
    ),
    ("WITH (chunk_by = 'range', chunks = 5)", "SELECT v, count(*) AS n FROM a GROUP BY v"),
];

/// Of aggregates whose accumulators of groups have states of their own chunks run one by one.
const ONE_BY_ONE: &[(&str, &str)] = &[
    (
        "CLUSTERED BY (k) INTO 7 BUCKETS",
        "SELECT round(corr(f, CASE WHEN k <> 3 THEN g END), 9) AS c FROM a WHERE k < 6",
    ),
    ("CLUSTERED BY (k) INTO 7 BUCKETS", "SELECT approx_distinct(CASE WHEN k <> 3 THEN v END) AS n FROM a WHERE k < 6"),
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pass_gives_each_chunk_its_rows() {
    check(TASKS, true).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn states_that_groups_have_otherwise_are_made_one_by_one() {
    check(ONE_BY_ONE, false).await;
}

/// That cut tasks have the rows of whole ones, and each chunk the same rows when it is computed again by itself.
async fn check(tasks: &[(&str, &str)], in_pass: bool) {
    let folder = tempfile::tempdir().unwrap();
    let sources = sources(folder.path()).await;
    let statements: String =
        tasks.iter().enumerate().map(|(at, (cut, query))| format!("CREATE TABLE t{at} {cut} AS {query};\n")).collect();
    let sql = format!("{sources}{statements}");
    let engine = engine(&folder.path().join("cache"));
    let pipeline = chunkwise::sql::parse(&sql, "f.sql", folder.path()).unwrap();
    let statements: Vec<String> = sources.split_inclusive(";\n").map(String::from).collect();
    let oracle = oracle(&statements).await;
    let report = engine.run(&pipeline, &RunOptions::default()).await.unwrap();
    let audit = RunOptions { audit_percent: 100.0, ..RunOptions::default() };
    let audited = engine.run(&pipeline, &audit).await.unwrap();
    for (at, (_, query)) in tasks.iter().enumerate() {
        let name = format!("t{at}");
        let explained = engine.explain(&pipeline, Some(&name)).await.unwrap().remove(0).unwrap();
        assert_eq!(explained.contains("computed in one pass"), in_pass, "{explained}");
        assert_eq!(read_rows(&engine, &name).await.unwrap(), query_rows(&oracle, query).await, "{query}");
        let (ran, again) = (report.task(&name).unwrap(), audited.task(&name).unwrap());
        assert_eq!((again.status, again.audited), (Status::Reused, ran.executed), "{query}: {}", again.reason);
    }
}

/// An engine that tells how many rows splits have.
fn watched(cache: &Path) -> (Engine, Arc<Mutex<u64>>) {
    let split = Arc::new(Mutex::new(0));
    let seen = Arc::clone(&split);
    let listen = move |event| {
        if let Event::Split { rows, .. } = event {
            *seen.lock().unwrap() += rows;
        }
    };
    (Engine::builder().cache_folder(cache).jobs(2).on_event(listen).build().unwrap(), split)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pass_reads_once_what_each_chunk_would_read() {
    let folder = tempfile::tempdir().unwrap();
    let rows = "SELECT value % 999 AS k, encode(sha256(CAST(value AS VARCHAR)), 'base64') AS s FROM generate_series(1, 30000) AS t(value)";
    make_parquet(folder.path(), "wide", rows).await;
    let source = parquet_source(folder.path(), "wide");
    let task = |with: &str| {
        format!(
            "{source};\nCREATE TABLE t CLUSTERED BY (k) INTO 64 BUCKETS {with} AS SELECT k, max(s) AS s FROM wide GROUP BY k;"
        )
    };
    let scanned = async |name: &str, with: &str| {
        let (engine, split) = watched(&folder.path().join(name));
        let report = run(&engine, &task(with), folder.path()).await;
        let task = report.task("t").unwrap();
        assert_eq!((task.executed, task.inputs[0].mode), (64, InputMode::Rescan), "{task:#?}");
        assert_eq!(*split.lock().unwrap(), 0);
        task.scanned_bytes
    };
    let (once, each) = (scanned("pass", "").await, scanned("alone", "WITH (read_by = 'rescan')").await);
    println!("64 chunks read {:.1} times what a pass reads", each as f64 / once as f64);
    assert!(each > 50 * once, "{each} of {once}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pass_computes_only_the_chunks_that_are_missing() {
    let folder = tempfile::tempdir().unwrap();
    let sources = sources(folder.path()).await;
    let sql =
        format!("{sources}CREATE TABLE t CLUSTERED BY (k) INTO 31 BUCKETS AS SELECT k, sum(v) AS v FROM a GROUP BY k;");
    let engine = engine(&folder.path().join("cache"));
    let first = run(&engine, &sql, folder.path()).await;
    assert_eq!(first.task("t").unwrap().executed, 31);
    let changed =
        "SELECT nullif(value % 31, 0) AS k, value % 7 AS g, CASE WHEN value % 31 < 9 THEN 0 ELSE value END AS v,
                   value / 8e0 AS f FROM generate_series(1, 400)";
    make_parquet(folder.path(), "a", changed).await;
    let report = run(&engine, &sql, folder.path()).await;
    let task = report.task("t").unwrap();
    assert!((2..=9).contains(&task.executed) && task.executed + task.reused == 31, "{task:#?}");
    let zeros = "SELECT count(*) AS n FROM t WHERE v = 0";
    assert_eq!(rows_as_text(&engine, zeros).await, rows_as_text(&engine, "SELECT 9 AS n").await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn where_a_pass_fails_its_chunks_say_which_of_them_does() {
    let folder = tempfile::tempdir().unwrap();
    let sources = sources(folder.path()).await;
    let sql = format!(
        "{sources}CREATE TABLE t CLUSTERED BY (k) INTO 5 BUCKETS AS SELECT k, sum(100 / (v - 7)) AS n FROM a GROUP BY k;"
    );
    let engine = engine(&folder.path().join("cache"));
    let report = try_run(&engine, &sql, folder.path()).await;
    let task = report.task("t").unwrap();
    assert_eq!(task.status, Status::Failed);
    assert!(task.reason.contains("chunk ") && task.reason.contains("Divide by zero"), "{task:#?}");
    // Where none fails any more all come of it.
    let sound = "SELECT nullif(value % 31, 0) AS k, value % 7 AS g, CASE WHEN value = 7 THEN 8 ELSE value END AS v,
                 value / 8e0 AS f FROM generate_series(1, 400)";
    make_parquet(folder.path(), "a", sound).await;
    let report = run(&engine, &sql, folder.path()).await;
    let task = &report.tasks[0];
    assert!(task.executed + task.reused == 5 && task.status == Status::Executed, "{report:#?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pass_writes_no_more_columns_at_a_time_than_fit_in_memory() {
    let folder = tempfile::tempdir().unwrap();
    let columns: Vec<String> = (0..64).map(|at| format!("value * {at} AS c{at}")).collect();
    make_parquet(folder.path(), "w", &format!("SELECT {} FROM generate_series(1, 500)", columns.join(", "))).await;
    let source = parquet_source(folder.path(), "w");
    let sql = format!("{source};\nCREATE TABLE t CLUSTERED BY (c1) INTO 64 BUCKETS AS SELECT * FROM w;");
    let pipeline = chunkwise::sql::parse(&sql, "f.sql", folder.path()).unwrap();
    let told_of = [(64, "each chunk reads"), (128, "in 32 passes"), (256, "in 13 passes"), (8192, "in one pass")];
    for (mib, told) in told_of {
        let engine = Engine::builder().cache_folder(folder.path().join(format!("cache {mib}"))).jobs(1);
        let engine = engine.memory_limit_bytes(mib << 20).build().unwrap();
        let explained = engine.explain(&pipeline, Some("t")).await.unwrap().remove(0).unwrap();
        assert!(explained.contains(told), "{mib} MiB: {explained}");
        assert_eq!(run(&engine, &sql, folder.path()).await.task("t").unwrap().rows, 500);
    }
}
