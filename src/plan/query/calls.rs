//! Calls of functions with clauses that their kind of function has no use for.
//!
//! DataFusion looks for a scalar function first and drops `OVER`, `FILTER`, `DISTINCT` and the like where it finds one;
//! takes a window that it does not know for none; and drops arguments of ordered-set aggregates. In FROM it plans
//! series of constants alone.

use std::ops::ControlFlow;

use datafusion::common::{DataFusionError, Result};
use datafusion::logical_expr::AggregateUDF;
use datafusion::logical_expr::planner::ContextProvider;
use sqlparser::ast::{
    DuplicateTreatment, Expr, Function, FunctionArg, FunctionArgExpr, FunctionArgumentClause, FunctionArgumentList,
    FunctionArguments, NullTreatment, ObjectName, OrderByExpr, Query, TableFactor, TableFunctionArgs, Visit, Visitor,
    WindowType,
};
use sqlparser::tokenizer::Span;

use crate::plan::query::error::at;
use crate::plan::query::syntax::normalised;

/// Looks at all calls of `query`.
///
/// # Errors
/// At the name of the function: a clause that would be dropped.
pub(super) fn check(query: &Query, tables: &dyn ContextProvider) -> Result<()> {
    query.visit(&mut Calls { tables }).break_value().map_or(Ok(()), Err)
}

/// Whether `name` is an aggregate without OVER.
pub(super) fn is_aggregate(name: &str, tables: &dyn ContextProvider) -> bool {
    !is_scalar(name, tables) && tables.get_aggregate_meta(name).is_some()
}

fn is_scalar(name: &str, tables: &dyn ContextProvider) -> bool {
    matches!(name, "unnest" | "unnest_outer")
        || tables.get_function_meta(name).is_some()
        || tables.get_higher_order_meta(name).is_some()
}

struct Calls<'a> {
    tables: &'a dyn ContextProvider,
}

impl Visitor for Calls<'_> {
    type Break = DataFusionError;

    fn pre_visit_expr(&mut self, expr: &Expr) -> ControlFlow<Self::Break> {
        match expr {
            Expr::Function(function) => match self.call(function) {
                Ok(()) => ControlFlow::Continue(()),
                Err(error) => ControlFlow::Break(error),
            },
            _ => ControlFlow::Continue(()),
        }
    }

    fn pre_visit_table_factor(&mut self, factor: &TableFactor) -> ControlFlow<Self::Break> {
        match factor {
            TableFactor::Table { name, args: Some(TableFunctionArgs { args, settings: _ }), .. }
            | TableFactor::Function { name, args, .. } => {
                series(name, args).map_or(ControlFlow::Continue(()), ControlFlow::Break)
            }
            _ => ControlFlow::Continue(()),
        }
    }
}

/// The error of a series in FROM whose ends are columns of other tables, which DataFusion does not know there.
fn series(name: &ObjectName, args: &[FunctionArg]) -> Option<DataFusionError> {
    let name = name.0.first()?.as_ident()?;
    let is_column = |arg: &FunctionArg| {
        let mut columns = Columns;
        arg.visit(&mut columns).is_break()
    };
    if !matches!(normalised(name).as_str(), "range" | "generate_series") || !args.iter().any(is_column) {
        return None;
    }
    let args: Vec<String> = args.iter().map(ToString::to_string).collect();
    let call = format!("{name}({})", args.join(", "));
    let message = format!("{name} in FROM takes constants; write CROSS JOIN UNNEST({call}) AS name(column)");
    Some(at(name.span, message))
}

/// Stops at the first column.
struct Columns;

impl Visitor for Columns {
    type Break = ();

    fn pre_visit_expr(&mut self, expr: &Expr) -> ControlFlow<()> {
        match expr {
            Expr::Identifier(_) | Expr::CompoundIdentifier(_) => ControlFlow::Break(()),
            _ => ControlFlow::Continue(()),
        }
    }
}

/// A call, taken apart.
struct Call<'a> {
    name: String,
    span: Span,
    args: &'a [FunctionArg],
    is_distinct: bool,
    /// ORDER BY among the arguments.
    order_by: &'a [OrderByExpr],
    has_filter: bool,
    has_null_treatment: bool,
    ignores_nulls: bool,
    within_group: &'a [OrderByExpr],
}

impl<'a> Call<'a> {
    fn of(function: &'a Function) -> Option<Self> {
        let Function { name, uses_odbc_syntax: _, parameters: _, args, filter, null_treatment, over: _, within_group } =
            function;
        let name = name.0.first()?.as_ident()?;
        let mut call = Self {
            name: normalised(name),
            span: name.span,
            args: &[],
            is_distinct: false,
            order_by: &[],
            has_filter: filter.is_some(),
            has_null_treatment: null_treatment.is_some(),
            ignores_nulls: *null_treatment == Some(NullTreatment::IgnoreNulls),
            within_group,
        };
        if let FunctionArguments::List(FunctionArgumentList { duplicate_treatment, args, clauses }) = args {
            call.args = args;
            call.is_distinct = matches!(duplicate_treatment, Some(DuplicateTreatment::Distinct));
            for clause in clauses {
                match clause {
                    FunctionArgumentClause::OrderBy(keys) => call.order_by = keys,
                    FunctionArgumentClause::IgnoreOrRespectNulls(treatment) => {
                        call.has_null_treatment = true;
                        call.ignores_nulls |= *treatment == NullTreatment::IgnoreNulls;
                    }
                    // Refused before.
                    FunctionArgumentClause::Limit(_)
                    | FunctionArgumentClause::OnOverflow(_)
                    | FunctionArgumentClause::Having(_)
                    | FunctionArgumentClause::Separator(_)
                    | FunctionArgumentClause::JsonNullClause(_)
                    | FunctionArgumentClause::JsonReturningClause(_) => {}
                }
            }
        }
        Some(call)
    }

    /// The first clause that is there.
    fn clause(&self, clauses: &[Clause]) -> Option<&'static str> {
        clauses.iter().find_map(|clause| match clause {
            Clause::Distinct => self.is_distinct.then_some("DISTINCT"),
            Clause::OrderBy => (!self.order_by.is_empty()).then_some("ORDER BY"),
            Clause::Filter => self.has_filter.then_some("FILTER"),
            Clause::Nulls => self.has_null_treatment.then_some("IGNORE NULLS or RESPECT NULLS"),
            Clause::WithinGroup => (!self.within_group.is_empty()).then_some("WITHIN GROUP"),
        })
    }

    fn has_wildcard(&self) -> bool {
        self.args.iter().any(|arg| match arg {
            FunctionArg::Unnamed(arg)
            | FunctionArg::Named { name: _, arg, operator: _ }
            | FunctionArg::ExprNamed { name: _, arg, operator: _ } => !matches!(arg, FunctionArgExpr::Expr(_)),
        })
    }
}

#[derive(Clone, Copy)]
enum Clause {
    Distinct,
    OrderBy,
    Filter,
    Nulls,
    WithinGroup,
}

impl Calls<'_> {
    fn call(&self, function: &Function) -> Result<()> {
        let Some(call) = Call::of(function) else { return Ok(()) };
        let name = &call.name;
        let refuse = |message: String| Err(at(call.span, message));
        if let Some(WindowType::NamedWindow(window)) = &function.over {
            return Err(at(window.span, format!("there is no window `{window}` here; write OVER (…)")));
        }
        if call.has_wildcard() && (name != "count" || call.is_distinct) {
            return refuse(format!("{name} takes columns, not *; write them one by one"));
        }
        // DataFusion 55 counts NULLs that it should ignore, and ends before the last rows.
        if ["lag", "lead"].contains(&name.as_str())
            && call.ignores_nulls
            && call.args.get(1).is_some_and(|rows| rows.to_string() != "1")
        {
            return refuse(format!(
                "{name} by other than 1 row can't ignore NULLs; leave the rows with NULLs out in a subquery, and join \
                     with it"
            ));
        }
        let of_pairs = name == "corr" || name.starts_with("covar_") || name.starts_with("regr_");
        if call.is_distinct && (of_pairs || name == "bit_xor") {
            return refuse(format!("{name} does not leave out what is not DISTINCT; write it over a SELECT DISTINCT"));
        }
        if call.is_distinct && function.over.is_some() && ["array_agg", "string_agg"].contains(&name.as_str()) {
            return refuse(format!(
                "{name} with DISTINCT and OVER has no order of its own; write it in a subquery with GROUP BY, and join with that"
            ));
        }
        if is_scalar(name, self.tables) {
            if function.over.is_some() {
                return refuse(format!("{name} is a function of one row, which OVER has no meaning for; remove OVER"));
            }
            let all = [Clause::Distinct, Clause::OrderBy, Clause::Filter, Clause::Nulls, Clause::WithinGroup];
            return match call.clause(&all) {
                None => Ok(()),
                Some(clause) => {
                    refuse(format!("{name} is a function of one row, which {clause} has no meaning for; remove it"))
                }
            };
        }
        if name == "grouping" {
            return grouping(&call, function.over.is_some());
        }
        let aggregate = self.tables.get_aggregate_meta(name);
        let window = self.tables.get_window_meta(name);
        match (&function.over, aggregate, window) {
            (Some(_), aggregate, Some(_)) if aggregate.is_none() || is_positional(name) => window_call(&call),
            (Some(_), Some(aggregate), _) => match call.clause(&[Clause::OrderBy, Clause::WithinGroup]) {
                Some(clause) => {
                    refuse(format!("{clause} has no meaning for {name} with OVER; write it as OVER (ORDER BY …)"))
                }
                None => nulls(&call, &aggregate),
            },
            (None, Some(aggregate), _) => {
                nulls(&call, &aggregate)?;
                if name == "any_value" && !call.order_by.is_empty() {
                    return refuse(
                        "any_value takes any row, which ORDER BY has no meaning for; write first_value".to_string(),
                    );
                }
                if !call.within_group.is_empty() && !is_ordered_set(name) {
                    return refuse(format!("WITHIN GROUP has no meaning for {name}; write {name}(… ORDER BY …)"));
                }
                if call.is_distinct && name == "count" && call.args.len() > 1 {
                    return refuse(
                        "count(DISTINCT …) takes one column; write SELECT count(*) FROM (SELECT DISTINCT a, b FROM … WHERE a IS \
                         NOT NULL AND b IS NOT NULL)"
                            .to_string(),
                    );
                }
                ordered_set(&call)
            }
            (None, None, Some(_)) => {
                refuse(format!("{name} needs the rows that it looks at; write {name}(…) OVER (ORDER BY …)"))
            }
            // DataFusion says which function may be meant.
            (_, None, None) | (Some(_), _, Some(_)) => Ok(()),
        }
    }
}

/// Aggregates that are functions of their own as windows.
fn is_positional(name: &str) -> bool {
    matches!(name, "first_value" | "last_value" | "nth_value")
}

fn window_call(call: &Call<'_>) -> Result<()> {
    let Call { name, span, .. } = call;
    let clauses: &[Clause] = match is_positional(name) || matches!(name.as_str(), "lag" | "lead") {
        true => &[Clause::Distinct, Clause::OrderBy, Clause::Filter, Clause::WithinGroup],
        false => &[Clause::Distinct, Clause::OrderBy, Clause::Filter, Clause::WithinGroup, Clause::Nulls],
    };
    match call.clause(clauses) {
        None => Ok(()),
        Some(clause) => Err(at(*span, format!("{clause} has no meaning for {name} with OVER; remove it"))),
    }
}

fn nulls(call: &Call<'_>, aggregate: &AggregateUDF) -> Result<()> {
    let Call { name, span, .. } = call;
    match call.clause(&[Clause::Nulls]) {
        Some(clause) if !aggregate.supports_null_handling_clause() => Err(at(
            *span,
            format!("{clause} has no meaning for {name}; remove it, or write {name}(…) FILTER (WHERE …)"),
        )),
        _ => Ok(()),
    }
}

/// DataFusion replaces the call by the number of the grouping set, and drops its clauses.
fn grouping(call: &Call<'_>, is_window: bool) -> Result<()> {
    let all = [Clause::Distinct, Clause::OrderBy, Clause::Filter, Clause::Nulls, Clause::WithinGroup];
    match call.clause(&all).or(is_window.then_some("OVER")) {
        None => Ok(()),
        Some(clause) => Err(at(
            call.span,
            format!("grouping says which columns a row is grouped by, which {clause} has no meaning for; remove it"),
        )),
    }
}

/// Whether an aggregate is of its values in an order.
fn is_ordered_set(name: &str) -> bool {
    matches!(
        name,
        "percentile_cont" | "quantile_cont" | "approx_percentile_cont" | "approx_percentile_cont_with_weight"
    )
}

/// For `percentile_cont(x, 0.5 ORDER BY y)` DataFusion drops x.
fn ordered_set(call: &Call<'_>) -> Result<()> {
    let Call { name, span, .. } = call;
    let (Some(first), Some(key)) = (call.args.first(), call.order_by.first()) else { return Ok(()) };
    let is_same = matches!(first, FunctionArg::Unnamed(FunctionArgExpr::Expr(expr)) if *expr == key.expr);
    match is_ordered_set(name) && call.args.len() > 1 && !is_same {
        true => Err(at(
            *span,
            format!("{name} is of the values that it sorts by; write {name}(0.5) WITHIN GROUP (ORDER BY value)"),
        )),
        false => Ok(()),
    }
}
