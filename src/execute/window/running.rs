//! Windows whose functions need only what came before, or have one value for a group of rows.

use std::collections::VecDeque;
use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch};
use arrow::datatypes::{Field, Schema, SchemaRef};
use datafusion::common::utils::get_row_at_idx;
use datafusion::common::{Result, ScalarValue, internal_datafusion_err};
use datafusion::execution::TaskContext;
use datafusion::execution::memory_pool::{MemoryConsumer, MemoryReservation};
use datafusion::physical_expr::window::WindowExpr;

use crate::execute::window::function::{Function, Groups, Step};
use crate::execute::window::held::{Added, HeldRows, Ready};
use crate::execute::window::{Rows, arrays, functions, ranges};

/// What a window keeps between batches.
pub struct Running {
    schema: SchemaRef,
    exprs: Vec<Arc<dyn WindowExpr>>,
    functions: Vec<Box<dyn Function>>,
    /// Of which rows those are held that belong to the last group.
    step: Step,
    /// Whether a function asks for the rows that are equal in the order.
    asks_peers: bool,
    /// The partition of the last row that came, and its place in the order where peers are asked for.
    last: Option<(Vec<ScalarValue>, Vec<ScalarValue>)>,
    /// Rows of the last group, with the columns of functions that have a value for each row.
    held: HeldRows,
    /// For what the functions keep.
    reservation: MemoryReservation,
}

impl Running {
    pub fn new(
        exprs: &[Arc<dyn WindowExpr>],
        input: &SchemaRef,
        schema: &SchemaRef,
        context: &TaskContext,
    ) -> Result<Self> {
        let functions = functions(exprs, input)?
            .ok_or_else(|| internal_datafusion_err!("only running functions are computed here"))?;
        let step = functions.iter().map(|function| function.step()).max().unwrap_or(Step::Row);
        let asks_peers = functions.iter().any(|function| function.asks_peers());
        let of_rows = functions.iter().zip(&schema.fields()[input.fields().len()..]);
        let of_rows = of_rows.filter(|(function, _)| function.step() == Step::Row).map(|(_, field)| Arc::clone(field));
        let fields: Vec<Arc<Field>> = input.fields().iter().cloned().chain(of_rows).collect();
        let held = HeldRows::new(Arc::new(Schema::new(fields)), context);
        let reservation = MemoryConsumer::new("functions of a window").register(context.memory_pool());
        let (schema, exprs) = (Arc::clone(schema), exprs.to_vec());
        Ok(Self { schema, exprs, functions, step, asks_peers, last: None, held, reservation })
    }

    /// Gives out the rows that are held, with the values of their group.
    fn give_held(
        &mut self,
        mut value: impl FnMut(usize, &mut dyn Function) -> Result<ScalarValue>,
        ready: &mut VecDeque<Ready>,
    ) -> Result<()> {
        let mut added = Vec::new();
        for (at, function) in self.functions.iter_mut().enumerate() {
            added.push(match function.step() {
                Step::Row => Added::Held,
                Step::Peers | Step::Partition => Added::Value(value(at, function.as_mut())?),
            });
        }
        ready.push_back(self.held.take(&self.schema, added)?);
        Ok(())
    }
}

impl Rows for Running {
    fn next(&mut self, batch: RecordBatch, ready: &mut VecDeque<Ready>) -> Result<()> {
        let count = batch.num_rows();
        let mut keys = arrays(self.exprs[0].partition_by().iter(), &batch)?;
        let partitions = ranges(&keys, count)?;
        let row = |columns: &[ArrayRef], at| get_row_at_idx(columns, at);
        let (first, last) = (row(&keys, 0)?, row(&keys, count - 1)?);
        let (mut peers, mut first_of_order, mut last_of_order) = (Vec::new(), Vec::new(), Vec::new());
        if self.asks_peers {
            let order = arrays(self.exprs[0].order_by().iter().map(|order| &order.expr), &batch)?;
            (first_of_order, last_of_order) = (row(&order, 0)?, row(&order, count - 1)?);
            keys.extend(order);
            peers = ranges(&keys, count)?;
        }
        let before = self.last.replace((last, last_of_order));
        let is_first = before.is_none();
        let before = before.filter(|(partition, _)| *partition == first);
        let continues = before.is_some();
        let peers_continue = before.is_some_and(|(_, order)| order == first_of_order);
        let (last_group, held_continues) = match self.step {
            Step::Row => (None, false),
            Step::Peers => (peers.last(), peers_continue),
            Step::Partition => (partitions.last(), continues),
        };
        let closed = last_group.map_or(count, |group| group.start);
        if self.step != Step::Row && !is_first && !held_continues {
            self.give_held(|_, function| function.close(), ready)?;
        }
        let groups = Groups { count, partitions, peers, continues, peers_continue, closed };
        let mut columns = Vec::new();
        for (function, expr) in self.functions.iter_mut().zip(&self.exprs) {
            columns.push(function.next(&arrays(expr.expressions().iter(), &batch)?, &groups)?);
        }
        self.reservation.try_resize(self.functions.iter().map(|function| function.kept_bytes()).sum())?;
        if held_continues && closed > 0 {
            self.give_held(|at, _| ScalarValue::try_from_array(&columns[at], 0), ready)?;
        }
        if closed > 0 {
            let of_input = batch.columns().iter().chain(&columns).map(|column| column.slice(0, closed));
            let batch = RecordBatch::try_new(Arc::clone(&self.schema), of_input.collect())?;
            ready.push_back(Ready::Batches { batches: [batch].into(), _reservation: None });
        }
        if closed < count {
            let of_rows = columns.iter().zip(&self.functions).filter(|(_, function)| function.step() == Step::Row);
            let all = batch.columns().iter().chain(of_rows.map(|(column, _)| column));
            let rows = count - closed;
            self.held.push(all.map(|column| column.slice(closed, rows)).collect(), rows, closed)?;
        }
        Ok(())
    }

    fn end(&mut self, ready: &mut VecDeque<Ready>) -> Result<()> {
        match self.step == Step::Row || self.last.is_none() {
            true => Ok(()),
            false => self.give_held(|_, function| function.close(), ready),
        }
    }
}
