//! Floats that are equal, and have the same bits.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, ArrowPrimitiveType, AsArray, make_array};
use arrow::datatypes::{DataType, Float32Type, Float64Type};
use arrow::error::ArrowError;

/// The column with one NaN for all, and inside of lists and structs also one zero.
///
/// Who computed them may have set the sign of some, and NaNs of other bits are other values to DataFusion, as are -0.0
/// and 0.0 where it compares lists and structs. Of columns it compares them rightly or
/// [`ComparedAlike`](crate::plan::repair) does, so that they keep their -0.0.
///
/// # Errors
/// Never: arrow's builders may.
pub fn with_equal_floats(column: ArrayRef) -> Result<ArrayRef, ArrowError> {
    Ok(changed(&column, false)?.unwrap_or(column))
}

/// The column, if it changes.
fn changed(column: &ArrayRef, is_inside: bool) -> Result<Option<ArrayRef>, ArrowError> {
    /// What a value becomes, and whether those are the same bits.
    fn of<T: ArrowPrimitiveType>(
        column: &ArrayRef,
        equal: impl Fn(T::Native) -> (T::Native, bool),
    ) -> Option<ArrayRef> {
        let values = column.as_primitive::<T>();
        // NULLs have values, too, which nobody sees.
        let is_changed = values.values().iter().fold(false, |found, value| found | !equal(*value).1);
        is_changed.then(|| Arc::new(values.unary::<_, T>(|value| equal(value).0)) as ArrayRef)
    }
    Ok(match column.data_type() {
        DataType::Float32 => of::<Float32Type>(column, |value| {
            let zero = if is_inside { 0.0 } else { value };
            let equal = if value.is_nan() {
                f32::NAN
            } else if value == 0.0 {
                zero
            } else {
                value
            };
            (equal, equal.to_bits() == value.to_bits())
        }),
        DataType::Float64 => of::<Float64Type>(column, |value| {
            let zero = if is_inside { 0.0 } else { value };
            let equal = if value.is_nan() {
                f64::NAN
            } else if value == 0.0 {
                zero
            } else {
                value
            };
            (equal, equal.to_bits() == value.to_bits())
        }),
        data_type if data_type.is_nested() => {
            let data = column.to_data();
            let mut is_changed = false;
            let children = data.child_data().iter().map(|child| {
                let Some(changed) = changed(&make_array(child.clone()), true)? else { return Ok(child.clone()) };
                is_changed = true;
                Ok(changed.to_data())
            });
            let children = children.collect::<Result<Vec<_>, ArrowError>>()?;
            match is_changed {
                true => Some(make_array(data.into_builder().child_data(children).build()?)),
                false => None,
            }
        }
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{Array, ArrayRef, AsArray, Float64Array, ListArray, StructArray};
    use arrow::datatypes::{DataType, Field, Float64Type};

    use crate::execute::floats::with_equal_floats;

    fn bits(column: &ArrayRef) -> Vec<u64> {
        column.as_primitive::<Float64Type>().values().iter().map(|value| value.to_bits()).collect()
    }

    #[test]
    fn equal_floats_have_the_same_bits_but_zeros_of_columns_keep_their_sign() {
        let floats: ArrayRef = Arc::new(Float64Array::from(vec![0.0, -0.0, f64::NAN, -f64::NAN, 1.5]));
        let own = with_equal_floats(Arc::clone(&floats)).unwrap();
        let expected: Vec<u64> = [0.0, -0.0, f64::NAN, f64::NAN, 1.5].map(f64::to_bits).to_vec();
        assert_eq!(bits(&own), expected);

        let field = Arc::new(Field::new("x", DataType::Float64, true));
        let inside: ArrayRef = Arc::new(StructArray::from(vec![(field, floats)]));
        let lists = ListArray::new(
            Arc::new(Field::new("item", inside.data_type().clone(), true)),
            arrow::buffer::OffsetBuffer::from_lengths([2, 0, 3]),
            inside,
            Some(vec![true, false, true].into()),
        );
        let sliced: ArrayRef = Arc::new(lists.slice(0, 2));
        for lists in [Arc::new(lists) as ArrayRef, sliced] {
            let own = with_equal_floats(Arc::clone(&lists)).unwrap();
            assert_eq!((own.len(), own.null_count(), own.data_type()), (lists.len(), 1, lists.data_type()));
            let values = own.as_list::<i32>().values().as_struct().column(0).clone();
            let expected: Vec<u64> = [0.0, 0.0, f64::NAN, f64::NAN, 1.5].map(f64::to_bits).to_vec();
            assert_eq!(bits(&values), expected);
        }
    }
}
