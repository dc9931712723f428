//! Sums that never overflow.

use arrow::array::{Array, ArrowNativeTypeOp, ArrowPrimitiveType, PrimitiveArray};
use arrow::datatypes::i256;

/// A number that a [`Total`] can sum.
pub trait Addend: ArrowNativeTypeOp {
    /// `self + other` modulo 2^bits, and how many times 2^bits is missing from it: -1, 0 or 1.
    fn add_with_carry(self, other: Self) -> (Self, i64);

    /// `self - other`, likewise.
    fn sub_with_carry(self, other: Self) -> (Self, i64);

    /// The sum of `values`.
    fn total(values: &[Self]) -> Total<Self> {
        let mut total = Total::default();
        values.iter().for_each(|value| total.add(*value));
        total
    }
}

/// The exact sum of numbers of one type, however large: `low` + `carry` · 2^bits.
///
/// A sum that leaves the type's range costs one addition more, all others a test that never holds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Total<N> {
    /// The sum modulo 2^bits.
    pub low: N,
    /// How many times 2^bits is missing from `low`.
    pub carry: i64,
}

impl<N: Addend> Total<N> {
    /// Adds a number.
    #[inline]
    pub fn add(&mut self, value: N) {
        let (low, carry) = self.low.add_with_carry(value);
        self.low = low;
        if carry != 0 {
            self.carry += carry;
        }
    }

    /// Takes away a number.
    #[inline]
    pub fn sub(&mut self, value: N) {
        let (low, carry) = self.low.sub_with_carry(value);
        self.low = low;
        if carry != 0 {
            self.carry += carry;
        }
    }

    /// Adds another sum.
    pub fn merge(&mut self, other: Self) {
        self.add(other.low);
        self.carry += other.carry;
    }

    /// Takes away another sum.
    pub fn retract(&mut self, other: Self) {
        self.sub(other.low);
        self.carry -= other.carry;
    }

    /// The sum of the values that are not NULL, and their number.
    pub fn of<T: ArrowPrimitiveType<Native = N>>(values: &PrimitiveArray<T>) -> (Self, u64) {
        let count = (values.len() - values.null_count()) as u64;
        let total = match values.nulls().filter(|nulls| nulls.null_count() > 0) {
            None => N::total(values.values()),
            Some(nulls) => {
                let mut total = Self::default();
                nulls.valid_slices().for_each(|(start, end)| total.merge(N::total(&values.values()[start..end])));
                total
            }
        };
        (total, count)
    }

    /// The sum, if it is in the type's range.
    pub fn value(self) -> Option<N> {
        (self.carry == 0).then_some(self.low)
    }
}

macro_rules! addend {
    ($($native:ty),*) => {$(
        impl Addend for $native {
            #[inline]
            fn add_with_carry(self, other: Self) -> (Self, i64) {
                let (low, overflows) = self.overflowing_add(other);
                (low, if overflows { other.signum() as i64 } else { 0 })
            }

            #[inline]
            fn sub_with_carry(self, other: Self) -> (Self, i64) {
                let (low, overflows) = self.overflowing_sub(other);
                (low, if overflows { -(other.signum() as i64) } else { 0 })
            }
        }
    )*};
}

addend!(i32, i128);

impl Addend for i64 {
    #[inline]
    fn add_with_carry(self, other: Self) -> (Self, i64) {
        let (low, overflows) = self.overflowing_add(other);
        (low, if overflows { other.signum() } else { 0 })
    }

    #[inline]
    fn sub_with_carry(self, other: Self) -> (Self, i64) {
        let (low, overflows) = self.overflowing_sub(other);
        (low, if overflows { -other.signum() } else { 0 })
    }

    /// The sums of the upper and the lower halves, which stay in range and need no test.
    fn total(values: &[Self]) -> Total<Self> {
        let mut total = 0i128;
        for values in values.chunks(1 << 31) {
            let (mut upper, mut lower) = (0i64, 0u64);
            for value in values {
                upper = upper.wrapping_add(*value >> 32);
                lower = lower.wrapping_add(u64::from(*value as u32));
            }
            total += (i128::from(upper) << 32) + i128::from(lower);
        }
        let low = total as i64;
        Total { low, carry: ((total - i128::from(low)) >> 64) as i64 }
    }
}

impl Addend for u64 {
    #[inline]
    fn add_with_carry(self, other: Self) -> (Self, i64) {
        let (low, overflows) = self.overflowing_add(other);
        (low, i64::from(overflows))
    }

    #[inline]
    fn sub_with_carry(self, other: Self) -> (Self, i64) {
        let (low, overflows) = self.overflowing_sub(other);
        (low, -i64::from(overflows))
    }

    /// As for [`i64`].
    fn total(values: &[Self]) -> Total<Self> {
        let mut total = 0u128;
        for values in values.chunks(1 << 31) {
            let (mut upper, mut lower) = (0u64, 0u64);
            for value in values {
                upper = upper.wrapping_add(*value >> 32);
                lower = lower.wrapping_add(u64::from(*value as u32));
            }
            total += (u128::from(upper) << 32) + u128::from(lower);
        }
        Total { low: total as u64, carry: (total >> 64) as i64 }
    }
}

impl Addend for i256 {
    #[inline]
    fn add_with_carry(self, other: Self) -> (Self, i64) {
        let low = self.wrapping_add(other);
        let overflows = ((self ^ low) & (other ^ low)).is_negative();
        let carry = if other.is_negative() { -1 } else { 1 };
        (low, if overflows { carry } else { 0 })
    }

    #[inline]
    fn sub_with_carry(self, other: Self) -> (Self, i64) {
        let low = self.wrapping_sub(other);
        let overflows = ((self ^ other) & (self ^ low)).is_negative();
        let carry = if other.is_negative() { 1 } else { -1 };
        (low, if overflows { carry } else { 0 })
    }
}

#[cfg(test)]
mod tests {
    use arrow::array::{Decimal256Array, Int64Array, PrimitiveArray, UInt64Array};
    use arrow::datatypes::{ArrowPrimitiveType, Decimal128Type, Int32Type, i256};

    use super::{Addend, Total};

    fn check<T>(values: &[T::Native], sum: Total<T::Native>)
    where
        T: ArrowPrimitiveType,
        T::Native: Addend,
    {
        let array = PrimitiveArray::<T>::from_iter_values(values.iter().copied());
        assert_eq!(Total::of(&array), (sum, values.len() as u64), "{values:?}");
        // With NULLs between them, one by one, and back.
        let sparse: PrimitiveArray<T> = values.iter().flat_map(|value| [Some(*value), None]).collect();
        assert_eq!(Total::of(&sparse).0, sum, "{values:?}");
        let mut total = Total::default();
        values.iter().for_each(|value| total.add(*value));
        assert_eq!(total, sum, "{values:?}");
        values.iter().rev().for_each(|value| total.sub(*value));
        assert_eq!(total, Total::default(), "{values:?}");
        total.retract(sum);
        total.merge(sum);
        assert_eq!(total.value(), Some(T::Native::default()), "{values:?}");
    }

    #[test]
    fn a_total_is_exact_beyond_the_range_of_its_numbers() {
        let (min, max) = (i64::MIN, i64::MAX);
        for (values, low, carry) in [
            (vec![], 0, 0),
            (vec![max, 1], min, 1),
            (vec![max, max, max], max - 2, 1),
            (vec![max, 1, -1], max, 0),
            (vec![min, -1], max, -1),
            (vec![min, min, min], min, -1),
            (vec![min, min, max, max, 2], 0, 0),
            (vec![-1, 1, -3, 4], 1, 0),
        ] {
            check::<arrow::datatypes::Int64Type>(&values, Total { low, carry });
        }
        check::<arrow::datatypes::UInt64Type>(&[u64::MAX, u64::MAX, 2], Total { low: 0, carry: 2 });
        check::<Int32Type>(&[i32::MIN, -1], Total { low: i32::MAX, carry: -1 });
        check::<Decimal128Type>(&[i128::MAX, 1, i128::MIN, i128::MIN], Total { low: i128::MIN, carry: 0 });
        check::<arrow::datatypes::Decimal256Type>(
            &[i256::MAX, i256::ONE, i256::MAX],
            Total { low: i256::MINUS_ONE, carry: 1 },
        );
        check::<arrow::datatypes::Decimal256Type>(&[i256::MIN, i256::MIN], Total { low: i256::ZERO, carry: -1 });
    }

    #[test]
    fn only_a_total_in_range_has_a_value() {
        assert_eq!(Total::of(&Int64Array::from(vec![Some(i64::MAX), None, Some(0)])).0.value(), Some(i64::MAX));
        assert_eq!(Total::of(&Int64Array::from(vec![i64::MAX, 1])).0.value(), None);
        assert_eq!(Total::of(&UInt64Array::from(vec![u64::MAX, 1])).0.value(), None);
        assert_eq!(Total::of(&Decimal256Array::from(vec![i256::MIN, i256::MINUS_ONE])).0.value(), None);
    }
}
