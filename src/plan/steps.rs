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
//! So is a part that a query without keys reads more than once, if it gives much less than it reads ([`repeated`]).
//!
//! Steps are planned by the same means, and may need steps themselves. Parts are taken out of a plan whose filters,
//! limits and projections are pushed down, so that a step stores only what is read of it. Of the ways that are right,
//! two phases before the others, the first that cuts four fifths of the bytes of the inputs is taken, else the one
//! that cuts the most; of equal ones the one with the fewest steps. Where the query can be cut as it is, only parts
//! that give few rows are taken out, so that more of its inputs are cut: aggregates and the like. A scalar subquery
//! that reads an input always runs first: every chunk would read all of it. What gives one row, reads less than
//! [`LEAST_CUT_BYTES`] and fits in memory runs whole, whatever the task's number of chunks; so does a query without
//! keys of that size, where steps would cut less than half of it or store nearly as much as they read.

mod parts;
mod repeated;
pub mod size;
mod step;

use std::cell::RefCell;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use datafusion::logical_expr::LogicalPlan;

use crate::chunk::{ChunkBy, ChunkFunction, Chunking, LEAST_CUT_BYTES, MAX_CHUNKS};
use crate::error::{Error, ErrorKind, Result};
use crate::plan::prove::effort::Effort;
use crate::plan::prove::proof::Proof;
use crate::plan::prove::rule::Rules;
use crate::plan::prove::{Considered, Found, Search, Unproved, assumed, try_prove};
use crate::plan::push_down::pushed_down;
use crate::plan::ranges::{bounds, chosen};
use crate::plan::resolve::{Known, QueryPart, Resolved, ResolvedTask};
use crate::plan::slice::Stored;
use crate::plan::steps::parts::{Split, gives_one_row, parts_of, scalar_subquery};
use crate::plan::steps::repeated::repeated;
use crate::plan::steps::size::{Fit, Sized, bytes_of, is_whole, kept};
use crate::plan::streamed::groups_little;
use crate::task::{Task, TaskQuery};

pub use crate::plan::steps::step::{Part, Step};

/// What reads less is computed as often as the query reads it: a step more takes about as long.
const LEAST_REPEATED_BYTES: u64 = 32 << 20;

/// Ways are sought at most this many splits deep.
const MAX_DEPTH: usize = 8;

/// The steps of `task`, the last of which gives its table.
///
/// A task that says nothing of its cut is cut by the key that the engine finds, into a power of two of chunks that
/// grows with the size of its inputs and is at least what `fitting` says of a query, so that chunks fit in memory; it
/// runs whole where that is one, or none since it holds little at a time, or nothing can be cut. Where chunks would read
/// much again of inputs that are not cut, there are no more than `fewest` says of them. `previous` are the
/// functions that cut its published table, numbers of chunks or bounds as [`crate::chunk::range::Bounds::to_json`]
/// writes them: both are kept if they can, and chunks that are too large then are computed in parts.
///
/// # Errors
/// Those of [`try_prove`], when the task has keys and neither it nor a part of it can be cut by them.
pub fn steps(
    task: &Task,
    query: ResolvedTask,
    rules: Rules,
    fitting: &dyn Fn(&Resolved) -> Fit,
    fewest: &dyn Fn(&Resolved, &Proof) -> Option<u64>,
    previous: &[String],
) -> Result<Vec<Step>> {
    steps_and_work(task, query, rules, fitting, fewest, previous).0
}

/// As [`steps`], and how many nodes of plans were looked at for it.
pub fn steps_and_work(
    task: &Task,
    query: ResolvedTask,
    rules: Rules,
    fitting: &dyn Fn(&Resolved) -> Fit,
    fewest: &dyn Fn(&Resolved, &Proof) -> Option<u64>,
    previous: &[String],
) -> (Result<Vec<Step>>, usize) {
    let (effort, fits) = (Effort::default(), RefCell::default());
    let mut planner = Planner { task, rules, previous, fitting, fits, fewest, effort, nodes_before: 0 };
    let steps = planner.steps(query);
    (steps, planner.nodes_before + planner.effort.nodes())
}

/// Steps in order; the last has no name yet.
#[derive(Default)]
struct Way {
    steps: Vec<Step>,
    /// Bytes of the inputs that are cut in one of the steps.
    cut_bytes: u64,
}

impl Way {
    /// Whether its steps are worth to be stored where the query, whose inputs have so many bytes, could run whole: at
    /// least half of it is cut, and what is stored is less than what is read.
    fn saves(&self, bytes: u64) -> bool {
        let is_small = |step: &Step| step.part != Part::Phase || !groups_little(&step.resolved);
        self.steps.len() == 1 || (self.cut_bytes >= bytes / 2 && self.steps.iter().all(is_small))
    }

    /// Lets each chunk be computed in so many parts.
    fn in_parts(&mut self, parts: u32) {
        self.steps.iter_mut().filter(|step| step.proof.chunks() > 1).for_each(|step| step.parts = parts);
    }

    /// These steps, then the others.
    fn before(mut self, after: Self) -> Self {
        self.steps.extend(after.steps);
        Self { cut_bytes: self.cut_bytes + after.cut_bytes, ..self }
    }

    /// Whether one of its steps is cut.
    fn cuts(&self) -> bool {
        self.steps.iter().any(|step| step.proof.chunks() > 1)
    }

    fn named(mut self, name: &str, effort: &Effort) -> Vec<Step> {
        if let Some(last) = self.steps.last_mut() {
            last.name = name.to_string();
        }
        self.steps.iter_mut().for_each(|step| step.notes = effort.notes());
        self.steps
    }
}

struct Planner<'a> {
    task: &'a Task,
    rules: Rules,
    previous: &'a [String],
    fitting: &'a dyn Fn(&Resolved) -> Fit,
    /// What was said of plans that were asked for: the same parts are looked at in several ways to run the task.
    fits: RefCell<HashMap<LogicalPlan, Fit>>,
    fewest: &'a dyn Fn(&Resolved, &Proof) -> Option<u64>,
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
            let could_be_cut = task.chunking.is_none() && bytes_of(&resolved) >= LEAST_CUT_BYTES;
            step.whole = could_be_cut.then(|| self.fit(&resolved));
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
        let (repeated, rest) = match self.task.chunking {
            None => self.repeated(resolved, before),
            // Who says how the query is cut says it of the query as it is written.
            Some(_) => (Way::default(), resolved.clone()),
        };
        let rest = self.cut_rest(&rest, before + repeated.steps.len())?;
        Ok(repeated.before(rest))
    }

    /// As [`Self::rest`], once what it reads more than once is taken out.
    fn cut_rest(&self, resolved: &Resolved, before: usize) -> Result<Way> {
        let Sized { chunking, parts, holds_little } = self.sized(resolved, self.task.chunking.as_ref(), self.previous);
        if is_whole(&chunking) {
            let mut way = self.whole(resolved, Vec::new());
            way.steps.iter_mut().for_each(|step| step.holds_little = holds_little);
            return Ok(way);
        }
        let has_keys = !chunking.keys.is_empty();
        let is_little = !has_keys && self.is_little(resolved);
        if is_little {
            if gives_one_row(&resolved.plan) {
                return Ok(self.whole(resolved, Vec::new()));
            }
            self.effort.expect_little();
        }
        let (subqueries, query) = match has_keys {
            // What is told of keys is about the query as it is written.
            true => (Way::default(), resolved.clone()),
            false => self.subqueries(resolved, &chunking, before),
        };
        let has_subqueries = !subqueries.steps.is_empty();
        let mut way = match self.way(&query, &chunking, before + subqueries.steps.len(), 0) {
            Ok(way) => subqueries.before(way),
            Err(unproved) => self.assumed(resolved, &chunking, *unproved)?,
        };
        if has_subqueries && !way.cuts() {
            let considered = way.steps.pop().map(|step| step.considered);
            return Ok(self.whole(resolved, considered.unwrap_or_default()));
        }
        if is_little && !way.saves(bytes_of(resolved)) {
            return Ok(self.whole(resolved, Vec::new()));
        }
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
            let Sized { chunking, parts, holds_little: _ } = self.sized(resolved, chunking.as_ref(), previous);
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
        Sized::of(resolved, chunking, previous, &|| self.fit(resolved))
    }

    /// What it takes to run a query whole.
    fn fit(&self, resolved: &Resolved) -> Fit {
        let known = self.fits.borrow().get(&resolved.plan).copied();
        known.unwrap_or_else(|| {
            let fit = (self.fitting)(resolved);
            self.fits.borrow_mut().insert(resolved.plan.clone(), fit);
            fit
        })
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
            if chunking.by == ChunkBy::Auto && self.task.chunking.is_none() {
                found.proof = found.proof.map(|proof| self.with_fewer_chunks(proof, resolved));
            }
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

    /// No more chunks than are worth what they read again, or as many as fit in memory.
    fn with_fewer_chunks(&self, proof: Proof, resolved: &Resolved) -> Proof {
        let Some(fewest) = (self.fewest)(resolved, &proof) else { return proof };
        let fewest = fewest.min(MAX_CHUNKS.into()).next_power_of_two() as u32;
        match kept(fewest, self.previous) {
            fewer if fewer < proof.chunks() => proof.by(ChunkFunction::Hash(fewer)),
            _ => proof,
        }
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
        let all = bytes_of(rest);
        let Found { proof, mut unproved, considered } = self.prove(rest, chunking, false);
        let mut best = proof.map(|proof| self.one_step(rest, proof, Part::Rest, considered.clone()));
        let mut refused = None;
        // Parts are taken out of a plan in which they are as small as can be.
        let pushed = match depth == 0 && best.as_ref().is_none_or(|best| best.cut_bytes < all) {
            true => {
                // Steps of a task that is cut by its own keys don't depend on the memory of a run.
                let is_large = chunking.keys.is_empty() && self.fit(rest).chunks > 1;
                pushed_down(rest.plan.clone(), is_large).and_then(|plan| rest.part(plan)).ok()
            }
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
                splits.extend(parts_of(rest, unproved, chunking, self.rules).unwrap_or_default());
            }
        }
        // Two phases store the least; one row of what is little is better found at once.
        splits.sort_by_key(|split| split.part != Part::Phase);
        let is_one_row = |split: &Split| split.part == Part::Phase && gives_one_row(&split.step.plan);
        splits.retain(|split| !(chunking.keys.is_empty() && is_one_row(split) && self.is_little(&split.step)));
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
        if let Some(way) = best.as_ref().filter(|way| way.cuts())
            && let Ok(Some(split)) = scalar_subquery(rest, self.rules)
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
        let part = split.part;
        let (first, rest) = self.step_of_split(split, chunking, before, depth)?;
        let after = self.way(&rest, chunking, before + first.steps.len(), depth + 1);
        let after = match after {
            Ok(after) => after,
            // What the user asked to be cut by his keys is not: the rest, and all before it was cut by others.
            Err(_) if part == Part::First && !chunking.keys.is_empty() => return None,
            Err(_) => self.whole(&rest, Vec::new()),
        };
        Some(first.before(after))
    }

    /// The steps that give the rows of a part, and the query that is left over them.
    fn step_of_split(&self, split: Split, chunking: &Chunking, before: usize, depth: usize) -> Option<(Way, Resolved)> {
        let Split { step, part, is_small: _, rest } = split;
        // Of others to ask for that takes longer than what it tells is worth.
        let given = (part == Part::Repeated).then(|| self.fit(&step).given).flatten();
        let rows = given.map(|(rows, _)| rows);
        let mut first = match part {
            Part::First | Part::Repeated => {
                let way = match is_whole(chunking) || gives_one_row(&step.plan) && self.is_little(&step) {
                    true => None,
                    false => self.way(&step, &chunking.by_any_key(), before, depth + 1).ok(),
                };
                let mut way = way.unwrap_or_else(|| self.whole(&step, Vec::new()));
                way.steps.last_mut()?.part = part;
                way
            }
            Part::Phase | Part::Below | Part::Materialized | Part::Rest => {
                let Found { proof, considered, .. } = self.prove(&step, chunking, part == Part::Phase);
                self.one_step(&step, proof?, part, considered)
            }
        };
        let name = format!("{}#{}", self.task.step_prefix(), before + first.steps.len());
        let last = first.steps.last_mut()?;
        let rest = rest(&name, &last.proof, rows).ok()?;
        last.name = name;
        Some((first, rest))
    }

    /// What a query reads more than once, as steps, and the query that is left over them.
    fn repeated(&self, query: &Resolved, before: usize) -> (Way, Resolved) {
        let (mut way, mut rest) = (Way::default(), query.clone());
        let is_worth = |step: &Resolved| {
            let Fit { bytes, given, .. } = self.fit(step);
            let is_worth = bytes >= LEAST_REPEATED_BYTES && given.is_some_and(|(_, given)| given <= bytes / 4);
            is_worth || self.rules.are_one_by_one()
        };
        while let Ok(Some(split)) = repeated(&rest, self.rules, &is_worth) {
            let Sized { chunking, parts, holds_little } = self.sized(&split.step, None, &[]);
            let Some((mut first, after)) = self.step_of_split(split, &chunking, before + way.steps.len(), 0) else {
                break;
            };
            first.in_parts(parts);
            first.steps.iter_mut().for_each(|step| step.holds_little = holds_little && step.proof.chunks() == 1);
            (way, rest) = (way.before(first), after);
        }
        (way, rest)
    }

    /// The scalar subqueries of a query without keys that read an input, as steps, and the query that is left over
    /// them.
    fn subqueries(&self, query: &Resolved, chunking: &Chunking, before: usize) -> (Way, Resolved) {
        let (mut way, mut rest) = (Way::default(), query.clone());
        while let Ok(Some(split)) = scalar_subquery(&rest, self.rules)
            && let Some((first, after)) = self.step_of_split(split, chunking, before + way.steps.len(), 0)
        {
            (way, rest) = (way.before(first), after);
        }
        (way, rest)
    }

    /// Whether to cut a part would cost more than it saves: it is read at once, and fits in memory.
    fn is_little(&self, step: &Resolved) -> bool {
        let Fit { chunks, bytes, .. } = self.fit(step);
        chunks <= 1 && bytes < LEAST_CUT_BYTES && !self.rules.are_one_by_one()
    }

    fn one_step(&self, resolved: &Resolved, proof: Proof, part: Part, considered: Vec<Considered>) -> Way {
        let cut_bytes = proof.cut_bytes(resolved);
        let (name, resolved) = (String::new(), resolved.clone());
        let (needs, notes) = (Vec::new(), Vec::new());
        Way {
            steps: vec![Step {
                name,
                resolved,
                proof,
                part,
                considered,
                needs,
                parts: 1,
                pass: None,
                told_as_one: false,
                holds_little: false,
                whole: None,
                notes,
            }],
            cut_bytes,
        }
    }

    fn whole(&self, resolved: &Resolved, considered: Vec<Considered>) -> Way {
        self.one_step(resolved, Proof::whole(resolved), Part::Rest, considered)
    }
}
