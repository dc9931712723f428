//! An index of 100,000 chunks: opening it, looking up a task's 1,000 chunks, and a run that has nothing to do.
//!
//! `cargo bench --bench cache`

use std::fmt::Write;
use std::hint::black_box;
use std::path::Path;
use std::time::Duration;

use chunkwise::testing::{add_rows, find_rows};
use chunkwise::{Engine, Pipeline, RunOptions};
use criterion::Criterion;
use tokio::runtime::Runtime;

const ROWS: u32 = 100_000;
const TASKS: usize = 100;
const CHUNKS: usize = 100;

fn main() {
    let folder = tempfile::tempdir().expect("a folder");
    let cache = folder.path().join("cache");
    let runtime = Runtime::new().expect("a runtime");
    let pipeline = pipeline(folder.path());
    let run = |engine: &Engine| {
        let report = runtime.block_on(engine.run(&pipeline, &RunOptions::default())).expect("a run");
        assert!(report.succeeded(), "{report:#?}");
        report.tasks.iter().map(|task| task.executed as usize).sum::<usize>()
    };
    let engine = || Engine::builder().cache_folder(&cache).build().expect("an engine");
    println!("{} chunks ran", run(&engine()));
    let chunks = add_rows(&cache, ROWS).expect("rows");
    println!("index of {} bytes", std::fs::metadata(cache.join("index.sqlite")).expect("an index").len());

    let mut criterion =
        Criterion::default().measurement_time(Duration::from_secs(5)).sample_size(10).configure_from_args();
    let mut group = criterion.benchmark_group("cache");
    group.bench_function("open", |bench| bench.iter(|| find_rows(&cache, &[]).expect("an index")));
    group.bench_function("open, and look up 1,000 chunks", |bench| {
        bench.iter(|| assert_eq!(find_rows(&cache, black_box(&chunks[..1000])).expect("an index"), 1000));
    });
    let same = engine();
    run(&same);
    group.bench_function("null run of 100 tasks of 100 chunks", |bench| bench.iter(|| assert_eq!(run(&same), 0)));
    group.bench_function("null run in a new process, as it were", |bench| bench.iter(|| assert_eq!(run(&engine()), 0)));
    group.finish();
    criterion.final_summary();
}

/// A hundred tasks in ten rows of ten, each row over the one before.
fn pipeline(folder: &Path) -> Pipeline {
    let mut csv = String::from("k,v\n");
    for row in 0..2000 {
        let _ = writeln!(csv, "{row},{}", row % 7);
    }
    std::fs::write(folder.join("rows.csv"), csv).expect("a source");
    let mut sql =
        String::from("CREATE EXTERNAL TABLE t STORED AS CSV LOCATION 'rows.csv' OPTIONS (format.has_header true);\n");
    for task in 0..TASKS {
        let input = if task < 10 { "t".to_string() } else { format!("t{}", task - 10) };
        let _ = writeln!(
            sql,
            "CREATE TABLE t{task} CLUSTERED BY (k) INTO {CHUNKS} BUCKETS AS SELECT k, sum(v) + {task} AS v FROM {input} GROUP BY k;"
        );
    }
    chunkwise::sql::parse(&sql, "tasks.sql", folder).expect("a pipeline")
}
