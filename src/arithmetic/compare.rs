//! Comparisons of dates and timestamps with constants, exact whatever their units.
//!
//! DataFusion compares in the finer of two units. A column of dates or of timestamps in microseconds then fails for the year
//! 9999, which nanoseconds don't reach; and where it takes the cast off the column again, it cuts digits off the constant: a
//! column in microseconds equals `TIMESTAMP '2024-01-01 00:00:00.0000001'`. Here a comparison is made in the unit of what is
//! compared, and says what the exact one would say.

use arrow::datatypes::{DataType, TimeUnit};
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::common::{DFSchema, Result, ScalarValue};
use datafusion::logical_expr::expr::{Between, InList};
use datafusion::logical_expr::{BinaryExpr, Cast, Expr, ExprSchemable, Operator, lit};

/// `expr` over `schema`, types already made equal, with exact comparisons.
///
/// # Errors
/// Never: DataFusion's visitors may.
pub fn exactly(expr: Expr, schema: &DFSchema) -> Result<Transformed<Expr>> {
    if !has_timestamps(&expr) {
        return Ok(Transformed::no(expr));
    }
    expr.transform_up(|part| {
        let exact = match &part {
            Expr::BinaryExpr(BinaryExpr { left, op, right }) => comparison(left, *op, right, schema),
            Expr::Between(between) => two_comparisons(between, schema),
            Expr::InList(list) => membership(list, schema),
            _ => None,
        };
        Ok(exact.map_or_else(|| Transformed::no(part), Transformed::yes))
    })
}

/// Whether an expression has a timestamp, as far as one is compared here.
pub fn has_timestamps(expr: &Expr) -> bool {
    let is_timestamp = |part: &Expr| {
        Ok(match part {
            Expr::Cast(cast) => matches!(cast.field.data_type(), DataType::Timestamp(..)),
            Expr::Literal(value, _) => matches!(value.data_type(), DataType::Timestamp(..)),
            _ => false,
        })
    };
    // The closure never fails.
    expr.exists(is_timestamp).unwrap_or(true)
}

/// A timestamp that is known while a query is planned, in nanoseconds, and its zone.
fn constant(expr: &Expr) -> Option<i128> {
    let value = match expr {
        Expr::Literal(value, _) => value.clone(),
        Expr::Cast(cast) => {
            let to = cast.field.data_type();
            match cast.expr.as_ref() {
                Expr::Literal(value, _) if value.data_type().is_string() => value.cast_to(to).ok()?,
                // The same moment in another unit, which need not fit.
                inner => return (zone_of(inner)? == zone(to)?).then(|| constant(inner)).flatten(),
            }
        }
        _ => return None,
    };
    match value {
        ScalarValue::TimestampSecond(Some(value), _) => Some(i128::from(value) * 1_000_000_000),
        ScalarValue::TimestampMillisecond(Some(value), _) => Some(i128::from(value) * 1_000_000),
        ScalarValue::TimestampMicrosecond(Some(value), _) => Some(i128::from(value) * 1_000),
        ScalarValue::TimestampNanosecond(Some(value), _) => Some(i128::from(value)),
        _ => None,
    }
}

/// Whether a constant timestamp is one of a type with a zone.
fn zone_of(constant: &Expr) -> Option<bool> {
    match constant {
        Expr::Literal(value, _) => zone(&value.data_type()),
        Expr::Cast(cast) => zone(cast.field.data_type()),
        _ => None,
    }
}

/// Whether a type of timestamps has a zone; `None` for another type.
fn zone(data_type: &DataType) -> Option<bool> {
    match data_type {
        DataType::Timestamp(_, zone) => Some(zone.is_some()),
        _ => None,
    }
}

/// Nanoseconds of a unit of dates or timestamps; `None` for another type.
pub fn unit(data_type: &DataType) -> Option<i128> {
    match data_type {
        DataType::Date32 => Some(86_400_000_000_000),
        DataType::Timestamp(TimeUnit::Second, _) => Some(1_000_000_000),
        DataType::Timestamp(TimeUnit::Millisecond, _) => Some(1_000_000),
        DataType::Timestamp(TimeUnit::Microsecond, _) => Some(1_000),
        DataType::Timestamp(TimeUnit::Nanosecond, _) => Some(1),
        _ => None,
    }
}

/// A number of units as a constant of the type.
fn of_units(units: i128, data_type: &DataType) -> Option<Expr> {
    let value = match data_type {
        DataType::Date32 => ScalarValue::Date32(Some(i32::try_from(units).ok()?)),
        DataType::Timestamp(unit, zone) => {
            let (units, zone) = (Some(i64::try_from(units).ok()?), zone.clone());
            match unit {
                TimeUnit::Second => ScalarValue::TimestampSecond(units, zone),
                TimeUnit::Millisecond => ScalarValue::TimestampMillisecond(units, zone),
                TimeUnit::Microsecond => ScalarValue::TimestampMicrosecond(units, zone),
                TimeUnit::Nanosecond => ScalarValue::TimestampNanosecond(units, zone),
            }
        }
        _ => return None,
    };
    Some(Expr::Literal(value, None))
}

/// What is compared, in a unit in which all its values and the constants are, and its type; `None` where DataFusion's comparison
/// is exact.
fn in_own_unit(compared: &Expr, constants: &[i128], schema: &DFSchema) -> Option<(Expr, DataType)> {
    if let Expr::Cast(Cast { expr, field }) = compared {
        let (from, to) = (expr.get_type(schema).ok()?, field.data_type());
        // A date is a wall time.
        let is_kept = zone(&from).unwrap_or(false) == zone(to)?;
        if is_kept && unit(&from)? > unit(to)? {
            return Some((expr.as_ref().clone(), from));
        }
    }
    // Beyond nanoseconds there are none of them: whether a constant is before or after is known in microseconds.
    let data_type = compared.get_type(schema).ok()?;
    let DataType::Timestamp(TimeUnit::Nanosecond, zone) = &data_type else { return None };
    if constants.iter().all(|constant| i64::try_from(*constant).is_ok()) {
        return None;
    }
    let coarser = DataType::Timestamp(TimeUnit::Microsecond, zone.clone());
    Some((Expr::Cast(Cast::new(Box::new(compared.clone()), coarser.clone())), coarser))
}

/// Whether an operator says how two values compare.
pub fn is_comparison(op: Operator) -> bool {
    matches!(
        op,
        Operator::Eq
            | Operator::NotEq
            | Operator::Lt
            | Operator::LtEq
            | Operator::Gt
            | Operator::GtEq
            | Operator::IsDistinctFrom
            | Operator::IsNotDistinctFrom
    )
}

/// A comparison with a constant.
fn comparison(left: &Expr, op: Operator, right: &Expr, schema: &DFSchema) -> Option<Expr> {
    if !is_comparison(op) {
        return None;
    }
    let (compared, op, constant) = match (constant(left), constant(right)) {
        (None, Some(constant)) => (left, op, constant),
        (Some(constant), None) => (right, op.swap()?, constant),
        _ => return None,
    };
    if compared.is_volatile() {
        return None;
    }
    let (compared, data_type) = in_own_unit(compared, &[constant], schema)?;
    let in_units = unit(&data_type)?;
    let (units, is_exact) = (constant.div_euclid(in_units), constant.rem_euclid(in_units) == 0);
    let units = of_units(units, &data_type)?;
    let compare = |op, other| Some(Expr::BinaryExpr(BinaryExpr::new(Box::new(compared.clone()), op, Box::new(other))));
    // Between two units, what is before the constant is the lower unit, or before that.
    match op {
        _ if is_exact => compare(op, units),
        Operator::Lt | Operator::LtEq => compare(Operator::LtEq, units),
        Operator::Gt | Operator::GtEq => compare(Operator::Gt, units),
        Operator::Eq => compare(Operator::NotEq, compared.clone()),
        Operator::NotEq => compare(Operator::Eq, compared.clone()),
        Operator::IsDistinctFrom => Some(lit(true)),
        Operator::IsNotDistinctFrom => Some(lit(false)),
        _ => None,
    }
}

fn two_comparisons(between: &Between, schema: &DFSchema) -> Option<Expr> {
    let Between { expr, negated, low, high } = between;
    let from = comparison(expr, Operator::GtEq, low, schema);
    let to = comparison(expr, Operator::LtEq, high, schema);
    if from.is_none() && to.is_none() {
        return None;
    }
    let plain = |op, other: &Expr| Expr::BinaryExpr(BinaryExpr::new(expr.clone(), op, Box::new(other.clone())));
    let both =
        from.unwrap_or_else(|| plain(Operator::GtEq, low)).and(to.unwrap_or_else(|| plain(Operator::LtEq, high)));
    Some(if *negated { Expr::Not(Box::new(both)) } else { both })
}

fn membership(list: &InList, schema: &DFSchema) -> Option<Expr> {
    let InList { expr, list, negated } = list;
    let constants = list.iter().map(constant).collect::<Option<Vec<_>>>()?;
    if expr.is_volatile() {
        return None;
    }
    let (compared, data_type) = in_own_unit(expr, &constants, schema)?;
    let in_units = unit(&data_type)?;
    // What lies between two units equals none.
    let exact = constants.iter().filter(|constant| constant.rem_euclid(in_units) == 0);
    let list: Vec<Expr> = exact.map(|constant| of_units(constant / in_units, &data_type)).collect::<Option<_>>()?;
    let never = if *negated { Operator::Eq } else { Operator::NotEq };
    Some(match list.is_empty() {
        true => Expr::BinaryExpr(BinaryExpr::new(Box::new(compared.clone()), never, Box::new(compared))),
        false => Expr::InList(InList { expr: Box::new(compared), list, negated: *negated }),
    })
}

#[cfg(test)]
mod tests {
    use arrow::array::{
        ArrayRef, AsArray, Date32Array, RecordBatch, TimestampMicrosecondArray, TimestampNanosecondArray,
    };
    use datafusion::common::DFSchema;
    use datafusion::logical_expr::ColumnarValue;
    use datafusion::optimizer::simplify_expressions::ExprSimplifier;
    use datafusion::prelude::SessionContext;
    use std::sync::Arc;

    /// For each row whether `condition` holds; `t` is false, `f` false, `-` NULL.
    fn holds(condition: &str) -> String {
        let day_us = 86_400_000_000;
        let columns: [(&str, ArrayRef); 3] = [
            // 2024-01-01, 9999-12-31, NULL and the day before 1970.
            ("d", Arc::new(Date32Array::from(vec![Some(19723), Some(2_932_896), None, Some(-1)]))),
            (
                "us",
                Arc::new(TimestampMicrosecondArray::from(vec![
                    Some(19723 * day_us),
                    Some(2_932_896 * day_us),
                    None,
                    Some(-1),
                ])),
            ),
            (
                "ns",
                Arc::new(TimestampNanosecondArray::from(vec![
                    Some(19723 * day_us * 1000),
                    Some(i64::MAX),
                    None,
                    Some(-1),
                ])),
            ),
        ];
        let batch = RecordBatch::try_from_iter_with_nullable(columns.map(|(name, array)| (name, array, true))).unwrap();
        let schema = DFSchema::try_from(batch.schema()).unwrap();
        let context = SessionContext::new();
        let expr = context.parse_sql_expr(condition, &schema).unwrap();
        let simplifier = ExprSimplifier::new(Default::default());
        let coerced = simplifier.coerce(expr, &schema).unwrap();
        let exact = super::exactly(coerced, &schema).unwrap().data;
        let physical = context.create_physical_expr(exact, &schema).unwrap();
        let ColumnarValue::Array(values) = physical.evaluate(&batch).unwrap() else { return "constant".into() };
        let sign = |value: Option<bool>| value.map_or('-', |holds| if holds { 't' } else { 'f' });
        values.as_boolean().iter().map(sign).collect()
    }

    #[test]
    fn a_comparison_says_what_the_exact_one_says() {
        let (day, between) = ("TIMESTAMP '2024-01-01'", "TIMESTAMP '2024-01-01 00:00:00.0000001'");
        let (far, odd) = ("TIMESTAMP(6) '9999-12-31'", "TIMESTAMP '1969-12-31 23:59:59.9999991'");
        for (condition, expected) in [
            (format!("d = {day}"), "tf-f"),
            (format!("d = {between}"), "ff-f"),
            (format!("d <> {between}"), "tt-t"),
            (format!("d < {between}"), "tf-t"),
            (format!("d >= {between}"), "ft-f"),
            (format!("{between} >= d"), "tf-t"),
            (format!("{day} < d"), "ft-f"),
            (format!("us = {between}"), "ff-f"),
            (format!("us <= {between}"), "tf-t"),
            (format!("us < {between}"), "tf-t"),
            (format!("us > {between}"), "ft-f"),
            (format!("us = {day}"), "tf-f"),
            (format!("us < {odd}"), "ff-t"),
            (format!("us >= {odd}"), "tt-f"),
            (format!("ns < {far}"), "tt-t"),
            (format!("ns = {far}"), "ff-f"),
            (format!("{far} > ns"), "tt-t"),
            (format!("ns >= {far}"), "ff-f"),
            (format!("d = {far}"), "ft-f"),
            (format!("d BETWEEN {between} AND {far}"), "ft-f"),
            (format!("d NOT BETWEEN {between} AND {far}"), "tf-t"),
            (format!("us BETWEEN {day} AND {far}"), "tt-f"),
            (format!("ns BETWEEN {day} AND {far}"), "tt-f"),
            (format!("us IN ({day}, {far})"), "tt-f"),
            (format!("us IN ({between}, {far})"), "ft-f"),
            (format!("us NOT IN ({between})"), "tt-t"),
            (format!("us IN ({between})"), "ff-f"),
            (format!("ns IN ({far}, {day})"), "tf-f"),
            (format!("d IN ({day})"), "tf-f"),
            (format!("us IS NOT DISTINCT FROM {day}"), "tfff"),
        ] {
            assert_eq!(holds(&condition), expected, "{condition}");
        }
    }
}
