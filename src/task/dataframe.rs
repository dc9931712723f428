//! Tasks that are functions over lazy tables, and what such a function is given.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use arrow::datatypes::{Field, Schema, SchemaRef};
use datafusion::common::{Result, ScalarValue, plan_datafusion_err, plan_err};
use datafusion::execution::SessionState;
use datafusion::logical_expr::LogicalPlan;
use datafusion::prelude::DataFrame;

use crate::chunk::MAX_CHUNKS;

/// A function from lazy inputs to a lazy result.
#[derive(Clone)]
pub struct BuildDataFrame(Arc<BuildFunction>);

type BuildFunction = dyn Fn(&TaskInputs) -> Result<DataFrame> + Send + Sync;

impl BuildDataFrame {
    /// What calls `build`.
    pub fn new(build: impl Fn(&TaskInputs) -> Result<DataFrame> + Send + Sync + 'static) -> Self {
        Self(Arc::new(build))
    }

    /// Calls it.
    pub fn call(&self, inputs: &TaskInputs) -> Result<DataFrame> {
        (self.0)(inputs)
    }
}

impl fmt::Debug for BuildDataFrame {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("BuildDataFrame")
    }
}

/// The inputs of a task as lazy tables, for a function that makes a plan of them, and a place to store rows on the way.
#[derive(Debug)]
pub struct TaskInputs {
    pub(crate) plans: BTreeMap<String, LogicalPlan>,
    pub(crate) parameters: BTreeMap<String, ScalarValue>,
    pub(crate) state: SessionState,
    pub(crate) steps: StepsOfFunction,
}

impl TaskInputs {
    /// An input, by the name that the task reads it by.
    ///
    /// # Errors
    /// When it is none of the names that [`Task::dataframe`](crate::Task::dataframe) was given.
    pub fn table(&self, name: &str) -> Result<DataFrame> {
        let plan = self.plans.get(name).ok_or_else(|| {
            let known: Vec<_> = self.plans.keys().map(String::as_str).collect();
            plan_datafusion_err!("`{name}` is not among the task's inputs: {}", known.join(", "))
        })?;
        Ok(DataFrame::new(self.state.clone(), plan.clone()))
    }

    /// The value of a parameter.
    ///
    /// # Errors
    /// When the task has none of this name.
    pub fn parameter(&self, name: &str) -> Result<&ScalarValue> {
        self.parameters.get(name).ok_or_else(|| plan_datafusion_err!("the task has no parameter `{name}`"))
    }

    /// Stores `rows` before the rest of the task runs, and gives them back as a lazy table. They are computed once, whoever of
    /// the task reads them, in chunks of their own: by the task's keys if they have them, else by a key that the engine finds.
    /// They are in the cache like any chunk, but are not published. What nothing reads is not computed.
    ///
    /// `name` is what reports call the step, behind the task's name and `#`; it begins with a letter.
    ///
    /// # Errors
    /// When a step of the task has this name, or two columns have one name.
    pub fn materialize(&self, name: &str, rows: DataFrame) -> Result<DataFrame> {
        self.step(name, vec![rows.into_unoptimized_plan()], false)
    }

    /// Stores each of these as a chunk of its own, and gives all their rows back as a lazy table: the union of all. When the
    /// query of one, or what it reads, changes, that chunk runs again. So new ones come last: a chunk is also known by its
    /// number. A task that returns the table as it is has these chunks for its own.
    ///
    /// Of an input that is read through filters it counts which rows pass them.
    ///
    /// # Errors
    /// When there are none, or more than 4,096, when their columns differ in names or types, or as for
    /// [`TaskInputs::materialize`].
    pub fn chunks(&self, name: &str, rows: impl IntoIterator<Item = DataFrame>) -> Result<DataFrame> {
        self.step(name, rows.into_iter().map(DataFrame::into_unoptimized_plan).collect(), true)
    }

    fn step(&self, name: &str, plans: Vec<LogicalPlan>, is_chunks: bool) -> Result<DataFrame> {
        let StepsOfFunction { prefix, scan, recorded } = &self.steps;
        let is_name = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
        if !name.starts_with(|c: char| c.is_ascii_alphabetic()) || !name.chars().all(is_name) {
            return plan_err!("`{name}` can't name a step; use ASCII letters, digits, `_` and `-` after a letter");
        }
        if plans.len() > MAX_CHUNKS as usize {
            return plan_err!("step `{name}` has {} chunks; the most are {MAX_CHUNKS}", plans.len());
        }
        // Only an analysed plan knows its types: a union has those of its first input before.
        let analysed = |plan| self.state.analyzer().execute_and_check(plan, self.state.config_options(), |_, _| {});
        let plans = plans.into_iter().map(analysed).collect::<Result<Vec<_>>>()?;
        let schema = schema_of_all(name, &plans)?;
        let mut recorded = recorded.lock().unwrap_or_else(PoisonError::into_inner);
        let name = format!("{prefix}#{name}");
        if recorded.iter().any(|step| step.name == name) {
            return plan_err!("two steps are called `{name}`; rename one of them");
        }
        let table = scan(&name, schema)?;
        recorded.push(RecordedStep { name, plans, is_chunks });
        Ok(DataFrame::new(self.state.clone(), table))
    }
}

/// The columns of all plans, which are the same; NULL where one may have it.
fn schema_of_all(name: &str, plans: &[LogicalPlan]) -> Result<SchemaRef> {
    let [first, others @ ..] = plans else { return plan_err!("step `{name}` has no chunks; give at least one") };
    let mut fields: Vec<Field> = first.schema().fields().iter().map(|field| field.as_ref().clone()).collect();
    let mut seen = BTreeSet::new();
    if let Some(twice) = fields.iter().find(|field| !seen.insert(field.name())) {
        return plan_err!("two columns of step `{name}` are named `{}`; rename one of them", twice.name());
    }
    for (at, other) in (1..).zip(others) {
        let is_same = fields.len() == other.schema().fields().len()
            && fields
                .iter()
                .zip(other.schema().fields())
                .all(|(a, b)| a.name() == b.name() && a.data_type() == b.data_type());
        if !is_same {
            let columns = |fields: &mut dyn Iterator<Item = (&String, String)>| {
                fields.map(|(name, data_type)| format!("{name} {data_type}")).collect::<Vec<_>>().join(", ")
            };
            let first = columns(&mut fields.iter().map(|f| (f.name(), f.data_type().to_string())));
            let other = columns(&mut other.schema().fields().iter().map(|f| (f.name(), f.data_type().to_string())));
            return plan_err!(
                "chunk {at} of step `{name}` has columns ({other}), and chunk 0 has ({first}); CAST and rename them"
            );
        }
        for (field, other) in fields.iter_mut().zip(other.schema().fields()) {
            field.set_nullable(field.is_nullable() || other.is_nullable());
        }
    }
    let bare = |field: Field| field.with_metadata(Default::default());
    Ok(Arc::new(Schema::new(fields.into_iter().map(bare).collect::<Vec<_>>())))
}

/// Steps that a function asks for while it makes its plan.
#[derive(Debug)]
pub struct StepsOfFunction {
    prefix: String,
    /// Makes a plan that reads a step of this name and columns.
    scan: fn(&str, SchemaRef) -> Result<LogicalPlan>,
    recorded: Mutex<Vec<RecordedStep>>,
}

/// Rows that a function stores on its way.
#[derive(Debug)]
pub struct RecordedStep {
    /// `prefix#name`.
    pub name: String,
    /// Its query, or one for each chunk.
    pub plans: Vec<LogicalPlan>,
    /// Whether it has a query for each chunk.
    pub is_chunks: bool,
}

impl StepsOfFunction {
    /// None yet; their names will begin with `prefix` and `#`.
    pub fn new(prefix: &str, scan: fn(&str, SchemaRef) -> Result<LogicalPlan>) -> Self {
        Self { prefix: prefix.to_string(), scan, recorded: Mutex::default() }
    }

    /// All that were asked for, in order: each reads inputs and those before it.
    pub fn into_recorded(self) -> Vec<RecordedStep> {
        self.recorded.into_inner().unwrap_or_else(PoisonError::into_inner)
    }
}
