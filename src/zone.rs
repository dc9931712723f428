//! What SQL says of time zones, as PostgreSQL and DuckDB mean it.
//!
//! | SQL | DataFusion 55 | here |
//! |---|---|---|
//! | an instant `AT TIME ZONE 'Europe/Berlin'` | the same instant, shown in Berlin | Berlin's wall time |
//! | a wall time `AT TIME ZONE 'Europe/Berlin'` | the instant; an error where it is there twice, or not at all | the instant |
//! | `CAST(an instant AS TIMESTAMP)` | the wall time of UTC | the wall time of its own zone |
//! | `TIMESTAMPTZ '…'`, `CAST(… AS TIMESTAMPTZ)` | a wall time without a zone | an instant, shown in UTC |
//!
//! An *instant* is a timestamp whose type has a zone. All else that DataFusion makes of instants (`date_trunc`, `extract`,
//! `to_char`, casts to DATE and TIME) is by the wall time of their zone, as it should be.
//!
//! Queries are rewritten before they are planned: afterwards nobody can tell AT TIME ZONE from a cast. So plans that Rust makes
//! keep the meaning of Arrow's casts.

mod function;

use std::ops::ControlFlow;
use std::sync::Arc;

use arrow::datatypes::{DataType, Field, FieldRef, TimeUnit};
use datafusion::common::{Result, ScalarValue};
use datafusion::logical_expr::ScalarUDF;
use datafusion::logical_expr::planner::TypePlanner;
use sqlparser::ast::{
    CastKind, DataType as SqlType, Expr, Function, FunctionArg, FunctionArgExpr, FunctionArgumentList,
    FunctionArguments, Ident, ObjectName, TimezoneInfo, TypedString, Value, VisitMut, visit_expressions_mut,
};

use crate::zone::function::{AtTimeZone, LocalTime};

/// Functions of DataFusion that make a timestamp of anything, an instant included.
const TO_TIMESTAMP: [&str; 5] =
    ["to_timestamp", "to_timestamp_micros", "to_timestamp_millis", "to_timestamp_nanos", "to_timestamp_seconds"];

/// Functions that give the time.
const NOW: [&str; 2] = ["now", "current_timestamp"];

/// The functions that queries are rewritten with.
pub fn functions() -> [ScalarUDF; 2] {
    [ScalarUDF::new_from_impl(AtTimeZone::default()), ScalarUDF::new_from_impl(LocalTime::default())]
}

/// Rewrites what a query or statement says of timestamps into what DataFusion understands alike.
///
/// Besides zones: `TIMESTAMP '9999-12-31'` is a timestamp in microseconds where DataFusion would have nanoseconds, which end in
/// the year 2262.
pub fn rewrite(sql: &mut impl VisitMut) {
    // The closure never breaks.
    let _: ControlFlow<()> = visit_expressions_mut(sql, |expr| {
        rewrite_expr(expr);
        ControlFlow::Continue(())
    });
}

fn rewrite_expr(expr: &mut Expr) {
    match expr {
        Expr::AtTimeZone { timestamp, time_zone } => {
            let mut timestamp = take(timestamp);
            // DataFusion's are wall times of UTC.
            if matches!(&timestamp, Expr::Function(function) if is_one_of(&function.name, &NOW)) {
                let (kind, array, format) = (CastKind::Cast, false, None);
                let data_type = SqlType::Timestamp(None, TimezoneInfo::Tz);
                timestamp = Expr::Cast { kind, expr: Box::new(timestamp), data_type, array, format };
            }
            *expr = call(AtTimeZone::NAME, vec![timestamp, take(time_zone)]);
        }
        Expr::Cast { kind: _, expr: value, data_type, array: false, format: None } => {
            if let Expr::Value(literal) = value.as_ref() {
                if let Value::SingleQuotedString(text) = &literal.value {
                    widen(text, data_type);
                }
            } else if matches!(data_type, SqlType::Timestamp(_, TimezoneInfo::None | TimezoneInfo::WithoutTimeZone)) {
                **value = call(LocalTime::NAME, vec![take(value)]);
            }
        }
        Expr::TypedString(TypedString { data_type, value, uses_odbc_syntax: _ }) => {
            if let Value::SingleQuotedString(text) = &value.value {
                widen(text, data_type);
            }
        }
        Expr::Function(Function { name, args: FunctionArguments::List(list), .. })
            if is_one_of(name, &TO_TIMESTAMP) && list.args.len() == 1 =>
        {
            if let Some(FunctionArg::Unnamed(FunctionArgExpr::Expr(value))) = list.args.first_mut()
                && !matches!(value, Expr::Value(_))
            {
                *value = call(LocalTime::NAME, vec![take(value)]);
            }
        }
        _ => {}
    }
}

/// Makes a type of timestamps in nanoseconds, as which it was not written, one in microseconds if `text` needs it.
fn widen(text: &str, data_type: &mut SqlType) {
    let SqlType::Timestamp(precision @ None, _) = data_type else { return };
    let fits = |unit| ScalarValue::from(text).cast_to(&DataType::Timestamp(unit, None)).is_ok();
    if !fits(TimeUnit::Nanosecond) && fits(TimeUnit::Microsecond) {
        *precision = Some(6);
    }
}

fn is_one_of(name: &ObjectName, names: &[&str]) -> bool {
    match name.0.as_slice() {
        [part] => part.as_ident().is_some_and(|ident| names.iter().any(|name| ident.value.eq_ignore_ascii_case(name))),
        _ => false,
    }
}

/// The expression, which is about to be put elsewhere.
fn take(expr: &mut Expr) -> Expr {
    std::mem::replace(expr, Expr::Identifier(Ident::new("")))
}

fn call(name: &str, args: Vec<Expr>) -> Expr {
    let args = args.into_iter().map(|arg| FunctionArg::Unnamed(FunctionArgExpr::Expr(arg))).collect();
    Expr::Function(Function {
        name: ObjectName::from(vec![Ident::new(name)]),
        uses_odbc_syntax: false,
        parameters: FunctionArguments::None,
        args: FunctionArguments::List(FunctionArgumentList { duplicate_treatment: None, args, clauses: Vec::new() }),
        filter: None,
        null_treatment: None,
        over: None,
        within_group: Vec::new(),
    })
}

/// Plans `TIMESTAMPTZ` as an instant that is shown in UTC, which is the zone of all sessions.
#[derive(Debug)]
pub struct InstantTypes;

impl TypePlanner for InstantTypes {
    fn plan_type_field(&self, sql_type: &SqlType) -> Result<Option<FieldRef>> {
        let SqlType::Timestamp(precision, TimezoneInfo::Tz | TimezoneInfo::WithTimeZone) = sql_type else {
            return Ok(None);
        };
        let unit = match precision {
            Some(0) => TimeUnit::Second,
            Some(3) => TimeUnit::Millisecond,
            Some(6) => TimeUnit::Microsecond,
            None | Some(9) => TimeUnit::Nanosecond,
            // DataFusion knows no others, and says so.
            Some(_) => return Ok(None),
        };
        Ok(Some(Arc::new(Field::new("", DataType::Timestamp(unit, Some("+00:00".into())), true))))
    }
}

#[cfg(test)]
mod tests {
    use sqlparser::dialect::GenericDialect;
    use sqlparser::parser::Parser;

    #[test]
    fn queries_say_what_postgresql_means() {
        for (sql, expected) in [
            ("SELECT a AT TIME ZONE 'UTC'", "SELECT at_time_zone(a, 'UTC')"),
            ("SELECT a AT TIME ZONE 'A' AT TIME ZONE 'B'", "SELECT at_time_zone(at_time_zone(a, 'A'), 'B')"),
            ("SELECT now() AT TIME ZONE 'A'", "SELECT at_time_zone(CAST(now() AS TIMESTAMPTZ), 'A')"),
            (
                "SELECT CURRENT_TIMESTAMP AT TIME ZONE 'A'",
                "SELECT at_time_zone(CAST(CURRENT_TIMESTAMP AS TIMESTAMPTZ), 'A')",
            ),
            ("SELECT a::TIMESTAMP", "SELECT local_time(a)::TIMESTAMP"),
            ("SELECT TRY_CAST(a AS TIMESTAMP(3))", "SELECT TRY_CAST(local_time(a) AS TIMESTAMP(3))"),
            ("SELECT CAST(a AS TIMESTAMPTZ), a::DATE", "SELECT CAST(a AS TIMESTAMPTZ), a::DATE"),
            ("SELECT to_timestamp(a), to_timestamp('x')", "SELECT to_timestamp(local_time(a)), to_timestamp('x')"),
            ("SELECT to_timestamp(a, '%Y')", "SELECT to_timestamp(a, '%Y')"),
            (
                "SELECT 1 WHERE b > (SELECT TIMESTAMP '9999-12-31')",
                "SELECT 1 WHERE b > (SELECT TIMESTAMP(6) '9999-12-31')",
            ),
            ("SELECT CAST('9999-12-31' AS TIMESTAMP)", "SELECT CAST('9999-12-31' AS TIMESTAMP(6))"),
            ("SELECT TIMESTAMPTZ '9999-12-31 00:00:00Z'", "SELECT TIMESTAMPTZ(6) '9999-12-31 00:00:00Z'"),
            ("SELECT TIMESTAMP '2262-01-01'", "SELECT TIMESTAMP '2262-01-01'"),
            ("SELECT TIMESTAMP(9) '9999-12-31'", "SELECT TIMESTAMP(9) '9999-12-31'"),
            ("SELECT TIMESTAMP 'nonsense'", "SELECT TIMESTAMP 'nonsense'"),
        ] {
            let mut statements = Parser::parse_sql(&GenericDialect {}, sql).unwrap();
            super::rewrite(&mut statements);
            assert_eq!(statements[0].to_string(), expected);
        }
    }
}
