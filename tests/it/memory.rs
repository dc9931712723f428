//! Too little memory makes a run slower: chunks are cut further, and what can't be cut spills.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex};

use chunkwise::{Engine, Event};

use crate::support::{Multiset, make_parquet, oracle, parquet_source, query_rows, run};

/// Source `l`, of which the keys are `key`, an expression of `value`, and a source `r` with a row for each key.
async fn sources(folder: &Path, key: &str, rows: usize, length: usize) -> String {
    let text = format!("repeat(chr(97 + CAST(value % 26 AS INT)), {length}) || value");
    let left = format!("SELECT {key} AS k, value AS v, {text} AS s FROM generate_series(1, {rows}) AS t(value)");
    make_parquet(folder, "l", &left).await;
    let right = format!("SELECT value AS k, {text} AS name FROM generate_series(0, {rows}) AS t(value)");
    make_parquet(folder, "r", &right).await;
    ["l", "r"].map(|name| format!("{};\n", parquet_source(folder, name))).concat()
}

/// Runs `query` in two chunks by `k` with `limit_bytes` and compares its rows with the whole query's; returns the most
/// parts that a chunk was tried in.
async fn most_parts(key: &str, (rows, length): (usize, usize), query: &str, limit_bytes: usize, read_by: &str) -> u32 {
    let folder = tempfile::tempdir().unwrap();
    let sources = sources(folder.path(), key, rows, length).await;
    let parts: Arc<Mutex<BTreeMap<u32, u32>>> = Arc::default();
    let seen = Arc::clone(&parts);
    let engine = Engine::builder().cache_folder(folder.path().join("cache")).jobs(2).memory_limit_bytes(limit_bytes);
    let engine = engine.on_event(move |event| {
        if let Event::ShortOfMemory { chunk, parts, .. } = event {
            // Another part of the chunk, cut less, may be short of memory later.
            seen.lock().unwrap().entry(chunk).and_modify(|most| *most = parts.max(*most)).or_insert(parts);
        }
    });
    let engine = engine.build().unwrap();
    let sql =
        format!("{sources}CREATE TABLE t CLUSTERED BY (k) INTO 2 BUCKETS WITH (read_by = '{read_by}') AS {query}");
    let report = run(&engine, &sql, folder.path()).await;
    let statements: Vec<String> = sources.split_inclusive(";\n").map(String::from).collect();
    let whole = query_rows(&oracle(&statements).await, query).await;
    assert!(whole.rows > 0);
    assert_eq!(Multiset::of(engine.table("t").await.unwrap()).await, whole, "{report:#?}");
    let parts = parts.lock().unwrap();
    parts.values().copied().max().unwrap_or(1)
}

const JOIN: &str = "SELECT l.k, l.v, l.s, r.name FROM l JOIN r ON l.k = r.k";

#[tokio::test(flavor = "multi_thread")]
async fn a_chunk_that_does_not_fit_is_cut_further() {
    assert_eq!(most_parts("value", (60_000, 60), JOIN, 1 << 30, "rescan").await, 1);
    for read_by in ["rescan", "split"] {
        let parts = most_parts("value", (60_000, 60), JOIN, 6 << 20, read_by).await;
        assert!((2..64).contains(&parts), "{read_by}: {parts}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_that_can_not_be_cut_spills() {
    let both = "SELECT a.k, count(*) AS n, max(a.s || b.s) AS s FROM l AS a JOIN l AS b ON a.k = b.k AND a.v = b.v
        GROUP BY a.k";
    let half = "CASE WHEN value % 2 = 0 THEN 7 ELSE value END";
    assert_eq!(most_parts(half, (100_000, 600), both, 52 << 20, "rescan").await, 64);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_number_of_chunks_follows_from_the_memory() {
    let folder = tempfile::tempdir().unwrap();
    let sources = sources(folder.path(), "value % 50000", 60_000, 240).await;
    let query = "SELECT l.k, count(*) AS n, max(l.s) AS s FROM l JOIN r ON l.k = r.k GROUP BY l.k";
    let sql = format!("{sources}CREATE TABLE t AS {query};");
    let mut found = Vec::new();
    for mib in [4096, 16, 4] {
        let engine = Engine::builder().cache_folder(folder.path().join(format!("cache {mib}"))).jobs(2);
        let engine = engine.memory_limit_bytes(mib << 20).build().unwrap();
        let report = run(&engine, &sql, folder.path()).await;
        let task = report.task("t").unwrap();
        found.push((task.chunks, Multiset::of(engine.table("t").await.unwrap()).await));
    }
    assert!(found[0].0 == 1 && found[0].0 < found[1].0 && found[1].0 < found[2].0, "{found:?}");
    assert!(found.iter().all(|(_, rows)| *rows == found[0].1), "{found:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_holds_little_of_its_inputs_runs_whole() {
    let folder = tempfile::tempdir().unwrap();
    let rows = "SELECT value AS v, 'kind ' || (value % 5) AS kind, value % 200000 AS many FROM generate_series(1, 300000) AS t(value)";
    make_parquet(folder.path(), "l", rows).await;
    make_parquet(
        folder.path(),
        "r",
        "SELECT value AS k, 'name ' || value AS name FROM generate_series(0, 9) AS t(value)",
    )
    .await;
    let engine = Engine::builder().cache_folder(folder.path().join("cache")).jobs(2).memory_limit_bytes(8 << 20);
    let engine = engine.build().unwrap();
    let queries = [
        ("SELECT kind, sum(v) AS total, count(*) AS n FROM l GROUP BY kind ORDER BY kind", true),
        ("SELECT max(v) AS most FROM l WHERE v % 3 = 1", true),
        ("SELECT name, count(*) AS n FROM l JOIN r ON v % 10 = k GROUP BY name", true),
        ("SELECT v, kind FROM l WHERE v > 7", true),
        ("SELECT many, count(*) AS n FROM l GROUP BY many", false),
        ("SELECT * FROM l ORDER BY many", false),
        ("SELECT a.v FROM l AS a JOIN l AS b ON a.v = b.many", false),
        ("SELECT kind, count(DISTINCT v) AS n FROM l GROUP BY kind", false),
    ];
    let mut sql = ["l", "r"].map(|name| format!("{};\n", parquet_source(folder.path(), name))).concat();
    for (at, (query, _)) in queries.iter().enumerate() {
        sql.push_str(&format!("CREATE TABLE t{at} AS {query};\n"));
    }
    let report = run(&engine, &sql, folder.path()).await;
    for (at, (query, is_whole)) in queries.iter().enumerate() {
        let chunks = report.task(&format!("t{at}")).unwrap().chunks;
        assert_eq!(chunks == 1, *is_whole, "{query}: {chunks} chunks");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn distinct_values_of_several_columns_need_no_more_memory_than_there_is() {
    let folder = tempfile::tempdir().unwrap();
    let rows = "SELECT value AS v, repeat('text', 5) || value AS s, nullif(value % 3, 0) AS kind
        FROM generate_series(1, 120000) AS t(value)";
    make_parquet(folder.path(), "l", rows).await;
    let counts = "count(DISTINCT s) AS texts, count(*) AS n, count(DISTINCT v) AS numbers, max(v) AS most";
    let queries = [
        format!("SELECT {counts} FROM l"),
        format!("SELECT kind, {counts} FROM l GROUP BY kind"),
        format!("SELECT {counts} FROM (SELECT l.* FROM l JOIN (VALUES (1), (2)) AS o(k) ON l.kind = o.k)"),
    ];
    let mut sql = format!("{};\n", parquet_source(folder.path(), "l"));
    for (at, query) in queries.iter().enumerate() {
        sql.push_str(&format!(
            "CREATE TABLE whole{at} WITH (chunks = 1) AS {query};\nCREATE TABLE own{at} AS {query};\n"
        ));
    }
    let mut found: Vec<Vec<Multiset>> = Vec::new();
    for mib in [4096, 24] {
        let engine = Engine::builder().cache_folder(folder.path().join(format!("cache {mib}"))).jobs(2);
        let engine = engine.memory_limit_bytes(mib << 20).build().unwrap();
        run(&engine, &sql, folder.path()).await;
        let mut tables = Vec::new();
        for at in 0..queries.len() {
            for name in ["whole", "own"] {
                tables.push(Multiset::of(engine.table(&format!("{name}{at}")).await.unwrap()).await);
            }
        }
        found.push(tables);
    }
    assert_eq!(found[0], found[1]);
    for pair in found[0].chunks(2) {
        assert_eq!(pair[0], pair[1]);
    }
}
