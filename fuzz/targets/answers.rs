//! `cargo xtask fuzz answers`
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| sallyport_fuzz::answers::check(data));
