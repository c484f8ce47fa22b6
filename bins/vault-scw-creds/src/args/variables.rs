//! Which variables are made of the credentials.

use towpath::failure::{Failure, Result};

use super::parse_pair;

/// Which variables are made of the credentials, besides Scaleway's own.
#[derive(Clone, Debug, clap::Args)]
#[command(next_help_heading = "Variables")]
pub(crate) struct VariableArgs {
    /// Also set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, for state on Object Storage
    #[arg(long, env = "TOWPATH_AWS", hide_env_values = true)]
    pub(crate) aws: bool,
    /// Also set TF_VAR_NAME to a key of the secret (repeatable)
    #[arg(
        long = "tf-var",
        value_name = "NAME=KEY",
        env = "TOWPATH_TF_VARS",
        value_delimiter = ',',
        value_parser = parse_tf_var,
        hide_env_values = true
    )]
    pub(crate) tf_vars: Vec<(String, String)>,
}

fn parse_tf_var(text: &str) -> Result<(String, String)> {
    let (name, key) = parse_pair(text)?;
    // Terraform would also take a `-`, which no shell can export.
    if !name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_') {
        return Err(Failure::usage(format!(
            "{name:?} is no name for a Terraform variable that comes from the environment"
        )));
    }
    Ok((name.to_owned(), key.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_one_that_shells_can_export() {
        assert!(parse_tf_var("a=b").is_ok());
        assert!(parse_tf_var("a b=c").is_err());
    }
}
