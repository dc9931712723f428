//! Checksums of files: made while they are written, compared before they are read.

use std::collections::HashSet;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::SystemTime;

use crate::failpoint;

/// BLAKE3 of all bytes of a file. It tells damage, not forgery.
pub use blake3::Hash as Checksum;

/// A file that is written from its start to its end, and its checksum so far.
#[derive(Debug)]
pub struct ChecksumWriter {
    file: File,
    hasher: blake3::Hasher,
}

impl ChecksumWriter {
    /// Writes to the empty `file`.
    pub fn new(file: File) -> Self {
        Self { file, hasher: blake3::Hasher::new() }
    }

    /// The checksum of what was written.
    pub fn checksum(&self) -> Checksum {
        self.hasher.finalize()
    }
}

impl Write for ChecksumWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = failpoint::write(&mut self.file, bytes)?;
        self.hasher.update(&bytes[..written]);
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

/// The checksum of a file, which is read through.
pub fn checksum_of(path: &Path) -> io::Result<Checksum> {
    let mut hasher = blake3::Hasher::new();
    hasher.update_reader(File::open(path)?)?;
    Ok(hasher.finalize())
}

/// Files whose bytes are known to be what was written, so that a process reads each through only once; one that changed
/// since, by size or time, is read again.
#[derive(Debug, Default)]
pub struct Verified(Mutex<HashSet<(PathBuf, u64, SystemTime)>>);

impl Verified {
    /// Whether the file at `path` has this checksum.
    ///
    /// # Errors
    /// When it can't be read.
    pub fn has(&self, path: &Path, checksum: &Checksum) -> io::Result<bool> {
        let metadata = fs::metadata(path)?;
        let version = (path.to_path_buf(), metadata.len(), metadata.modified()?);
        let known = || self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if known().contains(&version) {
            return Ok(true);
        }
        let is_it = checksum_of(path)? == *checksum;
        if is_it {
            known().insert(version);
        }
        Ok(is_it)
    }
}

#[cfg(test)]
mod tests {
    use std::fs::{self, File};
    use std::io::Write;

    use crate::execute::checksum::{ChecksumWriter, Verified, checksum_of};

    #[test]
    fn what_is_written_has_the_checksum_and_nothing_else_has() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        let mut writer = ChecksumWriter::new(File::create(&path).unwrap());
        for part in ["some", "", " text"] {
            writer.write_all(part.as_bytes()).unwrap();
        }
        let checksum = writer.checksum();
        assert_eq!(checksum, checksum_of(&path).unwrap());
        let verified = Verified::default();
        assert!(verified.has(&path, &checksum).unwrap() && verified.has(&path, &checksum).unwrap());
        fs::write(&path, "some texT").unwrap();
        assert!(!verified.has(&path, &checksum).unwrap());
        assert!(verified.has(&folder.path().join("none"), &checksum).is_err());
    }
}
