//! Windows over text, in bounded memory.

use std::collections::HashSet;
use std::sync::Arc;

use arrow::datatypes::DataType;
use datafusion::common::Result;
use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_expr::expressions::{CastExpr, Column};
use datafusion::physical_expr::utils::collect_columns;
use datafusion::physical_expr::window::{
    PlainAggregateWindowExpr, SlidingAggregateWindowExpr, StandardWindowExpr, WindowExpr,
};
use datafusion::physical_optimizer::PhysicalOptimizerRule;
use datafusion::physical_plan::projection::ProjectionExec;
use datafusion::physical_plan::windows::BoundedWindowAggExec;
use datafusion::physical_plan::{ExecutionPlan, ExecutionPlanProperties};

/// Gives windows the text that they only pass on as arrays that own it, in place of views.
///
/// A window keeps the last rows of a partition until the next batch comes and puts both together. DataFusion 55 puts views
/// together with all their buffers, so those of every batch of a partition stay until its end: 3.8 GiB for one of 30
/// million rows of `lineitem`. What the window's own expressions read stays as it is, since they are made for its type.
#[derive(Debug)]
pub struct OwnText;

impl PhysicalOptimizerRule for OwnText {
    fn optimize(&self, plan: Arc<dyn ExecutionPlan>, _config: &ConfigOptions) -> Result<Arc<dyn ExecutionPlan>> {
        let owned = plan.transform_up(|node| match node.downcast_ref::<BoundedWindowAggExec>() {
            Some(window) => match over_owned(window)? {
                Some(owned) => Ok(Transformed::yes(owned)),
                None => Ok(Transformed::no(node)),
            },
            None => Ok(Transformed::no(node)),
        })?;
        Ok(owned.data)
    }

    fn name(&self) -> &str {
        "own_text"
    }

    fn schema_check(&self) -> bool {
        true
    }
}

/// The window between two projections, to owned text and back; nothing where there is no text to own.
fn over_owned(window: &BoundedWindowAggExec) -> Result<Option<Arc<dyn ExecutionPlan>>> {
    let mut read = HashSet::new();
    for expr in window.window_expr() {
        let Some(columns) = columns(expr.as_ref()) else { return Ok(None) };
        read.extend(columns);
    }
    // Windows above may count on the order of the rows, of which a cast is not known to keep it.
    for order in window.input().equivalence_properties().oeq_class().iter() {
        read.extend(order.iter().flat_map(|key| collect_columns(&key.expr)).map(|column| column.index()));
    }
    let schema = window.input().schema();
    let owned = |at: usize| match schema.field(at).data_type() {
        _ if read.contains(&at) => None,
        DataType::Utf8View => Some(DataType::LargeUtf8),
        DataType::BinaryView => Some(DataType::LargeBinary),
        _ => None,
    };
    let inputs = schema.fields().len();
    if (0..inputs).all(|at| owned(at).is_none()) {
        return Ok(None);
    }
    let projected = |input: Arc<dyn ExecutionPlan>, to: &dyn Fn(usize) -> Option<DataType>| {
        let schema = input.schema();
        let exprs = schema.fields().iter().enumerate().map(|(at, field)| {
            let column: Arc<dyn PhysicalExpr> = Arc::new(Column::new(field.name(), at));
            let expr = match to(at) {
                Some(data_type) => Arc::new(CastExpr::new(column, data_type, None)),
                None => column,
            };
            (expr, field.name().clone())
        });
        let exprs: Vec<_> = exprs.collect();
        ProjectionExec::try_new(exprs, input).map(|projection| Arc::new(projection) as Arc<dyn ExecutionPlan>)
    };
    let below = projected(Arc::clone(window.input()), &owned)?;
    let can_repartition = !window.partition_keys().is_empty();
    let mode = window.input_order_mode.clone();
    let window = BoundedWindowAggExec::try_new(window.window_expr().to_vec(), below, mode, can_repartition)?;
    let back = |at: usize| (at < inputs && owned(at).is_some()).then(|| schema.field(at).data_type().clone());
    projected(Arc::new(window), &back).map(Some)
}

/// The columns that a window expression reads; `None` where that is not known.
fn columns(expr: &dyn WindowExpr) -> Option<HashSet<usize>> {
    let is_known = expr.as_any().is::<StandardWindowExpr>() || has_no_filter(expr);
    let all = expr.all_expressions();
    let exprs = all.args.iter().chain(&all.partition_by_exprs).chain(&all.order_by_exprs);
    is_known.then(|| exprs.flat_map(collect_columns).map(|column| column.index()).collect())
}

/// Whether a window expression is an aggregate of all rows.
///
/// An aggregate's filter is not to be had, only whether there is one, as the last field of its debug text.
pub fn has_no_filter(expr: &dyn WindowExpr) -> bool {
    let any = expr.as_any();
    let is_aggregate = any.is::<PlainAggregateWindowExpr>() || any.is::<SlidingAggregateWindowExpr>();
    is_aggregate && format!("{expr:?}").ends_with("filter: None }")
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{Array, AsArray, Int64Array, RecordBatch, StringViewArray};
    use arrow::compute::concat_batches;
    use datafusion::catalog::MemTable;
    use datafusion::physical_plan::{ExecutionPlan, displayable, execute_stream};
    use datafusion::prelude::{SessionConfig, SessionContext};
    use futures::StreamExt;

    use crate::execute::session::{runtime, session};

    const BATCHES: i64 = 20;
    const ROWS: i64 = 8192;

    /// One partition in many batches, each with a buffer of text of its own.
    fn batches() -> Vec<RecordBatch> {
        let batch = |number: i64| {
            let rows = number * ROWS..(number + 1) * ROWS;
            let text: StringViewArray = rows.clone().map(|row| Some(format!("the text of row number {row}"))).collect();
            let order: Int64Array = rows.clone().collect();
            let key = Int64Array::from(vec![7; ROWS as usize]);
            let arrays = [Arc::new(key) as Arc<dyn Array>, Arc::new(order), Arc::new(text)];
            RecordBatch::try_from_iter(["k", "n", "s"].into_iter().zip(arrays)).unwrap()
        };
        (0..BATCHES).map(batch).collect()
    }

    async fn plan(session: &SessionContext, batches: &[RecordBatch], query: &str) -> Arc<dyn ExecutionPlan> {
        let table = MemTable::try_new(batches[0].schema(), vec![batches.to_vec()]).unwrap();
        session.deregister_table("t").unwrap();
        session.register_table("t", Arc::new(table)).unwrap();
        session.sql(query).await.unwrap().create_physical_plan().await.unwrap()
    }

    /// The rows, and how many more hold the text of the third batch when the last but one has come than when all have.
    async fn run(session: &SessionContext, query: &str) -> (RecordBatch, isize) {
        let batches = batches();
        let text = batches[2].column(2).as_string_view().data_buffers()[0].clone();
        let plan = plan(session, &batches, query).await;
        let schema = plan.schema();
        let mut stream = execute_stream(plan, session.task_ctx()).unwrap();
        let mut rows = RecordBatch::new_empty(Arc::clone(&schema));
        let mut late = 0;
        while rows.num_rows() < (BATCHES * ROWS) as usize {
            late = text.strong_count();
            let batch = stream.next().await.unwrap().unwrap();
            let batch = RecordBatch::try_new(Arc::clone(&schema), batch.columns().iter().map(copy).collect()).unwrap();
            rows = concat_batches(&schema, [&rows, &batch]).unwrap();
        }
        drop(stream);
        (rows, late as isize - text.strong_count() as isize)
    }

    /// A copy that shares nothing.
    fn copy(array: &Arc<dyn Array>) -> Arc<dyn Array> {
        array.as_string_view_opt().map_or_else(|| Arc::clone(array), |views| Arc::new(views.gc()))
    }

    #[tokio::test]
    async fn text_of_earlier_batches_is_not_kept_alive() {
        let own = SessionContext::from(session(runtime(None, None).unwrap(), None));
        let plain = SessionContext::new_with_config(SessionConfig::new().with_target_partitions(1));
        let over = "OVER (PARTITION BY k ORDER BY n ROWS UNBOUNDED PRECEDING)";
        let cases = [
            (format!("SELECT k, n, s, avg(n) {over} AS x FROM t"), true),
            (format!("SELECT n, s, avg(n) {over} AS x, count(s) {over} AS y FROM t"), false),
            (format!("SELECT n, s, count(*) FILTER (WHERE s LIKE '%1%') {over} AS x FROM t"), false),
            (format!("SELECT n, avg(n) {over} AS x FROM t"), false),
        ];
        for (query, owns) in cases {
            let text = displayable(plan(&own, &batches(), &query).await.as_ref()).indent(false).to_string();
            assert_eq!(text.contains("LargeUtf8"), owns, "{query}: {text}");
            let ((rows, held), (whole, held_by_plain)) = (run(&own, &query).await, run(&plain, &query).await);
            assert_eq!(rows, whole, "{query}");
            if owns {
                assert!(held_by_plain > held, "{held_by_plain}: DataFusion keeps no text any more, so drop this rule");
            }
        }
    }
}
