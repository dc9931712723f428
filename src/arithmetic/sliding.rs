//! Aggregates over frames that rows leave again.
//!
//! DataFusion 55 takes from a sum what leaves the frame. Of floats that leaves what was rounded: behind `1e17` the sum of
//! 1.0 and 2.5 is 0, variances are negative, and one NaN stays for ever. For some aggregates it has nothing of the kind.
//! Here nothing is taken away: the rows of a frame are two stacks, of which the older one has the state of all its rows
//! from each on ("two-stack queue"; Tangwongsan, Hirzel, Schneider: *General Incremental Sliding-Window Aggregation*,
//! PVLDB 8(7), 2015). A row is computed into two states, however wide the frame is.

use std::mem::size_of_val;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef};
use arrow::datatypes::{DataType, FieldRef, Schema};
use datafusion::common::{Result, ScalarValue, internal_err};
use datafusion::logical_expr::function::{AccumulatorArgs, StateFieldsArgs};
use datafusion::logical_expr::utils::AggregateOrderSensitivity;
use datafusion::logical_expr::{Accumulator, AggregateUDF, AggregateUDFImpl, ReversedUDAF, Signature, WindowFrame};
use datafusion::physical_expr::{PhysicalExpr, PhysicalSortExpr};

/// Aggregates whose states DataFusion can't take a row from rightly, or at all. None depends on the order of rows.
const FUNCTIONS: [&str; 21] = [
    "bit_and",
    "bit_or",
    "bit_xor",
    "bool_and",
    "bool_or",
    "corr",
    "covar_pop",
    "covar_samp",
    "regr_avgx",
    "regr_avgy",
    "regr_count",
    "regr_intercept",
    "regr_r2",
    "regr_slope",
    "regr_sxx",
    "regr_sxy",
    "regr_syy",
    "stddev",
    "stddev_pop",
    "var",
    "var_pop",
];

/// The form of an aggregate over arguments of these types in which it is right for a frame; `None` where it is so already.
pub fn sliding(function: &Arc<AggregateUDF>, types: &[DataType], frame: &WindowFrame) -> Option<Arc<AggregateUDF>> {
    let sums_floats = ["sum", "avg"].contains(&function.name()) && types.first().is_some_and(DataType::is_floating);
    let is_wrong = sums_floats || FUNCTIONS.contains(&function.name());
    if !is_wrong || frame.start_bound.is_unbounded() || function.inner().is::<Sliding>() {
        return None;
    }
    Some(Arc::new(AggregateUDF::new_from_impl(Sliding { of: Arc::clone(function) })))
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct Sliding {
    of: Arc<AggregateUDF>,
}

impl AggregateUDFImpl for Sliding {
    fn name(&self) -> &str {
        self.of.name()
    }

    fn signature(&self) -> &Signature {
        self.of.signature()
    }

    fn return_type(&self, types: &[DataType]) -> Result<DataType> {
        self.of.return_type(types)
    }

    fn accumulator(&self, args: AccumulatorArgs) -> Result<Box<dyn Accumulator>> {
        self.of.accumulator(args)
    }

    fn state_fields(&self, args: StateFieldsArgs) -> Result<Vec<FieldRef>> {
        self.of.state_fields(args)
    }

    fn create_sliding_accumulator(&self, args: AccumulatorArgs) -> Result<Box<dyn Accumulator>> {
        if args.is_distinct {
            return self.of.create_sliding_accumulator(args);
        }
        let make = Maker {
            of: Arc::clone(&self.of),
            return_field: Arc::clone(&args.return_field),
            schema: args.schema.clone(),
            ignore_nulls: args.ignore_nulls,
            order_bys: args.order_bys.to_vec(),
            is_reversed: args.is_reversed,
            name: args.name.to_string(),
            exprs: args.exprs.to_vec(),
            expr_fields: args.expr_fields.to_vec(),
        };
        let newer = make.accumulator()?;
        Ok(Box::new(TwoStacks { make, older: Vec::new(), newer, newer_rows: Vec::new() }))
    }

    fn reverse_expr(&self) -> ReversedUDAF {
        ReversedUDAF::Identical
    }

    fn order_sensitivity(&self) -> AggregateOrderSensitivity {
        self.of.order_sensitivity()
    }

    fn default_value(&self, data_type: &DataType) -> Result<ScalarValue> {
        self.of.default_value(data_type)
    }
}

/// Makes accumulators that have seen nothing.
#[derive(Debug)]
struct Maker {
    of: Arc<AggregateUDF>,
    return_field: FieldRef,
    schema: Schema,
    ignore_nulls: bool,
    order_bys: Vec<PhysicalSortExpr>,
    is_reversed: bool,
    name: String,
    exprs: Vec<Arc<dyn PhysicalExpr>>,
    expr_fields: Vec<FieldRef>,
}

impl Maker {
    fn accumulator(&self) -> Result<Box<dyn Accumulator>> {
        self.of.accumulator(AccumulatorArgs {
            return_field: Arc::clone(&self.return_field),
            schema: &self.schema,
            ignore_nulls: self.ignore_nulls,
            order_bys: &self.order_bys,
            is_reversed: self.is_reversed,
            name: &self.name,
            is_distinct: false,
            exprs: &self.exprs,
            expr_fields: &self.expr_fields,
        })
    }
}

/// The rows of a frame: older ones, and those that came since the older ones were made.
#[derive(Debug)]
struct TwoStacks {
    make: Maker,
    /// For each older row, the oldest last, the state of it and all older rows that came after it.
    older: Vec<Vec<ScalarValue>>,
    /// All newer rows.
    newer: Box<dyn Accumulator>,
    /// The arguments of the newer rows.
    newer_rows: Vec<Vec<ArrayRef>>,
}

impl TwoStacks {
    /// Makes the newer rows older ones, when there are no others.
    fn age(&mut self) -> Result<()> {
        let mut all = self.make.accumulator()?;
        for batch in std::mem::take(&mut self.newer_rows).into_iter().rev() {
            for row in (0..rows_of(&batch)).rev() {
                let row: Vec<ArrayRef> = batch.iter().map(|values| values.slice(row, 1)).collect();
                all.update_batch(&row)?;
                self.older.push(all.state()?);
            }
        }
        self.newer = self.make.accumulator()?;
        Ok(())
    }
}

fn rows_of(batch: &[ArrayRef]) -> usize {
    batch.first().map_or(0, |values| values.len())
}

impl Accumulator for TwoStacks {
    fn update_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        self.newer.update_batch(values)?;
        self.newer_rows.push(values.to_vec());
        Ok(())
    }

    fn retract_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        for _ in 0..rows_of(values) {
            if self.older.is_empty() {
                self.age()?;
            }
            if self.older.pop().is_none() {
                return internal_err!("a row leaves a frame that it is not in");
            }
        }
        Ok(())
    }

    fn evaluate(&mut self) -> Result<ScalarValue> {
        let mut all = self.make.accumulator()?;
        let newer = (!self.newer_rows.is_empty()).then(|| self.newer.state()).transpose()?;
        for state in self.older.last().into_iter().chain(&newer) {
            let state = state.iter().map(|value| value.to_array_of_size(1)).collect::<Result<Vec<_>>>()?;
            all.merge_batch(&state)?;
        }
        all.evaluate()
    }

    fn size(&self) -> usize {
        let state = self.older.first().map_or(0, |state| state.iter().map(ScalarValue::size).sum());
        let bytes = |values: &ArrayRef| values.to_data().get_slice_memory_size().unwrap_or_default();
        let rows: usize = self.newer_rows.iter().flatten().map(bytes).sum();
        size_of_val(self) + self.newer.size() + self.older.capacity() * state + rows
    }

    fn state(&mut self) -> Result<Vec<ScalarValue>> {
        internal_err!("a frame has no state to merge")
    }

    fn merge_batch(&mut self, _: &[ArrayRef]) -> Result<()> {
        internal_err!("a frame has no state to merge")
    }

    fn supports_retract_batch(&self) -> bool {
        true
    }
}
