//! The DAG of tasks: names resolved, cycles refused, an order in which every task comes after what it reads.

use std::collections::{BTreeMap, BTreeSet};

use crate::error::{Error, ErrorKind, Result};
use crate::hook::UserSource;
use crate::task::function::{UserFunction, UserFunctions};
use crate::task::source::Source;
use crate::task::{TableRead, Task, Tasks, View};

/// Sources, views and tasks whose names are distinct, known and free of cycles.
#[derive(Debug, Clone, Default)]
pub struct Pipeline {
    sources: BTreeMap<String, Source>,
    views: BTreeMap<String, View>,
    tasks: BTreeMap<String, Task>,
    order: Vec<String>,
    functions: UserFunctions,
    user_sources: BTreeMap<String, UserSource>,
}

/// Something a pipeline is made of, before its names are checked.
#[derive(Debug, Clone)]
pub enum Item {
    /// Files.
    Source(Source),
    /// An inlined query.
    View(View),
    /// A stored query.
    Task(Box<Task>),
    /// What queries may call.
    Function(UserFunction),
    /// Rows that a hook gives.
    UserSource(UserSource),
}

/// Sources, views and tasks whose names are not resolved yet; see [`sql::definitions`](crate::sql::definitions).
#[derive(Debug, Clone, Default)]
pub struct Definitions(pub(crate) Vec<Item>);

impl From<Task> for Definitions {
    fn from(task: Task) -> Self {
        Self(vec![Item::Task(Box::new(task))])
    }
}

impl From<Tasks> for Definitions {
    fn from(tasks: Tasks) -> Self {
        Self(tasks.0.into_iter().map(Box::new).map(Item::Task).collect())
    }
}

impl From<UserSource> for Definitions {
    fn from(source: UserSource) -> Self {
        Self(vec![Item::UserSource(source)])
    }
}

impl From<UserFunction> for Definitions {
    fn from(function: UserFunction) -> Self {
        Self(vec![Item::Function(function)])
    }
}

/// Puts a pipeline together from SQL and Rust.
#[derive(Debug, Clone, Default)]
pub struct PipelineBuilder(Vec<Item>);

impl PipelineBuilder {
    /// Adds a task, a source, a function, or what SQL defines, in any order.
    pub fn with(mut self, definitions: impl Into<Definitions>) -> Self {
        self.0.extend(definitions.into().0);
        self
    }

    /// The pipeline.
    ///
    /// # Errors
    /// [`ErrorKind::Sql`] with the place: a name defined twice, a table that nothing defines, a cycle, also one of stages, a task
    /// or stage whose name can be no folder's. [`ErrorKind::Usage`]: two functions of one name.
    pub fn build(self) -> Result<Pipeline> {
        Pipeline::new(self.0)
    }
}

impl Pipeline {
    /// Puts one together.
    pub fn builder() -> PipelineBuilder {
        PipelineBuilder::default()
    }

    /// Checks the names of `items`, in any order, and sorts the tasks.
    ///
    /// # Errors
    /// [`ErrorKind::Sql`] with the place: a name defined twice, a table that nothing defines, a cycle, a name that is no
    /// folder's.
    pub(crate) fn new(items: impl IntoIterator<Item = Item>) -> Result<Self> {
        let mut pipeline = Self::default();
        let mut defined = BTreeMap::new();
        for item in items {
            let (name, location) = match &item {
                Item::Source(s) => (s.name.clone(), s.location.clone()),
                Item::View(v) => (v.name.clone(), v.location.clone()),
                Item::Task(t) => (t.name.clone(), t.location.clone()),
                Item::UserSource(s) => (s.name.clone(), s.location.clone()),
                Item::Function(function) => {
                    pipeline.functions.add(function.clone())?;
                    continue;
                }
            };
            if name.contains('#') {
                let message = format!("`{name}` has a `#`, which stands in the names of steps; rename it");
                return Err(Error::new(ErrorKind::Sql, message).with_location(location));
            }
            if let Some(first) = defined.insert(name.clone(), location.clone()) {
                let message = format!("`{name}` is defined twice, first at {first}; rename one of them");
                return Err(Error::new(ErrorKind::Sql, message).with_location(location));
            }
            match item {
                Item::Source(s) => drop(pipeline.sources.insert(name, s)),
                Item::View(v) => drop(pipeline.views.insert(name, v)),
                Item::Task(t) => drop(pipeline.tasks.insert(name, *t)),
                Item::UserSource(s) => drop(pipeline.user_sources.insert(name, s)),
                Item::Function(_) => {}
            }
        }
        pipeline.check_folders()?;
        pipeline.check_names(&defined.into_keys().collect())?;
        pipeline.order = pipeline.sorted()?;
        pipeline.check_stages()?;
        Ok(pipeline)
    }

    /// The same pipeline with what `change` makes of one of its tasks, such as one of SQL with hooks. Its name and what it reads stay
    /// what they are.
    ///
    /// # Errors
    /// [`ErrorKind::Usage`] when there is no such task, or it comes back with another name or other inputs; [`ErrorKind::Sql`] when
    /// its stage can't be.
    pub fn configure(mut self, task: &str, change: impl FnOnce(Task) -> Task) -> Result<Self> {
        match self.tasks.get_mut(task) {
            Some(found) => {
                let changed = change(found.clone());
                if changed.name != found.name || changed.reads != found.reads {
                    let message =
                        format!("task `{task}` can't get another name or other inputs; build another pipeline");
                    return Err(Error::new(ErrorKind::Usage, message));
                }
                *found = changed;
                self.check_folders()?;
                self.check_stages()?;
                Ok(self)
            }
            None => {
                let message = format!("there is no task `{task}`; the tasks are: {}", self.order.join(", "));
                Err(Error::new(ErrorKind::Usage, message))
            }
        }
    }

    /// The tasks, each after those it reads.
    pub fn tasks(&self) -> impl Iterator<Item = &Task> {
        self.order.iter().filter_map(|name| self.tasks.get(name))
    }

    /// One task by name.
    pub fn task(&self, name: &str) -> Option<&Task> {
        self.tasks.get(name)
    }

    /// One source by name.
    pub fn source(&self, name: &str) -> Option<&Source> {
        self.sources.get(name)
    }

    /// One source of a hook by name.
    pub(crate) fn user_source(&self, name: &str) -> Option<&UserSource> {
        self.user_sources.get(name)
    }

    /// One view by name.
    pub fn view(&self, name: &str) -> Option<&View> {
        self.views.get(name)
    }

    /// Functions that queries may call.
    pub(crate) fn functions(&self) -> &UserFunctions {
        &self.functions
    }

    /// Names of the sources and tasks that `task` reads, directly or through views.
    pub fn inputs(&self, task: &Task) -> BTreeSet<String> {
        let mut inputs = BTreeSet::new();
        let mut inlined = BTreeSet::new();
        let mut pending: Vec<&TableRead> = task.reads.iter().collect();
        while let Some(read) = pending.pop() {
            match self.views.get(&read.name) {
                Some(view) if inlined.insert(&view.name) => pending.extend(&view.reads),
                Some(_) => {}
                None => drop(inputs.insert(read.name.clone())),
            }
        }
        inputs
    }

    /// Names of the tasks of a stage, sorted.
    pub fn stage(&self, stage: &str) -> Vec<&str> {
        let of_stage = self.tasks.values().filter(|task| task.stage.as_deref() == Some(stage));
        of_stage.map(|task| task.name.as_str()).collect()
    }

    /// The tasks that `target` means: the one of this name, or all of the stage of this name.
    pub(crate) fn targets(&self, target: &str) -> Vec<&str> {
        self.tasks.get(target).map_or_else(|| self.stage(target), |task| vec![task.name.as_str()])
    }

    /// The part that `targets`, tasks and stages, need: themselves, all tasks that they read, directly or not, and all tasks of
    /// the stages of these.
    ///
    /// # Errors
    /// [`ErrorKind::Usage`] when a target is neither a task nor a stage.
    pub fn select(&self, targets: &[String]) -> Result<Self> {
        let mut needed = BTreeSet::new();
        let mut pending = Vec::new();
        for target in targets {
            let tasks = self.targets(target);
            if tasks.is_empty() {
                let stages: BTreeSet<&str> = self.tasks.values().filter_map(|task| task.stage.as_deref()).collect();
                let mut known = self.order.join(", ");
                if !stages.is_empty() {
                    known += "; the stages are: ";
                    known += &stages.into_iter().collect::<Vec<_>>().join(", ");
                }
                let message = format!("there is no task `{target}`; the tasks are: {known}");
                return Err(Error::new(ErrorKind::Usage, message));
            }
            pending.extend(tasks.into_iter().map(str::to_string));
        }
        while let Some(name) = pending.pop() {
            let Some(task) = self.tasks.get(&name) else { continue };
            if needed.insert(name) {
                pending.extend(self.inputs(task));
                pending.extend(task.stage.iter().flat_map(|stage| self.stage(stage)).map(str::to_string));
            }
        }
        Ok(Self {
            sources: self.sources.clone(),
            views: self.views.clone(),
            tasks: self
                .tasks
                .iter()
                .filter(|(n, _)| needed.contains(*n))
                .map(|(n, t)| (n.clone(), t.clone()))
                .collect(),
            order: self.order.iter().filter(|n| needed.contains(*n)).cloned().collect(),
            functions: self.functions.clone(),
            user_sources: self.user_sources.clone(),
        })
    }

    fn reads(&self, name: &str) -> Option<&BTreeSet<TableRead>> {
        self.tasks.get(name).map(|t| &t.reads).or_else(|| self.views.get(name).map(|v| &v.reads))
    }

    fn check_names(&self, defined: &BTreeSet<String>) -> Result<()> {
        let readers = self.tasks.values().map(|t| &t.reads).chain(self.views.values().map(|v| &v.reads));
        for read in readers.flatten() {
            if !defined.contains(&read.name) {
                let message = format!(
                    "unknown table `{}`; define it with CREATE EXTERNAL TABLE, CREATE TABLE … AS or CREATE VIEW{}",
                    read.name,
                    similar(&read.name, defined)
                );
                return Err(Error::new(ErrorKind::Sql, message).with_location(read.location.clone()));
            }
        }
        Ok(())
    }

    /// Names of tasks and of stages are names of folders; on some disks `Orders` and `orders` are one.
    fn check_folders(&self) -> Result<()> {
        let (mut tasks, mut stages) = (BTreeMap::new(), BTreeMap::new());
        for task in self.tasks.values() {
            let stage = task.stage.as_ref().map(|stage| ("stage", stage, &mut stages));
            for (what, name, others) in [("task", &task.name, &mut tasks)].into_iter().chain(stage) {
                let other = others.entry(name.to_ascii_lowercase()).or_insert(name);
                let message = if !is_folder(name) {
                    format!("`{name}` is also the name of a folder; use {FOLDER_CHARACTERS} only")
                } else if name.len() > LONGEST_NAME {
                    format!("`{name}` is also the name of a folder; use at most {LONGEST_NAME} characters")
                } else if *other != name {
                    format!(
                        "the {what}s `{other}` and `{name}` are one folder on disks that don't tell case; rename one"
                    )
                } else {
                    continue;
                };
                return Err(Error::new(ErrorKind::Sql, message).with_location(task.location.clone()));
            }
        }
        Ok(())
    }

    /// Refuses stages that wait for each other: what reads a table of a stage from outside waits for all of its tasks.
    fn check_stages(&self) -> Result<()> {
        let is_other = |stage: &String| self.tasks.get(stage).is_some_and(|other| other.stage.as_ref() != Some(stage));
        if let Some((task, stage)) =
            self.tasks().find_map(|task| Some((task, task.stage.as_ref().filter(|s| is_other(s))?)))
        {
            let message = format!("stage `{stage}` has the name of a task that is not of it; rename one of them");
            return Err(Error::new(ErrorKind::Sql, message).with_location(task.location.clone()));
        }
        let mut left: BTreeMap<Unit<'_>, Vec<Reading<'_>>> = BTreeMap::new();
        for task in self.tasks() {
            let inputs = self.inputs(task).into_iter().filter_map(|name| self.tasks.get(&name));
            let readings = inputs.filter(|input| Unit::of(input) != Unit::of(task)).map(|input| (task, input));
            left.entry(Unit::of(task)).or_default().extend(readings);
        }
        loop {
            let waits = |readings: &[Reading<'_>]| readings.iter().any(|(_, read)| left.contains_key(&Unit::of(read)));
            let ready: Vec<_> = left.iter().filter(|(_, on)| !waits(on)).map(|(unit, _)| *unit).collect();
            if ready.is_empty() {
                break;
            }
            ready.iter().for_each(|unit| drop(left.remove(unit)));
        }
        // Each that is left waits for another: following them comes back to one.
        let mut path: Vec<Reading<'_>> = Vec::new();
        let mut at = left.keys().next();
        while let Some(unit) = at {
            if let Some(start) = path.iter().position(|(reader, _)| Unit::of(reader) == *unit) {
                return Err(cycle_of_stages(&path[start..]));
            }
            let next = left.get(unit).into_iter().flatten().find(|(_, read)| left.contains_key(&Unit::of(read)));
            path.extend(next);
            at = next.and_then(|(_, read)| left.get_key_value(&Unit::of(read))).map(|(unit, _)| unit);
        }
        Ok(())
    }

    /// Depth-first topological order over tasks and views; only tasks are kept.
    fn sorted(&self) -> Result<Vec<String>> {
        let mut order = Vec::new();
        let mut done = BTreeSet::new();
        for root in self.tasks.keys().chain(self.views.keys()) {
            let mut path: Vec<(&str, Vec<&TableRead>)> = Vec::new();
            if done.insert(root.as_str()) {
                path.push((root, self.reads(root).into_iter().flatten().collect()));
            }
            while let Some((name, unread)) = path.last_mut() {
                let name = *name;
                let Some(read) = unread.pop() else {
                    path.pop();
                    if self.tasks.contains_key(name) {
                        order.push(name.to_string());
                    }
                    continue;
                };
                if let Some(start) = path.iter().position(|(on_path, _)| *on_path == read.name) {
                    let cycle: Vec<_> = path[start..].iter().map(|(n, _)| *n).chain([read.name.as_str()]).collect();
                    let message = format!("these read each other in a cycle: {}; break it", cycle.join(" → "));
                    return Err(Error::new(ErrorKind::Sql, message).with_location(read.location.clone()));
                }
                if done.insert(&read.name) {
                    path.push((&read.name, self.reads(&read.name).into_iter().flatten().collect()));
                }
            }
        }
        Ok(order)
    }
}

/// What is published at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Unit<'a> {
    Task(&'a str),
    Stage(&'a str),
}

impl<'a> Unit<'a> {
    fn of(task: &'a Task) -> Self {
        task.stage.as_deref().map_or(Self::Task(&task.name), Self::Stage)
    }
}

/// A task and one that it reads.
type Reading<'a> = (&'a Task, &'a Task);

/// Says how these readings lead from unit to unit, back to where the first began.
fn cycle_of_stages(readings: &[Reading<'_>]) -> Error {
    let told = |task: &Task| match &task.stage {
        Some(stage) => format!("`{}` of stage `{stage}`", task.name),
        None => format!("`{}`", task.name),
    };
    let cycle: Vec<_> =
        readings.iter().map(|(reader, read)| format!("{} reads {}", told(reader), told(read))).collect();
    let tasks = || readings.iter().flat_map(|(reader, read)| [reader, read]);
    let stage = tasks().find_map(|task| task.stage.as_deref()).unwrap_or_default();
    let between: BTreeSet<_> =
        tasks().filter(|task| task.stage.as_deref() != Some(stage)).map(|task| format!("`{}`", task.name)).collect();
    let between = between.into_iter().collect::<Vec<_>>().join(", ");
    let message = format!(
        "a stage is read from outside only when all of it is published, but {}; put {between} into stage `{stage}`, too",
        cycle.join(", and ")
    );
    let error = Error::new(ErrorKind::Sql, message);
    match readings.first() {
        Some((reader, _)) => error.with_location(reader.location.clone()),
        None => error,
    }
}

/// Most characters of the name of a task or stage: file systems take 255, and other files are named after them.
const LONGEST_NAME: usize = 200;

/// What the names of tasks and stages are made of.
pub const FOLDER_CHARACTERS: &str = "ASCII letters, digits, `_` and `-`";

/// Whether a task or stage may have this name.
pub fn is_folder(name: &str) -> bool {
    !name.is_empty() && name.chars().all(is_of_folder)
}

/// Whether the name of a task or stage may have this character.
pub fn is_of_folder(c: char) -> bool {
    c.is_ascii_alphanumeric() || c == '_' || c == '-'
}

/// " (did you mean `x`?)" when a defined name differs from `name` by at most two edits.
fn similar(name: &str, defined: &BTreeSet<String>) -> String {
    let best = defined.iter().map(|d| (datafusion::common::utils::datafusion_strsim::levenshtein(name, d), d)).min();
    match best {
        Some((distance, other)) if distance <= 2 => format!(" (did you mean `{other}`?)"),
        _ => String::new(),
    }
}
