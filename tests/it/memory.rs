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
        let parts = most_parts("value", (60_000, 60), JOIN, 8 << 20, read_by).await;
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
    let sources = sources(folder.path(), "value % 5000", 60_000, 240).await;
    let query = "SELECT l.k, count(*) AS n, max(l.s) AS s FROM l JOIN r ON l.k = r.k GROUP BY l.k";
    let sql = format!("{sources}CREATE TABLE t AS {query};");
    let mut found = Vec::new();
    for mib in [4096, 64, 16] {
        let engine = Engine::builder().cache_folder(folder.path().join(format!("cache {mib}"))).jobs(2);
        let engine = engine.memory_limit_bytes(mib << 20).build().unwrap();
        let report = run(&engine, &sql, folder.path()).await;
        let task = report.task("t").unwrap();
        found.push((task.chunks, Multiset::of(engine.table("t").await.unwrap()).await));
    }
    assert!(found[0].0 == 1 && found[0].0 < found[1].0 && found[1].0 < found[2].0, "{found:?}");
    assert!(found.iter().all(|(_, rows)| *rows == found[0].1), "{found:?}");
}
