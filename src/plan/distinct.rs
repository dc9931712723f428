//! How many values a column of Parquet files has, about, by what footers say of it.
//!
//! | what is known | it tells |
//! |---|---|
//! | a dictionary of few bytes | its values, by its compressed size |
//! | a larger one | its values, by the size of the column before compression: keys that count up compress well |
//! | the least and the most of numbers | at most all numbers between |
//! | row groups whose numbers don't overlap | the values of all of them, together |
//!
//! Else row groups are taken for ones with the same values, unless their ends differ or about each row has another.

use std::collections::BTreeSet;

use parquet::file::metadata::{ColumnChunkMetaData, RowGroupMetaData};
use parquet::file::statistics::Statistics;

/// What a value takes in a small compressed dictionary, about, and what the dictionary has beside the values.
const BYTES_OF_VALUE: u64 = 3;
const DICTIONARY_BYTES: u64 = 24;

/// Values of a larger dictionary may take less.
const SMALL_DICTIONARY_BYTES: u64 = 1 << 10;

/// The values of so many row groups are taken for different ones.
const MOST_APART: usize = 4;

/// Row groups overlap if their numbers reach over so many times what all of them do.
const OVERLAP: f64 = 2.0;

/// A column has about as many values as rows if it has this share of them.
const MANY: f64 = 0.5;

/// How many values a column has in these row groups, about; `None` where nothing is known.
pub fn distinct<'a>(name: &str, groups: impl Iterator<Item = &'a RowGroupMetaData>) -> Option<u64> {
    let (mut sum, mut most, mut all_rows) = (Some(0), 0, 0);
    let (mut apart, mut least_of_all, mut most_of_all, mut reach) = (BTreeSet::new(), i64::MAX, i64::MIN, Some(0.0));
    for (number, group) in groups.enumerate() {
        let column = group.columns().iter().find(|column| column.column_path().string() == name)?;
        let rows = u64::try_from(group.num_rows()).unwrap_or_default();
        let of_group = in_group(column, rows);
        sum = sum.zip(of_group).map(|(sum, of_group)| sum + of_group);
        most = most.max(of_group.unwrap_or(rows));
        all_rows += rows;
        if apart.len() < MOST_APART {
            let ends = column.statistics().and_then(|of| of.min_bytes_opt().zip(of.max_bytes_opt()));
            // Where one does not say them, it may have any.
            apart.insert(ends.ok_or(number));
        }
        match column.statistics().and_then(numbers) {
            Some((least, most)) => {
                (least_of_all, most_of_all) = (least_of_all.min(least), most_of_all.max(most));
                reach = reach.map(|reach| reach + between(least, most));
            }
            None => reach = None,
        }
    }
    let at_most = reach.map(|_| between(least_of_all, most_of_all));
    let overlap = reach.zip(at_most).is_none_or(|(reach, at_most)| reach > OVERLAP * at_most);
    let has_many = sum.is_none_or(|sum| sum as f64 >= MANY * all_rows as f64);
    let values = match overlap && !has_many {
        true => Some(most * apart.len() as u64),
        false => sum,
    };
    match (values, at_most) {
        (Some(values), Some(at_most)) => Some((values as f64).min(at_most) as u64),
        (None, Some(at_most)) => Some(at_most as u64),
        (values, None) => values,
    }
    .map(|values| values.max(1))
}

/// How many values a column has in one row group of so many rows, by its dictionary.
fn in_group(column: &ColumnChunkMetaData, rows: u64) -> Option<u64> {
    let size = |bytes: i64| u64::try_from(bytes).unwrap_or_default();
    let dictionary = size(column.data_page_offset().checked_sub(column.dictionary_page_offset()?)?);
    let values = (dictionary.saturating_sub(DICTIONARY_BYTES) / BYTES_OF_VALUE).clamp(1, rows.max(1));
    if dictionary <= SMALL_DICTIONARY_BYTES {
        return Some(values);
    }
    // Rows are numbers of values, of so many bits.
    let bits = u64::from(values.next_power_of_two().ilog2());
    let of_values = size(column.uncompressed_size()).saturating_sub(rows * bits / 8);
    Some((of_values / width(column.statistics()?)?).clamp(values, rows.max(1)))
}

/// Bytes of a value in a dictionary, about.
fn width(statistics: &Statistics) -> Option<u64> {
    let lengths = || Some(statistics.min_bytes_opt()?.len() + statistics.max_bytes_opt()?.len());
    match statistics {
        Statistics::ByteArray(_) => Some(4 + lengths()? as u64 / 2),
        _ => Some(lengths()?.max(2) as u64 / 2),
    }
}

/// The least and the most value of whole numbers as they are stored.
fn numbers(statistics: &Statistics) -> Option<(i64, i64)> {
    match statistics {
        Statistics::Int32(of) => Some((i64::from(*of.min_opt()?), i64::from(*of.max_opt()?))),
        Statistics::Int64(of) => Some((*of.min_opt()?, *of.max_opt()?)),
        _ => None,
    }
}

fn between(least: i64, most: i64) -> f64 {
    (most as f64 - least as f64 + 1.0).max(1.0)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{ArrayRef, Int64Array, RecordBatch, StringArray};
    use bytes::Bytes;
    use parquet::arrow::ArrowWriter;
    use parquet::arrow::arrow_reader::ArrowReaderMetadata;
    use parquet::basic::{Compression, ZstdLevel};
    use parquet::file::properties::WriterProperties;

    /// How many values a column is said to have that is written in row groups of 10,000 rows.
    fn estimated(column: ArrayRef) -> Option<u64> {
        let batch = RecordBatch::try_from_iter([("x", column)]).unwrap();
        let compression = Compression::ZSTD(ZstdLevel::default());
        let properties = WriterProperties::builder().set_compression(compression);
        let properties = properties.set_max_row_group_row_count(Some(10_000)).build();
        let mut file = Vec::new();
        let mut writer = ArrowWriter::try_new(&mut file, batch.schema(), Some(properties)).unwrap();
        writer.write(&batch).unwrap();
        writer.close().unwrap();
        let footer = ArrowReaderMetadata::load(&Bytes::from(file), Default::default()).unwrap();
        super::distinct("x", footer.metadata().row_groups().iter())
    }

    #[test]
    fn values_are_counted_about() {
        let rows = 0..40_000_i64;
        // In no order.
        let mixed = |rows: i64| rows.wrapping_mul(0x9E37_79B9_7F4A_7C15_u64 as i64) >> 16;
        let numbers = |value: &dyn Fn(i64) -> i64| Arc::new(Int64Array::from_iter_values(rows.clone().map(value)));
        let texts = |value: &dyn Fn(i64) -> String| Arc::new(StringArray::from_iter_values(rows.clone().map(value)));
        let columns: [(&str, ArrayRef, u64); 8] = [
            ("a key that counts up", numbers(&|row| row + 17), 40_000),
            ("four rows of each, in order", numbers(&|row| row / 4), 10_000),
            ("four of each, in no order", numbers(&|row| mixed(row).rem_euclid(10_000)), 9_800),
            ("seven", numbers(&|row| mixed(row).rem_euclid(7)), 7),
            ("one", numbers(&|_| 5), 1),
            ("three texts", texts(&|row| ["A", "N", "R"][mixed(row).rem_euclid(3) as usize].into()), 3),
            ("many texts", texts(&|row| format!("Customer#{row:09}")), 40_000),
            ("some texts", texts(&|row| format!("Clerk#{:09}", mixed(row).rem_euclid(2_000))), 2_000),
        ];
        for (what, column, values) in columns {
            let estimated = estimated(column).unwrap();
            assert!((values / 2..=values * 4).contains(&estimated), "{what}: {values} values, estimated {estimated}");
        }
    }
}
