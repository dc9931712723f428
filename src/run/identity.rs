//! The identity of what each chunk of a step reads: equal when the rows are, so that a chunk runs again only when its own
//! slices of the inputs changed.
//!
//! | input | identity of a slice |
//! |---|---|
//! | a task's output, by reuse | content of the stored chunks that it opens |
//! | an input that is cut, by split or rescan | content of the slice: needed columns of rows that pass the filters |
//! | a source, by range | bytes of the needed columns of the row groups that it opens |
//! | an input that one chunk reads through filters, in a query of its own | content of the rows that pass them |
//! | the same, of a step whose chunks are told as one | as if it were read whole |
//! | a source, whole | bytes of the needed columns, or of the files when they are not Parquet |
//! | a task's output, whole | content of all its chunks |
//! | a source whose order counts, besides | bytes of the needed columns of all files, in order |
//!
//! A source's files are told by path, size, inode and times first: what was found out of them is noted in the index.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use arrow::datatypes::Schema;
use datafusion::catalog::TableProvider;
use futures::{StreamExt, TryStreamExt};

use crate::chunk::ChunkFunction;
use crate::error::{Error, ErrorKind, Result};
use crate::execute::content::{Content, RowHasher};
use crate::execute::write::execution_error;
use crate::plan::components::{
    Components, FUNCTION, branch_components, chunk_case_fingerprint, chunk_predicates_fingerprint, columns_fingerprint,
    input_component, slice_fingerprint,
};
use crate::plan::fingerprint::Fingerprint;
use crate::plan::need::Need;
use crate::plan::prove::proof::Proof;
use crate::plan::resolve::{Resolved, scan_numbers};
use crate::plan::slice::{InputMode, Slice};
use crate::plan::steps::Step;
use crate::run::served::MOST_ASKED;
use crate::run::sliced::stored;
use crate::run::split::SplitJob;
use crate::run::task::TaskJob;
use crate::run::{Input, Output};
use crate::source::Snapshot;

/// The only chunk that has a scan, if not all have it, and the identity of each chunk's slice of it, or of the one that all
/// read.
type OfScan = (Option<u32>, Vec<Fingerprint>);

impl TaskJob {
    /// What each chunk of a step is made of that is its own: its range, and its slices of the inputs. And the bytes of
    /// the splits that were made to know it.
    pub async fn own(&self, number: usize) -> Result<(Vec<Components>, u64)> {
        let Step { resolved, proof, .. } = &self.planned.steps[number];
        let mut own = vec![Components::default(); proof.chunks() as usize];
        // Of a scan that only one chunk has.
        let chunk_of_scan = chunk_of_scan(resolved, proof).map_err(execution_error)?;
        for (chunk, own) in (0u32..).zip(&mut own) {
            match proof.function() {
                // Which chunk it is says it.
                ChunkFunction::Hash(_) => {}
                ChunkFunction::Range(bounds) => {
                    own.0.insert(FUNCTION.into(), format!("{:?} {}", bounds.range(chunk), bounds.data_type()));
                }
                ChunkFunction::Cases(cases) => {
                    let case = chunk_case_fingerprint(cases, chunk).map_err(execution_error)?;
                    own.0.insert(FUNCTION.into(), case);
                }
                ChunkFunction::Branches(_) => {
                    let reads = resolved.scans.iter().zip(&chunk_of_scan).filter(|(_, of)| **of == Some(chunk));
                    let reads = reads.map(|(scan, _)| scan.table.as_str()).collect();
                    *own = branch_components(resolved, proof, chunk, &reads).map_err(execution_error)?;
                }
                ChunkFunction::PerInput(_) => {
                    let predicates =
                        chunk_predicates_fingerprint(proof, resolved, Some(chunk)).map_err(execution_error)?;
                    own.0.insert(FUNCTION.into(), predicates);
                }
            }
        }
        let mut split_bytes = 0;
        let mut slices: BTreeMap<&str, Vec<OfScan>> = BTreeMap::new();
        // Those of chunks with queries of their own are many, and each is a pass.
        let at_a_time =
            if matches!(proof.function(), ChunkFunction::Branches(_)) { self.context.budget.jobs } else { 1 };
        let of_scans = (0..resolved.scans.len()).map(|scan| self.slices(number, scan));
        let of_scans: Vec<_> = futures::stream::iter(of_scans).buffered(at_a_time).try_collect().await?;
        for (scan, (of_scan, bytes)) in of_scans.into_iter().enumerate() {
            let table = resolved.scans[scan].table.as_str();
            split_bytes += bytes;
            slices.entry(table).or_default().push((chunk_of_scan[scan], of_scan));
        }
        for (table, scans) in slices {
            for (chunk, own) in (0u32..).zip(&mut own) {
                let scans = scans.iter().filter(|(only, _)| only.is_none_or(|only| only == chunk));
                // One for all chunks, or one for each.
                let mut of_chunk = scans.filter_map(|(_, scan)| scan.get(chunk as usize).or(scan.first())).peekable();
                if of_chunk.peek().is_some() {
                    let identity = Fingerprint::of(of_chunk.map(|slice| ("slice", slice.as_bytes().as_slice())));
                    own.0.insert(input_component(table), identity.to_string());
                }
            }
        }
        Ok((own, split_bytes))
    }

    /// The identity of each chunk's slice of a scan, or of the one that all read; where the order of rows counts, of
    /// that, too.
    async fn slices(&self, number: usize, scan: usize) -> Result<(Vec<Fingerprint>, u64)> {
        let Step { resolved, needs, .. } = &self.planned.steps[number];
        let (slices, bytes) = self.slices_of_set(number, scan).await?;
        match (self.inputs.get(&resolved.scans[scan].table), needs.get(scan)) {
            (Some(Input::Source(source)), Some(need)) if need.is_ordered => {
                let files = self.file_hashes(source, &need.columns).await?.concat();
                let order: Vec<_> = files.iter().map(|part| part.to_le_bytes()).collect();
                let order = Fingerprint::of(order.iter().map(|part| ("bytes", part.as_slice())));
                let ordered = |slice: &Fingerprint| {
                    Fingerprint::of([("rows", slice.as_bytes().as_slice()), ("order", order.as_bytes().as_slice())])
                };
                Ok((slices.iter().map(ordered).collect(), bytes))
            }
            _ => Ok((slices, bytes)),
        }
    }

    /// The identity of the rows of each chunk's slice of a scan, whatever their order.
    async fn slices_of_set(&self, number: usize, scan: usize) -> Result<(Vec<Fingerprint>, u64)> {
        let step @ Step { resolved, proof, needs, .. } = &self.planned.steps[number];
        let (table, chunks) = (&resolved.scans[scan].table, proof.chunks());
        // As all chunks would read it: what is left to run must not change a chunk's identity.
        let slice = step.slice(scan, step.reads(), self.planned.task.read_by);
        let (Some(input), Some(slice)) = (self.inputs.get(table), slice) else {
            return Err(Error::new(ErrorKind::Source, format!("input `{table}` is not there")));
        };
        let (need, is_cut) = (needs.get(scan), slice.mode().is_cut() && chunks > 1 && !step.told_as_one);
        let one = Proof::of_slice(table);
        if let (ChunkFunction::Branches(_), Some(need)) = (proof.function(), need)
            && !need.filters.is_empty()
            && is_hashed(input, need)
            && !is_to_come(input)
        {
            // Rows that the chunk's query filters out are not its business.
            let job = SplitJob { proof: &one, scan: 0, ..self.slice_job(input, need, proof, scan) };
            let (contents, _) = self.context.splits.contents(&job, false).await?;
            let filtered = slice_fingerprint(&one, 0, need, &input.schema()).map_err(execution_error)?;
            let identity = |content: Content| {
                let content = content.to_bytes();
                Fingerprint::of([("filtered", filtered.as_bytes().as_slice()), ("content", content.as_slice())])
            };
            return Ok((contents.into_iter().map(identity).collect(), 0));
        }
        match (input, self.split_job(number, scan, input)) {
            (Input::Output(output), _) if slice.mode() == InputMode::Reuse => {
                let of_chunk =
                    |chunk| stored(output, &slice, chunk).map(|entries| entries.iter().map(|e| e.content).sum());
                let contents = (0..chunks).map(of_chunk).collect::<Result<Vec<Content>>>()?;
                let identity = |content: Content| Fingerprint::of([("content", content.to_bytes().as_slice())]);
                Ok((contents.into_iter().map(identity).collect(), 0))
            }
            (_, Some(job)) if is_cut && is_hashed(input, job.need) && !is_to_come(input) => {
                let writes = slice.mode() == InputMode::Split && !self.is_dry;
                let (contents, bytes) = self.context.splits.contents(&job, writes).await?;
                // Not the function: which rows are in a chunk is in its own component.
                let slices = slice_fingerprint(proof, scan, job.need, &input.schema()).map_err(execution_error)?;
                let identity = |content: Content| {
                    let content = content.to_bytes();
                    Fingerprint::of([("slices", slices.as_bytes().as_slice()), ("content", content.as_slice())])
                };
                Ok((contents.into_iter().map(identity).collect(), bytes))
            }
            (Input::Served(served), _) if slice.mode() == InputMode::Serve => {
                let versions = (0..chunks).map(|chunk| async move {
                    let slice = served.slice(proof, scan, chunk)?;
                    served.identity_of(slice).await
                });
                Ok((futures::stream::iter(versions).buffered(MOST_ASKED).try_collect().await?, 0))
            }
            (Input::Served(served), _) => Ok((vec![served.identity_of(served.all()).await?], 0)),
            (Input::Output(output), _) => Ok((vec![output.identity()], 0)),
            (Input::Source(source), _) => Ok((self.bytes_of_slices(source, need, &slice, chunks).await?, 0)),
        }
    }

    /// What it takes to cut a scan; `None` when what is needed of it is not known.
    pub fn split_job<'a>(&'a self, number: usize, scan: usize, input: &'a Input) -> Option<SplitJob<'a>> {
        let Step { proof, needs, .. } = &self.planned.steps[number];
        needs.get(scan).map(|need| self.slice_job(input, need, proof, scan))
    }

    fn slice_job<'a>(&'a self, input: &'a Input, need: &'a Need, proof: &'a Proof, scan: usize) -> SplitJob<'a> {
        let (context, permits, task) = (&self.context, &self.permits, self.planned.task.name.as_str());
        SplitJob { context, permits, task, proof, scan, input, need, forced: self.force }
    }

    /// The identity of the bytes that each chunk reads of a source, or of those that all read.
    async fn bytes_of_slices(
        &self,
        source: &Arc<Snapshot>,
        need: Option<&Need>,
        slice: &Slice<'_>,
        chunks: u32,
    ) -> Result<Vec<Fingerprint>> {
        let schema = source.table().schema();
        let columns = need.map_or_else(|| (0..schema.fields().len()).collect(), |need| need.columns.clone());
        let files = self.file_hashes(source, &columns).await?;
        // The order of files and row groups says nothing of the rows.
        let identity = |mut parts: Vec<u128>| {
            parts.sort_unstable();
            let parts: Vec<_> = parts.iter().map(|part| part.to_le_bytes()).collect();
            Fingerprint::of(parts.iter().map(|part| ("bytes", part.as_slice())))
        };
        if slice.mode() != InputMode::Range {
            return Ok(vec![identity(files.concat())]);
        }
        let of_chunk = |chunk| {
            let opened = slice.row_groups(chunk).into_iter();
            identity(opened.filter_map(|group| files.get(group.file)?.get(group.number)).copied().collect())
        };
        Ok((0..chunks).map(of_chunk).collect())
    }

    /// For each file of a source, the hashes of its parts; those that are not noted are read for it.
    async fn file_hashes(&self, source: &Arc<Snapshot>, columns: &BTreeSet<usize>) -> Result<Vec<Vec<u128>>> {
        let cache = &self.context.cache;
        let read = format!("{columns:?}");
        let mut all = Vec::with_capacity(source.file_count());
        let mut found = Vec::new();
        for file in 0..source.file_count() {
            let identity = source.file_identity(file);
            let name = Fingerprint::of([("file", identity.as_bytes().as_slice()), ("columns", read.as_bytes())]);
            let hashes = match cache.bytes(&name)? {
                Some(hashes) if !self.force => hashes,
                _ => {
                    let parts = source.parts(file, columns);
                    let hashes = source.hashes(parts, self.context.budget.jobs).await?;
                    found.push((file, name, hashes.clone()));
                    hashes
                }
            };
            all.push(hashes);
        }
        if !found.is_empty() {
            // What was read must be what the names say.
            source.check_unchanged().await?;
            let is_noted = |(file, _, _): &&(usize, Fingerprint, Vec<u128>)| source.is_settled([*file]);
            found.iter().filter(is_noted).try_for_each(|(_, name, hashes)| cache.add_bytes(name, hashes))?;
        }
        Ok(all)
    }
}

/// For each scan the only chunk that has it, where chunks have queries of their own.
fn chunk_of_scan(resolved: &Resolved, proof: &Proof) -> datafusion::common::Result<Vec<Option<u32>>> {
    let mut found = vec![None; resolved.scans.len()];
    if let ChunkFunction::Branches(chunks) = proof.function() {
        for chunk in 0..*chunks {
            for scan in scan_numbers(proof.plan_of(chunk)?)? {
                if let Some(found) = found.get_mut(scan) {
                    *found = Some(chunk);
                }
            }
        }
    }
    Ok(found)
}

impl Output {
    /// The identity of all rows.
    pub fn identity(&self) -> Fingerprint {
        let content: Content = self.entries.iter().map(|entry| entry.content).sum();
        let columns = columns_fingerprint(&self.schema);
        Fingerprint::of([("columns", columns.as_bytes().as_slice()), ("content", content.to_bytes().as_slice())])
    }
}

/// Whether rows with the needed columns can be hashed.
fn is_hashed(input: &Input, need: &Need) -> bool {
    if input.served().is_some() {
        return false;
    }
    let columns: Vec<usize> = need.columns.iter().copied().collect();
    input.schema().project(&columns).is_ok_and(|columns: Schema| RowHasher::try_new(&columns).is_ok())
}

/// Whether files of it are not there yet, since nothing runs.
fn is_to_come(input: &Input) -> bool {
    match input {
        Input::Source(_) | Input::Served(_) => false,
        Input::Output(output) => output.entries.iter().any(|entry| entry.bytes == 0),
    }
}
