//! Tasks that are functions over rows: what they do can't be seen, so nothing of it is proved.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use datafusion::common::{Result, ScalarValue, plan_datafusion_err};
use datafusion::execution::SendableRecordBatchStream;
use futures::future::BoxFuture;

/// A function from an input's rows to rows, what it gives and what tells it from its earlier versions.
#[derive(Clone)]
pub struct Opaque {
    /// Changed by the author whenever the function gives other rows.
    pub version: String,
    /// Columns of what it gives.
    pub schema: SchemaRef,
    /// The function.
    pub function: RowsFunction,
}

/// A function over rows.
#[derive(Clone)]
pub enum RowsFunction {
    /// From streams to a stream.
    Stream(Arc<StreamFunction>),
    /// From batches in memory to batches.
    Batches(Arc<BatchesFunction>),
}

type StreamFunction = dyn Fn(InputStreams) -> BoxFuture<'static, Result<SendableRecordBatchStream>> + Send + Sync;
type BatchesFunction = dyn Fn(&InputBatches) -> Result<Vec<RecordBatch>> + Send + Sync;

impl fmt::Debug for Opaque {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Opaque").field("version", &self.version).field("schema", &self.schema).finish_non_exhaustive()
    }
}

/// The rows of a chunk's inputs, for [`Task::stream`](crate::Task::stream).
pub struct InputStreams {
    pub(crate) streams: BTreeMap<String, SendableRecordBatchStream>,
    pub(crate) parameters: Arc<BTreeMap<String, ScalarValue>>,
}

impl InputStreams {
    /// The rows of an input, by the name that the task reads it by, in no order; each can be taken once. Its columns have the
    /// types that its schema says: text of files and of tasks in SQL is `Utf8View`.
    ///
    /// # Errors
    /// When it is none of the task's inputs, or was taken before.
    pub fn take(&mut self, name: &str) -> Result<SendableRecordBatchStream> {
        self.streams.remove(name).ok_or_else(|| {
            let left: Vec<_> = self.streams.keys().map(String::as_str).collect();
            plan_datafusion_err!("`{name}` is not among the inputs that were not taken yet: {}", left.join(", "))
        })
    }

    /// The value of a parameter.
    ///
    /// # Errors
    /// When the task has none of this name.
    pub fn parameter(&self, name: &str) -> Result<&ScalarValue> {
        parameter(&self.parameters, name)
    }
}

impl fmt::Debug for InputStreams {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("InputStreams").field("streams", &self.streams.keys()).finish_non_exhaustive()
    }
}

/// The rows of a chunk's inputs in memory, for [`Task::batches`](crate::Task::batches).
#[derive(Debug)]
pub struct InputBatches {
    pub(crate) inputs: BTreeMap<String, (SchemaRef, Vec<RecordBatch>)>,
    pub(crate) parameters: Arc<BTreeMap<String, ScalarValue>>,
}

impl InputBatches {
    /// The rows of an input, by the name that the task reads it by, in no order; no batch is without rows. Columns have the types
    /// that [`InputBatches::schema`] says: text of files and of tasks in SQL is `Utf8View`.
    ///
    /// # Errors
    /// When it is none of the task's inputs.
    pub fn batches(&self, name: &str) -> Result<&[RecordBatch]> {
        self.input(name).map(|(_, batches)| batches.as_slice())
    }

    /// The columns of an input.
    ///
    /// # Errors
    /// When it is none of the task's inputs.
    pub fn schema(&self, name: &str) -> Result<&SchemaRef> {
        self.input(name).map(|(schema, _)| schema)
    }

    /// The value of a parameter.
    ///
    /// # Errors
    /// When the task has none of this name.
    pub fn parameter(&self, name: &str) -> Result<&ScalarValue> {
        parameter(&self.parameters, name)
    }

    fn input(&self, name: &str) -> Result<&(SchemaRef, Vec<RecordBatch>)> {
        self.inputs.get(name).ok_or_else(|| {
            let known: Vec<_> = self.inputs.keys().map(String::as_str).collect();
            plan_datafusion_err!("`{name}` is not among the task's inputs: {}", known.join(", "))
        })
    }
}

fn parameter<'p>(parameters: &'p BTreeMap<String, ScalarValue>, name: &str) -> Result<&'p ScalarValue> {
    parameters.get(name).ok_or_else(|| plan_datafusion_err!("the task has no parameter `{name}`"))
}
