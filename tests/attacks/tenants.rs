//! A tenant that takes more than its share: components that never finish compiling, and version after version of them.

use bytes::Bytes;
use serde_json::json;

use super::{Findings, Site, Until};

/// Uploads of components that loop before they are anything: each is refused. `package` makes one by its number.
pub async fn compile_loops(site: &Site, until: Until, package: impl Fn(usize) -> Bytes) -> Findings {
    let mut findings = Findings::of("components that loop at their start");
    while until.goes_on(findings.rounds) {
        match site.post("/v1/admin/components", &[], package(findings.rounds)).await {
            Ok(answer) => {
                findings.expect(matches!(answer.status, 409 | 413 | 422 | 429 | 503), || format!("{answer}"));
            }
            Err(error) => {
                findings.expect(false, || format!("no answer: {error:#}"));
            }
        }
        findings.rounds += 1;
    }
    findings
}

/// Uploads of one version after the other: at some number of them, or of bytes, the tenant is told that it has enough.
/// `package` makes one by its number; `most` is how many may be taken.
pub async fn uploads(site: &Site, until: Until, most: usize, package: impl Fn(usize) -> Bytes) -> Findings {
    let mut findings = Findings::of("version after version");
    let (mut taken, mut told) = (0, false);
    while (!told && taken <= most) || until.goes_on(findings.rounds.max(1)) {
        match site.post("/v1/admin/components", &[], package(findings.rounds)).await {
            Ok(answer) if answer.status == 200 => taken += 1,
            Ok(answer) => {
                told = true;
                findings.expect(matches!(answer.status, 409 | 413 | 429), || format!("{answer}"));
            }
            Err(error) => {
                findings.expect(false, || format!("no answer: {error:#}"));
            }
        }
        findings.rounds += 1;
        if findings.wrong.len() > 3 {
            break;
        }
    }
    findings.expect(told, || json!({"versions taken, and no end of it": taken}).to_string());
    findings
}
