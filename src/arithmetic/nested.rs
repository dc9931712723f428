//! The order of lists and structs.
//!
//! DataFusion 55 has several. It compares by one in which a NULL inside is the smallest, sorts by one in which it is where
//! NULLS FIRST or LAST says NULLs are, and skips by the first what it sorts by the second: `ORDER BY l LIMIT 2` loses
//! rows. Here a NULL inside is larger than all else, as in PostgreSQL and DuckDB: values are compared by bytes that have
//! that order, those of arrow's row format.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, BinaryArray};
use arrow::compute::SortOptions;
use arrow::datatypes::DataType;
use arrow::row::{RowConverter, SortField};
use datafusion::common::{DFSchema, Result, ScalarValue, internal_err};
use datafusion::logical_expr::expr::Between;
use datafusion::logical_expr::{
    BinaryExpr, ColumnarValue, Expr, ExprSchemable, Operator, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature,
    Volatility,
};

/// Compares lists and structs in order, where a part of an expression over `schema` compares such.
pub fn compare_in_order(part: &mut Expr, schema: &DFSchema) {
    let ordered = |value: &mut Box<Expr>| **value = in_order(std::mem::take(value.as_mut()), schema).0;
    match part {
        Expr::BinaryExpr(BinaryExpr {
            left,
            op: Operator::Lt | Operator::LtEq | Operator::Gt | Operator::GtEq,
            right,
        }) => {
            ordered(left);
            ordered(right);
        }
        Expr::Between(Between { expr, negated: _, low, high }) => {
            ordered(expr);
            ordered(low);
            ordered(high);
        }
        _ => {}
    }
}

/// The bytes that have the order of a list or struct, and whether it is one.
pub fn in_order(expr: Expr, schema: &DFSchema) -> (Expr, bool) {
    let has_order = expr.get_type(schema).is_ok_and(|data_type| data_type.is_nested() && converter(&data_type).is_ok());
    match has_order {
        true => (ScalarUDF::new_from_impl(InOrder::new()).call(vec![expr]), true),
        false => (expr, false),
    }
}

fn converter(data_type: &DataType) -> Result<RowConverter> {
    let options = SortOptions { descending: false, nulls_first: false };
    Ok(RowConverter::new(vec![SortField::new_with_options(data_type.clone(), options)])?)
}

/// Bytes in the order of the values that they are of.
#[derive(Debug, PartialEq, Eq, Hash)]
struct InOrder {
    signature: Signature,
}

impl InOrder {
    fn new() -> Self {
        Self { signature: Signature::any(1, Volatility::Immutable) }
    }
}

impl ScalarUDFImpl for InOrder {
    fn name(&self) -> &str {
        "in_order"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(DataType::Binary)
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let [value] = args.args.as_slice() else {
            return internal_err!("in_order has {} arguments", args.args.len());
        };
        let is_scalar = matches!(value, ColumnarValue::Scalar(_));
        let values = value.to_array(if is_scalar { 1 } else { args.number_rows })?;
        let rows = converter(values.data_type())?.convert_columns(&[Arc::clone(&values)])?;
        let bytes = rows.try_into_binary()?;
        let (offsets, bytes, _) = bytes.into_parts();
        let bytes: ArrayRef = Arc::new(BinaryArray::try_new(offsets, bytes, values.logical_nulls())?);
        Ok(match is_scalar {
            true => ColumnarValue::Scalar(ScalarValue::try_from_array(&bytes, 0)?),
            false => ColumnarValue::Array(bytes),
        })
    }
}
