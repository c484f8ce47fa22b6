//! How Scaleway's IAM is reached, and how a new key is proven.

use std::time::Duration;

use towpath::cli::parse_duration;
use towpath::scaleway::{API_URL, Field, Proof};
use towpath::vault::SecretPath;

use super::source::parse_field;

/// How Scaleway's IAM is reached, and how a new key is proven.
#[derive(Clone, Debug, clap::Args)]
#[command(next_help_heading = "Scaleway IAM")]
pub(crate) struct ProofArgs {
    /// Where IAM is
    #[command(flatten)]
    pub(crate) api: ApiArgs,
    /// What a new key is tried with: a path of the API that its bearer may read [default: the key's own entry in IAM]
    #[arg(long, value_name = "PATH", env = "TOWPATH_PROOF_PATH", hide_env_values = true)]
    pub(crate) proof_path: Option<String>,
    /// How often in a row a new key has to be good before it is believed: IAM takes a while to know it everywhere
    #[arg(
        long,
        value_name = "N",
        env = "TOWPATH_PROOFS",
        default_value_t = 5,
        value_parser = clap::value_parser!(u32).range(1..=100),
        hide_env_values = true
    )]
    pub(crate) proofs: u32,
    /// How long that may take
    #[arg(
        long,
        value_name = "DURATION",
        env = "TOWPATH_PROVE_WITHIN",
        default_value = "2m",
        value_parser = parse_span,
        hide_env_values = true
    )]
    pub(crate) prove_within: Duration,
    /// The time between two tries
    #[arg(
        long,
        value_name = "DURATION",
        env = "TOWPATH_PROOF_PAUSE",
        default_value = "1s",
        value_parser = parse_span,
        hide_env_values = true
    )]
    pub(crate) proof_pause: Duration,
}

/// Where IAM is.
#[derive(Clone, Debug, clap::Args)]
#[command(next_help_heading = "Scaleway IAM")]
pub(crate) struct ApiArgs {
    /// The address of Scaleway's API
    #[arg(
        long,
        value_name = "URL",
        env = "SCW_API_URL",
        default_value = API_URL,
        hide_env_values = true
    )]
    pub(crate) scw_api_url: String,
}

/// Whose key asks IAM.
#[derive(Clone, Debug, clap::Args)]
#[command(next_help_heading = "Scaleway IAM")]
pub(crate) struct ManagerArgs {
    /// The secret with the key that manages keys, as MOUNT/PATH [default: the secret itself]
    #[arg(
        long,
        value_name = "MOUNT/PATH",
        env = "TOWPATH_IAM_SECRET",
        hide_env_values = true
    )]
    pub(crate) iam_secret: Option<SecretPath>,
    /// That secret's key for a field, when it is not called like the field (repeatable): access_key or secret_key
    #[arg(
        long = "iam-field",
        value_name = "NAME=KEY",
        env = "TOWPATH_IAM_FIELDS",
        value_delimiter = ',',
        value_parser = parse_field,
        hide_env_values = true
    )]
    pub(crate) iam_fields: Vec<(Field, String)>,
}

impl ManagerArgs {
    /// The names of the keys in the secret with the key that manages keys: its own, or those of the secret itself.
    pub(crate) fn fields<'a>(&'a self, of_the_secret: &'a [(Field, String)]) -> &'a [(Field, String)] {
        if self.iam_secret.is_some() {
            &self.iam_fields
        } else {
            of_the_secret
        }
    }
}

impl ProofArgs {
    /// How a new key is proven.
    pub(crate) fn proof(&self) -> Proof {
        Proof {
            path: self.proof_path.clone(),
            successes: self.proofs,
            within: self.prove_within,
            pause: self.proof_pause,
        }
    }
}

/// Reads a duration that may be as long as keys last, `90d`, or as short as a pause, `200ms`.
pub(crate) fn parse_span(text: &str) -> Result<Duration, String> {
    let number = |unit: &str| text.strip_suffix(unit)?.parse::<u64>().ok();
    let days = number("d").and_then(|days| days.checked_mul(24 * 60 * 60));
    let span = days
        .map(Duration::from_secs)
        .or_else(|| number("ms").map(Duration::from_millis));
    match span {
        Some(span) if !span.is_zero() => Ok(span),
        Some(_) => Err("expected more than nothing".to_owned()),
        None => parse_duration(text)
            .map_err(|_| "expected a duration with a unit, such as 30d, 12h or 90s".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_are_days_or_milliseconds_too() {
        assert_eq!(parse_span("30d"), Ok(Duration::from_secs(30 * 86_400)));
        assert_eq!(parse_span("250ms"), Ok(Duration::from_millis(250)));
        assert_eq!(parse_span("1h30m"), Ok(Duration::from_secs(5400)));
        for wrong in ["", "30", "0d", "0ms", "d", "-1d", "99999999999999999999d"] {
            assert!(parse_span(wrong).is_err(), "{wrong:?}");
        }
    }
}
