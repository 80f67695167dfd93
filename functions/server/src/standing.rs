//! Standing still at a named point of the code, so that a test can kill the process exactly there.
//!
//! ```text
//!  HINDSIGHT_STAND_AT=capture::before-segment@3
//!  third time there ─→ "standing at capture::before-segment" ─→ SIGKILL by the test, or a line on stdin: go on
//! ```
//!
//! Only tests can build this in: in any other build a point is no code at all.

use std::io::{BufRead, Write};
use std::sync::atomic::{AtomicU32, Ordering};

/// Names the point, and which of the times that it is reached.
const VARIABLE: &str = "HINDSIGHT_STAND_AT";

/// Reads where to stand.
pub fn prepare() {
    if !fail::has_failpoints() {
        return;
    }
    let Ok(text) = std::env::var(VARIABLE) else { return };
    let (point, time) = text.split_once('@').unwrap_or((&text, "1"));
    let time: u32 = time.parse().unwrap_or_else(|error| panic!("{VARIABLE}={text}: {error}"));
    let (name, reached) = (point.to_owned(), AtomicU32::new(0));
    let stand = move || {
        if reached.fetch_add(1, Ordering::Relaxed) + 1 == time {
            stand_at(&name);
        }
    };
    fail::cfg_callback(point, stand).unwrap_or_else(|error| panic!("{VARIABLE}={text}: {error}"));
}

/// Says that this thread stands here, and waits to be killed or told to go on.
fn stand_at(name: &str) {
    let mut line = String::new();
    // Where nobody reads or answers any more, the test is gone, and nobody would ever end this process.
    let said = writeln!(std::io::stderr(), "standing at {name}");
    match said.and_then(|()| std::io::stdin().lock().read_line(&mut line)) {
        Ok(read) if read > 0 => {}
        _ => std::process::abort(),
    }
}
