//! What the system's allocator keeps of memory that was freed.
//!
//! glibc keeps what was freed for the next who asks, between pieces that are in use. What is at least as large as a
//! threshold has pages of its own instead, which go back when it is freed; the system clears new ones, which costs
//! time. So the threshold follows from how much of its limit the process has.

#[cfg(all(target_os = "linux", target_env = "gnu"))]
static SET_UP: std::sync::Once = std::sync::Once::new();

/// Sets the allocator up for a process of so many jobs, and has it give freed memory back while the process has more
/// than half of `limit_bytes`. What is said first holds; say it before other threads run.
///
/// Nothing is done but on Linux with glibc.
pub fn set_up(jobs: usize, limit_bytes: Option<usize>) {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    SET_UP.call_once(|| glibc::set_up(jobs, limit_bytes));
    #[cfg(not(all(target_os = "linux", target_env = "gnu")))]
    let _ = (jobs, limit_bytes);
}

#[cfg(all(target_os = "linux", target_env = "gnu"))]
mod glibc {
    use std::ffi::c_int;
    use std::thread;
    use std::time::{Duration, Instant};

    use crate::run::report::rss_bytes;

    pub(super) fn set_up(jobs: usize, limit_bytes: Option<usize>) {
        // Each has memory of its own that others don't use.
        set(libc::M_ARENA_MAX, c_int::try_from(jobs.max(2)).unwrap_or(c_int::MAX));
        set_pressure(Pressure::None);
        if let Some(limit) = limit_bytes.filter(|_| rss_bytes().is_some()) {
            // Without it the process has more memory than it should, and no other rows.
            let _ = thread::Builder::new().name("allocator".to_string()).spawn(move || watch(limit as u64));
        }
    }

    /// How near the process is to its limit.
    #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
    enum Pressure {
        None,
        Some,
        High,
    }

    impl Pressure {
        /// Of a process that has so much of `limit`. Pressure goes on until it has an eighth of the limit less than
        /// when it began.
        fn of(rss: u64, limit: u64, before: Self) -> Self {
            let quarters = |of: u64| rss > limit / 4 * of;
            let eased = |of: u64| rss > limit / 8 * (2 * of - 1);
            match before {
                _ if quarters(3) => Self::High,
                Self::High if eased(3) => Self::High,
                _ if quarters(2) => Self::Some,
                Self::High | Self::Some if eased(2) => Self::Some,
                _ => Self::None,
            }
        }

        /// Bytes of what has pages of its own.
        fn threshold(self) -> c_int {
            match self {
                // The most that glibc takes.
                Self::None => 32 << 20,
                Self::Some => 512 << 10,
                Self::High => 128 << 10,
            }
        }
    }

    /// How often the process is measured.
    const INTERVAL: Duration = Duration::from_millis(5);

    /// What lies free between pieces in use is given back at most so often: that goes through all of it.
    const BETWEEN_TRIMS: Duration = Duration::from_millis(100);

    fn watch(limit: u64) {
        let mut pressure = Pressure::None;
        let mut trimmed = Instant::now();
        while let Some(rss) = rss_bytes() {
            let now = Pressure::of(rss, limit, pressure);
            if now != pressure {
                set_pressure(now);
            }
            if now > pressure || (now == Pressure::High && trimmed.elapsed() > BETWEEN_TRIMS) {
                trim();
                trimmed = Instant::now();
            }
            pressure = now;
            thread::sleep(INTERVAL);
        }
    }

    fn set_pressure(pressure: Pressure) {
        set(libc::M_MMAP_THRESHOLD, pressure.threshold());
        set(libc::M_TRIM_THRESHOLD, pressure.threshold());
    }

    fn set(option: c_int, value: c_int) {
        // SAFETY: it sets a number under a lock, at any time, and says no to what it can't be.
        unsafe { libc::mallopt(option, value) };
    }

    fn trim() {
        // SAFETY: it may be called at any time, from any thread.
        unsafe { libc::malloc_trim(0) };
    }

    #[cfg(test)]
    mod tests {
        use super::Pressure;

        #[test]
        fn pressure_begins_later_than_it_ends() {
            let of = |rss, before| Pressure::of(rss, 800, before);
            assert_eq!((of(400, Pressure::None), of(401, Pressure::None)), (Pressure::None, Pressure::Some));
            assert_eq!((of(301, Pressure::Some), of(300, Pressure::Some)), (Pressure::Some, Pressure::None));
            assert_eq!((of(601, Pressure::None), of(501, Pressure::High)), (Pressure::High, Pressure::High));
            assert_eq!((of(500, Pressure::High), of(300, Pressure::High)), (Pressure::Some, Pressure::None));
        }
    }
}
