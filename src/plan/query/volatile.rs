//! Queries of WITH that call volatile functions, such as `random()`.
//!
//! DataFusion plans such a query once for each place that names it, and the places would see different values.

use std::ops::ControlFlow;

use datafusion::common::{DataFusionError, Result};
use datafusion::logical_expr::Volatility;
use datafusion::logical_expr::planner::ContextProvider;
use sqlparser::ast::{Expr, Query, TableFactor, Visit, Visitor};

use crate::plan::query::error::at;
use crate::plan::query::syntax::normalised;

/// Looks at all of WITH in `query`.
///
/// # Errors
/// At its name: a query that calls a volatile function, itself or by another, and is named more than once.
pub(super) fn check(query: &Query, tables: &dyn ContextProvider) -> Result<()> {
    query.visit(&mut Withs { tables }).break_value().map_or(Ok(()), Err)
}

struct Withs<'a> {
    tables: &'a dyn ContextProvider,
}

impl Visitor for Withs<'_> {
    type Break = DataFusionError;

    fn pre_visit_query(&mut self, query: &Query) -> ControlFlow<Self::Break> {
        let mut volatile: Vec<(String, String)> = Vec::new();
        for cte in query.with.iter().flat_map(|with| &with.cte_tables) {
            let name = normalised(&cte.alias.name);
            let mut calls = Calls { tables: self.tables, volatile: &volatile };
            let ControlFlow::Break(function) = cte.query.visit(&mut calls) else { continue };
            let count = |query: &Query| {
                let mut names = Names { name: &name, count: 0 };
                let _ = query.visit(&mut names);
                names.count
            };
            let times = count(query) - count(&cte.query);
            if times > 1 {
                let message = format!(
                    "`{name}` is named {times} times, and {function} would give different values each time; make it a task of its own, \
                     CREATE TABLE {name} AS …"
                );
                return ControlFlow::Break(at(cte.alias.name.span, message));
            }
            volatile.push((name, function));
        }
        ControlFlow::Continue(())
    }
}

/// Stops at a volatile function, or at a query that calls one, and names it.
struct Calls<'a> {
    tables: &'a dyn ContextProvider,
    /// Queries of WITH, and what they call.
    volatile: &'a [(String, String)],
}

impl Visitor for Calls<'_> {
    type Break = String;

    fn pre_visit_expr(&mut self, expr: &Expr) -> ControlFlow<String> {
        let Expr::Function(function) = expr else { return ControlFlow::Continue(()) };
        let name = function.name.0.first().and_then(|part| part.as_ident()).map(normalised).unwrap_or_default();
        let is_volatile = |function: &std::sync::Arc<datafusion::logical_expr::ScalarUDF>| {
            function.signature().volatility == Volatility::Volatile
        };
        match self.tables.get_function_meta(&name).as_ref().is_some_and(is_volatile) {
            true => ControlFlow::Break(format!("{name}()")),
            false => ControlFlow::Continue(()),
        }
    }

    fn pre_visit_table_factor(&mut self, factor: &TableFactor) -> ControlFlow<String> {
        let named = name_of(factor);
        match self.volatile.iter().find(|(name, _)| named.as_ref() == Some(name)) {
            Some((_, function)) => ControlFlow::Break(function.clone()),
            None => ControlFlow::Continue(()),
        }
    }
}

/// Counts how often a table is named.
struct Names<'a> {
    name: &'a str,
    count: usize,
}

impl Visitor for Names<'_> {
    type Break = ();

    fn pre_visit_table_factor(&mut self, factor: &TableFactor) -> ControlFlow<()> {
        self.count += usize::from(name_of(factor).as_deref() == Some(self.name));
        ControlFlow::Continue(())
    }
}

/// The name of a table that is named without a schema.
fn name_of(factor: &TableFactor) -> Option<String> {
    match factor {
        TableFactor::Table { name, args: None, .. } => match name.0.as_slice() {
            [part] => part.as_ident().map(normalised),
            _ => None,
        },
        _ => None,
    }
}
