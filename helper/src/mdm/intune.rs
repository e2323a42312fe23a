//! Rows for Microsoft Intune's custom OMA-URI profiles: the template is ingested, then its policies are set.
//! <https://learn.microsoft.com/windows/client-management/win32-and-centennial-app-policy-configuration>

use super::{Policy, Setpoint, admx, xml};

/// The rows, with a head.
pub(super) fn csv(policy: &Policy) -> String {
    let scope = if policy.hkcu { "User" } else { "Device" };
    let mut rows = vec![
        ["Name", "Description", "OMA-URI", "Data type", "Value"].map(str::to_owned),
        [
            "Claude template".to_owned(),
            "Makes the policies below known; goes first.".to_owned(),
            "./Device/Vendor/MSFT/Policy/ConfigOperations/ADMXInstall/Claude/Policy/ClaudeAdmx".to_owned(),
            "String".to_owned(),
            admx::admx(policy),
        ],
    ];
    for setting in policy.settings() {
        let value = match (&setting.value, policy.seed_types) {
            (Setpoint::Switch(switch), true) => u8::from(*switch).to_string(),
            (value, _) => value.text(),
        };
        rows.push([
            setting.key.to_owned(),
            setting.about.to_owned(),
            format!("./{scope}/Vendor/MSFT/Policy/Config/Claude~Policy~Claude/{}", setting.key),
            "String".to_owned(),
            format!("<enabled/><data id=\"{}\" value=\"{}\"/>", setting.key, xml(&value)),
        ]);
    }
    let lines: Vec<String> =
        rows.iter().map(|row| row.each_ref().map(|field| quoted(field)).join(",") + "\r\n").collect();
    lines.concat()
}

/// A field of RFC 4180.
fn quoted(field: &str) -> String {
    format!("\"{}\"", field.replace('"', "\"\""))
}
