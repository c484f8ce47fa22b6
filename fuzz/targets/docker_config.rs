//! See `towpath::oci::properties::docker_config`.

#![no_main]

libfuzzer_sys::fuzz_target!(|text: &str| towpath::oci::properties::docker_config(text));
