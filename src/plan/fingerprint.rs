//! Queries as hashes: equal fingerprints mean equal rows. What else a chunk is made of is in [`crate::plan::components`].
//!
//! A query is hashed from its normalised plan by a visitor that names every field it takes or leaves. Columns are
//! hashed by position, so aliases inside the query don't matter; names of the output do. Parts of a plan whose
//! meaning is not all in their fields (extensions, recursion) add the whole SQL text.
//!
//! The guarantee is one-sided: unequal fingerprints may still mean equal rows.

use std::fmt;

use arrow::array::RecordBatch;
use arrow::datatypes::{DataType, SchemaRef};
use arrow_ipc::writer::StreamWriter;
use blake3::Hasher;
use datafusion::common::{Column, DFSchema, DataFusionError, NullEquality, Result, ScalarValue, plan_err};
use datafusion::logical_expr::expr::{
    AggregateFunctionParams, Alias, Case, Cast, Exists, GroupingSet, HigherOrderFunction, InList, InSubquery, Lambda,
    LambdaVariable, Like, NullTreatment, Placeholder, ScalarFunction, SetComparison, Sort as SortExpr, TryCast,
    Unnest as UnnestExpr, WindowFunction, WindowFunctionParams,
};
use datafusion::logical_expr::{
    Aggregate, Between, BinaryExpr, Distinct, DistinctOn, EmptyRelation, Expr, Filter, Join, Limit, LogicalPlan,
    Projection, RecursiveQuery, Sort, Subquery, SubqueryAlias, TableScan, Union, Unnest, Values, Window,
};

use crate::plan::opaque::OpaqueNode;
use crate::plan::resolve::InputSource;
use crate::plan::resolve::call::Call;

/// 256 bits of BLAKE3.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Fingerprint([u8; 32]);

impl Fingerprint {
    /// The fingerprint of a list of named parts, in order; names and lengths are hashed too.
    pub fn of<'a>(parts: impl IntoIterator<Item = (&'a str, &'a [u8])>) -> Self {
        let mut hash = Hash::default();
        for (name, part) in parts {
            hash.text(name);
            hash.bytes(part);
        }
        hash.finish()
    }

    /// The fingerprint of these 32 bytes.
    pub fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// Reads 64 hexadecimal digits.
    pub fn from_hex(hex: &str) -> Option<Self> {
        blake3::Hash::from_hex(hex).ok().map(|hash| Self(*hash.as_bytes()))
    }

    /// The 32 bytes.
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(blake3::Hash::from_bytes(self.0).to_hex().as_str())
    }
}

impl fmt::Debug for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

/// A scalar as the bytes of an Arrow stream.
fn ipc(value: &ScalarValue) -> Result<Vec<u8>> {
    let batch = RecordBatch::try_from_iter([("", value.to_array()?)])?;
    let mut writer = StreamWriter::try_new(Vec::new(), &batch.schema())?;
    writer.write(&batch)?;
    Ok(writer.into_inner()?)
}

/// A fingerprint in the making.
#[derive(Default)]
pub struct Hash(Hasher);

impl Hash {
    /// Adds bytes, their number first.
    pub fn bytes(&mut self, bytes: &[u8]) {
        self.0.update(&(bytes.len() as u64).to_le_bytes());
        self.0.update(bytes);
    }

    /// Adds text.
    pub fn text(&mut self, text: &str) {
        self.bytes(text.as_bytes());
    }

    /// Adds a number.
    pub fn number(&mut self, number: usize) {
        self.0.update(&(number as u64).to_le_bytes());
    }

    /// The fingerprint of all that was added.
    pub fn finish(&self) -> Fingerprint {
        Fingerprint(*self.0.finalize().as_bytes())
    }
}

/// The canonical visitor.
#[derive(Default)]
pub struct Canon {
    /// Of what was visited.
    pub hash: Hash,
    /// Whether something was met that its fields don't describe whole.
    pub opaque: bool,
}

impl Canon {
    /// Visits names, types and nullability of columns.
    pub fn schema(&mut self, schema: &SchemaRef) {
        self.hash.number(schema.fields().len());
        for field in schema.fields() {
            self.hash.text(field.name());
            self.data_type(field.data_type());
            self.hash.number(field.is_nullable().into());
        }
    }

    fn data_type(&mut self, data_type: &DataType) {
        self.hash.text(&data_type.to_string());
    }

    /// Visits a plan.
    ///
    /// # Errors
    /// When it holds a statement, or a parameter without a value.
    pub fn plan(&mut self, plan: &LogicalPlan) -> Result<()> {
        match plan {
            LogicalPlan::Projection(Projection { expr, input, schema: _, .. }) => {
                self.hash.text("projection");
                self.exprs(expr, input.schema())?;
                self.plan(input)
            }
            LogicalPlan::Filter(Filter { predicate, input, .. }) => {
                self.hash.text("filter");
                self.expr(predicate, input.schema())?;
                self.plan(input)
            }
            LogicalPlan::Window(Window { input, window_expr, schema: _, .. }) => {
                self.hash.text("window");
                self.exprs(window_expr, input.schema())?;
                self.plan(input)
            }
            LogicalPlan::Aggregate(Aggregate { input, group_expr, aggr_expr, schema: _, .. }) => {
                self.hash.text("aggregate");
                self.exprs(group_expr, input.schema())?;
                self.exprs(aggr_expr, input.schema())?;
                self.plan(input)
            }
            LogicalPlan::Sort(Sort { expr, input, fetch }) => {
                self.hash.text("sort");
                self.sorts(expr, input.schema())?;
                self.hash.text(&format!("{fetch:?}"));
                self.plan(input)
            }
            LogicalPlan::Join(join) => self.join(join),
            LogicalPlan::Union(Union { inputs, schema }) => {
                self.hash.text("union");
                self.schema(schema.inner());
                self.hash.number(inputs.len());
                inputs.iter().try_for_each(|input| self.plan(input))
            }
            LogicalPlan::TableScan(scan) => self.scan(scan),
            LogicalPlan::EmptyRelation(EmptyRelation { produce_one_row, schema }) => {
                self.hash.text("empty");
                self.hash.number((*produce_one_row).into());
                self.schema(schema.inner());
                Ok(())
            }
            LogicalPlan::Subquery(subquery) => self.subquery(subquery, &DFSchema::empty()),
            // Columns are hashed by position: a name for the input changes nothing.
            LogicalPlan::SubqueryAlias(SubqueryAlias { input, alias: _, schema: _, .. }) => self.plan(input),
            LogicalPlan::Limit(Limit { skip, fetch, input }) => {
                self.hash.text("limit");
                self.maybe(skip.as_deref(), input.schema())?;
                self.maybe(fetch.as_deref(), input.schema())?;
                self.plan(input)
            }
            LogicalPlan::Values(Values { schema, values }) => {
                self.hash.text("values");
                self.schema(schema.inner());
                self.hash.number(values.len());
                values.iter().try_for_each(|row| self.exprs(row, schema))
            }
            LogicalPlan::Distinct(Distinct::All(input)) => {
                self.hash.text("distinct");
                self.plan(input)
            }
            LogicalPlan::Distinct(Distinct::On(DistinctOn { on_expr, select_expr, sort_expr, input, schema: _ })) => {
                self.hash.text("distinct on");
                self.exprs(on_expr, input.schema())?;
                self.exprs(select_expr, input.schema())?;
                self.sorts(sort_expr.as_deref().unwrap_or_default(), input.schema())?;
                self.plan(input)
            }
            LogicalPlan::Extension(extension) if let Some(node) = OpaqueNode::of(extension) => self.function(node),
            LogicalPlan::Unnest(node) => {
                let Unnest {
                    input,
                    exec_columns: _,
                    list_type_columns,
                    struct_type_columns,
                    dependency_indices,
                    schema,
                    options,
                } = node;
                self.hash.text("unnest");
                self.hash
                    .text(&format!("{list_type_columns:?} {struct_type_columns:?} {dependency_indices:?} {options:?}"));
                self.schema(schema.inner());
                self.plan(input)
            }
            LogicalPlan::RecursiveQuery(RecursiveQuery { name, static_term, recursive_term, is_distinct, schema }) => {
                self.opaque = true;
                self.hash.text(&format!("recursive {name} {is_distinct}"));
                self.schema(schema.inner());
                self.plan(static_term)?;
                self.plan(recursive_term)
            }
            LogicalPlan::Extension(_) | LogicalPlan::Repartition(_) => {
                self.opaque = true;
                self.hash.text(&plan.display().to_string());
                plan.inputs().into_iter().try_for_each(|input| self.plan(input))
            }
            LogicalPlan::Statement(_)
            | LogicalPlan::Explain(_)
            | LogicalPlan::Analyze(_)
            | LogicalPlan::Dml(_)
            | LogicalPlan::Ddl(_)
            | LogicalPlan::Copy(_)
            | LogicalPlan::DescribeTable(_) => plan_err!("{} is not a query", plan.display()),
        }
    }

    /// What it does is in its name and version alone.
    fn function(&mut self, node: &OpaqueNode) -> Result<()> {
        self.hash.text("function over rows");
        self.hash.text(node.task());
        self.hash.text(node.version());
        for (name, input) in node.named_inputs() {
            self.hash.text(name);
            self.schema(input.schema().inner());
            self.plan(input)?;
        }
        Ok(())
    }

    fn join(&mut self, join: &Join) -> Result<()> {
        let Join { left, right, on, filter, join_type, join_constraint: _, schema: _, null_equality, null_aware } =
            join;
        self.hash.text("join");
        self.hash.text(&join_type.to_string());
        self.hash.number(match null_equality {
            NullEquality::NullEqualsNothing => 0,
            NullEquality::NullEqualsNull => 1,
        });
        self.hash.number((*null_aware).into());
        self.hash.number(on.len());
        for (l, r) in on {
            self.expr(l, left.schema())?;
            self.expr(r, right.schema())?;
        }
        self.maybe(filter.as_ref(), &left.schema().join(right.schema())?)?;
        self.plan(left)?;
        self.plan(right)
    }

    fn scan(&mut self, scan: &TableScan) -> Result<()> {
        let TableScan { table_name, source, projection, projected_schema, filters, fetch, statistics_requests: _ } =
            scan;
        match source.downcast_ref::<InputSource>() {
            Some(input) => self.hash.text(&format!("input {}", input.table())),
            None => {
                let call = Call::behind(source.as_ref());
                self.opaque |= call.is_none();
                self.hash.text(&format!("function {table_name} {call:?}"));
            }
        }
        self.schema(projected_schema.inner());
        self.hash.text(&format!("{projection:?} {fetch:?}"));
        self.exprs(filters, projected_schema)
    }

    fn subquery(&mut self, subquery: &Subquery, outer: &DFSchema) -> Result<()> {
        let Subquery { subquery, outer_ref_columns, spans: _ } = subquery;
        self.hash.text("subquery");
        self.exprs(outer_ref_columns, outer)?;
        self.plan(subquery)
    }

    /// Visits expressions over columns of `schema`.
    ///
    /// # Errors
    /// As [`Canon::plan`].
    pub fn exprs(&mut self, exprs: &[Expr], schema: &DFSchema) -> Result<()> {
        self.hash.number(exprs.len());
        exprs.iter().try_for_each(|e| self.expr(e, schema))
    }

    fn maybe(&mut self, expr: Option<&Expr>, schema: &DFSchema) -> Result<()> {
        self.hash.number(expr.is_some().into());
        expr.map_or(Ok(()), |e| self.expr(e, schema))
    }

    fn sorts(&mut self, sorts: &[SortExpr], schema: &DFSchema) -> Result<()> {
        self.hash.number(sorts.len());
        for SortExpr { expr, asc, nulls_first } in sorts {
            self.expr(expr, schema)?;
            self.hash.text(&format!("{asc} {nulls_first}"));
        }
        Ok(())
    }

    fn column(&mut self, column: &Column, schema: &DFSchema) {
        let Column { relation, name, spans: _ } = column;
        match schema.maybe_index_of_column(column) {
            Some(position) => {
                self.hash.text("column");
                self.hash.number(position);
            }
            None => {
                self.opaque = true;
                self.hash.text(&format!("named column {relation:?} {name:?}"));
            }
        }
    }

    fn unary(&mut self, tag: &str, expr: &Expr, schema: &DFSchema) -> Result<()> {
        self.hash.text(tag);
        self.expr(expr, schema)
    }

    fn expr(&mut self, expr: &Expr, schema: &DFSchema) -> Result<()> {
        match expr {
            Expr::Alias(Alias { expr, relation: _, name: _, metadata: _ }) => self.expr(expr, schema),
            Expr::Column(column) => {
                self.column(column, schema);
                Ok(())
            }
            Expr::ScalarVariable(field, names) => {
                self.hash.text(&format!("variable {names:?}"));
                self.data_type(field.data_type());
                Ok(())
            }
            Expr::Literal(value, _metadata) => self.literal(value),
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
                self.data_type(field.data_type());
                self.expr(expr, schema)
            }
            Expr::TryCast(TryCast { expr, field }) => {
                self.hash.text("try cast");
                self.data_type(field.data_type());
                self.expr(expr, schema)
            }
            Expr::ScalarFunction(ScalarFunction { func, args }) => {
                self.hash.text(&format!("function {}", func.name()));
                self.exprs(args, schema)
            }
            Expr::AggregateFunction(function) => {
                let AggregateFunctionParams { args, distinct, filter, order_by, null_treatment } = &function.params;
                self.hash.text(&format!("aggregate {} {distinct}", function.func.name()));
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
                self.hash.text(&format!("window {} {distinct} {window_frame:?}", fun.name()));
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
                let Column { relation, name, spans: _ } = column;
                self.opaque = true;
                self.hash.text(&format!("outer column {relation:?} {name:?}"));
                self.data_type(field.data_type());
                Ok(())
            }
            Expr::Unnest(UnnestExpr { expr, outer }) => {
                self.hash.text(&format!("unnest {outer}"));
                self.expr(expr, schema)
            }
            Expr::Placeholder(Placeholder { id, field: _ }) => plan_err!("parameter {id} has no value"),
            Expr::HigherOrderFunction(HigherOrderFunction { func, args }) => {
                self.hash.text(&format!("higher-order function {}", func.name()));
                self.exprs(args, schema)
            }
            Expr::Lambda(Lambda { params, body }) => {
                self.hash.text(&format!("lambda {params:?}"));
                self.expr(body, schema)
            }
            Expr::LambdaVariable(LambdaVariable { name, field: _, spans: _ }) => {
                self.hash.text(&format!("lambda variable {name:?}"));
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

    fn nulls(&mut self, treatment: Option<&NullTreatment>) {
        self.hash.text(match treatment {
            None => "",
            Some(NullTreatment::IgnoreNulls) => "ignore nulls",
            Some(NullTreatment::RespectNulls) => "respect nulls",
        });
    }

    /// Visits a scalar, by type and value. Nested ones add the SQL text: how they print is not known to be complete.
    ///
    /// # Errors
    /// When it can't be written as Arrow.
    pub fn literal(&mut self, value: &ScalarValue) -> Result<(), DataFusionError> {
        self.hash.text("literal");
        self.data_type(&value.data_type());
        self.opaque |= value.data_type().is_nested();
        match value.data_type() {
            // How these print leaves out what tells them apart.
            data_type if data_type.is_nested() || data_type.is_binary() => self.hash.bytes(&ipc(value)?),
            _ => self.hash.text(&format!("{value:?}")),
        }
        Ok(())
    }
}
