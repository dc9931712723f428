//! The rules of the prover, one for each operator.

use std::collections::BTreeMap;

use arrow::datatypes::DataType;
use datafusion::common::JoinType;
use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::logical_expr::{Distinct, Expr, LogicalPlan, TableScan, Union};

use crate::chunk::key::KeyFamily;
use crate::plan::keys::equalities;
use crate::plan::keys::expr::KeyExpr;
use crate::plan::opaque::OpaqueNode;
use crate::plan::prove::Search;
use crate::plan::prove::assign::{Assignment, Blocked};
use crate::plan::prove::effort::Effort;
use crate::plan::prove::join::joined;
use crate::plan::prove::operators::{aggregate, distinct, distinct_on, limit, projection, unnest, window};
use crate::plan::prove::proof::Step;
use crate::plan::prove::property::Property::{Partitioned, Replicated};
use crate::plan::prove::property::{Key, Property};
use crate::plan::prove::refusal::{Checked, Refusal, describe, shortened, unsupported};
use crate::plan::prove::rule::{Rule, Rules};
use crate::plan::prove::subject::{Cuts, PartFound, Subject};
use crate::plan::resolve::{InputSource, Resolved, scan_numbers, volatile_call};

/// What holds of a plan that may be cut.
pub struct Accepted {
    /// What was found at each node.
    pub steps: Vec<Step>,
    /// The keys among the plan's columns.
    pub keys: Vec<Key>,
    /// The keys over the columns of nodes where all of them are visible, by the way to each from the root.
    pub visible: BTreeMap<Vec<usize>, Vec<KeyExpr>>,
    /// Nodes that chunk 0 alone computes: the way to each from the root, by number of the input.
    pub once: Vec<Vec<usize>>,
}

/// A refusal and the node that was refused; none for the plan as a whole.
#[derive(Debug)]
pub struct Refused {
    /// Why.
    pub refusal: Box<Refusal>,
    /// The node.
    pub at: Option<Box<LogicalPlan>>,
    /// Which other ways to cut are refused for the same reason.
    pub blocked: Blocked,
}

/// Proves the plan of `subject` with its scans cut as `assignment` says, by keys of these names.
///
/// Where the plan's top operator is the chunks' part of one done in two phases, what is stored is exactly what each
/// chunk gives, so only the operator's input has to be cut.
pub fn attempt(
    subject: &Subject,
    assignment: &Assignment,
    keys: &[String],
    search: Search,
) -> Result<Accepted, Refused> {
    let whole = |refusal: Box<Refusal>| Refused { refusal, at: None, blocked: Blocked::Unknown };
    check_families(subject.resolved, assignment).map_err(whole)?;
    let found = prove(subject, assignment, keys, search, false)?;
    let keys_of_root = match &found.property {
        Partitioned { keys } => keys.clone(),
        Replicated { .. } if !search.rules.ask(Rule::ScalarSubquery) => Vec::new(),
        Replicated { .. } => {
            let fix = "cut by a column of an input that the result's rows come from";
            return Err(whole(Box::new(Refusal::of("the root".into(), NOTHING_CUT, fix))));
        }
    };
    // Words are made only for what is accepted, since most attempts are not.
    let Proved { steps, visible, once, property: _ } = prove(subject, assignment, keys, search, true)?;
    Ok(Accepted { steps, keys: keys_of_root, visible, once })
}

/// What one attempt found.
struct Proved {
    property: Property,
    steps: Vec<Step>,
    visible: BTreeMap<Vec<usize>, Vec<KeyExpr>>,
    once: Vec<Vec<usize>>,
}

fn prove(
    subject: &Subject,
    assignment: &Assignment,
    keys: &[String],
    Search { is_phase, rules, effort, task: _, chunking: _ }: Search,
    tells: bool,
) -> Result<Proved, Refused> {
    let (steps, visible, way, once) = (Vec::new(), BTreeMap::new(), Vec::new(), Vec::new());
    let cuts = subject.cuts(assignment);
    let mut prover =
        Prover { subject, cuts, assignment, keys, rules, effort, tells, steps, visible, refused: None, way, once };
    let found = match is_phase {
        true => prover.phase(&subject.resolved.plan),
        false => prover.root(&subject.resolved.plan),
    };
    match found {
        Ok(property) => {
            let Prover { steps, visible, once, .. } = prover;
            Ok(Proved { property, steps, visible, once })
        }
        Err(refusal) => {
            let blocked = prover.refused.as_ref().map_or(Blocked::Unknown, |at| blocked(&refusal, at));
            let at = prover.refused.filter(|_| !refusal.is_final).map(Box::new);
            Err(Refused { refusal, at, blocked })
        }
    }
}

/// Which ways to cut no more than a refused one does are refused as well. Where less is cut, fewer columns carry a key,
/// not more; so what needs more columns to carry it is refused as long as it is cut at all.
fn blocked(refusal: &Refusal, at: &LogicalPlan) -> Blocked {
    // DataFusion's visitors don't fail.
    let scans = |plan: &LogicalPlan| scan_numbers(plan).unwrap_or_default();
    let is_rule = |rules: &[Rule]| rules.iter().any(|rule| rule.reason() == refusal.rule);
    match at {
        _ if is_rule(&[Rule::Volatile]) => Blocked::All,
        LogicalPlan::Join(join) if is_rule(&[Rule::JoinOnKeys, Rule::NullAware]) => {
            Blocked::Both(scans(&join.left), scans(&join.right))
        }
        _ if is_rule(&[
            Rule::GroupByKeys,
            Rule::DistinctKeys,
            Rule::DistinctOnKeys,
            Rule::PartitionByKeys,
            Rule::Limit,
            Rule::Recursion,
            Rule::KeptSide,
        ]) =>
        {
            Blocked::Any(scans(at))
        }
        _ => Blocked::Unknown,
    }
}

/// What is wrong with a key of a type that has no chunk function, and what to do.
pub fn no_key_type(data_type: &DataType) -> (&'static str, &'static str) {
    let fix = match data_type {
        // A source's files have no value of it to infer a type from.
        DataType::Null => "declare the columns with their types",
        _ => "use an integer, text, date, time, timestamp, decimal, float, boolean or binary column",
    };
    ("this type can't be a key", fix)
}

/// What is wrong where only a scalar subquery is cut.
const NOTHING_CUT: &str = "the result does not depend on the chunk, so there is nothing to cut";

/// Stands in a way for a subquery that is an expression.
const SUBQUERY: usize = usize::MAX;

/// One attempt: the property of every node under one assignment.
struct Prover<'a> {
    subject: &'a Subject<'a>,
    cuts: Cuts,
    assignment: &'a Assignment,
    keys: &'a [String],
    rules: Rules,
    effort: &'a Effort,
    /// Whether what is found is kept, and put in words.
    tells: bool,
    steps: Vec<Step>,
    visible: BTreeMap<Vec<usize>, Vec<KeyExpr>>,
    /// The first node that was refused.
    refused: Option<LogicalPlan>,
    /// The way from the root to the node at hand.
    way: Vec<usize>,
    once: Vec<Vec<usize>>,
}

impl Prover<'_> {
    /// The property of `plan`, which is input number `at` of the node at hand.
    fn property(&mut self, plan: &LogicalPlan, at: usize) -> Checked<Property> {
        self.way.push(at);
        let found = self.root(plan)?;
        self.way.pop();
        Ok(found)
    }

    /// The property of a plan at the end of the way.
    fn root(&mut self, plan: &LogicalPlan) -> Checked<Property> {
        if let Some(PartFound { property, has_once }) = self.subject.found(plan, &self.cuts).filter(|_| !self.tells) {
            self.effort.node();
            self.once.extend(has_once.then(|| self.way.clone()));
            return Ok(property);
        }
        let before = self.once.len();
        let found = self.rule(plan);
        match &found {
            Ok(property) => {
                let (property, has_once) = (property.clone(), self.once.len() > before);
                self.subject.keep(plan, &self.cuts, PartFound { property, has_once });
            }
            Err(_) => drop(self.refused.get_or_insert_with(|| plan.clone())),
        }
        found
    }

    /// The chunks' part of an operator that is done in two phases, below projections that name its columns and make
    /// them such as can be stored.
    fn phase(&mut self, plan: &LogicalPlan) -> Checked<Property> {
        let mut operator = plan;
        while let LogicalPlan::Projection(node) = operator {
            self.way.push(0);
            operator = &node.input;
        }
        let [input] = operator.inputs()[..] else { return Err(unsupported(plan)) };
        if self.tells {
            let finding = "each chunk does its part; a later step puts the parts together".into();
            self.steps.push(Step { depth: 0, node: describe(operator), finding });
        }
        self.check_volatile(operator)?;
        self.check_subqueries(operator)?;
        match self.property(input, 0)? {
            Partitioned { keys } => {
                Ok(Partitioned { keys: keys.iter().map(|key| key.moved(|_| Vec::new())).collect() })
            }
            replicated => Ok(replicated),
        }
    }

    fn rule(&mut self, plan: &LogicalPlan) -> Checked<Property> {
        let (step, depth, rules) = (self.steps.len(), self.way.len(), self.rules);
        self.effort.node();
        if self.tells {
            self.steps.push(Step { depth, node: describe(plan), finding: String::new() });
        }
        self.check_volatile(plan)?;
        self.check_subqueries(plan)?;
        let found = match plan {
            LogicalPlan::TableScan(scan) => self.scan(scan)?,
            LogicalPlan::EmptyRelation(_) | LogicalPlan::Values(_) => Replicated { unstable: None },
            LogicalPlan::SubqueryAlias(node) => self.property(&node.input, 0)?,
            LogicalPlan::Filter(node) => {
                let mut property = self.property(&node.input, 0)?;
                if let Partitioned { keys } = &mut property {
                    let pairs = equalities(&node.predicate, node.input.schema(), rules);
                    keys.iter_mut().for_each(|key| key.unite(&pairs));
                }
                property
            }
            LogicalPlan::Projection(node) => {
                let property = self.property(&node.input, 0)?;
                projection(plan, property.through(&node.expr, node.input.schema(), rules), rules)
            }
            LogicalPlan::Sort(node) => {
                let property = self.property(&node.input, 0)?;
                if node.fetch.is_some() { limit(plan, property, rules)? } else { property }
            }
            LogicalPlan::Limit(node) => limit(plan, self.property(&node.input, 0)?, rules)?,
            LogicalPlan::Join(join) => {
                let left = self.property(&join.left, 0)?;
                let right = self.property(&join.right, 1)?;
                joined(plan, join, left, right, rules)?
            }
            LogicalPlan::Aggregate(node) => aggregate(plan, node, self.property(&node.input, 0)?, rules)?,
            LogicalPlan::Distinct(Distinct::All(input)) => distinct(plan, self.property(input, 0)?, rules)?,
            LogicalPlan::Distinct(Distinct::On(node)) => {
                distinct_on(plan, node, self.property(&node.input, 0)?, rules)?
            }
            LogicalPlan::Union(node) => self.union(plan, node)?,
            LogicalPlan::Window(node) => window(plan, node, self.property(&node.input, 0)?, rules)?,
            LogicalPlan::Unnest(node) => unnest(node, self.property(&node.input, 0)?),
            LogicalPlan::RecursiveQuery(node) => {
                let first = self.property(&node.static_term, 0)?;
                match (first, self.property(&node.recursive_term, 1)?) {
                    (Replicated { unstable: a }, Replicated { unstable: b }) => Replicated { unstable: a.or(b) },
                    _ if rules.ask(Rule::Recursion) => {
                        let fix = "put it in a task of its own, without CLUSTERED BY, that reads this one's output";
                        return Err(Box::new(Refusal::new(plan, Rule::Recursion, fix)));
                    }
                    _ => Partitioned { keys: Vec::new() },
                }
            }
            LogicalPlan::Extension(extension) if let Some(node) = OpaqueNode::of(extension) => {
                self.function(plan, node)?
            }
            LogicalPlan::Repartition(_)
            | LogicalPlan::Subquery(_)
            | LogicalPlan::Statement(_)
            | LogicalPlan::Explain(_)
            | LogicalPlan::Analyze(_)
            | LogicalPlan::Extension(_)
            | LogicalPlan::Dml(_)
            | LogicalPlan::Ddl(_)
            | LogicalPlan::Copy(_)
            | LogicalPlan::DescribeTable(_) => return Err(unsupported(plan)),
        };
        if found.left_out() {
            self.effort.leave_out_keys();
        }
        if self.tells {
            self.steps[step].finding = found.in_words(plan.schema());
            if let Some(keys) = found.visible() {
                self.visible.insert(self.way.clone(), keys);
            }
        }
        Ok(found)
    }

    /// Volatile functions give each row a value of its own in a projection; anywhere else they decide about rows that
    /// other chunks decide about too.
    fn check_volatile(&self, plan: &LogicalPlan) -> Checked<()> {
        if matches!(plan, LogicalPlan::Projection(_)) || !self.rules.ask(Rule::Volatile) {
            return Ok(());
        }
        let Some(function) = volatile_call(plan) else { return Ok(()) };
        let fix = "call it in a SELECT list below, so that each row has one value of it, or run the task whole: leave \
                   CLUSTERED BY out";
        let node = format!("{}, which calls {function}()", describe(plan));
        Err(Box::new(Refusal::of(node, Rule::Volatile.reason(), fix)))
    }

    /// Subqueries that are still expressions: an uncorrelated scalar one over replicated inputs has one value for all
    /// chunks; nothing else is known to be right.
    fn check_subqueries(&mut self, plan: &LogicalPlan) -> Checked<()> {
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
            let fix = "write it as a join, or compute it in a task of its own";
            let node = format!("{}, in {}", describe(plan), shortened(&expr));
            return Err(Box::new(Refusal::of(node, "this subquery can't be turned into a join", fix)));
        }
        for subquery in subqueries {
            // What is once in it would be NULL elsewhere, and its nodes can't be reached from the root.
            let once = self.once.len();
            let found = self.property(&subquery, SUBQUERY);
            let mixes = self.once.len() > once;
            self.once.truncate(once);
            let reason = match found {
                Ok(Replicated { unstable: None }) if !mixes => continue,
                Ok(Replicated { unstable: Some(_) }) if !self.rules.ask(Rule::Stable) => continue,
                Ok(Partitioned { .. }) if !self.rules.ask(Rule::ScalarSubquery) => continue,
                Ok(Replicated { unstable: Some(_) }) => "its scalar subquery may have another value in each chunk",
                Ok(Replicated { unstable: None } | Partitioned { .. }) => Rule::ScalarSubquery.reason(),
                // Where it has no row it gives NULL, by an outer join that nobody wrote.
                Err(_) if is_null_without_rows(&subquery) => Rule::ScalarSubquery.reason(),
                Err(refusal) => return Err(refusal),
            };
            let fix = "compute the subquery in a task of its own and join its output";
            return Err(Box::new(Refusal::of(describe(plan), reason, fix).run_first(&subquery)));
        }
        Ok(())
    }

    fn scan(&self, scan: &TableScan) -> Checked<Property> {
        if scan.fetch.is_some() || !scan.filters.is_empty() {
            let fix = "compute it in a task of its own, without CLUSTERED BY, and read that";
            let rule = "scans with a limit or filter of their own are not known to be right in a cut task";
            return Err(Box::new(Refusal::of(format!("scan of {}", scan.table_name), rule, fix)));
        }
        // Without a number it is a table function over constants, or the rows of a recursive query so far.
        let number = scan.source.downcast_ref::<InputSource>().and_then(InputSource::scan);
        let exprs = number.and_then(|number| self.assignment.get(number).cloned().flatten());
        Ok(match exprs {
            Some(exprs) => {
                let (schema, columns) = (&scan.projected_schema, scan.projected_schema.columns());
                let mut keys: Vec<Key> = self.keys.iter().zip(exprs).map(|(name, e)| Key::new(name, e)).collect();
                keys.iter_mut().for_each(|key| key.exprs.retain(|expr| expr.is_of_equals(&columns, schema)));
                Partitioned { keys }
            }
            None => Replicated { unstable: None },
        })
    }

    /// A function over rows is cut where its author says that it may be, by his keys; that its inputs are cut so is proved.
    fn function(&mut self, plan: &LogicalPlan, node: &OpaqueNode) -> Checked<Property> {
        // No part of it is a step that would help.
        let refused =
            |at: String, rule, fix: &str| Err(Box::new(Refusal { is_final: true, ..Refusal::of(at, rule, fix) }));
        let cut = node.cut().filter(|cut| cut.keys == self.keys);
        let mut is_cut = false;
        let mut whole = None;
        for (at, (name, input)) in node.named_inputs().enumerate() {
            let keys = match self.property(input, at)? {
                Replicated { unstable: None } => {
                    whole = whole.or(cut.filter(|cut| cut.asks_to_cut(name, input)).map(|_| name));
                    continue;
                }
                Replicated { unstable: Some(why) } => {
                    let node = format!("{}, whose input {name} may be another in each chunk: {why}", describe(plan));
                    let fix = "compute that input in a task of its own";
                    return Err(Box::new(Refusal::of(node, Rule::Stable.reason(), fix).run_first(input)));
                }
                Partitioned { keys } => keys,
            };
            is_cut = true;
            let Some(cut) = cut else {
                let fix = "say why it may be with Task::assume_chunkable, and by which keys, or run it whole";
                return refused(describe(plan), "what a function does with rows can't be proved", fix);
            };
            let has = |(key, column): (&Key, &String)| {
                let at = input.schema().index_of_column_by_name(None, column);
                key.exprs.iter().any(|expr| expr.as_column().is_some_and(|found| Some(found) == at))
            };
            // Predicates of inputs are the author's word, too.
            if !cut.is_per_input && !keys.iter().zip(cut.columns(name)).all(has) {
                let columns = cut.columns(name).join(", ");
                let fix = format!(
                    "give the input the columns {columns}, or name those of a source or task with Task::input, or replicate it"
                );
                let rule = "a function is cut by the columns that its author names, and this input is not";
                return refused(format!("input {name} of {}", describe(plan)), rule, &fix);
            }
        }
        match whole {
            Some(name) if is_cut => {
                let rule = "it has the keys that a function is cut by, and can't be cut by them";
                let fix = "put it in a task of its own, or give it to each chunk whole with Task::replicate";
                refused(format!("input {name} of {}", describe(plan)), rule, fix)
            }
            _ if !is_cut => Ok(Replicated { unstable: None }),
            _ => Ok(Partitioned { keys: self.keys.iter().map(|name| Key::invisible(name)).collect() }),
        }
    }

    /// Branches that are whole, where others are cut, are given to chunk 0 alone. The keys are then no longer visible.
    fn union(&mut self, plan: &LogicalPlan, node: &Union) -> Checked<Property> {
        let mut branches = Vec::new();
        for (at, input) in node.inputs.iter().enumerate() {
            branches.push(self.property(input, at)?);
        }
        let is_whole = |branch: &Property| matches!(branch, Replicated { .. });
        if branches.iter().all(is_whole) {
            let unstable = branches.into_iter().find_map(|branch| match branch {
                Replicated { unstable } => unstable,
                Partitioned { .. } => None,
            });
            return Ok(Replicated { unstable });
        }
        let is_mixed = branches.iter().any(is_whole);
        for (at, _) in branches.iter().enumerate().filter(|(_, branch)| is_whole(branch)) {
            if self.rules.ask(Rule::UnionOnce) {
                self.once.push(self.way.iter().copied().chain([at]).collect());
            }
        }
        let mut common: Option<Vec<Key>> = None;
        for branch in branches {
            let Partitioned { keys } = branch else { continue };
            common = Some(match common {
                None => keys,
                Some(before) => before.into_iter().zip(&keys).map(|(a, b)| in_both(a, b, self.rules)).collect(),
            });
        }
        let mut keys = common.ok_or_else(|| unsupported(plan))?;
        if is_mixed {
            keys.iter_mut().for_each(|key| key.exprs.clear());
        }
        Ok(Partitioned { keys })
    }
}

/// What carries a key in both branches of a union.
fn in_both(mut a: Key, b: &Key, rules: Rules) -> Key {
    if rules.ask(Rule::UnionKeys) {
        a.exprs.retain(|expr| b.exprs.contains(expr));
    }
    a
}

/// That the keys of all inputs that are cut have a chunk function, and the same one.
pub fn check_families(resolved: &Resolved, assignment: &Assignment) -> Checked<()> {
    let mut families: Option<Vec<Option<KeyFamily>>> = None;
    for (scan, exprs) in resolved.scans.iter().zip(assignment) {
        let Some(exprs) = exprs else { continue };
        let here: Vec<_> = exprs.iter().map(KeyExpr::family).collect();
        if let Some(at) = here.iter().position(Option::is_none) {
            let name = exprs[at].shown(|at| scan.schema.field(at).name().clone());
            let node = format!("input {}, {name} of type {}", scan.table, exprs[at].data_type());
            let (rule, fix) = no_key_type(exprs[at].data_type());
            return Err(Box::new(Refusal::of(node, rule, fix)));
        }
        if families.get_or_insert_with(|| here.clone()) != &here {
            let rule = "its key columns hash differently from the other inputs'";
            let fix = "CAST the key columns to one type before joining";
            return Err(Box::new(Refusal::of(format!("input {}", scan.table), rule, fix)));
        }
    }
    Ok(())
}

/// Whether a subquery's rows are joined to one row, so that there is always one.
fn is_null_without_rows(subquery: &LogicalPlan) -> bool {
    match subquery {
        LogicalPlan::Projection(projection) => is_null_without_rows(&projection.input),
        LogicalPlan::SubqueryAlias(alias) => is_null_without_rows(&alias.input),
        LogicalPlan::Join(join) => {
            let is_one_row =
                |plan: &LogicalPlan| matches!(plan, LogicalPlan::EmptyRelation(empty) if empty.produce_one_row);
            join.join_type == JoinType::Left && is_one_row(&join.left)
        }
        _ => false,
    }
}
