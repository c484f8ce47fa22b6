//! Many kustomizations at once, by patterns that no shell has to understand.

#![allow(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "tests make the world they look at"
)]

mod world;

use world::{A, B, C, Way, World, both_ways, scrubbed};

both_ways!(
    a_pattern_names_folders_in_the_repository_and_makes_one_commit,
    all_or_nothing_unless_told_otherwise,
    a_pattern_that_names_nothing_is_refused_with_what_is_there,
);

fn with(images: &[&str]) -> String {
    let entries: String = images
        .iter()
        .map(|image| format!("- name: {image}\n  digest: {A}\n"))
        .collect();
    format!("images:\n{entries}")
}

async fn shops(way: Way) -> World {
    World::over(
        way,
        &[
            ("apps/shop/base/kustomization.yaml", &with(&["app"])),
            ("apps/shop/prod/kustomization.yaml", &with(&["app", "web"])),
            ("apps/shop/eu/prod/Kustomization", &with(&["app"])),
            ("apps/api/prod/kustomization.yml", &with(&["web"])),
            ("apps/kustomization.yaml", "resources: [shop/prod]\n"),
            ("apps/api/prod/notes.yaml", "images: none\n"),
        ],
    )
    .await
}

fn folders(report: &serde_json::Value) -> Vec<String> {
    let files = report["files"].as_array().unwrap();
    let mut folders: Vec<String> = files
        .iter()
        .map(|file| format!("{} {}", file["path"], file["image"]).replace('"', ""))
        .collect();
    folders.sort();
    folders
}

async fn a_pattern_names_folders_in_the_repository_and_makes_one_commit(way: Way) {
    let world = shops(way).await;
    let app = format!("app@{B}");
    let report = world
        .bump(&["set", &app, "--path", "apps/shop/**/{prod,base}"])
        .await
        .report();
    assert_eq!(
        folders(&report),
        [
            "apps/shop/base app",
            "apps/shop/eu/prod app",
            "apps/shop/prod app"
        ]
    );
    assert_eq!(world.commits().await, 2);
    assert_eq!(
        world.file("apps/shop/eu/prod/Kustomization").await,
        with(&["app"]).replace(A, B)
    );
    // The same from a variable, with a folder that is named twice.
    let paths = [("TOWPATH_PATH", "apps/shop/{base,prod},apps/shop/prod")];
    let got = world.bump_with(&paths, &["get", "--image", "app"]).await.report();
    assert_eq!(got["images"].as_array().unwrap().len(), 2, "{got}");
    // What is there decides each time: a folder that came later is named too.
    world
        .push(&[("apps/shop/us/prod/kustomization.yaml", &with(&["app"]))])
        .await;
    let report = world
        .bump(&["set", &app, "--path", "apps/shop/*/prod"])
        .await
        .report();
    assert_eq!(
        folders(&report),
        ["apps/shop/eu/prod app", "apps/shop/us/prod app"]
    );
    assert_eq!(report["changed"], true);
}

async fn all_or_nothing_unless_told_otherwise(way: Way) {
    let world = shops(way).await;
    let (app, web, none) = (format!("app@{B}"), format!("web@{C}"), format!("none@{C}"));
    let pattern = "apps/**/prod";
    world
        .bump(&["set", &app, "--path", pattern])
        .await
        .refused(5, "apps/api/prod/kustomization.yml: no image app");
    assert_eq!(world.commits().await, 1);
    let report = world
        .bump(&["set", &app, &web, "--path", pattern, "--where-present"])
        .await
        .report();
    assert_eq!(
        folders(&report),
        [
            "apps/api/prod web",
            "apps/shop/eu/prod app",
            "apps/shop/prod app",
            "apps/shop/prod web"
        ]
    );
    assert_eq!(world.commits().await, 2);
    world
        .bump(&["set", &app, &none, "--path", pattern, "--where-present"])
        .await
        .refused(5, "none of the 3 kustomizations has image none");
    world
        .bump(&["set", &app, "--path", pattern, "--where-present", "--add"])
        .await
        .refused(2, "cannot be used with");
}

async fn a_pattern_that_names_nothing_is_refused_with_what_is_there(way: Way) {
    let world = shops(way).await;
    let app = format!("app@{B}");
    let nothing = world.bump(&["set", &app, "--path", "apps/shop/prd*"]).await;
    nothing.refused(5, "no kustomization matches apps/shop/prd*");
    assert!(
        nothing
            .stderr
            .contains("kustomizations are in apps/shop/base, apps/shop/eu/prod, apps/shop/prod"),
        "{nothing:?}"
    );
    let elsewhere = world.bump(&["get", "--path", "overlays/*"]).await;
    elsewhere.refused(5, "kustomizations are in apps, apps/api/prod");
    for (path, words) in [
        ("apps/{a,b", "a brace is not closed"),
        ("apps/[ab", "a bracket is not closed"),
        ("../*", "leads out of the repository"),
        ("/srv/*", "is absolute"),
    ] {
        world.bump(&["get", "--path", path]).await.refused(2, words);
    }
    world
        .bump(&["history", "--image", "app", "--path", "apps/*"])
        .await
        .refused(2, "is a pattern where one folder is needed");
}

#[tokio::test]
async fn a_folder_with_odd_characters_can_be_stood_in() {
    let folder = tempfile::tempdir().unwrap();
    let environment = scrubbed(folder.path());
    let odd = folder.path().join("we{i}rd [1]");
    for below in ["one", "two"] {
        std::fs::create_dir_all(odd.join(below)).unwrap();
        std::fs::write(odd.join(below).join("kustomization.yaml"), with(&["app"])).unwrap();
    }
    let init = std::process::Command::new("git")
        .args(["init", "--quiet"])
        .current_dir(folder.path())
        .status();
    assert!(init.unwrap().success());
    let app = format!("app@{B}");
    let ended = world::run(&["set", &app, "--path", "*"], &environment, &odd).await;
    assert_eq!(
        folders(&ended.report()),
        ["we{i}rd [1]/one app", "we{i}rd [1]/two app"]
    );
    let literal = ["get", "--path", "we{i}rd \\[1]/one"];
    let ended = world::run(&literal, &environment, folder.path()).await;
    ended.refused(5, "no kustomization matches");
    let escaped = ["get", "--path", "we\\{i\\}rd \\[1]/one"];
    let ended = world::run(&escaped, &environment, folder.path()).await;
    assert_eq!(ended.report()["images"][0]["digest"], B);
}
