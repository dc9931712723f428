//! Casts in the names of aggregates and windows.
//!
//! DataFusion calls `sum(CAST(v AS DOUBLE))` as it calls `sum(v)`, so that a query can't have both. Where one has calls
//! that differ only so, their casts are planned as `arrow_cast(v, 'Float64')`, which is the same under its own name.

use std::collections::HashMap;
use std::ops::ControlFlow;
use std::sync::Arc;

use datafusion::common::Result;
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::functions::core::{arrow_cast, arrow_try_cast};
use datafusion::logical_expr::planner::{ExprPlanner, PlannerResult, RawAggregateExpr, RawWindowExpr};
use datafusion::logical_expr::{Cast, Expr, SortExpr, TryCast, lit};
use sqlparser::ast::{Expr as SqlExpr, Query, Visit, VisitMut, Visitor, VisitorMut};

/// What plans the casts of a query under names of their own, if two of its calls differ in casts alone.
pub(super) fn planner(query: &Query) -> Option<Arc<dyn ExprPlanner>> {
    let mut calls = Calls { seen: HashMap::new() };
    Visit::visit(query, &mut calls).is_break().then(|| Arc::new(NamedCasts) as _)
}

/// Calls, by what they are without casts.
struct Calls {
    seen: HashMap<String, String>,
}

impl Visitor for Calls {
    type Break = ();

    fn pre_visit_expr(&mut self, expr: &SqlExpr) -> ControlFlow<()> {
        let SqlExpr::Function(_) = expr else { return ControlFlow::Continue(()) };
        let mut bare = expr.clone();
        let _ = VisitMut::visit(&mut bare, &mut WithoutCasts);
        let text = expr.to_string();
        match self.seen.entry(bare.to_string()).or_insert_with(|| text.clone()) == &text {
            true => ControlFlow::Continue(()),
            false => ControlFlow::Break(()),
        }
    }
}

struct WithoutCasts;

impl VisitorMut for WithoutCasts {
    type Break = ();

    fn post_visit_expr(&mut self, expr: &mut SqlExpr) -> ControlFlow<()> {
        if let SqlExpr::Cast { expr: inner, .. } | SqlExpr::Nested(inner) = expr {
            *expr = inner.as_ref().clone();
        }
        ControlFlow::Continue(())
    }
}

/// Plans the casts in aggregates and windows under names of their own.
#[derive(Debug)]
struct NamedCasts;

impl ExprPlanner for NamedCasts {
    fn plan_aggregate(&self, mut call: RawAggregateExpr) -> Result<PlannerResult<RawAggregateExpr>> {
        call.args = each_named(call.args)?;
        call.order_by = keys_named(call.order_by)?;
        Ok(PlannerResult::Original(call))
    }

    fn plan_window(&self, mut call: RawWindowExpr) -> Result<PlannerResult<RawWindowExpr>> {
        call.args = each_named(call.args)?;
        call.partition_by = each_named(call.partition_by)?;
        call.order_by = keys_named(call.order_by)?;
        Ok(PlannerResult::Original(call))
    }
}

fn each_named(exprs: Vec<Expr>) -> Result<Vec<Expr>> {
    exprs.into_iter().map(named).collect()
}

fn keys_named(keys: Vec<SortExpr>) -> Result<Vec<SortExpr>> {
    keys.into_iter().map(|SortExpr { expr, asc, nulls_first }| Ok(named(expr)?.sort(asc, nulls_first))).collect()
}

fn named(expr: Expr) -> Result<Expr> {
    let named = expr.transform_up(|part| {
        Ok(match part {
            Expr::Cast(Cast { expr, field }) if !field.data_type().is_nested() => {
                Transformed::yes(arrow_cast().call(vec![*expr, lit(field.data_type().to_string())]))
            }
            Expr::TryCast(TryCast { expr, field }) if !field.data_type().is_nested() => {
                Transformed::yes(arrow_try_cast().call(vec![*expr, lit(field.data_type().to_string())]))
            }
            other => Transformed::no(other),
        })
    })?;
    Ok(named.data)
}
