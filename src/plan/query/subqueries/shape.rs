//! What a subquery is made of: which columns of queries around it it names, whether it has rows at all, and whether
//! DataFusion takes it apart rightly.

use std::collections::BTreeSet;

use arrow::datatypes::DataType;
use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::common::{Column, DFSchema, Result};
use datafusion::logical_expr::expr::GroupingSet;
use datafusion::logical_expr::utils::split_conjunction;
use datafusion::logical_expr::{
    Aggregate, BinaryExpr, Distinct, EmptyRelation, Expr, ExprSchemable, FetchType, Limit, LogicalPlan, Operator,
    SkipType, Subquery, Volatility,
};

use crate::plan::prove::stable::{order_sensitive_aggregate, order_sensitive_window};

/// Whether a subquery has rows.
pub(super) enum Existence {
    /// Always, or never.
    Known(bool),
    /// If this holds, which is about columns around it alone.
    If(Expr),
    /// If one of these has.
    AnyOf(Vec<LogicalPlan>),
    /// If this has.
    Rows(LogicalPlan),
}

/// Whether `plan` has rows, in as few words as can be: what makes columns, order or one row of several is left out.
pub(super) fn existence(mut plan: LogicalPlan) -> Result<Existence> {
    loop {
        plan = match plan {
            LogicalPlan::Projection(projection) => projection.input.as_ref().clone(),
            LogicalPlan::Sort(sort) => sort.input.as_ref().clone(),
            LogicalPlan::SubqueryAlias(alias) => alias.input.as_ref().clone(),
            LogicalPlan::Window(window) => window.input.as_ref().clone(),
            LogicalPlan::Distinct(Distinct::All(input)) => input.as_ref().clone(),
            LogicalPlan::Distinct(Distinct::On(on)) => on.input.as_ref().clone(),
            LogicalPlan::Limit(limit) => match rows_of(&limit)? {
                Some((_, Some(0))) => return Ok(Existence::Known(false)),
                Some((0, _)) => limit.input.as_ref().clone(),
                _ => return Ok(Existence::Rows(LogicalPlan::Limit(limit))),
            },
            LogicalPlan::Aggregate(aggregate) if has_row_for_none(&aggregate) => return Ok(Existence::Known(true)),
            LogicalPlan::Aggregate(aggregate) => aggregate.input.as_ref().clone(),
            LogicalPlan::EmptyRelation(EmptyRelation { produce_one_row, .. }) => {
                return Ok(Existence::Known(produce_one_row));
            }
            LogicalPlan::Values(values) => return Ok(Existence::Known(!values.values.is_empty())),
            LogicalPlan::Union(union) => {
                return Ok(Existence::AnyOf(union.inputs.iter().map(|input| input.as_ref().clone()).collect()));
            }
            LogicalPlan::Filter(filter) if is_one_empty_row(&filter.input) => {
                return Ok(Existence::If(filter.predicate));
            }
            other => return Ok(Existence::Rows(other)),
        };
    }
}

/// How many rows a limit skips and gives, if these are constants.
pub(super) fn rows_of(limit: &Limit) -> Result<Option<(usize, Option<usize>)>> {
    Ok(match (limit.get_skip_type()?, limit.get_fetch_type()?) {
        (SkipType::Literal(skip), FetchType::Literal(fetch)) => Some((skip, fetch)),
        (SkipType::UnsupportedExpr, _) | (_, FetchType::UnsupportedExpr) => None,
    })
}

pub(super) fn is_one_empty_row(plan: &LogicalPlan) -> bool {
    matches!(plan, LogicalPlan::EmptyRelation(EmptyRelation { produce_one_row: true, .. }))
}

/// Whether an aggregate has a row where its input has none.
pub(super) fn has_row_for_none(aggregate: &Aggregate) -> bool {
    match aggregate.group_expr.as_slice() {
        [] => true,
        [Expr::GroupingSet(GroupingSet::Rollup(_) | GroupingSet::Cube(_))] => true,
        [Expr::GroupingSet(GroupingSet::GroupingSets(sets))] => sets.iter().any(Vec::is_empty),
        _ => false,
    }
}

/// Whether there is exactly one row.
pub(super) fn is_one_row(plan: &LogicalPlan) -> bool {
    match plan {
        LogicalPlan::Projection(projection) => is_one_row(&projection.input),
        LogicalPlan::SubqueryAlias(alias) => is_one_row(&alias.input),
        LogicalPlan::Sort(sort) => is_one_row(&sort.input),
        LogicalPlan::Aggregate(aggregate) => aggregate.group_expr.is_empty(),
        other => is_one_empty_row(other),
    }
}

/// Whether there is one row at most.
pub(super) fn is_one_row_at_most(plan: &LogicalPlan) -> Result<bool> {
    Ok(match plan {
        LogicalPlan::Limit(limit) => {
            matches!(rows_of(limit)?, Some((_, Some(0 | 1)))) || is_one_row_at_most(&limit.input)?
        }
        LogicalPlan::Projection(projection) => is_one_row_at_most(&projection.input)?,
        LogicalPlan::SubqueryAlias(alias) => is_one_row_at_most(&alias.input)?,
        LogicalPlan::Sort(sort) => is_one_row_at_most(&sort.input)?,
        LogicalPlan::Filter(filter) => {
            let is_number = split_conjunction(&filter.predicate).into_iter().any(|part| {
                given_column(part, filter.input.schema()).is_some_and(|column| is_row_number(&filter.input, column))
            });
            is_number || is_one_row_at_most(&filter.input)?
        }
        LogicalPlan::Distinct(Distinct::All(input)) => is_one_row_at_most(input)?,
        LogicalPlan::Aggregate(aggregate) => {
            let mut given = Vec::new();
            let mut below = aggregate.input.as_ref();
            while let LogicalPlan::Filter(filter) = below {
                let parts = split_conjunction(&filter.predicate).into_iter();
                given.extend(parts.filter_map(|part| given_column(part, filter.input.schema())));
                below = &filter.input;
            }
            aggregate.group_expr.iter().all(|key| match key {
                Expr::Column(column) => given.contains(&column),
                Expr::Literal(..) => true,
                _ => false,
            })
        }
        other => is_one_empty_row(other),
    })
}

/// The column that has one value for a row around: it equals a constant or a column of that row. Equal values of
/// different types may differ, and so may floats, intervals and what has such in it.
fn given_column<'a>(expr: &'a Expr, schema: &DFSchema) -> Option<&'a Column> {
    let Expr::BinaryExpr(BinaryExpr { left, op: Operator::Eq, right }) = expr else { return None };
    let (column, given) = match (left.as_ref(), right.as_ref()) {
        (Expr::Column(column), given) | (given, Expr::Column(column)) => (column, given),
        _ => return None,
    };
    let own = schema.field(schema.maybe_index_of_column(column)?).data_type();
    let is_one = match given {
        Expr::Literal(value, _) => own.is_integer() && value.data_type().is_integer() || *own == value.data_type(),
        Expr::OuterReferenceColumn(field, _) => field.data_type() == own,
        _ => false,
    };
    let may_differ = own.is_floating() || own.is_nested() || matches!(own, DataType::Interval(_));
    (is_one && !may_differ).then_some(column)
}

/// Whether a column numbers the rows of `plan`.
fn is_row_number(plan: &LogicalPlan, column: &Column) -> bool {
    let Some(at) = plan.schema().maybe_index_of_column(column) else { return false };
    match plan {
        LogicalPlan::SubqueryAlias(alias) => match alias.input.schema().columns().get(at) {
            Some(column) => is_row_number(&alias.input, column),
            None => false,
        },
        LogicalPlan::Projection(projection) => match projection.expr.get(at).cloned().map(Expr::unalias) {
            Some(Expr::Column(column)) => is_row_number(&projection.input, &column),
            _ => false,
        },
        LogicalPlan::Filter(filter) => is_row_number(&filter.input, column),
        LogicalPlan::Window(window) => {
            let own = at.checked_sub(window.input.schema().fields().len());
            match own.and_then(|own| window.window_expr.get(own)).cloned().map(Expr::unalias) {
                Some(Expr::WindowFunction(function)) => {
                    function.fun.name() == "row_number" && function.params.partition_by.is_empty()
                }
                Some(_) => false,
                None => is_row_number(&window.input, column),
            }
        }
        _ => false,
    }
}

/// The subquery that an expression is, itself.
pub(super) fn subquery_of(expr: &Expr) -> Option<&Subquery> {
    match expr {
        Expr::Exists(exists) => Some(&exists.subquery),
        Expr::InSubquery(within) => Some(&within.subquery),
        Expr::SetComparison(comparison) => Some(&comparison.subquery),
        Expr::ScalarSubquery(subquery) => Some(subquery),
        _ => None,
    }
}

/// Whether an expression has subqueries.
pub(super) fn has_subquery(expr: &Expr) -> bool {
    // The closure never fails.
    expr.exists(|part| Ok(subquery_of(part).is_some())).unwrap_or(true)
}

/// The columns of queries around `plan` that it names.
pub(super) fn outer_columns(plan: &LogicalPlan) -> Result<BTreeSet<Column>> {
    let mut found = BTreeSet::new();
    collect(plan, &mut Vec::new(), &mut found)?;
    Ok(found)
}

/// `around` has the schemas of nodes between `plan` and the query that is asked about.
fn collect(plan: &LogicalPlan, around: &mut Vec<DFSchema>, found: &mut BTreeSet<Column>) -> Result<()> {
    plan.apply(|node| {
        node.apply_expressions(|expr| {
            collect_expr(expr, node, around, found)?;
            Ok(TreeNodeRecursion::Continue)
        })
    })?;
    Ok(())
}

fn collect_expr(
    expr: &Expr,
    node: &LogicalPlan,
    around: &mut Vec<DFSchema>,
    found: &mut BTreeSet<Column>,
) -> Result<()> {
    expr.apply(|part| {
        if let Expr::OuterReferenceColumn(_, column) = part
            && !around.iter().any(|schema| schema.has_column(column))
        {
            found.insert(column.clone());
        }
        if let Some(subquery) = subquery_of(part) {
            around.push(input_schema(node)?);
            let collected = collect(&subquery.subquery, around, found);
            around.pop();
            collected?;
        }
        Ok(TreeNodeRecursion::Continue)
    })?;
    Ok(())
}

/// The columns that expressions of a node are over.
pub(super) fn input_schema(node: &LogicalPlan) -> Result<DFSchema> {
    let mut schema = DFSchema::empty();
    for input in node.inputs() {
        schema.merge(input.schema());
    }
    Ok(schema)
}

/// Whether `plan` names columns of queries around it.
pub(super) fn is_correlated(plan: &LogicalPlan) -> Result<bool> {
    Ok(!outer_columns(plan)?.is_empty())
}

/// Whether expressions of the node itself name columns of queries around it.
fn own_outer_columns(node: &LogicalPlan) -> Result<bool> {
    let mut found = BTreeSet::new();
    node.apply_expressions(|expr| {
        collect_expr(expr, node, &mut Vec::new(), &mut found)?;
        Ok(TreeNodeRecursion::Continue)
    })?;
    Ok(!found.is_empty())
}

/// Whether DataFusion makes the right join of a subquery that is asked whether it has rows: only filters name columns
/// around it, and nothing stands above them that a filter could not be brought above.
pub(super) fn joins_rightly(plan: &LogicalPlan) -> Result<bool> {
    Ok(is_pulled_up(plan)? && finds_columns(plan, &mut Vec::new()))
}

/// Whether DataFusion, which calls columns by their bare names once a filter is brought above a subquery, finds those
/// that filters compare with columns around it: `filtered`, when it is done.
fn finds_columns(plan: &LogicalPlan, filtered: &mut Vec<Column>) -> bool {
    match plan {
        LogicalPlan::Projection(projection) => {
            finds_columns(&projection.input, filtered)
                && projection.expr.iter().zip(plan.schema().fields()).all(|(expr, field)| {
                    filtered.iter().all(|column| {
                        let column_expr = Expr::Column(column.clone());
                        // A cast is called what its column is.
                        let is_alike = column.name == *field.name()
                            || column_expr.schema_name().to_string() == expr.schema_name().to_string();
                        *expr == column_expr || !is_alike
                    })
                })
        }
        LogicalPlan::Aggregate(aggregate) => {
            finds_columns(&aggregate.input, filtered)
                && plan.schema().fields().iter().all(|field| filtered.iter().all(|column| column.name != *field.name()))
        }
        LogicalPlan::Sort(sort) => finds_columns(&sort.input, filtered),
        LogicalPlan::Distinct(Distinct::All(input)) => finds_columns(input, filtered),
        LogicalPlan::Filter(filter) => {
            let is_found = finds_columns(&filter.input, filtered);
            let correlated = split_conjunction(&filter.predicate).into_iter().filter(|part| part.contains_outer());
            filtered.extend(correlated.flat_map(Expr::column_refs).cloned());
            let fields = filter.input.schema().fields();
            let is_one = |column: &Column| fields.iter().filter(|field| *field.name() == column.name).count() == 1;
            is_found && filtered.iter().all(is_one)
        }
        _ => true,
    }
}

fn is_pulled_up(plan: &LogicalPlan) -> Result<bool> {
    if !is_correlated(plan)? {
        return Ok(true);
    }
    match plan {
        LogicalPlan::Projection(projection) => Ok(!own_outer_columns(plan)? && is_pulled_up(&projection.input)?),
        LogicalPlan::Sort(sort) => Ok(!own_outer_columns(plan)? && is_pulled_up(&sort.input)?),
        LogicalPlan::Distinct(Distinct::All(input)) => is_pulled_up(input),
        LogicalPlan::Filter(filter) => Ok(!has_correlated_subquery(&filter.predicate)? && is_pulled_up(&filter.input)?),
        _ => Ok(false),
    }
}

/// Whether DataFusion makes the right join of a subquery that gives a value: an aggregate without groups, over rows
/// that filters compare with columns around it.
pub(super) fn aggregates_rightly(plan: &LogicalPlan) -> Result<bool> {
    Ok(is_filtered_aggregate(plan)? && finds_columns(plan, &mut Vec::new()))
}

fn is_filtered_aggregate(plan: &LogicalPlan) -> Result<bool> {
    match plan {
        LogicalPlan::Projection(projection) => {
            Ok(!own_outer_columns(plan)? && is_filtered_aggregate(&projection.input)?)
        }
        LogicalPlan::Aggregate(aggregate) if aggregate.group_expr.is_empty() => {
            Ok(!own_outer_columns(plan)? && is_filtered_by_equalities(&aggregate.input)?)
        }
        _ => Ok(false),
    }
}

fn is_filtered_by_equalities(plan: &LogicalPlan) -> Result<bool> {
    if !is_correlated(plan)? {
        return Ok(true);
    }
    let LogicalPlan::Filter(filter) = plan else { return Ok(false) };
    for part in split_conjunction(&filter.predicate) {
        if part.contains_outer() && !is_equality_with_outer(part, filter.input.schema())? {
            return Ok(false);
        }
    }
    Ok(!has_correlated_subquery(&filter.predicate)? && is_filtered_by_equalities(&filter.input)?)
}

/// `column = something of columns around it`, which is compared as it is or cast.
fn is_equality_with_outer(expr: &Expr, schema: &DFSchema) -> Result<bool> {
    let Expr::BinaryExpr(BinaryExpr { left, op: Operator::Eq, right }) = expr else { return Ok(false) };
    let is_pair = |inner: &Expr, outer: &Expr| {
        matches!(inner, Expr::Column(_)) && outer.contains_outer() && outer.column_refs().is_empty()
    };
    if !is_pair(left, right) && !is_pair(right, left) {
        return Ok(false);
    }
    // Moments of different units, and intervals, are compared by what a function makes of them.
    let (left, right) = (left.get_type(schema)?, right.get_type(schema)?);
    let is_interval = |data_type: &DataType| matches!(data_type, DataType::Interval(_));
    Ok(!is_interval(&left) && !is_interval(&right) && (left == right || !left.is_temporal() || !right.is_temporal()))
}

fn has_correlated_subquery(expr: &Expr) -> Result<bool> {
    expr.exists(|part| match subquery_of(part) {
        Some(subquery) => is_correlated(&subquery.subquery),
        None => Ok(false),
    })
}

/// Why two computations of a plan may have other rows, if they may.
pub(super) fn differs(plan: &LogicalPlan) -> Result<Option<String>> {
    let mut why = None;
    plan.apply_with_subqueries(|node| {
        why = match node {
            LogicalPlan::Limit(_) => Some("LIMIT may pick different rows each time".to_string()),
            LogicalPlan::Distinct(Distinct::On(_)) => Some("DISTINCT ON may pick different rows each time".to_string()),
            LogicalPlan::Window(window) => {
                window.window_expr.iter().find_map(|expr| order_sensitive_window(expr, window.input.schema()))
            }
            LogicalPlan::Aggregate(aggregate) => {
                aggregate.aggr_expr.iter().find_map(|expr| order_sensitive_aggregate(expr, aggregate.input.schema()))
            }
            _ => None,
        };
        node.apply_expressions(|expr| {
            if why.is_none() && is_volatile(expr) {
                why = Some(format!("{expr} has another value each time"));
            }
            Ok(TreeNodeRecursion::Continue)
        })?;
        Ok(if why.is_some() { TreeNodeRecursion::Stop } else { TreeNodeRecursion::Continue })
    })?;
    Ok(why)
}

fn is_volatile(expr: &Expr) -> bool {
    let found = expr.exists(|part| {
        Ok(match part {
            Expr::ScalarFunction(function) => function.func.signature().volatility == Volatility::Volatile,
            _ => false,
        })
    });
    found.unwrap_or(true)
}
