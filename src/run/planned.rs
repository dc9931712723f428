//! The tasks of a run, planned: their sources listed, and how each is cut, before anything runs.

use std::any::Any;
use std::collections::{BTreeMap, BTreeSet};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use datafusion::catalog::TableProvider;
use datafusion::execution::SessionState;
use futures::FutureExt;

use crate::chunk::LEAST_CUT_BYTES;
use crate::error::{Error, ErrorKind, Result};
use crate::event::{Event, EventSink};
use crate::execute::budget::Budget;
use crate::hook::{InvocationContext, SourceHook, UserSource};
use crate::pipeline::Pipeline;
use crate::plan::held::Held;
use crate::plan::need::{Need, needs_and_held, needs_of_chunks};
use crate::plan::partitionable::is_partitionable;
use crate::plan::pass::Pass;
use crate::plan::prove::never_null::never_null;
use crate::plan::prove::proof::Proof;
use crate::plan::prove::rule::Rules;
use crate::plan::resolve::{Known, Resolved, published, resolve};
use crate::plan::slice::Stored;
use crate::plan::steps::size::Fit;
use crate::plan::steps::{Part, Step, steps};
use crate::plan::streamed::{Cut, cut, holds_little};
use crate::run::chunk::MIN_SHARED_BYTES;
use crate::run::served::Served;
use crate::source::Snapshot;
use crate::task::Task;
use crate::task::source::Source;

/// A source of a hook's is taken for no larger than a pebibyte, so that sums of sizes are numbers.
const MOST_BYTES: u64 = 1 << 50;

/// A task that was planned: ready to run once its inputs are.
#[derive(Debug)]
pub struct PlannedTask {
    /// The task.
    pub task: Task,
    /// The steps it runs in, at least one; the last gives its table.
    pub steps: Vec<Step>,
}

/// All tasks of a pipeline, planned or failed, and the sources they read.
#[derive(Debug)]
pub struct Plans {
    /// By task name.
    pub tasks: BTreeMap<String, Result<Arc<PlannedTask>>>,
    /// By source name; those that could be read.
    pub sources: BTreeMap<String, Arc<Snapshot>>,
    /// Sources whose rows a hook gives, by name.
    pub served: BTreeMap<String, Arc<dyn SourceHook>>,
}

/// The chunks of a step that reads less may be told by all that it reads.
const LEAST_TOLD_APART_BYTES: u64 = 128 << 20;

/// Stack for planning a task; of it only what is used takes memory.
const STACK_BYTES: usize = 256 << 20;

/// Lists the sources that the tasks of `pipeline` read and plans every task, without running anything. `previous` gives
/// the functions, bounds of ranges or numbers of chunks, that a task was cut by when it was published.
///
/// A task that is invalid or refused, or that a broken source is in the way of, is an `Err` in the result. One whose
/// input could not be planned is not in it. What is left out of sources goes to `events`.
pub async fn plan(
    pipeline: &Pipeline,
    state: &SessionState,
    rules: Rules,
    budget: Budget,
    previous: &(dyn Fn(&str) -> Vec<String> + Sync),
    events: &EventSink,
) -> Plans {
    let mut known: BTreeMap<String, Known> = BTreeMap::new();
    let mut sources = BTreeMap::new();
    let mut broken: BTreeMap<String, String> = BTreeMap::new();
    let read: BTreeSet<String> = pipeline.tasks().flat_map(|task| pipeline.inputs(task)).collect();
    for source in read.iter().filter_map(|name| pipeline.source(name)) {
        // A reader that panics is in the way of what reads the source, and of nothing else.
        let taken = AssertUnwindSafe(Snapshot::take(source, state)).catch_unwind().await;
        match taken.unwrap_or_else(|panic| Err(source_panicked(source, panic.as_ref()))) {
            Ok(snapshot) => {
                for note in snapshot.notes() {
                    events.send(Event::LeftOut { source: source.name.clone(), note: note.clone() });
                }
                let (schema, bytes) = (snapshot.table().schema(), snapshot.bytes());
                let row_groups = snapshot.row_groups();
                let of_files = Known::new(schema, bytes.max(1));
                let never_null = snapshot.promised();
                let of_files = Known { row_groups, has_order: true, never_null, ..of_files };
                known.insert(source.name.clone(), of_files);
                sources.insert(source.name.clone(), Arc::new(snapshot));
            }
            Err(error) => drop(broken.insert(source.name.clone(), error.to_string())),
        }
    }
    let mut served = BTreeMap::new();
    for UserSource { name, hook, location: _ } in read.iter().filter_map(|name| pipeline.user_source(name)) {
        let of_hook = Known::new(hook.schema(), hook.bytes().clamp(1, MOST_BYTES));
        known.insert(name.clone(), Known { is_served: true, ..of_hook });
        served.insert(name.clone(), Arc::clone(hook));
    }
    let mut tasks = BTreeMap::new();
    for task in pipeline.tasks() {
        let inputs = pipeline.inputs(task);
        if let Some(error) = inputs.iter().find_map(|name| broken.get(name)) {
            tasks.insert(task.name.clone(), Err(Error::new(ErrorKind::Source, error).with_task(&task.name)));
            continue;
        }
        if !inputs.iter().all(|name| known.contains_key(name)) {
            continue;
        }
        let invoked = match &task.invocation {
            Some(hook) => {
                let tables = inputs.iter().map(|name| {
                    let source =
                        sources.get(name).map(|source: &Arc<Snapshot>| source.table() as Arc<dyn TableProvider>);
                    let served = || Some(Served::new(name, served.get(name)?, &Arc::default()).whole());
                    (name.clone(), source.or_else(served))
                });
                let context = InvocationContext {
                    task: task.name.clone(),
                    parameters: task.parameters.clone(),
                    inputs: tables.collect(),
                    state: state.clone(),
                    jobs: budget.jobs,
                    memory_limit_bytes: budget.limit_bytes,
                };
                match hook.cut(&context).await.and_then(|cut| cut.checked(&context)) {
                    Ok(chunking) => Some(Task { chunking: Some(chunking), ..task.clone() }),
                    Err(error) => {
                        tasks.insert(task.name.clone(), Err(error.with_task(&task.name)));
                        continue;
                    }
                }
            }
            None => None,
        };
        let task = invoked.as_ref().unwrap_or(task);
        let resolved = planning(|| resolve(task, pipeline, &known, state, rules));
        let query = match resolved.unwrap_or_else(|panic| Err(planning_panicked(task, panic.as_ref()))) {
            Ok(query) => query,
            Err(error) => {
                tasks.insert(task.name.clone(), Err(error));
                continue;
            }
        };
        let schema = Arc::clone(&query.last.resolved.schema);
        let fitting = |query: &Resolved| {
            // What can't be optimised fails later, with a reason.
            let (needed, held) = needs_and_held(query, state).unwrap_or_default();
            let bytes = needed.iter().map(|need| need.bytes).sum();
            let whole = held.map(|held| (held.bytes() as u64, (held.given.0 as u64, held.given.1 as u64))).unzip();
            // Whole it has all processors, too.
            let is_whole = || is_held(budget, held, query, &needed);
            let pool = budget.pool_bytes().map(|pool| pool as u64);
            let most = budget.chunks(needed.iter().map(|need| need.memory_bytes).sum());
            let chunks = if is_partitionable(&query.plan).unwrap_or(false) && is_whole() {
                0
            } else if bytes < LEAST_CUT_BYTES && is_little(held, pool.unwrap_or(u64::MAX)) {
                // Of large inputs a wrong estimate costs more.
                1
            } else {
                most
            };
            Fit { chunks, most, bytes, held: whole.0, given: whole.1, most_held: pool }
        };
        let fewest = |query: &Resolved, proof: &Proof| {
            let (needs, whole) = needs_and_held(query, state).unwrap_or_default();
            let Cut { held, chunks_worth } = cut(query, &needs, proof)?;
            let fitting = whole.map_or(u64::MAX, |whole| budget.chunks_holding(whole.bytes() as u64));
            Some(budget.chunks(held).min(fitting).max(chunks_worth).max(budget.jobs as u64))
        };
        let previous = previous(&task.name);
        let found = planning(|| steps(task, query, rules, &fitting, &fewest, &previous));
        let planned = match found.unwrap_or_else(|panic| Err(planning_panicked(task, panic.as_ref()))) {
            Ok(mut steps) => {
                if let Some(last) = steps.last_mut() {
                    match materialized(task, last.proof.clone()) {
                        Ok(proof) => last.proof = proof,
                        Err(error) => {
                            tasks.insert(task.name.clone(), Err(error));
                            continue;
                        }
                    }
                }
                for step in &mut steps {
                    // Who can't be optimised fails when it runs, and needs all until then.
                    let (needs, held) = needs_of_chunks(&step.proof, &step.resolved, state).unwrap_or_default();
                    step.needs = needs;
                    step.pass = if rules.are_one_by_one() { None } else { pass(step, held, task, budget) };
                    step.told_as_one = is_told_as_one(step, held, task);
                }
                Ok(Arc::new(PlannedTask { task: task.clone(), steps }))
            }
            Err(refused) => Err(refused),
        };
        let proof = planned.as_ref().ok().and_then(|planned| Some(&planned.steps.last()?.proof));
        let schema = proof.map_or(schema, |proof| Arc::clone(proof.schema()));
        let stored = proof.and_then(Stored::by);
        // As large as all it reads, until it is known better; what is cut of it counts in any case.
        let bytes: u64 = inputs.iter().filter_map(|name| Some(known.get(name)?.bytes)).sum();
        // Hooks may give other rows.
        let last = planned.as_ref().ok().and_then(|planned| planned.steps.last());
        let never_null = last.filter(|_| task.materialization.is_empty()).map(|step| never_null(&step.resolved.plan));
        let never_null = Arc::new(never_null.unwrap_or_default());
        known.insert(task.name.clone(), Known { stored, never_null, ..Known::new(schema, bytes.max(1)) });
        tasks.insert(task.name.clone(), planned);
    }
    Plans { tasks, sources, served }
}

/// Whether a query that takes so much, if that is known, holds no more than `most_bytes`.
fn is_little(held: Option<Held>, most_bytes: u64) -> bool {
    held.is_some_and(|held| held.bytes() <= most_bytes as f64)
}

/// Whether a query, which takes so much if that is known, may hold that at a time.
fn is_held(budget: Budget, held: Option<Held>, query: &Resolved, needs: &[Need]) -> bool {
    let limit = budget.limit_bytes.map_or(u64::MAX, |limit| limit as u64);
    match held {
        // The pool does not count copies.
        Some(held) => held.kept <= budget.kept_bytes() as f64 && held.bytes() <= limit as f64,
        None => holds_little(query, needs, budget.kept_bytes() / 2),
    }
}

/// How several chunks of a step that takes so much are computed at once. Where the task says how chunks read their
/// inputs, each does; hooks see the rows of one chunk after those of another.
fn pass(step: &Step, held: Option<Held>, task: &Task, budget: Budget) -> Option<Pass> {
    let is_seen = !task.materialization.is_empty() && step.name == task.name;
    let is_served = step.resolved.scans.iter().any(|scan| scan.is_served);
    if step.parts > 1 || task.read_by.is_some() || is_seen || is_served {
        return None;
    }
    let bytes = step.bytes();
    let passes = match is_held(budget, held, &step.resolved, &step.needs) {
        true => 1,
        false => budget.passes(step.needs.iter().map(|need| need.memory_bytes).sum()),
    };
    // A plan with one partition is done by one processor. An expression without a type fails when it runs.
    let is_shared = bytes < MIN_SHARED_BYTES || is_partitionable(step.proof.plan()).unwrap_or(true);
    let passes = if is_shared { passes } else { passes.max(budget.jobs as u64) };
    // What can't be built is not needed: chunks run one by one.
    Pass::of(&step.proof, step.part == Part::Phase, bytes, passes, budget.columns_of_files()).ok().flatten()
}

/// Whether to tell apart what the chunks of a step read would cost about as much as to run them: of a step that the
/// engine took out of a query without keys, that reads little and does little with it. What reads the step's rows is
/// told by these, and does not run again. This follows from what files say, not from memory.
fn is_told_as_one(step: &Step, held: Option<Held>, task: &Task) -> bool {
    let is_taken_out = matches!(step.part, Part::Phase | Part::First | Part::Repeated | Part::Below);
    let has_keys = task.chunking.as_ref().is_some_and(|chunking| !chunking.keys.is_empty());
    let does_little = step.bytes() < LEAST_TOLD_APART_BYTES && held.is_some_and(|held| !held.grows);
    is_taken_out && !has_keys && does_little && task.read_by.is_none()
}

/// Does a part of planning a task, on a stack that is enough for the deepest query. It catches a panic, also that there
/// is no memory for the stack.
fn planning<T>(work: impl FnOnce() -> T) -> std::thread::Result<T> {
    catch_unwind(AssertUnwindSafe(|| stacker::grow(STACK_BYTES, work)))
}

fn source_panicked(source: &Source, panic: &(dyn Any + Send)) -> Error {
    let message = format!("source `{}`: its reader panicked: {}", source.name, panic_message(panic));
    Error::new(ErrorKind::Source, message).with_location(source.location.clone())
}

fn planning_panicked(task: &Task, panic: &(dyn Any + Send)) -> Error {
    let message = format!("planning it panicked, which is a bug: {}", panic_message(panic));
    Error::new(ErrorKind::Sql, message).with_task(&task.name).with_location(task.location.clone())
}

fn panic_message(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("no message")
}

/// The proof with the columns that the task's hooks give.
fn materialized(task: &Task, proof: Proof) -> Result<Proof> {
    let mut schema = Arc::clone(proof.schema());
    let mut is_changed = false;
    for hook in &task.materialization {
        if let Some(changed) = hook.schema(&schema).map_err(|e| e.with_task(&task.name))? {
            schema = changed;
            is_changed = true;
        }
    }
    if !is_changed {
        return Ok(proof);
    }
    let schema = published(&schema, task)?;
    Ok(proof.changed_to(schema))
}
