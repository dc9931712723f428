//! Files as a table: a fixed list of them, scanned whole. Sources, outputs and single chunks are all of this kind.

pub mod output;
pub mod served;
pub mod source;
pub mod split;

use std::collections::BTreeSet;
use std::sync::Arc;

use arrow::datatypes::{FieldRef, SchemaRef};
use async_trait::async_trait;
use datafusion::catalog::{Session, TableProvider};
use datafusion::common::stats::Precision;
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::common::{Column, DFSchema, Statistics};
use datafusion::datasource::TableType;
use datafusion::datasource::file_format::FileFormat;
use datafusion::datasource::file_format::parquet::ParquetFormat;
use datafusion::datasource::listing::PartitionedFile;
use datafusion::datasource::physical_plan::parquet::{ParquetAccessPlan, RowGroupAccess};
use datafusion::datasource::physical_plan::{FileGroup, FileScanConfigBuilder, ParquetSource};
use datafusion::datasource::table_schema::TableSchemaBuilder;
use datafusion::execution::object_store::ObjectStoreUrl;
use datafusion::logical_expr::{Expr, TableProviderFilterPushDown};
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::empty::EmptyExec;

/// A table over a list of local files that was taken once: what is added to their folder later is not seen.
///
/// A scan has one partition and reads the files in order. Filters are used to skip row groups and are always checked
/// again above the scan.
#[derive(Debug)]
pub struct FilesTable {
    schema: SchemaRef,
    format: Arc<dyn FileFormat>,
    files: Vec<PartitionedFile>,
    /// The last columns of `schema`, whose values are in the files' paths.
    partition_columns: Vec<FieldRef>,
    rows: Precision<usize>,
}

impl FilesTable {
    /// A table of `files`, whose columns are `schema` without its last `partition_columns`.
    ///
    /// `rows` is the exact number of rows in all files, if it is known; it helps to order joins.
    pub fn new(
        schema: SchemaRef,
        format: Arc<dyn FileFormat>,
        files: Vec<PartitionedFile>,
        partition_columns: usize,
        rows: Option<u64>,
    ) -> Self {
        let partition_columns =
            schema.fields().iter().skip(schema.fields().len() - partition_columns).cloned().collect();
        let rows = rows.and_then(|rows| usize::try_from(rows).ok()).map_or(Precision::Absent, Precision::Exact);
        Self { schema, format, files, partition_columns, rows }
    }

    /// The same table, its files read in another order: the first `by` of them last.
    pub fn rotated(&self, by: usize) -> Self {
        let mut files = self.files.clone();
        let by = by.checked_rem(files.len()).unwrap_or_default();
        files.rotate_left(by);
        let (schema, format) = (Arc::clone(&self.schema), Arc::clone(&self.format));
        Self { schema, format, files, partition_columns: self.partition_columns.clone(), rows: self.rows }
    }

    /// The same table with only some of its files, by number.
    pub fn of_files(&self, files: &BTreeSet<usize>) -> Self {
        let files = files.iter().filter_map(|at| self.files.get(*at)).cloned().collect();
        let (schema, format) = (Arc::clone(&self.schema), Arc::clone(&self.format));
        Self { schema, format, files, partition_columns: self.partition_columns.clone(), rows: Precision::Absent }
    }

    /// The same table with only some row groups, about `rows` rows: for each file, whether each of its row groups is
    /// read. The files must be Parquet.
    pub fn of_row_groups(&self, groups: &[Vec<bool>], rows: u64) -> Self {
        let files = self.files.iter().zip(groups).filter(|(_, groups)| groups.contains(&true));
        let files = files.map(|(file, groups)| {
            let access = groups.iter().map(|is_read| match is_read {
                true => RowGroupAccess::Scan,
                false => RowGroupAccess::Skip,
            });
            let meta = PartitionedFile::new_from_meta(file.object_meta.clone());
            meta.with_extension(ParquetAccessPlan::new(access.collect()))
        });
        let (schema, format) = (Arc::clone(&self.schema), Arc::clone(&self.format));
        let rows = usize::try_from(rows).map_or(Precision::Absent, Precision::Inexact);
        let partition_columns = self.partition_columns.clone();
        Self { schema, format, files: files.collect(), partition_columns, rows }
    }

    /// The format, with pruning switched off if `state` says so: a format keeps its own copy of that setting.
    fn format_for(&self, state: &dyn Session) -> Arc<dyn FileFormat> {
        match self.format.downcast_ref::<ParquetFormat>() {
            Some(parquet) if !state.config_options().execution.parquet.pruning => {
                let mut options = parquet.options().clone();
                options.global.pruning = false;
                options.global.enable_page_index = false;
                Arc::new(ParquetFormat::new().with_options(options))
            }
            _ => Arc::clone(&self.format),
        }
    }

    fn statistics(&self) -> Statistics {
        let mut statistics = Statistics::new_unknown(&self.schema);
        let bytes: u64 = self.files.iter().map(|f| f.object_meta.size).sum();
        statistics.total_byte_size = usize::try_from(bytes).map_or(Precision::Absent, Precision::Inexact);
        statistics.num_rows = self.rows;
        statistics
    }
}

#[async_trait]
impl TableProvider for FilesTable {
    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.schema)
    }

    fn table_type(&self) -> TableType {
        TableType::Base
    }

    fn supports_filters_pushdown(
        &self,
        filters: &[&Expr],
    ) -> datafusion::common::Result<Vec<TableProviderFilterPushDown>> {
        Ok(vec![TableProviderFilterPushDown::Inexact; filters.len()])
    }

    async fn scan(
        &self,
        state: &dyn Session,
        projection: Option<&Vec<usize>>,
        filters: &[Expr],
        limit: Option<usize>,
    ) -> datafusion::common::Result<Arc<dyn ExecutionPlan>> {
        if self.files.is_empty() {
            let schema = match projection {
                Some(columns) => Arc::new(self.schema.project(columns)?),
                None => Arc::clone(&self.schema),
            };
            return Ok(Arc::new(EmptyExec::new(schema)));
        }
        let in_files = self.schema.fields().len() - self.partition_columns.len();
        let in_files = Arc::new(self.schema.project(&(0..in_files).collect::<Vec<_>>())?);
        let table_schema =
            TableSchemaBuilder::from(&in_files).with_table_partition_cols(self.partition_columns.clone()).build();
        let format = self.format_for(state);
        let mut source = format.file_source(table_schema);
        if let Some(parquet) = source.downcast_ref::<ParquetSource>()
            && let Some(filter) = conjunction_physical(filters, &self.schema, state)?
        {
            source = Arc::new(parquet.clone().with_predicate(filter));
        }
        let config = FileScanConfigBuilder::new(ObjectStoreUrl::local_filesystem(), source)
            .with_file_group(FileGroup::new(self.files.clone()))
            .with_statistics(self.statistics())
            .with_projection_indices(projection.cloned())?
            .with_limit(limit)
            .build();
        format.create_physical_plan(state, config).await
    }
}

/// The filters over a table's columns that can be computed from a row alone, put together; they only say what may be
/// skipped.
fn conjunction_physical(
    filters: &[Expr],
    schema: &SchemaRef,
    state: &dyn Session,
) -> datafusion::common::Result<Option<Arc<dyn PhysicalExpr>>> {
    let schema = DFSchema::try_from(Arc::clone(schema))?;
    let bare = |part: Expr| match part {
        Expr::Column(column) => Ok(Transformed::yes(Expr::Column(Column::new_unqualified(column.name)))),
        other => Ok(Transformed::no(other)),
    };
    let filters = filters.iter().filter_map(|filter| {
        let filter = filter.clone().transform(bare).ok()?.data;
        state.create_physical_expr(filter, &schema).ok()
    });
    let filters: Vec<_> = filters.collect();
    Ok((!filters.is_empty()).then(|| datafusion::physical_expr::conjunction(filters)))
}
