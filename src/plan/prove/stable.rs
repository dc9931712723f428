//! Whether a replicated subtree gives every chunk the same rows: what in it depends on the order of rows.

use datafusion::common::DFSchema;
use datafusion::logical_expr::{Expr, ExprSchemable, WindowFrameUnits, WindowFunctionDefinition};

use crate::plan::order::function::{Reads, call_reads, rounds, tells_ties_apart};

/// Why an aggregate over rows of `schema` may differ between two computations over the same rows, if it may.
pub fn order_sensitive_aggregate(expr: &Expr, schema: &DFSchema) -> Option<String> {
    match unaliased(expr) {
        Expr::AggregateFunction(f) => why_order_sensitive(f.func.name(), &f.params.args, schema),
        other => Some(format!("{other} is not known to be independent of the order of rows")),
    }
}

/// Why a window function over rows of `schema` may differ between two computations over the same rows, if it may.
pub fn order_sensitive_window(expr: &Expr, schema: &DFSchema) -> Option<String> {
    let Expr::WindowFunction(f) = unaliased(expr) else { return Some("a window is not known to be stable".into()) };
    let free = match &f.fun {
        WindowFunctionDefinition::AggregateUDF(udf) => {
            let peers_together = f.params.window_frame.units != WindowFrameUnits::Rows
                || (f.params.window_frame.start_bound.is_unbounded() && f.params.window_frame.end_bound.is_unbounded());
            if let Some(why) = why_order_sensitive(udf.name(), &f.params.args, schema) {
                return Some(why);
            }
            peers_together
        }
        WindowFunctionDefinition::WindowUDF(udf) => !tells_ties_apart(udf.name()),
    };
    (!free).then(|| format!("{} over ties may depend on the order of rows", f.fun.name()))
}

fn why_order_sensitive(function: &str, args: &[Expr], schema: &DFSchema) -> Option<String> {
    match call_reads(function, args, schema) {
        Reads::Set => {}
        Reads::Order | Reads::Unknown => return Some(format!("{function}() may depend on the order of rows")),
        Reads::Batches => return Some(format!("{function}() depends on how rows are batched")),
    }
    // Integers as doubles are summed exactly as far as doubles go.
    let is_float = |arg: &Expr| {
        let arg = if let Expr::Cast(cast) = arg { &cast.expr } else { arg };
        arg.get_type(schema).is_ok_and(|t| t.is_floating())
    };
    (rounds(function) && args.iter().any(is_float))
        .then(|| format!("{function}() of floats depends on the order of rows"))
}

/// The expression below its aliases.
pub fn unaliased(expr: &Expr) -> &Expr {
    match expr {
        Expr::Alias(alias) => unaliased(&alias.expr),
        other => other,
    }
}
