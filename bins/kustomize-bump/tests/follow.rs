//! Which kustomization decides about an image: asked of the binary, and of kustomize itself.

#![allow(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "tests make the world they look at"
)]

mod world;

use std::path::Path;
use std::process::Command;

use towpath::kustomize::{Build, Sources, Tried};
use world::{A, B, Ended, Numbers, Way, World, both_ways, scrubbed};

both_ways!(a_remote_branch_is_followed_and_a_hold_on_the_overlay_stands);

/// A folder with these files.
fn folder(files: &[(&str, &str)]) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    for (path, text) in files {
        let path = folder.path().join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }
    folder
}

async fn bump(folder: &Path, arguments: &[&str]) -> Ended {
    world::run(arguments, &scrubbed(folder), folder).await
}

/// A deployment whose containers run these images.
fn deployment(name: &str, images: &[&str]) -> String {
    let containers: String = images
        .iter()
        .enumerate()
        .map(|(number, image)| format!("      - {{name: c{number}, image: \"{image}\"}}\n"))
        .collect();
    format!(
        "apiVersion: apps/v1\nkind: Deployment\nmetadata: {{name: {name}}}\n\
         spec:\n  template:\n    spec:\n      containers:\n{containers}"
    )
}

/// The images that kustomize builds from a folder, sorted.
fn built(folder: &Path) -> Vec<String> {
    let output = Command::new(world::kubectl())
        .arg("kustomize")
        .arg(folder)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{said}");
    let mut images: Vec<String> = String::from_utf8(output.stdout)
        .unwrap()
        .lines()
        .filter_map(|line| line.trim_start_matches([' ', '-']).strip_prefix("image: "))
        .map(str::to_owned)
        .collect();
    images.sort();
    images
}

const APP: &str = "apps.yaml";

#[tokio::test]
async fn an_image_is_set_where_it_is_decided() {
    let files = [
        ("base/apps.yaml", deployment("d", &["app:v0", "web:v0"])),
        (
            "base/kustomization.yaml",
            format!(
                "resources: [{APP}]\nimages:\n- name: app # ours\n  newName: registry.example.com/app\n  digest: {A}\n"
            ),
        ),
        (
            "prod/kustomization.yaml",
            // The first entry matches nothing any more, since the base gave the image another name.
            "resources: [../base]\nimages:\n- name: app\n  newTag: never\n- name: web\n  newTag: v1\n"
                .to_owned(),
        ),
        ("canary/kustomization.yaml", "resources: [../prod]\n".to_owned()),
    ];
    let files: Vec<(&str, &str)> = files.iter().map(|(path, text)| (*path, text.as_str())).collect();
    let folder = folder(&files);
    let image = format!("app@{B}");
    bump(folder.path(), &["set", &image, "--path", "canary"])
        .await
        .refused(5, "canary/kustomization.yaml: no image app");
    let report = bump(
        folder.path(),
        &["set", &image, "--path", "canary,prod", "--follow"],
    )
    .await
    .report();
    let file = &report["files"][0];
    assert_eq!(
        (
            &file["file"],
            &file["decides_for"],
            report["files"].as_array().unwrap().len()
        ),
        (
            &"base/kustomization.yaml".into(),
            &serde_json::json!(["canary", "prod"]),
            1
        )
    );
    assert!(
        report["notes"]
            .to_string()
            .contains("whatever else builds on it changes too"),
        "{report}"
    );
    let expected = vec![format!("registry.example.com/app@{B}"), "web:v1".to_owned()];
    assert_eq!(built(&folder.path().join("canary")), expected);

    let web = bump(
        folder.path(),
        &["get", "--image", "web", "--path", "canary", "--follow"],
    )
    .await
    .report();
    let web = &web["images"][0];
    assert_eq!(
        (
            &web["path"],
            &web["built"],
            &web["file"],
            &web["line"],
            &web["manifests"]
        ),
        (
            &"canary".into(),
            &"web:v1".into(),
            &"prod/kustomization.yaml".into(),
            &5.into(),
            &serde_json::json!(["base/apps.yaml"])
        )
    );
    // By the name it has in the end, from a handoff that repeats it.
    let again = format!("registry.example.com/app=registry.example.com/app:v3@{A}");
    let report = bump(
        folder.path(),
        &["set", &again, "--path", "canary", "--follow", "--pin", "both"],
    )
    .await
    .report();
    assert_eq!(report["files"][0]["new"]["new_name"], "registry.example.com/app");
    assert_eq!(
        built(&folder.path().join("canary"))[0],
        format!("registry.example.com/app:v3@{A}")
    );
}

#[tokio::test]
async fn components_and_several_bases_are_followed() {
    let files = [
        ("one/apps.yaml", deployment("one", &["app:v0"])),
        ("one/kustomization.yaml", "resources: [apps.yaml]\nimages: [{name: app, newTag: v1}]\n".to_owned()),
        ("two/apps.yaml", deployment("two", &["app:v0", "web"])),
        ("two/kustomization.yaml", "bases: [../three]\nresources: [apps.yaml]\nimages:\n- name: app\n  newTag: v2\n".to_owned()),
        ("three/kustomization.yaml", "resources: []\nnamePrefix: x-\n".to_owned()),
        ("both/kustomization.yaml", "resources: [../one, ../two]\ncomponents: [../part]\n".to_owned()),
        (
            "part/kustomization.yaml",
            "apiVersion: kustomize.config.k8s.io/v1alpha1\nkind: Component\nimages: [{name: web, newTag: part}]\n".to_owned(),
        ),
    ];
    let files: Vec<(&str, &str)> = files.iter().map(|(path, text)| (*path, text.as_str())).collect();
    let folder = folder(&files);
    let (app, web) = (format!("app@{B}"), format!("web@{A}"));
    let report = bump(
        folder.path(),
        &["set", &app, &web, "--path", "both", "--follow", "--pin", "digest"],
    )
    .await
    .report();
    let mut edited: Vec<&str> = report["files"]
        .as_array()
        .unwrap()
        .iter()
        .map(|file| file["file"].as_str().unwrap())
        .collect();
    edited.sort_unstable();
    assert_eq!(
        edited,
        [
            "one/kustomization.yaml",
            "part/kustomization.yaml",
            "two/kustomization.yaml"
        ]
    );
    assert_eq!(
        built(&folder.path().join("both")),
        [format!("app@{B}"), format!("app@{B}"), format!("web@{A}")]
    );
}

#[tokio::test]
async fn what_no_entry_decides_is_added_under_the_name_it_has_there() {
    let base = "resources: [apps.yaml]\nimages: [{name: app, newName: registry.example.com/app}]\n";
    let files = [
        ("base/apps.yaml", deployment("d", &["app:v0", "web:v0"])),
        ("base/kustomization.yaml", base.to_owned()),
        ("prod/kustomization.yaml", "resources: [../base]\n".to_owned()),
    ];
    let files: Vec<(&str, &str)> = files.iter().map(|(path, text)| (*path, text.as_str())).collect();
    let folder = folder(&files);
    let web = format!("web@{B}");
    let set = ["set", web.as_str(), "--path", "prod", "--follow"];
    bump(folder.path(), &set).await.refused(
        5,
        "image web stands in base/apps.yaml, and no entry of images decides about it",
    );
    let none = bump(
        folder.path(),
        &["set", &format!("none@{B}"), "--path", "prod", "--follow"],
    )
    .await;
    none.refused(5, "no image none in what is built from it");
    assert!(
        none.stderr
            .contains("images there: registry.example.com/app, web"),
        "{none:?}"
    );
    bump(folder.path(), &[&set[..], &["--add"]].concat())
        .await
        .report();
    assert_eq!(
        std::fs::read_to_string(folder.path().join("prod/kustomization.yaml")).unwrap(),
        format!("resources: [../base]\nimages:\n- name: web\n  digest: {B}\n")
    );
    // An entry that gives a name alone is where the digest belongs.
    bump(
        folder.path(),
        &["set", &format!("app@{A}"), "--path", "prod", "--follow"],
    )
    .await
    .report();
    assert_eq!(
        built(&folder.path().join("prod")),
        [format!("registry.example.com/app@{A}"), format!("web@{B}")]
    );
}

#[tokio::test]
async fn a_build_that_would_not_come_out_is_refused() {
    let base = format!("resources: [apps.yaml]\nimages: [{{name: app, digest: \"{A}\"}}]\n");
    for (overlay, words) in [
        (
            "images: [{name: \".*\", newTag: all}]\n",
            "prod/kustomization.yaml: web:all would become web@sha256:bbbb",
        ),
        (
            "images: [{name: app, tagSuffix: -x}]\n",
            "by the entry at prod/kustomization.yaml:2",
        ),
        (
            "components: [../prod]\n",
            "prod/kustomization.yaml leads back to prod/kustomization.yaml",
        ),
        (
            "patches: [{path: none.yaml}]\nbases: [../none]\n",
            "the resource ../none is not there",
        ),
        (
            "namespace: x\nImages: []\n",
            "kustomize reads the key Images as images",
        ),
    ] {
        let files = [
            ("base/apps.yaml", deployment("d", &["app:v0", "web:v0"])),
            ("base/kustomization.yaml", base.clone()),
            (
                "prod/kustomization.yaml",
                format!("resources: [../base]\n{overlay}"),
            ),
        ];
        let files: Vec<(&str, &str)> = files.iter().map(|(path, text)| (*path, text.as_str())).collect();
        let folder = folder(&files);
        let set = ["set", &format!("app@{B}"), "--path", "prod", "--follow"];
        let ended = bump(folder.path(), &set).await;
        assert!(ended.code == 3 || ended.code == 5, "{ended:?}");
        ended.refused(ended.code, words);
        let now = std::fs::read_to_string(folder.path().join("base/kustomization.yaml")).unwrap();
        assert_eq!(now, base, "{overlay}");
    }
}

/// Entries come after patches; what a patch replaces is not worked out here.
#[tokio::test]
async fn an_image_that_a_patch_names_is_set_refused_or_told() {
    let base = (
        "base/kustomization.yaml",
        "resources: [apps.yaml]\nimages: [{name: app, newTag: v1}]\n",
    );
    let apps = deployment("d", &["app:v0"]);
    let strategic = |image: &str| ("prod/patch.yaml", deployment("d", &[image]));
    let json = "patches:\n- target: {kind: Deployment, name: d}\n  patch: |-\n    - op: replace\n      \
                path: /spec/template/spec/containers/0/image\n      value: new/app:v7\n";
    let (by_file, entry) = (
        "patches: [{path: patch.yaml}]\n",
        "images: [{name: app, newTag: v3}]\n",
    );
    let beside = [format!("{by_file}{entry}"), format!("{json}{entry}")];
    // Given by the patch, what the overlay says beside its base, and what comes out: built, or refused.
    for (patch, says, outcome) in [
        ("app:v9", beside[0].as_str(), Ok(format!("app:v4@{B}"))),
        (
            "app:v9",
            by_file,
            Err("is decided in base/kustomization.yaml, and in prod/patch.yaml by no entry"),
        ),
        ("other/app:v9", by_file, Ok("other/app:v9".to_owned())),
        ("other/app:v9", &beside[0], Ok("other/app:v9".to_owned())),
        ("unused", &beside[1], Ok("new/app:v7".to_owned())),
    ] {
        let overlay = format!("resources: [../base]\n{says}");
        let (file, text) = strategic(patch);
        let folder = folder(&[
            base,
            ("base/apps.yaml", &apps),
            ("prod/kustomization.yaml", &overlay),
            (file, &text),
        ]);
        let image = format!("app:v4@{B}");
        let set = ["set", &image, "--path", "prod", "--follow", "--pin", "both"];
        let ended = bump(folder.path(), &set).await;
        match outcome {
            Ok(image) => {
                let notes = ended.report()["notes"].to_string();
                assert!(notes.contains("which image it takes the place of"), "{notes}");
                assert_eq!(built(folder.path().join("prod").as_path()), [image]);
            }
            Err(words) => ended.refused(3, words),
        }
    }
}

#[tokio::test]
async fn what_cannot_be_followed_is_named() {
    let overlay = format!(
        "resources:\n- https://example.com/deploy.yaml\n- github.com/team/repo//deploy?ref=v1\n- ../../outside\n\
         helmCharts: [{{name: x}}]\nimages:\n- name: charted\n  digest: {A}\n"
    );
    let folder = folder(&[("prod/kustomization.yaml", &overlay)]);
    let set = ["set", &format!("charted@{B}"), "--path", "prod", "--follow"];
    let report = bump(folder.path(), &set).await.report();
    let notes = report["notes"].to_string();
    for named in [
        "https://example.com/deploy.yaml is elsewhere",
        "github.com/team/repo//deploy?ref=v1 is elsewhere",
        "../../outside is elsewhere",
        "helmCharts was not followed",
    ] {
        assert!(notes.contains(named), "{named} is not in {notes}");
    }
    assert_eq!(
        std::fs::read_to_string(folder.path().join("prod/kustomization.yaml")).unwrap(),
        overlay.replace(A, B)
    );
}

async fn a_remote_branch_is_followed_and_a_hold_on_the_overlay_stands(way: Way) {
    let base = format!("resources: [apps.yaml]\nimages: [{{name: app, newTag: v1, digest: \"{A}\"}}]\n");
    let world = World::over(
        way,
        &[
            ("base/apps.yaml", &deployment("d", &["app:v0"])),
            ("base/kustomization.yaml", &base),
            ("overlays/prod/kustomization.yaml", "resources: [../../base]\n"),
            ("overlays/test/kustomization.yaml", "resources: [../../base]\n"),
        ],
    )
    .await;
    let image = format!("app:v2@{B}");
    let set = ["set", image.as_str(), "--path", "overlays/*", "--follow"];
    let report = world.bump(&set).await.report();
    assert_eq!(
        report["files"][0]["decides_for"],
        serde_json::json!(["overlays/prod", "overlays/test"])
    );
    assert_eq!(
        world.file("base/kustomization.yaml").await,
        base.replace("v1", "v2").replace(A, B)
    );
    assert_eq!(world.bump(&set).await.report()["changed"], false);
    let hold = format!(
        "{{\"schema\": \"towpath.hold/1\", \"path\": \"overlays/prod\", \"image\": \"app\", \"held_at\": \"app@{A}\", \
         \"taken_from\": \"app@{B}\", \"by\": \"Ada <ada@example.com>\", \"since\": \"2026-01-01T00:00:00Z\", \"reason\": \"sale\"}}"
    );
    let gone = hold.replace("\"app\"", "\"gone\"");
    world
        .push(&[
            (".towpath/holds/overlays/prod/app.json", &hold),
            (".towpath/holds/overlays/prod/gone.json", &gone),
        ])
        .await;
    let (other, gone) = (format!("app@{A}"), format!("gone@{A}"));
    for (image, add) in [(&other, "--where-present"), (&gone, "--add")] {
        world
            .bump(&["set", image, "--path", "overlays/prod", "--follow", add])
            .await
            .refused(4, "is held at");
    }
    // What is so already needs no release.
    assert_eq!(world.bump(&set).await.report()["changed"], false);
}

fn entries(numbers: &mut Numbers) -> String {
    let names = [
        "app",
        "web",
        "my-app",
        "my.app",
        "team/app",
        "host:5000/app",
        ".*app",
        "team/.*",
        "a|b",
        "(app|web)",
    ];
    let new_names = ["web", "team/app", "host:5000/app", "my-app"];
    let mut text = String::from("images:\n");
    for _ in 0..numbers.below(4) {
        text.push_str(&format!("- name: \"{}\"\n", numbers.pick(&names)));
        if numbers.below(3) == 0 {
            text.push_str(&format!("  newName: {}\n", numbers.pick(&new_names)));
        }
        if numbers.below(2) == 0 {
            text.push_str(&format!("  newTag: v{}\n", numbers.below(9)));
        }
        match numbers.below(5) {
            0 => text.push_str(&format!("  digest: {A}\n")),
            1 => text.push_str("  digest: sha512:abcd\n"),
            _ => {}
        }
    }
    text
}

/// Random worlds, built by kustomize and by us.
#[test]
fn kustomize_builds_what_is_said_here() {
    let images = [
        "app",
        "app:v0",
        "web",
        "my-app:1",
        "my_app",
        "team/app:v1",
        "host:5000/app",
        "host:5000/app:v2",
        "apple",
        "app@sha256:abcd",
        "app:v1@sha256:abcd",
        "app@sha512:abcd",
    ];
    let mut changed = 0;
    for seed in 0..40 {
        let mut numbers = Numbers(seed);
        let mut files: Vec<(String, String)> = Vec::new();
        for name in ["base", "side", "part", "mid", "top"] {
            let picked: Vec<&str> = (0..=numbers.below(2)).map(|_| numbers.pick(&images)).collect();
            files.push((format!("{name}/apps.yaml"), deployment(name, &picked)));
            let layers = match name {
                "mid" => "resources: [apps.yaml, ../base]\ncomponents: [../part]\n",
                "top" => "bases: [../mid]\nresources: [../side, ./apps.yaml]\n",
                "part" => {
                    "apiVersion: kustomize.config.k8s.io/v1alpha1\nkind: Component\nresources: [apps.yaml]\n"
                }
                _ => "resources: [apps.yaml]\n",
            };
            files.push((
                format!("{name}/kustomization.yaml"),
                format!("{layers}{}", entries(&mut numbers)),
            ));
        }
        let borrowed: Vec<(&str, &str)> = files
            .iter()
            .map(|(path, text)| (path.as_str(), text.as_str()))
            .collect();
        let folder = folder(&borrowed);
        let expected = built(&folder.path().join("top"));

        let mut sources = Sources::default();
        let build = loop {
            match Build::of("top", &sources).unwrap() {
                Tried::Built(build) => break build,
                Tried::Needs(paths) => {
                    for path in paths {
                        let content = std::fs::read(folder.path().join(&path)).ok();
                        sources.learn(&path, content.as_deref()).unwrap();
                    }
                }
            }
        };
        let read = build.images.iter().filter(|image| image.origin.is_some());
        let mut actual: Vec<String> = read.clone().map(|image| image.built.clone()).collect();
        actual.sort();
        assert_eq!(actual, expected, "seed {seed}: {files:#?}");
        changed += read.filter(|image| image.decided_by.is_some()).count();
    }
    assert!(changed > 50, "only {changed} images were decided about");
}
