//! Predicates of inputs are checked on the data: for each row of an input exactly one must hold.
//!
//! All rows count that the chunks could read, whichever of them the query needs, so that what comes out does not depend on
//! where DataFusion filters them. The files of a source and the chunks of a task are noted in the index by what they are once
//! they are found good, and are not read for it again.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use arrow::array::{AsArray, BooleanArray};
use datafusion::catalog::TableProvider;
use datafusion::datasource::provider_as_source;
use datafusion::execution::SendableRecordBatchStream;
use datafusion::logical_expr::{Expr, LogicalPlanBuilder};
use datafusion::physical_plan::execute_stream_partitioned;
use futures::StreamExt;
use tokio::task::JoinSet;

use crate::chunk::ChunkBy;
use crate::chunk::given::Given;
use crate::chunk::only::strays;
use crate::error::{Error, ErrorKind, Result};
use crate::event::Event;
use crate::execute::session::exact;
use crate::execute::write::execution_error;
use crate::plan::components::predicates_fingerprint;
use crate::plan::fingerprint::Fingerprint;
use crate::run::task::TaskJob;
use crate::run::{Input, Output};
use crate::table::output::of_chunks;

/// How many rows there are for which these predicates hold, by number.
type Strays = BTreeMap<Vec<u32>, u64>;

/// So many kinds of strays are counted, and so many are told.
const MOST_COUNTED: usize = 1024;
const MOST_TOLD: usize = 3;

impl TaskJob {
    /// Checks that of the predicates of each input that has its own exactly one holds for every row.
    ///
    /// # Errors
    /// [`ErrorKind::Refused`] with the input, the chunks and what to change, when it is otherwise.
    pub async fn check_predicates(&self) -> Result<()> {
        let chunking = self.planned.task.chunking.as_ref();
        let Some(ChunkBy::Given(Given::PerInput(inputs))) = chunking.map(|chunking| &chunking.by) else {
            return Ok(());
        };
        for (table, predicates) in inputs {
            // What the query needs no column of, not even to count rows, is not among them.
            let Some(input) = self.inputs.get(table) else { continue };
            let strays = self.strays(table, input, predicates).await?;
            if !strays.is_empty() {
                let message = told(table, predicates.len(), &strays);
                return Err(Error::new(ErrorKind::Refused, message));
            }
        }
        Ok(())
    }

    /// The rows of `input`, of which those that were checked before need not be read, that are not of one predicate.
    async fn strays(&self, name: &str, input: &Input, predicates: &[Expr]) -> Result<Strays> {
        let cache = &self.context.cache;
        let function = predicates_fingerprint(predicates, &input.schema()).map_err(execution_error)?;
        let note = |part: &Fingerprint| {
            Fingerprint::of([("one of", function.as_bytes().as_slice()), ("rows", part.as_bytes().as_slice())])
        };
        let notes: Vec<Fingerprint> = match input {
            Input::Source(source) => (0..source.file_count()).map(|at| note(&source.file_identity(at))).collect(),
            Input::Served(served) => vec![note(&served.identity())],
            Input::Output(output) => {
                let alone = |entry| Output { schema: Arc::clone(&output.schema), entries: vec![entry] };
                output.entries.iter().map(|entry| note(&alone(Arc::clone(entry)).identity())).collect()
            }
        };
        let mut unknown = BTreeSet::new();
        for (at, note) in notes.iter().enumerate() {
            if self.force || cache.bytes(note)?.is_none() {
                unknown.insert(at);
            }
        }
        if unknown.is_empty() {
            return Ok(Strays::new());
        }
        let table: Arc<dyn TableProvider> = match input {
            Input::Source(source) => Arc::new(source.table().of_files(&unknown)),
            Input::Served(served) => served.whole(),
            Input::Output(output) => {
                let entries: Vec<_> = unknown.iter().filter_map(|at| output.entries.get(*at)).cloned().collect();
                if entries.iter().any(|entry| entry.bytes == 0) {
                    // Its files are not there yet, since nothing runs.
                    return Ok(Strays::new());
                }
                cache.check(&entries)?;
                Arc::new(of_chunks(cache.folder(), &entries, Arc::clone(&output.schema))?)
            }
        };
        let (strays, rows) = self.strays_of(table, predicates).await?;
        // What was read must be what the notes say.
        match input {
            Input::Source(source) => source.check_unchanged().await?,
            Input::Served(served) => served.check_begun().await?,
            Input::Output(_) => {}
        }
        let task = self.planned.task.name.clone();
        self.context.events.send(Event::Checked { task, input: name.to_string(), rows });
        let is_noted = input.source().is_none_or(|source| source.is_settled(unknown.iter().copied()));
        if strays.is_empty() && is_noted {
            unknown.iter().filter_map(|at| notes.get(*at)).try_for_each(|note| cache.add_bytes(note, &[]))?;
        }
        Ok(strays)
    }

    /// The strays of a table, and its number of rows.
    async fn strays_of(&self, table: Arc<dyn TableProvider>, predicates: &[Expr]) -> Result<(Strays, u64)> {
        let scan = LogicalPlanBuilder::scan("input", provider_as_source(table), None).map_err(execution_error)?;
        let named = predicates.iter().enumerate().map(|(at, predicate)| predicate.clone().alias(at.to_string()));
        let plan = scan.project(named).and_then(LogicalPlanBuilder::build).map_err(execution_error)?;
        let mut state = exact(&self.context.state, &plan).map_err(execution_error)?;
        let options = state.config_mut().options_mut();
        options.execution.target_partitions = self.context.budget.jobs;
        // Streams that wait for a permit must not be sent what others read.
        options.optimizer.enable_round_robin_repartition = false;
        let physical = state.create_physical_plan(&plan).await.map_err(execution_error)?;
        let streams = execute_stream_partitioned(physical, state.task_ctx()).map_err(execution_error)?;
        let mut running = JoinSet::new();
        for stream in streams {
            let (permits, in_use) = (Arc::clone(&self.permits), Arc::clone(&self.context.in_use));
            running.spawn(async move {
                let _in_use = in_use;
                // The semaphore is never closed, so this waits and succeeds.
                let _permit = permits.acquire().await;
                strays_of_stream(stream).await
            });
        }
        let (mut all, mut rows) = (Strays::new(), 0);
        while let Some(finished) = running.join_next().await {
            let panicked = |e| Error::new(ErrorKind::Execute, "a check of predicates panicked").with_source(e);
            let (strays, seen) = finished.map_err(panicked)??;
            rows += seen;
            for (held, rows) in strays {
                *all.entry(held).or_default() += rows;
            }
        }
        Ok((all, rows))
    }
}

/// The strays of rows whose columns say each where a predicate holds, and the number of all rows.
async fn strays_of_stream(mut stream: SendableRecordBatchStream) -> Result<(Strays, u64)> {
    let (mut found, mut rows) = (Strays::new(), 0);
    while let Some(batch) = stream.next().await {
        let batch = batch.map_err(execution_error)?;
        rows += batch.num_rows() as u64;
        let columns: Option<Vec<&BooleanArray>> = batch.columns().iter().map(|c| c.as_boolean_opt()).collect();
        let Some(columns) = columns else {
            return Err(Error::new(ErrorKind::Execute, "a predicate is no condition; this is a bug"));
        };
        for (_, held) in strays(&columns, batch.num_rows()) {
            if found.len() < MOST_COUNTED || found.contains_key(&held) {
                *found.entry(held).or_default() += 1;
            }
        }
    }
    Ok((found, rows))
}

/// What is wrong with an input, those of most rows first.
fn told(table: &str, predicates: usize, strays: &Strays) -> String {
    let mut strays: Vec<_> = strays.iter().collect();
    strays.sort_by_key(|(held, rows)| (std::cmp::Reverse(**rows), held.len()));
    let one = |(held, rows): &(&Vec<u32>, &u64)| {
        let rows = if **rows == 1 { "1 row".into() } else { format!("{rows} rows") };
        match held.as_slice() {
            [] => format!("for {rows} none of its {predicates} predicates holds"),
            [others @ .., last] => {
                let others: Vec<_> = others.iter().map(u32::to_string).collect();
                format!("for {rows} the predicates of chunks {} and {last} hold", others.join(", "))
            }
        }
    };
    let shown: Vec<_> = strays.iter().take(MOST_TOLD).map(one).collect();
    let more = if strays.len() > MOST_TOLD { ", and more" } else { "" };
    let fix = match strays.iter().any(|(held, _)| held.is_empty()) {
        true => {
            "change them so that exactly one holds for each row; NULL is not true, so NULLs need an IS NULL in one of them"
        }
        false => "change them so that exactly one holds for each row",
    };
    format!("input `{table}` is not cut by its predicates: {}{more}; {fix}", shown.join(", "))
}

#[cfg(test)]
mod tests {
    use super::{Strays, told};

    #[test]
    fn what_is_told_names_the_input_the_chunks_and_the_rows() {
        let strays = |all: &[(&[u32], u64)]| all.iter().map(|(held, rows)| (held.to_vec(), *rows)).collect::<Strays>();
        let text = told("orders", 4, &strays(&[(&[], 1), (&[0, 2, 3], 7)]));
        assert_eq!(
            text,
            "input `orders` is not cut by its predicates: for 7 rows the predicates of chunks 0, 2 and 3 hold, for 1 row none \
             of its 4 predicates holds; change them so that exactly one holds for each row; NULL is not true, so NULLs need \
             an IS NULL in one of them"
        );
        let text = told("orders", 4, &strays(&[(&[0, 1], 1), (&[1, 2], 2), (&[2, 3], 3), (&[0, 3], 4)]));
        assert!(text.contains("for 4 rows the predicates of chunks 0 and 3 hold, for 3 rows"), "{text}");
        assert!(text.ends_with("chunks 1 and 2 hold, and more; change them so that exactly one holds for each row"));
    }
}
