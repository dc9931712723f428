//! Parts that may be taken out of a query, each with the query that is left over its rows.

use std::sync::Arc;

use datafusion::catalog::cte_worktable::CteWorkTable;
use datafusion::common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion::common::{JoinType, Result as PlanResult};
use datafusion::datasource::DefaultTableSource;
use datafusion::logical_expr::{Expr, LogicalPlan, LogicalPlanBuilder};

use crate::chunk::Chunking;
use crate::plan::prove::Unproved;
use crate::plan::prove::proof::Proof;
use crate::plan::prove::rule::{Rule, Rules};
use crate::plan::resolve::call::Call;
use crate::plan::resolve::{InputSource, Known, Resolved};
use crate::plan::slice::Stored;
use crate::plan::step_form;
use crate::plan::steps::Part;
use crate::plan::two_phase::{TwoPhase, is_any_rows, numbered, renamed, two_phase};

/// Makes the rest of a query when it is known how the step is called that it reads, how that step is cut, and how many
/// rows it gives, about.
pub type Rest = Box<dyn Fn(&str, &Proof, Option<u64>) -> PlanResult<Resolved>>;

/// A part taken out of a query, and the query that is left over the part's rows.
pub struct Split {
    pub step: Resolved,
    pub part: Part,
    /// Whether the step gives few rows, as far as that can be seen.
    pub is_small: bool,
    pub rest: Rest,
}

/// The parts that may be taken out of `rest` where it was refused.
pub fn parts_of(rest: &Resolved, unproved: &Unproved, chunking: &Chunking, rules: Rules) -> PlanResult<Vec<Split>> {
    let mut splits = Vec::new();
    let Some(at) = &unproved.at else { return Ok(splits) };
    // Whole, a LIMIT without an order stops when it has its rows; cut, each chunk looks at all.
    let is_better_whole = chunking.keys.is_empty() && is_any_rows(at);
    if let Some(TwoPhase { chunk, finish }) = two_phase(at, rules)?.filter(|_| !is_better_whole) {
        splits.extend(split(rest, at, chunk, Part::Phase, finish, rules)?);
    }
    let alone = |part: &LogicalPlan| -> PlanResult<_> {
        let schema = Arc::clone(part.schema());
        Ok((numbered(part.clone())?, Box::new(move |rows| renamed(rows, &schema))))
    };
    let first = unproved.first.as_ref().unwrap_or(at);
    let (chunk, finish) = alone(first)?;
    // Of a rest that reads nothing but the part nothing would be left to cut.
    splits.extend(
        split(rest, first, chunk, Part::First, finish, rules)?
            .filter(|split| split.step.scans.len() < rest.scans.len()),
    );
    for input in at.inputs() {
        if is_worth_a_step(input)? {
            let (chunk, finish) = alone(input)?;
            splits.extend(split(rest, input, chunk, Part::Below, finish, rules)?);
        }
    }
    Ok(splits)
}

/// A scalar subquery that reads an input, as a step that runs first: it has one value for all chunks, and each would
/// read all that it reads.
pub fn scalar_subquery(rest: &Resolved, rules: Rules) -> PlanResult<Option<Split>> {
    let mut found = None;
    rest.plan.apply_with_subqueries(|node| {
        node.apply_expressions(|expr| {
            expr.apply(|e| match e {
                Expr::ScalarSubquery(s) if s.outer_ref_columns.is_empty() && reads_input(&s.subquery)? => {
                    found = Some(Arc::clone(&s.subquery));
                    Ok(TreeNodeRecursion::Stop)
                }
                _ => Ok(TreeNodeRecursion::Continue),
            })
        })
    })?;
    let Some(subquery) = found else { return Ok(None) };
    let schema = Arc::clone(subquery.schema());
    let chunk = numbered(subquery.as_ref().clone())?;
    split(rest, &subquery, chunk, Part::First, Box::new(move |rows| renamed(rows, &schema)), rules)
}

/// Takes `at` out of `rest`: `chunk` becomes a step, and `finish` makes the rows of `at` of its rows.
fn split(
    rest: &Resolved,
    at: &LogicalPlan,
    chunk: LogicalPlan,
    part: Part,
    finish: Box<dyn Fn(LogicalPlan) -> PlanResult<LogicalPlan>>,
    rules: Rules,
) -> PlanResult<Option<Split>> {
    if !stands_alone(at)? {
        return Ok(None);
    }
    let columns = Arc::clone(chunk.schema().inner());
    let step = rest.part(step_form::stored(chunk)?)?;
    let is_small = part == Part::Phase || gives_few_rows(at);
    let (rest, at) = (rest.clone(), at.clone());
    // The schema may say less than the step's plan of what is never NULL, once parts of that are taken out too.
    let rest = move |name: &str, proof: &Proof, rows: Option<u64>| {
        let known = Known { stored: Stored::by(proof), rows, ..Known::new(Arc::clone(proof.schema()), 0) };
        let source = Arc::new(InputSource::new(name, known));
        let rows = step_form::restored(LogicalPlanBuilder::scan(name, source, None)?.build()?, &columns)?;
        let finished = finish(rows)?;
        // Equal plans have equal rows, wherever they stand: a common table expression that is read twice is done once.
        let replaced = rest.plan.clone().transform_down_with_subqueries(|node| match is_same(&node, &at, rules)? {
            true => Ok(Transformed::new(finished.clone(), true, TreeNodeRecursion::Jump)),
            false => Ok(Transformed::no(node)),
        })?;
        let renewed = |node: LogicalPlan| Ok(Transformed::yes(node.recompute_schema()?));
        rest.part(replaced.data.transform_up_with_subqueries(renewed)?.data)
    };
    Ok(Some(Split { step, part, is_small, rest: Box::new(rest) }))
}

/// Whether a plan is a query of its own, no part of a correlated subquery.
pub fn stands_alone(plan: &LogicalPlan) -> PlanResult<bool> {
    let mut stands = true;
    plan.apply_with_subqueries(|node| {
        node.apply_expressions(|expr| {
            stands &= !expr.contains_outer();
            Ok(TreeNodeRecursion::Continue)
        })?;
        // The rows of a recursive query so far are there only within it.
        if let LogicalPlan::TableScan(scan) = node {
            stands &= !scan.source.downcast_ref::<DefaultTableSource>().is_some_and(is_work_table);
        }
        Ok(TreeNodeRecursion::Continue)
    })?;
    Ok(stands)
}

/// Whether a plan reads an input, and not only what the engine took out of the query.
pub fn reads_input(plan: &LogicalPlan) -> PlanResult<bool> {
    plan.exists(|node| match node {
        LogicalPlan::TableScan(scan) => Ok(scan.source.downcast_ref::<InputSource>().is_some_and(|s| s.bytes() > 0)),
        _ => Ok(false),
    })
}

fn is_work_table(source: &DefaultTableSource) -> bool {
    source.table_provider.is::<CteWorkTable>()
}

/// Whether two plans are equal and read the same: equality looks at names of scans, which are unique for inputs, but
/// leaves the arguments of table functions out.
pub fn is_same(plan: &LogicalPlan, other: &LogicalPlan, rules: Rules) -> PlanResult<bool> {
    if plan != other {
        return Ok(false);
    }
    let calls = |plan: &LogicalPlan| -> PlanResult<Vec<Option<String>>> {
        let mut found = Vec::new();
        plan.apply_with_subqueries(|node| {
            if let LogicalPlan::TableScan(scan) = node {
                found.push(Call::behind(scan.source.as_ref()).map(str::to_string));
            }
            Ok(TreeNodeRecursion::Continue)
        })?;
        Ok(found)
    };
    let is_same = calls(plan)? == calls(other)?;
    Ok(is_same || !rules.ask(Rule::SameSources))
}

/// Whether a plan gives one row at most: the aggregates of all rows, and joins of such.
pub fn gives_one_row(plan: &LogicalPlan) -> bool {
    match plan {
        LogicalPlan::Aggregate(aggregate) => aggregate.group_expr.is_empty(),
        LogicalPlan::Join(join) if join.join_type == JoinType::Full => false,
        LogicalPlan::Join(join) => gives_one_row(&join.left) && gives_one_row(&join.right),
        LogicalPlan::Projection(_)
        | LogicalPlan::Filter(_)
        | LogicalPlan::SubqueryAlias(_)
        | LogicalPlan::Sort(_)
        | LogicalPlan::Limit(_) => plan.inputs().into_iter().all(gives_one_row),
        _ => false,
    }
}

/// Whether the rows of a plan are groups, distinct or first rows.
fn gives_few_rows(plan: &LogicalPlan) -> bool {
    match plan {
        LogicalPlan::Aggregate(_) | LogicalPlan::Distinct(_) | LogicalPlan::Limit(_) => true,
        LogicalPlan::Projection(_)
        | LogicalPlan::Filter(_)
        | LogicalPlan::SubqueryAlias(_)
        | LogicalPlan::Subquery(_)
        | LogicalPlan::Sort(_)
        | LogicalPlan::Window(_) => plan.inputs().into_iter().all(gives_few_rows),
        _ => false,
    }
}

/// Whether to store the rows of a plan saves work: those of joins, aggregates and the like, not a copy of an input.
pub fn is_worth_a_step(plan: &LogicalPlan) -> PlanResult<bool> {
    plan.exists(|node| {
        Ok(matches!(
            node,
            LogicalPlan::Join(_) | LogicalPlan::Aggregate(_) | LogicalPlan::Distinct(_) | LogicalPlan::Window(_)
        ))
    })
}
