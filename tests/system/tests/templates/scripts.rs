//! The templates' scripts as a runner runs them, with a variable that holds what no rule lets through: whoever starts a
//! pipeline or presses a job may set variables over those that the inputs became.
//!
//! First with recorders in the place of all programs: nothing of a value is ever run, and it arrives in one piece. Then with
//! the real tools: what each refuses once more, and what it takes, which is a table on the templates' page.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use serde_norway::Value;
use towpath_sandbox::tools::{Progress, Tools};
use towpath_sandbox::towpath_binaries;

use crate::platform::{checkout, files_below, program};

/// Nobody listens there.
const NOWHERE: &str = "127.0.0.1:9";
const DIGEST: &str = "sha256:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";
const USAGE: i32 = 2;

/// What the inputs are given that have no default, and those whose default leads past the tool.
const GIVEN: [(&str, &str); 18] = [
    ("vault_addr", "http://127.0.0.1:9"),
    ("vault_role", "image"),
    ("vault_jwt_file", "jwt"),
    ("vault_secret", "scaleway/registry"),
    ("registry_login", NOWHERE),
    ("repository", "127.0.0.1:9/shop/web"),
    ("target_repository", "127.0.0.1:9/shop/web"),
    ("project", "shop/env"),
    ("path", "apps/web"),
    ("image", "web"),
    ("application", "web"),
    ("image_digest", DIGEST),
    ("push", "after-gates"),
    ("cache_repo", "127.0.0.1:9/shop/cache"),
    ("on_failure", "rollback"),
    ("smoke_script", "smoke.sh"),
    ("absent", "add"),
    ("signing_key", "jwt"),
];

/// One job of a template, with inputs that are right.
struct Job {
    template: String,
    name: String,
    variables: BTreeMap<String, String>,
    /// Variables that are one input and nothing else, with that input and what it is when nobody gives it.
    inputs: Vec<(String, String, Option<String>)>,
    /// What the job runs, its lines as a runner has them run.
    script: String,
}

/// The jobs of the templates that are no chains: a chain's are made of the same.
fn jobs() -> Vec<Job> {
    let mut jobs = Vec::new();
    for (file, text) in files_below("templates") {
        let template = file.split('/').nth(1).unwrap().to_owned();
        if ["image", "env"].contains(&template.as_str()) {
            continue;
        }
        let (header, body) = text.split_once("\n---\n").unwrap();
        let header: Value = serde_norway::from_str(header).unwrap();
        let specs = header["spec"]["inputs"].as_mapping().unwrap();
        let plain: Value = serde_norway::from_str(body).unwrap();
        let mut filled = body.to_owned();
        let mut defaults = BTreeMap::new();
        for (name, spec) in specs {
            let name = name.as_str().unwrap();
            let default = spec.get("default").map(|default| match default.as_str() {
                Some(text) => text.to_owned(),
                None => serde_json::to_string(default).unwrap(),
            });
            let given = GIVEN
                .iter()
                .find(|(given, _)| *given == name)
                .map(|(_, value)| *value);
            let value = given
                .or(default.as_deref())
                .unwrap_or_else(|| panic!("{template}: {name}"));
            filled = filled.replace(&format!("$[[ inputs.{name} ]]"), value);
            defaults.insert(name.to_owned(), default);
        }
        let filled: Value = serde_norway::from_str(&filled).unwrap();
        let hidden = filled
            .as_mapping()
            .unwrap()
            .iter()
            .find(|(name, _)| name.as_str().unwrap().starts_with('.'));
        let hidden = hidden.map(|(_, job)| job.clone()).unwrap_or_default();
        let templates = plain
            .as_mapping()
            .unwrap()
            .iter()
            .zip(filled.as_mapping().unwrap());
        for ((_, unfilled), (name, job)) in templates {
            let name = name.as_str().unwrap();
            if name.starts_with('.') && template != "vault-scw-creds" {
                continue;
            }
            let of = |key: &str| lines(job.get(key).or(hidden.get(key)));
            let mut script = of("before_script");
            script.extend(of("script"));
            if template == "vault-scw-creds" {
                script.push("vault-scw-creds exec -- true".to_owned());
            }
            let mut variables = BTreeMap::new();
            for values in [hidden.get("variables"), job.get("variables")]
                .into_iter()
                .flatten()
            {
                for (name, value) in values.as_mapping().unwrap() {
                    variables.insert(
                        name.as_str().unwrap().to_owned(),
                        value.as_str().unwrap().to_owned(),
                    );
                }
            }
            let template_hidden = plain
                .as_mapping()
                .unwrap()
                .iter()
                .find(|(name, _)| name.as_str().unwrap().starts_with('.'));
            let template_hidden = template_hidden.filter(|_| !name.starts_with('.'));
            let sources = [
                template_hidden.and_then(|(_, job)| job.get("variables")),
                unfilled.get("variables"),
            ];
            let mut inputs = Vec::new();
            for (variable, value) in sources
                .into_iter()
                .flatten()
                .flat_map(|values| values.as_mapping().unwrap())
            {
                let input = value
                    .as_str()
                    .unwrap()
                    .strip_prefix("$[[ inputs.")
                    .and_then(|rest| rest.strip_suffix(" ]]"));
                if let Some(input) = input {
                    inputs.push((
                        variable.as_str().unwrap().to_owned(),
                        input.to_owned(),
                        defaults[input].clone(),
                    ));
                }
            }
            jobs.push(Job {
                template: template.clone(),
                name: name.to_owned(),
                variables,
                inputs,
                script: script.join("\n"),
            });
        }
    }
    assert_eq!(jobs.len(), 13, "eight templates of one job, and infra's five");
    jobs
}

fn lines(script: Option<&Value>) -> Vec<String> {
    let lines = script.and_then(Value::as_sequence).into_iter().flatten();
    lines.map(|line| line.as_str().unwrap().to_owned()).collect()
}

/// What a job finds on every runner, and what the jobs before handed over.
const AROUND: [(&str, &str); 19] = [
    ("CI_API_V4_URL", "http://127.0.0.1:9/api/v4"),
    ("CI_PROJECT_URL", "http://127.0.0.1:9/shop/env"),
    ("CI_PROJECT_PATH", "shop/env"),
    ("CI_PROJECT_ID", "1"),
    ("CI_COMMIT_BRANCH", "main"),
    ("CI_DEFAULT_BRANCH", "main"),
    ("CI_COMMIT_SHA", "cccccccccccccccccccccccccccccccccccccccc"),
    ("CI_JOB_TOKEN", "none"),
    ("GITLAB_USER_LOGIN", "ada"),
    ("TOWPATH_GIT_TOKEN", "none"),
    ("ARGOCD_SERVER", "http://127.0.0.1:9"),
    ("ARGOCD_AUTH_TOKEN", "none"),
    ("IMAGE_REPOSITORY", "127.0.0.1:9/shop/web"),
    ("IMAGE_TAG", "1.0.0"),
    ("IMAGE_DIGEST", DIGEST),
    (
        "IMAGE_REF",
        "127.0.0.1:9/shop/web@sha256:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
    ),
    ("ENV_COMMIT", "cccccccccccccccccccccccccccccccccccccccc"),
    ("TOWPATH_TIMEOUT", "1s"),
    ("TOWPATH_OUTSIDE_CONTAINER", "true"),
];

impl Job {
    /// Runs the job in a folder of its own, with variables set over the job's.
    fn run(&self, shell: &[&Path], path: &[PathBuf], folder: &Path, over: &[(&str, String)]) -> Output {
        fs::create_dir_all(folder.join("image")).unwrap();
        fs::write(folder.join("jwt"), "a.b.c").unwrap();
        fs::write(folder.join("smoke.sh"), "true\n").unwrap();
        fs::write(folder.join("Dockerfile"), "FROM scratch\nCOPY jwt /jwt\n").unwrap();
        let mut variables: BTreeMap<&str, String> = AROUND
            .iter()
            .map(|(name, value)| (*name, (*value).to_owned()))
            .collect();
        if !self.variables.contains_key("TOWPATH_BRANCH") {
            // Tags start what builds and what follows.
            variables.remove("CI_COMMIT_BRANCH");
            variables.insert("CI_COMMIT_TAG", "v1.0.0".to_owned());
        }
        let around = variables.clone();
        for (name, value) in &self.variables {
            // As the runner fills them in: variables in variables.
            let value = around.iter().fold(value.clone(), |value, (name, inner)| {
                value.replace(&format!("${name}"), inner)
            });
            variables.insert(name, value);
        }
        variables.extend(over.iter().cloned());
        let mut command = Command::new(shell[0]);
        command
            .args(&shell[1..])
            .args(["-ec", &self.script])
            .env_clear()
            .env("PATH", std::env::join_paths(path).unwrap())
            .env("HOME", folder)
            .env("RECORD", folder.join("record"))
            .envs(variables)
            .current_dir(folder)
            .stdin(Stdio::null());
        command.output().unwrap()
    }
}

/// Notes what it was called with, each part ended by a zero byte, and runs what it was to run.
const RECORDER: &str = r#"#!/bin/sh
{ printf 'argument:%s\0' "$@"; env -0; } >> "$RECORD"
case $0 in
*/vault-scw-creds) shift 2; exec "$@" ;;
*/argocd-wait) exit 8 ;;
esac
"#;

#[tokio::test]
async fn no_part_of_a_value_is_run() {
    let tools = Tools::find_or_install(&Progress::silent()).await.unwrap();
    let folder = tempfile::tempdir().unwrap();
    let bin = folder.path().join("bin");
    fs::create_dir(&bin).unwrap();
    for name in towpath_binaries::NAMES.into_iter().chain(["tofu"]) {
        program(&bin, name, RECORDER);
    }
    let path = [bin, "/usr/bin".into(), "/bin".into()];
    // GitLab's runner takes bash where the image has it; kaniko's image has busybox alone.
    let shells = [
        vec![tools.bash.as_path()],
        vec![tools.busybox.as_path(), Path::new("sh")],
    ];
    // Each variable has a number of its own in the place of the #.
    let evil = [
        "$(touch pwned#)",
        "`touch pwned#`",
        "x'; touch pwned#; '",
        "x\"; touch pwned#; \"",
        "x\ntouch pwned#\n",
        "x; touch pwned#;",
        "* ? pwned#",
    ];
    let (mut arrived, work) = (BTreeSet::new(), folder.path().join("work"));
    for job in jobs() {
        // Without the folder that it is to work in, a job of infra.yml does not get far.
        // And what takes another's place would hide that one.
        for spared in ["", "INFRA_DIRECTORY", "INFRA_PLAN_ROLE"] {
            for (evil, shell) in evil
                .iter()
                .flat_map(|evil| shells.iter().map(move |shell| (*evil, shell)))
            {
                let values = job
                    .inputs
                    .iter()
                    .enumerate()
                    .filter(|(_, (variable, ..))| variable != spared);
                let (numbers, values): (Vec<usize>, Vec<(&str, String)>) = values
                    .map(|(number, (variable, ..))| {
                        (
                            number,
                            (variable.as_str(), evil.replace('#', &number.to_string())),
                        )
                    })
                    .unzip();
                if values.len() == job.inputs.len() && !spared.is_empty() {
                    continue;
                }
                job.run(shell, &path, &work, &values);
                let record = fs::read(work.join("record")).unwrap_or_default();
                let pieces: Vec<_> = record
                    .split(|byte| *byte == 0)
                    .map(String::from_utf8_lossy)
                    .collect();
                for (number, (variable, value)) in numbers.iter().zip(&values) {
                    let place = format!("{}: {} with {variable}={value:?}", job.template, job.name);
                    for file in fs::read_dir(&work).unwrap() {
                        let file = file.unwrap().file_name();
                        assert!(
                            !file.to_string_lossy().starts_with("pwned"),
                            "{place}: {file:?} shows that it was run"
                        );
                    }
                    let mark = format!("pwned{number}");
                    for piece in &pieces {
                        let Some(at) = piece.find(&mark) else { continue };
                        let ends = !piece[at + mark.len()..].starts_with(|next: char| next.is_ascii_digit());
                        assert!(
                            !ends || piece.contains(value.as_str()),
                            "{place} arrived in pieces: {piece:?}"
                        );
                        arrived.insert((job.name.clone(), (*variable).to_owned()));
                    }
                }
                fs::remove_dir_all(&work).unwrap();
            }
        }
    }
    // All but the script that `sh` is to run, which is the only program of its job.
    let expected: BTreeSet<(String, String)> = jobs()
        .iter()
        .flat_map(|job| {
            job.inputs
                .iter()
                .map(|(variable, ..)| (job.name.clone(), variable.clone()))
        })
        .filter(|(job, _)| job != "infra-smoke")
        .collect();
    let lost: Vec<_> = expected.difference(&arrived).collect();
    assert!(
        lost.is_empty(),
        "{lost:?} arrive nowhere: the test looks at the wrong programs"
    );
}

/// What no rule lets through, by the page's words for it, in the place of a value that is right.
fn wrong(right: &str) -> [(&'static str, String); 6] {
    [
        ("a newline", "a\nb".to_owned()),
        ("`$(...)`", "$(id)`id`".to_owned()),
        ("a quote", "a'b\"c".to_owned()),
        ("a dash first", "-x".to_owned()),
        ("9,000 signs", far_too_much(right)),
        ("nothing", String::new()),
    ]
}

/// The same kind of value, only that it does not end: an address with a path, a number or a duration, a name.
fn far_too_much(right: &str) -> String {
    const SIGNS: usize = 9000;
    match right.chars().next() {
        _ if right.contains("://") => format!("{right}/{}", "a".repeat(SIGNS)),
        Some(digit) if digit.is_ascii_digit() && !right.contains(['/', ':']) => {
            format!("{}{right}", digit.to_string().repeat(SIGNS))
        }
        _ => format!("{right}{}", "a".repeat(SIGNS)),
    }
}

/// Runs what it was to run, without credentials.
const WITHOUT_CREDENTIALS: &str = "#!/bin/sh\nshift 2\nexec \"$@\"\n";

#[tokio::test]
async fn what_the_rules_refuse_the_tools_refuse_too() {
    let tools = Tools::find_or_install(&Progress::silent()).await.unwrap();
    let bin = towpath_binaries::build().unwrap();
    let folder = tempfile::tempdir().unwrap();
    let executor = ("executor", "#!/bin/sh\nexit 1\n");
    let stand_ins = |name: &str, programs: &[(&str, &str)]| {
        let stand_ins = folder.path().join(name);
        fs::create_dir(&stand_ins).unwrap();
        for (name, text) in programs {
            program(&stand_ins, name, text);
        }
        vec![stand_ins, bin.clone(), "/usr/bin".into(), "/bin".into()]
    };
    let real = stand_ins("real", &[]);
    let without_credentials = stand_ins("plain", &[executor, ("vault-scw-creds", WITHOUT_CREDENTIALS)]);
    let never_healthy = stand_ins("never-healthy", &[("argocd-wait", "#!/bin/sh\nexit 8\n")]);
    let mut runs = Vec::new();
    let jobs = jobs();
    for job in &jobs {
        let paths: Vec<&Vec<PathBuf>> = match job.template.as_str() {
            // What it gives Vault's tool is what vault-scw-creds.yml gives it; the rest goes to OpenTofu and sh.
            "infra" => continue,
            "vault-scw-creds" => vec![&real],
            // Once the wait says so, its script rolls back with what it has.
            "argocd-wait" => vec![&real, &never_healthy],
            _ => vec![&without_credentials],
        };
        for path in paths {
            let right = job.run(&[&tools.bash], path, &folder.path().join("right"), &[]);
            let code = right.status.code();
            assert!(
                code != Some(USAGE) && code != Some(0),
                "{} should get as far as a server: {right:?}",
                job.name
            );
            for (variable, _, default) in &job.inputs {
                for (kind, value) in wrong(&job.variables[variable]) {
                    if !(value.is_empty() && default.as_deref() == Some("")) {
                        runs.push((job, path, variable, kind, value));
                    }
                }
            }
        }
    }
    // infra.yml alone gives Vault's tool this one.
    let (of_vault, aws) = (
        jobs.iter().find(|job| job.template == "vault-scw-creds").unwrap(),
        "TOWPATH_AWS".to_owned(),
    );
    runs.extend(wrong("creds").map(|(kind, value)| (of_vault, &real, &aws, kind, value)));
    // How many of a job's runs took which kinds, by template and variable.
    let taken = Mutex::new(BTreeMap::<(&str, &str), BTreeMap<&str, usize>>::new());
    let next = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for thread in 0..4 {
            let (taken, next, runs, tools, folder) = (&taken, &next, &runs, &tools, &folder);
            scope.spawn(move || {
                let work = folder.path().join(format!("wrong-{thread}"));
                while let Some((job, path, variable, kind, value)) =
                    runs.get(next.fetch_add(1, Ordering::Relaxed))
                {
                    let over = [(variable.as_str(), value.clone())];
                    let ran = job.run(&[&tools.bash], path, &work, &over);
                    if ran.status.code() != Some(USAGE) {
                        let mut taken = taken.lock().unwrap();
                        *taken
                            .entry((&job.template, variable))
                            .or_default()
                            .entry(kind)
                            .or_default() += 1;
                    }
                }
            });
        }
    });
    let mut seen = BTreeMap::<&str, BTreeSet<String>>::new();
    for ((template, variable), kinds) in taken.into_inner().unwrap() {
        let programs = runs_of(&runs, template, variable);
        let kinds = kinds.into_iter().filter(|(kind, count)| *count == programs[kind]);
        seen.entry(variable)
            .or_default()
            .extend(kinds.map(|(kind, _)| kind.to_owned()));
    }
    seen.retain(|_, kinds| !kinds.is_empty());
    let page = fs::read_to_string(checkout().join("ci-templates/README.md")).unwrap();
    let (_, table) = page.split_once("<!-- taken -->").expect("the page has the table");
    let (table, _) = table.split_once("<!-- /taken -->").unwrap();
    let mut told = BTreeMap::new();
    for row in table.lines().filter_map(|line| line.strip_prefix("| `")) {
        let columns: Vec<&str> = row.trim_end_matches([' ', '|']).split(" | ").collect();
        let [variable, inputs, kinds, ..] = columns[..] else {
            panic!("{row}")
        };
        let variable = variable.trim_end_matches('`');
        let inputs: BTreeSet<&str> = inputs.split(", ").map(|input| input.trim_matches('`')).collect();
        let takes: BTreeSet<&str> = jobs
            .iter()
            .flat_map(|job| &job.inputs)
            .filter(|(name, ..)| name == variable)
            .map(|(_, input, _)| input.as_str())
            .collect();
        assert_eq!(inputs, takes, "the inputs that become {variable}");
        told.insert(
            variable,
            kinds.split(", ").map(str::to_owned).collect::<BTreeSet<_>>(),
        );
    }
    // What goes to OpenTofu and sh, which are not ours, is on the page as well.
    let of_vault: BTreeSet<&str> = variables_of(&jobs, "vault-scw-creds").collect();
    for variable in variables_of(&jobs, "infra").filter(|variable| !of_vault.contains(variable)) {
        // These two go to Vault's tool in the place of another, and as the trace to every tool.
        if !["INFRA_PLAN_ROLE", "TRACEPARENT", "TOWPATH_AWS"].contains(&variable) {
            seen.insert(variable, BTreeSet::from(["anything".to_owned()]));
        }
    }
    assert_eq!(told, seen, "left what the page says, right what the tools take");
}

/// In how many runs of a template's jobs a variable was given a value of each kind.
fn runs_of<'a>(
    runs: &[(&Job, &Vec<PathBuf>, &String, &'a str, String)],
    template: &str,
    variable: &str,
) -> BTreeMap<&'a str, usize> {
    let mut counts = BTreeMap::new();
    for (job, _, name, kind, _) in runs {
        if job.template == template && *name == variable {
            *counts.entry(*kind).or_default() += 1;
        }
    }
    counts
}

fn variables_of<'a>(jobs: &'a [Job], template: &'a str) -> impl Iterator<Item = &'a str> {
    let jobs = jobs.iter().filter(move |job| job.template == template);
    jobs.flat_map(|job| job.inputs.iter().map(|(variable, ..)| variable.as_str()))
}
