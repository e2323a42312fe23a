//! A browser as far as the gateway's pages need one: cookies, forms, and the word on where a form stood.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use bytes::Bytes;

use crate::client::{Client, Reply};
use crate::gateway::TestApp;

/// Cookies of somebody who comes back from another site.
const RETURNING: [&str; 1] = ["__Host-sp_provider"];

/// Keeps cookies between requests. Follows nothing by itself.
#[derive(Debug, Clone)]
pub struct Browser {
    client: Client,
    /// What the gateway set.
    pub cookies: BTreeMap<String, String>,
    /// What it says of the page that a form stood on.
    pub origin: String,
}

// === impl Browser ===

impl Browser {
    /// A fresh one.
    pub fn of(app: &TestApp) -> Self {
        Self { client: app.client(), cookies: BTreeMap::new(), origin: app.url() }
    }

    /// One in which `name` has signed in.
    pub async fn signed_in(app: &TestApp, name: &str, password: &str) -> Self {
        let mut browser = Self::of(app);
        let reply = browser.sign_in(name, password, "/account").await;
        assert_eq!((reply.status, reply.header("location")), (303, Some("/account")), "{reply}");
        browser
    }

    /// Opens a page.
    pub async fn get(&mut self, target: &str) -> Reply {
        let cookies = self.cookie_header();
        let headers = [("cookie", cookies.as_str()), ("user-agent", "Stories/1.0")];
        let reply = self.client.send("GET", target, &headers, Bytes::new()).await;
        self.keep(&reply);
        reply
    }

    /// Comes to a page from another site: only cookies that were made for that go along.
    pub async fn arrive(&mut self, target: &str) -> Reply {
        let own = self.cookies.iter().filter(|(name, _)| RETURNING.contains(&name.as_str()));
        let pairs: Vec<String> = own.map(|(name, value)| format!("{name}={value}")).collect();
        let cookies = pairs.join("; ");
        let headers = [("cookie", cookies.as_str()), ("user-agent", "Stories/1.0")];
        let reply = self.client.send("GET", target, &headers, Bytes::new()).await;
        self.keep(&reply);
        reply
    }

    /// Sends a form.
    pub async fn submit(&mut self, target: &str, fields: &[(&str, &str)]) -> Reply {
        let cookies = self.cookie_header();
        let headers = [
            ("cookie", cookies.as_str()),
            ("user-agent", "Stories/1.0"),
            ("origin", self.origin.as_str()),
            ("content-type", "application/x-www-form-urlencoded"),
        ];
        let reply = self.client.send("POST", target, &headers, form(fields)).await;
        self.keep(&reply);
        reply
    }

    /// Sends the form of a page as it stands there, with the button `answer`.
    pub async fn answer(&mut self, target: &str, page: &str, answer: &str) -> Reply {
        let hidden = hidden(page);
        let mut fields: Vec<(&str, &str)> = hidden.iter().map(|(n, v)| (n.as_str(), v.as_str())).collect();
        fields.push(("answer", answer));
        self.submit(target, &fields).await
    }

    /// Fills in the form for signing in.
    pub async fn sign_in(&mut self, name: &str, password: &str, next: &str) -> Reply {
        let page = self.get(&format!("/sign-in?next={}", encode(next))).await;
        let page = String::from_utf8_lossy(&page.body).into_owned();
        let hidden = hidden(&page);
        let mut fields: Vec<(&str, &str)> = hidden.iter().map(|(n, v)| (n.as_str(), v.as_str())).collect();
        let (name, tenant) = name.split_once(" of ").unwrap_or((name, "default"));
        fields.extend([("name", name), ("password", password), ("tenant", tenant)]);
        self.submit("/sign-in", &fields).await
    }

    fn cookie_header(&self) -> String {
        let pairs: Vec<String> = self.cookies.iter().map(|(name, value)| format!("{name}={value}")).collect();
        pairs.join("; ")
    }

    fn keep(&mut self, reply: &Reply) {
        for set in reply.headers.get_all("set-cookie") {
            let text = set.to_str().expect("a cookie is ASCII");
            let (name, rest) = text.split_once('=').expect("a cookie has a name");
            let value = rest.split(';').next().unwrap_or_default();
            let site = if RETURNING.contains(&name) { "; SameSite=Lax" } else { "; SameSite=Strict" };
            for part in ["; Path=/", "; Secure", "; HttpOnly", site] {
                assert!(text.contains(part), "{name} without {part}");
            }
            assert!(name.starts_with("__Host-"), "{name}");
            if value.is_empty() {
                self.cookies.remove(name);
            } else {
                self.cookies.insert(name.to_owned(), value.to_owned());
            }
        }
    }
}

/// Where a page leads on to by itself.
pub fn onward(reply: &Reply) -> Option<&str> {
    reply.header("refresh")?.strip_prefix("0; url=")
}

/// The hidden fields of a page's last form that has any, in their order.
pub fn hidden(page: &str) -> Vec<(String, String)> {
    let form = page.split("<form").filter(|form| form.contains("type=\"hidden\"")).last().unwrap_or_default();
    let fields = form.split("<input type=\"hidden\" name=\"").skip(1);
    fields
        .filter_map(|field| {
            let (name, rest) = field.split_once("\" value=\"")?;
            let value = rest.split('"').next()?;
            let value = value
                .replace("&lt;", "<")
                .replace("&gt;", ">")
                .replace("&quot;", "\"")
                .replace("&#39;", "'")
                .replace("&amp;", "&");
            Some((name.to_owned(), value))
        })
        .collect()
}

/// A form as it goes over the wire.
pub fn form(fields: &[(&str, &str)]) -> String {
    let pairs: Vec<String> =
        fields.iter().map(|(name, value)| format!("{}={}", encode(name), encode(value))).collect();
    pairs.join("&")
}

/// Text as it may stand in an address.
pub fn encode(text: &str) -> String {
    text.bytes().fold(String::new(), |mut all, byte| {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            all.push(char::from(byte));
        } else {
            write!(all, "%{byte:02X}").expect("text takes text");
        }
        all
    })
}

/// A value of an address's query.
pub fn query(address: &str, name: &str) -> Option<String> {
    let (_, query) = address.split_once('?')?;
    let value = query.split('&').filter_map(|pair| pair.split_once('=')).find(|(it, _)| *it == name)?.1;
    let mut out = Vec::new();
    let mut rest = value.bytes();
    while let Some(byte) = rest.next() {
        out.push(if byte == b'%' {
            let digits = [rest.next()?, rest.next()?];
            u8::from_str_radix(std::str::from_utf8(&digits).ok()?, 16).ok()?
        } else {
            byte
        });
    }
    String::from_utf8(out).ok()
}
