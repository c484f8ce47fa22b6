//! Every error a user can see, and the one table of exit codes.
//!
//! A [`Failure`] says what went wrong with which object (a lowercase fragment without a final dot), what to do next
//! (the hint), and of which [`Kind`] it is. The kind alone decides the exit code, so a template can retry on 7 and
//! nothing else. Classify by type and status where the failure arises; no code reads the text of an error later.

use std::error::Error;
use std::fmt;

/// What went wrong, as a caller can act on it. The number is the process exit code.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Kind {
    /// A defect of Towpath itself, or of the machine under it.
    Internal = 1,
    /// The command line or an environment variable is wrong. The same code that clap uses.
    Usage = 2,
    /// A document that was read (YAML, JSON, Dockerfile, journal) is malformed or has the wrong type.
    Input = 3,
    /// Refused: a guard, a policy, missing permission or failed authentication.
    Denied = 4,
    /// The thing asked for is not there.
    NotFound = 5,
    /// It is there and differs from what was expected: a moved tag, a lost race, a newer deployment.
    Conflict = 6,
    /// The other side cannot answer now. The only kind that a rerun may mend by itself.
    Unavailable = 7,
    /// The thing that was waited for or run came to a bad end.
    Unsuccessful = 8,
    /// The deadline passed, or a person has to act first.
    Deadline = 9,
}

/// Every kind with the words that the documentation shows for it, in the order of the exit codes.
pub const EXIT_CODES: [(u8, &str); 10] = [
    (0, "done; the report says whether anything changed"),
    (1, "internal error"),
    (
        2,
        "wrong usage: a flag or variable is missing, empty or malformed",
    ),
    (3, "a document that was read is malformed"),
    (4, "denied: guard, policy, permission or authentication"),
    (5, "not found"),
    (6, "conflict: what is there differs from what was expected"),
    (7, "unavailable: trying again may help"),
    (8, "what was waited for failed"),
    (9, "the deadline passed, or a person has to act"),
];

impl Kind {
    /// The process exit code.
    #[must_use]
    pub const fn exit_code(self) -> u8 {
        self as u8
    }

    /// The word that stands for this kind in JSON logs.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Kind::Internal => "internal",
            Kind::Usage => "usage",
            Kind::Input => "input",
            Kind::Denied => "denied",
            Kind::NotFound => "not_found",
            Kind::Conflict => "conflict",
            Kind::Unavailable => "unavailable",
            Kind::Unsuccessful => "unsuccessful",
            Kind::Deadline => "deadline",
        }
    }
}

/// The error type of this library. See the [module](self) for how it is worded.
pub struct Failure {
    kind: Kind,
    message: String,
    hint: Option<String>,
    source: Option<Box<dyn Error + Send + Sync>>,
}

/// Shorthand for a result that fails with a [`Failure`].
pub type Result<T, E = Failure> = std::result::Result<T, E>;

impl Failure {
    /// A failure of the given kind.
    pub fn new(kind: Kind, message: impl Into<String>) -> Self {
        Failure {
            kind,
            message: message.into(),
            hint: None,
            source: None,
        }
    }

    /// A defect of Towpath or the machine (exit 1).
    pub fn internal(message: impl Into<String>) -> Self {
        Self::new(Kind::Internal, message)
    }

    /// A wrong flag or variable (exit 2).
    pub fn usage(message: impl Into<String>) -> Self {
        Self::new(Kind::Usage, message)
    }

    /// A malformed document (exit 3).
    pub fn input(message: impl Into<String>) -> Self {
        Self::new(Kind::Input, message)
    }

    /// Refused (exit 4).
    pub fn denied(message: impl Into<String>) -> Self {
        Self::new(Kind::Denied, message)
    }

    /// Not there (exit 5).
    pub fn not_found(message: impl Into<String>) -> Self {
        Self::new(Kind::NotFound, message)
    }

    /// There, but different from what was expected (exit 6).
    pub fn conflict(message: impl Into<String>) -> Self {
        Self::new(Kind::Conflict, message)
    }

    /// Cannot answer now (exit 7).
    pub fn unavailable(message: impl Into<String>) -> Self {
        Self::new(Kind::Unavailable, message)
    }

    /// The thing waited for failed (exit 8).
    pub fn unsuccessful(message: impl Into<String>) -> Self {
        Self::new(Kind::Unsuccessful, message)
    }

    /// Out of time, or a person has to act (exit 9).
    pub fn deadline(message: impl Into<String>) -> Self {
        Self::new(Kind::Deadline, message)
    }

    /// Adds what to do next, as an imperative sentence fragment.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// Adds the error underneath. Its text is shown to the user, so it must not carry a secret.
    #[must_use]
    pub fn because(mut self, source: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        self.source = Some(source.into());
        self
    }

    /// What kind of failure this is.
    #[must_use]
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// The message alone, without hint and source.
    #[must_use]
    pub fn message(&self) -> &str {
        &self.message
    }

    /// What to do next, where we know it.
    #[must_use]
    pub fn next_action(&self) -> Option<&str> {
        self.hint.as_deref()
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl fmt::Debug for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.kind.name(), self.message)?;
        if let Some(hint) = &self.hint {
            write!(f, " (hint: {hint})")?;
        }
        if let Some(source) = &self.source {
            write!(f, ": {source}")?;
        }
        Ok(())
    }
}

impl Error for Failure {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.source
            .as_ref()
            .map(|source| source.as_ref() as &(dyn Error + 'static))
    }
}

/// Runs `work` to its end, and makes a failure of a panic in it, so that whoever has something to give back or to remove
/// can do so. What the panic said was logged when it happened.
///
/// # Errors
/// Internal (exit 1) after a panic.
pub async fn survive<T>(work: impl Future<Output = T>) -> Result<T> {
    use futures_util::FutureExt as _;
    // What the work shares with us is only looked at to clean up.
    std::panic::AssertUnwindSafe(work)
        .catch_unwind()
        .await
        .map_err(|_panic| {
            Failure::internal("a defect of this program cut the run short")
                .hint("report it with the log line before this one")
        })
}

/// An error flattened for showing: every message from the outermost to the innermost, the kind and hint of the first
/// [`Failure`] in the chain. An error without a `Failure` in it is internal.
#[derive(Debug)]
pub struct Described {
    /// Kind of the first `Failure` in the chain.
    pub kind: Kind,
    /// All messages, joined by `: `, without repetitions.
    pub message: String,
    /// Hint of the first `Failure` that has one.
    pub hint: Option<String>,
}

/// Walks an error and its sources. See [`Described`].
#[must_use]
pub fn describe(error: &(dyn Error + 'static)) -> Described {
    let mut kind = None;
    let mut hint = None;
    let mut messages: Vec<String> = Vec::new();
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(failure) = error.downcast_ref::<Failure>() {
            kind = kind.or(Some(failure.kind));
            hint = hint.or_else(|| failure.hint.clone());
        }
        let message = error.to_string();
        // Some libraries print their source inside their own text; saying it twice helps nobody.
        if !messages.iter().any(|earlier| earlier.contains(&message)) {
            messages.push(message);
        }
        next = error.source();
    }
    Described {
        kind: kind.unwrap_or(Kind::Internal),
        message: messages.join(": "),
        hint,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_failure_of_a_chain_decides() {
        let inner = Failure::unavailable("registry example.com does not answer").hint("try again later");
        let outer = Failure::conflict("tag v1 moved").because(inner);
        let described = describe(&outer);
        assert_eq!(described.kind, Kind::Conflict);
        assert_eq!(
            described.message,
            "tag v1 moved: registry example.com does not answer"
        );
        assert_eq!(described.hint.as_deref(), Some("try again later"));
    }

    #[tokio::test]
    async fn a_panic_is_an_internal_failure() {
        let dropped = std::sync::Arc::new(());
        let held = dropped.clone();
        let failure = survive(async move {
            let _held = held;
            tokio::task::yield_now().await;
            panic!("a defect")
        })
        .await
        .map(|(): ()| ())
        .expect_err("a panic");
        assert_eq!(failure.kind(), Kind::Internal);
        assert_eq!(std::sync::Arc::strong_count(&dropped), 1, "what it held is gone");
        assert_eq!(survive(async { 7 }).await.expect("no panic"), 7);
    }

    #[test]
    fn an_error_of_unknown_origin_is_internal() {
        let described = describe(&std::io::Error::other("disk on fire"));
        assert_eq!(described.kind, Kind::Internal);
    }

    #[test]
    fn the_documented_table_holds_every_kind() {
        let kinds = [
            Kind::Internal,
            Kind::Usage,
            Kind::Input,
            Kind::Denied,
            Kind::NotFound,
            Kind::Conflict,
            Kind::Unavailable,
            Kind::Unsuccessful,
            Kind::Deadline,
        ];
        for (index, kind) in kinds.into_iter().enumerate() {
            assert_eq!(EXIT_CODES[index + 1].0, kind.exit_code());
        }
    }
}
