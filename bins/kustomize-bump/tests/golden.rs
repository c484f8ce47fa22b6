//! Files of many styles: golden folders, edited in a folder, by git and by the API; and random ones. kustomize itself judges
//! what they build.

#![allow(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "tests make the world they look at"
)]

mod world;

use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;
use towpath::kustomize::{ImageSpec, Kustomization, Pin};
use world::{A, B, Ended, Numbers, Way, World, both_ways, files, scrubbed};

both_ways!(golden_folders_change_on_a_branch_as_in_a_folder);

/// A folder with `original/`, `expected/`, `arguments` (one a line; `{A}` and `{B}` are digests) and `images` (what the build
/// has to name, one a line); or with `refusal`, its words, in the place of the last two.
struct Case {
    name: String,
    folder: PathBuf,
}

impl Case {
    fn all() -> Vec<Case> {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
        let cases = std::fs::read_dir(folder).unwrap().map(|entry| {
            let folder = entry.unwrap().path();
            let name = folder.file_name().unwrap().to_string_lossy().into_owned();
            Case { name, folder }
        });
        let cases: Vec<Case> = cases.collect();
        let refused = cases.iter().filter(|case| case.refusal().is_some()).count();
        assert!(
            cases.len() - refused >= 30 && refused >= 7,
            "only {} and {refused} cases were found",
            cases.len() - refused
        );
        cases
    }

    fn filled(&self, file: &str) -> String {
        let text = std::fs::read_to_string(self.folder.join(file)).unwrap();
        text.replace("{A}", A).replace("{B}", B)
    }

    fn refusal(&self) -> Option<String> {
        let refused = self.folder.join("refusal").exists();
        refused.then(|| self.filled("refusal").trim().to_owned())
    }

    /// The files before, or after where anything is to change, by their names.
    fn texts(&self, part: &str) -> Vec<(String, String)> {
        let files = files(&self.folder.join(part)).into_iter();
        files
            .map(|(name, content)| (name.display().to_string(), String::from_utf8(content).unwrap()))
            .collect()
    }
}

async fn bump(folder: &Path, arguments: &[&str]) -> Ended {
    world::run(arguments, &scrubbed(folder), folder).await
}

fn copy(from: &Path, to: &Path) {
    for (name, content) in files(from) {
        let path = to.join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, content).unwrap();
    }
}

/// What kustomize makes of a folder.
fn build(folder: &Path) -> String {
    let output = Command::new(world::kubectl())
        .arg("kustomize")
        .arg(folder)
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout).unwrap()
}

#[tokio::test]
async fn golden_folders_change_as_expected_and_still_build() {
    for case in Case::all() {
        let name = &case.name;
        let folder = tempfile::tempdir().unwrap();
        copy(&case.folder.join("original"), folder.path());
        let arguments = case.filled("arguments");
        let arguments: Vec<&str> = arguments.lines().collect();
        let ended = bump(folder.path(), &arguments).await;
        if let Some(refusal) = case.refusal() {
            ended.refused(3, &refusal);
            assert_eq!(
                files(folder.path()),
                files(&case.folder.join("original")),
                "{name}"
            );
            continue;
        }
        let report = ended.report();
        assert_eq!(
            (&report["changed"], &report["commit"]),
            (&true.into(), &Value::Null),
            "{name}"
        );
        let expected = files(&case.folder.join("expected"));
        let actual = files(folder.path());
        assert_eq!(
            actual.keys().collect::<Vec<_>>(),
            expected.keys().collect::<Vec<_>>(),
            "{name}"
        );
        for (file, content) in expected {
            let actual = String::from_utf8_lossy(&actual[&file]).into_owned();
            assert_eq!(
                actual,
                String::from_utf8_lossy(&content),
                "{name}: {}",
                file.display()
            );
        }
        let built = build(&folder.path().join("prod"));
        for image in case.filled("images").lines() {
            assert!(
                built.contains(&format!("image: {image}\n")),
                "{name}: {image} is not in\n{built}"
            );
        }
        assert_eq!(
            bump(folder.path(), &arguments).await.report()["changed"],
            false,
            "{name}: a second run"
        );
    }
}

async fn golden_folders_change_on_a_branch_as_in_a_folder(way: Way) {
    let cases = Case::all();
    let mut before = Vec::new();
    let mut after = Vec::new();
    for case in &cases {
        // GitLab's API makes other line ends of those of Windows, and is not asked to.
        let original = case.texts("original");
        let keeps = way == Way::Git || original.iter().all(|(_, text)| !text.contains("\r\n"));
        let part = match case.refusal() {
            None if keeps => "expected",
            _ => "original",
        };
        let named = |(file, text): (String, String)| (format!("{}/{file}", case.name), text);
        before.extend(original.into_iter().map(named));
        after.extend(case.texts(part).into_iter().map(named));
    }
    let before: Vec<(&str, &str)> = before
        .iter()
        .map(|(file, text)| (file.as_str(), text.as_str()))
        .collect();
    let world = World::over(way, &before).await;
    let mut commits = 1;
    for case in &cases {
        let arguments = case.filled("arguments");
        let mut arguments: Vec<String> = arguments.lines().map(str::to_owned).collect();
        let path = arguments
            .iter()
            .position(|argument| argument == "--path")
            .unwrap()
            + 1;
        arguments[path] = format!("{}/{}", case.name, arguments[path]);
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        let ended = world.bump(&arguments).await;
        match case.refusal() {
            Some(refusal) => ended.refused(3, &refusal),
            None if way == Way::Api && case.name == "windows_line_ends" => ended.refused(3, "--via git"),
            None => {
                assert_eq!(ended.report()["changed"], true, "{}", case.name);
                commits += 1;
            }
        }
    }
    assert_eq!(world.commits().await, commits, "one commit for each");
    let clone = world.folder.path().join("clone");
    let repository = world.repository();
    world
        .git(&[
            "clone",
            "--quiet",
            repository.to_str().unwrap(),
            clone.to_str().unwrap(),
        ])
        .await
        .unwrap();
    std::fs::remove_dir_all(clone.join(".git")).unwrap();
    let there: Vec<(String, String)> = files(&clone)
        .into_iter()
        .map(|(name, content)| (name.display().to_string(), String::from_utf8(content).unwrap()))
        .collect();
    after.sort();
    assert_eq!(there, after);
}

/// Random files of many styles: what kustomize builds after an edit is what was asked for, and what it built before of
/// all others. What is refused stays as it is.
#[test]
fn kustomize_builds_what_random_edits_ask_for() {
    let folder = tempfile::tempdir().unwrap();
    let containers: String = ["app", "api", "web"]
        .iter()
        .map(|name| format!("  - name: {name}\n    image: {name}:v0\n"))
        .collect();
    let pod =
        format!("apiVersion: v1\nkind: Pod\nmetadata:\n  name: all\nspec:\n  containers:\n{containers}");
    std::fs::write(folder.path().join("pod.yaml"), pod).unwrap();
    let file = folder.path().join("kustomization.yaml");
    let named = |built: &str, image: &str| {
        let container = built
            .split("  - image: ")
            .find(|part| part.contains(&format!("name: {image}\n")));
        container.unwrap().lines().next().unwrap().to_owned()
    };
    for seed in 0..48 {
        let mut numbers = Numbers(seed);
        let text = styled(&mut numbers);
        std::fs::write(&file, &text).unwrap();
        let before = build(folder.path());
        let tags = ["v2", "1.10", "0x1f", "1e3", "20240131", "on", "1_000", "08"];
        let (tag, pin) = (numbers.pick(&tags), numbers.below(3));
        let pin = [Pin::Digest, Pin::Tag, Pin::Both][pin];
        let spec: ImageSpec = format!("app=host:5000/team/app:{tag}@{B}").parse().unwrap();
        let parsed = Kustomization::parse("kustomization.yaml", text.as_bytes()).unwrap();
        let edit = parsed.set(&spec, pin, true).unwrap();
        std::fs::write(&file, &edit.text).unwrap();
        let after = build(folder.path());
        let wanted = match pin {
            Pin::Tag => format!("host:5000/team/app:{tag}"),
            // The tag that stands beside a digest is part of the name that is built.
            Pin::Digest | Pin::Both => match &edit.new.tag {
                Some(tag) => format!("host:5000/team/app:{tag}@{B}"),
                None => format!("host:5000/team/app@{B}"),
            },
        };
        assert_eq!(
            named(&after, "app"),
            wanted,
            "seed {seed}:\n{text}\n{}",
            edit.text
        );
        for other in ["api", "web"] {
            assert_eq!(
                named(&after, other),
                named(&before, other),
                "seed {seed}:\n{}",
                edit.text
            );
        }
    }
}

/// A kustomization with entries in the styles that people write.
fn styled(numbers: &mut Numbers) -> String {
    let mut text = String::from("# shop\nresources: [pod.yaml]\n\nimages:");
    let flow = numbers.below(4) == 0;
    let indent = ["", "  "][numbers.below(2)];
    text.push_str(if flow { " [\n" } else { " # front\n" });
    let names: &[&str] = [&["app", "api"][..], &["api", "app", "web"], &["web", "api"]][numbers.below(3)];
    for name in names {
        let quote = ["", "'", "\""][numbers.below(3)];
        let mut fields = vec![format!("name: {quote}{name}{quote}")];
        if numbers.below(3) == 0 {
            fields.push(format!("newName: {quote}mirror/{name}{quote}"));
        }
        if numbers.below(2) == 0 {
            fields.push(format!("newTag: {}", ["v1", "'1.9'", "\"on\""][numbers.below(3)]));
        }
        if numbers.below(2) == 0 {
            fields.push(format!("digest: {quote}{A}{quote}"));
        }
        let middle = 1 + numbers.below(fields.len());
        if flow {
            text.push_str(&format!("  {{{}}}, # {name}\n", fields.join(", ")));
            continue;
        }
        for (number, field) in fields.iter().enumerate() {
            let lead = if number == 0 { "- " } else { "  " };
            let comment = if number + 1 == middle { " # kept" } else { "" };
            text.push_str(&format!("{indent}{lead}{field}{comment}\n"));
        }
    }
    text.push_str(if flow { "]\n" } else { "" });
    text.push_str(["", "namePrefix: eu-\n", "\n# the end"][numbers.below(3)]);
    match numbers.below(3) {
        0 => text.replace('\n', "\r\n"),
        _ => text,
    }
}
