//! What Parquet statistics say of where a table's keys are.
//!
//! Every row group has a least and a most value of a column, if its writer said so. Where the row groups of a table are
//! cut by ranges of a column, and only few of them reach into each range, the table is *clustered* by the column: each
//! chunk opens its own row groups, and nothing has to be cut.

use std::collections::BTreeSet;
use std::fmt;
use std::ops::Range;
use std::sync::{Arc, OnceLock};

use arrow::array::Array;
use arrow::compute::cast;
use arrow::datatypes::{DataType, Schema, SchemaRef};
use parquet::arrow::arrow_reader::statistics::StatisticsConverter;
use parquet::arrow::parquet_to_arrow_schema;
use parquet::file::metadata::{ColumnChunkMetaData, ParquetMetaData, RowGroupMetaData};

use crate::chunk::range::{KeyValue, Range as KeyRange, has_ranges};
use crate::plan::distinct::distinct;

/// What a value of variable length takes in memory beside its bytes.
const VIEW_BYTES: u64 = 16;

/// Writers end a page at so many bytes; DuckDB makes one of each column of a row group, up to so many.
const PAGE_BYTES: u64 = 1 << 20;
const DUCKDB_PAGE_BYTES: u64 = 100 << 20;

/// The row groups of a table's Parquet files.
#[derive(Clone)]
pub struct RowGroups {
    schema: SchemaRef,
    footers: Arc<[Arc<ParquetMetaData>]>,
    /// The file and number of those that tell the size of columns; all do where that is not said.
    counted: Option<BTreeSet<(usize, usize)>>,
    /// The size of each column of the schema, from the first time that it is asked for.
    sizes: Arc<Vec<OnceLock<ColumnSize>>>,
}

/// The estimated size of a column.
#[derive(Debug, Clone, Copy, Default)]
pub struct ColumnSize {
    /// How many values it has; `None` where the files don't tell.
    pub values: Option<u64>,
    /// Bytes of all rows' values in memory; 0 where that is not known.
    pub bytes: u64,
}

/// Of a table with more row groups nobody looks for the least value each time that a chunk runs.
const MOST_LOOKED_AT: usize = 1024;

/// A row group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RowGroup {
    /// Its file, by number.
    pub file: usize,
    /// Its number in the file.
    pub number: usize,
    /// Size of all columns, compressed.
    pub bytes: u64,
    /// Its rows.
    pub rows: u64,
}

/// Where some columns of a row group are in its file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ByteRanges {
    /// The bytes of each column, in order.
    pub ranges: Vec<Range<u64>>,
    /// What the footer says of how they are read.
    pub read_as: String,
}

/// The values of one column in a row group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Interval {
    /// The least and the most value, or values beyond them; `None` when all are NULL.
    pub ends: Option<(KeyValue, KeyValue)>,
    /// Whether NULL may be among them.
    pub has_null: bool,
}

impl Interval {
    /// Whether a row of it may be in a range.
    pub fn meets(&self, range: &KeyRange) -> bool {
        (self.has_null && range.from.is_none())
            || self.ends.as_ref().is_some_and(|(least, most)| range.meets(least, most))
    }
}

impl RowGroups {
    /// The row groups of files with these footers, in order, read with the columns of `schema`.
    pub fn new(schema: SchemaRef, footers: Vec<Arc<ParquetMetaData>>) -> Self {
        let sizes = Arc::new(vec![OnceLock::new(); schema.fields().len()]);
        Self { schema, footers: footers.into(), counted: None, sizes }
    }

    /// The same table, of whose columns the size is asked in these row groups alone: file and number of each.
    pub fn counted(&self, groups: impl IntoIterator<Item = (usize, usize)>) -> Self {
        let sizes = Arc::new(vec![OnceLock::new(); self.schema.fields().len()]);
        Self { counted: Some(groups.into_iter().collect()), sizes, ..self.clone() }
    }

    /// Row groups that count.
    fn groups(&self) -> Box<dyn Iterator<Item = &RowGroupMetaData> + '_> {
        match &self.counted {
            Some(counted) => {
                Box::new(counted.iter().filter_map(|(file, number)| self.footers.get(*file)?.row_groups().get(*number)))
            }
            None => Box::new(self.footers.iter().flat_map(|footer| footer.row_groups())),
        }
    }

    /// Number of rows.
    pub fn rows(&self) -> u64 {
        self.groups().map(|group| u64::try_from(group.num_rows()).unwrap_or_default()).sum()
    }

    /// The estimated size of a column; `None` if the table has no column of this name.
    pub fn size(&self, name: &str) -> Option<ColumnSize> {
        let size = || {
            let (_, bytes) = self.column_bytes(&[name].into());
            ColumnSize { values: distinct(name, self.groups()), bytes }
        };
        Some(*self.sizes.get(self.schema.index_of(name).ok()?)?.get_or_init(size))
    }

    /// All row groups, in order.
    pub fn all(&self) -> Vec<RowGroup> {
        let mut all = Vec::new();
        for (file, footer) in self.footers.iter().enumerate() {
            for (number, group) in footer.row_groups().iter().enumerate() {
                let bytes = u64::try_from(group.compressed_size()).unwrap_or_default();
                let rows = u64::try_from(group.num_rows()).unwrap_or_default();
                all.push(RowGroup { file, number, bytes, rows });
            }
        }
        all
    }

    /// Size of some columns in all row groups, compressed and, about, in memory.
    pub fn column_bytes(&self, names: &BTreeSet<&str>) -> (u64, u64) {
        let size = |bytes: i64| u64::try_from(bytes).unwrap_or_default();
        let (mut compressed, mut in_memory) = (0, 0);
        for column in self.groups().flat_map(|group| group.columns()) {
            let Some(name) = column.column_path().parts().first().filter(|name| names.contains(name.as_str())) else {
                continue;
            };
            compressed += size(column.compressed_size());
            let width = self.schema.field_with_name(name).ok().and_then(|field| field.data_type().primitive_width());
            let values = size(column.num_values());
            in_memory += match width {
                Some(width) => values * width as u64,
                // Beside the text there are offsets or views of it; a dictionary spells each text once.
                None => size(column.uncompressed_size()) + values * VIEW_BYTES,
            };
        }
        (compressed, in_memory)
    }

    /// Bytes that a reader of some columns has of a row group before rows come of it, at most: all of it as it is in
    /// the file, and two pages of each column, since the rows of one wait while the next is read.
    pub fn reading_bytes(&self, names: &BTreeSet<&str>) -> u64 {
        let size = |bytes: i64| u64::try_from(bytes).unwrap_or_default();
        let of_footer = |footer: &ParquetMetaData| {
            let writer = footer.file_metadata().created_by().unwrap_or_default();
            let page_bytes = if writer.starts_with("DuckDB") { DUCKDB_PAGE_BYTES } else { PAGE_BYTES };
            let of_group = |group: &RowGroupMetaData| {
                let columns = group.columns().iter().filter(|column| {
                    column.column_path().parts().first().is_some_and(|name| names.contains(name.as_str()))
                });
                let of_column = |column: &ColumnChunkMetaData| {
                    size(column.compressed_size()) + size(column.uncompressed_size()).min(2 * page_bytes)
                };
                columns.map(of_column).sum()
            };
            footer.row_groups().iter().map(of_group).max().unwrap_or_default()
        };
        self.footers.iter().map(|footer| of_footer(footer)).max().unwrap_or_default()
    }

    /// Where the bytes of some columns are in each row group of a file.
    pub fn byte_ranges(&self, file: usize, names: &BTreeSet<&str>) -> Vec<ByteRanges> {
        let Some(footer) = self.footers.get(file) else { return Vec::new() };
        let file = footer.file_metadata();
        let is_named = |name: &str| names.contains(name);
        let stored = file.schema_descr().root_schema().get_fields().iter().filter(|of| is_named(of.name()));
        let types = parquet_to_arrow_schema(file.schema_descr(), file.key_value_metadata());
        let types = types.iter().flat_map(Schema::fields).filter(|field| is_named(field.name()));
        let types = format!("{:?} {:?}", stored.collect::<Vec<_>>(), types.collect::<Vec<_>>());
        let in_group = |group: &RowGroupMetaData| {
            let mut found = ByteRanges { ranges: Vec::new(), read_as: format!("{types} {}", group.num_rows()) };
            for column in group.columns() {
                if column.column_path().parts().first().is_some_and(|name| names.contains(name.as_str())) {
                    let (start, length) = column.byte_range();
                    found.ranges.push(start..start + length);
                    found.read_as += &format!(" {:?} {}", column.compression(), column.num_values());
                }
            }
            found
        };
        footer.row_groups().iter().map(in_group).collect()
    }

    /// Number of row groups of each file.
    pub fn counts(&self) -> Vec<usize> {
        self.footers.iter().map(|footer| footer.num_row_groups()).collect()
    }

    /// The values of a column in each row group, in the order of [`RowGroups::all`]; `None` when a row group does not
    /// say them, or keys of the column's type can't be cut by ranges.
    pub fn intervals(&self, column: &str) -> Option<Vec<Interval>> {
        let data_type = self.schema.field_with_name(column).ok()?.data_type();
        if !has_ranges(data_type) {
            return None;
        }
        let mut all = Vec::new();
        for footer in self.footers.iter() {
            all.extend(intervals(footer, column, data_type)?);
        }
        Some(all)
    }

    /// The least and the most value of a column in the row groups that count; `None` as of [`RowGroups::intervals`], or
    /// where these are too many to be looked at each time.
    pub fn ends(&self, column: &str) -> Option<(KeyValue, KeyValue)> {
        let data_type = self.schema.field_with_name(column).ok()?.data_type();
        if !has_ranges(data_type) || self.groups().nth(MOST_LOOKED_AT).is_some() {
            return None;
        }
        let mut found: Option<(KeyValue, KeyValue)> = None;
        for (file, footer) in self.footers.iter().enumerate() {
            let numbers: BTreeSet<usize> = match &self.counted {
                Some(counted) => counted.range((file, 0)..(file + 1, 0)).map(|(_, number)| *number).collect(),
                None => (0..footer.num_row_groups()).collect(),
            };
            if numbers.is_empty() {
                continue;
            }
            let intervals = intervals(footer, column, data_type)?.into_iter().enumerate();
            let counted = intervals.filter(|(number, _)| numbers.contains(number));
            for (least, most) in counted.filter_map(|(_, interval)| interval.ends) {
                found = Some(match found {
                    Some((from, to)) => (from.min(least), to.max(most)),
                    None => (least, most),
                });
            }
        }
        found
    }
}

impl fmt::Debug for RowGroups {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RowGroups of {} files", self.footers.len())
    }
}

/// Whether values that are read from a file as another type compare there as they do in the file, so that its least and
/// most values are theirs.
fn keeps_order(in_file: &DataType, read_as: &DataType) -> bool {
    let is_time = |of: &DataType| matches!(of, DataType::Time32(_) | DataType::Time64(_));
    let is_date = |of: &DataType| matches!(of, DataType::Date32 | DataType::Date64);
    let is_decimal = |of: &DataType| of.is_decimal() || of.is_integer();
    match (in_file, read_as) {
        (DataType::Dictionary(_, values), other) | (other, DataType::Dictionary(_, values)) => {
            keeps_order(values, other)
        }
        (DataType::Timestamp(_, zone), DataType::Timestamp(_, other)) => zone.is_some() == other.is_some(),
        (from, DataType::Timestamp(_, None)) if is_date(from) => true,
        (from, to) => {
            from == to
                || (is_decimal(from) && is_decimal(to))
                || (from.is_string() && to.is_string())
                || (is_date(from) && is_date(to))
                || (is_time(from) && is_time(to))
        }
    }
}

fn intervals(footer: &ParquetMetaData, column: &str, data_type: &DataType) -> Option<Vec<Interval>> {
    let file = footer.file_metadata();
    let in_file = parquet_to_arrow_schema(file.schema_descr(), file.key_value_metadata()).ok()?;
    let converter = StatisticsConverter::try_new(column, &in_file, file.schema_descr()).ok()?;
    // A column that a file lacks is NULL in it; who reads such files knows what that means.
    let groups = footer.row_groups();
    // Writers of old compared text as signed bytes.
    let index = converter.parquet_column_index()?;
    if !keeps_order(in_file.field_with_name(column).ok()?.data_type(), data_type) {
        return None;
    }
    if groups.iter().any(|group| group.column(index).statistics().is_some_and(|s| s.is_min_max_deprecated())) {
        return None;
    }
    let values = |array| KeyValue::of(&cast(&array, data_type).ok()?);
    let least = values(converter.row_group_mins(groups).ok()?)?;
    let most = values(converter.row_group_maxes(groups).ok()?)?;
    let nulls = converter.with_missing_null_counts_as_zero(false).row_group_null_counts(groups).ok()?;
    let mut intervals = Vec::new();
    for (at, (group, ends)) in groups.iter().zip(least.into_iter().zip(most)).enumerate() {
        let rows = u64::try_from(group.num_rows()).unwrap_or_default();
        let null_count = nulls.is_valid(at).then(|| nulls.value(at));
        let ends = match ends {
            (Some(least), Some(most)) if least <= most => Some((least, most)),
            (None, None) if null_count == Some(rows) => None,
            _ => return None,
        };
        intervals.push(Interval { ends, has_null: null_count != Some(0) });
    }
    Some(intervals)
}
