//! `min` and `max` of floats by group.
//!
//! DataFusion 55 compares what a group has with each value by `<`, which is false for NaN: the last of NaN and a number
//! stays. Here floats are compared as whole numbers that have their order, with NaN above all else.

use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, BooleanArray};
use arrow::datatypes::{DataType, Field, FieldRef, Float32Type, Float64Type, Int32Type, Int64Type};
use datafusion::common::{Result, ScalarValue, internal_err};
use datafusion::functions_aggregate::min_max::{Max, Min};
use datafusion::logical_expr::function::{AccumulatorArgs, StateFieldsArgs};
use datafusion::logical_expr::{
    Accumulator, AggregateUDF, AggregateUDFImpl, EmitTo, GroupsAccumulator, ReversedUDAF, SetMonotonicity, Signature,
};

/// The aggregate that replaces `function` over `types`, if that is `min` or `max` of floats.
pub fn float_extreme(function: &AggregateUDF, types: &[DataType]) -> Option<AggregateUDF> {
    let is_extreme = function.inner().is::<Max>() || function.inner().is::<Min>();
    let is_of_floats = matches!(types, [data_type] if data_type.is_floating());
    (is_extreme && is_of_floats).then(|| AggregateUDF::new_from_impl(FloatExtreme { of: Arc::new(function.clone()) }))
}

/// DataFusion's, but by group.
#[derive(Debug, PartialEq, Eq, Hash)]
struct FloatExtreme {
    of: Arc<AggregateUDF>,
}

impl AggregateUDFImpl for FloatExtreme {
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

    fn groups_accumulator_supported(&self, args: AccumulatorArgs) -> bool {
        matches!(args.return_field.data_type(), DataType::Float32 | DataType::Float64)
    }

    fn create_groups_accumulator(&self, args: AccumulatorArgs) -> Result<Box<dyn GroupsAccumulator>> {
        let floats = args.return_field.data_type().clone();
        let wholes = match floats {
            DataType::Float32 => DataType::Int32,
            _ => DataType::Int64,
        };
        let field: FieldRef = Arc::new(Field::new(args.return_field.name(), wholes, true));
        let of = self.of.create_groups_accumulator(AccumulatorArgs {
            return_field: Arc::clone(&field),
            schema: args.schema,
            ignore_nulls: args.ignore_nulls,
            order_bys: args.order_bys,
            is_reversed: args.is_reversed,
            name: args.name,
            is_distinct: args.is_distinct,
            exprs: args.exprs,
            expr_fields: &[field],
        })?;
        Ok(Box::new(ByGroup { of, floats }))
    }

    fn create_sliding_accumulator(&self, args: AccumulatorArgs) -> Result<Box<dyn Accumulator>> {
        self.of.create_sliding_accumulator(args)
    }

    fn reverse_expr(&self) -> ReversedUDAF {
        ReversedUDAF::Identical
    }

    fn set_monotonicity(&self, data_type: &DataType) -> SetMonotonicity {
        self.of.inner().set_monotonicity(data_type)
    }

    fn default_value(&self, data_type: &DataType) -> Result<ScalarValue> {
        self.of.default_value(data_type)
    }
}

/// The extremes of whole numbers in the order of floats.
struct ByGroup {
    of: Box<dyn GroupsAccumulator>,
    floats: DataType,
}

impl ByGroup {
    /// Whole numbers in the order of floats (IEEE 754, `totalOrder`).
    fn wholes(&self, values: &[ArrayRef]) -> Result<Vec<ArrayRef>> {
        let wholes: ArrayRef = match (&self.floats, values) {
            (DataType::Float32, [values]) => Arc::new(
                values
                    .as_primitive::<Float32Type>()
                    .unary::<_, Int32Type>(|value| swapped32(value.to_bits().cast_signed())),
            ),
            (_, [values]) => Arc::new(
                values
                    .as_primitive::<Float64Type>()
                    .unary::<_, Int64Type>(|value| swapped64(value.to_bits().cast_signed())),
            ),
            _ => return internal_err!("min and max have {} arguments", values.len()),
        };
        Ok(vec![wholes])
    }

    fn floats(&self, wholes: &ArrayRef) -> ArrayRef {
        match self.floats {
            DataType::Float32 => Arc::new(
                wholes
                    .as_primitive::<Int32Type>()
                    .unary::<_, Float32Type>(|whole| f32::from_bits(swapped32(whole).cast_unsigned())),
            ),
            _ => Arc::new(
                wholes
                    .as_primitive::<Int64Type>()
                    .unary::<_, Float64Type>(|whole| f64::from_bits(swapped64(whole).cast_unsigned())),
            ),
        }
    }
}

/// Turns the order of what is below zero around, and back.
fn swapped32(bits: i32) -> i32 {
    if bits < 0 { bits ^ i32::MAX } else { bits }
}

fn swapped64(bits: i64) -> i64 {
    if bits < 0 { bits ^ i64::MAX } else { bits }
}

impl GroupsAccumulator for ByGroup {
    fn update_batch(
        &mut self,
        values: &[ArrayRef],
        groups: &[usize],
        filter: Option<&BooleanArray>,
        total: usize,
    ) -> Result<()> {
        let wholes = self.wholes(values)?;
        self.of.update_batch(&wholes, groups, filter, total)
    }

    fn merge_batch(&mut self, values: &[ArrayRef], groups: &[usize], total: usize) -> Result<()> {
        let wholes = self.wholes(values)?;
        self.of.merge_batch(&wholes, groups, total)
    }

    fn convert_to_state(&self, values: &[ArrayRef], filter: Option<&BooleanArray>) -> Result<Vec<ArrayRef>> {
        let wholes = self.of.convert_to_state(&self.wholes(values)?, filter)?;
        Ok(wholes.iter().map(|wholes| self.floats(wholes)).collect())
    }

    fn evaluate(&mut self, emit_to: EmitTo) -> Result<ArrayRef> {
        let wholes = self.of.evaluate(emit_to)?;
        Ok(self.floats(&wholes))
    }

    fn state(&mut self, emit_to: EmitTo) -> Result<Vec<ArrayRef>> {
        let wholes = self.of.state(emit_to)?;
        Ok(wholes.iter().map(|wholes| self.floats(wholes)).collect())
    }

    fn size(&self) -> usize {
        self.of.size()
    }
}
