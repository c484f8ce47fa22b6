//! Reports of type dotenv, read by GitLab's grammar instead of gitlab-ci-local's more forgiving one.

/// A self-managed instance's limit of variables in one report.
const MAX_VARIABLES: usize = 20;
/// The size, in bytes, a report must stay under.
const MAX_BYTES: usize = 5 * 1024;

/// The variables of a report, or GitLab's reason for refusing the upload.
pub(super) fn parse(report: &[u8]) -> Result<Vec<(String, String)>, String> {
    if report.len() >= MAX_BYTES {
        return Err(format!(
            "Dotenv Artifact Too Big. Maximum Allowable Size: {MAX_BYTES}"
        ));
    }
    let text = String::from_utf8_lossy(report);
    let mut variables: Vec<(String, String)> = Vec::new();
    for line in text.trim_start_matches('\u{feff}').lines() {
        let (key, value) = line.split_once('=').ok_or("Invalid Format")?;
        let (key, value) = (key.trim(), value.trim());
        if key.is_empty()
            || !key
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
        {
            return Err("Validation failed: Key can contain only letters, digits and '_'.".into());
        }
        variables.retain(|(seen, _)| seen != key);
        variables.push((key.to_owned(), value.to_owned()));
    }
    if variables.len() > MAX_VARIABLES {
        return Err(format!(
            "Dotenv files cannot have more than {MAX_VARIABLES} variables"
        ));
    }
    Ok(variables)
}

#[cfg(test)]
mod tests {
    use super::parse;

    #[test]
    fn lines_are_keys_and_values_and_nothing_else() {
        let read = parse(b"A=1\nB= x=y \nA=2\n").unwrap();
        assert_eq!(
            read,
            [
                ("B".to_owned(), "x=y".to_owned()),
                ("A".to_owned(), "2".to_owned())
            ]
        );
        assert_eq!(parse(b"A=\"q\"\n").unwrap()[0].1, "\"q\"");
    }

    #[test]
    fn what_gitlab_refuses_is_refused() {
        assert_eq!(parse(b"A=1\n\nB=2\n").unwrap_err(), "Invalid Format");
        assert_eq!(parse(b"# note\n").unwrap_err(), "Invalid Format");
        assert!(parse(b"A-B=1\n").unwrap_err().contains("Key can contain only"));
        assert!(parse(&vec![b'a'; 5 * 1024]).unwrap_err().contains("Too Big"));
        let many: String = (0..21).map(|n| format!("K{n}=1\n")).collect();
        assert!(parse(many.as_bytes()).unwrap_err().contains("more than 20"));
    }
}
