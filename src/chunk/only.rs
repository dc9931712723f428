//! Chunks that are given by predicates over each input's own columns: chunk k has of each input the rows for which its
//! predicate k holds.
//!
//! Unlike those of [`crate::chunk::cases`], such predicates need not cover the rows nor exclude each other. That exactly
//! one holds for each row is checked on the data, before a chunk runs.

use std::sync::Arc;

use arrow::array::{Array, AsArray, BooleanArray, Int32Array};
use arrow::datatypes::DataType;
use datafusion::common::{DataFusionError, Result, exec_err, plan_err};
use datafusion::logical_expr::{
    ColumnarValue, Expr, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility,
};

/// The chunk of a row by these predicates, as an `Int32`: the number of the only one that holds.
///
/// It fails for a row for which none holds, or several: the rows were checked before, so it is only a precaution.
pub fn only_chunk(predicates: Vec<Expr>) -> Expr {
    Arc::new(ScalarUDF::new_from_impl(OnlyChunk::default())).call(predicates)
}

/// The predicates of an expression that [`only_chunk`] made.
pub fn predicates_of(expr: &Expr) -> Option<&[Expr]> {
    match expr {
        Expr::ScalarFunction(f) if f.func.inner().is::<OnlyChunk>() => Some(&f.args),
        _ => None,
    }
}

/// The rows of `columns`, of which each says where a predicate holds, for which not exactly one holds: their numbers, and
/// the predicates that hold, by number. NULL is not true.
pub fn strays<'a>(columns: &'a [&BooleanArray], rows: usize) -> impl Iterator<Item = (usize, Vec<u32>)> + 'a {
    let mut holding = vec![0u32; rows];
    for column in columns {
        holding.iter_mut().enumerate().for_each(|(row, holding)| *holding += u32::from(holds(column, row)));
    }
    let strays = holding.into_iter().enumerate().filter(|(_, holding)| *holding != 1);
    strays.map(move |(row, _)| (row, (0u32..).zip(columns).filter(|(_, c)| holds(c, row)).map(|(at, _)| at).collect()))
}

fn holds(column: &BooleanArray, row: usize) -> bool {
    column.is_valid(row) && column.value(row)
}

/// The SQL function of [`only_chunk`]; for plans only, no session has it by name.
#[derive(Debug, PartialEq, Eq, Hash)]
struct OnlyChunk {
    signature: Signature,
}

impl Default for OnlyChunk {
    fn default() -> Self {
        Self { signature: Signature::user_defined(Volatility::Immutable) }
    }
}

impl ScalarUDFImpl for OnlyChunk {
    fn name(&self) -> &str {
        "only_chunk"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn coerce_types(&self, arg_types: &[DataType]) -> Result<Vec<DataType>> {
        match arg_types.iter().find(|t| !matches!(t, DataType::Boolean | DataType::Null)) {
            Some(other) => plan_err!("only_chunk takes predicates, not {other}"),
            None => Ok(vec![DataType::Boolean; arg_types.len()]),
        }
    }

    fn return_type(&self, _arg_types: &[DataType]) -> Result<DataType> {
        Ok(DataType::Int32)
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let rows = args.number_rows;
        let columns = args.args.iter().map(|arg| arg.to_array(rows)).collect::<Result<Vec<_>>>()?;
        let columns: Option<Vec<&BooleanArray>> = columns.iter().map(|column| column.as_boolean_opt()).collect();
        let Some(columns) = columns else { return exec_err!("only_chunk takes predicates") };
        if let Some((_, held)) = strays(&columns, rows).next() {
            let message =
                format!("a row for which the predicates {held:?} hold, not one, was not found before; run again");
            return Err(DataFusionError::Execution(message));
        }
        let mut numbers = vec![0i32; rows];
        for (at, column) in (0i32..).zip(&columns) {
            numbers.iter_mut().enumerate().filter(|(row, _)| holds(column, *row)).for_each(|(_, number)| *number = at);
        }
        Ok(ColumnarValue::Array(Arc::new(Int32Array::from(numbers))))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{ArrayRef, AsArray, BooleanArray, Int64Array, RecordBatch};
    use arrow::datatypes::Int32Type;
    use datafusion::common::DFSchema;
    use datafusion::logical_expr::{Expr, col, lit};
    use datafusion::prelude::SessionContext;

    use super::{only_chunk, predicates_of, strays};

    fn evaluated(predicates: Vec<Expr>, batch: &RecordBatch) -> datafusion::common::Result<ArrayRef> {
        let schema = DFSchema::try_from(batch.schema())?;
        let expr = SessionContext::new().create_physical_expr(only_chunk(predicates), &schema)?;
        expr.evaluate(batch)?.into_array(batch.num_rows())
    }

    #[test]
    fn a_row_is_in_the_chunk_of_the_only_predicate_that_holds() {
        let k = Arc::new(Int64Array::from(vec![Some(1), None, Some(7), Some(5)])) as ArrayRef;
        let batch = RecordBatch::try_from_iter([("k", k)]).unwrap();
        let thirds = vec![col("k").is_null(), col("k").lt(lit(5i64)), col("k").gt_eq(lit(5i64))];
        assert_eq!(predicates_of(&only_chunk(thirds.clone())), Some(thirds.as_slice()));
        assert_eq!(predicates_of(&thirds[0]), None);
        let numbers = evaluated(thirds.clone(), &batch).unwrap();
        assert_eq!(numbers.as_primitive::<Int32Type>().values(), &[1, 0, 2, 2]);
        for wrong in [thirds[1..].to_vec(), vec![lit(true), col("k").gt(lit(6i64))], vec![lit(false)]] {
            let message = evaluated(wrong, &batch).unwrap_err().to_string();
            assert!(message.contains("run again"), "{message}");
        }
        assert!(evaluated(vec![col("k")], &batch).is_err());
    }

    #[test]
    fn rows_of_no_predicate_and_of_several_are_found_with_the_predicates() {
        let a = BooleanArray::from(vec![Some(true), Some(true), None, Some(false)]);
        let b = BooleanArray::from(vec![Some(true), Some(false), None, Some(true)]);
        assert_eq!(strays(&[&a, &b], 4).collect::<Vec<_>>(), [(0, vec![0, 1]), (2, vec![])]);
        assert_eq!(strays(&[&a], 4).map(|(row, _)| row).collect::<Vec<_>>(), [2, 3]);
    }
}
