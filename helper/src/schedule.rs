//! Templates that have a system run `sync` now and then: the Task Scheduler, launchd, systemd.

use crate::mdm::xml;
use crate::places::Os;

/// How often.
const MINUTES: u32 = 60;

/// The files of a system, each with its name.
pub(crate) fn templates(os: Os, helper: &str) -> Vec<(&'static str, Vec<u8>)> {
    match os {
        // schtasks reads UTF-16, which its own exports are.
        Os::Windows => vec![(
            "systemprompt-cowork-sync.xml",
            std::iter::once(0xfeff).chain(task(helper).encode_utf16()).flat_map(u16::to_le_bytes).collect(),
        )],
        Os::Macos => vec![("dev.sallyport.cowork-sync.plist", agent(helper).into_bytes())],
        Os::Linux => vec![
            ("systemprompt-cowork-sync.service", service(helper).into_bytes()),
            ("systemprompt-cowork-sync.timer", timer().into_bytes()),
        ],
    }
}

/// <https://learn.microsoft.com/windows/win32/taskschd/task-scheduler-schema>
fn task(helper: &str) -> String {
    let helper = xml(helper);
    format!(
        r#"<?xml version="1.0" encoding="UTF-16"?>
<Task version="1.2" xmlns="http://schemas.microsoft.com/windows/2004/02/mit/task">
  <RegistrationInfo>
    <Description>Fetches the plugins of the organisation for Claude</Description>
    <URI>\SystempromptCoworkSync</URI>
  </RegistrationInfo>
  <Triggers>
    <LogonTrigger>
      <Enabled>true</Enabled>
      <Repetition>
        <Interval>PT{MINUTES}M</Interval>
        <StopAtDurationEnd>false</StopAtDurationEnd>
      </Repetition>
    </LogonTrigger>
  </Triggers>
  <Principals>
    <Principal id="Author">
      <GroupId>S-1-5-32-545</GroupId>
      <RunLevel>LeastPrivilege</RunLevel>
    </Principal>
  </Principals>
  <Settings>
    <MultipleInstancesPolicy>IgnoreNew</MultipleInstancesPolicy>
    <DisallowStartIfOnBatteries>false</DisallowStartIfOnBatteries>
    <StopIfGoingOnBatteries>false</StopIfGoingOnBatteries>
    <StartWhenAvailable>true</StartWhenAvailable>
    <RunOnlyIfNetworkAvailable>true</RunOnlyIfNetworkAvailable>
    <ExecutionTimeLimit>PT10M</ExecutionTimeLimit>
  </Settings>
  <Actions Context="Author">
    <Exec>
      <Command>{helper}</Command>
      <Arguments>sync</Arguments>
    </Exec>
  </Actions>
</Task>
"#
    )
}

/// `launchd.plist(5)`
fn agent(helper: &str) -> String {
    let (helper, seconds) = (xml(helper), MINUTES * 60);
    format!(
        r#"<?xml version="1.0" encoding="UTF-8"?>
<!DOCTYPE plist PUBLIC "-//Apple//DTD PLIST 1.0//EN" "http://www.apple.com/DTDs/PropertyList-1.0.dtd">
<plist version="1.0">
<dict>
  <key>Label</key>
  <string>dev.sallyport.cowork-sync</string>
  <key>ProgramArguments</key>
  <array>
    <string>{helper}</string>
    <string>sync</string>
  </array>
  <key>RunAtLoad</key>
  <true/>
  <key>StartInterval</key>
  <integer>{seconds}</integer>
  <key>ProcessType</key>
  <string>Background</string>
</dict>
</plist>
"#
    )
}

/// `systemd.service(5)`, for `systemctl --user`.
fn service(helper: &str) -> String {
    // In a unit, `%` and `$` mean something and words end at spaces.
    let helper = helper.replace('\\', r"\\").replace('"', "\\\"").replace('%', "%%").replace('$', "$$");
    format!(
        "[Unit]\nDescription=Fetch the plugins of the organisation for Claude\n\n[Service]\nType=oneshot\nExecStart=\"{helper}\" sync\nNoNewPrivileges=yes\n"
    )
}

/// `systemd.timer(5)`
fn timer() -> String {
    format!(
        "[Unit]\nDescription=Fetch the plugins of the organisation for Claude now and then\n\n[Timer]\nOnStartupSec=1min\nOnUnitActiveSec={MINUTES}min\nRandomizedDelaySec=5min\n\n[Install]\nWantedBy=timers.target\n"
    )
}
