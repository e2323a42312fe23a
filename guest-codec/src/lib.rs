//! What providers have in common, so that a new one is its vendor's wire format and little else.
//!
//! | to read an upstream | |
//! |---|---|
//! | [`form`] | whether an answer is events or one JSON text, whatever it says of itself |
//! | [`sse`] | server-sent events |
//! | [`event_stream`] | event streams of AWS |
//! | [`json`] | JSON in place: strings that borrow, objects whose values stay raw ([`object!`]) |
//! | [`surrogate`] | characters that servers cut in two |
//! | [`usage`] | token counts |
//! | [`headers`] | limits and times to wait |
//! | [`error`] | errors in every shape, as failures of the Messages API |
//! | [`answers`] | an answer in events, or whole, as what its pieces mean |
//! | [`exchange`] | one call from the request that was sent to the end of its answer |
//!
//! | to read a client | |
//! |---|---|
//! | [`request`] | what is asked for, what is known of the model, and the request to its upstream |
//! | [`messages`] | the request, typed and borrowed |
//! | [`turns`] | the conversation, turn by turn |
//! | [`parts`] | text, images and documents of a turn |
//! | [`offer`] | the tools on offer and the choice among them |
//! | [`names`] | names and ids on both sides |
//! | [`losses`] | what a translation could not carry |
//! | [`effort`] | steps of effort on both sides |
//! | [`estimate`] | tokens, where the upstream cannot count |
//!
//! | to answer a client | |
//! |---|---|
//! | [`ledger`] | what was said so far: a stream said through it is well formed |
//! | [`blocks`] | text, thinking and tool calls that come in any order |
//! | [`carry`] | signatures of upstreams that clients keep |
//! | [`hosted`] | the client's body as clouds take it that serve Claude themselves |
//! | [`proxy`] | the byte proxy, for upstreams that answer Messages themselves |
//! | [`unsigned`] | thinking that is not Anthropic's |
//! | [`tool_input`] | a tool's input as exactly one JSON object |
//!
//! `golden` runs recorded exchanges, in native tests.

pub mod answers;
pub mod blocks;
pub mod carry;
pub mod effort;
pub mod error;
pub mod estimate;
pub mod event_stream;
pub mod exchange;
pub mod form;
#[cfg(not(target_arch = "wasm32"))]
pub mod golden;
pub mod headers;
pub mod hosted;
pub mod json;
pub mod ledger;
pub mod losses;
pub mod messages;
pub mod names;
pub mod offer;
pub mod parts;
pub mod proxy;
pub mod request;
pub mod sse;
pub mod surrogate;
pub mod tool_input;
pub mod turns;
pub mod unsigned;
pub mod usage;
