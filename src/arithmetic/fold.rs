//! Folding of constants that never wraps around.

use std::sync::Arc;

use datafusion::common::tree_node::{Transformed, TreeNodeRecursion};
use datafusion::common::{DFSchema, Result};
use datafusion::logical_expr::binary::BinaryTypeCoercer;
use datafusion::logical_expr::planner::{ExprPlanner, PlannerResult, RawBinaryExpr};
use datafusion::logical_expr::{ExprSchemable, LogicalPlan, Operator};
use datafusion::optimizer::{ApplyOrder, OptimizerConfig, OptimizerRule};
use sqlparser::ast::BinaryOperator;

use crate::arithmetic::checked::{
    has_arithmetic, is_constant, schema_below, with_checked_operators, with_plain_operators,
};
use crate::arithmetic::operator::{Operation, checked};

/// Plans operators over constants as checked ones.
///
/// DataFusion folds the arguments of table functions before anybody else sees them.
#[derive(Debug)]
pub struct CheckedConstants;

impl ExprPlanner for CheckedConstants {
    fn plan_binary_op(&self, expr: RawBinaryExpr, schema: &DFSchema) -> Result<PlannerResult<RawBinaryExpr>> {
        let operator = match expr.op {
            BinaryOperator::Plus => Operator::Plus,
            BinaryOperator::Minus => Operator::Minus,
            BinaryOperator::Multiply => Operator::Multiply,
            BinaryOperator::Divide => Operator::Divide,
            _ => return Ok(PlannerResult::Original(expr)),
        };
        if !is_constant(&expr.left) || !is_constant(&expr.right) {
            return Ok(PlannerResult::Original(expr));
        }
        let types = (expr.left.get_type(schema)?, expr.right.get_type(schema)?);
        // What can't be put together is an error of the type checker.
        let Ok((left, right)) = BinaryTypeCoercer::new(&types.0, &operator, &types.1).get_input_types() else {
            return Ok(PlannerResult::Original(expr));
        };
        let Some((operation, result)) = Operation::of(operator, &left, &right) else {
            return Ok(PlannerResult::Original(expr));
        };
        let args = vec![expr.left.cast_to(&left, schema)?, expr.right.cast_to(&right, schema)?];
        Ok(PlannerResult::Planned(checked(operation, args, result)))
    }
}

/// A rule that folds constants, over checked operators.
///
/// What the rule can't fold, since it overflows, stays in the plan as it is: an error in an expression that is never evaluated
/// is none.
#[derive(Debug)]
pub struct CheckedFolding {
    rule: Arc<dyn OptimizerRule + Send + Sync>,
}

impl CheckedFolding {
    /// `rule`, over checked operators.
    pub fn new(rule: Arc<dyn OptimizerRule + Send + Sync>) -> Self {
        Self { rule }
    }
}

impl OptimizerRule for CheckedFolding {
    fn name(&self) -> &str {
        self.rule.name()
    }

    fn apply_order(&self) -> Option<ApplyOrder> {
        self.rule.apply_order()
    }

    fn supports_rewrite(&self) -> bool {
        true
    }

    fn rewrite(&self, plan: LogicalPlan, config: &dyn OptimizerConfig) -> Result<Transformed<LogicalPlan>> {
        let mut is_asked = false;
        plan.apply_expressions(|expr| {
            is_asked |= has_arithmetic(expr);
            Ok(TreeNodeRecursion::Continue)
        })?;
        if !is_asked {
            return self.rule.rewrite(plan, config);
        }
        let schema = schema_below(&plan)?;
        let checked = plan.map_expressions(|expr| with_checked_operators(expr, &schema))?.data;
        let Transformed { data, transformed, tnr } = self.rule.rewrite(checked, config)?;
        let plain = data.map_expressions(with_plain_operators)?.data;
        Ok(Transformed::new(plain, transformed, tnr))
    }
}
