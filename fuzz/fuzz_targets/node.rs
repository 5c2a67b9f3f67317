//! libFuzzer's way into [`trackless_fuzz::node`].

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| trackless_fuzz::node(data));
