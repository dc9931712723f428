//! A function over rows as a node of a plan.

use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use datafusion::common::tree_node::TreeNode;
use datafusion::common::{DFSchema, DFSchemaRef, Result, ScalarValue, internal_err};
use datafusion::logical_expr::{Expr, Extension, LogicalPlan, UserDefinedLogicalNodeCore};

use crate::chunk::ChunkBy;
use crate::chunk::given::Given;
use crate::plan::resolve::InputSource;
use crate::task::opaque::{Opaque, RowsFunction};
use crate::task::{CutOverrides, Task};

/// A function over the rows of its inputs.
#[derive(Debug, Clone)]
pub struct OpaqueNode {
    task: String,
    version: String,
    schema: DFSchemaRef,
    names: Vec<String>,
    inputs: Vec<LogicalPlan>,
    function: Function,
    parameters: Arc<BTreeMap<String, ScalarValue>>,
    cut: Option<OpaqueCut>,
}

/// By what a function may be cut, as its author says.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct OpaqueCut {
    /// Why.
    pub reason: String,
    /// The task's keys.
    pub keys: Vec<String>,
    /// Columns of an input that are its keys, where they have other names.
    pub overrides: BTreeMap<String, Vec<String>>,
    /// Inputs that every chunk sees whole.
    pub replicated: BTreeSet<String>,
    /// Whether inputs are cut by predicates over their own columns, so that no column is the key.
    pub is_per_input: bool,
}

#[derive(Clone)]
struct Function(RowsFunction);

impl fmt::Debug for Function {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Function")
    }
}

impl OpaqueNode {
    /// The query of `task`, over plans of its inputs.
    ///
    /// # Errors
    /// When two columns that it gives have one name.
    pub fn plan(task: &Task, opaque: &Opaque, inputs: BTreeMap<String, LogicalPlan>) -> Result<LogicalPlan> {
        let schema = Arc::new(DFSchema::try_from(Arc::clone(&opaque.schema))?);
        let keys = task.chunking.as_ref().map_or_else(Vec::new, |chunking| chunking.keys.clone());
        let cut = task.cut.assumed.clone().filter(|_| !keys.is_empty());
        let CutOverrides { keys: overrides, replicated, assumed: _ } = task.cut.clone();
        let by = task.chunking.as_ref().map(|chunking| &chunking.by);
        let is_per_input = matches!(by, Some(ChunkBy::Given(Given::PerInput(_))));
        let cut = cut.map(|reason| OpaqueCut { reason, keys, overrides, replicated, is_per_input });
        let (names, inputs) = inputs.into_iter().unzip();
        let node = Self {
            task: task.name.clone(),
            version: opaque.version.clone(),
            schema,
            names,
            inputs,
            function: Function(opaque.function.clone()),
            parameters: Arc::new(task.parameters.clone()),
            cut,
        };
        Ok(LogicalPlan::Extension(Extension { node: Arc::new(node) }))
    }

    /// The function that a node is, if it is one.
    pub fn of(extension: &Extension) -> Option<&Self> {
        extension.node.as_any().downcast_ref()
    }

    /// Names and plans of its inputs.
    pub fn named_inputs(&self) -> impl Iterator<Item = (&str, &LogicalPlan)> {
        self.names.iter().map(String::as_str).zip(&self.inputs)
    }

    /// The task that it is the query of.
    pub fn task(&self) -> &str {
        &self.task
    }

    /// Its version, as its author says.
    pub fn version(&self) -> &str {
        &self.version
    }

    /// What it calls.
    pub fn function(&self) -> &RowsFunction {
        &self.function.0
    }

    /// The task's parameters.
    pub fn parameters(&self) -> &Arc<BTreeMap<String, ScalarValue>> {
        &self.parameters
    }

    /// By what it may be cut, if at all.
    pub fn cut(&self) -> Option<&OpaqueCut> {
        self.cut.as_ref()
    }
}

impl OpaqueCut {
    /// Columns of the input `name` that are the keys.
    pub fn columns(&self, name: &str) -> &[String] {
        self.overrides.get(name).unwrap_or(&self.keys)
    }

    /// Whether the input `name` has the keys, and is not to be seen whole.
    pub fn asks_to_cut(&self, name: &str, input: &LogicalPlan) -> bool {
        if self.is_per_input {
            return false;
        }
        let has = |column: &String| input.schema().index_of_column_by_name(None, column).is_some();
        let is_replicated = |node: &LogicalPlan| match node {
            LogicalPlan::TableScan(scan) => {
                let table = scan.source.downcast_ref::<InputSource>().map(InputSource::table);
                Ok(table.is_some_and(|table| self.replicated.contains(table)))
            }
            _ => Ok(false),
        };
        // The closure never fails.
        self.columns(name).iter().all(has) && !input.exists(is_replicated).unwrap_or_default()
    }
}

impl PartialEq for OpaqueNode {
    fn eq(&self, other: &Self) -> bool {
        (&self.task, &self.version, &self.schema, &self.names, &self.inputs, &self.cut)
            == (&other.task, &other.version, &other.schema, &other.names, &other.inputs, &other.cut)
            && self.parameters == other.parameters
    }
}

impl Eq for OpaqueNode {}

impl PartialOrd for OpaqueNode {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        let order =
            (&self.task, &self.version, &self.names).partial_cmp(&(&other.task, &other.version, &other.names))?;
        match order {
            Ordering::Equal => self.inputs.partial_cmp(&other.inputs),
            different => Some(different),
        }
    }
}

impl Hash for OpaqueNode {
    fn hash<H: Hasher>(&self, state: &mut H) {
        (&self.task, &self.version, &self.names, &self.inputs).hash(state);
    }
}

impl UserDefinedLogicalNodeCore for OpaqueNode {
    fn name(&self) -> &str {
        "Function"
    }

    fn inputs(&self) -> Vec<&LogicalPlan> {
        self.inputs.iter().collect()
    }

    fn schema(&self) -> &DFSchemaRef {
        &self.schema
    }

    fn expressions(&self) -> Vec<Expr> {
        Vec::new()
    }

    fn fmt_for_explain(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "Function of `{}` over {}, version {}", self.task, self.names.join(", "), self.version)
    }

    fn with_exprs_and_inputs(&self, exprs: Vec<Expr>, inputs: Vec<LogicalPlan>) -> Result<Self> {
        if !exprs.is_empty() || inputs.len() != self.inputs.len() {
            return internal_err!("the function of `{}` has {} inputs", self.task, self.inputs.len());
        }
        Ok(Self { inputs, ..self.clone() })
    }
}
