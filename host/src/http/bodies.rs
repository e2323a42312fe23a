//! Bodies of requests in memory: how many bytes one caller, one tenant and all together may hold, and how slowly a body may come.
//! What a body holds is given back when the last part of the gateway lets go of it.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use axum::body::Body;
use axum::http::{HeaderMap, header};
use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt as _;
use tokio::time::Instant;

use super::error::ApiError;

/// A body that comes more slowly, over each stretch as long as the grace, is not waited for.
pub(super) const MIN_BYTES_PER_SECOND: u64 = 4096;
/// Bytes are counted in steps of this size.
const STEP: usize = 64 * 1024;

/// What bodies hold now.
#[derive(Debug)]
pub(crate) struct Bodies {
    held: Mutex<HeldBytes>,
}

#[derive(Debug, Default)]
struct HeldBytes {
    total: usize,
    tenants: HashMap<Arc<str>, usize>,
    users: HashMap<BodyOwner, usize>,
}

/// A tenant and a user of it.
pub(super) type BodyOwner = (Arc<str>, Arc<str>);

/// How much bodies may hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct BodyLimits {
    /// One body.
    pub(crate) each: usize,
    /// All of them. A tenant may hold half of it, a user an eighth, but always one body.
    pub(crate) total: usize,
    /// Over how long the speed of a body is measured, again and again.
    pub(crate) grace: Duration,
}

/// Whose share is used up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Full {
    User,
    Tenant,
    Everybody,
}

/// Why a body is not read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Unread {
    Encoded,
    TooLarge,
    TooSlow,
    BrokeOff,
    Full(Full),
}

/// The bytes that one body holds.
#[derive(Debug)]
struct BodyShare {
    bodies: Arc<Bodies>,
    owner: BodyOwner,
    bytes: usize,
}

/// A body with what it holds.
struct HeldBody {
    bytes: BytesMut,
    _share: BodyShare,
}

// === impl Bodies ===

impl Bodies {
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self { held: Mutex::default() })
    }

    /// Reads the body of a caller who is known.
    pub(super) async fn read(
        self: &Arc<Self>,
        headers: &HeaderMap,
        body: Body,
        owner: BodyOwner,
        limits: &BodyLimits,
        request_id: &str,
    ) -> Result<Bytes, ApiError> {
        let share = BodyShare { bodies: Arc::clone(self), owner, bytes: 0 };
        collect(headers, body, share, limits).await.map_err(|unread| match unread {
            Unread::Encoded => ApiError::unreadable(
                "the gateway takes bodies without content or transfer coding only",
                request_id,
            ),
            Unread::TooLarge => ApiError::too_large(limits.each, request_id),
            Unread::TooSlow => ApiError::too_slow(request_id),
            Unread::BrokeOff => ApiError::unreadable("the body broke off", request_id),
            Unread::Full(full) => ApiError::bodies_full(full, request_id),
        })
    }

    /// How many bytes they hold.
    pub(super) fn total(&self) -> usize {
        self.lock().total
    }

    fn lock(&self) -> MutexGuard<'_, HeldBytes> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

// === impl BodyShare ===

impl BodyShare {
    /// Makes room for a body of `length` bytes.
    fn grow(&mut self, length: usize, limits: &BodyLimits) -> Result<(), Full> {
        if length <= self.bytes {
            return Ok(());
        }
        let more = length.next_multiple_of(STEP) - self.bytes;
        let share = |part: usize| (limits.total / part).max(limits.each.next_multiple_of(STEP));
        let mut held = self.bodies.lock();
        if held.total + more > share(1) {
            return Err(Full::Everybody);
        }
        if held.tenants.get(&self.owner.0).copied().unwrap_or(0) + more > share(2) {
            return Err(Full::Tenant);
        }
        if held.users.get(&self.owner).copied().unwrap_or(0) + more > share(8) {
            return Err(Full::User);
        }
        held.total += more;
        *held.tenants.entry(Arc::clone(&self.owner.0)).or_default() += more;
        *held.users.entry(self.owner.clone()).or_default() += more;
        drop(held);
        self.bytes += more;
        Ok(())
    }
}

impl Drop for BodyShare {
    fn drop(&mut self) {
        if self.bytes == 0 {
            return;
        }
        let mut held = self.bodies.lock();
        held.total = held.total.saturating_sub(self.bytes);
        give_back(&mut held.tenants, &self.owner.0, self.bytes);
        give_back(&mut held.users, &self.owner, self.bytes);
    }
}

// === impl HeldBody ===

impl AsRef<[u8]> for HeldBody {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

// === private helpers ===

/// Reads a body into one buffer, as long as it comes fast enough and there is room for it.
async fn collect(
    headers: &HeaderMap,
    mut body: Body,
    mut share: BodyShare,
    limits: &BodyLimits,
) -> Result<Bytes, Unread> {
    // Reserved address space, not memory: what does not come is never touched.
    let mut bytes = BytesMut::with_capacity(announced(headers, limits.each)?.unwrap_or(STEP));
    // What came quickly buys no time for what follows: a body that stops a byte before its end would be held for hours.
    let due = limits.grace.as_millis() * u128::from(MIN_BYTES_PER_SECOND) / 1000;
    let (mut since, mut came) = (Instant::now(), 0);
    loop {
        let deadline = since + limits.grace;
        let frame = tokio::time::timeout_at(deadline, body.frame()).await.map_err(|_| Unread::TooSlow)?;
        let Some(frame) = frame else { break };
        let Ok(data) = frame.map_err(|_| Unread::BrokeOff)?.into_data() else { continue };
        let length = bytes.len() + data.len();
        if length > limits.each {
            return Err(Unread::TooLarge);
        }
        share.grow(length, limits).map_err(Unread::Full)?;
        came += data.len() as u128;
        if came >= due {
            (since, came) = (Instant::now(), 0);
        }
        bytes.extend_from_slice(&data);
    }
    Ok(Bytes::from_owner(HeldBody { bytes, _share: share }))
}

/// The length that a request announces, where it does and it is one that is read.
fn announced(headers: &HeaderMap, limit: usize) -> Result<Option<usize>, Unread> {
    let coded = |name, plain: &str| {
        headers.get_all(name).iter().any(|coding| !coding.as_bytes().eq_ignore_ascii_case(plain.as_bytes()))
    };
    // A coding below the chunks would be passed on as it is, with nobody told of it.
    if coded(header::CONTENT_ENCODING, "identity") || coded(header::TRANSFER_ENCODING, "chunked") {
        return Err(Unread::Encoded);
    }
    let announced = headers.get(header::CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse().ok());
    if announced.is_some_and(|length: usize| length > limit) {
        return Err(Unread::TooLarge);
    }
    Ok(announced)
}

fn give_back<K: std::hash::Hash + Eq>(counts: &mut HashMap<K, usize>, key: &K, bytes: usize) {
    if let Some(count) = counts.get_mut(key) {
        *count = count.saturating_sub(bytes);
        if *count == 0 {
            counts.remove(key);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: BodyLimits = BodyLimits { each: 2 * STEP, total: 32 * STEP, grace: Duration::from_secs(1) };

    fn share(bodies: &Arc<Bodies>, tenant: &str, user: &str) -> BodyShare {
        BodyShare { bodies: Arc::clone(bodies), owner: (tenant.into(), user.into()), bytes: 0 }
    }

    #[test]
    fn a_user_a_tenant_and_all_hold_their_parts_and_give_them_back() {
        let bodies = Bodies::new();
        let take = |tenant: &str, user: &str| {
            let mut share = share(&bodies, tenant, user);
            share.grow(2 * STEP, &LIMITS).map(|()| share)
        };
        let mut held = vec![take("a", "u1").unwrap(), take("a", "u1").unwrap()];
        assert_eq!(take("a", "u1").unwrap_err(), Full::User, "an eighth");
        for user in ["u2", "u2", "u3", "u3", "u4", "u4"] {
            held.push(take("a", user).unwrap());
        }
        assert_eq!(take("a", "u5").unwrap_err(), Full::Tenant, "half");
        for user in ["u1", "u1", "u2", "u2", "u3", "u3", "u4", "u4"] {
            held.push(take("b", user).unwrap());
        }
        assert_eq!(take("c", "u1").unwrap_err(), Full::Everybody);
        drop(held);
        let held = bodies.lock();
        assert_eq!((held.total, held.tenants.len(), held.users.len()), (0, 0, 0));
    }

    #[test]
    fn one_body_always_fits_its_user() {
        let bodies = Bodies::new();
        let limits = BodyLimits { each: 16 * STEP, total: 32 * STEP, ..LIMITS };
        let mut share = share(&bodies, "a", "u");
        assert_eq!(share.grow(16 * STEP, &limits), Ok(()));
    }
}
