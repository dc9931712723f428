//! Who runs a task, within how much memory and in how many chunks.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::options::Options;

/// Who runs a task.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum System {
    /// Plain DataFusion, unchunked.
    DataFusion,
    /// The engine.
    Chunkwise,
    /// DuckDB, unchunked.
    DuckDb,
}

/// One way to run a task.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Configuration {
    /// Who runs it.
    pub system: System,
    /// N of `CLUSTERED BY`; `None` lets the engine choose, and is all there is for the other systems.
    pub chunks: Option<u32>,
    /// The memory limit; `None` sets none.
    pub budget_bytes: Option<u64>,
}

impl Configuration {
    /// What all others are compared to: plain DataFusion without a limit.
    pub fn is_unchunked(&self) -> bool {
        self.system == System::DataFusion && self.budget_bytes.is_none()
    }
}

impl fmt::Display for System {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::DataFusion => "datafusion",
            Self::Chunkwise => "chunkwise",
            Self::DuckDb => "duckdb",
        })
    }
}

impl fmt::Display for Configuration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.system)?;
        if let Some(chunks) = self.chunks {
            write!(f, " {chunks}")?;
        }
        match self.budget_bytes {
            Some(bytes) => write!(f, ", {}", bytes_text(bytes)),
            None => Ok(()),
        }
    }
}

/// Every configuration that the options ask for, the unchunked one first.
pub fn configurations(options: &Options, has_duckdb: bool) -> Vec<Configuration> {
    let mut all = Vec::new();
    let budgets = || std::iter::once(None).chain(options.budgets().into_iter().map(Some));
    let whole = [Some(System::DataFusion), Some(System::Chunkwise), has_duckdb.then_some(System::DuckDb)];
    for system in whole.into_iter().flatten() {
        all.extend(budgets().map(|budget_bytes| Configuration { system, chunks: None, budget_bytes }));
    }
    for &chunks in &options.chunks {
        all.extend(options.chunk_budgets().into_iter().map(|budget_bytes| Configuration {
            system: System::Chunkwise,
            chunks: Some(chunks),
            budget_bytes,
        }));
    }
    all
}

/// `512 MiB`, `2 GiB`.
pub fn bytes_text(bytes: u64) -> String {
    let mib = bytes as f64 / f64::from(1 << 20);
    match mib {
        1024.0.. => format!("{} GiB", rounded(mib / 1024.0)),
        _ => format!("{} MiB", rounded(mib)),
    }
}

fn rounded(number: f64) -> String {
    let text = format!("{number:.1}");
    text.strip_suffix(".0").map_or_else(|| text.clone(), str::to_string)
}
