//! Into how many chunks a query is cut.

use crate::chunk::{BYTES_PER_CHUNK, ChunkBy, Chunking, LEAST_CUT_BYTES, MAX_CHUNKS, MOST_CHUNKS_BY_SIZE};
use crate::plan::resolve::Resolved;

/// The engine's own number of chunks is kept up to so many times more or fewer.
const KEPT_FACTOR: u32 = 4;

/// The number of chunks that the published table has, where `wanted`, which follows from sizes and memory, is not far
/// from it: another machine, or a source that grew a little, is no reason to run everything again.
fn near(wanted: u32, previous: &[String]) -> Option<u32> {
    let numbers = previous.iter().filter_map(|function| function.parse::<u32>().ok());
    let near = numbers.filter(|before| wanted > 1 && *before > 1 && before.is_power_of_two());
    near.filter(|before| (wanted / KEPT_FACTOR..=wanted.saturating_mul(KEPT_FACTOR)).contains(before)).max()
}

/// That number, or else `wanted`.
pub fn kept(wanted: u32, previous: &[String]) -> u32 {
    near(wanted, previous).unwrap_or(wanted)
}

/// What it takes to run a query whole.
#[derive(Debug, Clone, Copy, Default)]
pub struct Fit {
    /// Into so many chunks it is cut to fit in memory; 0 where it holds little of its inputs at a time.
    pub chunks: u64,
    /// Into so many where it holds all that it reads.
    pub most: u64,
    /// Bytes that it reads of its inputs' files, about.
    pub bytes: u64,
    /// Bytes that it holds at a time, about, where that is known.
    pub held: Option<u64>,
    /// Rows that it gives and their bytes, about, where that is known.
    pub given: Option<(u64, u64)>,
    /// Bytes that operators may hold; nothing where there is no limit.
    pub most_held: Option<u64>,
}

/// How a query is to be cut.
pub struct Sized {
    /// Keys, number of chunks and function.
    pub chunking: Chunking,
    /// In how many parts each chunk is computed.
    pub parts: u32,
    /// Whether it runs whole since it holds little of its inputs at a time.
    pub holds_little: bool,
}

impl Sized {
    /// How `query`, which takes what `fit` says to run whole, is cut as `chunking` says, or by size and memory where
    /// it says nothing; then what cut its table before, `previous`, is kept if it can be.
    pub fn of(query: &Resolved, chunking: Option<&Chunking>, previous: &[String], fit: &dyn Fn() -> Fit) -> Self {
        // Powers of two, so that tasks over each other read stored chunks.
        let power = |chunks: u64| chunks.clamp(1, MAX_CHUNKS.into()).next_power_of_two() as u32;
        match chunking {
            Some(chunking) if chunking.by == ChunkBy::Auto => {
                let chunking = Chunking { chunks: chunking.chunks.max(power(fit().chunks)), ..chunking.clone() };
                Self { chunking, parts: 1, holds_little: false }
            }
            Some(chunking) => Self { chunking: chunking.clone(), parts: 1, holds_little: false },
            None => {
                let bytes = bytes_of(query);
                let chunks = match bytes < LEAST_CUT_BYTES {
                    true => 1,
                    false => (bytes / BYTES_PER_CHUNK).clamp(1, MOST_CHUNKS_BY_SIZE.into()) as u32,
                };
                let Fit { chunks: needed, most, .. } = fit();
                let fitting = power(needed);
                let cut_before = if needed < most { near(power(most), previous) } else { None };
                let chunks = match (cut_before, needed) {
                    // What fits in more memory was cut, and can stay so.
                    (Some(before), 0 | 1) => before,
                    (_, 0) => 1,
                    _ => kept((1 << chunks.ilog2()).max(fitting), previous),
                };
                let chunking = Chunking { keys: Vec::new(), chunks, by: ChunkBy::Auto };
                let holds_little = needed == 0 && bytes >= LEAST_CUT_BYTES;
                Self { chunking, parts: fitting.div_ceil(chunks), holds_little }
            }
        }
    }
}

/// Whether a query runs as one chunk, whatever its keys could be.
pub fn is_whole(chunking: &Chunking) -> bool {
    chunking.keys.is_empty() && chunking.chunks == 1
}

/// Bytes of the inputs of a query, about.
pub fn bytes_of(query: &Resolved) -> u64 {
    query.scans.iter().map(|scan| scan.bytes).sum()
}
