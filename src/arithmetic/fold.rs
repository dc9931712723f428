//! Folding of constants that never wraps around.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use datafusion::common::tree_node::{Transformed, TreeNodeRecursion};
use datafusion::common::{Result, plan_err};
use datafusion::logical_expr::LogicalPlan;
use datafusion::optimizer::{ApplyOrder, OptimizerConfig, OptimizerRule};

use crate::arithmetic::checked::{
    has_arithmetic, map_keeping_names, schema_below, with_checked_operators, with_plain_operators,
};
use crate::arithmetic::compare::{exactly, has_timestamps};

/// What `fold` gives, or an error where it panics: DataFusion evaluates and shows constants, and some functions, or the text of
/// the first date of all, are not made for all values.
fn contained<T>(fold: impl FnOnce() -> Result<T>) -> Result<T> {
    catch_unwind(AssertUnwindSafe(fold)).unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<&str>().map(ToString::to_string).or(panic.downcast_ref::<String>().cloned());
        let text = text.unwrap_or_default();
        plan_err!(
            "a constant can't be evaluated, since it makes DataFusion panic ({text}); is it out of its type's range?"
        )
    })
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
            is_asked |= has_arithmetic(expr) || has_timestamps(expr);
            Ok(TreeNodeRecursion::Continue)
        })?;
        if !is_asked {
            return contained(|| self.rule.rewrite(plan, config));
        }
        let schema = schema_below(&plan)?;
        // Before, since DataFusion's own comparison is not exact, and after, since only then `now()` is a constant.
        let exactly = |expr| exactly(expr, &schema);
        let checked = |expr| exactly(expr)?.transform_data(|expr| with_checked_operators(expr, &schema));
        let plain = |expr| with_plain_operators(expr)?.transform_data(exactly);
        let checked = map_keeping_names(plan, checked)?.data;
        let Transformed { data, transformed, tnr } = contained(|| self.rule.rewrite(checked, config))?;
        Ok(Transformed::new(map_keeping_names(data, plain)?.data, transformed, tnr))
    }
}
