//! What the prover says of a node.

use std::collections::BTreeSet;

use datafusion::common::DFSchema;
use datafusion::logical_expr::Expr;

use crate::plan::keys::{coalesced_columns, passed_column};

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
    /// Columns that equal the key in every row.
    pub columns: BTreeSet<usize>,
    /// Pairs of columns of which the first that is not NULL equals the key: what a full join leaves of it.
    pub coalesced: BTreeSet<(usize, usize)>,
}

impl Key {
    /// A key that is one column.
    pub fn column(name: &str, column: usize) -> Self {
        Self { name: name.to_string(), columns: BTreeSet::from([column]), coalesced: BTreeSet::new() }
    }

    /// Whether some columns still determine the key.
    pub fn is_visible(&self) -> bool {
        !self.columns.is_empty() || !self.coalesced.is_empty()
    }

    /// Whether `expr`, over the columns of `schema`, equals the key in every row.
    pub fn is(&self, expr: &Expr, schema: &DFSchema) -> bool {
        match passed_column(expr, schema) {
            Some(column) => self.columns.contains(&column),
            None => coalesced_columns(expr, schema)
                .is_some_and(|(a, b)| self.coalesced.contains(&(a, b)) || self.coalesced.contains(&(b, a))),
        }
    }

    /// The key among the values of `exprs`, over columns of `schema`.
    pub fn among<'e>(&self, exprs: impl IntoIterator<Item = &'e Expr>, schema: &DFSchema) -> Self {
        let exprs: Vec<&Expr> = exprs.into_iter().collect();
        let passed: Vec<_> = exprs.iter().map(|e| passed_column(e, schema)).collect();
        let positions_of = |column| (0..passed.len()).filter(|i| passed[*i] == Some(column)).collect();
        Self {
            name: self.name.clone(),
            columns: (0..exprs.len()).filter(|i| self.is(exprs[*i], schema)).collect(),
            coalesced: self.pairs(positions_of),
        }
    }

    /// The key after each column moved to the positions that `positions` gives.
    pub fn moved(&self, positions: impl Fn(usize) -> Vec<usize>) -> Self {
        Self {
            name: self.name.clone(),
            columns: self.columns.iter().flat_map(|c| positions(*c)).collect(),
            coalesced: self.pairs(&positions),
        }
    }

    fn pairs(&self, positions: impl Fn(usize) -> Vec<usize>) -> BTreeSet<(usize, usize)> {
        let moved = |(a, b): &(usize, usize)| {
            let seconds = positions(*b);
            positions(*a).into_iter().flat_map(move |a| seconds.clone().into_iter().map(move |b| (a, b)))
        };
        self.coalesced.iter().flat_map(moved).collect()
    }
}

impl Property {
    /// What `exprs`, over columns of `schema`, make of the property.
    pub fn through<'e>(&self, exprs: impl IntoIterator<Item = &'e Expr> + Clone, schema: &DFSchema) -> Self {
        match self {
            Self::Replicated { unstable } => Self::Replicated { unstable: unstable.clone() },
            Self::Partitioned { keys } => {
                Self::Partitioned { keys: keys.iter().map(|key| key.among(exprs.clone(), schema)).collect() }
            }
        }
    }

    /// The property in words for EXPLAIN.
    pub fn in_words(&self, schema: &DFSchema) -> String {
        match self {
            Self::Replicated { unstable: None } => "whole in every chunk".into(),
            Self::Replicated { unstable: Some(why) } => format!("whole in every chunk, but {why}"),
            Self::Partitioned { keys } if !all_visible(keys) => "cut; the keys are no longer visible".into(),
            Self::Partitioned { keys } => format!("cut by {}", named(keys, schema)),
        }
    }
}

/// Whether every key is determined by visible columns.
pub fn all_visible(keys: &[Key]) -> bool {
    keys.iter().all(Key::is_visible)
}

/// Adds to each key the columns that are equal to one of its own.
pub fn unite_equal(keys: &mut [Key], pairs: &[(usize, usize)]) {
    for Key { columns, .. } in keys {
        loop {
            let before = columns.len();
            for (a, b) in pairs {
                if columns.contains(a) || columns.contains(b) {
                    columns.extend([a, b]);
                }
            }
            if columns.len() == before {
                break;
            }
        }
    }
}

/// The keys by column name, as `a` or `(a, b)`: the task's own name for it where a column has that.
pub fn named(keys: &[Key], schema: &DFSchema) -> String {
    let name = |key: &Key| {
        let column = |c: usize| schema.field(c).name().as_str();
        let own = key.columns.iter().find(|c| column(**c) == key.name).or(key.columns.first());
        match (own, key.coalesced.first()) {
            (Some(own), _) => column(*own).to_string(),
            (None, Some((a, b))) => format!("coalesce({}, {})", column(*a), column(*b)),
            (None, None) => format!("{} (not visible here)", key.name),
        }
    };
    match keys {
        [key] => name(key),
        keys => format!("({})", keys.iter().map(name).collect::<Vec<_>>().join(", ")),
    }
}
