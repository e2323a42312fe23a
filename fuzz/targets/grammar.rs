//! `cargo xtask fuzz grammar`
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| sallyport_fuzz::grammar::check(data));
