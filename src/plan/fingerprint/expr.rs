//! Expressions as hashes. Columns are hashed by their position among those of the node's input.

use datafusion::common::{Column, DFSchema, Result, TableReference, plan_err};
use datafusion::logical_expr::expr::{
    AggregateFunctionParams, Alias, Case, Cast, Exists, GroupingSet, HigherOrderFunction, InList, InSubquery, Lambda,
    LambdaVariable, Like, NullTreatment, Placeholder, ScalarFunction, SetComparison, Sort as SortExpr, TryCast,
    Unnest as UnnestExpr, WindowFunction, WindowFunctionParams,
};
use datafusion::logical_expr::{Between, BinaryExpr, Expr, WindowFrame, WindowFrameBound, WindowFrameUnits};

use crate::arithmetic::condition::is_condition;
use crate::plan::fingerprint::Canon;

impl Canon {
    /// Visits expressions over columns of `schema`.
    ///
    /// # Errors
    /// As [`Canon::plan`].
    pub fn exprs(&mut self, exprs: &[Expr], schema: &DFSchema) -> Result<()> {
        self.hash.number(exprs.len());
        exprs.iter().try_for_each(|e| self.expr(e, schema))
    }

    pub(super) fn maybe(&mut self, expr: Option<&Expr>, schema: &DFSchema) -> Result<()> {
        self.hash.number(expr.is_some().into());
        expr.map_or(Ok(()), |e| self.expr(e, schema))
    }

    pub(super) fn sorts(&mut self, sorts: &[SortExpr], schema: &DFSchema) -> Result<()> {
        self.hash.number(sorts.len());
        for SortExpr { expr, asc, nulls_first } in sorts {
            self.expr(expr, schema)?;
            self.hash.number((*asc).into());
            self.hash.number((*nulls_first).into());
        }
        Ok(())
    }

    fn column(&mut self, column: &Column, schema: &DFSchema) {
        match schema.maybe_index_of_column(column) {
            Some(position) => {
                self.hash.text("column");
                self.hash.number(position);
            }
            None => self.named("named column", column),
        }
    }

    /// A column that the input does not have. Names that DataFusion makes up have numbers, the same ones for the same
    /// query.
    pub(super) fn named(&mut self, tag: &str, column: &Column) {
        let Column { relation, name, spans: _ } = column;
        self.opaque = true;
        self.hash.text(tag);
        let parts = relation.as_ref().map_or_else(Vec::new, |relation| match relation {
            TableReference::Bare { table } => vec![table],
            TableReference::Partial { schema, table } => vec![schema, table],
            TableReference::Full { catalog, schema, table } => vec![catalog, schema, table],
        });
        self.hash.number(parts.len());
        parts.into_iter().for_each(|part| self.hash.text(part));
        self.hash.text(name);
    }

    fn unary(&mut self, tag: &str, expr: &Expr, schema: &DFSchema) -> Result<()> {
        self.hash.text(tag);
        self.expr(expr, schema)
    }

    pub(super) fn expr(&mut self, expr: &Expr, schema: &DFSchema) -> Result<()> {
        match expr {
            Expr::Alias(Alias { expr, relation: _, name: _, metadata }) => {
                if metadata.as_ref().is_some_and(|metadata| !metadata.is_empty()) {
                    self.hash.text("metadata");
                    self.metadata(metadata.as_ref());
                }
                self.expr(expr, schema)
            }
            Expr::Column(column) => {
                self.column(column, schema);
                Ok(())
            }
            Expr::ScalarVariable(field, names) => {
                self.hash.text("variable");
                self.hash.number(names.len());
                names.iter().for_each(|name| self.hash.text(name));
                self.field(field);
                Ok(())
            }
            Expr::Literal(value, metadata) => self.literal(value, metadata.as_ref()),
            Expr::BinaryExpr(BinaryExpr { left, op, right }) => {
                self.hash.text(&format!("binary {op:?}"));
                self.expr(left, schema)?;
                self.expr(right, schema)
            }
            Expr::Like(like) => self.like("like", like, schema),
            Expr::SimilarTo(like) => self.like("similar", like, schema),
            Expr::Not(e) => self.unary("not", e, schema),
            Expr::IsNotNull(e) => self.unary("is not null", e, schema),
            Expr::IsNull(e) => self.unary("is null", e, schema),
            Expr::IsTrue(e) => self.unary("is true", e, schema),
            Expr::IsFalse(e) => self.unary("is false", e, schema),
            Expr::IsUnknown(e) => self.unary("is unknown", e, schema),
            Expr::IsNotTrue(e) => self.unary("is not true", e, schema),
            Expr::IsNotFalse(e) => self.unary("is not false", e, schema),
            Expr::IsNotUnknown(e) => self.unary("is not unknown", e, schema),
            Expr::Negative(e) => self.unary("negative", e, schema),
            Expr::Between(Between { expr, negated, low, high }) => {
                self.hash.text(&format!("between {negated}"));
                self.expr(expr, schema)?;
                self.expr(low, schema)?;
                self.expr(high, schema)
            }
            Expr::Case(Case { expr, when_then_expr, else_expr }) => {
                self.hash.text("case");
                self.maybe(expr.as_deref(), schema)?;
                self.hash.number(when_then_expr.len());
                for (when, then) in when_then_expr {
                    self.expr(when, schema)?;
                    self.expr(then, schema)?;
                }
                self.maybe(else_expr.as_deref(), schema)
            }
            Expr::Cast(Cast { expr, field }) => {
                self.hash.text("cast");
                self.field(field);
                self.expr(expr, schema)
            }
            Expr::TryCast(TryCast { expr, field }) => {
                self.hash.text("try cast");
                self.field(field);
                self.expr(expr, schema)
            }
            // Its parts are not among its arguments.
            condition if is_condition(condition) => {
                plan_err!("a condition that is ready to run has no fingerprint; this is a bug")
            }
            Expr::ScalarFunction(ScalarFunction { func, args }) => {
                self.hash.text("function");
                self.hash.text(func.name());
                self.exprs(args, schema)
            }
            Expr::AggregateFunction(function) => {
                let AggregateFunctionParams { args, distinct, filter, order_by, null_treatment } = &function.params;
                self.hash.text("aggregate");
                self.hash.text(function.func.name());
                self.hash.number((*distinct).into());
                self.nulls(null_treatment.as_ref());
                self.exprs(args, schema)?;
                self.maybe(filter.as_deref(), schema)?;
                self.sorts(order_by, schema)
            }
            Expr::WindowFunction(function) => {
                let WindowFunction { fun, params } = function.as_ref();
                let WindowFunctionParams {
                    args,
                    partition_by,
                    order_by,
                    window_frame,
                    filter,
                    null_treatment,
                    distinct,
                } = params;
                self.hash.text("window");
                self.hash.text(fun.name());
                self.hash.number((*distinct).into());
                self.frame(window_frame)?;
                self.nulls(null_treatment.as_ref());
                self.exprs(args, schema)?;
                self.exprs(partition_by, schema)?;
                self.sorts(order_by, schema)?;
                self.maybe(filter.as_deref(), schema)
            }
            Expr::InList(InList { expr, list, negated }) => {
                self.hash.text(&format!("in list {negated}"));
                self.expr(expr, schema)?;
                self.exprs(list, schema)
            }
            Expr::Exists(Exists { subquery, negated }) => {
                self.hash.text(&format!("exists {negated}"));
                self.subquery(subquery, schema)
            }
            Expr::InSubquery(InSubquery { expr, subquery, negated }) => {
                self.hash.text(&format!("in subquery {negated}"));
                self.expr(expr, schema)?;
                self.subquery(subquery, schema)
            }
            Expr::SetComparison(SetComparison { expr, subquery, op, quantifier }) => {
                self.hash.text(&format!("set comparison {op:?} {quantifier:?}"));
                self.expr(expr, schema)?;
                self.subquery(subquery, schema)
            }
            Expr::ScalarSubquery(subquery) => {
                self.hash.text("scalar subquery");
                self.subquery(subquery, schema)
            }
            Expr::GroupingSet(sets) => match sets {
                GroupingSet::Rollup(exprs) => self.unary_list("rollup", exprs, schema),
                GroupingSet::Cube(exprs) => self.unary_list("cube", exprs, schema),
                GroupingSet::GroupingSets(sets) => {
                    self.hash.text("grouping sets");
                    self.hash.number(sets.len());
                    sets.iter().try_for_each(|set| self.exprs(set, schema))
                }
            },
            Expr::OuterReferenceColumn(field, column) => {
                self.named("outer column", column);
                self.data_type(field.data_type());
                Ok(())
            }
            Expr::Unnest(UnnestExpr { expr, outer }) => {
                self.hash.text(&format!("unnest {outer}"));
                self.expr(expr, schema)
            }
            Expr::Placeholder(Placeholder { id, field: _ }) => plan_err!("parameter {id} has no value"),
            Expr::HigherOrderFunction(HigherOrderFunction { func, args }) => {
                self.hash.text("higher-order function");
                self.hash.text(func.name());
                self.exprs(args, schema)
            }
            Expr::Lambda(Lambda { params, body }) => {
                self.hash.text("lambda");
                self.hash.number(params.len());
                params.iter().for_each(|param| self.hash.text(param));
                self.expr(body, schema)
            }
            Expr::LambdaVariable(LambdaVariable { name, field: _, spans: _ }) => {
                self.hash.text("lambda variable");
                self.hash.text(name);
                Ok(())
            }
            #[expect(deprecated)]
            Expr::Wildcard { qualifier: _, options: _ } => plan_err!("a wildcard was not resolved"),
        }
    }

    fn unary_list(&mut self, tag: &str, exprs: &[Expr], schema: &DFSchema) -> Result<()> {
        self.hash.text(tag);
        self.exprs(exprs, schema)
    }

    fn like(&mut self, tag: &str, like: &Like, schema: &DFSchema) -> Result<()> {
        let Like { negated, expr, pattern, escape_char, case_insensitive } = like;
        self.hash.text(&format!("{tag} {negated} {escape_char:?} {case_insensitive}"));
        self.expr(expr, schema)?;
        self.expr(pattern, schema)
    }

    /// A window frame, its bounds by their bits.
    fn frame(&mut self, frame: &WindowFrame) -> Result<()> {
        let WindowFrame { units, start_bound, end_bound, .. } = frame;
        self.hash.text(match units {
            WindowFrameUnits::Rows => "rows",
            WindowFrameUnits::Range => "range",
            WindowFrameUnits::Groups => "groups",
        });
        self.hash.number(frame.is_causal().into());
        for bound in [start_bound, end_bound] {
            match bound {
                WindowFrameBound::Preceding(value) => {
                    self.hash.text("preceding");
                    self.literal(value, None)?;
                }
                WindowFrameBound::CurrentRow => self.hash.text("current row"),
                WindowFrameBound::Following(value) => {
                    self.hash.text("following");
                    self.literal(value, None)?;
                }
            }
        }
        Ok(())
    }

    fn nulls(&mut self, treatment: Option<&NullTreatment>) {
        self.hash.text(match treatment {
            None => "",
            Some(NullTreatment::IgnoreNulls) => "ignore nulls",
            Some(NullTreatment::RespectNulls) => "respect nulls",
        });
    }
}
