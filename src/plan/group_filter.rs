//! Groups that a join drops, left out before they are made.
//!
//! A query that compares rows with a total of their group, say `l_quantity < (SELECT avg(l_quantity) … WHERE
//! l_partkey = p_partkey)`, is planned as a join with all groups, of which it may need few. Where the join's other
//! side takes the keys from a filtered table, the rows of other groups are left out by a semi join with that table (a
//! form of magic sets; Mumick and Pirahesh, *Implementation of Magic-sets in a Relational Database System*, 1994).
//!
//! A group has all of its rows or none, so the groups that are left say what they said before.

use std::sync::Arc;

use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::common::{Column, ExprSchema, JoinConstraint, JoinType, NullEquality, Result};
use datafusion::logical_expr::{Expr, Join, LogicalPlan, LogicalPlanBuilder};
use datafusion::optimizer::{OptimizerConfig, OptimizerRule};

use crate::arithmetic::lazy::fails;
use crate::plan::prove::unaliased;
use crate::plan::resolve::volatile_function;
use crate::plan::rows::Input;

/// The name of the table of keys, and of its column.
const KEYS: &str = "$keys of groups";
const KEY: &str = "$key of group";

/// A filter leaves so little of its table that it is worth to read it again.
const FEW: f64 = 0.5;

/// The table of keys has no more than this share of the rows that are grouped.
const SMALL: f64 = 0.3;

/// Leaves rows out of aggregates whose groups find no match in a join above. It must come after filters are pushed
/// down.
#[derive(Debug, Default)]
pub struct GroupFilter;

impl OptimizerRule for GroupFilter {
    fn name(&self) -> &str {
        "group_filter"
    }

    fn supports_rewrite(&self) -> bool {
        true
    }

    fn rewrite(&self, plan: LogicalPlan, _: &dyn OptimizerConfig) -> Result<Transformed<LogicalPlan>> {
        if !plan.exists(|node| Ok(matches!(node, LogicalPlan::Join(_))))? || volatile_function(&plan)?.is_some() {
            return Ok(Transformed::no(plan));
        }
        plan.transform_up(|node| match &node {
            LogicalPlan::Join(join) => match filtered(join)? {
                Some(join) => Ok(Transformed::yes(LogicalPlan::Join(join))),
                None => Ok(Transformed::no(node)),
            },
            _ => Ok(Transformed::no(node)),
        })
    }
}

/// The join with fewer groups on one of its sides, if there are groups that it can drop.
fn filtered(join: &Join) -> Result<Option<Join>> {
    if join.null_equality != NullEquality::NullEqualsNothing || join.null_aware {
        return Ok(None);
    }
    let (is_left, is_right) = match join.join_type {
        JoinType::Inner | JoinType::LeftSemi | JoinType::RightSemi => (true, true),
        JoinType::Left | JoinType::LeftAnti | JoinType::LeftMark => (false, true),
        JoinType::Right | JoinType::RightAnti | JoinType::RightMark => (true, false),
        JoinType::Full => (false, false),
    };
    for (left, right) in &join.on {
        let (Some(left), Some(right)) = (left.try_as_col(), right.try_as_col()) else { continue };
        // Zeros of both signs are one group, and not what a join takes for equal.
        if join.left.schema().field_from_column(left).is_ok_and(|field| field.data_type().is_floating()) {
            continue;
        }
        if is_right && let Some(plan) = with_keys_of(&join.left, left, &join.right, right)? {
            return Ok(Some(Join { right: Arc::new(plan), ..join.clone() }));
        }
        if is_left && let Some(plan) = with_keys_of(&join.right, right, &join.left, left)? {
            return Ok(Some(Join { left: Arc::new(plan), ..join.clone() }));
        }
    }
    Ok(None)
}

/// `groups`, whose `group` is found in `column` of `plan`, without rows whose groups are not.
fn with_keys_of(
    plan: &LogicalPlan,
    column: &Column,
    groups: &LogicalPlan,
    group: &Column,
) -> Result<Option<LogicalPlan>> {
    if !makes_groups(groups, group) {
        return Ok(None);
    }
    let mut tables = Vec::new();
    collect_tables(plan, column, &mut tables);
    let fewest = tables.into_iter().min_by(|one, other| one.rows.total_cmp(&other.rows));
    match fewest {
        Some(keys) => in_groups(groups, group, &keys, false),
        None => Ok(None),
    }
}

/// A filtered table, one of whose columns has all values of a join's key.
struct Keys {
    plan: LogicalPlan,
    column: Column,
    /// Rows that pass the filter, and all.
    rows: f64,
    of_rows: f64,
}

/// Adds the filtered tables below a plan that have all values of its `column`.
fn collect_tables(plan: &LogicalPlan, column: &Column, tables: &mut Vec<Keys>) {
    if let Some(of_rows) = rows_of_table(plan) {
        if let Some(Input { rows, .. }) = Input::of(plan).filter(|input| input.rows <= FEW * of_rows) {
            tables.push(Keys { plan: plan.clone(), column: column.clone(), rows, of_rows });
        }
        return;
    }
    if let Some((input, column)) = below(plan, column) {
        collect_tables(input, &column, tables);
        return;
    }
    let LogicalPlan::Join(join) = plan else { return };
    let (left, right) = match join.join_type {
        JoinType::Inner | JoinType::LeftSemi | JoinType::RightSemi => (true, true),
        JoinType::Left | JoinType::LeftAnti => (true, false),
        JoinType::Right | JoinType::RightAnti => (false, true),
        _ => return,
    };
    // In both sides of an equality there are all values that are left.
    let equal = join.on.iter().filter_map(|(left, right)| Some((left.try_as_col()?, right.try_as_col()?)));
    let of_pair =
        equal.filter(|(left, right)| [left, right].contains(&&column)).flat_map(|(left, right)| [left, right]);
    let mut columns: Vec<&Column> = of_pair.collect();
    columns.push(column);
    columns.sort();
    columns.dedup();
    for column in columns {
        if left && join.left.schema().has_column(column) {
            collect_tables(&join.left, column, tables);
        } else if right && join.right.schema().has_column(column) {
            collect_tables(&join.right, column, tables);
        }
    }
}

/// The rows of the table, where a plan is no more than some of its rows and columns, the same each time that it is
/// read, and nothing in it can fail that others may not look at.
fn rows_of_table(plan: &LogicalPlan) -> Option<f64> {
    match plan {
        LogicalPlan::TableScan(scan) if scan.fetch.is_none() => Input::of(plan).map(|input| input.rows),
        LogicalPlan::Filter(_) | LogicalPlan::Projection(_) | LogicalPlan::SubqueryAlias(_) => {
            let input = plan.inputs().into_iter().next()?;
            let can_fail = plan.expressions().iter().any(|expr| fails(expr, input.schema()).unwrap_or(true));
            if can_fail { None } else { rows_of_table(input) }
        }
        _ => None,
    }
}

/// The input of a plan, and its column that the plan gives as `column`, where the plan gives rows of it as they are.
fn below<'a>(plan: &'a LogicalPlan, column: &Column) -> Option<(&'a LogicalPlan, Column)> {
    match plan {
        LogicalPlan::Filter(filter) => Some((&filter.input, column.clone())),
        LogicalPlan::Sort(sort) if sort.fetch.is_none() => Some((&sort.input, column.clone())),
        LogicalPlan::Projection(projection) => {
            let at = plan.schema().maybe_index_of_column(column)?;
            Some((&projection.input, unaliased(&projection.expr[at]).try_as_col()?.clone()))
        }
        LogicalPlan::SubqueryAlias(alias) => {
            let at = plan.schema().maybe_index_of_column(column)?;
            Some((&alias.input, Column::from(alias.input.schema().qualified_field(at))))
        }
        _ => None,
    }
}

/// The column of an aggregate's input that it groups by as `column`, if no other groups have it.
fn grouped_by(plan: &LogicalPlan, column: &Column) -> Option<Column> {
    let LogicalPlan::Aggregate(aggregate) = plan else { return None };
    let at = plan.schema().maybe_index_of_column(column)?;
    let is_set = aggregate.group_expr.iter().any(|expr| matches!(expr, Expr::GroupingSet(_)));
    if is_set { None } else { unaliased(aggregate.group_expr.get(at)?).try_as_col().cloned() }
}

/// Whether an aggregate below makes the groups of `column`.
fn makes_groups(plan: &LogicalPlan, column: &Column) -> bool {
    match below(plan, column) {
        Some((input, column)) => makes_groups(input, &column),
        None => grouped_by(plan, column).is_some(),
    }
}

/// The plan with the rows left out below that have no key in `column`; `None` where that is not worth it.
fn in_groups(plan: &LogicalPlan, column: &Column, keys: &Keys, is_grouped: bool) -> Result<Option<LogicalPlan>> {
    let with_input = |at: usize, input: Option<LogicalPlan>| {
        let mut inputs: Vec<LogicalPlan> = plan.inputs().into_iter().cloned().collect();
        input.map(|input| {
            inputs[at] = input;
            plan.with_new_exprs(plan.expressions(), inputs)
        })
    };
    if let Some((input, column)) = below(plan, column).or_else(|| {
        let LogicalPlan::Aggregate(aggregate) = plan else { return None };
        Some((aggregate.input.as_ref(), grouped_by(plan, column)?))
    }) {
        let is_grouped = is_grouped || matches!(plan, LogicalPlan::Aggregate(_));
        return with_input(0, in_groups(input, &column, keys, is_grouped)?).transpose();
    }
    if let LogicalPlan::Join(join) = plan
        && join.join_type == JoinType::Inner
        && let Some(at) = [&join.left, &join.right].iter().position(|side| side.schema().has_column(column))
    {
        let side = if at == 0 { &join.left } else { &join.right };
        let Some(side) = in_groups(side, column, keys, is_grouped)?.map(Arc::new) else { return Ok(None) };
        let join = match at {
            0 => Join { left: side, ..join.clone() },
            _ => Join { right: side, ..join.clone() },
        };
        return Ok(Some(LogicalPlan::Join(join)));
    }
    let is_done = matches!(plan, LogicalPlan::Join(join)
        if matches!(join.left.as_ref(), LogicalPlan::SubqueryAlias(alias) if alias.alias.table() == KEYS));
    let Some(input) = Input::of(plan).filter(|_| is_grouped && !is_done) else { return Ok(None) };
    if keys.of_rows > SMALL * input.rows {
        return Ok(None);
    }
    let key = Expr::Column(keys.column.clone()).alias(KEY);
    let table = LogicalPlanBuilder::from(keys.plan.clone()).project([key])?.alias(KEYS)?.build()?;
    let on = vec![(Expr::Column(Column::new(Some(KEYS), KEY)), Expr::Column(column.clone()))];
    let (table, plan, kind) = (Arc::new(table), Arc::new(plan.clone()), JoinType::RightSemi);
    let nulls = NullEquality::NullEqualsNothing;
    let join = Join::try_new(table, plan, on, None, kind, JoinConstraint::On, nulls, false)?;
    Ok(Some(LogicalPlan::Join(join)))
}

#[cfg(test)]
mod tests {
    use crate::plan::join_order::tests::optimised;

    async fn plan(sql: &str) -> String {
        optimised(Some(1_000_000), sql).await.display_indent().to_string()
    }

    #[tokio::test]
    async fn groups_that_a_join_drops_are_left_out_below() {
        let average = "(SELECT avg(sales.item) FROM sales WHERE sales.shop = shops.shop)";
        let filtered = plan(&format!("SELECT shop FROM shops WHERE country = 1 AND shop > {average}")).await;
        let (_, below) = filtered.split_once("Aggregate: groupBy=[[sales.shop").unwrap();
        assert!(below.contains("RightSemi Join: $keys of groups.$key of group = sales.shop"), "{filtered}");
        assert!(below.contains("TableScan: shops"), "{filtered}");
        assert_eq!(filtered.matches("RightSemi").count(), 1, "{filtered}");
    }

    #[tokio::test]
    async fn groups_stay_where_a_join_keeps_them_or_nothing_tells_which_it_drops() {
        let grouped = "(SELECT shop, avg(item) AS item FROM sales GROUP BY shop) AS t";
        for query in [
            format!("SELECT t.item FROM shops JOIN {grouped} ON t.shop = shops.shop"),
            format!("SELECT t.item FROM {grouped} LEFT JOIN shops ON t.shop = shops.shop AND shops.country = 1"),
            format!("SELECT t.item FROM shops JOIN {grouped} ON t.item = shops.shop WHERE shops.country = 1"),
            format!("SELECT t.item FROM shops JOIN {grouped} ON t.shop = shops.shop WHERE 7 / shops.country = 1"),
            format!("SELECT t.item FROM (SELECT * FROM shops LIMIT 5) AS s JOIN {grouped} ON t.shop = s.shop"),
            "SELECT t.item FROM shops JOIN (SELECT shop, avg(item) AS item FROM sales GROUP BY GROUPING SETS ((shop), ()))
             AS t ON t.shop = shops.shop WHERE shops.country = 1"
                .to_string(),
        ] {
            let plan = plan(&query).await;
            assert!(!plan.contains("keys of groups"), "{query}: {plan}");
        }
    }
}
