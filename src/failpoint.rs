//! Places where this process dies or a write fails, for tests of what that leaves behind. Without the feature `testing` there
//! are none.

use std::fs::File;
use std::io::{self, Write};
use std::path::Path;

use crate::error::Result;

/// A point between two writes of the cache, which all processes pass in the order of their writes; the last was at `path`.
///
/// With `CHUNKWISE_ABORT_AT=n` in the environment the process aborts at the n-th of them, from 1, as a kill or a crash of
/// the machine would end it. With [`faults::inject`] some fail, and some take their time.
///
/// # Errors
/// [`crate::ErrorKind::Storage`] for an injected fault.
#[cfg_attr(not(feature = "testing"), expect(unused_variables, clippy::unnecessary_wraps))]
pub fn failpoint(path: &Path) -> Result<()> {
    #[cfg(feature = "testing")]
    {
        use std::sync::LazyLock;
        use std::sync::atomic::{AtomicU64, Ordering};

        static ABORT_AT: LazyLock<Option<u64>> =
            LazyLock::new(|| std::env::var("CHUNKWISE_ABORT_AT").ok()?.parse().ok());
        static PASSED: AtomicU64 = AtomicU64::new(0);
        if ABORT_AT.is_some_and(|at| PASSED.fetch_add(1, Ordering::Relaxed) + 1 == at) {
            std::process::abort();
        }
        faults::pass().map_err(|e| crate::error::Error::storage("write", path, e))?;
    }
    Ok(())
}

/// Writes some of `bytes`, as [`Write::write`] does. With [`faults::inject`] some writes are torn, lost in part or altered.
///
/// # Errors
/// Those of the file, and injected ones.
pub fn write(file: &mut File, bytes: &[u8]) -> io::Result<usize> {
    #[cfg(feature = "testing")]
    if let Some(fault) = faults::of_write() {
        return fault.write(file, bytes);
    }
    file.write(bytes)
}

/// Faults of the disk, by seed.
#[cfg(feature = "testing")]
pub mod faults {
    use std::fs::File;
    use std::io::{self, Write};
    use std::sync::{Mutex, PoisonError};
    use std::time::Duration;

    /// The state of the generator, SplitMix64; none where nothing fails.
    static STATE: Mutex<Option<u64>> = Mutex::new(None);

    /// From now on writes of this process fail now and then, as `seed` says, or no more.
    pub fn inject(seed: Option<u64>) {
        *STATE.lock().unwrap_or_else(PoisonError::into_inner) = seed;
    }

    /// A number from 0 to 127; none where nothing fails.
    fn draw() -> Option<u64> {
        let mut state = STATE.lock().unwrap_or_else(PoisonError::into_inner);
        let next = state.as_mut()?;
        *next = next.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (*next ^ (*next >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        Some((mixed ^ (mixed >> 31)) % 128)
    }

    /// Fails or takes its time, or neither.
    pub fn pass() -> io::Result<()> {
        match draw() {
            Some(0) => Err(failed()),
            Some(1) => Err(io::ErrorKind::StorageFull.into()),
            Some(2..6) => {
                std::thread::sleep(Duration::from_millis(1));
                Ok(())
            }
            _ => Ok(()),
        }
    }

    /// What happens to a write.
    pub enum Fault {
        /// Half of it is done, and it fails.
        Torn,
        /// The disk is full.
        Full,
        /// Half of it is done, and nobody is told.
        Short,
        /// A byte is another one, and nobody is told.
        Altered,
    }

    /// What happens to the next write, if anything.
    pub fn of_write() -> Option<Fault> {
        match draw()? {
            0 => Some(Fault::Torn),
            1 => Some(Fault::Full),
            2 => Some(Fault::Short),
            3 => Some(Fault::Altered),
            _ => None,
        }
    }

    impl Fault {
        /// Does the write.
        pub fn write(self, file: &mut File, bytes: &[u8]) -> io::Result<usize> {
            let half = bytes.len() / 2;
            match self {
                Self::Torn => file.write_all(&bytes[..half]).and(Err(failed())),
                Self::Full => Err(io::ErrorKind::StorageFull.into()),
                Self::Short => file.write_all(&bytes[..half]).map(|()| bytes.len()),
                Self::Altered => {
                    let mut bytes = bytes.to_vec();
                    if let Some(byte) = bytes.get_mut(half) {
                        *byte ^= 0x20;
                    }
                    file.write_all(&bytes).map(|()| bytes.len())
                }
            }
        }
    }

    fn failed() -> io::Error {
        io::Error::other("injected fault")
    }
}
