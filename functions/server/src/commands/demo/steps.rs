//! The demo's steps as they are shown: numbered, with what came of each and how long it took.

use std::io::{self, Write};
use std::sync::Arc;

use pipeline::model::{Clock, Timestamp};
use serde_json::{Value, json};

use super::tree::Proof;
use crate::app::App;

/// The steps so far.
pub struct Steps {
    clock: Arc<dyn Clock>,
    json: bool,
    began: Timestamp,
    step_began: Timestamp,
    titles: Vec<Value>,
}

impl Steps {
    /// None yet.
    pub fn new(app: &App, json: bool) -> Steps {
        let now = app.clock.now();
        Steps { clock: Arc::clone(&app.clock), json, began: now, step_began: now, titles: Vec::new() }
    }

    /// The next step.
    pub fn begin(&mut self, title: &str) -> io::Result<()> {
        self.step_began = self.clock.now();
        self.titles.push(json!({ "step": title }));
        let number = self.titles.len();
        self.say(&format!("{number}. {title}"))
    }

    /// More about it.
    pub fn lines(&mut self, lines: &[String]) -> io::Result<()> {
        lines.iter().try_for_each(|line| self.say(&format!("   {line}")))
    }

    /// It is done, and this came of it.
    pub fn done(&mut self, result: &str) -> io::Result<()> {
        let seconds = self.clock.now().since(self.step_began).as_secs_f64();
        if let Some(Value::Object(step)) = self.titles.last_mut() {
            step.insert("result".to_owned(), json!(result));
            step.insert("seconds".to_owned(), json!(seconds));
        }
        self.say(&format!("   {result}  ({seconds:.1} s)\n"))
    }

    /// The end of the story.
    pub fn finish(&mut self, proof: &Proof, commands: &[String], mut document: Value) -> io::Result<()> {
        let seconds = self.clock.now().since(self.began).as_secs_f64();
        if self.json {
            document["steps"] = Value::Array(std::mem::take(&mut self.titles));
            document["seconds"] = json!(seconds);
            return writeln!(io::stdout(), "{document}");
        }
        let verdict =
            if proof.is_equal() { "Every byte is what it was." } else { "THE PROOF FAILED: the restored bucket is not what was there." };
        self.say(&format!("{verdict} It took {seconds:.1} seconds.\n\nThe vault is kept. Try:"))?;
        commands.iter().try_for_each(|command| self.say(&format!("  {command}")))
    }

    fn say(&self, text: &str) -> io::Result<()> {
        if self.json {
            return Ok(());
        }
        let mut stdout = io::stdout();
        writeln!(stdout, "{text}")?;
        stdout.flush()
    }
}
