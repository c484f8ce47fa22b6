//! A rollback that is killed at each of its steps: the repository is whole, and the next run ends it.

use std::os::unix::fs::PermissionsExt;

use crate::world::{A, B};
use crate::{PROD, ROLLBACK, prod, world_with};

/// A program in the place of git that kills whoever runs it, before or after git's own work, at one of its calls.
const KILLER: &str = "#!/bin/sh
count=$(($(cat \"$COUNT\") + 1))
echo $count >\"$COUNT\"
if [ \"$WHEN$count\" = \"before$AT\" ]; then kill -9 $PPID; exit 1; fi
if [ \"$WHEN$count\" = \"after$AT\" ]; then \"$REAL_GIT\" \"$@\" >/dev/null; kill -9 $PPID; exit 1; fi
exec \"$REAL_GIT\" \"$@\"
";

#[tokio::test]
async fn a_kill_at_any_step_leaves_the_repository_whole() {
    let world = world_with(&[A, B]).await;
    let start = world.git(&["rev-parse", "main"]).await.unwrap();
    let bin = world.folder.path().join("bin");
    std::fs::create_dir(&bin).unwrap();
    std::fs::write(bin.join("git"), KILLER).unwrap();
    std::fs::set_permissions(bin.join("git"), PermissionsExt::from_mode(0o755)).unwrap();
    let path = std::env::var("PATH").unwrap();
    let real = std::env::split_paths(&path)
        .map(|folder| folder.join("git"))
        .find(|git| git.is_file())
        .unwrap();
    let count = world.folder.path().join("count");
    let path = format!("{}:{path}", bin.display());
    let mut landed = 0;
    for when in ["before", "after"] {
        for step in 1.. {
            world
                .git(&["update-ref", "refs/heads/main", &start])
                .await
                .unwrap();
            std::fs::write(&count, "0\n").unwrap();
            let at = step.to_string();
            let variables = [
                ("PATH", path.as_str()),
                ("REAL_GIT", real.to_str().unwrap()),
                ("COUNT", count.to_str().unwrap()),
                ("AT", &at),
                ("WHEN", when),
            ];
            let ended = world.bump_with(&variables, &ROLLBACK).await;
            world.git(&["fsck", "--strict", "--no-dangling"]).await.unwrap();
            let tip = world.git(&["rev-parse", "main"]).await.unwrap();
            if ended.code == 0 {
                assert!(step > 5, "a rollback takes more than {step} calls of git");
                break;
            }
            assert_eq!(ended.code, -1, "{when} {step}: {ended:?}");
            // All of it or nothing: never the image without its hold.
            let files = world
                .git(&["ls-tree", "-r", "--name-only", "main"])
                .await
                .unwrap();
            if tip == start {
                assert_eq!(files, PROD);
            } else {
                landed += 1;
                assert_eq!(files, format!(".towpath/holds/overlays/prod/app.json\n{PROD}"));
                assert_eq!(world.file(PROD).await, prod(A));
            }
            // Nothing stays behind on the server that the next run could meet, so one of each is enough.
            if step == 1 || tip != start {
                let again = world.bump(&ROLLBACK).await;
                assert_eq!(again.went_to(), A, "{when} {step}");
                assert_eq!(again.report()["changed"], tip == start, "{when} {step}");
                assert_eq!(world.file(PROD).await, prod(A));
            }
        }
    }
    assert_eq!(landed, 1, "the push alone moves anything");
}
