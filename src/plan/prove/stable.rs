//! Whether a replicated subtree gives every chunk the same rows: what in it depends on the order of rows.

use datafusion::logical_expr::{Expr, WindowFrameUnits, WindowFunctionDefinition};

/// Aggregates whose value does not depend on the order of rows; all others might.
const ORDER_FREE_AGGREGATES: [&str; 20] = [
    "approx_distinct",
    "avg",
    "bit_and",
    "bit_or",
    "bit_xor",
    "bool_and",
    "bool_or",
    "corr",
    "count",
    "covar_pop",
    "covar_samp",
    "max",
    "median",
    "min",
    "stddev",
    "stddev_pop",
    "sum",
    "var",
    "var_pop",
    "grouping",
];

/// Why an aggregate may differ between two computations over the same rows, if it may.
pub fn order_sensitive_aggregate(expr: &Expr) -> Option<String> {
    match unaliased(expr) {
        Expr::AggregateFunction(f) if ORDER_FREE_AGGREGATES.contains(&f.func.name()) => None,
        Expr::AggregateFunction(f) => Some(format!("{}() may depend on the order of rows", f.func.name())),
        other => Some(format!("{other} is not known to be independent of the order of rows")),
    }
}

/// Why a window function may differ between two computations over the same rows, if it may.
pub fn order_sensitive_window(expr: &Expr) -> Option<String> {
    let Expr::WindowFunction(f) = unaliased(expr) else { return Some("a window is not known to be stable".into()) };
    let free = match &f.fun {
        WindowFunctionDefinition::AggregateUDF(udf) => {
            let peers_together = f.params.window_frame.units != WindowFrameUnits::Rows
                || (f.params.window_frame.start_bound.is_unbounded() && f.params.window_frame.end_bound.is_unbounded());
            ORDER_FREE_AGGREGATES.contains(&udf.name()) && peers_together
        }
        WindowFunctionDefinition::WindowUDF(udf) => {
            ["rank", "dense_rank", "percent_rank", "cume_dist"].contains(&udf.name())
        }
    };
    (!free).then(|| format!("{} over ties may depend on the order of rows", f.fun.name()))
}

/// The expression below its aliases.
pub fn unaliased(expr: &Expr) -> &Expr {
    match expr {
        Expr::Alias(alias) => unaliased(&alias.expr),
        other => other,
    }
}
