//! Simplification that keeps what is NULL.

use std::collections::{HashMap, HashSet};
use std::ops::RangeInclusive;
use std::sync::Arc;

use arrow::datatypes::{DataType, FieldRef};
use datafusion::common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion::common::{DFSchema, Result, ScalarValue, exec_err};
use datafusion::logical_expr::expr::{Between, InList, ScalarFunction};
use datafusion::logical_expr::{
    BinaryExpr, ColumnarValue, Expr, ExprSchemable, LogicalPlan, Operator, ReturnFieldArgs, ScalarFunctionArgs,
    ScalarUDF, ScalarUDFImpl, Signature, Volatility, lit,
};
use datafusion::optimizer::{ApplyOrder, OptimizerConfig, OptimizerRule};

use crate::arithmetic::checked::map_keeping_names;

/// A pattern that DataFusion takes for `IS NOT NULL`, and one that means the same and stays what it is.
const ANY_TEXT: &str = ".*";
const ANY_TEXT_TOO: &str = "";
/// Years of which timestamps in nanoseconds have all days, and the days around them.
const NEAR_YEARS: RangeInclusive<i64> = 1679..=2260;

/// A rule that simplifies expressions, without what DataFusion 55 does wrong with NULLs:
///
/// - It merges two lists that a value must, or must not, be in, and an empty one into `false` or `true`. But
///   `x NOT IN (1) OR x NOT IN (2)` is not true where `x` is NULL, and a NULL in one of the lists is lost.
/// - It takes `x ~ '.*'` for false and `x ^ x` for 0 where `x` is NULL.
/// - It makes `date_part('year', x) > 1600` a comparison with a timestamp, which is NULL for years beyond nanoseconds.
#[derive(Debug)]
pub struct NullsKept {
    rule: Arc<dyn OptimizerRule + Send + Sync>,
}

impl NullsKept {
    /// `rule`, without that.
    pub fn new(rule: Arc<dyn OptimizerRule + Send + Sync>) -> Self {
        Self { rule }
    }
}

impl OptimizerRule for NullsKept {
    fn name(&self) -> &str {
        "simplify_expressions_and_keep_nulls"
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
            is_asked |= expr.exists(|part| Ok(is_any_text(part) || is_xor(part) || is_far_year(part)))?
                || !in_several_lists(expr)?.is_empty();
            Ok(TreeNodeRecursion::Continue)
        })?;
        if !is_asked {
            return self.rule.rewrite(plan, config);
        }
        let apart = map_keeping_names(plan, |expr| {
            let several = in_several_lists(&expr)?;
            let mut count = 0;
            expr.transform_up(|part| Ok(Transformed::yes(set_apart(part, &several, &mut count))))
        })?;
        let Transformed { data, transformed, tnr } = self.rule.rewrite(apart.data, config)?;
        let together = map_keeping_names(data, |expr| expr.transform_up(|part| Ok(put_back(part))))?;
        Ok(Transformed::new(together.data, transformed, tnr))
    }
}

/// What is looked for in several lists of an expression. `x = 1 OR x = 2` is one, too.
fn in_several_lists(expr: &Expr) -> Result<HashSet<Expr>> {
    let mut lists: HashMap<&Expr, usize> = HashMap::new();
    let mut equalities: HashMap<&Expr, usize> = HashMap::new();
    let mut alternatives = 0;
    expr.apply(|part| {
        match part {
            Expr::InList(InList { expr, .. }) => *lists.entry(expr).or_default() += 1,
            Expr::BinaryExpr(BinaryExpr { left, op: Operator::Or, right }) => {
                alternatives += 1;
                for side in [left.as_ref(), right.as_ref()] {
                    alternatives -= i32::from(is_or(side));
                    if let Some(column) = as_equality(side) {
                        *equalities.entry(column).or_default() += 1;
                    }
                }
            }
            _ => {}
        }
        Ok(TreeNodeRecursion::Continue)
    })?;
    for (column, count) in equalities.into_iter().filter(|(_, count)| *count > 1) {
        *lists.entry(column).or_default() += if alternatives > 1 { count } else { 1 };
    }
    Ok(lists.into_iter().filter(|(_, count)| *count > 1).map(|(expr, _)| expr.clone()).collect())
}

fn is_year(expr: &Expr) -> bool {
    match expr {
        Expr::Cast(cast) => is_year(&cast.expr),
        Expr::ScalarFunction(call) if call.func.name() == "date_part" => {
            let part = call.args.first().and_then(as_literal).and_then(ScalarValue::try_as_str).flatten();
            part.is_some_and(|part| part.to_lowercase().starts_with("year"))
        }
        _ => false,
    }
}

/// Whether the year of something is compared with one that timestamps in nanoseconds may not reach.
fn is_far_year(part: &Expr) -> bool {
    let is_far = |expr: &Expr| {
        let year = as_literal(expr).and_then(|value| value.cast_to(&DataType::Int64).ok());
        year.is_some_and(|year| !matches!(year, ScalarValue::Int64(Some(year)) if NEAR_YEARS.contains(&year)))
    };
    match part {
        Expr::BinaryExpr(BinaryExpr { left, op: _, right }) => {
            (is_year(left) && is_far(right)) || (is_far(left) && is_year(right))
        }
        Expr::InList(InList { expr, list, .. }) => is_year(expr) && list.iter().any(is_far),
        Expr::Between(Between { expr, low, high, .. }) => is_year(expr) && (is_far(low) || is_far(high)),
        _ => false,
    }
}

fn is_xor(expr: &Expr) -> bool {
    matches!(expr, Expr::BinaryExpr(BinaryExpr { op: Operator::BitwiseXor, .. }))
}

fn is_or(expr: &Expr) -> bool {
    matches!(expr, Expr::BinaryExpr(BinaryExpr { op: Operator::Or, .. }))
}

/// The column of `column = literal`.
fn as_equality(expr: &Expr) -> Option<&Expr> {
    let Expr::BinaryExpr(BinaryExpr { left, op: Operator::Eq, right }) = expr else { return None };
    match (left.as_ref(), right.as_ref()) {
        (column @ Expr::Column(_), other) | (other, column @ Expr::Column(_)) => as_literal(other).map(|_| column),
        _ => None,
    }
}

/// A constant, also below a cast that is folded later.
fn as_literal(expr: &Expr) -> Option<&ScalarValue> {
    match expr {
        Expr::Literal(value, _) => Some(value),
        Expr::Cast(cast) => as_literal(&cast.expr),
        _ => None,
    }
}

/// Whether a text is compared with the pattern of all texts.
fn is_any_text(expr: &Expr) -> bool {
    let is_pattern = |expr: &Expr| as_literal(expr).is_some_and(|value| value.try_as_str() == Some(Some(ANY_TEXT)));
    match expr {
        Expr::BinaryExpr(BinaryExpr { op, right, .. }) => {
            matches!(op, Operator::RegexMatch | Operator::RegexIMatch) && is_pattern(right)
        }
        Expr::ScalarFunction(call) => call.func.name() == "regexp_like" && call.args.get(1).is_some_and(is_pattern),
        _ => false,
    }
}

/// `part` in a form that DataFusion puts together with nothing else.
fn set_apart(part: Expr, several: &HashSet<Expr>, count: &mut i64) -> Expr {
    let always = is_xor(&part) || is_far_year(&part);
    let mut apart = |expr: Box<Expr>| match always || several.contains(&expr) {
        true => {
            *count += 1;
            Box::new(ScalarUDF::new_from_impl(Apart::new()).call(vec![*expr, lit(*count)]))
        }
        false => expr,
    };
    let is_equality = as_equality(&part).is_some();
    let is_any_text = is_any_text(&part);
    match part {
        Expr::InList(InList { expr, list, negated }) => Expr::InList(InList { expr: apart(expr), list, negated }),
        Expr::Between(Between { expr, negated, low, high }) if always => {
            Expr::Between(Between { expr: apart(expr), negated, low, high })
        }
        Expr::BinaryExpr(BinaryExpr { left, op, right }) if always || is_equality => {
            Expr::BinaryExpr(BinaryExpr { left: apart(left), op, right: apart(right) })
        }
        Expr::BinaryExpr(BinaryExpr { left, op, right }) if is_any_text => {
            Expr::BinaryExpr(BinaryExpr { left, op, right: Box::new(any_text(&right)) })
        }
        Expr::ScalarFunction(ScalarFunction { func, mut args }) if is_any_text => {
            if let Some(pattern) = args.get_mut(1) {
                *pattern = any_text(pattern);
            }
            Expr::ScalarFunction(ScalarFunction { func, args })
        }
        other => other,
    }
}

/// The other pattern of all texts, of the type of this one.
fn any_text(pattern: &Expr) -> Expr {
    let text = ScalarValue::from(ANY_TEXT_TOO);
    let data_type = pattern.get_type(&DFSchema::empty()).unwrap_or_else(|_| text.data_type());
    lit(text.cast_to(&data_type).unwrap_or(text))
}

fn put_back(part: Expr) -> Transformed<Expr> {
    match part {
        Expr::ScalarFunction(ScalarFunction { func, mut args }) if func.inner().is::<Apart>() => {
            Transformed::yes(args.swap_remove(0))
        }
        other => Transformed::no(other),
    }
}

/// Its first argument, under a number of its own.
#[derive(Debug, PartialEq, Eq, Hash)]
struct Apart {
    signature: Signature,
}

impl Apart {
    fn new() -> Self {
        Self { signature: Signature::any(2, Volatility::Immutable) }
    }
}

impl ScalarUDFImpl for Apart {
    fn name(&self) -> &str {
        "apart"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, types: &[DataType]) -> Result<DataType> {
        let [data_type, _] = types else { return exec_err!("{} takes a value and a number", self.name()) };
        Ok(data_type.clone())
    }

    fn return_field_from_args(&self, args: ReturnFieldArgs) -> Result<FieldRef> {
        let [field, _] = args.arg_fields else { return exec_err!("{} takes a value and a number", self.name()) };
        Ok(Arc::clone(field))
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let [value, _] = args.args.as_slice() else { return exec_err!("{} takes a value and a number", self.name()) };
        Ok(value.clone())
    }
}
