//! LATERAL: a query in FROM that names columns of what stands before it.

use std::sync::Arc;

use datafusion::common::tree_node::TreeNode;
use datafusion::common::{Column, NullEquality, NullHandling, Result, TableReference, plan_err};
use datafusion::logical_expr::{
    Expr, Join, JoinType, LogicalPlan, LogicalPlanBuilder, Operator, Unnest, binary_expr, lit,
};

use crate::plan::query::subqueries::Mend;
use crate::plan::query::subqueries::shape::{aggregates_rightly, is_one_empty_row, joins_rightly, outer_columns};
use crate::plan::query::subqueries::unnest::{Domain, Unnested, unnest};

/// The join without the lateral query, if it has one that DataFusion would get wrong.
pub(super) fn joined(join: &Join, mend: &Mend) -> Result<Option<LogicalPlan>> {
    let (query, alias) = match join.right.as_ref() {
        LogicalPlan::Subquery(query) => (&query.subquery, None),
        LogicalPlan::SubqueryAlias(alias) => match alias.input.as_ref() {
            LogicalPlan::Subquery(query) => (&query.subquery, Some(&alias.alias)),
            _ => return Ok(None),
        },
        _ => return Ok(None),
    };
    let left = join.left.as_ref();
    let outer: Vec<Column> =
        outer_columns(query)?.into_iter().filter(|column| left.schema().has_column(column)).collect();
    if outer.is_empty() {
        // What it names is around all of it.
        let mut right = LogicalPlanBuilder::from(query.as_ref().clone());
        if let Some(alias) = alias {
            right = right.alias(alias.clone())?;
        }
        return Ok(Some(LogicalPlan::Join(Join { right: Arc::new(right.build()?), ..join.clone() })));
    }
    if !matches!(join.join_type, JoinType::Inner | JoinType::Left) {
        return plan_err!("LATERAL can be joined by JOIN, CROSS JOIN and LEFT JOIN; write one of them");
    }
    if joins_rightly(query)? || aggregates_rightly(query)? {
        return Ok(None);
    }
    if let Some(query) = row_by_row(query, join)? {
        let domain = Domain::all(left, &mend.names)?;
        let Unnested { plan, keys } = unnest(&query, &domain)?;
        let lefts = left.schema().columns().into_iter().zip(keys);
        let lefts = lefts.map(|(column, key)| Expr::Column(key).alias_qualified(column.relation, column.name));
        let columns = lefts.chain(named(&query, alias)).collect::<Vec<_>>();
        let mut joined = LogicalPlanBuilder::from(mend.plan(plan)?).project(columns)?;
        if let Some(condition) = condition(join) {
            joined = joined.filter(condition)?;
        }
        return joined.build().map(Some);
    }
    let domain = mend.domain(left, outer.clone())?;
    let Unnested { plan, keys } = unnest(query, &domain)?;
    let columns = named(query, alias).chain(keys.iter().cloned().map(Expr::Column)).collect::<Vec<_>>();
    let right = LogicalPlanBuilder::from(mend.plan(plan)?).project(columns)?.build()?;
    let joined = LogicalPlanBuilder::from(left.clone()).join_detailed(
        right,
        join.join_type,
        (outer, keys),
        condition(join),
        NullEquality::NullEqualsNull,
    )?;
    joined.project(join.schema.columns().into_iter().map(Expr::Column))?.build().map(Some)
}

/// The columns of the query, of the relation that it is called.
fn named<'a>(query: &'a LogicalPlan, alias: Option<&'a TableReference>) -> impl Iterator<Item = Expr> + 'a {
    query.schema().columns().into_iter().map(move |column| match alias {
        Some(alias) => Expr::Column(column.clone()).alias_qualified(Some(alias.clone()), column.name),
        None => Expr::Column(column),
    })
}

/// What the join compares, equalities among it.
fn condition(join: &Join) -> Option<Expr> {
    let equal = |(left, right): &(Expr, Expr)| match join.null_equality {
        NullEquality::NullEqualsNull => binary_expr(left.clone(), Operator::IsNotDistinctFrom, right.clone()),
        NullEquality::NullEqualsNothing => left.clone().eq(right.clone()),
    };
    join.on.iter().map(equal).chain(join.filter.clone()).reduce(Expr::and)
}

/// The query, if it computes something of one row before it and of no table: then it needs no join. A left join keeps
/// the row for which it has none.
fn row_by_row(query: &LogicalPlan, join: &Join) -> Result<Option<LogicalPlan>> {
    let is_left = join.join_type == JoinType::Left;
    let mut node = query;
    let mut has_filter = false;
    let mut lists = 0;
    let mut are_columns = true;
    loop {
        node = match node {
            LogicalPlan::Projection(projection) => {
                let is_column = |expr: &Expr| matches!(expr.clone().unalias_nested().data, Expr::Column(_));
                are_columns &= lists > 0 || projection.expr.iter().all(is_column);
                &projection.input
            }
            LogicalPlan::SubqueryAlias(alias) => &alias.input,
            LogicalPlan::Filter(filter) => {
                has_filter = true;
                &filter.input
            }
            LogicalPlan::Unnest(unnest) => {
                lists += 1;
                &unnest.input
            }
            other if is_one_empty_row(other) => break,
            _ => return Ok(None),
        };
    }
    if !is_left {
        return Ok(Some(query.clone()));
    }
    let is_always = condition(join).is_none_or(|condition| condition == lit(true));
    if has_filter || lists != 1 || !are_columns || !is_always || !is_of_lists_alone(query)? {
        return Ok(None);
    }
    let kept = query.clone().transform_up(|node| match node {
        LogicalPlan::Unnest(Unnest { input, exec_columns, options, .. }) => {
            let options = options.with_null_handling(NullHandling::PreserveAndExpandEmpty);
            let input = LogicalPlanBuilder::from(input.as_ref().clone());
            let kept = input.unnest_columns_with_options(exec_columns, options)?.build()?;
            Ok(datafusion::common::tree_node::Transformed::yes(kept))
        }
        other => Ok(datafusion::common::tree_node::Transformed::no(other)),
    })?;
    Ok(Some(kept.data))
}

/// Whether all columns are elements of lists: what is beside them would not be NULL where there are none.
fn is_of_lists_alone(query: &LogicalPlan) -> Result<bool> {
    Ok(match query {
        LogicalPlan::Projection(projection) => is_of_lists_alone(&projection.input)?,
        LogicalPlan::SubqueryAlias(alias) => is_of_lists_alone(&alias.input)?,
        LogicalPlan::Unnest(unnest) => {
            unnest.struct_type_columns.is_empty() && unnest.list_type_columns.len() == unnest.schema.fields().len()
        }
        _ => false,
    })
}
