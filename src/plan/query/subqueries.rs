//! Subqueries that DataFusion computes wrongly, or not at all.
//!
//! DataFusion makes joins of `EXISTS`, `IN` and subqueries that give a value, where they stand in WHERE and are plain
//! enough. For others it gives up, or brings a filter above an aggregate, a window or a limit that it belongs
//! below; it takes `x IN (…)` for false where it is NULL; and it does not know of aggregates without groups that they
//! always have a row. What it does rightly stays with it ([`shape`]). All else becomes, from inside out,
//!
//! - a constant, where rows are always or never there;
//! - a comparison with the value, where there is exactly one row;
//! - `EXISTS`, of the rows for which a comparison holds, and of those for which it is NULL;
//! - a join with the subquery, computed for all rows of the query around it at once ([`unnest`]).
//!
//! LATERAL likewise.

mod lateral;
mod shape;
mod unnest;

use std::collections::BTreeSet;
use std::sync::Arc;

use datafusion::common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion::common::{Column, Diagnostic, NullEquality, Result, ScalarValue, Span, plan_err};
use datafusion::functions_aggregate::expr_fn::count;
use datafusion::logical_expr::expr::{Exists, InSubquery, SetComparison, SetQuantifier};
use datafusion::logical_expr::expr_rewriter::NamePreserver;
use datafusion::logical_expr::{
    BinaryExpr, Expr, ExprSchemable, Filter, JoinType, LogicalPlan, LogicalPlanBuilder, Operator, Projection, Subquery,
    lit, when,
};

use crate::arithmetic::mixed::comparison;
use crate::plan::query::subqueries::shape::{
    Existence, aggregates_rightly, differs, existence, has_subquery, is_correlated, is_one_empty_row, is_one_row,
    is_one_row_at_most, joins_rightly, outer_columns, rows_of, subquery_of,
};
use crate::plan::query::subqueries::unnest::{Domain, Names, Unnested, more_than, unnest, with_subquery};

/// The plan in which every subquery is one that DataFusion computes rightly.
///
/// # Errors
/// At its place, as far as that is known: a subquery of which that can't be made.
pub(super) fn mend(plan: LogicalPlan) -> Result<LogicalPlan> {
    Mend::default().plan(plan)
}

#[derive(Default)]
struct Mend {
    names: Names,
}

/// Where an expression stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    /// It is a condition of WHERE, or one of several that must all hold.
    Condition,
    /// It is a part of one, by AND and OR alone: NULL is as good as false.
    WithinCondition,
    /// NULL is not false.
    Value,
}

impl Place {
    fn is_condition(self) -> bool {
        self != Self::Value
    }
}

/// A node's input, to which what subqueries give is joined.
struct Input {
    plan: LogicalPlan,
    /// It without what is joined.
    own: LogicalPlan,
    /// Whether the node is a filter, of whose subqueries DataFusion makes joins.
    is_filtered: bool,
}

impl Input {
    fn new(plan: &LogicalPlan, is_filtered: bool) -> Self {
        Self { plan: plan.clone(), own: plan.clone(), is_filtered }
    }

    /// The smaller of the plans with these columns, among which may be what other subqueries gave.
    fn with(&self, columns: &[Column]) -> &LogicalPlan {
        let is_own = columns.iter().all(|column| self.own.schema().has_column(column));
        if is_own { &self.own } else { &self.plan }
    }
}

impl Mend {
    fn plan(&self, plan: LogicalPlan) -> Result<LogicalPlan> {
        plan.transform_up(|node| self.node(node)).map(|mended| mended.data)
    }

    fn node(&self, node: LogicalPlan) -> Result<Transformed<LogicalPlan>> {
        if let LogicalPlan::Join(join) = &node
            && let Some(joined) = lateral::joined(join, self)?
        {
            return Ok(Transformed::yes(joined));
        }
        if let LogicalPlan::Aggregate(aggregate) = &node {
            aggregate.aggr_expr.iter().try_for_each(refuse_outer_aggregates)?;
        }
        let mut has = false;
        node.apply_expressions(|expr| {
            has |= has_subquery(expr);
            Ok(if has { TreeNodeRecursion::Stop } else { TreeNodeRecursion::Continue })
        })?;
        if !has {
            return Ok(Transformed::no(node));
        }
        let place = first_place(&node);
        let mended = match node {
            LogicalPlan::Filter(filter) => self.filter(filter),
            LogicalPlan::Projection(projection) => self.projection(projection),
            other => self.other(other),
        };
        mended.map(Transformed::yes).map_err(|error| match (error.diagnostic(), place) {
            (None, Some(place)) => error.with_diagnostic(Diagnostic::new_error("here", Some(place))),
            _ => error,
        })
    }

    fn filter(&self, filter: Filter) -> Result<LogicalPlan> {
        let columns = filter.input.schema().columns();
        let mut input = Input::new(&filter.input, true);
        let predicate = self.expr(filter.predicate, Place::Condition, &mut input)?;
        let is_wider = input.plan.schema().fields().len() > columns.len();
        let filtered = LogicalPlanBuilder::from(input.plan).filter(predicate)?;
        match is_wider {
            true => filtered.project(columns.into_iter().map(Expr::Column))?.build(),
            false => filtered.build(),
        }
    }

    fn projection(&self, projection: Projection) -> Result<LogicalPlan> {
        let Projection { expr, input, schema, .. } = projection;
        let mut input = Input::new(&input, false);
        let mut exprs = Vec::with_capacity(expr.len());
        for (expr, (qualifier, field)) in expr.into_iter().zip(schema.iter()) {
            let (relation, name) = (qualifier.cloned(), field.name());
            let mended = self.expr(expr.clone(), Place::Value, &mut input)?;
            exprs.push(match mended == expr {
                true => expr,
                false => mended.unalias().alias_qualified(relation, name),
            });
        }
        LogicalPlanBuilder::from(input.plan).project(exprs)?.build()
    }

    /// Subqueries in a node that is neither: they are computed below it, unless DataFusion computes them anywhere.
    fn other(&self, node: LogicalPlan) -> Result<LogicalPlan> {
        let mut lifted: Vec<Expr> = Vec::new();
        let saved = NamePreserver::new(&node);
        let mut exprs = Vec::new();
        for expr in node.expressions() {
            let name = saved.save(&expr);
            let lifted_expr = expr.transform_down(|part| {
                let Some(subquery) = subquery_of(&part) else { return Ok(Transformed::no(part)) };
                if matches!(part, Expr::ScalarSubquery(_)) && !is_correlated(&subquery.subquery)? {
                    let plan = self.plan(subquery.subquery.as_ref().clone())?;
                    return Ok(Transformed::yes(with_subquery(part, or_null(plan)?)?));
                }
                let column = Column::from_name(self.names.next("subquery"));
                lifted.push(part.alias(&column.name));
                Ok(Transformed::new(Expr::Column(column), true, TreeNodeRecursion::Jump))
            })?;
            exprs.push(name.restore(lifted_expr.data));
        }
        let inputs = node.inputs();
        if lifted.is_empty() {
            let inputs = inputs.into_iter().cloned().collect();
            return node.with_new_exprs(exprs, inputs);
        }
        // Of a join, below the side that it is about.
        let mut below: Vec<Vec<Expr>> = vec![Vec::new(); inputs.len()];
        for expr in lifted {
            let columns = columns_of(&expr)?;
            let is_of = |input: &&LogicalPlan| columns.iter().all(|column| input.schema().has_column(column));
            let Some(at) = inputs.iter().position(is_of) else {
                return plan_err!(
                    "{}",
                    match inputs.len() {
                        1 => "a subquery can't stand there; compute it in the SELECT of a subquery, and use its name",
                        _ => "a subquery in ON can't be about both sides; write it in WHERE, or join with it",
                    }
                );
            };
            below[at].push(expr);
        }
        let with_lifted = |(input, lifted): (&LogicalPlan, Vec<Expr>)| {
            if lifted.is_empty() {
                return Ok(input.clone());
            }
            let columns = input.schema().columns().into_iter().map(Expr::Column).chain(lifted);
            let input = LogicalPlanBuilder::from(input.clone()).project(columns.collect::<Vec<_>>())?.build()?;
            Ok(self.node(input)?.data)
        };
        let inputs = inputs.into_iter().zip(below).map(with_lifted).collect::<Result<Vec<_>>>()?;
        let rebuilt = node.with_new_exprs(exprs, inputs)?;
        if rebuilt.schema().fields().len() == node.schema().fields().len() {
            return Ok(rebuilt);
        }
        LogicalPlanBuilder::from(rebuilt).project(node.schema().columns().into_iter().map(Expr::Column))?.build()
    }

    /// The expression without subqueries that DataFusion would get wrong.
    fn expr(&self, expr: Expr, place: Place, input: &mut Input) -> Result<Expr> {
        if !has_subquery(&expr) {
            return Ok(expr);
        }
        match expr {
            Expr::Alias(mut alias) => {
                alias.expr = Box::new(self.expr(*alias.expr, place, input)?);
                Ok(Expr::Alias(alias))
            }
            Expr::BinaryExpr(BinaryExpr { left, op: op @ (Operator::And | Operator::Or), right }) => {
                let within = match (place, op) {
                    (Place::Condition, Operator::And) => Place::Condition,
                    (Place::Value, _) => Place::Value,
                    _ => Place::WithinCondition,
                };
                let (left, right) = (self.expr(*left, within, input)?, self.expr(*right, within, input)?);
                Ok(Expr::BinaryExpr(BinaryExpr::new(Box::new(left), op, Box::new(right))))
            }
            Expr::Not(inner) => match negated(*inner) {
                Ok(negated) => self.expr(negated, place, input),
                Err(inner) => Ok(Expr::Not(Box::new(self.expr(inner, Place::Value, input)?))),
            },
            Expr::Exists(Exists { subquery, negated }) => {
                let plan = self.plan(subquery.subquery.as_ref().clone())?;
                self.exists(plan, negated, place, input)
            }
            Expr::InSubquery(InSubquery { expr, subquery, negated }) => {
                let (op, quantifier) = match negated {
                    false => (Operator::Eq, SetQuantifier::Any),
                    true => (Operator::NotEq, SetQuantifier::All),
                };
                self.compared(*expr, op, quantifier, subquery, place, input)
            }
            Expr::SetComparison(SetComparison { expr, subquery, op, quantifier }) => {
                self.compared(*expr, op, quantifier, subquery, place, input)
            }
            Expr::ScalarSubquery(subquery) => self.value(subquery, input),
            other => {
                other.map_children(|part| self.expr(part, Place::Value, input).map(Transformed::yes)).map(|t| t.data)
            }
        }
    }

    /// Whether `plan`, which is mended, has rows.
    fn exists(&self, plan: LogicalPlan, negated: bool, place: Place, input: &mut Input) -> Result<Expr> {
        let plan = match existence(plan)? {
            Existence::Known(is_there) => return Ok(lit(is_there != negated)),
            Existence::If(condition) => {
                let condition = self.expr(inlined(condition, &input.plan)?, Place::Value, input)?;
                return Ok(if negated { condition.is_not_true() } else { condition.is_true() });
            }
            Existence::AnyOf(plans) => {
                // `self.plan` has been here.
                let mut any: Option<Expr> = None;
                for plan in plans {
                    let one = self.exists(plan, negated, within(place), input)?;
                    any = Some(match (any, negated) {
                        (None, _) => one,
                        (Some(any), false) => any.or(one),
                        (Some(any), true) => any.and(one),
                    });
                }
                return Ok(any.unwrap_or_else(|| lit(negated)));
            }
            Existence::Rows(plan) => plan,
        };
        let outer = self.outer_of(&plan, input)?;
        if input.is_filtered && (outer.is_empty() || joins_rightly(&plan)?) {
            return Ok(Expr::Exists(Exists { subquery: subquery(plan), negated }));
        }
        // In a SELECT list DataFusion computes values alone: a number of rows.
        if outer.is_empty() {
            let counted =
                LogicalPlanBuilder::from(plan).limit(0, Some(1))?.aggregate(Vec::<Expr>::new(), vec![count(lit(1))])?;
            let number = Expr::ScalarSubquery(subquery(counted.build()?));
            return Ok(if negated { number.eq(lit(0)) } else { number.gt(lit(0)) });
        }
        let counted =
            LogicalPlanBuilder::from(plan.clone()).aggregate(Vec::<Expr>::new(), vec![count(lit(1))])?.build()?;
        if aggregates_rightly(&counted)? {
            let number = Expr::ScalarSubquery(subquery(counted));
            return Ok(if negated { number.eq(lit(0)) } else { number.gt(lit(0)) });
        }
        let domain = self.domain(input.with(&outer), outer.clone())?;
        let Unnested { plan, keys } = match &plan {
            LogicalPlan::Limit(limit) if let Some((skip, _)) = rows_of(limit)? => {
                more_than(skip, &limit.input, &domain)?
            }
            plan => unnest(plan, &domain)?,
        };
        let plan = self.plan(plan)?;
        let alias = self.names.next("exists");
        let marks =
            LogicalPlanBuilder::from(plan).project(keys.iter().cloned().map(Expr::Column))?.alias(alias.clone())?;
        let keys: Vec<_> = keys.iter().map(|key| Column::new(Some(alias.clone()), &key.name)).collect();
        let marked = LogicalPlanBuilder::from(input.plan.clone()).join_detailed(
            marks.build()?,
            JoinType::LeftMark,
            (outer, keys),
            None,
            NullEquality::NullEqualsNull,
        )?;
        input.plan = marked.build()?;
        let mark = Expr::Column(Column::new(Some(alias), "mark"));
        Ok(if negated { Expr::Not(Box::new(mark)) } else { mark })
    }

    /// `left op ANY (subquery)`, or ALL.
    fn compared(
        &self,
        left: Expr,
        op: Operator,
        quantifier: SetQuantifier,
        of: Subquery,
        place: Place,
        input: &mut Input,
    ) -> Result<Expr> {
        let left = self.expr(left, Place::Value, input)?;
        let plan = self.plan(of.subquery.as_ref().clone())?;
        if let LogicalPlan::Limit(limit) = &plan
            && let Some((_, Some(0))) = rows_of(limit)?
        {
            return Ok(lit(quantifier == SetQuantifier::All));
        }
        if is_one_row(&plan) {
            let right = self.value(subquery(plan), input)?;
            return Ok(comparison(left, op, right, input.plan.schema()));
        }
        let is_correlated = !outer_columns(&plan)?.is_empty();
        // As joins DataFusion does these.
        if input.is_filtered && !has_subquery(&left) {
            let is_in = op == Operator::Eq && quantifier == SetQuantifier::Any;
            let is_not_in = op == Operator::NotEq && quantifier == SetQuantifier::All;
            let is_right = (is_in && place.is_condition() && joins_rightly(&plan)?)
                // Of a constant it takes the comparison for a filter of the subquery, which loses NULLs.
                || (is_not_in && place == Place::Condition && !is_correlated && !left.column_refs().is_empty());
            if is_right {
                // A cast of it would have the name of a column that a filter looks for.
                let is_cast = left.get_type(input.plan.schema())? != *plan.schema().field(0).data_type();
                let plan = self.with_named_column(plan, is_correlated && is_cast)?;
                return Ok(Expr::InSubquery(InSubquery::new(Box::new(left), subquery(plan), is_not_in)));
            }
        }
        // Under a name of its own, since its tables may be called as those outside are.
        let plan = LogicalPlanBuilder::from(plan).alias(self.names.next("compared"))?.build()?;
        let (qualifier, field) = plan.schema().qualified_field(0);
        let right = Expr::Column(Column::from((qualifier, field)));
        let may_be_null = field.is_nullable() || left.nullable(input.plan.schema())?;
        let outer = outward(left, &input.plan)?;
        let holds = comparison(outer, op, right, plan.schema());
        let rows = |condition: Expr, negated: bool, input: &mut Input| -> Result<Expr> {
            let plan = LogicalPlanBuilder::from(plan.clone()).filter(condition)?.build()?;
            self.exists(plan, negated, within(place), input)
        };
        match (quantifier, place.is_condition() || !may_be_null) {
            (SetQuantifier::Any, true) => rows(holds, false, input),
            (SetQuantifier::All, true) => rows(holds.is_not_true(), true, input),
            (quantifier, false) => {
                let is_any = quantifier == SetQuantifier::Any;
                let decides = if is_any { holds.clone() } else { holds.clone().is_false() };
                let (decided, unknown) = (rows(decides, false, input)?, rows(holds.is_null(), false, input)?);
                when(decided, lit(is_any)).when(unknown, lit(ScalarValue::Boolean(None))).otherwise(lit(!is_any))
            }
        }
    }

    /// `plan`, whose column DataFusion can name, or has a `new` name: it finds none in VALUES, and twice one without a
    /// table, `max(x)`.
    fn with_named_column(&self, plan: LogicalPlan, new: bool) -> Result<LogicalPlan> {
        let is_named = |expr: &Expr| !matches!(expr, Expr::Column(Column { relation: None, .. }));
        if !new && plan.head_output_expr()?.as_ref().is_some_and(is_named) {
            return Ok(plan);
        }
        let column = Expr::Column(Column::from(plan.schema().qualified_field(0)));
        LogicalPlanBuilder::from(plan).project([column.alias(self.names.next("compared"))])?.build()
    }

    /// The value that a subquery gives.
    fn value(&self, of: Subquery, input: &mut Input) -> Result<Expr> {
        let plan = self.plan(of.subquery.as_ref().clone())?;
        let outer = self.outer_of(&plan, input)?;
        if outer.is_empty() {
            return Ok(Expr::ScalarSubquery(Subquery { spans: of.spans, ..subquery(or_null(plan)?) }));
        }
        if aggregates_rightly(&plan)? {
            return Ok(Expr::ScalarSubquery(Subquery { spans: of.spans, ..subquery(plan) }));
        }
        if let LogicalPlan::Projection(projection) = &plan
            && is_one_empty_row(&projection.input)
            && let [expr] = projection.expr.as_slice()
        {
            let value = inlined(expr.clone().unalias(), &input.plan)?;
            return self.expr(value, Place::Value, input);
        }
        if !is_one_row_at_most(&plan)? {
            return plan_err!("Correlated scalar subquery must be aggregated to return at most one row");
        }
        let domain = self.domain(input.with(&outer), outer.clone())?;
        let Unnested { plan, keys } = unnest(&plan, &domain)?;
        let plan = self.plan(plan)?;
        let alias = self.names.next("value");
        let name = self.names.next("value");
        let mut columns = plan.schema().columns().into_iter();
        let first = columns.next().map(|column| Expr::Column(column).alias(&name));
        let columns = first.into_iter().chain(columns.map(Expr::Column)).collect::<Vec<_>>();
        let values = LogicalPlanBuilder::from(plan).project(columns)?.alias(alias.clone())?.build()?;
        let keys: Vec<_> = keys.iter().map(|key| Column::new(Some(alias.clone()), &key.name)).collect();
        let joined = LogicalPlanBuilder::from(input.plan.clone()).join_detailed(
            values,
            JoinType::Left,
            (outer, keys),
            None,
            NullEquality::NullEqualsNull,
        )?;
        input.plan = joined.build()?;
        Ok(Expr::Column(Column::new(Some(alias), name)))
    }

    /// The columns of the input that a subquery names.
    fn outer_of(&self, plan: &LogicalPlan, input: &Input) -> Result<Vec<Column>> {
        let schema = input.plan.schema();
        Ok(outer_columns(plan)?.into_iter().filter(|column| schema.has_column(column)).collect())
    }

    /// The values of `columns`, for which a subquery is computed at once. They are computed twice, for it and for the
    /// query around it.
    fn domain(&self, plan: &LogicalPlan, columns: Vec<Column>) -> Result<Domain<'_>> {
        if let Some(why) = differs(plan)? {
            return plan_err!(
                "the rows that this subquery is computed for are computed twice, and {why}; store them by a task of their own, or \
                 write a join"
            );
        }
        Domain::distinct(plan, columns, &self.names)
    }
}

/// The one column of a plan, with a row that is NULL where there is none: DataFusion takes the value of a subquery for
/// one that is never NULL where its column is not, whether there is a row or not.
fn or_null(plan: LogicalPlan) -> Result<LogicalPlan> {
    let is_nullable = match &plan {
        LogicalPlan::Projection(projection) => {
            projection.expr.iter().all(|expr| matches!(expr.clone().unalias(), Expr::Column(_)))
                && plan.schema().fields().iter().all(|field| field.is_nullable())
        }
        _ => false,
    };
    if is_nullable || is_one_row(&plan) || plan.schema().fields().len() != 1 {
        return Ok(plan);
    }
    LogicalPlanBuilder::empty(true).join_on(plan, JoinType::Left, [lit(true)])?.build()
}

/// The columns that an expression and the subqueries in it name.
fn columns_of(expr: &Expr) -> Result<BTreeSet<Column>> {
    let mut found: BTreeSet<Column> = expr.column_refs().into_iter().cloned().collect();
    expr.apply(|part| {
        if let Some(subquery) = subquery_of(part) {
            found.extend(outer_columns(&subquery.subquery)?);
        }
        Ok(TreeNodeRecursion::Continue)
    })?;
    Ok(found)
}

/// Fails for an aggregate of columns around the subquery alone: the SQL standard has it computed there, over all of its
/// rows (ISO/IEC 9075-2, 10.9, *aggregate function*), DataFusion for each row.
fn refuse_outer_aggregates(expr: &Expr) -> Result<()> {
    let outer = expr.exists(|part| {
        let Expr::AggregateFunction(aggregate) = part else { return Ok(false) };
        let args = &aggregate.params.args;
        Ok(args.iter().any(Expr::contains_outer) && args.iter().all(|arg| arg.column_refs().is_empty()))
    })?;
    match outer {
        true => plan_err!(
            "{} is of columns around the subquery alone; compute it in the query around, or give it columns of the subquery",
            expr.clone().unalias()
        ),
        false => Ok(()),
    }
}

/// A part of AND or OR of what stands at `place`.
fn within(place: Place) -> Place {
    match place {
        Place::Condition | Place::WithinCondition => Place::WithinCondition,
        Place::Value => Place::Value,
    }
}

/// NOT of a subquery expression as one without NOT; the expression itself if it is none.
fn negated(expr: Expr) -> std::result::Result<Expr, Expr> {
    Ok(match expr {
        Expr::Exists(Exists { subquery, negated }) => Expr::Exists(Exists { subquery, negated: !negated }),
        Expr::InSubquery(InSubquery { expr, subquery, negated }) => {
            Expr::InSubquery(InSubquery::new(expr, subquery, !negated))
        }
        Expr::SetComparison(SetComparison { expr, subquery, op, quantifier }) => {
            let Some(negated) = op.negate() else {
                return Err(Expr::SetComparison(SetComparison::new(expr, subquery, op, quantifier)));
            };
            let quantifier = match quantifier {
                SetQuantifier::Any => SetQuantifier::All,
                SetQuantifier::All => SetQuantifier::Any,
            };
            Expr::SetComparison(SetComparison::new(expr, subquery, negated, quantifier))
        }
        other => return Err(other),
    })
}

fn subquery(plan: LogicalPlan) -> Subquery {
    Subquery { outer_ref_columns: plan.all_out_ref_exprs(), subquery: Arc::new(plan), spans: Default::default() }
}

/// Columns around a subquery as columns, in what is computed in the query around it.
fn inlined(expr: Expr, input: &LogicalPlan) -> Result<Expr> {
    let schema = input.schema();
    let inlined = expr.transform_down(|part| match part {
        Expr::OuterReferenceColumn(_, column) if schema.has_column(&column) => {
            Ok(Transformed::yes(Expr::Column(column)))
        }
        other => Ok(Transformed::no(other)),
    })?;
    Ok(inlined.data)
}

/// Columns of the query around a subquery as it names them.
fn outward(expr: Expr, input: &LogicalPlan) -> Result<Expr> {
    let schema = input.schema();
    let outward = expr.transform_down(|part| match part {
        Expr::Column(column) => {
            let (_, field) = schema.qualified_field_from_column(&column)?;
            Ok(Transformed::yes(Expr::OuterReferenceColumn(Arc::clone(field), column)))
        }
        other => Ok(Transformed::no(other)),
    })?;
    Ok(outward.data)
}

/// The first place that a column of the node's expressions, or of subqueries in them, has in the text.
fn first_place(node: &LogicalPlan) -> Option<Span> {
    let mut found: Option<Span> = None;
    let mut look = |expr: &Expr| {
        for span in expr.column_refs().into_iter().flat_map(|column| column.spans.iter()) {
            if found
                .as_ref()
                .is_none_or(|found| (span.start.line, span.start.column) < (found.start.line, found.start.column))
            {
                found = Some(*span);
            }
        }
    };
    // The closures never fail.
    let _ = node.apply_expressions(|expr| {
        let _ = expr.apply(|part| {
            if let Some(subquery) = subquery_of(part) {
                let _ = subquery.subquery.apply(|inner| {
                    let _ = inner.apply_expressions(|expr| {
                        look(expr);
                        Ok(TreeNodeRecursion::Continue)
                    });
                    Ok(TreeNodeRecursion::Continue)
                });
            }
            Ok(TreeNodeRecursion::Continue)
        });
        Ok(TreeNodeRecursion::Continue)
    });
    found
}
