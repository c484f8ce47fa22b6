//! A rollback that is killed at each of its steps, git's or the API's: the repository is whole, and the next run ends it.

use std::os::unix::fs::PermissionsExt;

use crate::world::victim::{kill_at, known_by_number};
use crate::world::{A, B, Way, World};
use crate::{PROD, ROLLBACK, prod, world_over, world_with};

/// A program in the place of git that kills whoever runs it, before or after git's own work, at one of its calls.
const KILLER: &str = "#!/bin/sh
count=$(($(cat \"$COUNT\") + 1))
echo $count >\"$COUNT\"
if [ \"$WHEN$count\" = \"before$AT\" ]; then kill -9 $PPID; exit 1; fi
if [ \"$WHEN$count\" = \"after$AT\" ]; then \"$REAL_GIT\" \"$@\" >/dev/null; kill -9 $PPID; exit 1; fi
exec \"$REAL_GIT\" \"$@\"
";

/// Whether the rollback is there. Never is it the image without its hold, or the hold without its image.
async fn all_or_nothing(world: &World) -> bool {
    let listed = world.git(&["ls-tree", "-r", "--name-only", "main"]).await;
    let files = listed.unwrap();
    if files == PROD {
        assert_eq!(world.file(PROD).await, prod(B));
        return false;
    }
    assert_eq!(files, format!(".towpath/holds/overlays/prod/app.json\n{PROD}"));
    assert_eq!(world.file(PROD).await, prod(A));
    true
}

/// The next run does what is left to do.
async fn ends_it(world: &World, has_landed: bool) {
    let again = world.bump(&ROLLBACK).await;
    assert_eq!(again.went_to(), A);
    assert_eq!(again.report()["changed"], !has_landed);
    assert!(all_or_nothing(world).await);
}

#[tokio::test]
async fn a_kill_at_any_step_of_git_leaves_the_repository_whole() {
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
            if ended.code == 0 {
                assert!(step > 5, "a rollback takes more than {step} calls of git");
                break;
            }
            assert_eq!(ended.code, -1, "{when} {step}: {ended:?}");
            let has_landed = all_or_nothing(&world).await;
            landed += usize::from(has_landed);
            // Nothing stays behind on the server that the next run could meet, so one of each is enough.
            if step == 1 || has_landed {
                ends_it(&world, has_landed).await;
            }
        }
    }
    assert_eq!(landed, 1, "the push alone moves anything");
}

#[tokio::test]
async fn a_kill_at_any_request_of_the_api_leaves_the_repository_whole() {
    let world = world_over(Way::Api, &[A, B]).await;
    let start = world.git(&["rev-parse", "main"]).await.unwrap();
    let (mut landed, mut not) = (0, 0);
    for step in 1.. {
        world
            .git(&["update-ref", "refs/heads/main", &start])
            .await
            .unwrap();
        let process = kill_at(&world, step);
        let code = known_by_number(&world, &process, &ROLLBACK).await;
        world.gitlab.trouble(|_, _| None);
        world.git(&["fsck", "--strict", "--no-dangling"]).await.unwrap();
        let has_landed = all_or_nothing(&world).await;
        if code == 0 {
            assert!(has_landed);
            break;
        }
        assert_eq!(code, -1, "step {step}");
        match has_landed {
            true => landed += 1,
            false => not += 1,
        }
        ends_it(&world, has_landed).await;
    }
    assert!(landed > 0 && not > 5, "{landed} {not}");
}
