//! `ipmitool`, as a person beside us would use it.

use tokio::process::Command;

pub const USER: &str = "admin";
pub const PASSWORD: &str = "secret";

/// What it says of a BMC. `program`: how it is started.
pub async fn ipmitool(mut program: Command, address: &str, port: &str, words: &[&str]) -> Result<String, String> {
    let output = program
        .args(["-I", "lanplus", "-C", "3", "-N", "1", "-R", "3", "-H", address, "-p", port, "-U", USER, "-P", PASSWORD])
        .args(words)
        .output()
        .await
        .unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_owned();
    if output.status.success() { Ok(text(&output.stdout)) } else { Err(text(&output.stderr)) }
}

/// Whether `chassis power status` says so.
pub fn says_on(said: &str) -> bool {
    assert!(said == "Chassis Power is on" || said == "Chassis Power is off", "{said}");
    said.ends_with("on")
}
