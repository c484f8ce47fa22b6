//! See `towpath::kaniko::properties::dockerfile`.

#![no_main]

libfuzzer_sys::fuzz_target!(|text: &str| towpath::kaniko::properties::dockerfile(text));
