//! A part that a query reads more than once is computed once, where nothing tells its readers apart.

use std::path::Path;

use chunkwise::{RunOptions, Status, StepPart};

use crate::support::{engine_one_by_one, make_parquet, oracle, parquet_source, query_rows, read_rows, run};

async fn sources(folder: &Path) -> String {
    let a = "SELECT nullif(value % 31, 0) AS k, value % 7 AS g, value AS v FROM generate_series(1, 400)";
    let b = "SELECT value % 37 AS k, concat('label ', value % 3) AS w FROM generate_series(1, 90)";
    for (name, rows) in [("a", a), ("b", b)] {
        make_parquet(folder, name, rows).await;
    }
    ["a", "b"].map(|name| format!("{};\n", parquet_source(folder, name))).concat()
}

/// Queries, and how many parts of them are computed once.
const QUERIES: &[(&str, usize)] = &[
    ("WITH c AS (SELECT k, sum(v) AS total FROM a GROUP BY k) SELECT * FROM c WHERE total = (SELECT max(total) FROM c)", 1),
    // Two readers of other columns of one join.
    (
        "SELECT w, sum(v) AS v FROM a, b WHERE a.k = b.k GROUP BY w
         HAVING sum(v) > (SELECT sum(v) * 0.1 FROM a, b WHERE a.k = b.k) ORDER BY v",
        1,
    ),
    ("WITH c AS (SELECT k, count(*) AS n FROM a GROUP BY k) SELECT x.k, y.n FROM c AS x JOIN c AS y ON x.n = y.k", 1),
    ("WITH c AS (SELECT k, count(*) AS n FROM a GROUP BY k) SELECT x.* FROM c AS x LEFT JOIN c AS y ON x.k + 1 = y.k WHERE y.k IS NULL", 1),
    // Nobody reads a column.
    ("WITH c AS (SELECT DISTINCT g FROM a) SELECT (SELECT count(*) FROM c) AS x, (SELECT count(*) FROM c) + 1 AS y", 1),
    // No rows, and a type that files have none for.
    ("WITH c AS (SELECT k, max(v) AS v FROM a WHERE v < 0 GROUP BY k) SELECT k FROM c UNION ALL SELECT v FROM c", 1),
    (
        "WITH c AS (SELECT w, CAST(k || ' days' AS INTERVAL) AS i FROM b GROUP BY 1, 2)
         SELECT x.w, count(y.i) AS n FROM c AS x JOIN c AS y ON x.w = y.w GROUP BY x.w",
        1,
    ),
    // One within the other; in subqueries.
    (
        "WITH c AS (SELECT k, sum(v) AS v FROM a GROUP BY k), d AS (SELECT x.k, y.v FROM c AS x JOIN c AS y ON x.k = y.k)
         SELECT k, v FROM d WHERE v > (SELECT avg(v) FROM d) AND k IN (SELECT k FROM c)",
        2,
    ),
    (
        "WITH c AS (SELECT k, sum(v) AS v FROM a GROUP BY k)
         SELECT b.w, (SELECT sum(v) FROM c WHERE c.k = b.k) AS v FROM b WHERE EXISTS (SELECT 1 FROM c WHERE c.k = b.k)",
        1,
    ),
    // A reader takes less than the others.
    ("WITH c AS (SELECT k, sum(v) AS v FROM a GROUP BY k) SELECT x.v, y.v AS w FROM c AS x JOIN c AS y ON x.k = y.k - 1 WHERE x.k = 3", 0),
    // Rows depend on an order.
    ("WITH c AS (SELECT k, sum(v) AS v FROM a GROUP BY k) SELECT x.k, row_number() OVER (ORDER BY x.k) AS n FROM c AS x JOIN c AS y ON x.k = y.k", 0),
    // Two tables.
    ("SELECT k FROM (SELECT k, max(v) FROM a GROUP BY k) UNION ALL SELECT k FROM (SELECT k, max(w) FROM b GROUP BY k)", 0),
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_read_twice_is_computed_once() {
    let folder = tempfile::tempdir().unwrap();
    let sources = sources(folder.path()).await;
    let tasks: String =
        (0..).zip(QUERIES).map(|(at, (query, _))| format!("CREATE TABLE t{at} AS {query};\n")).collect();
    let pipeline = chunkwise::sql::parse(&format!("{sources}{tasks}"), "f.sql", folder.path()).unwrap();
    let engine = engine_one_by_one(&folder.path().join("cache"));
    let report = engine.run(&pipeline, &RunOptions::default()).await.unwrap();
    let audit = RunOptions { audit_percent: 100.0, ..RunOptions::default() };
    let audited = engine.run(&pipeline, &audit).await.unwrap();
    let oracle = oracle(&sources.split_inclusive(";\n").map(String::from).collect::<Vec<_>>()).await;
    for (at, (query, repeated)) in QUERIES.iter().enumerate() {
        let name = format!("t{at}");
        let task = report.task(&name).unwrap();
        let found = task.steps.iter().filter(|step| step.part == StepPart::Repeated).count();
        assert_eq!(found, *repeated, "{query}: {task:#?}");
        assert_eq!(read_rows(&engine, &name).await.unwrap(), query_rows(&oracle, query).await, "{query}");
        let again = audited.task(&name).unwrap();
        assert_eq!(
            (again.status, again.audited),
            (Status::Reused, task.executed + task.reused),
            "{query}: {}",
            again.reason
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_reads_a_part_runs_again_when_its_rows_change() {
    let folder = tempfile::tempdir().unwrap();
    let sources = sources(folder.path()).await;
    let sql = format!("{sources}CREATE TABLE t AS {};", QUERIES[0].0);
    let engine = engine_one_by_one(&folder.path().join("cache"));
    let executed = async || run(&engine, &sql, folder.path()).await.task("t").unwrap().executed;
    assert_eq!((executed().await, executed().await), (2, 0));
    // Other rows, but the same sums.
    let moved = "SELECT nullif(value % 31, 0) AS k, value % 5 AS g, value AS v FROM generate_series(1, 400)";
    make_parquet(folder.path(), "a", &format!("{moved} UNION ALL SELECT 3, 1, 0")).await;
    assert_eq!(executed().await, 1);
    make_parquet(folder.path(), "a", &format!("{moved} UNION ALL SELECT 3, 1, 1000")).await;
    assert_eq!(executed().await, 2);
}
