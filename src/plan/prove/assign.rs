//! The ways to cut a plan's scans that are worth trying.

use std::cmp::Reverse;
use std::collections::VecDeque;

use crate::plan::keys::Group;
use crate::plan::keys::expr::KeyExpr;
use crate::plan::resolve::Resolved;

/// At most this many ways to cut the scans are tried for one task.
const MAX_ATTEMPTS: usize = 1024;

/// So many refusals are asked whether they hold for another way.
const MOST_RULED_OUT: usize = 64;

/// Of up to so many scans every subset is tried: there are 2^n.
const MOST_IN_ALL_SUBSETS: usize = 10;

/// The expressions by which each scan is cut, one for each key; `None` replicates it.
pub type Assignment = Vec<Option<Vec<KeyExpr>>>;

/// Ways to cut the scans, each with the bytes of the scans that it cuts, the most first: per choice of a group for each
/// key, subsets of the scans that have an expression of each. A way is made when it is asked for.
pub struct Ways {
    choices: Vec<Choice>,
    /// What is left: the scans to cut, and for each of them and key the number of the expression to begin with.
    left: VecDeque<Way>,
    last: Option<Way>,
    /// Ways that were refused, and what else is refused for that.
    ruled_out: Vec<(Way, Blocked)>,
    tried: usize,
    /// Ways that are none of these.
    given: VecDeque<(u64, Assignment)>,
}

/// Which ways are refused because one was: of those that cut no scans but its own, and by its expressions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Blocked {
    /// None that is known.
    Unknown,
    /// All, whatever they cut.
    All,
    /// Those that cut one of these scans.
    Any(Vec<usize>),
    /// Those that cut scans of both.
    Both(Vec<usize>, Vec<usize>),
}

/// Some scans of a choice, each cut by one of its expressions for each key.
#[derive(Clone)]
struct Way {
    bytes: u64,
    choice: usize,
    scans: Vec<usize>,
    /// The numbers of the expressions, scan by scan.
    exprs: Vec<usize>,
}

impl Ways {
    /// All ways to cut by one of these groups for each key.
    pub fn new(resolved: &Resolved, keys: &[Vec<Group>]) -> Self {
        let bytes: Vec<u64> = resolved.scans.iter().map(|scan| scan.bytes).collect();
        let choices: Vec<Choice> = choices(keys).map(|groups| Choice::new(&groups, bytes.len())).collect();
        let mut ways: Vec<Way> = Vec::new();
        for (choice, Choice { cuttable, .. }) in choices.iter().enumerate() {
            for scans in subsets(cuttable, MAX_ATTEMPTS.saturating_sub(ways.len())) {
                let bytes = scans.iter().map(|scan| bytes[*scan]).sum();
                ways.push(Way { bytes, choice, exprs: vec![0; scans.len() * keys.len()], scans });
            }
        }
        // Stable: of equal ones the first group's.
        ways.sort_by_key(|way| Reverse((way.bytes, way.scans.len())));
        let (last, ruled_out, given) = (None, Vec::new(), VecDeque::new());
        Self { choices, left: ways.into(), last, ruled_out, tried: 0, given }
    }

    /// These ways, in order.
    pub fn of(ways: Vec<(u64, Assignment)>) -> Self {
        let (choices, left, last, ruled_out) = (Vec::new(), VecDeque::new(), None, Vec::new());
        Self { choices, left, last, ruled_out, tried: 0, given: ways.into() }
    }

    /// Leaves out what is refused because the last way was.
    pub fn rule_out(&mut self, blocked: Blocked) {
        if let Some(last) = self.last.take()
            && blocked != Blocked::Unknown
            && self.ruled_out.len() < MOST_RULED_OUT
        {
            self.ruled_out.push((last, blocked));
        }
    }

    fn is_ruled_out(&self, way: &Way) -> bool {
        self.ruled_out.iter().any(|(refused, blocked)| match blocked {
            Blocked::Unknown => false,
            Blocked::All => true,
            Blocked::Any(scans) => cuts_one(way, scans) && way.is_part_of(refused),
            Blocked::Both(left, right) => cuts_one(way, left) && cuts_one(way, right) && way.is_part_of(refused),
        })
    }
}

impl Iterator for Ways {
    type Item = (u64, Assignment);

    fn next(&mut self) -> Option<Self::Item> {
        if let Some(given) = self.given.pop_front() {
            return Some(given);
        }
        while self.tried < MAX_ATTEMPTS {
            let way = self.left.pop_front()?;
            if let Some(next) = self.choices[way.choice].next(&way) {
                self.left.push_front(next);
            }
            self.tried += 1;
            if !self.is_ruled_out(&way) {
                let assignment = self.choices[way.choice].assignment(&way);
                let bytes = way.bytes;
                self.last = Some(way);
                return Some((bytes, assignment));
            }
        }
        None
    }
}

impl Way {
    /// Whether it cuts only what the other cuts, and as that does. Scans are in order.
    fn is_part_of(&self, other: &Self) -> bool {
        let keys = |way: &Self| way.exprs.len() / way.scans.len().max(1);
        let of = |way: &Self, at: usize| way.exprs[at * keys(way)..(at + 1) * keys(way)].to_vec();
        self.choice == other.choice
            && (0..self.scans.len()).all(|at| {
                let found = other.scans.binary_search(&self.scans[at]);
                found.is_ok_and(|other_at| of(self, at) == of(other, other_at))
            })
    }
}

fn cuts_one(way: &Way, scans: &[usize]) -> bool {
    way.scans.iter().any(|scan| scans.contains(scan))
}

/// A group for each key, the last key's first; at most [`MAX_ATTEMPTS`].
fn choices(keys: &[Vec<Group>]) -> impl Iterator<Item = Vec<&Group>> {
    let counts = keys.iter().map(Vec::len).collect();
    numerals(counts).map(|at| keys.iter().zip(at).map(|(groups, at)| &groups[at]).collect()).take(MAX_ATTEMPTS)
}

/// One group for each key.
struct Choice {
    /// For each scan and key, the expressions that it may be cut by.
    exprs: Vec<Vec<Vec<KeyExpr>>>,
    /// Scans that have an expression for every key.
    cuttable: Vec<usize>,
}

impl Choice {
    fn new(groups: &[&Group], scans: usize) -> Self {
        let mut exprs = vec![vec![Vec::new(); groups.len()]; scans];
        for (key, group) in groups.iter().enumerate() {
            for (scan, expr) in *group {
                exprs[*scan][key].push(expr.clone());
            }
        }
        let has_all = |scan: &usize| exprs[*scan].iter().all(|exprs| !exprs.is_empty());
        let cuttable = (0..scans).filter(has_all).collect();
        Self { exprs, cuttable }
    }

    /// The same scans cut by the next expressions.
    fn next(&self, way: &Way) -> Option<Way> {
        let counts: Vec<usize> = way.scans.iter().flat_map(|scan| self.exprs[*scan].iter().map(Vec::len)).collect();
        following(&way.exprs, &counts).map(|exprs| Way { exprs, ..way.clone() })
    }

    fn assignment(&self, way: &Way) -> Assignment {
        let mut assignment = vec![None; self.exprs.len()];
        let mut at = way.exprs.iter();
        for scan in &way.scans {
            let exprs = self.exprs[*scan].iter().zip(at.by_ref());
            assignment[*scan] = Some(exprs.map(|(exprs, at)| exprs[*at].clone()).collect());
        }
        assignment
    }
}

/// All numerals whose digits are below these counts, in order.
fn numerals(counts: Vec<usize>) -> impl Iterator<Item = Vec<usize>> {
    let first = (!counts.contains(&0)).then(|| vec![0; counts.len()]);
    std::iter::successors(first, move |last| following(last, &counts))
}

/// The numeral after this one, its digits below these counts.
fn following(numeral: &[usize], counts: &[usize]) -> Option<Vec<usize>> {
    let at = (0..counts.len()).rev().find(|at| numeral[*at] + 1 < counts[*at])?;
    let mut next = numeral.to_vec();
    next[at] += 1;
    next[at + 1..].fill(0);
    Some(next)
}

/// Subsets of scans, the largest first, at most so many. Of many scans only the whole set, those without one or two of
/// them, and each alone.
fn subsets(scans: &[usize], most: usize) -> Vec<Vec<usize>> {
    let without = |left_out: &[usize]| scans.iter().copied().filter(|scan| !left_out.contains(scan)).collect();
    let pairs = scans.len() * scans.len().saturating_sub(1) / 2;
    let mut found: Vec<Vec<usize>> = match scans.len() {
        0 => Vec::new(),
        count @ 1..=MOST_IN_ALL_SUBSETS => {
            let of_mask = |mask: u32| (0..count).filter(|at| mask & (1 << at) != 0).map(|at| scans[at]).collect();
            (1..1 << count).map(of_mask).collect()
        }
        _ => {
            let all = std::iter::once(scans.to_vec());
            let one = scans.iter().map(|scan| without(&[*scan]));
            let two = scans.iter().enumerate().flat_map(|(at, i)| scans[..at].iter().map(|j| without(&[*i, *j])));
            let two = two.take(if 1 + 2 * scans.len() + pairs <= most { pairs } else { 0 });
            let alone = scans.iter().map(|scan| vec![*scan]);
            all.chain(one.take(most)).chain(two).chain(alone.take(most)).collect()
        }
    };
    // Stable.
    found.sort_by_key(|scans| Reverse(scans.len()));
    found.truncate(most);
    found
}

#[cfg(test)]
mod tests {
    use super::{Way, following, subsets};

    #[test]
    fn of_few_scans_all_subsets_are_tried_and_of_many_the_largest_and_the_smallest() {
        assert_eq!(subsets(&[3, 5], 9), [vec![3, 5], vec![3], vec![5]]);
        for count in [11, 45, 63, 64, 65, 300, 2000] {
            let scans: Vec<usize> = (0..count).collect();
            let found = subsets(&scans, 1024);
            assert_eq!((found[0].len(), found[1].len()), (count, count - 1), "{count}");
            assert!(found.len() <= 1024 && found.is_sorted_by_key(|scans| std::cmp::Reverse(scans.len())), "{count}");
            assert!(count > 500 || found.contains(&vec![count - 1]), "{count}");
        }
    }

    #[test]
    fn numerals_follow_each_other_in_order() {
        assert_eq!(following(&[0, 1], &[2, 2]), Some(vec![1, 0]));
        assert_eq!((following(&[1, 1], &[2, 2]), following(&[], &[])), (None, None));
    }

    #[test]
    fn a_way_is_part_of_another_that_cuts_the_same_scans_by_the_same_expressions() {
        let way =
            |scans: &[usize], exprs: &[usize]| Way { bytes: 0, choice: 0, scans: scans.into(), exprs: exprs.into() };
        let whole = way(&[1, 4, 6], &[0, 0, 1, 0, 0, 2]);
        assert!(way(&[4], &[1, 0]).is_part_of(&whole) && whole.is_part_of(&whole));
        assert!(!way(&[4], &[0, 0]).is_part_of(&whole) && !way(&[1, 5], &[0, 0, 1, 0]).is_part_of(&whole));
    }
}
