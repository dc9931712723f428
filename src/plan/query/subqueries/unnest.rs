//! A subquery for all rows of the query around it at once, after Neumann and Kemper, *Unnesting Arbitrary Queries* (BTW
//! 2015).
//!
//! A subquery that names columns around it has rows for each of their values. The *domain* is a table of all these
//! values, once each. [`unnest`] makes of a subquery a plan that has its rows for all values of the domain, each with
//! the value that it is of: what it reads is joined with the domain, and from there on up the values are carried along.
//! An aggregate groups by them, too, a window is partitioned by them, a limit counts the rows of each.

use std::cell::Cell;
use std::sync::Arc;

use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::common::{Column, DFSchema, JoinConstraint, NullEquality, Result, TableReference, plan_err};
use datafusion::functions_aggregate::expr_fn::count;
use datafusion::functions_window::expr_fn::row_number;
use datafusion::logical_expr::expr::{AggregateFunction, WindowFunction};
use datafusion::logical_expr::{
    Aggregate, Distinct, DistinctOn, Expr, ExprFunctionExt, Join, JoinType, Limit, LogicalPlan, LogicalPlanBuilder,
    Operator, SortExpr, Subquery, Union, Window, binary_expr, lit, when,
};

use crate::plan::query::subqueries::shape::{
    has_row_for_none, has_subquery, input_schema, is_one_empty_row, outer_columns, rows_of, subquery_of,
};

/// Names that are given out once.
#[derive(Debug, Default)]
pub(super) struct Names(Cell<usize>);

impl Names {
    pub(super) fn next(&self, kind: &str) -> String {
        let number = self.0.get();
        self.0.set(number + 1);
        format!("${kind}{number}")
    }
}

/// The values that a subquery is asked for.
pub(super) struct Domain<'a> {
    /// What has them.
    plan: LogicalPlan,
    /// The columns around the subquery, and what they are called in it.
    columns: Vec<(Column, Column)>,
    names: &'a Names,
}

/// A plan with the columns of a subquery, in order and by their names, and behind them those of the domain.
pub(super) struct Unnested {
    pub plan: LogicalPlan,
    pub keys: Vec<Column>,
}

impl<'a> Domain<'a> {
    /// The distinct values that `columns` have in `plan`.
    pub(super) fn distinct(plan: &LogicalPlan, columns: Vec<Column>, names: &'a Names) -> Result<Self> {
        let domain = Self::of(plan, columns, names)?;
        Ok(Self { plan: LogicalPlanBuilder::from(domain.plan).distinct()?.build()?, ..domain })
    }

    /// All rows of `plan`, for what has one row for each of them.
    pub(super) fn all(plan: &LogicalPlan, names: &'a Names) -> Result<Self> {
        Self::of(plan, plan.schema().columns(), names)
    }

    fn of(plan: &LogicalPlan, columns: Vec<Column>, names: &'a Names) -> Result<Self> {
        let columns: Vec<_> = columns.into_iter().map(|c| (c, Column::from_name(names.next("outer")))).collect();
        let named = columns.iter().map(|(column, name)| Expr::Column(column.clone()).alias(&name.name));
        let plan = LogicalPlanBuilder::from(plan.clone()).project(named.collect::<Vec<_>>())?.build()?;
        Ok(Self { plan, columns, names })
    }

    /// The domain with names of its own, since it may stand in a plan several times.
    fn instance(&self) -> Result<(LogicalPlan, Vec<Column>)> {
        let keys: Vec<_> = self.columns.iter().map(|_| Column::from_name(self.names.next("outer"))).collect();
        let named = self.columns.iter().zip(&keys).map(|((_, name), key)| Expr::Column(name.clone()).alias(&key.name));
        let plan = LogicalPlanBuilder::from(self.plan.clone()).project(named.collect::<Vec<_>>())?.build()?;
        Ok((plan, keys))
    }

    /// `expr` with keys in the place of columns around the subquery. It is over `schema` besides.
    fn over_keys(&self, expr: Expr, keys: &[Column], schema: &DFSchema) -> Result<Expr> {
        self.replaced(expr, keys, &mut vec![schema.clone()], true)
    }

    /// `around` has the schemas of nodes between the expression and the domain; only at the first level are keys
    /// columns.
    fn replaced(&self, expr: Expr, keys: &[Column], around: &mut Vec<DFSchema>, is_own: bool) -> Result<Expr> {
        let replaced = expr.transform_down(|part| {
            if let Expr::OuterReferenceColumn(field, column) = &part {
                let is_between = !is_own && around.iter().any(|schema| schema.has_column(column));
                let at = self.columns.iter().position(|(outer, _)| outer == column).filter(|_| !is_between);
                return Ok(match at {
                    Some(at) if is_own => Transformed::yes(Expr::Column(keys[at].clone())),
                    Some(at) => Transformed::yes(Expr::OuterReferenceColumn(Arc::clone(field), keys[at].clone())),
                    None => Transformed::no(part),
                });
            }
            let Some(subquery) = subquery_of(&part) else { return Ok(Transformed::no(part)) };
            let inner = self.replaced_in(subquery.subquery.as_ref().clone(), keys, around)?;
            Ok(Transformed::yes(with_subquery(part, inner)?))
        })?;
        Ok(replaced.data)
    }

    fn replaced_in(&self, plan: LogicalPlan, keys: &[Column], around: &mut Vec<DFSchema>) -> Result<LogicalPlan> {
        let replaced = plan.transform_up(|node| {
            let schema = input_schema(&node)?;
            node.map_expressions(|expr| {
                // What is in a query of its own has this node between.
                let has_subquery = expr.exists(|part| Ok(subquery_of(part).is_some()))?;
                if has_subquery {
                    around.push(schema.clone());
                }
                let replaced = self.replaced(expr, keys, around, false);
                if has_subquery {
                    around.pop();
                }
                replaced.map(Transformed::yes)
            })
        })?;
        replaced.data.recompute_schema()
    }
}

/// A subquery expression over another plan.
pub(super) fn with_subquery(expr: Expr, plan: LogicalPlan) -> Result<Expr> {
    let outer_ref_columns = plan.all_out_ref_exprs();
    let of = |subquery: Subquery| Subquery {
        subquery: Arc::new(plan.clone()),
        outer_ref_columns: outer_ref_columns.clone(),
        ..subquery
    };
    Ok(match expr {
        Expr::Exists(mut exists) => {
            exists.subquery = of(exists.subquery);
            Expr::Exists(exists)
        }
        Expr::InSubquery(mut within) => {
            within.subquery = of(within.subquery);
            Expr::InSubquery(within)
        }
        Expr::SetComparison(mut comparison) => {
            comparison.subquery = of(comparison.subquery);
            Expr::SetComparison(comparison)
        }
        Expr::ScalarSubquery(subquery) => Expr::ScalarSubquery(of(subquery)),
        other => other,
    })
}

/// The rows of `plan` for all values of `domain`.
///
/// # Errors
/// When a node that it is not known for names columns around it.
pub(super) fn unnest(plan: &LogicalPlan, domain: &Domain<'_>) -> Result<Unnested> {
    if !of_domain(plan, domain)? {
        return beside(plan, domain);
    }
    match plan {
        LogicalPlan::Projection(projection) => {
            let Unnested { plan: input, keys } = unnest(&projection.input, domain)?;
            let schema = projection.input.schema();
            let exprs = projection.expr.iter().map(|expr| domain.over_keys(expr.clone(), &keys, schema));
            project(input, named_as(exprs.collect::<Result<Vec<_>>>()?, plan.schema()), keys)
        }
        LogicalPlan::SubqueryAlias(alias) => {
            let Unnested { plan: input, keys } = unnest(&alias.input, domain)?;
            let columns = alias.input.schema().columns().into_iter().map(Expr::Column).collect();
            project(input, named_as(columns, plan.schema()), keys)
        }
        LogicalPlan::Filter(filter) => {
            let schema = filter.input.schema();
            if !of_domain(&filter.input, domain)? {
                // The rows that go with a value, in place of all with all.
                let (values, keys) = domain.instance()?;
                let predicate = domain.over_keys(filter.predicate.clone(), &keys, schema)?;
                if !has_subquery(&predicate) {
                    let input = LogicalPlanBuilder::from(filter.input.as_ref().clone());
                    let plan = input.join_on(values, JoinType::Inner, [predicate])?.build()?;
                    return Ok(Unnested { plan, keys });
                }
            }
            let Unnested { plan: input, keys } = unnest(&filter.input, domain)?;
            let predicate = domain.over_keys(filter.predicate.clone(), &keys, schema)?;
            Ok(Unnested { plan: LogicalPlanBuilder::from(input).filter(predicate)?.build()?, keys })
        }
        // A subquery has no order, but for a limit above.
        LogicalPlan::Sort(sort) => unnest(&sort.input, domain),
        LogicalPlan::Limit(limit) => limited(limit, domain),
        LogicalPlan::Distinct(Distinct::All(input)) => {
            let Unnested { plan: input, keys } = unnest(input, domain)?;
            Ok(Unnested { plan: LogicalPlanBuilder::from(input).distinct()?.build()?, keys })
        }
        LogicalPlan::Distinct(Distinct::On(on)) => distinct_on(on, domain),
        LogicalPlan::Aggregate(aggregate) => aggregated(aggregate, domain),
        LogicalPlan::Window(window) => windowed(window, domain),
        LogicalPlan::Join(join) => joined(join, domain),
        LogicalPlan::Union(union) => {
            let inputs = union.inputs.iter().map(|input| unnest(input, domain)).collect::<Result<Vec<_>>>()?;
            let first = inputs.first().map(|first| first.keys.clone()).unwrap_or_default();
            let inputs = inputs.into_iter().map(|input| Arc::new(input.plan)).collect();
            let plan = LogicalPlan::Union(Union::try_new_with_loose_types(inputs)?);
            let names: Vec<_> = first.into_iter().map(|key| Column::from_name(key.name)).collect();
            let columns =
                plan.schema().columns().into_iter().take(union.schema.fields().len()).map(Expr::Column).collect();
            project(plan, named_as(columns, &union.schema), names)
        }
        LogicalPlan::Unnest(node) => {
            let Unnested { plan: input, keys } = unnest(&node.input, domain)?;
            let input = LogicalPlanBuilder::from(input);
            let plan = input.unnest_columns_with_options(node.exec_columns.clone(), node.options.clone())?.build()?;
            Ok(Unnested { plan, keys })
        }
        other => plan_err!(
            "{} in a subquery can't be computed for each row of the query around it; write a join in its place",
            kind(other)
        ),
    }
}

/// The values for which `plan` has more than `skip` rows: one row for each.
pub(super) fn more_than(skip: usize, plan: &LogicalPlan, domain: &Domain<'_>) -> Result<Unnested> {
    let Unnested { plan, keys } = unnest(plan, domain)?;
    let by: Vec<_> = keys.iter().cloned().map(Expr::Column).collect();
    let number = count(lit(1)).alias(domain.names.next("rows"));
    let is_there = column_of(&number).gt(lit(i64::try_from(skip).unwrap_or(i64::MAX)));
    let plan = LogicalPlanBuilder::from(plan).aggregate(by.clone(), vec![number])?.filter(is_there)?.project(by)?;
    Ok(Unnested { plan: plan.build()?, keys })
}

/// The column that an expression of an aggregate is above it.
fn column_of(expr: &Expr) -> Expr {
    let (relation, name) = expr.qualified_name();
    Expr::Column(Column::new(relation, name))
}

/// What a node is called in SQL.
fn kind(plan: &LogicalPlan) -> &'static str {
    match plan {
        LogicalPlan::Values(_) => "VALUES",
        LogicalPlan::RecursiveQuery(_) => "WITH RECURSIVE",
        LogicalPlan::Subquery(_) => "LATERAL",
        _ => "a part",
    }
}

/// All rows of `plan` for each value.
fn beside(plan: &LogicalPlan, domain: &Domain<'_>) -> Result<Unnested> {
    let (values, keys) = domain.instance()?;
    if is_one_empty_row(plan) {
        return Ok(Unnested { plan: values, keys });
    }
    Ok(Unnested { plan: LogicalPlanBuilder::from(plan.clone()).cross_join(values)?.build()?, keys })
}

/// `exprs` called what the columns of `schema` are.
fn named_as(exprs: Vec<Expr>, schema: &DFSchema) -> Vec<Expr> {
    let named = |(expr, (qualifier, field)): (Expr, (Option<&TableReference>, &Arc<arrow::datatypes::Field>))| {
        let is_named = matches!(&expr, Expr::Column(column) if column.relation.as_ref() == qualifier && column.name == *field.name());
        if is_named { expr } else { expr.unalias().alias_qualified(qualifier.cloned(), field.name()) }
    };
    exprs.into_iter().zip(schema.iter()).map(named).collect()
}

fn project(input: LogicalPlan, mut exprs: Vec<Expr>, keys: Vec<Column>) -> Result<Unnested> {
    exprs.extend(keys.iter().cloned().map(Expr::Column));
    Ok(Unnested { plan: LogicalPlanBuilder::from(input).project(exprs)?.build()?, keys })
}

/// The first rows of each value, by their number.
fn limited(limit: &Limit, domain: &Domain<'_>) -> Result<Unnested> {
    let Some((skip, fetch)) = rows_of(limit)? else {
        return plan_err!("LIMIT in a subquery takes a number; write it as one");
    };
    numbered(&limit.input, skip, fetch, domain)
}

fn numbered(plan: &LogicalPlan, skip: usize, fetch: Option<usize>, domain: &Domain<'_>) -> Result<Unnested> {
    let (input, order) = match plan {
        // The sort is below what drops its columns.
        LogicalPlan::Projection(projection) => {
            let Unnested { plan: input, keys } = numbered(&projection.input, skip, fetch, domain)?;
            let schema = projection.input.schema();
            let exprs = projection.expr.iter().map(|expr| domain.over_keys(expr.clone(), &keys, schema));
            return project(input, named_as(exprs.collect::<Result<Vec<_>>>()?, plan.schema()), keys);
        }
        LogicalPlan::SubqueryAlias(alias) => {
            let Unnested { plan: input, keys } = numbered(&alias.input, skip, fetch, domain)?;
            let columns = alias.input.schema().columns().into_iter().map(Expr::Column).collect();
            return project(input, named_as(columns, plan.schema()), keys);
        }
        LogicalPlan::Sort(sort) => (sort.input.as_ref(), sort.expr.clone()),
        other => (other, Vec::new()),
    };
    let Unnested { plan: rows, keys } = unnest(input, domain)?;
    let schema = input.schema();
    let order =
        order.into_iter().map(|key| over_keys_sorted(key, &keys, schema, domain)).collect::<Result<Vec<_>>>()?;
    let by = keys.iter().cloned().map(Expr::Column).collect();
    let number = row_number().partition_by(by);
    let number = if order.is_empty() { number } else { number.order_by(order) }.build()?;
    let name = Expr::Column(Column::from_name(number.schema_name().to_string()));
    let columns: Vec<_> = rows.schema().columns().into_iter().map(Expr::Column).collect();
    let mut wanted = name.clone().gt(lit(skip as u64));
    if let Some(fetch) = fetch {
        wanted = wanted.and(name.lt_eq(lit(skip.saturating_add(fetch) as u64)));
    }
    let plan = LogicalPlanBuilder::from(rows).window(vec![number])?.filter(wanted)?.project(columns)?.build()?;
    Ok(Unnested { plan, keys })
}

fn over_keys_sorted(key: SortExpr, keys: &[Column], schema: &DFSchema, domain: &Domain<'_>) -> Result<SortExpr> {
    let expr = domain.over_keys(key.expr.clone(), keys, schema)?;
    Ok(key.with_expr(expr))
}

fn distinct_on(on: &DistinctOn, domain: &Domain<'_>) -> Result<Unnested> {
    let Unnested { plan: input, keys } = unnest(&on.input, domain)?;
    let schema = on.input.schema();
    let over = |expr: &Expr| domain.over_keys(expr.clone(), &keys, schema);
    let columns = keys.iter().cloned().map(Expr::Column);
    let by = columns.clone().map(Ok).chain(on.on_expr.iter().map(over)).collect::<Result<Vec<_>>>()?;
    let select = on.select_expr.iter().map(over).collect::<Result<Vec<_>>>()?;
    let select = named_as(select, &on.schema).into_iter().chain(columns.clone()).collect();
    // The order begins with what is distinct.
    let first = columns.map(|key| key.sort(true, false));
    let order = match &on.sort_expr {
        Some(order) => {
            let order = order.iter().map(|key| over_keys_sorted(key.clone(), &keys, schema, domain));
            Some(first.map(Ok).chain(order).collect::<Result<Vec<_>>>()?)
        }
        None => None,
    };
    let plan = LogicalPlanBuilder::from(input).distinct_on(by, select, order)?.build()?;
    Ok(Unnested { plan, keys })
}

/// Groups of each value. An aggregate without groups has a row for a value without rows, too.
fn aggregated(aggregate: &Aggregate, domain: &Domain<'_>) -> Result<Unnested> {
    let Aggregate { input, group_expr, aggr_expr, schema: output, .. } = aggregate;
    if group_expr.iter().any(|group| matches!(group, Expr::GroupingSet(_))) {
        return plan_err!(
            "ROLLUP, CUBE and GROUPING SETS in a subquery can't be computed for each row of the query around it; write a join in \
             its place"
        );
    }
    let Unnested { plan: rows, keys } = unnest(input, domain)?;
    let over = |expr: &Expr| domain.over_keys(expr.clone(), &keys, input.schema());
    let by = keys.iter().cloned().map(Expr::Column);
    let groups = group_expr.iter().map(over).collect::<Result<Vec<_>>>()?;
    let values = aggr_expr.iter().map(over).collect::<Result<Vec<_>>>()?;
    let computed: Vec<_> = groups.iter().chain(&values).map(column_of).collect();
    let plan =
        LogicalPlanBuilder::from(rows).aggregate(groups.into_iter().chain(by).collect::<Vec<_>>(), values)?.build()?;
    let grouped = project(plan, named_as(computed, output), keys)?;
    if !has_row_for_none(aggregate) {
        return Ok(grouped);
    }
    // Names of its own: those of the values may be those of the subquery.
    let (values, keys) = domain.instance()?;
    let alias = domain.names.next("groups");
    let marker = domain.names.next("has");
    let mut columns: Vec<_> = grouped.plan.schema().columns().into_iter().map(Expr::Column).collect();
    columns.push(lit(true).alias(&marker));
    let names: Vec<_> = (0..columns.len()).map(|_| domain.names.next("value")).collect();
    let named = columns.into_iter().zip(&names).map(|(column, name)| column.unalias().alias(name)).collect::<Vec<_>>();
    let groups = LogicalPlanBuilder::from(grouped.plan).project(named)?.alias(alias.clone())?.build()?;
    let of = |at: usize| Column::new(Some(alias.clone()), &names[at]);
    let (first_key, is_there) = (output.fields().len(), Expr::Column(of(names.len() - 1)).is_not_null());
    let theirs: Vec<_> = (0..keys.len()).map(|at| of(first_key + at)).collect();
    let plan = LogicalPlanBuilder::from(values)
        .join_detailed(groups, JoinType::Left, (keys.clone(), theirs), None, NullEquality::NullEqualsNull)?
        .build()?;
    let mut exprs = Vec::with_capacity(first_key);
    for (at, (expr, field)) in aggr_expr.iter().zip(output.fields()).enumerate() {
        let Expr::AggregateFunction(AggregateFunction { func, .. }) = expr.clone().unalias_nested().data else {
            return plan_err!("{expr} is not known to be an aggregate");
        };
        let none = func.default_value(field.data_type())?;
        let value = Expr::Column(of(at));
        exprs.push(match none.is_null() {
            true => value,
            false => when(is_there.clone(), value).otherwise(lit(none))?,
        });
    }
    project(plan, named_as(exprs, output), keys)
}

/// Windows of the rows of each value.
fn windowed(window: &Window, domain: &Domain<'_>) -> Result<Unnested> {
    let Unnested { plan: input, keys } = unnest(&window.input, domain)?;
    let schema = window.input.schema();
    let mut exprs = Vec::with_capacity(window.window_expr.len());
    for expr in &window.window_expr {
        let expr = domain.over_keys(expr.clone(), &keys, schema)?.unalias_nested().data;
        let Expr::WindowFunction(function) = expr else { return plan_err!("{expr} is not known to be a window") };
        let WindowFunction { fun, mut params } = *function;
        params.partition_by.extend(keys.iter().cloned().map(Expr::Column));
        exprs.push(Expr::WindowFunction(Box::new(WindowFunction { fun, params })));
    }
    let columns = schema.columns().into_iter().map(Expr::Column);
    let columns = columns.chain(exprs.iter().map(|e| Expr::Column(Column::from_name(e.schema_name().to_string()))));
    let columns = named_as(columns.collect(), &window.schema);
    let plan = LogicalPlan::Window(Window::try_new(exprs, Arc::new(input))?);
    project(plan, columns, keys)
}

/// Joins of the rows of each value.
fn joined(join: &Join, domain: &Domain<'_>) -> Result<Unnested> {
    let Join { left, right, on, filter, join_type, null_equality, null_aware, .. } = join;
    let (has_left, has_right) = (of_domain(left, domain)?, of_domain(right, domain)?);
    let refuse = || {
        plan_err!(
            "{join_type} joins in a subquery can't be computed for each row of the query around it; write a join in its place"
        )
    };
    if *null_aware {
        return refuse();
    }
    // Which sides have the values; a side whose rows are kept alone has them.
    let (on_left, on_right) = match join_type {
        JoinType::Inner => (has_left || !has_right, has_right),
        JoinType::Left | JoinType::LeftSemi | JoinType::LeftAnti | JoinType::LeftMark => (true, has_right),
        JoinType::Right | JoinType::RightSemi | JoinType::RightAnti | JoinType::RightMark => (has_left, true),
        JoinType::Full => return refuse(),
    };
    let side = |plan: &LogicalPlan, has: bool| -> Result<(LogicalPlan, Vec<Column>)> {
        match has {
            true => unnest(plan, domain).map(|Unnested { plan, keys }| (plan, keys)),
            false => Ok((plan.clone(), Vec::new())),
        }
    };
    let ((left_plan, left_keys), (right_plan, right_keys)) = (side(left, on_left)?, side(right, on_right)?);
    let keeps_right =
        matches!(join_type, JoinType::Right | JoinType::RightSemi | JoinType::RightAnti | JoinType::RightMark);
    let keys = if keeps_right || left_keys.is_empty() { right_keys.clone() } else { left_keys.clone() };
    let schema = left.schema().join(right.schema())?;
    let equal = |(l, r): &(Expr, Expr)| match null_equality {
        NullEquality::NullEqualsNull => binary_expr(l.clone(), Operator::IsNotDistinctFrom, r.clone()),
        NullEquality::NullEqualsNothing => l.clone().eq(r.clone()),
    };
    let mut conditions: Vec<_> = filter.iter().cloned().collect();
    let mut pairs = Vec::with_capacity(on.len());
    for pair in on {
        if pair.0.contains_outer() || pair.1.contains_outer() {
            conditions.push(equal(pair));
        } else {
            pairs.push(pair.clone());
        }
    }
    let mut over = conditions.into_iter().map(|c| domain.over_keys(c, &keys, &schema)).collect::<Result<Vec<_>>>()?;
    if !left_keys.is_empty() && !right_keys.is_empty() {
        let same = left_keys.iter().zip(&right_keys);
        over.extend(
            same.map(|(l, r)| {
                binary_expr(Expr::Column(l.clone()), Operator::IsNotDistinctFrom, Expr::Column(r.clone()))
            }),
        );
    }
    let plan = LogicalPlan::Join(Join::try_new(
        Arc::new(left_plan),
        Arc::new(right_plan),
        pairs,
        over.into_iter().reduce(Expr::and),
        *join_type,
        JoinConstraint::On,
        *null_equality,
        false,
    )?);
    let columns = join.schema.columns().into_iter().map(Expr::Column).collect();
    project(plan, columns, keys)
}

/// Whether `plan` names columns that the domain has.
fn of_domain(plan: &LogicalPlan, domain: &Domain<'_>) -> Result<bool> {
    Ok(outer_columns(plan)?.iter().any(|column| domain.columns.iter().any(|(outer, _)| outer == column)))
}
