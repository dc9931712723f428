//! Numbers as they are written in a query.

use arrow::datatypes::{DECIMAL128_MAX_PRECISION, DataType};
use datafusion::common::ScalarValue;
use datafusion::common::tree_node::Transformed;
use datafusion::logical_expr::{Cast, Expr};

/// `expr` as a DOUBLE.
pub fn as_float(expr: Expr) -> Expr {
    written_as_float(Expr::Cast(Cast::new(Box::new(expr), DataType::Float64))).data
}

/// The float that a number says, which is written with so many digits that it is a decimal, in place of a cast to
/// DOUBLE: Arrow's rounds twice.
pub fn written_as_float(expr: Expr) -> Transformed<Expr> {
    let Expr::Cast(Cast { expr: decimal, field: float }) = &expr else { return Transformed::no(expr) };
    let Expr::Cast(Cast { expr: text, field: decimal }) = decimal.as_ref() else { return Transformed::no(expr) };
    let (Expr::Literal(text, _), DataType::Decimal128(precision, scale), DataType::Float64) =
        (text.as_ref(), decimal.data_type(), float.data_type())
    else {
        return Transformed::no(expr);
    };
    let text = text.try_as_str().flatten().unwrap_or_default();
    let digits = text.strip_prefix('-').unwrap_or(text);
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
    let is_digits = |digits: &str| digits.bytes().all(|byte| byte.is_ascii_digit());
    let is_kept = is_digits(whole)
        && is_digits(fraction)
        && fraction.len() as i64 <= i64::from(*scale)
        && whole.len() as i64 <= i64::from(*precision) - i64::from(*scale);
    match text.parse::<f64>() {
        Ok(value) if is_kept => Transformed::yes(Expr::Literal(ScalarValue::Float64(Some(value)), None)),
        _ => Transformed::no(expr),
    }
}

/// An integer that is written and cast to another width, as one of that width: what type `round` of a decimal gives is
/// known where its second argument is a literal.
pub fn written_as_integer(expr: Expr) -> Transformed<Expr> {
    let Expr::Cast(Cast { expr: written, field }) = &expr else { return written_as_float(expr) };
    let Expr::Literal(value, metadata) = written.as_ref() else { return written_as_float(expr) };
    if !value.data_type().is_integer() || !field.data_type().is_integer() {
        return Transformed::no(expr);
    }
    match value.cast_to(field.data_type()) {
        Ok(value) if !value.is_null() => Transformed::yes(Expr::Literal(value, metadata.clone())),
        _ => Transformed::no(expr),
    }
}

/// A written number as the decimal that it says: the shortest that is this float.
pub fn decimal_of(expr: &Expr) -> Option<ScalarValue> {
    let (expr, sign) = match expr {
        Expr::Negative(inner) => (inner.as_ref(), -1),
        other => (other, 1),
    };
    let Expr::Literal(ScalarValue::Float64(Some(value)), _) = expr else { return None };
    if !value.is_finite() {
        return None;
    }
    // Never with an exponent.
    let text = value.to_string();
    let (whole, fraction) = text.split_once('.').unwrap_or((&text, ""));
    let digits = format!("{whole}{fraction}");
    let value: i128 = digits.parse().ok()?;
    let precision = digits.trim_start_matches(['-', '0']).len().max(fraction.len()).max(1);
    let is_short = precision <= usize::from(DECIMAL128_MAX_PRECISION);
    is_short.then(|| ScalarValue::Decimal128(Some(sign * value), precision as u8, fraction.len() as i8))
}
