//! A key for one command.

use std::time::Duration;

use towpath::failure::{Failure, Result};
use towpath::scaleway::{Bearer, Field};

use super::ProofArgs;
use super::iam::parse_span;

/// A key for one command.
#[derive(Clone, Debug, clap::Args)]
#[command(next_help_heading = "Scaleway IAM")]
pub(crate) struct MintArgs {
    /// Let the key in the secret make another one for this command, which is deleted when it ends: a key of
    /// application:ID or user:ID
    #[arg(
        long,
        value_name = "BEARER",
        env = "TOWPATH_MINT",
        value_parser = parse_bearer,
        conflicts_with = "dynamic",
        hide_env_values = true
    )]
    pub(crate) mint: Option<Bearer>,
    /// When that key ends by itself, should we be killed [default: five minutes after the run's timeout]
    #[arg(
        long,
        value_name = "DURATION",
        env = "TOWPATH_MINT_FOR",
        value_parser = parse_span,
        requires = "mint",
        hide_env_values = true
    )]
    pub(crate) mint_for: Option<Duration>,
    /// How the key is made and proven
    #[command(flatten)]
    pub(crate) proof: ProofArgs,
}

fn parse_bearer(text: &str) -> Result<Bearer> {
    let wrong = || {
        Failure::usage(format!("{text:?} is no bearer of API keys"))
            .hint("give application:ID or user:ID, with the id that IAM shows")
    };
    let (kind, id) = text.split_once(':').ok_or_else(wrong)?;
    // Ids of all kinds have one format.
    if !Field::ProjectId.accepts(id) {
        return Err(wrong());
    }
    match kind {
        "application" => Ok(Bearer::Application(id.to_owned())),
        "user" => Ok(Bearer::User(id.to_owned())),
        _ => Err(wrong()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bearer_has_a_kind_and_an_id() {
        let id = "6170692e-7363-616c-6577-61792e636f6d";
        let bearer = parse_bearer(&format!("application:{id}")).unwrap();
        assert_eq!(bearer, Bearer::Application(id.to_owned()));
        for wrong in [
            id,
            "application:",
            "group:6170692e-7363-616c-6577-61792e636f6d",
            "",
        ] {
            assert!(parse_bearer(wrong).is_err(), "{wrong:?}");
        }
    }
}
