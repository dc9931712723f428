//! The ways to cut a plan's scans that are worth trying.

use std::collections::BTreeSet;

use crate::plan::keys::ScanColumn;
use crate::plan::resolve::Resolved;

/// At most this many ways to cut the scans are tried for one task.
const MAX_ATTEMPTS: usize = 1024;

/// Columns by which each scan is cut; `None` replicates it.
pub type Assignment = Vec<Option<Vec<usize>>>;

/// Ways to cut the scans, those that cut most bytes first: per choice of groups for the keys, every subset of the scans
/// that have a column of each.
pub fn assignments(resolved: &Resolved, groups: &[Vec<BTreeSet<ScanColumn>>]) -> Vec<Assignment> {
    let mut found = Vec::new();
    for choice in product(groups) {
        let tuples: Vec<Vec<Vec<usize>>> = (0..resolved.scans.len())
            .map(|scan| {
                let columns: Vec<Vec<usize>> = choice
                    .iter()
                    .map(|group| group.iter().filter(|(s, _)| *s == scan).map(|(_, column)| *column).collect())
                    .collect();
                product(&columns)
            })
            .collect();
        let cuttable: Vec<usize> = (0..tuples.len()).filter(|scan| !tuples[*scan].is_empty()).collect();
        // Beyond ten scans only the whole set and those without one scan are tried: 2^n would be too many.
        let all = (1u64 << cuttable.len().min(63)) - 1;
        let mut masks: Vec<u64> = match cuttable.len() {
            0 => continue,
            1..=10 => (1..=all).collect(),
            n => std::iter::once(all).chain((0..n.min(63)).map(|i| all & !(1 << i))).collect(),
        };
        let bytes = |mask: &u64| -> u64 {
            let cut = cuttable.iter().enumerate().filter(|(bit, _)| mask & (1 << bit) != 0);
            cut.map(|(_, scan)| resolved.scans[*scan].bytes).sum()
        };
        masks.sort_by_key(|mask| std::cmp::Reverse((bytes(mask), mask.count_ones())));
        for mask in masks {
            let choices: Vec<Vec<Option<Vec<usize>>>> = tuples
                .iter()
                .enumerate()
                .map(|(scan, tuples)| match cuttable.iter().position(|c| *c == scan) {
                    Some(bit) if mask & (1 << bit) != 0 => tuples.iter().cloned().map(Some).collect(),
                    _ => vec![None],
                })
                .collect();
            found.extend(product(&choices).into_iter().take(MAX_ATTEMPTS));
            if found.len() >= MAX_ATTEMPTS {
                return found;
            }
        }
    }
    found
}

/// The cartesian product, cut off at [`MAX_ATTEMPTS`].
fn product<T: Clone>(choices: &[Vec<T>]) -> Vec<Vec<T>> {
    choices.iter().fold(vec![Vec::new()], |rows, choice| {
        let extended = rows.iter().flat_map(|row| {
            choice.iter().map(move |item| row.iter().cloned().chain([item.clone()]).collect::<Vec<_>>())
        });
        extended.take(MAX_ATTEMPTS).collect()
    })
}
