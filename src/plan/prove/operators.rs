//! The rules of operators that see their whole input: groups, distinct and first rows, windows; and of those that go
//! through it row by row.

use datafusion::logical_expr::expr::GroupingSet;
use datafusion::logical_expr::utils::{enumerate_grouping_sets, grouping_set_to_exprlist};
use datafusion::logical_expr::{Aggregate, DistinctOn, Expr, LogicalPlan, Unnest, Window};

use crate::plan::order::function::{Reads, call_reads};
use crate::plan::prove::property::Property::{Partitioned, Replicated};
use crate::plan::prove::property::{Key, Property, all_visible, named};
use crate::plan::prove::refusal::{Checked, Refusal, describe, unsupported};
use crate::plan::prove::rule::{Rule, Rules};
use crate::plan::prove::stable::{order_sensitive_aggregate, order_sensitive_window, unaliased};
use crate::plan::resolve::volatile_call;
use crate::plan::two_phase::state::why_not_merged;

/// A volatile function in a SELECT list gives each chunk other values where the rows are whole in every chunk.
pub fn projection(plan: &LogicalPlan, found: Property, rules: Rules) -> Property {
    match found {
        Replicated { unstable: None } if rules.ask(Rule::Volatile) => {
            Replicated { unstable: volatile_call(plan).map(|function| format!("{function}() gives new values")) }
        }
        other => other,
    }
}

pub fn aggregate(plan: &LogicalPlan, node: &Aggregate, input: Property, rules: Rules) -> Checked<Property> {
    let schema = node.input.schema();
    let keys = match input {
        Replicated { unstable } => {
            let unstable =
                unstable.or_else(|| node.aggr_expr.iter().find_map(|e| order_sensitive_aggregate(e, schema)));
            return Ok(Replicated { unstable });
        }
        Partitioned { keys } => keys,
    };
    if let Some(function) = of_batches(node) {
        let rule = "its value depends on how rows are batched, which differs between chunks";
        let fix =
            "use an exact aggregate such as median() or percentile_cont(), or run it whole: leave CLUSTERED BY out";
        return Err(Box::new(Refusal::of(format!("{}, which calls {function}()", describe(plan)), rule, fix)));
    }
    let columns = grouping_set_to_exprlist(&node.group_expr).map_err(|_| unsupported(plan))?;
    let mut carried: Vec<Key> = keys.iter().map(|key| key.among(columns.iter().copied(), schema, rules)).collect();
    if let Some(sets) = grouping_sets(node).filter(|_| rules.ask(Rule::GroupingSets)) {
        // A column that one set leaves out is NULL in its rows, whatever the key is.
        let in_all = |at: usize| sets.iter().all(|set| set.contains(columns[at]));
        for key in &mut carried {
            key.exprs.retain(|expr| expr.columns().into_iter().all(in_all));
        }
    }
    if all_visible(&carried) || !rules.ask(Rule::GroupByKeys) {
        return Ok(Partitioned { keys: carried });
    }
    let by = match grouping_sets(node) {
        Some(_) => {
            format!("have {} in every grouping set, or cut by a column that every set has", named(&keys, schema))
        }
        None => format!("group by {} too, or cut by a column that it groups by", named(&keys, schema)),
    };
    let fix = match not_merged(node, rules) {
        Some(why) => format!("what chunks find can't be put together either, since {why}: {by}"),
        None => by,
    };
    Err(Box::new(Refusal::new(plan, Rule::GroupByKeys, fix)))
}

/// An aggregate that depends on how rows are batched.
fn of_batches(node: &Aggregate) -> Option<String> {
    let schema = node.input.schema();
    node.aggr_expr.iter().find_map(|expr| match unaliased(expr) {
        Expr::AggregateFunction(call) => {
            let name = call.func.name();
            (call_reads(name, &call.params.args, schema) == Reads::Batches).then(|| name.to_string())
        }
        _ => None,
    })
}

/// Why an aggregate can't be done in two phases, if it can't.
fn not_merged(node: &Aggregate, rules: Rules) -> Option<String> {
    node.aggr_expr.iter().find_map(|expr| match unaliased(expr) {
        Expr::AggregateFunction(call) => why_not_merged(call, node.input.schema(), rules),
        _ => None,
    })
}

/// The sets of GROUPING SETS, ROLLUP or CUBE; `None` for a plain GROUP BY.
fn grouping_sets(node: &Aggregate) -> Option<Vec<Vec<Expr>>> {
    match enumerate_grouping_sets(node.group_expr.clone()).ok()?.as_slice() {
        [Expr::GroupingSet(GroupingSet::GroupingSets(sets))] => Some(sets.clone()),
        // Both have a set of no columns, which holds no key.
        [Expr::GroupingSet(GroupingSet::Rollup(_) | GroupingSet::Cube(_))] => Some(vec![Vec::new()]),
        _ => None,
    }
}

pub fn distinct(plan: &LogicalPlan, input: Property, rules: Rules) -> Checked<Property> {
    match &input {
        Partitioned { keys } if !all_visible(keys) && rules.ask(Rule::DistinctKeys) => {
            let fix = "select the keys too, or cut by columns that are selected";
            Err(Box::new(Refusal::new(plan, Rule::DistinctKeys, fix)))
        }
        Partitioned { .. } | Replicated { .. } => Ok(input),
    }
}

pub fn distinct_on(plan: &LogicalPlan, node: &DistinctOn, input: Property, rules: Rules) -> Checked<Property> {
    let schema = node.input.schema();
    match &input {
        Replicated { unstable } => {
            let ties = || Some("DISTINCT ON over ties may depend on the order of rows".to_string());
            Ok(Replicated { unstable: unstable.clone().or_else(ties) })
        }
        Partitioned { keys } => {
            let on: Vec<Key> = keys.iter().map(|key| key.among(&node.on_expr, schema, rules)).collect();
            if all_visible(&on) || !rules.ask(Rule::DistinctOnKeys) {
                return Ok(input.through(&node.select_expr, schema, rules));
            }
            let fix = format!("add {} to DISTINCT ON, or cut by a column that it names", named(keys, schema));
            Err(Box::new(Refusal::new(plan, Rule::DistinctOnKeys, fix)))
        }
    }
}

pub fn limit(plan: &LogicalPlan, input: Property, rules: Rules) -> Checked<Property> {
    match input {
        Replicated { unstable } => {
            let ties = || Some("which rows LIMIT keeps may depend on their order".to_string());
            Ok(Replicated { unstable: unstable.or_else(ties) })
        }
        Partitioned { .. } if rules.ask(Rule::Limit) => {
            let fix = "put the LIMIT in a task of its own, without CLUSTERED BY, that reads this one's output";
            Err(Box::new(Refusal::new(plan, Rule::Limit, fix)))
        }
        Partitioned { .. } => Ok(input),
    }
}

pub fn window(plan: &LogicalPlan, node: &Window, input: Property, rules: Rules) -> Checked<Property> {
    let schema = node.input.schema();
    match input {
        Replicated { unstable } => {
            let unstable = unstable.or_else(|| node.window_expr.iter().find_map(|e| order_sensitive_window(e, schema)));
            Ok(Replicated { unstable })
        }
        Partitioned { keys } => {
            for expr in &node.window_expr {
                let Expr::WindowFunction(function) = unaliased(expr) else { return Err(unsupported(plan)) };
                let by = &function.params.partition_by;
                let among: Vec<Key> = keys.iter().map(|key| key.among(by, schema, rules)).collect();
                if !all_visible(&among) && rules.ask(Rule::PartitionByKeys) {
                    let keys = named(&keys, schema);
                    let fix = format!("partition by {keys} too, or cut by a column that every window partitions by");
                    return Err(Box::new(Refusal::new(plan, Rule::PartitionByKeys, fix)));
                }
            }
            Ok(Partitioned { keys })
        }
    }
}

/// Columns that are not unnested are repeated beside each element.
pub fn unnest(node: &Unnest, input: Property) -> Property {
    let Partitioned { keys } = input else { return input };
    let lists = node.list_type_columns.iter().map(|(column, _)| *column);
    let unnested: Vec<usize> = lists.chain(node.struct_type_columns.iter().copied()).collect();
    // No key is of a type that can be unnested; this only makes sure.
    let positions = |column: usize| match unnested.contains(&column) {
        true => Vec::new(),
        false => (0..node.dependency_indices.len()).filter(|i| node.dependency_indices[*i] == column).collect(),
    };
    Partitioned { keys: keys.iter().map(|key| key.moved(positions)).collect() }
}
