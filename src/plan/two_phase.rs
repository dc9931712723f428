//! Operators that see the whole of their input, cut in two: a part that each chunk does for itself, and a part that
//! puts the chunks' results together.
//!
//! | operator | each chunk | together |
//! |---|---|---|
//! | aggregate | the state of each aggregate, by group | states merged by group, then evaluated |
//! | DISTINCT | DISTINCT | DISTINCT |
//! | ORDER BY … LIMIT n OFFSET m | the first n + m | LIMIT n OFFSET m of these |
//! | LIMIT without an order | as if by all columns | as if by all columns |
//!
//! States are those that partial and final aggregation pass on in a run that is not cut, so types, overflow and sketches
//! behave the same.

pub mod state;

use std::sync::Arc;

use datafusion::common::{DFSchemaRef, Result, TableReference};
use datafusion::logical_expr::expr::AggregateFunction;
use datafusion::logical_expr::{
    Aggregate, Distinct, Expr, FetchType, Limit, LogicalPlan, LogicalPlanBuilder, SkipType, Sort,
};

use crate::plan::order::{by_values, columns, is_sorted_directly};
use crate::plan::prove::rule::{Rule, Rules};
use crate::plan::prove::unaliased;
use crate::plan::two_phase::state::{merge_of, state_of};

/// An operator in two parts.
pub struct TwoPhase {
    /// What each chunk does; its columns have names of their own.
    pub chunk: LogicalPlan,
    /// What puts the results together: gives the operator's own rows from a plan of all chunks' rows.
    pub finish: Box<dyn Fn(LogicalPlan) -> Result<LogicalPlan>>,
}

/// Cuts `plan`'s top operator in two; `None` when it is not one that can be.
pub fn two_phase(plan: &LogicalPlan, rules: Rules) -> Result<Option<TwoPhase>> {
    match plan {
        LogicalPlan::Aggregate(node) => aggregate(node, rules),
        LogicalPlan::Distinct(Distinct::All(input)) => {
            let schema = Arc::clone(input.schema());
            let chunk = LogicalPlanBuilder::from(numbered(input.as_ref().clone())?).distinct()?.build()?;
            let finish = move |rows| LogicalPlanBuilder::from(renamed(rows, &schema)?).distinct()?.build();
            Ok(Some(TwoPhase { chunk, finish: Box::new(finish) }))
        }
        LogicalPlan::Limit(node) => limit(node, rules),
        LogicalPlan::Sort(Sort { expr, input, fetch: Some(fetch) }) => {
            let sorted = LogicalPlan::Sort(Sort { expr: expr.clone(), input: Arc::clone(input), fetch: None });
            top(&sorted, 0, Some(*fetch), rules)
        }
        _ => Ok(None),
    }
}

fn aggregate(node: &Aggregate, rules: Rules) -> Result<Option<TwoPhase>> {
    let input_schema = node.input.schema();
    let mut states = Vec::new();
    let mut merges = Vec::new();
    for expr in &node.aggr_expr {
        let Expr::AggregateFunction(function) = unaliased(expr) else { return Ok(None) };
        let Some(state) = state_of(function, input_schema, rules)? else { return Ok(None) };
        merges.push(merge_of(&state));
        // Two that became equal while constants were folded have names of their own.
        let state = state.call(function);
        let is_there = states.contains(&state);
        states.push(if is_there { state.alias(format!("$state {}", states.len())) } else { state });
    }
    let width = node.schema.fields().len();
    let groups = width - states.len();
    let chunk = LogicalPlan::Aggregate(Aggregate::try_new(Arc::clone(&node.input), node.group_expr.clone(), states)?);
    let chunk = numbered(chunk)?;
    let schema = Arc::clone(&node.schema);
    let finish = move |rows: LogicalPlan| {
        let by: Vec<Expr> = rows.schema().columns().into_iter().take(groups).map(Expr::Column).collect();
        let states = rows.schema().columns().into_iter().skip(groups).map(Expr::Column);
        let merged: Vec<Expr> = merges
            .iter()
            .zip(states)
            .map(|(merge, state)| {
                Expr::AggregateFunction(AggregateFunction::new_udf(
                    Arc::clone(merge),
                    vec![state],
                    false,
                    None,
                    Vec::new(),
                    None,
                ))
            })
            .collect();
        renamed(LogicalPlanBuilder::from(rows).aggregate(by, merged)?.build()?, &schema)
    };
    Ok(Some(TwoPhase { chunk, finish: Box::new(finish) }))
}

fn limit(node: &Limit, rules: Rules) -> Result<Option<TwoPhase>> {
    let (SkipType::Literal(skip), FetchType::Literal(fetch)) = (node.get_skip_type()?, node.get_fetch_type()?) else {
        return Ok(None);
    };
    top(&node.input, skip, fetch, rules)
}

/// Whether a node is a LIMIT that may keep any rows.
pub fn is_any_rows(plan: &LogicalPlan) -> bool {
    matches!(plan, LogicalPlan::Limit(limit) if !is_sorted_directly(&limit.input))
}

/// The first rows of a sorted plan. Without an order a LIMIT keeps any rows: those of the least values, which are the
/// same ones for each number of chunks.
fn top(input: &LogicalPlan, skip: usize, fetch: Option<usize>, rules: Rules) -> Result<Option<TwoPhase>> {
    if !is_sorted_directly(input) {
        let order = by_values(&columns(input.schema()), &[], input.schema())?;
        let sorted = LogicalPlanBuilder::from(input.clone()).sort(order.clone())?.build()?;
        return if order.is_empty() { Ok(None) } else { top(&sorted, skip, fetch, rules) };
    }
    // Projections between LIMIT and ORDER BY keep the order.
    let mut above = Vec::new();
    let mut below = input;
    while let LogicalPlan::Projection(_) | LogicalPlan::SubqueryAlias(_) = below {
        above.push(below.clone());
        let [next] = below.inputs()[..] else { return Ok(None) };
        below = next;
    }
    let LogicalPlan::Sort(Sort { expr: order, input: unsorted, fetch: None }) = below else { return Ok(None) };
    let first = LogicalPlanBuilder::from(unsorted.as_ref().clone()).sort(order.clone())?;
    let first = match rules.ask(Rule::OffsetLast) {
        true => first.limit(0, fetch.map(|fetch| fetch.saturating_add(skip)))?,
        false => first.limit(skip, fetch)?,
    };
    let chunk = numbered(first.build()?)?;
    let (order, schema) = (order.clone(), Arc::clone(unsorted.schema()));
    let finish = move |rows| {
        let mut plan = LogicalPlanBuilder::from(renamed(rows, &schema)?).sort(order.clone())?.build()?;
        for node in above.iter().rev() {
            plan = node.with_new_exprs(node.expressions(), vec![plan])?;
        }
        LogicalPlanBuilder::from(plan).limit(skip, fetch)?.build()
    };
    Ok(Some(TwoPhase { chunk, finish: Box::new(finish) }))
}

/// The plan with its columns named `c0`, `c1`, …: names that can be stored, whatever expressions they come from.
pub fn numbered(plan: LogicalPlan) -> Result<LogicalPlan> {
    let columns = plan.schema().columns();
    let named = columns.into_iter().enumerate().map(|(i, column)| Expr::Column(column).alias(format!("c{i}")));
    LogicalPlanBuilder::from(plan).project(named)?.build()
}

/// The plan with the names and qualifiers of `schema`, column by column.
pub fn renamed(plan: LogicalPlan, schema: &DFSchemaRef) -> Result<LogicalPlan> {
    let columns = plan.schema().columns();
    let named = columns.into_iter().zip(schema.iter()).map(|(column, (qualifier, field))| {
        let qualifier: Option<TableReference> = qualifier.cloned();
        Expr::Column(column).alias_qualified(qualifier, field.name())
    });
    LogicalPlanBuilder::from(plan).project(named)?.build()
}
