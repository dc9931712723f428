//! Where the order of a plan's rows comes from.

use std::sync::Arc;

use datafusion::common::tree_node::{Transformed, TransformedResult, TreeNode, TreeNodeRecursion};
use datafusion::common::{Column, DFSchema, Result};
use datafusion::logical_expr::expr::{Sort as SortExpr, WindowFunctionParams};
use datafusion::logical_expr::{
    Distinct, DistinctOn, Expr, Filter, Limit, LogicalPlan, Projection, Sort, SubqueryAlias, TableScan, Window,
};

use crate::plan::order::{by_values, window_call};
use crate::plan::prove::unaliased;
use crate::plan::resolve::InputSource;
use crate::plan::resolve::call::Call;

/// The order of a plan's rows.
pub enum Order {
    /// That of an ORDER BY: the plan without it, behind its own columns others that the order needs, and the order.
    By(LogicalPlan, Vec<SortExpr>),
    /// That in which a source, or what is written in the query, has them: the scan, if it is a source.
    Source(Option<TableScan>),
    /// None.
    None,
}

/// The order of the rows of a plan.
pub fn order_of(plan: &LogicalPlan) -> Result<Order> {
    Ok(match plan {
        LogicalPlan::Sort(Sort { expr, input, fetch: None }) => Order::By(input.as_ref().clone(), expr.clone()),
        LogicalPlan::Sort(Sort { expr, input: _, fetch: Some(_) }) => Order::By(plan.clone(), expr.clone()),
        LogicalPlan::Limit(Limit { skip, fetch, input }) => match order_of(input)? {
            // Its own rows are the first of these.
            Order::By(rows, order) => {
                let sorted = LogicalPlan::Sort(Sort { expr: order.clone(), input: Arc::new(rows), fetch: None });
                let (skip, fetch, input) = (skip.clone(), fetch.clone(), Arc::new(sorted));
                Order::By(LogicalPlan::Limit(Limit { skip, fetch, input }), order)
            }
            other => other,
        },
        LogicalPlan::Filter(Filter { predicate, input, .. }) => match order_of(input)? {
            Order::By(rows, order) => {
                let filter = Filter::try_new(predicate.clone(), Arc::new(rows))?;
                Order::By(LogicalPlan::Filter(filter), order)
            }
            other => other,
        },
        LogicalPlan::SubqueryAlias(SubqueryAlias { input, alias, .. }) => match order_of(input)? {
            Order::By(rows, order) => {
                let schema = Arc::clone(rows.schema());
                let aliased = LogicalPlan::SubqueryAlias(SubqueryAlias::try_new(Arc::new(rows), alias.clone())?);
                let columns = aliased.schema().columns();
                let order = moved(order, |column| Some(columns[schema.maybe_index_of_column(column)?].clone()))?;
                Order::By(aliased, order)
            }
            other => other,
        },
        LogicalPlan::Projection(Projection { expr, input, .. }) => match order_of(input)? {
            Order::By(rows, order) => {
                let (exprs, order) = carried(expr, &order, plan.schema())?;
                Order::By(LogicalPlan::Projection(Projection::try_new(exprs, Arc::new(rows))?), order)
            }
            other => other,
        },
        // It gives one row for each value of what is named, in the order of these.
        LogicalPlan::Distinct(Distinct::On(DistinctOn { on_expr, select_expr, sort_expr, input, .. })) => {
            match sort_expr {
                Some(order) => {
                    let order = &order[..on_expr.len().min(order.len())];
                    let (exprs, carried) = of_selected(select_expr, order, plan.schema());
                    let distinct = DistinctOn::try_new(on_expr.clone(), exprs, sort_expr.clone(), Arc::clone(input))?;
                    Order::By(LogicalPlan::Distinct(Distinct::On(distinct)), carried)
                }
                None => Order::None,
            }
        }
        // The elements of a list come in its order.
        LogicalPlan::Unnest(node) => match order_of(&node.input)? {
            Order::By(..) => Order::None,
            other => other,
        },
        LogicalPlan::TableScan(scan) => match scan.source.downcast_ref::<InputSource>() {
            Some(source) if source.has_order() => Order::Source(Some(scan.clone())),
            Some(_) => Order::None,
            None if Call::behind(scan.source.as_ref()).is_some() => Order::Source(None),
            None => Order::None,
        },
        LogicalPlan::Values(_) | LogicalPlan::EmptyRelation(_) => Order::Source(None),
        // It makes row after row, maybe without an end. Those that it reads may come in any order.
        LogicalPlan::RecursiveQuery(_) if !reads_tables(plan)? => Order::Source(None),
        // Windows without partitions leave the order, or make their own.
        LogicalPlan::Window(node) => match (own_order(node), order_of(&node.input)?) {
            (Some([]), Order::By(rows, order)) => {
                let window = Window::try_new(node.window_expr.clone(), Arc::new(rows))?;
                Order::By(LogicalPlan::Window(window), order)
            }
            (Some([]), other) => other,
            (Some(order), _) => Order::By(plan.clone(), order.to_vec()),
            (None, _) => Order::None,
        },
        LogicalPlan::Aggregate(_)
        | LogicalPlan::Join(_)
        | LogicalPlan::Repartition(_)
        | LogicalPlan::Union(_)
        | LogicalPlan::Subquery(_)
        | LogicalPlan::Statement(_)
        | LogicalPlan::Explain(_)
        | LogicalPlan::Analyze(_)
        | LogicalPlan::Extension(_)
        | LogicalPlan::Distinct(Distinct::All(_))
        | LogicalPlan::Dml(_)
        | LogicalPlan::Ddl(_)
        | LogicalPlan::Copy(_)
        | LogicalPlan::DescribeTable(_)
        | LogicalPlan::RecursiveQuery(_) => Order::None,
    })
}

/// Whether rows of sources or tasks are read.
fn reads_tables(plan: &LogicalPlan) -> Result<bool> {
    let mut reads = false;
    plan.apply_with_subqueries(|node| {
        reads |= matches!(node, LogicalPlan::TableScan(scan) if scan.source.downcast_ref::<InputSource>().is_some());
        Ok(if reads { TreeNodeRecursion::Stop } else { TreeNodeRecursion::Continue })
    })?;
    Ok(reads)
}

/// The order that all windows of a node have, if none has partitions.
fn own_order(node: &Window) -> Option<&[SortExpr]> {
    let mut calls = node.window_expr.iter().map(window_call);
    let first = calls.next()??;
    let is_alike =
        |params: &WindowFunctionParams| params.partition_by.is_empty() && params.order_by == first.params.order_by;
    let is_whole = is_alike(&first.params) && calls.all(|call| call.is_some_and(|call| is_alike(&call.params)));
    is_whole.then_some(first.params.order_by.as_slice())
}

/// Whether only projections and names stand between a plan and an ORDER BY: DataFusion keeps that order by itself.
pub fn is_sorted_directly(plan: &LogicalPlan) -> bool {
    match plan {
        LogicalPlan::Sort(sort) => sort.fetch.is_none(),
        LogicalPlan::Projection(node) => is_sorted_directly(&node.input),
        LogicalPlan::SubqueryAlias(node) => is_sorted_directly(&node.input),
        _ => false,
    }
}

/// A plan that [`is_sorted_directly`], of whose rows those that tie in its ORDER BY come in the order of these columns.
pub fn with_ties_below(plan: &LogicalPlan, columns: &[Column]) -> Result<LogicalPlan> {
    Ok(match plan {
        LogicalPlan::Sort(sort) => LogicalPlan::Sort(with_ties(sort.clone(), columns)?),
        LogicalPlan::Projection(node) => {
            let at = columns.iter().filter_map(|column| node.schema.maybe_index_of_column(column));
            let mut below: Vec<Column> = Vec::new();
            for column in at.flat_map(|at| node.expr[at].column_refs()) {
                if !below.contains(column) {
                    below.push(column.clone());
                }
            }
            // References come out of a set.
            below.sort_by_key(|column| node.input.schema().maybe_index_of_column(column));
            plan.with_new_exprs(node.expr.clone(), vec![with_ties_below(&node.input, &below)?])?
        }
        LogicalPlan::SubqueryAlias(node) => {
            let names = node.input.schema().columns();
            let at = columns.iter().filter_map(|column| node.schema.maybe_index_of_column(column));
            let below: Vec<Column> = at.map(|at| names[at].clone()).collect();
            plan.with_new_exprs(Vec::new(), vec![with_ties_below(&node.input, &below)?])?
        }
        other => other.clone(),
    })
}

/// A sort, of whose rows those that tie come in the order of these columns.
pub fn with_ties(Sort { mut expr, input, fetch }: Sort, columns: &[Column]) -> Result<Sort> {
    let columns: Vec<Expr> = columns.iter().cloned().map(Expr::Column).collect();
    let ties = by_values(&columns, &expr, input.schema())?;
    expr.extend(ties);
    Ok(Sort { expr, input, fetch })
}

/// An order with other columns in the place of its own.
fn moved(order: Vec<SortExpr>, to: impl Fn(&Column) -> Option<Column>) -> Result<Vec<SortExpr>> {
    let moved = |SortExpr { expr, asc, nulls_first }: SortExpr| {
        let expr = expr.transform_up(|part| match &part {
            Expr::Column(column) => match to(column) {
                Some(column) => Ok(Transformed::yes(Expr::Column(column))),
                None => Ok(Transformed::no(part)),
            },
            _ => Ok(Transformed::no(part)),
        });
        Ok(SortExpr { expr: expr.data()?, asc, nulls_first })
    };
    order.into_iter().map(moved).collect()
}

/// The expressions of a projection, behind them the columns that an order of its input needs, and that order over what
/// it gives.
fn carried(exprs: &[Expr], order: &[SortExpr], schema: &DFSchema) -> Result<(Vec<Expr>, Vec<SortExpr>)> {
    let mut all = exprs.to_vec();
    let mut places: Vec<(Column, Column)> = Vec::new();
    for column in order.iter().flat_map(|sort| sort.expr.column_refs()) {
        if places.iter().any(|(from, _)| from == column) {
            continue;
        }
        let at = exprs.iter().position(|expr| matches!(unaliased(expr), Expr::Column(own) if own == column));
        let place = match at {
            Some(at) => schema.columns()[at].clone(),
            None => {
                let place = hidden(all.len());
                all.push(Expr::Column(column.clone()).alias(place.name()));
                place
            }
        };
        places.push((column.clone(), place));
    }
    let order =
        moved(order.to_vec(), |column| places.iter().find(|(from, _)| from == column).map(|(_, to)| to.clone()))?;
    Ok((all, order))
}

/// As [`carried`], of expressions as wholes.
fn of_selected(selected: &[Expr], order: &[SortExpr], schema: &DFSchema) -> (Vec<Expr>, Vec<SortExpr>) {
    let mut all = selected.to_vec();
    let mut found = Vec::with_capacity(order.len());
    for SortExpr { expr, asc, nulls_first } in order {
        let place = match selected.iter().position(|other| unaliased(other) == expr) {
            Some(at) => schema.columns()[at].clone(),
            None => {
                let place = hidden(all.len());
                all.push(expr.clone().alias(place.name()));
                place
            }
        };
        found.push(Expr::Column(place).sort(*asc, *nulls_first));
    }
    (all, found)
}

/// A column that only an order needs.
fn hidden(at: usize) -> Column {
    Column::new_unqualified(format!("$order {at}"))
}
