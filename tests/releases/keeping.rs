//! How many releases stay, and which.

use agentd_testkit::e2e::Output;

use crate::site::{Site, assert_code, eventually};

fn ship(site: &Site, version: &str, text: &str) -> Output {
    site.source(version, text, "");
    site.upgrade(&[])
}

fn versions(site: &Site) -> Vec<String> {
    site.releases().into_iter().map(|release| release.version).collect()
}

#[test]
fn the_newest_stay_and_the_way_back_with_them() {
    let site = Site::new();
    site.configure("releases = { keep = 2 }");
    site.daemon.ctl_ok(&["start", "./site.toml"]);
    assert_code(&ship(&site, "1.1.0", "two"), 0);
    assert_code(&ship(&site, "1.2.0", "three"), 0);
    assert_eq!(versions(&site), ["1.2.0", "1.1.0"]);
    for version in ["1.3.0", "1.4.0", "1.5.0"] {
        assert_code(&ship(&site, version, "fails"), 5);
    }
    let kept = versions(&site);
    assert!(kept.contains(&"1.1.0".to_owned()) && kept.contains(&"1.2.0".to_owned()), "{kept:?}");
    assert!(kept.len() <= 4, "{kept:?}");
    site.assert_nothing_else();
    site.daemon.ctl_ok(&["rollback", "search"]);
    assert_eq!(site.says(), "two");
}

#[test]
fn an_app_that_is_deleted_takes_its_releases_with_it() {
    let site = Site::started();
    assert_code(&ship(&site, "1.1.0", "two"), 0);
    site.daemon.ctl_ok(&["delete", "search"]);
    eventually("its folder is gone", || !site.path("state/releases/search").exists());
    site.daemon.ctl_ok(&["start", "./site.toml"]);
    assert_eq!(versions(&site), ["1.1.0"]);
}

#[test]
fn releases_and_what_became_of_them_are_known_to_the_next_daemon() {
    let mut site = Site::started();
    assert_code(&ship(&site, "1.1.0", "two"), 0);
    assert_code(&ship(&site, "1.2.0", "fails"), 5);
    let before = site.releases();
    site.daemon.kill();
    site.daemon.start_again();
    assert_eq!(site.releases(), before);
    assert_eq!(site.daemon.app("search").release, before[1].id);
    site.daemon.ctl_ok(&["rollback", "search"]);
    assert_eq!(site.says(), "one");
}
