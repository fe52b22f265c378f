//! What goes wrong while machines boot, and mends itself.

use std::time::Duration;

use super::machine::Kind;
use super::site::{ADDRESS, ALONE, AUTO, Site, is_missing};

#[tokio::test]
async fn a_kernel_that_is_missing_for_a_minute_is_fetched_when_it_is_there() {
    if is_missing(&[Kind::Bios]) {
        return;
    }
    let _alone = ALONE.lock().await;
    let site = Site::start(&[Kind::Bios], AUTO).await;
    let (kernel, hidden) = (site.lab.dir.join("files/vmlinuz"), site.lab.dir.join("files/hidden"));
    std::fs::rename(&kernel, &hidden).unwrap();
    site.bind("a", "").await;
    super::programs::until("a fetch that fails", Duration::from_secs(180), async || {
        let why = site.why().await;
        if why.contains("the boot script says that its step `kernel` failed") { Ok(()) } else { Err(why) }
    })
    .await;
    tokio::time::sleep(Duration::from_secs(60)).await;
    std::fs::rename(&hidden, &kernel).unwrap();
    let took = site.ready(300).await;
    eprintln!("as desired {:.1} s after the kernel was there", took.as_secs_f64());
    assert!(site.page(ADDRESS).await.unwrap().contains("web-1"));
}
