//! Log lines: one structured event for each outside effect.
//!
//! A line carries time, level, tool and trace id, then the event's own fields (`action`, `object`, `outcome`,
//! `duration_ms` for an effect). Every line goes through [`crate::secret::redact`] before it is written.

use std::fmt::{self, Write as _};
use std::io::{self, Write as _};
use std::time::Instant;

use serde_json::{Map, Value};
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::layer::{Context, Layer, SubscriberExt as _};

use super::{LogFormat, LogTarget, RunArgs, progress};
use crate::failure::Described;
use crate::secret::{Secret, redact};

/// An outside effect under way: something that changes, or asks a lot of, another system. Finish it with
/// [`Effect::done`]; one that is dropped unfinished is logged as `failed`.
#[derive(Debug)]
pub struct Effect {
    action: &'static str,
    object: String,
    started: Instant,
    finished: bool,
}

/// Starts an effect: `action` is a verb (`push`), `object` names what it acts on. Neither may hold a secret.
#[must_use]
pub fn effect(action: &'static str, object: impl Into<String>) -> Effect {
    Effect {
        action,
        object: object.into(),
        started: Instant::now(),
        finished: false,
    }
}

/// Logs a line that needs no structure: what a program that we run says, or why something was chosen.
pub fn note(text: &str) {
    tracing::info!("{text}");
}

/// Logs a line about what is done all the same, and is hardly meant.
pub fn warn(text: &str) {
    tracing::warn!("{text}");
}

impl Effect {
    /// Logs the effect with its outcome (`done`, `unchanged`, `mounted`...) and how long it took.
    pub fn done(mut self, outcome: &str) {
        self.finished = true;
        tracing::info!(
            action = self.action,
            object = self.object,
            outcome,
            duration_ms = self.milliseconds(),
        );
    }

    /// Logs nothing: it did not come to it after all, and another takes its place.
    pub fn forget(mut self) {
        self.finished = true;
    }

    fn milliseconds(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX)
    }
}

impl Drop for Effect {
    fn drop(&mut self) {
        if !self.finished {
            tracing::warn!(
                action = self.action,
                object = self.object,
                outcome = "failed",
                duration_ms = self.milliseconds(),
            );
        }
    }
}

/// Installs the log writer for the process. A second call changes nothing.
pub(super) fn install(tool: &'static str, settings: &RunArgs, trace_id: &str) {
    let lines = Lines {
        tool,
        trace_id: trace_id.to_owned(),
        format: settings.log_format,
        target: settings.log_target,
        own_target: tool.replace('-', "_"),
    };
    let subscriber = tracing_subscriber::registry().with(lines.with_filter(settings.log_level));
    // It can only be refused when one stands already, as in a test that runs several tools in one process.
    let _ = tracing::subscriber::set_global_default(subscriber);
}

/// Makes a log line of every panic, redacted like all others, in the place of the one that would go to standard error
/// as it is.
pub(super) fn take_panics() {
    std::panic::set_hook(Box::new(|panic| {
        let said = panic.payload();
        let said = said
            .downcast_ref::<&str>()
            .copied()
            .or_else(|| said.downcast_ref::<String>().map(String::as_str))
            .unwrap_or("without a word");
        let place = panic.location().map_or_else(String::new, ToString::to_string);
        tracing::error!(action = "panic", object = place, "{said}");
    }));
}

/// Logs how a run failed, and the exit code that it ends with.
pub(super) fn failure(described: &Described, exit_code: u8) {
    tracing::error!(
        kind = described.kind.name(),
        exit_code,
        hint = described.hint.as_deref().map(tracing::field::display),
        "{}",
        described.message
    );
}

/// Writes to standard error directly, for what has to be said before or beside the log.
pub(super) fn to_stderr(text: &str) {
    // Nobody is left to tell when standard error is gone.
    let _ = progress::aside(|| io::stderr().lock().write_all(redact(text).as_bytes()));
}

/// Writes to standard output.
///
/// # Errors
/// When standard output is closed or full.
pub(super) fn to_stdout(text: &str) -> io::Result<()> {
    let mut stdout = io::stdout().lock();
    stdout.write_all(redact(text).as_bytes())?;
    stdout.flush()
}

/// Writes what the user asked to see although it is secret, with a final newline.
///
/// # Errors
/// When standard output is closed or full.
pub(super) fn disclose_to_stdout(text: &Secret) -> io::Result<()> {
    let mut stdout = io::stdout().lock();
    writeln!(stdout, "{}", text.expose())?;
    stdout.flush()
}

/// The layer that turns events into lines.
struct Lines {
    tool: &'static str,
    trace_id: String,
    format: LogFormat,
    target: LogTarget,
    own_target: String,
}

impl<S: Subscriber> Layer<S> for Lines {
    fn on_event(&self, event: &Event<'_>, _context: Context<'_, S>) {
        // The libraries underneath log through the same channel, in words that mean nothing to our users.
        let target = event.metadata().target().split("::").next().unwrap_or_default();
        if target != "towpath" && target != self.own_target {
            return;
        }
        let mut fields = Fields::default();
        event.record(&mut fields);
        let level = *event.metadata().level();
        let line = match self.format {
            LogFormat::Json => self.json(level, fields),
            LogFormat::Text => self.text(level, &fields),
        };
        match self.target {
            LogTarget::Stderr => to_stderr(&line),
            // As for standard error: a closed stream must not end the work.
            LogTarget::Stdout => drop(to_stdout(&line)),
        }
    }
}

impl Lines {
    fn json(&self, level: Level, fields: Fields) -> String {
        let mut line = Map::new();
        line.insert("time".to_owned(), jiff::Timestamp::now().to_string().into());
        line.insert("level".to_owned(), level.as_str().to_lowercase().into());
        line.insert("tool".to_owned(), self.tool.into());
        line.insert("trace_id".to_owned(), self.trace_id.clone().into());
        if !fields.message.is_empty() {
            line.insert("message".to_owned(), fields.message.into());
        }
        line.extend(fields.others);
        let mut text = Value::Object(line).to_string();
        text.push('\n');
        text
    }

    /// `10:02:31 info  image-build: push 127.0.0.1:5000/app: done in 35 ms (trace 4bf92f35)`
    fn text(&self, level: Level, fields: &Fields) -> String {
        let mut line = format!(
            "{} {:5} {}:",
            jiff::Timestamp::now().strftime("%H:%M:%S"),
            level.as_str().to_lowercase(),
            self.tool
        );
        let field = |name: &str| fields.others.get(name).map(plain);
        let mut shown = vec![];
        if let (Some(action), Some(object)) = (field("action"), field("object")) {
            push(&mut line, format_args!(" {action} {object}"));
            shown.extend(["action", "object"]);
            if let Some(outcome) = field("outcome") {
                push(&mut line, format_args!(": {outcome}"));
                shown.push("outcome");
            }
            if let Some(duration) = field("duration_ms") {
                push(&mut line, format_args!(" in {duration} ms"));
                shown.push("duration_ms");
            }
        }
        if !fields.message.is_empty() {
            push(&mut line, format_args!(" {}", indented(&fields.message)));
        }
        let hint = field("hint");
        for (name, value) in &fields.others {
            if name != "hint" && !shown.contains(&name.as_str()) {
                push(&mut line, format_args!(" {name}={}", plain(value)));
            }
        }
        push(&mut line, format_args!(" trace={}\n", self.trace_id));
        if let Some(hint) = hint {
            push(&mut line, format_args!("         hint: {hint}\n"));
        }
        line
    }
}

/// Whether this mark turns the direction of text, which makes a line read as something else than it says (Unicode's
/// bidirectional algorithm, UAX #9, section 2).
pub(crate) fn turns_direction(character: char) -> bool {
    matches!(
        character,
        '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}'
    )
}

/// What other systems say may hold anything, also commands to the terminal. Line breaks and tabs stay; other control
/// characters, and marks that turn the direction of text, are shown as what they are.
pub(super) fn printable(text: &str) -> String {
    let mut clean = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '\n' | '\t' => clean.push(character),
            '\r' => {}
            acting if acting.is_control() || turns_direction(acting) => clean.extend(acting.escape_default()),
            other => clean.push(other),
        }
    }
    clean
}

fn push(line: &mut String, text: fmt::Arguments<'_>) {
    // Writing to a String cannot fail.
    let _ = line.write_fmt(text);
}

/// The same for a value within a line: what follows a line break cannot pass for a line of ours.
fn indented(text: &str) -> String {
    printable(text.trim_end()).replace('\n', "\n         ")
}

fn plain(value: &Value) -> String {
    match value {
        Value::String(text) => indented(text),
        other => other.to_string(),
    }
}

#[derive(Default)]
struct Fields {
    message: String,
    others: Map<String, Value>,
}

impl Fields {
    fn insert(&mut self, field: &Field, value: Value) {
        self.others.insert(field.name().to_owned(), value);
    }
}

impl Visit for Fields {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.insert(field, value.into());
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.insert(field, value.into());
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.insert(field, value.into());
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.insert(field, value.into());
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        let text = format!("{value:?}");
        if field.name() == "message" {
            self.message = text;
        } else {
            self.insert(field, text.into());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_others_say_neither_commands_the_terminal_nor_passes_for_our_line() {
        let lines = Lines {
            tool: "tool",
            trace_id: "4bf92f35".into(),
            format: LogFormat::Text,
            target: LogTarget::Stderr,
            own_target: "tool".into(),
        };
        let fields = Fields {
            message: "it says: \u{1b}[2Jgo\u{202e}ne\r\n10:00:00 info  tool: all is well\n".into(),
            others: Map::new(),
        };
        let text = lines.text(Level::ERROR, &fields);
        assert!(
            text.ends_with(
                "error tool: it says: \\u{1b}[2Jgo\\u{202e}ne\n         10:00:00 info  tool: all is well trace=4bf92f35\n"
            ),
            "{text:?}"
        );
    }
}
