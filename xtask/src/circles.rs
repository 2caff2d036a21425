//! Finds import circles: files of one crate that import each other, directly or through others.

use std::collections::{BTreeMap, BTreeSet};
use std::iter::from_fn;

use anyhow::{Result, anyhow, bail};
use proc_macro2::{TokenStream, TokenTree};

/// Maps module paths (`bench/peers`; empty for the root) to the text of their files.
type Files = BTreeMap<String, String>;

/// Fails if a crate of the workspace has a circle.
pub(crate) fn check() -> Result<()> {
    let arguments = ["ls-files", "--cached", "--others", "--exclude-standard", "*/src/*.rs"];
    let list = String::from_utf8(crate::run::command("git").args(arguments).output()?.stdout)?;
    let mut crates = BTreeMap::<&str, Files>::new();
    let shipped = |path: &&str| !path.contains("tests.rs") && !path.contains("/tests/");
    for path in list.lines().filter(shipped) {
        let (name, file) = path.split_once("/src/").unwrap_or_default();
        let module = file.trim_end_matches(".rs").trim_end_matches("/mod");
        let module = if matches!(module, "lib" | "main") { "" } else { module };
        // Git lists a file that was removed until that is committed.
        if let Ok(text) = std::fs::read_to_string(crate::run::workspace().join(path)) {
            crates.entry(name).or_default().insert(module.to_owned(), text);
        }
    }
    for (name, files) in &crates {
        if let Some(circle) = circle(files)? {
            bail!("import circle in {name}: {}; move what is shared lower", circle.join(" -> "));
        }
    }
    Ok(())
}

/// Returns files of which each imports the next, and the last is the first; or `None`.
fn circle(files: &Files) -> Result<Option<Vec<&str>>> {
    let mut imports = BTreeMap::new();
    for (file, text) in files {
        let scope: Vec<_> = file.split('/').map(str::to_owned).collect();
        let (tokens, mut paths) = (text.parse().map_err(|e| anyhow!("{file}: {e}"))?, Vec::new());
        collect(tokens, &scope, false, &mut paths);
        // This is the longest part of a path that is a file; the rest is inside that file.
        let imported = paths.iter().filter_map(|path| {
            let parts = (1..=path.len()).rev().filter_map(|len| path.get(..len));
            parts.map(|part| part.join("/")).find_map(|part| files.get_key_value(&part))
        });
        let names = imported.map(|(name, _)| name.as_str()).filter(|name| name != file);
        imports.insert(file.as_str(), names.collect::<BTreeSet<_>>());
    }
    // A file that imports no file is part of no circle; without such files, every way ends in one.
    while let Some(end) = imports.iter().find(|(_, next)| next.is_empty()).map(|(file, _)| *file) {
        imports.remove(end);
        imports.values_mut().for_each(|next| next.retain(|file| *file != end));
    }
    let mut way: Vec<&str> = imports.keys().next().copied().into_iter().collect();
    while let Some(next) = way.last().and_then(|file| imports.get(file)?.first()) {
        let known = way.iter().position(|file| file == next);
        way.push(next);
        if let Some(begin) = known {
            return Ok(Some(way.split_off(begin)));
        }
    }
    Ok(None)
}

/// Collects paths from the crate's root on: those that begin with `crate`, `self` or `super`, and
/// all of a `use` tree. Leaves out what is for tests.
fn collect(tokens: TokenStream, scope: &[String], tree: bool, paths: &mut Vec<Vec<String>>) {
    let mut tokens = tokens.into_iter().peekable();
    while let Some(token) = tokens.next() {
        let (text, is_name) = (token.to_string(), matches!(token, TokenTree::Ident(_)));
        match (text.as_str(), tokens.peek()) {
            ("#", Some(group)) if group.to_string().replace(' ', "") == "[cfg(test)]" => {
                tokens.find(|token| token.to_string() == ";" || token.to_string().starts_with('{'));
            }
            // `pub(super)` imports nothing, and `as` gives a name.
            ("pub", Some(TokenTree::Group(_))) => drop(tokens.next()),
            ("as", _) if tree => drop(tokens.next()),
            (first, _) if is_name && (tree || ["crate", "self", "super"].contains(&first)) => {
                let (mut path, mut part) = (scope.to_vec(), Some(token));
                while let Some(TokenTree::Ident(name)) = &part {
                    match name.to_string().as_str() {
                        "crate" => path.clear(),
                        "super" => drop(path.pop()),
                        "self" => {}
                        name => path.push(name.to_owned()),
                    }
                    let is_colon = |token: &TokenTree| token.to_string() == ":";
                    let colons = from_fn(|| tokens.next_if(is_colon)).count();
                    part = tokens.next_if(|_| colons == 2);
                }
                if let Some(TokenTree::Group(group)) = part {
                    collect(group.stream(), &path, true, paths);
                }
                paths.push(path);
            }
            ("mod", Some(TokenTree::Ident(name))) => {
                let inside = [scope, &[name.to_string()]].concat();
                if let (_, Some(TokenTree::Group(body))) = (tokens.next(), tokens.next()) {
                    collect(body.stream(), &inside, false, paths);
                }
            }
            _ => {
                if let TokenTree::Group(group) = token {
                    collect(group.stream(), scope, tree, paths);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Files, circle};

    #[test]
    fn a_circle_is_found_and_a_line_is_not() {
        let a = "use crate::b::{self, B as C};";
        let files = |b: &str| Files::from([("a".into(), a.into()), ("b".into(), b.into())]);
        let (back, apart) = (
            files("fn f() { panic!(\"{}\", super::a::g()) }"),
            files("#[cfg(test)] mod t { use crate::a::A; } mod i { pub(super) use super::f; }"),
        );
        assert_eq!(circle(&back).unwrap(), Some(vec!["a", "b", "a"]));
        assert_eq!(circle(&apart).unwrap(), None);
    }
}
