//! How much a query that runs whole holds in memory at a time, about.
//!
//! An estimate by what Parquet files say: rows never depend on it, and where it is wrong operators spill, or the query
//! is cut. What streams is not held: the larger input of an inner join, through filters and projections. Held are the other
//! inputs of joins with hash tables over them, groups, and what is sorted or seen by a window.

use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::common::{JoinType, Result};
use datafusion::logical_expr::{Aggregate, Distinct, Expr, LogicalPlan};

use crate::plan::order::function::{Reads, call_reads};
use crate::plan::prove::stable::unaliased;
use crate::plan::rows::Input;
use crate::plan::two_phase::state::aggregate_behind;

/// Copies of the rows that a join holds: their values, and a hash table over them.
const COPIES: f64 = 2.0;

/// Bytes that the operators of an optimised plan hold at a time; `None` where that is not known.
pub fn held_bytes(plan: &LogicalPlan) -> Option<f64> {
    let mut all = Some(0.0);
    let summed = plan.apply_with_subqueries(|node| {
        all = all.zip(held_by(node)?).map(|(all, held)| all + held);
        Ok(if all.is_some() { TreeNodeRecursion::Continue } else { TreeNodeRecursion::Stop })
    });
    summed.ok().and(all)
}

/// What a node holds.
fn held_by(node: &LogicalPlan) -> Result<Option<f64>> {
    let bytes = |plan: &LogicalPlan| Input::of(plan).map(|input| input.bytes(plan.schema()));
    Ok(match node {
        LogicalPlan::Join(join) => {
            // Of joins that keep one side's rows, DataFusion may hold either.
            let is_inner = join.join_type == JoinType::Inner;
            let held = |(left, right): (f64, f64)| if is_inner { left.min(right) } else { left.max(right) };
            bytes(&join.left).zip(bytes(&join.right)).map(|sides| COPIES * held(sides))
        }
        LogicalPlan::Aggregate(aggregate) => {
            let groups = Input::of(node).map(|groups| groups.rows);
            // A group may have the longest of its rows' values.
            groups.zip(Input::of(&aggregate.input)).map(|(groups, input)| {
                let all = input.bytes(aggregate.input.schema());
                COPIES * all * (groups / input.rows) + if keeps_rows(aggregate) { all } else { 0.0 }
            })
        }
        LogicalPlan::Sort(_) | LogicalPlan::Window(_) | LogicalPlan::Distinct(Distinct::All(_)) => bytes(node),
        LogicalPlan::TableScan(_)
        | LogicalPlan::EmptyRelation(_)
        | LogicalPlan::Values(_)
        | LogicalPlan::Projection(_)
        | LogicalPlan::Filter(_)
        | LogicalPlan::SubqueryAlias(_)
        | LogicalPlan::Subquery(_)
        | LogicalPlan::Union(_)
        | LogicalPlan::Limit(_) => Some(0.0),
        _ => None,
    })
}

/// Whether the state of an aggregate grows with its rows, or nobody knows.
fn keeps_rows(aggregate: &Aggregate) -> bool {
    aggregate.aggr_expr.iter().any(|expr| {
        let Expr::AggregateFunction(call) = unaliased(expr) else { return true };
        let (name, is_distinct) = aggregate_behind(&call.func).unwrap_or((call.func.name(), call.params.distinct));
        let reads = call_reads(name, &call.params.args, aggregate.input.schema());
        is_distinct || ["median", "percentile_cont"].contains(&name) || reads != Reads::Set
    })
}
