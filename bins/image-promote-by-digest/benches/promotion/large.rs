//! An image of 520 MB, near.

use std::fs;
use std::path::Path;

use serde_json::{Value, json};
use towpath::oci::Digest;

use crate::image::{CONFIG, Image, LAYER, MANIFEST};
use towpath_sandbox::measured::{Table, Took, median};

use crate::tool::Tool;
use crate::world::{World, tagged};

pub(crate) const RUNS: usize = 3;
const LAYERS: u64 = 8;
/// In bytes: 520 MB in all.
const LAYER_SIZE: usize = 65_000_000;

/// Adds the rows of the large image: seconds and peak of memory.
pub(crate) async fn measure(world: &World, tools: &[Tool], table: &mut Table) {
    let staging = world.registry("large-staging", &[]).await;
    let folder = world.path("large");
    let root = write_layout(&folder);
    let from = format!("{}/dev/large:1", staging.host());
    let layout = format!("oci:{}", folder.display());
    world.promote(&[&layout, &from]).await.succeeded();
    fs::remove_dir_all(&folder).unwrap();

    let mut took: Vec<Vec<Took>> = tools.iter().map(|_| Vec::new()).collect();
    for run in 0..RUNS {
        for (number, tool) in tools.iter().enumerate() {
            // A new one each time, for it would know the blobs from the run before.
            let production = world.registry(&format!("large-{run}-{}", tool.name), &[]).await;
            let to = format!("{}/prod/large:1", production.host());
            took[number].push(tool.copy(world, &from, &to).await);
            let named = tagged(production.host(), None, "prod/large", "1").await;
            assert_eq!(named.as_ref(), Some(&root), "{}", tool.name);
            let storage = production.storage().to_owned();
            drop(production);
            fs::remove_dir_all(storage).unwrap();
        }
    }
    let cells = |what: fn(&Took) -> f64, decimals: usize| -> Vec<String> {
        let cell = |runs: &Vec<Took>| format!("{:.decimals$}", median(runs.iter().map(what).collect()));
        took.iter().map(cell).collect()
    };
    table.row(
        "520 MB across registries, no latency: seconds",
        cells(|took| took.seconds, 2),
    );
    table.row("the same: peak of memory, MiB", cells(|took| took.peak, 1));
}

/// Writes an image whose layers do not fit into memory well, one after the other. Gives back its digest.
fn write_layout(folder: &Path) -> String {
    let blobs = folder.join("blobs/sha256");
    fs::create_dir_all(&blobs).unwrap();
    let mut image = Image::default();
    let config = image.blob(CONFIG, br#"{"architecture":"amd64","os":"linux"}"#);
    let layers: Vec<Value> = (0..LAYERS)
        .map(|number| {
            let bytes = noise(number + 1);
            let digest = Digest::of(&bytes);
            fs::write(blobs.join(digest.hex()), &bytes).unwrap();
            json!({"mediaType": LAYER, "digest": digest.as_str(), "size": bytes.len()})
        })
        .collect();
    image.manifest(MANIFEST, &json!({"config": config, "layers": layers}));
    image.write(folder);
    image.root
}

/// Bytes that nothing makes smaller (xorshift, see Marsaglia 2003).
fn noise(seed: u64) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let mut bytes = Vec::with_capacity(LAYER_SIZE);
    while bytes.len() < LAYER_SIZE {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes.truncate(LAYER_SIZE);
    bytes
}
