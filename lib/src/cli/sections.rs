//! Sections of a GitLab job log, which fold (GitLab documentation, "Job logs", "Custom collapsible sections").

use super::{LogFormat, LogTarget, RunArgs, logs};

/// A section that is open. Dropping it closes it.
#[derive(Debug)]
pub struct Section {
    name: String,
    target: LogTarget,
    shown: bool,
}

/// Opens a section under a title, closed to the reader when `folded`. Only in logs for people: a collector of JSON lines
/// has no use for it. What is no letter, digit, dot, dash or underscore is left out of the name, which has to be unique.
#[must_use]
pub fn section(settings: &RunArgs, name: &str, title: &str, folded: bool) -> Section {
    let section = Section {
        name: name
            .chars()
            .filter(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_'))
            .collect(),
        target: settings.log_target,
        shown: settings.log_format == LogFormat::Text,
    };
    section.write("start", if folded { "[collapsed=true]" } else { "" }, title);
    section
}

impl Section {
    fn write(&self, edge: &str, options: &str, title: &str) {
        if !self.shown {
            return;
        }
        let line = mark(edge, &self.name, options, title);
        match self.target {
            LogTarget::Stderr => logs::to_stderr(&line),
            // As for log lines: a closed stream must not end the work.
            LogTarget::Stdout => drop(logs::to_stdout(&line)),
        }
    }
}

impl Drop for Section {
    fn drop(&mut self) {
        self.write("end", "", "");
    }
}

fn mark(edge: &str, name: &str, options: &str, title: &str) -> String {
    let seconds = jiff::Timestamp::now().as_second();
    let title: String = title.chars().filter(|c| !c.is_control()).collect();
    format!("section_{edge}:{seconds}:{name}{options}\r\u{1b}[0K{title}\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mark_is_what_gitlab_reads_and_a_title_cannot_make_another() {
        let start = mark("start", "job_7", "[collapsed=true]", "log of \r\u{1b}[0Ka\nb");
        let (before, title) = start.split_once("\r\u{1b}[0K").unwrap();
        let mut parts = before.split(':');
        assert_eq!(parts.next(), Some("section_start"));
        assert!(parts.next().unwrap().parse::<u64>().is_ok());
        assert_eq!(parts.next(), Some("job_7[collapsed=true]"));
        assert_eq!(title, "log of [0Kab\n");
    }
}
