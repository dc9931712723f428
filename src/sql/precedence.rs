//! Which operator takes its operands first, where no parentheses say it.
//!
//! sqlparser reads some operators otherwise than PostgreSQL and DuckDB do: what stands behind `IS DISTINCT FROM` it
//! takes up to the next parenthesis, AND and OR included; `||` and the operators of bits have places of their own among
//! `+` and `*`; and of two comparisons in a row it compares the first with the second. The tree is turned where that is
//! possible without doubt, and refused where people don't agree.

use std::ops::ControlFlow;

use sqlparser::ast::{BinaryOperator, Expr, Query, Spanned, UnaryOperator, Value, VisitMut, VisitorMut};

use crate::error::{Error, Result};
use crate::sql::tokens::Statement;

/// How tightly an operator holds its operands, as in PostgreSQL.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Level {
    Or,
    And,
    Not,
    Is,
    Comparison,
    /// `IN`, `BETWEEN`, `LIKE` and the like.
    Within,
    /// `||`, `&`, `|`, `<<` and the like.
    Other,
    Sum,
    Product,
    /// All that holds its operands more tightly, and what has a beginning and an end of its own.
    Operand,
}

/// Turns the operators of a query into the order that PostgreSQL and DuckDB have.
///
/// # Errors
/// Where operators stand in a row whose order is not agreed on.
pub(crate) fn order(statement: &Statement<'_>, query: &mut Query) -> Result<()> {
    query.visit(&mut Order { statement }).break_value().map_or(Ok(()), |error| Err(*error))
}

struct Order<'a> {
    statement: &'a Statement<'a>,
}

impl VisitorMut for Order<'_> {
    type Break = Box<Error>;

    fn post_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<Self::Break> {
        turn(expr);
        match is_clear(expr) {
            true => ControlFlow::Continue(()),
            false => {
                let message = "these operators in a row are read in different ways; write parentheses around what belongs together";
                let place = self.statement.place(first(expr).span());
                ControlFlow::Break(Box::new(self.statement.error(place, message)))
            }
        }
    }
}

fn level(expr: &Expr) -> Level {
    match expr {
        Expr::BinaryOp { op, .. } => binary_level(op),
        Expr::UnaryOp { op: UnaryOperator::Not, .. } => Level::Not,
        Expr::IsDistinctFrom(..)
        | Expr::IsNotDistinctFrom(..)
        | Expr::IsFalse(_)
        | Expr::IsNotFalse(_)
        | Expr::IsTrue(_)
        | Expr::IsNotTrue(_)
        | Expr::IsNull(_)
        | Expr::IsNotNull(_)
        | Expr::IsUnknown(_)
        | Expr::IsNotUnknown(_)
        | Expr::IsNormalized { .. } => Level::Is,
        Expr::AnyOp { .. } | Expr::AllOp { .. } => Level::Comparison,
        Expr::InList { .. }
        | Expr::InSubquery { .. }
        | Expr::InUnnest { .. }
        | Expr::Between { .. }
        | Expr::Like { .. }
        | Expr::ILike { .. }
        | Expr::SimilarTo { .. }
        | Expr::RLike { .. } => Level::Within,
        _ => Level::Operand,
    }
}

fn binary_level(op: &BinaryOperator) -> Level {
    match op {
        BinaryOperator::Or => Level::Or,
        BinaryOperator::And => Level::And,
        BinaryOperator::Gt
        | BinaryOperator::Lt
        | BinaryOperator::GtEq
        | BinaryOperator::LtEq
        | BinaryOperator::Spaceship
        | BinaryOperator::Eq
        | BinaryOperator::NotEq => Level::Comparison,
        BinaryOperator::Plus | BinaryOperator::Minus => Level::Sum,
        BinaryOperator::Multiply
        | BinaryOperator::Divide
        | BinaryOperator::Modulo
        | BinaryOperator::DuckIntegerDivide
        | BinaryOperator::MyIntegerDivide => Level::Product,
        _ => Level::Other,
    }
}

/// The operands without parentheses: what stands before the operator, and behind it.
fn operands(expr: &Expr) -> (Option<&Expr>, Vec<&Expr>) {
    match expr {
        Expr::BinaryOp { left, right, .. }
        | Expr::IsDistinctFrom(left, right)
        | Expr::IsNotDistinctFrom(left, right) => (Some(left), vec![right]),
        Expr::UnaryOp { op: UnaryOperator::Not, expr } => (None, vec![expr]),
        Expr::AnyOp { left, .. } | Expr::AllOp { left, .. } => (Some(left), Vec::new()),
        Expr::IsFalse(expr)
        | Expr::IsNotFalse(expr)
        | Expr::IsTrue(expr)
        | Expr::IsNotTrue(expr)
        | Expr::IsNull(expr)
        | Expr::IsNotNull(expr)
        | Expr::IsUnknown(expr)
        | Expr::IsNotUnknown(expr)
        | Expr::IsNormalized { expr, .. }
        | Expr::InList { expr, .. }
        | Expr::InSubquery { expr, .. }
        | Expr::InUnnest { expr, .. } => (Some(expr), Vec::new()),
        Expr::Between { expr, low, high, .. } => (Some(expr), vec![low, high]),
        Expr::Like { expr, pattern, .. }
        | Expr::ILike { expr, pattern, .. }
        | Expr::SimilarTo { expr, pattern, .. }
        | Expr::RLike { expr, pattern, .. } => (Some(expr), vec![pattern]),
        _ => (None, Vec::new()),
    }
}

/// Whether operators of one level are computed from left to right.
fn is_from_the_left(level: Level) -> bool {
    matches!(level, Level::Or | Level::And | Level::Other | Level::Sum | Level::Product)
}

/// Whether an operand ends with its operator, and can't have taken what stands behind it.
fn is_closed(expr: &Expr) -> bool {
    match expr {
        Expr::IsDistinctFrom(..) | Expr::IsNotDistinctFrom(..) => false,
        other => level(other) == Level::Is,
    }
}

fn is_clear(expr: &Expr) -> bool {
    let own = level(expr);
    let (before, behind) = operands(expr);
    let is_before = before.is_none_or(|operand| {
        let of = level(operand);
        of > own || (of == own && is_from_the_left(own)) || is_closed(operand)
    });
    is_before
        && behind.into_iter().all(|operand| {
            let of = level(operand);
            // NOT begins something new.
            of > own || of == Level::Not || (of == own && matches!(own, Level::Or | Level::And))
        })
}

/// `a ~ b` and `a @> b`: sqlparser has them among the comparisons.
fn is_among_comparisons(op: &BinaryOperator) -> bool {
    matches!(
        op,
        BinaryOperator::PGRegexMatch
            | BinaryOperator::PGRegexIMatch
            | BinaryOperator::PGRegexNotMatch
            | BinaryOperator::PGRegexNotIMatch
            | BinaryOperator::PGLikeMatch
            | BinaryOperator::PGILikeMatch
            | BinaryOperator::PGNotLikeMatch
            | BinaryOperator::PGNotILikeMatch
            | BinaryOperator::AtArrow
            | BinaryOperator::ArrowAt
    )
}

/// Makes an operator that holds its operands less tightly the upper one. The operands have been turned.
fn turn(expr: &mut Expr) {
    let own = level(expr);
    let turned = match expr {
        Expr::BinaryOp { left, op, right } if can_turn(op, own, left) && level(left) < own => {
            // (a || b) + c
            let Expr::BinaryOp { left: a, op: upper, right: b } = take(left) else { return };
            let mut lower = Expr::BinaryOp { left: b, op: op.clone(), right: Box::new(take(right)) };
            turn(&mut lower);
            Expr::BinaryOp { left: a, op: upper, right: Box::new(lower) }
        }
        Expr::BinaryOp { left, op, right } if can_turn(op, own, right) && level(right) <= own => {
            // a + (b || c), p AND (q OR r)
            let Expr::BinaryOp { left: b, op: upper, right: c } = take(right) else { return };
            let mut lower = Expr::BinaryOp { left: Box::new(take(left)), op: op.clone(), right: b };
            turn(&mut lower);
            Expr::BinaryOp { left: Box::new(lower), op: upper, right: c }
        }
        Expr::IsDistinctFrom(left, right) if level(right) <= Level::And => {
            at_first(take(right), |first| Expr::IsDistinctFrom(Box::new(take(left)), first))
        }
        Expr::IsNotDistinctFrom(left, right) if level(right) <= Level::And => {
            at_first(take(right), |first| Expr::IsNotDistinctFrom(Box::new(take(left)), first))
        }
        Expr::UnaryOp { op: UnaryOperator::Not, expr: inner } if level(inner) <= Level::And => {
            at_first(take(inner), |first| Expr::UnaryOp { op: UnaryOperator::Not, expr: first })
        }
        _ => return,
    };
    *expr = turned;
    turn(expr);
}

/// Whether an operand of `op` can become the upper one.
fn can_turn(op: &BinaryOperator, own: Level, operand: &Expr) -> bool {
    let Expr::BinaryOp { op: other, .. } = operand else { return false };
    let of = level(operand);
    let are_values = own >= Level::Other && of >= Level::Other;
    let are_conditions = own <= Level::And && of <= Level::And;
    (are_values || are_conditions) && !is_among_comparisons(op) && !is_among_comparisons(other)
}

/// A chain of AND and OR with something else made of what stands first in it.
fn at_first(mut chain: Expr, made: impl FnOnce(Box<Expr>) -> Expr) -> Expr {
    let mut first = &mut chain;
    while let Expr::BinaryOp { left, op: BinaryOperator::And | BinaryOperator::Or, .. } = first {
        first = left;
    }
    let operand = take(first);
    *first = made(Box::new(operand));
    chain
}

fn take(expr: &mut Expr) -> Expr {
    std::mem::replace(expr, Expr::Value(Value::Null.into()))
}

/// What stands first.
fn first(mut expr: &Expr) -> &Expr {
    while let (Some(operand), _) = operands(expr) {
        expr = operand;
    }
    expr
}
