//! What happens during a run, as it happens: for progress bars, logs and tests.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

/// One thing that happened.
#[non_exhaustive]
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// Something was damaged and mended, or was passed over.
    Warning {
        /// What, and what was done about it.
        message: String,
    },
    /// A run has waited some seconds for another process, or another run, and goes on waiting.
    Waiting {
        /// What it waits for.
        what: String,
        /// The process that makes or holds it, if that is known.
        process: Option<u32>,
    },
    /// Files or folders at a source's location are not read.
    LeftOut {
        /// The source.
        source: String,
        /// Which, and why.
        note: String,
    },
    /// A task begins: `reused` of its `chunks` are in the cache, the others will run.
    Planned {
        /// The task.
        task: String,
        /// Its number of chunks.
        chunks: u32,
        /// Chunks that are in the cache.
        reused: u32,
        /// Why the others run; why none has to.
        reason: String,
    },
    /// Chunks of a task, or of a step of it, are in the cache and don't run.
    Reused {
        /// The task.
        task: String,
        /// How many.
        chunks: u32,
    },
    /// A chunk's plan begins to run.
    ChunkStarted {
        /// The task.
        task: String,
        /// The chunk, from 0.
        chunk: u32,
    },
    /// Rows of an input that has predicates of its own were looked at, whether exactly one holds for each. Those that were found
    /// good before are not looked at again.
    Checked {
        /// The task.
        task: String,
        /// The input.
        input: String,
        /// How many.
        rows: u64,
    },
    /// An input was cut into chunks in one pass.
    Split {
        /// The task that needed it first.
        task: String,
        /// The input.
        input: String,
        /// Rows that were kept.
        rows: u64,
        /// Bytes that were written.
        bytes: u64,
    },
    /// Memory did not suffice for a chunk: it is tried again in parts, one after the other.
    ShortOfMemory {
        /// The task.
        task: String,
        /// The chunk, from 0.
        chunk: u32,
        /// Number of parts.
        parts: u32,
    },
    /// A chunk is in the cache.
    ChunkDone {
        /// The task.
        task: String,
        /// The chunk, from 0.
        chunk: u32,
        /// Rows in its file.
        rows: u64,
        /// Size of its file.
        bytes: u64,
    },
    /// The cache was kept to its limit.
    Evicted {
        /// Number of chunk files, splits, versions of tables and stages, and damaged files that were removed.
        removed: u64,
        /// Bytes that were freed.
        bytes: u64,
    },
    /// Readers see the task's new table from now on.
    Published {
        /// The task.
        task: String,
    },
    /// A task is done, and its table is published, or will be with its stage.
    Done {
        /// The task.
        task: String,
        /// Chunks that ran.
        executed: u32,
        /// Chunks that were in the cache.
        reused: u32,
        /// Rows of the table.
        rows: u64,
        /// Bytes of its files.
        bytes: u64,
        /// Time since the task began.
        wall: Duration,
        /// Why chunks ran, or why none had to.
        reason: String,
    },
    /// A task failed; what it had committed stays in the cache.
    Failed {
        /// The task.
        task: String,
        /// Why.
        message: String,
    },
    /// A task is done, but its table is as before, since its stage is not published.
    Withheld {
        /// The task.
        task: String,
        /// Why.
        message: String,
    },
    /// A task was not run, since one that it reads failed, or the stage of one is not published.
    Skipped {
        /// The task.
        task: String,
        /// Why.
        message: String,
    },
}

/// Where events go. Called from many threads; it should return quickly.
#[derive(Clone)]
pub struct EventSink(Arc<dyn Fn(Event) + Send + Sync>);

impl EventSink {
    /// Calls `listener` with each event.
    pub fn new(listener: impl Fn(Event) + Send + Sync + 'static) -> Self {
        Self(Arc::new(listener))
    }

    /// Sends each event to both.
    pub fn and(self, other: impl Fn(Event) + Send + Sync + 'static) -> Self {
        Self::new(move |event| {
            self.send(event.clone());
            other(event);
        })
    }

    /// Passes on one event.
    pub fn send(&self, event: Event) {
        (self.0)(event);
    }
}

impl Default for EventSink {
    fn default() -> Self {
        Self::new(|_| {})
    }
}

impl fmt::Debug for EventSink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("EventSink")
    }
}
