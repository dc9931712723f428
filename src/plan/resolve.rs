//! From a task's query to a normalised logical plan in which every scan has a number.
//!
//! Names are resolved against the schemas of the task's inputs; views are inlined. Normalisation is DataFusion's
//! analyzer (types, coercion) and the few of its rules that turn predicates and subqueries into joins, so that the
//! prover sees joins with equalities; constants are folded, `now()` and `current_date` with them.

pub mod call;
mod equalities;

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use arrow::datatypes::{DataType, Schema, SchemaRef};
use datafusion::catalog::TableFunctionArgs;
use datafusion::catalog::cte_worktable::CteWorkTable;
use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion::common::{DFSchema, DataFusionError, TableReference, internal_err, plan_datafusion_err, plan_err};
use datafusion::datasource::provider_as_source;
use datafusion::execution::SessionState;
use datafusion::logical_expr::planner::{ContextProvider, ExprPlanner, RelationPlanner, TypePlanner};
use datafusion::logical_expr::registry::FunctionRegistry;
use datafusion::logical_expr::simplify::SimplifyContext;
use datafusion::logical_expr::{
    AggregateUDF, Expr, HigherOrderUDF, LogicalPlan, LogicalPlanBuilder, ScalarUDF, TableProviderFilterPushDown,
    TableScan, TableScanBuilder, TableSource, Union, Volatility, WindowFunctionDefinition, WindowUDF,
};
use datafusion::optimizer::Optimizer;
use datafusion::optimizer::decorrelate_lateral_join::DecorrelateLateralJoin;
use datafusion::optimizer::decorrelate_predicate_subquery::DecorrelatePredicateSubquery;
use datafusion::optimizer::rewrite_set_comparison::RewriteSetComparison;
use datafusion::optimizer::scalar_subquery_to_join::ScalarSubqueryToJoin;
use datafusion::optimizer::simplify_expressions::{ExprSimplifier, SimplifyExpressions};
use datafusion::sql::planner::{ParserOptions, SqlToRel};
use parquet::arrow::ArrowSchemaConverter;
use sqlparser::ast::{Query, Statement as SqlStatement};

use crate::error::{Error, ErrorKind, Location, Result};
use crate::hook::InputPlan;
use crate::pipeline::Pipeline;
use crate::plan::clustering::RowGroups;
use crate::plan::opaque::OpaqueNode;
use crate::plan::repair::{EquijoinsOfOneKind, JoinsOfOneKind, OptimizerRules};
use crate::plan::resolve::call::Call;
use crate::plan::resolve::equalities::EqualitiesBelowJoins;
use crate::plan::slice::Stored;
use crate::task::dataframe::{RecordedStep, StepsOfFunction, TaskInputs};
use crate::task::function::{UserFunctions, Versions, called_in_plan};
use crate::task::{CutOverrides, TableRead, Task, TaskQuery, View};

/// A task's normalised plan, its scans numbered from 0.
#[derive(Debug, Clone)]
pub struct Resolved {
    /// The plan; every scan of an input has an [`InputSource`] with its number.
    pub plan: LogicalPlan,
    /// What each scan reads, by number.
    pub scans: Vec<Scan>,
    /// Schema of the task's table: distinct column names, types that Parquet can store.
    pub schema: SchemaRef,
    /// A volatile function that the query calls, if any: its result is new at each run and never reused.
    pub volatile: Option<String>,
    /// The query and the views it reads as SQL text, comments and white space normalised.
    pub text: String,
    /// Versions of the user's functions that the whole query calls; in parts of it they may go by other names.
    pub functions: Arc<Versions>,
}

/// A task's query: what it stores on its way, in order, each part over inputs and the parts before it, and last what gives
/// its table.
#[derive(Debug, Clone)]
pub struct ResolvedTask {
    /// Parts that are stored and read by those after them.
    pub before: Vec<QueryPart>,
    /// What gives the task's table.
    pub last: QueryPart,
}

impl ResolvedTask {
    /// All parts, in order.
    pub fn parts(&self) -> impl Iterator<Item = &QueryPart> {
        self.before.iter().chain([&self.last])
    }
}

/// A query whose rows are stored.
#[derive(Debug, Clone)]
pub struct QueryPart {
    /// What those after it read it by.
    pub name: String,
    /// The query.
    pub resolved: Resolved,
    /// Where each chunk has a query of its own, which [`branches`] gives, their number.
    pub branches: Option<usize>,
}

/// The queries of `count` chunks that `plan` is the union of.
///
/// # Errors
/// When it isn't.
pub fn branches(plan: &LogicalPlan, count: usize) -> datafusion::common::Result<Vec<&LogicalPlan>> {
    match plan {
        plan if count == 1 => Ok(vec![plan]),
        LogicalPlan::Union(union) if union.inputs.len() == count => Ok(union.inputs.iter().map(Arc::as_ref).collect()),
        other => plan_err!("{} is not the union of {count} chunks", other.display()),
    }
}

/// One reading of an input by a query.
#[derive(Debug, Clone)]
pub struct Scan {
    /// Name of the source or task that is read.
    pub table: String,
    /// Columns of the scan.
    pub schema: SchemaRef,
    /// Size of what is read, about; 0 for what a part of the query gave that the engine took out of it.
    pub bytes: u64,
    /// How it is stored, when that says a row's chunk.
    pub stored: Option<Stored>,
    /// Its row groups, when it is a source of Parquet files.
    pub row_groups: Option<Arc<RowGroups>>,
    /// Whether a hook gives each chunk its slice.
    pub is_served: bool,
}

/// What is known of an input before it is read.
#[derive(Debug, Clone)]
pub struct Known {
    /// Its columns.
    pub schema: SchemaRef,
    /// Its size, about.
    pub bytes: u64,
    /// How it is stored, when that says a row's chunk.
    pub stored: Option<Stored>,
    /// Its row groups, when it is a source of Parquet files.
    pub row_groups: Option<Arc<RowGroups>>,
    /// Whether a hook gives each chunk its slice.
    pub is_served: bool,
}

impl Known {
    /// Only its columns and its size, about.
    pub fn new(schema: SchemaRef, bytes: u64) -> Self {
        Self { schema, bytes, stored: None, row_groups: None, is_served: false }
    }
}

/// Stands for an input in a plan until a chunk's own provider takes its place.
#[derive(Debug)]
pub struct InputSource {
    table: String,
    known: Known,
    scan: Option<usize>,
}

impl Resolved {
    /// The same query, of whose inputs now this is known.
    ///
    /// # Errors
    /// As [`Resolved::part`].
    pub fn knowing(&self, known: &BTreeMap<String, Known>) -> datafusion::common::Result<Self> {
        let renew = |node: LogicalPlan| {
            let LogicalPlan::TableScan(mut scan) = node else { return Ok(Transformed::yes(node.recompute_schema()?)) };
            let table = scan.source.downcast_ref::<InputSource>().map(|source| source.table.clone());
            let Some((table, known)) = table.and_then(|table| known.get_key_value(&table)) else {
                return Ok(Transformed::no(LogicalPlan::TableScan(scan)));
            };
            let types = |schema: &Schema| schema.fields().iter().map(|f| f.data_type().clone()).collect::<Vec<_>>();
            if types(&scan.source.schema()) != types(&known.schema) {
                let (was, is) = (scan.source.schema(), &known.schema);
                return internal_err!("step `{table}` was planned with the columns {was:?}, and has {is:?}");
            }
            scan.source = Arc::new(InputSource::new(table, known.clone()));
            let TableScan { table_name, source, projection, filters, fetch, .. } = scan;
            let scan = TableScanBuilder::new(table_name, source).with_projection(projection).with_filters(filters);
            Ok(Transformed::yes(LogicalPlan::TableScan(scan.with_fetch(fetch).build()?)))
        };
        self.part(self.plan.clone().transform_up_with_subqueries(renew)?.data)
    }

    /// A query of its own over the same inputs: a part of this one, or what is left of it.
    ///
    /// # Errors
    /// When a column has a type that Parquet can't store.
    pub fn part(&self, plan: LogicalPlan) -> datafusion::common::Result<Self> {
        let (plan, scans) = number_scans(plan)?;
        let schema = Arc::new(without_metadata(&plan));
        ArrowSchemaConverter::new().convert(&schema)?;
        let volatile = volatile_function(&plan)?;
        Ok(Self { plan, scans, schema, volatile, text: self.text.clone(), functions: Arc::clone(&self.functions) })
    }
}

impl InputSource {
    /// Stands for the input `table`.
    pub fn new(table: &str, known: Known) -> Self {
        Self { table: table.to_string(), known, scan: None }
    }

    /// Name of the source or task.
    pub fn table(&self) -> &str {
        &self.table
    }

    /// Its size, about; 0 for what a part of the query gave that the engine took out of it.
    pub fn bytes(&self) -> u64 {
        self.known.bytes
    }

    /// Number of the scan in its [`Resolved`] plan.
    pub fn scan(&self) -> Option<usize> {
        self.scan
    }
}

impl TableSource for InputSource {
    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.known.schema)
    }

    /// A scan may use filters to leave rows out, but is not relied on.
    fn supports_filters_pushdown(
        &self,
        filters: &[&Expr],
    ) -> datafusion::common::Result<Vec<TableProviderFilterPushDown>> {
        Ok(vec![TableProviderFilterPushDown::Inexact; filters.len()])
    }
}

/// Plans `task` over inputs of which this is known, by name.
///
/// `state` gives functions, settings and the run's `now()`; use one for a whole run.
///
/// # Errors
/// [`ErrorKind::Sql`] with the place: an unknown column or function, types that don't fit, two output columns of one
/// name, a type that Parquet can't store.
pub fn resolve(
    task: &Task,
    pipeline: &Pipeline,
    inputs: &BTreeMap<String, Known>,
    state: &SessionState,
) -> Result<ResolvedTask> {
    check_names(task, pipeline)?;
    check_functions(task, pipeline, state)?;
    let versions = pipeline.functions().versions();
    let names = Names { state, pipeline, inputs, task };
    let in_task = |e: DataFusionError| sql_error(e, &task.location).with_task(&task.name);
    let Planned { plan, steps } = names.task(task).map_err(in_task)?;
    let own: BTreeSet<&str> = steps.iter().map(|step| step.name.as_str()).collect();
    let resolved = |plan: LogicalPlan| -> Result<Resolved> {
        if matches!(task.query, TaskQuery::DataFrame(_)) || !task.dematerialization.is_empty() {
            refuse_foreign(task, &plan, state, pipeline.functions(), |table| {
                inputs.contains_key(table) || own.contains(table)
            })?;
        }
        let plan = normalise(plan, state).map_err(in_task)?;
        let (plan, scans) = number_scans(plan).map_err(in_task)?;
        let schema = output_schema(&plan, task)?;
        let volatile = volatile_function(&plan).map_err(in_task)?;
        let text = text(task, pipeline, &plan);
        let functions = Arc::new(called_in_plan(&plan, &versions));
        Ok(Resolved { plan, scans, schema, volatile, text, functions })
    };
    let mut last = QueryPart { name: task.name.clone(), resolved: resolved(plan)?, branches: None };
    let mut before = Vec::new();
    for RecordedStep { name, plans, is_chunks } in &steps {
        let count = plans.len();
        let plan = match plans.as_slice() {
            [plan] => plan.clone(),
            plans => {
                let inputs = plans.iter().cloned().map(Arc::new).collect();
                Union::try_new(inputs).map(LogicalPlan::Union).map_err(in_task)?
            }
        };
        let resolved = resolved(plan)?;
        before.push(QueryPart { name: name.clone(), resolved, branches: is_chunks.then_some(count) });
    }
    // What nobody reads is not there, and what is given as it is, is the table.
    while let Some(at) = before.iter().rposition(|part| !readers(&before, &last).contains(&part.name)) {
        before.remove(at);
    }
    if let Some(table) = is_read_whole(&last.resolved.plan)
        && let Some(at) = before.iter().position(|part| part.name == table)
        && !before.iter().any(|part| part.resolved.scans.iter().any(|scan| scan.table == table))
    {
        last = QueryPart { name: task.name.clone(), ..before.remove(at) };
    }
    let task_parts = ResolvedTask { before, last };
    let volatile = task_parts.parts().find_map(|part| part.resolved.volatile.as_ref());
    if let (Some(group), Some(function)) = (&task.group, volatile) {
        let message = format!(
            "{function}() gives each table of `{group}` other values; call it in a task of its own, and let `{group}` read that"
        );
        return Err(Error::new(ErrorKind::Sql, message).with_task(&task.name).with_location(task.location.clone()));
    }
    Ok(task_parts)
}

/// All that is read by parts of a query.
fn readers(before: &[QueryPart], last: &QueryPart) -> BTreeSet<String> {
    let scans = before.iter().chain([last]).flat_map(|part| &part.resolved.scans);
    scans.map(|scan| scan.table.clone()).collect()
}

/// The input whose rows a plan gives as they are.
fn is_read_whole(plan: &LogicalPlan) -> Option<String> {
    let LogicalPlan::TableScan(scan) = plan else { return None };
    let source = scan.source.downcast_ref::<InputSource>()?;
    let is_whole = scan.filters.is_empty() && scan.fetch.is_none() && scan.projection.is_none();
    is_whole.then(|| source.table().to_string())
}

/// That what the task says of inputs is of inputs that it reads.
fn check_names(task: &Task, pipeline: &Pipeline) -> Result<()> {
    let CutOverrides { keys, replicated, assumed: _ } = &task.cut;
    let named = task.dematerialization.iter().map(|(table, _)| table).chain(keys.keys()).chain(replicated);
    let inputs = pipeline.inputs(task);
    let Some(unknown) = named.into_iter().find(|table| !inputs.contains(*table)) else { return Ok(()) };
    let known: Vec<_> = inputs.into_iter().collect();
    let message = format!("the task reads no source or task `{unknown}`; it reads {}", known.join(", "));
    Err(Error::new(ErrorKind::Sql, message).with_task(&task.name).with_location(task.location.clone()))
}

/// That the user's functions are called by names that DataFusion's are not.
fn check_functions(task: &Task, pipeline: &Pipeline, state: &SessionState) -> Result<()> {
    let is_own = |name: &&str| {
        state.scalar_functions().contains_key(*name)
            || state.aggregate_functions().contains_key(*name)
            || state.window_functions().contains_key(*name)
            || state.higher_order_functions().contains_key(*name)
    };
    let Some(name) = pipeline.functions().names().find(is_own) else { return Ok(()) };
    let message = format!("DataFusion has a function `{name}` of its own; give yours another name");
    Err(Error::new(ErrorKind::Usage, message).with_task(&task.name))
}

/// Refuses a plan that Rust made over other tables than the task's inputs, or with functions that are not DataFusion's
/// own: what they give is in no fingerprint, and the prover knows functions by their names.
fn refuse_foreign(
    task: &Task,
    plan: &LogicalPlan,
    state: &SessionState,
    users: &UserFunctions,
    is_input: impl Fn(&str) -> bool,
) -> Result<()> {
    let mut foreign = None;
    // The closures never fail.
    let _ = plan.apply_with_subqueries(|node| {
        if let LogicalPlan::TableScan(scan) = node
            && !scan.source.downcast_ref::<InputSource>().is_some_and(|source| is_input(source.table()))
            && Call::behind(scan.source.as_ref()).is_none()
        {
            foreign = Some(format!("reads `{}`, which is none of its inputs; make it a source", scan.table_name));
        }
        // Keys are columns of the whole table.
        if let LogicalPlan::TableScan(scan) = node
            && (scan.projection.is_some() || !scan.filters.is_empty() || scan.fetch.is_some())
        {
            let table = &scan.table_name;
            foreign = Some(format!("reads `{table}` with columns, filters or a limit of the scan's own; don't optimize it"));
        }
        if let LogicalPlan::Extension(extension) = node
            && OpaqueNode::of(extension).is_none()
        {
            foreign = Some(format!("has a node of its own, `{}`; use DataFusion's", extension.node.name()));
        }
        let _ = node.apply_expressions(|expr| {
            expr.apply(|part| {
                let (name, is_own) = match part {
                    Expr::ScalarFunction(f) => {
                        let name = f.func.name();
                        (name, state.scalar_functions().get(name).or(users.scalar(name)) == Some(&f.func))
                    }
                    Expr::AggregateFunction(f) => {
                        let name = f.func.name();
                        (name, state.aggregate_functions().get(name).or(users.aggregate(name)) == Some(&f.func))
                    }
                    Expr::WindowFunction(f) => match &f.fun {
                        WindowFunctionDefinition::AggregateUDF(f) => {
                            let name = f.name();
                            (name, state.aggregate_functions().get(name).or(users.aggregate(name)) == Some(f))
                        }
                        WindowFunctionDefinition::WindowUDF(f) => {
                            let name = f.name();
                            (name, state.window_functions().get(name).or(users.window(name)) == Some(f))
                        }
                    },
                    Expr::HigherOrderFunction(f) => {
                        (f.func.name(), state.higher_order_functions().get(f.func.name()) == Some(&f.func))
                    }
                    _ => return Ok(TreeNodeRecursion::Continue),
                };
                if !is_own {
                    foreign = Some(format!(
                        "calls `{name}`, which is none of DataFusion's functions, nor one of the pipeline's; add it as a \
                         UserFunction, and call a clone of it"
                    ));
                }
                Ok(TreeNodeRecursion::Continue)
            })
        });
        Ok(TreeNodeRecursion::Continue)
    });
    let Some(what) = foreign else { return Ok(()) };
    Err(Error::new(ErrorKind::Sql, format!("the plan {what}"))
        .with_task(&task.name)
        .with_location(task.location.clone()))
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

/// Analysis, then the rules that the prover relies on.
fn normalise(plan: LogicalPlan, state: &SessionState) -> datafusion::common::Result<LogicalPlan> {
    let rules: OptimizerRules = vec![
        Arc::new(RewriteSetComparison::new()),
        Arc::new(SimplifyExpressions::new()),
        Arc::new(DecorrelatePredicateSubquery::new()),
        Arc::new(ScalarSubqueryToJoin::new()),
        Arc::new(DecorrelateLateralJoin::new()),
        Arc::new(EqualitiesBelowJoins),
        Arc::new(EquijoinsOfOneKind),
        Arc::new(JoinsOfOneKind),
    ];
    let plan = state.analyzer().execute_and_check(plan, state.config_options(), |_, _| {})?;
    Optimizer::with_rules(rules).optimize(plan, state, |_, _| {})
}

fn number_scans(plan: LogicalPlan) -> datafusion::common::Result<(LogicalPlan, Vec<Scan>)> {
    let mut scans = Vec::new();
    let numbered = plan.transform_down_with_subqueries(|node| {
        let LogicalPlan::TableScan(mut scan) = node else { return Ok(Transformed::no(node)) };
        let Some(input) = scan.source.downcast_ref::<InputSource>() else {
            return Ok(Transformed::no(LogicalPlan::TableScan(scan)));
        };
        let schema = Arc::new(scan.projected_schema.as_arrow().clone());
        let numbered = InputSource { table: input.table.clone(), known: input.known.clone(), scan: Some(scans.len()) };
        let Known { schema: _, bytes, stored, row_groups, is_served } = input.known.clone();
        scans.push(Scan { table: input.table.clone(), schema, bytes, stored, row_groups, is_served });
        scan.source = Arc::new(numbered);
        Ok(Transformed::yes(LogicalPlan::TableScan(scan)))
    })?;
    Ok((numbered.data, scans))
}

/// Numbers of the scans in a plan.
///
/// # Errors
/// Never: DataFusion's visitors may.
pub fn scan_numbers(plan: &LogicalPlan) -> datafusion::common::Result<Vec<usize>> {
    let mut found = Vec::new();
    plan.apply_with_subqueries(|node| {
        if let LogicalPlan::TableScan(scan) = node {
            found.extend(scan.source.downcast_ref::<InputSource>().and_then(InputSource::scan));
        }
        Ok(TreeNodeRecursion::Continue)
    })?;
    Ok(found)
}

fn output_schema(plan: &LogicalPlan, task: &Task) -> Result<SchemaRef> {
    let schema = Arc::new(without_metadata(plan));
    check_storable(&schema, task)?;
    Ok(schema)
}

/// That a task's table can have these columns.
///
/// # Errors
/// [`ErrorKind::Sql`] at the task: two columns of one name, a type that Parquet can't store.
pub fn check_storable(schema: &SchemaRef, task: &Task) -> Result<()> {
    let fail = |message: String| {
        Err(Error::new(ErrorKind::Sql, message).with_task(&task.name).with_location(task.location.clone()))
    };
    let fields = schema.fields();
    for (i, field) in fields.iter().enumerate() {
        if fields[..i].iter().any(|other| other.name() == field.name()) {
            return fail(format!("two output columns are named `{}`; rename one with AS", field.name()));
        }
        let alone = Schema::new(vec![Arc::clone(field)]);
        if let Err(cause) = ArrowSchemaConverter::new().convert(&alone) {
            let (name, data_type) = (field.name(), field.data_type());
            return fail(format!("column `{name}` of type {data_type} can't be stored in Parquet ({cause}); CAST it"));
        }
    }
    Ok(())
}

fn without_metadata(plan: &LogicalPlan) -> Schema {
    let fields = plan.schema().fields().iter();
    Schema::new(fields.map(|f| f.as_ref().clone().with_metadata(HashMap::new())).collect::<Vec<_>>())
}

fn volatile_function(plan: &LogicalPlan) -> datafusion::common::Result<Option<String>> {
    let mut found = None;
    plan.apply_with_subqueries(|node| {
        found = volatile_call(node);
        Ok(if found.is_some() { TreeNodeRecursion::Stop } else { TreeNodeRecursion::Continue })
    })?;
    Ok(found)
}

/// A volatile function that the node itself calls, not those below it.
pub fn volatile_call(node: &LogicalPlan) -> Option<String> {
    let mut found = None;
    // Neither closure fails.
    let _ = node.apply_expressions(|expr| {
        expr.apply(|e| {
            let (name, volatility) = match e {
                Expr::ScalarFunction(f) => (f.func.name(), f.func.signature().volatility),
                Expr::AggregateFunction(f) => (f.func.name(), f.func.signature().volatility),
                Expr::WindowFunction(f) => match &f.fun {
                    WindowFunctionDefinition::AggregateUDF(f) => (f.name(), f.signature().volatility),
                    WindowFunctionDefinition::WindowUDF(f) => (f.name(), f.signature().volatility),
                },
                Expr::HigherOrderFunction(f) => (f.func.name(), f.func.signature().volatility),
                _ => return Ok(TreeNodeRecursion::Continue),
            };
            if volatility != Volatility::Immutable {
                found = Some(name.to_string());
                return Ok(TreeNodeRecursion::Stop);
            }
            Ok(TreeNodeRecursion::Continue)
        })
    });
    found
}

/// The task's query and every view below it, printed from the syntax tree.
fn text(task: &Task, pipeline: &Pipeline, plan: &LogicalPlan) -> String {
    let mut text = match &task.query {
        TaskQuery::Sql(query) => query.to_string(),
        TaskQuery::DataFrame(_) | TaskQuery::Opaque(_) => plan.display_indent_schema().to_string(),
    };
    let mut pending: Vec<_> = task.reads.iter().collect();
    let mut seen = BTreeMap::new();
    while let Some(read) = pending.pop() {
        if let Some(view) = pipeline.view(&read.name)
            && seen.insert(&view.name, view).is_none()
        {
            pending.extend(&view.reads);
        }
    }
    for (name, view) in seen {
        text.push_str(&format!("\nVIEW {name:?} {:?} AS {}", view.columns, view.query));
    }
    text
}

/// A planner's error as ours: its place where DataFusion knows it, else `start`.
fn sql_error(error: DataFusionError, start: &Location) -> Error {
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
    Error::new(ErrorKind::Sql, error.strip_backtrace()).with_location(location)
}

/// Resolves names for DataFusion's SQL planner from a pipeline and schemas alone.
struct Names<'a> {
    state: &'a SessionState,
    pipeline: &'a Pipeline,
    inputs: &'a BTreeMap<String, Known>,
    task: &'a Task,
}

impl Names<'_> {
    fn task(&self, task: &Task) -> datafusion::common::Result<Planned> {
        let plan = match &task.query {
            TaskQuery::Sql(query) if task.parameters.is_empty() => self.plan(query)?,
            TaskQuery::Sql(query) => {
                let values = task.parameters.iter().map(|(name, value)| (name.clone(), value.clone()));
                self.plan(query)?.with_param_values(values.collect::<Vec<_>>())?
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

    fn plan(&self, query: &Query) -> datafusion::common::Result<LogicalPlan> {
        let options =
            ParserOptions { collect_spans: true, ..ParserOptions::from(&self.state.config_options().sql_parser) };
        let statement = SqlStatement::Query(Box::new(query.clone()));
        SqlToRel::new_with_options(self, options).sql_statement_to_plan(statement)
    }

    fn view(&self, view: &View) -> datafusion::common::Result<LogicalPlan> {
        let ours = |e: DataFusionError| DataFusionError::External(Box::new(sql_error(e, &view.location)));
        let plan = self.plan(&view.query).map_err(ours)?;
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
struct Planned {
    plan: LogicalPlan,
    steps: Vec<RecordedStep>,
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
        let function = self.state.table_functions().get(name);
        let function = function.ok_or_else(|| plan_datafusion_err!("unknown table function `{name}`"))?;
        let context = SimplifyContext::builder()
            .with_config_options(Arc::clone(self.state.config_options()))
            .with_query_execution_start_time(self.state.execution_props().query_execution_start_time)
            .build();
        let simplifier = ExprSimplifier::new(context);
        let no_columns = DFSchema::empty();
        let args = args
            .into_iter()
            .map(|arg| simplifier.simplify(simplifier.coerce(arg, &no_columns)?))
            .collect::<datafusion::common::Result<Vec<_>>>()?;
        let rows = function.create_table_provider_with_args(TableFunctionArgs::new(&args, self.state))?;
        Ok(provider_as_source(Arc::new(Call::new(name, &args, rows))))
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
        None
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
