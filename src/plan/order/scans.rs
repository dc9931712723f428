//! Which scans are read for the order of their rows.

use std::collections::BTreeSet;

use datafusion::common::Result;
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::logical_expr::{Distinct, LogicalPlan, TableScan};

use crate::plan::order::function::{Reads, call_reads};
use crate::plan::order::of::{Order, order_of};
use crate::plan::order::{aggregate_call, lacks_order, window_call};
use crate::plan::resolve::InputSource;

/// The numbers of the scans whose rows something takes in the order of the source's files: chunks must read them in
/// that order, and other rows come out when the order changes.
///
/// # Errors
/// Never: DataFusion's visitors may.
pub fn ordered_scans(plan: &LogicalPlan) -> Result<BTreeSet<usize>> {
    let mut found = BTreeSet::new();
    plan.apply_with_subqueries(|node| {
        if let Some(input) = taken_in_order(node)
            && let Order::Source(Some(scan)) = order_of(input)?
        {
            found.extend(number(&scan));
        }
        Ok(TreeNodeRecursion::Continue)
    })?;
    Ok(found)
}

fn number(scan: &TableScan) -> Option<usize> {
    scan.source.downcast_ref::<InputSource>().and_then(InputSource::scan)
}

/// The input of a node that takes its rows in the order in which they come.
pub fn taken_in_order(node: &LogicalPlan) -> Option<&LogicalPlan> {
    let input = match node {
        LogicalPlan::Limit(limit) => &limit.input,
        LogicalPlan::Aggregate(aggregate) => {
            let schema = aggregate.input.schema();
            let takes_order = |call: &datafusion::logical_expr::expr::AggregateFunction| match call_reads(
                call.func.name(),
                &call.params.args,
                schema,
            ) {
                Reads::Order => call.params.order_by.is_empty(),
                Reads::Batches => true,
                // What nobody knows is taken to read all that it can.
                Reads::Unknown => call.params.order_by.is_empty(),
                Reads::Set => false,
            };
            let is_taken = aggregate.aggr_expr.iter().filter_map(aggregate_call).any(takes_order);
            return is_taken.then_some(aggregate.input.as_ref());
        }
        LogicalPlan::Window(window) => {
            let schema = window.input.schema();
            let mut calls = window.window_expr.iter().filter_map(window_call);
            return calls.any(|call| lacks_order(call, schema)).then_some(window.input.as_ref());
        }
        LogicalPlan::Distinct(Distinct::On(distinct)) if distinct.sort_expr.is_none() => &distinct.input,
        _ => return None,
    };
    Some(input.as_ref())
}
