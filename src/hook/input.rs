//! Dematerialization: what a task reads in place of an input.

use std::collections::BTreeMap;
use std::fmt;

use datafusion::common::ScalarValue;
use datafusion::execution::SessionState;
use datafusion::logical_expr::LogicalPlan;
use datafusion::prelude::DataFrame;

/// Rewrites what a task reads of an input: leaves rows out, masks a column, adds rows up.
///
/// It is asked when the task is planned, before it is cut, and gives a plan over the whole input. So the proof is of the
/// task with the rewritten inputs, and a rewriting that can't be cut is seen by it. Several hooks of one input are
/// composed: the second gets what the first gave. The result must have the input's columns, in order and of the same types;
/// it may read nothing but the input.
///
/// The plan, the name and the version are part of what every chunk of the task is named by.
pub trait DematerializationHook: fmt::Debug + Send + Sync {
    /// Its name, for fingerprints and reasons.
    fn name(&self) -> &str;

    /// To be changed whenever it gives other rows for a reason that its plan does not show. Default: `"1"`.
    fn version(&self) -> &str {
        "1"
    }

    /// What the task reads in place of `input`.
    ///
    /// # Errors
    /// What stops the task from being planned.
    fn rewrite(&self, input: InputPlan<'_>) -> datafusion::common::Result<LogicalPlan>;
}

/// An input of a task as a plan.
#[derive(Debug)]
pub struct InputPlan<'a> {
    pub(crate) task: &'a str,
    pub(crate) table: &'a str,
    pub(crate) plan: LogicalPlan,
    pub(crate) parameters: &'a BTreeMap<String, ScalarValue>,
    pub(crate) state: &'a SessionState,
}

impl InputPlan<'_> {
    /// Name of the task that reads it.
    pub fn task(&self) -> &str {
        self.task
    }

    /// Name of the source or task that is read.
    pub fn table(&self) -> &str {
        self.table
    }

    /// The value of a parameter of the task.
    pub fn parameter(&self, name: &str) -> Option<&ScalarValue> {
        self.parameters.get(name)
    }

    /// Its rows, lazily.
    pub fn plan(&self) -> &LogicalPlan {
        &self.plan
    }

    /// Its rows, lazily, as a DataFrame.
    pub fn dataframe(&self) -> DataFrame {
        DataFrame::new(self.state.clone(), self.plan.clone())
    }
}
