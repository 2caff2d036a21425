//! The import check finds a circle however its paths are written.

use std::collections::BTreeMap;

use super::circle;

fn files(list: &[(&str, &str)]) -> BTreeMap<String, String> {
    list.iter().map(|(name, text)| ((*name).to_owned(), (*text).to_owned())).collect()
}

#[test]
fn a_circle_is_found_and_a_line_is_not() {
    let a = ("/a", "use crate::b::{self, B as C};");
    let back = files(&[a, ("/b", "fn f() { panic!(\"{}\", super::a::g()) }")]);
    assert_eq!(circle(&back).unwrap(), ["/a", "/b"]);
    let tests = "#[cfg(test)] mod t { use crate::a::A; } mod i { pub(super) use super::f; }";
    assert_eq!(circle(&files(&[a, ("/b", tests)])).unwrap(), [""; 0]);
}

#[test]
fn a_path_may_begin_with_a_child_module() {
    let child = ("/a/b", "use super::A;");
    for parent in ["mod b; use b::B;", "mod b; fn f() -> b::B { b::f() }"] {
        let found = files(&[("/a", parent), child]);
        assert_eq!(circle(&found).unwrap(), ["/a", "/a/b"], "{parent}");
        let root = files(&[("", parent), ("/b", "use crate::A;")]);
        assert_eq!(circle(&root).unwrap(), ["", "/b"], "{parent}");
    }
    let apart = "mod b; use other::b::B; struct S { b: u8 } fn f(s: S) { s.b }";
    assert_eq!(circle(&files(&[("/a", apart), child])).unwrap(), [""; 0]);
}
