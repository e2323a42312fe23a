//! Administrative templates of Group Policy: <https://learn.microsoft.com/previous-versions/windows/desktop/policy/admx-schema>.
//!
//! A template has all keys; which are set is what the administrator enters, with our values as what is proposed.

use super::registry::KEY;
use super::{Policy, Setpoint, Setting, xml};

const NAMESPACE: &str = "http://schemas.microsoft.com/GroupPolicy/2006/07/PolicyDefinitions";

/// The policies.
pub(super) fn admx(policy: &Policy) -> String {
    let mut policies = Vec::new();
    for Setting { key, value, .. } in policy.settings() {
        let element = match (&value, policy.seed_types) {
            (Setpoint::Number(_), true) => {
                format!(r#"<decimal id="{key}" valueName="{key}" minValue="1" maxValue="86400" />"#)
            }
            _ => format!(r#"<text id="{key}" valueName="{key}" maxLength="8192" />"#),
        };
        policies.push(format!(r#"    <policy name="{key}" class="Both" displayName="$(string.{key})" explainText="$(string.{key}_about)" presentation="$(presentation.{key})" key="{KEY}">
      <parentCategory ref="Claude" />
      <supportedOn ref="Supported" />
      <elements>
        {element}
      </elements>
    </policy>
"#));
    }
    let policies = policies.concat();
    format!(
        r#"<?xml version="1.0" encoding="utf-8"?>
<policyDefinitions xmlns="{NAMESPACE}" revision="1.0" schemaVersion="1.0">
  <policyNamespaces>
    <target prefix="claude" namespace="Sallyport.Policies.Claude" />
  </policyNamespaces>
  <resources minRequiredRevision="1.0" />
  <supportedOn>
    <definitions>
      <definition name="Supported" displayName="$(string.Supported)" />
    </definitions>
  </supportedOn>
  <categories>
    <category name="Claude" displayName="$(string.Claude)" />
  </categories>
  <policies>
{policies}  </policies>
</policyDefinitions>
"#
    )
}

/// Their texts.
pub(super) fn adml(policy: &Policy) -> String {
    let (mut strings, mut presentations) = (Vec::new(), Vec::new());
    for Setting { key, value, about } in policy.settings() {
        let about = xml(about);
        strings.push(format!(
            "      <string id=\"{key}\">{key}</string>\n      <string id=\"{key}_about\">{about}</string>\n"
        ));
        let control = match (&value, policy.seed_types) {
            (Setpoint::Number(number), true) => {
                format!(r#"<decimalTextBox refId="{key}" defaultValue="{number}">{key}</decimalTextBox>"#)
            }
            _ => format!(
                r#"<textBox refId="{key}"><label>{key}</label><defaultValue>{}</defaultValue></textBox>"#,
                xml(&value.text())
            ),
        };
        presentations.push(format!("      <presentation id=\"{key}\">{control}</presentation>\n"));
    }
    let (strings, presentations) = (strings.concat(), presentations.concat());
    format!(
        r#"<?xml version="1.0" encoding="utf-8"?>
<policyDefinitionResources xmlns="{NAMESPACE}" revision="1.0" schemaVersion="1.0">
  <displayName>Claude</displayName>
  <description>Inference of Claude Desktop and Cowork through a gateway of the organisation</description>
  <resources>
    <stringTable>
      <string id="Claude">Claude</string>
      <string id="Supported">Claude Desktop for Windows</string>
{strings}    </stringTable>
    <presentationTable>
{presentations}    </presentationTable>
  </resources>
</policyDefinitionResources>
"#
    )
}
