//! One pass over an input's rows cuts them into the chunks of a task and stores them in one file, a *split file*, from
//! which each chunk can be read alone.
//!
//! Rows are buffered up to a number of bytes, then counting-sorted by chunk and written as *blocks*: record batches of an
//! Arrow IPC file that hold rows of one chunk each. The footer says which. So N chunks cost one file and one buffer, not
//! N of each. A chunk's rows keep the input's order.
//!
//! A split file is an IPC file that any Arrow reader can read. Beyond that, its footer's metadata holds the format's
//! version, the number of chunks, and chunk, rows and checksum of each block, and a checksum of the footer stands in
//! front of it: Arrow's decoder panics on some damaged files, so nothing is decoded before it is checked.
//!
//! Source: the sort-based shuffle of Apache Spark (SPARK-2045).

pub mod buffer;
pub mod file;
mod output;
mod sort;
pub mod stored;

use std::fs::File;
use std::sync::Arc;

use arrow::array::{Array, AsArray, Int32Array, RecordBatch};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Int32Type, Schema, SchemaRef};
use datafusion::execution::SendableRecordBatchStream;
use futures::StreamExt;

use crate::chunk::MAX_CHUNKS;
use crate::error::{Error, ErrorKind, Result};
use crate::execute::content::{Content, RowHasher};
use crate::execute::split::buffer::Buffer;
use crate::execute::split::output::Output;
use crate::execute::split::stored::stored_schema;
use crate::execute::write::{arrow_error, execution_error};

/// How much a split file holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SplitSize {
    /// Rows of all chunks.
    pub rows: u64,
    /// Length of the file.
    pub bytes: u64,
}

/// Writes a split file: takes batches with the chunk number of each row, in any order.
///
/// Dropped before [`finish`](Self::finish), it leaves a file that no reader accepts.
pub struct SplitWriter {
    output: Output,
    schema: SchemaRef,
    buffer_bytes: usize,
    buffer: Buffer,
    rows: u64,
}

impl SplitWriter {
    /// A writer into the empty `file` for rows with the columns of `schema` and for `chunks` chunks, 1 to [`MAX_CHUNKS`].
    ///
    /// At most about `buffer_bytes` bytes of rows are buffered before they are written, but at least one batch; beside
    /// them a writer needs some 30 MiB, or a few times the largest row.
    ///
    /// # Errors
    /// [`ErrorKind::Execute`] when the number of chunks is out of range or a column's type can't be stored
    /// (see [`stored::stored_type`]); [`ErrorKind::Storage`] when the file can't be written.
    pub fn try_new(file: File, schema: SchemaRef, chunks: u32, buffer_bytes: usize) -> Result<Self> {
        if !(1..=MAX_CHUNKS).contains(&chunks) {
            return Err(internal(format!("{chunks} chunks")));
        }
        let schema = stored_schema(&schema)?;
        let output = Output::try_new(file, &schema, chunks)?;
        let buffer = Buffer::new(Arc::clone(&schema), chunks);
        Ok(Self { output, schema, buffer_bytes, buffer, rows: 0 })
    }

    /// Adds an entry to the file's metadata; the last one of a key counts.
    pub fn with_metadata(mut self, key: impl Into<String>, value: impl Into<String>) -> Self {
        self.output.set_metadata(key.into(), value.into());
        self
    }

    /// Takes the rows of `batch`; `numbers` holds each one's chunk, from 0.
    ///
    /// The batch's columns must be those of the writer's schema in order, their types equal or as stored.
    ///
    /// # Errors
    /// [`ErrorKind::Execute`] when a number is missing, NULL or not a chunk, or the columns differ;
    /// [`ErrorKind::Storage`] when the file can't be written. After an error the file is of no use.
    pub fn write(&mut self, batch: RecordBatch, numbers: &Int32Array) -> Result<()> {
        if batch.num_columns() != self.schema.fields().len() {
            let expected = self.schema.fields().len();
            return Err(internal(format!("{} columns instead of {expected}", batch.num_columns())));
        }
        let stored = batch.columns().iter().zip(self.schema.fields()).map(|(column, field)| {
            match column.data_type() == field.data_type() {
                true => Ok(Arc::clone(column)),
                false => cast(column, field.data_type()).map_err(arrow_error),
            }
        });
        let (stored, rows) = (stored.collect::<Result<_>>()?, batch.num_rows());
        drop(batch);
        self.buffer.add(stored, rows, numbers)?;
        self.rows += rows as u64;
        if self.buffer.bytes() >= self.buffer_bytes {
            self.write_buffered()?;
        }
        Ok(())
    }

    /// Writes what is buffered and the footer. The file is not synced to disk.
    ///
    /// # Errors
    /// [`ErrorKind::Storage`] when the file can't be written.
    pub fn finish(mut self) -> Result<SplitSize> {
        self.write_buffered()?;
        Ok(SplitSize { rows: self.rows, bytes: self.output.finish()? })
    }

    /// Bytes of memory that buffered rows take.
    #[cfg(test)]
    fn buffered_bytes(&self) -> usize {
        self.buffer.bytes()
    }

    fn write_buffered(&mut self) -> Result<()> {
        let Self { output, buffer, .. } = self;
        buffer.drain(|chunk, block| output.write_block(chunk, block))
    }
}

/// Writes all rows of `stream` to the empty `file`, cut into `chunks` chunks, with the given metadata; returns how much
/// that is, and the content of each chunk.
///
/// The stream's last column is the row's chunk number, an `Int32`; it is not stored. `buffer_bytes` is as for
/// [`SplitWriter::try_new`]. Dropping the future stops the stream.
///
/// # Errors
/// [`ErrorKind::Execute`] when the stream fails or is not of this kind, [`ErrorKind::Storage`] when the file can't be
/// written.
pub async fn split(
    stream: SendableRecordBatchStream,
    chunks: u32,
    file: File,
    buffer_bytes: usize,
    metadata: impl IntoIterator<Item = (String, String)>,
) -> Result<(SplitSize, Vec<Content>)> {
    let mut writer = SplitWriter::try_new(file, rows_of(&stream.schema())?, chunks, buffer_bytes)?;
    for (key, value) in metadata {
        writer = writer.with_metadata(key, value);
    }
    let contents = each_batch(stream, chunks, |batch, numbers| writer.write(batch, numbers)).await?;
    Ok((writer.finish()?, contents))
}

/// The content of each of `chunks` chunks of a stream as for [`split`], which is read and not stored.
///
/// # Errors
/// As [`split`].
pub async fn contents(stream: SendableRecordBatchStream, chunks: u32) -> Result<Vec<Content>> {
    each_batch(stream, chunks, |_, _| Ok(())).await
}

/// The columns of rows without their chunk number.
fn rows_of(schema: &Schema) -> Result<SchemaRef> {
    match schema.fields().split_last().filter(|(last, _)| *last.data_type() == DataType::Int32) {
        Some((_, fields)) => Ok(Arc::new(Schema::new_with_metadata(fields.to_vec(), schema.metadata().clone()))),
        None => Err(internal("the last column is not a chunk number".into())),
    }
}

/// Calls `take` with each batch of rows and their chunk numbers; returns the content of each chunk.
async fn each_batch(
    mut stream: SendableRecordBatchStream,
    chunks: u32,
    mut take: impl FnMut(RecordBatch, &Int32Array) -> Result<()>,
) -> Result<Vec<Content>> {
    let rows = rows_of(&stream.schema())?;
    let mut hasher = RowHasher::try_new(&rows).map_err(arrow_error)?;
    let mut contents = vec![Content::default(); chunks as usize];
    while let Some(batch) = stream.next().await {
        let mut batch = batch.map_err(execution_error)?;
        if batch.num_columns() != rows.fields().len() + 1 {
            return Err(internal("a batch without chunk numbers".into()));
        }
        let numbers = batch.remove_column(rows.fields().len());
        let Some(numbers) = numbers.as_primitive_opt::<Int32Type>() else {
            return Err(internal(format!("chunk numbers of type {}", numbers.data_type())));
        };
        let chunk = |row: usize| usize::try_from(numbers.value(row)).unwrap_or(usize::MAX);
        let hashed = hasher.hash(batch.columns(), batch.num_rows(), |row, hash| {
            // A number that is none is an error of who takes the batch.
            if let Some(content) = contents.get_mut(chunk(row)) {
                *content += hash;
            }
        });
        hashed.map_err(arrow_error)?;
        take(batch, numbers)?;
    }
    Ok(contents)
}

fn internal(found: String) -> Error {
    Error::new(ErrorKind::Execute, format!("internal error: an input can't be split: {found}"))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{
        Array, ArrayRef, AsArray, BinaryViewArray, BooleanArray, Decimal128Array, DictionaryArray,
        FixedSizeBinaryArray, FixedSizeListArray, Float64Array, Int32Array, Int64Array, ListArray, ListViewArray,
        MapArray, NullArray, RecordBatch, RecordBatchOptions, RunArray, StringArray, StringViewArray, StructArray,
        TimestampMicrosecondArray, UInt64Array, new_empty_array,
    };
    use arrow::buffer::{NullBuffer, OffsetBuffer, ScalarBuffer};
    use arrow::compute::{cast, concat_batches, filter_record_batch};
    use arrow::datatypes::{DataType, Field, Fields, Int8Type, Int32Type, Schema, TimeUnit, UnionFields, UnionMode};
    use datafusion::common::DataFusionError;
    use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
    use tempfile::{NamedTempFile, tempdir};

    use crate::error::ErrorKind;
    use crate::execute::split::file::SplitFile;
    use crate::execute::split::stored::{stored_schema, stored_type};
    use crate::execute::split::{SplitSize, SplitWriter, contents, split};

    /// Numbers that look random: xorshift64.
    struct Random(u64);

    impl Random {
        fn next(&mut self) -> u64 {
            self.0 ^= self.0 << 13;
            self.0 ^= self.0 >> 7;
            self.0 ^= self.0 << 17;
            self.0
        }

        fn below(&mut self, end: usize) -> usize {
            (self.next() % end as u64) as usize
        }

        fn options<T>(&mut self, rows: usize, mut value: impl FnMut(u64) -> T) -> Vec<Option<T>> {
            (0..rows).map(|_| Some(self.next()).filter(|n| n % 7 > 0).map(|n| value(n >> 8))).collect()
        }

        fn nulls(&mut self, rows: usize) -> Option<NullBuffer> {
            Some((0..rows).map(|_| !self.next().is_multiple_of(7)).collect())
        }

        fn offsets(&mut self, rows: usize) -> OffsetBuffer<i32> {
            OffsetBuffer::from_lengths((0..rows).map(|_| self.below(4)))
        }
    }

    fn text(number: u64) -> String {
        "a long text that views keep in a buffer "[..(number % 40) as usize].to_string() + &number.to_string()
    }

    fn item(data_type: DataType) -> Arc<Field> {
        Arc::new(Field::new("item", data_type, true))
    }

    /// One column of each kind, random and with NULLs where there can be.
    fn columns(rows: usize, random: &mut Random) -> Vec<ArrayRef> {
        let offsets = random.offsets(rows);
        let values = *offsets.last().unwrap() as usize;
        let strings: StringArray = random.options(rows, text).into_iter().collect();
        let views: StringViewArray = random.options(rows, text).into_iter().collect();
        let value_views: ArrayRef = Arc::new(random.options(values, text).into_iter().collect::<StringViewArray>());
        let dictionary: DictionaryArray<Int8Type> = DictionaryArray::new(
            random.options(rows, |n| (n % 5) as i8).into_iter().collect(),
            Arc::new((0..5).map(|n| Some(text(n))).collect::<StringArray>()),
        );
        let value_dictionary = cast(&value_views, &DataType::Utf8).unwrap();
        let dictionary_type = DataType::Dictionary(Box::new(DataType::Int32), Box::new(DataType::Utf8));
        let value_dictionary = cast(&value_dictionary, &dictionary_type).unwrap();
        let bytes = random.options(rows, |n| n.to_le_bytes());
        let fixed = FixedSizeBinaryArray::try_from_sparse_iter_with_size(bytes.into_iter(), 8).unwrap();
        let integers: Int64Array = random.options(rows, |n| n as i64).into_iter().collect();
        let list = ListArray::new(item(dictionary_type.clone()), offsets.clone(), value_dictionary, random.nulls(rows));
        let starts = (0..rows).map(|_| random.below(rows) as i32).collect::<ScalarBuffer<i32>>();
        let sizes = starts.iter().map(|start| random.below((rows - *start as usize).min(3)) as i32).collect();
        let list_view =
            ListViewArray::new(item(DataType::Utf8View), starts, sizes, Arc::new(views.clone()), random.nulls(rows));
        let fields = Fields::from(vec![
            Field::new("views", DataType::Utf8View, true),
            Field::new("lists", list.data_type().clone(), true),
        ]);
        let of_struct: Vec<ArrayRef> = vec![Arc::new(views.clone()), Arc::new(list.clone())];
        let entries = Fields::from(vec![
            Field::new("keys", DataType::Int64, false),
            Field::new("values", DataType::Utf8View, true),
        ]);
        let keys: ArrayRef = Arc::new((0..values as i64).collect::<Int64Array>());
        let map = MapArray::new(
            Arc::new(Field::new("entries", DataType::Struct(entries.clone()), false)),
            offsets,
            StructArray::new(entries, vec![keys, value_views], None),
            random.nulls(rows),
            false,
        );
        let pairs: ArrayRef = Arc::new(random.options(2 * rows, text).into_iter().collect::<StringViewArray>());
        let run_ends = (1..=rows as i32).collect::<Int32Array>();
        let decimals: Decimal128Array = random.options(rows, i128::from).into_iter().collect();
        let times: TimestampMicrosecondArray = random.options(rows, |n| n as i64).into_iter().collect();
        vec![
            Arc::new(integers.clone()),
            Arc::new(random.options(rows, |n| n % 2 == 0).into_iter().collect::<BooleanArray>()),
            Arc::new(random.options(rows, |n| n as f64).into_iter().collect::<Float64Array>()),
            Arc::new(random.options(rows, |n| n).into_iter().collect::<UInt64Array>()),
            Arc::new(strings.clone()),
            Arc::new(views),
            Arc::new(random.options(rows, |n| text(n).into_bytes()).into_iter().collect::<BinaryViewArray>()),
            Arc::new(dictionary),
            Arc::new(decimals.with_precision_and_scale(38, 4).unwrap()),
            Arc::new(times.with_timezone("+01:00")),
            Arc::new(fixed),
            Arc::new(list),
            Arc::new(list_view),
            Arc::new(StructArray::new(fields, of_struct, random.nulls(rows))),
            Arc::new(map),
            Arc::new(FixedSizeListArray::new(item(DataType::Utf8View), 2, pairs, random.nulls(rows))),
            Arc::new(RunArray::<Int32Type>::try_new(&run_ends, &strings).unwrap()),
            Arc::new(NullArray::new(rows)),
        ]
    }

    fn batch_of(columns: Vec<ArrayRef>, rows: usize) -> RecordBatch {
        let field =
            |(index, column): (usize, &ArrayRef)| Field::new(format!("c{index}"), column.data_type().clone(), true);
        let schema = Arc::new(Schema::new(columns.iter().enumerate().map(field).collect::<Vec<_>>()));
        RecordBatch::try_new_with_options(schema, columns, &RecordBatchOptions::new().with_row_count(Some(rows)))
            .unwrap()
    }

    fn numbers(rows: usize, chunks: u32, random: &mut Random) -> Int32Array {
        (0..rows).map(|_| Some(random.below(chunks as usize) as i32)).collect()
    }

    /// Writes the batches, cut as `numbers` say.
    fn written(batches: &[(RecordBatch, Int32Array)], chunks: u32, buffer_bytes: usize) -> (NamedTempFile, SplitSize) {
        let file = NamedTempFile::new().unwrap();
        let mut writer =
            SplitWriter::try_new(file.reopen().unwrap(), batches[0].0.schema(), chunks, buffer_bytes).unwrap();
        for (batch, numbers) in batches {
            writer.write(batch.clone(), numbers).unwrap();
            assert!(writer.buffered_bytes() < buffer_bytes.max(1));
        }
        let size = writer.finish().unwrap();
        (file, size)
    }

    /// Each chunk holds the rows of its number in the order of the input, and nothing else.
    fn check(batches: &[(RecordBatch, Int32Array)], chunks: u32, buffer_bytes: usize) {
        let case = format!("{chunks} chunks, {buffer_bytes} bytes");
        let (file, size) = written(batches, chunks, buffer_bytes);
        assert_eq!(size.bytes, file.as_file().metadata().unwrap().len(), "{case}");
        let split = Arc::new(SplitFile::open(file.path()).unwrap());
        assert_eq!(split.chunks(), chunks, "{case}");
        let schema = stored_schema(&batches[0].0.schema()).unwrap();
        assert_eq!(split.schema(), &schema, "{case}");
        let plain = |batch: &RecordBatch| {
            let columns = batch.columns().iter().zip(schema.fields());
            let columns = columns.map(|(column, field)| cast(column, field.data_type()).unwrap()).collect();
            batch_of(columns, batch.num_rows()).with_schema(Arc::clone(&schema)).unwrap()
        };
        let all = concat_batches(&schema, &batches.iter().map(|(batch, _)| plain(batch)).collect::<Vec<_>>()).unwrap();
        let numbers: Vec<i32> = batches.iter().flat_map(|(_, numbers)| numbers.values().to_vec()).collect();
        let (mut rows, mut bytes) = (0, 0);
        for chunk in 0..chunks {
            let mask: BooleanArray = numbers.iter().map(|number| Some(*number == chunk as i32)).collect();
            let expected = filter_record_batch(&all, &mask).unwrap();
            let blocks: Vec<_> = split.read(chunk, None).map(|block| block.unwrap()).collect();
            assert!(blocks.iter().all(|block| (1..=8192).contains(&block.num_rows())), "{case}");
            let found = concat_batches(&schema, &blocks).unwrap();
            assert_eq!(found.num_rows() as u64, split.rows(chunk), "{case}, chunk {chunk}");
            // List views may point at other places for the same values.
            for (found, expected) in found.columns().iter().zip(expected.columns()) {
                assert_eq!(found.len(), expected.len(), "{case}, chunk {chunk}");
                match expected.as_list_view_opt::<i32>() {
                    Some(expected) => {
                        assert!(found.as_list_view::<i32>().iter().eq(expected.iter()), "{case}, chunk {chunk}");
                    }
                    None => assert_eq!(found, expected, "{case}, chunk {chunk}"),
                }
            }
            assert_eq!(split.bytes(chunk) > 0, split.rows(chunk) > 0, "{case}, chunk {chunk}");
            (rows, bytes) = (rows + split.rows(chunk), bytes + split.bytes(chunk));
        }
        assert_eq!((rows, all.num_rows() as u64), (size.rows, size.rows), "{case}");
        assert!(bytes < size.bytes, "{case}");
    }

    #[test]
    fn a_chunk_holds_the_rows_of_its_number_in_order() {
        for chunks in [1, 7, 4096] {
            let mut random = Random(u64::from(chunks) + 1);
            let mut batches = Vec::new();
            for rows in [1, 300, 0, 700, 64] {
                // A slice, so that no buffer starts with the first row.
                let batch = batch_of(columns(rows + 5, &mut random), rows + 5).slice(3, rows);
                batches.push((batch, numbers(rows, chunks, &mut random)));
            }
            for buffer_bytes in [0, 100_000, usize::MAX] {
                check(&batches, chunks, buffer_bytes);
            }
        }
    }

    #[test]
    fn long_chunks_are_many_blocks_and_a_skewed_cut_is_right() {
        let mut random = Random(5);
        let mut batches = Vec::new();
        for rows in [20_000, 70_000, 5] {
            let values: ArrayRef = Arc::new(random.options(rows, text).into_iter().collect::<StringViewArray>());
            let numbers = (0..rows).map(|_| Some(random.below(100).saturating_sub(80) as i32)).collect();
            batches.push((batch_of(vec![values], rows), numbers));
        }
        check(&batches, 64, 1 << 20);
        check(&batches, 64, usize::MAX);
    }

    #[test]
    fn rows_without_columns_are_counted() {
        let mut random = Random(9);
        let batches: Vec<_> =
            [10, 0, 20_000].map(|rows| (batch_of(vec![], rows), numbers(rows, 3, &mut random))).into();
        check(&batches, 3, usize::MAX);
        check(&batches, 3, 0);
    }

    #[test]
    fn no_rows_make_a_file() {
        let empty = columns(1, &mut Random(1)).iter().map(|column| new_empty_array(column.data_type())).collect();
        check(&[(batch_of(empty, 0), Int32Array::from(vec![0; 0]))], 4096, 0);
    }

    #[test]
    fn metadata_of_the_caller_is_kept_with_the_last_value_of_a_key() {
        let file = NamedTempFile::new().unwrap();
        let writer = SplitWriter::try_new(file.reopen().unwrap(), Arc::new(Schema::empty()), 1, 0).unwrap();
        writer.with_metadata("key", "old").with_metadata("key", "new\n\"ü\"").finish().unwrap();
        let split = SplitFile::open(file.path()).unwrap();
        assert_eq!((split.metadata("key"), split.metadata("other")), (Some("new\n\"ü\""), None));
    }

    #[test]
    fn more_than_a_hundred_thousand_blocks_are_found_again() {
        let numbers: Int32Array = (0..4096).collect();
        let (file, size) = written(&vec![(batch_of(vec![], 4096), numbers); 26], 4096, 0);
        assert_eq!(size.rows, 26 * 4096);
        let split = Arc::new(SplitFile::open(file.path()).unwrap());
        for chunk in [0, 1, 2222, 4095] {
            let rows: Vec<_> = split.read(chunk, None).map(|block| block.unwrap().num_rows()).collect();
            assert_eq!(rows, [1; 26], "chunk {chunk}");
        }
    }

    /// Few rows of many large views: the first of each hundred.
    fn sparse_views(rows: usize) -> RecordBatch {
        let long: StringViewArray = (0..100 * rows).map(|n| Some(format!("{n:0>1000}"))).collect();
        let indices: Int64Array = (0..rows as i64).map(|n| n * 100).collect();
        let views = arrow::compute::take(&long, &indices, None).unwrap();
        let fields = Fields::from(vec![Field::new("views", DataType::Utf8View, true)]);
        let nested = StructArray::new(fields, vec![Arc::clone(&views)], None);
        batch_of(vec![views, Arc::new(nested)], rows)
    }

    #[test]
    fn buffers_behind_a_few_views_are_neither_kept_nor_written() {
        let (batches, rows) = (20, 40);
        let file = NamedTempFile::new().unwrap();
        let mut writer = SplitWriter::try_new(file.reopen().unwrap(), sparse_views(1).schema(), 7, usize::MAX).unwrap();
        let numbers: Int32Array = (0..rows).map(|row| row % 7).collect();
        for _ in 0..batches {
            let batch = sparse_views(rows as usize);
            assert!(batch.get_array_memory_size() > 4_000_000);
            writer.write(batch, &numbers).unwrap();
        }
        // Two columns of texts of 1,000 bytes.
        let data = 2 * 1000 * (batches * rows) as usize;
        assert!((data..2 * data).contains(&writer.buffered_bytes()), "{} for {data}", writer.buffered_bytes());
        let size = writer.finish().unwrap();
        assert!(size.bytes < 2 * data as u64, "{} for {data}", size.bytes);
    }

    #[test]
    fn a_buffer_that_batches_share_counts_once() {
        let rows = 10_000;
        let large = batch_of(vec![Arc::new((0..rows).collect::<Int64Array>())], rows as usize);
        let mut writer = SplitWriter::try_new(tempfile::tempfile().unwrap(), large.schema(), 1, usize::MAX).unwrap();
        writer.write(large.clone(), &(0..rows).map(|_| Some(0)).collect()).unwrap();
        let whole = writer.buffered_bytes();
        writer.write(large.slice(0, 100), &(0..100).map(|_| Some(0)).collect()).unwrap();
        assert!(writer.buffered_bytes() < whole + 100 * 20, "{whole}, {}", writer.buffered_bytes());
        // What is written is not counted any more.
        let mut writer = SplitWriter::try_new(tempfile::tempfile().unwrap(), large.schema(), 1, 1).unwrap();
        writer.write(large, &(0..rows).map(|_| Some(0)).collect()).unwrap();
        assert_eq!(writer.buffered_bytes(), 0);
    }

    #[test]
    fn a_small_slice_does_not_keep_its_batch() {
        let large = batch_of(vec![Arc::new((0..1_000_000).collect::<Int64Array>())], 1_000_000);
        let mut writer = SplitWriter::try_new(tempfile::tempfile().unwrap(), large.schema(), 1, usize::MAX).unwrap();
        writer.write(large.slice(500, 1000), &(0..1000).map(|_| Some(0)).collect()).unwrap();
        assert!(writer.buffered_bytes() < 1000 * 20 + 1000, "{}", writer.buffered_bytes());
    }

    #[test]
    fn wrong_numbers_and_columns_are_errors() {
        let batch = batch_of(vec![Arc::new(Int64Array::from(vec![1, 2]))], 2);
        let cases = [
            (batch.clone(), Int32Array::from(vec![0, 7]), "a row of chunk 7 out of 7"),
            (batch.clone(), Int32Array::from(vec![-1, 0]), "a row of chunk -1 out of 7"),
            (batch.clone(), Int32Array::from(vec![65_536, 0]), "a row of chunk 65536 out of 7"),
            (batch.clone(), Int32Array::from(vec![0]), "1 chunk numbers, 0 of them NULL, for 2 rows"),
            (batch.clone(), Int32Array::from(vec![Some(0), None]), "2 chunk numbers, 1 of them NULL, for 2 rows"),
            (batch_of(vec![], 2), Int32Array::from(vec![0, 0]), "0 columns instead of 1"),
        ];
        for (wrong, numbers, expected) in cases {
            let mut writer = SplitWriter::try_new(tempfile::tempfile().unwrap(), batch.schema(), 7, 0).unwrap();
            let error = writer.write(wrong, &numbers).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Execute);
            assert!(error.to_string().contains(expected), "{error}");
        }
        for chunks in [0, 4097] {
            let result = SplitWriter::try_new(tempfile::tempfile().unwrap(), batch.schema(), chunks, 0);
            assert_eq!(result.map(|_| ()).unwrap_err().kind(), ErrorKind::Execute);
        }
    }

    #[test]
    fn a_type_is_stored_plain_or_refused() {
        let dictionary = DataType::Dictionary(Box::new(DataType::Int8), Box::new(DataType::Utf8));
        let nested =
            |inner: DataType| DataType::Struct(Fields::from(vec![Field::new("f", DataType::List(item(inner)), true)]));
        let fields = UnionFields::try_new([0], [Field::new("a", DataType::Int8, true)]).unwrap();
        let union = DataType::Union(fields, UnionMode::Dense);
        let time = DataType::Timestamp(TimeUnit::Second, None);
        let cases = [
            (time.clone(), Some(time)),
            (dictionary.clone(), Some(DataType::Utf8)),
            (nested(dictionary), Some(nested(DataType::Utf8))),
            (union.clone(), None),
            (nested(union), None),
        ];
        for (data_type, expected) in cases {
            assert_eq!(stored_type(&data_type), expected, "{data_type}");
        }
    }

    #[tokio::test]
    async fn the_last_column_of_a_stream_is_the_chunk_number() {
        let folder = tempdir().unwrap();
        let path = folder.path().join("split");
        let values: ArrayRef = Arc::new(Int64Array::from(vec![10, 11, 12]));
        let numbers: ArrayRef = Arc::new(Int32Array::from(vec![1, 0, 1]));
        let batch = batch_of(vec![Arc::clone(&values), numbers], 3);
        let stream = |batch: RecordBatch, error: bool| {
            let end = error.then(|| Err(DataFusionError::Execution("torn".into())));
            let schema = batch.schema();
            let batches = futures::stream::iter([Ok(batch)].into_iter().chain(end));
            Box::pin(RecordBatchStreamAdapter::new(schema, batches))
        };
        let file = || std::fs::File::create(&path).unwrap();
        let metadata = [("key".to_string(), "value".to_string())];
        let (size, of_split) = split(stream(batch.clone(), false), 2, file(), 0, metadata).await.unwrap();
        assert_eq!(of_split, contents(stream(batch.clone(), false), 2).await.unwrap());
        assert_eq!(size.rows, 3);
        let split_file = Arc::new(SplitFile::open(&path).unwrap());
        assert_eq!(split_file.metadata("key"), Some("value"));
        let found: Vec<_> = split_file.read(1, None).map(|block| block.unwrap()).collect();
        assert_eq!(found, [batch_of(vec![Arc::new(Int64Array::from(vec![10, 12]))], 2)]);

        let error = split(stream(batch, true), 2, file(), 0, []).await.unwrap_err();
        assert_eq!((error.kind(), error.to_string().contains("torn")), (ErrorKind::Execute, true));
        assert_eq!(SplitFile::open(&path).unwrap_err().kind(), ErrorKind::Storage);
        let error = split(stream(batch_of(vec![values], 3), false), 2, file(), 0, []).await.unwrap_err();
        assert!(error.to_string().contains("not a chunk number"), "{error}");
    }
}
