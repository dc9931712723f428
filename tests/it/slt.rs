//! SQL files in the form of sqllogictest, run three ways: whole by plain DataFusion, in chunks, and again from the cache.
//!
//! Every `.slt` file below `tests/slt/` is run. Its statements make tables and views; the rows of a `CREATE TABLE … AS`
//! become one Parquet file of small row groups, which every way reads. A query says in comments of its SQL how to cut
//! it, so any program that knows sqllogictest can run the file:
//!
//! ```text
//! query II rowsort
//! -- cut by k into 3
//! -- cut by auto into 4
//! SELECT k, count(*) AS n FROM t GROUP BY k
//! ----
//! 1 2
//! NULL 5
//! ```
//!
//! - `cut by a, b into n` is a task `CLUSTERED BY (a, b) INTO n BUCKETS`, `cut by auto into n` one whose key the engine
//!   finds. Each line is a task of its own, really cut, with all of the expected rows.
//! - `refused: words` says that the task is refused with these words; the rows are those of the whole run.
//!
//! With `CHUNKWISE_SLT_COMPLETE=1` the rows of the whole run are written into the files as what is expected.

use std::fmt;
use std::fs::{self, File};
use std::future::ready;
use std::path::{Path, PathBuf};

use arrow::array::RecordBatch;
use arrow::datatypes::{DataType, Schema};
use arrow::util::display::{ArrayFormatter, FormatOptions};
use async_trait::async_trait;
use chunkwise::{Engine, Error, RunOptions, Status, TaskReport};
use datafusion::common::DataFusionError;
use datafusion::prelude::{DataFrame, SessionConfig, SessionContext};
use futures::{StreamExt, stream};
use parquet::arrow::ArrowWriter;
use parquet::file::properties::WriterProperties;
use sqllogictest::{
    AsyncDB, DBOutput, DefaultColumnType, ExpectedError, MakeConnection, QueryExpect, Record, Runner,
    default_normalizer, default_validator, parse, parse_file, strict_column_validator,
};

use crate::support::{engine_one_by_one, parquet_source};

/// Rows of a Parquet row group: few, so that small tables have several.
const ROW_GROUP_ROWS: usize = 4;

/// Files that run side by side: most of the time a run waits for the disk.
const FILES_AT_A_TIME: usize = 4;

type Output = DBOutput<DefaultColumnType>;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn files_have_their_rows_whole_in_chunks_and_from_the_cache() {
    let files = slt_files(&Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/slt"));
    assert!(!files.is_empty());
    let runs = stream::iter(files).map(async |file| {
        if std::env::var_os("CHUNKWISE_SLT_COMPLETE").is_some() {
            complete(&file).await;
        }
        run_three_ways(&parse_file(&file).unwrap()).await
    });
    let failures: Vec<String> = runs.buffered(FILES_AT_A_TIME).collect::<Vec<_>>().await.concat();
    assert!(failures.is_empty(), "{} failures\n{}", failures.len(), failures.join("\n"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_file_expects_wrongly_fails_in_every_way_it_is_wrong() {
    let failures = async |query: &str| {
        let script = format!("statement ok\nCREATE TABLE t (k INT) AS VALUES (1), (2), (NULL)\n\n{query}");
        let failures = run_three_ways(&parse(&script).unwrap()).await;
        failures.iter().map(|failure| failure.split(':').next().unwrap().to_string()).collect::<Vec<_>>().join(", ")
    };
    for (query, ways) in [
        ("query I rowsort\n-- cut by k into 2\nSELECT k FROM t\n----\n1\n2\nNULL", ""),
        ("query I rowsort\n-- cut by k into 2\nSELECT k FROM t\n----\n1\n2", "whole, cold, warm"),
        ("query T rowsort\n-- cut by k into 2\nSELECT k FROM t\n----\n1\n2\nNULL", "whole, cold, warm"),
        ("query I rowsort\nSELECT k FROM t\n----\n1\n2\nNULL", "cold, warm"),
        ("query I rowsort\n-- cut by k into 2\nSELECT rank() OVER (ORDER BY k) FROM t\n----\n1\n2\n3", "cold, warm"),
        ("query I\n-- cut by k into 2\n-- refused: one window\nSELECT max(k) OVER () FROM t\n----\n2\n2\n2", ""),
        (
            "query I\n-- cut by k into 2\n-- refused: DISTINCT\nSELECT max(k) OVER () FROM t\n----\n2\n2\n2",
            "cold, warm",
        ),
        ("query I\n-- cut by k into 2\n-- refused: one window\nSELECT max(k) OVER () FROM t\n----\n2\n2\n3", "whole"),
        ("query I\n-- cut by k into 2\n-- refused: one window\nSELECT max(k) AS n FROM t\n----\n2", "cold, warm"),
        ("query I\n-- cut by auto into 2\nSELECT 1 AS n\n----\n1", "cold, warm"),
    ] {
        assert_eq!(failures(query).await, ways, "{query}");
    }
}

/// The `.slt` files below `folder`, by name.
fn slt_files(folder: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files.extend(slt_files(&path));
        } else if path.extension().is_some_and(|extension| extension == "slt") {
            files.push(path);
        }
    }
    files.sort();
    files
}

/// Runs all records in every way, over one set of tables and one cache; each failure begins with the way.
async fn run_three_ways(records: &[Record<DefaultColumnType>]) -> Vec<String> {
    let folder = tempfile::tempdir().unwrap();
    let (tables, cache) = (folder.path(), folder.path().join("cache"));
    let cut: Vec<_> = records.iter().cloned().map(refused_where_it_says_so).collect();
    let mut failures = run_all(Runner::new(|| ready(Ok(Whole::new(tables)))), records, "whole").await;
    failures.extend(run_all(Runner::new(|| ready(Ok(Chunked::new(tables, &cache, false)))), &cut, "cold").await);
    failures.extend(run_all(Runner::new(|| ready(Ok(Chunked::new(tables, &cache, true)))), &cut, "warm").await);
    failures
}

async fn run_all<D, M>(mut runner: Runner<D, M>, records: &[Record<DefaultColumnType>], way: &str) -> Vec<String>
where
    D: AsyncDB<ColumnType = DefaultColumnType>,
    M: MakeConnection<Conn = D>,
{
    runner.with_column_validator(strict_column_validator);
    let mut failures = Vec::new();
    for record in records {
        if let Err(failure) = runner.run_async(record.clone()).await {
            failures.push(format!("{way}: {failure}"));
        }
    }
    failures
}

/// Writes the rows of the whole run into `file`.
async fn complete(file: &Path) {
    let folder = tempfile::tempdir().unwrap();
    let mut runner = Runner::new(|| ready(Ok(Whole::new(folder.path()))));
    let completed =
        runner.update_test_file(file, " ", default_validator, default_normalizer, strict_column_validator).await;
    completed.unwrap_or_else(|e| panic!("{}: {e}", file.display()));
}

/// The record as the engine must answer it: an error in place of rows where the query says `refused`.
fn refused_where_it_says_so(mut record: Record<DefaultColumnType>) -> Record<DefaultColumnType> {
    if let Record::Query { sql, expected, .. } = &mut record
        && let Some(words) = said(sql, "refused:").next()
    {
        *expected = QueryExpect::Error(ExpectedError::from_actual_error(None, words));
    }
    record
}

/// What stands after each `-- word` at the beginning of a line.
fn said<'a>(sql: &'a str, word: &'a str) -> impl Iterator<Item = &'a str> {
    sql.lines().filter_map(move |line| Some(line.strip_prefix("-- ")?.strip_prefix(word)?.trim()))
}

/// Plain DataFusion.
struct Whole {
    context: SessionContext,
    tables: PathBuf,
}

impl Whole {
    fn new(tables: &Path) -> Self {
        let mut config = SessionConfig::new().with_target_partitions(2);
        // A float column's statistics leave NaN out: row groups skipped by them lose rows, and they give a wrong maximum.
        config.options_mut().execution.parquet.pruning = false;
        config.options_mut().execution.collect_statistics = false;
        Self { context: SessionContext::new_with_config(config), tables: tables.to_path_buf() }
    }
}

#[async_trait]
impl AsyncDB for Whole {
    type Error = Failure;
    type ColumnType = DefaultColumnType;

    async fn run(&mut self, sql: &str) -> Result<Output, Failure> {
        let declared = declared(&self.tables, sql).await?;
        let result = self.context.sql(declared.as_deref().unwrap_or(sql)).await?;
        if is_definition(sql) {
            result.collect().await?;
            return Ok(DBOutput::StatementComplete(0));
        }
        rows(result).await
    }

    async fn shutdown(&mut self) {}
}

/// Chunkwise: definitions are kept, and every query becomes tasks over all of them.
struct Chunked {
    engine: Engine,
    tables: PathBuf,
    definitions: Vec<String>,
    /// Number of the query, for the names of its tasks.
    query: usize,
    /// Whether every chunk must be in the cache.
    is_warm: bool,
}

impl Chunked {
    fn new(tables: &Path, cache: &Path, is_warm: bool) -> Self {
        Self {
            engine: engine_one_by_one(cache),
            tables: tables.to_path_buf(),
            definitions: Vec::new(),
            query: 0,
            is_warm,
        }
    }

    /// Runs `sql` as a task that is cut as `cut` says.
    async fn task(&self, name: &str, cut: &str, sql: &str) -> Result<Output, Failure> {
        let (keys, chunks) = cut.split_once(" into ").ok_or("write: -- cut by keys into n")?;
        let chunks: u32 = chunks.parse().map_err(|_| format!("no number: {chunks}"))?;
        let cutting = match keys {
            // A version of its own, since other queries of the file may mean the same.
            "auto" => format!("WITH (chunk_by = 'auto', chunks = {chunks}, version = '{name}')"),
            keys => format!("CLUSTERED BY ({keys}) INTO {chunks} BUCKETS WITH (version = '{name}')"),
        };
        let definitions: String = self.definitions.iter().map(|definition| format!("{definition};\n")).collect();
        let text = format!("{definitions}CREATE TABLE {name} {cutting} AS\n{sql}");
        let pipeline = chunkwise::sql::parse(&text, "query.sql", &self.tables)?;
        let report = self.engine.run(&pipeline, &RunOptions::default()).await?;
        let [task] = report.tasks.as_slice() else { return Err("not one task".into()) };
        self.check(task, chunks)?;
        rows(SessionContext::new().read_table(self.engine.table(name).await?)?).await
    }

    /// Whether the task was cut at all, and nothing ran that should have been in the cache.
    fn check(&self, task: &TaskReport, chunks: u32) -> Result<(), Failure> {
        match task.status {
            Status::Failed | Status::Skipped => Err(task.reason.clone().into()),
            _ if task.chunks < chunks => Err(format!("it ran in {} of {chunks} chunks", task.chunks).into()),
            Status::Executed if !self.is_warm => Ok(()),
            Status::Reused if self.is_warm && task.executed == 0 => Ok(()),
            status => Err(format!("{status:?}, {} chunks executed: {}", task.executed, task.reason).into()),
        }
    }
}

#[async_trait]
impl AsyncDB for Chunked {
    type Error = Failure;
    type ColumnType = DefaultColumnType;

    async fn run(&mut self, sql: &str) -> Result<Output, Failure> {
        if is_definition(sql) {
            self.definitions.push(declared(&self.tables, sql).await?.unwrap_or_else(|| sql.to_string()));
            return Ok(DBOutput::StatementComplete(0));
        }
        self.query += 1;
        let cuts: Vec<_> = said(sql, "cut by ").collect();
        let mut first = None;
        for (at, cut) in cuts.iter().enumerate() {
            let output = self.task(&format!("q{}_{at}", self.query), cut, sql).await;
            let output = output.map_err(|Failure(why)| format!("cut by {cut}: {why}"))?;
            match &first {
                None => first = Some(output),
                Some(first) => same(first, &output).map_err(|why| format!("cut by {cut}: {why}"))?,
            }
        }
        first.ok_or_else(|| "the query does not say how to cut it; write: -- cut by keys into n".into())
    }

    async fn shutdown(&mut self) {}
}

fn is_definition(sql: &str) -> bool {
    sql.starts_with("CREATE ")
}

/// For a `CREATE TABLE … AS` the declaration of a Parquet file with its rows, written unless it is there.
async fn declared(folder: &Path, sql: &str) -> Result<Option<String>, Failure> {
    let Some(rest) = sql.strip_prefix("CREATE TABLE ") else { return Ok(None) };
    let name = rest.split([' ', '(', '\n']).next().unwrap_or_default();
    let path = folder.join(format!("{name}.parquet"));
    if !path.exists() {
        let context = SessionContext::new();
        context.sql(sql).await?.collect().await?;
        let table = context.table(name).await?;
        let schema = table.schema().inner().clone();
        let properties = WriterProperties::builder().set_max_row_group_row_count(Some(ROW_GROUP_ROWS)).build();
        let mut writer = ArrowWriter::try_new(File::create(path).unwrap(), schema, Some(properties)).unwrap();
        for batch in table.collect().await? {
            writer.write(&batch).unwrap();
        }
        writer.close().unwrap();
    }
    Ok(Some(parquet_source(folder, name)))
}

async fn rows(table: DataFrame) -> Result<Output, Failure> {
    let types = column_types(table.schema().as_arrow());
    let rows = table.collect().await?.iter().flat_map(texts).collect();
    Ok(DBOutput::Rows { types, rows })
}

fn column_types(schema: &Schema) -> Vec<DefaultColumnType> {
    let types = schema.fields().iter().map(|field| match field.data_type() {
        integer if integer.is_integer() => DefaultColumnType::Integer,
        number if number.is_numeric() => DefaultColumnType::FloatingPoint,
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => DefaultColumnType::Text,
        _ => DefaultColumnType::Any,
    });
    types.collect()
}

/// The values of a batch, row by row. An empty text is `(empty)`, for a file can't show it.
fn texts(batch: &RecordBatch) -> Vec<Vec<String>> {
    let options = FormatOptions::default().with_null("NULL");
    let columns: Vec<_> = batch.columns().iter().map(|c| ArrayFormatter::try_new(c, &options).unwrap()).collect();
    let text = |column: &ArrayFormatter<'_>, row| match column.value(row).to_string() {
        text if text.is_empty() => "(empty)".to_string(),
        text => text,
    };
    (0..batch.num_rows()).map(|row| columns.iter().map(|column| text(column, row)).collect()).collect()
}

/// Whether two outputs have the same columns and rows, in any order.
fn same(one: &Output, other: &Output) -> Result<(), String> {
    let sorted = |output: &Output| match output {
        DBOutput::Rows { types, rows } => {
            let mut rows = rows.clone();
            rows.sort_unstable();
            Some((types.clone(), rows))
        }
        _ => None,
    };
    let (one, other) = (sorted(one), sorted(other));
    if one == other { Ok(()) } else { Err(format!("{other:?}\nwhere the first cut has {one:?}")) }
}

/// Why a record has no rows.
#[derive(Debug)]
struct Failure(String);

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Failure {}

impl From<String> for Failure {
    fn from(why: String) -> Self {
        Self(why)
    }
}

impl From<&str> for Failure {
    fn from(why: &str) -> Self {
        Self(why.to_string())
    }
}

impl From<DataFusionError> for Failure {
    fn from(error: DataFusionError) -> Self {
        Self(error.to_string())
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self(error.to_string())
    }
}
