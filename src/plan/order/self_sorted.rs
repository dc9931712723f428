//! Aggregates of distinct values, which sort what they keep.

use std::sync::Arc;

use arrow::datatypes::{DataType, FieldRef};
use datafusion::common::Result;
use datafusion::logical_expr::expr::AggregateFunction;
use datafusion::logical_expr::function::{AccumulatorArgs, StateFieldsArgs};
use datafusion::logical_expr::utils::AggregateOrderSensitivity;
use datafusion::logical_expr::{Accumulator, AggregateUDF, AggregateUDFImpl, ReversedUDAF, Signature};

/// Whether a call sorts the values that it keeps, however its input comes.
pub fn sorts_itself(call: &AggregateFunction) -> bool {
    call.params.distinct && ["array_agg", "string_agg"].contains(&call.func.name())
}

/// The function of such a call, of which DataFusion does not ask for sorted rows.
///
/// DataFusion 55 sorts the input of all aggregates once, and reverses those that ask for the opposite order. These two
/// ignore that, and would give their values in the order of the other aggregate.
pub fn self_sorted(func: &Arc<AggregateUDF>) -> Arc<AggregateUDF> {
    if func.inner().is::<SelfSorted>() {
        return Arc::clone(func);
    }
    Arc::new(AggregateUDF::new_from_impl(SelfSorted { of: Arc::clone(func) }))
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct SelfSorted {
    of: Arc<AggregateUDF>,
}

impl AggregateUDFImpl for SelfSorted {
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

    fn order_sensitivity(&self) -> AggregateOrderSensitivity {
        AggregateOrderSensitivity::Insensitive
    }

    fn reverse_expr(&self) -> ReversedUDAF {
        ReversedUDAF::NotSupported
    }

    fn supports_null_handling_clause(&self) -> bool {
        self.of.supports_null_handling_clause()
    }
}
