//! What a change of the sources runs again: only chunks whose own rows changed, told by the event log; and the modes that
//! look away from changes, or don't trust the cache.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use arrow::array::{ArrayRef, Int64Array, RecordBatch, StringArray};
use arrow::compute::{cast, take_record_batch};
use arrow::datatypes::DataType;
use chunkwise::{Engine, Event, FreshInput, Pipeline, RunOptions, RunReport, Status, UserFunction};
use datafusion::common::ScalarValue;
use datafusion::logical_expr::{ColumnarValue, Volatility, create_udf};
use parquet::arrow::ArrowWriter;
use parquet::file::properties::WriterProperties;
use tempfile::TempDir;

use crate::support::{Multiset, oracle, oracle_rows, touch};

const SOURCES: &str = "
    CREATE EXTERNAL TABLE items STORED AS PARQUET LOCATION 'items/';
    CREATE EXTERNAL TABLE names STORED AS PARQUET LOCATION 'names/';
";
const QUERIES: [(&str, &str); 3] = [
    (
        "sums",
        "SELECT i.k, n.name, sum(i.v) AS v, count(*) AS n FROM items i JOIN names n ON i.g = n.g GROUP BY i.k, n.name",
    ),
    ("best", "SELECT k, max(v) AS v FROM sums GROUP BY k"),
    ("ranked", "SELECT k, v, row_number() OVER (PARTITION BY k ORDER BY v) AS r FROM best"),
];

/// The three tasks, by hash of `k`; items are read as `read_by` says.
fn pipeline(chunks: u32, read_by: &str) -> String {
    let with = |name: &str| match name {
        "sums" => format!("WITH (read_by = '{read_by}')"),
        _ => String::new(),
    };
    let task = |(name, query): &(&str, &str)| {
        format!("CREATE TABLE {name} CLUSTERED BY (k) INTO {chunks} BUCKETS {} AS {query};\n", with(name))
    };
    format!("{SOURCES}{}", QUERIES.iter().map(task).collect::<String>())
}

/// Rows with keys from 0 to 99; the row number `changed` has another value.
fn items(rows: i64, changed: Option<i64>) -> RecordBatch {
    let k: Int64Array = (0..rows).map(|row| (row % 11 > 0).then_some(row % 100)).collect();
    let g: Int64Array = (0..rows).map(|row| row % 3).collect();
    let v: Int64Array = (0..rows).map(|row| if Some(row) == changed { 1_000_000 } else { row }).collect();
    let text: StringArray = (0..rows).map(|row| Some(format!("text {row}"))).collect();
    batch(vec![("k", Arc::new(k)), ("g", Arc::new(g)), ("v", Arc::new(v)), ("text", Arc::new(text))])
}

fn names(suffix: &str, unread: &str) -> RecordBatch {
    let g: Int64Array = (0..3).collect();
    let name: StringArray = (0..3).map(|g| Some(format!("name {g}{suffix}"))).collect();
    let other: StringArray = (0..3).map(|_| Some(unread)).collect();
    batch(vec![("g", Arc::new(g)), ("name", Arc::new(name)), ("unread", Arc::new(other))])
}

fn batch(columns: Vec<(&str, ArrayRef)>) -> RecordBatch {
    RecordBatch::try_from_iter(columns).unwrap()
}

/// Writes a file of a source, in row groups of `group` rows.
fn write(path: &Path, rows: &RecordBatch, group: usize) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    let properties = WriterProperties::builder().set_max_row_group_row_count(Some(group)).build();
    let mut writer = ArrowWriter::try_new(File::create(path).unwrap(), rows.schema(), Some(properties)).unwrap();
    writer.write(rows).unwrap();
    writer.close().unwrap();
}

struct Lab {
    folder: TempDir,
    engine: Engine,
    events: Arc<Mutex<Vec<Event>>>,
}

/// What one run did.
#[derive(Debug)]
struct Ran {
    report: RunReport,
    /// Number of chunks that ran, by task.
    ran: BTreeMap<String, usize>,
    /// Input and rows of each split.
    splits: Vec<(String, u64)>,
}

impl Ran {
    /// Number of chunks that ran of the three tasks.
    fn counts(&self) -> [usize; 3] {
        QUERIES.map(|(name, _)| self.ran.get(name).copied().unwrap_or_default())
    }

    fn reason(&self, task: &str) -> &str {
        &self.report.task(task).unwrap().reason
    }
}

impl Lab {
    fn new() -> Self {
        let folder = TempDir::new().unwrap();
        let events: Arc<Mutex<Vec<Event>>> = Arc::default();
        let log = Arc::clone(&events);
        let engine = Engine::builder().cache_folder(folder.path().join("cache")).jobs(2);
        let engine = engine.on_event(move |event| log.lock().unwrap().push(event)).build().unwrap();
        let lab = Self { folder, engine, events };
        write(&lab.path("items/a.parquet"), &items(3000, None), 1000);
        write(&lab.path("names/a.parquet"), &names("", ""), 1000);
        lab
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    async fn try_run(&self, sql: &str, options: &RunOptions) -> Ran {
        self.events.lock().unwrap().clear();
        let pipeline = chunkwise::sql::parse(sql, "test.sql", self.folder.path()).unwrap();
        let report = self.engine.run(&pipeline, options).await.unwrap();
        let (mut ran, mut splits) = (BTreeMap::new(), Vec::new());
        for event in self.events.lock().unwrap().drain(..) {
            match event {
                Event::ChunkStarted { task, .. } => *ran.entry(task).or_default() += 1,
                Event::Split { input, rows, .. } => splits.push((input, rows)),
                _ => {}
            }
        }
        Ran { report, ran, splits }
    }

    /// Runs `sql`; every table must have the rows of plain DataFusion.
    async fn run(&self, sql: &str) -> Ran {
        let ran = self.try_run(sql, &RunOptions::default()).await;
        assert!(ran.report.succeeded(), "{ran:#?}");
        let place = format!("LOCATION '{}/", self.folder.path().display());
        let mut statements: Vec<String> =
            SOURCES.replace("LOCATION '", &place).split_inclusive(';').map(String::from).collect();
        statements.retain(|statement| !statement.trim().is_empty());
        statements.extend(QUERIES.iter().map(|(name, query)| format!("CREATE TABLE {name} AS {query}")));
        let oracle = oracle(&statements).await;
        for (name, _) in QUERIES {
            assert_eq!(self.rows(name).await, oracle_rows(&oracle, name).await, "{name}\n{ran:#?}");
        }
        ran
    }

    async fn rows(&self, table: &str) -> Multiset {
        Multiset::of(self.engine.table(table).await.unwrap()).await
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_source_that_says_the_same_runs_nothing_however_it_is_written() {
    for read_by in ["split", "rescan"] {
        let lab = Lab::new();
        let sql = pipeline(8, read_by);
        assert_eq!(lab.run(&sql).await.counts(), [8, 8, 8]);
        touch(&lab.path("items/a.parquet"));
        touch(&lab.path("names/a.parquet"));
        let touched = lab.run(&sql).await;
        assert_eq!((touched.counts(), touched.reason("sums")), ([0, 0, 0], "nothing changed"), "{read_by}");
        let rows = items(3000, None);
        let backwards: Int64Array = (0..3000).rev().collect();
        write(&lab.path("items/a.parquet"), &take_record_batch(&rows, &backwards).unwrap(), 700);
        assert_eq!(lab.run(&sql).await.counts(), [0, 0, 0], "{read_by}: in another order");
        fs::remove_file(lab.path("items/a.parquet")).unwrap();
        write(&lab.path("items/b.parquet"), &rows.slice(1000, 2000), 100);
        write(&lab.path("items/z.parquet"), &rows.slice(0, 1000), 100);
        assert_eq!(lab.run(&sql).await.counts(), [0, 0, 0], "{read_by}: in other files");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_encoding_of_text_does_not_matter() {
    let lab = Lab::new();
    let sql = "CREATE EXTERNAL TABLE items STORED AS PARQUET LOCATION 'items/';
        CREATE TABLE texts CLUSTERED BY (text) INTO 4 BUCKETS AS SELECT text, count(*) AS n FROM items GROUP BY text;";
    let ran = lab.try_run(sql, &RunOptions::default()).await;
    assert_eq!(ran.ran["texts"], 4);
    let rows = items(3000, None);
    let mut columns = rows.columns().to_vec();
    let dictionary = DataType::Dictionary(Box::new(DataType::Int32), Box::new(DataType::Utf8));
    columns[3] = cast(&columns[3], &DataType::LargeUtf8).unwrap();
    let large = batch(["k", "g", "v", "text"].into_iter().zip(columns.clone()).collect());
    write(&lab.path("items/a.parquet"), &large, 1000);
    let ran = lab.try_run(sql, &RunOptions::default()).await;
    assert_eq!(ran.report.task("texts").unwrap().executed, 0, "{ran:#?}");
    // The query reads another type then.
    columns[3] = cast(&columns[3], &dictionary).unwrap();
    write(&lab.path("items/a.parquet"), &batch(["k", "g", "v", "text"].into_iter().zip(columns).collect()), 1000);
    let ran = lab.try_run(sql, &RunOptions::default()).await;
    assert!(ran.report.succeeded(), "{ran:#?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn one_row_that_changed_runs_one_chunk_of_each_task() {
    for read_by in ["split", "rescan"] {
        let lab = Lab::new();
        let sql = pipeline(16, read_by);
        lab.run(&sql).await;
        write(&lab.path("items/a.parquet"), &items(3000, Some(2999)), 1000);
        let changed = lab.run(&sql).await;
        assert_eq!(changed.counts(), [1, 1, 1], "{read_by}: {changed:#?}");
        assert_eq!(changed.reason("sums"), "changed: input `items`; 1 of 16 chunks differ");
        assert_eq!(changed.reason("best"), "changed: input `sums`; 1 of 16 chunks differ");
        // Back to what was there before: all of it is still in the cache.
        write(&lab.path("items/a.parquet"), &items(3000, None), 1000);
        assert_eq!(lab.run(&sql).await.counts(), [0, 0, 0]);
        let mut hidden = items(3000, None).columns().to_vec();
        hidden[3] = Arc::new((0..3000).map(|row| Some(format!("other {row}"))).collect::<StringArray>());
        write(&lab.path("items/a.parquet"), &batch(["k", "g", "v", "text"].into_iter().zip(hidden).collect()), 1000);
        assert_eq!(lab.run(&sql).await.counts(), [0, 0, 0], "a column that is not read");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replicated_input_runs_all_chunks_only_when_what_is_read_of_it_changed() {
    let lab = Lab::new();
    let sql = pipeline(8, "split");
    lab.run(&sql).await;
    write(&lab.path("names/a.parquet"), &names("", "other"), 1000);
    assert_eq!(lab.run(&sql).await.counts(), [0, 0, 0], "a column that is not read");
    write(&lab.path("names/a.parquet"), &names("!", "other"), 1000);
    let changed = lab.run(&sql).await;
    // The names are not in what `best` gives.
    assert_eq!(changed.counts(), [8, 8, 0], "{changed:#?}");
    assert_eq!(changed.reason("sums"), "changed: input `names`");
    assert!(changed.splits.is_empty(), "{changed:#?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_task_that_is_computed_to_the_same_rows_runs_nothing_below() {
    let lab = Lab::new();
    let sql = pipeline(8, "split");
    lab.run(&sql).await;
    let edited = lab.run(&sql.replace("sum(i.v)", "sum(i.v + 0)")).await;
    assert_eq!((edited.counts(), edited.reason("sums")), ([8, 0, 0], "changed: query"));
    assert_eq!(edited.reason("best"), "nothing changed");
    assert!(edited.splits.is_empty(), "{edited:#?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn of_files_that_are_added_only_they_are_read() {
    for read_by in ["split", "rescan"] {
        let lab = Lab::new();
        let sql = pipeline(16, read_by);
        let splits = |rows: u64| if read_by == "split" { vec![("items".to_string(), rows)] } else { Vec::new() };
        let items_only =
            |ran: &Ran| ran.splits.iter().filter(|(input, _)| input == "items").cloned().collect::<Vec<_>>();
        assert_eq!(items_only(&lab.run(&sql).await), splits(3000));
        // Rows of one key, file by file, more often than parts are kept.
        for number in 0..10 {
            let rows = items(3000, None).slice(100 * number + 5, 1);
            write(&lab.path(&format!("items/more {number}.parquet")), &rows, 10);
            let added = lab.run(&sql).await;
            // Where the greatest value stays, nothing below runs.
            assert_eq!(added.counts()[..2], [1, 1], "{read_by} {number}: {added:#?}");
            assert_eq!(added.reason("sums"), "changed: input `items`; 1 of 16 chunks differ");
            // At the ninth part all is cut again.
            let expected = if number == 7 { 3008 } else { 1 };
            assert_eq!(items_only(&added), splits(expected), "{read_by} {number}: {added:#?}");
            assert_eq!(lab.run(&sql).await.counts(), [0, 0, 0]);
        }
        fs::remove_file(lab.path("items/more 9.parquet")).unwrap();
        let removed = lab.run(&sql).await;
        assert_eq!(removed.counts(), [0, 0, 0], "what it was before is in the cache: {removed:#?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn chunks_by_range_run_where_their_row_groups_changed() {
    let lab = Lab::new();
    let sorted = |changed: Option<i64>| {
        let k: Int64Array = (0..4000).collect();
        let v: Int64Array = (0..4000).map(|row| if Some(row) == changed { -1 } else { row % 7 }).collect();
        batch(vec![("k", Arc::new(k)), ("v", Arc::new(v))])
    };
    let sql = "CREATE EXTERNAL TABLE s STORED AS PARQUET LOCATION 's.parquet';
        CREATE TABLE t WITH (chunk_by = 'range', chunks = 8) AS SELECT k, sum(v) AS v FROM s GROUP BY k;
        CREATE TABLE u WITH (chunk_by = 'range', chunks = 8) AS SELECT k, max(v) AS v FROM t GROUP BY k;";
    write(&lab.path("s.parquet"), &sorted(None), 100);
    let first = lab.try_run(sql, &RunOptions::default()).await;
    assert!(first.report.succeeded() && first.ran["t"] >= 6, "{first:#?}");
    touch(&lab.path("s.parquet"));
    assert_eq!(lab.try_run(sql, &RunOptions::default()).await.ran, BTreeMap::new());
    write(&lab.path("s.parquet"), &sorted(Some(1234)), 100);
    let changed = lab.try_run(sql, &RunOptions::default()).await;
    assert_eq!((changed.ran["t"], changed.ran["u"]), (1, 1), "{changed:#?}");
    let (rows, whole) = (lab.rows("t").await, lab.rows("u").await);
    assert_eq!((rows.rows, whole.rows), (4000, 4000));
    let statements =
        [format!("CREATE EXTERNAL TABLE s STORED AS PARQUET LOCATION '{}'", lab.path("s.parquet").display())];
    let expected =
        crate::support::query_rows(&oracle(&statements).await, "SELECT k, sum(v) AS v FROM s GROUP BY k").await;
    assert_eq!(rows, expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn notes_of_the_sources_that_are_lost_or_damaged_are_found_out_anew() {
    let lab = Lab::new();
    let sql = pipeline(8, "split");
    lab.run(&sql).await;
    for change in [
        "DELETE FROM slices",
        "UPDATE slices SET contents = zeroblob(length(contents))",
        "DELETE FROM bytes",
        "UPDATE bytes SET hashes = zeroblob(length(hashes))",
        "UPDATE slices SET input = zeroblob(32)",
    ] {
        let index = rusqlite::Connection::open(lab.path("cache/index.sqlite")).unwrap();
        index.execute(change, []).unwrap();
        drop(index);
        assert_eq!(lab.run(&sql).await.counts(), [0, 0, 0], "{change}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn fresh_input_can_be_ignored_or_be_an_error() {
    let lab = Lab::new();
    let sql = pipeline(8, "split");
    let ignore = RunOptions { fresh_input: FreshInput::Ignore, ..RunOptions::default() };
    let fail = RunOptions { fresh_input: FreshInput::Fail, ..RunOptions::default() };
    // What is not published runs.
    assert_eq!(lab.try_run(&sql, &ignore).await.counts(), [8, 8, 8]);
    let before = lab.rows("ranked").await;
    touch(&lab.path("items/a.parquet"));
    let touched = lab.try_run(&sql, &fail).await;
    assert!(touched.report.succeeded() && touched.counts() == [0, 0, 0], "{touched:#?}");
    write(&lab.path("items/a.parquet"), &items(3000, Some(2999)), 1000);
    let failed = lab.try_run(&sql, &fail).await;
    assert_eq!(failed.counts(), [0, 0, 0]);
    let statuses: Vec<_> = failed.report.tasks.iter().map(|task| task.status).collect();
    assert_eq!(statuses, [Status::Failed, Status::Skipped, Status::Skipped]);
    let reason = failed.reason("sums");
    assert!(reason.contains("1 chunks would have to run: items"), "{reason}");
    let ignored = lab.try_run(&sql, &ignore).await;
    assert!(ignored.report.succeeded() && ignored.counts() == [0, 0, 0], "{ignored:#?}");
    assert!(ignored.reason("sums").contains("taken for unchanged"), "{ignored:#?}");
    assert_eq!(lab.rows("ranked").await, before);
    // An edited task runs, on the tables that are there.
    let edited = lab.try_run(&sql.replace("max(v)", "min(v)"), &ignore).await;
    assert_eq!(edited.counts()[..2], [0, 8], "{edited:#?}");
    assert_eq!(lab.run(&sql).await.counts()[0], 1);
    assert_ne!(lab.rows("ranked").await, before);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_forced_run_finds_out_replaces_what_was_noted() {
    for read_by in ["split", "rescan"] {
        let lab = Lab::new();
        let modified = SystemTime::now() - Duration::from_secs(60);
        fs::create_dir(lab.path("csv")).unwrap();
        let write = |name: &str, value: u32| {
            let path = lab.path("csv").join(name);
            fs::write(&path, format!("k,v\n1,{value}\n2,20\n3,30\n")).unwrap();
            File::options().write(true).open(&path).unwrap().set_modified(modified).unwrap();
        };
        let sql = format!(
            "CREATE EXTERNAL TABLE c STORED AS CSV LOCATION 'csv/' OPTIONS (format.has_header true);
             CREATE TABLE t CLUSTERED BY (k) INTO 2 BUCKETS WITH (read_by = '{read_by}') AS
             SELECT k, sum(v) AS v FROM c GROUP BY k;"
        );
        let force = RunOptions { force: true, ..RunOptions::default() };
        let run = async |options: &RunOptions| {
            assert!(lab.try_run(&sql, options).await.report.succeeded());
            let statement = format!(
                "CREATE EXTERNAL TABLE c STORED AS CSV LOCATION '{}/' OPTIONS (format.has_header true)",
                lab.path("csv").display()
            );
            let query = "SELECT k, sum(v) AS v FROM c GROUP BY k";
            let expected = crate::support::query_rows(&oracle(&[statement]).await, query).await;
            lab.rows("t").await == expected
        };
        write("a.csv", 10);
        write("b.csv", 50);
        assert!(run(&RunOptions::default()).await);
        write("c.csv", 60);
        assert!(run(&RunOptions::default()).await);
        // Of the same size and time, which says nothing: the system knows when it was written.
        write("a.csv", 99);
        assert!(run(&RunOptions::default()).await, "{read_by}");
        assert!(run(&force).await, "{read_by}");
        fs::remove_file(lab.path("csv/c.csv")).unwrap();
        assert!(run(&RunOptions::default()).await, "{read_by}: what was noted before the forced run was believed");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_audit_computes_chunks_again_and_compares() {
    let lab = Lab::new();
    let sql = pipeline(8, "rescan");
    let audit = |audit_percent| RunOptions { audit_percent, ..RunOptions::default() };
    assert_eq!(lab.try_run(&sql, &audit(100.0)).await.report.task("sums").unwrap().audited, 0);
    let audited = lab.try_run(&sql, &audit(100.0)).await;
    assert!(audited.report.succeeded(), "{audited:#?}");
    for task in &audited.report.tasks {
        assert_eq!((task.status, task.executed, task.reused, task.audited), (Status::Reused, 0, 8, 8), "{task:#?}");
    }
    let some = lab.try_run(&sql, &audit(50.0)).await;
    let some: u32 = some.report.tasks.iter().map(|task| task.audited).sum();
    assert!((1..24).contains(&some), "{some}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_audit_finds_a_function_that_gives_other_values_under_its_old_version() {
    let folder = TempDir::new().unwrap();
    let engine = Engine::builder().cache_folder(folder.path().join("cache")).build().unwrap();
    let rate = Arc::new(AtomicI64::new(10));
    let now = Arc::clone(&rate);
    let function = create_udf(
        "rate",
        vec![DataType::Int64],
        DataType::Int64,
        Volatility::Immutable,
        Arc::new(move |_| Ok(ColumnarValue::Scalar(ScalarValue::from(now.load(Ordering::Relaxed))))),
    );
    let sql = "CREATE EXTERNAL TABLE s STORED AS CSV LOCATION 's.csv';
        CREATE TABLE t CLUSTERED BY (k) INTO 2 BUCKETS AS SELECT k, sum(v + rate(v)) AS v FROM s GROUP BY k";
    fs::write(folder.path().join("s.csv"), "k,v\n1,2\n2,3\n").unwrap();
    let pipeline = Pipeline::builder()
        .with(chunkwise::sql::definitions(sql, "t.sql", folder.path()).unwrap())
        .with(UserFunction::scalar(function, "1"))
        .build()
        .unwrap();
    let run = async |options: RunOptions| engine.run(&pipeline, &options).await.unwrap().tasks.remove(0);
    let audit = || RunOptions { audit_percent: 100.0, ..RunOptions::default() };
    assert_eq!(run(RunOptions::default()).await.status, Status::Executed);
    rate.store(11, Ordering::Relaxed);
    assert_eq!(run(RunOptions::default()).await.status, Status::Reused);
    let wrong = run(audit()).await;
    assert!(wrong.status == Status::Failed && wrong.reason.contains("computed again it has other rows"), "{wrong:#?}");
    assert_eq!(run(RunOptions { force: true, ..RunOptions::default() }).await.status, Status::Executed);
    assert_eq!(run(audit()).await.status, Status::Reused);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_engines_own_number_of_chunks_outlives_another_memory_and_number_of_jobs() {
    let folder = TempDir::new().unwrap();
    let rows = "SELECT value * 7919 % 100003 AS k, value AS v FROM generate_series(1, 300000) AS t(value)";
    crate::support::make_parquet(folder.path(), "t", rows).await;
    let sql = format!(
        "{};\nCREATE TABLE sums AS SELECT k, sum(v) AS v FROM t GROUP BY k;",
        crate::support::parquet_source(folder.path(), "t")
    );
    let run = async |mib: usize, jobs: usize| {
        let engine = Engine::builder().cache_folder(folder.path().join("cache")).jobs(jobs);
        let engine = engine.memory_limit_bytes(mib << 20).build().unwrap();
        let report = crate::support::run(&engine, &sql, folder.path()).await;
        let sums = report.task("sums").unwrap();
        (sums.chunks, sums.executed)
    };
    let (chunks, executed) = run(8, 2).await;
    assert!(chunks > 1 && executed == chunks, "{executed} of {chunks}");
    for (mib, jobs) in [(4, 2), (16, 2), (8, 1), (8, 4)] {
        assert_eq!(run(mib, jobs).await, (chunks, 0), "{mib} MiB, {jobs} jobs");
    }
    // What memory asks for beyond that is done in parts.
    let statements = [crate::support::parquet_source(folder.path(), "t")];
    let query = "SELECT k, sum(v) AS v FROM t GROUP BY k";
    let expected = crate::support::query_rows(&oracle(&statements).await, query).await;
    let engine = Engine::builder().cache_folder(folder.path().join("cache")).jobs(2);
    let engine = engine.memory_limit_bytes(4 << 20).build().unwrap();
    let pipeline = chunkwise::sql::parse(&sql, "test.sql", folder.path()).unwrap();
    let forced = engine.run(&pipeline, &RunOptions { force: true, ..RunOptions::default() }).await.unwrap();
    assert_eq!((forced.succeeded(), forced.task("sums").unwrap().executed), (true, chunks), "{forced:#?}");
    assert_eq!(Multiset::of(engine.table("sums").await.unwrap()).await, expected);
}
