//! The options of one task, as data: what was said, and how inner options win over outer ones.
//!
//! ```text
//!   spawn!(..; name = "x")   ─┐ inner
//!   with_options(o, ..)      ─┤ merge(inner, merge(.., outer))   ──▶   one OptionSet
//!   with_options(p, ..)      ─┘ outer
//! ```
//! 1. `None` means *not said*, never *off*: merging fills exactly the fields that are `None`.
//! 2. `merge` is associative, and `OptionSet::new()` is its identity on both sides.
//!
//! It holds no handles: tokens, syncdeps and futures belong to the runtime.

use std::fmt;
use std::ops::Deref;
use std::sync::Arc;
use std::time::Duration;

use crate::Scope;

/// What a task was given; each field is `None` until somebody says it.
///
/// ```
/// use dagger_core::{OptionSet, Scope};
///
/// let mut outer = OptionSet::new();
/// outer.name = Some("outer".into());
/// outer.priority = Some(1);
/// let mut inner = OptionSet::new();
/// inner.name = Some("inner".into());
/// let both = OptionSet::merge(&inner, &outer);
/// assert_eq!((both.name.as_deref(), both.priority), (Some("inner"), Some(1)));
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct OptionSet {
    /// What the task is called in errors and pictures; by default the callee as written.
    pub name: Option<TaskName>,
    /// Where the task may run; by default any CPU thread ([`Scope::default`]).
    pub scope: Option<Scope>,
    /// Where the result may live; by default anywhere ([`Scope::any`]).
    pub result_scope: Option<Scope>,
    /// Which ready task goes first: the larger; by default 0.
    pub priority: Option<i32>,
    /// Which ready task of one priority goes first: the larger; by default 0.
    pub rank: Option<u8>,
    /// How long the task may take from its first start, suspensions and retries included; by default for ever.
    pub timeout: Option<Duration>,
    /// Whether the body may block its thread, so that it must not run on a pinned worker; by default not.
    pub blocking: Option<bool>,
    /// Bytes of memory that the task needs while it runs, beside the chunks that it accesses; by default 0.
    pub memory: Option<u64>,
}

/// The name of a task: text that is there for ever, which nothing has to count, or shared text.
///
/// ```
/// use dagger_core::TaskName;
///
/// const NAME: TaskName = TaskName::Static("assemble");
/// assert_eq!(NAME, TaskName::from("assemble"));
/// assert_eq!(&*TaskName::from(format!("assemble {}", 2)), "assemble 2");
/// ```
#[derive(Clone)]
pub enum TaskName {
    /// Of the program itself.
    Static(&'static str),
    /// Made while it runs.
    Shared(Arc<str>),
}

impl Deref for TaskName {
    type Target = str;
    fn deref(&self) -> &str {
        match self {
            TaskName::Static(name) => name,
            TaskName::Shared(name) => name,
        }
    }
}

impl<T: Into<Arc<str>>> From<T> for TaskName {
    fn from(name: T) -> TaskName {
        TaskName::Shared(name.into())
    }
}

impl PartialEq for TaskName {
    fn eq(&self, other: &TaskName) -> bool {
        **self == **other
    }
}

impl Eq for TaskName {}

impl fmt::Debug for TaskName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&**self, f)
    }
}

impl OptionSet {
    /// Options of which none is said.
    #[must_use]
    pub fn new() -> OptionSet {
        OptionSet::default()
    }

    /// What `inner` says, and for what it leaves open, what `outer` says.
    #[must_use]
    pub fn merge(inner: &OptionSet, outer: &OptionSet) -> OptionSet {
        fn first<T: Clone>(inner: &Option<T>, outer: &Option<T>) -> Option<T> {
            inner.as_ref().or(outer.as_ref()).cloned()
        }
        OptionSet {
            name: first(&inner.name, &outer.name),
            scope: first(&inner.scope, &outer.scope),
            result_scope: first(&inner.result_scope, &outer.result_scope),
            priority: first(&inner.priority, &outer.priority),
            rank: first(&inner.rank, &outer.rank),
            timeout: first(&inner.timeout, &outer.timeout),
            blocking: first(&inner.blocking, &outer.blocking),
            memory: first(&inner.memory, &outer.memory),
        }
    }

    /// Where the task may run so that its result is where it may live: `scope` (else [`Scope::default`]) `&`
    /// `result_scope` (else [`Scope::any`]).
    ///
    /// The default scope is CPU threads, so a `result_scope` that names only a GPU leaves nothing unless `scope`
    /// names that GPU too: a task never runs on a GPU that its `scope` did not name.
    ///
    /// ```
    /// use dagger_core::{OptionSet, Scope};
    ///
    /// let mut options = OptionSet::new();
    /// options.result_scope = Some(Scope::cuda_gpu(0));
    /// assert!(options.execution_scope().is_empty());
    /// options.scope = Some(Scope::any());
    /// assert_eq!(options.execution_scope(), Scope::cuda_gpu(0));
    /// ```
    #[must_use]
    pub fn execution_scope(&self) -> Scope {
        let scope = self.scope.clone().unwrap_or_default();
        match &self.result_scope {
            Some(result_scope) => scope & result_scope.clone(),
            None => scope,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::option;
    use proptest::prelude::*;

    use super::*;

    fn options() -> impl Strategy<Value = OptionSet> {
        let scopes = || {
            option::of(prop_oneof![
                Just(Scope::any()),
                (0usize..3).prop_map(Scope::thread),
                (0usize..3).prop_map(Scope::cuda_gpu),
            ])
        };
        let names = option::of((0u8..4).prop_map(|n| TaskName::from(n.to_string())));
        let rest = (
            (option::of(0i32..3), option::of(0u8..3)),
            option::of((0u64..3).prop_map(Duration::from_secs)),
            option::of(any::<bool>()),
            option::of(0u64..3),
        );
        (names, scopes(), scopes(), rest).prop_map(
            |(name, scope, result_scope, ((priority, rank), timeout, blocking, memory))| OptionSet {
                name,
                scope,
                result_scope,
                priority,
                rank,
                timeout,
                blocking,
                memory,
            },
        )
    }

    proptest! {
        #[test]
        fn merge_is_associative(a in options(), b in options(), c in options()) {
            let left = OptionSet::merge(&OptionSet::merge(&a, &b), &c);
            let right = OptionSet::merge(&a, &OptionSet::merge(&b, &c));
            prop_assert_eq!(left, right);
        }

        #[test]
        fn saying_nothing_is_the_identity(a in options()) {
            prop_assert_eq!(&OptionSet::merge(&a, &OptionSet::new()), &a);
            prop_assert_eq!(&OptionSet::merge(&OptionSet::new(), &a), &a);
        }

        #[test]
        fn inner_wins_field_by_field(inner in options(), outer in options()) {
            let both = OptionSet::merge(&inner, &outer);
            prop_assert_eq!(&both.name, if inner.name.is_some() { &inner.name } else { &outer.name });
            prop_assert_eq!(&both.scope, if inner.scope.is_some() { &inner.scope } else { &outer.scope });
            let expected = if inner.result_scope.is_some() { &inner.result_scope } else { &outer.result_scope };
            prop_assert_eq!(&both.result_scope, expected);
            prop_assert_eq!(both.priority, inner.priority.or(outer.priority));
            prop_assert_eq!(both.rank, inner.rank.or(outer.rank));
            prop_assert_eq!(both.timeout, inner.timeout.or(outer.timeout));
            prop_assert_eq!(both.blocking, inner.blocking.or(outer.blocking));
        }

        #[test]
        fn execution_scope_lies_in_both_scopes(a in options()) {
            let scope = a.execution_scope();
            prop_assert!(scope.is_subset(&a.scope.unwrap_or_default()));
            prop_assert!(scope.is_subset(&a.result_scope.unwrap_or_else(Scope::any)));
        }
    }

    #[test]
    fn saying_nothing_runs_on_cpu_threads() {
        assert_eq!(OptionSet::new().execution_scope(), Scope::default());
    }
}
