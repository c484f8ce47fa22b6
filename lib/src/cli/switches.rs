//! Arguments without a value, which variables turn on and off.

use std::ffi::OsStr;

use clap::builder::BoolishValueParser;
use clap::{ArgAction, Command};

/// Lets `1`, `yes` and `on` turn a switch on from its variable, as they do in CI settings; clap alone takes `true`.
pub(super) fn lenient_switches(command: Command) -> Command {
    command
        .mut_args(|argument| {
            if matches!(argument.get_action(), ArgAction::SetTrue) {
                argument.value_parser(BoolishValueParser::new())
            } else {
                argument
            }
        })
        .mut_subcommands(lenient_switches)
}

/// A switch that its variable turns off is as good as not given: a template sets the variable of each of its inputs, and
/// what excludes or needs such a switch must not take it for one that is wanted.
pub(super) fn without_switched_off(command: Command, variable: &dyn Fn(&OsStr) -> Option<String>) -> Command {
    command
        .mut_args(|argument| {
            let is_off = matches!(argument.get_action(), ArgAction::SetTrue)
                && argument
                    .get_env()
                    .and_then(variable)
                    .is_some_and(|word| is_no(&word));
            if is_off {
                argument.env(None::<&'static str>)
            } else {
                argument
            }
        })
        .mut_subcommands(|subcommand| without_switched_off(subcommand, variable))
}

/// The words that turn a switch off ([`BoolishValueParser`]).
pub(super) fn is_no(word: &str) -> bool {
    ["n", "no", "f", "false", "off", "0"]
        .iter()
        .any(|no| word.eq_ignore_ascii_case(no))
}

#[cfg(test)]
mod tests {
    use clap::Arg;

    use super::super::arguments::variable_of;
    use super::*;

    #[test]
    fn switches_take_what_ci_settings_hold() {
        let switch = || Arg::new("dry-run").long("dry-run").action(ArgAction::SetTrue);
        let command = lenient_switches(
            Command::new("tool")
                .arg(switch().env("TOWPATH_TEST_SWITCH"))
                .subcommand(Command::new("sub").arg(switch())),
        );
        command.clone().debug_assert();
        assert!(
            command
                .clone()
                .get_matches_from(["tool", "--dry-run"])
                .get_flag("dry-run")
        );
        let matches = command.get_matches_from(["tool", "sub", "--dry-run"]);
        assert!(matches.subcommand_matches("sub").unwrap().get_flag("dry-run"));
        assert!(!matches.get_flag("dry-run"));
    }

    #[test]
    fn a_switch_that_its_variable_turns_off_is_not_given() {
        let switch = |name: &'static str, variable: &'static str| {
            Arg::new(name).long(name).env(variable).action(ArgAction::SetTrue)
        };
        let command = lenient_switches(
            Command::new("tool").subcommand(
                Command::new("sub")
                    .arg(switch("add", "TOWPATH_TEST_ADD"))
                    .arg(switch("skip", "TOWPATH_TEST_SKIP").conflicts_with("add")),
            ),
        );
        let kept = |word: &str| {
            let word = word.to_owned();
            let command = without_switched_off(command.clone(), &|_: &OsStr| Some(word.clone()));
            let sub = command.get_subcommands().next().unwrap();
            sub.get_arguments().filter_map(variable_of).count()
        };
        for off in ["false", "False", "0", "no", "off"] {
            assert_eq!(kept(off), 0, "{off}");
        }
        // What is no word for no is for the parser to take or to refuse.
        for on in ["true", "1", "", "maybe"] {
            assert_eq!(kept(on), 2, "{on:?}");
        }
    }
}
