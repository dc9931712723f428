//! The prover: may a task run chunk by chunk?
//!
//! **Claim.** The multiset union over k of `Q(T1|k, …, Tm|k)` equals `Q(T1, …, Tm)`, where `T|k` is the rows of a
//! *partitioned* input whose keys are in chunk k, and the whole of a *replicated* one.
//!
//! Every node gets a property, bottom up: *partitioned* (its chunk-k rows are exactly the rows of the whole whose key
//! is in chunk k) with the output columns that carry each key; or *replicated* (the whole result in every chunk); or a
//! refusal. The guarantee is one-sided: what is accepted is right; what is refused may only be unknown. Operators
//! without an arm of their own are refused.
//!
//! The join rules are those of co-located joins (Citus's pushdown planner, Presto's grouped execution), stated here
//! for slices of rows instead of shards.

mod assign;
mod property;
mod refusal;
pub mod rule;
mod rules;
mod stable;

use std::collections::BTreeSet;

use arrow::datatypes::SchemaRef;
use datafusion::common::DataFusionError;
use datafusion::logical_expr::LogicalPlan;

use crate::chunk::Chunking;
use crate::chunk::key::key_family;
use crate::error::{Error, ErrorKind, Result};
use crate::plan::keys::{Classes, ScanColumn};
use crate::plan::prove::assign::{Assignment, assignments};
use crate::plan::prove::property::Key;
use crate::plan::prove::refusal::Refusal;
use crate::plan::prove::rules::{Accepted, NO_KEY_TYPE, Refused, attempt};
pub use crate::plan::prove::stable::unaliased;
use crate::plan::resolve::Resolved;
use crate::task::Task;

/// A plan that may be cut, and how. Only [`try_prove`] and [`Proof::whole`] make one.
#[derive(Debug, Clone)]
pub struct Proof {
    plan: LogicalPlan,
    schema: SchemaRef,
    keys: Vec<String>,
    stored_by: Vec<String>,
    chunks: u32,
    inputs: Vec<Input>,
    steps: Vec<Step>,
}

/// One scan of the plan and what every chunk sees of it.
#[derive(Debug, Clone)]
pub struct Input {
    /// Name of the source or task that is read.
    pub table: String,
    /// What a chunk sees.
    pub role: Role,
}

/// What a chunk sees of an input.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Role {
    /// The rows whose keys, in these columns of the scan, are in the chunk.
    Partitioned {
        /// Positions in the scan's schema, one for each key of the task.
        columns: Vec<usize>,
        /// Names of these columns.
        names: Vec<String>,
    },
    /// All rows.
    Replicated {
        /// Why it is not cut.
        why: String,
    },
}

/// What the prover found at one node.
#[derive(Debug, Clone)]
pub struct Step {
    /// Depth of the node in the plan, the root 0.
    pub depth: usize,
    /// The node in a few words.
    pub node: String,
    /// The property and its reason.
    pub finding: String,
}

impl Proof {
    /// A plan that runs whole, as one chunk: nothing is cut, so there is nothing to prove.
    pub fn whole(resolved: &Resolved) -> Self {
        let why = "the task runs whole".to_string();
        let inputs = resolved.scans.iter();
        Self {
            plan: resolved.plan.clone(),
            schema: resolved.schema.clone(),
            keys: Vec::new(),
            stored_by: Vec::new(),
            chunks: 1,
            inputs: inputs
                .map(|s| Input { table: s.table.clone(), role: Role::Replicated { why: why.clone() } })
                .collect(),
            steps: Vec::new(),
        }
    }

    /// The proved plan, over numbered scans.
    pub fn plan(&self) -> &LogicalPlan {
        &self.plan
    }

    /// Schema of the task's table.
    pub fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    /// Keys as the task names them; empty for a whole task.
    pub fn keys(&self) -> &[String] {
        &self.keys
    }

    /// Columns of the task's table that equal the keys in every row, so that they alone decide a row's chunk; empty
    /// when not every key is such a column.
    pub fn stored_by(&self) -> &[String] {
        &self.stored_by
    }

    /// Number of chunks, at least 1.
    pub fn chunks(&self) -> u32 {
        self.chunks
    }

    /// The scans, by number.
    pub fn inputs(&self) -> &[Input] {
        &self.inputs
    }

    /// Bytes of the scans that are cut, about.
    pub fn cut_bytes(&self, resolved: &Resolved) -> u64 {
        let cut = self.inputs.iter().zip(&resolved.scans);
        cut.filter(|(input, _)| matches!(input.role, Role::Partitioned { .. })).map(|(_, scan)| scan.bytes).sum()
    }

    /// What was found at each node, the root first, a node before its inputs.
    pub fn steps(&self) -> &[Step] {
        &self.steps
    }
}

/// What a search for a proof found.
#[derive(Debug)]
pub struct Found {
    /// The proof.
    pub proof: Option<Proof>,
    /// Why there is none. When the engine chooses the key: of those that would cut more, the most bytes first.
    pub unproved: Vec<Unproved>,
}

impl Found {
    fn no(unproved: Unproved) -> Self {
        Self { proof: None, unproved: vec![unproved] }
    }
}

/// Why there is no proof.
#[derive(Debug)]
pub struct Unproved {
    /// [`ErrorKind::Sql`] at the key when no input has it or its type can't be a key; [`ErrorKind::Refused`] with the
    /// node, the rule and what to change.
    pub error: Error,
    /// The node that was refused, if it was one.
    pub at: Option<Box<LogicalPlan>>,
}

/// Proves that `task` may be cut as `chunking` says, and finds the columns that carry the keys.
///
/// Keys are followed through equalities, so that a key of one input also cuts what is joined on it. Of the ways to
/// cut the scans the one with the most bytes cut is taken; without keys, of those by any one column of the query.
///
/// With `is_phase` the plan is the chunks' part of an operator that is done in two phases.
pub fn try_prove(task: &Task, resolved: &Resolved, chunking: &Chunking, is_phase: bool) -> Found {
    let place = task.keys_location.clone().unwrap_or_else(|| task.location.clone());
    let unproved = |error: Error, at| Unproved { error: error.with_task(&task.name).with_location(place.clone()), at };
    let refused = |Refused { refusal, at }| unproved(Error::new(ErrorKind::Refused, refusal.to_string()), at);
    if let Some(function) = &resolved.volatile {
        let refusal = Refusal {
            node: format!("the query calls {function}()"),
            rule: "a volatile function gives new values in every chunk",
            fix: "run the task whole: leave CLUSTERED BY out".into(),
        };
        return Found::no(refused(Refused { refusal, at: None }));
    }
    let classes = match Classes::of(resolved) {
        Ok(classes) => classes,
        Err(error) => return Found::no(unproved(internal(error, task), None)),
    };
    if chunking.keys.is_empty() {
        let (proof, refusals) = find(resolved, chunking.chunks, &classes, is_phase);
        return Found { proof, unproved: refusals.into_iter().map(refused).collect() };
    }
    let mut groups: Vec<Vec<BTreeSet<ScanColumn>>> = Vec::new();
    for key in &chunking.keys {
        let named = classes.named(key, resolved);
        if named.is_empty() {
            return Found::no(unproved(no_such_key(key, resolved), None));
        }
        if let Some(message) = not_a_key(&named, resolved) {
            return Found::no(unproved(Error::new(ErrorKind::Sql, message), None));
        }
        groups.push(named);
    }
    match search(resolved, chunking, &groups, is_phase) {
        Ok(proof) => Found { proof: Some(proof), unproved: Vec::new() },
        Err(Some(refusal)) => Found::no(refused(refusal)),
        Err(None) => Found::no(unproved(no_such_key(&chunking.keys.join(", "), resolved), None)),
    }
}

/// The first way to cut the scans by these groups of columns that is right, or why the first one is not.
fn search(
    resolved: &Resolved,
    chunking: &Chunking,
    groups: &[Vec<BTreeSet<ScanColumn>>],
    is_phase: bool,
) -> Result<Proof, Option<Refused>> {
    let mut first_refusal = None;
    for assignment in assignments(resolved, groups) {
        match attempt(resolved, &assignment, &chunking.keys, is_phase) {
            Ok(accepted) => return Ok(proof(resolved, chunking, &assignment, accepted)),
            Err(refused) => first_refusal = first_refusal.or(Some(refused)),
        }
    }
    Err(first_refusal)
}

/// Of the cuts by any one column of the query the one that cuts the most bytes, and the refusals of those that would
/// cut more, the most bytes first.
fn find(resolved: &Resolved, chunks: u32, classes: &Classes, is_phase: bool) -> (Option<Proof>, Vec<Refused>) {
    let mut best: Option<Proof> = None;
    let mut refusals = Vec::new();
    let cut_by = |proof: &Option<Proof>| proof.as_ref().map_or(0, |proof| proof.cut_bytes(resolved));
    for (name, group) in classes.all(resolved) {
        let scans: BTreeSet<usize> = group.iter().map(|(scan, _)| *scan).collect();
        let could_cut: u64 = scans.iter().map(|scan| resolved.scans[*scan].bytes).sum();
        if could_cut <= cut_by(&best) {
            continue;
        }
        let chunking = Chunking { keys: vec![name], chunks };
        match search(resolved, &chunking, &[vec![group]], is_phase) {
            Ok(proof) if proof.cut_bytes(resolved) > cut_by(&best) => best = Some(proof),
            Ok(_) => {}
            Err(refused) => refusals.extend(refused.map(|refused| (could_cut, refused))),
        }
    }
    refusals.retain(|(could_cut, _)| *could_cut > cut_by(&best));
    // Stable: of equal ones the first column's.
    refusals.sort_by_key(|(could_cut, _)| std::cmp::Reverse(*could_cut));
    (best, refusals.into_iter().map(|(_, refused)| refused).collect())
}

fn proof(resolved: &Resolved, chunking: &Chunking, assignment: &Assignment, accepted: Accepted) -> Proof {
    let role = |(scan, columns): (usize, &Option<Vec<usize>>)| {
        let table = resolved.scans[scan].table.clone();
        let schema = &resolved.scans[scan].schema;
        let role = match columns {
            Some(columns) => Role::Partitioned {
                columns: columns.clone(),
                names: columns.iter().map(|c| schema.field(*c).name().clone()).collect(),
            },
            None => Role::Replicated { why: "no join equates its columns with every key".into() },
        };
        Input { table, role }
    };
    Proof {
        plan: resolved.plan.clone(),
        schema: resolved.schema.clone(),
        keys: chunking.keys.clone(),
        chunks: chunking.chunks,
        stored_by: stored_by(&accepted.keys, &resolved.schema),
        inputs: assignment.iter().enumerate().map(role).collect(),
        steps: accepted.steps,
    }
}

fn stored_by(keys: &[Key], schema: &SchemaRef) -> Vec<String> {
    let column = |key: &Key| {
        let names = key.columns.iter().map(|column| schema.field(*column).name());
        names.clone().find(|name| **name == key.name).or(names.clone().next()).cloned()
    };
    keys.iter().map(column).collect::<Option<Vec<_>>>().unwrap_or_default()
}

fn no_such_key(key: &str, resolved: &Resolved) -> Error {
    let inputs = resolved.scans.iter().map(|scan| {
        let columns: Vec<_> = scan.schema.fields().iter().map(|f| f.name().as_str()).collect();
        format!("{} ({})", scan.table, columns.join(", "))
    });
    let inputs: BTreeSet<_> = inputs.collect();
    let inputs = inputs.into_iter().collect::<Vec<_>>().join("; ");
    Error::new(ErrorKind::Sql, format!("no input of the query has the key `{key}`; the inputs are: {inputs}"))
}

/// Why no column that a key may mean can be one; `None` when one of them can.
fn not_a_key(named: &[BTreeSet<ScanColumn>], resolved: &Resolved) -> Option<String> {
    let columns: Vec<_> = named.iter().flatten().map(|(scan, column)| (&resolved.scans[*scan], *column)).collect();
    if columns.iter().any(|(scan, column)| key_family(scan.schema.field(*column).data_type()).is_some()) {
        return None;
    }
    let (scan, column) = columns.first()?;
    let (field, (rule, fix)) = (scan.schema.field(*column), NO_KEY_TYPE);
    Some(format!("column `{}` of {} has type {}: {rule}; {fix}", field.name(), scan.table, field.data_type()))
}

fn internal(error: DataFusionError, task: &Task) -> Error {
    Error::new(ErrorKind::Sql, "the query can't be analysed")
        .with_source(error)
        .with_task(&task.name)
        .with_location(task.location.clone())
}
