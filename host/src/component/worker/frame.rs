//! What the gateway and its workers say to each other: frames of a length, a message and, for some, bytes as they are.
//!
//! A frame is its length without itself (four bytes, big endian), the message in postcard's form, and what is left. The
//! gateway takes nothing on a worker's word: a frame that is too long, that does not parse, or that answers what nobody
//! asked is the end of the worker.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::confine::Confinement;
use crate::component::contract::{Attribute, Segment, Window, egress};
use crate::component::fault::Fault;
use crate::component::guest::{Load, Unfit};
use crate::component::question::{GuestReply, Question};
use crate::component::state::Scene;

/// Longest frame to a worker: code, or the body of a call.
pub(super) const MAX_ORDER_BYTES: usize = 512 << 20;
/// Longest frame from a worker, whatever the limits of its guests are.
pub(super) const MAX_REPORT_BYTES: usize = 64 << 20;

/// What the gateway says to a worker.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Order<'a> {
    /// Make the code that follows callable under this number.
    Load { guest: u32, load: Cow<'a, Load>, scene: SceneFacts },
    /// Forget it.
    Unload { guest: u32 },
    /// Call it.
    Call { call: u64, guest: u32, scene: SceneFacts, question: Box<Question<'a>> },
    /// What the guest of this call wanted to know.
    HostReply { call: u64, told: HostReply },
}

/// What a worker says.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum WorkerReport {
    /// It is confined and listens.
    Ready(Confinement),
    /// What became of the code.
    Loaded { guest: u32, fit: Result<(), Unfit> },
    /// A guest wants something of the host.
    HostCalls { call: u64, host_call: HostCall },
    /// The end of a call.
    Answered { call: u64, answer: CallReport },
}

/// What a guest may want of the host.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum HostCall {
    Body,
    Texts,
    Take { key: String, cost: u32, limit: u32, window: Duration },
    Correct { key: String, taken: u32, used: u32, limit: u32, window: Duration },
    Reserve { key: String, window: Window, micro: u64, cap: u64 },
    Release { key: String, window: Window, reserved: u64, spent: u64 },
    Fetch { grant: String, request: egress::Request },
}

/// What it gets.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum HostReply {
    /// The bytes follow.
    Body,
    Texts(Vec<Segment>),
    Taken(Result<u32, Duration>),
    Corrected,
    Reserved(Result<u64, Duration>),
    Released,
    /// What counters are kept in cannot be reached.
    Unreachable,
    Fetched(Result<egress::Response, egress::EgressFault>, Duration),
}

/// What a call came to.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct CallReport {
    pub(super) result: Result<GuestReply, Fault>,
    pub(super) micros: u32,
    /// Linear memory at its peak, in bytes.
    pub(super) memory: usize,
    pub(super) notes: Vec<Attribute>,
    pub(super) log: Option<String>,
    pub(super) egress_calls: Vec<EgressUse>,
}

/// One request of a hook, in the order in which the guest made them. What came of the real ones the gateway knows
/// itself.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum EgressUse {
    /// Through a grant, and so through the gateway.
    Granted,
    /// Through a grant of this name, which there is not.
    NoSuchGrant(String),
}

/// A scene as it travels: the component's name the worker knows, and the counters stay where they are.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(in crate::component) struct SceneFacts {
    pub(super) tenant: Arc<str>,
    pub(super) seed: String,
    pub(super) now: Duration,
    pub(super) began: Duration,
    /// Names of the egress grants.
    pub(super) grants: Vec<String>,
}

// === impl SceneFacts ===

impl From<&Scene> for SceneFacts {
    fn from(scene: &Scene) -> Self {
        let Scene { component: _, tenant, seed, now, began, grants, counters: _ } = scene;
        Self {
            tenant: Arc::clone(tenant),
            seed: seed.clone(),
            now: *now,
            began: *began,
            grants: grants.keys().cloned().collect(),
        }
    }
}

/// A whole frame; none if it would be too long.
pub(super) fn encode(message: &impl Serialize, bytes: &[u8]) -> Option<Vec<u8>> {
    let message = postcard::to_allocvec(message).ok()?;
    let length = message.len().checked_add(bytes.len()).filter(|length| *length <= MAX_ORDER_BYTES)?;
    let mut frame = Vec::with_capacity(length + 4);
    frame.extend_from_slice(&u32::try_from(length).ok()?.to_be_bytes());
    frame.extend_from_slice(&message);
    frame.extend_from_slice(bytes);
    Some(frame)
}

/// The length of a frame from its first four bytes; none if it is longer than `most`.
pub(super) fn length(head: [u8; 4], most: usize) -> Option<usize> {
    usize::try_from(u32::from_be_bytes(head)).ok().filter(|length| *length <= most)
}

/// The message of a frame without its length, and the bytes that follow it.
pub(super) fn decode<T: DeserializeOwned>(frame: &[u8]) -> Option<(T, &[u8])> {
    postcard::take_from_bytes(frame).ok()
}

/// The message of a frame that is nothing but a message.
pub(super) fn decode_whole<T: DeserializeOwned>(frame: &[u8]) -> Option<T> {
    decode(frame).filter(|(_, rest)| rest.is_empty()).map(|(message, _)| message)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::component::contract::hook;

    fn report() -> WorkerReport {
        WorkerReport::Answered {
            call: 7,
            answer: CallReport {
                result: Ok(GuestReply::Outcome(hook::Outcome::Block("no".to_owned()))),
                micros: 12,
                memory: 65_536,
                notes: vec![Attribute { name: "a".to_owned(), value: "b".to_owned() }],
                log: None,
                egress_calls: vec![EgressUse::Granted, EgressUse::NoSuchGrant("elsewhere".to_owned())],
            },
        }
    }

    #[test]
    fn a_frame_is_read_as_it_was_written() {
        let frame = encode(&report(), &[]).unwrap();
        let (head, rest) = frame.split_first_chunk::<4>().unwrap();
        assert_eq!(length(*head, MAX_REPORT_BYTES), Some(rest.len()));
        let read: WorkerReport = decode_whole(rest).unwrap();
        assert_eq!(format!("{read:?}"), format!("{:?}", report()));
    }

    #[test]
    fn a_frame_that_is_cut_or_goes_on_is_none() {
        let frame = encode(&report(), &[]).unwrap();
        let payload = &frame[4..];
        for end in 0..payload.len() {
            assert!(decode_whole::<WorkerReport>(&payload[..end]).is_none(), "cut at {end}");
        }
        let longer = [payload, b"x"].concat();
        assert!(decode_whole::<WorkerReport>(&longer).is_none());
    }

    #[test]
    fn a_length_beyond_the_limit_is_refused_before_anything_is_read() {
        assert_eq!(length([0xff; 4], MAX_REPORT_BYTES), None);
        assert_eq!(length([0, 0, 0, 9], MAX_REPORT_BYTES), Some(9));
    }

    #[test]
    fn a_frame_that_claims_a_million_notes_is_garbage_and_takes_no_room() {
        // Answered, call 7, Ok(Settled), 0 micros, 0 bytes, then a list of 2^28 notes of which none is there.
        let frame = [3, 7, 0, 1, 0, 0, 0x80, 0x80, 0x80, 0x80, 0x01];
        assert!(decode_whole::<WorkerReport>(&frame).is_none());
    }
}
