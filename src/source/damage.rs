//! Which Parquet file can't be decoded.

use std::fs::File;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::{ArrowReaderMetadata, ArrowReaderOptions, ParquetRecordBatchReaderBuilder};

use crate::source::fault::{Fault, quoted};

/// Reads a file column by column, for who knows that some file can't be decoded: the errors of a scan name neither.
///
/// # Errors
/// The first column that can't be decoded.
pub fn check_decodes(path: &Path) -> Result<(), Fault> {
    let unreadable = |cause: std::io::Error| Fault::new(path, "can't be read").because(cause);
    let file = File::open(path).map_err(unreadable)?;
    let footer = ArrowReaderMetadata::load(&file, ArrowReaderOptions::default())
        .map_err(|e| Fault::new(path, "is damaged: its footer can't be read; write the file again").because(e))?;
    for (at, column) in footer.parquet_schema().root_schema().get_fields().iter().enumerate() {
        let file = file.try_clone().map_err(unreadable)?;
        let reader = ParquetRecordBatchReaderBuilder::new_with_metadata(file, footer.clone());
        let only = ProjectionMask::roots(footer.parquet_schema(), [at]);
        let read = || reader.with_projection(only).build()?.try_for_each(|batch| batch.map(drop)).map_err(Into::into);
        // Of what is damaged arrow's reader may panic.
        let read: parquet::errors::Result<()> = match catch_unwind(AssertUnwindSafe(read)) {
            Ok(read) => read,
            Err(_) => Err(parquet::errors::ParquetError::General("what it says of itself can't be".into())),
        };
        if let Err(cause) = read {
            let message =
                format!("column {} can't be decoded, so it is damaged; write the file again", quoted(column.name()));
            return Err(Fault::new(path, message).because(cause));
        }
    }
    Ok(())
}
