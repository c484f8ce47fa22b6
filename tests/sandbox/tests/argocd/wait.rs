//! `argocd-wait` against the stand-in, by the table that a real Argo CD is held to as well.

use std::time::Duration;

use towpath_sandbox::argocd::{Access, ArgoCd, Declaration};
use towpath_sandbox::argocd_cases::{self, CASES, Cluster};
use towpath_sandbox::towpath_binaries;

use crate::world::{PATIENCE, World, digest};

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
    // Both applications need something to begin with.
    world
        .commit(&[("app/manual/kustomization.yaml", "resources: []\n")])
        .await;
    world.commit_digest(&digest('c')).await;
    let mut settings = world.settings();
    let automated = settings.applications[0].clone();
    settings.applications.push(Declaration {
        name: "manual".to_owned(),
        path: "app/manual".to_owned(),
        automated: false,
        ..automated
    });
    let argocd = ArgoCd::start(settings).await.unwrap();
    let world = &world;
    let cluster = Cluster {
        url: argocd.url(),
        token: argocd.mint_token("ci", Access::Sync, PATIENCE * 4),
        powerless_token: argocd.mint_token("nobody", Access::Nothing, PATIENCE * 4),
        application: "web-prod".to_owned(),
        manual: "manual".to_owned(),
        image: Box::new(|digit| world.image(&digest(digit))),
        unready: world.image(&digest('f')),
        commit: Box::new(move |files| {
            Box::pin(async move {
                let files: Vec<(&str, &str)> = files
                    .iter()
                    .map(|(path, text)| (path.as_str(), text.as_str()))
                    .collect();
                Ok(world.commit(&files).await)
            })
        }),
        argocd_wait: argocd_cases::binary_in(&bin),
        patience: Duration::from_secs(60),
    };
    let mut cases = 0;
    argocd_cases::run(&cluster, |_, _| cases += 1).await.unwrap();
    assert_eq!(cases, CASES.len());
}
