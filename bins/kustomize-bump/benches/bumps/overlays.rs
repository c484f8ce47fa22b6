//! One image in a thousand overlays, in one commit.

use towpath_sandbox::measured::{Table, median};

use crate::program::{PEER_RUNS, Peer, RUNS, ours};
use crate::world::{World, digest};

const OVERLAYS: usize = 1000;

pub(crate) async fn measure(peer: Option<&Peer>, table: &mut Table) {
    let texts: Vec<(String, String)> = (0..OVERLAYS)
        .map(|number| (file(number), overlay(number)))
        .collect();
    let files: Vec<(&str, &str)> = texts
        .iter()
        .map(|(path, text)| (path.as_str(), text.as_str()))
        .collect();
    let world = World::with(&files).await;
    let (mut own, mut theirs) = (Vec::new(), Vec::new());
    for run in 0..RUNS.max(PEER_RUNS) {
        let wanted = digest(2 * run + 1);
        let image = format!("registry.example.com/team/app:v{run}@{wanted}");
        let (report, took) = ours(&world, &["set", &image, "--path", "overlays/*"]).await;
        assert_eq!(report["files"].as_array().unwrap().len(), OVERLAYS);
        check(&world, &wanted).await;
        own.push(took.seconds);
        if let (Some(peer), true) = (peer, run < PEER_RUNS) {
            let wanted = digest(2 * run + 2);
            // An argument cannot be given to all overlays at once: kustomize edits the one it is started in.
            let edit = format!(
                "for overlay in overlays/*; do (cd $overlay && \
                 kustomize edit set image registry.example.com/team/app=registry.example.com/team/app:v{run}@{wanted}); done"
            );
            theirs.push(peer.change(&world, &edit).await.seconds);
            check(&world, &wanted).await;
            // What it makes of the files is not what ours are to begin with.
            world.push(&files).await;
        }
    }
    let mut cells = vec![format!("{:.2}", median(own))];
    if peer.is_some() {
        cells.push(format!("{:.2}", median(theirs)));
    }
    table.row(&format!("one image in {OVERLAYS} overlays, one commit"), cells);
}

fn file(number: usize) -> String {
    format!("overlays/tenant-{number:04}/kustomization.yaml")
}

/// As people write them.
fn overlay(number: usize) -> String {
    format!(
        "apiVersion: kustomize.config.k8s.io/v1beta1\n\
         kind: Kustomization\n\
         # Managed by the platform team.\n\
         namespace: tenant-{number:04}\n\
         resources:\n  - ../../base\n  - ingress.yaml\n\
         labels:\n  - pairs:\n      tenant: tenant-{number:04}\n\
         patches:\n  - path: resources.yaml\n    target:\n      kind: Deployment\n\
         images:\n\
         \x20 - name: registry.example.com/team/app\n    newTag: v0 # released with {number}\n    digest: {}\n\
         \x20 - name: redis\n    newTag: \"7.4\"\n",
        digest(0)
    )
}

async fn check(world: &World, wanted: &str) {
    for number in [0, OVERLAYS / 2, OVERLAYS - 1] {
        let text = world.file(&file(number)).await;
        assert!(text.contains(wanted), "{wanted} is not in {text}");
    }
}
