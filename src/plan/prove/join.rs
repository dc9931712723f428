//! The rule of joins: which sides may be cut against each other, and what carries the keys after it.

use arrow::datatypes::DataType;
use datafusion::common::JoinType;
use datafusion::logical_expr::{Expr, ExprSchemable, Join, LogicalPlan};

use crate::chunk::key::lossless_cast;
use crate::plan::keys::expr::{KeyExpr, exact};
use crate::plan::prove::never_null::is_never_null;
use crate::plan::prove::property::Property::{Partitioned, Replicated};
use crate::plan::prove::property::{Key, Property, named};
use crate::plan::prove::refusal::{Checked, Refusal, describe, not_run};
use crate::plan::prove::rule::{Rule, Rules};

/// What a join makes of its sides' properties.
pub fn joined(plan: &LogicalPlan, join: &Join, left: Property, right: Property, rules: Rules) -> Checked<Property> {
    // Which sides' rows survive a missing match: such a side must not be whole in every chunk against a cut one.
    let (kept_left, kept_right) = match join.join_type {
        JoinType::Inner => (false, false),
        JoinType::Left | JoinType::LeftSemi | JoinType::LeftAnti | JoinType::LeftMark => (true, false),
        JoinType::Right | JoinType::RightSemi | JoinType::RightAnti | JoinType::RightMark => (false, true),
        JoinType::Full => (true, true),
    };
    // A NOT IN whose subquery is correlated.
    if join.null_aware && (join.on.len() > 1 || join.filter.is_some()) {
        return Err(not_run(plan));
    }
    match (left, right) {
        (Replicated { unstable: l }, Replicated { unstable: r }) => Ok(Replicated { unstable: l.or(r) }),
        (Partitioned { keys }, Replicated { unstable }) => {
            refuse_unstable(plan, unstable, &join.right, rules)?;
            if kept_right && rules.ask(Rule::KeptSide) {
                return Err(replicated_outer(plan, "left"));
            }
            let none = vec![None; keys.len()];
            Ok(joined_keys(join, keys.into_iter().map(Some).collect(), none, rules))
        }
        (Replicated { unstable }, Partitioned { keys }) => {
            refuse_unstable(plan, unstable, &join.left, rules)?;
            if kept_left && rules.ask(Rule::KeptSide) {
                return Err(replicated_outer(plan, "right"));
            }
            let none = vec![None; keys.len()];
            Ok(joined_keys(join, none, keys.into_iter().map(Some).collect(), rules))
        }
        (Partitioned { keys: l }, Partitioned { keys: r }) => {
            if join.null_aware && !never_null(join) && rules.ask(Rule::NullAware) {
                let fix = "write NOT EXISTS, or use columns that are declared NOT NULL";
                return Err(Box::new(Refusal::new(plan, Rule::NullAware, fix).run_first(&join.right)));
            }
            if !on_keys(join, &l, &r, rules) && rules.ask(Rule::JoinOnKeys) {
                let fix = format!(
                    "join on {} = {} too, or cut by a column that the join equates",
                    named(&l, join.left.schema()),
                    named(&r, join.right.schema())
                );
                return Err(Box::new(Refusal::new(plan, Rule::JoinOnKeys, fix)));
            }
            Ok(joined_keys(join, l.into_iter().map(Some).collect(), r.into_iter().map(Some).collect(), rules))
        }
    }
}

/// A replicated side that may differ between chunks can't meet a cut one.
fn refuse_unstable(plan: &LogicalPlan, unstable: Option<String>, side: &LogicalPlan, rules: Rules) -> Checked<()> {
    let Some(why) = unstable.filter(|_| rules.ask(Rule::Stable)) else { return Ok(()) };
    let fix = "compute that side in a task of its own and read its output";
    let node = format!("{} ({why})", describe(plan));
    Err(Box::new(Refusal::of(node, Rule::Stable.reason(), fix).run_first(side)))
}

/// Rows kept without a match, of a side that every chunk sees whole.
fn replicated_outer(plan: &LogicalPlan, side: &str) -> Box<Refusal> {
    let fix = format!("cut by a column that the join equates, or keep the rows of the {side} side instead");
    Box::new(Refusal::new(plan, Rule::KeptSide, fix))
}

/// One equality of a join: what both sides carry, and the sides themselves where they are of one type.
struct Equated {
    carried: Option<(KeyExpr, KeyExpr)>,
    sides: Option<(Expr, Expr)>,
}

fn equated(join: &Join, rules: Rules) -> Vec<Equated> {
    let (left, right) = (join.left.schema(), join.right.schema());
    let of = |(l, r): &(Expr, Expr)| {
        let carried = KeyExpr::of(l, left, rules).zip(KeyExpr::of(r, right, rules));
        let same_type = l.get_type(left).ok() == r.get_type(right).ok();
        let sides = if same_type { exact(l, left, rules).zip(exact(r, right, rules)) } else { None };
        Equated { carried: carried.filter(|(l, r)| l.hashes_like(r)), sides }
    };
    join.on.iter().map(of).collect()
}

/// Whether the join's equalities pair each key of the left with the same key of the right.
fn on_keys(join: &Join, left: &[Key], right: &[Key], rules: Rules) -> bool {
    let equated = equated(join, rules);
    let paired = |(lk, rk): (&Key, &Key)| {
        let directly = equated.iter().filter_map(|e| e.carried.as_ref());
        let mut directly = directly.filter(|(l, r)| lk.exprs.contains(l) && rk.exprs.contains(r));
        // f(a) and f(b) where the join equates a and b.
        let other_side = |expr: &KeyExpr| {
            expr.replaced(|part| {
                let sides = equated.iter().filter_map(|e| e.sides.as_ref());
                sides.filter(|(l, _)| l == part).map(|(_, r)| r.clone()).next()
            })
        };
        directly.next().is_some() || lk.exprs.iter().filter_map(other_side).any(|expr| rk.exprs.contains(&expr))
    };
    left.iter().zip(right).all(paired)
}

/// Whether neither side of a `NOT IN` can be NULL, as the schemas or the inputs say.
fn never_null(join: &Join) -> bool {
    join.on.iter().all(|(l, r)| is_never_null(l, &join.left) && is_never_null(r, &join.right))
}

/// The keys among the columns of an accepted join; `None` where that side is replicated.
fn joined_keys(join: &Join, left: Vec<Option<Key>>, right: Vec<Option<Key>>, rules: Rules) -> Property {
    let width = join.left.schema().fields().len();
    let right_moved = |key: &Key| key.moved(|at| vec![at + width]);
    let pairs: Vec<(KeyExpr, KeyExpr)> = equated(join, rules)
        .into_iter()
        .filter_map(|equated| equated.carried)
        .filter_map(|(l, r)| Some((l, r.moved(|at| Some(at + width))?)))
        .collect();
    let both = |l: &Key, r: &Key| {
        let mut key = l.clone();
        key.left_out |= r.left_out;
        r.exprs.iter().for_each(|expr| key.add(expr.clone()));
        key
    };
    let keys = left.into_iter().zip(right).filter_map(|sides| {
        Some(match (join.join_type, sides) {
            (JoinType::Inner | JoinType::Left | JoinType::Right | JoinType::Full, (Some(l), Some(r)))
                if join.join_type == JoinType::Inner || !rules.ask(Rule::PaddedKeys) =>
            {
                both(&l, &right_moved(&r))
            }
            (JoinType::Inner, (Some(l), None)) => l,
            (JoinType::Inner | JoinType::Right, (None, Some(r))) => right_moved(&r),
            (JoinType::Right, (Some(_), Some(r))) => right_moved(&r),
            (JoinType::Full, (Some(l), Some(r))) => coalesced(&l, &right_moved(&r)),
            (JoinType::RightSemi | JoinType::RightAnti | JoinType::RightMark, (_, Some(r))) => r,
            // Left joins of all kinds keep the left's keys; no other pair is accepted.
            (_, (Some(l), _)) => l,
            (_, (None, r)) => r?,
        })
    });
    let mut keys: Vec<Key> = keys.collect();
    let has_both_sides = matches!(join.join_type, JoinType::Inner | JoinType::Left | JoinType::Right | JoinType::Full);
    if join.join_type == JoinType::Inner || has_both_sides && !rules.ask(Rule::EqualInAllRows) {
        keys.iter_mut().for_each(|key| key.unite(&pairs));
    }
    Partitioned { keys }
}

/// Of what carries a key on a side of a full join so many expressions are taken.
const MOST_COALESCED: usize = 8;

/// What a full join leaves of a key: the first of both sides' that is not NULL.
fn coalesced(left: &Key, right: &Key) -> Key {
    let mut key = left.without_exprs();
    key.left_out |= right.left_out;
    // Else the first that is not NULL may be of the side that has no row.
    let mut shortest = |of: &Key| {
        let mut exprs: Vec<KeyExpr> = of.exprs.iter().filter(|expr| expr.is_null_of_nulls()).cloned().collect();
        exprs.sort_by_key(KeyExpr::parts);
        key.left_out |= exprs.len() > MOST_COALESCED;
        exprs.truncate(MOST_COALESCED);
        exprs
    };
    let (left, right) = (shortest(left), shortest(right));
    for (l, r) in left.iter().flat_map(|l| right.iter().map(move |r| (l, r))) {
        // As the query's own coalesce is: both of one type, the narrower one cast. The other way round a value of the
        // wider one may be lost, and with it the chunk of its row.
        let keeps = |to: &&DataType| [l, r].iter().all(|side| lossless_cast(side.data_type(), to));
        for to in [l.data_type(), r.data_type()].into_iter().filter(keeps) {
            key.add(KeyExpr::coalesce(&l.cast(to), &r.cast(to)));
            key.add(KeyExpr::coalesce(&r.cast(to), &l.cast(to)));
        }
    }
    key
}
