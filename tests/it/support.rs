//! What the tests share: the oracle (plain DataFusion, whole tables) and tables compared as multisets of rows.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use arrow::array::{ArrayRef, RecordBatch};
use arrow::compute::{cast, concat_batches};
use arrow::datatypes::{DataType, TimeUnit};
use arrow::row::{RowConverter, SortField};
use arrow::util::display::{ArrayFormatter, FormatOptions};
use chunkwise::{CollectOptions, Collected, Engine, ErrorKind, InputMode, Pipeline, RunOptions, RunReport, Status};
use datafusion::catalog::TableProvider;
use datafusion::prelude::{SessionConfig, SessionContext};
use futures::StreamExt;

/// A table's rows without their order: how many, and the sum of their hashes. Text encodings don't count.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Multiset {
    pub rows: u64,
    sum: u128,
}

impl Multiset {
    pub fn of_batches(batches: &[RecordBatch]) -> Self {
        let mut whole = Self { rows: 0, sum: 0 };
        for batch in batches {
            whole.add(batch);
        }
        whole
    }

    /// Reads a table to its end, a batch at a time.
    pub async fn of(table: Arc<dyn TableProvider>) -> Self {
        let context = SessionContext::new();
        let mut batches = context.read_table(table).unwrap().execute_stream().await.unwrap();
        let mut whole = Self { rows: 0, sum: 0 };
        while let Some(batch) = batches.next().await {
            whole.add(&batch.unwrap());
        }
        whole
    }

    fn add(&mut self, batch: &RecordBatch) {
        let columns: Vec<ArrayRef> = batch.columns().iter().map(plain).collect();
        let fields = columns.iter().map(|c| SortField::new(c.data_type().clone())).collect();
        let rows = RowConverter::new(fields).unwrap().convert_columns(&columns).unwrap();
        for row in &rows {
            let hash = blake3::hash(row.as_ref());
            let hash: [u8; 16] = hash.as_bytes()[..16].try_into().unwrap();
            self.sum = self.sum.wrapping_add(u128::from_le_bytes(hash));
            self.rows += 1;
        }
    }
}

/// Values in the form in which they are published, so that equal values are equal rows whatever their encoding.
fn plain(column: &ArrayRef) -> ArrayRef {
    use DataType::*;
    let to = match column.data_type() {
        Utf8View | LargeUtf8 => Utf8,
        BinaryView | LargeBinary => Binary,
        Dictionary(_, values) => values.as_ref().clone(),
        Timestamp(TimeUnit::Second | TimeUnit::Millisecond, zone) => Timestamp(TimeUnit::Microsecond, zone.clone()),
        Time32(TimeUnit::Second) => Time32(TimeUnit::Millisecond),
        Time64(TimeUnit::Nanosecond) => Time64(TimeUnit::Microsecond),
        Date64 => Date32,
        Float16 => Float32,
        Decimal32(digits, scale) | Decimal64(digits, scale) | Decimal256(digits, scale) => Decimal128(*digits, *scale),
        _ => return Arc::clone(column),
    };
    let cast = cast(column, &to).unwrap();
    if cast.data_type() == column.data_type() { cast } else { plain(&cast) }
}

/// Plain DataFusion: runs each statement, in order; relative locations must be absolute already.
pub async fn oracle(statements: &[String]) -> SessionContext {
    let context = SessionContext::new_with_config(SessionConfig::new().with_target_partitions(2));
    for statement in statements {
        context.sql(statement).await.unwrap_or_else(|e| panic!("{e}\n{statement}")).collect().await.unwrap();
    }
    context
}

/// Rows of a query of the oracle.
pub async fn query_rows(context: &SessionContext, query: &str) -> Multiset {
    Multiset::of(context.sql(query).await.unwrap_or_else(|e| panic!("{e}\n{query}")).into_view()).await
}

/// Rows of one table of the oracle.
pub async fn oracle_rows(context: &SessionContext, table: &str) -> Multiset {
    Multiset::of(context.table_provider(table).await.unwrap()).await
}

/// An engine over `cache` with two jobs.
pub fn engine(cache: &Path) -> Engine {
    Engine::builder().cache_folder(cache).jobs(2).build().unwrap()
}

/// As [`engine`], with chunks that run one by one, also where a task is too little to be cut.
pub fn engine_one_by_one(cache: &Path) -> Engine {
    Engine::builder().cache_folder(cache).jobs(2).one_by_one().build().unwrap()
}

/// The inputs that the task at `at` cuts, in alphabetical order, a word for each reading.
pub fn cut(report: &RunReport, at: usize) -> String {
    let inputs = report.tasks[at].inputs.iter().filter(|input| input.mode != InputMode::Replicate);
    let mut tables: Vec<_> = inputs.map(|input| input.table.as_str()).collect();
    tables.sort_unstable();
    tables.join(" ")
}

/// Removes what `options` say when no run uses the cache any more. A process that another test is about to start has the locks
/// of this one until its program begins.
pub fn collect(engine: &Engine, options: &CollectOptions) -> Collected {
    for _ in 0..1000 {
        match engine.collect(options) {
            Err(error) if error.to_string().contains("a run uses the cache") => {
                std::thread::sleep(std::time::Duration::from_millis(10));
            }
            collected => return collected.unwrap(),
        }
    }
    panic!("a run uses the cache for 10 seconds");
}

/// Removes all that nobody needs, as if the versions that others took the place of had been replaced two hours ago.
pub fn collect_all(engine: &Engine, cache: &Path) -> Collected {
    age(cache);
    collect(engine, &CollectOptions { older_than: Some(Duration::ZERO), limit_bytes: None })
}

/// Lets the versions that others took the place of have been replaced two hours ago.
pub fn age(cache: &Path) {
    let lists =
        files_in(&cache.join("versions")).into_iter().filter(|path| path.extension().is_some_and(|e| e == "b3"));
    let below = |folder: &Path| fs::read_dir(folder).into_iter().flatten().map(|entry| entry.unwrap().path());
    let stages = below(&cache.join("stages")).flat_map(|stage| below(&stage).collect::<Vec<_>>());
    let before = fs::FileTimes::new().set_modified(SystemTime::now() - Duration::from_secs(2 * 60 * 60));
    for path in lists.chain(stages.filter(|path| !path.is_symlink())) {
        fs::File::open(path).unwrap().set_times(before).unwrap();
    }
}

/// Parses `sql`, its locations relative to `folder`, and runs all of it; every task must succeed.
pub async fn run(engine: &Engine, sql: &str, folder: &Path) -> RunReport {
    let report = try_run(engine, sql, folder).await;
    assert!(report.succeeded(), "{report:#?}");
    report
}

/// As [`run`], but tasks may fail.
pub async fn try_run(engine: &Engine, sql: &str, folder: &Path) -> RunReport {
    let pipeline: Pipeline = chunkwise::sql::parse(sql, "test.sql", folder).unwrap();
    engine.run(&pipeline, &RunOptions::default()).await.unwrap()
}

/// The rows of `query`, which reads no table.
pub async fn rows_of(query: &str) -> RecordBatch {
    let rows = SessionContext::new().sql(query).await.unwrap_or_else(|e| panic!("{e}\n{query}"));
    let schema = Arc::clone(rows.schema().inner());
    concat_batches(&schema, &rows.collect().await.unwrap_or_else(|e| panic!("{e}\n{query}"))).unwrap()
}

/// Writes the rows of `query`, which reads no table, to `<folder>/<name>.parquet`.
pub async fn make_parquet(folder: &Path, name: &str, query: &str) {
    write_parquet(&folder.join(format!("{name}.parquet")), &rows_of(query).await);
}

/// Declares the Parquet file of that name in `folder`.
pub fn parquet_source(folder: &Path, name: &str) -> String {
    let path = folder.join(format!("{name}.parquet"));
    format!("CREATE EXTERNAL TABLE {name} STORED AS PARQUET LOCATION '{}'", path.display())
}

/// Writes `batch` to an Arrow IPC file.
pub fn write_arrow(path: &Path, batch: &RecordBatch) {
    let file = std::fs::File::create(path).unwrap();
    let mut writer = arrow::ipc::writer::FileWriter::try_new(file, &batch.schema()).unwrap();
    writer.write(batch).unwrap();
    writer.finish().unwrap();
}

/// Writes `batch` to a Parquet file.
pub fn write_parquet(path: &Path, batch: &RecordBatch) {
    let file = std::fs::File::create(path).unwrap();
    let mut writer = parquet::arrow::ArrowWriter::try_new(file, batch.schema(), None).unwrap();
    writer.write(batch).unwrap();
    writer.close().unwrap();
}

/// The rows of a published table, or why they can't be read.
pub async fn read_rows(engine: &Engine, table: &str) -> Result<Multiset, String> {
    let table = engine.table(table).await.map_err(|e| e.to_string())?;
    let rows = SessionContext::new().read_table(table).map_err(|e| e.to_string())?;
    rows.collect().await.map(|batches| Multiset::of_batches(&batches)).map_err(|e| e.to_string())
}

/// The rows of a query over published tables as CSV without a header, its lines sorted.
pub async fn rows_as_text(engine: &Engine, query: &str) -> Vec<String> {
    let batches = engine.query(query).await.unwrap().collect().await.unwrap();
    let mut text = Vec::new();
    let mut writer = arrow::csv::WriterBuilder::new().with_header(false).build(&mut text);
    batches.iter().for_each(|batch| writer.write(batch).unwrap());
    drop(writer);
    let mut lines: Vec<String> = String::from_utf8(text).unwrap().lines().map(str::to_string).collect();
    lines.sort();
    lines
}

/// Runs `pipeline`, whose task `name` fails; the kind of its error, and why.
pub async fn failure(engine: &Engine, pipeline: &Pipeline, name: &str) -> (ErrorKind, String) {
    let report = engine.run(pipeline, &RunOptions::default()).await.unwrap();
    let task = report.task(name).unwrap();
    (task.error.unwrap_or_else(|| panic!("{task:#?}")), task.reason.clone())
}

/// Gives a file another modification time and leaves its bytes alone.
pub fn touch(path: &Path) {
    let file = std::fs::File::options().write(true).open(path).unwrap();
    let before = file.metadata().unwrap().modified().unwrap();
    file.set_modified(before + std::time::Duration::from_secs(1)).unwrap();
}

/// Copies a folder with the symbolic links in it.
pub fn copy_folder(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let path = entry.unwrap().path();
        let to = to.join(path.file_name().unwrap());
        if path.is_symlink() {
            std::os::unix::fs::symlink(std::fs::read_link(&path).unwrap(), to).unwrap();
        } else if path.is_dir() {
            copy_folder(&path, &to);
        } else {
            std::fs::copy(&path, to).unwrap();
        }
    }
}

/// All files in a folder and below, but symbolic links.
pub fn files_in(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        match path.is_dir() && !path.is_symlink() {
            true => found.extend(files_in(&path)),
            false if path.is_file() && !path.is_symlink() => found.push(path),
            false => {}
        }
    }
    found.sort();
    found
}

/// Numbers that look random: SplitMix64.
pub fn random(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mixed = (*state ^ (*state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

/// A query, the columns that it is cut by, and its rows as texts in any order, or a part of the error that it gives.
pub type Case<'a> = (&'a str, &'a str, Result<&'a [&'a str], &'a str>);

/// Runs each query whole, and cut by its keys into three chunks with each of these options, all in one pipeline; gives
/// what is not as expected.
pub async fn wrong_cases(folder: &Path, sources: &str, cases: &[Case<'_>], options: &[&str]) -> Vec<String> {
    let mut sql = sources.to_string();
    for (at, (keys, query, _)) in cases.iter().enumerate() {
        sql.push_str(&format!("\nCREATE TABLE whole_{at} WITH (chunks = 1) AS {query};"));
        for (number, options) in options.iter().enumerate() {
            let cut = format!("CLUSTERED BY ({keys}) INTO 3 BUCKETS {options}");
            sql.push_str(&format!("\nCREATE TABLE cut_{at}_{number} {cut} AS {query};"));
        }
    }
    let engine = engine(&folder.join("cache"));
    let report = try_run(&engine, &sql, folder).await;
    let mut wrong = Vec::new();
    for (at, (keys, query, expected)) in cases.iter().enumerate() {
        let cut = (0..options.len()).map(|number| format!("cut_{at}_{number}"));
        for table in [format!("whole_{at}")].into_iter().chain(cut) {
            let task = report.task(&table).unwrap();
            let found = if matches!(task.status, Status::Executed | Status::Reused) {
                Ok(texts(&engine, &table).await)
            } else {
                Err(&task.reason)
            };
            let is_right = match (&found, expected) {
                (Ok(found), Ok(rows)) => found == rows,
                (Err(reason), Err(part)) => reason.contains(part),
                _ => false,
            };
            if !is_right {
                wrong.push(format!("{table} by {keys}: {query}\n  {found:?} for {expected:?}"));
            }
        }
    }
    wrong
}

/// The rows of a published table as texts, values with a space between them and `-` for NULL, sorted.
pub async fn texts(engine: &Engine, table: &str) -> Vec<String> {
    let batches = engine.query(&format!("SELECT * FROM {table}")).await.unwrap().collect().await.unwrap();
    let options = FormatOptions::new().with_null("-");
    let mut rows = Vec::new();
    for batch in &batches {
        let columns = batch.columns().iter().map(|column| ArrayFormatter::try_new(column, &options).unwrap());
        let columns: Vec<_> = columns.collect();
        for row in 0..batch.num_rows() {
            let values: Vec<String> = columns.iter().map(|column| column.value(row).to_string()).collect();
            rows.push(values.join(" "));
        }
    }
    rows.sort();
    rows
}
