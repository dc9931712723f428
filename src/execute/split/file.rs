//! A split file, opened to read single chunks of it.

use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow::array::{RecordBatch, RecordBatchOptions};
use arrow::buffer::MutableBuffer;
use arrow::datatypes::{Schema, SchemaRef};
use arrow::error::ArrowError;
use arrow_ipc::convert::fb_to_schema;
use arrow_ipc::reader::{FileDecoder, read_footer_length};
use arrow_ipc::{Block, MetadataVersion, root_as_footer};

use crate::chunk::MAX_CHUNKS;
use crate::error::{Error, ErrorKind, Result};
use crate::execute::split::output::{BLOCKS_KEY, CHECKSUM_BYTES, CHUNKS_KEY, VERSION, VERSION_KEY, checksum};

/// Length of what ends every IPC file: the footer's length and the magic bytes.
const TRAILER_BYTES: usize = 10;

/// A split file whose footer has been read. It holds one file descriptor, which all reads share.
#[derive(Debug)]
pub struct SplitFile {
    path: PathBuf,
    file: File,
    schema: SchemaRef,
    version: MetadataVersion,
    metadata: HashMap<String, String>,
    /// By chunk, and within a chunk in the file's order.
    blocks: Vec<StoredBlock>,
    /// Where each chunk's blocks end in `blocks`.
    ends: Vec<usize>,
}

#[derive(Debug, Clone, Copy)]
struct StoredBlock {
    chunk: u32,
    rows: usize,
    checksum: u64,
    place: Block,
    bytes: usize,
}

impl SplitFile {
    /// Opens a file and reads its footer.
    ///
    /// # Errors
    /// [`ErrorKind::Storage`] when the file can't be read, is damaged or not a split file of this version.
    pub fn open(path: impl Into<PathBuf>) -> Result<Self> {
        let path = path.into();
        let failed = |e| Error::storage("read", &path, e);
        let file = File::open(&path).map_err(failed)?;
        let length = file.metadata().map_err(failed)?.len();
        let trailer_start =
            length.checked_sub(TRAILER_BYTES as u64).ok_or_else(|| damaged(&path, "it is too short"))?;
        let mut trailer = [0; TRAILER_BYTES];
        read_exact_at(&file, &mut trailer, trailer_start).map_err(failed)?;
        let footer_bytes = read_footer_length(trailer).map_err(|e| damaged(&path, "it is cut off").with_source(e))?;
        let start = trailer_start.checked_sub(footer_bytes as u64 + CHECKSUM_BYTES as u64);
        let start = start.ok_or_else(|| damaged(&path, "its footer is cut off"))?;
        let mut bytes = vec![0; CHECKSUM_BYTES + footer_bytes + TRAILER_BYTES];
        read_exact_at(&file, &mut bytes, start).map_err(failed)?;
        let (expected, footer) = bytes.split_at(CHECKSUM_BYTES);
        if expected != checksum(footer).to_le_bytes() {
            return Err(damaged(&path, "its footer is not what was written"));
        }
        Footer::parse(&footer[..footer_bytes], start)
            .and_then(|footer| footer.into_file(&path, file))
            .map_err(|found| damaged(&path, &found))
    }

    /// The columns as they are stored.
    pub fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    /// Number of chunks that the rows were cut into.
    pub fn chunks(&self) -> u32 {
        self.ends.len() as u32
    }

    /// Number of rows of a chunk, from 0; a chunk out of range has none.
    pub fn rows(&self, chunk: u32) -> u64 {
        self.blocks(chunk).iter().map(|block| block.rows as u64).sum()
    }

    /// Bytes that a chunk takes in the file.
    pub fn bytes(&self, chunk: u32) -> u64 {
        self.blocks(chunk).iter().map(|block| block.bytes as u64).sum()
    }

    /// An entry of the metadata that the writer was given.
    pub fn metadata(&self, key: &str) -> Option<&str> {
        self.metadata.get(key).map(String::as_str)
    }

    /// Reads a chunk's rows in the order of the input, block by block; with a projection, only the columns with these
    /// indices, in its order.
    ///
    /// # Errors
    /// Each item: [`ErrorKind::Storage`] when a block can't be read or is damaged. Nothing follows an error.
    pub fn read(
        self: &Arc<Self>,
        chunk: u32,
        projection: Option<Vec<usize>>,
    ) -> impl Iterator<Item = Result<RecordBatch>> + Send + use<> {
        let file = Arc::clone(self);
        let (first, end) = self.range(chunk);
        let without_columns = projection.as_ref().is_some_and(Vec::is_empty);
        let mut decoder = FileDecoder::new(Arc::clone(&self.schema), self.version);
        if let Some(projection) = projection {
            decoder = decoder.with_projection(projection);
        }
        let mut failed = false;
        (first..end).map_while(move |index| {
            if failed {
                return None;
            }
            let block = &file.blocks[index];
            let batch = match without_columns {
                true => rows_only(block.rows).map_err(|e| damaged(&file.path, "a block has no rows").with_source(e)),
                false => file.read_block(block, &decoder),
            };
            failed = batch.is_err();
            Some(batch)
        })
    }

    /// Reads all blocks, and compares them with what was written.
    ///
    /// # Errors
    /// [`ErrorKind::Storage`] for the first that can't be read or is damaged.
    pub fn check(&self) -> Result<()> {
        self.blocks.iter().try_for_each(|block| self.bytes_of(block).map(drop))
    }

    fn bytes_of(&self, block: &StoredBlock) -> Result<MutableBuffer> {
        let mut bytes = MutableBuffer::from_len_zeroed(block.bytes);
        let place = u64::try_from(block.place.offset()).unwrap_or_default();
        read_exact_at(&self.file, &mut bytes, place).map_err(|e| Error::storage("read", &self.path, e))?;
        if checksum(&bytes) != block.checksum {
            return Err(damaged(&self.path, "a block is not what was written").with_chunk(block.chunk));
        }
        Ok(bytes)
    }

    fn read_block(&self, block: &StoredBlock, decoder: &FileDecoder) -> Result<RecordBatch> {
        let bytes = self.bytes_of(block)?;
        match decoder.read_record_batch(&block.place, &bytes.into()) {
            Ok(Some(batch)) if batch.num_rows() == block.rows => Ok(batch),
            Ok(_) => Err(damaged(&self.path, "a block has other rows than the footer says").with_chunk(block.chunk)),
            Err(e) => Err(damaged(&self.path, "a block can't be decoded").with_chunk(block.chunk).with_source(e)),
        }
    }

    fn blocks(&self, chunk: u32) -> &[StoredBlock] {
        let (first, end) = self.range(chunk);
        &self.blocks[first..end]
    }

    fn range(&self, chunk: u32) -> (usize, usize) {
        let chunk = chunk as usize;
        let Some(end) = self.ends.get(chunk) else { return (0, 0) };
        let first = chunk.checked_sub(1).and_then(|before| self.ends.get(before));
        (first.copied().unwrap_or_default(), *end)
    }
}

/// What a split file's footer says.
struct Footer {
    schema: Schema,
    version: MetadataVersion,
    metadata: HashMap<String, String>,
    blocks: Vec<StoredBlock>,
    chunks: u32,
}

impl Footer {
    /// Parses a footer that was found whole; blocks end before `end`. An error says what is wrong.
    fn parse(bytes: &[u8], end: u64) -> Result<Self, String> {
        let footer = root_as_footer(bytes).map_err(|e| e.to_string())?;
        let mut metadata = HashMap::new();
        for entry in footer.custom_metadata().into_iter().flatten() {
            if let (Some(key), Some(value)) = (entry.key(), entry.value()) {
                metadata.insert(key.to_string(), value.to_string());
            }
        }
        match metadata.get(VERSION_KEY).map(String::as_str) {
            Some(VERSION) => {}
            Some(other) => return Err(format!("it has format {other} instead of {VERSION}")),
            None => return Err("it is another Arrow file".into()),
        }
        let chunks = metadata.get(CHUNKS_KEY).and_then(|text| text.parse().ok());
        let chunks =
            chunks.filter(|chunks| (1..=MAX_CHUNKS).contains(chunks)).ok_or("its number of chunks is wrong")?;
        let schema = footer.schema().filter(|schema| schema.endianness().equals_to_target_endianness());
        let schema = fb_to_schema(schema.ok_or("it has no schema for this processor")?);
        let lines = metadata.remove(BLOCKS_KEY).ok_or("it has no list of blocks")?;
        let places = footer.recordBatches().ok_or("it has no blocks")?;
        if lines.lines().count() != places.len() {
            return Err(format!("it lists {} blocks of {}", lines.lines().count(), places.len()));
        }
        let blocks = lines.lines().zip(places.iter()).map(|(line, place)| stored_block(line, *place, chunks, end));
        let blocks = blocks.collect::<Option<_>>().ok_or("its list of blocks is wrong")?;
        Ok(Self { schema, version: footer.version(), metadata, blocks, chunks })
    }

    fn into_file(self, path: &Path, file: File) -> Result<SplitFile, String> {
        let Self { schema, version, metadata, mut blocks, chunks } = self;
        blocks.sort_by_key(|block| block.chunk);
        let ends = (0..chunks).map(|chunk| blocks.partition_point(|block| block.chunk <= chunk)).collect();
        Ok(SplitFile { path: path.into(), file, schema: Arc::new(schema), version, metadata, blocks, ends })
    }
}

/// A block by its line in the list and its place, or `None` when they are not possible.
fn stored_block(line: &str, place: Block, chunks: u32, end: u64) -> Option<StoredBlock> {
    let mut parts = line.split(' ');
    let chunk = parts.next()?.parse().ok().filter(|chunk| *chunk < chunks)?;
    let rows = parts.next()?.parse().ok()?;
    let checksum = u64::from_str_radix(parts.next()?, 16).ok()?;
    let header_bytes = u64::try_from(place.metaDataLength()).ok()?;
    let bytes = u64::try_from(place.bodyLength()).ok()?.checked_add(header_bytes)?;
    let inside = u64::try_from(place.offset()).ok()?.checked_add(bytes)? <= end;
    let bytes = usize::try_from(bytes).ok()?;
    (inside && parts.next().is_none()).then_some(StoredBlock { chunk, rows, checksum, place, bytes })
}

fn rows_only(rows: usize) -> Result<RecordBatch, ArrowError> {
    let options = RecordBatchOptions::new().with_row_count(Some(rows));
    RecordBatch::try_new_with_options(Arc::new(Schema::empty()), Vec::new(), &options)
}

fn damaged(path: &Path, found: &str) -> Error {
    Error::new(ErrorKind::Storage, format!("{} can't be used: {found}; run again, and it is rebuilt", path.display()))
}

#[cfg(unix)]
fn read_exact_at(file: &File, bytes: &mut [u8], offset: u64) -> io::Result<()> {
    std::os::unix::fs::FileExt::read_exact_at(file, bytes, offset)
}

#[cfg(windows)]
fn read_exact_at(file: &File, mut bytes: &mut [u8], mut offset: u64) -> io::Result<()> {
    while !bytes.is_empty() {
        match std::os::windows::fs::FileExt::seek_read(file, bytes, offset) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(read) => {
                bytes = &mut bytes[read..];
                offset += read as u64;
            }
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{ArrayRef, Int32Array, Int64Array, RecordBatch, StringViewArray};
    use arrow_ipc::reader::FileReader;
    use tempfile::NamedTempFile;

    use crate::error::{ErrorKind, Result};
    use crate::execute::split::SplitWriter;
    use crate::execute::split::file::SplitFile;

    const CHUNKS: u32 = 5;
    const ROWS: i64 = 3000;

    fn written() -> NamedTempFile {
        let file = NamedTempFile::new().unwrap();
        let numbers: ArrayRef = Arc::new((0..ROWS).collect::<Int64Array>());
        let texts: ArrayRef = Arc::new((0..ROWS).map(|n| Some(format!("text {n:012}"))).collect::<StringViewArray>());
        let batch = RecordBatch::try_from_iter([("n", numbers), ("s", texts)]).unwrap();
        let chunks: Int32Array = (0..ROWS as i32).map(|n| n % CHUNKS as i32).collect();
        let mut writer = SplitWriter::try_new(file.reopen().unwrap(), batch.schema(), CHUNKS, 0).unwrap();
        writer.write(batch.clone(), &chunks).unwrap();
        writer.write(batch, &chunks).unwrap();
        writer.finish().unwrap();
        file
    }

    fn read_all(file: &NamedTempFile) -> Result<Vec<RecordBatch>> {
        let split = Arc::new(SplitFile::open(file.path())?);
        (0..split.chunks()).flat_map(|chunk| split.read(chunk, None)).collect()
    }

    #[test]
    fn a_damaged_file_is_an_error() {
        let file = written();
        let bytes = std::fs::read(file.path()).unwrap();
        let whole = read_all(&file).unwrap();
        assert_eq!(whole.iter().map(RecordBatch::num_rows).sum::<usize>() as i64, 2 * ROWS);
        let ends = (0..40).chain((0..60).map(|n| n * bytes.len() / 60)).chain(bytes.len() - 40..bytes.len());
        for end in ends {
            std::fs::write(file.path(), &bytes[..end]).unwrap();
            assert_eq!(SplitFile::open(file.path()).unwrap_err().kind(), ErrorKind::Storage, "cut at {end}");
        }
        let footer = bytes.len() - 3000;
        let places = (0..200).map(|n| n * bytes.len() / 200).chain((footer..bytes.len()).step_by(7));
        for place in places.chain(bytes.len() - 20..bytes.len()) {
            let mut flipped = bytes.clone();
            flipped[place] ^= 1 << (place % 8);
            std::fs::write(file.path(), &flipped).unwrap();
            match read_all(&file) {
                Ok(batches) => assert_eq!(batches, whole, "byte {place}"),
                Err(error) => assert_eq!(error.kind(), ErrorKind::Storage, "byte {place}"),
            }
        }
        for place in bytes.len() - 20..bytes.len() {
            let mut flipped = bytes.clone();
            flipped[place] ^= 0x80;
            std::fs::write(file.path(), &flipped).unwrap();
            assert_eq!(SplitFile::open(file.path()).unwrap_err().kind(), ErrorKind::Storage, "byte {place}");
        }
    }

    #[test]
    fn nothing_follows_an_error() {
        let file = written();
        let split = Arc::new(SplitFile::open(file.path()).unwrap());
        file.as_file().set_len(100).unwrap();
        let results: Vec<_> = split.read(2, None).collect();
        assert_eq!(results.len(), 1);
        assert_eq!(results[0].as_ref().unwrap_err().kind(), ErrorKind::Storage);
        let rows: usize = split.read(2, Some(vec![])).map(|batch| batch.unwrap().num_rows()).sum();
        assert_eq!(rows as u64, split.rows(2), "rows alone are in the footer");
    }

    #[test]
    fn a_projection_gives_these_columns_in_its_order() {
        let split = Arc::new(SplitFile::open(written().path()).unwrap());
        let whole = split.read(3, None).next().unwrap().unwrap();
        for projection in [vec![1, 0], vec![1], vec![0, 0], vec![]] {
            let found = split.read(3, Some(projection.clone())).next().unwrap().unwrap();
            assert_eq!(found, whole.project(&projection).unwrap(), "{projection:?}");
        }
        assert_eq!((split.rows(CHUNKS), split.bytes(CHUNKS), split.read(CHUNKS, None).count()), (0, 0, 0));
    }

    #[test]
    fn any_arrow_reader_reads_all_rows() {
        let file = written();
        let batches: Vec<_> = FileReader::try_new(file.reopen().unwrap(), None).unwrap().map(|b| b.unwrap()).collect();
        assert_eq!(batches.iter().map(RecordBatch::num_rows).sum::<usize>() as i64, 2 * ROWS);
    }

    #[test]
    fn another_file_is_an_error() {
        let file = NamedTempFile::new().unwrap();
        assert!(SplitFile::open(file.path()).unwrap_err().to_string().contains("too short"));
        let mut other =
            arrow_ipc::writer::FileWriter::try_new(file.as_file(), &arrow::datatypes::Schema::empty()).unwrap();
        other.finish().unwrap();
        assert_eq!(SplitFile::open(file.path()).unwrap_err().kind(), ErrorKind::Storage);
        assert_eq!(SplitFile::open("/does/not/exist").unwrap_err().kind(), ErrorKind::Storage);
    }
}
