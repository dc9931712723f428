//! Windows by name, written out where they are used.
//!
//! DataFusion takes a window for one of its own where it names another and adds to it (`OVER (w ORDER BY k)`), looks
//! names up in the SELECT list alone, and in queries inside of it that have windows of their own by the same name. What
//! may be added to a window is what the SQL standard says (ISO/IEC 9075-2, 7.15, *window clause*): no PARTITION BY, an
//! ORDER BY if it has none, and a frame; and nothing to one that has a frame.

use std::collections::HashMap;
use std::ops::ControlFlow;

use datafusion::common::{DataFusionError, Result};
use sqlparser::ast::{
    Distinct, Expr, Function, Ident, NamedWindowDefinition, NamedWindowExpr, OrderBy, OrderByKind, Query, Select,
    Spanned, Visit, VisitMut, Visitor, VisitorMut, WindowSpec, WindowType,
};

use crate::plan::query::error::at;
use crate::plan::query::syntax::normalised;

/// Writes out the windows of `select`, in it and in the ORDER BY behind it.
///
/// # Errors
/// At the name of the window: one that is not defined, is defined twice or by itself, or can't be added to.
pub(super) fn expand(select: &mut Select, order_by: Option<&mut OrderBy>) -> Result<()> {
    for rows in [&select.selection, &select.prewhere].into_iter().flatten() {
        Visit::visit(rows, &mut NoWindows { depth: 0 }).break_value().map_or(Ok(()), Err)?;
    }
    let defined = Definitions::of(&std::mem::take(&mut select.named_window))?;
    let mut expand = Expand { defined, depth: 0 };
    let mut visit = |clause: &mut dyn FnMut(&mut Expand) -> ControlFlow<DataFusionError>| {
        clause(&mut expand).break_value().map_or(Ok(()), Err)
    };
    visit(&mut |expand| VisitMut::visit(&mut select.projection, expand))?;
    visit(&mut |expand| VisitMut::visit(&mut select.having, expand))?;
    visit(&mut |expand| VisitMut::visit(&mut select.qualify, expand))?;
    if let Some(Distinct::On(keys)) = &mut select.distinct {
        visit(&mut |expand| VisitMut::visit(keys, expand))?;
    }
    if let Some(OrderBy { kind: OrderByKind::Expressions(keys), .. }) = order_by {
        visit(&mut |expand| VisitMut::visit(keys, expand))?;
    }
    Ok(())
}

/// Fails for a window that is not in a query of its own.
struct NoWindows {
    /// Queries around.
    depth: usize,
}

impl Visitor for NoWindows {
    type Break = DataFusionError;

    fn pre_visit_query(&mut self, _: &Query) -> ControlFlow<Self::Break> {
        self.depth += 1;
        ControlFlow::Continue(())
    }

    fn post_visit_query(&mut self, _: &Query) -> ControlFlow<Self::Break> {
        self.depth -= 1;
        ControlFlow::Continue(())
    }

    fn pre_visit_expr(&mut self, expr: &Expr) -> ControlFlow<Self::Break> {
        match expr {
            Expr::Function(Function { name, over: Some(_), .. }) if self.depth == 0 => ControlFlow::Break(at(
                name.span(),
                format!(
                    "{name} with OVER can't stand in WHERE, which is of rows before windows see them; write QUALIFY"
                ),
            )),
            _ => ControlFlow::Continue(()),
        }
    }
}

/// The windows of one SELECT, by name, written out.
struct Definitions(HashMap<String, WindowSpec>);

impl Definitions {
    fn of(definitions: &[NamedWindowDefinition]) -> Result<Self> {
        let mut defined = Self(HashMap::new());
        for NamedWindowDefinition(name, window) in definitions {
            let written = match window {
                NamedWindowExpr::NamedWindow(other) => defined.get(other)?.clone(),
                NamedWindowExpr::WindowSpec(window) => defined.completed(window)?,
            };
            if defined.0.insert(normalised(name), written).is_some() {
                return Err(at(name.span, format!("window `{name}` is defined twice; rename one of them")));
            }
        }
        Ok(defined)
    }

    fn get(&self, name: &Ident) -> Result<&WindowSpec> {
        self.0.get(&normalised(name)).ok_or_else(|| {
            let message = format!(
                "there is no window `{name}`; define it before it is used: WINDOW {name} AS (PARTITION BY … ORDER BY …)"
            );
            at(name.span, message)
        })
    }

    /// The window with what it takes from the one that it names.
    fn completed(&self, window: &WindowSpec) -> Result<WindowSpec> {
        let WindowSpec { window_name, partition_by, order_by, window_frame } = window;
        let Some(name) = window_name else { return Ok(window.clone()) };
        let other = self.get(name)?;
        let refused = if other.window_frame.is_some() {
            Some(format!(
                "window `{name}` has a frame, so that nothing can be added to it; write OVER {name}, or another window"
            ))
        } else if !partition_by.is_empty() {
            Some(format!("window `{name}` says what is partitioned by; remove PARTITION BY, or write another window"))
        } else if !order_by.is_empty() && !other.order_by.is_empty() {
            Some(format!("window `{name}` has an ORDER BY already; remove one of them"))
        } else {
            None
        };
        if let Some(message) = refused {
            return Err(at(name.span, message));
        }
        Ok(WindowSpec {
            window_name: None,
            partition_by: other.partition_by.clone(),
            order_by: if order_by.is_empty() { other.order_by.clone() } else { order_by.clone() },
            window_frame: window_frame.clone(),
        })
    }
}

struct Expand {
    defined: Definitions,
    /// Queries around the visited place: they have windows of their own.
    depth: usize,
}

impl VisitorMut for Expand {
    type Break = DataFusionError;

    fn pre_visit_query(&mut self, _query: &mut Query) -> ControlFlow<Self::Break> {
        self.depth += 1;
        ControlFlow::Continue(())
    }

    fn post_visit_query(&mut self, _query: &mut Query) -> ControlFlow<Self::Break> {
        self.depth -= 1;
        ControlFlow::Continue(())
    }

    fn pre_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<Self::Break> {
        if self.depth > 0 {
            return ControlFlow::Continue(());
        }
        let Expr::Function(function) = expr else { return ControlFlow::Continue(()) };
        let written = match &function.over {
            None => return ControlFlow::Continue(()),
            Some(WindowType::NamedWindow(name)) => self.defined.get(name).cloned(),
            Some(WindowType::WindowSpec(window)) => self.defined.completed(window),
        };
        match written {
            Ok(window) => {
                function.over = Some(WindowType::WindowSpec(window));
                ControlFlow::Continue(())
            }
            Err(error) => ControlFlow::Break(error),
        }
    }
}
