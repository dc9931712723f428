//! A plan that may be cut, what every chunk sees of its inputs, and what was found at its nodes.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::datatypes::{Schema, SchemaRef};
use datafusion::logical_expr::LogicalPlan;

use crate::chunk::ChunkFunction;
use crate::chunk::given::Given;
use crate::chunk::key::key_family;
use crate::plan::keys::expr::KeyExpr;
use crate::plan::resolve::{Resolved, branches};

/// A plan that may be cut, and how. [`try_prove`](super::try_prove) makes one, and [`assumed`](super::assumed) by the
/// user's word; [`Proof::whole`] and [`Proof::branches`] cut nothing, and [`Proof::of_slice`] is of no plan.
///
/// What only chunk 0 computes stands below a filter by [`is_chunk_0`](super::is_chunk_0).
#[derive(Debug, Clone)]
pub struct Proof {
    pub(super) plan: LogicalPlan,
    pub(super) schema: SchemaRef,
    pub(super) keys: Vec<String>,
    pub(super) stored_by: Vec<String>,
    pub(super) visible: BTreeMap<Vec<usize>, Vec<KeyExpr>>,
    pub(super) function: ChunkFunction,
    pub(super) inputs: Vec<Input>,
    pub(super) once: Vec<Vec<usize>>,
    pub(super) steps: Vec<Step>,
    pub(super) assumed: Option<String>,
}

/// One scan of the plan and what every chunk sees of it.
#[derive(Debug, Clone)]
pub struct Input {
    /// Name of the source or task that is read.
    pub table: String,
    /// What a chunk sees.
    pub role: Role,
}

/// What a chunk sees of an input.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Role {
    /// The rows whose keys are in the chunk.
    Partitioned {
        /// The keys over the scan's columns, one for each key of the task.
        keys: Vec<KeyExpr>,
        /// The keys in SQL; the predicates, where these number the chunks.
        names: Vec<String>,
    },
    /// All rows.
    Replicated {
        /// Why it is not cut.
        why: String,
    },
}

/// What the prover found at one node.
#[derive(Debug, Clone)]
pub struct Step {
    /// Depth of the node in the plan, the root 0.
    pub depth: usize,
    /// The node in a few words.
    pub node: String,
    /// The property and its reason.
    pub finding: String,
}

impl Proof {
    /// A plan that runs whole, as one chunk: nothing is cut, so there is nothing to prove.
    pub fn whole(resolved: &Resolved) -> Self {
        let why = "the task runs whole".to_string();
        let inputs = resolved.scans.iter();
        Self {
            plan: resolved.plan.clone(),
            schema: resolved.schema.clone(),
            keys: Vec::new(),
            stored_by: Vec::new(),
            visible: BTreeMap::new(),
            function: ChunkFunction::Hash(1),
            inputs: inputs
                .map(|s| Input { table: s.table.clone(), role: Role::Replicated { why: why.clone() } })
                .collect(),
            once: Vec::new(),
            steps: Vec::new(),
            assumed: None,
        }
    }

    /// A union of `count` queries, each of which is a chunk: nothing is cut either.
    pub fn branches(resolved: &Resolved, count: usize) -> Self {
        let mut proof = Self::whole(resolved);
        let why = "each chunk has a query of its own".to_string();
        proof.inputs.iter_mut().for_each(|input| input.role = Role::Replicated { why: why.clone() });
        proof.by(ChunkFunction::Branches(u32::try_from(count).unwrap_or(u32::MAX)))
    }

    /// The one query over the slices of an input of which a chunk of its own needs rows: all are in one slice.
    pub fn of_slice(table: &str) -> Self {
        let role = Role::Partitioned { keys: Vec::new(), names: Vec::new() };
        Self {
            plan: LogicalPlan::default(),
            schema: Arc::new(Schema::empty()),
            keys: Vec::new(),
            stored_by: Vec::new(),
            visible: BTreeMap::new(),
            function: ChunkFunction::Hash(1),
            inputs: vec![Input { table: table.to_string(), role }],
            once: Vec::new(),
            steps: Vec::new(),
            assumed: None,
        }
    }

    /// The plan of a chunk that has a query of its own; of any other chunk that of all.
    ///
    /// # Errors
    /// When there is no such chunk.
    pub fn plan_of(&self, chunk: u32) -> datafusion::common::Result<&LogicalPlan> {
        let ChunkFunction::Branches(count) = self.function else { return Ok(&self.plan) };
        match branches(&self.plan, count as usize)?.get(chunk as usize) {
            Some(plan) => Ok(plan),
            None => datafusion::common::internal_err!("there is no chunk {chunk} of {count}"),
        }
    }

    /// The proved plan, over numbered scans.
    pub fn plan(&self) -> &LogicalPlan {
        &self.plan
    }

    /// Schema of the task's table.
    pub fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    /// Keys as the task names them; empty for a whole task.
    pub fn keys(&self) -> &[String] {
        &self.keys
    }

    /// Columns of the task's table that equal the keys in every row, so that they alone decide a row's chunk; empty
    /// when not every key is such a column.
    pub fn stored_by(&self) -> &[String] {
        &self.stored_by
    }

    /// The keys over the columns of each node where all of them are visible. Nodes are named by the way to them from
    /// the root, which is the number of an input at each node.
    pub fn visible(&self) -> &BTreeMap<Vec<usize>, Vec<KeyExpr>> {
        &self.visible
    }

    /// Number of chunks, at least 1.
    pub fn chunks(&self) -> u32 {
        self.function.chunks()
    }

    /// The function from a row's keys to its chunk.
    pub fn function(&self) -> &ChunkFunction {
        &self.function
    }

    /// The same cut by another function of the keys: what is proved holds for any of them. Ranges are of one key, whose
    /// types compare alike in all inputs.
    pub fn by(self, function: ChunkFunction) -> Self {
        Self { function, ..self }
    }

    /// The function of the keys that `given` is for the inputs that are cut.
    ///
    /// # Errors
    /// As [`Given::function`].
    pub fn given(&self, given: &Given) -> datafusion::common::Result<ChunkFunction> {
        let types = self.inputs.iter().filter_map(|input| match &input.role {
            Role::Partitioned { keys, names: _ } => Some(keys.iter().map(KeyExpr::data_type).collect()),
            Role::Replicated { .. } => None,
        });
        given.function(&self.keys, &types.collect::<Vec<_>>())
    }

    /// The scans, by number.
    pub fn inputs(&self) -> &[Input] {
        &self.inputs
    }

    /// Bytes of the scans that are cut, about.
    pub fn cut_bytes(&self, resolved: &Resolved) -> u64 {
        let cut = self.inputs.iter().zip(&resolved.scans);
        cut.filter(|(input, _)| matches!(input.role, Role::Partitioned { .. })).map(|(_, scan)| scan.bytes).sum()
    }

    /// As [`Self::cut_bytes`], without the share of the largest chunk of a scan whose keys have fewer values than there
    /// are chunks, as far as is known.
    pub fn spread_bytes(&self, resolved: &Resolved) -> u64 {
        let spread = self.inputs.iter().zip(&resolved.scans).map(|(input, scan)| {
            let Role::Partitioned { keys, .. } = &input.role else { return 0 };
            let values =
                keys.iter().try_fold(1, |all: u64, key| Some(all.saturating_mul(scan.values(key.as_column()?)?)));
            match values {
                Some(values) if values < self.chunks().into() => scan.bytes - scan.bytes / values.max(1),
                _ => scan.bytes,
            }
        });
        spread.sum()
    }

    /// The user's reason for assuming that the cut is right, and why the prover could not prove it.
    pub fn assumed(&self) -> Option<&str> {
        self.assumed.as_deref()
    }

    /// The same cut of a table that has its columns in the form in which they are published. One that hashes otherwise
    /// in that form no longer says a row's chunk.
    pub fn published_as(mut self, schema: SchemaRef) -> Self {
        let family = |schema: &Schema, name: &String| Some(key_family(schema.field_with_name(name).ok()?.data_type()));
        if self.stored_by.iter().any(|name| family(&self.schema, name) != family(&schema, name)) {
            self.stored_by.clear();
        }
        Self { schema, ..self }
    }

    /// The same cut of a table whose rows are changed before they are stored, into these columns: no column is known to
    /// be a key any more.
    pub fn changed_to(self, schema: SchemaRef) -> Self {
        Self { schema, stored_by: Vec::new(), ..self }
    }

    /// Nodes that chunk 0 alone computes: the way to each from the root, by number of the input.
    pub fn once(&self) -> &[Vec<usize>] {
        &self.once
    }

    /// What was found at each node, the root first, a node before its inputs.
    pub fn steps(&self) -> &[Step] {
        &self.steps
    }
}
