//! What rows say, whatever their order and encoding: a sum of hashes.
//!
//! Each row has canonical bytes, those of arrow's row format: equal for equal values of `Utf8`, `LargeUtf8`, `Utf8View`
//! and dictionaries of them, and different otherwise, also for -0.0 and 0.0. XXH3 makes 128 bits of them. The sum of all
//! rows' hashes, modulo 2^128, does not depend on their order, and contents of parts add up to that of the whole. It
//! tells changes, not forgery.
//!
//! Sources: M. Bellare and D. Micciancio, "A New Paradigm for Collision-free Hashing: Incrementality at Reduced Cost"
//! (AdHash); Y. Collet's xxHash, XXH3.

use std::fmt;
use std::fs::File;
use std::ops::{Add, AddAssign};
use std::path::Path;
use std::str::FromStr;

use arrow::array::{Array, ArrayRef, RecordBatch, RecordBatchReader};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Schema};
use arrow::error::ArrowError;
use arrow::row::{RowConverter, Rows, SortField};
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use xxhash_rust::xxh3::{xxh3_64, xxh3_128_with_seed};

use crate::execute::split::stored::stored_type;

/// So many rows are encoded at a time: few enough that they stay in the processor's caches.
const ROWS: usize = 1024;

/// Rows that took more bytes than this leave no buffer behind.
const MOST_KEPT_BYTES: usize = 8 << 20;

/// The content of a set of rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Content {
    rows: u64,
    sum: u128,
}

impl Content {
    /// Length of [`Content::to_bytes`].
    pub const BYTES: usize = 24;

    /// Number of rows and sum of hashes, little-endian.
    pub fn to_bytes(self) -> [u8; Self::BYTES] {
        let mut bytes = [0; Self::BYTES];
        bytes[..8].copy_from_slice(&self.rows.to_le_bytes());
        bytes[8..].copy_from_slice(&self.sum.to_le_bytes());
        bytes
    }

    /// Reads [`Content::to_bytes`].
    pub fn from_bytes(bytes: &[u8; Self::BYTES]) -> Self {
        let (mut rows, mut sum) = ([0; 8], [0; 16]);
        rows.copy_from_slice(&bytes[..8]);
        sum.copy_from_slice(&bytes[8..]);
        Self { rows: u64::from_le_bytes(rows), sum: u128::from_le_bytes(sum) }
    }

    /// Stands for what some rows will say that were not computed, made from any 32 bytes that tell them from others.
    pub fn placeholder(bytes: &[u8; 32]) -> Self {
        let mut start = [0; Self::BYTES];
        start.copy_from_slice(&bytes[..Self::BYTES]);
        Self::from_bytes(&start)
    }

    /// Contents of a list, one after the other.
    pub fn list_to_bytes(contents: &[Self]) -> Vec<u8> {
        contents.iter().flat_map(|content| content.to_bytes()).collect()
    }

    /// Reads [`Content::list_to_bytes`]; `None` when its length is none of a list's.
    pub fn list_from_bytes(bytes: &[u8]) -> Option<Vec<Self>> {
        let (contents, rest) = bytes.as_chunks::<{ Self::BYTES }>();
        rest.is_empty().then(|| contents.iter().map(Self::from_bytes).collect())
    }
}

impl fmt::Display for Content {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}{:032x}", self.rows, self.sum)
    }
}

impl FromStr for Content {
    type Err = ();

    fn from_str(digits: &str) -> Result<Self, ()> {
        let (rows, sum) = digits.split_at_checked(16).filter(|(_, sum)| sum.len() == 32).ok_or(())?;
        let rows = u64::from_str_radix(rows, 16).map_err(drop)?;
        Ok(Self { rows, sum: u128::from_str_radix(sum, 16).map_err(drop)? })
    }
}

impl AddAssign for Content {
    fn add_assign(&mut self, other: Self) {
        self.rows = self.rows.wrapping_add(other.rows);
        self.sum = self.sum.wrapping_add(other.sum);
    }
}

impl Add for Content {
    type Output = Self;

    fn add(mut self, other: Self) -> Self {
        self += other;
        self
    }
}

impl std::iter::Sum for Content {
    fn sum<I: Iterator<Item = Self>>(contents: I) -> Self {
        contents.fold(Self::default(), Self::add)
    }
}

impl AddAssign<u128> for Content {
    /// Adds a row with this hash.
    fn add_assign(&mut self, hash: u128) {
        *self += Self { rows: 1, sum: hash };
    }
}

/// Hashes rows of one schema.
#[derive(Debug)]
pub struct RowHasher {
    converter: RowConverter,
    /// Types that columns are decoded to first, where the row format has not their own.
    decoded: Vec<Option<DataType>>,
    encoded: Rows,
    seed: u64,
}

impl RowHasher {
    /// For rows with the columns of `schema`, whose names don't matter.
    ///
    /// # Errors
    /// When arrow's row format has not one of the types, not even decoded: dictionaries of unions.
    pub fn try_new(schema: &Schema) -> Result<Self, ArrowError> {
        let types = || schema.fields().iter().map(|field| field.data_type());
        let is_known = |data_type: &DataType| RowConverter::supports_fields(&[SortField::new(data_type.clone())]);
        let decoded: Vec<_> =
            types().map(|data_type| stored_type(data_type).filter(|_| !is_known(data_type))).collect();
        let encoded_types = types().zip(&decoded).map(|(own, decoded)| decoded.as_ref().unwrap_or(own));
        let converter = RowConverter::new(encoded_types.map(|data_type| SortField::new(data_type.clone())).collect())?;
        let encoded = converter.empty_rows(ROWS, 0);
        // Values of different types may have the same bytes, such as a date and a number.
        let types = types().map(canonical_name);
        let seed = xxh3_64(types.collect::<Vec<_>>().join("; ").as_bytes());
        Ok(Self { converter, decoded, encoded, seed })
    }

    /// Calls `take` with the number of each of `rows` rows and its hash.
    ///
    /// # Errors
    /// When the columns are not those of the schema.
    pub fn hash(
        &mut self,
        columns: &[ArrayRef],
        rows: usize,
        mut take: impl FnMut(usize, u128),
    ) -> Result<(), ArrowError> {
        if columns.is_empty() {
            let hash = xxh3_128_with_seed(&[], self.seed);
            (0..rows).for_each(|row| take(row, hash));
            return Ok(());
        }
        for start in (0..rows).step_by(ROWS) {
            let length = ROWS.min(rows - start);
            let part = columns.iter().zip(&self.decoded).map(|(column, decoded)| match decoded {
                Some(data_type) => cast(&column.slice(start, length), data_type),
                None => Ok(column.slice(start, length)),
            });
            let part = part.collect::<Result<Vec<_>, _>>()?;
            self.encoded.clear();
            self.converter.append(&mut self.encoded, &part)?;
            for (row, encoded) in (start..).zip(self.encoded.iter()) {
                take(row, xxh3_128_with_seed(encoded.data(), self.seed));
            }
            if self.encoded.size() > MOST_KEPT_BYTES {
                self.encoded = self.converter.empty_rows(ROWS, 0);
            }
        }
        Ok(())
    }

    /// The content of a batch.
    ///
    /// # Errors
    /// As [`RowHasher::hash`].
    pub fn content(&mut self, batch: &RecordBatch) -> Result<Content, ArrowError> {
        let mut content = Content::default();
        self.hash(batch.columns(), batch.num_rows(), |_, hash| content += hash)?;
        Ok(content)
    }
}

/// What the rows of a Parquet file say, all of which are read.
///
/// # Errors
/// When it can't be read or is damaged.
pub fn content_of_file(path: &Path) -> Result<Content, ArrowError> {
    let file = File::open(path).map_err(|e| ArrowError::IoError(e.to_string(), e))?;
    let mut rows = ParquetRecordBatchReaderBuilder::try_new(file)?.build()?;
    let mut hasher = RowHasher::try_new(&rows.schema())?;
    rows.try_fold(Content::default(), |sum, batch| Ok(sum + hasher.content(&batch?)?))
}

/// A type's name without what says only how values are encoded.
fn canonical_name(data_type: &DataType) -> String {
    let plain = stored_type(data_type).unwrap_or_else(|| data_type.clone());
    let mut name = format!("{plain:?}");
    for (encoded, plain) in
        [("Utf8View", "Utf8"), ("LargeUtf8", "Utf8"), ("BinaryView", "Binary"), ("LargeBinary", "Binary")]
    {
        name = name.replace(encoded, plain);
    }
    name
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{
        ArrayRef, Date32Array, Decimal128Array, DictionaryArray, Float64Array, Int32Array, Int64Array, ListArray,
        NullArray, RecordBatch, StringArray, StringDictionaryBuilder, StructArray,
    };
    use arrow::compute::{cast, concat_batches, take_record_batch};
    use arrow::datatypes::{DataType, Field, Fields, Int8Type, Int32Type};

    use crate::execute::content::{Content, RowHasher};

    fn content_of(batch: &RecordBatch) -> Content {
        RowHasher::try_new(&batch.schema()).unwrap().content(batch).unwrap()
    }

    fn column(column: impl Into<ArrayRef>) -> Content {
        content_of(&RecordBatch::try_from_iter([("c", column.into())]).unwrap())
    }

    fn array(array: impl arrow::array::Array + 'static) -> ArrayRef {
        Arc::new(array)
    }

    fn rows() -> RecordBatch {
        let texts = (0..3000).map(|n| (n % 7 > 0).then(|| format!("text {n:0>20}"))).collect::<StringArray>();
        let numbers = (0..3000).map(|n| (n % 5 > 0).then_some(n % 100)).collect::<Int64Array>();
        RecordBatch::try_from_iter([("t", array(texts)), ("n", array(numbers))]).unwrap()
    }

    #[test]
    fn order_and_parts_do_not_matter_and_each_row_does() {
        let batch = rows();
        let whole = content_of(&batch);
        let backwards: Int32Array = (0..3000).rev().collect();
        assert_eq!(content_of(&take_record_batch(&batch, &backwards).unwrap()), whole);
        let parts: Content =
            [(0, 1), (1, 1500), (1501, 1499)].iter().map(|(at, n)| content_of(&batch.slice(*at, *n))).sum();
        assert_eq!(parts, whole);
        assert_ne!(content_of(&batch.slice(1, 2999)), whole);
        // Rows that are there twice count twice.
        let twice = concat_batches(&batch.schema(), [&batch, &batch]).unwrap();
        assert_eq!(content_of(&twice), whole + whole);
        assert_ne!(whole + whole, whole);
        let swapped = batch.project(&[1, 0]).unwrap();
        assert_ne!(content_of(&swapped), whole);
        assert_eq!(Content::from_bytes(&whole.to_bytes()), whole);
        assert_eq!(whole.to_string().parse(), Ok(whole));
        assert_eq!(
            Content::list_from_bytes(&Content::list_to_bytes(&[whole, Content::default()])),
            Some(vec![whole, Content::default()])
        );
    }

    #[test]
    fn encodings_of_text_do_not_matter() {
        let mut texts: StringDictionaryBuilder<Int32Type> = StringDictionaryBuilder::new();
        for n in 0..2000 {
            if n % 7 == 0 {
                texts.append_null()
            } else {
                texts.append_value(format!("a text of some length {}", n % 30))
            }
        }
        let dictionary = array(texts.finish());
        let plain = cast(&dictionary, &DataType::Utf8).unwrap();
        let expected = column(Arc::clone(&plain));
        for data_type in [DataType::Utf8View, DataType::LargeUtf8] {
            assert_eq!(column(cast(&plain, &data_type).unwrap()), expected);
        }
        assert_eq!(column(Arc::clone(&dictionary)), expected);
        let lists = array(ListArray::from_iter_primitive::<Int32Type, _, _>([Some([Some(1)]), None, Some([None])]));
        let keys = [Some(0), None, Some(2)].into_iter().collect::<arrow::array::Int8Array>();
        assert_eq!(column(array(DictionaryArray::<Int8Type>::new(keys, Arc::clone(&lists)))), column(lists));
        // NULL by its key or by its value.
        let keys = [Some(0), None, Some(1)].into_iter().collect::<arrow::array::Int8Array>();
        let by_key: DictionaryArray<Int8Type> =
            DictionaryArray::new(keys, array(StringArray::from(vec![Some("a"), None])));
        assert_eq!(column(array(by_key)), column(array(StringArray::from(vec![Some("a"), None, None]))));
        // Also inside other types.
        let nested = |values: ArrayRef| {
            let fields = Fields::from(vec![Field::new("v", values.data_type().clone(), true)]);
            column(array(StructArray::new(fields, vec![values], None)))
        };
        let in_struct = nested(Arc::clone(&plain));
        assert_eq!(nested(cast(&plain, &DataType::Utf8View).unwrap()), in_struct);
        assert_eq!(nested(dictionary), in_struct);
    }

    #[test]
    fn values_that_differ_differ() {
        let all: Vec<ArrayRef> = vec![
            array(Int64Array::from(vec![1])),
            array(Int32Array::from(vec![1])),
            array(Date32Array::from(vec![1])),
            array(StringArray::from(vec!["1"])),
            array(StringArray::from(vec![""])),
            array(StringArray::from(vec![None::<&str>])),
            array(Float64Array::from(vec![1.0])),
            array(Float64Array::from(vec![0.0])),
            array(Float64Array::from(vec![-0.0])),
            array(Float64Array::from(vec![f64::NAN])),
            array(Decimal128Array::from(vec![1]).with_precision_and_scale(10, 0).unwrap()),
            array(Decimal128Array::from(vec![1]).with_precision_and_scale(10, 1).unwrap()),
            array(NullArray::new(1)),
            array(NullArray::new(2)),
            array(ListArray::from_iter_primitive::<Int32Type, _, _>([Some([])])),
            array(ListArray::from_iter_primitive::<Int32Type, _, _>([None::<Vec<Option<i32>>>])),
            array(ListArray::from_iter_primitive::<Int32Type, _, _>([Some([None])])),
        ];
        let contents: Vec<_> = all.into_iter().map(column).collect();
        for (at, one) in contents.iter().enumerate() {
            assert!(!contents[at + 1..].contains(one), "{at}");
        }
    }
}
