//! The way back, and what keeps things in order, by git and by the API: several images at once, deployments, registries,
//! holds, the order of source commits, histories of many shapes, and kills at every step.

// Helpers outside of #[test] functions are tests all the same.
#![allow(clippy::unwrap_used, clippy::disallowed_methods)]

#[path = "../world/mod.rs"]
mod world;

mod api;
mod deployments;
mod holds;
mod killed;
mod meanwhile;
mod order;
mod past;
mod registry;
mod several;

use serde_json::Value;
use world::{Ended, Way, World};

/// The kustomization of production.
const PROD: &str = "overlays/prod/kustomization.yaml";

/// A kustomization with one image, `app`.
fn prod(digest: &str) -> String {
    format!("images:\n- name: app # ours\n  digest: {digest}\n")
}

/// A repository in which `app` was set to these digests, one after the other.
async fn world_with(digests: &[&str]) -> World {
    world_over(Way::Git, digests).await
}

/// The same, reached by this way.
async fn world_over(way: Way, digests: &[&str]) -> World {
    let world = World::over(way, &[(PROD, "images:\n- name: app # ours\n")]).await;
    for digest in digests {
        world.bump(&["set", &format!("app@{digest}")]).await.report();
    }
    world
}

impl Ended {
    /// The digest that the first image was taken back to.
    #[track_caller]
    fn went_to(&self) -> Value {
        self.report()["images"][0]["to"]["digest"].clone()
    }
}

const ROLLBACK: [&str; 4] = ["rollback", "--image", "app", "--yes"];
