//! What only the upstream can read, and has to get back: its signatures of what it thought. The gateway keeps nothing of a
//! conversation, so they travel in the `signature` of thinking blocks, which clients send back as they came. They are marked with
//! whose they are, so that nobody else's upstream gets them: `sallyport.gemini.<signature>`. Signatures of Anthropic's are base64 and
//! never look like that.

/// What a carried signature begins with.
const MARK: &str = "sallyport.";

/// A signature of this vendor's upstream, for the client to keep.
pub fn carried(vendor: &str, signature: &str) -> String {
    format!("{MARK}{vendor}.{signature}")
}

/// The signature that the client kept, if it is one of this vendor's upstream.
pub fn own<'a>(vendor: &str, signature: &'a str) -> Option<&'a str> {
    let signature = signature.strip_prefix(MARK)?.strip_prefix(vendor)?.strip_prefix('.')?;
    (!signature.is_empty()).then_some(signature)
}

#[cfg(test)]
mod tests {
    use super::{carried, own};

    #[test]
    fn a_signature_comes_back_to_its_own_vendor_alone() {
        let kept = carried("gemini", "CiQB+/==");
        assert_eq!(kept, "sallyport.gemini.CiQB+/==");
        assert_eq!(own("gemini", &kept), Some("CiQB+/=="));
        assert_eq!(own("gem", &kept), None);
        for other in ["", "EqQBCkgIARAB", "sallyport.gemini.", "sallyport.other.x"] {
            assert_eq!(own("gemini", other), None, "{other}");
        }
    }
}
