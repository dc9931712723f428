//! Long and deep SQL: what would otherwise overflow a stack, or take time that grows with the square of the text.
//!
//! sqlparser makes `a OR b OR c …` a tree that is as deep to the left as the text is long, and so do DataFusion's
//! plans; both are walked, compared and dropped by recursion. So chains of AND and OR become trees whose depth is the
//! logarithm of that (which changes nothing: both are associative, NULL included), longer chains of other operators are
//! refused, and text is read on a stack of its own. Parentheses are bounded by the parser.

use std::ops::ControlFlow;

use sqlparser::ast::{
    BinaryOperator, Expr, Function, ObjectNamePart, Query, Spanned, UnaryOperator, Value, ValueWithSpan, VisitMut,
    VisitorMut,
};
use sqlparser::tokenizer::Token;

use crate::error::{Error, ErrorKind, Result};
use crate::sql::tokens::Statement;

/// Stack for parsing and walking; of it only what is used takes memory.
const STACK_BYTES: usize = 256 << 20;

/// Most operators between two commas, parentheses or clauses: as deep a tree as the stack holds.
const MAX_TERMS: usize = 100_000;

/// Most operators one behind the other, but for AND and OR. DataFusion finds the type of each by walking all before it:
/// the time grows with the square.
const MAX_CHAIN: usize = 500;

/// Most levels of nested subqueries in expressions, and of nested calls of `coalesce`. DataFusion plans the inner one
/// twice or more for each level: the time doubles with every level.
const MAX_NESTED: usize = 12;

/// Shorter chains of AND and OR stay as they are.
const MIN_BALANCED: usize = 32;

/// Runs `work` on a thread whose stack is enough for [`MAX_TERMS`].
///
/// # Errors
/// [`ErrorKind::Usage`] when there can be no thread, and the work's own.
pub(crate) fn on_deep_stack<T: Send>(work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
    std::thread::scope(|scope| {
        let work = std::thread::Builder::new().stack_size(STACK_BYTES).spawn_scoped(scope, work);
        let work = work.map_err(|cause| {
            let message = "can't start a thread to read the SQL; raise the limit of threads or memory";
            Error::new(ErrorKind::Usage, message).with_source(cause)
        })?;
        work.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

/// Refuses a statement that would parse into a tree too deep to walk.
///
/// # Errors
/// Where the operator stands that is one too many.
pub(crate) fn check_terms(statement: &Statement<'_>) -> Result<()> {
    let mut open = vec![0_usize];
    for (_, _, token) in statement.code() {
        match &token.token {
            Token::LParen | Token::LBracket | Token::LBrace => open.push(0),
            Token::RParen | Token::RBracket | Token::RBrace if open.len() > 1 => drop(open.pop()),
            // More are closed than opened: the parser will say so.
            Token::RParen | Token::RBracket | Token::RBrace => {}
            token if ends_terms(token) => open.iter_mut().last().iter_mut().for_each(|terms| **terms = 0),
            other if !is_operand(other) => {
                let Some(terms) = open.last_mut() else { continue };
                *terms += 1;
                if *terms > MAX_TERMS {
                    let message = format!(
                        "one expression has more than {MAX_TERMS} operators; put the values into a file and join with it, or \
                         write IN (…)"
                    );
                    return Err(statement.error(statement.place(token.span), message));
                }
            }
            _ => {}
        }
    }
    Ok(())
}

/// Makes deep chains flat, and refuses those that can't be.
///
/// # Errors
/// Where a chain begins that is too long.
pub(crate) fn balance(statement: &Statement<'_>, query: &mut Query) -> Result<()> {
    query
        .visit(&mut Balance { statement, subqueries: 0, coalesces: 0 })
        .break_value()
        .map_or(Ok(()), |error| Err(*error))
}

struct Balance<'a> {
    statement: &'a Statement<'a>,
    /// Subqueries around the expression at hand.
    subqueries: usize,
    /// Calls of `coalesce` around it.
    coalesces: usize,
}

impl Balance<'_> {
    /// The count that an expression is of, if it is of one, and what to write in place of too many.
    fn nested(&mut self, expr: &Expr) -> Option<(&mut usize, &'static str)> {
        match expr {
            Expr::Subquery(_) | Expr::Exists { .. } | Expr::InSubquery { .. } => {
                Some((&mut self.subqueries, "subqueries are nested; move the inner ones into views, or join with them"))
            }
            Expr::Function(call) if ["coalesce", "nvl", "ifnull"].iter().any(|name| is_called(call, name)) => {
                Some((&mut self.coalesces, "calls of coalesce are nested; write one call, coalesce(a, b, c)"))
            }
            _ => None,
        }
    }
}

fn is_called(call: &Function, name: &str) -> bool {
    matches!(call.name.0.as_slice(), [ObjectNamePart::Identifier(word)] if word.value.eq_ignore_ascii_case(name))
}

impl VisitorMut for Balance<'_> {
    type Break = Box<Error>;

    fn pre_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<Self::Break> {
        if let Some((count, advice)) = self.nested(expr) {
            *count += 1;
            if *count > MAX_NESTED {
                let message = format!("more than {MAX_NESTED} {advice}");
                let place = self.statement.place(expr.span());
                return ControlFlow::Break(Box::new(self.statement.error(place, message)));
            }
        }
        if let Expr::BinaryOp { op: op @ (BinaryOperator::And | BinaryOperator::Or), .. } = expr {
            let op = op.clone();
            if chain_length(expr, &op) >= MIN_BALANCED {
                let terms = take_terms(std::mem::replace(expr, nothing()), &op);
                *expr = in_list(&op, &terms).unwrap_or_else(|| tree(&op, terms).unwrap_or_else(nothing));
            }
        }
        let depth = depth_to_the_left(expr);
        if depth > MAX_CHAIN {
            let message = format!(
                "{depth} operators stand one behind the other, and the most are {MAX_CHAIN}; compute parts of it in a query \
                 below: SELECT a + b FROM (SELECT … AS a, … AS b FROM …)"
            );
            let place = self.statement.place(leftmost(expr).span());
            return ControlFlow::Break(Box::new(self.statement.error(place, message)));
        }
        ControlFlow::Continue(())
    }

    fn post_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<Self::Break> {
        if let Some((count, _)) = self.nested(expr) {
            *count -= 1;
        }
        ControlFlow::Continue(())
    }
}

/// How many `op` stand one behind the other.
fn chain_length(mut expr: &Expr, op: &BinaryOperator) -> usize {
    let mut length = 0;
    while let Expr::BinaryOp { left, op: other, .. } = expr
        && other == op
    {
        length += 1;
        expr = left;
    }
    length
}

/// What `op` connects, in order.
fn take_terms(mut expr: Expr, op: &BinaryOperator) -> Vec<Expr> {
    let mut terms = Vec::new();
    loop {
        match expr {
            Expr::BinaryOp { left, op: other, right } if other == *op => {
                terms.push(*right);
                expr = *left;
            }
            first => {
                terms.push(first);
                terms.reverse();
                return terms;
            }
        }
    }
}

/// The terms connected by `op` in a tree that is as flat as it can be; their order stays.
fn tree(op: &BinaryOperator, mut terms: Vec<Expr>) -> Option<Expr> {
    while terms.len() > 1 {
        let mut pairs = Vec::with_capacity(terms.len().div_ceil(2));
        let mut rest = terms.into_iter();
        while let Some(left) = rest.next() {
            pairs.push(match rest.next() {
                Some(right) => Expr::BinaryOp { left: Box::new(left), op: op.clone(), right: Box::new(right) },
                None => left,
            });
        }
        terms = pairs;
    }
    terms.pop()
}

/// `column = 1 OR column = 2 …` as `column IN (1, 2, …)`, and `column <> 1 AND column <> 2 …` as `NOT IN`: the same, if
/// all values are compared as one type.
fn in_list(op: &BinaryOperator, terms: &[Expr]) -> Option<Expr> {
    let comparison = match op {
        BinaryOperator::Or => BinaryOperator::Eq,
        _ => BinaryOperator::NotEq,
    };
    let mut column = None;
    let mut list = Vec::with_capacity(terms.len());
    for term in terms {
        let Expr::BinaryOp { left, op, right } = term else { return None };
        let is_column = matches!(left.as_ref(), Expr::Identifier(_) | Expr::CompoundIdentifier(_));
        if *op != comparison || !is_column || *column.get_or_insert(left) != left {
            return None;
        }
        list.push(right.as_ref().clone());
    }
    let are_of_one_type = list.iter().all(is_integer) || list.iter().all(is_text);
    are_of_one_type.then_some(())?;
    Some(Expr::InList { expr: column?.clone(), list, negated: *op == BinaryOperator::And })
}

fn is_integer(value: &Expr) -> bool {
    match value {
        Expr::Value(ValueWithSpan { value: Value::Number(digits, _), .. }) => digits.parse::<i64>().is_ok(),
        Expr::UnaryOp { op: UnaryOperator::Minus, expr } => is_integer(expr),
        _ => false,
    }
}

fn is_text(value: &Expr) -> bool {
    matches!(value, Expr::Value(ValueWithSpan { value: Value::SingleQuotedString(_), .. }))
}

/// What stands first in an expression that begins with another one, and how deep below it.
fn first_operand(expr: &Expr) -> Option<&Expr> {
    match expr {
        Expr::BinaryOp { left, .. } | Expr::AnyOp { left, .. } | Expr::AllOp { left, .. } => Some(left),
        Expr::IsDistinctFrom(left, _) | Expr::IsNotDistinctFrom(left, _) => Some(left),
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
        | Expr::InUnnest { expr, .. }
        | Expr::Between { expr, .. }
        | Expr::Like { expr, .. }
        | Expr::ILike { expr, .. }
        | Expr::SimilarTo { expr, .. }
        | Expr::RLike { expr, .. }
        | Expr::Cast { expr, .. }
        | Expr::Collate { expr, .. }
        | Expr::UnaryOp { expr, .. }
        | Expr::AtTimeZone { timestamp: expr, .. }
        | Expr::CompoundFieldAccess { root: expr, .. }
        | Expr::JsonAccess { value: expr, .. } => Some(expr),
        _ => None,
    }
}

fn depth_to_the_left(mut expr: &Expr) -> usize {
    let mut depth = 0;
    while let Some(first) = first_operand(expr) {
        depth += 1;
        expr = first;
    }
    depth
}

fn leftmost(mut expr: &Expr) -> &Expr {
    while let Some(first) = first_operand(expr) {
        expr = first;
    }
    expr
}

fn nothing() -> Expr {
    Expr::Value(Value::Null.into())
}

/// Whether the terms before it and behind it are none of one chain.
fn ends_terms(token: &Token) -> bool {
    const CLAUSES: [&str; 16] = [
        "SELECT",
        "FROM",
        "WHERE",
        "GROUP",
        "HAVING",
        "QUALIFY",
        "ORDER",
        "LIMIT",
        "UNION",
        "EXCEPT",
        "INTERSECT",
        "JOIN",
        "WHEN",
        "THEN",
        "ELSE",
        "VALUES",
    ];
    match token {
        Token::Comma => true,
        Token::Word(word) if word.quote_style.is_none() => {
            CLAUSES.iter().any(|clause| word.value.eq_ignore_ascii_case(clause))
        }
        _ => false,
    }
}

/// Whether it is no operator.
fn is_operand(token: &Token) -> bool {
    const OPERATORS: [&str; 10] = ["AND", "OR", "IS", "IN", "LIKE", "ILIKE", "BETWEEN", "NOT", "COLLATE", "AT"];
    match token {
        Token::Word(word) => {
            word.quote_style.is_some() || !OPERATORS.iter().any(|operator| word.value.eq_ignore_ascii_case(operator))
        }
        Token::Number(..) | Token::SingleQuotedString(_) | Token::Period | Token::Comma | Token::EOF => true,
        _ => false,
    }
}
