//! Percent-encoding as RFC 3986, section 2.3, leaves the least unencoded: letters, digits, `-`, `.`, `_` and `~`. Forms of token
//! requests and canonical requests of AWS are written so.

/// Writes `bytes` so that only unreserved characters, and those of `kept`, stand as they are.
pub(super) fn encode_into(out: &mut String, bytes: &[u8], kept: &[u8]) {
    for byte in bytes {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(byte) || kept.contains(byte) {
            out.push(char::from(*byte));
        } else {
            out.push('%');
            out.push_str(&sallyport_protocol::canonical::hex(&[*byte]).to_ascii_uppercase());
        }
    }
}

/// The bytes that an encoded text stands for. `%` that encodes nothing stands for itself.
pub(super) fn decode(text: &str) -> Vec<u8> {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        let digits =
            after.get(..2).filter(|_| *first == b'%').and_then(|digits| std::str::from_utf8(digits).ok());
        let byte =
            digits.filter(|it| !it.starts_with('+')).and_then(|digits| u8::from_str_radix(digits, 16).ok());
        out.push(byte.unwrap_or(*first));
        rest = if byte.is_some() { after.get(2..).unwrap_or_default() } else { after };
    }
    out
}

#[cfg(test)]
mod tests {
    use super::{decode, encode_into};

    fn encode(text: &str) -> String {
        let mut out = String::new();
        encode_into(&mut out, text.as_bytes(), b"");
        out
    }

    #[test]
    fn what_is_encoded_decodes_to_what_it_was() {
        let text = "arn:aws/b +%25~._-\u{e9}=&";
        assert_eq!(encode(text), "arn%3Aaws%2Fb%20%2B%2525~._-%C3%A9%3D%26");
        assert_eq!(decode(&encode(text)), text.as_bytes());
        assert_eq!(decode("%4g%+1%"), b"%4g%+1%");
    }
}
