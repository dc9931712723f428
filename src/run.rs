//! Running a pipeline: plan every task, run the chunks that the cache hasn't, publish.
//!
//! Tasks run as soon as what they read is done; at most `jobs` chunks run at a time in all. A task that fails stops
//! only what depends on it. Dropping the future stops everything: unfinished files go, committed chunks stay.

pub mod report;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use arrow::datatypes::SchemaRef;
use datafusion::catalog::TableProvider;
use datafusion::execution::SessionState;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use crate::cache::Cache;
use crate::cache::store::ChunkEntry;
use crate::error::{Error, ErrorKind, Result};
use crate::event::{Event, EventSink};
use crate::execute::write::{is_out_of_memory, write};
use crate::pipeline::Pipeline;
use crate::plan::fingerprint::{Components, Fingerprint};
use crate::plan::prove::{Proof, Role, prove};
use crate::plan::resolve::{Resolved, resolve};
use crate::plan::rewrite::rewrite;
use crate::run::report::{InputMode, InputReport, RunReport, Status, TaskReport, peak_rss_bytes};
use crate::schedule::Schedule;
use crate::table::output::of_chunks;
use crate::table::source::Snapshot;
use crate::task::Task;

/// What to run, and how much of the cache to believe.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RunOptions {
    /// Tasks to run, with all that they need; empty runs all.
    pub tasks: Vec<String>,
    /// Runs every chunk again, whatever the cache has.
    pub force: bool,
}

/// What a run works with.
#[derive(Debug, Clone)]
pub struct Context {
    /// The cache.
    pub cache: Arc<Cache>,
    /// The session of this run.
    pub state: Arc<SessionState>,
    /// Most chunks at a time.
    pub jobs: usize,
    /// Where events go.
    pub events: EventSink,
}

/// A task that was planned: ready to run once its inputs are.
#[derive(Debug)]
pub struct PlannedTask {
    /// The task.
    pub task: Task,
    /// Its query over numbered scans.
    pub resolved: Resolved,
    /// How it is cut.
    pub proof: Proof,
}

/// All tasks of a pipeline, planned or failed, and the sources they read.
#[derive(Debug)]
pub struct Plans {
    /// By task name.
    pub tasks: BTreeMap<String, Result<Arc<PlannedTask>>>,
    /// By source name; those that could be read.
    pub sources: BTreeMap<String, Arc<Snapshot>>,
}

/// Lists the sources that the tasks of `pipeline` read and plans every task, without running anything.
///
/// A task that is refused, or that a broken source is in the way of, is an `Err` in the result. One whose input
/// could not be planned is not in it.
///
/// # Errors
/// [`ErrorKind::Sql`] when a query is invalid.
pub async fn plan(pipeline: &Pipeline, state: &SessionState) -> Result<Plans> {
    let mut schemas: BTreeMap<String, SchemaRef> = BTreeMap::new();
    let mut sources = BTreeMap::new();
    let mut broken: BTreeMap<String, String> = BTreeMap::new();
    let read: BTreeSet<String> = pipeline.tasks().flat_map(|task| pipeline.inputs(task)).collect();
    for source in read.iter().filter_map(|name| pipeline.source(name)) {
        match Snapshot::take(source, state).await {
            Ok(snapshot) => {
                schemas.insert(source.name.clone(), snapshot.table().schema());
                sources.insert(source.name.clone(), Arc::new(snapshot));
            }
            Err(error) => drop(broken.insert(source.name.clone(), error.to_string())),
        }
    }
    let mut tasks = BTreeMap::new();
    for task in pipeline.tasks() {
        let inputs = pipeline.inputs(task);
        if let Some(error) = inputs.iter().find_map(|name| broken.get(name)) {
            tasks.insert(task.name.clone(), Err(Error::new(ErrorKind::Source, error).with_task(&task.name)));
            continue;
        }
        if !inputs.iter().all(|name| schemas.contains_key(name)) {
            continue;
        }
        let resolved = resolve(task, pipeline, &schemas, state)?;
        schemas.insert(task.name.clone(), Arc::clone(&resolved.schema));
        let proof = match &task.chunking {
            Some(chunking) => prove(task, &resolved, chunking),
            None => Ok(Proof::whole(&resolved)),
        };
        let planned = match proof {
            Ok(proof) => Ok(Arc::new(PlannedTask { task: task.clone(), resolved, proof })),
            Err(error) if error.kind() == ErrorKind::Sql => return Err(error),
            Err(refused) => Err(refused),
        };
        tasks.insert(task.name.clone(), planned);
    }
    Ok(Plans { tasks, sources })
}

/// Runs `pipeline`.
///
/// # Errors
/// Only what stops everything before a chunk runs: invalid SQL, an unknown task in `options`. A task's failure is in
/// the report.
pub async fn run(context: &Context, pipeline: &Pipeline, options: &RunOptions) -> Result<RunReport> {
    let start = Instant::now();
    let selected = if options.tasks.is_empty() { pipeline.clone() } else { pipeline.select(&options.tasks)? };
    let mut plans = plan(&selected, &context.state).await?;
    let sources = std::mem::take(&mut plans.sources);
    let permits = Arc::new(Semaphore::new(context.jobs));
    let mut schedule = Schedule::new(&selected);
    let mut reports: BTreeMap<String, TaskReport> = BTreeMap::new();
    let mut outputs: BTreeMap<String, Arc<Output>> = BTreeMap::new();
    let mut running = JoinSet::new();
    loop {
        for name in schedule.take_ready() {
            let planned = match plans.tasks.remove(&name) {
                Some(Ok(planned)) => planned,
                Some(Err(error)) => {
                    fail(&mut schedule, &mut reports, TaskReport::new(&name, Status::Failed), &error, &context.events);
                    continue;
                }
                // Its input failed to be planned, so it was skipped already.
                None => continue,
            };
            let inputs = planned.resolved.scans.iter().filter_map(|scan| {
                let input = match (sources.get(&scan.table), outputs.get(&scan.table)) {
                    (Some(source), _) => Input::Source(Arc::clone(source)),
                    (None, Some(output)) => Input::Output(Arc::clone(output)),
                    (None, None) => return None,
                };
                Some((scan.table.clone(), input))
            });
            let job = TaskJob {
                context: context.clone(),
                inputs: inputs.collect(),
                permits: Arc::clone(&permits),
                force: options.force,
                planned,
            };
            running.spawn(job.run());
        }
        let Some(finished) = running.join_next().await else { break };
        let (mut report, result) =
            finished.map_err(|e| Error::new(ErrorKind::Execute, "a task panicked").with_source(e))?;
        match result {
            Ok(output) => {
                schedule.succeeded(&report.name);
                outputs.insert(report.name.clone(), Arc::new(output));
                reports.insert(report.name.clone(), report);
            }
            Err(error) => {
                report.status = Status::Failed;
                fail(&mut schedule, &mut reports, report, &error, &context.events);
            }
        }
    }
    Ok(RunReport {
        wall_ms: report::millis(start.elapsed()),
        peak_rss_bytes: peak_rss_bytes(),
        tasks: selected.tasks().filter_map(|task| reports.remove(&task.name)).collect(),
    })
}

fn fail(
    schedule: &mut Schedule,
    reports: &mut BTreeMap<String, TaskReport>,
    mut report: TaskReport,
    error: &Error,
    events: &EventSink,
) {
    let task = report.name.clone();
    report.reason = error.to_string();
    events.send(Event::Failed { task: task.clone(), message: error.to_string() });
    reports.insert(task.clone(), report);
    for name in schedule.failed(&task) {
        let mut skipped = TaskReport::new(&name, Status::Skipped);
        skipped.reason = format!("`{task}` failed, which it needs");
        events.send(Event::Skipped { task: name.clone(), message: skipped.reason.clone() });
        reports.insert(name, skipped);
    }
}

/// What a task gave: its chunks, in order.
#[derive(Debug)]
struct Output {
    schema: SchemaRef,
    entries: Vec<Arc<ChunkEntry>>,
}

#[derive(Debug, Clone)]
enum Input {
    Source(Arc<Snapshot>),
    Output(Arc<Output>),
}

impl Input {
    fn identity(&self) -> Fingerprint {
        match self {
            Self::Source(source) => source.identity(),
            Self::Output(output) => {
                Fingerprint::of(output.entries.iter().map(|e| ("chunk", e.fingerprint.as_bytes().as_slice())))
            }
        }
    }

    fn provider(&self, cache: &Cache) -> Result<Arc<dyn TableProvider>> {
        Ok(match self {
            Self::Source(source) => source.table(),
            Self::Output(output) => Arc::new(of_chunks(cache.folder(), &output.entries, Arc::clone(&output.schema))?),
        })
    }
}

/// One task to run, its inputs at hand.
struct TaskJob {
    context: Context,
    planned: Arc<PlannedTask>,
    inputs: BTreeMap<String, Input>,
    permits: Arc<Semaphore>,
    force: bool,
}

impl TaskJob {
    async fn run(self) -> (TaskReport, Result<Output>) {
        let start = Instant::now();
        let mut report = TaskReport::new(&self.planned.task.name, Status::Reused);
        report.keys = self.planned.proof.keys().to_vec();
        report.chunks = self.planned.proof.chunks();
        report.inputs = self.planned.proof.inputs().iter().map(input_report).collect();
        let result = self.run_chunks(&mut report).await.map_err(|e| e.with_task(&self.planned.task.name));
        report.wall_ms = report::millis(start.elapsed());
        if result.is_ok() {
            self.context.events.send(Event::Done {
                task: report.name.clone(),
                executed: report.executed,
                reused: report.reused,
                rows: report.rows,
                bytes: report.bytes,
                wall: start.elapsed(),
                reason: report.reason.clone(),
            });
        }
        (report, result)
    }

    async fn run_chunks(&self, report: &mut TaskReport) -> Result<Output> {
        let PlannedTask { task, resolved, proof } = self.planned.as_ref();
        let Context { cache, events, .. } = &self.context;
        let identities = self.inputs.iter().map(|(name, input)| (name.clone(), input.identity())).collect();
        let run = format!("{} {}", std::process::id(), unix_ns());
        let components = Components::of(task, resolved, proof, &identities, &run)
            .map_err(|e| Error::new(ErrorKind::Sql, "the query can't be fingerprinted").with_source(e))?;
        let fingerprints: Vec<_> = (0..proof.chunks()).map(|chunk| components.chunk(chunk)).collect();
        let mut entries = if self.force { vec![None; fingerprints.len()] } else { cache.find(&fingerprints)? };
        let missing: Vec<u32> = (0u32..).zip(&entries).filter(|(_, e)| e.is_none()).map(|(chunk, _)| chunk).collect();
        let reused = proof.chunks() - missing.len() as u32;
        report.reused = reused;
        report.reason = self.reason(&components, missing.len())?;
        let planned =
            Event::Planned { task: task.name.clone(), chunks: proof.chunks(), reused, reason: report.reason.clone() };
        events.send(planned);
        if !missing.is_empty() {
            report.status = Status::Executed;
            let providers = self.providers()?;
            let job = Arc::new(ChunkJob {
                context: self.context.clone(),
                planned: Arc::clone(&self.planned),
                sources: self
                    .inputs
                    .values()
                    .filter_map(|i| match i {
                        Input::Source(source) => Some(Arc::clone(source)),
                        Input::Output(_) => None,
                    })
                    .collect(),
                providers,
                components: components.clone(),
                force: self.force,
            });
            let mut running = JoinSet::new();
            for chunk in missing {
                let (job, permits) = (Arc::clone(&job), Arc::clone(&self.permits));
                running.spawn(async move { (chunk, job.run_within(chunk, &permits).await) });
            }
            while let Some(finished) = running.join_next().await {
                let (chunk, result) =
                    finished.map_err(|e| Error::new(ErrorKind::Execute, "a chunk panicked").with_source(e))?;
                entries[chunk as usize] = Some(result.map_err(|e| e.with_chunk(chunk))?);
                report.executed += 1;
            }
        }
        let entries: Vec<Arc<ChunkEntry>> = entries.into_iter().flatten().collect();
        report.rows = entries.iter().map(|e| e.rows).sum();
        report.bytes = entries.iter().map(|e| e.bytes).sum();
        for source in self.inputs.values() {
            if let Input::Source(source) = source {
                source.check_unchanged().await?;
            }
        }
        if cache.publish(&task.name, &entries, &components)? {
            events.send(Event::Published { task: task.name.clone() });
        }
        Ok(Output { schema: Arc::clone(proof.schema()), entries })
    }

    /// Providers of the scans, by number.
    fn providers(&self) -> Result<Vec<Arc<dyn TableProvider>>> {
        let mut by_table = BTreeMap::new();
        for (name, input) in &self.inputs {
            by_table.insert(name.clone(), input.provider(&self.context.cache)?);
        }
        let scans = &self.planned.resolved.scans;
        let missing = |table: &str| Error::new(ErrorKind::Source, format!("input `{table}` is not there"));
        scans.iter().map(|s| by_table.get(&s.table).cloned().ok_or_else(|| missing(&s.table))).collect()
    }

    /// Why chunks run, or why none has to.
    fn reason(&self, components: &Components, missing: usize) -> Result<String> {
        if missing == 0 {
            return Ok("nothing changed".into());
        }
        if self.force {
            return Ok("forced".into());
        }
        let Some(before) = self.context.cache.published(&self.planned.task.name)? else {
            return Ok("not published yet".into());
        };
        let changed = components.changed_since(&before);
        Ok(match changed.as_slice() {
            [] => format!("{missing} chunk files are missing"),
            changed => format!("changed: {}", changed.join(", ")),
        })
    }
}

/// What the chunks of one task have in common.
struct ChunkJob {
    context: Context,
    planned: Arc<PlannedTask>,
    providers: Vec<Arc<dyn TableProvider>>,
    sources: Vec<Arc<Snapshot>>,
    components: Components,
    force: bool,
}

impl ChunkJob {
    /// Runs a chunk when a permit is free; again, alone and so with all the memory, if that did not suffice beside others.
    async fn run_within(&self, chunk: u32, permits: &Semaphore) -> Result<Arc<ChunkEntry>> {
        let jobs = self.context.jobs as u32;
        // The semaphore is never closed, so both calls wait and succeed.
        let beside_others = {
            let _permit = permits.acquire().await;
            self.run(chunk).await
        };
        match beside_others {
            Err(error) if jobs > 1 && is_out_of_memory(&error) => {
                let _all = permits.acquire_many(jobs).await;
                self.run(chunk).await
            }
            other => other,
        }
    }

    async fn run(&self, chunk: u32) -> Result<Arc<ChunkEntry>> {
        let PlannedTask { task, proof, .. } = self.planned.as_ref();
        let Context { cache, state, events, .. } = &self.context;
        events.send(Event::ChunkStarted { task: task.name.clone(), chunk });
        let provide = |scan: usize| match self.providers.get(scan) {
            Some(provider) => Ok(Arc::clone(provider)),
            None => datafusion::common::internal_err!("scan {scan} has no provider"),
        };
        let plan = rewrite(proof, chunk, &provide)
            .map_err(|e| Error::new(ErrorKind::Execute, "the chunk can't be planned").with_source(e))?;
        let mut entry = ChunkEntry {
            fingerprint: self.components.chunk(chunk),
            table: task.name.clone(),
            chunk,
            chunks: proof.chunks(),
            keys: proof.stored_by().to_vec(),
            rows: 0,
            bytes: 0,
            written_unix_ns: unix_ns(),
        };
        let pending = cache.begin()?;
        let footer = |rows| ChunkEntry { rows, ..entry.clone() }.footer(&self.components);
        let written = write(state, &plan, proof.schema(), &task.options, pending.writer()?, footer).await;
        // A chunk of a source that changed meanwhile must never be found under the old identity; and if the plan
        // failed, this is why.
        for source in &self.sources {
            source.check_unchanged().await?;
        }
        let rows = written?;
        (entry.rows, entry.bytes) = (rows, pending.bytes()?);
        let entry = cache.commit(pending, entry, &self.components, self.force)?;
        let (rows, bytes) = (entry.rows, entry.bytes);
        events.send(Event::ChunkDone { task: task.name.clone(), chunk, rows, bytes });
        Ok(entry)
    }
}

fn input_report(input: &crate::plan::prove::Input) -> InputReport {
    let mode = match &input.role {
        Role::Partitioned { .. } => InputMode::Rescan,
        Role::Replicated { .. } => InputMode::Replicate,
    };
    InputReport { table: input.table.clone(), mode }
}

fn unix_ns() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_nanos() as u64)
}
