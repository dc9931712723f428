//! What of the memory that a process may have goes to the operators of its chunks, and into how many chunks a task is
//! cut so that some of them fit in it.
//!
//! DataFusion's pool counts what operators reserve. The process has more: itself, batches under way, pages being decoded,
//! row groups being written. So much is held back.

/// What the process has before anything runs, and what allocators don't give back.
pub const PROCESS_BYTES: usize = 64 << 20;

/// What a running chunk has beside what its operators reserve.
pub const CHUNK_BYTES: usize = 32 << 20;

/// What a column of a Parquet file that is being written takes, however few rows it has: 64 files of 64 columns had
/// 420 MiB.
pub const COLUMN_BYTES: usize = 128 << 10;

/// At most so many columns are written at a time, whatever the memory.
const MOST_COLUMNS: usize = 4096;

/// A row group of a file that is written has so many bytes in memory, and no more than this share of what the pool has
/// for each job: the process has them beside it.
const ROW_GROUP_BYTES: usize = 64 << 20;
const LEAST_ROW_GROUP_BYTES: usize = 8 << 20;
const ROW_GROUP_SHARE: usize = 4;

/// A sort may merge a run more for each so many bytes that the pool has for a job. DataFusion 55 reserves four batches
/// for each run, and has up to seven: two that wait, one that is read, the one at hand and the one before, of which
/// rows wait to be given on, and the sort keys of the last two.
const MERGED_RUN_BYTES: usize = 10 << 20;
const MOST_MERGED_RUNS: usize = 64;

/// Copies of a chunk's rows that its operators may hold at once, a hash table, sorted runs, groups, and those that the
/// pool does not count.
const COPIES: u64 = 4;

/// A batch ends where its values have so many bytes, about, and no more than this share of what the pool has for each
/// job: several are alive for each file that is read.
pub const BATCH_BYTES: usize = 8 << 20;
const LEAST_BATCH_BYTES: usize = 1 << 20;
const BATCH_SHARE: usize = 16;

/// Rows of a batch, and of one where a chunk's share of the pool is below [`SMALL_SHARE_BYTES`]. A sort merges as many
/// runs as it was given batches, and a window looks at each partition once per batch, so fewer cost less: at TPC-H's
/// scale of 10, running sums over `lineitem` took 0.87 of the time that they take with DataFusion's own 8,192 rows,
/// and still larger batches gave no more.
const BATCH_ROWS: usize = 16_384;
pub const SMALL_BATCH_ROWS: usize = 8_192;
const SMALL_SHARE_BYTES: usize = 32 << 20;

/// Memory and processors for one run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Budget {
    /// Bytes that the process may have; no limit when `None`.
    pub limit_bytes: Option<usize>,
    /// Chunks at a time.
    pub jobs: usize,
}

impl Budget {
    /// Bytes for DataFusion's pool: the limit without what is held back, at least half of it.
    pub fn pool_bytes(&self) -> Option<usize> {
        let held_back = PROCESS_BYTES + self.jobs * CHUNK_BYTES;
        self.limit_bytes.map(|limit| limit.saturating_sub(held_back).max(limit / 2))
    }

    /// Bytes that a task which runs whole may keep, for its operators not to spill, by estimates: seven eighths of the
    /// pool.
    pub fn kept_bytes(&self) -> u64 {
        self.pool_bytes().map_or(u64::MAX, |pool| pool as u64 / 8 * 7)
    }

    /// Rows of the batches that operators hand on to each other.
    pub fn batch_rows(&self) -> usize {
        match self.pool_bytes() {
            Some(pool) if pool / self.jobs.max(1) < SMALL_SHARE_BYTES => SMALL_BATCH_ROWS,
            _ => BATCH_ROWS,
        }
    }

    /// Bytes at which a batch of wide rows ends.
    pub fn batch_bytes(&self) -> usize {
        let share = self.pool_bytes().map(|pool| pool / (BATCH_SHARE * self.jobs.max(1)));
        share.map_or(BATCH_BYTES, |share| share.clamp(LEAST_BATCH_BYTES, BATCH_BYTES))
    }

    /// Chunks for a task whose inputs take so many bytes in memory: as many chunks as run at a time fit in the pool.
    pub fn chunks(&self, input_bytes: u64) -> u64 {
        let Some(pool) = self.pool_bytes() else { return 1 };
        (input_bytes.saturating_mul(COPIES * self.jobs as u64)).div_ceil(pool.max(1) as u64).max(1)
    }

    /// Chunks for a task whose operators hold so many bytes if it is not cut: as many as run at a time keep to
    /// [`kept_bytes`](Self::kept_bytes).
    pub fn chunks_holding(&self, bytes: u64) -> u64 {
        bytes.saturating_mul(self.jobs as u64).div_ceil(self.kept_bytes().max(1)).max(1)
    }

    /// Readers that may read at a time, if each has so many bytes before rows come of it: those that have no more than
    /// the pool, at least one. Beside the pool there is room for what each job has, or for two in any case.
    pub fn readers(&self, reading_bytes: u64) -> usize {
        let (Some(limit), Some(pool)) = (self.limit_bytes, self.pool_bytes()) else { return self.jobs };
        let beside = (limit - pool).saturating_sub(PROCESS_BYTES) / CHUNK_BYTES;
        let readers = usize::try_from(pool as u64 / reading_bytes.max(1)).unwrap_or(usize::MAX);
        readers.min(beside.max(2)).clamp(1, self.jobs)
    }

    /// The permits, of as many as there are jobs, that such a reader takes: large row groups leave no room for others.
    pub fn permits(&self, reading_bytes: u64) -> u32 {
        self.jobs.div_ceil(self.readers(reading_bytes)) as u32
    }

    /// Bytes that the process needs if a reader has so many before rows come of it; `None` if it may have them.
    pub fn lacks(&self, reading_bytes: u64) -> Option<u64> {
        let needed = (PROCESS_BYTES + CHUNK_BYTES) as u64 + reading_bytes;
        let limit = self.limit_bytes? as u64;
        (needed > limit).then_some(needed)
    }

    /// Bytes in memory at which the row group of a file that is written ends.
    pub fn row_group_bytes(&self) -> usize {
        let share = self.pool_bytes().map(|pool| pool / (ROW_GROUP_SHARE * self.jobs.max(1)));
        share.map_or(ROW_GROUP_BYTES, |share| share.clamp(LEAST_ROW_GROUP_BYTES, ROW_GROUP_BYTES))
    }

    /// Sorted runs on disk that a sort merges at a time, two or more. A sort takes memory for as many as there is
    /// memory for, and keeps it while its rows are given on; other sorts of the plan need some, too.
    pub fn merged_runs(&self) -> usize {
        let share = self.pool_bytes().map(|pool| pool / self.jobs.max(1));
        share.map_or(MOST_MERGED_RUNS, |share| (share / MERGED_RUN_BYTES).clamp(2, MOST_MERGED_RUNS))
    }

    /// Columns of all files together that a pass may write: those that take a quarter of the pool.
    pub fn columns_of_files(&self) -> usize {
        self.pool_bytes().map_or(MOST_COLUMNS, |pool| (pool / 4 / COLUMN_BYTES).min(MOST_COLUMNS))
    }

    /// Passes over inputs that take so many bytes in memory: one if that fits in the pool alone, else as many as run at
    /// a time fit in it.
    pub fn passes(&self, input_bytes: u64) -> u64 {
        let alone = Self { jobs: 1, ..*self };
        if alone.chunks(input_bytes) == 1 { 1 } else { self.chunks(input_bytes) }
    }
}

#[cfg(test)]
mod tests {
    use super::Budget;

    #[test]
    fn the_pool_has_what_is_not_held_back_and_at_least_half() {
        let pool = |mib: usize, jobs| Budget { limit_bytes: Some(mib << 20), jobs }.pool_bytes().map(|b| b >> 20);
        assert_eq!(pool(1024, 2), Some(896));
        assert_eq!(pool(256, 2), Some(128));
        assert_eq!(pool(8, 2), Some(4));
        assert_eq!(Budget { limit_bytes: None, jobs: 2 }.pool_bytes(), None);
    }

    #[test]
    fn fewer_readers_have_large_row_groups_and_what_can_not_be_had_is_told() {
        let budget = |mib: usize| Budget { limit_bytes: Some(mib << 20), jobs: 4 };
        let readers = |mib: u64| budget(512).readers(mib << 20);
        assert_eq!((readers(0), readers(100), readers(300), readers(1000)), (4, 3, 1, 1));
        assert_eq!((budget(512).permits(0), budget(512).permits(100 << 20), budget(512).permits(300 << 20)), (1, 2, 4));
        // Where the pool is half of the limit, the other half is too little for four jobs.
        assert_eq!((budget(256).readers(0), budget(128).readers(0), budget(256).permits(0)), (2, 2, 2));
        assert_eq!(Budget { limit_bytes: None, jobs: 4 }.readers(1 << 40), 4);
        assert_eq!((budget(128).lacks(32 << 20), budget(128).lacks(64 << 20)), (None, Some(160 << 20)));
    }

    #[test]
    fn files_sorts_and_batches_have_less_where_memory_is_little() {
        let of = |mib: usize, jobs| {
            let budget = Budget { limit_bytes: Some(mib << 20), jobs };
            (budget.row_group_bytes() >> 20, budget.merged_runs(), budget.batch_bytes() >> 20)
        };
        assert_eq!((of(64, 2), of(256, 2), of(1024, 2), of(1024, 16)), ((8, 2, 1), (16, 6, 4), (64, 44, 8), (8, 3, 2)));
        let unlimited = Budget { limit_bytes: None, jobs: 2 };
        assert_eq!((unlimited.row_group_bytes() >> 20, unlimited.merged_runs()), (64, 64));
    }

    #[test]
    fn more_data_and_less_memory_make_more_chunks() {
        let chunks = |mib: usize, gib: u64| Budget { limit_bytes: Some(mib << 20), jobs: 2 }.chunks(gib << 30);
        assert_eq!((chunks(1024, 1), chunks(1024, 10), chunks(256, 10)), (10, 92, 640));
        assert_eq!(Budget { limit_bytes: None, jobs: 2 }.chunks(1 << 40), 1);
    }
}
