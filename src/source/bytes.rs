//! Hashes of the bytes of files.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;

use xxhash_rust::xxh3::Xxh3;

/// What of a source's file is hashed together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FilePart {
    /// The file.
    pub path: PathBuf,
    /// Its bytes that count.
    pub ranges: Vec<Range<u64>>,
    /// What says, beside the bytes, which values they are.
    pub read_as: String,
}

/// A file is hashed in pieces of so many bytes.
const PIECE_BYTES: usize = 256 << 10;

impl FilePart {
    /// The hash of the bytes, and of how they are read.
    ///
    /// # Errors
    /// When they can't be read.
    pub fn hash(&self) -> io::Result<u128> {
        let Self { path, ranges, read_as } = self;
        let file = File::open(path)?;
        let mut hasher = Xxh3::new();
        hasher.update(read_as.as_bytes());
        let mut piece = vec![0; PIECE_BYTES];
        for range in ranges {
            hasher.update(&(range.end - range.start).to_le_bytes());
            let mut at = range.start;
            while at < range.end {
                let left = usize::try_from(range.end - at).unwrap_or(PIECE_BYTES);
                let piece = &mut piece[..PIECE_BYTES.min(left)];
                file.read_exact_at(piece, at)?;
                hasher.update(piece);
                at += piece.len() as u64;
            }
        }
        Ok(hasher.digest128())
    }
}
