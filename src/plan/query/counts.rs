//! Counts and positions inside of expressions.
//!
//! DataFusion's `cardinality(l)`, `row_number() OVER (…)` and the like are unsigned integers. Beside a BIGINT they
//! become a DECIMAL, which `l[…]`, `substr`, `range` and others don't take, and a difference fails where it is
//! negative. As operands and arguments they are BIGINT here; by themselves they keep their type.

use std::ops::ControlFlow;

use datafusion::logical_expr::planner::ContextProvider;
use sqlparser::ast::{
    ArrayElemTypeDef, BinaryOperator, CastKind, DataType, Expr, Function, Query, UnaryOperator, Value, VisitMut,
    VisitorMut,
};

use crate::plan::query::syntax::normalised;

/// Functions, aggregates and windows that give a count or a position.
const COUNTS: [&str; 10] = [
    "cardinality",
    "array_length",
    "array_ndims",
    "array_position",
    "approx_distinct",
    "regr_count",
    "row_number",
    "rank",
    "dense_rank",
    "ntile",
];

/// Functions that give a list of them.
const LISTS: [&str; 2] = ["array_positions", "array_dims"];

/// Makes counts that are operands or arguments BIGINT.
pub(super) fn widen(query: &mut Query, tables: &dyn ContextProvider) {
    let _ = query.visit(&mut Widen { tables, around: Vec::new() });
}

struct Widen<'a> {
    tables: &'a dyn ContextProvider,
    /// For each expression around the visited place, whether what it is made of are operands or arguments.
    around: Vec<bool>,
}

impl VisitorMut for Widen<'_> {
    type Break = ();

    fn pre_visit_query(&mut self, _: &mut Query) -> ControlFlow<()> {
        self.around.push(false);
        ControlFlow::Continue(())
    }

    fn post_visit_query(&mut self, _: &mut Query) -> ControlFlow<()> {
        self.around.pop();
        ControlFlow::Continue(())
    }

    fn pre_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<()> {
        self.around.push(match expr {
            Expr::Nested(_) => self.is_operand(),
            other => has_operands(other),
        });
        ControlFlow::Continue(())
    }

    fn post_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<()> {
        self.around.pop();
        if self.is_operand() && self.is_one_of(expr, &COUNTS) {
            cast(expr, DataType::BigInt(None));
        }
        if let Expr::CompoundFieldAccess { root, access_chain: _ } = expr
            && self.is_one_of(root, &LISTS)
        {
            let list = ArrayElemTypeDef::SquareBracket(Box::new(DataType::BigInt(None)), None);
            cast(root, DataType::Array(list));
        }
        ControlFlow::Continue(())
    }
}

impl Widen<'_> {
    fn is_operand(&self) -> bool {
        self.around.last().copied().unwrap_or(false)
    }

    /// Whether an expression is a call of one of these functions, by whichever of its names.
    fn is_one_of(&self, expr: &Expr, functions: &[&str]) -> bool {
        let Some(name) = called(expr) else { return false };
        let scalar = self.tables.get_function_meta(&name).map(|function| function.name().to_string());
        functions.contains(&scalar.unwrap_or(name).as_str())
    }
}

/// The name of the function that an expression calls.
fn called(expr: &Expr) -> Option<String> {
    let Expr::Function(Function { name, .. }) = expr else { return None };
    match name.0.as_slice() {
        [name] => name.as_ident().map(normalised),
        _ => None,
    }
}

/// Whether what an expression is made of are operands or arguments. Those of comparisons are not changed: they compare
/// rightly with any integer.
fn has_operands(expr: &Expr) -> bool {
    match expr {
        Expr::BinaryOp { op, .. } => matches!(
            op,
            BinaryOperator::Plus
                | BinaryOperator::Minus
                | BinaryOperator::Multiply
                | BinaryOperator::Divide
                | BinaryOperator::Modulo
                | BinaryOperator::BitwiseAnd
                | BinaryOperator::BitwiseOr
                | BinaryOperator::BitwiseXor
                | BinaryOperator::PGBitwiseXor
                | BinaryOperator::PGBitwiseShiftLeft
                | BinaryOperator::PGBitwiseShiftRight
        ),
        Expr::UnaryOp { op, .. } => matches!(op, UnaryOperator::Minus | UnaryOperator::BitwiseNot),
        // Its arguments are found among the groups as they are written there.
        Expr::Function(_) => called(expr).is_none_or(|name| name != "grouping"),
        Expr::Case { .. } | Expr::CompoundFieldAccess { .. } | Expr::Overlay { .. } | Expr::Substring { .. } => true,
        _ => false,
    }
}

fn cast(expr: &mut Expr, data_type: DataType) {
    let counted = std::mem::replace(expr, Expr::Value(Value::Null.into()));
    *expr = Expr::Cast { kind: CastKind::Cast, expr: Box::new(counted), data_type, array: false, format: None };
}
