//! libFuzzer's way into [`trackless_fuzz::bencode`].

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| trackless_fuzz::bencode(data));
