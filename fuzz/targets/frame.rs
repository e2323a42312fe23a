//! `cargo xtask fuzz frame`
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| sallyport_fuzz::frame::check(data));
