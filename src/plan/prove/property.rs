//! What the prover says of a node.

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
}

impl Key {
    /// A key that is one expression.
    pub fn new(name: &str, expr: KeyExpr) -> Self {
        Self { name: name.to_string(), exprs: vec![expr] }
    }

    /// Whether some columns still determine the key.
    pub fn is_visible(&self) -> bool {
        !self.exprs.is_empty()
    }

    /// Adds an expression, unless there are many already: two columns of one value each double them.
    pub fn add(&mut self, expr: KeyExpr) {
        const MOST: usize = 32;
        if self.exprs.len() < MOST && !self.exprs.contains(&expr) {
            self.exprs.push(expr);
        }
    }

    /// The key among the values of `exprs`, over columns of `schema`.
    pub fn among<'e>(&self, exprs: impl IntoIterator<Item = &'e Expr>, schema: &DFSchema, rules: Rules) -> Self {
        let exprs: Vec<&Expr> = exprs.into_iter().collect();
        let mut key = Self { name: self.name.clone(), exprs: Vec::new() };
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
        let mut key = Self { name: self.name.clone(), exprs: Vec::new() };
        for expr in &self.exprs {
            match expr.as_column() {
                Some(at) => {
                    positions(at).into_iter().for_each(|at| key.add(KeyExpr::column(at, expr.data_type())));
                }
                None => {
                    expr.moved(|at| positions(at).first().copied()).into_iter().for_each(|expr| key.add(expr));
                }
            }
        }
        key
    }

    /// Adds what is equal to the key where these pairs are equal in every row.
    pub fn unite(&mut self, pairs: &[(KeyExpr, KeyExpr)]) {
        let mut at = 0;
        while let Some(known) = self.exprs.get(at).cloned() {
            for (a, b) in pairs.iter().flat_map(|(a, b)| [(a, b), (b, a)]) {
                if &known == a {
                    self.add(b.clone());
                } else if a.data_type() == b.data_type() {
                    known.substituted(a.expr(), b.expr()).into_iter().for_each(|new| self.add(new));
                }
            }
            at += 1;
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

    /// The property in words for EXPLAIN.
    pub fn in_words(&self, schema: &DFSchema) -> String {
        match self {
            Self::Replicated { unstable: None } => "whole in every chunk".into(),
            Self::Replicated { unstable: Some(why) } => format!("whole in every chunk, but {why}"),
            Self::Partitioned { keys } if !all_visible(keys) => "cut; the keys are no longer visible".into(),
            Self::Partitioned { keys } => {
                let of_predicates = |key: &Key| key.exprs.iter().any(|expr| expr.predicates().is_some());
                let by = if keys.iter().any(of_predicates) { "cut by predicates over" } else { "cut by" };
                format!("{by} {}", named(keys, schema))
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
        let column = |at: usize| schema.field(at).name().clone();
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
