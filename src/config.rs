//! Settings of an engine, as plain data.

use std::path::{Path, PathBuf};

/// What an engine is told once; see [`crate::engine::EngineBuilder`] for how to set it.
#[non_exhaustive]
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// Folder of the cache and the published tables. Default: `.chunkwise`.
    pub cache_folder: PathBuf,
    /// Chunks that run at a time, at least 1. Default: the number of processors.
    pub jobs: usize,
    /// Bytes that the process may have; `None` sets no limit. Default: half of what the control group or the machine
    /// has.
    pub memory_limit_bytes: Option<usize>,
    /// Bytes that the cache may have after a run, but for published and pinned tables; `None` sets no limit. Default: none.
    pub cache_limit_bytes: Option<u64>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            cache_folder: PathBuf::from(".chunkwise"),
            jobs: std::thread::available_parallelism().map_or(1, usize::from),
            memory_limit_bytes: default_memory_limit_bytes(),
            cache_limit_bytes: None,
        }
    }
}

/// Half of what the control group or the machine has; `None` where neither is known.
fn default_memory_limit_bytes() -> Option<usize> {
    let number = |path: &str| std::fs::read_to_string(path).ok()?.trim().parse::<usize>().ok();
    let group = number("/sys/fs/cgroup/memory.max").or_else(|| number("/sys/fs/cgroup/memory/memory.limit_in_bytes"));
    let machine = machine_bytes(Path::new("/proc/meminfo"));
    group.into_iter().chain(machine).min().map(|bytes| bytes / 2)
}

fn machine_bytes(meminfo: &Path) -> Option<usize> {
    let text = std::fs::read_to_string(meminfo).ok()?;
    let total = text.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    let kib: usize = total.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib * 1024)
}

#[cfg(test)]
mod tests {
    use super::default_memory_limit_bytes;

    #[test]
    fn a_machine_has_memory() {
        assert!(!cfg!(target_os = "linux") || default_memory_limit_bytes().is_some_and(|bytes| bytes > 64 << 20));
    }
}
