//! This module finds import circles: files of one crate that import each other, directly or through
//! others.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Result, anyhow, ensure};
use proc_macro2::TokenTree::{self, Group, Ident, Punct};
use proc_macro2::{Spacing::Joint, TokenStream};

#[cfg(test)]
mod tests;

/// Fails if a crate of the workspace has a circle.
pub(crate) fn check() -> Result<()> {
    let arguments = ["ls-files", "--cached", "--others", "--exclude-standard", "*/src/*.rs"];
    let list = String::from_utf8(crate::run::command("git").args(arguments).output()?.stdout)?;
    let mut crates = BTreeMap::<&str, BTreeMap<String, String>>::new();
    let shipped = |path: &&str| !path.contains("tests.rs") && !path.contains("/tests/");
    for path in list.lines().filter(shipped) {
        let (name, file) = path.split_once("/src").unwrap_or_default();
        let ends = [".rs", "/mod", "/lib", "/main"];
        let module = ends.iter().fold(file, |file, end| file.strip_suffix(end).unwrap_or(file));
        // Git lists a file that was removed until that is committed.
        if let Ok(text) = std::fs::read_to_string(crate::run::workspace().join(path)) {
            crates.entry(name).or_default().insert(module.to_owned(), text);
        }
    }
    for (name, files) in &crates {
        let circle = circle(files)?;
        ensure!(circle.is_empty(), "{name}: import circle; move what is shared lower: {circle:?}");
    }
    Ok(())
}

/// Returns the files that are in a circle, or on a way from one circle to another. `files` maps
/// module paths (`/bench/peers`; empty for the root) to the text of their files.
fn circle(files: &BTreeMap<String, String>) -> Result<Vec<&str>> {
    let mut imports = BTreeMap::new();
    for (file, text) in files {
        let (tokens, mut paths) = (text.parse().map_err(|e| anyhow!("{file}: {e}"))?, Vec::new());
        collect(tokens, file, false, &mut paths);
        // The longest part of a path that is a file is what it imports; the rest is in that file.
        let imported = paths.iter().filter_map(|path| {
            let mut parts =
                std::iter::successors(Some(path.as_str()), |path| Some(path.rsplit_once('/')?.0));
            Some(parts.find_map(|part| files.get_key_value(part))?.0.as_str())
        });
        imports.insert(&**file, imported.filter(|name| name != file).collect::<BTreeSet<_>>());
    }
    // A file that imports none, or that none imports, is in no circle.
    for _ in files {
        let imported: BTreeSet<_> = imports.values().flatten().copied().collect();
        imports.retain(|file, next| imported.contains(file) && !next.is_empty());
        let left: BTreeSet<_> = imports.keys().copied().collect();
        imports.values_mut().for_each(|next| next.retain(|file| left.contains(file)));
    }
    Ok(imports.into_keys().collect())
}

/// Collects all paths, each as if what it begins with were a module of `scope`, and all names of a
/// `use` tree. Leaves out what is for tests.
fn collect(tokens: TokenStream, scope: &str, tree: bool, paths: &mut Vec<String>) {
    let is = |token: &TokenTree, text| token.to_string().replace(' ', "") == text;
    let joins = |t: &TokenTree| matches!(t, Punct(p) if p.as_char() == ':' && p.spacing() == Joint);
    let mut tokens = tokens.into_iter().peekable();
    while let Some(token) = tokens.next() {
        match (&token, tokens.peek()) {
            (_, Some(group)) if is(group, "[cfg(test)]") => {
                tokens.find(|token| is(token, ";") || token.to_string().starts_with('{'));
            }
            // `pub(super)` imports nothing, and `as` gives a name.
            (word, Some(Group(_))) if is(word, "pub") => drop(tokens.next()),
            (word, _) if tree && is(word, "as") => drop(tokens.next()),
            (word, Some(Ident(name))) if is(word, "mod") => {
                let inside = format!("{scope}/{name}");
                let Some(Group(body)) = tokens.nth(1) else { continue };
                collect(body.stream(), &inside, false, paths);
            }
            (Ident(_), next) if tree || next.is_some_and(joins) => {
                let (mut path, mut part) = (scope.to_owned(), Some(token));
                while let Some(Ident(name)) = &part {
                    match name.to_string().as_str() {
                        "crate" => path.clear(),
                        "super" => path.truncate(path.rfind('/').unwrap_or(0)),
                        "self" => {}
                        name => path = format!("{path}/{name}"),
                    }
                    part = tokens.next_if(joins).and_then(|_| tokens.nth(1));
                }
                match part {
                    Some(Group(group)) => collect(group.stream(), &path, true, paths),
                    _ => paths.push(path),
                }
            }
            (Group(group), _) => collect(group.stream(), scope, tree, paths),
            _ => {}
        }
    }
}
