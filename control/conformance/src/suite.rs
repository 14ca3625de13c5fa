//! Which traces to replay: a directory of them, or a list of names.

use std::path::{Path, PathBuf};

/// Why there is nothing to replay.
#[derive(Debug, thiserror::Error)]
pub enum SuiteError {
    /// The directory or list cannot be read.
    #[error("{path}: {source}")]
    Unreadable {
        /// Which.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// No traces there.
    #[error("{0}: no traces (*.json) there")]
    Empty(PathBuf),
}

/// The name of a trace's file, without `.json`.
pub fn name(path: &Path) -> String {
    path.file_stem()
        .unwrap_or_default()
        .to_string_lossy()
        .into_owned()
}

/// All traces of a directory, by name.
pub fn traces(dir: &Path) -> Result<Vec<PathBuf>, SuiteError> {
    let unreadable = |source| SuiteError::Unreadable {
        path: dir.to_owned(),
        source,
    };
    let entries = std::fs::read_dir(dir).map_err(unreadable)?;
    let mut paths = Vec::new();
    for entry in entries {
        let path = entry.map_err(unreadable)?.path();
        if path
            .extension()
            .is_some_and(|extension| extension == "json")
        {
            paths.push(path);
        }
    }
    if paths.is_empty() {
        return Err(SuiteError::Empty(dir.to_owned()));
    }
    paths.sort();
    Ok(paths)
}

/// The names in a list: one a line, `#` begins a comment.
pub fn list(path: &Path) -> Result<Vec<String>, SuiteError> {
    let text = std::fs::read_to_string(path).map_err(|source| SuiteError::Unreadable {
        path: path.to_owned(),
        source,
    })?;
    let names = text
        .lines()
        .map(|line| line.split('#').next().unwrap_or_default().trim());
    Ok(names
        .filter(|name| !name.is_empty())
        .map(str::to_owned)
        .collect())
}
