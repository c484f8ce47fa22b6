//! Binaries that do something without a subcommand, too: the arguments of that form, and those of the subcommands.

use std::ffi::OsString;

use clap::parser::ValueSource;
use clap::{ArgMatches, Command};

/// Whether the words name a subcommand, whatever else is wrong with them.
pub(super) fn names_subcommand(command: &Command, words: &[OsString]) -> bool {
    without_own_variables(command.clone())
        .ignore_errors(true)
        .try_get_matches_from(words)
        .is_ok_and(|matches| matches.subcommand_name().is_some())
}

/// A tool that does something without a subcommand, too, has arguments that are not the subcommands'. Variables that a
/// job sets for the one must not get in the way of the others.
pub(super) fn without_own_variables(command: Command) -> Command {
    command.mut_args(|argument| {
        if argument.is_global_set() {
            argument
        } else {
            argument.env(None::<&'static str>)
        }
    })
}

/// What stands before a subcommand and is not for it would be passed over without a word.
pub(super) fn stray_value(command: &Command, matches: &ArgMatches) -> Option<String> {
    let (subcommand, _) = matches.subcommand()?;
    let stray = command.get_arguments().find(|argument| {
        let id = argument.get_id().as_str();
        let is_given = matches!(matches.try_contains_id(id), Ok(true))
            && matches.value_source(id) == Some(ValueSource::CommandLine);
        is_given && !argument.is_global_set()
    })?;
    let flag = stray.get_long().map_or_else(
        || stray.get_id().as_str().to_uppercase(),
        |long| format!("--{long}"),
    );
    Some(format!(
        "{flag} stands before {subcommand}, which does not see it there\nhint: write it behind {subcommand}, if that takes it"
    ))
}

#[cfg(test)]
mod tests {
    use clap::Arg;

    use super::*;

    #[test]
    fn a_subcommand_is_not_disturbed_by_what_is_set_for_the_form_without_one() {
        let command = || {
            let source = Arg::new("source")
                .env("PATH")
                .value_parser(clap::value_parser!(u8));
            let mut command = Command::new("tool")
                .subcommand_negates_reqs(true)
                .arg(source.required(true))
                .arg(Arg::new("flag").long("flag"))
                .arg(Arg::new("shared").long("shared").global(true))
                .subcommand(Command::new("undo").arg(Arg::new("journal").required(true)));
            command.build();
            command
        };
        let named = |words: &[&str]| {
            let words: Vec<OsString> = words.iter().map(OsString::from).collect();
            names_subcommand(&command(), &words)
        };
        assert!(named(&["tool", "undo", "file"]));
        assert!(named(&["tool", "undo"]));
        assert!(named(&["tool", "--shared", "x", "undo", "--unheard-of"]));
        assert!(!named(&["tool", "1"]));
        assert!(!named(&["tool"]));
        // PATH is no number.
        assert!(command().try_get_matches_from(["tool", "undo", "file"]).is_err());
        let command = without_own_variables(command());
        let complaint = |words: &[&str]| {
            let matches = command.clone().try_get_matches_from(words).unwrap();
            stray_value(&command, &matches)
        };
        assert_eq!(complaint(&["tool", "--shared", "x", "undo", "file"]), None);
        assert_eq!(complaint(&["tool", "1", "--flag", "x"]), None);
        for (words, named) in [
            (&["tool", "--flag", "x", "undo", "file"][..], "--flag"),
            (&["tool", "1", "undo", "file"][..], "SOURCE"),
        ] {
            assert!(complaint(words).unwrap().starts_with(named), "{words:?}");
        }
    }
}
