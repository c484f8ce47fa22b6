//! The end of a job's log.
//!
//! A log is whatever a job printed: megabytes of it, colours, marks of sections, and what a hostile job would like the
//! reader's terminal or CI system to do. So only its end is kept, and as plain text.

use std::collections::VecDeque;
use std::time::Duration;

use futures_util::StreamExt as _;

use super::client::Client;
use super::job::Job;
use super::project::Project;
use super::refusal::refusal;
use crate::cli::turns_direction;
use crate::failure::Result;
use crate::http::{Method, StatusCode, header};

/// How long reading one may take, also where GitLab sends all of it.
const TIMEOUT: Duration = Duration::from_secs(20);
/// A line of a log that is longer is cut, in characters.
const LINE_LIMIT: usize = 500;
/// What commands of other CI systems start with that declare a secret (GitHub Actions, "Workflow commands").
const ADD_MASK: &str = "::add-mask::";
/// What takes the place of a secret.
const MASK: &str = "****";

impl Client {
    /// The last lines of a job's log, at most `lines` of them out of the last `bytes`, without terminal codes, section
    /// marks, what a carriage return overwrote and what the job declared secret (`::add-mask::`). Only the end is
    /// transferred where GitLab offers that: by `byte_offset` and `byte_limit` where the log's length is known, else by
    /// a range; else all of it is, and no more than the end is kept. Not for job tokens.
    ///
    /// # Errors
    /// Not found, denied or unavailable, as GitLab answers.
    pub async fn log_tail(
        &self,
        project: &Project,
        job: &Job,
        lines: usize,
        bytes: usize,
    ) -> Result<Vec<String>> {
        let object = format!("the log of job {} of {project}", job.id);
        let url = self.url(project, &format!("jobs/{}/trace", job.id))?;
        let mut request = self
            .request(Method::GET, url)
            .timeout(TIMEOUT)
            .header(header::RANGE, &format!("bytes=-{bytes}"))
            // Logs of ended jobs are often kept in object storage.
            .answered_elsewhere();
        let limit = u64::try_from(bytes).unwrap_or(u64::MAX);
        if let Some(offset) = job
            .log_bytes
            .map(|length| length.saturating_sub(limit))
            .filter(|&offset| offset > 0)
        {
            request = request
                .query("byte_offset", &offset.to_string())
                .query("byte_limit", &limit.to_string());
        }
        let response = request.send().await?;
        if response.status() == StatusCode::RANGE_NOT_SATISFIABLE {
            return Ok(Vec::new());
        }
        if !response.status().is_success() {
            return Err(refusal(response, &object, project, self.token()).await);
        }
        let mut tail: VecDeque<u8> = VecDeque::new();
        let mut stream = std::pin::pin!(response.stream());
        while let Some(chunk) = stream.next().await {
            let chunk = chunk?;
            tail.extend(&chunk[chunk.len().saturating_sub(bytes)..]);
            tail.drain(..tail.len().saturating_sub(bytes));
        }
        Ok(last_lines(
            &String::from_utf8_lossy(tail.make_contiguous()),
            lines,
        ))
    }
}

/// The last lines that are not empty once they are plain.
fn last_lines(log: &str, count: usize) -> Vec<String> {
    let mut secrets: Vec<String> = Vec::new();
    let mut lines: VecDeque<String> = VecDeque::with_capacity(count);
    for line in log.split('\n') {
        let mut line = plain_line(line);
        if let Some(at) = line.find(ADD_MASK) {
            let secret = line.split_off(at + ADD_MASK.len());
            line.push_str(MASK);
            secrets.push(secret.trim().to_owned());
        }
        if line.trim().is_empty() {
            continue;
        }
        if lines.len() == count {
            lines.pop_front();
        }
        lines.push_back(line);
    }
    for secret in secrets.iter().filter(|secret| secret.chars().count() >= 4) {
        for line in lines.iter_mut().filter(|line| line.contains(secret)) {
            *line = line.replace(secret, MASK);
        }
    }
    lines.into()
}

fn plain_line(line: &str) -> String {
    let mut plain = String::with_capacity(line.len());
    let mut characters = line.trim_end_matches('\r').chars().peekable();
    while let Some(character) = characters.next() {
        match character {
            '\u{1b}' => match characters.next() {
                // A control sequence (ECMA-48, section 5.4) ends with a character from @ to ~.
                Some('[') => while characters.next().is_some_and(|c| !('@'..='~').contains(&c)) {},
                // A command string (section 5.6), such as the title of a window, ends with BEL or ESC \.
                Some(']' | 'P' | 'X' | '^' | '_') => {
                    while let Some(inside) = characters.next() {
                        if inside == '\u{7}' || inside == '\u{9c}' {
                            break;
                        }
                        if inside == '\u{1b}' {
                            characters.next_if_eq(&'\\');
                            break;
                        }
                    }
                }
                _ => {}
            },
            '\r' => plain.clear(),
            '\t' => plain.push(' '),
            other if other.is_control() || turns_direction(other) => {}
            other => plain.push(other),
        }
    }
    // What is left of a section mark when its line holds nothing else.
    if plain.starts_with("section_start:") || plain.starts_with("section_end:") {
        plain.clear();
    }
    if let Some((end, _)) = plain.char_indices().nth(LINE_LIMIT) {
        plain.truncate(end);
        plain.push_str("...");
    }
    plain.trim_end().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tail_is_text_without_terminal_codes() {
        let log = "first\nsection_start:1700000000:step_script\r\u{1b}[0K\u{1b}[0K\u{1b}[36;1mExecuting\u{1b}[0;m\n\
                   10%\r50%\r100%\r\n\nsection_end:1700000001:step_script\r\u{1b}[0K\n\u{1b}[31;1mERROR: Job failed\u{1b}[0;m\n";
        assert_eq!(last_lines(log, 3), ["Executing", "100%", "ERROR: Job failed"]);
        assert_eq!(last_lines(log, 1), ["ERROR: Job failed"]);
        assert!(last_lines("", 3).is_empty());
    }

    #[test]
    fn a_log_cannot_command_its_reader() {
        for (line, plain) in [
            ("a\u{1b}]0;title\u{7}b", "ab"),
            (
                "a\u{1b}]8;;https://evil.example\u{1b}\\link\u{1b}]8;;\u{1b}\\b",
                "alinkb",
            ),
            ("a\u{1b}P1;2|payload\u{9c}b", "ab"),
            ("a\u{1b}cb\u{8}\u{0}", "ab"),
            ("approve \u{202e}evorppa\u{202c}", "approve evorppa"),
            ("\u{1b}[", ""),
            ("\u{1b}", ""),
        ] {
            assert_eq!(plain_line(line), plain, "{line:?}");
        }
        assert!(plain_line(&"x".repeat(10_000)).len() < 600);
    }

    #[test]
    fn what_the_job_declared_secret_is_masked_everywhere() {
        let log = "used hunter22 first\n::add-mask::hunter22\nthen hunter22 again\n::add-mask::ab\nab\n";
        assert_eq!(
            last_lines(log, 9),
            [
                "used **** first",
                "::add-mask::****",
                "then **** again",
                "::add-mask::****",
                "ab"
            ]
        );
    }
}
