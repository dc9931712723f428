//! What planning a task may cost.
//!
//! Nothing that is looked at here decides about rows: where a limit is reached, keys and ways to run the task are not
//! examined, and EXPLAIN and refusals say so. The limits count work, not time, so that a task is planned alike
//! everywhere.

use std::cell::Cell;

use crate::plan::prove::property::MOST_EXPRESSIONS;

/// Nodes of plans that are looked at while keys are sought.
const MOST_NODES: usize = 1 << 20;

/// Plans that are proved.
const MOST_PROOFS: usize = 128;

/// So many of both for a query that runs whole as well: there is little that a cut of it could save.
const MOST_FOR_LITTLE: (usize, usize) = (MOST_NODES / 16, MOST_PROOFS / 4);

/// What was spent on planning a query so far, and what was left out.
#[derive(Debug, Default)]
pub struct Effort {
    nodes: Cell<usize>,
    proofs: Cell<usize>,
    is_for_little: Cell<bool>,
    has_left_out_keys: Cell<bool>,
    has_ended: Cell<bool>,
}

impl Effort {
    /// Says that the query runs whole as well.
    pub fn expect_little(&self) {
        self.is_for_little.set(true);
    }

    /// So many nodes and plans are looked at, at most.
    fn most(&self) -> (usize, usize) {
        if self.is_for_little.get() { MOST_FOR_LITTLE } else { (MOST_NODES, MOST_PROOFS) }
    }

    /// Counts a node of a plan that is looked at.
    pub fn node(&self) {
        self.nodes.set(self.nodes.get() + 1);
    }

    /// Counts a plan that is proved.
    pub fn proof(&self) {
        self.proofs.set(self.proofs.get() + 1);
    }

    /// Notes that something that equals a key was left out.
    pub fn leave_out_keys(&self) {
        self.has_left_out_keys.set(true);
    }

    /// Whether nothing more is to be tried; what is not tried then is noted.
    pub fn is_spent(&self) -> bool {
        let (nodes, proofs) = self.most();
        let is_spent = self.nodes.get() >= nodes || self.proofs.get() >= proofs;
        self.has_ended.set(self.has_ended.get() || is_spent);
        is_spent
    }

    /// Nodes that were looked at.
    pub fn nodes(&self) -> usize {
        self.nodes.get()
    }

    /// What was left out, in words.
    pub fn notes(&self) -> Vec<String> {
        let mut notes = Vec::new();
        if self.has_left_out_keys.get() {
            notes.push(format!(
                "the query equates so many or such long expressions that not all of them were tried as keys: of what \
                 equals a key, the {MOST_EXPRESSIONS} shortest expressions are kept"
            ));
        }
        if self.has_ended.get() {
            let (nodes, proofs) = self.most();
            notes.push(format!(
                "the search for a cut ended after {nodes} nodes or {proofs} plans; name the keys, or split the query"
            ));
        }
        notes
    }
}
