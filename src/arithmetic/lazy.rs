//! Conditions whose parts are evaluated only for the rows that the other parts leave open.
//!
//! DataFusion evaluates the right side of an AND for all rows of a batch, unless few of them pass the left side: whether
//! `a < 100 AND a * a < 50` fails for a large `a` would depend on what else is in its batch, and so on how a table is cut.
//! Here parts that can't fail come first, and the others become parts of a [`condition`].

use datafusion::common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion::common::{DFSchema, Result, internal_err};
use datafusion::execution::context::ExecutionProps;
use datafusion::logical_expr::expr::{AggregateFunction, Case};
use datafusion::logical_expr::{BinaryExpr, Expr, ExprSchemable, Operator};

use crate::arithmetic::cast::cast_may_fail;
use crate::arithmetic::chain::is_chain;
use crate::arithmetic::condition::{Asked, Junction, condition, is_condition};
use crate::arithmetic::function::may_fail as may_fail_itself;
use crate::arithmetic::interval::as_of_unit;
use crate::arithmetic::operator::as_checked;
use crate::arithmetic::terms::{terms, together};

/// The columns that expressions are over, and what their functions are planned with.
#[derive(Clone, Copy)]
pub struct Over<'a> {
    /// The columns.
    pub schema: &'a DFSchema,
    /// Settings and the time of a run.
    pub props: &'a ExecutionProps,
}

/// `expr`, its conditions evaluated as said above.
///
/// # Errors
/// DataFusion's, where an expression has no type.
pub fn lazily(expr: Expr, asked: Asked, over: Over<'_>) -> Result<Transformed<Expr>> {
    if expr.is_volatile() || !fails(&expr, over.schema)? {
        return Ok(Transformed::no(expr));
    }
    match asked {
        Asked::Truth => over.truth(expr),
        Asked::Value => over.value(expr),
    }
    .map(Transformed::yes)
}

/// Whether some part of an expression may fail.
///
/// # Errors
/// Never: DataFusion's visitors may.
pub fn fails(expr: &Expr, schema: &DFSchema) -> Result<bool> {
    expr.exists(|part| Ok(may_fail(part, schema)))
}

/// Whether an expression may fail for some rows, apart from its arguments.
fn may_fail(expr: &Expr, schema: &DFSchema) -> bool {
    match expr {
        Expr::BinaryExpr(BinaryExpr { left: _, op: Operator::Divide | Operator::Modulo, right }) => {
            !matches!(right.as_ref(), Expr::Literal(..))
        }
        // Texts that are not numbers, and numbers too large for integers. Of the other casts nearly none can fail, and
        // most conditions have some.
        Expr::Cast(cast) => {
            let to = cast.field.data_type();
            cast.expr
                .get_type(schema)
                .map_or(true, |from| (from.is_string() && !to.is_string()) || (from.is_floating() && to.is_integer()))
        }
        Expr::ScalarFunction(_) if as_of_unit(expr).is_some() => true,
        Expr::ScalarFunction(function) if cast_may_fail(function) || may_fail_itself(function, schema) => true,
        other => as_checked(other).is_some() || is_chain(other) || is_condition(other),
    }
}

impl Over<'_> {
    /// An expression whose value is asked.
    fn value(self, expr: Expr) -> Result<Expr> {
        let lazy = expr.transform_down(|part| {
            let part = match part {
                Expr::BinaryExpr(binary) if junction(binary.op).is_some() => self.in_order(binary, Asked::Value)?,
                Expr::Case(Case { expr: None, when_then_expr, else_expr }) => {
                    let branch = |(when, then): (Box<Expr>, Box<Expr>)| {
                        Ok((Box::new(self.truth(*when)?), Box::new(self.value(*then)?)))
                    };
                    let when_then_expr = when_then_expr.into_iter().map(branch).collect::<Result<_>>()?;
                    let else_expr = else_expr.map(|last| self.value(*last).map(Box::new)).transpose()?;
                    Expr::Case(Case { expr: None, when_then_expr, else_expr })
                }
                Expr::AggregateFunction(AggregateFunction { func, mut params }) => {
                    params.filter = params.filter.map(|filter| self.truth(*filter).map(Box::new)).transpose()?;
                    return Ok(Transformed::yes(Expr::AggregateFunction(AggregateFunction { func, params })));
                }
                other => return Ok(Transformed::no(other)),
            };
            Ok(Transformed::new(part, true, TreeNodeRecursion::Jump))
        })?;
        Ok(lazy.data)
    }

    /// A condition of which only the truth is asked.
    fn truth(self, expr: Expr) -> Result<Expr> {
        match expr {
            Expr::BinaryExpr(binary) if junction(binary.op).is_some() => self.in_order(binary, Asked::Truth),
            other => self.value(other),
        }
    }

    /// The parts of an AND or OR, those that can't fail before the others.
    fn in_order(self, BinaryExpr { left, op, right }: BinaryExpr, asked: Asked) -> Result<Expr> {
        let (mut safe, mut others) = (Vec::new(), Vec::new());
        for part in terms(op, *left, *right) {
            let part = match asked {
                Asked::Truth => self.truth(part)?,
                Asked::Value => self.value(part)?,
            };
            if fails(&part, self.schema)? { others.push(part) } else { safe.push(part) }
        }
        let safe = together(op, safe);
        match (safe, others.is_empty()) {
            (Some(safe), true) => Ok(safe),
            (safe, _) => {
                let Some(junction) = junction(op) else { return internal_err!("{op} is not AND or OR") };
                condition(junction, asked, safe.into_iter().chain(others).collect(), self.schema, self.props)
            }
        }
    }
}

fn junction(op: Operator) -> Option<Junction> {
    match op {
        Operator::And => Some(Junction::And),
        Operator::Or => Some(Junction::Or),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use arrow::datatypes::{DataType, Field, Schema};
    use datafusion::common::DFSchema;
    use datafusion::execution::context::ExecutionProps;
    use datafusion::logical_expr::{Expr, cast, col, lit, not, when};

    use super::{Over, lazily};
    use crate::arithmetic::checked::with_checked_operators;
    use crate::arithmetic::condition::Asked;

    #[test]
    fn what_may_fail_comes_last_and_is_part_of_a_function() {
        let columns = [("a", DataType::Int64), ("b", DataType::Int64), ("s", DataType::Utf8)];
        let columns = columns.map(|(name, data_type)| Field::new(name, data_type, true)).to_vec();
        let schema = DFSchema::try_from(Schema::new(columns)).unwrap();
        let props = ExecutionProps::new();
        let square = || (col("a") * col("a")).lt(lit(50i64));
        let (a, b) = (|| col("a").lt(lit(9i64)), || col("b").gt(lit(0i64)));
        let ratio = || (col("a") / col("b")).gt(lit(1i64));
        let number = || cast(col("s"), DataType::Int32).eq(lit(1));
        let cases: &[(Expr, Asked, &str)] = &[
            (a().and(b()), Asked::Truth, "a < 9 AND b > 0"),
            (square(), Asked::Truth, "a * a < 50"),
            (a().and(square()), Asked::Truth, "all_of(a < 9, a * a < 50)"),
            // What can't fail is asked first, and at once.
            (square().and(a()).and(ratio()).and(b()), Asked::Truth, "all_of(a < 9 AND b > 0, a * a < 50, a / b > 1)"),
            (a().or(square()), Asked::Truth, "any_of(a < 9, a * a < 50)"),
            (a().and(b().or(number())), Asked::Truth, "all_of(a < 9, any_of(b > 0, s = 1))"),
            (not(a().and(square())), Asked::Truth, "NOT all_of(a < 9, a * a < 50)"),
            (square().and(ratio()), Asked::Value, "all_of(a * a < 50, a / b > 1)"),
            (
                when(a().and(square()), lit(1)).end().unwrap(),
                Asked::Value,
                "CASE WHEN all_of(a < 9, a * a < 50) THEN 1 END",
            ),
        ];
        for (expr, asked, expected) in cases {
            let checked = with_checked_operators(expr.clone(), &schema).unwrap().data;
            let lazy = lazily(checked, *asked, Over { schema: &schema, props: &props }).unwrap().data;
            // Names have no casts. Literals without their types, and columns without the numbers of arguments.
            let mut shown = lazy.schema_name().to_string();
            for number in ["0", "1", "9", "50"] {
                shown = shown.replace(&format!("Int64({number})"), number).replace(&format!("Int32({number})"), number);
            }
            for at in 0..4 {
                shown = ["a", "b", "s"].iter().fold(shown, |shown, name| shown.replace(&format!("{at}.{name}"), name));
            }
            assert_eq!(&shown, expected, "{expr}");
        }
    }
}
