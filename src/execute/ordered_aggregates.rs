//! Lists of values in an order, in bounded memory.

use std::sync::Arc;

use arrow::compute::SortOptions;
use datafusion::common::Result;
use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::physical_expr::aggregate::{AggregateExprBuilder, AggregateFunctionExpr};
use datafusion::physical_expr::{LexOrdering, PhysicalExpr, PhysicalSortExpr};
use datafusion::physical_optimizer::PhysicalOptimizerRule;
use datafusion::physical_plan::aggregates::{AggregateExec, AggregateMode};
use datafusion::physical_plan::sorts::sort::SortExec;
use datafusion::physical_plan::{ExecutionPlan, ExecutionPlanProperties};

use crate::plan::partitionable::is_rounded;

/// Sorts the rows below `array_agg(… ORDER BY …)` and `string_agg(… ORDER BY …)` by groups, then by that order.
///
/// DataFusion 55 keeps a scalar of each value and each sort key and puts them in order at the end, which took 48 s and
/// 1.3 GiB for 1.5 million values of one group. A sort spills, and one group at a time has its values in arrays.
///
/// It must come after DataFusion's rules, which leave out sorts that no operator asks for.
#[derive(Debug)]
pub struct SortedLists;

impl PhysicalOptimizerRule for SortedLists {
    fn optimize(&self, plan: Arc<dyn ExecutionPlan>, _config: &ConfigOptions) -> Result<Arc<dyn ExecutionPlan>> {
        let sorted = plan.transform_up(|node| match node.downcast_ref::<AggregateExec>() {
            Some(aggregate) => Ok(match over_sorted(aggregate)? {
                Some(sorted) => Transformed::yes(Arc::new(sorted) as Arc<dyn ExecutionPlan>),
                None => Transformed::no(node),
            }),
            None => Ok(Transformed::no(node)),
        })?;
        Ok(sorted.data)
    }

    fn name(&self) -> &str {
        "sorted_lists"
    }

    fn schema_check(&self) -> bool {
        true
    }
}

/// Whether an aggregate makes lists in an order.
pub fn makes_ordered_lists(aggregate: &AggregateExec) -> bool {
    aggregate.aggr_expr().iter().any(|call| is_ordered_list(call))
}

fn is_ordered_list(call: &AggregateFunctionExpr) -> bool {
    ["array_agg", "string_agg"].contains(&call.fun().name()) && !call.order_bys().is_empty() && !call.is_distinct()
}

/// The order that a call asks for; where rows come the other way round, DataFusion has turned it.
fn order(call: &AggregateFunctionExpr) -> Vec<PhysicalSortExpr> {
    let by = call.order_bys().iter().cloned();
    match call.is_reversed() {
        true => by.map(|key| PhysicalSortExpr::new(key.expr, !key.options)).collect(),
        false => by.collect(),
    }
}

/// The aggregate over sorted rows, if it makes lists and all of them in one order.
fn over_sorted(aggregate: &AggregateExec) -> Result<Option<AggregateExec>> {
    let is_single = matches!(aggregate.mode(), AggregateMode::Single | AggregateMode::SinglePartitioned);
    let ordered: Vec<_> = aggregate.aggr_expr().iter().filter(|call| !call.order_bys().is_empty()).collect();
    let Some(first) = ordered.first() else { return Ok(None) };
    let by_order = order(first);
    let is_one_order = ordered.iter().all(|call| is_ordered_list(call) && order(call) == by_order);
    // Those without an order have that in which the rows come.
    let reads_order = |call: &AggregateFunctionExpr| {
        let by_order = ["array_agg", "string_agg", "first_value", "last_value", "nth_value", "any_value"];
        call.order_bys().is_empty() && by_order.contains(&call.fun().name())
    };
    if !is_single || !is_one_order || aggregate.aggr_expr().iter().any(|call| reads_order(call)) {
        return Ok(None);
    }
    let groups = aggregate.group_expr();
    // Each grouping set has groups of its own, and rows of one group may have -0.0 and 0.0, which a sort tells apart.
    let has_zeros = |key: &Arc<dyn PhysicalExpr>| key.data_type(&aggregate.input_schema()).map(|of| is_rounded(&of));
    let keys_have_zeros = groups.input_exprs().iter().map(has_zeros).collect::<Result<Vec<_>>>()?.contains(&true);
    let by_group = match groups.has_grouping_set() || keys_have_zeros {
        true => Vec::new(),
        false => groups.input_exprs(),
    };
    let by_group = by_group.into_iter().map(|key| PhysicalSortExpr::new(key, SortOptions::default()));
    let Some(order) = LexOrdering::new(by_group.chain(by_order)) else { return Ok(None) };
    let mut input = Arc::clone(aggregate.input());
    if !input.equivalence_properties().ordering_satisfy(order.clone())? {
        input = Arc::new(SortExec::new(order, input).with_preserve_partitioning(true));
    }
    let calls = aggregate.aggr_expr().iter().map(|call| match is_ordered_list(call) {
        true => AggregateExprBuilder::new(Arc::new(call.fun().clone()), call.expressions())
            .schema(aggregate.input_schema())
            .alias(call.name())
            .with_ignore_nulls(call.ignore_nulls())
            .build()
            .map(Arc::new),
        false => Ok(Arc::clone(call)),
    });
    let calls = calls.collect::<Result<Vec<_>>>()?;
    let filters = aggregate.filter_expr().to_vec();
    let mode = *aggregate.mode();
    let schema = aggregate.input_schema();
    let sorted = AggregateExec::try_new(mode, groups.clone(), calls, filters, input, schema)?;
    Ok(Some(sorted.with_limit_options(aggregate.limit_options())))
}

#[cfg(test)]
mod tests {
    use arrow::compute::concat_batches;
    use arrow::util::pretty::pretty_format_batches;
    use datafusion::physical_plan::{collect, displayable};
    use datafusion::prelude::{SessionConfig, SessionContext};

    use crate::execute::session::{runtime, session, with_partitions};

    #[tokio::test]
    async fn lists_in_an_order_are_made_of_sorted_rows() {
        let state = session(runtime(None, None).unwrap(), None);
        let two = SessionContext::from(with_partitions(&state, 2));
        let plain = SessionContext::new_with_config(SessionConfig::new().with_target_partitions(1));
        let own = SessionContext::from(state);
        let table = "(SELECT value AS n, value % 7 AS k, CASE WHEN value % 5 > 0 THEN 'v' || (value % 31) END AS v, CASE WHEN value % 3 = 1 THEN -1e0 ELSE 1e0 END * 0e0 AS zero FROM generate_series(1, 900))";
        let cases = [
            (true, "k, array_agg(v ORDER BY n DESC) AS a, count(*) AS c, sum(n) AS s", "GROUP BY k"),
            (true, "array_agg(v ORDER BY v, n) AS a, max(v) AS m", ""),
            (true, "k, string_agg(v, '-' ORDER BY v DESC NULLS LAST, n) AS a", "GROUP BY k"),
            (
                true,
                "k, array_agg(n ORDER BY v, n) FILTER (WHERE n > 20) AS a, array_agg(v ORDER BY v, n) AS b",
                "GROUP BY k",
            ),
            (true, "k, n % 2 AS p, array_agg(v ORDER BY n) AS a", "GROUP BY ROLLUP (k, n % 2)"),
            (true, "k, array_agg(v ORDER BY n) IGNORE NULLS AS a", "GROUP BY k"),
            (true, "k, array_agg(n ORDER BY n) AS a", "WHERE n < 0 GROUP BY k"),
            (true, "array_agg(n ORDER BY n DESC) AS a, string_agg(v, '-' ORDER BY n DESC) AS b", "GROUP BY zero"),
            (true, "array_agg(n ORDER BY n DESC) AS a", "WHERE n < 0"),
            (false, "k, array_agg(v ORDER BY n) AS a, array_agg(v ORDER BY n DESC) AS b", "GROUP BY k"),
            (false, "k, array_agg(DISTINCT v ORDER BY v) AS a", "GROUP BY k"),
            (false, "k, first_value(v ORDER BY n) AS a", "GROUP BY k"),
            (false, "k, array_agg(v ORDER BY v, n) AS a, string_agg(v, '-') AS b", "GROUP BY k"),
        ];
        for (is_sorted, calls, rest) in cases {
            let query = format!("SELECT {calls} FROM {table} AS t {rest}");
            let mut rows = Vec::new();
            for session in [&own, &two, &plain] {
                let plan = session.sql(&query).await.unwrap().create_physical_plan().await.unwrap();
                let text = displayable(plan.as_ref()).indent(false).to_string();
                let sorts = text.split_once("AggregateExec").is_some_and(|(_, below)| below.contains("SortExec"));
                assert!(sorts || !is_sorted || std::ptr::eq(session, &plain), "{query}: {text}");
                let schema = plan.schema();
                let all = concat_batches(&schema, &collect(plan, session.task_ctx()).await.unwrap()).unwrap();
                let mut lines: Vec<_> =
                    pretty_format_batches(&[all]).unwrap().to_string().lines().map(str::to_owned).collect();
                lines.sort_unstable();
                rows.push(lines);
            }
            assert!(rows[0] == rows[2] && rows[1] == rows[2], "{query}: {rows:?}");
        }
    }
}
