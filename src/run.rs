//! Running a pipeline: plan every task, run the chunks that the cache hasn't, publish.
//!
//! Tasks run as soon as what they read is done; at most `jobs` chunks run at a time in all. The tables of a stage are
//! published when all its tasks have succeeded. A task that fails stops only what depends on it. Dropping the future stops
//! everything: unfinished files go, committed chunks stay.

pub mod chunk;
mod cover;
mod identity;
mod pass;
pub mod planned;
pub mod report;
mod served;
mod short;
mod sliced;
mod split;
mod stage;
mod task;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Instant;

use arrow::datatypes::{Schema, SchemaRef};
use datafusion::catalog::TableProvider;
use datafusion::execution::SessionState;
use tokio::sync::{OnceCell, Semaphore};
use tokio::task::JoinSet;
use tracing::{Instrument, info_span};

use crate::cache::collect::InUse;
use crate::cache::store::ChunkEntry;
use crate::cache::{Cache, Prepared};
use crate::error::{Error, ErrorKind, Result};
use crate::event::{Event, EventSink};
use crate::execute::budget::Budget;
use crate::pipeline::Pipeline;
use crate::plan::fingerprint::Fingerprint;
use crate::plan::prove::rule::Rules;
use crate::run::planned::plan;
use crate::run::report::{RunReport, Status, TaskReport, peak_rss_bytes};
use crate::run::served::Served;
use crate::run::split::Splits;
use crate::run::stage::Stages;
use crate::run::task::TaskJob;
use crate::schedule::{Schedule, Skipped};
use crate::source::Snapshot;
use crate::table::output::of_chunks;
use crate::task::Task;

/// What to run, and how much of the cache to believe.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct RunOptions {
    /// Tasks and stages to run, with all that they need; empty runs all. Of a stage all tasks run.
    pub tasks: Vec<String>,
    /// Runs every chunk again, whatever the cache has.
    pub force: bool,
    /// What sources that changed mean to a task whose table is published.
    pub fresh_input: FreshInput,
    /// So many percent, 0 to 100, of the chunks that are in the cache are computed again and compared, chosen at random. A
    /// task of which one differs fails.
    pub audit_percent: f64,
    /// The first task that fails stops the run, also what does not depend on it, and stages that are not whole yet are not
    /// published. Default: the others go on.
    pub fail_fast: bool,
    /// Runs and publishes nothing: the report says what would run and why. Its `executed` are the chunks that would, at most:
    /// those that read a chunk which runs run too, unless that is as it was.
    pub dry_run: bool,
}

/// What sources that changed mean to a task whose table is published.
#[non_exhaustive]
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum FreshInput {
    /// Chunks run whose rows changed.
    #[default]
    Use,
    /// Sources count as unchanged: the table stays as it is, if nothing else changed. A task that has to run all the same
    /// reads them as they are.
    Ignore,
    /// The task fails if chunks would have to run and a source changed since the table was published.
    Fail,
}

/// What a run works with.
#[derive(Debug, Clone)]
pub struct Context {
    /// The cache.
    pub cache: Arc<Cache>,
    /// The session of this run.
    pub state: Arc<SessionState>,
    /// Memory, and most chunks at a time.
    pub budget: Budget,
    /// One for each chunk that may run, of all runs of the engine.
    pub permits: Arc<Semaphore>,
    /// Inputs that were split.
    pub splits: Arc<Splits>,
    /// Where events go.
    pub events: EventSink,
    /// What the prover asks for.
    pub rules: Rules,
    /// Whether each chunk reads the files of an input in another order.
    pub rotates_scans: bool,
    /// Whether plans have several partitions however little they read.
    pub always_partitions: bool,
    /// When the run began, in nanoseconds since 1970.
    pub start_unix_ns: u64,
    /// Keeps the cache's files from being collected; whoever may outlive the run holds it, too.
    pub in_use: Arc<InUse>,
}

/// Runs `pipeline`.
///
/// # Errors
/// An unknown task in `options`. A task's failure is in the report.
pub async fn run(context: &Context, pipeline: &Pipeline, options: &RunOptions) -> Result<RunReport> {
    let start = Instant::now();
    let selected = if options.tasks.is_empty() { pipeline.clone() } else { pipeline.select(&options.tasks)? };
    let published = |task: &str| context.cache.published(task).ok().flatten();
    let previous = |task: &str| published(task).map_or_else(Vec::new, |components| components.functions());
    let (state, events) = (&context.state, &context.events);
    let mut plans = plan(&selected, state, context.rules, context.budget, &previous, events).await;
    let sources = std::mem::take(&mut plans.sources);
    let served = std::mem::take(&mut plans.served);
    let versions: BTreeMap<String, Arc<OnceCell<String>>> =
        served.keys().map(|name| (name.clone(), Arc::default())).collect();
    let mut schedule = Schedule::new(&selected);
    let mut reports: BTreeMap<String, TaskReport> = BTreeMap::new();
    let mut outputs: BTreeMap<String, Arc<Output>> = BTreeMap::new();
    let mut stages = Stages::default();
    let mut running = JoinSet::new();
    let mut names = HashMap::new();
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
            let inputs = planned.steps.iter().flat_map(|step| &step.resolved.scans).filter_map(|scan| {
                let table = &scan.table;
                let source = sources.get(table).map(|source| Input::Source(Arc::clone(source)));
                let served = || {
                    let (hook, version) = (served.get(table)?, versions.get(table)?);
                    Some(Input::Served(Arc::new(Served::new(table, hook, version))))
                };
                let output = || outputs.get(table).map(|output| Input::Output(Arc::clone(output)));
                // None for the output of an earlier step.
                Some((table.clone(), source.or_else(served).or_else(output)?))
            });
            let job = TaskJob {
                context: context.clone(),
                inputs: inputs.collect(),
                permits: Arc::clone(&context.permits),
                force: options.force,
                fresh_input: options.fresh_input,
                audit_percent: options.audit_percent,
                is_dry: options.dry_run,
                planned,
            };
            let run = job.run().instrument(info_span!("task", task = %name));
            let run = async move {
                let (report, result) = run.await;
                Ended::Task(Box::new(report), result)
            };
            names.insert(running.spawn(run).id(), Running::Task(name));
        }
        if options.fail_fast && reports.values().any(|report| report.status == Status::Failed) {
            break;
        }
        let Some(finished) = running.join_next_with_id().await else { break };
        let (mut report, result) = match finished {
            Ok((_, Ended::Task(report, result))) => (*report, result),
            Ok((_, Ended::Stage(stage, Ok(changed)))) => {
                stages.published(&stage, changed, &context.events);
                schedule.published(&stage);
                continue;
            }
            Ok((_, Ended::Stage(stage, Err(error)))) => {
                fail_stage(&mut schedule, &mut reports, &selected, &stage, &error, &context.events);
                continue;
            }
            Err(e) => match names.remove(&e.id()) {
                Some(Running::Task(name)) => {
                    let panicked = Error::new(ErrorKind::Execute, "the task panicked").with_source(e).with_task(&name);
                    (TaskReport::new(&name, Status::Failed), Err(panicked))
                }
                Some(Running::Stage(stage)) => {
                    let panicked = Error::new(ErrorKind::Storage, "its publication panicked").with_source(e);
                    fail_stage(&mut schedule, &mut reports, &selected, &stage, &panicked, &context.events);
                    continue;
                }
                None => continue,
            },
        };
        match result {
            Ok((output, prepared)) => {
                let name = report.name.clone();
                outputs.insert(name.clone(), Arc::new(output));
                reports.insert(name.clone(), report);
                if let (Some(prepared), Some(stage)) =
                    (prepared, selected.task(&name).and_then(|task| task.stage.as_ref()))
                {
                    stages.add(stage, prepared);
                }
                match schedule.succeeded(&name) {
                    Some(stage) if options.dry_run => schedule.published(&stage),
                    Some(stage) => {
                        let read: BTreeSet<String> = selected
                            .tasks()
                            .filter(|task| task.stage.as_ref() == Some(&stage))
                            .flat_map(|task| selected.inputs(task))
                            .collect();
                        let read_sources = read.iter().filter_map(|name| sources.get(name));
                        let read_served = read
                            .iter()
                            .filter_map(|name| Some(Served::new(name, served.get(name)?, versions.get(name)?)));
                        // Some of its tasks may have ended long ago.
                        if let Err(error) = check_unchanged(read_sources, read_served).await {
                            fail_stage(&mut schedule, &mut reports, &selected, &stage, &error, &context.events);
                            continue;
                        }
                        let sources = read.iter().filter_map(|name| sources.get(name)).cloned().collect();
                        let publish = stages.publication(&stage, context, sources);
                        let name = Running::Stage(stage.clone());
                        names.insert(running.spawn_blocking(move || Ended::Stage(stage, publish())).id(), name);
                    }
                    None => {}
                }
            }
            Err(error) => {
                report.status = Status::Failed;
                fail(&mut schedule, &mut reports, report, &error, &context.events);
            }
        }
    }
    if let Some(failed) =
        reports.values().find(|report| report.status == Status::Failed).map(|report| report.name.clone())
    {
        // Only where the first failure stops all. What had ended meanwhile, has.
        running.abort_all();
        while let Some(ended) = running.join_next().await {
            match ended {
                Ok(Ended::Task(report, Ok(_))) => drop(reports.insert(report.name.clone(), *report)),
                Ok(Ended::Stage(stage, Ok(changed))) => stages.published(&stage, changed, &context.events),
                Ok(Ended::Stage(stage, Err(error))) => {
                    fail_stage(&mut schedule, &mut reports, &selected, &stage, &error, &context.events);
                }
                _ => {}
            }
        }
        for task in selected.tasks().filter(|task| !reports.contains_key(&task.name)).collect::<Vec<_>>() {
            let mut skipped = TaskReport::new(&task.name, Status::Skipped);
            skipped.reason = format!("`{failed}` failed, and stops the run");
            context.events.send(Event::Skipped { task: task.name.clone(), message: skipped.reason.clone() });
            reports.insert(task.name.clone(), skipped);
        }
    }
    if !options.dry_run {
        stages.withhold(&selected, &mut reports, &context.events);
    }
    for error in context.splits.finish().await {
        context.events.send(Event::Warning { message: error.to_string() });
    }
    let report = |task: &Task| {
        let stage = task.stage.clone();
        reports.remove(&task.name).map(|report| TaskReport { stage, ..report })
    };
    Ok(RunReport {
        wall_ms: report::millis(start.elapsed()),
        peak_rss_bytes: peak_rss_bytes(),
        tasks: selected.tasks().filter_map(report).collect(),
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
    report.error = Some(error.kind());
    events.send(Event::Failed { task: task.clone(), message: error.to_string() });
    reports.insert(task.clone(), report);
    skip(schedule.failed(&task), reports, &task, events);
}

/// Has the tasks of a stage fail that could not be published.
fn fail_stage(
    schedule: &mut Schedule,
    reports: &mut BTreeMap<String, TaskReport>,
    pipeline: &Pipeline,
    stage: &str,
    error: &Error,
    events: &EventSink,
) {
    let message = format!("stage `{stage}` can't be published: {error}");
    for task in pipeline.stage(stage) {
        events.send(Event::Failed { task: task.to_string(), message: message.clone() });
        if let Some(report) = reports.get_mut(task) {
            report.status = Status::Failed;
            report.reason = message.clone();
            report.error = Some(error.kind());
        }
    }
    skip(schedule.not_published(stage), reports, pipeline.stage(stage).first().unwrap_or(&stage), events);
}

fn skip(skipped: Vec<Skipped>, reports: &mut BTreeMap<String, TaskReport>, failed: &str, events: &EventSink) {
    for Skipped { task, stage } in skipped {
        let mut report = TaskReport::new(&task, Status::Skipped);
        report.reason = match stage {
            Some(stage) => format!("`{failed}` failed, so that stage `{stage}`, which it needs, is not published"),
            None => format!("`{failed}` failed, which it needs"),
        };
        events.send(Event::Skipped { task: task.clone(), message: report.reason.clone() });
        reports.insert(task, report);
    }
}

/// That sources are what they were when the run began.
async fn check_unchanged(
    sources: impl Iterator<Item = &Arc<Snapshot>>,
    served: impl Iterator<Item = Served>,
) -> Result<()> {
    for source in sources {
        source.check_unchanged().await?;
    }
    for served in served {
        served.check_begun().await?;
    }
    Ok(())
}

/// What goes on during a run, by name.
enum Running {
    Task(String),
    /// The publication of a stage.
    Stage(String),
}

/// What ended during a run.
enum Ended {
    /// A task, with what is to be published with its stage.
    Task(Box<TaskReport>, Result<(Output, Option<Prepared>)>),
    /// The publication of a stage, with the tables that changed.
    Stage(String, Result<Vec<String>>),
}

/// What a task or step gave: its chunks, in order.
#[derive(Debug, Clone)]
pub struct Output {
    schema: SchemaRef,
    entries: Vec<Arc<ChunkEntry>>,
}

impl Default for Output {
    fn default() -> Self {
        Self { schema: Arc::new(Schema::empty()), entries: Vec::new() }
    }
}

/// What a task or step reads.
#[derive(Debug, Clone)]
pub enum Input {
    Source(Arc<Snapshot>),
    Served(Arc<Served>),
    Output(Arc<Output>),
}

impl Input {
    /// All rows.
    fn whole(&self, cache: &Cache) -> Result<Arc<dyn TableProvider>> {
        match self {
            Self::Source(source) => Ok(source.table()),
            Self::Served(served) => Ok(served.whole()),
            Self::Output(output) => {
                cache.check(&output.entries)?;
                Ok(Arc::new(of_chunks(cache.folder(), &output.entries, Arc::clone(&output.schema))?))
            }
        }
    }

    /// Its columns.
    fn schema(&self) -> SchemaRef {
        match self {
            Self::Source(source) => source.table().schema(),
            Self::Served(served) => served.whole().schema(),
            Self::Output(output) => Arc::clone(&output.schema),
        }
    }

    fn served(&self) -> Option<Arc<Served>> {
        match self {
            Self::Served(served) => Some(Arc::clone(served)),
            Self::Source(_) | Self::Output(_) => None,
        }
    }

    fn source(&self) -> Option<Arc<Snapshot>> {
        match self {
            Self::Source(source) => Some(Arc::clone(source)),
            Self::Served(_) | Self::Output(_) => None,
        }
    }

    fn identity(&self) -> Fingerprint {
        match self {
            Self::Source(source) => source.identity(),
            Self::Served(served) => served.identity(),
            Self::Output(output) => output.identity(),
        }
    }
}
