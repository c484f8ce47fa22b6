//! The public formats of the results.

mod promotion;
mod rollback;
mod verification;

pub(crate) use promotion::PromotionReport;
pub(crate) use rollback::RollbackReport;
pub(crate) use verification::VerificationReport;

use std::time::Duration;

/// What all of them begin with.
const SCHEMA: &str = "towpath.image-promote-by-digest/1";

/// Seconds; milliseconds are as exact as anybody can use.
fn seconds(elapsed: Duration) -> f64 {
    (elapsed.as_secs_f64() * 1000.0).round() / 1000.0
}

/// Bytes for people.
fn size(bytes: u64) -> String {
    let mut unit = "B";
    let mut shown = bytes as f64;
    for larger in ["KiB", "MiB", "GiB", "TiB"] {
        if shown < 1024.0 {
            break;
        }
        shown /= 1024.0;
        unit = larger;
    }
    if unit == "B" {
        format!("{bytes} B")
    } else {
        format!("{shown:.1} {unit}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_readable() {
        assert_eq!(size(0), "0 B");
        assert_eq!(size(1023), "1023 B");
        assert_eq!(size(1536), "1.5 KiB");
        assert_eq!(size(520 * 1024 * 1024), "520.0 MiB");
    }
}
