//! Types of columns that can be read, but not be stored: neither between two steps, nor in a table that others read.

use std::fmt::Display;

use arrow::datatypes::DataType;

/// Lists, structs and maps may be nested at most this deep, and a map counts twice: Arrow's reader of IPC follows 64
/// levels, pyarrow's reader of Parquet 33 lists.
pub const MOST_NESTED: usize = 30;

/// What is wrong with a column of a type that can't be stored, and what to do.
pub fn unstorable(data_type: &DataType) -> Option<String> {
    let (what, instead) = match data_type {
        _ if depth(data_type) > MOST_NESTED => return Some(too_deep()),
        // Arrow divides by the length.
        DataType::FixedSizeBinary(..=0) => ("bytes of length 0", "bytes of any length"),
        // The rows are not in Parquet's pages.
        DataType::FixedSizeList(_, ..=0) => ("lists of the fixed length 0", "lists of any length"),
        _ => return children(data_type).into_iter().find_map(unstorable),
    };
    Some(format!("has {what}, which can't be stored; write {instead}, or declare the columns without it"))
}

/// That a column is nested too deep, and what to do.
pub fn too_deep() -> String {
    format!(
        "has more than {MOST_NESTED} lists, structs and maps inside each other, of which a map counts twice; write the inner ones as \
         JSON text, or declare the columns without it"
    )
}

/// Whether a reader gave up since a column is nested too deep, which it says in words only.
pub fn is_too_deep(cause: &impl Display) -> bool {
    cause.to_string().contains("DepthLimitReached")
}

/// How many lists, structs and maps, which have structs of keys and values in them, stand in each other.
fn depth(data_type: &DataType) -> usize {
    let below = children(data_type).into_iter().map(depth).max().unwrap_or_default();
    let is_encoding = matches!(data_type, DataType::Dictionary(..) | DataType::RunEndEncoded(..));
    below + usize::from(data_type.is_nested() && !is_encoding)
}

fn children(data_type: &DataType) -> Vec<&DataType> {
    match data_type {
        DataType::Dictionary(_, values) => vec![values],
        DataType::RunEndEncoded(_, item)
        | DataType::List(item)
        | DataType::LargeList(item)
        | DataType::ListView(item)
        | DataType::LargeListView(item)
        | DataType::FixedSizeList(item, _)
        | DataType::Map(item, _) => vec![item.data_type()],
        DataType::Struct(fields) => fields.iter().map(|field| field.data_type()).collect(),
        DataType::Union(fields, _) => fields.iter().map(|(_, field)| field.data_type()).collect(),
        _ => Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::datatypes::DataType::{self, *};
    use arrow::datatypes::{Field, Fields};

    use crate::source::storable::unstorable;

    fn list(item: DataType) -> DataType {
        DataType::new_list(item, true)
    }

    fn a_struct(data_type: DataType) -> DataType {
        Struct(Fields::from(vec![Field::new("a", Int8, true), Field::new("b", data_type, true)]))
    }

    fn map(values: DataType) -> DataType {
        Map(Arc::new(Field::new("entries", a_struct(values), false)), false)
    }

    fn inside(levels: usize, around: fn(DataType) -> DataType) -> DataType {
        (0..levels).fold(Int64, |inner, _| around(inner))
    }

    #[test]
    fn what_is_too_deep_or_has_no_length_is_told() {
        let no_bytes = "has bytes of length 0";
        let no_items = "has lists of the fixed length 0";
        let deep = "has more than 30 lists, structs and maps";
        let empty_lists = |item| FixedSizeList(Arc::new(Field::new_list_field(item, true)), 0);
        for (data_type, expected) in [
            (inside(30, list), None),
            (inside(31, list), Some(deep)),
            (inside(30, a_struct), None),
            (inside(31, a_struct), Some(deep)),
            (inside(15, map), None),
            (inside(16, map), Some(deep)),
            (Dictionary(Box::new(Int8), Box::new(inside(30, list))), None),
            (FixedSizeBinary(1), None),
            (FixedSizeBinary(0), Some(no_bytes)),
            (list(a_struct(FixedSizeBinary(0))), Some(no_bytes)),
            (Dictionary(Box::new(Int8), Box::new(FixedSizeBinary(0))), Some(no_bytes)),
            (FixedSizeList(Arc::new(Field::new_list_field(Int8, true)), 1), None),
            (empty_lists(Int8), Some(no_items)),
            (map(empty_lists(Utf8)), Some(no_items)),
        ] {
            let found = unstorable(&data_type);
            match expected {
                None => assert_eq!(found, None, "{data_type}"),
                Some(words) => {
                    assert!(found.as_ref().is_some_and(|text| text.starts_with(words)), "{data_type} {found:?}")
                }
            }
        }
    }
}
