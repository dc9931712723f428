//! Windows, a batch or a partition at a time.

mod function;
mod held;
mod partitions;
mod running;

use std::collections::VecDeque;
use std::fmt;
use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch};
use arrow::compute::SortColumn;
use arrow::datatypes::SchemaRef;
use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion::common::utils::evaluate_partition_ranges;
use datafusion::common::{Result, Statistics};
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_expr::window::WindowExpr;
use datafusion::physical_expr::{OrderingRequirements, PhysicalExpr};
use datafusion::physical_optimizer::PhysicalOptimizerRule;
use datafusion::physical_plan::statistics::{ChildStats, StatisticsArgs};
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::windows::{BoundedWindowAggExec, WindowAggExec};
use datafusion::physical_plan::{
    ChildrenPropertiesMode, DisplayAs, DisplayFormatType, ExecutionPlan, InputDistributionRequirements, InputOrderMode,
    PlanProperties, ReplaceChildrenOptions,
};
use futures::{StreamExt, TryStreamExt};

use function::{Function, Step, function};
use held::Ready;
use partitions::Partitions;
use running::Running;

/// Computes windows in place of DataFusion, which holds all rows of a window whose frames reach to the partition's end,
/// and reserves no memory for them.
///
/// *Running*: functions that need only what came before, in the order in which it comes, and those that have one value
/// for all rows of a group: rows that are equal in the window's order, or a partition. Each function is one loop over
/// the rows of a batch and keeps what it needs between batches. DataFusion 55 makes a scalar of each function for each
/// row and a batch of each partition, which takes most of the time of a window over small partitions. Rows of a group
/// that goes on are held, on disk where they don't fit in memory. DuckDB has such an operator for windows without
/// partitions (its streaming window).
///
/// A window is running if all its functions are:
/// - `row_number`, `rank`, `dense_rank`; `lag` by a constant number of rows, without a default;
/// - from the partition's start to the current row: `sum` of `BIGINT`, `DOUBLE` or `DECIMAL`, `count`, and `min` and
///   `max` of integers, decimals, dates and timestamps;
/// - from there to the last row that is equal in the order, or else to the partition's end: any aggregate.
///
/// *By partitions*: others of which a frame reaches to the partition's end, with one partition in memory, which is
/// reserved.
#[derive(Debug)]
pub struct OwnWindows;

impl PhysicalOptimizerRule for OwnWindows {
    fn optimize(&self, plan: Arc<dyn ExecutionPlan>, _config: &ConfigOptions) -> Result<Arc<dyn ExecutionPlan>> {
        let own = plan.transform_up(|node| match own(&node)? {
            Some(window) => Ok(Transformed::yes(Arc::new(window))),
            None => Ok(Transformed::no(node)),
        })?;
        Ok(own.data)
    }

    fn name(&self) -> &str {
        "own_windows"
    }

    fn schema_check(&self) -> bool {
        true
    }
}

/// The window of ours that does what one of DataFusion's does; `None` where it does that better.
fn own(node: &Arc<dyn ExecutionPlan>) -> Result<Option<OwnWindowExec>> {
    let (exprs, input, is_sorted, is_bounded) = if let Some(window) = node.downcast_ref::<BoundedWindowAggExec>() {
        (window.window_expr(), window.input(), window.input_order_mode == InputOrderMode::Sorted, true)
    } else if let Some(window) = node.downcast_ref::<WindowAggExec>() {
        (window.window_expr(), window.input(), true, false)
    } else {
        return Ok(None);
    };
    let has_one_order = exprs
        .iter()
        .all(|expr| expr.partition_by() == exprs[0].partition_by() && expr.order_by() == exprs[0].order_by());
    if !is_sorted || !has_one_order {
        return Ok(None);
    }
    let way = match functions(exprs, &input.schema())? {
        Some(_) => Way::Running,
        None if is_bounded => return Ok(None),
        None => Way::ByPartitions,
    };
    Ok(Some(OwnWindowExec { exprs: exprs.to_vec(), input: Arc::clone(input), way, window: Arc::clone(node) }))
}

/// The functions of a window that is running; `None` for another.
fn functions(exprs: &[Arc<dyn WindowExpr>], input: &SchemaRef) -> Result<Option<Vec<Box<dyn Function>>>> {
    let mut functions = Vec::new();
    for expr in exprs {
        let Some(function) = function(expr.as_ref(), input)? else { return Ok(None) };
        functions.push(function);
    }
    // Rows are held for groups of one kind.
    let mut groups = functions.iter().map(|function| function.step()).filter(|step| *step != Step::Row);
    let first = groups.next();
    Ok(groups.all(|step| Some(step) == first).then_some(functions))
}

/// How a window is computed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    Running,
    ByPartitions,
}

/// A window that is computed here. It is to a plan what the window of DataFusion was.
#[derive(Debug)]
pub struct OwnWindowExec {
    exprs: Vec<Arc<dyn WindowExpr>>,
    input: Arc<dyn ExecutionPlan>,
    way: Way,
    /// DataFusion's.
    window: Arc<dyn ExecutionPlan>,
}

impl DisplayAs for OwnWindowExec {
    fn fmt_as(&self, format: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<_> = self.exprs.iter().map(|expr| expr.name()).collect();
        match format {
            DisplayFormatType::TreeRender => writeln!(f, "select_list={}", names.join(", ")),
            _ => write!(f, "{}: wdw=[{}]", self.name(), names.join(", ")),
        }
    }
}

impl ExecutionPlan for OwnWindowExec {
    fn name(&self) -> &'static str {
        match self.way {
            Way::Running => "RunningWindowExec",
            Way::ByPartitions => "PartitionWindowExec",
        }
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
        Ok(match own(&window)? {
            Some(own) => Arc::new(own),
            None => window,
        })
    }

    fn with_new_children(self: Arc<Self>, children: Vec<Arc<dyn ExecutionPlan>>) -> Result<Arc<dyn ExecutionPlan>> {
        self.replace_children(children, ReplaceChildrenOptions::new(ChildrenPropertiesMode::Recompute))
    }

    fn execute(&self, partition: usize, context: Arc<TaskContext>) -> Result<SendableRecordBatchStream> {
        let input = self.input.execute(partition, Arc::clone(&context))?;
        let (schema, of_input) = (self.schema(), self.input.schema());
        let rows: Box<dyn Rows> = match self.way {
            Way::Running => Box::new(Running::new(&self.exprs, &of_input, &schema, &context)?),
            Way::ByPartitions => Box::new(Partitions::new(&self.exprs, &of_input, &schema, &context)),
        };
        let stream = Streaming { input: Some(input), rows, ready: VecDeque::new() };
        let batches = futures::stream::try_unfold(stream, |mut stream| async move {
            Ok(stream.next().await?.map(|batch| (batch, stream)))
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

/// What takes rows and gives them out with the window's columns.
trait Rows: Send {
    /// Takes a batch, and gives out what is ready.
    fn next(&mut self, batch: RecordBatch, ready: &mut VecDeque<Ready>) -> Result<()>;

    /// Gives out what is left when no more rows come.
    fn end(&mut self, ready: &mut VecDeque<Ready>) -> Result<()>;
}

/// A window under way.
struct Streaming {
    /// `None` once it has ended.
    input: Option<SendableRecordBatchStream>,
    rows: Box<dyn Rows>,
    ready: VecDeque<Ready>,
}

impl Streaming {
    async fn next(&mut self) -> Result<Option<RecordBatch>> {
        loop {
            while let Some(ready) = self.ready.front_mut() {
                match ready.next().await? {
                    Some(batch) => return Ok(Some(batch)),
                    None => self.ready.pop_front(),
                };
            }
            let Some(input) = &mut self.input else { return Ok(None) };
            match input.next().await.transpose()? {
                Some(batch) if batch.num_rows() == 0 => {}
                Some(batch) => self.rows.next(batch, &mut self.ready)?,
                None => {
                    // What is below gives back its memory.
                    self.input = None;
                    self.rows.end(&mut self.ready)?;
                }
            }
        }
    }
}

fn arrays<'a>(exprs: impl Iterator<Item = &'a Arc<dyn PhysicalExpr>>, batch: &RecordBatch) -> Result<Vec<ArrayRef>> {
    exprs.map(|expr| expr.evaluate(batch)?.into_array(batch.num_rows())).collect()
}

/// The runs of rows that are equal in all `columns`.
fn ranges(columns: &[ArrayRef], rows: usize) -> Result<Vec<std::ops::Range<usize>>> {
    let columns: Vec<_> =
        columns.iter().map(|values| SortColumn { values: Arc::clone(values), options: None }).collect();
    evaluate_partition_ranges(rows, &columns)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{ArrayRef, Decimal128Array, Int64Array, RecordBatch, StringViewArray, UInt64Array};
    use arrow::compute::{SortColumn, cast, concat_batches};
    use arrow::datatypes::DataType;
    use datafusion::catalog::MemTable;
    use datafusion::common::utils::memory::get_record_batch_memory_size;
    use datafusion::physical_plan::{collect, displayable};
    use datafusion::prelude::{SessionConfig, SessionContext};
    use xxhash_rust::xxh3::xxh3_64_with_seed;

    use crate::execute::memory::without_shared_views;
    use crate::execute::session::{runtime, session};

    /// Rows in batches of `batch_rows`: a partition `k` of some rows, an order `o` with peers, a total order `n` and
    /// values, all but `n` sometimes NULL.
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

    /// Checks that a query has the rows that plain DataFusion gives, and gives its plan in words.
    async fn plan_with_right_rows(sessions: &[SessionContext; 2], batches: &[RecordBatch], query: &str) -> String {
        let [own, plain] = sessions;
        let ((found, text), (expected, _)) = (rows(own, batches, query).await, rows(plain, batches, query).await);
        assert_eq!(found, expected, "{query}: {text}");
        text
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
            let (data, sessions) = (batches(seed as u64, 300, batch_rows, partitions), sessions(batch_rows));
            for over in over {
                let mut columns: Vec<String> = standard.iter().map(|call| format!("{call} OVER ({over})")).collect();
                for frame in ["ROWS UNBOUNDED PRECEDING", "", "GROUPS UNBOUNDED PRECEDING"] {
                    columns.extend(calls.iter().map(|call| format!("{call} OVER ({over} {frame})")));
                }
                let columns: Vec<_> = columns.iter().enumerate().map(|(at, call)| format!("{call} AS c{at}")).collect();
                let query = format!("SELECT n, s, {} FROM t ORDER BY n", columns.join(", "));
                let text = plan_with_right_rows(&sessions, &data, &query).await;
                assert!(text.contains("RunningWindowExec") && !text.contains("BoundedWindowAggExec"), "{text}");
            }
        }
    }

    #[tokio::test]
    async fn peers_get_one_value_wherever_batches_end() {
        let aggregates = ["sum(x)", "sum(d)", "count(x)", "max(t)", "min(u)", "rank()", "dense_rank()"];
        for (seed, (batch_rows, partitions)) in [(1, 1), (2, 3), (5, 20), (50, 1), (1000, 2)].into_iter().enumerate() {
            let (data, sessions) = (batches(seed as u64, 500, batch_rows, partitions), sessions(batch_rows));
            for over in ["PARTITION BY k ORDER BY o", "PARTITION BY k ORDER BY o DESC NULLS LAST", "ORDER BY o"] {
                for calls in [&aggregates[..], &["rank()", "dense_rank()"]] {
                    let columns: Vec<_> =
                        calls.iter().enumerate().map(|(at, call)| format!("{call} OVER ({over}) AS c{at}")).collect();
                    let query = format!("SELECT n, {} FROM t ORDER BY n", columns.join(", "));
                    let text = plan_with_right_rows(&sessions, &data, &query).await;
                    assert!(text.contains("RunningWindowExec") && !text.contains("BoundedWindowAggExec"), "{text}");
                }
            }
        }
    }

    #[tokio::test]
    async fn other_windows_are_left_to_datafusion() {
        let (data, sessions) = (batches(1, 300, 16, 7), sessions(16));
        let over = "PARTITION BY k ORDER BY n";
        let others = [
            format!("lead(x) OVER ({over})"),
            format!("lag(x, 1, 0) OVER ({over})"),
            format!("lag(x, -1) OVER ({over})"),
            format!("lag(x) IGNORE NULLS OVER ({over})"),
            format!("sum(x) FILTER (WHERE u > 3) OVER ({over})"),
            format!("sum(x) OVER ({over} ROWS BETWEEN 2 PRECEDING AND CURRENT ROW)"),
            format!("sum(x) OVER ({over} ROWS BETWEEN UNBOUNDED PRECEDING AND 1 FOLLOWING)"),
        ];
        for call in others {
            let query = format!("SELECT n, {call} AS c FROM t ORDER BY n");
            let text = plan_with_right_rows(&sessions, &data, &query).await;
            assert!(text.contains("BoundedWindowAggExec"), "{text}");
        }
    }

    #[tokio::test]
    async fn groups_have_the_value_of_any_aggregate() {
        let calls = [
            "sum(x)",
            "count(*)",
            "count(s)",
            "max(d)",
            "max(s)",
            "min(f)",
            "avg(d)",
            "stddev(u)",
            "count(DISTINCT x)",
            "median(x)",
            "bool_and(x > 0)",
            "covar_pop(x, u)",
            "array_agg(x)",
            "string_agg(s, ',')",
        ];
        let overs = [
            "",
            "PARTITION BY k",
            "PARTITION BY k, o",
            "PARTITION BY k ORDER BY n ROWS BETWEEN UNBOUNDED PRECEDING AND UNBOUNDED FOLLOWING",
        ];
        for (seed, (batch_rows, partitions)) in [(1, 2), (4, 1), (7, 40), (1000, 5)].into_iter().enumerate() {
            let (data, sessions) = (batches(seed as u64, 200, batch_rows, partitions), sessions(batch_rows));
            for over in overs {
                let columns: Vec<_> =
                    calls.iter().enumerate().map(|(at, call)| format!("{call} OVER ({over}) AS c{at}")).collect();
                let query =
                    format!("SELECT n, s, {} FROM (SELECT * FROM t ORDER BY n) t ORDER BY n", columns.join(", "));
                let text = plan_with_right_rows(&sessions, &data, &query).await;
                assert!(text.contains("RunningWindowExec") && !text.contains(" WindowAggExec"), "{text}");
            }
            for call in ["avg(x)", "max(s)", "max(f)", "count(DISTINCT u)", "array_agg(o)"] {
                let query = format!(
                    "SELECT n, {call} OVER (PARTITION BY k ORDER BY o), rank() OVER (PARTITION BY k ORDER BY o) FROM t ORDER BY n"
                );
                let text = plan_with_right_rows(&sessions, &data, &query).await;
                assert!(text.contains("RunningWindowExec") && !text.contains("BoundedWindowAggExec"), "{text}");
            }
        }
    }

    #[tokio::test]
    async fn other_frames_to_the_end_are_computed_by_partitions() {
        let ordered = "PARTITION BY k ORDER BY n";
        let calls = [
            format!("ntile(3) OVER ({ordered}), sum(x) OVER ({ordered})"),
            format!("percent_rank() OVER ({ordered}), cume_dist() OVER (PARTITION BY k ORDER BY o)"),
            format!("last_value(x) OVER ({ordered} ROWS BETWEEN UNBOUNDED PRECEDING AND UNBOUNDED FOLLOWING)"),
            format!(
                "sum(x) OVER ({ordered} ROWS BETWEEN CURRENT ROW AND UNBOUNDED FOLLOWING), count(x) OVER ({ordered})"
            ),
            "sum(x) FILTER (WHERE u > 3) OVER (PARTITION BY k)".to_owned(),
            "cume_dist() OVER (ORDER BY n)".to_owned(),
            format!(
                "sum(x) OVER ({ordered}), sum(x) OVER ({ordered} RANGE BETWEEN UNBOUNDED PRECEDING AND UNBOUNDED FOLLOWING)"
            ),
        ];
        for (seed, (batch_rows, partitions)) in [(1, 2), (7, 20), (1000, 5)].into_iter().enumerate() {
            let (data, sessions) = (batches(seed as u64, 100, batch_rows, partitions), sessions(batch_rows));
            for call in &calls {
                let query = format!("SELECT n, s, {call} FROM t ORDER BY n");
                let text = plan_with_right_rows(&sessions, &data, &query).await;
                assert!(text.contains("PartitionWindowExec") && !text.contains(" WindowAggExec"), "{text}");
            }
        }
    }

    #[tokio::test]
    async fn rows_that_wait_for_their_group_are_held_on_disk_where_memory_ends() {
        // A slice takes as many bytes as what it is a slice of.
        let own = |batch: RecordBatch| {
            let all = UInt64Array::from_iter_values(0..batch.num_rows() as u64);
            let rows = arrow::compute::take_record_batch(&batch, &all).unwrap();
            let columns = rows.columns().iter().map(|column| without_shared_views(column).unwrap()).collect();
            RecordBatch::try_new(rows.schema(), columns).unwrap()
        };
        let data: Vec<_> = batches(1, 200_000, 4096, 2).into_iter().map(own).collect();
        let queries = [
            "SELECT n, sum(x) OVER () AS a, max(s) OVER () AS b, row_number() OVER () AS c FROM t",
            "SELECT n, s, sum(x) OVER (PARTITION BY k) AS a, count(*) OVER (PARTITION BY k) AS b FROM t",
            "SELECT n, s, avg(x) OVER (ORDER BY k) AS a, rank() OVER (ORDER BY k) AS b FROM t",
        ];
        let bytes: usize = data.iter().map(get_record_batch_memory_size).sum();
        assert!(bytes > 6 << 20, "{bytes} bytes fit in memory");
        let [_, plain] = sessions(4096);
        for query in queries {
            let folder = tempfile::tempdir().unwrap();
            let mut state = session(runtime(Some(6 << 20), Some(folder.path())).unwrap(), None);
            let options = state.config_mut().options_mut();
            options.execution.sort_spill_reservation_bytes = 1 << 20;
            options.execution.batch_size = plain.copied_config().options().execution.batch_size;
            let own = SessionContext::from(state);
            let sorted = |rows: &RecordBatch| {
                let by = SortColumn { values: Arc::clone(rows.column(0)), options: None };
                let order = arrow::compute::lexsort_to_indices(&[by], None).unwrap();
                arrow::compute::take_record_batch(rows, &order).unwrap()
            };
            let (rows, _) = rows(&own, &data, query).await;
            let (expected, _) = self::rows(&plain, &data, query).await;
            assert!(own.runtime_env().memory_pool.reserved() == 0, "{query}");
            let (rows, expected) = (sorted(&rows), sorted(&expected));
            // Without an order a row's number is any.
            let columns: Vec<usize> = (0..rows.num_columns() - usize::from(query.contains("row_number"))).collect();
            assert_eq!(rows.project(&columns).unwrap(), expected.project(&columns).unwrap(), "{query}");
        }
    }

    #[tokio::test]
    async fn rows_without_columns_have_windows() {
        let data = batches(1, 100, 30, 2);
        let sessions = sessions(30);
        for call in ["count(*) OVER ()", "row_number() OVER (), count(*) OVER ()", "ntile(4) OVER (), sum(1) OVER ()"] {
            let query = format!("SELECT {call} FROM t");
            let text = plan_with_right_rows(&sessions, &data, &query).await;
            assert!(text.contains("RunningWindowExec") || text.contains("PartitionWindowExec"), "{text}");
        }
    }

    #[tokio::test]
    async fn empty_inputs_give_no_rows() {
        let sessions = sessions(4);
        let data = batches(1, 5, 4, 2);
        for from in ["t WHERE n > 7 AND n < 7", "(SELECT n FROM t LIMIT 0) t"] {
            let query = format!("SELECT n, sum(n) OVER (ORDER BY n), lag(n) OVER (ORDER BY n) FROM {from}");
            plan_with_right_rows(&sessions, &data, &query).await;
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
