//! Where to cut a task by ranges of its key.
//!
//! Bounds are least values of row groups of the largest clustered input, such that every range has about the same number
//! of bytes: no row group of that input reaches over a bound when it is sorted. Bounds of an earlier run are kept while
//! they still serve: what was added above the last one is cut by further bounds, so that the chunks below stay what they
//! are.

use crate::chunk::range::{Bounds, KeyValue, compare_alike};
use crate::chunk::{ChunkFunction, MAX_CHUNKS};
use crate::plan::keys::expr::KeyExpr;
use crate::plan::prove::proof::{Proof, Role};
use crate::plan::resolve::{Resolved, Scan};
use crate::plan::slice::{InputMode, Slice, clustering};

/// Bounds of an earlier run are given up when a range has more than so many times its part of the bytes.
const MOST_UNEVEN: u64 = 2;

/// What cuts a plan when its key and number of chunks are the engine's own choice: the function that the largest of its
/// stored inputs is stored by, else ranges if they save work.
pub fn chosen(proof: &Proof, resolved: &Resolved, previous: &[String]) -> Option<ChunkFunction> {
    if let Some(function) = stored(proof, resolved) {
        return Some(function);
    }
    let bounds = bounds(proof, resolved, previous)?;
    let cut = proof.clone().by(ChunkFunction::Range(bounds.clone()));
    let read_by_range = partitioned(proof, resolved)
        .filter(|(number, _, scan)| Slice::of(&cut, *number, scan).mode() == InputMode::Range)
        .map(|(_, _, scan)| scan.bytes);
    (2 * read_by_range.sum::<u64>() >= proof.cut_bytes(resolved)).then_some(ChunkFunction::Range(bounds))
}

/// Ranges of about equal numbers of bytes, about as many as the proof has chunks; `None` when the types of the keys, or
/// the statistics of the inputs, give none.
pub fn bounds(proof: &Proof, resolved: &Resolved, previous: &[String]) -> Option<Bounds> {
    let keys: Vec<&KeyExpr> = partitioned(proof, resolved).map(|(_, key, _)| key).collect();
    let data_type = keys.first()?.data_type();
    if !keys.iter().all(|key| compare_alike(key.data_type(), data_type)) {
        return None;
    }
    let clustered = partitioned(proof, resolved).map(|(_, key, scan)| (key, scan, clustering(key, scan)));
    let clustered = clustered.filter(|(_, _, groups)| !groups.is_empty());
    let (key, scan, mut groups) = clustered.max_by_key(|(_, scan, _)| scan.bytes)?;
    let column = format!("{}.{}", scan.table, scan.schema.field(key.as_column()?).name());
    groups.sort_by(|(_, a), (_, b)| a.ends.cmp(&b.ends));
    // The bytes that begin at each value, so that row groups that begin at the same one count together.
    let mut begins: Vec<(KeyValue, u64)> = Vec::new();
    for (group, interval) in &groups {
        let Some((least, _)) = &interval.ends else { continue };
        match begins.last_mut().filter(|(before, _)| before == least) {
            Some((_, bytes)) => *bytes += group.bytes,
            None => begins.push((least.clone(), group.bytes)),
        }
    }
    let total: u64 = begins.iter().map(|(_, bytes)| bytes).sum();
    let each = (total / u64::from(proof.chunks().clamp(1, MAX_CHUNKS))).max(1);
    for previous in previous.iter().filter_map(|json| Bounds::from_json(json, data_type, &column)) {
        if is_even(&previous, &begins, each) {
            return Some(previous);
        }
        let Some(last) = previous.values().last() else { continue };
        let above = begins.iter().skip_while(|(least, _)| least < last);
        let values = previous.values().iter().cloned().chain(quantiles(above, each)).collect();
        let extended = Bounds::new(values, data_type, &column)?;
        if is_even(&extended, &begins, each) {
            return Some(extended);
        }
    }
    Bounds::new(quantiles(begins.iter(), each).collect(), data_type, &column)
}

/// The values at which a further `each` bytes begin.
fn quantiles<'a>(begins: impl Iterator<Item = &'a (KeyValue, u64)>, each: u64) -> impl Iterator<Item = KeyValue> {
    let mut begun = 0;
    begins.filter_map(move |(least, bytes)| {
        let is_full = begun >= each;
        begun = if is_full { *bytes } else { begun + bytes };
        is_full.then(|| least.clone())
    })
}

fn is_even(bounds: &Bounds, begins: &[(KeyValue, u64)], each: u64) -> bool {
    (0..bounds.chunks()).all(|chunk| {
        let range = bounds.range(chunk);
        let begun = begins.iter().filter(|(least, _)| range.meets(least, least));
        begun.map(|(_, bytes)| bytes).sum::<u64>() <= MOST_UNEVEN * each
    })
}

/// The function that the largest stored input is stored by, if it is cut by the same keys.
fn stored(proof: &Proof, resolved: &Resolved) -> Option<ChunkFunction> {
    let stored = proof.inputs().iter().zip(&resolved.scans).filter_map(|(input, scan)| match &input.role {
        Role::Partitioned { keys, names: _ } => {
            let stored = scan.stored.as_ref().filter(|stored| stored.has_keys(keys, scan))?;
            let types = proof.inputs().iter().filter_map(|input| match &input.role {
                Role::Partitioned { keys, .. } => keys.first().map(KeyExpr::data_type),
                Role::Replicated { .. } => None,
            });
            let serves = match &stored.function {
                ChunkFunction::Hash(chunks) => *chunks > 1,
                ChunkFunction::Range(bounds) => types.into_iter().all(|t| compare_alike(bounds.data_type(), t)),
                // One key, as that of ranges.
                ChunkFunction::Cases(cases) => types.into_iter().all(|t| cases.types().eq([t])),
                ChunkFunction::Branches(_) | ChunkFunction::PerInput(_) => false,
            };
            serves.then_some((scan.bytes, &stored.function))
        }
        Role::Replicated { .. } => None,
    });
    stored.max_by_key(|(bytes, _)| *bytes).map(|(_, function)| function.clone())
}

/// The scans that are cut by one key: number, key and scan.
fn partitioned<'a>(proof: &'a Proof, resolved: &'a Resolved) -> impl Iterator<Item = (usize, &'a KeyExpr, &'a Scan)> {
    proof.inputs().iter().zip(&resolved.scans).enumerate().filter_map(|(number, (input, scan))| match &input.role {
        Role::Partitioned { keys, names: _ } => match keys.as_slice() {
            [key] => Some((number, key, scan)),
            _ => None,
        },
        Role::Replicated { .. } => None,
    })
}
