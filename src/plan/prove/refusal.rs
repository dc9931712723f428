//! Why a task can't be cut.

use std::fmt;

use datafusion::logical_expr::LogicalPlan;

use crate::plan::prove::rule::Rule;

/// A "no" with its node, the rule, and a way out.
#[derive(Debug)]
pub struct Refusal {
    /// The node in words.
    pub node: String,
    /// What it breaks.
    pub rule: &'static str,
    /// What to change.
    pub fix: String,
    /// A part of the node's inputs that is better run first, as a step of its own; else the node itself may be.
    pub first: Option<Box<LogicalPlan>>,
    /// Whether DataFusion can't run the node at all, so that it is no step either.
    pub is_final: bool,
}

impl Refusal {
    /// A refusal of `plan` by `rule`.
    pub fn new(plan: &LogicalPlan, rule: Rule, fix: impl Into<String>) -> Self {
        Self::of(describe(plan), rule.reason(), fix)
    }

    /// A refusal of what `node` says.
    pub fn of(node: String, rule: &'static str, fix: impl Into<String>) -> Self {
        Self { node, rule, fix: fix.into(), first: None, is_final: false }
    }

    /// Names what is better run first.
    pub fn run_first(mut self, plan: &LogicalPlan) -> Self {
        self.first = Some(Box::new(plan.clone()));
        self
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "can't be cut at {}: {}; {}", self.node, self.rule, self.fix)
    }
}

/// A rule's answer.
pub type Checked<T> = std::result::Result<T, Box<Refusal>>;

/// An operator that no rule accepts.
pub fn unsupported(plan: &LogicalPlan) -> Box<Refusal> {
    let fix = "put it in a task of its own, without CLUSTERED BY, that reads this one's output";
    Box::new(Refusal::of(describe(plan), "this operator is not known to be right in a cut task", fix))
}

/// A node that DataFusion can't run; the whole query may not need it in the end, and run all the same.
pub fn not_run(plan: &LogicalPlan) -> Box<Refusal> {
    Box::new(Refusal { is_final: true, ..*unsupported(plan) })
}

/// A node in a few words.
pub fn describe(plan: &LogicalPlan) -> String {
    match plan {
        LogicalPlan::Join(join) => {
            let on: Vec<_> = join.on.iter().map(|(l, r)| format!("{l} = {r}")).collect();
            let on = if on.is_empty() { "nothing".into() } else { on.join(" AND ") };
            shortened(&format!("{} join on {on}", join.join_type.to_string().to_lowercase()))
        }
        other => shortened(&other.display().to_string()),
    }
}

/// Text cut to a line's length.
pub fn shortened(text: &str) -> String {
    const WIDTH: usize = 120;
    match text.char_indices().nth(WIDTH) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_string(),
    }
}
