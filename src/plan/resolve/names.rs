//! From names to plans: tables, views, hooks and functions of a pipeline, for DataFusion's SQL planner and for tasks in Rust.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::{DataType, Schema, SchemaRef};
use datafusion::catalog::cte_worktable::CteWorkTable;
use datafusion::catalog::{TableFunctionArgs, TableProvider};
use datafusion::common::config::ConfigOptions;
use datafusion::common::{DFSchema, DataFusionError, TableReference, plan_datafusion_err};
use datafusion::datasource::provider_as_source;
use datafusion::execution::SessionState;
use datafusion::logical_expr::planner::{ContextProvider, ExprPlanner, RelationPlanner, TypePlanner};
use datafusion::logical_expr::registry::FunctionRegistry;
use datafusion::logical_expr::simplify::SimplifyContext;
use datafusion::logical_expr::{
    AggregateUDF, Expr, HigherOrderUDF, LogicalPlan, LogicalPlanBuilder, ScalarUDF, TableSource, WindowUDF,
};
use datafusion::optimizer::simplify_expressions::ExprSimplifier;

use crate::arithmetic::checked::{is_constant, with_checked_operators};
use crate::arithmetic::remedy::remedy;
use crate::error::{Error, ErrorKind, Location};
use crate::hook::InputPlan;
use crate::pipeline::Pipeline;
use crate::plan::opaque::OpaqueNode;
use crate::plan::query::{plan_query, readable};
use crate::plan::resolve::call::Call;
use crate::plan::resolve::{InputSource, Known};
use crate::task::dataframe::{RecordedStep, StepsOfFunction, TaskInputs};
use crate::task::{TableRead, Task, TaskQuery, View};
use crate::zone::InstantTypes;

/// A planner's error as ours: its place where DataFusion knows it, else `start`.
pub fn sql_error(error: DataFusionError, start: &Location) -> Error {
    let error = match error {
        DataFusionError::External(cause) => match cause.downcast::<Error>() {
            Ok(ours) => return *ours,
            Err(other) => DataFusionError::External(other),
        },
        other => other,
    };
    let location = match error.diagnostic().and_then(|d| d.span) {
        Some(span) if span.start.line > 0 => Location::new(&start.file, span.start.line, span.start.column),
        _ => start.clone(),
    };
    let remedy = remedy(error.find_root()).map(|remedy| format!("; {remedy}")).unwrap_or_default();
    Error::new(ErrorKind::Sql, format!("{}{remedy}", readable(&error))).with_location(location)
}

/// Resolves names for DataFusion's SQL planner from a pipeline and schemas alone.
pub struct Names<'a> {
    /// Functions and settings.
    pub state: &'a SessionState,
    /// Views and functions.
    pub pipeline: &'a Pipeline,
    /// What is known of inputs, by name.
    pub inputs: &'a BTreeMap<String, Known>,
    /// The task that reads them.
    pub task: &'a Task,
}

impl Names<'_> {
    /// The task's query, not normalised yet.
    ///
    /// # Errors
    /// DataFusion's, and those of functions and hooks.
    pub fn task(&self, task: &Task) -> datafusion::common::Result<Planned> {
        let plan = match &task.query {
            TaskQuery::Sql(query) => {
                let values = task.parameters.iter().map(|(name, value)| (name.clone(), value.clone()));
                plan_query(query, self)?.with_param_values(values.collect::<Vec<_>>())?
            }
            TaskQuery::DataFrame(build) => {
                let (plans, parameters, state) = (self.reads(task)?, task.parameters.clone(), self.state.clone());
                let steps = StepsOfFunction::new(task.step_prefix(), scan_of_step);
                let inputs = TaskInputs { plans, parameters, state, steps };
                let plan = build.call(&inputs)?.into_unoptimized_plan();
                return Ok(Planned { plan, steps: inputs.steps.into_recorded() });
            }
            TaskQuery::Opaque(opaque) => OpaqueNode::plan(task, opaque, self.reads(task)?)?,
        };
        Ok(Planned { plan, steps: Vec::new() })
    }

    /// What a task of Rust reads, by name.
    fn reads(&self, task: &Task) -> datafusion::common::Result<BTreeMap<String, LogicalPlan>> {
        let plan = |read: &TableRead| -> datafusion::common::Result<_> {
            let name = TableReference::bare(read.name.as_str());
            let source = self.get_table_source(name.clone())?;
            Ok((read.name.clone(), LogicalPlanBuilder::scan(name, source, None)?.build()?))
        };
        task.reads.iter().map(plan).collect()
    }

    /// The input with what hooks make of it.
    fn rewritten(&self, name: &str, source: Arc<dyn TableSource>) -> datafusion::common::Result<Arc<dyn TableSource>> {
        let hooks = self.task.dematerialization.iter().filter(|(table, _)| table == name).map(|(_, hook)| hook);
        let mut rewritten: Option<LogicalPlan> = None;
        for hook in hooks {
            let plan = match rewritten.take() {
                Some(plan) => plan,
                None => LogicalPlanBuilder::scan(TableReference::bare(name), Arc::clone(&source), None)?.build()?,
            };
            let (task, table, parameters, state) = (&*self.task.name, name, &self.task.parameters, self.state);
            let plan = hook.rewrite(InputPlan { task, table, plan, parameters, state })?;
            check_columns(hook.name(), name, &source.schema(), &plan)?;
            rewritten = Some(plan);
        }
        Ok(match rewritten {
            Some(plan) => Arc::new(ViewSource { plan }),
            None => source,
        })
    }

    fn view(&self, view: &View) -> datafusion::common::Result<LogicalPlan> {
        let ours = |e: DataFusionError| DataFusionError::External(Box::new(sql_error(e, &view.location)));
        let plan = plan_query(&view.query, self).map_err(ours)?;
        if view.columns.is_empty() {
            return Ok(plan);
        }
        let columns = plan.schema().columns();
        if columns.len() != view.columns.len() {
            let (name, named, has) = (&view.name, view.columns.len(), columns.len());
            return Err(ours(plan_datafusion_err!("view `{name}` names {named} columns, its query has {has}")));
        }
        let renamed = columns.into_iter().zip(&view.columns).map(|(c, name)| Expr::Column(c).alias(name));
        LogicalPlanBuilder::from(plan).project(renamed)?.build()
    }
}

/// What a task's query is before it is normalised.
pub struct Planned {
    /// What gives its table.
    pub plan: LogicalPlan,
    /// What it stores on its way.
    pub steps: Vec<RecordedStep>,
}

/// A plan that reads a step with these columns, of which no more is known.
fn scan_of_step(name: &str, schema: SchemaRef) -> datafusion::common::Result<LogicalPlan> {
    let source = Arc::new(InputSource::new(name, Known::new(schema, 0)));
    LogicalPlanBuilder::scan(TableReference::bare(name), source, None)?.build()
}

/// A view's plan; DataFusion's plan builder inlines it.
#[derive(Debug)]
struct ViewSource {
    plan: LogicalPlan,
}

impl TableSource for ViewSource {
    fn schema(&self) -> SchemaRef {
        Arc::clone(self.plan.schema().inner())
    }

    fn get_logical_plan(&'_ self) -> Option<Cow<'_, LogicalPlan>> {
        Some(Cow::Borrowed(&self.plan))
    }
}

impl ContextProvider for Names<'_> {
    fn get_table_source(&self, name: TableReference) -> datafusion::common::Result<Arc<dyn TableSource>> {
        let name = match name {
            TableReference::Bare { table } => table,
            qualified => return Err(plan_datafusion_err!("`{qualified}` is qualified; tables have one-part names")),
        };
        if let Some(view) = self.pipeline.view(&name) {
            return Ok(Arc::new(ViewSource { plan: self.view(view)? }));
        }
        let known = self.inputs.get(name.as_ref()).ok_or_else(|| plan_datafusion_err!("unknown table `{name}`"))?;
        self.rewritten(&name, Arc::new(InputSource::new(&name, known.clone())))
    }

    fn get_table_function_source(
        &self,
        name: &str,
        args: Vec<Expr>,
    ) -> datafusion::common::Result<Arc<dyn TableSource>> {
        let (args, rows) = table_function(name, args, self.state)?;
        Ok(provider_as_source(Arc::new(Call::try_new(name, &args, rows)?)))
    }

    fn create_cte_work_table(&self, name: &str, schema: SchemaRef) -> datafusion::common::Result<Arc<dyn TableSource>> {
        Ok(provider_as_source(Arc::new(CteWorkTable::new(name, schema))))
    }

    fn get_expr_planners(&self) -> &[Arc<dyn ExprPlanner>] {
        self.state.expr_planners()
    }

    fn get_relation_planners(&self) -> &[Arc<dyn RelationPlanner>] {
        self.state.relation_planners()
    }

    fn get_type_planner(&self) -> Option<Arc<dyn TypePlanner>> {
        Some(Arc::new(InstantTypes))
    }

    fn get_function_meta(&self, name: &str) -> Option<Arc<ScalarUDF>> {
        self.state.scalar_functions().get(name).or(self.pipeline.functions().scalar(name)).cloned()
    }

    fn get_higher_order_meta(&self, name: &str) -> Option<Arc<HigherOrderUDF>> {
        self.state.higher_order_functions().get(name).cloned()
    }

    fn get_aggregate_meta(&self, name: &str) -> Option<Arc<AggregateUDF>> {
        self.state.aggregate_functions().get(name).or(self.pipeline.functions().aggregate(name)).cloned()
    }

    fn get_window_meta(&self, name: &str) -> Option<Arc<WindowUDF>> {
        self.state.window_functions().get(name).or(self.pipeline.functions().window(name)).cloned()
    }

    fn get_variable_type(&self, _variable_names: &[String]) -> Option<DataType> {
        None
    }

    fn options(&self) -> &ConfigOptions {
        self.state.config_options()
    }

    fn udf_names(&self) -> Vec<String> {
        self.state.scalar_functions().keys().cloned().collect()
    }

    fn higher_order_function_names(&self) -> Vec<String> {
        self.state.higher_order_functions().keys().cloned().collect()
    }

    fn udaf_names(&self) -> Vec<String> {
        self.state.udafs().into_iter().collect()
    }

    fn udwf_names(&self) -> Vec<String> {
        self.state.udwfs().into_iter().collect()
    }
}

/// The arguments of a table function, constants folded, and the rows that it gives for them.
///
/// # Errors
/// When there is no such function, and its own.
pub fn table_function(
    name: &str,
    args: Vec<Expr>,
    state: &SessionState,
) -> datafusion::common::Result<(Vec<Expr>, Arc<dyn TableProvider>)> {
    let function = state.table_functions().get(name);
    let function = function.ok_or_else(|| plan_datafusion_err!("unknown table function `{name}`"))?;
    let context = SimplifyContext::builder()
        .with_config_options(Arc::clone(state.config_options()))
        .with_query_execution_start_time(state.execution_props().query_execution_start_time)
        .build();
    let simplifier = ExprSimplifier::new(context);
    let no_columns = DFSchema::empty();
    let args = args
        .into_iter()
        .map(|arg| {
            let arg = with_checked_operators(simplifier.coerce(arg, &no_columns)?, &no_columns)?.data;
            simplifier.simplify(arg)
        })
        .collect::<datafusion::common::Result<Vec<_>>>()?;
    // What is left of constants overflows, or can't be cast.
    for arg in args.iter().filter(|arg| !matches!(arg, Expr::Literal(..)) && is_constant(arg) && !arg.is_volatile()) {
        state
            .create_physical_expr(arg.clone(), &no_columns)?
            .evaluate(&RecordBatch::new_empty(no_columns.inner().clone()))?;
    }
    let rows = function.create_table_provider_with_args(TableFunctionArgs::new(&args, state))?;
    Ok((args, rows))
}

/// That a hook's plan has the input's columns.
fn check_columns(hook: &str, table: &str, schema: &SchemaRef, plan: &LogicalPlan) -> datafusion::common::Result<()> {
    let columns = |schema: &Schema| -> Vec<_> {
        schema.fields().iter().map(|field| (field.name().clone(), field.data_type().clone())).collect()
    };
    let (wanted, given) = (columns(schema), columns(plan.schema().as_arrow()));
    if wanted == given {
        return Ok(());
    }
    Err(plan_datafusion_err!(
        "hook `{hook}` must give the columns of `{table}`, {wanted:?}, and gives {given:?}; select them with their names"
    ))
}
