//! Whole numbers in every spelling that JSON has for them: `4000`, `4e3`, `4000.0`, `0.4E+4`.

/// What a value has to be, in the words of an error.
pub(super) const EXPECTED: &str = "a whole number from 0 to 4294967295";

/// The number that a JSON value spells, exactly: `None` for a string, a negative number, a fraction, or more than 32 bits hold.
pub(super) fn whole(raw: &[u8]) -> Option<u32> {
    let text = std::str::from_utf8(raw).ok()?;
    if !text.starts_with(|first: char| first.is_ascii_digit()) {
        return None;
    }
    let (mantissa, exponent) = text.split_once(['e', 'E']).unwrap_or((text, "0"));
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let digits = || whole.bytes().chain(fraction.bytes());
    let zeros = digits().rev().take_while(|digit| *digit == b'0').count();
    let leading = digits().take_while(|digit| *digit == b'0').count();
    let length = whole.len() + fraction.len();
    if zeros == length {
        return Some(0);
    }
    // An exponent that no 64 bits hold makes a fraction or far too much of what is not zero.
    let exponent: i64 = exponent.parse().ok()?;
    let shift =
        exponent.checked_sub(i64::try_from(fraction.len()).ok()?)?.checked_add(i64::try_from(zeros).ok()?)?;
    let shift = u32::try_from(shift).ok()?;
    let mut significant = digits().take(length - zeros).skip(leading);
    let value = significant.try_fold(0_u32, |value, digit| {
        value.checked_mul(10)?.checked_add(u32::from(digit.checked_sub(b'0')?))
    })?;
    value.checked_mul(10_u32.checked_pow(shift)?)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::whole;

    #[test]
    fn every_spelling_counts_as_what_it_is() {
        for (text, value) in [
            ("0", Some(0)),
            ("0.000e99999999999999999999", Some(0)),
            ("4000", Some(4000)),
            ("4e3", Some(4000)),
            ("4E+3", Some(4000)),
            ("4000.0", Some(4000)),
            ("40000e-1", Some(4000)),
            ("0.004e6", Some(4000)),
            ("4294967295", Some(u32::MAX)),
            ("4294967295.000e0", Some(u32::MAX)),
            ("4294967296", None),
            ("1e10", None),
            ("1e99999999999999999999", None),
            ("1e-99999999999999999999", None),
            ("0.5", None),
            ("4000.5", None),
            ("-4000", None),
            ("-0", None),
            ("null", None),
            ("\"4000\"", None),
            ("true", None),
            ("[4000]", None),
        ] {
            assert_eq!(whole(text.as_bytes()), value, "{text}");
        }
    }

    proptest! {
        #[test]
        fn a_spelling_means_what_other_readers_make_of_it(text in "(0|[1-9][0-9]{0,9})(\\.[0-9]{1,4})?([eE][+-]?[0-9]{1,2})?") {
            let value: f64 = text.parse().unwrap();
            if let Some(found) = whole(text.as_bytes()) {
                prop_assert_eq!(f64::from(found).to_bits(), value.to_bits());
            } else {
                prop_assert!(value.fract() > 0.0 || value > f64::from(u32::MAX) || value < 1.0, "{}", text);
            }
        }
    }
}
