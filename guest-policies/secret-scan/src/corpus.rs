//! The corpus: a true example of every format, and thousands of texts that look like secrets and are none. All of it is drawn
//! here from a seed, so that nothing in this repository looks like a live key, and every run sees the same.

#![expect(
    clippy::format_collect,
    clippy::string_slice,
    reason = "texts of a test, made and cut as they are shortest to write"
)]

use sallyport_guest_sdk::{
    scanner::{Scanner, TextKind},
    testing::configured,
};

use crate::formats::Check;
use crate::{Action, SecretScan};

const LOWER: &str = "abcdefghijklmnopqrstuvwxyz";
const ALNUM: &str = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789";
const BASE64: &str = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
const URL: &str = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_-";
const HEX: &str = "0123456789abcdef";
const DIGITS: &str = "0123456789";
const BASE32: &str = "0123456789ABCDEFGHJKMNPQRSTVWXYZ";

/// Texts of each innocent kind.
const OF_EACH: usize = 90;

/// A source of chance that always says the same.
pub(crate) struct Draw(u64);

/// A text, the rule that has to find something in it, and what.
pub(crate) struct Example {
    pub(crate) text: String,
    pub(crate) rule: String,
    pub(crate) secret: String,
}

impl Draw {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1)
    }

    pub(crate) fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 >> 11).unwrap() % bound
    }

    pub(crate) fn of(&mut self, alphabet: &str, length: usize) -> String {
        let letters = alphabet.as_bytes();
        (0..length).map(|_| char::from(letters[self.below(letters.len())])).collect()
    }

    fn hex(&mut self, length: usize) -> String {
        self.of(HEX, length)
    }

    fn word(&mut self) -> &'static str {
        const WORDS: [&str; 24] = [
            "token", "secret", "user", "cache", "buffer", "handler", "password", "session", "render",
            "index", "service", "client", "config", "module", "request", "response", "api", "key", "auth",
            "state", "worker", "stream", "policy", "bearer",
        ];
        WORDS[self.below(WORDS.len())]
    }

    fn uuid(&mut self) -> String {
        format!("{}-{}-4{}-a{}-{}", self.hex(8), self.hex(4), self.hex(3), self.hex(3), self.hex(12))
    }

    fn one<'a>(&mut self, texts: &[&'a str]) -> &'a str {
        texts[self.below(texts.len())]
    }
}

fn base64(bytes: &[u8]) -> String {
    let letters = BASE64.as_bytes();
    let group = |three: &[u8]| {
        let bits = three.iter().fold(0_usize, |bits, byte| bits << 8 | usize::from(*byte))
            << (8 * (3 - three.len()));
        let letter = |at: usize| char::from(letters[bits >> (18 - 6 * at) & 63]);
        (0..4).map(|at| if at <= three.len() { letter(at) } else { '=' }).collect::<String>()
    };
    bytes.chunks(3).map(group).collect()
}

/// Several examples of each format in the list: its runs as short as they may be, as long as they often are, and between.
pub(crate) fn examples(scanner: &SecretScan) -> Vec<Example> {
    let formats = &scanner.detectors.formats;
    let mut examples = Vec::new();
    for (number, format) in formats.list.iter().enumerate() {
        for take in 0..4_usize {
            let mut draw = Draw::new((number * 7 + take + 1) as u64);
            let length = |least: usize, most: usize| {
                least + [0, (most - least) / 2, (most - least).min(60), (most - least).min(11)][take]
            };
            let made = match format.check {
                Some(Check::Basic) => {
                    let pair = format!("svc-{}:{}", draw.word(), draw.of(ALNUM, 12 + take));
                    format!(
                        "{}asic {}",
                        &format.shape.example(|least, _| least, |from| from[0])[..1],
                        base64(pair.as_bytes())
                    )
                }
                _ => format.shape.example(length, |from| from[draw.below(from.len())]),
            };
            let found = format.shape.from(made.as_bytes(), 0).unwrap_or_else(|| panic!("{made} is none"));
            let secret = made[found.secret].to_owned();
            let rule = formats.rules[format.rule].clone();
            let (before, after) = match format.named.first() {
                Some(name) => [
                    (format!("{}=", name.to_uppercase()), "\n"),
                    (format!("\"{name}\": \""), "\""),
                    (format!("export MY_{} = '", name.to_uppercase()), "'"),
                    (format!("{{\\\"{name}\\\":\\\""), "\\\"}"),
                ][take]
                    .clone(),
                None => [
                    ("use ".to_owned(), ", please"),
                    ("{\"x\":\"".to_owned(), "\"}"),
                    ("line\\n".to_owned(), "\\n"),
                    ("curl https://example.com/?q=".to_owned(), "\n"),
                ][take]
                    .clone(),
            };
            examples.push(Example { text: format!("{before}{made}{after}"), rule, secret });
        }
    }
    examples
}

/// A kind of text that is no secret, by its name.
type Kind = (&'static str, fn(&mut Draw) -> String);

/// Texts without a secret.
const INNOCENT: &[Kind] = &[
    ("uuid", |d| format!("id: {}", d.uuid())),
    ("uuid of a token", |d| format!("token: {}", d.uuid())),
    ("git commit", |d| format!("commit {}\nMerge: {} {}", d.hex(40), d.hex(7), d.hex(7))),
    ("git index line", |d| format!("index {}..{} 100644", d.hex(7), d.hex(7))),
    ("sha256", |d| format!("sha256:{}", d.hex(64))),
    ("md5 sums", |d| format!("{}  {}.tar.gz", d.hex(32), d.word())),
    ("sha512", |d| format!("{}  ./{}.iso", d.hex(128), d.word())),
    ("integrity", |d| format!("\"integrity\": \"sha512-{}==\"", d.of(BASE64, 86))),
    ("integrity sha1", |d| format!("integrity sha1-{}=", d.of(BASE64, 27))),
    ("cargo lock", |d| {
        format!("name = \"{}\"\nversion = \"1.{}.0\"\nchecksum = \"{}\"", d.word(), d.below(90), d.hex(64))
    }),
    ("go sum", |d| {
        format!("github.com/{}/{} v1.{}.0 h1:{}=", d.word(), d.word(), d.below(40), d.of(BASE64, 43))
    }),
    ("poetry lock", |d| {
        format!("{{file = \"{}-1.0-py3-none-any.whl\", hash = \"sha256:{}\"}}", d.word(), d.hex(64))
    }),
    ("pip hashes", |d| format!("{}==2.{} --hash=sha256:{}", d.word(), d.below(9), d.hex(64))),
    ("yarn lock", |d| {
        format!("resolved \"https://registry.yarnpkg.com/{0}/-/{0}-4.0.0.tgz#{1}\"", d.word(), d.hex(40))
    }),
    ("png", |d| format!("data:image/png;base64,iVBORw0KGgo{}", d.of(BASE64, 6_000))),
    ("jpeg", |d| format!("{{\"type\":\"base64\",\"data\":\"/9j/4AAQSkZJRg{}==\"}}", d.of(BASE64, 12_000))),
    ("font", |d| format!("src:url(data:font/woff2;base64,d09GMgABAAAA{})", d.of(BASE64, 4_000))),
    ("base64url blob", |d| format!("cursor={}", d.of(URL, 900))),
    ("hex dump", |d| {
        (0..40)
            .map(|at| format!("{:08x}: {} {} {} {}\n", at * 16, d.hex(8), d.hex(8), d.hex(8), d.hex(8)))
            .collect()
    }),
    ("minified code", |d| {
        (0..60)
            .map(|_| {
                format!(
                    "function {}({},{}){{return {}.{}({}[{}])}}",
                    d.of(LOWER, 1),
                    d.of(LOWER, 1),
                    d.of(LOWER, 1),
                    d.of(LOWER, 1),
                    d.word(),
                    d.of(ALNUM, 2),
                    d.below(99)
                )
            })
            .collect()
    }),
    ("bundled modules", |d| {
        (0..40)
            .map(|_| {
                format!(
                    "\"{}\":(e,t,n)=>{{n.d(t,{{{}:()=>{}}})}},",
                    d.of(ALNUM, 5),
                    d.of(LOWER, 1),
                    d.of(ALNUM, 2)
                )
            })
            .collect()
    }),
    ("source map", |d| {
        format!(
            "\"mappings\":\"{}\"",
            (0..200).map(|_| format!("{},{};", d.of(BASE64, 4), d.of(BASE64, 5))).collect::<String>()
        )
    }),
    ("chunk names", |d| format!("<script src=\"/static/js/main.{}.chunk.js\"></script>", d.hex(20))),
    ("css modules", |d| format!(".{}_{}__{}{{color:#{}}}", d.word(), d.word(), d.of(ALNUM, 5), d.hex(6))),
    ("file path", |d| {
        format!("/home/{}/src/{}/target/debug/deps/lib{}-{}.rlib", d.word(), d.word(), d.word(), d.hex(16))
    }),
    ("nix path", |d| {
        format!(
            "/nix/store/{}-{}-1.2.3/bin/{}",
            d.of("0123456789abcdfghijklmnpqrsvwxyz", 32),
            d.word(),
            d.word()
        )
    }),
    ("log line", |d| {
        format!(
            "2026-11-{:02}T{:02}:{:02}:00.{:03}Z INFO {}{{trace.id=t_{} token.count={}}}: served in {} ms",
            1 + d.below(28),
            d.below(24),
            d.below(60),
            d.below(1000),
            d.word(),
            d.hex(32),
            d.below(99_999),
            d.below(9_999)
        )
    }),
    ("access log", |d| {
        format!(
            "10.0.{}.{} - - \"GET /{}/{}?page={}&token_type=bearer HTTP/1.1\" 200 {}",
            d.below(256),
            d.below(256),
            d.word(),
            d.uuid(),
            d.below(99),
            d.below(99_999)
        )
    }),
    ("syslog", |d| {
        format!(
            "Nov 26 12:00:00 host kernel: [{}.{:06}] usb 1-1: New device {:04x}:{:04x}",
            d.below(99_999),
            d.below(999_999),
            d.below(65_536),
            d.below(65_536)
        )
    }),
    ("stack trace", |d| {
        format!(
            "  File \"/usr/lib/python3/{}.py\", line {}, in {}\n    {} = {}({})",
            d.word(),
            d.below(999),
            d.word(),
            d.word(),
            d.word(),
            d.word()
        )
    }),
    ("java frames", |d| {
        format!(
            "\tat com.example.{}.{}Factory$$Lambda/0x{}.apply(Unknown Source)",
            d.word(),
            d.word(),
            d.hex(16)
        )
    }),
    ("code that reads a key", |d| {
        format!("const {}Key = process.env.{}_API_KEY ?? \"\";", d.word(), d.word().to_uppercase())
    }),
    ("code that makes a key", |d| {
        format!("let {}_token = generate_{}_token(&mut rng, {});", d.word(), d.word(), d.below(99))
    }),
    ("code that compares", |d| {
        format!(
            "if token.startsWith('{}') {{ return password == {}.password }}",
            d.one(&["ghp_", "sk-ant-", "xoxb-", "AKIA", "glpat-", "hvs."]),
            d.word()
        )
    }),
    ("code with a type", |d| {
        format!(
            "pub struct {}Token {{ secret: SecretString, expires_in: u64, {}: [u8; 32] }}",
            d.word(),
            d.word()
        )
    }),
    ("yaml with references", |d| {
        format!(
            "  {}_TOKEN: ${{{{ secrets.{}_TOKEN }}}}\n  password: ${{{}_PASSWORD}}",
            d.word().to_uppercase(),
            d.word().to_uppercase(),
            d.word().to_uppercase()
        )
    }),
    ("dsn with references", |d| {
        format!("postgres://${{DB_USER}}:${{DB_PASSWORD}}@{}:5432/{}", d.word(), d.word())
    }),
    ("dsn of an example", |d| {
        format!(
            "{}://user:password@localhost:{}/{}",
            d.one(&["postgres", "mysql", "amqp", "redis"]),
            d.below(9_999),
            d.word()
        )
    }),
    ("url", |d| {
        format!(
            "https://{}.example.com/{}/{}?ref={}&utm_source={}#{}",
            d.word(),
            d.word(),
            d.of(ALNUM, 11),
            d.hex(8),
            d.word(),
            d.word()
        )
    }),
    ("signed-looking url", |d| {
        format!("https://cdn.example.com/{}.js?v={}&hash={}", d.word(), d.below(9_999), d.hex(20))
    }),
    ("mail address", |d| {
        format!("{}.{}@example.com wrote to {}@lists.example.org", d.word(), d.word(), d.word())
    }),
    ("ulid", |d| format!("01{}", d.of(BASE32, 24))),
    ("object id", |d| format!("ObjectId(\"{}\")", d.hex(24))),
    ("snowflake", |d| {
        format!("\"message_id\":\"1{}\",\"channel\":\"9{}\"", d.of(DIGITS, 18), d.of(DIGITS, 17))
    }),
    ("timestamps", |d| {
        format!(
            "{{\"exp\":17{},\"iat\":17{},\"ms\":17{}}}",
            d.of(DIGITS, 8),
            d.of(DIGITS, 8),
            d.of(DIGITS, 11)
        )
    }),
    ("decimal numbers", |d| {
        format!("0.{} 1.{}e-{} {}", d.of(DIGITS, 16), d.of(DIGITS, 15), d.below(300), d.of(DIGITS, 9))
    }),
    ("phone and order numbers", |d| {
        format!(
            "+49 30 {} order {}-{}-{}",
            d.of(DIGITS, 7),
            d.of(DIGITS, 4),
            d.of(DIGITS, 4),
            d.of(DIGITS, 3)
        )
    }),
    ("message ids", |d| {
        format!("{{\"id\":\"msg_01{}\",\"tool_use_id\":\"toolu_01{}\"}}", d.of(ALNUM, 22), d.of(ALNUM, 22))
    }),
    ("request ids", |d| {
        format!(
            "request-id: req_011{} x-amz-request-id: {} cf-ray: {}-FRA",
            d.of(ALNUM, 21),
            d.of(BASE32, 16),
            d.hex(16)
        )
    }),
    ("objects of a payment api", |d| {
        format!(
            "pi_3{} cus_{} price_1{} evt_1{}",
            d.of(ALNUM, 23),
            d.of(ALNUM, 14),
            d.of(ALNUM, 23),
            d.of(ALNUM, 23)
        )
    }),
    ("publishable keys", |d| {
        format!("pk_live_{} pk_test_{} sb_publishable_{}", d.of(ALNUM, 24), d.of(ALNUM, 24), d.of(URL, 31))
    }),
    ("ids of a model api", |d| {
        format!(
            "chatcmpl-{} asst_{} file-{} org-{} proj_{}",
            d.of(ALNUM, 29),
            d.of(ALNUM, 24),
            d.of(ALNUM, 24),
            d.of(ALNUM, 24),
            d.of(ALNUM, 24)
        )
    }),
    ("ids of a chat", |d| {
        format!("https://example.slack.com/archives/C0{}/p17{}", d.of(BASE32, 9), d.of(DIGITS, 14))
    }),
    ("trace context", |d| format!("traceparent: 00-{}-{}-01", d.hex(32), d.hex(16))),
    ("etag", |d| format!("etag: W/\"{}-{}\" if-none-match: \"{}\"", d.hex(5), d.of(BASE64, 27), d.hex(32))),
    ("ssh public key", |d| format!("ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAI{} me@host", d.of(BASE64, 43))),
    ("rsa public key", |d| format!("ssh-rsa AAAAB3NzaC1yc2EAAAADAQABAAABgQ{}= me@host", d.of(BASE64, 500))),
    ("fingerprint", |d| format!("SHA256:{} (ED25519)", d.of(BASE64, 43))),
    ("certificate", |d| pem_like("CERTIFICATE", d)),
    ("public key", |d| pem_like("PUBLIC KEY", d)),
    ("pgp signature", |d| pem_like("PGP SIGNATURE", d)),
    ("public jwk", |d| {
        format!(
            "{{\"kty\":\"EC\",\"crv\":\"P-256\",\"x\":\"{}\",\"y\":\"{}\",\"kid\":\"{}\"}}",
            d.of(URL, 43),
            d.of(URL, 43),
            d.of(URL, 11)
        )
    }),
    ("half a jwt", |d| format!("eyJhbGciOiJFUzI1NiJ9.{}", d.of(URL, 20))),
    ("placeholders", |d| {
        d.one(&[
            "AKIAIOSFODNN7EXAMPLE",
            "ghp_xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx",
            "sk-ant-api03-your-api-key-goes-here-and-then-some-more",
            "sk-proj-YOUR_OPENAI_API_KEY_GOES_HERE_PLEASE_REPLACE_IT",
            "glpat-your_gitlab_token_here",
            "xoxb-your-token-goes-right-here",
            "github_pat_XXXXXXXXXXXXXXXXXXXXXX_XXXXXXXXXXXXXXXXXXXXXXXXXXXXXXXXXXXXXXXXXXXXXXXXXXXXXXXXXXX",
            "hf_abcdefghijklmnopqrstuvwxyz12345678",
            "npm_000000000000000000000000000000000000",
            "Authorization: Bearer your-access-token-goes-here-1",
            "Authorization: Basic dXNlcjpwYXNzd29yZA==",
            "sk_live_replace_me_with_your_key",
        ])
        .to_owned()
    }),
    ("docker", |d| {
        format!(
            "registry.example.com/{}/{}@sha256:{} {} Up 3 hours",
            d.word(),
            d.word(),
            d.hex(64),
            d.hex(12)
        )
    }),
    ("pods", |d| {
        format!(
            "{}-{}-{}   1/1   Running   0   {}d",
            d.word(),
            d.hex(10),
            d.of("bcdfghjklmnpqrstvwxz2456789", 5),
            d.below(99)
        )
    }),
    ("kubernetes secret reference", |d| {
        format!("secretKeyRef:\n  name: {}-secret\n  key: {}-password", d.word(), d.word())
    }),
    ("arn", |d| format!("arn:aws:iam::{}:role/{}-{}", d.of(DIGITS, 12), d.word(), d.word())),
    ("svg", |d| {
        (0..30)
            .map(|_| {
                format!(
                    "M{}.{} {}l{} {}c-{},{}",
                    d.below(99),
                    d.below(99),
                    d.below(99),
                    d.below(9),
                    d.below(9),
                    d.below(99),
                    d.below(99)
                )
            })
            .collect()
    }),
    ("table", |d| {
        format!(
            "| {} | {} | {:.3} |\n|---|---|---|",
            d.word(),
            d.below(99_999),
            f64::from(u32::try_from(d.below(99_999)).unwrap()) / 7.0
        )
    }),
    ("sql", |d| {
        format!(
            "SELECT {}_id, password_hash FROM {}s WHERE token = $1 AND key LIKE 'sk-%' LIMIT {}",
            d.word(),
            d.word(),
            d.below(99)
        )
    }),
    ("shell", |d| {
        format!(
            "export {}_TOKEN=$(cat /run/secrets/{}_token) && curl -H \"Authorization: Bearer ${}_TOKEN\" https://api.example.com",
            d.word().to_uppercase(),
            d.word(),
            d.word().to_uppercase()
        )
    }),
    ("prose", |d| {
        format!(
            "A {} token starts with {}; the {} secret is rotated each month, and its bearer is the {}.",
            d.word(),
            d.one(&["ghp_", "xoxb-", "sk-ant-", "SG.", "glpat-", "eyJ", "hvs.", "AKIA"]),
            d.word(),
            d.word()
        )
    }),
    ("names in code", |d| {
        format!("{0}_{1}_{2}_{0}.{1}_{2}(self.{0}_{1}_v2, {2}_{0}_{1}_{2})", d.word(), d.word(), d.word())
    }),
    ("camel case", |d| {
        format!("{}Of{}With{}ForEach{}AndThen{}", d.word(), d.word(), d.word(), d.word(), d.word())
    }),
    ("test ids", |d| {
        format!(
            "data-testid=\"{}-{}-{}\" key=\"{}\" aria-labelledby=\":r{}:\"",
            d.word(),
            d.word(),
            d.below(99),
            d.of(ALNUM, 8),
            d.of(LOWER, 1)
        )
    }),
    ("regular expressions", |d| {
        format!("/^(ghp|gho)_[A-Za-z0-9]{{36}}$/ and /sk-[a-zA-Z0-9]{{{}}}/", d.below(60))
    }),
    ("environment", |d| {
        format!(
            "{}_SECRET_NAME=prod/{}/{}-credentials\n{}_TOKEN_TTL=3600",
            d.word().to_uppercase(),
            d.word(),
            d.word(),
            d.word().to_uppercase()
        )
    }),
    ("versions", |d| {
        format!(
            "{}@{}.{}.{}-beta.{}+build.{}",
            d.word(),
            d.below(99),
            d.below(99),
            d.below(99),
            d.below(9),
            d.hex(7)
        )
    }),
    ("ips", |d| {
        format!(
            "2001:db8:{}:{}::{} 192.168.{}.{}:{} {}:{}:{}:{}:{}:{}",
            d.hex(4),
            d.hex(4),
            d.hex(4),
            d.below(256),
            d.below(256),
            d.below(65_535),
            d.hex(2),
            d.hex(2),
            d.hex(2),
            d.hex(2),
            d.hex(2),
            d.hex(2)
        )
    }),
];

fn pem_like(label: &str, draw: &mut Draw) -> String {
    let lines: String = (0..12).map(|_| draw.of(BASE64, 64) + "\n").collect();
    format!("-----BEGIN {label}-----\n{lines}-----END {label}-----\n")
}

#[test]
fn every_format_is_found_and_innocent_texts_are_left_alone() {
    let scanner: SecretScan = configured("{}", SecretScan::configure).unwrap();
    let formats = &scanner.detectors.formats;
    let examples = examples(&scanner);
    let missed: Vec<String> = examples
        .iter()
        .filter(|example| {
            let findings = scanner.scan(TextKind::User, &example.text);
            !findings.iter().any(|found| {
                let range = found.start as usize..found.end as usize;
                found.rule == example.rule && example.text.get(range) == Some(&example.secret)
            })
        })
        .map(|example| {
            let findings = scanner.scan(TextKind::User, &example.text);
            let said: Vec<_> = findings.iter().map(|it| (&it.rule, it.start, it.end)).collect();
            format!("{}: {} {said:?}", example.rule, example.text)
        })
        .collect();

    let (mut texts, mut stopped, mut noted) = (0_usize, Vec::new(), Vec::new());
    for (number, (kind, make)) in INNOCENT.iter().enumerate() {
        for at in 0..OF_EACH {
            let text = make(&mut Draw::new((number * OF_EACH + at + 99) as u64));
            texts += 1;
            for found in scanner.scan(TextKind::ToolOutput, &text) {
                let what = text[found.start as usize..found.end as usize].to_owned();
                let list = if found.action == Action::Flag { &mut noted } else { &mut stopped };
                list.push(format!("{kind}: {} {what}", found.rule));
            }
        }
    }
    let found = examples.len() - missed.len();
    let share = |part: usize, whole: usize| format!("{part} of {whole}");
    println!("formats of {}: {}, in {} rules", formats.version, formats.list.len(), formats.rules.len());
    println!("recall: {} examples found", share(found, examples.len()));
    println!("precision: {} innocent texts refused, {} noted", share(stopped.len(), texts), noted.len());
    assert!(formats.list.len() >= 150 && texts >= 5_000, "{} {texts}", formats.list.len());
    assert!(missed.is_empty(), "{} missed:\n{}", missed.len(), missed.join("\n"));
    assert!(stopped.is_empty(), "{} refused:\n{}", stopped.len(), stopped.join("\n"));
    assert!(noted.is_empty(), "{} noted:\n{}", noted.len(), noted.join("\n"));
}
