//! Splits in the cache: inputs that were cut into chunks, for any task and run that needs the same cut.
//!
//! `<cache>/splits/<cut>/<input>/<n>.arrow`: the cut is what is kept of which input and how it is cut, the input its
//! identity, or that of some of a source's files. Of each cut only the splits of the latest input are kept. A split's folder gets its name only when it is whole;
//! every file says how many there are, since a folder whose removal was interrupted has fewer.

use std::fs::{self, File, FileTimes};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use crate::cache::store::{create_folder, read_folder, sync_folder};
use crate::error::{Error, Result};
use crate::execute::split::file::SplitFile;
use crate::failpoint::failpoint;
use crate::plan::fingerprint::Fingerprint;

/// Name of the folder of splits, inside the cache folder.
pub const SPLITS: &str = "splits";

/// Key of a split file's metadata that has the split's name and number of files.
const NAME: &str = "chunkwise.split.name";

/// Splits that no run has used for so long are removed.
const KEPT_UNUSED: Duration = Duration::from_secs(7 * 24 * 60 * 60);

/// Name of a split.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct SplitId {
    /// What is kept of the input and how it is cut.
    pub cut: Fingerprint,
    /// The input's identity.
    pub input: Fingerprint,
}

impl SplitId {
    /// What the split's file of this number, from 0, of so many, says of itself.
    pub fn metadata(&self, number: usize, files: usize) -> (String, String) {
        (NAME.to_string(), self.name(number, files))
    }

    /// Name of the lock of who makes it.
    pub fn lock_name(&self) -> String {
        format!("{}-{}", self.cut, self.input)
    }

    fn name(&self, number: usize, files: usize) -> String {
        format!("{}/{} file {number} of {files}", self.cut, self.input)
    }

    fn folder(&self, cache: &Path) -> PathBuf {
        cache.join(SPLITS).join(self.cut.to_string()).join(self.input.to_string())
    }
}

/// The files of a split, opened; `None` when it is not there, not whole or damaged; what is there of it is removed then.
pub fn open(cache: &Path, id: &SplitId) -> Result<Option<Vec<Arc<SplitFile>>>> {
    let folder = id.folder(cache);
    let paths = read_folder(&folder)?;
    if paths.is_empty() {
        return Ok(None);
    }
    let is_named = |(path, file): (&PathBuf, &Arc<SplitFile>)| {
        let number = path.file_stem().and_then(|stem| stem.to_str()).and_then(|stem| stem.parse().ok());
        number.is_some_and(|number| file.metadata(NAME) == Some(&id.name(number, paths.len())))
    };
    match open_files(&paths) {
        Ok(files) if paths.iter().zip(&files).all(is_named) => {
            // When it was used last; that this can't be written is no reason not to use it.
            let now = FileTimes::new().set_modified(SystemTime::now());
            let _ = File::open(&folder).and_then(|folder| folder.set_times(now));
            Ok(Some(files))
        }
        _ => {
            remove(cache, id);
            Ok(None)
        }
    }
}

/// Removes a split that was found damaged: who needs it makes it again.
pub fn remove(cache: &Path, id: &SplitId) {
    let _ = fs::remove_dir_all(id.folder(cache));
}

/// Reads all files of all splits, and tells of each one whether it is as it was written. Splits with a damaged one are
/// removed: who needs them makes them again.
pub fn verify(cache: &Path) -> Result<Vec<(PathBuf, u64, bool)>> {
    let mut found = Vec::new();
    for cut in read_folder(&cache.join(SPLITS))? {
        for split in read_folder(&cut)? {
            let first = found.len();
            for path in read_folder(&split)? {
                let bytes = fs::metadata(&path).map_or(0, |metadata| metadata.len());
                let is_as_written = SplitFile::open(&path).and_then(|file| file.check()).is_ok();
                // Another process may have removed it in the meantime.
                if is_as_written || path.exists() {
                    found.push((path, bytes, is_as_written));
                }
            }
            if found[first..].iter().any(|(_, _, is_as_written)| !is_as_written) {
                match fs::remove_dir_all(&split) {
                    Err(error) if error.kind() != ErrorKind::NotFound => {
                        return Err(Error::storage("remove", &split, error));
                    }
                    _ => {}
                }
            }
        }
    }
    Ok(found)
}

/// Opens the files of a split.
pub fn open_files(paths: &[PathBuf]) -> Result<Vec<Arc<SplitFile>>> {
    paths.iter().map(|path| SplitFile::open(path).map(Arc::new)).collect()
}

/// Makes a folder of finished files a split: fsync of all, then its name. Splits of the same cut other than `kept` go.
///
/// It takes the place of one of the same name, which who made this did not believe; who has that opened may read on.
pub fn commit(cache: &Path, id: &SplitId, written: &Path, kept: &[SplitId]) -> Result<()> {
    for path in read_folder(written)? {
        File::open(&path).and_then(|file| file.sync_all()).map_err(|e| Error::storage("write", &path, e))?;
    }
    sync_folder(written)?;
    failpoint(written)?;
    let folder = id.folder(cache);
    let of_cut = folder.parent().unwrap_or(cache);
    create_folder(of_cut)?;
    remove(cache, id);
    fs::rename(written, &folder).map_err(|e| Error::storage("create", &folder, e))?;
    failpoint(written)?;
    sync_folder(of_cut)?;
    let kept: Vec<PathBuf> = kept.iter().chain([id]).map(|kept| kept.folder(cache)).collect();
    for other in read_folder(of_cut)?.into_iter().filter(|other| !kept.contains(other)) {
        let _ = fs::remove_dir_all(other);
    }
    Ok(())
}

/// Removes splits that were not used for a week.
pub fn remove_unused(cache: &Path) -> Result<()> {
    for cut in read_folder(&cache.join(SPLITS))? {
        let mut is_removed = false;
        for split in read_folder(&cut)? {
            let used = fs::metadata(&split).and_then(|split| split.modified());
            if used.is_ok_and(|used| used.elapsed().is_ok_and(|unused| unused > KEPT_UNUSED)) {
                is_removed |= fs::remove_dir_all(&split).is_ok();
            }
        }
        // An empty one may be about to get the split of another process.
        if is_removed {
            let _ = fs::remove_dir(&cut);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::sync::Arc;

    use arrow::array::{Int32Array, RecordBatch};

    use crate::cache::split::{SplitId, commit, open, verify};
    use crate::execute::split::SplitWriter;
    use crate::plan::fingerprint::Fingerprint;

    #[test]
    fn a_split_that_lacks_a_file_is_none() {
        let folder = tempfile::tempdir().unwrap();
        let id = |input: &str| SplitId {
            cut: Fingerprint::of([("cut", [].as_slice())]),
            input: Fingerprint::of([("input", input.as_bytes())]),
        };
        let numbers = Int32Array::from(vec![0, 1, 1]);
        let batch = RecordBatch::try_from_iter([("n", Arc::new(numbers.clone()) as _)]).unwrap();
        let make = |id: &SplitId, kept: &[SplitId]| {
            let written = folder.path().join("written");
            std::fs::create_dir(&written).unwrap();
            for number in 0..3 {
                let file = File::create(written.join(format!("{number}.arrow"))).unwrap();
                let (key, value) = id.metadata(number, 3);
                let mut writer =
                    SplitWriter::try_new(file, batch.schema(), 2, 1 << 20).unwrap().with_metadata(key, value);
                writer.write(batch.clone(), &numbers).unwrap();
                writer.finish().unwrap();
            }
            commit(folder.path(), id, &written, kept).unwrap();
        };
        make(&id("a"), &[]);
        let files = open(folder.path(), &id("a")).unwrap().unwrap();
        assert_eq!(files.iter().map(|file| file.rows(1)).collect::<Vec<_>>(), [2, 2, 2]);
        assert!(open(folder.path(), &id("b")).unwrap().is_none());

        // One in the place of another.
        let file = |number: u32| id("a").folder(folder.path()).join(format!("{number}.arrow"));
        std::fs::copy(file(1), file(0)).unwrap();
        assert!(open(folder.path(), &id("a")).unwrap().is_none());

        make(&id("a"), &[]);
        std::fs::remove_file(file(1)).unwrap();
        assert!(open(folder.path(), &id("a")).unwrap().is_none());
        assert!(!id("a").folder(folder.path()).exists());

        make(&id("a"), &[]);
        make(&id("b"), &[id("a")]);
        make(&id("c"), &[id("a")]);
        let is_there = |input: &str| open(folder.path(), &id(input)).unwrap().is_some();
        assert_eq!(["a", "b", "c"].map(is_there), [true, false, true]);
        make(&id("a"), &[]);
        assert!(is_there("a"));

        make(&id("c"), &[id("a")]);
        assert!(verify(folder.path()).unwrap().iter().all(|(_, bytes, is_as_written)| *bytes > 0 && *is_as_written));
        let whole = std::fs::read(file(2)).unwrap();
        let mut noticed = 0;
        for at in (0..whole.len()).step_by(8) {
            make(&id("a"), &[id("c")]);
            let mut bytes = whole.clone();
            bytes[at] ^= 1;
            std::fs::write(file(2), bytes).unwrap();
            let damaged: Vec<_> = verify(folder.path()).unwrap().into_iter().filter(|(_, _, is)| !is).collect();
            assert!(damaged.iter().all(|(path, _, _)| *path == file(2)) && is_there("c"));
            assert_eq!(id("a").folder(folder.path()).exists(), damaged.is_empty());
            noticed += damaged.len();
        }
        // All but the padding.
        assert!(noticed > whole.len() / 16, "{noticed} of {}", whole.len() / 8);
    }
}
