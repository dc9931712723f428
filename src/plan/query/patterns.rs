//! Regular expressions that are constants are compiled while a query is planned, so that their errors have a place and
//! don't come when a chunk runs.

use std::ops::ControlFlow;

use datafusion::common::{DataFusionError, Result};
use regex::{Error, Regex};
use sqlparser::ast::{
    BinaryOperator, Expr, Function, FunctionArg, FunctionArgExpr, FunctionArguments, Query, Value, ValueWithSpan,
    Visit, Visitor,
};

use crate::plan::query::error::at;

/// Functions whose second argument is a regular expression, and how many arguments they have without flags, which may
/// give it another meaning.
const FUNCTIONS: [(&str, usize); 5] =
    [("regexp_like", 2), ("regexp_match", 2), ("regexp_replace", 3), ("regexp_count", 3), ("regexp_instr", 4)];

/// Looks at all regular expressions of `query`.
///
/// # Errors
/// At the text: one that is none, or that is too large.
pub(super) fn check(query: &Query) -> Result<()> {
    query.visit(&mut Patterns).break_value().map_or(Ok(()), Err)
}

struct Patterns;

impl Visitor for Patterns {
    type Break = DataFusionError;

    fn pre_visit_expr(&mut self, expr: &Expr) -> ControlFlow<Self::Break> {
        match pattern(expr).map_or(Ok(()), compiled) {
            Ok(()) => ControlFlow::Continue(()),
            Err(error) => ControlFlow::Break(error),
        }
    }
}

/// What an expression compares a text with, if that is a regular expression.
fn pattern(expr: &Expr) -> Option<&Expr> {
    match expr {
        Expr::BinaryOp { left: _, op, right } => matches!(
            op,
            BinaryOperator::PGRegexMatch
                | BinaryOperator::PGRegexIMatch
                | BinaryOperator::PGRegexNotMatch
                | BinaryOperator::PGRegexNotIMatch
        )
        .then_some(right.as_ref()),
        Expr::Function(Function { name, args: FunctionArguments::List(list), .. }) => {
            let name = name.to_string().to_ascii_lowercase();
            let (_, most) = FUNCTIONS.iter().find(|(function, _)| *function == name)?;
            match list.args.get(1)? {
                FunctionArg::Unnamed(FunctionArgExpr::Expr(pattern)) if list.args.len() <= *most => Some(pattern),
                _ => None,
            }
        }
        _ => None,
    }
}

fn compiled(pattern: &Expr) -> Result<()> {
    let (text, span) = match pattern {
        Expr::Nested(inner) => return compiled(inner),
        Expr::Value(ValueWithSpan { value: Value::SingleQuotedString(text), span }) => (text, *span),
        _ => return Ok(()),
    };
    match Regex::new(text) {
        Ok(_) => Ok(()),
        Err(Error::CompiledTooBig(bytes)) => {
            Err(at(span, format!("this regular expression needs more than {} MiB; repeat less in {{…}}", bytes >> 20)))
        }
        Err(error) => {
            // The lines before show where.
            let error = error.to_string();
            let reason = error.lines().last().unwrap_or_default().trim_start_matches("error: ");
            Err(at(span, format!("this is not a regular expression: {reason}")))
        }
    }
}
