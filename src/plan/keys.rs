//! Which columns carry a task's keys: equivalence of columns, in the rows of one node and across a whole plan.
//!
//! Across a plan, columns of scans are grouped by the equalities of joins and filters. These groups only propose
//! how to cut each scan; [`crate::plan::prove`] alone decides, from what holds at each node.

pub mod expr;
mod groups;

use std::collections::{BTreeMap, HashSet};

use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::common::{DFSchema, Result};
use datafusion::logical_expr::utils::{grouping_set_to_exprlist, split_conjunction};
use datafusion::logical_expr::{Distinct, Expr, JoinType, LogicalPlan, Operator, UserDefinedLogicalNode};

use crate::chunk::key::{KeyFamily, key_family};
use crate::plan::keys::expr::{KeyExpr, as_position, is_too_long};
use crate::plan::keys::groups::{GroupId, Groups};
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
    groups: Groups,
    output: Vec<Option<ScanExpr>>,
    rules: Rules,
    left_out: bool,
}

/// Where a query has one expression for so many equal columns, no further ones are made of it.
const MOST_CLOSED: usize = 4096;

impl Classes {
    /// Groups the columns of all scans of `resolved`, and the expressions over them that the query equates.
    pub fn of(resolved: &Resolved, rules: Rules) -> Result<Self> {
        let mut classes = Self { groups: Groups::default(), output: Vec::new(), rules, left_out: false };
        classes.output = classes.visit(&resolved.plan)?;
        classes.close(resolved);
        Ok(classes)
    }

    /// Whether expressions that could be keys were left out, being too long or too many.
    pub fn left_out(&self) -> bool {
        self.left_out
    }

    /// What a key name may mean, most likely first: the output column of that name, then any input's, then those of all
    /// inputs. For each meaning the groups that have the column, or an expression over it alone.
    pub fn named(&self, key: &str, resolved: &Resolved) -> Vec<Vec<Group>> {
        let output = resolved.schema.index_of(key).ok().and_then(|i| self.output.get(i).cloned().flatten());
        let inputs = resolved.scans.iter().enumerate().filter_map(|(scan, s)| {
            let at = s.schema.index_of(key).ok()?;
            Some((scan, KeyExpr::column(at, s.schema.field(at).data_type())))
        });
        let inputs: Vec<ScanExpr> = inputs.collect();
        let mut seen: HashSet<Vec<GroupId>> = HashSet::new();
        let mut found: Vec<Vec<Group>> = Vec::new();
        for column in output.iter().chain(&inputs).cloned() {
            let groups = self.groups.over(column);
            if seen.insert(groups.clone()) {
                found.push(groups.into_iter().map(|group| self.groups.members(group)).collect());
            }
        }
        // Inputs that nothing equates may each be cut by their own column of that name, as the branches of a union are.
        if found.len() > 1 {
            found.push(vec![self.together(&inputs)]);
        }
        found
    }

    /// The groups of columns of one name as one.
    fn together(&self, columns: &[ScanExpr]) -> Group {
        let mut seen: HashSet<ScanExpr> = HashSet::new();
        let members = columns.iter().flat_map(|column| self.groups.members(self.groups.of(column)));
        members.filter(|member| seen.insert(member.clone())).collect()
    }

    /// Whether the query gives a column of this name that comes from an input.
    pub fn is_given(&self, key: &str, resolved: &Resolved) -> bool {
        resolved.schema.index_of(key).is_ok_and(|at| self.output.get(at).is_some_and(Option::is_some))
    }

    /// All groups that may be keys, each with a name, in order of scans and columns.
    pub fn all(&self, resolved: &Resolved) -> Vec<(String, Group)> {
        let mut seen: HashSet<GroupId> = HashSet::new();
        let mut found: Vec<(String, Group)> = Vec::new();
        for (number, scan) in resolved.scans.iter().enumerate() {
            for (at, field) in scan.schema.fields().iter().enumerate() {
                // Structs that the engine made itself are no keys.
                let columns = match scan.bytes > 0 || key_family(field.data_type()).is_some() {
                    true => KeyExpr::all_of_column(at, field, self.rules),
                    false => Vec::new(),
                };
                let columns = columns.into_iter();
                for id in columns.flat_map(|column| self.groups.over((number, column))) {
                    if seen.insert(id.clone()) {
                        let group = self.groups.members(id);
                        let name = group
                            .iter()
                            .find(|(scan, _)| *scan == number)
                            .map(|(_, expr)| expr.shown(|at| scan.schema.field(at).name().clone()));
                        found.push((name.unwrap_or_else(|| field.name().clone()), group));
                    }
                }
            }
        }
        found.extend(self.alike(resolved));
        found
    }

    /// For each column name that several scans have, which nothing equates, the groups of all these columns as one.
    fn alike(&self, resolved: &Resolved) -> Vec<(String, Group)> {
        let mut columns: BTreeMap<(&str, KeyFamily), Vec<ScanExpr>> = BTreeMap::new();
        for (number, scan) in resolved.scans.iter().enumerate() {
            for (at, field) in scan.schema.fields().iter().enumerate() {
                if let Some(family) = key_family(field.data_type()) {
                    let column = (number, KeyExpr::column(at, field.data_type()));
                    columns.entry((field.name(), family)).or_default().push(column);
                }
            }
        }
        let is_one = |columns: &[ScanExpr]| {
            let mut groups = columns.iter().map(|column| self.groups.of(column));
            let first = groups.next();
            groups.all(|group| Some(group) == first)
        };
        let several = columns.into_iter().filter(|(_, columns)| columns.len() > 1 && !is_one(columns));
        several.map(|((name, _), columns)| (name.to_string(), self.together(&columns))).collect()
    }

    /// Where a group has an expression over one column, adds the same over the columns that are equal to that one.
    fn close(&mut self, resolved: &Resolved) {
        let type_of = |scan: usize, at: usize| resolved.scans[scan].schema.field(at).data_type();
        let mut added = Vec::new();
        for (scan, expr) in self.groups.all().filter(|(_, expr)| expr.as_column().is_none()) {
            let [at] = expr.columns().into_iter().collect::<Vec<_>>()[..] else { continue };
            let column = (*scan, KeyExpr::column(at, type_of(*scan, at)));
            for (other, equal) in self.groups.members(self.groups.of(&column)) {
                // A column that equals an expression over itself would be put into itself.
                if equal.as_column().is_none() && other == *scan && equal.has(column.1.expr()) {
                    continue;
                }
                if added.len() == MOST_CLOSED {
                    self.left_out = true;
                    break;
                }
                let equal = equal.cast(type_of(*scan, at));
                let moved = expr.replaced(|part| (as_position(part) == Some(at)).then(|| equal.expr().clone()));
                self.left_out |= moved.as_ref().is_some_and(KeyExpr::is_too_long);
                let moved = moved.filter(|moved| !moved.is_too_long());
                added.extend(moved.map(|moved| ((*scan, expr.clone()), (other, moved))));
            }
        }
        for (known, new) in added {
            self.groups.unite(known, new);
        }
    }

    /// The expression over a scan that an expression passes on; for `coalesce(a, b)` of two scans that of `a`.
    fn origin(&mut self, expr: &Expr, schema: &DFSchema, origins: &[Option<ScanExpr>]) -> Option<ScanExpr> {
        self.left_out |= is_too_long(expr);
        let key = KeyExpr::of(expr, schema, self.rules)?;
        self.composed(&key, schema, origins).or_else(|| self.composed(&key.first_of_coalesce(schema)?, schema, origins))
    }

    /// `key` over what its columns come from, all of one scan.
    fn composed(&mut self, key: &KeyExpr, schema: &DFSchema, origins: &[Option<ScanExpr>]) -> Option<ScanExpr> {
        if let Some(at) = key.as_column() {
            return origins.get(at)?.clone();
        }
        let scan = origins.get(*key.columns().first()?)?.as_ref()?.0;
        let expr = key.replaced(|part| {
            let at = as_position(part)?;
            let (from, expr) = origins.get(at)?.as_ref()?;
            (*from == scan).then(|| expr.cast(schema.field(at).data_type()).expr().clone())
        })?;
        // `k * k` of a column that is `k * k` of another, and so on, doubles each time.
        self.left_out |= expr.is_too_long();
        (!expr.is_too_long()).then_some((scan, expr))
    }

    fn through(&mut self, exprs: &[Expr], input: &LogicalPlan, origins: &[Option<ScanExpr>]) -> Vec<Option<ScanExpr>> {
        exprs.iter().map(|expr| self.origin(expr, input.schema(), origins)).collect()
    }

    /// Visits `plan` and its subqueries; returns the origin of each of its output columns.
    fn visit(&mut self, plan: &LogicalPlan) -> Result<Vec<Option<ScanExpr>>> {
        plan.apply_subqueries(|subquery| {
            self.visit(subquery)?;
            Ok(TreeNodeRecursion::Continue)
        })?;
        let mut inputs = plan.inputs().into_iter().map(|input| self.visit(input)).collect::<Result<Vec<_>>>()?;
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
            LogicalPlan::Projection(node) => self.through(&node.expr, &node.input, &inputs[0]),
            LogicalPlan::Aggregate(node) => {
                let columns: Vec<Expr> = grouping_set_to_exprlist(&node.group_expr)?.into_iter().cloned().collect();
                let origins = self.through(&columns, &node.input, &inputs[0]);
                self.propose(&origins);
                origins
            }
            LogicalPlan::Window(node) => {
                for expr in &node.window_expr {
                    if let Expr::WindowFunction(function) = crate::plan::prove::unaliased(expr) {
                        let by = self.through(&function.params.partition_by, &node.input, &inputs[0]);
                        self.propose(&by);
                    }
                }
                inputs.swap_remove(0)
            }
            LogicalPlan::Distinct(Distinct::On(node)) => {
                let on = self.through(&node.on_expr, &node.input, &inputs[0]);
                self.propose(&on);
                self.through(&node.select_expr, &node.input, &inputs[0])
            }
            LogicalPlan::Unnest(node) => node.dependency_indices.iter().map(|at| inputs[0][*at].clone()).collect(),
            LogicalPlan::Filter(node) => {
                let origins = inputs.swap_remove(0);
                let schema = node.input.schema();
                for (a, b) in equalities(&node.predicate, schema, self.rules) {
                    if let Some(a) = self.composed(&a, schema, &origins)
                        && let Some(b) = self.composed(&b, schema, &origins)
                    {
                        self.groups.unite(a, b);
                    }
                }
                origins
            }
            LogicalPlan::Join(node) => {
                for (l, r) in &node.on {
                    if let Some(l) = self.origin(l, node.left.schema(), &inputs[0])
                        && let Some(r) = self.origin(r, node.right.schema(), &inputs[1])
                    {
                        self.groups.unite(l, r);
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
                            self.groups.unite(a, b);
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
            found.windows(2).for_each(|pair| self.groups.unite(pair[0].clone(), pair[1].clone()));
            of_keys.push(found.into_iter().next());
        }
        let fields = UserDefinedLogicalNode::schema(node).fields().iter();
        let key = |name: &String| of_keys.get(keys.iter().position(|key| key == name)?)?.clone();
        fields.map(|field| key(field.name())).collect()
    }

    /// Makes a group of its own of each expression that is not a bare column and in no group yet.
    fn propose(&mut self, origins: &[Option<ScanExpr>]) {
        for origin in origins.iter().flatten().filter(|origin| origin.1.as_column().is_none()) {
            self.groups.add(origin.clone());
        }
    }
}
