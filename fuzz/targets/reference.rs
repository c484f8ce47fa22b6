//! See `towpath::oci::properties::reference`.

#![no_main]

libfuzzer_sys::fuzz_target!(|text: &str| towpath::oci::properties::reference(text));
