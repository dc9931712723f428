//! The chunk function: Iceberg's bucket transform, from a row's key to its chunk number.
//!
//! Every key value has canonical bytes (see [`KeyFamily`](crate::chunk::key::KeyFamily)), which MurmurHash3 x86_32 with seed 0 turns into 32 bits;
//! the chunk is that hash without its sign bit, modulo the number of chunks. It depends on the value alone: not on the
//! width, unit or encoding of its column, the platform, or the version of Arrow or DataFusion. The guarantee goes one
//! way: keys that are equal in SQL share a chunk, after both were cast to one type by casts that
//! [`lossless_cast`](crate::chunk::key::lossless_cast) accepts; keys that differ may share one too.
//!
//! Sources: Iceberg table spec, "Bucket Transform Details" and appendix B, "32-bit Hash Requirements"; Austin Appleby's
//! MurmurHash3.

use std::sync::Arc;

use arrow::array::{Array, ArrayAccessor, ArrayRef, AsArray, Int32Array, downcast_dictionary_array};
use arrow::compute::take;
use arrow::datatypes::TimeUnit::{Microsecond, Millisecond, Nanosecond, Second};
use arrow::datatypes::{
    ArrowNativeType, ArrowPrimitiveType, DataType, Date32Type, Date64Type, Decimal32Type, Decimal64Type,
    Decimal128Type, Decimal256Type, Field, FieldRef, Float16Type, Float32Type, Float64Type, Int8Type, Int16Type,
    Int32Type, Int64Type, Time32MillisecondType, Time32SecondType, Time64MicrosecondType, Time64NanosecondType,
    TimestampMicrosecondType, TimestampMillisecondType, TimestampNanosecondType, TimestampSecondType, UInt8Type,
    UInt16Type, UInt32Type, UInt64Type,
};
use datafusion::common::{DataFusionError, Result, ScalarValue, exec_err, plan_datafusion_err, plan_err};
use datafusion::logical_expr::{
    ColumnarValue, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility,
};

use crate::chunk::key::key_family;
use crate::chunk::{MAX_CHUNKS, MAX_PARTS};

/// The most buckets of `chunk_of`.
const MOST_BUCKETS: u32 = MAX_CHUNKS * MAX_PARTS;

/// Version of the chunk function. It changes whenever any key of any type could land in another chunk, and it is part
/// of every cache key.
pub const CHUNK_FUNCTION_VERSION: u32 = 1;

/// The hash of each value of one column: exactly Iceberg's, and 0 for NULL.
///
/// # Errors
/// A type without a [`KeyFamily`], except `DataType::Null`.
pub fn hash_column(column: &dyn Array) -> Result<Vec<i32>> {
    let mut hashes = vec![0; column.len()];
    fold_column(column, &mut hashes)?;
    Ok(hashes)
}

/// The hash of each of `rows` key tuples, a column per key part: from 0, `h = 31 * h + hash(part)` for each part in
/// order, wrapping in 32 bits. A NULL part counts as 0, so an all-NULL key has hash 0; so has every row of no columns.
///
/// # Errors
/// A column that is not `rows` long; a type without a [`KeyFamily`], except `DataType::Null`.
pub fn hash_keys(columns: &[ArrayRef], rows: usize) -> Result<Vec<i32>> {
    let mut hashes = vec![0; rows];
    for column in columns {
        fold_column(column, &mut hashes)?;
    }
    Ok(hashes)
}

/// The chunk of a hash, from 0, out of `chunks`; 0 chunks count as 1.
pub fn bucket_of(hash: i32, chunks: u32) -> i32 {
    ((hash & i32::MAX) as u32 % chunks.max(1)) as i32
}

/// The SQL function `chunk_of(n, key, …)`: the row's chunk number as an `Int32` from 0 to n - 1, never NULL.
///
/// `n` is a constant integer from 1 to 262,144: [`MAX_CHUNKS`] chunks of [`MAX_PARTS`] parts; each key's type has a [`KeyFamily`] or is `DataType::Null`, and
/// is hashed as it is, without coercion. A key of NULLs only is in chunk 0.
#[derive(Debug, PartialEq, Eq, Hash)]
pub struct ChunkOf {
    signature: Signature,
}

impl Default for ChunkOf {
    fn default() -> Self {
        Self { signature: Signature::variadic_any(Volatility::Immutable) }
    }
}

// `is_strict` keeps its default, false: the optimizer may turn an outer join into an inner one below a filter on a
// strict function, and here an unmatched row's NULL key has a chunk.
impl ScalarUDFImpl for ChunkOf {
    fn name(&self) -> &str {
        "chunk_of"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, arg_types: &[DataType]) -> Result<DataType> {
        check_types(&arg_types.iter().collect::<Vec<_>>())?;
        Ok(DataType::Int32)
    }

    fn return_field_from_args(&self, args: ReturnFieldArgs) -> Result<FieldRef> {
        check_types(&args.arg_fields.iter().map(|field| field.data_type()).collect::<Vec<_>>())?;
        if let Some(Some(chunks)) = args.scalar_arguments.first() {
            chunk_count(chunks)?;
        }
        Ok(Arc::new(Field::new(self.name(), DataType::Int32, false)))
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let Some((ColumnarValue::Scalar(chunks), keys)) = args.args.split_first() else {
            return exec_err!(
                "chunk_of: the number of chunks differs by row; write one integer from 1 to {MOST_BUCKETS}"
            );
        };
        let chunks = chunk_count(chunks)?;
        let constant = keys.iter().all(|key| matches!(key, ColumnarValue::Scalar(_)));
        let rows = if constant { 1 } else { args.number_rows };
        let columns = keys.iter().map(|key| key.to_array(rows)).collect::<Result<Vec<_>>>()?;
        let mut numbers = hash_keys(&columns, rows)?;
        for number in &mut numbers {
            *number = bucket_of(*number, chunks);
        }
        Ok(match numbers.as_slice() {
            [number] if constant => ColumnarValue::Scalar(ScalarValue::Int32(Some(*number))),
            _ => ColumnarValue::Array(Arc::new(Int32Array::from(numbers))),
        })
    }
}

/// The SQL function `chunk_of(n, key, …)`, ready to be registered in a session: a row's chunk number from 0, as `Int32`.
pub fn chunk_of_udf() -> Arc<ScalarUDF> {
    Arc::new(ScalarUDF::new_from_impl(ChunkOf::default()))
}

fn check_types(types: &[&DataType]) -> Result<()> {
    let Some((chunks, keys)) = types.split_first().filter(|(_, keys)| !keys.is_empty()) else {
        return plan_err!("chunk_of lacks a key; write chunk_of(number of chunks, key column, …)");
    };
    if !chunks.is_integer() {
        return plan_err!(
            "chunk_of: the number of chunks has type {chunks}; make it an integer from 1 to {MOST_BUCKETS}"
        );
    }
    match keys.iter().find(|key| !key.is_null() && key_family(key).is_none()) {
        Some(key) => Err(not_a_key(key)),
        None => Ok(()),
    }
}

fn chunk_count(chunks: &ScalarValue) -> Result<u32> {
    match chunks.cast_to(&DataType::Int64) {
        Ok(ScalarValue::Int64(Some(count))) if (1..=i64::from(MOST_BUCKETS)).contains(&count) => Ok(count as u32),
        _ => plan_err!("chunk_of: the number of chunks is {chunks}; make it an integer from 1 to {MOST_BUCKETS}"),
    }
}

fn not_a_key(data_type: &DataType) -> DataFusionError {
    plan_datafusion_err!(
        "type {data_type} can't be a chunk key; use a boolean, number, text, binary, date, time or timestamp column, \
         or cast this one to such a type"
    )
}

/// Folds a column into the hashes of its rows' earlier key parts.
fn fold_column(column: &dyn Array, hashes: &mut [i32]) -> Result<()> {
    if column.len() != hashes.len() {
        return exec_err!("chunk key columns differ in length: {} and {} rows", column.len(), hashes.len());
    }
    match column.data_type() {
        DataType::Null => hashes.iter_mut().for_each(|hash| *hash = combined(*hash, 0)),
        DataType::Boolean => fold(column.as_boolean(), hashes, |v| hash_long(v.into())),
        DataType::Int8 => fold_longs::<Int8Type>(column, hashes, i64::from),
        DataType::Int16 => fold_longs::<Int16Type>(column, hashes, i64::from),
        DataType::Int32 => fold_longs::<Int32Type>(column, hashes, i64::from),
        DataType::Int64 => fold_longs::<Int64Type>(column, hashes, |v| v),
        DataType::UInt8 => fold_longs::<UInt8Type>(column, hashes, i64::from),
        DataType::UInt16 => fold_longs::<UInt16Type>(column, hashes, i64::from),
        DataType::UInt32 => fold_longs::<UInt32Type>(column, hashes, i64::from),
        DataType::UInt64 => fold_longs::<UInt64Type>(column, hashes, |v| v as i64),
        DataType::Float16 => fold_longs::<Float16Type>(column, hashes, |v| double_bits(v.into())),
        DataType::Float32 => fold_longs::<Float32Type>(column, hashes, |v| double_bits(v.into())),
        DataType::Float64 => fold_longs::<Float64Type>(column, hashes, double_bits),
        DataType::Utf8 => fold(column.as_string::<i32>(), hashes, |v| hash_bytes(v.as_bytes())),
        DataType::LargeUtf8 => fold(column.as_string::<i64>(), hashes, |v| hash_bytes(v.as_bytes())),
        DataType::Utf8View => fold(column.as_string_view(), hashes, |v| hash_bytes(v.as_bytes())),
        DataType::Binary => fold(column.as_binary::<i32>(), hashes, hash_bytes),
        DataType::LargeBinary => fold(column.as_binary::<i64>(), hashes, hash_bytes),
        DataType::BinaryView => fold(column.as_binary_view(), hashes, hash_bytes),
        DataType::FixedSizeBinary(_) => fold(column.as_fixed_size_binary(), hashes, hash_bytes),
        DataType::Date32 => fold_longs::<Date32Type>(column, hashes, i64::from),
        DataType::Date64 => fold_longs::<Date64Type>(column, hashes, |v| v.div_euclid(86_400_000)),
        DataType::Time32(Second) => fold_longs::<Time32SecondType>(column, hashes, |v| i64::from(v) * 1_000_000),
        DataType::Time32(Millisecond) => fold_longs::<Time32MillisecondType>(column, hashes, |v| i64::from(v) * 1_000),
        DataType::Time64(Microsecond) => fold_longs::<Time64MicrosecondType>(column, hashes, |v| v),
        DataType::Time64(Nanosecond) => fold_longs::<Time64NanosecondType>(column, hashes, |v| v.div_euclid(1_000)),
        DataType::Timestamp(unit, _) => match unit {
            Second => fold_longs::<TimestampSecondType>(column, hashes, |v| v.wrapping_mul(1_000_000)),
            Millisecond => fold_longs::<TimestampMillisecondType>(column, hashes, |v| v.wrapping_mul(1_000)),
            Microsecond => fold_longs::<TimestampMicrosecondType>(column, hashes, |v| v),
            Nanosecond => fold_longs::<TimestampNanosecondType>(column, hashes, |v| v.div_euclid(1_000)),
        },
        DataType::Decimal32(_, _) => fold_decimals::<Decimal32Type, _>(column, hashes, |v| v.to_be_bytes()),
        DataType::Decimal64(_, _) => fold_decimals::<Decimal64Type, _>(column, hashes, |v| v.to_be_bytes()),
        DataType::Decimal128(_, _) => fold_decimals::<Decimal128Type, _>(column, hashes, |v| v.to_be_bytes()),
        DataType::Decimal256(_, _) => fold_decimals::<Decimal256Type, _>(column, hashes, |v| v.to_be_bytes()),
        DataType::Dictionary(_, _) => return fold_dictionary(column, hashes),
        other => return Err(not_a_key(other)),
    }
    Ok(())
}

/// Hashes each value of the dictionary once, or, when there are more of them than rows (a slice of a longer column),
/// only those of the rows.
fn fold_dictionary(column: &dyn Array, hashes: &mut [i32]) -> Result<()> {
    downcast_dictionary_array!(
        column => {
            if column.values().len() > column.len() {
                return fold_column(&take(column.values(), column.keys(), None)?, hashes);
            }
            let value_hashes = hash_column(column.values())?;
            fold(column.keys(), hashes, |key| value_hashes[key.as_usize()]);
            Ok(())
        },
        other => Err(not_a_key(other)),
    )
}

/// A NULL row's slot may hold anything, so it is not read.
fn fold<A: ArrayAccessor>(column: A, hashes: &mut [i32], hash_value: impl Fn(A::Item) -> i32) {
    match column.nulls().filter(|nulls| nulls.null_count() > 0) {
        None => {
            for (row, hash) in hashes.iter_mut().enumerate() {
                *hash = combined(*hash, hash_value(column.value(row)));
            }
        }
        Some(nulls) => {
            for (row, hash) in hashes.iter_mut().enumerate() {
                let part = if nulls.is_valid(row) { hash_value(column.value(row)) } else { 0 };
                *hash = combined(*hash, part);
            }
        }
    }
}

fn fold_longs<T: ArrowPrimitiveType>(column: &dyn Array, hashes: &mut [i32], long: impl Fn(T::Native) -> i64) {
    fold(column.as_primitive::<T>(), hashes, |value| hash_long(long(value)));
}

fn fold_decimals<T: ArrowPrimitiveType, const N: usize>(
    column: &dyn Array,
    hashes: &mut [i32],
    big_endian: impl Fn(T::Native) -> [u8; N],
) {
    fold(column.as_primitive::<T>(), hashes, |unscaled| hash_unscaled(&big_endian(unscaled)));
}

fn combined(hash: i32, part: i32) -> i32 {
    hash.wrapping_mul(31).wrapping_add(part)
}

/// The bits of one double for all that SQL may hold equal: -0.0 as 0.0, and every NaN as one.
fn double_bits(value: f64) -> i64 {
    const CANONICAL_NAN: i64 = 0x7ff8_0000_0000_0000;
    if value.is_nan() {
        CANONICAL_NAN
    } else if value == 0.0 {
        0
    } else {
        value.to_bits() as i64
    }
}

/// Drops the leading bytes that only repeat the sign, so the width of the decimal does not matter.
fn hash_unscaled(mut big_endian: &[u8]) -> i32 {
    while let [0x00, 0x00..=0x7f, ..] | [0xff, 0x80..=0xff, ..] = big_endian {
        big_endian = &big_endian[1..];
    }
    hash_bytes(big_endian)
}

/// MurmurHash3 x86_32 with seed 0 of any bytes.
fn hash_bytes(bytes: &[u8]) -> i32 {
    let (blocks, tail) = bytes.as_chunks::<4>();
    let hash = blocks.iter().fold(0, |hash, block| mixed(hash, u32::from_le_bytes(*block)));
    let mut last = [0; 4];
    last[..tail.len()].copy_from_slice(tail);
    finished(hash ^ scrambled(u32::from_le_bytes(last)), bytes.len() as u32)
}

/// [`hash_bytes`] of the integer's 8 bytes, little-endian.
fn hash_long(value: i64) -> i32 {
    finished(mixed(mixed(0, value as u32), (value >> 32) as u32), 8)
}

fn scrambled(block: u32) -> u32 {
    block.wrapping_mul(0xcc9e_2d51).rotate_left(15).wrapping_mul(0x1b87_3593)
}

fn mixed(hash: u32, block: u32) -> u32 {
    (hash ^ scrambled(block)).rotate_left(13).wrapping_mul(5).wrapping_add(0xe654_6b64)
}

fn finished(hash: u32, length_bytes: u32) -> i32 {
    let hash = hash ^ length_bytes;
    let hash = (hash ^ (hash >> 16)).wrapping_mul(0x85eb_ca6b);
    let hash = (hash ^ (hash >> 13)).wrapping_mul(0xc2b2_ae35);
    (hash ^ (hash >> 16)) as i32
}

#[cfg(test)]
mod tests {
    use arrow::array::{
        BinaryArray, BooleanArray, Decimal32Array, Decimal64Array, Decimal128Array, Decimal256Array, DictionaryArray,
        FixedSizeBinaryArray, Float16Array, Float32Array, Float64Array, Int8Array, Int16Array, Int64Array, NullArray,
        RecordBatch, StringArray, TimestampMicrosecondArray, TimestampMillisecondArray, TimestampNanosecondArray,
        TimestampSecondArray, UInt8Array, UInt64Array, new_empty_array, new_null_array,
    };
    use arrow::buffer::NullBuffer;
    use arrow::compute::{can_cast_types, cast};
    use arrow::datatypes::{IntervalUnit, TimeUnit, i256};
    use datafusion::config::ConfigOptions;
    use datafusion::prelude::SessionContext;

    use super::*;
    use crate::chunk::key::lossless_cast;

    type F16 = <Float16Type as ArrowPrimitiveType>::Native;

    const HASH_34: i32 = 2017239379;
    const HASH_MINUS_1: i32 = 1651860712;
    const HASH_ICEBERG: i32 = 1210000089;
    const UNITS: [TimeUnit; 4] = [Second, Millisecond, Microsecond, Nanosecond];
    const INTEGERS: [DataType; 8] = [
        DataType::Int8,
        DataType::Int16,
        DataType::Int32,
        DataType::Int64,
        DataType::UInt8,
        DataType::UInt16,
        DataType::UInt32,
        DataType::UInt64,
    ];
    const FLOATS: [DataType; 3] = [DataType::Float16, DataType::Float32, DataType::Float64];

    fn dictionary(keys: DataType, values: DataType) -> DataType {
        DataType::Dictionary(Box::new(keys), Box::new(values))
    }

    fn texts() -> Vec<DataType> {
        let plain = [DataType::Utf8, DataType::LargeUtf8, DataType::Utf8View];
        let encoded = plain.clone().map(|values| dictionary(DataType::Int32, values));
        plain.into_iter().chain(encoded).chain([dictionary(DataType::UInt8, DataType::Utf8)]).collect()
    }

    fn binaries() -> Vec<DataType> {
        let plain = [DataType::Binary, DataType::LargeBinary, DataType::BinaryView];
        plain.into_iter().chain([dictionary(DataType::Int16, DataType::Binary)]).collect()
    }

    fn decimals(scale: i8) -> [DataType; 4] {
        [
            DataType::Decimal32(9, scale),
            DataType::Decimal64(18, scale),
            DataType::Decimal128(38, scale),
            DataType::Decimal256(76, scale),
        ]
    }

    fn times() -> [DataType; 4] {
        [
            DataType::Time32(Second),
            DataType::Time32(Millisecond),
            DataType::Time64(Microsecond),
            DataType::Time64(Nanosecond),
        ]
    }

    fn timestamps(zone: Option<&str>) -> [DataType; 4] {
        UNITS.map(|unit| DataType::Timestamp(unit, zone.map(Arc::from)))
    }

    /// A column of every key type with its extreme values and, mostly, a NULL.
    fn samples() -> Vec<ArrayRef> {
        let parse = |values: &[&str], types: &[DataType]| -> Vec<ArrayRef> {
            let rows = values.iter().map(|v| Some(*v)).chain([None]).collect::<StringArray>();
            types.iter().map(|t| cast(&rows, t).unwrap()).collect()
        };
        let mut samples = parse(&["true", "false"], &[DataType::Boolean]);
        let extremes = [
            ["-128", "127"],
            ["-32768", "32767"],
            ["-2147483648", "2147483647"],
            ["-9223372036854775808", "9223372036854775807"],
            ["0", "255"],
            ["0", "65535"],
            ["0", "4294967295"],
            ["0", "18446744073709551615"],
        ];
        for (data_type, values) in INTEGERS.into_iter().zip(extremes) {
            samples.extend(parse(&values, &[data_type.clone(), dictionary(DataType::Int8, data_type)]));
        }
        let long = "a text too long for a view";
        samples.extend(parse(&["", "iceberg", "iceberg", long], &[texts(), binaries()].concat()));
        let fixed = [[0, 1, 2, 0xff], [0; 4]].into_iter();
        samples.push(Arc::new(FixedSizeBinaryArray::try_from_iter(fixed).unwrap()));
        samples.extend(parse(&["1969-12-31", "2017-11-16"], &[DataType::Date32, DataType::Date64]));
        samples.extend(parse(&["00:00:00", "23:59:59"], &times()));
        for zone in [None, Some("+00:00"), Some("-08:00")] {
            samples.extend(parse(&["1969-12-31T23:59:59", "2017-11-16T22:31:08"], &timestamps(zone)));
        }
        for scale in [0, 2] {
            samples.extend(parse(&["-9999999", "0", "128", "9999999"], &decimals(scale)));
        }
        samples.extend(parse(&["-0.0", "NaN", "-inf", "1.5"], &FLOATS));
        samples
    }

    fn parsed(text: &str, data_type: &DataType) -> ArrayRef {
        cast(&StringArray::from(vec![text]), data_type).unwrap()
    }

    fn hash_one(column: &dyn Array) -> i32 {
        let hashes = hash_column(column).unwrap();
        assert_eq!(hashes.len(), 1);
        hashes[0]
    }

    fn combination(first: i32, second: i32) -> i32 {
        (31 * i64::from(first) + i64::from(second)) as i32
    }

    #[test]
    fn check_values_of_the_iceberg_spec() {
        let cases: [(&str, i32, Vec<DataType>); 14] = [
            ("34", HASH_34, INTEGERS.to_vec()),
            ("14.20", -500754589, decimals(2).to_vec()),
            ("2017-11-16", -653330422, vec![DataType::Date32, DataType::Date64]),
            ("22:31:08", -662762989, times().to_vec()),
            ("2017-11-16T22:31:08", -2047944441, timestamps(None).to_vec()),
            ("2017-11-16T14:31:08-08:00", -2047944441, timestamps(Some("+00:00")).to_vec()),
            ("2017-11-16T14:31:08-08:00", -2047944441, timestamps(Some("+05:30")).to_vec()),
            ("2017-11-16T22:31:08.000001", -1207196810, vec![DataType::Timestamp(Microsecond, None)]),
            ("2017-11-16T22:31:08.000001001", -1207196810, vec![DataType::Timestamp(Nanosecond, None)]),
            ("iceberg", HASH_ICEBERG, texts()),
            ("iceberg", HASH_ICEBERG, binaries()),
            ("true", 1392991556, vec![DataType::Boolean]),
            ("1.0", -142385009, FLOATS.to_vec()),
            ("0.0", 1669671676, FLOATS.to_vec()),
        ];
        for (text, expected, types) in cases {
            for data_type in types {
                assert_eq!(hash_one(&parsed(text, &data_type)), expected, "{text} as {data_type}");
            }
        }
    }

    #[test]
    fn check_values_of_the_iceberg_spec_for_bytes() {
        let uuid = 0xf79c3e09_677c_4bbd_a479_3f349cb785e7_u128.to_be_bytes();
        let cases: [(&[u8], i32); 2] = [(&uuid, 1488055340), (&[0, 1, 2, 3], -188683207)];
        for (bytes, expected) in cases {
            let fixed = FixedSizeBinaryArray::try_from_iter([bytes].into_iter()).unwrap();
            assert_eq!(hash_one(&fixed), expected, "{bytes:02x?} of fixed size");
            for data_type in binaries() {
                let column = cast(&BinaryArray::from(vec![bytes]), &data_type).unwrap();
                assert_eq!(hash_one(&column), expected, "{bytes:02x?} as {data_type}");
            }
        }
    }

    /// Values from an independent implementation of MurmurHash3.
    #[test]
    fn murmur3_of_every_tail_length() {
        let cases: [(&[u8], i32); 7] = [
            (b"", 0),
            (b"a", 1009084850),
            (b"ab", -1681926305),
            (b"abc", -1277324294),
            (b"abcd", 1139631978),
            (b"hello", 613153351),
            ("naïve €".as_bytes(), 2086546496),
        ];
        for (bytes, expected) in cases {
            assert_eq!(hash_bytes(bytes), expected, "{bytes:02x?}");
        }
    }

    #[test]
    fn murmur3_of_a_long_is_that_of_its_little_endian_bytes() {
        for value in [0, 1, -1, 34, 1 << 32, -(1 << 32), i64::MIN, i64::MAX, 0x0123_4567_89ab_cdef] {
            assert_eq!(hash_long(value), hash_bytes(&value.to_le_bytes()), "{value}");
        }
    }

    #[test]
    fn integers_of_every_width_agree() {
        for (text, expected) in [("-1", HASH_MINUS_1), ("-34", -2117612851), ("-128", 988740946)] {
            for data_type in INTEGERS.iter().filter(|t| t.is_signed_integer()) {
                assert_eq!(hash_one(&parsed(text, data_type)), expected, "{text} as {data_type}");
            }
        }
        for data_type in INTEGERS.iter().filter(|t| **t != DataType::Int8) {
            assert_eq!(hash_one(&parsed("255", data_type)), -52753993, "255 as {data_type}");
        }
        assert_eq!(hash_one(&UInt64Array::from(vec![u64::MAX])), HASH_MINUS_1);
    }

    #[test]
    fn times_before_the_epoch_round_down() {
        let expected = [-1, -1, -2, 0].map(hash_long);
        let nanos = TimestampNanosecondArray::from(vec![-1, -1_000, -1_001, 999]);
        assert_eq!(hash_column(&nanos).unwrap(), expected);
        let millis = Int64Array::from(vec![-1, -86_400_000, -86_400_001, 86_399_999]);
        assert_eq!(hash_column(&cast(&millis, &DataType::Date64).unwrap()).unwrap(), expected);
        let columns: [ArrayRef; 4] = [
            Arc::new(TimestampSecondArray::from(vec![-3])),
            Arc::new(TimestampMillisecondArray::from(vec![-3_000])),
            Arc::new(TimestampMicrosecondArray::from(vec![-3_000_000])),
            Arc::new(TimestampNanosecondArray::from(vec![-3_000_000_000])),
        ];
        for column in columns {
            assert_eq!(hash_one(&column), hash_long(-3_000_000), "{}", column.data_type());
        }
    }

    #[test]
    fn timestamps_beyond_the_microsecond_range_wrap() {
        let seconds = TimestampSecondArray::from(vec![i64::MAX]);
        assert_eq!(hash_one(&seconds), hash_long(-1_000_000));
        assert_eq!(hash_one(&TimestampMillisecondArray::from(vec![i64::MIN])), hash_long(0));
    }

    #[test]
    fn floats_of_every_width_agree_and_are_canonical() {
        let nan = f64::from_bits(0xfff8_dead_beef_0001);
        let cases: [(f64, i32); 5] =
            [(0.0, 1669671676), (-0.0, 1669671676), (f64::NAN, 1428788237), (nan, 1428788237), (-2.5, 1498942453)];
        for (value, expected) in cases {
            assert_eq!(hash_one(&Float64Array::from(vec![value])), expected, "{value} of 64 bits");
            assert_eq!(hash_one(&Float32Array::from(vec![value as f32])), expected, "{value} of 32 bits");
            assert_eq!(hash_one(&Float16Array::from(vec![F16::from_f64(value)])), expected, "{value} of 16 bits");
        }
        let signalling = f32::from_bits(0x7fa0_0001);
        assert_eq!(hash_one(&Float32Array::from(vec![signalling])), 1428788237);
        assert_ne!(hash_one(&Float64Array::from(vec![2.5])), 1498942453);
    }

    #[test]
    fn decimals_of_every_width_agree() {
        let cases = [
            (0, 1364076727),
            (-1, -43192051),
            (127, 1435096473),
            (128, 1544076949),
            (-128, 267099677),
            (-129, -435537839),
            (255, -582037868),
            (256, -1783153782),
            (-256, -1309567588),
            (1420, -500754589),
            (-1420, 667775751),
        ];
        for (unscaled, expected) in cases {
            let columns: [ArrayRef; 4] = [
                Arc::new(Decimal32Array::from(vec![unscaled])),
                Arc::new(Decimal64Array::from(vec![i64::from(unscaled)])),
                Arc::new(Decimal128Array::from(vec![i128::from(unscaled)])),
                Arc::new(Decimal256Array::from(vec![i256::from(unscaled)])),
            ];
            for column in columns {
                assert_eq!(hash_one(&column), expected, "{unscaled} as {}", column.data_type());
            }
        }
        let large = i256::from_string(&format!("1{}", "0".repeat(40))).unwrap();
        assert_eq!(hash_one(&Decimal256Array::from(vec![large])), 2059957726);
        assert_eq!(hash_unscaled(&i128::MIN.to_be_bytes()), hash_bytes(&i128::MIN.to_be_bytes()));
    }

    #[test]
    fn text_of_every_encoding_agrees_with_nulls_and_slices() {
        let long = "a text too long for a view";
        let rows = [Some("iceberg"), None, Some(""), Some("iceberg"), Some(long), None, Some("a")];
        let plain = StringArray::from(rows.to_vec());
        let expected = [HASH_ICEBERG, 0, 0, HASH_ICEBERG, hash_bytes(long.as_bytes()), 0, 1009084850];
        for data_type in texts() {
            let column = cast(&plain, &data_type).unwrap();
            for start in 0..=rows.len() {
                for length in 0..=rows.len() - start {
                    let hashes = hash_column(&column.slice(start, length)).unwrap();
                    assert_eq!(hashes, expected[start..start + length], "{data_type} from {start}, {length} rows");
                }
            }
        }
    }

    #[test]
    fn dictionaries_may_hold_duplicate_null_and_unused_values() {
        let values = vec![Some("a"), None, Some("iceberg"), Some("iceberg"), Some("b")];
        // A NULL row's key may be out of range, since nothing reads it.
        let nulls = NullBuffer::from(vec![true, true, true, false, true, true]);
        let keys = Int32Array::new(vec![2, 3, 1, 99, 0, 0].into(), Some(nulls));
        let column = DictionaryArray::new(keys, Arc::new(StringArray::from(values)));
        let expected = [HASH_ICEBERG, HASH_ICEBERG, 0, 0, 1009084850, 1009084850];
        assert_eq!(hash_column(&column).unwrap(), expected, "more rows than values");
        assert_eq!(hash_column(&column.slice(1, 4)).unwrap(), expected[1..5], "fewer rows than values");
        let earlier: ArrayRef = Arc::new(Int64Array::from(vec![34; 6]));
        let hashes = hash_keys(&[earlier, Arc::new(column)], 6).unwrap();
        assert_eq!(hashes, expected.map(|hash| combination(HASH_34, hash)));
    }

    #[test]
    fn dictionaries_may_hold_numbers_dictionaries_or_nothing() {
        let longs: ArrayRef = Arc::new(Int64Array::from(vec![-1, 34]));
        let inner: ArrayRef = Arc::new(DictionaryArray::new(Int8Array::from(vec![1, 0]), longs));
        assert_eq!(hash_column(&inner).unwrap(), [HASH_34, HASH_MINUS_1]);
        let outer = DictionaryArray::new(UInt8Array::from(vec![Some(0), None, Some(1)]), inner);
        assert_eq!(hash_column(&outer).unwrap(), [HASH_34, 0, HASH_MINUS_1]);
        let nothing = DictionaryArray::new(Int32Array::new_null(2), new_empty_array(&DataType::Utf8));
        assert_eq!(hash_column(&nothing).unwrap(), [0, 0]);
    }

    #[test]
    fn a_null_hashes_to_0_whatever_its_slot_holds() {
        let nulls = || Some(NullBuffer::from(vec![false, true, false]));
        let longs = Int64Array::new(vec![34, 34, 7].into(), nulls());
        assert_eq!(hash_column(&longs).unwrap(), [0, HASH_34, 0]);
        assert_eq!(hash_column(&longs.slice(1, 2)).unwrap(), [HASH_34, 0]);
        let booleans = BooleanArray::new(vec![true, true, true].into(), nulls());
        assert_eq!(hash_column(&booleans).unwrap(), [0, 1392991556, 0]);
        assert_eq!(hash_column(&NullArray::new(2)).unwrap(), [0, 0]);
        for column in samples() {
            let nulls = new_null_array(column.data_type(), 3);
            assert_eq!(hash_column(&nulls).unwrap(), [0; 3], "{}", column.data_type());
        }
    }

    #[test]
    fn several_keys_combine_by_31_in_order() {
        let number: ArrayRef = Arc::new(Int16Array::from(vec![Some(34), Some(34), None, None]));
        let text: ArrayRef = Arc::new(StringArray::from(vec![Some("iceberg"), None, Some("iceberg"), None]));
        let untyped: ArrayRef = Arc::new(NullArray::new(4));
        let both = combination(HASH_34, HASH_ICEBERG);
        let swapped = combination(HASH_ICEBERG, HASH_34);
        let (number_first, text_first) = (combination(HASH_34, 0), combination(HASH_ICEBERG, 0));
        let cases: [(&[&ArrayRef], [i32; 4]); 5] = [
            (&[&number, &text], [both, number_first, HASH_ICEBERG, 0]),
            (&[&text, &number], [swapped, HASH_34, text_first, 0]),
            (&[&number, &untyped], [number_first, number_first, 0, 0]),
            (&[&untyped, &number], [HASH_34, HASH_34, 0, 0]),
            (&[], [0; 4]),
        ];
        for (columns, expected) in cases {
            let columns: Vec<_> = columns.iter().map(|column| Arc::clone(column)).collect();
            assert_eq!(hash_keys(&columns, 4).unwrap(), expected);
        }
    }

    #[test]
    fn columns_of_other_lengths_are_an_error() {
        let column: ArrayRef = Arc::new(Int64Array::from(vec![1, 2]));
        for rows in [0, 1, 3] {
            let error = hash_keys(&[Arc::clone(&column)], rows).unwrap_err().to_string();
            assert!(error.contains("differ in length"), "{error}");
        }
    }

    #[test]
    fn a_type_is_hashed_exactly_when_it_has_a_family() {
        let item = Arc::new(Field::new("item", DataType::Int32, true));
        let run_ends = Arc::new(Field::new("run_ends", DataType::Int32, false));
        let others = [
            DataType::Duration(Second),
            DataType::Interval(IntervalUnit::MonthDayNano),
            DataType::List(Arc::clone(&item)),
            DataType::LargeList(Arc::clone(&item)),
            DataType::FixedSizeList(Arc::clone(&item), 2),
            DataType::Struct(vec![Arc::clone(&item)].into()),
            DataType::RunEndEncoded(run_ends, Arc::clone(&item)),
            dictionary(DataType::Int32, DataType::List(item)),
        ];
        for data_type in others {
            assert_eq!(key_family(&data_type), None, "{data_type}");
            let error = hash_column(&new_empty_array(&data_type)).unwrap_err().to_string();
            assert!(error.contains("can't be a chunk key; use"), "{error}");
        }
        for column in samples() {
            let data_type = column.data_type();
            assert!(key_family(data_type).is_some(), "{data_type}");
            assert_eq!(hash_column(&new_empty_array(data_type)).unwrap(), [0; 0], "{data_type}");
        }
        for data_type in [DataType::Null, DataType::Time32(Nanosecond), DataType::Time64(Second)] {
            assert_eq!(key_family(&data_type), None, "{data_type}");
        }
    }

    #[test]
    fn families_have_names() {
        let cases = [
            (DataType::Boolean, "boolean"),
            (DataType::UInt16, "integer"),
            (dictionary(DataType::Int8, DataType::Utf8View), "text"),
            (DataType::FixedSizeBinary(16), "binary"),
            (DataType::Date64, "date"),
            (DataType::Time64(Nanosecond), "time"),
            (DataType::Timestamp(Second, None), "timestamp"),
            (DataType::Timestamp(Second, Some("+01:00".into())), "timestamp with time zone"),
            (DataType::Decimal64(9, -2), "decimal of scale -2"),
            (DataType::Float16, "float"),
        ];
        for (data_type, name) in cases {
            assert_eq!(key_family(&data_type).unwrap().to_string(), name, "{data_type}");
        }
    }

    #[test]
    fn buckets_ignore_the_sign_bit_and_nest() {
        let cases =
            [(0, 7, 0), (HASH_34, 1, 0), (HASH_34, 16, 3), (-1, 10, 7), (i32::MIN, 10, 0), (i32::MAX, 4096, 4095)];
        for (hash, chunks, expected) in cases {
            assert_eq!(bucket_of(hash, chunks), expected, "{hash} of {chunks}");
        }
        for hash in [HASH_34, HASH_ICEBERG, -500754589, -1, i32::MIN] {
            assert_eq!(bucket_of(hash, 24) % 8, bucket_of(hash, 8), "{hash}");
        }
        assert_eq!(bucket_of(HASH_34, 0), 0);
    }

    #[test]
    fn a_lossless_cast_keeps_values_and_hashes() {
        let mut lossless = 0;
        for from in samples() {
            for to in samples().iter().map(|column| column.data_type()) {
                if lossless_cast(from.data_type(), to) {
                    let case = format!("{} to {to}", from.data_type());
                    let there = cast(&from, to).unwrap();
                    assert_eq!(hash_column(&there).unwrap(), hash_column(&from).unwrap(), "{case}");
                    // Arrow can't cast every binary type back to a fixed size.
                    if can_cast_types(to, from.data_type()) {
                        assert_eq!(&cast(&there, from.data_type()).unwrap(), &from, "{case}");
                    }
                    lossless += 1;
                }
            }
        }
        assert!(lossless > 200, "{lossless} pairs of types");
    }

    #[test]
    fn lossless_casts_stay_in_a_family_and_never_narrow() {
        use DataType::{
            Binary, BinaryView, Boolean, Date32, Date64, Decimal32, Decimal64, Decimal128, FixedSizeBinary, Float16,
            Float32, Float64, Int8, Int16, Int32, Int64, LargeUtf8, Null, Time32, Time64, Timestamp, UInt8, UInt32,
            UInt64, Utf8, Utf8View,
        };
        let zoned = |unit, zone: &str| Timestamp(unit, Some(zone.into()));
        let list = DataType::List(Arc::new(Field::new("item", Int32, true)));
        let cases = [
            (Boolean, Boolean, true),
            (Boolean, Int8, false),
            (Int8, Int64, true),
            (Int64, Int32, false),
            (UInt8, Int16, true),
            (UInt8, Int8, false),
            (UInt32, Int32, false),
            (UInt32, Int64, true),
            (UInt32, UInt64, true),
            (UInt64, UInt64, true),
            (UInt64, Int64, false),
            (Int8, UInt64, false),
            (Int64, UInt64, false),
            (Int32, Float64, false),
            (Int32, Decimal128(38, 0), false),
            (Int32, Utf8, false),
            (Utf8, Utf8View, true),
            (LargeUtf8, Utf8, true),
            (Utf8, dictionary(Int8, LargeUtf8), true),
            (dictionary(UInt64, Utf8), dictionary(Int8, Utf8View), true),
            (dictionary(Int8, Utf8), Utf8View, false),
            (dictionary(Int8, Binary), BinaryView, false),
            (Utf8View, dictionary(Int8, Utf8), true),
            (dictionary(Int8, Utf8), Binary, false),
            (dictionary(Int8, Int32), Int64, true),
            (dictionary(Int8, Int32), Int16, false),
            (Int16, dictionary(Int8, Int32), true),
            (Binary, BinaryView, true),
            (FixedSizeBinary(16), Binary, true),
            (Binary, FixedSizeBinary(16), false),
            (FixedSizeBinary(16), FixedSizeBinary(16), true),
            (FixedSizeBinary(16), FixedSizeBinary(32), false),
            (Binary, Utf8, false),
            (Date32, Date64, true),
            (Date64, Date32, false),
            (Date64, Date64, true),
            (Date32, Timestamp(Second, None), false),
            (Time32(Second), Time64(Nanosecond), true),
            (Time32(Second), Time32(Millisecond), true),
            (Time64(Nanosecond), Time64(Microsecond), false),
            (Time64(Microsecond), Time32(Millisecond), false),
            (Timestamp(Second, None), Timestamp(Nanosecond, None), true),
            (Timestamp(Nanosecond, None), Timestamp(Microsecond, None), false),
            (Timestamp(Second, None), zoned(Second, "+00:00"), false),
            (zoned(Second, "+00:00"), Timestamp(Second, None), false),
            (zoned(Millisecond, "+00:00"), zoned(Millisecond, "-08:00"), true),
            (zoned(Millisecond, "+00:00"), zoned(Nanosecond, "-08:00"), true),
            (zoned(Millisecond, "+00:00"), zoned(Second, "+00:00"), false),
            (Decimal32(9, 2), Decimal128(9, 2), true),
            (Decimal128(9, 2), Decimal32(9, 2), true),
            (Decimal64(18, 2), Decimal32(9, 2), false),
            (Decimal128(20, 2), Decimal128(19, 2), false),
            (Decimal128(20, 2), Decimal128(30, 3), false),
            (Decimal128(20, 0), Int64, false),
            (Float16, Float32, true),
            (Float32, Float64, true),
            (Float64, Float32, false),
            (Float64, Int64, false),
            (Null, Int32, false),
            (Null, Null, false),
            (list.clone(), list, false),
        ];
        for (from, to, expected) in cases {
            assert_eq!(lossless_cast(&from, &to), expected, "{from} to {to}");
        }
    }

    fn session() -> SessionContext {
        let session = SessionContext::new();
        session.register_udf(chunk_of_udf().as_ref().clone());
        let list = DataType::List(Arc::new(Field::new("item", DataType::Int32, true)));
        let columns: [(&str, ArrayRef, bool); 3] = [
            ("x", Arc::new(Int32Array::from(vec![Some(34), None, Some(-1)])), true),
            ("s", Arc::new(StringArray::from(vec![Some("iceberg"), None, None])), true),
            ("l", new_null_array(&list, 3), true),
        ];
        session.register_batch("t", RecordBatch::try_from_iter_with_nullable(columns).unwrap()).unwrap();
        session
    }

    async fn query(sql: &str) -> Result<Vec<Option<i32>>> {
        let batches = session().sql(sql).await?.collect().await?;
        Ok(batches.iter().flat_map(|batch| batch.column(0).as_primitive::<Int32Type>().iter()).collect())
    }

    #[tokio::test]
    async fn chunk_of_in_sql() {
        let number = bucket_of(HASH_34, 8);
        let minus_1 = bucket_of(HASH_MINUS_1, 8);
        let text = bucket_of(HASH_ICEBERG, 8);
        let both = bucket_of(combination(HASH_34, HASH_ICEBERG), 8);
        let minus_1_and_text = bucket_of(combination(HASH_MINUS_1, HASH_ICEBERG), 8);
        let cases = [
            ("SELECT chunk_of(8, x) FROM t", vec![number, 0, minus_1]),
            ("SELECT chunk_of(8, CAST(x AS BIGINT)) FROM t", vec![number, 0, minus_1]),
            ("SELECT chunk_of(arrow_cast(8, 'UInt8'), arrow_cast(x, 'Int16')) FROM t", vec![number, 0, minus_1]),
            ("SELECT chunk_of(8, x, s) FROM t WHERE x = 34", vec![both]),
            ("SELECT chunk_of(8, x, 'iceberg') FROM t", vec![both, text, minus_1_and_text]),
            ("SELECT chunk_of(8, NULL, x) FROM t", vec![number, 0, minus_1]),
            ("SELECT chunk_of(8, 34, 'iceberg')", vec![both]),
            ("SELECT chunk_of(8, NULL)", vec![0]),
            ("SELECT chunk_of(8, NULL, CAST(NULL AS TEXT))", vec![0]),
            ("SELECT chunk_of(2 * 4, 34)", vec![number]),
            ("SELECT chunk_of(1, x) FROM t", vec![0, 0, 0]),
            ("SELECT chunk_of(8, x) FROM t WHERE false", vec![]),
        ];
        for (sql, expected) in cases {
            let expected = expected.into_iter().map(Some).collect::<Vec<_>>();
            assert_eq!(query(sql).await.unwrap(), expected, "{sql}");
        }
    }

    #[tokio::test]
    async fn wrong_arguments_of_chunk_of_are_errors_that_say_what_to_do() {
        let range = "an integer from 1 to 262144";
        let cases = [
            ("SELECT chunk_of(0, x) FROM t", "the number of chunks is 0; make it an integer from 1 to 262144"),
            ("SELECT chunk_of(262145, x) FROM t", range),
            ("SELECT chunk_of(-1, x) FROM t", range),
            ("SELECT chunk_of(18446744073709551615, x) FROM t", range),
            ("SELECT chunk_of(CAST(NULL AS INT), x) FROM t", range),
            ("SELECT chunk_of(4 - 4, x) FROM t", range),
            ("SELECT chunk_of(NULL, x) FROM t", range),
            ("SELECT chunk_of('8', x) FROM t", range),
            ("SELECT chunk_of(8.0, x) FROM t", range),
            ("SELECT chunk_of(x, x) FROM t", "write one integer from 1 to 262144"),
            ("SELECT chunk_of(8) FROM t", "write chunk_of(number of chunks, key column, …)"),
            ("SELECT chunk_of() FROM t", "chunk_of"),
            ("SELECT chunk_of(8, l) FROM t", "can't be a chunk key; use"),
            ("SELECT chunk_of(8, x, INTERVAL '1 day') FROM t", "can't be a chunk key; use"),
        ];
        for (sql, expected) in cases {
            let error = query(sql).await.unwrap_err().to_string();
            assert!(error.contains(expected), "{sql}: {error}");
        }
    }

    #[tokio::test]
    async fn the_chunk_of_an_unmatched_row_of_an_outer_join_is_0() {
        let sql = "SELECT t.x FROM t LEFT JOIN (SELECT x FROM t WHERE x < 0) r ON t.x = r.x \
                   WHERE chunk_of(4096, r.x) = 0 ORDER BY t.x NULLS FIRST";
        assert_eq!(query(sql).await.unwrap(), [None, Some(34)]);
    }

    #[tokio::test]
    async fn chunk_of_is_never_null_and_immutable() {
        let frame = session().sql("SELECT chunk_of(8, x) FROM t").await.unwrap();
        assert!(!frame.schema().field(0).is_nullable());
        assert_eq!(frame.schema().field(0).data_type(), &DataType::Int32);
        assert_eq!(chunk_of_udf().signature().volatility, Volatility::Immutable);
        assert!(!chunk_of_udf().is_strict());
        assert_eq!(chunk_of_udf(), chunk_of_udf());
    }

    #[test]
    fn scalars_give_a_scalar_and_arrays_an_array() {
        let array = ColumnarValue::Array(Arc::new(Int64Array::from(vec![34, 34])));
        let scalar = ColumnarValue::Scalar(ScalarValue::Int64(Some(34)));
        let result = |keys: &[&ColumnarValue]| {
            let chunks = ColumnarValue::Scalar(ScalarValue::Int64(Some(4096)));
            let args: Vec<_> = [&chunks].into_iter().chain(keys.iter().copied()).cloned().collect();
            let field = |data_type| Arc::new(Field::new("f", data_type, true));
            let arg_fields = args.iter().map(|arg| field(arg.data_type())).collect();
            let config_options = Arc::new(ConfigOptions::default());
            let return_field = field(DataType::Int32);
            let args = ScalarFunctionArgs { args, arg_fields, number_rows: 2, return_field, config_options };
            ChunkOf::default().invoke_with_args(args).unwrap()
        };
        let both = bucket_of(combination(HASH_34, HASH_34), 4096);
        let constant = result(&[&scalar, &scalar]);
        assert!(matches!(constant, ColumnarValue::Scalar(ScalarValue::Int32(Some(n))) if n == both), "{constant:?}");
        for keys in [[&array, &scalar], [&scalar, &array], [&array, &array]] {
            let ColumnarValue::Array(numbers) = result(&keys) else { panic!("not an array") };
            assert_eq!(numbers.as_primitive::<Int32Type>().values(), &[both, both]);
        }
    }
}
