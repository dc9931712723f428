//! The prover: may a task run chunk by chunk?
//!
//! **Claim.** The multiset union over k of `Q(T1|k, …, Tm|k)` equals `Q(T1, …, Tm)`, where `T|k` is the rows of a
//! *partitioned* input whose keys are in chunk k, and the whole of a *replicated* one.
//!
//! Every node gets a property, bottom up: *partitioned* (its chunk-k rows are exactly the rows of the whole whose key
//! is in chunk k) with the output columns that carry each key; or *replicated* (the whole result in every chunk); or a
//! refusal. The guarantee is one-sided: what is accepted is right; what is refused may only be unknown. Operators
//! without an arm of their own are refused.
//!
//! The join rules are those of co-located joins (Citus's pushdown planner, Presto's grouped execution), stated here
//! for slices of rows instead of shards.

use std::collections::BTreeSet;
use std::fmt;

use arrow::datatypes::SchemaRef;
use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::common::{DFSchema, DataFusionError, JoinType};
use datafusion::logical_expr::{
    Aggregate, Distinct, Expr, Join, LogicalPlan, Union, Window, WindowFrameUnits, WindowFunctionDefinition,
};

use crate::chunk::Chunking;
use crate::chunk::key::{KeyFamily, key_family};
use crate::error::{Error, ErrorKind, Result};
use crate::plan::keys::{Classes, ScanColumn, equal_columns, hash_alike, passed_column};
use crate::plan::resolve::{InputSource, Resolved};
use crate::task::Task;

/// At most this many ways to cut the scans are tried for one task.
const MAX_ATTEMPTS: usize = 1024;

/// A plan that may be cut, and how. Only [`prove`] and [`Proof::whole`] make one.
#[derive(Debug, Clone)]
pub struct Proof {
    plan: LogicalPlan,
    schema: SchemaRef,
    keys: Vec<String>,
    chunks: u32,
    inputs: Vec<Input>,
    steps: Vec<Step>,
}

/// One scan of the plan and what every chunk sees of it.
#[derive(Debug, Clone)]
pub struct Input {
    /// Name of the source or task that is read.
    pub table: String,
    /// What a chunk sees.
    pub role: Role,
}

/// What a chunk sees of an input.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Role {
    /// The rows whose keys, in these columns of the scan, are in the chunk.
    Partitioned {
        /// Positions in the scan's schema, one for each key of the task.
        columns: Vec<usize>,
        /// Names of these columns.
        names: Vec<String>,
    },
    /// All rows.
    Replicated {
        /// Why it is not cut.
        why: String,
    },
}

/// What the prover found at one node.
#[derive(Debug, Clone)]
pub struct Step {
    /// Depth of the node in the plan, the root 0.
    pub depth: usize,
    /// The node in a few words.
    pub node: String,
    /// The property and its reason.
    pub finding: String,
}

impl Proof {
    /// A plan that runs whole, as one chunk: nothing is cut, so there is nothing to prove.
    pub fn whole(resolved: &Resolved) -> Self {
        let why = "the task runs whole".to_string();
        let inputs = resolved.scans.iter();
        Self {
            plan: resolved.plan.clone(),
            schema: resolved.schema.clone(),
            keys: Vec::new(),
            chunks: 1,
            inputs: inputs
                .map(|s| Input { table: s.table.clone(), role: Role::Replicated { why: why.clone() } })
                .collect(),
            steps: Vec::new(),
        }
    }

    /// The proved plan, over numbered scans.
    pub fn plan(&self) -> &LogicalPlan {
        &self.plan
    }

    /// Schema of the task's table.
    pub fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    /// Keys as the task names them; empty for a whole task.
    pub fn keys(&self) -> &[String] {
        &self.keys
    }

    /// Number of chunks, at least 1.
    pub fn chunks(&self) -> u32 {
        self.chunks
    }

    /// The scans, by number.
    pub fn inputs(&self) -> &[Input] {
        &self.inputs
    }

    /// What was found at each node, the root first, a node before its inputs.
    pub fn steps(&self) -> &[Step] {
        &self.steps
    }
}

/// Proves that `task` may be cut as `chunking` says, and finds the columns that carry the keys.
///
/// Keys are followed through equalities, so that a key of one input also cuts what is joined on it. Of the ways to
/// cut the scans the one with the most scans cut is taken.
///
/// # Errors
/// [`ErrorKind::Sql`] at the key when no input has it or its type can't be a key; [`ErrorKind::Refused`] with the node,
/// the rule and what to change.
pub fn prove(task: &Task, resolved: &Resolved, chunking: &Chunking) -> Result<Proof> {
    let place = task.keys_location.clone().unwrap_or_else(|| task.location.clone());
    let refuse = |refusal: Refusal| {
        Error::new(ErrorKind::Refused, refusal.to_string()).with_task(&task.name).with_location(place.clone())
    };
    if let Some(function) = &resolved.volatile {
        return Err(refuse(Refusal {
            node: format!("the query calls {function}()"),
            rule: "a volatile function gives new values in every chunk",
            fix: "run the task whole: leave CLUSTERED BY out".into(),
        }));
    }
    let classes = Classes::of(resolved).map_err(|e| internal(e, task))?;
    let mut groups: Vec<Vec<BTreeSet<ScanColumn>>> = Vec::new();
    for key in &chunking.keys {
        let named = classes.named(key, resolved);
        if named.is_empty() {
            return Err(no_such_key(key, resolved).with_task(&task.name).with_location(place));
        }
        groups.push(named);
    }
    let mut first_refusal = None;
    for assignment in assignments(resolved, &groups) {
        match Prover::attempt(resolved, &assignment) {
            Ok(steps) => return Ok(proof(resolved, chunking, &assignment, steps)),
            Err(refusal) => first_refusal = first_refusal.or(Some(refusal)),
        }
    }
    Err(match first_refusal {
        Some(refusal) => refuse(refusal),
        None => no_such_key(&chunking.keys.join(", "), resolved).with_task(&task.name).with_location(place),
    })
}

/// A "no" with its node, the rule, and a way out.
struct Refusal {
    node: String,
    rule: &'static str,
    fix: String,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "can't be cut at {}: {}; {}", self.node, self.rule, self.fix)
    }
}

/// Columns by which each scan is cut; `None` replicates it.
type Assignment = Vec<Option<Vec<usize>>>;

/// What a node's chunk-k rows are.
#[derive(Debug, Clone)]
enum Property {
    Replicated {
        /// Why computing it twice could give different rows, if it could.
        unstable: Option<String>,
    },
    Partitioned {
        /// For each key, the output columns that equal it in every row; empty when the key is no longer visible.
        keys: Vec<BTreeSet<usize>>,
    },
}

use Property::{Partitioned, Replicated};

type Checked<T> = std::result::Result<T, Refusal>;

/// One attempt: the property of every node under one assignment.
struct Prover<'a> {
    assignment: &'a Assignment,
    steps: Vec<Step>,
}

impl<'a> Prover<'a> {
    /// Proves `resolved` under `assignment`; gives what was found at each node.
    fn attempt(resolved: &Resolved, assignment: &'a Assignment) -> Checked<Vec<Step>> {
        check_families(resolved, assignment)?;
        let mut prover = Self { assignment, steps: Vec::new() };
        match prover.property(&resolved.plan, 0)? {
            Partitioned { .. } => Ok(prover.steps),
            Replicated { .. } => Err(Refusal {
                node: "the root".into(),
                rule: "the result does not depend on the chunk, so there is nothing to cut",
                fix: "cut by a column of an input that the result's rows come from".into(),
            }),
        }
    }

    fn property(&mut self, plan: &LogicalPlan, depth: usize) -> Checked<Property> {
        let step = self.steps.len();
        self.steps.push(Step { depth, node: describe(plan), finding: String::new() });
        self.check_subqueries(plan, depth)?;
        let found = match plan {
            LogicalPlan::TableScan(scan) => self.scan(scan)?,
            LogicalPlan::SubqueryAlias(node) => self.property(&node.input, depth + 1)?,
            LogicalPlan::Filter(node) => {
                let mut property = self.property(&node.input, depth + 1)?;
                if let Partitioned { keys } = &mut property {
                    unite_equal(keys, &equal_columns(&node.predicate, node.input.schema()));
                }
                property
            }
            LogicalPlan::Projection(node) => {
                let property = self.property(&node.input, depth + 1)?;
                property.carried(&node.expr, node.input.schema()).map_or(property, |keys| Partitioned { keys })
            }
            LogicalPlan::Sort(node) => {
                let property = self.property(&node.input, depth + 1)?;
                if node.fetch.is_some() {
                    return Err(unsupported(plan));
                }
                property
            }
            LogicalPlan::Join(join) => {
                let left = self.property(&join.left, depth + 1)?;
                let right = self.property(&join.right, depth + 1)?;
                self.join(plan, join, left, right)?
            }
            LogicalPlan::Aggregate(node) => {
                let input = self.property(&node.input, depth + 1)?;
                aggregate(plan, node, input)?
            }
            LogicalPlan::Distinct(Distinct::All(input)) => {
                let property = self.property(input, depth + 1)?;
                match &property {
                    Partitioned { keys } if keys.iter().any(BTreeSet::is_empty) => {
                        return Err(Refusal {
                            node: describe(plan),
                            rule: "equal rows may lie in different chunks, since not every key is among the columns",
                            fix: "select the keys too, or cut by columns that are selected".into(),
                        });
                    }
                    Partitioned { .. } | Replicated { .. } => property,
                }
            }
            LogicalPlan::Union(node) => {
                let branches = node.inputs.iter().map(|i| self.property(i, depth + 1)).collect::<Checked<Vec<_>>>()?;
                union(plan, node, branches)?
            }
            LogicalPlan::Window(node) => {
                let input = self.property(&node.input, depth + 1)?;
                window(plan, node, input)?
            }
            LogicalPlan::Repartition(_)
            | LogicalPlan::EmptyRelation(_)
            | LogicalPlan::Subquery(_)
            | LogicalPlan::Limit(_)
            | LogicalPlan::Statement(_)
            | LogicalPlan::Values(_)
            | LogicalPlan::Explain(_)
            | LogicalPlan::Analyze(_)
            | LogicalPlan::Extension(_)
            | LogicalPlan::Distinct(Distinct::On(_))
            | LogicalPlan::Dml(_)
            | LogicalPlan::Ddl(_)
            | LogicalPlan::Copy(_)
            | LogicalPlan::DescribeTable(_)
            | LogicalPlan::Unnest(_)
            | LogicalPlan::RecursiveQuery(_) => return Err(unsupported(plan)),
        };
        self.steps[step].finding = found.in_words(plan.schema());
        Ok(found)
    }

    /// Subqueries that are still expressions: an uncorrelated scalar one over replicated inputs has one value for all
    /// chunks; nothing else is known to be right.
    fn check_subqueries(&mut self, plan: &LogicalPlan, depth: usize) -> Checked<()> {
        let mut subqueries = Vec::new();
        let mut other = None;
        let visited = plan.apply_expressions(|expr| {
            expr.apply(|e| {
                match e {
                    Expr::ScalarSubquery(s) if s.outer_ref_columns.is_empty() => subqueries.push(s.subquery.clone()),
                    Expr::ScalarSubquery(_) | Expr::Exists(_) | Expr::InSubquery(_) | Expr::SetComparison(_) => {
                        other = Some(e.to_string());
                    }
                    _ => {}
                }
                Ok(TreeNodeRecursion::Continue)
            })
        });
        if let Some(expr) = other.or_else(|| visited.err().map(|e| e.to_string())) {
            return Err(Refusal {
                node: format!("{}, in {}", describe(plan), shortened(&expr)),
                rule: "this subquery can't be turned into a join",
                fix: "write it as a join, or compute it in a task of its own".into(),
            });
        }
        for subquery in subqueries {
            let rule = match self.property(&subquery, depth + 1)? {
                Replicated { unstable: None } => continue,
                Replicated { unstable: Some(_) } => "its scalar subquery may have another value in each chunk",
                Partitioned { .. } => "its scalar subquery reads a cut input, so every chunk would see another value",
            };
            let fix = "compute the subquery in a task of its own and join its output".into();
            return Err(Refusal { node: describe(plan), rule, fix });
        }
        Ok(())
    }

    fn scan(&self, scan: &datafusion::logical_expr::TableScan) -> Checked<Property> {
        let number = scan.source.downcast_ref::<InputSource>().and_then(InputSource::scan);
        let (Some(number), None, true) = (number, scan.fetch, scan.filters.is_empty()) else {
            return Err(Refusal {
                node: format!("scan of {}", scan.table_name),
                rule: "table functions and limited scans are not known to be right in a cut task",
                fix: "compute it in a task of its own, without CLUSTERED BY, and read that".into(),
            });
        };
        Ok(match self.assignment.get(number).cloned().flatten() {
            Some(columns) => Partitioned { keys: columns.into_iter().map(|c| BTreeSet::from([c])).collect() },
            None => Replicated { unstable: None },
        })
    }

    fn join(&self, plan: &LogicalPlan, join: &Join, left: Property, right: Property) -> Checked<Property> {
        let (left_schema, right_schema) = (join.left.schema(), join.right.schema());
        let pairs: Vec<(usize, usize)> = join
            .on
            .iter()
            .filter_map(|(l, r)| Some((passed_column(l, left_schema)?, passed_column(r, right_schema)?)))
            .filter(|(l, r)| hash_alike(left_schema, *l, right_schema, *r))
            .collect();
        // Which side's rows survive a missing match: those must not be replicated against a cut side.
        let (kept_left, kept_right) = match join.join_type {
            JoinType::Inner => (false, false),
            JoinType::Left | JoinType::LeftSemi | JoinType::LeftAnti => (true, false),
            JoinType::Right | JoinType::RightSemi | JoinType::RightAnti => (false, true),
            JoinType::Full | JoinType::LeftMark | JoinType::RightMark => return Err(unsupported(plan)),
        };
        let (left_keys, right_keys) = match (left, right) {
            (Replicated { unstable: l }, Replicated { unstable: r }) => return Ok(Replicated { unstable: l.or(r) }),
            (Partitioned { keys }, Replicated { unstable }) => {
                refuse_unstable(plan, unstable)?;
                if kept_right {
                    return Err(replicated_outer(plan, "left"));
                }
                (keys, None)
            }
            (Replicated { unstable }, Partitioned { keys }) => {
                refuse_unstable(plan, unstable)?;
                if kept_left {
                    return Err(replicated_outer(plan, "right"));
                }
                (vec![BTreeSet::new(); keys.len()], Some(keys))
            }
            (Partitioned { keys: l }, Partitioned { keys: r }) => {
                if join.null_aware {
                    return Err(Refusal {
                        node: describe(plan),
                        rule: "NOT IN over a cut subquery: one NULL in any chunk decides every row",
                        fix: "write NOT EXISTS, or add WHERE … IS NOT NULL and NOT EXISTS".into(),
                    });
                }
                let on_keys = l.iter().zip(&r).all(|(l, r)| pairs.iter().any(|(a, b)| l.contains(a) && r.contains(b)));
                if !on_keys {
                    return Err(Refusal {
                        node: describe(plan),
                        rule: "both sides are cut, but the join's equalities don't pair their keys",
                        fix: format!(
                            "join on {} = {} too, or cut by a column that the join equates",
                            named(&l, left_schema),
                            named(&r, right_schema)
                        ),
                    });
                }
                (l, Some(r))
            }
        };
        let width = left_schema.fields().len();
        let shifted = |keys: Vec<BTreeSet<usize>>| -> Vec<BTreeSet<usize>> {
            keys.into_iter().map(|key| key.into_iter().map(|c| c + width).collect()).collect()
        };
        let keys = match (join.join_type, right_keys) {
            (JoinType::Inner, right_keys) => {
                let right_keys = shifted(right_keys.unwrap_or_else(|| vec![BTreeSet::new(); left_keys.len()]));
                let mut keys: Vec<BTreeSet<usize>> =
                    left_keys.into_iter().zip(right_keys).map(|(l, r)| l.union(&r).copied().collect()).collect();
                unite_equal(&mut keys, &pairs.iter().map(|(l, r)| (*l, r + width)).collect::<Vec<_>>());
                keys
            }
            (JoinType::Right, Some(right_keys)) => shifted(right_keys),
            (JoinType::RightSemi | JoinType::RightAnti, Some(right_keys)) => right_keys,
            _ => left_keys,
        };
        Ok(Partitioned { keys })
    }
}

impl Property {
    /// The keys as columns of a node whose columns are `exprs` over columns of `schema`; `None` when replicated.
    fn carried(&self, exprs: &[Expr], schema: &DFSchema) -> Option<Vec<BTreeSet<usize>>> {
        let Partitioned { keys } = self else { return None };
        let passed: Vec<_> = exprs.iter().map(|e| passed_column(e, schema)).collect();
        let carries = |key: &BTreeSet<usize>| {
            (0..passed.len()).filter(|i| passed[*i].is_some_and(|c| key.contains(&c))).collect()
        };
        Some(keys.iter().map(carries).collect())
    }

    fn in_words(&self, schema: &DFSchema) -> String {
        match self {
            Replicated { unstable: None } => "whole in every chunk".into(),
            Replicated { unstable: Some(why) } => format!("whole in every chunk, but {why}"),
            Partitioned { keys } if keys.iter().any(BTreeSet::is_empty) => "cut; the keys are no longer visible".into(),
            Partitioned { keys } => format!("cut by {}", named(keys, schema)),
        }
    }
}

fn check_families(resolved: &Resolved, assignment: &Assignment) -> Checked<()> {
    let mut families: Option<Vec<KeyFamily>> = None;
    for (scan, columns) in resolved.scans.iter().zip(assignment) {
        let Some(columns) = columns else { continue };
        let mut here = Vec::new();
        for column in columns {
            let field = scan.schema.field(*column);
            here.push(key_family(field.data_type()).ok_or_else(|| Refusal {
                node: format!("input {}, column {} of type {}", scan.table, field.name(), field.data_type()),
                rule: "this type can't be a key",
                fix: "use an integer, text, date, time, timestamp, decimal, float, boolean or binary column".into(),
            })?);
        }
        if families.get_or_insert_with(|| here.clone()) != &here {
            return Err(Refusal {
                node: format!("input {}", scan.table),
                rule: "its key columns hash differently from the other inputs'",
                fix: "CAST the key columns to one type before joining".into(),
            });
        }
    }
    Ok(())
}

fn aggregate(plan: &LogicalPlan, node: &Aggregate, input: Property) -> Checked<Property> {
    if node.group_expr.iter().any(|e| matches!(e, Expr::GroupingSet(_))) {
        return Err(unsupported(plan));
    }
    let Some(keys) = input.carried(&node.group_expr, node.input.schema()) else {
        let Replicated { unstable } = input else { return Err(unsupported(plan)) };
        let unstable = unstable.or_else(|| node.aggr_expr.iter().find_map(order_sensitive_aggregate));
        return Ok(Replicated { unstable });
    };
    if keys.iter().any(BTreeSet::is_empty) {
        let Partitioned { keys } = &input else { return Err(unsupported(plan)) };
        let wanted = named(keys, node.input.schema());
        return Err(Refusal {
            node: describe(plan),
            rule: "rows of one group may lie in different chunks, since it does not group by every key",
            fix: format!("group by {wanted} too, or cut by a column that it groups by"),
        });
    }
    Ok(Partitioned { keys })
}

fn union(plan: &LogicalPlan, node: &Union, branches: Vec<Property>) -> Checked<Property> {
    let mut united: Option<Property> = None;
    for (branch, input) in branches.into_iter().zip(&node.inputs) {
        united = Some(match (united, branch) {
            (None, branch) => branch,
            (Some(Replicated { unstable: a }), Replicated { unstable: b }) => Replicated { unstable: a.or(b) },
            (Some(Partitioned { keys: a }), Partitioned { keys: b }) => {
                let first = node.inputs.first().unwrap_or(input).schema();
                let alike = |c: &usize| hash_alike(first, *c, input.schema(), *c);
                let common = |(a, b): (BTreeSet<usize>, &BTreeSet<usize>)| {
                    a.intersection(b).copied().filter(|c| alike(c)).collect()
                };
                Partitioned { keys: a.into_iter().zip(&b).map(common).collect() }
            }
            (Some(Partitioned { .. }), Replicated { .. }) | (Some(Replicated { .. }), Partitioned { .. }) => {
                return Err(Refusal {
                    node: describe(plan),
                    rule: "one branch is cut and another is not: its rows would repeat in every chunk",
                    fix: "cut every branch (give each a column that carries the key), or make it a task of its own"
                        .into(),
                });
            }
        });
    }
    united.ok_or_else(|| unsupported(plan))
}

fn window(plan: &LogicalPlan, node: &Window, input: Property) -> Checked<Property> {
    let mut unstable = None;
    for expr in &node.window_expr {
        let Expr::WindowFunction(function) = unaliased(expr) else { return Err(unsupported(plan)) };
        let partition_by = &function.params.partition_by;
        let Some(keys) = input.carried(partition_by, node.input.schema()) else {
            unstable = unstable.or_else(|| order_sensitive_window(expr));
            continue;
        };
        if keys.iter().any(BTreeSet::is_empty) {
            let Partitioned { keys } = &input else { return Err(unsupported(plan)) };
            let wanted = named(keys, node.input.schema());
            return Err(Refusal {
                node: describe(plan),
                rule: "rows of one window partition may lie in different chunks, since not every key is in PARTITION BY",
                fix: format!("partition by {wanted} too, or cut by a column that every window partitions by"),
            });
        }
    }
    Ok(match input {
        Replicated { unstable: before } => Replicated { unstable: before.or(unstable) },
        Partitioned { keys } => Partitioned { keys },
    })
}

/// Aggregates whose value does not depend on the order of rows; all others might.
const ORDER_FREE_AGGREGATES: [&str; 20] = [
    "approx_distinct",
    "avg",
    "bit_and",
    "bit_or",
    "bit_xor",
    "bool_and",
    "bool_or",
    "corr",
    "count",
    "covar_pop",
    "covar_samp",
    "max",
    "median",
    "min",
    "stddev",
    "stddev_pop",
    "sum",
    "var",
    "var_pop",
    "grouping",
];

fn order_sensitive_aggregate(expr: &Expr) -> Option<String> {
    match unaliased(expr) {
        Expr::AggregateFunction(f) if ORDER_FREE_AGGREGATES.contains(&f.func.name()) => None,
        Expr::AggregateFunction(f) => Some(format!("{}() may depend on the order of rows", f.func.name())),
        other => Some(format!("{other} is not known to be independent of the order of rows")),
    }
}

fn order_sensitive_window(expr: &Expr) -> Option<String> {
    let Expr::WindowFunction(f) = unaliased(expr) else { return Some("a window is not known to be stable".into()) };
    let free = match &f.fun {
        WindowFunctionDefinition::AggregateUDF(udf) => {
            let peers_together = f.params.window_frame.units != WindowFrameUnits::Rows
                || (f.params.window_frame.start_bound.is_unbounded() && f.params.window_frame.end_bound.is_unbounded());
            ORDER_FREE_AGGREGATES.contains(&udf.name()) && peers_together
        }
        WindowFunctionDefinition::WindowUDF(udf) => {
            ["rank", "dense_rank", "percent_rank", "cume_dist"].contains(&udf.name())
        }
    };
    (!free).then(|| format!("{} over ties may depend on the order of rows", f.fun.name()))
}

/// Adds to each key the columns that are equal to one of its own.
fn unite_equal(keys: &mut [BTreeSet<usize>], pairs: &[(usize, usize)]) {
    for key in keys {
        loop {
            let before = key.len();
            for (a, b) in pairs {
                if key.contains(a) || key.contains(b) {
                    key.extend([a, b]);
                }
            }
            if key.len() == before {
                break;
            }
        }
    }
}

fn refuse_unstable(plan: &LogicalPlan, unstable: Option<String>) -> Checked<()> {
    let Some(why) = unstable else { return Ok(()) };
    Err(Refusal {
        node: format!("{} ({why})", describe(plan)),
        rule: "every chunk computes the replicated side again and must see the same rows",
        fix: "compute that side in a task of its own and read its output".into(),
    })
}

fn replicated_outer(plan: &LogicalPlan, side: &str) -> Refusal {
    Refusal {
        node: describe(plan),
        rule: "the side whose unmatched rows are kept is whole in every chunk, so they would repeat",
        fix: format!("cut by a column that the join equates, or keep the rows of the {side} side instead"),
    }
}

fn unsupported(plan: &LogicalPlan) -> Refusal {
    Refusal {
        node: describe(plan),
        rule: "this operator is not known to be right in a cut task",
        fix: "put it in a task of its own, without CLUSTERED BY, that reads this one's output".into(),
    }
}

fn unaliased(expr: &Expr) -> &Expr {
    match expr {
        Expr::Alias(alias) => unaliased(&alias.expr),
        other => other,
    }
}

/// The keys by column name, as `a` or `(a, b)`.
fn named(keys: &[BTreeSet<usize>], schema: &DFSchema) -> String {
    let name = |key: &BTreeSet<usize>| match key.first() {
        Some(column) => schema.field(*column).name().clone(),
        None => "(a key that is not visible here)".into(),
    };
    match keys {
        [key] => name(key),
        keys => format!("({})", keys.iter().map(name).collect::<Vec<_>>().join(", ")),
    }
}

fn describe(plan: &LogicalPlan) -> String {
    match plan {
        LogicalPlan::Join(join) => {
            let on: Vec<_> = join.on.iter().map(|(l, r)| format!("{l} = {r}")).collect();
            let on = if on.is_empty() { "nothing".into() } else { on.join(" AND ") };
            shortened(&format!("{} join on {on}", join.join_type.to_string().to_lowercase()))
        }
        other => shortened(&other.display().to_string()),
    }
}

fn shortened(text: &str) -> String {
    const WIDTH: usize = 120;
    match text.char_indices().nth(WIDTH) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_string(),
    }
}

/// Ways to cut the scans, those that cut most first: per choice of groups for the keys, every subset of the scans
/// that have a column of each.
fn assignments(resolved: &Resolved, groups: &[Vec<BTreeSet<ScanColumn>>]) -> Vec<Assignment> {
    let mut found = Vec::new();
    for choice in product(groups) {
        let tuples: Vec<Vec<Vec<usize>>> = (0..resolved.scans.len())
            .map(|scan| {
                let columns: Vec<Vec<usize>> = choice
                    .iter()
                    .map(|group| group.iter().filter(|(s, _)| *s == scan).map(|(_, column)| *column).collect())
                    .collect();
                product(&columns)
            })
            .collect();
        let cuttable: Vec<usize> = (0..tuples.len()).filter(|scan| !tuples[*scan].is_empty()).collect();
        // Beyond ten scans only the whole set and those without one scan are tried: 2^n would be too many.
        let all = (1u64 << cuttable.len().min(63)) - 1;
        let mut masks: Vec<u64> = match cuttable.len() {
            0 => continue,
            1..=10 => (1..=all).collect(),
            n => std::iter::once(all).chain((0..n.min(63)).map(|i| all & !(1 << i))).collect(),
        };
        masks.sort_by_key(|mask| std::cmp::Reverse(mask.count_ones()));
        for mask in masks {
            let choices: Vec<Vec<Option<Vec<usize>>>> = tuples
                .iter()
                .enumerate()
                .map(|(scan, tuples)| match cuttable.iter().position(|c| *c == scan) {
                    Some(bit) if mask & (1 << bit) != 0 => tuples.iter().cloned().map(Some).collect(),
                    _ => vec![None],
                })
                .collect();
            found.extend(product(&choices).into_iter().take(MAX_ATTEMPTS));
            if found.len() >= MAX_ATTEMPTS {
                return found;
            }
        }
    }
    found
}

/// The cartesian product, cut off at [`MAX_ATTEMPTS`].
fn product<T: Clone>(choices: &[Vec<T>]) -> Vec<Vec<T>> {
    choices.iter().fold(vec![Vec::new()], |rows, choice| {
        let extended = rows.iter().flat_map(|row| {
            choice.iter().map(move |item| row.iter().cloned().chain([item.clone()]).collect::<Vec<_>>())
        });
        extended.take(MAX_ATTEMPTS).collect()
    })
}

fn proof(resolved: &Resolved, chunking: &Chunking, assignment: &Assignment, steps: Vec<Step>) -> Proof {
    let role = |(scan, columns): (usize, &Option<Vec<usize>>)| {
        let table = resolved.scans[scan].table.clone();
        let schema = &resolved.scans[scan].schema;
        let role = match columns {
            Some(columns) => Role::Partitioned {
                columns: columns.clone(),
                names: columns.iter().map(|c| schema.field(*c).name().clone()).collect(),
            },
            None => Role::Replicated { why: "no join equates its columns with every key".into() },
        };
        Input { table, role }
    };
    Proof {
        plan: resolved.plan.clone(),
        schema: resolved.schema.clone(),
        keys: chunking.keys.clone(),
        chunks: chunking.chunks,
        inputs: assignment.iter().enumerate().map(role).collect(),
        steps,
    }
}

fn no_such_key(key: &str, resolved: &Resolved) -> Error {
    let inputs = resolved.scans.iter().map(|scan| {
        let columns: Vec<_> = scan.schema.fields().iter().map(|f| f.name().as_str()).collect();
        format!("{} ({})", scan.table, columns.join(", "))
    });
    let inputs: BTreeSet<_> = inputs.collect();
    let inputs = inputs.into_iter().collect::<Vec<_>>().join("; ");
    Error::new(ErrorKind::Sql, format!("no input of the query has the key `{key}`; the inputs are: {inputs}"))
}

fn internal(error: DataFusionError, task: &Task) -> Error {
    Error::new(ErrorKind::Sql, "the query can't be analysed")
        .with_source(error)
        .with_task(&task.name)
        .with_location(task.location.clone())
}
