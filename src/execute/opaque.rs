//! Running a function over rows.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, OnceLock};

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch};
use arrow::datatypes::{DataType, SchemaRef};
use async_trait::async_trait;
use datafusion::catalog::Session;
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::common::utils::memory::RecordBatchMemoryCounter;
use datafusion::common::{DataFusionError, Result, ScalarValue, exec_err};
use datafusion::execution::memory_pool::{MemoryConsumer, MemoryReservation};
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::logical_expr::physical_planning_context::PhysicalPlanningContext;
use datafusion::logical_expr::{LogicalPlan, UserDefinedLogicalNode};
use datafusion::physical_expr::{EquivalenceProperties, PhysicalExpr};
use datafusion::physical_plan::execution_plan::{Boundedness, EmissionType};
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::{
    DisplayAs, DisplayFormatType, Distribution, ExecutionPlan, InputDistributionRequirements, Partitioning,
    PlanProperties, ReplaceChildrenOptions,
};
use datafusion::physical_planner::{ExtensionPlanner, PhysicalPlanner};
use futures::{StreamExt, TryStreamExt};

use crate::plan::opaque::OpaqueNode;
use crate::task::opaque::{InputBatches, InputStreams, RowsFunction};

/// Plans functions over rows.
pub struct Functions;

#[async_trait]
impl ExtensionPlanner for Functions {
    async fn plan_extension(
        &self,
        _planner: &dyn PhysicalPlanner,
        node: &dyn UserDefinedLogicalNode,
        _logical_inputs: &[&LogicalPlan],
        physical_inputs: &[Arc<dyn ExecutionPlan>],
        _session: &dyn Session,
        _planning_ctx: &PhysicalPlanningContext,
    ) -> Result<Option<Arc<dyn ExecutionPlan>>> {
        let Some(node) = node.as_any().downcast_ref::<OpaqueNode>() else { return Ok(None) };
        Ok(Some(Arc::new(OpaqueExec::new(node, physical_inputs.to_vec()))))
    }
}

/// Calls a function with the rows of its inputs, each as one stream.
#[derive(Debug)]
struct OpaqueExec {
    node: OpaqueNode,
    inputs: Vec<Arc<dyn ExecutionPlan>>,
    properties: Arc<PlanProperties>,
}

impl OpaqueExec {
    fn new(node: &OpaqueNode, inputs: Vec<Arc<dyn ExecutionPlan>>) -> Self {
        let schema = Arc::clone(UserDefinedLogicalNode::schema(node).inner());
        let properties = PlanProperties::new(
            EquivalenceProperties::new(schema),
            Partitioning::UnknownPartitioning(1),
            EmissionType::Final,
            Boundedness::Bounded,
        );
        Self { node: node.clone(), inputs, properties: Arc::new(properties) }
    }
}

impl DisplayAs for OpaqueExec {
    fn fmt_as(&self, _format: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "OpaqueExec: {}", self.node.task())
    }
}

impl ExecutionPlan for OpaqueExec {
    fn name(&self) -> &'static str {
        "OpaqueExec"
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        &self.properties
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        self.inputs.iter().collect()
    }

    fn apply_expressions(
        &self,
        _f: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> Result<TreeNodeRecursion>,
    ) -> Result<TreeNodeRecursion> {
        Ok(TreeNodeRecursion::Continue)
    }

    fn input_distribution_requirements(&self) -> InputDistributionRequirements {
        InputDistributionRequirements::new(vec![Distribution::SinglePartition; self.inputs.len()])
    }

    fn maintains_input_order(&self) -> Vec<bool> {
        vec![false; self.inputs.len()]
    }

    fn benefits_from_input_partitioning(&self) -> Vec<bool> {
        vec![false; self.inputs.len()]
    }

    fn replace_children(
        self: Arc<Self>,
        children: Vec<Arc<dyn ExecutionPlan>>,
        _options: ReplaceChildrenOptions,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        Ok(Arc::new(Self::new(&self.node, children)))
    }

    fn with_new_children(self: Arc<Self>, children: Vec<Arc<dyn ExecutionPlan>>) -> Result<Arc<dyn ExecutionPlan>> {
        Ok(Arc::new(Self::new(&self.node, children)))
    }

    fn execute(&self, partition: usize, context: Arc<TaskContext>) -> Result<SendableRecordBatchStream> {
        let schema = self.schema();
        let failed = Failed::default();
        let names = self.node.named_inputs().map(|(name, _)| name.to_string());
        let streams = names
            .zip(&self.inputs)
            .map(|(name, input)| Ok((name, remembered(input.execute(partition, Arc::clone(&context))?, &failed))))
            .collect::<Result<BTreeMap<_, _>>>()?;
        let parameters = Arc::clone(self.node.parameters());
        let (task, declared) = (self.node.task().to_string(), Arc::clone(&schema));
        let called = match self.node.function().clone() {
            RowsFunction::Stream(function) => {
                let given = async move { function(InputStreams { streams, parameters }).await };
                futures::stream::once(given).try_flatten().boxed()
            }
            RowsFunction::Batches(function) => {
                let reservation = MemoryConsumer::new(format!("function of {task}")).register(context.memory_pool());
                let given = async move {
                    let inputs = collect(streams, parameters, &reservation).await?;
                    // The thread is one of as many as there are jobs; what else waits for it goes on elsewhere.
                    let batches = tokio::task::block_in_place(|| function(&inputs))?;
                    drop(inputs);
                    let mut memory = RecordBatchMemoryCounter::new();
                    for batch in &batches {
                        memory.count_batch(batch);
                    }
                    reservation.try_resize(memory.memory_usage())?;
                    // Held until the last of them is gone.
                    Ok::<_, DataFusionError>(futures::stream::iter(batches).map(move |batch| {
                        let _ = &reservation;
                        Ok(batch)
                    }))
                };
                futures::stream::once(given).try_flatten().boxed()
            }
        };
        let checked = called.map(move |batch| match batch {
            Ok(batch) => as_declared(&task, &declared, batch),
            // What an input failed with, whatever the function makes of it: memory may be had otherwise.
            Err(error) => Err(failed.get().map_or(error, |cause| DataFusionError::Shared(Arc::clone(cause)))),
        });
        Ok(Box::pin(RecordBatchStreamAdapter::new(schema, checked)))
    }
}

/// What an input failed with first, if it did.
type Failed = Arc<OnceLock<Arc<DataFusionError>>>;

/// The same rows; what they end with, if it is an error, is remembered.
fn remembered(stream: SendableRecordBatchStream, failed: &Failed) -> SendableRecordBatchStream {
    let (schema, failed) = (stream.schema(), Arc::clone(failed));
    let rows = stream.map(move |batch| {
        batch.map_err(|error| DataFusionError::Shared(Arc::clone(failed.get_or_init(|| Arc::new(error)))))
    });
    Box::pin(RecordBatchStreamAdapter::new(schema, rows))
}

/// All rows of the inputs, in memory that is reserved for them.
async fn collect(
    streams: BTreeMap<String, SendableRecordBatchStream>,
    parameters: Arc<BTreeMap<String, ScalarValue>>,
    reservation: &MemoryReservation,
) -> Result<InputBatches> {
    let (mut inputs, mut memory) = (BTreeMap::new(), RecordBatchMemoryCounter::new());
    for (name, mut stream) in streams {
        let (schema, mut batches) = (stream.schema(), Vec::new());
        while let Some(batch) = stream.next().await.transpose()? {
            if batch.num_rows() > 0 {
                let batch = RecordBatch::try_new(batch.schema(), batch.columns().iter().map(owned).collect())?;
                // Batches may be slices of one.
                reservation.try_grow(memory.count_batch(&batch))?;
                batches.push(batch);
            }
        }
        inputs.insert(name, (schema, batches));
    }
    Ok(InputBatches { inputs, parameters })
}

/// The same values; views that are kept must not keep whole pages of text of which they show little.
fn owned(column: &ArrayRef) -> ArrayRef {
    match column.data_type() {
        DataType::Utf8View => Arc::new(column.as_string_view().gc()),
        DataType::BinaryView => Arc::new(column.as_binary_view().gc()),
        _ => Arc::clone(column),
    }
}

/// A batch with the columns that the task declares, nullability as declared.
fn as_declared(task: &str, declared: &SchemaRef, batch: RecordBatch) -> Result<RecordBatch> {
    let columns = |schema: &SchemaRef| -> Vec<(String, DataType)> {
        schema.fields().iter().map(|field| (field.name().clone(), field.data_type().clone())).collect()
    };
    let (wanted, given) = (columns(declared), columns(&batch.schema()));
    if wanted != given {
        return exec_err!(
            "the function of `{task}` gives columns {given:?}, and declares {wanted:?}; let them be the same"
        );
    }
    RecordBatch::try_new(Arc::clone(declared), batch.columns().to_vec()).map_err(|e| {
        DataFusionError::from(e).context(format!("the function of `{task}` gives NULL where it declares none"))
    })
}
