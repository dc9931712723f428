//! A number for each row, the same for equal values: what orders values that can't be sorted, and many at once.

use std::sync::Arc;

use arrow::array::UInt64Array;
use arrow::datatypes::DataType;
use arrow::row::{RowConverter, SortField};
use datafusion::common::{Result, exec_err};
use datafusion::logical_expr::{
    ColumnarValue, Expr, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility,
};
use xxhash_rust::xxh3::xxh3_64;

/// The hash of these values of a row, as an unsigned integer of 64 bits. It is the same in every process.
pub fn row_hash(values: Vec<Expr>) -> Expr {
    ScalarUDF::new_from_impl(RowHash { signature: Signature::variadic_any(Volatility::Immutable) }).call(values)
}

/// The SQL function of [`row_hash`]; for plans only, no session has it by name.
#[derive(Debug, PartialEq, Eq, Hash)]
struct RowHash {
    signature: Signature,
}

impl ScalarUDFImpl for RowHash {
    fn name(&self) -> &str {
        "row_hash"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _arg_types: &[DataType]) -> Result<DataType> {
        Ok(DataType::UInt64)
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let columns = args.args.iter().map(|arg| arg.to_array(args.number_rows)).collect::<Result<Vec<_>>>()?;
        let fields: Vec<SortField> = columns.iter().map(|column| SortField::new(column.data_type().clone())).collect();
        if !RowConverter::supports_fields(&fields) {
            let types: Vec<_> = columns.iter().map(|column| column.data_type().to_string()).collect();
            return exec_err!("rows of {} have no order; select other columns, or add ORDER BY", types.join(", "));
        }
        let rows = RowConverter::new(fields)?.convert_columns(&columns)?;
        let hashes = UInt64Array::from_iter_values(rows.iter().map(|row| xxh3_64(row.as_ref())));
        Ok(ColumnarValue::Array(Arc::new(hashes)))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{ArrayRef, AsArray, Int32Array, RecordBatch, StringArray, StringViewArray};
    use arrow::datatypes::UInt64Type;
    use datafusion::common::DFSchema;
    use datafusion::logical_expr::col;
    use datafusion::prelude::SessionContext;

    use super::row_hash;

    #[test]
    fn equal_rows_have_one_hash_in_any_batch_and_encoding() {
        let numbers = Arc::new(Int32Array::from(vec![Some(1), None, Some(1), Some(2)])) as ArrayRef;
        let texts = ["a", "a", "a", "ab"];
        let hashes = |texts: ArrayRef, from: usize| {
            let batch = RecordBatch::try_from_iter([("n", Arc::clone(&numbers)), ("s", texts)]).unwrap();
            let batch = batch.slice(from, batch.num_rows() - from);
            let schema = DFSchema::try_from(batch.schema()).unwrap();
            let hash = row_hash(vec![col("n"), col("s")]);
            let hash = SessionContext::new().create_physical_expr(hash, &schema).unwrap();
            let found = hash.evaluate(&batch).unwrap().into_array(batch.num_rows()).unwrap();
            found.as_primitive::<UInt64Type>().values().to_vec()
        };
        let found = hashes(Arc::new(StringArray::from(texts.to_vec())), 0);
        assert!(found[0] == found[2] && found[0] != found[1] && found[0] != found[3]);
        assert_eq!(hashes(Arc::new(StringViewArray::from(texts.to_vec())), 1), found[1..]);
        // Rows that tie are chosen by it: where it changes, the semantics version has to.
        assert_eq!(found[3], 9_678_370_673_456_498_756);
    }
}
