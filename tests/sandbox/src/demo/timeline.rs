//! What happened and how long it took, for a person on standard output and for machines as JSON.

use std::io::Write as _;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

/// The timeline of one run.
pub(super) struct Timeline {
    started: Instant,
    builder: &'static str,
    steps: Vec<Step>,
    begun: Option<Begun>,
    first: Option<String>,
    second: Option<String>,
    running: Option<String>,
    rollback: Option<Duration>,
    printed: String,
}

/// A step that is under way.
struct Begun {
    name: String,
    repository: String,
    since: Instant,
}

struct Step {
    name: String,
    repository: String,
    took: Duration,
    digest: Option<String>,
    ok: bool,
}

impl Timeline {
    pub(super) fn start() -> Self {
        Timeline {
            started: Instant::now(),
            builder: "",
            steps: Vec::new(),
            begun: None,
            first: None,
            second: None,
            running: None,
            rollback: None,
            printed: String::new(),
        }
    }

    pub(super) fn builder(&mut self, name: &'static str) {
        self.builder = name;
    }

    pub(super) fn first(&mut self, digest: &str) {
        self.first = Some(digest.to_owned());
        self.running = Some(digest.to_owned());
    }

    pub(super) fn second(&mut self, digest: &str) {
        self.second = Some(digest.to_owned());
        self.running = Some(digest.to_owned());
    }

    /// What runs at the end.
    pub(super) fn runs(&mut self, digest: &str) {
        self.running = Some(digest.to_owned());
    }

    pub(super) fn rolled_back(&mut self, digest: &str, took: Duration) {
        self.running = Some(digest.to_owned());
        self.rollback = Some(took);
    }

    /// A part of the story.
    pub(super) fn chapter(&mut self, title: &str) {
        self.line(&format!("\n{title}"));
    }

    /// Something worth knowing that is no step.
    pub(super) fn note(&mut self, text: &str) {
        self.line(&format!("{:8}  {text}", ""));
    }

    /// A step begins: it is the one that failed, should the run end before [`Timeline::done`]. `repository` is empty for
    /// what happens in none.
    pub(super) fn begin(&mut self, name: &str, repository: &str) {
        self.begun = Some(Begun {
            name: name.to_owned(),
            repository: repository.to_owned(),
            since: Instant::now(),
        });
    }

    /// The step that was begun last is done and checked. Answers how long it took.
    pub(super) fn done(&mut self, digest: Option<&str>) -> Duration {
        let Some(Begun {
            name,
            repository,
            since,
        }) = self.begun.take()
        else {
            return Duration::ZERO;
        };
        let took = since.elapsed();
        self.record(&name, &repository, took, digest, true);
        took
    }

    /// Something that was done and checked while another step is under way.
    pub(super) fn step(&mut self, name: &str, repository: &str, took: Duration, digest: Option<&str>) {
        self.record(name, repository, took, digest, true);
    }

    /// Something came to a bad end while another step was under way, which is told by it.
    pub(super) fn failed_step(&mut self, name: &str, repository: &str, took: Duration) {
        self.begun = None;
        self.record(name, repository, took, None, false);
    }

    /// Ends the run badly: the step under way is the one that failed. Answers its name.
    pub(super) fn failed(&mut self, why: &str) -> String {
        if let Some(Begun {
            name,
            repository,
            since,
        }) = self.begun.take()
        {
            self.record(&name, &repository, since.elapsed(), None, false);
        }
        self.line(&format!("\nFAILED: {why}"));
        let failed = self.steps.iter().rfind(|step| !step.ok);
        failed.map_or_else(String::new, |step| {
            let place = if step.repository.is_empty() { "" } else { " in " };
            format!("{}{place}{}", step.name, step.repository)
        })
    }

    fn record(&mut self, name: &str, repository: &str, took: Duration, digest: Option<&str>, ok: bool) {
        let shown = digest.map_or_else(String::new, |digest| digest.chars().take(19).collect());
        let mark = if ok { "" } else { "  FAILED" };
        self.line(&format!(
            "{:>6.1} s  {repository:11} {name:42} {:>5.1} s  {shown}{mark}",
            self.started.elapsed().as_secs_f64(),
            took.as_secs_f64()
        ));
        self.steps.push(Step {
            name: name.to_owned(),
            repository: repository.to_owned(),
            took,
            digest: digest.map(str::to_owned),
            ok,
        });
    }

    pub(super) fn end(&mut self) {
        let seconds = self.started.elapsed().as_secs_f64();
        let steps = self.steps.len();
        self.line(&format!(
            "\n{steps} steps, every one checked, in {seconds:.1} s; nothing is left behind"
        ));
    }

    /// Everything that was printed so far.
    pub(super) fn printed(&self) -> &str {
        &self.printed
    }

    /// The machine's version.
    pub(super) fn report(&self) -> Value {
        let steps: Vec<Value> = self
            .steps
            .iter()
            .map(|step| {
                json!({
                    "name": step.name,
                    "repository": step.repository,
                    "seconds": rounded(step.took),
                    "digest": step.digest,
                    "ok": step.ok,
                })
            })
            .collect();
        json!({
            "schema": "towpath.demo/1",
            "builder": self.builder,
            "steps": steps,
            "digests": {"first": self.first, "second": self.second},
            "running": self.running,
            "rollback_seconds": self.rollback.map(rounded),
        })
    }

    fn line(&mut self, text: &str) {
        // Whoever read along may be gone; the run goes on all the same and ends in order.
        let _ = writeln!(std::io::stdout(), "{text}");
        self.printed.push_str(text);
        self.printed.push('\n');
    }
}

fn rounded(duration: Duration) -> f64 {
    (duration.as_secs_f64() * 1000.0).round() / 1000.0
}
