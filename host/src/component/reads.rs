//! What a policy is told that says which facts it reads: those and nothing else, at a frozen time, so that its verdict
//! follows from them and can be remembered.

use std::future::ready;
use std::sync::Arc;
use std::time::Duration;

use sallyport_protocol::package::Fact;

use super::contract::{
    Attribute, BodyView, Bucket, Budget, Call, Counters, CountersUnreachable, Counting, Principal, Segment,
};

/// A minute, in milliseconds.
const MINUTE: u64 = 60_000;

/// The facts of a call that a policy reads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reads(Vec<Fact>);

/// The body that such a policy is handed: it has no part in the facts.
pub(super) struct BlankBody;

/// The counters of such a policy: one that asks for them is stopped.
pub(super) struct BlankCounters;

// === impl Reads ===

impl Reads {
    /// These facts.
    pub(super) fn of(facts: &[Fact]) -> Self {
        let mut facts = facts.to_vec();
        facts.sort();
        Self(facts)
    }

    /// The call as the policy sees it: what it does not read is empty.
    pub(super) fn seen(&self, call: &Call) -> Call {
        let mut seen = nothing();
        let who = &call.principal;
        for fact in &self.0 {
            match fact {
                Fact::User => seen.principal.user.clone_from(&who.user),
                Fact::Tenant => seen.principal.tenant.clone_from(&who.tenant),
                Fact::Session => seen.principal.session.clone_from(&who.session),
                Fact::Client => seen.principal.client.clone_from(&who.client),
                Fact::Source => seen.principal.source.clone_from(&who.source),
                Fact::Roles => seen.principal.roles.clone_from(&who.roles),
                Fact::Department => seen.principal.department.clone_from(&who.department),
                Fact::Scopes => seen.principal.scopes.clone_from(&who.scopes),
                Fact::Minute => seen.time_ms = minute(call).to_string().into(),
                Fact::Model => seen.model.clone_from(&call.model),
                Fact::Route => seen.route.clone_from(&call.route),
                Fact::Provider => seen.provider.clone_from(&call.provider),
                Fact::Region => seen.region.clone_from(&call.region),
                Fact::Streaming => seen.streaming = call.streaming,
                Fact::MaxTokens => seen.max_tokens = call.max_tokens,
                Fact::BodyBytes => seen.body_bytes = call.body_bytes,
                Fact::MessageCount => seen.message_count = call.message_count,
                Fact::Tools => seen.tools.clone_from(&call.tools),
                Fact::Agent => seen.agent.clone_from(&call.agent),
                Fact::Attribute(name) => seen.attributes.extend(named(call, name).cloned()),
            }
        }
        seen
    }

    /// Adds to `hasher` which facts are read and what they are: two calls that the policy sees differently differ here too.
    pub(crate) fn name(&self, call: &Call, hasher: &mut blake3::Hasher) {
        let who = &call.principal;
        let mut writer = FactWriter(hasher);
        writer.number(self.0.len() as u64);
        for fact in &self.0 {
            match fact {
                Fact::User => writer.field(0, &who.user),
                Fact::Tenant => writer.field(1, &who.tenant),
                Fact::Session => writer.field(2, &who.session),
                Fact::Client => writer.field(3, &who.client),
                Fact::Source => writer.field(4, &who.source),
                Fact::Roles => writer.list(5, &who.roles),
                Fact::Department => writer.optional(6, who.department.as_deref()),
                Fact::Scopes => writer.list(7, &who.scopes),
                Fact::Minute => writer.count(8, minute(call)),
                Fact::Model => writer.field(9, &call.model),
                Fact::Route => writer.field(10, &call.route),
                Fact::Provider => writer.field(11, &call.provider),
                Fact::Region => writer.optional(12, call.region.as_deref()),
                Fact::Streaming => writer.count(13, call.streaming.into()),
                Fact::MaxTokens => {
                    writer.count(14, call.max_tokens.is_some().into());
                    writer.number(call.max_tokens.unwrap_or(0).into());
                }
                Fact::BodyBytes => writer.count(15, call.body_bytes.into()),
                Fact::MessageCount => writer.count(16, call.message_count.into()),
                Fact::Tools => writer.list(17, &call.tools),
                Fact::Agent => writer.optional(18, call.agent.as_deref()),
                Fact::Attribute(name) => {
                    writer.field(19, name);
                    writer.number(named(call, name).count() as u64);
                    for attribute in named(call, name) {
                        writer.text(&attribute.value);
                    }
                }
            }
        }
    }
}

// === impl BlankBody ===

impl BodyView for BlankBody {
    fn bytes(&self) -> &[u8] {
        &[]
    }

    fn texts(&self) -> Vec<Segment> {
        Vec::new()
    }
}

// === impl BlankCounters ===

impl Counters for BlankCounters {
    fn take<'a>(&'a self, _: Bucket<'a>, _: u32) -> Counting<'a, Result<u32, Duration>> {
        Box::pin(ready(Err(CountersUnreachable)))
    }

    fn correct<'a>(&'a self, _: Bucket<'a>, _: u32, _: u32) -> Counting<'a, ()> {
        Box::pin(ready(Err(CountersUnreachable)))
    }

    fn reserve<'a>(&'a self, _: Budget<'a>, _: u64, _: u64) -> Counting<'a, Result<u64, Duration>> {
        Box::pin(ready(Err(CountersUnreachable)))
    }

    fn release<'a>(&'a self, _: Budget<'a>, _: u64, _: u64) -> Counting<'a, ()> {
        Box::pin(ready(Err(CountersUnreachable)))
    }
}

// === private helpers ===

/// Writes facts so that no two of them look like a third: each begins with its number, each text with its length.
struct FactWriter<'a>(&'a mut blake3::Hasher);

impl FactWriter<'_> {
    fn number(&mut self, number: u64) {
        self.0.update(&number.to_le_bytes());
    }

    fn text(&mut self, text: &str) {
        self.number(text.len() as u64);
        self.0.update(text.as_bytes());
    }

    fn count(&mut self, fact: u8, count: u64) {
        self.0.update(&[fact]);
        self.number(count);
    }

    fn field(&mut self, fact: u8, text: &str) {
        self.0.update(&[fact]);
        self.text(text);
    }

    fn optional(&mut self, fact: u8, text: Option<&str>) {
        self.count(fact, text.is_some().into());
        self.text(text.unwrap_or_default());
    }

    fn list(&mut self, fact: u8, texts: &[String]) {
        self.count(fact, texts.len() as u64);
        for text in texts {
            self.text(text);
        }
    }
}

fn named<'a>(call: &'a Call, name: &'a str) -> impl Iterator<Item = &'a Attribute> {
    call.attributes.iter().filter(move |attribute| attribute.name == name)
}

/// When the minute began in which the call came in, in milliseconds since 1970.
fn minute(call: &Call) -> u64 {
    let now: Duration = call.time_ms.parse().map_or(Duration::ZERO, Duration::from_millis);
    now.as_secs() / 60 * MINUTE
}

/// A call of which nothing is known.
fn nothing() -> Call {
    Call {
        trace: Arc::default(),
        time_ms: "0".into(),
        principal: Principal {
            user: Arc::default(),
            tenant: Arc::default(),
            session: Arc::default(),
            client: Arc::default(),
            source: Arc::default(),
            roles: Arc::default(),
            department: None,
            scopes: Arc::default(),
            attributes: Vec::new(),
        },
        model: Arc::default(),
        route: Arc::default(),
        provider: Arc::default(),
        streaming: false,
        max_tokens: None,
        body_bytes: 0,
        message_count: 0,
        tools: Arc::default(),
        agent: None,
        region: None,
        attributes: Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn call() -> Call {
        Call { attributes: vec![attribute("unknown", "[]"), attribute("operation", "message")], ..nothing() }
    }

    fn attribute(name: &str, value: &str) -> Attribute {
        Attribute { name: name.to_owned(), value: value.to_owned() }
    }

    /// Calls that differ from each other in one fact each, with the fact; the last ones in what no fact is.
    fn variants() -> Vec<(Option<Fact>, Call)> {
        let with = |fact: Fact, change: &dyn Fn(&mut Call)| {
            let mut changed = call();
            change(&mut changed);
            (Some(fact), changed)
        };
        let texts = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect::<Arc<[String]>>();
        let mut all = vec![
            with(Fact::User, &|call| call.principal.user = "u_1".into()),
            with(Fact::Tenant, &|call| call.principal.tenant = "acme".into()),
            with(Fact::Session, &|call| call.principal.session = "sess_1".into()),
            with(Fact::Client, &|call| call.principal.client = "sp_cli".into()),
            with(Fact::Source, &|call| call.principal.source = "job".into()),
            with(Fact::Roles, &|call| call.principal.roles = texts(&["a", "b"])),
            with(Fact::Roles, &|call| call.principal.roles = texts(&["ab"])),
            with(Fact::Roles, &|call| call.principal.roles = texts(&[""])),
            with(Fact::Department, &|call| call.principal.department = Some(Arc::default())),
            with(Fact::Department, &|call| call.principal.department = Some("a".into())),
            with(Fact::Scopes, &|call| call.principal.scopes = texts(&["inference"])),
            with(Fact::Minute, &|call| call.time_ms = "60000".into()),
            with(Fact::Model, &|call| call.model = "m".into()),
            with(Fact::Route, &|call| call.route = "*".into()),
            with(Fact::Provider, &|call| call.provider = "echo".into()),
            with(Fact::Region, &|call| call.region = Some("eu".into())),
            with(Fact::Streaming, &|call| call.streaming = true),
            with(Fact::MaxTokens, &|call| call.max_tokens = Some(0)),
            with(Fact::MaxTokens, &|call| call.max_tokens = Some(1)),
            with(Fact::BodyBytes, &|call| call.body_bytes = 1),
            with(Fact::MessageCount, &|call| call.message_count = 1),
            with(Fact::Tools, &|call| call.tools = texts(&["Bash"])),
            with(Fact::Agent, &|call| call.agent = Some("a".into())),
            with(Fact::Attribute("unknown".into()), &|call| call.attributes[0].value = "[\"x\"]".into()),
            with(Fact::Attribute("unknown".into()), &|call| {
                call.attributes.remove(0);
            }),
            with(Fact::Attribute("operation".into()), &|call| call.attributes[1].value = "other".into()),
        ];
        let odd: [&dyn Fn(&mut Call); 4] = [
            &|call| call.trace = "t".into(),
            &|call| call.time_ms = "59999".into(),
            &|call| call.principal.attributes = vec![attribute("a", "b")],
            &|call| call.attributes.push(attribute("request.head", "x: y")),
        ];
        all.extend(odd.map(|change| {
            let mut changed = call();
            change(&mut changed);
            (None, changed)
        }));
        all
    }

    fn name(reads: &Reads, call: &Call) -> blake3::Hash {
        let mut hasher = blake3::Hasher::new();
        reads.name(call, &mut hasher);
        hasher.finalize()
    }

    /// As bytes, since calls of the contract cannot be compared.
    fn shown(call: &Call) -> String {
        format!("{call:?}")
    }

    fn every_fact() -> Vec<Fact> {
        let attributes = ["unknown", "operation"].map(|name| Fact::Attribute(name.to_owned()));
        Fact::NAMED.into_iter().chain(attributes).collect()
    }

    #[test]
    fn a_policy_sees_what_it_reads_and_nothing_else() {
        for fact in every_fact() {
            let reads = Reads::of(std::slice::from_ref(&fact));
            for (of, changed) in variants() {
                let differs = shown(&reads.seen(&changed)) != shown(&reads.seen(&call()));
                assert_eq!(differs, of.as_ref() == Some(&fact), "{fact}: {changed:?}");
            }
        }
        assert_eq!(shown(&Reads::of(&[]).seen(&variants()[0].1)), shown(&nothing()));
    }

    #[test]
    fn two_calls_have_one_name_where_the_policy_cannot_tell_them_apart_and_nowhere_else() {
        let mut sets: Vec<Vec<Fact>> = every_fact().into_iter().map(|fact| vec![fact]).collect();
        sets.extend([
            Vec::new(),
            every_fact(),
            vec![Fact::User, Fact::Tenant],
            vec![Fact::Roles, Fact::Scopes],
        ]);
        for reads in sets.iter().map(|facts| Reads::of(facts)) {
            let calls: Vec<Call> = variants().into_iter().map(|(_, call)| call).chain([call()]).collect();
            for one in &calls {
                for other in &calls {
                    let alike = shown(&reads.seen(one)) == shown(&reads.seen(other));
                    assert_eq!(
                        name(&reads, one) == name(&reads, other),
                        alike,
                        "{reads:?}: {one:?} {other:?}"
                    );
                }
            }
        }
    }

    #[test]
    fn what_is_read_is_part_of_the_name_in_whatever_order_it_was_declared() {
        let of = |facts: &[Fact]| name(&Reads::of(facts), &call());
        assert_eq!(of(&[Fact::User, Fact::Model]), of(&[Fact::Model, Fact::User]));
        assert_ne!(of(&[Fact::User]), of(&[Fact::Model]));
        assert_ne!(of(&[]), of(&[Fact::Model]));
    }
}
