//! DataFusion's runtime and session as chunk plans need them.

use std::collections::HashSet;
use std::path::Path;
use std::sync::Arc;

use arrow::datatypes::DataType;
use datafusion::common::Column;
use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::execution::FunctionRegistry;
use datafusion::execution::SessionState;
use datafusion::execution::SessionStateBuilder;
use datafusion::execution::cache::cache_manager::CacheManagerConfig;
use datafusion::execution::disk_manager::{DiskManagerBuilder, DiskManagerMode};
use datafusion::execution::memory_pool::{MemoryPool, PeakRecordingPool, UnboundedMemoryPool};
use datafusion::execution::object_store::ObjectStoreUrl;
use datafusion::execution::runtime_env::{RuntimeEnv, RuntimeEnvBuilder};
use datafusion::logical_expr::{Expr, ExprSchemable, LogicalPlan};
use datafusion::optimizer::{AnalyzerRule, OptimizerRule};
use datafusion::physical_optimizer::PhysicalOptimizerRule;
use datafusion::prelude::SessionConfig;

use crate::arithmetic::cast::loses_digits;
use crate::arithmetic::chain::LongChains;
use crate::arithmetic::mixed::{Coercion, Comparisons};
use crate::chunk::bucket::chunk_of_udf;
use crate::error::{Error, ErrorKind, Result};
use crate::execute::budget::{BATCH_BYTES, Budget};
use crate::execute::compact::CompactTexts;
use crate::execute::disk::Disk;
use crate::execute::first_rows::ManyFirstRows;
use crate::execute::footers::Footers;
use crate::execute::forgotten_order::ForgottenOrder;
use crate::execute::kept_order::KeptOrder;
use crate::execute::ordered_aggregates::SortedLists;
use crate::execute::own_text::OwnText;
use crate::execute::planner::Planner;
use crate::execute::pool::SharedPool;
use crate::execute::sorted_joins::SortedJoins;
use crate::execute::window::OwnWindows;
use crate::plan::distinct_apart::DistinctApart;
use crate::plan::repair::repaired;
use crate::plan::resolve::volatile_function;
use crate::plan::rows::Input;
use crate::zone::{self, InstantTypes};

/// Most bytes of Parquet footers kept in memory.
const FOOTER_BYTES: usize = 64 << 20;

/// A runtime whose operators share `pool_bytes` and spill into `spill_folder` (the system's own when `None`).
pub fn runtime(pool_bytes: Option<usize>, spill_folder: Option<&Path>) -> Result<Arc<RuntimeEnv>> {
    runtime_with(memory_pool(pool_bytes), spill_folder)
}

/// What operators reserve memory of: `bytes`, or all they want. It is a [`PeakRecordingPool`], which knows how much they held
/// at most.
pub fn memory_pool(bytes: Option<usize>) -> Arc<dyn MemoryPool> {
    let pool: Arc<dyn MemoryPool> = match bytes {
        Some(bytes) => Arc::new(SharedPool::new(bytes)),
        None => Arc::new(UnboundedMemoryPool::default()),
    };
    Arc::new(PeakRecordingPool::new(pool))
}

/// As [`runtime`], with a pool that others may share.
pub fn runtime_with(pool: Arc<dyn MemoryPool>, spill_folder: Option<&Path>) -> Result<Arc<RuntimeEnv>> {
    // File lists are never cached: a folder that changed between runs must list again.
    let caches = CacheManagerConfig::default()
        .with_list_files_cache_limit(0)
        .with_file_metadata_cache(Some(Arc::new(Footers::new(FOOTER_BYTES))));
    let mut builder = RuntimeEnvBuilder::new().with_cache_manager(caches).with_memory_pool(pool);
    if let Some(folder) = spill_folder {
        let mode = DiskManagerMode::Directories(vec![folder.to_path_buf()]);
        builder = builder.with_disk_manager_builder(DiskManagerBuilder::default().with_mode(mode));
    }
    let runtime = builder.build_arc();
    let runtime = runtime.map_err(|e| Error::new(ErrorKind::Execute, "can't start DataFusion").with_source(e))?;
    runtime.register_object_store(ObjectStoreUrl::local_filesystem().as_ref(), Arc::new(Disk));
    Ok(runtime)
}

/// A session in which every plan has one partition. It fixes `now()`: take one for a whole run.
///
/// A sort must be able to reserve what it needs to merge its spilled runs, however small its share of the memory is.
pub fn session(runtime: Arc<RuntimeEnv>, budget: Option<Budget>) -> SessionState {
    let mut config = SessionConfig::new().with_target_partitions(1);
    config.options_mut().sql_parser.collect_spans = true;
    // DataFusion 55 sorts the branches of a union apart, each without the columns that are constant in it, and then
    // lets them share the last row that ORDER BY … LIMIT may take, which compares different columns.
    config.options_mut().optimizer.repartition_sorts = false;
    // Which of them count is found out from the plan.
    config.options_mut().sql_parser.enable_subquery_sort_elimination = false;
    if let Some(budget) = budget {
        runtime.disk_manager.set_max_spill_merge_fan_in(budget.merged_runs());
        config = config.with_batch_size(budget.batch_rows());
    }
    if let Some((pool_bytes, jobs)) = budget.and_then(|budget| Some((budget.pool_bytes()?, budget.jobs))) {
        let reservation = &mut config.options_mut().execution.sort_spill_reservation_bytes;
        *reservation = (*reservation).min(pool_bytes / (4 * jobs.max(1)));
    }
    let share = budget.and_then(|budget| Some(budget.pool_bytes()? / budget.jobs.max(1)));
    let first_rows_bytes = share.map_or(usize::MAX, |share| share / 4);
    let batch_bytes = budget.map_or(BATCH_BYTES, |budget| budget.batch_bytes());
    let state = SessionStateBuilder::new()
        .with_config(config)
        .with_runtime_env(runtime)
        .with_default_features()
        .with_query_planner(Arc::new(Planner))
        .with_type_planner(Arc::new(InstantTypes))
        .with_physical_optimizer_rule(Arc::new(OwnWindows))
        .with_physical_optimizer_rule(Arc::new(OwnText))
        .with_physical_optimizer_rule(Arc::new(SortedLists))
        .with_physical_optimizer_rule(Arc::new(ManyFirstRows { most_bytes: first_rows_bytes, batch_bytes }))
        .with_physical_optimizer_rule(Arc::new(CompactTexts))
        .with_scalar_functions(datafusion::execution::SessionStateDefaults::default_scalar_functions())
        .build();
    let rules = repaired(state.optimizers());
    let first: [Arc<dyn PhysicalOptimizerRule + Send + Sync>; 2] =
        [Arc::new(ForgottenOrder::default()), Arc::new(KeptOrder)];
    let physical = first.into_iter().chain(state.physical_optimizers().iter().cloned()).collect();
    let analysis = state.analyzer().rules.iter().map(|rule| -> Arc<dyn AnalyzerRule + Send + Sync> {
        if rule.name() == Coercion.name() { Arc::new(Coercion) } else { Arc::clone(rule) }
    });
    let analysis = analysis.collect();
    let builder = SessionStateBuilder::new_from_existing(state).with_optimizer_rules(rules);
    let mut state = builder.with_analyzer_rules(analysis).with_physical_optimizer_rules(physical).build();
    // Registering by name can only fail for function factories, which this session has not.
    for function in zone::functions().map(Arc::new).into_iter().chain([chunk_of_udf()]) {
        let _ = state.register_udf(function);
    }
    // Never fails.
    let _ = state.register_expr_planner(Arc::new(LongChains));
    let _ = state.register_expr_planner(Arc::new(Comparisons));
    state.mark_start_execution();
    state
}

/// How rows are joined by equal columns.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Joins {
    /// One side in a hash table: fast, and fails where that does not fit.
    Hash,
    /// Both sides sorted: slower, and spills.
    Spill,
}

/// The same session with joins of this kind, and of those that spill with aggregates of distinct values that do.
pub fn with_joins(state: &SessionState, joins: Joins) -> SessionState {
    if joins == Joins::Hash {
        return state.clone();
    }
    let first: Arc<dyn PhysicalOptimizerRule + Send + Sync> = Arc::new(SortedJoins);
    let physical = [first].into_iter().chain(state.physical_optimizers().iter().cloned()).collect();
    let apart: Arc<dyn OptimizerRule + Send + Sync> = Arc::new(DistinctApart { is_dear_too: true });
    let logical = state.optimizers().iter().cloned().chain([apart]).collect();
    let builder = SessionStateBuilder::new_from_existing(state.clone()).with_optimizer_rules(logical);
    let mut state = builder.with_physical_optimizer_rules(physical).build();
    // Several sorts go on at a time, each with its own batch and what it keeps back to merge.
    let options = state.config_mut().options_mut();
    options.execution.sort_spill_reservation_bytes /= 8;
    // Only text that is not a number fails.
    let _ = options.set("datafusion.execution.batch_size", "1024");
    state
}

/// The same session with plans of so many partitions, where a plan gives the same rows in them.
pub fn with_partitions(state: &SessionState, partitions: usize) -> SessionState {
    let mut state = state.clone();
    state.config_mut().options_mut().execution.target_partitions = partitions.max(1);
    state
}

/// The same session with batches that end at so many bytes, if each of their rows has `row_bytes`.
pub fn with_row_bytes(state: &SessionState, row_bytes: u64, batch_bytes: usize) -> SessionState {
    let mut state = state.clone();
    let rows = (batch_bytes as u64 / row_bytes.max(1)).max(1);
    if rows < state.config().batch_size() as u64 {
        // Only text that is not a number fails.
        let _ = state.config_mut().options_mut().set("datafusion.execution.batch_size", &rows.to_string());
    }
    state
}

/// The same session, without what DataFusion does wrong with `plan`.
///
/// Where a plan compares floats, no Parquet row groups are skipped: the statistics of a float column leave NaN out, but
/// DataFusion holds NaN for the largest value and looks only at them. So a filter, above all one that a join makes from
/// its other side, skips rows that it should keep, other ones for each layout of the files and in each chunk.
///
/// Nor where it casts between timestamps with and without a time zone, or decimals to fewer digits: DataFusion compares
/// statistics as if such a cast kept the number.
///
/// Where two inputs of a join share a name, filters are not pushed down in the physical plan: DataFusion 55 finds
/// their columns by name and may take one for the other (apache/datafusion#25259). Nor are they where a function is
/// volatile: below the projection that calls it, a filter would call it again. Scans use the filters that the logical
/// plan gives them all the same.
pub fn exact(state: &SessionState, plan: &LogicalPlan) -> datafusion::common::Result<SessionState> {
    let mut state = match volatile_function(plan)?.is_some() || joins_share_names(plan)? {
        true => {
            let rules = state.physical_optimizers().iter().filter(|rule| !rule.name().starts_with("FilterPushdown"));
            let rules = rules.cloned().collect();
            SessionStateBuilder::new_from_existing(state.clone()).with_physical_optimizer_rules(rules).build()
        }
        false => state.clone(),
    };
    let options = state.config_mut().options_mut();
    if reads_floats(plan, |node| matches!(node, LogicalPlan::Aggregate(_)))? {
        options.optimizer.enable_aggregate_dynamic_filter_pushdown = false;
    }
    let compares =
        |node: &LogicalPlan| matches!(node, LogicalPlan::Filter(_) | LogicalPlan::Join(_) | LogicalPlan::Sort(_));
    // DataFusion brings the filters of a join, an extreme or the first rows below a limit, and reads row groups in the
    // order of a sort above it, so that the limit takes other rows.
    let is_limit = |node: &LogicalPlan| {
        Ok(matches!(node, LogicalPlan::Limit(limit) if !matches!(limit.input.as_ref(), LogicalPlan::Sort(_))))
    };
    if plan.exists(is_limit)? {
        options.optimizer.enable_aggregate_dynamic_filter_pushdown = false;
        options.optimizer.enable_join_dynamic_filter_pushdown = false;
        options.optimizer.enable_topk_dynamic_filter_pushdown = false;
        options.optimizer.enable_sort_pushdown = false;
    } else if Input::of(plan).is_some() {
        // The smaller side of each join is known better than DataFusion knows it.
        options.optimizer.join_reordering = false;
    }
    if reads_floats(plan, compares)? || changes_numbers(plan)? {
        options.optimizer.enable_join_dynamic_filter_pushdown = false;
        options.optimizer.enable_topk_dynamic_filter_pushdown = false;
        options.execution.parquet.pruning = false;
    }
    Ok(state)
}

/// Adds the names of all columns that may be on a side of a join, in whatever order joins are made.
fn add_names<'a>(plan: &'a LogicalPlan, names: &mut HashSet<&'a str>) {
    names.extend(plan.schema().fields().iter().map(|field| field.name().as_str()));
    match plan {
        LogicalPlan::Projection(projection) => add_names(&projection.input, names),
        LogicalPlan::Filter(filter) => add_names(&filter.input, names),
        LogicalPlan::Join(join) => {
            add_names(&join.left, names);
            add_names(&join.right, names);
        }
        _ => {}
    }
}

/// Whether both sides of some join have a column of one name.
fn joins_share_names(plan: &LogicalPlan) -> datafusion::common::Result<bool> {
    let mut found = false;
    plan.apply_with_subqueries(|node| {
        if let LogicalPlan::Join(join) = node {
            let (mut left, mut right) = (HashSet::new(), HashSet::new());
            add_names(&join.left, &mut left);
            add_names(&join.right, &mut right);
            found |= !left.is_disjoint(&right);
        }
        Ok(if found { TreeNodeRecursion::Stop } else { TreeNodeRecursion::Continue })
    })?;
    Ok(found)
}

/// Whether an expression casts between timestamps with and without a time zone, or decimals to fewer digits.
fn changes_numbers(plan: &LogicalPlan) -> datafusion::common::Result<bool> {
    let has_zone = |data_type: &DataType| match data_type {
        DataType::Timestamp(_, zone) => Some(zone.is_some()),
        _ => None,
    };
    let mut found = false;
    plan.apply_with_subqueries(|node| {
        let inputs = node.inputs();
        node.apply_expressions(|expr| {
            expr.apply(|part| {
                let (inner, to) = match part {
                    Expr::Cast(cast) => (&cast.expr, cast.field.data_type()),
                    Expr::TryCast(cast) => (&cast.expr, cast.field.data_type()),
                    _ => return Ok(TreeNodeRecursion::Continue),
                };
                let types = inputs.iter().filter_map(|input| inner.get_type(input.schema()).ok());
                found |= types.clone().any(|from| loses_digits(&from, to));
                if let Some(to) = has_zone(to) {
                    // What has no type over one input alone is not known.
                    let mut from = types.map(|data_type| has_zone(&data_type)).peekable();
                    found |= from.peek().is_none() || from.any(|from| from == Some(!to));
                }
                Ok(TreeNodeRecursion::Continue)
            })
        })?;
        Ok(if found { TreeNodeRecursion::Stop } else { TreeNodeRecursion::Continue })
    })?;
    Ok(found)
}

/// Whether an expression of a node that `is_asked` reads a float column.
fn reads_floats(plan: &LogicalPlan, is_asked: impl Fn(&LogicalPlan) -> bool) -> datafusion::common::Result<bool> {
    let mut found = false;
    plan.apply_with_subqueries(|node| {
        if is_asked(node) {
            let inputs = node.inputs();
            let is_float = |column: &Column| {
                let mut columns = inputs
                    .iter()
                    .filter_map(|input| input.schema().maybe_index_of_column(column).map(|i| input.schema().field(i)));
                // A column of an outer query, say: nothing is known of it.
                columns.next().is_none_or(|field| field.data_type().is_floating())
            };
            node.apply_expressions(|expr| {
                found |= expr.column_refs().into_iter().any(is_float);
                Ok(TreeNodeRecursion::Continue)
            })?;
        }
        Ok(if found { TreeNodeRecursion::Stop } else { TreeNodeRecursion::Continue })
    })?;
    Ok(found)
}
