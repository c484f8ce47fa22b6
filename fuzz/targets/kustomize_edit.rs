//! See `towpath::kustomize::properties::kustomize_edit`.

#![no_main]

libfuzzer_sys::fuzz_target!(|text: &str| towpath::kustomize::properties::kustomize_edit(text));
