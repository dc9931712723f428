//! Whether outputs have the same rows, in whatever order, files and types.

use std::error::Error;
use std::hash::Hasher;
use std::path::Path;

use chunkwise::datafusion::arrow::row::{RowConverter, SortField};
use chunkwise::datafusion::prelude::{ParquetReadOptions, SessionContext};
use futures::StreamExt;
use serde::Serialize;
use tokio::runtime::Runtime;

use crate::task::Task;

/// What an output's rows come to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Digest {
    /// Their number.
    pub rows: u64,
    /// Sum of their hashes. The same build gives the same rows the same sum.
    pub checksum: u64,
}

/// Compares a task's outputs with the first one that it sees.
#[derive(Debug)]
pub struct Checker {
    task: &'static Task,
    runtime: Runtime,
    expected: Option<Digest>,
}

impl Checker {
    /// Has seen nothing yet.
    pub fn new(task: &'static Task) -> Self {
        let runtime = Runtime::new().expect("threads can be started");
        Self { task, runtime, expected: None }
    }

    /// The first output's digest.
    pub fn expected(&self) -> Option<Digest> {
        self.expected
    }

    /// What is wrong with the rows of a file or folder, if anything is.
    pub fn problem(&mut self, output: &Path) -> Option<String> {
        match self.runtime.block_on(digest(output, self.task)) {
            Err(error) => Some(format!("the output can't be read: {error}")),
            Ok(found) => {
                let expected = *self.expected.get_or_insert(found);
                (found != expected).then(|| {
                    format!(
                        "wrong rows: {} with checksum {:016x} where {} with {:016x} are expected",
                        found.rows, found.checksum, expected.rows, expected.checksum
                    )
                })
            }
        }
    }
}

async fn digest(output: &Path, task: &Task) -> Result<Digest, Box<dyn Error>> {
    let context = SessionContext::new();
    // The published table is a symbolic link, which listing a folder does not follow.
    let output = output.canonicalize()?;
    let path = output.to_str().ok_or("its path is no text")?;
    // A folder is only listed when its name ends so.
    let path = if output.is_dir() { format!("{path}/") } else { path.to_string() };
    context.register_parquet("output", path, ParquetReadOptions::default()).await?;
    let mut batches = context.sql(&format!("SELECT {} FROM output", task.compared)).await?.execute_stream().await?;
    let fields = batches.schema().fields().iter().map(|field| SortField::new(field.data_type().clone())).collect();
    let converter = RowConverter::new(fields)?;
    let mut digest = Digest { rows: 0, checksum: 0 };
    while let Some(batch) = batches.next().await {
        for row in &converter.convert_columns(batch?.columns())? {
            let mut hasher = std::hash::DefaultHasher::new();
            hasher.write(row.as_ref());
            digest.rows += 1;
            digest.checksum = digest.checksum.wrapping_add(hasher.finish());
        }
    }
    Ok(digest)
}
