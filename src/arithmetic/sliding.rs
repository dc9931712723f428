//! Aggregates over frames that rows leave again.
//!
//! DataFusion 55 takes from a sum what leaves the frame. Of floats that leaves what was rounded: behind `1e17` the sum of
//! 1.0 and 2.5 is 0, variances are negative, and one NaN stays for ever. For some aggregates it has nothing of the kind.
//! Here nothing is taken away: the rows of a frame are two stacks, of which the older one has the state of all its rows
//! from each on ("two-stack queue"; Tangwongsan, Hirzel, Schneider: *General Incremental Sliding-Window Aggregation*,
//! PVLDB 8(7), 2015). A row is computed into three states, however wide the frame is.

use std::mem::size_of_val;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef};
use arrow::compute::concat;
use arrow::datatypes::{DataType, FieldRef, Schema};
use datafusion::common::{Result, ScalarValue, internal_err};
use datafusion::logical_expr::function::{AccumulatorArgs, StateFieldsArgs};
use datafusion::logical_expr::utils::AggregateOrderSensitivity;
use datafusion::logical_expr::{Accumulator, AggregateUDF, AggregateUDFImpl, ReversedUDAF, Signature, WindowFrame};
use datafusion::physical_expr::{PhysicalExpr, PhysicalSortExpr};

/// Rows of a block.
const BLOCK_ROWS: usize = 256;

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
        let (oldest, older, newer_rows) = (Vec::new(), Vec::new(), Vec::new());
        Ok(Box::new(TwoStacks { make, oldest, older, newer, newer_rows, last_rows: (Vec::new(), 0) }))
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
///
/// Of the older rows only the oldest block has a state for each row, so that a frame takes little more memory than the
/// arguments of its rows.
#[derive(Debug)]
struct TwoStacks {
    make: Maker,
    /// For each row of the oldest block, the oldest row last, the state of it and all older rows that came after it.
    oldest: Vec<Vec<ScalarValue>>,
    /// The other blocks of older rows, the oldest last.
    older: Vec<Block>,
    /// All newer rows.
    newer: Box<dyn Accumulator>,
    /// The arguments of the newer rows, in blocks but for the last ones.
    newer_rows: Vec<Vec<ArrayRef>>,
    /// The last of the newer rows, as they came, and how many.
    last_rows: (Vec<Vec<ArrayRef>>, usize),
}

/// Rows, and the state of all older rows that came after them.
#[derive(Debug)]
struct Block {
    rows: Vec<ArrayRef>,
    after: Option<Vec<ScalarValue>>,
}

impl TwoStacks {
    /// Puts the last rows together.
    fn put_together(&mut self) -> Result<()> {
        let (batches, _) = std::mem::take(&mut self.last_rows);
        let arguments = batches.first().map_or(0, Vec::len);
        let together = (0..arguments).map(|at| {
            let values: Vec<&dyn Array> = batches.iter().map(|batch| batch[at].as_ref()).collect();
            concat(&values)
        });
        let together = together.collect::<Result<Vec<_>, _>>()?;
        if arguments > 0 {
            self.newer_rows.push(together);
        }
        Ok(())
    }

    /// Makes the newer rows older ones, when there are no others.
    fn age(&mut self) -> Result<()> {
        self.put_together()?;
        let mut all = self.make.accumulator()?;
        let mut after = None;
        for batch in std::mem::take(&mut self.newer_rows).into_iter().rev() {
            let mut end = rows_of(&batch);
            while end > 0 {
                let start = end.saturating_sub(BLOCK_ROWS);
                let rows: Vec<ArrayRef> = batch.iter().map(|values| values.slice(start, end - start)).collect();
                all.update_batch(&rows)?;
                self.older.push(Block { rows, after });
                after = Some(all.state()?);
                end = start;
            }
        }
        self.newer = self.make.accumulator()?;
        Ok(())
    }

    /// Gives each row of the next block its state, when the block before it is gone.
    fn open_block(&mut self) -> Result<()> {
        let Some(Block { rows, after }) = self.older.pop() else { return Ok(()) };
        let mut all = self.make.accumulator()?;
        merge(all.as_mut(), after.as_ref())?;
        for row in (0..rows_of(&rows)).rev() {
            let row: Vec<ArrayRef> = rows.iter().map(|values| values.slice(row, 1)).collect();
            all.update_batch(&row)?;
            self.oldest.push(all.state()?);
        }
        Ok(())
    }
}

fn rows_of(batch: &[ArrayRef]) -> usize {
    batch.first().map_or(0, |values| values.len())
}

fn merge(into: &mut dyn Accumulator, state: Option<&Vec<ScalarValue>>) -> Result<()> {
    let Some(state) = state else { return Ok(()) };
    let state = state.iter().map(|value| value.to_array_of_size(1)).collect::<Result<Vec<_>>>()?;
    into.merge_batch(&state)
}

impl Accumulator for TwoStacks {
    fn update_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        self.newer.update_batch(values)?;
        let (batches, rows) = &mut self.last_rows;
        batches.push(values.to_vec());
        *rows += rows_of(values);
        if *rows >= BLOCK_ROWS { self.put_together() } else { Ok(()) }
    }

    fn retract_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        for _ in 0..rows_of(values) {
            if self.oldest.is_empty() {
                self.age()?;
                self.open_block()?;
            }
            if self.oldest.pop().is_none() {
                return internal_err!("a row leaves a frame that it is not in");
            }
            if self.oldest.is_empty() {
                self.open_block()?;
            }
        }
        Ok(())
    }

    fn evaluate(&mut self) -> Result<ScalarValue> {
        let mut all = self.make.accumulator()?;
        let has_newer = !self.newer_rows.is_empty() || !self.last_rows.0.is_empty();
        let newer = has_newer.then(|| self.newer.state()).transpose()?;
        merge(all.as_mut(), self.oldest.last())?;
        merge(all.as_mut(), newer.as_ref())?;
        all.evaluate()
    }

    fn size(&self) -> usize {
        let of_state = |state: &Vec<ScalarValue>| state.iter().map(ScalarValue::size).sum::<usize>();
        let of_values = |values: &ArrayRef| values.to_data().get_slice_memory_size().unwrap_or_default();
        let states = self.oldest.iter().chain(self.older.iter().filter_map(|block| block.after.as_ref()));
        let rows = self.older.iter().map(|block| &block.rows).chain(&self.newer_rows).chain(&self.last_rows.0);
        size_of_val(self)
            + self.newer.size()
            + states.map(of_state).sum::<usize>()
            + rows.flatten().map(of_values).sum::<usize>()
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
