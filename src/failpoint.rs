//! Places where this process dies, for tests of what a crash leaves behind.

/// A point between two writes of the cache, which all processes pass in the order of their writes.
///
/// With the feature `testing` and `CHUNKWISE_ABORT_AT=n` in the environment the process aborts at the n-th of them, from
/// 1, as a kill or a crash of the machine would end it. Otherwise it does nothing.
pub fn failpoint() {
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
    }
}
