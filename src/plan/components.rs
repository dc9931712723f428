//! What a chunk is made of, by name: its fingerprint is of all of it, and a miss can say what of it changed.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use arrow::datatypes::{Field, Schema};
use datafusion::DATAFUSION_VERSION;
use datafusion::common::{DFSchema, Result, plan_err};
use datafusion::logical_expr::Expr;

use crate::chunk::ChunkFunction;
use crate::chunk::bucket::CHUNK_FUNCTION_VERSION;
use crate::chunk::cases::Cases;
use crate::plan::fingerprint::{Canon, Fingerprint, Hash};
use crate::plan::keys::expr::KeyExpr;
use crate::plan::need::Need;
use crate::plan::prove::{Input, Proof, Role};
use crate::plan::resolve::Resolved;
use crate::task::{Task, TaskOptions};

/// The version of this crate; part of every fingerprint.
pub const ENGINE_VERSION: &str = env!("CARGO_PKG_VERSION");

/// Everything that a task's chunks depend on, by name, so that a miss can say which of them changed.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Components(pub BTreeMap<String, String>);

impl Components {
    /// The components of `task`; `inputs` gives the identity of each source and task it reads.
    ///
    /// `run` is what a volatile query depends on besides: a value of its own for each run. `is_last`: whether the plan gives the
    /// task's table, and is no step before.
    ///
    /// # Errors
    /// When an input has no identity, or the plan holds a statement.
    pub fn of(
        task: &Task,
        resolved: &Resolved,
        proof: &Proof,
        inputs: &BTreeMap<String, Fingerprint>,
        run: &str,
        is_last: bool,
    ) -> Result<Self> {
        let mut parts = BTreeMap::from([
            ("engine".to_string(), ENGINE_VERSION.to_string()),
            ("DataFusion".to_string(), DATAFUSION_VERSION.to_string()),
            ("chunk function".to_string(), CHUNK_FUNCTION_VERSION.to_string()),
            ("query".to_string(), query_fingerprint(resolved)?.to_string()),
            ("cut".to_string(), cut(proof)),
            (FUNCTION.to_string(), function(proof)),
            ("options".to_string(), options(&task.options)),
        ]);
        if !task.parameters.is_empty() {
            let mut values = Canon::default();
            for (name, value) in &task.parameters {
                values.hash.text(name);
                values.literal(value)?;
            }
            parts.insert("parameters".into(), values.hash.finish().to_string());
        }
        for (at, (table, hook)) in task.dematerialization.iter().enumerate() {
            let name = format!("hook {} `{}` of input `{table}`", at + 1, hook.name());
            parts.insert(name, hook.version().to_string());
        }
        // Of the last step, whose rows they see.
        if is_last && !task.materialization.is_empty() {
            for (at, hook) in task.materialization.iter().enumerate() {
                parts.insert(format!("hook {} `{}` of the rows", at + 1, hook.name()), hook.version().to_string());
            }
            // What a hook is told, and other tasks with this query, or other chunks, are told otherwise.
            parts.insert("task".into(), task.name.clone());
            parts.insert("chunks of the task".into(), proof.chunks().to_string());
            let mut columns = Canon::default();
            columns.schema(proof.schema());
            parts.insert("columns".into(), columns.hash.finish().to_string());
        }
        for (function, version) in resolved.functions.as_ref() {
            parts.insert(format!("function {function}()"), version.clone());
        }
        if let Some(function) = &resolved.volatile {
            parts.insert(volatile_component(function), run.to_string());
        }
        for scan in &resolved.scans {
            let Some(identity) = inputs.get(&scan.table) else {
                return plan_err!("input `{}` has no identity", scan.table);
            };
            parts.insert(input_component(&scan.table), identity.to_string());
        }
        Ok(Self(parts))
    }

    /// The fingerprint of one chunk: of all components, with `own` in place of those that are the chunk's own.
    pub fn chunk(&self, chunk: u32, own: Self) -> Fingerprint {
        let mut parts = self.0.clone();
        parts.extend(own.0);
        parts.insert("chunk".into(), chunk.to_string());
        Fingerprint::of(parts.iter().map(|(name, value)| (name.as_str(), value.as_bytes())))
    }

    /// The chunk functions of the steps.
    pub fn functions(&self) -> Vec<String> {
        let functions = self.0.iter().filter(|(name, _)| name.rsplit('|').next() == Some(FUNCTION));
        functions.map(|(_, function)| function.clone()).collect()
    }

    /// Adds the components of one of several steps, their names behind `prefix`.
    pub fn add(&mut self, prefix: &str, step: Self) {
        self.0.extend(step.0.into_iter().map(|(name, value)| (format!("{prefix}{name}"), value)));
    }

    /// The components that were added behind `prefix`.
    pub fn below(&self, prefix: &str) -> Self {
        let own =
            self.0.iter().filter_map(|(name, value)| Some((name.strip_prefix(prefix)?.to_string(), value.clone())));
        Self(own.collect())
    }

    /// What changed in one of the components in which `self` and `before` differ, for a person: its name, and both values
    /// where they are versions or numbers.
    pub fn change(&self, before: &Self, name: &str) -> String {
        let is_told = |value: &&String| value.len() <= LONGEST_TOLD && !value.contains(char::is_whitespace);
        let value = |components: &Self| components.0.get(name).filter(is_told).cloned();
        match (value(before), value(self)) {
            (Some(before), Some(now)) => format!("{name} {before} → {now}"),
            _ => name.to_string(),
        }
    }

    /// Names of the components in which `self` and `before` differ.
    pub fn changed_since(&self, before: &Self) -> Vec<String> {
        let names = self.0.keys().chain(before.0.keys()).collect::<std::collections::BTreeSet<_>>();
        names.into_iter().filter(|name| self.0.get(*name) != before.0.get(*name)).cloned().collect()
    }
}

/// Values of components that are no longer than this are versions or numbers.
const LONGEST_TOLD: usize = 16;

/// Name of the component that is the identity of an input.
pub fn input_component(table: &str) -> String {
    format!("input `{table}`")
}

/// Name of the component that makes a query that calls a volatile function new at each run.
fn volatile_component(function: &str) -> String {
    format!("volatile {function}()")
}

/// Name of the component that is the chunk function; of ranges, a chunk's own is its range.
pub const FUNCTION: &str = "chunks";

/// The chunk function: N, or the bounds as JSON.
fn function(proof: &Proof) -> String {
    match proof.function() {
        ChunkFunction::Hash(chunks) => chunks.to_string(),
        ChunkFunction::Range(bounds) => bounds.to_json(),
        ChunkFunction::Cases(cases) => case_fingerprint(cases, cases.predicates()),
        ChunkFunction::Branches(chunks) => format!("{chunks} queries"),
        ChunkFunction::PerInput(_) => chunk_predicates_fingerprint(proof, None),
    }
}

/// What a chunk with a query of its own is made of in place of what the step's others are: that query, over the tables
/// `reads`, out of all that the step reads.
///
/// # Errors
/// When the plan holds a statement.
pub fn branch_components(resolved: &Resolved, proof: &Proof, chunk: u32, reads: &BTreeSet<&str>) -> Result<Components> {
    let plan = proof.plan_of(chunk)?;
    let branch = resolved.part(plan.clone())?;
    let text = plan.display_indent_schema().to_string();
    let mut own = BTreeMap::from([
        (
            "query".to_string(),
            query_fingerprint(&Resolved { schema: Arc::clone(&resolved.schema), text, ..branch.clone() })?.to_string(),
        ),
        ("cut".to_string(), String::new()),
        (FUNCTION.to_string(), "a query of its own".to_string()),
    ]);
    for scan in resolved.scans.iter().filter(|scan| !reads.contains(scan.table.as_str())) {
        own.insert(input_component(&scan.table), String::new());
    }
    if let (Some(function), None) = (&resolved.volatile, &branch.volatile) {
        own.insert(volatile_component(function), String::new());
    }
    Ok(Components(own))
}

/// What decides whether a row of an input is in chunk `chunk`, or in which it is, where inputs have predicates of their own, as a
/// fingerprint.
pub fn chunk_predicates_fingerprint(proof: &Proof, chunk: Option<u32>) -> String {
    let mut hash = Hash::default();
    for (number, input) in proof.inputs().iter().enumerate() {
        let Some(predicates) = predicates_of(input) else { continue };
        let of_chunk = match chunk {
            Some(chunk) => predicates.get(chunk as usize).map(std::slice::from_ref).unwrap_or_default(),
            None => predicates,
        };
        hash.number(number);
        hash.bytes(predicates_fingerprint(of_chunk).as_bytes());
    }
    hash.finish().to_string()
}

/// The predicates that an input is cut by, where it has its own.
fn predicates_of(input: &Input) -> Option<&[Expr]> {
    match &input.role {
        Role::Partitioned { keys, names: _ } => keys.first()?.predicates(),
        Role::Replicated { why: _ } => None,
    }
}

/// Predicates over columns of known types, as a fingerprint.
pub fn predicates_fingerprint(predicates: &[Expr]) -> Fingerprint {
    let mut canon = Canon::default();
    // What they say of a row is these versions' word.
    canon.hash.text(&format!("{ENGINE_VERSION} {DATAFUSION_VERSION}"));
    // Columns stand in them by number or bare name.
    if let Err(error) = canon.exprs(predicates, &DFSchema::empty()) {
        canon.hash.text(&error.to_string());
    }
    // What a function's fields may leave out.
    predicates.iter().for_each(|predicate| canon.hash.text(&format!("{predicate:?}")));
    canon.hash.finish()
}

/// The predicates `predicates` of `cases`, as a fingerprint.
fn case_fingerprint(cases: &Cases, predicates: &[Expr]) -> String {
    let mut canon = Canon::default();
    let fields = cases.keys().iter().map(|(name, data_type)| Field::new(name, data_type.clone(), true));
    let schema = Schema::new(fields.collect::<Vec<_>>());
    canon.schema(&Arc::new(schema.clone()));
    let canonical = DFSchema::try_from(schema).and_then(|schema| canon.exprs(predicates, &schema));
    // Nothing that a predicate may be made of is refused there.
    if let Err(error) = canonical {
        canon.hash.text(&error.to_string());
    }
    // What a function's fields may leave out.
    predicates.iter().for_each(|predicate| canon.hash.text(&format!("{predicate:?}")));
    canon.hash.finish().to_string()
}

/// What decides whether a row is in a chunk of `cases`, as a fingerprint.
pub fn chunk_case_fingerprint(cases: &Cases, chunk: u32) -> String {
    case_fingerprint(cases, cases.deciding(chunk))
}

/// What a split of scan number `scan` keeps of its input and how it cuts it.
///
/// # Errors
/// When a filter can't be fingerprinted.
pub fn cut_fingerprint(proof: &Proof, scan: usize, need: &Need) -> Result<Fingerprint> {
    let slices = slice_fingerprint(proof, scan, need)?;
    // Those of other inputs don't cut this one.
    let function = match proof.inputs().get(scan).and_then(predicates_of) {
        Some(predicates) => predicates_fingerprint(predicates).to_string(),
        None => function(proof),
    };
    Ok(Fingerprint::of([("slices", slices.as_bytes().as_slice()), (FUNCTION, function.as_bytes())]))
}

/// What the chunks' slices of scan number `scan` are made of, whichever chunks they are: what is needed of the input, and by what
/// it is cut.
///
/// # Errors
/// When a filter can't be fingerprinted.
pub fn slice_fingerprint(proof: &Proof, scan: usize, need: &Need) -> Result<Fingerprint> {
    let Need { columns, filters, functions, bytes: _, memory_bytes: _ } = need;
    let mut canon = Canon::default();
    let (table, keys) = match proof.inputs().get(scan) {
        Some(Input { table, role: Role::Partitioned { keys, names: _ } }) => (table, keys),
        _ => return plan_err!("scan {scan} is not cut"),
    };
    canon.hash.text(&format!("split {ENGINE_VERSION} {DATAFUSION_VERSION} {CHUNK_FUNCTION_VERSION} of {table}"));
    canon.hash.text(&format!("{columns:?} by {}", key_texts(keys)));
    // The filters stand over bare columns, which have no position here: their names are hashed.
    canon.exprs(filters, &DFSchema::empty())?;
    // What a filter's fields may leave out.
    canon.hash.text(&format!("{filters:?} {functions:?}"));
    Ok(canon.hash.finish())
}

/// Keys, and what cuts each scan.
fn cut(proof: &Proof) -> String {
    let roles = proof.inputs().iter().map(|input| match &input.role {
        Role::Partitioned { keys, names: _ } => key_texts(keys),
        Role::Replicated { why: _ } => "whole".into(),
    });
    let roles = roles.collect::<Vec<_>>().join(", ");
    format!("{:?}: {roles}; in chunk 0 alone {:?}", proof.keys(), proof.once())
}

/// Keys as text; predicates are the chunk function, of which a chunk has its own part.
fn key_texts(keys: &[KeyExpr]) -> String {
    let text = |key: &KeyExpr| match key.predicates() {
        Some(_) => "its predicates".into(),
        None => format!("{} as {}", key.expr(), key.data_type()),
    };
    format!("{:?}", keys.iter().map(text).collect::<Vec<_>>())
}

fn options(options: &TaskOptions) -> String {
    let TaskOptions { version, compression, row_group_rows } = options;
    format!("version {version:?}, compression {compression:?}, row_group_rows {row_group_rows}")
}

fn query_fingerprint(resolved: &Resolved) -> Result<Fingerprint> {
    let Resolved { plan, scans: _, schema, volatile: _, text, functions: _ } = resolved;
    let mut canon = Canon::default();
    canon.schema(schema);
    canon.plan(plan)?;
    if canon.opaque {
        canon.hash.text(text);
    }
    Ok(canon.hash.finish())
}
