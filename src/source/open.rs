//! Text files as their text: decompressed, without a byte order mark.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::path::Path;

use datafusion::datasource::file_format::file_compression_type::FileCompressionType;

use crate::source::fault::Fault;
use crate::task::format::Compression;

/// A file is read in pieces of so many bytes.
const PIECE_BYTES: usize = 256 << 10;

/// The first bytes of binary files, and what to write to read them.
const NO_TEXT: [(&[u8], &str); 8] = [
    (b"PAR1", "it is a Parquet file; write STORED AS PARQUET"),
    (b"ARROW1", "it is an Arrow file; write STORED AS ARROW"),
    (b"\x1f\x8b", "it is compressed with gzip; let its name end with .gz, or set format.compression to 'gzip'"),
    (b"BZh", "it is compressed with bzip2; let its name end with .bz2, or set format.compression to 'bzip2'"),
    (b"\xfd7zXZ", "it is compressed with xz; let its name end with .xz, or set format.compression to 'xz'"),
    (
        b"\x28\xb5\x2f\xfd",
        "it is compressed with zstd; let its name end with .zst, or set format.compression to 'zstd'",
    ),
    (b"\xff\xfe", "it is UTF-16; save it as UTF-8"),
    (b"\xfe\xff", "it is UTF-16; save it as UTF-8"),
];

/// The text of a file; `compression` is by its ending where it is `None`.
///
/// # Errors
/// When it can't be opened, or is no text.
pub fn open(path: &Path, compression: Option<Compression>) -> Result<Box<dyn BufRead + Send>, Fault> {
    let failed = |cause: io::Error| Fault::new(path, "can't be read").because(cause);
    let compression = compression.unwrap_or_else(|| Compression::of(path));
    let mut file = BufReader::with_capacity(PIECE_BYTES, File::open(path).map_err(failed)?);
    let mut text = match datafusion_compression(compression) {
        None => file,
        Some(compressed) => {
            let is_so = NO_TEXT.iter().any(|(magic, advice)| {
                advice.contains(&format!("'{}'", name(compression)))
                    && fill(&mut file).is_ok_and(|b| b.starts_with(magic))
            });
            if !is_so {
                let name = name(compression);
                let message = format!("is not compressed with {name}, as its name or format.compression says");
                return Err(Fault::new(path, message));
            }
            let plain =
                compressed.convert_read(file).map_err(|e| Fault::new(path, "can't be decompressed").because(e))?;
            return checked(path, Box::new(BufReader::with_capacity(PIECE_BYTES, plain)));
        }
    };
    fill(&mut text).map_err(failed)?;
    checked(path, Box::new(text))
}

fn checked(path: &Path, mut text: Box<dyn BufRead + Send>) -> Result<Box<dyn BufRead + Send>, Fault> {
    let start = fill(&mut text).map_err(|cause| Fault::new(path, "can't be read").because(cause))?;
    if let Some((_, advice)) = NO_TEXT.iter().find(|(magic, _)| start.starts_with(magic)) {
        return Err(Fault::new(path, *advice));
    }
    if start.starts_with(b"\xef\xbb\xbf") {
        text.consume(3);
    }
    Ok(text)
}

/// What is buffered; nothing at the end only.
fn fill(text: &mut impl BufRead) -> io::Result<&[u8]> {
    text.fill_buf()
}

fn name(compression: Compression) -> &'static str {
    match compression {
        Compression::None => "uncompressed",
        Compression::Gzip => "gzip",
        Compression::Bzip2 => "bzip2",
        Compression::Xz => "xz",
        Compression::Zstd => "zstd",
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
