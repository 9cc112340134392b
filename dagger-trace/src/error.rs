//! What can go wrong with files and patterns.

use std::path::{Path, PathBuf};

/// Why a trace could not be written, read, or looked at as asked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TraceError {
    /// The operating system refuses: check the path and its permissions.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What it says.
        source: std::io::Error,
    },
    /// These are not the bytes of a trace, or not all of them, or those of a newer version. Nothing was read.
    #[error("not a trace that can be read: at byte {offset}, {what}")]
    BadFile {
        /// Where in the file.
        offset: u64,
        /// What is wrong there.
        what: String,
    },
    /// The suffix of the path says which format to write: use one of those that are supported.
    #[error("{}: unknown suffix; supported: {supported}", path.display())]
    UnknownSuffix {
        /// The file.
        path: PathBuf,
        /// The suffixes that are supported, such as `.svg, .dot`.
        supported: &'static str,
    },
    /// The picture could not be turned into pixels or a page: take `.svg` instead, and report it.
    #[error("{}: cannot be drawn: {what}", path.display())]
    Undrawn {
        /// The file.
        path: PathBuf,
        /// What went wrong.
        what: String,
    },
    /// The pattern of a category is no regular expression: mend it where `what` points.
    #[error("the pattern {pattern:?} of {label}: {what}")]
    BadPattern {
        /// The category.
        label: String,
        /// Its pattern.
        pattern: String,
        /// What is wrong with it.
        what: String,
    },
}

impl TraceError {
    /// The error of an operation on this file.
    pub(crate) fn io(path: &Path) -> impl FnOnce(std::io::Error) -> TraceError {
        move |source| TraceError::Io { path: path.to_owned(), source }
    }
}
