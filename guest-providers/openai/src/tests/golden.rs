//! Golden cases: `golden/<case>.request.json`, `.upstream.sse` or `.upstream.json`, and `.response.json`, which is all
//! that the exchange said.

use std::fs;
use std::path::{Path, PathBuf};

use sallyport_guest_sdk::provider::{Input, ResponseHead};
use sallyport_guest_sdk::testing::attribute;
use serde::Deserialize;
use serde_json::Value;
use serde_json::value::RawValue;

use super::{Told, assert_legal, request, run};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    upstream_model: String,
    #[serde(default)]
    config: Option<Box<RawValue>>,
    #[serde(default)]
    upstream: Option<Upstream>,
    body: Box<RawValue>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Upstream {
    status: u16,
    headers: std::collections::BTreeMap<String, String>,
}

pub(super) struct Case {
    pub(super) name: String,
    file: File,
    is_stream: bool,
    pub(super) upstream: Vec<u8>,
}

pub(super) fn cases() -> Vec<Case> {
    let mut names: Vec<String> = fs::read_dir(folder())
        .expect("golden/ is there")
        .filter_map(|it| Some(it.ok()?.file_name().to_str()?.strip_suffix(".request.json")?.to_owned()))
        .collect();
    names.sort();
    assert!(names.len() > 50, "all cases are there");
    names.into_iter().map(Case::open).collect()
}

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("golden")
}

impl Case {
    fn open(name: String) -> Self {
        let path = |end: &str| folder().join(format!("{name}.{end}"));
        let file = fs::read(path("request.json")).expect("a request");
        let file = serde_json::from_slice(&file).unwrap_or_else(|error| panic!("{name}: {error}"));
        let is_stream = path("upstream.sse").exists();
        let upstream =
            fs::read(path(if is_stream { "upstream.sse" } else { "upstream.json" })).expect("an upstream");
        Self { name, file, is_stream, upstream }
    }

    /// Runs the case with the upstream's bytes in these pieces.
    pub(super) fn run<'a>(&self, pieces: impl IntoIterator<Item = &'a [u8]>) -> Told {
        let (status, mut headers) = match &self.file.upstream {
            Some(it) => (it.status, it.headers.iter().map(|(n, v)| attribute(n, v)).collect()),
            None => (200, Vec::new()),
        };
        if !headers.iter().any(|it| it.name == "content-type") {
            let media_type =
                if self.is_stream { "text/event-stream; charset=utf-8" } else { "application/json" };
            headers.push(attribute("content-type", media_type));
        }
        let config = self.file.config.as_deref().map_or("{}", RawValue::get);
        let inputs = std::iter::once(Input::Head(ResponseHead { status, headers }))
            .chain(pieces.into_iter().map(|it| Input::Chunk(it.to_vec())))
            .chain([Input::End]);
        run(config, request(self.file.body.get(), &self.file.upstream_model), inputs)
    }
}

#[test]
fn each_case_comes_out_as_recorded() {
    let actual_folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/golden-openai");
    let mut wrong = Vec::new();
    for case in cases() {
        let actual = case.run([case.upstream.as_slice()]);
        assert_legal(&actual.events, actual.failure.is_none() && !actual.events.is_empty());
        let actual = actual.json();
        let name = format!("{}.response.json", case.name);
        let expected =
            fs::read(folder().join(&name)).ok().and_then(|it| serde_json::from_slice::<Value>(&it).ok());
        if expected.as_ref() != Some(&actual) {
            fs::create_dir_all(&actual_folder).expect("the folder for what came out");
            let text = serde_json::to_string_pretty(&actual).expect("JSON") + "\n";
            fs::write(actual_folder.join(&name), text).expect("what came out is written");
            wrong.push(name);
        }
    }
    assert!(wrong.is_empty(), "what came out is in {}: {wrong:?}", actual_folder.display());
}

#[test]
fn a_stream_comes_out_the_same_at_every_byte_split() {
    for case in cases() {
        let whole = case.run([case.upstream.as_slice()]);
        let mut splits: Vec<Vec<&[u8]>> = vec![case.upstream.chunks(1).collect()];
        // A whole reply is collected before it is read: one byte at a time says it all.
        let streamed = if whole.events.is_empty() { 0 } else { case.upstream.len() };
        for at in 1..streamed {
            let (a, b) = case.upstream.split_at(at);
            splits.push(vec![a, b]);
        }
        for pieces in splits {
            let split = case.run(pieces.iter().copied());
            let at = pieces.first().map(|it| it.len());
            assert_eq!(split.failure, whole.failure, "{} at {at:?}", case.name);
            assert_eq!(split.done, whole.done, "{} at {at:?}", case.name);
            assert_eq!(split.message, whole.message, "{} at {at:?}", case.name);
            if whole.failure.is_none() {
                assert_eq!(split.events, whole.events, "{} at {at:?}", case.name);
            }
            assert_legal(&split.events, whole.failure.is_none() && !whole.events.is_empty());
        }
    }
}

#[test]
fn a_stream_cut_at_any_byte_is_whole_or_a_failure() {
    for case in cases() {
        let whole = case.run([case.upstream.as_slice()]);
        if whole.failure.is_some() || whole.events.is_empty() {
            continue;
        }
        for at in 0..case.upstream.len() {
            let cut = case.run([case.upstream.get(..at).unwrap_or_default()]);
            match &cut.failure {
                Some(failure) => {
                    assert_eq!(
                        (failure.status, failure.error_type.as_str()),
                        (502, "api_error"),
                        "{} at {at}",
                        case.name
                    );
                    assert!(!cut.done);
                    assert_legal(&cut.events, false);
                }
                None => assert_legal(&cut.events, true),
            }
        }
    }
}
