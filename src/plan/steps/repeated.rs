//! A part that a query reads more than once, such as a common table expression that is named twice.
//!
//! DataFusion computes it as often as it is named. As a step it is computed once, with the columns that any of its
//! readers takes. Where a reader has a filter of its own that could be done below, it takes less than the others, and
//! the part stays where it is; so does a join whose rows a reader joins with others.

use std::collections::{BTreeSet, HashMap};
use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;

use datafusion::common::Result as PlanResult;
use datafusion::common::tree_node::{Transformed, TransformedResult, TreeNode, TreeNodeRecursion};
use datafusion::logical_expr::utils::split_conjunction;
use datafusion::logical_expr::{Expr, LogicalPlan, LogicalPlanBuilder, TableScan};

use crate::plan::partitionable::is_partitionable;
use crate::plan::prove::proof::Proof;
use crate::plan::prove::rule::Rules;
use crate::plan::push_down::{pushed_down_to_scans, whole_scan};
use crate::plan::resolve::{InputSource, Known, Resolved};
use crate::plan::slice::Stored;
use crate::plan::step_form;
use crate::plan::steps::Part;
use crate::plan::steps::parts::{Split, is_same, is_worth_a_step, reads_input, stands_alone};
use crate::plan::two_phase::{numbered, renamed};

/// In larger plans nothing is sought, so that it takes little time.
const MOST_NODES: usize = 2000;

/// Stands for a part while its readers are looked at.
const READ: &str = "#read";

/// The largest part that stands in the query more than once and is worth to be computed once, as `is_worth` says; none
/// where rows depend on the order of others.
pub fn repeated(query: &Resolved, rules: Rules, is_worth: &dyn Fn(&Resolved) -> bool) -> PlanResult<Option<Split>> {
    let (mut counts, hasher, mut nodes) = (HashMap::new(), RandomState::new(), 0);
    query.plan.apply_with_subqueries(|node| {
        nodes += 1;
        *counts.entry(hasher.hash_one(node)).or_insert(0) += 1;
        Ok(if nodes > MOST_NODES { TreeNodeRecursion::Stop } else { TreeNodeRecursion::Continue })
    })?;
    if nodes > MOST_NODES || counts.values().all(|count| *count == 1) || !is_partitionable(&query.plan)? {
        return Ok(None);
    }
    let mut found = None;
    query.plan.apply_with_subqueries(|node| {
        let is_repeated = counts.get(&hasher.hash_one(node)).is_some_and(|count| *count > 1);
        if is_repeated && is_worth_a_step(node)? && stands_alone(node)? && reads_input(node)? {
            // A part of which nothing can be made is no part.
            found = split(query, node, rules, is_worth).ok().flatten();
        }
        Ok(if found.is_some() { TreeNodeRecursion::Stop } else { TreeNodeRecursion::Continue })
    })?;
    Ok(found)
}

/// Takes `part` out of `query`.
fn split(
    query: &Resolved,
    part: &LogicalPlan,
    rules: Rules,
    is_worth: &dyn Fn(&Resolved) -> bool,
) -> PlanResult<Option<Split>> {
    let columns = Arc::clone(numbered(part.clone())?.schema().inner());
    let source = Arc::new(InputSource::new(READ, Known::new(Arc::clone(&columns), 0)));
    let read = renamed(LogicalPlanBuilder::scan(READ, source, None)?.build()?, part.schema())?;
    let replaced = query.plan.clone().transform_down_with_subqueries(|node| match is_same(&node, part, rules)? {
        true => Ok(Transformed::new(read.clone(), true, TreeNodeRecursion::Jump)),
        false => Ok(Transformed::no(node)),
    })?;
    let pushed = pushed_down_to_scans(replaced.data, false)?;
    if is_join(part) && joins_read(&pushed, false)? {
        return Ok(None);
    }
    let Some(taken) = taken(&pushed)? else { return Ok(None) };
    let part_columns = part.schema().columns();
    let taken_columns = taken.iter().map(|at| Expr::Column(part_columns[*at].clone()));
    let step = LogicalPlanBuilder::from(part.clone()).project(taken_columns)?.build()?;
    let step = numbered(step)?;
    let stored = Arc::clone(step.schema().inner());
    let step = query.part(step_form::stored(step)?)?;
    if step.volatile.is_some() || !is_worth(&step) {
        return Ok(None);
    }
    let query = query.clone();
    let rest = move |name: &str, proof: &Proof, rows: Option<u64>| {
        let known = Known { stored: Stored::by(proof), rows, ..Known::new(Arc::clone(proof.schema()), 0) };
        let source = Arc::new(InputSource::new(name, known));
        let rows = step_form::restored(LogicalPlanBuilder::scan(name, source, None)?.build()?, &stored)?;
        let read = |node: LogicalPlan| match &node {
            LogicalPlan::TableScan(scan) if is_read(scan) => {
                let place = |at: usize| taken.iter().position(|taken| *taken == at);
                let places = projection(scan).into_iter().filter_map(place);
                let columns = rows.schema().columns();
                let columns = places.map(|place| Expr::Column(columns[place].clone()));
                let rows = LogicalPlanBuilder::from(rows.clone()).project(columns)?.build()?;
                renamed(rows, &scan.projected_schema).map(Transformed::yes)
            }
            _ => whole_scan(node),
        };
        let rest = pushed.clone().transform_up_with_subqueries(read).data()?;
        let renewed = |node: LogicalPlan| Ok(Transformed::yes(node.recompute_schema()?));
        query.part(rest.transform_up_with_subqueries(renewed).data()?)
    };
    Ok(Some(Split { step, part: Part::Repeated, is_small: true, rest: Box::new(rest) }))
}

/// Whether a plan gives what a join gives.
fn is_join(plan: &LogicalPlan) -> bool {
    match plan {
        LogicalPlan::Projection(_) | LogicalPlan::Filter(_) | LogicalPlan::SubqueryAlias(_) => {
            plan.inputs().into_iter().any(is_join)
        }
        other => matches!(other, LogicalPlan::Join(_)),
    }
}

/// Whether a reader joins the part's rows with others, which may leave few of them: more than is won if all are
/// computed.
fn joins_read(plan: &LogicalPlan, is_joined: bool) -> PlanResult<bool> {
    let is_joined = match plan {
        LogicalPlan::TableScan(scan) => return Ok(is_joined && is_read(scan)),
        LogicalPlan::Join(_) => true,
        LogicalPlan::Aggregate(_) | LogicalPlan::Distinct(_) => false,
        _ => is_joined,
    };
    let mut found = false;
    for input in plan.inputs() {
        found |= joins_read(input, is_joined)?;
    }
    plan.apply_subqueries(|subquery| {
        found |= joins_read(subquery, false)?;
        Ok(TreeNodeRecursion::Continue)
    })?;
    Ok(found)
}

/// The columns of the part that its readers take; `None` where one of them has a filter of its own.
fn taken(plan: &LogicalPlan) -> PlanResult<Option<BTreeSet<usize>>> {
    let (mut taken, mut is_alike) = (BTreeSet::new(), true);
    plan.apply_with_subqueries(|node| {
        match node {
            LogicalPlan::TableScan(scan) if is_read(scan) => {
                taken.extend(projection(scan));
                is_alike &= scan.filters.is_empty() && scan.fetch.is_none();
            }
            LogicalPlan::Filter(filter) => is_alike &= !reads_alone(&filter.input, &filter.predicate),
            _ => {}
        }
        Ok(TreeNodeRecursion::Continue)
    })?;
    Ok(is_alike.then_some(taken))
}

/// Whether a plan gives the part's rows, and a condition on them asks for constants.
fn reads_alone(plan: &LogicalPlan, predicate: &Expr) -> bool {
    match plan {
        LogicalPlan::TableScan(scan) => is_read(scan) && !split_conjunction(predicate).into_iter().all(has_subquery),
        LogicalPlan::Projection(_) | LogicalPlan::SubqueryAlias(_) => {
            plan.inputs().into_iter().all(|input| reads_alone(input, predicate))
        }
        _ => false,
    }
}

fn has_subquery(predicate: &Expr) -> bool {
    let is_subquery = |part: &Expr| {
        Ok(matches!(part, Expr::ScalarSubquery(_) | Expr::Exists(_) | Expr::InSubquery(_) | Expr::SetComparison(_)))
    };
    // The closure never fails.
    predicate.exists(is_subquery).unwrap_or(true)
}

fn is_read(scan: &TableScan) -> bool {
    scan.source.downcast_ref::<InputSource>().is_some_and(|source| source.table() == READ)
}

/// The columns of a scan, by number.
fn projection(scan: &TableScan) -> Vec<usize> {
    let all = || (0..scan.source.schema().fields().len()).collect();
    scan.projection.clone().unwrap_or_else(all)
}
