//! What policies said before that say which facts they read: a verdict that follows from these alone holds for every call that
//! has the same ones.

use std::sync::Arc;

use quick_cache::Weighter;
use quick_cache::sync::Cache;

use crate::component::contract::{Attribute, Call, policy};
use crate::component::{Component, Ran};

/// Verdicts that are expected at once: some 250 bytes each.
const EXPECTED: usize = 16_384;
/// Bytes that all of them together may take.
pub(super) const MOST_BYTES: u64 = 8 * 1024 * 1024;
/// Bytes of one that is kept.
const LARGEST: u64 = 4 * 1024;
/// What one takes besides its texts.
const EACH: u64 = 200;

/// Remembered verdicts. The least used ones make room for others.
pub(super) struct VerdictMemory {
    verdicts: Cache<VerdictKey, Arc<RememberedVerdict>, ByBytes>,
}

/// A tenant, a policy with its configuration, and the facts of a call that it reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct VerdictKey([u8; 32]);

/// What a policy said, and the notes that it left.
#[derive(Debug, Clone)]
pub(super) struct RememberedVerdict {
    verdict: policy::Verdict,
    notes: Vec<Attribute>,
}

#[derive(Debug, Clone)]
struct ByBytes;

// === impl VerdictMemory ===

impl VerdictMemory {
    pub(super) fn new() -> Self {
        Self { verdicts: Cache::with_weighter(EXPECTED, MOST_BYTES, ByBytes) }
    }

    pub(super) fn get(&self, key: VerdictKey) -> Option<Arc<RememberedVerdict>> {
        self.verdicts.get(&key)
    }

    /// Keeps what a policy said, if it said it without a fault and in few words.
    pub(super) fn keep(&self, key: VerdictKey, ran: &Ran<policy::Verdict>) {
        let Ok(verdict) = &ran.result else { return };
        // What it logged belongs on the row of the call that it logged for, and what nobody knows here is denied each time.
        if ran.log.is_some() || matches!(verdict, policy::Verdict::Other(_)) {
            return;
        }
        let remembered = RememberedVerdict { verdict: verdict.clone(), notes: ran.notes.clone() };
        if remembered.bytes() <= LARGEST {
            self.verdicts.insert(key, Arc::new(remembered));
        }
    }

    /// Forgets everything: what was said by components that are in force no more need not wait until it is pushed out.
    pub(super) fn clear(&self) {
        self.verdicts.clear();
    }
}

// === impl VerdictKey ===

impl VerdictKey {
    /// The key of what `policy` says about `call`; `None` for a policy that does not say what it reads, or that may not run.
    pub(super) fn of(policy: &Component, call: &Call) -> Option<Self> {
        let reads = policy.reads().filter(|_| policy.barred().is_none())?;
        let mut hasher = blake3::Hasher::new();
        for part in [call.principal.tenant.as_ref(), policy.digest(), policy.config_digest()] {
            hasher.update(&(part.len() as u64).to_le_bytes());
            hasher.update(part.as_bytes());
        }
        reads.name(call, &mut hasher);
        Some(Self(*hasher.finalize().as_bytes()))
    }
}

// === impl RememberedVerdict ===

impl RememberedVerdict {
    /// The same once more, as if the policy had been asked: in no time.
    pub(super) fn again(&self) -> Ran<policy::Verdict> {
        Ran::remembered(self.verdict.clone(), self.notes.clone())
    }

    fn bytes(&self) -> u64 {
        let said = match &self.verdict {
            policy::Verdict::Allow => 0,
            policy::Verdict::Deny(refusal) | policy::Verdict::Ask(refusal) => {
                refusal.code.len() + refusal.reason.len()
            }
            policy::Verdict::Other(said) => said.name.len() + said.value.len(),
        };
        let notes: usize = self.notes.iter().map(|note| note.name.len() + note.value.len() + 48).sum();
        EACH + (said + notes) as u64
    }
}

// === impl ByBytes ===

impl Weighter<VerdictKey, Arc<RememberedVerdict>> for ByBytes {
    fn weight(&self, _: &VerdictKey, remembered: &Arc<RememberedVerdict>) -> u64 {
        remembered.bytes()
    }
}
