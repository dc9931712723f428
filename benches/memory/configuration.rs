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
    /// The limit is what Chunkwise took at most when it ran like this, in the first round.
    pub beside: Option<Beside>,
}

/// A configuration of Chunkwise with a memory limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Beside {
    /// N of `CLUSTERED BY`, as in [`Configuration`].
    pub chunks: Option<u32>,
    /// The memory limit.
    pub budget_bytes: u64,
}

impl Beside {
    /// That configuration.
    pub fn configuration(self) -> Configuration {
        let Self { chunks, budget_bytes } = self;
        Configuration { system: System::Chunkwise, chunks, budget_bytes: Some(budget_bytes), beside: None }
    }
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
        if let Some(beside) = self.beside {
            return write!(f, ", RSS of {}", beside.configuration());
        }
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
    let of =
        |system, chunks| move |budget_bytes: Option<u64>| Configuration { system, chunks, budget_bytes, beside: None };
    let none_and = |budgets: Vec<u64>| std::iter::once(None).chain(budgets.into_iter().map(Some));
    let mut all: Vec<Configuration> = none_and(options.pool_budgets()).map(of(System::DataFusion, None)).collect();
    all.extend(none_and(options.budgets()).map(of(System::Chunkwise, None)));
    for &chunks in &options.chunks {
        all.extend(options.chunk_budgets().into_iter().map(of(System::Chunkwise, Some(chunks))));
    }
    if has_duckdb {
        let limited = all.iter().filter(|configuration| configuration.system == System::Chunkwise);
        let limited = limited.filter_map(|c| Some(Beside { chunks: c.chunks, budget_bytes: c.budget_bytes? }));
        let is_asked = |beside: &Beside| options.is_beside(beside.budget_bytes);
        let beside: Vec<Beside> = limited.filter(is_asked).collect();
        all.push(of(System::DuckDb, None)(None));
        all.extend(
            beside.into_iter().map(|beside| Configuration { beside: Some(beside), ..of(System::DuckDb, None)(None) }),
        );
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
