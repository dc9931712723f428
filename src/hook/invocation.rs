//! Invocation: into which chunks a task is cut, and how they are run.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use datafusion::catalog::TableProvider;
use datafusion::common::ScalarValue;
use datafusion::execution::SessionState;
use datafusion::logical_expr::Expr;
use datafusion::prelude::{DataFrame, SessionContext};
use futures::future::BoxFuture;
use tokio::task::JoinSet;

use crate::chunk::given::Given;
use crate::chunk::{ChunkBy, Chunking, DEFAULT_CHUNKS, MAX_CHUNKS};
use crate::error::{Error, ErrorKind, Result};
use crate::hook::{FinishedTable, HookContext};

/// Decides into which chunks a task is cut, and runs them.
///
/// What it cuts by is proved like any other cut: a hook can't make a wrong one. Only
/// [`cut`](InvocationHook::cut) has no default.
#[async_trait]
pub trait InvocationHook: fmt::Debug + Send + Sync {
    /// Into which chunks the task is cut. Called whenever it is planned, for EXPLAIN too.
    ///
    /// # Errors
    /// What stops the task from being planned.
    async fn cut(&self, context: &InvocationContext) -> Result<Cut>;

    /// Runs the chunks that the cache hasn't; called for each step of the task that has such chunks. Default: all side by
    /// side, as many at a time as the engine has jobs and memory for.
    ///
    /// # Errors
    /// What stops the task; chunks that ran stay in the cache. One that was not run is an error.
    async fn run(&self, chunks: &Chunks, _context: &HookContext) -> Result<()> {
        chunks.run_all().await
    }

    /// All chunks are there, and will be published next, with a stage when all its tasks are done: if one of these fails it is
    /// not, and this is called again by the next run. Not called where the table was published before and no chunk ran.
    /// Default: nothing.
    ///
    /// # Errors
    /// What keeps the table from being published.
    async fn finish(&self, _table: &FinishedTable, _context: &HookContext) -> Result<()> {
        Ok(())
    }
}

/// What an invocation hook is told before the task is cut.
#[derive(Debug)]
pub struct InvocationContext {
    pub(crate) task: String,
    pub(crate) parameters: BTreeMap<String, ScalarValue>,
    /// Sources; `None` is a task, whose rows are not known yet.
    pub(crate) inputs: BTreeMap<String, Option<Arc<dyn TableProvider>>>,
    pub(crate) state: SessionState,
    pub(crate) jobs: usize,
    pub(crate) memory_limit_bytes: Option<usize>,
}

impl InvocationContext {
    /// Name of the task.
    pub fn task(&self) -> &str {
        &self.task
    }

    /// The value of a parameter of the task.
    pub fn parameter(&self, name: &str) -> Option<&ScalarValue> {
        self.parameters.get(name)
    }

    /// Names of the sources and tasks that it reads.
    pub fn inputs(&self) -> impl Iterator<Item = &str> {
        self.inputs.keys().map(String::as_str)
    }

    /// Chunks that run at a time.
    pub fn jobs(&self) -> usize {
        self.jobs
    }

    /// Bytes that the process may have.
    pub fn memory_limit_bytes(&self) -> Option<usize> {
        self.memory_limit_bytes
    }

    /// The rows of a source that the task reads, lazily. What is computed of them is computed for each run and each EXPLAIN.
    ///
    /// # Errors
    /// [`ErrorKind::Usage`] when the task does not read it, or it is a task, whose rows are not known before it ran.
    pub fn source(&self, name: &str) -> Result<DataFrame> {
        let fail = |message: String| Error::new(ErrorKind::Usage, message).with_task(&self.task);
        match self.inputs.get(name) {
            Some(Some(table)) => SessionContext::new_with_state(self.state.clone())
                .read_table(Arc::clone(table))
                .map_err(|e| fail(format!("`{name}` can't be read")).with_source(e)),
            Some(None) => {
                Err(fail(format!("`{name}` is a task: its rows are not known before it ran; give the chunks")))
            }
            None => {
                let known: Vec<_> = self.inputs().collect();
                Err(fail(format!("the task reads no `{name}`; it reads {}", known.join(", "))))
            }
        }
    }
}

/// Into which chunks a task is cut: by a function of key columns, or by predicates of inputs. What of the query and its inputs
/// is cut by keys follows from the proof; that the cut is right is proved in any case.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cut(pub(crate) Chunking);

impl Cut {
    /// One chunk of all rows.
    pub fn whole() -> Self {
        Self(Chunking { keys: Vec::new(), chunks: 1, by: ChunkBy::Hash })
    }

    /// So many chunks by the hash of the keys, 1 to 4,096.
    pub fn hash(keys: impl IntoIterator<Item = impl Into<String>>, chunks: u32) -> Self {
        Self(Chunking { keys: keys.into_iter().map(Into::into).collect(), chunks, by: ChunkBy::Hash })
    }

    /// About so many chunks by the key and function that the engine finds, 1 to 4,096.
    pub fn auto(chunks: u32) -> Self {
        Self(Chunking { keys: Vec::new(), chunks, by: ChunkBy::Auto })
    }

    /// About so many chunks by ranges of the key, whose bounds are those of Parquet row groups, so that chunks of a source that
    /// is sorted by the key open only their row groups; by hash where statistics give none. 1 to 4,096.
    pub fn clustered(key: impl Into<String>, chunks: u32) -> Self {
        Self(Chunking { keys: vec![key.into()], chunks, by: ChunkBy::Range })
    }

    /// A chunk from each of the bounds up to the next, and chunk 0 for what is below the first and NULL.
    ///
    /// Integers, dates, timestamps, decimals and text have ranges; bounds are converted to the key's type.
    pub fn ranges(key: impl Into<String>, bounds: impl IntoIterator<Item = impl Into<ScalarValue>>) -> Self {
        Self::given(vec![key.into()], Given::Ranges(bounds.into_iter().map(Into::into).collect()))
    }

    /// A chunk for each group of values of the key, from 1 on, and chunk 0 for all other values and NULL. Values are converted
    /// to the key's type. Groups that are added last leave the chunks of those before as they are.
    pub fn values(key: impl Into<String>, groups: impl IntoIterator<Item = Vec<ScalarValue>>) -> Self {
        Self::given(vec![key.into()], Given::Values(groups.into_iter().collect()))
    }

    /// A chunk for each predicate over the keys, from 1 on, of the rows for which it is the first that holds, and chunk 0 for all
    /// other rows, and those whose keys are all NULL. Predicates name the keys as bare columns.
    pub fn predicates(
        keys: impl IntoIterator<Item = impl Into<String>>,
        predicates: impl IntoIterator<Item = Expr>,
    ) -> Self {
        let keys = keys.into_iter().map(Into::into).collect();
        Self::given(keys, Given::Predicates(predicates.into_iter().collect()))
    }

    /// For each of these inputs as many predicates over its columns, which they name as bare columns: chunk k, from 0, sees of
    /// each the rows for which its predicate k holds, and of inputs that are not listed all rows. An input is a source or task
    /// that the task reads, of itself or through views.
    ///
    /// That for each row of a listed input exactly one predicate holds, where NULL does not, is checked on the data before a
    /// chunk runs, also of a dry run: all its rows count, also those that the query leaves out. What was found good is not read
    /// for it again: a file of a source that looks the same, a stored chunk of a task, all of a hook's source at one version. The
    /// task fails where it is otherwise.
    ///
    /// Predicates are of columns, literals and DataFusion's own immutable functions. Such chunks are not cut further where
    /// memory is short; joins of them spill.
    pub fn input_predicates(inputs: impl IntoIterator<Item = (impl Into<String>, Vec<Expr>)>) -> Self {
        let inputs = inputs.into_iter().map(|(input, predicates)| (input.into(), predicates));
        Self::given(vec![PREDICATES.into()], Given::PerInput(inputs.collect()))
    }

    fn given(keys: Vec<String>, given: Given) -> Self {
        Self(Chunking { keys, chunks: given.chunks(), by: ChunkBy::Given(given) })
    }

    /// The same, if it can be for a task with such inputs.
    pub(crate) fn checked(self, context: &InvocationContext) -> Result<Chunking> {
        let Chunking { keys, chunks, by } = &self.0;
        let fail = |message: String| Err(Error::new(ErrorKind::Usage, message));
        if let ChunkBy::Given(Given::PerInput(inputs)) = by {
            let Some((first, predicates)) = inputs.first() else {
                return fail("no input is given predicates; give them to one at least".into());
            };
            for (at, (input, others)) in inputs.iter().enumerate() {
                if !context.inputs.contains_key(input) {
                    let known: Vec<_> = context.inputs().collect();
                    return fail(format!("the task reads no source or task `{input}`; it reads {}", known.join(", ")));
                }
                if inputs[..at].iter().any(|(other, _)| other == input) {
                    return fail(format!("input `{input}` is given predicates twice; remove one of them"));
                }
                if others.len() != predicates.len() {
                    return fail(format!(
                        "input `{first}` is given {} predicates and input `{input}` {}; give each one for every chunk",
                        predicates.len(),
                        others.len()
                    ));
                }
            }
        }
        if !(1..=MAX_CHUNKS).contains(chunks) {
            return fail(format!("can't cut into {chunks} chunks; use 1 to {MAX_CHUNKS}"));
        }
        if keys.is_empty() && matches!(by, ChunkBy::Given(_)) {
            return fail("predicates are over keys; name them".into());
        }
        if let Some(at) = (1..keys.len()).find(|at| keys[..*at].contains(&keys[*at])) {
            return fail(format!("key `{}` stands twice; remove one of them", keys[at]));
        }
        Ok(self.0)
    }
}

/// What reports and EXPLAIN name as the key of a task whose inputs have predicates of their own.
const PREDICATES: &str = "predicates";

type RunPass = dyn Fn(Vec<u32>) -> BoxFuture<'static, Vec<u32>> + Send + Sync;
type RunChunk = dyn Fn(u32) -> BoxFuture<'static, Result<()>> + Send + Sync;

/// The chunks of a step that have to run.
pub struct Chunks {
    pending: Vec<u32>,
    total: u32,
    run: Arc<RunChunk>,
    /// Those that may be run at once.
    passes: Vec<Vec<u32>>,
    run_pass: Option<Arc<RunPass>>,
    done: Arc<Mutex<Vec<u32>>>,
}

impl Chunks {
    /// Of `total` chunks those `pending`, which `run` runs.
    pub(crate) fn new(pending: Vec<u32>, total: u32, run: Arc<RunChunk>) -> Self {
        Self { pending, total, run, passes: Vec::new(), run_pass: None, done: Arc::default() }
    }

    /// The same, of which some may be run at once by `run_pass`, which returns those that it has run.
    pub(crate) fn with_passes(self, passes: Vec<Vec<u32>>, run_pass: Arc<RunPass>) -> Self {
        Self { passes, run_pass: Some(run_pass), ..self }
    }

    /// Those that have to run, from 0, the ones that read most first.
    pub fn pending(&self) -> &[u32] {
        &self.pending
    }

    /// Number of chunks of the step, with those in the cache.
    pub fn total(&self) -> u32 {
        self.total
    }

    /// Runs one chunk when a job is free; one that ran is not run again. Futures of several chunks may be awaited side by side.
    ///
    /// # Errors
    /// [`ErrorKind::Usage`] when it is none of those pending, and what the chunk fails with.
    pub async fn run(&self, chunk: u32) -> Result<()> {
        if !self.pending.contains(&chunk) {
            let message = format!("chunk {chunk} is none of those that have to run: {:?}", self.pending);
            return Err(Error::new(ErrorKind::Usage, message));
        }
        if self.is_done(chunk) {
            return Ok(());
        }
        // On a thread of its own, whoever awaits it.
        let mut running = JoinSet::new();
        running.spawn((self.run)(chunk));
        self.join(&mut running).await?;
        self.done.lock().unwrap_or_else(PoisonError::into_inner).push(chunk);
        Ok(())
    }

    /// Runs all that did not run yet, side by side, or several at once where that costs less.
    ///
    /// # Errors
    /// What the first chunk that fails fails with; others are stopped.
    pub async fn run_all(&self) -> Result<()> {
        if let Some(run_pass) = &self.run_pass {
            let mut running = JoinSet::new();
            for pass in &self.passes {
                let pass: Vec<u32> = pass.iter().copied().filter(|chunk| !self.is_done(*chunk)).collect();
                let (run, done) = (run_pass(pass), Arc::clone(&self.done));
                running.spawn(async move {
                    let ran = run.await;
                    done.lock().unwrap_or_else(PoisonError::into_inner).extend(ran);
                    Ok(())
                });
            }
            self.join(&mut running).await?;
        }
        let mut running = JoinSet::new();
        for chunk in self.pending.iter().copied().filter(|chunk| !self.is_done(*chunk)) {
            let (run, done) = ((self.run)(chunk), Arc::clone(&self.done));
            running.spawn(async move {
                run.await?;
                done.lock().unwrap_or_else(PoisonError::into_inner).push(chunk);
                Ok(())
            });
        }
        self.join(&mut running).await
    }

    async fn join(&self, running: &mut JoinSet<Result<()>>) -> Result<()> {
        while let Some(finished) = running.join_next().await {
            finished.map_err(|e| Error::new(ErrorKind::Execute, "a chunk panicked").with_source(e))??;
        }
        Ok(())
    }

    fn is_done(&self, chunk: u32) -> bool {
        self.done.lock().unwrap_or_else(PoisonError::into_inner).contains(&chunk)
    }

    /// Those that the hook did not run.
    pub(crate) fn left(&self) -> Vec<u32> {
        self.pending.iter().copied().filter(|chunk| !self.is_done(*chunk)).collect()
    }
}

impl fmt::Debug for Chunks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Chunks").field("pending", &self.pending).field("total", &self.total).finish_non_exhaustive()
    }
}

/// Runs a task whole, as one chunk.
#[derive(Debug, Clone, Copy, Default)]
pub struct Whole;

#[async_trait]
impl InvocationHook for Whole {
    async fn cut(&self, _context: &InvocationContext) -> Result<Cut> {
        Ok(Cut::whole())
    }
}

/// Chunks by the hash of the keys: the same as `CLUSTERED BY (keys) INTO chunks BUCKETS`.
#[derive(Debug, Clone)]
pub struct Batched {
    keys: Vec<String>,
    chunks: u32,
}

impl Batched {
    /// By these columns of the query's inputs or output; 16 chunks.
    pub fn by(keys: impl IntoIterator<Item = impl Into<String>>) -> Self {
        Self { keys: keys.into_iter().map(Into::into).collect(), chunks: DEFAULT_CHUNKS }
    }

    /// By the key that the engine finds; about 16 chunks, more where memory asks for it.
    pub fn auto() -> Self {
        Self { keys: Vec::new(), chunks: DEFAULT_CHUNKS }
    }

    /// Into so many chunks, 1 to 4,096.
    pub fn chunks(mut self, chunks: u32) -> Self {
        self.chunks = chunks;
        self
    }
}

#[async_trait]
impl InvocationHook for Batched {
    async fn cut(&self, _context: &InvocationContext) -> Result<Cut> {
        Ok(match self.keys.as_slice() {
            [] => Cut::auto(self.chunks),
            keys => Cut::hash(keys, self.chunks),
        })
    }
}

/// Chunks by ranges of a key.
#[derive(Debug, Clone)]
pub struct ByRange {
    key: String,
    bounds: Option<Vec<ScalarValue>>,
    chunks: u32,
}

impl ByRange {
    /// About 16 ranges of a column, with bounds from Parquet statistics: see [`Cut::clustered`].
    pub fn on(key: impl Into<String>) -> Self {
        Self { key: key.into(), bounds: None, chunks: DEFAULT_CHUNKS }
    }

    /// About so many ranges, 1 to 4,096, where no bounds are given.
    pub fn chunks(mut self, chunks: u32) -> Self {
        self.chunks = chunks;
        self
    }

    /// Ranges that begin at these values: see [`Cut::ranges`].
    pub fn bounds(mut self, bounds: impl IntoIterator<Item = impl Into<ScalarValue>>) -> Self {
        self.bounds = Some(bounds.into_iter().map(Into::into).collect());
        self
    }
}

#[async_trait]
impl InvocationHook for ByRange {
    async fn cut(&self, _context: &InvocationContext) -> Result<Cut> {
        Ok(match &self.bounds {
            Some(bounds) => Cut::ranges(&self.key, bounds.clone()),
            None => Cut::clustered(&self.key, self.chunks),
        })
    }
}

/// A chunk for each value, or group of values, of a key.
#[derive(Debug, Clone)]
pub struct ByValue {
    key: String,
    values: Values,
}

#[derive(Debug, Clone)]
enum Values {
    Groups(Vec<Vec<ScalarValue>>),
    Of(String),
}

impl ByValue {
    /// A chunk for each of these groups, and one for all other values: see [`Cut::values`].
    pub fn groups(key: impl Into<String>, groups: impl IntoIterator<Item = Vec<ScalarValue>>) -> Self {
        Self { key: key.into(), values: Values::Groups(groups.into_iter().collect()) }
    }

    /// A chunk for each of these values, and one for all others.
    pub fn values(key: impl Into<String>, values: impl IntoIterator<Item = impl Into<ScalarValue>>) -> Self {
        Self::groups(key, values.into_iter().map(|value| vec![value.into()]))
    }

    /// A chunk for each value that the key, a column of the source `table`, has there when the task is planned.
    ///
    /// Chunks are numbered in the order of the values, so that a new one runs those after it again.
    pub fn each_of(table: impl Into<String>, key: impl Into<String>) -> Self {
        Self { key: key.into(), values: Values::Of(table.into()) }
    }
}

#[async_trait]
impl InvocationHook for ByValue {
    async fn cut(&self, context: &InvocationContext) -> Result<Cut> {
        let table = match &self.values {
            Values::Groups(groups) => return Ok(Cut::values(&self.key, groups.clone())),
            Values::Of(table) => table,
        };
        let column = Expr::Column(datafusion::common::Column::new_unqualified(&self.key));
        let failed = |e| {
            let message = format!("the values of `{}` in `{table}` can't be found", self.key);
            Error::new(ErrorKind::Source, message).with_source(e)
        };
        let values = || async {
            let present = context.source(table)?.filter(column.clone().is_not_null()).map_err(failed)?;
            let distinct = present.select(vec![column.clone()]).and_then(DataFrame::distinct).map_err(failed)?;
            // One too many is seen to be too many.
            let sorted = distinct.sort(vec![column.clone().sort(true, true)]).map_err(failed)?;
            let sorted = sorted.limit(0, Some(MAX_CHUNKS as usize)).map_err(failed)?;
            sorted.collect().await.map_err(failed)
        };
        let mut groups = Vec::new();
        for batch in values().await? {
            for row in 0..batch.num_rows() {
                groups.push(vec![ScalarValue::try_from_array(batch.column(0), row).map_err(failed)?]);
            }
        }
        Ok(Cut::values(&self.key, groups))
    }
}

/// A chunk for each of some predicates, over keys or over the columns of each input.
///
/// ```
/// # use chunkwise::ByExpr;
/// # use datafusion::prelude::{col, lit};
/// // Two chunks of predicates over a key, and chunk 0 for all other rows and NULL: right whatever the data is.
/// let over_keys = ByExpr::new(["day"], [col("day").lt(lit("2026-01-01")), col("day").lt(lit("2026-07-01"))]);
/// // Two chunks, each of some rows of both inputs: the data must be so that one predicate holds for each row.
/// let per_input = ByExpr::per_input([
///     ("orders", vec![col("amount").lt(lit(100)), col("amount").gt_eq(lit(100))]),
///     ("refunds", vec![col("is_open"), !col("is_open")]),
/// ]);
/// ```
#[derive(Debug, Clone)]
pub struct ByExpr(Cut);

impl ByExpr {
    /// Predicates over these columns, which they name as bare columns: see [`Cut::predicates`].
    pub fn new(keys: impl IntoIterator<Item = impl Into<String>>, predicates: impl IntoIterator<Item = Expr>) -> Self {
        Self(Cut::predicates(keys, predicates))
    }

    /// Predicates of each of these inputs over its own columns, one for every chunk: see [`Cut::input_predicates`].
    pub fn per_input(inputs: impl IntoIterator<Item = (impl Into<String>, Vec<Expr>)>) -> Self {
        Self(Cut::input_predicates(inputs))
    }
}

#[async_trait]
impl InvocationHook for ByExpr {
    async fn cut(&self, _context: &InvocationContext) -> Result<Cut> {
        Ok(self.0.clone())
    }
}
