//! Chunks that are key ranges.
//!
//! Bounds `b1 < b2 < … < bn` cut keys into n + 1 chunks: chunk 0 has the keys below `b1` and NULL, chunk i those from `bi`
//! up to but not `b(i+1)`, and the last those from `bn` on. Any two keys that are equal share a chunk, as with the
//! bucket function; the rows of a chunk are near each other where a file is sorted or clustered by the key.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, Int32Array};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Decimal128Type, Int64Type, TimeUnit};
use datafusion::common::{Result, ScalarValue, exec_err};
use datafusion::logical_expr::{
    ColumnarValue, Expr, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility, lit,
};
use serde::{Deserialize, Serialize};

/// A key's value, ordered as SQL orders keys of its type.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum KeyValue {
    /// An integer, a number of days or of a timestamp's unit since 1970, or a decimal's unscaled value.
    Integer(i128),
    /// Compared byte by byte.
    Text(String),
}

impl KeyValue {
    /// The values of an array, `None` for NULL.
    ///
    /// `None` when keys of this type can't be cut by ranges: floats, whose order in files leaves NaN out, and types
    /// whose order is another in SQL than in Parquet's statistics.
    pub fn of(array: &ArrayRef) -> Option<Vec<Option<Self>>> {
        if !has_ranges(array.data_type()) {
            return None;
        }
        Some(match array.data_type() {
            DataType::Decimal128(_, _) => {
                array.as_primitive::<Decimal128Type>().iter().map(|value| Some(Self::Integer(value?))).collect()
            }
            DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => {
                let texts = cast(array, &DataType::Utf8View).ok()?;
                texts.as_string_view().iter().map(|text| Some(Self::Text(text?.to_string()))).collect()
            }
            DataType::Date32 => Self::of(&cast(array, &DataType::Int32).ok()?)?,
            _ => {
                let numbers = cast(array, &DataType::Int64).ok()?;
                numbers.as_primitive::<Int64Type>().iter().map(|value| Some(Self::Integer(value?.into()))).collect()
            }
        })
    }
}

/// Whether keys of a type can be cut by ranges.
pub fn has_ranges(data_type: &DataType) -> bool {
    matches!(
        data_type,
        DataType::Int8
            | DataType::Int16
            | DataType::Int32
            | DataType::Int64
            | DataType::UInt8
            | DataType::UInt16
            | DataType::UInt32
            | DataType::Date32
            | DataType::Timestamp(_, _)
            | DataType::Decimal128(_, _)
            | DataType::Utf8
            | DataType::LargeUtf8
            | DataType::Utf8View
    )
}

/// Whether keys of two types compare as their [`KeyValue`]s do.
pub fn compare_alike(a: &DataType, b: &DataType) -> bool {
    let is_text = |t: &DataType| matches!(t, DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View);
    has_ranges(a) && has_ranges(b) && (a == b || (a.is_integer() && b.is_integer()) || (is_text(a) && is_text(b)))
}

/// Where ranges begin; see the [module](self).
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Bounds {
    values: Vec<KeyValue>,
    data_type: DataType,
    /// The column whose values they are.
    column: String,
}

/// A range of keys, from its beginning up to but not its end; open where there is none. NULL is in the one without a
/// beginning.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Range<'a> {
    /// The least key.
    pub from: Option<&'a KeyValue>,
    /// What is above all keys.
    pub to: Option<&'a KeyValue>,
}

impl Bounds {
    /// Sorts bounds, values of `column` of this type, and takes each once; `None` when there is none.
    pub fn new(mut values: Vec<KeyValue>, data_type: &DataType, column: &str) -> Option<Self> {
        values.sort_unstable();
        values.dedup();
        (!values.is_empty()).then(|| Self { values, data_type: data_type.clone(), column: column.to_string() })
    }

    /// Number of chunks: one more than bounds.
    pub fn chunks(&self) -> u32 {
        u32::try_from(self.values.len() + 1).unwrap_or(u32::MAX)
    }

    /// The bounds, the least first.
    pub fn values(&self) -> &[KeyValue] {
        &self.values
    }

    /// Type of the keys that the bounds are values of; keys of types that [`compare_alike`] may be compared with them.
    pub fn data_type(&self) -> &DataType {
        &self.data_type
    }

    /// The bounds, their column and type as JSON.
    pub fn to_json(&self) -> String {
        // Plain data: it can't fail.
        serde_json::to_string(&(&self.column, self.data_type.to_string(), &self.values)).unwrap_or_default()
    }

    /// Reads what [`Bounds::to_json`] wrote for this column and type; `None` for another one or another text.
    pub fn from_json(json: &str, data_type: &DataType, column: &str) -> Option<Self> {
        let (of, written, values): (String, String, Vec<KeyValue>) = serde_json::from_str(json).ok()?;
        Self::new(values, data_type, column).filter(|_| of == column && written == data_type.to_string())
    }

    /// The keys of chunk `chunk`.
    pub fn range(&self, chunk: u32) -> Range<'_> {
        let at = chunk as usize;
        Range { from: at.checked_sub(1).and_then(|before| self.values.get(before)), to: self.values.get(at) }
    }
}

impl Range<'_> {
    /// Whether it can have a key from `least` to `most`.
    pub fn meets(&self, least: &KeyValue, most: &KeyValue) -> bool {
        self.from.is_none_or(|from| most >= from) && self.to.is_none_or(|to| least < to)
    }

    /// Whether two ranges can have a key in common; those without a beginning have NULL.
    pub fn overlaps(&self, other: &Range) -> bool {
        let begins_before_end = |a: &Range, b: &Range| a.from.is_none_or(|from| b.to.is_none_or(|to| from < to));
        begins_before_end(self, other) && begins_before_end(other, self)
    }

    /// Whether it has all keys of the other.
    pub fn contains(&self, other: &Range) -> bool {
        let from = self.from.is_none_or(|from| other.from.is_some_and(|other| other >= from));
        from && self.to.is_none_or(|to| other.to.is_some_and(|other| other <= to))
    }

    /// Whether `key`, of type `data_type`, is in the range; never NULL.
    pub fn predicate(&self, key: &Expr, data_type: &DataType) -> Expr {
        let above = self.from.map(|from| key.clone().gt_eq(literal(from, data_type)));
        let below = self.to.map(|to| key.clone().lt(literal(to, data_type)));
        match (above, below) {
            (Some(above), Some(below)) => above.and(below),
            (Some(above), None) => above,
            (None, Some(below)) => below.or(key.clone().is_null()),
            (None, None) => lit(true),
        }
    }
}

/// The SQL function of the chunk that a key is in, as an `Int32`, never NULL; for plans only, it has no name of its own.
#[derive(Debug, PartialEq, Eq, Hash)]
struct RangeOf {
    bounds: Bounds,
    signature: Signature,
}

impl ScalarUDFImpl for RangeOf {
    fn name(&self) -> &str {
        "range_of"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _arg_types: &[DataType]) -> Result<DataType> {
        Ok(DataType::Int32)
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let [key] = args.args.as_slice() else { return exec_err!("range_of takes one key") };
        let key = key.to_array(args.number_rows)?;
        let Some(values) = KeyValue::of(&key) else {
            return exec_err!("keys of type {} have no ranges", key.data_type());
        };
        let bounds = self.bounds.values();
        let chunk = |value: Option<KeyValue>| value.map_or(0, |value| bounds.partition_point(|bound| *bound <= value));
        let chunks = values.into_iter().map(|value| chunk(value) as i32);
        Ok(ColumnarValue::Array(Arc::new(Int32Array::from_iter_values(chunks))))
    }
}

/// The function from a key to its chunk by these bounds.
pub fn range_of_udf(bounds: Bounds) -> Arc<ScalarUDF> {
    Arc::new(ScalarUDF::new_from_impl(RangeOf { bounds, signature: Signature::any(1, Volatility::Immutable) }))
}

/// The value as a literal that compares with keys of the type. Integers of all widths compare as 64 bits.
fn literal(value: &KeyValue, data_type: &DataType) -> Expr {
    lit(scalar(value, data_type))
}

/// A key of the type.
pub fn scalar(value: &KeyValue, data_type: &DataType) -> ScalarValue {
    match value {
        KeyValue::Text(text) => ScalarValue::Utf8View(Some(text.clone())),
        KeyValue::Integer(value) => {
            let long = i64::try_from(*value).ok();
            match data_type {
                DataType::Decimal128(precision, scale) => ScalarValue::Decimal128(Some(*value), *precision, *scale),
                DataType::Date32 => ScalarValue::Date32(i32::try_from(*value).ok()),
                DataType::Timestamp(unit, zone) => {
                    let zone = zone.clone();
                    match unit {
                        TimeUnit::Second => ScalarValue::TimestampSecond(long, zone),
                        TimeUnit::Millisecond => ScalarValue::TimestampMillisecond(long, zone),
                        TimeUnit::Microsecond => ScalarValue::TimestampMicrosecond(long, zone),
                        TimeUnit::Nanosecond => ScalarValue::TimestampNanosecond(long, zone),
                    }
                }
                _ => ScalarValue::Int64(long),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{Array, ArrayRef, AsArray, Int64Array};
    use arrow::datatypes::{DataType, Field, Int32Type};
    use datafusion::logical_expr::{ColumnarValue, ScalarFunctionArgs};

    use super::{Bounds, KeyValue, range_of_udf};

    fn bounds(values: &[i128]) -> Bounds {
        Bounds::new(values.iter().map(|value| KeyValue::Integer(*value)).collect(), &DataType::Int64, "k").unwrap()
    }

    #[test]
    fn every_key_is_in_one_range() {
        let bounds = bounds(&[20, 10, 10, 30]);
        assert_eq!(bounds.chunks(), 4);
        for (key, chunk) in [(-5, 0), (9, 0), (10, 1), (19, 1), (20, 2), (29, 2), (30, 3), (99, 3)] {
            let key = KeyValue::Integer(key);
            let found: Vec<u32> = (0..4).filter(|at| bounds.range(*at).meets(&key, &key)).collect();
            assert_eq!(found, [chunk], "{key:?}");
        }
        assert!(Bounds::new(Vec::new(), &DataType::Int64, "k").is_none());
    }

    #[test]
    fn the_function_of_a_key_is_its_range() {
        let bounds = bounds(&[10, 20, 30]);
        let keys: ArrayRef = Arc::new(Int64Array::from_iter((-5..50).map(Some).chain([None])));
        let field = Arc::new(Field::new("k", DataType::Int64, true));
        let args = ScalarFunctionArgs {
            args: vec![ColumnarValue::Array(Arc::clone(&keys))],
            arg_fields: vec![field],
            number_rows: keys.len(),
            return_field: Arc::new(Field::new("range_of", DataType::Int32, true)),
            config_options: Arc::default(),
        };
        let found = range_of_udf(bounds.clone()).invoke_with_args(args).unwrap().to_array(keys.len()).unwrap();
        for (value, chunk) in KeyValue::of(&keys).unwrap().into_iter().zip(found.as_primitive::<Int32Type>().values()) {
            let range = bounds.range(*chunk as u32);
            assert!(value.as_ref().map_or(range.from.is_none(), |value| range.meets(value, value)), "{value:?}");
        }
    }

    #[test]
    fn ranges_meet_what_they_share_a_key_with() {
        let bounds = bounds(&[10, 20]);
        let meets = |least: i128, most: i128| -> Vec<u32> {
            let (least, most) = (KeyValue::Integer(least), KeyValue::Integer(most));
            (0..3).filter(|at| bounds.range(*at).meets(&least, &most)).collect()
        };
        assert_eq!(meets(0, 9), [0]);
        assert_eq!(meets(0, 10), [0, 1]);
        assert_eq!(meets(10, 19), [1]);
        assert_eq!(meets(5, 25), [0, 1, 2]);
        assert_eq!(meets(20, 20), [2]);
    }

    #[test]
    fn ranges_overlap_and_contain_each_other_by_their_ends() {
        let (coarse, fine) = (bounds(&[10, 20]), bounds(&[5, 10, 25]));
        let overlaps: Vec<Vec<u32>> =
            (0..3).map(|a| (0..4).filter(|b| coarse.range(a).overlaps(&fine.range(*b))).collect()).collect();
        assert_eq!(overlaps, [vec![0, 1], vec![2], vec![2, 3]]);
        let contains = |a: u32, b: u32| coarse.range(a).contains(&fine.range(b));
        assert!(contains(0, 0) && contains(0, 1) && contains(2, 3) && !contains(1, 2) && !contains(2, 2));
    }
}
