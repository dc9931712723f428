//! What the allocator keeps of memory that was freed.

use std::ffi::c_long;
use std::thread;
use std::time::Duration;

use libmimalloc_sys::{mi_collect, mi_option_get, mi_option_set, mi_option_t};

use crate::run::report::rss_bytes;

/// mimalloc's number of the delay after which freed memory goes back to the system, and the default in milliseconds.
const PURGE_DELAY: (mi_option_t, c_long) = (15, 1000);

/// mimalloc's number of the option to commit what it takes of the system at once, and the default: where that costs
/// nothing.
const EAGER_COMMIT: (mi_option_t, c_long) = (4, 2);

/// How often the process is measured.
const INTERVAL: Duration = Duration::from_millis(10);

/// Has the allocator give freed memory back at once while the process has more than half of `limit_bytes`, until it has
/// less than a quarter.
///
/// By itself mimalloc waits for a second, which saves time and costs memory: a sort that spills had 1.2 GiB within a
/// limit of 256 MiB. Nothing is done where the process can't be measured, or where mimalloc has other defaults, so that
/// its numbers may be others, too.
pub fn keep_within(limit_bytes: usize) {
    let is_known = |(option, default): (mi_option_t, c_long)| get(option) == default;
    if rss_bytes().is_none() || !is_known(PURGE_DELAY) || !is_known(EAGER_COMMIT) {
        return;
    }
    set(EAGER_COMMIT.0, 0);
    let watch = move || {
        let limit = limit_bytes as u64;
        let mut is_near = false;
        while let Some(rss) = rss_bytes() {
            if is_near != (rss > limit / if is_near { 4 } else { 2 }) {
                is_near = !is_near;
                set(PURGE_DELAY.0, if is_near { 0 } else { PURGE_DELAY.1 });
                if is_near {
                    collect();
                }
            }
            thread::sleep(INTERVAL);
        }
    };
    // Without it the process has more memory than it should, and no other rows.
    let _ = thread::Builder::new().name("allocator".to_string()).spawn(watch);
}

fn get(option: mi_option_t) -> c_long {
    // SAFETY: it reads a number, and knows all options below its last one.
    unsafe { mi_option_get(option) }
}

fn set(option: mi_option_t, value: c_long) {
    // SAFETY: it writes a number that other threads may read at any time.
    unsafe { mi_option_set(option, value) }
}

fn collect() {
    // SAFETY: it may be called at any time, from any thread.
    unsafe { mi_collect(true) }
}
