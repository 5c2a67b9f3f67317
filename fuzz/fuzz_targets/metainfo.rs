//! libFuzzer's way into [`trackless_fuzz::metainfo`].

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| trackless_fuzz::metainfo(data));
