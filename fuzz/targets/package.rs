//! `cargo xtask fuzz package`
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| sallyport_fuzz::package::check(data));
