//! Which columns carry a task's keys: equivalence of columns, in the rows of one node and across a whole plan.
//!
//! Across a plan, columns of scans are grouped by the equalities of joins and filters. These groups only propose
//! how to cut each scan; [`crate::plan::prove`] alone decides, from what holds at each node.

use std::collections::BTreeSet;

use datafusion::common::{DFSchema, Result};
use datafusion::logical_expr::utils::{grouping_set_to_exprlist, split_conjunction};
use datafusion::logical_expr::{Distinct, Expr, JoinType, LogicalPlan, Operator};

use crate::chunk::key::{key_family, lossless_cast};
use crate::plan::resolve::{InputSource, Resolved};

/// A column of a scan: the scan's number and the column's position.
pub type ScanColumn = (usize, usize);

/// The position of the column that `expr` passes on unchanged, through aliases and casts that keep value and hash.
pub fn passed_column(expr: &Expr, schema: &DFSchema) -> Option<usize> {
    match expr {
        Expr::Column(column) => schema.maybe_index_of_column(column),
        Expr::Alias(alias) => passed_column(&alias.expr, schema),
        Expr::Cast(cast) => {
            // Inner casts keep every value, so only the column's own type and the outermost one matter.
            let column = passed_column(&cast.expr, schema)?;
            lossless_cast(schema.field(column).data_type(), cast.field.data_type()).then_some(column)
        }
        _ => None,
    }
}

/// The columns of `coalesce(a, b)`, also in the form of a CASE that the simplifier gives it.
pub fn coalesced_columns(expr: &Expr, schema: &DFSchema) -> Option<(usize, usize)> {
    match expr {
        Expr::Alias(alias) => coalesced_columns(&alias.expr, schema),
        Expr::ScalarFunction(f) if f.func.name() == "coalesce" => match f.args.as_slice() {
            [a, b] => Some((passed_column(a, schema)?, passed_column(b, schema)?)),
            _ => None,
        },
        Expr::Case(case) => {
            let (None, [(when, then)], Some(other)) = (&case.expr, case.when_then_expr.as_slice(), &case.else_expr)
            else {
                return None;
            };
            let Expr::IsNotNull(tested) = when.as_ref() else { return None };
            let first = passed_column(then, schema)?;
            (passed_column(tested, schema)? == first).then_some((first, passed_column(other, schema)?))
        }
        _ => None,
    }
}

/// Pairs of positions that a predicate makes equal in every row that passes it: its conjuncts `a = b` and
/// `a IS NOT DISTINCT FROM b` over columns that hash alike.
pub fn equal_columns(predicate: &Expr, schema: &DFSchema) -> Vec<(usize, usize)> {
    let pairs = split_conjunction(predicate).into_iter().filter_map(|conjunct| match conjunct {
        Expr::BinaryExpr(binary) if matches!(binary.op, Operator::Eq | Operator::IsNotDistinctFrom) => {
            Some((passed_column(&binary.left, schema)?, passed_column(&binary.right, schema)?))
        }
        _ => None,
    });
    pairs.filter(|(a, b)| hash_alike(schema, *a, schema, *b)).collect()
}

/// Whether two columns can be keys and equal values in them have equal hashes.
pub fn hash_alike(left: &DFSchema, l: usize, right: &DFSchema, r: usize) -> bool {
    let family = key_family(left.field(l).data_type());
    family.is_some() && family == key_family(right.field(r).data_type())
}

/// Columns of scans grouped by equality, and the origin of each output column.
#[derive(Debug, Default)]
pub struct Classes {
    groups: Vec<BTreeSet<ScanColumn>>,
    output: Vec<Option<ScanColumn>>,
}

impl Classes {
    /// Groups the columns of all scans of `resolved`.
    pub fn of(resolved: &Resolved) -> Result<Self> {
        let mut classes = Self::default();
        classes.output = classes.visit(&resolved.plan)?;
        Ok(classes)
    }

    /// Groups that a key name may mean, most likely first: the output column of that name, then any input's.
    pub fn named(&self, key: &str, resolved: &Resolved) -> Vec<BTreeSet<ScanColumn>> {
        let output = resolved.schema.index_of(key).ok().and_then(|i| self.output.get(i).copied().flatten());
        let inputs =
            resolved.scans.iter().enumerate().filter_map(|(scan, s)| Some((scan, s.schema.index_of(key).ok()?)));
        let mut found: Vec<BTreeSet<ScanColumn>> = Vec::new();
        for column in output.into_iter().chain(inputs) {
            let group = self.group(column);
            if !found.contains(&group) {
                found.push(group);
            }
        }
        found
    }

    /// All groups whose columns can be keys, each with the name of its first column, in order of scans and columns.
    pub fn all(&self, resolved: &Resolved) -> Vec<(String, BTreeSet<ScanColumn>)> {
        let mut found: Vec<(String, BTreeSet<ScanColumn>)> = Vec::new();
        for (number, scan) in resolved.scans.iter().enumerate() {
            for (column, field) in scan.schema.fields().iter().enumerate() {
                let is_new = !found.iter().any(|(_, group)| group.contains(&(number, column)));
                if is_new && key_family(field.data_type()).is_some() {
                    found.push((field.name().clone(), self.group((number, column))));
                }
            }
        }
        found
    }

    fn group(&self, column: ScanColumn) -> BTreeSet<ScanColumn> {
        let group = self.groups.iter().find(|g| g.contains(&column));
        group.cloned().unwrap_or_else(|| BTreeSet::from([column]))
    }

    fn unite(&mut self, a: ScanColumn, b: ScanColumn) {
        let mut united = self.group(a);
        united.extend(self.group(b));
        self.groups.retain(|g| g.is_disjoint(&united));
        self.groups.push(united);
    }

    /// Visits `plan` and its subqueries; returns the origin of each of its output columns.
    fn visit(&mut self, plan: &LogicalPlan) -> Result<Vec<Option<ScanColumn>>> {
        plan.apply_subqueries(|subquery| {
            self.visit(subquery)?;
            Ok(datafusion::common::tree_node::TreeNodeRecursion::Continue)
        })?;
        let mut inputs = plan.inputs().into_iter().map(|input| self.visit(input)).collect::<Result<Vec<_>>>()?;
        let through = |exprs: &[Expr], input: &LogicalPlan, origins: &[Option<ScanColumn>]| {
            exprs.iter().map(|e| origin(e, input.schema(), origins)).collect::<Vec<_>>()
        };
        let width = plan.schema().fields().len();
        let mut output = match plan {
            LogicalPlan::TableScan(scan) => {
                match scan.source.downcast_ref::<InputSource>().and_then(InputSource::scan) {
                    Some(number) => (0..width).map(|column| Some((number, column))).collect(),
                    None => Vec::new(),
                }
            }
            LogicalPlan::Projection(node) => through(&node.expr, &node.input, &inputs[0]),
            LogicalPlan::Aggregate(node) => {
                let columns: Vec<Expr> = grouping_set_to_exprlist(&node.group_expr)?.into_iter().cloned().collect();
                through(&columns, &node.input, &inputs[0])
            }
            LogicalPlan::Distinct(Distinct::On(node)) => through(&node.select_expr, &node.input, &inputs[0]),
            LogicalPlan::Unnest(node) => node.dependency_indices.iter().map(|column| inputs[0][*column]).collect(),
            LogicalPlan::Filter(node) => {
                let origins = inputs.swap_remove(0);
                for (a, b) in equal_columns(&node.predicate, node.input.schema()) {
                    if let (Some(a), Some(b)) = (origins[a], origins[b]) {
                        self.unite(a, b);
                    }
                }
                origins
            }
            LogicalPlan::Join(node) => {
                for (l, r) in &node.on {
                    let l = origin(l, node.left.schema(), &inputs[0]);
                    if let (Some(l), Some(r)) = (l, origin(r, node.right.schema(), &inputs[1])) {
                        self.unite(l, r);
                    }
                }
                match node.join_type {
                    JoinType::LeftSemi | JoinType::LeftAnti | JoinType::LeftMark => inputs.swap_remove(0),
                    JoinType::RightSemi | JoinType::RightAnti | JoinType::RightMark => inputs.swap_remove(1),
                    JoinType::Inner | JoinType::Left | JoinType::Right | JoinType::Full => inputs.concat(),
                }
            }
            LogicalPlan::Union(node) => {
                for column in 0..width {
                    for pair in inputs.windows(2).zip(node.inputs.windows(2)) {
                        let (origins, plans) = pair;
                        if let (Some(a), Some(b)) = (origins[0][column], origins[1][column])
                            && hash_alike(plans[0].schema(), column, plans[1].schema(), column)
                        {
                            self.unite(a, b);
                        }
                    }
                }
                inputs.swap_remove(0)
            }
            LogicalPlan::SubqueryAlias(_)
            | LogicalPlan::Subquery(_)
            | LogicalPlan::Sort(_)
            | LogicalPlan::Limit(_)
            | LogicalPlan::Window(_)
            | LogicalPlan::Distinct(Distinct::All(_)) => inputs.swap_remove(0),
            _ => Vec::new(),
        };
        output.resize(width, None);
        Ok(output)
    }
}

/// The scan column that an expression passes on; for `coalesce(a, b)` that of `a`.
fn origin(expr: &Expr, schema: &DFSchema, origins: &[Option<ScanColumn>]) -> Option<ScanColumn> {
    let column = passed_column(expr, schema).or_else(|| Some(coalesced_columns(expr, schema)?.0))?;
    origins[column]
}
