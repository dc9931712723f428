//! Why a task can't be cut.

use std::fmt;

use datafusion::logical_expr::LogicalPlan;

/// A "no" with its node, the rule, and a way out.
pub struct Refusal {
    /// The node.
    pub node: String,
    /// What it breaks.
    pub rule: &'static str,
    /// What to change.
    pub fix: String,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "can't be cut at {}: {}; {}", self.node, self.rule, self.fix)
    }
}

/// A rule's answer.
pub type Checked<T> = std::result::Result<T, Refusal>;

/// A replicated side that may differ between chunks can't meet a cut one.
pub fn refuse_unstable(plan: &LogicalPlan, unstable: Option<String>) -> Checked<()> {
    let Some(why) = unstable else { return Ok(()) };
    Err(Refusal {
        node: format!("{} ({why})", describe(plan)),
        rule: "every chunk computes the replicated side again and must see the same rows",
        fix: "compute that side in a task of its own and read its output".into(),
    })
}

/// Rows kept without a match, of a side that every chunk sees whole.
pub fn replicated_outer(plan: &LogicalPlan, side: &str) -> Refusal {
    Refusal {
        node: describe(plan),
        rule: "the side whose unmatched rows are kept is whole in every chunk, so they would repeat",
        fix: format!("cut by a column that the join equates, or keep the rows of the {side} side instead"),
    }
}

/// An operator that no rule accepts.
pub fn unsupported(plan: &LogicalPlan) -> Refusal {
    Refusal {
        node: describe(plan),
        rule: "this operator is not known to be right in a cut task",
        fix: "put it in a task of its own, without CLUSTERED BY, that reads this one's output".into(),
    }
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
