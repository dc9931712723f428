//! The engine: what a program or the command line works with.

mod handle;
mod published;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use datafusion::catalog::TableProvider;
use datafusion::common::DataFusionError;
use datafusion::execution::SessionState;
use datafusion::execution::memory_pool::MemoryPool;
use datafusion::logical_expr::LogicalPlanBuilder;
use datafusion::prelude::DataFrame;

use tokio::runtime::{Builder, Handle, Runtime};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use crate::cache::collect::{CollectOptions, Collected, InUse, pin, unpin};
use crate::cache::publish::{self, PublishedSummary};
use crate::cache::{Cache, Verification};
use crate::config::Settings;
use crate::engine::handle::{cancelled, channel};
use crate::engine::published::PublishedTables;
use crate::error::{Error, ErrorKind, Location, Result};
use crate::event::{Event, EventSink};
use crate::execute::budget::Budget;
use crate::execute::checksum::Verified;
use crate::execute::session::{exact, memory_pool, runtime, runtime_with, session};
use crate::pipeline::Pipeline;
use crate::plan::explain::explain;
use crate::plan::prove::rule::Rules;
use crate::plan::query::plan_query;
use crate::plan::resolve::names::sql_error;
use crate::plan::rewrite::{Piece, Provided, rewrite};
use crate::plan::steps::Step;
use crate::run::chunk::unix_ns;
use crate::run::planned::{PlannedTask, plan};
use crate::run::report::RunReport;
use crate::run::{Context, RunOptions, run};
use crate::sql::{Explained, Question, SQL, question};
use crate::table::output::{of_version, published};
use crate::task::Task;

pub use handle::{Run, RunEvents};

/// Most chunks at a time.
const MAX_JOBS: usize = 1024;

/// How deep queries recurse; threads have no more than 2 MiB otherwise.
const STACK_BYTES: usize = 16 << 20;

/// How often a caller that waits for runs to end looks.
const PAUSE: Duration = Duration::from_millis(2);

/// Runs pipelines over one cache folder. Several engines may use one folder, in one process or many, and several runs one
/// engine: they share its jobs and its memory.
///
/// Runs have threads of their own: the caller's runtime is never blocked.
#[derive(Debug)]
pub struct Engine {
    settings: Settings,
    events: EventSink,
    rules: Rules,
    /// Whether each chunk reads an input's files in another order, as any scan may; for tests.
    rotates_scans: bool,
    /// Whether plans have several partitions however little they read; for tests.
    always_partitions: bool,
    /// Opened by the first run: reading needs no writable folder.
    cache: Mutex<Option<Arc<Cache>>>,
    /// Threads of all runs, from the first one on.
    threads: Mutex<Option<Runtime>>,
    /// One for each chunk that may run.
    permits: Arc<Semaphore>,
    /// What operators of all runs reserve.
    pool: Arc<dyn MemoryPool>,
    /// Runs that are not gone yet.
    in_use: Mutex<Vec<Weak<InUse>>>,
    /// Files of the cache that were compared with their checksums.
    verified: Arc<Verified>,
}

/// Sets up an [`Engine`].
#[derive(Debug, Default)]
pub struct EngineBuilder {
    settings: Settings,
    events: EventSink,
    rules: Rules,
    rotates_scans: bool,
    always_partitions: bool,
}

impl EngineBuilder {
    /// Folder of the cache and the published tables; created by the first run. Default: `.chunkwise`.
    pub fn cache_folder(mut self, folder: impl Into<PathBuf>) -> Self {
        self.settings.cache_folder = folder.into();
        self
    }

    /// Chunks that run at a time, 1 to 1,024; while fewer are left to run, one shares its plan among the threads that
    /// are free. Default: the number of processors.
    pub fn jobs(mut self, jobs: usize) -> Self {
        self.settings.jobs = jobs;
        self
    }

    /// Bytes that the process may have, as resident memory: chunks are cut and run, and operators spill into the cache
    /// folder, so that it keeps to them about. Default: half of what the control group or the machine has, or no limit
    /// where that is not known.
    pub fn memory_limit_bytes(mut self, bytes: usize) -> Self {
        self.settings.memory_limit_bytes = Some(bytes);
        self
    }

    /// Bytes that the cache may have: after each run what no published or pinned table is made of goes, what was used least
    /// recently first, until it keeps to them. Default: no limit.
    pub fn cache_limit_bytes(mut self, bytes: u64) -> Self {
        self.settings.cache_limit_bytes = Some(bytes);
        self
    }

    /// Calls `listener` with each event of each run, from many threads. Default: nobody is called.
    pub fn on_event(mut self, listener: impl Fn(Event) + Send + Sync + 'static) -> Self {
        self.events = EventSink::new(listener);
        self
    }

    /// Switches one rule of the prover off: wrong rows are to be expected.
    #[cfg(feature = "testing")]
    #[doc(hidden)]
    pub fn without_rule(mut self, rule: crate::plan::prove::rule::Rule) -> Self {
        self.rules = self.rules.without(rule);
        self
    }

    /// Lets each chunk run for itself, and cuts, and takes out of queries, also what is too little for that.
    #[cfg(feature = "testing")]
    #[doc(hidden)]
    pub fn one_by_one(mut self) -> Self {
        self.rules = self.rules.one_by_one();
        self
    }

    /// As [`EngineBuilder::one_by_one`], and each chunk reads the files of an input in another order.
    #[cfg(feature = "testing")]
    #[doc(hidden)]
    pub fn rotate_scans(self) -> Self {
        Self { rotates_scans: true, ..self }.one_by_one()
    }

    /// Gives plans several partitions however little they read.
    #[cfg(feature = "testing")]
    #[doc(hidden)]
    pub fn always_partition(mut self) -> Self {
        self.always_partitions = true;
        self
    }

    /// The engine.
    ///
    /// # Errors
    /// [`ErrorKind::Usage`] when `jobs` is not from 1 to 1,024, or the memory limit is 0.
    pub fn build(self) -> Result<Engine> {
        let jobs = self.settings.jobs;
        if !(1..=MAX_JOBS).contains(&jobs) {
            return Err(Error::new(ErrorKind::Usage, format!("jobs is {jobs}; use 1 to {MAX_JOBS}")));
        }
        if self.settings.memory_limit_bytes == Some(0) {
            return Err(Error::new(ErrorKind::Usage, "the memory limit is 0 bytes; it must be at least 1"));
        }
        let Self { settings, events, rules, rotates_scans, always_partitions } = self;
        let budget = Budget { limit_bytes: settings.memory_limit_bytes, jobs };
        Ok(Engine {
            settings,
            events,
            threads: Mutex::new(None),
            permits: Arc::new(Semaphore::new(jobs)),
            pool: memory_pool(budget.pool_bytes()),
            in_use: Mutex::default(),
            rules,
            rotates_scans,
            always_partitions,
            cache: Mutex::new(None),
            verified: Arc::default(),
        })
    }
}

impl Engine {
    /// Starts with the defaults.
    pub fn builder() -> EngineBuilder {
        EngineBuilder::default()
    }

    /// What it was told.
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// Runs the tasks of `pipeline` that `options` select, and publishes their tables, those of a stage together.
    ///
    /// Chunks that are in the cache don't run. A task that fails stops only what depends on it, and the publication of its stage;
    /// see the report.
    /// Dropping the future stops the run: committed chunks stay, and no table is half published.
    ///
    /// # Errors
    /// [`ErrorKind::Sql`] when a query is invalid and [`ErrorKind::Usage`] when a selected task is not there: nothing
    /// was run then. [`ErrorKind::Storage`] when the cache folder can't be used.
    pub async fn run(&self, pipeline: &Pipeline, options: &RunOptions) -> Result<RunReport> {
        self.start(pipeline, options)?.await
    }

    /// As [`Engine::run`], at once: the run goes on while nobody awaits it, gives its events as a stream, and can be stopped from
    /// elsewhere.
    ///
    /// # Errors
    /// [`ErrorKind::Storage`] when the cache folder can't be used; others come with the report.
    pub fn start(&self, pipeline: &Pipeline, options: &RunOptions) -> Result<Run> {
        let cache = self.open_cache()?;
        let in_use = Arc::new(InUse::new(cache.folder(), &self.events)?);
        let mut of_runs = self.in_use.lock().unwrap_or_else(PoisonError::into_inner);
        of_runs.retain(|run| run.strong_count() > 0);
        of_runs.push(Arc::downgrade(&in_use));
        drop(of_runs);
        let budget = self.budget();
        let runtime = runtime_with(Arc::clone(&self.pool), Some(cache.temp_folder()))?;
        let state = Arc::new(session(runtime, Some(budget)));
        let (sender, receiver) = channel();
        let events = self.events.clone().and(move |event| {
            // Nobody may want them.
            let _ = sender.send(event);
        });
        let context = Context {
            cache,
            state,
            budget,
            permits: Arc::clone(&self.permits),
            splits: Arc::default(),
            events,
            rules: self.rules,
            rotates_scans: self.rotates_scans,
            always_partitions: self.always_partitions,
            start_unix_ns: unix_ns(),
            in_use,
        };
        let limit = self.settings.cache_limit_bytes.filter(|_| !options.dry_run);
        let (pipeline, options) = (pipeline.clone(), options.clone());
        let token = CancellationToken::new();
        let stopped = token.clone();
        let running = self.threads()?.spawn(async move {
            let report = tokio::select! {
                report = run(&context, &pipeline, &options) => report,
                () = stopped.cancelled() => Err(cancelled()),
            };
            let Context { cache, events, in_use, .. } = context;
            drop(in_use);
            if let Some(limit) = limit.filter(|_| report.is_ok()) {
                keep_to(limit, &cache, &events);
            }
            report
        });
        Ok(Run::new(running, receiver, token))
    }

    /// Waits until no run is under way, and nothing is left of those that were dropped or stopped: what they had begun to commit is
    /// committed then, and their temporary files are gone.
    pub async fn idle(&self) {
        let is_busy = || {
            let of_runs = self.in_use.lock().unwrap_or_else(PoisonError::into_inner);
            of_runs.iter().any(|run| run.strong_count() > 0)
        };
        while is_busy() {
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// The threads that runs go on.
    fn threads(&self) -> Result<Handle> {
        let mut threads = self.threads.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(threads) = threads.as_ref() {
            return Ok(threads.handle().clone());
        }
        let started = Builder::new_multi_thread()
            .worker_threads(self.settings.jobs.max(2))
            .thread_name("chunkwise")
            .thread_stack_size(STACK_BYTES)
            .enable_all()
            .build()
            .map_err(|e| Error::new(ErrorKind::Execute, "can't start threads").with_source(e))?;
        Ok(threads.insert(started).handle().clone())
    }

    /// Chunks at a time.
    pub fn jobs(&self) -> usize {
        self.settings.jobs
    }

    /// Bytes that the process may have; no limit when `None`.
    pub fn memory_limit_bytes(&self) -> Option<usize> {
        self.settings.memory_limit_bytes
    }

    /// Most bytes that operators have reserved at once.
    #[cfg(feature = "testing")]
    #[doc(hidden)]
    pub fn pool_peak_bytes(&self) -> Option<u64> {
        use datafusion::execution::memory_pool::PeakRecordingPool;
        Some(PeakRecordingPool::from_pool(self.pool.as_ref())?.peak_reserved() as u64)
    }

    /// Bytes that operators have reserved.
    #[cfg(feature = "testing")]
    #[doc(hidden)]
    pub fn pool_bytes(&self) -> u64 {
        self.pool.reserved() as u64
    }

    /// Says how each task, or only `task`, or each of the stage of this name, would be cut, with the plan of its first chunk;
    /// nothing is run.
    ///
    /// The texts come in an order in which every task follows those it reads. A refusal is such a text's `Err`.
    ///
    /// # Errors
    /// As [`Engine::run`].
    pub async fn explain(&self, pipeline: &Pipeline, task: Option<&str>) -> Result<Vec<Result<String>>> {
        let pipeline = match task {
            Some(task) => pipeline.select(&[task.to_string()])?,
            None => pipeline.clone(),
        };
        // What hooks compute of sources keeps to the same memory.
        let state = session(runtime_with(Arc::clone(&self.pool), None)?, None);
        let mut plans = plan(&pipeline, &state, self.rules, self.budget(), &|_| Vec::new(), &self.events).await;
        let mut texts = Vec::new();
        let asked = |name: &str| task.is_none_or(|task| pipeline.targets(task).contains(&name));
        for Task { name, stage, .. } in pipeline.tasks().filter(|task| asked(&task.name)) {
            let together = stage.as_ref().map_or_else(Vec::new, |stage| pipeline.stage(stage));
            let text = match plans.tasks.remove(name) {
                Some(planned) => planned.and_then(|planned| explain_task(&planned, &together, &state)),
                None => Err(Error::new(ErrorKind::Source, "an input of it can't be planned").with_task(name)),
            };
            texts.push(text);
        }
        Ok(texts)
    }

    /// The published table `name` as it is now; later runs don't change what it reads.
    ///
    /// # Errors
    /// [`ErrorKind::Usage`] when it is not published, [`ErrorKind::Storage`] when it can't be read.
    pub async fn table(&self, name: &str) -> Result<Arc<dyn TableProvider>> {
        let state = session(runtime(None, None)?, None);
        Ok(Arc::new(published(&self.settings.cache_folder, name, None, &state, &self.verified).await?))
    }

    /// Chunk `chunk`, from 0, of the published table `name`.
    ///
    /// # Errors
    /// As [`Engine::table`], and [`ErrorKind::Usage`] when there is no such chunk.
    pub async fn table_chunk(&self, name: &str, chunk: u32) -> Result<Arc<dyn TableProvider>> {
        let state = session(runtime(None, None)?, None);
        Ok(Arc::new(published(&self.settings.cache_folder, name, Some(chunk), &state, &self.verified).await?))
    }

    /// A query over the published tables, on all processors and not cut. Of a stage it sees all tables as one publication left
    /// them.
    ///
    /// # Errors
    /// [`ErrorKind::Sql`] when the query is invalid or reads a table that is not published, [`ErrorKind::Storage`] when
    /// a table can't be read.
    pub async fn query(&self, sql: &str) -> Result<DataFrame> {
        let Question { query, explained, reads } = question(sql)?;
        let runtime = runtime(self.budget().pool_bytes(), None)?;
        let mut state = session(runtime, None);
        state.config_mut().options_mut().execution.target_partitions = self.settings.jobs;
        let mut tables: BTreeMap<String, Arc<dyn TableProvider>> = BTreeMap::new();
        for (name, version) in publish::snapshot(&self.settings.cache_folder)? {
            if reads.iter().any(|read| read.name == name) {
                let folder = &self.settings.cache_folder;
                let table = of_version(folder, &name, version, None, &state, &self.verified).await?;
                tables.insert(name, Arc::new(table));
            }
        }
        // On a thread whose stack is known.
        let cache = self.settings.cache_folder.clone();
        let planned = self.threads()?.spawn_blocking(move || -> datafusion::common::Result<_> {
            let tables = PublishedTables { state, cache, tables };
            let mut plan = plan_query(&query, &tables)?;
            if let Some(Explained { analyze, verbose }) = explained {
                plan = LogicalPlanBuilder::from(plan).explain(verbose, analyze)?.build()?;
            }
            Ok((exact(&tables.state, &plan)?, plan))
        });
        let planned =
            planned.await.map_err(|e| Error::new(ErrorKind::Execute, "the query can't be planned").with_source(e))?;
        let (state, plan) = planned.map_err(|e| sql_error(e, &Location::new(SQL, 1, 1)))?;
        Ok(DataFrame::new(state, plan))
    }

    /// Reads all chunk files and published tables of the cache and compares them with their checksums. Damaged files
    /// are set aside, so that the next run computes their chunks again.
    ///
    /// # Errors
    /// [`ErrorKind::Storage`] when the cache folder can't be read or written.
    pub fn verify_cache(&self) -> Result<Verification> {
        self.open_cache()?.verify()
    }

    /// Makes the cache's index again from the footers of its files; returns a warning for each file that is none of it.
    ///
    /// # Errors
    /// [`ErrorKind::Storage`] when the cache folder can't be read or written.
    pub fn rebuild_cache(&self) -> Result<Vec<String>> {
        self.open_cache()?.rebuild()
    }

    /// Removes chunks, splits and versions that no published or pinned table is made of, as `options` say.
    ///
    /// # Errors
    /// [`ErrorKind::Storage`] when a run uses the cache, or a file can't be removed.
    pub fn collect(&self, options: &CollectOptions) -> Result<Collected> {
        // Removes what dead processes left, too.
        let cache = self.open_cache()?;
        let in_use = || Error::new(ErrorKind::Storage, "a run uses the cache; try again when it is done");
        cache.collect(options)?.ok_or_else(in_use)
    }

    /// Takes `table` from readers, also from its stage. What it is made of stays until nobody has used it for long
    /// enough for
    /// [`Engine::collect`], so that a run that publishes it again finds its chunks.
    ///
    /// # Errors
    /// [`ErrorKind::Usage`] when the table is not published.
    pub fn unpublish(&self, table: &str) -> Result<()> {
        let folder = &self.settings.cache_folder;
        if publish::link(folder, table)?.is_none() {
            return Err(publish::not_published(folder, table)?);
        }
        self.open_cache()?.unpublish(table, &self.events)
    }

    /// Keeps the published version of `table` until it is unpinned, also when another is published.
    ///
    /// # Errors
    /// [`ErrorKind::Usage`] when the table is not published.
    pub fn pin(&self, table: &str) -> Result<()> {
        pin(&self.settings.cache_folder, table)
    }

    /// Takes the pins from all versions of `table`; returns how many there were.
    ///
    /// # Errors
    /// [`ErrorKind::Storage`] when one can't be removed.
    pub fn unpin(&self, table: &str) -> Result<u64> {
        unpin(&self.settings.cache_folder, table)
    }

    /// The published tables, by name.
    ///
    /// # Errors
    /// [`ErrorKind::Storage`] when the cache folder or one of them can't be read.
    pub fn published_tables(&self) -> Result<Vec<PublishedSummary>> {
        self.each_published_table()?.into_values().collect()
    }

    /// What [`Engine::published_tables`] gives, or why not, of each by itself.
    pub(crate) fn each_published_table(&self) -> Result<BTreeMap<String, Result<PublishedSummary>>> {
        let folder = &self.settings.cache_folder;
        let summary = |(table, version): (String, String)| {
            let summary = publish::summary(folder, &table, version);
            (table, summary)
        };
        Ok(publish::snapshot(folder)?.into_iter().map(summary).collect())
    }

    fn budget(&self) -> Budget {
        Budget { limit_bytes: self.settings.memory_limit_bytes, jobs: self.settings.jobs }
    }

    fn open_cache(&self) -> Result<Arc<Cache>> {
        let mut opened = self.cache.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(cache) = opened.as_ref() {
            return Ok(Arc::clone(cache));
        }
        let (cache, warnings) = Cache::open(&self.settings.cache_folder, Arc::clone(&self.verified))?;
        for message in warnings {
            self.events.send(Event::Warning { message });
        }
        Ok(Arc::clone(opened.insert(Arc::new(cache))))
    }
}

/// Removes what was used least recently until the cache has no more than `limit` bytes. Where another run goes on, that
/// one will.
fn keep_to(limit: u64, cache: &Cache, events: &EventSink) {
    match cache.collect(&CollectOptions { older_than: None, limit_bytes: Some(limit) }) {
        Ok(None) => {}
        Ok(Some(Collected { removed, removed_bytes, left_bytes })) => {
            if removed > 0 {
                events.send(Event::Evicted { removed, bytes: removed_bytes });
            }
            if left_bytes > limit {
                let message = format!(
                    "the cache has {left_bytes} bytes, more than its limit of {limit}: published and pinned tables, and what \
                     another version took the place of within the last hour, take them"
                );
                events.send(Event::Warning { message });
            }
        }
        Err(error) => {
            events.send(Event::Warning { message: format!("the cache can't be kept to its limit: {error}") });
        }
    }
}

impl Drop for Engine {
    /// Runs that are under way stop; blocks of one may still hold the cache for a moment.
    fn drop(&mut self) {
        if let Some(threads) = self.threads.lock().unwrap_or_else(PoisonError::into_inner).take() {
            threads.shutdown_background();
        }
        if let Some(cache) = self.cache.lock().unwrap_or_else(PoisonError::into_inner).take() {
            cache.close();
        }
    }
}

fn explain_task(planned: &PlannedTask, together: &[&str], state: &SessionState) -> Result<String> {
    let explain = |step| explain_step(&planned.task, together, step, state);
    Ok(planned.steps.iter().map(explain).collect::<Result<Vec<_>>>()?.concat())
}

fn explain_step(task: &Task, together: &[&str], step: &Step, state: &SessionState) -> Result<String> {
    let scans = &step.resolved.scans;
    let provide = |number: usize| -> datafusion::common::Result<Provided> {
        let scan = scans.get(number);
        let scan = scan.ok_or_else(|| DataFusionError::Internal(format!("scan {number} is not in the plan")))?;
        let table = Arc::new(datafusion::datasource::empty::EmptyTable::new(Arc::clone(&scan.schema)));
        let slice = step.slice(number, step.proof.chunks(), task.read_by);
        Ok(Provided { table, is_exact: slice.is_some_and(|slice| slice.is_exact(0)) })
    };
    let failed = |e: DataFusionError| {
        Error::new(ErrorKind::Sql, "the chunk can't be planned").with_source(e).with_task(&task.name)
    };
    let plan =
        rewrite(&step.proof, Piece::whole(0), &provide).and_then(|plan| state.optimize(&plan)).map_err(failed)?;
    Ok(explain(task, together, step, &plan))
}
