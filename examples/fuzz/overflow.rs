//! Queries whose numbers overflow, and the same over types that hold all results.
//!
//! Plain DataFusion wraps around where the engine fails. So what is expected of such a query is what plain DataFusion makes of it
//! with decimals: rows, or an error where they don't fit BIGINT, and then the engine must fail, too.

use std::ops::ControlFlow;
use std::panic::AssertUnwindSafe;

use datafusion::prelude::SessionContext;
use futures::FutureExt;
use sqlparser::ast::{BinaryOperator, CastKind, DataType, ExactNumberInfo, Expr, FunctionArg, FunctionArgExpr};
use sqlparser::ast::{FunctionArguments, Value, visit_expressions_mut};
use sqlparser::dialect::GenericDialect;
use sqlparser::parser::Parser;

use super::query::Case;
use super::rows::Row;
use super::world::rows_whole;

/// What small numbers are multiplied by: 2^60, so that some products fit and some sums don't.
const FACTOR: &str = "1152921504606846976";
/// Errors of plain DataFusion where a decimal is no BIGINT.
pub const OUT_OF_RANGE: [&str; 3] = ["out of range Int64", "is too large to store", "is too small to store"];

/// In errors of plain DataFusion where a float beside a decimal is too large for the decimal that it makes of both.
const OF_FLOATS: &str = "precision 30";

/// What is expected of a query.
#[derive(Debug, Clone)]
pub enum Expected {
    Rows(Vec<Row>),
    /// Its numbers overflow, so it must fail.
    Overflow,
}

/// What plain DataFusion says of `sql`.
pub async fn expected(context: &SessionContext, sql: &str) -> Result<Expected, String> {
    let Some(wide) = wide(sql) else { return rows_whole(context, sql).await.map(Expected::Rows) };
    match rows_whole(context, &wide).await {
        Ok(rows) => Ok(Expected::Rows(rows)),
        Err(error) if OUT_OF_RANGE.iter().any(|known| error.contains(known)) && !error.contains(OF_FLOATS) => {
            Ok(Expected::Overflow)
        }
        Err(error) => Err(error),
    }
}

/// `case` with numbers that may overflow over its rows; `None` if it has no integers.
pub async fn overflowing(context: &SessionContext, case: &Case) -> Option<Case> {
    // DataFusion's planner panics on some.
    let rows = AssertUnwindSafe(context.sql(&case.sql))
        .catch_unwind()
        .await
        .inspect_err(|_| eprintln!("{}", case.sql))
        .ok()?
        .ok()?;
    let field = rows.schema().fields().iter().find(|field| field.data_type().is_integer())?;
    let (c, q) = (format!("q.\"{}\"", field.name()), format!("({}) q", case.sql));
    let large = format!("CAST({c} AS BIGINT) * {FACTOR}");
    let sql = match case.sql.len() % 4 {
        0 => format!("SELECT q.*, {large} AS big FROM {q}"),
        1 => format!("SELECT {c}, sum({large}) AS big FROM {q} GROUP BY {c}"),
        2 => format!("SELECT q.*, sum({large}) OVER (PARTITION BY {c}) AS big FROM {q}"),
        _ => format!("SELECT sum({large}) AS big, count(*) AS n FROM {q}"),
    };
    Some(Case { sql, ..case.clone() })
}

/// `sql` with decimals in place of the integers that may overflow; `None` if there are none.
pub fn wide(sql: &str) -> Option<String> {
    if !sql.contains(FACTOR) {
        return None;
    }
    let mut statements = Parser::parse_sql(&GenericDialect {}, sql).ok()?;
    let decimal = || DataType::Decimal(ExactNumberInfo::PrecisionAndScale(38, 0));
    let is_factor = |expr: &Expr| matches!(expr, Expr::Value(value) if matches!(&value.value, Value::Number(number, _) if number == FACTOR));
    let _: ControlFlow<()> = visit_expressions_mut(&mut statements, |expr| {
        match expr {
            Expr::BinaryOp { left, op: BinaryOperator::Multiply, right } if is_factor(right) => {
                **left = cast(std::mem::replace(left, Expr::value(Value::Null)), decimal());
                *expr = cast(expr.clone(), DataType::BigInt(None));
            }
            Expr::Function(function) if function.name.to_string() == "sum" && function.to_string().contains(FACTOR) => {
                if let FunctionArguments::List(list) = &mut function.args
                    && let Some(FunctionArg::Unnamed(FunctionArgExpr::Expr(arg))) = list.args.first_mut()
                {
                    *arg = cast(arg.clone(), decimal());
                }
                *expr = cast(expr.clone(), DataType::BigInt(None));
            }
            _ => {}
        }
        ControlFlow::Continue(())
    });
    statements.first().map(ToString::to_string)
}

fn cast(expr: Expr, data_type: DataType) -> Expr {
    Expr::Cast { kind: CastKind::Cast, expr: Box::new(expr), data_type, array: false, format: None }
}
