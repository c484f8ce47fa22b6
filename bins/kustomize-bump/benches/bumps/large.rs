//! One image in a repository of many files, beside what plain git does about the same change.

use towpath_sandbox::measured::{Table, median};

use crate::program::{RUNS, ours, script};
use crate::world::{Way, World, digest};

const FILES: usize = 5500;
const PROD: &str = "apps/shop/overlays/prod/kustomization.yaml";

/// A table of its own, since the others here are no other tool for the same, but git alone.
pub(crate) async fn measure() -> Table {
    let mut table = Table::new(vec!["seconds".to_owned()]);
    let mut row = |name: &str, seconds: Vec<f64>| table.row(name, vec![format!("{:.2}", median(seconds))]);
    let world = world(Way::Git).await;
    let (mut own, mut shallow, mut full) = (Vec::new(), Vec::new(), Vec::new());
    // One after the other, so that all of them see the machine in the same state.
    for run in 0..RUNS {
        let image = format!("app@{}", digest(3 * run + 1));
        let (report, took) = ours(&world, &["set", &image, "--path", "apps/shop/overlays/prod"]).await;
        assert_eq!(report["changed"], true);
        check(&world, 3 * run + 1).await;
        own.push(took.seconds);
        for (number, depth, seconds) in [
            (3 * run + 2, "--depth=1", &mut shallow),
            (3 * run + 3, "", &mut full),
        ] {
            let change = format!(
                "set -e\n\
                 git clone --quiet {depth} \"$REPOSITORY\" clone\n\
                 cd clone\n\
                 sed -i 's/digest: .*/digest: {}/' {PROD}\n\
                 git commit --quiet --all --message 'Set an image'\n\
                 git push --quiet origin main\n",
                digest(number)
            );
            seconds.push(script(&world, &change).await.seconds);
            check(&world, number).await;
        }
    }
    row(&format!("`kustomize-bump set`, by git, {FILES} files"), own);
    row("`git clone --depth=1`, `sed`, commit, push", shallow);
    row("`git clone`, `sed`, commit, push", full);
    let world = self::world(Way::Api).await;
    let mut by_api = Vec::new();
    for run in 0..RUNS {
        let image = format!("app@{}", digest(run + 1));
        let (report, took) = ours(&world, &["set", &image, "--path", "apps/shop/overlays/prod"]).await;
        assert_eq!(report["via"], "api");
        check(&world, run + 1).await;
        by_api.push(took.seconds);
    }
    row("`kustomize-bump set`, by the API of a stand-in", by_api);
    table
}

async fn world(way: Way) -> World {
    let texts: Vec<(String, String)> = (0..FILES - 1)
        .map(|number| {
            let path = format!("apps/app-{:03}/base/file-{number}.yaml", number % 300);
            let lines = (0..20).map(|line| format!("  key-{line}: value-{number}-{line}\n"));
            (path, format!("data:\n{}", lines.collect::<String>()))
        })
        .chain([(
            PROD.to_owned(),
            format!("images:\n- name: app\n  digest: {}\n", digest(0)),
        )])
        .collect();
    let files: Vec<(&str, &str)> = texts
        .iter()
        .map(|(path, text)| (path.as_str(), text.as_str()))
        .collect();
    World::over(way, &files).await
}

async fn check(world: &World, number: usize) {
    let text = world.file(PROD).await;
    assert!(text.contains(&digest(number)), "{text}");
}
