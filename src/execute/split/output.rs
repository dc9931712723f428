//! The blocks and the footer of a split file, as bytes.

use std::fmt::Write as _;
use std::fs::File;
use std::io::{self, Write};

use arrow::array::RecordBatch;
use arrow::datatypes::Schema;
use arrow::error::ArrowError;
use arrow_ipc::CompressionType;
use arrow_ipc::writer::{FileWriter, IpcWriteOptions};

use crate::error::{Error, ErrorKind, Result};
use crate::failpoint;

/// Metadata key of the format's version; what follows it depends on that.
pub const VERSION_KEY: &str = "chunkwise.split";
/// The version that is written, and the only one that is read.
pub const VERSION: &str = "1";
/// Metadata key of the number of chunks.
pub const CHUNKS_KEY: &str = "chunkwise.split.chunks";
/// Metadata key of the list of blocks: a line for each in the file's order, of chunk, rows and [`checksum`] in hex.
pub const BLOCKS_KEY: &str = "chunkwise.split.blocks";

/// Between the last block and the footer: IPC's mark of the end, then the checksum of all that follows.
const END_BYTES: usize = 8;
/// Length of the footer's checksum.
pub const CHECKSUM_BYTES: usize = size_of::<u64>();

const WRITE_BYTES: usize = 1 << 20;

/// The checksum of some bytes of a split file: it tells damage, not forgery.
pub fn checksum(bytes: &[u8]) -> u64 {
    let mut first = [0; CHECKSUM_BYTES];
    first.copy_from_slice(&blake3::hash(bytes).as_bytes()[..CHECKSUM_BYTES]);
    u64::from_le_bytes(first)
}

/// A split file that is being written, block after block.
pub struct Output {
    writer: FileWriter<Pending>,
    blocks: String,
}

impl Output {
    pub fn try_new(file: File, schema: &Schema, chunks: u32) -> Result<Self> {
        let options =
            IpcWriteOptions::default().try_with_compression(Some(CompressionType::LZ4_FRAME)).map_err(write_error)?;
        let pending = Pending { file, bytes: Vec::new(), block_start: 0, written_bytes: 0 };
        let mut writer = FileWriter::try_new_with_options(pending, schema, options).map_err(write_error)?;
        writer.write_metadata(VERSION_KEY, VERSION);
        writer.write_metadata(CHUNKS_KEY, chunks.to_string());
        writer.get_mut().end_block();
        Ok(Self { writer, blocks: String::new() })
    }

    pub fn set_metadata(&mut self, key: String, value: String) {
        self.writer.write_metadata(key, value);
    }

    /// Appends a block of rows of `chunk`.
    pub fn write_block(&mut self, chunk: u32, block: &RecordBatch) -> Result<()> {
        self.writer.write(block).map_err(write_error)?;
        let pending = self.writer.get_mut();
        let checksum = pending.end_block();
        pending.write_if_long().map_err(|e| write_error(e.into()))?;
        writeln!(self.blocks, "{chunk} {} {checksum:x}", block.num_rows())
            .map_err(|e| write_error(ArrowError::ExternalError(Box::new(e))))
    }

    /// Writes the footer; returns the file's length in bytes.
    pub fn finish(mut self) -> Result<u64> {
        self.writer.write_metadata(BLOCKS_KEY, self.blocks);
        self.writer.finish().map_err(write_error)?;
        let pending = self.writer.into_inner().map_err(write_error)?;
        pending.finish().map_err(|e| write_error(e.into()))
    }
}

/// Bytes that are not in the file yet, because a block's checksum needs them or to write more at once.
struct Pending {
    file: File,
    bytes: Vec<u8>,
    block_start: usize,
    written_bytes: u64,
}

impl Pending {
    /// The checksum of what came since the last call.
    fn end_block(&mut self) -> u64 {
        let checksum = checksum(&self.bytes[self.block_start..]);
        self.block_start = self.bytes.len();
        checksum
    }

    fn write_if_long(&mut self) -> io::Result<()> {
        if self.bytes.len() >= WRITE_BYTES {
            write_all(&mut self.file, &self.bytes)?;
            self.written_bytes += self.bytes.len() as u64;
            self.bytes.clear();
            self.block_start = 0;
        }
        Ok(())
    }

    /// Writes all, with the footer's checksum in its place.
    fn finish(mut self) -> io::Result<u64> {
        let footer_start = self.block_start + END_BYTES;
        let checksum = checksum(&self.bytes[footer_start..]).to_le_bytes();
        self.bytes.splice(footer_start..footer_start, checksum);
        write_all(&mut self.file, &self.bytes)?;
        Ok(self.written_bytes + self.bytes.len() as u64)
    }
}

fn write_all(file: &mut File, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        match failpoint::write(file, bytes) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(written) => bytes = &bytes[written..],
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
    Ok(())
}

impl Write for Pending {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.bytes.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn write_error(error: ArrowError) -> Error {
    let full = matches!(&error, ArrowError::IoError(_, e)
        if matches!(e.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded));
    let advice = if full { "; free some space or use a cache folder on another disk" } else { "" };
    Error::new(ErrorKind::Storage, format!("a split input can't be written{advice}")).with_source(error)
}
