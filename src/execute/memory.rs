//! Memory of arrays: what they keep alive, what their rows need, and how to give them no more than that.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use arrow::array::{
    Array, ArrayData, ArrayRef, AsArray, FixedSizeListArray, GenericListArray, GenericListViewArray, MapArray,
    OffsetSizeTrait, StructArray,
};
use arrow::buffer::{OffsetBuffer, ScalarBuffer};
use arrow::compute::interleave;
use arrow::datatypes::{DataType, Fields};
use arrow::error::ArrowError;

/// Memory of an array beside its buffers, roughly.
const ARRAY_BYTES: usize = 256;

/// The memory that a growing set of arrays keeps alive; a buffer that several of them share counts once.
#[derive(Debug, Default)]
pub struct Footprint {
    buffers: HashSet<usize>,
    bytes: usize,
}

impl Footprint {
    /// Bytes kept alive by what was added.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Counts memory that is not in an array.
    pub fn add_bytes(&mut self, bytes: usize) {
        self.bytes += bytes;
    }

    /// Adds an array. One that would keep alive more than twice what its rows need is copied first: the array to hold is
    /// the one returned.
    pub fn add(&mut self, array: ArrayRef) -> Result<ArrayRef, ArrowError> {
        let mut buffers = self.new_buffers(&array);
        let mut array = array;
        if buffers.values().sum::<usize>() > 2 * row_bytes(array.as_ref()) + ARRAY_BYTES {
            let rows: Vec<_> = (0..array.len()).map(|row| (0, row)).collect();
            array = without_shared_views(&interleave(&[array.as_ref()], &rows)?)?;
            buffers = self.new_buffers(&array);
        }
        self.bytes += ARRAY_BYTES + buffers.values().sum::<usize>();
        self.buffers.extend(buffers.keys());
        Ok(array)
    }

    /// The array's buffers that were not counted yet: address and capacity.
    fn new_buffers(&self, array: &ArrayRef) -> HashMap<usize, usize> {
        let mut found = HashMap::new();
        find_buffers(&array.to_data(), &mut found);
        found.retain(|address, _| !self.buffers.contains(address));
        found
    }
}

/// Bytes of the buffers that an array keeps alive.
pub fn kept_bytes(array: &dyn Array) -> usize {
    let mut found = HashMap::new();
    find_buffers(&array.to_data(), &mut found);
    found.values().sum()
}

fn find_buffers(data: &ArrayData, found: &mut HashMap<usize, usize>) {
    let nulls = data.nulls().map(|nulls| nulls.inner().inner());
    for buffer in data.buffers().iter().chain(nulls) {
        found.insert(buffer.data_ptr().addr().get(), buffer.capacity());
    }
    for child in data.child_data() {
        find_buffers(child, found);
    }
}

/// Bytes that the array's rows take when nothing is shared between them.
pub fn row_bytes(array: &dyn Array) -> usize {
    let bits = array.len().div_ceil(8);
    let nulls = if array.nulls().is_some() { bits } else { 0 };
    let values = match array.data_type() {
        DataType::Null => 0,
        DataType::Boolean => bits,
        DataType::Utf8 => offsets_bytes(array.as_string::<i32>().value_offsets()),
        DataType::LargeUtf8 => offsets_bytes(array.as_string::<i64>().value_offsets()),
        DataType::Binary => offsets_bytes(array.as_binary::<i32>().value_offsets()),
        DataType::LargeBinary => offsets_bytes(array.as_binary::<i64>().value_offsets()),
        DataType::Utf8View => {
            let array = array.as_string_view();
            size_of_val(&**array.views()) + array.total_buffer_bytes_used()
        }
        DataType::BinaryView => {
            let array = array.as_binary_view();
            size_of_val(&**array.views()) + array.total_buffer_bytes_used()
        }
        DataType::Struct(_) => array.as_struct().columns().iter().map(|column| row_bytes(column.as_ref())).sum(),
        DataType::List(_) => list_bytes(array.as_list::<i32>().value_offsets(), array.as_list::<i32>().values()),
        DataType::LargeList(_) => list_bytes(array.as_list::<i64>().value_offsets(), array.as_list::<i64>().values()),
        DataType::Map(_, _) => {
            let map = array.as_map();
            let (start, length) = range(map.value_offsets());
            size_of_val(map.value_offsets()) + row_bytes(&map.entries().slice(start, length))
        }
        DataType::FixedSizeList(_, _) => row_bytes(array.as_fixed_size_list().values().as_ref()),
        DataType::FixedSizeBinary(length) => usize::try_from(*length).unwrap_or_default() * array.len(),
        other => match other.primitive_width() {
            Some(width) => width * array.len(),
            None => array.get_array_memory_size(),
        },
    };
    nulls + values
}

/// The same values, but the buffers behind views, at any depth, hold only what these rows need: the IPC writer and
/// [`interleave`] pass them on whole.
pub fn without_shared_views(array: &ArrayRef) -> Result<ArrayRef, ArrowError> {
    if !has_views(array.data_type()) {
        return Ok(Arc::clone(array));
    }
    let nulls = array.nulls().cloned();
    Ok(match array.data_type() {
        DataType::Utf8View => Arc::new(array.as_string_view().gc()),
        DataType::BinaryView => Arc::new(array.as_binary_view().gc()),
        DataType::Struct(fields) => Arc::new(own_struct(fields, array.as_struct())?),
        DataType::List(_) => Arc::new(own_list(array.as_list::<i32>())?),
        DataType::LargeList(_) => Arc::new(own_list(array.as_list::<i64>())?),
        DataType::ListView(_) => Arc::new(own_list_view(array.as_list_view::<i32>())?),
        DataType::LargeListView(_) => Arc::new(own_list_view(array.as_list_view::<i64>())?),
        DataType::FixedSizeList(field, length) => {
            let values = without_shared_views(array.as_fixed_size_list().values())?;
            Arc::new(FixedSizeListArray::try_new_with_length(Arc::clone(field), *length, values, nulls, array.len())?)
        }
        DataType::Map(field, sorted) => {
            let map = array.as_map();
            let (start, length) = range(map.value_offsets());
            let entries = map.entries().slice(start, length);
            let entries = own_struct(entries.fields(), &entries)?;
            Arc::new(MapArray::try_new(Arc::clone(field), rebased(map.value_offsets()), entries, nulls, *sorted)?)
        }
        _ => Arc::clone(array),
    })
}

/// Whether [`without_shared_views`] has work with such a type; a list view's values are shared as views are.
pub fn has_views(data_type: &DataType) -> bool {
    match data_type {
        DataType::Utf8View | DataType::BinaryView | DataType::ListView(_) | DataType::LargeListView(_) => true,
        DataType::List(field)
        | DataType::LargeList(field)
        | DataType::FixedSizeList(field, _)
        | DataType::Map(field, _) => has_views(field.data_type()),
        DataType::Struct(fields) => fields.iter().any(|field| has_views(field.data_type())),
        _ => false,
    }
}

fn own_struct(fields: &Fields, array: &StructArray) -> Result<StructArray, ArrowError> {
    let columns = array.columns().iter().map(without_shared_views).collect::<Result<_, _>>()?;
    StructArray::try_new_with_length(fields.clone(), columns, array.nulls().cloned(), array.len())
}

fn own_list<O: OffsetSizeTrait>(array: &GenericListArray<O>) -> Result<GenericListArray<O>, ArrowError> {
    let (start, length) = range(array.value_offsets());
    let values = without_shared_views(&array.values().slice(start, length))?;
    let offsets = rebased(array.value_offsets());
    let (DataType::List(field) | DataType::LargeList(field)) = array.data_type() else { return Ok(array.clone()) };
    GenericListArray::try_new(Arc::clone(field), offsets, values, array.nulls().cloned())
}

fn own_list_view<O: OffsetSizeTrait>(array: &GenericListViewArray<O>) -> Result<GenericListViewArray<O>, ArrowError> {
    let rows: Vec<_> = (0..array.len()).map(|row| (0, row)).collect();
    let copy = interleave(&[array as &dyn Array], &rows)?;
    let copy = copy.as_list_view::<O>();
    let values = without_shared_views(copy.values())?;
    let (DataType::ListView(field) | DataType::LargeListView(field)) = array.data_type() else {
        return Ok(array.clone());
    };
    let (offsets, sizes) = (copy.offsets().clone(), copy.sizes().clone());
    GenericListViewArray::try_new(Arc::clone(field), offsets, sizes, values, copy.nulls().cloned())
}

fn offsets_bytes<O: OffsetSizeTrait>(offsets: &[O]) -> usize {
    size_of_val(offsets) + range(offsets).1
}

fn list_bytes<O: OffsetSizeTrait>(offsets: &[O], values: &ArrayRef) -> usize {
    let (start, length) = range(offsets);
    size_of_val(offsets) + row_bytes(values.slice(start, length).as_ref())
}

/// Where the values that `offsets` point to start, and how many there are.
fn range<O: OffsetSizeTrait>(offsets: &[O]) -> (usize, usize) {
    match (offsets.first(), offsets.last()) {
        (Some(first), Some(last)) => (first.as_usize(), last.as_usize() - first.as_usize()),
        _ => (0, 0),
    }
}

/// The same lengths, from 0.
fn rebased<O: OffsetSizeTrait>(offsets: &[O]) -> OffsetBuffer<O> {
    let first = offsets.first().copied().unwrap_or_default();
    OffsetBuffer::new(offsets.iter().map(|offset| *offset - first).collect::<ScalarBuffer<O>>())
}
