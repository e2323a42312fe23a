//! `cargo xtask fuzz splice`
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| sallyport_fuzz::splice::check(data));
