//! Stages: their tables appear together or not at all, whatever fails, dies or reads meanwhile.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use arrow::array::AsArray;
use arrow::datatypes::Int64Type;
use chunkwise::{
    CollectOptions, Engine, ErrorKind, Event, FreshInput, Pipeline, RunOptions, RunReport, Status, Task, sql,
};
use tempfile::TempDir;

use crate::support::{collect, collect_all, copy_folder, engine, files_in, make_parquet, parquet_source, run, try_run};

/// A folder with a source of 300 rows.
async fn lab() -> (TempDir, String, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    make_parquet(folder.path(), "items", "SELECT value % 7 AS k, value AS v FROM generate_series(1, 300) AS t(value)")
        .await;
    let source = format!("{};\n", parquet_source(folder.path(), "items"));
    let cache = folder.path().join("cache");
    (folder, source, cache)
}

/// A task whose rows all say which generation they are of.
fn task(name: &str, stage: &str, generation: i64) -> String {
    let stage = if stage.is_empty() { String::new() } else { format!("WITH (stage = '{stage}')") };
    format!(
        "CREATE TABLE {name} CLUSTERED BY (k) INTO 2 BUCKETS {stage} AS
         SELECT k, sum(v) AS v, '{name}' AS name, {generation} AS g FROM items GROUP BY k;\n"
    )
}

/// A task that fails when it runs.
fn broken(name: &str, stage: &str) -> String {
    format!(
        "CREATE TABLE {name} WITH (stage = '{stage}', chunks = 1) AS
         SELECT CAST(CAST(k AS VARCHAR) || 'x' AS INT) AS k, CAST(0 AS BIGINT) AS g FROM items;\n"
    )
}

/// The generations of tables, as one query sees them.
async fn seen(engine: &Engine, tables: &[&str]) -> Result<Vec<i64>, String> {
    let columns: Vec<_> = tables.iter().map(|table| format!("(SELECT max(g) FROM {table}) AS {table}")).collect();
    let rows = engine.query(&format!("SELECT {}", columns.join(", "))).await.map_err(|e| format!("{e:?}"))?;
    let rows = rows.collect().await.map_err(|e| format!("{e:?}"))?;
    let value = |column: &arrow::array::ArrayRef| column.as_primitive::<Int64Type>().value(0);
    Ok(rows[0].columns().iter().map(value).collect())
}

fn status(report: &RunReport, task: &str) -> Status {
    report.task(task).unwrap().status
}

fn stage_folders(cache: &Path, stage: &str) -> BTreeSet<PathBuf> {
    let entries = fs::read_dir(cache.join("stages").join(stage)).unwrap().map(|entry| entry.unwrap().path());
    entries.filter(|path| !path.is_symlink()).collect()
}

/// Everything in the cache that says what is published, and when it was written.
fn links(cache: &Path) -> Vec<(PathBuf, PathBuf, std::time::SystemTime)> {
    let mut found = Vec::new();
    let mut folders = vec![cache.join("tables"), cache.join("stages")];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            match fs::read_link(&path) {
                Ok(target) => {
                    let time = fs::symlink_metadata(&path).unwrap().modified().unwrap();
                    found.push((path, target, time));
                }
                Err(_) => folders.push(path),
            }
        }
    }
    found.sort();
    found
}

/// As `tables/<table>/chunk=0000/*.parquet` is found by others.
fn is_plain_folder(cache: &Path, table: &str) -> bool {
    let chunk = cache.join("tables").join(table).join("chunk=0000");
    fs::read_dir(chunk).is_ok_and(|files| files.into_iter().all(|file| file.unwrap().path().is_file()))
}

#[tokio::test(flavor = "multi_thread")]
async fn tables_of_a_stage_appear_together_or_not_at_all() {
    let (folder, source, cache) = lab().await;
    let events: Arc<Mutex<Vec<Event>>> = Arc::default();
    let listener = Arc::clone(&events);
    let builder = Engine::builder().cache_folder(&cache).jobs(2);
    let engine = builder.on_event(move |event| listener.lock().unwrap().push(event)).build().unwrap();
    let published = || {
        let mut events = events.lock().unwrap();
        let names = events.drain(..).filter_map(|event| match event {
            Event::Published { task } => Some(task),
            _ => None,
        });
        let mut names: Vec<_> = names.collect();
        names.sort_unstable();
        names
    };
    // One of three fails: nothing is there, and what reads the stage is skipped.
    let reader = "CREATE TABLE reader AS SELECT k, g FROM a;\n";
    let failing = format!("{source}{}{}{}{reader}", task("a", "s", 1), task("b", "s", 1), broken("c", "s"));
    let report = try_run(&engine, &failing, folder.path()).await;
    assert!(!report.succeeded());
    assert_eq!((status(&report, "a"), status(&report, "b")), (Status::Withheld, Status::Withheld));
    assert_eq!((status(&report, "c"), status(&report, "reader")), (Status::Failed, Status::Skipped));
    let a = report.task("a").unwrap();
    assert_eq!((a.executed, a.stage.as_deref()), (2, Some("s")));
    assert_eq!(a.reason, "not published yet; not published: task `c` of stage `s` failed");
    let reason = &report.task("reader").unwrap().reason;
    assert_eq!(reason, "`c` failed, so that stage `s`, which it needs, is not published");
    assert_eq!(report.task("reader").unwrap().stage, None);
    assert!(engine.published_tables().unwrap().is_empty());
    assert!(!cache.join("stages").exists());
    assert_eq!(published(), Vec::<String>::new());

    // Mended: what ran is reused, and all is published.
    let mended = |generation| {
        format!("{source}{}{}{}{reader}", task("a", "s", 1), task("b", "s", 1), task("c", "s", generation))
    };
    let report = run(&engine, &mended(1), folder.path()).await;
    assert_eq!((status(&report, "a"), status(&report, "b")), (Status::Reused, Status::Reused));
    assert_eq!((status(&report, "c"), status(&report, "reader")), (Status::Executed, Status::Executed));
    assert_eq!(published(), ["a", "b", "c", "reader"]);
    assert_eq!(seen(&engine, &["a", "b", "c", "reader"]).await.unwrap(), [1, 1, 1, 1]);
    assert!(["a", "b", "c", "reader"].iter().all(|table| is_plain_folder(&cache, table)));
    assert_eq!(fs::read_link(cache.join("tables/a")).unwrap(), Path::new("../stages/s/current/a"));
    assert_eq!(
        fs::canonicalize(cache.join("tables/a")).unwrap().parent().unwrap(),
        fs::canonicalize(cache.join("versions/a")).unwrap()
    );
    let names: Vec<_> = engine.published_tables().unwrap().into_iter().map(|table| table.table).collect();
    assert_eq!(names, ["a", "b", "c", "reader"]);

    // Nothing changed: nothing is written.
    let before = links(&cache);
    run(&engine, &mended(1), folder.path()).await;
    assert_eq!((published(), links(&cache)), (Vec::new(), before));

    // Only what changed is told of; what fails leaves all as it was.
    run(&engine, &mended(2), folder.path()).await;
    assert_eq!(published(), ["c"]);
    let again = format!("{source}{}{}{}", task("a", "s", 3), task("b", "s", 3), broken("c", "s"));
    let report = try_run(&engine, &again, folder.path()).await;
    assert_eq!(status(&report, "a"), Status::Withheld);
    assert_eq!(seen(&engine, &["a", "b", "c", "reader"]).await.unwrap(), [1, 1, 2, 1]);
    assert_eq!(published(), Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failure_outside_withholds_the_stage_that_needs_it() {
    let (folder, source, cache) = lab().await;
    let engine = engine(&cache);
    let sql = format!(
        "{source}{}{}CREATE TABLE needs WITH (stage = 's') AS SELECT k FROM c;
         CREATE TABLE beyond AS SELECT k FROM needs; CREATE TABLE apart AS SELECT k FROM items;",
        task("a", "s", 1),
        broken("c", "other"),
    );
    let report = try_run(&engine, &sql, folder.path()).await;
    let statuses = ["a", "c", "needs", "beyond", "apart"].map(|task| status(&report, task));
    let skipped = Status::Skipped;
    assert_eq!(statuses, [Status::Withheld, Status::Failed, skipped, skipped, Status::Executed]);
    assert!(report.task("a").unwrap().reason.ends_with("not published: task `needs` of stage `s` was skipped"));

    // With --fail-fast nothing of a stage that is not whole is published; a dry run publishes nothing, and withholds nothing.
    let pipeline = sql::parse(&sql, "test.sql", folder.path()).unwrap();
    let options = RunOptions { fail_fast: true, force: true, ..RunOptions::default() };
    let report = engine.run(&pipeline, &options).await.unwrap();
    assert!(!report.succeeded() && matches!(status(&report, "a"), Status::Withheld | Status::Skipped), "{report:#?}");
    let names: Vec<_> = engine.published_tables().unwrap().into_iter().map(|table| table.table).collect();
    assert_eq!(names, ["apart"]);
    let sound = format!("{source}{}{}CREATE TABLE reads AS SELECT k, g FROM a;", task("a", "s", 1), task("b", "s", 9));
    let pipeline = sql::parse(&sound, "test.sql", folder.path()).unwrap();
    let dry = RunOptions { dry_run: true, ..RunOptions::default() };
    let report = engine.run(&pipeline, &dry).await.unwrap();
    assert!(report.succeeded(), "{report:#?}");
    assert_eq!(
        ["a", "b", "reads"].map(|task| status(&report, task)),
        [Status::Reused, Status::Planned, Status::Planned]
    );
    assert!(!cache.join("stages").exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stage_that_can_not_be_published_fails_its_tasks() {
    let (folder, source, cache) = lab().await;
    let engine = engine(&cache);
    fs::create_dir_all(&cache).unwrap();
    fs::write(cache.join("stages"), "in the way").unwrap();
    let sql = format!("{source}{}{}CREATE TABLE reads AS SELECT k, g FROM a;", task("a", "s", 1), task("b", "s", 1));
    let report = try_run(&engine, &sql, folder.path()).await;
    let statuses = ["a", "b", "reads"].map(|task| status(&report, task));
    assert_eq!(statuses, [Status::Failed, Status::Failed, Status::Skipped], "{report:#?}");
    assert!(report.task("b").unwrap().reason.starts_with("stage `s` can't be published: "), "{report:#?}");
    assert!(engine.published_tables().unwrap().is_empty());
    fs::remove_file(cache.join("stages")).unwrap();
    let report = run(&engine, &sql, folder.path()).await;
    assert_eq!(status(&report, "a"), Status::Reused);
    assert_eq!(seen(&engine, &["a", "b", "reads"]).await.unwrap(), [1, 1, 1]);
}

#[tokio::test(flavor = "multi_thread")]
async fn tables_join_leave_and_move_and_keep_what_is_published() {
    let (folder, source, cache) = lab().await;
    let engine = engine(&cache);
    let link = |table: &str| fs::read_link(cache.join("tables").join(table)).unwrap().display().to_string();
    // Each by itself, then together, with one that is new.
    run(&engine, &format!("{source}{}{}", task("a", "", 1), task("b", "", 1)), folder.path()).await;
    assert!(link("a").starts_with("../versions/a/"));
    run(&engine, &format!("{source}{}{}{}", task("a", "s", 1), task("b", "s", 2), task("c", "s", 2)), folder.path())
        .await;
    assert_eq!(link("a"), "../stages/s/current/a");
    assert_eq!(seen(&engine, &["a", "b", "c"]).await.unwrap(), [1, 2, 2]);
    // A task that is gone keeps its table.
    run(&engine, &format!("{source}{}", task("a", "s", 3)), folder.path()).await;
    assert_eq!(seen(&engine, &["a", "b", "c"]).await.unwrap(), [3, 2, 2]);
    // One leaves, unchanged; one moves.
    run(&engine, &format!("{source}{}{}", task("a", "", 3), task("b", "other", 4)), folder.path()).await;
    assert!(link("a").starts_with("../versions/a/"));
    assert_eq!((link("b"), link("c")), ("../stages/other/current/b".into(), "../stages/s/current/c".into()));
    assert_eq!(seen(&engine, &["a", "b", "c"]).await.unwrap(), [3, 4, 2]);
    // What left does not come back with its stage, nor what moved.
    run(&engine, &format!("{source}{}", task("c", "s", 5)), folder.path()).await;
    assert_eq!(seen(&engine, &["a", "b", "c"]).await.unwrap(), [3, 4, 5]);
    collect_all(&engine, &cache);
    assert_eq!(seen(&engine, &["a", "b", "c"]).await.unwrap(), [3, 4, 5]);
    assert!(["a", "b", "c"].iter().all(|table| is_plain_folder(&cache, table)));
    // Back to where they were, one as it is.
    run(&engine, &format!("{source}{}{}", task("a", "s", 3), task("b", "s", 6)), folder.path()).await;
    assert_eq!(seen(&engine, &["a", "b", "c"]).await.unwrap(), [3, 6, 5]);
    assert!(engine.verify_cache().unwrap().damaged.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_that_is_taken_away_leaves_its_stage_as_it_is() {
    let (folder, source, cache) = lab().await;
    let engine = engine(&cache);
    let all = format!("{source}{}{}{}", task("a", "s", 1), task("b", "s", 1), task("alone", "", 1));
    run(&engine, &all, folder.path()).await;
    for table in ["alone", "b"] {
        engine.unpublish(table).unwrap();
        assert_eq!(engine.unpublish(table).unwrap_err().kind(), ErrorKind::Usage);
        assert_eq!(engine.table(table).await.unwrap_err().kind(), ErrorKind::Usage);
    }
    assert_eq!(seen(&engine, &["a"]).await.unwrap(), [1]);
    let current: Vec<_> =
        fs::read_dir(cache.join("stages/s/current")).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert_eq!(current, ["a"]);
    // What is left of the stage is published as before, and a table that comes back finds its chunks.
    run(&engine, &format!("{source}{}", task("a", "s", 2)), folder.path()).await;
    assert_eq!(seen(&engine, &["a"]).await.unwrap(), [2]);
    let back = run(&engine, &all, folder.path()).await;
    assert_eq!(back.tasks.iter().map(|task| task.executed).sum::<u32>(), 0);
    assert_eq!(seen(&engine, &["a", "b", "alone"]).await.unwrap(), [1, 1, 1]);
    // The last one of a stage leaves nothing published.
    engine.unpublish("a").unwrap();
    engine.unpublish("b").unwrap();
    assert!(!cache.join("stages/s/current").exists());
    assert_eq!(engine.published_tables().unwrap().len(), 1);
    collect_all(&engine, &cache);
    run(&engine, &all, folder.path()).await;
    assert_eq!(seen(&engine, &["a", "b", "alone"]).await.unwrap(), [1, 1, 1]);
}

#[tokio::test(flavor = "multi_thread")]
async fn sources_that_are_taken_for_unchanged_keep_a_table_in_its_stage() {
    let (folder, source, cache) = lab().await;
    let engine = engine(&cache);
    let sql = |generation| format!("{source}{}{}", task("a", "s", 1), task("b", "s", generation));
    run(&engine, &sql(1), folder.path()).await;
    let before = fs::canonicalize(cache.join("tables/a")).unwrap();
    make_parquet(folder.path(), "items", "SELECT value % 5 AS k, value AS v FROM generate_series(1, 400) AS t(value)")
        .await;
    let ignore = RunOptions { fresh_input: FreshInput::Ignore, ..RunOptions::default() };
    let pipeline = sql::parse(&sql(2), "test.sql", folder.path()).unwrap();
    let report = engine.run(&pipeline, &ignore).await.unwrap();
    assert_eq!((status(&report, "a"), status(&report, "b")), (Status::Reused, Status::Executed));
    assert_eq!(seen(&engine, &["a", "b"]).await.unwrap(), [1, 2]);
    assert_eq!(fs::canonicalize(cache.join("tables/a")).unwrap(), before);
}

fn parse(tasks: &str) -> chunkwise::Result<Pipeline> {
    sql::parse(tasks, "test.sql", Path::new("/"))
}

#[test]
fn stages_that_wait_for_each_other_are_refused() {
    let staged = |name: &str, stage: &str, from: &str| {
        let stage = if stage.is_empty() { String::new() } else { format!("WITH (stage = '{stage}')") };
        format!("CREATE TABLE {name} {stage} AS SELECT * FROM {from};\n")
    };
    let one = "(VALUES (1)) AS t(k)";
    let through = format!("{}{}{}", staged("a", "s", one), staged("b", "", "a"), staged("c", "s", "b"));
    let error = parse(&through).unwrap_err();
    assert_eq!((error.kind(), error.location().unwrap().line), (ErrorKind::Sql, 2), "{error}");
    for words in ["`b` reads `a` of stage `s`", "`c` of stage `s` reads `b`", "put `b` into stage `s`, too"] {
        assert!(error.to_string().contains(words), "{error}");
    }
    // Through a view and two stages.
    let crossed = format!(
        "{}{}CREATE VIEW v AS SELECT * FROM a;\n{}{}",
        staged("a", "s", one),
        staged("b", "r", "v"),
        staged("c", "r", one),
        staged("d", "s", "c"),
    );
    let error = parse(&crossed).unwrap_err().to_string();
    assert!(error.contains("`b` of stage `r` reads `a` of stage `s`"), "{error}");
    assert!(error.contains("`d` of stage `s` reads `c` of stage `r`"), "{error}");
    // Within one stage, or one after the other, anything goes.
    parse(&through.replace("TABLE b ", "TABLE b WITH (stage = 's')")).unwrap();
    parse(&format!("{}{}{}", staged("a", "s", one), staged("b", "", "a"), staged("c", "r", "b"))).unwrap();

    // Stages of tasks in Rust are checked, too.
    let rust = |stage: &str| {
        let task = Task::dataframe("x", ["a"], |inputs| inputs.table("a")).stage(stage);
        let sql = sql::definitions(&staged("a", "s", one), "test.sql", Path::new("/")).unwrap();
        Pipeline::builder().with(sql).with(task).build()
    };
    assert_eq!(rust("s").unwrap().stage("s"), ["a", "x"]);
    for name in ["", "a/b", "..", "ä"] {
        let error = rust(name).unwrap_err().to_string();
        assert!(error.contains(&format!("`{name}` is also the name of a folder")), "{error}");
    }
    let pipeline = parse(&through.replace("TABLE b ", "TABLE b WITH (stage = 's')")).unwrap();
    let error = pipeline.clone().configure("b", |task| task.stage("other")).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Sql, "{error}");
    assert!(pipeline.clone().configure("b", |task| task.stage("a b")).is_err());
    pipeline.configure("c", |task| task.stage("other")).unwrap();
}

#[test]
fn a_task_is_selected_with_its_stage_and_all_that_this_needs() {
    let sql = "CREATE TABLE base AS SELECT 1 AS k;
        CREATE TABLE a WITH (stage = 's') AS SELECT 1 AS k;
        CREATE TABLE b WITH (stage = 's') AS SELECT k FROM mate;
        CREATE TABLE mate WITH (stage = 'r') AS SELECT 1 AS k;
        CREATE TABLE other WITH (stage = 'r') AS SELECT k FROM base;
        CREATE TABLE reads_a AS SELECT k FROM a;
        CREATE TABLE apart AS SELECT 1 AS k;
        CREATE TABLE r2 WITH (stage = 'r3') AS SELECT 1 AS k;";
    let pipeline = parse(sql).unwrap();
    let selected = |target: &str| {
        let selected = pipeline.select(&[target.to_string()]).unwrap();
        let mut names: Vec<_> = selected.tasks().map(|task| task.name().to_string()).collect();
        names.sort_unstable();
        names.join(" ")
    };
    assert_eq!(selected("reads_a"), "a b base mate other reads_a");
    assert_eq!(selected("a"), "a b base mate other");
    assert_eq!(selected("s"), selected("b"));
    assert_eq!(selected("r"), "base mate other");
    assert_eq!(selected("base"), "base");
    assert_eq!((selected("apart"), selected("r3")), ("apart".into(), "r2".into()));
    let error = pipeline.select(&["nothing".to_string()]).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Usage);
    assert!(error.to_string().ends_with("; the stages are: r, r3, s"), "{error}");
}

#[tokio::test]
async fn explain_says_what_a_table_is_published_with() {
    let (folder, source, cache) = lab().await;
    let sql = format!("{source}{}{}{}{}", task("a", "s", 1), task("b", "s", 1), task("c", "s", 1), task("d", "t", 1));
    let pipeline = sql::parse(&sql, "test.sql", folder.path()).unwrap();
    let engine = engine(&cache);
    let texts = engine.explain(&pipeline, Some("s")).await.unwrap();
    assert_eq!(texts.len(), 3);
    let explained = engine.explain(&pipeline, Some("b")).await.unwrap().remove(0).unwrap();
    assert_eq!(explained.lines().nth(1), Some("  stage s: published together with a, c"), "{explained}");
    let alone = engine.explain(&pipeline, Some("d")).await.unwrap().remove(0).unwrap();
    assert_eq!(alone.lines().nth(1), Some("  stage t: has no other task"), "{alone}");
}

/// Two engines publish one stage with other queries while readers, of the library and plain ones, look on.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn readers_never_see_a_mix_of_two_publications() {
    const PUBLICATIONS: i64 = 50;
    let (folder, source, cache) = lab().await;
    let version = |generation| format!("{source}{}{}", task("a", "s", generation), task("b", "s", generation));
    run(&engine(&cache), &version(0), folder.path()).await;
    let is_over = Arc::new(AtomicBool::new(false));
    let reader = engine(&cache);
    let over = Arc::clone(&is_over);
    let reading = tokio::spawn(async move {
        let mut generations = BTreeSet::new();
        while !over.load(Ordering::Relaxed) {
            let found = seen(&reader, &["a", "b"]).await.unwrap();
            assert_eq!(found[0], found[1], "a mix");
            generations.insert(found[0]);
        }
        generations
    });
    let (over, tables) = (Arc::clone(&is_over), cache.join("tables"));
    let looking = std::thread::spawn(move || {
        while !over.load(Ordering::Relaxed) {
            for table in ["a", "b"] {
                let found = fs::read_dir(tables.join(table)).unwrap_or_else(|e| panic!("{table}: {e}"));
                assert_eq!(found.count(), 2, "{table}");
            }
        }
    });
    let writers = [1, 2].map(|first| {
        let (cache, folder) = (cache.clone(), folder.path().to_path_buf());
        let versions: Vec<_> = (0..PUBLICATIONS).map(|number| version(first + 2 * (number % 5))).collect();
        tokio::spawn(async move {
            let engine = engine(&cache);
            for version in versions {
                run(&engine, &version, &folder).await;
            }
        })
    });
    for writer in writers {
        writer.await.unwrap();
    }
    is_over.store(true, Ordering::Relaxed);
    looking.join().unwrap();
    let generations = reading.await.unwrap();
    println!("two writers of {PUBLICATIONS} publications; a reader saw {generations:?}");
    assert!(generations.len() > 2, "{generations:?}");
    assert!(engine(&cache).verify_cache().unwrap().damaged.is_empty());
}

/// Tables that join and leave a stage, and move between two, are never missing, nor new beside old ones.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn readers_see_every_table_while_it_moves() {
    let (folder, source, cache) = lab().await;
    let writer = engine(&cache);
    let version =
        |stage: &str, generation| format!("{source}{}{}", task("a", stage, generation), task("b", stage, generation));
    run(&writer, &version("s", 0), folder.path()).await;
    let is_over = Arc::new(AtomicBool::new(false));
    let (over, reader) = (Arc::clone(&is_over), engine(&cache));
    let reading = tokio::spawn(async move {
        let mut last = 0;
        while !over.load(Ordering::Relaxed) {
            let found = seen(&reader, &["a", "b"]).await.unwrap();
            assert_eq!(found[0], found[1], "a mix");
            assert!(found[0] >= last, "an old version came back");
            last = found[0];
        }
    });
    let mut generation = 0;
    for _ in 0..8 {
        for stage in ["s", "r", "s", "other"] {
            generation += 1;
            run(&writer, &version(stage, generation), folder.path()).await;
        }
        // Leaving is done table by table, so nothing else changes then; joining is done at once.
        run(&writer, &version("", generation), folder.path()).await;
    }
    is_over.store(true, Ordering::Relaxed);
    reading.await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_published_stays_and_what_was_goes() {
    let (folder, source, cache) = lab().await;
    let engine = engine(&cache);
    let sql = |generation| format!("{source}{}{}", task("a", "s", generation), task("b", "s", 1));
    for generation in 1..4 {
        run(&engine, &sql(generation), folder.path()).await;
    }
    engine.pin("b").unwrap();
    assert!(engine.published_tables().unwrap()[1].is_pinned);
    assert_eq!(stage_folders(&cache, "s").len(), 3);
    // Readers of older versions have their time.
    let lately = CollectOptions { older_than: Some(Duration::from_secs(600)), limit_bytes: None };
    assert_eq!(collect(&engine, &lately).removed, 0);
    // Two versions of `a` with two chunks each, and two folders of links; the split is counted as well if there is one.
    let done = collect_all(&engine, &cache);
    assert!(done.removed >= 8, "{done:?}");
    let current = fs::canonicalize(cache.join("stages/s/current")).unwrap();
    let folders: Vec<_> = stage_folders(&cache, "s").iter().map(|path| fs::canonicalize(path).unwrap()).collect();
    assert_eq!(folders, [current]);
    assert_eq!(files_in(&cache.join("chunks")).len(), 4);
    assert_eq!(seen(&engine, &["a", "b"]).await.unwrap(), [3, 1]);
    assert_eq!(run(&engine, &sql(3), folder.path()).await.tasks.iter().map(|task| task.executed).sum::<u32>(), 0);
    // What was published again is not what was left.
    run(&engine, &sql(4), folder.path()).await;
    run(&engine, &sql(3), folder.path()).await;
    collect_all(&engine, &cache);
    assert_eq!(seen(&engine, &["a", "b"]).await.unwrap(), [3, 1]);
    assert_eq!(stage_folders(&cache, "s").len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_index_is_made_again_and_damage_is_found_and_mended() {
    let (folder, source, cache) = lab().await;
    let engine = engine(&cache);
    let sql = format!("{source}{}{}{}", task("a", "s", 1), task("b", "s", 1), task("c", "", 1));
    run(&engine, &sql, folder.path()).await;
    assert_eq!(engine.rebuild_cache().unwrap(), Vec::<String>::new());
    fs::remove_file(cache.join("index.sqlite")).unwrap();
    let next = crate::support::engine(&cache);
    let report = run(&next, &sql, folder.path()).await;
    assert!(report.tasks.iter().all(|task| task.status == Status::Reused && task.reason == "nothing changed"));

    // A link that is gone, one that is wrong, and no link to what is current: verified as damaged but for the last, and mended.
    let current = fs::canonicalize(cache.join("stages/s/current")).unwrap();
    let right = fs::read_link(current.join("a")).unwrap();
    for (table, target) in [("a", None), ("b", Some("../../../versions/b/0"))] {
        let current = fs::canonicalize(cache.join("stages/s/current")).unwrap();
        fs::remove_file(current.join(table)).unwrap();
        if let Some(target) = target {
            symlink(target, current.join(table)).unwrap();
        }
        assert_eq!(next.verify_cache().unwrap().damaged.len(), 1 + usize::from(target.is_some()), "{table}");
        let names: Vec<_> = next
            .published_tables()
            .map(|tables| tables.into_iter().map(|table| table.table).collect())
            .unwrap_or_default();
        assert!(names != ["a", "b", "c"], "{names:?}");
        run(&next, &sql, folder.path()).await;
        assert_eq!(seen(&next, &["a", "b", "c"]).await.unwrap(), [1, 1, 1]);
        assert!(next.verify_cache().unwrap().damaged.is_empty());
    }
    fs::remove_file(cache.join("stages/s/current")).unwrap();
    let names: Vec<_> = next.published_tables().unwrap().into_iter().map(|table| table.table).collect();
    assert_eq!(names, ["c"]);
    assert_eq!(next.table("a").await.unwrap_err().kind(), ErrorKind::Usage);
    run(&next, &sql, folder.path()).await;
    assert_eq!(seen(&next, &["a", "b", "c"]).await.unwrap(), [1, 1, 1]);
    assert_eq!(fs::read_link(fs::canonicalize(cache.join("stages/s/current")).unwrap().join("a")).unwrap(), right);
    collect_all(&next, &cache);
    assert_eq!(stage_folders(&cache, "s").len(), 1);

    // A file that is damaged is set aside, and the stage published with what is computed again.
    let file = files_in(&cache.join("chunks")).remove(0);
    fs::write(&file, "damaged").unwrap();
    assert!(!next.verify_cache().unwrap().damaged.is_empty());
    run(&next, &sql, folder.path()).await;
    assert_eq!(seen(&next, &["a", "b", "c"]).await.unwrap(), [1, 1, 1]);
    assert!(next.verify_cache().unwrap().damaged.is_empty());
}

/// The publications that are killed: one of a stage that was published, one that tables join and leave, the first one.
#[tokio::test(flavor = "multi_thread")]
async fn a_publication_killed_at_any_write_shows_the_old_tables_or_the_new_ones() {
    let (folder, source, cache) = lab().await;
    let pair =
        |stage: &str, generation| format!("{source}{}{}", task("a", stage, generation), task("b", stage, generation));
    let both = |generation: i64| Some(vec![generation, generation]);
    let cases = [
        ("again", Some(pair("s", 1)), pair("s", 2), both(1)),
        ("joining", Some(pair("", 1)), pair("s", 2), both(1)),
        ("moving", Some(pair("r", 1)), pair("s", 2), both(1)),
        ("first", None, pair("s", 2), None),
    ];
    for (case, before, after, old) in cases {
        let pristine = folder.path().join(format!("{case}-pristine"));
        if let Some(before) = before {
            run(&engine(&pristine), &before, folder.path()).await;
        } else {
            fs::create_dir(&pristine).unwrap();
        }
        let file = folder.path().join(format!("{case}.sql"));
        fs::write(&file, &after).unwrap();
        let (mut olds, mut news) = (0, 0);
        for number in 1.. {
            if cache.exists() {
                fs::remove_dir_all(&cache).unwrap();
            }
            copy_folder(&pristine, &cache);
            let mut command = Command::new(env!("CARGO_BIN_EXE_chunkwise"));
            command.arg("run").arg(&file).arg("--cache").arg(&cache).args(["--jobs", "2"]);
            command.env("CHUNKWISE_ABORT_AT", number.to_string());
            let status = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).status().unwrap();
            let what = format!("{case}: write {number}");
            let reader = engine(&cache);
            let names: Vec<_> = reader.published_tables().unwrap().into_iter().map(|table| table.table).collect();
            let found = match names.is_empty() {
                true => None,
                false => Some(seen(&reader, &["a", "b"]).await.unwrap_or_else(|e| panic!("{what}: {e}"))),
            };
            assert!(found == old || found == both(2), "{what}: {found:?}");
            assert_eq!(is_plain_folder(&cache, "a"), found.is_some(), "{what}");
            if found == old {
                olds += 1
            } else {
                news += 1
            }
            run(&reader, &after, folder.path()).await;
            assert_eq!(seen(&reader, &["a", "b"]).await.ok(), both(2), "{what}");
            assert!(reader.verify_cache().unwrap().damaged.is_empty(), "{what}");
            if status.success() {
                break;
            }
        }
        println!("{case}: killed at each of {} writes: {olds} times as before, {news} times new", olds + news - 1);
        assert!(olds > 20 && news > 1, "{case}: {olds} {news}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_source_that_changes_before_its_stage_is_published_withholds_it() {
    let (folder, source, cache) = lab().await;
    make_parquet(folder.path(), "other", "SELECT 1 AS k").await;
    let other = parquet_source(folder.path(), "other");
    let is_done = Arc::new(AtomicBool::new(false));
    let done = Arc::clone(&is_done);
    let engine = Engine::builder().cache_folder(&cache).jobs(2).on_event(move |event| {
        if matches!(event, Event::Done { task, .. } if task == "a") {
            done.store(true, Ordering::SeqCst);
        }
    });
    let engine = engine.build().unwrap();
    let pipeline = |changes: bool| {
        let (is_done, items) = (Arc::clone(&is_done), folder.path().join("items.parquet"));
        let column = arrow::datatypes::Field::new("a", arrow::datatypes::DataType::Int64, true);
        let schema = Arc::new(arrow::datatypes::Schema::new(vec![column]));
        let (version, columns) = (if changes { "1" } else { "2" }, Arc::clone(&schema));
        // It reads nothing of what the other task reads, and ends long after it.
        let slow = Task::batches("b", version, ["other"], schema, move |_| {
            while changes && !is_done.load(Ordering::SeqCst) {
                std::thread::sleep(Duration::from_millis(5));
            }
            if changes {
                crate::support::touch(&items);
            }
            Ok(vec![arrow::array::RecordBatch::new_empty(Arc::clone(&columns))])
        });
        let text = format!("{source}{other};\n{}", task("a", "s", 1));
        let sql = sql::definitions(&text, "a.sql", folder.path()).unwrap();
        Pipeline::builder().with(sql).with(slow.stage("s")).build().unwrap()
    };
    let report = engine.run(&pipeline(true), &RunOptions::default()).await.unwrap();
    assert!(!report.succeeded(), "{report:#?}");
    assert!(report.tasks.iter().any(|task| task.reason.contains("changed")), "{report:#?}");
    assert!(engine.published_tables().unwrap().is_empty());
    let report = engine.run(&pipeline(false), &RunOptions::default()).await.unwrap();
    assert!(report.succeeded(), "{report:#?}");
    assert_eq!(engine.published_tables().unwrap().len(), 2);
}

#[test]
fn a_stage_has_no_name_of_a_task_that_is_not_of_it() {
    let sql = "CREATE TABLE s AS SELECT 1 AS a; CREATE TABLE t WITH (stage = 's') AS SELECT 1 AS a;";
    let error = sql::parse(sql, "a.sql", Path::new(".")).unwrap_err().to_string();
    assert!(error.contains("stage `s` has the name of a task that is not of it"), "{error}");
    let own = "CREATE TABLE s WITH (stage = 's') AS SELECT 1 AS a; CREATE TABLE t WITH (stage = 's') AS SELECT 1 AS a;";
    assert_eq!(sql::parse(own, "a.sql", Path::new(".")).unwrap().stage("s"), ["s", "t"]);
}
