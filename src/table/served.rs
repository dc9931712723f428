//! A slice of a source whose rows a hook gives.

use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use async_trait::async_trait;
use datafusion::catalog::{Session, TableProvider};
use datafusion::common::{DataFusionError, Result, plan_err};
use datafusion::datasource::TableType;
use datafusion::logical_expr::{Expr, TableProviderFilterPushDown};
use datafusion::physical_plan::ExecutionPlan;

use crate::hook::{InputSlice, SourceHook};

/// A slice that is asked for when it is scanned.
#[derive(Debug)]
pub struct ServedTable {
    hook: Arc<dyn SourceHook>,
    slice: InputSlice,
    schema: SchemaRef,
}

impl ServedTable {
    /// The slice `slice` of what `hook` gives, whose columns are these.
    pub fn new(hook: Arc<dyn SourceHook>, slice: InputSlice, schema: SchemaRef) -> Self {
        Self { hook, slice, schema }
    }
}

#[async_trait]
impl TableProvider for ServedTable {
    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.schema)
    }

    fn table_type(&self) -> TableType {
        TableType::Base
    }

    /// A slice may leave rows out by filters, but is not relied on.
    fn supports_filters_pushdown(&self, filters: &[&Expr]) -> Result<Vec<TableProviderFilterPushDown>> {
        Ok(vec![TableProviderFilterPushDown::Inexact; filters.len()])
    }

    async fn scan(
        &self,
        state: &dyn Session,
        projection: Option<&Vec<usize>>,
        filters: &[Expr],
        _limit: Option<usize>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let rows = self.hook.read(&self.slice).await.map_err(|e| DataFusionError::External(Box::new(e)))?;
        if rows.schema() != self.schema {
            let (given, declared) = (rows.schema(), &self.schema);
            let table = &self.slice.table;
            return plan_err!("the source `{table}` gives columns {given:?}, and its hook declares {declared:?}");
        }
        let known = rows.supports_filters_pushdown(&filters.iter().collect::<Vec<_>>())?;
        let filters = filters.iter().zip(known).filter(|(_, known)| *known != TableProviderFilterPushDown::Unsupported);
        let filters: Vec<Expr> = filters.map(|(filter, _)| filter.clone()).collect();
        // Not the limit: rows may be left out above.
        rows.scan(state, projection, &filters, None).await
    }
}
