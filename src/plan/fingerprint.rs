//! Queries as hashes: equal fingerprints mean equal rows. What else a chunk is made of is in [`crate::plan::components`].
//!
//! A query is hashed from its normalised plan by a visitor that names every field it takes or leaves. Columns are
//! hashed by position, so aliases inside the query don't matter; names of the output do. Parts of a plan whose
//! meaning is not all in their fields (recursion, correlated subqueries) add the whole SQL text.
//!
//! The guarantee is one-sided: unequal fingerprints may still mean equal rows. So that equal ones mean equal queries,
//! every part is hashed with its length or a number of parts before it, and values by their bits. Of what Rust or
//! DataFusion prints only the names of operators and the like are hashed.

mod expr;
mod value;

use std::fmt;

use blake3::Hasher;
use datafusion::common::{
    DFSchema, NullEquality, NullHandling, RecursionUnnestOption, Result, UnnestOptions, plan_err,
};
use datafusion::logical_expr::{
    Aggregate, ColumnUnnestList, Distinct, DistinctOn, EmptyRelation, Filter, Join, Limit, LogicalPlan, Projection,
    RecursiveQuery, Repartition, Sort, Subquery, SubqueryAlias, TableScan, Union, Unnest, Values, Window,
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
                self.count(*fetch);
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
                self.hash.number(list_type_columns.len());
                for (at, ColumnUnnestList { output_column, depth }) in list_type_columns {
                    self.hash.number(*at);
                    self.hash.text(output_column.name());
                    self.hash.number(*depth);
                }
                self.positions(struct_type_columns);
                self.positions(dependency_indices);
                self.unnest_options(options);
                self.schema(schema.inner());
                self.plan(input)
            }
            LogicalPlan::RecursiveQuery(RecursiveQuery { name, static_term, recursive_term, is_distinct, schema }) => {
                self.opaque = true;
                self.hash.text("recursive");
                self.hash.text(name);
                self.hash.number((*is_distinct).into());
                self.schema(schema.inner());
                self.plan(static_term)?;
                self.plan(recursive_term)
            }
            // It moves rows, and makes no others.
            LogicalPlan::Repartition(Repartition { input, partitioning_scheme: _ }) => {
                self.hash.text("repartition");
                self.plan(input)
            }
            LogicalPlan::Extension(extension) => {
                plan_err!("nothing is known of the node {}, so its rows can't be kept", extension.node.name())
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
        self.hash.number(node.named_inputs().count());
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
        let TableScan { table_name, source, projection: _, projected_schema, filters, fetch, statistics_requests: _ } =
            scan;
        match source.downcast_ref::<InputSource>() {
            Some(input) => {
                self.hash.text("input");
                self.hash.text(input.table());
            }
            None => match Call::behind(source.as_ref()) {
                Some(call) => {
                    self.hash.text("table function");
                    self.hash.text(call);
                }
                // The rows of a recursive query so far.
                None => {
                    self.opaque = true;
                    self.hash.text("table");
                    self.hash.text(table_name.table());
                }
            },
        }
        // By name and type: where a column stands among those that are not read says nothing.
        self.schema(projected_schema.inner());
        self.count(*fetch);
        self.exprs(filters, projected_schema)
    }

    fn positions(&mut self, positions: &[usize]) {
        self.hash.number(positions.len());
        positions.iter().for_each(|at| self.hash.number(*at));
    }

    fn count(&mut self, count: Option<usize>) {
        self.positions(count.as_slice());
    }

    fn unnest_options(&mut self, UnnestOptions { null_handling, recursions }: &UnnestOptions) {
        self.hash.text(match null_handling {
            NullHandling::Drop => "drop",
            NullHandling::Preserve => "preserve",
            NullHandling::PreserveAndExpandEmpty => "preserve and expand",
        });
        self.hash.number(recursions.len());
        for RecursionUnnestOption { input_column, output_column, depth } in recursions {
            self.hash.text(input_column.name());
            self.hash.text(output_column.name());
            self.hash.number(*depth);
        }
    }

    fn subquery(&mut self, subquery: &Subquery, outer: &DFSchema) -> Result<()> {
        let Subquery { subquery, outer_ref_columns, spans: _ } = subquery;
        self.hash.text("subquery");
        self.exprs(outer_ref_columns, outer)?;
        self.plan(subquery)
    }
}
