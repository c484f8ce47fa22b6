//! See `towpath::oci::properties::manifest`.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| towpath::oci::properties::manifest(bytes));
