//! Keeping what this process knows to itself.

use std::sync::OnceLock;

use rustix::process::{DumpableBehavior, Resource, Rlimit, getrlimit, set_dumpable_behavior, setrlimit};

/// The limit on core dumps that we were started with.
static CORE_LIMIT: OnceLock<Rlimit> = OnceLock::new();

/// Keeps other processes of this user, and core dumps, away from the memory and environment of this process
/// (`PR_SET_DUMPABLE`, `RLIMIT_CORE`). Its children are not affected: they get the limit that we were started with.
pub fn keep_memory_private() {
    // An old kernel may refuse either; everything else works as well without it.
    let _ = set_dumpable_behavior(DumpableBehavior::NotDumpable);
    let before = *CORE_LIMIT.get_or_init(|| getrlimit(Resource::Core));
    // The upper limit stays, or nobody could give the children theirs back.
    let none = Rlimit {
        current: Some(0),
        ..before
    };
    let _ = setrlimit(Resource::Core, none);
}

/// The limit that a child is to have, where ours is another.
pub(super) fn core_limit_of_others() -> Option<Rlimit> {
    CORE_LIMIT.get().copied()
}
