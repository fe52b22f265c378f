//! Several initrds are one file to a machine, each part at a multiple of four octets.

use super::site::{AUTO, Site, is_missing};

#[tokio::test]
async fn several_initrds_are_one_file() {
    if is_missing() {
        return;
    }
    let site = Site::start(AUTO).await;
    let files = site.dir.path().join("files");
    std::fs::create_dir_all(files.join("boot")).unwrap();
    std::fs::write(files.join("boot/microcode"), "micro").unwrap();
    std::fs::write(files.join("first"), "12345678").unwrap();
    std::fs::write(site.dir.path().join("secret"), "secret").unwrap();
    site.gives().await;
    assert_eq!(site.fetch("GET", "/joined/boot/microcode,first", "").await, (200, "micro\x00\x00\x0012345678\n".to_owned()));
    assert_eq!(site.fetch("GET", "/joined/first", "").await, (200, "12345678\n".to_owned()));
    let (status, body) = site.fetch("HEAD", "/joined/boot/microcode,first", "").await;
    assert_eq!((status, body.trim()), (200, ""));
    for bad in ["first,none", "boot", "first,", "../secret", "boot/../../secret", "%2e%2e/secret", "first,../secret", "/etc/passwd", ""] {
        let (status, body) = site.fetch("GET", &format!("/joined/{bad}"), "").await;
        assert_eq!(status, 404, "{bad}: {body}");
    }
}
