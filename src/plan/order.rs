//! The order of rows: what has one, and what happens where nothing has.
//!
//! **The rule.** Rows have an order where an ORDER BY gives one, also one in a subquery, as far as filters, projections
//! and names lead up from it; and where they are read from the files of one source: that of paths, and of rows in them.
//! Whatever takes rows by their order (LIMIT, `first_value`, `array_agg`, `row_number() OVER ()`, DISTINCT ON) takes
//! that one. Other rows, those of joins, groups, unions and of other tasks' tables, it takes by their values, and so it
//! does rows that tie in ORDER BY … LIMIT, in DISTINCT ON and in the ORDER BY of an aggregate.
//!
//! So a query gives the same rows whole and cut, and again, whatever was cached before: an order by values is written
//! into the plan, here, before anything is proved, and where the order of a source counts, chunks read it in that order
//! and are named by it (see [`ordered_scans`]).
//!
//! Two things stay open, and EXPLAIN says so: which of the rows that tie in the ORDER BY of a window comes first, and
//! which rows LIMIT takes of a source without any order: the first of its files, and where the task is cut those of the
//! least values.

pub mod function;
mod hash;
pub mod notes;
mod of;
mod scans;
mod self_sorted;

use std::sync::Arc;

use arrow::datatypes::DataType;
use datafusion::common::tree_node::{Transformed, TransformedResult, TreeNode};
use datafusion::common::{Column, DFSchema, Result, plan_err};
use datafusion::functions_aggregate::min_max::min_udaf;
use datafusion::logical_expr::expr::{AggregateFunction, Sort as SortExpr, WindowFunction};
use datafusion::logical_expr::expr_rewriter::NamePreserver;
use datafusion::logical_expr::{
    Aggregate, Distinct, DistinctOn, Expr, ExprSchemable, FetchType, Limit, LogicalPlan, LogicalPlanBuilder,
    Projection, SkipType, Sort, Window, WindowFrameUnits, WindowFunctionDefinition,
};

use crate::plan::order::function::{Reads, call_reads, tells_ties_apart};
use crate::plan::order::hash::row_hash;
pub use crate::plan::order::of::is_sorted_directly;
use crate::plan::order::of::{Order, order_of, with_ties};
pub use crate::plan::order::scans::ordered_scans;
use crate::plan::order::self_sorted::{self_sorted, sorts_itself};
use crate::plan::prove::rule::{Rule, Rules};
use crate::plan::prove::unaliased;
use crate::plan::two_phase::state::is_within_group;

/// The plan with an order for whatever takes rows by it.
///
/// # Errors
/// DataFusion's when a node can't be made.
pub fn with_orders(plan: LogicalPlan, rules: Rules) -> Result<LogicalPlan> {
    let ordered = |node: LogicalPlan| match node {
        LogicalPlan::Limit(limit) => limited(limit, rules),
        LogicalPlan::Sort(sort) if sort.fetch.is_some() => {
            let columns = sort.input.schema().columns();
            Ok(Transformed::yes(LogicalPlan::Sort(with_ties(sort, &columns)?)))
        }
        LogicalPlan::Aggregate(aggregate) => aggregated(aggregate, rules),
        LogicalPlan::Window(window) => windowed(window, rules),
        LogicalPlan::Distinct(Distinct::On(distinct)) => distinct_on(distinct, rules),
        other => Ok(Transformed::no(other)),
    };
    let plan = plan.transform_up_with_subqueries(ordered).data()?;
    without_idle_sorts(plan, Reader::Root)
}

/// What reads the rows of a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Reader {
    /// The task's table.
    Root,
    /// A LIMIT, or a function of the user's.
    Limit,
    /// Something that takes no order of it.
    Other,
}

/// The plan without ORDER BYs of subqueries that nothing takes rows by any more.
fn without_idle_sorts(plan: LogicalPlan, reader: Reader) -> Result<LogicalPlan> {
    let below = match (&plan, reader) {
        (LogicalPlan::Sort(Sort { input, fetch: None, .. }), Reader::Other) => {
            return without_idle_sorts(input.as_ref().clone(), Reader::Other);
        }
        (LogicalPlan::Limit(_), _) => Reader::Limit,
        // The user's own functions may read it.
        (LogicalPlan::Extension(_), _) => Reader::Limit,
        (LogicalPlan::Aggregate(aggregate), _) if has_unknown_call(aggregate) => Reader::Limit,
        (LogicalPlan::Projection(_), reader) | (LogicalPlan::SubqueryAlias(_), reader @ Reader::Limit) => reader,
        _ => Reader::Other,
    };
    let plan = plan.map_children(|child| Ok(Transformed::yes(without_idle_sorts(child, below)?))).data()?;
    plan.map_subqueries(|subquery| Ok(Transformed::yes(without_idle_sorts(subquery, Reader::Other)?))).data()
}

/// Whether an aggregate calls functions of which nobody knows what they read.
fn has_unknown_call(aggregate: &Aggregate) -> bool {
    let is_unknown = |call: &AggregateFunction| {
        call_reads(call.func.name(), &call.params.args, aggregate.input.schema()) == Reads::Unknown
    };
    aggregate.aggr_expr.iter().filter_map(aggregate_call).any(is_unknown)
}

/// An order of `expr`, the least first and NULL last.
fn by(expr: Expr) -> SortExpr {
    expr.sort(true, false)
}

/// The last row first.
fn reversed(order: &[SortExpr]) -> Vec<SortExpr> {
    order.iter().map(|key| key.expr.clone().sort(!key.asc, !key.nulls_first)).collect()
}

/// What orders rows by these expressions so that only equal ones tie, as far as `before` does not: by the values of
/// those that can be sorted, and by a hash of the others.
pub fn by_values(exprs: &[Expr], before: &[SortExpr], schema: &DFSchema) -> Result<Vec<SortExpr>> {
    let mut found: Vec<SortExpr> = Vec::new();
    let mut unsorted = Vec::new();
    for expr in exprs {
        if is_decided(expr, before) || is_decided(expr, &found) {
            continue;
        }
        match expr.get_type(schema)? {
            // Intervals are sorted by their length, and some of one length differ.
            data_type if data_type.is_nested() || matches!(data_type, DataType::Interval(_)) => {
                unsorted.push(expr.clone());
            }
            _ => found.push(by(expr.clone())),
        }
    }
    if !unsorted.is_empty() {
        found.push(by(row_hash(unsorted)));
    }
    Ok(found)
}

/// Whether rows that tie in an order have one value of an expression.
fn is_decided(expr: &Expr, order: &[SortExpr]) -> bool {
    let is_there = |column: &Column| order.iter().any(|sort| matches!(&sort.expr, Expr::Column(by) if by == column));
    order.iter().any(|sort| sort.expr == *expr) || (!expr.is_volatile() && expr.column_refs().into_iter().all(is_there))
}

/// The plan's columns as expressions.
pub fn columns(schema: &DFSchema) -> Vec<Expr> {
    schema.columns().into_iter().map(Expr::Column).collect()
}

/// The plan with only the columns of `schema`.
fn only(plan: LogicalPlan, schema: &DFSchema) -> Result<LogicalPlan> {
    match plan.schema().fields().len() == schema.fields().len() {
        true => Ok(plan),
        false => LogicalPlanBuilder::from(plan).project(columns(schema))?.build(),
    }
}

/// LIMIT takes the first rows: of an ORDER BY below, of a source, or by their values.
fn limited(limit: Limit, rules: Rules) -> Result<Transformed<LogicalPlan>> {
    match (limit.get_skip_type()?, limit.get_fetch_type()?) {
        (SkipType::UnsupportedExpr, _) | (_, FetchType::UnsupportedExpr) => {
            return plan_err!("LIMIT and OFFSET take a number of rows that is known before; write it as a number");
        }
        (_, FetchType::Literal(Some(0))) => return Ok(Transformed::no(LogicalPlan::Limit(limit))),
        (_, FetchType::Literal(_)) => {}
    }
    let Limit { skip, fetch, input } = limit;
    let schema = Arc::clone(input.schema());
    let input = if is_sorted_directly(&input) {
        of::with_ties_below(&input, &schema.columns())?
    } else {
        match order_of(&input)? {
            Order::By(plan, order) if rules.ask(Rule::KeptOrder) => {
                let ties = by_values(&columns(&schema), &order, plan.schema())?;
                let sorted = LogicalPlanBuilder::from(plan).sort(order.into_iter().chain(ties))?.build()?;
                only(sorted, &schema)?
            }
            Order::None if has_one_row(&input) || schema.fields().is_empty() => input.as_ref().clone(),
            Order::None => {
                let order = by_values(&columns(&schema), &[], &schema)?;
                LogicalPlanBuilder::from(input).sort(order)?.build()?
            }
            Order::By(..) | Order::Source(_) => input.as_ref().clone(),
        }
    };
    Ok(Transformed::yes(LogicalPlan::Limit(Limit { skip, fetch, input: Arc::new(input) })))
}

/// Whether a plan gives one row, whatever there is.
fn has_one_row(plan: &LogicalPlan) -> bool {
    match plan {
        LogicalPlan::Aggregate(node) => node.group_expr.is_empty(),
        LogicalPlan::Projection(node) => has_one_row(&node.input),
        LogicalPlan::SubqueryAlias(node) => has_one_row(&node.input),
        _ => false,
    }
}

/// Aggregates of the order take rows in that of an ORDER BY below, of a source, or of their arguments' values; those
/// that don't read the order have none.
fn aggregated(node: Aggregate, rules: Rules) -> Result<Transformed<LogicalPlan>> {
    let schema = Arc::clone(node.input.schema());
    let calls: Vec<Option<&AggregateFunction>> = node.aggr_expr.iter().map(aggregate_call).collect();
    let reads = |call: &AggregateFunction| call_reads(call.func.name(), &call.params.args, &schema);
    let takes_order = |call: &&AggregateFunction| reads(call) == Reads::Order;
    let is_ordered = |call: &AggregateFunction| !call.params.order_by.is_empty();
    let is_free_of_order =
        |call: &AggregateFunction| reads(call) == Reads::Set && is_ordered(call) && !is_within_group(call);
    let takers: Vec<&AggregateFunction> = calls.iter().flatten().copied().filter(takes_order).collect();
    if takers.is_empty() && !calls.iter().flatten().any(|call| is_free_of_order(call)) {
        return Ok(Transformed::no(LogicalPlan::Aggregate(node)));
    }
    // DataFusion sorts its input once, for all aggregates that can't do without: their orders must begin alike. So
    // these get the longest that is given, and then the values of the arguments of all of them.
    let given = takers.iter().filter(|call| is_ordered(call) && !call.params.distinct);
    let given = given.map(|call| call.params.order_by.as_slice()).max_by_key(|order| order.len());
    let is_without_order = given.is_none() && matches!(order_of(&node.input)?, Order::None);
    let (input, base) = match (given, takers.iter().any(|call| !is_ordered(call))) {
        (Some(given), _) => (None, Some(given.to_vec())),
        (None, false) => (None, None),
        (None, true) => match order_of(&node.input)? {
            Order::By(plan, order) if rules.ask(Rule::KeptOrder) => (Some(plan), Some(order)),
            Order::By(..) | Order::Source(_) => (None, None),
            Order::None => (None, Some(Vec::new())),
        },
    };
    // With DISTINCT only the argument itself may order.
    let distinct = takers.iter().filter(|call| call.params.distinct && needs_sorted_input(call));
    let base = match (base, distinct.flat_map(|call| own_order(call, &schema)).next()) {
        (Some(base), Some(first)) if base.is_empty() && input.is_none() => Some(vec![first]),
        (base, _) => base,
    };
    let together = takers.iter().filter(|call| needs_sorted_input(call));
    let together: Vec<Expr> = together.filter_map(|call| call.params.args.first()).cloned().collect();
    let order_of_call = |call: &AggregateFunction| -> Result<Option<Vec<SortExpr>>> {
        let given = &call.params.order_by;
        let own: Vec<Expr> = call.params.args.first().cloned().into_iter().collect();
        Ok(match &base {
            _ if call.params.distinct && !given.is_empty() => None,
            _ if sorts_itself(call) => own_order(call, &schema).map(|own| vec![own]),
            Some(base) if call.params.distinct => {
                let own = own_order(call, &schema);
                own.filter(|own| !needs_sorted_input(call) || base.first() == Some(own)).map(|own| vec![own])
            }
            Some(base) if base.starts_with(given) => {
                let values = if needs_sorted_input(call) { &together } else { &own };
                let ties = by_values(values, base, &schema)?;
                Some(base.iter().cloned().chain(ties).collect())
            }
            Some(_) | None if given.is_empty() => None,
            // DataFusion turns the rows around.
            Some(base) if needs_sorted_input(call) && *base == reversed(given) => {
                let ties = by_values(&together, base, &schema)?;
                Some(given.iter().cloned().chain(reversed(&ties)).collect())
            }
            Some(_) | None => {
                let ties = by_values(&own, given, &schema)?;
                Some(given.iter().cloned().chain(ties).collect())
            }
        })
    };
    let names = NamePreserver::new_for_projection();
    let mut exprs = Vec::with_capacity(node.aggr_expr.len());
    for expr in &node.aggr_expr {
        let name = names.save(expr);
        let Expr::AggregateFunction(mut call) = unaliased(expr).clone() else {
            exprs.push(expr.clone());
            continue;
        };
        if sorts_itself(&call) {
            call.func = self_sorted(&call.func);
        }
        if is_free_of_order(&call) {
            call.params.order_by = Vec::new();
        } else if takes_order(&&call) {
            let is_any = call.func.name() == "any_value";
            let is_by_values = is_without_order && base.is_some();
            match order_of_call(&call)? {
                // It takes no ORDER BY: of rows without an order any value is the least.
                _ if is_any && is_by_values && can_be_least(&call, &schema) => call.func = min_udaf(),
                _ if is_any => {}
                Some(order) => call.params.order_by = order,
                None => {}
            }
        }
        exprs.push(name.restore(Expr::AggregateFunction(call)));
    }
    let input = input.map_or_else(|| Arc::clone(&node.input), Arc::new);
    Ok(Transformed::yes(LogicalPlan::Aggregate(Aggregate::try_new(input, node.group_expr, exprs)?)))
}

fn aggregate_call(expr: &Expr) -> Option<&AggregateFunction> {
    match unaliased(expr) {
        Expr::AggregateFunction(call) => Some(call),
        _ => None,
    }
}

/// Whether DataFusion sorts the input of a call that has an ORDER BY; the others sort what they keep.
fn needs_sorted_input(call: &AggregateFunction) -> bool {
    ["nth_value", "string_agg"].contains(&call.func.name()) && !sorts_itself(call)
}

/// The order by the argument of a call with DISTINCT: what is given, or the least first.
fn own_order(call: &AggregateFunction, schema: &DFSchema) -> Option<SortExpr> {
    let own = call.params.args.first()?;
    let can_be_sorted = own.get_type(schema).is_ok_and(|data_type| !data_type.is_nested());
    call.params.order_by.first().cloned().or(can_be_sorted.then(|| by(own.clone())))
}

fn can_be_least(call: &AggregateFunction, schema: &DFSchema) -> bool {
    let types = call.params.args.iter().map(|arg| arg.get_type(schema));
    types.into_iter().all(|data_type| data_type.is_ok_and(|data_type| !data_type.is_nested() && !data_type.is_null()))
}

/// Window functions without an ORDER BY that tell rows apart take them in the order of an ORDER BY below, of a source,
/// or of their values.
fn windowed(node: Window, rules: Rules) -> Result<Transformed<LogicalPlan>> {
    let schema = Arc::clone(node.input.schema());
    if !node.window_expr.iter().any(|expr| window_call(expr).is_some_and(|call| lacks_order(call, &schema))) {
        return Ok(Transformed::no(LogicalPlan::Window(node)));
    }
    let (input, order) = match order_of(&node.input)? {
        Order::By(plan, order) if rules.ask(Rule::KeptOrder) => {
            let ties = by_values(&columns(&schema), &order, plan.schema())?;
            (Arc::new(plan), order.into_iter().chain(ties).collect())
        }
        Order::None => (Arc::clone(&node.input), by_values(&columns(&schema), &[], &schema)?),
        Order::By(..) | Order::Source(_) => return Ok(Transformed::no(LogicalPlan::Window(node))),
    };
    let names = NamePreserver::new_for_projection();
    let ordered = |expr: &Expr| {
        let name = names.save(expr);
        match unaliased(expr).clone() {
            Expr::WindowFunction(mut call) if lacks_order(&call, &schema) => {
                call.params.order_by = order.clone();
                name.restore(Expr::WindowFunction(call))
            }
            _ => expr.clone(),
        }
    };
    let exprs = node.window_expr.iter().map(ordered).collect();
    let window = LogicalPlan::Window(Window::try_new(exprs, input)?);
    Ok(Transformed::yes(only(window, &node.schema)?))
}

fn window_call(expr: &Expr) -> Option<&WindowFunction> {
    match unaliased(expr) {
        Expr::WindowFunction(call) => Some(call),
        _ => None,
    }
}

/// Whether a call has no ORDER BY, and its value depends on one.
fn lacks_order(call: &WindowFunction, schema: &DFSchema) -> bool {
    call.params.order_by.is_empty() && tells_rows_apart(call, schema)
}

/// Whether the value of a call tells rows apart that tie in its ORDER BY.
fn tells_rows_apart(call: &WindowFunction, schema: &DFSchema) -> bool {
    let frame = &call.params.window_frame;
    let is_of_rows =
        frame.units == WindowFrameUnits::Rows && !(frame.start_bound.is_unbounded() && frame.end_bound.is_unbounded());
    match &call.fun {
        WindowFunctionDefinition::WindowUDF(function) => tells_ties_apart(function.name()),
        WindowFunctionDefinition::AggregateUDF(function) => {
            is_of_rows || call_reads(function.name(), &call.params.args, schema) == Reads::Order
        }
    }
}

/// DISTINCT ON takes the first row of each group: by its ORDER BY and then by a hash of what is selected, in the order
/// of an ORDER BY below, of a source, or by that hash alone.
fn distinct_on(node: DistinctOn, rules: Rules) -> Result<Transformed<LogicalPlan>> {
    const TIE: &str = "$tie";
    let DistinctOn { on_expr, select_expr, sort_expr, input, schema: _ } = &node;
    let on = || on_expr.iter().cloned().map(by);
    let (plan, order) = match sort_expr {
        Some(order) => (input.as_ref().clone(), order.clone()),
        None => match order_of(input)? {
            Order::By(plan, order) if rules.ask(Rule::KeptOrder) => (plan, on().chain(order).collect()),
            Order::None => (input.as_ref().clone(), on().collect()),
            Order::By(..) | Order::Source(_) => {
                return Ok(Transformed::no(LogicalPlan::Distinct(Distinct::On(node))));
            }
        },
    };
    let selected = select_expr.iter().map(|expr| unaliased(expr).clone());
    let selected: Vec<Expr> = selected.filter(|expr| !is_decided(expr, &order)).collect();
    if selected.is_empty() {
        let distinct = DistinctOn::try_new(on_expr.clone(), select_expr.clone(), Some(order), Arc::new(plan))?;
        return Ok(Transformed::yes(LogicalPlan::Distinct(Distinct::On(distinct))));
    }
    let tie = row_hash(selected).alias(TIE);
    // Once for each row, not once for each column that is selected.
    let exprs = columns(plan.schema()).into_iter().chain([tie]).collect();
    let plan = LogicalPlan::Projection(Projection::try_new(exprs, Arc::new(plan))?);
    let order = order.into_iter().chain([by(Expr::Column(Column::new_unqualified(TIE)))]).collect();
    let distinct = DistinctOn::try_new(on_expr.clone(), select_expr.clone(), Some(order), Arc::new(plan))?;
    Ok(Transformed::yes(LogicalPlan::Distinct(Distinct::On(distinct))))
}
