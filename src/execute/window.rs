//! Running windows, a batch at a time.

mod function;

use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch};
use arrow::compute::{SortColumn, concat_batches};
use arrow::datatypes::SchemaRef;
use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion::common::utils::{evaluate_partition_ranges, get_row_at_idx};
use datafusion::common::{Result, ScalarValue, Statistics};
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_expr::window::WindowExpr;
use datafusion::physical_expr::{OrderingRequirements, PhysicalExpr};
use datafusion::physical_optimizer::PhysicalOptimizerRule;
use datafusion::physical_plan::statistics::{ChildStats, StatisticsArgs};
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::windows::BoundedWindowAggExec;
use datafusion::physical_plan::{
    ChildrenPropertiesMode, DisplayAs, DisplayFormatType, ExecutionPlan, InputDistributionRequirements, InputOrderMode,
    PlanProperties, ReplaceChildrenOptions,
};
use futures::{StreamExt, TryStreamExt};

use function::{Function, Peers, Rows, function};

/// Computes windows of functions that need only what came before, in the order in which it comes, a batch at a time.
///
/// DataFusion 55 makes a scalar of each function for each row and a batch of each partition, which takes most of the time
/// of a window over small partitions. Here a function is one loop over the rows of a batch, and keeps a number or the
/// last rows of its partition between batches; nothing else is held but the rows that are equal in the window's order
/// to the last one, where a frame ends with its peers. DuckDB has such an operator for windows without partitions
/// (its streaming window).
///
/// A window is computed here if all its functions are: `sum` of `BIGINT`, `DOUBLE` or `DECIMAL`, `count`, `min` and `max` of
/// integers, decimals, dates and timestamps, each from the partition's start to the current row; `row_number`, `rank`,
/// `dense_rank`; `lag` by a constant number of rows, without a default.
#[derive(Debug)]
pub struct RunningWindows;

impl PhysicalOptimizerRule for RunningWindows {
    fn optimize(&self, plan: Arc<dyn ExecutionPlan>, _config: &ConfigOptions) -> Result<Arc<dyn ExecutionPlan>> {
        let running = plan.transform_up(|node| match node.downcast_ref::<BoundedWindowAggExec>() {
            Some(window) if is_running(window)? => {
                Ok(Transformed::yes(Arc::new(RunningWindowExec { window: Arc::new(window.clone()) })))
            }
            _ => Ok(Transformed::no(node)),
        })?;
        Ok(running.data)
    }

    fn name(&self) -> &str {
        "running_windows"
    }

    fn schema_check(&self) -> bool {
        true
    }
}

/// Whether all functions of a window can be computed as they run.
fn is_running(window: &BoundedWindowAggExec) -> Result<bool> {
    let exprs = window.window_expr();
    let has_one_order = exprs
        .iter()
        .all(|expr| expr.partition_by() == exprs[0].partition_by() && expr.order_by() == exprs[0].order_by());
    if window.input_order_mode != InputOrderMode::Sorted || !has_one_order {
        return Ok(false);
    }
    let schema = window.input().schema();
    for expr in exprs {
        if function(expr.as_ref(), &schema)?.is_none() {
            return Ok(false);
        }
    }
    Ok(true)
}

/// A window whose functions are all computed as they run. It is to a plan what the window of DataFusion was.
#[derive(Debug)]
pub struct RunningWindowExec {
    window: Arc<BoundedWindowAggExec>,
}

impl DisplayAs for RunningWindowExec {
    fn fmt_as(&self, format: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<_> = self.window.window_expr().iter().map(|expr| expr.name()).collect();
        match format {
            DisplayFormatType::TreeRender => writeln!(f, "select_list={}", names.join(", ")),
            _ => write!(f, "RunningWindowExec: wdw=[{}]", names.join(", ")),
        }
    }
}

impl ExecutionPlan for RunningWindowExec {
    fn name(&self) -> &'static str {
        "RunningWindowExec"
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        self.window.properties()
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        self.window.children()
    }

    fn apply_expressions(
        &self,
        f: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> Result<TreeNodeRecursion>,
    ) -> Result<TreeNodeRecursion> {
        self.window.apply_expressions(f)
    }

    fn required_input_ordering(&self) -> Vec<Option<OrderingRequirements>> {
        self.window.required_input_ordering()
    }

    fn input_distribution_requirements(&self) -> InputDistributionRequirements {
        self.window.input_distribution_requirements()
    }

    fn maintains_input_order(&self) -> Vec<bool> {
        self.window.maintains_input_order()
    }

    fn replace_children(
        self: Arc<Self>,
        children: Vec<Arc<dyn ExecutionPlan>>,
        options: ReplaceChildrenOptions,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let window = Arc::clone(&self.window).replace_children(children, options)?;
        RunningWindows.optimize(window, &ConfigOptions::default())
    }

    fn with_new_children(self: Arc<Self>, children: Vec<Arc<dyn ExecutionPlan>>) -> Result<Arc<dyn ExecutionPlan>> {
        self.replace_children(children, ReplaceChildrenOptions::new(ChildrenPropertiesMode::Recompute))
    }

    fn execute(&self, partition: usize, context: Arc<TaskContext>) -> Result<SendableRecordBatchStream> {
        let input = self.window.input().execute(partition, context)?;
        let schema = self.window.schema();
        let running = Running::new(&self.window)?;
        let batches = futures::stream::try_unfold((input, Some(running)), |(mut input, running)| async move {
            let Some(mut running) = running else { return Ok(None) };
            loop {
                match input.next().await.transpose()? {
                    Some(batch) => {
                        if let Some(batch) = running.next(batch)? {
                            return Ok(Some((batch, (input, Some(running)))));
                        }
                    }
                    None => return Ok(running.end()?.map(|batch| (batch, (input, None)))),
                }
            }
        });
        Ok(Box::pin(RecordBatchStreamAdapter::new(schema, batches.into_stream())))
    }

    fn child_stats_requests(&self, partition: Option<usize>) -> Vec<ChildStats> {
        self.window.child_stats_requests(partition)
    }

    fn statistics_from_inputs(&self, inputs: &[Arc<Statistics>], args: &StatisticsArgs) -> Result<Arc<Statistics>> {
        self.window.statistics_from_inputs(inputs, args)
    }
}

/// What a window keeps between batches.
struct Running {
    schema: SchemaRef,
    input: SchemaRef,
    exprs: Vec<Arc<dyn WindowExpr>>,
    functions: Vec<Box<dyn Function>>,
    /// What the functions need of a row's peers.
    peers: Peers,
    /// The partition of the last row that was given out, and its place in the order where peers are asked for.
    last: Option<(Vec<ScalarValue>, Vec<ScalarValue>)>,
    /// Peers of the last row that came, where more may come.
    held: Vec<RecordBatch>,
}

impl Running {
    fn new(window: &BoundedWindowAggExec) -> Result<Self> {
        let (exprs, input) = (window.window_expr().to_vec(), window.input().schema());
        let (mut functions, mut peers) = (Vec::new(), Peers::None);
        for expr in &exprs {
            let function = function(expr.as_ref(), &input)?;
            let function = function.expect("only windows of running functions are computed here");
            peers = peers.max(function.peers());
            functions.push(function);
        }
        Ok(Self { schema: window.schema(), input, exprs, functions, peers, last: None, held: Vec::new() })
    }

    /// The rows that can be given out once `batch` has come.
    fn next(&mut self, batch: RecordBatch) -> Result<Option<RecordBatch>> {
        if batch.num_rows() == 0 {
            return Ok(None);
        }
        if self.peers < Peers::Together {
            return self.computed(&batch).map(Some);
        }
        let last_peers = ranges(&[self.partition_by(&batch)?, self.order_by(&batch)?].concat(), batch.num_rows())?
            .pop()
            .map_or(0, |peers| peers.start);
        if last_peers == 0 && self.continues_held(&batch)? {
            self.held.push(batch);
            return Ok(None);
        }
        let mut ready = std::mem::take(&mut self.held);
        ready.push(batch.slice(0, last_peers));
        self.held.push(batch.slice(last_peers, batch.num_rows() - last_peers));
        let ready = concat_batches(&self.input, &ready)?;
        (ready.num_rows() > 0).then(|| self.computed(&ready)).transpose()
    }

    /// The rows that are left when no more come.
    fn end(&mut self) -> Result<Option<RecordBatch>> {
        let ready = concat_batches(&self.input, &std::mem::take(&mut self.held))?;
        (ready.num_rows() > 0).then(|| self.computed(&ready)).transpose()
    }

    /// Whether the first row of `batch` is a peer of those held.
    fn continues_held(&self, batch: &RecordBatch) -> Result<bool> {
        let Some(held) = self.held.last() else { return Ok(true) };
        let row =
            |batch: &RecordBatch, at| get_row_at_idx(&[self.partition_by(batch)?, self.order_by(batch)?].concat(), at);
        Ok(row(held, held.num_rows() - 1)? == row(batch, 0)?)
    }

    fn partition_by(&self, batch: &RecordBatch) -> Result<Vec<ArrayRef>> {
        arrays(self.exprs[0].partition_by().iter(), batch)
    }

    fn order_by(&self, batch: &RecordBatch) -> Result<Vec<ArrayRef>> {
        arrays(self.exprs[0].order_by().iter().map(|order| &order.expr), batch)
    }

    /// `batch` with the functions' columns.
    fn computed(&mut self, batch: &RecordBatch) -> Result<RecordBatch> {
        let mut keys = self.partition_by(batch)?;
        let partitions = ranges(&keys, batch.num_rows())?;
        let first = get_row_at_idx(&keys, 0)?;
        let last = get_row_at_idx(&keys, batch.num_rows() - 1)?;
        let (mut peers, mut first_of_order, mut last_of_order) = (Vec::new(), Vec::new(), Vec::new());
        if self.peers > Peers::None {
            let order = self.order_by(batch)?;
            first_of_order = get_row_at_idx(&order, 0)?;
            last_of_order = get_row_at_idx(&order, batch.num_rows() - 1)?;
            keys.extend(order);
            peers = ranges(&keys, batch.num_rows())?;
        }
        let before = self.last.replace((last, last_of_order));
        let before = before.filter(|(partition, _)| *partition == first);
        let continues = before.is_some();
        let peers_continue = before.is_some_and(|(_, order)| order == first_of_order);
        let rows = Rows { count: batch.num_rows(), partitions, peers, continues, peers_continue };
        let mut columns = batch.columns().to_vec();
        for (function, expr) in self.functions.iter_mut().zip(&self.exprs) {
            let values = arrays(expr.expressions().iter(), batch)?;
            columns.push(function.next(values.first(), &rows)?);
        }
        Ok(RecordBatch::try_new(Arc::clone(&self.schema), columns)?)
    }
}

fn arrays<'a>(exprs: impl Iterator<Item = &'a Arc<dyn PhysicalExpr>>, batch: &RecordBatch) -> Result<Vec<ArrayRef>> {
    exprs.map(|expr| expr.evaluate(batch)?.into_array(batch.num_rows())).collect()
}

/// The runs of rows that are equal in all `columns`.
fn ranges(columns: &[ArrayRef], rows: usize) -> Result<Vec<Range<usize>>> {
    let columns: Vec<_> =
        columns.iter().map(|values| SortColumn { values: Arc::clone(values), options: None }).collect();
    evaluate_partition_ranges(rows, &columns)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{ArrayRef, Decimal128Array, Int64Array, RecordBatch, StringViewArray, UInt64Array};
    use arrow::compute::{cast, concat_batches};
    use arrow::datatypes::DataType;
    use datafusion::catalog::MemTable;
    use datafusion::physical_plan::{collect, displayable};
    use datafusion::prelude::{SessionConfig, SessionContext};
    use xxhash_rust::xxh3::xxh3_64_with_seed;

    use crate::execute::session::{runtime, session};

    /// Rows in batches of `batch_rows`: a partition `k` of some rows, an order `o` with peers, a total order `n` and values,
    /// all but `n` sometimes NULL.
    fn batches(seed: u64, rows: usize, batch_rows: usize, partitions: u32) -> Vec<RecordBatch> {
        let random =
            |column: u64, row: usize| xxh3_64_with_seed(&(row as u64).to_le_bytes(), seed * 10 + column) as i64;
        let some = |column: u64, range: std::ops::Range<i64>| -> Vec<Option<i64>> {
            let value = |row| range.start + random(column, row).rem_euclid(range.end - range.start);
            (0..rows).map(|row| (random(9, row + column as usize) % 5 != 0).then(|| value(row))).collect()
        };
        let integers = |values: Vec<Option<i64>>| Arc::new(arrow::array::Int64Array::from(values)) as ArrayRef;
        let (k, o, x) = (some(1, 0..i64::from(partitions)), some(2, 0..9), some(3, -99..99));
        let n = (0..rows as i64).map(Some).collect();
        let text: StringViewArray = x.iter().map(|x| x.map(|x| format!("some text for the value of {x}"))).collect();
        let x = integers(x);
        let columns = [
            ("k", integers(k)),
            ("o", integers(o)),
            ("n", integers(n)),
            ("u", cast(&x, &DataType::UInt16).unwrap()),
            ("d", cast(&x, &DataType::Decimal128(15, 2)).unwrap()),
            ("f", cast(&x, &DataType::Float64).unwrap()),
            ("t", cast(&x, &DataType::Date32).unwrap()),
            ("s", Arc::new(text) as ArrayRef),
            ("x", x),
        ];
        let all = RecordBatch::try_from_iter(columns).unwrap();
        (0..rows).step_by(batch_rows).map(|at| all.slice(at, batch_rows.min(rows - at))).collect()
    }

    async fn rows(session: &SessionContext, batches: &[RecordBatch], query: &str) -> (RecordBatch, String) {
        let table = MemTable::try_new(batches[0].schema(), vec![batches.to_vec()]).unwrap();
        session.deregister_table("t").unwrap();
        session.register_table("t", Arc::new(table)).unwrap();
        let plan = session.sql(query).await.unwrap().create_physical_plan().await.unwrap();
        let text = displayable(plan.as_ref()).indent(false).to_string();
        let schema = plan.schema();
        (concat_batches(&schema, &collect(plan, session.task_ctx()).await.unwrap()).unwrap(), text)
    }

    fn sessions(batch_rows: usize) -> [SessionContext; 2] {
        let config = SessionConfig::new().with_target_partitions(1).with_batch_size(batch_rows);
        let mut own = session(runtime(None, None).unwrap(), None);
        own.config_mut().options_mut().execution.batch_size = config.options().execution.batch_size;
        [SessionContext::from(own), SessionContext::new_with_config(config)]
    }

    #[tokio::test]
    async fn running_windows_give_what_datafusion_gives() {
        let calls = [
            "sum(x)", "sum(u)", "sum(d)", "sum(f)", "count(*)", "count(x)", "count(s)", "min(x)", "max(u)", "max(d)",
            "min(t)", "max(t)",
        ];
        let standard =
            ["row_number()", "lag(x)", "lag(s)", "lag(d, 3)", "lag(f, 100)", "rank()", "dense_rank()", "lag(x + 1, 2)"];
        let over = ["PARTITION BY k ORDER BY n", "PARTITION BY k, o ORDER BY n DESC", "ORDER BY n"];
        for (seed, (batch_rows, partitions)) in [(1, 1), (3, 2), (7, 40), (64, 3), (1000, 5)].into_iter().enumerate() {
            let (data, [own, plain]) = (batches(seed as u64, 300, batch_rows, partitions), sessions(batch_rows));
            for over in over {
                let mut columns: Vec<String> = standard.iter().map(|call| format!("{call} OVER ({over})")).collect();
                for frame in ["ROWS UNBOUNDED PRECEDING", "", "GROUPS UNBOUNDED PRECEDING"] {
                    columns.extend(calls.iter().map(|call| format!("{call} OVER ({over} {frame})")));
                }
                let columns: Vec<_> = columns.iter().enumerate().map(|(at, call)| format!("{call} AS c{at}")).collect();
                let query = format!("SELECT n, s, {} FROM t ORDER BY n", columns.join(", "));
                let ((rows, text), (expected, _)) =
                    (self::rows(&own, &data, &query).await, self::rows(&plain, &data, &query).await);
                assert!(text.contains("RunningWindowExec") && !text.contains("BoundedWindowAggExec"), "{text}");
                assert_eq!(rows, expected, "batches of {batch_rows}, {query}");
            }
        }
    }

    #[tokio::test]
    async fn peers_get_one_value_wherever_batches_end() {
        let aggregates = ["sum(x)", "sum(d)", "count(x)", "max(t)", "min(u)", "rank()", "dense_rank()"];
        for (seed, (batch_rows, partitions)) in [(1, 1), (2, 3), (5, 20), (50, 1), (1000, 2)].into_iter().enumerate() {
            let (data, [own, plain]) = (batches(seed as u64, 500, batch_rows, partitions), sessions(batch_rows));
            for over in ["PARTITION BY k ORDER BY o", "PARTITION BY k ORDER BY o DESC NULLS LAST", "ORDER BY o"] {
                for calls in [&aggregates[..], &["rank()", "dense_rank()"]] {
                    let columns: Vec<_> =
                        calls.iter().enumerate().map(|(at, call)| format!("{call} OVER ({over}) AS c{at}")).collect();
                    let query = format!("SELECT n, {} FROM t ORDER BY n", columns.join(", "));
                    let ((rows, text), (expected, _)) =
                        (self::rows(&own, &data, &query).await, self::rows(&plain, &data, &query).await);
                    assert!(text.contains("RunningWindowExec") && !text.contains("BoundedWindowAggExec"), "{text}");
                    assert_eq!(rows, expected, "batches of {batch_rows}, {query}");
                }
            }
        }
    }

    #[tokio::test]
    async fn other_windows_are_left_to_datafusion() {
        let (data, [own, plain]) = (batches(1, 300, 16, 7), sessions(16));
        let over = "PARTITION BY k ORDER BY n";
        let others = [
            format!("lead(x) OVER ({over})"),
            format!("lag(x, 1, 0) OVER ({over})"),
            format!("lag(x, -1) OVER ({over})"),
            format!("lag(x) IGNORE NULLS OVER ({over})"),
            format!("sum(x) FILTER (WHERE u > 3) OVER ({over})"),
            format!("sum(x) OVER ({over} ROWS BETWEEN 2 PRECEDING AND CURRENT ROW)"),
            format!("sum(x) OVER ({over} ROWS BETWEEN UNBOUNDED PRECEDING AND 1 FOLLOWING)"),
            format!("max(f) OVER ({over})"),
            format!("max(s) OVER ({over})"),
            format!("avg(x) OVER ({over})"),
            format!("first_value(x) OVER ({over})"),
            "sum(x) OVER (PARTITION BY k)".to_owned(),
        ];
        for call in others {
            let query = format!("SELECT n, {call} AS c FROM t ORDER BY n");
            let ((rows, text), (expected, _)) =
                (self::rows(&own, &data, &query).await, self::rows(&plain, &data, &query).await);
            assert!(!text.contains("RunningWindowExec"), "{text}");
            assert_eq!(rows, expected, "{query}");
        }
    }

    #[tokio::test]
    async fn empty_inputs_give_no_rows() {
        let [own, plain] = sessions(4);
        let data = batches(1, 5, 4, 2);
        for from in ["t WHERE n > 7 AND n < 7", "(SELECT n FROM t LIMIT 0) t"] {
            let query = format!("SELECT n, sum(n) OVER (ORDER BY n), lag(n) OVER (ORDER BY n) FROM {from}");
            assert_eq!(rows(&own, &data, &query).await.0, rows(&plain, &data, &query).await.0, "{query}");
        }
    }

    /// `sum(x) OVER (ORDER BY o)` by row and with peers, of rows `(o, x)`; `None` where it does not fit.
    async fn running_sums(values: &ArrayRef, frame: &str) -> Option<ArrayRef> {
        let [own, _] = sessions(2);
        let order: ArrayRef = Arc::new(UInt64Array::from(vec![1, 2, 2, 2, 3]));
        let data = RecordBatch::try_from_iter([("o", order), ("x", Arc::clone(values))]).unwrap();
        let table = MemTable::try_new(data.schema(), vec![vec![data.slice(0, 2), data.slice(2, 3)]]).unwrap();
        own.register_table("t", Arc::new(table)).unwrap();
        let query =
            format!("SELECT sum(x) OVER (ORDER BY o {frame} BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW) FROM t");
        let plan = own.sql(&query).await.unwrap().create_physical_plan().await.unwrap();
        assert!(displayable(plan.as_ref()).indent(false).to_string().contains("RunningWindowExec"));
        let schema = plan.schema();
        match collect(plan, own.task_ctx()).await {
            Ok(batches) => Some(Arc::clone(concat_batches(&schema, &batches).unwrap().column(0))),
            Err(error) => {
                assert!(error.to_string().contains("a sum does not fit"), "{error}");
                None
            }
        }
    }

    #[tokio::test]
    async fn a_sum_fails_only_where_that_of_a_rows_frame_does_not_fit() {
        let (max, most) = (i64::MAX, 10_i128.pow(38) - 1);
        let integers = |values: [Option<i64>; 5]| Arc::new(Int64Array::from(values.to_vec())) as ArrayRef;
        let decimals = |values: [i128; 5]| {
            let values = Decimal128Array::from(values.to_vec()).with_precision_and_scale(38, 2).unwrap();
            Arc::new(values) as ArrayRef
        };
        let fitting = integers([Some(max), Some(-1), Some(1), None, Some(-max)]);
        let sums = integers([Some(max), Some(max - 1), Some(max), Some(max), Some(0)]);
        assert_eq!(running_sums(&fitting, "ROWS").await, Some(sums));
        // What peers add and take away again is no row's sum.
        let by_peers = integers([Some(max), Some(1), Some(-1), None, Some(0)]);
        let sums = integers([Some(max); 5]);
        assert_eq!(running_sums(&by_peers, "RANGE").await, Some(sums));
        assert_eq!(running_sums(&by_peers, "ROWS").await, None);
        assert_eq!(running_sums(&integers([Some(max), Some(0), Some(1), None, Some(-1)]), "RANGE").await, None);
        let by_peers = decimals([most, 1, -1, 0, -most]);
        assert_eq!(running_sums(&by_peers, "RANGE").await, Some(decimals([most, most, most, most, 0])));
        assert_eq!(running_sums(&by_peers, "ROWS").await, None);
        let unsigned: ArrayRef = Arc::new(UInt64Array::from(vec![u64::MAX, 0, 0, 1, 0]));
        assert_eq!(running_sums(&unsigned, "ROWS").await, None);
    }
}
