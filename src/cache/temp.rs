//! A folder for one process's unfinished files, removed with the process, however it ends.
//!
//! Beside the folder `<id>` lies a file `<id>.lock`, locked as long as the process lives. A process that can take the
//! lock of another's folder knows that its owner is dead, and removes both.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use crate::error::{Error, Result};

/// Name of the folder that holds all processes' folders, inside the cache folder.
pub const TEMP: &str = "tmp";

/// This process's folder; dropping it removes it.
#[derive(Debug)]
pub struct TempFolder {
    folder: PathBuf,
    lock_path: PathBuf,
    next: AtomicU64,
    /// Held for the life of the folder.
    _lock: File,
}

impl TempFolder {
    /// Removes the folders of dead processes below `parent`, and creates one for this process.
    pub fn create(parent: &Path) -> Result<Self> {
        fs::create_dir_all(parent).map_err(|e| Error::storage("create", parent, e))?;
        remove_dead(parent);
        loop {
            let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_nanos());
            let id = format!("{}-{now}", std::process::id());
            let lock_path = parent.join(format!("{id}.lock"));
            let lock = File::create_new(&lock_path).map_err(|e| Error::storage("create", &lock_path, e))?;
            lock.lock().map_err(|e| Error::storage("lock", &lock_path, e))?;
            // Another process may have taken the new file for a dead one's before it was locked.
            if !lock_path.exists() {
                continue;
            }
            let folder = parent.join(id);
            fs::create_dir(&folder).map_err(|e| Error::storage("create", &folder, e))?;
            return Ok(Self { folder, lock_path, next: AtomicU64::new(0), _lock: lock });
        }
    }

    /// The folder.
    pub fn path(&self) -> &Path {
        &self.folder
    }

    /// Removes the folder with all that is in it; who still writes there fails.
    pub fn remove(&self) {
        remove(&self.folder, &self.lock_path);
    }

    /// A path in the folder that was not given before.
    pub fn new_path(&self, extension: &str) -> PathBuf {
        self.folder.join(format!("{}.{extension}", self.next.fetch_add(1, Ordering::Relaxed)))
    }
}

impl Drop for TempFolder {
    fn drop(&mut self) {
        self.remove();
    }
}

/// A folder for unfinished files among those of this process; dropping it removes it, unless it was renamed.
#[derive(Debug)]
pub struct PendingFolder(PathBuf);

impl PendingFolder {
    /// A new folder in `temp`.
    ///
    /// # Errors
    /// [`crate::error::ErrorKind::Storage`] when it can't be created.
    pub fn create(temp: &TempFolder) -> Result<Self> {
        let path = temp.new_path("pending");
        fs::create_dir(&path).map_err(|e| Error::storage("create", &path, e))?;
        Ok(Self(path))
    }

    /// The folder.
    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for PendingFolder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn remove_dead(parent: &Path) {
    let Ok(files) = fs::read_dir(parent) else { return };
    for path in files.flatten().map(|file| file.path()).filter(|path| path.extension().is_some_and(|e| e == "lock")) {
        if let Ok(file) = File::open(&path)
            && file.try_lock().is_ok()
        {
            remove(&path.with_extension(""), &path);
        }
    }
}

/// The folder first: a lock without a folder is found again, a folder without a lock would not be.
fn remove(folder: &Path, lock_path: &Path) {
    match fs::remove_dir_all(folder) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => {}
        _ => drop(fs::remove_file(lock_path)),
    }
}
