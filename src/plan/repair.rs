//! Rules of DataFusion's logical optimizer, without what DataFusion 55 does wrong in them.

mod casts;
pub mod compared;
mod conditional;
mod nulls;
pub mod types;

use std::sync::Arc;

use datafusion::common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion::common::{Column, DFSchema, NullEquality, Result};
use datafusion::logical_expr::expr::AggregateFunction;
use datafusion::logical_expr::expr_rewriter::NamePreserver;
use datafusion::logical_expr::utils::split_conjunction;
use datafusion::logical_expr::{EmptyRelation, Expr, JoinType, LogicalPlan, LogicalPlanBuilder, Union, Window};
use datafusion::optimizer::common_subexpr_eliminate::CommonSubexprEliminate;
use datafusion::optimizer::eliminate_cross_join::EliminateCrossJoin;
use datafusion::optimizer::eliminate_duplicated_expr::EliminateDuplicatedExpr;
use datafusion::optimizer::extract_equijoin_predicate::ExtractEquijoinPredicate;
use datafusion::optimizer::extract_leaf_expressions::{ExtractLeafExpressions, PushDownLeafProjections};
use datafusion::optimizer::propagate_empty_relation::PropagateEmptyRelation;
use datafusion::optimizer::push_down_filter::PushDownFilter;
use datafusion::optimizer::simplify_expressions::SimplifyExpressions;
use datafusion::optimizer::{ApplyOrder, OptimizerConfig, OptimizerRule};

use crate::arithmetic::checked::map_keeping_names;
use crate::arithmetic::fold::CheckedFolding;
use crate::arithmetic::terms::balanced;
use crate::plan::distinct_apart::DistinctApart;
use crate::plan::group_filter::GroupFilter;
use crate::plan::join_order::JoinOrder;
use crate::plan::repair::casts::{GroupsByCasts, SortsByCasts};
use crate::plan::repair::compared::ComparedAlike;
use crate::plan::repair::conditional::OutsideConditions;
use crate::plan::repair::nulls::NullsKept;
use crate::plan::repair::types::TypesKept;

/// How names of columns begin that a window's partition keys are computed into.
const PARTITION: &str = "$partition ";

/// Rules of an optimizer.
pub type OptimizerRules = Vec<Arc<dyn OptimizerRule + Send + Sync>>;

/// `rules` with those repaired that need it.
pub fn repaired(rules: &[Arc<dyn OptimizerRule + Send + Sync>]) -> OptimizerRules {
    let repaired = rules.iter().flat_map(|rule| {
        let repaired: Arc<dyn OptimizerRule + Send + Sync> = match rule.name() {
            name if name == CommonSubexprEliminate::new().name() => Arc::new(OutsideConditions),
            name if name == EliminateCrossJoin::new().name() => Arc::new(JoinsOfOneKind),
            name if name == PropagateEmptyRelation::new().name() => Arc::new(EmptyOutsideUnions),
            name if name == ExtractEquijoinPredicate::new().name() => Arc::new(EquijoinsOfOneKind),
            name if name == EliminateDuplicatedExpr::new().name() => Arc::new(SortsByCasts),
            name if name == PushDownFilter::new().name() => Arc::new(FiltersAboveTotals),
            name if name == SimplifyExpressions::new().name() => simplification(),
            name if [ExtractLeafExpressions::new().name(), PushDownLeafProjections::new().name()].contains(&name) => {
                Arc::new(FieldsAboveUnions(Arc::clone(rule)))
            }
            _ => Arc::clone(rule),
        };
        // How many rows joins give is known when filters are below them.
        let joins: [Arc<dyn OptimizerRule + Send + Sync>; 2] = [Arc::new(JoinOrder), Arc::new(GroupFilter)];
        let joins = joins.into_iter().filter(|_| rule.name() == PushDownFilter::new().name());
        [repaired].into_iter().chain(joins)
    });
    let first: Arc<dyn OptimizerRule + Send + Sync> = Arc::new(GroupsByCasts);
    let last: [Arc<dyn OptimizerRule + Send + Sync>; 4] = [
        Arc::new(ComparedAlike),
        Arc::new(SortKeysOnce),
        Arc::new(PartitionsByColumns),
        Arc::new(DistinctApart { is_dear_too: false }),
    ];
    [first].into_iter().chain(repaired).chain(last).collect()
}

/// [`SimplifyExpressions`] over checked arithmetic, that keeps the types of columns and what is NULL.
pub fn simplification() -> Arc<dyn OptimizerRule + Send + Sync> {
    let checked = CheckedFolding::new(Arc::new(SimplifyExpressions::new()));
    Arc::new(NullsKept::new(Arc::new(TypesKept::new(Arc::new(checked)))))
}

/// [`PushDownFilter`], but not below what a filter does not belong below.
pub fn filters_below() -> Arc<dyn OptimizerRule + Send + Sync> {
    Arc::new(FiltersAboveTotals)
}

/// [`EliminateCrossJoin`] for plans whose inner joins all keep NULL keys apart.
///
/// It makes the joins of all inputs of nested inner joins again, and all of the outermost one's kind: below
/// `IS NOT DISTINCT FROM`, `a = b` would hold for two NULLs.
#[derive(Debug)]
pub struct JoinsOfOneKind;

impl OptimizerRule for JoinsOfOneKind {
    fn name(&self) -> &str {
        "eliminate_cross_join_of_one_kind"
    }

    fn supports_rewrite(&self) -> bool {
        true
    }

    fn rewrite(&self, plan: LogicalPlan, config: &dyn OptimizerConfig) -> Result<Transformed<LogicalPlan>> {
        let mut null_equals_null = false;
        plan.apply_with_subqueries(|node| {
            null_equals_null |= matches!(node, LogicalPlan::Join(join)
                if join.join_type == JoinType::Inner && join.null_equality == NullEquality::NullEqualsNull);
            Ok(if null_equals_null { TreeNodeRecursion::Stop } else { TreeNodeRecursion::Continue })
        })?;
        match null_equals_null {
            true => Ok(Transformed::no(plan)),
            false => EliminateCrossJoin::new().rewrite(plan, config),
        }
    }
}

/// [`ExtractEquijoinPredicate`], but not into joins for which NULL equals NULL: `a = b` would hold for two NULLs there.
#[derive(Debug)]
pub struct EquijoinsOfOneKind;

impl OptimizerRule for EquijoinsOfOneKind {
    fn name(&self) -> &str {
        "extract_equijoin_predicate_of_one_kind"
    }

    fn apply_order(&self) -> Option<ApplyOrder> {
        ExtractEquijoinPredicate::new().apply_order()
    }

    fn supports_rewrite(&self) -> bool {
        true
    }

    fn rewrite(&self, plan: LogicalPlan, config: &dyn OptimizerConfig) -> Result<Transformed<LogicalPlan>> {
        match plan {
            LogicalPlan::Join(ref join) if join.null_equality == NullEquality::NullEqualsNull => {
                Ok(Transformed::no(plan))
            }
            other => ExtractEquijoinPredicate::new().rewrite(other, config),
        }
    }
}

/// [`PropagateEmptyRelation`], but what is left of a union keeps the union's column names.
///
/// Where one branch is left it takes that for the union, and filters above then look for the union's column names in it:
/// they find none, or others of that name.
#[derive(Debug)]
struct EmptyOutsideUnions;

impl OptimizerRule for EmptyOutsideUnions {
    fn name(&self) -> &str {
        "propagate_empty_relation_outside_unions"
    }

    fn apply_order(&self) -> Option<ApplyOrder> {
        PropagateEmptyRelation::new().apply_order()
    }

    fn supports_rewrite(&self) -> bool {
        true
    }

    fn rewrite(&self, plan: LogicalPlan, config: &dyn OptimizerConfig) -> Result<Transformed<LogicalPlan>> {
        let LogicalPlan::Union(union) = plan else { return PropagateEmptyRelation::new().rewrite(plan, config) };
        let is_empty = |branch: &LogicalPlan| {
            matches!(branch, LogicalPlan::EmptyRelation(EmptyRelation { produce_one_row: false, schema: _ }))
        };
        let left: Vec<Arc<LogicalPlan>> = union.inputs.iter().filter(|branch| !is_empty(branch)).cloned().collect();
        if left.len() == union.inputs.len() {
            return Ok(Transformed::no(LogicalPlan::Union(union)));
        }
        Ok(Transformed::yes(match left.as_slice() {
            [] => LogicalPlan::EmptyRelation(EmptyRelation { produce_one_row: false, schema: union.schema }),
            [only] => {
                let columns = only.schema().columns().into_iter().zip(union.schema.iter());
                let named = columns.map(|(column, (qualifier, field))| {
                    Expr::Column(column).alias_qualified(qualifier.cloned(), field.name())
                });
                LogicalPlanBuilder::from(Arc::clone(only)).project(named.collect::<Vec<_>>())?.build()?
            }
            _ => LogicalPlan::Union(Union { inputs: left, schema: union.schema }),
        }))
    }
}

/// A rule that takes fields out of structs near the scans, but not below unions: there it fails, where a branch gives a
/// column under its own name as well as where one is empty.
#[derive(Debug)]
struct FieldsAboveUnions(Arc<dyn OptimizerRule + Send + Sync>);

impl OptimizerRule for FieldsAboveUnions {
    fn name(&self) -> &str {
        self.0.name()
    }

    fn apply_order(&self) -> Option<ApplyOrder> {
        self.0.apply_order()
    }

    fn supports_rewrite(&self) -> bool {
        true
    }

    fn rewrite(&self, plan: LogicalPlan, config: &dyn OptimizerConfig) -> Result<Transformed<LogicalPlan>> {
        let drops_qualifier = |expr: &Expr| {
            matches!(expr, Expr::Alias(alias) if alias.relation.is_none()
                && matches!(alias.expr.as_ref(), Expr::Column(column) if column.relation.is_some() && column.name == alias.name))
        };
        let is_of_union = |node: &LogicalPlan| {
            Ok(match node {
                LogicalPlan::Union(_) => true,
                // What is left of one.
                LogicalPlan::Projection(projection) => projection.expr.iter().any(drops_qualifier),
                _ => false,
            })
        };
        match plan.exists(is_of_union)? {
            true => Ok(Transformed::no(plan)),
            false => self.0.rewrite(plan, config),
        }
    }
}

/// [`PushDownFilter`], whose conditions become flat, but what no column is in stays above an aggregate that gives a row
/// for no rows: below it, a filter that is never true would leave that row.
#[derive(Debug)]
struct FiltersAboveTotals;

impl OptimizerRule for FiltersAboveTotals {
    fn name(&self) -> &str {
        "push_down_filter_but_not_below_totals"
    }

    fn apply_order(&self) -> Option<ApplyOrder> {
        PushDownFilter::new().apply_order()
    }

    fn supports_rewrite(&self) -> bool {
        true
    }

    fn rewrite(&self, plan: LogicalPlan, config: &dyn OptimizerConfig) -> Result<Transformed<LogicalPlan>> {
        if let LogicalPlan::Filter(filter) = &plan
            && let LogicalPlan::Aggregate(aggregate) = filter.input.as_ref()
            && (aggregate.group_expr.is_empty() || matches!(aggregate.group_expr[..], [Expr::GroupingSet(_)]))
            && split_conjunction(&filter.predicate).iter().any(|part| part.column_refs().is_empty())
        {
            return Ok(Transformed::no(plan));
        }
        let pushed = PushDownFilter::new().rewrite(plan, config)?;
        if !pushed.transformed {
            return Ok(pushed);
        }
        let flat = pushed.data.transform_down(|node| match node {
            LogicalPlan::Filter(_) | LogicalPlan::Join(_) => node.map_expressions(|expr| Ok(balanced(expr))),
            other => Ok(Transformed::no(other)),
        })?;
        Ok(Transformed::new(flat.data, true, pushed.tnr))
    }
}

/// Sorts the rows of an aggregate (`first_value(a ORDER BY b, b)`, `DISTINCT ON`) by each expression once: aggregates
/// that keep states by group panic otherwise.
#[derive(Debug)]
struct SortKeysOnce;

impl OptimizerRule for SortKeysOnce {
    fn name(&self) -> &str {
        "sort_keys_once"
    }

    fn apply_order(&self) -> Option<ApplyOrder> {
        Some(ApplyOrder::TopDown)
    }

    fn supports_rewrite(&self) -> bool {
        true
    }

    fn rewrite(&self, plan: LogicalPlan, _config: &dyn OptimizerConfig) -> Result<Transformed<LogicalPlan>> {
        if !matches!(plan, LogicalPlan::Aggregate(_)) {
            return Ok(Transformed::no(plan));
        }
        map_keeping_names(plan, |expr| expr.transform_down(|expr| Ok(with_sort_keys_once(expr))))
    }
}

fn with_sort_keys_once(expr: Expr) -> Transformed<Expr> {
    let Expr::AggregateFunction(AggregateFunction { func, mut params }) = expr else { return Transformed::no(expr) };
    let before = params.order_by.len();
    let mut once = Vec::with_capacity(before);
    for key in params.order_by {
        if !once.iter().any(|other: &datafusion::logical_expr::SortExpr| other.expr == key.expr) {
            once.push(key);
        }
    }
    let changed = once.len() < before;
    params.order_by = once;
    Transformed::new_transformed(Expr::AggregateFunction(AggregateFunction { func, params }), changed)
}

/// Computes what windows are partitioned by below them where it is more than one expression and not all are columns.
///
/// DataFusion puts equal columns and constants in each other's place when it asks whether rows are sorted by an expression,
/// but not when it asks for the order of several: after `WHERE a = 10`, or a join on `a`, windows `PARTITION BY b % 10, c` fail
/// for want of an order that is there. Columns it finds both ways.
#[derive(Debug)]
struct PartitionsByColumns;

impl OptimizerRule for PartitionsByColumns {
    fn name(&self) -> &str {
        "partitions_by_columns"
    }

    fn apply_order(&self) -> Option<ApplyOrder> {
        Some(ApplyOrder::TopDown)
    }

    fn supports_rewrite(&self) -> bool {
        true
    }

    fn rewrite(&self, plan: LogicalPlan, _config: &dyn OptimizerConfig) -> Result<Transformed<LogicalPlan>> {
        let LogicalPlan::Window(window) = &plan else { return Ok(Transformed::no(plan)) };
        let mut computed: Vec<Expr> = Vec::new();
        for expr in &window.window_expr {
            let Expr::WindowFunction(function) = expr.clone().unalias_nested().data else { continue };
            let by = function.params.partition_by;
            if by.len() > 1 {
                let is_computed =
                    |key: &Expr| !matches!(key, Expr::Column(_) | Expr::Literal(..)) && !key.contains_outer();
                computed.extend(by.into_iter().filter(is_computed));
            }
        }
        if computed.is_empty() {
            return Ok(Transformed::no(plan));
        }
        let name = |at: usize| format!("{PARTITION}{at}");
        let columns = |schema: &DFSchema| schema.columns().into_iter().map(Expr::Column);
        let keys = computed.iter().enumerate().map(|(at, key)| key.clone().alias(name(at)));
        let below = columns(window.input.schema()).chain(keys);
        let input = LogicalPlanBuilder::from(Arc::clone(&window.input)).project(below)?.build()?;
        let names = NamePreserver::new(&plan);
        let to_column = |key: Expr| match computed.iter().position(|other| *other == key) {
            Some(at) => Expr::Column(Column::new_unqualified(name(at))),
            None => key,
        };
        let over_columns = |expr: &Expr| -> Result<Expr> {
            let saved = names.save(expr);
            let expr = expr.clone().transform_down(|part| match part {
                Expr::WindowFunction(mut function) => {
                    let params = &mut function.params;
                    params.partition_by = std::mem::take(&mut params.partition_by).into_iter().map(to_column).collect();
                    params.order_by.iter_mut().for_each(|key| key.expr = to_column(key.expr.clone()));
                    Ok(Transformed::yes(Expr::WindowFunction(function)))
                }
                part => Ok(Transformed::no(part)),
            })?;
            Ok(saved.restore(expr.data))
        };
        let exprs = window.window_expr.iter().map(over_columns).collect::<Result<Vec<_>>>()?;
        let over = LogicalPlan::Window(Window::try_new(exprs, Arc::new(input))?);
        let rows = LogicalPlanBuilder::from(over).project(columns(plan.schema()))?.build()?;
        Ok(Transformed::yes(rows))
    }
}
