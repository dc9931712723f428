//! The rules of the prover by name, and switches for them.
//!
//! A rule is a condition under which a task is refused, or under which a node's columns no longer carry a key. To show
//! that the tests see each of them, the feature `testing` can switch one off; nothing else can.

use std::fmt;
use std::str::FromStr;

macro_rules! rules {
    ($($(#[$doc:meta])* $rule:ident $name:literal $reason:literal,)*) => {
        /// What the prover asks of a plan. Displayed as its name, in lower case with hyphens.
        #[non_exhaustive]
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Rule {
            $($(#[$doc])* $rule,)*
        }

        impl Rule {
            /// All rules.
            pub const ALL: &[Self] = &[$(Self::$rule,)*];

            /// Its name.
            pub fn name(self) -> &'static str {
                match self { $(Self::$rule => $name,)* }
            }

            /// What is wrong where it does not hold, as refusals say it.
            pub fn reason(self) -> &'static str {
                match self { $(Self::$rule => $reason,)* }
            }
        }
    };
}

rules! {
    /// Both sides of a join are cut only where its equalities pair their keys.
    JoinOnKeys "join-on-keys" "both sides are cut, but the join's equalities don't pair their keys",
    /// A side that is whole in every chunk keeps no rows without a match.
    KeptSide "kept-side" "the side whose unmatched rows are kept is whole in every chunk, so they would repeat",
    /// The subquery of a `NOT IN` that may hold NULL is whole.
    NullAware "null-aware" "NOT IN over a cut subquery: one NULL in any chunk decides every row",
    /// Columns that an outer join pads with NULL don't carry a key.
    PaddedKeys "padded-keys" "an outer join makes NULLs of the key",
    /// Only an inner join makes the columns that it equates equal in all its rows.
    EqualInAllRows "equal-in-all-rows" "the equality does not hold in every row",
    /// An equality counts only as a conjunct: under OR or NOT it need not hold.
    Conjuncts "conjuncts" "an equality under OR need not hold",
    /// A cast carries a key only where it keeps every value and its hash.
    LosslessCasts "lossless-casts" "a cast may make other values of the key",
    /// An expression carries a key only where equal keys have equal values of it.
    ExactArguments "exact-arguments" "equal floats may have different texts",
    /// An aggregate groups by the keys.
    GroupByKeys "group-by-keys" "rows of one group may lie in different chunks, since it does not group by every key",
    /// Every grouping set has the keys.
    GroupingSets "grouping-sets" "a grouping set leaves the key out",
    /// DISTINCT sees the keys.
    DistinctKeys "distinct-keys" "equal rows may lie in different chunks, since not every key is among the columns",
    /// DISTINCT ON names the keys.
    DistinctOnKeys "distinct-on-keys" "rows that DISTINCT ON compares may lie in different chunks, since it does not name every key",
    /// Every window partitions by the keys.
    PartitionByKeys "partition-by-keys" "rows of one window partition may lie in different chunks, since not every key is in PARTITION BY",
    /// LIMIT counts the rows of the whole.
    Limit "limit" "LIMIT counts the rows of the whole, and each chunk would count its own",
    /// A branch of UNION ALL that is whole is given to chunk 0 alone.
    UnionOnce "union-once" "one branch is cut and another is not: its rows would repeat in every chunk",
    /// A key of a union is carried at the same place by every branch.
    UnionKeys "union-keys" "the branches of the union carry the key at different places",
    /// A recursive query reads whole inputs only.
    Recursion "recursion" "a recursive query over a cut input would see only the rows of its chunk",
    /// A scalar subquery has one value for all chunks, and what is cut is not in one alone.
    ScalarSubquery "scalar-subquery" "its scalar subquery reads a cut input, so every chunk would see another value",
    /// What every chunk computes again has the same rows each time.
    Stable "stable" "every chunk computes the replicated side again and must see the same rows",
    /// A volatile function is called only where each row has a value of its own.
    Volatile "volatile" "a volatile function gives new values in every chunk",
    /// What takes rows by the order of an ORDER BY below keeps that order, whatever stands between and is a step.
    KeptOrder "kept-order" "rows are taken by the order of an ORDER BY below, which chunks don't keep",
    /// In two phases, OFFSET is taken in the last one only.
    OffsetLast "offset-last" "OFFSET counts the rows of the whole",
    /// An aggregate with an ORDER BY of its own is not done in two phases.
    UnorderedStates "unordered-states" "the states of an ordered aggregate depend on the order of chunks",
    /// Two plans are one step only where they read the same.
    SameSources "same-sources" "plans over different table functions look the same",
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Rule {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        let known = || Self::ALL.iter().map(|rule| rule.name()).collect::<Vec<_>>().join(", ");
        let found = Self::ALL.iter().find(|rule| rule.name() == name);
        found.copied().ok_or_else(|| format!("there is no rule `{name}`; the rules are: {}", known()))
    }
}

/// The rules that are asked for: all of them, outside tests.
#[derive(Debug, Clone, Copy, Default)]
pub struct Rules {
    #[cfg(feature = "testing")]
    without: Option<Rule>,
    #[cfg(feature = "testing")]
    one_by_one: bool,
}

impl Rules {
    /// These rules but one.
    #[cfg(feature = "testing")]
    pub fn without(self, rule: Rule) -> Self {
        Self { without: Some(rule), ..self }
    }

    /// These rules, for chunks that run one by one, also where that costs more than it saves: what is wrong with a cut
    /// shows there.
    #[cfg(feature = "testing")]
    pub fn one_by_one(self) -> Self {
        Self { one_by_one: true, ..self }
    }

    /// Whether chunks run one by one, also where that costs more than it saves.
    #[cfg(feature = "testing")]
    pub fn are_one_by_one(self) -> bool {
        self.one_by_one
    }

    /// Whether chunks run one by one, also where that costs more than it saves.
    #[cfg(not(feature = "testing"))]
    pub fn are_one_by_one(self) -> bool {
        false
    }

    /// Whether `rule` is asked for.
    #[cfg(feature = "testing")]
    pub fn ask(self, rule: Rule) -> bool {
        self.without != Some(rule)
    }

    /// Whether `rule` is asked for.
    #[cfg(not(feature = "testing"))]
    pub fn ask(self, _rule: Rule) -> bool {
        true
    }
}
