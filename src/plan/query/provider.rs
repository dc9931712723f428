//! What DataFusion's planner asks for, with relations of our own.

use std::sync::Arc;

use arrow::datatypes::{DataType, FieldRef, SchemaRef};
use datafusion::common::config::ConfigOptions;
use datafusion::common::file_options::file_type::FileType;
use datafusion::common::{Result, TableReference};
use datafusion::logical_expr::planner::{ContextProvider, ExprPlanner, RelationPlanner, TypePlanner};
use datafusion::logical_expr::{AggregateUDF, Expr, HigherOrderUDF, ScalarUDF, TableSource, WindowUDF};

/// Another provider, with planners before its own.
pub(super) struct Mended<'a> {
    tables: &'a dyn ContextProvider,
    relations: Vec<Arc<dyn RelationPlanner>>,
    exprs: Vec<Arc<dyn ExprPlanner>>,
}

impl<'a> Mended<'a> {
    /// What `tables` knows, `relation` and `expr`.
    pub(super) fn new(
        tables: &'a dyn ContextProvider,
        relation: Arc<dyn RelationPlanner>,
        expr: Option<Arc<dyn ExprPlanner>>,
    ) -> Self {
        let relations = [relation].into_iter().chain(tables.get_relation_planners().iter().cloned()).collect();
        let exprs = expr.into_iter().chain(tables.get_expr_planners().iter().cloned()).collect();
        Self { tables, relations, exprs }
    }
}

impl ContextProvider for Mended<'_> {
    fn get_relation_planners(&self) -> &[Arc<dyn RelationPlanner>] {
        &self.relations
    }

    fn get_table_source(&self, name: TableReference) -> Result<Arc<dyn TableSource>> {
        self.tables.get_table_source(name)
    }

    fn get_file_type(&self, ext: &str) -> Result<Arc<dyn FileType>> {
        self.tables.get_file_type(ext)
    }

    fn get_table_function_source(&self, name: &str, args: Vec<Expr>) -> Result<Arc<dyn TableSource>> {
        self.tables.get_table_function_source(name, args)
    }

    fn create_cte_work_table(&self, name: &str, schema: SchemaRef) -> Result<Arc<dyn TableSource>> {
        self.tables.create_cte_work_table(name, schema)
    }

    fn get_expr_planners(&self) -> &[Arc<dyn ExprPlanner>] {
        &self.exprs
    }

    fn get_type_planner(&self) -> Option<Arc<dyn TypePlanner>> {
        self.tables.get_type_planner()
    }

    fn get_function_meta(&self, name: &str) -> Option<Arc<ScalarUDF>> {
        self.tables.get_function_meta(name)
    }

    fn get_higher_order_meta(&self, name: &str) -> Option<Arc<HigherOrderUDF>> {
        self.tables.get_higher_order_meta(name)
    }

    fn get_aggregate_meta(&self, name: &str) -> Option<Arc<AggregateUDF>> {
        self.tables.get_aggregate_meta(name)
    }

    fn get_window_meta(&self, name: &str) -> Option<Arc<WindowUDF>> {
        self.tables.get_window_meta(name)
    }

    fn get_variable_type(&self, variable_names: &[String]) -> Option<DataType> {
        self.tables.get_variable_type(variable_names)
    }

    fn get_variable_field(&self, variable_names: &[String]) -> Option<FieldRef> {
        self.tables.get_variable_field(variable_names)
    }

    fn options(&self) -> &ConfigOptions {
        self.tables.options()
    }

    fn udf_names(&self) -> Vec<String> {
        self.tables.udf_names()
    }

    fn higher_order_function_names(&self) -> Vec<String> {
        self.tables.higher_order_function_names()
    }

    fn udaf_names(&self) -> Vec<String> {
        self.tables.udaf_names()
    }

    fn udwf_names(&self) -> Vec<String> {
        self.tables.udwf_names()
    }
}
