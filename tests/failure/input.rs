//! What cannot be opened says why, and leaves nothing behind that would keep the next one from opening.

use std::fs;
use std::io;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;

use lockkeeper::{ConfigError, Keeper, OpenError, Place};

use crate::stage;
use crate::support::{SOON, folder, get, open, put};

fn refusal(folder: &Path) -> OpenError {
    Keeper::builder()
        .path(folder)
        .open()
        .expect_err("this cannot be opened")
}

/// What comes next works.
fn assert_opens(folder: &Path) {
    let (keeper, numbers) = open(folder);
    put(&keeper, numbers, 1, 10).unwrap();
    assert_eq!(get(&keeper, numbers, 1), Some(10));
    keeper.blocking_shutdown(SOON).unwrap();
}

#[test]
fn a_settings_file_with_nonsense_names_the_file_and_the_line() {
    let folder = folder();
    let settings = folder.path().join("lockkeeper.toml");
    let cases: [(&[u8], usize, &str); 9] = [
        (b"# fine\nmap_size = \"1MiB\"\nquue = 3\n", 3, "queue"),
        (b"queue = \"many\"\n", 1, "number"),
        (b"\n\ndeadline = 5\n", 3, "duration"),
        (b"queue = 0\n", 1, "1"),
        (
            b"map_size = \"2GiB\"\nmax_map_size = \"1GiB\"\n",
            1,
            "max_map_size",
        ),
        (b"durability = \"mostly\"\n", 1, "no-sync"),
        (b"queue = 1\nthis is no toml\n", 2, ""),
        (b"queue = 1\nqueue = 2\n", 2, ""),
        (b"queue = 1\n\xff\xfe\n", 2, "UTF-8"),
    ];
    for (text, expected_line, expected) in cases {
        fs::write(&settings, text).unwrap();
        let shown = String::from_utf8_lossy(text).into_owned();
        let error = refusal(folder.path());
        let message = error.to_string();
        let (file, line) = match error {
            OpenError::Config(
                ConfigError::Malformed { file, line, .. }
                | ConfigError::Unknown { file, line, .. }
                | ConfigError::Syntax { file, line, .. }
                | ConfigError::OutOfRange {
                    place: Place::File { file, line },
                    ..
                }
                | ConfigError::Contradiction {
                    place: Place::File { file, line },
                    ..
                },
            ) => (file, line),
            other => panic!("{shown}: {other:?}"),
        };
        assert_eq!(file, settings, "{shown}");
        assert_eq!(line, expected_line, "{shown}: {message}");
        assert!(message.contains("lockkeeper.toml"), "{message}");
        assert!(message.contains(expected), "{shown}: {message}");
    }
    // A settings file that is a folder.
    fs::remove_file(&settings).unwrap();
    fs::create_dir(&settings).unwrap();
    let error = refusal(folder.path());
    assert!(
        matches!(&error, OpenError::Config(ConfigError::Unreadable { file, .. }) if *file == settings),
        "{error:?}"
    );
    fs::remove_dir(&settings).unwrap();
    assert!(
        !folder.path().join("data.mdb").exists(),
        "nothing was opened"
    );
    assert_opens(folder.path());
}

#[test]
fn a_folder_that_is_a_file_is_said_to_be_one() {
    let folder = folder();
    let path = folder.path().join("env");
    fs::write(&path, "not a folder").unwrap();
    let error = refusal(&path);
    assert!(
        matches!(&error, OpenError::NotAFolder { path: named } if *named == path),
        "{error:?}"
    );
    let error = refusal(&path.join("below"));
    assert!(
        matches!(&error, OpenError::Folder { source, .. } if source.kind() == io::ErrorKind::NotADirectory),
        "{error:?}"
    );
    assert_eq!(fs::read(&path).unwrap(), b"not a folder");
    fs::remove_file(&path).unwrap();
    assert_opens(&path);
}

#[test]
fn a_data_file_that_is_not_lmdbs_is_said_to_be_none_and_left_alone() {
    let folder = folder();
    let data = folder.path().join("data.mdb");
    let mut noise = vec![0_u8; 64 << 10];
    let mut state = 88_172_645_463_325_252_u64;
    for byte in &mut noise {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        *byte = state as u8;
    }
    let mut other_version = vec![0_u8; 8192];
    // A meta page of another version: flags, magic, version.
    other_version[10] = 8;
    other_version[16..20].copy_from_slice(&0xBEEF_C0DE_u32.to_ne_bytes());
    other_version[20..24].copy_from_slice(&999_u32.to_ne_bytes());
    for (what, bytes) in [
        ("noise", noise),
        ("text", b"id,balance\n1,100\n".repeat(1000)),
        ("a short file", vec![7; 100]),
        ("zeros", vec![0; 16 << 10]),
        ("another version", other_version),
    ] {
        fs::write(&data, &bytes).unwrap();
        let error = refusal(folder.path());
        match &error {
            OpenError::NotLmdb { path, .. } => {
                assert_eq!(
                    *path,
                    folder.path().canonicalize().unwrap().join("data.mdb")
                );
            }
            other => panic!("{what}: {other:?}"),
        }
        assert!(error.to_string().contains("data.mdb"), "{error}");
        assert!(fs::read(&data).unwrap() == bytes, "{what} was changed");
    }
    fs::remove_file(&data).unwrap();
    fs::create_dir(&data).unwrap();
    let error = refusal(folder.path());
    assert!(matches!(error, OpenError::Folder { .. }), "{error:?}");
    fs::remove_dir(&data).unwrap();
    // An empty file is what a process leaves that died while it made the environment: a new one.
    fs::write(&data, b"").unwrap();
    assert_opens(folder.path());
}

#[test]
fn the_same_environment_twice_in_one_process_is_refused_however_it_is_named() {
    let folder = folder();
    let first = folder.path().join("first");
    let (keeper, numbers) = open(&first);
    put(&keeper, numbers, 1, 10).unwrap();

    let link = folder.path().join("link");
    symlink(&first, &link).unwrap();
    let beside = folder.path().join("beside");
    fs::create_dir(&beside).unwrap();
    fs::hard_link(first.join("data.mdb"), beside.join("data.mdb")).unwrap();
    let linked = folder.path().join("linked");
    fs::create_dir(&linked).unwrap();
    symlink(first.join("data.mdb"), linked.join("data.mdb")).unwrap();
    let dotted = first.join("..").join("first");
    for again in [&first, &link, &beside, &linked, &dotted] {
        for _ in 0..2 {
            let error = refusal(again);
            assert!(
                matches!(error, OpenError::AlreadyOpen { .. }),
                "{}: {error:?}",
                again.display()
            );
        }
    }
    // The one that is open has noticed nothing: its locks are whole.
    put(&keeper, numbers, 2, 20).unwrap();
    assert_eq!(stage::read_elsewhere(&first), [(1, 10), (2, 20)].into());
    let other = folder.path().join("other");
    assert_opens(&other);
    keeper.blocking_shutdown(SOON).unwrap();
    // By any of its names, once it is closed.
    assert_opens(&link);
    assert_opens(&beside);
}

const UNPRIVILEGED: &str = "input::a_folder_that_is_not_writable_is_named_with_the_reason";

/// Root may write anywhere, so the test is played by nobody.
#[test]
fn a_folder_that_is_not_writable_is_named_with_the_reason() {
    if let Some(folder) = stage::role(UNPRIVILEGED) {
        return as_nobody(&folder);
    }
    // Not below the build's folder, which nobody may be able to reach.
    let dir = tempfile::tempdir().unwrap();
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let read_only = dir.path().join("read-only");
    let data = dir.path().join("data");
    fs::create_dir(&read_only).unwrap();
    let (keeper, numbers) = open(&data);
    put(&keeper, numbers, 1, 10).unwrap();
    keeper.blocking_shutdown(SOON).unwrap();
    for file in fs::read_dir(&data).unwrap() {
        let file = file.unwrap().path();
        fs::set_permissions(file, fs::Permissions::from_mode(0o444)).unwrap();
    }
    fs::set_permissions(&data, fs::Permissions::from_mode(0o777)).unwrap();
    fs::set_permissions(&read_only, fs::Permissions::from_mode(0o555)).unwrap();
    let here = folder();
    let (status, output) = stage::run(stage::program(UNPRIVILEGED, dir.path()), here.path());
    assert!(status.success() && output.contains("1 passed"), "{output}");
    fs::set_permissions(&read_only, fs::Permissions::from_mode(0o755)).unwrap();
    assert_opens(&read_only);
}

#[expect(unsafe_code, reason = "the standard library changes no user ids")]
fn as_nobody(folder: &Path) {
    const NOBODY: u32 = 65_534;
    // SAFETY: plain system calls on a process that does nothing else; both answer whether they worked.
    unsafe {
        if libc::geteuid() == 0 {
            assert_eq!(libc::setgroups(0, std::ptr::null()), 0);
            assert_eq!(libc::setgid(NOBODY), 0);
            assert_eq!(libc::setuid(NOBODY), 0);
        }
    }
    for path in [
        folder.join("read-only"),
        folder.join("read-only").join("new"),
        folder.join("data"),
    ] {
        let error = refusal(&path);
        match &error {
            OpenError::Folder {
                path: named,
                source,
            } => {
                assert_eq!(*named, path);
                assert_eq!(source.kind(), io::ErrorKind::PermissionDenied);
            }
            other => panic!("{}: {other:?}", path.display()),
        }
        assert!(
            error.to_string().contains(path.to_str().unwrap()),
            "{error}"
        );
    }
}
