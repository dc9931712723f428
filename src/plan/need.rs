//! What a step needs of an input: columns, and rows that pass its filters.

use std::collections::{BTreeMap, BTreeSet};

use datafusion::common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion::common::{Column, Result};
use datafusion::execution::SessionState;
use datafusion::logical_expr::{Expr, LogicalPlan, TableScan};
use datafusion::optimizer::Optimizer;

use crate::plan::held::Held;
use crate::plan::keys::expr::KeyExpr;
use crate::plan::order::ordered_scans;
use crate::plan::prove::proof::{Proof, Role};
use crate::plan::resolve::{InputSource, Resolved, Scan};
use crate::task::function::{Versions, called_in};

/// What is needed of a scan.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Need {
    /// Columns, by position.
    pub columns: BTreeSet<usize>,
    /// Filters over the scan's columns by their bare names, all of which a row must pass to matter.
    pub filters: Vec<Expr>,
    /// Versions of the user's functions that the filters call.
    pub functions: Versions,
    /// Bytes of these columns in the input's files, about.
    pub bytes: u64,
    /// Bytes that their values take in memory, about.
    pub memory_bytes: u64,
    /// Bytes that a row of them takes in memory, about.
    pub row_bytes: u64,
    /// Bytes that a reader of them has before rows come of it, at most; 0 where files don't tell.
    pub reading_bytes: u64,
    /// Whether something takes rows in the order of the source's files.
    pub is_ordered: bool,
}

/// Text and numbers take about so many times the bytes of their files in memory.
const IN_MEMORY: u64 = 4;

/// A value without a fixed width takes about so many bytes, where files don't tell.
const VALUE_BYTES: usize = 32;

/// What a query needs, once it is optimised, of each of its scans, by number; nothing of those that it does without. And
/// what the query holds, where that is known.
///
/// # Errors
/// DataFusion's when the plan can't be optimised.
pub fn needs_and_held(resolved: &Resolved, state: &SessionState) -> Result<(Vec<Need>, Option<Held>)> {
    needs(&resolved.plan, resolved, &[], state)
}

/// As [`needs_and_held`], and the columns of the keys, by which a chunk may have to be cut further.
///
/// # Errors
/// As [`needs_and_held`].
pub fn needs_of_chunks(proof: &Proof, resolved: &Resolved, state: &SessionState) -> Result<(Vec<Need>, Option<Held>)> {
    let keys = proof.inputs().iter().map(|input| match &input.role {
        Role::Partitioned { keys, names: _ } => keys.iter().flat_map(KeyExpr::columns).collect(),
        Role::Replicated { .. } => BTreeSet::new(),
    });
    needs(proof.plan(), resolved, &keys.collect::<Vec<_>>(), state)
}

fn needs(
    plan: &LogicalPlan,
    Resolved { scans, functions, .. }: &Resolved,
    keys: &[BTreeSet<usize>],
    state: &SessionState,
) -> Result<(Vec<Need>, Option<Held>)> {
    if scans.is_empty() {
        return Ok((Vec::new(), Some(Held::little(0.0))));
    }
    let ordered = ordered_scans(plan)?;
    // It is analysed already.
    let optimised = Optimizer::with_rules(state.optimizers().to_vec()).optimize(plan.clone(), state, |_, _| {})?;
    let mut found: BTreeMap<usize, Need> = BTreeMap::new();
    optimised.apply_with_subqueries(|node| {
        if let LogicalPlan::TableScan(scan) = node
            && let Some(number) = scan.source.downcast_ref::<InputSource>().and_then(InputSource::scan)
        {
            let need = need(scan);
            // A scan that stands in the plan twice needs what both need.
            found
                .entry(number)
                .and_modify(|before| {
                    before.columns.extend(&need.columns);
                    before.filters.retain(|filter| need.filters.contains(filter));
                })
                .or_insert(need);
        }
        Ok(TreeNodeRecursion::Continue)
    })?;
    let of_scan = |(number, scan): (usize, &Scan)| {
        let mut need = found.remove(&number).unwrap_or_default();
        need.columns.extend(keys.get(number).into_iter().flatten());
        let columns = need.columns.iter().map(|at| scan.schema.field(*at));
        let (bytes, memory_bytes, row_bytes, reading_bytes) = match &scan.row_groups {
            Some(groups) => {
                let names = columns.map(|field| field.name().as_str()).collect();
                let (bytes, memory_bytes) = groups.column_bytes(&names);
                (bytes, memory_bytes, memory_bytes / groups.rows().max(1), groups.reading_bytes(&names))
            }
            None => {
                let widths = columns.map(|field| field.data_type().primitive_width().unwrap_or(VALUE_BYTES) as u64);
                (scan.bytes, IN_MEMORY * scan.bytes, widths.sum(), 0)
            }
        };
        let functions = need.filters.iter().flat_map(|filter| called_in(filter, functions)).collect();
        Need { bytes, memory_bytes, row_bytes, reading_bytes, functions, is_ordered: ordered.contains(&number), ..need }
    };
    Ok((scans.iter().enumerate().map(of_scan).collect(), Held::of(&optimised)))
}

fn need(scan: &TableScan) -> Need {
    let columns = match &scan.projection {
        Some(columns) => columns.iter().copied().collect(),
        None => (0..scan.source.schema().fields().len()).collect(),
    };
    let bare = |expr: Expr| match expr {
        Expr::Column(column) => Ok(Transformed::yes(Expr::Column(Column::new_unqualified(column.name)))),
        other => Ok(Transformed::no(other)),
    };
    let filters = scan.filters.iter().filter(|filter| is_of_row(filter));
    let filters = filters.filter_map(|filter| Some(filter.clone().transform(bare).ok()?.data));
    Need { columns, filters: filters.collect(), ..Need::default() }
}

/// Whether a filter can be computed from a row alone.
fn is_of_row(filter: &Expr) -> bool {
    let other = |expr: &Expr| {
        Ok(matches!(
            expr,
            Expr::ScalarSubquery(_)
                | Expr::Exists(_)
                | Expr::InSubquery(_)
                | Expr::SetComparison(_)
                | Expr::OuterReferenceColumn(_, _)
                | Expr::Placeholder(_)
                | Expr::ScalarVariable(_, _)
        ))
    };
    !filter.is_volatile() && !filter.exists(other).unwrap_or(true)
}
