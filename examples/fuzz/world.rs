//! What the cases of a batch share: tables, the two ways to run queries over them, and what can be asked of both.

use std::fmt::Write;
use std::fs::File;
use std::panic::AssertUnwindSafe;
use std::path::Path;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use arrow::array::RecordBatch;
use chunkwise::testing::{EquijoinsOfOneKind, JoinsOfOneKind, Rule};
use chunkwise::{Engine, Pipeline, RunOptions, Status, TaskReport};
use datafusion::datasource::MemTable;
use datafusion::execution::SessionStateBuilder;
use datafusion::optimizer::OptimizerRule;
use datafusion::prelude::{SessionConfig, SessionContext};
use futures::{FutureExt, StreamExt};
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use tokio::runtime::Runtime;

use super::overflow::{Expected, OUT_OF_RANGE, expected, wide};
use super::query::Case;
use super::rows::{Row, are_equal, differences, rows_of};
use super::table::Table;

/// Larger results are not compared.
const MOST_ROWS: usize = 20_000;
/// Longer queries are not waited for.
const LONGEST: Duration = Duration::from_secs(5);
/// Threads for queries that run whole, some of which may be lost to ones that don't end.
const QUERY_THREADS: usize = 8;
/// Errors of what DataFusion can't plan.
const NOT_BY_DATAFUSION: [&str; 3] = [
    "This feature is not implemented",
    "Projections require unique expression names",
    "Expects PARTITION BY expression to be ordered",
];
/// Aggregates over squares and products.
const MOMENTS: [&str; 5] = ["stddev", "var_", "covar_", "corr(", "regr_"];
/// Errors of values, which an expression may meet or not: for which rows it is computed is the optimizer's choice.
const OF_VALUES: [&str; 7] =
    ["Cast error", "Parser error", "Overflow", "overflow", "Divide by zero", "Compute error", "is too large to store"];

/// Errors of a source.
const OF_SOURCES: [&str; 3] = ["source `t", "/t0", "/t1"];
/// Errors of numbers that overflow, and of those that plain DataFusion finds itself.
const OVERFLOW: &str = "Arithmetic overflow";
const NOT_OURS: &str = "Overflow happened";

/// Plain DataFusion gives a row of these as often as one input has it.
const BAGS: [&str; 2] = ["INTERSECT ALL", "EXCEPT ALL"];

/// The error of a key that a case has by chance.
const NO_SUCH_KEY: &str = "no input of the query has the key";

/// The error of a number beside a date, which plain DataFusion takes for days.
const UNLIKE: &str = "have no type in common";

/// Chunks that are given are refused with one of these.
const NOT_GIVEN: [&str; 5] = [
    "is no value of a key of type",
    "have no ranges",
    "no ranges in common",
    "other types in one input than in another",
    "floats that are equal may differ",
];

/// Tables and how an engine runs tasks over them.
#[derive(Debug, Clone)]
pub struct World {
    pub tables: Vec<Table>,
    /// Whether every chunk reads the files of an input in another order.
    pub rotates: bool,
    /// A rule that is switched off.
    pub without: Option<Rule>,
    /// Whether tasks with a key are cut by ranges, values or predicates of it, or by predicates of inputs that have it.
    pub invokes: bool,
}

/// How rows are laid out in memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Layout {
    /// All in one batch.
    OneBatch,
    /// The last first.
    Reversed,
    /// A batch for each, one after the other in every partition.
    Scattered,
}

/// What became of a task.
#[derive(Debug, Clone)]
pub enum Outcome {
    /// The same rows as whole, so many.
    Same(usize),
    /// Refused, and why.
    Refused(String),
    /// It can't be compared, and why.
    Skipped(String),
    /// Other rows: the differences.
    Wrong(String),
    /// It was accepted and failed, although whole it runs.
    Failed(String),
}

impl World {
    /// All names that queries may read: a task `u` and a view `v` over the first table come last.
    pub fn readable(&self) -> Vec<Table> {
        let first = &self.tables[0];
        self.tables.iter().cloned().chain([first.renamed("u"), first.renamed("v")]).collect()
    }

    fn view(&self) -> String {
        let names: Vec<&str> = self.tables[0].columns.iter().map(|c| c.name.as_str()).collect();
        format!("CREATE VIEW v ({}) AS SELECT * FROM t0;\n", names.join(", "))
    }

    /// Writes the tables below `folder` and gives the statements that declare what can be read.
    pub fn write(&self, folder: &Path) -> String {
        let sources: String = self.tables.iter().map(|table| table.write(folder)).collect();
        let key = &self.tables[0].columns[0].name;
        let task = format!("CREATE TABLE u CLUSTERED BY ({key}) INTO 4 BUCKETS AS SELECT * FROM t0;\n");
        format!("{sources}{task}{}", self.view())
    }

    /// The tables as statements that make them in memory, and what else `sql` reads.
    pub fn as_sql(&self, sql: &str) -> String {
        let words: Vec<&str> = sql.split(|c: char| !c.is_alphanumeric()).collect();
        let reads = |name: &str| words.contains(&name);
        let mut text = String::new();
        for table in &self.tables {
            if reads(&table.name) || (table.name == "t0" && (reads("u") || reads("v"))) {
                text.push_str(&table.as_sql());
            }
        }
        if reads("u") {
            writeln!(
                text,
                "CREATE TABLE u CLUSTERED BY ({}) INTO 4 BUCKETS AS SELECT * FROM t0;",
                self.tables[0].columns[0].name
            )
            .unwrap();
        }
        if reads("v") {
            text.push_str(&self.view());
        }
        if self.rotates {
            text.push_str("-- every chunk reads the files of a table in another order\n");
        }
        text
    }

    /// Plain DataFusion over tables in memory: in Parquet it overlooks NaN where it skips row groups. Nor may joins tell
    /// scans which values they look for: that overlooks -0.0 where they look for 0.0. Nor are filters pushed down in the
    /// physical plan, which takes one column for another of its name. Nor are null-safe joins put in another order, which
    /// lets NULL equal NULL elsewhere.
    pub async fn whole(&self, partitions: usize, layout: Layout) -> SessionContext {
        let mut config = SessionConfig::new().with_target_partitions(partitions);
        let optimizer = &mut config.options_mut().optimizer;
        optimizer.enable_join_dynamic_filter_pushdown = false;
        optimizer.enable_topk_dynamic_filter_pushdown = false;
        optimizer.enable_aggregate_dynamic_filter_pushdown = false;
        let state = SessionStateBuilder::new().with_config(config).with_default_features().build();
        let rules = state.physical_optimizers().iter().filter(|rule| !rule.name().starts_with("FilterPushdown"));
        let rules = rules.cloned().collect();
        let logical = state.optimizers().iter().map(|rule| -> Arc<dyn OptimizerRule + Send + Sync> {
            match rule.name() {
                "eliminate_cross_join" => Arc::new(JoinsOfOneKind),
                "extract_equijoin_predicate" => Arc::new(EquijoinsOfOneKind),
                _ => Arc::clone(rule),
            }
        });
        let logical = logical.collect();
        let state = SessionStateBuilder::new_from_existing(state)
            .with_physical_optimizer_rules(rules)
            .with_optimizer_rules(logical)
            .build();
        let context = SessionContext::new_with_state(state);
        for table in &self.tables {
            let batch = if layout == Layout::Reversed { table.reversed().as_read() } else { table.as_read() };
            let rows = if layout == Layout::Scattered { 1 } else { batch.num_rows().max(1) };
            let mut parts: Vec<Vec<RecordBatch>> = vec![Vec::new(); partitions];
            for (at, from) in (0..batch.num_rows()).step_by(rows).enumerate() {
                parts[at % partitions].push(batch.slice(from, rows));
            }
            let table_in_memory = MemTable::try_new(batch.schema(), parts).unwrap();
            context.register_table(&table.name, Arc::new(table_in_memory)).unwrap();
        }
        for statement in ["CREATE VIEW u AS SELECT * FROM t0;", self.view().as_str()] {
            context.sql(statement).await.unwrap().collect().await.unwrap();
        }
        context
    }

    /// An engine with its cache below `folder`.
    pub fn engine(&self, folder: &Path) -> Engine {
        let mut builder = Engine::builder().cache_folder(folder.join("cache")).jobs(1);
        if self.rotates {
            builder = builder.rotate_scans().always_partition().jobs(2);
        } else if self.tables.len().is_multiple_of(2) {
            builder = builder.always_partition().jobs(2);
        }
        if let Some(rule) = self.without {
            // A pass has the rows of the whole even where a cut is wrong.
            builder = builder.without_rule(rule).one_by_one();
        }
        builder.build().unwrap()
    }

    /// What became of the task of `case`, whose rows should be `expected`.
    pub async fn outcome(&self, case: &Case, expected: &Expected, task: &TaskReport, folder: &Path) -> Outcome {
        let is_overflow = |reason: &str| reason.contains(OVERFLOW) && !reason.contains(NOT_OURS);
        let expected = match expected {
            Expected::Rows(rows) => rows,
            Expected::Overflow => {
                return match task.status {
                    Status::Executed | Status::Planned | Status::Reused
                        if BAGS.iter().any(|of| case.sql.contains(of)) =>
                    {
                        Outcome::Skipped("plain DataFusion has other rows than it should".into())
                    }
                    Status::Executed | Status::Planned | Status::Reused => {
                        Outcome::Wrong("-- it has rows, although its numbers overflow\n".into())
                    }
                    _ if is_overflow(&task.reason) => Outcome::Skipped("its numbers overflow, and it fails".into()),
                    _ if task.error.is_some_and(|kind| is_invalid(kind, &task.reason)) => {
                        Outcome::Skipped(invalid(&task.reason))
                    }
                    _ if OF_VALUES.iter().any(|error| task.reason.contains(error)) => {
                        Outcome::Skipped("a value can't be computed in an order of evaluation".into())
                    }
                    _ if task.reason.contains("can't be cut at") => Outcome::Refused(rule(&task.reason)),
                    _ if NOT_GIVEN.iter().any(|words| task.reason.contains(words)) => {
                        Outcome::Refused("the chunks that are given are none of the key's".into())
                    }
                    _ => Outcome::Failed(task.reason.clone()),
                };
            }
        };
        let difference = match task.status {
            Status::Executed | Status::Planned | Status::Reused => {
                match published(&folder.join("cache/tables").join(&case.name)) {
                    Ok(found) if are_equal(&found, expected) => return Outcome::Same(found.len()),
                    Ok(found) => Ok(found),
                    Err(error) => Err(error),
                }
            }
            _ if task.error.is_some_and(|kind| is_invalid(kind, &task.reason)) => {
                return Outcome::Skipped(invalid(&task.reason));
            }
            _ => Err(task.reason.clone()),
        };
        match &difference {
            Err(reason) if reason.contains("can't be cut at") => return Outcome::Refused(rule(reason)),
            Err(reason) if NOT_GIVEN.iter().any(|words| reason.contains(words)) => {
                return Outcome::Refused("the chunks that are given are none of the key's".into());
            }
            // Plain DataFusion may have fewer rows than it should, which don't overflow.
            Err(reason) if is_overflow(reason) => {
                let sql = wide(&case.sql).unwrap_or_else(|| case.sql.clone());
                return match self.uncut(&Case { sql, ..case.clone() }, folder).await {
                    Err(uncut) if is_overflow(&uncut) || OUT_OF_RANGE.iter().any(|known| uncut.contains(known)) => {
                        Outcome::Skipped(
                            "plain DataFusion has other rows than the engine, whose numbers overflow".into(),
                        )
                    }
                    _ => Outcome::Failed(reason.clone()),
                };
            }
            Err(reason) if OF_VALUES.iter().any(|error| reason.contains(error)) => {
                return Outcome::Skipped("a value can't be computed in an order of evaluation".into());
            }
            // Plans of other shapes, such as those of steps, run into it where the whole query does not.
            Err(reason) if reason.contains("SanityCheckPlan") => {
                return Outcome::Skipped("DataFusion's check of its own plan fails".into());
            }
            // What a step computes though the whole query does without it, DataFusion may be unable to.
            Err(reason) if NOT_BY_DATAFUSION.iter().any(|error| reason.contains(error)) => {
                return Outcome::Skipped("DataFusion can't compute a part of it".into());
            }
            _ => {}
        }
        if !self.is_steady(&case.sql, expected).await {
            return Outcome::Skipped("DataFusion gives other rows in another order or with one partition".into());
        }
        match (difference, self.uncut(case, folder).await) {
            (Ok(found), Ok(uncut)) if are_equal(&found, &uncut) => {
                Outcome::Skipped("plain DataFusion has other rows than the engine, uncut and cut".into())
            }
            (Ok(_), _) if self.has_large_numbers() && MOMENTS.iter().any(|name| case.sql.contains(name)) => {
                Outcome::Skipped("moments of numbers near 2^53, which are rounding alone".into())
            }
            (Ok(found), _) => Outcome::Wrong(differences(expected, &found)),
            // What stands in a file is what was written there.
            (Err(reason), Err(_)) if OF_SOURCES.iter().any(|words| reason.contains(words)) => Outcome::Failed(reason),
            (Err(reason), Err(_)) => {
                Outcome::Skipped(format!("it fails uncut over files, too: {}", shortened(&reason)))
            }
            (Err(reason), Ok(_)) => Outcome::Failed(reason),
        }
    }

    /// Whether a table has numbers whose neighbours a double can't tell apart.
    pub fn has_large_numbers(&self) -> bool {
        self.tables.iter().any(|table| table.as_sql().contains("90071992547409"))
    }

    /// The rows of the query as a task that is not cut, over the same files.
    async fn uncut(&self, case: &Case, folder: &Path) -> Result<Vec<Row>, String> {
        let folder = folder.join("uncut");
        std::fs::create_dir_all(&folder).unwrap();
        let sql = format!("{}CREATE TABLE {} WITH (chunks = 1) AS {};", self.write(&folder), case.name, case.sql);
        let pipeline = chunkwise::sql::parse(&sql, "fuzz.sql", &folder).unwrap();
        let report = AssertUnwindSafe(self.engine(&folder).run(&pipeline, &RunOptions::default())).catch_unwind().await;
        let rows = match report {
            Ok(Ok(report)) if report.succeeded() => published(&folder.join("cache/tables").join(&case.name)),
            Ok(Ok(report)) => Err(report.tasks.iter().map(|task| task.reason.as_str()).collect()),
            _ => Err("it fails".into()),
        };
        let _ = std::fs::remove_dir_all(&folder);
        rows
    }

    /// Whether the query has these rows however the tables are read. What depends on it, such as which of -0.0 and 0.0
    /// is a minimum, is no question for the prover.
    async fn is_steady(&self, sql: &str, expected: &[Row]) -> bool {
        let layouts = [(1, Layout::OneBatch), (1, Layout::Reversed), (2, Layout::Reversed), (3, Layout::Scattered)];
        for (partitions, layout) in layouts {
            match rows_whole(&self.whole(partitions, layout).await, sql).await {
                Ok(rows) if are_equal(&rows, expected) => {}
                _ => return false,
            }
        }
        // Optimised twice, DataFusion casts what a subquery compares once more, after unions have their types.
        let context = self.whole(1, Layout::OneBatch).await;
        let twice = match context.sql(sql).await {
            Ok(rows) => rows.into_optimized_plan(),
            Err(_) => return false,
        };
        match twice {
            Ok(plan) => match context.execute_logical_plan(plan).await {
                Ok(rows) => rows.collect().await.is_ok_and(|batches| are_equal(&rows_of(&batches), expected)),
                Err(_) => false,
            },
            Err(_) => false,
        }
    }

    /// The pipeline with its tasks cut as the world has it.
    pub fn invoked<'a>(&self, mut pipeline: Pipeline, cases: impl IntoIterator<Item = &'a Case>) -> Pipeline {
        let tables = self.readable();
        for case in cases.into_iter().filter(|_| self.invokes) {
            pipeline = pipeline.configure(&case.name, |task| case.invoked(task, &tables)).unwrap();
        }
        pipeline
    }

    /// Runs one case by itself in a new folder.
    pub async fn try_case(&self, case: &Case, folder: &Path) -> Outcome {
        let expected = match expected(&self.whole(2, Layout::OneBatch).await, &case.sql).await {
            Ok(expected) => expected,
            Err(error) => return Outcome::Skipped(shortened(&error)),
        };
        let _ = std::fs::remove_dir_all(folder);
        std::fs::create_dir_all(folder).unwrap();
        let sql = format!("{}{}", self.write(folder), case.statement());
        let pipeline = match chunkwise::sql::parse(&sql, "fuzz.sql", folder) {
            Ok(pipeline) => self.invoked(pipeline, [case]),
            Err(error) => {
                return Outcome::Skipped(format!("invalid for the engine: {}", shortened(&error.to_string())));
            }
        };
        let run = self.engine(folder);
        let report = AssertUnwindSafe(run.run(&pipeline, &RunOptions::default())).catch_unwind().await;
        let outcome = match report {
            Ok(Ok(report)) => match report.task(&case.name) {
                Some(task) => self.outcome(case, &expected, task, folder).await,
                None => Outcome::Failed("the report leaves the task out".into()),
            },
            Ok(Err(error)) if is_invalid(error.kind(), &error.to_string()) => {
                Outcome::Skipped(invalid(error.message()))
            }
            Ok(Err(error)) => Outcome::Failed(error.to_string()),
            Err(_) => Outcome::Failed("the engine panicked".into()),
        };
        drop(run);
        let _ = std::fs::remove_dir_all(folder);
        outcome
    }
}

/// Whether an error says that the task's SQL is at fault.
pub fn is_invalid(kind: chunkwise::ErrorKind, message: &str) -> bool {
    kind == chunkwise::ErrorKind::Sql && !message.contains("nternal error") && !message.contains("panicked")
}

pub fn invalid(message: &str) -> String {
    for known in [NO_SUCH_KEY, UNLIKE, "can't be a key", "which Parquet readers don't agree on"] {
        if message.contains(known) {
            return known.into();
        }
    }
    format!("invalid for the engine: {}", shortened(message))
}

/// The rows of a query that runs whole.
pub async fn rows_whole(context: &SessionContext, sql: &str) -> Result<Vec<Row>, String> {
    let (context, sql) = (context.clone(), sql.to_string());
    let run = async move {
        let mut stream = context
            .sql(&sql)
            .await
            .map_err(|e| e.strip_backtrace())?
            .execute_stream()
            .await
            .map_err(|e| e.strip_backtrace())?;
        let (mut batches, mut rows): (Vec<RecordBatch>, usize) = (Vec::new(), 0);
        while let Some(batch) = stream.next().await {
            let batch = batch.map_err(|e| e.strip_backtrace())?;
            rows += batch.num_rows();
            if rows > MOST_ROWS {
                return Err("more rows than are compared".to_string());
            }
            batches.push(batch);
        }
        Ok(rows_of(&batches))
    };
    // A join that explodes below an aggregate gives no chance to stop it: only a thread of its own can be left alone.
    static QUERIES: OnceLock<Runtime> = OnceLock::new();
    let queries = QUERIES.get_or_init(|| {
        let mut builder = tokio::runtime::Builder::new_multi_thread();
        builder.worker_threads(QUERY_THREADS).thread_stack_size(64 << 20).enable_all().build().unwrap()
    });
    let running = queries.spawn(run);
    let stop = running.abort_handle();
    match tokio::time::timeout(LONGEST, running).await {
        Ok(Ok(rows)) => rows,
        Ok(Err(_)) => Err("DataFusion panics".into()),
        Err(_) => {
            stop.abort();
            Err("it takes too long".into())
        }
    }
}

/// The rows of a published table, read from its files.
fn published(folder: &Path) -> Result<Vec<Row>, String> {
    Ok(rows_of(&batches_in(folder)?))
}

/// The files of a published table.
pub fn batches_in(folder: &Path) -> Result<Vec<RecordBatch>, String> {
    let mut batches = Vec::new();
    for chunk in std::fs::read_dir(folder).map_err(|e| e.to_string())? {
        for file in std::fs::read_dir(chunk.map_err(|e| e.to_string())?.path()).map_err(|e| e.to_string())? {
            batches.extend(batches_of(&file.map_err(|e| e.to_string())?.path())?);
        }
    }
    Ok(batches)
}

/// The rows of a Parquet file.
pub fn batches_of(path: &Path) -> Result<Vec<RecordBatch>, String> {
    let file = File::open(path).map_err(|e| e.to_string())?;
    let reader = ParquetRecordBatchReaderBuilder::try_new(file).and_then(|reader| reader.build());
    reader.map_err(|e| e.to_string())?.collect::<Result<_, _>>().map_err(|e| e.to_string())
}

/// The rule of a refusal: its name, or its text where it has none.
fn rule(reason: &str) -> String {
    if let Some(rule) = Rule::ALL.iter().find(|rule| reason.contains(rule.reason())) {
        return rule.to_string();
    }
    // It stands between the node and the advice.
    let node = reason.split("can't be cut at ").nth(1).unwrap_or(reason);
    let rule = node.split("; ").next().unwrap_or_default();
    rule.rsplit(": ").next().unwrap_or_default().chars().take(90).collect()
}

/// The first words of an error, without what differs from case to case.
pub fn shortened(text: &str) -> String {
    // An optimizer rule's name stands before the cause, columns that would be right after it.
    let mut lines =
        text.lines().rev().filter(|line| !line.starts_with("Valid fields") && !line.starts_with("This issue"));
    let line: String = lines.next().unwrap_or_default().chars().take(56).collect();
    line.chars().filter(|c| !c.is_ascii_digit()).collect()
}
