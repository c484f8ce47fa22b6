//! Job logs: what gitlab-ci-local prints, turned into what GitLab stores.
//!
//! gitlab-ci-local prefixes every line of a script with the job's name and adds lines of its own; GitLab's log has
//! the commands in green, their output as it is, and masked values replaced.

/// GitLab's mark in the place of a masked value.
const MASK: &str = "[MASKED]";

/// Replaces masked values in lines of a log.
#[derive(Clone, Default)]
pub(super) struct Masks(Vec<String>);

impl Masks {
    /// Masks for these values; longer ones go first, so that a value inside another leaves no rest.
    pub(super) fn new(values: impl IntoIterator<Item = String>) -> Masks {
        let mut values: Vec<String> = values
            .into_iter()
            .flat_map(|value| value.lines().map(str::to_owned).collect::<Vec<_>>())
            .collect();
        values.retain(|value| value.len() >= 8);
        values.sort_by_key(|value| std::cmp::Reverse(value.len()));
        Masks(values)
    }

    pub(super) fn apply(&self, line: &str) -> String {
        let mut masked = line.to_owned();
        for value in &self.0 {
            if masked.contains(value.as_str()) {
                masked = masked.replace(value.as_str(), MASK);
            }
        }
        masked
    }
}

/// One line of gitlab-ci-local's output.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Line<'a> {
    /// The script is about to run this command.
    Command(&'a str),
    /// The script printed this.
    Output(&'a str),
    /// The script ended with this code.
    Exit(i32),
    /// gitlab-ci-local said this itself, for instance why it could not start.
    Own(&'a str),
}

/// Reads a line printed while the job of that name runs alone.
pub(super) fn read_line<'a>(job: &str, line: &'a str) -> Line<'a> {
    let Some(rest) = line.strip_prefix(job).and_then(|rest| rest.strip_prefix(' ')) else {
        return Line::Own(line);
    };
    if let Some(output) = rest.strip_prefix("> ") {
        if output == "still running..." {
            Line::Own(line)
        } else {
            Line::Output(output)
        }
    } else if let Some(command) = rest.strip_prefix("$ ") {
        Line::Command(command)
    } else if let Some(code) = exit_code(rest) {
        Line::Exit(code)
    } else {
        Line::Own(line)
    }
}

/// The code in `finished in 11 ms  FAIL 3`; a failing `after_script` names itself and decides nothing.
fn exit_code(rest: &str) -> Option<i32> {
    let rest = rest.strip_prefix("finished in ")?;
    let (_, code) = rest.split_once(" FAIL ").or_else(|| rest.split_once(" WARN "))?;
    code.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_told_apart() {
        assert_eq!(read_line("a job", "a job $ make"), Line::Command("make"));
        assert_eq!(read_line("a job", "a job > $ make"), Line::Output("$ make"));
        assert_eq!(
            read_line("a job", "a job finished in 11 ms  FAIL 3 "),
            Line::Exit(3)
        );
        assert_eq!(
            read_line("a", "a > a finished in 1 ms  FAIL 3"),
            Line::Output("a finished in 1 ms  FAIL 3")
        );
        assert_eq!(
            read_line("a", "a finished in 1 ms  WARN 2  after_script"),
            Line::Own("a finished in 1 ms  WARN 2  after_script")
        );
        assert_eq!(read_line("a", "boom"), Line::Own("boom"));
    }

    #[test]
    fn masked_values_are_replaced_and_short_ones_left() {
        let masks = Masks::new([
            "secret-value".to_owned(),
            "secret-value-longer".to_owned(),
            "short".to_owned(),
        ]);
        assert_eq!(masks.apply("x secret-value-longer short"), "x [MASKED] short");
    }
}
