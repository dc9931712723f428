//! Whether a plan may have several partitions.
//!
//! Rows of several partitions meet in another order each time. What is proved here is one-sided: a plan that passes
//! gives the same rows in any order of them. One that does not may still, and has one partition.

use arrow::datatypes::DataType;
use datafusion::common::Result;
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::logical_expr::{Aggregate, Distinct, Expr, ExprSchemable, Limit, LogicalPlan};

use crate::plan::prove::stable::unaliased;
use crate::plan::resolve::volatile_call;
use crate::plan::two_phase::state::aggregate_behind;

/// Aggregates that are exact in any order of their rows, and of parts of them that are put together, unless they are of
/// floats.
const EXACT: [&str; 11] =
    ["avg", "bit_and", "bit_or", "bit_xor", "bool_and", "bool_or", "count", "grouping", "max", "min", "sum"];

/// Whether the rows of a plan, in which what takes rows by their order has one, do not depend on the order of other
/// rows.
///
/// # Errors
/// DataFusion's, of an expression without a type.
pub fn is_partitionable(plan: &LogicalPlan) -> Result<bool> {
    let mut is_free = true;
    plan.apply_with_subqueries(|node| {
        is_free = is_free_of_order(node)? && volatile_call(node).is_none();
        Ok(if is_free { TreeNodeRecursion::Continue } else { TreeNodeRecursion::Stop })
    })?;
    Ok(is_free)
}

/// Whether the rows of a node do not depend on the order of its inputs' rows.
fn is_free_of_order(node: &LogicalPlan) -> Result<bool> {
    Ok(match node {
        LogicalPlan::Projection(_)
        | LogicalPlan::Filter(_)
        | LogicalPlan::SubqueryAlias(_)
        | LogicalPlan::Subquery(_)
        | LogicalPlan::EmptyRelation(_)
        | LogicalPlan::Values(_)
        | LogicalPlan::Union(_)
        | LogicalPlan::Join(_)
        | LogicalPlan::Sort(_) => true,
        LogicalPlan::TableScan(scan) => scan.fetch.is_none(),
        LogicalPlan::Limit(Limit { skip: _, fetch, input }) => fetch.is_some() && is_sorted(input),
        LogicalPlan::Aggregate(aggregate) => is_exact(aggregate)?,
        // Of 0.0 and -0.0 either stands for both.
        LogicalPlan::Distinct(Distinct::All(input)) => {
            !input.schema().fields().iter().any(|field| is_rounded(field.data_type()))
        }
        LogicalPlan::Distinct(Distinct::On(_))
        | LogicalPlan::Window(_)
        | LogicalPlan::Repartition(_)
        | LogicalPlan::Unnest(_)
        | LogicalPlan::RecursiveQuery(_)
        | LogicalPlan::Statement(_)
        | LogicalPlan::Explain(_)
        | LogicalPlan::Analyze(_)
        | LogicalPlan::Extension(_)
        | LogicalPlan::Dml(_)
        | LogicalPlan::Ddl(_)
        | LogicalPlan::Copy(_)
        | LogicalPlan::DescribeTable(_) => false,
    })
}

/// Whether rows come in the order of a sort, which tells all of them apart.
fn is_sorted(plan: &LogicalPlan) -> bool {
    match plan {
        LogicalPlan::Sort(_) => true,
        LogicalPlan::Projection(projection) => is_sorted(&projection.input),
        LogicalPlan::Filter(filter) => is_sorted(&filter.input),
        LogicalPlan::SubqueryAlias(alias) => is_sorted(&alias.input),
        _ => false,
    }
}

fn is_exact(aggregate: &Aggregate) -> Result<bool> {
    let schema = aggregate.input.schema();
    for key in &aggregate.group_expr {
        // Those of grouping sets have no type of their own.
        let parts = if let Expr::GroupingSet(sets) = key { sets.distinct_expr() } else { vec![key] };
        for part in parts {
            if is_rounded(&part.get_type(schema)?) {
                return Ok(false);
            }
        }
    }
    for call in &aggregate.aggr_expr {
        let Expr::AggregateFunction(call) = unaliased(call) else { return Ok(false) };
        // The states of distinct values are lists of them.
        let (name, is_list) = aggregate_behind(&call.func).unwrap_or((call.func.name(), false));
        if !EXACT.contains(&name) || is_list {
            return Ok(false);
        }
        for arg in &call.params.args {
            if is_rounded(&arg.get_type(schema)?) {
                return Ok(false);
            }
        }
    }
    Ok(true)
}

/// Whether a type has floats, as far as is known.
pub fn is_rounded(data_type: &DataType) -> bool {
    data_type.is_floating() || data_type.is_nested() || matches!(data_type, DataType::Dictionary(..))
}
