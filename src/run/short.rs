//! What is told of a chunk for which memory does not suffice, whatever was tried.

use crate::error::Error;
use crate::execute::budget::Budget;
use crate::execute::write::is_out_of_memory;
use crate::plan::need::Need;
use crate::plan::prove::proof::Role;
use crate::run::chunk::ChunkJob;

/// Operators may hold about so many copies of what a chunk reads where nothing of it is left out.
const COPIES: u64 = 2;

impl ChunkJob {
    /// The error of a chunk, which says what the chunk takes and what helps where that was memory.
    pub(super) fn short_of_memory(&self, chunk: u32, error: Error) -> Error {
        let budget = self.context.budget;
        match budget.pool_bytes() {
            Some(pool) if is_out_of_memory(&error) => {
                let of_chunk = Short {
                    chunk,
                    chunks: self.step().proof.chunks(),
                    parts: self.most_parts(),
                    keys: self.step().proof.keys().join(", "),
                    read_bytes: self.read_bytes(chunk),
                };
                error.with_message(of_chunk.told(budget, pool as u64))
            }
            _ => error,
        }
    }

    /// Bytes that the rows which a chunk reads take in memory, about.
    fn read_bytes(&self, chunk: u32) -> u64 {
        let step = self.step();
        let chunks = u64::from(step.proof.chunks().max(1));
        let of_input = |(number, need): (usize, &Need)| {
            let is_cut = step.proof.inputs().get(number).is_some_and(|i| matches!(i.role, Role::Partitioned { .. }));
            match self.inputs.get(number).map_or(0, |input| input.rows(chunk)) {
                _ if !is_cut => need.memory_bytes,
                0 => need.memory_bytes / chunks,
                rows => (rows * need.row_bytes).min(need.memory_bytes),
            }
        };
        step.needs.iter().enumerate().map(of_input).sum()
    }
}

/// A chunk that does not fit.
struct Short {
    chunk: u32,
    chunks: u32,
    /// Into so many parts it was cut.
    parts: u32,
    keys: String,
    read_bytes: u64,
}

impl Short {
    fn told(&self, budget: Budget, pool: u64) -> String {
        let Self { chunk, chunks, parts, keys, read_bytes } = self;
        let what = match chunks {
            1 => "the task, which runs whole".to_string(),
            _ => format!("chunk {chunk} of {chunks}"),
        };
        let (reads, left, enough) = (mib(*read_bytes), mib(pool), mib(self.enough(budget)));
        let cut = match (chunks, parts) {
            (_, 2..) => format!(
                "; more buckets don't help: in {parts} parts it does not fit either, so many of its rows have one value of \
                 ({keys}), or are long, or the inputs that every chunk reads are large"
            ),
            (1, _) => String::new(),
            _ => ", or more buckets".to_string(),
        };
        let jobs = if budget.jobs > 1 { "--jobs 1 or " } else { "" };
        format!(
            "memory does not suffice for {what}: it reads about {reads}, and {left} are left for its operators; use \
             {jobs}--memory {enough}{cut}"
        )
    }

    /// The limit of a process in which it should fit, twice the one that it has at least.
    fn enough(&self, budget: Budget) -> u64 {
        let limit = budget.limit_bytes.unwrap_or_default() as u64;
        let held_back = limit.saturating_sub(budget.pool_bytes().unwrap_or_default() as u64);
        (held_back + COPIES * self.read_bytes).max(2 * limit).next_power_of_two()
    }
}

/// Bytes as the command line takes them.
fn mib(bytes: u64) -> String {
    format!("{}MiB", bytes.div_ceil(1 << 20))
}

#[cfg(test)]
mod tests {
    use super::Short;
    use crate::execute::budget::Budget;

    #[test]
    fn what_a_chunk_takes_and_what_helps_is_told() {
        let told = |chunks, parts, jobs| {
            let budget = Budget { limit_bytes: Some(512 << 20), jobs };
            let short = Short { chunk: 6, chunks, parts, keys: "shop".to_string(), read_bytes: 700 << 20 };
            short.told(budget, budget.pool_bytes().unwrap_or_default() as u64)
        };
        assert_eq!(
            told(16, 1, 2),
            "memory does not suffice for chunk 6 of 16: it reads about 700MiB, and 384MiB are left for its operators; use \
             --jobs 1 or --memory 2048MiB, or more buckets"
        );
        assert!(told(16, 64, 1).ends_with(
            "use --memory 2048MiB; more buckets don't help: in 64 parts it does not fit either, so many of its rows have \
             one value of (shop), or are long, or the inputs that every chunk reads are large"
        ));
        assert!(told(1, 1, 1).starts_with("memory does not suffice for the task, which runs whole: it reads"));
    }
}
