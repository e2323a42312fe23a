//! What scanners said before: a scanner is pure, so its findings about a text hold for as long as component and configuration
//! stay the same. The second turn of a long conversation costs its new text only.

use std::sync::Arc;

use quick_cache::sync::Cache;
use sallyport_protocol::messages::index::Unit;

use crate::component::Component;
use crate::component::contract::scanner::{Finding, TextKind};

/// Verdicts kept. Nearly all are empty: about 150 bytes each.
const KEPT: usize = 131_072;

/// Remembered findings.
pub(super) struct Memo {
    findings: Cache<[u8; 32], Arc<[Finding]>>,
}

/// A text, named by its hash.
#[derive(Debug, Clone, Copy)]
pub(super) struct TextHash([u8; 32]);

/// A scanner as it is configured, for a tenant: the part of a key that all texts of a request have in common.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Whose([u8; 32]);

/// A text before a scanner, for a tenant.
#[derive(Debug, Clone, Copy)]
pub(super) struct MemoKey([u8; 32]);

// === impl Memo ===

impl Memo {
    pub(super) fn new() -> Self {
        Self { findings: Cache::new(KEPT) }
    }

    pub(super) fn get(&self, key: MemoKey) -> Option<Arc<[Finding]>> {
        self.findings.get(&key.0)
    }

    pub(super) fn keep(&self, key: MemoKey, findings: Arc<[Finding]>) {
        self.findings.insert(key.0, findings);
    }
}

// === impl TextHash ===

impl TextHash {
    /// Its bytes.
    #[cfg(test)]
    pub(super) fn bytes(self) -> [u8; 32] {
        self.0
    }

    /// The hash of a text as it stands in the body.
    pub(super) fn of(raw: &[u8]) -> Self {
        Self(*blake3::hash(raw).as_bytes())
    }

    /// The hash of what a scanner is asked about at once.
    pub(super) fn of_unit(unit: &Unit, body: &[u8]) -> Self {
        if unit.len() == 1 {
            return unit.texts().next().map_or(Self([0; 32]), |text| Self::of(text.span.of(body)));
        }
        let mut hasher = blake3::Hasher::new();
        for text in unit.texts() {
            let raw = text.span.of(body);
            // No text begins like a length.
            hasher.update(&(raw.len() as u64).to_le_bytes());
            hasher.update(raw);
        }
        Self(*hasher.finalize().as_bytes())
    }
}

// === impl Whose ===

impl Whose {
    pub(super) fn of(tenant: &str, scanner: &Component) -> Self {
        let mut hasher = blake3::Hasher::new();
        for part in [tenant, scanner.digest(), scanner.config_digest()] {
            hasher.update(&(part.len() as u64).to_le_bytes());
            hasher.update(part.as_bytes());
        }
        Self(*hasher.finalize().as_bytes())
    }
}

// === impl MemoKey ===

impl MemoKey {
    pub(super) fn of(whose: Whose, kind: TextKind, text: TextHash) -> Self {
        let mut named = [0; 65];
        for (place, byte) in named.iter_mut().zip(whose.0.into_iter().chain([kind as u8]).chain(text.0)) {
            *place = byte;
        }
        Self(*blake3::hash(&named).as_bytes())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use sallyport_protocol::package::Kind;

    use super::*;

    #[test]
    fn tenants_scanners_kinds_and_texts_have_findings_of_their_own() {
        let scanner = |version| Component::stand_in(Kind::Scanner, "acme/scan", version);
        let (one, other) = (scanner("1.0.0"), scanner("2.0.0"));
        let mut keys = HashSet::new();
        for tenant in ["acme", "other"] {
            for scanner in [&one, &other] {
                for kind in [TextKind::User, TextKind::System] {
                    for text in ["Hello", "Goodbye"] {
                        let key =
                            MemoKey::of(Whose::of(tenant, scanner), kind, TextHash::of(text.as_bytes()));
                        keys.insert(key.0);
                    }
                }
            }
        }
        assert_eq!(keys.len(), 16);
    }
}
