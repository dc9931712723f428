//! The ways to cut a plan's scans that are worth trying.

use crate::plan::keys::Group;
use crate::plan::keys::expr::KeyExpr;
use crate::plan::resolve::Resolved;

/// At most this many ways to cut the scans are tried for one task.
const MAX_ATTEMPTS: usize = 1024;

/// The expressions by which each scan is cut, one for each key; `None` replicates it.
pub type Assignment = Vec<Option<Vec<KeyExpr>>>;

/// Ways to cut the scans, each with the bytes of the scans that it cuts, the most first: per choice of a group for each key, every subset of the
/// scans that have an expression of each.
pub fn assignments(resolved: &Resolved, keys: &[Vec<Group>]) -> Vec<(u64, Assignment)> {
    let mut found: Vec<(u64, Assignment)> = Vec::new();
    for choice in product(keys) {
        let tuples: Vec<Vec<Vec<KeyExpr>>> = (0..resolved.scans.len())
            .map(|scan| {
                let of = |group: &Group| group.iter().filter(|(s, _)| *s == scan).map(|(_, e)| e.clone()).collect();
                product(&choice.iter().map(of).collect::<Vec<Vec<KeyExpr>>>())
            })
            .collect();
        let cuttable: Vec<usize> = (0..tuples.len()).filter(|scan| !tuples[*scan].is_empty()).collect();
        for mask in subsets(cuttable.len()) {
            let cut: Vec<usize> =
                (0..cuttable.len()).filter(|bit| mask & (1 << bit) != 0).map(|b| cuttable[b]).collect();
            let bytes = cut.iter().map(|scan| resolved.scans[*scan].bytes).sum();
            let choices: Vec<Vec<Option<Vec<KeyExpr>>>> = (0..tuples.len())
                .map(|scan| match cut.contains(&scan) {
                    true => tuples[scan].iter().cloned().map(Some).collect(),
                    false => vec![None],
                })
                .collect();
            found.extend(product(&choices).into_iter().map(|assignment| (bytes, assignment)));
            if found.len() >= MAX_ATTEMPTS {
                break;
            }
        }
    }
    let cut = |assignment: &Assignment| assignment.iter().flatten().count();
    // Stable: of equal ones the first group's.
    found.sort_by_key(|(bytes, assignment)| std::cmp::Reverse((*bytes, cut(assignment))));
    found.truncate(MAX_ATTEMPTS);
    found
}

/// Subsets of `n` scans as masks, the largest first. Beyond ten scans only the whole set, those without one or two of
/// them, and each alone: 2^n would be too many.
fn subsets(n: usize) -> Vec<u64> {
    let all = (1u64 << n.min(63)) - 1;
    let without = |bits: &[usize]| bits.iter().fold(all, |mask, bit| mask & !(1 << bit));
    let mut masks: Vec<u64> = match n {
        0 => Vec::new(),
        1..=10 => (1..=all).collect(),
        n => {
            let n = n.min(63);
            let one = (0..n).map(|i| without(&[i]));
            let two = (0..n).flat_map(|i| (0..i).map(move |j| (i, j))).map(|(i, j)| without(&[i, j]));
            std::iter::once(all).chain(one).chain(two).chain((0..n).map(|i| 1 << i)).collect()
        }
    };
    masks.sort_by_key(|mask| std::cmp::Reverse(mask.count_ones()));
    masks
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
