//! The words that a tool was called with, and the choice of a tool where one program holds several.
//!
//! Such a program is called by a tool's name through a link, as busybox is, or with the tool's name as its first argument.

use std::ffi::{OsStr, OsString};
use std::path::Path;
use std::process::ExitCode;

use clap::Command;

use super::arguments::usage_error;
use super::logs;
use crate::failure::Kind;

/// The words that a tool was called with: what it is called by, then its arguments.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CommandLine {
    /// The program that holds the tool among others, where its name was typed before the tool's.
    within: Option<String>,
    words: Vec<OsString>,
}

impl CommandLine {
    /// That of the process, for a program that is one tool.
    #[must_use]
    pub fn of_process() -> Self {
        Self {
            within: None,
            words: std::env::args_os().collect(),
        }
    }

    /// Gives a tool's command its name, and has usage lines call it as it was called.
    pub(super) fn name(&self, command: Command, name: &'static str) -> Command {
        let command = command.name(name);
        match &self.within {
            None => command.bin_name(name),
            Some(program) => {
                let called = format!("{program} {name}");
                renamed_usage(command.bin_name(&called), name, &called)
            }
        }
    }

    /// What the tool is called by, and its arguments.
    pub(super) fn words(&self) -> &[OsString] {
        &self.words
    }
}

/// A tool of a program that holds several.
#[derive(Clone, Copy, Debug)]
pub struct Tool {
    /// The name it is called by.
    pub name: &'static str,
    /// What it does, in a few words, for the list of tools.
    pub does: &'static str,
    /// Runs it, from its arguments to its exit code.
    pub main: fn(CommandLine) -> ExitCode,
}

/// Runs the tool that the process was called as, or that its first argument names. `main` of a program of several tools
/// returns what this returns: the tool's exit code, or 2 for a name that is no tool's.
#[must_use]
pub fn run_one_of(program: &str, tools: &[Tool]) -> ExitCode {
    let text = match choose(program, tools, std::env::args_os().collect()) {
        Choice::Tool(tool, line) => return (tool.main)(line),
        Choice::Text(text) => text,
        Choice::Refusal(complaint) => return usage_error(&complaint),
    };
    match logs::to_stdout(&text) {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::from(Kind::Internal.exit_code()),
    }
}

#[derive(Debug)]
enum Choice<'a> {
    Tool(&'a Tool, CommandLine),
    Text(String),
    Refusal(String),
}

fn choose<'a>(program: &str, tools: &'a [Tool], mut words: Vec<OsString>) -> Choice<'a> {
    let find = |name: &OsStr| tools.iter().find(|tool| name == tool.name);
    let called = words.first().and_then(|word| Path::new(word).file_name());
    if let Some(tool) = called.and_then(find) {
        return Choice::Tool(tool, CommandLine { within: None, words });
    }
    let called = called.map_or_else(|| program.to_owned(), |name| name.to_string_lossy().into_owned());
    let Some(word) = words.get(1) else {
        return Choice::Refusal(format!("no tool is named\nhint: {}", choices(&called, tools)));
    };
    match word.to_str() {
        Some("--help" | "-h") => return Choice::Text(help(program, &called, tools)),
        Some("--version" | "-V") => {
            return Choice::Text(format!("{program} {}\n", env!("CARGO_PKG_VERSION")));
        }
        Some("--list") => return Choice::Text(tools.iter().map(|tool| format!("{}\n", tool.name)).collect()),
        _ => {}
    }
    match find(word) {
        Some(tool) => {
            words.remove(0);
            let within = Some(called);
            Choice::Tool(tool, CommandLine { within, words })
        }
        None => Choice::Refusal(format!("{word:?} is no tool\nhint: {}", choices(&called, tools))),
    }
}

/// Where a usage line is written out and not made by clap, has it call the tool as it was called.
fn renamed_usage(command: Command, name: &str, called: &str) -> Command {
    let usage = command.clone().render_usage().to_string();
    let lines = usage.trim_start_matches("Usage: ").split('\n');
    let renamed: Vec<String> = lines
        .map(|line| match line.trim_start().strip_prefix(name) {
            Some(rest) if rest.starts_with(' ') => {
                let indent = &line[..line.len() - line.trim_start().len()];
                format!("{indent}{called}{rest}")
            }
            _ => line.to_owned(),
        })
        .collect();
    let renamed = renamed.join("\n");
    let command = if usage.ends_with(&renamed) {
        command
    } else {
        command.override_usage(renamed)
    };
    command.mut_subcommands(|below| renamed_usage(below, name, called))
}

fn choices(called: &str, tools: &[Tool]) -> String {
    let names: Vec<&str> = tools.iter().map(|tool| tool.name).collect();
    format!("{called} takes one of {}; --help tells more", names.join(", "))
}

fn help(program: &str, called: &str, tools: &[Tool]) -> String {
    let width = tools.iter().map(|tool| tool.name.len()).max().unwrap_or_default();
    let mut text =
        format!("Every tool of {program} in one program\n\nUsage: {called} TOOL [ARGUMENT]...\n\nTools:\n");
    for Tool { name, does, .. } in tools {
        text.push_str(&format!("  {name:width$}  {does}\n"));
    }
    text.push_str(&format!(
        "\nOptions:\n  -h, --help     Print this; {called} TOOL --help prints the tool's own\n  -V, --version  Print version\n      \
         --list     Print the tools' names, one a line\n\nThrough a link that is named like a tool, or under such a name, it is that \
         tool.\nExit codes: those of the tool; 2 for a name that is no tool's.\n"
    ));
    text
}

#[cfg(test)]
mod tests {
    use std::os::unix::ffi::OsStringExt as _;

    use clap::Arg;

    use super::*;

    const TOOLS: [Tool; 2] = [
        Tool {
            name: "rise",
            does: "lifts",
            main: |_| ExitCode::SUCCESS,
        },
        Tool {
            name: "fall",
            does: "lets go",
            main: |_| ExitCode::SUCCESS,
        },
    ];

    fn chosen(words: &[&str]) -> Option<(&'static str, String, Vec<OsString>)> {
        static CONSTANT: [Tool; 2] = TOOLS;
        match choose("lift", &CONSTANT, words.iter().map(OsString::from).collect()) {
            Choice::Tool(tool, line) => {
                let usage = line.name(Command::new("x"), tool.name).render_usage().to_string();
                Some((tool.name, usage, line.words().to_vec()))
            }
            Choice::Text(_) | Choice::Refusal(_) => None,
        }
    }

    #[test]
    fn a_tool_is_chosen_by_the_name_it_is_called_by_and_else_by_the_first_argument() {
        for path in ["rise", "./rise", "/usr/local/bin/rise"] {
            assert_eq!(
                chosen(&[path, "fall", "--help"]),
                Some((
                    "rise",
                    "Usage: rise".to_owned(),
                    vec![path.into(), "fall".into(), "--help".into()]
                ))
            );
        }
        assert_eq!(
            chosen(&["/opt/lift", "fall", "rise"]),
            Some((
                "fall",
                "Usage: lift fall".to_owned(),
                vec!["fall".into(), "rise".into()]
            ))
        );
        // As a download is named.
        assert_eq!(
            chosen(&["lift-linux-amd64", "rise"]),
            Some((
                "rise",
                "Usage: lift-linux-amd64 rise".to_owned(),
                vec!["rise".into()]
            ))
        );
    }

    #[test]
    fn what_is_no_tool_is_refused_with_those_that_are() {
        let broken = OsString::from_vec(b"r\xff".to_vec());
        for words in [
            vec![],
            vec![OsString::new()],
            vec!["lift".into()],
            vec!["lift".into(), OsString::new()],
            vec!["lift".into(), "rises".into()],
            vec!["lift".into(), "--rise".into()],
            vec!["lift".into(), broken.clone()],
            vec![broken, "rises".into()],
        ] {
            let Choice::Refusal(complaint) = choose("lift", &TOOLS, words.clone()) else {
                panic!("{words:?} was taken");
            };
            assert!(complaint.contains("takes one of rise, fall;"), "{complaint}");
        }
    }

    #[test]
    fn help_version_and_list_are_texts() {
        let text = |word: &str| match choose("lift", &TOOLS, vec!["lift".into(), word.into()]) {
            Choice::Text(text) => text,
            other => panic!("{other:?}"),
        };
        assert_eq!(text("--list"), "rise\nfall\n");
        assert_eq!(text("--version"), format!("lift {}\n", env!("CARGO_PKG_VERSION")));
        assert!(text("--help").contains("Usage: lift TOOL [ARGUMENT]...\n"));
        assert!(text("-h").contains("  fall  lets go\n"));
    }

    #[test]
    fn usage_that_is_written_out_calls_the_tool_as_it_was_called() {
        let push = Command::new("push").override_usage("tool push [OPTIONS] FILE\n       tool push --all");
        let pull = Command::new("pull").arg(Arg::new("file"));
        let command = Command::new("tool")
            .bin_name("box tool")
            .override_usage("tool FILE")
            .subcommands([push, pull]);
        let mut command = renamed_usage(command, "tool", "box tool");
        command.build();
        let mut usage = |name: Option<&str>| {
            let command = match name {
                Some(name) => command.find_subcommand_mut(name).unwrap(),
                None => &mut command,
            };
            command.render_usage().to_string()
        };
        assert_eq!(usage(None), "Usage: box tool FILE");
        let both = "Usage: box tool push [OPTIONS] FILE\n       box tool push --all";
        assert_eq!(usage(Some("push")), both);
        assert_eq!(usage(Some("pull")), "Usage: box tool pull [file]");
    }
}
