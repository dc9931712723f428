//! What is added.

use sqlparser::ast::{
    Expr, Ident, ObjectName, OrderByExpr, Select, SetExpr, Statement, TableFactor, TableSampleKind, Value, WindowSpec,
};

use super::parsed;

pub(super) fn sampled() -> TableSampleKind {
    match donor("SELECT k FROM t TABLESAMPLE (10 PERCENT)").from.remove(0).relation {
        TableFactor::Table { sample: Some(sample), .. } => sample,
        other => panic!("{other}"),
    }
}

pub(super) fn one() -> Expr {
    Expr::value(number("1"))
}

/// Of a pattern: as the letter of ESCAPE it gives the pattern another meaning.
pub(super) fn first_letter(pattern: &Expr) -> String {
    pattern.to_string().chars().nth(1).into_iter().collect()
}

pub(super) fn truth() -> Expr {
    Expr::Identifier(Ident::new("b"))
}

pub(super) fn key() -> OrderByExpr {
    Ident::new("k").into()
}

pub(super) fn no_window() -> WindowSpec {
    WindowSpec { window_name: None, partition_by: Vec::new(), order_by: Vec::new(), window_frame: None }
}

pub(super) fn name(text: &str) -> ObjectName {
    ObjectName::from(vec![Ident::new(text)])
}

/// The SELECT of a query, of which a clause is taken.
pub(super) fn donor(sql: &str) -> Select {
    match parsed(sql).pop() {
        Some(Statement::Query(query)) => match *query.body {
            SetExpr::Select(select) => *select,
            _ => panic!("{sql}"),
        },
        _ => panic!("{sql}"),
    }
}

pub(super) fn number(digits: &str) -> Value {
    Value::Number(digits.to_string(), false)
}
