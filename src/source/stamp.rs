//! What tells a changed file from an unchanged one without reading it.

use std::fs::{self, Metadata};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Files whose times have fractions of a second change by ticks of less than this.
const TICK: Duration = Duration::from_millis(50);

/// Other file systems count seconds, some of them in twos.
const COARSE_TICK: Duration = Duration::from_secs(2);

/// What the file system says of a file: size, times and inode. The time of its last change, unlike that of its last
/// modification, can't be set by a program.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stamp {
    size: u64,
    modified_ns: i128,
    changed_ns: i128,
    inode: u64,
    device: u64,
}

impl Stamp {
    /// Of a file with this metadata.
    pub fn of(metadata: &Metadata) -> Self {
        let ns = |seconds: i64, nanoseconds: i64| i128::from(seconds) * 1_000_000_000 + i128::from(nanoseconds);
        Self {
            size: metadata.len(),
            modified_ns: ns(metadata.mtime(), metadata.mtime_nsec()),
            changed_ns: ns(metadata.ctime(), metadata.ctime_nsec()),
            inode: metadata.ino(),
            device: metadata.dev(),
        }
    }

    /// Of the file as it is now.
    ///
    /// # Errors
    /// When it is gone.
    pub fn now(path: &Path) -> io::Result<Self> {
        fs::metadata(path).map(|metadata| Self::of(&metadata))
    }

    /// The stamp as text, for names.
    pub fn text(&self) -> String {
        let Self { size, modified_ns, changed_ns, inode, device } = self;
        format!("{size} {modified_ns} {changed_ns} {inode} {device}")
    }

    /// How long to wait until a change of the file would get another time; `None` when its time is to come.
    pub fn unsettled_for(&self, now: SystemTime) -> Option<Duration> {
        let now_ns = now.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_nanos() as i128);
        let tick = if self.changed_ns % 1_000_000_000 == 0 { COARSE_TICK } else { TICK };
        let settled_at = self.changed_ns + tick.as_nanos() as i128;
        match settled_at - now_ns {
            wait if wait <= 0 => Some(Duration::ZERO),
            wait if wait <= tick.as_nanos() as i128 => u64::try_from(wait).ok().map(Duration::from_nanos),
            _ => None,
        }
    }
}
