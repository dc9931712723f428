//! From a task's query to a normalised logical plan in which every scan has a number.
//!
//! Names are resolved against the schemas of the task's inputs; views are inlined. Normalisation is DataFusion's
//! analyzer (types, coercion) and the few of its rules that turn predicates and subqueries into joins, so that the
//! prover sees joins with equalities; constants are folded, `now()` and `current_date` with them.

pub mod call;
mod equalities;
mod foreign;
pub mod names;
mod normalise;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use arrow::datatypes::{Schema, SchemaRef};
use datafusion::common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion::common::{DataFusionError, internal_err, plan_err};
use datafusion::execution::SessionState;
use datafusion::logical_expr::{
    Expr, LogicalPlan, TableProviderFilterPushDown, TableScan, TableScanBuilder, TableSource, Union, Volatility,
    WindowFunctionDefinition,
};
use parquet::arrow::ArrowSchemaConverter;

use crate::error::{Error, ErrorKind, Result};
use crate::pipeline::Pipeline;
use crate::plan::clustering::RowGroups;
use crate::plan::order::notes::notes;
use crate::plan::order::with_orders;
use crate::plan::prove::rule::Rules;
use crate::plan::published::{NotPublished, published_schema};
use crate::plan::query::placed;
use crate::plan::resolve::foreign::refuse_foreign;
use crate::plan::resolve::names::{Names, Planned, sql_error};
use crate::plan::resolve::normalise::normalise;
use crate::plan::slice::Stored;
use crate::task::dataframe::RecordedStep;
use crate::task::function::{Versions, called_in_plan};
use crate::task::{CutOverrides, Task, TaskQuery};

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
    /// What the whole query leaves open, in words.
    pub open: Arc<[String]>,
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

impl Scan {
    /// How many values a column has, about, where its files tell.
    pub fn values(&self, column: usize) -> Option<u64> {
        let groups = self.row_groups.as_ref()?;
        let values = groups.size(self.schema.field(column).name())?.values;
        Some(values.unwrap_or(u64::MAX).min(groups.rows()))
    }
}

/// What is known of an input before it is read.
#[derive(Debug, Clone)]
pub struct Known {
    /// Its columns.
    pub schema: SchemaRef,
    /// Its size, about.
    pub bytes: u64,
    /// Its rows, about, where that is known of what a part of the query gives.
    pub rows: Option<u64>,
    /// How it is stored, when that says a row's chunk.
    pub stored: Option<Stored>,
    /// Its row groups, when it is a source of Parquet files.
    pub row_groups: Option<Arc<RowGroups>>,
    /// Whether a hook gives each chunk its slice.
    pub is_served: bool,
    /// Whether its rows have an order: that of files and of rows in them.
    pub has_order: bool,
    /// Columns that are never NULL when they are read, whatever `schema` says.
    pub never_null: Arc<BTreeSet<String>>,
}

impl Known {
    /// Only its columns and its size, about.
    pub fn new(schema: SchemaRef, bytes: u64) -> Self {
        let never_null = Arc::default();
        Self {
            schema,
            bytes,
            rows: None,
            stored: None,
            row_groups: None,
            is_served: false,
            has_order: false,
            never_null,
        }
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
        let (text, functions, open) = (self.text.clone(), Arc::clone(&self.functions), Arc::clone(&self.open));
        Ok(Self { plan, scans, schema, volatile, text, functions, open })
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

    /// Whether its rows have an order: that of files and of rows in them.
    pub fn has_order(&self) -> bool {
        self.known.has_order
    }

    /// Whether the column number `at` is never NULL when it is read.
    pub fn is_never_null(&self, at: usize) -> bool {
        let name = self.known.schema.fields().get(at).map(|field| field.name());
        name.is_some_and(|name| self.known.never_null.contains(name))
    }

    /// Its rows, about, where that is known of what a part of the query gives.
    pub fn rows(&self) -> Option<u64> {
        self.known.rows
    }

    /// Its row groups, when it is a source of Parquet files.
    pub fn row_groups(&self) -> Option<&RowGroups> {
        self.known.row_groups.as_deref()
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
    rules: Rules,
) -> Result<ResolvedTask> {
    check_names(task, pipeline)?;
    check_functions(task, pipeline, state)?;
    let own = with_names_of_its_own(state);
    let resolved = resolve_with(task, pipeline, inputs, &own, rules);
    reserve_names(state, &own);
    resolved
}

/// The same session, in which names that DataFusion makes up, such as `__correlated_sq_1`, are numbered from 1: those
/// of a task must not depend on how many others were planned before it.
fn with_names_of_its_own(state: &SessionState) -> SessionState {
    let mut own = state.clone();
    own.execution_props_mut().alias_generator = Arc::default();
    own
}

/// Lets names that are made up in `state` from now on not repeat those that were made up in `own`.
fn reserve_names(state: &SessionState, own: &SessionState) {
    let next = own.execution_props().alias_generator.next("");
    // It is an underscore and the number.
    if let Ok(number) = next.trim_start_matches('_').parse() {
        state.execution_props().alias_generator.update_min_id(number);
    }
}

fn resolve_with(
    task: &Task,
    pipeline: &Pipeline,
    inputs: &BTreeMap<String, Known>,
    state: &SessionState,
    rules: Rules,
) -> Result<ResolvedTask> {
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
        let plan = normalise(plan, state).map_err(|e| match &task.query {
            TaskQuery::Sql(query) => in_task(placed(e, query)),
            TaskQuery::DataFrame(_) | TaskQuery::Opaque(_) => in_task(e),
        })?;
        let open = notes(&plan).map_err(in_task)?.into();
        let plan = with_orders(plan, rules).map_err(in_task)?;
        let (plan, scans) = number_scans(plan).map_err(in_task)?;
        let schema = Arc::new(without_metadata(&plan));
        published(&schema, task)?;
        let volatile = volatile_function(&plan).map_err(in_task)?;
        let text = text(task, pipeline, &plan);
        let functions = Arc::new(called_in_plan(&plan, &versions));
        Ok(Resolved { plan, scans, schema, volatile, text, functions, open })
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

fn number_scans(plan: LogicalPlan) -> datafusion::common::Result<(LogicalPlan, Vec<Scan>)> {
    let mut scans = Vec::new();
    let numbered = plan.transform_down_with_subqueries(|node| {
        let LogicalPlan::TableScan(mut scan) = node else { return Ok(Transformed::no(node)) };
        let Some(input) = scan.source.downcast_ref::<InputSource>() else {
            return Ok(Transformed::no(LogicalPlan::TableScan(scan)));
        };
        let schema = Arc::new(scan.projected_schema.as_arrow().clone());
        let numbered = InputSource { table: input.table.clone(), known: input.known.clone(), scan: Some(scans.len()) };
        let Known { schema: _, bytes, stored, row_groups, is_served, has_order: _, never_null: _, rows: _ } =
            input.known.clone();
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

/// Readers that take folders like `chunk=0000` for a partitioned table have a column of this name.
const OF_FOLDERS: &str = "chunk";

/// The columns of the task's table when its query gives these.
///
/// # Errors
/// [`ErrorKind::Sql`] at the task: two columns of one name, a column named like the partition folders, a type without a
/// form that others read.
pub fn published(schema: &SchemaRef, task: &Task) -> Result<SchemaRef> {
    let fail = |message: String| {
        Err(Error::new(ErrorKind::Sql, message).with_task(&task.name).with_location(task.location.clone()))
    };
    let fields = schema.fields();
    for (i, field) in fields.iter().enumerate() {
        if fields[..i].iter().any(|other| other.name() == field.name()) {
            return fail(format!("two output columns are named `{}`; rename one with AS", field.name()));
        }
        if field.name().eq_ignore_ascii_case(OF_FOLDERS) {
            let name = field.name();
            return fail(format!(
                "the output column `{name}` clashes with the partition folders {OF_FOLDERS}=0000, …: readers would show \
                 the folder's number instead; rename it with AS"
            ));
        }
    }
    published_schema(schema).or_else(|NotPublished { column, data_type, advice }| {
        fail(format!("column `{column}` is {data_type}, which Parquet readers don't agree on; {advice}"))
    })
}

fn without_metadata(plan: &LogicalPlan) -> Schema {
    let fields = plan.schema().fields().iter();
    Schema::new(fields.map(|f| f.as_ref().clone().with_metadata(HashMap::new())).collect::<Vec<_>>())
}

/// A volatile function that `plan` calls, in subqueries, too.
pub fn volatile_function(plan: &LogicalPlan) -> datafusion::common::Result<Option<String>> {
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
