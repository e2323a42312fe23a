//! `cargo xtask fuzz index`
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| sallyport_fuzz::index::check(data));
