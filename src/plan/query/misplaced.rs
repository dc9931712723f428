//! Windows and aggregates where they can't be computed, which DataFusion finds out only when the plan runs.

use std::ops::ControlFlow;

use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::common::{Result, plan_err};
use datafusion::logical_expr::{Aggregate, Expr, LogicalPlan};
use sqlparser::ast::{Expr as Written, Function, Query, Visit, Visitor};
use sqlparser::tokenizer::Span;

use crate::plan::query::error::at;
use crate::plan::query::syntax::normalised;

/// Looks at a plan that DataFusion made of `query`.
///
/// # Errors
/// A window or an aggregate that stands where nothing computes it; at the call, if the query calls the function once.
pub(super) fn check(plan: &LogicalPlan, query: &Query) -> Result<()> {
    plan.apply_with_subqueries(|node| {
        let is_window = |expr: &Expr| matches!(expr, Expr::WindowFunction(_));
        match node {
            LogicalPlan::Aggregate(Aggregate { group_expr, .. }) => {
                let in_groups = |part: &Expr| is_window(part) || matches!(part, Expr::AggregateFunction(_));
                group_expr.iter().try_for_each(|key| {
                    let remedy = "can't stand in GROUP BY, which is of rows before it is computed; compute it in a subquery, \
                                  and group by its name";
                    refuse(key, in_groups, remedy, query)
                })?;
            }
            LogicalPlan::Filter(filter) => {
                let remedy = "can't stand in HAVING or behind |> WHERE, which are of rows before windows see them; write \
                              QUALIFY, or compute it in a subquery";
                refuse(&filter.predicate, is_window, remedy, query)?;
            }
            LogicalPlan::Join(join) => {
                let remedy = "can't stand in ON, which is of rows before windows see them; compute it in a subquery";
                let keys = join.on.iter().flat_map(|(left, right)| [left, right]);
                keys.chain(&join.filter).try_for_each(|expr| refuse(expr, is_window, remedy, query))?;
            }
            LogicalPlan::Projection(projection) => {
                let remedy = "can't be computed here; compute it in the SELECT of a subquery";
                projection.expr.iter().try_for_each(|expr| refuse(expr, is_window, remedy, query))?;
            }
            _ => {}
        }
        Ok(TreeNodeRecursion::Continue)
    })?;
    Ok(())
}

/// Fails for the first part of `expr` that is not to be there.
fn refuse(expr: &Expr, is_wrong: impl Fn(&Expr) -> bool, remedy: &str, query: &Query) -> Result<()> {
    let mut found = None;
    expr.apply(|part| match part {
        part if !is_wrong(part) => Ok(TreeNodeRecursion::Continue),
        part => {
            found = Some(part.clone());
            Ok(TreeNodeRecursion::Stop)
        }
    })?;
    let (name, is_window) = match &found {
        None => return Ok(()),
        Some(Expr::WindowFunction(function)) => (function.fun.name().to_string(), true),
        Some(Expr::AggregateFunction(function)) => (function.func.name().to_string(), false),
        Some(other) => (other.schema_name().to_string(), false),
    };
    let over = if is_window { " with OVER" } else { "" };
    let mut calls = Calls { name: &name, is_window, found: Vec::new() };
    let _ = query.visit(&mut calls);
    match calls.found.as_slice() {
        [only] => Err(at(*only, format!("{name}{over} {remedy}"))),
        _ => plan_err!("{name}{over} {remedy}"),
    }
}

/// Where a function is called.
struct Calls<'a> {
    name: &'a str,
    is_window: bool,
    found: Vec<Span>,
}

impl Visitor for Calls<'_> {
    type Break = ();

    fn pre_visit_expr(&mut self, expr: &Written) -> ControlFlow<()> {
        if let Written::Function(Function { name, over, .. }) = expr
            && over.is_some() == self.is_window
            && let [name] = name.0.as_slice()
            && let Some(name) = name.as_ident()
            && normalised(name) == self.name
        {
            self.found.push(name.span);
        }
        ControlFlow::Continue(())
    }
}
