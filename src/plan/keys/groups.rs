//! Expressions over scans in groups of equal ones.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use crate::plan::keys::expr::KeyExpr;
use crate::plan::keys::{Group, ScanExpr};

/// Groups of expressions; each is in one of them at most. What is in none is a group of its own.
#[derive(Debug, Default)]
pub struct Groups {
    /// The members of each group, in the order in which they came; none where it went into another.
    members: Vec<Vec<ScanExpr>>,
    /// When each group last grew.
    grown: Vec<usize>,
    changes: usize,
    /// The group of each member.
    of: HashMap<ScanExpr, usize>,
    /// Members by their scan and the columns in them.
    over: BTreeMap<(usize, BTreeSet<usize>), Vec<ScanExpr>>,
}

/// A group, or an expression that is in none.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum GroupId {
    /// The group of this number.
    Group(usize),
    /// The expression by itself.
    Alone(ScanExpr),
}

impl Groups {
    /// The group of an expression.
    pub fn of(&self, expr: &ScanExpr) -> GroupId {
        match self.of.get(expr) {
            Some(group) => GroupId::Group(*group),
            None => GroupId::Alone(expr.clone()),
        }
    }

    /// The group of an expression, and those of expressions over the same columns alone, the one that grew first first.
    pub fn over(&self, of: ScanExpr) -> Vec<GroupId> {
        let own = self.of(&of);
        let others = self.over.get(&(of.0, of.1.columns())).into_iter().flatten();
        let mut others: Vec<usize> = others.filter_map(|other| self.of.get(other).copied()).collect();
        others.sort_by_key(|group| self.grown[*group]);
        others.dedup();
        let others = others.into_iter().map(GroupId::Group).filter(|other| *other != own).collect::<Vec<_>>();
        [own].into_iter().chain(others).collect()
    }

    /// The expressions of a group. Of those of one scan the shortest come first: a bare column is what a table may be
    /// stored or sorted by.
    pub fn members(&self, group: GroupId) -> Group {
        match group {
            GroupId::Group(group) => {
                let mut members = self.members[group].clone();
                members.sort_by_key(|(_, expr)| expr.parts());
                members
            }
            GroupId::Alone(expr) => vec![expr],
        }
    }

    /// All expressions that are in a group.
    pub fn all(&self) -> impl Iterator<Item = &ScanExpr> {
        self.members.iter().flatten()
    }

    /// Makes a group of an expression that is in none yet.
    pub fn add(&mut self, expr: ScanExpr) -> usize {
        if let Some(group) = self.of.get(&expr) {
            return *group;
        }
        let group = self.members.len();
        self.over.entry((expr.0, expr.1.columns())).or_default().push(expr.clone());
        self.members.push(vec![expr.clone()]);
        self.grown.push(0);
        self.of.insert(expr, group);
        self.grow(group);
        group
    }

    /// Makes one group of two, unless their expressions have no hashes in common.
    pub fn unite(&mut self, a: ScanExpr, b: ScanExpr) {
        if !KeyExpr::hashes_like(&a.1, &b.1) {
            return;
        }
        let (a, b) = (self.add(a), self.add(b));
        if a != b {
            // The smaller goes into the larger, so that no member moves often.
            let (into, from) = if self.members[a].len() < self.members[b].len() { (b, a) } else { (a, b) };
            let moved = std::mem::take(&mut self.members[from]);
            self.of.extend(moved.iter().map(|member| (member.clone(), into)));
            self.members[into].extend(moved);
            self.grow(into);
        }
    }

    fn grow(&mut self, group: usize) {
        self.changes += 1;
        self.grown[group] = self.changes;
    }
}
