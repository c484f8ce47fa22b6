//! An image of three platforms (13 blobs, 4 manifests) with small layers, far away.

use std::time::Duration;

use towpath_sandbox::measured::{Table, Took, median};
use towpath_sandbox::servers::{Link, Registry};

use crate::image::Image;
use crate::tool::Tool;
use crate::world::{World, logged, tagged};

pub(crate) const RUNS: usize = 5;
pub(crate) const EXPLANATION: &str = "Seconds are wall time from start to end of the program over a link with a round trip \
                                      of 40 ms (the last two rows: none); every connection takes one round trip to open. \
                                      Requests are those in the registries' access logs.";
const ROUND_TRIP: Duration = Duration::from_millis(40);

/// The registries, near and far.
struct Places {
    staging: Registry,
    production: Registry,
    to_staging: Link,
    to_production: Link,
}

struct Copied {
    took: Took,
    requests: u64,
}

impl Places {
    async fn open(world: &World) -> Self {
        let staging = world.registry("staging", &[]).await;
        let production = world.registry("production", &[]).await;
        Places {
            to_staging: Link::open(staging.host(), ROUND_TRIP).await.unwrap(),
            to_production: Link::open(production.host(), ROUND_TRIP).await.unwrap(),
            staging,
            production,
        }
    }

    fn requests(&self) -> u64 {
        logged(&self.staging, " /v2/") + logged(&self.production, " /v2/")
    }

    async fn copy(&self, world: &World, tool: &Tool, from: &str, to: &str) -> Copied {
        let before = self.requests();
        let took = tool.copy(world, from, to).await;
        Copied {
            took,
            requests: self.requests() - before,
        }
    }
}

/// Adds the rows of the same registry, across registries, and nothing to do.
pub(crate) async fn measure(world: &World, tools: &[Tool], table: &mut Table) {
    let places = Places::open(world).await;
    let image = Image::of_three_platforms("1");
    let near = format!("{}/dev/app:1", places.staging.host());
    world.promote(&[&world.layout(&image), &near]).await.succeeded();
    let from = format!("{}/dev/app:1", places.to_staging.host());

    let mut within: Vec<Vec<Copied>> = tools.iter().map(|_| Vec::new()).collect();
    let mut across: Vec<Vec<Copied>> = tools.iter().map(|_| Vec::new()).collect();
    let mut again: Vec<Vec<Copied>> = tools.iter().map(|_| Vec::new()).collect();
    for run in 0..RUNS {
        // Taking turns, so that whatever else the machine does meets all of them.
        for (number, tool) in tools.iter().enumerate() {
            let repository = format!("prod-{run}/{}", tool.name);
            let to_same = format!("{}/{repository}:1", places.to_staging.host());
            let to_other = format!("{}/{repository}:1", places.to_production.host());
            within[number].push(places.copy(world, tool, &from, &to_same).await);
            across[number].push(places.copy(world, tool, &from, &to_other).await);
            again[number].push(places.copy(world, tool, &from, &to_other).await);
            for registry in [&places.staging, &places.production] {
                let named = tagged(registry.host(), None, &repository, "1").await;
                assert_eq!(named.as_ref(), Some(&image.root), "{}", tool.name);
            }
        }
    }
    for (work, copied) in [
        ("3 platforms, 13 blobs, same registry", &within),
        ("the same, across registries", &across),
        ("the same again, nothing to do", &again),
    ] {
        table.row(
            &format!("{work}: requests"),
            cells(copied, |copied| copied.requests as f64, 0),
        );
        table.row(
            &format!("{work}: seconds"),
            cells(copied, |copied| copied.took.seconds, 2),
        );
    }
}

fn cells(of_tools: &[Vec<Copied>], what: fn(&Copied) -> f64, decimals: usize) -> Vec<String> {
    of_tools
        .iter()
        .map(|runs| {
            let middle = median(runs.iter().map(what).collect());
            format!("{middle:.decimals$}")
        })
        .collect()
}
