//! Operators.

use sqlparser::ast::{BinaryOperator, Expr, UnaryOperator};

use crate::error::Result;
use crate::sql::clauses::Clauses;

impl Clauses<'_> {
    /// The operator of a term whose left side is `left`.
    pub(super) fn binary_operator(&mut self, operator: &BinaryOperator, left: &Expr) -> Result<()> {
        let instead = match operator {
            BinaryOperator::Plus
            | BinaryOperator::Minus
            | BinaryOperator::Multiply
            | BinaryOperator::Divide
            | BinaryOperator::Modulo
            | BinaryOperator::StringConcat
            | BinaryOperator::Gt
            | BinaryOperator::Lt
            | BinaryOperator::GtEq
            | BinaryOperator::LtEq
            | BinaryOperator::Spaceship
            | BinaryOperator::Eq
            | BinaryOperator::NotEq
            | BinaryOperator::And
            | BinaryOperator::Or
            | BinaryOperator::BitwiseOr
            | BinaryOperator::BitwiseAnd
            | BinaryOperator::BitwiseXor
            | BinaryOperator::PGBitwiseXor
            | BinaryOperator::PGBitwiseShiftLeft
            | BinaryOperator::PGBitwiseShiftRight
            | BinaryOperator::PGExp
            | BinaryOperator::PGRegexMatch
            | BinaryOperator::PGRegexIMatch
            | BinaryOperator::PGRegexNotMatch
            | BinaryOperator::PGRegexNotIMatch
            | BinaryOperator::PGLikeMatch
            | BinaryOperator::PGILikeMatch
            | BinaryOperator::PGNotLikeMatch
            | BinaryOperator::PGNotILikeMatch
            | BinaryOperator::AtArrow
            | BinaryOperator::ArrowAt => return Ok(()),
            // DataFusion takes it for the bitwise one: 1 XOR 2 would be 3.
            BinaryOperator::Xor => "a <> b for truth values, or a ^ b for bits",
            BinaryOperator::DuckIntegerDivide | BinaryOperator::MyIntegerDivide => {
                "a / b, which is whole for whole numbers"
            }
            BinaryOperator::Match | BinaryOperator::Regexp => "value ~ 'regular expression'",
            BinaryOperator::PGStartsWith => "starts_with(text, start)",
            BinaryOperator::Overlaps => "begin1 < end2 AND begin2 < end1",
            BinaryOperator::PGOverlap => "array_has_any(list, list)",
            BinaryOperator::Arrow => "column['field'] for a field, and unnest(list) to compute with each element",
            BinaryOperator::LongArrow
            | BinaryOperator::HashArrow
            | BinaryOperator::HashLongArrow
            | BinaryOperator::HashMinus
            | BinaryOperator::AtAt
            | BinaryOperator::AtQuestion
            | BinaryOperator::Question
            | BinaryOperator::QuestionAnd
            | BinaryOperator::QuestionPipe => "column['field'] of a column that is declared as a struct",
            BinaryOperator::Assignment => "a = b",
            BinaryOperator::Custom(_)
            | BinaryOperator::PGCustomBinaryOperator(_)
            | BinaryOperator::DoubleHash
            | BinaryOperator::LtDashGt
            | BinaryOperator::AndLt
            | BinaryOperator::AndGt
            | BinaryOperator::LtLtPipe
            | BinaryOperator::PipeGtGt
            | BinaryOperator::AndLtPipe
            | BinaryOperator::PipeAndGt
            | BinaryOperator::LtCaret
            | BinaryOperator::GtCaret
            | BinaryOperator::QuestionHash
            | BinaryOperator::QuestionDash
            | BinaryOperator::QuestionDashPipe
            | BinaryOperator::QuestionDoublePipe
            | BinaryOperator::At
            | BinaryOperator::TildeEq => "a function",
        };
        // So that the place is on the operator, not before it.
        self.expr(left)?;
        let message = format!("the operator {operator} is not supported; write {instead}");
        self.refuse(true, &operator.to_string(), &message)
    }

    pub(super) fn unary_operator(&self, operator: &UnaryOperator) -> Result<()> {
        let instead = match operator {
            UnaryOperator::Plus | UnaryOperator::Minus | UnaryOperator::Not => return Ok(()),
            UnaryOperator::BangNot => "NOT a",
            UnaryOperator::BitwiseNot => "-1 - a",
            UnaryOperator::PGAbs => "abs(a)",
            UnaryOperator::PGSquareRoot => "sqrt(a)",
            UnaryOperator::PGCubeRoot => "cbrt(a)",
            UnaryOperator::PGPostfixFactorial | UnaryOperator::PGPrefixFactorial => "factorial(a)",
            UnaryOperator::AtDashAt
            | UnaryOperator::DoubleAt
            | UnaryOperator::Hash
            | UnaryOperator::QuestionDash
            | UnaryOperator::QuestionPipe => "a function",
        };
        let message = format!("the operator {operator} is not supported; write {instead}");
        match operator {
            UnaryOperator::PGPostfixFactorial => Err(self.error(message)),
            _ => self.refuse_before(&operator.to_string(), &message),
        }
    }
}
