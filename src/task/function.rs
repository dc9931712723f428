//! Functions of the user's that queries may call.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::logical_expr::{
    AggregateUDF, Expr, LogicalPlan, ScalarUDF, Volatility, WindowFunctionDefinition, WindowUDF,
};

use crate::error::{Error, ErrorKind, Result};

/// A function that queries of a pipeline, in SQL and in Rust, may call; it is added with
/// [`PipelineBuilder::with`](crate::PipelineBuilder::with).
///
/// What it does can't be seen: so its version is part of what every chunk is named by whose query calls it. It must give
/// equal rows for equal rows, unless it is volatile: then a task that calls it runs again each time. Stable functions are
/// refused. Aggregates are taken to depend on the order of rows where that matters, and their states are stored and merged in
/// any order where a task is done in two phases.
#[derive(Debug, Clone)]
pub struct UserFunction {
    function: Kind,
    version: String,
}

#[derive(Debug, Clone)]
enum Kind {
    Scalar(Arc<ScalarUDF>),
    Aggregate(Arc<AggregateUDF>),
    Window(Arc<WindowUDF>),
}

impl UserFunction {
    /// A function of the values of a row. Change `version` whenever it gives other values.
    pub fn scalar(function: ScalarUDF, version: impl Into<String>) -> Self {
        Self { function: Kind::Scalar(Arc::new(function)), version: version.into() }
    }

    /// A function of groups of rows. Change `version` whenever it gives other values.
    pub fn aggregate(function: AggregateUDF, version: impl Into<String>) -> Self {
        Self { function: Kind::Aggregate(Arc::new(function)), version: version.into() }
    }

    /// A function of rows in a window. Change `version` whenever it gives other values.
    pub fn window(function: WindowUDF, version: impl Into<String>) -> Self {
        Self { function: Kind::Window(Arc::new(function)), version: version.into() }
    }

    /// What queries call it.
    pub fn name(&self) -> &str {
        match &self.function {
            Kind::Scalar(function) => function.name(),
            Kind::Aggregate(function) => function.name(),
            Kind::Window(function) => function.name(),
        }
    }

    fn volatility(&self) -> Volatility {
        match &self.function {
            Kind::Scalar(function) => function.signature().volatility,
            Kind::Aggregate(function) => function.signature().volatility,
            Kind::Window(function) => function.signature().volatility,
        }
    }

    fn aliases(&self) -> &[String] {
        match &self.function {
            Kind::Scalar(function) => function.aliases(),
            Kind::Aggregate(function) => function.aliases(),
            Kind::Window(function) => function.aliases(),
        }
    }
}

/// All functions of a pipeline.
#[derive(Debug, Clone, Default)]
pub struct UserFunctions(BTreeMap<String, UserFunction>);

/// Versions of functions, by name.
pub type Versions = BTreeMap<String, String>;

impl UserFunctions {
    /// Adds one.
    ///
    /// # Errors
    /// [`ErrorKind::Usage`] when there is one of its name, or it is stable.
    pub fn add(&mut self, function: UserFunction) -> Result<()> {
        if function.volatility() == Volatility::Stable {
            // DataFusion computes it of constants while a query is planned, and a task is many queries.
            let name = function.name();
            let message = format!(
                "function `{name}` is stable: it has one value for one query, and a task is run as many; declare it immutable, \
                 and change its version when its values change, or volatile"
            );
            return Err(Error::new(ErrorKind::Usage, message));
        }
        for name in function.aliases().iter().map(String::as_str).chain([function.name()]).collect::<BTreeSet<_>>() {
            if self.0.insert(name.to_string(), function.clone()).is_some() {
                let message = format!("two functions are called `{name}`; rename one of them");
                return Err(Error::new(ErrorKind::Usage, message));
            }
        }
        Ok(())
    }

    /// What they are called.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.0.keys().map(String::as_str)
    }

    /// A function of a row's values.
    pub fn scalar(&self, name: &str) -> Option<&Arc<ScalarUDF>> {
        match &self.0.get(name)?.function {
            Kind::Scalar(function) => Some(function),
            Kind::Aggregate(_) | Kind::Window(_) => None,
        }
    }

    /// A function of groups.
    pub fn aggregate(&self, name: &str) -> Option<&Arc<AggregateUDF>> {
        match &self.0.get(name)?.function {
            Kind::Aggregate(function) => Some(function),
            Kind::Scalar(_) | Kind::Window(_) => None,
        }
    }

    /// A function of windows.
    pub fn window(&self, name: &str) -> Option<&Arc<WindowUDF>> {
        match &self.0.get(name)?.function {
            Kind::Window(function) => Some(function),
            Kind::Scalar(_) | Kind::Aggregate(_) => None,
        }
    }

    /// Versions of all, by name.
    pub fn versions(&self) -> Versions {
        self.0.values().map(|function| (function.name().to_string(), function.version.clone())).collect()
    }
}

/// Those of these functions that a plan calls.
pub fn called_in_plan(plan: &LogicalPlan, versions: &Versions) -> Versions {
    let mut called = Versions::new();
    if !versions.is_empty() {
        // The closures never fail.
        let _ = plan.apply_with_subqueries(|node| {
            let _ = node.apply_expressions(|expr| {
                called.extend(called_in(expr, versions));
                Ok(TreeNodeRecursion::Continue)
            });
            Ok(TreeNodeRecursion::Continue)
        });
    }
    called
}

/// Those of these functions that an expression calls, subqueries aside.
pub fn called_in(expr: &Expr, versions: &Versions) -> Versions {
    let mut called = Versions::new();
    // The closure never fails.
    let _ = expr.apply(|part| {
        let name = match part {
            Expr::ScalarFunction(f) => f.func.name(),
            Expr::AggregateFunction(f) => f.func.name(),
            Expr::WindowFunction(f) => match &f.fun {
                WindowFunctionDefinition::AggregateUDF(f) => f.name(),
                WindowFunctionDefinition::WindowUDF(f) => f.name(),
            },
            _ => return Ok(TreeNodeRecursion::Continue),
        };
        called.extend(versions.get_key_value(name).map(|(name, version)| (name.clone(), version.clone())));
        Ok(TreeNodeRecursion::Continue)
    });
    called
}
