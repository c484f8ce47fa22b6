//! See `towpath::oci::properties::challenge`.

#![no_main]

libfuzzer_sys::fuzz_target!(|text: &str| towpath::oci::properties::challenge(text));
