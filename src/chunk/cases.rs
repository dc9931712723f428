//! Chunks that are given by predicates over the keys.
//!
//! Chunk 0 has the rows for which no predicate holds and those whose keys are all NULL; chunk k those for which the k-th
//! predicate is the first that holds. So the chunks cover all rows and share none whatever the predicates are, and equal
//! keys share a chunk.

use arrow::datatypes::DataType;
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::logical_expr::expr::Case;
use datafusion::logical_expr::{Expr, lit};

/// Predicates over keys of these types, which stand for bare columns of these names in them.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Cases {
    keys: Vec<(String, DataType)>,
    predicates: Vec<Expr>,
    /// Whether at most one predicate holds for a row.
    is_disjoint: bool,
}

impl Cases {
    /// Predicates, of which several may hold for a row, unless they are disjoint.
    pub fn new(keys: Vec<(String, DataType)>, predicates: Vec<Expr>, is_disjoint: bool) -> Self {
        Self { keys, predicates, is_disjoint }
    }

    /// Number of chunks: one more than predicates.
    pub fn chunks(&self) -> u32 {
        u32::try_from(self.predicates.len() + 1).unwrap_or(u32::MAX)
    }

    /// Types of the keys.
    pub fn types(&self) -> impl Iterator<Item = &DataType> {
        self.keys.iter().map(|(_, data_type)| data_type)
    }

    /// Whether a row with these keys is in chunk `chunk`; never NULL for a row that is.
    pub fn predicate(&self, chunk: u32, keys: &[Expr]) -> Expr {
        let is_not = |other: &Expr| over(other, &self.keys, keys).is_not_true();
        match (chunk, self.deciding(chunk)) {
            (1.., [earlier @ .., own]) => {
                earlier.iter().map(is_not).fold(over(own, &self.keys, keys).and(is_some_key(keys)), Expr::and)
            }
            (_, all) => {
                let none = all.iter().map(is_not).reduce(Expr::and).unwrap_or_else(|| lit(true));
                none.or(is_some_key(keys).is_not_true())
            }
        }
    }

    /// The chunk of a row with these keys, as an `Int32`, never NULL.
    pub fn number(&self, keys: &[Expr]) -> Expr {
        let mut cases = vec![(Box::new(is_some_key(keys).is_not_true()), Box::new(lit(0i32)))];
        cases.extend(
            (1i32..)
                .zip(&self.predicates)
                .map(|(chunk, predicate)| (Box::new(over(predicate, &self.keys, keys)), Box::new(lit(chunk)))),
        );
        Expr::Case(Case::new(None, cases, Some(Box::new(lit(0i32)))))
    }

    /// The keys.
    pub fn keys(&self) -> &[(String, DataType)] {
        &self.keys
    }

    /// All predicates, over the keys by name.
    pub fn predicates(&self) -> &[Expr] {
        &self.predicates
    }

    /// The predicates that decide whether a row is in chunk `chunk`, its own last; for chunk 0 that is all of them.
    pub fn deciding(&self, chunk: u32) -> &[Expr] {
        match chunk as usize {
            0 => &self.predicates,
            at if self.is_disjoint => &self.predicates[at - 1..at],
            at => &self.predicates[..at],
        }
    }
}

/// Whether a key is not NULL; never NULL itself.
fn is_some_key(keys: &[Expr]) -> Expr {
    keys.iter().map(|key| key.clone().is_not_null()).reduce(Expr::or).unwrap_or_else(|| lit(true))
}

/// A predicate with the keys in place of their names.
fn over(predicate: &Expr, names: &[(String, DataType)], keys: &[Expr]) -> Expr {
    let key = |part: Expr| match &part {
        Expr::Column(column) => match names.iter().position(|(name, _)| *name == column.name) {
            Some(at) => Ok(Transformed::yes(keys[at].clone())),
            None => Ok(Transformed::no(part)),
        },
        _ => Ok(Transformed::no(part)),
    };
    // The closure never fails. Keys that have a column of such a name are not looked into again: from the inside out.
    predicate.clone().transform_up(key).map_or_else(|_| predicate.clone(), |found| found.data)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{Array, ArrayRef, AsArray, Int64Array, RecordBatch};
    use arrow::datatypes::{DataType, Int32Type};
    use datafusion::common::DFSchema;
    use datafusion::logical_expr::{Expr, col, lit};
    use datafusion::prelude::SessionContext;

    use super::Cases;

    fn values(expr: Expr, batch: &RecordBatch) -> ArrayRef {
        let schema = DFSchema::try_from(batch.schema()).unwrap();
        let expr = SessionContext::new().create_physical_expr(expr, &schema).unwrap();
        expr.evaluate(batch).unwrap().into_array(batch.num_rows()).unwrap()
    }

    #[test]
    fn every_row_is_in_the_chunk_that_it_is_numbered_with_and_in_no_other() {
        let keys = vec![("a".to_string(), DataType::Int64), ("b".to_string(), DataType::Int64)];
        let some = |values: &[Option<i64>]| Arc::new(Int64Array::from(values.to_vec())) as ArrayRef;
        let a = some(&[Some(1), Some(5), None, Some(9), None, Some(12), Some(5)]);
        let b = some(&[Some(1), None, None, Some(9), Some(3), Some(0), Some(7)]);
        let batch = RecordBatch::try_from_iter([("a", a), ("b", b)]).unwrap();
        let overlapping = vec![col("a").lt(lit(6i64)), col("b").gt(lit(2i64)), col("b").is_null()];
        let disjoint = vec![col("a").lt(lit(6i64)), col("a").gt(lit(10i64))];
        for (predicates, is_disjoint) in
            [(overlapping, false), (disjoint.clone(), true), (disjoint, false), (vec![], true)]
        {
            let cases = Cases::new(keys.clone(), predicates, is_disjoint);
            let columns = vec![col("a"), col("b")];
            let numbers = values(cases.number(&columns), &batch);
            let numbers = numbers.as_primitive::<Int32Type>();
            assert_eq!((numbers.null_count(), numbers.value(2)), (0, 0), "{cases:?}");
            for chunk in 0..cases.chunks() {
                let is_in = values(cases.predicate(chunk, &columns), &batch);
                for row in 0..batch.num_rows() {
                    let is_in = is_in.is_valid(row) && is_in.as_boolean().value(row);
                    assert_eq!(is_in, numbers.value(row) as u32 == chunk, "chunk {chunk}, row {row} of {cases:?}");
                }
            }
        }
    }
}
