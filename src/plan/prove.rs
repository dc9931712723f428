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
pub mod effort;
mod join;
pub mod never_null;
mod operators;
pub mod proof;
mod property;
mod refusal;
pub mod rule;
mod rules;
pub mod stable;
mod subject;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use datafusion::common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion::common::{Column, DataFusionError};
use datafusion::logical_expr::expr::Placeholder;
use datafusion::logical_expr::{Expr, LogicalPlan, LogicalPlanBuilder, lit};

use crate::chunk::given::Given;
use crate::chunk::{ChunkBy, ChunkFunction, Chunking};
use crate::error::{Error, ErrorKind, Location};
use crate::plan::keys::expr::{KeyExpr, over};
use crate::plan::keys::{Classes, Group};
use crate::plan::opaque::OpaqueNode;
use crate::plan::prove::assign::{Assignment, Ways};
use crate::plan::prove::effort::Effort;
use crate::plan::prove::proof::{Input, Proof, Role};
use crate::plan::prove::property::Key;
use crate::plan::prove::rule::Rules;
use crate::plan::prove::rules::{Accepted, Refused, attempt, check_families, no_key_type};
pub use crate::plan::prove::stable::unaliased;
use crate::plan::prove::subject::Subject;
use crate::plan::resolve::{Resolved, Scan};
use crate::task::{CutOverrides, Task};

/// What a search for a proof found.
#[derive(Debug)]
pub struct Found {
    /// The proof.
    pub proof: Option<Proof>,
    /// Why there is none, or none that cuts more: the most bytes first.
    pub unproved: Vec<Unproved>,
    /// When the engine chooses the key: each key that it looked at and what it found.
    pub considered: Vec<Considered>,
}

impl Found {
    /// No proof, for this reason.
    pub fn no(unproved: Unproved) -> Self {
        Self { proof: None, unproved: vec![unproved], considered: Vec::new() }
    }
}

/// Why there is no proof.
#[derive(Debug)]
pub struct Unproved {
    /// [`ErrorKind::Sql`] at the key when no input has it or its type can't be a key; [`ErrorKind::Refused`] with the
    /// node, the rule and what to change, at the node's first column in the SQL.
    pub error: Error,
    /// The node that was refused, if it was one.
    pub at: Option<Box<LogicalPlan>>,
    /// What is better run first than the node.
    pub first: Option<Box<LogicalPlan>>,
}

/// A key that the engine looked at.
#[derive(Debug, Clone)]
pub struct Considered {
    /// The key in SQL.
    pub key: String,
    /// Bytes of the scans that have it, about.
    pub bytes: u64,
    /// What became of it.
    pub verdict: Verdict,
}

/// What became of a key that the engine looked at.
#[derive(Debug, Clone)]
pub enum Verdict {
    /// It is right, cuts this many bytes, and no other cuts more.
    Chosen(u64),
    /// It is right and cuts this many bytes.
    Accepted(u64),
    /// It could not cut more than one that is right.
    CutsNoMore,
    /// It is not right, for this reason.
    Refused(String),
}

/// A search for a way to cut.
#[derive(Debug, Clone, Copy)]
pub struct Search<'a> {
    /// The task that errors are about.
    pub task: &'a Task,
    /// Keys and number of chunks; without keys, any one key of the query.
    pub chunking: &'a Chunking,
    /// Whether the plan is the chunks' part of an operator that is done in two phases.
    pub is_phase: bool,
    /// What is asked of the plan.
    pub rules: Rules,
    /// What the task's plans cost.
    pub effort: &'a Effort,
}

impl Search<'_> {
    fn refused(&self, Refused { refusal, at, blocked: _ }: Refused) -> Unproved {
        let place = at.as_ref().and_then(|at| place_in_sql(at, &self.task.location.file));
        let error = Error::new(ErrorKind::Refused, refusal.to_string());
        let error = match place {
            Some(place) => error.with_location(place),
            None => error,
        };
        Unproved { error: self.placed(error), at, first: refusal.first }
    }

    fn unproved(&self, error: Error) -> Unproved {
        Unproved { error: self.placed(error), at: None, first: None }
    }

    /// The chunks that were given are none of these keys.
    pub fn not_given(&self, why: DataFusionError) -> Unproved {
        self.unproved(Error::new(ErrorKind::Refused, why.strip_backtrace()))
    }

    fn placed(&self, error: Error) -> Error {
        let place = self.task.keys_location.as_ref().unwrap_or(&self.task.location);
        error.with_task(&self.task.name).with_location(place.clone())
    }
}

/// Proves that a plan may be cut as the search says, and finds the expressions that carry the keys.
///
/// Keys are followed through equalities, so that a key of one input also cuts what is joined on it. Of the ways to
/// cut the scans the one with the most bytes cut is taken; without keys, of those by any one key of the query.
pub fn try_prove(resolved: &Resolved, search: Search) -> Found {
    let Search { task, chunking, rules, .. } = search;
    if let ChunkBy::Given(Given::PerInput(inputs)) = &chunking.by {
        return per_input(resolved, inputs, search);
    }
    let classes = match Classes::of(resolved, rules) {
        Ok(classes) => classes,
        Err(error) => return Found::no(search.unproved(internal(error, task))),
    };
    if classes.left_out() {
        search.effort.leave_out_keys();
    }
    if chunking.keys.is_empty() {
        return find(resolved, &classes, search);
    }
    if let Err(error) = check_overrides(resolved, task, chunking) {
        return Found::no(search.unproved(error));
    }
    let mut meanings: Vec<Vec<Vec<Group>>> = Vec::new();
    for key in &chunking.keys {
        let named = classes.named(key, resolved);
        if named.is_empty() {
            return Found::no(search.unproved(no_such_key(key, resolved)));
        }
        if let Some(message) = not_a_key(&named, resolved) {
            return Found::no(search.unproved(Error::new(ErrorKind::Sql, message)));
        }
        meanings.push(named);
    }
    let is_given = chunking.keys.iter().any(|key| classes.is_given(key, resolved));
    let mut best: Option<Proof> = None;
    let mut refusals: Vec<(u64, Refused)> = Vec::new();
    let cut_by = |proof: &Option<Proof>| proof.as_ref().map_or(0, |proof| proof.cut_bytes(resolved));
    let most = meanings.iter().map(Vec::len).max().unwrap_or_default();
    let subject = Subject::new(resolved);
    for at in 0..most {
        let keys: Vec<Vec<Group>> = meanings.iter().map(|m| m[at.min(m.len() - 1)].clone()).collect();
        let Tried { proof, cuts_more } = prove(&subject, &chunking.keys, &keys, search);
        refusals.extend(cuts_more);
        if proof.is_some() && (best.is_none() || proof.as_ref().map(|p| p.cut_bytes(resolved)) > Some(cut_by(&best))) {
            best = proof;
        }
        // What the output's columns of these names are is what is meant, if that can be.
        if best.is_some() && at == 0 && is_given {
            break;
        }
    }
    refusals.retain(|(bytes, _)| *bytes > cut_by(&best));
    if best.is_none() && refusals.is_empty() {
        return Found::no(search.unproved(no_such_key(&chunking.keys.join(", "), resolved)));
    }
    let unproved = refusals.into_iter().map(|(_, refused)| search.refused(refused)).collect();
    Found { proof: best, unproved, considered: Vec::new() }
}

/// Proves the cut of inputs by predicates over their own columns: the one way to cut them that was given.
fn per_input(resolved: &Resolved, inputs: &[(String, Vec<Expr>)], search: Search) -> Found {
    let assignment = match numbered_by_predicates(resolved, inputs, search.task) {
        Ok(assignment) => assignment,
        Err(error) => return Found::no(search.unproved(error)),
    };
    let Search { task, chunking, is_phase: _, rules: _, effort: _ } = search;
    match attempt(&Subject::new(resolved), &assignment, &chunking.keys, search) {
        Ok(accepted) => match proof(resolved, &chunking.keys, chunking.chunks, &assignment, accepted) {
            Ok(proof) => Found { proof: Some(proof), unproved: Vec::new(), considered: Vec::new() },
            Err(error) => Found::no(search.unproved(internal(error, task))),
        },
        Err(refused) => Found::no(search.refused(refused)),
    }
}

/// The scans of these inputs cut by their predicates, all others whole.
fn numbered_by_predicates(
    resolved: &Resolved,
    inputs: &[(String, Vec<Expr>)],
    task: &Task,
) -> Result<Assignment, Error> {
    let CutOverrides { keys, replicated, assumed: _ } = &task.cut;
    let fail = |message: String| Err(Error::new(ErrorKind::Usage, message));
    if let Some(table) = keys.keys().next() {
        return fail(format!("input `{table}` is given columns to be cut by, and the task predicates; leave one out"));
    }
    if let Some((table, _)) = inputs.iter().find(|(table, _)| replicated.contains(table)) {
        return fail(format!("input `{table}` is given predicates and is to be replicated; leave one out"));
    }
    let keyed = |scan: &Scan| {
        let Some((table, predicates)) = inputs.iter().find(|(table, _)| *table == scan.table) else { return Ok(None) };
        let key = KeyExpr::number_of(table, predicates, &scan.schema);
        key.map(|key| Some(vec![key])).map_err(|e| Error::new(ErrorKind::Usage, e.strip_backtrace()))
    };
    resolved.scans.iter().map(keyed).collect()
}

/// What came of the ways to cut by some groups.
struct Tried {
    /// The proof of the one that cuts the most bytes of those that are right.
    proof: Option<Proof>,
    /// The first way that is not right and would cut more, in bytes, and why it is not.
    cuts_more: Option<(u64, Refused)>,
}

/// Tries the ways to cut the scans by one of these groups for each key, those with the most bytes first.
fn prove(subject: &Subject, names: &[String], keys: &[Vec<Group>], search: Search) -> Tried {
    let resolved = subject.resolved;
    let mut cuts_more: Option<(u64, Refused)> = None;
    subject.begin_keys();
    let mut ways = overridden(resolved, Ways::new(resolved, keys), search);
    while let Some((bytes, assignment)) = ways.next() {
        match attempt(subject, &assignment, names, search) {
            Ok(accepted) => {
                let proof = proof(resolved, names, search.chunking.chunks, &assignment, accepted).ok();
                let cuts_more = cuts_more.filter(|(most, _)| *most > bytes || proof.is_none());
                return Tried { proof, cuts_more };
            }
            Err(refused) => {
                ways.rule_out(refused.blocked.clone());
                cuts_more.get_or_insert((bytes, refused));
            }
        }
        if search.effort.is_spent() {
            break;
        }
    }
    Tried { proof: None, cuts_more }
}

/// That the user's columns for inputs are there, one for each key.
fn check_overrides(resolved: &Resolved, task: &Task, chunking: &Chunking) -> Result<(), Error> {
    for (table, columns) in &task.cut.keys {
        let fail = |message: String| Err(Error::new(ErrorKind::Usage, message));
        if columns.len() != chunking.keys.len() {
            let (keys, given) = (chunking.keys.len(), columns.len());
            return fail(format!(
                "input `{table}` is given {given} columns to be cut by, and the task has {keys} keys"
            ));
        }
        let scans = resolved.scans.iter().filter(|scan| scan.table == *table);
        let gone = scans.flat_map(|scan| columns.iter().filter(|name| scan.schema.index_of(name).is_err())).next();
        if let Some(column) = gone {
            return fail(format!("input `{table}` has no column `{column}` to be cut by"));
        }
    }
    Ok(())
}

/// The ways to cut the scans with what the user says of inputs in its place, each once, those with the most bytes first.
fn overridden(resolved: &Resolved, ways: Ways, search: Search) -> Ways {
    let CutOverrides { keys, replicated, assumed: _ } = &search.task.cut;
    if keys.is_empty() && replicated.is_empty() {
        return ways;
    }
    let mut found: Vec<(u64, Assignment)> = Vec::new();
    for (_, mut assignment) in ways {
        for (scan, keyed) in resolved.scans.iter().zip(&mut assignment) {
            if replicated.contains(&scan.table) {
                *keyed = None;
            } else if let Some(columns) = keys.get(&scan.table).filter(|_| !search.chunking.keys.is_empty()) {
                let column = |name: &String| {
                    let at = scan.schema.index_of(name).ok()?;
                    Some(KeyExpr::column(at, scan.schema.field(at).data_type()))
                };
                *keyed = columns.iter().map(column).collect();
            }
        }
        let cut = resolved.scans.iter().zip(&assignment).filter(|(_, keyed)| keyed.is_some());
        let bytes = cut.map(|(scan, _)| scan.bytes).sum();
        if assignment.iter().any(Option::is_some) && !found.iter().any(|(_, other)| *other == assignment) {
            found.push((bytes, assignment));
        }
    }
    found.sort_by_key(|(bytes, _)| std::cmp::Reverse(*bytes));
    Ways::of(found)
}

/// The cut that is taken for right for a reason of the user's, where none can be proved: by the keys that were given, of as
/// many bytes as they can cut. `why` is what the prover said. `None` where the keys of inputs hash differently.
pub fn assumed(resolved: &Resolved, search: Search, reason: &str, why: &Error) -> Option<Proof> {
    let names = &search.chunking.keys;
    let assignment = match &search.chunking.by {
        ChunkBy::Given(Given::PerInput(inputs)) => numbered_by_predicates(resolved, inputs, search.task).ok()?,
        _ => {
            let classes = Classes::of(resolved, search.rules).ok()?;
            let first = |key: &String| classes.named(key, resolved).into_iter().next();
            let named = names.iter().map(first).collect::<Option<Vec<_>>>()?;
            let mut ways = overridden(resolved, Ways::new(resolved, &named), search);
            ways.find(|(_, way)| check_families(resolved, way).is_ok())?.1
        }
    };
    let assumed = format!("{reason}; the prover says: {}", why.message());
    let accepted = Accepted { steps: Vec::new(), keys: Vec::new(), visible: BTreeMap::new(), once: Vec::new() };
    let proof = proof(resolved, names, search.chunking.chunks, &assignment, accepted).ok()?;
    Some(Proof { assumed: Some(assumed), ..proof })
}

/// Of the cuts by any one key of the query the one that cuts the most bytes without the largest chunk, and the refusals
/// of those that would cut more, the most bytes first.
fn find(resolved: &Resolved, classes: &Classes, search: Search) -> Found {
    let mut best: Option<Proof> = None;
    let mut chosen = None;
    let mut refusals = Vec::new();
    let mut considered: Vec<Considered> = Vec::new();
    let cut_by = |proof: &Option<Proof>| proof.as_ref().map_or(0, |proof| proof.cut_bytes(resolved));
    let spread_by = |proof: &Option<Proof>| proof.as_ref().map_or(0, |proof| proof.spread_bytes(resolved));
    let subject = Subject::new(resolved);
    for (key, group) in classes.all(resolved) {
        let scans: BTreeSet<usize> = group.iter().map(|(scan, _)| *scan).collect();
        let bytes: u64 = scans.iter().map(|scan| resolved.scans[*scan].bytes).sum();
        let verdict = if bytes <= spread_by(&best) {
            Verdict::CutsNoMore
        } else if search.effort.is_spent() {
            break;
        } else {
            let Tried { proof, cuts_more } = prove(&subject, std::slice::from_ref(&key), &[vec![group]], search);
            let why = cuts_more.as_ref().map(|(_, refused)| refused.refusal.to_string());
            refusals.extend(cuts_more);
            match (proof, why) {
                (Some(proof), _) => {
                    let spread = proof.spread_bytes(resolved);
                    if best.is_none() || spread > spread_by(&best) {
                        best = Some(proof);
                        chosen = Some(considered.len());
                    }
                    Verdict::Accepted(spread)
                }
                (None, Some(why)) => Verdict::Refused(why),
                (None, None) => continue,
            }
        };
        considered.push(Considered { key, bytes, verdict });
    }
    if let Some(Considered { verdict, .. }) = chosen.and_then(|at| considered.get_mut(at))
        && let Verdict::Accepted(cut) = *verdict
    {
        *verdict = Verdict::Chosen(cut);
    }
    refusals.retain(|(bytes, _)| *bytes > cut_by(&best));
    // Stable: of equal ones the first column's.
    refusals.sort_by_key(|(bytes, _)| std::cmp::Reverse(*bytes));
    let unproved = refusals.into_iter().map(|(_, refused)| search.refused(refused)).collect();
    Found { proof: best, unproved, considered }
}

fn proof(
    resolved: &Resolved,
    names: &[String],
    chunks: u32,
    assignment: &Assignment,
    accepted: Accepted,
) -> datafusion::common::Result<Proof> {
    let is_per_input = assignment.iter().flatten().flatten().any(|key| key.predicates().is_some());
    let role = |(scan, keys): (usize, &Option<Vec<KeyExpr>>)| {
        let table = resolved.scans[scan].table.clone();
        let schema = &resolved.scans[scan].schema;
        let role = match keys {
            Some(keys) => Role::Partitioned {
                keys: keys.clone(),
                names: keys.iter().flat_map(|key| in_sql(key, schema)).collect(),
            },
            None if is_per_input => Role::Replicated { why: "it is given no predicates".into() },
            None => Role::Replicated { why: "no join equates its columns with every key".into() },
        };
        Input { table, role }
    };
    let mut plan = resolved.plan.clone();
    for way in &accepted.once {
        plan = only_in_chunk_0(plan, way)?;
    }
    Ok(Proof {
        plan,
        schema: resolved.schema.clone(),
        keys: names.to_vec(),
        function: ChunkFunction::Hash(chunks),
        // The chunk that predicates give is no column's value.
        stored_by: if is_per_input { Vec::new() } else { stored_by(&accepted.keys, &resolved.schema) },
        visible: accepted.visible,
        inputs: assignment.iter().enumerate().map(role).collect(),
        once: accepted.once,
        steps: accepted.steps,
        assumed: assumed_of_function(&resolved.plan),
    })
}

/// Why the function that a plan is may be cut, as its author says.
fn assumed_of_function(plan: &LogicalPlan) -> Option<String> {
    let LogicalPlan::Extension(extension) = plan else { return None };
    let cut = OpaqueNode::of(extension)?.cut()?;
    Some(format!("{}; what a function does can't be proved", cut.reason))
}

/// A key in SQL, or the predicates that it numbers, as far as a line has room for them.
fn in_sql(key: &KeyExpr, schema: &Schema) -> Vec<String> {
    const MOST: usize = 8;
    let Some(predicates) = key.predicates() else { return vec![key.shown(|at| schema.field(at).name().clone())] };
    let columns: Vec<Column> = schema.fields().iter().map(|field| Column::new_unqualified(field.name())).collect();
    let shown = predicates.iter().take(MOST).map(|predicate| over(predicate, &columns).to_string());
    let rest = predicates.len().saturating_sub(MOST);
    shown.chain((rest > 0).then(|| format!("and {rest} more"))).collect()
}

/// The plan with a filter on the node at the end of `way` that only chunk 0 passes.
fn only_in_chunk_0(plan: LogicalPlan, way: &[usize]) -> datafusion::common::Result<LogicalPlan> {
    let Some((first, rest)) = way.split_first() else {
        return LogicalPlanBuilder::from(plan).filter(is_chunk_0())?.build();
    };
    let mut at = 0;
    let marked = plan.map_children(|child| {
        at += 1;
        match at == first + 1 {
            true => Ok(Transformed::yes(only_in_chunk_0(child, rest)?)),
            false => Ok(Transformed::no(child)),
        }
    })?;
    Ok(marked.data)
}

/// Stands in a proved plan for whether the chunk at hand is chunk 0.
pub fn is_chunk_0() -> Expr {
    let number = Arc::new(Field::new("chunk", DataType::Int32, false));
    Expr::Placeholder(Placeholder::new_with_field("$ chunk".into(), Some(number))).eq(lit(0))
}

/// The first place that a column in the expressions of `plan` has in the SQL, or in those of the nodes below.
fn place_in_sql(plan: &LogicalPlan, file: &str) -> Option<Location> {
    let mut found: Option<(u64, u64)> = None;
    // The closures never fail.
    let _ = plan.apply(|node| {
        let _ = node.apply_expressions(|expr| {
            for span in expr.column_refs().into_iter().flat_map(|column| column.spans.iter()) {
                let place = (span.start.line, span.start.column);
                if span.start.line > 0 && found.is_none_or(|found| place < found) {
                    found = Some(place);
                }
            }
            Ok(TreeNodeRecursion::Continue)
        });
        Ok(if found.is_some() { TreeNodeRecursion::Stop } else { TreeNodeRecursion::Continue })
    });
    found.map(|(line, column)| Location::new(file, line, column))
}

fn stored_by(keys: &[Key], schema: &SchemaRef) -> Vec<String> {
    let column = |key: &Key| {
        let names = key.exprs.iter().filter_map(KeyExpr::as_column).map(|at| schema.field(at).name());
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
    let mut names = resolved.scans.iter().flat_map(|scan| scan.schema.fields()).map(|field| field.name());
    let hint = match names.find(|name| name.eq_ignore_ascii_case(key)) {
        Some(name) => format!("; names without quotes are lower case, so write \"{name}\" in double quotes"),
        None if resolved.schema.fields().iter().any(|field| field.name() == key) => {
            ", which the query computes; cut by a column of an input".to_string()
        }
        None => String::new(),
    };
    let inputs = match inputs.as_str() {
        "" => "it reads no source or task".to_string(),
        inputs => format!("the inputs are: {inputs}"),
    };
    Error::new(ErrorKind::Sql, format!("no input of the query has the key `{key}`{hint}; {inputs}"))
}

/// Why no column that a key may mean can be one; `None` when one of them can.
fn not_a_key(named: &[Vec<Group>], resolved: &Resolved) -> Option<String> {
    let mut exprs = named.iter().flatten().flatten();
    if exprs.clone().any(|(_, expr)| expr.family().is_some()) {
        return None;
    }
    let (scan, expr) = exprs.next()?;
    let scan = &resolved.scans[*scan];
    let field = scan.schema.field(expr.as_column()?);
    let (rule, fix) = no_key_type(field.data_type());
    Some(format!("column `{}` of {} has type {}: {rule}; {fix}", field.name(), scan.table, field.data_type()))
}

fn internal(error: DataFusionError, task: &Task) -> Error {
    Error::new(ErrorKind::Sql, "the query can't be analysed")
        .with_source(error)
        .with_task(&task.name)
        .with_location(task.location.clone())
}
