//! What of a query's result the query leaves open, in words for EXPLAIN: columns whose values depend on the order of
//! rows, and rows of which any would do.

use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::common::{DFSchema, Result, TableReference};
use datafusion::logical_expr::utils::grouping_set_to_exprlist;
use datafusion::logical_expr::{Distinct, Expr, FetchType, JoinType, Limit, LogicalPlan, WindowFunctionDefinition};

use crate::plan::order::function::{Reads, call_reads};
use crate::plan::order::of::{Order, is_sorted_directly, order_of};
use crate::plan::order::{aggregate_call, lacks_order, tells_rows_apart, window_call};

/// What is open in the rows of a node.
#[derive(Debug, Clone, Default)]
struct Open {
    /// Which rows there are.
    rows: Option<String>,
    /// The value of each column.
    columns: Vec<Option<String>>,
}

/// What a plan leaves open, a line for each column or for all rows; before
/// [`with_orders`](crate::plan::order::with_orders) gave an order to what has none.
///
/// # Errors
/// DataFusion's when a node can't be analysed.
pub fn notes(plan: &LogicalPlan) -> Result<Vec<String>> {
    let Open { rows, columns } = open(plan)?;
    let names = plan.schema().fields().iter().map(|field| field.name());
    let columns = names.zip(columns).filter_map(|(name, why)| Some(format!("any order: column `{name}`: {}", why?)));
    Ok(rows.map(|why| format!("any rows: {why}")).into_iter().chain(columns).collect())
}

fn open(plan: &LogicalPlan) -> Result<Open> {
    let inputs = plan.inputs().into_iter().map(open).collect::<Result<Vec<_>>>()?;
    let width = plan.schema().fields().len();
    let rows = inputs.iter().find_map(|input| input.rows.clone());
    let first = || inputs.first().cloned().unwrap_or_default();
    let mut found = match plan {
        LogicalPlan::Projection(node) => Open { columns: of_exprs(&node.expr, node.input.schema(), &inputs[0])?, rows },
        LogicalPlan::Filter(node) => {
            let decided = of_expr(&node.predicate, node.input.schema(), &inputs[0])?;
            Open { rows: rows.or(decided), ..first() }
        }
        LogicalPlan::Aggregate(node) => {
            let schema = node.input.schema();
            let groups: Vec<Expr> = grouping_set_to_exprlist(&node.group_expr)?.into_iter().cloned().collect();
            let mut columns = of_exprs(&groups, schema, &inputs[0])?;
            columns.resize(width - node.aggr_expr.len(), None);
            let from = from(&node.input)?;
            for expr in &node.aggr_expr {
                let own = aggregate_call(expr).and_then(|call| {
                    let name = call.func.name();
                    match (call_reads(name, &call.params.args, schema), &from) {
                        (Reads::Order, Some(from)) if call.params.order_by.is_empty() => {
                            Some(format!("{name}() takes rows {from}"))
                        }
                        (Reads::Set | Reads::Order, _) => None,
                        (Reads::Batches, _) => Some(format!("{name}() depends on how rows are batched")),
                        (Reads::Unknown, _) => Some(format!("{name}() may depend on the order of rows")),
                    }
                });
                columns.push(own.map_or_else(|| of_expr(expr, schema, &inputs[0]), |own| Ok(Some(own)))?);
            }
            Open { rows, columns }
        }
        LogicalPlan::Window(node) => {
            let schema = node.input.schema();
            let from = from(&node.input)?;
            let Open { mut columns, .. } = first();
            for expr in &node.window_expr {
                let own = window_call(expr).and_then(|call| {
                    let name = match &call.fun {
                        WindowFunctionDefinition::AggregateUDF(function) => function.name(),
                        WindowFunctionDefinition::WindowUDF(function) => function.name(),
                    };
                    match &from {
                        Some(from) if lacks_order(call, schema) => Some(format!("{name}() takes rows {from}")),
                        _ if !lacks_order(call, schema) && tells_rows_apart(call, schema) => {
                            Some(format!("{name}() takes rows that tie in its ORDER BY as they come"))
                        }
                        _ => None,
                    }
                });
                columns.push(own.map_or_else(|| of_expr(expr, schema, &inputs[0]), |own| Ok(Some(own)))?);
            }
            Open { rows, columns }
        }
        LogicalPlan::Join(node) => {
            let both = node.left.schema().join(node.right.schema());
            let all = Open { rows: None, columns: inputs.iter().flat_map(|input| input.columns.clone()).collect() };
            let mut decided = rows;
            for (l, r) in &node.on {
                let left = of_expr(l, node.left.schema(), &inputs[0])?;
                decided = decided.or(left).or(of_expr(r, node.right.schema(), &inputs[1])?);
            }
            if let (Some(filter), Ok(both)) = (&node.filter, &both) {
                decided = decided.or(of_expr(filter, both, &all)?);
            }
            let columns = match node.join_type {
                JoinType::LeftSemi | JoinType::LeftAnti | JoinType::LeftMark => inputs[0].columns.clone(),
                JoinType::RightSemi | JoinType::RightAnti | JoinType::RightMark => inputs[1].columns.clone(),
                JoinType::Inner | JoinType::Left | JoinType::Right | JoinType::Full => all.columns,
            };
            Open { rows: decided, columns }
        }
        LogicalPlan::Union(_) | LogicalPlan::RecursiveQuery(_) => {
            let column = |at: usize| inputs.iter().find_map(|input| input.columns.get(at).cloned().flatten());
            Open { rows, columns: (0..width).map(column).collect() }
        }
        LogicalPlan::Limit(node) => Open { rows: limit(node)?.or(rows), ..first() },
        LogicalPlan::Distinct(Distinct::On(node)) => {
            let which = match (&node.sort_expr, from(&node.input)?) {
                (None, Some(from)) => Some(format!("DISTINCT ON takes the first row of each group, {from}")),
                _ => None,
            };
            Open { columns: of_exprs(&node.select_expr, node.input.schema(), &inputs[0])?, rows: rows.or(which) }
        }
        LogicalPlan::Unnest(node) => {
            let columns = node.dependency_indices.iter().map(|at| inputs[0].columns.get(*at).cloned().flatten());
            Open { columns: columns.collect(), rows }
        }
        LogicalPlan::Extension(_) => {
            let any = inputs.iter().flat_map(|input| input.columns.iter().flatten()).next().cloned();
            Open { columns: vec![any; width], rows }
        }
        _ => first(),
    };
    found.columns.resize(width, None);
    Ok(found)
}

/// Where a LIMIT takes any rows.
fn limit(node: &Limit) -> Result<Option<String>> {
    let count = match node.get_fetch_type()? {
        FetchType::Literal(Some(0)) => return Ok(None),
        FetchType::Literal(Some(count)) => format!("LIMIT {count}"),
        FetchType::Literal(None) | FetchType::UnsupportedExpr => "LIMIT".into(),
    };
    if is_sorted_directly(&node.input) {
        return Ok(None);
    }
    Ok(match order_of(&node.input)? {
        Order::Source(Some(scan)) => {
            let source = shown(&scan.table_name);
            Some(format!(
                "{count} takes the first rows of the files of `{source}`, and where it is cut those of the least values"
            ))
        }
        Order::None => Some(format!("{count} takes the rows of the least values")),
        Order::By(..) | Order::Source(None) => None,
    })
}

/// In which order rows are taken where the query does not say it.
fn from(input: &LogicalPlan) -> Result<Option<String>> {
    Ok(match order_of(input)? {
        Order::Source(Some(scan)) => Some(format!("in the order of the files of `{}`", shown(&scan.table_name))),
        Order::None => Some("in the order of their values".into()),
        Order::By(..) | Order::Source(None) => None,
    })
}

fn shown(table: &TableReference) -> &str {
    table.table()
}

fn of_exprs(exprs: &[Expr], schema: &DFSchema, input: &Open) -> Result<Vec<Option<String>>> {
    exprs.iter().map(|expr| of_expr(expr, schema, input)).collect()
}

/// What is open in the value of an expression.
fn of_expr(expr: &Expr, schema: &DFSchema, input: &Open) -> Result<Option<String>> {
    let mut found = None;
    expr.apply(|part| {
        match part {
            Expr::Column(column) => {
                let at = schema.maybe_index_of_column(column);
                found = at.and_then(|at| input.columns.get(at).cloned().flatten());
            }
            Expr::ScalarSubquery(subquery) => {
                let Open { rows, columns } = open(&subquery.subquery)?;
                found = rows.or(columns.into_iter().flatten().next());
            }
            _ => {}
        }
        Ok(if found.is_some() { TreeNodeRecursion::Stop } else { TreeNodeRecursion::Continue })
    })?;
    Ok(found)
}
