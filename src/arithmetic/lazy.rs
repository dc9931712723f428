//! Conditions whose later parts are evaluated only for the rows that the earlier ones leave open.
//!
//! DataFusion evaluates the right side of an AND for all rows of a batch, unless few of them pass the left side: whether
//! `a < 100 AND a * a < 50` fails for a large `a` would depend on what else is in its batch, and so on how a table is cut.
//! Here parts that can't fail come first, and each of the others is evaluated for the rows for which it decides.

use datafusion::common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion::common::{DFSchema, Result};
use datafusion::logical_expr::expr::{AggregateFunction, Case};
use datafusion::logical_expr::{BinaryExpr, Expr, ExprSchemable, Operator, lit};

use crate::arithmetic::operator::as_checked;

/// What is asked of a condition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Asked {
    /// Only whether it is true: NULL is as good as false.
    Truth,
    /// Whether it is true, false or NULL.
    Value,
}

/// `expr` over `schema`, its conditions evaluated as said above.
///
/// # Errors
/// Never: DataFusion's visitors may.
pub fn lazily(expr: Expr, asked: Asked, schema: &DFSchema) -> Result<Transformed<Expr>> {
    if expr.is_volatile() || !fails(&expr, schema)? {
        return Ok(Transformed::no(expr));
    }
    let lazy = match asked {
        Asked::Truth => truth(expr, schema, 0),
        Asked::Value => value(expr, schema),
    };
    lazy.map(Transformed::yes)
}

/// Whether some part of an expression may fail.
fn fails(expr: &Expr, schema: &DFSchema) -> Result<bool> {
    expr.exists(|part| Ok(may_fail(part, schema)))
}

/// Whether an expression may fail for some rows, apart from its arguments.
fn may_fail(expr: &Expr, schema: &DFSchema) -> bool {
    match expr {
        Expr::BinaryExpr(BinaryExpr { left: _, op: Operator::Divide | Operator::Modulo, right }) => {
            !matches!(right.as_ref(), Expr::Literal(..))
        }
        // Texts that are no numbers, and numbers too large for integers. Of the other casts nearly none can fail, and most
        // conditions have some.
        Expr::Cast(cast) => {
            let to = cast.field.data_type();
            cast.expr
                .get_type(schema)
                .map_or(true, |from| (from.is_string() && !to.is_string()) || (from.is_floating() && to.is_integer()))
        }
        other => as_checked(other).is_some(),
    }
}

/// An expression whose value is asked.
fn value(expr: Expr, schema: &DFSchema) -> Result<Expr> {
    let lazy = expr.transform_down(|part| {
        let part = match part {
            Expr::BinaryExpr(BinaryExpr { left, op: op @ (Operator::And | Operator::Or), right }) => {
                let (safe, others) = by_safety(parts(op, *left, *right), schema)?;
                let others = others.into_iter().map(|part| value(part, schema)).collect::<Result<_>>()?;
                in_order(op, Asked::Value, safe, others)
            }
            Expr::Case(Case { expr: None, when_then_expr, else_expr }) => {
                let branch = |(when, then): (Box<Expr>, Box<Expr>)| {
                    Ok((Box::new(truth(*when, schema, 0)?), Box::new(value(*then, schema)?)))
                };
                let when_then_expr = when_then_expr.into_iter().map(branch).collect::<Result<_>>()?;
                let else_expr = else_expr.map(|last| value(*last, schema).map(Box::new)).transpose()?;
                Expr::Case(Case { expr: None, when_then_expr, else_expr })
            }
            Expr::AggregateFunction(AggregateFunction { func, mut params }) => {
                params.filter = params.filter.map(|filter| truth(*filter, schema, 0).map(Box::new)).transpose()?;
                return Ok(Transformed::yes(Expr::AggregateFunction(AggregateFunction { func, params })));
            }
            other => return Ok(Transformed::no(other)),
        };
        Ok(Transformed::new(part, true, TreeNodeRecursion::Jump))
    })?;
    Ok(lazy.data)
}

/// A condition of which only the truth is asked.
fn truth(expr: Expr, schema: &DFSchema, depth: usize) -> Result<Expr> {
    /// Deeper than anybody writes; what is below is evaluated as well, only with more work.
    const DEEPEST: usize = 50;
    match expr {
        Expr::BinaryExpr(BinaryExpr { left, op: op @ (Operator::And | Operator::Or), right }) if depth < DEEPEST => {
            let (safe, others) = by_safety(parts(op, *left, *right), schema)?;
            let others = others.into_iter().map(|part| truth(part, schema, depth + 1)).collect::<Result<_>>()?;
            Ok(in_order(op, Asked::Truth, safe, others))
        }
        other => value(other, schema),
    }
}

/// The parts that can't fail, and the others.
fn by_safety(parts: Vec<Expr>, schema: &DFSchema) -> Result<(Vec<Expr>, Vec<Expr>)> {
    let (mut safe, mut others) = (Vec::new(), Vec::new());
    for part in parts {
        if fails(&part, schema)? { others.push(part) } else { safe.push(part) }
    }
    Ok((safe, others))
}

/// The parts that `op` puts together, in order, however they are nested.
fn parts(op: Operator, left: Expr, right: Expr) -> Vec<Expr> {
    let (mut found, mut pending) = (Vec::new(), vec![right, left]);
    while let Some(part) = pending.pop() {
        match part {
            Expr::BinaryExpr(BinaryExpr { left, op: inner, right }) if inner == op => pending.extend([*right, *left]),
            other => found.push(other),
        }
    }
    found
}

/// `safe` parts and then `others`, put together by AND or OR, from the last to the first.
fn in_order(op: Operator, asked: Asked, safe: Vec<Expr>, others: Vec<Expr>) -> Expr {
    let binary = |left: Expr, right: Expr| Expr::BinaryExpr(BinaryExpr::new(Box::new(left), op, Box::new(right)));
    let together = safe.into_iter().reduce(binary);
    let parts: Vec<Expr> = together.into_iter().chain(others).collect();
    let lazy = parts.into_iter().rev().reduce(|rest, first| match (asked, op) {
        (Asked::Truth, Operator::And) => case(first, rest, lit(false)),
        (Asked::Truth, _) => case(first, lit(true), rest),
        // Where the first part decides, any value will do but NULL, which would make a column nullable that is not.
        (Asked::Value, Operator::And) => {
            binary(first.clone(), case(Expr::IsNotFalse(Box::new(first)), rest, lit(false)))
        }
        (Asked::Value, _) => binary(first.clone(), case(Expr::IsNotTrue(Box::new(first)), rest, lit(true))),
    });
    lazy.unwrap_or_else(|| lit(op == Operator::And))
}

fn case(when: Expr, then: Expr, otherwise: Expr) -> Expr {
    let when_then_expr = vec![(Box::new(when), Box::new(then))];
    Expr::Case(Case { expr: None, when_then_expr, else_expr: Some(Box::new(otherwise)) })
}

#[cfg(test)]
mod tests {
    use arrow::datatypes::{DataType, Field, Schema};
    use datafusion::common::DFSchema;
    use datafusion::logical_expr::{Expr, cast, col, lit, not, when};

    use super::{Asked, lazily};
    use crate::arithmetic::checked::with_checked_operators;

    #[test]
    fn what_may_fail_comes_last_and_only_where_it_decides() {
        let columns = [("a", DataType::Int64), ("b", DataType::Int64), ("s", DataType::Utf8)];
        let columns = columns.map(|(name, data_type)| Field::new(name, data_type, true)).to_vec();
        let schema = DFSchema::try_from(Schema::new(columns)).unwrap();
        let square = || (col("a") * col("a")).lt(lit(50i64));
        let (a, b) = (|| col("a").lt(lit(9i64)), || col("b").gt(lit(0i64)));
        let ratio = || (col("a") / col("b")).gt(lit(1i64));
        let number = || cast(col("s"), DataType::Int32).eq(lit(1));
        let cases: &[(Expr, Asked, &str)] = &[
            (a().and(b()), Asked::Truth, "a < 9 AND b > 0"),
            (square(), Asked::Truth, "a * a < 50"),
            (a().and(square()), Asked::Truth, "CASE WHEN a < 9 THEN a * a < 50 ELSE false END"),
            // What can't fail is asked first, the others in their order.
            (
                square().and(a()).and(ratio()).and(b()),
                Asked::Truth,
                "CASE WHEN a < 9 AND b > 0 THEN CASE WHEN a * a < 50 THEN a / b > 1 ELSE false END ELSE false END",
            ),
            (a().or(square()), Asked::Truth, "CASE WHEN a < 9 THEN true ELSE a * a < 50 END"),
            (
                a().and(b().or(number())),
                Asked::Truth,
                "CASE WHEN a < 9 THEN CASE WHEN b > 0 THEN true ELSE CAST(s AS Int32) = 1 END ELSE false END",
            ),
            // Where NULL is not false, too.
            (a().and(square()), Asked::Value, "a < 9 AND CASE WHEN a < 9 IS NOT FALSE THEN a * a < 50 ELSE false END"),
            (a().or(square()), Asked::Value, "a < 9 OR CASE WHEN a < 9 IS NOT TRUE THEN a * a < 50 ELSE true END"),
            (
                not(a().and(square())),
                Asked::Truth,
                "NOT a < 9 AND CASE WHEN a < 9 IS NOT FALSE THEN a * a < 50 ELSE false END",
            ),
            (
                square().and(ratio()),
                Asked::Value,
                "a * a < 50 AND CASE WHEN a * a < 50 IS NOT FALSE THEN a / b > 1 ELSE false END",
            ),
            (
                when(a().and(square()), lit(1)).end().unwrap(),
                Asked::Value,
                "CASE WHEN CASE WHEN a < 9 THEN a * a < 50 ELSE false END THEN 1 END",
            ),
        ];
        for (expr, asked, expected) in cases {
            let checked = with_checked_operators(expr.clone(), &schema).unwrap().data;
            let lazy = lazily(checked, *asked, &schema).unwrap().data;
            let shown = crate::arithmetic::checked::with_plain_operators(lazy).unwrap().data.to_string();
            let shown = ["Int64", "Int32", "Boolean"].iter().fold(shown, |text, name| {
                let literal = |part: &str| part.split_once(')').map(|(value, rest)| format!("{value}{rest}"));
                let parts: Vec<&str> = text.split(&format!("{name}(")).collect();
                let rest = parts[1..].iter().map(|part| literal(part).unwrap());
                std::iter::once(parts[0].to_string()).chain(rest).collect()
            });
            assert_eq!(&shown, expected, "{expr}");
        }
    }
}
