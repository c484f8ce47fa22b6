//! Builds with a script in the executor's place, which ends in every way that the real one was seen to end in; and, where
//! `TOWPATH_KANIKO` names one, with the real one through the same ends.

// Helpers outside of #[test] functions are tests all the same.
#![allow(clippy::unwrap_used, clippy::disallowed_methods)]

mod authority;
mod bases;
mod ends;
mod job;
mod own_folder;
mod platforms;
mod real;
mod secrets;
mod tags;
mod workshop;
