//! What the prover says of a node.

use std::collections::VecDeque;

use datafusion::common::DFSchema;
use datafusion::logical_expr::{Expr, ExprSchemable};

use crate::plan::keys::expr::{KeyExpr, exact};
use crate::plan::prove::rule::Rules;

/// What a node's chunk-k rows are.
#[derive(Debug, Clone)]
pub enum Property {
    /// The whole result, in every chunk.
    Replicated {
        /// Why computing it twice could give different rows, if it could.
        unstable: Option<String>,
    },
    /// Exactly those rows of the whole whose key is in chunk k.
    Partitioned {
        /// Where each key is among the node's columns.
        keys: Vec<Key>,
    },
}

/// One key, as far as it is visible among a node's columns.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Key {
    /// As the task names it.
    pub name: String,
    /// Expressions over the columns that hash as the key does in every row. A full join leaves `coalesce(a, b)` of it.
    pub exprs: Vec<KeyExpr>,
    /// Whether there are more of them, which were left out.
    pub left_out: bool,
}

/// Of what equals a key so many expressions are kept that are not bare columns, the shortest: two columns of one value
/// each double them, and `k = k * k` has no end of them.
pub const MOST_EXPRESSIONS: usize = 32;

/// In one filter or join, equalities are put into what equals a key so many times.
const MOST_SUBSTITUTIONS: usize = 1 << 16;

impl Key {
    /// A key that is one expression.
    pub fn new(name: &str, expr: KeyExpr) -> Self {
        Self { exprs: vec![expr], ..Self::invisible(name) }
    }

    /// A key that no column carries.
    pub fn invisible(name: &str) -> Self {
        Self { name: name.to_string(), exprs: Vec::new(), left_out: false }
    }

    /// The same key, not carried by any expression yet.
    pub fn without_exprs(&self) -> Self {
        Self { left_out: self.left_out, ..Self::invisible(&self.name) }
    }

    /// Whether some columns still determine the key.
    pub fn is_visible(&self) -> bool {
        !self.exprs.is_empty()
    }

    /// Adds an expression, unless it is too long, or there are enough that are shorter.
    pub fn add(&mut self, expr: KeyExpr) {
        self.insert(expr);
    }

    /// As [`Key::add`]; true when it was added.
    fn insert(&mut self, expr: KeyExpr) -> bool {
        if self.exprs.contains(&expr) {
            return false;
        }
        if expr.is_too_long() {
            self.left_out = true;
            return false;
        }
        if expr.as_column().is_none() {
            let others = self.exprs.iter().enumerate().filter(|(_, other)| other.as_column().is_none());
            if others.clone().count() >= MOST_EXPRESSIONS {
                self.left_out = true;
                let longest = others.max_by_key(|(_, other)| other.parts()).map(|(at, other)| (at, other.parts()));
                match longest {
                    Some((at, parts)) if parts > expr.parts() => drop(self.exprs.remove(at)),
                    _ => return false,
                }
            }
        }
        self.exprs.push(expr);
        true
    }

    /// The key among the values of `exprs`, over columns of `schema`.
    pub fn among<'e>(&self, exprs: impl IntoIterator<Item = &'e Expr>, schema: &DFSchema, rules: Rules) -> Self {
        let exprs: Vec<&Expr> = exprs.into_iter().collect();
        let mut key = self.without_exprs();
        let column = |at: usize| Some(KeyExpr::column(at, &exprs[at].get_type(schema).ok()?));
        for (at, expr) in exprs.iter().enumerate() {
            if KeyExpr::of(expr, schema, rules).is_some_and(|carried| self.exprs.contains(&carried)) {
                column(at).into_iter().for_each(|column| key.add(column));
            }
        }
        // `date_trunc('day', t)` outlives a projection that keeps `t`.
        let values: Vec<Option<Expr>> = exprs.iter().map(|expr| exact(expr, schema, rules)).collect();
        for expr in &self.exprs {
            let moved = expr.replaced(|part| {
                // A constant stands for itself, whatever column has the same value.
                let is_value =
                    |value: &Option<Expr>| value.as_ref() == Some(part) && !matches!(part, Expr::Literal(..));
                let at = values.iter().position(is_value)?;
                column(at).map(|column| column.expr().clone())
            });
            moved.into_iter().for_each(|moved| key.add(moved));
        }
        key
    }

    /// The key after each column moved to the positions that `positions` gives.
    pub fn moved(&self, positions: impl Fn(usize) -> Vec<usize>) -> Self {
        let mut key = self.without_exprs();
        for expr in &self.exprs {
            match expr.as_column() {
                Some(at) => {
                    let columns = positions(at).into_iter().map(|at| KeyExpr::column(at, expr.data_type()));
                    columns.for_each(|column| key.add(column));
                }
                None => {
                    let moved = expr.moved(|at| positions(at).first().copied());
                    moved.into_iter().for_each(|expr| key.add(expr));
                }
            }
        }
        key
    }

    /// Adds what is equal to the key where these pairs are equal in every row.
    pub fn unite(&mut self, pairs: &[(KeyExpr, KeyExpr)]) {
        let mut pending: VecDeque<KeyExpr> = self.exprs.iter().cloned().collect();
        let mut left = MOST_SUBSTITUTIONS;
        while let Some(known) = pending.pop_front() {
            for (a, b) in pairs.iter().flat_map(|(a, b)| [(a, b), (b, a)]) {
                let Some(less) = left.checked_sub(1) else {
                    self.left_out = true;
                    return;
                };
                left = less;
                let equal = if &known == a {
                    Some(b.clone())
                } else if a.data_type() == b.data_type() && a.parts() < known.parts() && !b.has(a.expr()) {
                    // Not into itself: of `k = k * k` that would have no end.
                    known.substituted(a.expr(), b.expr())
                } else {
                    None
                };
                if let Some(equal) = equal
                    && self.insert(equal.clone())
                {
                    pending.push_back(equal);
                }
            }
        }
    }
}

impl Property {
    /// What `exprs`, over columns of `schema`, make of the property.
    pub fn through<'e>(
        &self,
        exprs: impl IntoIterator<Item = &'e Expr> + Clone,
        schema: &DFSchema,
        rules: Rules,
    ) -> Self {
        match self {
            Self::Replicated { unstable } => Self::Replicated { unstable: unstable.clone() },
            Self::Partitioned { keys } => {
                Self::Partitioned { keys: keys.iter().map(|key| key.among(exprs.clone(), schema, rules)).collect() }
            }
        }
    }

    /// One expression for each key, a column where there is one, if all of them are visible.
    pub fn visible(&self) -> Option<Vec<KeyExpr>> {
        let Self::Partitioned { keys } = self else { return None };
        let one = |key: &Key| {
            let column = key.exprs.iter().find(|expr| expr.as_column().is_some());
            column.or(key.exprs.first()).cloned()
        };
        keys.iter().map(one).collect()
    }

    /// Whether more equals a key than is kept.
    pub fn left_out(&self) -> bool {
        matches!(self, Self::Partitioned { keys } if keys.iter().any(|key| key.left_out))
    }

    /// The property in words for EXPLAIN.
    pub fn in_words(&self, schema: &DFSchema) -> String {
        match self {
            Self::Replicated { unstable: None } => "whole in every chunk".into(),
            Self::Replicated { unstable: Some(why) } => format!("whole in every chunk, but {why}"),
            Self::Partitioned { keys } if !all_visible(keys) => "cut; the keys are no longer visible".into(),
            Self::Partitioned { keys } => {
                let of_predicates = |key: &Key| key.exprs.iter().any(|expr| expr.predicates().is_some());
                let by = if keys.iter().any(of_predicates) { "cut by predicates over" } else { "cut by" };
                let more = if self.left_out() { ", and more that equals it, which is left out" } else { "" };
                format!("{by} {}{more}", named(keys, schema))
            }
        }
    }
}

/// Whether every key is determined by visible columns.
pub fn all_visible(keys: &[Key]) -> bool {
    keys.iter().all(Key::is_visible)
}

/// The keys by column name, as `a` or `(a, b)`: the task's own name for it where a column has that.
pub fn named(keys: &[Key], schema: &DFSchema) -> String {
    let name = |key: &Key| {
        let column =
            |at: usize| schema.fields().get(at).map_or_else(|| format!("column {at}"), |field| field.name().clone());
        let own = key.exprs.iter().find(|e| e.as_column().is_some_and(|at| column(at) == key.name));
        let bare = || key.exprs.iter().find(|e| e.as_column().is_some());
        match own.or_else(bare).or(key.exprs.first()) {
            Some(expr) => expr.shown(column),
            None => format!("{} (not visible here)", key.name),
        }
    };
    match keys {
        [key] => name(key),
        keys => format!("({})", keys.iter().map(name).collect::<Vec<_>>().join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use arrow::datatypes::{DataType, Field, Schema};
    use datafusion::common::DFSchema;
    use datafusion::logical_expr::{Expr, col, lit};

    use super::{Key, MOST_EXPRESSIONS};
    use crate::plan::keys::expr::KeyExpr;
    use crate::plan::prove::rule::Rules;

    fn key(expr: &Expr) -> KeyExpr {
        let columns = ["k", "v", "w"].map(|name| Field::new(name, DataType::Int64, true));
        let schema = DFSchema::try_from(Schema::new(columns.to_vec())).unwrap();
        KeyExpr::of(expr, &schema, Rules::default()).unwrap()
    }

    fn united(pairs: &[(Expr, Expr)]) -> Key {
        let mut united = Key::new("k", key(&col("k")));
        united.unite(&pairs.iter().map(|(a, b)| (key(a), key(b))).collect::<Vec<_>>());
        united
    }

    #[test]
    fn what_equals_a_key_is_added_as_far_as_it_is_short_and_not_too_much() {
        let square = |name: &str| col(name) * col(name);
        let is_as_said = |pairs: &[(Expr, Expr)], count: usize, left_out: bool| {
            let found = united(pairs);
            assert_eq!((found.exprs.len(), found.left_out), (count, left_out), "{pairs:?}: {found:?}");
        };
        is_as_said(&[(col("k"), square("k"))], 2, false);
        is_as_said(&[(col("k"), col("v")), (col("v"), col("w"))], 3, false);
        is_as_said(&[(col("k"), col("v") + lit(1)), (col("v"), col("w") - lit(1))], 3, false);
        // One equality put into the other has no end: these double each time, those below grow by one.
        is_as_said(&[(col("k"), square("v")), (col("v"), square("k"))], 7, true);
        is_as_said(&[(col("k"), col("v") + lit(1)), (col("v"), col("k") + lit(1))], 1 + MOST_EXPRESSIONS, true);
        // Columns stay, however many expressions there are.
        let mut pairs: Vec<(Expr, Expr)> = (0..99).map(|at| (col("k"), col("v") + lit(at))).collect();
        pairs.push((col("k"), col("w")));
        is_as_said(&pairs, 2 + MOST_EXPRESSIONS, true);
    }
}
