//! Card numbers: digits of an issuer with a right check digit.

use std::ops::Range;

/// 13 to 19 digits of an issuer, in one piece or in groups, whose check digit is right.
pub(crate) fn card(bytes: &[u8], at: usize) -> Option<Range<usize>> {
    let before = at.checked_sub(1).and_then(|before| bytes.get(before));
    if before.is_some_and(|byte| {
        byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_' | b'/' | b'+' | b'#')
    }) {
        return None;
    }
    let (mut digits, mut end, mut separator) = (Vec::with_capacity(19), at, None);
    for (offset, byte) in bytes.get(at..)?.iter().enumerate() {
        match byte {
            b'0'..=b'9' if digits.len() < 20 => {
                digits.push(u32::from(byte - b'0'));
                end = at + offset + 1;
            }
            // Groups are of four (American Express: 4, 6, 5) and parted by the same sign everywhere.
            b' ' | b'-'
                if matches!(digits.len(), 4 | 8 | 10 | 12) && separator.is_none_or(|known| known == byte) =>
            {
                separator = Some(byte);
            }
            _ => break,
        }
    }
    let after =
        bytes.get(end).is_some_and(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'/'));
    let fraction = bytes.get(end) == Some(&b'.') && bytes.get(end + 1).is_some_and(u8::is_ascii_digit);
    let varied = digits.iter().any(|digit| Some(digit) != digits.get(1));
    let found = !after && !fraction && varied && issued(&digits) && luhn(&digits);
    found.then_some(at..end)
}

fn issued(digits: &[u32]) -> bool {
    let first = |count: usize| digits.iter().take(count).fold(0, |number, digit| number * 10 + digit);
    match digits.len() {
        15 => matches!(first(2), 34 | 37),
        13 | 19 => first(1) == 4,
        16 => {
            first(1) == 4
                || matches!(first(2), 51..=55 | 65)
                || matches!(first(4), 2221..=2720 | 3528..=3589 | 6011)
        }
        _ => false,
    }
}

fn luhn(digits: &[u32]) -> bool {
    let sum: u32 = digits
        .iter()
        .rev()
        .enumerate()
        .map(|(place, digit)| match (place % 2, digit * 2) {
            (0, _) => *digit,
            (_, doubled) if doubled > 9 => doubled - 9,
            (_, doubled) => doubled,
        })
        .sum();
    sum.is_multiple_of(10)
}
