//! The tasks of `sql/demo`, cut into 1, 3 and 16 chunks, against plain DataFusion.
//!
//! `CHUNKWISE_TEST_SCALE` is the scale factor, 0.01 unless it is set. The tables are kept in cargo's folder for
//! temporary files, one folder for each scale, and are made only where they are missing.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use chunkwise::{InputMode, RunReport, Status, TaskReport};
use tokio::sync::OnceCell;

use crate::support::{Multiset, engine, oracle, oracle_rows, run};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_chunk_has_the_rows_of_the_whole_run() {
    assert_cut_as_whole(1).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_chunks_have_the_rows_of_the_whole_run() {
    assert_cut_as_whole(3).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sixteen_chunks_have_the_rows_of_the_whole_run() {
    assert_cut_as_whole(16).await;
}

/// Runs all tasks in `chunks` chunks, twice, and compares their tables with the oracle's.
async fn assert_cut_as_whole(chunks: u32) {
    let whole = whole().await;
    let sql = cut_into(&whole.sql, chunks);
    let cache = tempfile::tempdir().unwrap();
    let engine = engine(cache.path());

    let report = run(&engine, &sql, &whole.folder).await;
    assert_eq!(names(&report), whole.rows.keys().cloned().collect::<Vec<_>>());
    for task in &report.tasks {
        let name = &task.name;
        assert_eq!(task.status, Status::Executed, "{task:#?}");
        let clustered = whole.clustered[name];
        assert_eq!(task.chunks, if clustered { chunks } else { 1 }, "{name}");
        assert_eq!((task.executed, task.reused), (task.chunks, 0), "{name}");
        assert_eq!(task.keys.is_empty(), !clustered, "{name}");
        assert_eq!(clustered, task.inputs.iter().any(|i| i.mode != InputMode::Replicate), "{task:#?}");
        assert!(task.rows > 0, "{name}");
        assert_eq!(task.rows, whole.rows[name].rows, "{name}");
        assert_eq!(Multiset::of(engine.table(name).await.unwrap()).await, whole.rows[name], "{name}");
    }
    assert_eq!(inputs(&report, "order_revenue"), [("lineitem", InputMode::Rescan), ("orders", InputMode::Rescan)]);
    let sales = [
        ("lineitem", InputMode::Rescan),
        ("nation", InputMode::Replicate),
        ("region", InputMode::Replicate),
        ("supplier", InputMode::Rescan),
    ];
    assert_eq!(inputs(&report, "supplier_sales"), sales);

    let again = run(&engine, &sql, &whole.folder).await;
    assert_eq!(names(&again), names(&report));
    for (task, before) in again.tasks.iter().zip(&report.tasks) {
        assert_eq!(task.status, Status::Reused, "{task:#?}");
        assert_eq!((task.executed, task.reused, task.rows), (0, before.chunks, before.rows), "{}", task.name);
    }
}

/// What plain DataFusion makes of the folder, and what the folder says.
struct Whole {
    /// The folder that relative locations count from.
    folder: PathBuf,
    /// All statements, as the folder has them.
    sql: String,
    /// Whether each task has CLUSTERED BY.
    clustered: BTreeMap<String, bool>,
    /// The rows of each task.
    rows: BTreeMap<String, Multiset>,
}

async fn whole() -> &'static Whole {
    static WHOLE: OnceCell<Whole> = OnceCell::const_new();
    WHOLE.get_or_init(make_whole).await
}

/// The folder whose `data` has the tables; made once for all tests.
pub async fn root() -> &'static Path {
    static ROOT: OnceCell<PathBuf> = OnceCell::const_new();
    let make = || async {
        let scale = std::env::var("CHUNKWISE_TEST_SCALE").unwrap_or_else(|_| "0.01".into());
        let root = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("tpch-{scale}"));
        chunkwise::cli::tpch::generate(&root.join("data"), scale.parse().unwrap(), &mut |_, _, _| {}).unwrap();
        root
    };
    ROOT.get_or_init(make).await
}

async fn make_whole() -> Whole {
    let root = root().await;
    let mut files: Vec<PathBuf> = fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("sql/demo"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|e| e == "sql"))
        .collect();
    files.sort();
    let sql: String = files.iter().map(|file| fs::read_to_string(file).unwrap()).collect();

    let data = format!("LOCATION '{}/", root.join("data").display());
    let mut sources = Vec::new();
    let mut views = Vec::new();
    let mut tasks = BTreeMap::new();
    let mut clustered = BTreeMap::new();
    for statement in statements(&sql) {
        let name = statement.split_whitespace().nth(2).unwrap().to_string();
        if statement.starts_with("CREATE EXTERNAL TABLE") {
            assert!(statement.contains("LOCATION '../data/"), "{statement}");
            sources.push(statement.replace("LOCATION '../data/", &data));
        } else if statement.starts_with("CREATE VIEW") {
            views.push(statement);
        } else {
            let plain = without_clustering(&statement);
            clustered.insert(name.clone(), plain != statement);
            tasks.insert(name, plain);
        }
    }
    assert!(!sources.is_empty() && !tasks.is_empty());

    // Locations go up from here, so it must be there.
    let folder = root.join("sql");
    fs::create_dir_all(&folder).unwrap();
    let pipeline = chunkwise::sql::parse(&sql, "tpch.sql", &folder).unwrap();
    let order: Vec<String> = pipeline.tasks().map(|task| task.name().to_string()).collect();
    assert_eq!(order.len(), tasks.len());
    let created: Vec<String> = sources.into_iter().chain(views).chain(order.iter().map(|n| tasks[n].clone())).collect();
    let context = oracle(&created).await;
    let mut rows = BTreeMap::new();
    for name in order {
        rows.insert(name.clone(), oracle_rows(&context, &name).await);
    }
    Whole { folder, sql, clustered, rows }
}

/// The statements of `sql`, without comments; no text in it holds `;` or `--`.
fn statements(sql: &str) -> Vec<String> {
    let code: Vec<&str> = sql.lines().map(|line| line.split("--").next().unwrap()).collect();
    let code = code.join("\n");
    code.split(';').map(str::trim).filter(|s| !s.is_empty()).map(str::to_string).collect()
}

/// A task's statement as DataFusion takes it.
fn without_clustering(statement: &str) -> String {
    let Some((before, after)) = statement.split_once("CLUSTERED BY") else { return statement.to_string() };
    let (_, query) = after.split_once("BUCKETS").unwrap();
    format!("{before}{query}")
}

/// `sql` with `chunks` in place of every number of buckets.
fn cut_into(sql: &str, chunks: u32) -> String {
    let mut parts = sql.split(" INTO ");
    let mut cut = parts.next().unwrap().to_string();
    let mut replaced = 0;
    for part in parts {
        let after = part.trim_start_matches(|c: char| c.is_ascii_digit());
        assert!(after.len() < part.len() && after.starts_with(" BUCKETS"), "{part}");
        cut.push_str(&format!(" INTO {chunks}{after}"));
        replaced += 1;
    }
    assert_eq!(replaced, statements(sql).iter().filter(|s| s.contains("CLUSTERED BY")).count());
    cut
}

/// A task's inputs by name; more than one reading of one table is not expected.
fn inputs<'a>(report: &'a RunReport, task: &str) -> Vec<(&'a str, InputMode)> {
    let task: &TaskReport = report.task(task).unwrap();
    let mut inputs: Vec<_> = task.inputs.iter().map(|input| (input.table.as_str(), input.mode)).collect();
    inputs.sort_by_key(|(table, _)| *table);
    inputs
}

fn names(report: &RunReport) -> Vec<String> {
    let mut names: Vec<String> = report.tasks.iter().map(|task| task.name.clone()).collect();
    names.sort();
    names
}
