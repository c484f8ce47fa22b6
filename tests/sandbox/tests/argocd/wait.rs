//! `argocd-wait` against the stand-in, by the table that a real Argo CD is held to as well.

use std::time::Duration;

use towpath_sandbox::argocd::{Access, ArgoCd, Declaration, Source};
use towpath_sandbox::argocd_cases::{self, CASES, Cluster};
use towpath_sandbox::towpath_binaries;

use crate::world::{PASSWORD, PATIENCE, World, digest};

#[tokio::test]
async fn every_case_ends_as_on_the_real_one() {
    let bin = tokio::task::spawn_blocking(towpath_binaries::build)
        .await
        .unwrap()
        .unwrap();
    let world = World::new().await;
    for digit in ['c', 'd', 'e'] {
        world.registry.push(&digest(digit));
    }
    // Every source needs something to begin with.
    let empty = "resources: []\n";
    world
        .commit(&[
            ("app/manual/kustomization.yaml", empty),
            ("app/several/kustomization.yaml", empty),
            ("app/more/kustomization.yaml", empty),
            ("app/several-manual/kustomization.yaml", empty),
        ])
        .await;
    world
        .commit_elsewhere(&[("settings/kustomization.yaml", empty)])
        .await;
    world.commit_digest(&digest('c')).await;
    let mut settings = world.settings();
    let elsewhere = world.source_elsewhere("settings");
    let declare = |name: &str, sources: &[Source], automated| Declaration {
        name: name.to_owned(),
        sources: sources.to_vec(),
        namespace: name.to_owned(),
        automated,
    };
    settings.applications.extend([
        declare("manual", &[world.source("app/manual")], false),
        declare(
            "several",
            &[
                elsewhere.clone(),
                world.source("app/several"),
                world.source("app/more"),
            ],
            true,
        ),
        declare(
            "several-manual",
            &[elsewhere, world.source("app/several-manual")],
            false,
        ),
    ]);
    let argocd = ArgoCd::start(settings).await.unwrap();
    let world = &world;
    let cluster = Cluster {
        url: argocd.url(),
        token: argocd.mint_token("ci", Access::Sync, PATIENCE * 4),
        powerless_token: argocd.mint_token("nobody", Access::Nothing, PATIENCE * 4),
        application: "web-prod".to_owned(),
        manual: "manual".to_owned(),
        several: "several".to_owned(),
        several_manual: "several-manual".to_owned(),
        repository: world.source("").repo_url,
        repository_token: PASSWORD.to_owned(),
        image: Box::new(|digit| world.image(&digest(digit))),
        unready: world.image(&digest('f')),
        commit: Box::new(move |files| Box::pin(async move { Ok(world.commit(&borrowed(&files)).await) })),
        commit_elsewhere: Box::new(move |files| {
            Box::pin(async move { Ok(world.commit_elsewhere(&borrowed(&files)).await) })
        }),
        argocd_wait: argocd_cases::binary_in(&bin),
        patience: Duration::from_secs(60),
    };
    let mut cases = 0;
    argocd_cases::run(&cluster, |_, _| cases += 1).await.unwrap();
    assert_eq!(cases, CASES.len());
}

fn borrowed(files: &[(String, String)]) -> Vec<(&str, &str)> {
    files
        .iter()
        .map(|(path, text)| (path.as_str(), text.as_str()))
        .collect()
}
