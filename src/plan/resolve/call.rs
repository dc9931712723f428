//! A call of a table function, by what it was called with: its provider doesn't tell.

use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use async_trait::async_trait;
use datafusion::catalog::{Session, TableProvider};
use datafusion::common::{DFSchema, Result, Statistics};
use datafusion::datasource::{DefaultTableSource, TableType};
use datafusion::logical_expr::{Expr, TableProviderFilterPushDown, TableSource};
use datafusion::physical_plan::ExecutionPlan;

use crate::plan::fingerprint::Canon;

/// The rows of a table function.
#[derive(Debug)]
pub struct Call {
    /// Its name, and its arguments' hash, constants folded.
    text: String,
    rows: Arc<dyn TableProvider>,
}

impl Call {
    /// What calling `function` with `args`, which name no columns, gave.
    ///
    /// # Errors
    /// When an argument is no constant.
    pub fn try_new(function: &str, args: &[Expr], rows: Arc<dyn TableProvider>) -> Result<Self> {
        let mut canon = Canon::default();
        canon.exprs(args, &DFSchema::empty())?;
        Ok(Self { text: format!("{function} {}", canon.hash.finish()), rows })
    }

    /// The call behind a scan, in words that are equal only for equal calls; `None` when it scans something else.
    pub fn behind(source: &dyn TableSource) -> Option<&str> {
        let source = source.downcast_ref::<DefaultTableSource>()?;
        source.table_provider.downcast_ref::<Self>().map(|call| call.text.as_str())
    }
}

#[async_trait]
impl TableProvider for Call {
    fn schema(&self) -> SchemaRef {
        self.rows.schema()
    }

    fn table_type(&self) -> TableType {
        self.rows.table_type()
    }

    fn supports_filters_pushdown(&self, filters: &[&Expr]) -> Result<Vec<TableProviderFilterPushDown>> {
        self.rows.supports_filters_pushdown(filters)
    }

    fn statistics(&self) -> Option<Statistics> {
        self.rows.statistics()
    }

    async fn scan(
        &self,
        state: &dyn Session,
        projection: Option<&Vec<usize>>,
        filters: &[Expr],
        limit: Option<usize>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        self.rows.scan(state, projection, filters, limit).await
    }
}
