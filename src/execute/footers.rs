//! Parquet footers in memory, bounded by bytes: moka behind DataFusion's own interface, so that every scan uses it.

use std::time::Duration;

use datafusion::common::{HashMap, TableReference};
use datafusion::execution::cache::cache_manager::CachedFileMetadataEntry;
use datafusion::execution::cache::{Cache, CacheEntryInfo, CacheKey, CacheValue};
use moka::sync::Cache as MemoryCache;
use object_store::path::Path;

/// Footers of the files read last. Entries are checked against size and time of their file by whoever asks.
pub struct Footers {
    footers: MemoryCache<Path, CachedFileMetadataEntry>,
    limit_bytes: usize,
}

impl Footers {
    /// Keeps at most `limit_bytes` of footers.
    pub fn new(limit_bytes: usize) -> Self {
        let footers = MemoryCache::builder()
            .weigher(|path: &Path, entry: &CachedFileMetadataEntry| {
                u32::try_from(CacheKey::size(path) + entry.size()).unwrap_or(u32::MAX)
            })
            .max_capacity(limit_bytes as u64)
            .build();
        Self { footers, limit_bytes }
    }
}

impl Cache<Path, CachedFileMetadataEntry> for Footers {
    fn get(&self, path: &Path) -> Option<CachedFileMetadataEntry> {
        self.footers.get(path)
    }

    fn put(&self, path: &Path, entry: CachedFileMetadataEntry) -> Option<CachedFileMetadataEntry> {
        let before = self.footers.get(path);
        self.footers.insert(path.clone(), entry);
        before
    }

    fn remove(&self, path: &Path) -> Option<CachedFileMetadataEntry> {
        self.footers.remove(path)
    }

    fn contains_key(&self, path: &Path) -> bool {
        self.footers.contains_key(path)
    }

    fn len(&self) -> usize {
        usize::try_from(self.footers.entry_count()).unwrap_or(usize::MAX)
    }

    fn clear(&self) {
        self.footers.invalidate_all();
    }

    fn name(&self) -> String {
        "Footers".into()
    }

    fn cache_limit(&self) -> usize {
        self.limit_bytes
    }

    /// The limit is fixed when the cache is made.
    fn update_cache_limit(&self, _limit: usize) {}

    fn cache_ttl(&self) -> Option<Duration> {
        None
    }

    /// Footers don't age: a file's size and time say whether they are still its own.
    fn update_cache_ttl(&self, _ttl: Option<Duration>) {}

    fn drop_table_entries(&self, _table: &TableReference) -> datafusion::common::Result<()> {
        Ok(())
    }

    fn list_entries(&self) -> HashMap<Path, CacheEntryInfo<CachedFileMetadataEntry>> {
        let entry = |(path, value): (std::sync::Arc<Path>, CachedFileMetadataEntry)| {
            let info = CacheEntryInfo { size_bytes: value.size(), value, hits: 0, expires: None };
            (path.as_ref().clone(), info)
        };
        self.footers.iter().map(entry).collect()
    }
}
