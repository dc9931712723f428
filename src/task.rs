//! What a pipeline is made of: tasks, the sources they read, and views.

pub mod dataframe;
pub mod format;
pub mod function;
pub mod opaque;
pub mod source;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use datafusion::common::{ScalarValue, plan_err};
use datafusion::execution::SendableRecordBatchStream;
use datafusion::prelude::DataFrame;
use futures::FutureExt;
use parquet::basic::Compression;
use sqlparser::ast::Query;

use crate::chunk::Chunking;
use crate::error::Location;
use crate::hook::{DematerializationHook, InvocationHook, MaterializationHook};
use crate::task::dataframe::{BuildDataFrame, TaskInputs};
use crate::task::opaque::{InputBatches, InputStreams, Opaque, RowsFunction};

/// A query whose result is stored and published under the task's name.
///
/// [`Task::dataframe`] makes one of a Rust function, [`sql::task`](crate::sql::task) of a query, `CREATE TABLE … AS` of a
/// statement. As long as nobody says how to cut it, it is cut when its inputs are large, by the key that the engine finds.
#[derive(Debug, Clone)]
pub struct Task {
    /// Name of the task and of the table it publishes: ASCII letters, digits, `_` and `-`.
    pub(crate) name: String,
    /// The query, as if it ran on whole tables.
    pub(crate) query: TaskQuery,
    /// Names of the tables, views and tasks that the query reads, CTEs not among them.
    pub(crate) reads: BTreeSet<TableRead>,
    /// Where to cut it; `None` leaves it to the engine.
    pub(crate) chunking: Option<Chunking>,
    /// What `WITH (…)` set.
    pub(crate) options: TaskOptions,
    /// The stage whose tables are published together with its own; `None` publishes it by itself.
    pub(crate) stage: Option<String>,
    /// How chunks get their part of inputs that are neither stored nor clustered by the key; `None` leaves it to cost.
    pub(crate) read_by: Option<ReadBy>,
    /// Where the statement begins.
    pub(crate) location: Location,
    /// Where the first key of `CLUSTERED BY` stands, for errors about keys.
    pub(crate) keys_location: Option<Location>,
    /// Values that the query may name, as `$name` in SQL.
    pub(crate) parameters: BTreeMap<String, ScalarValue>,
    /// Decides where to cut it, in place of `chunking`.
    pub(crate) invocation: Option<Arc<dyn InvocationHook>>,
    /// What rewrites its inputs, by input, in order.
    pub(crate) dematerialization: Vec<(String, Arc<dyn DematerializationHook>)>,
    /// What sees its rows, in order.
    pub(crate) materialization: Vec<Arc<dyn MaterializationHook>>,
    /// What is known better than the prover can.
    pub(crate) cut: CutOverrides,
    /// Name of the function of which it is one table of several.
    pub(crate) group: Option<String>,
}

/// What a user says of a cut.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CutOverrides {
    /// Columns that inputs are cut by, one for each key.
    pub keys: BTreeMap<String, Vec<String>>,
    /// Inputs that every chunk sees whole.
    pub replicated: BTreeSet<String>,
    /// Why the task may be cut though that can't be proved.
    pub assumed: Option<String>,
}

/// What a task computes.
#[derive(Debug, Clone)]
pub enum TaskQuery {
    /// SQL.
    Sql(Arc<Query>),
    /// A function that gives a plan.
    DataFrame(BuildDataFrame),
    /// A function over rows.
    Opaque(Opaque),
}

impl Task {
    /// A task of a Rust function over lazy tables.
    ///
    /// `inputs` are the sources, tasks and views that it reads. `build` is called whenever the task is planned, with tables
    /// that have columns but no rows yet, and gives the plan that is proved, cut and run, once for each chunk: so the plan is
    /// what chunks are named by, and no version has to be kept. It must not read other tables, and give the same plan for the
    /// same inputs and parameters.
    #[track_caller]
    pub fn dataframe(
        name: impl Into<String>,
        inputs: impl IntoIterator<Item = impl Into<String>>,
        build: impl Fn(&TaskInputs) -> datafusion::common::Result<DataFrame> + Send + Sync + 'static,
    ) -> Self {
        Self::in_rust(name.into(), inputs, TaskQuery::DataFrame(BuildDataFrame::new(build)), Location::caller())
    }

    /// Tasks of a Rust function that gives several tables, which it makes in the order of `outputs`.
    ///
    /// Each table is a task of its own, cut and cached by itself, and may be given hooks of its own with
    /// [`Tasks::each`]. They appear together or not at all: their stage has the function's name, unless they get another, and whatever
    /// else is of a stage of that name appears with them. What the function stores with [`TaskInputs::materialize`] for several of them is computed once, by a
    /// key that the engine finds, as long as their [`Task::options`] are the same. It must not call a volatile function: each
    /// table would see other values.
    #[track_caller]
    pub fn dataframes(
        name: impl Into<String>,
        outputs: impl IntoIterator<Item = impl Into<String>>,
        inputs: impl IntoIterator<Item = impl Into<String>>,
        build: impl Fn(&TaskInputs) -> datafusion::common::Result<Vec<DataFrame>> + Send + Sync + 'static,
    ) -> Tasks {
        let (location, name, build) = (Location::caller(), name.into(), Arc::new(build));
        let outputs: Vec<String> = outputs.into_iter().map(Into::into).collect();
        let inputs: Vec<String> = inputs.into_iter().map(Into::into).collect();
        let (count, mut tasks) = (outputs.len(), Vec::with_capacity(outputs.len()));
        for (at, output) in outputs.into_iter().enumerate() {
            let build = Arc::clone(&build);
            let one = move |inputs: &TaskInputs| {
                let mut tables = build(inputs)?;
                match tables.len() {
                    given if given == count => Ok(tables.swap_remove(at)),
                    given => plan_err!("the function gives {given} tables, and {count} are declared"),
                }
            };
            let query = TaskQuery::DataFrame(BuildDataFrame::new(one));
            let task = Self::in_rust(output, inputs.clone(), query, location.clone());
            tasks.push(Self { group: Some(name.clone()), stage: Some(name.clone()), ..task });
        }
        Tasks(tasks)
    }

    /// A task of a function from streams of rows to a stream of rows, called once for each chunk.
    ///
    /// `inputs` are the sources, tasks and views that it reads, `schema` the columns that it gives, by name and type. What it
    /// does can't be seen: so it runs whole, unless it is cut by keys that are given and says
    /// [`Task::assume_chunkable`]; each input that has columns of the keys' names is cut then, as
    /// [`Task::input`] and [`Task::replicate`] may say otherwise, and views below it are still proved. A chunk may be done in
    /// parts, unless it is cut by predicates of each input, and may have no rows. Rows come in no order. `version` is what its
    /// chunks are named by, with the task's name: change it whenever the function gives other rows.
    ///
    /// It runs on the engine's threads, so it must not block for long, and what it holds is not counted as the engine's memory.
    #[track_caller]
    pub fn stream<F>(
        name: impl Into<String>,
        version: impl Into<String>,
        inputs: impl IntoIterator<Item = impl Into<String>>,
        schema: SchemaRef,
        function: impl Fn(InputStreams) -> F + Send + Sync + 'static,
    ) -> Self
    where
        F: Future<Output = datafusion::common::Result<SendableRecordBatchStream>> + Send + 'static,
    {
        let function = RowsFunction::Stream(Arc::new(move |streams| function(streams).boxed()));
        let query = TaskQuery::Opaque(Opaque { version: version.into(), schema, function });
        Self::in_rust(name.into(), inputs, query, Location::caller())
    }

    /// As [`Task::stream`], over all rows of a chunk at once, in memory: where they do not fit in it the chunk is done in parts.
    ///
    /// The function may compute for long. What it gives and what it was given count as the engine's memory, what it holds besides
    /// does not.
    #[track_caller]
    pub fn batches(
        name: impl Into<String>,
        version: impl Into<String>,
        inputs: impl IntoIterator<Item = impl Into<String>>,
        schema: SchemaRef,
        function: impl Fn(&InputBatches) -> datafusion::common::Result<Vec<RecordBatch>> + Send + Sync + 'static,
    ) -> Self {
        let function = RowsFunction::Batches(Arc::new(function));
        let query = TaskQuery::Opaque(Opaque { version: version.into(), schema, function });
        Self::in_rust(name.into(), inputs, query, Location::caller())
    }

    fn in_rust(
        name: String,
        inputs: impl IntoIterator<Item = impl Into<String>>,
        query: TaskQuery,
        location: Location,
    ) -> Self {
        let read = |name: String| TableRead { name, location: location.clone() };
        let reads = inputs.into_iter().map(|name| read(name.into())).collect();
        Self::new(name, query, reads, location)
    }

    pub(crate) fn new(name: String, query: TaskQuery, reads: BTreeSet<TableRead>, location: Location) -> Self {
        Self {
            name,
            query,
            reads,
            chunking: None,
            options: TaskOptions::default(),
            stage: None,
            read_by: None,
            location,
            keys_location: None,
            parameters: BTreeMap::new(),
            invocation: None,
            dematerialization: Vec::new(),
            materialization: Vec::new(),
            cut: CutOverrides::default(),
            group: None,
        }
    }

    /// What stands before the `#` in the names of the steps that it runs in: the same for all tables of one function, so that
    /// they share what is stored for several.
    pub(crate) fn step_prefix(&self) -> &str {
        self.group.as_ref().unwrap_or(&self.name)
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Cuts it as the hook says, in place of what its statement says.
    pub fn invoke(mut self, hook: impl InvocationHook + 'static) -> Self {
        self.invocation = Some(Arc::new(hook));
        self
    }

    /// Reads what the hook makes of the input `table` in place of it. Hooks of one input are applied in order.
    pub fn dematerialize(mut self, table: impl Into<String>, hook: impl DematerializationHook + 'static) -> Self {
        self.dematerialization.push((table.into(), Arc::new(hook)));
        self
    }

    /// Lets the hook see the task's rows. Hooks are called in order.
    pub fn materialize(mut self, hook: impl MaterializationHook + 'static) -> Self {
        self.materialization.push(Arc::new(hook));
        self
    }

    /// A value that the query names as `$name`, or the function and hooks ask for. It is part of what chunks are named by.
    pub fn parameter(mut self, name: impl Into<String>, value: impl Into<ScalarValue>) -> Self {
        self.parameters.insert(name.into(), value.into());
        self
    }

    /// How its files are written. Default: as [`TaskOptions`] says.
    pub fn options(mut self, options: TaskOptions) -> Self {
        self.options = options;
        self
    }

    /// Publishes its table together with those of all other tasks of the stage `name`, or none of them: ASCII letters, digits,
    /// `_` and `-`. What reads it from outside of the stage waits until the whole stage is published.
    pub fn stage(mut self, name: impl Into<String>) -> Self {
        self.stage = Some(name.into());
        self
    }

    /// Cuts the input `table` by these of its columns, one for each key of the task, also where no join equates them with the
    /// keys: then the task needs [`Task::assume_chunkable`], too.
    pub fn input(mut self, table: impl Into<String>, keys: impl IntoIterator<Item = impl Into<String>>) -> Self {
        self.cut.keys.insert(table.into(), keys.into_iter().map(Into::into).collect());
        self
    }

    /// Lets every chunk see the whole of the input `table`, also where it could be cut.
    pub fn replicate(mut self, table: impl Into<String>) -> Self {
        self.cut.replicated.insert(table.into());
        self
    }

    /// Cuts the task by the keys that it was given even where that can't be proved right, for this reason: **wrong rows are
    /// then the caller's**. EXPLAIN and the report say so, and what the prover said.
    pub fn assume_chunkable(mut self, reason: impl Into<String>) -> Self {
        self.cut.assumed = Some(reason.into());
        self
    }
}

/// The tasks that one function gives, from [`Task::dataframes`].
#[derive(Debug, Clone)]
pub struct Tasks(pub(crate) Vec<Task>);

impl Tasks {
    /// What `change` makes of each of them.
    pub fn each(self, change: impl FnMut(Task) -> Task) -> Self {
        Self(self.0.into_iter().map(change).collect())
    }
}

/// How chunks get their part of an input: `read_by` in `WITH (…)`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReadBy {
    /// One pass cuts the input first.
    Split,
    /// Each reads all of it.
    Rescan,
}

/// What a task's `WITH (…)` may set that its files depend on.
#[derive(Debug, Clone, PartialEq)]
pub struct TaskOptions {
    /// `version`: any text; changing it runs the task again.
    pub version: Option<String>,
    /// `compression` of the Parquet files: `zstd(level)`, `snappy`, `lz4_raw`, `gzip(level)`, `brotli(level)` or
    /// `uncompressed`. Default: zstd(1).
    pub compression: Compression,
    /// `row_group_rows`: rows of a Parquet row group, at least 1. Default: 1,048,576.
    pub row_group_rows: usize,
}

/// A table name that a query reads, and where it stands first. Ordered and compared by name.
#[derive(Debug, Clone)]
pub struct TableRead {
    /// Normalised name.
    pub name: String,
    /// Where the query names it first.
    pub location: Location,
}

impl PartialEq for TableRead {
    fn eq(&self, other: &Self) -> bool {
        self.name == other.name
    }
}

impl Eq for TableRead {}

impl PartialOrd for TableRead {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for TableRead {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.name.cmp(&other.name)
    }
}

/// A named query that is inlined where it is read and never stored.
#[derive(Debug, Clone)]
pub struct View {
    /// Name of the view.
    pub name: String,
    /// Column names of `CREATE VIEW name (a, b)`; empty keeps the query's own.
    pub columns: Vec<String>,
    /// The query.
    pub query: Arc<Query>,
    /// Names of the tables, views and tasks that the query reads.
    pub reads: BTreeSet<TableRead>,
    /// Where the statement begins.
    pub location: Location,
}

impl Default for TaskOptions {
    fn default() -> Self {
        Self { version: None, compression: Compression::ZSTD(Default::default()), row_group_rows: 1024 * 1024 }
    }
}
