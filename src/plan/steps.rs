//! A task as the steps it runs in.
//!
//! Most tasks are one step. Where a part of the query can't be cut, it is taken out and becomes a step of its own, whose
//! rows are stored like any table, and the rest of the query reads them. There are three ways:
//!
//! | way | the step | the rest |
//! |---|---|---|
//! | two phases | every chunk does its part of the operator (see [`crate::plan::two_phase`]) | puts the parts together |
//! | run first | the part alone: a scalar subquery, a side that all chunks would compute, … | reads it like any input |
//! | run below | the input of the operator, which can be cut | does the operator over the stored rows |
//!
//! Steps are planned by the same means, and may need steps themselves. Parts are taken out of a plan whose filters,
//! limits and projections are pushed down, so that a step stores only what is read of it. Of the ways that are right,
//! two phases before the others, the first that cuts four fifths of the bytes of the inputs is taken, else the one that
//! cuts the most; of equal ones the one with the fewest steps. Where the query can be cut as it is, only parts that
//! give few rows are taken out, so that more of its inputs are cut: aggregates and the like. A scalar subquery that
//! reads an input always runs first: every chunk would read all of it.

use std::collections::BTreeMap;
use std::sync::Arc;

use datafusion::catalog::cte_worktable::CteWorkTable;
use datafusion::common::Result as PlanResult;
use datafusion::common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion::datasource::DefaultTableSource;
use datafusion::logical_expr::{Expr, LogicalPlan, LogicalPlanBuilder};

use crate::chunk::{
    BYTES_PER_CHUNK, ChunkBy, ChunkFunction, Chunking, LEAST_CUT_BYTES, MAX_CHUNKS, MOST_CHUNKS_BY_SIZE,
};
use crate::error::{Error, ErrorKind, Result};
use crate::plan::need::Need;
use crate::plan::prove::effort::Effort;
use crate::plan::prove::rule::{Rule, Rules};
use crate::plan::prove::{Considered, Found, Proof, Search, Unproved, assumed, try_prove};
use crate::plan::push_down::pushed_down;
use crate::plan::ranges::{bounds, chosen};
use crate::plan::resolve::call::Call;
use crate::plan::resolve::{InputSource, Known, QueryPart, Resolved, ResolvedTask, published};
use crate::plan::slice::{Slice, Stored};
use crate::plan::step_form;
use crate::plan::two_phase::{TwoPhase, is_any_rows, numbered, renamed, two_phase};
use crate::task::{ReadBy, Task, TaskQuery};

/// Ways are sought at most this many splits deep.
const MAX_DEPTH: usize = 8;

/// One step: a query of its own over sources, tasks and earlier steps.
#[derive(Debug, Clone)]
pub struct Step {
    /// The task's name for the last step, `name#1`, `name#2`, … for those before it.
    pub name: String,
    /// Its query over numbered scans.
    pub resolved: Resolved,
    /// How it is cut.
    pub proof: Proof,
    /// Why it is a step.
    pub part: Part,
    /// When the engine chose the key: each key that it looked at and what it found.
    pub considered: Vec<Considered>,
    /// What it needs of each scan, by number; nothing until that is known.
    pub needs: Vec<Need>,
    /// In how many parts, one after the other, each chunk is computed: more than one where memory asks for more chunks
    /// than are kept.
    pub parts: u32,
    /// What planning left out, for EXPLAIN.
    pub notes: Vec<String>,
}

impl Step {
    /// Gives its columns the form in which the table of `task` has them.
    ///
    /// # Errors
    /// As [`published`].
    fn publish(&mut self, task: &Task) -> Result<()> {
        let schema = published(self.proof.schema(), task)?;
        self.proof = self.proof.clone().published_as(Arc::clone(&schema));
        self.resolved.schema = schema;
        Ok(())
    }

    /// How its chunks, of which `runs` will run, get their slices of a scan, by number.
    pub fn slice(&self, number: usize, runs: u32, read_by: Option<ReadBy>) -> Option<Slice<'_>> {
        let slice = Slice::of(&self.proof, number, self.resolved.scans.get(number)?);
        Some(match self.needs.get(number) {
            Some(need) => slice.chosen(need, runs, read_by),
            None => slice,
        })
    }
}

/// What a step is of its task.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// The chunks' part of an operator that is done in two phases.
    Phase,
    /// A part of the query that the rest can't compute chunk by chunk.
    First,
    /// The input of an operator that can't be cut.
    Below,
    /// What the task's function stores on its way.
    Materialized,
    /// The whole query, or the rest of it.
    Rest,
}

/// The engine's own number of chunks is kept up to so many times more or fewer.
const KEPT_FACTOR: u32 = 4;

/// The steps of `task`, the last of which gives its table.
///
/// A task that says nothing of its cut is cut by the key that the engine finds, into a power of two of chunks that
/// grows with the size of its inputs and is at least what `fitting` says of a query, so that chunks fit in memory; it
/// runs whole where that is one, or none since it holds little at a time, or nothing can be cut. `previous` are the
/// functions that cut its published table, numbers of chunks or bounds as [`crate::chunk::range::Bounds::to_json`]
/// writes them: both are kept if they can, and chunks that are too large then are computed in parts.
///
/// # Errors
/// Those of [`try_prove`], when the task has keys and neither it nor a part of it can be cut by them.
pub fn steps(
    task: &Task,
    query: ResolvedTask,
    rules: Rules,
    fitting: &dyn Fn(&Resolved) -> u64,
    previous: &[String],
) -> Result<Vec<Step>> {
    steps_and_work(task, query, rules, fitting, previous).0
}

/// As [`steps`], and how many nodes of plans were looked at for it.
pub fn steps_and_work(
    task: &Task,
    query: ResolvedTask,
    rules: Rules,
    fitting: &dyn Fn(&Resolved) -> u64,
    previous: &[String],
) -> (Result<Vec<Step>>, usize) {
    let mut planner = Planner { task, rules, previous, fitting, effort: Effort::default(), nodes_before: 0 };
    let steps = planner.steps(query);
    (steps, planner.nodes_before + planner.effort.nodes())
}

/// The number of chunks that the published table has, where `wanted`, which follows from sizes and memory, is not far from
/// it: another machine, or a source that grew a little, is no reason to run everything again.
fn kept(wanted: u32, previous: &[String]) -> u32 {
    let numbers = previous.iter().filter_map(|function| function.parse::<u32>().ok());
    let near = numbers.filter(|before| wanted > 1 && *before > 1 && before.is_power_of_two());
    near.filter(|before| (wanted / KEPT_FACTOR..=wanted.saturating_mul(KEPT_FACTOR)).contains(before))
        .max()
        .unwrap_or(wanted)
}

/// How a query is to be cut.
struct Sized {
    chunking: Chunking,
    /// In how many parts each chunk is computed.
    parts: u32,
}

/// Whether a query runs as one chunk, whatever its keys could be.
fn is_whole(chunking: &Chunking) -> bool {
    chunking.keys.is_empty() && chunking.chunks == 1
}

/// Steps in order; the last has no name yet.
struct Way {
    steps: Vec<Step>,
    /// Bytes of the inputs that are cut in one of the steps.
    cut_bytes: u64,
}

impl Way {
    /// Lets each chunk be computed in so many parts.
    fn in_parts(&mut self, parts: u32) {
        self.steps.iter_mut().filter(|step| step.proof.chunks() > 1).for_each(|step| step.parts = parts);
    }

    fn named(self, name: &str, effort: &Effort) -> Vec<Step> {
        let mut steps = self.with_last_named(name);
        steps.iter_mut().for_each(|step| step.notes = effort.notes());
        steps
    }

    fn with_last_named(mut self, name: &str) -> Vec<Step> {
        if let Some(last) = self.steps.last_mut() {
            last.name = name.to_string();
        }
        self.steps
    }
}

/// Makes the rest of a query when it is known how the step is called that it reads, and how that step is cut.
type Rest = Box<dyn Fn(&str, &Proof) -> PlanResult<Resolved>>;

/// A part taken out of a query, and the query that is left over the part's rows.
struct Split {
    step: Resolved,
    part: Part,
    /// Whether the step gives few rows, as far as that can be seen.
    is_small: bool,
    rest: Rest,
}

struct Planner<'a> {
    task: &'a Task,
    rules: Rules,
    previous: &'a [String],
    fitting: &'a dyn Fn(&Resolved) -> u64,
    effort: Effort,
    /// Nodes that were looked at for parts of the query before the one at hand.
    nodes_before: usize,
}

impl Planner<'_> {
    /// The steps of the task's query.
    fn steps(&mut self, query: ResolvedTask) -> Result<Vec<Step>> {
        let task = self.task;
        let mut known = BTreeMap::new();
        let mut done: Vec<Step> = Vec::new();
        let failed = |e| Error::new(ErrorKind::Sql, "a step can't be planned").with_source(e).with_task(&task.name);
        for QueryPart { name, resolved, branches } in query.before {
            self.begin();
            let resolved = resolved.knowing(&known).map_err(failed)?;
            let bytes: u64 = resolved.scans.iter().map(|scan| scan.bytes).sum();
            let way = match branches {
                Some(count) => self.branches(&resolved, count),
                None => self.materialized(&resolved, done.len())?,
            };
            let mut steps = way.named(&name, &self.effort);
            if let Some(last) = steps.last_mut() {
                last.part = Part::Materialized;
                let (schema, stored) = (Arc::clone(last.proof.schema()), Stored::by(&last.proof));
                // As large as all it reads, until it is known better.
                known.insert(name, Known { stored, ..Known::new(schema, bytes.max(1)) });
            }
            done.extend(steps);
        }
        self.begin();
        let QueryPart { name, resolved, branches } = query.last;
        let resolved = if known.is_empty() { resolved } else { resolved.knowing(&known).map_err(failed)? };
        let keys = task.chunking.as_ref().map_or(&[][..], |chunking| chunking.keys.as_slice());
        let is_cut_by_keys = done.iter().any(|step| step.proof.keys() == keys);
        let last = match branches {
            Some(count) if keys.is_empty() || is_cut_by_keys => self.branches(&resolved, count),
            Some(_) => {
                let message = "the task gives chunks that it makes itself, so no keys can cut it; leave its keys out";
                let refused = Error::new(ErrorKind::Refused, message).with_task(&task.name);
                return Err(refused.with_location(task.location.clone()));
            }
            None => match self.rest(&resolved, done.len()) {
                // A part that the user asked to be cut is.
                Err(e) if is_cut_by_keys && !keys.is_empty() && e.kind() != ErrorKind::Usage => {
                    self.whole(&resolved, Vec::new())
                }
                way => way.map_err(|e| self.effort.notes().iter().fold(e, |e, note| e.noting(note)))?,
            },
        };
        let mut last = last.named(&name, &self.effort);
        if let Some(step) = last.last_mut() {
            step.publish(task)?;
        }
        done.extend(last);
        Ok(done)
    }

    /// Begins another part of the query.
    fn begin(&mut self) {
        self.nodes_before += std::mem::take(&mut self.effort).nodes();
    }

    /// The way to run the part of the task's query that gives its table, of which `before` steps run before.
    fn rest(&self, resolved: &Resolved, before: usize) -> Result<Way> {
        let Sized { chunking, parts } = self.sized(resolved, self.task.chunking.as_ref(), self.previous);
        if is_whole(&chunking) {
            return Ok(self.whole(resolved, Vec::new()));
        }
        let mut way = match self.way(resolved, &chunking, before, 0) {
            Ok(way) => way,
            Err(unproved) => self.assumed(resolved, &chunking, *unproved)?,
        };
        way.in_parts(parts);
        Ok(way)
    }

    /// The way to run what the task stores before, of which `before` steps run before: by its keys, or any that the engine
    /// finds.
    ///
    /// All tables of one function plan such a step alike, whatever their own keys are, so that it is one in the cache.
    ///
    /// # Errors
    /// [`ErrorKind::Usage`] when the task says of inputs what they are not.
    fn materialized(&self, resolved: &Resolved, before: usize) -> Result<Way> {
        let (wanted, previous) = match (&self.task.chunking, &self.task.group) {
            (_, Some(_)) => (vec![None], &[][..]),
            (Some(keys), None) if !is_whole(keys) => (vec![Some(keys.clone()), Some(keys.by_any_key())], self.previous),
            (other, None) => (vec![other.clone()], self.previous),
        };
        for chunking in wanted {
            let Sized { chunking, parts } = self.sized(resolved, chunking.as_ref(), previous);
            if is_whole(&chunking) {
                continue;
            }
            match self.way(resolved, &chunking, before, 0) {
                Ok(mut way) => {
                    way.in_parts(parts);
                    return Ok(way);
                }
                Err(unproved) if unproved.error.kind() == ErrorKind::Usage => return Err(unproved.error),
                Err(_) => {}
            }
        }
        Ok(self.whole(resolved, Vec::new()))
    }

    /// The one step whose chunks have queries of their own.
    fn branches(&self, resolved: &Resolved, count: usize) -> Way {
        self.one_step(resolved, Proof::branches(resolved, count), Part::Rest, Vec::new())
    }

    /// How a query is to be cut, by size and memory where that is the engine's choice.
    fn sized(&self, resolved: &Resolved, chunking: Option<&Chunking>, previous: &[String]) -> Sized {
        // Powers of two, so that tasks over each other read stored chunks.
        let fitting = || (self.fitting)(resolved).min(MAX_CHUNKS.into());
        let power = |chunks: u64| chunks.max(1).next_power_of_two() as u32;
        match chunking {
            Some(chunking) if chunking.by == ChunkBy::Auto => {
                let chunking = Chunking { chunks: chunking.chunks.max(power(fitting())), ..chunking.clone() };
                Sized { chunking, parts: 1 }
            }
            Some(chunking) => Sized { chunking: chunking.clone(), parts: 1 },
            None => {
                let bytes: u64 = resolved.scans.iter().map(|scan| scan.bytes).sum();
                let chunks = match bytes < LEAST_CUT_BYTES {
                    true => 1,
                    false => (bytes / BYTES_PER_CHUNK).clamp(1, MOST_CHUNKS_BY_SIZE.into()) as u32,
                };
                let needed = fitting();
                let fitting = power(needed);
                let chunks = match needed {
                    0 => 1,
                    _ => kept((1 << chunks.ilog2()).max(fitting), previous),
                };
                let chunking = Chunking { keys: Vec::new(), chunks, by: ChunkBy::Auto };
                Sized { chunking, parts: fitting.div_ceil(chunks) }
            }
        }
    }

    fn prove(&self, resolved: &Resolved, chunking: &Chunking, is_phase: bool) -> Found {
        self.effort.proof();
        let found = try_prove(resolved, self.search(chunking, is_phase));
        self.cut(found, resolved, chunking, is_phase)
    }

    fn search<'a>(&'a self, chunking: &'a Chunking, is_phase: bool) -> Search<'a> {
        Search { task: self.task, chunking, is_phase, rules: self.rules, effort: &self.effort }
    }

    /// What was found, by the chunk function that is wanted.
    fn cut(&self, mut found: Found, resolved: &Resolved, chunking: &Chunking, is_phase: bool) -> Found {
        if let (ChunkBy::Given(given), Some(proof)) = (&chunking.by, &found.proof) {
            // What is proved holds for any function of the keys.
            match proof.given(given) {
                Ok(function) => found.proof = found.proof.take().map(|proof| proof.by(function)),
                Err(why) => found = Found::no(self.search(chunking, is_phase).not_given(why)),
            }
        } else if chunking.keys.is_empty() || chunking.by == ChunkBy::Range {
            let function = |proof: &Proof| match chunking.by {
                ChunkBy::Hash | ChunkBy::Given(_) => None,
                ChunkBy::Auto => chosen(proof, resolved, self.previous),
                ChunkBy::Range => bounds(proof, resolved, self.previous).map(ChunkFunction::Range),
            };
            found.proof = found.proof.map(|proof| match function(&proof) {
                Some(function) => proof.by(function),
                None => proof,
            });
        }
        found
    }

    /// The best way to run `rest`, of which `before` steps run before; some step is cut by the keys of `chunking`, if it
    /// has any.
    fn way(
        &self,
        rest: &Resolved,
        chunking: &Chunking,
        before: usize,
        depth: usize,
    ) -> std::result::Result<Way, Box<Unproved>> {
        let all: u64 = rest.scans.iter().map(|scan| scan.bytes).sum();
        let Found { proof, mut unproved, considered } = self.prove(rest, chunking, false);
        let mut best = proof.map(|proof| self.one_step(rest, proof, Part::Rest, considered.clone()));
        let mut refused = None;
        // Parts are taken out of a plan in which they are as small as can be.
        let pushed = match depth == 0 && best.as_ref().is_none_or(|best| best.cut_bytes < all) {
            true => pushed_down(rest.plan.clone()).and_then(|plan| rest.part(plan)).ok(),
            false => None,
        };
        let rest = match &pushed {
            Some(pushed) => {
                let found = self.prove(pushed, chunking, false);
                let way = found.proof.map(|proof| self.one_step(pushed, proof, Part::Rest, found.considered));
                let most = best.as_ref().map(|best| best.cut_bytes);
                if let Some(way) = way.filter(|way| Some(way.cut_bytes) > most) {
                    best = Some(way);
                }
                // What is told is about the query as it is written.
                refused = std::mem::replace(&mut unproved, found.unproved).into_iter().next();
                pushed
            }
            None => rest,
        };
        let is_right = best.is_some();
        // Where parts must be taken out, a little more that is cut is not worth a step more.
        let enough = if is_right { all } else { all - all / 5 };
        let mut tried: Vec<&Unproved> = Vec::new();
        let mut splits: Vec<Split> = Vec::new();
        for unproved in unproved.iter().filter(|unproved| unproved.at.is_some() && depth < MAX_DEPTH) {
            if !tried.iter().any(|other| other.at == unproved.at && other.first == unproved.first) {
                tried.push(unproved);
                // A part that has no types that Parquet can store, say, is no part.
                splits.extend(self.splits(rest, unproved, chunking).unwrap_or_default());
            }
        }
        // Two phases store the least.
        splits.sort_by_key(|split| split.part != Part::Phase);
        for split in splits.into_iter().filter(|split| !is_right || split.is_small) {
            if best.as_ref().is_some_and(|best| best.cut_bytes >= enough) || self.effort.is_spent() {
                break;
            }
            let way = self.way_of_split(split, chunking, before, depth);
            let most = best.as_ref().map_or(0, |best| best.cut_bytes);
            if let Some(way) = way.filter(|way| way.cut_bytes > most) {
                best = Some(way);
            }
        }
        if let Some(way) = best.as_ref().filter(|way| way.steps.iter().any(|step| step.proof.chunks() > 1))
            && let Ok(Some(split)) = self.scalar_subquery(rest)
            && depth < MAX_DEPTH
            && let Some(once) = self.way_of_split(split, chunking, before, depth)
            && once.cut_bytes >= way.cut_bytes
        {
            best = Some(once);
        }
        match (best, refused.or_else(|| unproved.into_iter().next())) {
            (Some(way), _) => Ok(way),
            (None, Some(unproved)) if !chunking.keys.is_empty() => Err(Box::new(unproved)),
            // What nobody asked to be cut by a certain key may as well run whole.
            (None, _) => Ok(self.whole(rest, considered)),
        }
    }

    /// The one step that is taken for right where the user says so.
    fn assumed(&self, resolved: &Resolved, chunking: &Chunking, unproved: Unproved) -> Result<Way> {
        let search = self.search(chunking, false);
        // Of a function over rows it is about the function, not about the plans of its inputs.
        let is_function = matches!(self.task.query, TaskQuery::Opaque(_));
        let reason = self.task.cut.assumed.as_deref().filter(|_| !is_function);
        let Some(proof) = reason.and_then(|reason| assumed(resolved, search, reason, &unproved.error)) else {
            return Err(unproved.error);
        };
        let found = Found { proof: Some(proof), unproved: Vec::new(), considered: Vec::new() };
        let Found { proof, unproved: not_given, .. } = self.cut(found, resolved, chunking, false);
        match (proof, not_given.into_iter().next()) {
            (Some(proof), _) => Ok(self.one_step(resolved, proof, Part::Rest, Vec::new())),
            (None, Some(not_given)) => Err(not_given.error),
            (None, None) => Err(unproved.error),
        }
    }

    fn way_of_split(&self, split: Split, chunking: &Chunking, before: usize, depth: usize) -> Option<Way> {
        let Split { step, part, is_small: _, rest } = split;
        let first = match part {
            Part::First => {
                let way = self.way(&step, &chunking.by_any_key(), before, depth + 1);
                let mut way = way.unwrap_or_else(|_| self.whole(&step, Vec::new()));
                way.steps.last_mut()?.part = Part::First;
                way
            }
            Part::Phase | Part::Below | Part::Materialized | Part::Rest => {
                let Found { proof, considered, .. } = self.prove(&step, chunking, part == Part::Phase);
                self.one_step(&step, proof?, part, considered)
            }
        };
        let name = format!("{}#{}", self.task.step_prefix(), before + first.steps.len());
        let rest = rest(&name, &first.steps.last()?.proof).ok()?;
        let after = self.way(&rest, chunking, before + first.steps.len(), depth + 1);
        let after = match after {
            Ok(after) => after,
            // What the user asked to be cut by his keys is not: the rest, and all before it was cut by others.
            Err(_) if part == Part::First && !chunking.keys.is_empty() => return None,
            Err(_) => self.whole(&rest, Vec::new()),
        };
        let cut_bytes = first.cut_bytes + after.cut_bytes;
        let steps = first.with_last_named(&name).into_iter().chain(after.steps).collect();
        Some(Way { steps, cut_bytes })
    }

    /// The parts that may be taken out of `rest` where it was refused.
    fn splits(&self, rest: &Resolved, unproved: &Unproved, chunking: &Chunking) -> PlanResult<Vec<Split>> {
        let mut splits = Vec::new();
        let Some(at) = &unproved.at else { return Ok(splits) };
        // Whole, a LIMIT without an order stops when it has its rows; cut, each chunk looks at all.
        let is_better_whole = chunking.keys.is_empty() && is_any_rows(at);
        if let Some(TwoPhase { chunk, finish }) = two_phase(at, self.rules)?.filter(|_| !is_better_whole) {
            splits.extend(self.split(rest, at, chunk, Part::Phase, finish)?);
        }
        let alone = |part: &LogicalPlan| -> PlanResult<_> {
            let schema = Arc::clone(part.schema());
            Ok((numbered(part.clone())?, Box::new(move |rows| renamed(rows, &schema))))
        };
        let first = unproved.first.as_ref().unwrap_or(at);
        let (chunk, finish) = alone(first)?;
        // Of a rest that reads nothing but the part nothing would be left to cut.
        splits.extend(
            self.split(rest, first, chunk, Part::First, finish)?
                .filter(|split| split.step.scans.len() < rest.scans.len()),
        );
        for input in at.inputs() {
            if is_worth_a_step(input)? {
                let (chunk, finish) = alone(input)?;
                splits.extend(self.split(rest, input, chunk, Part::Below, finish)?);
            }
        }
        Ok(splits)
    }

    /// A scalar subquery that reads an input, as a step that runs first: it has one value for all chunks, and each would
    /// read all that it reads.
    fn scalar_subquery(&self, rest: &Resolved) -> PlanResult<Option<Split>> {
        let mut found = None;
        rest.plan.apply_with_subqueries(|node| {
            node.apply_expressions(|expr| {
                expr.apply(|e| match e {
                    Expr::ScalarSubquery(s) if s.outer_ref_columns.is_empty() && reads_input(&s.subquery)? => {
                        found = Some(Arc::clone(&s.subquery));
                        Ok(TreeNodeRecursion::Stop)
                    }
                    _ => Ok(TreeNodeRecursion::Continue),
                })
            })
        })?;
        let Some(subquery) = found else { return Ok(None) };
        let schema = Arc::clone(subquery.schema());
        let chunk = numbered(subquery.as_ref().clone())?;
        self.split(rest, &subquery, chunk, Part::First, Box::new(move |rows| renamed(rows, &schema)))
    }

    /// Takes `at` out of `rest`: `chunk` becomes a step, and `finish` makes the rows of `at` of its rows.
    fn split(
        &self,
        rest: &Resolved,
        at: &LogicalPlan,
        chunk: LogicalPlan,
        part: Part,
        finish: Box<dyn Fn(LogicalPlan) -> PlanResult<LogicalPlan>>,
    ) -> PlanResult<Option<Split>> {
        if !stands_alone(at)? {
            return Ok(None);
        }
        let columns = Arc::clone(chunk.schema().inner());
        let step = rest.part(step_form::stored(chunk)?)?;
        let is_small = part == Part::Phase || gives_few_rows(at);
        let (rest, at, rules) = (rest.clone(), at.clone(), self.rules);
        // The schema may say less than the step's plan of what is never NULL, once parts of that are taken out too.
        let rest = move |name: &str, proof: &Proof| {
            let known = Known { stored: Stored::by(proof), ..Known::new(Arc::clone(proof.schema()), 0) };
            let source = Arc::new(InputSource::new(name, known));
            let rows = step_form::restored(LogicalPlanBuilder::scan(name, source, None)?.build()?, &columns)?;
            let finished = finish(rows)?;
            // Equal plans have equal rows, wherever they stand: a common table expression that is read twice is done once.
            let replaced =
                rest.plan.clone().transform_down_with_subqueries(|node| match is_same(&node, &at, rules)? {
                    true => Ok(Transformed::new(finished.clone(), true, TreeNodeRecursion::Jump)),
                    false => Ok(Transformed::no(node)),
                })?;
            let renewed = |node: LogicalPlan| Ok(Transformed::yes(node.recompute_schema()?));
            rest.part(replaced.data.transform_up_with_subqueries(renewed)?.data)
        };
        Ok(Some(Split { step, part, is_small, rest: Box::new(rest) }))
    }

    fn one_step(&self, resolved: &Resolved, proof: Proof, part: Part, considered: Vec<Considered>) -> Way {
        let cut_bytes = proof.cut_bytes(resolved);
        let (name, resolved) = (String::new(), resolved.clone());
        let (needs, notes) = (Vec::new(), Vec::new());
        Way { steps: vec![Step { name, resolved, proof, part, considered, needs, parts: 1, notes }], cut_bytes }
    }

    fn whole(&self, resolved: &Resolved, considered: Vec<Considered>) -> Way {
        self.one_step(resolved, Proof::whole(resolved), Part::Rest, considered)
    }
}

/// Whether a plan is a query of its own, no part of a correlated subquery.
fn stands_alone(plan: &LogicalPlan) -> PlanResult<bool> {
    let mut stands = true;
    plan.apply_with_subqueries(|node| {
        node.apply_expressions(|expr| {
            stands &= !expr.contains_outer();
            Ok(TreeNodeRecursion::Continue)
        })?;
        // The rows of a recursive query so far are there only within it.
        if let LogicalPlan::TableScan(scan) = node {
            stands &= !scan.source.downcast_ref::<DefaultTableSource>().is_some_and(is_work_table);
        }
        Ok(TreeNodeRecursion::Continue)
    })?;
    Ok(stands)
}

/// Whether a plan reads an input, and not only what the engine took out of the query.
fn reads_input(plan: &LogicalPlan) -> PlanResult<bool> {
    plan.exists(|node| match node {
        LogicalPlan::TableScan(scan) => Ok(scan.source.downcast_ref::<InputSource>().is_some_and(|s| s.bytes() > 0)),
        _ => Ok(false),
    })
}

fn is_work_table(source: &DefaultTableSource) -> bool {
    source.table_provider.is::<CteWorkTable>()
}

/// Whether two plans are equal and read the same: equality looks at names of scans, which are unique for inputs, but
/// leaves the arguments of table functions out.
fn is_same(plan: &LogicalPlan, other: &LogicalPlan, rules: Rules) -> PlanResult<bool> {
    if plan != other {
        return Ok(false);
    }
    let calls = |plan: &LogicalPlan| -> PlanResult<Vec<Option<String>>> {
        let mut found = Vec::new();
        plan.apply_with_subqueries(|node| {
            if let LogicalPlan::TableScan(scan) = node {
                found.push(Call::behind(scan.source.as_ref()).map(str::to_string));
            }
            Ok(TreeNodeRecursion::Continue)
        })?;
        Ok(found)
    };
    let is_same = calls(plan)? == calls(other)?;
    Ok(is_same || !rules.ask(Rule::SameSources))
}

/// Whether the rows of a plan are groups, distinct or first rows.
fn gives_few_rows(plan: &LogicalPlan) -> bool {
    match plan {
        LogicalPlan::Aggregate(_) | LogicalPlan::Distinct(_) | LogicalPlan::Limit(_) => true,
        LogicalPlan::Projection(_)
        | LogicalPlan::Filter(_)
        | LogicalPlan::SubqueryAlias(_)
        | LogicalPlan::Subquery(_)
        | LogicalPlan::Sort(_)
        | LogicalPlan::Window(_) => plan.inputs().into_iter().all(gives_few_rows),
        _ => false,
    }
}

/// Whether to store the rows of a plan saves work: those of joins, aggregates and the like, not a copy of an input.
fn is_worth_a_step(plan: &LogicalPlan) -> PlanResult<bool> {
    plan.exists(|node| {
        Ok(matches!(
            node,
            LogicalPlan::Join(_) | LogicalPlan::Aggregate(_) | LogicalPlan::Distinct(_) | LogicalPlan::Window(_)
        ))
    })
}
