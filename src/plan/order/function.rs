//! What aggregates and window functions read of the rows: only which there are, or in which order they come, too.

use arrow::datatypes::DataType;
use datafusion::common::DFSchema;
use datafusion::logical_expr::{Expr, ExprSchemable};

/// Aggregates whose value does not depend on the order of rows, but for the rounding of floats.
const OF_THE_SET: [&str; 33] = [
    "approx_distinct",
    "avg",
    "bit_and",
    "bit_or",
    "bit_xor",
    "bool_and",
    "bool_or",
    "corr",
    "count",
    "covar_pop",
    "covar_samp",
    "grouping",
    "max",
    "median",
    "min",
    "percentile_cont",
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
    "sum",
    "var",
    "var_pop",
    // Names that DataFusion has for the same.
    "covar",
    "stddev_samp",
    "var_samp",
];

/// Those of them that are exact also of floats: the others round, and so depend on the order of rows in the last
/// digits.
const EXACT: [&str; 7] = ["approx_distinct", "count", "grouping", "max", "median", "min", "percentile_cont"];

/// Aggregates that take rows in their order, and may be given one.
const OF_THE_ORDER: [&str; 6] = ["any_value", "array_agg", "first_value", "last_value", "nth_value", "string_agg"];

/// Aggregates that depend on how rows are batched.
const OF_THE_BATCHES: [&str; 3] = ["approx_median", "approx_percentile_cont", "approx_percentile_cont_with_weight"];

/// What an aggregate reads of its rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reads {
    /// Only which they are.
    Set,
    /// Also their order, and an ORDER BY of its own may give one.
    Order,
    /// Also how they come one after the other and in batches, and nothing can say that.
    Batches,
    /// Nobody knows: it is the user's own.
    Unknown,
}

/// What the aggregate of this name reads of rows that give it arguments of these types.
pub fn reads<'a>(function: &str, mut types: impl Iterator<Item = &'a DataType>) -> Reads {
    match function {
        // Where a field is NULL, DataFusion holds neither for the smaller and keeps the one it met first.
        "max" | "min" if types.any(has_nulls_inside) => Reads::Batches,
        name if OF_THE_SET.contains(&name) => Reads::Set,
        name if OF_THE_ORDER.contains(&name) => Reads::Order,
        name if OF_THE_BATCHES.contains(&name) => Reads::Batches,
        _ => Reads::Unknown,
    }
}

/// As [`reads`], of a call over columns of `schema`.
pub fn call_reads(function: &str, args: &[Expr], schema: &DFSchema) -> Reads {
    let types: Vec<DataType> = args.iter().filter_map(|arg| arg.get_type(schema).ok()).collect();
    reads(function, types.iter())
}

/// Whether an aggregate rounds floats, so that its last digits depend on the order of rows.
pub fn rounds(function: &str) -> bool {
    !EXACT.contains(&function)
}

fn has_nulls_inside(data_type: &DataType) -> bool {
    match data_type {
        DataType::Struct(fields) => fields.iter().any(|f| f.is_nullable() || has_nulls_inside(f.data_type())),
        DataType::List(field)
        | DataType::LargeList(field)
        | DataType::ListView(field)
        | DataType::LargeListView(field)
        | DataType::FixedSizeList(field, _) => field.is_nullable() || has_nulls_inside(field.data_type()),
        DataType::Dictionary(_, values) => has_nulls_inside(values),
        DataType::RunEndEncoded(_, values) => has_nulls_inside(values.data_type()),
        // Nobody says how they compare.
        DataType::Map(_, _) | DataType::Union(_, _) => true,
        _ => false,
    }
}

/// Window functions that rank rows by what they are ordered by, so that rows that tie are alike.
const OF_PEERS: [&str; 4] = ["cume_dist", "dense_rank", "percent_rank", "rank"];

/// Whether the result of a DataFusion window function (other than an aggregate) differs between rows that tie.
pub fn tells_ties_apart(function: &str) -> bool {
    !OF_PEERS.contains(&function)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::datatypes::{DataType, Field, Fields};
    use datafusion::execution::SessionStateDefaults;

    use super::{EXACT, OF_THE_BATCHES, OF_THE_ORDER, OF_THE_SET, Reads, reads};

    #[test]
    fn every_aggregate_of_datafusion_is_known() {
        let own = SessionStateDefaults::default_aggregate_functions();
        let names = || own.iter().map(|function| function.name());
        for name in names() {
            assert_ne!(reads(name, std::iter::empty()), Reads::Unknown, "{name}");
        }
        for known in OF_THE_SET.iter().chain(&OF_THE_ORDER).chain(&OF_THE_BATCHES).chain(&EXACT) {
            let is_there = own.iter().any(|f| f.name() == *known || f.aliases().iter().any(|alias| alias == known));
            assert!(is_there, "{known} is no aggregate");
        }
    }

    #[test]
    fn extremes_of_nested_values_depend_on_more_than_the_set_where_something_inside_may_be_null() {
        let nested = |is_nullable| DataType::Struct(Fields::from(vec![Field::new("a", DataType::Int32, is_nullable)]));
        let list = |of: DataType| DataType::List(Arc::new(Field::new_list_field(of, false)));
        let of = |data_type: &DataType| reads("max", [data_type].into_iter());
        assert_eq!(
            (of(&DataType::Int32), of(&nested(false)), of(&nested(true))),
            (Reads::Set, Reads::Set, Reads::Batches)
        );
        assert_eq!((of(&list(nested(false))), of(&list(nested(true)))), (Reads::Set, Reads::Batches));
    }
}
