//! Set operations: EXCEPT ALL and INTERSECT ALL, and long chains of UNION ALL.
//!
//! DataFusion plans `EXCEPT ALL` and `INTERSECT ALL` as joins that keep or drop all rows of one value. A multiset has
//! the value as often as the left side has it more than the right one (SQL:2016, 7.17), or as both have it at least. So
//! the rows of each value are numbered on both sides, and a row goes with the row of the other side that has its
//! number.
//!
//! Of `a UNION ALL b UNION ALL c …` it makes unions of two, as deep as the chain is long, and asks at each for the
//! place of all before it. Here a chain is one union.

use std::ops::ControlFlow;
use std::sync::Arc;

use datafusion::common::{Column, NullEquality, Result, plan_err};
use datafusion::functions_window::expr_fn::row_number;
use datafusion::logical_expr::planner::{PlannedRelation, RelationPlanner, RelationPlannerContext, RelationPlanning};
use datafusion::logical_expr::{Expr, ExprFunctionExt, JoinType, LogicalPlan, LogicalPlanBuilder, Union};
use sqlparser::ast::helpers::attached_token::AttachedToken;
use sqlparser::ast::{
    GroupByExpr, Query, Select, SelectFlavor, SelectItem, SetExpr, SetOperator, SetQuantifier, TableFactor,
    TableWithJoins, VisitMut, VisitorMut,
};
use sqlparser::tokenizer::Span;

use crate::plan::query::relation::{Marked, mark as marked, unmark};
use crate::plan::query::syntax::{quoted, wildcard};

/// Shorter chains are planned by DataFusion.
const MIN_UNION: usize = 8;

const EXCEPT_ALL: &str = "except all";
const INTERSECT_ALL: &str = "intersect all";
const UNION_ALL: &str = "union all";

/// Puts relations that [`planner`] knows in the place of set operations.
pub(super) fn mark(query: &mut Query) {
    let _ = query.visit(&mut Mark { recursive: Vec::new() });
}

/// What plans them.
pub(super) fn planner() -> Arc<dyn RelationPlanner> {
    Arc::new(Sets)
}

struct Mark {
    /// Queries of recursive CTEs, known by their address alone.
    recursive: Vec<*const Query>,
}

impl VisitorMut for Mark {
    type Break = ();

    fn pre_visit_query(&mut self, query: &mut Query) -> ControlFlow<()> {
        if let Some(with) = query.with.as_ref().filter(|with| with.recursive) {
            self.recursive.extend(with.cte_tables.iter().map(|cte| std::ptr::from_ref(cte.query.as_ref())));
        }
        let address = std::ptr::from_ref(&*query);
        match query.body.as_mut() {
            // What makes it recursive is that it is a union.
            SetExpr::SetOperation { op: SetOperator::Union, left, right, .. } if self.recursive.contains(&address) => {
                mark_body(left);
                mark_body(right);
            }
            body => mark_body(body),
        }
        ControlFlow::Continue(())
    }
}

fn mark_body(body: &mut SetExpr) {
    // Only what a chain begins with is a body; what it goes on with is looked at in a query of its own, or stays.
    let mut pending = vec![body];
    while let Some(body) = pending.pop() {
        let label = match body {
            SetExpr::SetOperation { op: SetOperator::Except, set_quantifier: SetQuantifier::All, .. } => EXCEPT_ALL,
            SetExpr::SetOperation { op: SetOperator::Intersect, set_quantifier: SetQuantifier::All, .. } => {
                INTERSECT_ALL
            }
            SetExpr::SetOperation { op: SetOperator::Union, set_quantifier: SetQuantifier::All, .. }
                if chain_length(body) >= MIN_UNION =>
            {
                UNION_ALL
            }
            SetExpr::SetOperation { left, right, .. } => {
                pending.extend([right.as_mut(), left.as_mut()]);
                continue;
            }
            _ => continue,
        };
        let nothing = SetExpr::Select(Box::new(select_from(Vec::new())));
        let branches = match std::mem::replace(body, nothing) {
            chain if label == UNION_ALL => branches(chain),
            SetExpr::SetOperation { left, right, .. } => vec![*left, *right],
            other => vec![other],
        };
        let branches =
            branches.into_iter().enumerate().map(|(at, branch)| if at > 0 { with_names(branch) } else { branch });
        let derived = |branch| TableFactor::Derived {
            lateral: false,
            subquery: Box::new(query_of(branch)),
            alias: None,
            sample: None,
        };
        if let Some(relation) = marked(label, branches.map(derived).collect()) {
            *body = SetExpr::Select(Box::new(select_from(vec![TableWithJoins { relation, joins: Vec::new() }])));
        }
    }
}

fn chain_length(mut body: &SetExpr) -> usize {
    let mut length = 1;
    while let SetExpr::SetOperation { op: SetOperator::Union, set_quantifier: SetQuantifier::All, left, .. } = body {
        length += 1;
        body = left;
    }
    length
}

fn branches(mut body: SetExpr) -> Vec<SetExpr> {
    let mut branches = Vec::new();
    loop {
        match body {
            SetExpr::SetOperation { op: SetOperator::Union, set_quantifier: SetQuantifier::All, left, right } => {
                branches.push(*right);
                body = *left;
            }
            first => {
                branches.push(first);
                branches.reverse();
                return branches;
            }
        }
    }
}

/// A branch whose columns all have names: two of one name are none in a table, and only the first branch's are seen.
fn with_names(mut branch: SetExpr) -> SetExpr {
    if let SetExpr::Select(select) = &mut branch {
        for (at, item) in select.projection.iter_mut().enumerate() {
            if let SelectItem::UnnamedExpr(expr) = item {
                let expr = expr.clone();
                *item = SelectItem::ExprWithAlias { expr, alias: quoted(format!("${at}"), Span::empty()) };
            }
        }
    }
    branch
}

/// A query that is `body` alone.
pub(super) fn query_of(body: SetExpr) -> Query {
    match body {
        SetExpr::Query(query) => *query,
        body => Query {
            with: None,
            body: Box::new(body),
            order_by: None,
            limit_clause: None,
            fetch: None,
            locks: Vec::new(),
            for_clause: None,
            settings: None,
            format_clause: None,
            pipe_operators: Vec::new(),
        },
    }
}

/// `SELECT * FROM …`.
pub(super) fn select_from(from: Vec<TableWithJoins>) -> Select {
    Select {
        select_token: AttachedToken::empty(),
        optimizer_hints: Vec::new(),
        distinct: None,
        select_modifiers: None,
        top: None,
        top_before_distinct: false,
        projection: vec![wildcard()],
        exclude: None,
        into: None,
        from,
        lateral_views: Vec::new(),
        prewhere: None,
        selection: None,
        connect_by: Vec::new(),
        group_by: GroupByExpr::Expressions(Vec::new(), Vec::new()),
        cluster_by: Vec::new(),
        distribute_by: Vec::new(),
        sort_by: Vec::new(),
        having: None,
        named_window: Vec::new(),
        qualify: None,
        window_before_qualify: false,
        value_table_mode: None,
        flavor: SelectFlavor::Standard,
    }
}

#[derive(Debug)]
struct Sets;

impl RelationPlanner for Sets {
    fn plan_relation(
        &self,
        relation: TableFactor,
        context: &mut dyn RelationPlannerContext,
    ) -> Result<RelationPlanning> {
        let Marked { label, factors } = match unmark(relation) {
            Ok(marked) => marked,
            Err(other) => return Ok(RelationPlanning::Original(other)),
        };
        let inputs = factors.into_iter().map(|factor| context.plan(factor)).collect::<Result<Vec<_>>>()?;
        let plan = match label.as_str() {
            UNION_ALL => union(inputs)?,
            label => {
                let Ok([left, right]) = <[LogicalPlan; 2]>::try_from(inputs) else {
                    return plan_err!("{label} has two sides");
                };
                multiset(left, right, if label == EXCEPT_ALL { JoinType::LeftAnti } else { JoinType::LeftSemi })?
            }
        };
        Ok(RelationPlanning::Planned(Box::new(PlannedRelation::new(plan, None))))
    }
}

fn union(inputs: Vec<LogicalPlan>) -> Result<LogicalPlan> {
    let mut columns = inputs.iter().map(|input| input.schema().fields().len());
    let first = columns.next().unwrap_or_default();
    if let Some(at) = columns.position(|count| count != first) {
        let other = inputs[at + 1].schema().fields().len();
        return plan_err!(
            "UNION queries have different number of columns: the first has {first}, number {} has {other}",
            at + 2
        );
    }
    Union::try_new_with_loose_types(inputs.into_iter().map(Arc::new).collect()).map(LogicalPlan::Union)
}

/// The rows of `left` that go with one of `right`, or with none; equal rows by their numbers, NULL equal to NULL.
fn multiset(left: LogicalPlan, right: LogicalPlan, kept: JoinType) -> Result<LogicalPlan> {
    let (columns, others) = (left.schema().columns(), right.schema().columns());
    if columns.len() != others.len() {
        return plan_err!(
            "EXCEPT and INTERSECT queries have different number of columns: {} and {}",
            columns.len(),
            others.len()
        );
    }
    // Names of our own: those of both sides may be the same, or none at all.
    let name = |side: &str, at: usize| format!("{side}{at}");
    let numbered = |plan: LogicalPlan, side: &str, columns: &[Column]| -> Result<LogicalPlan> {
        let renamed = columns.iter().enumerate().map(|(at, column)| Expr::Column(column.clone()).alias(name(side, at)));
        let plan = LogicalPlanBuilder::from(plan).project(renamed)?.build()?;
        let by = (0..columns.len()).map(|at| Expr::Column(Column::from_name(name(side, at)))).collect();
        let number = row_number().partition_by(by).build()?.alias(name(side, columns.len()));
        let names = (0..columns.len()).map(|at| Expr::Column(Column::from_name(name(side, at))));
        let window = number.clone().unalias();
        let over = LogicalPlanBuilder::from(plan).window(vec![window.clone()])?;
        let counted =
            Expr::Column(Column::from_name(window.schema_name().to_string())).alias(name(side, columns.len()));
        over.project(names.chain([counted]))?.build()
    };
    let (left, right) = (numbered(left, "$l", &columns)?, numbered(right, "$r", &others)?);
    let keys = |side: &str| (0..=columns.len()).map(|at| Column::from_name(name(side, at))).collect::<Vec<_>>();
    let joined = LogicalPlanBuilder::from(left).join_detailed(
        right,
        kept,
        (keys("$l"), keys("$r")),
        None,
        NullEquality::NullEqualsNull,
    )?;
    let named = columns.iter().enumerate().map(|(at, column)| {
        Expr::Column(Column::from_name(name("$l", at))).alias_qualified(column.relation.clone(), &column.name)
    });
    joined.project(named)?.build()
}
