//! What is wrong with a configuration, said so that it can be put right.

use std::{fmt, sync::Arc};

/// After so many mistakes the rest is not worth reading.
pub(super) const MAX_PROBLEMS: usize = 64;

/// Where a value stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// In the file.
    File {
        /// Name of the file as it was given.
        file: Arc<str>,
        /// Line from 1.
        line: usize,
    },
    /// In the environment.
    Environment {
        /// Name of the variable.
        variable: String,
    },
    /// Nowhere: a default, or missing. Holds the file's name, if there is a file.
    Absent {
        /// Name of the file as it was given.
        file: Option<Arc<str>>,
    },
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File { file, line } => write!(f, "{file}:{line}"),
            Self::Environment { variable } => write!(f, "environment variable {variable}"),
            Self::Absent { file: Some(file) } => f.write_str(file),
            Self::Absent { file: None } => f.write_str("configuration"),
        }
    }
}

/// One mistake, or one doubtful setting.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// Where the value stands.
    pub origin: Origin,
    /// Key with its path, such as `group.web.slot[0].vips[1]`; empty when the file as a whole is meant.
    pub key: String,
    /// The value as written, shortened, secrets hidden; the default with a note if it was not written.
    pub value: Option<String>,
    /// What would be right, and why.
    pub message: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ", self.origin)?;
        if !self.key.is_empty() {
            f.write_str(&self.key)?;
            if let Some(value) = &self.value {
                write!(f, " = {value}")?;
            }
            f.write_str(": ")?;
        }
        f.write_str(&self.message)
    }
}

/// Every mistake that was found; the service must not start.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigErrors(pub Vec<Problem>);

impl fmt::Display for ConfigErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, problem) in self.0.iter().enumerate() {
            if index > 0 {
                f.write_str("\n")?;
            }
            problem.fmt(f)?;
        }
        Ok(())
    }
}

impl std::error::Error for ConfigErrors {}

/// What an examination found.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Report {
    /// Mistakes: no service starts with them.
    pub errors: Vec<Problem>,
    /// Settings that work but cost something.
    pub warnings: Vec<Problem>,
}
