//! What a chunk is made of, by name: its fingerprint is of all of it, and a miss can say what of it changed.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, LazyLock};

use arrow::ARROW_VERSION;
use arrow::datatypes::{Field, Schema, SchemaRef};
use datafusion::DATAFUSION_VERSION;
use datafusion::common::{Column, DFSchema, Result, plan_err};
use datafusion::execution::{SessionState, SessionStateBuilder};
use datafusion::logical_expr::{Expr, LogicalPlan};
use datafusion::optimizer::Optimizer;
use datafusion::optimizer::optimize_projections::OptimizeProjections;
use datafusion::optimizer::replace_distinct_aggregate::ReplaceDistinctWithAggregate;
use parquet::file::properties::DEFAULT_CREATED_BY as PARQUET_VERSION;

use crate::chunk::ChunkFunction;
use crate::chunk::bucket::CHUNK_FUNCTION_VERSION;
use crate::chunk::cases::Cases;
use crate::plan::fingerprint::{Canon, Fingerprint, Hash};
use crate::plan::keys::expr::{KeyExpr, over};
use crate::plan::need::Need;
use crate::plan::prove::proof::{Input, Proof, Role};
use crate::plan::repair::OptimizerRules;
use crate::plan::resolve::Resolved;
use crate::task::{Task, TaskOptions};

/// The version of this crate; part of every fingerprint.
pub const ENGINE_VERSION: &str = env!("CARGO_PKG_VERSION");

/// What queries and sources mean to this engine; part of every fingerprint. Raise it with each change after which the
/// same query over the same rows gives others, such as a fault that is mended: what was stored before must not be
/// served.
pub const SEMANTICS_VERSION: u32 = 13;

/// What rows depend on beside queries and inputs, by name: the versions of the engine and of what it stands on.
fn versions() -> [(&'static str, String); 6] {
    [
        ("engine", ENGINE_VERSION.to_string()),
        ("semantics", SEMANTICS_VERSION.to_string()),
        ("DataFusion", DATAFUSION_VERSION.to_string()),
        ("Arrow", ARROW_VERSION.to_string()),
        ("Parquet", PARQUET_VERSION.to_string()),
        ("chunk function", CHUNK_FUNCTION_VERSION.to_string()),
    ]
}

/// Adds [`versions`] to a fingerprint in the making.
fn add_versions(canon: &mut Canon) {
    for (name, version) in versions() {
        canon.hash.text(name);
        canon.hash.text(&version);
    }
}

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
        let mut parts: BTreeMap<String, String> =
            versions().into_iter().map(|(name, version)| (name.to_string(), version)).collect();
        parts.insert("query".to_string(), query_fingerprint(resolved)?.to_string());
        parts.insert("cut".to_string(), cut(proof, resolved)?.to_string());
        let function = match proof.function() {
            ChunkFunction::PerInput(_) => chunk_predicates_fingerprint(proof, resolved, None)?,
            _ => function(proof)?,
        };
        parts.insert(FUNCTION.to_string(), function);
        parts.insert("options".to_string(), options(&task.options).to_string());
        if !task.parameters.is_empty() {
            let mut values = Canon::default();
            for (name, value) in &task.parameters {
                values.hash.text(name);
                values.literal(value, None)?;
            }
            parts.insert("parameters".into(), values.hash.finish().to_string());
        }
        let mut hooks = Hash::default();
        for (at, (table, hook)) in task.dematerialization.iter().enumerate() {
            let name = format!("hook {} `{}` of input `{table}`", at + 1, hook.name());
            parts.insert(name, hook.version().to_string());
            [hook.name(), hook.version(), table].into_iter().for_each(|part| hooks.text(part));
        }
        if !task.dematerialization.is_empty() {
            // Their names may hold anything: those above are for people.
            parts.insert("hooks of inputs".into(), hooks.finish().to_string());
        }
        // Of the last step, whose rows they see.
        if is_last && !task.materialization.is_empty() {
            for (at, hook) in task.materialization.iter().enumerate() {
                parts.insert(format!("hook {} `{}` of the rows", at + 1, hook.name()), hook.version().to_string());
            }
            // What a hook is told, and other tasks with this query, or other chunks, are told otherwise.
            parts.insert("task".into(), task.name.clone());
            parts.insert("chunks of the task".into(), proof.chunks().to_string());
            parts.insert("columns".into(), columns_fingerprint(proof.schema()).to_string());
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

/// The chunk function: N, or the bounds as JSON; of predicates of inputs only that it is they.
fn function(proof: &Proof) -> Result<String> {
    Ok(match proof.function() {
        ChunkFunction::Hash(chunks) => chunks.to_string(),
        ChunkFunction::Range(bounds) => bounds.to_json(),
        ChunkFunction::Cases(cases) => case_fingerprint(cases, cases.predicates())?,
        ChunkFunction::Branches(chunks) => format!("{chunks} queries"),
        ChunkFunction::PerInput(chunks) => format!("{chunks} predicates"),
    })
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
///
/// # Errors
/// As [`predicates_fingerprint`].
pub fn chunk_predicates_fingerprint(proof: &Proof, resolved: &Resolved, chunk: Option<u32>) -> Result<String> {
    let mut hash = Hash::default();
    for (number, (input, scan)) in proof.inputs().iter().zip(&resolved.scans).enumerate() {
        let Some(predicates) = predicates_of(input) else { continue };
        let of_chunk = match chunk {
            Some(chunk) => predicates.get(chunk as usize).map(std::slice::from_ref).unwrap_or_default(),
            None => predicates,
        };
        hash.number(number);
        hash.bytes(predicates_fingerprint(&named(of_chunk, &scan.schema), &scan.schema)?.as_bytes());
    }
    Ok(hash.finish().to_string())
}

/// The predicates that an input is cut by, where it has its own.
fn predicates_of(input: &Input) -> Option<&[Expr]> {
    match &input.role {
        Role::Partitioned { keys, names: _ } => keys.first()?.predicates(),
        Role::Replicated { why: _ } => None,
    }
}

/// Predicates over columns of `schema` by their bare names, as a fingerprint.
///
/// # Errors
/// When one names another column, or can't be fingerprinted.
pub fn predicates_fingerprint(predicates: &[Expr], schema: &Schema) -> Result<Fingerprint> {
    let mut canon = Canon::default();
    // What they say of a row is these versions' word.
    add_versions(&mut canon);
    add_columns(&mut canon, schema, read_by(predicates, schema)?);
    canon.exprs(predicates, &DFSchema::empty())?;
    Ok(canon.hash.finish())
}

/// The predicates `predicates` of `cases`, as a fingerprint.
fn case_fingerprint(cases: &Cases, predicates: &[Expr]) -> Result<String> {
    let mut canon = Canon::default();
    let fields = cases.keys().iter().map(|(name, data_type)| Field::new(name, data_type.clone(), true));
    let schema = Schema::new(fields.collect::<Vec<_>>());
    canon.schema(&Arc::new(schema.clone()));
    canon.exprs(predicates, &DFSchema::try_from(schema)?)?;
    Ok(canon.hash.finish().to_string())
}

/// What decides whether a row is in a chunk of `cases`, as a fingerprint.
///
/// # Errors
/// When a predicate can't be fingerprinted.
pub fn chunk_case_fingerprint(cases: &Cases, chunk: u32) -> Result<String> {
    case_fingerprint(cases, cases.deciding(chunk))
}

/// What a split of scan number `scan`, an input with the columns of `schema`, keeps of it and how it cuts it.
///
/// # Errors
/// When a filter can't be fingerprinted.
pub fn cut_fingerprint(proof: &Proof, scan: usize, need: &Need, schema: &Schema) -> Result<Fingerprint> {
    let slices = slice_fingerprint(proof, scan, need, schema)?;
    // Those of other inputs don't cut this one.
    let function = match proof.inputs().get(scan).and_then(predicates_of) {
        Some(predicates) => predicates_fingerprint(&named(predicates, schema), schema)?.to_string(),
        None => function(proof)?,
    };
    Ok(Fingerprint::of([("slices", slices.as_bytes().as_slice()), (FUNCTION, function.as_bytes())]))
}

/// What the chunks' slices of scan number `scan` are made of, whichever chunks they are: what is needed of the input, and by what
/// it is cut. Columns are told by name and type, not by their places among those of `schema` that nobody reads.
///
/// # Errors
/// When a filter can't be fingerprinted.
pub fn slice_fingerprint(proof: &Proof, scan: usize, need: &Need, schema: &Schema) -> Result<Fingerprint> {
    let Need { columns, filters, functions, bytes: _, memory_bytes: _, row_bytes: _, reading_bytes: _, is_ordered } =
        need;
    let mut canon = Canon::default();
    let (table, keys) = match proof.inputs().get(scan) {
        Some(Input { table, role: Role::Partitioned { keys, names: _ } }) => (table, keys),
        _ => return plan_err!("scan {scan} is not cut"),
    };
    canon.hash.text("split");
    add_versions(&mut canon);
    canon.hash.text(table);
    add_columns(&mut canon, schema, columns.clone());
    add_columns(&mut canon, schema, read_by(filters, schema)?);
    add_keys(&mut canon, keys, schema)?;
    canon.hash.number((*is_ordered).into());
    // The filters stand over bare columns, which have no position here: their names are hashed.
    canon.exprs(filters, &DFSchema::empty())?;
    canon.hash.number(functions.len());
    for (function, version) in functions {
        canon.hash.text(function);
        canon.hash.text(version);
    }
    Ok(canon.hash.finish())
}

/// The names, types and what else is known of columns, as a fingerprint.
pub fn columns_fingerprint(schema: &SchemaRef) -> Fingerprint {
    let mut canon = Canon::default();
    canon.schema(schema);
    canon.hash.finish()
}

/// Keys, and what cuts each scan.
fn cut(proof: &Proof, Resolved { scans, .. }: &Resolved) -> Result<Fingerprint> {
    let mut canon = Canon::default();
    canon.hash.number(proof.keys().len());
    proof.keys().iter().for_each(|key| canon.hash.text(key));
    canon.hash.number(proof.inputs().len());
    for (Input { table: _, role }, scan) in proof.inputs().iter().zip(scans) {
        match role {
            Role::Partitioned { keys, names: _ } => {
                canon.hash.text("cut");
                add_keys(&mut canon, keys, &scan.schema)?;
            }
            Role::Replicated { why: _ } => canon.hash.text("whole"),
        }
    }
    canon.hash.number(proof.once().len());
    for way in proof.once() {
        canon.hash.number(way.len());
        way.iter().for_each(|at| canon.hash.number(*at));
    }
    Ok(canon.hash.finish())
}

/// Expressions over positions of columns, by the names of these.
fn named(exprs: &[Expr], schema: &Schema) -> Vec<Expr> {
    let names: Vec<_> = schema.fields().iter().map(|field| Column::new_unqualified(field.name())).collect();
    exprs.iter().map(|expr| over(expr, &names)).collect()
}

/// Numbers of the columns that expressions over their bare names read.
fn read_by(exprs: &[Expr], schema: &Schema) -> Result<BTreeSet<usize>> {
    let columns = exprs.iter().flat_map(Expr::column_refs);
    columns.map(|column| Ok(schema.index_of(column.name())?)).collect()
}

/// Adds names and types of columns.
fn add_columns(canon: &mut Canon, schema: &Schema, columns: BTreeSet<usize>) {
    let fields = columns.into_iter().filter_map(|at| schema.fields().get(at));
    let fields = fields.map(|field| Field::new(field.name(), field.data_type().clone(), true));
    canon.schema(&Arc::new(Schema::new(fields.collect::<Vec<_>>())));
}

/// Adds keys over columns of `schema` to a fingerprint; predicates are the chunk function, of which a chunk has its own
/// part.
fn add_keys(canon: &mut Canon, keys: &[KeyExpr], schema: &Schema) -> Result<()> {
    canon.hash.number(keys.len());
    for key in keys {
        match key.predicates() {
            Some(_) => canon.hash.text("its predicates"),
            None => {
                canon.hash.text("key");
                add_columns(canon, schema, key.columns().into_iter().collect());
                canon.exprs(&named(std::slice::from_ref(key.expr()), schema), &DFSchema::empty())?;
                canon.schema(&Arc::new(Schema::new(vec![Field::new("", key.data_type().clone(), true)])));
            }
        }
    }
    Ok(())
}

fn options(options: &TaskOptions) -> Fingerprint {
    let TaskOptions { version, compression, row_group_rows } = options;
    // It prints its level, and has nothing else.
    let compression = format!("{compression:?}");
    let is_given = [u8::from(version.is_some())];
    Fingerprint::of([
        ("has version", is_given.as_slice()),
        ("version", version.as_deref().unwrap_or_default().as_bytes()),
        ("compression", compression.as_bytes()),
        ("row_group_rows", row_group_rows.to_le_bytes().as_slice()),
    ])
}

/// What DataFusion's rules ask for functions.
static FUNCTIONS: LazyLock<SessionState> = LazyLock::new(|| SessionStateBuilder::new().with_default_features().build());

/// The plan with the columns of scans that something reads. Positions of others must not be in any name: a column that
/// a source gets, and nobody reads, runs nothing.
fn pruned(plan: &LogicalPlan) -> LogicalPlan {
    // DISTINCT ON keeps columns that it does not read as long as it is no aggregate.
    let rules: OptimizerRules =
        vec![Arc::new(ReplaceDistinctWithAggregate::new()), Arc::new(OptimizeProjections::new())];
    let rules = Optimizer::with_rules(rules);
    // A plan that they can't work on keeps all its columns.
    rules.optimize(plan.clone(), &*FUNCTIONS, |_, _| {}).unwrap_or_else(|_| plan.clone())
}

fn query_fingerprint(resolved: &Resolved) -> Result<Fingerprint> {
    let Resolved { plan, scans: _, schema, volatile: _, text, functions: _, open: _ } = resolved;
    let mut canon = Canon::default();
    canon.schema(schema);
    canon.plan(&pruned(plan))?;
    if canon.opaque {
        canon.hash.text(text);
    }
    Ok(canon.hash.finish())
}
