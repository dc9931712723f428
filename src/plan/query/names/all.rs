//! GROUP BY ALL and ORDER BY ALL.

use std::ops::ControlFlow;

use datafusion::common::Result;
use datafusion::logical_expr::planner::ContextProvider;
use sqlparser::ast::{
    Expr, GroupByExpr, OrderByExpr, OrderByKind, OrderByOptions, Query, Select, SelectItem, Value, Visit, Visitor,
};

use crate::plan::query::calls::is_aggregate;
use crate::plan::query::names::is_wildcard;
use crate::plan::query::names::items;
use crate::plan::query::names::scope::Scope;
use crate::plan::query::syntax::normalised;

/// Writes out the GROUP BY ALL of `select`: by all items in which there is no aggregate. DataFusion groups by windows,
/// too, which it then can't compute, and by constants, so that no rows have no group. `scope` has its columns, if there
/// is a `*`; whether it was written out.
pub(super) fn group_by(select: &mut Select, tables: &dyn ContextProvider, scope: Option<&Scope>) -> Result<bool> {
    if select.projection.iter().any(is_wildcard) {
        let Some(scope) = scope else { return Ok(false) };
        items::expand_alone(&mut select.projection, scope)?;
        if select.projection.iter().any(is_wildcard) {
            return Ok(false);
        }
    }
    let mut keys = Vec::new();
    let mut has_aggregate = false;
    for item in &select.projection {
        let (SelectItem::UnnamedExpr(expr) | SelectItem::ExprWithAlias { expr, .. }) = item else { continue };
        let found = Found::of(expr, tables);
        has_aggregate |= found.aggregate;
        if !found.aggregate && !found.window && found.column {
            keys.push(expr.clone());
        }
    }
    has_aggregate |= select.having.as_ref().is_some_and(|having| Found::of(having, tables).aggregate);
    if keys.is_empty() && !has_aggregate {
        // One group of all rows.
        keys.push(Expr::GroupingSets(vec![Vec::new()]));
    }
    select.group_by = GroupByExpr::Expressions(keys, Vec::new());
    Ok(true)
}

/// ORDER BY of the first `count` columns.
pub(super) fn positions(count: usize, options: OrderByOptions) -> OrderByKind {
    let key = |position: usize| OrderByExpr {
        expr: Expr::Value(Value::Number(position.to_string(), false).into()),
        options,
        with_fill: None,
    };
    OrderByKind::Expressions((1..=count).map(key).collect())
}

/// What is in an expression, queries inside aside.
struct Found<'a> {
    tables: &'a dyn ContextProvider,
    depth: usize,
    aggregate: bool,
    window: bool,
    /// Whether it may differ from row to row.
    column: bool,
}

impl<'a> Found<'a> {
    fn of(expr: &Expr, tables: &'a dyn ContextProvider) -> Self {
        let mut found = Self { tables, depth: 0, aggregate: false, window: false, column: false };
        let _ = expr.visit(&mut found);
        found
    }
}

impl Visitor for Found<'_> {
    type Break = ();

    fn pre_visit_query(&mut self, _query: &Query) -> ControlFlow<()> {
        self.depth += 1;
        self.column = true;
        ControlFlow::Continue(())
    }

    fn post_visit_query(&mut self, _query: &Query) -> ControlFlow<()> {
        self.depth -= 1;
        ControlFlow::Continue(())
    }

    fn pre_visit_expr(&mut self, expr: &Expr) -> ControlFlow<()> {
        if self.depth > 0 {
            return ControlFlow::Continue(());
        }
        match expr {
            Expr::Identifier(_) | Expr::CompoundIdentifier(_) => self.column = true,
            Expr::Function(function) if function.over.is_some() => self.window = true,
            Expr::Function(function) => {
                let name = function.name.0.first().and_then(|part| part.as_ident()).map(normalised).unwrap_or_default();
                self.aggregate |= is_aggregate(&name, self.tables);
                self.column = true;
            }
            _ => {}
        }
        ControlFlow::Continue(())
    }
}
