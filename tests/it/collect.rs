//! Bounds of the cache: what is removed, what never is; several processes at one cache.

use std::fs::{self, File, FileTimes};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use chunkwise::{CollectOptions, Engine, ErrorKind, Event, RunOptions};

use crate::support::{Multiset, collect, collect_all, engine, files_in, make_parquet, parquet_source, run};

const ALL: CollectOptions = CollectOptions { older_than: Some(Duration::ZERO), limit_bytes: None };

async fn source(folder: &Path) -> String {
    let rows = "SELECT value % 97 AS k, value AS v, 'text ' || value AS s FROM generate_series(1, 3000) AS t(value)";
    make_parquet(folder, "items", rows).await;
    format!("{};\n", parquet_source(folder, "items"))
}

fn task(name: &str, plus: u32) -> String {
    format!(
        "CREATE TABLE {name} CLUSTERED BY (k) INTO 4 BUCKETS WITH (read_by = 'split') AS
         SELECT k, sum(v) + {plus} AS v, max(s) AS s FROM items GROUP BY k;\n"
    )
}

fn bytes_in(folder: &Path) -> u64 {
    let chunks = files_in(&folder.join("chunks"));
    chunks.iter().map(|file| file.metadata().unwrap().len()).sum()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_no_published_table_is_made_of_goes_and_the_rest_stays() {
    let folder = tempfile::tempdir().unwrap();
    let cache = folder.path().join("cache");
    let source = source(folder.path()).await;
    let engine = engine(&cache);
    let versions = [1, 2, 3].map(|plus| format!("{source}{}{}", task("t", plus), task("other", 7)));
    for sql in &versions {
        run(&engine, sql, folder.path()).await;
    }
    let files = || files_in(&cache.join("chunks")).len();
    assert_eq!(files(), 16);
    // What was used now is not old, and readers of older versions have their time.
    let done = collect(&engine, &CollectOptions { older_than: Some(Duration::from_secs(600)), limit_bytes: None });
    assert_eq!((done.removed, files()), (0, 16));
    // However little time is asked for.
    collect(&engine, &ALL);
    assert_eq!(files(), 16);
    // Switching back is all hits; the version in between goes first then.
    let back = run(&engine, &versions[0], folder.path()).await;
    assert_eq!(back.task("t").unwrap().executed, 0);
    let expected = Multiset::of(engine.table("t").await.unwrap()).await;
    let done = collect_all(&engine, &cache);
    assert_eq!(files(), 8, "{done:?}");
    assert!(!cache.join("splits").exists() || files_in(&cache.join("splits")).is_empty());
    assert_eq!(done.left_bytes, bytes_in(&cache));
    assert_eq!(Multiset::of(engine.table("t").await.unwrap()).await, expected);
    assert_eq!(files_in(&cache.join("versions")).iter().filter(|path| path.extension().unwrap() == "b3").count(), 2);
    assert!(engine.verify_cache().unwrap().damaged.is_empty());
    let again = run(&engine, &versions[0], folder.path()).await;
    assert_eq!(again.tasks.iter().map(|task| task.executed).sum::<u32>(), 0);
    let lost = run(&engine, &versions[1], folder.path()).await;
    assert_eq!((lost.task("t").unwrap().executed, lost.task("other").unwrap().executed), (4, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn chunks_of_earlier_steps_stay_with_the_version() {
    let folder = tempfile::tempdir().unwrap();
    let sql = format!(
        "{}CREATE TABLE total CLUSTERED BY (k) INTO 4 BUCKETS AS SELECT count(*) AS n, sum(v) AS v FROM items;",
        source(folder.path()).await
    );
    let cache = folder.path().join("cache");
    let engine = engine(&cache);
    let first = run(&engine, &sql, folder.path()).await;
    let total = first.task("total").unwrap();
    assert!(total.steps.len() == 2 && total.executed > 1, "{total:#?}");
    collect_all(&engine, &cache);
    assert_eq!(run(&engine, &sql, folder.path()).await.task("total").unwrap().executed, 0);
    run(&engine, &sql.replace("sum(v)", "max(v)"), folder.path()).await;
    collect_all(&engine, &cache);
    assert_eq!(files_in(&cache.join("chunks")).len(), total.executed as usize);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pinned_version_stays() {
    let folder = tempfile::tempdir().unwrap();
    let cache = folder.path().join("cache");
    let source = source(folder.path()).await;
    let engine = engine(&cache);
    let [one, two] = [1, 2].map(|plus| format!("{source}{}", task("t", plus)));
    run(&engine, &one, folder.path()).await;
    engine.pin("t").unwrap();
    assert!(engine.published_tables().unwrap()[0].is_pinned);
    assert_eq!(engine.pin("none").unwrap_err().kind(), ErrorKind::Usage);
    run(&engine, &two, folder.path()).await;
    assert!(!engine.published_tables().unwrap()[0].is_pinned);
    collect_all(&engine, &cache);
    assert_eq!(run(&engine, &one, folder.path()).await.task("t").unwrap().executed, 0);
    assert_eq!((engine.unpin("t").unwrap(), engine.unpin("t").unwrap()), (1, 0));
    run(&engine, &two, folder.path()).await;
    collect_all(&engine, &cache);
    assert_eq!(run(&engine, &one, folder.path()).await.task("t").unwrap().executed, 4);
}

#[tokio::test(flavor = "multi_thread")]
async fn over_its_limit_a_cache_loses_what_was_used_least_recently() {
    let folder = tempfile::tempdir().unwrap();
    let cache = folder.path().join("cache");
    let source = source(folder.path()).await;
    let versions = [1, 2, 3].map(|plus| format!("{source}{}", task("t", plus)));
    let warnings: Arc<Mutex<Vec<String>>> = Arc::default();
    let limited = |bytes: u64| {
        let warnings = Arc::clone(&warnings);
        Engine::builder()
            .cache_folder(&cache)
            .jobs(2)
            .cache_limit_bytes(bytes)
            .on_event(move |event| {
                if let Event::Warning { message } = event {
                    warnings.lock().unwrap().push(message);
                }
            })
            .build()
            .unwrap()
    };
    let roomy = limited(u64::MAX);
    let age = |seconds: u64| {
        // As if all had been used so long ago.
        for file in files_in(&cache.join("chunks")) {
            let used = file.metadata().unwrap().accessed().unwrap() - Duration::from_secs(seconds);
            File::open(file).unwrap().set_times(FileTimes::new().set_accessed(used)).unwrap();
        }
        for list in files_in(&cache.join("versions")).iter().filter(|path| path.extension().unwrap() == "b3") {
            let old = SystemTime::now() - Duration::from_secs(2 * 60 * 60);
            File::open(list).unwrap().set_times(FileTimes::new().set_modified(old)).unwrap();
        }
        for split in
            fs::read_dir(cache.join("splits")).unwrap().flat_map(|cut| fs::read_dir(cut.unwrap().path()).unwrap())
        {
            let old = SystemTime::now() - Duration::from_secs(24 * 60 * 60);
            File::open(split.unwrap().path()).unwrap().set_times(FileTimes::new().set_modified(old)).unwrap();
        }
    };
    for sql in &versions {
        run(&roomy, sql, folder.path()).await;
        age(1000);
    }
    let three = bytes_in(&cache);
    // The second is used again; the third is published.
    run(&roomy, &versions[1], folder.path()).await;
    run(&roomy, &versions[2], folder.path()).await;
    let limit = three * 3 / 4;
    let done = collect(&roomy, &CollectOptions { older_than: None, limit_bytes: Some(limit) });
    assert!(done.left_bytes <= limit && done.left_bytes >= three / 2, "{done:?} of {three}");
    assert_eq!(run(&roomy, &versions[1], folder.path()).await.task("t").unwrap().executed, 0);
    run(&roomy, &versions[2], folder.path()).await;
    assert!(warnings.lock().unwrap().is_empty());
    // Published tables stay, whatever the limit.
    age(0);
    let tight = limited(1);
    assert_eq!(run(&tight, &versions[2], folder.path()).await.task("t").unwrap().executed, 0);
    assert_eq!(files_in(&cache.join("chunks")).len(), 4);
    let warnings = warnings.lock().unwrap();
    assert!(warnings.len() == 1 && warnings[0].contains("more than its limit of 1"), "{warnings:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn files_that_a_run_uses_are_not_removed() {
    let folder = tempfile::tempdir().unwrap();
    let cache = folder.path().join("cache");
    let sql = format!("{}{}", source(folder.path()).await, task("t", 1));
    let started = Arc::new(tokio::sync::Notify::new());
    let (resume, wait) = std::sync::mpsc::channel::<()>();
    let (notify, wait) = (Arc::clone(&started), Mutex::new(wait));
    let busy = Engine::builder().cache_folder(&cache).jobs(2).on_event(move |event| {
        if let Event::ChunkDone { .. } = event {
            notify.notify_one();
            // Until the sender is dropped.
            let _ = wait.lock().unwrap().recv();
        }
    });
    let busy = Arc::new(busy.build().unwrap());
    let pipeline = chunkwise::sql::parse(&sql, "test.sql", folder.path()).unwrap();
    let runner = Arc::clone(&busy);
    let running = tokio::spawn(async move { runner.run(&pipeline, &RunOptions::default()).await.unwrap() });
    started.notified().await;
    let other = engine(&cache);
    let error = other.collect(&ALL).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Storage);
    assert!(error.to_string().contains("a run uses the cache"), "{error}");
    drop(resume);
    assert!(running.await.unwrap().succeeded());
    assert!(collect_all(&other, &cache).removed > 0);
    assert_eq!(run(&other, &sql, folder.path()).await.task("t").unwrap().executed, 0);
}

#[test]
fn four_processes_make_each_chunk_once() {
    let folder = tempfile::tempdir().unwrap();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let source = runtime.block_on(source(folder.path()));
    let tasks = [("a", 1), ("b", 2), ("c", 3)].map(|(name, plus)| task(name, plus).replace("INTO 4", "INTO 16"));
    let below =
        "CREATE TABLE d CLUSTERED BY (k) INTO 16 BUCKETS AS SELECT a.k, a.v + b.v AS v FROM a JOIN b ON a.k = b.k;";
    let sql = folder.path().join("tasks.sql");
    fs::write(&sql, format!("{source}{}{below}", tasks.concat())).unwrap();
    let processes: Vec<_> = (0..4)
        .map(|number| {
            Command::new(env!("CARGO_BIN_EXE_chunkwise"))
                .args(["run", "--jobs", "2", "--cache"])
                .arg(folder.path().join("cache"))
                .arg("--report")
                .arg(folder.path().join(format!("{number}.json")))
                .arg(&sql)
                .stdout(Stdio::null())
                .stderr(Stdio::piped())
                .spawn()
                .unwrap()
        })
        .collect();
    for process in processes {
        let output = process.wait_with_output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }
    let (mut executed, mut splits) = (0, 0);
    for number in 0..4 {
        let report = fs::read(folder.path().join(format!("{number}.json"))).unwrap();
        let report: serde_json::Value = serde_json::from_slice(&report).unwrap();
        let tasks = report["tasks"].as_array().unwrap();
        let sum = |key: &str| tasks.iter().map(|task| task[key].as_u64().unwrap()).sum::<u64>();
        assert_eq!(sum("executed") + sum("reused"), 64, "{report:#}");
        executed += sum("executed");
        splits += tasks.iter().filter(|task| task["split_bytes"].as_u64().unwrap() > 0).count();
    }
    assert_eq!((executed, splits), (64, 1));
    let cache = folder.path().join("cache");
    assert_eq!(files_in(&cache.join("chunks")).len(), 64);
    assert!(files_in(&cache.join("locks")).is_empty() && files_in(&cache.join("tmp")).is_empty());
}
