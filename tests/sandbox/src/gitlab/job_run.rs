//! The run of one job: a fresh clone, the variables GitLab would give, gitlab-ci-local for the script, the log, and what
//! is left when it ends.
//!
//! The job's environment holds `PATH`, a private `HOME`, `LANG`, what the settings add, and its CI/CD variables;
//! nothing else of the machine. Its token lives from just before the script to just after it. Everything the job
//! wrote is removed afterwards but its artifacts.

use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use anyhow::Context as _;
use rustix::process::Signal;
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::net::unix::pipe;
use tokio::process::Command;

use super::dotenv;
use super::hub::Shared;
use super::id_tokens;
use super::job_spec::is_named;
use super::runner::{Outcome, append};
use super::scheduler::signal_group;
use super::settings::CiVariable;
use super::state::{Job, Pipeline, Project, User};
use super::tokens::{Token, random_token};
use super::trace::{Line, Masks, read_line};
use super::variables::{self, Variables};
use super::workspace;

/// One run of one job, with its folder.
pub(super) struct Run<'a> {
    hub: &'a Shared,
    job: Job,
    pipeline: Pipeline,
    project: Project,
    user: User,
    folder: PathBuf,
    clone: PathBuf,
    token: String,
    masks: Masks,
    command: Command,
    output: pipe::Receiver,
}

impl<'a> Run<'a> {
    /// Makes ready what the job needs.
    pub(super) async fn prepare(hub: &'a Shared, id: u64) -> anyhow::Result<Run<'a>> {
        let (job, pipeline, project, user) = {
            let state = hub.state();
            let job = state.jobs.get(&id).context("the job is gone")?.clone();
            let pipeline = state
                .pipelines
                .get(&job.pipeline)
                .context("the pipeline is gone")?
                .clone();
            let project = state
                .projects
                .get(&job.project)
                .context("the project is gone")?
                .clone();
            let user = state.users.get(&job.user).context("the user is gone")?.clone();
            (job, pipeline, project, user)
        };
        let folder = hub.pipeline_folder(pipeline.id).join("jobs").join(id.to_string());
        let clone = folder.join("builds").join(project.name());
        let (output, command) = (pipe_pair()?, hub.clean_command(&hub.settings.gitlab_ci_local));
        let (receiver, stdout, stderr) = output;
        let mut command = command;
        command.stdin(Stdio::null()).stdout(stdout).stderr(stderr);
        let mut run = Run {
            hub,
            job,
            pipeline,
            project,
            user,
            folder,
            clone,
            token: random_token("glcbt-64_")?,
            masks: Masks::default(),
            command,
            output: receiver,
        };
        run.fill().await?;
        Ok(run)
    }

    /// The clone, the artifacts of earlier jobs, the variables and the command line.
    async fn fill(&mut self) -> anyhow::Result<()> {
        let (hub, job) = (self.hub, &self.job);
        append(
            hub,
            job.id,
            &format!("Running with gitlab-runner {} (sandbox)\n", hub.settings.version),
        );
        workspace::check_out(hub, &self.project, &self.pipeline.sha, &self.clone).await?;
        let at = self.pipeline.sha.get(..8).unwrap_or_default();
        append(
            hub,
            job.id,
            &format!(
                "Checking out {at} as detached HEAD (ref is {})...\n",
                self.pipeline.ref_name
            ),
        );
        let (sources, dotenv) = self.received();
        let clone = self.clone.clone();
        tokio::task::spawn_blocking(move || {
            sources
                .iter()
                .try_for_each(|source| workspace::copy_tree(source, &clone))
        })
        .await?
        .context("cannot copy artifacts of earlier jobs")?;

        let commit = hub
            .repository(&self.project)
            .commit(&self.pipeline.sha)
            .await
            .context("no commit")?;
        let text = |path: &Path| path.to_string_lossy().into_owned();
        let mut variables = Variables::default();
        variables.predefine(variables::of_pipeline(
            hub,
            &self.pipeline,
            &self.project,
            &self.user,
            &commit,
        ));
        let builds = text(&self.folder.join("builds"));
        variables.predefine(variables::of_job(
            hub,
            job,
            &self.project,
            &text(&self.clone),
            &builds,
        ));
        self.add_secrets(&mut variables)?;
        variables.yield_to(&job.spec.yaml_variables);
        variables.add(dotenv.into_iter().map(|(key, value)| CiVariable::new(key, value)));
        let protected = self
            .project
            .is_protected(&self.pipeline.ref_name, self.pipeline.tag);
        let environment = job.environment.as_deref();
        for level in [
            &hub.settings.variables,
            &self.project.settings.variables,
            &self.pipeline.variables,
            &job.variables,
        ] {
            variables.add(variables::for_job(level, protected, environment));
        }
        self.masks = Masks::new(variables.masked_values());
        let files = PathBuf::from(format!("{}.tmp", self.clone.display()));
        for (key, value) in variables.files() {
            let path = files.join(&key);
            workspace::write_private(&path, &value).await?;
            variables.set_file(&key, text(&path));
        }
        workspace::write_private(&self.folder.join("variables.json"), &variables.to_file()).await?;
        workspace::write_private(&self.folder.join("job.yml"), &job.spec.file).await?;
        let git_config =
            workspace::write_git_config(hub, &self.folder, "gitlab-ci-token", &self.token).await?;
        let home = self.folder.join("home");
        tokio::fs::create_dir_all(&home).await?;
        self.command
            .args([
                "--force-shell-executor",
                "--no-json-schema-validation",
                "--no-evaluate-rule-changes",
            ])
            .args(["--state-dir", "../../state", "--file", "../../job.yml"])
            .args(["--variables-file", "../../variables.json"])
            .args(["--ignore-predefined-vars", &variables.names()]);
        for key in variables.unwanted(environment.is_some(), &job.spec.yaml_variables) {
            self.command.args(["--unset-variable", key]);
        }
        self.command
            .arg("--")
            .arg(&job.spec.name)
            .env("HOME", home)
            .env("GIT_CONFIG_GLOBAL", git_config)
            .env("GIT_CONFIG_NOSYSTEM", "1")
            .env("GIT_TERMINAL_PROMPT", "0")
            .current_dir(&self.clone)
            .process_group(0)
            .kill_on_drop(true);
        Ok(())
    }

    /// The job token and everything made of it, and the id_tokens the job asks for.
    fn add_secrets(&self, variables: &mut Variables) -> anyhow::Result<()> {
        let (hub, token) = (self.hub, &self.token);
        variables.predefine_secret("CI_JOB_TOKEN", token.clone());
        let url = format!(
            "http://gitlab-ci-token:{token}@127.0.0.1:{}/{}.git",
            hub.port, self.project.path
        );
        variables.predefine_secret("CI_REPOSITORY_URL", url);
        if hub.settings.registry.is_some() {
            variables.predefine([("CI_REGISTRY_USER", "gitlab-ci-token".to_owned())]);
            variables.predefine_secret("CI_REGISTRY_PASSWORD", token.clone());
        }
        if !self.job.spec.id_tokens.is_empty() {
            let sign = hub
                .settings
                .id_tokens
                .as_ref()
                .context("this instance mints no id_tokens")?;
            for (name, audience) in &self.job.spec.id_tokens {
                let claims = id_tokens::claims(
                    hub,
                    &self.job,
                    &self.pipeline,
                    &self.project,
                    &self.user,
                    audience,
                )?;
                let token = sign(&claims);
                hub.state().issued.push(("an id_token of a job", token.clone()));
                variables.predefine_secret(name, token);
            }
        }
        Ok(())
    }

    /// Artifact folders and dotenv variables of the earlier jobs whose artifacts this one gets.
    fn received(&self) -> (Vec<PathBuf>, Vec<(String, String)>) {
        let state = self.hub.state();
        let stage = |job: &Job| {
            self.pipeline
                .stages
                .iter()
                .position(|stage| *stage == job.spec.stage)
        };
        let gives = |other: &&Job| {
            let spec = &self.job.spec;
            match (&spec.needs, &spec.dependencies) {
                (_, Some(names)) => names.iter().any(|name| is_named(&other.spec.name, name)),
                (Some(needs), None) => needs
                    .iter()
                    .any(|need| need.artifacts && is_named(&other.spec.name, &need.job)),
                (None, None) => stage(other) < stage(&self.job),
            }
        };
        let mut folders = Vec::new();
        let mut variables = Vec::new();
        for job in state.latest_jobs_of(self.pipeline.id).filter(gives) {
            folders.extend(job.artifacts.clone());
            variables.extend(job.dotenv.iter().cloned());
        }
        (folders, variables)
    }

    /// Runs the job and cleans up after it.
    pub(super) async fn execute(mut self) -> Outcome {
        let (hub, id) = (self.hub, self.job.id);
        hub.state().issue(&self.token, Token::Job { job: id });
        let ended = self.script().await;
        let mut outcome = match ended {
            Ok(outcome) => outcome,
            Err(error) => {
                self.log(&format!("ERROR: Job failed (system failure): {error:#}"));
                Outcome::failed("runner_system_failure")
            }
        };
        if let Err(problem) = self.keep_artifacts().await {
            self.log(&problem);
            if outcome.failure.is_none() {
                outcome = Outcome {
                    failure: Some("script_failure"),
                    exit_code: Some(1),
                };
            }
        }
        match (outcome.failure, outcome.exit_code) {
            _ if hub.state().jobs.get(&id).is_some_and(|job| job.cancel_requested) => {
                self.log("ERROR: Job failed: canceled");
            }
            (None, _) => self.log("Job succeeded"),
            (Some("job_execution_timeout"), _) => {
                let limit = self.timeout().as_secs();
                self.log(&format!(
                    "ERROR: Job failed: execution took longer than {limit}s seconds"
                ));
            }
            (Some(_), Some(code)) => self.log(&format!("ERROR: Job failed: exit status {code}")),
            (Some(_), None) => {}
        }
        for left in ["builds", "state", "home"] {
            // What cannot be removed now goes with the world.
            let _ = tokio::fs::remove_dir_all(self.folder.join(left)).await;
        }
        for left in ["variables.json", "job.yml", "gitconfig", "git-credentials"] {
            let _ = tokio::fs::remove_file(self.folder.join(left)).await;
        }
        outcome
    }

    fn timeout(&self) -> Duration {
        self.job.spec.timeout.unwrap_or(self.hub.settings.job_timeout)
    }

    fn log(&self, line: &str) {
        append(self.hub, self.job.id, &format!("{}\n", self.masks.apply(line)));
    }

    /// Runs gitlab-ci-local and reads its output until it and everything it started are done.
    async fn script(&mut self) -> anyhow::Result<Outcome> {
        /// How long output may still come after the script's end.
        const DRAIN: Duration = Duration::from_millis(500);
        let mut child = self.command.spawn().context("cannot start gitlab-ci-local")?;
        // The command holds the pipe's other end, which must close when the child ends.
        self.command = Command::new("true");
        let group = child.id().and_then(|id| i32::try_from(id).ok());
        let canceled = {
            let mut state = self.hub.state();
            let stopping = state.stopping;
            let job = state.jobs.get_mut(&self.job.id).context("the job is gone")?;
            job.process_group = group;
            job.cancel_requested || stopping
        };
        let kill = || {
            if let Some(group) = group {
                signal_group(group, Signal::KILL);
            }
        };
        if canceled {
            kill();
        }
        let name = self.job.spec.name.clone();
        let mut reader = Reader {
            run: self,
            name,
            exit_code: None,
            own: Vec::new(),
        };
        let deadline = tokio::time::sleep(reader.run.timeout());
        let status = {
            let read = reader.read();
            tokio::pin!(read, deadline);
            let mut open = true;
            let status = loop {
                tokio::select! {
                    status = child.wait() => break Some(status.context("cannot wait for gitlab-ci-local")?),
                    () = &mut read, if open => open = false,
                    () = &mut deadline => break None,
                }
            };
            if status.is_none() {
                kill();
            }
            if open {
                let _ = tokio::time::timeout(DRAIN, &mut read).await;
            }
            status
        };
        let Reader { exit_code, own, .. } = reader;
        // What the script left in the background ends with it, as in a runner's container.
        kill();
        let _ = child.wait().await;
        self.interpret(status, exit_code, &own)
    }

    fn interpret(
        &self,
        status: Option<ExitStatus>,
        exit_code: Option<i32>,
        own: &[String],
    ) -> anyhow::Result<Outcome> {
        let Some(status) = status else {
            return Ok(Outcome::failed("job_execution_timeout"));
        };
        if status.success() {
            return Ok(Outcome::SUCCESS);
        }
        if exit_code.is_none() {
            // The script never ran: gitlab-ci-local says why.
            for line in own {
                self.log(line);
            }
        }
        Ok(Outcome {
            failure: Some("script_failure"),
            exit_code: Some(exit_code.unwrap_or(1)),
        })
    }

    /// Moves the artifacts out of the way of the clean-up and reads the dotenv reports.
    async fn keep_artifacts(&self) -> Result<(), String> {
        let made = self.folder.join("state").join("artifacts");
        let Ok(mut entries) = tokio::fs::read_dir(&made).await else {
            return Ok(());
        };
        let Ok(Some(entry)) = entries.next_entry().await else {
            return Ok(());
        };
        let reports = entry.path().join(".gitlab-ci-reports");
        let mut variables = Vec::new();
        for report in &self.job.spec.dotenv_reports {
            let path = reports.join("dotenv").join(report);
            let Ok(content) = tokio::fs::read(&path).await else {
                self.log(&format!("WARNING: {report}: no matching files."));
                continue;
            };
            let read = dotenv::parse(&content).map_err(|problem| {
                format!(
                    "ERROR: Uploading artifacts as \"dotenv\" to coordinator... 400 Bad Request ({problem})"
                )
            })?;
            variables.extend(read);
        }
        // Reports are no part of the archive that later jobs and the API get.
        let _ = tokio::fs::remove_dir_all(reports).await;
        // Removing the folder works only when nothing is left in it, which is what there is to know.
        let empty = tokio::fs::remove_dir(entry.path()).await.is_ok();
        let kept = self.folder.join("artifacts");
        if !empty {
            let moved = tokio::fs::rename(entry.path(), &kept).await;
            moved.map_err(|error| format!("ERROR: Uploading artifacts: {error}"))?;
        }
        let mut state = self.hub.state();
        if let Some(job) = state.jobs.get_mut(&self.job.id) {
            job.artifacts = (!empty).then_some(kept);
            job.dotenv = variables;
        }
        Ok(())
    }
}

/// Turns gitlab-ci-local's output into the job's log.
struct Reader<'r, 'a> {
    run: &'r mut Run<'a>,
    name: String,
    exit_code: Option<i32>,
    own: Vec<String>,
}

impl Reader<'_, '_> {
    async fn read(&mut self) {
        let run = &mut *self.run;
        let mut output = BufReader::new(&mut run.output);
        let mut bytes = Vec::new();
        loop {
            bytes.clear();
            match output.read_until(b'\n', &mut bytes).await {
                Ok(0) | Err(_) => return,
                Ok(_) => {}
            }
            let line = String::from_utf8_lossy(&bytes);
            let line = line.trim_end_matches(['\n', '\r']);
            let kept = match read_line(&self.name, line) {
                Line::Command(command) => format!("\u{1b}[32;1m$ {command}\u{1b}[0;m"),
                Line::Output(text) => text.to_owned(),
                Line::Exit(code) => {
                    self.exit_code = Some(code);
                    continue;
                }
                Line::Own(text) => {
                    self.own.push(text.to_owned());
                    continue;
                }
            };
            append(run.hub, run.job.id, &format!("{}\n", run.masks.apply(&kept)));
        }
    }
}

/// A pipe whose one end reads what both of a child's streams write.
fn pipe_pair() -> anyhow::Result<(pipe::Receiver, Stdio, Stdio)> {
    let (reader, writer) = std::io::pipe().context("cannot make a pipe")?;
    let second = writer.try_clone().context("cannot make a pipe")?;
    let receiver = pipe::Receiver::from_owned_fd(reader.into()).context("cannot make a pipe")?;
    Ok((receiver, Stdio::from(writer), Stdio::from(second)))
}
