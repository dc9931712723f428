//! Integer arithmetic on arrays that tells whether a value overflows.
//!
//! A kernel computes all values modulo 2^bits, and beside each one a mask whose sign (of an unsigned type: any bit) says
//! whether it overflows. Both are without branches, so that they are vectorised: the test costs next to nothing. Only where a
//! mask says so are the rows looked at, since a NULL's value may be anything.

use arrow::array::{Array, ArrowPrimitiveType, PrimitiveArray};
use arrow::buffer::NullBuffer;
use arrow::error::ArrowError;

/// An integer whose operations tell whether they overflow.
pub trait Integer: Copy + Default {
    /// `self + other` modulo 2^bits, and its mask.
    fn add(self, other: Self) -> (Self, Self);

    /// `self - other`, likewise.
    fn sub(self, other: Self) -> (Self, Self);

    /// `self * other`, likewise.
    fn mul(self, other: Self) -> (Self, Self);

    /// Both masks together.
    fn either(self, mask: Self) -> Self;

    /// Whether a mask tells of an overflow.
    fn overflows(self) -> bool;
}

macro_rules! integer {
    ($($native:ty, $wide:ty, $is_signed:literal;)*) => {$(
        impl Integer for $native {
            #[inline(always)]
            fn add(self, other: Self) -> (Self, Self) {
                let value = self.wrapping_add(other);
                let mask = if $is_signed { (self ^ value) & (other ^ value) } else { Self::from(value < self) };
                (value, mask)
            }

            #[inline(always)]
            fn sub(self, other: Self) -> (Self, Self) {
                let value = self.wrapping_sub(other);
                let mask = if $is_signed { (self ^ other) & (self ^ value) } else { Self::from(self < other) };
                (value, mask)
            }

            #[inline(always)]
            fn mul(self, other: Self) -> (Self, Self) {
                let wide = (self as $wide).wrapping_mul(other as $wide);
                let value = wide as $native;
                let mask = if wide == value as $wide { 0 } else if $is_signed { Self::MIN } else { 1 };
                (value, mask)
            }

            #[inline(always)]
            fn either(self, mask: Self) -> Self {
                self | mask
            }

            #[inline(always)]
            #[allow(unused_comparisons)]
            fn overflows(self) -> bool {
                if $is_signed { self < 0 } else { self != 0 }
            }
        }
    )*};
}

integer! {
    i8, i16, true;
    i16, i32, true;
    i32, i64, true;
    i64, i128, true;
    u8, u16, false;
    u16, u32, false;
    u32, u64, false;
    u64, u128, false;
}

/// A side of an operation: an array, or one value for all rows.
pub enum Side<'a, T: ArrowPrimitiveType> {
    Array(&'a PrimitiveArray<T>),
    Value(T::Native),
}

/// Two numbers whose result does not fit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Overflow<N>(pub N, pub N);

/// `kernel` for each row of two sides, of which one is an array; or the first row that is not NULL and overflows.
///
/// # Errors
/// Arrow's, where two arrays have different lengths.
pub fn each<T>(
    left: Side<'_, T>,
    right: Side<'_, T>,
    kernel: impl Fn(T::Native, T::Native) -> (T::Native, T::Native),
) -> Result<Result<PrimitiveArray<T>, Overflow<T::Native>>, ArrowError>
where
    T: ArrowPrimitiveType,
    T::Native: Integer,
{
    let mut mask = T::Native::default();
    let mut one = |left, right| {
        let (value, overflows) = kernel(left, right);
        mask = mask.either(overflows);
        value
    };
    let (values, nulls): (Vec<T::Native>, _) = match (&left, &right) {
        (Side::Array(l), Side::Array(r)) if l.len() != r.len() => {
            let message = format!("arrays of {} and {} rows can't be put together", l.len(), r.len());
            return Err(ArrowError::ComputeError(message));
        }
        (Side::Array(l), Side::Array(r)) => {
            let values = l.values().iter().zip(r.values()).map(|(l, r)| one(*l, *r)).collect();
            (values, NullBuffer::union(l.nulls(), r.nulls()))
        }
        (Side::Array(l), Side::Value(r)) => (l.values().iter().map(|l| one(*l, *r)).collect(), l.nulls().cloned()),
        (Side::Value(l), Side::Array(r)) => (r.values().iter().map(|r| one(*l, *r)).collect(), r.nulls().cloned()),
        (Side::Value(l), Side::Value(r)) => (vec![one(*l, *r)], None),
    };
    if mask.overflows() {
        let value = |side: &Side<'_, T>, row: usize| match side {
            Side::Array(array) => array.value(row),
            Side::Value(value) => *value,
        };
        for row in 0..values.len() {
            let (left, right) = (value(&left, row), value(&right, row));
            if kernel(left, right).1.overflows() && nulls.as_ref().is_none_or(|nulls| nulls.is_valid(row)) {
                return Ok(Err(Overflow(left, right)));
            }
        }
    }
    Ok(Ok(PrimitiveArray::new(values.into(), nulls)))
}

#[cfg(test)]
mod tests {
    use arrow::array::{Int8Array, Int64Array, UInt8Array, UInt64Array};
    use arrow::datatypes::Int64Type;

    use super::{Integer, Overflow, Side, each};

    /// All pairs of 8-bit numbers, against wider ones.
    #[test]
    fn the_mask_says_for_every_pair_whether_it_overflows() {
        for a in i8::MIN..=i8::MAX {
            for b in i8::MIN..=i8::MAX {
                let (x, y) = (i32::from(a), i32::from(b));
                for ((value, mask), exact) in [(a.add(b), x + y), (a.sub(b), x - y), (Integer::mul(a, b), x * y)] {
                    assert_eq!(value, exact as i8, "{a} {b}");
                    assert_eq!(mask.overflows(), i8::try_from(exact).is_err(), "{a} {b}");
                }
                let (c, d) = (a as u8, b as u8);
                let (x, y) = (i32::from(c), i32::from(d));
                for ((value, mask), exact) in [(c.add(d), x + y), (c.sub(d), x - y), (Integer::mul(c, d), x * y)] {
                    assert_eq!(value, exact as u8, "{c} {d}");
                    assert_eq!(mask.overflows(), u8::try_from(exact).is_err(), "{c} {d}");
                }
            }
        }
        assert!(Integer::mul(i64::MIN, -1).1.overflows());
        assert!(Integer::mul(-1, i64::MIN).1.overflows());
        assert!(!Integer::mul(i64::MIN, 1).1.overflows());
        assert!(Integer::mul(u64::MAX, 2).1.overflows());
        assert!(Integer::mul(u32::MAX, u32::MAX).1.overflows());
        assert!(!Integer::mul(i32::MIN, 1).1.overflows());
    }

    #[test]
    fn one_mask_is_kept_among_others() {
        let max = Int8Array::from(vec![1, 127, -1, 0]);
        let ones = Int8Array::from(vec![-1, 1, 1, 0]);
        assert_eq!(each(Side::Array(&max), Side::Array(&ones), Integer::add).unwrap(), Err(Overflow(127, 1)));
        let bytes = UInt8Array::from(vec![3, 2, 1]);
        assert_eq!(each(Side::Array(&bytes), Side::Value(2), Integer::sub).unwrap(), Err(Overflow(1, 2)));
        assert_eq!(each(Side::Value(3), Side::Array(&bytes), Integer::sub).unwrap(), Ok(vec![0, 1, 2].into()));
    }

    #[test]
    fn what_is_null_does_not_overflow() {
        let values = Int64Array::new(vec![i64::MAX, 5].into(), Some(vec![false, true].into()));
        let sum = each(Side::Array(&values), Side::Value(1), Integer::add).unwrap().unwrap();
        assert_eq!(sum, Int64Array::from(vec![None, Some(6)]));
        let sum = each(Side::Array(&values), Side::Array(&Int64Array::from(vec![1, i64::MAX])), Integer::add).unwrap();
        assert_eq!(sum, Err(Overflow(5, i64::MAX)));
    }

    #[test]
    fn both_sides_may_be_values_or_have_no_rows() {
        assert_eq!(each::<Int64Type>(Side::Value(2), Side::Value(3), Integer::mul).unwrap(), Ok(vec![6].into()));
        let empty = UInt64Array::from(Vec::<u64>::new());
        assert_eq!(each(Side::Array(&empty), Side::Value(3), Integer::sub).unwrap().unwrap().len(), 0);
        assert!(each(Side::Array(&empty), Side::Array(&vec![1].into()), Integer::sub).is_err());
    }
}
