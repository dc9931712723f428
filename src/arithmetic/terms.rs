//! Terms of AND and OR, and trees of them that are not deep.

use datafusion::common::tree_node::Transformed;
use datafusion::logical_expr::{BinaryExpr, Expr, Operator, lit};

/// Trees that are less deep to the left stay as they are.
const MIN_DEPTH: usize = 32;

/// The terms that `op` puts together, in order, however they are nested.
pub fn terms(op: Operator, left: Expr, right: Expr) -> Vec<Expr> {
    let (mut found, mut pending) = (Vec::new(), vec![right, left]);
    while let Some(term) = pending.pop() {
        match term {
            Expr::BinaryExpr(BinaryExpr { left, op: inner, right }) if inner == op => pending.extend([*right, *left]),
            other => found.push(other),
        }
    }
    found
}

/// The terms put together by `op`, in a tree that is as flat as it can be; nothing of no terms.
pub fn together(op: Operator, mut terms: Vec<Expr>) -> Option<Expr> {
    while terms.len() > 1 {
        let mut rest = terms.into_iter();
        let mut pairs = Vec::with_capacity(rest.len().div_ceil(2));
        while let Some(left) = rest.next() {
            pairs.push(match rest.next() {
                Some(right) => Expr::BinaryExpr(BinaryExpr::new(Box::new(left), op, Box::new(right))),
                None => left,
            });
        }
        terms = pairs;
    }
    terms.pop()
}

/// A condition whose terms are in a flat tree, if they were in a deep one.
///
/// Where DataFusion puts terms together, each holds all before it: what walks such a tree needs a stack as deep as the
/// condition is long, and its simplifier looks for each term in all before it.
pub fn balanced(condition: Expr) -> Transformed<Expr> {
    match condition {
        Expr::BinaryExpr(BinaryExpr { left, op: op @ (Operator::And | Operator::Or), right })
            if depth(&left, op) >= MIN_DEPTH =>
        {
            // There are two at least; of none it would be what AND and OR are of none.
            Transformed::yes(together(op, terms(op, *left, *right)).unwrap_or_else(|| lit(op == Operator::And)))
        }
        other => Transformed::no(other),
    }
}

/// How many `op` stand one behind the other, counted no further than needed.
fn depth(mut expr: &Expr, op: Operator) -> usize {
    let mut depth = 0;
    while let Expr::BinaryExpr(BinaryExpr { left, op: inner, right: _ }) = expr
        && *inner == op
        && depth < MIN_DEPTH
    {
        depth += 1;
        expr = left;
    }
    depth
}

#[cfg(test)]
mod tests {
    use datafusion::logical_expr::{BinaryExpr, Expr, Operator, col};

    use super::{balanced, terms};

    #[test]
    fn a_deep_condition_becomes_flat_and_keeps_the_order_of_its_terms() {
        let columns: Vec<Expr> = (0..1_000).map(|at| col(format!("c{at}"))).collect();
        for op in [Operator::And, Operator::Or] {
            let binary =
                |left: Expr, right: Expr| Expr::BinaryExpr(BinaryExpr::new(Box::new(left), op, Box::new(right)));
            let deep = columns.iter().cloned().reduce(binary).unwrap();
            let flat = balanced(deep);
            assert!(flat.transformed);
            assert!(!balanced(flat.data.clone()).transformed);
            let Expr::BinaryExpr(BinaryExpr { left, op: _, right }) = flat.data else { panic!("no tree") };
            assert_eq!(terms(op, *left, *right), columns);
        }
    }
}
