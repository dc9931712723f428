//! Recursive queries whose rounds give other types than the rows that they begin with.
//!
//! DataFusion casts what a round gives to the types of the first rows: 1.5 becomes 1, round after round, and the query never
//! ends. PostgreSQL refuses that, and so does this; DuckDB takes the type that holds both.

use std::collections::HashMap;
use std::ops::ControlFlow;

use arrow::datatypes::DataType;
use datafusion::common::Result;
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::logical_expr::{Cast, Expr, ExprSchemable, LogicalPlan};
use sqlparser::ast::{Expr as SqlExpr, Query, SelectItem, SetExpr, Spanned, Visit, Visitor};
use sqlparser::tokenizer::Span;

use crate::plan::query::error::at;
use crate::plan::query::syntax::normalised;
use crate::shown::type_name;

/// Checks the recursive queries of `plan`, which `query` says.
///
/// # Errors
/// At the SELECT of the rounds, where a value loses something as one of the first rows' type.
pub(super) fn check(plan: &LogicalPlan, query: &Query) -> Result<()> {
    let mut rounds = Rounds(HashMap::new());
    let _ = Visit::visit(query, &mut rounds);
    if rounds.0.is_empty() {
        return Ok(());
    }
    plan.apply_with_subqueries(|node| {
        if let LogicalPlan::RecursiveQuery(recursive) = node
            && let Some((span, own_casts)) = rounds.0.get(&recursive.name)
            && let LogicalPlan::Projection(round) = recursive.recursive_term.as_ref()
        {
            let cast = |expr: &Expr| match expr.clone().unalias_nested().data {
                Expr::Cast(cast) => Some(cast),
                _ => None,
            };
            let casts: Vec<(usize, Cast)> =
                round.expr.iter().enumerate().filter_map(|(at, expr)| Some((at, cast(expr)?))).collect();
            for (number, Cast { expr, field }) in casts.iter().filter(|_| casts.len() > *own_casts) {
                let (from, to) = (expr.get_type(round.input.schema())?, field.data_type());
                if loses(&from, to) {
                    let name = recursive.static_term.schema().field(*number).name();
                    let (from, to) = (type_name(&from), type_name(to));
                    let message = format!(
                        "column {name} of the recursive query {} is {to} in its first rows and {from} here; CAST one of them",
                        recursive.name
                    );
                    return Err(at(*span, message));
                }
            }
        }
        Ok(TreeNodeRecursion::Continue)
    })?;
    Ok(())
}

/// Whether values of a type lose something as those of another.
fn loses(from: &DataType, to: &DataType) -> bool {
    match (from, to) {
        (DataType::Timestamp(from, _), DataType::Timestamp(to, _)) => from > to,
        (DataType::Timestamp(..), DataType::Date32 | DataType::Date64) => true,
        (from, to) if from.is_floating() && to.is_floating() => from.primitive_width() > to.primitive_width(),
        (from, to) if from.is_floating() => to.is_integer() || to.is_decimal(),
        (
            DataType::Decimal32(_, scale)
            | DataType::Decimal64(_, scale)
            | DataType::Decimal128(_, scale)
            | DataType::Decimal256(_, scale),
            to,
        ) => match to {
            DataType::Decimal32(_, kept)
            | DataType::Decimal64(_, kept)
            | DataType::Decimal128(_, kept)
            | DataType::Decimal256(_, kept) => scale > kept,
            to => to.is_integer() && *scale > 0,
        },
        _ => false,
    }
}

/// By the names of recursive queries, where their rounds stand and how many of their columns are casts.
struct Rounds(HashMap<String, (Span, usize)>);

impl Visitor for Rounds {
    type Break = ();

    fn pre_visit_query(&mut self, query: &Query) -> ControlFlow<()> {
        for cte in query.with.iter().filter(|with| with.recursive).flat_map(|with| &with.cte_tables) {
            if let SetExpr::SetOperation { right, .. } = cte.query.body.as_ref()
                && let SetExpr::Select(select) = right.as_ref()
            {
                let casts = select.projection.iter().filter(|item| is_cast(item)).count();
                self.0.insert(normalised(&cte.alias.name), (select.span(), casts));
            }
        }
        ControlFlow::Continue(())
    }
}

fn is_cast(item: &SelectItem) -> bool {
    let (SelectItem::UnnamedExpr(item) | SelectItem::ExprWithAlias { expr: item, .. }) = item else { return false };
    let mut expr = item;
    while let SqlExpr::Nested(inner) = expr {
        expr = inner;
    }
    match expr {
        SqlExpr::Cast { .. } => true,
        SqlExpr::Function(function) => function.name.to_string().eq_ignore_ascii_case("arrow_cast"),
        _ => false,
    }
}
