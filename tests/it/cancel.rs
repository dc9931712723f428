//! Runs that are dropped or stopped at any moment leave nothing behind.

use std::path::Path;
use std::time::{Duration, Instant};

use chunkwise::{Engine, ErrorKind, Event, Pipeline, RunOptions, Status, sql};
use futures::StreamExt;

use crate::support::{Multiset, files_in, make_parquet, oracle, parquet_source, query_rows, random, read_rows};

const JOIN: &str = "SELECT a.k, count(*) AS n, sum(b.x) AS x FROM t a JOIN u b ON a.k = b.k GROUP BY a.k";

async fn data(folder: &Path) -> Pipeline {
    for (name, rows) in [("t", 3000), ("u", 2000)] {
        let query = format!("SELECT value % 400 AS k, value AS x FROM generate_series(1, {rows}) AS g(value)");
        make_parquet(folder, name, &query).await;
    }
    let sql = format!(
        "CREATE EXTERNAL TABLE t STORED AS PARQUET LOCATION 't.parquet';
         CREATE EXTERNAL TABLE u STORED AS PARQUET LOCATION 'u.parquet';
         CREATE TABLE joined CLUSTERED BY (k) INTO 6 BUCKETS WITH (read_by = 'split', stage = 's') AS {JOIN};
         CREATE TABLE numbered CLUSTERED BY (k) INTO 6 BUCKETS WITH (stage = 's') AS
            SELECT k, n, row_number() OVER (PARTITION BY k ORDER BY x) AS r FROM joined;
         CREATE TABLE whole AS SELECT max(n) AS n FROM joined"
    );
    sql::parse(&sql, "t.sql", folder).unwrap()
}

async fn expected(folder: &Path) -> Multiset {
    query_rows(&oracle(&[parquet_source(folder, "t"), parquet_source(folder, "u")]).await, JOIN).await
}

fn force() -> RunOptions {
    RunOptions { force: true, ..RunOptions::default() }
}

/// `CHUNKWISE_CANCELS` says how many runs are stopped.
#[tokio::test(flavor = "multi_thread")]
async fn runs_that_are_stopped_at_random_moments_leave_nothing_and_break_nothing() {
    let stops: u64 = std::env::var("CHUNKWISE_CANCELS").ok().map_or(60, |count| count.parse().unwrap());
    let folder = tempfile::tempdir().unwrap();
    let pipeline = data(folder.path()).await;
    let cache = folder.path().join("cache");
    let engine = Engine::builder().cache_folder(&cache).jobs(2).build().unwrap();
    let start = Instant::now();
    assert!(engine.run(&pipeline, &force()).await.unwrap().succeeded());
    let usual = start.elapsed();
    let (mut state, mut ended) = (stops, 0);
    for stop in 0..stops {
        let moment = usual.mul_f64(random(&mut state) as f64 / u64::MAX as f64);
        let mut run = engine.start(&pipeline, &force()).unwrap();
        match stop % 3 {
            0 => {
                tokio::time::sleep(moment).await;
                drop(run);
            }
            1 => {
                let token = run.token();
                tokio::time::sleep(moment).await;
                token.cancel();
                match run.await {
                    Ok(_) => ended += 1,
                    Err(error) => assert_eq!(error.kind(), ErrorKind::Cancelled, "{error}"),
                }
            }
            _ => {
                // When so many things have happened.
                let mut events = run.events();
                for _ in 0..random(&mut state) % 30 {
                    let _ = events.next().await;
                }
                drop(run);
                while events.next().await.is_some() {}
            }
        }
        if stop % 20 == 0 {
            engine.idle().await;
            assert_eq!(engine.pool_bytes(), 0, "stop {stop}");
        }
    }
    assert!(ended < stops, "no run was stopped");
    engine.idle().await;
    assert_eq!(engine.pool_bytes(), 0);
    let left = files_in(&cache.join("tmp"));
    assert!(left.iter().all(|file| file.extension().is_some_and(|e| e == "lock")), "{left:?}");
    let verified = engine.verify_cache().unwrap();
    assert!(verified.damaged.is_empty(), "{verified:?}");
    let report = engine.run(&pipeline, &RunOptions::default()).await.unwrap();
    assert!(report.succeeded(), "{report:#?}");
    assert_eq!(read_rows(&engine, "joined").await.unwrap(), expected(folder.path()).await);
    println!("{stops} runs were stopped, {ended} of them too late, in {:?}", start.elapsed());
}

#[tokio::test]
async fn several_runs_share_one_engine_and_one_thread_awaits_them() {
    let folder = tempfile::tempdir().unwrap();
    let pipeline = data(folder.path()).await;
    let engine = Engine::builder().cache_folder(folder.path().join("cache")).jobs(2).build().unwrap();
    let options = RunOptions::default();
    let runs = (0..4).map(|_| engine.run(&pipeline, &options));
    let reports = futures::future::try_join_all(runs).await.unwrap();
    assert!(reports.iter().all(chunkwise::RunReport::succeeded), "{reports:#?}");
    // Each chunk was made once.
    let executed: u32 = reports.iter().map(|report| report.task("joined").unwrap().executed).sum();
    assert_eq!(executed, 6);
    assert_eq!(read_rows(&engine, "joined").await.unwrap(), expected(folder.path()).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn events_are_a_stream_that_ends_with_the_run() {
    let folder = tempfile::tempdir().unwrap();
    let pipeline = data(folder.path()).await;
    let engine = Engine::builder().cache_folder(folder.path().join("cache")).jobs(2).build().unwrap();
    let mut run = engine.start(&pipeline, &RunOptions::default()).unwrap();
    let events: Vec<Event> = run.events().collect().await;
    let report = run.await.unwrap();
    let done = events.iter().filter(|event| matches!(event, Event::ChunkDone { .. })).count();
    assert_eq!(done as u32, report.tasks.iter().map(|task| task.executed).sum::<u32>());
    let published = |events: &[Event]| events.iter().filter(|event| matches!(event, Event::Published { .. })).count();
    assert_eq!(published(&events), 3);
    let mut again = engine.start(&pipeline, &RunOptions::default()).unwrap();
    let events: Vec<Event> = again.events().collect().await;
    let reused = events.iter().filter_map(|event| match event {
        Event::Reused { task, chunks } => Some((task.as_str(), *chunks)),
        _ => None,
    });
    let mut reused: Vec<_> = reused.collect();
    reused.sort_unstable();
    assert_eq!(reused, [("joined", 6), ("numbered", 6), ("whole", 1)]);
    assert_eq!(published(&events), 0);
    drop(engine);
    // It ended before.
    assert!(again.await.is_ok());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failure_stops_the_rest_only_when_asked_to() {
    let folder = tempfile::tempdir().unwrap();
    make_parquet(folder.path(), "t", "SELECT value AS k FROM generate_series(1, 100) AS g(value)").await;
    let sql = "CREATE EXTERNAL TABLE t STORED AS PARQUET LOCATION 't.parquet';
        CREATE TABLE fails AS SELECT CAST(CAST(k AS VARCHAR) || 'x' AS INT) AS k FROM t;
        CREATE TABLE after AS SELECT * FROM fails;
        CREATE TABLE other AS SELECT k FROM t;
        CREATE TABLE z_last AS SELECT k FROM other";
    let pipeline = sql::parse(sql, "t.sql", folder.path()).unwrap();
    let engine = Engine::builder().cache_folder(folder.path().join("cache")).jobs(1).build().unwrap();
    let status = |report: &chunkwise::RunReport, task: &str| report.task(task).unwrap().status;
    let report = engine.run(&pipeline, &RunOptions::default()).await.unwrap();
    assert_eq!(status(&report, "fails"), Status::Failed);
    assert_eq!((status(&report, "after"), status(&report, "z_last")), (Status::Skipped, Status::Executed));
    let options = RunOptions { fail_fast: true, force: true, ..RunOptions::default() };
    let report = engine.run(&pipeline, &options).await.unwrap();
    assert_eq!((status(&report, "fails"), report.tasks.len()), (Status::Failed, 4));
    assert_eq!((status(&report, "after"), status(&report, "z_last")), (Status::Skipped, Status::Skipped));
    tokio::time::timeout(Duration::from_secs(10), engine.idle()).await.unwrap();
}
