//! Single flight between processes: who makes a chunk or a split holds its lock, and others wait for the result.
//!
//! A lock is a file `<cache>/locks/<name>`, locked by its holder and removed with the lock. The system releases locks of
//! processes that die; a file that one of them left behind is taken over by who locks it next.
//!
//! Who switches published tables holds one lock of the cache for that moment: tables move between stages.
//!
//! The holder's process number is in the file, for those who wait to tell.

use std::fs::{self, File, TryLockError};
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::cache::store::{create_folder, read_folder};
use crate::error::{Error, Result};
use crate::event::{Event, EventSink};

/// Who waits for another process looks so often whether it is done.
pub const PAUSE: Duration = Duration::from_millis(20);

/// Who has waited so long says so.
const PATIENCE: Duration = Duration::from_secs(3);

/// Somebody who waits for another process, or another run of this one, and says so when it takes long.
#[derive(Debug)]
pub struct Waiting<'a> {
    events: &'a EventSink,
    since: Instant,
    is_told: bool,
}

impl<'a> Waiting<'a> {
    /// Begins to wait.
    pub fn begin(events: &'a EventSink) -> Self {
        Self { events, since: Instant::now(), is_told: false }
    }

    /// Reports, once it takes long, that this process waits for `what`: the process that has locked the file `lock`
    /// makes or holds it.
    pub fn goes_on(&mut self, what: impl FnOnce() -> String, lock: &Path) {
        if !self.is_told && self.since.elapsed() >= PATIENCE {
            self.is_told = true;
            let process = fs::read_to_string(lock).ok().and_then(|text| text.trim().parse().ok());
            self.events.send(Event::Waiting { what: what(), process });
        }
    }
}

/// The file of the lock `name`.
pub fn path_of(cache: &Path, name: &str) -> PathBuf {
    cache.join(LOCKS).join(name)
}

/// Notes in a file that this process has locked it.
fn sign(file: &File) {
    // Nothing depends on it.
    let _ = file.set_len(0).and_then(|()| file.write_all_at(format!("{}\n", std::process::id()).as_bytes(), 0));
}

/// Name of the folder of locks, inside the cache folder.
const LOCKS: &str = "locks";

/// Name of the file that is locked while published tables are switched, inside the cache folder.
const SWITCHING: &str = "switch.lock";

/// A lock that this process holds; dropping it releases it.
#[derive(Debug)]
pub struct Lock {
    path: PathBuf,
    _file: File,
}

impl Lock {
    /// Takes the lock `name`, if nobody holds it.
    ///
    /// # Errors
    /// [`crate::error::ErrorKind::Storage`] when the file can't be created.
    pub fn try_take(cache: &Path, name: &str) -> Result<Option<Self>> {
        let folder = cache.join(LOCKS);
        let path = path_of(cache, name);
        loop {
            create_folder(&folder)?;
            let opened = File::options().create(true).truncate(false).write(true).open(&path);
            let file = opened.map_err(|e| Error::storage("create", &path, e))?;
            match file.try_lock() {
                Err(TryLockError::WouldBlock) => return Ok(None),
                // File systems without locks have no single flight; what is made twice is kept once.
                Err(TryLockError::Error(e)) if e.kind() != io::ErrorKind::Unsupported => {
                    return Err(Error::storage("lock", &path, e));
                }
                _ => {}
            }
            // Its last holder may have removed the file between the two calls.
            let same = |named: fs::Metadata, own: fs::Metadata| (named.dev(), named.ino()) == (own.dev(), own.ino());
            if fs::metadata(&path).is_ok_and(|named| file.metadata().is_ok_and(|own| same(named, own))) {
                sign(&file);
                return Ok(Some(Self { path, _file: file }));
            }
        }
    }
}

/// Removes the files that dead processes left.
pub fn remove_dead(cache: &Path) -> Result<()> {
    for path in read_folder(&cache.join(LOCKS))? {
        if let Some(name) = path.file_name().and_then(|name| name.to_str()) {
            // It goes when it is dropped.
            Lock::try_take(cache, name)?;
        }
    }
    Ok(())
}

impl Drop for Lock {
    fn drop(&mut self) {
        // While it is still locked, so that it is no other holder's.
        let _ = fs::remove_file(&self.path);
    }
}

/// Says that links of published tables are switched, until it is dropped.
#[derive(Debug)]
pub struct Switching(#[expect(dead_code, reason = "its lock goes with it")] File);

impl Switching {
    /// Waits while another does, which takes a few writes, and says so if it takes longer.
    ///
    /// # Errors
    /// [`crate::error::ErrorKind::Storage`] when the file can't be created.
    pub fn begin(cache: &Path, events: &EventSink) -> Result<Self> {
        let path = cache.join(SWITCHING);
        let opened = File::options().create(true).truncate(false).write(true).open(&path);
        let file = opened.map_err(|e| Error::storage("create", &path, e))?;
        let mut waiting = Waiting::begin(events);
        loop {
            match file.try_lock() {
                Ok(()) => {
                    sign(&file);
                    return Ok(Self(file));
                }
                // File systems without locks: the last one to publish wins.
                Err(TryLockError::Error(e)) if e.kind() == io::ErrorKind::Unsupported => return Ok(Self(file)),
                Err(TryLockError::Error(e)) => return Err(Error::storage("lock", &path, e)),
                Err(TryLockError::WouldBlock) => {
                    waiting.goes_on(|| "the publication of tables".into(), &path);
                    std::thread::sleep(PAUSE);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::cache::lock::{Lock, remove_dead};

    #[test]
    fn a_lock_has_one_holder_and_leaves_nothing() {
        let cache = tempfile::tempdir().unwrap();
        let take = |name| Lock::try_take(cache.path(), name).unwrap();
        let held = take("a").unwrap();
        assert!(take("a").is_none() && take("b").is_some());
        drop(held);
        drop(take("a").unwrap());
        assert_eq!(std::fs::read_dir(cache.path().join("locks")).unwrap().count(), 0);
        // What a dead process left.
        std::fs::write(cache.path().join("locks/a"), "").unwrap();
        std::fs::write(cache.path().join("locks/b"), "").unwrap();
        let held = take("a").unwrap();
        remove_dead(cache.path()).unwrap();
        assert_eq!(std::fs::read_dir(cache.path().join("locks")).unwrap().count(), 1);
        drop(held);
    }
}
