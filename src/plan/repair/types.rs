//! Simplification that keeps the type of every column.

use std::sync::Arc;

use datafusion::common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion::common::{DFSchemaRef, Result};
use datafusion::logical_expr::{Expr, ExprSchemable, LogicalPlan, LogicalPlanBuilder};
use datafusion::optimizer::analyzer::type_coercion::TypeCoercionRewriter;
use datafusion::optimizer::{ApplyOrder, OptimizerConfig, OptimizerRule};

use crate::arithmetic::checked::{map_keeping_names, schema_below};

/// A rule that simplifies expressions, after which every column has the type that it had before.
///
/// The type of some functions depends on whether an argument is a literal: `round(x, CAST(1 AS INT))` of a
/// `DECIMAL(25, 2)` is a `DECIMAL(26, 2)`, and a `DECIMAL(25, 1)` once the cast is folded. DataFusion folds it and
/// leaves the schema as it was, so that the rows that come are of another type than the plan says, or operators fail
/// that compare the two.
#[derive(Debug)]
pub struct TypesKept {
    rule: Arc<dyn OptimizerRule + Send + Sync>,
}

impl TypesKept {
    /// `rule`, whose plans have the types that they had before.
    pub fn new(rule: Arc<dyn OptimizerRule + Send + Sync>) -> Self {
        Self { rule }
    }
}

impl OptimizerRule for TypesKept {
    fn name(&self) -> &str {
        "simplify_expressions_and_keep_types"
    }

    fn apply_order(&self) -> Option<ApplyOrder> {
        self.rule.apply_order()
    }

    fn supports_rewrite(&self) -> bool {
        true
    }

    fn rewrite(&self, plan: LogicalPlan, config: &dyn OptimizerConfig) -> Result<Transformed<LogicalPlan>> {
        let (before, calls) = (Arc::clone(plan.schema()), calls_functions(&plan)?);
        let simplified = self.rule.rewrite(plan, config)?;
        match simplified.transformed && calls {
            true => simplified.map_data(|plan| with_types(coerced(plan)?, &before)),
            false => Ok(simplified),
        }
    }
}

/// Whether the type of some part of a plan's expressions may depend on what is a literal.
fn calls_functions(plan: &LogicalPlan) -> Result<bool> {
    let mut found = false;
    plan.apply_expressions(|expr| {
        found = found
            || expr.exists(|part| {
                Ok(matches!(
                    part,
                    Expr::ScalarFunction(_)
                        | Expr::AggregateFunction(_)
                        | Expr::WindowFunction(_)
                        | Expr::HigherOrderFunction(_)
                ))
            })?;
        Ok(TreeNodeRecursion::Continue)
    })?;
    Ok(found)
}

/// The plan with the operands of its expressions coerced again, where folding a part changed that part's type.
fn coerced(plan: LogicalPlan) -> Result<LogicalPlan> {
    let schema = schema_below(&plan)?;
    let coerced = map_keeping_names(plan, |expr| expr.rewrite(&mut TypeCoercionRewriter::new(&schema)))?;
    coerced.data.recompute_schema()
}

/// The plan below casts of those columns that have another type than in `before`.
fn with_types(plan: LogicalPlan, before: &DFSchemaRef) -> Result<LogicalPlan> {
    let is_kept = |(now, was): (&_, &_)| same_type(now, was);
    if plan.schema().fields().iter().zip(before.fields()).all(is_kept) {
        return Ok(plan);
    }
    let schema = Arc::clone(plan.schema());
    let columns = schema.columns().into_iter().zip(before.iter()).map(|(column, (qualifier, field))| {
        let expr = Expr::Column(column).cast_to(field.data_type(), &schema)?;
        Ok(expr.alias_qualified(qualifier.cloned(), field.name()))
    });
    LogicalPlanBuilder::from(plan).project(columns.collect::<Result<Vec<_>>>()?)?.build()
}

fn same_type(now: &arrow::datatypes::FieldRef, was: &arrow::datatypes::FieldRef) -> bool {
    now.data_type() == was.data_type()
}
