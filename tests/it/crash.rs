//! A process that dies at any moment: the next run goes on with what was committed, and readers see whole tables only.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use chunkwise::Engine;
use tempfile::TempDir;

use crate::support::{
    Multiset, copy_folder, engine, files_in, make_parquet, oracle, query_rows, random, read_rows, run,
};

const TABLES: [&str; 2] = ["parts", "totals"];
const CHUNKS: u64 = 4;

/// A cache with one version of both tables published, and a pipeline that makes the next one.
struct Lab {
    folder: TempDir,
    old: [Multiset; 2],
    new: [Multiset; 2],
}

fn queries(left_out: u32) -> [String; 2] {
    [
        format!("SELECT k, sum(v) AS v, count(*) AS n, max(s) AS s FROM items WHERE v % {left_out} <> 0 GROUP BY k"),
        "SELECT n, count(*) AS groups, sum(v) AS v FROM parts GROUP BY n".to_string(),
    ]
}

impl Lab {
    async fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let rows =
            "SELECT value % 97 AS k, value AS v, 'text ' || value AS s FROM generate_series(1, 3000) AS t(value)";
        make_parquet(folder.path(), "items", rows).await;
        let source = format!(
            "CREATE EXTERNAL TABLE items STORED AS PARQUET LOCATION '{}/items.parquet'",
            folder.path().display()
        );
        let mut expected = Vec::new();
        for (name, left_out) in [("old", 5), ("new", 7)] {
            let [parts, totals] = queries(left_out);
            let sql = format!(
                "{source};
                 CREATE TABLE parts CLUSTERED BY (k) INTO 3 BUCKETS WITH (read_by = 'split') AS {parts};
                 CREATE TABLE totals AS {totals};"
            );
            fs::write(folder.path().join(name).with_extension("sql"), sql).unwrap();
            let whole = oracle(&[source.clone(), format!("CREATE VIEW parts AS {parts}")]).await;
            expected.push([query_rows(&whole, &parts).await, query_rows(&whole, &totals).await]);
        }
        let lab = Self { old: expected[0], new: expected[1], folder };
        run(&engine(&lab.path("pristine")), &lab.sql("old"), lab.folder.path()).await;
        lab
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn sql(&self, name: &str) -> String {
        fs::read_to_string(self.path(name).with_extension("sql")).unwrap()
    }

    /// A cache of its own, with the old tables.
    fn cache(&self) -> PathBuf {
        let cache = self.path("cache");
        if cache.exists() {
            fs::remove_dir_all(&cache).unwrap();
        }
        copy_folder(&self.path("pristine"), &cache);
        cache
    }

    /// Starts the command line with the new pipeline.
    fn start(&self, cache: &Path, abort_at: Option<u64>) -> Child {
        let mut command = Command::new(env!("CARGO_BIN_EXE_chunkwise"));
        command.arg("run").arg(self.path("new.sql")).arg("--cache").arg(cache).args(["--jobs", "2"]);
        if let Some(number) = abort_at {
            command.env("CHUNKWISE_ABORT_AT", number.to_string());
        }
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
    }

    /// What the tables are: old or new, each whole.
    async fn check_whole(&self, reader: &Engine, what: &str) {
        for (at, table) in TABLES.into_iter().enumerate() {
            let rows = read_rows(reader, table).await.unwrap_or_else(|e| panic!("{what}: {table}: {e}"));
            assert!(rows == self.old[at] || rows == self.new[at], "{what}: {table} is neither old nor new");
        }
    }

    /// Runs to the end after a crash and checks that nothing was lost, redone or left behind.
    async fn check_goes_on(&self, cache: &Path, what: &str) {
        self.check_whole(&engine(cache), what).await;
        let chunks = || files_in(&cache.join("chunks")).into_iter().collect::<BTreeSet<_>>();
        let committed = chunks();
        let written = |path: &PathBuf| fs::metadata(path).unwrap().modified().unwrap();
        let times: Vec<_> = committed.iter().map(written).collect();
        let next = engine(cache);
        let report = run(&next, &self.sql("new"), self.folder.path()).await;
        let executed: u64 = report.tasks.iter().map(|task| u64::from(task.executed)).sum();
        assert_eq!(executed, 2 * CHUNKS - committed.len() as u64, "{what}: {report:#?}");
        assert_eq!(chunks().len() as u64, 2 * CHUNKS, "{what}");
        assert_eq!(
            committed.iter().map(written).collect::<Vec<_>>(),
            times,
            "{what}: a committed chunk was written again"
        );
        for (at, table) in TABLES.into_iter().enumerate() {
            assert_eq!(read_rows(&next, table).await.as_ref(), Ok(&self.new[at]), "{what}: {table}");
        }
        assert!(next.verify_cache().unwrap().damaged.is_empty(), "{what}");
        drop(next);
        assert!(files_in(&cache.join("tmp")).is_empty(), "{what}: {:?}", files_in(&cache.join("tmp")));
        assert!(files_in(&cache.join("locks")).is_empty(), "{what}: {:?}", files_in(&cache.join("locks")));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_killed_at_any_write_goes_on() {
    let lab = Lab::new().await;
    for number in 1.. {
        let cache = lab.cache();
        let reader = Arc::new(engine(&cache));
        let is_over = Arc::new(AtomicBool::new(false));
        let (seen, over) = (Arc::clone(&reader), Arc::clone(&is_over));
        // Somebody reads all the while.
        let reading = tokio::spawn(async move {
            let mut found = BTreeSet::new();
            while !over.load(Ordering::Relaxed) {
                for (at, table) in TABLES.into_iter().enumerate() {
                    found.insert((at, format!("{:?}", read_rows(&seen, table).await)));
                }
            }
            found
        });
        let mut child = lab.start(&cache, Some(number));
        let status = tokio::task::spawn_blocking(move || child.wait().unwrap()).await.unwrap();
        is_over.store(true, Ordering::Relaxed);
        let what = format!("write {number}");
        for (at, rows) in reading.await.unwrap() {
            let allowed = [lab.old[at], lab.new[at]].map(|rows| format!("{:?}", Ok::<_, String>(rows)));
            assert!(allowed.contains(&rows), "{what}: a reader of {} saw {rows}", TABLES[at]);
        }
        lab.check_goes_on(&cache, &what).await;
        if status.success() {
            println!("killed at each of {} writes of the cache: every run went on", number - 1);
            assert!(number > 30, "only {number} writes");
            return;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_killed_at_random_moments_goes_on() {
    let kills: u64 = std::env::var("CHUNKWISE_TEST_KILLS").map_or(8, |text| text.parse().unwrap());
    let lab = Lab::new().await;
    let start = std::time::Instant::now();
    let cache = lab.cache();
    lab.start(&cache, None).wait().unwrap();
    let run_us = start.elapsed().as_micros() as u64;
    let (mut state, mut done) = (kills, 0);
    for kill in 0..kills {
        let cache = lab.cache();
        let after = Duration::from_micros(random(&mut state) % (run_us * 3 / 4));
        let mut child = lab.start(&cache, None);
        tokio::time::sleep(after).await;
        child.kill().unwrap();
        done += u64::from(child.wait().unwrap().success());
        lab.check_goes_on(&cache, &format!("kill {kill} after {after:?}")).await;
    }
    println!("{kills} kills at random moments of {run_us} µs, {done} of them after the end: every run went on");
}
