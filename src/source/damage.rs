//! Which Parquet file can't be decoded.

use std::fs::File;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;

use crate::source::fault::{Fault, quoted};

/// Reads a file column by column, for who knows that some file can't be decoded: the errors of a scan name neither.
///
/// # Errors
/// The first column that can't be decoded.
pub fn check_decodes(path: &Path) -> Result<(), Fault> {
    let message = "is damaged: its footer can't be read; write the file again";
    let open = || File::open(path).map_err(|e| Fault::new(path, "can't be read").because(e));
    let builder =
        |file| ParquetRecordBatchReaderBuilder::try_new(file).map_err(|e| Fault::new(path, message).because(e));
    let columns = builder(open()?)?.parquet_schema().root_schema().get_fields().to_vec();
    for (at, column) in columns.iter().enumerate() {
        let reader = builder(open()?)?;
        let only = ProjectionMask::roots(reader.parquet_schema(), [at]);
        let read = || reader.with_projection(only).build()?.try_for_each(|batch| batch.map(drop)).map_err(Into::into);
        // Of what is damaged arrow's reader may panic.
        let read: parquet::errors::Result<()> = match catch_unwind(AssertUnwindSafe(read)) {
            Ok(read) => read,
            Err(_) => Err(parquet::errors::ParquetError::General("the reader panicked".into())),
        };
        if let Err(cause) = read {
            let message =
                format!("column {} can't be decoded, so it is damaged; write the file again", quoted(column.name()));
            return Err(Fault::new(path, message).because(cause));
        }
    }
    Ok(())
}
