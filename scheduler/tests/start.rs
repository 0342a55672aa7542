//! Starting and stopping: what the first start makes, what the second finds, and every folder, clock
//! and address with which a scheduler refuses to start.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)]

use fleetwire_common::ids::Name;
use fleetwire_disk::FolderError;
use fleetwire_link::{BindError, Identity};
use fleetwire_scheduler::{Scheduler, SchedulerConfig, StartError, Started};
use std::{
    collections::BTreeMap,
    fs,
    net::{Ipv4Addr, UdpSocket},
    os::unix::fs::PermissionsExt,
    path::Path,
};
use tempfile::TempDir;

fn config(data: &Path) -> SchedulerConfig {
    SchedulerConfig { listen: (Ipv4Addr::LOCALHOST, 0).into(), ..SchedulerConfig::new(data) }
}

async fn refused(config: SchedulerConfig) -> StartError {
    match Scheduler::start(config).await {
        Ok(_) => panic!("expected a refusal"),
        Err(error) => error,
    }
}

/// One whole life of a scheduler.
async fn once(data: &Path) -> Started {
    let (mut scheduler, started) = Scheduler::start(config(data)).await.unwrap();
    scheduler.stop();
    scheduler.ended().await.unwrap();
    started
}

/// Every file of a folder, with its content.
fn contents(folder: &Path) -> BTreeMap<String, Vec<u8>> {
    let files = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).filter(|path| path.is_file());
    files.map(|path| (path.file_name().unwrap().to_str().unwrap().to_owned(), fs::read(path).unwrap())).collect()
}

#[tokio::test]
async fn the_first_start_makes_a_cluster_and_the_second_finds_it() {
    let folder = TempDir::new().unwrap();
    let data = folder.path().join("data");
    let first = once(&data).await;
    assert_eq!(first.incarnation, 1);
    assert!(first.token.as_ref().is_some_and(|token| token.starts_with("fwj1-")));
    let operator = Identity::load(&first.operator).unwrap();
    assert_eq!((operator.principal.to_string().as_str(), operator.cluster), ("operator/local", first.cluster.clone()));
    assert_eq!(fs::read_to_string(data.join("address")).unwrap().trim(), first.address.to_string());
    for (name, _) in contents(&data) {
        let mode = fs::metadata(data.join(&name)).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode, 0o600, "{name} is its owner's only");
    }

    let before = contents(&data);
    let second = once(&data).await;
    assert_eq!((second.incarnation, second.token, second.cluster), (2, None, first.cluster));
    assert!(second.facts > first.facts);
    let after = contents(&data);
    let secret = |name: &&String| !["address", "lock"].contains(&name.as_str());
    for name in before.keys().filter(secret) {
        assert_eq!(before[name], after[name], "{name} does not change");
    }
}

#[tokio::test]
async fn a_cluster_has_the_name_it_was_given_and_no_other() {
    let folder = TempDir::new().unwrap();
    let named = |name| SchedulerConfig { cluster: Some(Name::new(name).unwrap()), ..config(folder.path()) };
    let (mut scheduler, started) = Scheduler::start(named("north")).await.unwrap();
    assert_eq!(started.cluster, "north");
    scheduler.stop();
    scheduler.ended().await.unwrap();
    let other = refused(named("south")).await;
    assert!(matches!(&other, StartError::OtherCluster { found, .. } if found == "north"), "{other}");
    let unfit = refused(SchedulerConfig {
        cluster: Some(Name::new(&"n".repeat(64)).unwrap()),
        ..config(&folder.path().join("x"))
    });
    assert!(matches!(unfit.await, StartError::Authority(_)));
}

#[tokio::test]
async fn a_folder_in_use_is_refused_and_the_one_who_uses_it_goes_on() {
    let folder = TempDir::new().unwrap();
    let (mut scheduler, _) = Scheduler::start(config(folder.path())).await.unwrap();
    let error = refused(config(folder.path())).await;
    assert!(matches!(error, StartError::Folder(FolderError::Locked { .. })), "{error}");
    assert!(error.to_string().contains("choose another folder with --data"), "{error}");
    scheduler.stop();
    scheduler.ended().await.unwrap();
}

#[tokio::test]
async fn folders_that_are_newer_foreign_or_no_folders_are_refused() {
    let folder = TempDir::new().unwrap();
    let data = folder.path().join("data");
    once(&data).await;
    fs::write(data.join("version"), "99\n").unwrap();
    let error = refused(config(&data)).await;
    assert!(matches!(error, StartError::Folder(FolderError::Newer { found: 99, .. })), "{error}");

    fs::write(folder.path().join("file"), "").unwrap();
    assert!(matches!(refused(config(&folder.path().join("file"))).await, StartError::Folder(_)));
    let foreign = refused(config(folder.path())).await;
    assert!(matches!(foreign, StartError::Folder(FolderError::Foreign { .. })), "{foreign}");

    // A superuser may write where permissions forbid it.
    if !rustix::process::geteuid().is_root() {
        let read_only = folder.path().join("read-only");
        fs::create_dir(&read_only).unwrap();
        fs::set_permissions(&read_only, fs::Permissions::from_mode(0o500)).unwrap();
        let error = refused(config(&read_only)).await;
        assert!(matches!(error, StartError::Folder(FolderError::NotWritable { .. })), "{error}");
    }
}

#[tokio::test]
async fn an_address_in_use_is_named() {
    let folder = TempDir::new().unwrap();
    let taken = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let listen = taken.local_addr().unwrap();
    let error = refused(SchedulerConfig { listen, ..config(folder.path()) }).await;
    assert!(matches!(&error, StartError::Bind(BindError::Address { address, .. }) if *address == listen), "{error}");
    assert!(error.to_string().contains(&listen.to_string()), "{error}");
    // What the failed start made is a whole cluster: the next one goes on with it.
    assert_eq!(once(folder.path()).await.incarnation, 1);
}

#[tokio::test]
async fn a_folder_that_lost_a_secret_is_refused_and_left_alone() {
    let folder = TempDir::new().unwrap();
    once(folder.path()).await;
    for name in ["root.secret", "authority.key", "authority.pem", "epoch.secret", "cluster"] {
        let path = folder.path().join(name);
        let kept = fs::read(&path).unwrap();
        fs::remove_file(&path).unwrap();
        let before = contents(folder.path());
        let error = refused(config(folder.path())).await;
        assert!(matches!(&error, StartError::Damaged { path: named, .. } if *named == path), "{name}: {error}");
        let after = contents(folder.path());
        assert!(
            before.iter().all(|(name, bytes)| name == "lock" || after[name] == *bytes),
            "{name}: something changed"
        );
        if name != "cluster" {
            fs::write(&path, &kept[..kept.len() / 2]).unwrap();
            let error = refused(config(folder.path())).await;
            assert!(matches!(&error, StartError::Damaged { .. }), "{name}: {error}");
        }
        fs::write(&path, kept).unwrap();
    }
    assert_eq!(once(folder.path()).await.incarnation, 2);
}

#[tokio::test]
async fn a_first_start_that_did_not_get_far_is_made_again() {
    let folder = TempDir::new().unwrap();
    let whole = folder.path().join("whole");
    once(&whole).await;
    // What a crash leaves behind, at each step on the way to the file `cluster`.
    let steps = ["authority.key", "authority.pem", "root.secret", "epoch.secret", "server.key", "server.pem"];
    for reached in 0..=steps.len() {
        let data = folder.path().join(format!("step-{reached}"));
        fs::create_dir(&data).unwrap();
        fs::write(data.join("version"), "1\n").unwrap();
        for name in &steps[..reached] {
            fs::copy(whole.join(name), data.join(name)).unwrap();
        }
        let started = once(&data).await;
        assert!(started.incarnation == 1 && started.token.is_some(), "step {reached}");
    }
}

#[tokio::test]
async fn lost_operator_credentials_are_made_again() {
    let folder = TempDir::new().unwrap();
    let started = once(folder.path()).await;
    let first = fs::read(&started.operator).unwrap();
    fs::remove_file(&started.operator).unwrap();
    once(folder.path()).await;
    assert_ne!(fs::read(&started.operator).unwrap(), first);
    Identity::load(&started.operator).unwrap();
}

#[tokio::test]
async fn a_journal_of_another_cluster_is_refused() {
    let folder = TempDir::new().unwrap();
    let (one, two) = (folder.path().join("one"), folder.path().join("two"));
    once(&one).await;
    once(&two).await;
    fs::remove_dir_all(one.join("journal")).unwrap();
    fs::rename(two.join("journal"), one.join("journal")).unwrap();
    let error = refused(config(&one)).await;
    assert!(matches!(error, StartError::Journal(_)) && error.to_string().contains("belongs to"), "{error}");
}

#[tokio::test]
async fn a_journal_is_replaced_by_snapshots_of_it_and_archived_where_that_is_asked_for() {
    let folder = TempDir::new().unwrap();
    let (data, archive) = (folder.path().join("data"), folder.path().join("archive"));
    let config = SchedulerConfig { snapshot_facts: 1, archive: Some(archive.clone()), ..config(&data) };
    let names = |folder: &Path, ending: &str| {
        let entries =
            fs::read_dir(folder).into_iter().flatten().map(|entry| entry.unwrap().file_name().into_string().unwrap());
        entries.filter(|name| name.ends_with(ending)).max()
    };
    let mut newest = None;
    for life in 1..=4 {
        let (mut scheduler, started) = Scheduler::start(config.clone()).await.unwrap();
        assert_eq!(started.incarnation, life);
        let deadline = std::time::Instant::now() + std::time::Duration::from_secs(60);
        while names(&data.join("journal"), ".snapshot") == newest || (life > 2 && names(&archive, ".segment").is_none())
        {
            assert!(std::time::Instant::now() < deadline, "no snapshot was made");
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
        newest = names(&data.join("journal"), ".snapshot");
        scheduler.stop();
        scheduler.ended().await.unwrap();
    }
    let segment = fs::read(archive.join("0000000001.segment")).unwrap();
    assert!(segment.starts_with(b"FWJOURNL") && !data.join("journal/0000000001.segment").exists());

    // A snapshot of another cluster beside a journal.
    let other = folder.path().join("other");
    once(&other).await;
    let newest = newest.unwrap();
    fs::copy(data.join("journal").join(&newest), other.join("journal").join(&newest)).unwrap();
    let mixed = refused(SchedulerConfig { data: other, ..config }).await;
    assert!(mixed.to_string().contains("belongs to journal"), "{mixed}");
}
