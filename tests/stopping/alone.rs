//! Tests in a process of their own.

use std::process::{Command, Output};

const CHILD: &str = "LOCKKEEPER_TEST_CHILD";

/// Whether this process is for this test alone. If not, it runs it in one that is, which has to pass.
pub fn alone(test: &str) -> bool {
    if std::env::var_os(CHILD).is_some() {
        return true;
    }
    let output = child(test, "1");
    let text = String::from_utf8_lossy(&output.stdout);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{}: {text}{errors}", output.status);
    assert!(text.contains("1 passed"), "{text}");
    false
}

/// What `alone` was given by whoever runs this process for a test alone.
pub fn told() -> Option<String> {
    std::env::var(CHILD).ok()
}

/// Runs a test in a process of its own, however that ends.
pub fn child(test: &str, told: &str) -> Output {
    Command::new(std::env::current_exe().unwrap())
        .args(["--exact", test, "--nocapture", "--test-threads", "1"])
        .env(CHILD, told)
        .output()
        .unwrap()
}
