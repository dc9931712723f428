//! What every hook is told.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use datafusion::common::ScalarValue;

use crate::error::{Error, Result};
use crate::task::{Task, TaskOptions};

/// What a hook is told of the task that it works for. Clones are of one context.
#[derive(Debug, Clone)]
pub struct HookContext(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    task: String,
    keys: Vec<String>,
    chunks: u32,
    options: TaskOptions,
    parameters: BTreeMap<String, ScalarValue>,
    temp: HookFolder,
}

impl HookContext {
    /// Of a task that is cut so; `folder` is its folder, made when somebody asks for it.
    pub(crate) fn new(task: &Task, keys: &[String], chunks: u32, folder: PathBuf) -> Self {
        Self(Arc::new(Inner {
            task: task.name.clone(),
            keys: keys.to_vec(),
            chunks,
            options: task.options.clone(),
            parameters: task.parameters.clone(),
            temp: HookFolder { path: folder, is_made: Mutex::new(false) },
        }))
    }

    /// Name of the task.
    pub fn task(&self) -> &str {
        &self.0.task
    }

    /// Its keys; empty when it runs whole.
    pub fn keys(&self) -> &[String] {
        &self.0.keys
    }

    /// Its number of chunks, at least 1.
    pub fn chunks(&self) -> u32 {
        self.0.chunks
    }

    /// How its files are written.
    pub fn options(&self) -> &TaskOptions {
        &self.0.options
    }

    /// The value of a parameter of the task.
    pub fn parameter(&self, name: &str) -> Option<&ScalarValue> {
        self.0.parameters.get(name)
    }

    /// A folder for this run of the task alone, empty at first and on the cache's disk. It is removed with all that is in it
    /// when the task is done, has failed or was dropped, or by the next run on the cache if the process dies.
    ///
    /// # Errors
    /// [`ErrorKind::Storage`](crate::ErrorKind::Storage) when it can't be made.
    pub fn temp_folder(&self) -> Result<&Path> {
        self.0.temp.path()
    }
}

#[derive(Debug)]
struct HookFolder {
    path: PathBuf,
    is_made: Mutex<bool>,
}

impl HookFolder {
    fn path(&self) -> Result<&Path> {
        let mut is_made = self.is_made.lock().unwrap_or_else(PoisonError::into_inner);
        if !*is_made {
            // Not the folders above: they are gone when the engine is.
            fs::create_dir(&self.path).map_err(|cause| Error::storage("create", &self.path, cause))?;
            *is_made = true;
        }
        Ok(&self.path)
    }
}

impl Drop for HookFolder {
    fn drop(&mut self) {
        if *self.is_made.get_mut().unwrap_or_else(PoisonError::into_inner) {
            // What is left goes with the process's own folder.
            let _ = fs::remove_dir_all(&self.path);
        }
    }
}
