//! Which columns carry a task's keys: equivalence of columns, in the rows of one node and across a whole plan.
//!
//! Across a plan, columns of scans are grouped by the equalities of joins and filters. These groups only propose
//! how to cut each scan; [`crate::plan::prove`] alone decides, from what holds at each node.

pub mod expr;

use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::common::{DFSchema, Result};
use datafusion::logical_expr::utils::{grouping_set_to_exprlist, split_conjunction};
use datafusion::logical_expr::{Distinct, Expr, JoinType, LogicalPlan, Operator, UserDefinedLogicalNode};

use crate::chunk::key::key_family;
use crate::plan::keys::expr::{KeyExpr, as_position};
use crate::plan::opaque::OpaqueNode;
use crate::plan::prove::rule::{Rule, Rules};
use crate::plan::resolve::{InputSource, Resolved};

/// What a column may come from: a scan's number and an expression over the scan's columns.
pub type ScanExpr = (usize, KeyExpr);

/// Expressions over scans that are equal in the rows of a query.
pub type Group = Vec<ScanExpr>;

/// Pairs of expressions that a predicate makes equal in every row that passes it: its conjuncts `a = b` and
/// `a IS NOT DISTINCT FROM b` over what hashes alike.
pub fn equalities(predicate: &Expr, schema: &DFSchema, rules: Rules) -> Vec<(KeyExpr, KeyExpr)> {
    let mut conjuncts = split_conjunction(predicate);
    if !rules.ask(Rule::Conjuncts) {
        // Never fails: the closure doesn't.
        let _ = predicate.apply(|e| {
            conjuncts.push(e);
            Ok(TreeNodeRecursion::Continue)
        });
    }
    let pairs = conjuncts.into_iter().filter_map(|conjunct| match conjunct {
        Expr::BinaryExpr(binary) if matches!(binary.op, Operator::Eq | Operator::IsNotDistinctFrom) => {
            Some((KeyExpr::of(&binary.left, schema, rules)?, KeyExpr::of(&binary.right, schema, rules)?))
        }
        _ => None,
    });
    pairs.filter(|(a, b)| a.hashes_like(b)).collect()
}

/// Expressions over scans grouped by equality, and the origin of each output column.
#[derive(Debug)]
pub struct Classes {
    groups: Vec<Group>,
    output: Vec<Option<ScanExpr>>,
    rules: Rules,
}

impl Classes {
    /// Groups the columns of all scans of `resolved`, and the expressions over them that the query equates.
    pub fn of(resolved: &Resolved, rules: Rules) -> Result<Self> {
        let mut classes = Self { groups: Vec::new(), output: Vec::new(), rules };
        classes.output = classes.visit(&resolved.plan)?;
        classes.close(resolved);
        Ok(classes)
    }

    /// What a key name may mean, most likely first: the output column of that name, then any input's. For each meaning
    /// the groups that have the column, or an expression over it alone.
    pub fn named(&self, key: &str, resolved: &Resolved) -> Vec<Vec<Group>> {
        let output = resolved.schema.index_of(key).ok().and_then(|i| self.output.get(i).cloned().flatten());
        let inputs = resolved.scans.iter().enumerate().filter_map(|(scan, s)| {
            let at = s.schema.index_of(key).ok()?;
            Some((scan, KeyExpr::column(at, s.schema.field(at).data_type())))
        });
        let mut found: Vec<Vec<Group>> = Vec::new();
        for column in output.into_iter().chain(inputs) {
            let groups = self.groups_over(column);
            if !found.contains(&groups) {
                found.push(groups);
            }
        }
        found
    }

    /// All groups that may be keys, each with a name, in order of scans and columns.
    pub fn all(&self, resolved: &Resolved) -> Vec<(String, Group)> {
        let mut found: Vec<(String, Group)> = Vec::new();
        for (number, scan) in resolved.scans.iter().enumerate() {
            for (at, field) in scan.schema.fields().iter().enumerate() {
                if key_family(field.data_type()).is_none() {
                    continue;
                }
                for group in self.groups_over((number, KeyExpr::column(at, field.data_type()))) {
                    if found.iter().all(|(_, other)| other != &group) {
                        let name = group
                            .iter()
                            .find(|(scan, _)| *scan == number)
                            .map(|(_, expr)| expr.shown(|at| scan.schema.field(at).name().clone()));
                        found.push((name.unwrap_or_else(|| field.name().clone()), group));
                    }
                }
            }
        }
        found
    }

    /// The group of an expression, and those of expressions over the same column alone.
    fn groups_over(&self, of: ScanExpr) -> Vec<Group> {
        let own = self.group(&of);
        let columns = of.1.columns();
        let others = self.groups.iter().filter(|group| {
            *group != &own && group.iter().any(|(scan, expr)| *scan == of.0 && expr.columns() == columns)
        });
        let others: Vec<Group> = others.cloned().collect();
        [own].into_iter().chain(others).collect()
    }

    fn group(&self, of: &ScanExpr) -> Group {
        let group = self.groups.iter().find(|group| group.contains(of));
        group.cloned().unwrap_or_else(|| vec![of.clone()])
    }

    fn unite(&mut self, a: ScanExpr, b: ScanExpr) {
        if !a.1.hashes_like(&b.1) {
            return;
        }
        let mut united = self.group(&a);
        for member in self.group(&b) {
            if !united.contains(&member) {
                united.push(member);
            }
        }
        self.groups.retain(|group| !group.iter().any(|member| united.contains(member)));
        self.groups.push(united);
    }

    /// Where a group has an expression over one column, adds the same over the columns that are equal to that one.
    fn close(&mut self, resolved: &Resolved) {
        let type_of = |scan: usize, at: usize| resolved.scans[scan].schema.field(at).data_type();
        let mut added = Vec::new();
        for (scan, expr) in self.groups.iter().flatten().filter(|(_, expr)| expr.as_column().is_none()) {
            let [at] = expr.columns().into_iter().collect::<Vec<_>>()[..] else { continue };
            let column = (*scan, KeyExpr::column(at, type_of(*scan, at)));
            for (other, equal) in self.group(&column) {
                let equal = equal.cast(type_of(*scan, at));
                let moved = expr.replaced(|part| (as_position(part) == Some(at)).then(|| equal.expr().clone()));
                added.extend(moved.map(|moved| ((*scan, expr.clone()), (other, moved))));
            }
        }
        for (known, new) in added {
            self.unite(known, new);
        }
    }

    /// Visits `plan` and its subqueries; returns the origin of each of its output columns.
    fn visit(&mut self, plan: &LogicalPlan) -> Result<Vec<Option<ScanExpr>>> {
        plan.apply_subqueries(|subquery| {
            self.visit(subquery)?;
            Ok(TreeNodeRecursion::Continue)
        })?;
        let mut inputs = plan.inputs().into_iter().map(|input| self.visit(input)).collect::<Result<Vec<_>>>()?;
        let rules = self.rules;
        let through = |exprs: &[Expr], input: &LogicalPlan, origins: &[Option<ScanExpr>]| {
            exprs.iter().map(|e| origin(e, input.schema(), origins, rules)).collect::<Vec<_>>()
        };
        let width = plan.schema().fields().len();
        let mut output = match plan {
            LogicalPlan::TableScan(scan) => {
                match scan.source.downcast_ref::<InputSource>().and_then(InputSource::scan) {
                    Some(number) => {
                        let fields = plan.schema().fields().iter().enumerate();
                        fields.map(|(at, field)| Some((number, KeyExpr::column(at, field.data_type())))).collect()
                    }
                    None => Vec::new(),
                }
            }
            LogicalPlan::Projection(node) => through(&node.expr, &node.input, &inputs[0]),
            LogicalPlan::Aggregate(node) => {
                let columns: Vec<Expr> = grouping_set_to_exprlist(&node.group_expr)?.into_iter().cloned().collect();
                let origins = through(&columns, &node.input, &inputs[0]);
                self.propose(&origins);
                origins
            }
            LogicalPlan::Window(node) => {
                for expr in &node.window_expr {
                    if let Expr::WindowFunction(function) = crate::plan::prove::unaliased(expr) {
                        let by = through(&function.params.partition_by, &node.input, &inputs[0]);
                        self.propose(&by);
                    }
                }
                inputs.swap_remove(0)
            }
            LogicalPlan::Distinct(Distinct::On(node)) => {
                let on = through(&node.on_expr, &node.input, &inputs[0]);
                self.propose(&on);
                through(&node.select_expr, &node.input, &inputs[0])
            }
            LogicalPlan::Unnest(node) => node.dependency_indices.iter().map(|at| inputs[0][*at].clone()).collect(),
            LogicalPlan::Filter(node) => {
                let origins = inputs.swap_remove(0);
                for (a, b) in equalities(&node.predicate, node.input.schema(), rules) {
                    let schema = node.input.schema();
                    if let (Some(a), Some(b)) = (composed(&a, schema, &origins), composed(&b, schema, &origins)) {
                        self.unite(a, b);
                    }
                }
                origins
            }
            LogicalPlan::Join(node) => {
                for (l, r) in &node.on {
                    let l = origin(l, node.left.schema(), &inputs[0], rules);
                    if let (Some(l), Some(r)) = (l, origin(r, node.right.schema(), &inputs[1], rules)) {
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
                for at in 0..width {
                    let same = |plan: &LogicalPlan| key_family(plan.schema().field(at).data_type());
                    for (origins, plans) in inputs.windows(2).zip(node.inputs.windows(2)) {
                        if let (Some(a), Some(b)) = (origins[0][at].clone(), origins[1][at].clone())
                            && same(&plans[0]) == same(&plans[1])
                        {
                            self.unite(a, b);
                        }
                    }
                }
                inputs.swap_remove(0)
            }
            LogicalPlan::Extension(extension) if let Some(node) = OpaqueNode::of(extension) => {
                self.function(node, &inputs)
            }
            LogicalPlan::SubqueryAlias(_)
            | LogicalPlan::Subquery(_)
            | LogicalPlan::Sort(_)
            | LogicalPlan::Limit(_)
            | LogicalPlan::Distinct(Distinct::All(_)) => inputs.swap_remove(0),
            _ => Vec::new(),
        };
        output.resize(width, None);
        Ok(output)
    }

    /// Where a function may be cut, the keys of its inputs are taken for equal; a column that it gives, for that of an input with
    /// its name.
    fn function(&mut self, node: &OpaqueNode, inputs: &[Vec<Option<ScanExpr>>]) -> Vec<Option<ScanExpr>> {
        let column = |(name, plan): (&str, &LogicalPlan), origins: &[Option<ScanExpr>], at: usize| {
            let column = node.cut()?.columns(name).get(at)?;
            origins.get(plan.schema().index_of_column_by_name(None, column)?)?.clone()
        };
        let keys = node.cut().map_or(&[][..], |cut| cut.keys.as_slice());
        let mut of_keys = Vec::new();
        for at in 0..keys.len() {
            let found: Vec<_> = node.named_inputs().zip(inputs).filter_map(|(of, from)| column(of, from, at)).collect();
            found.windows(2).for_each(|pair| self.unite(pair[0].clone(), pair[1].clone()));
            of_keys.push(found.into_iter().next());
        }
        let fields = UserDefinedLogicalNode::schema(node).fields().iter();
        let key = |name: &String| of_keys.get(keys.iter().position(|key| key == name)?)?.clone();
        fields.map(|field| key(field.name())).collect()
    }

    /// Makes a group of its own of each expression that is not a bare column and in no group yet.
    fn propose(&mut self, origins: &[Option<ScanExpr>]) {
        for origin in origins.iter().flatten() {
            if origin.1.as_column().is_none() && !self.groups.iter().any(|group| group.contains(origin)) {
                self.groups.push(vec![origin.clone()]);
            }
        }
    }
}

/// The expression over a scan that an expression passes on; for `coalesce(a, b)` of two scans that of `a`.
fn origin(expr: &Expr, schema: &DFSchema, origins: &[Option<ScanExpr>], rules: Rules) -> Option<ScanExpr> {
    let key = KeyExpr::of(expr, schema, rules)?;
    composed(&key, schema, origins).or_else(|| composed(&key.first_of_coalesce(schema)?, schema, origins))
}

/// `key` over what its columns come from, all of one scan.
fn composed(key: &KeyExpr, schema: &DFSchema, origins: &[Option<ScanExpr>]) -> Option<ScanExpr> {
    if let Some(at) = key.as_column() {
        return origins.get(at)?.clone();
    }
    let scan = origins.get(*key.columns().first()?)?.as_ref()?.0;
    let expr = key.replaced(|part| {
        let at = as_position(part)?;
        let (from, expr) = origins.get(at)?.as_ref()?;
        (*from == scan).then(|| expr.cast(schema.field(at).data_type()).expr().clone())
    })?;
    Some((scan, expr))
}
