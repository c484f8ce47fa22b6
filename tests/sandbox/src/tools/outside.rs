//! Runs one outside command to its end, within a deadline, and says what it said when it fails.

use std::process::Output;
use std::time::Duration;

use anyhow::{Context as _, bail};
use tokio::process::Command;

const LINES_OF_AN_ERROR: usize = 12;

/// Runs a command and answers its standard output.
///
/// # Errors
/// When it cannot be started, fails, outlasts the deadline or writes something other than UTF-8; with the last lines it wrote.
pub(crate) async fn output_of(command: &mut Command, deadline: Duration) -> anyhow::Result<String> {
    let name = name_of(command);
    let Output {
        status,
        stdout,
        stderr,
    } = finish(command, deadline).await?;
    if !status.success() {
        let said = if stderr.is_empty() { &stdout } else { &stderr };
        bail!(
            "`{name}` failed with {status}: {}",
            last_lines(&String::from_utf8_lossy(said), LINES_OF_AN_ERROR)
        );
    }
    String::from_utf8(stdout).with_context(|| format!("reading what `{name}` wrote"))
}

/// Runs a command and says whether it succeeded, whatever it wrote.
pub(super) async fn succeeds(command: &mut Command, deadline: Duration) -> bool {
    finish(command, deadline)
        .await
        .is_ok_and(|output| output.status.success())
}

async fn finish(command: &mut Command, deadline: Duration) -> anyhow::Result<Output> {
    let name = name_of(command);
    command.stdin(std::process::Stdio::null()).kill_on_drop(true);
    match tokio::time::timeout(deadline, command.output()).await {
        Ok(output) => output.with_context(|| format!("starting `{name}`")),
        Err(_) => bail!("`{name}` did not end within {} s", deadline.as_secs()),
    }
}

/// The program and its subcommand: enough to recognise it by, and never a value passed in an option.
fn name_of(command: &Command) -> String {
    let command = command.as_std();
    let program = command.get_program().to_string_lossy();
    let program = program.rsplit('/').next().unwrap_or_default();
    match command
        .get_args()
        .find_map(|argument| argument.to_str().filter(|text| is_word(text)))
    {
        Some(subcommand) => format!("{program} {subcommand}"),
        None => program.to_owned(),
    }
}

fn is_word(text: &str) -> bool {
    !text.is_empty()
        && text.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'-')
        && !text.starts_with('-')
}

/// The end of a text, as one indented block.
pub(crate) fn last_lines(text: &str, count: usize) -> String {
    let lines: Vec<&str> = text.lines().filter(|line| !line.trim().is_empty()).collect();
    let tail = &lines[lines.len().saturating_sub(count)..];
    if tail.is_empty() {
        "it wrote nothing".to_owned()
    } else {
        format!("\n    {}", tail.join("\n    "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(flavor = "current_thread")]
    async fn a_failure_carries_the_last_lines_and_the_status() {
        let mut command = Command::new("sh");
        command.args(["-c", "for i in $(seq 30); do echo line $i >&2; done; exit 3"]);
        let error = output_of(&mut command, Duration::from_secs(20))
            .await
            .unwrap_err()
            .to_string();
        assert!(
            error.starts_with("`sh` failed with exit status: 3: \n    line 19\n"),
            "{error}"
        );
        assert!(error.ends_with("    line 30"), "{error}");
    }

    #[tokio::test(flavor = "current_thread")]
    async fn the_deadline_ends_the_command() {
        let error = output_of(Command::new("sleep").arg("1000"), Duration::from_millis(20))
            .await
            .unwrap_err();
        assert_eq!(error.to_string(), "`sleep` did not end within 0 s");
    }
}
