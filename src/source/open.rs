//! Text files as their text: decompressed, without a byte order mark.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Cursor, Read};
use std::path::Path;

use datafusion::common::DataFusionError;
use datafusion::datasource::file_format::file_compression_type::FileCompressionType;

use crate::source::fault::Fault;
use crate::task::format::Compression;

/// A file is read in pieces of so many bytes.
const PIECE_BYTES: usize = 256 << 10;

/// So many first bytes say what a file is.
const START_BYTES: u64 = 512;

/// What compressed files begin with.
const COMPRESSED: [(&[u8], Compression); 4] = [
    (b"\x1f\x8b", Compression::Gzip),
    (b"BZh", Compression::Bzip2),
    (b"\xfd7zXZ", Compression::Xz),
    (b"\x28\xb5\x2f\xfd", Compression::Zstd),
];

/// Bytes of files that are no text and where they stand, and what to do.
const NO_TEXT: [(usize, &[u8], &str); 10] = [
    (0, b"PAR1", "it is a Parquet file; write STORED AS PARQUET"),
    (0, b"ARROW1", "it is an Arrow file; write STORED AS ARROW"),
    (0, b"Obj\x01", "it is an Avro file; write it as Parquet"),
    (0, b"PK\x03\x04", "it is a ZIP archive, as Excel's files are; unpack it, or save its sheet as CSV"),
    (0, b"\xd0\xcf\x11\xe0", "it is an old Excel or Office file; save its sheet as CSV"),
    (257, b"ustar", "it is a tar archive; unpack it"),
    (0, b"\xff\xfe\0\0", "it is UTF-32; save it as UTF-8"),
    (0, b"\0\0\xfe\xff", "it is UTF-32; save it as UTF-8"),
    (0, b"\xff\xfe", "it is UTF-16; save it as UTF-8"),
    (0, b"\xfe\xff", "it is UTF-16; save it as UTF-8"),
];

/// The text of a file; `compression` is by its ending where it is `None`.
///
/// # Errors
/// When it can't be opened, or is no text.
pub fn open(path: &Path, compression: Option<Compression>) -> Result<Box<dyn BufRead + Send>, Fault> {
    let failed = |cause: io::Error| Fault::unreadable(path, cause);
    let compression = compression.unwrap_or_else(|| Compression::of(path));
    let mut file = BufReader::with_capacity(PIECE_BYTES, File::open(path).map_err(failed)?);
    let start = file.fill_buf().map_err(failed)?;
    let Some(compressed) = datafusion_compression(compression) else {
        if let Some(found) = compression_of(start) {
            let (name, ending) = names(found);
            let advice = match Compression::of(path) == found {
                true => "leave format.compression out".to_string(),
                false => format!("let its name end with .{ending}, or set format.compression to '{name}'"),
            };
            return Err(Fault::new(path, format!("it is compressed with {name}; {advice}")));
        }
        return checked(path, Box::new(file));
    };
    let (name, _) = names(compression);
    if compression_of(start) != Some(compression) {
        let message = format!("is not compressed with {name}, as its name or format.compression says");
        return Err(Fault::new(path, message));
    }
    let failed = |cause: DataFusionError| Fault::new(path, "can't be decompressed").because(cause);
    let mut plain = BufReader::with_capacity(PIECE_BYTES, compressed.convert_read(file).map_err(failed)?);
    let start = plain.fill_buf().map_err(|cause| Fault::unreadable(path, cause))?;
    if let Some(inner) = compression_of(start) {
        let (inner, _) = names(inner);
        let message = format!("is compressed twice, with {inner} and then with {name}; decompress it once");
        return Err(Fault::new(path, message));
    }
    checked(path, Box::new(plain))
}

fn checked(path: &Path, mut text: Box<dyn BufRead + Send>) -> Result<Box<dyn BufRead + Send>, Fault> {
    let mut start = Vec::new();
    let read = text.as_mut().take(START_BYTES).read_to_end(&mut start);
    read.map_err(|cause| Fault::unreadable(path, cause))?;
    let is_so = |(at, bytes, _): &&(usize, &[u8], &str)| start.get(*at..).is_some_and(|rest| rest.starts_with(bytes));
    if let Some((_, _, what)) = NO_TEXT.iter().find(is_so) {
        return Err(Fault::new(path, *what));
    }
    if start.starts_with(b"\xef\xbb\xbf") {
        start.drain(..3);
    }
    Ok(Box::new(Cursor::new(start).chain(text)))
}

fn compression_of(start: &[u8]) -> Option<Compression> {
    // A frame of Zstandard that is to be skipped (RFC 8878, 3.1.2).
    if matches!(start, [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..]) {
        return Some(Compression::Zstd);
    }
    COMPRESSED.iter().find(|(bytes, _)| start.starts_with(bytes)).map(|(_, compression)| *compression)
}

/// The name of a compression, and what names of files end with.
fn names(compression: Compression) -> (&'static str, &'static str) {
    match compression {
        Compression::None => ("uncompressed", ""),
        Compression::Gzip => ("gzip", "gz"),
        Compression::Bzip2 => ("bzip2", "bz2"),
        Compression::Xz => ("xz", "xz"),
        Compression::Zstd => ("zstd", "zst"),
    }
}

fn datafusion_compression(compression: Compression) -> Option<FileCompressionType> {
    match compression {
        Compression::None => None,
        Compression::Gzip => Some(FileCompressionType::GZIP),
        Compression::Bzip2 => Some(FileCompressionType::BZIP2),
        Compression::Xz => Some(FileCompressionType::XZ),
        Compression::Zstd => Some(FileCompressionType::ZSTD),
    }
}

/// The first bytes of a file, at most `most`.
///
/// # Errors
/// When it can't be read.
pub fn beginning(path: &Path, most: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(path)?.take(most).read_to_end(&mut bytes)?;
    Ok(bytes)
}
