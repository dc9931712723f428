//! Files as a table: a fixed list of them, scanned whole. Sources, outputs and single chunks are all of this kind.

pub mod output;
pub mod served;
pub mod split;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Debug;
use std::sync::{Arc, OnceLock};

use arrow::datatypes::{FieldRef, Schema, SchemaRef};
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
use datafusion::datasource::physical_plan::{FileGroup, FileScanConfigBuilder, FileSource, ParquetSource};
use datafusion::datasource::source::DataSourceExec;
use datafusion::datasource::table_schema::{TableSchema, TableSchemaBuilder};
use datafusion::execution::object_store::ObjectStoreUrl;
use datafusion::logical_expr::{Expr, Operator, TableProviderFilterPushDown};
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_expr::expressions::lit;
use datafusion::physical_expr_adapter::PhysicalExprAdapterFactory;
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::empty::EmptyExec;

use crate::chunk::range::scalar;
use crate::plan::clustering::{RowGroup, RowGroups};

/// A table over a list of local files that was taken once: what is added to their folder later is not seen.
///
/// A scan reads the files in order; it has one partition, or several where the session asks for them. Filters are used
/// to skip row groups and are always checked again above the scan.
#[derive(Debug, Clone)]
pub struct FilesTable {
    schema: SchemaRef,
    /// The columns of the files, those that must not be NULL checked when they are read.
    in_files: SchemaRef,
    reader: Reader,
    files: Vec<PartitionedFile>,
    /// The last columns of `schema`, whose values are in the files' paths.
    partition_columns: Vec<FieldRef>,
    rows: Precision<usize>,
    /// What tells how many values columns have, and which.
    row_groups: Option<Arc<RowGroups>>,
    /// What it told, from the first time that it is asked.
    statistics: Arc<OnceLock<Statistics>>,
}

/// Of a table with more columns the least and the most values are not looked for.
const MOST_COLUMNS_WITH_ENDS: usize = 64;

/// What reads the files of a table.
#[derive(Debug, Clone)]
pub enum Reader {
    /// DataFusion's reader of Parquet.
    Parquet {
        /// The format with its options.
        format: Arc<ParquetFormat>,
        /// Makes the columns of each file those of the table; `None` where all are.
        fitting: Option<Arc<dyn PhysicalExprAdapterFactory>>,
        /// Whether `fitting` is asked also for files that have the table's columns.
        always_fits: bool,
        /// Whether row groups may be skipped by their statistics.
        prunes: bool,
    },
    /// A reader of whole files.
    Whole(Arc<dyn WholeFiles>),
}

impl Reader {
    /// Reads Parquet files that all have the table's columns.
    pub fn parquet(format: ParquetFormat) -> Self {
        Self::Parquet { format: Arc::new(format), fitting: None, always_fits: false, prunes: true }
    }
}

/// Reads each file from its beginning to its end.
pub trait WholeFiles: Debug + Send + Sync {
    /// Scans files with these columns.
    fn scan(&self, schema: TableSchema) -> Arc<dyn FileSource>;
}

impl FilesTable {
    /// A table of `files`, whose columns are `schema` without its last `partition_columns`.
    ///
    /// `rows` is the exact number of rows in all files, if it is known; it helps to order joins.
    pub fn new(
        schema: SchemaRef,
        reader: Reader,
        files: Vec<PartitionedFile>,
        partition_columns: usize,
        rows: Option<u64>,
    ) -> Self {
        let (in_files, partition_columns) = schema.fields().split_at(schema.fields().len() - partition_columns);
        let (in_files, partition_columns) = (Arc::new(Schema::new(in_files.to_vec())), partition_columns.to_vec());
        let rows = rows.and_then(|rows| usize::try_from(rows).ok()).map_or(Precision::Absent, Precision::Exact);
        let statistics = Arc::default();
        Self { schema, in_files, reader, files, partition_columns, rows, row_groups: None, statistics }
    }

    /// The same table, whose files have these row groups.
    pub fn with_row_groups(self, row_groups: Option<Arc<RowGroups>>) -> Self {
        Self { row_groups, statistics: Arc::default(), ..self }
    }

    /// The same table, of whose columns `promised` are only said to have no NULLs: that is checked when they are read.
    ///
    /// A plan must not rely on that: it would fold `v IS NULL` to false, so that nobody would read and check the
    /// column.
    pub fn promising(mut self, promised: &BTreeSet<String>) -> Self {
        let field = |field: &FieldRef| match promised.contains(field.name()) {
            true => Arc::new(field.as_ref().clone().with_nullable(true)),
            false => Arc::clone(field),
        };
        self.schema = Arc::new(Schema::new(self.schema.fields().iter().map(field).collect::<Vec<_>>()));
        self
    }

    /// Number of the columns whose values are in the files' paths.
    pub fn partition_columns(&self) -> usize {
        self.partition_columns.len()
    }

    /// The same table, its files read in another order: the first `by` of them last.
    pub fn rotated(&self, by: usize) -> Self {
        let mut rotated = self.clone();
        let by = by.checked_rem(rotated.files.len()).unwrap_or_default();
        rotated.files.rotate_left(by);
        rotated
    }

    /// The same table with only some of its files, by number.
    pub fn of_files(&self, files: &BTreeSet<usize>) -> Self {
        let row_groups = self.row_groups.as_ref().map(|all| {
            let counts = all.counts();
            let groups = files.iter().filter_map(|file| Some((*file, *counts.get(*file)?)));
            Arc::new(all.counted(groups.flat_map(|(file, count)| (0..count).map(move |number| (file, number)))))
        });
        let files = files.iter().filter_map(|at| self.files.get(*at)).cloned().collect();
        Self { files, rows: Precision::Absent, row_groups, statistics: Arc::default(), ..self.clone() }
    }

    /// The same table with only some of its row groups; without any where it has none.
    pub fn of_row_groups(&self, opened: &[RowGroup]) -> Self {
        let counts = self.row_groups.as_ref().map_or_else(Vec::new, |all| all.counts());
        let mut is_read: BTreeMap<usize, Vec<bool>> = BTreeMap::new();
        for group in opened {
            let of_file = is_read.entry(group.file).or_insert_with(|| vec![false; counts[group.file]]);
            of_file[group.number] = true;
        }
        let files = is_read.into_iter().map(|(file, groups)| {
            let access = groups.into_iter().map(|is_read| match is_read {
                true => RowGroupAccess::Scan,
                false => RowGroupAccess::Skip,
            });
            let meta = PartitionedFile::new_from_meta(self.files[file].object_meta.clone());
            meta.with_extension(ParquetAccessPlan::new(access.collect()))
        });
        let rows = usize::try_from(opened.iter().map(|group| group.rows).sum::<u64>());
        let rows = rows.map_or(Precision::Absent, Precision::Inexact);
        let opened = opened.iter().map(|group| (group.file, group.number));
        let row_groups = self.row_groups.as_ref().map(|all| Arc::new(all.counted(opened)));
        Self {
            schema: Arc::clone(&self.schema),
            in_files: Arc::clone(&self.in_files),
            reader: self.reader.clone(),
            files: files.collect(),
            partition_columns: self.partition_columns.clone(),
            rows,
            row_groups,
            statistics: Arc::default(),
        }
    }

    fn size(&self) -> Statistics {
        let mut statistics = Statistics::new_unknown(&self.schema);
        let bytes: u64 = self.files.iter().map(|f| f.object_meta.size).sum();
        statistics.total_byte_size = usize::try_from(bytes).map_or(Precision::Absent, Precision::Inexact);
        statistics.num_rows = self.rows;
        statistics
    }

    /// The files in as many groups as the session wants partitions, but for Parquet, which DataFusion divides itself.
    fn groups(&self, state: &dyn Session) -> Vec<FileGroup> {
        let partitions = match self.reader {
            Reader::Parquet { .. } => 1,
            Reader::Whole(_) => state.config().target_partitions(),
        };
        let share = self.files.len().div_ceil(partitions.max(1)).max(1);
        self.files.chunks(share).map(|files| FileGroup::new(files.to_vec())).collect()
    }
}

/// The format, with pruning switched off unless it is wanted here and by the session: a format keeps its own copy of
/// that setting.
fn format_for(format: &Arc<ParquetFormat>, prunes: bool, state: &dyn Session) -> Arc<ParquetFormat> {
    if prunes && state.config_options().execution.parquet.pruning {
        return Arc::clone(format);
    }
    let mut options = format.options().clone();
    options.global.pruning = false;
    options.global.enable_page_index = false;
    options.global.bloom_filter_on_read = false;
    Arc::new(ParquetFormat::new().with_options(options))
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

    fn statistics(&self) -> Option<Statistics> {
        let told = || {
            let mut statistics = self.size();
            let Some(row_groups) = &self.row_groups else { return statistics };
            let has_ends = self.schema.fields().len() <= MOST_COLUMNS_WITH_ENDS;
            for (column, field) in statistics.column_statistics.iter_mut().zip(self.schema.fields()) {
                let values = row_groups.size(field.name()).and_then(|size| usize::try_from(size.values?).ok());
                column.distinct_count = values.map_or(Precision::Absent, Precision::Inexact);
                if has_ends && let Some((least, most)) = row_groups.ends(field.name()) {
                    column.min_value = Precision::Inexact(scalar(&least, field.data_type()));
                    column.max_value = Precision::Inexact(scalar(&most, field.data_type()));
                }
            }
            statistics
        };
        Some(self.statistics.get_or_init(told).clone())
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
        let table_schema =
            TableSchemaBuilder::from(&self.in_files).with_table_partition_cols(self.partition_columns.clone()).build();
        let config = |source: Arc<dyn FileSource>| {
            FileScanConfigBuilder::new(ObjectStoreUrl::local_filesystem(), source)
                .with_file_groups(self.groups(state))
                .with_statistics(self.size())
                .with_limit(limit)
                .with_projection_indices(projection.cloned())
        };
        match &self.reader {
            Reader::Parquet { format, fitting, always_fits, prunes } => {
                let format = format_for(format, *prunes, state);
                let mut source = format.file_source(table_schema);
                let filter = conjunction_physical(filters, &self.schema, state)?;
                // DataFusion asks only where there is a filter, or a file has other columns.
                let any = || always_fits.then(|| lit(true));
                if let Some(parquet) = source.downcast_ref::<ParquetSource>()
                    && let Some(filter) = filter.or_else(any)
                {
                    source = Arc::new(parquet.clone().with_predicate(filter));
                }
                let config = config(source)?.with_expr_adapter(fitting.clone()).build();
                format.create_physical_plan(state, config).await
            }
            Reader::Whole(files) => Ok(DataSourceExec::from_data_source(config(files.scan(table_schema))?.build())),
        }
    }
}

/// Most filters by which row groups are skipped: one suffices for each, and the time to plan them grows with their
/// square.
const MOST_FILTERS: usize = 100;

/// Whether a filter computes with numbers, of which statistics say nothing.
fn is_computed(filter: &Expr) -> bool {
    use Operator::{Divide, Minus, Modulo, Multiply, Plus};
    let computes = |part: &Expr| {
        Ok(matches!(part, Expr::BinaryExpr(binary) if matches!(binary.op, Plus | Minus | Multiply | Divide | Modulo)))
    };
    // The closure never fails.
    filter.exists(computes).unwrap_or(true)
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
    let filters = filters.iter().filter(|filter| !is_computed(filter)).take(MOST_FILTERS).filter_map(|filter| {
        let filter = filter.clone().transform(bare).ok()?.data;
        state.create_physical_expr(filter, &schema).ok()
    });
    let filters: Vec<_> = filters.collect();
    Ok((!filters.is_empty()).then(|| datafusion::physical_expr::conjunction(filters)))
}
