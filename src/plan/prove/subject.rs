//! A plan that many attempts are made on, and what they found of its parts.
//!
//! What is proved of a part follows from how the scans below it are cut. Most attempts differ from others in a few
//! scans, so that what was found of all other parts holds for them as well.

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;

use datafusion::logical_expr::LogicalPlan;

use crate::plan::keys::expr::KeyExpr;
use crate::plan::prove::assign::Assignment;
use crate::plan::prove::property::Property;
use crate::plan::resolve::{Resolved, scan_numbers};

/// The number of a way to cut one scan, [`WHOLE`] where it is not cut.
type CutNumber = u32;

const WHOLE: CutNumber = 0;

/// A plan that attempts are made on.
pub struct Subject<'a> {
    /// The plan. Its nodes stay where they are while it is borrowed, so that their addresses name them.
    pub resolved: &'a Resolved,
    /// The scans below each node.
    scans: RefCell<HashMap<*const LogicalPlan, Rc<[usize]>>>,
    cuts: RefCell<HashMap<(usize, Vec<KeyExpr>), CutNumber>>,
    /// By node and how the scans below it are cut.
    found: RefCell<HashMap<(*const LogicalPlan, Vec<CutNumber>), PartFound>>,
}

/// What was found of a part of the plan.
#[derive(Clone)]
pub struct PartFound {
    /// Its property.
    pub property: Property,
    /// Whether chunk 0 alone computes some node of it.
    pub has_once: bool,
}

/// How an attempt cuts each scan, by number.
pub struct Cuts(Vec<CutNumber>);

impl<'a> Subject<'a> {
    /// A plan of which nothing is found yet.
    pub fn new(resolved: &'a Resolved) -> Self {
        Self { resolved, scans: RefCell::default(), cuts: RefCell::default(), found: RefCell::default() }
    }

    /// Forgets what was found where scans are cut: other keys follow.
    pub fn begin_keys(&self) {
        self.found.borrow_mut().retain(|(_, cuts), _| cuts.iter().all(|cut| *cut == WHOLE));
    }

    /// How an attempt cuts each scan.
    pub fn cuts(&self, assignment: &Assignment) -> Cuts {
        let mut known = self.cuts.borrow_mut();
        let number = |(scan, exprs): (usize, &Option<Vec<KeyExpr>>)| match exprs {
            Some(exprs) => {
                let next = known.len() as CutNumber + 1;
                *known.entry((scan, exprs.clone())).or_insert(next)
            }
            None => WHOLE,
        };
        Cuts(assignment.iter().enumerate().map(number).collect())
    }

    /// What was found of a node of the plan where the scans below it were cut so.
    pub fn found(&self, node: &LogicalPlan, cuts: &Cuts) -> Option<PartFound> {
        self.found.borrow().get(&self.part(node, cuts)).cloned()
    }

    /// Keeps what was found of a node of the plan.
    pub fn keep(&self, node: &LogicalPlan, cuts: &Cuts, found: PartFound) {
        self.found.borrow_mut().insert(self.part(node, cuts), found);
    }

    fn part(&self, node: &LogicalPlan, Cuts(cuts): &Cuts) -> (*const LogicalPlan, Vec<CutNumber>) {
        let mut scans = self.scans.borrow_mut();
        // DataFusion's visitors don't fail.
        let scans = scans.entry(node).or_insert_with(|| scan_numbers(node).unwrap_or_default().into());
        (node, scans.iter().map(|scan| cuts.get(*scan).copied().unwrap_or(WHOLE)).collect())
    }
}
