//! Files on a real disk: what comes, goes, stays, and is left by whoever did not come to an end.

use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::time::Duration;

use super::*;
use crate::deadline::Deadline;
use crate::scaleway::{Credentials, Field};

const ACCESS_KEY: &str = "SCW1234567890ABCDEFG";

fn mode(path: &Path) -> u32 {
    fs::metadata(path).expect("metadata").permissions().mode() & 0o777
}

fn whole(text: &str) -> Content {
    Content::Whole {
        text: Secret::new(text),
        access_key: "SCWX".to_owned(),
    }
}

fn profile(name: &str) -> Content {
    let credentials = Credentials::gather("a test", |field| match field {
        Field::AccessKey => Some(ACCESS_KEY),
        Field::SecretKey => Some("11111111-2222-4333-8444-caaaaaaaaa04"),
        _ => None,
    });
    Content::Profile(Profile::of(&credentials.expect("credentials"), Some(name)))
}

fn logins(host: &str) -> Content {
    let key = Secret::new("11111111-2222-4333-8444-caaaaaaaaa04");
    Content::Logins(vec![host.parse().expect("a host")], key)
}

async fn locked(file: &PrivateFile) -> Locked {
    let deadline = Deadline::after(Duration::from_secs(60));
    file.lock(deadline).await.expect("a lock")
}

async fn write(file: &PrivateFile, content: &Content) -> Result<Written> {
    let mut held = file.lock(Deadline::after(Duration::from_secs(60))).await?;
    let change = file.plan_write(content)?;
    held.apply(&change)?;
    Ok(change.written())
}

async fn remove(file: &PrivateFile, names: &[&str]) -> Result<Removed> {
    let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
    if !file.is_there() {
        return Ok(Removed::Nothing);
    }
    let mut held = locked(file).await;
    let change = file.plan_removal((!names.is_empty()).then_some(&names[..]))?;
    held.apply(&change)?;
    Ok(change.removed())
}

fn entries(folder: &Path) -> Vec<String> {
    let mut names: Vec<String> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned())
        .collect();
    names.sort();
    names
}

#[tokio::test]
async fn a_file_is_private_and_replaced_only_where_it_is_ours() {
    let folder = tempfile::tempdir().unwrap();
    let file = PrivateFile::PullSecret(folder.path().join("k8s/pull.yaml"));
    assert_eq!(
        write(&file, &whole("access_key: SCWX")).await.unwrap(),
        Written::Created
    );
    assert_eq!(mode(&file.path()), 0o600);
    assert_eq!(mode(&folder.path().join("k8s")), 0o700);
    assert_eq!(
        write(&file, &whole("access_key: SCWX")).await.unwrap(),
        Written::Unchanged
    );
    assert_eq!(
        write(&file, &whole("access_key: SCWX2")).await.unwrap(),
        Written::Changed
    );
    assert_eq!(fs::read_to_string(file.path()).unwrap(), "access_key: SCWX2\n");
    fs::write(file.path(), "access_key: SCWX3\n").unwrap();
    let other = write(&file, &whole("access_key: SCWX4"))
        .await
        .expect_err("changed");
    assert_eq!(other.kind(), Kind::Conflict);
    fs::write(file.path(), "access_key: SCWX2\n").unwrap();
    assert_eq!(remove(&file, &[]).await.unwrap(), Removed::File);
    assert_eq!(remove(&file, &[]).await.unwrap(), Removed::Nothing);
    assert_eq!(entries(folder.path()), [""; 0], "the folder was new as well");
}

#[tokio::test]
async fn each_name_comes_and_goes_for_itself() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("config.yaml");
    let (scw, docker) = (
        PrivateFile::ScwConfig(path.clone()),
        PrivateFile::DockerConfig(folder.path().to_owned()),
    );
    for before in [
        "a: 1",
        "a: 1\n",
        "# none\nprofiles:\n  x:\n    access_key: SCWY\n# end",
        "profiles:",
    ] {
        for order in [[0, 1, 2], [2, 1, 0], [1, 0, 2], [2, 0, 1]] {
            fs::write(&path, before).unwrap();
            fs::write(docker.path(), "{\"auths\": { }, \"n\": 1.10}").unwrap();
            let names = ["ci", "default", "z"];
            for name in names {
                write(&scw, &profile(name)).await.unwrap();
                write(&docker, &logins(&format!("{name}.example"))).await.unwrap();
            }
            for (nth, index) in order.into_iter().enumerate() {
                let name = names[index];
                assert_eq!(remove(&scw, &[name]).await.unwrap(), Removed::Part, "{before}");
                // Once more is no failure, also when nothing of ours is left.
                assert_eq!(remove(&scw, &[name]).await.unwrap(), Removed::Nothing);
                let host = format!("{name}.example");
                for removed in [Removed::Part, Removed::Nothing] {
                    assert_eq!(remove(&docker, &[&host]).await.unwrap(), removed);
                }
                let text = fs::read_to_string(&path).unwrap();
                assert_eq!(text.matches(ACCESS_KEY).count(), 2 - nth, "{text}");
            }
            assert_eq!(fs::read_to_string(&path).unwrap(), before);
            assert_eq!(
                fs::read_to_string(docker.path()).unwrap(),
                "{\"auths\": { }, \"n\": 1.10}"
            );
            assert_eq!(entries(folder.path()), ["config.json", "config.yaml"]);
        }
    }
    // In a file of our own, who is the active one goes on being there.
    fs::remove_file(&path).unwrap();
    for name in ["ci", "z"] {
        write(&scw, &profile(name)).await.unwrap();
    }
    assert!(
        fs::read_to_string(&path)
            .unwrap()
            .contains("active_profile: \"ci\"")
    );
    remove(&scw, &["ci"]).await.unwrap();
    assert!(
        fs::read_to_string(&path)
            .unwrap()
            .contains("active_profile: \"z\"")
    );
    assert_eq!(remove(&scw, &["z"]).await.unwrap(), Removed::File);
}

#[tokio::test]
async fn a_run_that_was_cut_short_leaves_what_can_be_taken_out() {
    let base = "a: 1";
    // What a run does to the files that are there, one after the other, and is cut short after each.
    let changes: [(&[&str], &str); 3] = [(&[], "ci"), (&["default"], "ci"), (&["ci", "z"], "-ci")];
    for (there, change) in changes {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("config.yaml");
        let file = PrivateFile::ScwConfig(path.clone());
        fs::write(&path, base).unwrap();
        for name in there {
            write(&file, &profile(name)).await.unwrap();
        }
        let (text_before, receipt_before) = (fs::read(&path).unwrap(), Receipt::read(&path).unwrap());
        match change.strip_prefix('-') {
            None => drop(write(&file, &profile(change)).await.unwrap()),
            Some(name) => drop(remove(&file, &[name]).await.unwrap()),
        }
        let (text_after, receipt_after) = (
            fs::read(&path).unwrap(),
            Receipt::read(&path).unwrap().expect("one"),
        );
        let untouched = receipt_after.of(base, Vec::new());
        let both = receipt_after.as_well_as(receipt_before.as_ref().or(Some(&untouched)));
        for text in [&text_before, &text_after] {
            fs::write(&path, text).unwrap();
            fs::write(Receipt::path(&path), both.text()).unwrap();
            for leftover in [&path, &Receipt::path(&path)] {
                fs::write(receipt::beside(leftover, ".vault-scw-creds.new"), ACCESS_KEY).unwrap();
            }
            fs::write(receipt::beside(&path, ".vault-scw-creds.lock"), "").unwrap();
            remove(&file, &[]).await.unwrap();
            assert_eq!(fs::read_to_string(&path).unwrap(), base, "{there:?} {change}");
            assert_eq!(entries(folder.path()), ["config.yaml"]);
        }
    }
    // The receipt is there, or a part of the file, and the file never came.
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("scw.env");
    let file = PrivateFile::Dotenv(path.clone());
    write(&file, &whole("A=1")).await.unwrap();
    fs::rename(&path, receipt::beside(&path, ".vault-scw-creds.new")).unwrap();
    assert_eq!(remove(&file, &[]).await.unwrap(), Removed::Nothing);
    assert_eq!(entries(folder.path()), [""; 0]);
    fs::write(receipt::beside(&path, ".vault-scw-creds.new"), "A=1").unwrap();
    assert_eq!(remove(&file, &[]).await.unwrap(), Removed::Nothing);
    assert_eq!(entries(folder.path()), [""; 0]);
}

#[tokio::test]
async fn what_cannot_be_done_is_taken_back() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("config.yaml");
    let file = PrivateFile::ScwConfig(path.clone());
    fs::write(&path, "a: 1\n").unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
    let mut held = locked(&file).await;
    let change = file.plan_write(&profile("ci")).unwrap();
    held.apply(&change).unwrap();
    assert_eq!(mode(&path), 0o600);
    held.undo(&change).unwrap();
    drop(held);
    assert_eq!(
        (fs::read_to_string(&path).unwrap().as_str(), mode(&path)),
        ("a: 1\n", 0o640)
    );
    assert_eq!(entries(folder.path()), ["config.yaml"]);
    // A folder where the file's other name would be: neither the file nor a receipt is left half-done.
    fs::create_dir_all(receipt::beside(&path, ".vault-scw-creds.new")).unwrap();
    assert!(write(&file, &profile("ci")).await.is_err());
    assert_eq!(fs::read_to_string(&path).unwrap(), "a: 1\n");
    assert_eq!(
        entries(folder.path()),
        ["config.yaml", "config.yaml.vault-scw-creds.new"]
    );
}

#[tokio::test]
async fn permissions_come_back_with_the_last_entry() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("config.yaml");
    let file = PrivateFile::ScwConfig(path.clone());
    fs::write(&path, "a: 1\n").unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
    for name in ["ci", "z"] {
        write(&file, &profile(name)).await.unwrap();
    }
    assert_eq!(remove(&file, &["ci"]).await.unwrap(), Removed::Part);
    assert_eq!(mode(&path), 0o600);
    assert_eq!(remove(&file, &[]).await.unwrap(), Removed::Part);
    assert_eq!(mode(&path), 0o644);
    // Somebody removed the file: what is written then is all ours.
    write(&file, &profile("ci")).await.unwrap();
    fs::remove_file(&path).unwrap();
    write(&file, &profile("ci")).await.unwrap();
    assert_eq!(remove(&file, &[]).await.unwrap(), Removed::File);
}

#[tokio::test]
async fn only_what_was_written_here_is_removed() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("config.yaml");
    let file = PrivateFile::ScwConfig(path.clone());
    assert_eq!(remove(&file, &[]).await.unwrap(), Removed::Nothing);
    fs::write(&path, "access_key: SCWX\n").unwrap();
    for names in [&[][..], &["default"], &["ci", "default"]] {
        let failure = remove(&file, names).await.expect_err("a person's file");
        assert_eq!(failure.kind(), Kind::Denied, "{names:?}");
    }
    assert_eq!(remove(&file, &["ci"]).await.unwrap(), Removed::Nothing);
    fs::write(Receipt::path(&path), "{}").unwrap();
    assert_eq!(
        remove(&file, &[]).await.expect_err("no receipt").kind(),
        Kind::Input
    );
    assert_eq!(fs::read_to_string(&path).unwrap(), "access_key: SCWX\n");
}

#[tokio::test]
async fn a_file_of_somebody_else_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("config.yaml");
    let file = PrivateFile::ScwConfig(path.clone());
    fs::write(&path, "a: 1\n").unwrap();
    let given = std::os::unix::fs::chown(&path, Some(4242), Some(4242)).is_ok();
    let link = folder.path().join("link");
    symlink(&path, &link).unwrap();
    // Only root can give a file away; everybody else cannot be asked to.
    if given {
        let failure = write(&file, &profile("ci")).await.expect_err("it is not ours");
        assert_eq!(failure.kind(), Kind::Denied, "{failure}");
        std::os::unix::fs::chown(&path, Some(0), Some(0)).unwrap();
        std::os::unix::fs::lchown(&link, Some(4242), Some(4242)).unwrap();
        let failure = write(&PrivateFile::ScwConfig(link), &profile("ci"))
            .await
            .expect_err("a trap");
        assert_eq!(failure.kind(), Kind::Denied, "{failure}");
    }
    assert_eq!(fs::read_to_string(&path).unwrap(), "a: 1\n");
}

#[tokio::test]
async fn links_lead_to_the_file_and_stay() {
    let folder = tempfile::tempdir().unwrap();
    let (real, link) = (folder.path().join("real"), folder.path().join("link"));
    fs::write(&real, "").unwrap();
    symlink(&real, &link).unwrap();
    let file = PrivateFile::Dotenv(link.clone());
    assert_eq!(write(&file, &whole("A=1")).await.unwrap(), Written::Changed);
    assert!(link.is_symlink());
    assert_eq!(fs::read_to_string(&real).unwrap(), "A=1\n");
    assert_eq!(remove(&file, &[]).await.unwrap(), Removed::Part);
    assert_eq!(fs::read_to_string(&real).unwrap(), "");
    fs::remove_file(&real).unwrap();
    let failure = write(&file, &whole("A=1")).await.expect_err("it leads nowhere");
    assert_eq!(failure.kind(), Kind::Usage);
    for odd in [Path::new("/dev/null"), folder.path()] {
        let failure = write(&PrivateFile::Dotenv(odd.to_owned()), &whole("A=1"))
            .await
            .expect_err("no file");
        assert_eq!(failure.kind(), Kind::Usage, "{failure}");
    }
}

#[tokio::test]
async fn what_somebody_put_in_the_way_is_neither_believed_nor_waited_for() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("config.yaml");
    let file = PrivateFile::ScwConfig(path.clone());
    let pipe = |path: &Path| {
        let mode = rustix::fs::Mode::from_raw_mode(0o600);
        rustix::fs::mknodat(rustix::fs::CWD, path, rustix::fs::FileType::Fifo, mode, 0).unwrap();
    };
    fs::write(&path, "a: 1\n").unwrap();
    for name in [".vault-scw-creds.lock", ".vault-scw-creds"] {
        let trap = receipt::beside(&path, name);
        pipe(&trap);
        assert!(write(&file, &profile("ci")).await.is_err(), "{name}");
        fs::remove_file(&trap).unwrap();
    }
    write(&file, &profile("ci")).await.unwrap();
    // Only root can make a receipt somebody else's.
    if std::os::unix::fs::chown(Receipt::path(&path), Some(4242), None).is_ok() {
        for failure in [
            write(&file, &profile("ci")).await.err(),
            remove(&file, &[]).await.err(),
        ] {
            assert_eq!(failure.expect("not our receipt").kind(), Kind::Denied);
        }
        std::os::unix::fs::chown(Receipt::path(&path), Some(0), None).unwrap();
    }
    remove(&file, &[]).await.unwrap();
    assert_eq!(fs::read_to_string(&path).unwrap(), "a: 1\n");
    // What could not be taken out again does not go in.
    let full = "#".repeat(1024 * 1024 - 10);
    fs::write(&path, &full).unwrap();
    assert_eq!(
        write(&file, &profile("ci")).await.expect_err("too large").kind(),
        Kind::Input
    );
    assert_eq!(fs::read_to_string(&path).unwrap(), full);
}

#[tokio::test]
async fn what_is_no_text_is_left_as_it_is() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("config.yaml");
    let huge = vec![b'#'; 2 * 1024 * 1024];
    for bytes in [&b"\xff\xfe\x00"[..], &huge] {
        fs::write(&path, bytes).unwrap();
        let failure = write(&PrivateFile::ScwConfig(path.clone()), &profile("ci"))
            .await
            .expect_err("no text");
        assert_eq!(failure.kind(), Kind::Input);
        assert_eq!(fs::read(&path).unwrap(), bytes);
        assert_eq!(entries(folder.path()), ["config.yaml"]);
    }
}

#[test]
fn the_project_folder_is_recognised_through_links_and_ways_around() {
    let folder = tempfile::tempdir().unwrap();
    let project = folder.path().join("project");
    fs::create_dir(&project).unwrap();
    let link = folder.path().join("link");
    symlink(&project, &link).unwrap();
    for inside in [
        project.join("a"),
        project.join("x/y/config.yaml"),
        link.join("config.yaml"),
        folder.path().join("not-there-yet/../project/a"),
        folder.path().join("not-there-yet/../link/x/../a"),
        link.join("../project/a"),
    ] {
        let refused = PrivateFile::ScwConfig(inside.clone()).check_outside(&project);
        let Err(refused) = refused else {
            panic!("{} is taken for outside", inside.display());
        };
        assert_eq!(refused.kind(), Kind::Denied);
    }
    for outside in [
        folder.path().join("project-2/a"),
        project.join("../a"),
        project.join("not-there-yet/../../a"),
    ] {
        PrivateFile::ScwConfig(outside).check_outside(&project).unwrap();
    }
}

/// A file system with so little room, until it is dropped. None for whoever may not mount one.
struct Small<'a>(&'a Path);

impl<'a> Small<'a> {
    fn mount(place: &'a Path) -> Option<Self> {
        use rustix::mount::{MountFlags, mount};
        let options = c"size=64k";
        mount("towpath-test", place, "tmpfs", MountFlags::empty(), Some(options)).ok()?;
        Some(Small(place))
    }
}

impl Drop for Small<'_> {
    fn drop(&mut self) {
        let _ = rustix::mount::unmount(self.0, rustix::mount::UnmountFlags::DETACH);
    }
}

#[tokio::test]
async fn a_disk_that_is_full_leaves_everything_as_it_is() {
    let folder = tempfile::tempdir().unwrap();
    let Some(_small) = Small::mount(folder.path()) else {
        return;
    };
    let path = folder.path().join("config.yaml");
    let file = PrivateFile::ScwConfig(path.clone());
    let base = "# 34 bytes, again and again\n".repeat(300);
    fs::write(&path, &base).unwrap();
    let filler = folder.path().join("filler");
    let fill = || fs::write(&filler, vec![0; 1024 * 1024]).expect_err("it is small");
    fill();
    let failure = write(&file, &profile("ci")).await.expect_err("it is full");
    assert_eq!(failure.kind(), Kind::Unavailable, "{failure:?}");
    assert_eq!(fs::read_to_string(&path).unwrap(), base);
    assert_eq!(entries(folder.path()), ["config.yaml", "filler"]);
    // A file of our own can go from a disk that is full.
    fs::remove_file(&filler).unwrap();
    let own = PrivateFile::Dotenv(folder.path().join("scw.env"));
    write(&own, &whole("A=1")).await.unwrap();
    fill();
    assert_eq!(remove(&own, &[]).await.unwrap(), Removed::File);
    assert_eq!(entries(folder.path()), ["config.yaml", "filler"]);
}
