//! Arguments that every binary takes, and how values are refused.
//!
//! Each argument has an environment variable, so that a template sets variables and a person types flags. An empty
//! value is always a mistake (most often a CI variable that is not set), and the refusal names flag and variable.

use std::error::Error as _;
use std::ffi::{OsStr, OsString};
use std::process::ExitCode;
use std::time::Duration;

use clap::builder::PossibleValue;
use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::parser::ValueSource;
use clap::{Arg, ArgMatches, Command, ValueEnum};

use super::command_line::CommandLine;
use super::logs;
use super::subcommands::{names_subcommand, stray_value, without_own_variables};
use super::switches::{lenient_switches, without_switched_off};
use crate::failure::{EXIT_CODES, Failure, Kind};
use crate::secret::without_login;
use crate::trace::TraceParent;

/// The arguments of a binary.
pub trait Arguments: clap::Parser {
    /// The binary's name.
    const NAME: &'static str;

    /// The arguments that all binaries share.
    fn run_args(&self) -> &RunArgs;

    /// Settles what depends on where a value came from: what stands on the command line wins over what a variable sets
    /// for a job as a whole.
    ///
    /// # Errors
    /// Usage (exit 2) when arguments do not go together.
    fn settle(&mut self, given: &Given<'_>) -> Result<(), Failure> {
        let _ = given;
        Ok(())
    }
}

/// Where the values of arguments came from.
#[derive(Debug)]
pub struct Given<'a>(&'a ArgMatches);

impl Given<'_> {
    /// Whether an argument, by the name of its field, stands on the command line.
    #[must_use]
    pub fn by_flag(&self, id: &str) -> bool {
        let mut level = Some(self.0);
        while let Some(matches) = level {
            if matches!(matches.try_contains_id(id), Ok(true))
                && matches.value_source(id) == Some(ValueSource::CommandLine)
            {
                return true;
            }
            level = matches.subcommand().map(|(_, below)| below);
        }
        false
    }
}

/// How the result is written to standard output.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Output {
    /// Text on a terminal, JSON elsewhere.
    #[default]
    Auto,
    /// One JSON document.
    Json,
    /// Text for people.
    Text,
}

/// How log lines are written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LogFormat {
    /// A line for people.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

/// Where log lines go.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LogTarget {
    /// Standard error, so that standard output holds the result alone.
    #[default]
    Stderr,
    /// Standard output, for collectors that read nothing else.
    Stdout,
}

macro_rules! value_enum {
    ($type:ident { $($variant:ident = $name:literal),+ }) => {
        impl ValueEnum for $type {
            fn value_variants<'a>() -> &'a [Self] {
                &[$(Self::$variant),+]
            }
            fn to_possible_value(&self) -> Option<PossibleValue> {
                Some(PossibleValue::new(match self { $(Self::$variant => $name),+ }))
            }
        }
    };
}
value_enum!(Output { Auto = "auto", Json = "json", Text = "text" });
value_enum!(LogFormat { Text = "text", Json = "json" });
value_enum!(LogTarget { Stderr = "stderr", Stdout = "stdout" });

/// Arguments that every binary takes. Flatten them into the binary's own.
#[derive(clap::Args, Clone, Debug)]
#[command(next_help_heading = "Run options")]
pub struct RunArgs {
    /// How the result is written to standard output: text on a terminal and JSON elsewhere, unless set
    #[arg(
        long,
        env = "TOWPATH_OUTPUT",
        value_enum,
        default_value_t,
        global = true,
        hide_env_values = true
    )]
    pub output: Output,
    /// How log lines are written
    #[arg(
        long,
        env = "TOWPATH_LOG_FORMAT",
        value_enum,
        default_value_t,
        global = true,
        hide_env_values = true
    )]
    pub log_format: LogFormat,
    /// Where log lines go
    #[arg(
        long,
        env = "TOWPATH_LOG_TARGET",
        value_enum,
        default_value_t,
        global = true,
        hide_env_values = true
    )]
    pub log_target: LogTarget,
    /// The least important level that is logged: error, warn, info, debug or trace
    #[arg(
        long,
        env = "TOWPATH_LOG_LEVEL",
        default_value = "info",
        global = true,
        hide_env_values = true
    )]
    pub log_level: tracing::level_filters::LevelFilter,
    /// When the run gives up, such as 90s, 15m or 1h [default: CI_JOB_TIMEOUT less a minute, else 1h]
    #[arg(long, env = "TOWPATH_TIMEOUT", value_parser = parse_duration, global = true, hide_env_values = true)]
    pub timeout: Option<Duration>,
    /// The job's own timeout in seconds, as GitLab sets it
    #[arg(
        long,
        env = "CI_JOB_TIMEOUT",
        hide = true,
        global = true,
        hide_env_values = true
    )]
    pub job_timeout: Option<u64>,
    /// The trace this run belongs to (W3C traceparent); a new one when absent
    #[arg(long, env = "TRACEPARENT", global = true, hide_env_values = true)]
    pub traceparent: Option<TraceParent>,
}

/// More than any name or path has that a system takes, in bytes: Linux's `PATH_MAX`.
const LONGEST_LINE: usize = 4096;

/// Takes a text of one line: a line break in a name that ends in a log, a commit message or a header would begin a line
/// of somebody else's making there. It has 4,096 bytes at most, and no name that is meant has more.
///
/// # Errors
/// A sentence for clap to show.
pub fn parse_line(text: &str) -> Result<String, String> {
    if text.len() > LONGEST_LINE {
        return Err(format!(
            "expected {LONGEST_LINE} bytes of text at most, got {}",
            text.len()
        ));
    }
    if text.chars().any(char::is_control) {
        return Err("expected one line of text without control characters".to_owned());
    }
    Ok(text.to_owned())
}

/// Reads `90s`, `15m`, `1h` or `1h30m`; a bare number is refused, since its unit would be a guess.
///
/// # Errors
/// A sentence for clap to show.
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    let wrong = || "expected a duration with a unit, such as 90s, 15m or 1h30m".to_owned();
    let mut total = Duration::ZERO;
    let mut rest = text;
    while !rest.is_empty() {
        let digits = rest
            .find(|c: char| !c.is_ascii_digit())
            .filter(|&at| at > 0)
            .ok_or_else(wrong)?;
        let number: u64 = rest[..digits].parse().map_err(|_| wrong())?;
        rest = &rest[digits..];
        let unit = rest.find(|c: char| c.is_ascii_digit()).unwrap_or(rest.len());
        let seconds = match &rest[..unit] {
            "s" => Some(number),
            "m" => number.checked_mul(60),
            "h" => number.checked_mul(3600),
            _ => None,
        };
        total = total
            .checked_add(Duration::from_secs(seconds.ok_or_else(wrong)?))
            .ok_or_else(wrong)?;
        rest = &rest[unit..];
    }
    if total.is_zero() { Err(wrong()) } else { Ok(total) }
}

/// Parses the command line; on anything but success gives the exit code, with everything said already.
pub(super) fn parse<A: Arguments>(line: &CommandLine) -> Result<A, ExitCode> {
    let mut command = command::<A>(line);
    let words = line.words();
    if let Some(code) = generate(&command, words) {
        return Err(code);
    }
    if names_subcommand(&command, words) {
        command = without_own_variables(command);
    }
    let variable = |name: &OsStr| std::env::var(name).ok();
    let matches = without_switched_off(command.clone(), &variable)
        .try_get_matches_from(words)
        .map_err(|error| match error.kind() {
            // Help names every variable, whatever it is set to.
            ErrorKind::DisplayHelp => command.clone().try_get_matches_from(words).err().unwrap_or(error),
            _ => error,
        })
        .map_err(|error| refuse(&command, words, error))?;
    if let Some(complaint) = stray_value(&command, &matches).or_else(|| empty_value(&command, &matches)) {
        return Err(usage_error(&complaint));
    }
    let mut parsed = A::from_arg_matches(&matches).map_err(|error| refuse(&command, words, error))?;
    match parsed.settle(&Given(&matches)) {
        Ok(()) => Ok(parsed),
        Err(failure) => {
            let hint = failure.next_action().map(|hint| format!("\nhint: {hint}"));
            Err(usage_error(&format!("{failure}{}", hint.unwrap_or_default())))
        }
    }
}

/// The binary's command with the table of exit codes below its help.
pub(super) fn command<A: Arguments>(line: &CommandLine) -> Command {
    let mut table = String::from("Exit codes:\n");
    for (code, meaning) in EXIT_CODES {
        table.push_str(&format!("  {code}  {meaning}\n"));
    }
    table.push_str("\nShell completions: --completions bash|zsh|fish. Manual page: --man-page.");
    let command = line.name(A::command(), A::NAME).max_term_width(110);
    let examples = command
        .get_after_long_help()
        .map(|help| format!("{help}\n\n"))
        .unwrap_or_default();
    lenient_switches(command.after_long_help(format!("{examples}{table}")))
}

/// `--completions SHELL` and `--man-page` work without any of the arguments that are otherwise required.
fn generate(command: &Command, words: &[OsString]) -> Option<ExitCode> {
    let mut bytes = Vec::new();
    match words.get(1)?.to_str()? {
        "--completions" => {
            let shell = words
                .get(2)
                .and_then(|word| word.to_str())
                .and_then(|word| <clap_complete::Shell as ValueEnum>::from_str(word, true).ok());
            let Some(shell) = shell else {
                return Some(usage_error(
                    "--completions takes bash, zsh, fish, elvish or powershell",
                ));
            };
            clap_complete::generate(shell, &mut command.clone(), command.get_name(), &mut bytes);
        }
        "--man-page" => {
            if let Err(error) = clap_mangen::Man::new(command.clone()).render(&mut bytes) {
                return Some(usage_error(&format!("cannot write the manual page: {error}")));
            }
        }
        _ => return None,
    }
    Some(match logs::to_stdout(&String::from_utf8_lossy(&bytes)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::from(Kind::Internal.exit_code()),
    })
}

fn refuse(command: &Command, words: &[OsString], error: clap::Error) -> ExitCode {
    if matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion) {
        let shown = error.render();
        return match logs::to_stdout(&shown.to_string()) {
            Ok(()) => ExitCode::SUCCESS,
            Err(_) => ExitCode::from(Kind::Internal.exit_code()),
        };
    }
    let mut command = command.clone();
    command.build();
    let command = &command;
    match error.kind() {
        ErrorKind::MissingRequiredArgument => {
            if let Some(ContextValue::Strings(missing)) = error.get(ContextKind::InvalidArg) {
                return usage_error(&missing_complaint(command, missing));
            }
        }
        ErrorKind::InvalidUtf8 => return usage_error(&not_text_complaint(command, words)),
        ErrorKind::InvalidValue | ErrorKind::ValueValidation => {
            if let Some(complaint) = value_complaint(command, &error) {
                return usage_error(&complaint);
            }
        }
        _ => {}
    }
    let mut complaint = error.render().to_string();
    if let Some(ContextValue::String(surplus)) = error.get(ContextKind::InvalidArg) {
        complaint = complaint.replace(surplus.as_str(), &without_login(surplus));
    }
    logs::to_stderr(&complaint);
    ExitCode::from(Kind::Usage.exit_code())
}

/// Names flag and variable of each argument that is missing.
fn missing_complaint(command: &Command, missing: &[String]) -> String {
    let named: Vec<String> = missing.iter().map(|shown| name(command, shown)).collect();
    format!(
        "missing: {}\nhint: pass it, or set the variable; --help tells more",
        named.join(", ")
    )
}

/// Says what is wrong with a value in the words of whoever refused it, with flag, variable and hint.
fn value_complaint(command: &Command, error: &clap::Error) -> Option<String> {
    let (Some(ContextValue::String(value)), Some(ContextValue::String(shown))) = (
        error.get(ContextKind::InvalidValue),
        error.get(ContextKind::InvalidArg),
    ) else {
        return None;
    };
    let flag = shown.split([' ', '=']).next().unwrap_or(shown);
    if value.trim().is_empty() {
        let variable = find(command, shown).and_then(variable_of);
        return Some(empty_complaint(flag, variable.as_deref(), None));
    }
    let named = name(command, shown);
    if let Some(ContextValue::Strings(possible)) = error.get(ContextKind::ValidValue)
        && !possible.is_empty()
    {
        return Some(format!(
            "{named} cannot be {value:?}\nhint: it takes {}",
            possible.join(", ")
        ));
    }
    let why = error.source()?;
    let hint = why
        .downcast_ref::<Failure>()
        .and_then(Failure::next_action)
        .map(|hint| format!("\nhint: {hint}"))
        .unwrap_or_default();
    let why = why.to_string();
    let value = without_login(value);
    // Our own parsers name the value; those for numbers and switches do not.
    let value = if why.contains(&*value) || why.contains(&format!("{value:?}")) {
        String::new()
    } else {
        format!(" is {value:?}")
    };
    Some(format!("{named}{value}: {why}{hint}"))
}

/// Finds what it is that is not UTF-8: clap does not tell.
fn not_text_complaint(command: &Command, words: &[OsString]) -> String {
    let hint = "hint: give it as UTF-8 text";
    if let Some(at) = words.iter().position(|word| word.to_str().is_none()) {
        return format!("argument {at} of the command line is not text\n{hint}");
    }
    let mut commands = vec![command];
    while let Some(command) = commands.pop() {
        let broken = command
            .get_arguments()
            .filter_map(variable_of)
            .find(|variable| std::env::var_os(variable).is_some_and(|value| value.to_str().is_none()));
        if let Some(variable) = broken {
            return format!("the variable {variable} is not text\n{hint}");
        }
        commands.extend(command.get_subcommands());
    }
    format!("an argument is not text\n{hint}")
}

/// The argument that clap shows as `shown` (`--flag <VALUE>`, `<VALUE>`), searched through all subcommands; of several,
/// one that has a variable.
fn find<'command>(command: &'command Command, shown: &str) -> Option<&'command Arg> {
    // The brackets around a name tell whether it is required, which clap does not always agree with itself about.
    let name = |shown: &str| shown.replace(['<', '>', '[', ']'], "");
    let own = command
        .get_arguments()
        .find(|argument| name(&argument.to_string()) == name(shown));
    if own.is_some_and(|own| own.get_env().is_some()) {
        return own;
    }
    let below = command.get_subcommands().find_map(|sub| find(sub, shown));
    below.or(own)
}

pub(super) fn variable_of(argument: &Arg) -> Option<String> {
    argument.get_env().map(|name| name.to_string_lossy().into_owned())
}

/// An argument and its variable, as messages name them.
fn name(command: &Command, shown: &str) -> String {
    let argument = find(command, shown);
    let flag = match argument.and_then(Arg::get_long) {
        Some(long) => format!("--{long}"),
        None => shown.to_owned(),
    };
    match argument.and_then(variable_of) {
        Some(variable) => format!("{flag} ({variable})"),
        None => flag,
    }
}

/// Looks for a value that is empty, wherever it came from.
fn empty_value(command: &Command, matches: &ArgMatches) -> Option<String> {
    for argument in command.get_arguments() {
        let id = argument.get_id().as_str();
        // Flags without a value have none that could be empty, and clap panics when asked for what is not defined.
        if !argument.get_action().takes_values() || !matches!(matches.try_contains_id(id), Ok(true)) {
            continue;
        }
        // What follows `--` is somebody else's command line, where an empty word can be meant.
        if argument.is_last_set() {
            continue;
        }
        let mut values: Vec<&OsStr> = matches.get_raw(id).into_iter().flatten().collect();
        if values.len() > 1
            && takes_lines(argument)
            && matches.value_source(id) == Some(ValueSource::EnvVariable)
        {
            // A block of YAML ends with the end of its last line.
            values.pop_if(|last| last.is_empty());
        }
        let is_empty = |value: &&OsStr| value.to_str().is_some_and(|text| text.trim().is_empty());
        if values.iter().any(is_empty) {
            let flag = argument
                .get_long()
                .map_or_else(|| id.to_uppercase(), |long| format!("--{long}"));
            let variable = variable_of(argument);
            return Some(empty_complaint(
                &flag,
                variable.as_deref(),
                matches.value_source(id),
            ));
        }
    }
    let (name, matches) = matches.subcommand()?;
    empty_value(command.find_subcommand(name)?, matches)
}

/// Whether it takes several values, one a line.
fn takes_lines(argument: &Arg) -> bool {
    argument.get_value_delimiter() == Some('\n')
}

fn empty_complaint(flag: &str, variable: Option<&str>, source: Option<ValueSource>) -> String {
    match (variable, source) {
        (Some(variable), Some(ValueSource::EnvVariable)) => format!(
            "the variable {variable} is set but empty\nhint: give it a value, unset it, or pass {flag}"
        ),
        (Some(variable), _) => format!(
            "{flag} is empty\nhint: is the CI variable behind it set? It can also be given as {variable}"
        ),
        (None, _) => format!("{flag} is empty\nhint: is the CI variable behind it set?"),
    }
}

pub(super) fn usage_error(complaint: &str) -> ExitCode {
    logs::to_stderr(&format!("error: {complaint}\n"));
    ExitCode::from(Kind::Usage.exit_code())
}

#[cfg(test)]
mod tests {
    use clap::ArgAction;

    use super::*;

    #[test]
    fn a_line_of_text_ends_somewhere() {
        let longest = "a".repeat(LONGEST_LINE);
        assert_eq!(parse_line(&longest).unwrap(), longest);
        let said = parse_line(&format!("{longest}a")).expect_err("too long");
        assert_eq!(said, "expected 4096 bytes of text at most, got 4097");
        assert!(parse_line("a\nb").is_err());
    }

    #[test]
    fn the_end_of_the_last_line_is_no_empty_value() {
        let list = || {
            Arg::new("list")
                .long("list")
                .value_delimiter('\n')
                .action(ArgAction::Append)
        };
        let command = Command::new("tool").arg(list().env("TOWPATH_TEST_LINES"));
        let complaint = |words: &[&str]| {
            let matches = command.clone().get_matches_from(words);
            empty_value(&command, &matches)
        };
        assert_eq!(complaint(&["tool", "--list", "a\nb"]), None);
        for wrong in ["", "a\n", "a\n\nb"] {
            assert!(
                complaint(&["tool", "--list", wrong]).is_some(),
                "{wrong:?} on the command line"
            );
        }
    }

    #[test]
    fn a_refusal_names_flag_variable_reason_and_next_action() {
        let digest = |text: &str| {
            Err::<String, _>(
                Failure::usage(format!("malformed digest {text:?}")).hint("copy it from the registry"),
            )
        };
        let command = || {
            let argument = Arg::new("digest").value_name("DIGEST").value_parser(digest);
            let flag = argument.clone().long("digest").env("TOWPATH_TEST_DIGEST");
            let mut command = Command::new("tool")
                .arg(
                    Arg::new("source")
                        .value_name("SOURCE")
                        .env("TOWPATH_TEST_SOURCE")
                        .required(true),
                )
                .subcommand(Command::new("sub").arg(flag));
            command.build();
            command
        };
        let refused = |words: &[&str]| command().try_get_matches_from(words).unwrap_err();
        let error = refused(&["tool", "x", "sub", "--digest", "abc"]);
        assert_eq!(
            value_complaint(&command(), &error).unwrap(),
            "--digest (TOWPATH_TEST_DIGEST): malformed digest \"abc\"\nhint: copy it from the registry"
        );
        let error = refused(&["tool", "x", "sub", "--digest", " "]);
        assert!(
            value_complaint(&command(), &error)
                .unwrap()
                .starts_with("--digest is empty")
        );
        let error = refused(&["tool"]);
        let Some(ContextValue::Strings(missing)) = error.get(ContextKind::InvalidArg) else {
            panic!("{error:?}");
        };
        assert!(
            missing_complaint(&command(), missing).starts_with("missing: <SOURCE> (TOWPATH_TEST_SOURCE)")
        );
    }

    #[test]
    fn durations_need_a_unit() {
        assert_eq!(parse_duration("90s"), Ok(Duration::from_secs(90)));
        assert_eq!(parse_duration("1h30m"), Ok(Duration::from_secs(5400)));
        for wrong in [
            "",
            "90",
            "s",
            "-1s",
            "1d",
            "1h 30m",
            "0s",
            "99999999999999999999s",
            "18446744073709551615h",
        ] {
            assert!(parse_duration(wrong).is_err(), "{wrong:?} was accepted");
        }
    }
}
