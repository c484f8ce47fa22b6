//! The W3C trace id that runs through the pipelines of all three repositories.
//!
//! Source: W3C Trace Context, section "traceparent header": `00-<32 hex trace id>-<16 hex parent id>-<2 hex flags>`.
//! Spans are not recorded anywhere: the id's only use is that one search finds every log line of one delivery.

use std::fmt;
use std::str::FromStr;

use crate::failure::{Failure, Result};

/// A `traceparent` value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TraceParent {
    trace_id: String,
    parent_id: String,
    flags: String,
}

impl TraceParent {
    /// A new trace id, for the first job of a delivery.
    ///
    /// # Errors
    /// Internal (exit 1) when the system has no random numbers.
    pub fn generate() -> Result<Self> {
        let mut bytes = [0_u8; 24];
        rustls::crypto::ring::default_provider()
            .secure_random
            .fill(&mut bytes)
            .map_err(|_| Failure::internal("the system gave no random numbers for a trace id"))?;
        Ok(TraceParent {
            trace_id: hex(&bytes[..16]),
            parent_id: hex(&bytes[16..]),
            flags: "01".to_owned(),
        })
    }

    /// The 32 hexadecimal digits that stay the same through all pipelines.
    #[must_use]
    pub fn trace_id(&self) -> &str {
        &self.trace_id
    }
}

impl FromStr for TraceParent {
    type Err = Failure;

    fn from_str(value: &str) -> Result<Self> {
        let malformed = || {
            Failure::usage(format!("malformed traceparent {value:?}"))
                .hint("TRACEPARENT reads 00-<32 hex digits>-<16 hex digits>-<2 hex digits>; unset it to start a new trace")
        };
        let parts: Vec<&str> = value.split('-').collect();
        let [version, trace_id, parent_id, flags] = parts[..] else {
            return Err(malformed());
        };
        let is_hex = |part: &str, length: usize| {
            part.len() == length && part.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
        };
        let is_zero = |part: &str| part.bytes().all(|b| b == b'0');
        if version != "00"
            || !is_hex(trace_id, 32)
            || !is_hex(parent_id, 16)
            || !is_hex(flags, 2)
            || is_zero(trace_id)
            || is_zero(parent_id)
        {
            return Err(malformed());
        }
        Ok(TraceParent {
            trace_id: trace_id.to_owned(),
            parent_id: parent_id.to_owned(),
            flags: flags.to_owned(),
        })
    }
}

impl fmt::Display for TraceParent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "00-{}-{}-{}", self.trace_id, self.parent_id, self.flags)
    }
}

fn hex(bytes: &[u8]) -> String {
    use fmt::Write as _;
    bytes.iter().fold(String::new(), |mut text, byte| {
        // Writing to a String cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_generated_value_parses_back() {
        let trace = TraceParent::generate().expect("random numbers");
        assert_eq!(
            trace.to_string().parse::<TraceParent>().expect("well-formed"),
            trace
        );
        assert_ne!(trace, TraceParent::generate().expect("random numbers"));
    }

    #[test]
    fn malformed_values_are_refused() {
        for value in [
            "",
            "00",
            "00-0-0-0",
            "01-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
            "00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-x",
        ] {
            assert!(value.parse::<TraceParent>().is_err(), "{value:?} was accepted");
        }
    }
}
