//! What the system knows about a process, and a process that is looked at while it runs. Linux tells; elsewhere all of
//! it is `None`.

use std::fs;
use std::io;
use std::process::{Command, Output, Stdio};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

/// Time between two looks.
const INTERVAL: Duration = Duration::from_millis(10);

/// A process that has ended.
#[derive(Debug)]
pub struct Watched {
    /// How it ended and what it wrote.
    pub output: Output,
    /// Its largest resident set, but for what it grew in its last moment.
    pub peak_rss_bytes: Option<u64>,
}

/// Bytes of system calls of a process and of those it has waited for.
#[derive(Debug, Clone, Copy)]
pub struct Io {
    /// Read, from the disk or its cache.
    pub read_bytes: u64,
    /// Written.
    pub written_bytes: u64,
}

/// Runs `command` to its end, or kills it after `stop_after`, and looks at it meanwhile.
pub fn watch(command: &mut Command, stop_after: Option<Duration>) -> io::Result<Watched> {
    let child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
    let id = child.id().to_string();
    let start = Instant::now();
    thread::scope(|scope| {
        let (ended, end) = mpsc::channel::<()>();
        let watcher = scope.spawn(move || {
            let mut peak = None;
            loop {
                peak = peak.max(peak_rss_bytes(&id));
                if end.recv_timeout(INTERVAL) != Err(RecvTimeoutError::Timeout) {
                    return peak;
                }
                if stop_after.is_some_and(|limit| start.elapsed() > limit) {
                    // Where it can't be killed it is waited for.
                    let _ = Command::new("kill").args(["-9", &id]).status();
                }
            }
        });
        let output = child.wait_with_output();
        drop(ended);
        let peak_rss_bytes = watcher.join().expect("looking doesn't panic");
        Ok(Watched { output: output?, peak_rss_bytes })
    })
}

/// Largest resident set of a process so far; `process` is its number or `self`.
pub fn peak_rss_bytes(process: &str) -> Option<u64> {
    kib(&fs::read_to_string(format!("/proc/{process}/status")).ok()?, "VmHWM:")
}

/// What this process has read and written so far.
pub fn own_io() -> Option<Io> {
    let text = fs::read_to_string("/proc/self/io").ok()?;
    let number = |name: &str| text.lines().find_map(|line| line.strip_prefix(name))?.trim().parse().ok();
    Some(Io { read_bytes: number("rchar:")?, written_bytes: number("wchar:")? })
}

/// Memory of the machine.
pub fn machine_memory_bytes() -> Option<u64> {
    kib(&fs::read_to_string("/proc/meminfo").ok()?, "MemTotal:")
}

/// Name of the machine's processor.
pub fn processor() -> Option<String> {
    let text = fs::read_to_string("/proc/cpuinfo").ok()?;
    let line = text.lines().find(|line| line.starts_with("model name"))?;
    Some(line.split_once(':')?.1.trim().to_string())
}

/// Bytes of a line such as `VmHWM:   1234 kB`.
fn kib(text: &str, name: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib * 1024)
}
