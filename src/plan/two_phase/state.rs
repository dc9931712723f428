//! Any aggregate in two: `F_state` gives F's accumulator state as a struct, `F_merge` merges such structs and gives
//! F's value.
//!
//! Both wrap F's own accumulators, so nothing is known here about what the states mean. An aggregate that takes rows in
//! their order, or in batches, is left alone: its state depends on how chunks come.
//!
//! Fingerprints go by the names of functions. So all that a call is, constants by their bits, is in the names of both,
//! as a hash; what is shown leaves it out.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, StructArray};
use arrow::compute::SortOptions;
use arrow::datatypes::{DataType, Field, FieldRef, Fields, Schema};
use datafusion::common::{DFSchema, Result, ScalarValue, exec_err, internal_err};
use datafusion::logical_expr::expr::{AggregateFunction, AggregateFunctionParams, NullTreatment};
use datafusion::logical_expr::function::{AccumulatorArgs, StateFieldsArgs};
use datafusion::logical_expr::simplify::SimplifyContext;
use datafusion::logical_expr::{
    Accumulator, AggregateUDF, AggregateUDFImpl, EmitTo, Expr, ExprSchemable, GroupsAccumulator, Signature, Volatility,
    udaf_default_display_name, udaf_default_human_display, udaf_default_schema_name,
};
use datafusion::optimizer::simplify_expressions::ExprSimplifier;
use datafusion::physical_expr::expressions::{Column, Literal};
use datafusion::physical_expr::{PhysicalExpr, PhysicalSortExpr};

use crate::arithmetic::checked::checked_aggregate;
use crate::plan::fingerprint::{Canon, Fingerprint};
use crate::plan::order::function::{Reads, call_reads};
use crate::plan::prove::rule::{Rule, Rules};
use crate::plan::prove::unaliased;

/// One call of an aggregate, as far as its accumulator depends on it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Call {
    function: Arc<AggregateUDF>,
    is_distinct: bool,
    ignores_nulls: bool,
    arguments: Vec<FieldRef>,
    /// Arguments that are constants; some aggregates take them from the plan, not from rows.
    constants: Vec<Option<ScalarValue>>,
    /// How the first argument is sorted, where WITHIN GROUP (ORDER BY …) says it: that is an argument, too.
    within_group: Option<SortOptions>,
    value: FieldRef,
    state: Fields,
    /// Of all that.
    hash: Fingerprint,
}

/// The call of `function` over columns of `schema`; `None` when its states can't be merged in any order.
pub fn state_of(function: &AggregateFunction, schema: &DFSchema, rules: Rules) -> Result<Option<Call>> {
    if let Some(_why) = why_not_merged(function, schema, rules) {
        return Ok(None);
    }
    let AggregateFunction { func, params } = function;
    let AggregateFunctionParams { args, distinct, filter: _, order_by, null_treatment } = params;
    let arguments = args.iter().map(|e| Ok(e.to_field(schema)?.1)).collect::<Result<Vec<_>>>()?;
    let within_group = order_by.first().filter(|_| is_within_group(function));
    let types: Vec<DataType> = arguments.iter().map(|argument| argument.data_type().clone()).collect();
    let function = checked_aggregate(func, &types).unwrap_or_else(|| Arc::clone(func));
    let value = function.return_field(&arguments)?;
    let state = function.state_fields(StateFieldsArgs {
        name: function.name(),
        input_fields: &arguments,
        return_field: Arc::clone(&value),
        ordering_fields: &[],
        is_distinct: *distinct,
    })?;
    let state = state.iter().enumerate().map(|(i, f)| Field::new(format!("s{i}"), f.data_type().clone(), true));
    let mut call = Call {
        function,
        is_distinct: *distinct,
        ignores_nulls: *null_treatment == Some(NullTreatment::IgnoreNulls),
        constants: args.iter().map(constant).collect(),
        within_group: within_group.map(|by| SortOptions { descending: !by.asc, nulls_first: by.nulls_first }),
        arguments,
        value,
        state: state.collect(),
        hash: Fingerprint::from_bytes([0; 32]),
    };
    call.hash = call.hash()?;
    Ok(Some(call))
}

/// Why the states of `function` can't be merged in any order, if they can't.
pub fn why_not_merged(function: &AggregateFunction, schema: &DFSchema, rules: Rules) -> Option<String> {
    let AggregateFunction { func, params } = function;
    let AggregateFunctionParams { args, distinct: _, filter: _, order_by, null_treatment: _ } = params;
    let name = func.name();
    let is_ordered = !order_by.is_empty() && !is_within_group(function);
    let reads = call_reads(name, args, schema);
    if (is_ordered || matches!(reads, Reads::Order | Reads::Batches)) && rules.ask(Rule::UnorderedStates) {
        return Some(match reads {
            Reads::Batches => format!("{name}() depends on how rows are batched"),
            Reads::Set | Reads::Order | Reads::Unknown => format!("{name}() depends on the order of rows"),
        });
    }
    None
}

/// Whether the ORDER BY of a call is that of WITHIN GROUP, an argument that says nothing of the order of rows.
pub fn is_within_group(AggregateFunction { func, params }: &AggregateFunction) -> bool {
    params.order_by.len() == 1 && func.supports_within_group_clause()
}

/// The value of an argument that is the same in all rows, however it is written.
fn constant(arg: &Expr) -> Option<ScalarValue> {
    if !arg.column_refs().is_empty() || arg.is_volatile() || arg.contains_outer() {
        return None;
    }
    let simplifier = ExprSimplifier::new(SimplifyContext::builder().build());
    match simplifier.simplify(unaliased(arg).clone()).ok()? {
        Expr::Literal(value, _) => Some(value),
        _ => None,
    }
}

/// The name of the aggregate whose states `function` gives, if it does, and whether it is DISTINCT.
pub fn aggregate_behind(function: &AggregateUDF) -> Option<(&str, bool)> {
    let StateOf { call, .. } = function.inner().downcast_ref()?;
    Some((call.function.name(), call.is_distinct))
}

/// Aggregates that have one accumulator for all rows and another for groups, both of which give the same states.
const ALIKE_IN_GROUPS: &[&str] = &[
    "count",
    "sum",
    "avg",
    "min",
    "max",
    "bool_and",
    "bool_or",
    "bit_and",
    "bit_or",
    "bit_xor",
    "var",
    "var_pop",
    "stddev",
    "stddev_pop",
];

/// Whether `function`, which gives states, gives the same one of all rows and of a group that has these rows.
///
/// DataFusion merges states by an accumulator like the one that made them, so it may use other columns for groups:
/// those of `corr` are sums, and elsewhere means.
pub fn is_alike_in_groups(function: &AggregateUDF) -> bool {
    function.inner().downcast_ref::<StateOf>().is_some_and(|StateOf { call, .. }| call.is_alike_in_groups())
}

impl Call {
    fn is_alike_in_groups(&self) -> bool {
        match self.function.inner().downcast_ref::<MergeOf>() {
            Some(MergeOf { call, .. }) => call.is_alike_in_groups(),
            None => ALIKE_IN_GROUPS.contains(&self.function.name()) || !self.has_groups_accumulator(),
        }
    }

    /// The expression that gives the state of `function`, which this call was made of.
    pub fn call(&self, function: &AggregateFunction) -> Expr {
        let AggregateFunctionParams { args, distinct: _, filter, order_by: _, null_treatment } = &function.params;
        let (name, call) = (self.name("state"), self.clone());
        let state = StateOf { name, call, signature: Signature::variadic_any(Volatility::Immutable) };
        // DISTINCT is the wrapped accumulator's business: the planner must not rewrite it for this function.
        Expr::AggregateFunction(AggregateFunction::new_udf(
            Arc::new(AggregateUDF::new_from_impl(state)),
            args.clone(),
            false,
            filter.clone(),
            Vec::new(),
            *null_treatment,
        ))
    }

    /// Calls `make` with the arguments that the wrapped accumulator would have been made with.
    fn with_args<T>(&self, make: impl FnOnce(AccumulatorArgs<'_>) -> Result<T>) -> Result<T> {
        let schema = Schema::new(self.arguments.iter().map(|f| f.as_ref().clone()).collect::<Vec<_>>());
        let exprs: Vec<Arc<dyn PhysicalExpr>> = self
            .constants
            .iter()
            .zip(&self.arguments)
            .enumerate()
            .map(|(i, (constant, field))| match constant {
                Some(value) => Arc::new(Literal::new(value.clone())) as Arc<dyn PhysicalExpr>,
                None => Arc::new(Column::new(field.name(), i)),
            })
            .collect();
        let order = self.within_group.zip(exprs.first());
        let order: Vec<_> =
            order.into_iter().map(|(options, expr)| PhysicalSortExpr::new(Arc::clone(expr), options)).collect();
        make(AccumulatorArgs {
            return_field: Arc::clone(&self.value),
            schema: &schema,
            ignore_nulls: self.ignores_nulls,
            order_bys: &order,
            is_reversed: false,
            name: self.function.name(),
            is_distinct: self.is_distinct,
            exprs: &exprs,
            expr_fields: &self.arguments,
        })
    }

    /// The name of the function that gives its state, or its value of states.
    fn name(&self, suffix: &str) -> Name {
        let distinct = if self.is_distinct { "_distinct" } else { "" };
        let nulls = if self.ignores_nulls { "_ignore_nulls" } else { "" };
        let shown = format!("{}{distinct}{nulls}_{suffix}", self.function.name());
        let has_constants = self.constants.iter().any(Option::is_some) || self.within_group.is_some();
        Name { whole: format!("{shown}_{}", self.hash), shown, has_constants }
    }

    fn hash(&self) -> Result<Fingerprint> {
        let Self { function, is_distinct, ignores_nulls, arguments, constants, within_group, value, state, hash: _ } =
            self;
        let mut canon = Canon::default();
        canon.hash.text(function.name());
        canon.hash.number((*is_distinct).into());
        canon.hash.number((*ignores_nulls).into());
        // Aliases inside the query don't matter.
        let unnamed = |fields: &mut dyn Iterator<Item = &FieldRef>| {
            Arc::new(Schema::new(fields.map(|field| field.as_ref().clone().with_name("")).collect::<Vec<_>>()))
        };
        canon.schema(&unnamed(&mut arguments.iter()));
        for constant in constants {
            canon.hash.number(constant.is_some().into());
            constant.as_ref().map_or(Ok(()), |value| canon.literal(value, None))?;
        }
        canon.hash.number(match within_group {
            None => 0,
            Some(SortOptions { descending, nulls_first }) => {
                1 + usize::from(*descending) + 2 * usize::from(*nulls_first)
            }
        });
        canon.schema(&unnamed(&mut [value].into_iter()));
        canon.schema(&unnamed(&mut state.iter()));
        Ok(canon.hash.finish())
    }

    fn accumulator(&self) -> Result<Box<dyn Accumulator>> {
        self.with_args(|args| self.function.accumulator(args))
    }

    fn has_groups_accumulator(&self) -> bool {
        self.with_args(|args| Ok(self.function.groups_accumulator_supported(args))).unwrap_or(false)
    }

    fn groups_accumulator(&self) -> Result<Box<dyn GroupsAccumulator>> {
        self.with_args(|args| self.function.create_groups_accumulator(args))
    }

    fn state_type(&self) -> DataType {
        DataType::Struct(self.state.clone())
    }

    fn state_array(&self, columns: Vec<ArrayRef>, rows: usize) -> Result<ArrayRef> {
        if self.state.is_empty() {
            return internal_err!("{} has no state", self.function.name());
        }
        debug_assert!(columns.iter().all(|column| column.len() == rows));
        Ok(Arc::new(StructArray::try_new(self.state.clone(), columns, None)?))
    }
}

/// The name of a function that is made for one call.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Name {
    /// With the call's hash.
    whole: String,
    /// Without it.
    shown: String,
    /// Whether calls that look alike may differ.
    has_constants: bool,
}

impl Name {
    /// The name of the column that a call gives: with a part of the hash where calls that differ could look alike.
    fn of_column(&self, default: String) -> String {
        match self.has_constants {
            true => default.replacen(&self.whole, &self.whole[..self.shown.len() + 9], 1),
            false => self.shown(default),
        }
    }

    fn shown(&self, default: String) -> String {
        default.replacen(&self.whole, &self.shown, 1)
    }
}

/// The aggregate that gives a call's state.
#[derive(Debug, PartialEq, Eq, Hash)]
struct StateOf {
    name: Name,
    call: Call,
    signature: Signature,
}

impl AggregateUDFImpl for StateOf {
    fn name(&self) -> &str {
        &self.name.whole
    }

    fn schema_name(&self, params: &AggregateFunctionParams) -> Result<String> {
        udaf_default_schema_name(self, params).map(|name| self.name.of_column(name))
    }

    fn human_display(&self, params: &AggregateFunctionParams) -> Result<String> {
        udaf_default_human_display(self, params).map(|name| self.name.shown(name))
    }

    fn display_name(&self, params: &AggregateFunctionParams) -> Result<String> {
        udaf_default_display_name(self, params).map(|name| self.name.shown(name))
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _arg_types: &[DataType]) -> Result<DataType> {
        Ok(self.call.state_type())
    }

    fn accumulator(&self, _args: AccumulatorArgs) -> Result<Box<dyn Accumulator>> {
        Ok(Box::new(StateAccumulator { call: self.call.clone(), inner: self.call.accumulator()? }))
    }

    fn groups_accumulator_supported(&self, _args: AccumulatorArgs) -> bool {
        self.call.has_groups_accumulator()
    }

    fn create_groups_accumulator(&self, _args: AccumulatorArgs) -> Result<Box<dyn GroupsAccumulator>> {
        Ok(Box::new(StateGroups { call: self.call.clone(), inner: self.call.groups_accumulator()? }))
    }

    fn state_fields(&self, _args: StateFieldsArgs) -> Result<Vec<FieldRef>> {
        Ok(self.call.state.iter().cloned().collect())
    }
}

#[derive(Debug)]
struct StateAccumulator {
    call: Call,
    inner: Box<dyn Accumulator>,
}

impl Accumulator for StateAccumulator {
    fn update_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        self.inner.update_batch(values)
    }

    fn evaluate(&mut self) -> Result<ScalarValue> {
        let columns = self.inner.state()?.iter().map(|value| value.to_array()).collect::<Result<Vec<_>>>()?;
        ScalarValue::try_from_array(&self.call.state_array(columns, 1)?, 0)
    }

    fn size(&self) -> usize {
        size_of_val(self) + self.inner.size()
    }

    fn state(&mut self) -> Result<Vec<ScalarValue>> {
        self.inner.state()
    }

    fn merge_batch(&mut self, states: &[ArrayRef]) -> Result<()> {
        self.inner.merge_batch(states)
    }
}

struct StateGroups {
    call: Call,
    inner: Box<dyn GroupsAccumulator>,
}

impl GroupsAccumulator for StateGroups {
    fn update_batch(
        &mut self,
        values: &[ArrayRef],
        group_indices: &[usize],
        opt_filter: Option<&BooleanArray>,
        total_num_groups: usize,
    ) -> Result<()> {
        self.inner.update_batch(values, group_indices, opt_filter, total_num_groups)
    }

    fn evaluate(&mut self, emit_to: EmitTo) -> Result<ArrayRef> {
        let columns = self.inner.state(emit_to)?;
        let rows = columns.first().map_or(0, |column| column.len());
        self.call.state_array(columns, rows)
    }

    fn state(&mut self, emit_to: EmitTo) -> Result<Vec<ArrayRef>> {
        self.inner.state(emit_to)
    }

    fn merge_batch(&mut self, values: &[ArrayRef], group_indices: &[usize], total_num_groups: usize) -> Result<()> {
        self.inner.merge_batch(values, group_indices, total_num_groups)
    }

    fn convert_to_state(&self, values: &[ArrayRef], opt_filter: Option<&BooleanArray>) -> Result<Vec<ArrayRef>> {
        self.inner.convert_to_state(values, opt_filter)
    }

    fn size(&self) -> usize {
        self.inner.size()
    }
}

/// The aggregate that merges the states of `call` and gives its value.
pub fn merge_of(call: &Call) -> Arc<AggregateUDF> {
    Arc::new(AggregateUDF::new_from_impl(MergeOf {
        name: call.name("merge"),
        call: call.clone(),
        signature: Signature::any(1, Volatility::Immutable),
    }))
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct MergeOf {
    name: Name,
    call: Call,
    signature: Signature,
}

impl AggregateUDFImpl for MergeOf {
    fn name(&self) -> &str {
        &self.name.whole
    }

    fn schema_name(&self, params: &AggregateFunctionParams) -> Result<String> {
        udaf_default_schema_name(self, params).map(|name| self.name.of_column(name))
    }

    fn human_display(&self, params: &AggregateFunctionParams) -> Result<String> {
        udaf_default_human_display(self, params).map(|name| self.name.shown(name))
    }

    fn display_name(&self, params: &AggregateFunctionParams) -> Result<String> {
        udaf_default_display_name(self, params).map(|name| self.name.shown(name))
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, arg_types: &[DataType]) -> Result<DataType> {
        match arg_types {
            [DataType::Struct(fields)] if fields.len() == self.call.state.len() => {
                Ok(self.call.value.data_type().clone())
            }
            other => exec_err!("{} merges states of {}, not {other:?}", self.name.shown, self.call.state_type()),
        }
    }

    fn is_nullable(&self) -> bool {
        self.call.value.is_nullable()
    }

    fn accumulator(&self, _args: AccumulatorArgs) -> Result<Box<dyn Accumulator>> {
        Ok(Box::new(MergeAccumulator { inner: self.call.accumulator()? }))
    }

    fn groups_accumulator_supported(&self, _args: AccumulatorArgs) -> bool {
        self.call.has_groups_accumulator()
    }

    fn create_groups_accumulator(&self, _args: AccumulatorArgs) -> Result<Box<dyn GroupsAccumulator>> {
        Ok(Box::new(MergeGroups { inner: self.call.groups_accumulator()? }))
    }

    fn state_fields(&self, _args: StateFieldsArgs) -> Result<Vec<FieldRef>> {
        Ok(self.call.state.iter().cloned().collect())
    }

    fn default_value(&self, data_type: &DataType) -> Result<ScalarValue> {
        self.call.function.default_value(data_type)
    }
}

/// The columns of a batch of states; a state is never NULL.
fn states(values: &[ArrayRef]) -> Result<Vec<ArrayRef>> {
    match values {
        [states] if states.data_type().is_nested() && states.null_count() == 0 => {
            Ok(states.as_struct().columns().to_vec())
        }
        _ => exec_err!("a batch of aggregate states is damaged"),
    }
}

#[derive(Debug)]
struct MergeAccumulator {
    inner: Box<dyn Accumulator>,
}

impl Accumulator for MergeAccumulator {
    fn update_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        self.inner.merge_batch(&states(values)?)
    }

    fn evaluate(&mut self) -> Result<ScalarValue> {
        self.inner.evaluate()
    }

    fn size(&self) -> usize {
        size_of_val(self) + self.inner.size()
    }

    fn state(&mut self) -> Result<Vec<ScalarValue>> {
        self.inner.state()
    }

    fn merge_batch(&mut self, states: &[ArrayRef]) -> Result<()> {
        self.inner.merge_batch(states)
    }
}

struct MergeGroups {
    inner: Box<dyn GroupsAccumulator>,
}

impl GroupsAccumulator for MergeGroups {
    fn update_batch(
        &mut self,
        values: &[ArrayRef],
        group_indices: &[usize],
        opt_filter: Option<&BooleanArray>,
        total_num_groups: usize,
    ) -> Result<()> {
        if opt_filter.is_some() {
            return internal_err!("states are filtered before they are made");
        }
        self.inner.merge_batch(&states(values)?, group_indices, total_num_groups)
    }

    fn evaluate(&mut self, emit_to: EmitTo) -> Result<ArrayRef> {
        self.inner.evaluate(emit_to)
    }

    fn state(&mut self, emit_to: EmitTo) -> Result<Vec<ArrayRef>> {
        self.inner.state(emit_to)
    }

    fn merge_batch(&mut self, values: &[ArrayRef], group_indices: &[usize], total_num_groups: usize) -> Result<()> {
        self.inner.merge_batch(values, group_indices, total_num_groups)
    }

    fn convert_to_state(&self, values: &[ArrayRef], _opt_filter: Option<&BooleanArray>) -> Result<Vec<ArrayRef>> {
        states(values)
    }

    fn size(&self) -> usize {
        self.inner.size()
    }
}
