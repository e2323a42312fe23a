//! A file on its way to an upstream: judged as the document of a message to the model whose route takes it, and handed on as the bytes it came
//! in. And the files that messages name: those of another tenant are not there.

use std::collections::BTreeSet;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::{HeaderMap, header};
use sallyport_protocol::messages::index::{Index, Malformed, Origin};
use serde_json::json;

use super::passage::{JudgedRequest, StoredPassage, nothing_spent};
use super::{StoredAnswer, StoredKind, is_id};
use crate::component::contract::provider::{Auth, RequestBody, UpstreamRequest};
use crate::config::{Route, RouteTarget};
use crate::pipeline::facts::{Request, minted};
use crate::pipeline::hooks::UserKey;
use crate::pipeline::underway::lost;
use crate::pipeline::{Call, Inbound, Operation, Pipeline, Refusal, route};

/// Longest file: it is judged as a document within a request, which is a third longer.
pub(super) const LONGEST_FILE: usize = 16 * 1024 * 1024;
/// Longest boundary (RFC 2046, section 5.1.1).
const LONGEST_BOUNDARY: usize = 70;
/// What else stands in quotes where a file is named.
const KEYS_OF_LINKS: [&str; 5] = ["type", "container_upload", "file_id", "url", "source"];
/// Most files that one message names.
const MOST_FILES: usize = 100;

/// What a form brings.
#[derive(Debug, PartialEq, Eq)]
struct FileForm<'a> {
    name: &'a str,
    media_type: &'a str,
    content: &'a [u8],
}

// === impl StoredPassage ===

impl StoredPassage {
    pub(super) async fn upload(&mut self) -> Result<StoredAnswer, Refusal> {
        let body = self.inbound.body.clone();
        let upload = FileForm::read(&self.inbound.headers, &body)?;
        self.has_room(StoredKind::File).await?;
        if let Some(record) = self.record() {
            record.note("file_bytes", upload.content.len());
        }
        let routes: Vec<Arc<Route>> = self.config.gateway.routes.clone();
        let takes = |target: &Arc<RouteTarget>| self.offers(target, StoredKind::File);
        let mut models: Vec<String> = Vec::new();
        for route in routes.iter().filter(|route| route.targets().any(takes)) {
            let model = route.models.first().map(|model| model.id.clone());
            models.push(model.unwrap_or_else(|| route.pattern.as_str().replace('*', "")));
        }
        for model in models {
            if let Some((call, target)) = Box::pin(self.addressed(&upload, &model)).await? {
                return self.send_file(call, &target).await;
            }
        }
        Err(Refusal::NotOffered { what: "files" })
    }

    /// The file as a document of a message to `model`, and who keeps it; `None` where the route that takes such a message has no place for
    /// files.
    async fn addressed(
        &mut self,
        upload: &FileForm<'_>,
        model: &str,
    ) -> Result<Option<(Call, Arc<RouteTarget>)>, Refusal> {
        let pipeline = Arc::clone(&self.pipeline);
        let body = Bytes::from(upload.as_message(model));
        let index = Index::parse(&body)?;
        let inbound = Inbound {
            operation: Operation::Message,
            target: self.inbound.target.clone(),
            headers: self.inbound.headers.clone(),
            body: body.clone(),
            principal: Arc::clone(&self.inbound.principal),
            request_id: self.inbound.request_id.clone(),
        };
        let trace = minted(pipeline.clock.as_ref(), pipeline.entropy.as_ref());
        let turn = UserKey::of(&inbound.principal, &[b"file", trace.as_str().as_bytes()]);
        let lineage = self.lineage.clone();
        let mut request = Request::new(inbound, lineage, trace, Arc::new(index), pipeline.clock.as_ref());
        let chosen = route::choose(&pipeline.components, &self.config, &self.bundle, &mut request, false);
        let choice = Box::pin(chosen).await;
        let Some(record) = self.record() else { return Err(lost()) };
        let (route, targets) = match choice.note(record, &body) {
            Ok(chosen) => chosen,
            Err(Refusal::NoRoute { .. } | Refusal::LevelMissing { .. }) => return Ok(None),
            Err(refusal) => return Err(refusal),
        };
        // Who keeps the calls keeps the files: policies are asked about that one.
        let Some(target) = targets.first().filter(|target| self.offers(target, StoredKind::File)).cloned()
        else {
            return Ok(None);
        };
        let mut record = self.lend_record()?;
        record.routed(&route, &target);
        let (bundle, config, request) =
            (Arc::clone(&self.bundle), Arc::clone(&self.config), Arc::new(request));
        let call =
            Call { request, turn, bundle, route, target: Arc::clone(&target), targets, config, record };
        Ok(Some((call, target)))
    }

    async fn send_file(&mut self, call: Call, target: &Arc<RouteTarget>) -> Result<StoredAnswer, Refusal> {
        let pipeline = Arc::clone(&self.pipeline);
        let before = call.request.body.bytes.clone();
        let call = self.call.insert(Box::new(call));
        let judged = Box::pin(pipeline.policies.check(call)).await;
        let Some(call) = self.call.take() else { return Err(lost()) };
        let Call { request, record, .. } = *call;
        self.return_record(record);
        // What was cut out of the document cannot be cut out of the file.
        let changed = request.body.bytes != before;
        let size = request.body.bytes.len();
        self.judged.push(JudgedRequest { request, most: nothing_spent() });
        let sent = match judged {
            Err(refusal) => Err(refusal.of_size(size)),
            Ok(()) if changed => Err(Refusal::EditFailed),
            Ok(()) => self.hand_on(target).await,
        };
        self.settle(false).await;
        sent
    }

    async fn hand_on(&mut self, target: &Arc<RouteTarget>) -> Result<StoredAnswer, Refusal> {
        let wanted = UpstreamRequest {
            method: "POST".to_owned(),
            path: self.inbound.target.clone(),
            headers: self.seen_headers(),
            body: RequestBody::Bytes(self.inbound.body.to_vec()),
            auth: Auth::Credential,
        };
        let answer = self.ask(target, wanted).await?;
        let mut answer = self.whole(answer).await?;
        if answer.is_success() {
            answer.bytes = self.keep(StoredKind::File, target, &answer).await?;
        }
        Ok(answer)
    }
}

// === impl Pipeline ===

impl Pipeline {
    /// Errors: the request names a file that another tenant has. One that nobody here has is the upstream's affair.
    pub(in crate::pipeline) async fn files_are_own(&self, call: &Call) -> Result<(), Refusal> {
        let body = &call.request.body;
        let links = body.index.texts.iter().filter(|text| text.origin == Origin::Link);
        let mut named = BTreeSet::new();
        for link in links {
            // A key and its value, or a block: what stands in quotes there and is none of these keys may be an id.
            let text = link.read(&body.bytes);
            let quoted = text.split('"').filter(|part| is_id(part) && !KEYS_OF_LINKS.contains(part));
            named.extend(quoted.map(str::to_owned));
            if named.len() > MOST_FILES {
                return Err(Malformed::Many { what: "files", most: MOST_FILES }.into());
            }
        }
        let tenant = call.request.principal.tenant.as_str();
        for id in named {
            let elsewhere = self.db.is_stored_elsewhere(tenant, StoredKind::File.as_str(), &id).await;
            if elsewhere.map_err(Refusal::Store)? {
                return Err(Refusal::NotStored { kind: StoredKind::File.as_str(), id });
            }
        }
        Ok(())
    }
}

// === impl FileForm ===

impl<'a> FileForm<'a> {
    /// Reads a form of one file (RFC 7578). What two readers could take for different files is refused: a second part, bytes before or
    /// behind it, a boundary within it, a header that says how it is encoded.
    fn read(headers: &HeaderMap, body: &'a [u8]) -> Result<Self, Refusal> {
        let none =
            |what: &str| Refusal::NoUpload { what: format!("the upload is no form of one file: {what}") };
        let kind = headers.get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok());
        let (media, parameter) = kind.and_then(|kind| kind.split_once(';')).unwrap_or_default();
        if !media.trim().eq_ignore_ascii_case("multipart/form-data") {
            return Err(none("content-type is not multipart/form-data"));
        }
        let boundary = parameter.trim().strip_prefix("boundary=").map(|value| value.trim_matches('"'));
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"'()+_,-./:=?".contains(&byte);
        let fits = |text: &&str| (1..=LONGEST_BOUNDARY).contains(&text.len()) && text.bytes().all(plain);
        let boundary = boundary.filter(fits).ok_or_else(|| none("content-type has no boundary"))?;
        let mark = format!("--{boundary}");
        let rest = body.strip_prefix(mark.as_bytes()).and_then(|rest| rest.strip_prefix(b"\r\n"));
        let rest = rest.ok_or_else(|| none("it does not begin with its boundary"))?;
        let end = memchr::memmem::find(rest, b"\r\n\r\n").ok_or_else(|| none("its part has no head"))?;
        let (head, rest) = rest.split_at_checked(end).unwrap_or_default();
        let rest = rest.strip_prefix(b"\r\n\r\n").unwrap_or_default();
        let at = memchr::memmem::find(rest, mark.as_bytes()).ok_or_else(|| none("it does not end"))?;
        let (content, tail) = rest.split_at_checked(at).unwrap_or_default();
        let content =
            content.strip_suffix(b"\r\n").ok_or_else(|| none("its boundary stands within the file"))?;
        let tail = tail.strip_prefix(mark.as_bytes()).unwrap_or_default();
        if !matches!(tail, b"--" | b"--\r\n") {
            return Err(none("it has more than one part"));
        }
        if content.len() > LONGEST_FILE {
            let what = format!("the file is longer than {LONGEST_FILE} bytes");
            return Err(Refusal::NoUpload { what });
        }
        let head = std::str::from_utf8(head).map_err(|_| none("its head is no text"))?;
        let (mut name, mut media_type) = (None, None);
        for line in head.split("\r\n") {
            let (field, value) = line.split_once(':').ok_or_else(|| none("its head cannot be read"))?;
            if field.eq_ignore_ascii_case("content-disposition") && name.is_none() {
                let value = value.trim().strip_prefix("form-data; name=\"file\"; filename=\"");
                name = value.and_then(|value| value.strip_suffix('"')).filter(|name| !name.contains('"'));
                name.ok_or_else(|| none("its part is not named file, or has no filename"))?;
            } else if field.eq_ignore_ascii_case("content-type") && media_type.is_none() {
                media_type = Some(value.trim());
            } else {
                return Err(none("its part has a header that is not taken"));
            }
        }
        let name = name.ok_or_else(|| none("its part has no name"))?;
        Ok(Self { name, media_type: media_type.unwrap_or("application/octet-stream"), content })
    }

    /// The message whose document it would be.
    fn as_message(&self, model: &str) -> String {
        let source = if let Ok(text) = std::str::from_utf8(self.content) {
            json!({ "type": "text", "media_type": "text/plain", "data": text })
        } else {
            let data = STANDARD.encode(self.content);
            json!({ "type": "base64", "media_type": self.media_type, "data": data })
        };
        let document = json!({ "type": "document", "title": self.name, "source": source });
        json!({ "model": model, "max_tokens": 1, "messages": [{ "role": "user", "content": [document] }] })
            .to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn form(boundary: &str, body: &str) -> Result<(String, String, Vec<u8>), String> {
        let mut headers = HeaderMap::new();
        let kind = format!("multipart/form-data; boundary={boundary}");
        headers.insert(header::CONTENT_TYPE, kind.parse().unwrap());
        let read = FileForm::read(&headers, body.as_bytes()).map_err(|refusal| refusal.to_string())?;
        Ok((read.name.to_owned(), read.media_type.to_owned(), read.content.to_vec()))
    }

    const HEAD: &str =
        "Content-Disposition: form-data; name=\"file\"; filename=\"a b.txt\"\r\nContent-Type: text/plain";

    #[test]
    fn a_form_of_one_file_is_read_as_clients_send_it() {
        for (boundary, end) in [("x-1", "--"), ("\"x-1\"", "--\r\n")] {
            let read = form(boundary, &format!("--x-1\r\n{HEAD}\r\n\r\none\r\ntwo\r\n--x-1{end}")).unwrap();
            assert_eq!(read, ("a b.txt".to_owned(), "text/plain".to_owned(), b"one\r\ntwo".to_vec()));
        }
    }

    #[test]
    fn what_two_readers_could_take_for_different_files_is_refused() {
        let one = |head: &str| format!("--x\r\n{head}\r\n\r\nhi\r\n--x--");
        let other = HEAD.replace("name=\"file\"", "name=\"other\"");
        for body in [
            String::new(),
            "--x--".to_owned(),
            format!("before\r\n{}", one(HEAD)),
            format!("{}after", one(HEAD)),
            format!("--x\r\n{HEAD}\r\n\r\nhi\r\n--x\r\n{HEAD}\r\n\r\nho\r\n--x--"),
            format!("--x\r\n{HEAD}\r\n\r\nhi\n--x--\r\nsecret\r\n--x--"),
            format!("--x\r\n{HEAD}\r\n\r\nhi"),
            one(&other),
            one(&format!("{HEAD}\r\nContent-Transfer-Encoding: base64")),
            one(&format!("{HEAD}\r\n{HEAD}")),
            one("Content-Type: text/plain"),
            one("Content-Disposition: form-data; name=\"file\"; filename=\"a\"; name=\"b\""),
        ] {
            assert!(form("x", &body).is_err(), "{body}");
        }
        assert!(form("", &one(HEAD)).is_err() && form("a b", &one(HEAD)).is_err());
        assert!(form("x; charset=utf-8", &one(HEAD)).is_err());
    }

    #[test]
    fn a_file_is_judged_as_a_document_whatever_its_bytes_are() {
        let judged = |content: &[u8]| {
            let upload = FileForm { name: "a\"b", media_type: "application/pdf", content };
            let message = upload.as_message("claude-opus-4-5");
            let index = Index::parse(message.as_bytes()).unwrap();
            let texts = index.texts.iter().map(|text| text.read(message.as_bytes()).into_owned());
            texts.collect::<Vec<_>>()
        };
        assert!(judged(b"a secret").contains(&"a secret".to_owned()));
        assert!(judged(b"a secret").contains(&"a\"b".to_owned()));
        assert!(!judged(b"\xff\xfe binary").is_empty());
    }
}
